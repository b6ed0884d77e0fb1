//! What the billing system was told.

use super::{Day, Grid, Instant, Rounding, Zone};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proration {
    Day,
    Second,
    Thirty,
    ThirtyStrict,
    None,
}

#[derive(Clone, Debug)]
pub struct Meter {
    pub key: String,
    pub event_type: String,
    /// None counts, else the property that is summed.
    pub value: Option<String>,
    /// The greatest value, not the sum.
    pub greatest: bool,
    pub dimensions: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct PriceVersion {
    /// The first has no beginning.
    pub from: Option<Instant>,
    /// When it was said, by the count of what was said.
    pub said: u64,
    pub pricing: Value,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub id: String,
    pub event_type: String,
    pub at: Instant,
    pub bill_to: Option<String>,
    pub properties: BTreeMap<String, String>,
    pub live: bool,
}

impl Event {
    /// What an application draws by itself.
    pub fn drawn(at: Instant) -> Event {
        let properties = BTreeMap::new();
        Event { id: String::new(), event_type: String::new(), at, bill_to: None, properties, live: true }
    }
}

/// One change of a contract, as it was said.
#[derive(Clone, Debug)]
pub struct Change {
    /// A local midnight, unless the contract prorates by seconds.
    pub effective: Instant,
    pub kind: Kind,
    /// The change's document.
    pub doc: Value,
    pub said: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Create,
    Amend,
    ChangePlan,
    Pause,
    Resume,
    Cancel,
    Renew,
}

/// What was chosen for a contract where practice disagrees, beside its rounding and proration.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// `downgrade_timing` = immediate.
    pub at_once: bool,
    /// `credit_on_decrease` = none.
    pub keeps: bool,
    /// `co_term` = month.
    pub by_month: bool,
}

#[derive(Clone, Debug)]
pub struct Contract {
    pub key: String,
    pub customer: String,
    pub currency: String,
    pub zone: String,
    pub bill_to: String,
    pub starts: Day,
    /// Without changes; None runs on.
    pub ends: Option<Day>,
    pub interval: u32,
    pub grid: Grid,
    pub pinned: Option<Instant>,
    pub rounding: Rounding,
    pub proration: Proration,
    /// Policy rate_at = period_start.
    pub by_start: bool,
    /// Policy tier_continuity = reset.
    pub reset: bool,
    /// Policy invoice_grace, in days.
    pub grace: i64,
    pub policies: Policies,
    pub changes: Vec<Change>,
    /// Each boundary that was billed: its day, and what had been said by then.
    pub billed: Vec<(Day, u64)>,
    /// What had been said by each run that looked at it after its last boundary.
    pub looked: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Customer {
    pub key: String,
    pub bill_tos: Vec<String>,
    pub overrides: Vec<Value>,
    pub events: Vec<Event>,
}

/// All that was said.
#[derive(Default)]
pub struct World {
    pub zones: BTreeMap<String, Zone>,
    pub minor_units: BTreeMap<String, u32>,
    pub meters: BTreeMap<String, Meter>,
    /// By book and price.
    pub prices: BTreeMap<(String, String), Vec<PriceVersion>>,
    pub plans: BTreeMap<String, Value>,
    pub customers: BTreeMap<String, Customer>,
    pub contracts: BTreeMap<String, Contract>,
}

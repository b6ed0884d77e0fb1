//! What one bill is computed from: a contract's charges with prices and quantities for one boundary.

use super::commitments::Commitment;
use crate::domain::contracts::overrides::{Change, Target};
use crate::domain::contracts::resolve::{Agreed, ListPrice, Prices};
use crate::domain::foundation::calendar::{Interval, Period};
use crate::domain::foundation::hash::sha256_hex;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::proration::{Elapsed, ProrationBasis};
use crate::domain::foundation::{Exact, RoundingLevel, RoundingMode};
use crate::domain::metering::{Dimensions, Measure};
use crate::domain::rating::{Pricing, TierContinuity};
use chrono::{NaiveDate, NaiveTime};
use std::fmt::Write;

#[derive(Debug, Clone)]
pub struct Inputs {
    pub header: Header,
    pub minor_units: u32,
    pub rounding_mode: RoundingMode,
    pub rounding_level: RoundingLevel,
    pub proration_basis: ProrationBasis,
    /// None on what was billed before there was such a policy.
    pub tier_continuity: Option<TierContinuity>,
    /// Whether usage without a price is left out rather than a fault.
    pub bills_unpriced: bool,
    /// Policies in force, name and value, as the document records them.
    pub policies: Vec<(String, String)>,
    pub charges: Vec<Charge>,
    /// Overrides of both scopes; each charge takes those that target it.
    pub agreed: Vec<Agreed>,
    /// Rows of commitments, in order of their priority, key and time.
    pub commitments: Vec<Commitment>,
    /// Price versions in play, `book/key@version`, as the document records them.
    pub prices: Vec<String>,
    /// Meters that are not in their first version, `key@version`.
    pub meters: Vec<String>,
    /// Where one of them ends inside the bill's periods and no other follows.
    pub price_ends: Vec<(String, Instant)>,
    /// Versions that price what those don't, with their ends: of a bill that is compared.
    pub later_prices: Vec<(String, Option<Instant>)>,
}

/// Whose bill it is.
#[derive(Debug, Clone)]
pub struct Header {
    pub contract: String,
    pub customer: String,
    pub seller: String,
    pub currency: String,
    /// The legal entity that gets what names none.
    pub bill_to: String,
    pub contract_version: i64,
    pub terms_version: i64,
}

#[derive(Debug, Clone)]
pub struct Charge {
    pub key: String,
    pub product: String,
    pub every: Interval,
    pub periods: Vec<ServicePeriod>,
    pub kind: ChargeKind,
}

#[derive(Debug, Clone)]
pub enum ChargeKind {
    Usage(Box<UsageTerms>),
    Fee { pricing: Box<Pricing>, quantity: Exact, proration: Option<ProrationBasis> },
}

#[derive(Debug, Clone)]
pub struct UsageTerms {
    pub meter: String,
    pub aggregation: Measure,
    pub unit: Option<String>,
    pub matches: Dimensions,
    pub lines_by: Vec<String>,
    /// The meter's dimensions in order of priority.
    pub dimensions: Vec<String>,
    pub prorate_units: bool,
    pub list: Vec<ListPrice>,
    /// Names of the list's versions, `book/key@version`, in its order; empty for the charge's own pricing.
    pub list_names: Vec<String>,
    /// Versions published since the bill, for what it left out: they price what no version of the list does.
    pub later: Vec<ListPrice>,
    pub later_names: Vec<String>,
}

/// One service period of a charge.
#[derive(Debug, Clone)]
pub struct ServicePeriod {
    pub from: Instant,
    pub until: Instant,
    /// Local dates, with the whole period this one is part of.
    pub days: Period,
    pub elapsed: Elapsed,
    /// Stretches inside which no price changes, in order. None for fees.
    pub segments: Vec<Segment>,
}

#[derive(Debug, Clone)]
pub struct Segment {
    pub from: Instant,
    pub until: Instant,
    /// The instant whose prices hold.
    pub price_at: Instant,
    pub usage: Vec<Usage>,
}

#[derive(Debug, Clone)]
pub struct Usage {
    /// `bill_to` is one of them where the events named it.
    pub dimensions: Dimensions,
    pub quantity: Exact,
    pub events: u64,
    /// Amounts of the single events in (occurred_at, event_key) order, where the price needs them.
    pub amounts: Option<Vec<Exact>>,
    /// The places of these events among all of the segment.
    pub places: Vec<u32>,
}

impl Inputs {
    /// Everything that can price one usage charge.
    pub fn prices(&self, charge: &str, terms: &UsageTerms) -> Prices {
        let mine = |agreed: &&Agreed| match &agreed.target {
            Target::Charge(key) => key == charge,
            Target::Meter(key) => *key == terms.meter,
        };
        Prices {
            list: terms.list.clone(),
            later: terms.later.clone(),
            agreed: self.agreed.iter().filter(mine).cloned().collect(),
            priority: terms.dimensions.clone(),
        }
    }
}

impl ServicePeriod {
    /// The local day that names the period in line keys.
    pub fn day(&self) -> NaiveDate {
        self.days.starts_on
    }

    /// The instant whose prices hold for what runs over the whole period: its start, but a price valid from
    /// 00:00 UTC of its first day counts as valid from its start, so that one instant suits all time zones.
    pub fn price_at(&self) -> Instant {
        let utc_midnight = Instant(self.days.starts_on.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
        if utc_midnight < self.until { self.from.max(utc_midnight) } else { self.from }
    }

    /// The segment in which that instant is.
    pub fn first_segment(&self) -> usize {
        let begins = self.price_at();
        self.segments.iter().rposition(|segment| segment.from <= begins).unwrap_or(0)
    }

    /// The first segment from 00:00 UTC of the next period's first day on, where that is before this one's end, as it is
    /// west of UTC; else behind the last.
    pub fn next_segment(&self) -> usize {
        let next = Instant(self.days.ends_on.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
        self.segments.partition_point(|segment| segment.from < next)
    }
}

// ── the digest ───────────────────────────────────────────────────────────────────────────────────

impl Inputs {
    /// SHA-256 of everything the bill is computed from. The text behind it is this function: one line a fact,
    /// texts quoted, in the order of the inputs. It is stored on invoices, so it never changes for them.
    pub fn sha256(&self) -> String {
        let mut text = String::with_capacity(2048);
        self.describe(&mut text).expect("writing to a string can't fail");
        sha256_hex(text.as_bytes())
    }

    fn describe(&self, out: &mut String) -> std::fmt::Result {
        let h = &self.header;
        writeln!(
            out,
            "bill 1 {:?} {:?} {:?} {:?} {:?} {} {} {}",
            h.contract,
            h.customer,
            h.seller,
            h.currency,
            h.bill_to,
            h.contract_version,
            h.terms_version,
            self.minor_units
        )?;
        for (name, value) in &self.policies {
            writeln!(out, "policy {name:?} {value:?}")?;
        }
        for price in &self.prices {
            writeln!(out, "price {price:?}")?;
        }
        for (price, end) in &self.later_prices {
            writeln!(out, "later {price:?} {}", span(None, *end))?;
        }
        for meter in &self.meters {
            writeln!(out, "meter {meter:?}")?;
        }
        for agreed in &self.agreed {
            describe_agreed(agreed, out)?;
        }
        self.commitments.iter().try_for_each(|commitment| commitment.describe(out))?;
        // Bills of before there was tier_continuity never asked for the order of events over lines, and never said it.
        let with_places = self.tier_continuity.is_some();
        self.charges.iter().try_for_each(|charge| charge.describe(with_places, out))
    }
}

fn span(from: Option<Instant>, until: Option<Instant>) -> String {
    let end = |at: Option<Instant>| at.map_or("-".to_string(), |at| at.0.to_string());
    format!("{} {}", end(from), end(until))
}

fn describe_agreed(agreed: &Agreed, out: &mut String) -> std::fmt::Result {
    let (kind, target) = match &agreed.target {
        Target::Meter(key) => ("meter", key),
        Target::Charge(key) => ("charge", key),
    };
    let change = match &agreed.change {
        Change::UnitPrice(price) => format!("unit_price {price}"),
        Change::PercentOff(percent) => format!("percent_off {percent} {}", agreed.stackable),
        Change::Pricing(pricing) => pricing.canonical(),
    };
    let (source, span) = (agreed.scope.source(), span(agreed.from, agreed.until));
    writeln!(out, "{source} {kind} {target:?} {} {span} {change}", agreed.matches.canonical())
}

impl Charge {
    fn describe(&self, with_places: bool, out: &mut String) -> std::fmt::Result {
        writeln!(out, "charge {:?} {:?} {}", self.key, self.product, self.every)?;
        match &self.kind {
            ChargeKind::Fee { pricing, quantity, proration } => {
                let proration = proration.map_or("-", |basis| basis.as_str());
                writeln!(out, "fee {quantity} {proration} {}", pricing.canonical())?;
            }
            ChargeKind::Usage(terms) => {
                writeln!(
                    out,
                    "usage {:?} {} {:?} {} {:?} {:?} {}",
                    terms.meter,
                    terms.aggregation.word(),
                    terms.unit,
                    terms.matches.canonical(),
                    terms.lines_by,
                    terms.dimensions,
                    terms.prorate_units
                )?;
                for list in &terms.list {
                    writeln!(out, "list {:?} {} {}", list.label, span(list.from, list.until), list.sha256)?;
                }
            }
        }
        self.periods.iter().try_for_each(|period| period.describe(with_places, out))
    }
}

impl ServicePeriod {
    fn describe(&self, with_places: bool, out: &mut String) -> std::fmt::Result {
        let (d, e) = (&self.days, &self.elapsed);
        writeln!(
            out,
            "period {} {} {} {} {} {} {} {}",
            d.starts_on,
            d.ends_on,
            d.whole_starts_on,
            d.whole_ends_on,
            self.from.0,
            self.until.0,
            e.part_micros,
            e.whole_micros
        )?;
        for segment in &self.segments {
            writeln!(out, "segment {} {} {}", segment.from.0, segment.until.0, segment.price_at.0)?;
            for usage in &segment.usage {
                writeln!(
                    out,
                    "used {} {} {} {:?}",
                    usage.dimensions.canonical(),
                    usage.quantity,
                    usage.events,
                    usage.amounts
                )?;
                // Of one line the order of its amounts says it.
                if with_places && segment.usage.len() > 1 && !usage.places.is_empty() {
                    writeln!(out, "places {:?}", usage.places)?;
                }
            }
        }
        Ok(())
    }
}

//! What `billing.customer_summary()` says, as far as the page shows it. What is absent or null is left out of the page.

use crate::domain::foundation::Fault;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Summary {
    pub name: String,
    pub seller: String,
    pub currency: String,
    pub time_zone: String,
    /// `YYYY-MM-DD HH:MM` in the customer's zone.
    pub as_of_local: String,
    pub today: String,
    pub problem: bool,
    pub contracts: Vec<Contract>,
    pub period: Period,
    pub usage: Vec<Usage>,
    pub spend: Option<Vec<Spend>>,
    pub commitments: Option<Vec<Commitment>>,
    pub credits: Option<Vec<Credit>>,
    #[serde(default)]
    pub entitlements: Vec<Entitlement>,
    pub balances: Vec<Balance>,
    pub invoices: Vec<Invoice>,
}

#[derive(Debug, Deserialize)]
pub struct Contract {
    pub contract: String,
    pub state: String,
    pub plan: Option<String>,
    pub currency: String,
    pub starts_on: String,
    pub ends_on: Option<String>,
    pub billed_every: String,
    pub net_days: i64,
    pub renews: bool,
    pub notice_deadline: Option<String>,
    pub next_invoice: Option<NextInvoice>,
}

#[derive(Debug, Deserialize)]
pub struct NextInvoice {
    pub on: Option<String>,
    pub currency: String,
    pub total: Option<String>,
    pub credits: Option<String>,
    pub due: Option<String>,
    pub lines: Option<Vec<Line>>,
}

#[derive(Debug, Deserialize)]
pub struct Line {
    pub label: String,
    pub quantity: Option<String>,
    pub unit: Option<String>,
    pub amount: String,
}

#[derive(Debug, Deserialize)]
pub struct Period {
    pub starts_on: String,
    /// Exclusive.
    pub ends_on: String,
    pub days: String,
    pub day: String,
    pub over: bool,
}

#[derive(Debug, Deserialize)]
pub struct Usage {
    pub meter: String,
    pub unit: String,
    pub quantity: Option<String>,
    pub events: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Spend {
    pub currency: String,
    pub amount: String,
    pub usage: String,
    pub fees: String,
    pub other: String,
    pub dimension: Option<String>,
    pub by_part: Option<Vec<Part>>,
    pub by_day: Option<Vec<DayPart>>,
    pub burn: Option<Burn>,
    pub forecast: Option<Forecast>,
}

#[derive(Debug, Deserialize)]
pub struct Part {
    pub part: String,
    pub dimension: bool,
    pub amount: String,
}

#[derive(Debug, Deserialize)]
pub struct DayPart {
    pub day: String,
    pub part: String,
    pub dimension: bool,
    pub amount: String,
}

#[derive(Debug, Deserialize)]
pub struct Burn {
    pub per_day: String,
    pub days: String,
}

#[derive(Debug, Deserialize)]
pub struct Forecast {
    pub amount: String,
    pub days_left: String,
}

#[derive(Debug, Deserialize)]
pub struct Commitment {
    pub key: String,
    pub kind: String,
    pub unit: String,
    pub amount: String,
    pub starts_on: String,
    pub ends_on: Option<String>,
    pub consumed: Option<String>,
    pub remaining: Option<String>,
    pub percent: Option<String>,
    pub time_percent: Option<String>,
    pub projected: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Credit {
    pub unit: String,
    pub posted: String,
    pub pending: String,
    pub available: String,
    pub upcoming: String,
    pub blocks: Vec<Block>,
}

#[derive(Debug, Deserialize)]
pub struct Block {
    pub block: String,
    pub category: String,
    pub standing: String,
    pub granted: String,
    pub used: String,
    pub left: String,
    pub effective_on: String,
    pub expires_on: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Entitlement {
    pub name: String,
    pub kind: String,
    pub allowed: Option<bool>,
    pub reason: Option<String>,
    pub value: Option<String>,
    pub unit: Option<String>,
    pub used: Option<String>,
    pub quota: Option<String>,
    pub remaining: Option<String>,
    pub mode: Option<String>,
    pub resets_on: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Balance {
    pub currency: String,
    pub open: String,
    pub overdue: String,
    pub invoices: String,
}

#[derive(Debug, Deserialize)]
pub struct Invoice {
    pub invoice: String,
    pub kind: String,
    pub state: String,
    pub bill_to: String,
    pub issued_on: String,
    pub due_on: String,
    pub currency: String,
    pub total: String,
    pub credits: String,
    pub due: String,
    pub overdue: bool,
}

pub fn read(text: &str) -> Result<Summary, Fault> {
    serde_json::from_str(text).map_err(|error| {
        Fault::document("", format!("is no customer summary: {error}"))
            .with_hint("SELECT billing.customer_summary('acme'); makes one.")
    })
}

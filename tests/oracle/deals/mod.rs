//! What a deal costs, told naively: day by day for fees, event by event for usage, in exact fractions. It shares no
//! code with the engine, reads the same documents, and knows nothing of tables, versions of rows or differences: it is
//! asked what all documents of a contract must sum to, and computes that anew from the beginning each time.
//!
//! The rules are those of docs/*.md; where they leave something open, the comment says how it is read here.
#![allow(dead_code)]

mod calendar;
mod commitments;
mod credits;
mod documents;
mod fees;
mod items;
mod numbers;
mod promises;
mod rating;
mod terms;
mod told;
mod usage;
mod wallets;

pub use calendar::*;
pub use credits::*;
pub use numbers::*;
pub use terms::*;
pub use told::*;
pub use wallets::*;

use num_traits::Zero;
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;

use documents::{list, text};

/// What amounts are summed by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub contract: String,
    pub bill_to: String,
    pub charge: String,
    /// The first day of the service period, as it is cut without changes.
    pub period: Day,
    /// line, true_up or cap.
    pub part: &'static str,
    /// `name=value` of the line's dimensions, in order of their names.
    pub dimensions: String,
}

pub type Amounts = BTreeMap<Key, Q>;

impl World {
    /// What all documents of a contract must sum to, given which of its boundaries were billed.
    pub fn expected(&self, contract: &Contract) -> Amounts {
        let mut sums = Amounts::new();
        if contract.billed.is_empty() {
            return sums;
        }
        let last = contract.billed.last().expect("a boundary").0;
        let end = contract.end().unwrap_or(Day::MAX);
        let open = contract.grid.period(last, contract.interval).1; // the end of the period begun at the last boundary
        let mut cache: BTreeMap<Instant, Rc<Terms>> = BTreeMap::new();
        let mut terms_at = |at: Instant| -> Rc<Terms> {
            let at = contract.changes.iter().map(|c| c.effective).filter(|e| *e <= at).max().expect("begun");
            cache.entry(at).or_insert_with(|| Rc::new(self.terms(contract, at))).clone()
        };
        // Every key that is or was in force, with its rhythm.
        let rhythms = |name: &str| {
            let mut found: BTreeMap<String, Value> = BTreeMap::new();
            for item in contract.named(self, name) {
                if item["remove"] != Value::Bool(true) && item["once"] != Value::Bool(true) {
                    found.entry(text(&item, "key").expect("a key").to_owned()).or_insert(item);
                }
            }
            found
        };
        for (key, any) in &rhythms("fees") {
            let every = text(any, "every").map_or(contract.interval, months);
            let advance = text(any, "timing") != Some("arrears");
            if advance && contract.policies.keeps {
                for (day, amount) in self.kept(contract, key, every) {
                    *sums.entry(self.key(contract, key, day, "line", "")).or_insert_with(|| q(0)) += amount;
                }
                continue;
            }
            let mut day = contract.starts;
            while day < end {
                let whole = contract.grid_of(every).period(day, every);
                let (from, until) = (day, whole.1.min(end));
                if from >= if advance { open } else { last } {
                    break;
                }
                let billed = if advance { fees::Billed::Advance(open) } else { fees::Billed::Arrears(last) };
                let amount = self.fee(contract, key, every, whole, (from, until), billed, &mut terms_at);
                *sums.entry(self.key(contract, key, from, "line", "")).or_insert_with(|| q(0)) += amount;
                day = until;
            }
        }
        for (fee, day) in self.once(contract) {
            if day < end && day <= last {
                let terms = terms_at(self.zone(contract).midnight(day));
                let amount = rating::rate(
                    &fee["pricing"],
                    &documents::maybe(&fee, "quantity").unwrap_or_else(|| q(1)),
                );
                let amount = amount * self.off(contract, &terms, &fee, day);
                let key = self.key(contract, text(&fee, "key").expect("a key"), day, "line", "");
                *sums.entry(key).or_insert_with(|| q(0)) +=
                    round(&amount, self.digits(contract), contract.rounding);
            }
        }
        let promise = self.promise(contract);
        let filled = promise.map(|one| self.promised(contract, one, last, &mut terms_at, &mut sums));
        for (key, any) in &rhythms("charges") {
            if promise.is_some() {
                break;
            }
            let every = text(any, "every").map_or(contract.interval, months);
            let mut day = contract.starts;
            while day < end {
                let whole = contract.grid.period(day, every);
                let (from, until) = (day, whole.1.min(end));
                if until > last {
                    break;
                }
                // Billed on the first boundary at or after its end.
                let said = contract.billed.iter().find(|(b, _)| *b >= until).expect("a boundary").1;
                self.usage(contract, key, whole, (from, until), said, &mut terms_at, &mut sums);
                day = until;
            }
        }
        let mut sums = self.gather(contract, sums);
        self.commitments(contract, open, last, filled.as_ref(), &mut sums);
        sums.retain(|_, amount| !amount.is_zero());
        sums
    }

    /// A fee in advance of which nothing is given back: by the first day of its periods, the most that any run asked for.
    fn kept(&self, contract: &Contract, key: &str, every: u32) -> BTreeMap<Day, Q> {
        let mut most: BTreeMap<Day, Q> = BTreeMap::new();
        let last = contract.billed.last().expect("a boundary").0;
        let runs = contract.billed.iter().copied().chain(contract.looked.iter().map(|said| (last, *said)));
        for (boundary, said) in runs {
            let mut known = contract.clone();
            known.changes.retain(|c| c.said <= said);
            let open = contract.grid.period(boundary, contract.interval).1;
            let end = known.end().unwrap_or(Day::MAX);
            let mut terms_at = |at: Instant| -> Rc<Terms> { Rc::new(self.terms(&known, at)) };
            let mut day = contract.starts;
            while day < end.min(open) {
                let whole = contract.grid_of(every).period(day, every);
                let (from, until) = (day, whole.1.min(end));
                let billed = fees::Billed::Advance(open);
                let amount = self.fee(&known, key, every, whole, (from, until), billed, &mut terms_at);
                let so_far = most.entry(from).or_insert_with(|| q(0));
                *so_far = amount.max(so_far.clone());
                day = until;
            }
        }
        most
    }

    pub(super) fn key(
        &self,
        contract: &Contract,
        charge: &str,
        period: Day,
        part: &'static str,
        dimensions: &str,
    ) -> Key {
        Key {
            contract: contract.key.clone(),
            bill_to: contract.bill_to.clone(),
            charge: charge.to_owned(),
            period,
            part,
            dimensions: dimensions.to_owned(),
        }
    }

    /// The first day of the service period of a line that begins on a day, as it is cut without changes.
    pub fn period_of(&self, contract: &Contract, key: &str, day: Day) -> Day {
        if self.is_commitment(contract, key) {
            return day;
        }
        let mut named = contract.named(self, "fees");
        named.extend(contract.named(self, "charges"));
        let mut of =
            named.into_iter().filter(|i| text(i, "key") == Some(key) && i["remove"] != Value::Bool(true));
        let item = of.next().unwrap_or(Value::Null);
        if item["once"] == Value::Bool(true) {
            return day;
        }
        let every = text(&item, "every").map_or(contract.interval, months);
        contract.grid_of(every).period(day, every).0.max(contract.starts)
    }

    /// The key by which a line is compared.
    pub fn gathered(&self, contract: &Contract, key: Key) -> Key {
        match self.amount_off(contract) {
            Some(one) if key.part == "line" && list(one, "charges").iter().any(|c| *c == *key.charge) => {
                Key {
                    bill_to: "*".to_owned(),
                    charge: "what an amount is off".to_owned(),
                    period: contract.grid.period(key.period, contract.interval).0.max(contract.starts),
                    dimensions: String::new(),
                    ..key
                }
            }
            _ => key,
        }
    }

    /// Sums as they are compared, amounts off taken off.
    fn gather(&self, contract: &Contract, sums: Amounts) -> Amounts {
        let mut found = Amounts::new();
        for (key, amount) in sums {
            *found.entry(self.gathered(contract, key)).or_insert_with(|| q(0)) += amount;
        }
        let end = contract.end().unwrap_or(Day::MAX);
        for (key, amount) in &mut found {
            if key.charge == "what an amount is off" {
                let whole = contract.grid.period(key.period, contract.interval);
                let off = self.amount_off_on(contract, key.period, whole.1.min(end), whole);
                *amount -= round(&off, self.digits(contract), contract.rounding).min(amount.clone());
            }
        }
        found
    }

    /// Whether a contract ever had an item of this key.
    pub fn mentions(&self, contract: &Contract, key: &str) -> bool {
        ["fees", "charges"]
            .iter()
            .any(|name| contract.named(self, name).iter().any(|i| text(i, "key") == Some(key)))
    }

    pub(super) fn zone(&self, contract: &Contract) -> &Zone {
        &self.zones[&contract.zone]
    }

    pub(super) fn digits(&self, contract: &Contract) -> u32 {
        self.minor_units[&contract.currency]
    }
}

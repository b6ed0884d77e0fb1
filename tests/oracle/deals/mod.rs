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
mod numbers;
mod rating;
mod terms;
mod told;
mod usage;

pub use calendar::*;
pub use credits::*;
pub use numbers::*;
pub use terms::*;
pub use told::*;

use num_traits::Zero;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
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
        // Every key that is or was in force.
        let mut charges = BTreeSet::new();
        let mut fees = BTreeSet::new();
        for change in &contract.changes {
            let terms = terms_at(change.effective);
            charges.extend(terms.charges.keys().cloned());
            fees.extend(terms.fees.keys().cloned());
        }
        for key in &fees {
            let any = contract
                .changes
                .iter()
                .find_map(|c| terms_at(c.effective).fees.get(key).cloned())
                .expect("it");
            let every = text(&any, "every").map_or(contract.interval, months);
            let advance = text(&any, "timing") != Some("arrears");
            let mut day = contract.starts;
            while day < end {
                let whole = contract.grid.period(day, every);
                let (from, until) = (day, whole.1.min(end));
                if if advance { from >= open } else { until > last } {
                    break;
                }
                let amount = self.fee(contract, key, every, whole, (from, until), &mut terms_at);
                *sums.entry(self.key(contract, key, from, "line", "")).or_insert_with(|| q(0)) += amount;
                day = until;
            }
        }
        for key in &charges {
            let any = contract
                .changes
                .iter()
                .find_map(|c| terms_at(c.effective).charges.get(key).cloned())
                .expect("it");
            let every = text(&any, "every").map_or(contract.interval, months);
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
        self.commitments(contract, open, last, &mut sums);
        sums.retain(|_, amount| !amount.is_zero());
        sums
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

    /// The months of a charge's or fee's service periods.
    pub fn every(&self, contract: &Contract, key: &str) -> u32 {
        let of = |items: &[Value]| {
            items
                .iter()
                .find(|i| text(i, "key") == Some(key) && i["every"].is_string())
                .and_then(|i| text(i, "every"))
                .map(months)
        };
        contract
            .changes
            .iter()
            .rev()
            .find_map(|change| {
                let own = of(list(&change.doc, "fees")).or_else(|| of(list(&change.doc, "charges")));
                own.or_else(|| {
                    let plan = text(&change.doc, "plan").map(|p| &self.plans[p])?;
                    of(list(plan, "fees")).or_else(|| of(list(plan, "charges")))
                })
            })
            .unwrap_or(contract.interval)
    }

    /// Whether a contract ever had an item of this key.
    pub fn mentions(&self, contract: &Contract, key: &str) -> bool {
        contract.changes.iter().any(|c| {
            list(&c.doc, "fees")
                .iter()
                .chain(list(&c.doc, "charges"))
                .any(|item| text(item, "key") == Some(key))
        })
    }

    pub(super) fn zone(&self, contract: &Contract) -> &Zone {
        &self.zones[&contract.zone]
    }

    pub(super) fn digits(&self, contract: &Contract) -> u32 {
        self.minor_units[&contract.currency]
    }
}

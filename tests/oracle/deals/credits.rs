//! Blocks of credit, and what draws from them.

use super::documents::{list, text};
use super::rating::rate;
use super::{Contract, Day, Event, Instant, PriceVersion, Q, World, dec, q};
use num_traits::Signed;
use serde_json::Value;
use std::collections::BTreeSet;

/// A block of credit, as it was granted.
#[derive(Clone, Debug)]
pub struct Block {
    pub name: String,
    pub from: Instant,
    pub until: Option<Instant>,
    pub amount: Q,
    pub priority: i64,
    /// promotional 0, pilot 1, paid 2.
    pub category: u8,
    pub scope: Value,
    /// What was drawn from it.
    pub burnt: Q,
    /// What was left when its end was posted.
    pub expired: Option<Q>,
    /// Lines that drew from it since it was compared last.
    pub lines: BTreeSet<String>,
}

impl Block {
    /// Whether the billing system calls it so: blocks of a period have its day behind their name.
    pub fn is_called(&self, name: &str) -> bool {
        name == self.name || name.starts_with(&format!("{}/", self.name))
    }
}

/// One event of one meter, and what it costs.
pub struct Cost<'a> {
    pub event: &'a Event,
    pub meter: String,
    pub cost: Q,
}

/// Draws what events cost from the blocks that may pay for them, one after another (rules 3): of those that hold at the
/// event's instant and fit it, by priority, end, narrower scope, category, begin, age.
pub fn draw(blocks: &mut [Block], costs: &[Cost], boundary: usize) {
    for one in costs {
        let mut left = one.cost.clone();
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|n| {
            let b = &blocks[*n];
            let wide = b.scope.as_object().is_none_or(serde_json::Map::is_empty);
            (b.priority, b.until.unwrap_or(Instant::MAX), wide, b.category, b.from, *n)
        });
        for n in order {
            let block = &mut blocks[n];
            let holds = block.expired.is_none()
                && block.from <= one.event.at
                && block.until.is_none_or(|u| one.event.at < u);
            let fits = |name: &str, value: &str| {
                let wanted = list(&block.scope, name);
                wanted.is_empty() || wanted.iter().any(|w| w == value)
            };
            let dimensions = block.scope["dimensions"].as_object().is_none_or(|wanted| {
                wanted.iter().all(|(name, values)| {
                    values
                        .as_array()
                        .is_some_and(|v| v.iter().any(|v| v.as_str() == event_value(one.event, name)))
                })
            });
            if holds && dimensions && fits("meters", &one.meter) && fits("products", "ai") {
                let drawn = left.clone().min(&block.amount - &block.burnt);
                if drawn.is_positive() {
                    block.burnt += &drawn;
                    left -= drawn;
                    let entity = one.event.bill_to.as_deref().unwrap_or("");
                    block.lines.insert(format!(
                        "{boundary} {} {:?} {entity}",
                        one.meter,
                        event_value(one.event, "model")
                    ));
                }
            }
        }
    }
}

pub(super) fn event_value<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.properties.get(name).map(String::as_str)
}

impl World {
    /// What each event of a contract costs, in order of time, between two of its boundaries; prices of a deal that are
    /// one amount a unit. With the line it is on.
    pub fn costs(&self, contract: &Contract, (from, until): (Day, Day)) -> Vec<Cost<'_>> {
        let zone = self.zone(contract);
        let customer = &self.customers[&contract.customer];
        let terms = self.terms(contract, zone.midnight(from));
        let mut found = Vec::new();
        for charge in terms.charges.values() {
            let meter = &self.meters[text(charge, "meter").expect("a meter")];
            for event in customer.events.iter().filter(|e| e.live && e.event_type == meter.event_type) {
                if event.at >= zone.midnight(from) && event.at < zone.midnight(until) {
                    let quantity = meter.value.as_ref().map_or(q(1), |v| dec(&event.properties[v]));
                    let own = [PriceVersion { from: None, said: 0, pricing: charge["pricing"].clone() }];
                    let day = zone.day(event.at);
                    let pricing =
                        self.resolve(contract, &terms, customer, charge, meter, event, day, 0, &own).2;
                    let cost = rate(&pricing, &quantity);
                    found.push(Cost { event, meter: meter.key.clone(), cost });
                }
            }
        }
        found.sort_by_key(|c| c.event.at);
        found
    }
}

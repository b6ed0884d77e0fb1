//! Commitments beyond which usage costs something else, and those in units of a meter: event by event, in order of time.

use super::documents::{list, matches, maybe, text};
use super::rating::rate;
use super::{
    Amounts, Contract, Day, Instant, Kind, PriceVersion, Q, Terms, World, dec, months, months_after, q, round,
};
use num_traits::Signed;
use serde_json::Value;
use std::collections::BTreeMap;

impl World {
    /// The commitment of a contract whose usage is told here, if it has one.
    pub fn promise<'a>(&self, contract: &'a Contract) -> Option<&'a Value> {
        list(&contract.changes[0].doc, "commitments")
            .iter()
            .find(|c| !c["overage"].is_null() || !c["quantity"].is_null())
    }

    /// A commitment as it is for its period that begins on a day: a change holds for those that begin after it.
    pub(super) fn commitment_on(&self, contract: &Contract, one: &Value, day: Day) -> Value {
        let at = self.zone(contract).midnight(day);
        let mut changes: Vec<_> =
            contract.changes.iter().filter(|c| c.kind == Kind::Amend && c.effective <= at).collect();
        changes.sort_by_key(|c| c.effective);
        let mut of =
            changes.iter().flat_map(|c| list(&c.doc, "commitments")).filter(|c| c["key"] == one["key"]);
        of.next_back().unwrap_or(one).clone()
    }

    /// The first day of the commitment's period that holds a day.
    fn promised_period(&self, contract: &Contract, one: &Value, day: Day) -> (u32, Day) {
        let every = text(one, "every").map(months).expect("a length");
        let begins = |n: u32| months_after(contract.starts, n * every);
        let n = (0..).find(|n| begins(n + 1) > day).expect("a period");
        (n, begins(n))
    }

    /// What usage comes to until a day, line by line; and how much of the promise each of its periods filled.
    pub(super) fn promised(
        &self,
        contract: &Contract,
        one: &Value,
        last: Day,
        terms_at: &mut dyn FnMut(Instant) -> std::rc::Rc<Terms>,
        sums: &mut Amounts,
    ) -> BTreeMap<Day, Q> {
        let zone = self.zone(contract);
        let digits = self.digits(contract);
        let customer = &self.customers[&contract.customer];
        let begin = zone.midnight(contract.starts);
        let end = zone.midnight(contract.end().unwrap_or(Day::MAX).min(last));
        let mut uses = Vec::new();
        for key in ["tokens", "storage"] {
            let now = terms_at(begin);
            let meter = &self.meters[text(&now.charges[key], "meter").expect("a meter")];
            for event in customer.events.iter().filter(|e| e.live && e.event_type == meter.event_type) {
                if begin <= event.at && event.at < end {
                    uses.push((event, key, meter));
                }
            }
        }
        uses.sort_by_key(|(event, ..)| event.at);
        let mut filled: BTreeMap<Day, Q> = BTreeMap::new();
        let mut lines: BTreeMap<_, (Q, Q)> = BTreeMap::new();
        for (event, key, meter) in uses {
            let day = zone.day(event.at);
            let terms = terms_at(event.at);
            let charge = self.item_on(contract, &terms, "charges", key, event.at).expect("a charge");
            let own = [PriceVersion { from: None, said: 0, pricing: charge["pricing"].clone() }];
            let quantity = meter.value.as_ref().map_or(q(1), |v| dec(&event.properties[v]));
            let price = self.resolve(contract, &terms, customer, &charge, meter, event, day, 0, &own).2;
            let (_, from) = self.promised_period(contract, one, day);
            let one = self.commitment_on(contract, one, from);
            let beyond = list(&one, "overage").iter().find(|o| {
                (text(o, "meter") == Some(&meter.key) || text(o, "charge") == Some(key))
                    && matches(&o["match"], event, meter)
            });
            let over = |quantity: &Q| match beyond {
                Some(o) => {
                    let mut pricing = serde_json::json!({"model": "per_unit", "unit_price": o["unit_price"]});
                    pricing["per"] = price["per"].clone();
                    rate(&pricing, quantity)
                }
                None => rate(&price, quantity),
            };
            let so_far = filled.entry(from).or_insert_with(|| q(0));
            let units = maybe(&one, "quantity");
            let counts = units.is_none() || text(&one, "meter") == Some(&meter.key);
            let (within, rest) = if counts {
                let left = units.clone().map_or_else(
                    || (super::documents::field(&one, "amount") - &*so_far).max(q(0)) / rate(&price, &q(1)),
                    |units| (units - &*so_far).max(q(0)),
                );
                let within = quantity.clone().min(left);
                (within.clone(), &quantity - within)
            } else {
                (quantity.clone(), q(0))
            };
            let prepaid = counts && units.is_some() && text(&one, "kind") == Some("prepaid");
            let asked = if prepaid { q(0) } else { rate(&price, &within) };
            if counts {
                *so_far +=
                    if units.is_some() { quantity.clone() } else { rate(&price, &within) + over(&rest) };
            }
            let names = list(&charge, "lines_by").iter().filter_map(Value::as_str);
            let dimensions: Vec<String> =
                names.filter_map(|d| event.properties.get(d).map(|v| format!("{d}={v}"))).collect();
            let every = text(&charge, "every").map_or(contract.interval, months);
            let period = contract.grid.period(day, every).0.max(contract.starts);
            let mut to = self.key(contract, key, period, "line", &dimensions.join(","));
            to.bill_to = event.bill_to.clone().unwrap_or(to.bill_to);
            let line = lines.entry(to).or_insert_with(|| (q(0), q(0)));
            line.0 += asked;
            line.1 += if rest.is_positive() { over(&rest) } else { q(0) };
        }
        for (key, (within, over)) in lines {
            *sums.entry(key).or_insert_with(|| q(0)) +=
                round(&within, digits, contract.rounding) + round(&over, digits, contract.rounding);
        }
        filled
    }
}

//! What a charge or fee of a contract is on a day: its phase, its trial, its ramp; and what is taken off.

use super::documents::{date, expanded, field, in_force, list, maybe, text};
use super::rating::scale;
use super::{Contract, Day, Instant, Kind, Q, Terms, World, after, months, months_after, q};
use serde_json::Value;

impl Contract {
    /// The first day after the trial; without one, the contract's first.
    pub fn trial_end(&self) -> Day {
        let trial = &self.changes[0].doc["trial"];
        let until = text(trial, "duration").map(|d| after(self.starts, d));
        date(trial, "until").or(until).unwrap_or(self.starts)
    }

    /// The phase that holds a day, with its first day. One follows the other.
    pub fn phase(&self, day: Day) -> Option<(Day, &Value)> {
        let phases = list(&self.changes[0].doc, "phases");
        let mut from = self.starts;
        let mut found = None;
        for (n, phase) in phases.iter().enumerate() {
            from = date(phase, "from").unwrap_or(from);
            let next = phases.get(n + 1).and_then(|p| date(p, "from"));
            let until = text(phase, "duration").map(|d| after(from, d)).or(next).unwrap_or(Day::MAX);
            if from <= day && day < until {
                found = Some((from, phase));
            }
            from = until;
        }
        found
    }

    /// Every charge or fee that a document of it ever named, each document by itself.
    pub(super) fn named<'a>(&'a self, world: &'a World, name: &'a str) -> Vec<Value> {
        let mut found = Vec::new();
        for change in &self.changes {
            if let Some(plan) = text(&change.doc, "plan") {
                found.extend(list(&world.plans[plan], name).iter().cloned());
            }
            let since = (change.kind == Kind::Amend).then(|| world.zone(self).day(change.effective));
            found.extend(expanded(&change.doc, name, since));
            for phase in list(&change.doc, "phases") {
                found.extend(list(phase, name).iter().cloned());
            }
        }
        found
    }
}

impl World {
    /// A charge or fee as it is at an instant, without its dates and steps; None if there is none. Of a trial's usage it
    /// says `_free`.
    pub fn item_on(
        &self,
        contract: &Contract,
        terms: &Terms,
        name: &str,
        key: &str,
        at: Instant,
    ) -> Option<Value> {
        let zone = self.zone(contract);
        let day = zone.day(at);
        let fees = name == "fees";
        let trial = contract.trial_end();
        let phase = contract.phase(day).and_then(|(from, phase)| {
            Some((from, list(phase, name).iter().find(|item| text(item, "key") == Some(key))?))
        });
        let base = if fees { &terms.fees } else { &terms.charges };
        let (phase_from, item) = match phase {
            Some((from, item)) => (Some(from), item),
            None => (None, base.get(key)?),
        };
        if item["remove"] == Value::Bool(true)
            || item["once"] == Value::Bool(true)
            || !in_force(item, day)
            || (fees && (terms.paused || day < trial))
        {
            return None;
        }
        let begin =
            date(item, "from").or_else(|| date(item, "_since")).or(phase_from).unwrap_or(contract.starts);
        let begin = if fees { begin.max(trial) } else { begin };
        let mut steps: Vec<(Instant, Value)> = Vec::new();
        for step in list(item, "ramp") {
            let from =
                date(step, "from").unwrap_or_else(|| after(begin, text(step, "after").expect("a time")));
            steps.push((zone.midnight(from), step.clone()));
        }
        let rise = &item["step_up"];
        if let Some(every) = text(rise, "every").map(months) {
            for from in (1..).map(|n| months_after(begin, n * every)).take_while(|d| *d <= day) {
                steps.push((zone.midnight(from), rise.clone()));
            }
        }
        for step in list(item, "_steps") {
            steps.push((step["at"].as_i64().expect("an instant"), step.clone()));
        }
        steps.sort_by_key(|(from, _)| *from);
        let mut found = item.clone();
        for (_, step) in steps.iter().filter(|(from, _)| *from <= at) {
            for field in ["quantity", "pricing"] {
                if !step[field].is_null() {
                    found[field] = step[field].clone();
                }
            }
            if let Some(percent) = maybe(step, "percent") {
                found["pricing"] = scale(&found["pricing"], &((q(100) + percent) / q(100)));
            }
        }
        let fields = found.as_object_mut().expect("an item");
        for field in ["from", "until", "ramp", "step_up", "_since", "_steps"] {
            fields.remove(field);
        }
        if !fees && day < trial {
            fields.insert("_free".to_owned(), true.into());
        }
        Some(found)
    }

    /// What is left of 1 after the percentages off that are in force for a charge or fee on a day.
    pub(super) fn off(&self, contract: &Contract, terms: &Terms, item: &Value, day: Day) -> Q {
        let mut left = q(1);
        let phase = contract.phase(day).map_or(&[][..], |(_, phase)| list(phase, "discounts"));
        for one in terms.discounts.iter().chain(phase) {
            let Some(percent) = maybe(one, "percent_off") else { continue };
            let from = date(one, "from").unwrap_or(contract.starts);
            let over = text(one, "duration").is_some_and(|d| day >= after(from, d));
            if in_force(one, day) && !over && aims_at(one, item) {
                left *= (q(100) - percent) / q(100);
            }
        }
        left
    }

    /// Fees that are billed once, with their days: those whose day had come, whatever changed later.
    pub(super) fn once(&self, contract: &Contract) -> Vec<(Value, Day)> {
        let mut found = Vec::new();
        for item in contract.named(self, "fees").into_iter().filter(|i| i["once"] == Value::Bool(true)) {
            let day = date(&item, "from").or_else(|| date(&item, "_since"));
            found.push((item, day.unwrap_or(contract.trial_end())));
        }
        found
    }

    /// Amounts off, each billing period's, over the lines they are for: how they are spread is the billing system's
    /// matter, so these lines are one sum here.
    pub fn amount_off<'a>(&self, contract: &'a Contract) -> Option<&'a Value> {
        list(&contract.changes[0].doc, "discounts").iter().find(|d| !d["amount_off"].is_null())
    }

    pub(super) fn amount_off_on(&self, contract: &Contract, from: Day, until: Day, whole: (Day, Day)) -> Q {
        let Some(one) = self.amount_off(contract) else { return q(0) };
        let first = date(one, "from").map_or(from, |d| d.max(from));
        let last = date(one, "until").map_or(until, |d| d.min(until));
        if first >= last {
            return q(0);
        }
        let zone = self.zone(contract);
        let every = contract.interval;
        field(one, "amount_off")
            * self.share(contract, (zone.midnight(first), zone.midnight(last)), whole, every)
    }
}

/// Whether a discount is for a charge or fee.
pub(super) fn aims_at(one: &Value, item: &Value) -> bool {
    let (charges, products) = (list(one, "charges"), list(one, "products"));
    (charges.is_empty() && products.is_empty())
        || charges.contains(&item["key"])
        || products.contains(&item["product"])
}

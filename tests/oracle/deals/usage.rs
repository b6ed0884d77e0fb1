//! Usage, event by event.

use super::documents::{in_force, list, matches, maybe, text};
use super::rating::{is_linear, rate, scale};
use super::{
    Amounts, Contract, Customer, Day, Event, Instant, Meter, PriceVersion, Q, Rc, Stretch, Terms, World, dec,
    months, q, round, split, split_exact, utc,
};
use num_traits::{Signed, Zero};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// A usage charge in one service period: each stretch with the same charge by itself.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn usage(
        &self,
        contract: &Contract,
        key: &str,
        whole: (Day, Day),
        days: (Day, Day),
        said: u64,
        terms_at: &mut dyn FnMut(Instant) -> Rc<Terms>,
        sums: &mut Amounts,
    ) {
        let mut stretches: Vec<(Value, Stretch)> = Vec::new();
        for (at, next) in self.moments(contract, days) {
            let terms = terms_at(at);
            let Some(charge) = self.item_on(contract, &terms, "charges", key, at) else { continue };
            match stretches.last_mut() {
                Some((same, (_, end))) if *same == charge && *end == at => *end = next,
                _ => stretches.push((charge, (at, next))),
            }
        }
        for (charge, stretch) in stretches {
            if charge["_free"] == Value::Bool(true) {
                continue;
            }
            let every = text(&charge, "every").map_or(contract.interval, months);
            let share = self.share(contract, stretch, whole, every);
            self.usage_stretch(contract, &charge, days.0, whole, stretch, &share, said, terms_at, sums);
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn usage_stretch(
        &self,
        contract: &Contract,
        charge: &Value,
        period: Day,
        whole: (Day, Day),
        (since, before): Stretch,
        share: &Q,
        said: u64,
        terms_at: &mut dyn FnMut(Instant) -> Rc<Terms>,
        sums: &mut Amounts,
    ) {
        let zone = self.zone(contract);
        let digits = self.digits(contract);
        let customer = &self.customers[&contract.customer];
        let meter = &self.meters[text(charge, "meter").expect("a meter")];
        let key = text(charge, "key").expect("a key");
        let (start, end) = (zone.day(since), zone.day(before));
        let book = terms_at(since).book.clone();
        let versions: Vec<PriceVersion> = match text(charge, "price") {
            Some(price) => self.prices[&(book.expect("a book"), price.to_owned())]
                .iter()
                .filter(|v| v.said <= said)
                .cloned()
                .collect(),
            None => vec![PriceVersion { from: None, said: 0, pricing: charge["pricing"].clone() }],
        };
        // With reset a version from 00:00 UTC of a period's first day is that period's in every zone.
        let (utc_start, utc_end) = (utc(start), utc(end));
        let at = |t: Instant| {
            let t = contract.pinned.unwrap_or(t);
            if contract.reset && contract.pinned.is_none() && !versions.iter().all(|v| is_linear(&v.pricing))
            {
                let shifted = |v: &PriceVersion| match v.from {
                    Some(from) if from == utc_start && since == zone.midnight(whole.0) => since,
                    Some(from) if from == utc_end && before == zone.midnight(whole.1) => before,
                    Some(from) => from,
                    None => Instant::MIN,
                };
                return versions.iter().rposition(|v| shifted(v) <= t).expect("a price in force");
            }
            versions.iter().rposition(|v| v.from.is_none_or(|f| f <= t)).expect("a price in force")
        };
        // A version from 00:00 UTC of the period's first day is that period's in every zone.
        let first = match versions.iter().rposition(|v| v.from == Some(utc_start)) {
            Some(n) if utc_start > since && contract.pinned.is_none() => n,
            _ => at(since),
        };
        // Dimensions of lines.
        let mut named: BTreeSet<&str> = list(charge, "lines_by").iter().filter_map(Value::as_str).collect();
        for version in &versions {
            named.extend(list(&version.pricing, "dimensions").iter().filter_map(Value::as_str));
        }
        let terms = terms_at(since);
        let phases = list(&contract.changes[0].doc, "phases").iter().flat_map(|p| list(p, "overrides"));
        let theirs = terms
            .overrides
            .iter()
            .chain(phases)
            .chain(&customer.overrides)
            .filter(|o| aims(o, charge, meter));
        for one in theirs.chain([charge]) {
            named.extend(
                one["match"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(d, _)| d.as_str())
                    .filter(|d| *d != "bill_to"),
            );
        }
        // What is left of 1 on each day, by the count of its changes.
        let mut lefts: BTreeMap<Day, (usize, Q)> = BTreeMap::new();
        for day in start.iter_days().take_while(|d| zone.midnight(*d) < before) {
            let off = self.off(contract, &terms_at(zone.midnight(day).max(since)), charge, day);
            let times = lefts.last_key_value().map_or(0, |(_, (n, last))| n + usize::from(*last != off));
            lefts.insert(day, (times, off));
        }
        let taken_off = |day: Day| lefts[&day].clone();
        // The quantity of each resolved price, version and line. A line is who is invoiced and its dimensions;
        // in that order a tie of the split goes.
        type Line = (usize, String);
        // Parts of one price: its versions, and the times of one percentage off.
        type Parts = BTreeMap<usize, (Value, BTreeMap<usize, (Q, BTreeMap<Line, Q>)>)>;
        let mut chains: BTreeMap<String, Parts> = BTreeMap::new();
        for event in &customer.events {
            let counts = event.live
                && event.event_type == meter.event_type
                && event.at >= since
                && event.at < before
                && matches(&charge["match"], event, meter);
            if !counts {
                continue;
            }
            let quantity = meter.value.as_ref().map_or(q(1), |v| dec(&event.properties[v]));
            // rate_at = period_start holds for what was agreed, too.
            let priced_at = if contract.by_start { since } else { event.at };
            let (day, terms) = (zone.day(priced_at), terms_at(priced_at));
            let list_version = if contract.by_start || meter.greatest { first } else { at(event.at) };
            let (chain, version, pricing) =
                self.resolve(contract, &terms, customer, charge, meter, event, day, list_version, &versions);
            let dimensions: Vec<String> =
                named.iter().filter_map(|d| event.properties.get(*d).map(|v| format!("{d}={v}"))).collect();
            let entity = event.bill_to.as_ref().unwrap_or(&contract.bill_to);
            let entity = customer.bill_tos.iter().position(|b| b == entity).expect("a bill_to");
            let (times, off) = taken_off(zone.day(event.at));
            let of = &mut chains
                .entry(chain)
                .or_default()
                .entry(version)
                .or_insert_with(|| (pricing, BTreeMap::new()))
                .1
                .entry(times)
                .or_insert_with(|| (off, BTreeMap::new()))
                .1;
            let sum = of.entry((entity, dimensions.join(","))).or_insert_with(|| q(0));
            *sum = if meter.greatest { quantity.max(sum.clone()) } else { quantity + &*sum };
        }
        let mut posted = q(0);
        let mut post = |(entity, dimensions): &Line, amount: Q| {
            posted += &amount;
            let mut to = self.key(contract, key, period, "line", dimensions);
            to.bill_to = customer.bill_tos[*entity].clone();
            *sums.entry(to).or_insert_with(|| q(0)) += amount;
        };
        for parts in chains.values() {
            let all = |times: &BTreeMap<usize, (Q, BTreeMap<Line, Q>)>| -> Vec<Q> {
                times.values().flat_map(|(_, lines)| lines.values().cloned()).collect()
            };
            let whole: Q = parts.values().flat_map(|(_, times)| all(times)).sum();
            let mut before = q(0);
            for (pricing, times) in parts.values() {
                // The whole of a greatest value is the largest of its lines.
                let own = if meter.greatest {
                    all(times).into_iter().max().expect("a line")
                } else {
                    all(times).iter().sum()
                };
                let whole = if contract.reset || meter.greatest { &own } else { &whole };
                if is_linear(pricing) {
                    for (off, lines) in times.values() {
                        for (line, quantity) in lines {
                            post(line, round(&(rate(pricing, quantity) * off), digits, contract.rounding));
                        }
                    }
                    before += own;
                    continue;
                }
                // Tiers go on where the version before left them.
                let after = &before + &own;
                let exact = match text(pricing, "model") {
                    Some("volume") if whole.is_zero() => q(0),
                    Some("volume") => rate(pricing, whole) * &own / whole,
                    _ => rate(pricing, &after) - rate(pricing, &before),
                };
                before = if contract.reset { q(0) } else { after };
                // Whatever is taken off at times, tiers run over all, and are then split: by quantity, less what is off.
                let quantities: Q = all(times).iter().sum();
                let of: Vec<(&Line, Q)> = (times.values())
                    .flat_map(|(off, lines)| lines.iter().map(move |(line, quantity)| (line, quantity * off)))
                    .collect();
                let weights: Vec<Q> = of.iter().map(|(_, weight)| weight.clone()).collect();
                let weight: Q = weights.iter().sum();
                let left = if times.len() == 1 || quantities.is_zero() {
                    times.values().next().expect("a time").0.clone()
                } else {
                    weight / quantities
                };
                let total = &exact * left;
                let rounded = round(&total, digits, contract.rounding);
                // Where something is off, cents go by the exact amounts, else by the shares of what is rounded.
                let parts = if times.values().all(|(off, _)| *off == q(1)) {
                    split(&rounded, &weights, digits)
                } else {
                    split_exact(&total, &rounded, &weights, digits)
                };
                for ((line, _), amount) in of.into_iter().zip(parts) {
                    post(line, amount);
                }
            }
        }
        let bounds = &versions[first].pricing;
        // Minimums are held against what amounts off leave, too.
        if let Some(one) = self.amount_off(contract)
            && list(one, "charges") == [Value::from(key)]
        {
            let to = (before_end(contract, whole.1), whole);
            let off = self.amount_off_on(contract, period, to.0, to.1);
            let off = round(&off, digits, contract.rounding);
            posted -= off.min(posted.clone());
        }
        if let Some(minimum) = maybe(bounds, "minimum") {
            let missing = round(&(minimum * share - &posted), digits, contract.rounding);
            if missing.is_positive() {
                *sums.entry(self.key(contract, key, period, "true_up", "")).or_insert_with(|| q(0)) +=
                    missing;
            }
        }
        if let Some(maximum) = maybe(bounds, "maximum") {
            let over = maximum - &posted;
            if over.is_negative() {
                *sums.entry(self.key(contract, key, period, "cap", "")).or_insert_with(|| q(0)) += over;
            }
        }
    }

    /// The price of one event: the contract's overrides, then the customer's, then the list; inside a scope the one
    /// with most matched dimensions.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn resolve(
        &self,
        contract: &Contract,
        terms: &Terms,
        customer: &Customer,
        charge: &Value,
        meter: &Meter,
        event: &Event,
        day: Day,
        list_version: usize,
        versions: &[PriceVersion],
    ) -> (String, usize, Value) {
        let (row, listed) = self.row(&versions[list_version].pricing, event);
        // A phase's override takes the place of the contract's for the same.
        let phase = contract.phase(day).map_or(&[][..], |(_, phase)| list(phase, "overrides"));
        let alike =
            |a: &Value, b: &Value| ["meter", "charge", "match"].iter().all(|field| a[*field] == b[*field]);
        let mut theirs: Vec<Value> = terms.overrides.clone();
        for (n, one) in theirs.iter_mut().enumerate() {
            one["_name"] = n.into();
        }
        theirs.retain(|o| !phase.iter().any(|p| alike(o, p)));
        theirs.extend(phase.iter().map(|one| {
            let mut one = one.clone();
            one["_name"] = one.to_string().into();
            one
        }));
        for (scope, overrides) in [("contract", &theirs), ("customer", &customer.overrides)] {
            let best = overrides
                .iter()
                .enumerate()
                .filter(|(_, o)| {
                    aims(o, charge, meter) && in_force(o, day) && matches(&o["match"], event, meter)
                })
                .max_by_key(|(_, o)| o["match"].as_object().map_or(0, |m| m.len()));
            let Some((n, best)) = best else { continue };
            let name = if scope == "contract" { best["_name"].to_string() } else { format!("{scope} {n}") };
            if let Some(unit_price) = text(best, "unit_price") {
                let mut pricing = serde_json::json!({"model": "per_unit", "unit_price": unit_price});
                if let Some(per) = listed.get("per") {
                    pricing["per"] = per.clone();
                }
                return (format!("{name} {pricing}"), 0, pricing);
            }
            if let Some(percent) = maybe(best, "percent_off") {
                let factor = (q(100) - percent) / q(100);
                return (format!("{name}, {row}"), list_version, scale(&listed, &factor));
            }
            return (format!("{name} {}", best["pricing"]), 0, best["pricing"].clone());
        }
        (format!("list, {row}"), list_version, listed)
    }

    /// The row of a matrix that an event takes, with its name; another pricing as it is.
    pub(super) fn row(&self, pricing: &Value, event: &Event) -> (String, Value) {
        if text(pricing, "model") != Some("matrix") {
            return (String::new(), pricing.clone());
        }
        let row = list(pricing, "rows")
            .iter()
            .filter(|row| {
                row["match"].as_object().is_none_or(|m| {
                    m.iter().all(|(d, v)| event.properties.get(d).map(String::as_str) == v.as_str())
                })
            })
            .max_by_key(|row| {
                let matched = row["match"].as_object().map_or(0, |m| m.len());
                // A tie goes by the order of the dimensions: the earlier weighs more.
                let weight: u32 = list(pricing, "dimensions")
                    .iter()
                    .rev()
                    .enumerate()
                    .filter(|(_, d)| !row["match"][d.as_str().unwrap_or_default()].is_null())
                    .map(|(n, _)| 1 << n)
                    .sum();
                (matched, weight)
            })
            .expect("a row");
        let mut found = serde_json::json!({"model": "per_unit", "unit_price": row["unit_price"]});
        if let Some(per) = pricing.get("per") {
            found["per"] = per.clone();
        }
        (row["match"].to_string(), found)
    }
}

/// A day, or the contract's end before it.
fn before_end(contract: &Contract, day: Day) -> Day {
    contract.end().map_or(day, |end| end.min(day))
}

/// Whether an override is one of this charge.
pub(super) fn aims(one: &Value, charge: &Value, meter: &Meter) -> bool {
    text(one, "meter") == Some(&meter.key)
        || text(one, "charge").is_some_and(|key| text(charge, "key") == Some(key))
}

//! What a deal costs, told naively: day by day for fees, event by event for usage, in exact fractions. It shares no
//! code with the engine, reads the same documents, and knows nothing of tables, versions of rows or differences: it is
//! asked what all documents of a contract must sum to, and computes that anew from the beginning each time.
//!
//! The rules are those of docs/*.md; where they leave something open, the comment says how it is read here.
#![allow(dead_code)]

use chrono::{Datelike, Days, Months, NaiveDate};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, Zero};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub type Q = BigRational;
pub type Day = NaiveDate;
/// Seconds since 1970 UTC. Nothing here happens between two seconds.
pub type Instant = i64;

pub fn q(n: i64) -> Q {
    Q::from_integer(n.into())
}

/// A decimal's exact value.
pub fn dec(text: &str) -> Q {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let number: BigInt = format!("{whole}{part}").parse().unwrap_or_else(|_| panic!("not a decimal: {text}"));
    Q::new(number * sign, BigInt::from(10).pow(part.len() as u32))
}

/// The decimal in a field that must be there.
pub fn field(doc: &Value, name: &str) -> Q {
    maybe(doc, name).unwrap_or_else(|| panic!("no {name} in {doc}"))
}

/// The decimal in a field, if it is there: a string, or a number where documents have numbers (`per`).
pub fn maybe(doc: &Value, name: &str) -> Option<Q> {
    match &doc[name] {
        Value::String(text) => Some(dec(text)),
        Value::Number(number) => Some(dec(&number.to_string())),
        _ => None,
    }
}

pub fn text<'a>(doc: &'a Value, name: &str) -> Option<&'a str> {
    doc[name].as_str()
}

pub fn date(doc: &Value, name: &str) -> Option<Day> {
    text(doc, name).map(|t| t.parse().unwrap_or_else(|_| panic!("{name}: {t} is no date")))
}

fn list<'a>(doc: &'a Value, name: &str) -> &'a [Value] {
    doc[name].as_array().map_or(&[], Vec::as_slice)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    HalfUp,
    HalfEven,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proration {
    Day,
    Second,
    Thirty,
    ThirtyStrict,
    None,
}

/// Days of a calendar in which every month has 30.
fn days30(from: Day, until: Day) -> i64 {
    let of = |d: Day| i64::from(d.year()) * 360 + i64::from(d.month0()) * 30 + i64::from(d.day().min(30));
    of(until) - of(from)
}

/// To `digits` places; a half goes away from zero, or to the even neighbour.
pub fn round(x: &Q, digits: u32, mode: Rounding) -> Q {
    let scale = Q::from_integer(BigInt::from(10).pow(digits));
    let scaled = x.abs() * &scale;
    let floor = scaled.floor();
    let rest = &scaled - &floor;
    let half = Q::new(1.into(), 2.into());
    let up = match rest.cmp(&half) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => {
            mode == Rounding::HalfUp || !(floor.to_integer() % BigInt::from(2)).is_zero()
        }
    };
    let rounded = if up { floor + q(1) } else { floor } / scale;
    if x.is_negative() { -rounded } else { rounded }
}

/// Splits a rounded total by weights, largest remainder first, ties in order (rules 0.6).
pub fn split(total: &Q, weights: &[Q], digits: u32) -> Vec<Q> {
    let sum: Q = weights.iter().sum();
    if sum.is_zero() {
        return weights.iter().map(|_| q(0)).collect();
    }
    let unit = Q::new(1.into(), BigInt::from(10).pow(digits));
    let sign = if total.is_negative() { q(-1) } else { q(1) };
    let units = total.abs() / &unit;
    let shares: Vec<Q> = weights.iter().map(|w| &units * w / &sum).collect();
    let mut parts: Vec<Q> = shares.iter().map(Q::floor).collect();
    let mut left = &units - parts.iter().sum::<Q>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(&shares[*at] - &parts[*at]));
    for at in order {
        if left.is_zero() {
            break;
        }
        parts[at] += q(1);
        left -= q(1);
    }
    parts.into_iter().map(|p| p * &unit * &sign).collect()
}

/// The local midnights of a time zone, as Postgres tells them.
#[derive(Debug, Clone)]
pub struct Zone {
    pub name: String,
    pub first: Day,
    pub midnights: Vec<Instant>,
}

impl Zone {
    pub fn midnight(&self, day: Day) -> Instant {
        let n = (day - self.first).num_days();
        self.midnights[usize::try_from(n).unwrap_or_else(|_| panic!("{day} is before the table"))]
    }

    pub fn day(&self, at: Instant) -> Day {
        let n = self.midnights.partition_point(|m| *m <= at);
        self.first + Days::new(n as u64 - 1)
    }
}

/// `n` months after a day, the day clamped to the month's last.
pub fn months_after(day: Day, n: u32) -> Day {
    day + Months::new(n)
}

/// "3 months" is 3.
pub fn months(text: &str) -> u32 {
    let (n, unit) = text.split_once(' ').unwrap_or_else(|| panic!("no interval: {text}"));
    let n: u32 = n.parse().unwrap_or_else(|_| panic!("no interval: {text}"));
    match unit {
        "month" | "months" => n,
        "year" | "years" => 12 * n,
        _ => panic!("no interval of months: {text}"),
    }
}

/// How a contract's time is cut: the grid of each `every`.
#[derive(Clone, Debug)]
pub enum Grid {
    /// Counted from this day.
    Anniversary(Day),
    /// The firsts of months; of several months, counted from this month (1 January unless fiscal).
    Calendar(u32),
}

impl Grid {
    /// The whole period of `every` months that holds `day`.
    pub fn period(&self, day: Day, every: u32) -> (Day, Day) {
        match self {
            Grid::Anniversary(anchor) => {
                assert!(day >= *anchor, "{day} is before the anchor {anchor}");
                let mut n = 0;
                while months_after(*anchor, (n + 1) * every) <= day {
                    n += 1;
                }
                (months_after(*anchor, n * every), months_after(*anchor, (n + 1) * every))
            }
            Grid::Calendar(first) => {
                let months = day.year() * 12 + day.month0() as i32 - (*first as i32 - 1);
                let start = months - months.rem_euclid(every as i32) + (*first as i32 - 1);
                let of = |m: i32| {
                    Day::from_ymd_opt(m.div_euclid(12), m.rem_euclid(12) as u32 + 1, 1).expect("a first")
                };
                (of(start), of(start + every as i32))
            }
        }
    }
}

/// What a quantity costs by a pricing without minimum and maximum; a matrix must be resolved to a row before.
pub fn rate(pricing: &Value, quantity: &Q) -> Q {
    let per = maybe(pricing, "per").unwrap_or_else(|| q(1));
    let free = maybe(pricing, "free_units").unwrap_or_else(|| q(0));
    let quantity = if free.is_zero() { quantity.clone() } else { (quantity - free).max(q(0)) };
    let tiers = || {
        let mut below = q(0);
        list(pricing, "tiers")
            .iter()
            .map(|tier| {
                let from = below.clone();
                let until = maybe(tier, "up_to");
                if let Some(until) = &until {
                    below = until.clone();
                }
                (from, until, tier)
            })
            .collect::<Vec<_>>()
    };
    match text(pricing, "model").expect("a model") {
        "flat" => field(pricing, "amount"),
        "per_unit" => quantity * field(pricing, "unit_price") / per,
        "graduated" => {
            let mut amount = q(0);
            for (from, until, tier) in tiers() {
                if quantity > from {
                    let top = until.map_or(quantity.clone(), |u| u.min(quantity.clone()));
                    amount += (top - from) * field(tier, "unit_price") / &per;
                    amount += maybe(tier, "flat_fee").unwrap_or_else(|| q(0));
                }
            }
            amount
        }
        "volume" => {
            if quantity.is_zero() {
                return q(0);
            }
            for (_, until, tier) in tiers() {
                if until.is_none_or(|u| quantity <= u) {
                    return &quantity * field(tier, "unit_price") / &per
                        + maybe(tier, "flat_fee").unwrap_or_else(|| q(0));
                }
            }
            panic!("{quantity} is above the last tier")
        }
        "stairstep" => {
            if quantity.is_zero() {
                return q(0);
            }
            for (_, until, tier) in tiers() {
                if until.is_none_or(|u| quantity <= u) {
                    return field(tier, "amount");
                }
            }
            panic!("{quantity} is above the last step")
        }
        "package" => (quantity / field(pricing, "package_size")).ceil() * field(pricing, "amount"),
        other => panic!("no model {other}"),
    }
}

pub fn is_linear(pricing: &Value) -> bool {
    text(pricing, "model") == Some("per_unit") && pricing["free_units"].is_null()
}

/// Every amount of a pricing times a factor, exactly; minimum, maximum, free units and bounds stay.
pub fn scale(pricing: &Value, factor: &Q) -> Value {
    match pricing {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    let value = match (name.as_str(), value) {
                        ("unit_price" | "amount" | "flat_fee", Value::String(t)) => {
                            Value::String(decimal(&(dec(t) * factor)))
                        }
                        ("tiers" | "rows" | "pricing", inner) => scale(inner, factor),
                        _ => value.clone(),
                    };
                    (name.clone(), value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(|item| scale(item, factor)).collect()),
        other => other.clone(),
    }
}

/// A fraction that has an end, as a decimal.
pub fn decimal(x: &Q) -> String {
    let mut digits = 0;
    let mut scaled = x.clone();
    while !scaled.is_integer() {
        digits += 1;
        assert!(digits < 60, "{x} has no end");
        scaled *= q(10);
    }
    fixed(x, digits)
}

/// With exactly so many places; the fraction must fit.
pub fn fixed(x: &Q, digits: u32) -> String {
    let scaled = x.abs() * Q::from_integer(BigInt::from(10).pow(digits));
    assert!(scaled.is_integer(), "{x} has more than {digits} places");
    let mut text = scaled.to_integer().to_string();
    while text.len() <= digits as usize {
        text.insert(0, '0');
    }
    if digits > 0 {
        text.insert(text.len() - digits as usize, '.');
    }
    if x.is_negative() { format!("-{text}") } else { text }
}

// ---------------------------------------------------------------------------------------------------------------
// What the billing system was told

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
    pub changes: Vec<Change>,
    /// Each boundary that was billed: its day, and what had been said by then.
    pub billed: Vec<(Day, u64)>,
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

/// Half-open.
pub type Stretch = (Instant, Instant);

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
    /// Lines that drew from it since it was compared last.
    pub lines: BTreeSet<String>,
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
            let holds = block.from <= one.event.at && block.until.is_none_or(|u| one.event.at < u);
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

fn event_value<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.properties.get(name).map(String::as_str)
}

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

/// What of a contract is in force on a day: the plan's items replaced and extended by the contract's, and all changes
/// up to the day, in the order of their effective days.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    pub book: Option<String>,
    pub charges: BTreeMap<String, Value>,
    pub fees: BTreeMap<String, Value>,
    pub overrides: Vec<Value>,
    pub discounts: Vec<Value>,
    pub paused: bool,
    /// What fees come to times this, since renewals.
    pub uplift: Option<Q>,
}

impl Contract {
    /// The first day without it; None runs on. As all changes leave it, in the order of their effective instants.
    pub fn end(&self) -> Option<Day> {
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        changes.sort_by_key(|c| c.effective);
        let mut end = self.ends;
        for change in changes {
            match change.kind {
                // A term counts from the contract's start.
                Kind::Amend => {
                    if let Some(term) = text(&change.doc, "term") {
                        end = Some(months_after(self.starts, months(term)));
                    }
                }
                Kind::Renew => {
                    let old = end.expect("an end");
                    end = Some(months_after(old, months(text(&change.doc, "term").expect("a term"))));
                }
                Kind::Resume => {
                    if let Some(days) = change.doc["extend_days"].as_i64() {
                        end = end.map(|e| e + Days::new(days as u64));
                    }
                }
                _ => {}
            }
        }
        for cancel in self.changes.iter().filter(|c| c.kind == Kind::Cancel) {
            let on = date(&cancel.doc, "on").expect("a day");
            end = Some(end.map_or(on, |e| e.min(on)));
        }
        end
    }

    /// The boundary that is to be billed next, if there is one.
    pub fn next_boundary(&self) -> Option<Day> {
        let Some((last, _)) = self.billed.last() else { return Some(self.starts) };
        if self.end().is_some_and(|end| end <= *last) {
            return None;
        }
        let (_, next) = self.grid.period(*last, self.interval);
        Some(self.end().map_or(next, |end| end.min(next)))
    }

    /// The end of the billing period that holds a day.
    pub fn period_end(&self, day: Day) -> Day {
        let next = self.grid.period(day.max(self.starts), self.interval).1;
        self.end().map_or(next, |end| end.min(next))
    }
}

/// Puts items into a map by key; one with "remove" takes its key out.
fn put(into: &mut BTreeMap<String, Value>, items: &[Value]) {
    for item in items {
        let key = text(item, "key").expect("a key").to_owned();
        if item["remove"] == Value::Bool(true) {
            into.remove(&key);
        } else {
            into.insert(key, item.clone());
        }
    }
}

impl World {
    fn zone(&self, contract: &Contract) -> &Zone {
        &self.zones[&contract.zone]
    }

    fn digits(&self, contract: &Contract) -> u32 {
        self.minor_units[&contract.currency]
    }

    /// The terms at an instant: after the changes whose effective instant is not after it.
    pub fn terms(&self, contract: &Contract, at: Instant) -> Terms {
        let mut terms = Terms::default();
        // The plan's items, and the contract's own over them: charges, fees.
        let (mut plans, mut own) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        let mut changes: Vec<&Change> = contract.changes.iter().filter(|c| c.effective <= at).collect();
        changes.sort_by_key(|c| c.effective); // stable: as they were said of one instant
        for change in changes {
            let doc = &change.doc;
            match change.kind {
                Kind::Create | Kind::ChangePlan => {
                    if let Some(plan) = text(doc, "plan") {
                        let plan = &self.plans[plan];
                        terms.book = text(plan, "price_book").map(str::to_owned);
                        plans = (list(plan, "charges").to_vec(), list(plan, "fees").to_vec());
                    }
                    own.0.extend(list(doc, "charges").iter().cloned());
                    own.1.extend(list(doc, "fees").iter().cloned());
                    terms.overrides.extend(list(doc, "overrides").iter().cloned());
                    change_items(&mut terms.discounts, list(doc, "discounts"));
                }
                Kind::Amend => {
                    own.0.extend(list(doc, "charges").iter().cloned());
                    own.1.extend(list(doc, "fees").iter().cloned());
                    change_items(&mut terms.discounts, list(doc, "discounts"));
                    for (key, quantity) in doc["quantities"].as_object().into_iter().flatten() {
                        let mut fee = current(&plans.1, &own.1, key);
                        fee["quantity"] = quantity.clone();
                        own.1.push(fee);
                    }
                    for (key, pricing) in doc["prices"].as_object().into_iter().flatten() {
                        let mut fee = current(&plans.1, &own.1, key);
                        fee["pricing"] = pricing.clone();
                        own.1.push(fee);
                    }
                }
                Kind::Pause => terms.paused = true,
                Kind::Resume => terms.paused = false,
                Kind::Renew => {
                    let factor = (q(100) + maybe(doc, "percent").unwrap_or_else(|| q(0))) / q(100);
                    // Fees rise, and what the contract fixes itself; list prices and percentages off do not.
                    for one in &mut terms.overrides {
                        if one["percent_off"].is_null() {
                            *one = scale(one, &factor);
                        }
                    }
                    for charge in &mut own.0 {
                        *charge = scale(charge, &factor);
                    }
                    terms.uplift = Some(terms.uplift.unwrap_or_else(|| q(1)) * factor);
                }
                Kind::Cancel => {}
            }
        }
        put(&mut terms.charges, &plans.0);
        put(&mut terms.charges, &own.0);
        put(&mut terms.fees, &plans.1);
        put(&mut terms.fees, &own.1);
        terms
    }

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

    /// Prepaid: the instalments of the periods begun, in equal parts. Postpaid: at each period's end what its usage
    /// leaves missing.
    fn commitments(&self, contract: &Contract, open: Day, last: Day, sums: &mut Amounts) {
        let Some(end) = contract.end() else { return }; // deals with commitments have one
        for one in list(&contract.changes[0].doc, "commitments") {
            let key = text(one, "key").expect("a key");
            let term = (0..).find(|n| months_after(contract.starts, *n) >= end).expect("months");
            let every = text(one, "every").map_or(term, months);
            for n in 0.. {
                let (from, until) = (
                    months_after(contract.starts, n * every),
                    months_after(contract.starts, (n + 1) * every),
                );
                if from >= end {
                    break;
                }
                let amounts = list(one, "amounts");
                let amount = maybe(one, "amount")
                    .unwrap_or_else(|| dec(amounts[n as usize].as_str().expect("an amount")));
                if text(one, "kind") == Some("prepaid") {
                    let part = text(one, "instalments").map_or(every, months);
                    // Spread over time, so cumulatively (rules 0.7).
                    let (parts, digits) = (every / part, self.digits(contract));
                    let until =
                        |n: u32| round(&(&amount * q(n.into()) / q(parts.into())), digits, Rounding::HalfUp);
                    let parts: Vec<Q> = (0..parts).map(|n| until(n + 1) - until(n)).collect();
                    for (n, amount) in parts.into_iter().enumerate() {
                        let day = months_after(from, n as u32 * part);
                        if day < open {
                            sums.insert(self.key(contract, key, day, "line", ""), amount);
                        }
                    }
                } else if until <= last {
                    let spent: Q = sums
                        .iter()
                        .filter(|(k, _)| {
                            k.period >= from && k.period < until && self.is_usage(contract, &k.charge)
                        })
                        .map(|(_, amount)| amount)
                        .sum();
                    sums.insert(self.key(contract, key, from, "true_up", ""), (amount - spent).max(q(0)));
                }
            }
        }
    }

    fn is_usage(&self, contract: &Contract, charge: &str) -> bool {
        list(&contract.changes[0].doc, "charges").iter().any(|c| text(c, "key") == Some(charge))
    }

    /// Whether a line of this name is one of a commitment, whose periods are its own.
    pub fn is_commitment(&self, contract: &Contract, name: &str) -> bool {
        list(&contract.changes[0].doc, "commitments").iter().any(|c| text(c, "key") == Some(name))
    }

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
                    let pricing = self.resolve(&terms, customer, charge, meter, event, day, 0, &own).2;
                    let cost = rate(&pricing, &quantity);
                    found.push(Cost { event, meter: meter.key.clone(), cost });
                }
            }
        }
        found.sort_by_key(|c| c.event.at);
        found
    }

    fn key(
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

    /// The share of a stretch in its whole service period (rules 2).
    fn share(&self, contract: &Contract, (start, end): Stretch, whole: (Day, Day), every: u32) -> Q {
        let over = |a: i64, b: i64| Q::new(a.into(), b.into());
        let zone = self.zone(contract);
        let all = (zone.midnight(whole.0), zone.midnight(whole.1));
        if (start, end) == all {
            return q(1);
        }
        let (first, last) = (zone.day(start), zone.day(end));
        match contract.proration {
            Proration::Day => over((last - first).num_days(), (whole.1 - whole.0).num_days()),
            Proration::Second => over(end - start, all.1 - all.0),
            Proration::Thirty => over((last - first).num_days(), 30 * i64::from(every)).min(q(1)),
            Proration::ThirtyStrict => over(days30(first, last), 30 * i64::from(every)),
            Proration::None => q(1),
        }
    }

    /// Every instant in a stretch of days at which terms may change: its midnights, and the instants of changes.
    fn moments(&self, contract: &Contract, (from, until): (Day, Day)) -> Vec<Stretch> {
        let zone = self.zone(contract);
        let (start, end) = (zone.midnight(from), zone.midnight(until));
        let midnights = from.iter_days().take_while(|d| *d < until).map(|d| zone.midnight(d));
        let changes = contract.changes.iter().map(|c| c.effective).filter(|at| start < *at && *at < end);
        let mut found: Vec<Instant> = midnights.chain(changes).chain([end]).collect();
        found.sort_unstable();
        found.dedup();
        found.windows(2).map(|w| (w[0], w[1])).collect()
    }

    /// A fee of one service period: each stretch of equal terms is its share, rounded once.
    fn fee(
        &self,
        contract: &Contract,
        key: &str,
        every: u32,
        whole: (Day, Day),
        days: (Day, Day),
        terms_at: &mut dyn FnMut(Instant) -> Rc<Terms>,
    ) -> Q {
        let zone = self.zone(contract);
        let mut stretches: Vec<((Value, Q), Stretch)> = Vec::new();
        for (at, next) in self.moments(contract, days) {
            let (terms, day) = (terms_at(at), zone.day(at));
            let Some(fee) = terms.fees.get(key).filter(|fee| !terms.paused && in_force(fee, day)) else {
                continue;
            };
            let uplift = terms.uplift.clone().unwrap_or_else(|| q(1));
            let own = (undated(fee), uplift * discount(&terms.discounts, key, day));
            match stretches.last_mut() {
                Some((same, (_, end))) if *same == own && *end == at => *end = next,
                _ => stretches.push((own, (at, next))),
            }
        }
        stretches
            .into_iter()
            .map(|((fee, factor), stretch)| {
                let amount = rate(&fee["pricing"], &maybe(&fee, "quantity").unwrap_or_else(|| q(1)));
                let share = self.share(contract, stretch, whole, every);
                round(&(amount * factor * share), self.digits(contract), contract.rounding)
            })
            .sum()
    }

    /// A usage charge in one service period: each stretch with the same charge by itself.
    #[allow(clippy::too_many_arguments)]
    fn usage(
        &self,
        contract: &Contract,
        key: &str,
        whole: (Day, Day),
        days: (Day, Day),
        said: u64,
        terms_at: &mut dyn FnMut(Instant) -> Rc<Terms>,
        sums: &mut Amounts,
    ) {
        let zone = self.zone(contract);
        let mut stretches: Vec<(Value, Stretch)> = Vec::new();
        for (at, next) in self.moments(contract, days) {
            let (terms, day) = (terms_at(at), zone.day(at));
            let Some(charge) = terms.charges.get(key).filter(|c| in_force(c, day)) else { continue };
            let charge = undated(charge);
            match stretches.last_mut() {
                Some((same, (_, end))) if *same == charge && *end == at => *end = next,
                _ => stretches.push((charge, (at, next))),
            }
        }
        for (charge, stretch) in stretches {
            // Discounts change at the boundaries of service periods only, as these simulations have them.
            let every = text(&charge, "every").map_or(contract.interval, months);
            let share = self.share(contract, stretch, whole, every);
            self.usage_stretch(contract, &charge, days.0, whole, stretch, &share, said, terms_at, sums);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn usage_stretch(
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
        let theirs = terms.overrides.iter().chain(&customer.overrides).filter(|o| aims(o, charge, meter));
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
        // The quantity of each resolved price, version and line. A line is who is invoiced and its dimensions;
        // in that order a tie of the split goes.
        type Line = (usize, String);
        type Parts = BTreeMap<usize, (Value, BTreeMap<Line, Q>)>;
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
                self.resolve(&terms, customer, charge, meter, event, day, list_version, &versions);
            let dimensions: Vec<String> =
                named.iter().filter_map(|d| event.properties.get(*d).map(|v| format!("{d}={v}"))).collect();
            let entity = event.bill_to.as_ref().unwrap_or(&contract.bill_to);
            let entity = customer.bill_tos.iter().position(|b| b == entity).expect("a bill_to");
            let of = &mut chains
                .entry(chain)
                .or_default()
                .entry(version)
                .or_insert_with(|| (pricing, BTreeMap::new()))
                .1;
            let sum = of.entry((entity, dimensions.join(","))).or_insert_with(|| q(0));
            *sum = if meter.greatest { quantity.max(sum.clone()) } else { quantity + &*sum };
        }
        let off = discount(&terms.discounts, key, start);
        let mut posted = q(0);
        let mut post = |(entity, dimensions): &Line, amount: Q| {
            posted += &amount;
            let mut to = self.key(contract, key, period, "line", dimensions);
            to.bill_to = customer.bill_tos[*entity].clone();
            *sums.entry(to).or_insert_with(|| q(0)) += amount;
        };
        for parts in chains.values() {
            let whole: Q = parts.values().flat_map(|(_, lines)| lines.values()).sum();
            let mut before = q(0);
            for (pricing, lines) in parts.values() {
                // The whole of a greatest value is the largest of its lines.
                let own = if meter.greatest {
                    lines.values().max().expect("a line").clone()
                } else {
                    lines.values().sum()
                };
                let whole = if contract.reset || meter.greatest { &own } else { &whole };
                if is_linear(pricing) {
                    for (line, quantity) in lines {
                        post(line, round(&(rate(pricing, quantity) * &off), digits, contract.rounding));
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
                let total = round(&(exact * &off), digits, contract.rounding);
                let weights: Vec<Q> = lines.values().cloned().collect();
                for (line, amount) in lines.keys().zip(split(&total, &weights, digits)) {
                    post(line, amount);
                }
            }
        }
        let bounds = &versions[first].pricing;
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
    fn resolve(
        &self,
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
        for (scope, overrides) in [("contract", &terms.overrides), ("customer", &customer.overrides)] {
            let best = overrides
                .iter()
                .enumerate()
                .filter(|(_, o)| {
                    aims(o, charge, meter) && in_force(o, day) && matches(&o["match"], event, meter)
                })
                .max_by_key(|(_, o)| o["match"].as_object().map_or(0, |m| m.len()));
            let Some((n, best)) = best else { continue };
            let name = format!("{scope} {n}");
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
    fn row(&self, pricing: &Value, event: &Event) -> (String, Value) {
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

/// An item of a contract as it is now: its own, else the plan's.
fn current(plan: &[Value], own: &[Value], key: &str) -> Value {
    let found = own.iter().rev().chain(plan).find(|item| text(item, "key") == Some(key));
    found.unwrap_or_else(|| panic!("no item {key}")).clone()
}

/// Replaces items of the same key where they stand, adds new ones at the end, and drops those with "remove".
fn change_items(items: &mut Vec<Value>, changes: &[Value]) {
    for change in changes {
        let at = items.iter().position(|item| item["key"] == change["key"]);
        match (at, change["remove"] == Value::Bool(true)) {
            (Some(at), true) => drop(items.remove(at)),
            (Some(at), false) => items[at] = change.clone(),
            (None, true) => {}
            (None, false) => items.push(change.clone()),
        }
    }
}

/// What is left of 1 after the percentages off that are in force for a charge or fee on a day.
fn discount(discounts: &[Value], key: &str, day: Day) -> Q {
    let mut left = q(1);
    for one in discounts {
        let scope = list(one, "charges");
        if in_force(one, day) && (scope.is_empty() || scope.iter().any(|k| k == key)) {
            left *= (q(100) - field(one, "percent_off")) / q(100);
        }
    }
    left
}

/// Whether an override is one of this charge.
fn aims(one: &Value, charge: &Value, meter: &Meter) -> bool {
    text(one, "meter") == Some(&meter.key)
        || text(one, "charge").is_some_and(|key| text(charge, "key") == Some(key))
}

/// An item without its dates.
fn undated(item: &Value) -> Value {
    let mut item = item.clone();
    if let Value::Object(fields) = &mut item {
        fields.remove("from");
        fields.remove("until");
    }
    item
}

/// 00:00 UTC of a day.
fn utc(day: Day) -> Instant {
    day.and_hms_opt(0, 0, 0).expect("midnight").and_utc().timestamp()
}

/// Between its local dates `from` and `until` (exclusive).
fn in_force(item: &Value, day: Day) -> bool {
    date(item, "from").is_none_or(|from| from <= day) && date(item, "until").is_none_or(|until| day < until)
}

/// Equality on dimensions; an event without the dimension does not match.
fn matches(of: &Value, event: &Event, meter: &Meter) -> bool {
    of.as_object().is_none_or(|wanted| {
        wanted.iter().all(|(name, value)| {
            if name == "bill_to" {
                return event.bill_to.as_deref() == value.as_str();
            }
            assert!(meter.dimensions.contains(name), "{name} is no dimension of {}", meter.key);
            event.properties.get(name).map(String::as_str) == value.as_str()
        })
    })
}

impl World {
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
}

impl World {
    /// Whether a contract ever had an item of this key.
    pub fn mentions(&self, contract: &Contract, key: &str) -> bool {
        contract.changes.iter().any(|c| {
            list(&c.doc, "fees")
                .iter()
                .chain(list(&c.doc, "charges"))
                .any(|item| text(item, "key") == Some(key))
        })
    }
}

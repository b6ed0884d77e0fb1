//! Any sequence of changes, against a naive fold: day by day, with the terms of each day written down.

use super::tests::{BIG, PLAN, changes, plan};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What may happen to a contract.
#[derive(Debug, Clone)]
enum Op {
    Quantity(usize, u32),
    Price(usize, u32),
    Add(usize, u32),
    Remove(usize),
    Plan(bool),
    Pause,
    Resume(bool),
    Cancel,
    Renew(u32),
    Term(u32),
}

const KEYS: [&str; 5] = ["platform", "seats", "ramped", "extra", "more"];
const CONTRACT: &str = r#"{"key":"a","customer":"acme","starts_on":"2026-01-31","term":"10 months","plan":"pro",
    "fees":[{"key":"ramped","product":"ai","pricing":{"model":"per_unit","unit_price":"1000"},"quantity":"2",
        "ramp":[{"after":"3 months","quantity":"7"},{"from":"2026-08-10","pricing":{"model":"per_unit","unit_price":"50"},"quantity":"8"}]}]}"#;

impl Op {
    fn change(&self) -> (&'static str, String) {
        let each = |amount: &u32| format!(r#"{{"model":"per_unit","unit_price":"{amount}"}}"#);
        match self {
            Op::Quantity(key, n) => ("amend", format!(r#"{{"quantities":{{"{}":"{n}"}}}}"#, KEYS[*key])),
            Op::Price(key, n) => ("amend", format!(r#"{{"prices":{{"{}":{}}}}}"#, KEYS[*key], each(n))),
            Op::Add(key, n) => (
                "amend",
                format!(r#"{{"fees":[{{"key":"{}","product":"ai","pricing":{}}}]}}"#, KEYS[*key], each(n)),
            ),
            Op::Remove(key) => ("amend", format!(r#"{{"fees":[{{"key":"{}","remove":true}}]}}"#, KEYS[*key])),
            Op::Plan(big) => ("change_plan", format!(r#"{{"plan":"{}"}}"#, if *big { "big" } else { "pro" })),
            Op::Pause => ("pause", "{}".into()),
            Op::Resume(extend) => ("resume", format!(r#"{{"extend_term":{extend}}}"#)),
            Op::Cancel => ("cancel", "{}".into()),
            Op::Renew(percent) => ("renew", format!(r#"{{"percent":"{percent}","term":"3 months"}}"#)),
            Op::Term(months) => ("amend", format!(r#"{{"term":"{months} months"}}"#)),
        }
    }
}

/// A fee as somebody with a calendar would keep it: what it is, and what it will be.
#[derive(Debug, Clone)]
struct Kept {
    amount: Exact,
    quantity: Exact,
    later: Vec<(NaiveDate, Option<Exact>, Option<Exact>)>,
}

fn n(value: u32) -> Exact {
    Exact::from_i64(value.into())
}

impl Kept {
    fn plain(amount: u32, quantity: u32) -> Kept {
        Kept { amount: n(amount), quantity: n(quantity), later: Vec::new() }
    }

    fn on(&self, day: NaiveDate) -> (String, String) {
        let (mut amount, mut quantity) = (self.amount, self.quantity);
        for (at, price, count) in &self.later {
            if *at <= day {
                amount = price.unwrap_or(amount);
                quantity = count.unwrap_or(quantity);
            }
        }
        (amount.to_string(), quantity.to_string())
    }
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// The fees in force: the plan's under the contract's own.
fn fees(own: &BTreeMap<&'static str, Option<Kept>>, big: bool) -> BTreeMap<&'static str, Kept> {
    let mut fees = plan_fees(big);
    for (key, said) in own {
        match said {
            Some(kept) => drop(fees.insert(key, kept.clone())),
            None => drop(fees.remove(key)),
        }
    }
    fees
}

/// The plans of the tests, with prices that quantities count for.
fn plans() -> BTreeMap<String, Plan> {
    let each =
        |text: &str| plan(&text.replace(r#""model":"flat","amount""#, r#""model":"per_unit","unit_price""#));
    [("pro", each(PLAN)), ("big", each(BIG))].map(|(key, plan)| (key.to_string(), plan)).into()
}

fn plan_fees(big: bool) -> BTreeMap<&'static str, Kept> {
    match big {
        true => [("platform", Kept::plain(300, 1))].into(),
        false => [("platform", Kept::plain(100, 1)), ("seats", Kept::plain(20, 5))].into(),
    }
}

/// What a contract costs per day, as `key amount quantity`; `None` where a change can't be.
fn naive(ops: &[(NaiveDate, Op)], until: NaiveDate) -> Option<Vec<(NaiveDate, BTreeSet<String>)>> {
    let start = day("2026-01-31");
    let mut pending: Vec<(NaiveDate, usize, Op)> =
        ops.iter().enumerate().map(|(v, (on, op))| ((*on).max(start), v, op.clone())).collect();
    pending.sort_by_key(|(on, v, _)| (*on, *v));
    let mut renewals: Vec<(usize, u32)> = ops
        .iter()
        .enumerate()
        .filter_map(|(v, (_, op))| match op {
            Op::Renew(p) => Some((v, *p)),
            _ => None,
        })
        .collect();
    pending.retain(|(_, _, op)| !matches!(op, Op::Renew(_)));
    let months = |from: NaiveDate, n: u32| from.checked_add_months(chrono::Months::new(n)).unwrap();
    let mut big = false;
    let mut own: BTreeMap<&'static str, Option<Kept>> = BTreeMap::new();
    let ramped = vec![(day("2026-04-30"), None, Some(n(7))), (day("2026-08-10"), Some(n(50)), Some(n(8)))];
    own.insert("ramped", Some(Kept { amount: n(1000), quantity: n(2), later: ramped }));
    let (mut counted, mut end, mut term_starts) = (Some((start, 10)), months(start, 10), start);
    let (mut cancelled, mut paused_since): (bool, Option<NaiveDate>) = (false, None);
    let mut costs = Vec::new();
    let mut today = start;
    while today < until {
        loop {
            let next = pending.first().filter(|(on, _, _)| *on == today).cloned();
            let renewal = renewals.first().copied().filter(|_| end == today && !cancelled);
            match (renewal, next) {
                (Some((version, percent)), next) if next.as_ref().is_none_or(|(_, v, _)| version < *v) => {
                    renewals.remove(0);
                    let (from, so_far) = counted.unwrap_or((end, 0));
                    counted = Some((from, so_far + 3));
                    term_starts = today;
                    end = months(from, so_far + 3);
                    if percent > 0 {
                        let raise = |value: Exact| {
                            let hundredths = value.mul(n(100 + percent)).unwrap();
                            hundredths.mul(Exact::from_parts(1, 2).unwrap()).unwrap()
                        };
                        for (key, mut kept) in fees(&own, big) {
                            kept.amount = raise(kept.amount);
                            for (_, price, _) in &mut kept.later {
                                *price = price.map(raise);
                            }
                            own.insert(key, Some(kept));
                        }
                    }
                }
                (_, Some((_, _, op))) => {
                    pending.remove(0);
                    if today >= end && !(today == end && matches!(op, Op::Cancel)) {
                        continue;
                    }
                    match op {
                        Op::Quantity(key, count) => {
                            let mut kept = fees(&own, big).remove(KEYS[key])?;
                            kept.later
                                .iter_mut()
                                .filter(|(at, _, _)| *at <= today)
                                .for_each(|step| step.2 = None);
                            kept.quantity = n(count);
                            own.insert(KEYS[key], Some(kept));
                        }
                        Op::Price(key, amount) => {
                            let mut kept = fees(&own, big).remove(KEYS[key])?;
                            kept.later
                                .iter_mut()
                                .filter(|(at, _, _)| *at <= today)
                                .for_each(|step| step.1 = None);
                            kept.amount = n(amount);
                            own.insert(KEYS[key], Some(kept));
                        }
                        Op::Add(key, amount) => drop(own.insert(KEYS[key], Some(Kept::plain(amount, 1)))),
                        Op::Remove(key) => {
                            fees(&own, big).remove(KEYS[key])?;
                            match plan_fees(big).contains_key(KEYS[key]) {
                                true => own.insert(KEYS[key], None),
                                false => own.remove(KEYS[key]),
                            };
                        }
                        Op::Plan(to) => {
                            big = to;
                            own.retain(|key, said| said.is_some() || plan_fees(big).contains_key(key));
                        }
                        Op::Pause => paused_since = paused_since.or(Some(today)),
                        Op::Resume(extend) => {
                            if let Some(since) = paused_since.take()
                                && extend
                            {
                                end += today - since;
                                counted = None;
                            }
                        }
                        Op::Cancel => (end, cancelled) = (today, true),
                        Op::Term(n) => {
                            let wanted = months(term_starts, n);
                            if wanted <= today {
                                return None;
                            }
                            (counted, end) = (Some((term_starts, n)), wanted);
                        }
                        Op::Renew(_) => unreachable!("renewals wait for the end"),
                    }
                }
                _ => {
                    let mut due = BTreeSet::new();
                    if today < end && paused_since.is_none() {
                        for (key, kept) in fees(&own, big) {
                            let (amount, quantity) = kept.on(today);
                            due.insert(format!("{key} {amount} {quantity}"));
                        }
                    }
                    costs.push((today, due));
                    break;
                }
            }
        }
        today = today.succ_opt().unwrap();
    }
    Some(costs)
}

/// Each stretch of a fee, as it is written down for a day.
fn stretches(timeline: &Timeline) -> Vec<(Stretch, String)> {
    let rows = timeline.rows.iter().filter(|row| row.kind == Kind::Fee);
    rows.map(|row| {
        let fee = Fee::read(&Node::root(&row.terms)).unwrap();
        let pricing = fee.pricing.to_tree();
        let Some(Tree::Text(amount)) = pricing.get("unit_price") else { panic!() };
        (row.during, format!("{} {amount} {}", row.key, fee.quantity))
    })
    .collect()
}

fn billed(stretches: &[(Stretch, String)], on: NaiveDate) -> BTreeSet<String> {
    let on = Point::midnight(on);
    let holds = |during: &Stretch| during.from <= on && during.until.is_none_or(|until| on < until);
    stretches.iter().filter(|(during, _)| holds(during)).map(|(_, text)| text.clone()).collect()
}

fn any_op() -> impl Strategy<Value = Op> {
    let key = 0..KEYS.len();
    prop_oneof![
        4 => (key.clone(), 1u32..20).prop_map(|(key, n)| Op::Quantity(key, n)),
        3 => (key.clone(), 1u32..500).prop_map(|(key, n)| Op::Price(key, n)),
        3 => (key.clone(), 1u32..500).prop_map(|(key, n)| Op::Add(key, n)),
        1 => key.prop_map(Op::Remove),
        2 => any::<bool>().prop_map(Op::Plan),
        2 => Just(Op::Pause),
        2 => any::<bool>().prop_map(Op::Resume),
        1 => Just(Op::Cancel),
        2 => (0u32..12).prop_map(Op::Renew),
        1 => (1u32..16).prop_map(Op::Term),
    ]
}

proptest! {
    /// Recorded in any order, changes come to what a calendar on the wall says of each day; what can't be is refused
    /// by both. Equal terms are one stretch, and the document in force can be read again.
    #[test]
    fn changes_come_to_what_each_day_says(
        ops in proptest::collection::vec((-20i64..500, any_op()), 0..9),
        // Changes in the order of their days are the usual case.
        sorted in any::<bool>(),
    ) {
        let mut ops: Vec<(NaiveDate, Op)> =
            ops.into_iter().map(|(after, op)| (day("2026-01-31") + chrono::Duration::days(after), op)).collect();
        if sorted {
            ops.sort_by_key(|(on, _)| *on);
        }
        let texts: Vec<(&str, String, String)> = ops
            .iter()
            .map(|(on, op)| { let (kind, change) = op.change(); (kind, on.to_string(), change) })
            .collect();
        let given: Vec<(&str, &str, &str)> = texts.iter().map(|(k, on, c)| (*k, on.as_str(), c.as_str())).collect();
        let folded = fold(changes(CONTRACT, &given).unwrap(), &plans());
        let expected = naive(&ops, day("2028-06-01"));
        match (folded, expected) {
            (Ok(timeline), Some(days)) => {
                let stretches = stretches(&timeline);
                for (on, due) in days {
                    prop_assert_eq!(billed(&stretches, on), due, "on {}", on);
                }
                for pair in timeline.rows.windows(2) {
                    let content = |row: &Row| (row.key.clone(), row.price_book.clone(), row.terms.clone());
                    let same = content(&pair[0]) == content(&pair[1]);
                    prop_assert!(!same || pair[0].during.until != Some(pair[1].during.from), "{:?}", pair);
                }
                let again = timeline.document.to_tree().canonical().unwrap();
                let read = crate::domain::foundation::json::parse(&again).unwrap();
                prop_assert_eq!(Contract::read(&Node::root(&read)).unwrap(), timeline.document);
            }
            (Err(_), None) => (),
            (folded, expected) => prop_assert!(false, "folded {:?}, expected {:?}", folded.map(drop), expected.map(drop)),
        }
    }
}

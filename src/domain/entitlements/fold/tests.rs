//! The worked numbers of rules.md 9, the order in which sources are heard, and properties of any of them.

use super::*;
use crate::domain::foundation::json;
use proptest::prelude::*;

fn item(text: &str) -> Item {
    Item::read(&Node::root(&json::parse(text).unwrap())).unwrap()
}

fn source(level: Level, from: i64, until: Option<i64>, item_text: &str) -> Source {
    let word = Level::WORDS[level as usize];
    Source {
        level,
        label: word.into(),
        during: Stretch { from: Instant(from), until: until.map(Instant) },
        paused: Vec::new(),
        grid: Some(Grid {
            zone: "Europe/Berlin".into(),
            starts_on: "2026-01-31".into(),
            every: "1 month".into(),
            alignment: "anniversary".into(),
        }),
        item: item(item_text),
    }
}

fn quota(value: i64) -> String {
    format!(r#"{{"feature":"tokens","value":"{value}"}}"#)
}

/// From, until and value of each state.
fn values(kind: Kind, sources: Vec<Source>) -> Vec<(i64, Option<i64>, String)> {
    let states = states(kind, "UTC", sources).unwrap();
    let show = |state: &State| {
        let value = state.value.to_tree().canonical().unwrap();
        if state.suspended { format!("suspended {value}") } else { value }
    };
    states.iter().map(|(d, s)| (d.from.0, d.until.map(|until| until.0), show(s))).collect()
}

#[test]
fn add_ons_add_and_the_contract_overrides() {
    let mut sources = vec![
        source(Level::Plan, 0, None, &quota(100_000)),
        source(Level::AddOn, 10, Some(30), &quota(50_000)),
        source(Level::AddOn, 20, None, &quota(50_000)),
    ];
    assert_eq!(
        values(Kind::Metered, sources.clone()),
        [
            (0, Some(10), "\"100000\"".into()),
            (10, Some(20), "\"150000\"".into()),
            (20, Some(30), "\"200000\"".into()),
            (30, None, "\"150000\"".into()),
        ]
    );
    sources.push(source(Level::Contract, 25, None, &quota(300_000)));
    assert_eq!(
        values(Kind::Metered, sources.clone())[2..],
        [
            (20, Some(25), "\"200000\"".into()),
            (25, Some(30), "\"300000\"".into()),
            (30, None, "\"300000\"".into())
        ]
    );
    // An operator's dated exception beats the contract, and ends by itself.
    sources.push(source(Level::Operator, 40, Some(50), r#"{"feature":"tokens","value":null}"#));
    assert_eq!(
        values(Kind::Metered, sources)[4..],
        [(30, Some(40), "\"300000\"".into()), (40, Some(50), "null".into()), (50, None, "\"300000\"".into())]
    );
}

#[test]
fn an_exception_changes_the_value_and_nothing_else() {
    let plan = r#"{"feature":"tokens","value":"10","reset":"day","mode":"soft","match":{"model":"gpt-4"}}"#;
    let sources = vec![source(Level::Plan, 0, None, plan), source(Level::Operator, 0, None, &quota(20))];
    let list = states(Kind::Metered, "Asia/Tokyo", sources).unwrap();
    let state = &list[0].1;
    assert_eq!((state.mode, state.reset), (Mode::Soft, Reset::Calendar(Unit::Day)));
    assert_eq!((state.grid.zone.as_str(), state.grid.every.as_str()), ("Asia/Tokyo", "1 day"));
    assert_eq!(state.matches.canonical().unwrap(), r#"{"model":"gpt-4"}"#);
    assert_eq!(state.heard.iter().map(|h| h.effect).collect::<Vec<_>>(), ["replaced", "set"]);
    // The contract's own item replaces the plan's whole.
    let sources = vec![source(Level::Plan, 0, None, plan), source(Level::Contract, 0, None, &quota(20))];
    let list = states(Kind::Metered, "Asia/Tokyo", sources).unwrap();
    assert_eq!((list[0].1.mode, list[0].1.reset), (Mode::Hard, Reset::BillingPeriod));
    assert_eq!(list[0].1.grid.zone, "Europe/Berlin");
}

#[test]
fn a_paused_contract_gives_nothing() {
    let mut plan = source(Level::Plan, 0, Some(100), &quota(10));
    plan.paused = vec![Stretch { from: Instant(20), until: Some(Instant(30)) }];
    let exception = source(Level::Operator, 25, Some(40), &quota(50));
    assert_eq!(
        values(Kind::Metered, vec![plan.clone(), exception.clone()]),
        [
            (0, Some(20), "\"10\"".into()),
            (20, Some(25), "suspended \"10\"".into()),
            (25, Some(30), "suspended \"50\"".into()),
            (30, Some(40), "\"50\"".into()),
            (40, Some(100), "\"10\"".into()),
        ]
    );
    // Another contract gives it still.
    let other = source(Level::Plan, 0, None, &quota(7));
    assert_eq!(
        values(Kind::Metered, vec![plan, other]),
        [
            (0, Some(20), "\"7\"".into()),
            (20, Some(30), "\"7\"".into()),
            (30, Some(100), "\"7\"".into()),
            (100, None, "\"7\"".into()),
        ]
    );
    // What nobody agreed to is given by the exception alone.
    assert_eq!(values(Kind::Metered, vec![exception]), [(25, Some(40), "\"50\"".into())]);
}

#[test]
fn kinds_combine_each_in_their_way() {
    let flag =
        |level, value: &str| source(level, 0, None, &format!(r#"{{"feature":"sso","value":{value}}}"#));
    let one = |kind, list| values(kind, list)[0].2.clone();
    assert_eq!(one(Kind::Boolean, vec![flag(Level::Plan, "true"), flag(Level::Contract, "false")]), "false");
    assert_eq!(one(Kind::Boolean, vec![flag(Level::Plan, "false"), flag(Level::AddOn, "true")]), "true");
    assert_eq!(
        one(Kind::Boolean, vec![flag(Level::Plan, "true"), flag(Level::AddOn, "false")]),
        "true",
        "an add-on adds"
    );
    assert_eq!(
        one(Kind::Static, vec![flag(Level::Plan, "\"small\""), flag(Level::AddOn, "\"large\"")]),
        "\"large\""
    );
    let most = |value: &str| {
        source(Level::Contract, 0, None, &format!(r#"{{"feature":"x","combine":"max","value":{value}}}"#))
    };
    assert_eq!(one(Kind::Seat, vec![flag(Level::Plan, "\"5\""), most("\"3\"")]), "\"5\"");
    assert_eq!(one(Kind::Seat, vec![flag(Level::Plan, "\"5\""), most("\"8\"")]), "\"8\"");
    assert_eq!(
        one(Kind::Seat, vec![flag(Level::Plan, "\"5\""), most("null")]),
        "null",
        "unlimited is the most"
    );
    assert_eq!(one(Kind::Seat, vec![flag(Level::Plan, "null"), flag(Level::AddOn, "\"8\"")]), "null");
    let rate = |level, limit: u32| {
        source(
            level,
            0,
            None,
            &format!(r#"{{"feature":"api","rate":{{"limit":"{limit}","per":"1 second"}}}}"#),
        )
    };
    let list = states(Kind::RateLimit, "UTC", vec![rate(Level::Plan, 10), rate(Level::AddOn, 20)]).unwrap();
    assert_eq!(list[0].1.rate.unwrap().limit, Exact::from_i64(20));
}

#[test]
fn items_are_refused_by_their_path() {
    let read = |text: &str| {
        Item::read(&Node { tree: &json::parse(text).unwrap(), path: "plans[0].entitlements[1]".into() })
    };
    let form = |text: &str| read(text).unwrap_err().message;
    assert_eq!(form(r#"{"value":"1"}"#), "plans[0].entitlements[1].feature: is missing");
    assert_eq!(form(r#"{"feature":"a/b"}"#), "plans[0].entitlements[1].feature: must not contain / or :");
    assert_eq!(
        form(r#"{"feature":"a","value":5}"#),
        "plans[0].entitlements[1].value: must be a decimal in a string, not a number"
    );
    assert_eq!(
        form(r#"{"feature":"a","valeu":"5"}"#),
        "plans[0].entitlements[1].valeu: is not a field of this document"
    );
    assert_eq!(
        form(r#"{"feature":"a","every":"1 month"}"#),
        "plans[0].entitlements[1].every: is for \"reset\": \"anniversary\""
    );
    assert_eq!(
        form(r#"{"feature":"a","reset":"fortnight"}"#),
        "plans[0].entitlements[1].reset: \"fortnight\" is not known"
    );
    assert_eq!(
        form(r#"{"feature":"a","reset":{"sliding":"400 days"}}"#),
        "plans[0].entitlements[1].reset.sliding: \"400 days\" is not a length of time"
    );
    let check = |kind, text: &str| read(text).unwrap().check(kind, "entitlements[0]").unwrap_err().message;
    assert_eq!(
        check(Kind::Boolean, r#"{"feature":"a","value":"5"}"#),
        "entitlements[0].value: must be true or false: a is a boolean feature"
    );
    assert_eq!(
        check(Kind::Boolean, r#"{"feature":"a","mode":"soft"}"#),
        "entitlements[0].mode: is not for boolean features such as a"
    );
    assert_eq!(check(Kind::Metered, r#"{"feature":"a"}"#), "entitlements[0].value: is missing");
    assert_eq!(
        check(Kind::Metered, r#"{"feature":"a","value":true}"#),
        "entitlements[0].value: must be a quantity in a string, or null"
    );
    assert_eq!(
        check(Kind::Metered, r#"{"feature":"a","value":"-1"}"#),
        "entitlements[0].value: -1 must not be below 0"
    );
    assert_eq!(
        check(Kind::Metered, r#"{"feature":"a","value":"1","reset":"never","rollover":{}}"#),
        "entitlements[0].rollover: is for quotas that reset on a calendar"
    );
    assert_eq!(
        check(Kind::Seat, r#"{"feature":"a","value":"1","reset":"day"}"#),
        "entitlements[0].reset: is not for seat features such as a"
    );
    assert_eq!(
        check(Kind::Static, r#"{"feature":"a","value":null}"#),
        "entitlements[0].value: must be a string: a is a static feature"
    );
    assert_eq!(
        check(Kind::Static, r#"{"feature":"a","value":"x","combine":"add"}"#),
        "entitlements[0].combine: add is not for static features: they don't add up"
    );
    assert_eq!(check(Kind::RateLimit, r#"{"feature":"a"}"#), "entitlements[0].rate: is missing");
    assert_eq!(
        check(Kind::Credit, r#"{"feature":"a","value":null}"#),
        "entitlements[0].value: must be true or false: a is a credit feature"
    );
}

#[test]
fn items_have_one_canonical_form() {
    for text in [
        r#"{"combine":"max","every":"1 month","feature":"a","match":{"a":"1","b":"2"},"mode":"overage","reset":"anniversary","rollover":{"cap":"10"},"value":"5"}"#,
        r#"{"feature":"a","reset":{"sliding":"24 hours"},"value":null}"#,
        r#"{"feature":"a","rate":{"burst":"5","limit":"10","per":"1 second"}}"#,
        r#"{"feature":"a","rollover":{},"value":"5"}"#,
    ] {
        let once = item(text).to_tree().canonical().unwrap();
        assert_eq!(item(&once), item(text));
        assert_eq!(once, text.replace("24 hours", "1 day"));
    }
}

proptest! {
    /// At every instant the state is what a fold of the sources that hold there says, and states never overlap.
    #[test]
    fn states_are_the_fold_of_what_holds(list in prop::collection::vec((0usize..4, 0i64..20, prop::option::of(0i64..20), 0i64..5, 0usize..4), 0..8)) {
        let sources: Vec<Source> = list
            .into_iter()
            .map(|(level, from, length, value, combine)| {
                let combine = ["", r#","combine":"add""#, r#","combine":"max""#, r#","combine":"override""#][combine];
                let level = Level::ALL[level];
                // An exception is of the value alone.
                let combine = if level == Level::Operator { "" } else { combine };
                source(level, from, length.map(|l| from + 1 + l), &format!(r#"{{"feature":"x","value":"{value}"{combine}}}"#))
            })
            .collect();
        let states = states(Kind::Seat, "UTC", sources.clone()).unwrap();
        prop_assert!(states.windows(2).all(|pair| pair[0].0.until.is_some_and(|until| until <= pair[1].0.from)));
        for at in 0..45 {
            let mut expected: Option<i64> = None;
            for level in Level::ALL {
                for s in sources.iter().filter(|s| s.level == level && s.during.holds(Instant(at))) {
                    let value: i64 = s.item.quota("").unwrap().unwrap().to_i64().unwrap();
                    let adds = s.item.combine.unwrap_or(if level == Level::AddOn { Combine::Add } else { Combine::Override });
                    expected = Some(match (expected, adds) {
                        (Some(before), Combine::Add) => before + value,
                        (Some(before), Combine::Max) => before.max(value),
                        _ => value,
                    });
                }
            }
            let found = states.iter().find(|(during, _)| during.holds(Instant(at))).map(|(_, s)| s.quota.unwrap().to_i64().unwrap());
            prop_assert_eq!(found, expected);
        }
    }
}

//! Every answer of the gate against a naive one. Months of test-clock time pass over customers with random plans, add-ons,
//! amendments (also recorded late, or ahead), pauses, exceptions and usage; at random moments each feature of each customer is
//! asked for, and what comes back is compared with a fold of the whole history that is done anew for every question, and with
//! usage that is added up event by event. The model here knows rules.md 9, and nothing of the tables.
//!
//! GATE_STEPS=… is how many things happen (default 400); RACES_SEED=… repeats a run.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, TimeDelta, Utc};
use common::Db;
use load::{Rng, told};
use postgres::Client;
use serde_json::{Value, json};

type At = DateTime<Utc>;

const RESETS: [&str; 8] = ["billing_period", "day", "week", "month", "year", "hour", "never", "sliding"];
const FEATURES: [&str; 4] = ["m1", "m2", "flag", "text"];

#[derive(Debug, Clone, PartialEq)]
struct Item {
    /// `None` = unlimited; of others than quotas the JSON value.
    value: Value,
    reset: &'static str,
    mode: &'static str,
    combine: Option<&'static str>,
    rollover: Option<i64>,
}

impl Item {
    fn random(rng: &mut Rng, feature: &str, plain: bool) -> Item {
        let pick = |rng: &mut Rng, list: &[&'static str]| list[rng.below(list.len())];
        let quota = feature.starts_with('m');
        let value = match feature {
            "flag" => json!(rng.chance(70)),
            "text" => json!(format!("t{}", rng.below(3))),
            _ if rng.chance(10) => Value::Null,
            _ => json!(rng.below(60).to_string()),
        };
        let reset = if quota && !plain { pick(rng, &RESETS) } else { "billing_period" };
        let may_roll = quota && !plain && !matches!(reset, "never" | "sliding");
        Item {
            value,
            reset,
            mode: if quota && !plain { pick(rng, &["hard", "hard", "soft", "overage"]) } else { "hard" },
            combine: (feature != "text" && !plain && rng.chance(40))
                .then(|| pick(rng, &["override", "add", "max"])),
            rollover: (may_roll && rng.chance(30)).then(|| rng.below(40) as i64),
        }
    }

    fn json(&self, feature: &str) -> Value {
        let mut item = json!({"feature": feature, "value": self.value});
        if feature.starts_with('m') {
            item["reset"] = match self.reset {
                "sliding" => json!({"sliding": "36 hours"}),
                word => json!(word),
            };
            item["mode"] = json!(self.mode);
        }
        if let Some(combine) = self.combine {
            item["combine"] = json!(combine);
        }
        if let Some(cap) = self.rollover {
            item["rollover"] = json!({"cap": cap.to_string()});
        }
        item
    }

    fn quota(&self) -> Option<i64> {
        self.value.as_str().map(|text| text.parse().expect("a quantity"))
    }
}

type Items = Vec<(&'static str, Item)>;

fn of<'i>(items: &'i Items, feature: &str) -> Option<&'i Item> {
    items.iter().find(|(key, _)| *key == feature).map(|(_, item)| item)
}

fn midnight(day: NaiveDate) -> At {
    day.and_hms_opt(0, 0, 0).expect("midnight").and_utc()
}

#[derive(Default)]
struct Contract {
    key: String,
    starts: Option<NaiveDate>,
    anniversary: bool,
    /// From a day on, in the order in which they were recorded.
    plans: Vec<(NaiveDate, usize)>,
    own: Vec<(NaiveDate, &'static str, Option<Item>)>,
    add_ons: Vec<(NaiveDate, NaiveDate, Items)>,
    pauses: Vec<(NaiveDate, NaiveDate)>,
    ends: Option<NaiveDate>,
}

impl Contract {
    fn runs(&self, at: At) -> bool {
        midnight(self.starts.expect("a start")) <= at && self.ends.is_none_or(|end| at < midnight(end))
    }

    fn paused(&self, at: At) -> bool {
        self.pauses.iter().any(|(from, until)| midnight(*from) <= at && at < midnight(*until))
    }

    /// What holds at an instant of changes with a day each: the last one, by day and then by record.
    fn last<T>(changes: &[(NaiveDate, T)], at: At) -> Option<&T> {
        let mut known: Vec<_> =
            changes.iter().enumerate().filter(|(_, (day, _))| midnight(*day) <= at).collect();
        known.sort_by_key(|(n, (day, _))| (*day, *n));
        known.last().map(|(_, (_, what))| what)
    }
}

struct Customer {
    key: String,
    contracts: Vec<Contract>,
    /// Feature, value, from, until.
    exceptions: Vec<(&'static str, Value, At, Option<At>)>,
    /// Feature, when, how much.
    events: Vec<(&'static str, At, i64)>,
}

/// The start of the contract whose billing periods count, and whether they are its anniversaries.
type Starts = Option<(NaiveDate, bool)>;

/// What a customer has of a feature at an instant.
#[derive(Debug, Clone)]
struct State {
    suspended: bool,
    value: Value,
    item: Item,
    starts: Starts,
}

impl Customer {
    fn state(&self, plans: &[Items], feature: &str, at: At) -> Option<State> {
        // In the order in which they are heard: level, then the contracts as they start.
        let mut said: Vec<(bool, Item, &'static str, Starts)> = Vec::new();
        let mut contracts: Vec<&Contract> = self.contracts.iter().filter(|k| k.runs(at)).collect();
        contracts.sort_by_key(|k| k.starts);
        for level in ["plan", "add_on", "contract"] {
            for k in &contracts {
                let grid = Some((k.starts.expect("a start"), k.anniversary));
                let mut say = |item: &Item| said.push((k.paused(at), item.clone(), level, grid));
                match level {
                    "plan" => {
                        let plan = Contract::last(&k.plans, at).expect("a plan");
                        of(&plans[*plan], feature).into_iter().for_each(&mut say);
                    }
                    "add_on" => {
                        for (from, until, items) in &k.add_ons {
                            if midnight(*from) <= at && at < midnight(*until) {
                                of(items, feature).into_iter().for_each(&mut say);
                            }
                        }
                    }
                    _ => {
                        let own: Vec<_> = k
                            .own
                            .iter()
                            .filter(|(_, key, _)| *key == feature)
                            .map(|(day, _, item)| (*day, item))
                            .collect();
                        Contract::last(&own, at)
                            .and_then(|item| item.as_ref())
                            .into_iter()
                            .for_each(&mut say);
                    }
                }
            }
        }
        let suspended = !said.is_empty() && said.iter().all(|(paused, ..)| *paused);
        let mut state: Option<State> = None;
        for (_, item, level, starts) in said.into_iter().filter(|(paused, ..)| suspended || !paused) {
            let combine = item.combine.unwrap_or(if level == "add_on" && feature != "text" {
                "add"
            } else {
                "override"
            });
            state = Some(match state {
                Some(before) if combine != "override" => {
                    let value = match (feature, &before.value, &item.value) {
                        ("flag", a, b) => json!(*a == json!(true) || *b == json!(true)),
                        (_, Value::Null, _) | (_, _, Value::Null) => Value::Null,
                        (_, a, b) => {
                            let n = |v: &Value| {
                                v.as_str().expect("a quantity").parse::<i64>().expect("a quantity")
                            };
                            json!((if combine == "add" { n(a) + n(b) } else { n(a).max(n(b)) }).to_string())
                        }
                    };
                    State { value, ..before }
                }
                _ => State { suspended, value: item.value.clone(), item, starts },
            });
        }
        for (key, value, from, until) in &self.exceptions {
            if *key == feature && *from <= at && until.is_none_or(|until| at < until) {
                let alone = Item {
                    value: Value::Null,
                    reset: "billing_period",
                    mode: "hard",
                    combine: None,
                    rollover: None,
                };
                let before = state.unwrap_or(State {
                    suspended: false,
                    value: Value::Null,
                    item: alone,
                    starts: None,
                });
                state = Some(State { value: value.clone(), ..before });
            }
        }
        state
    }

    fn used(&self, feature: &str, from: At, until: At) -> i64 {
        self.events
            .iter()
            .filter(|(key, at, _)| *key == feature && from <= *at && *at < until)
            .map(|(.., n)| n)
            .sum()
    }

    /// What rolled into the window that begins then, on today's grid: what the window before had, what had rolled into it, less
    /// what was used.
    fn rolled(
        &self,
        plans: &[Items],
        feature: &str,
        grid: &State,
        begins: At,
        cap: i64,
        windows: usize,
    ) -> i64 {
        let last = begins - TimeDelta::microseconds(1);
        let before = self.state(plans, feature, last).filter(|state| !state.suspended);
        let from = window(grid, last).0;
        let Some(before) = before.filter(|_| windows > 0 && from < begins) else { return 0 };
        let Some(quota) = (Item { value: before.value.clone(), ..before.item.clone() }).quota() else {
            return 0;
        };
        let more =
            before.item.rollover.map_or(0, |cap| self.rolled(plans, feature, grid, from, cap, windows - 1));
        (quota + more - self.used(feature, from, begins)).max(0).min(cap)
    }

    /// allowed, reason, used, quota, when it resets
    fn answer(
        &self,
        plans: &[Items],
        feature: &str,
        at: At,
        asked: i64,
    ) -> (bool, String, Option<i64>, Option<i64>, Option<At>) {
        let Some(state) = self.state(plans, feature, at) else {
            return (false, "not_entitled".into(), None, None, None);
        };
        if state.suspended {
            return (false, "suspended".into(), None, None, None);
        }
        if !feature.starts_with('m') {
            let allowed = state.value != json!(false);
            return (allowed, if allowed { "allowed" } else { "not_entitled" }.into(), None, None, None);
        }
        let window = window(&state, at);
        let used = self.used(feature, window.0, window.1);
        let quota = Item { value: state.value.clone(), ..state.item.clone() }.quota();
        let mut whole = quota;
        if let (Some(cap), Some(quota)) = (state.item.rollover, quota) {
            whole = Some(quota + self.rolled(plans, feature, &state, window.0, cap, 24));
        }
        let reason = match whole {
            None => "unlimited",
            Some(whole) if used + asked <= whole => "allowed",
            _ => match state.item.mode {
                "soft" => "soft_limit",
                "overage" => "overage",
                _ => "quota_exceeded",
            },
        };
        let resets = (!matches!(state.item.reset, "never" | "sliding")).then_some(window.1);
        (reason != "quota_exceeded", reason.into(), Some(used), whole, resets)
    }
}

/// The window that holds an instant.
fn window(state: &State, at: At) -> (At, At) {
    let day = at.date_naive();
    let first = |day: NaiveDate| day.with_day(1).expect("a first");
    let days = |from: NaiveDate, until: NaiveDate| (midnight(from), midnight(until));
    match state.item.reset {
        "hour" => {
            let from = at - TimeDelta::microseconds(at.timestamp_micros().rem_euclid(3_600_000_000));
            (from, from + TimeDelta::hours(1))
        }
        "day" => days(day, day + Days::new(1)),
        "week" => {
            let monday = day - Days::new(day.weekday().num_days_from_monday().into());
            days(monday, monday + Days::new(7))
        }
        "year" => days(
            NaiveDate::from_ymd_opt(day.year(), 1, 1).expect("a day"),
            NaiveDate::from_ymd_opt(day.year() + 1, 1, 1).expect("a day"),
        ),
        "never" => (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC),
        "sliding" => {
            (at - TimeDelta::hours(36) + TimeDelta::microseconds(1), at + TimeDelta::microseconds(1))
        }
        "billing_period" => match state.starts {
            Some((starts, true)) => {
                // Boundary n is the start and n months, clamped to the month's end.
                let n = (0..).find(|n| starts + Months::new(n + 1) > day).expect("a period");
                days(starts + Months::new(n), starts + Months::new(n + 1))
            }
            Some((starts, false)) => days(first(day).max(starts), first(day) + Months::new(1)),
            None => days(first(day), first(day) + Months::new(1)),
        },
        _ => days(first(day), first(day) + Months::new(1)),
    }
}

fn text(at: At) -> String {
    let micros = at.timestamp_micros().rem_euclid(86_400_000_000);
    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
    format!(
        "{}T{:02}:{:02}:{:02}.{rest:06}Z",
        at.date_naive(),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

struct World {
    client: Client,
    rng: Rng,
    plans: Vec<Items>,
    customers: Vec<Customer>,
    now: At,
    asked: usize,
    reasons: std::collections::BTreeMap<String, usize>,
    step: usize,
}

impl World {
    fn run(&mut self, statement: &str) {
        if let Err(error) = self.client.batch_execute(statement) {
            panic!("step {} at {}: {statement}\n{}", self.step, self.now, told(&error));
        }
    }

    fn amend(&mut self, contract: &str, change: &Value, day: NaiveDate) {
        let call =
            format!("SELECT billing.contract_amend('{contract}', '{change}', '{}')", text(midnight(day)));
        self.run(&call);
    }

    /// What the model says, and whether the gate says the same.
    fn ask(&mut self, customer: usize, feature: &'static str, asked: i64) -> bool {
        let model = &self.customers[customer];
        let expected = model.answer(&self.plans, feature, self.now, asked);
        let key = model.key.clone();
        let row = self
            .client
            .query_one(
                "SELECT c.allowed, c.reason, c.used::bigint, c.quota::bigint, to_char(c.resets_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), c.remaining::bigint, billing.entitled($1, $2, $3::bigint)
                 FROM billing.entitlement_check($1, $2, $3::bigint) c",
                &[&key, &feature, &asked],
            )
            .unwrap_or_else(|error| panic!("step {}: {}", self.step, told(&error)));
        let found: (bool, String, Option<i64>, Option<i64>, Option<String>) =
            (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
        let place = format!("step {} at {}: {asked} of {feature} by {key}", self.step, self.now);
        let expected = (expected.0, expected.1, expected.2, expected.3, expected.4.map(text));
        assert_eq!(found, expected, "{place}");
        assert_eq!(row.get::<_, bool>(6), expected.0, "{place}: entitled()");
        assert_eq!(
            row.get::<_, Option<i64>>(5),
            expected.3.map(|quota| (quota - expected.2.expect("used")).max(0)),
            "{place}"
        );
        self.asked += 1;
        *self.reasons.entry(expected.1).or_default() += 1;
        expected.0
    }

    fn feature(&mut self) -> &'static str {
        FEATURES[self.rng.below(FEATURES.len())]
    }

    /// A day around now, not before a contract's start.
    fn day(&mut self, starts: NaiveDate) -> NaiveDate {
        let day = self.now.date_naive() + Days::new(self.rng.below(14) as u64) - Days::new(6);
        day.max(starts)
    }

    fn happen(&mut self) {
        let customer = self.rng.below(self.customers.len());
        let key = self.customers[customer].key.clone();
        let contract = self.rng.below(self.customers[customer].contracts.len());
        let (name, starts, over) = {
            let k = &self.customers[customer].contracts[contract];
            (
                k.key.clone(),
                k.starts.expect("a start"),
                k.ends.is_some_and(|end| midnight(end) <= self.now + TimeDelta::days(8)),
            )
        };
        let feature = self.feature();
        match self.rng.below(20) {
            0..=5 => {
                let feature = ["m1", "m2"][self.rng.below(2)];
                let at = self.now - TimeDelta::minutes(self.rng.below(4000) as i64);
                let n = self.rng.below(12) as i64;
                let call = format!(
                    "SELECT billing.ingest_event('{key}', '{feature}', 'e{}', '{}', '{{\"n\":{n}}}')",
                    self.step,
                    text(at)
                );
                self.run(&call);
                self.customers[customer].events.push((feature, at, n));
            }
            6..=10 => {
                let feature = ["m1", "m2"][self.rng.below(2)];
                let n = self.rng.below(20) as i64;
                let allowed = self.ask(customer, feature, n);
                let result: String = self
                    .client
                    .query_one(
                        "SELECT result FROM billing.consume($1, $2, $3::bigint, $4)",
                        &[&key, &feature, &n, &format!("c{}", self.step)],
                    )
                    .unwrap_or_else(|error| panic!("step {}: {}", self.step, told(&error)))
                    .get(0);
                // A count of 1 that is not said is put there, too.
                assert_eq!(result == "consumed", allowed, "step {}: consume", self.step);
                if allowed {
                    self.customers[customer].events.push((feature, self.now, n));
                }
            }
            11 | 12 => {
                let value = Item::random(&mut self.rng, feature, true).value;
                let until =
                    self.rng.chance(60).then(|| self.now + TimeDelta::hours(1 + self.rng.below(200) as i64));
                let shown = until.map_or("NULL".to_string(), |until| format!("'{}'", text(until)));
                self.run(&format!(
                    "SELECT billing.entitlement_override('{key}', '{feature}', '{value}', {shown}, 'a test')"
                ));
                self.customers[customer].exceptions.push((feature, value, self.now, until));
            }
            13 => {
                let now = self.now;
                let mut ended = false;
                for (key, _, _, until) in &mut self.customers[customer].exceptions {
                    if *key == feature && until.is_none_or(|until| until > now) {
                        *until = Some(now);
                        ended = true;
                    }
                }
                if ended {
                    self.run(&format!(
                        "SELECT billing.entitlement_override_end('{key}', '{feature}', 'a test')"
                    ));
                }
            }
            _ if over => (),
            14 | 15 => {
                let day = self.day(starts);
                let item = self.rng.chance(80).then(|| Item::random(&mut self.rng, feature, false));
                let change = item
                    .as_ref()
                    .map_or(json!({"feature": feature, "remove": true}), |item| item.json(feature));
                // Only what holds then can end.
                let own = &self.customers[customer].contracts[contract].own;
                let known: Vec<_> = own
                    .iter()
                    .filter(|(_, key, _)| *key == feature)
                    .map(|(day, _, item)| (*day, item))
                    .collect();
                let holds = Contract::last(&known, midnight(day)).is_some_and(|item| item.is_some());
                // Nor may what comes later end what would be gone by then.
                let later = known.iter().any(|(later, item)| *later >= day && item.is_none());
                if item.is_some() || (holds && !later) {
                    self.amend(&name, &json!({"entitlements": [change]}), day);
                    self.customers[customer].contracts[contract].own.push((day, feature, item));
                }
            }
            16 => {
                let (day, plan) = (self.day(starts), self.rng.below(self.plans.len()));
                self.run(&format!("SELECT billing.contract_change_plan('{name}', 'p{plan}', '{day}')"));
                self.customers[customer].contracts[contract].plans.push((day, plan));
            }
            17 | 18 => {
                let from = self.now.date_naive().max(starts) + Days::new(self.rng.below(10) as u64);
                let until = from + Days::new(1 + self.rng.below(20) as u64);
                let items: Items = vec![(feature, Item::random(&mut self.rng, feature, true))];
                let item = items[0].1.json(feature);
                let mut item = item.as_object().expect("an item").clone();
                item.retain(|name, _| matches!(name.as_str(), "feature" | "value"));
                let add_on = json!({"key": format!("a{}", self.step), "from": from.to_string(), "until": until.to_string(), "entitlements": [item]});
                let today = self.now.date_naive().max(starts);
                self.amend(&name, &json!({"add_ons": [add_on]}), today);
                self.customers[customer].contracts[contract].add_ons.push((from.max(starts), until, items));
            }
            _ => {
                let last =
                    self.customers[customer].contracts[contract].pauses.iter().map(|(_, until)| *until).max();
                let from = self.now.date_naive().max(starts);
                if last.is_none_or(|last| last < from) {
                    let until = from + Days::new(1 + self.rng.below(6) as u64);
                    self.run(&format!("SELECT billing.contract_pause('{name}', '{}')", text(midnight(from))));
                    self.run(&format!(
                        "SELECT billing.contract_resume('{name}', '{}')",
                        text(midnight(until))
                    ));
                    self.customers[customer].contracts[contract].pauses.push((from, until));
                }
            }
        }
    }
}

#[test]
fn every_answer_is_that_of_the_whole_history() {
    let steps: usize =
        std::env::var("GATE_STEPS").ok().map_or(400, |n| n.parse().expect("GATE_STEPS is a number"));
    let mut rng = load::seed("gate");
    let db = Db::fresh("gate_oracle");
    let plans: Vec<Items> = (0..4)
        .map(|_| {
            let given: Vec<&'static str> = FEATURES.into_iter().filter(|_| rng.chance(75)).collect();
            given.into_iter().map(|feature| (feature, Item::random(&mut rng, feature, false))).collect()
        })
        .collect();
    let now = midnight(NaiveDate::from_ymd_opt(2026, 1, 20).expect("a day"));
    let mut world = World {
        client: db.connect(),
        rng,
        plans,
        customers: Vec::new(),
        now,
        asked: 0,
        reasons: Default::default(),
        step: 0,
    };
    world.run(&format!("SELECT billing.test_clock_set('{}')", text(now)));
    let meter = |key: &str| json!({"key": key, "event_type": key, "aggregation": "sum", "value": "n"});
    let documents: Vec<Value> = world
        .plans
        .iter()
        .enumerate()
        .map(|(n, items)| {
            let items: Vec<Value> = items.iter().map(|(feature, item)| item.json(feature)).collect();
            // One that gives nothing still bills something.
            json!({"key": format!("p{n}"), "currency": "USD", "entitlements": items,
                   "fees": [{"key": "platform", "product": "p", "pricing": {"model": "flat", "amount": "1"}}]})
        })
        .collect();
    let catalogue = json!({"products": [{"key": "p"}], "meters": [meter("m1"), meter("m2")], "plans": documents,
        "features": [{"key": "m1", "kind": "metered", "meter": "m1"}, {"key": "m2", "kind": "metered", "meter": "m2"}, {"key": "flag", "kind": "boolean"}, {"key": "text", "kind": "static"}]});
    world.run(&format!("SELECT * FROM billing.catalog_apply('{catalogue}')"));
    for n in 0..5 {
        let key = format!("c{n}");
        world.run(&format!("SELECT billing.customer_upsert('{{\"key\":\"{key}\",\"currency\":\"USD\"}}')"));
        let mut customer =
            Customer { key: key.clone(), contracts: Vec::new(), exceptions: Vec::new(), events: Vec::new() };
        for k in 0..1 + world.rng.below(2) {
            // Some have begun, some begin later; on days that not every month has.
            let starts = NaiveDate::from_ymd_opt(2026, 1, 1).expect("a day")
                + Days::new((10 * k + world.rng.below(31)) as u64);
            let (anniversary, plan) = (world.rng.chance(50), world.rng.below(4));
            let term = world.rng.chance(30).then(|| 3 + world.rng.below(3) as u32);
            let mut document = json!({"key": format!("{key}-k{k}"), "customer": key, "plan": format!("p{plan}"), "starts_on": starts.to_string(),
                "fees": [{"key": "platform", "remove": true}, {"key": format!("own{k}"), "product": "p", "pricing": {"model": "flat", "amount": "1"}}],
                "billing": {"alignment": if anniversary { "anniversary" } else { "calendar" }}});
            if let Some(term) = term {
                document["term"] = json!(format!("{term} months"));
            }
            world.run(&format!(
                "SELECT billing.contract_create('{document}'); SELECT billing.contract_activate('{key}-k{k}')"
            ));
            let ends = term.map(|term| starts + Months::new(term));
            customer.contracts.push(Contract {
                key: format!("{key}-k{k}"),
                starts: Some(starts),
                anniversary,
                plans: vec![(starts, plan)],
                ends,
                ..Contract::default()
            });
        }
        world.customers.push(customer);
    }
    // So many steps, and of a long walk as many more as it takes to hear each kind of answer.
    let kinds =
        ["allowed", "unlimited", "soft_limit", "overage", "not_entitled", "quota_exceeded", "suspended"];
    for step in 0.. {
        let unheard: Vec<_> = kinds.iter().filter(|kind| !world.reasons.contains_key(**kind)).collect();
        if step >= steps && (steps < 400 || unheard.is_empty()) {
            break;
        }
        assert!(step < 10 * steps, "no answer was {unheard:?}: {:?}", world.reasons);
        world.step = step;
        // Hours pass, and now and then an instant is a boundary.
        world.now += TimeDelta::minutes(world.rng.below(1200) as i64);
        if world.rng.chance(20) {
            world.now = midnight(world.now.date_naive() + Days::new(1));
        }
        world.run(&format!("SELECT billing.test_clock_set('{}')", text(world.now)));
        world.happen();
        for _ in 0..3 {
            let (customer, feature) = (world.rng.below(world.customers.len()), world.feature());
            let asked = world.rng.below(25) as i64;
            world.ask(customer, feature, asked);
        }
        if step % 100 == 99 {
            world.run("CALL billing.fold()");
        }
    }
    println!("{} questions: {:?}", world.asked, world.reasons);
    assert_eq!(db.verify(), Vec::<String>::new());
}

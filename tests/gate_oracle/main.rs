//! Every answer of the gate against a naive one. Months of test-clock time pass, in several time zones, over customers with random
//! plans, add-ons, amendments (also recorded late, or ahead), pauses, ends, exceptions, usage, reservations, seats, credit and
//! limits; at random moments each feature of each customer is asked for, and what comes back is compared with a fold of the whole
//! history that is done anew for every question, and with usage that is added up event by event.
//!
//! Worlds follow each other until each kind of answer was heard. GATE_STEPS=… is how many steps one has (default 50), GATE_SEEDS=1,2,3
//! begins once with each; without it the seed is drawn from the clock. A failure prints the seed of its world.
//!
//! time.rs: zones and windows. items.rs: what documents say. model.rs: what is right. ask.rs: questions. life.rs: what happens.
#![allow(clippy::disallowed_methods)] // tests measure real time

#[path = "../common/mod.rs"]
mod common;
#[path = "../load/mod.rs"]
mod load;

mod ask;
mod items;
mod life;
mod model;
mod time;

use chrono::{Days, Months, NaiveDate, TimeDelta};
use common::Db;
use items::{FEATURES, Item, Items, Kind};
use load::{Rng, told};
use model::Customer;
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use time::{At, Zone, text};

/// Midnights that are not there or come twice, offsets of no whole hour, the other half of the globe.
const ZONES: [&str; 7] = [
    "UTC",
    "America/New_York",
    "Africa/Cairo",
    "America/Havana",
    "Asia/Kathmandu",
    "Australia/Sydney",
    "Asia/Tehran",
];

/// Each of these is heard in a walk.
const KINDS: [&str; 56] = [
    "metered allowed",
    "metered unlimited",
    "metered soft_limit",
    "metered overage",
    "metered not_entitled",
    "metered quota_exceeded",
    "metered suspended",
    "metered spend_limit",
    "metered budget",
    "metered consumed",
    "metered denied",
    "metered duplicate",
    "reset billing_period",
    "reset hour",
    "reset day",
    "reset week",
    "reset month",
    "reset year",
    "reset anniversary",
    "reset sliding",
    "reset first_use",
    "reset never",
    "rolled over",
    "match",
    "boolean allowed",
    "boolean not_entitled",
    "boolean suspended",
    "static allowed",
    "static not_entitled",
    "seat allowed",
    "seat quota_exceeded",
    "seat not_entitled",
    "seat assigned",
    "seat denied",
    "seat already",
    "seat released",
    "seat absent",
    "rate_limit allowed",
    "rate_limit rate_limited",
    "rate_limit not_entitled",
    "rate_limit consumed",
    "request allowed",
    "request rate_limited",
    "credit allowed",
    "credit no_credit",
    "credit not_entitled",
    "credit consumed",
    "credit denied",
    "reservation reserved",
    "reservation denied",
    "reservation confirmed",
    "reservation confirmed late",
    "reservation released",
    "entitlements()",
    "cancelled",
    "paused",
];

struct World {
    client: Client,
    rng: Rng,
    zones: Vec<Rc<Zone>>,
    plans: Vec<Items>,
    customers: Vec<Customer>,
    now: At,
    seen: BTreeMap<String, usize>,
    seed: u64,
    step: usize,
    /// Names that are used once.
    calls: usize,
}

impl World {
    fn new(db: &Db, seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let mut client = db.connect();
        // Months of every season.
        let first = NaiveDate::from_ymd_opt(2026, 1, 1).expect("a day") + Months::new(rng.below(24) as u32);
        let zones: Vec<_> = ZONES.iter().map(|name| Zone::read(&mut client, name, first)).collect();
        let plans: Vec<Items> = (0..4)
            .map(|_| {
                let given: Vec<&'static str> = FEATURES.into_iter().filter(|_| rng.chance(75)).collect();
                given.into_iter().map(|feature| (feature, Item::random(&mut rng, feature, false))).collect()
            })
            .collect();
        let now = zones[0].midnight(first + Days::new(19));
        let mut world = World {
            client,
            rng,
            zones,
            plans,
            customers: Vec::new(),
            now,
            seen: BTreeMap::new(),
            seed,
            step: 0,
            calls: 0,
        };
        world.set_clock(now);
        world.catalogue();
        for n in 0..5 {
            world.sign_up(n, first);
        }
        world
    }

    /// Plans of entitlements, and one that prices what limits and credit ask for.
    fn catalogue(&mut self) {
        let sum = |key: &str| json!({"key": key, "event_type": key, "aggregation": "sum", "value": "n", "dimensions": ["model", "api_key"]});
        let seats = json!({"key": "seats", "event_type": "seats", "aggregation": "unique_count", "value": "seat", "operation": "operation"});
        let charge = |meter: &str, price: &str| json!({"key": meter, "product": "p", "meter": meter, "pricing": {"model": "per_unit", "unit_price": price}});
        let mut plans = vec![
            json!({"key": "base", "currency": "USD", "charges": [charge("m1", "0.01"), charge("work", "1")]}),
        ];
        for (n, items) in self.plans.iter().enumerate() {
            let items: Vec<Value> = items.iter().map(|(feature, item)| item.json(feature)).collect();
            // One that gives nothing still bills something.
            plans.push(json!({"key": format!("p{n}"), "currency": "USD", "entitlements": items,
                "fees": [{"key": "platform", "product": "p", "pricing": {"model": "flat", "amount": "1"}}]}));
        }
        let metered =
            |key: &'static str| json!({"key": key, "kind": "metered", "meter": items::meter_of(key)});
        let catalogue = json!({"products": [{"key": "p"}], "meters": [sum("m1"), sum("m2"), sum("work"), seats], "plans": plans,
            "features": [metered("m1"), metered("m2"), metered("m3"), {"key": "flag", "kind": "boolean"}, {"key": "text", "kind": "static"},
                {"key": "seats", "kind": "seat", "meter": "seats"}, {"key": "calls", "kind": "rate_limit"}, {"key": "ai", "kind": "credit", "unit": "USD", "meter": "work"}]});
        self.run(&format!("SELECT * FROM billing.catalog_apply('{catalogue}')"));
    }

    fn sign_up(&mut self, n: usize, first: NaiveDate) {
        let (key, zone) = (format!("c{n}"), self.zones[self.rng.below(self.zones.len())].clone());
        let document = json!({"key": key, "currency": "USD", "time_zone": zone.name});
        let base = json!({"key": format!("{key}-base"), "customer": key, "plan": "base", "starts_on": (first - Months::new(1)).to_string()});
        self.run(&format!(
            "SELECT billing.customer_upsert('{document}'); SELECT billing.contract_create('{base}'); SELECT billing.contract_activate('{key}-base')"
        ));
        let level = (0, self.now);
        let (contracts, exceptions, uses, reservations, windows) = Default::default();
        let (seats, limits, blocks) = Default::default();
        self.customers.push(Customer {
            key,
            zone,
            contracts,
            exceptions,
            uses,
            reservations,
            windows,
            seats,
            level,
            limits,
            blocks,
        });
        for _ in 0..1 + self.rng.below(2) {
            self.sign(n);
        }
    }

    fn place(&self) -> String {
        format!("GATE_SEEDS={}, step {} at {}", self.seed, self.step, text(self.now))
    }

    fn run(&mut self, statement: &str) {
        if let Err(error) = self.client.batch_execute(statement) {
            panic!("{}: {statement}\n{}", self.place(), told(&error));
        }
    }

    fn set_clock(&mut self, now: At) {
        self.now = now;
        self.run(&format!("SELECT billing.test_clock_set('{}')", text(now)));
    }

    /// Hours pass, and now and then an instant is a midnight of somebody's, or just before.
    fn pass_time(&mut self) {
        let mut now = self.now + TimeDelta::microseconds(self.rng.below(1800 * 60_000_000) as i64);
        if self.rng.chance(25) {
            let zone = self.zones[self.rng.below(self.zones.len())].clone();
            now = zone.midnight(zone.day(now) + Days::new(1))
                - TimeDelta::microseconds(self.rng.below(2) as i64);
        }
        self.set_clock(now.max(self.now));
    }

    fn step(&mut self) {
        self.pass_time();
        for _ in 0..3 {
            self.happen();
        }
        for _ in 0..4 {
            let (customer, feature) = (self.rng.below(self.customers.len()), self.feature());
            let asked = self.rng.below(if feature == "calls" { 7 } else { 25 }) as i64;
            self.ask(customer, feature, asked);
        }
        if self.rng.chance(15) {
            let customer = self.rng.below(self.customers.len());
            self.everything(customer);
        }
        if self.step % 50 == 49 {
            self.run("CALL billing.fold()");
        }
    }
}

impl World {
    /// A kind of answer that was not heard yet: whatever may give it, from everybody.
    fn look_for(&mut self, kind: &str) {
        let (word, answer) = kind.split_once(' ').unwrap_or((kind, ""));
        for customer in 0..self.customers.len() {
            match (word, answer) {
                ("seat", _) => self.seat(customer),
                ("reservation", "confirmed") => {
                    self.reserve(customer);
                    self.settle(customer);
                }
                ("reservation", _) => self.settle(customer),
                ("request", _) => self.requests(customer),
                ("metered", "budget" | "spend_limit") => self.limit_tightly(customer),
                ("reset" | "rolled", _) => self.agree(customer, answer),
                _ => (),
            }
            let asked: Vec<_> = FEATURES.into_iter().filter(|f| Kind::of(f).word() == word).collect();
            let asked = if asked.is_empty() { items::METERED.to_vec() } else { asked };
            for feature in asked {
                let n = self.rng.below(30) as i64;
                self.ask(customer, feature, n);
                if word != "seat" && ["consumed", "denied", "duplicate", "budget"].contains(&answer) {
                    self.consume(customer, feature, n);
                }
            }
        }
    }
}

/// Worlds of so many steps, as many as it takes to hear each kind of answer.
fn walk(seed: u64, steps: usize) {
    let (begun, mut seen) = (std::time::Instant::now(), BTreeMap::<String, usize>::new());
    let (mut next, mut worlds) = (Rng::new(seed), 0);
    while worlds == 0 || KINDS.iter().any(|kind| !seen.contains_key(*kind)) {
        assert!(worlds < 20, "{seed}: never heard of some of {KINDS:?}: {seen:?}");
        let seed = if worlds == 0 { seed } else { next.next() >> 32 };
        let db = Db::fresh(&format!("gate_oracle_{seed}"));
        let mut world = World::new(&db, seed);
        for step in 0..steps {
            world.step = step;
            world.step();
        }
        std::mem::take(&mut world.seen).into_iter().for_each(|(kind, n)| *seen.entry(kind).or_default() += n);
        for kind in KINDS.iter().filter(|kind| !seen.contains_key(**kind)) {
            world.look_for(kind);
        }
        world.seen.into_iter().for_each(|(kind, n)| *seen.entry(kind).or_default() += n);
        worlds += 1;
        assert_eq!(db.verify(), Vec::<String>::new(), "GATE_SEEDS={seed}");
    }
    println!("seed {seed}: {worlds} worlds, {:.1} s: {seen:?}", begun.elapsed().as_secs_f64());
}

#[test]
fn every_answer_is_that_of_the_whole_history() {
    let steps = std::env::var("GATE_STEPS").ok().map_or(50, |n| n.parse().expect("GATE_STEPS is a number"));
    match std::env::var("GATE_SEEDS") {
        Ok(seeds) => {
            seeds.split(',').for_each(|seed| walk(seed.parse().expect("GATE_SEEDS are numbers"), steps))
        }
        Err(_) => walk(load::seed("gate").next() >> 32, steps),
    }
}

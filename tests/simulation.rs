//! Years of test-clock time over random customers and deals. After each bill run every document is summed by contract,
//! legal entity, charge, service period and line dimensions, and compared with a naive oracle (tests/oracle/deals.rs)
//! that knows only what was said to the billing system; then `billing.verify()` runs. The seed is printed; with
//! SIM_SEEDS=1,2,3 and SIM_STEPS=200 it runs longer, SIM_VERIFY=5 verifies after each fifth bill run only, SIM_CUSTOMER=2 runs one customer of a seed alone, and
//! SIM_LOG=file keeps every statement, to be replayed by psql.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
#[path = "oracle/deals.rs"]
mod deals;
mod load;

use chrono::{Datelike, Days, NaiveDate};
use common::Db;
use deals::{
    Amounts, Block, Change, Contract, Customer, Day, Event, Grid, Instant, Key, Kind, Meter, PriceVersion,
    Proration, Q, Rounding, World, Zone, dec, fixed, q,
};
use load::Rng;
use num_traits::Zero;
use postgres::{Client, SimpleQueryMessage};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const ZONES: [&str; 9] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "America/Havana",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "America/St_Johns",
];
const CURRENCIES: [(&str, u32, i64); 4] =
    [("USD", 2, 100), ("EUR", 2, 90), ("JPY", 0, 15000), ("KWD", 3, 30)];
const MODELS: [&str; 3] = ["gpt-4", "gpt-3.5", "small"];
const REGIONS: [&str; 2] = ["eu", "us"];
const DAY: i64 = 86400;

/// What is signed beside usage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deal {
    /// Credits, paid in advance or given. Its usage comes in time and is not corrected: which credit late usage finds
    /// depends on what was drawn before.
    Credits,
    /// A least spend for each period, tested at its end.
    Postpaid,
}

/// What one customer of the simulation does; it has random numbers of its own, so that it does the same alone.
struct Party {
    rng: Rng,
    key: String,
    zone: String,
    currency: usize,
    entities: Vec<String>,
    contracts: Vec<String>,
    events: usize,
    /// Since when the last contract is paused.
    paused: Option<Day>,
    /// A signed deal of commitments or credits instead of a plan.
    deal: Option<Deal>,
    /// Its blocks of credit.
    blocks: Vec<Block>,
    /// Up to which boundary its usage was settled.
    settled: usize,
}

struct Sim {
    client: Client,
    rng: Rng,
    world: World,
    parties: Vec<Party>,
    clock: Instant,
    said: u64,
    log: String,
    /// What each contract's documents summed to when it was billed last, by the oracle.
    standing: BTreeMap<String, Amounts>,
    /// Contracts with a fault: the others go on.
    broken: BTreeSet<String>,
    /// Contracts that are not compared before they are billed again.
    waits: BTreeSet<String>,
    /// Boundaries whose invoice was voided, to be issued again.
    voided: BTreeMap<String, Vec<usize>>,
    compared: usize,
    /// Changes of contracts that were made.
    changes: usize,
    faults: Vec<String>,
    /// What the installation can do beside what 0.2.0 began with.
    amends: bool,
    credits: bool,
    bills: usize,
    /// After every so many bill runs `verify()` is asked, too.
    verify_every: usize,
    /// Where the time went, by function.
    times: BTreeMap<String, std::time::Duration>,
}

/// A number of the environment.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn at(t: Instant) -> String {
    format!("{:?}Z", chrono::DateTime::from_timestamp(t, 0).expect("an instant").naive_utc())
}

/// A fraction, to 12 places.
fn fixed_about(x: &Q) -> String {
    deals::decimal(&deals::round(x, 12, Rounding::HalfUp))
}

/// A decimal of `n` units of 10^-places.
fn money(n: i64, places: u32) -> String {
    deals::decimal(&(q(n) / q(10_i64.pow(places))))
}

impl Sim {
    fn run(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, common::Refusal> {
        writeln!(self.log, "{sql};").expect("log");
        let begun = std::time::Instant::now();
        let answer = self.client.simple_query(sql);
        let word = sql.split(['(', ' ']).find(|w| w.starts_with("billing.")).unwrap_or("").to_owned();
        *self.times.entry(word).or_default() += begun.elapsed();
        match answer {
            Ok(messages) => Ok(messages
                .iter()
                .filter_map(|m| match m {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect())
                    }
                    _ => None,
                })
                .collect()),
            Err(error) => {
                let refusal = common::refusal::<()>(Err(error));
                writeln!(self.log, "-- {} {}", refusal.code, refusal.message).expect("log");
                Err(refusal)
            }
        }
    }

    /// A statement that must succeed.
    fn must(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        match self.run(sql) {
            Ok(rows) => rows,
            Err(refusal) => {
                self.keep_log();
                panic!("{sql}\n{refusal:?}")
            }
        }
    }

    /// A statement that may be refused with one of these codes; says whether it was done.
    fn may(&mut self, sql: &str, codes: &[&str]) -> bool {
        match self.run(sql) {
            Ok(_) => true,
            Err(refusal) if codes.contains(&refusal.code.as_str()) => false,
            Err(refusal) => {
                self.keep_log();
                panic!("{sql}\n{refusal:?}")
            }
        }
    }

    fn keep_log(&self) {
        if let Ok(file) = std::env::var("SIM_LOG") {
            std::fs::write(&file, &self.log).expect("SIM_LOG");
        }
    }

    fn say(&mut self) -> u64 {
        self.said += 1;
        self.said
    }

    fn set_clock(&mut self, to: Instant) {
        self.clock = to;
        self.must(&format!("SELECT billing.test_clock_set('{}')", at(to)));
    }
}

/// Local midnights from 2022 to 2034, by Postgres's own time zones.
fn zone(client: &mut Client, name: &str) -> Zone {
    let first = NaiveDate::from_ymd_opt(2022, 1, 1).expect("a day");
    let rows = client
        .query(
            "SELECT extract(epoch FROM d AT TIME ZONE $1)::bigint
             FROM generate_series('2022-01-01'::timestamp, '2034-01-01', '1 day') d ORDER BY d",
            &[&name],
        )
        .expect("midnights");
    Zone { name: name.to_owned(), first, midnights: rows.iter().map(|r| r.get(0)).collect() }
}

// ---------------------------------------------------------------------------------------------------------------
// What there is to be bought

fn meters() -> Vec<Meter> {
    let dims = |d: &[&str]| d.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>();
    let meter = |key: &str, of: &str, value: Option<&str>, d: &[&str]| Meter {
        key: key.into(),
        event_type: of.into(),
        value: value.map(Into::into),
        greatest: key == "peak",
        dimensions: dims(d),
    };
    vec![
        meter("tokens", "llm", Some("tokens"), &["model", "region"]),
        meter("calls", "llm", None, &["model"]),
        meter("peak", "llm", Some("tokens"), &["model"]),
        meter("storage", "store", Some("gb"), &["region"]),
    ]
}

/// An amount about `n` hundredths of a dollar, in the currency, with more places than it can pay.
fn some(rng: &mut Rng, n: i64, currency: usize) -> String {
    let scaled = n * CURRENCIES[currency].2;
    money(scaled + rng.below(1 + (scaled / 2) as usize) as i64, 4)
}

fn tiers(rng: &mut Rng, n: i64, bounds: [i64; 2], fees: bool, currency: usize) -> Value {
    let mut tiers = vec![
        json!({"up_to": bounds[0].to_string(), "unit_price": some(rng, n, currency)}),
        json!({"up_to": bounds[1].to_string(), "unit_price": some(rng, n / 2 + 1, currency)}),
        json!({"unit_price": some(rng, n / 5 + 1, currency)}),
    ];
    if fees {
        tiers[0]["flat_fee"] = json!(some(rng, 10 * n, currency));
        tiers[1]["flat_fee"] = json!(some(rng, 5 * n, currency));
    }
    json!(tiers)
}

/// The prices of one book: what a version of each looks like.
fn pricing(rng: &mut Rng, price: &str, c: usize) -> Value {
    match price {
        "tokens-flat" => json!({"model": "per_unit", "unit_price": some(rng, 7, c), "per": 1000}),
        "tokens-matrix" => {
            json!({"model": "matrix", "dimensions": ["model", "region"], "per": 1000, "rows": [
            {"match": {"model": "gpt-4"}, "unit_price": some(rng, 30, c)},
            {"match": {"model": "gpt-4", "region": "eu"}, "unit_price": some(rng, 33, c)},
            {"match": {"region": "eu"}, "unit_price": some(rng, 5, c)},
            {"match": {}, "unit_price": some(rng, 3, c)}]})
        }
        "tokens-minimum" => json!({"model": "per_unit", "unit_price": some(rng, 6, c), "per": 1000,
            "minimum": some(rng, 3000, c), "maximum": some(rng, 9000, c)}),
        "tokens-tiers" => {
            json!({"model": "graduated", "per": 1000, "tiers": tiers(rng, 9, [20000, 60000], false, c)})
        }
        "calls-graduated" => json!({"model": "graduated", "tiers": tiers(rng, 40, [10, 40], true, c)}),
        "calls-volume" => json!({"model": "volume", "tiers": tiers(rng, 40, [15, 30], false, c)}),
        "calls-package" => json!({"model": "package", "package_size": "7", "amount": some(rng, 210, c)}),
        "storage-free" => json!({"model": "per_unit", "unit_price": some(rng, 12, c), "free_units": "150.5"}),
        "storage-flat" => {
            json!({"model": "per_unit", "unit_price": some(rng, 9, c), "minimum": some(rng, 2500, c)})
        }
        "peak-flat" => json!({"model": "per_unit", "unit_price": some(rng, 20, c), "per": 100}),
        "peak-steps" => {
            json!({"model": "stairstep", "tiers": [{"up_to": "3000", "amount": some(rng, 1000, c)}, {"up_to": "7000", "amount": some(rng, 2500, c)}, {"amount": some(rng, 3333, c)}]})
        }
        other => panic!("no price {other}"),
    }
}

const PRICES: [(&str, &str); 11] = [
    ("peak-flat", "peak"),
    ("peak-steps", "peak"),
    ("tokens-flat", "tokens"),
    ("tokens-matrix", "tokens"),
    ("tokens-minimum", "tokens"),
    ("tokens-tiers", "tokens"),
    ("calls-graduated", "calls"),
    ("calls-volume", "calls"),
    ("calls-package", "calls"),
    ("storage-free", "storage"),
    ("storage-flat", "storage"),
];

fn book(c: usize) -> String {
    format!("list-{}", CURRENCIES[c].0.to_lowercase())
}

/// A plan of some interval; `n` chooses the prices so that all are sold.
fn plan(rng: &mut Rng, n: usize, c: usize) -> Value {
    let (interval, inner) = [(1, 1), (3, 1), (3, 3), (12, 3), (6, 1), (12, 12)][rng.below(6)];
    let pick = |n: usize, of: &str| {
        let fitting: Vec<_> = PRICES.iter().filter(|(_, m)| *m == of).collect();
        fitting[n % fitting.len()].0
    };
    let every = |m: usize| json!(format!("{m} month{}", if m == 1 { "" } else { "s" }));
    let mut charges = vec![
        json!({"key": "tokens", "product": "ai", "meter": "tokens", "price": pick(n, "tokens"), "lines_by": ["model"], "every": every(inner)}),
        json!({"key": "calls", "product": "ai", "meter": "calls", "price": pick(n, "calls"), "every": every(inner)}),
        json!({"key": "storage", "product": "ai", "meter": "storage", "price": pick(n, "storage"), "every": every(interval)}),
    ];
    if rng.chance(50) {
        charges[1]["lines_by"] = json!(["model"]);
    }
    if rng.chance(40) {
        charges.push(json!({"key": "peak", "product": "ai", "meter": "peak", "price": pick(n / 2, "peak"), "every": every(inner)}));
    }
    if rng.chance(30) {
        // Two charges share a meter.
        charges[2]["match"] = json!({"region": "eu"});
        let other = if rng.chance(50) { "storage-free" } else { "storage-flat" };
        charges.push(json!({"key": "storage-us", "product": "ai", "meter": "storage", "price": other, "match": {"region": "us"}, "every": every(inner)}));
    }
    let mut fees = vec![
        json!({"key": "platform", "product": "ai", "pricing": {"model": "flat", "amount": some(rng, 9999, c)}, "every": every(interval), "timing": "advance"}),
        json!({"key": "seats", "product": "ai", "pricing": {"model": "per_unit", "unit_price": some(rng, 2000, c)}, "quantity": (1 + rng.below(9)).to_string(), "every": every(inner),
            "timing": if rng.chance(50) { "advance" } else { "arrears" }}),
    ];
    if rng.chance(50) {
        fees.push(json!({"key": "support", "product": "ai", "pricing": {"model": "graduated", "tiers": tiers(rng, 900, [3, 6], true, c)}, "quantity": (1 + rng.below(9)).to_string(), "every": every(inner),
            "timing": "arrears"}));
    }
    json!({"key": format!("plan-{}-{n}", CURRENCIES[c].0.to_lowercase()), "name": "A plan", "currency": CURRENCIES[c].0, "price_book": book(c),
        "billing": {"interval": every(interval), "alignment": if rng.chance(50) { "calendar" } else { "anniversary" }, "net_days": 30},
        "charges": charges, "fees": fees})
}

/// A plan billed alike, with other prices: one may change from one to the other.
fn other_plan(rng: &mut Rng, plan: &Value, c: usize) -> Value {
    let mut other = plan.clone();
    other["key"] = json!(format!("{}b", plan["key"].as_str().expect("a key")));
    other["fees"][0]["pricing"] = json!({"model": "flat", "amount": some(rng, 15000, c)});
    other["charges"][0]["price"] = json!("tokens-flat");
    let fitting = ["calls-graduated", "calls-volume", "calls-package"];
    other["charges"][1]["price"] = json!(fitting[rng.below(3)]);
    if rng.chance(50) {
        other["fees"].as_array_mut().expect("fees").remove(1);
    }
    other
}

impl Sim {
    fn new(db: &Db, seed: u64, customers: usize) -> Sim {
        let mut client = db.connect();
        let mut world = World::default();
        for name in ZONES {
            world.zones.insert(name.to_owned(), zone(&mut client, name));
        }
        for (currency, digits, _) in CURRENCIES {
            world.minor_units.insert(currency.to_owned(), digits);
        }
        let mut sim = Sim {
            client,
            rng: Rng::new(seed),
            world,
            parties: Vec::new(),
            clock: 0,
            said: 0,
            log: format!("-- seed {seed}\n"),
            standing: BTreeMap::new(),
            broken: BTreeSet::new(),
            waits: BTreeSet::new(),
            voided: BTreeMap::new(),
            compared: 0,
            changes: 0,
            faults: Vec::new(),
            amends: false,
            credits: false,
            bills: 0,
            verify_every: number("SIM_VERIFY", 1),
            times: BTreeMap::new(),
        };
        sim.amends = sim.must("SELECT FROM pg_proc WHERE pronamespace = 'billing'::regnamespace AND proname = 'contract_amend'").len() == 1
            && std::env::var("SIM_PLAIN").is_err();
        sim.credits = sim.amends
            && sim.must("SELECT FROM pg_proc WHERE pronamespace = 'billing'::regnamespace AND proname = 'credit_blocks'").len() == 1;
        let start = NaiveDate::from_ymd_opt(2025, 1 + sim.rng.below(12) as u32, 1 + sim.rng.below(28) as u32)
            .expect("a day");
        let start = start.and_hms_opt(12, 0, 0).expect("noon").and_utc().timestamp();
        sim.set_clock(start);
        sim.catalogue();
        let only: Option<usize> =
            std::env::var("SIM_CUSTOMER").ok().map(|n| n.parse().expect("SIM_CUSTOMER is a number"));
        for n in 0..customers {
            let rng = sim.rng.fork();
            if only.is_none_or(|o| o == n) {
                sim.customer(n, rng);
            }
        }
        sim
    }

    fn catalogue(&mut self) {
        let mut rng = self.rng.fork();
        let mut books = Vec::new();
        let mut plans = Vec::new();
        for (c, (currency, _, _)) in CURRENCIES.iter().enumerate() {
            let mut prices = Vec::new();
            for (key, meter) in PRICES {
                let pricing = pricing(&mut rng, key, c);
                prices.push(json!({"key": key, "meter": meter, "pricing": pricing}));
                let first = PriceVersion { from: None, said: 0, pricing };
                self.world.prices.insert((book(c), key.to_owned()), vec![first]);
            }
            books.push(json!({"key": book(c), "currency": currency, "prices": prices}));
            let mut all = Vec::new();
            for n in 0..4 {
                let plan = plan(&mut rng, n, c);
                all.push(other_plan(&mut rng, &plan, c));
                all.push(plan);
            }
            for plan in all {
                self.world.plans.insert(plan["key"].as_str().expect("a key").to_owned(), plan.clone());
                plans.push(plan);
            }
        }
        let mut documents = Vec::new();
        for meter in meters() {
            let mut doc = json!({"key": meter.key, "event_type": meter.event_type, "dimensions": meter.dimensions,
                "aggregation": if meter.greatest { "max" } else if meter.value.is_some() { "sum" } else { "count" }});
            if let Some(value) = &meter.value {
                doc["value"] = json!(value);
            }
            documents.push(doc);
            self.world.meters.insert(meter.key.clone(), meter);
        }
        let doc = json!({"products": [{"key": "ai", "name": "AI"}], "meters": documents, "price_books": books, "plans": plans});
        self.must(&format!("SELECT count(*) FROM billing.catalog_apply({})", quote(&doc.to_string())));
    }

    fn customer(&mut self, n: usize, mut rng: Rng) {
        let key = format!("c{n}");
        let zone = ZONES[rng.below(ZONES.len())].to_owned();
        let currency = rng.below(CURRENCIES.len());
        let mut doc = json!({"key": key, "name": key, "currency": CURRENCIES[currency].0, "time_zone": zone});
        let mut entities = vec![key.clone()];
        if rng.chance(40) {
            entities = vec!["inc".to_owned(), "gmbh".to_owned()];
            doc["bill_tos"] = json!([{"key": "inc", "name": "Inc"}, {"key": "gmbh", "name": "GmbH"}]);
        }
        let mut customer = Customer { key: key.clone(), bill_tos: entities.clone(), ..Customer::default() };
        if rng.chance(40) {
            customer.overrides = vec![
                json!({"meter": "tokens", "match": {"model": "small"}, "percent_off": (1 + rng.below(60)).to_string()}),
            ];
            doc["overrides"] = json!(customer.overrides);
        }
        self.must(&format!("SELECT billing.customer_upsert({})", quote(&doc.to_string())));
        self.world.customers.insert(key.clone(), customer);
        self.parties.push(Party {
            rng,
            key,
            zone,
            currency,
            entities,
            contracts: Vec::new(),
            events: 0,
            paused: None,
            deal: None,
            blocks: Vec::new(),
            settled: 0,
        });
        let last = self.parties.len() - 1;
        let party = &mut self.parties[last];
        if self.credits && party.rng.chance(45) {
            party.deal = Some(if party.rng.chance(60) { Deal::Credits } else { Deal::Postpaid });
            self.deal(last);
        } else {
            self.contract(last, None);
        }
    }

    /// A deal of commitments and credits.
    fn deal(&mut self, p: usize) {
        let now = self.clock;
        let said = self.say();
        let party = &mut self.parties[p];
        let (rng, c) = (&mut party.rng, party.currency);
        let (currency, digits, _) = CURRENCIES[c];
        let zone = &self.world.zones[&party.zone];
        let starts = zone.day(now + (rng.below(30) as i64 - 10) * DAY);
        let starts = starts.with_day(starts.day().min(28)).expect("a day of every month");
        let term = [12, 24][rng.below(2)];
        let interval = [1, 3][rng.below(2)];
        let key = format!("{}-1", party.key);
        // An amount about n of the currency's larger unit, which it can pay.
        let whole = |rng: &mut Rng, n: i64| {
            money((n * CURRENCIES[c].2 + rng.below(9999) as i64) * 10_i64.pow(digits) / 100, digits)
        };
        let every = |n: u32| json!(format!("{n} month{}", if n == 1 { "" } else { "s" }));
        let mut charges = vec![
            json!({"key": "tokens", "product": "ai", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": some(rng, 9, c), "per": 100}, "lines_by": ["model"]}),
            json!({"key": "storage", "product": "ai", "meter": "storage", "pricing": {"model": "per_unit", "unit_price": some(rng, 12, c)}}),
        ];
        let fees = json!([{"key": "platform", "product": "ai", "pricing": {"model": "flat", "amount": some(rng, 9999, c)}, "every": every(interval), "timing": "advance"}]);
        let mut doc = json!({"key": key, "customer": party.key, "currency": currency, "starts_on": starts.to_string(), "term": every(term),
            "billing": {"interval": every(interval), "alignment": "anniversary"}});
        let ends = deals::months_after(starts, term);
        let begin = zone.midnight(starts);
        let mut blocks = Vec::new();
        let block = |name: &str,
                     from: Instant,
                     until: Option<Instant>,
                     amount: &str,
                     priority: i64,
                     category: u8,
                     scope: Value| Block {
            name: name.to_owned(),
            from,
            until,
            amount: dec(amount),
            priority,
            category,
            scope,
            burnt: q(0),
            lines: BTreeSet::new(),
        };
        if party.deal == Some(Deal::Credits) {
            let part = [interval, 12][rng.below(2)];
            let mut commitment = json!({"key": "commit", "kind": "prepaid", "instalments": every(part)});
            let mut pool = json!({"key": "pool", "category": "paid", "paid_by": "commit"});
            let mut credits = Vec::new();
            if rng.chance(50) {
                // Each year by itself.
                commitment["every"] = json!("12 months");
                pool["every"] = json!("12 months");
                pool["expires"] = json!("period_end");
                let amounts: Vec<String> = (0..term / 12).map(|_| whole(rng, 300)).collect();
                commitment["amounts"] = json!(amounts);
                let amount = whole(rng, 500);
                pool["amount"] = json!(amount);
                for n in 0..term / 12 {
                    let from = zone.midnight(deals::months_after(starts, 12 * n));
                    let until = zone.midnight(deals::months_after(starts, 12 * (n + 1)));
                    blocks.push(block(&format!("{key}/pool"), from, Some(until), &amount, 50, 2, json!({})));
                }
            } else {
                commitment["amount"] = json!(whole(rng, 900));
                let amount = whole(rng, 1000);
                pool["amount"] = json!(amount);
                blocks.push(block(
                    &format!("{key}/pool"),
                    begin,
                    Some(zone.midnight(ends)),
                    &amount,
                    50,
                    2,
                    json!({}),
                ));
            }
            credits.push(pool);
            if rng.chance(60) {
                let amount = whole(rng, 40);
                let until = starts + Days::new(20 + rng.below(200) as u64);
                let scope = json!({"dimensions": {"model": [MODELS[rng.below(3)]]}});
                credits.push(json!({"key": "gift", "category": "promotional", "amount": amount, "expires": until.to_string(), "scope": scope, "priority": 20}));
                blocks.push(block(
                    &format!("{key}/gift"),
                    begin,
                    Some(zone.midnight(until)),
                    &amount,
                    20,
                    0,
                    scope,
                ));
            }
            if rng.chance(60) {
                let amount = whole(rng, 60);
                let from = starts + Days::new(rng.below(100) as u64);
                let scope = json!({"meters": ["storage"]});
                credits.push(json!({"key": "store", "category": "pilot", "amount": amount, "effective_on": from.to_string(), "expires": "never", "scope": scope, "priority": 50}));
                blocks.push(block(&format!("{key}/store"), zone.midnight(from), None, &amount, 50, 1, scope));
            }
            doc["commitments"] = json!([commitment]);
            doc["credits"] = json!(credits);
        } else {
            let period = [interval, 3 * interval, 12][rng.below(3)];
            doc["commitments"] = json!([{"key": "least", "kind": "postpaid", "amount": whole(rng, 20 * i64::from(period)), "every": every(period)}]);
            charges[1]["pricing"]["free_units"] = json!("10");
        }
        doc["charges"] = json!(charges);
        doc["fees"] = fees;
        let contract = Contract {
            key: key.clone(),
            customer: party.key.clone(),
            currency: currency.to_owned(),
            zone: party.zone.clone(),
            bill_to: party.entities[0].clone(),
            starts,
            ends: Some(ends),
            interval,
            grid: Grid::Anniversary(starts),
            pinned: None,
            rounding: Rounding::HalfUp,
            proration: Proration::Day,
            by_start: false,
            reset: false,
            grace: 0,
            changes: vec![Change { effective: begin, kind: Kind::Create, doc: doc.clone(), said }],
            billed: Vec::new(),
        };
        party.contracts.push(key.clone());
        party.blocks = blocks;
        self.must(&format!("SELECT billing.contract_create({})", quote(&doc.to_string())));
        self.must(&format!("SELECT billing.contract_activate('{key}')"));
        self.world.contracts.insert(key, contract);
    }

    /// A block given to a customer by itself.
    fn grant(&mut self, p: usize) {
        let party = &mut self.parties[p];
        let rng = &mut party.rng;
        let (_, digits, scale) = CURRENCIES[party.currency];
        let zone = &self.world.zones[&party.zone];
        let today = zone.day(self.clock);
        let name = format!("g{}", party.blocks.len());
        let amount = money((20 * scale + rng.below(9999) as i64) * 10_i64.pow(digits) / 100, digits);
        let priority = 10 + rng.below(80) as i64;
        let mut doc = json!({"key": name, "amount": amount, "priority": priority, "reason": "kindness"});
        let mut from = self.clock;
        if rng.chance(50) {
            let day = today + Days::new(rng.below(40) as u64) - Days::new(20);
            doc["effective_on"] = json!(day.to_string());
            from = zone.midnight(day);
        }
        let until = rng.chance(50).then(|| today + Days::new(21 + rng.below(120) as u64));
        if let Some(day) = until {
            doc["expires"] = json!(day.to_string());
        }
        let scope =
            if rng.chance(30) { json!({"dimensions": {"model": [MODELS[rng.below(3)]]}}) } else { json!({}) };
        doc["scope"] = scope.clone();
        party.blocks.push(Block {
            name,
            from,
            until: until.map(|d| zone.midnight(d)),
            amount: dec(&amount),
            priority,
            category: 0,
            scope,
            burnt: q(0),
            lines: BTreeSet::new(),
        });
        let sql = format!("SELECT billing.credit_grant_create('{}', {})", party.key, quote(&doc.to_string()));
        self.must(&sql);
    }

    /// Draws what was billed since the last time, by the oracle, and compares each block.
    fn settle(&mut self) {
        for p in 0..self.parties.len() {
            let party = &self.parties[p];
            let key = party.contracts[0].clone();
            if party.deal != Some(Deal::Credits) || self.broken.contains(&key) {
                continue;
            }
            let contract = self.world.contracts[&key].clone();
            let mut blocks = party.blocks.clone();
            for n in party.settled.max(1)..contract.billed.len() {
                let costs = self.world.costs(&contract, (contract.billed[n - 1].0, contract.billed[n].0));
                deals::draw(&mut blocks, &costs, n);
            }
            let customer = party.key.clone();
            let rows = self.must(&format!(
                "SELECT key, burnt, extract(epoch FROM effective_at)::bigint, granted, posted FROM billing.credit_blocks('{customer}')"
            ));
            // What was drawn may differ from the exact cost by what its lines are rounded by.
            let unit = q(1) / q(10_i64.pow(self.world.minor_units[&contract.currency]));
            let mut drawn = q(0);
            for block in &mut blocks {
                let row = rows.iter().find(|r| {
                    let key = r[0].as_deref().expect("a key");
                    (key == block.name || key.starts_with(&format!("{}/", block.name)))
                        && r[2].as_deref() == Some(block.from.to_string().as_str())
                });
                let Some(row) = row else {
                    self.faults.push(format!(
                        "{customer}: no block {} from {} in {rows:?}",
                        block.name,
                        at(block.from)
                    ));
                    continue;
                };
                let burnt = dec(row[1].as_deref().expect("a number"));
                let slack = q(block.lines.len() as i64) * &unit;
                let full = block.burnt == block.amount;
                let off = &burnt - &block.burnt;
                drawn += &burnt;
                self.compared += 1;
                if burnt > block.amount
                    || off.clone().max(-off.clone()) > slack
                    || dec(row[3].as_deref().expect("a number")) != block.amount
                {
                    self.broken.insert(key.clone());
                    self.faults.push(format!(
                        "{customer}: block {} (full {full}) drew {burnt}, want {} within {slack}; {row:?}",
                        block.name,
                        fixed_about(&block.burnt)
                    ));
                }
                block.burnt = burnt;
                block.lines.clear();
            }
            // Every credit drawn is on an invoice, and is not more than its usage.
            let totals = self.must(&format!(
                "SELECT -sum((document->'totals'->>'credits')::numeric), sum((document->'totals'->>'due')::numeric - (document->'totals'->>'total')::numeric)
                 FROM billing.invoice WHERE key LIKE '{key}/%' AND state NOT IN ('void', 'draft')"
            ));
            if let [Some(credits), Some(due)] = totals[0].as_slice()
                && (dec(credits) != drawn || -dec(due) != drawn)
            {
                self.faults.push(format!(
                    "{customer}: blocks gave {drawn}, invoices have {credits}, due less by {due}"
                ));
            }
            self.parties[p].settled = contract.billed.len();
            self.parties[p].blocks = blocks;
        }
    }

    /// A new contract of a customer, from a day or about now.
    fn contract(&mut self, p: usize, from: Option<Day>) {
        let now = self.clock;
        let said = self.say();
        let party = &mut self.parties[p];
        let rng = &mut party.rng;
        let currency = CURRENCIES[party.currency].0;
        let plan_key = format!("plan-{}-{}", currency.to_lowercase(), rng.below(4));
        let plan = self.world.plans[&plan_key].clone();
        let zone = &self.world.zones[&party.zone];
        let starts = from.unwrap_or_else(|| zone.day(now + (rng.below(50) as i64 - 20) * DAY));
        let key = format!("{}-{}", party.key, party.contracts.len() + 1);
        let mut doc =
            json!({"key": key, "customer": party.key, "plan": plan_key, "starts_on": starts.to_string()});
        let mut ends = None;
        if rng.chance(50) {
            let term = [3, 7, 12, 18, 24][rng.below(5)];
            doc["term"] = json!(format!("{term} months"));
            ends = Some(deals::months_after(starts, term));
        }
        if self.amends && ends.is_some() {
            let months = deals::months(plan["billing"]["interval"].as_str().expect("an interval"));
            let mut renewal =
                json!({"auto": false, "term": format!("{} months", [months, 2 * months][rng.below(2)])});
            // With new prices only where they begin with a billing period.
            let whole = plan["billing"]["alignment"] == "anniversary"
                && deals::months(doc["term"].as_str().expect("a term")).is_multiple_of(months);
            if whole && rng.chance(60) {
                renewal["uplift"] = json!({"percent": money(1 + rng.below(90) as i64, 1)});
            }
            doc["renewal"] = renewal;
        }
        if rng.chance(20) {
            doc["prices"] = json!("pin");
        }
        let tokens = plan["charges"][0]["price"].as_str().unwrap_or_default().to_owned();
        let linear = tokens == "tokens-flat" || tokens == "tokens-matrix";
        let mut overrides = Vec::new();
        if rng.chance(60) {
            let mut one = json!({"meter": "tokens", "match": {"model": MODELS[rng.below(3)]}});
            match rng.below(if linear { 3 } else { 2 }) {
                0 => one["unit_price"] = json!(some(rng, 8, party.currency)),
                1 => one["percent_off"] = json!(money(1 + rng.below(600) as i64, 1)),
                _ => {
                    one["pricing"] = json!({"model": "graduated", "per": 1000, "tiers": tiers(rng, 9, [5000, 20000], true, party.currency)})
                }
            }
            if linear && one.get("pricing").is_none() && rng.chance(60) {
                one["from"] = json!((starts + Days::new(rng.below(200) as u64)).to_string());
                one["until"] = json!((starts + Days::new(250 + rng.below(300) as u64)).to_string());
            }
            overrides.push(one);
        }
        if rng.chance(30) {
            overrides.push(
                json!({"charge": "calls", "match": {}, "percent_off": (5 + rng.below(50)).to_string()}),
            );
        }
        doc["overrides"] = json!(overrides);
        let timing = if rng.chance(50) { "advance" } else { "arrears" };
        if rng.chance(30) {
            doc["fees"] = json!([{"key": "seats", "remove": true}, {"key": "success", "product": "ai", "pricing": {"model": "flat", "amount": some(rng, 50000, party.currency)},
                "every": plan["billing"]["interval"], "timing": timing}]);
        }
        let interval = deals::months(plan["billing"]["interval"].as_str().expect("an interval"));
        let grid = match plan["billing"]["alignment"].as_str() {
            Some("calendar") => Grid::Calendar(1),
            _ => Grid::Anniversary(starts),
        };
        let rounding = if rng.chance(25) { Rounding::HalfEven } else { Rounding::HalfUp };
        let (proration, basis) = [
            (Proration::Second, "second"),
            (Proration::Thirty, "30_actual"),
            (Proration::ThirtyStrict, "30_strict"),
            (Proration::None, "none"),
            (Proration::Second, "second"),
            (Proration::Day, "day"),
        ][if rng.chance(50) { rng.below(5) } else { 5 }];
        let by_start = rng.chance(15);
        let reset = rng.chance(15);
        let grace = if rng.chance(20) { 1 + rng.below(9) as i64 } else { 0 };
        let create = Change { effective: zone.midnight(starts), kind: Kind::Create, doc: doc.clone(), said };
        let contract = Contract {
            key: key.clone(),
            customer: party.key.clone(),
            currency: currency.to_owned(),
            zone: party.zone.clone(),
            bill_to: party.entities[0].clone(),
            starts,
            ends,
            interval,
            grid,
            pinned: (doc["prices"] == "pin").then_some(now),
            rounding,
            proration,
            by_start,
            reset,
            grace,
            changes: vec![create],
            billed: Vec::new(),
        };
        party.contracts.push(key.clone());
        self.must(&format!("SELECT billing.contract_create({})", quote(&doc.to_string())));
        let mut policies = Vec::new();
        if rounding == Rounding::HalfEven {
            policies.push(("rounding_mode", "half_even".to_owned()));
        }
        if proration != Proration::Day {
            policies.push(("proration_basis", basis.to_owned()));
        }
        if by_start {
            policies.push(("rate_at", "period_start".to_owned()));
        }
        if reset {
            policies.push(("tier_continuity", "reset".to_owned()));
        }
        if grace > 0 {
            policies.push(("invoice_grace", format!("{grace} days")));
        }
        for (name, value) in policies {
            self.must(&format!("SELECT billing.policy_set('{name}', '{value}', 'contract:{key}')"));
        }
        self.must(&format!("SELECT billing.contract_activate('{key}')"));
        self.world.contracts.insert(key, contract);
    }

    // -----------------------------------------------------------------------------------------------------------
    // What happens

    /// Events of a customer since an instant: most of the stretch just gone, some late, some on a midnight's second.
    fn usage(&mut self, p: usize, since: Instant) {
        let now = self.clock;
        let party = &mut self.parties[p];
        let rng = &mut party.rng;
        let zone = &self.world.zones[&party.zone];
        let begun = party
            .contracts
            .iter()
            .map(|k| zone.midnight(self.world.contracts[k].starts))
            .min()
            .expect("a contract");
        let mut batch: Vec<Event> = Vec::new();
        let in_time = party.deal == Some(Deal::Credits);
        for _ in 0..rng.below(12) {
            let mut when = since + (rng.next() % (now - since).max(1) as u64) as i64;
            if rng.chance(12) && !in_time {
                when -= rng.below(150) as i64 * DAY;
            }
            if rng.chance(15) {
                let day = zone.day(when);
                let first = if rng.chance(50) { day.with_day(1).expect("a first") } else { day };
                when = zone.midnight(first) + rng.below(3) as i64 - 1;
            }
            when = when.max(begun - 2 * DAY).min(now - 1);
            // Of two events at one instant either may draw first.
            if in_time && (when < since || batch.iter().any(|e| e.at == when)) {
                continue;
            }
            party.events += 1;
            let mut properties = BTreeMap::new();
            if rng.chance(92) {
                properties.insert("region".to_owned(), REGIONS[rng.below(2)].to_owned());
            }
            let event_type = if rng.chance(70) { "llm" } else { "store" };
            if event_type == "llm" {
                properties.insert("model".to_owned(), MODELS[rng.below(3)].to_owned());
                let tokens = 1 + rng.below(9000) as i64;
                properties.insert(
                    "tokens".to_owned(),
                    if rng.chance(10) { money(tokens, 3) } else { tokens.to_string() },
                );
            } else {
                properties.insert("gb".to_owned(), money(1 + rng.below(90000) as i64, 3));
            }
            let bill_to = rng.chance(40).then(|| party.entities[rng.below(party.entities.len())].clone());
            batch.push(Event {
                id: format!("e{}", party.events),
                event_type: event_type.to_owned(),
                at: when,
                bill_to,
                properties,
                live: true,
            });
        }
        if batch.is_empty() {
            return;
        }
        let mut documents: Vec<Value> = batch.iter().map(|e| event_document(&party.key, e)).collect();
        let known = &mut self.world.customers.get_mut(&party.key).expect("a customer").events;
        if let Some(again) = known.get(rng.below(known.len().max(1)))
            && again.live
        {
            documents.push(event_document(&party.key, again));
        }
        let (new, all) = (batch.len(), documents.len());
        known.extend(batch);
        let sql = format!(
            "SELECT accepted, duplicate FROM billing.ingest({})",
            quote(&Value::Array(documents).to_string())
        );
        let told = self.must(&sql);
        let expected = vec![Some(new.to_string()), Some((all - new).to_string())];
        if told != [expected] {
            self.faults.push(format!("ingest told {told:?}: {sql}"));
        }
    }

    /// An event is voided, or amended.
    fn correct(&mut self, p: usize) {
        let now = self.clock;
        let party = &mut self.parties[p];
        let rng = &mut party.rng;
        let events = &mut self.world.customers.get_mut(&party.key).expect("a customer").events;
        if events.is_empty() {
            return;
        }
        let n = rng.below(events.len());
        let event = &mut events[n];
        let sql = if event.live && rng.chance(50) {
            event.live = false;
            format!("SELECT billing.event_void('{}', '{}', 'wrong')", party.key, event.id)
        } else {
            let field = if event.event_type == "llm" { "tokens" } else { "gb" };
            event.live = true;
            event.properties.insert(field.to_owned(), (1 + rng.below(5000)).to_string());
            if rng.chance(30) {
                event.at = (event.at - rng.below(40) as i64 * DAY).min(now - 1);
            }
            let properties = event_document("", event)["properties"].to_string();
            format!(
                "SELECT billing.event_amend('{}', '{}', 'wrong', properties => {}, occurred_at => '{}')",
                party.key,
                event.id,
                quote(&properties),
                at(event.at)
            )
        };
        self.must(&sql);
    }

    /// A new version of a list price, from an instant near now.
    fn publish(&mut self) {
        let now = self.clock;
        let c = self.rng.below(CURRENCIES.len());
        let price = PRICES[self.rng.below(PRICES.len())].0;
        let mut from = now + (self.rng.below(60) as i64 - 10) * DAY;
        if self.rng.chance(60) {
            from -= from.rem_euclid(DAY);
        }
        if self.rng.chance(40) {
            let day = chrono::DateTime::from_timestamp(from, 0).expect("an instant").date_naive();
            from = day
                .with_day(1)
                .expect("a first")
                .and_hms_opt(0, 0, 0)
                .expect("midnight")
                .and_utc()
                .timestamp();
        }
        let mut rng = self.rng.fork();
        let pricing = pricing(&mut rng, price, c);
        let said = self.say();
        let versions = &self.world.prices[&(book(c), price.to_owned())];
        if price.starts_with("peak") {
            return; // only where a period begins
        }
        if let Some(n) = versions.len().checked_sub(1)
            && versions[n].from.is_some_and(|f| f > now)
            && self.rng.chance(40)
        {
            // Not begun: withdrawn.
            self.must(&format!("SELECT billing.price_withdraw('{}/{price}', max(version), 'not approved') FROM billing.price JOIN billing.price_book b USING (price_book_id) WHERE price.key = '{price}' AND b.key = '{}'", book(c), book(c)));
            self.world.prices.get_mut(&(book(c), price.to_owned())).expect("a price").pop();
            return;
        }
        if versions.last().and_then(|v| v.from).is_some_and(|last| last >= from) {
            return;
        }
        // The same bounds and shape: a version that can take the place of the one before inside a period.
        let doc = json!({"price_books": [{"key": book(c), "prices": [{"key": price, "meter": PRICES.iter().find(|x| x.0 == price).map(|x| x.1), "pricing": pricing}]}]});
        let sql = format!(
            "SELECT count(*) FROM billing.price_publish({}, '{}', dry_run => false)",
            quote(&doc.to_string()),
            at(from)
        );
        self.must(&sql);
        let versions = self.world.prices.get_mut(&(book(c), price.to_owned())).expect("a price");
        versions.push(PriceVersion { from: Some(from), said, pricing });
    }

    /// An invoice is voided, to be issued again by the next run.
    fn void(&mut self, p: usize) {
        let party = &mut self.parties[p];
        let contract = party.contracts[party.rng.below(party.contracts.len())].clone();
        let rows = self.must(&format!("SELECT i.key FROM billing.invoice i WHERE i.state = 'open' AND i.key LIKE '{contract}/%' AND i.kind = 'invoice' ORDER BY i.key"));
        if rows.is_empty() {
            return;
        }
        let n = self.parties[p].rng.below(rows.len());
        let key = rows[n][0].clone().expect("a key");
        if self.may(&format!("SELECT billing.invoice_void('{key}', 'wrong')"), &["ZB005"]) {
            let boundary = key[contract.len() + 1..]
                .split(['.', ':'])
                .next()
                .expect("a number")
                .parse()
                .expect("a number");
            self.voided.entry(contract).or_default().push(boundary);
        }
    }

    /// A bill run now; what it must leave is worked out and compared.
    fn bill(&mut self) {
        self.must("CALL billing.bill_run()");
        let said = self.say();
        let keys: Vec<String> = self.world.contracts.keys().cloned().collect();
        for key in keys {
            let contract = &self.world.contracts[&key];
            let zone = &self.world.zones[&contract.zone];
            let mut contract = contract.clone();
            let ended = contract.next_boundary().is_none();
            let mut regular = ended;
            while let Some(day) = contract.next_boundary()
                && zone.midnight(day) + contract.grace * DAY <= self.clock
            {
                contract.billed.push((day, said));
                regular = true;
            }
            let again = self.voided.remove(&key).unwrap_or_default();
            for n in &again {
                contract.billed[*n].1 = said;
            }
            // What is issued again with nothing else takes part in no comparison before the next bill, below.
            regular &= again.is_empty() || !ended;
            if regular || !again.is_empty() {
                self.world.contracts.insert(key.clone(), contract);
                if !regular {
                    // Issued again is what was void. Whether late usage of other boundaries comes with it or waits for
                    // the next boundary is not said anywhere: compared then.
                    self.waits.insert(key);
                    continue;
                }
                self.waits.remove(&key);
                let expected = self.world.expected(&self.world.contracts[&key]);
                self.standing.insert(key, expected);
            }
        }
        self.compare();
        if self.credits {
            self.settle();
        }
    }

    /// The lines of documents summed; with what they were summed of.
    fn sum(&mut self, documents: &str) -> BTreeMap<String, BTreeMap<Key, (Q, Vec<String>)>> {
        let sql = format!(
            "SELECT i.document->>'contract', i.document->>'bill_to', l->>'charge', l->>'key',
                    extract(epoch FROM (l->>'from')::timestamptz)::bigint, (l->'dimensions')::text, l->>'amount', i.key
             FROM ({documents}) i, jsonb_array_elements(i.document->'lines') l"
        );
        let mut found: BTreeMap<String, BTreeMap<Key, (Q, Vec<String>)>> = BTreeMap::new();
        for row in &self.client.query(&sql, &[]).unwrap_or_else(|e| panic!("{documents}: {e:?}")) {
            let contract: String = row.get(0);
            let line: &str = row.get(3);
            let (from, dimensions): (Instant, &str) = (row.get(4), row.get(5));
            let told = &self.world.contracts[&contract];
            let day = self.world.zones[&told.zone].day(from);
            let charge: String = row.get(2);
            let dimensions: BTreeMap<String, String> = serde_json::from_str(dimensions).expect("dimensions");
            let dimensions: Vec<String> =
                dimensions.iter().filter(|(k, _)| *k != "bill_to").map(|(k, v)| format!("{k}={v}")).collect();
            let part = if line.contains("/true_up") {
                "true_up"
            } else if line.contains("/cap") {
                "cap"
            } else {
                "line"
            };
            let every = self.world.every(told, &charge);
            let period = if self.world.is_commitment(told, &charge) {
                day
            } else {
                told.grid.period(day, every).0.max(told.starts)
            };
            let key = Key {
                contract: contract.clone(),
                bill_to: row.get(1),
                charge,
                period,
                part,
                dimensions: dimensions.join(","),
            };
            let of = found.entry(contract).or_default().entry(key).or_insert_with(|| (q(0), Vec::new()));
            let amount: &str = row.get(6);
            of.0 += dec(amount);
            of.1.push(format!("{}: {line} {amount}", row.get::<_, &str>(7)));
        }
        found
    }

    /// What the next bill would have, with the usage of now, on top of all that stands.
    fn preview(&mut self, key: &str) {
        let mut contract = self.world.contracts[key].clone();
        if self.voided.contains_key(key) || self.waits.contains(key) {
            return;
        }
        let Some(next) = contract.next_boundary() else { return };
        contract.billed.push((next, u64::MAX));
        if contract.billed.len() == 1
            && let Some(next) = contract.next_boundary()
        {
            contract.billed.push((next, u64::MAX));
        }
        let expected = self.world.expected(&contract);
        let sql = format!(
            "SELECT 'preview' AS key, d AS document FROM jsonb_path_query(billing.invoice_preview('{key}'), '$[*]') d"
        );
        writeln!(self.log, "{sql};").expect("log");
        let mut found = self.sum(&sql).remove(key).unwrap_or_default();
        let stands = self.sum(&format!("SELECT key, document FROM billing.invoice WHERE state NOT IN ('void', 'draft') AND key LIKE '{key}/%'"));
        for (line, (amount, of)) in stands.into_values().flatten() {
            let sum = found.entry(line).or_insert_with(|| (q(0), Vec::new()));
            sum.0 += amount;
            sum.1.extend(of);
        }
        self.same(&expected, &found, key, "preview and ");
    }

    /// Compares sums with what they should be.
    fn same(
        &mut self,
        expected: &Amounts,
        found: &BTreeMap<Key, (Q, Vec<String>)>,
        contract: &str,
        what: &str,
    ) {
        let none = (q(0), Vec::new());
        if self.broken.contains(contract) {
            return;
        }
        let mut keys: Vec<&Key> = expected.keys().chain(found.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            self.compared += 1;
            let want = expected.get(key).cloned().unwrap_or_else(Q::zero);
            let (got, lines) = found.get(key).unwrap_or(&none);
            if want != *got {
                let digits = self.world.minor_units[&self.world.contracts[contract].currency];
                if self.broken.insert(contract.to_owned()) {
                    self.faults.push(format!("{contract} at {}", at(self.clock)));
                }
                self.faults.push(format!(
                    "{key:?}: {what}billed {}, want {} {lines:#?}",
                    fixed(got, digits),
                    fixed(&want, digits)
                ));
            }
        }
    }

    /// All documents that stand, summed, against the oracle.
    fn compare(&mut self) {
        let mut found =
            self.sum("SELECT key, document FROM billing.invoice WHERE state NOT IN ('void', 'draft')");
        let standing = std::mem::take(&mut self.standing);
        for (contract, expected) in &standing {
            let found = found.remove(contract).unwrap_or_default();
            if !self.waits.contains(contract) {
                self.same(expected, &found, contract, "");
            }
        }
        self.standing = standing;
        for (contract, found) in found {
            if !self.standing.contains_key(&contract) {
                self.faults.push(format!("{contract} is not to be billed yet: {found:?}"));
            }
        }
        // The next boundary of each contract.
        for row in self
            .client
            .query("SELECT key, extract(epoch FROM next_bill_at)::bigint FROM billing.contract", &[])
            .expect("contracts")
        {
            let (key, next): (&str, Option<Instant>) = (row.get(0), row.get(1));
            let contract = &self.world.contracts[key];
            let want = contract.next_boundary().map(|d| self.world.zones[&contract.zone].midnight(d));
            if next != want && !self.voided.contains_key(key) && self.broken.insert(key.to_owned()) {
                self.faults.push(format!("{key}: next_bill_at {:?}, want {:?}", next.map(at), want.map(at)));
            }
        }
        for row in self
            .client
            .query("SELECT kind, key, sqlstate, message FROM billing.job_issue", &[])
            .expect("issues")
        {
            self.faults.push(format!(
                "job issue: {} {} {} {}",
                row.get::<_, &str>(0),
                row.get::<_, &str>(1),
                row.get::<_, &str>(2),
                row.get::<_, &str>(3)
            ));
        }
    }

    fn verify(&mut self, scope: &str) {
        for row in self.must(&format!(
            "SELECT check_name, failed, example FROM billing.verify('{scope}') WHERE failed <> 0"
        )) {
            self.faults.push(format!("verify: {row:?}"));
        }
    }

    fn step(&mut self) {
        let since = self.clock;
        let ahead = 1 + self.rng.below(22 * DAY as usize) as i64;
        let mut to = since + ahead;
        if self.rng.chance(15) {
            to -= to.rem_euclid(DAY); // midnight in UTC
        }
        self.set_clock(to.max(since));
        if self.rng.chance(25) {
            self.publish();
        }
        let bills = self.rng.chance(60);
        let folds = self.rng.chance(30);
        for p in 0..self.parties.len() {
            self.usage(p, since);
            let in_time = self.parties[p].deal == Some(Deal::Credits);
            if self.parties[p].rng.chance(25) && !in_time {
                self.correct(p);
            }
            if self.parties[p].rng.chance(5) && !in_time {
                self.void(p);
            }
            if in_time && self.parties[p].rng.chance(8) {
                self.grant(p);
            }
            self.life(p);
        }
        if folds {
            self.must("CALL billing.fold()");
            if self.credits {
                self.must("CALL billing.credit_expiry()");
            }
        }
        if self.rng.chance(50) {
            let p = self.rng.below(self.parties.len());
            let key = self.parties[p].contracts.last().expect("a contract").clone();
            self.preview(&key);
        }
        if bills {
            self.bill();
            self.bills += 1;
            if self.bills.is_multiple_of(self.verify_every) {
                self.verify("recent");
            }
        }
    }

    /// What becomes of a customer's contracts.
    fn life(&mut self, p: usize) {
        let last = self.parties[p].contracts.last().expect("a contract").clone();
        let contract = self.world.contracts[&last].clone();
        let zone = &self.world.zones[&contract.zone];
        let today = zone.day(self.clock);
        if let Some(ends) = contract.end()
            && zone.midnight(ends) <= self.clock
        {
            if self.parties[p].deal.is_none() && self.parties[p].rng.chance(40) {
                let from = if self.parties[p].rng.chance(50) { ends } else { today };
                self.parties[p].paused = None;
                self.contract(p, Some(from));
            }
            return;
        }
        // Of what is never or not by days of the calendar prorated, no rule says what a change in a period costs.
        let sayable = matches!(contract.proration, Proration::Day | Proration::Second);
        if self.amends && sayable && self.parties[p].rng.chance(35) {
            self.change(p, &contract, today);
        }
    }

    /// Says a change of a contract, and has it done.
    fn changed(&mut self, key: &str, effective: Instant, kind: Kind, doc: Value, sql: &str) {
        let said = self.say();
        match self.run(sql) {
            Ok(_) => {}
            // Not yet there.
            Err(refusal) if refusal.message.contains("is not billed by this version") => return,
            Err(refusal) => {
                self.keep_log();
                panic!("{sql}\n{refusal:?}")
            }
        }
        self.changes += 1;
        let contract = self.world.contracts.get_mut(key).expect("a contract");
        contract.changes.push(Change { effective, kind, doc, said });
    }

    /// One random change of a contract.
    fn change(&mut self, p: usize, contract: &Contract, today: Day) {
        let key = contract.key.clone();
        let end = contract.end();
        let party = &mut self.parties[p];
        let c = party.currency;
        let rng = &mut party.rng;
        let cancelled = contract.changes.iter().any(|c| c.kind == Kind::Cancel);
        // Now, soon, or since some time.
        let mut day = match rng.below(10) {
            0..5 => today,
            5..7 => today + Days::new(rng.below(40) as u64),
            _ => today - Days::new(rng.below(75) as u64),
        };
        day = day.max(contract.starts);
        if end.is_some_and(|e| day >= e) || (cancelled && rng.chance(70)) {
            return;
        }
        let zone = &self.world.zones[&contract.zone];
        // The change of a day holds from its midnight, whenever in the day it is said to be.
        let length = zone.midnight(day + Days::new(1)) - zone.midnight(day);
        let when = zone.midnight(day) + rng.below(length as usize) as i64;
        let instant = quote(&at(when));
        let by_second = contract.proration == Proration::Second;
        let effective = if by_second { when } else { zone.midnight(day) };
        let (midnight, now_is) = (zone.midnight(today.max(contract.starts)), self.clock);
        let terms = self.world.terms(contract, effective);
        let every = |n: u32| json!(format!("{n} month{}", if n == 1 { "" } else { "s" }));
        let word = rng.below(12);
        // Deals keep their length and their usage charges.
        if party.deal.is_some() && !matches!(word, 0..=3 | 11) {
            return;
        }
        match word {
            0 | 1 => {
                let fees: Vec<&String> =
                    terms.fees.iter().filter(|(_, f)| !f["quantity"].is_null()).map(|(k, _)| k).collect();
                if fees.is_empty() {
                    return;
                }
                let fee = fees[rng.below(fees.len())].clone();
                let doc = json!({"quantities": {fee: (1 + rng.below(12)).to_string()}});
                let sql =
                    format!("SELECT billing.contract_amend('{key}', {}, {instant})", quote(&doc.to_string()));
                self.changed(&key, effective, Kind::Amend, doc, &sql);
            }
            2 => {
                if !terms.fees.contains_key("platform") {
                    return;
                }
                let doc = json!({"prices": {"platform": {"model": "flat", "amount": some(rng, 12000, c)}}});
                let sql = format!(
                    "SELECT billing.contract_amend('{key}', {}, {instant}, 'agreed')",
                    quote(&doc.to_string())
                );
                self.changed(&key, effective, Kind::Amend, doc, &sql);
            }
            3 => {
                let name = format!("extra-{}", rng.below(3));
                let doc = if terms.fees.contains_key(&name) {
                    json!({"fees": [{"key": name, "remove": true}]})
                } else {
                    let timing = if rng.below(100) < 50 { "advance" } else { "arrears" };
                    // The same each time, so that one fee has one rhythm.
                    let timing = if name == "extra-0" {
                        "advance"
                    } else if name == "extra-1" {
                        "arrears"
                    } else {
                        timing
                    };
                    if name == "extra-2" && self.world.mentions(contract, &name) {
                        return;
                    }
                    json!({"fees": [{"key": name, "product": "ai", "pricing": {"model": "flat", "amount": some(rng, 4000, c)}, "every": every(contract.interval), "timing": timing}]})
                };
                let sql =
                    format!("SELECT billing.contract_amend('{key}', {}, {instant})", quote(&doc.to_string()));
                self.changed(&key, effective, Kind::Amend, doc, &sql);
            }
            4 => {
                let Some(mut charge) = terms.charges.get("calls").cloned() else { return };
                let shape = ["calls-graduated", "calls-volume", "calls-package"][rng.below(3)];
                let own = pricing(rng, shape, c);
                let fields = charge.as_object_mut().expect("a charge");
                fields.remove("price");
                fields.insert("pricing".to_owned(), own);
                let doc = json!({"charges": [charge]});
                let sql =
                    format!("SELECT billing.contract_amend('{key}', {}, {instant})", quote(&doc.to_string()));
                self.changed(&key, effective, Kind::Amend, doc, &sql);
            }
            5 => {
                let name = format!("off-{}", rng.below(2));
                let doc = if terms.discounts.iter().any(|d| d["key"] == json!(name)) {
                    json!({"discounts": [{"key": name, "remove": true}]})
                } else {
                    let fees: Vec<&String> = terms.fees.keys().collect();
                    if fees.is_empty() {
                        return;
                    }
                    let fee = fees[rng.below(fees.len())].clone();
                    json!({"discounts": [{"key": name, "percent_off": money(1 + rng.below(500) as i64, 1), "charges": [fee]}]})
                };
                let sql =
                    format!("SELECT billing.contract_amend('{key}', {}, {instant})", quote(&doc.to_string()));
                self.changed(&key, effective, Kind::Amend, doc, &sql);
            }
            6 => {
                let plan = contract
                    .changes
                    .iter()
                    .filter(|c| matches!(c.kind, Kind::Create | Kind::ChangePlan))
                    .max_by_key(|c| c.effective)
                    .and_then(|c| c.doc["plan"].as_str())
                    .expect("a plan")
                    .to_owned();
                let other = plan.strip_suffix('b').map_or_else(|| format!("{plan}b"), str::to_owned);
                let (word, on) = match rng.below(3) {
                    0 if now_is >= midnight => ("now".to_owned(), today),
                    1 if today >= contract.starts => ("period_end".to_owned(), contract.period_end(today)),
                    _ => (day.to_string(), day),
                };
                if end.is_some_and(|e| on >= e) {
                    return;
                }
                let effective = if word == "now" && by_second { now_is } else { zone.midnight(on) };
                let sql = format!("SELECT billing.contract_change_plan('{key}', '{other}', '{word}')");
                self.changed(&key, effective, Kind::ChangePlan, json!({"plan": other}), &sql);
            }
            7 | 8 => {
                let soon = today.max(contract.starts) + Days::new(rng.below(12) as u64);
                if end.is_some_and(|e| soon + Days::new(40) >= e) {
                    return;
                }
                let when = zone.midnight(soon) + 60;
                let effective = if by_second { when } else { zone.midnight(soon) };
                let instant = quote(&at(when));
                match party.paused {
                    None => {
                        party.paused = Some(soon);
                        self.changed(
                            &key,
                            effective,
                            Kind::Pause,
                            json!({}),
                            &format!("SELECT billing.contract_pause('{key}', {instant}, 'asked')"),
                        );
                    }
                    Some(since) if since < soon => {
                        party.paused = None;
                        self.changed(
                            &key,
                            effective,
                            Kind::Resume,
                            json!({}),
                            &format!("SELECT billing.contract_resume('{key}', {instant})"),
                        );
                    }
                    Some(_) => {}
                }
            }
            9 => {
                if cancelled || rng.below(100) < 50 {
                    return;
                }
                let (word, on) = match rng.below(3) {
                    0 if !by_second => ("now".to_owned(), today),
                    1 if today >= contract.starts => ("period_end".to_owned(), contract.period_end(today)),
                    _ => (day.to_string(), day),
                };
                if on <= contract.starts || end.is_some_and(|e| on > e) {
                    return;
                }
                let effective = zone.midnight(on);
                let sql = format!("SELECT billing.contract_cancel('{key}', '{word}', 'leaves')");
                self.changed(&key, effective, Kind::Cancel, json!({"on": on.to_string()}), &sql);
            }
            10 => {
                let Some(end) = end else { return };
                if cancelled || today + Days::new(60) < end {
                    return;
                }
                let renewal = &contract.changes[0].doc["renewal"];
                let percent = renewal["uplift"]["percent"].clone();
                let doc = json!({"term": renewal["term"], "percent": percent});
                self.changed(
                    &key,
                    zone.midnight(end),
                    Kind::Renew,
                    doc,
                    &format!("SELECT billing.contract_renew('{key}')"),
                );
            }
            _ => {
                // Fees of one contract for a time of their own.
                let name = format!("short-{}", rng.below(50));
                if self.world.mentions(contract, &name) {
                    return;
                }
                let until = day + Days::new(5 + rng.below(100) as u64);
                let doc = json!({"fees": [{"key": name, "product": "ai", "pricing": {"model": "flat", "amount": some(rng, 3000, c)}, "every": every(contract.interval), "timing": "advance",
                    "from": day.to_string(), "until": until.to_string()}]});
                let sql =
                    format!("SELECT billing.contract_amend('{key}', {}, {instant})", quote(&doc.to_string()));
                self.changed(&key, effective, Kind::Amend, doc, &sql);
            }
        }
    }
}

fn event_document(customer: &str, event: &Event) -> Value {
    let mut properties = serde_json::Map::new();
    for (name, value) in &event.properties {
        let value = if name == "tokens" || name == "gb" {
            Value::Number(serde_json::from_str(value).expect("a number"))
        } else {
            json!(value)
        };
        properties.insert(name.clone(), value);
    }
    let mut doc = json!({"customer": customer, "event_id": event.id, "event_type": event.event_type, "occurred_at": at(event.at), "properties": properties});
    if let Some(bill_to) = &event.bill_to {
        doc["bill_to"] = json!(bill_to);
    }
    doc
}

/// Runs one seed; gives the customer-years, the amounts compared and what was wrong.
fn simulate(seed: u64, customers: usize, steps: usize) -> (f64, usize, usize, Vec<String>) {
    let db = Db::fresh(&format!("simulation_{seed}"));
    let mut sim = Sim::new(&db, seed, customers);
    let start = sim.clock;
    let mut faults = 0;
    for step in 0..steps {
        sim.step();
        if sim.faults.len() > faults {
            sim.faults.insert(faults, format!("seed {seed}, step {step}, clock {}", at(sim.clock)));
            faults = sim.faults.len();
        }
        if faults > number("SIM_FAULTS", 0) {
            break;
        }
    }
    if sim.faults.is_empty() {
        sim.bill();
        sim.verify("full");
    }
    sim.keep_log();
    if std::env::var("SIM_TIMES").is_ok() {
        println!("{:#?}", sim.times);
    }
    let years = (sim.clock - start) as f64 / (365.25 * DAY as f64) * sim.parties.len() as f64;
    (years, sim.changes, sim.compared, sim.faults)
}

#[test]
fn every_invoice_of_years_of_random_deals_is_what_a_naive_oracle_says() {
    let seeds: Vec<u64> = std::env::var("SIM_SEEDS")
        .unwrap_or_else(|_| "4".to_owned())
        .split(',')
        .map(|s| s.parse().expect("SIM_SEEDS are numbers"))
        .collect();
    let (customers, steps) = (number("SIM_CUSTOMERS", 6), number("SIM_STEPS", 45));
    let mut wrong = Vec::new();
    for seed in seeds {
        let begun = std::time::Instant::now();
        let (years, changes, compared, faults) = simulate(seed, customers, steps);
        println!(
            "seed {seed}: {years:.1} customer-years, {changes} changes of contracts, {compared} amounts compared, {} faults, {:.1} s",
            faults.len(),
            begun.elapsed().as_secs_f64()
        );
        wrong.extend(faults);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! What is known of the world, and how something is said to the billing system.

use crate::common::{self, Db};
use crate::deals::{self, Amounts, Block, Day, Instant, Q, Rounding, World, Zone, q};
use crate::load::Rng;
use crate::wallets::Purse;
use chrono::NaiveDate;
use postgres::{Client, SimpleQueryMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

pub(crate) const ZONES: [&str; 9] = [
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

pub(crate) const CURRENCIES: [(&str, u32, i64); 4] =
    [("USD", 2, 100), ("EUR", 2, 90), ("JPY", 0, 15000), ("KWD", 3, 30)];

pub(crate) const MODELS: [&str; 3] = ["gpt-4", "gpt-3.5", "small"];

pub(crate) const REGIONS: [&str; 2] = ["eu", "us"];

pub(crate) const DAY: i64 = 86400;

/// What is signed beside usage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deal {
    /// Credits, paid in advance or given. Its usage comes in time and is not corrected: which credit late usage finds
    /// depends on what was drawn before.
    Credits,
    /// A least spend for each period, tested at its end.
    Postpaid,
    /// Commitments in units of a meter, and such beyond which usage has another price. Its events are hours apart, its prices
    /// exact to the smallest unit of the currency, so that what fills the promise is one number.
    Promise,
    /// What a sales person thinks of: ramps, step-ups, phases, trials, add-ons, fees for a year or once.
    Shapes,
}

/// What one customer of the simulation does; it has random numbers of its own, so that it does the same alone.
pub(crate) struct Party {
    pub(crate) rng: Rng,
    pub(crate) key: String,
    pub(crate) zone: String,
    pub(crate) currency: usize,
    pub(crate) entities: Vec<String>,
    pub(crate) contracts: Vec<String>,
    pub(crate) events: usize,
    /// Since when the last contract is paused.
    pub(crate) paused: Option<Day>,
    /// A signed deal of commitments or credits instead of a plan.
    pub(crate) deal: Option<Deal>,
    /// Its events are hours apart, and what they cost has no more places than can be paid: what is drawn is one number.
    pub(crate) exact: bool,
    /// What each block gave to the last boundary.
    pub(crate) last_drawn: Vec<Q>,
    /// Its usage comes in time and is not corrected.
    pub(crate) in_time: bool,
    /// Its blocks of credit.
    pub(crate) blocks: Vec<Block>,
    /// Up to which boundary its usage was settled.
    pub(crate) settled: usize,
    /// What its bills drew from them.
    pub(crate) by_bills: Q,
}

pub(crate) struct Sim {
    pub(crate) client: Client,
    pub(crate) rng: Rng,
    pub(crate) world: World,
    pub(crate) parties: Vec<Party>,
    pub(crate) purses: Vec<Purse>,
    /// Sales of credit that were not compared yet: customer, key, price, currency, day.
    pub(crate) sales: Vec<(String, (String, String, String, Day))>,
    pub(crate) clock: Instant,
    pub(crate) said: u64,
    pub(crate) log: String,
    /// What each contract's documents summed to when it was billed last, by the oracle.
    pub(crate) standing: BTreeMap<String, Amounts>,
    /// Contracts with a fault: the others go on.
    pub(crate) broken: BTreeSet<String>,
    /// Contracts that are not compared before they are billed again.
    pub(crate) waits: BTreeSet<String>,
    /// Boundaries whose invoice was voided, to be issued again.
    pub(crate) voided: BTreeMap<String, Vec<usize>>,
    /// Policy credit_expiry_grace: how many seconds after its end a block may still be drawn by late usage.
    pub(crate) credit_grace: i64,
    /// Contracts that the last run billed, or looked at.
    pub(crate) just_billed: BTreeSet<String>,
    pub(crate) compared: usize,
    /// Changes of contracts that were made.
    pub(crate) changes: usize,
    pub(crate) faults: Vec<String>,
    /// What the installation can do beside what 0.2.0 began with.
    pub(crate) amends: bool,
    pub(crate) credits: bool,
    pub(crate) bills: usize,
    /// After every so many bill runs `verify()` is asked, too.
    pub(crate) verify_every: usize,
    /// Where the time went, by function.
    pub(crate) times: BTreeMap<String, std::time::Duration>,
}

/// A number of the environment.
pub(crate) fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(crate) fn at(t: Instant) -> String {
    format!("{:?}Z", chrono::DateTime::from_timestamp(t, 0).expect("an instant").naive_utc())
}

/// A fraction, to 12 places.
pub(crate) fn fixed_about(x: &Q) -> String {
    deals::decimal(&deals::round(x, 12, Rounding::HalfUp))
}

/// A decimal of `n` units of 10^-places.
pub(crate) fn money(n: i64, places: u32) -> String {
    deals::decimal(&(q(n) / q(10_i64.pow(places))))
}

/// Local midnights from 2022 to 2034, by Postgres's own time zones.
pub(crate) fn zone(client: &mut Client, name: &str) -> Zone {
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

impl Sim {
    pub(crate) fn new(db: &Db, seed: u64, customers: usize) -> Sim {
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
            purses: Vec::new(),
            sales: Vec::new(),
            clock: 0,
            said: 0,
            log: format!("-- seed {seed}\n"),
            standing: BTreeMap::new(),
            broken: BTreeSet::new(),
            waits: BTreeSet::new(),
            voided: BTreeMap::new(),
            credit_grace: 0,
            just_billed: BTreeSet::new(),
            compared: 0,
            changes: 0,
            faults: Vec::new(),
            amends: false,
            credits: false,
            bills: 0,
            verify_every: number("SIM_VERIFY", 3),
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
        if sim.credits && sim.rng.chance(50) {
            // Longer than any usage is late.
            sim.credit_grace = 366 * DAY;
            sim.must("SELECT billing.policy_set('credit_expiry_grace', '366 days')");
        }
        let only: Option<usize> =
            std::env::var("SIM_CUSTOMER").ok().map(|n| n.parse().expect("SIM_CUSTOMER is a number"));
        for n in 0..customers {
            let rng = sim.rng.fork();
            if only.is_none_or(|o| o == n) {
                sim.customer(n, rng);
            }
        }
        if only.is_none() && sim.credits {
            for n in 0..number("SIM_WALLETS", 2) {
                let rng = sim.rng.fork();
                sim.purse(n, rng);
            }
        }
        sim
    }

    pub(crate) fn run(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, common::Refusal> {
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
    pub(crate) fn must(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        match self.run(sql) {
            Ok(rows) => rows,
            Err(refusal) => {
                self.keep_log();
                panic!("{sql}\n{refusal:?}")
            }
        }
    }

    /// A statement that may be refused with one of these codes; says whether it was done.
    pub(crate) fn may(&mut self, sql: &str, codes: &[&str]) -> bool {
        match self.run(sql) {
            Ok(_) => true,
            Err(refusal) if codes.contains(&refusal.code.as_str()) => false,
            Err(refusal) => {
                self.keep_log();
                panic!("{sql}\n{refusal:?}")
            }
        }
    }

    pub(crate) fn keep_log(&self) {
        if let Ok(file) = std::env::var("SIM_LOG") {
            std::fs::write(&file, &self.log).expect("SIM_LOG");
        }
    }

    pub(crate) fn say(&mut self) -> u64 {
        self.said += 1;
        self.said
    }

    pub(crate) fn set_clock(&mut self, to: Instant) {
        self.clock = to;
        self.must(&format!("SELECT billing.test_clock_set('{}')", at(to)));
    }
}

//! Years of test-clock time over random customers and deals. After each bill run every document is summed by contract,
//! legal entity, charge, service period and line dimensions, and compared with a naive oracle (tests/oracle/deals)
//! that knows only what was said to the billing system; then `billing.verify()` runs. The seed is printed; with
//! SIM_SEEDS=1,2,3 and SIM_STEPS=200 it runs longer, SIM_VERIFY=1 verifies after each bill run, not each third, SIM_CUSTOMER=2 runs one customer of a seed alone, and
//! SIM_LOG=file keeps every statement, to be replayed by psql.
//!
//! world.rs: what is known and how it is said. catalogue.rs: what there is to be bought. signing.rs: customers and what
//! they sign, shapes.rs: deals of every shape. usage.rs: events, their corrections, prices. life.rs: what becomes of contracts. billing.rs: bill runs, and what
//! they must leave. credits.rs: blocks of credit that pay for usage. wallets.rs: credit that an application draws.
#![allow(clippy::disallowed_methods)] // tests measure real time

#[path = "../common/mod.rs"]
mod common;
#[path = "../oracle/deals/mod.rs"]
mod deals;
#[path = "../load/mod.rs"]
mod load;

mod billing;
mod catalogue;
mod credits;
mod life;
mod shapes;
mod signing;
mod usage;
mod wallets;
mod world;

use common::Db;
use world::{DAY, Deal, Sim, at, number};

/// Runs one seed; gives the customer-years, the amounts compared and what was wrong.
pub(crate) fn simulate(seed: u64, customers: usize, steps: usize) -> (f64, usize, usize, Vec<String>) {
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
    if std::env::var("SIM_KEEP").is_ok() {
        std::mem::forget(db); // its database stays to be looked at
    }
    let years = (sim.clock - start) as f64 / (365.25 * DAY as f64) * sim.parties.len() as f64;
    (years, sim.changes, sim.compared, sim.faults)
}

#[test]
pub(crate) fn every_invoice_of_years_of_random_deals_is_what_a_naive_oracle_says() {
    let seeds: Vec<u64> = std::env::var("SIM_SEEDS")
        .unwrap_or_else(|_| "4".to_owned())
        .split(',')
        .map(|s| s.parse().expect("SIM_SEEDS are numbers"))
        .collect();
    let (customers, steps) = (number("SIM_CUSTOMERS", 6), number("SIM_STEPS", 20));
    let mut wrong = Vec::new();
    for seed in seeds {
        let begun = std::time::Instant::now();
        let (years, changes, compared, faults) = simulate(seed, customers, steps);
        println!(
            "seed {seed}: {years:.1} customer-years, {changes} changes of contracts, {compared} amounts compared, {} faults, {:.1} s",
            faults.len(),
            begun.elapsed().as_secs_f64()
        );
        println!("{}", faults.join("\n"));
        wrong.extend(faults);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Sim {
    pub(crate) fn step(&mut self) {
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
            let in_time = self.parties[p].in_time;
            if self.parties[p].rng.chance(25) && !in_time {
                self.correct(p);
            }
            let credits = self.parties[p].deal == Some(Deal::Credits);
            if self.parties[p].rng.chance(if credits && in_time { 10 } else { 5 }) && (credits || !in_time) {
                self.void(p);
            }
            if credits && in_time && self.parties[p].rng.chance(8) {
                self.grant(p);
            }
            self.life(p);
            if self.credits {
                self.draw_and_balance(p);
            }
        }
        if folds {
            self.must("CALL billing.fold()");
            if self.credits {
                self.expire_purses();
                self.compare_sales();
            }
        }
        self.purses();
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
}

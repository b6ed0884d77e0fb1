//! Whatever happens to credit in whatever order, none is lost or made: random grants, purchases, draws, usage with its
//! bills, voids, refunds, expiry with grace, roll-over, carrying into other contracts, extensions and top-ups on the test
//! clock. After each step every block, balance and account is what a naive model says that shares nothing with the engine,
//! and no block holds less than nothing or more than it was granted. `RACES_SEED=…` repeats a run, `STEPS=…` makes it longer.
//!
//! model.rs: what must be there. steps.rs: what happens.
#![allow(clippy::disallowed_methods)] // tests draw their seed from the clock

#[path = "../common/mod.rs"]
mod common;
#[path = "../load/mod.rs"]
mod load;

mod model;
mod steps;

use chrono::{Duration, NaiveDate, NaiveDateTime};
use common::{Db, verify};
use load::{Rng, told};
use model::{Block, Cents, Customer, GRACE_DAYS, UNITS, midnight, stamp};
use postgres::Client;
use serde_json::json;
use std::collections::BTreeMap;

struct World {
    rng: Rng,
    client: Client,
    now: NaiveDateTime,
    customers: Vec<Customer>,
    names: usize,
    log: Vec<String>,
    /// Of each kind of step, how many did something, and how many were refused.
    done: BTreeMap<&'static str, (usize, usize)>,
}

impl World {
    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    fn told(&self) -> String {
        let from = self.log.len().saturating_sub(40);
        format!("at {}, after\n{}", stamp(self.now), self.log[from..].join(";\n"))
    }

    fn run(&mut self, sql: &str) {
        self.log.push(sql.to_owned());
        self.client.batch_execute(sql).unwrap_or_else(|e| panic!("{}\n{}", told(&e), self.told()));
    }

    /// Runs a statement that is to succeed or to be refused with one of some codes, as the model says.
    fn try_run(&mut self, step: &'static str, sql: &str, allowed: bool) {
        self.log.push(sql.to_owned());
        let counts = self.done.entry(step).or_default();
        if allowed {
            counts.0 += 1
        } else {
            counts.1 += 1
        }
        match (self.client.batch_execute(sql), allowed) {
            (Ok(()), true) => (),
            (Ok(()), false) => panic!("was to be refused: {}", self.told()),
            (Err(error), true) => panic!("{}\n{}", told(&error), self.told()),
            (Err(error), false) => {
                let code = error.code().map_or("", |code| code.code());
                assert!(["ZB004", "ZB005", "ZB014"].contains(&code), "{}\n{}", told(&error), self.told());
            }
        }
    }

    fn number(&mut self, sql: &str) -> Option<Cents> {
        let row = self.client.query_opt(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", told(&e)));
        row.and_then(|row| row.get(0))
    }

    fn text(&mut self, sql: &str) -> String {
        self.client
            .query_one(sql, &[])
            .unwrap_or_else(|e| panic!("{sql}: {}\n{}", told(&e), self.told()))
            .get(0)
    }

    fn days_from_now(&mut self, least: i64, most: i64) -> NaiveDate {
        let days = least + self.rng.below((most - least) as usize) as i64;
        (self.now.date() + Duration::days(days)).max(NaiveDate::from_ymd_opt(2026, 1, 1).expect("a day"))
    }

    /// A block by its id, since top-ups of two customers have the same key.
    fn id(&self, who: usize, at: usize) -> String {
        let customer = &self.customers[who];
        format!(
            "(SELECT g.grant_id::text FROM billing.credit_grant g JOIN billing.customer c USING (customer_id) WHERE c.key = '{}' AND g.key = '{}')",
            customer.key, customer.blocks[at].key
        )
    }

    /// The keys of blocks that the engine has made and the model has not, the oldest first.
    fn adopt(&mut self, who: usize) -> Vec<String> {
        let known: Vec<String> = self.customers[who].blocks.iter().map(|b| b.key.clone()).collect();
        let sql = format!(
            "SELECT g.key FROM billing.credit_grant g JOIN billing.customer c USING (customer_id) WHERE c.key = '{}' ORDER BY g.grant_id",
            self.customers[who].key
        );
        let rows = self.client.query(&sql, &[]).expect("keys");
        rows.iter().map(|row| row.get::<_, String>(0)).filter(|key| !known.contains(key)).collect()
    }

    fn granted(&self, key: String, unit: &'static str, amount: Cents) -> Block {
        Block {
            key,
            unit,
            granted: amount,
            moved_in: 0,
            left: amount,
            burnt: 0,
            expired: 0,
            voided: 0,
            refunded: 0,
            rolled_out: 0,
            priority: 50,
            scoped: false,
            category: 0,
            from: self.now,
            until: None,
            rollover: None,
            contract: None,
            pool: None,
            ended: false,
            void: false,
        }
    }

    /// All that can be seen is what the model says.
    fn check(&mut self) {
        for who in 0..self.customers.len() {
            let customer = &self.customers[who];
            let now = self.now;
            let mut expected: Vec<String> = customer
                .blocks
                .iter()
                .map(|b| {
                    assert!(0 <= b.left && b.left <= b.granted, "the model's own {b:?}");
                    format!(
                        "{} {} {} {} {} {} {} {} {} {}",
                        b.key,
                        b.unit,
                        b.granted,
                        b.burnt,
                        b.expired,
                        b.voided,
                        b.refunded,
                        b.rolled_out,
                        b.left,
                        b.standing(now)
                    )
                })
                .collect();
            expected.sort();
            let mut got: Vec<String> = self
                .client
                .query(
                    "SELECT concat_ws(' ', key, unit, (granted * 100)::bigint, (burnt * 100)::bigint, (expired * 100)::bigint, (voided * 100)::bigint, (refunded * 100)::bigint,
                        (rolled_out * 100)::bigint, (posted * 100)::bigint, standing), posted BETWEEN 0 AND granted FROM billing.credit_blocks($1)",
                    &[&customer.key],
                )
                .unwrap_or_else(|e| panic!("{}\n{}", told(&e), self.told()))
                .iter()
                .map(|row| {
                    assert!(row.get::<_, bool>(1), "{}: {}", row.get::<_, String>(0), self.told());
                    row.get(0)
                })
                .collect();
            got.sort();
            assert_eq!(got, expected, "blocks of {} {}", customer.key, self.told());

            let (pending, free) = (customer.pending(), customer.free());
            let mut balances = Vec::new();
            for unit in UNITS {
                let of: Vec<usize> = (0..customer.blocks.len())
                    .filter(|n| customer.blocks[*n].unit == unit && !customer.blocks[*n].void)
                    .collect();
                let sum = |value: &dyn Fn(usize) -> Cents, wanted: &dyn Fn(&Block) -> bool| -> Cents {
                    of.iter().filter(|n| wanted(&customer.blocks[**n])).map(|n| value(*n)).sum()
                };
                let begun = |b: &Block| b.from <= now;
                if !of.is_empty() {
                    balances.push(format!(
                        "{unit} {} {} {} {} {}",
                        sum(&|n| customer.blocks[n].left, &begun),
                        sum(&|n| pending[n], &begun),
                        sum(&|n| free[n], &|b| b.lives(now)),
                        sum(&|n| free[n], &|b| begun(b) && !b.lives(now)),
                        sum(&|n| customer.blocks[n].left, &|b| !begun(b)),
                    ));
                }
            }
            let got: Vec<String> = self
                .client
                .query(
                    "SELECT concat_ws(' ', unit, (posted * 100)::bigint, (pending * 100)::bigint, (available * 100)::bigint, (pending_expiration * 100)::bigint, (upcoming * 100)::bigint)
                     FROM billing.credit_balance($1) ORDER BY unit COLLATE \"C\"",
                    &[&customer.key],
                )
                .unwrap_or_else(|e| panic!("{}\n{}", told(&e), self.told()))
                .iter()
                .map(|row| row.get(0))
                .collect();
            assert_eq!(got, balances, "balances of {} {}", customer.key, self.told());

            // Both sides of every movement: what was issued is held, used, or has expired.
            let mut accounts = Vec::new();
            for unit in UNITS {
                let of = || customer.blocks.iter().filter(move |b| b.unit == unit);
                let sum = |value: fn(&Block) -> Cents| -> Cents { of().map(value).sum() };
                let issued = sum(|b| b.granted - b.moved_in - b.voided - b.refunded);
                assert_eq!(issued, sum(|b| b.left + b.burnt + b.expired), "the model's own {unit}");
                if of().next().is_some() {
                    accounts.push(format!(
                        "{unit} {} {} {} {}",
                        sum(|b| b.left),
                        -issued,
                        sum(|b| b.burnt),
                        sum(|b| b.expired)
                    ));
                }
            }
            let got: Vec<String> = self
                .client
                .query(
                    "SELECT concat_ws(' ', unit, (sum(amount) FILTER (WHERE account = 'customer_balance') * 100)::bigint, (sum(amount) FILTER (WHERE account = 'issued') * 100)::bigint,
                        (coalesce(sum(amount) FILTER (WHERE account = 'consumed'), 0) * 100)::bigint, (coalesce(sum(amount) FILTER (WHERE account = 'expired'), 0) * 100)::bigint)
                     FROM billing.credit_ledger_entry e JOIN billing.customer c USING (customer_id) WHERE c.key = $1 GROUP BY unit ORDER BY unit COLLATE \"C\"",
                    &[&customer.key],
                )
                .unwrap_or_else(|e| panic!("{}\n{}", told(&e), self.told()))
                .iter()
                .map(|row| row.get(0))
                .collect();
            assert_eq!(got, accounts, "accounts of {} {}", customer.key, self.told());
        }
    }
}

#[test]
fn no_credit_is_lost_or_made() {
    let rng = load::seed("no credit is lost or made");
    let steps: usize = std::env::var("STEPS").map_or(150, |text| text.parse().expect("STEPS is a number"));
    let db = Db::fresh("credit_conservation");
    let now = midnight(NaiveDate::from_ymd_opt(2026, 1, 5).expect("a day")) + Duration::hours(9);
    let mut world = World {
        rng,
        client: db.connect(),
        now,
        customers: Vec::new(),
        names: 0,
        log: Vec::new(),
        done: BTreeMap::new(),
    };
    world.run(&format!(
        r#"SELECT billing.test_clock_set('{}'); SELECT billing.policy_set('credit_expiry_grace', '{GRACE_DAYS} days');
        SELECT billing.catalog_apply('{{"products":[{{"key":"ai"}}], "meters":[{{"key":"use","event_type":"use","aggregation":"sum","value":"n"}}],
            "features":[{{"key":"credits","kind":"credit","unit":"credits"}}],
            "plans":[{{"key":"pro","currency":"USD","charges":[{{"key":"use","product":"ai","meter":"use","pricing":{{"model":"per_unit","unit_price":"0.01"}}}}]}}]}}')"#,
        stamp(now)
    ));
    // One whose credit pays for usage, one that only draws.
    for (key, uses) in [("user", true), ("wallet", false)] {
        let contract = format!("{key}-base");
        let mut doc = json!({"key": contract, "customer": key, "starts_on": "2026-01-01", "currency": "USD"});
        if uses {
            doc["plan"] = json!("pro");
            doc["credits"] =
                json!([{"key": "gift", "category": "promotional", "amount": "30", "expires": "2026-04-01"}]);
        } else {
            doc["fees"] = json!([{"key": "nothing", "product": "ai", "once": true, "pricing": {"model": "flat", "amount": "0"}}]);
        }
        world.run(&format!(
            "SELECT billing.customer_upsert('{{\"key\":\"{key}\",\"currency\":\"USD\"}}'), billing.contract_create('{doc}'), billing.contract_activate('{contract}')"
        ));
        let mut customer = Customer {
            key: key.to_owned(),
            uses,
            contracts: vec![contract.clone()],
            blocks: Vec::new(),
            pools: Vec::new(),
            used: Vec::new(),
            bills: Vec::new(),
            billed_until: None,
            rule: None,
            drawn: None,
        };
        if uses {
            let mut gift = world.granted(format!("{contract}/gift"), "USD", 3000);
            gift.from = midnight(NaiveDate::from_ymd_opt(2026, 1, 1).expect("a day"));
            gift.until = NaiveDate::from_ymd_opt(2026, 4, 1).map(midnight);
            gift.contract = Some(contract);
            customer.blocks.push(gift);
        }
        world.customers.push(customer);
    }
    for _ in 0..steps {
        world.step();
        world.check();
    }
    println!("{} on {steps} steps: {:?}", stamp(world.now), world.done);
    assert_eq!(verify(&mut world.client), Vec::<String>::new(), "{}", world.told());
}

//! Whatever happens to credit in whatever order, none is lost or made: random grants, purchases, draws, usage with its
//! bills, voids, refunds, expiry with grace, roll-over, carrying into other contracts, extensions and top-ups on the test
//! clock. After each step every block, balance and account is what a naive model says that shares nothing with the engine,
//! and no block holds less than nothing or more than it was granted. `RACES_SEED=…` repeats a run, `STEPS=…` makes it longer.
#![allow(clippy::disallowed_methods)] // tests draw their seed from the clock

mod common;
mod load;

use chrono::{Datelike, Duration, Months, NaiveDate, NaiveDateTime};
use common::{Db, verify};
use load::{Rng, told};
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// All amounts are whole cents, of USD and of the customer's own unit alike.
type Cents = i64;

const CREDITS: &str = "credits";
const UNITS: [&str; 2] = ["USD", CREDITS];
const GRACE_DAYS: i64 = 2;
const CATEGORIES: [&str; 3] = ["promotional", "pilot", "paid"];

#[derive(Debug, Clone)]
struct Block {
    key: String,
    unit: &'static str,
    granted: Cents,
    /// What of it came from other blocks.
    moved_in: Cents,
    left: Cents,
    burnt: Cents,
    expired: Cents,
    voided: Cents,
    refunded: Cents,
    rolled_out: Cents,
    priority: i64,
    /// Only for product `ai`.
    scoped: bool,
    category: usize,
    from: NaiveDateTime,
    until: Option<NaiveDateTime>,
    /// The most that lives on (none = all), and for how many months.
    rollover: Option<(Option<Cents>, u32)>,
    contract: Option<String>,
    pool: Option<usize>,
    ended: bool,
    void: bool,
}

impl Block {
    fn lives(&self, at: NaiveDateTime) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }

    fn standing(&self, now: NaiveDateTime) -> &'static str {
        match self.until {
            _ if self.void => "void",
            _ if self.ended => "expired",
            _ if now < self.from => "upcoming",
            Some(until) if until <= now => "pending_expiration",
            _ if self.left == 0 => "used",
            _ => "live",
        }
    }

    fn take(&mut self, amount: Cents) {
        self.left -= amount;
        self.burnt += amount;
    }
}

#[derive(Debug)]
struct Pool {
    key: String,
    paid: Cents,
    credits: Cents,
    /// An invoice sold it, and stands.
    invoiced: bool,
}

#[derive(Debug)]
struct Used {
    at: NaiveDateTime,
    amount: Cents,
    billed: bool,
}

/// What the bill of a month drew.
#[derive(Debug)]
struct Bill {
    month: NaiveDateTime,
    amount: Cents,
    draws: Vec<(usize, Cents)>,
}

#[derive(Debug)]
struct Rule {
    threshold: Cents,
    amount: Cents,
    price: Cents,
    lasts: Option<u32>,
    below: bool,
}

#[derive(Debug)]
struct Customer {
    key: String,
    /// It has a contract with usage, which credit pays for.
    uses: bool,
    contracts: Vec<String>,
    blocks: Vec<Block>,
    pools: Vec<Pool>,
    used: Vec<Used>,
    bills: Vec<Bill>,
    billed_until: Option<NaiveDateTime>,
    rule: Option<Rule>,
    drawn: Option<(String, Cents, &'static str, Value)>,
}

impl Customer {
    /// The blocks that may pay, in the documented order, of which `left` is there.
    fn payers(&self, at: NaiveDateTime, unit: &str, ai: bool, contract: Option<&str>) -> Vec<usize> {
        let mut payers: Vec<usize> = (0..self.blocks.len())
            .filter(|n| {
                let b = &self.blocks[*n];
                b.unit == unit
                    && b.lives(at)
                    && (ai || !b.scoped)
                    && match (contract, &b.contract) {
                        (Some(asked), Some(own)) => asked == own,
                        _ => true,
                    }
            })
            .collect();
        payers.sort_by_key(|n| {
            let b = &self.blocks[*n];
            (b.priority, b.until.is_none(), b.until, !b.scoped, b.category, b.from, *n)
        });
        payers
    }

    /// What usage that is not billed draws from each block, hour by hour, and from which months it is.
    fn settled(&self, before: NaiveDateTime) -> BTreeMap<NaiveDateTime, Bill> {
        let mut left: Vec<Cents> = self.blocks.iter().map(|b| b.left).collect();
        let mut used: Vec<&Used> = self.used.iter().filter(|u| !u.billed && u.at < before).collect();
        used.sort_by_key(|u| u.at);
        let mut bills: BTreeMap<NaiveDateTime, Bill> = BTreeMap::new();
        for usage in used {
            let month = month(usage.at);
            let bill = bills.entry(month).or_insert_with(|| Bill { month, amount: 0, draws: Vec::new() });
            bill.amount += usage.amount;
            let mut owed = usage.amount;
            for n in self.payers(usage.at, "USD", true, Some(&self.contracts[0])) {
                let part = owed.min(left[n]);
                if part > 0 {
                    left[n] -= part;
                    owed -= part;
                    bill.draws.push((n, part));
                }
            }
        }
        bills
    }

    fn pending(&self) -> Vec<Cents> {
        let mut pending = vec![0; self.blocks.len()];
        for bill in self.settled(NaiveDateTime::MAX).values() {
            bill.draws.iter().for_each(|(n, amount)| pending[*n] += amount);
        }
        pending
    }

    fn free(&self) -> Vec<Cents> {
        self.blocks.iter().zip(self.pending()).map(|(b, pending)| b.left - pending).collect()
    }

    fn available(&self, unit: &str, now: NaiveDateTime) -> Cents {
        self.blocks
            .iter()
            .zip(self.free())
            .filter(|(b, _)| b.unit == unit && b.lives(now) && !b.void)
            .map(|(_, free)| free)
            .sum()
    }

    /// All that is waited for before the end of a block is posted.
    fn ends(&self, block: &Block, now: NaiveDateTime) -> bool {
        let Some(until) = block.until else { return false };
        let waits = self.uses
            && block.contract.as_ref().is_none_or(|contract| *contract == self.contracts[0])
            && self.billed_until.is_none_or(|billed| billed < until);
        !block.ended && !block.void && until + Duration::days(GRACE_DAYS) <= now && !waits
    }

    /// What has left a pool.
    fn released(&self, pool: usize) -> Cents {
        let of = self.blocks.iter().filter(|b| b.pool == Some(pool));
        of.map(|b| b.burnt + b.expired + b.refunded + b.voided).sum()
    }

    /// Gives back what a bill drew; an ended block keeps nothing of it.
    fn give_back(&mut self, bill: &Bill) {
        for (n, amount) in &bill.draws {
            let block = &mut self.blocks[*n];
            block.burnt -= amount;
            if block.ended {
                block.expired += amount;
            } else {
                block.left += amount;
            }
        }
    }
}

fn month(at: NaiveDateTime) -> NaiveDateTime {
    midnight(at.date().with_day(1).expect("a first"))
}

fn midnight(day: NaiveDate) -> NaiveDateTime {
    day.and_hms_opt(0, 0, 0).expect("midnight")
}

fn stamp(at: NaiveDateTime) -> String {
    format!("{}T{}Z", at.date(), at.time())
}

fn fixed(amount: Cents) -> String {
    format!("{}.{:02}", amount / 100, amount % 100)
}

/// paid × credits ÷ all credits, to the cent, half up.
fn worth(pool: &Pool, credits: Cents) -> Cents {
    let (paid, credits, all) = (i128::from(pool.paid), i128::from(credits), i128::from(pool.credits));
    Cents::try_from((2 * paid * credits + all) / (2 * all)).expect("money")
}

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

    /// A block of random terms, and the document that asks for it.
    fn any_block(&mut self, who: usize) -> (Block, Value) {
        let key = self.name("g");
        let unit = UNITS[self.rng.below(2)];
        let amount = 1 + self.rng.below(6000) as Cents;
        let mut block = self.granted(key.clone(), unit, amount);
        let from = self.days_from_now(-10, 8);
        block.from = midnight(from);
        let mut doc =
            json!({"key": key, "unit": unit, "amount": fixed(amount), "effective_on": from.to_string()});
        if self.rng.chance(70) {
            let until = from + Duration::days(1 + self.rng.below(45) as i64);
            block.until = Some(midnight(until));
            doc["expires"] = json!(until.to_string());
            if self.rng.chance(50) {
                let cap = self.rng.chance(70).then(|| self.rng.below(3000) as Cents);
                let months = 1 + self.rng.below(2) as u32;
                block.rollover = Some((cap, months));
                doc["rollover"] = json!({"for": format!("{months} months")});
                if let Some(cap) = cap {
                    doc["rollover"]["cap"] = json!(fixed(cap));
                }
            }
        }
        if self.rng.chance(40) {
            block.priority = [10, 50, 80][self.rng.below(3)];
            doc["priority"] = json!(block.priority);
        }
        if self.rng.chance(30) {
            block.scoped = true;
            doc["scope"] = json!({"products": ["ai"]});
        }
        if self.rng.chance(45) {
            let contracts = &self.customers[who].contracts;
            let contract = contracts[self.rng.below(contracts.len())].clone();
            doc["contract"] = json!(contract);
            block.contract = Some(contract);
        }
        (block, doc)
    }

    fn grant(&mut self, who: usize) {
        let (mut block, mut doc) = self.any_block(who);
        block.category = self.rng.below(2);
        doc["category"] = json!(CATEGORIES[block.category]);
        let sql = format!("SELECT billing.credit_grant_create('{}', '{doc}')", self.customers[who].key);
        self.try_run("grant", &sql, true);
        let unit = block.unit;
        self.customers[who].blocks.push(block);
        self.look(who, unit);
    }

    fn purchase(&mut self, who: usize) {
        let (mut block, mut doc) = self.any_block(who);
        block.category = 2;
        let bonus = self.rng.chance(40).then(|| 1 + self.rng.below(2000) as Cents);
        let pool = Pool {
            key: block.key.clone(),
            paid: 1 + self.rng.below(5000) as Cents,
            credits: block.granted + bonus.unwrap_or(0),
            invoiced: self.rng.chance(50),
        };
        doc["price"] = json!(fixed(pool.paid));
        doc["invoice"] = json!(pool.invoiced);
        if let Some(bonus) = bonus {
            doc["bonus"] = json!(fixed(bonus));
        }
        let sql = format!("SELECT billing.credit_purchase('{}', '{doc}')", self.customers[who].key);
        self.try_run("purchase", &sql, true);
        let customer = &mut self.customers[who];
        block.pool = Some(customer.pools.len());
        customer.pools.push(pool);
        let unit = block.unit;
        let with = bonus.map(|bonus| Block {
            key: format!("{}-bonus", block.key),
            granted: bonus,
            left: bonus,
            category: 0,
            rollover: None,
            ..block.clone()
        });
        customer.blocks.push(block);
        customer.blocks.extend(with);
        self.look(who, unit);
    }

    fn draw(&mut self, who: usize) {
        let key = self.name("d");
        let (unit, ai) = (UNITS[self.rng.below(2)], self.rng.chance(60));
        let customer = &self.customers[who];
        let contract =
            self.rng.chance(20).then(|| customer.contracts[self.rng.below(customer.contracts.len())].clone());
        let free = customer.free();
        let payers: Vec<usize> = customer
            .payers(self.now, unit, ai, contract.as_deref())
            .into_iter()
            .filter(|n| free[*n] > 0)
            .collect();
        let there: Cents = payers.iter().map(|n| free[*n]).sum();
        let amount = match self.rng.below(10) {
            0 => there + 1,
            1 if there > 0 => there,
            _ => 1 + self.rng.below(1500) as Cents,
        };
        let mut doc = json!({});
        if ai {
            doc["product"] = json!("ai");
        }
        if let Some(contract) = &contract {
            doc["contract"] = json!(contract);
        }
        let mut drawn = Vec::new();
        let mut owed = amount;
        if amount <= there {
            for n in payers {
                let part = owed.min(free[n]);
                if part > 0 {
                    drawn.push((n, part));
                    owed -= part;
                }
            }
        }
        let customer = &mut self.customers[who];
        drawn.iter().for_each(|(n, part)| customer.blocks[*n].take(*part));
        let call = format!(
            "FROM billing.draw_down('{}', {}, '{key}', '{unit}', '{doc}')",
            customer.key,
            fixed(amount)
        );
        if drawn.is_empty() {
            self.try_run("draw", &format!("SELECT result {call}"), false);
            return;
        }
        self.log.push(format!("SELECT drawn {call}"));
        self.done.entry("draw").or_default().0 += 1;
        // Which blocks gave what, in order; an amount is written in as few digits as it has.
        let expected = drawn.iter().map(|(n, part)| format!("{}={}", customer.blocks[*n].key, fixed(*part)));
        let expected = expected.collect::<Vec<_>>().join(" ");
        customer.drawn = Some((key, amount, unit, doc));
        let got = self.text(&format!(
            "SELECT result || ' ' || (SELECT string_agg(x->>'grant' || '=' || round((x->>'amount')::numeric, 2), ' ' ORDER BY n) FROM jsonb_array_elements(drawn) WITH ORDINALITY d (x, n)) {call}"
        ));
        assert_eq!(got, format!("drawn {expected}"), "{}", self.told());
        self.look(who, unit);
    }

    /// The last draw, sent again.
    fn again(&mut self, who: usize) {
        let customer = &self.customers[who];
        if let Some((key, amount, unit, doc)) = &customer.drawn {
            let sql = format!(
                "SELECT result FROM billing.draw_down('{}', {}, '{key}', '{unit}', '{doc}')",
                customer.key,
                fixed(*amount)
            );
            self.log.push(sql.clone());
            assert_eq!(self.text(&sql), "duplicate", "{}", self.told());
        }
    }

    /// Usage of a day or two ago, which no bill has seen.
    fn uses(&mut self, who: usize) {
        let customer = &self.customers[who];
        if !customer.uses {
            return;
        }
        let least =
            customer.billed_until.unwrap_or(midnight(NaiveDate::from_ymd_opt(2026, 1, 1).expect("a day")));
        let at = (self.now - Duration::hours(self.rng.below(60) as i64)).max(least);
        let amount = 1 + self.rng.below(2500) as Cents;
        let id = self.name("e");
        let sql = format!(
            "SELECT billing.ingest_event('{}', 'use', '{id}', '{}', '{{\"n\": {amount}}}')",
            self.customers[who].key,
            stamp(at)
        );
        self.try_run("use", &sql, true);
        self.customers[who].used.push(Used { at, amount, billed: false });
    }

    fn bill(&mut self) {
        self.run("CALL billing.bill_run()");
        let before = month(self.now);
        for who in 0..self.customers.len() {
            if !self.customers[who].uses {
                continue;
            }
            for (_, bill) in self.customers[who].settled(before) {
                let customer = &mut self.customers[who];
                bill.draws.iter().for_each(|(n, part)| customer.blocks[*n].take(*part));
                let drawn: Cents = bill.draws.iter().map(|(_, part)| part).sum();
                let of = customer.used.iter_mut().filter(|u| u.at < before && month(u.at) == bill.month);
                of.for_each(|used| used.billed = true);
                self.done.entry("bill").or_default().0 += 1;
                let got = self.invoice(who, bill.month).map(|(_, total, credits)| (total, credits));
                assert_eq!(got, Some((bill.amount, drawn)), "{}", self.told());
                self.customers[who].bills.push(bill);
            }
            self.customers[who].billed_until = Some(before);
        }
    }

    /// The invoice that stands for a month's usage: number, total, what credit paid.
    fn invoice(&mut self, who: usize, month: NaiveDateTime) -> Option<(String, Cents, Cents)> {
        let sql = format!(
            "SELECT DISTINCT i.number, (i.total * 100)::bigint, (i.credits_applied * 100)::bigint FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id)
             JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = '{}' AND i.state <> 'void' AND l.charge_key = 'use' AND l.service_from >= '{}' AND l.service_from < '{}'",
            self.customers[who].contracts[0],
            stamp(month),
            stamp(month + Months::new(1))
        );
        let row =
            self.client.query_opt(&sql, &[]).unwrap_or_else(|e| panic!("{}\n{}", told(&e), self.told()))?;
        Some((row.get(0), row.get(1), row.get(2)))
    }

    /// A bill is void: for good, or the newest to be issued anew at once.
    fn void_invoice(&mut self, who: usize) {
        let bills = self.customers[who].bills.len();
        if bills == 0 {
            return;
        }
        let newest = self.rng.chance(60);
        let at = if newest { bills - 1 } else { self.rng.below(bills) };
        let bill = self.customers[who].bills.remove(at);
        let Some((number, ..)) = self.invoice(who, bill.month) else { panic!("no invoice: {}", self.told()) };
        let reissue = newest
            && self.customers[who].used.iter().all(|u| !u.billed || month(u.at) <= bill.month)
            && self.rng.chance(60);
        self.try_run(
            "invoice void",
            &format!("SELECT billing.invoice_void('{number}', 'wrong', {reissue})"),
            true,
        );
        let customer = &mut self.customers[who];
        customer.give_back(&bill);
        if reissue {
            customer
                .used
                .iter_mut()
                .filter(|u| month(u.at) == bill.month)
                .for_each(|used| used.billed = false);
            self.check();
            self.bill();
        }
    }

    fn void_block(&mut self, who: usize, at: usize) {
        let customer = &self.customers[who];
        let block = &customer.blocks[at];
        let sold = block.pool.is_some_and(|pool| customer.pools[pool].invoiced);
        let allowed = !block.void && !sold && !block.ended && customer.free()[at] == block.granted;
        let sql = format!("SELECT billing.credit_void({}, 'a mistake')", self.id(who, at));
        self.try_run("void", &sql, allowed);
        if allowed {
            self.gone(who, at);
        }
    }

    fn gone(&mut self, who: usize, at: usize) {
        let block = &mut self.customers[who].blocks[at];
        (block.voided, block.left, block.void) = (block.left, 0, true);
    }

    fn void_sale(&mut self, who: usize) {
        let pools = self.customers[who].pools.len();
        if pools == 0 {
            return;
        }
        // Mostly one of the last, which nobody has used.
        let at = pools - 1 - self.rng.below(pools.min(3));
        let customer = &self.customers[who];
        if !customer.pools[at].invoiced {
            return;
        }
        let free = customer.free();
        let of: Vec<usize> = (0..customer.blocks.len())
            .filter(|n| customer.blocks[*n].pool == Some(at) && !customer.blocks[*n].void)
            .collect();
        let allowed =
            of.iter().all(|n| free[*n] == customer.blocks[*n].granted && !customer.blocks[*n].ended);
        let key = customer.pools[at].key.clone();
        let number = self.text(&format!(
            "SELECT i.number FROM billing.invoice i JOIN billing.credit_pool p USING (customer_id, pool_id) WHERE p.key = '{key}' AND i.kind = 'credit_sale'"
        ));
        self.try_run("sale void", &format!("SELECT billing.invoice_void('{number}', 'a mistake')"), allowed);
        if allowed {
            of.into_iter().for_each(|n| self.gone(who, n));
            self.customers[who].pools[at].invoiced = false;
        }
    }

    fn refund(&mut self, who: usize, at: usize) {
        let customer = &self.customers[who];
        let (block, free) = (&customer.blocks[at], customer.free()[at]);
        let credits = match self.rng.below(5) {
            0 => free + 1,
            1 => free,
            _ => 1 + self.rng.below(free.max(1) as usize) as Cents,
        };
        let credits = credits.max(1);
        let call = format!("billing.credit_refund({}, {}, 'they leave')", self.id(who, at), fixed(credits));
        let Some(pool) = block.pool.filter(|_| !block.void && !block.ended && credits <= free) else {
            return self.try_run("refund", &format!("SELECT {call}"), false);
        };
        let released = customer.released(pool);
        let pool = &customer.pools[pool];
        let money = worth(pool, released + credits) - worth(pool, released);
        self.done.entry("refund").or_default().0 += 1;
        let sql = format!("SELECT (billing.amount({call}) * 100)::bigint");
        self.log.push(sql.clone());
        assert_eq!(self.number(&sql), Some(money), "{}", self.told());
        let block = &mut self.customers[who].blocks[at];
        block.left -= credits;
        block.refunded += credits;
    }

    fn extend(&mut self, who: usize, at: usize) {
        let until = midnight(self.days_from_now(-20, 40));
        let (now, id) = (self.now, self.id(who, at));
        let block = &mut self.customers[who].blocks[at];
        let allowed = !block.void && block.until.is_some_and(|end| end < until);
        if allowed {
            block.until = Some(until);
            block.ended &= until <= now;
        }
        let sql = format!("SELECT billing.credit_extend({id}, '{}', 'they asked')", stamp(until));
        self.try_run("extend", &sql, allowed);
    }

    fn expire(&mut self) {
        self.run("CALL billing.credit_expiry()");
        for who in 0..self.customers.len() {
            let mut new = self.adopt(who).into_iter();
            while let Some(at) = (0..self.customers[who].blocks.len())
                .find(|n| self.customers[who].ends(&self.customers[who].blocks[*n], self.now))
            {
                let customer = &mut self.customers[who];
                let block = &mut customer.blocks[at];
                let moves = block.rollover.map_or(0, |(cap, _)| block.left.min(cap.unwrap_or(block.left)));
                self.done.entry("expire").or_default().0 += 1;
                (block.rolled_out, block.expired) =
                    (block.rolled_out + moves, block.expired + block.left - moves);
                (block.left, block.ended) = (0, true);
                if let (Some((_, months)), Some(end)) = (block.rollover.filter(|_| moves > 0), block.until) {
                    self.done.entry("roll over").or_default().0 += 1;
                    let rolled = Block {
                        // Adopted below: ids follow the order in which blocks end.
                        key: String::new(),
                        granted: moves,
                        moved_in: moves,
                        left: moves,
                        burnt: 0,
                        expired: 0,
                        voided: 0,
                        refunded: 0,
                        rolled_out: 0,
                        from: end,
                        until: Some(end + Months::new(months)),
                        rollover: None,
                        ended: false,
                        ..block.clone()
                    };
                    let key = new
                        .next()
                        .unwrap_or_else(|| panic!("{} did not roll over: {}", block.key, stamp(self.now)));
                    assert!(key.starts_with(&format!("{}/rolled", block.key)), "{key} of {}", block.key);
                    customer.blocks.push(Block { key, ..rolled });
                }
            }
            assert_eq!(new.next(), None, "{}", self.told());
        }
    }

    /// Another contract, which takes over what is unused of an earlier one.
    fn carry(&mut self, who: usize) {
        let key = self.name(&format!("{}-k", self.customers[who].key));
        let unit = UNITS[self.rng.below(2)];
        let customer = &self.customers[who];
        let from = customer.contracts[self.rng.below(customer.contracts.len())].clone();
        let own = self.rng.chance(50).then(|| 1 + self.rng.below(2000) as Cents);
        let today = self.now.date();
        let mut credit = json!({"key": "c", "category": "pilot", "unit": unit, "carry_from": {"contract": from}, "expires": "never"});
        if let Some(own) = own {
            credit["amount"] = json!(fixed(own));
        }
        let until = self.rng.chance(60).then(|| today + Duration::days(5 + self.rng.below(60) as i64));
        if let Some(until) = until {
            credit["expires"] = json!(until.to_string());
        }
        let customer = &self.customers[who];
        let doc = json!({"key": key, "customer": customer.key, "starts_on": today.to_string(), "credits": [credit],
            "fees": [{"key": "nothing", "product": "ai", "once": true, "pricing": {"model": "flat", "amount": "0"}}]});
        let free = customer.free();
        let moved: Vec<(usize, Cents)> = (0..customer.blocks.len())
            .filter(|n| {
                let b = &customer.blocks[*n];
                b.contract.as_ref() == Some(&from) && b.unit == unit && !b.ended && !b.void && free[*n] > 0
            })
            .map(|n| (n, free[n]))
            .collect();
        self.run(&format!("SELECT billing.contract_create('{doc}'), billing.contract_activate('{key}')"));
        let carried: Cents = moved.iter().map(|(_, amount)| amount).sum();
        self.done.entry(if carried > 0 { "carry" } else { "grant" }).or_default().0 += 1;
        for (n, amount) in moved {
            let block = &mut self.customers[who].blocks[n];
            block.left -= amount;
            block.rolled_out += amount;
        }
        let amount = carried + own.unwrap_or(0);
        if amount > 0 {
            let mut block = self.granted(format!("{key}/c"), unit, amount);
            (block.moved_in, block.category, block.from) = (carried, 1, midnight(today));
            (block.until, block.contract) = (until.map(midnight), Some(key.clone()));
            self.customers[who].blocks.push(block);
        }
        self.customers[who].contracts.push(key);
    }

    fn set_rule(&mut self, who: usize) {
        let rule = Rule {
            threshold: 1 + self.rng.below(2000) as Cents,
            amount: 1 + self.rng.below(3000) as Cents,
            price: 1 + self.rng.below(99) as Cents,
            lasts: self.rng.chance(50).then_some(1),
            below: false,
        };
        let mut doc = json!({"unit": CREDITS, "threshold": fixed(rule.threshold), "amount": fixed(rule.amount), "price": fixed(rule.price), "invoice": false});
        if rule.lasts.is_some() {
            doc["lasts"] = json!("1 month");
        }
        let sql = format!("SELECT billing.top_up_rule_set('{}', '{doc}')", self.customers[who].key);
        self.run(&sql);
        self.customers[who].rule = Some(rule);
        self.look(who, CREDITS);
    }

    fn top_up(&mut self) {
        self.run("CALL billing.top_up()");
        (0..self.customers.len()).for_each(|who| self.look(who, CREDITS));
    }

    /// The rule sees what is available: once each time it falls below the threshold a pack is bought.
    fn look(&mut self, who: usize, unit: &str) {
        let available = self.customers[who].available(CREDITS, self.now);
        let customer = &mut self.customers[who];
        let Some(rule) = customer.rule.as_mut().filter(|_| unit == CREDITS) else { return };
        if available >= rule.threshold || rule.below {
            rule.below = available < rule.threshold;
            return;
        }
        rule.below = available + rule.amount < rule.threshold;
        let (amount, price, lasts) = (rule.amount, rule.price, rule.lasts);
        self.done.entry("top-up").or_default().0 += 1;
        let key = self.adopt(who).pop().unwrap_or_else(|| panic!("no top-up: {}", self.told()));
        assert!(key.starts_with("top-up/"), "{key}: {}", self.told());
        let mut block = self.granted(key.clone(), CREDITS, amount);
        let customer = &mut self.customers[who];
        block.category = 2;
        block.until = lasts.map(|months| self.now + Months::new(months));
        block.pool = Some(customer.pools.len());
        let paid = (amount * price + 50) / 100;
        customer.pools.push(Pool { key, paid, credits: amount, invoiced: false });
        customer.blocks.push(block);
    }

    fn wait(&mut self) {
        self.now += Duration::hours(1 + self.rng.below(12 * 24) as i64);
        self.run(&format!("SELECT billing.test_clock_set('{}')", stamp(self.now)));
    }

    fn step(&mut self) {
        let who = self.rng.below(self.customers.len());
        match self.rng.below(100) {
            0..10 => self.grant(who),
            10..18 => self.purchase(who),
            18..36 => self.draw(who),
            36..38 => self.again(who),
            38..56 => self.uses(who),
            56..62 => self.bill(),
            62..68 => self.expire(),
            68..72 => self.void_invoice(who),
            72..74 => self.void_sale(who),
            74..77 => self.carry(who),
            77..79 => self.set_rule(who),
            79..81 => self.top_up(),
            81..90 => self.wait(),
            90..93 => self.at_one(who, Self::void_block, |customer, n| {
                customer.free()[n] == customer.blocks[n].granted
            }),
            93..97 => self.at_one(who, Self::refund, |customer, n| {
                customer.blocks[n].pool.is_some() && customer.free()[n] > 0
            }),
            _ => self.at_one(who, Self::extend, |customer, n| customer.blocks[n].until.is_some()),
        }
    }

    /// A step with one block: mostly one that is likely to do, also any.
    fn at_one(
        &mut self,
        who: usize,
        step: fn(&mut World, usize, usize),
        likely: fn(&Customer, usize) -> bool,
    ) {
        let any = self.rng.chance(30);
        let customer = &self.customers[who];
        let of: Vec<usize> = (0..customer.blocks.len()).filter(|n| any || likely(customer, *n)).collect();
        if !of.is_empty() {
            let at = of[self.rng.below(of.len())];
            step(self, who, at);
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

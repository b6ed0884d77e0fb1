//! What may happen to credit: each step asks the engine for it and the model what must come of it.

use crate::World;
use crate::load::told;
use crate::model::{
    Block, CATEGORIES, CREDITS, Cents, Customer, Pool, Rule, UNITS, Used, fixed, midnight, month, stamp,
    worth,
};
use chrono::{Duration, Months, NaiveDate, NaiveDateTime};
use serde_json::{Value, json};

impl World {
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
                // What has begun by the morning on which this one begins, and has not ended before.
                let pays = b.from <= midnight(today) && b.until.is_none_or(|until| until >= midnight(today));
                b.contract.as_ref() == Some(&from)
                    && b.unit == unit
                    && !b.ended
                    && !b.void
                    && pays
                    && free[*n] > 0
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

    pub(crate) fn step(&mut self) {
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
}

//! Credit in the currency of a contract: granted and sold, drawn by bills and between them, expired; and compared.

use crate::deals::{self, Block, Contract, Q, dec, q};
use crate::world::{CURRENCIES, Deal, MODELS, Sim, at, fixed_about, money, quote};
use chrono::Days;
use num_traits::{Signed, Zero};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// An amount about so many of the currency's larger unit, which it can pay.
fn payable(sim: &mut Sim, p: usize, n: i64) -> String {
    let party = &mut sim.parties[p];
    let (_, digits, scale) = CURRENCIES[party.currency];
    money((n * scale + party.rng.below(9999) as i64) * 10_i64.pow(digits) / 100, digits)
}

impl Sim {
    /// A block given to a customer by itself, or sold to it.
    pub(crate) fn grant(&mut self, p: usize) {
        let sold = self.parties[p].rng.chance(40);
        let amount = payable(self, p, 20);
        let (price, bonus) = (payable(self, p, 15), payable(self, p, 3));
        let party = &mut self.parties[p];
        let rng = &mut party.rng;
        let zone = &self.world.zones[&party.zone];
        let today = zone.day(self.clock);
        let name = format!("{}-g{}", party.key, party.blocks.len());
        let priority = 10 + rng.below(80) as i64;
        let mut doc = json!({"key": name, "amount": amount, "priority": priority, "reason": "kindness"});
        let mut from = self.clock;
        if rng.chance(50) && !sold {
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
        let block = Block {
            name: name.clone(),
            from,
            until: until.map(|d| zone.midnight(d)),
            amount: dec(&amount),
            priority,
            category: 0,
            scope,
            burnt: q(0),
            expired: None,
            lines: BTreeSet::new(),
        };
        let verb = if sold {
            doc["price"] = json!(price);
            let with = rng.chance(50);
            party.blocks.push(Block { category: 2, ..block.clone() });
            if with {
                doc["bonus"] = json!(bonus);
                let name = format!("{name}-bonus");
                party.blocks.push(Block { name, amount: dec(&bonus), ..block });
            }
            let sale = (name, price, CURRENCIES[party.currency].0.to_owned(), today);
            self.sales.push((party.key.clone(), sale));
            "credit_purchase"
        } else {
            party.blocks.push(block);
            "credit_grant_create"
        };
        let sql = format!("SELECT billing.{verb}('{}', {})", self.parties[p].key, quote(&doc.to_string()));
        self.must(&sql);
    }

    /// What usage up to now will draw that is not billed yet.
    fn with_pending(&self, p: usize, contract: &Contract) -> Vec<Block> {
        let mut blocks = self.parties[p].blocks.clone();
        let zone = &self.world.zones[&contract.zone];
        let last = contract.end().unwrap_or(deals::Day::MAX).min(zone.day(self.clock) + Days::new(1));
        // What is voided waits to be billed again.
        let stands = contract.billed.len() - usize::from(self.voided.contains_key(&contract.key));
        let mut day = contract.billed[..stands].last().map_or(contract.starts, |(day, _)| *day);
        let mut n = stands.max(1);
        while day < last {
            let next = contract.grid.period(day, contract.interval).1.min(last);
            deals::draw(&mut blocks, &self.world.costs(contract, (day, next)), n);
            day = next;
            n += 1;
        }
        blocks
    }

    /// What a currency's smallest unit is, and how much the blocks may be off by what their lines are rounded by.
    fn slack(&self, p: usize, contract: &Contract, blocks: &[Block]) -> (Q, Q) {
        let unit = q(1) / q(10_i64.pow(self.world.minor_units[&contract.currency]));
        let lines: BTreeSet<&String> = blocks.iter().flat_map(|b| &b.lines).collect();
        let slack = if self.parties[p].exact { q(0) } else { q(lines.len() as i64) * &unit };
        (unit, slack)
    }

    /// An application draws credit between two bills; then what is left is compared.
    pub(crate) fn draw_and_balance(&mut self, p: usize) {
        let party = &self.parties[p];
        let (customer, key) = (party.key.clone(), party.contracts[0].clone());
        // What late usage will draw is settled with what is billed.
        if party.deal != Some(Deal::Credits) || !party.in_time || self.broken.contains(&key) {
            return;
        }
        let contract = self.world.contracts[&key].clone();
        let zone = &self.world.zones[&contract.zone];
        let lives = zone.midnight(contract.starts) <= self.clock
            && contract.end().is_none_or(|end| self.clock < zone.midnight(end));
        if lives && self.parties[p].rng.chance(40) {
            self.draw_between(p, &customer, &contract);
        }
        if self.broken.contains(&key) {
            return;
        }
        // What is left.
        let now = self.clock;
        let blocks = self.with_pending(p, &contract);
        let (unit, slack) = self.slack(p, &contract, &blocks);
        let mut want = [q(0), q(0), q(0)]; // posted, pending, pending expiration
        for (settled, block) in self.parties[p].blocks.iter().zip(&blocks) {
            let posted = &settled.amount - &settled.burnt - settled.expired.clone().unwrap_or_else(|| q(0));
            want[1] += &block.burnt - &settled.burnt;
            if settled.from <= now {
                want[0] += &posted;
                if block.until.is_some_and(|u| u <= now) && block.expired.is_none() {
                    want[2] += &block.amount - &block.burnt;
                }
            }
        }
        let rows = self.must(&format!(
            "SELECT posted, pending, pending_expiration, available FROM billing.credit_balance('{customer}', '{}')",
            contract.currency
        ));
        let told: Vec<Q> =
            (0..4).map(|n| rows.first().and_then(|r| r[n].as_deref()).map_or_else(|| q(0), dec)).collect();
        let off = |a: &Q, b: &Q| (a - b).abs() > slack;
        self.compared += 3;
        if told[0] != want[0]
            || off(&told[1], &want[1])
            || off(&told[2], &want[2])
            || told[3] != &told[0] - &told[1] - &told[2]
        {
            self.broken.insert(key.clone());
            let [told, want] = [&told[..], &want[..]].map(|n| n.iter().map(fixed_about).collect::<Vec<_>>());
            self.faults.push(format!(
                "{customer} at {}: balance (posted, pending, pending expiration) {told:?}, want {want:?} within {} of {}; {blocks:#?}",
                at(now), fixed_about(&slack), fixed_about(&unit)
            ));
        }
    }

    /// What the last boundary drew goes back to its own blocks; to what has ended, to end again.
    pub(crate) fn give_back(&mut self, p: usize) {
        let party = &mut self.parties[p];
        let n = self.world.contracts[&party.contracts[0]].billed.len() - 1;
        if party.settled <= n {
            return; // it was not settled yet
        }
        party.settled = n;
        let back = std::mem::take(&mut party.last_drawn);
        let (customer, mut of) = (party.key.clone(), party.blocks.clone());
        let rows = self.must(&format!(
            "SELECT key, burnt, extract(epoch FROM effective_at)::bigint, expired FROM billing.credit_blocks('{customer}')"
        ));
        for (block, back) in of.iter_mut().zip(&back) {
            let row = rows.iter().find(|r| {
                block.is_called(r[0].as_deref().expect("a key"))
                    && r[2].as_deref() == Some(block.from.to_string().as_str())
            });
            let row = row.expect("a block");
            let (burnt, expired) =
                (dec(row[1].as_deref().expect("a number")), dec(row[3].as_deref().expect("a number")));
            let got = &block.burnt - &burnt;
            let slack = if self.parties[p].exact {
                q(0)
            } else {
                q(24) / q(10_i64.pow(self.world.minor_units[CURRENCIES[self.parties[p].currency].0]))
            };
            let ends = block.expired.as_ref().map_or_else(|| q(0), |e| e + &got);
            if (&got - back).abs() > slack || ends != expired {
                self.faults.push(format!(
                    "{customer} at {}: a void gave {} back to {}, want {}; expired {expired}, want {ends}",
                    at(self.clock),
                    fixed_about(&got),
                    block.name,
                    fixed_about(back)
                ));
            }
            self.compared += 1;
            block.expired = block.expired.as_ref().map(|_| expired);
            block.burnt = burnt;
            self.parties[p].by_bills -= got;
        }
        self.parties[p].blocks = of;
    }

    fn draw_between(&mut self, p: usize, customer: &str, contract: &Contract) {
        let now = self.clock;
        let about = [5, 20, 400][self.parties[p].rng.below(3)];
        let amount = payable(self, p, about);
        let blocks = self.with_pending(p, contract);
        let (_, slack) = self.slack(p, contract, &blocks);
        let rng = &mut self.parties[p].rng;
        let mut doc = json!({"contract": contract.key});
        let mut event = deals::Event::drawn(now);
        let mut meter = "";
        if rng.chance(50) {
            meter = "tokens";
            let model = MODELS[rng.below(3)];
            doc["meter"] = json!(meter);
            doc["dimensions"] = json!({"model": model});
            event.properties.insert("model".to_owned(), model.to_owned());
        }
        let mut after = blocks.clone();
        let cost = deals::Cost { event: &event, meter: meter.to_owned(), cost: dec(&amount) };
        deals::draw(&mut after, &[cost], 0);
        let parts: Vec<Q> = after.iter().zip(&blocks).map(|(a, b)| &a.burnt - &b.burnt).collect();
        let all: Q = parts.iter().sum();
        let name = format!("d{now}"); // one a step
        let sql = format!(
            "SELECT drawn FROM billing.draw_down('{customer}', {amount}, '{name}', '{}', {})",
            contract.currency,
            quote(&doc.to_string())
        );
        self.compared += 1;
        let answer = self.run(&sql);
        let wrong = match answer {
            Ok(rows) => {
                let told: Value = serde_json::from_str(rows[0][0].as_deref().expect("blocks")).expect("JSON");
                let mut got: Vec<Q> = blocks.iter().map(|_| q(0)).collect();
                let mut sum = q(0);
                for one in told.as_array().expect("a list") {
                    let (name, amount) = (
                        one["grant"].as_str().expect("a key"),
                        dec(one["amount"].as_str().expect("an amount")),
                    );
                    // Of blocks of one name (a pool's of each year) the one that holds now.
                    let of = blocks
                        .iter()
                        .position(|b| b.is_called(name) && b.from <= now && b.until.is_none_or(|u| now < u));
                    let Some(of) = of else {
                        self.faults.push(format!("{sql}: no block {name}"));
                        return;
                    };
                    got[of] += &amount;
                    sum += amount;
                }
                let off = got.iter().zip(&parts).any(|(a, b)| (a - b).abs() > slack);
                for (block, got) in self.parties[p].blocks.iter_mut().zip(&got) {
                    block.burnt += got;
                }
                (sum != dec(&amount) || off).then(|| format!("{told}"))
            }
            Err(refusal) if refusal.code == "ZB014" => {
                (all >= dec(&amount) + slack.clone()).then(|| refusal.message.clone())
            }
            Err(refusal) => Some(format!("{refusal:?}")),
        };
        if let Some(wrong) = wrong {
            self.broken.insert(contract.key.clone());
            let want: Vec<String> = after
                .iter()
                .zip(&parts)
                .filter(|(_, part)| !part.is_zero())
                .map(|(b, part)| format!("{} {}", b.name, fixed_about(part)))
                .collect();
            self.faults.push(format!("{sql} at {}: {wrong}, want {want:?}", at(now)));
        }
    }

    /// The ends of blocks are posted that are past them, where all they could pay for is billed.
    pub(crate) fn expire_blocks(&mut self) {
        let now = self.clock - self.credit_grace;
        for p in 0..self.parties.len() {
            let party = &self.parties[p];
            if party.deal != Some(Deal::Credits) || !party.in_time {
                continue;
            }
            let contract = &self.world.contracts[&party.contracts[0]];
            let zone = &self.world.zones[&contract.zone];
            let billed = match contract.next_boundary() {
                _ if self.voided.contains_key(&contract.key) => {
                    let before = contract.billed.len().checked_sub(2);
                    before.map_or(i64::MIN, |n| zone.midnight(contract.billed[n].0))
                }
                None => i64::MAX,
                Some(_) => contract.billed.last().map_or(i64::MIN, |(day, _)| zone.midnight(*day)),
            };
            for block in &mut self.parties[p].blocks {
                if block.expired.is_none() && block.until.is_some_and(|u| u <= now && u <= billed) {
                    block.expired = Some(&block.amount - &block.burnt);
                }
            }
        }
    }

    /// Draws what was billed since the last time, by the oracle, and compares each block.
    pub(crate) fn settle(&mut self) {
        for p in 0..self.parties.len() {
            let party = &self.parties[p];
            let key = party.contracts[0].clone();
            if party.deal != Some(Deal::Credits) || self.broken.contains(&key) {
                continue;
            }
            let contract = self.world.contracts[&key].clone();
            let mut blocks = party.blocks.clone();
            let before: Q = blocks.iter().map(|b| b.burnt.clone()).sum();
            let mut first = party.settled.max(1);
            if !party.in_time {
                // Late usage is settled with all that came after it: as if all had been there from the beginning.
                if self.waits.contains(&key) || !self.just_billed.contains(&key) {
                    continue;
                }
                first = 1;
                for block in &mut blocks {
                    block.burnt = q(0);
                }
            }
            let mut last_drawn: Vec<Q> = self.parties[p].last_drawn.clone();
            for n in first..contract.billed.len() {
                last_drawn = blocks.iter().map(|b| -b.burnt.clone()).collect();
                let costs = self.world.costs(&contract, (contract.billed[n - 1].0, contract.billed[n].0));
                deals::draw(&mut blocks, &costs, n);
                for (drawn, block) in last_drawn.iter_mut().zip(&blocks) {
                    *drawn += &block.burnt;
                }
            }
            let customer = party.key.clone();
            let rows = self.must(&format!(
                "SELECT key, burnt, extract(epoch FROM effective_at)::bigint, granted, expired FROM billing.credit_blocks('{customer}')"
            ));
            // What was drawn may differ from the exact cost by what its lines are rounded by.
            let (unit, _) = self.slack(p, &contract, &blocks);
            let mut drawn = -before;
            for block in &mut blocks {
                let row = rows.iter().find(|r| {
                    block.is_called(r[0].as_deref().expect("a key"))
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
                let number = |n: usize| dec(row[n].as_deref().expect("a number"));
                let (burnt, granted, expired) = (number(1), number(3), number(4));
                let slack = if self.parties[p].exact { q(0) } else { q(block.lines.len() as i64) * &unit };
                let full = block.burnt == block.amount;
                let off = &burnt - &block.burnt;
                drawn += &burnt;
                self.compared += 1;
                if burnt > block.amount
                    || off.abs() > slack
                    || granted != block.amount
                    || expired != block.expired.clone().unwrap_or_else(|| q(0))
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
            // Every credit drawn by bills is on an invoice, and is not more than its usage.
            let totals = self.must(&format!(
                "SELECT coalesce(-sum((document->'totals'->>'credits')::numeric), 0), coalesce(sum((document->'totals'->>'due')::numeric - (document->'totals'->>'total')::numeric), 0)
                 FROM billing.invoice WHERE key LIKE '{key}/%' AND state NOT IN ('void', 'draft')"
            ));
            let party = &mut self.parties[p];
            party.by_bills += drawn;
            if let [Some(credits), Some(due)] = totals[0].as_slice()
                && (dec(credits) != party.by_bills || -dec(due) != party.by_bills)
            {
                self.faults.push(format!(
                    "{customer}: blocks gave {}, invoices have {credits}, due less by {due}",
                    party.by_bills
                ));
            }
            party.settled = contract.billed.len();
            party.last_drawn = last_drawn;
            party.blocks = blocks;
        }
    }

    /// Each sale of credit stands on one document, with what it cost.
    pub(crate) fn compare_sales(&mut self) {
        for (customer, (name, price, currency, day)) in self.sales.clone() {
            let rows = self.must(&format!(
                "SELECT i.total, i.document->>'currency', i.document->>'issued_on', jsonb_array_length(i.document->'lines'), i.document->'totals'->>'due', i.document->'totals'->>'lines'
                 FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE i.kind = 'credit_sale' AND c.key = '{customer}' AND i.document->'lines'->0->>'key' = '{name}'"
            ));
            self.compared += 1;
            let told = rows.first().map(|r| {
                [0, 4, 5].iter().all(|n| r[*n].as_deref().map(dec) == Some(dec(&price)))
                    && r[1].as_deref() == Some(currency.as_str())
                    && r[2].as_deref() == Some(day.to_string().as_str())
            });
            if rows.len() != 1 || told != Some(true) {
                self.faults
                    .push(format!("sale {name} of {customer}: {rows:?}, want {price} {currency} on {day}"));
            }
        }
        self.sales.clear();
    }
}

//! Blocks of credit: given, and compared.

use crate::deals::{self, Block, dec, q};
use crate::world::{CURRENCIES, Deal, MODELS, Sim, at, fixed_about, money, quote};
use chrono::Days;
use serde_json::json;
use std::collections::BTreeSet;

impl Sim {
    /// A block given to a customer by itself.
    pub(crate) fn grant(&mut self, p: usize) {
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
    pub(crate) fn settle(&mut self) {
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
}

//! Customers, and what they sign.

use crate::catalogue::{some, tiers};
use crate::deals::{
    self, Block, Change, Contract, Customer, Day, Grid, Instant, Kind, Policies, Proration, Rounding, dec, q,
};
use crate::load::Rng;
use crate::world::{CURRENCIES, DAY, Deal, MODELS, Party, Sim, ZONES, money, number, quote};
use chrono::{Datelike, Days};
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl Sim {
    pub(crate) fn customer(&mut self, n: usize, mut rng: Rng) {
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
            exact: false,
            last_drawn: Vec::new(),
            in_time: false,
            settled: 0,
            by_bills: q(0),
        });
        let last = self.parties.len() - 1;
        let shapes = number("SIM_SHAPES", 40);
        let party = &mut self.parties[last];
        if self.amends && party.rng.chance(shapes) {
            party.deal = Some(Deal::Shapes);
            self.shaped(last);
        } else if self.credits && party.rng.chance(number("SIM_DEALS", 45)) {
            party.deal = Some(if party.rng.chance(number("SIM_CREDITS", 60)) {
                Deal::Credits
            } else if party.rng.chance(50) {
                Deal::Promise
            } else {
                Deal::Postpaid
            });
            self.deal(last);
        } else {
            self.contract(last, None);
        }
    }

    /// A new contract of a customer, from a day or about now.
    pub(crate) fn contract(&mut self, p: usize, from: Option<Day>) {
        let now = self.clock;
        let said = self.say();
        let currency = CURRENCIES[self.parties[p].currency].0;
        let base = format!("plan-{}-{}", currency.to_lowercase(), self.parties[p].rng.below(4));
        let plan_key = self.newest(&base);
        let party = &mut self.parties[p];
        let rng = &mut party.rng;
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
        let prorated = matches!(proration, Proration::Day | Proration::Second);
        let policies = Policies {
            at_once: rng.chance(30),
            keeps: prorated && rng.chance(20),
            by_month: proration == Proration::Day && rng.chance(20),
        };
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
            policies: policies.clone(),
            changes: vec![create],
            billed: Vec::new(),
            looked: Vec::new(),
        };
        party.contracts.push(key.clone());
        // Of a plan's versions the newest, named or not.
        doc["plan"] = json!(base);
        self.must(&format!("SELECT billing.contract_create({})", quote(&doc.to_string())));
        let chosen = policies;
        let mut policies = Vec::new();
        for (is, name, value) in [
            (chosen.at_once, "downgrade_timing", "immediate"),
            (chosen.keeps, "credit_on_decrease", "none"),
            (chosen.by_month, "co_term", "month"),
        ] {
            if is {
                policies.push((name, value.to_owned()));
            }
        }
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

    /// A deal of commitments and credits.
    pub(crate) fn deal(&mut self, p: usize) {
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
            expired: None,
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
            party.exact = rng.chance(60);
            let either = rng.chance(50);
            party.in_time = !party.exact || either || self.credit_grace == 0;
            if party.exact {
                let unit = q(1) / q(10_i64.pow(digits));
                let mut price = || {
                    let unit_price = deals::decimal(&(q([1, 2, 5][rng.below(3)]) * &unit));
                    json!({"model": "per_unit", "unit_price": unit_price})
                };
                charges[0]["pricing"] = price();
                charges[1]["pricing"] = price();
                let small = price()["unit_price"].clone();
                doc["overrides"] =
                    json!([{"meter": "tokens", "match": {"model": "small"}, "unit_price": small}]);
            }
        } else if party.deal == Some(Deal::Promise) {
            let unit = q(1) / q(10_i64.pow(digits));
            let price =
                |n: i64| json!({"model": "per_unit", "unit_price": deals::decimal(&(q(1000 * n) * &unit))});
            let kinds = [1, 2, 5, 10];
            let (token, over) = (kinds[rng.below(4)], kinds[rng.below(4)]);
            charges[0]["pricing"] = price(token);
            charges[1]["pricing"] = price(kinds[rng.below(4)]);
            // Whatever was agreed for all contracts of the customer.
            let small = price(kinds[rng.below(4)])["unit_price"].clone();
            doc["overrides"] = json!([{"meter": "tokens", "match": {"model": "small"}, "unit_price": small}]);
            let period = [interval, 3 * interval, 12][rng.below(3)];
            let units = (1 + rng.below(24)) as i64 * i64::from(period) * 2000;
            let mut one = json!({"key": "least", "every": every(period)});
            match rng.below(3) {
                0 => {
                    one["kind"] = json!("postpaid");
                    one["amount"] = json!(deals::decimal(&(q(units * 1000 * token) * &unit)));
                }
                1 => {
                    one["kind"] = json!("postpaid");
                    one["quantity"] = json!(units.to_string());
                    one["meter"] = json!("tokens");
                    one["shortfall_price"] =
                        json!({"model": "per_unit", "unit_price": some(rng, 9, c), "per": 100});
                }
                _ => {
                    one["kind"] = json!("prepaid");
                    one["quantity"] = json!(units.to_string());
                    one["meter"] = json!("tokens");
                    one["amount"] = json!(whole(rng, 90));
                    party.in_time = true;
                }
            }
            if one["quantity"].is_null() || rng.chance(60) {
                one["overage"] = json!([{"meter": "tokens", "unit_price": price(over)["unit_price"]}]);
            }
            doc["commitments"] = json!([one]);
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
            policies: Policies::default(),
            changes: vec![Change { effective: begin, kind: Kind::Create, doc: doc.clone(), said }],
            billed: Vec::new(),
            looked: Vec::new(),
        };
        party.contracts.push(key.clone());
        party.blocks = blocks;
        self.must(&format!("SELECT billing.contract_create({})", quote(&doc.to_string())));
        self.must(&format!("SELECT billing.contract_activate('{key}')"));
        self.world.contracts.insert(key, contract);
    }
}

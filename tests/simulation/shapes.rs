//! Deals of every shape: ramps, step-ups, phases, trials, add-ons, fees for a year or once, amounts off, fiscal years and
//! months' ends.

use crate::catalogue::{some, tiers};
use crate::deals::{self, Change, Contract, Day, Grid, Kind, Policies, Proration, Rounding};
use crate::load::Rng;
use crate::world::CURRENCIES;
use crate::world::{DAY, MODELS, Sim, money, quote};
use chrono::{Datelike, Days};
use serde_json::{Value, json};

pub(crate) fn every(n: u32) -> Value {
    json!(format!("{n} month{}", if n == 1 { "" } else { "s" }))
}

fn flat(amount: String) -> Value {
    json!({"model": "flat", "amount": amount})
}

/// Steps of a ramp, in order of their days: of a price, and of a quantity if there is one. Whole multiples of `unit` months.
pub(crate) fn ramp(rng: &mut Rng, c: usize, n: i64, begin: Day, seats: bool, unit: u32) -> Value {
    let mut steps = Vec::new();
    let mut at = 0;
    for _ in 0..=rng.below(3) {
        at += unit * (1 + rng.below(if unit > 3 { 2 } else { 5 }) as u32);
        let mut step = if rng.chance(60) {
            json!({"after": every(at)})
        } else {
            let day = deals::months_after(begin, at);
            // Not only where periods begin.
            let day = if unit == 1 && rng.chance(50) { day + Days::new(rng.below(20) as u64) } else { day };
            json!({"from": day.to_string()})
        };
        let what = rng.below(3);
        if seats && what != 1 {
            step["quantity"] = json!((1 + rng.below(20)).to_string());
        }
        if what == 1 || (!seats && what == 0) {
            step["percent"] = json!(money(1 + rng.below(300) as i64, 1));
        } else if !seats {
            step["pricing"] = flat(some(rng, n, c));
        }
        steps.push(step);
    }
    json!(steps)
}

/// An add-on, with a fee or two and perhaps usage of its own.
pub(crate) fn add_on(rng: &mut Rng, c: usize, name: &str, interval: u32, from: Option<Day>) -> Value {
    let timing = if rng.chance(60) { "advance" } else { "arrears" };
    let mut doc = json!({"key": name, "fees": [
        {"key": "fee", "product": "extra", "pricing": flat(some(rng, 3000, c)), "every": every(interval), "timing": timing}]});
    if rng.chance(40) {
        doc["fees"].as_array_mut().expect("fees").push(json!(
            {"key": "seat", "product": "extra", "pricing": {"model": "per_unit", "unit_price": some(rng, 700, c)}, "quantity": (1 + rng.below(7)).to_string(), "every": every(interval)}));
    }
    if name == "mail" {
        doc["charges"] = json!([{"key": "sent", "product": "extra", "meter": "mails", "every": every(interval),
            "pricing": if rng.chance(50) { json!({"model": "per_unit", "unit_price": some(rng, 5, c)}) } else { json!({"model": "graduated", "tiers": tiers(rng, 9, [20, 100], true, c)}) }}]);
    }
    if let Some(from) = from {
        doc["from"] = json!(from.to_string());
        if rng.chance(50) {
            doc["term"] = every(1 + rng.below(9) as u32);
        }
    }
    doc
}

impl Sim {
    pub(crate) fn shaped(&mut self, p: usize) {
        let now = self.clock;
        let said = self.say();
        let party = &mut self.parties[p];
        let (rng, c) = (&mut party.rng, party.currency);
        let currency = CURRENCIES[c].0;
        let zone = &self.world.zones[&party.zone];
        let mut starts = zone.day(now + (rng.below(30) as i64 - 10) * DAY);
        let interval = [1, 1, 3, 6, 12][rng.below(5)];
        let alignment = ["calendar", "anniversary", "month_ends", "fiscal"][rng.below(4)];
        let mut billing = json!({"interval": every(interval), "alignment": alignment});
        let mut grid = match alignment {
            "calendar" => Grid::Calendar(1),
            "month_ends" => {
                starts = deals::months_after(starts.with_day(1).expect("a first"), 1) - Days::new(1);
                billing =
                    json!({"interval": every(interval), "alignment": "anniversary", "end_of_month": true});
                Grid::MonthEnds(starts)
            }
            "fiscal" => {
                let day = [(2, 1), (4, 6), (7, 1), (10, 1)][rng.below(4)];
                billing["fiscal_year_starts"] = json!(format!("{:02}-{:02}", day.0, day.1));
                Grid::Anniversary(Day::from_ymd_opt(2020, day.0, day.1).expect("a day"))
            }
            _ => Grid::Anniversary(starts),
        };
        let key = format!("{}-1", party.key);
        let mut doc = json!({"key": key, "customer": party.key, "currency": currency, "starts_on": starts.to_string(), "billing": billing});
        let term = rng.chance(65).then(|| [12, 15, 24, 36][rng.below(4)]);
        let ends = term.map(|term| {
            doc["term"] = every(term);
            match grid {
                // To a month's end, as its periods.
                Grid::MonthEnds(_) => grid.period(starts, term).1,
                _ => deals::months_after(starts, term),
            }
        });
        let (trial, phases, amount_off) = match rng.below(10) {
            0..3 => (true, false, false),
            3..6 => (false, true, false),
            6 => (false, false, true),
            7 => (true, false, true),
            _ => (false, false, false),
        };
        let mut begins = starts;
        if trial {
            let days = 3 + rng.below(25) as u64;
            begins = starts + Days::new(days);
            doc["trial"] = if rng.chance(50) {
                json!({"duration": format!("{days} days")})
            } else {
                json!({"until": begins.to_string()})
            };
            let ends_month = (begins + Days::new(1)).day() == 1;
            grid = match alignment {
                "month_ends" if ends_month => Grid::MonthEnds(begins),
                "anniversary" | "month_ends" => Grid::Anniversary(begins),
                _ => grid,
            };
        }
        let second = !amount_off && rng.chance(30);
        let dividing: Vec<u32> = [1, 3, 6, 12].into_iter().filter(|n| interval.is_multiple_of(*n)).collect();
        let inner = if amount_off { interval } else { dividing[rng.below(dividing.len())] };
        // Usage, at prices of its own.
        let mut tokens = json!({"key": "tokens", "product": "ai", "meter": "tokens", "lines_by": ["model"], "every": every(inner)});
        let entered = rng.chance(50);
        tokens["pricing"] = if rng.chance(50) {
            json!({"model": "per_unit", "unit_price": some(rng, 9, c), "per": 100})
        } else {
            json!({"model": "graduated", "per": 1000, "tiers": tiers(rng, 9, [5000, 20000], entered, c)})
        };
        if rng.chance(40) {
            tokens["ramp"] = json!([{"from": deals::months_after(starts, 3).to_string(), "percent": "5.5"}, {"from": deals::months_after(starts, 8).to_string(), "percent": "3"}]);
        }
        let mut calls = json!({"key": "calls", "product": "ai", "meter": "calls", "every": every(interval)});
        calls["pricing"] = match rng.below(3) {
            0 => json!({"model": "package", "package_size": "7", "amount": some(rng, 210, c)}),
            1 => json!({"model": "volume", "tiers": tiers(rng, 40, [15, 30], false, c)}),
            _ => json!({"model": "per_unit", "unit_price": some(rng, 30, c), "minimum": some(rng, 2500, c)}),
        };
        // What is taken off the usage that has a minimum.
        let least = amount_off && calls["pricing"]["minimum"].is_string() && rng.chance(60);
        if rng.chance(30) && !least {
            calls["from"] = json!((begins + Days::new(rng.below(90) as u64)).to_string());
        }
        let storage = json!({"key": "storage", "product": "ai", "meter": "storage", "every": every(interval), "pricing": {"model": "per_unit", "unit_price": some(rng, 12, c), "free_units": "150.5"}});
        // Fees.
        let mut platform = json!({"key": "platform", "product": "ai", "pricing": flat(some(rng, 9999, c)), "every": every(interval), "timing": "advance"});
        match rng.below(3) {
            0 if term.is_some() => {
                platform["step_up"] = json!({"percent": money(1 + rng.below(120) as i64, 1), "every": every([interval, 12][rng.below(2)])})
            }
            1 => platform["ramp"] = ramp(rng, c, 12000, begins, false, interval),
            _ => {}
        }
        let mut fees = vec![platform];
        let mut seats = json!({"key": "seats", "product": "ai", "pricing": {"model": "per_unit", "unit_price": some(rng, 2000, c)}, "quantity": (1 + rng.below(9)).to_string(), "every": every(inner),
            "timing": if rng.chance(50) { "advance" } else { "arrears" }});
        if rng.chance(60) {
            seats["ramp"] = ramp(rng, c, 0, begins, true, 1);
        }
        fees.push(seats);
        if interval < 12 && rng.chance(70) {
            let mut long = json!({"key": "licence", "product": "ai", "pricing": flat(some(rng, 90000, c)), "every": every([2 * interval, 12][rng.below(2)]),
                "timing": if rng.chance(70) { "advance" } else { "arrears" }});
            if rng.chance(40) {
                long["from"] = json!((begins + Days::new(rng.below(200) as u64)).to_string());
            }
            fees.push(long);
        }
        for n in 0..rng.below(3) {
            let mut setup = json!({"key": format!("setup-{n}"), "product": "ai", "pricing": flat(some(rng, 20000, c)), "once": true});
            if rng.chance(60) {
                setup["from"] = json!((begins + Days::new(rng.below(120) as u64)).to_string());
            }
            fees.push(setup);
        }
        if rng.chance(40) {
            let from = begins + Days::new(rng.below(90) as u64);
            fees.push(json!({"key": "project", "product": "ai", "pricing": flat(some(rng, 7000, c)), "every": every(interval), "timing": "advance",
                "from": from.to_string(), "until": (from + Days::new(20 + rng.below(200) as u64)).to_string()}));
        }
        doc["charges"] = json!([tokens, calls, storage]);
        doc["fees"] = json!(fees);
        let mut add_ons = Vec::new();
        for name in ["mail", "sso"] {
            if rng.chance(40) {
                let from = rng.chance(60).then(|| begins + Days::new(rng.below(150) as u64));
                add_ons.push(add_on(rng, c, name, interval, from));
            }
        }
        doc["add_ons"] = json!(add_ons.clone());
        let mut discounts = Vec::new();
        if rng.chance(60) {
            let mut one = json!({"key": "welcome", "percent_off": money(10 + rng.below(500) as i64, 1)});
            match rng.below(4) {
                0 => {}
                1 => one["charges"] = json!(["platform", "setup-0", "tokens", "mail/fee"]),
                2 => one["products"] = if add_ons.is_empty() { json!(["ai"]) } else { json!(["extra"]) },
                _ => one["charges"] = json!(["seats", "calls"]),
            }
            let has = |k: &str| {
                doc["fees"].as_array().is_some_and(|f| f.iter().any(|f| f["key"] == k))
                    || ["tokens", "calls"].contains(&k)
                    || (k == "mail/fee"
                        && doc["add_ons"].as_array().is_some_and(|a| a.iter().any(|a| a["key"] == "mail")))
            };
            if let Some(of) = one.get_mut("charges").and_then(Value::as_array_mut) {
                of.retain(|k| has(k.as_str().expect("a key")));
            }
            if rng.chance(50) {
                let from = starts + Days::new(rng.below(60) as u64);
                one["from"] = json!(from.to_string());
                if rng.chance(50) {
                    one["duration"] = every(1 + rng.below(8) as u32);
                } else {
                    one["until"] = json!((from + Days::new(10 + rng.below(200) as u64)).to_string());
                }
            }
            discounts.push(one);
        }
        if amount_off {
            let n = if rng.chance(50) { 2000 } else { 15000 };
            let mut one =
                json!({"key": "less", "amount_off": some(rng, n, c), "charges": ["platform", "tokens"]});
            if least {
                one["charges"] = json!(["calls"]);
            }
            let digits = CURRENCIES[c].1;
            one["amount_off"] = json!(money(
                (n + rng.below(n as usize) as i64) * CURRENCIES[c].2 / 100 * 10_i64.pow(digits),
                digits
            ));
            if rng.chance(40) {
                // To the end of a billing period: what of a period it is for is not one sum.
                let until = grid.period(starts + Days::new(20 + rng.below(400) as u64), interval).1;
                one["until"] = json!(until.to_string());
            }
            discounts.push(one);
        }
        doc["discounts"] = json!(discounts);
        if phases {
            let linear = doc["charges"][0]["pricing"]["model"] == "per_unit";
            let first = 1 + rng.below(4) as u32;
            doc["phases"] = json!([
                {"key": "pilot", "duration": every(first), "fees": [{"key": "platform", "product": "ai", "pricing": flat(some(rng, 1000, c)), "every": every(interval), "timing": "advance"}],
                 "charges": if rng.chance(50) { json!([{"key": "storage", "remove": true}]) } else { json!([]) },
                 "overrides": if linear && rng.chance(70) { json!([{"meter": "tokens", "match": {"model": MODELS[rng.below(3)]}, "percent_off": "50"}]) } else { json!([]) }},
                {"key": "growth", "duration": every(1 + rng.below(9) as u32), "discounts": [{"key": "early", "percent_off": "25", "charges": ["platform", "seats"]}],
                 "fees": [{"key": "guide", "product": "ai", "pricing": flat(some(rng, 4000, c)), "every": every(interval), "timing": "arrears"}]},
                {"key": "run"}]);
        }
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
            pinned: None,
            rounding: Rounding::HalfUp,
            proration: if second { Proration::Second } else { Proration::Day },
            by_start: false,
            reset: false,
            grace: 0,
            policies: Policies { at_once: rng.chance(30), ..Policies::default() },
            changes: vec![Change {
                effective: zone.midnight(starts),
                kind: Kind::Create,
                doc: doc.clone(),
                said,
            }],
            billed: Vec::new(),
            looked: Vec::new(),
        };
        party.contracts.push(key.clone());
        self.must(&format!("SELECT billing.contract_create({})", quote(&doc.to_string())));
        if second {
            self.must(&format!("SELECT billing.policy_set('proration_basis', 'second', 'contract:{key}')"));
        }
        if contract.policies.at_once {
            self.must(&format!(
                "SELECT billing.policy_set('downgrade_timing', 'immediate', 'contract:{key}')"
            ));
        }
        self.must(&format!("SELECT billing.contract_activate('{key}')"));
        self.world.contracts.insert(key, contract);
    }
}

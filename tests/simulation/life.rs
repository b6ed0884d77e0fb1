//! What becomes of contracts.

use crate::catalogue::{pricing, some};
use crate::deals::{self, Change, Contract, Day, Instant, Kind, Proration};
use crate::shapes::{add_on, ramp};
use crate::world::{Deal, Sim, at, money, quote};
use chrono::Days;
use serde_json::{Value, json};

impl Sim {
    /// What becomes of a customer's contracts.
    pub(crate) fn life(&mut self, p: usize) {
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
    pub(crate) fn changed(&mut self, key: &str, effective: Instant, kind: Kind, doc: Value, sql: &str) {
        let said = self.say();
        match self.run(sql) {
            Ok(_) => {}
            // Not yet there.
            Err(refusal) if refusal.message.contains("is not billed by this version") => return,
            // A change that holds later would have nothing to change any more.
            Err(refusal) if refusal.code == "ZB003" && refusal.message.starts_with("version ") => return,
            Err(refusal) => {
                self.keep_log();
                panic!("{sql}\n{refusal:?}")
            }
        }
        self.changes += 1;
        let contract = self.world.contracts.get_mut(key).expect("a contract");
        contract.changes.push(Change { effective, kind, doc, said });
    }

    /// Amends a contract from an instant, or from when it is to hold where nobody says: now, and where that lowers the
    /// fees of today, from the end of the billing period that runs.
    fn amended(&mut self, contract: &Contract, doc: Value, effective: Instant, instant: &str, silent: bool) {
        let key = &contract.key;
        let said = quote(&doc.to_string());
        let zone = &self.world.zones[&contract.zone];
        let today = zone.day(self.clock);
        if !silent || today < contract.starts || self.broken.contains(key) {
            let sql = format!("SELECT billing.contract_amend('{key}', {said}, {instant}, 'agreed')");
            return self.changed(key, effective, Kind::Amend, doc, &sql);
        }
        let now = if contract.proration == Proration::Second { self.clock } else { zone.midnight(today) };
        let mut after = contract.clone();
        after.changes.push(Change { effective: now, kind: Kind::Amend, doc: doc.clone(), said: u64::MAX });
        let lowers = self.world.recurring(&after, now) < self.world.recurring(contract, now);
        let ends = contract.period_end(today);
        if contract.end().is_some_and(|end| end <= ends) {
            return;
        }
        let effective = if lowers && !contract.policies.at_once { zone.midnight(ends) } else { now };
        let sql = format!("SELECT billing.contract_amend('{key}', {said}, reason => 'agreed')");
        self.changed(key, effective, Kind::Amend, doc, &sql);
    }

    /// One random change of a contract.
    pub(crate) fn change(&mut self, p: usize, contract: &Contract, today: Day) {
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
        let word = rng.below(if party.deal == Some(Deal::Shapes) { 19 } else { 17 });
        let word = if party.deal != Some(Deal::Shapes) && word >= 12 { word + 4 } else { word };
        // What says no instant takes effect now, or waits.
        let silent = rng.chance(25) && today >= contract.trial_end() && !terms.paused;
        // Deals keep their length and their usage charges.
        // What a change takes off a fee that is paid for longer comes with the first boundary after it.
        let due = contract.next_boundary().is_some_and(|day| zone.midnight(day) <= now_is);
        if due && matches!(word, 5 | 7..=9 | 16..=17) && self.world.mentions(contract, "licence") {
            return;
        }
        if party.deal == Some(Deal::Shapes) {
            // What comes later of a fee that is billed for longer, or was billed once, is said nowhere.
            let once = contract.changes[0].doc["fees"].as_array().is_some_and(|f| {
                f.iter().any(|f| {
                    f["once"] == true && f["from"].as_str().is_some_and(|d| d > today.to_string().as_str())
                })
            });
            if matches!(word, 4 | 6 | 10) || (matches!(word, 7 | 8 | 16 | 17) && once) {
                return;
            }
        } else if party.deal.is_some()
            && !matches!(word, 0..=3 | 11 | 18)
            && (party.deal == Some(Deal::Credits) || party.in_time || !matches!(word, 16 | 17 | 19..))
        {
            return;
        }
        match word {
            0 | 1 => {
                let fees: Vec<&String> = (terms.fees.iter())
                    .filter(|(k, f)| {
                        !f["quantity"].is_null()
                            && self.world.item_on(contract, &terms, "fees", k, effective).is_some()
                    })
                    .map(|(k, _)| k)
                    .collect();
                if fees.is_empty() {
                    return;
                }
                let fee = fees[rng.below(fees.len())].clone();
                let doc = json!({"quantities": {fee: (1 + rng.below(12)).to_string()}});
                self.amended(contract, doc, effective, &instant, silent);
            }
            2 => {
                if self.world.item_on(contract, &terms, "fees", "platform", effective).is_none() {
                    return;
                }
                let doc = json!({"prices": {"platform": {"model": "flat", "amount": some(rng, 12000, c)}}});
                self.amended(contract, doc, effective, &instant, silent);
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
                self.amended(contract, doc, effective, &instant, silent);
            }
            4 => {
                let Some(mut charge) = terms.charges.get("calls").cloned() else { return };
                let shape = ["calls-graduated", "calls-volume", "calls-package"][rng.below(3)];
                let own = pricing(rng, shape, c);
                let fields = charge.as_object_mut().expect("a charge");
                fields.remove("price");
                fields.remove("_since");
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
                    let fees: Vec<&String> = terms
                        .fees
                        .iter()
                        .filter(|(k, f)| f["once"] != true && (*k != "licence" || day <= today))
                        .map(|(k, _)| k)
                        .collect();
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
                let plan = plan.split('@').next().expect("a key");
                let other = plan.strip_suffix('b').map_or_else(|| format!("{plan}b"), str::to_owned);
                let newest = (2..).map(|n| format!("{other}@{n}"));
                let newest = newest.take_while(|name| self.world.plans.contains_key(name)).last();
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
                let newest = newest.unwrap_or(other);
                self.changed(&key, effective, Kind::ChangePlan, json!({"plan": newest}), &sql);
            }
            7 | 8 => {
                let longer = terms.fees.contains_key("licence");
                let soon =
                    today.max(contract.starts) + Days::new(if longer { 0 } else { rng.below(12) as u64 });
                if end.is_some_and(|e| soon + Days::new(40) >= e) {
                    return;
                }
                let when = zone.midnight(soon) + 60;
                let effective = if by_second { when } else { zone.midnight(soon) };
                let instant = quote(&at(when));
                let to_come =
                    |c: &Change| matches!(c.kind, Kind::Pause | Kind::Resume) && c.effective >= effective;
                if contract.changes.iter().any(to_come) {
                    return;
                }
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
                let longer = self.world.mentions(contract, "licence");
                if longer && by_second {
                    return;
                }
                let (word, on) = match if longer { 0 } else { rng.below(3) } {
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
            12 => {
                let name = format!("ramp-{}", rng.below(20));
                if self.world.mentions(contract, &name) {
                    return;
                }
                let begin = deals::months_after(day, 0);
                let steps = ramp(rng, c, 3000, begin, false, 1);
                let doc = json!({"fees": [{"key": name, "product": "ai", "pricing": {"model": "flat", "amount": some(rng, 3000, c)}, "every": every(contract.interval), "timing": "arrears", "ramp": steps}]});
                let sql =
                    format!("SELECT billing.contract_amend('{key}', {}, {instant})", quote(&doc.to_string()));
                self.changed(&key, effective, Kind::Amend, doc, &sql);
            }
            13 => {
                let name = format!("once-{}", rng.below(20));
                if self.world.mentions(contract, &name) || day < contract.trial_end() {
                    return;
                }
                let mut fee = json!({"key": name, "product": "ai", "pricing": {"model": "flat", "amount": some(rng, 5000, c)}, "once": true});
                if rng.chance(50) {
                    fee["from"] = json!((day + Days::new(rng.below(60) as u64)).to_string());
                }
                let doc = json!({"fees": [fee]});
                let sql =
                    format!("SELECT billing.contract_amend('{key}', {}, {instant})", quote(&doc.to_string()));
                self.changed(&key, effective, Kind::Amend, doc, &sql);
            }
            14 | 15 => {
                let has = |name: &str| terms.fees.keys().any(|k| k.starts_with(&format!("{name}/")));
                let name = ["mail", "sso", "vpn"][rng.below(3)];
                let doc = if has(name) {
                    json!({"add_ons": [{"key": name, "remove": true}]})
                } else if self.world.mentions(contract, &format!("{name}/fee")) {
                    return;
                } else {
                    let from = rng.chance(40).then(|| day + Days::new(rng.below(50) as u64));
                    json!({"add_ons": [add_on(rng, c, name, contract.interval, from)]})
                };
                let sql =
                    format!("SELECT billing.contract_amend('{key}', {}, {instant})", quote(&doc.to_string()));
                self.changed(&key, effective, Kind::Amend, doc, &sql);
            }
            16 | 17 => {
                // Another length of the term that runs then; renewals that follow begin where it ends.
                let Some((began, length)) = contract.term(effective) else { return };
                let unit = if contract.changes[0].doc["renewal"]["uplift"].is_null() {
                    1
                } else {
                    contract.interval
                };
                let term = unit * (1 + rng.below(2 * length as usize / unit as usize + 1) as u32);
                let until = contract.day_of_term(began + term);
                let over = |c: &Change| c.kind != Kind::Renew && c.effective >= zone.midnight(until);
                if cancelled || until <= day || contract.changes.iter().any(over) {
                    return;
                }
                self.amended(contract, json!({"term": every(term)}), effective, &instant, false);
                let zone = &self.world.zones[&contract.zone];
                self.world.contracts.get_mut(&key).expect("a contract").move_renewals(zone);
            }
            18 => {
                // A fee in the place of another.
                let Some(old) = terms.fees.get("platform") else { return };
                let mut fee = json!({"key": "platform", "product": "ai", "pricing": {"model": "flat", "amount": some(rng, 9999, c)}, "every": every(contract.interval), "timing": old["timing"]});
                if rng.chance(40) {
                    let unit = contract.interval;
                    fee["ramp"] = ramp(rng, c, 12000, day, false, unit);
                }
                self.amended(contract, json!({"fees": [fee]}), effective, &instant, silent);
            }
            19 | 20 if party.deal.is_none() => {}
            19 => {
                // Another amount for the periods that begin after it.
                let mut one = contract.changes[0].doc["commitments"][0].clone();
                let field = if one["quantity"].is_null() { "amount" } else { "quantity" };
                let old = deals::dec(one[field].as_str().expect("a number"));
                let new = old * deals::q(1 + rng.below(3) as i64) / deals::q(2);
                let digits = self.world.minor_units[&contract.currency];
                one[field] = json!(deals::decimal(&deals::round(&new, digits, contract.rounding)));
                self.amended(contract, json!({"commitments": [one]}), effective, &instant, false);
            }
            20 => {
                // Another price of usage in the middle of what was promised.
                let mut price = terms.charges["tokens"]["pricing"].clone();
                let old = deals::dec(price["unit_price"].as_str().expect("a price"));
                let new = if rng.chance(50) { old * deals::q(2) } else { old / deals::q(2) };
                let new = if party.deal == Some(Deal::Promise) {
                    let unit =
                        deals::q(100) / deals::q(10_i64.pow(self.world.minor_units[&contract.currency]));
                    (new / &unit).ceil() * unit
                } else {
                    new
                };
                price["unit_price"] = json!(deals::decimal(&new));
                self.amended(contract, json!({"prices": {"tokens": price}}), effective, &instant, false);
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

//! What happens between the questions: usage, reservations, seats, credit, limits, exceptions, and what becomes of contracts.

use crate::World;
use crate::items::{FEATURES, Item, Items, Kind, METERED, meter_of, pick};
use crate::model::{AddOn, Answer, Block, Contract, Limit, Question, Reservation, Said, Use};
use crate::time::{Reset, text};
use chrono::{Days, Months, NaiveDate, TimeDelta};
use serde_json::{Value, json};

const HOLDERS: [&str; 6] = ["ann", "bob", "cem", "dan", "eve", "fay"];

impl World {
    pub fn happen(&mut self) {
        let customer = self.rng.below(self.customers.len());
        match self.rng.below(40) {
            0..=6 => self.ingest(customer),
            7..=13 => {
                let feature = pick(&mut self.rng, &["m1", "m1", "m2", "m3", "m3", "ai", "ai", "calls"]);
                let n = self.rng.below(if feature == "calls" { 6 } else { 20 }) as i64;
                self.consume(customer, feature, n);
            }
            14 | 15 => self.reserve(customer),
            16 | 17 => self.settle(customer),
            18..=20 => self.seat(customer),
            21 => self.requests(customer),
            22 => self.grant(customer),
            23 => self.set_limit(customer),
            24..=26 => self.except(customer),
            27 => self.end_exception(customer),
            28 => self.sign(customer),
            _ => self.change(customer),
        }
    }

    fn ingest(&mut self, customer: usize) {
        let meter = pick(&mut self.rng, &["m1", "m1", "m2", "m2", "work", "seats"]);
        let at = self.now - TimeDelta::microseconds(self.rng.below(4000 * 60_000_000) as i64);
        let key = self.customers[customer].key.clone();
        let (properties, n, said);
        if meter == "seats" {
            let (who, comes) = (pick(&mut self.rng, &HOLDERS), self.rng.chance(60));
            properties = json!({"seat": who, "operation": if comes { "add" } else { "remove" }});
            self.customers[customer].seats.push((at, who, comes));
            (n, said) = (0, Said::default());
        } else {
            n = self.rng.below(12) as i64;
            said = Said {
                model: Some(pick(&mut self.rng, &["a", "b"])),
                api_key: self.rng.chance(50).then_some("k1"),
            };
            let mut document = said.json();
            document["n"] = json!(n);
            properties = document;
        }
        self.calls += 1;
        let call = format!(
            "SELECT billing.ingest_event('{key}', '{meter}', 'e{}', '{}', '{properties}')",
            self.calls,
            text(at)
        );
        self.run(&call);
        if meter != "seats" {
            self.customers[customer].uses.push(Use { meter, at, n, said });
        }
    }

    pub fn reserve(&mut self, customer: usize) {
        let (feature, n) = (pick(&mut self.rng, &METERED), 1 + self.rng.below(15) as i64);
        let said =
            Said { model: self.rng.chance(60).then_some("a"), api_key: self.rng.chance(30).then_some("k1") };
        let question = Question { feature, asked: n, said, whole: true };
        let before = self.customers[customer].answer(&self.plans, &question, self.now);
        let minutes = pick(&mut self.rng, &[10, 600, 4000]);
        self.calls += 1;
        let key = self.customers[customer].key.clone();
        let row = self.row(
            "SELECT result, reservation_id::text, allowed, reason, trim_scale(used)::text, trim_scale(quota)::text, trim_scale(remaining)::text
             FROM billing.reservation_create($1, $2, $3::bigint, $4, $5::bigint * interval '1 minute', $6::text::jsonb)",
            &[&key, &feature, &n, &format!("r{}", self.calls), &minutes, &said.json().to_string()],
        );
        let place = format!("{}: reserve {n} of {feature} by {key}, {said:?}", self.place());
        assert_eq!(
            row.get::<_, &str>(0),
            if before.allowed { "reserved" } else { "denied" },
            "{place}: {before:?}"
        );
        assert_eq!(row.get::<_, bool>(2), before.allowed, "{place}");
        assert!(before.reasons.contains(&row.get(3)), "{place}: {row:?}, expected {before:?}");
        let mut after = before.clone();
        if before.allowed {
            let expires = self.now + TimeDelta::minutes(minutes);
            let id = row.get(1);
            self.customers[customer].reservations.push(Reservation {
                id,
                feature,
                n,
                said,
                expires,
                settled: false,
            });
            after =
                self.customers[customer].answer(&self.plans, &Question { asked: 0, ..question }, self.now);
        }
        assert_eq!(numbers(&row, 4), told(&after), "{place}: {after:?}");
        self.saw(format!("reservation {}", row.get::<_, &str>(0)));
    }

    /// One is confirmed, or released, in time or not.
    pub fn settle(&mut self, customer: usize) {
        let model = &self.customers[customer];
        let open: Vec<usize> =
            (0..model.reservations.len()).filter(|n| !model.reservations[*n].settled).collect();
        if open.is_empty() {
            return self.reserve(customer);
        }
        let n = pick(&mut self.rng, &open);
        self.apart(customer, self.customers[customer].reservations[n].feature);
        let (now, r) = (self.now, &mut self.customers[customer].reservations[n]);
        let (id, feature, said, reserved, late) = (r.id.clone(), r.feature, r.said, r.n, r.expires <= now);
        let place =
            format!("{}: {feature} of {}, reserved {reserved}", self.place(), self.customers[customer].key);
        self.customers[customer].reservations[n].settled = true;
        if self.rng.chance(25) {
            let result: String =
                self.row("SELECT billing.reservation_release($1::text::uuid)", &[&id]).get(0);
            assert_eq!(result, "released", "{place}");
            return self.saw("reservation released");
        }
        let actual = self.rng.chance(60).then(|| self.rng.below(20) as i64);
        let counts = actual.unwrap_or(reserved);
        if counts > 0 {
            self.customers[customer].begin(&self.plans, feature, now);
        }
        self.customers[customer].uses.push(Use { meter: meter_of(feature), at: now, n: counts, said });
        let row = self.row(
            "SELECT result, was_late, trim_scale(used)::text, trim_scale(quota)::text, trim_scale(remaining)::text FROM billing.reservation_confirm($1::text::uuid, $2::bigint)",
            &[&id, &actual],
        );
        let open = Question { feature, asked: 0, said: Said::default(), whole: false };
        let after = self.customers[customer].answer(&self.plans, &open, now);
        assert_eq!((row.get(0), row.get(1)), ("confirmed", late), "{place}");
        assert_eq!(numbers(&row, 2), told(&after), "{place}, confirmed {counts}: {after:?}");
        self.saw(if late { "reservation confirmed late" } else { "reservation confirmed" });
    }

    pub fn seat(&mut self, customer: usize) {
        let (who, comes) = (pick(&mut self.rng, &HOLDERS), self.rng.chance(70));
        let (now, model) = (self.now, &self.customers[customer]);
        // Twice at one instant is an order of its own.
        if model.seats.iter().any(|(at, w, _)| *at >= now && *w == who) {
            return;
        }
        let key = model.key.clone();
        let there = model.holders(now).contains(&who);
        let before = model.answer(
            &self.plans,
            &Question { feature: "seats", asked: 1, said: Said::default(), whole: true },
            now,
        );
        let result = match (comes, there) {
            (true, true) => "already",
            (true, false) if before.allowed => "assigned",
            (true, false) => "denied",
            (false, true) => "released",
            (false, false) => "absent",
        };
        let function = if comes { "seat_assign" } else { "seat_release" };
        let row = self.row(
            &format!("SELECT result, reason, trim_scale(used)::text, trim_scale(quota)::text, trim_scale(remaining)::text FROM billing.{function}($1, 'seats', $2)"),
            &[&key, &who],
        );
        if ["assigned", "released"].contains(&result) {
            self.customers[customer].seats.push((now, who, comes));
        }
        let after = self.customers[customer].answer(
            &self.plans,
            &Question { feature: "seats", asked: 0, said: Said::default(), whole: true },
            now,
        );
        let place = format!("{}: {function} of {who} by {key}: {row:?}", self.place());
        assert_eq!(row.get::<_, &str>(0), result, "{place}: {before:?}");
        if ["assigned", "denied"].contains(&result) {
            assert!(before.reasons.contains(&row.get(1)), "{place}: {before:?}");
        }
        let mut expected = told(&after);
        if ["assigned", "released"].contains(&result) {
            // How many there are then is told even where nobody gives them any more.
            expected[0] = Some(self.customers[customer].holders(now).len().to_string());
        }
        assert_eq!(numbers(&row, 2), expected, "{place}: {after:?}");
        self.saw(format!("seat {result}"));
    }

    /// Requests one after the other, moments apart.
    pub fn requests(&mut self, customer: usize) {
        let key = self.customers[customer].key.clone();
        for _ in 0..6 {
            let next = self.now + TimeDelta::microseconds(self.rng.below(90_000_000) as i64);
            self.set_clock(next);
            let cost = self.rng.below(5) as i64;
            let question = Question { feature: "calls", asked: cost, said: Said::default(), whole: true };
            let before = self.customers[customer].answer(&self.plans, &question, self.now);
            let row = self.row(
                "SELECT allowed, reason, (extract(epoch FROM retry_after) * 1000000)::bigint, trim_scale(remaining)::text FROM billing.rate_limit($1, 'calls', $2::bigint)",
                &[&key, &cost],
            );
            let place = format!("{}: {cost} requests of {key}: {row:?}", self.place());
            let mut after = before.clone();
            if before.allowed {
                let state = before.state.clone().expect("a rate");
                self.customers[customer].pass(&state, cost, self.now);
                after = self.customers[customer].answer(
                    &self.plans,
                    &Question { asked: 0, ..question },
                    self.now,
                );
            }
            assert_eq!((row.get(0), row.get(1)), (before.allowed, before.reasons[0]), "{place}: {before:?}");
            let wait = before.resets_at.map(|at| (at - self.now).num_microseconds().expect("microseconds"));
            let limited = before.reasons[0] == "rate_limited" || before.allowed;
            let waits = if before.allowed { Some(0) } else { wait };
            assert_eq!(
                (row.get(2), row.get(3)),
                (waits.filter(|_| limited), after.remaining),
                "{place}: {before:?}"
            );
            self.saw(format!("request {}", before.reasons[0]));
        }
    }

    fn grant(&mut self, customer: usize) {
        let (amount, key) = (self.rng.below(80) as i64 + 1, self.customers[customer].key.clone());
        let until =
            self.rng.chance(60).then(|| self.now + TimeDelta::minutes(1 + self.rng.below(40_000) as i64));
        self.calls += 1;
        let mut document = json!({"key": format!("b{}", self.calls), "amount": amount.to_string(), "scope": {"meters": ["work"]}});
        if let Some(until) = until {
            document["expires"] = json!(text(until));
        }
        self.run(&format!("SELECT billing.credit_grant_create('{key}', '{document}')"));
        let from = self.now;
        self.customers[customer].blocks.push(Block { amount, from, until });
    }

    /// Unlimited, but for what a limit of next to nothing lets.
    pub fn limit_tightly(&mut self, customer: usize) {
        let (now, key) = (self.now, self.customers[customer].key.clone());
        self.run(&format!(
            "SELECT billing.entitlement_override('{key}', 'm1', 'null', NULL, 'a test'); SELECT billing.spend_limit_set('{key}', '{{\"key\":\"money\",\"end\":true}}')
             WHERE EXISTS (SELECT FROM billing.spend_limits('{key}'))"
        ));
        self.customers[customer].exceptions.push(("m1", Value::Null, now, None));
        self.customers[customer].limits.retain(|limit| !limit.money);
        for _ in 0..12 {
            self.set_limit(customer);
            self.ask(customer, "m1", 3000);
        }
    }

    /// An amendment of today that counts usage in such windows.
    pub fn agree(&mut self, customer: usize, reset: &str) {
        let now = self.now;
        let contracts = &self.customers[customer].contracts;
        let Some(n) = contracts.iter().position(|k| k.runs(now) && k.ends.is_none()) else { return };
        let (mut item, place) = (Item::random(&mut self.rng, "m1", false), (customer, n));
        while item.reset.word() != reset && (item.rollover.is_none() || reset != "over") {
            item = Item::random(&mut self.rng, "m1", false);
        }
        let day = self.today(place);
        self.amend(place, &json!({"entitlements": [item.json("m1")]}), day);
        self.contract(place).own.push((day, "m1", Some(item)));
    }

    fn set_limit(&mut self, customer: usize) {
        let (money, key) = (self.rng.chance(50), self.customers[customer].key.clone());
        let (function, name) = if money { ("spend_limit_set", "money") } else { ("budget_set", "units") };
        let had = self.customers[customer].limits.iter().any(|limit| limit.money == money);
        self.customers[customer].limits.retain(|limit| limit.money != money);
        if had && self.rng.chance(50) {
            return self
                .run(&format!("SELECT billing.{function}('{key}', '{{\"key\":\"{name}\",\"end\":true}}')"));
        }
        let limit = Limit {
            money,
            amount: self.rng.below(if money { 3000 } else { 60 }) as i64 + 1,
            period: pick(&mut self.rng, &[Reset::Day, Reset::Week, Reset::Month]),
            hard: self.rng.chance(60),
            api_key: (!money).then_some("k1"),
        };
        let mut document = json!({"key": name, "period": limit.period.word(), "mode": if limit.hard { "hard" } else { "soft" }});
        if money {
            document["amount"] = json!(format!("{}.{:02}", limit.amount / 100, limit.amount % 100));
        } else {
            document["amount"] = json!(limit.amount.to_string());
            document["meter"] = json!("m1");
            document["match"] = json!({"api_key": "k1"});
        }
        self.run(&format!("SELECT billing.{function}('{key}', '{document}')"));
        self.customers[customer].limits.push(limit);
    }

    fn except(&mut self, customer: usize) {
        let (feature, key) = (self.feature(), self.customers[customer].key.clone());
        let value = Item::random_value(&mut self.rng, Kind::of(feature));
        let until = self.rng.chance(60).then(|| self.now + TimeDelta::hours(1 + self.rng.below(200) as i64));
        let shown = until.map_or("NULL".to_string(), |until| format!("'{}'", text(until)));
        self.run(&format!(
            "SELECT billing.entitlement_override('{key}', '{feature}', '{value}', {shown}, 'a test')"
        ));
        let now = self.now;
        self.customers[customer].exceptions.push((feature, value, now, until));
    }

    fn end_exception(&mut self, customer: usize) {
        let (now, feature) = (self.now, self.feature());
        let mut ended = false;
        for (key, _, _, until) in &mut self.customers[customer].exceptions {
            if *key == feature && until.is_none_or(|until| until > now) {
                *until = Some(now);
                ended = true;
            }
        }
        if ended {
            let key = &self.customers[customer].key;
            let call = format!("SELECT billing.entitlement_override_end('{key}', '{feature}', 'a test')");
            self.run(&call);
        }
    }

    /// A contract from a day on, some ahead; on days that not every month has.
    pub fn sign(&mut self, customer: usize) {
        let model = &self.customers[customer];
        if model.contracts.iter().filter(|k| k.runs(self.now)).count() >= 3 {
            return;
        }
        let (key, n, zone) = (model.key.clone(), model.contracts.len(), model.zone.clone());
        let zone =
            if self.rng.chance(25) { self.zones[self.rng.below(self.zones.len())].clone() } else { zone };
        let starts = zone.day(self.now) + Days::new(self.rng.below(12) as u64);
        let (anniversary, plan) = (self.rng.chance(50), self.rng.below(self.plans.len()));
        let term = self.rng.chance(30).then(|| 2 + self.rng.below(3) as u32);
        let name = format!("{key}-k{n}");
        let mut document = json!({"key": name, "customer": key, "plan": format!("p{plan}"), "starts_on": starts.to_string(), "time_zone": zone.name,
            "fees": [{"key": "platform", "remove": true}, {"key": format!("own{n}"), "product": "p", "pricing": {"model": "flat", "amount": "1"}}],
            "billing": {"alignment": if anniversary { "anniversary" } else { "calendar" }}});
        if let Some(term) = term {
            document["term"] = json!(format!("{term} months"));
        }
        self.run(&format!(
            "SELECT billing.contract_create('{document}'); SELECT billing.contract_activate('{name}')"
        ));
        let ends = term.map(|term| starts + Months::new(term));
        let plans = vec![(starts, plan)];
        let (own, add_ons, pauses) = (Vec::new(), Vec::new(), Vec::new());
        self.customers[customer].contracts.push(Contract {
            key: name,
            starts,
            anniversary,
            zone,
            plans,
            own,
            add_ons,
            pauses,
            ends,
        });
    }

    /// Something becomes of a contract that does not end soon.
    fn change(&mut self, customer: usize) {
        let now = self.now;
        let contracts = &self.customers[customer].contracts;
        let lasts = |k: &Contract| k.ends.is_none_or(|end| now + TimeDelta::days(14) < k.zone.midnight(end));
        let live: Vec<usize> = (0..contracts.len()).filter(|n| lasts(&contracts[*n])).collect();
        if live.is_empty() {
            return self.sign(customer);
        }
        let place = (customer, pick(&mut self.rng, &live));
        match self.rng.below(12) {
            0..=4 => self.amend_item(place),
            5 | 6 => self.change_plan(place),
            7 | 8 => self.add_on(place),
            9 | 10 => self.pause(place),
            _ => self.cancel(place),
        }
    }

    fn contract(&mut self, (customer, n): (usize, usize)) -> &mut Contract {
        &mut self.customers[customer].contracts[n]
    }

    /// A day around now, not before the contract's start.
    fn day(&mut self, place: (usize, usize)) -> NaiveDate {
        let ahead = self.rng.below(14) as u64;
        let today = self.now;
        let k = self.contract(place);
        (k.zone.day(today) + Days::new(ahead) - Days::new(6)).max(k.starts)
    }

    /// Today, or the contract's first day.
    fn today(&mut self, place: (usize, usize)) -> NaiveDate {
        let now = self.now;
        let k = self.contract(place);
        k.zone.day(now).max(k.starts)
    }

    fn amend(&mut self, place: (usize, usize), change: &Value, day: NaiveDate) {
        let k = self.contract(place);
        let call = format!(
            "SELECT billing.contract_amend('{}', '{change}', '{}')",
            k.key,
            text(k.zone.midnight(day))
        );
        self.run(&call);
    }

    fn amend_item(&mut self, place: (usize, usize)) {
        let (feature, day) = (self.feature(), self.day(place));
        let item = self.rng.chance(80).then(|| Item::random(&mut self.rng, feature, false));
        let change =
            item.as_ref().map_or(json!({"feature": feature, "remove": true}), |item| item.json(feature));
        // Only what holds then can end; nor may what comes later end what would be gone by then.
        let k = self.contract(place);
        let at = k.zone.midnight(day);
        let later = k.own.iter().any(|(later, key, item)| *key == feature && *later >= day && item.is_none());
        if item.is_some() || (k.own(feature, at).is_some() && !later) {
            self.amend(place, &json!({"entitlements": [change]}), day);
            self.contract(place).own.push((day, feature, item));
            self.saw("amended");
        }
    }

    fn change_plan(&mut self, place: (usize, usize)) {
        let (day, plan) = (self.day(place), self.rng.below(self.plans.len()));
        let call = format!(
            "SELECT billing.contract_change_plan('{}', 'p{plan}', '{day}')",
            self.contract(place).key
        );
        self.run(&call);
        self.contract(place).plans.push((day, plan));
        self.saw("plan changed");
    }

    fn add_on(&mut self, place: (usize, usize)) {
        let (feature, today) = (self.feature(), self.today(place));
        let from = today + Days::new(self.rng.below(10) as u64);
        let until = from + Days::new(1 + self.rng.below(20) as u64);
        let items: Items = vec![(feature, Item::random(&mut self.rng, feature, true))];
        let mut item = items[0].1.json(feature);
        item.as_object_mut()
            .expect("an item")
            .retain(|name, _| matches!(name.as_str(), "feature" | "value" | "rate"));
        self.calls += 1;
        let key = format!("a{}", self.calls);
        let add_on =
            json!({"key": key, "from": from.to_string(), "until": until.to_string(), "entitlements": [item]});
        self.amend(place, &json!({"add_ons": [add_on]}), today);
        self.contract(place).add_ons.push(AddOn { key, from, until, items });
        self.saw("add-on");
    }

    fn pause(&mut self, place: (usize, usize)) {
        let (from, days) = (self.today(place), 1 + self.rng.below(6) as u64);
        let k = self.contract(place);
        if k.pauses.iter().any(|(_, until)| *until >= from) {
            return;
        }
        let until = from + Days::new(days);
        let (name, begins, ends) = (&k.key, text(k.zone.midnight(from)), text(k.zone.midnight(until)));
        let call = format!(
            "SELECT billing.contract_pause('{name}', '{begins}'); SELECT billing.contract_resume('{name}', '{ends}')"
        );
        k.pauses.push((from, until));
        self.run(&call);
        self.saw("paused");
    }

    /// After all that was recorded ahead.
    fn cancel(&mut self, place: (usize, usize)) {
        let day = self.today(place) + Days::new(15 + self.rng.below(20) as u64);
        let k = self.contract(place);
        if k.ends.is_some_and(|end| end <= day) {
            return;
        }
        k.ends = Some(day);
        let call = format!("SELECT billing.contract_cancel('{}', '{day}')", k.key);
        self.run(&call);
        self.saw("cancelled");
    }

    pub fn feature(&mut self) -> &'static str {
        pick(&mut self.rng, &FEATURES)
    }
}

/// Used, quota and remaining of a row, from a column on.
fn numbers(row: &postgres::Row, first: usize) -> [Option<String>; 3] {
    [row.get(first), row.get(first + 1), row.get(first + 2)]
}

fn told(answer: &Answer) -> [Option<String>; 3] {
    [answer.used.map(|n| n.to_string()), answer.quota.map(|n| n.to_string()), answer.remaining.clone()]
}

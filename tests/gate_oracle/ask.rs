//! Questions to the gate, and whether it says what the model says.

use crate::World;
use crate::items::{FEATURES, Kind, METERED, MODELS, meter_of, pick};
use crate::load::told;
use crate::model::{Answer, Limit, Question, Said, Use};
use crate::time::{At, MICROSECOND, text};
use chrono::DateTime;
use postgres::Row;
use postgres::types::ToSql;
use serde_json::Value;

/// The columns that entitlement_check(), consume() and entitlements() share.
const COLUMNS: &str = "allowed, reason, kind, mode, trim_scale(used)::text AS used, trim_scale(quota)::text AS quota, trim_scale(remaining)::text AS remaining, (extract(epoch FROM resets_at) * 1000000)::bigint AS resets_at, source, value::text AS value";

fn instant(row: &Row, column: &str) -> Option<At> {
    row.get::<_, Option<i64>>(column)
        .map(|micros| DateTime::from_timestamp_micros(micros).expect("an instant"))
}

impl World {
    pub fn rows(&mut self, query: &str, values: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        let found = self.client.query(query, values);
        found.unwrap_or_else(|error| panic!("{}: {query} {values:?}\n{}", self.place(), told(&error)))
    }

    pub fn row(&mut self, query: &str, values: &[&(dyn ToSql + Sync)]) -> Row {
        let mut rows = self.rows(query, values);
        assert_eq!(rows.len(), 1, "{}: {query} {values:?}", self.place());
        rows.remove(0)
    }

    pub fn saw(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    fn said(&mut self, feature: &str) -> Said {
        if !METERED.contains(&feature) || self.rng.chance(50) {
            return Said::default();
        }
        let model = self.rng.chance(80).then(|| pick(&mut self.rng, &MODELS));
        Said { model, api_key: self.rng.chance(40).then(|| pick(&mut self.rng, &["k1", "k2"])) }
    }

    fn answer(&self, customer: usize, question: &Question) -> Answer {
        self.customers[customer].answer(&self.plans, question, self.now)
    }

    /// Compares what entitlement_check() and entitled() say of a feature, and now and then why_denied().
    pub fn ask(&mut self, customer: usize, feature: &'static str, asked: i64) {
        let said = self.said(feature);
        let key = self.customers[customer].key.clone();
        let expected = self.answer(customer, &Question { feature, asked, said, whole: false });
        let row = self.row(
            &format!("SELECT {COLUMNS} FROM billing.entitlement_check($1, $2, $3::bigint, $4::text::jsonb)"),
            &[&key, &feature, &asked, &said.json().to_string()],
        );
        let place = format!("{}: {asked} of {feature} by {key}, {said:?}", self.place());
        compare(&place, &row, &expected);
        let open = self.answer(customer, &Question { feature, asked, said: Said::default(), whole: false });
        let entitled: bool =
            self.row("SELECT billing.entitled($1, $2, $3::bigint)", &[&key, &feature, &asked]).get(0);
        assert_eq!(entitled, open.allowed, "{place}: entitled()");
        if self.rng.chance(25) {
            let why = self.row(
                "SELECT allowed, reason, explanation, command FROM billing.why_denied($1, $2, $3::bigint)",
                &[&key, &feature, &asked],
            );
            assert_eq!(why.get::<_, bool>(0), open.allowed, "{place}: why_denied()");
            assert!(
                open.reasons.contains(&why.get(1)),
                "{place}: why_denied() {why:?}, not {:?}",
                open.reasons
            );
        }
        self.note(feature, &expected);
    }

    /// What kinds of answer were heard.
    fn note(&mut self, feature: &'static str, answer: &Answer) {
        let kind = Kind::of(feature).word();
        self.saw(format!("{kind} {}", answer.reasons[0]));
        let Some(state) = answer.state.as_ref().filter(|_| answer.used.is_some()) else { return };
        let (rolls, some) = (state.item.rollover.is_some(), state.item.model.is_some());
        if Kind::of(feature) == Kind::Metered {
            self.saw(format!("reset {}", state.item.reset.word()));
        }
        if rolls && answer.quota > crate::items::quota(&state.value) {
            self.saw("rolled over");
        }
        if some {
            self.saw("match");
        }
    }

    /// All that a customer has, feature by feature.
    pub fn everything(&mut self, customer: usize) {
        let key = self.customers[customer].key.clone();
        let rows = self.rows(
            &format!("SELECT feature, resets, (extract(epoch FROM valid_until) * 1000000)::bigint AS valid_until, {COLUMNS} FROM billing.entitlements($1)"),
            &[&key],
        );
        for feature in FEATURES {
            let expected =
                self.answer(customer, &Question { feature, asked: 1, said: Said::default(), whole: false });
            let found = rows.iter().find(|row| row.get::<_, String>("feature") == feature);
            let place = format!("{}: entitlements() of {key}: {feature}", self.place());
            let Some(row) = found else {
                assert!(expected.state.is_none(), "{place} is missing: {expected:?}");
                continue;
            };
            compare(&place, row, &expected);
            let state = expected.state.expect("a state");
            let reset = (Kind::of(feature) == Kind::Metered).then(|| state.item.reset.word());
            assert_eq!(row.get::<_, Option<&str>>("resets"), reset, "{place}");
            // What is said until then is said at every instant before it.
            let until = instant(row, "valid_until");
            let model = &self.customers[customer];
            for at in
                model.boundaries(self.now).into_iter().filter(|at| until.is_none_or(|until| *at < until))
            {
                let then = model.state(&self.plans, feature, at);
                let as_now =
                    then.as_ref().is_some_and(|s| (&s.value, s.suspended) == (&state.value, state.suspended));
                assert!(as_now, "{place} is to hold until {until:?}: {state:?}, but at {at} {then:?}");
            }
        }
        self.saw("entitlements()");
        self.limits(customer);
    }

    /// Limits and budgets, and what is used of them.
    pub fn limits(&mut self, customer: usize) {
        let key = self.customers[customer].key.clone();
        for (money, function, factor) in [(true, "spend_limits", 100), (false, "budgets", 1)] {
            let found: Vec<_> = self
                .rows(
                    &format!(
                        "SELECT (extract(epoch FROM starts_at) * 1000000)::bigint AS starts_at, (extract(epoch FROM ends_at) * 1000000)::bigint AS ends_at,
                            trim_scale(amount * {factor})::text, trim_scale(used * {factor})::text, trim_scale(reserved * {factor})::text, trim_scale(remaining * {factor})::text
                         FROM billing.{function}($1)"
                    ),
                    &[&key],
                )
                .iter()
                .map(|row| {
                    let numbers: Vec<String> = (2..6).map(|n| row.get(n)).collect();
                    (instant(row, "starts_at"), instant(row, "ends_at"), numbers)
                })
                .collect();
            let model = &self.customers[customer];
            let mine = |limit: &&Limit| limit.money == money;
            let expected: Vec<_> = (model.limits.iter().filter(mine))
                .map(|limit| {
                    let (used, reserved, period) = model.of_limit(limit, self.now);
                    let remaining = (limit.amount - used - reserved).max(0);
                    let numbers = [limit.amount, used, reserved, remaining].map(|n| n.to_string());
                    (Some(period.0), Some(period.1), numbers.to_vec())
                })
                .collect();
            assert_eq!(found, expected, "{}: {function} of {key}: {:?}", self.place(), model.limits);
        }
    }

    /// Consumes, and compares what comes of it. The key is used again now and then.
    pub fn consume(&mut self, customer: usize, feature: &'static str, n: i64) {
        self.apart(customer, feature);
        let said = self.said(feature);
        let question = Question { feature, asked: n, said, whole: true };
        let before = self.answer(customer, &question);
        let (key, call) = (self.customers[customer].key.clone(), format!("c{}-{}", self.step, self.calls));
        self.calls += 1;
        let again = self.rng.chance(10) && feature != "calls";
        for time in 0..if again { 2 } else { 1 } {
            let row = self.row(
                &format!(
                    "SELECT result, {COLUMNS} FROM billing.consume($1, $2, $3::bigint, $4, $5::text::jsonb)"
                ),
                &[&key, &feature, &n, &call, &said.json().to_string()],
            );
            let place = format!("{}: consume {n} of {feature} by {key}, {said:?}", self.place());
            let result = match (before.allowed, time) {
                (false, _) => "denied",
                (_, 0) => "consumed",
                _ => "duplicate",
            };
            assert_eq!(row.get::<_, &str>("result"), result, "{place}: {row:?}, expected {before:?}");
            let mut expected = before.clone();
            if before.allowed {
                if time == 0 {
                    self.counts(customer, feature, n, said, before.state.as_ref());
                }
                let after = self.answer(customer, &Question { asked: 0, ..question.clone() });
                expected = Answer { allowed: true, reasons: expected.reasons, ..after };
            }
            if result == "duplicate" {
                expected.reasons = vec![row.get("reason")].into_iter().map(|r: String| &*r.leak()).collect();
            }
            compare(&place, &row, &expected);
            self.saw(format!("{} {result}", Kind::of(feature).word()));
        }
        self.note(feature, &before);
    }

    /// No two uses of a meter at one instant: a real clock doesn't stand still.
    pub fn apart(&mut self, customer: usize, feature: &'static str) {
        let now = self.now;
        if self.customers[customer].uses.iter().any(|u| u.at == now && u.meter == meter_of(feature)) {
            self.set_clock(now + MICROSECOND);
        }
    }

    /// What was consumed is there from now on.
    fn counts(
        &mut self,
        customer: usize,
        feature: &'static str,
        n: i64,
        said: Said,
        state: Option<&crate::model::State>,
    ) {
        let (now, model) = (self.now, &mut self.customers[customer]);
        if feature == "calls" {
            return model.pass(state.expect("a rate"), n, now);
        }
        model.begin(&self.plans, feature, now);
        model.uses.push(Use { meter: meter_of(feature), at: now, n, said });
    }
}

/// A row of answers against the model's.
pub fn compare(place: &str, row: &Row, expected: &Answer) {
    let state = expected.state.as_ref();
    let found = (
        row.get::<_, bool>("allowed"),
        row.get::<_, Option<String>>("used"),
        row.get::<_, Option<String>>("quota"),
        row.get::<_, Option<String>>("remaining"),
        instant(row, "resets_at").map(text),
        row.get::<_, Option<String>>("source"),
        row.get::<_, Option<String>>("value").map(|v| serde_json::from_str::<Value>(&v).expect("JSON")),
    );
    let wanted = (
        expected.allowed,
        expected.used.map(|n| n.to_string()),
        expected.quota.map(|n| n.to_string()),
        expected.remaining.clone(),
        expected.resets_at.map(text),
        state.map(|state| state.sources.join(", ")),
        state.map(|state| shown(&state.value)),
    );
    let reason: &str = row.get("reason");
    assert!(
        expected.reasons.contains(&reason),
        "{place}: {reason}, not {:?}: {expected:?}",
        expected.reasons
    );
    assert_eq!(found, wanted, "{place}: {reason}: {expected:?}");
}

/// A rate limit without a burst lets one through at once.
fn shown(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(rate) = value.as_object_mut() {
        rate.entry("burst").or_insert("1".into());
    }
    value
}

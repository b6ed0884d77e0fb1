//! What is right, recomputed from the list of all that was done, anew for every question (docs/entitlements.md,
//! docs/limits.md, rules.md 9). It knows nothing of the tables.

use crate::items::{Item, Items, Kind, meter_of, of, quota};
use crate::time::{At, Grid, MICROSECOND, Reset, Stretch, Zone, window};
use chrono::{NaiveDate, TimeDelta};
use serde_json::{Value, json};
use std::rc::Rc;

pub struct AddOn {
    pub key: String,
    pub from: NaiveDate,
    pub until: NaiveDate,
    pub items: Items,
}

pub struct Contract {
    pub key: String,
    pub starts: NaiveDate,
    pub anniversary: bool,
    pub zone: Rc<Zone>,
    /// From a day on, in the order in which they were recorded.
    pub plans: Vec<(NaiveDate, usize)>,
    pub own: Vec<(NaiveDate, &'static str, Option<Item>)>,
    pub add_ons: Vec<AddOn>,
    pub pauses: Vec<(NaiveDate, NaiveDate)>,
    pub ends: Option<NaiveDate>,
}

impl Contract {
    fn midnight(&self, day: NaiveDate) -> At {
        self.zone.midnight(day)
    }

    pub fn runs(&self, at: At) -> bool {
        self.midnight(self.starts) <= at && self.ends.is_none_or(|end| at < self.midnight(end))
    }

    fn paused(&self, at: At) -> bool {
        self.pauses.iter().any(|(from, until)| self.midnight(*from) <= at && at < self.midnight(*until))
    }

    /// What holds at an instant of changes with a day each: the last one, by day and then by record.
    fn last<T>(&self, changes: impl Iterator<Item = (NaiveDate, T)>, at: At) -> Option<T> {
        let known = changes.enumerate().filter(|(_, (day, _))| self.midnight(*day) <= at);
        known.max_by_key(|(n, (day, _))| (*day, *n)).map(|(_, (_, what))| what)
    }

    /// The contract's own item of a feature, as an amendment left it.
    pub fn own(&self, feature: &str, at: At) -> Option<&Item> {
        let own = self.own.iter().filter(|(_, key, _)| *key == feature);
        self.last(own.map(|(day, _, item)| (*day, item.as_ref())), at).flatten()
    }

    /// What one level of the contract says of a feature at an instant, and who that is.
    fn says<'a>(&'a self, plans: &'a [Items], level: &str, feature: &str, at: At) -> Vec<(&'a Item, String)> {
        match level {
            "plan" => {
                let plan = self.last(self.plans.iter().copied(), at).expect("a plan");
                of(&plans[plan], feature)
                    .map(|item| (item, format!("plan of {}", self.key)))
                    .into_iter()
                    .collect()
            }
            "add_on" => {
                let holds = |a: &&AddOn| self.midnight(a.from) <= at && at < self.midnight(a.until);
                let said =
                    self.add_ons.iter().filter(holds).filter_map(|a| Some((a, of(&a.items, feature)?)));
                said.map(|(a, item)| (item, format!("add-on {} of {}", a.key, self.key))).collect()
            }
            _ => self
                .own(feature, at)
                .map(|item| (item, format!("contract {}", self.key)))
                .into_iter()
                .collect(),
        }
    }

    /// When something may become different.
    fn boundaries(&self) -> Vec<At> {
        let mut days = vec![self.starts];
        days.extend(self.ends);
        days.extend(self.plans.iter().map(|(day, _)| *day));
        days.extend(self.own.iter().map(|(day, ..)| *day));
        days.extend(self.add_ons.iter().flat_map(|a| [a.from, a.until]));
        days.extend(self.pauses.iter().flat_map(|(from, until)| [*from, *until]));
        days.into_iter().map(|day| self.midnight(day)).collect()
    }
}

/// What a customer has of a feature at an instant.
#[derive(Debug, Clone)]
pub struct State {
    pub suspended: bool,
    pub value: Value,
    pub item: Item,
    pub grid: Option<Grid>,
    pub sources: Vec<String>,
}

/// Usage: of which meter, when, how much, and its dimensions.
#[derive(Debug, Clone)]
pub struct Use {
    pub meter: &'static str,
    pub at: At,
    pub n: i64,
    pub said: Said,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Said {
    pub model: Option<&'static str>,
    pub api_key: Option<&'static str>,
}

impl Said {
    pub fn json(self) -> Value {
        let mut said = json!({});
        if let Some(model) = self.model {
            said["model"] = json!(model);
        }
        if let Some(key) = self.api_key {
            said["api_key"] = json!(key);
        }
        said
    }
}

pub struct Reservation {
    pub id: String,
    pub feature: &'static str,
    pub n: i64,
    pub said: Said,
    pub expires: At,
    /// Confirmed or released.
    pub settled: bool,
}

/// A spend limit in cents, or a budget in units of m1.
#[derive(Debug, Clone)]
pub struct Limit {
    pub money: bool,
    pub amount: i64,
    pub period: Reset,
    pub hard: bool,
    pub api_key: Option<&'static str>,
}

pub struct Block {
    pub amount: i64,
    pub from: At,
    pub until: Option<At>,
}

pub struct Customer {
    pub key: String,
    pub zone: Rc<Zone>,
    pub contracts: Vec<Contract>,
    /// Feature, value, from, until.
    pub exceptions: Vec<(&'static str, Value, At, Option<At>)>,
    pub uses: Vec<Use>,
    pub reservations: Vec<Reservation>,
    /// Windows that a first use began.
    pub windows: Vec<(&'static str, At, At)>,
    /// Who came or left, when.
    pub seats: Vec<(At, &'static str, bool)>,
    /// What has not drained of the requests of the rate limit, in units of DRAIN, and when that was so.
    pub level: (i128, At),
    pub limits: Vec<Limit>,
    pub blocks: Vec<Block>,
}

/// A request is so many units: a microsecond drains whole ones at any limit per minute, hour or day.
const DRAIN: i128 = 86_400_000_000;

#[derive(Debug, Clone)]
pub struct Question {
    pub feature: &'static str,
    pub asked: i64,
    pub said: Said,
    /// Of an event all is said; who only asks leaves open what is not said.
    pub whole: bool,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub allowed: bool,
    /// Any of these: where several things deny, it may be each of them.
    pub reasons: Vec<&'static str>,
    pub used: Option<i64>,
    pub quota: Option<i64>,
    pub remaining: Option<String>,
    pub resets_at: Option<At>,
    pub state: Option<State>,
}

impl Answer {
    fn bare(reason: &'static str, state: Option<State>) -> Answer {
        let reasons = vec![reason];
        Answer {
            allowed: reason == "allowed",
            reasons,
            used: None,
            quota: None,
            remaining: None,
            resets_at: None,
            state,
        }
    }
}

impl Customer {
    pub fn state(&self, plans: &[Items], feature: &str, at: At) -> Option<State> {
        // In the order in which they are heard: level, then the contracts as they start.
        let mut contracts: Vec<&Contract> = self.contracts.iter().filter(|k| k.runs(at)).collect();
        contracts.sort_by_key(|k| k.midnight(k.starts));
        let mut said = Vec::new();
        for level in ["plan", "add_on", "contract"] {
            for k in &contracts {
                said.extend(
                    k.says(plans, level, feature, at).into_iter().map(|(item, who)| (*k, level, item, who)),
                );
            }
        }
        let suspended = !said.is_empty() && said.iter().all(|(k, ..)| k.paused(at));
        let mut state: Option<State> = None;
        for (k, level, item, who) in said.into_iter().filter(|(k, ..)| suspended || !k.paused(at)) {
            let adds = level == "add_on" && Kind::of(feature).adds_up();
            let combine = item.combine.unwrap_or(if adds { "add" } else { "override" });
            state = Some(match state {
                Some(before) if combine != "override" => {
                    let value = combined(combine, &before.value, &item.value);
                    State { value, sources: [before.sources, vec![who]].concat(), ..before }
                }
                _ => {
                    let grid = Grid { starts: k.starts, anniversary: k.anniversary, zone: k.zone.clone() };
                    State {
                        suspended,
                        value: item.value.clone(),
                        item: item.clone(),
                        grid: Some(grid),
                        sources: vec![who],
                    }
                }
            });
        }
        for (key, value, from, until) in &self.exceptions {
            if *key == feature && *from <= at && until.is_none_or(|until| at < until) {
                let sources = vec!["override".to_owned()];
                let alone = State {
                    suspended: false,
                    value: Value::Null,
                    item: Item::bare(Value::Null),
                    grid: None,
                    sources: Vec::new(),
                };
                state = Some(State { value: value.clone(), sources, ..state.unwrap_or(alone) });
            }
        }
        state
    }

    /// The next instant at which something is said of a feature that is not said now, or no more.
    pub fn boundaries(&self, at: At) -> Vec<At> {
        let mut all: Vec<At> = self.contracts.iter().flat_map(Contract::boundaries).collect();
        all.extend(self.exceptions.iter().flat_map(|(.., from, until)| [Some(*from), *until]).flatten());
        all.retain(|b| *b > at);
        all.sort();
        all
    }

    fn used(&self, meter: &str, (from, until): Stretch, item: &Item) -> i64 {
        let counts =
            |u: &&Use| u.meter == meter && from <= u.at && u.at < until && fits(item.model, u.said.model);
        self.uses.iter().filter(counts).map(|u| u.n).sum()
    }

    fn open(&self, at: At) -> impl Iterator<Item = &Reservation> {
        self.reservations.iter().filter(move |r| !r.settled && at < r.expires)
    }

    fn reserved(&self, meter: &str, at: At, item: &Item) -> i64 {
        let counts = |r: &&Reservation| meter_of(r.feature) == meter && fits(item.model, r.said.model);
        self.open(at).filter(counts).map(|r| r.n).sum()
    }

    pub fn holders(&self, at: At) -> Vec<&'static str> {
        let mut known: Vec<_> = self.seats.iter().filter(|(when, ..)| *when <= at).collect();
        known.sort_by_key(|(when, ..)| *when);
        let mut there = Vec::new();
        for (_, who, comes) in known {
            there.retain(|w| w != who);
            if *comes {
                there.push(*who);
            }
        }
        there
    }

    /// The window of a quota; none where the first use has not begun one.
    pub fn window(&self, feature: &str, state: &State, at: At) -> Option<Stretch> {
        if let Reset::FirstUse(_) = state.item.reset {
            let mut begun = self.windows.iter().rev();
            return begun
                .find(|(key, from, until)| *key == feature && *from <= at && at < *until)
                .map(|w| (w.1, w.2));
        }
        Some(window(state.item.reset, state.grid.as_ref(), &self.zone, at))
    }

    /// A use that is counted begins a window where none runs.
    pub fn begin(&mut self, plans: &[Items], feature: &'static str, at: At) {
        if let Some(state) = self.state(plans, feature, at).filter(|state| !state.suspended)
            && let Reset::FirstUse(hours) = state.item.reset
            && self.window(feature, &state, at).is_none()
        {
            self.windows.push((feature, at, at + TimeDelta::hours(hours)));
        }
    }

    /// What rolled into the window that begins then, on today's grid: what the window before had, what had rolled into it, less
    /// what was used.
    fn rolled(
        &self,
        plans: &[Items],
        feature: &'static str,
        grid: &State,
        begins: At,
        cap: Option<i64>,
        windows: usize,
    ) -> i64 {
        let last = begins - MICROSECOND;
        let before = self.state(plans, feature, last).filter(|state| !state.suspended && windows > 0);
        let Some(before) = before else { return 0 };
        let from = window(grid.item.reset, grid.grid.as_ref(), &self.zone, last).0;
        let Some(quota) = quota(&before.value).filter(|_| from < begins) else { return 0 };
        let more =
            before.item.rollover.map_or(0, |cap| self.rolled(plans, feature, grid, from, cap, windows - 1));
        let left = (quota + more - self.used(meter_of(feature), (from, begins), &before.item)).max(0);
        cap.map_or(left, |cap| left.min(cap))
    }

    pub fn answer(&self, plans: &[Items], question: &Question, at: At) -> Answer {
        let feature = question.feature;
        let Some(state) = self.state(plans, feature, at) else { return Answer::bare("not_entitled", None) };
        let other = question.said.model.map_or(question.whole, |model| Some(model) != state.item.model);
        if state.item.model.is_some() && other {
            return Answer::bare("not_entitled", None);
        }
        if state.suspended {
            return Answer::bare("suspended", Some(state));
        }
        if state.value == json!(false) {
            return Answer::bare("not_entitled", Some(state));
        }
        let mut answer = match Kind::of(feature) {
            Kind::Metered => self.of_quota(plans, question, state, at),
            Kind::Seat => self.of_seats(question, state, at),
            Kind::Rate => return self.of_rate(question, state, at),
            Kind::Credit => self.of_credit(question, state, at),
            Kind::Boolean | Kind::Static => return Answer::bare("allowed", Some(state)),
        };
        if Kind::of(feature) != Kind::Seat && (answer.allowed || feature == "ai") {
            self.limit(question, &mut answer, at);
        }
        answer
    }

    fn of_quota(&self, plans: &[Items], question: &Question, state: State, at: At) -> Answer {
        let meter = meter_of(question.feature);
        let window = self.window(question.feature, &state, at);
        let used = window.map_or(0, |window| self.used(meter, window, &state.item))
            + self.reserved(meter, at, &state.item);
        let mut whole = quota(&state.value);
        if let (Some(cap), Some(quota), Some(window)) = (state.item.rollover, whole, window) {
            whole = Some(quota + self.rolled(plans, question.feature, &state, window.0, cap, 24));
        }
        let ends = !matches!(state.item.reset, Reset::Never | Reset::Sliding(_));
        let resets_at = window.filter(|_| ends).map(|window| window.1);
        counted(used, question.asked, whole, resets_at, state)
    }

    fn of_seats(&self, question: &Question, state: State, at: At) -> Answer {
        counted(self.holders(at).len() as i64, question.asked, quota(&state.value), None, state)
    }

    /// GCRA as a bucket that drains (rules.md 9): whole units, nothing is rounded but what remains is shown.
    fn of_rate(&self, question: &Question, state: State, at: At) -> Answer {
        let text = |field: &str| state.value.get(field).map(|v| v.as_str().expect("a text").to_owned());
        let number = |field: &str| text(field).map_or(1, |n| n.parse::<i128>().expect("a number"));
        let per = match text("per").as_deref() {
            Some("1 minute") => 60_000_000,
            Some("1 hour") => 3_600_000_000,
            _ => DRAIN,
        };
        let rate = number("limit") * DRAIN / per;
        let room = number("burst") * DRAIN - self.drained(rate, at);
        let lacks = i128::from(question.asked) * DRAIN - room;
        let waits = (lacks + rate - 1).div_euclid(rate);
        let mut answer =
            Answer::bare(if lacks <= 0 { "allowed" } else { "rate_limited" }, Some(state.clone()));
        let passes = i128::from(question.asked) <= number("burst");
        answer.resets_at = (lacks > 0 && passes).then(|| at + TimeDelta::microseconds(waits as i64));
        answer.remaining = Some(millionths(room.max(0) * 1_000_000 / DRAIN));
        answer
    }

    /// What has not drained, at the rate that holds when it is asked.
    fn drained(&self, rate: i128, at: At) -> i128 {
        (self.level.0 - rate * i128::from((at - self.level.1).num_microseconds().expect("microseconds")))
            .max(0)
    }

    /// A request of the rate limit that was allowed.
    pub fn pass(&mut self, state: &State, n: i64, at: At) {
        let text = |field: &str| state.value[field].as_str().expect("a text");
        let per = match text("per") {
            "1 minute" => 60_000_000,
            "1 hour" => 3_600_000_000,
            _ => DRAIN,
        };
        let rate = text("limit").parse::<i128>().expect("a number") * DRAIN / per;
        self.level = (self.drained(rate, at) + i128::from(n) * DRAIN, at);
    }

    /// Each event draws, in the order of time, from the blocks in force then: soonest expiry, earliest start, oldest.
    pub fn available(&self, at: At) -> i64 {
        let mut left: Vec<i64> = self.blocks.iter().map(|b| b.amount).collect();
        let in_force = |b: &Block, at: At| b.from <= at && b.until.is_none_or(|until| at < until);
        let mut order: Vec<usize> = (0..left.len()).collect();
        order.sort_by_key(|n| (self.blocks[*n].until.unwrap_or(At::MAX_UTC), self.blocks[*n].from, *n));
        let mut work: Vec<&Use> = self.uses.iter().filter(|u| u.meter == "work").collect();
        work.sort_by_key(|u| u.at);
        for event in work {
            let mut due = event.n;
            for n in order.iter().filter(|n| in_force(&self.blocks[**n], event.at)) {
                let drawn = due.min(left[*n]);
                left[*n] -= drawn;
                due -= drawn;
            }
        }
        order.iter().filter(|n| in_force(&self.blocks[**n], at)).map(|n| left[*n]).sum()
    }

    /// Who only asks is told whether there is any; what is consumed must be covered.
    fn of_credit(&self, question: &Question, state: State, at: At) -> Answer {
        let available = self.available(at);
        let enough = available > 0 && (!question.whole || question.asked <= available);
        let mut answer = Answer::bare(if enough { "allowed" } else { "no_credit" }, Some(state));
        answer.remaining = Some(available.to_string());
        answer
    }

    /// What is used of a limit, and what is reserved: cents (of m1 one each, of work a hundred), or units of m1.
    pub fn of_limit(&self, limit: &Limit, at: At) -> (i64, i64, Stretch) {
        let period = window(limit.period, None, &self.zone, at);
        let worth = |meter: &str, n: i64, said: Said| limit.worth(meter, n, said);
        let within = self.uses.iter().filter(|u| period.0 <= u.at && u.at < period.1);
        let used = within.map(|u| worth(u.meter, u.n, u.said)).sum();
        let reserved = self.open(at).map(|r| worth(meter_of(r.feature), r.n, r.said)).sum();
        (used, reserved, period)
    }

    fn limit(&self, question: &Question, answer: &mut Answer, at: At) {
        for limit in &self.limits {
            let worth = limit.worth(meter_of(question.feature), question.asked, question.said);
            let (used, reserved, _) = self.of_limit(limit, at);
            if worth == 0 || used + reserved + worth <= limit.amount {
                continue;
            }
            let reason = if limit.money { "spend_limit" } else { "budget" };
            if !limit.hard {
                // Above an overage quota, too: both are so.
                match &mut answer.reasons[..] {
                    ["overage"] => answer.reasons.push("soft_limit"),
                    _ if answer.allowed => answer.reasons = vec!["soft_limit"],
                    _ => (),
                }
            } else if answer.allowed {
                (answer.allowed, answer.reasons) = (false, vec![reason]);
            } else {
                answer.reasons.push(reason);
            }
        }
    }
}

impl Limit {
    /// What so much usage takes of it.
    fn worth(&self, meter: &str, n: i64, said: Said) -> i64 {
        match meter {
            "work" if self.money => 100 * n,
            "m1" if self.money || fits(self.api_key, said.api_key) => n,
            _ => 0,
        }
    }
}

fn fits(only: Option<&str>, said: Option<&str>) -> bool {
    only.is_none() || only == said
}

fn combined(how: &str, before: &Value, item: &Value) -> Value {
    if let (Value::Bool(a), Value::Bool(b)) = (before, item) {
        return json!(*a || *b);
    }
    match (quota(before), quota(item)) {
        (Some(a), Some(b)) => json!((if how == "add" { a + b } else { a.max(b) }).to_string()),
        _ => Value::Null,
    }
}

fn counted(used: i64, asked: i64, quota: Option<i64>, resets_at: Option<At>, state: State) -> Answer {
    let reason = match (quota, state.item.mode) {
        (None, _) => "unlimited",
        (Some(quota), _) if used + asked <= quota => "allowed",
        (_, "soft") => "soft_limit",
        (_, "overage") => "overage",
        _ => "quota_exceeded",
    };
    Answer {
        allowed: reason != "quota_exceeded",
        reasons: vec![reason],
        used: Some(used),
        quota,
        remaining: quota.map(|quota| (quota - used).max(0).to_string()),
        resets_at,
        state: Some(state),
    }
}

fn millionths(n: i128) -> String {
    let text = format!("{}.{:06}", n / 1_000_000, n % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

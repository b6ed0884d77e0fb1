//! What plans, add-ons and contracts say of a feature, at random, and as documents.

use crate::load::Rng;
use crate::time::Reset;
use serde_json::{Value, json};

/// m3 counts what m2 counts, too.
pub const FEATURES: [&str; 8] = ["m1", "m2", "m3", "flag", "text", "seats", "calls", "ai"];
pub const METERED: [&str; 3] = ["m1", "m2", "m3"];
pub const MODELS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Static,
    Metered,
    Seat,
    Rate,
    Credit,
}

impl Kind {
    pub fn of(feature: &str) -> Kind {
        match feature {
            "flag" => Kind::Boolean,
            "text" => Kind::Static,
            "seats" => Kind::Seat,
            "calls" => Kind::Rate,
            "ai" => Kind::Credit,
            _ => Kind::Metered,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Static => "static",
            Kind::Metered => "metered",
            Kind::Seat => "seat",
            Kind::Rate => "rate_limit",
            Kind::Credit => "credit",
        }
    }

    pub fn is_quota(self) -> bool {
        matches!(self, Kind::Metered | Kind::Seat)
    }

    pub fn adds_up(self) -> bool {
        !matches!(self, Kind::Static | Kind::Rate)
    }
}

/// The meter, and the type of its events.
pub fn meter_of(feature: &'static str) -> &'static str {
    match feature {
        "m3" => "m2",
        "ai" => "work",
        other => other,
    }
}

/// The item of a document. Of a quota the value `null` is unlimited.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub value: Value,
    pub reset: Reset,
    pub mode: &'static str,
    pub combine: Option<&'static str>,
    /// `Some(None)`: all of it.
    pub rollover: Option<Option<i64>>,
    /// Only usage of this model.
    pub model: Option<&'static str>,
}

pub fn pick<T: Copy>(rng: &mut Rng, list: &[T]) -> T {
    list[rng.below(list.len())]
}

fn reset(rng: &mut Rng) -> Reset {
    match rng.below(12) {
        0 | 1 => Reset::BillingPeriod,
        2 => Reset::Hour,
        3 => Reset::Day,
        4 => Reset::Week,
        5 => Reset::Month,
        6 => Reset::Year,
        7 => Reset::Anniversary(pick(rng, &["1 month", "1 month", "2 months", "10 days"])),
        8 => Reset::Sliding(pick(rng, &[5, 36])),
        9 | 10 => Reset::FirstUse(pick(rng, &[7, 36])),
        _ => Reset::Never,
    }
}

impl Item {
    /// What an exception alone gives.
    pub fn bare(value: Value) -> Item {
        Item { value, reset: Reset::BillingPeriod, mode: "hard", combine: None, rollover: None, model: None }
    }

    pub fn random_value(rng: &mut Rng, kind: Kind) -> Value {
        match kind {
            Kind::Boolean => json!(rng.chance(70)),
            Kind::Credit => json!(rng.chance(85)),
            Kind::Static => json!(format!("t{}", rng.below(3))),
            Kind::Rate => {
                let mut rate = json!({"limit": (1 + rng.below(12)).to_string(), "per": pick(rng, &["1 minute", "1 hour", "1 day"])});
                if rng.chance(80) {
                    rate["burst"] = json!((1 + rng.below(9)).to_string());
                }
                rate
            }
            _ if rng.chance(10) => Value::Null,
            Kind::Seat => json!(rng.below(6).to_string()),
            Kind::Metered => json!(rng.below(60).to_string()),
        }
    }

    /// `plain`: its value only.
    pub fn random(rng: &mut Rng, feature: &str, plain: bool) -> Item {
        let kind = Kind::of(feature);
        let mut item = Item::bare(Item::random_value(rng, kind));
        if plain {
            return item;
        }
        if kind.is_quota() {
            item.mode = pick(rng, &["hard", "hard", "soft", "overage"]);
        }
        if kind == Kind::Metered {
            item.reset = reset(rng);
            if item.reset.on_a_calendar() && rng.chance(35) {
                item.rollover = Some(rng.chance(70).then(|| rng.below(40) as i64));
            }
            item.model = rng.chance(20).then(|| pick(rng, &MODELS));
        }
        item.combine = (kind.adds_up() && rng.chance(40)).then(|| pick(rng, &["override", "add", "max"]));
        item
    }

    pub fn json(&self, feature: &str) -> Value {
        let mut item = json!({"feature": feature});
        let kind = Kind::of(feature);
        item[if kind == Kind::Rate { "rate" } else { "value" }] = self.value.clone();
        if kind.is_quota() {
            item["mode"] = json!(self.mode);
        }
        if kind == Kind::Metered {
            item["reset"] = match self.reset {
                Reset::Sliding(hours) => json!({"sliding": format!("{hours} hours")}),
                Reset::FirstUse(hours) => json!({"first_use": format!("{hours} hours")}),
                other => json!(other.word()),
            };
        }
        if let Reset::Anniversary(every) = self.reset {
            item["every"] = json!(every);
        }
        if let Some(combine) = self.combine {
            item["combine"] = json!(combine);
        }
        if let Some(cap) = self.rollover {
            item["rollover"] = cap.map_or(json!({}), |cap| json!({"cap": cap.to_string()}));
        }
        if let Some(model) = self.model {
            item["match"] = json!({ "model": model });
        }
        item
    }
}

pub type Items = Vec<(&'static str, Item)>;

pub fn of<'i>(items: &'i Items, feature: &str) -> Option<&'i Item> {
    items.iter().find(|(key, _)| *key == feature).map(|(_, item)| item)
}

/// A quota of a value: `None` is unlimited.
pub fn quota(value: &Value) -> Option<i64> {
    value.as_str().map(|text| text.parse().expect("a quantity"))
}

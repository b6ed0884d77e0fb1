//! An entitlement as a plan, an add-on, a contract or an operator says it. Its form is checked when it is read; whether it suits
//! the feature, when the feature is known ([`Item::check`]).

use super::Kind;
use crate::domain::foundation::calendar::Interval;
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::{Exact, Fault};
use std::borrow::Cow;
use std::fmt;

/// Longest stretch of time that slides, or begins with the first use.
pub const LENGTH_MAX: Length = Length(366 * 86_400);
/// Most digits of a quota, as of usage.
pub const QUOTA_DIGITS_MAX: u32 = 28;
/// Longest value of a static feature, in bytes.
pub const TEXT_BYTES_MAX: usize = 1000;

/// What is said of a value. What a text means depends on the feature: a quantity, or just text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Unlimited,
    Flag(bool),
    Text(String),
}

/// When what is used begins at 0 again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    BillingPeriod,
    Calendar(Unit),
    /// Counted from the contract's start, month ends clamped.
    Anniversary(Interval),
    Sliding(Length),
    FirstUse(Length),
    Never,
}

/// A calendar unit in the customer's zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    const WORDS: [&str; 5] = ["hour", "day", "week", "month", "year"];
    const ALL: [Unit; 5] = [Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Year];

    pub fn as_str(self) -> &'static str {
        Unit::WORDS[self as usize]
    }
}

/// A stretch of time of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Length(pub u32);

impl Length {
    const UNITS: [(&str, u32); 5] =
        [("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)];

    pub fn read(node: &Node) -> Result<Length, Fault> {
        let text = node.text()?;
        let wrong = || {
            node.fault(format!("\"{text}\" is not a length of time"))
                .with_hint("Write a count and a unit, at most 366 days: 30 minutes, 24 hours, 7 days.")
        };
        let (count, unit) = text.split_once(' ').ok_or_else(wrong)?;
        if count.is_empty() || count.len() > 8 || !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let count: u32 = count.parse().map_err(|_| wrong())?;
        let unit = unit.strip_suffix('s').unwrap_or(unit);
        let seconds = Length::UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        match count.checked_mul(seconds).map(Length) {
            Some(length) if length.0 > 0 && length <= LENGTH_MAX => Ok(length),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, seconds) = Length::UNITS
            .iter()
            .skip(1)
            .find(|(_, seconds)| self.0.is_multiple_of(*seconds))
            .expect("seconds divide");
        let count = self.0 / seconds;
        write!(f, "{count} {name}{}", if count == 1 { "" } else { "s" })
    }
}

/// What happens above the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Refused.
    #[default]
    Hard,
    /// Allowed, and said.
    Soft,
    /// Allowed, and billed by the contract's charges.
    Overage,
}

impl Mode {
    pub const WORDS: [&str; 3] = ["hard", "soft", "overage"];
    const ALL: [Mode; 3] = [Mode::Hard, Mode::Soft, Mode::Overage];

    pub fn parse(word: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        Mode::WORDS[self as usize]
    }
}

/// What it does with what was said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    Override,
    Add,
    Max,
}

impl Combine {
    pub const WORDS: [&str; 3] = ["override", "add", "max"];
    const ALL: [Combine; 3] = [Combine::Override, Combine::Add, Combine::Max];

    pub fn as_str(self) -> &'static str {
        Combine::WORDS[self as usize]
    }
}

/// So many in a time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub limit: Exact,
    pub per: Length,
    pub burst: Exact,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub feature: String,
    /// `None` = nothing is said.
    pub value: Option<Value>,
    pub reset: Option<Reset>,
    pub mode: Option<Mode>,
    /// `None` = as where it stands does: add-ons add, all others override.
    pub combine: Option<Combine>,
    /// The usage it is for, by dimensions.
    pub matches: Vec<(String, String)>,
    /// How much of what was not used is there once more; `Some(None)` = all of it.
    pub rollover: Option<Option<Exact>>,
    pub rate: Option<Rate>,
}

impl Item {
    pub fn read(node: &Node) -> Result<Item, Fault> {
        const FIELDS: [&str; 9] =
            ["feature", "value", "reset", "every", "mode", "combine", "match", "rollover", "rate"];
        let mut fields = node.fields_of(&FIELDS)?;
        let feature = read_feature(&fields.required("feature")?)?;
        let value = fields.raw("value").map(|n| read_value(&n)).transpose()?;
        let every = fields.optional("every");
        let reset = fields.optional("reset").map(|n| read_reset(&n, every.as_ref())).transpose()?;
        if let (Some(every), false) = (&every, matches!(reset, Some(Reset::Anniversary(_)))) {
            return Err(every.fault("is for \"reset\": \"anniversary\""));
        }
        let mode = fields.optional("mode").map(|n| one_of(&n, &Mode::WORDS, &Mode::ALL)).transpose()?;
        let combine =
            fields.optional("combine").map(|n| one_of(&n, &Combine::WORDS, &Combine::ALL)).transpose()?;
        let mut matches = Vec::new();
        if let Some(node) = fields.optional("match") {
            for (name, value) in node.entries()? {
                matches.push((name.to_string(), value.text()?.to_string()));
            }
            matches.sort();
        }
        let rollover = fields
            .optional("rollover")
            .map(|n| {
                let mut fields = n.fields_of(&["cap"])?;
                let cap = fields.optional("cap").map(|n| read_quantity(&n)).transpose()?;
                fields.finish()?;
                Ok::<_, Fault>(cap)
            })
            .transpose()?;
        let rate = fields.optional("rate").map(|n| read_rate(&n)).transpose()?;
        fields.finish()?;
        Ok(Item { feature, value, reset, mode, combine, matches, rollover, rate })
    }

    /// Canonical form.
    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields: Vec<(Cow<'static, str>, Tree<'static>)> =
            vec![("feature".into(), Tree::text(self.feature.clone()))];
        let mut put = |name: &'static str, tree: Tree<'static>| fields.push((name.into(), tree));
        if let Some(value) = &self.value {
            put("value", value.to_tree());
        }
        if let Some(reset) = self.reset {
            put("reset", reset.to_tree());
            if let Reset::Anniversary(every) = reset {
                put("every", Tree::text(every.to_string()));
            }
        }
        if let Some(mode) = self.mode {
            put("mode", Tree::text(mode.as_str()));
        }
        if let Some(combine) = self.combine {
            put("combine", Tree::text(combine.as_str()));
        }
        if !self.matches.is_empty() {
            put("match", self.match_tree());
        }
        if let Some(cap) = self.rollover {
            put(
                "rollover",
                cap.map_or(Tree::object([]), |cap| Tree::object([("cap", Tree::text(cap.to_string()))])),
            );
        }
        if let Some(rate) = self.rate {
            put("rate", rate.to_tree());
        }
        Tree::Object(fields)
    }

    pub fn match_tree(&self) -> Tree<'static> {
        let entry = |(name, value): &(String, String)| (name.clone().into(), Tree::text(value.clone()));
        Tree::Object(self.matches.iter().map(entry).collect())
    }

    /// Whether it says what a feature of this kind can have; `path` is where it stands.
    pub fn check(&self, kind: Kind, path: &str) -> Result<(), Fault> {
        let word = kind.as_str();
        let at = |field: &str| if path.is_empty() { field.to_string() } else { format!("{path}.{field}") };
        let refuse = |field: &str, said: bool| match said {
            true => Err(Fault::document(
                &at(field),
                format!("is not for {word} features such as {}", self.feature),
            )),
            false => Ok(()),
        };
        refuse("reset", self.reset.is_some() && kind != Kind::Metered)?;
        refuse("rollover", self.rollover.is_some() && kind != Kind::Metered)?;
        refuse("match", !self.matches.is_empty() && kind != Kind::Metered)?;
        refuse("mode", self.mode.is_some() && !kind.has_quota())?;
        refuse("rate", self.rate.is_some() && kind != Kind::RateLimit)?;
        refuse("value", self.value.is_some() && kind == Kind::RateLimit)?;
        let alone = matches!(kind, Kind::Static | Kind::RateLimit);
        if let (Some(combine @ (Combine::Add | Combine::Max)), true) = (self.combine, alone) {
            let message = format!("{} is not for {word} features: they don't add up", combine.as_str());
            return Err(Fault::document(&at("combine"), message).with_hint("Use override."));
        }
        if let (Some(_), Some(Reset::Sliding(_) | Reset::FirstUse(_) | Reset::Never)) =
            (self.rollover, self.reset)
        {
            return Err(Fault::document(&at("rollover"), "is for quotas that reset on a calendar")
                .with_hint(
                    "Reset by billing_period, anniversary, hour, day, week, month or year, or leave it out.",
                ));
        }
        match kind {
            Kind::Boolean | Kind::Credit => match &self.value {
                None | Some(Value::Flag(_)) => Ok(()),
                Some(_) => Err(Fault::document(
                    &at("value"),
                    format!("must be true or false: {} is a {word} feature", self.feature),
                )),
            },
            Kind::Static => match &self.value {
                Some(Value::Text(_)) => Ok(()),
                _ => Err(Fault::document(
                    &at("value"),
                    format!("must be a string: {} is a static feature", self.feature),
                )),
            },
            Kind::Metered | Kind::Seat => self.quota(path).map(drop),
            Kind::RateLimit => match self.rate {
                Some(_) => Ok(()),
                None => Err(Fault::document(&at("rate"), "is missing").with_hint(
                    "Say how often: {\"limit\": \"10\", \"per\": \"1 second\", \"burst\": \"5\"}.",
                )),
            },
        }
    }

    /// Its quantity; `None` = unlimited.
    pub fn quota(&self, path: &str) -> Result<Option<Exact>, Fault> {
        let at = if path.is_empty() { "value".to_string() } else { format!("{path}.value") };
        let hint = "Write a quantity, \"0\" for none, or null for unlimited.";
        match &self.value {
            Some(Value::Unlimited) => Ok(None),
            Some(Value::Text(text)) => {
                let tree = Tree::text(text.clone());
                read_quantity(&Node { tree: &tree, path: at })
                    .map(Some)
                    .map_err(|fault| fault.with_hint(hint))
            }
            None => Err(Fault::document(&at, "is missing").with_hint(hint)),
            Some(Value::Flag(_)) => {
                Err(Fault::document(&at, "must be a quantity in a string, or null").with_hint(hint))
            }
        }
    }

    /// Whether a boolean or credit feature may be used.
    pub fn flag(&self) -> bool {
        self.value != Some(Value::Flag(false))
    }
}

impl Value {
    pub fn to_tree(&self) -> Tree<'static> {
        match self {
            Value::Unlimited => Tree::Null,
            Value::Flag(flag) => Tree::Bool(*flag),
            Value::Text(text) => Tree::text(text.clone()),
        }
    }
}

impl Reset {
    fn to_tree(self) -> Tree<'static> {
        match self {
            Reset::BillingPeriod => Tree::text("billing_period"),
            Reset::Calendar(unit) => Tree::text(unit.as_str()),
            Reset::Anniversary(_) => Tree::text("anniversary"),
            Reset::Sliding(length) => Tree::object([("sliding", Tree::text(length.to_string()))]),
            Reset::FirstUse(length) => Tree::object([("first_use", Tree::text(length.to_string()))]),
            Reset::Never => Tree::text("never"),
        }
    }

    /// The word it is stored by.
    pub fn word(self) -> &'static str {
        match self {
            Reset::BillingPeriod => "billing_period",
            Reset::Calendar(unit) => unit.as_str(),
            Reset::Anniversary(_) => "anniversary",
            Reset::Sliding(_) => "sliding",
            Reset::FirstUse(_) => "first_use",
            Reset::Never => "never",
        }
    }
}

impl Rate {
    pub fn to_tree(self) -> Tree<'static> {
        Tree::object([
            ("limit", Tree::text(self.limit.to_string())),
            ("per", Tree::text(self.per.to_string())),
            ("burst", Tree::text(self.burst.to_string())),
        ])
    }
}

/// A feature's key: it stands in keys of terms, between `:` and `/`.
pub fn read_feature(node: &Node) -> Result<String, Fault> {
    let key = node.key()?;
    if key.contains(['/', ':']) {
        return Err(node.fault("must not contain / or :"));
    }
    Ok(key.to_string())
}

fn one_of<T: Copy>(node: &Node, words: &[&str], all: &[T]) -> Result<T, Fault> {
    let word = node.word(words)?;
    Ok(all[words.iter().position(|w| *w == word).expect("a word of the list")])
}

fn read_quantity(node: &Node) -> Result<Exact, Fault> {
    let quantity = node.decimal()?;
    if quantity.is_negative() {
        return Err(node.fault(format!("{quantity} must not be below 0")));
    }
    if quantity.digits() > QUOTA_DIGITS_MAX {
        return Err(node.fault(format!("{quantity} has more than {QUOTA_DIGITS_MAX} digits")));
    }
    Ok(quantity)
}

pub fn read_value(node: &Node) -> Result<Value, Fault> {
    Ok(match node.tree {
        Tree::Null => Value::Unlimited,
        Tree::Bool(flag) => Value::Flag(*flag),
        Tree::Text(text) if text.len() > TEXT_BYTES_MAX => {
            return Err(node.fault(format!("has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len())));
        }
        Tree::Text(text) => Value::Text(text.to_string()),
        Tree::Number(number) => {
            return Err(node
                .fault("must be a decimal in a string, not a number")
                .with_hint(format!("Write \"{number}\" in quotes.")));
        }
        _ => return Err(node.fault("must be a string, true, false or null")),
    })
}

fn read_reset(node: &Node, every: Option<&Node>) -> Result<Reset, Fault> {
    const HINT: &str = "Use billing_period, hour, day, week, month, year, anniversary, never, {\"sliding\": \"24 hours\"} or {\"first_use\": \"7 days\"}.";
    if let Tree::Text(word) = node.tree {
        return match word.as_ref() {
            "billing_period" => Ok(Reset::BillingPeriod),
            "never" => Ok(Reset::Never),
            "anniversary" => {
                let every =
                    every.map(|n| Interval::parse(n.text()?).map_err(|fault| n.rehint(fault))).transpose()?;
                Ok(Reset::Anniversary(every.unwrap_or(Interval::Months(1))))
            }
            word => match Unit::ALL.into_iter().find(|unit| unit.as_str() == word) {
                Some(unit) => Ok(Reset::Calendar(unit)),
                None => Err(node.fault(format!("\"{word}\" is not known")).with_hint(HINT)),
            },
        };
    }
    let mut fields = node.fields_of(&["sliding", "first_use"]).map_err(|fault| fault.with_hint(HINT))?;
    let reset = match (fields.optional("sliding"), fields.optional("first_use")) {
        (Some(length), None) => Reset::Sliding(Length::read(&length)?),
        (None, Some(length)) => Reset::FirstUse(Length::read(&length)?),
        _ => return Err(node.fault("must have either sliding or first_use").with_hint(HINT)),
    };
    fields.finish()?;
    Ok(reset)
}

pub fn read_rate(node: &Node) -> Result<Rate, Fault> {
    let mut fields = node.fields_of(&["limit", "per", "burst"])?;
    let limit = fields.required("limit")?.positive()?;
    let per = Length::read(&fields.required("per")?)?;
    let burst = fields.optional("burst").map(|n| n.positive()).transpose()?.unwrap_or(Exact::from_i64(1));
    fields.finish()?;
    Ok(Rate { limit, per, burst })
}

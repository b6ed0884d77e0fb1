//! Events as other systems write them. An adapter turns one element of their documents into the native event's
//! fields and nothing else: bounds, identity and hashes are the native reader's, so an event is the same event in
//! whichever format it comes. What an adapter can't read it refuses with the sender's own field names.

mod cloudevents;
mod lago;
mod metronome;
mod orb;
mod stripe;
#[cfg(test)]
mod tests;

use super::event::{FIELDS, Problem, reason, wrong_type};
use crate::domain::foundation::decimal::quoted;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::Tree;
use std::borrow::Cow;

/// In which form a document's events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Native,
    CloudEvents,
    Stripe,
    Orb,
    Metronome,
    Lago,
}

impl Format {
    pub const ALL: [Format; 6] =
        [Format::Native, Format::CloudEvents, Format::Stripe, Format::Orb, Format::Metronome, Format::Lago];

    /// The format of a name, as [`name`](Format::name) writes it.
    pub fn named(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Format::Native => "native",
            Format::CloudEvents => "cloudevents",
            Format::Stripe => "stripe",
            Format::Orb => "orb",
            Format::Metronome => "metronome",
            Format::Lago => "lago",
        }
    }

    /// The members of a document's object that hold events: a list of them, or one.
    pub(super) fn wrappers(self) -> &'static [&'static str] {
        match self {
            Format::Native | Format::CloudEvents | Format::Metronome => &[],
            Format::Stripe | Format::Orb => &["events"],
            Format::Lago => &["events", "event"],
        }
    }

    /// The native event in an element of the document.
    pub(super) fn adapt<'t>(self, tree: Tree<'t>) -> Result<Adapted<'t>, Problem> {
        let Tree::Object(fields) = tree else {
            return Err(wrong_type("event", "an object", &tree).with_reason(reason::BAD_JSON));
        };
        let fields = Fields(fields);
        match self {
            Format::Native => Ok(Native::sort(fields)?.adapted(NATIVE)),
            Format::CloudEvents => cloudevents::adapt(fields),
            Format::Stripe => stripe::adapt(fields),
            Format::Orb => orb::adapt(fields),
            Format::Metronome => metronome::adapt(fields),
            Format::Lago => lago::adapt(fields),
        }
    }
}

/// What the sender calls the fields of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub customer: &'static str,
    pub event_id: &'static str,
    pub event_type: &'static str,
    pub occurred_at: &'static str,
    pub properties: &'static str,
    pub bill_to: &'static str,
}

pub(super) const NATIVE: Places = Places {
    customer: "customer",
    event_id: "event_id",
    event_type: "event_type",
    occurred_at: "occurred_at",
    properties: "properties",
    bill_to: "bill_to",
};

impl Places {
    /// A message of the native reader, which begins with a path of its own, with the sender's names.
    pub fn of(&self, message: String) -> String {
        let fields = [
            (NATIVE.customer, self.customer),
            (NATIVE.event_id, self.event_id),
            (NATIVE.event_type, self.event_type),
            (NATIVE.occurred_at, self.occurred_at),
            (NATIVE.properties, self.properties),
            (NATIVE.bill_to, self.bill_to),
        ];
        for (native, theirs) in fields {
            if let Some(rest) = message.strip_prefix(native)
                && rest.starts_with([':', '.', '['])
                && native != theirs
            {
                return format!("{theirs}{rest}");
            }
        }
        message
    }
}

/// A native event's fields, and what they were called.
pub(super) struct Adapted<'t> {
    pub native: Native<'t>,
    pub places: Places,
}

/// The members of a sender's event that are not taken yet.
struct Fields<'t>(Vec<(Cow<'t, str>, Tree<'t>)>);

impl<'t> Fields<'t> {
    /// A member, which then is gone; none if it is absent or null.
    fn take(&mut self, name: &str) -> Option<Tree<'t>> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.0.swap_remove(at);
        (value != Tree::Null).then_some(value)
    }

    /// Drops what the sender's own system adds and no meter needs.
    fn ignore(&mut self, names: &[&str]) {
        self.0.retain(|(key, _)| !names.contains(&key.as_ref()));
    }

    /// Refuses what is left: a misspelled field must not be lost in silence.
    fn finish(self, names: &str) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(unknown_field(key, names)),
        }
    }
}

/// The fields of a native event, as far as the sender gave them, before their types are known.
#[derive(Default)]
pub(super) struct Native<'t> {
    pub customer: Option<Tree<'t>>,
    pub event_id: Option<Tree<'t>>,
    pub event_type: Option<Tree<'t>>,
    pub occurred_at: Option<Tree<'t>>,
    pub properties: Option<Tree<'t>>,
    pub bill_to: Option<Tree<'t>>,
}

impl<'t> Native<'t> {
    /// Our own format needs no renaming.
    fn sort(fields: Fields<'t>) -> Result<Native<'t>, Problem> {
        let mut native = Native::default();
        for (name, value) in fields.0 {
            let place = match name.as_ref() {
                "customer" => &mut native.customer,
                "event_id" => &mut native.event_id,
                "event_type" => &mut native.event_type,
                "occurred_at" => &mut native.occurred_at,
                "properties" => &mut native.properties,
                "bill_to" => &mut native.bill_to,
                _ => return Err(unknown_field(&name, FIELDS)),
            };
            *place = Some(value);
        }
        Ok(native)
    }

    fn adapted(self, places: Places) -> Adapted<'t> {
        Adapted { native: self, places }
    }
}

fn unknown_field(key: &str, names: &str) -> Problem {
    let message = format!("{}: is not a field of an event ({names})", quoted(key));
    Problem::new(reason::UNKNOWN_FIELD, message)
}

/// One of two members that both name the customer.
fn either<'t>(
    fields: &mut Fields<'t>,
    first: &str,
    second: &str,
) -> Result<(Option<Tree<'t>>, bool), Problem> {
    match (fields.take(first), fields.take(second)) {
        (Some(_), Some(_)) => {
            let message = format!("{first}: stands beside {second}; give one of them");
            Err(Problem::new(reason::BAD_VALUE, message))
        }
        (Some(value), None) => Ok((Some(value), true)),
        (None, value) => Ok((value, false)),
    }
}

/// A decimal as JSON would write it, without an exponent: `-12.50`.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
}

/// The number that a string is, if it is one.
fn number<'t>(value: Tree<'t>) -> Tree<'t> {
    match value {
        Tree::Text(text) if is_decimal(&text) => Tree::Number(text),
        other => other,
    }
}

/// Numbers that are sent as strings, as numbers: only where the string is the number's one canonical text (`25`,
/// `-1.5`), so that a dimension, a filter or a distinct value reads the same as before. `1.50`, `007` and `1e3`
/// stay strings.
fn canonical_numbers<'t>(properties: Option<Tree<'t>>) -> Option<Tree<'t>> {
    let Some(Tree::Object(mut fields)) = properties else { return properties };
    for (_, value) in &mut fields {
        if let Tree::Text(text) = value
            && is_decimal(text)
        {
            let number = Tree::Number(std::mem::take(text));
            let canonical = number.canonical();
            let Tree::Number(text) = number else { unreachable!("it was made a line ago") };
            let same = canonical.is_ok_and(|canonical| canonical == text);
            *value = if same { Tree::Number(text) } else { Tree::Text(text) };
        }
    }
    Some(Tree::Object(fields))
}

/// Seconds since 1970 as a number, or as a string of one, as the text of an instant; any other value as it is.
fn unix_time<'t>(value: Option<Tree<'t>>, place: &str) -> Result<Option<Tree<'t>>, Problem> {
    let text = match &value {
        Some(Tree::Number(text)) => text,
        Some(Tree::Text(text)) if is_decimal(text) => text,
        _ => return Ok(value),
    };
    match unix_instant(text) {
        Some(at) => Ok(Some(Tree::text(at.to_string()))),
        None => {
            let message = format!(
                "{place}: {} is not a number of seconds since 1970 in the years 1 to 9999",
                quoted(text)
            );
            Err(Problem::new(reason::BAD_TIME, message))
        }
    }
}

/// The instant so many seconds after 1970, read digit by digit; digits beyond the microsecond are cut, so that
/// no instant moves later.
fn unix_instant(text: &str) -> Option<Instant> {
    const YEAR_1: i64 = -62_135_596_800;
    const YEAR_10000: i64 = 253_402_300_800;
    if !is_decimal(text) {
        return None;
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let seconds: i64 = whole.parse().ok()?;
    let (kept, cut) = fraction.split_at(fraction.len().min(6));
    let micros: i64 = format!("{kept:0<6}").parse().ok()?;
    let magnitude = seconds.checked_mul(1_000_000)?.checked_add(micros)?;
    let at = if unsigned.len() == text.len() {
        magnitude
    } else {
        -magnitude - i64::from(cut.bytes().any(|digit| digit != b'0'))
    };
    (YEAR_1 * 1_000_000..YEAR_10000 * 1_000_000).contains(&at).then_some(Instant(at))
}

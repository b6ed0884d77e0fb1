//! One event: its fields, their bounds, its identity; and what is kept of an event that was refused.

use super::format::{Adapted, Format, Native, Places};
use super::scan::{self, Misread, Scanner, Trouble};
use crate::domain::foundation::decimal::quoted;
use crate::domain::foundation::fault::{Code, Fault};
use crate::domain::foundation::hash::{sha256_i64, text_key};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{KEY_BYTES_MAX, Tree, check_key, write_text};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write;
use uuid::Uuid;

/// Longest `event_id` in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 255;
/// Largest `properties` in bytes of canonical JSON.
pub const PROPERTIES_BYTES_MAX: usize = 16 * 1024;
/// Deepest `properties`: the object itself is the first level.
pub const PROPERTIES_DEPTH_MAX: usize = 8;

pub(super) const FIELDS: &str = "customer, event_id, event_type, occurred_at, properties, bill_to";

/// Why an event was refused, as words that programs may compare. They never change.
pub mod reason {
    /// Not an object, a broken escape, `\u0000`, or one key twice.
    pub const BAD_JSON: &str = "bad_json";
    /// A required field is not there.
    pub const MISSING_FIELD: &str = "missing_field";
    /// A field that events don't have.
    pub const UNKNOWN_FIELD: &str = "unknown_field";
    /// A field of the wrong type, empty, or with characters a key can't have.
    pub const BAD_VALUE: &str = "bad_value";
    /// `occurred_at` is not RFC 3339 with an offset.
    pub const BAD_TIME: &str = "bad_time";
    /// A field or the properties have too many bytes.
    pub const TOO_LARGE: &str = "too_large";
    /// The properties have too many levels.
    pub const TOO_DEEP: &str = "too_deep";
    /// A number of more than 28 digits.
    pub const NUMBER_OUT_OF_BOUNDS: &str = "number_out_of_bounds";
    /// A meter that reads this event can't use what it found.
    pub const METER_REFUSED: &str = "meter_refused";
}

/// A validated event. Texts are borrowed from the call's document where they stand there as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'t> {
    pub customer: Cow<'t, str>,
    pub event_id: Cow<'t, str>,
    /// The stored identity of `event_id` ([`text_key`]).
    pub event_key: Uuid,
    pub event_type: Cow<'t, str>,
    pub occurred_at: Instant,
    pub bill_to: Option<Cow<'t, str>>,
    /// Canonical JSON text of an object.
    pub properties: String,
    /// Says whether a repeated event id brings the same event: see [`content_hash`].
    pub content_hash: i64,
}

impl Event<'_> {
    /// Its fields, as a caller would give them.
    pub fn parts(&self) -> EventParts<'_> {
        EventParts {
            customer: &self.customer,
            event_id: &self.event_id,
            event_type: &self.event_type,
            occurred_at: self.occurred_at,
            bill_to: self.bill_to.as_deref(),
            properties: &self.properties,
        }
    }

    /// The same event with texts of its own.
    pub fn into_owned(self) -> Event<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Event {
            customer: owned(self.customer),
            event_id: owned(self.event_id),
            event_key: self.event_key,
            event_type: owned(self.event_type),
            occurred_at: self.occurred_at,
            bill_to: self.bill_to.map(owned),
            properties: self.properties,
            content_hash: self.content_hash,
        }
    }
}

/// An event that was refused, with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// One of the words of [`reason`].
    pub reason: &'static str,
    /// What is wrong, after the JSON path, with the value in it.
    pub message: String,
    /// The customer, if it can be read and could be a customer's key.
    pub customer: Option<String>,
    /// The event id, if it can be read and could be one.
    pub event_id: Option<String>,
    /// The event's own text, whole and unchanged.
    pub raw: String,
    /// The form of that text.
    pub format: Format,
}

impl From<Rejection> for Fault {
    /// What the single-event call raises.
    fn from(rejection: Rejection) -> Fault {
        Fault::new(Code::EventRejected, format!("event rejected: {}", rejection.message))
            .with_detail(format!("reason {}", rejection.reason))
    }
}

/// An event whose fields a caller has in hand already.
#[derive(Debug, Clone, Copy)]
pub struct EventParts<'t> {
    pub customer: &'t str,
    pub event_id: &'t str,
    pub event_type: &'t str,
    pub occurred_at: Instant,
    pub bill_to: Option<&'t str>,
    /// JSON text of an object.
    pub properties: &'t str,
}

/// A reason and its message, before it is known whose event it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub reason: &'static str,
    pub message: String,
}

impl Problem {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Problem {
        Problem { reason, message: message.into() }
    }

    pub fn misread(misread: &Misread) -> Problem {
        let reason = match misread.trouble {
            Trouble::Depth => reason::TOO_DEEP,
            _ => reason::BAD_JSON,
        };
        let place = if misread.path.is_empty() { "event" } else { &misread.path };
        Problem::new(reason, format!("{place}: {}", misread.reason()))
    }

    /// The same for another reason.
    pub fn with_reason(mut self, reason: &'static str) -> Problem {
        self.reason = reason;
        self
    }

    /// The same with the sender's names of the fields.
    pub fn at(mut self, places: &Places) -> Problem {
        self.message = places.of(self.message);
        self
    }

    /// The rejection of the event that stands in `raw`.
    pub fn of_text(self, raw: &str, format: Format) -> Rejection {
        let (customer, event_id) = names(raw, format);
        let Problem { reason, message } = self;
        Rejection { reason, message, customer, event_id, raw: raw.to_string(), format }
    }
}

/// Customer and event id of a refused event, as far as they can be read.
fn names(raw: &str, format: Format) -> (Option<String>, Option<String>) {
    if format != Format::Native {
        return adapted_names(raw, format);
    }
    #[derive(Deserialize)]
    struct Names<'a> {
        #[serde(borrow)]
        customer: Option<&'a RawValue>,
        #[serde(borrow)]
        event_id: Option<&'a RawValue>,
    }
    let Ok(names) = serde_json::from_str::<Names>(raw) else { return (None, None) };
    let text = |raw: Option<&RawValue>| serde_json::from_str::<String>(raw?.get()).ok();
    (text(names.customer).and_then(possible_customer), text(names.event_id).and_then(possible_event_id))
}

fn adapted_names(raw: &str, format: Format) -> (Option<String>, Option<String>) {
    let adapted = scan::read(raw, PROPERTIES_DEPTH_MAX + 1).ok().and_then(|tree| format.adapt(tree).ok());
    let Some(Adapted { native, .. }) = adapted else { return (None, None) };
    let text = |value: Option<Tree<'_>>| match value? {
        Tree::Text(text) => Some(text.to_string()),
        _ => None,
    };
    (text(native.customer).and_then(possible_customer), text(native.event_id).and_then(possible_event_id))
}

fn possible_customer(text: String) -> Option<String> {
    check_key(&text).is_ok().then_some(text)
}

fn possible_event_id(text: String) -> Option<String> {
    check_event_id(&text).is_ok().then_some(text)
}

/// Buffers that the events of one call share.
#[derive(Default)]
pub(super) struct Scratch {
    content: String,
}

/// Reads the event in `tree`; its properties stay a tree for whoever measures them.
pub(super) fn from_tree<'t>(
    tree: Tree<'t>,
    format: Format,
    scratch: &mut Scratch,
) -> Result<(Event<'t>, Tree<'t>), Problem> {
    let Adapted { native, places } = format.adapt(tree)?;
    from_native(native, scratch).map_err(|problem| problem.at(&places))
}

fn from_native<'t>(found: Native<'t>, scratch: &mut Scratch) -> Result<(Event<'t>, Tree<'t>), Problem> {
    let customer = required_text(found.customer, "customer")?;
    let event_id = required_text(found.event_id, "event_id")?;
    let event_type = required_text(found.event_type, "event_type")?;
    let occurred_at = required_text(found.occurred_at, "occurred_at")?;
    let occurred_at = Instant::parse(&occurred_at).map_err(|fault| {
        let hint = fault.hint.as_deref().unwrap_or_default();
        Problem::new(reason::BAD_TIME, format!("occurred_at: {}. {hint}", fault.message))
    })?;
    let bill_to = match found.bill_to {
        None | Some(Tree::Null) => None,
        Some(Tree::Text(text)) => Some(text),
        Some(other) => return Err(wrong_type("bill_to", "a string", &other)),
    };
    let properties = match found.properties {
        None | Some(Tree::Null) => Tree::Object(Vec::new()),
        Some(tree) => tree,
    };
    let fields = Fields { customer, event_id, event_type, occurred_at, bill_to };
    let event = fields.check(&properties, scratch)?;
    Ok((event, properties))
}

/// Reads one event from its parts, with the same checks and the same result as from a document.
pub fn read_event(parts: EventParts<'_>) -> Result<Event<'_>, Rejection> {
    read_parts(parts).map(|(event, _)| event).map_err(|problem| reject_parts(parts, problem))
}

pub(super) fn read_parts(parts: EventParts<'_>) -> Result<(Event<'_>, Tree<'_>), Problem> {
    let properties = scan::read(parts.properties, PROPERTIES_DEPTH_MAX).map_err(|misread| {
        let path = match misread.path.as_str() {
            "" => "properties".to_string(),
            inner => format!("properties.{inner}"),
        };
        Problem::misread(&Misread { trouble: misread.trouble, path })
    })?;
    let fields = Fields {
        customer: Cow::Borrowed(parts.customer),
        event_id: Cow::Borrowed(parts.event_id),
        event_type: Cow::Borrowed(parts.event_type),
        occurred_at: parts.occurred_at,
        bill_to: parts.bill_to.map(Cow::Borrowed),
    };
    let event = fields.check(&properties, &mut Scratch::default())?;
    Ok((event, properties))
}

/// The rejection of an event that came in parts; its raw text is the event a document would hold.
pub(super) fn reject_parts(parts: EventParts<'_>, problem: Problem) -> Rejection {
    let mut raw = String::from("{\"customer\":");
    write_text(&mut raw, parts.customer);
    for (name, text) in [("event_id", parts.event_id), ("event_type", parts.event_type)] {
        write!(raw, ",\"{name}\":").expect("writing to a string can't fail");
        write_text(&mut raw, text);
    }
    write!(raw, ",\"occurred_at\":\"{}\"", parts.occurred_at).expect("writing to a string can't fail");
    if let Some(bill_to) = parts.bill_to {
        raw.push_str(",\"bill_to\":");
        write_text(&mut raw, bill_to);
    }
    raw.push_str(",\"properties\":");
    raw.push_str(parts.properties);
    raw.push('}');
    Rejection {
        reason: problem.reason,
        message: problem.message,
        customer: possible_customer(parts.customer.to_string()),
        event_id: possible_event_id(parts.event_id.to_string()),
        raw,
        format: Format::Native,
    }
}

/// The fields that are not properties, with their types, before their bounds are checked.
struct Fields<'t> {
    customer: Cow<'t, str>,
    event_id: Cow<'t, str>,
    event_type: Cow<'t, str>,
    occurred_at: Instant,
    bill_to: Option<Cow<'t, str>>,
}

impl<'t> Fields<'t> {
    fn check(self, properties: &Tree<'_>, scratch: &mut Scratch) -> Result<Event<'t>, Problem> {
        let keys = [
            ("customer", Some(&self.customer)),
            ("event_type", Some(&self.event_type)),
            ("bill_to", self.bill_to.as_ref()),
        ];
        for (name, key) in keys {
            if let Some(key) = key {
                check_key(key).map_err(|why| {
                    let long = key.len() > KEY_BYTES_MAX;
                    let reason = if long { reason::TOO_LARGE } else { reason::BAD_VALUE };
                    Problem::new(reason, format!("{name}: {} {why}", quoted(key)))
                })?;
            }
        }
        check_event_id(&self.event_id)?;
        let properties = canonical_properties(properties)?;
        let content_hash = content_hash_in(&mut scratch.content, &self, &properties);
        let Fields { customer, event_id, event_type, occurred_at, bill_to } = self;
        let event_key = text_key(&event_id);
        Ok(Event {
            customer,
            event_id,
            event_key,
            event_type,
            occurred_at,
            bill_to,
            properties,
            content_hash,
        })
    }
}

fn check_event_id(id: &str) -> Result<(), Problem> {
    if id.is_empty() {
        return Err(Problem::new(reason::BAD_VALUE, "event_id: is empty"));
    }
    if id.len() > EVENT_ID_BYTES_MAX {
        let message =
            format!("event_id: {} has {} bytes; at most {EVENT_ID_BYTES_MAX}", quoted(id), id.len());
        return Err(Problem::new(reason::TOO_LARGE, message));
    }
    if id.contains('\0') {
        return Err(Problem::new(reason::BAD_JSON, "event_id: contains \\u0000"));
    }
    Ok(())
}

fn canonical_properties(properties: &Tree<'_>) -> Result<String, Problem> {
    if !matches!(properties, Tree::Object(_)) {
        return Err(wrong_type("properties", "an object", properties));
    }
    let mut text = String::with_capacity(192);
    properties.write_canonical(&mut text).map_err(|fault| {
        Problem::new(reason::NUMBER_OUT_OF_BOUNDS, format!("properties.{}", fault.message))
    })?;
    if text.len() > PROPERTIES_BYTES_MAX {
        let message = format!("properties: have {} bytes; at most {PROPERTIES_BYTES_MAX}", text.len());
        return Err(Problem::new(reason::TOO_LARGE, message));
    }
    Ok(text)
}

/// The first 64 bits of SHA-256 of the canonical JSON array
/// `[event_type, microseconds of occurred_at since 1970 (UTC), bill_to or null, properties]`, for example
/// `["llm.request",1772359200000000,null,{"input_tokens":812,"model":"gpt-4"}]`.
/// Spacing, key order, number form, escapes and the UTC offset make no difference. Stored for ever.
pub fn content_hash(event: &Event<'_>) -> i64 {
    let fields = Fields {
        customer: Cow::Borrowed(""),
        event_id: Cow::Borrowed(""),
        event_type: Cow::Borrowed(&event.event_type),
        occurred_at: event.occurred_at,
        bill_to: event.bill_to.as_deref().map(Cow::Borrowed),
    };
    content_hash_in(&mut String::new(), &fields, &event.properties)
}

fn content_hash_in(content: &mut String, fields: &Fields<'_>, properties: &str) -> i64 {
    content.clear();
    content.push('[');
    write_text(content, &fields.event_type);
    write!(content, ",{},", fields.occurred_at.0).expect("writing to a string can't fail");
    match &fields.bill_to {
        None => content.push_str("null"),
        Some(bill_to) => write_text(content, bill_to),
    }
    content.push(',');
    content.push_str(properties);
    content.push(']');
    sha256_i64(content.as_bytes())
}

pub(super) fn required_text<'t>(value: Option<Tree<'t>>, name: &str) -> Result<Cow<'t, str>, Problem> {
    match value {
        Some(Tree::Text(text)) => Ok(text),
        None => Err(Problem::new(reason::MISSING_FIELD, format!("{name}: is missing"))),
        Some(other) => Err(wrong_type(name, "a string", &other)),
    }
}

pub(super) fn wrong_type(name: &str, expected: &str, found: &Tree<'_>) -> Problem {
    let shown = match found {
        Tree::Number(text) => format!("the number {}", quoted(text)),
        other => kind(other).to_string(),
    };
    Problem::new(reason::BAD_VALUE, format!("{name}: must be {expected}, not {shown}"))
}

fn kind(tree: &Tree<'_>) -> &'static str {
    match tree {
        Tree::Null => "null",
        Tree::Bool(true) => "true",
        Tree::Bool(false) => "false",
        Tree::Number(_) => "a number",
        Tree::Text(_) => "a string",
        Tree::List(_) => "an array",
        Tree::Object(_) => "an object",
    }
}

/// Reads the event at the scanner, which stands on its first character; levels are those of an event.
pub(super) fn scan_event<'t>(scanner: &mut Scanner<'t>) -> Result<Tree<'t>, Box<Misread>> {
    scanner.value(PROPERTIES_DEPTH_MAX + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ingestion::{read_batch, read_event};
    use proptest::prelude::*;

    const GOOD: &str = r#"{"customer":"acme","event_id":"req-81","event_type":"llm.request",
        "occurred_at":"2026-03-01T10:00:00Z","properties":{"model":"gpt-4","input_tokens":812}}"#;

    fn one(text: &str) -> Result<Event<'_>, Rejection> {
        let mut events = read_batch(text).unwrap();
        assert_eq!(events.len(), 1, "{text}");
        events.remove(0)
    }

    fn good(text: &str) -> Event<'_> {
        one(text).unwrap()
    }

    /// An event in which one field's JSON text is replaced.
    fn with(name: &str, json: &str) -> String {
        let field = |n: &str, usual: &str| format!("\"{n}\":{}", if n == name { json } else { usual });
        let usual = [
            ("customer", "\"acme\""),
            ("event_id", "\"e\""),
            ("event_type", "\"t\""),
            ("occurred_at", "\"2026-03-01T10:00:00Z\""),
            ("properties", "{}"),
            ("bill_to", "null"),
        ];
        format!("{{{}}}", usual.map(|(n, usual)| field(n, usual)).join(","))
    }

    /// Keys and hashes are stored for ever, so these never change.
    #[test]
    fn golden_identities() {
        let event = good(GOOD);
        assert_eq!(event.properties, r#"{"input_tokens":812,"model":"gpt-4"}"#);
        assert_eq!(event.content_hash, 6_678_324_943_713_160_558);
        assert_eq!(event.event_key.to_string(), "868986b2-5f96-81a1-94a8-90a2297fde03");
        let empty = with("event_type", "\"a\"").replace("2026-03-01T10:00:00Z", "1970-01-01T00:00:00Z");
        assert_eq!(good(&empty).content_hash, 8_199_140_894_715_635_333);
        let odd = r#"{"customer":"c","event_id":"e","event_type":"a \"b\" é","occurred_at":"1969-12-31T23:59:59.999999Z",
            "bill_to":"acme-eu","properties":{"":[1.5,null,true,{"x":"\n"}]}}"#;
        assert_eq!(good(odd).content_hash, -8_084_527_596_494_147_149);
        assert_eq!(content_hash(&good(odd)), good(odd).content_hash);
    }

    #[test]
    fn the_same_event_in_other_words_has_the_same_hash() {
        let event = good(GOOD);
        for same in [
            r#"{"properties":{"input_tokens":812.0,"model":"gpt-4"},"occurred_at":"2026-03-01T12:00:00+02:00","event_type":"llm.request","event_id":"req-81","customer":"acme"}"#,
            r#" { "customer" : "acme", "event_id":"req-81", "event_type":"llm\u002erequest", "bill_to":null,
                "occurred_at":"2026-03-01T10:00:00.0000009Z","properties":{ "model" : "gpt\u002d4", "input_tokens" : 8.12e2 } } "#,
        ] {
            assert_eq!(good(same), event, "{same}");
        }
        for other in [
            GOOD.replace("812", "813"),
            GOOD.replace("812", "\"812\""),
            GOOD.replace("10:00:00Z", "10:00:00.000001Z"),
            GOOD.replace("llm.request", "llm.requests"),
            GOOD.replace("\"properties\"", "\"bill_to\":\"acme\",\"properties\""),
            GOOD.replace("\"model\"", "\"Model\""),
        ] {
            assert_ne!(good(&other).content_hash, event.content_hash, "{other}");
        }
        // the hash is of the content; identity is the customer's and the id's
        assert_eq!(good(&GOOD.replace("req-81", "req-82")).content_hash, event.content_hash);
        assert_ne!(good(&GOOD.replace("req-81", "req-82")).event_key, event.event_key);
    }

    #[test]
    fn optional_fields_have_defaults() {
        for text in [with("properties", "null"), with("properties", "{}"), with("bill_to", "null")] {
            let event = one(&text).unwrap();
            assert_eq!((event.properties.as_str(), &event.bill_to), ("{}", &None));
        }
        assert_eq!(good(&with("bill_to", "\"eu\"")).bill_to.unwrap(), "eu");
        let bare = r#"{"customer":"c","event_id":"e","event_type":"t","occurred_at":"2026-03-01T10:00:00Z"}"#;
        assert_eq!(good(bare).properties, "{}");
    }

    #[test]
    fn every_refusal_has_its_word_and_its_place() {
        for (text, expected, start) in [
            (with("customer", "null"), reason::BAD_VALUE, "customer: must be a string, not null"),
            (with("customer", "7"), reason::BAD_VALUE, "customer: must be a string, not the number \"7\""),
            (with("customer", "\"\""), reason::BAD_VALUE, "customer: \"\" is empty"),
            (with("customer", "\" a\""), reason::BAD_VALUE, "customer: \" a\" has a space"),
            (with("customer", r#""a\tb""#), reason::BAD_VALUE, "customer: "),
            (with("customer", r#""a\u0000""#), reason::BAD_JSON, "customer: contains \\u0000"),
            (with("customer", r#""\ud800""#), reason::BAD_JSON, "customer: is a string with a broken"),
            (with("event_type", "[]"), reason::BAD_VALUE, "event_type: must be a string, not an array"),
            (with("event_id", "81"), reason::BAD_VALUE, "event_id: must be a string"),
            (with("event_id", "\"\""), reason::BAD_VALUE, "event_id: is empty"),
            (with("occurred_at", "\"2026-03-01\""), reason::BAD_TIME, "occurred_at: \"2026-03-01\" is not"),
            (with("occurred_at", "\"10000-01-01T00:00:00Z\""), reason::BAD_TIME, "occurred_at: "),
            (with("occurred_at", "\"2026-03-01T10:00:00\""), reason::BAD_TIME, "occurred_at: "),
            (with("occurred_at", "1772359200"), reason::BAD_VALUE, "occurred_at: must be a string"),
            (with("bill_to", "\"\""), reason::BAD_VALUE, "bill_to: "),
            (with("bill_to", "{}"), reason::BAD_VALUE, "bill_to: must be a string, not an object"),
            (with("properties", "[]"), reason::BAD_VALUE, "properties: must be an object, not an array"),
            (with("properties", "\"{}\""), reason::BAD_VALUE, "properties: must be an object, not a string"),
            (with("properties", r#"{"a":"\u0000"}"#), reason::BAD_JSON, "properties.a: contains"),
            (with("properties", r#"{"a":{"\u0000":1}}"#), reason::BAD_JSON, "properties.a: contains"),
            (with("properties", r#"{"a":[1,"\udfff"]}"#), reason::BAD_JSON, "properties.a[1]: is a string"),
            (with("properties", r#"{"a":1,"a":1}"#), reason::BAD_JSON, "properties.a: stands twice"),
            (
                with("properties", r#"{"a":[1e400]}"#),
                reason::NUMBER_OUT_OF_BOUNDS,
                "properties.a[0]: \"1e400\"",
            ),
            (with("properties", r#"{"a":1e-29}"#), reason::NUMBER_OUT_OF_BOUNDS, "properties.a: "),
            (
                with("x", "1").replace("\"bill_to\"", "\"billto\""),
                reason::UNKNOWN_FIELD,
                "\"billto\": is not",
            ),
            (
                with("x", "1").replace("\"bill_to\"", "\"customer\""),
                reason::BAD_JSON,
                "customer: stands twice",
            ),
            (
                with("x", "1").replace("\"event_id\":\"e\",", ""),
                reason::MISSING_FIELD,
                "event_id: is missing",
            ),
            ("{}".to_string(), reason::MISSING_FIELD, "customer: is missing"),
        ] {
            let rejection = one(&text).unwrap_err();
            assert_eq!(rejection.reason, expected, "{text}: {}", rejection.message);
            assert!(rejection.message.starts_with(start), "{text}: {}", rejection.message);
            assert_eq!(rejection.raw, text);
        }
    }

    #[test]
    fn a_refused_event_keeps_its_names_if_they_can_be_read() {
        let names = |text: &str| {
            let rejection = one(text).unwrap_err();
            (rejection.customer, rejection.event_id)
        };
        let some = |text: &str| Some(text.to_string());
        assert_eq!(names(&with("occurred_at", "\"x\"")), (some("acme"), some("e")));
        assert_eq!(names(&with("properties", r#"{"a":"\ud800"}"#)), (some("acme"), some("e")));
        assert_eq!(names(&with("customer", r#""\ud800""#)), (None, some("e")));
        assert_eq!(names(&with("event_id", r#""\u0000""#)), (some("acme"), None));
        assert_eq!(names(&with("event_id", "{}")), (some("acme"), None));
        assert_eq!(names("{}"), (None, None));
        assert_eq!(names(r#"{"customer":"a","customer":"b"}"#), (None, None));
    }

    #[test]
    fn bounds_hold_at_the_limit_and_one_beyond() {
        let text = |n: usize| format!("\"{}\"", "x".repeat(n));
        let nested = |n: usize| format!("{}{}", "{\"a\":".repeat(n), "0") + &"}".repeat(n);
        let properties = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n - 8));
        let digits = |n: usize| format!("{{\"a\":{}}}", "9".repeat(n));
        let decimals = |n: usize| format!("{{\"a\":0.{}}}", "1".repeat(n));
        for (field, at, beyond, word) in [
            ("event_id", text(EVENT_ID_BYTES_MAX), text(EVENT_ID_BYTES_MAX + 1), reason::TOO_LARGE),
            ("customer", text(KEY_BYTES_MAX), text(KEY_BYTES_MAX + 1), reason::TOO_LARGE),
            ("event_type", text(KEY_BYTES_MAX), text(KEY_BYTES_MAX + 1), reason::TOO_LARGE),
            ("bill_to", text(KEY_BYTES_MAX), text(KEY_BYTES_MAX + 1), reason::TOO_LARGE),
            ("properties", nested(PROPERTIES_DEPTH_MAX), nested(PROPERTIES_DEPTH_MAX + 1), reason::TOO_DEEP),
            ("properties", nested(1), nested(50_000), reason::TOO_DEEP),
            (
                "properties",
                properties(PROPERTIES_BYTES_MAX),
                properties(PROPERTIES_BYTES_MAX + 1),
                reason::TOO_LARGE,
            ),
            ("properties", digits(28), digits(29), reason::NUMBER_OUT_OF_BOUNDS),
            ("properties", decimals(28), decimals(29), reason::NUMBER_OUT_OF_BOUNDS),
        ] {
            let (at, beyond) = (with(field, &at), with(field, &beyond));
            one(&at).unwrap();
            let rejection = one(&beyond).unwrap_err();
            assert_eq!(rejection.reason, word, "{}", rejection.message);
            assert_eq!(rejection.raw, beyond);
            assert!(rejection.message.len() < 300);
        }
    }

    #[test]
    fn parts_give_the_same_event_and_the_same_refusals() {
        let parts = EventParts {
            customer: "acme",
            event_id: "req-81",
            event_type: "llm.request",
            occurred_at: Instant::parse("2026-03-01T10:00:00Z").unwrap(),
            bill_to: None,
            properties: r#" {"model":"gpt-4", "input_tokens": 812.00} "#,
        };
        assert_eq!(read_event(parts).unwrap(), good(GOOD));
        for (parts, word, start) in [
            (EventParts { properties: "{", ..parts }, reason::BAD_JSON, "properties: is not valid JSON"),
            (EventParts { properties: "", ..parts }, reason::BAD_JSON, "properties: is not valid JSON"),
            (EventParts { properties: "[1]", ..parts }, reason::BAD_VALUE, "properties: must be an object"),
            (
                EventParts { properties: r#"{"a":{"b":1,"b":1}}"#, ..parts },
                reason::BAD_JSON,
                "properties.a.b: ",
            ),
            (EventParts { customer: "", ..parts }, reason::BAD_VALUE, "customer: "),
            (EventParts { bill_to: Some(" "), ..parts }, reason::BAD_VALUE, "bill_to: "),
        ] {
            let rejection = read_event(parts).unwrap_err();
            assert_eq!(rejection.reason, word);
            assert!(rejection.message.starts_with(start), "{}", rejection.message);
            assert_eq!(rejection.event_id.as_deref(), Some("req-81"));
            assert!(rejection.raw.ends_with(&format!("\"properties\":{}}}", parts.properties)));
            assert_eq!(Fault::from(rejection).code, Code::EventRejected);
        }
    }

    proptest! {
        /// Whatever bytes of JSON stand in a field, the event is taken or refused, never lost or panicked on.
        #[test]
        fn hostile_fields_are_taken_or_refused(name in 0usize..6, text in any::<String>(), number in "-?[1-9][0-9]{0,40}") {
            let name = ["customer", "event_id", "event_type", "occurred_at", "properties", "bill_to"][name];
            for json in [serde_json::to_string(&text).unwrap(), number, format!("{{{}:[1]}}", serde_json::to_string(&text).unwrap())] {
                let text = with(name, &json);
                match one(&text) {
                    Ok(event) => prop_assert_eq!(content_hash(&event), event.content_hash),
                    Err(rejection) => prop_assert_eq!(&rejection.raw, &text),
                }
            }
        }
    }
}

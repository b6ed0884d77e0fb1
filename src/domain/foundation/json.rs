//! Documents are read in two steps: an exact tree (numbers as text, repeated keys refused, size and
//! depth bounded), then readers that carry the JSON path, refuse unknown fields and name the fault's place.
//!
//! Parsing is serde_json's; `RawValue` keeps each number exactly as it was written.

use super::decimal::{Exact, quoted};
use super::fault::Fault;
use super::instant::{Instant, parse_date};
use chrono::NaiveDate;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// Largest document in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of a document.
pub const DOCUMENT_DEPTH_MAX: usize = 32;
/// Longest entity key in bytes.
pub const KEY_BYTES_MAX: usize = 200;

/// JSON as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree<'a> {
    Null,
    Bool(bool),
    /// The number's own text.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    /// In the order of the text; keys are unique.
    Object(Vec<(Cow<'a, str>, Tree<'a>)>),
}

struct RawObject<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);
struct RawList<'a>(Vec<&'a RawValue>);
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawObject<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    entries.push((key.0, value));
                }
                Ok(RawObject(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawList<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = RawList<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element::<&'de RawValue>()? {
                    items.push(item);
                }
                Ok(RawList(items))
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// Reads a document of at most [`DOCUMENT_BYTES_MAX`] bytes and [`DOCUMENT_DEPTH_MAX`] levels.
pub fn parse(text: &str) -> Result<Tree<'_>, Fault> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(Fault::new(
            super::Code::Bound,
            format!("the document has {} bytes; at most {DOCUMENT_BYTES_MAX} are allowed", text.len()),
        )
        .with_hint("Split it into several calls."));
    }
    parse_nested(text, DOCUMENT_DEPTH_MAX, "")
}

/// Reads JSON text to at most `depth` levels of arrays and objects; `path` is where it stands.
pub fn parse_nested<'a>(text: &'a str, depth: usize, path: &str) -> Result<Tree<'a>, Fault> {
    let text = trim(text);
    let too_deep = || Fault::document(path, "is nested too deeply");
    match text.as_bytes().first() {
        None => Err(Fault::document(path, "is empty")),
        Some(b'n') => expect_word(text, "null", Tree::Null, path),
        Some(b't') => expect_word(text, "true", Tree::Bool(true), path),
        Some(b'f') => expect_word(text, "false", Tree::Bool(false), path),
        Some(b'"') => {
            let decoded: Key = serde_json::from_str(text).map_err(|e| syntax(path, &e))?;
            no_zero(&decoded.0, path)?;
            Ok(Tree::Text(decoded.0))
        }
        Some(b'[') => {
            let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
            let items: RawList = serde_json::from_str(text).map_err(|e| syntax(path, &e))?;
            let read =
                |(i, raw): (usize, &&'a RawValue)| parse_nested(raw.get(), depth, &index_path(path, i));
            items.0.iter().enumerate().map(read).collect::<Result<_, _>>().map(Tree::List)
        }
        Some(b'{') => {
            let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
            let entries: RawObject = serde_json::from_str(text).map_err(|e| syntax(path, &e))?;
            // First, since paths of faults hold keys.
            entries.0.iter().try_for_each(|(key, _)| no_zero(key, path))?;
            if let Some(key) = repeated_key(&entries.0) {
                return Err(Fault::document(&field_path(path, key), "stands twice"));
            }
            let mut fields = Vec::with_capacity(entries.0.len());
            for (key, raw) in entries.0 {
                // The path is only put together where it is needed: nested values and faults.
                let value = match raw.get().as_bytes().first() {
                    Some(b'{' | b'[' | b'"') => parse_nested(raw.get(), depth, &field_path(path, &key))?,
                    _ => parse_nested(raw.get(), depth, "")?,
                };
                fields.push((key, value));
            }
            Ok(Tree::Object(fields))
        }
        Some(_) => {
            let raw: &RawValue = serde_json::from_str(text).map_err(|e| syntax(path, &e))?;
            Ok(Tree::Number(Cow::Borrowed(raw.get())))
        }
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

fn expect_word<'a>(text: &str, word: &str, tree: Tree<'a>, path: &str) -> Result<Tree<'a>, Fault> {
    if text == word { Ok(tree) } else { Err(Fault::document(path, format!("{} is not JSON", quoted(text)))) }
}

fn syntax(path: &str, error: &serde_json::Error) -> Fault {
    Fault::document(path, format!("is not valid JSON: {error}"))
}

fn no_zero(text: &str, path: &str) -> Result<(), Fault> {
    if text.contains('\0') {
        return Err(Fault::document(path, "contains \\u0000, which Postgres text can't hold"));
    }
    Ok(())
}

fn repeated_key<'e>(entries: &'e [(Cow<'_, str>, &RawValue)]) -> Option<&'e str> {
    if entries.len() <= 16 {
        return entries
            .iter()
            .enumerate()
            .find(|(i, (key, _))| entries[..*i].iter().any(|(other, _)| other == key))
            .map(|(_, (key, _))| key.as_ref());
    }
    let mut seen = HashSet::with_capacity(entries.len());
    entries.iter().find(|(key, _)| !seen.insert(key.as_ref())).map(|(key, _)| key.as_ref())
}

pub fn field_path(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

pub fn index_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

impl<'a> Tree<'a> {
    /// What a person calls this kind of value.
    fn kind(&self) -> &'static str {
        match self {
            Tree::Null => "null",
            Tree::Bool(_) => "a boolean",
            Tree::Number(_) => "a number",
            Tree::Text(_) => "a string",
            Tree::List(_) => "an array",
            Tree::Object(_) => "an object",
        }
    }

    pub fn get(&self, key: &str) -> Option<&Tree<'a>> {
        match self {
            Tree::Object(fields) => fields.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Canonical JSON: keys sorted by bytes, numbers trimmed, no spaces. Two documents that mean the same
    /// have the same bytes. Numbers beyond [`Exact`] are a fault at their path.
    pub fn canonical(&self) -> Result<String, Fault> {
        let mut out = String::new();
        self.write_canonical(&mut out)?;
        Ok(out)
    }

    /// As [`canonical`](Tree::canonical), at the end of `out`. After a fault `out` holds a part of the text.
    pub fn write_canonical(&self, out: &mut String) -> Result<(), Fault> {
        self.write_value(out).map_err(|misfit| Fault::document(&misfit.path, misfit.fault))
    }

    fn write_value(&self, out: &mut String) -> Result<(), Box<Misfit>> {
        match self {
            Tree::Null => out.push_str("null"),
            Tree::Bool(true) => out.push_str("true"),
            Tree::Bool(false) => out.push_str("false"),
            Tree::Number(text) => write_number(out, text)?,
            Tree::Text(text) => write_text(out, text),
            Tree::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write_value(out).map_err(|misfit| misfit.inside(&format!("[{i}]")))?;
                }
                out.push(']');
            }
            Tree::Object(fields) => {
                let mut sorted: Vec<&(Cow<str>, Tree)> = fields.iter().collect();
                sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                out.push('{');
                for (i, (key, value)) in sorted.into_iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_text(out, key);
                    out.push(':');
                    value.write_value(out).map_err(|misfit| misfit.inside(key))?;
                }
                out.push('}');
            }
        }
        Ok(())
    }

    pub fn into_owned(self) -> Tree<'static> {
        match self {
            Tree::Null => Tree::Null,
            Tree::Bool(b) => Tree::Bool(b),
            Tree::Number(n) => Tree::Number(Cow::Owned(n.into_owned())),
            Tree::Text(t) => Tree::Text(Cow::Owned(t.into_owned())),
            Tree::List(items) => Tree::List(items.into_iter().map(Tree::into_owned).collect()),
            Tree::Object(fields) => Tree::Object(
                fields.into_iter().map(|(k, v)| (Cow::Owned(k.into_owned()), v.into_owned())).collect(),
            ),
        }
    }

    // Building documents.
    pub fn text(text: impl Into<String>) -> Tree<'static> {
        Tree::Text(Cow::Owned(text.into()))
    }

    pub fn number(number: impl fmt::Display) -> Tree<'static> {
        Tree::Number(Cow::Owned(number.to_string()))
    }

    pub fn object<'k, const N: usize>(fields: [(&'static str, Tree<'k>); N]) -> Tree<'k> {
        Tree::Object(fields.into_iter().map(|(k, v)| (Cow::Borrowed(k), v)).collect())
    }
}

/// A number with no canonical form; its path grows from the inside out, so that only faults pay for it.
struct Misfit {
    path: String,
    fault: Fault,
}

impl Misfit {
    fn inside(mut self: Box<Self>, step: &str) -> Box<Self> {
        self.path = match self.path.as_str() {
            "" => step.to_string(),
            inner if inner.starts_with('[') => format!("{step}{inner}"),
            inner => format!("{step}.{inner}"),
        };
        self
    }
}

/// Most numbers are integers in canonical form already; they are copied, all others go through [`Exact`].
fn write_number(out: &mut String, text: &str) -> Result<(), Box<Misfit>> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let plain = digits.len() <= super::decimal::DIGITS_MAX as usize
        && digits.first().is_some_and(|first| (b'1'..=b'9').contains(first))
        && digits.iter().all(u8::is_ascii_digit);
    if plain || text == "0" {
        out.push_str(text);
        return Ok(());
    }
    let number = Exact::parse(text).map_err(|fault| Box::new(Misfit { path: String::new(), fault }))?;
    out.push_str(&number.to_string());
    Ok(())
}

/// A JSON string with the escapes JSON demands and no others.
pub fn write_text(out: &mut String, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("a string is always JSON"));
    }
}

/// A value and its JSON path.
#[derive(Clone)]
pub struct Node<'t> {
    pub tree: &'t Tree<'t>,
    pub path: String,
}

impl<'t> Node<'t> {
    pub fn root(tree: &'t Tree<'t>) -> Node<'t> {
        Node { tree, path: String::new() }
    }

    pub fn fault(&self, message: impl fmt::Display) -> Fault {
        Fault::document(&self.path, message)
    }

    fn expected(&self, what: &str) -> Fault {
        self.fault(format!("must be {what}, not {}", self.tree.kind()))
    }

    pub fn is_null(&self) -> bool {
        matches!(self.tree, Tree::Null)
    }

    /// The fields of an object that may only have `known` ones. A field that is not known is refused at
    /// once: it may well be the misspelled one that would be missed next.
    pub fn fields_of(&self, known: &[&str]) -> Result<Fields<'t>, Fault> {
        let fields = self.fields()?;
        fields.only(known)?;
        Ok(fields)
    }

    /// The fields of an object whose writer we are, or whose known fields one of them decides.
    pub fn fields(&self) -> Result<Fields<'t>, Fault> {
        match self.tree {
            Tree::Object(entries) => {
                Ok(Fields { path: self.path.clone(), entries, used: vec![false; entries.len()] })
            }
            _ => Err(self.expected("an object")),
        }
    }

    /// The entries of an object whose keys are data.
    pub fn entries(&self) -> Result<Vec<(&'t str, Node<'t>)>, Fault> {
        match self.tree {
            Tree::Object(entries) => Ok(entries
                .iter()
                .map(|(key, tree)| (key.as_ref(), Node { tree, path: field_path(&self.path, key) }))
                .collect()),
            _ => Err(self.expected("an object")),
        }
    }

    pub fn items(&self) -> Result<Vec<Node<'t>>, Fault> {
        match self.tree {
            Tree::List(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(i, tree)| Node { tree, path: index_path(&self.path, i) })
                .collect()),
            _ => Err(self.expected("an array").with_hint("Write it in brackets, a single one, too: [ … ].")),
        }
    }

    /// As [`items`](Node::items), refusing more than `max`.
    pub fn items_at_most(&self, max: usize) -> Result<Vec<Node<'t>>, Fault> {
        let items = self.items()?;
        if items.len() > max {
            return Err(Fault::new(
                super::Code::Bound,
                format!("{}: has {} entries; at most {max} are allowed", self.path, items.len()),
            ));
        }
        Ok(items)
    }

    pub fn text(&self) -> Result<&'t str, Fault> {
        match self.tree {
            Tree::Text(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    pub fn boolean(&self) -> Result<bool, Fault> {
        match self.tree {
            Tree::Bool(value) => Ok(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// An amount, price, quantity or percentage: a decimal in a JSON string.
    pub fn decimal(&self) -> Result<Exact, Fault> {
        match self.tree {
            Tree::Text(text) => Exact::parse(text).map_err(|fault| self.fault(fault)),
            Tree::Number(number) => Err(self.expected("a decimal in a string").with_hint(format!(
                "Write \"{number}\" in quotes: many programs read bare JSON numbers as binary floats."
            ))),
            _ => Err(self.expected("a decimal in a string")),
        }
    }

    /// A count: an integer, bare or in a string.
    pub fn integer(&self) -> Result<i64, Fault> {
        let (Tree::Text(text) | Tree::Number(text)) = self.tree else {
            return Err(self.expected("an integer"));
        };
        Exact::parse(text)
            .ok()
            .and_then(Exact::to_i64)
            .ok_or_else(|| self.fault(format!("{} is not an integer", quoted(text))))
    }

    /// A positive decimal that may stand bare if it is an integer (`"per": 1000`, `"per": "0.5"`).
    pub fn positive(&self) -> Result<Exact, Fault> {
        let value = match self.tree {
            Tree::Number(_) => Exact::from_i64(self.integer()?),
            _ => self.decimal()?,
        };
        if value.is_zero() || value.is_negative() {
            return Err(self.fault(format!("{value} must be greater than 0")));
        }
        Ok(value)
    }

    pub fn date(&self) -> Result<NaiveDate, Fault> {
        parse_date(self.text()?).map_err(|fault| self.rehint(fault))
    }

    pub fn instant(&self) -> Result<Instant, Fault> {
        Instant::parse(self.text()?).map_err(|fault| self.rehint(fault))
    }

    /// An entity key: 1 to 200 bytes, no control characters, no space at either end.
    pub fn key(&self) -> Result<&'t str, Fault> {
        let text = self.text()?;
        check_key(text).map_err(|why| self.fault(format!("{} {why}", quoted(text))))?;
        Ok(text)
    }

    /// One of a closed list of words.
    pub fn word(&self, words: &[&str]) -> Result<&'t str, Fault> {
        let text = self.text()?;
        if words.contains(&text) {
            return Ok(text);
        }
        Err(self
            .fault(format!("{} is not known", quoted(text)))
            .with_hint(format!("Use {}.", or_list(words))))
    }

    /// The same fault, at this node's path.
    pub fn rehint(&self, fault: Fault) -> Fault {
        let here = Fault::document(&self.path, &fault.message);
        Fault { code: here.code, message: here.message, detail: fault.detail, hint: fault.hint }
    }
}

/// Why a text can't be an entity's key.
pub fn check_key(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty; a key has at least one character".into());
    }
    if text.len() > KEY_BYTES_MAX {
        return Err(format!("has {} bytes; a key has at most {KEY_BYTES_MAX}", text.len()));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err("has a space at an end or a control character".into());
    }
    Ok(())
}

/// `a, b or c`.
pub fn or_list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_string(),
        [init @ .., last] => format!("{} or {last}", init.join(", ")),
    }
}

const UNKNOWN: &str = "is not a field of this document";

/// The fields of an object; each is taken once, and what nobody took is refused.
pub struct Fields<'t> {
    path: String,
    entries: &'t [(Cow<'t, str>, Tree<'t>)],
    used: Vec<bool>,
}

impl<'t> Fields<'t> {
    /// The field, also when it is null.
    pub fn raw(&mut self, key: &str) -> Option<Node<'t>> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        self.used[at] = true;
        Some(Node { tree: &self.entries[at].1, path: field_path(&self.path, key) })
    }

    /// The field, unless it is absent or null.
    pub fn optional(&mut self, key: &str) -> Option<Node<'t>> {
        self.raw(key).filter(|node| !node.is_null())
    }

    pub fn required(&mut self, key: &str) -> Result<Node<'t>, Fault> {
        self.raw(key).ok_or_else(|| Fault::document(&field_path(&self.path, key), "is missing"))
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn fault(&self, message: impl fmt::Display) -> Fault {
        Fault::document(&self.path, message)
    }

    /// Refuses fields that are not known here.
    pub fn only(&self, known: &[&str]) -> Result<(), Fault> {
        match self.entries.iter().find(|(key, _)| !known.contains(&key.as_ref())) {
            None => Ok(()),
            Some((key, _)) => Err(Fault::document(&field_path(&self.path, key), UNKNOWN)
                .with_hint(format!("Known here: {}.", known.join(", ")))),
        }
    }

    /// Refuses fields that nobody took, whatever the list of known ones said: nothing is ignored in silence.
    pub fn finish(self) -> Result<(), Fault> {
        match self.used.iter().position(|used| !used) {
            None => Ok(()),
            Some(at) => Err(Fault::document(&field_path(&self.path, &self.entries[at].0), UNKNOWN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keeps_numbers_as_written_and_names_the_path() {
        let tree = parse(r#" {"a": [1.10, {"b": "x"}], "n": 12345678901234567.89} "#).unwrap();
        assert_eq!(tree.get("n"), Some(&Tree::Number("12345678901234567.89".into())));
        assert_eq!(tree.canonical().unwrap(), r#"{"a":[1.1,{"b":"x"}],"n":12345678901234567.89}"#);
        for (text, start) in [
            (r#"{"a":{"x":1,"x":2}}"#, "a.x: stands twice"),
            (r#"{"a":[0,{"b":"\u0000"}]}"#, "a[1].b: contains \\u0000"),
            // A zero character in the message would end it, on its way through Postgres.
            (r#"{"a":{"\u0000":1,"\u0000":2}}"#, "a: contains \\u0000"),
            (r#"{"a":["\ud800"]}"#, "a[0]: is not valid JSON"),
            ("", "document: is empty"),
            ("{", "document: is not valid JSON"),
            ("tru", "document: \"tru\" is not JSON"),
            ("NaN", "document: is not valid JSON"),
            ("[1,]", "document: is not valid JSON"),
        ] {
            let message = parse(text).unwrap_err().message;
            assert!(message.starts_with(start), "{text}: {message}");
        }
    }

    #[test]
    fn canonical_numbers_fit_or_name_their_path() {
        for (text, expected) in [
            ("[0,-0,1.0,10,-7,1e2,0.50]", "[0,0,1,10,-7,100,0.5]"),
            ("[9999999999999999999999999999]", "[9999999999999999999999999999]"),
            ("[-9999999999999999999999999999]", "[-9999999999999999999999999999]"),
        ] {
            assert_eq!(parse(text).unwrap().canonical().unwrap(), expected);
        }
        for (text, start) in [
            ("12345678901234567890123456789", "document: "),
            (r#"{"a":[0,{"b":-12345678901234567890123456789}]}"#, "a[1].b: "),
            (r#"{"a":[[1e400]]}"#, "a[0][0]: "),
        ] {
            let message = parse(text).unwrap().canonical().unwrap_err().message;
            assert!(message.starts_with(start), "{text}: {message}");
        }
    }

    #[test]
    fn bounds_depth_and_size() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(&nested(DOCUMENT_DEPTH_MAX)).is_ok());
        assert!(parse(&nested(DOCUMENT_DEPTH_MAX + 1)).unwrap_err().message.contains("too deeply"));
        assert!(parse(&nested(100_000)).is_err());
        let text = |n: usize| format!("\"{}\"", "x".repeat(n - 2));
        assert!(parse(&text(DOCUMENT_BYTES_MAX)).is_ok());
        assert!(parse(&text(DOCUMENT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn refuses_unknown_fields_by_path() {
        let tree = parse(r#"{"tiers":[{"unit_pric":"1"}]}"#).unwrap();
        let tiers = Node::root(&tree).fields().unwrap().required("tiers").unwrap().items().unwrap();
        let fault = tiers[0].fields_of(&["unit_price", "up_to"]).err().unwrap();
        assert_eq!(fault.message, "tiers[0].unit_pric: is not a field of this document");
        assert_eq!(fault.hint.unwrap(), "Known here: unit_price, up_to.");
        let forgotten = tiers[0].fields_of(&["unit_pric"]).unwrap().finish().unwrap_err();
        assert_eq!(forgotten.message, fault.message);
    }

    #[test]
    fn a_spoofed_number_is_just_an_object() {
        let tree = parse(r#"{"$serde_json::private::Number":"12"}"#).unwrap();
        assert!(matches!(tree, Tree::Object(_)));
    }

    fn any_tree() -> impl Strategy<Value = Tree<'static>> {
        let leaf = prop_oneof![
            Just(Tree::Null),
            any::<bool>().prop_map(Tree::Bool),
            any::<i64>().prop_map(Tree::number),
            "[^\u{0}]{0,12}".prop_map(Tree::text),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Tree::List),
                proptest::collection::btree_map("[^\u{0}]{0,6}", inner, 0..6)
                    .prop_map(|m| Tree::Object(m.into_iter().map(|(k, v)| (Cow::Owned(k), v)).collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_text_round_trips(tree in any_tree()) {
            let text = tree.canonical().unwrap();
            prop_assert_eq!(parse(&text).unwrap().canonical().unwrap(), text);
        }

        #[test]
        fn writes_strings_as_serde_json(text in any::<String>(), plain in "[ -~\u{7f}é]{0,8}") {
            for text in [text, plain] {
                let mut out = String::new();
                write_text(&mut out, &text);
                prop_assert_eq!(out, serde_json::to_string(&text).unwrap());
            }
        }

        #[test]
        fn agrees_with_serde_json_on_what_is_json(text in r#"[\[\]{}",:0-9eE.+\-a-z\\ ]{0,24}"#) {
            let ours = parse(&text);
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            if let Ok(tree) = &ours && !text.contains("e") && !text.contains("E") {
                prop_assert!(theirs.is_ok(), "{} {:?}", text, tree);
            }
            if theirs.is_ok() && ours.is_err() {
                let why = ours.unwrap_err().message;
                prop_assert!(why.contains("twice") || why.contains("u0000"), "{}: {}", text, why);
            }
        }
    }
}

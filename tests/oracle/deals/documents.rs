//! Fields of documents.

use super::{Day, Event, Meter, Q, after, dec};
use serde_json::Value;
use std::collections::BTreeMap;

/// The decimal in a field that must be there.
pub fn field(doc: &Value, name: &str) -> Q {
    maybe(doc, name).unwrap_or_else(|| panic!("no {name} in {doc}"))
}

/// The decimal in a field, if it is there: a string, or a number where documents have numbers (`per`).
pub fn maybe(doc: &Value, name: &str) -> Option<Q> {
    match &doc[name] {
        Value::String(text) => Some(dec(text)),
        Value::Number(number) => Some(dec(&number.to_string())),
        _ => None,
    }
}

pub fn text<'a>(doc: &'a Value, name: &str) -> Option<&'a str> {
    doc[name].as_str()
}

pub fn date(doc: &Value, name: &str) -> Option<Day> {
    text(doc, name).map(|t| t.parse().unwrap_or_else(|_| panic!("{name}: {t} is no date")))
}

pub(super) fn list<'a>(doc: &'a Value, name: &str) -> &'a [Value] {
    doc[name].as_array().map_or(&[], Vec::as_slice)
}

/// Between its local dates `from` and `until` (exclusive).
pub(super) fn in_force(item: &Value, day: Day) -> bool {
    date(item, "from").is_none_or(|from| from <= day) && date(item, "until").is_none_or(|until| day < until)
}

/// Charges or fees of a document, with those of its add-ons, that have times of their own and names that say whose they
/// are. What an amendment adds counts from its day.
pub(super) fn expanded(doc: &Value, name: &str, since: Option<Day>) -> Vec<Value> {
    let mut found = list(doc, name).to_vec();
    for add_on in list(doc, "add_ons") {
        let of = text(add_on, "key").expect("a key");
        let from = date(add_on, "from").or(since);
        let term = text(add_on, "term").map(|t| after(from.expect("a term's beginning"), t));
        let until = date(add_on, "until").or(term);
        for item in list(add_on, name) {
            let mut item = item.clone();
            item["key"] = format!("{of}/{}", text(&item, "key").expect("a key")).into();
            for (name, day) in [("from", from), ("until", until)] {
                if let Some(day) = day {
                    item[name] = day.to_string().into();
                }
            }
            found.push(item);
        }
    }
    for item in &mut found {
        if let Some(day) = since {
            item["_since"] = day.to_string().into();
        }
    }
    found
}

/// Equality on dimensions; an event without the dimension does not match.
pub(super) fn matches(of: &Value, event: &Event, meter: &Meter) -> bool {
    of.as_object().is_none_or(|wanted| {
        wanted.iter().all(|(name, value)| {
            if name == "bill_to" {
                return event.bill_to.as_deref() == value.as_str();
            }
            assert!(meter.dimensions.contains(name), "{name} is no dimension of {}", meter.key);
            event.properties.get(name).map(String::as_str) == value.as_str()
        })
    })
}

/// An item of a contract as it is now: its own, else the plan's.
pub(super) fn current(plan: &[Value], own: &[Value], key: &str) -> Value {
    let found = own.iter().rev().chain(plan).find(|item| text(item, "key") == Some(key));
    found.unwrap_or_else(|| panic!("no item {key}")).clone()
}

/// Replaces items of the same key where they stand, adds new ones at the end, and drops those with "remove".
pub(super) fn change_items(items: &mut Vec<Value>, changes: &[Value]) {
    for change in changes {
        let at = items.iter().position(|item| item["key"] == change["key"]);
        match (at, change["remove"] == Value::Bool(true)) {
            (Some(at), true) => drop(items.remove(at)),
            (Some(at), false) => items[at] = change.clone(),
            (None, true) => {}
            (None, false) => items.push(change.clone()),
        }
    }
}

/// Puts items into a map by key; one with "remove" takes its key out.
pub(super) fn put(into: &mut BTreeMap<String, Value>, items: &[Value]) {
    for item in items {
        let key = text(item, "key").expect("a key").to_owned();
        if item["remove"] == Value::Bool(true) {
            into.remove(&key);
        } else {
            into.insert(key, item.clone());
        }
    }
}

//! A call's document to its events, one by one: what is wrong with one event never stops the others.

use super::event::{
    self, Event, EventParts, Problem, Rejection, Scratch, from_tree, reason, reject_parts, scan_event,
};
use super::format::Format;
use super::scan::Scanner;
use crate::domain::foundation::fault::{Code, Fault};
use crate::domain::foundation::json::Tree;

/// Most events in one call.
pub const BATCH_EVENTS_MAX: usize = 10_000;
/// Largest document of one call in bytes.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// The events of one call in their order.
pub type Events<'t> = Vec<Result<Event<'t>, Rejection>>;
/// The same, with what the caller made of each good one.
pub type EventsWith<'t, T> = Vec<Result<(Event<'t>, T), Rejection>>;

/// The events of a JSON array, or the one event that stands alone, in their order.
///
/// Only a document that is not JSON, is neither an array nor an object, or exceeds a bound fails as a whole.
pub fn read_batch(text: &str) -> Result<Events<'_>, Fault> {
    read_batch_of(Format::Native, text)
}

/// As [`read_batch`], for events as another system writes them.
pub fn read_batch_of(format: Format, text: &str) -> Result<Events<'_>, Fault> {
    read_batch_with(format, text, |_, _, _| Ok(()))
        .map(|events| events.into_iter().map(|read| read.map(|(event, ())| event)).collect())
}

/// As [`read_batch_of`]; `look` sees each good event with its place in the batch and its properties, once,
/// while they are still a tree, and may refuse the event with a message (its reason is then
/// [`reason::METER_REFUSED`]).
pub fn read_batch_with<'t, T>(
    format: Format,
    text: &'t str,
    mut look: impl FnMut(usize, &Event<'t>, &Tree<'t>) -> Result<T, String>,
) -> Result<EventsWith<'t, T>, Fault> {
    if text.len() > BATCH_BYTES_MAX {
        return Err(Fault::new(
            Code::Bound,
            format!("the events have {} bytes; at most {BATCH_BYTES_MAX} fit in one call", text.len()),
        )
        .with_hint("Split them into several calls."));
    }
    let mut scratch = Scratch::default();
    let mut events = Vec::new();
    each_event(text, format, |element| {
        let ordinal = events.len();
        if ordinal == BATCH_EVENTS_MAX {
            return Err(Fault::new(
                Code::Bound,
                format!("more than {BATCH_EVENTS_MAX} events; at most that many fit in one call"),
            )
            .with_hint("Split them into several calls."));
        }
        events.push(element.read(ordinal, format, &mut scratch, &mut look));
        Ok(())
    })?;
    Ok(events)
}

/// Texts that hold one event each, every one in its own format: what was kept of refused events. A text that is
/// not JSON is one event that can't be read.
pub fn read_each_with<'t, T>(
    texts: impl IntoIterator<Item = (Format, &'t str)>,
    mut look: impl FnMut(usize, &Event<'t>, &Tree<'t>) -> Result<T, String>,
) -> EventsWith<'t, T> {
    let mut scratch = Scratch::default();
    let read = texts.into_iter().enumerate().map(|(ordinal, (format, text))| {
        let mut scanner = Scanner::new(text);
        scanner.skip_space();
        let element = element(text, &mut scanner).ok().filter(|_| {
            scanner.skip_space();
            scanner.is_at_end()
        });
        let element = element.unwrap_or_else(|| Element {
            text,
            tree: Err(Problem::new(reason::BAD_JSON, "event: is not valid JSON")),
        });
        // As it was sent, not as it stood inside its document.
        Element { text, ..element }.read(ordinal, format, &mut scratch, &mut look)
    });
    read.collect()
}

/// One event from its parts with what `look` makes of it: the single-event twin of [`read_batch_with`].
pub fn read_event_with<'t, T>(
    parts: EventParts<'t>,
    look: impl FnOnce(&Event<'t>, &Tree<'t>) -> Result<T, String>,
) -> Result<(Event<'t>, T), Rejection> {
    event::read_parts(parts)
        .and_then(|(event, properties)| match look(&event, &properties) {
            Ok(seen) => Ok((event, seen)),
            Err(message) => Err(Problem::new(reason::METER_REFUSED, message)),
        })
        .map_err(|problem| reject_parts(parts, problem))
}

/// An element of the document: its own text, and what it says if it can be read.
struct Element<'t> {
    text: &'t str,
    tree: Result<Tree<'t>, Problem>,
}

impl<'t> Element<'t> {
    fn read<T>(
        self,
        ordinal: usize,
        format: Format,
        scratch: &mut Scratch,
        look: &mut impl FnMut(usize, &Event<'t>, &Tree<'t>) -> Result<T, String>,
    ) -> Result<(Event<'t>, T), Rejection> {
        let read =
            self.tree.and_then(|tree| from_tree(tree, format, scratch)).and_then(|(event, properties)| {
                match look(ordinal, &event, &properties) {
                    Ok(seen) => Ok((event, seen)),
                    Err(message) => Err(Problem::new(reason::METER_REFUSED, message)),
                }
            });
        read.map_err(|problem| problem.of_text(self.text, format))
    }
}

fn each_event<'t>(
    text: &'t str,
    format: Format,
    mut take: impl FnMut(Element<'t>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    let wrapped = enter_wrapper(&mut scanner, format);
    match scanner.peek() {
        Some(b'{') => take(element(text, &mut scanner)?)?,
        Some(b'[') => {
            scanner.eat(b'[');
            scanner.skip_space();
            if !scanner.eat(b']') {
                loop {
                    scanner.skip_space();
                    take(element(text, &mut scanner)?)?;
                    scanner.skip_space();
                    if scanner.eat(b']') {
                        break;
                    }
                    if !scanner.eat(b',') {
                        return Err(not_json(&scanner));
                    }
                }
            }
        }
        _ => {
            return match scanner.raw_value(scanner.position()) {
                None => Err(not_json(&scanner)),
                Some(_) => Err(Fault::new(Code::Document, "the events are neither an array nor an object")
                    .with_hint("Pass an array of events or one event.")),
            };
        }
    }
    scanner.skip_space();
    if let Some(name) = wrapped
        && !scanner.eat(b'}')
    {
        return Err(Fault::new(Code::Document, format!("something stands beside {name}"))
            .with_hint("Pass an object with that one member, an array of events, or one event."));
    }
    scanner.skip_space();
    if scanner.is_at_end() { Ok(()) } else { Err(not_json(&scanner)) }
}

/// Goes into an object whose first member is the format's list of events (or its one event), and says which.
fn enter_wrapper(scanner: &mut Scanner<'_>, format: Format) -> Option<&'static str> {
    let mut inside = scanner.clone();
    if format.wrappers().is_empty() || !inside.eat(b'{') {
        return None;
    }
    inside.skip_space();
    let key = inside.member()?;
    let name = format.wrappers().iter().find(|name| **name == key)?;
    let opens = if *name == "event" { b'{' } else { b'[' };
    if inside.peek() != Some(opens) {
        return None;
    }
    *scanner = inside;
    Some(name)
}

/// The element that starts here. What the scanner can't read serde_json delimits, or calls no JSON.
fn element<'t>(text: &'t str, scanner: &mut Scanner<'t>) -> Result<Element<'t>, Fault> {
    let start = scanner.position();
    match scan_event(scanner) {
        Ok(tree) => Ok(Element { text: &text[start..scanner.position()], tree: Ok(tree) }),
        Err(misread) => match scanner.raw_value(start) {
            Some(raw) => Ok(Element { text: raw, tree: Err(Problem::misread(&misread)) }),
            None => Err(not_json(scanner)),
        },
    }
}

fn not_json(scanner: &Scanner<'_>) -> Fault {
    Fault::new(Code::Document, format!("the events are not valid JSON near byte {}", scanner.position()))
        .with_hint("Pass a JSON array of events or one event; nothing was stored.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(id: &str) -> String {
        format!(
            r#"{{"customer":"c","event_id":"{id}","event_type":"t","occurred_at":"2026-03-01T10:00:00Z"}}"#
        )
    }

    #[test]
    fn one_bad_event_stops_no_other() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let bad = [
            ("1", reason::BAD_JSON),
            ("null", reason::BAD_JSON),
            ("\"x\"", reason::BAD_JSON),
            ("[[]]", reason::BAD_JSON),
            ("{}", reason::MISSING_FIELD),
            (r#"{"customer":"\ud800"}"#, reason::BAD_JSON),
            ("{\"a\":1e999}", reason::UNKNOWN_FIELD),
            (deep.as_str(), reason::TOO_DEEP),
        ];
        let middle: Vec<&str> = bad.iter().map(|(text, _)| *text).collect();
        let text = format!(" [ {} ,{} ,\n {}] ", event("first"), middle.join(" ,\n"), event("last"));
        let mut read = read_batch(&text).unwrap();
        assert_eq!(read.len(), bad.len() + 2);
        assert_eq!(read.pop().unwrap().unwrap().event_id, "last");
        assert_eq!(read.remove(0).unwrap().event_id, "first");
        for ((raw, reason), read) in bad.into_iter().zip(read) {
            let rejection = read.unwrap_err();
            assert_eq!(rejection.reason, reason);
            assert!(rejection.raw == raw && rejection.message.len() < 200);
        }
    }

    #[test]
    fn an_array_one_event_or_nothing() {
        assert_eq!(read_batch("[]").unwrap(), vec![]);
        assert_eq!(read_batch(" [ ] ").unwrap(), vec![]);
        assert_eq!(read_batch(&format!("\n{}\t", event("a"))).unwrap().len(), 1);
        assert_eq!(read_batch(&format!("[{0},{0}]", event("a"))).unwrap().len(), 2);
    }

    #[test]
    fn only_the_document_as_a_whole_can_fail() {
        for text in [
            "",
            " ",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{\"a\":}",
            "{} {}",
            "[] x",
            "[{}]]",
            "tru",
            "NaN",
            "[NaN]",
            "['a']",
            "[01]",
            "\u{feff}[]",
            "[{\"a\":\"\n\"}]",
            "[\"\\x\"]",
            "// c\n[]",
            "[1]\0",
        ] {
            let fault = read_batch(text).unwrap_err();
            assert_eq!(fault.code, Code::Document, "{text}");
            assert!(fault.message.contains("not valid JSON"), "{text}: {}", fault.message);
        }
        for text in ["1", "\"x\"", "null", "true", " -1.5e3 "] {
            assert!(
                read_batch(text).unwrap_err().message.contains("neither an array nor an object"),
                "{text}"
            );
        }
    }

    #[test]
    fn bounds_hold_at_the_limit_and_one_beyond() {
        let many = |n: usize| format!("[{}]", vec![event("e"); n].join(","));
        assert_eq!(read_batch(&many(BATCH_EVENTS_MAX)).unwrap().len(), BATCH_EVENTS_MAX);
        let fault = read_batch(&many(BATCH_EVENTS_MAX + 1)).unwrap_err();
        assert_eq!((fault.code, fault.hint.is_some()), (Code::Bound, true));
        let padded = |n: usize| format!("[{}{}]", event("e"), " ".repeat(n - event("e").len() - 2));
        assert_eq!(read_batch(&padded(BATCH_BYTES_MAX)).unwrap().len(), 1);
        let fault = read_batch(&padded(BATCH_BYTES_MAX + 1)).unwrap_err();
        assert_eq!((fault.code, fault.hint.is_some()), (Code::Bound, true));
    }

    #[test]
    fn whoever_looks_sees_good_events_once_and_may_refuse_them() {
        let text = format!("[{},7,{}]", event("a"), event("b"));
        let mut seen = Vec::new();
        let read = read_batch_with(Format::Native, &text, |ordinal, event, _| {
            seen.push((ordinal, event.event_id.to_string()));
            if event.event_id == "b" { Err("meter m: no".to_string()) } else { Ok(ordinal) }
        })
        .unwrap();
        assert_eq!(seen, [(0, "a".to_string()), (2, "b".to_string())]);
        assert_eq!(read[0].as_ref().unwrap().1, 0);
        let refused = read[2].as_ref().unwrap_err();
        assert_eq!((refused.reason, refused.message.as_str()), (reason::METER_REFUSED, "meter m: no"));
        assert_eq!((refused.customer.as_deref(), refused.event_id.as_deref()), (Some("c"), Some("b")));
        assert_eq!(refused.raw, event("b"));
    }

    proptest! {
        /// A document with a few bytes changed is refused as no JSON, or every event is taken or refused.
        #[test]
        fn damaged_documents_are_read_or_refused(
            patches in prop::collection::vec((0usize..300, r#"[\[\]{}",:0-9eE.\-a-z\\u ]{0,3}"#, 0usize..3), 0..4),
        ) {
            let mut text = format!("[{}, {{}}, 7, {}]", event("a"), event(r"\u00e9"));
            for (at, patch, length) in patches {
                let at = at.min(text.len());
                text.replace_range(at..(at + length).min(text.len()), &patch);
            }
            let is_json = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            match read_batch(&text) {
                Ok(events) => {
                    prop_assert!(is_json, "{}", text);
                    for rejection in events.into_iter().filter_map(Result::err) {
                        prop_assert!(text.contains(&rejection.raw));
                    }
                }
                Err(fault) => prop_assert!(!is_json || fault.message.contains("neither"), "{}: {}", text, fault),
            }
        }
    }
}

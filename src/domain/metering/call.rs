//! One ingest call, from the document to what became of each event.
//!
//! The call is read and measured once; then the database answers three questions, and the call moves on:
//! who the customers are ([`Call::resolve`] → [`Call::keys`] to insert), which keys were new ([`Call::accept`] →
//! the events and deltas to insert), and what is stored under the other keys ([`Call::judge`] → duplicate
//! or conflicting). Nothing here knows SQL; the order of the steps is checked.

use super::delta::{self, Accepted, BucketMinutes, Deltas, Measurements};
use super::meters::Meters;
use crate::domain::foundation::decimal::quoted;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::Tree;
use crate::domain::foundation::{Code, Fault};
use crate::domain::ingestion::{self, Event, EventParts, Events, Format, Rejection};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// Reasons that only the database knows, beside those of [`crate::domain::ingestion::reason`].
pub mod reason {
    pub const UNKNOWN_CUSTOMER: &str = "unknown_customer";
    pub const UNKNOWN_BILL_TO: &str = "unknown_bill_to";
    pub const TOO_OLD: &str = "too_old";
    pub const IN_FUTURE: &str = "in_future";
    pub const CONFLICTING: &str = "conflicting";
    /// Not of the customer, type or stretch of time that a call is confined to.
    pub const OUTSIDE: &str = "outside";
    /// An id that stands twice where each may stand once.
    pub const REPEATED: &str = "repeated";
}

/// A customer, as named, with the legal entity its events name: what the database has to look up, once each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Party {
    pub customer: String,
    pub bill_to: Option<String>,
}

/// What the database says of a party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    Found {
        customer_id: i64,
        minutes: BucketMinutes,
        /// Events before this instant are too old.
        earliest: Instant,
        /// Events after this instant are in the future.
        latest: Instant,
    },
    UnknownCustomer,
    UnknownBillTo,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its party is not resolved yet.
    Read,
    /// Its key is sent to the database.
    Sent,
    Accepted,
    /// Known under this key; whether it is the same is not known yet.
    Known,
    Duplicate,
    Conflicting,
    /// In `rejections`.
    Rejected,
}

struct Entry {
    event: Event<'static>,
    party: u32,
    customer_id: i64,
    minutes: BucketMinutes,
    fate: Fate,
}

/// One call of ingest.
pub struct Call {
    /// By ordinal; none for what could not be read.
    entries: Vec<Option<Entry>>,
    parties: Vec<Party>,
    measurements: Measurements,
    rejections: Vec<Rejection>,
    /// The ordinals of `rejections`, in their order.
    rejected_at: Vec<usize>,
}

/// What became of the event at a place of the call, and why if it was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceOutcome<'c> {
    pub outcome: &'static str,
    pub reason: Option<&'c str>,
    pub message: Option<&'c str>,
}

/// A row of `usage_event_input`, as it was copied in: everything is text and may be missing.
#[derive(Debug, Clone, Copy)]
pub struct Row<'t> {
    pub customer: Option<&'t str>,
    pub event_id: Option<&'t str>,
    pub event_type: Option<&'t str>,
    pub occurred_at: Option<&'t str>,
    pub bill_to: Option<&'t str>,
    pub properties: Option<&'t str>,
}

impl<'t> Row<'t> {
    fn parts(self) -> Result<EventParts<'t>, Rejection> {
        let missing =
            |name: &str| self.reject(ingestion::reason::MISSING_FIELD, format!("{name}: is missing"));
        let occurred_at = self.occurred_at.ok_or_else(|| missing("occurred_at"))?;
        Ok(EventParts {
            customer: self.customer.ok_or_else(|| missing("customer"))?,
            event_id: self.event_id.ok_or_else(|| missing("event_id"))?,
            event_type: self.event_type.ok_or_else(|| missing("event_type"))?,
            occurred_at: Instant::parse(occurred_at)
                .map_err(|fault| self.reject(ingestion::reason::BAD_TIME, format!("occurred_at: {fault}")))?,
            bill_to: self.bill_to,
            properties: self.properties.unwrap_or("{}"),
        })
    }

    fn reject(&self, reason: &'static str, message: String) -> Rejection {
        let fields = [
            ("customer", self.customer),
            ("event_id", self.event_id),
            ("event_type", self.event_type),
            ("occurred_at", self.occurred_at),
            ("bill_to", self.bill_to),
            ("properties", self.properties),
        ];
        let fields =
            fields.into_iter().filter_map(|(name, text)| Some((Cow::Borrowed(name), Tree::text(text?))));
        Rejection {
            reason,
            message,
            customer: self.customer.map(str::to_string),
            event_id: self.event_id.map(str::to_string),
            raw: Tree::Object(fields.collect()).canonical().expect("strings are canonical"),
            format: Format::Native,
        }
    }
}

/// How many events became what. They sum to the events of the call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    pub accepted: i64,
    pub duplicate: i64,
    pub conflicting: i64,
    pub rejected: i64,
}

impl Call {
    /// Reads a document of events and measures it with the meters of the catalogue.
    pub fn read(format: Format, text: &str, meters: Arc<Meters>) -> Result<Call, Fault> {
        let (events, measurements) = delta::ingest(format, text, meters)?;
        Ok(Call::new(events, measurements))
    }

    /// Events that were refused before, each as it was kept.
    pub fn read_each<'t>(texts: impl IntoIterator<Item = (Format, &'t str)>, meters: Arc<Meters>) -> Call {
        let (events, measurements) = delta::ingest_each(texts, meters);
        Call::new(events, measurements)
    }

    /// One event given in parts. A rejection is an outcome here, too.
    pub fn read_event(parts: EventParts<'_>, meters: Arc<Meters>) -> Call {
        match delta::ingest_event(parts, meters.clone()) {
            Ok((event, measurements)) => Call::new(vec![Ok(event)], measurements),
            Err(rejection) => Call::new(vec![Err(rejection)], Measurements::new(meters)),
        }
    }

    /// Many events given as rows, in their order.
    pub fn read_rows<'t>(rows: impl IntoIterator<Item = Row<'t>>, meters: Arc<Meters>) -> Call {
        let (events, measurements) = delta::ingest_rows(rows.into_iter().map(Row::parts), meters);
        Call::new(events, measurements)
    }

    fn new(events: Events<'_>, measurements: Measurements) -> Call {
        let mut call = Call {
            entries: Vec::with_capacity(events.len()),
            parties: Vec::new(),
            measurements,
            rejections: Vec::new(),
            rejected_at: Vec::new(),
        };
        let mut places: HashMap<Party, u32> = HashMap::new();
        for event in events {
            match event {
                Err(rejection) => {
                    call.keep(call.entries.len(), rejection);
                    call.entries.push(None);
                }
                Ok(event) => {
                    let party = Party {
                        customer: event.customer.to_string(),
                        bill_to: event.bill_to.as_deref().map(str::to_string),
                    };
                    let next = call.parties.len() as u32;
                    let place = *places.entry(party).or_insert_with_key(|party| {
                        call.parties.push(party.clone());
                        next
                    });
                    call.entries.push(Some(Entry {
                        event: event.into_owned(),
                        party: place,
                        customer_id: 0,
                        minutes: BucketMinutes::Sixty,
                        fate: Fate::Read,
                    }));
                }
            }
        }
        call
    }

    /// Who the events are about, in order of first appearance.
    pub fn parties(&self) -> &[Party] {
        &self.parties
    }

    /// Measures all events again, with the meters of a catalogue that moved since they were read. What a new
    /// meter refuses is rejected.
    pub fn measure_again(&mut self, meters: Arc<Meters>) -> Result<(), Fault> {
        if self.entries.iter().flatten().any(|entry| entry.fate != Fate::Read) {
            return Err(out_of_step("measure before resolve"));
        }
        let parts: Vec<Option<EventParts<'_>>> =
            self.entries.iter().map(|entry| entry.as_ref().map(|entry| entry.event.parts())).collect();
        let (measurements, refused) = delta::measure(&parts, meters);
        self.measurements = measurements;
        for (at, message) in refused {
            self.reject(at, ingestion::reason::METER_REFUSED, message);
        }
        Ok(())
    }

    /// Takes what the database says of each party. An id that stands twice is sent once, the first one.
    pub fn resolve(&mut self, resolutions: &[Resolution]) -> Result<(), Fault> {
        if resolutions.len() != self.parties.len() {
            return Err(out_of_step("as many resolutions as parties"));
        }
        let mut refused = Vec::new();
        let mut seen: HashSet<(i64, Uuid)> = HashSet::with_capacity(self.entries.len());
        for (at, slot) in self.entries.iter_mut().enumerate() {
            let Some(entry) = slot.as_mut().filter(|entry| entry.fate != Fate::Rejected) else { continue };
            if entry.fate != Fate::Read {
                return Err(out_of_step("resolve once"));
            }
            match place(entry, &resolutions[entry.party as usize]) {
                Ok((customer_id, minutes)) => {
                    entry.customer_id = customer_id;
                    entry.minutes = minutes;
                    let first = seen.insert((customer_id, entry.event.event_key));
                    entry.fate = if first { Fate::Sent } else { Fate::Known };
                }
                Err((reason, message)) => refused.push((at, reason, message)),
            }
        }
        for (at, reason, message) in refused {
            self.reject(at, reason, message);
        }
        Ok(())
    }

    fn sent(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten().filter(|entry| entry.fate == Fate::Sent)
    }

    /// The UTC months of the events to insert: each needs its partitions first.
    pub fn months(&self) -> Vec<Instant> {
        let mut months: Vec<Instant> =
            self.sent().map(|entry| entry.event.occurred_at.month_start()).collect();
        months.sort();
        months.dedup();
        months
    }

    /// The keys to insert: sorted by customer and key, so that calls that meet never wait for each other in
    /// a circle.
    pub fn keys(&self) -> Vec<(i64, &Event<'static>)> {
        let mut keys: Vec<_> = self.sent().map(|entry| (entry.customer_id, &entry.event)).collect();
        keys.sort_by_key(|(customer_id, event)| (*customer_id, event.event_key));
        keys
    }

    /// Takes the keys that were new, and gives their events to store, in the order of the call.
    pub fn accept(&mut self, new: &HashSet<(i64, Uuid)>) -> Result<Vec<(i64, &Event<'static>)>, Fault> {
        let mut accepted = Vec::with_capacity(new.len());
        for entry in self.entries.iter_mut().flatten().filter(|entry| entry.fate != Fate::Rejected) {
            match entry.fate {
                Fate::Sent if new.contains(&(entry.customer_id, entry.event.event_key)) => {
                    entry.fate = Fate::Accepted
                }
                Fate::Sent => entry.fate = Fate::Known,
                Fate::Known => {}
                _ => return Err(out_of_step("accept after resolve, once")),
            }
        }
        for entry in self.entries.iter().flatten() {
            if entry.fate == Fate::Accepted {
                accepted.push((entry.customer_id, &entry.event));
            }
        }
        if accepted.len() != new.len() {
            return Err(out_of_step("only keys that were sent can be new"));
        }
        Ok(accepted)
    }

    /// What the accepted events add to usage.
    pub fn deltas(&self) -> Result<Deltas, Fault> {
        let accepted: Vec<Accepted> = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(ordinal, entry)| {
                let entry = entry.as_ref().filter(|entry| entry.fate == Fate::Accepted)?;
                Some(Accepted {
                    ordinal,
                    customer_id: entry.customer_id,
                    minutes: entry.minutes,
                    event_key: entry.event.event_key,
                })
            })
            .collect();
        self.measurements.deltas(&accepted)
    }

    /// The keys whose stored content has to be looked up, each once, sorted.
    pub fn known(&self) -> Vec<(i64, Uuid)> {
        let mut keys: Vec<(i64, Uuid)> = self
            .entries
            .iter()
            .flatten()
            .filter(|entry| entry.fate == Fate::Known)
            .map(|entry| (entry.customer_id, entry.event.event_key))
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Takes the stored content hashes of [`known`](Call::known) keys, of all revisions: content that was stored
    /// once is a duplicate, other content is conflicting and kept aside like a rejection, whole.
    pub fn judge(&mut self, stored: &HashMap<(i64, Uuid), Vec<i64>>) -> Result<(), Fault> {
        let mut conflicting = Vec::new();
        for (at, slot) in self.entries.iter_mut().enumerate() {
            let Some(entry) = slot.as_mut().filter(|entry| entry.fate == Fate::Known) else { continue };
            let Some(hashes) = stored.get(&(entry.customer_id, entry.event.event_key)) else {
                return Err(out_of_step("a known key has stored content"));
            };
            let same = hashes.contains(&entry.event.content_hash);
            entry.fate = if same { Fate::Duplicate } else { Fate::Conflicting };
            if entry.fate == Fate::Conflicting {
                let message = format!(
                    "event_id: {} of customer {} was stored before with other content",
                    quoted(&entry.event.event_id),
                    quoted(&entry.event.customer)
                );
                conflicting.push((at, refusal(&entry.event, reason::CONFLICTING, message)));
            }
        }
        for (at, rejection) in conflicting {
            self.keep(at, rejection);
        }
        Ok(())
    }

    /// Everything to keep aside: rejected and conflicting events.
    pub fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }

    pub fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        for entry in &self.entries {
            match entry.as_ref().map(|entry| entry.fate) {
                None | Some(Fate::Rejected) => outcome.rejected += 1,
                Some(Fate::Accepted) => outcome.accepted += 1,
                Some(Fate::Duplicate) => outcome.duplicate += 1,
                Some(Fate::Conflicting) => outcome.conflicting += 1,
                Some(Fate::Read | Fate::Sent | Fate::Known) => {}
            }
        }
        outcome
    }

    fn reject(&mut self, at: usize, reason: &'static str, message: String) {
        let entry = self.entries[at].as_mut().expect("only events that were read are refused");
        entry.fate = Fate::Rejected;
        let rejection = refusal(&entry.event, reason, message);
        self.keep(at, rejection);
    }

    fn keep(&mut self, at: usize, rejection: Rejection) {
        self.rejected_at.push(at);
        self.rejections.push(rejection);
    }

    /// Refuses what is not of one customer, type and stretch of time `[from, until)`, and every id that stands
    /// twice: for calls that say what a stretch holds as a whole.
    pub fn confine(
        &mut self,
        customer_id: i64,
        event_type: &str,
        from: Instant,
        until: Instant,
    ) -> Result<(), Fault> {
        let mut refused = Vec::new();
        for (at, entry) in self.entries.iter().enumerate() {
            let Some(entry) = entry else { continue };
            let event = &entry.event;
            match entry.fate {
                Fate::Rejected => {}
                Fate::Sent | Fate::Known if entry.customer_id != customer_id => {
                    let message = format!("customer: {} is another customer", quoted(&event.customer));
                    refused.push((at, reason::OUTSIDE, message));
                }
                Fate::Sent | Fate::Known if event.event_type != event_type => {
                    let message =
                        format!("event_type: is {}, not {}", quoted(&event.event_type), quoted(event_type));
                    refused.push((at, reason::OUTSIDE, message));
                }
                Fate::Sent | Fate::Known if event.occurred_at < from || event.occurred_at >= until => {
                    let message = format!("occurred_at: {} is not in [{from}, {until})", event.occurred_at);
                    refused.push((at, reason::OUTSIDE, message));
                }
                Fate::Sent => {}
                Fate::Known => {
                    let message = format!("event_id: {} stands twice", quoted(&event.event_id));
                    refused.push((at, reason::REPEATED, message));
                }
                _ => return Err(out_of_step("confine after resolve")),
            }
        }
        for (at, reason, message) in refused {
            self.reject(at, reason, message);
        }
        Ok(())
    }

    /// The events that can be stored, with their places in the call, as [`keys`](Call::keys) has them.
    pub fn contents(&self) -> impl Iterator<Item = (usize, &Event<'static>)> {
        self.entries.iter().enumerate().filter_map(|(at, entry)| {
            let entry = entry.as_ref().filter(|entry| entry.fate == Fate::Sent)?;
            Some((at, &entry.event))
        })
    }

    /// What became of each event, by its place in the call.
    pub fn outcomes(&self) -> Vec<PlaceOutcome<'_>> {
        let mut outcomes: Vec<PlaceOutcome<'_>> = self
            .entries
            .iter()
            .map(|entry| {
                let outcome = match entry.as_ref().map(|entry| entry.fate) {
                    None | Some(Fate::Rejected) => "rejected",
                    Some(Fate::Accepted) => "accepted",
                    Some(Fate::Duplicate) => "duplicate",
                    Some(Fate::Conflicting) => "conflicting",
                    Some(Fate::Read | Fate::Sent | Fate::Known) => "open",
                };
                PlaceOutcome { outcome, reason: None, message: None }
            })
            .collect();
        for (at, rejection) in self.rejected_at.iter().zip(&self.rejections) {
            outcomes[*at].reason = Some(rejection.reason);
            outcomes[*at].message = Some(&rejection.message);
        }
        outcomes
    }
}

fn refusal(event: &Event<'_>, reason: &'static str, message: String) -> Rejection {
    Rejection {
        reason,
        message,
        customer: Some(event.customer.to_string()),
        event_id: Some(event.event_id.to_string()),
        raw: raw_of(event),
        format: Format::Native,
    }
}

/// The place of an event, or why it has none.
fn place(entry: &Entry, resolution: &Resolution) -> Result<(i64, BucketMinutes), (&'static str, String)> {
    let event = &entry.event;
    match resolution {
        Resolution::UnknownCustomer => {
            Err((reason::UNKNOWN_CUSTOMER, format!("customer: {} is not known", quoted(&event.customer))))
        }
        Resolution::UnknownBillTo => {
            let bill_to = event.bill_to.as_deref().unwrap_or_default();
            Err((
                reason::UNKNOWN_BILL_TO,
                format!("bill_to: {} is not one of customer {}", quoted(bill_to), quoted(&event.customer)),
            ))
        }
        Resolution::Found { earliest, .. } if event.occurred_at < *earliest => Err((
            reason::TOO_OLD,
            format!(
                "occurred_at: {} is before {earliest}, the oldest that policy event_age_max takes",
                event.occurred_at
            ),
        )),
        Resolution::Found { latest, .. } if event.occurred_at > *latest => Err((
            reason::IN_FUTURE,
            format!(
                "occurred_at: {} is after {latest}, the latest that policy event_future_max takes",
                event.occurred_at
            ),
        )),
        Resolution::Found { customer_id, minutes, .. } => Ok((*customer_id, *minutes)),
    }
}

fn out_of_step(what: &str) -> Fault {
    Fault::new(Code::State, format!("the steps of an ingest call are out of order: {what}"))
}

/// An event as a native document, for sending it again.
fn raw_of(event: &Event<'_>) -> String {
    let mut fields = vec![
        (Cow::Borrowed("customer"), Tree::text(event.customer.to_string())),
        (Cow::Borrowed("event_id"), Tree::text(event.event_id.to_string())),
        (Cow::Borrowed("event_type"), Tree::text(event.event_type.to_string())),
        (Cow::Borrowed("occurred_at"), Tree::text(event.occurred_at.to_string())),
    ];
    if let Some(bill_to) = &event.bill_to {
        fields.push((Cow::Borrowed("bill_to"), Tree::text(bill_to.to_string())));
    }
    let head = Tree::Object(fields).canonical().expect("strings are canonical");
    // Properties are canonical JSON already.
    format!("{},\"properties\":{}}}", &head[..head.len() - 1], event.properties)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json::{self, Node};
    use crate::domain::metering::Meter;
    use crate::domain::metering::meters::Version;

    fn meters() -> Arc<Meters> {
        let tree = json::parse(
            r#"{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"]}"#,
        )
        .unwrap();
        Arc::new(Meters::new([Version::only(1, Meter::read(&Node::root(&tree)).unwrap())]))
    }

    fn event(customer: &str, id: &str, n: i64) -> String {
        format!(
            r#"{{"customer":"{customer}","event_id":"{id}","event_type":"llm","occurred_at":"2026-03-01T10:10:00Z","properties":{{"n":{n},"model":"m"}}}}"#
        )
    }

    fn found(customer_id: i64) -> Resolution {
        let instant = |text| Instant::parse(text).unwrap();
        Resolution::Found {
            customer_id,
            minutes: BucketMinutes::Sixty,
            earliest: instant("2026-01-01T00:00:00Z"),
            latest: instant("2026-12-31T00:00:00Z"),
        }
    }

    #[test]
    fn a_call_from_end_to_end() {
        let stray =
            r#"{"customer":"acme","event_id":"x","event_type":"llm","occurred_at":"2025-03-01T10:10:00Z"}"#;
        let text = [
            event("acme", "1", 10),
            event("acme", "2", 20),
            event("alias", "1", 10), // the same customer by another name: a repeat inside the call
            event("alias", "2", 21), // with other content
            event("nobody", "1", 1),
            "{}".to_string(),
            event("acme", "3", 30),
            stray.to_string(),
        ]
        .join(",");
        let mut call = Call::read(Format::Native, &format!("[{text}]"), meters()).unwrap();
        assert_eq!(
            call.parties().iter().map(|p| p.customer.as_str()).collect::<Vec<_>>(),
            ["acme", "alias", "nobody"]
        );
        call.measure_again(meters()).unwrap();
        call.resolve(&[found(7), found(7), Resolution::UnknownCustomer]).unwrap();
        let keys: Vec<(i64, Uuid)> = call.keys().iter().map(|(id, e)| (*id, e.event_key)).collect();
        assert_eq!(call.months(), [Instant::parse("2026-03-01T00:00:00Z").unwrap()]);
        assert_eq!(keys.len(), 3);
        assert!(keys.is_sorted());
        // the database already had event 3, with the same content
        let three = crate::domain::foundation::hash::text_key("3");
        let new: HashSet<(i64, Uuid)> = keys.iter().copied().filter(|(_, key)| *key != three).collect();
        let stored: Vec<(String, i64)> =
            call.accept(&new).unwrap().iter().map(|(id, e)| (e.event_id.to_string(), *id)).collect();
        assert_eq!(stored, [("1".to_string(), 7), ("2".to_string(), 7)]);
        let deltas = call.deltas().unwrap();
        assert_eq!(deltas.rows.len(), 1);
        assert_eq!(
            (deltas.rows[0].quantity.unwrap().to_string(), deltas.rows[0].events),
            ("30".to_string(), 2)
        );
        assert_eq!(call.known().len(), 3);
        let hashes = call
            .entries
            .iter()
            .flatten()
            .take(2)
            .map(|e| ((7, e.event.event_key), vec![e.event.content_hash]));
        let mut hashes: HashMap<(i64, Uuid), Vec<i64>> = hashes.collect();
        // event 3 was amended, and comes as it was first
        hashes.insert((7, three), vec![5, call.entries[6].as_ref().unwrap().event.content_hash]);
        call.judge(&hashes).unwrap();
        assert_eq!(call.outcome(), Outcome { accepted: 2, duplicate: 2, conflicting: 1, rejected: 3 });
        let reasons: Vec<&str> = call.rejections().iter().map(|r| r.reason).collect();
        assert_eq!(reasons, ["missing_field", "unknown_customer", "too_old", "conflicting"]);
        let again = &call.rejections()[3].raw;
        assert!(Call::read(Format::Native, again, meters()).unwrap().rejections().is_empty(), "{again}");
    }

    #[test]
    fn a_confined_call_takes_one_stretch_of_one_customer() {
        let at = |event: String, time: &str| event.replace("2026-03-01T10:10:00Z", time);
        let text = [
            event("acme", "1", 1),
            event("globex", "2", 1),
            event("acme", "3", 1).replace("llm", "other"),
            at(event("acme", "4", 1), "2026-03-01T10:00:00Z"),
            at(event("acme", "5", 1), "2026-03-01T11:00:00Z"),
            at(event("acme", "6", 1), "2026-03-01T09:59:59.999999Z"),
            event("acme", "1", 1),
            event("acme", "7", 1).replace("\"n\":1", "\"n\":\"x\""),
            event("nobody", "8", 1),
        ];
        let mut call = Call::read(Format::Native, &format!("[{}]", text.join(",")), meters()).unwrap();
        let instant = |text| Instant::parse(text).unwrap();
        let (from, until) = (instant("2026-03-01T10:00:00Z"), instant("2026-03-01T11:00:00Z"));
        assert!(call.confine(7, "llm", from, until).is_err());
        call.resolve(&[found(7), found(8), Resolution::UnknownCustomer]).unwrap();
        call.confine(7, "llm", from, until).unwrap();
        let kept: Vec<(usize, &str)> =
            call.contents().map(|(at, event)| (at, event.event_id.as_ref())).collect();
        assert_eq!(kept, [(0, "1"), (3, "4")]);
        let outcomes = call.outcomes();
        let reasons: Vec<Option<&str>> = outcomes.iter().map(|outcome| outcome.reason).collect();
        let outside = Some("outside");
        assert_eq!(
            reasons,
            [
                None,
                outside,
                outside,
                None,
                outside,
                outside,
                Some("repeated"),
                Some("meter_refused"),
                Some("unknown_customer")
            ]
        );
        assert_eq!(outcomes[0].outcome, "open");
        assert_eq!(outcomes[6].message, Some("event_id: \"1\" stands twice"));
    }

    /// The first and the last instant that are taken, and those just beyond.
    #[test]
    fn an_event_is_as_old_or_as_new_as_it_may_be() {
        let at =
            |n: usize, time: &str| event("acme", &n.to_string(), 1).replace("2026-03-01T10:10:00Z", time);
        let times = [
            "2025-12-31T23:59:59.999999Z",
            "2026-01-01T00:00:00Z",
            "2026-12-31T00:00:00Z",
            "2026-12-31T00:00:00.000001Z",
        ];
        let text: Vec<String> = times.iter().enumerate().map(|(n, time)| at(n, time)).collect();
        let mut call = Call::read(Format::Native, &format!("[{}]", text.join(",")), meters()).unwrap();
        call.resolve(&[found(7)]).unwrap();
        let reasons: Vec<Option<&str>> = call.outcomes().iter().map(|outcome| outcome.reason).collect();
        assert_eq!(reasons, [Some("too_old"), None, None, Some("in_future")]);
    }

    /// A catalogue that moved since a call was read decides what it adds and what it can't take.
    #[test]
    fn what_was_measured_before_does_not_count() {
        let text = [event("acme", "1", 10), event("acme", "2", 20).replace("\"m\"", "5")].join(",");
        let mut call = Call::read(Format::Native, &format!("[{text}]"), meters()).unwrap();
        let tree =
            json::parse(r#"{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n * 2 + model"}"#)
                .unwrap();
        let moved = Meters::new([Version::only(1, Meter::read(&Node::root(&tree)).unwrap())]);
        call.measure_again(Arc::new(moved)).unwrap();
        call.resolve(&[found(7)]).unwrap();
        let new = call.keys().iter().map(|(id, e)| (*id, e.event_key)).collect();
        call.accept(&new).unwrap();
        let deltas = call.deltas().unwrap();
        let quantities: Vec<String> =
            deltas.rows.iter().map(|row| row.quantity.unwrap().to_string()).collect();
        assert_eq!(quantities, ["45"]);
        assert_eq!(call.outcomes()[0].reason, Some("meter_refused"));
    }

    #[test]
    fn steps_out_of_order_are_faults() {
        let mut call = Call::read(Format::Native, &event("acme", "1", 1), meters()).unwrap();
        assert!(call.resolve(&[]).is_err());
        assert!(call.accept(&HashSet::new()).is_err());
        call.resolve(&[found(1)]).unwrap();
        assert!(call.resolve(&[found(1)]).is_err());
        assert!(call.accept(&HashSet::from([(1, Uuid::nil())])).is_err());
    }
}

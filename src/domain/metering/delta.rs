//! From events to usage deltas: what one call adds per customer, meter, bucket and dimension set.
//!
//! Ingest is one pass: [`ingest`] parses, validates and measures each event once. Which events were new
//! only the database knows, after the keys are inserted; [`Measurements::deltas`] then adds up those.
//! Back-fill and `verify()` start from stored events instead: [`stored_deltas`] gives the same rows.

use super::aggregate::{Position, Quantity, State, Sum, When};
use super::meters::{Count, DimensionSets, Meters, Reading};
use crate::domain::foundation::decimal::Exact;
use crate::domain::foundation::fault::{Code, Fault};
use crate::domain::foundation::instant::Instant;
use crate::domain::ingestion::{
    Event, EventParts, Events, Format, PROPERTIES_DEPTH_MAX, Rejection, read_batch_with, read_each_with,
    read_event_with, scan,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// The width of a customer's buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BucketMinutes {
    Fifteen,
    Sixty,
}

impl BucketMinutes {
    /// Reads `customer.bucket_minutes`: 15 or 60.
    pub fn new(minutes: i16) -> Result<BucketMinutes, Fault> {
        match minutes {
            15 => Ok(BucketMinutes::Fifteen),
            60 => Ok(BucketMinutes::Sixty),
            other => Err(Fault::value(format!("{other} is not a bucket width; use 15 or 60 minutes"))),
        }
    }

    /// 15 or 60.
    pub fn get(self) -> i16 {
        match self {
            BucketMinutes::Fifteen => 15,
            BucketMinutes::Sixty => 60,
        }
    }

    /// The start of the bucket that holds an instant.
    pub fn floor(self, at: Instant) -> Instant {
        const MINUTE: i64 = 60_000_000;
        let width = i64::from(self.get()) * MINUTE;
        Instant(at.0.div_euclid(width) * width)
    }
}

/// What a call adds to one cell of usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub customer_id: i64,
    pub meter_id: i32,
    pub bucket_start: Instant,
    pub minutes: BucketMinutes,
    pub dimension_set_id: i64,
    /// Canonical JSON of the dimension set.
    pub dimensions: Arc<str>,
    /// The sum, change, largest, smallest or last value; of an operation 1 where it added its value, 0 where it
    /// removed it; none for count and unique count.
    pub quantity: Option<Exact>,
    /// Of a weighted sum: Σ value × microseconds since the bucket's start.
    pub moment: Option<Quantity>,
    /// Of a last value or operation: its event.
    pub position: Option<Position>,
    pub events: i64,
    /// Keys of the distinct values of a unique count, sorted, one a row where they have operations; empty for
    /// all others.
    pub value_keys: Vec<Uuid>,
}

/// What a meter should have counted and could not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uncounted {
    pub meter_id: i32,
    /// Events without a value.
    pub skipped: u64,
    /// Stored events that the meter can't use. Always 0 at ingest, where such an event is rejected; a
    /// meter that was added later may find some.
    pub refused: u64,
    /// One refused event (the first) and why.
    pub example: Option<(Uuid, String)>,
}

/// The result of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deltas {
    /// Sorted by customer, meter, bucket, width and dimension set; one row for each, except that a sum
    /// of over 28 digits continues in further rows of the same cell with 0 events, and that every value with
    /// operations has its own. Rows of a cell add up.
    pub rows: Vec<Delta>,
    /// Sorted by meter; only meters with something to say.
    pub uncounted: Vec<Uncounted>,
}

/// An event of a batch that the database found to be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its place in the batch, from 0.
    pub ordinal: usize,
    pub customer_id: i64,
    pub minutes: BucketMinutes,
    pub event_key: Uuid,
}

/// A stored event.
#[derive(Debug, Clone, Copy)]
pub struct StoredEvent<'a> {
    pub customer_id: i64,
    pub minutes: BucketMinutes,
    pub event_key: Uuid,
    pub event_type: &'a str,
    pub occurred_at: Instant,
    pub bill_to: Option<&'a str>,
    /// JSON text of an object.
    pub properties: &'a str,
}

/// Reads a call's document and measures every good event; one that a meter refuses is rejected.
///
/// The meters are those of the catalogue when the call began. A meter that appears before the stripe lock
/// is taken would miss these events: the caller compares the catalogue's version under the lock, and if it
/// moved measures the accepted events again with [`stored_deltas`].
pub fn ingest(format: Format, text: &str, meters: Arc<Meters>) -> Result<(Events<'_>, Measurements), Fault> {
    let mut measurements = Measurements::new(meters);
    let batch = read_batch_with(format, text, |ordinal, event, properties| {
        measurements.add(ordinal, &Reading::of(event, properties))
    })?;
    Ok((batch.into_iter().map(|read| read.map(|(event, ())| event)).collect(), measurements))
}

/// The twin of [`ingest`] for texts of one event each; ordinals are places among them.
pub fn ingest_each<'t>(
    texts: impl IntoIterator<Item = (Format, &'t str)>,
    meters: Arc<Meters>,
) -> (Events<'t>, Measurements) {
    let mut measurements = Measurements::new(meters);
    let read = read_each_with(texts, |ordinal, event, properties| {
        measurements.add(ordinal, &Reading::of(event, properties))
    });
    (read.into_iter().map(|read| read.map(|(event, ())| event)).collect(), measurements)
}

/// The single-event twin of [`ingest`]; the event has ordinal 0.
pub fn ingest_event(
    parts: EventParts<'_>,
    meters: Arc<Meters>,
) -> Result<(Event<'_>, Measurements), Rejection> {
    let mut measurements = Measurements::new(meters);
    let (event, ()) =
        read_event_with(parts, |event, properties| measurements.add(0, &Reading::of(event, properties)))?;
    Ok((event, measurements))
}

/// The twin of [`ingest`] for events whose fields are in hand; ordinals are places in `rows`.
pub fn ingest_rows<'t>(
    rows: impl IntoIterator<Item = Result<EventParts<'t>, Rejection>>,
    meters: Arc<Meters>,
) -> (Events<'t>, Measurements) {
    let mut measurements = Measurements::new(meters);
    let read = rows.into_iter().enumerate().map(|(ordinal, parts)| {
        let (event, ()) = read_event_with(parts?, |event, properties| {
            measurements.add(ordinal, &Reading::of(event, properties))
        })?;
        Ok(event)
    });
    let events = read.collect();
    (events, measurements)
}

/// Measures events that were read before; ordinals are places in `events`. Refused ones come back with why.
pub(super) fn measure(
    events: &[Option<EventParts<'_>>],
    meters: Arc<Meters>,
) -> (Measurements, Vec<(usize, String)>) {
    let mut measurements = Measurements::new(meters);
    let mut refused = Vec::new();
    for (ordinal, parts) in events.iter().enumerate() {
        let Some(parts) = parts else { continue };
        let measured = scan::read(parts.properties, PROPERTIES_DEPTH_MAX)
            .map_err(|misread| misread.reason().to_string())
            .and_then(|properties| {
                let reading = Reading {
                    event_type: parts.event_type,
                    occurred_at: parts.occurred_at,
                    bill_to: parts.bill_to,
                    properties: &properties,
                };
                measurements.add(ordinal, &reading)
            });
        if let Err(message) = measured {
            refused.push((ordinal, message));
        }
    }
    (measurements, refused)
}

/// What the events of one batch count for, before it is known which of them are new. It owns all it needs,
/// so a backend can keep it between two statements.
#[derive(Debug)]
pub struct Measurements {
    meters: Arc<Meters>,
    sets: DimensionSets,
    counts: Vec<Count>,
    /// By ordinal; none for what was rejected.
    events: Vec<Option<EventCounts>>,
}

#[derive(Debug, Clone, Copy)]
struct EventCounts {
    occurred_at: Instant,
    from: usize,
    until: usize,
}

impl Measurements {
    /// Measurements of no events.
    pub(super) fn new(meters: Arc<Meters>) -> Measurements {
        Measurements { meters, sets: DimensionSets::default(), counts: Vec::new(), events: Vec::new() }
    }

    /// Measures one event, or says which meter refuses it and why; then nothing of it is kept.
    fn add(&mut self, ordinal: usize, event: &Reading<'_>) -> Result<(), String> {
        let from = self.counts.len();
        let counted = self.meters.count(event, &mut self.sets, &mut self.counts, |_, fault| Err(fault));
        if let Err(fault) = counted {
            self.counts.truncate(from);
            return Err(fault.message);
        }
        assert!(self.events.len() <= ordinal, "ordinals ascend");
        self.events.resize(ordinal, None);
        let until = self.counts.len();
        self.events.push(Some(EventCounts { occurred_at: event.occurred_at, from, until }));
        Ok(())
    }

    /// The deltas of the events that are new, in any order. An ordinal that is named twice, or that was
    /// rejected, is a fault.
    pub fn deltas(&self, accepted: &[Accepted]) -> Result<Deltas, Fault> {
        let mut groups = Groups::new(&self.meters);
        let mut taken = vec![false; self.events.len()];
        for accepted in accepted {
            let event = self.events.get(accepted.ordinal).copied().flatten();
            let Some(event) = event.filter(|_| !std::mem::replace(&mut taken[accepted.ordinal], true)) else {
                let what = format!("event {} of the batch was rejected or counted already", accepted.ordinal);
                return Err(Fault::new(Code::State, what));
            };
            let place = Place::of(accepted.customer_id, accepted.minutes, event.occurred_at);
            let position = Position { at: event.occurred_at, event_key: accepted.event_key };
            for count in &self.counts[event.from..event.until] {
                groups.add(place, position, count)?;
            }
        }
        groups.finish(&self.sets)
    }
}

/// The deltas of stored events: for back-fill (with the new meters only), for `verify()` and for
/// recomputing. An event that a meter refuses does not count on it and is reported; its other meters
/// count it. Memory grows with the cells, not with the events.
pub fn stored_deltas<'a>(
    events: impl IntoIterator<Item = StoredEvent<'a>>,
    meters: &Meters,
) -> Result<Deltas, Fault> {
    let mut sets = DimensionSets::default();
    let mut groups = Groups::new(meters);
    let mut counts = Vec::new();
    for event in events {
        let properties = scan::read(event.properties, PROPERTIES_DEPTH_MAX).map_err(|misread| {
            let at = if misread.path.is_empty() { "properties" } else { &misread.path };
            Fault::value(format!("stored event {}: {at} {}", event.event_key, misread.reason()))
        })?;
        let reading = Reading {
            event_type: event.event_type,
            occurred_at: event.occurred_at,
            bill_to: event.bill_to,
            properties: &properties,
        };
        counts.clear();
        meters.count(&reading, &mut sets, &mut counts, |meter, fault| {
            groups.refuse(meter, event.event_key, fault);
            Ok(())
        })?;
        let place = Place::of(event.customer_id, event.minutes, event.occurred_at);
        let position = Position { at: event.occurred_at, event_key: event.event_key };
        for count in &counts {
            groups.add(place, position, count)?;
        }
    }
    groups.finish(&sets)
}

/// Where in a customer's usage an event falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    customer_id: i64,
    bucket_start: Instant,
    minutes: BucketMinutes,
}

impl Place {
    fn of(customer_id: i64, minutes: BucketMinutes, occurred_at: Instant) -> Place {
        Place { customer_id, bucket_start: minutes.floor(occurred_at), minutes }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cell {
    place: Place,
    meter: u32,
    set: u32,
}

/// Cells that are being added up.
struct Groups<'m> {
    meters: &'m Meters,
    cells: HashMap<Cell, (i64, State)>,
    uncounted: BTreeMap<i32, Uncounted>,
}

impl<'m> Groups<'m> {
    fn new(meters: &'m Meters) -> Groups<'m> {
        Groups { meters, cells: HashMap::new(), uncounted: BTreeMap::new() }
    }

    fn add(&mut self, place: Place, position: Position, count: &Count) -> Result<(), Fault> {
        let Some(value) = count.value else {
            self.uncounted(count.meter).skipped += 1;
            return Ok(());
        };
        let cell = Cell { place, meter: count.meter, set: count.set };
        let (events, state) =
            self.cells.entry(cell).or_insert_with(|| (0, State::new(self.meters.meter(count.meter).kept())));
        *events += 1;
        state.add(value, &When { position, into: position.at.0 - place.bucket_start.0 })
    }

    fn refuse(&mut self, meter: u32, event_key: Uuid, fault: Fault) {
        let uncounted = self.uncounted(meter);
        uncounted.refused += 1;
        uncounted.example.get_or_insert((event_key, fault.message));
    }

    fn uncounted(&mut self, meter: u32) -> &mut Uncounted {
        let meter_id = self.meters.id(meter);
        self.uncounted.entry(meter_id).or_insert_with(|| Uncounted { meter_id, ..Uncounted::default() })
    }

    fn finish(self, sets: &DimensionSets) -> Result<Deltas, Fault> {
        let mut rows = Vec::with_capacity(self.cells.len());
        for (cell, (events, state)) in self.cells {
            let set = sets.get(cell.set);
            let row = Delta {
                customer_id: cell.place.customer_id,
                meter_id: self.meters.id(cell.meter),
                bucket_start: cell.place.bucket_start,
                minutes: cell.place.minutes,
                dimension_set_id: set.id,
                dimensions: set.text.clone(),
                quantity: None,
                moment: None,
                position: None,
                events,
                value_keys: Vec::new(),
            };
            match state {
                // Of a percentile and an average nothing more is kept; values are never asked of buckets.
                State::Count(_) | State::Average { .. } | State::Values(_) => rows.push(row),
                State::Max(value) | State::Min(value) => rows.push(Delta { quantity: value, ..row }),
                State::Latest(last) => rows.push(Delta {
                    quantity: last.map(|last| last.value),
                    position: last.map(|last| last.position),
                    ..row
                }),
                State::Unique(keys) => rows.push(Delta { value_keys: keys.into_iter().collect(), ..row }),
                State::Presence(keys) => {
                    for (i, (key, operation)) in keys.into_iter().enumerate() {
                        rows.push(Delta {
                            quantity: Some(if operation.removed { Exact::ZERO } else { Exact::ONE }),
                            position: Some(operation.position),
                            events: if i == 0 { events } else { 0 },
                            value_keys: vec![key],
                            ..row.clone()
                        });
                    }
                }
                State::Sum(sum) => in_parts(&mut rows, row, sum, None),
                State::Level(level) => in_parts(&mut rows, row, level.change, Some(level.moment.into())),
            }
        }
        // Parts of one sum keep their order: the sort is stable.
        rows.sort_by(|a, b| order(a).cmp(&order(b)));
        Ok(Deltas { rows, uncounted: self.uncounted.into_values().collect() })
    }
}

/// A sum in as many rows as hold it; the first has the events and the moment.
fn in_parts(rows: &mut Vec<Delta>, row: Delta, sum: Sum, mut moment: Option<Quantity>) {
    let zero = moment.as_ref().map(|_| Quantity::Exact(Exact::ZERO));
    for (i, part) in sum.to_parts().into_iter().enumerate() {
        let events = if i == 0 { row.events } else { 0 };
        let moment = std::mem::replace(&mut moment, zero.clone());
        rows.push(Delta { quantity: Some(part), moment, events, ..row.clone() });
    }
}

fn order(row: &Delta) -> (i64, i32, Instant, BucketMinutes, i64, &str) {
    let Delta { customer_id, meter_id, bucket_start, minutes, dimension_set_id, dimensions, .. } = row;
    (*customer_id, *meter_id, *bucket_start, *minutes, *dimension_set_id, dimensions)
}

#[cfg(test)]
mod tests;

//! All meters of an installation, compiled once and found by event type, and the dimension sets of a call.

use super::aggregate::Contribution;
use super::dimensions::{BILL_TO, Dimensions};
use super::filters::Filters;
use super::meter::{Meter, Worth, dimension_at};
use super::path::Path;
use crate::domain::foundation::fault::Fault;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::Tree;
use crate::domain::ingestion::Event;
use std::collections::HashMap;
use std::sync::Arc;

/// The meters that ingest feeds. Building it costs; a backend keeps it until the catalogue changes.
#[derive(Debug, Default)]
pub struct Meters {
    meters: Vec<Compiled>,
    /// Indexes of the meters of one event type, those of one shape side by side.
    by_event_type: HashMap<String, Vec<u32>>,
    shapes: Vec<Shape>,
}

/// A version of a meter, for the events that happened in a stretch of time.
#[derive(Debug)]
pub struct Version {
    pub meter_id: i32,
    /// Inclusive; none = since ever.
    pub from: Option<Instant>,
    /// Exclusive; none = for ever.
    pub until: Option<Instant>,
    pub meter: Meter,
}

impl Version {
    /// The only version of a meter.
    pub fn only(meter_id: i32, meter: Meter) -> Version {
        Version { meter_id, from: None, until: None, meter }
    }
}

#[derive(Debug)]
struct Compiled {
    version: Version,
    shape: u32,
}

impl Compiled {
    fn holds_at(&self, at: Instant) -> bool {
        self.version.from.is_none_or(|from| from <= at) && self.version.until.is_none_or(|until| at < until)
    }
}

/// The dimensions of a meter sorted by name, `bill_to` among them. Meters of one shape have the same dimension
/// set for one event, so it is read once for all of them.
#[derive(Debug, PartialEq, Eq)]
struct Shape(Vec<(String, From)>);

/// Where the value of a dimension comes from.
#[derive(Debug, PartialEq, Eq)]
enum From {
    BillTo,
    Property(Path),
    /// The name of the filter that the event matches.
    Filters(Filters),
}

impl Shape {
    fn of(meter: &Meter) -> Shape {
        let from = |path: &Path| {
            let name = path.to_string();
            let from = match meter.is_filter(&name) {
                true => From::Filters(meter.filters.clone()),
                false => From::Property(path.clone()),
            };
            (name, from)
        };
        let mut names: Vec<_> = meter.dimensions.iter().map(from).collect();
        names.push((BILL_TO.to_string(), From::BillTo));
        names.sort_by(|a, b| a.0.cmp(&b.0));
        Shape(names)
    }

    fn each_value<'t>(
        &'t self,
        event: &Reading<'t>,
        mut take: impl FnMut(&'t str, Option<&str>),
    ) -> Result<(), String> {
        for (name, from) in &self.0 {
            match from {
                From::BillTo => take(name, event.bill_to),
                From::Property(path) => take(name, dimension_at(path, event.properties)?.as_deref()),
                From::Filters(filters) => {
                    take(name, filters.choose(event.properties).map_err(|fault| fault.message)?);
                }
            }
        }
        Ok(())
    }
}

/// What measuring needs of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'t> {
    pub event_type: &'t str,
    pub occurred_at: Instant,
    pub bill_to: Option<&'t str>,
    pub properties: &'t Tree<'t>,
}

impl<'t> Reading<'t> {
    pub fn of(event: &'t Event<'_>, properties: &'t Tree<'t>) -> Reading<'t> {
        let Event { event_type, occurred_at, bill_to, .. } = event;
        Reading { event_type, occurred_at: *occurred_at, bill_to: bill_to.as_deref(), properties }
    }
}

/// One event on one meter: what it adds to which dimension set, or nothing because it has no value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub meter: u32,
    pub set: u32,
    pub value: Option<Contribution>,
}

impl Meters {
    /// The given meters; the stretches of one meter's versions do not overlap.
    pub fn new(versions: impl IntoIterator<Item = Version>) -> Meters {
        let mut all = Meters::default();
        for version in versions {
            let shape = Shape::of(&version.meter);
            let shape = all.shapes.iter().position(|known| *known == shape).unwrap_or_else(|| {
                all.shapes.push(shape);
                all.shapes.len() - 1
            });
            let shape = index(shape);
            let of_type = all.by_event_type.entry(version.meter.event_type.clone()).or_default();
            of_type.push(index(all.meters.len()));
            all.meters.push(Compiled { version, shape });
        }
        for indexes in all.by_event_type.values_mut() {
            indexes.sort_by_key(|i| all.meters[*i as usize].shape);
        }
        all
    }

    /// How many versions of meters there are.
    pub fn len(&self) -> usize {
        self.meters.len()
    }

    /// Whether there is no meter.
    pub fn is_empty(&self) -> bool {
        self.meters.is_empty()
    }

    pub(super) fn id(&self, index: u32) -> i32 {
        self.meters[index as usize].version.meter_id
    }

    pub(super) fn meter(&self, index: u32) -> &Meter {
        &self.meters[index as usize].version.meter
    }

    /// Adds the counts of one event to `counts`. Whoever `refused` returns a fault ends the work.
    pub(super) fn count(
        &self,
        event: &Reading<'_>,
        sets: &mut DimensionSets,
        counts: &mut Vec<Count>,
        mut refused: impl FnMut(u32, Fault) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some(indexes) = self.by_event_type.get(event.event_type) else { return Ok(()) };
        let mut last: Option<(u32, u32)> = None;
        for &index in indexes {
            let compiled = &self.meters[index as usize];
            if !compiled.holds_at(event.occurred_at) {
                continue;
            }
            let Compiled { version: Version { meter, .. }, shape } = compiled;
            let value = match meter.worth(event.properties) {
                Worth::Counted(value) => value,
                Worth::NotCounted => continue,
                Worth::Skipped(_) => {
                    counts.push(Count { meter: index, set: 0, value: None });
                    continue;
                }
                Worth::Refused(fault) => {
                    refused(index, fault)?;
                    continue;
                }
            };
            let set = match last {
                Some((same, set)) if same == *shape => set,
                _ => match sets.intern(*shape, &self.shapes[*shape as usize], event) {
                    Ok(set) => set,
                    Err(why) => {
                        refused(index, meter.refusal(&why))?;
                        continue;
                    }
                },
            };
            last = Some((*shape, set));
            counts.push(Count { meter: index, set, value: Some(value) });
        }
        Ok(())
    }
}

fn index(position: usize) -> u32 {
    u32::try_from(position).expect("meters and dimension sets of one call are far fewer than 2^32")
}

/// The dimension sets that the events of one call have, each built and hashed once.
#[derive(Debug, Default)]
pub(super) struct DimensionSets {
    sets: Vec<DimensionSet>,
    /// By shape and values, as they are read from an event.
    by_values: HashMap<Box<[u8]>, u32>,
    /// By canonical text: different shapes can have the same set.
    by_text: HashMap<Arc<str>, u32>,
    scratch: Vec<u8>,
}

/// A set's stored id and canonical JSON.
#[derive(Debug, Clone)]
pub(super) struct DimensionSet {
    pub id: i64,
    pub text: Arc<str>,
}

impl DimensionSets {
    pub fn get(&self, set: u32) -> &DimensionSet {
        &self.sets[set as usize]
    }

    fn intern(&mut self, number: u32, shape: &Shape, event: &Reading<'_>) -> Result<u32, String> {
        let values = &mut self.scratch;
        values.clear();
        values.extend(number.to_le_bytes());
        shape.each_value(event, |_, value| match value {
            None => values.push(0),
            Some(value) => {
                values.push(1);
                // a bill_to has at most 200 bytes, any other value at most 256
                values.extend((value.len() as u32).to_le_bytes());
                values.extend(value.as_bytes());
            }
        })?;
        if let Some(&set) = self.by_values.get(self.scratch.as_slice()) {
            return Ok(set);
        }
        let mut dimensions = Dimensions::new();
        shape.each_value(event, |name, value| {
            if let Some(value) = value {
                dimensions.set(name, value);
            }
        })?;
        let text: Arc<str> = dimensions.canonical().into();
        let set = *self.by_text.entry(text.clone()).or_insert_with(|| {
            self.sets.push(DimensionSet { id: dimensions.id(), text });
            index(self.sets.len() - 1)
        });
        self.by_values.insert(self.scratch.as_slice().into(), set);
        Ok(set)
    }
}

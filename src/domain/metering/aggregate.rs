//! What a meter's counts add up to: states that merge in any order and grouping to the same result.

mod asked;
mod sum;
#[cfg(test)]
mod tests;
mod wide;

pub use asked::{Asked, HOUR_MICROS, Percentile, Running};
pub use sum::Sum;
pub use wide::{Quantity, Wide};

use crate::domain::foundation::decimal::Exact;
use crate::domain::foundation::fault::{Code, Fault};
use crate::domain::foundation::instant::Instant;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// How a meter aggregates its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aggregation {
    /// The number of events.
    Count,
    /// The sum of their values.
    Sum,
    /// The largest value.
    Max,
    /// The number of distinct values, or of those that are present at the end.
    UniqueCount,
    /// The smallest value.
    Min,
    /// The sum of the values over their number.
    Average,
    /// The value of the last event.
    Latest,
    /// Values are changes of a level; the level over time.
    WeightedSum,
    /// The value at a rank.
    Percentile,
    /// Made of other meters.
    Compound,
}

impl Aggregation {
    /// The words of a meter document, in the order of the variants.
    pub const WORDS: [&str; 10] = [
        "count",
        "sum",
        "max",
        "unique_count",
        "min",
        "average",
        "latest",
        "weighted_sum",
        "percentile",
        "compound",
    ];
    const ALL: [Aggregation; 10] = [
        Aggregation::Count,
        Aggregation::Sum,
        Aggregation::Max,
        Aggregation::UniqueCount,
        Aggregation::Min,
        Aggregation::Average,
        Aggregation::Latest,
        Aggregation::WeightedSum,
        Aggregation::Percentile,
        Aggregation::Compound,
    ];

    /// The aggregation a word of [`WORDS`](Aggregation::WORDS) names.
    pub fn parse(word: &str) -> Option<Aggregation> {
        Aggregation::ALL.into_iter().find(|aggregation| aggregation.word() == word)
    }

    /// Its word in a meter document.
    pub fn word(self) -> &'static str {
        Aggregation::WORDS[self as usize]
    }
}

/// What a state holds. The numbers stand in stored forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Count = 0,
    Sum = 1,
    Max = 2,
    /// Distinct values.
    Unique = 3,
    Min = 4,
    Average = 5,
    Latest = 6,
    /// Changes of a level and when they came.
    Level = 7,
    /// All values.
    Values = 8,
    /// Values that are added and removed.
    Presence = 9,
}

impl Kind {
    const WORDS: [&str; 10] = [
        "count",
        "sum",
        "max",
        "unique_count",
        "min",
        "average",
        "latest",
        "weighted_sum",
        "percentile",
        "unique_count with operations",
    ];

    fn word(self) -> &'static str {
        Kind::WORDS[self as usize]
    }
}

/// What one event adds to a state of its meter's aggregation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contribution {
    /// To a count: the event itself.
    One,
    /// To whatever looks at numbers.
    Number(Exact),
    /// To a distinct count: the key of the value's text.
    Key(Uuid),
    /// The same with what happened to the value.
    Operation { key: Uuid, removed: bool },
}

/// When an event happened. At one instant the greater key is the later event, so that the order never depends
/// on how events came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub at: Instant,
    pub event_key: Uuid,
}

/// [`Position`], and how far it is from where the state's time begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    pub position: Position,
    /// Microseconds since the start of the bucket.
    pub into: i64,
}

/// The last value: the latest one, of two at one position the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Last {
    pub position: Position,
    pub value: Exact,
}

/// What happened to a value last; of two at one position a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    pub position: Position,
    pub removed: bool,
}

/// Changes of a level. Additive, so whatever was added can be taken off again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    /// Σ value
    pub change: Sum,
    /// Σ value × microseconds since the start
    pub moment: Wide,
}

impl Level {
    fn add(&mut self, value: Exact, into: i64) -> Result<(), Fault> {
        let weighted = Wide::of(value)?.times(into);
        self.change.add(value)?;
        self.moment.add(&weighted);
        Ok(())
    }

    fn merge(&mut self, other: &Level) -> Result<(), Fault> {
        self.change.merge(other.change)?;
        self.moment.add(&other.moment);
        Ok(())
    }

    /// ∫ level dt in value × microseconds, from the start until `span` microseconds after it, which is not
    /// before any of the changes.
    pub fn integral(&self, span: i64) -> Wide {
        let mut area = Wide::from(&self.change).times(span);
        area.sub(&self.moment);
        area
    }
}

/// What the events so far add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Count(u64),
    Sum(Sum),
    /// `None` before the first value.
    Max(Option<Exact>),
    /// Keys of the distinct values.
    Unique(BTreeSet<Uuid>),
    /// `None` before the first value.
    Min(Option<Exact>),
    Average {
        events: u64,
        sum: Sum,
    },
    /// `None` before the first value.
    Latest(Option<Last>),
    Level(Level),
    /// Each value with how often it came.
    Values(BTreeMap<Exact, u64>),
    /// Each value's key with what happened to it last.
    Presence(BTreeMap<Uuid, Operation>),
}

/// Version of the stored form.
const FORM: u8 = 1;

fn counted(count: u64, more: u64) -> Result<u64, Fault> {
    count.checked_add(more).ok_or_else(|| Fault::new(Code::Bound, "a count outgrew 64 bits"))
}

impl State {
    /// The state of no events.
    pub fn new(kind: Kind) -> State {
        match kind {
            Kind::Count => State::Count(0),
            Kind::Sum => State::Sum(Sum::default()),
            Kind::Max => State::Max(None),
            Kind::Unique => State::Unique(BTreeSet::new()),
            Kind::Min => State::Min(None),
            Kind::Average => State::Average { events: 0, sum: Sum::default() },
            Kind::Latest => State::Latest(None),
            Kind::Level => State::Level(Level::default()),
            Kind::Values => State::Values(BTreeMap::new()),
            Kind::Presence => State::Presence(BTreeMap::new()),
        }
    }

    /// What the state holds.
    pub fn kind(&self) -> Kind {
        match self {
            State::Count(_) => Kind::Count,
            State::Sum(_) => Kind::Sum,
            State::Max(_) => Kind::Max,
            State::Unique(_) => Kind::Unique,
            State::Min(_) => Kind::Min,
            State::Average { .. } => Kind::Average,
            State::Latest(_) => Kind::Latest,
            State::Level(_) => Kind::Level,
            State::Values(_) => Kind::Values,
            State::Presence(_) => Kind::Presence,
        }
    }

    /// Adds what one event contributes. After a fault the state is as before.
    pub fn add(&mut self, contribution: Contribution, when: &When) -> Result<(), Fault> {
        match (self, contribution) {
            // Of any event a count takes only that it happened.
            (State::Count(count), _) => *count = counted(*count, 1)?,
            (State::Sum(sum), Contribution::Number(value)) => sum.add(value)?,
            (State::Max(max), Contribution::Number(value)) => *max = (*max).max(Some(value)),
            (State::Min(min), Contribution::Number(value)) => {
                *min = Some(min.map_or(value, |min| min.min(value)));
            }
            (State::Average { events, sum }, Contribution::Number(value)) => {
                let more = counted(*events, 1)?;
                sum.add(value)?;
                *events = more;
            }
            (State::Latest(last), Contribution::Number(value)) => {
                *last = (*last).max(Some(Last { position: when.position, value }));
            }
            (State::Level(level), Contribution::Number(value)) => level.add(value, when.into)?,
            (State::Values(values), Contribution::Number(value)) => {
                let count = values.entry(value).or_default();
                *count = counted(*count, 1)?;
            }
            (State::Unique(keys), Contribution::Key(key)) => {
                keys.insert(key);
            }
            (State::Presence(keys), Contribution::Operation { key, removed }) => {
                keep_later(keys, key, Operation { position: when.position, removed });
            }
            (state, contribution) => {
                let word = state.kind().word();
                return Err(Fault::value(format!("{contribution:?} can't be added to a {word}")));
            }
        }
        Ok(())
    }

    /// Adds the events of another state of the same kind. After a fault the state is as before.
    pub fn merge(&mut self, other: State) -> Result<(), Fault> {
        match (self, other) {
            (State::Count(count), State::Count(more)) => *count = counted(*count, more)?,
            (State::Sum(sum), State::Sum(more)) => sum.merge(more)?,
            (State::Max(max), State::Max(more)) => *max = (*max).max(more),
            (State::Min(min), State::Min(more)) => {
                *min = match (*min, more) {
                    (Some(one), Some(two)) => Some(one.min(two)),
                    (one, two) => one.or(two),
                };
            }
            (State::Average { events, sum }, State::Average { events: more, sum: other }) => {
                let more = counted(*events, more)?;
                sum.merge(other)?;
                *events = more;
            }
            (State::Latest(last), State::Latest(other)) => *last = (*last).max(other),
            (State::Level(level), State::Level(other)) => level.merge(&other)?,
            (State::Values(values), State::Values(more)) => {
                if more
                    .iter()
                    .any(|(value, n)| values.get(value).is_some_and(|m| m.checked_add(*n).is_none()))
                {
                    return Err(Fault::new(Code::Bound, "a count outgrew 64 bits"));
                }
                more.into_iter().for_each(|(value, n)| *values.entry(value).or_default() += n);
            }
            (State::Unique(keys), State::Unique(mut more)) => keys.append(&mut more),
            (State::Presence(keys), State::Presence(more)) => {
                more.into_iter().for_each(|(key, operation)| keep_later(keys, key, operation));
            }
            (state, other) => {
                let (one, two) = (state.kind().word(), other.kind().word());
                return Err(Fault::value(format!("a {two} can't be merged into a {one}")));
            }
        }
        Ok(())
    }

    /// The quantity of what is asked. `None` where no event has a value and none can be given: the largest,
    /// smallest, last, average or ranked value of nothing.
    pub fn quantity(&self, asked: &Asked) -> Result<Option<Quantity>, Fault> {
        let number = |n: u64| Some(Quantity::Exact(Exact::from_u64(n)));
        Ok(match (self, asked) {
            (State::Count(count), Asked::Total) => number(*count),
            (State::Sum(sum), Asked::Total) => Some(Wide::from(sum).into()),
            (State::Max(value) | State::Min(value), Asked::Total) => value.map(Quantity::Exact),
            (State::Average { events: 0, .. }, Asked::Total) => None,
            (State::Average { events, sum }, Asked::Total) => Some(Wide::from(sum).over(*events).into()),
            (State::Latest(last), Asked::Total) => last.map(|last| Quantity::Exact(last.value)),
            (State::Unique(keys), Asked::Total) => number(keys.len() as u64),
            (State::Presence(keys), Asked::Total) => {
                number(keys.values().filter(|operation| !operation.removed).count() as u64)
            }
            (State::Level(level), Asked::Stretch { .. }) => Some(asked.of_level(level).into()),
            (State::Values(values), Asked::Percentile(percentile)) => {
                percentile.of(values).map(Quantity::Exact)
            }
            (state, asked) => {
                return Err(Fault::value(format!("{asked:?} can't be asked of a {}", state.kind().word())));
            }
        })
    }

    /// The stored form: version, kind, then big-endian fields; equal states have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORM, self.kind() as u8];
        match self {
            State::Count(count) => bytes.extend(count.to_be_bytes()),
            State::Sum(sum) => write_sum(&mut bytes, sum),
            State::Max(value) | State::Min(value) => {
                if let Some(value) = value {
                    write_exact(&mut bytes, *value);
                }
            }
            State::Unique(keys) => {
                bytes.reserve(keys.len() * 16);
                bytes.extend(keys.iter().flat_map(|key| *key.as_bytes()));
            }
            State::Average { events, sum } => {
                bytes.extend(events.to_be_bytes());
                write_sum(&mut bytes, sum);
            }
            State::Latest(last) => {
                if let Some(Last { position, value }) = last {
                    write_position(&mut bytes, position);
                    write_exact(&mut bytes, *value);
                }
            }
            State::Level(Level { change, moment }) => {
                write_sum(&mut bytes, change);
                bytes.extend(moment.to_bytes());
            }
            State::Values(values) => {
                for (value, n) in values {
                    write_exact(&mut bytes, *value);
                    bytes.extend(n.to_be_bytes());
                }
            }
            State::Presence(keys) => {
                for (key, Operation { position, removed }) in keys {
                    bytes.extend(key.as_bytes());
                    write_position(&mut bytes, position);
                    bytes.push(u8::from(*removed));
                }
            }
        }
        bytes
    }

    /// Reads the stored form. Bytes that [`to_bytes`](State::to_bytes) never writes are refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<State, Fault> {
        let state = match bytes {
            [FORM, kind, fields @ ..] => read_fields(*kind, &mut Fields(fields)),
            _ => None,
        };
        // What reads alike but is written otherwise (keys out of order, zeros in front) was not written by us.
        state
            .filter(|state| state.to_bytes() == bytes)
            .ok_or_else(|| Fault::value(format!("{} bytes are not an aggregate state", bytes.len())))
    }
}

fn keep_later(keys: &mut BTreeMap<Uuid, Operation>, key: Uuid, operation: Operation) {
    keys.entry(key).and_modify(|known| *known = (*known).max(operation)).or_insert(operation);
}

fn write_exact(bytes: &mut Vec<u8>, value: Exact) {
    bytes.extend(value.mantissa().to_be_bytes());
    bytes.push(u8::try_from(value.scale()).expect("at most 28"));
}

fn write_sum(bytes: &mut Vec<u8>, sum: &Sum) {
    bytes.extend(sum.whole.to_be_bytes());
    bytes.extend(sum.fraction.to_be_bytes());
}

fn write_position(bytes: &mut Vec<u8>, position: &Position) {
    bytes.extend(position.at.0.to_be_bytes());
    bytes.extend(position.event_key.as_bytes());
}

/// The rest of a stored form.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn exact(&mut self) -> Option<Exact> {
        let mantissa = i128::from_be_bytes(self.take()?);
        let scale = u32::from(self.take::<1>()?[0]);
        (mantissa.unsigned_abs() <= sum::WHOLE_MAX.unsigned_abs() && scale <= 28)
            .then(|| Exact::from_parts(mantissa, scale))?
    }

    fn sum(&mut self) -> Option<Sum> {
        let whole = i128::from_be_bytes(self.take()?);
        let fraction = i64::from_be_bytes(self.take()?);
        (0..sum::UNITS).contains(&fraction).then_some(Sum { whole, fraction })
    }

    fn position(&mut self) -> Option<Position> {
        let at = Instant(i64::from_be_bytes(self.take()?));
        Some(Position { at, event_key: Uuid::from_bytes(self.take()?) })
    }

    fn at_end(&self) -> bool {
        self.0.is_empty()
    }
}

fn read_fields(kind: u8, fields: &mut Fields<'_>) -> Option<State> {
    let state = match kind {
        0 => State::Count(u64::from_be_bytes(fields.take()?)),
        1 => State::Sum(fields.sum()?),
        2 | 4 => {
            let value = if fields.at_end() { None } else { Some(fields.exact()?) };
            if kind == 2 { State::Max(value) } else { State::Min(value) }
        }
        3 => {
            let mut keys = BTreeSet::new();
            while !fields.at_end() {
                keys.insert(Uuid::from_bytes(fields.take()?));
            }
            State::Unique(keys)
        }
        5 => State::Average { events: u64::from_be_bytes(fields.take()?), sum: fields.sum()? },
        6 if fields.at_end() => State::Latest(None),
        6 => State::Latest(Some(Last { position: fields.position()?, value: fields.exact()? })),
        7 => {
            let change = fields.sum()?;
            let moment = Wide::from_bytes(std::mem::take(&mut fields.0));
            State::Level(Level { change, moment })
        }
        8 => {
            let mut values = BTreeMap::new();
            while !fields.at_end() {
                values.insert(fields.exact()?, u64::from_be_bytes(fields.take()?));
            }
            // a value that never came is not kept
            State::Values(values.into_iter().filter(|(_, n)| *n > 0).collect())
        }
        9 => {
            let mut keys = BTreeMap::new();
            while !fields.at_end() {
                let key = Uuid::from_bytes(fields.take()?);
                let position = fields.position()?;
                keys.insert(key, Operation { position, removed: fields.take::<1>()?[0] != 0 });
            }
            State::Presence(keys)
        }
        _ => return None,
    };
    fields.at_end().then_some(state)
}

//! What is asked of a state beside its total: a rank, or a level over a stretch of time.

use super::{Level, State, Wide};
use crate::domain::foundation::decimal::Exact;
use crate::domain::foundation::fault::Fault;
use crate::domain::foundation::instant::{HOUR, Instant};
use std::collections::BTreeMap;

/// A percentage in (0, 100].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentile(Exact);

impl Percentile {
    pub fn new(percent: Exact) -> Result<Percentile, Fault> {
        let hundred = Exact::from_i64(100);
        if percent.is_negative() || percent.is_zero() || percent > hundred {
            return Err(Fault::value(format!("{percent} is not a percentile"))
                .with_hint("Use a number above 0 and up to 100: 99 is the value that 99 % do not exceed."));
        }
        if percent.scale() > 12 {
            return Err(Fault::value(format!("{percent} has more than 12 digits after the point")));
        }
        Ok(Percentile(percent))
    }

    pub fn get(self) -> Exact {
        self.0
    }

    /// The nearest rank among `n` sorted values, from 1: ⌈p·n⌉.
    pub fn rank(self, n: u64) -> u64 {
        // a mantissa of at most 100 × 10^12 times 64 bits fits 128
        let whole = 100 * 10i128.pow(self.0.scale());
        let product = self.0.mantissa() * i128::from(n);
        u64::try_from((product + whole - 1) / whole).expect("at most n")
    }

    /// The value at the rank; none of none.
    pub(super) fn of(self, values: &BTreeMap<Exact, u64>) -> Option<Exact> {
        let total = values.values().try_fold(0u64, |sum, n| sum.checked_add(*n))?;
        let mut left = self.rank(total);
        values
            .iter()
            .find(|(_, n)| {
                left = left.saturating_sub(**n);
                left == 0
            })
            .map(|(value, _)| *value)
    }
}

/// What is asked of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// What its events add up to.
    Total,
    /// Of all values the one at a rank.
    Percentile(Percentile),
    /// A level over [from, until), in units of `unit` microseconds. `from` is where the state's time begins:
    /// what was before counts as if it came then.
    Stretch { from: Instant, until: Instant, unit: u64 },
}

impl Asked {
    pub(super) fn of_level(&self, level: &Level) -> Wide {
        match self {
            Asked::Stretch { from, until, unit } => level.integral(until.0 - from.0).over(*unit),
            _ => level.integral(0),
        }
    }
}

/// A state on its way through a query, with what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub state: State,
    pub asked: Asked,
}

/// Microseconds of the unit that levels are weighted by where nothing else is said.
pub const HOUR_MICROS: u64 = HOUR as u64;

impl Running {
    /// Of two parts of one query, which ask the same.
    pub fn merge(&mut self, other: Running) -> Result<(), Fault> {
        self.asks(&other.asked)?;
        self.state.merge(other.state)
    }

    /// Every row of a group asks the same.
    pub fn asks(&self, asked: &Asked) -> Result<(), Fault> {
        match (&self.asked, asked) {
            (one, two) if one == two => Ok(()),
            (Asked::Percentile(one), Asked::Percentile(two)) => Err(Fault::value(format!(
                "one group asks for the percentiles {} and {}",
                one.get(),
                two.get()
            ))
            .with_hint("The percentile must be the same in all rows of a group.")),
            (Asked::Stretch { from, until, .. }, Asked::Stretch { from: other, until: end, .. }) => {
                Err(Fault::value(format!(
                    "one group asks for the stretches {from} to {until} and {other} to {end}"
                ))
                .with_hint("from and until must be the same in all rows of a group."))
            }
            _ => Err(Fault::value("one group asks for different things")),
        }
    }

    /// What is asked (0; 1 and a percentile; 2 and a stretch), then the state.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.asked {
            Asked::Total => bytes.push(0),
            Asked::Percentile(percentile) => {
                bytes.push(1);
                super::write_exact(&mut bytes, percentile.get());
            }
            Asked::Stretch { from, until, unit } => {
                bytes.push(2);
                bytes.extend(from.0.to_be_bytes());
                bytes.extend(until.0.to_be_bytes());
                bytes.extend(unit.to_be_bytes());
            }
        }
        bytes.extend(self.state.to_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Running, Fault> {
        let broken = || Fault::value(format!("{} bytes are not an aggregate state", bytes.len()));
        let mut fields = super::Fields(bytes);
        let asked = match fields.take::<1>().ok_or_else(broken)?[0] {
            0 => Asked::Total,
            1 => Asked::Percentile(Percentile::new(fields.exact().ok_or_else(broken)?)?),
            2 => (|| {
                Some(Asked::Stretch {
                    from: Instant(i64::from_be_bytes(fields.take()?)),
                    until: Instant(i64::from_be_bytes(fields.take()?)),
                    unit: u64::from_be_bytes(fields.take()?),
                })
            })()
            .filter(|asked| !matches!(asked, Asked::Stretch { unit: 0, .. }))
            .ok_or_else(broken)?,
            _ => return Err(broken()),
        };
        let running = Running { asked, state: State::from_bytes(fields.0)? };
        if running.to_bytes() == bytes { Ok(running) } else { Err(broken()) }
    }
}

//! Evaluation: decimals, and inside round fractions, through one walk over the tree.

use super::{Choice, Condition, Evaluated, Scaling, Sign, Term, VALUE_SCALE_MAX};
use crate::domain::foundation::decimal::{Exact, quoted};
use crate::domain::foundation::fault::Fault;
use crate::domain::foundation::json::Tree;
use crate::domain::foundation::ratio::Ratio;
use crate::domain::foundation::rounding::RoundingMode;
use crate::domain::metering::path::Path;
use crate::domain::metering::scalar;
use std::cmp::Ordering;

/// What the walk computes with. `None` everywhere stands for an absent value; all operands are looked at
/// before one of them makes the result absent, so that their order never decides whether an event is refused.
trait Arithmetic: Ord + Sized {
    fn of(value: Exact) -> Self;
    fn plus(&self, other: &Self) -> Result<Self, Fault>;
    fn times(&self, other: &Self) -> Result<Self, Fault>;
    fn over(&self, other: &Self) -> Result<Self, Fault>;
    fn opposite(&self) -> Self;
}

impl Arithmetic for Exact {
    fn of(value: Exact) -> Exact {
        value
    }

    fn plus(&self, other: &Exact) -> Result<Exact, Fault> {
        (*self).add(*other)
    }

    fn times(&self, other: &Exact) -> Result<Exact, Fault> {
        (*self).mul(*other)
    }

    fn over(&self, _: &Exact) -> Result<Exact, Fault> {
        unreachable!("the parser lets a division stand only inside round, which computes with fractions")
    }

    fn opposite(&self) -> Exact {
        self.neg()
    }
}

impl Arithmetic for Ratio {
    fn of(value: Exact) -> Ratio {
        Ratio::from(value)
    }

    fn plus(&self, other: &Ratio) -> Result<Ratio, Fault> {
        Ok(self.add(other))
    }

    fn times(&self, other: &Ratio) -> Result<Ratio, Fault> {
        Ok(self.mul(other))
    }

    fn over(&self, other: &Ratio) -> Result<Ratio, Fault> {
        self.div(other).ok_or_else(|| Fault::value("a division by zero"))
    }

    fn opposite(&self) -> Ratio {
        self.neg()
    }
}

pub(super) fn evaluate(term: &Term, properties: &Tree<'_>) -> Evaluated {
    match value::<Exact>(term, properties) {
        Ok(Some(value)) if value.scale() > VALUE_SCALE_MAX => {
            Evaluated::Refused(Fault::value(format!("the value {value} {}", scalar::TOO_FINE)))
        }
        Ok(Some(value)) => Evaluated::Value(value),
        Ok(None) => Evaluated::Absent,
        Err(fault) => Evaluated::Refused(fault),
    }
}

fn value<N: Arithmetic>(term: &Term, properties: &Tree<'_>) -> Result<Option<N>, Fault> {
    Ok(match term {
        Term::Number(number) => Some(N::of(*number)),
        Term::Property(path) => number_at(path, properties)?.map(N::of),
        Term::Negative(term) => value::<N>(term, properties)?.map(|value| value.opposite()),
        Term::Sum(first, rest) => {
            let mut total = value::<N>(first, properties)?;
            for (sign, term) in rest {
                let next = value::<N>(term, properties)?;
                total = match (total, next, sign) {
                    (Some(total), Some(next), Sign::Plus) => Some(total.plus(&next)?),
                    (Some(total), Some(next), Sign::Minus) => Some(total.plus(&next.opposite())?),
                    _ => None,
                };
            }
            total
        }
        Term::Product(first, rest) => {
            let mut total = value::<N>(first, properties)?;
            for (scaling, term) in rest {
                let next = value::<N>(term, properties)?;
                total = match (total, next, scaling) {
                    (Some(total), Some(next), Scaling::Times) => Some(total.times(&next)?),
                    (Some(total), Some(next), Scaling::Over) => Some(total.over(&next)?),
                    _ => None,
                };
            }
            total
        }
        Term::Least(arguments) => extreme::<N>(arguments, properties, Ordering::Less)?,
        Term::Greatest(arguments) => extreme::<N>(arguments, properties, Ordering::Greater)?,
        Term::Coalesce(arguments) => {
            for argument in arguments {
                if let Some(value) = value::<N>(argument, properties)? {
                    return Ok(Some(value));
                }
            }
            None
        }
        Term::Round(term, places) => rounded(term, *places, properties)?.map(N::of),
        Term::If(choice) => {
            let Choice { condition, then, otherwise } = &**choice;
            let taken = if holds::<N>(condition, properties)? { then } else { otherwise };
            value::<N>(taken, properties)?
        }
    })
}

/// The argument that compares as `wanted` with the others; absent if any of them is.
fn extreme<N: Arithmetic>(
    arguments: &[Term],
    properties: &Tree<'_>,
    wanted: Ordering,
) -> Result<Option<N>, Fault> {
    let (first, rest) = arguments.split_first().expect("the parser asks for two arguments");
    let mut best = value::<N>(first, properties)?;
    for argument in rest {
        let next = value::<N>(argument, properties)?;
        best = best.zip(next).map(|(best, next)| if next.cmp(&best) == wanted { next } else { best });
    }
    Ok(best)
}

/// Half away from zero, as SQL's round(numeric, n), once, from the exact fraction.
fn rounded(term: &Term, places: u32, properties: &Tree<'_>) -> Result<Option<Exact>, Fault> {
    let Some(exact) = value::<Ratio>(term, properties)? else { return Ok(None) };
    let rounded = exact.round(places, RoundingMode::HalfUp);
    rounded.map(Some).map_err(|_| Fault::value("the result of round needs more than 28 digits"))
}

fn holds<N: Arithmetic>(condition: &Condition, properties: &Tree<'_>) -> Result<bool, Fault> {
    match condition {
        Condition::Numbers(left, comparison, right) => {
            let (left, right) = (value::<N>(left, properties)?, value::<N>(right, properties)?);
            Ok(left.zip(right).is_some_and(|(left, right)| comparison.holds(left.cmp(&right))))
        }
        Condition::Text(path, comparison, text) => {
            let Some(found) = path.find(properties) else { return Ok(false) };
            let found = scalar::text(found).map_err(|why| Fault::value(format!("{path} {why}")))?;
            Ok(found.is_some_and(|found| comparison.holds(found.as_ref().cmp(text.as_str()))))
        }
    }
}

fn number_at(path: &Path, properties: &Tree<'_>) -> Result<Option<Exact>, Fault> {
    match path.find(properties) {
        None => Ok(None),
        Some(Tree::Number(text)) => {
            let number = Exact::parse(text)
                .map_err(|_| Fault::value(format!("{path} {} {}", quoted(text), scalar::TOO_LONG)))?;
            if number.scale() > VALUE_SCALE_MAX {
                return Err(Fault::value(format!("{path} {} {}", quoted(text), scalar::TOO_FINE)));
            }
            Ok(Some(number))
        }
        Some(other) => Err(Fault::value(format!("{path} must be a number, not {}", scalar::shown(other)))),
    }
}

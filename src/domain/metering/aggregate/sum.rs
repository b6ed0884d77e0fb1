//! Sums of usage numbers.

use crate::domain::foundation::decimal::{DIGITS_MAX, Exact};
use crate::domain::foundation::fault::{Code, Fault};
use crate::domain::metering::expression::VALUE_SCALE_MAX;
use std::fmt;

pub(super) const WHOLE_MAX: i128 = 10i128.pow(DIGITS_MAX) - 1;
/// Fractions are counted in units of 10^-12.
pub(super) const UNITS: i64 = 10i64.pow(VALUE_SCALE_MAX);

/// A sum of usage numbers, exact for more than 10^10 of the largest ones. (28 digits before the point and
/// 12 behind it don't fit one i128, so the two sides of the point are kept apart.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Rounded down: −0.5 is −1 and half a unit.
    pub(super) whole: i128,
    /// 0 ≤ fraction < UNITS.
    pub(super) fraction: i64,
}

impl Sum {
    /// Adds one usage number.
    pub fn add(&mut self, value: Exact) -> Result<(), Fault> {
        if value.scale() > VALUE_SCALE_MAX {
            return Err(Fault::value(format!(
                "{value} has more than {VALUE_SCALE_MAX} digits after the point"
            )));
        }
        let unit = 10i128.pow(value.scale());
        let (whole, part) = match value.scale() {
            0 => (value.mantissa(), 0),
            _ => (value.mantissa().div_euclid(unit), value.mantissa().rem_euclid(unit)),
        };
        let part = i64::try_from(part).expect("less than 10^12");
        self.merge(Sum { whole, fraction: part * 10i64.pow(VALUE_SCALE_MAX - value.scale()) })
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Sum) -> Result<(), Fault> {
        let fraction = self.fraction + other.fraction;
        let whole = self
            .whole
            .checked_add(other.whole)
            .and_then(|whole| whole.checked_add(i128::from(fraction / UNITS)))
            .ok_or_else(|| Fault::new(Code::Bound, "a sum of usage outgrew 38 digits"))?;
        *self = Sum { whole, fraction: fraction % UNITS };
        Ok(())
    }

    /// The integer below, and the units of 10^-12 above it.
    pub(super) fn sides(&self) -> (i128, i64) {
        (self.whole, self.fraction)
    }

    /// The sum as one decimal, if 28 digits hold it.
    pub fn to_exact(self) -> Option<Exact> {
        if self.fraction == 0 {
            return Exact::from_parts(self.whole, 0);
        }
        let mantissa = self.whole.checked_mul(i128::from(UNITS))?.checked_add(i128::from(self.fraction))?;
        Exact::from_parts(mantissa, VALUE_SCALE_MAX)
    }

    /// Decimals that add up to the sum: one wherever one can hold it, the same ones for equal sums.
    pub fn to_parts(self) -> Vec<Exact> {
        if let Some(one) = self.to_exact() {
            return vec![one];
        }
        let mut parts = Vec::new();
        // Both sides of the point with the sum's own sign.
        let (mut whole, fraction) = match (self.whole < 0, self.fraction) {
            (true, 1..) => (self.whole + 1, self.fraction - UNITS),
            (_, fraction) => (self.whole, fraction),
        };
        while whole != 0 {
            let part = whole.clamp(-WHOLE_MAX, WHOLE_MAX);
            parts.push(Exact::from_parts(part, 0).expect("at most 28 digits"));
            whole -= part;
        }
        if fraction != 0 {
            let part = Exact::from_parts(fraction.into(), VALUE_SCALE_MAX);
            parts.push(part.expect("at most 12 digits"));
        }
        parts
    }
}

impl fmt::Display for Sum {
    /// Plain decimal text of any length, for a numeric.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, whole, fraction) = match (self.whole < 0, self.fraction) {
            (true, 0) => ("-", self.whole.unsigned_abs(), 0),
            (true, fraction) => ("-", (self.whole + 1).unsigned_abs(), UNITS - fraction),
            (false, fraction) => ("", self.whole.unsigned_abs(), fraction),
        };
        write!(f, "{sign}{whole}")?;
        if fraction != 0 {
            write!(f, ".{}", format!("{fraction:012}").trim_end_matches('0'))?;
        }
        Ok(())
    }
}

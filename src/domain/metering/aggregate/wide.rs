//! Usage numbers of any size: what sums, products with microseconds and averages come to on the way.

use super::sum::Sum;
use crate::domain::foundation::decimal::{DIGITS_MAX, Exact};
use crate::domain::foundation::fault::Fault;
use crate::domain::metering::expression::VALUE_SCALE_MAX;
use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{Signed, ToPrimitive, Zero};
use std::fmt;

/// An exact decimal of any size with at most 12 digits after the point.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wide(
    /// In units of 10^-12.
    BigInt,
);

impl Wide {
    /// A usage number; more than 12 digits after the point are a fault.
    pub fn of(value: Exact) -> Result<Wide, Fault> {
        match VALUE_SCALE_MAX.checked_sub(value.scale()) {
            Some(missing) => Ok(Wide(BigInt::from(value.mantissa()) * BigInt::from(10i64.pow(missing)))),
            None => {
                Err(Fault::value(format!("{value} has more than {VALUE_SCALE_MAX} digits after the point")))
            }
        }
    }

    pub fn add(&mut self, other: &Wide) {
        self.0 += &other.0;
    }

    pub fn sub(&mut self, other: &Wide) {
        self.0 -= &other.0;
    }

    pub fn neg(&self) -> Wide {
        Wide(-&self.0)
    }

    /// This many times.
    pub fn times(&self, factor: i64) -> Wide {
        Wide(&self.0 * factor)
    }

    /// The quotient, rounded once to 12 places, half away from zero. The divisor is positive.
    pub fn over(&self, divisor: u64) -> Wide {
        let (quotient, remainder) = self.0.div_rem(&BigInt::from(divisor));
        let away = remainder.abs() * 2 >= BigInt::from(divisor);
        Wide(if away { quotient + self.0.signum() } else { quotient })
    }

    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// As an exact decimal, if 28 digits hold it.
    pub fn to_exact(&self) -> Option<Exact> {
        let (mut units, mut scale) = (self.0.clone(), VALUE_SCALE_MAX);
        while scale > 0 && (&units % 10u8).is_zero() {
            units /= 10u8;
            scale -= 1;
        }
        Exact::from_parts(units.to_i128()?, scale)
    }

    /// The smallest two's complement form, big-endian; empty for 0.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        if self.is_zero() { Vec::new() } else { self.0.to_signed_bytes_be() }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Wide {
        Wide(BigInt::from_signed_bytes_be(bytes))
    }
}

impl From<&Sum> for Wide {
    fn from(sum: &Sum) -> Wide {
        let (whole, fraction) = sum.sides();
        Wide(BigInt::from(whole) * BigInt::from(10i64.pow(VALUE_SCALE_MAX)) + fraction)
    }
}

impl fmt::Display for Wide {
    /// Plain decimal text of any length, for a numeric.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = self.0.abs().div_rem(&BigInt::from(10i64.pow(VALUE_SCALE_MAX)));
        write!(f, "{}{whole}", if self.0.is_negative() { "-" } else { "" })?;
        if !fraction.is_zero() {
            let digits = format!("{:0>12}", fraction.to_string());
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

/// What an aggregation comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quantity {
    Exact(Exact),
    /// Only where 28 digits do not hold it.
    Wide(Wide),
}

impl Quantity {
    /// The fault of one that is too long for an amount or an event.
    pub fn too_long(wide: &Wide) -> Fault {
        Fault::value(format!("the quantity {wide} needs more than {DIGITS_MAX} digits"))
    }

    /// As an exact decimal; a fault where 28 digits do not hold it.
    pub fn exact(&self) -> Result<Exact, Fault> {
        match self {
            Quantity::Exact(exact) => Ok(*exact),
            Quantity::Wide(wide) => Err(Quantity::too_long(wide)),
        }
    }
}

impl From<Exact> for Quantity {
    fn from(exact: Exact) -> Quantity {
        Quantity::Exact(exact)
    }
}

impl From<Wide> for Quantity {
    fn from(wide: Wide) -> Quantity {
        wide.to_exact().map_or(Quantity::Wide(wide), Quantity::Exact)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantity::Exact(exact) => exact.fmt(f),
            Quantity::Wide(wide) => wide.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wide(text: &str) -> Wide {
        Wide::of(Exact::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn divides_once_and_half_away_from_zero() {
        for (value, divisor, expected) in [
            ("10", 4, "2.5"),
            ("1", 3, "0.333333333333"),
            ("2", 3, "0.666666666667"),
            ("-2", 3, "-0.666666666667"),
            ("0.000000000001", 2, "0.000000000001"),
            ("-0.000000000001", 2, "-0.000000000001"),
            ("0.000000000001", 3, "0"),
            ("9999999999999999999999999999", 7, "1428571428571428571428571428.428571428571"),
        ] {
            assert_eq!(wide(value).over(divisor).to_string(), expected, "{value} / {divisor}");
        }
    }

    #[test]
    fn is_exact_where_28_digits_hold_it() {
        let most = wide("9999999999999999999999999999");
        assert_eq!(most.to_exact().unwrap().to_string(), "9999999999999999999999999999");
        let mut more = most.clone();
        more.add(&wide("0.5"));
        assert_eq!(more.to_exact(), None);
        assert_eq!(Quantity::from(more.clone()).to_string(), "9999999999999999999999999999.5");
        assert!(Quantity::from(more).exact().unwrap_err().message.contains("28 digits"));
        assert_eq!(Quantity::from(wide("1.50")), Quantity::Exact(Exact::parse("1.5").unwrap()));
        assert!(Wide::of(Exact::parse("0.0000000000001").unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn keeps_every_digit(a in any::<i64>(), s in 0u32..=12, factor in any::<i64>()) {
            let value = wide(&Exact::from_parts(a.into(), s).unwrap().to_string());
            prop_assert_eq!(value.to_string(), Exact::from_parts(a.into(), s).unwrap().to_string());
            let product = value.times(factor);
            prop_assert_eq!(&Wide::from_bytes(&product.to_bytes()), &product);
            let mut nothing = product.clone();
            nothing.sub(&product);
            prop_assert!(nothing.is_zero() && nothing.to_bytes().is_empty());
            prop_assert_eq!(product.neg().neg(), product);
        }
    }
}

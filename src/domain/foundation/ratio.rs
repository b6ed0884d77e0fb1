//! `Ratio`: an exact fraction of any size. Rated amounts live here until the one rounding step.
//!
//! Small values run on two `i128`; what outgrows them moves to arbitrary precision, so nothing ever
//! overflows and nothing is ever rounded on the way.

use super::decimal::Exact;
use super::fault::Fault;
use super::rounding::RoundingMode;
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};
use std::cmp::Ordering;
use std::fmt;

/// Places to which an unrounded amount is shown when it has no end. Never used to post.
pub const SHOWN_PLACES: u32 = 18;

#[derive(Clone, Debug)]
enum Form {
    /// Denominator > 0, not necessarily reduced.
    Small {
        num: i128,
        den: i128,
    },
    Big(Box<BigRational>),
}

/// An exact fraction.
#[derive(Clone, Debug)]
pub struct Ratio(Form);

impl Ratio {
    pub const ZERO: Ratio = Ratio(Form::Small { num: 0, den: 1 });

    /// `num / den`; `den` must not be zero.
    pub fn new(num: i128, den: i128) -> Ratio {
        assert!(den != 0, "a ratio needs a denominator");
        if den > 0 {
            Ratio(Form::Small { num, den })
        } else {
            Ratio::from_big(BigRational::new(num.into(), den.into()))
        }
    }

    fn from_big(big: BigRational) -> Ratio {
        match (big.numer().to_i128(), big.denom().to_i128()) {
            (Some(num), Some(den)) => Ratio(Form::Small { num, den }),
            _ => Ratio(Form::Big(Box::new(big))),
        }
    }

    fn to_big(&self) -> BigRational {
        match &self.0 {
            Form::Small { num, den } => BigRational::new((*num).into(), (*den).into()),
            Form::Big(big) => (**big).clone(),
        }
    }

    /// Numerator and denominator as big integers (reduced), for tests and display.
    pub fn parts(&self) -> (BigInt, BigInt) {
        let big = self.to_big();
        (big.numer().clone(), big.denom().clone())
    }

    pub fn add(&self, other: &Ratio) -> Ratio {
        if let (Form::Small { num: a, den: b }, Form::Small { num: c, den: d }) = (&self.0, &other.0) {
            let sum = if b == d {
                a.checked_add(*c).map(|num| (num, *b))
            } else if b % d == 0 {
                c.checked_mul(b / d).and_then(|c| a.checked_add(c)).map(|num| (num, *b))
            } else if d % b == 0 {
                a.checked_mul(d / b).and_then(|a| a.checked_add(*c)).map(|num| (num, *d))
            } else {
                let lcm = b.checked_div(b.gcd(d)).and_then(|part| part.checked_mul(*d));
                lcm.and_then(|den| {
                    let (a, c) = (a.checked_mul(den / b)?, c.checked_mul(den / d)?);
                    Some((a.checked_add(c)?, den))
                })
            };
            if let Some((num, den)) = sum {
                return Ratio(Form::Small { num, den });
            }
        }
        Ratio::from_big(self.to_big() + other.to_big())
    }

    pub fn neg(&self) -> Ratio {
        match &self.0 {
            Form::Small { num, den } if *num != i128::MIN => Ratio(Form::Small { num: -num, den: *den }),
            _ => Ratio::from_big(-self.to_big()),
        }
    }

    pub fn sub(&self, other: &Ratio) -> Ratio {
        self.add(&other.neg())
    }

    pub fn mul(&self, other: &Ratio) -> Ratio {
        if let (Form::Small { num: a, den: b }, Form::Small { num: c, den: d }) = (&self.0, &other.0)
            && let (Some(num), Some(den)) = (a.checked_mul(*c), b.checked_mul(*d))
        {
            return Ratio(Form::Small { num, den });
        }
        Ratio::from_big(self.to_big() * other.to_big())
    }

    /// `None` on division by zero.
    pub fn div(&self, other: &Ratio) -> Option<Ratio> {
        if other.is_zero() {
            return None;
        }
        if let (Form::Small { num: a, den: b }, Form::Small { num: c, den: d }) = (&self.0, &other.0)
            && *c > 0
            && let (Some(num), Some(den)) = (a.checked_mul(*d), b.checked_mul(*c))
        {
            return Some(Ratio(Form::Small { num, den }));
        }
        Some(Ratio::from_big(self.to_big() / other.to_big()))
    }

    pub fn is_zero(&self) -> bool {
        match &self.0 {
            Form::Small { num, .. } => *num == 0,
            Form::Big(big) => big.is_zero(),
        }
    }

    pub fn is_negative(&self) -> bool {
        match &self.0 {
            Form::Small { num, .. } => *num < 0,
            Form::Big(big) => big.is_negative(),
        }
    }

    /// The smallest integer not below this (packages: ceil(q / size)).
    pub fn ceil(&self) -> Ratio {
        match &self.0 {
            Form::Small { num, den } => Ratio(Form::Small { num: Integer::div_ceil(num, den), den: 1 }),
            Form::Big(big) => Ratio::from_big(big.ceil()),
        }
    }

    /// Rounds once, to `scale` digits after the point, both directions alike: round(−x) = −round(x).
    pub fn round(&self, scale: u32, mode: RoundingMode) -> Result<Exact, Fault> {
        let (mantissa, scale) = self.round_wide(scale, mode);
        let text = || decimal_text(&mantissa, scale);
        mantissa
            .to_i128()
            .and_then(|m| Exact::from_parts(m, scale))
            .ok_or_else(|| Fault::value(format!("amount {} has more than 28 digits", text())))
    }

    /// As [`round`](Ratio::round), of any size: the integer and its scale.
    fn round_wide(&self, scale: u32, mode: RoundingMode) -> (BigInt, u32) {
        if let Form::Small { num, den } = &self.0
            && let Some(scaled) = 10i128.checked_pow(scale).and_then(|p| num.checked_mul(p))
            && den.checked_mul(2).is_some()
        {
            let (quotient, remainder) = (scaled / den, scaled % den);
            let twice = remainder.unsigned_abs() * 2;
            let up = mode.rounds_away(twice.cmp(&den.unsigned_abs()), quotient % 2 != 0);
            let step = if scaled < 0 { -1 } else { 1 };
            return (BigInt::from(if up { quotient + step } else { quotient }), scale);
        }
        let big = self.to_big();
        let scaled = big.numer() * BigInt::from(10).pow(scale);
        let (quotient, remainder) = scaled.div_rem(big.denom());
        let twice: BigInt = remainder.abs() * 2;
        let up = mode.rounds_away(twice.cmp(big.denom()), quotient.is_odd());
        let step = if scaled.is_negative() { -BigInt::one() } else { BigInt::one() };
        (if up { quotient + step } else { quotient }, scale)
    }

    /// The exact value as a decimal, if it has one of at most `SHOWN_PLACES` places; else rounded to them.
    /// For showing, never for posting.
    pub fn shown(&self) -> String {
        let (mantissa, scale) = self.round_wide(SHOWN_PLACES, RoundingMode::HalfUp);
        decimal_text(&mantissa, scale)
    }

    /// This, rounded to `SHOWN_PLACES` places.
    pub fn at_shown_places(&self) -> Ratio {
        let (mantissa, scale) = self.round_wide(SHOWN_PLACES, RoundingMode::HalfUp);
        Ratio::from_big(BigRational::new(mantissa, BigInt::from(10).pow(scale)))
    }

    /// The largest integer multiple of `10^-scale` not above |this|, with the sign kept, and the rest.
    pub fn truncate(&self, scale: u32) -> (BigInt, Ratio) {
        let scaled = self.mul(&Ratio::from_big(BigRational::from_integer(BigInt::from(10).pow(scale))));
        let big = scaled.to_big();
        let whole = big.trunc().to_integer();
        (whole.clone(), Ratio::from_big(big - BigRational::from_integer(whole)))
    }
}

/// `mantissa / 10^scale` as canonical text, of any size.
fn decimal_text(mantissa: &BigInt, scale: u32) -> String {
    let digits = mantissa.abs().to_string();
    let scale = scale as usize;
    let padded = if digits.len() <= scale {
        format!("{}{digits}", "0".repeat(scale + 1 - digits.len()))
    } else {
        digits
    };
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let sign = if mantissa.is_negative() { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

impl Default for Ratio {
    fn default() -> Ratio {
        Ratio::ZERO
    }
}

impl From<Exact> for Ratio {
    fn from(value: Exact) -> Ratio {
        Ratio(Form::Small { num: value.mantissa(), den: 10i128.pow(value.scale()) })
    }
}

impl From<i64> for Ratio {
    fn from(value: i64) -> Ratio {
        Ratio(Form::Small { num: value.into(), den: 1 })
    }
}

impl From<u64> for Ratio {
    fn from(value: u64) -> Ratio {
        Ratio(Form::Small { num: value.into(), den: 1 })
    }
}

impl PartialEq for Ratio {
    fn eq(&self, other: &Ratio) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ratio {}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Ratio) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ratio {
    fn cmp(&self, other: &Ratio) -> Ordering {
        if let (Form::Small { num: a, den: b }, Form::Small { num: c, den: d }) = (&self.0, &other.0) {
            if b == d {
                return a.cmp(c);
            }
            if let (Some(left), Some(right)) = (a.checked_mul(*d), c.checked_mul(*b)) {
                return left.cmp(&right);
            }
        }
        self.to_big().cmp(&other.to_big())
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn r(num: i128, den: i128) -> Ratio {
        Ratio::new(num, den)
    }

    #[test]
    fn shows_up_to_eighteen_places() {
        assert_eq!(r(1755859, 10000).shown(), "175.5859");
        assert_eq!(r(1, 3).shown(), "0.333333333333333333");
        assert_eq!(r(-2, 3).shown(), "-0.666666666666666667");
        assert_eq!(r(1, 8).shown(), "0.125");
        assert_eq!(r(0, 7).shown(), "0");
        assert_eq!(r(120, 1).shown(), "120");
    }

    #[test]
    fn multiplies_before_it_divides() {
        // rules.md 0.4: 4.35 × 1 day / 30 = 0.145 → 0.15, while (1/30) × 4.35 would give 0.14
        let price = Ratio::from(Exact::parse("4.35").unwrap());
        let day = price.mul(&r(1, 30));
        assert_eq!(day.round(2, RoundingMode::HalfUp).unwrap().to_string(), "0.15");
    }

    #[test]
    fn outgrows_its_small_form_without_losing_a_digit() {
        let wide = Ratio::from(Exact::parse("1234567890123456789012345678").unwrap());
        let fine = Ratio::from(Exact::parse("0.1234567890123456789012345678").unwrap());
        let product = wide.mul(&fine).mul(&wide);
        assert_eq!(product.div(&wide).unwrap().div(&fine).unwrap(), wide);
        assert_eq!(product.sub(&product), Ratio::ZERO);
        assert!(product > wide);
    }

    #[test]
    fn the_smallest_numerator_has_an_opposite() {
        let least = Ratio::new(i128::MIN, 1);
        assert!(!least.neg().is_negative());
        assert_eq!(least.neg().neg(), least);
        assert!(least.sub(&least).is_zero());
    }

    proptest! {
        #[test]
        fn agrees_with_big_rationals(a in any::<i64>(), b in 1i64..1_000_000, c in any::<i64>(), d in 1i64..1_000_000) {
            let big = |n: i64, d: i64| BigRational::new(n.into(), d.into());
            let (p, q) = (r(a.into(), b.into()), r(c.into(), d.into()));
            prop_assert_eq!(p.add(&q).to_big(), big(a, b) + big(c, d));
            prop_assert_eq!(p.sub(&q).to_big(), big(a, b) - big(c, d));
            prop_assert_eq!(p.mul(&q).to_big(), big(a, b) * big(c, d));
            prop_assert_eq!(p.ceil().to_big(), big(a, b).ceil());
            prop_assert_eq!(p.cmp(&q), big(a, b).cmp(&big(c, d)));
            if c != 0 {
                prop_assert_eq!(p.div(&q).unwrap().to_big(), big(a, b) / big(c, d));
            }
        }

        #[test]
        fn credits_mirror_charges(a in any::<i64>(), b in 1i64..100_000, scale in 0u32..6) {
            for mode in [RoundingMode::HalfUp, RoundingMode::HalfEven] {
                let (x, y) = (r(a.into(), b.into()), r(-i128::from(a), b.into()));
                prop_assert_eq!(x.round(scale, mode).unwrap().neg(), y.round(scale, mode).unwrap());
            }
        }

        #[test]
        fn rounding_is_within_half_a_unit(a in any::<i64>(), b in 1i64..100_000, scale in 0u32..6) {
            let x = r(a.into(), b.into());
            let posted = Ratio::from(x.round(scale, RoundingMode::HalfUp).unwrap());
            let error = x.sub(&posted);
            let twice = if error.is_negative() { error.neg() } else { error }.mul(&r(2 * 10i128.pow(scale), 1));
            prop_assert!(twice <= r(1, 1));
        }
    }
}

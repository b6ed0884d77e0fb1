//! `Exact`: a decimal in which + − × are exact or an error.
//!
//! It wraps `rust_decimal` (96-bit mantissa, scale 0..=28), whose own operators round silently past
//! 28 digits, `checked_mul` included. There is no division here: dividing belongs to the named
//! rounding step, from an exact [`Ratio`](super::Ratio), once.

use super::fault::Fault;
use num_bigint::BigInt;
use num_traits::{ToPrimitive, Zero};
use rust_decimal::Decimal;
use std::cmp::Ordering;
use std::fmt;

/// Most significant digits that every `Exact` can hold.
pub const DIGITS_MAX: u32 = 28;
/// Most digits after the decimal point.
pub const SCALE_MAX: u32 = 28;
const MANTISSA_MAX: i128 = 10i128.pow(DIGITS_MAX) - 1;

/// An exact decimal, always in canonical form (no trailing zeros after the point, no negative zero).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exact(Decimal);

// Methods, not operators: + can't return a fault.
#[expect(clippy::should_implement_trait)]
impl Exact {
    pub const ZERO: Exact = Exact(Decimal::ZERO);
    pub const ONE: Exact = Exact(Decimal::ONE);

    /// `mantissa / 10^scale`, or `None` where it has more than 28 digits or decimals.
    pub fn from_parts(mut mantissa: i128, mut scale: u32) -> Option<Exact> {
        while scale > 0 && mantissa % 10 == 0 {
            if mantissa == 0 {
                scale = 0;
            } else {
                mantissa /= 10;
                scale -= 1;
            }
        }
        if mantissa.unsigned_abs() > MANTISSA_MAX.unsigned_abs() || scale > SCALE_MAX {
            return None;
        }
        Some(Exact(Decimal::from_i128_with_scale(mantissa, scale)))
    }

    pub fn from_i64(value: i64) -> Exact {
        Exact(Decimal::from(value))
    }

    pub fn from_u64(value: u64) -> Exact {
        Exact(Decimal::from(value))
    }

    /// The integer whose `10^scale`th part this is.
    pub fn mantissa(self) -> i128 {
        self.0.mantissa()
    }

    /// Digits after the point in canonical form.
    pub fn scale(self) -> u32 {
        self.0.scale()
    }

    /// Significant digits, leading zeros not counted: 0.0012 has 2.
    pub fn digits(self) -> u32 {
        let mantissa = self.mantissa().unsigned_abs();
        if mantissa == 0 { 0 } else { mantissa.ilog10() + 1 }
    }

    /// Reads a plain or exponent decimal (`-12.50`, `1e-7`). Never rounds: what does not fit is a fault.
    pub fn parse(text: &str) -> Result<Exact, Fault> {
        if let Some(value) = short_integer(text) {
            return Ok(Exact::from_i64(value));
        }
        let not_a_number = || Fault::value(format!("{} is not a decimal number", quoted(text)));
        let (sign, rest) = match text.as_bytes() {
            [b'-', ..] => (-1i128, &text[1..]),
            [b'+', ..] => (1, &text[1..]),
            _ => (1, text),
        };
        let (body, exponent) = split_exponent(rest).ok_or_else(not_a_number)?;
        let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
        if (whole.is_empty() && fraction.is_empty()) || (body.ends_with('.') && fraction.is_empty()) {
            return Err(not_a_number());
        }
        let mut mantissa: i128 = 0;
        let mut scale: i64 = -i64::from(exponent);
        let mut pending_zeros: u32 = 0;
        let mut overflow = false;
        for (after_point, digits) in [(false, whole), (true, fraction)] {
            for byte in digits.bytes() {
                if !byte.is_ascii_digit() {
                    return Err(not_a_number());
                }
                if after_point {
                    scale += 1;
                }
                // Zeros are held back, so that any number of trailing ones costs no digits.
                if byte == b'0' {
                    pending_zeros += u32::from(mantissa != 0);
                    continue;
                }
                for _ in 0..=pending_zeros.min(40) {
                    match mantissa.checked_mul(10) {
                        Some(next) => mantissa = next,
                        None => overflow = true,
                    }
                }
                pending_zeros = 0;
                match mantissa.checked_add(i128::from(byte - b'0')) {
                    Some(next) => mantissa = next,
                    None => overflow = true,
                }
            }
        }
        if mantissa == 0 && !overflow {
            return Ok(Exact::ZERO);
        }
        let mut scale = scale - i64::from(pending_zeros);
        while scale < 0 && !overflow {
            match mantissa.checked_mul(10) {
                Some(next) if next.abs() <= MANTISSA_MAX => mantissa = next,
                _ => overflow = true,
            }
            scale += 1;
        }
        if overflow {
            return Err(too_many_digits(text));
        }
        u32::try_from(scale)
            .ok()
            .and_then(|scale| Exact::from_parts(sign * mantissa, scale))
            .ok_or_else(|| too_many_digits(text))
    }

    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    pub fn is_negative(self) -> bool {
        self.mantissa() < 0
    }

    pub fn is_integer(self) -> bool {
        self.scale() == 0
    }

    pub fn neg(self) -> Exact {
        // The range is symmetric, so the opposite always exists.
        Exact::from_parts(-self.mantissa(), self.scale()).expect("the range of Exact is symmetric")
    }

    pub fn abs(self) -> Exact {
        if self.is_negative() { self.neg() } else { self }
    }

    pub fn add(self, other: Exact) -> Result<Exact, Fault> {
        let scale = self.scale().max(other.scale());
        let aligned = |x: Exact| x.mantissa().checked_mul(10i128.pow(scale - x.scale()));
        match (aligned(self), aligned(other)) {
            (Some(a), Some(b)) => a.checked_add(b).and_then(|sum| Exact::from_parts(sum, scale)),
            _ => {
                let wide = |x: Exact| BigInt::from(x.mantissa()) * BigInt::from(10).pow(scale - x.scale());
                from_wide(wide(self) + wide(other), scale)
            }
        }
        .ok_or_else(|| too_many_digits(&format!("{self} + {other}")))
    }

    pub fn sub(self, other: Exact) -> Result<Exact, Fault> {
        self.add(other.neg())
    }

    pub fn mul(self, other: Exact) -> Result<Exact, Fault> {
        let scale = self.scale() + other.scale();
        match self.mantissa().checked_mul(other.mantissa()) {
            Some(product) => Exact::from_parts(product, scale),
            None => from_wide(BigInt::from(self.mantissa()) * BigInt::from(other.mantissa()), scale),
        }
        .ok_or_else(|| too_many_digits(&format!("{self} × {other}")))
    }

    /// With exactly `scale` digits after the point: `12.5` at 2 is `12.50`. `None` if digits would be lost.
    pub fn to_fixed(self, scale: u32) -> Option<String> {
        if self.scale() > scale {
            return None;
        }
        let mut text = self.to_string();
        if scale > 0 && self.scale() == 0 {
            text.push('.');
        }
        text.extend(std::iter::repeat_n('0', (scale - self.scale()) as usize));
        Some(text)
    }

    pub fn to_i64(self) -> Option<i64> {
        if self.is_integer() { self.mantissa().to_i64() } else { None }
    }
}

/// What stands before the exponent, and the exponent (0 if there is none); None if what follows the `e` is no number.
fn split_exponent(text: &str) -> Option<(&str, i32)> {
    let Some(at) = text.find(['e', 'E']) else { return Some((text, 0)) };
    let digits = text[at + 1..].strip_prefix('+').unwrap_or(&text[at + 1..]);
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // An exponent past any i32 still names a number; it only can't be held here.
    let most = if digits.starts_with('-') { i32::MIN / 2 } else { i32::MAX / 2 };
    Some((&text[..at], digits.parse::<i32>().unwrap_or(most)))
}

/// A bare integer of at most 18 digits, which is what most quantities are: no sign, no point, no exponent.
fn short_integer(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.bytes()
        .try_fold(0i64, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

/// An integer over `10^scale` of any size, if it can be held once trailing zeros are gone.
fn from_wide(mut mantissa: BigInt, mut scale: u32) -> Option<Exact> {
    let ten = BigInt::from(10);
    while scale > 0 && (&mantissa % &ten).is_zero() {
        mantissa /= &ten;
        scale -= 1;
    }
    mantissa.to_i128().and_then(|m| Exact::from_parts(m, scale))
}

fn too_many_digits(what: &str) -> Fault {
    Fault::value(format!("{} needs more than {DIGITS_MAX} digits", quoted(what)))
        .with_hint("Amounts and quantities are exact decimals of at most 28 digits.")
}

/// A value as it stands in a message: bounded, so that no error repeats a megabyte.
pub fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    if text.chars().count() <= SHOWN_MAX {
        format!("\"{text}\"")
    } else {
        format!("\"{}…\"", text.chars().take(SHOWN_MAX).collect::<String>())
    }
}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Exact) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Exact {
    fn cmp(&self, other: &Exact) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn x(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    #[test]
    fn reads_plain_and_exponent_forms() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("0.000", "0"),
            ("1.50", "1.5"),
            ("007", "7"),
            ("999999999999999999", "999999999999999999"),
            ("1000000000000000000", "1000000000000000000"),
            (".5", "0.5"),
            ("1e3", "1000"),
            ("1E-3", "0.001"),
            ("-1.25e+2", "-125"),
            ("1e-12", "0.000000000001"),
            ("12345678901234567.89", "12345678901234567.89"),
            ("0.1", "0.1"),
            ("100000000000000000000000000.0000000000000", "100000000000000000000000000"),
            ("0e99999999999999999999", "0"),
        ] {
            assert_eq!(x(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_number_or_does_not_fit() {
        for text in [
            "", "-", ".", "1.", "1e", "1e+", "NaN", "Infinity", "1,5", "0x10", "1_000", " 1", "--1", "1.2.3",
            "1e5.5", "٣",
        ] {
            assert!(Exact::parse(text).unwrap_err().message.contains("is not a decimal"), "{text}");
        }
        for text in ["1e40", "1e-29", "123456789012345678901234567890", "1e999999999999", "1e-999999999999"] {
            assert!(Exact::parse(text).unwrap_err().message.contains("28 digits"), "{text}");
        }
    }

    #[test]
    fn arithmetic_is_exact_or_an_error() {
        assert_eq!(x("0.1").add(x("0.2")).unwrap(), x("0.3"));
        assert_eq!(x("4.35").mul(x("0.2")).unwrap(), x("0.87"));
        // rust_decimal would round these products silently
        assert!(x("1.000000000000001").mul(x("1.000000000000001")).is_err());
        assert!(x("1234567890123456789012345678").add(x("0.1")).is_err());
        // more than an i128 on the way, exact in the end
        assert_eq!(x("0.0000000000000009765625").mul(x("1024000000000000000000")).unwrap(), x("1000000"));
    }

    #[test]
    fn parts_beyond_the_range_are_refused() {
        let most = 10i128.pow(28) - 1;
        for good in [most, -most] {
            assert_eq!(Exact::from_parts(good, 0).unwrap().mantissa(), good);
        }
        for bad in [most + 1, -most - 1, i128::MAX, i128::MIN] {
            assert_eq!(Exact::from_parts(bad, 0), None);
        }
        assert!(Exact::from_parts(1, 28).is_some() && Exact::from_parts(1, 29).is_none());
    }

    #[test]
    fn fixed_form_never_drops_a_digit() {
        assert_eq!(x("175.59").to_fixed(2).unwrap(), "175.59");
        assert_eq!(x("0").to_fixed(2).unwrap(), "0.00");
        assert_eq!(x("-3").to_fixed(3).unwrap(), "-3.000");
        assert_eq!(x("1235").to_fixed(0).unwrap(), "1235");
        assert_eq!(x("1.005").to_fixed(2), None);
    }

    proptest! {
        #[test]
        fn text_round_trips(mantissa in -(10i128.pow(28) - 1)..10i128.pow(28), scale in 0u32..=28) {
            let value = Exact::from_parts(mantissa, scale).unwrap();
            prop_assert_eq!(Exact::parse(&value.to_string()).unwrap(), value);
        }

        #[test]
        fn sums_and_products_match_big_integers(a in any::<i64>(), b in any::<i64>(), s in 0u32..9, t in 0u32..9) {
            let (p, q) = (Exact::from_parts(a.into(), s).unwrap(), Exact::from_parts(b.into(), t).unwrap());
            let wide = |m: i64, s: u32, to: u32| BigInt::from(m) * BigInt::from(10).pow(to - s);
            let sum = p.add(q).unwrap();
            prop_assert_eq!(BigInt::from(sum.mantissa()) * BigInt::from(10).pow(28 - sum.scale()), wide(a, s, 28) + wide(b, t, 28));
            if let Ok(product) = p.mul(q) {
                prop_assert_eq!(BigInt::from(product.mantissa()) * BigInt::from(10).pow(28 - product.scale()),
                                BigInt::from(a) * BigInt::from(b) * BigInt::from(10).pow(28 - s - t));
            } else {
                prop_assert!((BigInt::from(a) * BigInt::from(b)).bits() > 90);
            }
        }
    }
}

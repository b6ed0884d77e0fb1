//! Postgres `numeric` to and from exact decimals, digit by digit: never through text or floating point.
//!
//! A numeric is base 10,000: value = Σ digit[i] × 10000^(weight − i). Its varlena starts with a 16-bit
//! header that holds the sign, the display scale and, in the short form, the weight.

use crate::domain::foundation::ratio::SHOWN_PLACES;
use crate::domain::foundation::{Exact, Fault, Ratio, RoundingMode};
use crate::domain::metering::Quantity;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{AnyNumeric, FromDatum, IntoDatum};

const SIGN_MASK: u16 = 0xC000;
const NEGATIVE: u16 = 0x4000;
const SHORT: u16 = 0x8000;
const SPECIAL: u16 = 0xC000;
const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_SCALE_SHIFT: u16 = 7;
const SHORT_WEIGHT_SIGN: u16 = 0x0040;
const SHORT_WEIGHT_MASK: u16 = 0x003F;
const BASE: i128 = 10_000;

/// A `numeric` argument or result. What an exact decimal can't hold (NaN, infinities, more than 28
/// digits) arrives as the fault that says so.
#[derive(Debug, Clone)]
pub struct Numeric {
    pub value: Result<Exact, Fault>,
    /// Digits shown after the point; at least the value's own.
    display_scale: u32,
    /// A result beyond 28 digits, as text: only Postgres can hold it.
    wide: Option<String>,
}

impl Numeric {
    /// A result that shows at least `scale` digits after the point: 175.5 at 2 is `175.50`.
    pub fn fixed(value: Exact, scale: u32) -> Numeric {
        Numeric { display_scale: scale.max(value.scale()), value: Ok(value), wide: None }
    }

    /// An amount to 18 places, of any size: for showing and comparing, never for posting.
    pub fn shown(amount: &Ratio) -> Numeric {
        match amount.round(SHOWN_PLACES, RoundingMode::HalfUp) {
            Ok(exact) => Numeric::from(exact),
            Err(fault) => Numeric::wide(amount.shown(), fault),
        }
    }

    /// A result that only Postgres can hold: its text, and the fault that says why Rust can't.
    pub fn wide(text: String, fault: Fault) -> Numeric {
        Numeric { value: Err(fault), display_scale: 0, wide: Some(text) }
    }
}

impl From<Exact> for Numeric {
    fn from(value: Exact) -> Numeric {
        Numeric::fixed(value, 0)
    }
}

impl From<Quantity> for Numeric {
    fn from(quantity: Quantity) -> Numeric {
        match quantity {
            Quantity::Exact(value) => Numeric::from(value),
            Quantity::Wide(wide) => Numeric::wide(wide.to_string(), Quantity::too_long(&wide)),
        }
    }
}

/// Decodes the bytes after the varlena header.
fn decode(body: &[u8]) -> Result<Exact, Fault> {
    let word = |at: usize| u16::from_ne_bytes([body[at], body[at + 1]]);
    let header = word(0);
    let (negative, weight, digits) = match header & SIGN_MASK {
        SPECIAL => {
            let name = match header & 0xF000 {
                0xD000 => "Infinity",
                0xF000 => "-Infinity",
                _ => "NaN",
            };
            return Err(Fault::value(format!("{name} is not an amount or a quantity")));
        }
        SHORT => {
            let low = i32::from(header & SHORT_WEIGHT_MASK);
            let weight = if header & SHORT_WEIGHT_SIGN != 0 { low - 64 } else { low };
            (header & SHORT_NEGATIVE != 0, weight, &body[2..])
        }
        sign => (sign == NEGATIVE, i32::from(word(2) as i16), &body[4..]),
    };
    let count = digits.len() / 2;
    if count == 0 {
        return Ok(Exact::ZERO);
    }
    let too_long = || Fault::value("a number needs more than 28 digits");
    // 28 digits touch at most 8 base-10,000 digits; one more of each side can be zeros.
    if count > 9 || weight > 9 || weight - (count as i32 - 1) < -9 {
        return Err(too_long());
    }
    let mut mantissa: i128 = 0;
    for at in 0..count {
        mantissa = mantissa * BASE + i128::from(word_of(digits, at));
    }
    let mut exponent = weight - (count as i32 - 1);
    while exponent > 0 {
        mantissa = mantissa.checked_mul(BASE).ok_or_else(too_long)?;
        exponent -= 1;
    }
    let mut scale = exponent.unsigned_abs() * 4;
    while scale > 28 && mantissa % 10 == 0 {
        mantissa /= 10;
        scale -= 1;
    }
    Exact::from_parts(if negative { -mantissa } else { mantissa }, scale).ok_or_else(too_long)
}

fn word_of(digits: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([digits[at * 2], digits[at * 2 + 1]])
}

/// The varlena bytes (4-byte header first) of a value, in Postgres's short form.
fn encode(value: Exact, display_scale: u32) -> Vec<u8> {
    let mut mantissa = value.mantissa().unsigned_abs();
    let mut digits: Vec<u16> = Vec::with_capacity(10);
    let padding = (4 - value.scale() % 4) % 4;
    mantissa *= 10u128.pow(padding);
    while mantissa > 0 {
        digits.push((mantissa % 10_000) as u16);
        mantissa /= 10_000;
    }
    let weight = digits.len() as i32 - 1 - ((value.scale() + padding) / 4) as i32;
    let trailing = digits.iter().take_while(|d| **d == 0).count();
    digits.drain(..trailing);
    let weight = if digits.is_empty() { 0 } else { weight };
    let mut header = SHORT | ((display_scale.min(63) as u16) << SHORT_SCALE_SHIFT);
    if value.is_negative() {
        header |= SHORT_NEGATIVE;
    }
    header |= if weight < 0 { SHORT_WEIGHT_SIGN } else { 0 } | (weight as u16 & SHORT_WEIGHT_MASK);
    let length = 4 + 2 + digits.len() * 2;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&header.to_ne_bytes());
    for digit in digits.iter().rev() {
        bytes.extend_from_slice(&digit.to_ne_bytes());
    }
    bytes
}

impl FromDatum for Numeric {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _typoid: pg_sys::Oid,
    ) -> Option<Numeric> {
        if is_null {
            return None;
        }
        // SAFETY: a non-null numeric datum points at a varlena; detoasting gives one in plain form
        // (1- or 4-byte header) that lives in the current memory context.
        let body = unsafe {
            let plain = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            std::slice::from_raw_parts(pgrx::vardata_any(plain).cast::<u8>(), pgrx::varsize_any_exhdr(plain))
        };
        let value = decode(body);
        let display_scale = value.as_ref().map_or(0, |v| v.scale());
        Some(Numeric { value, display_scale, wide: None })
    }
}

impl IntoDatum for Numeric {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        if let Some(text) = self.wide {
            return AnyNumeric::try_from(text.as_str()).ok()?.into_datum();
        }
        let bytes = encode(self.value.ok()?, self.display_scale);
        // SAFETY: the palloc'd block has `bytes.len()` bytes and gets a 4-byte varlena header of that length.
        unsafe {
            let target = pg_sys::palloc(bytes.len()).cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
            pgrx::set_varsize_4b(target.cast(), bytes.len() as i32);
            Some(pg_sys::Datum::from(target))
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::NUMERICOID
    }
}

// SAFETY: the argument is a numeric datum; null arguments never reach this.
unsafe impl<'fcx> ArgAbi<'fcx> for Numeric {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: forwarded from the caller.
        unsafe { arg.unbox_arg_using_from_datum().expect("numeric argument is not null") }
    }
}

// SAFETY: the returned datum is a palloc'd numeric varlena, or null.
unsafe impl BoxRet for Numeric {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: the datum was just made for this call.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

// SAFETY: numeric is numeric.
unsafe impl SqlTranslatable for Numeric {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Numeric);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::Numeric { precision: None, scale: None });
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::Numeric { precision: None, scale: None }));
}

// SAFETY: a non-null numeric datum decodes as FromDatum says.
unsafe impl pgrx::datum::UnboxDatum for Numeric {
    type As<'src> = Numeric;
    unsafe fn unbox<'src>(datum: Datum<'src>) -> Numeric
    where
        Self: 'src,
    {
        // SAFETY: forwarded: the datum is a non-null numeric.
        unsafe { Numeric::from_datum(datum.sans_lifetime(), false).expect("not null") }
    }
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use super::{Exact, Numeric, decode, encode};
    use pgrx::prelude::{Spi, pg_test};

    /// Every form of numeric that Postgres stores arrives with the same digits, and goes back unchanged.
    #[pg_test]
    fn numeric_codec_agrees_with_postgres() {
        for text in [
            "0",
            "1",
            "-1",
            "0.1",
            "0.0001",
            "0.00001",
            "1e-12",
            "10000",
            "9999",
            "100000000",
            "12345678901234567.89",
            "-0.000000000000000000000000001",
            "9999999999999999999999999999",
            "-9999999999999999.999999999999",
            "1000000000000000000000000000",
            "0.1234567890123456789012345678",
            "50000000000",
            "0.00000000000000000005",
        ] {
            let numeric: Numeric = Spi::get_one(&format!("SELECT '{text}'::numeric")).unwrap().unwrap();
            assert_eq!(numeric.value.clone().unwrap(), Exact::parse(text).unwrap(), "{text}");
            let exact = numeric.value.unwrap();
            let back: bool = Spi::get_one_with_args(
                "SELECT $1 = $2::text::numeric AND $1::text = $2",
                &[Numeric::from(exact).into(), exact.to_string().into()],
            )
            .unwrap()
            .unwrap();
            assert!(back, "{text}");
        }
        for text in ["NaN", "Infinity", "-Infinity", "1e40", "1e-40", "12345678901234567890123456789"] {
            let numeric: Numeric = Spi::get_one(&format!("SELECT '{text}'::numeric")).unwrap().unwrap();
            assert!(numeric.value.is_err(), "{text}");
        }
        let padded: String = Spi::get_one_with_args(
            "SELECT $1::text",
            &[Numeric::fixed(Exact::parse("175.5").unwrap(), 2).into()],
        )
        .unwrap()
        .unwrap();
        assert_eq!(padded, "175.50");
    }

    #[pg_test]
    fn numeric_codec_round_trips_random_values() {
        let query = "SELECT x, x::text FROM (SELECT ((random() - 0.5) * 1e15)::numeric(30, 6)
            * (10::numeric ^ (i % 12 - 6))::numeric(20, 8) AS x FROM generate_series(1, 3000) i) s";
        Spi::connect(|client| {
            for row in client.select(query, None, &[]).unwrap() {
                let numeric: Numeric = row.get(1).unwrap().unwrap();
                let text: String = row.get(2).unwrap().unwrap();
                let exact = Exact::parse(&text).unwrap();
                assert_eq!(numeric.value.unwrap(), exact, "{text}");
                assert_eq!(decode(&encode(exact, 0)[4..]).unwrap(), exact, "{text}");
            }
        });
    }
}

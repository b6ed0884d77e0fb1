//! `billing.money`: `12.34 USD`, 32 bytes, passed by reference.
//!
//! Layout: unit code (12 bytes, zero padded), form version, scale, two zero bytes, mantissa (16 bytes,
//! big-endian). The binary wire form is the same 32 bytes.

use crate::domain::foundation::allocate;
use crate::domain::foundation::money::{Money, UNIT_MAX, Unit};
use crate::domain::foundation::{Exact, Fault, Ratio};
use crate::pg::{FaultJson, Numeric, raise};
use pgrx::Internal;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

const BYTES: usize = 32;
const VERSION: u8 = 1;

/// A `billing.money` datum.
#[derive(Clone, Copy)]
pub struct MoneyDatum(Money);

fn to_bytes(money: Money) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..UNIT_MAX].copy_from_slice(&money.unit.to_bytes());
    bytes[UNIT_MAX] = VERSION;
    bytes[UNIT_MAX + 1] = money.amount.scale() as u8;
    bytes[16..].copy_from_slice(&money.amount.mantissa().to_be_bytes());
    bytes
}

fn from_bytes(bytes: &[u8; BYTES]) -> Result<Money, Fault> {
    let broken = || Fault::value("these bytes are not a billing.money");
    if bytes[UNIT_MAX] != VERSION || bytes[UNIT_MAX + 2..16] != [0, 0] {
        return Err(broken());
    }
    let unit = Unit::from_bytes(bytes[..UNIT_MAX].try_into().expect("12 of 32 bytes"))?;
    let mantissa = i128::from_be_bytes(bytes[16..].try_into().expect("16 of 32 bytes"));
    let amount = Exact::from_parts(mantissa, bytes[UNIT_MAX + 1].into()).ok_or_else(broken)?;
    Ok(Money { amount, unit })
}

// SAFETY (all four): a billing.money datum points at 32 bytes, as its CREATE TYPE says.
impl FromDatum for MoneyDatum {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _typoid: pg_sys::Oid,
    ) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: see above.
        let bytes = unsafe { std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), BYTES) };
        let bytes: &[u8; BYTES] = bytes.try_into().expect("32 bytes");
        match from_bytes(bytes) {
            Ok(money) => Some(MoneyDatum(money)),
            Err(fault) => raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, &fault),
        }
    }
}

impl IntoDatum for MoneyDatum {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let bytes = to_bytes(self.0);
        // SAFETY: the block has 32 bytes.
        unsafe {
            let target = pg_sys::palloc(BYTES).cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, BYTES);
            Some(pg_sys::Datum::from(target))
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::InvalidOid
    }
}

// SAFETY: see above.
unsafe impl<'fcx> ArgAbi<'fcx> for MoneyDatum {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: forwarded from the caller.
        unsafe { arg.unbox_arg_using_from_datum().expect("money argument is not null") }
    }
}

// SAFETY: see above.
unsafe impl BoxRet for MoneyDatum {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        let datum = self.into_datum().expect("money is never null");
        // SAFETY: the datum was just made for this call.
        unsafe { fcinfo.return_raw_datum(datum) }
    }
}

// SAFETY: declared by hand in sql/ext/10_foundation.sql.
unsafe impl SqlTranslatable for MoneyDatum {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(MoneyDatum);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::As("billing.money"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::As("billing.money")));
}

#[pg_extern(sql = false)]
fn money_in(text: &CStr) -> MoneyDatum {
    let parsed = text.to_str().map_err(|_| Fault::value("money text is not UTF-8")).and_then(Money::parse);
    match parsed {
        Ok(money) => MoneyDatum(money),
        Err(fault) => raise(PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, &fault),
    }
}

#[pg_extern(sql = false)]
fn money_out(money: MoneyDatum) -> CString {
    CString::new(money.0.to_string()).expect("money text has no zero byte")
}

#[pg_extern(sql = false)]
fn money_recv(internal: Internal) -> MoneyDatum {
    // SAFETY: Postgres passes a StringInfo to receive functions.
    let buffer = unsafe {
        let info = internal
            .unwrap()
            .expect("receive functions get a buffer")
            .cast_mut_ptr::<pg_sys::StringInfoData>();
        let bytes = pg_sys::pq_getmsgbytes(info, BYTES as i32).cast::<u8>();
        std::slice::from_raw_parts(bytes, BYTES)
    };
    match from_bytes(buffer.try_into().expect("32 bytes")) {
        Ok(money) => MoneyDatum(money),
        Err(fault) => raise(PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION, &fault),
    }
}

#[pg_extern(sql = false)]
fn money_send(money: MoneyDatum) -> Vec<u8> {
    to_bytes(money.0).to_vec()
}

/// `billing.money(amount, currency)`; NULL where `money_make_error` says why.
#[pg_extern(sql = false)]
fn money_make(amount: Numeric, currency: &str) -> Option<MoneyDatum> {
    make(amount, currency).ok().map(MoneyDatum)
}

#[pg_extern(sql = false)]
fn money_make_error(amount: Numeric, currency: &str) -> Option<String> {
    make(amount, currency).err().as_ref().map(FaultJson::text)
}

fn make(amount: Numeric, currency: &str) -> Result<Money, Fault> {
    Ok(Money { amount: amount.value?, unit: Unit::parse(currency)? })
}

#[pg_extern(sql = false)]
fn money_amount(money: MoneyDatum) -> Numeric {
    money.0.amount.into()
}

#[pg_extern(sql = false)]
fn money_currency(money: MoneyDatum) -> String {
    money.0.unit.as_str().to_string()
}

/// `+` and `−`: NULL where they can't, and `money_sum_error` says why.
#[pg_extern(sql = false)]
fn money_sum(a: MoneyDatum, b: MoneyDatum, subtract: bool) -> Option<MoneyDatum> {
    sum(a.0, b.0, subtract).ok().map(MoneyDatum)
}

#[pg_extern(sql = false)]
fn money_sum_error(a: MoneyDatum, b: MoneyDatum, subtract: bool) -> Option<String> {
    sum(a.0, b.0, subtract).err().as_ref().map(FaultJson::text)
}

fn sum(a: Money, b: Money, subtract: bool) -> Result<Money, Fault> {
    if subtract { a.sub(b) } else { a.add(b) }
}

#[pg_extern(sql = false)]
fn money_times(money: MoneyDatum, factor: Numeric) -> Option<MoneyDatum> {
    times(money.0, factor).ok().map(MoneyDatum)
}

#[pg_extern(sql = false)]
fn money_times_error(money: MoneyDatum, factor: Numeric) -> Option<String> {
    times(money.0, factor).err().as_ref().map(FaultJson::text)
}

fn times(money: Money, factor: Numeric) -> Result<Money, Fault> {
    money.mul(factor.value?)
}

/// −1, 0 or 1; NULL when the currencies differ.
#[pg_extern(sql = false)]
fn money_order(a: MoneyDatum, b: MoneyDatum) -> Option<i32> {
    a.0.compare(b.0).ok().map(|order| order as i32)
}

#[pg_extern(sql = false)]
fn money_order_error(a: MoneyDatum, b: MoneyDatum) -> Option<String> {
    a.0.compare(b.0).err().as_ref().map(FaultJson::text)
}

/// Total equality: same amount and same currency.
#[pg_extern(sql = false)]
fn money_equal(a: MoneyDatum, b: MoneyDatum) -> bool {
    a.0 == b.0
}

#[pg_extern(sql = false)]
fn money_hash(money: MoneyDatum) -> i32 {
    crate::domain::foundation::hash::sha256_i64(&to_bytes(money.0)) as i32
}

/// The parts of a total by weight (rules.md 0.6); NULL where they can't be, `allocate_parts_error` says why.
#[pg_extern(sql = false)]
fn allocate_parts(total: Numeric, weights: Vec<Option<Numeric>>, scale: i32) -> Option<Vec<Numeric>> {
    parts(total, weights, scale).ok()
}

#[pg_extern(sql = false)]
fn allocate_parts_error(total: Numeric, weights: Vec<Option<Numeric>>, scale: i32) -> Option<String> {
    parts(total, weights, scale).err().as_ref().map(FaultJson::text)
}

fn parts(total: Numeric, weights: Vec<Option<Numeric>>, scale: i32) -> Result<Vec<Numeric>, Fault> {
    let scale = u32::try_from(scale)
        .ok()
        .filter(|s| *s <= 18)
        .ok_or_else(|| Fault::value(format!("{scale} digits after the point; 0 to 18 are possible")))?;
    let weights = weights
        .into_iter()
        .map(|w| w.map_or(Ok(Exact::ZERO), |w| w.value).map(Ratio::from))
        .collect::<Result<Vec<_>, _>>()?;
    let parts = allocate(total.value?, &weights, scale)?;
    Ok(parts.into_iter().map(|part| Numeric::fixed(part, scale)).collect())
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, fault, holds, rows, value};
    use pgrx::prelude::*;

    /// The value of an expression whose operators are billing's.
    fn shown(expression: &str) -> Option<String> {
        Spi::run("SET search_path = billing, pg_catalog").unwrap();
        value(&format!("SELECT {expression}"))
    }

    /// Money in text is an exact amount and a unit, trimmed on the way out; anything else is refused.
    #[pg_test]
    fn money_in_text() {
        // money_in, money_out
        for (text, money) in [
            ("12.340 USD", "12.34 USD"),
            ("-0.00 EUR", "0 EUR"),
            ("9999999999999999999999999999 credits", "9999999999999999999999999999 credits"),
            ("0.0000000000000000000000000001 USD", "0.0000000000000000000000000001 USD"),
        ] {
            assert_eq!(value(&format!("SELECT '{text}'::billing.money")).as_deref(), Some(money));
        }
        for text in ["12.34", "USD 1", "NaN USD", "1 U$", "12345678901234567890123456789 USD", ""] {
            let error = error_of(&format!("SELECT '{text}'::billing.money"));
            assert!(error.starts_with("22P02 "), "{text}: {error}");
        }
    }

    /// The binary form is 32 bytes and comes back the same; bytes that are no money are refused.
    #[pg_test]
    fn money_in_binary() {
        let bytes = value("SELECT billing_internal.money_send('12.34 USD')").unwrap();
        assert_eq!(bytes, format!("\\x555344{}0102{}04d2", "00".repeat(9), "00".repeat(16)));
        // money_recv, by way of a binary file
        let file = value("SELECT current_setting('data_directory') || '/money.copy'").unwrap();
        let copied = |from: &str| {
            Spi::run(&format!("COPY (SELECT {from}) TO '{file}' (FORMAT binary)")).unwrap();
            let error = error_of(&format!("COPY tests.wallet FROM '{file}' (FORMAT binary)"));
            std::fs::remove_file(&file).unwrap();
            error
        };
        Spi::run("CREATE TABLE tests.wallet (held billing.money)").unwrap();
        assert_eq!(copied("v FROM (VALUES ('-0.125 KWD'::billing.money), (NULL)) t (v)"), "no error");
        assert_eq!(rows("SELECT held::text FROM tests.wallet"), ["-0.125 KWD", ""]);
        let broken = copied("decode(repeat('00', 32), 'hex')");
        assert!(broken.starts_with("22P03 "), "{broken}");
        let short = copied("decode('00', 'hex')");
        assert!(short.starts_with("08P01 "), "{short}");
    }

    /// Money is made of an amount and a unit, and taken apart again; what can't be says why.
    #[pg_test]
    fn money_is_made_and_taken_apart() {
        let made = "SELECT billing.amount(m), billing.currency(m) FROM (SELECT billing_internal.money_make(12.340, 'USD') AS m) s";
        assert_eq!(rows(made), ["12.34|USD"]);
        for (arguments, says) in [
            ("'NaN', 'USD'", "ZB004 NaN is not an amount or a quantity"),
            ("1, 'U$'", "ZB004 \"U$\" is not a currency or unit code"),
        ] {
            assert_eq!(value(&format!("SELECT billing_internal.money_make({arguments})")), None);
            assert_eq!(fault(&format!("SELECT billing_internal.money_make_error({arguments})")), says);
            assert!(error_of(&format!("SELECT billing.to_money({arguments})")).starts_with(says));
        }
    }

    /// + and − are exact within one currency and refuse to mix; × is exact or an error, and there is no ÷.
    #[pg_test]
    fn money_adds_and_multiplies_exactly() {
        // money_sum, money_sum_error, money_times, money_times_error
        assert_eq!(shown("'0.1 USD'::money + '0.2 USD'::money").as_deref(), Some("0.3 USD"));
        assert_eq!(shown("'0.1 USD'::money - '0.2 USD'::money").as_deref(), Some("-0.1 USD"));
        assert_eq!(shown("'4.35 USD'::money * 0.333").as_deref(), Some("1.44855 USD"));
        assert_eq!(
            shown("(SELECT sum(m) FROM (VALUES ('1.10 USD'::money), ('2.25 USD')) t (m))").as_deref(),
            Some("3.35 USD")
        );
        let (mixed, too_long) = ("'1 USD', '2 EUR'", "'9999999999999999999999999999 USD', 10");
        assert_eq!(shown(&format!("billing_internal.money_sum({mixed}, false)")), None);
        assert_eq!(shown(&format!("billing_internal.money_times({too_long})")), None);
        assert_eq!(
            fault(&format!("SELECT billing_internal.money_sum_error({mixed}, true)")),
            "ZB011 1 USD and 2 EUR can't be subtracted: the currencies differ"
        );
        let digits = fault(&format!("SELECT billing_internal.money_times_error({too_long})"));
        assert!(digits.starts_with("ZB004 ") && digits.ends_with("needs more than 28 digits"), "{digits}");
        assert!(error_of("SELECT '1 USD'::billing.money OPERATOR(billing.+) '2 EUR'").starts_with("ZB011 "));
        assert!(error_of("SELECT '1 USD'::billing.money OPERATOR(billing.-) '2 EUR'").starts_with("ZB011 "));
        assert!(
            error_of(&format!("SELECT {}", too_long.replace(',', "::billing.money OPERATOR(billing.*)")))
                .starts_with("ZB004 ")
        );
    }

    /// Order is within one currency; equality is total, so that GROUP BY and DISTINCT work over currencies.
    #[pg_test]
    fn money_compares_within_one_currency() {
        // money_order, money_order_error, money_equal, money_hash
        for (a, b, order) in
            [("1.10 USD", "1.1 USD", 0), ("1.10 USD", "1.11 USD", -1), ("1.10 USD", "-2 USD", 1)]
        {
            assert_eq!(
                shown(&format!("billing_internal.money_order('{a}', '{b}')")),
                Some(order.to_string())
            );
            for (operator, holds) in [
                ("<", order < 0),
                ("<=", order <= 0),
                ("=", order == 0),
                ("<>", order != 0),
                (">=", order >= 0),
                (">", order > 0),
            ] {
                let comparison = format!("'{a}'::money {operator} '{b}'::money");
                assert_eq!(shown(&comparison), Some(holds.to_string()), "{comparison}");
            }
        }
        assert_eq!(shown("billing_internal.money_order('1 USD', '1 EUR')"), None);
        let fault = fault("SELECT billing_internal.money_order_error('1 USD', '1 EUR')");
        assert_eq!(fault, "ZB011 1 USD and 1 EUR can't be compared: the currencies differ");
        assert!(error_of("SELECT '1 USD'::billing.money OPERATOR(billing.<) '1 EUR'").starts_with("ZB011 "));
        assert_eq!(shown("'1 USD'::money = '1 EUR'::money").as_deref(), Some("false"));
        assert!(holds(
            "SELECT billing_internal.money_hash('1.10 USD') = billing_internal.money_hash('1.1 USD')"
        ));
        assert!(holds(
            "SELECT billing_internal.money_hash('1.10 USD') <> billing_internal.money_hash('1.1 EUR')"
        ));
        let groups = "SELECT count(*) FROM (SELECT m FROM (VALUES ('1 USD'::billing.money), ('1.0 USD'), ('1 EUR')) t (m) GROUP BY m) g";
        assert_eq!(value(groups).as_deref(), Some("2"));
    }

    /// A total is split by weights to the last minor unit: largest remainder, ties by position (rules.md 0.6).
    #[pg_test]
    fn parts_sum_to_the_total() {
        let parts = |arguments: &str| value(&format!("SELECT billing_internal.allocate_parts({arguments})"));
        assert_eq!(parts("100, '{1,1,1}', 2").as_deref(), Some("{33.34,33.33,33.33}"));
        assert_eq!(parts("10, '{1,2,4}', 2").as_deref(), Some("{1.43,2.86,5.71}"));
        assert_eq!(parts("-100, '{1,1,1}', 2").as_deref(), Some("{-33.34,-33.33,-33.33}"));
        assert_eq!(parts("10, '{NULL,1}', 0").as_deref(), Some("{0,10}"));
        for (arguments, says) in [
            ("10, '{1,-1}', 2", "ZB004 weights of both signs can't split a total"),
            ("10, '{1,1}', 19", "ZB004 19 digits after the point; 0 to 18 are possible"),
        ] {
            assert_eq!(parts(arguments), None);
            assert_eq!(fault(&format!("SELECT billing_internal.allocate_parts_error({arguments})")), says);
        }
    }
}

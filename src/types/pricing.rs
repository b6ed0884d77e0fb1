//! `billing.pricing`: a validated pricing document, stored as its canonical text.

use crate::domain::foundation::Fault;
use crate::domain::rating::Pricing;
use crate::pg::raise;
use pgrx::Internal;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::rc::Rc;

/// Compiled prices kept per backend. A statement rates with few prices, again and again.
const COMPILED_MAX: usize = 64;

thread_local! {
    /// Most recently used first.
    static COMPILED: RefCell<Vec<(String, Rc<Pricing>)>> = const { RefCell::new(Vec::new()) };
}

/// The compiled form of a pricing document.
pub fn compiled(text: &str) -> Result<Rc<Pricing>, Fault> {
    COMPILED.with_borrow_mut(|kept| {
        if let Some(at) = kept.iter().position(|(key, _)| key == text) {
            // Found first in nearly every call, so the move is rare.
            if at > 0 {
                let entry = kept.remove(at);
                kept.insert(0, entry);
            }
            return Ok(kept[0].1.clone());
        }
        let pricing = Rc::new(Pricing::parse(text)?);
        kept.truncate(COMPILED_MAX - 1);
        kept.insert(0, (text.to_string(), pricing.clone()));
        Ok(pricing)
    })
}

fn validated(text: &str, code: PgSqlErrorCode) -> String {
    match Pricing::parse(text) {
        Ok(pricing) => pricing.canonical(),
        Err(fault) => raise(code, &fault),
    }
}

#[pg_extern(sql = false)]
fn pricing_in(text: &CStr) -> String {
    match text.to_str() {
        Ok(text) => validated(text, PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION),
        Err(_) => raise(
            PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
            &Fault::value("pricing text is not UTF-8"),
        ),
    }
}

#[pg_extern(sql = false)]
fn pricing_out(pricing: &str) -> CString {
    CString::new(pricing).expect("canonical JSON has no zero byte")
}

#[pg_extern(sql = false)]
fn pricing_recv(internal: Internal) -> String {
    // SAFETY: Postgres passes a StringInfo to receive functions; the text is palloc'd and zero-terminated.
    let text = unsafe {
        let info = internal
            .unwrap()
            .expect("receive functions get a buffer")
            .cast_mut_ptr::<pg_sys::StringInfoData>();
        let mut bytes: i32 = 0;
        let rest = (*info).len - (*info).cursor;
        CStr::from_ptr(pg_sys::pq_getmsgtext(info, rest, &mut bytes))
    };
    match text.to_str() {
        Ok(text) => validated(text, PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION),
        Err(_) => raise(
            PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
            &Fault::value("pricing text is not UTF-8"),
        ),
    }
}

#[pg_extern(sql = false)]
fn pricing_send(pricing: &str) -> Vec<u8> {
    pricing.as_bytes().to_vec()
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, rows, value};
    use pgrx::prelude::*;

    /// A pricing document is validated on the way in and canonical on the way out; a fault names its path.
    #[pg_test]
    fn pricing_in_text() {
        // pricing_in, pricing_out
        let canonical = r#"{"model":"per_unit","per":1000,"unit_price":"0.03"}"#;
        let written = r#"'{ "unit_price":"0.030", "model":"per_unit", "per":1000 }'"#;
        assert_eq!(value(&format!("SELECT {written}::billing.pricing")).as_deref(), Some(canonical));
        assert_eq!(
            value(&format!("SELECT {written}::jsonb::billing.pricing::text")).as_deref(),
            Some(canonical)
        );
        let error = |text: &str| error_of(&format!("SELECT '{text}'::billing.pricing"));
        let tier =
            error(r#"{"model":"graduated","tiers":[{"up_to":"10","unit_price":"1"},{"unit_pric":"2"}]}"#);
        assert!(tier.starts_with("22P02 tiers[1]"), "{tier}");
        for text in [
            "",
            "[]",
            "{}",
            r#"{"model":"per_unit","unit_price":0.1,"unit_price":0.2}"#,
            r#"{"model":"free"}"#,
        ] {
            assert!(error(text).starts_with("22P02 "), "{text}: {}", error(text));
        }
    }

    /// The binary form is the canonical text, validated when it comes in.
    #[pg_test]
    fn pricing_in_binary() {
        let sent = r#"SELECT convert_from(billing_internal.pricing_send('{"model":"flat", "amount":"1.0"}'), 'UTF8')"#;
        assert_eq!(value(sent).as_deref(), Some(r#"{"amount":"1","model":"flat"}"#));
        // pricing_recv, by way of a binary file
        let file = value("SELECT current_setting('data_directory') || '/pricing.copy'").unwrap();
        let copied = |document: &str| {
            Spi::run(&format!("COPY (SELECT '{document}'::text) TO '{file}' (FORMAT binary)")).unwrap();
            let error = error_of(&format!("COPY tests.offer FROM '{file}' (FORMAT binary)"));
            std::fs::remove_file(&file).unwrap();
            error
        };
        Spi::run("CREATE TABLE tests.offer (price billing.pricing)").unwrap();
        assert_eq!(copied(r#"{"model":"flat", "amount":"2.50"}"#), "no error");
        assert_eq!(rows("SELECT price::text FROM tests.offer"), [r#"{"amount":"2.5","model":"flat"}"#]);
        let broken = copied(r#"{"model":"flat"}"#);
        assert!(broken.starts_with("22P03 amount: is missing"), "{broken}");
    }
}

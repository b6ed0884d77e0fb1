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

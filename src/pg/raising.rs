//! C functions that raise our own SQLSTATEs themselves, for the one place where no SQL facade can stand above
//! a leaf: an aggregate's state is `internal`, which PL/pgSQL can't take.
//!
//! pgrx knows a closed list of codes and turns all others into XX000, so such a function is not a
//! `#[pg_extern]`: [`raising_function!`] registers it, [`run`] guards its body and reports the fault after pgrx's
//! guard has returned.

use crate::domain::foundation::Fault;
use pgrx::{PgLogLevel, pg_sys};
use std::ffi::{c_char, c_int};
use std::ptr;

/// The body of a C function: its result, NULL, or the fault to raise.
pub type Body = fn(pg_sys::FunctionCallInfo) -> Result<Option<pg_sys::Datum>, Fault>;

/// What a body came to. Nothing in it needs dropping, as raising leaves the function by a jump.
#[derive(Clone, Copy)]
enum Outcome {
    Value(pg_sys::Datum),
    Null,
    Raise(Report),
}

/// A fault in Postgres's memory, which the end of the statement frees. An absent text is null.
#[derive(Clone, Copy)]
struct Report {
    sqlstate: c_int,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
}

/// Postgres's own packing of five characters, six bits each.
fn packed(sqlstate: &str) -> c_int {
    sqlstate.bytes().enumerate().map(|(at, byte)| c_int::from((byte - b'0') & 0x3F) << (6 * at)).sum()
}

fn in_postgres(text: Option<&str>) -> *const c_char {
    // SAFETY: the pointer has that many bytes; the copy ends with a zero.
    text.map_or(ptr::null(), |text| unsafe { pg_sys::pnstrdup(text.as_ptr().cast(), text.len()) })
}

impl Report {
    fn new(fault: &Fault) -> Report {
        Report {
            sqlstate: packed(fault.code.sqlstate()),
            message: in_postgres(Some(&fault.message)),
            detail: in_postgres(fault.detail.as_deref()),
            hint: in_postgres(fault.hint.as_deref()),
        }
    }

    /// `ereport(ERROR, …)`.
    ///
    /// # Safety
    /// No frame between here and Postgres may hold anything that needs dropping.
    unsafe fn raise(self) -> ! {
        unsafe extern "C-unwind" {
            fn errstart(level: c_int, domain: *const c_char) -> bool;
            fn errcode(sqlstate: c_int) -> c_int;
            fn errmsg_internal(format: *const c_char, ...) -> c_int;
            fn errdetail_internal(format: *const c_char, ...) -> c_int;
            fn errhint(format: *const c_char, ...) -> c_int;
            fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
        }
        let text = c"%s".as_ptr();
        // SAFETY: the calls are those of the macro ereport(), on the backend's only thread; the texts are
        // zero-terminated.
        unsafe {
            errstart(PgLogLevel::ERROR as c_int, ptr::null());
            errcode(self.sqlstate);
            errmsg_internal(text, self.message);
            if !self.detail.is_null() {
                errdetail_internal(text, self.detail);
            }
            if !self.hint.is_null() {
                errhint(text, self.hint);
            }
            errfinish(c"raising.rs".as_ptr(), line!() as c_int, c"raise".as_ptr());
        }
        unreachable!("an ERROR does not return")
    }
}

/// Runs a body: its panics and Postgres's errors become errors as in any function of pgrx, its fault is raised.
///
/// # Safety
/// To be called by Postgres's function manager through [`raising_function!`] only.
pub unsafe fn run(fcinfo: pg_sys::FunctionCallInfo, body: Body) -> pg_sys::Datum {
    // SAFETY: neither this frame nor its caller holds anything that needs dropping.
    let outcome = unsafe {
        pg_sys::panic::pgrx_extern_c_guard(|| match body(fcinfo) {
            Ok(Some(value)) => Outcome::Value(value),
            Ok(None) => Outcome::Null,
            Err(fault) => Outcome::Raise(Report::new(&fault)),
        })
    };
    match outcome {
        Outcome::Value(value) => value,
        // SAFETY: fcinfo is the one Postgres passed.
        Outcome::Null => unsafe { pgrx::fcinfo::pg_return_null(fcinfo) },
        // SAFETY: as above; the body's own frames have ended.
        Outcome::Raise(report) => unsafe { report.raise() },
    }
}

/// Registers a [`Body`] under the two symbols that Postgres looks for, as `#[pg_extern]` does.
macro_rules! raising_function {
    ($function:ident, $record:ident, $body:expr) => {
        #[unsafe(no_mangle)]
        extern "C" fn $record() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
            &::pgrx::pg_sys::Pg_finfo_record { api_version: 1 }
        }

        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $function(
            fcinfo: ::pgrx::pg_sys::FunctionCallInfo,
        ) -> ::pgrx::pg_sys::Datum {
            // SAFETY: Postgres calls this, and the frame holds nothing.
            unsafe { $crate::pg::raising::run(fcinfo, $body) }
        }
    };
}
pub(crate) use raising_function;

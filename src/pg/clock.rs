//! `billing.now()`: the real clock, or a test clock that stands still.
//!
//! The test clock is a setting of the database that only a superuser may set; `billing.test_clock_set()`
//! sets it. Row stamps (`recorded_at`, `cut_at`, UUIDv7, audit) always use the real clock.

use super::instant::to_timestamptz;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::{Code, Fault};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::prelude::*;
use pgrx::{PgSubXactCallbackEvent, PgXactCallbackEvent, register_subxact_callback, register_xact_callback};
use std::cell::RefCell;
use std::ffi::CString;

static TEST_CLOCK: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

pub fn define_settings() {
    GucRegistry::define_string_guc(
        c"billing.test_clock",
        c"The instant at which billing.now() stands still; empty for the real clock.",
        c"Set by billing.test_clock_set(timestamptz), never by hand.",
        &TEST_CLOCK,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: called from _PG_init, with a constant C string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"billing".as_ptr()) };
}

/// The clock of every function: the test clock where one is set, else the start of the transaction.
#[pg_extern(sql = false)]
fn billing_now() -> TimestampWithTimeZone {
    let setting = TEST_CLOCK.get().filter(|text| !text.is_empty());
    let Some(text) = setting else {
        // SAFETY: inside a transaction, as every function call is.
        let start = unsafe { pg_sys::GetCurrentTransactionStartTimestamp() };
        return TimestampWithTimeZone::try_from(start).expect("the transaction's start is a timestamp");
    };
    text.to_str()
        .ok()
        .and_then(|text| Instant::parse(text).ok())
        .and_then(to_timestamptz)
        .unwrap_or_else(|| error!("the setting billing.test_clock is not an instant: {text:?}"))
}

thread_local! {
    /// Why this transaction may not be committed, each with the subtransaction that said so.
    static REFUSALS: RefCell<Vec<(pg_sys::SubTransactionId, String)>> = const { RefCell::new(Vec::new()) };
}

/// Makes the transaction end in a rollback: a COMMIT or PREPARE TRANSACTION of it fails with `reason`. Rolling back
/// to a savepoint before the call takes it back.
#[pg_extern(sql = false)]
fn refuse_commit(reason: String) {
    // SAFETY: inside a transaction, as every function call is.
    let here = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let first = REFUSALS.with_borrow_mut(|refusals| {
        refusals.push((here, reason));
        refusals.len() == 1
    });
    if !first {
        return; // the callbacks are there
    }
    for end in [PgXactCallbackEvent::PreCommit, PgXactCallbackEvent::PrePrepare] {
        register_xact_callback(end, || {
            if let Some((_, reason)) = REFUSALS.with_borrow(|refusals| refusals.first().cloned()) {
                let fault = Fault::new(Code::Clock, reason).with_hint("Use ROLLBACK.");
                super::raise(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, &fault);
            }
        });
    }
    for end in [PgXactCallbackEvent::Commit, PgXactCallbackEvent::Abort, PgXactCallbackEvent::Prepare] {
        register_xact_callback(end, || REFUSALS.with_borrow_mut(Vec::clear));
    }
    register_subxact_callback(PgSubXactCallbackEvent::AbortSub, |ended, _| {
        REFUSALS.with_borrow_mut(|refusals| refusals.retain(|(at, _)| *at != ended));
    });
    register_subxact_callback(PgSubXactCallbackEvent::CommitSub, |ended, parent| {
        REFUSALS.with_borrow_mut(|refusals| {
            for (at, _) in refusals.iter_mut().filter(|(at, _)| *at == ended) {
                *at = parent;
            }
        });
    });
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, holds, other_session, rows, value};
    use pgrx::prelude::*;

    /// billing.now() is the start of the transaction, or the test clock, which stands still to the microsecond;
    /// a setting that is no instant is an error, never the real time.
    #[pg_test]
    fn the_clock_is_the_transaction_or_stands_still() {
        assert!(holds("SELECT billing.now() = now()"));
        Spi::run("SET billing.test_clock = '2023-12-01T00:00:00.000001Z'").unwrap();
        assert_eq!(value("SELECT billing.now()").as_deref(), Some("2023-12-01 00:00:00.000001+00"));
        Spi::run("SET billing.test_clock = 'yesterday'").unwrap();
        let broken = error_of("SELECT billing.now()");
        assert!(broken.starts_with("XX000 the setting billing.test_clock is not an instant"), "{broken}");
        Spi::run("SET billing.test_clock = ''").unwrap();
        assert!(holds("SELECT billing.now() = now()"));
    }

    /// After refuse_commit() a transaction can only be rolled back: COMMIT fails with 55000 and the reason, and
    /// nothing of it stays; so does PREPARE TRANSACTION. Rolled back to a savepoint before it, the transaction is as if
    /// it had not been called. Tried in a session of its own, since a test ends in a rollback anyway.
    #[pg_test]
    fn a_refused_commit_rolls_back() {
        let elsewhere = other_session();
        elsewhere("BEGIN");
        elsewhere("CREATE TABLE tests.refused (n int)");
        rows(
            "SELECT * FROM tests.dblink('other', 'SELECT billing_internal.refuse_commit(''not here'')::text') t (nothing text)",
        );
        let refused = error_of("SELECT tests.dblink_exec('other', 'COMMIT')");
        assert_eq!(refused, "55000 not here HINT Use ROLLBACK.");
        assert!(holds("SELECT to_regclass('tests.refused') IS NULL"));

        let refuse = "SELECT * FROM tests.dblink('other', 'SELECT billing_internal.refuse_commit(''not here'')::text') t (nothing text)";
        elsewhere("BEGIN");
        elsewhere("SAVEPOINT a");
        elsewhere("SAVEPOINT b");
        rows(refuse);
        elsewhere("RELEASE SAVEPOINT b"); // then it is a's
        let prepared = error_of("SELECT tests.dblink_exec('other', 'PREPARE TRANSACTION ''x''')");
        assert_eq!(prepared, "55000 not here HINT Use ROLLBACK.");
        elsewhere("BEGIN");
        elsewhere("CREATE TABLE tests.refused (n int)");
        elsewhere("SAVEPOINT a");
        rows(refuse);
        elsewhere("ROLLBACK TO SAVEPOINT a");
        elsewhere("COMMIT");
        assert!(holds("SELECT to_regclass('tests.refused') IS NOT NULL"));
        elsewhere("DROP TABLE tests.refused");
        rows("SELECT tests.dblink_disconnect('other')");
    }
}

//! `billing.now()`: the real clock, a test clock that stands still, or where a transaction has travelled to.
//!
//! The test clock is a setting of the database that only a superuser may set; `billing.test_clock_set()`
//! sets it. Where a transaction travels to (`billing.time_travel()`) is a setting that ends with it, or with the savepoint
//! it travelled in; parallel workers see both. Row stamps (`recorded_at`, `cut_at`, UUIDv7, audit) always use the real clock.
//! A transaction that travelled takes none of the locks that others wait for, and can't be committed, in any installation.

use super::instant::{from_timestamptz, to_timestamptz};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::{Code, Fault};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::prelude::*;
use pgrx::{PgSubXactCallbackEvent, PgXactCallbackEvent, register_subxact_callback, register_xact_callback};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};

static TEST_CLOCK: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static TRAVEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
const TRAVEL_NAME: &CStr = c"billing.time_travel_at";
const TRAVELLED: &str = "this transaction has travelled in time, so it can't be committed";

pub fn define_settings() {
    GucRegistry::define_string_guc(
        c"billing.test_clock",
        c"The instant at which billing.now() stands still; empty for the real clock.",
        c"Set by billing.test_clock_set(timestamptz), never by hand.",
        &TEST_CLOCK,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        TRAVEL_NAME,
        c"The instant to which this transaction has travelled; empty if it has not.",
        c"Set by billing.time_travel(timestamptz), never by hand.",
        &TRAVEL,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: called from _PG_init, with a constant C string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"billing".as_ptr()) };
}

/// A setting that may be empty, as text.
fn said(setting: &GucSetting<Option<CString>>) -> Option<CString> {
    setting.get().filter(|text| !text.is_empty())
}

/// The clock of every function: where this transaction has travelled to, else the test clock, else the start of the
/// transaction.
#[pg_extern(sql = false)]
fn billing_now() -> TimestampWithTimeZone {
    let (name, text) = match (said(&TRAVEL), said(&TEST_CLOCK)) {
        (Some(text), _) => ("billing.time_travel_at", text),
        (None, Some(text)) => ("billing.test_clock", text),
        (None, None) => {
            // SAFETY: inside a transaction, as every function call is.
            let start = unsafe { pg_sys::GetCurrentTransactionStartTimestamp() };
            return TimestampWithTimeZone::try_from(start).expect("the transaction's start is a timestamp");
        }
    };
    text.to_str()
        .ok()
        .and_then(|text| Instant::parse(text).ok())
        .and_then(to_timestamptz)
        .unwrap_or_else(|| error!("the setting {name} is not an instant: {text:?}"))
}

/// The clock at this moment rather than when the transaction started; where `billing.now()` stands still, that.
#[pg_extern(sql = false)]
fn billing_moment() -> TimestampWithTimeZone {
    if stands_still() {
        return billing_now();
    }
    // SAFETY: reads the clock.
    TimestampWithTimeZone::try_from(unsafe { pg_sys::GetCurrentTimestamp() })
        .expect("the clock is a timestamp")
}

/// Whether billing.now() is not the real clock.
pub fn stands_still() -> bool {
    said(&TRAVEL).is_some() || said(&TEST_CLOCK).is_some()
}

/// The real clock, at this moment.
pub fn real_now() -> Instant {
    // SAFETY: reads the clock.
    let now = TimestampWithTimeZone::try_from(unsafe { pg_sys::GetCurrentTimestamp() });
    now.ok().and_then(from_timestamptz).expect("the clock is a timestamp")
}

/// Moves this transaction to an instant, from where only a rollback leads.
#[pg_extern(sql = false)]
fn travel_to(at: TimestampWithTimeZone) {
    let instant = from_timestamptz(at).unwrap_or_else(|| error!("nobody travels to infinity"));
    let text = CString::new(instant.to_string()).expect("an instant has no zero byte");
    refuse(TRAVELLED);
    // SAFETY: both texts are zero-terminated and copied; only this transaction's value changes.
    unsafe {
        pg_sys::set_config_option(
            TRAVEL_NAME.as_ptr(),
            text.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// Whether this transaction has travelled. Whoever hears yes leaves out a lock or a number, so that what it does can't be
/// committed, however the setting came about.
#[pg_extern(sql = false)]
fn travelling() -> bool {
    let yes = said(&TRAVEL).is_some();
    if yes {
        refuse(TRAVELLED);
    }
    yes
}

/// The next number of the previews of this transaction, from 1.
#[pg_extern(sql = false)]
fn preview_number() -> i64 {
    refuse(TRAVELLED); // sees to it that the next transaction begins at 1, too
    PREVIEWS.set(PREVIEWS.get() + 1);
    PREVIEWS.get()
}

/// Whether this statement is one of several of a transaction.
#[pg_extern(sql = false)]
fn in_transaction_block() -> bool {
    // SAFETY: only looks at the state of the transaction.
    unsafe { pg_sys::IsTransactionBlock() }
}

thread_local! {
    /// Why this transaction may not be committed, each with the subtransaction that said so.
    static REFUSALS: RefCell<Vec<(pg_sys::SubTransactionId, String)>> = const { RefCell::new(Vec::new()) };
    /// How many previews of invoices this transaction has made.
    static PREVIEWS: Cell<i64> = const { Cell::new(0) };
    /// Whether the callbacks of this transaction are registered; they are gone with it.
    static LISTENS: Cell<bool> = const { Cell::new(false) };
}

/// Makes the transaction end in a rollback: a COMMIT or PREPARE TRANSACTION of it fails with `reason`. Rolling back
/// to a savepoint before the call takes it back.
#[pg_extern(sql = false)]
fn refuse_commit(reason: &str) {
    refuse(reason);
}

fn refuse(reason: &str) {
    // SAFETY: asks where this process stands, inside a transaction, as every function call is. A worker of a parallel
    // query commits nothing: its leader is asked, too.
    let (here, worker) = unsafe { (pg_sys::GetCurrentSubTransactionId(), pg_sys::ParallelWorkerNumber >= 0) };
    if worker {
        return;
    }
    REFUSALS.with_borrow_mut(|refusals| {
        if refusals.iter().all(|(_, said)| said != reason) {
            refusals.push((here, reason.to_owned()));
        }
    });
    if LISTENS.replace(true) {
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
        register_xact_callback(end, || {
            REFUSALS.with_borrow_mut(Vec::clear);
            PREVIEWS.set(0);
            LISTENS.set(false);
        });
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
    /// a setting that is no instant is an error, never the real time. moment() goes on where that does not stand still.
    #[pg_test]
    fn the_clock_is_the_transaction_or_stands_still() {
        assert!(holds("SELECT billing.now() = now()"));
        assert!(holds(
            "SELECT billing_internal.moment() BETWEEN now() AND clock_timestamp() AND billing_internal.moment() > now()"
        ));
        Spi::run("SET billing.test_clock = '2023-12-01T00:00:00.000001Z'").unwrap();
        assert_eq!(value("SELECT billing.now()").as_deref(), Some("2023-12-01 00:00:00.000001+00"));
        assert!(holds("SELECT billing_internal.moment() = billing.now()"));
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

    /// After travel_to() billing.now() is there, test clock or not, also in parallel workers, travelling() is true, and
    /// preview_number() counts from 1. COMMIT and PREPARE TRANSACTION fail with 55000. With a savepoint before it that
    /// is rolled back to, or once the transaction has ended, nothing of it is left. So it is where a superuser sets the
    /// setting by hand: who heard travelling() say yes can't commit.
    #[pg_test]
    fn a_transaction_that_travels_is_rolled_back() {
        let elsewhere = other_session();
        let asked = |what: &str| {
            value(&format!(
                "SELECT * FROM tests.dblink('other', $x$SELECT ({what})::text$x$) t (answer text)"
            ))
        };
        let there = "2031-05-06 07:08:09.000001+00";
        elsewhere("SET timezone = 'UTC'");
        elsewhere("SET billing.test_clock = '2023-12-01T00:00:00Z'");
        assert_eq!(asked("billing_internal.travelling()").as_deref(), Some("false"));
        for end in ["COMMIT", "PREPARE TRANSACTION ''x''"] {
            elsewhere("BEGIN");
            asked(&format!("billing_internal.travel_to('{there}')"));
            assert_eq!(asked("billing.now()").as_deref(), Some(there));
            assert_eq!(asked("billing_internal.travelling()").as_deref(), Some("true"));
            assert_eq!(asked("billing_internal.preview_number()").as_deref(), Some("1"));
            assert_eq!(asked("billing_internal.preview_number()").as_deref(), Some("2"));
            let refused = error_of(&format!("SELECT tests.dblink_exec('other', '{end}')"));
            assert_eq!(
                refused,
                "55000 this transaction has travelled in time, so it can't be committed HINT Use ROLLBACK."
            );
            assert_eq!(asked("billing_internal.travelling()").as_deref(), Some("false"));
        }

        elsewhere("BEGIN");
        elsewhere("SET LOCAL force_parallel_mode = on");
        asked(&format!("billing_internal.travel_to('{there}')"));
        assert_eq!(asked("billing.now()").as_deref(), Some(there));
        elsewhere("ROLLBACK");
        assert_eq!(asked("billing.now()").as_deref(), Some("2023-12-01 00:00:00+00"));

        elsewhere("BEGIN");
        elsewhere("SAVEPOINT a");
        elsewhere("SAVEPOINT b");
        asked(&format!("billing_internal.travel_to('{there}')"));
        elsewhere("RELEASE SAVEPOINT b");
        assert_eq!(asked("billing_internal.travelling()").as_deref(), Some("true"));
        elsewhere("ROLLBACK TO SAVEPOINT a");
        assert_eq!(asked("billing_internal.travelling()").as_deref(), Some("false"));
        assert_eq!(asked("billing.now()").as_deref(), Some("2023-12-01 00:00:00+00"));
        elsewhere("COMMIT");

        elsewhere("SET billing.time_travel_at = '2031-05-06T07:08:09Z'");
        elsewhere("BEGIN");
        assert_eq!(asked("billing_internal.travelling()").as_deref(), Some("true"));
        let refused = error_of("SELECT tests.dblink_exec('other', 'COMMIT')");
        assert!(refused.starts_with("55000 this transaction has travelled"), "{refused}");
        rows("SELECT tests.dblink_disconnect('other')");
    }

    /// in_transaction_block() is true between BEGIN and its end, and false in a statement by itself.
    #[pg_test]
    fn a_transaction_block_is_known() {
        let elsewhere = other_session();
        let asked = || {
            value(
                "SELECT * FROM tests.dblink('other', 'SELECT billing_internal.in_transaction_block()::text') t (answer text)",
            )
        };
        assert_eq!(asked().as_deref(), Some("false"));
        elsewhere("BEGIN");
        assert_eq!(asked().as_deref(), Some("true"));
        elsewhere("ROLLBACK");
        assert_eq!(asked().as_deref(), Some("false"));
        rows("SELECT tests.dblink_disconnect('other')");
    }
}

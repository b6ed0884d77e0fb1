//! Limits: a request in shared memory, or on a state that SQL keeps in a row; the documents of limits and alerts.

use crate::domain::entitlements::gcra::{Limit, Outcome, State};
use crate::domain::entitlements::limit_document;
use crate::domain::foundation::{Exact, Fault, json};
use crate::pg::clock::{real_now, stands_still};
use crate::pg::instant::{from_timestamptz, to_timestamptz};
use crate::pg::{FaultJson, Numeric};
use crate::shmem;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

/// A request of a customer and feature in shared memory. No row where that is not the place: the library is not preloaded, there is
/// no room, the clock is not the real one, or `rate_error` says why.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "a limit, and who asks for what")]
fn rate_shared(
    customer: i64,
    feature: i32,
    rate: Numeric,
    period: i64,
    burst: Numeric,
    cost: Numeric,
    dry: bool,
) -> TableIterator<'static, (name!(allowed, bool), name!(wait, Option<i64>), name!(remaining, Numeric))> {
    in_shared((customer, feature), (rate, period, burst), cost, dry)
}

/// The same, which takes nothing: for readers.
#[pg_extern(sql = false)]
fn rate_shared_look(
    customer: i64,
    feature: i32,
    rate: Numeric,
    period: i64,
    burst: Numeric,
    cost: Numeric,
) -> TableIterator<'static, (name!(allowed, bool), name!(wait, Option<i64>), name!(remaining, Numeric))> {
    in_shared((customer, feature), (rate, period, burst), cost, true)
}

fn in_shared(
    (customer, feature): (i64, i32),
    (rate, period, burst): (Numeric, i64, Numeric),
    cost: Numeric,
    dry: bool,
) -> TableIterator<'static, (name!(allowed, bool), name!(wait, Option<i64>), name!(remaining, Numeric))> {
    let outcome = || {
        let limit = Limit::new(rate.value?, period, burst.value?)?;
        shmem::rate_take(customer, feature, &limit, real_now().0, cost.value?, dry)
    };
    let outcome = if stands_still() { None } else { outcome().ok().flatten() };
    TableIterator::new(
        outcome.map(|outcome| (outcome.allowed, outcome.wait, Numeric::from(outcome.remaining))),
    )
}

/// A request on a state that the caller keeps: level, period and instant, NULL where there is none yet. No row where `rate_error`
/// says why.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "a state, a limit, and what is asked")]
#[allow(clippy::type_complexity)]
fn rate_step(
    level: Option<&str>,
    level_period: Option<i64>,
    level_at: Option<TimestampWithTimeZone>,
    rate: Numeric,
    period: i64,
    burst: Numeric,
    cost: Numeric,
    at: TimestampWithTimeZone,
) -> TableIterator<
    'static,
    (
        name!(allowed, bool),
        name!(wait, Option<i64>),
        name!(remaining, Numeric),
        name!(level, String),
        name!(level_period, i64),
        name!(level_at, Option<TimestampWithTimeZone>),
    ),
> {
    let state =
        match (level.and_then(|level| level.parse().ok()), level_period, level_at.and_then(from_timestamptz))
        {
            (Some(level), Some(period), Some(at)) => Some(State { level, period, at: at.0 }),
            _ => None,
        };
    let outcome = take((rate, period, burst), state, cost, from_timestamptz(at).map(|at| at.0)).ok();
    TableIterator::new(outcome.map(|outcome| {
        let state = outcome.state;
        let at = to_timestamptz(crate::domain::foundation::instant::Instant(state.at));
        (
            outcome.allowed,
            outcome.wait,
            Numeric::from(outcome.remaining),
            state.level.to_string(),
            state.period,
            at,
        )
    }))
}

/// Why a request can't be: the limit or its cost; NULL if it can.
#[pg_extern(sql = false)]
fn rate_error(rate: Numeric, period: i64, burst: Numeric, cost: Numeric) -> Option<String> {
    take((rate, period, burst), None, cost, Some(0)).err().as_ref().map(FaultJson::text)
}

fn take(
    (rate, period, burst): (Numeric, i64, Numeric),
    state: Option<State>,
    cost: Numeric,
    at: Option<i64>,
) -> Result<Outcome, Fault> {
    let at = at.ok_or_else(|| Fault::value("the clock stands at no instant"))?;
    let cost: Exact = cost.value?;
    Limit::new(rate.value?, period, burst.value?)?.take(state, at, cost)
}

/// How much of shared memory's rate limits is in use, by all databases; no row where the library is not preloaded.
#[pg_extern(sql = false)]
fn rates_use() -> TableIterator<'static, (name!(used, i64), name!(size, i64), name!(full, i64))> {
    TableIterator::new(shmem::rates_use(real_now().0).map(|shared| (shared.used, shared.size, shared.full)))
}

/// Whether billing.now() is not the real clock: a test clock, or a transaction that travels.
#[pg_extern(sql = false)]
fn clock_stands_still() -> bool {
    stands_still()
}

/// The canonical text of the document of a limit or rule whose form is right; NULL where `limit_document_error` says why not.
#[pg_extern(sql = false)]
fn limit_document(kind: &str, doc: &str) -> Option<String> {
    json::parse(doc).and_then(|tree| limit_document::read(kind, &tree)).ok()
}

#[pg_extern(sql = false)]
fn limit_document_error(kind: &str, doc: &str) -> Option<String> {
    json::parse(doc).and_then(|tree| limit_document::read(kind, &tree)).err().as_ref().map(FaultJson::text)
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{fault, holds, rows, value};
    use pgrx::prelude::*;

    /// Five may come at once, ten a second: a state goes in and comes out, a refusal says in how many microseconds, and what
    /// costs more than fits never passes. A limit or cost that can't be says why.
    #[pg_test]
    fn requests_pass_or_say_when() {
        let step = |state: &str, at: &str, cost: &str| {
            rows(&format!(
                "SELECT * FROM billing_internal.rate_step({state}, 10, 1000000, 5, {cost}, '2023-11-16 10:00:{at}+00')"
            ))
        };
        assert_eq!(
            step("NULL, NULL, NULL", "00", "5"),
            ["true|0|0|5000000000000|1000000|2023-11-16T10:00:00+00:00"]
        );
        let stood = "'5000000000000', 1000000, '2023-11-16 10:00:00+00'";
        assert_eq!(
            step(stood, "00.05", "1"),
            ["false|50000|0.5|4500000000000|1000000|2023-11-16T10:00:00.05+00:00"]
        );
        assert_eq!(step(stood, "00.1", "1"), ["true|0|0|5000000000000|1000000|2023-11-16T10:00:00.1+00:00"]);
        assert_eq!(step(stood, "00", "6"), ["false||0|5000000000000|1000000|2023-11-16T10:00:00+00:00"]);
        assert_eq!(step(stood, "00", "-1"), [""; 0]);
        assert_eq!(value("SELECT billing_internal.rate_error(10, 1000000, 5, 1)"), None);
        assert_eq!(
            fault("SELECT billing_internal.rate_error(10, 1000000, 5, -1)"),
            "ZB004 a request can't cost -1"
        );
        assert_eq!(
            fault("SELECT billing_internal.rate_error(0, 1000000, 5, 1)"),
            "ZB004 0 requests in 1000000 microseconds can't be a rate limit"
        );
    }

    /// The documents of limits, budgets and rules are read to their canonical text, or refused by path.
    #[pg_test]
    fn limit_documents_are_read() {
        let doc = r#"{"period": "month", "key": "m", "amount": "500"}"#;
        assert_eq!(
            value(&format!("SELECT billing_internal.limit_document('spend_limit', '{doc}')")).as_deref(),
            Some(r#"{"amount":"500","key":"m","period":"month"}"#)
        );
        assert_eq!(value(&format!("SELECT billing_internal.limit_document('budget', '{doc}')")), None);
        assert_eq!(
            value(&format!("SELECT billing_internal.limit_document_error('spend_limit', '{doc}')")),
            None
        );
        let missing = fault(&format!("SELECT billing_internal.limit_document_error('budget', '{doc}')"));
        assert_eq!(missing, "ZB003 match: is missing");
    }

    /// The test server preloads the library: three of five requests at once are in shared memory, also after a savepoint that is
    /// rolled back; a look takes nothing; each customer and feature has its own. Under a test clock it is not asked.
    #[pg_test]
    fn shared_memory_counts_requests() {
        let take = |customer: i64, cost: &str, dry: bool| {
            rows(&format!(
                "SELECT allowed, wait > 0, remaining FROM billing_internal.rate_shared({customer}, 7, 1, 86400000000, 5, {cost}, {dry})"
            ))
        };
        assert!(holds("SELECT EXISTS (SELECT FROM billing_internal.rates_use() WHERE size >= 64)"));
        assert!(holds("SELECT NOT billing_internal.clock_stands_still()"));
        assert_eq!(take(1, "3", false), ["true|false|2"]);
        assert_eq!(take(1, "1", true)[0].split('|').next(), Some("true"));
        assert!(holds("SELECT allowed FROM billing_internal.rate_shared_look(1, 7, 1, 86400000000, 5, 2)"));
        assert_eq!(take(2, "5", false)[0].split('|').next(), Some("true"));
        assert_eq!(take(1, "3", false)[0].split('|').take(2).collect::<Vec<_>>(), ["false", "true"]);
        assert_eq!(take(1, "2", false)[0].split('|').next(), Some("true"));
        assert_eq!(take(1, "1", false)[0].split('|').next(), Some("false"));
        assert!(holds("SELECT used >= 2 FROM billing_internal.rates_use()"));
        Spi::run("SET billing.test_clock = '2023-12-01T00:00:00Z'").unwrap();
        assert_eq!(take(3, "1", false), [""; 0]);
        assert!(holds("SELECT billing_internal.clock_stands_still()"));
    }
}

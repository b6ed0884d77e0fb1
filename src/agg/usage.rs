//! `usage_count`, `usage_sum`, `usage_percentile` and the others: the aggregations of meters over any rows.
//!
//! All keep the [`State`] that meters keep, with what is asked of it, on Rust's heap, dropped with the aggregate's
//! memory context.
//! Only what takes in new numbers can fail for reasons that people have to read, so only that raises ZB codes.

use crate::domain::foundation::Fault;
use crate::domain::foundation::decimal::quoted;
use crate::domain::foundation::hash::text_key;
use crate::domain::foundation::instant::Instant;
use crate::domain::metering::aggregate::{Asked, HOUR_MICROS, Percentile, Position, Running, When};
use crate::domain::metering::{Contribution, Kind, State};
use crate::pg::Numeric;
use crate::pg::instant::from_timestamptz;
use crate::pg::raising::raising_function;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::fcinfo::{pg_arg_is_null, pg_getarg, pg_getarg_datum};
use pgrx::prelude::*;
use pgrx::{Internal, PgMemoryContexts};
use std::ptr;

type Call = pg_sys::FunctionCallInfo;
type Outcome = Result<Option<pg_sys::Datum>, Fault>;

const HINT: &str = "Usage numbers have at most 28 digits, 12 of them after the point; round() them first.";

/// Keeps a state as long as the aggregate needs it.
fn kept(call: Call, state: Running) -> pg_sys::Datum {
    let mut context = ptr::null_mut();
    // SAFETY: `call` is the running call; Postgres sets the context if it is an aggregate's.
    if unsafe { pg_sys::AggCheckCallContext(call, &mut context) } == 0 {
        error!("only aggregates call this function");
    }
    pg_sys::Datum::from(PgMemoryContexts::For(context).leak_and_drop_on_delete(state))
}

/// The state in an argument of type internal.
///
/// # Safety
/// The datum was made by [`kept`] or `usage_state_deserial`, in a context that outlives `'a`.
unsafe fn state<'a>(datum: pg_sys::Datum) -> &'a mut Running {
    // SAFETY: see above.
    unsafe { &mut *datum.cast_mut_ptr::<Running>() }
}

/// What one row is: what it contributes, when, and what it asks.
struct Row {
    contribution: Contribution,
    when: When,
    asked: Asked,
}

/// Where the time of a row plays no part.
const ANY_TIME: When = When { position: Position { at: Instant(0), event_key: uuid::Uuid::nil() }, into: 0 };

impl From<Contribution> for Row {
    fn from(contribution: Contribution) -> Row {
        Row { contribution, when: ANY_TIME, asked: Asked::Total }
    }
}

/// Adds one row to the state in argument 0. A row that contributes nothing (a NULL) leaves it as it is.
fn add(call: Call, kind: Kind, row: Option<Row>) -> Outcome {
    // SAFETY: argument 0 is the state that the last call returned.
    let before = unsafe { pg_getarg_datum(call, 0) };
    let Some(row) = row else {
        return Ok(before);
    };
    let datum = before.unwrap_or_else(|| kept(call, Running { state: State::new(kind), asked: row.asked }));
    // SAFETY: made by this function, in the aggregate's context.
    let running = unsafe { state(datum) };
    running.asks(&row.asked)?;
    running.state.add(row.contribution, &row.when).map_err(|fault| fault.with_hint(HINT))?;
    Ok(Some(datum))
}

/// `usage_count(*)` counts rows, `usage_count(value)` those whose value is not NULL.
fn count_add(call: Call) -> Outcome {
    // SAFETY: the second argument is looked at only where there is one.
    let counts = unsafe { (*call).nargs < 2 || !pg_arg_is_null(call, 1) };
    add(call, Kind::Count, counts.then(|| Contribution::One.into()))
}

/// The number in an argument that is declared numeric.
fn number(call: Call, at: usize) -> Result<Option<crate::domain::foundation::Exact>, Fault> {
    // SAFETY: the argument is declared numeric.
    let value = unsafe { pg_getarg::<Numeric>(call, at) }.map(|numeric| numeric.value).transpose();
    value.map_err(|fault| fault.with_hint(HINT))
}

/// The instant in an argument that is declared timestamptz.
fn instant(call: Call, at: usize) -> Result<Option<Instant>, Fault> {
    // SAFETY: the argument is declared timestamptz.
    let Some(time) = (unsafe { pg_getarg::<TimestampWithTimeZone>(call, at) }) else { return Ok(None) };
    from_timestamptz(time).map(Some).ok_or_else(|| Fault::value("infinity is not an instant"))
}

fn number_add(call: Call, kind: Kind) -> Outcome {
    add(call, kind, number(call, 1)?.map(|value| Contribution::Number(value).into()))
}

fn sum_add(call: Call) -> Outcome {
    number_add(call, Kind::Sum)
}

fn max_add(call: Call) -> Outcome {
    number_add(call, Kind::Max)
}

fn min_add(call: Call) -> Outcome {
    number_add(call, Kind::Min)
}

fn average_add(call: Call) -> Outcome {
    number_add(call, Kind::Average)
}

/// `usage_latest(value, at)`
fn latest_add(call: Call) -> Outcome {
    let (Some(value), Some(at)) = (number(call, 1)?, instant(call, 2)?) else {
        return add(call, Kind::Latest, None);
    };
    add(call, Kind::Latest, Some(Row { when: at_time(at, 0), ..Contribution::Number(value).into() }))
}

fn at_time(at: Instant, into: i64) -> When {
    When { position: Position { at, event_key: uuid::Uuid::nil() }, into }
}

/// `usage_weighted_sum(value, at, from_at, until_at)`: what is not before the end counts, what was before the
/// beginning with its full weight.
fn weighted_sum_add(call: Call) -> Outcome {
    let (Some(from), Some(until)) = (instant(call, 3)?, instant(call, 4)?) else {
        return Err(Fault::value("the stretch of a weighted sum is NULL"));
    };
    if from >= until {
        return Err(Fault::value(format!("{from} until {until} is not a stretch of time")));
    }
    let (Some(value), Some(at)) = (number(call, 1)?, instant(call, 2)?) else {
        return add(call, Kind::Level, None);
    };
    let asked = Asked::Stretch { from, until, unit: HOUR_MICROS };
    let when = at_time(at, at.max(from).0 - from.0);
    add(
        call,
        Kind::Level,
        (at < until).then_some(Row { when, asked, contribution: Contribution::Number(value) }),
    )
}

/// `usage_percentile(value, percentile)`
fn percentile_add(call: Call) -> Outcome {
    let Some(percent) = number(call, 2)? else { return Err(Fault::value("the percentile is NULL")) };
    let asked = Asked::Percentile(Percentile::new(percent)?);
    let row = number(call, 1)?.map(|value| Row { asked, ..Contribution::Number(value).into() });
    add(call, Kind::Values, row)
}

/// `usage_unique_count(value)`, `usage_unique_count(value, at, operation)`
fn unique_add(call: Call) -> Outcome {
    // SAFETY: argument 1 is declared text.
    let key = unsafe { pg_getarg::<&str>(call, 1) }.map(text_key);
    // SAFETY: only looks at how many arguments there are.
    if unsafe { (*call).nargs } < 3 {
        return add(call, Kind::Unique, key.map(|key| Contribution::Key(key).into()));
    }
    // SAFETY: argument 3 is declared text.
    let operation = unsafe { pg_getarg::<&str>(call, 3) };
    let (Some(key), Some(at), Some(operation)) = (key, instant(call, 2)?, operation) else {
        return add(call, Kind::Presence, None);
    };
    let removed = match operation {
        "add" => false,
        "remove" => true,
        other => {
            return Err(Fault::value(format!("operation {} is not known", quoted(other)))
                .with_hint("An operation is add or remove."));
        }
    };
    let contribution = Contribution::Operation { key, removed };
    add(call, Kind::Presence, Some(Row { when: at_time(at, 0), ..contribution.into() }))
}

/// Two partial states into one: the rows of both.
fn combine(call: Call) -> Outcome {
    // SAFETY: both arguments are states or NULL.
    let (one, two) = unsafe { (pg_getarg_datum(call, 0), pg_getarg_datum(call, 1)) };
    let Some(two) = two else {
        return Ok(one);
    };
    // SAFETY: made by a transition or by deserialization; cloned, since it may live shorter than the first.
    let two = unsafe { state(two) }.clone();
    let Some(one) = one else {
        return Ok(Some(kept(call, two)));
    };
    // SAFETY: the first argument is what this function returned before.
    unsafe { state(one) }.merge(two)?;
    Ok(Some(one))
}

raising_function!(usage_count_add_wrapper, pg_finfo_usage_count_add_wrapper, count_add);
raising_function!(usage_sum_add_wrapper, pg_finfo_usage_sum_add_wrapper, sum_add);
raising_function!(usage_max_add_wrapper, pg_finfo_usage_max_add_wrapper, max_add);
raising_function!(usage_min_add_wrapper, pg_finfo_usage_min_add_wrapper, min_add);
raising_function!(usage_average_add_wrapper, pg_finfo_usage_average_add_wrapper, average_add);
raising_function!(usage_latest_add_wrapper, pg_finfo_usage_latest_add_wrapper, latest_add);
raising_function!(usage_weighted_sum_add_wrapper, pg_finfo_usage_weighted_sum_add_wrapper, weighted_sum_add);
raising_function!(usage_percentile_add_wrapper, pg_finfo_usage_percentile_add_wrapper, percentile_add);
raising_function!(usage_unique_add_wrapper, pg_finfo_usage_unique_add_wrapper, unique_add);
raising_function!(usage_state_combine_wrapper, pg_finfo_usage_state_combine_wrapper, combine);

/// A state on its way between processes, in its stored form.
#[pg_extern(sql = false)]
fn usage_state_serial(state: Internal) -> Vec<u8> {
    // SAFETY: the argument is a state.
    unsafe { state.get::<Running>() }.expect("strict").to_bytes()
}

/// The state of its stored form. The second argument only keeps the function from being called by SQL.
#[pg_extern(sql = false)]
fn usage_state_deserial(bytes: &[u8], _internal: Internal) -> Internal {
    Internal::new(Running::from_bytes(bytes).unwrap_or_else(|fault| error!("{fault}")))
}

fn quantity(running: &Running) -> Option<Numeric> {
    let quantity = running.state.quantity(&running.asked).unwrap_or_else(|fault| error!("{fault}"));
    quantity.map(Numeric::from)
}

/// The quantity of a state; of no rows, 0.
#[pg_extern(sql = false)]
fn usage_state_total(state: Internal) -> Option<Numeric> {
    // SAFETY: the argument is a state or NULL.
    match unsafe { state.get::<Running>() } {
        Some(state) => quantity(state),
        None => Some(Numeric::from(crate::domain::foundation::Exact::ZERO)),
    }
}

/// The quantity of a state; of no rows, NULL.
#[pg_extern(sql = false)]
fn usage_state_quantity(state: Internal) -> Option<Numeric> {
    // SAFETY: the argument is a state or NULL.
    unsafe { state.get::<Running>() }.and_then(quantity)
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, rows, value};
    use pgrx::prelude::*;

    /// The aggregates over rows give the quantities that meters give over events: NULLs do not count, sums are
    /// exact at any length, numbers have no trailing zeros; of no rows only the maximum is NULL.
    #[pg_test]
    fn aggregates_give_what_meters_give() {
        // usage_count_add, usage_sum_add, usage_max_add
        let all = "SELECT billing.usage_count(*), billing.usage_count(v), billing.usage_sum(v), billing.usage_max(v)
            FROM (VALUES (1.50), (1.50), (NULL), (-3), (0.000000000001)) t (v)";
        assert_eq!(rows(all), ["5|4|0.000000000001|1.5"]);
        assert_eq!(rows(&format!("{all} WHERE v < 0")), ["1|1|-3|-3"]);
        assert_eq!(rows(&format!("{all} WHERE v > 9")), ["0|0|0|"]);
        // 28 nines twice and the smallest fraction: 41 digits
        let long = "SELECT billing.usage_sum(v) FROM (VALUES (9999999999999999999999999999),
            (9999999999999999999999999999), (0.000000000001)) t (v)";
        assert_eq!(value(long).as_deref(), Some("19999999999999999999999999998.000000000001"));
        // rules.md 1: 1,000 events of 400 tokens are 400,000 tokens; rating the sum gives 1.00
        let tokens = "SELECT billing.rate('{\"model\":\"per_unit\",\"unit_price\":\"0.0000025\"}', billing.usage_sum(400))
            FROM generate_series(1, 1000)";
        assert_eq!(value(tokens).as_deref(), Some("1"));
        // a moving frame starts each sum afresh
        let moving = "SELECT billing.usage_sum(v) OVER (ORDER BY v ROWS 1 PRECEDING), billing.usage_max(v) OVER (ORDER BY v ROWS 1 PRECEDING)
            FROM (VALUES (1), (2), (4)) t (v)";
        assert_eq!(rows(moving), ["1|1", "3|2", "6|4"]);
    }

    /// What is beyond sums: of no rows only what needs a value is NULL; averages divide once; the last is the last by
    /// time; a level counts for the time it was there; ranks are the nearest.
    #[pg_test]
    fn aggregates_give_more_than_sums() {
        // usage_min_add, usage_average_add, usage_latest_add, usage_weighted_sum_add, usage_percentile_add
        let all = "SELECT billing.usage_min(v), billing.usage_average(v), billing.usage_latest(v, at), billing.usage_percentile(v, 50),
                billing.usage_weighted_sum(v, at, '2026-06-01Z', '2026-06-02Z')
            FROM (VALUES (2.50, timestamptz '2026-06-01 12:00Z'), (-3, '2026-05-01Z'), (1, '2026-06-01 18:00Z'), (7, '2026-06-02Z'), (NULL, '2026-07-01Z')) t (v, at)";
        // 2.5 × 12 h − 3 × 24 h + 1 × 6 h; 7.5 / 4
        assert_eq!(rows(all), ["-3|1.875|7|1|-36"]);
        assert_eq!(rows(&format!("{all} WHERE v > 9")), ["||||0"]);
        let thirds =
            "SELECT billing.usage_average(v), billing.usage_average(-v) FROM (VALUES (1), (1), (0)) t (v)";
        assert_eq!(rows(thirds), ["0.666666666667|-0.666666666667"]);
        let long =
            "SELECT billing.usage_average(v) FROM (VALUES (9999999999999999999999999999), (0.5)) t (v)";
        assert_eq!(value(long).as_deref(), Some("4999999999999999999999999999.75"));
        // rules.md 10.3: of 720 hourly counts seven may be higher
        let hosts = |spike: u32| {
            value(&format!(
                "SELECT billing.usage_percentile(CASE WHEN h < {spike} THEN 100 ELSE 10 END, 99) FROM generate_series(0, 719) h"
            ))
        };
        assert_eq!((hosts(7).as_deref(), hosts(8).as_deref()), (Some("10"), Some("100")));
    }

    /// A value is present if the last operation on it added it, in whatever order the rows come.
    #[pg_test]
    fn unique_counts_take_operations() {
        // usage_unique_add
        let present = |order: &str| {
            value(&format!(
                "SELECT billing.usage_unique_count(v, at, op ORDER BY {order}) FROM (VALUES ('ann', timestamptz '2026-06-01Z', 'add'), ('bob', '2026-06-01Z', 'add'),
                    ('bob', '2026-06-03Z', 'remove'), ('bob', '2026-06-02Z', 'add'), ('cyd', '2026-06-01Z', 'remove'), ('cyd', '2026-06-01Z', 'add'), (NULL, '2026-06-01Z', 'add')) t (v, at, op)"
            ))
        };
        assert_eq!((present("at, op"), present("at DESC, op DESC")), (Some("1".into()), Some("1".into())));
        assert_eq!(
            value("SELECT billing.usage_unique_count(v, NULL, 'add') FROM (VALUES ('a')) t (v)").as_deref(),
            Some("0")
        );
    }

    /// Over the same events, usage() by meter and the aggregates by hand are one quantity for each aggregation.
    #[pg_test]
    fn aggregates_agree_with_usage() {
        let meters = ["count", "sum", "max", "unique_count"].map(|aggregation| {
            let value = if aggregation == "count" { "" } else { r#","value":"n""# };
            format!(r#"{{"key":"{aggregation}","event_type":"e","aggregation":"{aggregation}"{value},"dimensions":["model"]}}"#)
        });
        Spi::run("SET timezone = 'UTC'; SET billing.test_clock = '2023-12-01T00:00:00Z'; SELECT billing.install('test')").unwrap();
        rows(&format!("SELECT * FROM billing.catalog_apply('{{\"meters\":[{}]}}')", meters.join(",")));
        rows(r#"SELECT billing.customer_upsert('{"key":"acme","name":"Acme","currency":"USD"}')"#);
        let ingested = rows(
            "SELECT accepted, rejected FROM billing.ingest((SELECT json_agg(json_build_object('customer', 'acme', 'event_id', i::text, 'event_type', 'e',
                'occurred_at', '2023-11-16T00:00:00Z'::timestamptz + i * interval '10 minutes',
                'properties', json_build_object('model', 'm' || i % 2, 'n', (i % 7)::numeric / 8))) FROM generate_series(1, 100) i))",
        );
        assert_eq!(ingested, ["100|0"]);
        for aggregation in ["count", "sum", "max", "unique_count"] {
            let metered = rows(&format!(
                "SELECT dimensions->>'model' AS model, trim_scale(quantity) AS quantity
                 FROM billing.usage('acme', '{aggregation}', '2023-11-16', '2023-11-17', NULL, '{{model}}') ORDER BY 1"
            ));
            let argument = match aggregation {
                "count" => "*",
                "unique_count" => "trim_scale((properties->>'n')::numeric)::text",
                _ => "(properties->>'n')::numeric",
            };
            let by_hand = rows(&format!(
                "SELECT properties->>'model' AS model, billing.usage_{aggregation}({argument}) AS quantity FROM billing.usage_event
                 WHERE occurred_at < '2023-11-17' GROUP BY 1 ORDER BY 1"
            ));
            assert_eq!(metered.len(), 2);
            assert_eq!(metered, by_hand, "{aggregation}");
        }
    }

    /// What no usage number may be is refused with our code and a hint, where an event would be rejected.
    #[pg_test]
    fn aggregates_refuse_what_is_no_usage_number() {
        let hint =
            " HINT Usage numbers have at most 28 digits, 12 of them after the point; round() them first.";
        for (call, message) in [
            ("usage_sum('NaN'::numeric)", "ZB004 NaN is not an amount or a quantity"),
            ("usage_max('-Infinity'::numeric)", "ZB004 -Infinity is not an amount or a quantity"),
            ("usage_sum(0.0000000000001)", "ZB004 0.0000000000001 has more than 12 digits after the point"),
            ("usage_sum(12345678901234567890123456789)", "ZB004 a number needs more than 28 digits"),
            ("usage_max(12345678901234567890123456789)", "ZB004 a number needs more than 28 digits"),
            ("usage_min('NaN'::numeric)", "ZB004 NaN is not an amount or a quantity"),
            (
                "usage_average(0.0000000000001)",
                "ZB004 0.0000000000001 has more than 12 digits after the point",
            ),
        ] {
            assert_eq!(error_of(&format!("SELECT billing.{call}")), format!("{message}{hint}"));
        }
    }

    /// So is what is asked where it can't be, or is not the same in all rows.
    #[pg_test]
    fn aggregates_refuse_what_can_not_be_asked() {
        for (query, message) in [
            ("billing.usage_percentile(v, 0) FROM (VALUES (1)) t (v)", "ZB004 0 is not a percentile"),
            ("billing.usage_percentile(v, NULL) FROM (VALUES (1)) t (v)", "ZB004 the percentile is NULL"),
            (
                "billing.usage_percentile(v, v) FROM (VALUES (1), (2)) t (v)",
                "ZB004 one group asks for the percentiles 1 and 2",
            ),
            (
                "billing.usage_weighted_sum(1, now(), '2026-06-01Z', '2026-06-01Z')",
                "ZB004 2026-06-01T00:00:00Z until 2026-06-01T00:00:00Z is not a stretch of time",
            ),
            (
                "billing.usage_weighted_sum(1, '2026-05-01Z', '2026-06-01Z', u) FROM (VALUES (timestamptz '2026-07-01Z'), ('2026-08-01Z')) t (u)",
                "ZB004 one group asks for the stretches 2026-06-01T00:00:00Z to 2026-07-01T00:00:00Z and 2026-06-01T00:00:00Z to 2026-08-01T00:00:00Z",
            ),
            ("billing.usage_latest(1, 'infinity')", "ZB004 infinity is not an instant"),
            ("billing.usage_unique_count('a', now(), 'join')", "ZB004 operation \"join\" is not known"),
        ] {
            let found = error_of(&format!("SELECT {query}"));
            assert!(found.starts_with(message), "{query}: {found}");
        }
    }

    /// A unique count is exact and by key, as usage_value stores them: case counts, NULL does not, and a key
    /// stands for the text it is made of.
    #[pg_test]
    fn unique_counts_count_keys() {
        // usage_unique_add
        let count = |values: &str| {
            value(&format!("SELECT billing.usage_unique_count(v) FROM (VALUES {values}) t (v)"))
        };
        assert_eq!(count("('abc'), ('abc'), ('ABC'), (''), (NULL)").as_deref(), Some("3"));
        assert_eq!(count("('abc'), (billing_internal.key_of_text('abc')::text)").as_deref(), Some("1"));
        assert_eq!(count("(NULL::text)").as_deref(), Some("0"));
    }

    /// Partial states made anywhere merge to what one pass gives, also of groups without values.
    #[pg_test]
    fn aggregates_merge_in_parallel() {
        // usage_state_serial, usage_state_deserial and usage_state_combine between processes; usage_state_total
        // and usage_state_quantity at the end
        Spi::run(
            "CREATE TABLE tests.parallel_usage AS SELECT (i % 1000)::numeric / 8 AS v, i % 3 AS g, i AS n FROM generate_series(1, 20000) i;
             INSERT INTO tests.parallel_usage VALUES (NULL, 3, 0), (-9999999999999999999999999999, 4, 0);
             ANALYZE tests.parallel_usage;
             SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
        )
        .unwrap();
        let ours = "SELECT g, billing.usage_count(*), billing.usage_count(v), billing.usage_sum(v), billing.usage_max(v),
            billing.usage_unique_count(v::text),
            billing.usage_min(v), billing.usage_average(v), billing.usage_latest(v, timestamptz '2026-06-01Z' + n % 997 * interval '1 minute'), billing.usage_percentile(v, 90),
            billing.usage_weighted_sum(v % 1000000, '2026-06-01 12:00Z', '2026-06-01Z', '2026-06-02Z'), billing.usage_unique_count(v::text, '2026-06-01Z', CASE WHEN v * 8 % 2 = 0 THEN 'add' ELSE 'remove' END)
            FROM tests.parallel_usage GROUP BY g ORDER BY g";
        let plan = Spi::connect(|client| {
            let lines = client.select(&format!("EXPLAIN (COSTS OFF) {ours}"), None, &[]).unwrap();
            lines.map(|line| line.get::<String>(1).unwrap().unwrap()).collect::<Vec<_>>().join("\n")
        });
        assert!(plan.contains("Partial") && plan.contains("Gather"), "{plan}");
        let postgres = "SELECT g, count(*), count(v), coalesce(trim_scale(sum(v)), 0), trim_scale(max(v)), count(DISTINCT v),
            trim_scale(min(v)), trim_scale(round(sum(v)::numeric(60, 30) / count(v), 12)), trim_scale((array_agg(v ORDER BY n % 997 DESC, v DESC) FILTER (WHERE v IS NOT NULL))[1]),
            trim_scale((array_agg(v ORDER BY v) FILTER (WHERE v IS NOT NULL))[(count(v) * 9 + 9) / 10]), coalesce(trim_scale(sum(v % 1000000) * 12), 0), count(DISTINCT v) FILTER (WHERE v * 8 % 2 = 0)
            FROM tests.parallel_usage GROUP BY g ORDER BY g";
        let parallel = rows(ours);
        assert_eq!(parallel, rows(postgres));
        Spi::run("SET max_parallel_workers_per_gather = 0").unwrap();
        assert_eq!(parallel, rows(ours));
    }
}

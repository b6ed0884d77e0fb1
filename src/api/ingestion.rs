//! One ingest call between its statements. The call lives in this backend's memory under a handle; SQL asks
//! it for keys, events and deltas, and tells it what the tables said. `billing_internal.ingest_call()` in
//! sql/ext/20_ingestion.sql is the only caller and shows the whole order.

use crate::api::metering::{current_meters, delta_row};
use crate::domain::foundation::Fault;
use crate::domain::foundation::decimal::quoted;
use crate::domain::foundation::instant::Instant;
use crate::domain::ingestion::limit::{Level, Limit, Verdict};
use crate::domain::ingestion::{Event, EventParts, Format};
use crate::domain::metering::call::{Call, Resolution, Row, reason};
use crate::domain::metering::delta::BucketMinutes;
use crate::pg::instant::{from_timestamptz, to_timestamptz};
use crate::pg::{FaultJson, Numeric};
use pgrx::datum::{Array, TimestampWithTimeZone, Uuid};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Calls kept at most: one is in flight, the others were left behind by errors.
const CALLS_MAX: usize = 4;

thread_local! {
    static CALLS: RefCell<BTreeMap<i64, Call>> = const { RefCell::new(BTreeMap::new()) };
    /// Starts of months of which this backend has learned that they have their partitions.
    static MONTHS: RefCell<BTreeSet<Instant>> = const { RefCell::new(BTreeSet::new()) };
}

fn keep(call: Call) -> i64 {
    CALLS.with_borrow_mut(|calls| {
        let handle = calls.last_key_value().map_or(1, |(last, _)| last + 1);
        calls.insert(handle, call);
        while calls.len() > CALLS_MAX {
            calls.pop_first();
        }
        handle
    })
}

fn with_call<T>(handle: i64, work: impl FnOnce(&mut Call) -> Result<T, Fault>) -> T {
    let result = CALLS.with_borrow_mut(|calls| calls.get_mut(&handle).map(work));
    match result {
        Some(Ok(value)) => value,
        Some(Err(fault)) => error!("ingest call {handle}: {fault}"),
        None => error!("ingest call {handle} is not open"),
    }
}

fn pg_uuid(uuid: uuid::Uuid) -> Uuid {
    Uuid::from_bytes(*uuid.as_bytes())
}

fn domain_uuid(uuid: Uuid) -> uuid::Uuid {
    uuid::Uuid::from_bytes(*uuid.as_bytes())
}

fn pg_instant(at: Instant) -> TimestampWithTimeZone {
    to_timestamptz(at).expect("years 1 to 9999 fit a timestamptz")
}

fn read_document(document: &str, format: &str) -> Result<Call, Fault> {
    let Some(format) = Format::named(format) else {
        let names = Format::ALL.map(Format::name).join(", ");
        return Err(Fault::value(format!("event format {} is not known", quoted(format)))
            .with_hint(format!("Use one of {names}.")));
    };
    Call::read(format, document, current_meters())
}

/// Reads and measures a document in a format; NULL where `call_read_error` says why it is not one.
#[pg_extern(sql = false)]
fn call_read(document: &str, format: &str) -> Option<i64> {
    read_document(document, format).ok().map(keep)
}

#[pg_extern(sql = false)]
fn call_read_error(document: &str, format: &str) -> Option<String> {
    read_document(document, format).err().as_ref().map(FaultJson::text)
}

/// Reads and measures events that were refused before, each as it was kept and in its own format.
#[pg_extern(sql = false)]
fn call_read_kept<'a>(raws: Array<'a, &'a str>, formats: Array<'a, &'a str>) -> i64 {
    if raws.len() != formats.len() {
        error!("every kept event has a format");
    }
    let (raws, formats): (Vec<_>, Vec<_>) = (raws.iter().collect(), formats.iter().collect());
    let texts = raws.iter().zip(&formats).map(|(raw, format)| {
        let format = format.and_then(Format::named).unwrap_or_else(|| error!("a kept event has no format"));
        (format, raw.unwrap_or_default())
    });
    keep(Call::read_each(texts, current_meters()))
}

/// Whether so many more events may pass under a limit: then what stands; else how long to wait, and neither if
/// they never fit.
#[pg_extern(sql = false)]
fn limit_check(
    events_per_second: Numeric,
    burst: i32,
    level: Option<Numeric>,
    level_at: Option<TimestampWithTimeZone>,
    now: TimestampWithTimeZone,
    events: i64,
) -> TableIterator<
    'static,
    (
        name!(level, Option<Numeric>),
        name!(level_at, Option<TimestampWithTimeZone>),
        name!(wait_ms, Option<i64>),
    ),
> {
    let verdict = (|| {
        let limit = Limit::new(events_per_second.value?, i64::from(burst))?;
        let level = match (level, level_at.and_then(from_timestamptz)) {
            (Some(events), Some(at)) => Some(Level { events: events.value?, at }),
            _ => None,
        };
        let now = from_timestamptz(now).ok_or_else(|| Fault::value("the clock stands at no instant"))?;
        Ok::<_, Fault>(limit.check(level, now, events))
    })()
    .unwrap_or_else(|fault| error!("a stored limit is broken: {fault}"));
    TableIterator::once(match verdict {
        Verdict::Pass(level) => (Some(Numeric::from(level.events)), Some(pg_instant(level.at)), None),
        Verdict::Wait(ms) => (None, None, Some(ms)),
        Verdict::Never => (None, None, None),
    })
}

/// Why a limit can't be; NULL if it can.
#[pg_extern(sql = false)]
fn limit_error(events_per_second: Numeric, burst: i32) -> Option<String> {
    let limit = events_per_second.value.and_then(|rate| Limit::new(rate, i64::from(burst)));
    limit.err().as_ref().map(FaultJson::text)
}

fn read_event(parts: [&str; 4], occurred_at: TimestampWithTimeZone, bill_to: Option<&str>) -> Call {
    let [customer, event_type, event_id, properties] = parts;
    let Some(occurred_at) = from_timestamptz(occurred_at) else {
        // An infinite instant has no text that the other readers would take either.
        let row = Row {
            customer: Some(customer),
            event_id: Some(event_id),
            event_type: Some(event_type),
            occurred_at: Some("infinity"),
            bill_to,
            properties: Some(properties),
        };
        return Call::read_rows([row], current_meters());
    };
    let parts = EventParts { customer, event_id, event_type, occurred_at, bill_to, properties };
    Call::read_event(parts, current_meters())
}

/// Reads and measures one event given in parts.
#[pg_extern(sql = false)]
fn call_read_event(
    customer: &str,
    event_type: &str,
    event_id: &str,
    occurred_at: TimestampWithTimeZone,
    properties: &str,
    bill_to: Option<&str>,
) -> i64 {
    keep(read_event([customer, event_type, event_id, properties], occurred_at, bill_to))
}

/// One event of a customer that is known, for whose key it only remains to be seen whether it is new; NULL, and
/// nothing is kept, where it can't be stored. What tables need of it are values, not rows: a function that
/// returns rows costs a statement as much as storing one.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn call_one(
    customer_id: i64,
    minutes: i16,
    earliest: TimestampWithTimeZone,
    latest: TimestampWithTimeZone,
    customer: &str,
    event_type: &str,
    event_id: &str,
    occurred_at: TimestampWithTimeZone,
    properties: &str,
) -> Option<i64> {
    let mut call = read_event([customer, event_type, event_id, properties], occurred_at, None);
    if call.rejections().is_empty() {
        let instants = (from_timestamptz(earliest), from_timestamptz(latest));
        let (Some(earliest), Some(latest)) = instants else { error!("an event age has finite ends") };
        BucketMinutes::new(minutes)
            .map(|minutes| Resolution::Found { customer_id, minutes, earliest, latest })
            .and_then(|found| call.resolve(&[found]))
            .unwrap_or_else(|fault| error!("a customer is broken: {fault}"));
    }
    call.rejections().is_empty().then(|| keep(call))
}

fn with_one<T>(handle: i64, value: impl FnOnce(&Event<'static>) -> T) -> T {
    with_call(handle, |call| match call.keys()[..] {
        [(_, event)] => Ok(value(event)),
        _ => Err(Fault::value("the call is not of one event that can be stored")),
    })
}

/// The month of the event, unless it is known to have its partitions.
#[pg_extern(sql = false)]
fn call_one_month(handle: i64) -> Option<TimestampWithTimeZone> {
    let month = with_one(handle, |event| event.occurred_at.month_start());
    (!MONTHS.with_borrow(|known| known.contains(&month))).then(|| pg_instant(month))
}

#[pg_extern(sql = false)]
fn call_one_key(handle: i64) -> Uuid {
    with_one(handle, |event| pg_uuid(event.event_key))
}

#[pg_extern(sql = false)]
fn call_one_hash(handle: i64) -> i64 {
    with_one(handle, |event| event.content_hash)
}

#[pg_extern(sql = false)]
fn call_one_properties(handle: i64) -> String {
    with_one(handle, |event| event.properties.clone())
}

/// Tells a call that the key of its one event was new. Always true: what is done is a boolean here, so that an expression
/// of PL/pgSQL can do it, where PERFORM would cost a statement.
#[pg_extern(sql = false)]
fn call_one_accept(handle: i64) -> bool {
    with_call(handle, |call| {
        let new = call.keys().into_iter().map(|(id, event)| (id, event.event_key)).collect();
        match call.accept(&new)?.is_empty() {
            true => Err(Fault::value("the call is not of one event that can be stored")),
            false => Ok(true),
        }
    })
}

/// Closes a call of which nothing more is asked; whether it was open.
#[pg_extern(sql = false)]
fn call_forget(handle: i64) -> bool {
    CALLS.with_borrow_mut(|calls| calls.remove(&handle).is_some())
}

/// Reads and measures rows of `usage_event_input`; the arrays are columns of equal length.
#[pg_extern(sql = false)]
fn call_read_rows<'a>(
    customers: Array<'a, &'a str>,
    event_ids: Array<'a, &'a str>,
    event_types: Array<'a, &'a str>,
    occurred_at: Array<'a, &'a str>,
    bill_tos: Array<'a, &'a str>,
    properties: Array<'a, &'a str>,
) -> i64 {
    let columns = [&customers, &event_ids, &event_types, &occurred_at, &bill_tos, &properties];
    if columns.iter().any(|column| column.len() != customers.len()) {
        error!("the columns of the events have different lengths");
    }
    let columns = columns.map(|column| column.iter().collect::<Vec<Option<&str>>>());
    let rows = (0..customers.len()).map(|at| Row {
        customer: columns[0][at],
        event_id: columns[1][at],
        event_type: columns[2][at],
        occurred_at: columns[3][at],
        bill_to: columns[4][at],
        properties: columns[5][at],
    });
    keep(Call::read_rows(rows, current_meters()))
}

/// Whom the events are about, each once, in order of first appearance.
#[pg_extern(sql = false)]
fn call_parties(
    handle: i64,
) -> TableIterator<'static, (name!(n, i32), name!(customer, String), name!(bill_to, Option<String>))> {
    let parties = with_call(handle, |call| Ok(call.parties().to_vec()));
    TableIterator::new(
        parties.into_iter().enumerate().map(|(n, party)| (n as i32, party.customer, party.bill_to)),
    )
}

/// Measures the call again, with the meters loaded since.
#[pg_extern(sql = false)]
fn call_measure_again(handle: i64) {
    let meters = current_meters();
    with_call(handle, |call| call.measure_again(meters));
}

/// Takes the parties' resolutions: arrays in the order of `call_parties`; a fault is a reason word. Gives the
/// UTC months that need partitions and are not known to have them; NULL if there is none.
#[pg_extern(sql = false)]
fn call_resolve(
    handle: i64,
    customer_ids: Vec<Option<i64>>,
    minutes: Vec<Option<i16>>,
    earliest: Vec<Option<TimestampWithTimeZone>>,
    latest: Vec<Option<TimestampWithTimeZone>>,
    faults: Vec<Option<String>>,
) -> Option<Vec<TimestampWithTimeZone>> {
    let resolution = |at: usize| match faults[at].as_deref() {
        Some(reason::UNKNOWN_CUSTOMER) => Ok(Resolution::UnknownCustomer),
        Some(_) => Ok(Resolution::UnknownBillTo),
        None => {
            let instants = (earliest[at].and_then(from_timestamptz), latest[at].and_then(from_timestamptz));
            match (customer_ids[at], minutes[at], instants) {
                (Some(customer_id), Some(minutes), (Some(earliest), Some(latest))) => Ok(Resolution::Found {
                    customer_id,
                    minutes: BucketMinutes::new(minutes)?,
                    earliest,
                    latest,
                }),
                _ => Err(Fault::value("a resolved party has a customer, a bucket width and an event age")),
            }
        }
    };
    let months = with_call(handle, |call| {
        let resolutions = (0..customer_ids.len()).map(resolution).collect::<Result<Vec<_>, _>>()?;
        call.resolve(&resolutions)?;
        Ok(call.months())
    });
    let unknown: Vec<Instant> =
        MONTHS.with_borrow(|known| months.into_iter().filter(|month| !known.contains(month)).collect());
    (!unknown.is_empty()).then(|| unknown.into_iter().map(pg_instant).collect())
}

/// The keys to insert, sorted.
#[pg_extern(sql = false)]
fn call_keys(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(customer_id, i64),
        name!(event_key, Uuid),
        name!(occurred_at, TimestampWithTimeZone),
        name!(content_hash, i64),
    ),
> {
    let rows = with_call(handle, |call| {
        let keys = call.keys().into_iter();
        Ok(keys
            .map(|(id, e)| (id, pg_uuid(e.event_key), pg_instant(e.occurred_at), e.content_hash))
            .collect::<Vec<_>>())
    });
    TableIterator::new(rows)
}

/// Takes the keys that were new, and gives their events to store.
#[pg_extern(sql = false)]
fn call_accept(
    handle: i64,
    customer_ids: Vec<i64>,
    event_keys: Vec<Uuid>,
) -> TableIterator<
    'static,
    (
        name!(customer_id, i64),
        name!(event_key, Uuid),
        name!(occurred_at, TimestampWithTimeZone),
        name!(event_type, String),
        name!(event_id, String),
        name!(bill_to, Option<String>),
        name!(properties, String),
    ),
> {
    let new: HashSet<(i64, uuid::Uuid)> =
        customer_ids.into_iter().zip(event_keys.into_iter().map(domain_uuid)).collect();
    let rows = with_call(handle, |call| {
        let events = call.accept(&new)?;
        Ok(events
            .into_iter()
            .map(|(id, e)| {
                (
                    id,
                    pg_uuid(e.event_key),
                    pg_instant(e.occurred_at),
                    e.event_type.to_string(),
                    e.event_id.to_string(),
                    e.bill_to.as_deref().map(str::to_string),
                    e.properties.clone(),
                )
            })
            .collect::<Vec<_>>())
    });
    TableIterator::new(rows)
}

/// What the accepted events add to usage.
#[pg_extern(sql = false)]
fn call_deltas(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(customer_id, i64),
        name!(meter_id, i32),
        name!(bucket_minutes, i16),
        name!(bucket_start, TimestampWithTimeZone),
        name!(dimension_set_id, i64),
        name!(dimensions, String),
        name!(events, i64),
        name!(quantity, Option<Numeric>),
        name!(moment, Option<Numeric>),
        name!(placed_at, Option<TimestampWithTimeZone>),
        name!(event_key, Option<Uuid>),
        name!(value_keys, Option<Vec<Uuid>>),
    ),
> {
    let deltas = with_call(handle, |call| call.deltas());
    TableIterator::new(deltas.rows.into_iter().map(delta_row))
}

/// Whether there are keys whose stored content has to be looked up.
#[pg_extern(sql = false)]
fn call_has_known(handle: i64) -> bool {
    with_call(handle, |call| Ok(!call.known().is_empty()))
}

/// Whether there are events to keep aside.
#[pg_extern(sql = false)]
fn call_has_rejections(handle: i64) -> bool {
    with_call(handle, |call| Ok(!call.rejections().is_empty()))
}

/// Remembers that the partitions of a month are there, once a transaction other than its own had made them.
#[pg_extern(sql = false)]
fn month_learn(month: TimestampWithTimeZone) {
    MONTHS.with_borrow_mut(|months| months.extend(from_timestamptz(month)));
}

/// The keys whose stored content has to be looked up.
#[pg_extern(sql = false)]
fn call_known(handle: i64) -> TableIterator<'static, (name!(customer_id, i64), name!(event_key, Uuid))> {
    let known = with_call(handle, |call| Ok(call.known()));
    TableIterator::new(known.into_iter().map(|(customer_id, key)| (customer_id, pg_uuid(key))))
}

/// Takes the stored content of the known keys, of all their revisions: the same is a duplicate, other is
/// conflicting.
#[pg_extern(sql = false)]
fn call_judge(handle: i64, customer_ids: Vec<i64>, event_keys: Vec<Uuid>, content_hashes: Vec<i64>) {
    let keys = customer_ids.into_iter().zip(event_keys.into_iter().map(domain_uuid));
    let mut stored: HashMap<(i64, uuid::Uuid), Vec<i64>> = HashMap::new();
    for (key, hash) in keys.zip(content_hashes) {
        stored.entry(key).or_default().push(hash);
    }
    with_call(handle, |call| call.judge(&stored));
}

/// The events to keep aside, whole.
#[pg_extern(sql = false)]
fn call_rejections(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(customer, Option<String>),
        name!(event_id, Option<String>),
        name!(reason, String),
        name!(message, String),
        name!(raw, String),
        name!(format, String),
    ),
> {
    let rejections = with_call(handle, |call| Ok(call.rejections().to_vec()));
    TableIterator::new(rejections.into_iter().map(|r| {
        let format = r.format.name().to_string();
        (r.customer, r.event_id, r.reason.to_string(), r.message, r.raw, format)
    }))
}

/// Refuses events that are not of one customer, type and stretch of time, and ids that stand twice.
#[pg_extern(sql = false)]
fn call_confine(
    handle: i64,
    customer_id: i64,
    event_type: &str,
    from_at: TimestampWithTimeZone,
    until_at: TimestampWithTimeZone,
) {
    let instants = (from_timestamptz(from_at), from_timestamptz(until_at));
    let (Some(from), Some(until)) = instants else { error!("a stretch of time has finite ends") };
    with_call(handle, |call| call.confine(customer_id, event_type, from, until));
}

/// The events that can be stored, with their places in the call.
#[pg_extern(sql = false)]
fn call_contents(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(place, i32),
        name!(event_key, Uuid),
        name!(event_id, String),
        name!(occurred_at, TimestampWithTimeZone),
        name!(content_hash, i64),
    ),
> {
    let rows = with_call(handle, |call| {
        let row = |(at, e): (usize, &crate::domain::ingestion::Event<'_>)| {
            (
                at as i32,
                pg_uuid(e.event_key),
                e.event_id.to_string(),
                pg_instant(e.occurred_at),
                e.content_hash,
            )
        };
        Ok(call.contents().map(row).collect::<Vec<_>>())
    });
    TableIterator::new(rows)
}

/// What became of each event so far, by its place in the call.
#[pg_extern(sql = false)]
fn call_outcomes(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(place, i32),
        name!(outcome, String),
        name!(reason, Option<String>),
        name!(message, Option<String>),
    ),
> {
    let rows = with_call(handle, |call| {
        let text = |text: Option<&str>| text.map(str::to_string);
        let outcomes = call.outcomes().into_iter().enumerate();
        Ok(outcomes
            .map(|(at, o)| (at as i32, o.outcome.to_string(), text(o.reason), text(o.message)))
            .collect::<Vec<_>>())
    });
    TableIterator::new(rows)
}

/// The counts, which sum to the events of the call; and its end: the handle is closed.
#[pg_extern(sql = false)]
fn call_end(
    handle: i64,
) -> TableIterator<
    'static,
    (name!(accepted, i64), name!(duplicate, i64), name!(conflicting, i64), name!(rejected, i64)),
> {
    let outcome = with_call(handle, |call| Ok(call.outcome()));
    CALLS.with_borrow_mut(|calls| calls.remove(&handle));
    TableIterator::once((outcome.accepted, outcome.duplicate, outcome.conflicting, outcome.rejected))
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, fault, rows, value};
    use pgrx::prelude::*;

    /// One event of a document, at a time on 2023-11-16 or as given.
    fn event(customer: &str, id: &str, at: &str, properties: &str) -> String {
        format!(
            r#"{{"customer":"{customer}","event_id":"{id}","event_type":"e","occurred_at":"{at}","properties":{properties}}}"#
        )
    }

    fn load_meters(ids: &str) {
        let sum = r#"{"key":"t","event_type":"e","aggregation":"sum","value":"a","dimensions":["model"]}"#;
        let count = r#"{"key":"c","event_type":"e","aggregation":"count"}"#;
        rows(&format!(
            "SELECT billing_internal.meters_load('{ids}', '{ids}', array_fill('-infinity'::timestamptz, ARRAY[cardinality('{ids}'::int[])]),
                array_fill('infinity'::timestamptz, ARRAY[cardinality('{ids}'::int[])]), (ARRAY['{sum}','{count}'])[:cardinality('{ids}'::int[])])"
        ));
    }

    fn read(events: &[String]) -> String {
        value(&format!("SELECT billing_internal.call_read('[{}]')", events.join(","))).expect("a handle")
    }

    fn key(id: &str) -> String {
        value(&format!("SELECT billing_internal.key_of_text('{id}')")).unwrap()
    }

    /// Resolves acme (customer 7, hours, five years back) and says that nobody is unknown.
    fn resolve(handle: &str) -> Vec<String> {
        rows(&format!(
            "SELECT unnest(billing_internal.call_resolve({handle}, '{{7,NULL}}', '{{60,NULL}}', '{{2018-11-16,NULL}}', '{{2023-12-31,NULL}}', '{{NULL,unknown_customer}}'))"
        ))
    }

    /// A whole call as ingest_call() makes it. Parties come in order of appearance, months and keys are those
    /// of storable events; a key that was new is accepted, the others are judged by their stored content;
    /// deltas are what was accepted; the counts sum to the events of the call.
    #[pg_test]
    fn an_ingest_call_accounts_for_every_event() {
        // call_read, call_resolve
        load_meters("{5}");
        let handle = read(&[
            event("acme", "1", "2023-11-16T10:00:00Z", r#"{"a":2,"model":"gpt-4"}"#),
            event("acme", "1", "2023-11-16T10:00:00Z", r#"{"model":"gpt-4","a":2.0}"#),
            event("acme", "1", "2023-11-16T10:00:00Z", r#"{"model":"gpt-4","a":3}"#),
            event("nobody", "2", "2023-11-16T10:00:00Z", "{}"),
            event("acme", "3", "2023-12-01T00:30:00+01:00", r#"{"a":0.5,"model":"gpt-4"}"#),
            event("acme", "4", "2023-11-16T10:30:00Z", r#"{"a":1}"#),
            event("acme", "5", "2023-12-01T10:30:00Z", r#"{"a":1}"#),
            event("acme", "6", "2010-11-16T10:30:00Z", "{}"),
        ]);
        let ask = |function: &str| rows(&format!("SELECT * FROM billing_internal.{function}({handle})"));
        assert_eq!(ask("call_parties"), ["0|acme|", "1|nobody|"]);
        assert_eq!(resolve(&handle), ["2023-11-01T00:00:00+00:00", "2023-12-01T00:00:00+00:00"]);

        let keys = rows(&format!(
            "SELECT customer_id, event_key, occurred_at FROM billing_internal.call_keys({handle})"
        ));
        let mut expected = [("1", "16T10:00:00"), ("3", "30T23:30:00"), ("4", "16T10:30:00")]
            .map(|(id, at)| format!("7|{}|2023-11-{at}+00:00", key(id)))
            .to_vec();
        expected.push(format!("7|{}|2023-12-01T10:30:00+00:00", key("5")));
        expected.sort();
        assert_eq!(keys, expected);
        let hash = |id: &str| {
            let keys = format!("billing_internal.call_keys({handle})");
            value(&format!("SELECT content_hash FROM {keys} WHERE event_key = '{}'", key(id))).unwrap()
        };
        let (first, fourth) = (hash("1"), hash("4"));

        let accepted = rows(&format!(
            "SELECT event_id, customer_id, event_type, bill_to, properties FROM billing_internal.call_accept({handle}, '{{7,7}}', '{{{},{}}}')",
            key("1"),
            key("3")
        ));
        assert_eq!(accepted, [r#"1|7|e||{"a":2,"model":"gpt-4"}"#, r#"3|7|e||{"a":0.5,"model":"gpt-4"}"#]);
        let deltas = rows(&format!(
            "SELECT meter_id, bucket_minutes, bucket_start, dimensions, events, quantity FROM billing_internal.call_deltas({handle}) ORDER BY bucket_start"
        ));
        let model = r#"{"model":"gpt-4"}"#;
        assert_eq!(
            deltas,
            [
                format!("5|60|2023-11-16T10:00:00+00:00|{model}|1|2"),
                format!("5|60|2023-11-30T23:00:00+00:00|{model}|1|0.5")
            ]
        );

        // the first "1" was new; its repeats, and 4 and 5, are known
        let mut known = ["1", "4", "5"].map(|id| format!("7|{}", key(id)));
        known.sort();
        let has = |what: &str| value(&format!("SELECT billing_internal.{what}({handle})")).unwrap();
        assert_eq!((has("call_has_known").as_str(), has("call_has_rejections").as_str()), ("true", "true"));
        assert_eq!(ask("call_known"), known);
        rows(&format!(
            "SELECT billing_internal.call_judge({handle}, '{{7,7,7}}', '{{{},{},{}}}', '{{{first},{fourth},42}}')",
            key("1"),
            key("4"),
            key("5")
        ));
        let reasons = rows(&format!(
            "SELECT reason, customer, event_id FROM billing_internal.call_rejections({handle})"
        ));
        assert_eq!(
            reasons,
            ["unknown_customer|nobody|2", "too_old|acme|6", "conflicting|acme|1", "conflicting|acme|5"]
        );
        assert_eq!((has("call_has_known").as_str(), has("call_has_rejections").as_str()), ("false", "true"));
        assert_eq!(ask("call_end"), ["2|2|2|2"]);
        let closed = error_of(&format!("SELECT * FROM billing_internal.call_end({handle})"));
        assert_eq!(closed, format!("XX000 ingest call {handle} is not open"));
    }

    /// A backend asks for the partitions of a month until it was told that they are there.
    #[pg_test]
    fn months_are_learned_by_backend() {
        load_meters("{5}");
        let unknown = || {
            let months = ["2023-11-16T10:00:00Z", "2023-12-01T10:00:00Z"];
            let handle = read(&months.map(|at| event("acme", at, at, "{}")));
            value(&format!(
                "SELECT billing_internal.call_resolve({handle}, '{{7}}', '{{60}}', '{{2018-11-16}}', '{{2023-12-31}}', '{{NULL}}')"
            ))
        };
        let both = r#"{"2023-11-01 00:00:00+00","2023-12-01 00:00:00+00"}"#;
        assert_eq!(unknown().as_deref(), Some(both));
        rows("SELECT billing_internal.month_learn('2023-11-01Z')");
        assert_eq!(unknown().as_deref(), Some(r#"{"2023-12-01 00:00:00+00"}"#));
        rows("SELECT billing_internal.month_learn('infinity'), billing_internal.month_learn('2023-12-01Z')");
        assert_eq!(unknown(), None);
    }

    /// A call can be confined to one customer, type and stretch of time: what is not of it, and an id that
    /// stands twice, is refused at its place; the others can be stored.
    #[pg_test]
    fn a_call_is_confined() {
        load_meters("{5}");
        let at = "2023-11-16T10:00:00Z";
        let handle = read(&[
            event("acme", "1", at, "{}"),
            event("acme", "2", "2023-11-16T11:00:00Z", "{}"),
            event("acme", "1", at, "{}"),
            event("nobody", "3", at, "{}"),
        ]);
        resolve(&handle);
        rows(&format!(
            "SELECT billing_internal.call_confine({handle}, 7, 'e', '2023-11-16 10:00+00', '2023-11-16 11:00+00')"
        ));
        let contents = rows(&format!(
            "SELECT place, event_key, event_id, occurred_at, content_hash IS NOT NULL AS hashed FROM billing_internal.call_contents({handle})"
        ));
        assert_eq!(contents, [format!("0|{}|1|2023-11-16T10:00:00+00:00|true", key("1"))]);
        let outcomes = rows(&format!("SELECT * FROM billing_internal.call_outcomes({handle})"));
        assert_eq!(
            outcomes,
            [
                "0|open||",
                "1|rejected|outside|occurred_at: 2023-11-16T11:00:00Z is not in [2023-11-16T10:00:00Z, 2023-11-16T11:00:00Z)",
                r#"2|rejected|repeated|event_id: "1" stands twice"#,
                r#"3|rejected|unknown_customer|customer: "nobody" is not known"#,
            ]
        );
        let endless = error_of(&format!(
            "SELECT billing_internal.call_confine({handle}, 7, 'e', '-infinity', 'infinity')"
        ));
        assert_eq!(endless, "XX000 a stretch of time has finite ends");
    }

    /// A meter that appeared after the events were read counts them, once they are measured again.
    #[pg_test]
    fn a_call_is_measured_again() {
        load_meters("{5}");
        let handle = read(&[event("acme", "1", "2023-11-16T10:00:00Z", r#"{"a":2}"#)]);
        load_meters("{5,6}");
        rows(&format!("SELECT billing_internal.call_measure_again({handle})"));
        rows(&format!(
            "SELECT * FROM billing_internal.call_resolve({handle}, '{{7}}', '{{60}}', '{{2018-11-16}}', '{{2023-12-31}}', '{{NULL}}')"
        ));
        rows(&format!("SELECT * FROM billing_internal.call_accept({handle}, '{{7}}', '{{{}}}')", key("1")));
        let deltas = rows(&format!(
            "SELECT meter_id, events, quantity FROM billing_internal.call_deltas({handle}) ORDER BY meter_id"
        ));
        assert_eq!(deltas, ["5|1|2", "6|1|"]);
    }

    /// What is no batch of events gives NULL and its reason, and the facade raises it.
    #[pg_test]
    fn broken_documents_say_why() {
        let broken = r#"'{"customer":1'"#;
        assert_eq!(value(&format!("SELECT billing_internal.call_read({broken})")), None);
        let call = format!("SELECT billing_internal.call_read_error({broken})");
        assert_eq!(fault(&call), "ZB003 the events are not valid JSON near byte 13");
        assert_eq!(value("SELECT billing_internal.call_read_error('[]')"), None);
        let unknown = fault("SELECT billing_internal.call_read_error('[]', 'avro')");
        assert_eq!(unknown, r#"ZB004 event format "avro" is not known"#);
    }

    /// Events come in the forms that other systems write; what is refused is kept as it was sent, with its form,
    /// and can be read again in it.
    #[pg_test]
    fn kept_events_are_read_again() {
        let orb = |customer: &str| {
            format!(
                r#"{{"event_name":"e","idempotency_key":"1","timestamp":"2023-11-16T10:00:00Z","external_customer_id":{customer}}}"#
            )
        };
        let handle =
            value(&format!("SELECT billing_internal.call_read('{{\"events\":[{}]}}', 'orb')", orb("7")))
                .unwrap();
        let kept = rows(&format!(
            "SELECT reason, message, format, raw FROM billing_internal.call_rejections({handle})"
        ));
        let message = r#"external_customer_id: must be a string, not the number "7""#;
        assert_eq!(kept, [format!("bad_value|{message}|orb|{}", orb("7"))]);
        let native = event("acme", "2", "2023-11-16T10:00:00Z", "{}");
        let read = format!(
            "billing_internal.call_read_kept(ARRAY['{}','{native}','{{'], '{{orb,native,native}}')",
            orb("\"acme\"")
        );
        let handle = value(&format!("SELECT {read}")).unwrap();
        assert_eq!(rows(&format!("SELECT * FROM billing_internal.call_parties({handle})")), ["0|acme|"]);
        let outcomes = rows(&format!("SELECT place, reason FROM billing_internal.call_outcomes({handle})"));
        assert_eq!(outcomes, ["0|", "1|", "2|bad_json"]);
    }

    /// A limit lets events pass while they fit and says how long to wait when they don't, or nothing if they
    /// never will. A limit that can't be says why.
    #[pg_test]
    fn limits_let_pass_or_say_when() {
        let check = |level: &str, events: i32| {
            rows(&format!(
                "SELECT * FROM billing_internal.limit_check(10, 5, {level}, '2023-11-16 10:00:00.05+00', {events})"
            ))
        };
        assert_eq!(check("NULL, NULL", 5), ["5|2023-11-16T10:00:00.05+00:00|"]);
        assert_eq!(check("4, '2023-11-16 10:00:00+00'", 1), ["4.5|2023-11-16T10:00:00.05+00:00|"]);
        assert_eq!(check("4, '2023-11-16 10:00:00+00'", 2), ["||50"]);
        assert_eq!(check("4, '2023-11-16 10:00:00+00'", 6), ["||"]);
        assert_eq!(value("SELECT billing_internal.limit_error(0.5, 1)"), None);
        let slow = fault("SELECT billing_internal.limit_error(0, 1)");
        assert_eq!(slow, "ZB004 0 events a second can't be a limit");
    }

    /// One event in parts is read like a document of one; an infinite time is a rejection, not an error.
    #[pg_test]
    fn single_events_are_read_in_parts() {
        let read = |at: &str| {
            value(&format!(
                "SELECT billing_internal.call_read_event('acme', 'e', '9', '{at}', '{{\"a\":1}}', 'acme-de')"
            ))
            .unwrap()
        };
        let handle = read("2023-11-16 10:00+00");
        assert_eq!(
            rows(&format!("SELECT * FROM billing_internal.call_parties({handle})")),
            ["0|acme|acme-de"]
        );
        let handle = read("infinity");
        assert!(rows(&format!("SELECT * FROM billing_internal.call_parties({handle})")).is_empty());
        let rejections = rows(&format!(
            "SELECT event_id, reason, message FROM billing_internal.call_rejections({handle})"
        ));
        assert_eq!(rejections, [r#"9|bad_time|occurred_at: "infinity" is not an instant"#]);
    }

    /// One event of a known customer is asked by values and says what a call of many would; what can't be stored leaves no
    /// call behind, and what is closed is not open.
    #[pg_test]
    fn one_event_is_asked_by_values() {
        load_meters("{5}");
        let call = |at: &str, properties: &str| {
            value(&format!(
                "SELECT billing_internal.call_one(7, 60::smallint, '2023-01-01Z', '2024-01-01Z', 'acme', 'e', '1', '{at}', '{properties}')"
            ))
        };
        assert_eq!(call("2022-12-31 23:59+00", "{}"), None);
        assert_eq!(call("infinity", "{}"), None);
        assert_eq!(call("2023-11-16 10:30+00", "[]"), None);
        let handle = call("2023-11-16 10:30+00", r#"{ "model": "gpt-4", "a": 2.0 }"#).expect("a handle");
        let ask = |what: &str| value(&format!("SELECT {what}({handle})"));
        assert_eq!(ask("billing_internal.call_one_month"), Some("2023-11-01 00:00:00+00".to_string()));
        rows("SELECT billing_internal.month_learn('2023-11-01Z')");
        assert_eq!(ask("billing_internal.call_one_month"), None);
        let many = read(&[event("acme", "1", "2023-11-16T10:30:00Z", r#"{"model":"gpt-4","a":2}"#)]);
        rows(&format!(
            "SELECT billing_internal.call_resolve({many}, '{{7}}', '{{60}}', '{{2023-01-01}}', '{{2024-01-01}}', '{{NULL}}')"
        ));
        assert_eq!(
            rows(&format!(
                "SELECT 7, billing_internal.call_one_key({handle}), '2023-11-16 10:30+00'::timestamptz, billing_internal.call_one_hash({handle})"
            )),
            rows(&format!("SELECT * FROM billing_internal.call_keys({many})"))
        );
        assert_eq!(
            ask("billing_internal.call_one_properties"),
            Some(r#"{"a":2,"model":"gpt-4"}"#.to_string())
        );
        assert_eq!(ask("billing_internal.call_one_accept"), Some("true".to_string()));
        rows(&format!("SELECT billing_internal.call_accept({many}, '{{7}}', '{{{}}}')", key("1")));
        let deltas = |handle: &str| rows(&format!("SELECT * FROM billing_internal.call_deltas({handle})"));
        assert_eq!(deltas(&handle).len(), 1);
        assert_eq!(deltas(&handle), deltas(&many));
        assert_eq!(ask("billing_internal.call_forget"), Some("true".to_string()));
        assert_eq!(ask("billing_internal.call_forget"), Some("false".to_string()));
        let closed = error_of(&format!("SELECT billing_internal.call_one_key({handle})"));
        assert!(closed.contains("is not open"), "{closed}");
    }

    /// Rows are read as columns: a time must be strict, as in documents; columns of other lengths are refused.
    #[pg_test]
    fn rows_are_read_as_columns() {
        let call = |ids: &str| {
            format!(
                "billing_internal.call_read_rows('{{acme,acme}}', '{ids}', '{{e,e}}', '{{2023-11-16T10:00:00Z,2023-11-16 10:00:00+00}}',
                 '{{NULL,NULL}}', ARRAY['{{\"a\":1}}',NULL])"
            )
        };
        let handle = value(&format!("SELECT {}", call("{1,2}"))).unwrap();
        assert_eq!(rows(&format!("SELECT * FROM billing_internal.call_parties({handle})")), ["0|acme|"]);
        let rejections =
            rows(&format!("SELECT event_id, reason FROM billing_internal.call_rejections({handle})"));
        assert_eq!(rejections, ["2|bad_time"]);
        let short = error_of(&format!("SELECT {}", call("{1}")));
        assert_eq!(short, "XX000 the columns of the events have different lengths");
    }
}

//! Meters compiled once per backend, and usage measured from stored events.

use crate::domain::foundation::hash::text_key;
use crate::domain::foundation::json::{self, Node};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::delta::{BucketMinutes, Delta, StoredEvent, stored_deltas};
use crate::domain::metering::meters::Version;
use crate::domain::metering::{Contribution, Measured, Meter, Meters};
use crate::pg::Numeric;
use crate::pg::instant::{from_timestamptz, to_timestamptz};
use pgrx::datum::{Array, TimestampWithTimeZone, Uuid};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    /// The catalogue's meters and the state of the catalogue they were read from.
    static METERS: RefCell<(String, Arc<Meters>)> = RefCell::new((String::new(), Arc::new(Meters::default())));
}

/// The meters that ingest feeds, as last loaded.
pub fn current_meters() -> Arc<Meters> {
    METERS.with_borrow(|(_, meters)| meters.clone())
}

/// The state of the catalogue whose meters are loaded; empty at first.
#[pg_extern(sql = false)]
fn meters_state() -> String {
    METERS.with_borrow(|(state, _)| state.clone())
}

/// Compiles the meters of a state of the catalogue: the stretches in which their versions hold.
#[pg_extern(sql = false)]
fn meters_load(
    state: String,
    ids: Vec<i32>,
    from_at: Vec<TimestampWithTimeZone>,
    until_at: Vec<TimestampWithTimeZone>,
    definitions: Array<&str>,
) {
    let meters = compile(&ids, &from_at, &until_at, &definitions)
        .unwrap_or_else(|fault| error!("a stored meter is broken: {fault}"));
    METERS.set((state, Arc::new(meters)));
}

fn compile(
    ids: &[i32],
    from_at: &[TimestampWithTimeZone],
    until_at: &[TimestampWithTimeZone],
    definitions: &Array<&str>,
) -> Result<Meters, Fault> {
    if [from_at.len(), until_at.len(), definitions.len()] != [ids.len(); 3] {
        return Err(Fault::value("every meter needs an id, a stretch of time and a definition"));
    }
    let version = |(at, definition): (usize, Option<&str>)| {
        Ok(Version {
            meter_id: ids[at],
            from: from_timestamptz(from_at[at]),
            until: from_timestamptz(until_at[at]),
            meter: read_meter(definition.unwrap_or_default())?,
        })
    };
    let versions = definitions.iter().enumerate().map(version).collect::<Result<Vec<_>, Fault>>()?;
    Ok(Meters::new(versions))
}

pub fn read_meter(definition: &str) -> Result<Meter, Fault> {
    Meter::read(&Node::root(&json::parse(definition)?))
}

/// A row of usage_delta.
pub type DeltaRow = (
    i64,
    i32,
    i16,
    TimestampWithTimeZone,
    i64,
    String,
    i64,
    Option<Numeric>,
    Option<Numeric>,
    Option<TimestampWithTimeZone>,
    Option<Uuid>,
    Option<Vec<Uuid>>,
);

/// A delta as a row of usage_delta.
pub fn delta_row(delta: Delta) -> DeltaRow {
    let keys: Vec<Uuid> = delta.value_keys.iter().map(|key| Uuid::from_bytes(*key.as_bytes())).collect();
    (
        delta.customer_id,
        delta.meter_id,
        delta.minutes.get(),
        to_timestamptz(delta.bucket_start).expect("years 1 to 9999 fit a timestamptz"),
        delta.dimension_set_id,
        delta.dimensions.to_string(),
        delta.events,
        delta.quantity.map(Numeric::from),
        delta.moment.map(Numeric::from),
        delta.position.map(|position| to_timestamptz(position.at).expect("as that of its bucket")),
        delta.position.map(|position| Uuid::from_bytes(*position.event_key.as_bytes())),
        (!keys.is_empty()).then_some(keys),
    )
}

/// The deltas of stored events on the given versions of meters: for rebuild, verify and recompute. The
/// arrays are columns of equal length, the first four of the meters. An event that a meter can't use does not count on it.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn stored_usage(
    meter_ids: Vec<i32>,
    from_at: Vec<TimestampWithTimeZone>,
    until_at: Vec<TimestampWithTimeZone>,
    definitions: Array<&str>,
    customer_ids: Vec<i64>,
    minutes: Vec<i16>,
    event_keys: Vec<Uuid>,
    event_types: Array<&str>,
    occurred_at: Vec<TimestampWithTimeZone>,
    bill_tos: Array<&str>,
    properties: Array<&str>,
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
    let deltas = (|| {
        let meters = compile(&meter_ids, &from_at, &until_at, &definitions)?;
        let texts = event_types.iter().zip(bill_tos.iter()).zip(properties.iter());
        let events = texts
            .enumerate()
            .map(|(at, ((event_type, bill_to), properties))| {
                Ok(StoredEvent {
                    customer_id: customer_ids[at],
                    minutes: BucketMinutes::new(minutes[at])?,
                    event_key: uuid::Uuid::from_bytes(*event_keys[at].as_bytes()),
                    event_type: event_type.unwrap_or_default(),
                    occurred_at: from_timestamptz(occurred_at[at])
                        .ok_or_else(|| Fault::value("a stored event has no instant"))?,
                    bill_to,
                    properties: properties.unwrap_or("{}"),
                })
            })
            .collect::<Result<Vec<_>, Fault>>()?;
        stored_deltas(events, &meters)
    })()
    .unwrap_or_else(|fault| error!("stored events can't be measured: {fault}"));
    TableIterator::new(deltas.rows.into_iter().map(delta_row))
}

/// What each stored event is on one meter: its place in the arrays (from 1), its dimensions and its value
/// (1 for a count; the value's key for a unique count, with 1 where it was added and 0 where it was removed).
/// Events that do not count are left out.
#[pg_extern(sql = false)]
fn measured_events(
    definition: &str,
    bill_tos: Array<&str>,
    properties: Array<&str>,
) -> TableIterator<
    'static,
    (name!(n, i32), name!(dimensions, String), name!(value, Option<Numeric>), name!(value_key, Option<Uuid>)),
> {
    let rows = (|| {
        let meter = read_meter(definition)?;
        let mut rows = Vec::new();
        for (at, (bill_to, properties)) in bill_tos.iter().zip(properties.iter()).enumerate() {
            let tree = json::parse(properties.unwrap_or("{}"))?;
            if let Measured::Counted { dimensions, value } = meter.measure(&tree, bill_to) {
                let (value, key) = match value {
                    Contribution::One => (Some(Numeric::from(Exact::ONE)), None),
                    Contribution::Number(value) => (Some(Numeric::from(value)), None),
                    Contribution::Key(key) => (None, Some(key)),
                    Contribution::Operation { key, removed } => {
                        (Some(Numeric::from(if removed { Exact::ZERO } else { Exact::ONE })), Some(key))
                    }
                };
                let key = key.map(|key| Uuid::from_bytes(*key.as_bytes()));
                rows.push((at as i32 + 1, dimensions.canonical(), value, key));
            }
        }
        Ok::<_, Fault>(rows)
    })()
    .unwrap_or_else(|fault| error!("stored events can't be measured: {fault}"));
    TableIterator::new(rows)
}

/// The stored key of a text: a canonical lower-case UUID as it is, any other text by 128 bits of its SHA-256.
#[pg_extern(sql = false)]
fn key_of_text(text: &str) -> Uuid {
    Uuid::from_bytes(*text_key(text).as_bytes())
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, rows, value};
    use pgrx::prelude::*;

    const SUM: &str =
        r#"{"key":"t","event_type":"e","aggregation":"sum","value":"a * 2","dimensions":["model"]}"#;
    const MAX: &str = r#"{"key":"m","event_type":"e","aggregation":"max","value":"a"}"#;
    const UNIQUE: &str = r#"{"key":"u","event_type":"e","aggregation":"unique_count","value":"a"}"#;

    /// A backend knows which state of the catalogue its meters are of: none at first, then the last one that
    /// loaded whole.
    #[pg_test]
    fn meters_are_loaded_by_state() {
        let state = || value("SELECT billing_internal.meters_state()");
        let load = |state: &str, ids: &str, definition: &str| {
            error_of(&format!(
                "SELECT billing_internal.meters_load('{state}', '{ids}', '{{-infinity}}', '{{infinity}}', ARRAY['{definition}'])"
            ))
        };
        assert_eq!(state().as_deref(), Some(""));
        assert_eq!(load("7/1", "{5}", SUM), "no error");
        assert_eq!(state().as_deref(), Some("7/1"));
        let short = load("8/1", "{5,6}", SUM);
        assert_eq!(
            short,
            "XX000 a stored meter is broken: every meter needs an id, a stretch of time and a definition"
        );
        assert_eq!(load("8/1", "{5}", "{}"), "XX000 a stored meter is broken: key: is missing");
        assert_eq!(state().as_deref(), Some("7/1"));
    }

    /// Stored events measured afresh, by customer, meter, bucket and dimensions: sums add, maxima compare,
    /// unique counts keep keys; 1.5 and 1.50 are one value; an event a meter can't use does not count on it.
    #[pg_test]
    fn stored_events_are_measured_afresh() {
        let usage = rows(&format!(
            "SELECT customer_id, meter_id, bucket_minutes, bucket_start, dimensions, events, quantity, cardinality(value_keys)
             FROM billing_internal.stored_usage('{{1,2,3}}', '{{-infinity,-infinity,-infinity}}', '{{infinity,infinity,infinity}}', ARRAY['{SUM}','{MAX}','{UNIQUE}'], '{{7,7,7,7}}', '{{60,60,60,15}}',
                ARRAY(SELECT billing_internal.key_of_text(i::text) FROM generate_series(1, 4) i), '{{e,e,e,e}}',
                '{{2023-11-16 10:59:59.999999+00,2023-11-16 10:00+00,2023-11-16 10:30+00,2023-11-16 10:59+00}}', '{{NULL,NULL,NULL,acme-de}}',
                ARRAY['{{\"a\":1.5,\"model\":\"gpt-4\"}}','{{\"a\":2,\"model\":\"gpt-4\"}}','{{\"model\":\"gpt-4\"}}','{{\"a\":1.50}}'])
             ORDER BY meter_id, bucket_start"
        ));
        let (hour, quarter) = ("2023-11-16T10:00:00+00:00", "2023-11-16T10:45:00+00:00");
        let own = r#"{"bill_to":"acme-de"}"#;
        assert_eq!(
            usage,
            [
                format!(r#"7|1|60|{hour}|{{"model":"gpt-4"}}|2|7|"#),
                format!("7|1|15|{quarter}|{own}|1|3|"),
                format!("7|2|60|{hour}|{{}}|2|2|"),
                format!("7|2|15|{quarter}|{own}|1|1.5|"),
                format!("7|3|60|{hour}|{{}}|2||2"),
                format!("7|3|15|{quarter}|{own}|1||1"),
            ]
        );
    }

    /// Each event on one meter: its place from 1, its dimensions, its value or the key of it.
    #[pg_test]
    fn events_are_measured_one_by_one() {
        let events = r#"ARRAY['{"a":1.5,"model":"gpt-4"}','{"model":"gpt-4"}','{"a":2}']"#;
        let measured = |meter: &str| {
            rows(&format!(
                "SELECT * FROM billing_internal.measured_events('{meter}', '{{NULL,NULL,acme-de}}', {events})"
            ))
        };
        assert_eq!(measured(SUM), [r#"1|{"model":"gpt-4"}|3|"#, r#"3|{"bill_to":"acme-de"}|4|"#]);
        let key = value("SELECT billing_internal.key_of_text('2')").unwrap();
        assert_eq!(measured(UNIQUE)[1], format!(r#"3|{{"bill_to":"acme-de"}}||{key}"#));
        let count = r#"{"key":"c","event_type":"e","aggregation":"count"}"#;
        assert_eq!(measured(count)[1], "2|{}|1|");
    }

    /// A canonical lower-case UUID is its own key; any other text, an upper-case UUID too, is 128 bits of its
    /// SHA-256 marked as UUIDv8 (ba7816bf… is that of 'abc').
    #[pg_test]
    fn keys_of_texts() {
        let key = |text: &str| value(&format!("SELECT billing_internal.key_of_text('{text}')")).unwrap();
        assert_eq!(key("abc"), "ba7816bf-8f01-8fea-8141-40de5dae2223");
        let uuid = "018f4e2a-7c1b-7def-8a2b-0123456789ab";
        assert_eq!(key(uuid), uuid);
        let upper = key(&uuid.to_uppercase());
        assert!(upper != uuid && upper.as_bytes()[14] == b'8', "{upper}");
    }
}

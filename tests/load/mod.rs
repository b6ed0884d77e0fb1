//! The workload of the race and crash tests: customers in several zones, meters of every kind, events that a
//! seed determines, clients that send them in overlapping, shuffled batches until all are acknowledged, and
//! what the tables must hold afterwards, told by SQL that shares nothing with the engine.
#![allow(dead_code)]
// Tests measure real time and draw their seed from the clock.
#![allow(clippy::disallowed_methods)]

use crate::common::Db;
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// splitmix64: small, and the same numbers for a seed everywhere.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }

    /// A generator of its own for one client, thread or round.
    pub fn fork(&mut self) -> Rng {
        Rng::new(self.next())
    }
}

/// The seed of a test: RACES_SEED, else one drawn from the clock. Printed, so that a failure can be repeated.
pub fn seed(test: &str) -> Rng {
    let seed = match std::env::var("RACES_SEED") {
        Ok(text) => text.parse().expect("RACES_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos() as u64 ^ (since.as_secs() << 20)),
    };
    println!("{test}: RACES_SEED={seed}");
    Rng::new(seed)
}

/// Meters of every aggregation over one event type, a price book, a plan on two of the meters.
pub fn catalogue() -> Value {
    json!({
        "products": [{"key": "ai", "name": "AI"}],
        "meters": [
            {"key": "tokens", "event_type": "llm", "aggregation": "sum", "value": "input + output", "dimensions": ["model"], "unit": "token"},
            {"key": "requests", "event_type": "llm", "aggregation": "count", "dimensions": ["model", "region"], "unit": "request"},
            {"key": "peak", "event_type": "llm", "aggregation": "max", "value": "output", "dimensions": ["region"], "unit": "token"},
            {"key": "users", "event_type": "llm", "aggregation": "unique_count", "value": "user", "dimensions": ["model"], "unit": "user"}],
        "price_books": [{"key": "list", "currency": "USD", "prices": [
            {"key": "tokens", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.03", "per": 1000}},
            {"key": "requests", "meter": "requests", "pricing": {"model": "graduated", "tiers": [{"up_to": "10", "unit_price": "0.1"}, {"unit_price": "0.05"}]}}]}],
        "plans": [{"key": "usage", "name": "Usage", "currency": "USD", "price_book": "list",
            "billing": {"interval": "1 month", "alignment": "calendar", "net_days": 30},
            "charges": [
                {"key": "tokens", "product": "ai", "meter": "tokens", "price": "tokens", "lines_by": ["model"]},
                {"key": "requests", "product": "ai", "meter": "requests", "price": "requests"}]}]
    })
}

pub const ZONES: [&str; 4] = ["UTC", "America/New_York", "Asia/Kathmandu", "Asia/Kolkata"];

/// Sets the clock to 1 March 2026 and applies the catalogue.
pub fn prepare(db: &Db) -> Client {
    let mut client = db.connect();
    client.batch_execute("SELECT billing.test_clock_set('2026-03-01T00:00:00Z')").expect("the clock");
    apply(&mut client, &catalogue()).expect("the catalogue");
    client
}

/// Customers u0, u1 …, two sellers in turn, each with a contract from 1 February and three events in it; nothing
/// but February is due.
pub fn billable(db: &Db, contracts: usize) -> Client {
    let mut client = prepare(db);
    let make = format!(
        "SELECT billing.seller_upsert('{{\"key\":\"second\",\"invoice_series\":\"SEC\"}}');
         SELECT billing.customer_upsert(jsonb_build_object('key', 'u' || n, 'seller', CASE n % 2 WHEN 0 THEN 'default' ELSE 'second' END)) FROM generate_series(0, {contracts} - 1) n;
         SELECT billing.subscribe('u' || n, 'usage', '2026-02-01') FROM generate_series(0, {contracts} - 1) n;
         SELECT billing.ingest((SELECT json_agg(json_build_object('customer', 'u' || n % {contracts}, 'event_id', 'first-' || n, 'event_type', 'llm',
            'occurred_at', '2026-02-10T10:00:00Z', 'properties', json_build_object('model', 'm' || n % 3, 'input', n, 'output', 100)))
            FROM generate_series(0, 3 * {contracts} - 1) n));"
    );
    client.batch_execute(&make).expect("customers, contracts, usage");
    client.batch_execute("CALL billing.bill_run('2026-02-01T00:00:00Z')").expect("boundary 0");
    client
}

pub fn apply(client: &mut Client, catalogue: &Value) -> Result<i64, postgres::Error> {
    let row = client.query_one(
        "SELECT count(*) FROM billing.catalog_apply($1::text::jsonb)",
        &[&catalogue.to_string()],
    )?;
    Ok(row.get(0))
}

pub fn upsert_customer(client: &mut Client, customer: &Value) -> Result<(), postgres::Error> {
    client.query_one("SELECT billing.customer_upsert($1::text::jsonb)", &[&customer.to_string()]).map(|_| ())
}

#[derive(Clone, Debug)]
pub struct Event {
    pub customer: String,
    pub id: String,
    pub at: String,
    pub properties: BTreeMap<&'static str, Value>,
}

impl Event {
    pub fn json(&self) -> Value {
        json!({"customer": self.customer, "event_id": self.id, "event_type": "llm", "occurred_at": self.at, "properties": self.properties})
    }
}

/// `count` events of these customers, over three months: every property but the model is missing now and then.
pub fn events(rng: &mut Rng, count: usize, customers: &[String]) -> Vec<Event> {
    let models = ["gpt-4", "gpt-3.5", "claude", "llama"];
    (0..count)
        .map(|n| {
            let mut properties = BTreeMap::from([("model", json!(models[rng.below(models.len())]))]);
            if rng.chance(90) {
                properties.insert("region", json!(format!("r{}", rng.below(5))));
            }
            if rng.chance(90) {
                properties.insert("output", json!(rng.below(1000)));
            }
            properties.insert("input", json!(rng.below(100_000)));
            if rng.chance(90) {
                properties.insert("user", json!(format!("u{}", rng.below(30))));
            }
            let (month, day, hour, minute) =
                (1 + rng.below(2), 1 + rng.below(28), rng.below(24), rng.below(60));
            Event {
                customer: customers[rng.below(customers.len())].clone(),
                id: format!("e{n}"),
                at: format!("2026-{month:02}-{day:02}T{hour:02}:{minute:02}:07Z"),
                properties,
            }
        })
        .collect()
}

/// What clients were told, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: i64,
    pub accepted: i64,
    pub duplicate: i64,
    pub conflicting: i64,
    pub rejected: i64,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.duplicate += other.duplicate;
        self.conflicting += other.conflicting;
        self.rejected += other.rejected;
    }
}

/// The ways into the engine.
#[derive(Clone, Copy, Debug)]
pub enum Door {
    Ingest,
    IngestFrom,
}

/// Sends a batch in the caller's transaction, or in one of its own.
pub fn send(
    client: &mut impl postgres::GenericClient,
    door: Door,
    batch: &[&Event],
) -> Result<Tally, postgres::Error> {
    let document = Value::Array(batch.iter().map(|event| event.json()).collect()).to_string();
    let row = match door {
        Door::Ingest => client.query_one(
            "SELECT accepted, duplicate, conflicting, rejected FROM billing.ingest($1::text::json)",
            &[&document],
        )?,
        Door::IngestFrom => {
            let mut transaction = client.transaction()?;
            transaction
                .batch_execute("CREATE TEMP TABLE batch (LIKE billing.usage_event_input) ON COMMIT DROP")?;
            transaction.execute(
                "INSERT INTO batch SELECT * FROM json_populate_recordset(NULL::billing.usage_event_input, $1::text::json)",
                &[&document],
            )?;
            let row = transaction.query_one(
                "SELECT accepted, duplicate, conflicting, rejected FROM billing.ingest_from('batch')",
                &[],
            )?;
            transaction.commit()?;
            row
        }
    };
    Ok(Tally {
        sent: batch.len() as i64,
        accepted: row.get(0),
        duplicate: row.get(1),
        conflicting: row.get(2),
        rejected: row.get(3),
    })
}

/// SQLSTATE and message of an error, for a failure to show.
pub fn told(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(e) => format!(
            "{} {} {} {}",
            e.code().code(),
            e.message(),
            e.detail().unwrap_or(""),
            e.where_().unwrap_or("")
        ),
        None => format!("{error:?}"),
    }
}

/// An event that counts: no void of this revision of it.
pub const STANDS: &str = "NOT EXISTS (SELECT FROM billing.usage_event_void v WHERE v.customer_id = e.customer_id AND v.event_key = e.event_key AND v.revision = e.revision)";

/// The stored events that count and are not as they were sent or corrected last, each exactly once; empty is right.
pub fn stored_differently(client: &mut Client, events: &[Event]) -> Vec<String> {
    let mut stored: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    let rows = client
        .query(
            &format!("SELECT e.event_id, c.key, e.properties::text FROM billing.usage_event e LEFT JOIN billing.customer c USING (customer_id) WHERE e.event_type = 'llm' AND {STANDS}"),
            &[],
        )
        .expect("the stored events");
    for row in rows {
        let properties = serde_json::from_str(row.get(2)).expect("properties are JSON");
        stored.entry(row.get(0)).or_default().push((row.get(1), properties));
    }
    let mut wrong = Vec::new();
    for event in events {
        let wanted = (event.customer.clone(), json!(event.properties));
        match stored.remove(&event.id).as_deref() {
            Some([one]) if *one == wanted => {}
            found => wrong.push(format!("{event:?} is stored as {found:?}")),
        }
    }
    wrong.extend(stored.into_iter().map(|(id, rows)| format!("{id} was never acknowledged: {rows:?}")));
    wrong
}

/// Usage as a person would count it from the events in plain SQL, against buckets and deltas; the cells that
/// differ. Meters whose key begins with late- sum the input by region.
pub fn usage_differences(client: &mut Client) -> Vec<String> {
    client
        .query(
            &format!("WITH event AS (
                SELECT customer_id, date_trunc('hour', occurred_at, 'UTC') AS hour, properties AS p FROM billing.usage_event e WHERE event_type = 'llm' AND {STANDS}
            ), fresh AS (
                SELECT customer_id, 'tokens' AS meter, hour, jsonb_strip_nulls(jsonb_build_object('model', p->'model')) AS d, count(*) AS events,
                    sum((p->>'input')::numeric + (p->>'output')::numeric) AS quantity
                FROM event WHERE p ? 'input' AND p ? 'output' GROUP BY 1, 2, 3, 4
                UNION ALL
                SELECT customer_id, 'requests', hour, jsonb_strip_nulls(jsonb_build_object('model', p->'model', 'region', p->'region')), count(*), NULL
                FROM event GROUP BY 1, 2, 3, 4
                UNION ALL
                SELECT customer_id, 'peak', hour, jsonb_strip_nulls(jsonb_build_object('region', p->'region')), count(*), max((p->>'output')::numeric)
                FROM event WHERE p ? 'output' GROUP BY 1, 2, 3, 4
                UNION ALL
                SELECT customer_id, 'users', hour, jsonb_strip_nulls(jsonb_build_object('model', p->'model')), count(*), count(DISTINCT p->>'user')
                FROM event WHERE p ? 'user' GROUP BY 1, 2, 3, 4
                UNION ALL
                SELECT customer_id, m.key, hour, jsonb_strip_nulls(jsonb_build_object('region', p->'region')), count(*), sum((p->>'input')::numeric)
                FROM event CROSS JOIN billing.meter m WHERE m.key LIKE 'late-%' AND p ? 'input' GROUP BY 1, 2, 3, 4
            ), kept AS (
                SELECT u.customer_id, m.key AS meter, date_trunc('hour', u.bucket_start, 'UTC') AS hour, u.dimensions AS d, sum(u.events) AS events,
                    CASE m.aggregation WHEN 'sum' THEN sum(u.quantity) WHEN 'max' THEN max(u.quantity) WHEN 'unique_count' THEN max(v.quantity) END AS quantity
                FROM billing_internal.usage_cell u JOIN billing.meter m USING (meter_id)
                LEFT JOIN (SELECT customer_id, meter_id, date_trunc('hour', bucket_start, 'UTC') AS hour, dimensions, count(DISTINCT value_key) AS quantity
                    FROM billing_internal.usage_distinct GROUP BY 1, 2, 3, 4) v
                    ON v.customer_id = u.customer_id AND v.meter_id = u.meter_id AND v.hour = date_trunc('hour', u.bucket_start, 'UTC') AND v.dimensions = u.dimensions
                GROUP BY 1, 2, 3, 4, m.aggregation
                HAVING sum(u.events) <> 0 OR sum(u.quantity) <> 0 -- what corrections took back
            )
            SELECT 'counted afresh ' || coalesce(f::text, 'nothing') || ', kept ' || coalesce(k::text, 'nothing')
            FROM fresh f FULL JOIN kept k USING (customer_id, meter, hour, d)
            WHERE f.events IS DISTINCT FROM k.events OR f.quantity IS DISTINCT FROM k.quantity LIMIT 20"),
            &[],
        )
        .expect("usage counted afresh")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Usage of each customer as usage() answers it, while pieces of it may have to be measured again, against a count of
/// the events that stand; what differs.
pub fn readers_differ(client: &mut Client, from: &str, until: &str) -> Vec<String> {
    client
        .query(
            &format!("WITH event AS (
                SELECT e.customer_id, e.properties AS p FROM billing.usage_event e WHERE e.event_type = 'llm' AND e.occurred_at >= $1::text::timestamptz AND e.occurred_at < $2::text::timestamptz AND {STANDS}
            ), fresh AS (
                SELECT customer_id, 'tokens' AS meter, count(*) AS events, sum((p->>'input')::numeric + (p->>'output')::numeric) AS quantity FROM event WHERE p ? 'input' AND p ? 'output' GROUP BY 1
                UNION ALL SELECT customer_id, 'requests', count(*), count(*) FROM event GROUP BY 1
                UNION ALL SELECT customer_id, 'peak', count(*), max((p->>'output')::numeric) FROM event WHERE p ? 'output' GROUP BY 1
                UNION ALL SELECT customer_id, 'users', count(*), count(DISTINCT p->>'user') FROM event WHERE p ? 'user' GROUP BY 1
            )
            SELECT format('customer %s meter %s: counted afresh %s of %s, answered %s of %s', c.key, m.key, f.quantity, f.events, u.quantity, u.events)
            FROM billing.customer c CROSS JOIN (SELECT key FROM billing.meter WHERE key IN ('tokens', 'requests', 'peak', 'users')) m
            LEFT JOIN fresh f ON f.customer_id = c.customer_id AND f.meter = m.key
            LEFT JOIN LATERAL billing.usage(c.key, m.key, $1::text::timestamptz, $2::text::timestamptz) u ON true
            WHERE coalesce(f.events, 0) <> coalesce(u.events, 0) OR coalesce(f.quantity, 0) <> coalesce(u.quantity, 0) LIMIT 20"),
            &[&from, &until],
        )
        .expect("usage as it is answered")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Everything that must hold whatever happened; `events` are those that were acknowledged.
#[track_caller]
pub fn assert_exactly_once(client: &mut Client, events: &[Event]) {
    assert_eq!(stored_differently(client, events), Vec::<String>::new(), "events stored");
    assert_eq!(usage_differences(client), Vec::<String>::new(), "usage");
}

/// Waits for something to become true, with patience.
#[track_caller]
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} did not come true in 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends the loops of a test's helpers even if one of its threads panics.
pub struct Flag<'a>(pub &'a AtomicBool);

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How many rows `what` has: a relation, with a WHERE if need be.
pub fn count(client: &mut Client, what: &str) -> i64 {
    client
        .query_one(&format!("SELECT count(*) FROM {what}"), &[])
        .unwrap_or_else(|e| panic!("{what}: {}", told(&e)))
        .get(0)
}

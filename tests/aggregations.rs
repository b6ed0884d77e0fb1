//! Every aggregation against a recomputation in plain SQL over `usage_event`, which shares nothing with the engine:
//! random events out of order, repeated, in random batches over several sessions, voided and amended, folded at
//! random moments; random stretches, grains and groupings. RACES_SEED=… repeats a run, AGGREGATION_SECONDS=…
//! makes it longer (30). What differs is printed with the meter and the arguments.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::Db;
use load::{Rng, told};
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CUSTOMERS: [(&str, &str); 3] =
    [("utc", "UTC"), ("york", "America/New_York"), ("kathmandu", "Asia/Kathmandu")];

/// Meters and, for each, the value of one cell in plain SQL over `e(at, k, v, u, op, b)`: the events of its group
/// before the end of the cell. `x.s` and `x.e` are where it starts and ends, `b` is its hour or day in the
/// customer's zone, `$1` the customer's key.
struct Case {
    key: &'static str,
    meter: Value,
    naive: &'static str,
    /// What counts as an event of it.
    counts: &'static str,
    /// The level or the values of before go on.
    carried: bool,
}

/// Values of hours or days first (`h.q`, those without events 0), then one of all of them.
macro_rules! two_steps {
    ($unit:literal, $inner:literal, $outer:literal) => {
        concat!(
            "(SELECT ", $outer, " FROM (SELECT coalesce((SELECT ", $inner,
            " FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e AND date_trunc('", $unit, "', e.at, z.zone) = w.b), 0) AS q
              FROM (SELECT DISTINCT date_trunc('", $unit, "', i, z.zone) AS b
                FROM (SELECT generate_series(x.s, x.e, interval '5 minutes') AS i UNION SELECT x.e - interval '1 microsecond') i WHERE i < x.e) w) h)"
        )
    };
}

fn cases() -> Vec<Case> {
    let meter = |extra: Value| {
        let mut meter = json!({"event_type": "t", "dimensions": ["model", "region"]});
        meter.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        meter
    };
    let case =
        |key, extra: Value, naive, counts| Case { key, meter: meter(extra), naive, counts, carried: false };
    let number = "e.v IS NOT NULL";
    vec![
        case(
            "n",
            json!({"aggregation": "count"}),
            "(SELECT count(*)::numeric FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            "true",
        ),
        case(
            "total",
            json!({"aggregation": "sum", "value": "v"}),
            "(SELECT sum(e.v) FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            number,
        ),
        case(
            "mean",
            json!({"aggregation": "average", "value": "v"}),
            "(SELECT round(sum(e.v)::numeric(60, 30) / count(e.v), 12) FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            number,
        ),
        case(
            "highest",
            json!({"aggregation": "max", "value": "v"}),
            "(SELECT max(e.v) FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            number,
        ),
        case(
            "lowest",
            json!({"aggregation": "min", "value": "v"}),
            "(SELECT min(e.v) FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            number,
        ),
        case(
            "last",
            json!({"aggregation": "latest", "value": "v"}),
            "(SELECT e.v FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e AND e.v IS NOT NULL ORDER BY e.at DESC, e.k DESC LIMIT 1)",
            number,
        ),
        case(
            "p90",
            json!({"aggregation": "percentile", "percentile": "90", "value": "v"}),
            "(SELECT (array_agg(e.v ORDER BY e.v))[(count(e.v) * 9 + 9) / 10] FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e AND e.v IS NOT NULL)",
            number,
        ),
        case(
            "users",
            json!({"aggregation": "unique_count", "value": "u"}),
            "(SELECT count(DISTINCT e.u)::numeric FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            "e.u IS NOT NULL",
        ),
        Case {
            key: "seats",
            meter: meter(json!({"aggregation": "unique_count", "value": "u", "operation": "op"})),
            naive: "(SELECT count(*)::numeric FROM (SELECT DISTINCT ON (e.u) e.op FROM e WHERE e.g = y.g AND e.at < x.e AND e.u IS NOT NULL AND e.op IS NOT NULL
                ORDER BY e.u, e.at DESC, e.k DESC) o WHERE o.op = 'add')",
            counts: "e.u IS NOT NULL AND e.op IS NOT NULL",
            carried: true,
        },
        Case {
            key: "most-seats",
            meter: meter(json!({"aggregation": "unique_count", "value": "u", "operation": "op", "counted": "peak"})),
            naive: "(SELECT max(l.here) FROM (SELECT x.s - interval '1 microsecond' AS t UNION SELECT e.at FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e) t,
                LATERAL (SELECT count(*)::numeric AS here FROM (SELECT DISTINCT ON (e.u) e.op FROM e WHERE e.g = y.g AND e.at <= t.t AND e.u IS NOT NULL AND e.op IS NOT NULL
                    ORDER BY e.u, e.at DESC, e.k DESC) o WHERE o.op = 'add') l)",
            counts: "e.u IS NOT NULL AND e.op IS NOT NULL",
            carried: true,
        },
        Case {
            key: "gb-hours",
            meter: meter(json!({"aggregation": "weighted_sum", "value": "v"})),
            naive: "(SELECT round(sum(e.v * extract(epoch FROM x.e - greatest(e.at, x.s)))::numeric(60, 30) / 3600, 12) FROM e WHERE e.g = y.g AND e.at < x.e)",
            counts: number,
            carried: true,
        },
        Case {
            key: "gb",
            meter: meter(json!({"aggregation": "weighted_sum", "value": "v", "weighting": "period"})),
            naive: "(SELECT round(sum(e.v * extract(epoch FROM x.e - greatest(e.at, x.s)))::numeric(60, 30) / extract(epoch FROM x.e - x.s), 12) FROM e WHERE e.g = y.g AND e.at < x.e)",
            counts: number,
            carried: true,
        },
        case(
            "sum-of-peaks",
            json!({"aggregation": "sum", "value": "v", "per": {"bucket": "hour", "aggregation": "max"}}),
            two_steps!("hour", "max(e.v)", "sum(h.q)"),
            number,
        ),
        case(
            "p95-of-hours",
            json!({"aggregation": "percentile", "percentile": "95", "value": "v", "per": {"bucket": "hour", "aggregation": "sum"}}),
            two_steps!("hour", "sum(e.v)", "(array_agg(h.q ORDER BY h.q))[(count(*) * 95 + 99) / 100]"),
            number,
        ),
        case(
            "daily-users",
            json!({"aggregation": "average", "value": "u", "per": {"bucket": "day", "aggregation": "unique_count"}}),
            two_steps!("day", "count(DISTINCT e.u)::numeric", "round(sum(h.q)::numeric(60, 30) / count(*), 12)"),
            "e.u IS NOT NULL",
        ),
        case(
            "worst-day",
            json!({"aggregation": "min", "value": "v", "per": {"bucket": "day", "aggregation": "latest"}}),
            two_steps!("day", "(array_agg(e.v ORDER BY e.at DESC, e.k DESC) FILTER (WHERE e.v IS NOT NULL))[1]", "min(h.q)"),
            number,
        ),
        case(
            "best-hour",
            json!({"aggregation": "max", "per": {"bucket": "hour", "aggregation": "count"}}),
            two_steps!("hour", "count(*)::numeric", "max(h.q)"),
            "true",
        ),
        case(
            "mean-of-lows",
            json!({"aggregation": "average", "value": "v", "per": {"bucket": "hour", "aggregation": "min"}}),
            two_steps!("hour", "min(e.v)", "round(sum(h.q)::numeric(60, 30) / count(*), 12)"),
            number,
        ),
        case(
            "best-mean",
            json!({"aggregation": "max", "value": "v", "per": {"bucket": "day", "aggregation": "average"}}),
            two_steps!("day", "round(sum(e.v)::numeric(60, 30) / nullif(count(e.v), 0), 12)", "max(h.q)"),
            number,
        ),
        case(
            "tens",
            json!({"aggregation": "sum", "value": "v", "rounding": {"mode": "up", "to": "10"}}),
            "(SELECT sign(sum(e.v)) * ceil(abs(sum(e.v)) / 10) * 10 FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            number,
        ),
        case(
            "labelled",
            json!({"aggregation": "count", "dimensions": ["filter", "model", "region"], "filters": [
                {"name": "rest", "filter": {}}, {"name": "a", "filter": {"model": "a"}}, {"name": "ax", "filter": {"model": "a", "region": "x"}}]}),
            "(SELECT count(*)::numeric FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            "true",
        ),
        Case {
            key: "net",
            meter: json!({"aggregation": "compound", "dimensions": ["model"], "of": [{"meter": "total", "factor": "2"}, {"meter": "n", "factor": "-0.5"}]}),
            naive: "(SELECT 2 * coalesce(sum(e.v), 0) - 0.5 * count(*) FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            counts: "true",
            carried: false,
        },
        Case {
            key: "per-user",
            meter: json!({"aggregation": "compound", "dimensions": ["model"], "of": {"numerator": "total", "denominator": "users", "places": 3}}),
            naive: "(SELECT CASE WHEN count(DISTINCT e.u) = 0 THEN 0 ELSE round(coalesce(sum(e.v), 0)::numeric(60, 30) / count(DISTINCT e.u), 3) END FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e)",
            counts: "e.v IS NOT NULL OR e.u IS NOT NULL",
            carried: false,
        },
    ]
}

fn event(rng: &mut Rng, n: usize) -> Value {
    let mut properties = serde_json::Map::new();
    let mut put = |rng: &mut Rng, name: &str, percent: usize, value: Value| {
        if rng.chance(percent) {
            properties.insert(name.to_string(), value);
        }
    };
    let (model, region, team) = (rng.below(3), rng.below(2), rng.below(2));
    put(rng, "model", 95, json!(["a", "b", "c"][model]));
    put(rng, "region", 80, json!(["x", "y"][region]));
    put(rng, "team", 90, json!(["red", "blue"][team]));
    let value = match rng.below(10) {
        0 => "9999999999999999.999999999999".to_string(),
        1..=3 => format!("{}.{:03}", rng.below(40), rng.below(1000)),
        4 => format!("-{}", rng.below(30)),
        _ => rng.below(50).to_string(),
    };
    put(rng, "v", 90, serde_json::from_str(&value).expect("a number"));
    let (user, removes) = (rng.below(6), rng.chance(40));
    put(rng, "u", 90, json!(format!("u{user}")));
    put(rng, "op", 90, json!(if removes { "remove" } else { "add" }));
    // Around the change of New York's clock; often at one instant, to the microsecond, or on a boundary.
    let minutes = rng.below(9 * 24 * 60);
    let (second, micro) = match rng.below(4) {
        0 => (0, 0),
        1 => (rng.below(60), 0),
        _ => (rng.below(60), rng.below(1_000_000)),
    };
    let minute = if rng.chance(15) { minutes / 60 * 60 } else { minutes };
    let (day, hour, minute) = (4 + minute / 1440, minute / 60 % 24, minute % 60);
    json!({"customer": CUSTOMERS[rng.below(3)].0, "event_id": format!("e{n}"), "event_type": "t", "properties": properties,
        "occurred_at": format!("2026-03-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")})
}

/// One client: its events in batches of any size, with repeats of earlier ones; now and then a correction.
fn send(mut client: Client, mut rng: Rng, mine: Vec<Value>, corrects: bool) -> Result<(), String> {
    let mut sent: Vec<Value> = Vec::new();
    let mut waiting = mine;
    while !waiting.is_empty() {
        rng.shuffle(&mut waiting);
        let size = (1 + rng.below(40)).min(waiting.len());
        let mut batch = waiting.split_off(waiting.len() - size);
        for _ in 0..rng.below(4).min(sent.len()) {
            batch.push(sent[rng.below(sent.len())].clone());
        }
        let text = Value::Array(batch.clone()).to_string();
        client
            .query_one("SELECT accepted FROM billing.ingest($1::text::json)", &[&text])
            .map_err(|e| told(&e))?;
        sent.extend(batch);
        if corrects && rng.chance(60) {
            let event = &sent[rng.below(sent.len())];
            let (customer, id) = (event["customer"].as_str().unwrap(), event["event_id"].as_str().unwrap());
            let other = self::event(&mut rng, 0);
            let corrected = if rng.chance(50) {
                client.query_one("SELECT billing.event_void($1, $2, 'a test')", &[&customer, &id])
            } else {
                client.query_one(
                    "SELECT billing.event_amend($1, $2, 'a test', occurred_at => $3::text::timestamptz, properties => $4::text::jsonb)",
                    &[&customer, &id, &other["occurred_at"].as_str(), &other["properties"].to_string()],
                )
            };
            // What was voided before can't be corrected again.
            if let Err(error) = corrected
                && error.code().is_none_or(|code| !code.code().starts_with("ZB"))
            {
                return Err(told(&error));
            }
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Question {
    customer: &'static str,
    zone: &'static str,
    from: String,
    until: String,
    grain: Option<&'static str>,
    group_by: Vec<&'static str>,
    filter: Value,
}

fn instant(rng: &mut Rng) -> i64 {
    let minutes = rng.below(11 * 24 * 60) as i64;
    let micros = minutes * 60_000_000;
    match rng.below(4) {
        0 => micros / 3_600_000_000 * 3_600_000_000,
        1 => micros / 86_400_000_000 * 86_400_000_000 + 5 * 3_600_000_000,
        2 => micros,
        _ => micros + rng.below(60_000_000) as i64,
    }
}

fn question(rng: &mut Rng) -> Question {
    let (customer, zone) = CUSTOMERS[rng.below(3)];
    let (mut a, mut b) = (instant(rng), instant(rng));
    if a > b {
        std::mem::swap(&mut a, &mut b);
    }
    if a == b {
        b += 1;
    }
    let mut grain = [None, None, Some("hour"), Some("day"), Some("month")][rng.below(5)];
    if grain == Some("hour") {
        b = b.min(a + 26 * 3_600_000_000);
    }
    if grain == Some("month") && rng.chance(50) {
        grain = None;
    }
    let text = |micros: i64| format!("timestamptz '2026-03-03 00:00Z' + interval '{micros} microseconds'");
    let mut group_by: Vec<&'static str> =
        ["model", "region", "team"].into_iter().filter(|_| rng.chance(30)).collect();
    group_by.dedup();
    let filter = match rng.below(5) {
        0 => json!({"model": "a"}),
        1 => json!({"region": ["x", "y"]}),
        2 => json!({"team": "red"}),
        _ => json!({}),
    };
    Question { customer, zone, from: text(a), until: text(b), grain, group_by, filter }
}

type Answer = BTreeMap<(String, String), (String, i64)>;

fn rows(client: &mut Client, query: &str, what: &str) -> Answer {
    let rows = client.query(query, &[]).unwrap_or_else(|e| panic!("{what}: {}\n{query}", told(&e)));
    rows.into_iter().map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3)))).collect()
}

fn usage(client: &mut Client, case: &Case, q: &Question, group_by: &[&str]) -> Answer {
    let grain = q.grain.map_or("NULL".into(), |grain| format!("'{grain}'"));
    let query = format!(
        "SELECT u.starts_at::text, u.dimensions::text, trim_scale(u.quantity)::text, u.events FROM billing.usage('{}', '{}', {}, {}, {grain}, '{{{}}}', '{}') u
         WHERE u.events <> 0 OR u.quantity <> 0",
        q.customer,
        case.key,
        q.from,
        q.until,
        group_by.join(","),
        q.filter
    );
    rows(client, &query, case.key)
}

fn naive(client: &mut Client, case: &Case, q: &Question, group_by: &[&str]) -> Answer {
    let label = "CASE WHEN e.properties->>'model' = 'a' AND e.properties->>'region' = 'x' THEN 'ax' WHEN e.properties->>'model' = 'a' THEN 'a' ELSE 'rest' END";
    let group = group_by
        .iter()
        .map(|name| match *name {
            "filter" => format!("'filter', {label}"),
            name => format!("'{name}', e.properties->'{name}'"),
        })
        .collect::<Vec<_>>()
        .join(", ");
    let mut wanted = String::new();
    for (name, value) in q.filter.as_object().unwrap() {
        let values: Vec<String> = match value {
            Value::Array(list) => list.iter().map(|v| format!("'{}'", v.as_str().unwrap())).collect(),
            one => vec![format!("'{}'", one.as_str().unwrap())],
        };
        wanted.push_str(&format!(" AND e.properties->>'{name}' IN ({})", values.join(", ")));
    }
    let cells = match q.grain {
        None => format!("SELECT {} AS s", q.from),
        Some(grain) => format!(
            "SELECT DISTINCT greatest(date_trunc('{grain}', i, '{}'), {}) AS s FROM (SELECT generate_series({}, {}, interval '5 minutes') AS i
                UNION SELECT {} - interval '1 microsecond') i WHERE i < {}",
            q.zone, q.from, q.from, q.until, q.until, q.until
        ),
    };
    let (counts, carried) = (case.counts, case.carried);
    // Compounds count an event on each of their meters.
    let events = match case.key {
        "net" => "count(*) FILTER (WHERE e.v IS NOT NULL) + count(*)",
        "per-user" => "count(*) FILTER (WHERE e.v IS NOT NULL) + count(*) FILTER (WHERE e.u IS NOT NULL)",
        _ => "count(*)",
    };
    let query = format!(
        "WITH z AS (SELECT '{zone}'::text AS zone), e AS MATERIALIZED (
            SELECT e.occurred_at AS at, e.event_key AS k, (e.properties->>'v')::numeric AS v, e.properties->>'u' AS u, e.properties->>'op' AS op,
                jsonb_strip_nulls(jsonb_build_object({group})) AS g
            FROM billing.usage_event e JOIN billing.customer c USING (customer_id)
            WHERE c.key = '{customer}' AND e.event_type = 't' AND e.occurred_at < {until} {wanted}
                AND NOT EXISTS (SELECT FROM billing.usage_event_void v WHERE v.customer_id = e.customer_id AND v.event_key = e.event_key AND v.revision = e.revision)
        ), x AS MATERIALIZED (SELECT c.s, lead(c.s, 1, {until}) OVER (ORDER BY c.s) AS e FROM ({cells}) c),
        y AS MATERIALIZED (SELECT DISTINCT e.g FROM e WHERE {counts}),
        answer AS (
            SELECT x.s, y.g, {value} AS quantity, (SELECT {events} FROM e WHERE e.g = y.g AND e.at >= x.s AND e.at < x.e AND ({counts})) AS events
            FROM x CROSS JOIN y CROSS JOIN z
        )
        SELECT a.s::text, a.g::text, trim_scale(a.quantity)::text, a.events FROM answer a WHERE a.events > 0 OR ({carried} AND a.quantity <> 0)",
        zone = q.zone,
        customer = q.customer,
        until = q.until,
        value = case.naive,
    );
    rows(client, &query, case.key)
}

#[test]
fn every_aggregation_is_what_plain_sql_says() {
    let seconds: u64 =
        std::env::var("AGGREGATION_SECONDS").map_or(30, |text| text.parse().expect("a number"));
    let mut rng = load::seed("aggregations");
    let db = Db::fresh("aggregations");
    let mut client = db.connect();
    client.batch_execute("SELECT billing.test_clock_set('2026-03-20T00:00:00Z')").expect("the clock");
    let cases = cases();
    let meters: Vec<Value> = cases
        .iter()
        .map(|case| {
            let mut meter = case.meter.clone();
            meter["key"] = json!(case.key);
            meter
        })
        .collect();
    // One meter in three is made when there are events already.
    let (early, late): (Vec<_>, Vec<_>) = meters
        .into_iter()
        .enumerate()
        .partition(|(at, meter)| at % 3 > 0 || meter["aggregation"] == "compound" || *at < 9);
    let list = |part: Vec<(usize, Value)>| json!({"meters": part.into_iter().map(|(_, meter)| meter).collect::<Vec<_>>()});
    load::apply(&mut client, &list(early)).expect("meters");
    for (key, zone) in CUSTOMERS {
        load::upsert_customer(&mut client, &json!({"key": key, "time_zone": zone})).expect("a customer");
    }
    let corrects: bool = client
        .query_one("SELECT to_regproc('billing.event_void') IS NOT NULL AND to_regproc('billing.event_amend') IS NOT NULL", &[])
        .expect("a function")
        .get(0);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut made, mut asked, mut late) = (0, 0, Some(late));
    while Instant::now() < until {
        let count = 60 + rng.below(120);
        let events: Vec<Value> = (made..made + count).map(|n| event(&mut rng, n)).collect();
        made += count;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let (mut fold, done) = (db.connect(), &done);
            let folder = scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    fold.batch_execute("CALL billing.fold()").map_err(|e| told(&e))?;
                    thread::sleep(Duration::from_millis(20));
                }
                Ok::<(), String>(())
            });
            let mut parts = vec![Vec::new(); 4];
            events.iter().for_each(|event| parts[rng.below(4)].push(event.clone()));
            let senders: Vec<_> = parts
                .into_iter()
                .map(|mine| {
                    let (client, rng) = (db.connect(), rng.fork());
                    scope.spawn(move || send(client, rng, mine, corrects))
                })
                .collect();
            let sent: Vec<_> = senders.into_iter().map(|sender| sender.join().expect("a sender")).collect();
            // With luck deltas and buckets stand side by side while the questions are asked.
            done.store(true, Ordering::SeqCst);
            let folded = folder.join().expect("the folder");
            assert_eq!(
                sent.into_iter().chain([folded]).filter_map(Result::err).collect::<Vec<_>>(),
                Vec::<String>::new()
            );
        });
        if let Some(late) = late.take() {
            load::apply(&mut client, &list(late)).expect("late meters");
        }
        for _ in 0..4 {
            let q = question(&mut rng);
            for case in &cases {
                if Instant::now() > until {
                    break;
                }
                let mut group_by = q.group_by.clone();
                if case.key == "labelled" && asked % 2 == 0 {
                    group_by.push("filter");
                }
                let (found, wanted) =
                    (usage(&mut client, case, &q, &group_by), naive(&mut client, case, &q, &group_by));
                assert_eq!(
                    found, wanted,
                    "{} by {group_by:?}: left usage(), right plain SQL\n{q:?}",
                    case.key
                );
            }
            asked += 1;
        }
    }
    println!("{made} events, {asked} questions to {} meters, corrections: {corrects}", cases.len());
    assert!(asked >= 4, "too slow to have shown anything");
    assert_eq!(db.verify(), Vec::<String>::new());
    client.batch_execute("CALL billing.fold()").expect("fold");
    assert_eq!(db.verify(), Vec::<String>::new());
}

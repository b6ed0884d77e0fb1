//! Kept totals of periods: whatever is ingested, corrected, folded, measured again and kept in whichever order, by
//! one session or many, `usage_window()` says what `usage()` says in the same snapshot, and `billing.verify('full')`
//! finds the totals to be their buckets.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::Db;
use load::{Door, Flag, Rng, told};
use postgres::{Client, GenericClient, IsolationLevel};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What can be kept and, after it, what can't: asking for it goes the long way.
fn meters(filter: &str) -> serde_json::Value {
    json!({"meters": [
        {"key": "least", "event_type": "llm", "aggregation": "min", "value": "input", "dimensions": ["model"]},
        {"key": "mean", "event_type": "llm", "aggregation": "average", "value": "input", "dimensions": ["region"]},
        {"key": "dozens", "event_type": "llm", "aggregation": "sum", "value": "input", "rounding": {"to": "12", "mode": "up"}, "dimensions": ["model"]},
        {"key": "picked", "event_type": "llm", "aggregation": "sum", "value": "input", "filter": {"model": filter}, "dimensions": ["region"]},
        {"key": "hourly_peak", "event_type": "llm", "aggregation": "sum", "per": {"bucket": "hour", "aggregation": "max"}, "value": "input", "dimensions": ["model"]},
        {"key": "median", "event_type": "llm", "aggregation": "percentile", "percentile": "50", "value": "input", "dimensions": ["model"]}]})
}

/// Of every kept period and of some others, by every match: what usage_window() and usage() differ in.
const DIFFERENCES: &str = "
    WITH period AS (
        SELECT w.customer_id, w.meter_id, w.starts_at, w.ends_at FROM billing.usage_window_kept w
        UNION
        SELECT c.customer_id, m.meter_id, p.s, p.e FROM billing.customer c, billing.meter m, (VALUES (timestamptz '2026-02-01Z', timestamptz '2026-03-01Z'), ('2026-02-03 10:20Z', '2026-02-03 11:07Z')) p (s, e)
    )
    SELECT format('%s %s %s %s %s: %s (%s events), usage() says %s (%s)', c.key, m.key, p.starts_at, p.ends_at, x.match, a.quantity, a.events, b.quantity, b.events)
    FROM (SELECT * FROM period ORDER BY random() LIMIT $1) p JOIN billing.customer c USING (customer_id) JOIN billing.meter m USING (meter_id)
    CROSS JOIN (VALUES ('{}'::jsonb), ('{\"model\":\"gpt-4\"}'), ('{\"model\":[\"gpt-4\",\"llama\"],\"region\":\"r1\"}'), ('{\"region\":\"r2\"}')) x (match)
    CROSS JOIN LATERAL billing_internal.usage_window(c.customer_id, m.meter_id, p.starts_at, p.ends_at, x.match) a
    CROSS JOIN LATERAL billing.usage(c.key, m.key, p.starts_at, least(p.ends_at, '2100-01-01Z'), filter => x.match) b
    WHERE (a.quantity, a.events) IS DISTINCT FROM (b.quantity, b.events) LIMIT 5";

fn differences(client: &mut impl GenericClient) -> Vec<String> {
    let rows = client.query(DIFFERENCES, &[&i64::MAX]).unwrap_or_else(|e| panic!("{}", told(&e)));
    rows.iter().map(|row| row.get(0)).collect()
}

/// As differences(), of so many of the periods.
fn some_differences(client: &mut impl GenericClient, periods: i64) -> Vec<String> {
    let rows = client.query(DIFFERENCES, &[&periods]).unwrap_or_else(|e| panic!("{}", told(&e)));
    rows.iter().map(|row| row.get(0)).collect()
}

/// A period as somebody might keep: of any length, at most of the time on bounds that can be kept.
fn period(rng: &mut Rng) -> (String, String) {
    let (month, day, hour) = (1 + rng.below(2), 1 + rng.below(27), rng.below(23));
    match rng.below(8) {
        0 => ("2026-01-01T00:00Z".into(), "infinity".into()),
        1 => (format!("2026-{month:02}-01T00:00Z"), format!("2026-{:02}-01T00:00Z", month + 1)),
        2 => (
            format!("2026-{month:02}-{day:02}T{hour:02}:00Z"),
            format!("2026-{month:02}-{day:02}T{:02}:00Z", hour + 1),
        ),
        // Midnights of Nepal and of India, and bounds that cut every bucket.
        3 => (format!("2026-{month:02}-{day:02}T18:15Z"), format!("2026-{:02}-{day:02}T18:15Z", month + 1)),
        4 => (format!("2026-{month:02}-{day:02}T18:30Z"), format!("2026-{month:02}-{:02}T18:30Z", day + 1)),
        5 => (format!("2026-{month:02}-{day:02}T10:07Z"), format!("2026-{month:02}-{day:02}T23:59Z")),
        _ => (format!("2026-{month:02}-{day:02}T00:00Z"), format!("2026-{month:02}-{:02}T00:00Z", day + 1)),
    }
}

fn keep(client: &mut Client, rng: &mut Rng, customers: usize) {
    let (starts, ends) = period(rng);
    let every = if rng.chance(50) { "true" } else { "m.key IN ('tokens', 'requests', 'peak')" };
    let call = format!(
        "SELECT billing_internal.usage_window_keep(c.customer_id, m.meter_id, '{starts}', '{ends}')
         FROM billing.customer c, billing.meter m WHERE c.key = 'u{}' AND {every}",
        rng.below(customers)
    );
    client.execute(&call, &[]).unwrap_or_else(|e| panic!("{call}: {}", told(&e)));
}

/// A correction of something that may be there: what is not known or was voided is refused, and that is all right.
fn correct(client: &mut Client, rng: &mut Rng, customers: usize, sent: usize) -> bool {
    let (customer, id) = (rng.below(customers), rng.below(sent.max(1)));
    let call = if rng.chance(50) {
        format!("SELECT billing.event_void('u{customer}', 'e{id}', 'test')")
    } else {
        format!(
            "SELECT billing.event_amend('u{customer}', 'e{id}', 'test', properties => '{{\"model\":\"claude\",\"input\":{},\"output\":{}}}')",
            rng.below(100_000),
            rng.below(1000)
        )
    };
    match client.query(&call, &[]) {
        Ok(_) => true,
        Err(error) => {
            let code = error.code().map_or("", |code| code.code());
            assert!(["ZB001", "ZB005", "40001", "40P01"].contains(&code), "{call}: {}", told(&error));
            false
        }
    }
}

fn customers_of(client: &mut Client, n: usize) -> Vec<String> {
    (0..n)
        .map(|i| {
            let zone = load::ZONES[i % load::ZONES.len()];
            load::upsert_customer(client, &json!({"key": format!("u{i}"), "time_zone": zone}))
                .expect("customer");
            format!("u{i}")
        })
        .collect()
}

#[test]
fn usage_of_a_kept_period_is_usage_whatever_happens_to_it() {
    let db = Db::fresh("totals_random");
    let mut rng = load::seed("totals_random");
    let mut client = load::prepare(&db);
    load::apply(&mut client, &meters("gpt-4")).expect("more meters");
    let customers = customers_of(&mut client, 3);
    let events = load::events(&mut rng, 1500, &customers);
    let mut sent = 0;
    let (mut corrected, mut most_kept) = (0, 0);
    // At least 60 steps, and on until enough was kept and corrected to show something.
    for step in 0.. {
        if step >= 60 && corrected > 0 && most_kept > 10 {
            break;
        }
        assert!(step < 600, "{corrected} corrections, {most_kept} totals: this shows too little");
        let what = rng.below(12);
        match what {
            0..=2 => {
                let until = (sent + 1 + rng.below(60)).min(events.len());
                load::send(&mut client, Door::Ingest, &events[sent..until].iter().collect::<Vec<_>>())
                    .expect("events");
                sent = until;
            }
            3 | 4 => corrected += usize::from(correct(&mut client, &mut rng, customers.len(), sent)),
            5 | 6 => keep(&mut client, &mut rng, customers.len()),
            7 | 8 => {
                let most = 1 + rng.below(200) as i32;
                client.query("SELECT billing.fold_step(NULL, $1)", &[&most]).expect("fold");
            }
            9 => client.batch_execute("CALL billing.fold()").expect("fold"),
            10 => {
                let meter = ["tokens", "peak", "requests", "mean"][rng.below(4)];
                let ask = format!("CALL billing.meter_rebuild('{meter}', '2026-01-15Z', '2026-02-10Z')");
                client.batch_execute(&ask).expect("rebuild");
            }
            _ if step % 3 == 0 => {
                // Another meter from now on: what it has counted is measured again, here or by whoever folds next.
                let filter = ["gpt-4", "llama", "claude"][rng.below(3)];
                load::apply(&mut client, &meters(filter)).expect("a changed meter");
            }
            _ => {
                // From whole hours to quarters, and never back.
                load::upsert_customer(&mut client, &json!({"key": "u0", "time_zone": "Asia/Kathmandu"}))
                    .expect("zone");
            }
        }
        assert_eq!(some_differences(&mut client, 6), Vec::<String>::new(), "after step {step}, {what}");
        most_kept = most_kept.max(load::count(&mut client, "billing.usage_total"));
    }
    assert_eq!(db.verify(), Vec::<String>::new());

    // What has been over for as long as it lasted is forgotten by the next fold, and still answered.
    client.batch_execute("SELECT billing.test_clock_set('2026-09-01T00:00:00Z')").expect("the clock");
    load::send(
        &mut client,
        Door::Ingest,
        &events[sent..(sent + 50).min(events.len())].iter().collect::<Vec<_>>(),
    )
    .expect("events");
    client.batch_execute("CALL billing.fold()").expect("fold");
    assert_eq!(
        load::count(
            &mut client,
            "billing.usage_window_kept WHERE ends_at < 'infinity' AND customer_id IN (SELECT customer_id FROM billing.usage_bucket)"
        ),
        0
    );
    assert_eq!(differences(&mut client), Vec::<String>::new(), "after the periods were forgotten");
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn the_total_is_what_is_read_and_verify_compares_it() {
    let db = Db::fresh("totals_read");
    let mut client = load::prepare(&db);
    let customers = customers_of(&mut client, 1);
    let events = load::events(&mut Rng::new(7), 300, &customers);
    load::send(&mut client, Door::Ingest, &events.iter().collect::<Vec<_>>()).expect("events");
    client
        .batch_execute("CALL billing.fold()")
        .and_then(|()| client.batch_execute("SELECT billing_internal.usage_window_keep(c.customer_id, m.meter_id, '2026-02-01Z', '2026-03-01Z') FROM billing.customer c, billing.meter m WHERE c.key = 'u0' AND m.key = 'tokens'"))
        .expect("kept");
    assert_eq!(differences(&mut client), Vec::<String>::new());
    let mut open = client.transaction().expect("begin");
    assert_eq!(
        open.execute("UPDATE billing.usage_total SET quantity = quantity + 1", &[]).expect("a fault"),
        4
    );
    assert!(
        differences(&mut open).iter().all(|d| d.starts_with("u0 tokens"))
            && !differences(&mut open).is_empty()
    );
    let failed: String = open
        .query_one("SELECT string_agg(check_name || ' ' || failed, ',') FROM billing.verify('full') WHERE failed > 0", &[])
        .expect("verify")
        .get(0);
    assert_eq!(failed, "usage: kept totals equal the buckets of their periods 1");
    open.rollback().expect("rollback");

    // Above READ COMMITTED nothing is folded nor kept: a snapshot of before the lock may miss what is kept by now.
    let mut open =
        client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().expect("begin");
    open.query("SELECT billing_internal.usage_window_keep(1, 1, '2026-01-01Z', '2026-02-01Z')", &[])
        .expect("not kept");
    let refused = open.query("SELECT billing.fold_step(NULL)", &[]).map(drop);
    assert_eq!(common::refusal(refused).code, "ZB005");
    drop(open);
    assert_eq!(load::count(&mut client, "billing.usage_window_kept"), 1);
}

#[test]
fn totals_are_right_in_every_snapshot_while_all_go_on_at_once() {
    let db = Db::fresh("totals_races");
    let mut rng = load::seed("totals_races");
    let mut admin = load::prepare(&db);
    load::apply(&mut admin, &meters("gpt-4")).expect("more meters");
    let customers = customers_of(&mut admin, 2);
    let events = load::events(&mut rng, 4000, &customers);
    let sent = AtomicUsize::new(0);
    let ended = AtomicBool::new(false);
    let looked = AtomicUsize::new(0);
    let until = Instant::now() + Duration::from_secs(5);
    let begin = |client: &mut Client| client.batch_execute("SET lock_timeout = '20s'").expect("set");
    thread::scope(|scope| {
        for batch in [7, 40] {
            let (db, events, sent, ended) = (&db, &events, &sent, &ended);
            scope.spawn(move || {
                let mut client = db.connect();
                begin(&mut client);
                while !ended.load(Ordering::SeqCst) {
                    let from = sent.fetch_add(batch, Ordering::SeqCst);
                    if from + batch > events.len() {
                        return;
                    }
                    load::send(
                        &mut client,
                        Door::Ingest,
                        &events[from..from + batch].iter().collect::<Vec<_>>(),
                    )
                    .unwrap_or_else(|e| panic!("{}", told(&e)));
                }
            });
        }
        for kind in 0..4 {
            let (db, sent, ended, mut rng) = (&db, &sent, &ended, rng.fork());
            let customers = customers.len();
            scope.spawn(move || {
                let mut client = db.connect();
                begin(&mut client);
                while !ended.load(Ordering::SeqCst) {
                    match kind {
                        0 => drop(
                            client
                                .query("SELECT billing.fold_step(NULL, $1)", &[&(1 + rng.below(300) as i32)])
                                .expect("fold"),
                        ),
                        1 => keep(&mut client, &mut rng, customers),
                        2 => drop(correct(&mut client, &mut rng, customers, sent.load(Ordering::SeqCst))),
                        _ => {
                            let meter = ["tokens", "peak", "requests"][rng.below(3)];
                            client
                                .batch_execute(&format!("CALL billing.meter_rebuild('{meter}')"))
                                .unwrap_or_else(|e| panic!("{}", told(&e)));
                            thread::sleep(Duration::from_millis(300));
                        }
                    }
                }
            });
        }
        let (db, ended, looked) = (&db, &ended, &looked);
        scope.spawn(move || {
            let _flag = Flag(ended);
            let mut client = db.connect();
            while Instant::now() < until {
                let mut open = client
                    .build_transaction()
                    .isolation_level(IsolationLevel::RepeatableRead)
                    .start()
                    .expect("begin");
                assert_eq!(some_differences(&mut open, 4), Vec::<String>::new());
                looked.fetch_add(1, Ordering::SeqCst);
            }
        });
    });
    assert!(looked.load(Ordering::SeqCst) > 3, "looked {looked:?} times");
    assert!(load::count(&mut admin, "billing.usage_total") > 0);
    assert_eq!(differences(&mut admin), Vec::<String>::new());
    for call in ["CALL billing.meter_rebuild()", "CALL billing.fold()"] {
        admin.batch_execute(call).expect("a job");
    }
    assert_eq!(differences(&mut admin), Vec::<String>::new());
    assert_eq!(db.verify(), Vec::<String>::new());
}

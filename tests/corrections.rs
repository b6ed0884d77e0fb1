//! Corrections, retries and limits with several sessions: of two corrections of one event each has exactly one
//! outcome, in some order; none is lost, none counts twice, no client sees a deadlock; and a limit lets pass what it
//! says, no more. Each test has its own database and ends with `billing.verify('full')`.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::Db;
use load::{Door, Event, Rng, told};
use postgres::{Client, IsolationLevel, Transaction};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn event(id: &str, customer: &str, day: usize, input: u64) -> Event {
    Event {
        customer: customer.to_owned(),
        id: id.to_owned(),
        at: format!("2026-02-{day:02}T10:30:00Z"),
        properties: [
            ("model", json!("m")),
            ("region", json!("r")),
            ("input", json!(input)),
            ("output", json!(input)),
            ("user", json!(format!("u{}", input % 3))),
        ]
        .into(),
    }
}

fn ask(client: &mut impl postgres::GenericClient, call: &str) -> Result<String, postgres::Error> {
    client.query_one(call, &[]).map(|row| row.get(0))
}

/// A transaction that sees from now on what is there now.
fn with_snapshot(client: &mut Client, isolation: IsolationLevel) -> Transaction<'_> {
    let mut open = client.build_transaction().isolation_level(isolation).start().expect("begin");
    open.query("SELECT FROM billing.contract", &[]).expect("a snapshot");
    open
}

fn void(id: &str) -> String {
    format!("SELECT billing.event_void('c0', '{id}', 'test')")
}

fn amend(id: &str, input: u64) -> String {
    format!(
        "SELECT billing.event_amend('c0', '{id}', 'test', properties => '{{\"model\":\"m\",\"input\":{input},\"output\":0}}')"
    )
}

fn tokens(client: &mut Client) -> i64 {
    let usage = "SELECT quantity::bigint FROM billing.usage('c0', 'tokens', '2026-01-01Z', '2026-04-01Z')";
    client.query_one(usage, &[]).expect("usage").get(0)
}

fn waits(client: &mut Client) -> bool {
    let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    client.query_one(waiting, &[]).expect("activity").get(0)
}

/// A database with customer c0, its events a, b, c of 1, 10, 100 tokens each way.
fn three_events(name: &str) -> (Db, Client) {
    let db = Db::fresh(name);
    let mut admin = load::prepare(&db);
    load::upsert_customer(&mut admin, &json!({"key": "c0"})).expect("customer");
    let events = [event("a", "c0", 1, 1), event("b", "c0", 1, 10), event("c", "c0", 2, 100)];
    load::send(&mut admin, Door::Ingest, &events.iter().collect::<Vec<_>>()).expect("events");
    (db, admin)
}

/// Runs `second` while a transaction holds what `first` did, lets that end, and gives the second's answer.
fn meet(db: &Db, admin: &mut Client, first: &str, second: &str, commit: bool) -> Result<String, String> {
    let mut holder = db.connect_as("billing_operator");
    let mut open = holder.transaction().expect("begin");
    ask(&mut open, first).map_err(|e| told(&e))?;
    thread::scope(|scope| {
        let other = scope.spawn(|| ask(&mut db.connect_as("billing_operator"), second).map_err(|e| told(&e)));
        load::wait_until("the second waits", || waits(admin));
        if commit {
            open.commit().expect("commit");
        } else {
            open.rollback().expect("rollback");
        }
        other.join().expect("the second")
    })
}

#[test]
fn of_two_corrections_of_one_event_the_second_finds_what_the_first_left() {
    let (db, mut admin) = three_events("corrections_two");
    assert_eq!(tokens(&mut admin), 222);
    // Both void it: one did.
    assert_eq!(meet(&db, &mut admin, &void("a"), &void("a"), true).as_deref(), Ok("already void"));
    assert_eq!(tokens(&mut admin), 220);
    // The first takes its word back.
    assert_eq!(meet(&db, &mut admin, &void("b"), &void("b"), false).as_deref(), Ok("void"));
    assert_eq!(tokens(&mut admin), 200);
    // Both amend it: the second amends what the first made of it.
    assert_eq!(meet(&db, &mut admin, &amend("c", 7), &amend("c", 9), true).as_deref(), Ok("amended"));
    assert_eq!(tokens(&mut admin), 9);
    assert_eq!(meet(&db, &mut admin, &amend("c", 8), &amend("c", 8), true).as_deref(), Ok("unchanged"));
    assert_eq!(meet(&db, &mut admin, &amend("c", 5), &void("c"), true).as_deref(), Ok("void"));
    assert_eq!(tokens(&mut admin), 0);
    assert_eq!(meet(&db, &mut admin, &amend("a", 3), &amend("a", 4), true).as_deref(), Ok("amended"));
    assert_eq!(tokens(&mut admin), 4);
    assert_eq!(db.verify(), Vec::<String>::new());
    admin.batch_execute("CALL billing.fold()").expect("fold");
    assert_eq!(tokens(&mut admin), 4);
    assert_eq!(load::usage_differences(&mut admin), Vec::<String>::new());
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_correction_in_an_older_snapshot_is_refused_and_never_counted_twice() {
    let (db, mut admin) = three_events("corrections_snapshot");
    let mut older = db.connect_as("billing_operator");
    let mut open = with_snapshot(&mut older, IsolationLevel::RepeatableRead);
    assert_eq!(ask(&mut admin, &void("a")).expect("void"), "void");
    let refused = common::refusal(ask(&mut open, &void("a")));
    assert_eq!(refused.code, "40001", "{refused:?}");
    drop(open);
    assert_eq!(tokens(&mut admin), 220);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_void_beside_an_ingest_of_the_same_id_sees_it_or_does_not() {
    let (db, mut admin) = three_events("corrections_ingest");
    let mut sender = db.connect_as("billing_app");
    let mut operator = db.connect_as("billing_operator");
    // Not committed: not known. It does not wait.
    let mut open = sender.transaction().expect("begin");
    load::send(&mut open, Door::Ingest, &[&event("d", "c0", 3, 1000)]).expect("ingest");
    let unknown = common::refusal(ask(&mut operator, &void("d")));
    assert_eq!(unknown.code, "ZB001", "{unknown:?}");
    open.commit().expect("commit");
    assert_eq!(ask(&mut operator, &void("d")).expect("void"), "void");
    // Sent again while a void is open: a duplicate, and void afterwards.
    let mut open = operator.transaction().expect("begin");
    assert_eq!(ask(&mut open, &void("a")).expect("void"), "void");
    let again = load::send(&mut sender, Door::Ingest, &[&event("a", "c0", 1, 1)]).expect("again");
    assert_eq!((again.duplicate, again.conflicting), (1, 0));
    open.commit().expect("commit");
    // The amended content conflicts until the amendment is committed, and is a duplicate then.
    let mut amended = event("b", "c0", 1, 10);
    amended.properties = BTreeMap::from([("model", json!("m")), ("input", json!(5)), ("output", json!(0))]);
    let mut open = operator.transaction().expect("begin");
    assert_eq!(ask(&mut open, &amend("b", 5)).expect("amend"), "amended");
    let early = load::send(&mut sender, Door::Ingest, &[&amended]).expect("early");
    assert_eq!((early.duplicate, early.conflicting), (0, 1));
    open.commit().expect("commit");
    let late = load::send(&mut sender, Door::Ingest, &[&amended]).expect("late");
    assert_eq!((late.duplicate, late.conflicting), (1, 0));
    assert_eq!(tokens(&mut admin), 205);
    assert_eq!(db.verify(), Vec::<String>::new());
    admin.batch_execute("CALL billing.fold()").expect("fold");
    assert_eq!(load::usage_differences(&mut admin), Vec::<String>::new());
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// What a client was told, by word.
type Told = BTreeMap<String, i64>;

fn correct(client: &mut Client, rng: &mut Rng, rounds: usize, ids: usize) -> Result<Told, String> {
    let mut told_words = Told::new();
    for _ in 0..rounds {
        let id = format!("e{}", rng.below(ids));
        let (word, sure) = match rng.below(10) {
            0..4 => (ask(client, &void(&id)), true),
            4..8 => {
                let mut call = amend(&id, rng.below(4) as u64);
                if rng.chance(50) {
                    let (month, day) = (1 + rng.below(3), 1 + rng.below(28));
                    call = call.replace(
                        "'test',",
                        &format!("'test', occurred_at => '2025-{month:02}-{day:02}T07:00:00Z',"),
                    );
                }
                (ask(client, &call), true)
            }
            _ => {
                // Done, then taken back.
                let mut open = client.transaction().map_err(|e| told(&e))?;
                let word = ask(&mut open, &void(&id));
                open.rollback().map_err(|e| told(&e))?;
                (word, false)
            }
        };
        let word = word.map_err(|e| told(&e))?;
        if sure {
            *told_words.entry(word).or_default() += 1;
        }
    }
    Ok(told_words)
}

#[test]
fn many_correct_the_same_events_while_they_are_sent_again_and_folded() {
    const IDS: usize = 12;
    let mut rng = load::seed("many correct");
    let db = Db::fresh("corrections_many");
    let mut admin = load::prepare(&db);
    load::upsert_customer(&mut admin, &json!({"key": "c0", "time_zone": "Asia/Kathmandu"}))
        .expect("customer");
    let events: Vec<Event> = (0..IDS).map(|n| event(&format!("e{n}"), "c0", 1 + n % 3, n as u64)).collect();
    load::send(&mut admin, Door::Ingest, &events.iter().collect::<Vec<_>>()).expect("events");
    let done = AtomicBool::new(false);
    let mut words = Told::new();
    thread::scope(|scope| {
        let (db, events, done) = (&db, &events, &done);
        let fold = scope.spawn(move || {
            let mut client = db.connect_as("billing_operator");
            while !done.load(Ordering::SeqCst) {
                client.batch_execute("CALL billing.fold()").map_err(|e| told(&e))?;
                thread::sleep(Duration::from_millis(5));
            }
            Ok::<_, String>(())
        });
        let sender = scope.spawn(move || {
            let mut client = db.connect_as("billing_app");
            let batch: Vec<&Event> = events.iter().collect();
            while !done.load(Ordering::SeqCst) {
                let again = load::send(&mut client, Door::Ingest, &batch).map_err(|e| told(&e))?;
                if again.duplicate != again.sent {
                    return Err(format!("{again:?}"));
                }
                thread::sleep(Duration::from_millis(3));
            }
            Ok(())
        });
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let mut rng = rng.fork();
                scope.spawn(move || correct(&mut db.connect_as("billing_operator"), &mut rng, 40, IDS))
            })
            .collect();
        let answers: Vec<_> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
        done.store(true, Ordering::SeqCst);
        fold.join().expect("fold").expect("no error reaches fold");
        sender.join().expect("the sender").expect("what is sent again is a duplicate");
        for answer in answers {
            for (word, times) in answer.expect("no error reaches a client") {
                *words.entry(word).or_default() += times;
            }
        }
    });
    println!("{words:?}");
    let count = |word: &str| words.get(word).copied().unwrap_or_default();
    let mut number = |what: &str| -> i64 { admin.query_one(what, &[]).expect("a count").get(0) };
    // Each word a client heard is a row, and there is no other.
    let revisions = number("SELECT count(*) FROM billing.usage_event WHERE revision > 0");
    assert_eq!(revisions, count("amended") + count("restored"));
    let voids = number("SELECT count(*) FROM billing.usage_event_void");
    assert_eq!(voids, count("void") + count("amended"));
    let audited = number("SELECT count(*) FROM billing.audit_log WHERE kind = 'event'");
    assert_eq!(audited, count("void") + count("amended") + count("restored"));
    assert_eq!(number("SELECT count(*) FROM billing.rejected_event"), 0);
    // Revisions of an event follow each other: all but the last have ended.
    let broken = number(
        "SELECT count(*) FROM (SELECT e.event_key, max(e.revision) + 1 AS size, count(*) AS stored, count(v.revision) AS ended
           FROM billing.usage_event e LEFT JOIN billing.usage_event_void v USING (customer_id, event_key, revision) GROUP BY 1) x
         WHERE size <> stored OR stored - ended NOT IN (0, 1)",
    );
    assert_eq!(broken, 0);
    assert_eq!(db.verify(), Vec::<String>::new());
    admin.batch_execute("CALL billing.fold()").expect("fold");
    assert_eq!(load::usage_differences(&mut admin), Vec::<String>::new());
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn rejected_events_that_many_retry_are_resolved_once() {
    let mut rng = load::seed("retries");
    let db = Db::fresh("corrections_retry");
    let mut admin = load::prepare(&db);
    let events: Vec<Event> = (0..300).map(|n| event(&format!("e{}", n % 200), "c0", 1, 1)).collect();
    let sent = load::send(&mut admin, Door::Ingest, &events.iter().collect::<Vec<_>>()).expect("events");
    assert_eq!(sent.rejected, 300);
    load::upsert_customer(&mut admin, &json!({"key": "c0"})).expect("customer");
    let totals: Vec<(i64, i64)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (db, mut rng) = (&db, rng.fork());
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_operator");
                    let (mut accepted, mut duplicate) = (0, 0);
                    for _ in 0..40 {
                        let call = format!(
                            "SELECT accepted, duplicate FROM billing.rejected_event_retry({})",
                            5 + rng.below(30)
                        );
                        let row = client.query_one(&call, &[]).expect("no error reaches a client");
                        accepted += row.get::<_, i64>(0);
                        duplicate += row.get::<_, i64>(1);
                    }
                    (accepted, duplicate)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    assert_eq!(totals.iter().map(|total| total.0).sum::<i64>(), 200);
    assert_eq!(totals.iter().map(|total| total.1).sum::<i64>(), 100);
    let open: i64 = admin
        .query_one("SELECT count(*) FROM billing.rejected_event WHERE resolved_at IS NULL", &[])
        .expect("a count")
        .get(0);
    assert_eq!(open, 0);
    assert_eq!(tokens(&mut admin), 400);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_limit_lets_pass_what_it_says_however_many_send() {
    const RATE: i64 = 50;
    const BURST: i64 = 20;
    let mut rng = load::seed("limit");
    let db = Db::fresh("corrections_limit");
    let mut admin = load::prepare(&db);
    for key in ["c0", "c1"] {
        load::upsert_customer(&mut admin, &json!({"key": key})).expect("customer");
    }
    admin.query_one(&format!("SELECT billing.ingest_limit_set('c0', {RATE}, {BURST})"), &[]).expect("limit");
    let start = Instant::now();
    let accepted: Vec<(i64, i64)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|who| {
                let (db, mut rng) = (&db, rng.fork());
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_app");
                    let (mut limited, mut free) = (0, 0);
                    for n in 0.. {
                        if start.elapsed() > Duration::from_secs(2) {
                            break;
                        }
                        let size = 1 + rng.below(4);
                        let batch: Vec<Event> =
                            (0..size).map(|i| event(&format!("{who}-{n}-{i}"), "c0", 1, 1)).collect();
                        match load::send(&mut client, Door::Ingest, &batch.iter().collect::<Vec<_>>()) {
                            Ok(answer) => limited += answer.accepted,
                            Err(error) => {
                                let refused = common::refusal::<()>(Err(error));
                                assert_eq!(refused.code, "ZB013", "{refused:?}");
                            }
                        }
                        let other = event(&format!("{who}-{n}"), "c1", 1, 1);
                        free += load::send(&mut client, Door::Ingest, &[&other]).expect("no limit").accepted;
                    }
                    (limited, free)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    let most = BURST + (start.elapsed().as_millis() as i64 * RATE) / 1000;
    let limited: i64 = accepted.iter().map(|a| a.0).sum();
    let free: i64 = accepted.iter().map(|a| a.1).sum();
    println!("{limited} of at most {most} passed, {free} without a limit");
    assert!(limited <= most, "{limited} passed, at most {most} may");
    assert!(limited >= BURST, "{limited} passed");
    let stored = |admin: &mut Client, key: &str| -> i64 {
        let stored = "SELECT count(*) FROM billing.usage_event JOIN billing.customer USING (customer_id) WHERE key = $1";
        admin.query_one(stored, &[&key]).expect("a count").get(0)
    };
    assert_eq!(stored(&mut admin, "c0"), limited, "a refused call stores nothing");
    assert_eq!(stored(&mut admin, "c1"), free);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn two_calls_that_meet_two_limited_customers_do_not_deadlock() {
    let db = Db::fresh("corrections_limits");
    let mut admin = load::prepare(&db);
    for key in ["c0", "c1"] {
        load::upsert_customer(&mut admin, &json!({"key": key})).expect("customer");
        admin
            .query_one(&format!("SELECT billing.ingest_limit_set('{key}', 1000000, 1000000)"), &[])
            .expect("limit");
    }
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|who| {
                let db = &db;
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_app");
                    for n in 0..60 {
                        let mut batch = [
                            event(&format!("{who}-{n}"), "c0", 1, 1),
                            event(&format!("{who}-{n}"), "c1", 1, 1),
                        ];
                        if who % 2 == 0 {
                            batch.reverse();
                        }
                        let batch: Vec<&Event> = batch.iter().collect();
                        load::send(&mut client, Door::Ingest, &batch).map_err(|e| told(&e))?;
                    }
                    Ok::<_, String>(())
                })
            })
            .collect();
        for client in clients {
            client.join().expect("a client").expect("no error reaches a client");
        }
    });
    assert_eq!(tokens(&mut admin), 480);
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// Two months of customer c0 on a contract, January billed; the clock is on 1 March.
fn billed_january(name: &str) -> (Db, Client) {
    let db = Db::fresh(name);
    let mut admin = db.connect();
    admin
        .batch_execute(
            r#"SELECT billing.test_clock_set('2026-02-01Z');
            SELECT billing.catalog_apply('{"products":[{"key":"p","name":"P"}],"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n"},{"key":"peak","event_type":"use","aggregation":"max","value":"n"}],
                "price_books":[{"key":"list","currency":"USD","prices":[{"key":"q","meter":"q","pricing":{"model":"per_unit","unit_price":"1"}}]}],
                "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"q"}]}]}');
            SELECT billing.customer_upsert('{"key":"c0"}'), billing.customer_upsert('{"key":"c1"}');
            SELECT billing.subscribe('c0', 'pro', '2026-01-01');
            SELECT billing.ingest_event('c0', 'use', 'jan', '2026-01-10Z', '{"n":10,"cached":4}');
            SELECT billing.ingest_event('c0', 'use', 'more', '2026-01-10Z', '{"n":7,"cached":0}')"#,
        )
        .expect("data");
    admin.batch_execute("CALL billing.bill_run()").expect("January");
    admin
        .batch_execute(
            "SELECT billing.test_clock_set('2026-03-01Z'); SELECT billing.ingest_event('c0', 'use', 'feb', '2026-02-10Z', '{\"n\":1}')",
        )
        .expect("February");
    (db, admin)
}

fn total(admin: &mut Client) -> i64 {
    admin.query_one("SELECT sum(amount)::bigint FROM billing.invoice_line", &[]).expect("lines").get(0)
}

/// A meter that changes notes what was billed by it without the stripes: what is noted while a bill is on its way is
/// billed by the next.
#[test]
fn what_is_noted_while_a_bill_runs_is_for_the_next_bill() {
    let (db, mut admin) = billed_january("corrections_note_in_flight");
    // The change of the meter finds an ingest in flight, so its rebuild is left to the job.
    let mut sender = db.connect();
    let mut flight = sender.transaction().expect("begin");
    ask(
        &mut flight,
        "SELECT billing.ingest_event('c0', 'use', 'flight', '2026-02-11Z', '{\"n\":1,\"cached\":0}')",
    )
    .expect("ingest");
    admin
        .batch_execute(r#"SELECT billing.catalog_apply('{"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n - coalesce(cached, 0)","valid_from":"2026-01-01T00:00:00Z"}]}')"#)
        .expect("a changed meter");
    flight.commit().expect("commit");
    let run: String = admin.query_one("SELECT billing.meter_rebuild_start()::text", &[]).expect("run").get(0);
    let step = format!("SELECT billing.meter_rebuild_step('{run}')");
    admin.query(step.as_str(), &[]).expect("the barrier");
    // A bill run waits for the number series; meanwhile the rebuild lists and notes.
    let mut other = db.connect();
    let mut holds = other.transaction().expect("begin");
    holds.query("SELECT FROM billing.invoice_number_series FOR UPDATE", &[]).expect("the series");
    let biller = thread::spawn({
        let mut client = db.connect();
        move || client.batch_execute("CALL billing.bill_run()").expect("bill run")
    });
    load::wait_until("the bill run waits", || waits(&mut admin));
    admin.query(step.as_str(), &[]).expect("lists and notes");
    holds.commit().expect("commit");
    biller.join().expect("the bill run ends");
    admin.batch_execute("CALL billing.meter_rebuild()").expect("mended");
    admin.batch_execute("SELECT billing.test_clock_set('2026-04-01Z')").expect("clock");
    admin.batch_execute("CALL billing.bill_run()").expect("the next bill");
    assert_eq!(total(&mut admin), 10 + 7 - 4 + 1 + 1);
    assert_eq!(db.verify(), [""; 0]);
}

/// Retention begun beside a void that is not committed waits for it, and the void is measured before events go.
#[test]
fn retention_waits_for_corrections() {
    let (db, mut admin) = billed_january("corrections_retention");
    admin
        .batch_execute("CALL billing.bill_run()")
        .and_then(|()| admin.batch_execute("SELECT billing.test_clock_set('2026-03-20Z'); SELECT billing.policy_set('event_age_max', '30 days'); SELECT billing.event_retention_set('use', '30 days')"))
        .expect("retention");
    let mut corrector = db.connect();
    let mut correction = corrector.transaction().expect("begin");
    assert_eq!(ask(&mut correction, &void("jan")).expect("void"), "void");
    let remover = thread::spawn({
        let mut client = db.connect();
        move || client.batch_execute("CALL billing.retention()").expect("retention")
    });
    load::wait_until("retention waits", || waits(&mut admin));
    correction.commit().expect("commit");
    remover.join().expect("retention ends");
    for job in ["CALL billing.fold()", "CALL billing.retention()"] {
        admin.batch_execute(job).expect(job);
    }
    let peak = "SELECT quantity::bigint FROM billing.usage('c0', 'peak', '2026-01-01Z', '2026-02-01Z')";
    assert_eq!(admin.query_one(peak, &[]).expect("peak").get::<_, i64>(0), 7);
    assert_eq!(db.verify(), [""; 0]);
}

/// A caller with an older snapshot can't know what was billed since, so it is told to retry rather than to leave a late
/// event unnoticed; of customers in other stripes it hears nothing.
#[test]
fn an_older_snapshot_does_not_ingest_past_a_bill() {
    let (db, mut admin) = billed_january("corrections_older");
    let mut sender = db.connect();
    let late = "SELECT billing.ingest_event('c0', 'use', 'late', '2026-02-12Z', '{\"n\":100}')";
    let mut old = with_snapshot(&mut sender, IsolationLevel::RepeatableRead);
    admin.batch_execute("CALL billing.bill_run()").expect("February");
    ask(&mut old, "SELECT billing.ingest_event('c1', 'use', 'other', '2026-02-12Z', '{\"n\":1}')")
        .expect("another stripe");
    let refused = ask(&mut old, late).expect_err("a bill since");
    assert_eq!(refused.code().map(|code| code.code()), Some("40001"), "{refused}");
    old.rollback().expect("rollback");
    assert_eq!(ask(&mut sender, late).expect("again"), "accepted");
    // A contract activated since is as bad as one billed since.
    let mut old = with_snapshot(&mut sender, IsolationLevel::RepeatableRead);
    admin.batch_execute("SELECT billing.subscribe('c1', 'pro', '2026-01-01')").expect("a contract");
    admin.batch_execute("CALL billing.bill_run()").expect("January and February of c1");
    let refused =
        ask(&mut old, "SELECT billing.ingest_event('c1', 'use', 'late', '2026-01-12Z', '{\"n\":1}')");
    assert_eq!(refused.expect_err("billed since").code().map(|code| code.code()), Some("40001"));
    old.rollback().expect("rollback");
    admin.batch_execute("SELECT billing.test_clock_set('2026-04-01Z')").expect("clock");
    admin.batch_execute("CALL billing.bill_run()").expect("March");
    assert_eq!(total(&mut admin), 10 + 7 + 1 + 100);
    assert_eq!(db.verify(), [""; 0]);
}

/// Nor does it correct past one: what a void, or a stretch replaced by nothing, takes back was billed since, and has to
/// be noted.
#[test]
fn an_older_snapshot_does_not_correct_past_a_bill() {
    let (db, mut admin) = billed_january("corrections_older_void");
    let mut corrector = db.connect();
    for (isolation, correction) in [
        (IsolationLevel::RepeatableRead, void("feb")),
        (
            IsolationLevel::Serializable,
            "SELECT voided::text FROM billing.event_replace('c0', 'use', '2026-02-01Z', '2026-03-01Z', '[]', 'test', false)"
                .to_owned(),
        ),
    ] {
        let mut old = with_snapshot(&mut corrector, isolation);
        admin.batch_execute("CALL billing.bill_run()").expect("what is due");
        let answer = ask(&mut old, &correction);
        match answer {
            Err(refused) => assert_eq!(refused.code().map(|code| code.code()), Some("40001"), "{refused}"),
            Ok(answer) => panic!("{answer} past a bill"),
        }
        old.rollback().expect("rollback");
        // The next month is billed beside the second.
        admin
            .batch_execute("SELECT billing.test_clock_set(CASE WHEN billing.now() < '2026-04-01Z' THEN '2026-04-01Z'::timestamptz ELSE '2026-05-01Z' END)")
            .expect("clock");
    }
    assert_eq!(ask(&mut corrector, &void("feb")).expect("again"), "void");
    admin.batch_execute("CALL billing.bill_run()").expect("the difference");
    assert_eq!(total(&mut admin), 10 + 7);
    assert_eq!(db.verify(), [""; 0]);
}

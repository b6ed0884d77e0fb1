//! Limits asked by many sessions at once: a rate limit lets through exactly what it says, in shared memory and in rows, also where
//! the table is full, also after rollbacks; a hard budget is never overdrawn; an alert is told once; who reads the feed by number
//! misses nothing. And everything works on a server that does not preload the library.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::{Db, Server};
use postgres::Client;
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const CLIENTS: usize = 8;
const CLOCK: &str = "2026-06-01T00:00:00Z";

/// Which way rate limits take: `shared memory` or `row`.
fn way(client: &mut Client) -> String {
    client
        .query_one("SELECT state FROM billing.worker_status() WHERE part = 'rate_limits'", &[])
        .expect("worker_status")
        .get(0)
}

/// One request of customer 1 on a limit of a day, so that nothing comes back while a test runs.
fn take(client: &mut Client, customer: i64, burst: i64) -> bool {
    client
        .query_one(
            "SELECT allowed FROM billing_internal.rate_take($1, 1, 1, $2::bigint::numeric, per => '1 day')",
            &[&customer, &burst],
        )
        .expect("a request")
        .get(0)
}

/// How many of 8 × 100 requests pass; every third client rolls back what it did.
fn passed(db: &Db, burst: i64, rolls_back: bool) -> usize {
    let (passed, start) = (AtomicUsize::new(0), Barrier::new(CLIENTS));
    thread::scope(|scope| {
        for who in 0..CLIENTS {
            let (passed, start) = (&passed, &start);
            scope.spawn(move || {
                let mut client = db.connect();
                start.wait();
                for _ in 0..100 {
                    if rolls_back && who % 3 == 0 {
                        client.batch_execute("BEGIN").expect("begin");
                    }
                    passed.fetch_add(usize::from(take(&mut client, 1, burst)), Ordering::Relaxed);
                    if rolls_back && who % 3 == 0 {
                        client.batch_execute("ROLLBACK").expect("rollback");
                    }
                }
            });
        }
    });
    passed.into_inner()
}

#[test]
fn a_rate_limit_lets_exactly_its_burst_through_in_shared_memory() {
    let db = Db::fresh("limits_shared");
    assert_eq!(way(&mut db.connect()), "shared memory");
    assert_eq!(passed(&db, 137, true), 137, "a rollback gives nothing back");
    assert_eq!(load::count(&mut db.connect(), "billing.rate_state"), 0);
}

#[test]
fn a_rate_limit_lets_exactly_its_burst_through_in_a_row() {
    let db = Db::fresh("limits_row");
    db.connect().batch_execute(&format!("SELECT billing.test_clock_set('{CLOCK}')")).expect("a clock");
    assert_eq!(way(&mut db.connect()), "row");
    assert_eq!(passed(&db, 137, false), 137);
    assert_eq!(load::count(&mut db.connect(), "billing.rate_state"), 1);
}

/// 64 slots and 500 customers: those that find no room go to the table, and nobody gets more than is his.
#[test]
fn a_full_table_falls_back_to_rows() {
    let server = Server::spawn("limits-full");
    server.configure("billing.rate_limit_slots = 64");
    server.stop();
    server.start();
    let db = server.fresh("limits_full");
    let mut client = db.connect();
    for round in 0..3 {
        let passed: i64 = client
            .query_one(
                "SELECT count(*) FILTER (WHERE r.allowed) FROM generate_series(1, 500) c,
                 LATERAL billing_internal.rate_take(c, 1, 1, 2, CASE WHEN c > 0 THEN 1 END, per => '1 day') r",
                &[],
            )
            .expect("requests")
            .get(0);
        assert_eq!(passed, if round < 2 { 500 } else { 0 });
    }
    let row = client.query_one("SELECT used, size, hint FROM billing.worker_status()", &[]).expect("a row");
    let (used, size): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(size, 64);
    assert_eq!(used + load::count(&mut client, "billing.rate_state"), 500);
    assert!(row.get::<_, &str>(2).contains("billing.rate_limit_slots"));
}

/// Without preload: rows, which survive a restart and are gone after a crash; and the rest of the extension does not mind.
#[test]
fn a_server_that_does_not_preload() {
    let server = Server::spawn_without_preload("limits-plain");
    let db = server.fresh("limits_plain");
    assert_eq!(way(&mut db.connect()), "row");
    assert_eq!(passed(&db, 30, false), 30);
    server.stop();
    server.start();
    assert!(!take(&mut db.connect(), 1, 30), "a restart forgets nothing");
    server.kill9();
    server.start();
    assert_eq!(way(&mut db.connect()), "row");
    assert!(take(&mut db.connect(), 1, 30), "after a crash everybody begins anew");
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// A crash of one backend restarts the server: shared memory is made anew, and works.
#[test]
fn shared_memory_is_made_anew_after_a_crash() {
    let server = Server::spawn("limits-crash");
    let db = server.fresh("limits_crash");
    assert_eq!(passed(&db, 30, false), 30);
    server.kill9();
    server.start();
    assert_eq!(way(&mut db.connect()), "shared memory");
    assert_eq!(passed(&db, 30, false), 30);
}

fn prepared(db: &Db) -> Client {
    let mut client = db.connect();
    client
        .batch_execute(&format!(
            r#"SELECT billing.test_clock_set('{CLOCK}');
            SELECT count(*) FROM billing.catalog_apply('{{"products":[{{"key":"api","name":"API"}}],
              "meters":[{{"key":"tokens","event_type":"request","aggregation":"sum","value":"tokens","dimensions":["api_key"]}}],
              "price_books":[{{"key":"list","currency":"USD","prices":[{{"key":"tokens","meter":"tokens","pricing":{{"model":"per_unit","unit_price":"0.01"}}}}]}}],
              "plans":[{{"key":"pro","currency":"USD","price_book":"list","charges":[{{"key":"tokens","product":"api","meter":"tokens","price":"tokens"}}],
                "entitlements":[{{"feature":"tokens","value":null}}]}}],
              "features":[{{"key":"tokens","kind":"metered","meter":"tokens"}}]}}');
            SELECT billing.customer_upsert('{{"key":"hot","currency":"USD"}}');
            SELECT billing.subscribe('hot', 'pro', '2026-06-01')"#
        ))
        .expect("a customer");
    client
}

/// Each session asks for 3 tokens and, if it may, uses them, in one transaction: of 100 in the budget and 0.70 of money exactly
/// the smaller is used, to the last one that fits.
#[test]
fn a_hard_limit_is_never_overdrawn() {
    let db = Db::fresh("limits_hard");
    let mut admin = prepared(&db);
    admin
        .batch_execute(
            r#"SELECT billing.budget_set('hot', '{"key":"units","amount":"100","period":"month","match":{"api_key":"k"},"meter":"tokens"}');
            SELECT billing.spend_limit_set('hot', '{"key":"money","amount":"0.70","period":"billing_period"}')"#,
        )
        .expect("limits");
    let (used, start) = (AtomicUsize::new(0), Barrier::new(CLIENTS));
    thread::scope(|scope| {
        for who in 0..CLIENTS {
            let (db, used, start) = (&db, &used, &start);
            scope.spawn(move || {
                let mut client = db.connect();
                start.wait();
                for n in 0..6 {
                    let mut work = client.transaction().expect("begin");
                    let allowed: bool = work
                        .query_one(
                            "SELECT allowed FROM billing_internal.limits_check(1, 1, 3, '{\"api_key\":\"k\"}', NULL, NULL, billing.now(), 'allowed')",
                            &[],
                        )
                        .expect("a check")
                        .get(0);
                    if allowed {
                        work.execute(
                            "SELECT billing.ingest_event('hot', 'request', $1, billing.now(), '{\"tokens\":3,\"api_key\":\"k\"}')",
                            &[&format!("{who}/{n}")],
                        )
                        .expect("an event");
                        used.fetch_add(1, Ordering::Relaxed);
                    }
                    work.commit().expect("commit");
                }
            });
        }
    });
    assert_eq!(used.into_inner(), 23, "23 × 3 = 69 of 70 cents");
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// Half of the sessions consume, half reserve and confirm later: together they never have more than the budget and the money say.
#[test]
fn what_is_reserved_is_in_no_limit_twice() {
    let db = Db::fresh("limits_reserved");
    let mut admin = prepared(&db);
    admin
        .batch_execute(
            r#"SELECT billing.budget_set('hot', '{"key":"units","amount":"100","period":"month","match":{"api_key":"k"},"meter":"tokens"}');
            SELECT billing.spend_limit_set('hot', '{"key":"money","amount":"0.70","period":"billing_period"}')"#,
        )
        .expect("limits");
    let (given, start) = (AtomicUsize::new(0), Barrier::new(CLIENTS));
    thread::scope(|scope| {
        for who in 0..CLIENTS {
            let (db, given, start) = (&db, &given, &start);
            scope.spawn(move || {
                let mut client = db.connect();
                start.wait();
                for n in 0..6 {
                    let key = format!("{who}/{n}");
                    let sql = match who % 2 {
                        0 => "SELECT result, NULL FROM billing.consume('hot', 'tokens', 3, $1, '{\"api_key\":\"k\"}')",
                        _ => "SELECT result, reservation_id::text FROM billing.reservation_create('hot', 'tokens', 3, $1, properties => '{\"api_key\":\"k\"}')",
                    };
                    let row = client.query_one(sql, &[&key]).expect("an answer");
                    given.fetch_add(usize::from(row.get::<_, &str>(0) != "denied"), Ordering::Relaxed);
                    if let Some(id) = row.get::<_, Option<&str>>(1) {
                        client
                            .query_one("SELECT result FROM billing.reservation_confirm($1::text::uuid)", &[&id])
                            .expect("it was used");
                    }
                }
            });
        }
    });
    assert_eq!(given.into_inner(), 23, "23 × 3 = 69 of 70 cents");
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// While somebody waits for a limit it is replaced: who goes on holds the one that holds now, so the next one waits, too.
#[test]
fn a_limit_is_replaced_while_it_is_waited_for() {
    let db = Db::fresh("limits_replaced");
    let mut admin = prepared(&db);
    let set = |amount: i64| {
        format!(
            r#"SELECT billing.budget_set('hot', '{{"key":"units","amount":"{amount}","period":"month","match":{{"api_key":"k"}},"meter":"tokens"}}')"#
        )
    };
    admin.batch_execute(&set(20)).expect("a budget");
    let consume = |client: &mut Client, quantity: i64, key: &str| -> String {
        let sql =
            "SELECT result FROM billing.consume('hot', 'tokens', $1::bigint, $2, '{\"api_key\":\"k\"}')";
        client.query_one(sql, &[&quantity, &key]).expect("an answer").get(0)
    };
    let mut waiting = |count: i64| {
        load::wait_until("sessions that wait", || {
            load::count(
                &mut admin,
                "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            ) >= count
        });
    };
    let (mut holds, mut waits, mut comes_later) = (db.connect(), db.connect(), db.connect());
    holds.batch_execute("BEGIN").expect("begin");
    assert_eq!(consume(&mut holds, 1, "first"), "consumed");
    thread::scope(|scope| {
        let sets = scope.spawn(|| db.connect().batch_execute(&set(11)).expect("another budget"));
        waiting(1);
        waits.batch_execute("BEGIN").expect("begin");
        let waited = scope.spawn(move || (consume(&mut waits, 10, "second"), waits));
        waiting(2);
        holds.batch_execute("COMMIT").expect("commit");
        sets.join().expect("the budget");
        let (result, mut waits) = waited.join().expect("an answer");
        assert_eq!(result, "consumed");
        let came_later = scope.spawn(|| consume(&mut comes_later, 10, "third"));
        waiting(1);
        waits.batch_execute("COMMIT").expect("commit");
        assert_eq!(came_later.join().expect("an answer"), "denied");
    });
    let used: i64 = db
        .connect()
        .query_one("SELECT used::bigint FROM billing.budgets('hot')", &[])
        .expect("a budget")
        .get(0);
    assert_eq!(used, 11);
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// Sessions that cross the same thresholds at once, of usage and of credit: each is told once.
#[test]
fn an_alert_is_told_once() {
    let db = Db::fresh("limits_alerts");
    let mut admin = prepared(&db);
    admin
        .batch_execute(
            r#"SELECT billing.credit_grant_create('hot', '{"amount":"48","unit":"credits"}');
            SELECT billing.alert_rule_set('hot', '{"key":"use","kind":"usage","meter":"tokens","period":"month","of":"48","thresholds":["25%","50%","100%","49"]}');
            SELECT billing.alert_rule_set('hot', '{"key":"low","kind":"credit","unit":"credits","thresholds":["50%","0"]}')"#,
        )
        .expect("rules");
    let (told, start) = (AtomicUsize::new(0), Barrier::new(CLIENTS));
    thread::scope(|scope| {
        for who in 0..CLIENTS {
            let (db, told, start) = (&db, &told, &start);
            scope.spawn(move || {
                let mut client = db.connect();
                start.wait();
                for n in 0..6 {
                    let row = client
                        .query_one(
                            "SELECT billing.ingest_event('hot', 'request', $1, billing.now(), '{\"tokens\":1}'),
                                (SELECT result FROM billing.draw_down('hot', 1, $1, 'credits'))",
                            &[&format!("{who}/{n}")],
                        )
                        .expect("usage and a draw");
                    assert_eq!(row.get::<_, &str>(1), "drawn");
                    let new: i64 = client.query_one("SELECT billing_internal.alerts_look(1)", &[]).expect("a look").get(0);
                    told.fetch_add(usize::try_from(new).expect("a count"), Ordering::Relaxed);
                }
            });
        }
    });
    let feed: Vec<String> = admin
        .query("SELECT subject || ' ' || (payload->>'threshold') FROM billing.events_after() ORDER BY 1", &[])
        .expect("the feed")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(feed, ["low 0", "low 50%", "use 100%", "use 25%", "use 50%"]);
    // Those of usage, and what of credit the draw that crossed did not tell.
    let told = told.into_inner();
    assert!((3..=5).contains(&told), "looks told {told}");
}

/// Writers whose transactions overlap, some rolled back, and readers that go on after the last number they saw: each reader sees
/// every entry that was committed, once, in one order, numbered without gaps.
#[test]
fn readers_of_the_feed_miss_nothing() {
    let db = Db::fresh("limits_feed");
    prepared(&db);
    let done = AtomicBool::new(false);
    let seen: Vec<Vec<(i64, String)>> = thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (db, done) = (&db, &done);
                scope.spawn(move || {
                    let mut client = db.connect();
                    let (mut seen, mut last) = (Vec::new(), 0_i64);
                    loop {
                        let ends = done.load(Ordering::SeqCst);
                        let rows = client
                            .query("SELECT n, payload->>'id' FROM billing.events_after($1, 7)", &[&last])
                            .expect("the feed");
                        for row in &rows {
                            last = row.get(0);
                            seen.push((last, row.get::<_, String>(1)));
                        }
                        if rows.is_empty() && ends {
                            return seen;
                        }
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..CLIENTS)
            .map(|who| {
                let db = &db;
                scope.spawn(move || {
                    let mut client = db.connect();
                    for n in 0..25 {
                        let mut work = client.transaction().expect("begin");
                        let id = format!("{who}/{n}");
                        work.execute(
                            "SELECT billing_internal.alert_tell(1, 'alert.usage', 'x', $1, jsonb_build_object('id', $1::text))",
                            &[&id],
                        )
                        .expect("an entry");
                        thread::sleep(Duration::from_millis(u64::try_from((who * 7 + n) % 11).expect("small")));
                        if n % 5 == 4 {
                            work.rollback().expect("rollback");
                        } else {
                            work.commit().expect("commit");
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("a writer");
        }
        done.store(true, Ordering::SeqCst);
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    for reader in &seen {
        let numbers: Vec<i64> = reader.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, (1..=(CLIENTS * 20) as i64).collect::<Vec<_>>());
        let ids: BTreeSet<&String> = reader.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), CLIENTS * 20);
        assert_eq!(reader, &seen[0]);
    }
}

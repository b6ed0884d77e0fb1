//! The gate with many sessions at once: the last unit of a quota and the last seat are given once, a key counts once however
//! often and from wherever it is sent, a reservation is confirmed or expires but its part is never given twice while it holds, a
//! check sees every exception that was committed before it began, and a server killed between a consume and its answer counted
//! it once when it is sent again. Each test ends with `billing.verify('full')`.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::{Db, Server};
use load::told;
use postgres::Client;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CATALOGUE: &str = r#"{
    "meters": [{"key": "tokens", "event_type": "llm", "aggregation": "sum", "value": "tokens"},
               {"key": "seats", "event_type": "seat", "aggregation": "unique_count", "value": "seat", "operation": "operation"}],
    "features": [{"key": "tokens", "kind": "metered", "meter": "tokens"}, {"key": "seats", "kind": "seat", "meter": "seats"}, {"key": "sso", "kind": "boolean"}],
    "plans": [{"key": "p", "currency": "USD", "entitlements": [{"feature": "tokens", "value": "100"}, {"feature": "seats", "value": "5"}, {"feature": "sso"}]}]}"#;

fn prepare(db: &Db) -> Client {
    let mut client = db.connect();
    client
        .batch_execute(&format!(
            "SELECT billing.test_clock_set('2026-06-10T00:00:00Z');
             SELECT * FROM billing.catalog_apply('{CATALOGUE}');
             SELECT billing.customer_upsert('{{\"key\":\"hot\",\"currency\":\"USD\"}}');
             SELECT billing.subscribe('hot', 'p', '2026-06-01')"
        ))
        .expect("a customer with a plan");
    client
}

fn consume(client: &mut Client, quantity: i64, key: &str) -> Result<String, postgres::Error> {
    client
        .query_one("SELECT result FROM billing.consume('hot', 'tokens', $1::bigint, $2)", &[&quantity, &key])
        .map(|row| row.get(0))
}

fn used(client: &mut Client) -> i64 {
    client
        .query_one(
            "SELECT sum(quantity)::bigint FROM billing.usage('hot', 'tokens', '2026-06-01Z', '2026-07-01Z')",
            &[],
        )
        .expect("usage")
        .get(0)
}

/// What sixteen sessions get that ask at once.
fn sixteen<T: Send>(db: &Db, ask: impl Fn(&mut Client, usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(16);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|who| {
                let (barrier, ask) = (&barrier, &ask);
                scope.spawn(move || {
                    let mut client = db.connect();
                    client.batch_execute("SELECT billing.entitled('hot', 'tokens')").expect("warm");
                    barrier.wait();
                    ask(&mut client, who)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    })
}

#[test]
fn the_last_unit_is_given_once() {
    let db = Db::fresh("gate_last_unit");
    let mut admin = prepare(&db);
    assert_eq!(consume(&mut admin, 99, "before").expect("an answer"), "consumed");
    let results = sixteen(&db, |client, who| consume(client, 1, &format!("k{who}")).expect("an answer"));
    assert_eq!(results.iter().filter(|result| *result == "consumed").count(), 1, "{results:?}");
    assert_eq!(results.iter().filter(|result| *result == "denied").count(), 15, "{results:?}");
    assert_eq!(used(&mut admin), 100);
    // Of different sizes: never more than there is, and nothing is left that one of those refused would have fitted into.
    admin
        .batch_execute("SELECT billing.entitlement_override('hot', 'tokens', '150', NULL, 'more')")
        .expect("an exception");
    let results = sixteen(&db, |client, who| {
        let size = 1 + who as i64;
        (size, consume(client, size, &format!("s{who}")).expect("an answer"))
    });
    let given: i64 = results.iter().filter(|(_, result)| result == "consumed").map(|(size, _)| size).sum();
    assert_eq!(used(&mut admin), 100 + given);
    assert!(given <= 50, "{results:?}");
    assert!(results.iter().all(|(size, result)| result == "consumed" || given + size > 50), "{results:?}");
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// Two features of one meter, one for some of its usage only: the usage is one, so its last unit is given once, whichever is asked.
#[test]
fn the_last_unit_of_two_features_is_given_once() {
    let db = Db::fresh("gate_two_features");
    let mut admin = prepare(&db);
    admin
        .batch_execute(
            r#"SELECT billing.catalog_apply('{"meters":[{"key":"calls","event_type":"call","aggregation":"sum","value":"n","dimensions":["model"]}],
                "features":[{"key":"calls","kind":"metered","meter":"calls"},{"key":"big","kind":"metered","meter":"calls"}],
                "plans":[{"key":"q","currency":"USD","entitlements":[{"feature":"calls","value":"100"},{"feature":"big","value":"100","match":{"model":"big"}}]}]}');
            SELECT billing.customer_upsert('{"key":"two"}'), billing.subscribe('two', 'q', '2026-06-01');
            SELECT billing.consume('two', 'calls', 99, 'before', '{"model":"big"}')"#,
        )
        .map_err(|e| told(&e))
        .expect("a customer");
    let given = |results: &[String]| results.iter().filter(|result| *result != "denied").count();
    for (round, quota) in [100, 101, 102].into_iter().enumerate() {
        let results = sixteen(&db, |client, who| {
            let feature = ["calls", "big"][who % 2];
            // First all count, then all reserve, then some the one and some the other.
            let call = if [true, false, who < 8][round] {
                "SELECT result FROM billing.consume('two', $1, 1, $2, $3::text::jsonb)"
            } else {
                "SELECT result FROM billing.reservation_create('two', $1, 1, $2, '1 hour', $3::text::jsonb)"
            };
            let row = client.query_one(call, &[&feature, &format!("{round}-{who}"), &r#"{"model":"big"}"#]);
            row.map_err(|e| told(&e)).expect("an answer").get::<_, String>(0)
        });
        assert_eq!(given(&results), 1, "{quota}: {results:?}");
        let one_more = format!(
            "SELECT billing.entitlement_override('two', f, '{}', NULL, 'one more') FROM unnest('{{calls,big}}'::text[]) f",
            quota + 1
        );
        admin.batch_execute(&one_more).expect("exceptions");
    }
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// On the real clock a call's now is when its transaction began: what others counted since is counted all the same.
#[test]
fn who_began_earlier_and_asks_later_sees_what_was_used() {
    let db = Db::fresh("gate_real_clock");
    let mut admin = prepare(&db);
    admin
        .batch_execute(
            "SELECT billing.test_clock_set(NULL);
             SELECT * FROM billing.catalog_apply('{\"features\":[{\"key\":\"slides\",\"kind\":\"metered\",\"meter\":\"tokens\"},{\"key\":\"begins\",\"kind\":\"metered\",\"meter\":\"tokens\"}],
                \"plans\":[{\"key\":\"q\",\"currency\":\"USD\",\"entitlements\":[{\"feature\":\"slides\",\"value\":\"3\",\"reset\":{\"sliding\":\"24 hours\"}},{\"feature\":\"begins\",\"value\":\"3\",\"reset\":{\"first_use\":\"24 hours\"}},
                    {\"feature\":\"tokens\",\"value\":\"3\",\"reset\":\"never\"}]}]}');
             SELECT billing.customer_upsert('{\"key\":\"slides\"}'), billing.customer_upsert('{\"key\":\"begins\"}'), billing.customer_upsert('{\"key\":\"tokens\"}');
             SELECT billing.subscribe(c, 'q') FROM unnest('{slides,begins,tokens}'::text[]) c",
        )
        .map_err(|e| told(&e))
        .expect("three customers");
    for feature in ["slides", "begins", "tokens"] {
        let ask = |client: &mut Client, quantity: i64, key: &str| -> String {
            let sql = format!("SELECT result FROM billing.consume('{feature}', '{feature}', $1::bigint, $2)");
            client.query_one(&sql, &[&quantity, &key]).map_err(|e| told(&e)).expect("an answer").get(0)
        };
        let mut early = db.connect();
        early.batch_execute("BEGIN; SELECT billing.now()").expect("a transaction");
        assert_eq!(ask(&mut admin, 2, "later, and first"), "consumed", "{feature}");
        assert_eq!(ask(&mut early, 2, "too much"), "denied", "{feature}");
        assert_eq!(ask(&mut early, 1, "the last"), "consumed", "{feature}");
        early.batch_execute("COMMIT").expect("commit");
        assert_eq!(ask(&mut admin, 1, "none"), "denied", "{feature}");
    }
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_key_counts_once_from_wherever_it_is_sent() {
    let db = Db::fresh("gate_one_key");
    let mut admin = prepare(&db);
    let results = sixteen(&db, |client, _| consume(client, 7, "the same").expect("an answer"));
    assert_eq!(results.iter().filter(|result| *result == "consumed").count(), 1, "{results:?}");
    assert_eq!(results.iter().filter(|result| *result == "duplicate").count(), 15, "{results:?}");
    // Without a limit nothing is locked but the key.
    admin
        .batch_execute("SELECT billing.entitlement_override('hot', 'tokens', 'null', NULL, 'no end')")
        .expect("an exception");
    let results = sixteen(&db, |client, _| consume(client, 5, "unlimited").expect("an answer"));
    assert_eq!(results.iter().filter(|result| *result == "consumed").count(), 1, "{results:?}");
    assert_eq!(used(&mut admin), 12);
    // Of two different calls with one key, one is refused.
    let results = sixteen(&db, |client, who| consume(client, 1 + (who % 2) as i64, "other"));
    let refused = results.iter().filter_map(|result| result.as_ref().err()).collect::<Vec<_>>();
    assert_eq!(refused.len(), 8, "{results:?}");
    assert!(refused.iter().all(|error| told(error).contains("ZB009")), "{refused:?}");
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn seats_are_given_up_to_the_limit() {
    let db = Db::fresh("gate_seats");
    let mut admin = prepare(&db);
    // Eight users, each asked for from two sessions.
    let results = sixteen(&db, |client, who| {
        let row = client
            .query_one(
                "SELECT result FROM billing.seat_assign('hot', 'seats', $1)",
                &[&format!("u{}", who % 8)],
            )
            .expect("an answer");
        row.get::<_, String>(0)
    });
    assert_eq!(results.iter().filter(|result| *result == "assigned").count(), 5, "{results:?}");
    let there = "SELECT used::bigint FROM billing.entitlement_check('hot', 'seats')";
    assert_eq!(admin.query_one(there, &[]).expect("seats").get::<_, i64>(0), 5);
    let results = sixteen(&db, |client, who| {
        let row = client
            .query_one(
                "SELECT result FROM billing.seat_release('hot', 'seats', $1)",
                &[&format!("u{}", who % 8)],
            )
            .expect("an answer");
        row.get::<_, String>(0)
    });
    assert_eq!(results.iter().filter(|result| *result == "released").count(), 5, "{results:?}");
    assert_eq!(admin.query_one(there, &[]).expect("seats").get::<_, i64>(0), 0);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_reservation_is_confirmed_while_it_expires() {
    let db = Db::fresh("gate_reservation");
    let mut admin = prepare(&db);
    for round in 0..5 {
        let id: String = admin
            .query_one(
                "SELECT reservation_id::text FROM billing.reservation_create('hot', 'tokens', 20, $1, '1 second')",
                &[&format!("r{round}")],
            )
            .expect("a reservation")
            .get(0);
        // Its last instant has come; some confirm, some tidy, some ask for what it held.
        let clock = format!("SELECT billing.test_clock_set('2026-06-10T00:{:02}:01Z')", round);
        admin.batch_execute(&clock).expect("the clock");
        let results = sixteen(&db, |client, who| match who % 3 {
            0 => {
                let row = client
                    .query_one("SELECT result FROM billing.reservation_confirm($1::text::uuid, 10)", &[&id])
                    .expect("it happened, so it counts");
                row.get::<_, String>(0)
            }
            1 => {
                client.query_one("SELECT billing.reservation_expiry_step()", &[]).expect("a step");
                String::new()
            }
            _ => {
                client
                    .query_one("SELECT remaining FROM billing.entitlement_check('hot', 'tokens')", &[])
                    .expect("a check");
                String::new()
            }
        });
        assert_eq!(results.iter().filter(|result| *result == "confirmed").count(), 1, "{results:?}");
        assert_eq!(results.iter().filter(|result| *result == "duplicate").count(), 5, "{results:?}");
        assert_eq!(used(&mut admin), 10 * (round + 1));
        admin
            .batch_execute(&format!("SELECT billing.test_clock_set('2026-06-10T00:{:02}:00Z')", round + 1))
            .expect("the clock");
    }
    let late: i64 = admin
        .query_one("SELECT count(*) FROM billing.reservation WHERE outcome = 'confirmed' AND was_late", &[])
        .expect("rows")
        .get(0);
    assert_eq!(late, 5);
    // While they hold, what is reserved and what is consumed never exceed the quota together: 50 are left.
    let results = sixteen(&db, |client, who| {
        let call = match who % 2 {
            0 => "SELECT result FROM billing.reservation_create('hot', 'tokens', 7, $1)",
            _ => "SELECT result FROM billing.consume('hot', 'tokens', 7, $1)",
        };
        client.query_one(call, &[&format!("both{who}")]).expect("an answer").get::<_, String>(0)
    });
    assert_eq!(results.iter().filter(|result| *result != "denied").count(), 7, "{results:?}");
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// A window that begins with the first use begins with the first reservation that is confirmed, and once.
#[test]
fn reservations_share_the_window_that_the_first_began() {
    let db = Db::fresh("gate_first_use");
    let mut admin = prepare(&db);
    admin
        .batch_execute(
            "SELECT billing.test_clock_set(NULL);
             SELECT * FROM billing.catalog_apply('{\"features\":[{\"key\":\"begins\",\"kind\":\"metered\",\"meter\":\"tokens\"}],
                \"plans\":[{\"key\":\"q\",\"currency\":\"USD\",\"entitlements\":[{\"feature\":\"begins\",\"value\":\"5\",\"reset\":{\"first_use\":\"24 hours\"}}]}]}');
             SELECT billing.customer_upsert('{\"key\":\"new\"}'), billing.subscribe('new', 'q')",
        )
        .map_err(|e| told(&e))
        .expect("a customer");
    let results = sixteen(&db, |client, who| {
        let row = client
            .query_one(
                "SELECT result, reservation_id::text FROM billing.reservation_create('new', 'begins', 1, $1)",
                &[&format!("r{who}")],
            )
            .expect("an answer");
        if let Some(id) = row.get::<_, Option<&str>>(1) {
            client
                .query_one("SELECT result FROM billing.reservation_confirm($1::text::uuid)", &[&id])
                .expect("it was used");
        }
        row.get::<_, String>(0)
    });
    assert_eq!(results.iter().filter(|result| *result == "reserved").count(), 5, "{results:?}");
    assert_eq!(load::count(&mut admin, "billing.entitlement_window"), 1);
    let row = admin
        .query_one(
            "SELECT used::bigint, resets_at > now() FROM billing.entitlement_check('new', 'begins', 0)",
            &[],
        )
        .expect("a check");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (5, true));
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_check_sees_what_was_committed_before_it() {
    let db = Db::fresh("gate_exception");
    let (mut admin, mut asks) = (prepare(&db), db.connect());
    let mut prepared = asks
        .prepare("SELECT billing.entitled('hot', 'sso'), billing.entitled('hot', 'tokens', 500)")
        .expect("a statement");
    let mut ask = |expected: (bool, bool)| {
        let row = asks.query_one(&prepared, &[]).expect("an answer");
        assert_eq!((row.get::<_, bool>(0), row.get::<_, bool>(1)), expected);
        prepared = asks
            .prepare("SELECT billing.entitled('hot', 'sso'), billing.entitled('hot', 'tokens', 500)")
            .expect("a statement");
    };
    for round in 0..50 {
        ask((true, false));
        let until = if round % 2 == 0 { "NULL" } else { "'2026-06-11Z'" };
        admin
            .batch_execute(&format!(
                "SELECT billing.entitlement_override('hot', 'sso', 'false', {until}, 'test'); SELECT billing.entitlement_override('hot', 'tokens', '1000', {until}, 'test')"
            ))
            .expect("exceptions");
        ask((false, true));
        admin
            .batch_execute("SELECT billing.entitlement_override_end('hot', 'sso', 'test'); SELECT billing.entitlement_override_end('hot', 'tokens', 'test')")
            .expect("their end");
    }
    ask((true, false));
    // In one transaction that reads committed rows, too; one that keeps its snapshot keeps its answer.
    let mut keeps = db.connect();
    asks.batch_execute("BEGIN").expect("begin");
    keeps
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT billing.entitled('hot', 'sso')")
        .expect("begin");
    admin.batch_execute("SELECT billing.contract_pause('hot-1')").expect("a pause");
    for (client, expected) in [(&mut asks, false), (&mut keeps, true)] {
        assert_eq!(
            client
                .query_one("SELECT billing.entitled('hot', 'sso')", &[])
                .expect("an answer")
                .get::<_, bool>(0),
            expected
        );
        client.batch_execute("COMMIT").expect("commit");
    }
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// On the real clock, too, a transaction that reads committed rows and began before a change sees it once it is committed: it asks
/// at the moment of its call, not at its start. What it consumes then is counted at that moment.
#[test]
fn a_check_sees_what_was_committed_after_its_transaction_began() {
    let db = Db::fresh("gate_moment");
    prepare(&db).batch_execute("SELECT billing.test_clock_set(NULL)").expect("the real clock");
    // Sessions keep the clock they began with.
    let (mut admin, mut asks) = (db.connect(), db.connect());
    asks.batch_execute("BEGIN; SELECT billing.now(); SELECT billing.entitled('hot', 'sso')")
        .expect("a transaction");
    let mut ask = |expected: (bool, &str, i64), what: &str| {
        let sql = "SELECT billing.entitled('hot', 'sso'), x.reason, coalesce(x.quota, -1)::bigint, (SELECT e.allowed FROM billing.entitlements('hot') e WHERE e.feature = 'sso')
            FROM billing.entitlement_check('hot', 'tokens', 200) x";
        let row = asks.query_one(sql, &[]).expect("an answer");
        let sso: bool = row.get(0);
        assert_eq!((sso, row.get::<_, &str>(1), row.get::<_, i64>(2)), expected, "{what}");
        assert_eq!(row.get::<_, Option<bool>>(3).unwrap_or(false), sso, "{what}");
    };
    let mut change = |sql: &str| admin.batch_execute(sql).map_err(|e| told(&e)).expect("a change");
    ask((true, "quota_exceeded", 100), "as agreed");
    change(
        "SELECT billing.entitlement_override('hot', 'sso', 'false', NULL, 'test'), billing.entitlement_override('hot', 'tokens', '300', NULL, 'test')",
    );
    ask((false, "allowed", 300), "overridden");
    change(
        "SELECT billing.entitlement_override('hot', 'sso', 'true', NULL, 'test'), billing.entitlement_override('hot', 'tokens', '150', NULL, 'test')",
    );
    ask((true, "quota_exceeded", 150), "overridden again");
    change(
        "SELECT billing.entitlement_override_end('hot', 'sso', 'test'), billing.entitlement_override_end('hot', 'tokens', 'test')",
    );
    ask((true, "quota_exceeded", 100), "as agreed again");
    change("SELECT billing.contract_pause('hot-1')");
    ask((false, "suspended", -1), "paused");
    change("SELECT billing.contract_resume('hot-1')");
    ask((true, "quota_exceeded", 100), "resumed");
    // What it consumes is denied by what holds now, and counted after what others counted.
    change(
        "SELECT billing.entitlement_override('hot', 'tokens', '10', NULL, 'test'), billing.consume('hot', 'tokens', 8, 'theirs')",
    );
    assert_eq!(consume(&mut asks, 3, "too much").expect("an answer"), "denied");
    assert_eq!(consume(&mut asks, 2, "the last").expect("an answer"), "consumed");
    asks.batch_execute("COMMIT").expect("commit");
    let in_order: bool = admin
        .query_one(
            "SELECT bool_and(occurred_at BETWEEN recorded_at - interval '10 seconds' AND recorded_at) AND
                (array_agg(event_id ORDER BY occurred_at))[2] = 'consume:the last' FROM billing.usage_event",
            &[],
        )
        .expect("events")
        .get(0);
    assert!(in_order);
    // Also where nothing may be stored ahead of time.
    admin.batch_execute("SELECT billing.policy_set('event_future_max', '0 minutes'), billing.entitlement_override('hot', 'tokens', '20', NULL, 'test')").expect("a policy");
    asks.batch_execute("BEGIN; SELECT billing.now(), pg_sleep(0.01)").expect("a transaction");
    assert_eq!(consume(&mut asks, 1, "strictly").expect("an answer"), "consumed");
    asks.batch_execute("COMMIT").expect("commit");
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// Of two exceptions the one made last counts, also where its transaction began first.
#[test]
fn the_last_exception_counts() {
    let db = Db::fresh("gate_last_exception");
    prepare(&db).batch_execute("SELECT billing.test_clock_set(NULL)").expect("the real clock");
    let (mut admin, mut early) = (db.connect(), db.connect());
    early.batch_execute("BEGIN; SELECT billing.now()").expect("a transaction");
    admin
        .batch_execute("SELECT billing.entitlement_override('hot', 'sso', 'false', NULL, 'first')")
        .expect("an exception");
    early
        .batch_execute("SELECT billing.entitlement_override('hot', 'sso', 'true', NULL, 'then'); COMMIT")
        .expect("another");
    let sso: bool = admin.query_one("SELECT billing.entitled('hot', 'sso')", &[]).expect("an answer").get(0);
    assert!(sso);
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// While others send usage that no credit pays, who consumes what credit pays is not told that there is none.
#[test]
fn what_others_use_takes_no_credit_away() {
    let db = Db::fresh("gate_credit");
    let mut admin = prepare(&db);
    admin
        .batch_execute(
            r#"SELECT billing.catalog_apply('{"products":[{"key":"app"}],"meters":[{"key":"other","event_type":"other","aggregation":"count"}],
                "features":[{"key":"ai","kind":"credit","unit":"USD","meter":"tokens"}],
                "plans":[{"key":"c","currency":"USD","charges":[{"key":"tokens","product":"app","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.01"}},
                    {"key":"other","product":"app","meter":"other","pricing":{"model":"per_unit","unit_price":"1"}}],"entitlements":[{"feature":"ai"}]}]}');
            SELECT billing.customer_upsert('{"key":"pays","currency":"USD"}'), billing.subscribe('pays', 'c', '2026-06-01'),
                billing.credit_grant_create('pays', '{"amount":"1000","scope":{"meters":["tokens"]}}')"#,
        )
        .map_err(|e| told(&e))
        .expect("a customer with credit");
    let results = sixteen(&db, |client, who| {
        (0..5)
            .map(|n| {
                let sql = match who % 4 {
                    0 => "SELECT result FROM billing.consume('pays', 'ai', 1, $1)",
                    _ => "SELECT billing.ingest_event('pays', 'other', $1, billing.now(), '{}')",
                };
                client
                    .query_one(sql, &[&format!("{who}/{n}")])
                    .map_err(|e| told(&e))
                    .expect("an answer")
                    .get::<_, String>(0)
            })
            .collect::<Vec<_>>()
    });
    let results = results.concat();
    assert_eq!(results.iter().filter(|result| *result == "consumed").count(), 20, "{results:?}");
    assert_eq!(db.verify(), Vec::<String>::new());
}

const CALLS: usize = 150;

/// Consumes under keys of its own; what gets no answer is sent again with the same key, in a session made anew.
fn consume_all(db: &Db, who: usize, round: usize, acknowledged: &AtomicUsize) -> usize {
    let mut client = db.connect();
    let mut given = 0;
    for n in 0..CALLS {
        let key = format!("r{round}c{who}n{n}");
        let start = Instant::now();
        loop {
            match consume(&mut client, 2, &key) {
                Ok(result) => {
                    given += usize::from(result != "denied");
                    break;
                }
                Err(error) => {
                    assert!(start.elapsed() < Duration::from_secs(120), "no answer: {}", told(&error));
                    thread::sleep(Duration::from_millis(50));
                    if let Ok(again) = db.config().connect(postgres::NoTls) {
                        client = again;
                    }
                }
            }
        }
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    given
}

#[test]
fn a_killed_server_counted_every_consume_once() {
    let rounds: usize = std::env::var("ROUNDS").ok().map_or(3, |n| n.parse().expect("ROUNDS is a number"));
    let mut rng = load::seed("killed consumption");
    let server = Server::spawn("gate-crash");
    let db = server.fresh("gate_crash");
    // Some of the calls are beyond it.
    let quota = rounds * 4 * CALLS * 2 - 100;
    prepare(&db)
        .batch_execute(&format!(
            "SELECT billing.entitlement_override('hot', 'tokens', '{quota}', NULL, 'a test')"
        ))
        .expect("a quota");
    let mut given = 0;
    for round in 0..rounds {
        let (acknowledged, kill_at) = (AtomicUsize::new(0), 10 + rng.below(3 * CALLS));
        given += thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|who| {
                    let (db, acknowledged) = (&db, &acknowledged);
                    scope.spawn(move || consume_all(db, who, round, acknowledged))
                })
                .collect();
            server.crash_after(&acknowledged, kill_at);
            clients.into_iter().map(|client| client.join().expect("a client")).sum::<usize>()
        });
        println!("round {round}: killed after {kill_at} answers");
        let mut admin = db.connect();
        assert_eq!(used(&mut admin), 2 * given as i64, "every consume that was answered counts once");
        assert_eq!(common::verify(&mut admin), Vec::<String>::new());
    }
    assert_eq!(2 * given, quota, "the last unit was given, and none after it");
}

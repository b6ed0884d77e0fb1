//! Credit drawn by many sessions at once: exactly the credit there is gets spent, a draw counts once however often it is
//! sent, a top-up fires once a crossing, expiry and draws never spend a credit twice; and a server killed in the middle
//! keeps every acknowledged draw, once. Each test ends with `billing.verify('full')`.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::{Db, Server};
use load::{Rng, told};
use postgres::{Client, NoTls};
use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const CLOCK: &str = "2026-06-01T00:00:00Z";

fn prepared(db: &Db) -> Client {
    let mut client = db.connect();
    client
        .batch_execute(&format!(
            "SELECT billing.test_clock_set('{CLOCK}');
             SELECT billing.customer_upsert('{{\"key\":\"hot\",\"currency\":\"USD\"}}')"
        ))
        .expect("a customer");
    client
}

/// What a draw of so many cents came to: drawn, duplicate, or refused for lack of credit.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Drew {
    Drawn,
    Duplicate,
    TooLittle,
}

fn draw(client: &mut Client, cents: i64, key: &str) -> Result<Drew, postgres::Error> {
    let result = client.query_one(
        "SELECT result FROM billing.draw_down('hot', $1::bigint / 100.0, $2, 'USD')",
        &[&cents, &key],
    );
    match result {
        Ok(row) if row.get::<_, &str>(0) == "drawn" => Ok(Drew::Drawn),
        Ok(_) => Ok(Drew::Duplicate),
        Err(error) if error.code().is_some_and(|code| code.code() == "ZB014") => Ok(Drew::TooLittle),
        Err(error) => Err(error),
    }
}

fn cents(client: &mut Client, query: &str) -> i64 {
    client.query_one(&format!("SELECT (({query}) * 100)::bigint"), &[]).expect("an amount").get(0)
}

const AVAILABLE: &str = "SELECT available FROM billing.credit_balance('hot', 'USD')";

#[test]
fn sixteen_clients_spend_exactly_the_credit_there_is() {
    let mut seed = load::seed("one balance");
    let db = Db::fresh("credits_one_balance");
    let mut admin = prepared(&db);
    // Blocks of 1,000.00 in all; one pays for less than everything, so that not all draws may take from it.
    admin
        .batch_execute(
            "SELECT billing.credit_grant_create('hot', '{\"amount\":\"300\",\"expires\":\"2026-12-01\"}');
             SELECT billing.credit_purchase('hot', '{\"amount\":\"450\",\"price\":\"400\"}');
             SELECT billing.credit_grant_create('hot', '{\"amount\":\"250\",\"priority\":10}')",
        )
        .expect("blocks");
    let spent = AtomicI64::new(0);
    let start = Barrier::new(16);
    thread::scope(|scope| {
        for who in 0..16 {
            let (mut rng, spent, start, db) = (seed.fork(), &spent, &start, &db);
            scope.spawn(move || {
                let mut client = db.connect_as("billing_app");
                start.wait();
                for n in 0.. {
                    let amount = 1 + rng.below(1500) as i64;
                    match draw(&mut client, amount, &format!("{who}/{n}"))
                        .unwrap_or_else(|e| panic!("{}", told(&e)))
                    {
                        Drew::Drawn => drop(spent.fetch_add(amount, Ordering::SeqCst)),
                        Drew::Duplicate => panic!("every key was sent once"),
                        Drew::TooLittle => break,
                    }
                }
                // The last cents, so that nothing is left.
                for n in 0.. {
                    match draw(&mut client, 1, &format!("{who}/cent/{n}"))
                        .unwrap_or_else(|e| panic!("{}", told(&e)))
                    {
                        Drew::Drawn => drop(spent.fetch_add(1, Ordering::SeqCst)),
                        Drew::Duplicate => panic!("every key was sent once"),
                        Drew::TooLittle => break,
                    }
                }
            });
        }
    });
    assert_eq!(spent.load(Ordering::SeqCst), 100_000);
    assert_eq!(cents(&mut admin, AVAILABLE), 0);
    assert_eq!(cents(&mut admin, "SELECT sum(amount) FROM billing.credit_draw"), 100_000);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_key_sent_by_many_sessions_draws_once() {
    let db = Db::fresh("credits_one_key");
    let mut admin = prepared(&db);
    // Enough for each key once: whoever drew a second time would leave others without.
    admin.batch_execute("SELECT billing.credit_grant_create('hot', '{\"amount\":\"40\"}')").expect("a block");
    let drawn = AtomicUsize::new(0);
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            let (drawn, start, db) = (&drawn, &start, &db);
            scope.spawn(move || {
                let mut client = db.connect_as("billing_app");
                for n in 0..40 {
                    start.wait();
                    match draw(&mut client, 100, &format!("key {n}"))
                        .unwrap_or_else(|e| panic!("{}", told(&e)))
                    {
                        Drew::Drawn => drop(drawn.fetch_add(1, Ordering::SeqCst)),
                        Drew::Duplicate => {}
                        Drew::TooLittle => panic!("a key drew twice"),
                    }
                }
            });
        }
    });
    assert_eq!(drawn.load(Ordering::SeqCst), 40);
    assert_eq!(cents(&mut admin, AVAILABLE), 0);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_crossing_seen_by_many_sessions_tops_up_once() {
    let db = Db::fresh("credits_top_up");
    let mut admin = prepared(&db);
    admin
        .batch_execute(
            "SELECT billing.credit_grant_create('hot', '{\"amount\":\"100\"}');
             SELECT billing.top_up_rule_set('hot', '{\"threshold\":\"50\",\"amount\":\"100\"}')",
        )
        .expect("a rule");
    let start = Barrier::new(9);
    thread::scope(|scope| {
        for who in 0..8 {
            let (start, db) = (&start, &db);
            scope.spawn(move || {
                let mut client = db.connect_as("billing_app");
                start.wait();
                for n in 0..100 {
                    let drew = draw(&mut client, 100, &format!("{who}/{n}"))
                        .unwrap_or_else(|e| panic!("{}", told(&e)));
                    assert_eq!(drew, Drew::Drawn, "credit is bought before it ends");
                }
            });
        }
        let (start, db) = (&start, &db);
        scope.spawn(move || {
            let mut client = db.connect_as("billing_operator");
            start.wait();
            for _ in 0..20 {
                client.batch_execute("CALL billing.top_up()").unwrap_or_else(|e| panic!("{}", told(&e)));
            }
        });
    });
    // 800.00 are drawn one by one. From 100.00 the balance falls to 49.99… at each hundred drawn beyond the first 51:
    // a pack at 51, 151, … 751 drawn, each bringing it back to 149.
    let bought: i64 = admin.query_one("SELECT count(*) FROM billing.top_up", &[]).expect("top-ups").get(0);
    assert_eq!(bought, 8);
    assert_eq!(cents(&mut admin, AVAILABLE), 10_000);
    assert_eq!(cents(&mut admin, "SELECT max(crossings) / 100.0 FROM billing.top_up_rule"), 8);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_draw_that_waited_for_a_block_that_was_emptied_finds_the_one_that_was_bought() {
    let db = Db::fresh("credits_look_again");
    let mut admin = prepared(&db);
    admin
        .batch_execute("SELECT billing.credit_grant_create('hot', '{\"key\":\"first\",\"amount\":\"10\"}')")
        .expect("credit");
    let mut buyer = db.connect();
    let mut open = buyer.transaction().expect("begin");
    open.batch_execute(
        "SELECT billing.draw_down('hot', 10, 'all of it');
         SELECT billing.credit_grant_create('hot', '{\"key\":\"more\",\"amount\":\"5\"}')",
    )
    .expect("emptied, and another bought");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut client = db.connect_as("billing_app");
            let waited = draw(&mut client, 500, "waited").expect("a draw");
            (waited, draw(&mut client, 1, "too much").expect("a draw"))
        });
        load::wait_until("the draw waits", || {
            let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            admin.query_one(waiting, &[]).expect("activity").get(0)
        });
        open.commit().expect("commit");
        assert_eq!(waiter.join().expect("the waiter"), (Drew::Drawn, Drew::TooLittle));
    });
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn what_expires_is_not_drawn_and_what_is_drawn_does_not_expire() {
    let db = Db::fresh("credits_expiry");
    let mut admin = prepared(&db);
    // Blocks that end at instants from now on; draws of usage of the minute before, while expiry runs.
    admin
        .batch_execute(
            "SELECT billing.test_clock_set('2026-01-01T00:00:00Z');
             SELECT billing.credit_grant_create('hot', jsonb_build_object('key', 'b' || n, 'amount', '10', 'expires', '2026-06-01T00:00:00Z',
                'rollover', CASE n % 3 WHEN 0 THEN '{\"cap\":\"4\"}'::jsonb END)) FROM generate_series(1, 60) n;
             SELECT billing.test_clock_set('2026-06-01T00:00:00Z')",
        )
        .expect("blocks");
    let spent = AtomicI64::new(0);
    let start = Barrier::new(6);
    thread::scope(|scope| {
        for who in 0..4 {
            let (spent, start, db) = (&spent, &start, &db);
            scope.spawn(move || {
                let mut client = db.connect_as("billing_app");
                start.wait();
                for n in 0..200 {
                    let result = client.execute(
                        "SELECT billing.draw_down('hot', 0.5, $1, 'USD', '{\"occurred_at\":\"2026-05-31T23:59:00Z\"}')",
                        &[&format!("{who}/{n}")],
                    );
                    match result {
                        Ok(_) => drop(spent.fetch_add(50, Ordering::SeqCst)),
                        Err(e) if e.code().is_some_and(|code| code.code() == "ZB014") => break,
                        Err(e) => panic!("{}", told(&e)),
                    }
                }
            });
        }
        for _ in 0..2 {
            let (start, db) = (&start, &db);
            scope.spawn(move || {
                let mut client = db.connect_as("billing_operator");
                start.wait();
                let mut idle = 0;
                while idle < 5 {
                    let done: i64 = client
                        .query_one("SELECT billing.credit_expiry_step(7)", &[])
                        .unwrap_or_else(|e| panic!("{}", told(&e)))
                        .get(0);
                    idle = if done == 0 { idle + 1 } else { 0 };
                    thread::sleep(Duration::from_millis(3));
                }
            });
        }
    });
    admin.batch_execute("CALL billing.credit_expiry()").expect("the rest");
    let of = |admin: &mut Client, kind: &str| {
        cents(
            admin,
            &format!(
                "SELECT coalesce(-sum(amount), 0) FROM billing.credit_ledger_entry WHERE account = 'customer_balance' AND kind = '{kind}'"
            ),
        )
    };
    let (burnt, expired, moved) =
        (of(&mut admin, "burnt"), of(&mut admin, "expired"), of(&mut admin, "rolled_out"));
    println!("burnt {burnt}, expired {expired}, rolled over {moved} of 60000");
    assert_eq!(burnt, spent.load(Ordering::SeqCst));
    assert_eq!(burnt + expired + moved, 60_000);
    assert_eq!(cents(&mut admin, AVAILABLE), moved);
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// Draws of a client in a round of crashes.
const DRAWS: usize = 60;

/// Whether an error only says that the server went away or is not back yet.
fn went_away(error: &postgres::Error) -> bool {
    error.as_db_error().is_none_or(|e| ["57P01", "57P02", "57P03"].contains(&e.code().code()))
}

/// Draws its keys one by one, each again and again until it is acknowledged, on a new connection whenever the server went
/// away. Returns what was acknowledged, in cents.
fn draw_all(db: &Db, who: usize, round: usize, mut rng: Rng, count: &AtomicUsize) -> Vec<(String, i64)> {
    let mut acknowledged = Vec::new();
    let mut client: Option<Client> = None;
    for n in 0..DRAWS {
        let (key, amount) = (format!("{round}/{who}/{n}"), 1 + rng.below(30) as i64);
        loop {
            let attempt = match &mut client {
                Some(client) => draw(client, amount, &key),
                None => match db.config().connect(NoTls) {
                    Ok(mut fresh) => {
                        let drew = draw(&mut fresh, amount, &key);
                        client = Some(fresh);
                        drew
                    }
                    Err(error) => Err(error),
                },
            };
            match attempt {
                // A duplicate was drawn by the attempt whose answer was lost.
                Ok(Drew::Drawn | Drew::Duplicate) => break acknowledged.push((key, amount)),
                Ok(Drew::TooLittle) => panic!("there is plenty of credit"),
                Err(error) if went_away(&error) => {
                    client = None;
                    thread::sleep(Duration::from_millis(40));
                }
                Err(error) => panic!("{}", told(&error)),
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
    }
    acknowledged
}

#[test]
fn a_killed_server_keeps_every_acknowledged_draw_once() {
    let rounds: usize = std::env::var("ROUNDS").ok().map_or(3, |n| n.parse().expect("ROUNDS is a number"));
    let mut rng = load::seed("killed draws");
    let server = Server::spawn("credits-crash");
    let db = server.fresh("credits_crash");
    prepared(&db)
        .batch_execute(
            "SELECT billing.credit_grant_create('hot', '{\"amount\":\"300000\",\"expires\":\"2027-01-01\"}');
             SELECT billing.credit_grant_create('hot', '{\"amount\":\"7\"}');
             SELECT billing.top_up_rule_set('hot', '{\"threshold\":\"300000\",\"amount\":\"5\"}')",
        )
        .expect("blocks");
    let mut all: Vec<(String, i64)> = Vec::new();
    for round in 0..rounds {
        let (acknowledged, kill_at) = (AtomicUsize::new(0), 10 + rng.below(3 * DRAWS));
        let drawn: Vec<_> = thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|who| {
                    let (rng, db, acknowledged) = (rng.fork(), &db, &acknowledged);
                    scope.spawn(move || draw_all(db, who, round, rng, acknowledged))
                })
                .collect();
            server.crash_after(&acknowledged, kill_at);
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        println!("round {round}: killed after {kill_at} acknowledged draws");
        assert_eq!(drawn.len(), 4 * DRAWS);
        all.extend(drawn);
        let mut admin = db.connect();
        let total: i64 = all.iter().map(|(_, amount)| amount).sum();
        assert_eq!(cents(&mut admin, "SELECT sum(amount) FROM billing.credit_draw"), total);
        let (keys, amounts): (Vec<String>, Vec<i64>) = all.iter().cloned().unzip();
        let missing: i64 = admin
            .query_one(
                "SELECT count(*) FROM unnest($1::text[], $2::bigint[]) s (key, cents) LEFT JOIN billing.credit_draw d ON d.idempotency_key = s.key
                 WHERE d.amount * 100 IS DISTINCT FROM s.cents",
                &[&keys, &amounts],
            )
            .expect("draws")
            .get(0);
        assert_eq!(missing, 0, "every acknowledged draw is there, as it was sent");
        assert_eq!(common::verify(&mut admin), Vec::<String>::new());
    }
}

/// Draws of several customers in one transaction hold blocks and number series across each other where they top up: one of two
/// such transactions gets 40P01, and sent again every draw and purchase is there once.
#[test]
fn draws_that_top_up_in_one_transaction_are_retried() {
    let db = Db::fresh("credits_deadlock");
    let mut admin = db.connect();
    admin
        .batch_execute(&format!(
            r#"SELECT billing.test_clock_set('{CLOCK}');
            SELECT billing.customer_upsert(jsonb_build_object('key', c)), billing.credit_grant_create(c, '{{"key":"G","amount":"10"}}'),
              billing.top_up_rule_set(c, '{{"threshold":"5","amount":"10"}}') FROM unnest(ARRAY['a', 'b']) c"#
        ))
        .expect("two customers");
    let both = |first: &str, second: &str, meet: &dyn Fn()| {
        let mut client = db.connect_as("billing_app");
        let mut failures = 0;
        loop {
            let mut transaction = client.transaction().expect("a transaction");
            let draw = "SELECT result FROM billing.draw_down($1, 7, $2)";
            let mut drawn = transaction.query(draw, &[&first, &format!("{first} by {first}")]);
            if failures == 0 {
                meet();
            }
            if drawn.is_ok() {
                drawn = transaction.query(draw, &[&second, &format!("{second} by {first}")]);
            }
            match drawn {
                Ok(_) => break transaction.commit().expect("a commit"),
                Err(error) if error.code().is_some_and(|code| code.code() == "40P01") => failures += 1,
                Err(error) => panic!("{}", told(&error)),
            }
        }
        failures
    };
    let (holds, waits) = std::sync::mpsc::channel();
    let failures = thread::scope(|scope| {
        // Holds a's block and the number series; then b's draw, which has b's block, waits for the series, and this for the block.
        let one = scope.spawn(|| {
            both("a", "b", &|| {
                holds.send(()).expect("the other");
                let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
                let mut watcher = db.connect();
                while watcher.query_one(waiting, &[]).expect("a count").get::<_, i64>(0) == 0 {
                    thread::sleep(Duration::from_millis(10));
                }
            })
        });
        waits.recv().expect("the first");
        both("b", "a", &|| ()) + one.join().expect("the first")
    });
    assert!(failures > 0, "nobody waited for the other in a circle");
    let all = "SELECT array_agg(format('%s %s %s', c.key, d.draws, t.bought) ORDER BY c.key) FROM billing.customer c
        CROSS JOIN LATERAL (SELECT count(*) AS draws FROM billing.credit_draw x WHERE x.customer_id = c.customer_id) d
        CROSS JOIN LATERAL (SELECT count(*) AS bought FROM billing.top_up x WHERE x.customer_id = c.customer_id) t";
    assert_eq!(admin.query_one(all, &[]).expect("counts").get::<_, Vec<String>>(0), ["a 2 1", "b 2 1"]);
    assert_eq!(common::verify(&mut admin), Vec::<String>::new());
}

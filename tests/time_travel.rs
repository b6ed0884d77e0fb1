//! A transaction that travels in time leaves no trace, and nobody else waits for it: ingest, bills, voids and numbers of
//! other sessions go on while it looks around. Random parts draw from a printed seed (RACES_SEED=… repeats it).
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::Db;
use load::{Door, Event, Flag, Rng, billable, count, told};
use postgres::Client;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// All tables with their rows, as one text a table; who holds advisory locks; what the clock says.
fn picture(db: &Db) -> Vec<String> {
    let mut client = db.connect();
    client
        .batch_execute(
            "CREATE FUNCTION pg_temp.picture() RETURNS SETOF text LANGUAGE plpgsql AS $$
             DECLARE
                 name text;
                 rows text;
             BEGIN
                 FOR name IN SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace)
                     AND c.relkind IN ('r', 'p') ORDER BY 1 LOOP
                     EXECUTE format('SELECT count(*) || '' '' || coalesce(md5(string_agg(t::text, '''' ORDER BY t::text)), '''') FROM %s t', name) INTO rows;
                     RETURN NEXT name || ' ' || rows;
                 END LOOP;
                 RETURN NEXT 'clock ' || billing.now();
             END
             $$",
        )
        .expect("a function");
    client
        .query("SELECT pg_temp.picture() UNION ALL SELECT 'lock ' || l::text FROM pg_locks l WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())", &[])
        .expect("a picture")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

fn event(customer: &str, id: String, at: &str) -> Event {
    Event {
        customer: customer.to_owned(),
        id,
        at: at.to_owned(),
        properties: [("model", json!("m0")), ("input", json!(1)), ("output", json!(1))].into(),
    }
}

/// A session in which whoever waits for a traveller, who may take all the time, fails; a busy machine alone is no reason.
fn impatient(db: &Db, role: &str) -> Client {
    let mut client = db.connect_as(role);
    client.batch_execute("SET statement_timeout = '30s'").expect("a setting");
    client
}

/// A session that has travelled there and looks around.
fn traveller(db: &Db, to: &str) -> Client {
    let mut client = db.connect_as("billing_finance");
    client.batch_execute("BEGIN").expect("begin");
    client
        .query("SELECT billing.time_travel($1::text::timestamptz)", &[&to])
        .map_err(|e| told(&e))
        .expect("a travel");
    client
}

fn numbers(client: &mut Client, like: &str) -> Vec<String> {
    client
        .query(
            "SELECT number FROM billing.invoice WHERE number LIKE $1 ORDER BY length(number), number",
            &[&like],
        )
        .expect("numbers")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[test]
fn others_go_on_while_one_looks_around() {
    let db = Db::fresh("travel_others");
    let contracts = 6;
    let mut admin = billable(&db, contracts);
    // Due in March and in April; the traveller has billed both.
    let mut one = traveller(&db, "2026-04-15Z");
    assert_eq!(numbers(&mut one, "PREVIEW-%").len(), contracts, "nothing but February had usage");

    // Ingest, single and in batches, new customers, contracts and prices, folding: nobody waits.
    let mut app = impatient(&db, "billing_app");
    for n in 0..60 {
        let customer = format!("u{}", n % contracts);
        let events: Vec<Event> =
            (0..20).map(|k| event(&customer, format!("{n}-{k}"), "2026-02-12T00:00:00Z")).collect();
        let refs: Vec<&Event> = events.iter().collect();
        let tally = load::send(&mut app, if n % 2 == 0 { Door::Ingest } else { Door::IngestFrom }, &refs)
            .map_err(|e| told(&e))
            .expect("ingest waits for no traveller");
        assert_eq!(tally.accepted, 20);
    }
    // A month that had no partitions.
    load::send(&mut app, Door::Ingest, &[&event("u0", "new month".into(), "2025-12-31T00:00:00Z")])
        .map_err(|e| told(&e))
        .expect("a new month");
    app.batch_execute("SELECT billing.customer_upsert('{\"key\":\"new\"}'); SELECT billing.subscribe('new', 'usage', '2026-02-01')")
        .map_err(|e| told(&e))
        .expect("a new customer");
    load::send(&mut app, Door::Ingest, &[&event("new", "n".into(), "2026-02-12T00:00:00Z")])
        .expect("its usage");
    let mut operator = impatient(&db, "billing_operator");
    operator.batch_execute("CALL billing.fold()").map_err(|e| told(&e)).expect("fold");
    assert_eq!(count(&mut admin, "billing.usage_delta"), 0, "the traveller keeps no deltas");
    load::apply(&mut operator, &json!({"products": [{"key": "other"}]}))
        .map_err(|e| told(&e))
        .expect("a catalogue");

    // The bill run bills who is not held, with real numbers, and says whom it left out.
    let mut operator = db.connect_as("billing_operator");
    let started = Instant::now();
    operator.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("a bill run");
    assert!(started.elapsed() < Duration::from_secs(15), "the run took {:?}", started.elapsed());
    assert_eq!(numbers(&mut admin, "%").len(), 1, "new is billed");
    assert_eq!(numbers(&mut admin, "INV-2026-000001").len(), 1);
    assert_eq!(
        count(
            &mut admin,
            "billing.job_issue WHERE sqlstate = '55P03' AND kind = 'contract' AND key LIKE 'u%-1'"
        ),
        contracts as i64
    );
    assert_eq!(count(&mut admin, "billing.job_run WHERE job = 'bill_run' AND result ? 'waits_since'"), 0);
    // tick() does not wait for them either.
    let started = Instant::now();
    let ticked: Vec<(String, String)> = operator
        .query("SELECT job, state FROM billing.tick()", &[])
        .map_err(|e| told(&e))
        .expect("tick")
        .iter()
        .map(|r| (r.get(0), r.get(1)))
        .collect();
    assert!(started.elapsed() < Duration::from_secs(5), "tick took {:?}", started.elapsed());
    assert!(ticked.contains(&("bill_run".into(), "busy".into())), "{ticked:?}");

    // What is billed can be voided, drafted and issued again; what the traveller holds can't, and says so.
    let mut finance = impatient(&db, "billing_finance");
    finance
        .batch_execute(
            "SELECT billing.invoice_void('INV-2026-000001', 'a test'); SELECT billing.invoice_generate('new'); SELECT billing.invoice_finalize('new-1/1.2');
             SELECT billing.invoice_correct('INV-2026-000002', 'credit_note', 'a test', false)",
        )
        .map_err(|e| told(&e))
        .expect("void and issue");
    let mut finance = db.connect_as("billing_finance");
    let refused = common::refusal(finance.query("SELECT billing.invoice_generate('u0')", &[]));
    assert_eq!(refused.code, "55P03", "{refused:?}");
    assert_eq!(refused.message, "contract u0-1 is held by a transaction of another session");
    finance.batch_execute("SET lock_timeout = '100ms'").expect("a setting");
    let started = Instant::now();
    common::refusal(finance.query("SELECT billing.invoice_generate('u0')", &[]));
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "the caller's patience is shorter: {:?}",
        started.elapsed()
    );

    // A second traveller travels, too: to what nobody holds, with previews of its own.
    let mut two = traveller(&db, "2026-03-02Z");
    assert_eq!(numbers(&mut two, "PREVIEW-%"), Vec::<String>::new(), "new is billed until March");
    two.batch_execute("ROLLBACK").expect("rollback");
    app.batch_execute("SELECT billing.customer_upsert('{\"key\":\"newer\"}'); SELECT billing.subscribe('newer', 'usage', '2026-02-01'); SELECT billing.ingest_event('newer', 'llm', 'x', '2026-02-12Z', '{\"input\":1,\"output\":1,\"model\":\"m0\"}')")
        .map_err(|e| told(&e))
        .expect("another customer");
    let mut two = traveller(&db, "2026-03-02Z");
    assert_eq!(numbers(&mut two, "PREVIEW-%"), ["PREVIEW-1"]);
    assert_eq!(count(&mut one, "billing.invoice WHERE number = 'PREVIEW-1'"), 1, "each sees its own");

    // It ends as it must; then all is billed that was held.
    let refused = common::refusal(one.batch_execute("COMMIT"));
    assert_eq!((refused.code.as_str(), refused.hint.as_deref()), ("55000", Some("Use ROLLBACK.")));
    drop(two); // a connection that breaks
    operator.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the next run");
    load::wait_until("newer is billed", || {
        operator.batch_execute("CALL billing.bill_run()").expect("a run");
        count(&mut admin, "billing.contract WHERE next_bill_at <= billing.now()") == 0
    });
    let series = admin
        .query("SELECT count(*), max(counter) FROM billing.invoice_number GROUP BY seller_id, series", &[])
        .expect("numbers");
    assert!(series.iter().all(|row| row.get::<_, i64>(0) == row.get::<_, i64>(1)), "no number is left out");
    assert_eq!(numbers(&mut admin, "PREVIEW%"), Vec::<String>::new());
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// One random change of the world.
fn change(client: &mut Client, rng: &mut Rng, n: usize) {
    let statement = match rng.below(8) {
        0..=2 => format!(
            "SELECT billing.ingest((SELECT json_agg(json_build_object('customer', 'u' || (k % 4), 'event_id', '{n}-' || k, 'event_type', 'llm', 'occurred_at', billing.now() - interval '1 hour' * (k * {}),
                'properties', json_build_object('model', 'm' || k % 3, 'input', k, 'output', 1))) FROM generate_series(1, 20) k))",
            1 + rng.below(60)
        ),
        3 => format!("SELECT billing.test_clock_set(billing.now() + interval '{} hours')", 1 + rng.below(24 * 20)),
        4 => "CALL billing.bill_run()".to_owned(),
        5 => "SELECT billing.invoice_void(i.number, 'random') FROM (SELECT number FROM billing.invoice WHERE state = 'open' AND NOT EXISTS (SELECT FROM billing.invoice c WHERE c.credits = invoice.invoice_id AND c.state <> 'void')
              ORDER BY random() LIMIT 1) i".to_owned(),
        6 => "SELECT billing.invoice_correct(i.number, 'next_invoice', 'random', false) FROM (SELECT number FROM billing.invoice WHERE state = 'open' AND kind = 'invoice' ORDER BY random() LIMIT 1) i".to_owned(),
        _ => format!("SELECT billing.policy_set('invoice_grace', '{} days')", rng.below(5)),
    };
    match client.batch_execute(&statement) {
        Ok(()) => {}
        Err(e) if e.as_db_error().is_some_and(|e| e.code().code().starts_with("ZB")) => {}
        Err(e) => panic!("{statement}: {}", told(&e)),
    }
}

/// What one may try in another time.
fn what_if(client: &mut Client, rng: &mut Rng, n: usize) {
    let statement = match rng.below(7) {
        6 => "SELECT billing.contract_cancel('u2-1', 'now', 'what if')".to_owned(),
        0 => "SELECT billing.invoice_void(i.number, 'what if') FROM (SELECT number FROM billing.invoice WHERE state = 'open' ORDER BY random() LIMIT 1) i".to_owned(),
        1 => format!("SELECT billing.time_travel(billing.now() + interval '{} hours')", 1 + rng.below(24 * 60)),
        2 => "SELECT billing.tick()".to_owned(),
        3 => format!("SELECT billing.ingest_event('u{}', 'llm', 'what-if-{n}', '2026-02-14T00:00:00Z', '{{\"model\":\"m9\",\"input\":5,\"output\":1}}')", rng.below(4)),
        4 => "SELECT billing.customer_upsert('{\"key\":\"whatif\"}'); SELECT billing.subscribe('whatif', 'usage', '2026-02-01')".to_owned(),
        _ => "SELECT count(*) FROM billing.verify('full')".to_owned(),
    };
    client.batch_execute("SAVEPOINT w").expect("savepoint");
    match client.batch_execute(&statement) {
        Ok(()) => {}
        Err(e) if e.as_db_error().is_some_and(|e| e.code().code().starts_with("ZB")) => {
            client.batch_execute("ROLLBACK TO w").expect("back");
        }
        Err(e) => panic!("{statement}: {}", told(&e)),
    }
}

#[test]
fn a_travel_leaves_no_trace() {
    let mut rng = load::seed("no trace");
    let db = Db::fresh("travel_trace");
    let mut admin = billable(&db, 4);
    admin
        .batch_execute(
            "SELECT billing.customer_upsert('{\"key\":\"ends\"}'), billing.subscribe('ends', 'usage', '2026-02-10', '{\"term\":\"3 months\",\"fees\":[{\"key\":\"f\",\"product\":\"ai\",\"pricing\":{\"model\":\"flat\",\"amount\":\"10\"}}]}');
             SELECT billing.customer_upsert('{\"key\":\"renews\"}'), billing.subscribe('renews', 'usage', '2026-02-01', '{\"term\":\"2 months\",\"renewal\":{\"auto\":true,\"notice_days\":10}}');
             SELECT billing.credit_purchase(c, '{\"amount\":\"5\",\"price\":\"4\",\"effective_on\":\"2026-02-01\",\"expires\":\"2026-06-15\",\"rollover\":{\"cap\":\"1\",\"for\":\"3 months\"}}') FROM unnest('{u0,u1}'::text[]) c",
        )
        .map_err(|e| told(&e))
        .expect("a contract that ends");
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    let mut travelled = 0;
    for n in 0..rounds {
        for k in 0..1 + rng.below(6) {
            change(&mut admin, &mut rng, n * 100 + k);
        }
        let before = picture(&db);
        let mut one = db.connect();
        let mut end = "ROLLBACK";
        one.batch_execute("BEGIN; SAVEPOINT before").expect("begin");
        let ahead = format!(
            "SELECT * FROM billing.time_travel(billing.now() + interval '{} hours')",
            rng.below(24 * 200)
        );
        travelled += one.query(&ahead, &[]).map_err(|e| told(&e)).expect("a travel").len();
        for k in 0..rng.below(4) {
            what_if(&mut one, &mut rng, n * 100 + k);
        }
        match rng.below(5) {
            0 => assert_eq!(common::refusal(one.batch_execute("COMMIT")).code, "55000"),
            1 => assert_eq!(common::refusal(one.batch_execute("PREPARE TRANSACTION 'travel'")).code, "55000"),
            2 => {
                let pid: i32 = one.query_one("SELECT pg_backend_pid()", &[]).expect("a pid").get(0);
                admin.execute("SELECT pg_terminate_backend($1, 5000)", &[&pid]).expect("terminated");
                end = "";
            }
            3 => {
                one.batch_execute("ROLLBACK TO before").expect("back");
                end = "COMMIT"; // nobody travelled
            }
            _ => {}
        }
        if !end.is_empty() {
            one.batch_execute(end).map_err(|e| told(&e)).expect("the end");
        }
        let after = picture(&db);
        assert_eq!(before, after, "round {n}");
        if !end.is_empty() {
            // Nor does the session remember anything.
            let row = one.query_one("SELECT billing_internal.travelling(), billing.now() = (SELECT current_setting('billing.test_clock')::timestamptz)", &[]).expect("a row");
            assert_eq!((row.get::<_, bool>(0), row.get::<_, bool>(1)), (false, true));
        }
        assert_eq!(db.verify(), Vec::<String>::new(), "round {n}");
    }
    println!("{rounds} travels through {travelled} instants at which something was due");
    assert!(travelled > rounds, "they went somewhere");
}

#[test]
fn travellers_and_real_life_side_by_side() {
    let mut rng = load::seed("side by side");
    let db = Db::fresh("travel_races");
    let mut admin = billable(&db, 6);
    admin.batch_execute("SELECT billing.test_clock_set('2026-08-01T00:00:00Z')").expect("the clock");
    let done = AtomicBool::new(false);
    let (sent, travels) = thread::scope(|scope| {
        let flag = Flag(&done);
        let senders: Vec<_> = (0..2)
            .map(|s| {
                let (db, done, mut rng) = (&db, &done, rng.fork());
                scope.spawn(move || {
                    let mut client = impatient(db, "billing_app");
                    let mut sent = 0;
                    while !done.load(Ordering::SeqCst) {
                        let batch: Vec<Event> = (0..5)
                            .map(|k| {
                                event(
                                    &format!("u{}", rng.below(6)),
                                    format!("{s}-{sent}-{k}"),
                                    &format!("2026-{:02}-10T00:00:00Z", 2 + rng.below(6)),
                                )
                            })
                            .collect();
                        load::send(&mut client, Door::Ingest, &batch.iter().collect::<Vec<_>>())
                            .map_err(|e| told(&e))
                            .expect("ingest never waits");
                        sent += 5;
                        thread::sleep(Duration::from_millis(rng.below(10) as u64));
                    }
                    sent
                })
            })
            .collect();
        let travellers: Vec<_> = (0..2)
            .map(|_| {
                let (db, done, mut rng) = (&db, &done, rng.fork());
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_finance");
                    let mut travels = 0;
                    while !done.load(Ordering::SeqCst) {
                        client.batch_execute("BEGIN").expect("begin");
                        match client.query(
                            "SELECT billing.time_travel(billing.now() + interval '1 month' * $1::int)",
                            &[&(1 + rng.below(4) as i32)],
                        ) {
                            Ok(_) => travels += 1,
                            Err(e) => panic!("{}", told(&e)),
                        }
                        thread::sleep(Duration::from_millis(rng.below(300) as u64));
                        client.batch_execute("ROLLBACK").expect("rollback");
                        thread::sleep(Duration::from_millis(rng.below(300) as u64));
                    }
                    travels
                })
            })
            .collect();
        let workers: Vec<_> = ["CALL billing.bill_run()", "SELECT billing.tick()"]
            .map(|work| {
                let (db, done) = (&db, &done);
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_operator");
                    while !done.load(Ordering::SeqCst) {
                        client.batch_execute(work).map_err(|e| told(&e)).expect(work);
                        thread::sleep(Duration::from_millis(50));
                    }
                })
            })
            .into();
        thread::sleep(Duration::from_secs(8));
        drop(flag);
        workers.into_iter().for_each(|w| w.join().expect("a worker"));
        (
            senders.into_iter().map(|s| s.join().expect("a sender")).sum::<i64>(),
            travellers.into_iter().map(|t| t.join().expect("a traveller")).sum::<i32>(),
        )
    });
    assert!(travels > 2, "{travels} travels");
    admin.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("what fell behind");
    admin.batch_execute("SELECT billing.test_clock_set('2026-09-01T00:00:00Z')").expect("the clock");
    admin.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the last run");
    assert_eq!(count(&mut admin, "billing.usage_event WHERE event_type = 'llm'"), sent + 18);
    let billed: i64 = admin
        .query_one("SELECT coalesce(sum(l.quantity), 0)::bigint FROM billing.invoice_line l JOIN billing.invoice i USING (customer_id, invoice_id) WHERE l.charge_key = 'requests' AND i.state <> 'void'", &[])
        .expect("what is billed")
        .get(0);
    assert_eq!(billed, sent + 18, "every event is billed once");
    let series = admin
        .query("SELECT count(*), max(counter) FROM billing.invoice_number GROUP BY seller_id, series", &[])
        .expect("numbers");
    assert!(series.iter().all(|row| row.get::<_, i64>(0) == row.get::<_, i64>(1)), "no number is left out");
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// What somebody draws is not kept from him by who looks at it, only by who has billed against it; and nobody looks for ever.
#[test]
fn credit_is_held_only_where_a_bill_drew_it() {
    let db = Db::fresh("travel_credit");
    let mut admin = billable(&db, 2);
    admin
        .batch_execute(
            "SELECT billing.credit_purchase(c, '{\"key\":\"bought\",\"amount\":\"100\",\"price\":\"80\",\"effective_on\":\"2026-02-01\"}') FROM unnest('{u0,u1}'::text[]) c;
             SELECT billing.customer_upsert('{\"key\":\"draws\"}'), billing.credit_purchase('draws', '{\"amount\":\"100\",\"price\":\"100\"}'),
                billing.top_up_rule_set('draws', '{\"threshold\":\"50\",\"amount\":\"100\"}')",
        )
        .map_err(|e| told(&e))
        .expect("credit");
    let before = picture(&db);
    let mut one = traveller(&db, "2026-04-15Z");
    let drawn: i64 =
        one.query_one("SELECT count(*) FROM billing.credit_allocation", &[]).expect("allocations").get(0);
    assert!(drawn > 0, "the bills draw from what was bought");
    let mut app = db.connect_as("billing_operator");
    app.batch_execute("SET statement_timeout = '2s'").expect("a setting");
    for n in 0..3 {
        app.execute("SELECT billing.draw_down('draws', 30, $1)", &[&format!("d{n}")])
            .map_err(|e| told(&e))
            .expect("nobody billed that");
    }
    let refused = common::refusal(app.execute("SELECT billing.draw_down('u0', 1, 'held')", &[]));
    assert_eq!(refused.code, "57014", "{refused:?}");
    let patience: String =
        one.query_one("SHOW idle_in_transaction_session_timeout", &[]).expect("a setting").get(0);
    assert_eq!(patience, "1min");
    one.batch_execute("ROLLBACK").expect("rollback");
    let patience: String =
        one.query_one("SHOW idle_in_transaction_session_timeout", &[]).expect("a setting").get(0);
    assert_eq!(patience, "0");
    app.execute("SELECT billing.draw_down('u0', 1, 'free')", &[]).map_err(|e| told(&e)).expect("free again");
    assert_ne!(before, picture(&db), "what was drawn meanwhile stays");
    assert_eq!(count(&mut admin, "billing.credit_draw"), 4);
    assert_eq!(count(&mut admin, "billing.credit_allocation"), 0);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_live_installation_is_travelled_in_on_the_real_clock() {
    let db = Db::empty("travel_live");
    let mut admin = db.connect();
    admin
        .batch_execute(
            "CREATE EXTENSION pg_billing; SELECT billing.install();
             SELECT billing.catalog_apply(billing.catalog_example('llm-api')); SELECT billing.customer_upsert('{\"key\":\"acme\"}'), billing.subscribe('acme', 'pro'); SELECT billing.tick()",
        )
        .map_err(|e| told(&e))
        .expect("a live installation");
    let before = picture(&db).into_iter().filter(|line| !line.starts_with("clock")).collect::<Vec<_>>();
    let mut one = db.connect_as("billing_finance");
    one.batch_execute("BEGIN").expect("begin");
    let stops = one
        .query("SELECT billing.time_travel(now() + interval '100 days')", &[])
        .map_err(|e| told(&e))
        .expect("a travel")
        .len();
    assert!((3..=4).contains(&stops), "{stops} boundaries in 100 days");
    let there: bool =
        one.query_one("SELECT billing.now() = now() + interval '100 days'", &[]).expect("the clock").get(0);
    assert!(there);
    assert_eq!(common::refusal(one.batch_execute("COMMIT")).code, "55000");
    let now: bool = one.query_one("SELECT billing.now() = now()", &[]).expect("the clock").get(0);
    assert!(now);
    let after = picture(&db).into_iter().filter(|line| !line.starts_with("clock")).collect::<Vec<_>>();
    assert_eq!(before, after);
    assert_eq!(db.verify(), Vec::<String>::new());
}

//! Many sessions at once: every event exactly once, every customer, contract and seller once, and no deadlock or
//! serialization error at a client (bill_races.rs has the invoices). Each test has its own database, draws its events
//! and timing from a printed seed (RACES_SEED=… repeats it) and ends with `billing.verify('full')`.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::Db;
use load::{Door, Event, Flag, Rng, Tally, billable, count, told};
use postgres::Client;
use serde_json::json;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

// ---------------------------------------------------------------- ingest

/// Sends every event of `mine` until it is acknowledged: random batches through any door, repeats of what was
/// acknowledged, batches that are rolled back and sent again, rejected ones kept for later.
fn send_all(client: &mut Client, rng: &mut Rng, mine: Vec<Event>) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut waiting: Vec<Event> = mine;
    let mut acknowledged: Vec<Event> = Vec::new();
    let mut rounds = 0;
    while !waiting.is_empty() {
        rounds += 1;
        if rounds > 3000 {
            return Err(format!("{} events are still refused", waiting.len()));
        }
        rng.shuffle(&mut waiting);
        let size = (1 + rng.below(120)).min(waiting.len());
        let batch: Vec<Event> = waiting.split_off(waiting.len() - size);
        let mut refs: Vec<&Event> = batch.iter().collect();
        for _ in 0..rng.below(10).min(acknowledged.len()) {
            refs.push(&acknowledged[rng.below(acknowledged.len())]); // a repeat
        }
        if rng.chance(20) {
            refs.push(refs[0]); // twice in one batch
        }
        if rng.chance(10) {
            // Sent, then lost: the client never hears and sends again.
            let mut transaction = client.transaction().map_err(|e| told(&e))?;
            load::send(&mut transaction, Door::Ingest, &refs).map_err(|e| told(&e))?;
            transaction.rollback().map_err(|e| told(&e))?;
        }
        let door = if rng.chance(25) { Door::IngestFrom } else { Door::Ingest };
        let answer = load::send(client, door, &refs).map_err(|e| told(&e))?;
        tally.add(answer);
        if answer.rejected > 0 {
            // Some customer is not there yet. Which events were stored does not matter: they are repeats then.
            waiting.extend(batch);
            thread::sleep(Duration::from_millis(5));
        } else {
            acknowledged.extend(batch);
        }
    }
    Ok(tally)
}

/// Customers, meters and prices appear and change until the clients are done.
fn churn(
    client: &mut Client,
    rng: &mut Rng,
    new_customers: &[String],
    done: &AtomicBool,
) -> Result<(), String> {
    let mut fresh = new_customers.iter();
    let mut meters = 0;
    loop {
        if let Some(customer) = fresh.next() {
            let zone = load::ZONES[rng.below(load::ZONES.len())];
            load::upsert_customer(client, &json!({"key": customer, "time_zone": zone}))
                .map_err(|e| told(&e))?;
        } else if done.load(Ordering::SeqCst) {
            return Ok(());
        }
        if meters < 3 {
            meters += 1;
            let meter = json!({"meters": [{"key": format!("late-{meters}"), "event_type": "llm", "aggregation": "sum",
                "value": "input", "dimensions": ["region"], "unit": "token"}]});
            load::apply(client, &meter).map_err(|e| told(&e))?;
        }
        // Narrower buckets from now on; the stored ones stay as they are.
        let zone = if rng.chance(30) { "Asia/Kathmandu" } else { "UTC" };
        let customer = json!({"key": format!("c{}", rng.below(4)), "time_zone": zone});
        load::upsert_customer(client, &customer).map_err(|e| told(&e))?;
        thread::sleep(Duration::from_millis(20 + rng.below(60) as u64));
    }
}

fn fold_until(client: &mut Client, done: &AtomicBool) -> Result<(), String> {
    while !done.load(Ordering::SeqCst) {
        client.batch_execute("CALL billing.fold()").map_err(|e| told(&e))?;
        thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

#[test]
fn eight_clients_send_the_same_events_and_each_counts_once() {
    const CLIENTS: usize = 8;
    let mut rng = load::seed("eight clients");
    let db = Db::fresh("races_ingest");
    let mut admin = load::prepare(&db);
    let customers: Vec<String> = (0..14).map(|n| format!("c{n}")).collect();
    for (n, customer) in customers.iter().take(9).enumerate() {
        let zone = load::ZONES[n % load::ZONES.len()];
        load::upsert_customer(&mut admin, &json!({"key": customer, "time_zone": zone})).expect("customer");
    }
    let events = load::events(&mut rng, 4000, &customers);
    let done = AtomicBool::new(false);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let _flag = Flag(&done);
        let mut helpers = Vec::new();
        for _ in 0..2 {
            let (db, done) = (&db, &done);
            helpers.push(scope.spawn(move || fold_until(&mut db.connect_as("billing_operator"), done)));
        }
        let (mut own, admin, late, flag) = (rng.fork(), &mut admin, &customers[9..], &done);
        helpers.push(scope.spawn(move || churn(admin, &mut own, late, flag)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let mut rng = rng.fork();
                // Every event has one client that surely sends it, and many others.
                let mine: Vec<Event> = events
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| at % CLIENTS == n || rng.chance(30))
                    .map(|(_, e)| e.clone())
                    .collect();
                let db = &db;
                scope.spawn(move || send_all(&mut db.connect_as("billing_app"), &mut rng, mine))
            })
            .collect();
        for client in clients {
            tally.add(client.join().expect("a client").expect("no error reaches a client"));
        }
        done.store(true, Ordering::SeqCst);
        for helper in helpers {
            helper.join().expect("a helper").expect("no error reaches fold or catalogue");
        }
    });
    println!("{tally:?}");
    assert_eq!(tally.accepted, events.len() as i64, "each accepted once");
    assert_eq!(tally.accepted + tally.duplicate + tally.rejected, tally.sent);
    assert_eq!(tally.conflicting, 0);
    let mut client = db.connect();
    load::assert_exactly_once(&mut client, &events);
    assert_eq!(db.verify(), Vec::<String>::new());
    client.batch_execute("CALL billing.fold()").expect("fold");
    let left: i64 = client.query_one("SELECT count(*) FROM billing.usage_delta", &[]).expect("deltas").get(0);
    assert_eq!(left, 0, "folded");
    load::assert_exactly_once(&mut client, &events);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn of_two_contents_under_one_id_exactly_one_is_stored() {
    let mut rng = load::seed("two contents");
    let db = Db::fresh("races_conflict");
    let mut admin = load::prepare(&db);
    for n in 0..4 {
        load::upsert_customer(&mut admin, &json!({"key": format!("c{n}")})).expect("customer");
    }
    let rounds = 60;
    // One event per round and client: the same id, the content says whose it is; other events around it.
    let batch = |rng: &mut Rng, round: usize, who: u64| {
        let mut batch: Vec<Event> = (0..8)
            .map(|n| Event {
                customer: format!("c{}", (round + n) % 4),
                id: if n == 0 { format!("contested-{round}") } else { format!("shared-{round}-{n}") },
                at: format!("2026-02-{:02}T10:00:00Z", 1 + round % 28),
                properties: [
                    ("model", json!("m")),
                    ("input", json!(if n == 0 { who } else { 1 })),
                    ("output", json!(1)),
                ]
                .into(),
            })
            .collect();
        rng.shuffle(&mut batch);
        batch
    };
    let barrier = Barrier::new(2);
    let answers: Vec<Vec<(Tally, bool)>> = thread::scope(|scope| {
        let clients: Vec<_> = (1..=2)
            .map(|who| {
                let (db, barrier, mut rng) = (&db, &barrier, rng.fork());
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_app");
                    (0..rounds)
                        .map(|round| {
                            let events = batch(&mut rng, round, who);
                            let refs: Vec<&Event> = events.iter().collect();
                            let gives_up = who == 1 && round % 5 == 4;
                            barrier.wait();
                            let mut transaction = client.transaction().expect("begin");
                            let answer = load::send(&mut transaction, Door::Ingest, &refs)
                                .map_err(|e| told(&e))
                                .expect("ingest");
                            thread::sleep(Duration::from_millis(rng.below(4) as u64));
                            if gives_up { transaction.rollback() } else { transaction.commit() }
                                .expect("end");
                            (answer, gives_up)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        clients.into_iter().map(|c| c.join().expect("a client")).collect()
    });
    let mut lost = 0;
    for (round, ((one, gave_up), (two, _))) in answers[0].iter().zip(&answers[1]).enumerate() {
        let stored: Vec<i64> = admin
            .query(
                "SELECT (properties->>'input')::bigint FROM billing.usage_event WHERE event_id = $1",
                &[&format!("contested-{round}")],
            )
            .expect("stored")
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(stored.len(), 1, "round {round}: stored once");
        if *gave_up {
            // What was rolled back was never there for anybody.
            assert_eq!((two.accepted, two.conflicting, stored[0]), (8, 0, 2), "round {round}: {two:?}");
            continue;
        }
        let told_accepted = if stored[0] == 1 { (1, 0) } else { (0, 1) };
        assert_eq!(
            (one.conflicting, two.conflicting),
            (1 - told_accepted.0, 1 - told_accepted.1),
            "round {round}: {one:?} {two:?}"
        );
        assert_eq!(one.accepted + two.accepted, 8, "round {round}: {one:?} {two:?}");
        lost += 1;
    }
    let kept: i64 = admin
        .query_one("SELECT count(*) FROM billing.rejected_event WHERE reason = 'conflicting'", &[])
        .expect("kept")
        .get(0);
    assert_eq!(kept, lost, "the conflicting ones are kept aside, whole");
    assert_eq!(load::usage_differences(&mut admin), Vec::<String>::new());
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn events_sent_in_an_older_snapshot_count_on_a_newer_meter_or_are_refused() {
    let db = Db::fresh("races_snapshot");
    let mut admin = load::prepare(&db);
    load::upsert_customer(&mut admin, &json!({"key": "c0"})).expect("customer");
    let mut rng = Rng::new(1);
    let events = load::events(&mut rng, 10, &["c0".to_owned()]);
    let refs: Vec<&Event> = events.iter().collect();
    for (n, isolation) in ["REPEATABLE READ", "SERIALIZABLE"].into_iter().enumerate() {
        let mut client = db.connect_as("billing_app");
        client
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM billing.meter"))
            .expect("a snapshot");
        let meter = json!({"meters": [{"key": format!("late-{n}"), "event_type": "llm", "aggregation": "sum", "value": "input", "dimensions": ["region"], "unit": "token"}]});
        load::apply(&mut admin, &meter).expect("a meter");
        let half = &refs[n * 5..n * 5 + 5];
        let document = serde_json::Value::Array(half.iter().map(|e| e.json()).collect()).to_string();
        let answer = client.query_one("SELECT accepted FROM billing.ingest($1::text::json)", &[&document]);
        match answer {
            Ok(_) => client.batch_execute("COMMIT").expect("commit"),
            Err(error) => {
                assert_eq!(
                    common::refusal::<()>(Err(error)).code,
                    "40001",
                    "a client above READ COMMITTED retries this"
                );
                client.batch_execute("ROLLBACK").expect("rollback");
                load::send(&mut client, Door::Ingest, half).expect("the retry");
            }
        }
        load::assert_exactly_once(&mut admin, &events[..n * 5 + 5]);
    }
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_fold_step_holds_few_locks_however_many_customers_wait() {
    let db = Db::fresh("races_fold_locks");
    let mut admin = load::prepare(&db);
    load::upsert_customer(&mut admin, &json!({"key": "c0"})).expect("customer");
    admin
        .batch_execute(
            "SELECT billing.ingest('{\"customer\":\"c0\",\"event_id\":\"e\",\"event_type\":\"llm\",\"occurred_at\":\"2026-02-01T00:00:00Z\",\"properties\":{\"input\":1,\"output\":1}}');
             INSERT INTO billing.usage_delta (customer_id, meter_id, bucket_minutes, bucket_start, dimension_set_id, events, quantity, dimensions, value_keys)
             SELECT c, meter_id, bucket_minutes, bucket_start, dimension_set_id, events, quantity, dimensions, value_keys
             FROM billing.usage_delta, generate_series(1000, 3999) c",
        )
        .expect("deltas of many customers");
    let mut transaction = admin.transaction().expect("begin");
    let folded: i64 = transaction.query_one("SELECT billing.fold_step(NULL)", &[]).expect("a step").get(0);
    assert!(folded > 0);
    let locks: i64 = transaction
        .query_one(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            &[],
        )
        .expect("locks")
        .get(0);
    transaction.commit().expect("commit");
    assert!(
        locks <= 300,
        "one step holds {locks} advisory locks; the lock table of a small server has 6,400"
    );
    admin.batch_execute("CALL billing.fold()").expect("fold");
    let left: i64 = admin.query_one("SELECT count(*) FROM billing.usage_delta", &[]).expect("deltas").get(0);
    assert_eq!(left, 0, "the job goes on until nothing is left");
}

#[test]
fn a_partition_made_in_the_middle_of_a_transaction_is_seen_by_it() {
    let db = Db::fresh("races_partitions");
    let mut admin = billable(&db, 3);
    let event = |n: usize, at: &str| Event {
        customer: format!("u{n}"),
        id: format!("{n} {at}"),
        at: at.to_owned(),
        properties: [("model", json!("m0")), ("input", json!(1)), ("output", json!(0))].into(),
    };
    let mut sender = db.connect_as("billing_app");
    // A transaction that has all its locks already …
    let mut open = admin.transaction().expect("begin");
    let fold = "SELECT billing_internal.fold_customer(customer_id) FROM billing.customer WHERE key = $1";
    let usage = "SELECT quantity::bigint FROM billing.usage('u1', 'requests', '2026-01-01Z', '2026-03-01Z')";
    let before: i64 = open.query_one(usage, &[]).expect("usage").get(0);
    open.query(fold, &[&"u0"]).expect("fold");
    open.query("SELECT billing.invoice_preview('u1-1')", &[]).expect("preview");
    // … and months that begin meanwhile, with usage folded by others and not yet.
    load::send(
        &mut sender,
        Door::Ingest,
        &[&event(1, "2026-01-10T00:00:00Z"), &event(2, "2025-12-10T00:00:00Z")],
    )
    .expect("ingest");
    db.connect().query(fold, &[&"u1"]).expect("fold");
    let after: i64 = open.query_one(usage, &[]).expect("usage").get(0);
    assert_eq!(after, before + 1, "usage in a partition that is new");
    open.query(fold, &[&"u2"]).expect("fold into a partition that is new");
    load::send(&mut sender, Door::Ingest, &[&event(2, "2025-11-10T00:00:00Z")]).expect("ingest");
    load::send(&mut open, Door::Ingest, &[&event(0, "2025-11-11T00:00:00Z")])
        .expect("ingest into a partition that is new");
    open.commit().expect("commit");
    assert_eq!(load::usage_differences(&mut admin), Vec::<String>::new());
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn customers_and_contracts_made_twice_at_once_are_made_once() {
    let db = Db::fresh("races_twins");
    let mut admin = load::prepare(&db);
    for home in ["home-0", "home-1"] {
        load::upsert_customer(&mut admin, &json!({"key": home})).expect("customer");
    }
    let barrier = Barrier::new(2);
    let errors: Vec<Vec<String>> = thread::scope(|scope| {
        let twins: Vec<_> = (0..2)
            .map(|who| {
                let (db, barrier) = (&db, &barrier);
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_operator");
                    let mut errors = Vec::new();
                    for n in 0..30 {
                        barrier.wait();
                        // An upsert may be said twice; a contract is made by one, the other is told.
                        if let Err(e) = load::upsert_customer(&mut client, &json!({"key": format!("twin-{n}"), "name": "Twin"})) {
                            errors.push(told(&e));
                        }
                        let doc = json!({"key": format!("contract-{n}"), "customer": format!("home-{who}"), "starts_on": "2026-02-01", "plan": "usage"});
                        if let Err(e) = client.query_one("SELECT billing.contract_create($1::text::jsonb)", &[&doc.to_string()]) {
                            errors.push(told(&e));
                        }
                    }
                    errors
                })
            })
            .collect();
        twins.into_iter().map(|t| t.join().expect("a twin")).collect()
    });
    let errors: Vec<String> = errors.concat();
    assert_eq!(errors.iter().filter(|e| e.starts_with("ZB005 key: contract")).count(), 30, "{errors:#?}");
    assert_eq!(errors.len(), 30, "{errors:#?}");
    let (customers, highest): (i64, i64) = admin
        .query_one("SELECT count(*), max(customer_id) FROM billing.customer", &[])
        .map(|r| (r.get(0), r.get(1)))
        .expect("customers");
    assert_eq!((customers, highest), (32, 32), "no id is left out");
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// What a session says whose statement meets what another one has done and not yet committed: `first` runs in a
/// transaction, `second` is sent, then `first`'s transaction goes on with `then` and commits.
fn met(db: &Db, first: &str, second: &str, then: &str) -> Result<(), String> {
    let mut one = db.connect_as("billing_admin");
    one.batch_execute("BEGIN").expect("begin");
    one.batch_execute(first).map_err(|e| told(&e)).expect("the first");
    thread::scope(|scope| {
        let two = scope
            .spawn(|| db.connect_as("billing_admin").batch_execute(second).map(|_| ()).map_err(|e| told(&e)));
        thread::sleep(Duration::from_millis(300));
        one.batch_execute(then).map_err(|e| told(&e)).expect("the first goes on");
        one.batch_execute("COMMIT").expect("commit");
        two.join().expect("the second")
    })
}

#[test]
fn a_name_is_given_to_one_customer_be_it_key_or_alias() {
    let db = Db::fresh("races_names");
    let mut admin = db.connect();
    let upsert = |document: serde_json::Value| format!("SELECT billing.customer_upsert('{document}')");
    let taken = |said: Result<(), String>, message: &str| {
        let said = said.expect_err("two customers of one name");
        assert!(said.starts_with(message), "{said}");
    };
    for key in ["acme", "globex"] {
        admin.batch_execute(&upsert(json!({"key": key}))).expect("customer");
    }
    let acme = |alias: &str| upsert(json!({"key": "acme", "aliases": ["acme-inc", alias]}));
    let globex = |alias: &str| upsert(json!({"key": "globex", "aliases": [alias]}));
    taken(met(&db, &acme("one"), &globex("one"), ""), "ZB005 aliases: 'one' belongs to another customer");
    taken(
        met(&db, &acme("two"), &upsert(json!({"key": "two"})), ""),
        "ZB005 key: 'two' is an alias of another customer",
    );
    taken(
        met(&db, &upsert(json!({"key": "three"})), &acme("three"), ""),
        "ZB005 aliases: 'three' belongs to another customer",
    );
    // The other order of the same two, and both at one customer, are no quarrel.
    met(&db, &upsert(json!({"key": "four", "aliases": ["vier"]})), &acme("five"), "").expect("two names");
    met(&db, &acme("six"), &acme("six"), "").expect("the same twice");
    met(&db, &acme("seven"), &upsert(json!({"key": "acme", "name": "Acme"})), "").expect("the same customer");
    // A snapshot from before the name was given can't see it.
    let mut late = db.connect_as("billing_admin");
    late.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM billing.customer")
        .expect("snapshot");
    admin.batch_execute(&acme("eight")).expect("alias");
    let said =
        late.batch_execute(&upsert(json!({"key": "eight"}))).map_err(|e| told(&e)).expect_err("too late");
    assert!(said.starts_with("40001"), "{said}");
    let names: Vec<String> = admin
        .query("SELECT alias FROM billing.customer_alias WHERE removed_at IS NULL ORDER BY 1", &[])
        .expect("aliases")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(names, ["acme-inc", "eight", "vier"]);
    assert_eq!(count(&mut admin, "billing.customer"), 4);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_seller_made_twice_at_once_is_made_once() {
    let db = Db::fresh("races_sellers");
    let seller = |name: &str| {
        format!(
            "SELECT billing.seller_upsert('{}')",
            json!({"key": "gmbh", "name": name, "bank_accounts": [{"key": "main", "currency": "EUR", "holder": name}]})
        )
    };
    met(&db, &seller("One"), &seller("Two"), "").expect("the second changes it");
    let mut admin = db.connect();
    assert_eq!(count(&mut admin, "billing.seller WHERE key = 'gmbh' AND name = 'Two'"), 1);
    assert_eq!(count(&mut admin, "billing.seller_bank_account WHERE holder = 'Two'"), 1);
    assert_eq!(count(&mut admin, "billing.audit_log WHERE action = 'seller_upsert'"), 2);
}

#[test]
fn a_zone_that_narrows_buckets_waits_for_ingest_before_it_takes_the_customer() {
    let db = Db::fresh("races_zone");
    let mut admin = load::prepare(&db);
    for customer in ["acme", "globex", "initech"] {
        load::upsert_customer(&mut admin, &json!({"key": customer})).expect("customer");
    }
    let event = |customer: &str| {
        format!(
            "SELECT billing.ingest_event('{customer}', 'llm', 'e', '2026-02-01T00:00:00Z', '{{\"input\": 1, \"output\": 1}}')"
        )
    };
    // Whoever has ingested may go on and change the same customer: nobody holds its row and waits for ingest.
    let change = |customer: &str| {
        format!("SELECT billing.customer_upsert('{{\"key\": \"{customer}\", \"name\": \"New\"}}')")
    };
    let contract = r#"SELECT billing.contract_create('{"key": "k", "customer": "globex", "starts_on": "2026-02-01", "plan": "usage", "time_zone": "Asia/Kathmandu"}')"#;
    let subscription =
        r#"SELECT billing.subscribe('initech', 'usage', '2026-02-01', '{"time_zone": "Asia/Kathmandu"}')"#;
    let zone = r#"SELECT billing.customer_upsert('{"key": "acme", "time_zone": "Asia/Kathmandu"}')"#;
    for (customer, narrows) in [("acme", zone), ("globex", contract), ("initech", subscription)] {
        met(&db, &event(customer), narrows, &change(customer)).expect(customer);
    }
    assert_eq!(count(&mut admin, "billing.customer WHERE bucket_minutes = 15 AND name = 'New'"), 3);
    assert_eq!(db.verify(), Vec::<String>::new());
}

//! Many sessions at once: every event exactly once, every contract billed once, no number twice or left out, and
//! no deadlock or serialization error at a client. Each test has its own database, draws its events and timing
//! from a printed seed (RACES_SEED=… repeats it) and ends with `billing.verify('full')`.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::Db;
use load::{Door, Event, Rng, Tally, told};
use postgres::Client;
use serde_json::json;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Ends the loops of a test's helpers even if one of its threads panics.
struct Flag<'a>(&'a AtomicBool);

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

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

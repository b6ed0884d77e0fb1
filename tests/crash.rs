//! A server that is killed (kill -9 of every process, as a power cut) at random moments while four clients ingest,
//! usage is folded and contracts are billed. After each restart every acknowledged event is there exactly once, usage
//! equals a fresh count of the events, numbers have no gap, invoices are whole, and what was cut off goes on.
//!
//! CRASH_ROUNDS=… kills that many times (default 10), RACES_SEED=… repeats a run's events and moments.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::{Db, Server};
use load::{Door, Event, Rng, told};
use postgres::{Client, NoTls};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CUSTOMERS: usize = 30;
const CLIENTS: usize = 4;
/// Rounds that one database sees: events are of one month a round, and none may be older than five years.
const ROUNDS_A_DATABASE: usize = 48;

/// The first day of the month that lies `n` months after January 2024.
fn month(n: usize) -> String {
    format!("{}-{:02}-01", 2024 + n / 12, 1 + n % 12)
}

fn prepare(server: &Server, name: &str) -> Db {
    let db = server.fresh(name);
    let mut client = load::prepare(&db);
    client
        .batch_execute(&format!(
            "SELECT billing.test_clock_set('2028-06-01T00:00:00Z');
             SELECT billing.seller_upsert('{{\"key\":\"second\",\"invoice_series\":\"SEC\"}}');
             SELECT billing.customer_upsert(jsonb_build_object('key', 'u' || n, 'seller', CASE n % 2 WHEN 0 THEN 'default' ELSE 'second' END)) FROM generate_series(0, {CUSTOMERS} - 1) n;
             SELECT billing.subscribe('u' || n, 'usage', '2024-01-01') FROM generate_series(0, {CUSTOMERS} - 1) n;"
        ))
        .expect("customers and contracts");
    db
}

/// The events of a round, all in one month.
fn events_of(rng: &mut Rng, round: usize) -> Vec<Event> {
    let customers: Vec<String> = (0..CUSTOMERS).map(|n| format!("u{n}")).collect();
    let mut events = load::events(rng, 900, &customers);
    for event in &mut events {
        event.id = format!("r{round}-{}", event.id);
        event.at.replace_range(0..7, &month(round)[0..7]);
    }
    events
}

/// Whether an error only says that the server went away or is not back yet.
fn went_away(error: &postgres::Error) -> bool {
    match error.as_db_error() {
        Some(e) => ["57P01", "57P02", "57P03"].contains(&e.code().code()),
        None => true,
    }
}

/// Works on a connection until it is done, with a new connection whenever the server went away.
fn until_done(
    db: &Db,
    role: &str,
    done: impl Fn() -> bool,
    mut work: impl FnMut(&mut Client) -> Result<bool, postgres::Error>,
) -> Result<usize, String> {
    let mut config = db.config();
    config.options(&format!("-c timezone=UTC -c role={role}"));
    let start = Instant::now();
    let mut went = 0;
    while start.elapsed() < Duration::from_secs(60) {
        if done() {
            return Ok(went);
        }
        let result = config.connect(NoTls).and_then(|mut client| {
            while !done() {
                if work(&mut client)? {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        match result {
            Ok(_) => return Ok(went),
            Err(e) if went_away(&e) => went += 1,
            Err(e) => return Err(told(&e)),
        }
        thread::sleep(Duration::from_millis(60));
    }
    Err("not done within a minute".to_owned())
}

/// Sends its events in batches, each batch again and again until it is acknowledged.
fn ingest_all(db: &Db, rng: &mut Rng, mut mine: Vec<Event>) -> Result<usize, String> {
    rng.shuffle(&mut mine);
    let mut batches: Vec<Vec<Event>> = Vec::new();
    while !mine.is_empty() {
        let size = (1 + rng.below(12)).min(mine.len());
        batches.push(mine.split_off(mine.len() - size));
    }
    until_done(
        db,
        "billing_app",
        || false,
        |client| {
            let Some(batch) = batches.last() else { return Ok(true) };
            let door = if rng.chance(20) { Door::IngestFrom } else { Door::Ingest };
            let tally = load::send(client, door, &batch.iter().collect::<Vec<_>>())?;
            assert_eq!(
                (tally.accepted + tally.duplicate, tally.conflicting, tally.rejected),
                (tally.sent, 0, 0)
            );
            batches.pop();
            Ok(batches.is_empty())
        },
    )
}

fn fold_until(db: &Db, done: &AtomicBool) -> Result<usize, String> {
    until_done(
        db,
        "billing_operator",
        || done.load(Ordering::SeqCst),
        |client| client.batch_execute("CALL billing.fold()").map(|()| false),
    )
}

/// One run; whether the server went away under it.
fn bill(db: &Db, as_of: &str) -> Result<bool, String> {
    let mut config = db.config();
    config.options("-c timezone=UTC -c role=billing_operator");
    let result = config
        .connect(NoTls)
        .and_then(|mut client| client.batch_execute(&format!("CALL billing.bill_run('{as_of}T00:00:00Z')")));
    match result {
        Ok(()) => Ok(false),
        Err(e) if went_away(&e) => Ok(true),
        Err(e) => Err(told(&e)),
    }
}

/// Invoices as plain SQL sees them: numbers from 1 without a gap, lines that sum to the total, one for each customer
/// and month with usage that was due, none besides.
#[track_caller]
fn assert_invoices(client: &mut Client, billed_to: Option<&str>) {
    let broken: Vec<String> = client
        .query(
            "SELECT format('series %s: %s numbers to %s', series, count(*), max(counter)) FROM billing.invoice_number
                GROUP BY series HAVING count(*) <> max(counter) OR min(counter) <> 1 OR count(DISTINCT invoice_id) <> count(*)
             UNION ALL
             SELECT format('invoice %s: lines %s, total %s', i.number, sum(l.amount), i.total) FROM billing.invoice i LEFT JOIN billing.invoice_line l USING (customer_id, invoice_id)
                GROUP BY i.customer_id, i.invoice_id HAVING sum(l.amount) IS DISTINCT FROM i.total OR i.number IS NULL
             UNION ALL
             SELECT format('customer %s period %s has %s invoices', customer_id, n, count(*)) FROM billing.invoice GROUP BY customer_id, n HAVING count(*) > 1",
            &[],
        )
        .expect("invoices")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(broken, Vec::<String>::new());
    if let Some(as_of) = billed_to {
        let differing: i64 = client
            .query_one(
                "SELECT count(*) FROM (SELECT DISTINCT customer_id, date_trunc('month', occurred_at, 'UTC') AS month FROM billing.usage_event WHERE occurred_at < $1::text::timestamptz) e
                 FULL JOIN (SELECT customer_id, period_starts_at AS month FROM billing.invoice) i USING (customer_id, month) WHERE e IS NULL OR i IS NULL",
                &[&format!("{as_of}T00:00:00Z")],
            )
            .expect("months billed")
            .get(0);
        assert_eq!(differing, 0, "months with usage and months billed before {as_of}");
    }
}

/// One round: work, a kill in the middle of it, a restart, and what must hold then.
fn round(server: &Server, db: &Db, rng: &mut Rng, n: usize, sent: &mut Vec<Event>) {
    let events = events_of(rng, n);
    let kind = ["ingest", "fold", "bill run"][n % 3];
    let as_of = month(n); // usage of this round is not due yet
    let moment = Duration::from_millis(match kind {
        "bill run" => 30 + rng.below(900) as u64,
        _ => 30 + rng.below(400) as u64,
    });
    let folding_ends = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|who| {
                let mut rng = rng.fork();
                let mine: Vec<Event> = events
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| at % CLIENTS == who || rng.chance(15))
                    .map(|(_, event)| event.clone())
                    .collect();
                scope.spawn(move || ingest_all(db, &mut rng, mine))
            })
            .collect();
        let folder = (kind == "fold").then(|| scope.spawn(|| fold_until(db, &folding_ends)));
        let run = (kind == "bill run").then(|| scope.spawn(|| bill(db, &as_of)));
        thread::sleep(moment);
        let killed = start.elapsed();
        server.kill9();
        let dead = start.elapsed();
        server.start();
        let back = start.elapsed();
        let mut cut_off = 0;
        for client in clients {
            cut_off += client.join().expect("a client").expect("no error but the crash reaches a client");
        }
        folding_ends.store(true, Ordering::SeqCst);
        if let Some(folder) = folder {
            cut_off += folder.join().expect("fold").expect("no error but the crash reaches fold");
        }
        let run = run.map(|run| run.join().expect("the run").expect("no error but the crash ends a run"));
        println!(
            "round {n} ({kind}): killed after {killed:?}, dead {dead:?}, back {back:?}; {cut_off} connections lost, run cut off: {run:?}; {:?}",
            start.elapsed()
        );
    });
    sent.extend(events);
    let mut client = db.connect();
    load::assert_exactly_once(&mut client, sent);
    assert_invoices(&mut client, None);
    if kind == "bill run" {
        // Before and after it goes on.
        assert_eq!(db.verify(), Vec::<String>::new(), "round {n}");
        assert!(!bill(db, &as_of).expect("the next run"), "the server stays");
        assert_invoices(&mut client, Some(&as_of));
    }
}

#[test]
fn a_killed_server_loses_nothing_it_acknowledged_and_goes_on() {
    let rounds =
        std::env::var("CRASH_ROUNDS").map_or(10, |text| text.parse().expect("CRASH_ROUNDS is a number"));
    let mut rng = load::seed("crash");
    let server = Server::spawn("crash");
    // Recovery flushes all files at once instead of opening every one; from the first restart on.
    server.configure("recovery_init_sync_method = syncfs");
    let mut left = rounds;
    while left > 0 {
        let db = prepare(&server, &format!("crash_{left}"));
        let mut sent = Vec::new();
        let here = left.min(ROUNDS_A_DATABASE);
        for n in 0..here {
            round(&server, &db, &mut rng, n, &mut sent);
        }
        left -= here;
        let as_of = month(here);
        assert!(!bill(&db, &as_of).expect("the last run"));
        let mut client = db.connect();
        client.batch_execute("CALL billing.fold()").expect("fold");
        assert_invoices(&mut client, Some(&as_of));
        load::assert_exactly_once(&mut client, &sent);
        assert_eq!(db.verify(), Vec::<String>::new());
    }
}

//! Copies of the database on other servers. A standby that takes over under ingest has every acknowledged event if
//! `synchronous_standby_names` is set, else a clean prefix of what each client sent; either way it is sound and goes on. A
//! reader by logical replication has the same usage, invoices and proofs.
//!
//! RACES_SEED=… repeats a run's events and moments.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::{Db, Server};
use load::{Door, Event, Rng};
use postgres::{Client, NoTls};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const CUSTOMERS: usize = 20;
const CLIENTS: usize = 4;

/// What one client sends, in this order, and how much of it was acknowledged.
struct Work {
    batches: Vec<Vec<Event>>,
    acknowledged: AtomicUsize,
}

impl Work {
    /// Sends batch after batch until all are acknowledged, somebody says stop, or the server goes away.
    fn send(&self, db: &Db, stop: &AtomicBool) {
        let mut config = db.config();
        config.options("-c timezone=UTC -c role=billing_app");
        let Ok(mut client) = config.connect(NoTls) else { return };
        while let Some(batch) = self.batches.get(self.acknowledged.load(Ordering::SeqCst)) {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            match load::send(&mut client, Door::Ingest, &batch.iter().collect::<Vec<_>>()) {
                Ok(tally) => {
                    assert_eq!(tally.accepted + tally.duplicate, tally.sent, "{tally:?}");
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                Err(e) if e.as_db_error().is_none_or(|e| e.code().code().starts_with("57P")) => return,
                Err(e) => panic!("{}", load::told(&e)),
            }
        }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

fn work(rng: &mut Rng) -> Vec<Work> {
    let customers: Vec<String> = (0..CUSTOMERS).map(|n| format!("u{n}")).collect();
    let mut events = load::events(rng, 12_000, &customers);
    let mut work: Vec<Work> =
        (0..CLIENTS).map(|_| Work { batches: Vec::new(), acknowledged: AtomicUsize::new(0) }).collect();
    let mut n = 0;
    while !events.is_empty() {
        let batch = events.split_off(events.len() - (1 + rng.below(12)).min(events.len()));
        work[n % CLIENTS].batches.push(batch);
        n += 1;
    }
    work
}

fn prepare(db: &Db) -> Client {
    let mut client = load::prepare(db);
    client
        .batch_execute(&format!(
            "SELECT billing.customer_upsert(jsonb_build_object('key', 'u' || n, 'time_zone', (ARRAY['UTC', 'Asia/Kathmandu'])[1 + n % 2])) FROM generate_series(0, {CUSTOMERS} - 1) n;
             SELECT billing.subscribe('u' || n, 'usage', '2026-01-01') FROM generate_series(0, {CUSTOMERS} - 1) n;"
        ))
        .expect("customers and contracts");
    client
}

/// Runs clients on a server until it is killed; `meanwhile` says when.
fn until_killed(db: &Db, server: &Server, work: &[Work], meanwhile: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for each in work {
            let stop = &stop;
            scope.spawn(move || each.send(db, stop));
        }
        meanwhile();
        server.kill9();
        stop.store(true, Ordering::SeqCst);
    });
    assert!(
        work.iter().any(|w| w.acknowledged() < w.batches.len()),
        "the kill came too late: more events are needed"
    );
}

fn acknowledged(work: &[Work]) -> usize {
    work.iter().map(Work::acknowledged).sum()
}

/// Waits until so many batches more are acknowledged.
fn wait_for_more(work: &[Work], more: usize) {
    let from = acknowledged(work);
    load::wait_until("further batches", || acknowledged(work) >= from + more);
}

/// Which events of each client are there, by the count of its leading batches; that each batch is there whole or not at
/// all, and none after one that is missing.
fn prefixes(client: &mut Client, work: &[Work]) -> Vec<usize> {
    let stored: HashSet<String> = client
        .query("SELECT event_id FROM billing.usage_event", &[])
        .expect("the stored events")
        .iter()
        .map(|row| row.get(0))
        .collect();
    work.iter()
        .map(|each| {
            let there: Vec<bool> = each
                .batches
                .iter()
                .map(|batch| {
                    let found = batch.iter().filter(|event| stored.contains(&event.id)).count();
                    assert!(found == 0 || found == batch.len(), "{found} of a batch of {}", batch.len());
                    found > 0
                })
                .collect();
            let prefix = there.iter().take_while(|there| **there).count();
            assert!(!there[prefix..].contains(&true), "a batch is there after one that is not");
            prefix
        })
        .collect()
}

fn leading(work: &[Work], batches: &[usize]) -> Vec<Event> {
    work.iter().zip(batches).flat_map(|(w, n)| w.batches[..*n].iter().flatten().cloned()).collect()
}

/// The promoted server: sound as it stands, then all of the work is sent to it again and billed.
fn goes_on(db: &Db, work: &[Work], found: &[usize]) {
    let mut client = db.connect();
    load::assert_exactly_once(&mut client, &leading(work, found));
    assert_eq!(db.verify(), Vec::<String>::new(), "as it was found");
    for (each, found) in work.iter().zip(found) {
        // A client knows only what it was told; without a synchronous standby it is to send from the last sure point.
        each.acknowledged.store(each.acknowledged().min(*found), Ordering::SeqCst);
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for each in work {
            let stop = &stop;
            scope.spawn(move || each.send(db, stop));
        }
    });
    let all: Vec<usize> = work.iter().map(|w| w.batches.len()).collect();
    assert_eq!(work.iter().map(Work::acknowledged).collect::<Vec<_>>(), all);
    load::assert_exactly_once(&mut client, &leading(work, &all));
    client.batch_execute("CALL billing.fold()").expect("fold");
    client.batch_execute("CALL billing.bill_run('2026-03-01T00:00:00Z')").expect("a run");
    let invoices: i64 =
        client.query_one("SELECT count(*) FROM billing.invoice", &[]).expect("invoices").get(0);
    assert!(invoices >= CUSTOMERS as i64, "{invoices} invoices");
    load::assert_exactly_once(&mut client, &leading(work, &all));
    assert_eq!(db.verify(), Vec::<String>::new(), "at the end");
}

fn promote(server: &Server, db: &Db) -> Db {
    let db = server.existing(db);
    let promoted: bool =
        db.connect().query_one("SELECT pg_promote(true, 60)", &[]).expect("promotion").get(0);
    assert!(promoted, "the standby was not promoted");
    db
}

fn wait_for_standby(client: &mut Client, state: &str) {
    load::wait_until("streaming", || {
        client
            .query_one(
                "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = $1",
                &[&state],
            )
            .expect("replication")
            .get::<_, i64>(0)
            == 1
    });
}

#[test]
fn a_synchronous_standby_has_every_acknowledged_event() {
    let mut rng = load::seed("synchronous standby");
    let primary = Server::spawn("sync");
    let db = primary.fresh("sync");
    let mut client = prepare(&db);
    let standby = primary.standby("sync-standby");
    client
        .batch_execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '\"{}\"'", standby.name()))
        .expect("names");
    client.batch_execute("SELECT pg_reload_conf()").expect("reload");
    wait_for_standby(&mut client, "sync");
    let work = work(&mut rng);
    until_killed(&db, &primary, &work, || {
        wait_for_more(&work, 100 + rng.below(300));
        thread::sleep(Duration::from_millis(rng.below(40) as u64));
    });
    let promoted = promote(&standby, &db);
    let found = prefixes(&mut promoted.connect(), &work);
    for (each, found) in work.iter().zip(&found) {
        let told = each.acknowledged();
        assert!(*found == told || *found == told + 1, "{told} batches were acknowledged, {found} are there");
    }
    println!(
        "{} of {} batches were acknowledged, {} are there",
        acknowledged(&work),
        work.iter().map(|w| w.batches.len()).sum::<usize>(),
        found.iter().sum::<usize>()
    );
    goes_on(&promoted, &work, &found);
}

#[test]
fn a_standby_left_behind_has_a_clean_prefix() {
    let mut rng = load::seed("asynchronous standby");
    let primary = Server::spawn("async");
    let db = primary.fresh("async");
    let mut client = prepare(&db);
    let standby = primary.standby("async-standby");
    wait_for_standby(&mut client, "async");
    let work = work(&mut rng);
    until_killed(&db, &primary, &work, || {
        wait_for_more(&work, 50 + rng.below(150));
        // It hears no more from here on, and clients are told that their events are stored.
        let mut left = standby.existing(&db).connect();
        left.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").expect("left alone");
        left.batch_execute("SELECT pg_reload_conf()").expect("reload");
        load::wait_until("the stream's end", || {
            left.query_one("SELECT count(*) FROM pg_stat_wal_receiver", &[])
                .expect("receiver")
                .get::<_, i64>(0)
                == 0
        });
        wait_for_more(&work, 20 + rng.below(100));
    });
    let promoted = promote(&standby, &db);
    let found = prefixes(&mut promoted.connect(), &work);
    let lost: usize = work.iter().zip(&found).map(|(w, found)| w.acknowledged().saturating_sub(*found)).sum();
    println!("{} batches were acknowledged, {lost} of them are lost", acknowledged(&work));
    assert!(lost > 0, "nothing was lost, so nothing was shown");
    goes_on(&promoted, &work, &found);
}

/// What a reader is for: usage by customer and meter, and every invoice.
fn totals(client: &mut Client) -> Vec<String> {
    client
        .query(
            "SELECT format('%s %s %s %s', c.key, m.key, u.quantity, u.events) FROM billing.customer c CROSS JOIN billing.meter m, billing.usage(c.key, m.key, '2026-01-01Z', '2026-04-01Z') u
             UNION ALL SELECT format('%s %s %s', number, total, md5(document::text)) FROM billing.invoice
             UNION ALL SELECT format('%s %s', meter, sum(quantity)) FROM billing.usage_daily GROUP BY meter ORDER BY 1",
            &[],
        )
        .expect("totals")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[test]
fn a_reader_by_logical_replication_has_the_same_totals() {
    let mut rng = load::seed("logical replication");
    let source = Server::spawn("publisher");
    source.configure("wal_level = logical");
    source.stop();
    source.start();
    let db = source.fresh("published");
    let mut client = prepare(&db);
    let customers: Vec<String> = (0..CUSTOMERS).map(|n| format!("u{n}")).collect();
    let events = load::events(&mut rng, 3_000, &customers);
    let (first, later) = events.split_at(1_500);
    for batch in first.chunks(100) {
        load::send(&mut client, Door::Ingest, &batch.iter().collect::<Vec<_>>()).expect("ingest");
    }
    client.batch_execute("CALL billing.fold()").expect("fold");

    let target = Server::spawn("reader");
    let reader = target.fresh("reader");
    let mut there = reader.connect();
    // As docs/operations.md says it.
    let text =
        std::fs::read_to_string(common::checkout().join("docs/operations.md")).expect("docs/operations.md");
    let chapter = text.split("### A reader by logical replication").nth(1).expect("the chapter");
    let blocks: Vec<&str> =
        chapter.split("```").filter(|part| part.starts_with("psql\n")).map(|part| &part[5..]).collect();
    let statements = |n: usize| blocks[n].trim();
    client.batch_execute(statements(0)).expect("on the publisher");
    there.batch_execute(statements(1)).expect("on the reader");
    let connection = format!(
        "host={} port={} user=postgres dbname={}",
        source.address.host.display(),
        source.address.port(),
        db.name
    );
    there
        .batch_execute(&statements(2).replace("host=primary dbname=app", &connection))
        .expect("the subscription");
    let mut caught_up = |client: &mut Client| {
        load::wait_until("the first copy", || {
            there
                .query_one("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'", &[])
                .expect("state")
                .get::<_, i64>(0)
                == 0
        });
        let at: String =
            client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).expect("position").get(0);
        load::wait_until("the reader", || {
            client
                .query_one("SELECT coalesce(bool_and(replay_lsn >= $1::text::pg_lsn), false) FROM pg_stat_replication", &[&at])
                .expect("replication")
                .get(0)
        });
    };
    caught_up(&mut client);
    assert_eq!(totals(&mut reader.connect()), totals(&mut client));
    for batch in later.chunks(100) {
        load::send(&mut client, Door::Ingest, &batch.iter().collect::<Vec<_>>()).expect("ingest");
    }
    client.batch_execute("CALL billing.fold()").expect("fold");
    client.batch_execute("CALL billing.bill_run('2026-03-01T00:00:00Z')").expect("a run");
    client.batch_execute("CALL billing.audit_seal()").expect("seal");
    caught_up(&mut client);
    let (ours, theirs) = (totals(&mut client), totals(&mut reader.connect()));
    assert!(ours.len() > 60, "{} totals", ours.len());
    assert_eq!(theirs, ours);
    load::assert_exactly_once(&mut reader.connect(), &events);
    assert_eq!(reader.verify(), Vec::<String>::new());
    reader.connect().batch_execute("ALTER SUBSCRIPTION billing DISABLE").expect("the end");
    reader.connect().batch_execute("ALTER SUBSCRIPTION billing SET (slot_name = NONE)").expect("the end");
    reader.connect().batch_execute("DROP SUBSCRIPTION billing").expect("the end");
    client.batch_execute("SELECT pg_drop_replication_slot('billing')").expect("the slot");
}

//! A server that is killed (kill -9 of every process, as a power cut) at random moments while four clients ingest,
//! usage is folded, contracts are billed, events are voided, amended and replaced, in open months and billed ones, events
//! come late, invoices are corrected, and meters are measured again. After each restart every acknowledged event stands
//! exactly once, as it was sent or corrected last, usage equals a fresh count of the events, numbers have no gap, invoices
//! are whole, what was billed for a month over all documents is what its events cost, verify('full') is clean, and what was
//! cut off goes on. The same of changes of contracts and of credit that is sold: a change is there wholly or not at all, and
//! made again once.
//!
//! ROUNDS=… kills that many times (default 10), RACES_SEED=… repeats a run's events and moments.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::{Db, Server};
use load::{Door, Event, Rng, told};
use postgres::{Client, NoTls};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CUSTOMERS: usize = 30;
const CLIENTS: usize = 4;
/// Rounds that one database sees: events are of one month a round, and none may be older than five years.
const ROUNDS_A_DATABASE: usize = 48;

/// The day of the month on which late events happened; the others are of the 28 days before.
const LATE_DAY: &str = "29";

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
    // One in ten is late, by months that may be billed; on a day that no other event is of, so that a day that is being
    // replaced stays what the test takes it for.
    for event in &mut events {
        let late = month(rng.below(round + 1));
        if rng.chance(10) && !late.contains("-02-") {
            event.at.replace_range(0..10, &format!("{}-{LATE_DAY}", &late[0..7]));
        }
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

/// One correction of what is stored; each does the same when it is sent again.
#[derive(Clone, Debug)]
enum Correction {
    Void(Event),
    Amend(Event),
    /// A day of a customer, and the events that it has from now on.
    Replace(String, String, Vec<Event>),
    /// The how-manieth invoice of a customer, by a method.
    Invoice(String, i64, &'static str),
}

/// Corrections of events that are sent, billed or not, and of invoices; `sent` becomes what then stands.
fn corrections(rng: &mut Rng, sent: &mut Vec<Event>) -> Vec<Correction> {
    let mut corrections = Vec::new();
    let changed = |rng: &mut Rng, event: &Event| {
        let mut event = event.clone();
        event.properties.insert("input", json!(rng.below(100_000)));
        if rng.chance(50) {
            event.properties.insert("output", json!(rng.below(1000)));
            event.properties.insert("model", json!("corrected"));
        }
        event
    };
    for _ in 0..60 {
        if sent.is_empty() {
            break;
        }
        let at = rng.below(sent.len());
        match rng.below(12) {
            0..4 => corrections.push(Correction::Void(sent.swap_remove(at))),
            4..8 => {
                sent[at] = changed(rng, &sent[at]);
                corrections.push(Correction::Amend(sent[at].clone()));
            }
            8..10 => {
                let methods = ["next_invoice", "credit_note", "void_reissue"];
                corrections.push(Correction::Invoice(
                    sent[at].customer.clone(),
                    rng.below(12) as i64,
                    methods[rng.below(methods.len())],
                ));
            }
            _ if sent[at].at[8..10] == *LATE_DAY => {}
            _ => {
                let (customer, day) = (sent[at].customer.clone(), sent[at].at[0..10].to_owned());
                let (of_day, mut rest): (Vec<Event>, Vec<Event>) = std::mem::take(sent)
                    .into_iter()
                    .partition(|e| e.customer == customer && e.at.starts_with(&day));
                let kept: Vec<Event> = of_day
                    .iter()
                    .filter_map(|event| match rng.below(3) {
                        0 => None,
                        1 => Some(event.clone()),
                        _ => Some(changed(rng, event)),
                    })
                    .collect();
                rest.extend(kept.iter().cloned());
                *sent = rest;
                corrections.push(Correction::Replace(customer, day, kept));
            }
        }
    }
    corrections
}

/// Makes each correction again and again until it is acknowledged.
fn correct_all(db: &Db, corrections: &[Correction]) -> Result<usize, String> {
    let mut done = 0;
    until_done(
        db,
        "billing_operator",
        || false,
        |client| {
            let Some(correction) = corrections.get(done) else { return Ok(true) };
            match correction {
                Correction::Void(event) => {
                    client.query_one(
                        "SELECT billing.event_void($1, $2, 'sent in error')",
                        &[&event.customer, &event.id],
                    )?;
                }
                Correction::Amend(event) => {
                    client.query_one(
                        "SELECT billing.event_amend($1, $2, 'miscounted', properties => $3::text::jsonb)",
                        &[&event.customer, &event.id, &json!(event.properties).to_string()],
                    )?;
                }
                Correction::Replace(customer, day, events) => {
                    let document: Vec<_> = events.iter().map(Event::json).collect();
                    client.query_one(
                        "SELECT ingested FROM billing.event_replace($1, 'llm', $2::text::timestamptz, $2::text::timestamptz + interval '1 day', $3::text::json, 'counted again', dry_run => false)",
                        &[customer, &format!("{day}T00:00:00Z"), &json!(document).to_string()],
                    )?;
                }
                Correction::Invoice(customer, place, method) => {
                    let corrected = client.query(
                        "SELECT x.* FROM (SELECT i.number FROM billing.invoice i JOIN billing.customer c USING (customer_id)
                            WHERE c.key = $1 AND i.kind = 'invoice' AND i.state = 'open' ORDER BY i.n LIMIT 1 OFFSET $2) i
                         CROSS JOIN LATERAL billing.invoice_correct(i.number, $3, 'counted again', dry_run => false) x",
                        &[customer, place, method],
                    );
                    // More than is left of the invoice, an earlier boundary is due, or ingest never pauses.
                    if let Err(e) = corrected {
                        let refused =
                            e.as_db_error().is_some_and(|e| ["ZB005", "55P03"].contains(&e.code().code()));
                        if !refused {
                            return Err(e);
                        }
                    }
                }
            }
            done += 1;
            Ok(done == corrections.len())
        },
    )
}

/// Measures all of a meter again, and again from where it stopped.
fn rebuild_all(db: &Db, meter: &str) -> Result<usize, String> {
    until_done(
        db,
        "billing_operator",
        || false,
        |client| {
            client
                .batch_execute(&format!("CALL billing.meter_rebuild('{meter}', reason => 'a test')"))
                .map(|()| true)
        },
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

/// Invoices as plain SQL sees them: numbers from 1 without a gap, lines that sum to the total, one that stands for each
/// customer and month. And what stands for a month over all documents, with differences and credit notes, line by line,
/// is what its events cost: of each month that is billed, but those that are noted to be compared by the next bill.
#[track_caller]
fn assert_invoices(client: &mut Client, billed_to: Option<&str>) {
    let broken: Vec<String> = client
        .query(
            "SELECT format('series %s: %s numbers to %s', series, count(*), max(counter)) FROM billing.invoice_number
                GROUP BY seller_id, series HAVING count(*) <> max(counter) OR min(counter) <> 1 OR count(DISTINCT invoice_id) <> count(*)
             UNION ALL
             SELECT format('invoice %s: lines %s, total %s', i.number, sum(l.amount), i.total) FROM billing.invoice i LEFT JOIN billing.invoice_line l USING (customer_id, invoice_id)
                GROUP BY i.customer_id, i.invoice_id HAVING sum(l.amount) IS DISTINCT FROM i.total OR i.number IS NULL
             UNION ALL
             SELECT format('customer %s period %s has %s invoices', customer_id, n, count(*)) FROM billing.invoice WHERE kind = 'invoice' AND state <> 'void'
                GROUP BY customer_id, n HAVING count(*) > 1",
            &[],
        )
        .expect("invoices")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(broken, Vec::<String>::new());
    let Some(as_of) = billed_to else { return };
    let differing: Vec<String> = client
        .query(
            &format!("WITH event AS (
                SELECT e.customer_id, date_trunc('month', e.occurred_at, 'UTC') AS month, e.properties AS p FROM billing.usage_event e
                WHERE e.occurred_at < $1::text::timestamptz AND {}
            ), cost AS (
                SELECT customer_id, month, 'tokens' AS charge, p->>'model' AS model, round(sum((p->>'input')::numeric + (p->>'output')::numeric) * 0.03 / 1000, 2) AS amount
                FROM event WHERE p ? 'input' AND p ? 'output' GROUP BY 1, 2, 4
                UNION ALL
                SELECT customer_id, month, 'requests', '', least(count(*), 10) * 0.1 + greatest(count(*) - 10, 0) * 0.05 FROM event GROUP BY 1, 2
            ), billed AS (
                SELECT l.customer_id, l.service_from AS month, l.charge_key AS charge, coalesce(l.dimensions->>'model', '') AS model, sum(l.amount) AS amount
                FROM billing.invoice_line l JOIN billing.invoice i USING (customer_id, invoice_id) WHERE i.state <> 'void' GROUP BY 1, 2, 3, 4
            )
            SELECT format('customer %s %s %s %s: costs %s, billed %s', x.customer_id, x.month, x.charge, x.model, x.cost, x.billed)
            FROM (SELECT customer_id, month, charge, model, coalesce(c.amount, 0) AS cost, coalesce(b.amount, 0) AS billed
                FROM cost c FULL JOIN billed b USING (customer_id, month, charge, model)) x
            WHERE x.cost <> x.billed AND NOT EXISTS (SELECT FROM billing.late_usage l
                JOIN billing.billing_period p ON p.customer_id = l.customer_id AND p.contract_id = l.contract_id AND p.n = l.n - 1
                WHERE l.customer_id = x.customer_id AND l.closed_at IS NULL AND p.starts_at = x.month)", load::STANDS),
            &[&format!("{as_of}T00:00:00Z")],
        )
        .expect("months billed")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(differing, Vec::<String>::new(), "months before {as_of}");
}

/// One round: work, a kill in the middle of it, a restart, and what must hold then.
fn round(server: &Server, db: &Db, rng: &mut Rng, n: usize, sent: &mut Vec<Event>) {
    let events = events_of(rng, n);
    let kind = ["ingest", "correct", "fold", "rebuild", "bill run"][n % 5];
    // Bill runs bill what lies before their round's month. While one is under way events of billed months are corrected, too.
    let corrections =
        if ["correct", "bill run"].contains(&kind) { corrections(rng, sent) } else { Vec::new() };
    let meter = ["tokens", "requests", "peak", "users"][rng.below(4)];
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
        let corrector = (!corrections.is_empty()).then(|| scope.spawn(|| correct_all(db, &corrections)));
        let rebuilder = (kind == "rebuild").then(|| scope.spawn(|| rebuild_all(db, meter)));
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
        for worker in [corrector, rebuilder].into_iter().flatten() {
            cut_off += worker
                .join()
                .expect("a worker")
                .expect("no error but the crash reaches corrections and rebuilds");
        }
        let run = run.map(|run| run.join().expect("the run").expect("no error but the crash ends a run"));
        println!(
            "round {n} ({kind}): killed after {killed:?}, dead {dead:?}, back {back:?}; {cut_off} connections lost, run cut off: {run:?}; {:?}",
            start.elapsed()
        );
    });
    sent.extend(events);
    let mut client = db.connect();
    // Before and after what was cut off goes on.
    assert_eq!(
        load::readers_differ(&mut client, "2024-01-01Z", "2028-06-01Z"),
        Vec::<String>::new(),
        "round {n}"
    );
    assert_eq!(db.verify(), Vec::<String>::new(), "round {n}");
    if ["correct", "rebuild", "bill run"].contains(&kind) {
        client.batch_execute("CALL billing.meter_rebuild()").expect("what is left to measure");
    }
    load::assert_exactly_once(&mut client, sent);
    assert_invoices(&mut client, None);
    if kind == "bill run" {
        assert!(!bill(db, &as_of).expect("the next run"), "the server stays");
        assert_invoices(&mut client, Some(&as_of));
    }
}

#[test]
fn a_killed_server_loses_nothing_it_acknowledged_and_goes_on() {
    let rounds = std::env::var("ROUNDS").map_or(10, |text| text.parse().expect("ROUNDS is a number"));
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

/// What tables hold of contracts changed and of credit sold: each row says what is wrong with one, or nothing.
const BY_HALF: &str = "
    SELECT format('contract %s: %s', k.key, x.parts) FROM billing.contract k
    CROSS JOIN LATERAL (SELECT jsonb_build_object('state', k.state, 'version', k.version,
        'versions', (SELECT count(*) FROM billing.contract_version v WHERE v.contract_id = k.contract_id),
        'charges', (SELECT count(*) FROM billing.contract_charge h WHERE h.contract_id = k.contract_id), 'live', (SELECT count(*) FROM billing.contract_charge h WHERE h.contract_id = k.contract_id AND h.until_version IS NULL),
        'terms', (SELECT count(*) FROM billing.contract_term t WHERE t.contract_id = k.contract_id), 'periods', (SELECT count(*) FROM billing.billing_period p WHERE p.contract_id = k.contract_id),
        'blocks', (SELECT count(*) FROM billing.credit_grant g WHERE g.contract_id = k.contract_id), 'entries', (SELECT count(*) FROM billing.credit_ledger_entry e JOIN billing.credit_grant g USING (customer_id, grant_id) WHERE g.contract_id = k.contract_id),
        'audited', (SELECT count(*) FROM billing.audit_log a WHERE a.kind = 'contract' AND a.key = k.key)) AS parts) x
    JOIN billing.contract w ON w.key = 'whole-' || k.version || CASE k.state WHEN 'draft' THEN '-draft' ELSE '' END
    CROSS JOIN LATERAL (SELECT jsonb_build_object('state', w.state, 'version', w.version,
        'versions', (SELECT count(*) FROM billing.contract_version v WHERE v.contract_id = w.contract_id),
        'charges', (SELECT count(*) FROM billing.contract_charge h WHERE h.contract_id = w.contract_id), 'live', (SELECT count(*) FROM billing.contract_charge h WHERE h.contract_id = w.contract_id AND h.until_version IS NULL),
        'terms', (SELECT count(*) FROM billing.contract_term t WHERE t.contract_id = w.contract_id), 'periods', (SELECT count(*) FROM billing.billing_period p WHERE p.contract_id = w.contract_id),
        'blocks', (SELECT count(*) FROM billing.credit_grant g WHERE g.contract_id = w.contract_id), 'entries', (SELECT count(*) FROM billing.credit_ledger_entry e JOIN billing.credit_grant g USING (customer_id, grant_id) WHERE g.contract_id = w.contract_id),
        'audited', (SELECT count(*) FROM billing.audit_log a WHERE a.kind = 'contract' AND a.key = w.key)) AS parts) y
    WHERE x.parts <> y.parts
    UNION ALL
    SELECT format('customer %s: %s draws, %s top-ups, %s purchases, %s invoices, %s entries', c.key, d.draws, d.tops, d.pools, d.invoices, d.entries) FROM billing.customer c
    CROSS JOIN LATERAL (SELECT (SELECT count(*) FROM billing.credit_draw n WHERE n.customer_id = c.customer_id) AS draws, (SELECT count(*) FROM billing.top_up t WHERE t.customer_id = c.customer_id) AS tops,
        (SELECT count(*) FROM billing.credit_pool p WHERE p.customer_id = c.customer_id) AS pools, (SELECT count(*) FROM billing.invoice i WHERE i.customer_id = c.customer_id AND i.kind = 'credit_sale') AS invoices,
        (SELECT count(*) FROM billing.credit_ledger_entry e WHERE e.customer_id = c.customer_id AND e.kind = 'granted') AS entries) d
    -- Each draw takes all there is, and buys as much again.
    WHERE c.key LIKE 'top%' AND (d.tops <> d.draws OR d.pools <> d.tops OR d.invoices <> d.tops OR d.entries <> 2 * (d.tops + 1))";

/// Whether a call was refused since what it asks for is done already.
fn done_before(result: Result<postgres::Row, postgres::Error>) -> Result<(), postgres::Error> {
    match result {
        Err(e) if e.code().is_some_and(|code| code.code() == "ZB005") => Ok(()),
        other => other.map(drop),
    }
}

#[test]
fn a_killed_server_changes_contracts_and_sells_credit_wholly_or_not_at_all() {
    let rounds = std::env::var("ROUNDS").map_or(6, |text| text.parse().expect("ROUNDS is a number"));
    let mut rng = load::seed("crash of changes");
    let server = Server::spawn("crash-changes");
    server.configure("recovery_init_sync_method = syncfs");
    let db = server.fresh("crash_changes");
    let (contracts, customers) = (12, 4);
    let mut client = db.connect();
    client
        .batch_execute(&format!(
            "SELECT billing.test_clock_set('2026-02-01T00:00:00Z');
             SELECT * FROM billing.catalog_apply('{{\"products\":[{{\"key\":\"p\"}}],\"plans\":[{{\"key\":\"base\",\"currency\":\"USD\",
                \"fees\":[{{\"key\":\"platform\",\"product\":\"p\",\"pricing\":{{\"model\":\"flat\",\"amount\":\"100\"}}}}]}}]}}');
             SELECT billing.customer_upsert('{{\"key\":\"deals\"}}');
             SELECT billing.contract_create(jsonb_build_object('key', k, 'customer', 'deals', 'plan', 'base', 'starts_on', '2026-02-01', 'term', '12 months',
                'credits', '[{{\"key\":\"monthly\",\"category\":\"pilot\",\"amount\":\"10\",\"every\":\"1 month\"}}]'::jsonb))
             FROM (SELECT 'd' || r || '-' || n AS k FROM generate_series(0, {rounds} - 1) r, generate_series(0, {contracts} - 1) n UNION ALL SELECT unnest('{{whole-1-draft,whole-1,whole-2}}'::text[])) x;
             SELECT billing.contract_activate('whole-1'), billing.contract_activate('whole-2');
             SELECT billing.contract_amend('whole-2', '{AMENDMENT}');
             SELECT billing.customer_upsert(jsonb_build_object('key', 'top' || n)) FROM generate_series(0, {customers} - 1) n;
             SELECT billing.credit_grant_create('top' || n, '{{\"amount\":\"10\",\"unit\":\"credits\"}}') FROM generate_series(0, {customers} - 1) n;
             SELECT billing.top_up_rule_set('top' || n, '{{\"unit\":\"credits\",\"threshold\":\"5\",\"amount\":\"10\",\"price\":\"0.5\"}}') FROM generate_series(0, {customers} - 1) n"
        ))
        .expect("drafts and rules");
    drop(client);
    for round in 0..rounds {
        let moment = Duration::from_millis(5 + rng.below(350) as u64);
        let lost: Vec<usize> = thread::scope(|scope| {
            let db = &db;
            let mut workers = vec![scope.spawn(move || {
                let mut n = 0;
                until_done(
                    db,
                    "billing_operator",
                    || false,
                    |client| {
                        let key = format!("d{round}-{n}");
                        done_before(client.query_one("SELECT billing.contract_activate($1)", &[&key]))?;
                        // An amendment has no key of its own: whoever lost the answer looks whether it is there.
                        let version: i32 = client
                            .query_one("SELECT version FROM billing.contract WHERE key = $1", &[&key])?
                            .get(0);
                        if version == 1 {
                            client.query_one(
                                &format!("SELECT billing.contract_amend($1, '{AMENDMENT}')"),
                                &[&key],
                            )?;
                        }
                        n += 1;
                        Ok(n == contracts)
                    },
                )
            })];
            for who in 0..customers {
                workers.push(scope.spawn(move || {
                    let mut n = 0;
                    until_done(
                        db,
                        "billing_app",
                        || false,
                        |client| {
                            let (customer, key) = (format!("top{who}"), format!("{round}/{n}"));
                            client.query_one(
                                "SELECT result FROM billing.draw_down($1, 10, $2, 'credits')",
                                &[&customer, &key],
                            )?;
                            n += 1;
                            Ok(n == 20)
                        },
                    )
                }));
            }
            thread::sleep(moment);
            server.kill9();
            server.start();
            workers
                .into_iter()
                .map(|w| w.join().expect("a worker").expect("no error but the crash reaches a worker"))
                .collect()
        });
        println!("round {round}: killed after {moment:?}, connections lost {lost:?}");
        let broken: Vec<String> =
            db.connect().query(BY_HALF, &[]).expect("parts").iter().map(|row| row.get(0)).collect();
        assert_eq!(broken, Vec::<String>::new(), "round {round}");
    }
    let mut client = db.connect();
    assert_eq!(
        load::count(&mut client, "billing.contract WHERE version = 2"),
        (rounds * contracts + 1) as i64
    );
    assert_eq!(load::count(&mut client, "billing.top_up"), (rounds * customers * 20) as i64);
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// A higher fee, and other credit from now on.
const AMENDMENT: &str = r#"{"prices":{"platform":{"model":"flat","amount":"300"}},"credits":[{"key":"monthly","category":"pilot","amount":"15","every":"1 month"}]}"#;

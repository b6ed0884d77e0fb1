//! Many sessions at once over the same invoices: every contract billed once, usage once whatever runs beside it, no number
//! twice or left out, and no deadlock. Each test has its own database, draws its timing from a printed seed
//! (RACES_SEED=… repeats it) and ends with `billing.verify('full')`.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::Db;
use load::{Door, Event, Flag, Rng, billable, count, told};
use postgres::Client;
use serde_json::json;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Numbers run from 1 without a gap in every series, and each stands on one invoice.
#[track_caller]
fn assert_numbers(client: &mut Client, invoices: i64) {
    let rows = client
        .query("SELECT series, count(*), max(counter), count(DISTINCT (customer_id, invoice_id)) FROM billing.invoice_number GROUP BY seller_id, series", &[])
        .expect("numbers");
    let mut given = 0;
    for row in rows {
        let (series, numbers, highest, bearers): (&str, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!((highest, bearers), (numbers, numbers), "series {series}");
        given += numbers;
    }
    assert_eq!(given, invoices, "numbers given");
}

#[test]
fn of_two_finalizations_one_gives_the_number() {
    let db = Db::fresh("races_finalize");
    let contracts = 12;
    let mut admin = billable(&db, contracts);
    let barrier = Barrier::new(2);
    for n in 0..contracts {
        admin.query("SELECT billing.invoice_generate($1)", &[&format!("u{n}-1")]).expect("drafts");
    }
    let draft = |n: usize| format!("u{n}-1/1");
    let answers: Vec<Vec<Result<String, common::Refusal>>> = thread::scope(|scope| {
        let sessions: Vec<_> = (0..2)
            .map(|_| {
                let (db, barrier) = (&db, &barrier);
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_finance");
                    (0..contracts)
                        .map(|n| {
                            barrier.wait();
                            match client.query_one("SELECT billing.invoice_finalize($1)", &[&draft(n)]) {
                                Ok(row) => Ok(row.get(0)),
                                Err(e) => Err(common::refusal::<()>(Err(e))),
                            }
                        })
                        .collect()
                })
            })
            .collect();
        sessions.into_iter().map(|s| s.join().expect("a session")).collect()
    });
    for (n, (one, two)) in answers[0].iter().zip(&answers[1]).enumerate() {
        let (number, refusal) = match (one, two) {
            (Ok(number), Err(refusal)) | (Err(refusal), Ok(number)) => (number, refusal),
            _ => panic!("draft {n}: {one:?} and {two:?}"),
        };
        assert!(number.starts_with("INV-2026-") || number.starts_with("SEC-2026-"), "{number}");
        assert_eq!(refusal.code, "ZB005", "{refusal:?}");
        assert!(
            ["not a draft", "meanwhile"].iter().any(|says| refusal.message.contains(says)),
            "{refusal:?}"
        );
    }
    assert_numbers(&mut admin, contracts as i64);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn of_two_runs_each_contract_is_billed_once() {
    let db = Db::fresh("races_two_runs");
    let contracts = 200;
    let mut admin = billable(&db, contracts);
    let before = count(&mut admin, "billing.job_run");
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = db.connect_as("billing_operator");
                barrier.wait();
                client.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the run");
            });
        }
    });
    assert_eq!(count(&mut admin, "billing.invoice WHERE state = 'open'"), contracts as i64);
    assert_eq!(count(&mut admin, "(SELECT DISTINCT contract_id FROM billing.invoice) i"), contracts as i64);
    assert_eq!(count(&mut admin, "billing.job_issue"), 0);
    assert_eq!(count(&mut admin, "billing.job_run WHERE state = 'done'"), before + 2);
    let issued: i64 = admin
        .query_one(
            "SELECT sum((result->>'invoices')::bigint)::bigint FROM billing.job_run WHERE job = 'bill_run'",
            &[],
        )
        .expect("runs")
        .get(0);
    assert_eq!(issued, contracts as i64, "the runs say together what they did");
    assert_numbers(&mut admin, contracts as i64);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_run_bills_what_was_committed_before_it_while_four_clients_ingest() {
    let mut rng = load::seed("run and ingest");
    let db = Db::fresh("races_run_ingest");
    let contracts = 40;
    let mut admin = billable(&db, contracts);
    let done = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _flag = Flag(&done);
        let clients: Vec<_> = (0..4)
            .map(|who| {
                let (db, done, sent, mut rng) = (&db, &done, &sent, rng.fork());
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_app");
                    let mut n = 0;
                    while !done.load(Ordering::SeqCst) {
                        // A batch of few or all customers, at once after the one before.
                        let wide = if rng.chance(20) { contracts } else { 4 };
                        let batch: Vec<Event> = (0..1 + rng.below(40))
                            .map(|_| {
                                n += 1;
                                Event {
                                    customer: format!("u{}", rng.below(wide)),
                                    id: format!("w{who}-{n}"),
                                    at: format!("2026-02-{:02}T12:00:00Z", 1 + rng.below(28)),
                                    properties: [
                                        ("model", json!("m0")),
                                        ("input", json!(1)),
                                        ("output", json!(0)),
                                    ]
                                    .into(),
                                }
                            })
                            .collect();
                        let refs: Vec<&Event> = batch.iter().collect();
                        let tally = load::send(&mut client, Door::Ingest, &refs)
                            .map_err(|e| told(&e))
                            .expect("ingest");
                        assert_eq!(tally.accepted, tally.sent);
                        sent.fetch_add(batch.len(), Ordering::SeqCst);
                    }
                })
            })
            .collect();
        load::wait_until("ingest", || sent.load(Ordering::SeqCst) > 300);
        let before: Vec<String> = admin
            .query("SELECT event_id FROM billing.usage_event", &[])
            .expect("events")
            .iter()
            .map(|r| r.get(0))
            .collect();
        let mut operator = db.connect_as("billing_operator");
        operator.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the run");
        done.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().expect("a client");
        }
        let missed = admin
            .query(
                "SELECT e.event_id FROM billing.usage_event e JOIN billing.invoice i USING (customer_id) WHERE e.event_id = ANY ($1) AND e.recorded_at > i.cut_at",
                &[&before],
            )
            .expect("what the run did not see");
        assert!(missed.is_empty(), "committed before the run and not billed: {missed:?}");
    });
    assert_eq!(count(&mut admin, "billing.invoice WHERE state = 'open'"), contracts as i64);
    // Counted in plain SQL: what stands on an invoice is what was recorded before its cut, once.
    let wrong = count(
        &mut admin,
        "(SELECT i.number, i.customer_id, i.cut_at, sum(l.quantity) AS billed FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id)
            WHERE l.charge_key = 'requests' GROUP BY 1, 2, 3) b
         WHERE b.billed <> (SELECT count(*) FROM billing.usage_event e WHERE e.customer_id = b.customer_id AND e.recorded_at <= b.cut_at)",
    );
    assert_eq!(wrong, 0, "invoices that do not bill the events before their cut");
    let late = count(
        &mut admin,
        "billing.usage_event e JOIN billing.invoice i USING (customer_id) WHERE e.recorded_at > i.cut_at",
    );
    println!("{} events while it ran, {late} of them late", sent.load(Ordering::SeqCst));
    assert_eq!(db.verify(), Vec::<String>::new());
    assert_numbers(&mut admin, contracts as i64);
}

/// The requests of a customer on all documents that stand, whatever they correct.
const BILLED_REQUESTS: &str = "SELECT coalesce(sum(l.quantity), 0)::bigint FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id)
    JOIN billing.customer c USING (customer_id) WHERE i.state NOT IN ('draft', 'void') AND l.charge_key = 'requests' AND c.key = $1";

#[test]
fn usage_in_a_transaction_open_across_a_finalization_is_billed_once() {
    let db = Db::fresh("races_open");
    let mut admin = billable(&db, 3);
    let event = |id: &str, customer: &str| Event {
        customer: customer.to_owned(),
        id: id.to_owned(),
        at: "2026-02-20T00:00:00Z".to_owned(),
        properties: [("model", json!("m0")), ("input", json!(1)), ("output", json!(0))].into(),
    };
    let requests = |admin: &mut Client, contract: &str| -> i64 {
        admin
            .query_one(
                "SELECT sum(l.quantity)::bigint FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) WHERE i.key = $1 AND l.charge_key = 'requests'",
                &[&contract],
            )
            .expect("the line")
            .get(0)
    };

    // 1. Ingest is open when the run comes: the run waits for it, and bills it.
    let mut sender = db.connect_as("billing_app");
    let mut open = sender.transaction().expect("begin");
    load::send(&mut open, Door::Ingest, &[&event("a", "u0")]).expect("ingest");
    let runs = AtomicBool::new(true);
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            let _flag = Flag(&runs);
            let mut operator = db.connect_as("billing_operator");
            operator.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e))
        });
        load::wait_until("the others are billed", || count(&mut admin, "billing.invoice") == 2);
        thread::sleep(Duration::from_millis(200));
        assert_eq!(
            count(&mut admin, "billing.invoice WHERE key = 'u0-1/1'"),
            0,
            "not while the usage is open"
        );
        open.commit().expect("commit");
        run.join().expect("the run").expect("no error");
    });
    assert_eq!(requests(&mut admin, "u0-1/1"), 4, "three before and the one that was open");
    assert_eq!(db.verify(), Vec::<String>::new());

    // 2. A finalization alone gives up after five seconds, and says what to do.
    admin.query_one("SELECT billing.invoice_void('u1-1/1', 'test')", &[]).expect("void");
    admin.query("SELECT billing.invoice_generate('u1-1')", &[]).expect("draft");
    let mut open = sender.transaction().expect("begin");
    load::send(&mut open, Door::Ingest, &[&event("b", "u1")]).expect("ingest");
    let mut finance = db.connect_as("billing_finance");
    let refused = common::refusal(finance.query_one("SELECT billing.invoice_finalize('u1-1/1.2')", &[]));
    assert_eq!(refused.code, "55P03", "{refused:?}");
    open.commit().expect("commit");
    finance.query_one("SELECT billing.invoice_finalize('u1-1/1.2')", &[]).expect("now it can");
    assert_eq!(requests(&mut admin, "u1-1/1.2"), 4);
    assert_eq!(db.verify(), Vec::<String>::new());

    // 3. A transaction that was open all along and ingests after the finalization: late, noted, and on the next bill.
    admin.batch_execute("SELECT billing.test_clock_set('2026-07-01T00:00:00Z')").expect("the clock");
    let mut finance = db.connect_as("billing_finance");
    let mut sender = db.connect_as("billing_app");
    for (isolation, month) in [("READ COMMITTED", 4), ("REPEATABLE READ", 5), ("SERIALIZABLE", 6)] {
        let late = event(isolation, "u2");
        let mut open = sender.build_transaction();
        match isolation {
            "REPEATABLE READ" => open = open.isolation_level(postgres::IsolationLevel::RepeatableRead),
            "SERIALIZABLE" => open = open.isolation_level(postgres::IsolationLevel::Serializable),
            _ => {}
        }
        let mut open = open.start().expect("begin");
        open.query("SELECT count(*) FROM billing.usage_event", &[]).expect("a snapshot");
        finance
            .batch_execute(&format!("CALL billing.bill_run('2026-{:02}-01T00:00:00Z')", month - 1))
            .map_err(|e| told(&e))
            .expect("the run");
        load::send(&mut open, Door::Ingest, &[&late]).expect("ingest");
        open.commit().expect("commit");
        assert_eq!(db.verify(), Vec::<String>::new(), "late usage is noted");
        finance
            .batch_execute(&format!("CALL billing.bill_run('2026-{month:02}-01T00:00:00Z')"))
            .map_err(|e| told(&e))
            .expect("the next run");
        let billed: i64 = admin.query_one(BILLED_REQUESTS, &[&"u2"]).expect("what is billed").get(0);
        assert_eq!(
            billed,
            count(
                &mut admin,
                "billing.usage_event JOIN billing.customer c USING (customer_id) WHERE c.key = 'u2'"
            )
        );
        assert_eq!(count(&mut admin, "billing.late_usage WHERE closed_at IS NULL"), 0);
        assert_eq!(db.verify(), Vec::<String>::new());
    }
    assert_eq!(load::usage_differences(&mut admin), Vec::<String>::new());
}

fn ingest_late(client: &mut Client, rng: &mut Rng, n: usize) -> Result<(), postgres::Error> {
    let batch: Vec<Event> = (0..1 + rng.below(20))
        .map(|k| Event {
            customer: format!("u{}", rng.below(6)),
            id: format!("{}-{n}-{k}", rng.below(1_000_000_000)),
            at: format!("2026-{:02}-{:02}T12:00:00Z", 2 + rng.below(4), 1 + rng.below(28)),
            properties: [("model", json!("m0")), ("input", json!(rng.below(50))), ("output", json!(1))]
                .into(),
        })
        .collect();
    let refs: Vec<&Event> = batch.iter().collect();
    let mut transaction = client.transaction()?;
    load::send(&mut transaction, Door::Ingest, &refs)?;
    thread::sleep(Duration::from_millis(rng.below(5) as u64));
    transaction.commit()?;
    thread::sleep(Duration::from_millis(rng.below(40) as u64));
    Ok(())
}

fn run_ahead(client: &mut Client, _: &mut Rng, n: usize) -> Result<(), postgres::Error> {
    client.batch_execute(&format!(
        "CALL billing.bill_run('2026-03-01T00:00:00Z'::timestamptz + interval '1 month' * least({n} / 2, 4))"
    ))
}

fn correct(client: &mut Client, rng: &mut Rng, _: usize) -> Result<(), postgres::Error> {
    thread::sleep(Duration::from_millis(10 + rng.below(40) as u64));
    let method = ["next_invoice", "credit_note", "void_reissue"][rng.below(3)];
    let one = client.query_opt(
        "SELECT number FROM billing.invoice WHERE kind = 'invoice' AND state NOT IN ('draft', 'void') ORDER BY random() LIMIT 1",
        &[],
    )?;
    let Some(one) = one else { return Ok(()) };
    client
        .query(
            "SELECT * FROM billing.invoice_correct($1, $2, 'a race', false)",
            &[&one.get::<_, &str>(0), &method],
        )
        .map(|_| ())
}

#[test]
fn late_usage_is_billed_once_whatever_runs_beside_it() {
    let mut rng = load::seed("late usage");
    let db = Db::fresh("races_late");
    let mut admin = billable(&db, 6);
    // One contract ends in the middle of it all; one is never due again.
    admin
        .batch_execute("SELECT billing.customer_upsert('{\"key\":\"ends\"}'), billing.subscribe('ends', 'usage', '2026-02-01', '{\"term\":\"2 months\"}')")
        .expect("a contract that ends");
    let_runs_go_on(&mut admin);
    let sessions: [(&str, &str, Work); 8] = [
        ("ingest", "billing_app", ingest_late),
        ("ingest too", "billing_app", ingest_late),
        ("ingest as well", "billing_app", ingest_late),
        ("fold", "billing_operator", fold),
        ("run", "billing_operator", run_ahead),
        ("run too", "billing_operator", run_ahead),
        ("void", "billing_finance", void),
        ("correct", "billing_finance", correct),
    ];
    against_each_other(&db, &mut rng, Duration::from_secs(8), &sessions);
    assert_eq!(db.verify(), Vec::<String>::new());
    admin
        .batch_execute(
            "SELECT billing.ingest_event('ends', 'llm', 'late', '2026-02-11T00:00:00Z', '{\"model\":\"m0\",\"input\":1,\"output\":1}')",
        )
        .expect("usage of a contract that has ended");
    admin
        .batch_execute("CALL billing.bill_run('2026-08-01T00:00:00Z')")
        .map_err(|e| told(&e))
        .expect("what fell behind");
    // The last boundary bills what came after the one before.
    admin
        .batch_execute("CALL billing.bill_run('2026-09-01T00:00:00Z')")
        .map_err(|e| told(&e))
        .expect("the last run");
    for customer in ["u0", "u1", "u2", "u3", "u4", "u5", "ends"] {
        let billed: i64 = admin.query_one(BILLED_REQUESTS, &[&customer]).expect("what is billed").get(0);
        let sent = count(
            &mut admin,
            &format!(
                "billing.usage_event JOIN billing.customer c USING (customer_id) WHERE c.key = '{customer}'"
            ),
        );
        assert_eq!(billed, sent, "events of {customer} on its invoices");
    }
    let waiting: i64 = admin
        .query_one("SELECT checked FROM billing.verify('full') WHERE check_name = 'invoices: late usage that waits for the next bill'", &[])
        .expect("the check")
        .get(0);
    assert_eq!(waiting, 0, "nothing waits");
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_broken_contract_never_stops_the_others() {
    let db = Db::fresh("races_broken");
    let contracts = 1000;
    let mut admin = billable(&db, contracts - 2);
    // Usage that no price matches; and one that breaks in a way nobody foresaw.
    load::apply(
        &mut admin,
        &json!({"price_books": [{"key": "narrow", "currency": "USD", "prices": [
                {"key": "tokens", "meter": "tokens", "pricing": {"model": "matrix", "dimensions": ["model"], "rows": [{"match": {"model": "known"}, "unit_price": "1"}]}}]}],
            "plans": [{"key": "narrow", "name": "Narrow", "currency": "USD", "price_book": "narrow", "billing": {"interval": "1 month", "alignment": "calendar", "net_days": 30},
                "charges": [{"key": "tokens", "product": "ai", "meter": "tokens", "price": "tokens"}]}]}),
    )
    .expect("catalogue");
    for (key, plan, model) in [("broken", "narrow", "unknown"), ("odd", "usage", "m0")] {
        load::upsert_customer(&mut admin, &json!({"key": key})).expect("customer");
        admin.query_one("SELECT billing.subscribe($1, $2, '2026-02-01')", &[&key, &plan]).expect("contract");
        let event = Event {
            customer: key.to_owned(),
            id: key.to_owned(),
            at: "2026-02-03T00:00:00Z".to_owned(),
            properties: [("model", json!(model)), ("input", json!(5)), ("output", json!(0))].into(),
        };
        load::send(&mut admin, Door::Ingest, &[&event]).expect("usage");
    }
    admin
        .batch_execute(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'the disk of odd is on fire'; END$$;
             CREATE TRIGGER refuse BEFORE INSERT ON billing.invoice FOR EACH ROW WHEN (NEW.key LIKE 'odd-%') EXECUTE FUNCTION public.refuse();",
        )
        .expect("a trigger");
    let mut operator = db.connect_as("billing_operator");
    operator.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the run ends well");
    assert_eq!(count(&mut admin, "billing.invoice WHERE state = 'open'"), contracts as i64 - 2);
    assert_numbers(&mut admin, contracts as i64 - 2);
    let issues: Vec<(String, String, String)> = admin
        .query("SELECT key, sqlstate, message FROM billing.job_issue ORDER BY key", &[])
        .expect("issues")
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(issues.len(), 2, "{issues:?}");
    assert_eq!((issues[0].0.as_str(), issues[0].1.as_str()), ("broken-1", "ZB007"), "{issues:?}");
    assert!(issues[0].2.contains("unknown"), "the message names the usage: {issues:?}");
    assert_eq!(issues[1], ("odd-1".to_owned(), "P0001".to_owned(), "the disk of odd is on fire".to_owned()));

    let overrides = json!({"key": "broken", "overrides": [{"meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.5"}, "from": "2026-02-01"}]});
    load::upsert_customer(&mut admin, &overrides).expect("a price");
    admin.batch_execute("DROP TRIGGER refuse ON billing.invoice").expect("the fire is out");
    operator.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the next run");
    assert_eq!(count(&mut admin, "billing.invoice WHERE state = 'open'"), contracts as i64);
    assert_eq!(count(&mut admin, "billing.job_issue"), 2, "no new one");
    assert_numbers(&mut admin, contracts as i64);
    assert_eq!(db.verify(), Vec::<String>::new());
}

/// What may be refused in the middle of everything: something was not a draft any more, changed meanwhile, or ingest
/// never paused.
fn may_be_refused(error: &postgres::Error) -> bool {
    error.as_db_error().is_some_and(|e| ["ZB001", "ZB005", "55P03"].contains(&e.code().code()))
}

/// Calls `work` until it is done; its refusals are fine, any other error is returned.
fn keep_on(
    client: &mut Client,
    rng: &mut Rng,
    done: &AtomicBool,
    work: impl Fn(&mut Client, &mut Rng, usize) -> Result<(), postgres::Error>,
) -> Result<usize, String> {
    let mut successes = 0;
    let mut n = 0;
    while !done.load(Ordering::SeqCst) {
        n += 1;
        match work(client, rng, n) {
            Ok(()) => successes += 1,
            Err(e) if may_be_refused(&e) => {}
            Err(e) => return Err(told(&e)),
        }
        thread::sleep(Duration::from_millis(rng.below(4) as u64));
    }
    Ok(successes)
}

type Work = fn(&mut Client, &mut Rng, usize) -> Result<(), postgres::Error>;

/// Runs sessions against each other for a while; panics with what reached a client.
fn against_each_other(
    db: &Db,
    rng: &mut Rng,
    lasting: Duration,
    sessions: &[(&'static str, &'static str, Work)],
) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _flag = Flag(&done);
        let running: Vec<_> = sessions
            .iter()
            .map(|(name, role, work)| {
                let (mut rng, done) = (rng.fork(), &done);
                (name, scope.spawn(move || keep_on(&mut db.connect_as(role), &mut rng, done, work)))
            })
            .collect();
        thread::sleep(lasting);
        done.store(true, Ordering::SeqCst);
        for (name, session) in running {
            match session.join().expect("a session") {
                Ok(successes) => {
                    println!("{name}: {successes} times");
                    assert!(successes > 0, "{name} never succeeded");
                }
                Err(error) => panic!("{name}: {error}"),
            }
        }
    });
}

fn generate(client: &mut Client, rng: &mut Rng, _: usize) -> Result<(), postgres::Error> {
    client.query("SELECT billing.invoice_generate($1)", &[&format!("u{}-1", rng.below(12))]).map(|_| ())
}

fn finalize(client: &mut Client, _: &mut Rng, _: usize) -> Result<(), postgres::Error> {
    client.query("SELECT billing.invoice_finalize(key) FROM (SELECT key FROM billing.invoice WHERE state = 'draft' ORDER BY random() LIMIT 1) d", &[]).map(|_| ())
}

fn void(client: &mut Client, rng: &mut Rng, _: usize) -> Result<(), postgres::Error> {
    thread::sleep(Duration::from_millis(20 + rng.below(60) as u64));
    client.query("SELECT billing.invoice_void(key, 'again') FROM (SELECT key FROM billing.invoice WHERE state = 'open' ORDER BY random() LIMIT 1) i", &[]).map(|_| ())
}

fn run(client: &mut Client, _: &mut Rng, n: usize) -> Result<(), postgres::Error> {
    // Later and later: several boundaries fall due while earlier ones are voided and billed again.
    client.batch_execute(&format!(
        "CALL billing.bill_run('2026-03-01T00:00:00Z'::timestamptz + interval '1 month' * least({n} / 4, 6))"
    ))
}

/// Sessions keep the clock they find: September, as far as run() goes.
fn let_runs_go_on(admin: &mut Client) {
    admin.batch_execute("SELECT billing.test_clock_set('2026-09-01T00:00:00Z')").expect("the clock");
}

#[test]
fn drafts_finalizations_voids_and_runs_do_not_lock_each_other_out() {
    let mut rng = load::seed("drafts and runs");
    let db = Db::fresh("races_drafts");
    let mut admin = billable(&db, 12);
    let_runs_go_on(&mut admin);
    let sessions: [(&str, &str, Work); 6] = [
        ("generate", "billing_finance", generate),
        ("generate too", "billing_finance", generate),
        ("finalize", "billing_finance", finalize),
        ("void", "billing_finance", void),
        ("run", "billing_operator", run),
        ("run too", "billing_operator", run),
    ];
    against_each_other(&db, &mut rng, Duration::from_secs(5), &sessions);
    assert_eq!(db.verify(), Vec::<String>::new());
    admin.batch_execute("CALL billing.bill_run('2026-09-01T00:00:00Z')").expect("a last run");
    assert_eq!(db.verify(), Vec::<String>::new());
    assert_eq!(
        count(&mut admin, "billing.invoice WHERE state = 'open'"),
        12,
        "February once for each, after all"
    );
    let numbers = count(&mut admin, "billing.invoice WHERE number IS NOT NULL");
    assert_numbers(&mut admin, numbers);
}

/// The whole catalogue once more, its lists shuffled, with something new now and then.
fn catalogue(client: &mut Client, rng: &mut Rng, n: usize) -> Result<(), postgres::Error> {
    let mut document = load::catalogue();
    document["products"][0]["name"] = json!(format!("AI {n}"));
    document["plans"][0]["name"] = json!(format!("Usage {n}"));
    if let Some(meters) = document["meters"].as_array_mut() {
        if n % 20 == 5 {
            meters.push(json!({"key": format!("late-{n}"), "event_type": "llm", "aggregation": "sum", "value": "input", "dimensions": ["region"], "unit": "token"}));
        }
        rng.shuffle(meters);
    }
    load::apply(client, &document).map(|_| ())
}

fn ingest(client: &mut Client, rng: &mut Rng, n: usize) -> Result<(), postgres::Error> {
    let who = rng.next();
    let batch: Vec<Event> = (0..1 + rng.below(60))
        .map(|at| Event {
            customer: format!("u{}", rng.below(12)),
            id: format!("{who}-{n}-{at}"),
            at: format!("2026-02-{:02}T{:02}:00:00Z", 1 + rng.below(28), rng.below(24)),
            properties: [
                ("model", json!(format!("m{}", rng.below(4)))),
                ("region", json!("r")),
                ("input", json!(1)),
                ("output", json!(rng.below(9))),
            ]
            .into(),
        })
        .collect();
    let tally = load::send(client, Door::Ingest, &batch.iter().collect::<Vec<_>>())?;
    assert_eq!(tally.accepted, tally.sent);
    Ok(())
}

/// Ingest and a contract in one transaction, as an application would sign somebody up.
fn sign_up(client: &mut Client, rng: &mut Rng, n: usize) -> Result<(), postgres::Error> {
    let key = format!("s{}-{n}", rng.next());
    let zone = load::ZONES[rng.below(load::ZONES.len())];
    let mut charges = vec![
        json!({"key": "tokens", "product": "ai", "meter": "tokens", "price": "tokens"}),
        json!({"key": "requests", "product": "ai", "meter": "requests", "price": "requests"}),
        json!({"key": "peak", "product": "ai", "meter": "peak", "pricing": {"model": "per_unit", "unit_price": "1"}}),
    ];
    rng.shuffle(&mut charges);
    let mut transaction = client.transaction()?;
    transaction
        .query("SELECT billing.customer_upsert($1::text::jsonb)", &[&json!({"key": key}).to_string()])?;
    let doc = json!({"charges": charges, "time_zone": zone});
    transaction.query(
        "SELECT billing.subscribe($1, 'usage', '2026-02-01', $2::text::jsonb)",
        &[&key, &doc.to_string()],
    )?;
    transaction.commit()
}

fn terms(client: &mut Client, rng: &mut Rng, n: usize) -> Result<(), postgres::Error> {
    let customer = json!({"key": format!("u{}", rng.below(12)), "attributes": {"n": n},
        "overrides": [{"meter": "tokens", "match": {"model": format!("m{}", rng.below(4))}, "percent_off": rng.below(90).to_string(), "from": "2026-02-01"}]});
    load::upsert_customer(client, &customer)
}

fn seal(client: &mut Client, _: &mut Rng, _: usize) -> Result<(), postgres::Error> {
    client.batch_execute("CALL billing.audit_seal()")
}

fn fold(client: &mut Client, _: &mut Rng, _: usize) -> Result<(), postgres::Error> {
    client.batch_execute("CALL billing.fold()")
}

fn preview(client: &mut Client, rng: &mut Rng, _: usize) -> Result<(), postgres::Error> {
    client.query("SELECT billing.invoice_preview($1)", &[&format!("u{}-1", rng.below(12))]).map(|_| ())
}

#[test]
fn catalogue_contracts_prices_ingest_and_runs_do_not_deadlock() {
    let mut rng = load::seed("everything");
    let db = Db::fresh("races_everything");
    let mut admin = billable(&db, 12);
    let sessions: [(&str, &str, Work); 12] = [
        ("catalogue", "billing_operator", catalogue),
        ("catalogue too", "billing_operator", catalogue),
        ("ingest", "billing_app", ingest),
        ("ingest too", "billing_app", ingest),
        ("sign up", "billing_operator", sign_up),
        ("sign up too", "billing_operator", sign_up),
        ("terms", "billing_operator", terms),
        ("terms too", "billing_operator", terms),
        ("seal", "billing_operator", seal),
        ("fold", "billing_operator", fold),
        ("preview", "billing_operator", preview),
        ("run", "billing_operator", run),
    ];
    against_each_other(&db, &mut rng, Duration::from_secs(5), &sessions);
    // A new meter for which ingest did not pause waits for its job.
    admin.batch_execute("CALL billing.meter_rebuild()").map_err(|e| told(&e)).expect("the job");
    assert_eq!(load::usage_differences(&mut admin), Vec::<String>::new());
    assert_eq!(db.verify(), Vec::<String>::new());
    let numbers = count(&mut admin, "billing.invoice WHERE number IS NOT NULL");
    assert_numbers(&mut admin, numbers);
}

#[test]
fn the_audit_chain_is_whole_however_many_write_and_seal() {
    let mut rng = load::seed("audit");
    let db = Db::fresh("races_audit");
    let mut admin = billable(&db, 12);
    let_runs_go_on(&mut admin);
    let sessions: [(&str, &str, Work); 6] = [
        ("terms", "billing_operator", terms),
        ("terms too", "billing_operator", terms),
        ("sign up", "billing_operator", sign_up),
        ("seal", "billing_operator", seal),
        ("seal too", "billing_operator", seal),
        ("run", "billing_operator", run),
    ];
    against_each_other(&db, &mut rng, Duration::from_secs(3), &sessions);
    admin.batch_execute("CALL billing.audit_seal()").expect("the last seal");
    assert_eq!(count(&mut admin, "billing.audit_verify()"), 0);
    assert_eq!(count(&mut admin, "billing.audit_log WHERE seal_n IS NULL"), 0, "every entry is sealed");
    let (seals, last, entries): (i64, i64, i64) = admin
        .query_one("SELECT count(*), max(n)::bigint, sum(entries)::bigint FROM billing.audit_seal", &[])
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .expect("seals");
    assert!(seals > 3, "{seals} seals");
    assert_eq!((seals, entries), (last, count(&mut admin, "billing.audit_log")));
    assert_eq!(db.verify(), Vec::<String>::new());
    // An entry changed afterwards is found.
    admin.batch_execute("UPDATE billing.audit_log SET reason = 'forged' WHERE audit_id = (SELECT min(audit_id::text)::uuid FROM billing.audit_log)").expect("forge");
    assert!(count(&mut admin, "billing.audit_verify()") > 0);
}

#[test]
fn runs_that_meet_broken_contracts_of_two_sellers_do_not_deadlock() {
    let db = Db::fresh("races_two_sellers");
    let mut admin = billable(&db, 1);
    let plan = json!({"plans": [{"key": "fee", "name": "Fee", "currency": "USD", "price_book": "list", "billing": {"interval": "1 month", "alignment": "calendar", "net_days": 30},
        "fees": [{"key": "fee", "product": "ai", "pricing": {"model": "flat", "amount": "10"}, "every": "1 month", "timing": "advance"}]}]});
    load::apply(&mut admin, &plan).expect("plan");
    // Every customer has contracts with both sellers, in either order, and one that breaks in an unforeseen way: the
    // others of its stripe are then billed one by one.
    let (customers, contracts) = (16, 4);
    admin
        .batch_execute(&format!(
            "SELECT billing.test_clock_set('2026-06-01T00:00:00Z');
             SELECT billing.customer_upsert(jsonb_build_object('key', 't' || n)) FROM generate_series(1, {customers}) n;
             SELECT billing.subscribe('t' || n, 'fee', '2026-02-01', jsonb_build_object('seller', CASE (n + c) % 2 WHEN 0 THEN 'default' ELSE 'second' END))
             FROM generate_series(1, {customers}) n, generate_series(1, {contracts}) c;
             CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'odd'; END$$;
             CREATE TRIGGER refuse BEFORE INSERT ON billing.invoice FOR EACH ROW WHEN (NEW.key LIKE 't%-3/%') EXECUTE FUNCTION public.refuse();"
        ))
        .expect("contracts");
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = db.connect_as("billing_operator");
                barrier.wait();
                client
                    .batch_execute("CALL billing.bill_run('2026-06-01')")
                    .map_err(|e| told(&e))
                    .expect("the run");
            });
        }
    });
    // Five boundaries from February to June, of all but the broken contract of each customer; and the usage of u0.
    let expected = customers * (contracts - 1) * 5 + 1;
    assert_eq!(count(&mut admin, "billing.invoice"), expected);
    assert_numbers(&mut admin, expected);
    assert_eq!(db.verify(), Vec::<String>::new());
}

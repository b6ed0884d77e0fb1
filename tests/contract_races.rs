//! Changes of contracts beside bills and beside each other: whatever the order, every change is one version, nothing is
//! billed twice or left out, and nobody waits in a circle. Each test has its own database and ends with
//! `billing.verify('full')`.
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::Db;
use load::{count, told};
use postgres::Client;
use std::sync::Barrier;
use std::thread;

/// Contracts u0-1 … with a fee of 100 a month from 1 February on, paid for February.
fn deals(db: &Db, contracts: usize) -> Client {
    let mut admin = db.connect();
    let make = format!(
        "SELECT billing.test_clock_set('2026-02-01T00:00:00Z');
         SELECT * FROM billing.catalog_apply('{{\"products\":[{{\"key\":\"p\"}}],\"plans\":[{{\"key\":\"base\",\"name\":\"Base\",\"currency\":\"USD\",
            \"fees\":[{{\"key\":\"platform\",\"product\":\"p\",\"pricing\":{{\"model\":\"per_unit\",\"unit_price\":\"100\"}}}}]}}]}}');
         SELECT billing.customer_upsert(jsonb_build_object('key', 'u' || n)) FROM generate_series(0, {contracts} - 1) n;
         SELECT billing.subscribe('u' || n, 'base') FROM generate_series(0, {contracts} - 1) n;"
    );
    admin.batch_execute(&make).expect("customers and contracts");
    admin.batch_execute("CALL billing.bill_run()").expect("February");
    admin
}

fn clock(admin: &mut Client, at: &str) {
    admin.batch_execute(&format!("SELECT billing.test_clock_set('{at}')")).expect("the clock");
}

#[test]
fn an_amendment_is_billed_once_whether_a_run_sees_it_or_the_next_one_does() {
    let mut rng = load::seed("amend and bill");
    let db = Db::fresh("contract_races_amend");
    let contracts = 60;
    let mut admin = deals(&db, contracts);
    clock(&mut admin, "2026-03-01T12:00:00Z");
    let days: Vec<usize> = (0..contracts).map(|_| 2 + rng.below(27)).collect();
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for who in 0..3 {
            let (db, barrier, days) = (&db, &barrier, &days);
            scope.spawn(move || {
                let mut client = db.connect_as("billing_operator");
                barrier.wait();
                for n in (who..contracts).step_by(3) {
                    let amend = format!(
                        "SELECT billing.contract_amend('u{n}-1', '{{\"prices\":{{\"platform\":{{\"model\":\"flat\",\"amount\":\"300\"}}}}}}', '2026-02-{:02}T00:00:00Z')",
                        days[n]
                    );
                    client.query(&amend, &[]).map_err(|e| told(&e)).expect("the amendment");
                }
            });
        }
        let (db, barrier) = (&db, &barrier);
        scope.spawn(move || {
            let mut client = db.connect_as("billing_operator");
            barrier.wait();
            client.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the run");
        });
    });
    assert_eq!(db.verify(), Vec::<String>::new());
    assert_eq!(count(&mut admin, "billing.contract WHERE version = 2"), contracts as i64);
    clock(&mut admin, "2026-04-01T12:00:00Z");
    admin.batch_execute("CALL billing.bill_run()").expect("the next run");
    assert_eq!(count(&mut admin, "billing.job_issue"), 0);
    assert_eq!(count(&mut admin, "billing.late_usage WHERE closed_at IS NULL"), 0);
    for (n, day) in days.iter().enumerate() {
        // 100 until the day, 300 from it on, each rounded by itself.
        let (before, after) = (day - 1, 29 - day);
        let sums = format!(
            "SELECT sum(l.amount) FILTER (WHERE l.service_from < '2026-03-01')::text,
                (round(100 * {before} / 28.0, 2) + round(300 * {after} / 28.0, 2))::text, sum(l.amount) FILTER (WHERE l.service_from >= '2026-03-01')::text
             FROM billing.invoice_line l JOIN billing.customer c USING (customer_id) WHERE c.key = 'u{n}'"
        );
        let row = admin.query_one(&sums, &[]).expect("sums");
        let (february, wanted, later): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        assert_eq!((february, later), (wanted, "600.00"), "u{n} from day {day}");
    }
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn of_two_activations_one_starts_the_contract() {
    let db = Db::fresh("contract_races_activate");
    let mut admin = deals(&db, 1);
    let contracts = 20;
    for n in 0..contracts {
        let make = format!(
            "SELECT billing.contract_create('{{\"key\":\"d{n}\",\"customer\":\"u0\",\"starts_on\":\"2026-03-01\",\"plan\":\"base\"}}')"
        );
        admin.query(&make, &[]).expect("a draft");
    }
    let barrier = Barrier::new(2);
    let answers: Vec<Vec<Option<common::Refusal>>> = thread::scope(|scope| {
        let activate = || {
            let mut client = db.connect_as("billing_operator");
            (0..contracts)
                .map(|n| {
                    barrier.wait();
                    let answer =
                        client.query_one("SELECT billing.contract_activate($1)", &[&format!("d{n}")]);
                    answer.err().map(|e| common::refusal::<()>(Err(e)))
                })
                .collect()
        };
        let sessions = [scope.spawn(activate), scope.spawn(activate)];
        sessions.into_iter().map(|session| session.join().expect("a session")).collect()
    });
    for (n, answer) in answers[0].iter().zip(&answers[1]).enumerate() {
        let ((None, Some(refusal)) | (Some(refusal), None)) = answer else { panic!("d{n}: {answer:?}") };
        assert_eq!(refusal.code, "ZB005", "{refusal:?}");
        assert!(refusal.message.contains("not a draft"), "{refusal:?}");
    }
    assert_eq!(
        count(
            &mut admin,
            "billing.billing_period p JOIN billing.contract k USING (contract_id) WHERE k.key LIKE 'd%'"
        ),
        contracts as i64
    );
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_change_and_a_cancellation_follow_each_other() {
    let db = Db::fresh("contract_races_cancel");
    let contracts = 30;
    let mut admin = deals(&db, contracts);
    clock(&mut admin, "2026-02-15T12:00:00Z");
    let barrier = Barrier::new(3);
    let say = |what: &'static str| {
        let (db, barrier) = (&db, &barrier);
        move || {
            let mut client = db.connect_as("billing_operator");
            (0..contracts)
                .map(|n| {
                    barrier.wait();
                    let answer = client.query_one(&what.replace("KEY", &format!("u{n}-1")), &[]);
                    answer.err().map(|e| common::refusal::<()>(Err(e)))
                })
                .collect::<Vec<Option<common::Refusal>>>()
        }
    };
    let [amended, cancelled, paused] = thread::scope(|scope| {
        [
            "SELECT billing.contract_amend('KEY', '{\"quantities\":{\"platform\":\"2\"}}', '2026-02-20T00:00:00Z')",
            "SELECT billing.contract_cancel('KEY', '2026-02-18')",
            "SELECT billing.contract_pause('KEY', '2026-02-10T00:00:00Z')",
        ]
        .map(|what| scope.spawn(say(what)))
        .map(|session| session.join().expect("a session"))
    });
    assert!(cancelled.iter().chain(&paused).all(Option::is_none), "{cancelled:?} {paused:?}");
    for refusal in amended.iter().flatten() {
        // After the cancellation there is nothing left to amend then.
        assert_eq!(refusal.code, "ZB005", "{refusal:?}");
    }
    let refused = amended.iter().flatten().count() as i64;
    assert_eq!(
        count(&mut admin, "billing.contract_version WHERE kind <> 'create'"),
        3 * contracts as i64 - refused
    );
    let gaps = "(SELECT contract_id FROM billing.contract_version GROUP BY contract_id HAVING max(version) <> count(*)) g";
    assert_eq!(count(&mut admin, gaps), 0, "versions follow each other");
    clock(&mut admin, "2026-03-02T00:00:00Z");
    admin.batch_execute("CALL billing.bill_run()").expect("the run");
    assert_eq!(count(&mut admin, "billing.contract WHERE state = 'cancelled'"), contracts as i64);
    // Nine days were served, whatever came first.
    let wrong = "(SELECT customer_id, sum(amount) AS billed FROM billing.invoice_line GROUP BY customer_id) s WHERE billed <> round(100 * 9 / 28.0, 2)";
    assert_eq!(count(&mut admin, wrong), 0);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn changes_beside_bills_that_draw_the_same_credit_lose_none_of_it() {
    let mut rng = load::seed("credit and changes");
    let db = Db::fresh("contract_races_credit");
    let customers = 24;
    let mut admin = db.connect();
    let make = format!(
        "SELECT billing.test_clock_set('2026-02-01T00:00:00Z');
         SELECT * FROM billing.catalog_apply('{{\"products\":[{{\"key\":\"p\"}}],\"meters\":[{{\"key\":\"tokens\",\"event_type\":\"llm\",\"aggregation\":\"sum\",\"value\":\"n\"}}],
            \"plans\":[{{\"key\":\"base\",\"currency\":\"USD\",\"charges\":[{{\"key\":\"tokens\",\"product\":\"p\",\"meter\":\"tokens\",\"pricing\":{{\"model\":\"per_unit\",\"unit_price\":\"1\"}}}}],
            \"fees\":[{{\"key\":\"platform\",\"product\":\"p\",\"pricing\":{{\"model\":\"flat\",\"amount\":\"100\"}}}}]}}]}}');
         SELECT billing.customer_upsert(jsonb_build_object('key', 'u' || n)) FROM generate_series(0, {customers} - 1) n;
         SELECT billing.contract_create(jsonb_build_object('key', 'u' || n || '-1', 'customer', 'u' || n, 'plan', 'base', 'starts_on', '2026-02-01', 'term', '12 months',
            'credits', '[{{\"key\":\"pool\",\"category\":\"pilot\",\"amount\":\"50\",\"scope\":{{\"products\":[\"p\"]}}}}]'::jsonb)), billing.contract_activate('u' || n || '-1') FROM generate_series(0, {customers} - 1) n;
         SELECT billing.credit_grant_create('u' || n, '{{\"key\":\"shared\",\"amount\":\"30\"}}') FROM generate_series(0, {customers} - 1) n;
         SELECT billing.test_clock_set('2026-02-27T00:00:00Z');
         SELECT billing.ingest_event('u' || n, 'llm', 'one', '2026-02-10Z', '{{\"n\":60}}') FROM generate_series(0, {customers} - 1) n;
         SELECT billing.test_clock_set('2026-03-01T12:00:00Z');"
    );
    admin.batch_execute(&make).expect("customers and contracts");
    let barrier = Barrier::new(5);
    let mut say = |mut order: Vec<usize>, role: &'static str, what: String| {
        rng.shuffle(&mut order);
        let (db, barrier) = (&db, &barrier);
        move || {
            let mut client = db.connect_as(role);
            barrier.wait();
            order
                .iter()
                .filter_map(|n| client.query(&what.replace("KEY", &format!("u{n}")), &[]).err())
                .map(|e| common::refusal::<()>(Err(e)))
                .collect::<Vec<common::Refusal>>()
        }
    };
    let all: Vec<usize> = (0..customers).collect();
    let mut changes = Vec::new();
    for (role, what) in [
        (
            "billing_operator",
            "SELECT billing.contract_amend('KEY-1', '{\"credits\":[{\"key\":\"pool\",\"category\":\"pilot\",\"amount\":\"70\",\"scope\":{\"products\":[\"p\"]}}]}', '2026-02-01T00:00:00Z')",
        ),
        ("billing_operator", "SELECT billing.contract_cancel('KEY-1', '2026-03-15')"),
        ("billing_app", "SELECT billing.draw_down('KEY', 7, 'app', 'USD', '{\"product\":\"p\"}')"),
        (
            "billing_operator",
            "SELECT billing.invoice_void(i.number, 'wrong address') FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE c.key = 'KEY' AND i.state IN ('open', 'paid') AND i.n = 1",
        ),
    ] {
        changes.push(say(all.clone(), role, what.to_owned()));
    }
    let refused: Vec<Vec<common::Refusal>> = thread::scope(|scope| {
        let run = scope.spawn(|| {
            let mut client = db.connect_as("billing_operator");
            barrier.wait();
            client.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the run");
        });
        let sessions: Vec<_> = changes.into_iter().map(|change| scope.spawn(change)).collect();
        let refused = sessions.into_iter().map(|session| session.join().expect("a session")).collect();
        run.join().expect("the run");
        refused
    });
    assert!(refused[0].is_empty() && refused[1].is_empty() && refused[2].is_empty(), "{refused:?}");
    assert!(refused[3].iter().all(|r| r.code == "ZB005"), "{refused:?}");
    assert_eq!(db.verify(), Vec::<String>::new());
    // All of it is billed then, whichever came first: 60 of usage; 7 of 100 credits were drawn by calls, the rest paid for it.
    admin.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the next run");
    clock(&mut admin, "2026-03-15T00:00:00Z");
    admin.batch_execute("CALL billing.bill_run()").map_err(|e| told(&e)).expect("the last run");
    assert_eq!(count(&mut admin, "billing.late_usage WHERE closed_at IS NULL"), 0);
    let wrong: Vec<String> = admin
        .query(
            "SELECT format('%s: usage %s, credit %s, left %s', c.key, u.amount, i.applied, b.posted) FROM billing.customer c
             CROSS JOIN LATERAL (SELECT coalesce(sum(l.amount), 0) AS amount FROM billing.invoice_line l JOIN billing.invoice x USING (customer_id, invoice_id)
                WHERE l.customer_id = c.customer_id AND x.state <> 'void' AND l.charge_key = 'tokens') u
             CROSS JOIN LATERAL (SELECT coalesce(sum(x.credits_applied), 0) AS applied FROM billing.invoice x WHERE x.customer_id = c.customer_id AND x.state <> 'void') i
             CROSS JOIN LATERAL (SELECT sum(x.posted) AS posted FROM billing.credit_block_balance x WHERE x.customer_id = c.customer_id) b
             WHERE (u.amount, i.applied, b.posted) IS DISTINCT FROM (60.00, 60.00, 33.00)",
            &[],
        )
        .expect("sums")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(db.verify(), Vec::<String>::new());
}

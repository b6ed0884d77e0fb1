//! Credit on invoices with several sessions and through crashes: bill runs, calls that draw, voids and sales on the same
//! balances spend no credit twice and lose none, and a server killed in the middle of a bill run (kill -9 of every process)
//! has posted all of an invoice or nothing. Moments draw from a printed seed (RACES_SEED=… repeats them).
#![allow(clippy::disallowed_methods)] // tests measure real time

mod common;
mod load;

use common::{Db, Server};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const CUSTOMERS: usize = 30;

/// Customers with two contracts each, whose usage of January is due on two boundaries, and one block that pays for part of it.
fn prepare(client: &mut Client) {
    client
        .batch_execute(&format!(
            r#"SELECT billing.test_clock_set('2026-01-01T00:00:00Z');
            SELECT * FROM billing.catalog_apply('{{"products":[{{"key":"p"}}],"meters":[{{"key":"a","event_type":"a","aggregation":"sum","value":"n","unit":"token"}},{{"key":"b","event_type":"b","aggregation":"sum","value":"n"}}],
              "plans":[{{"key":"a","currency":"USD","charges":[{{"key":"a","product":"p","meter":"a","pricing":{{"model":"per_unit","unit_price":"0.37"}}}}]}},
                {{"key":"b","currency":"USD","charges":[{{"key":"b","product":"p","meter":"b","pricing":{{"model":"per_unit","unit_price":"1"}}}}]}}]}}');
            SELECT billing.customer_upsert(jsonb_build_object('key', 'c' || n)) FROM generate_series(1, {CUSTOMERS}) n;
            SELECT billing.subscribe('c' || n, p, '2026-01-01') FROM generate_series(1, {CUSTOMERS}) n, unnest(ARRAY['a', 'b']) p;
            SELECT billing.credit_grant_create('c' || n, jsonb_build_object('key', 'c' || n || '-credit', 'amount', '100')),
              billing.credit_grant_create('c' || n, jsonb_build_object('key', 'c' || n || '-tokens', 'amount', '5', 'unit', 'token')) FROM generate_series(1, {CUSTOMERS}) n;
            SELECT billing.test_clock_set('2026-02-20T00:00:00Z');
            SELECT billing.ingest_event('c' || n, t, t || m, make_timestamptz(2026, m, 10, 0, 0, 0, 'UTC'), jsonb_build_object('n', 20 + n)) FROM generate_series(1, {CUSTOMERS}) n, unnest(ARRAY['a', 'b']) t, generate_series(1, 2) m;
            SELECT billing.test_clock_set('2026-03-01T00:00:00Z')"#
        ))
        .expect("customers with credit");
}

fn text(client: &mut Client, query: &str) -> Vec<String> {
    client.query(query, &[]).expect("a query").iter().map(|row| row.get(0)).collect()
}

/// What every balance is: granted, less what documents that stand and calls drew; never below zero.
const WRONG: &str = "SELECT g.key || ': ' || b.posted FROM billing.credit_block_balance b JOIN billing.credit_grant g USING (customer_id, grant_id)
    LEFT JOIN LATERAL (SELECT coalesce(sum(a.amount), 0) AS drawn FROM billing.credit_allocation a WHERE a.customer_id = b.customer_id AND a.grant_id = b.grant_id) a ON true
    LEFT JOIN LATERAL (SELECT coalesce(sum((x->>'amount')::numeric), 0) AS drawn FROM billing.credit_draw d, jsonb_array_elements(d.drawn) x
        WHERE d.customer_id = b.customer_id AND x->>'grant' IN (g.key, g.grant_id::text)) d ON true
    WHERE b.posted < 0 OR b.posted <> g.amount - a.drawn - d.drawn ORDER BY 1";

#[track_caller]
fn assert_balances(client: &mut Client) {
    assert_eq!(text(client, WRONG), Vec::<String>::new(), "balances");
    assert_eq!(common::verify(client), Vec::<String>::new());
    let again = "SELECT i.key FROM billing.invoice i WHERE i.number IS NOT NULL AND NOT (SELECT bool_and(r.same_bytes) FROM billing.invoice_recompute(i.number) r)";
    assert_eq!(text(client, again), Vec::<String>::new(), "recomputed");
}

#[test]
fn bill_runs_and_calls_spend_no_credit_twice() {
    let db = Db::fresh("settlement_races");
    let mut admin = db.connect();
    prepare(&mut admin);
    let mut rng = load::seed("settlement");
    let ends = AtomicBool::new(false);
    let (drawn, voided) = thread::scope(|scope| {
        let runs: Vec<_> = (0..2)
            .map(|_| {
                let db = &db;
                scope.spawn(move || {
                    db.connect_as("billing_finance")
                        .batch_execute("CALL billing.bill_run()")
                        .expect("a bill run");
                })
            })
            .collect();
        let callers: Vec<_> = (0..2)
            .map(|who| {
                let (db, ends, mut rng) = (&db, &ends, rng.fork());
                scope.spawn(move || {
                    let mut client = db.connect_as("billing_app");
                    let mut drawn = 0u32;
                    for n in 0.. {
                        if ends.load(Ordering::SeqCst) && n >= 40 {
                            return drawn;
                        }
                        let customer = format!("c{}", 1 + rng.below(CUSTOMERS));
                        match client.query(
                            "SELECT FROM billing.draw_down($1, 3, $2)",
                            &[&customer, &format!("{who}/{n}")],
                        ) {
                            Ok(_) => drawn += 1,
                            Err(error) => {
                                assert_eq!(error.code().map(|code| code.code()), Some("ZB014"), "{error:?}")
                            }
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        let voider = {
            let (db, ends, mut rng) = (&db, &ends, rng.fork());
            scope.spawn(move || {
                let mut client = db.connect_as("billing_finance");
                let mut voided = 0u32;
                while !ends.load(Ordering::SeqCst) && voided < 60 {
                    thread::sleep(Duration::from_millis(rng.below(20) as u64));
                    let open = "SELECT number FROM billing.invoice WHERE state IN ('open', 'paid') AND total > 0 ORDER BY md5(number || clock_timestamp()::text) LIMIT 1";
                    let Some(number) = text(&mut client, open).pop() else { continue };
                    if client.query("SELECT billing.invoice_void($1, 'race')", &[&number]).is_ok() {
                        voided += 1;
                    }
                }
                voided
            })
        };
        for run in runs {
            run.join().expect("a run");
        }
        ends.store(true, Ordering::SeqCst);
        let drawn: u32 = callers.into_iter().map(|caller| caller.join().expect("a caller")).sum();
        (drawn, voider.join().expect("the voider"))
    });
    println!("{drawn} calls drew, {voided} invoices were voided");
    // What was voided is billed again, what is late is settled.
    admin.batch_execute("CALL billing.bill_run()").expect("the last run");
    assert_eq!(text(&mut admin, "SELECT message FROM billing.job_issue"), Vec::<String>::new());
    let due = "SELECT key FROM billing.contract WHERE next_bill_at <= billing.now()";
    assert_eq!(text(&mut admin, due), Vec::<String>::new(), "all is billed");
    assert_balances(&mut admin);
}

#[test]
fn a_killed_bill_run_has_drawn_all_of_an_invoice_or_nothing() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut rng = load::seed("settlement_kill");
    let server = Server::spawn("settlement");
    for round in 0..rounds {
        let db = server.fresh(&format!("settlement_{round}"));
        prepare(&mut db.connect());
        let moment = Duration::from_millis(20 + rng.below(400) as u64);
        thread::scope(|scope| {
            let run = scope.spawn(|| {
                let mut client = db.connect();
                // Many small steps, so that the kill is between some and in one.
                let run: postgres::Row =
                    client.query_one("SELECT billing.bill_run_start()::text", &[]).expect("a run");
                let run: String = run.get(0);
                while client
                    .query_one("SELECT billing.bill_run_step($1::text::uuid, 3)", &[&run])
                    .is_ok_and(|row| row.get::<_, i64>(0) > 0)
                {}
            });
            thread::sleep(moment);
            server.kill9();
            server.start();
            run.join().expect("the run");
        });
        let mut client = db.connect();
        let issued = text(&mut client, "SELECT count(*)::text FROM billing.invoice").concat();
        println!("round {round}: killed after {moment:?}, {issued} invoices stood");
        assert_eq!(text(&mut client, WRONG), Vec::<String>::new(), "round {round}");
        client.batch_execute("CALL billing.bill_run()").expect("the next run");
        assert_balances(&mut client);
        let billed = text(&mut client, "SELECT count(*)::text FROM billing.invoice WHERE total > 0").concat();
        assert_eq!(billed, (CUSTOMERS * 4).to_string(), "each contract has two invoices");
    }
}

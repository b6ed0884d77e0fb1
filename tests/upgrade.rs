//! From a released version to this one: the extension's functions by ALTER EXTENSION … UPDATE, the tables by migrate().
//!
//! `tests/upgrade/0.1.0.sql.gz` is the dump of a database that the code of 0.1.0 filled (fill.sql), `0.1.0.picture` what that
//! code said of it (picture.sql); `scripts/upgrade --accept` makes both with the true build. `scripts/cluster` installs
//! 0.1.0's own script beside today's library, so CREATE EXTENSION can begin there.

mod common;

use common::{Db, Refusal, checkout, refusal, run};
use postgres::Client;
use std::io::Write;
use std::process::{Command, Stdio};

fn released(name: &str) -> String {
    let file = checkout().join("tests/upgrade").join(name);
    let output = run(Command::new("gunzip").arg("-c").arg(&file));
    String::from_utf8(output.stdout).expect("a dump in UTF-8")
}

/// Feeds a script to psql and returns what it printed; an error ends the test.
fn psql(db: &Db, script: &str) -> String {
    let mut child = db
        .program("psql")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql");
    let mut input = child.stdin.take().expect("its input");
    let text = script.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("psql's end");
    let _ = writer.join();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn file(name: &str) -> String {
    let path = checkout().join("tests/upgrade").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A database as 0.1.0 left it: its functions (bound to today's library), its tables, its rows.
fn old_database(name: &str) -> Db {
    let db = Db::empty(name);
    let line = "CREATE EXTENSION IF NOT EXISTS pg_billing WITH SCHEMA billing;";
    let dump = released("0.1.0.sql.gz");
    assert_eq!(dump.matches(line).count(), 1, "the dump makes the extension");
    psql(&db, &dump.replace(line, "CREATE EXTENSION pg_billing WITH SCHEMA billing VERSION '0.1.0';"));
    db
}

fn states(client: &mut Client, call: &str) -> Vec<(String, String)> {
    let rows = client.query(call, &[]).unwrap_or_else(|e| panic!("{call}: {e:?}"));
    rows.iter().map(|row| (row.get("step"), row.get("state"))).collect()
}

const MIGRATE: &str = "SELECT step, state FROM billing.migrate()";

fn assert_migrates(client: &mut Client) {
    let steps = states(client, MIGRATE);
    let (old, new) = steps.split_at(7);
    assert!(old.iter().all(|(_, state)| state == "kept"), "{steps:?}");
    assert!(!new.is_empty() && new.iter().all(|(_, state)| state == "applied"), "{steps:?}");
}

/// It says of itself what 0.1.0 said.
fn assert_same(db: &Db) {
    // The clock is a setting of the database, which the dump leaves out.
    db.connect().batch_execute("SELECT billing.test_clock_set('2023-12-08 00:00:00Z')").expect("clock");
    let (before, after) = (file("0.1.0.picture"), psql(db, &file("picture.sql")));
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "0.1.0 said {gone:#?}, now {new:#?}");
    assert!(before.len() > 100 && before.len() == after.len(), "{} lines", before.len());
}

#[test]
fn an_updated_database_keeps_what_it_held_and_goes_on() {
    let db = old_database("upgrade_update");
    let mut client = db.connect();

    // Between the steps nothing works but the next one, and each says which that is.
    let said = |statement: &str| refusal(db.connect().batch_execute(statement));
    let update = Refusal {
        code: "55000".into(),
        message: format!(
            "pg_billing's functions in this database are of version 0.1.0, the library is {}",
            env!("CARGO_PKG_VERSION")
        ),
        detail: None,
        hint: Some("Run: ALTER EXTENSION pg_billing UPDATE; then SELECT * FROM billing.migrate();".into()),
    };
    for statement in
        ["SELECT billing.ingest('[]')", "SELECT * FROM billing.migrate()", "CALL billing.bill_run()"]
    {
        assert_eq!(said(statement), update, "{statement}");
    }
    client.batch_execute("ALTER EXTENSION pg_billing UPDATE").expect("update");
    for statement in ["SELECT billing.ingest('[]')", "SELECT * FROM billing.verify()"] {
        let said = said(statement);
        assert_eq!(
            (said.code.as_str(), said.hint.as_deref()),
            ("55000", Some("Run: SELECT * FROM billing.migrate();")),
            "{statement}"
        );
    }

    // A migration that ends before its COMMIT leaves nothing; two at once apply each file once.
    let mut broken = db.connect();
    broken.batch_execute("BEGIN").expect("begin");
    assert_migrates(&mut broken);
    let pid: i32 = broken.query_one("SELECT pg_backend_pid()", &[]).expect("pid").get(0);
    client.execute("SELECT pg_terminate_backend($1, 10000)", &[&pid]).expect("terminate");
    let version = "SELECT schema_version FROM billing.installation";
    assert_eq!(client.query_one(version, &[]).expect("version").get::<_, i32>(0), 7);
    let mut applied: Vec<usize> = std::thread::scope(|scope| {
        let sessions = [(); 2].map(|()| {
            scope.spawn(|| {
                states(&mut db.connect(), MIGRATE).iter().filter(|(_, state)| state == "applied").count()
            })
        });
        sessions.into_iter().map(|session| session.join().expect("session")).collect()
    });
    applied.sort_unstable();
    assert!(applied[0] == 0 && applied[1] > 0, "{applied:?}");

    // Nothing that others built on the extension was dropped.
    let report = "SELECT r.amount || ' ' || r.twice || ' ' || (w.balance = '12.5 USD')::text FROM public.wallet_report r JOIN public.wallet w USING (holder)";
    client.batch_execute("SET search_path = public, billing").expect("path");
    assert_eq!(client.query_one(report, &[]).expect("report").get::<_, &str>(0), "12.5 25 true");
    assert_same(&db);
    psql(&db, &file("go_on.sql"));
}

#[test]
fn a_dump_of_an_older_version_restores_and_migrates() {
    let db = Db::empty("upgrade_restore");
    psql(&db, &released("0.1.0.sql.gz"));
    let said = refusal(db.connect().batch_execute("SELECT billing.ingest('[]')"));
    assert_eq!(said.hint.as_deref(), Some("Run: SELECT * FROM billing.migrate();"));
    assert_migrates(&mut db.connect());
    assert_same(&db);
}

/// Rows that were there before the columns that describe them: what today's code would have written.
#[test]
fn rows_of_an_older_version_are_filled_in() {
    let db = Db::empty("upgrade_rows");
    psql(&db, &released("0.1.0.sql.gz"));
    let mut client = db.connect();
    // Tables that grow with usage and invoices are not written anew.
    let files = "SELECT string_agg(format('%s %s', c.oid::regclass, pg_relation_filenode(c.oid)), ' ' ORDER BY c.oid) FROM pg_class c
        WHERE c.relkind IN ('r', 'i') AND c.relname ~ '^(usage_event|usage_bucket|usage_value|usage_delta|dimension_set|invoice_line|invoice_pkey|audit_log)'";
    let before: String = client.query_one(files, &[]).expect("files").get(0);
    assert_migrates(&mut client);
    let after: String = client
        .query_one(&files.replace("WHERE", "WHERE c.relname !~ 'void' AND"), &[])
        .expect("files")
        .get(0);
    assert_eq!(before, after);
    let mut lines = |query: &str| -> Vec<String> {
        client
            .query(query, &[])
            .unwrap_or_else(|e| panic!("{query}: {e:?}"))
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    assert_eq!(
        lines("SELECT format('%s %s %s %s', key, m.version, state, additive) FROM billing.meter m JOIN billing.meter_version v USING (meter_id, definition)
            WHERE v.version = 1 AND v.valid_from = '-infinity' ORDER BY key"),
        ["longest 1 max f", "requests 1 count t", "tokens 1 sum t", "users 1 unique f"]
    );
    // As the leaf says that apply_price() asks.
    assert_eq!(
        lines("SELECT format('%s %s', b.key || '/' || p.key, p.cuts = f.cuts) FROM billing.price p JOIN billing.price_book b USING (price_book_id)
            CROSS JOIN LATERAL billing_internal.pricing_facts(billing_internal.pricing_of(p.price_id)::text) f ORDER BY 1"),
        ["list/requests t", "list/requests t", "list/tokens t", "suite/requests t", "suite/users t"]
    );
    assert_eq!(
        lines(
            "SELECT b.key || '/' || p.key FROM billing.price p JOIN billing.price_book b USING (price_book_id) WHERE NOT p.cuts ORDER BY 1"
        ),
        ["suite/requests", "suite/users"]
    );
    assert_eq!(
        lines(
            "SELECT format('%s %s', key, billed_until AT TIME ZONE 'UTC') FROM billing.contract ORDER BY key"
        ),
        [
            "acme-1 2023-12-01 00:00:00",
            "globex-1 2023-11-04 18:15:00",
            "gone-1 2023-11-01 00:00:00",
            "idle-1 2023-11-01 04:00:00",
            "mega-1 2023-12-01 00:00:00",
            "startup-1 2023-12-01 00:00:00"
        ]
    );
    // Late usage that 0.1.0 stored and did not bill, of a billed month and of a closed one.
    assert_eq!(
        lines(
            "SELECT format('%s/%s', k.key, l.n) FROM billing.late_usage l JOIN billing.contract k USING (customer_id, contract_id) WHERE l.closed_at IS NULL ORDER BY 1"
        ),
        ["acme-1/1", "gone-1/2", "idle-1/2"]
    );
    assert_eq!(
        lines("SELECT DISTINCT (jsonb_build_array(p.state, p.terms))::text FROM billing.billing_period p JOIN billing.contract k USING (customer_id, contract_id)
            WHERE k.key = 'idle-1' AND p.n IN (1, 2) ORDER BY 1"),
        [r#"["closed", {"inputs": {"prices": ["list/requests@1", "list/tokens@1"], "policies": {"rate_at": "usage_time", "minimum_basis": "after_discount", "rounding_mode": "half_up", "rounding_level": "line", "proration_basis": "second"}, "terms_version": 1, "contract_version": 1}, "minor_units": 2}]"#]
    );
    assert_eq!(
        lines(
            "SELECT DISTINCT format('%s %s %s', reason, format, coalesce(resolution, 'open')) FROM billing.rejected_event ORDER BY 1"
        ),
        ["bad_time native discarded", "conflicting native open", "unknown_customer native open"]
    );
    // What was agreed is a change now, and ends where the contract does.
    assert_eq!(
        lines("SELECT format('%s %s %s %s %s', k.key, v.kind, v.change = v.document, v.plan, v.ends_on IS NOT DISTINCT FROM k.ends_on AND v.ends_at IS NOT DISTINCT FROM k.ends_at)
            FROM billing.contract_version v JOIN billing.contract k USING (customer_id, contract_id) ORDER BY 1"),
        [
            "acme-1 create t usage@1 t",
            "globex-1 create t suite@1 t",
            "gone-1 create t usage@1 t",
            "idle-1 create t usage@1 t",
            "mega-1 create t usage@1 t",
            "startup-1 create t usage@1 t"
        ]
    );
    assert_eq!(
        lines("SELECT count(*)::text FROM billing_internal.counter WHERE name LIKE 'bills/%'"),
        ["256"]
    );
    assert_eq!(
        lines(
            "SELECT DISTINCT relreplident::text FROM pg_class WHERE relname LIKE 'usage\\_event\\_20%' AND relkind = 'r'"
        ),
        ["f"]
    );
}

/// What a database consists of, as lines: everything of pg_billing but rows and the partitions that rows made.
fn catalogue(client: &mut Client) -> Vec<String> {
    let ours = "('billing'::regnamespace, 'billing_internal'::regnamespace)";
    let acl = |of: &str| {
        format!("(SELECT string_agg(a::text, ' ' ORDER BY a::text COLLATE \"C\") FROM unnest({of}) a)")
    };
    let relation = format!(
        "c.relnamespace IN {ours} AND NOT (c.relispartition AND c.relname ~ '_[0-9]{{4}}_[0-9]{{2}}(_|$)')"
    );
    let parts = [
        format!(
            "SELECT format('function %s: %s, owner %s, acl %s, %s', p.oid::regprocedure, CASE WHEN p.prokind = 'a' THEN (SELECT format('aggregate %s %s %s %s %s %s %s %s', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggtranstype::regtype, a.agginitval, p.proparallel) FROM pg_aggregate a WHERE a.aggfnoid = p.oid) ELSE pg_get_functiondef(p.oid) END,
                p.proowner::regrole, {}, obj_description(p.oid, 'pg_proc')) FROM pg_proc p WHERE p.pronamespace IN {ours}",
            acl("p.proacl")
        ),
        format!(
            "SELECT format('relation %s: %s, owner %s, acl %s, security %s %s, replica %s, options %s, persistence %s, %s, %s', c.oid::regclass, c.relkind, c.relowner::regrole, {},
                c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.reloptions, c.relpersistence, CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END, obj_description(c.oid, 'pg_class'))
            FROM pg_class c WHERE {relation}",
            acl("c.relacl")
        ),
        format!(
            "SELECT format('column %s.%s: %s %s %s, default %s, acl %s, %s', a.attrelid::regclass, a.attnum - (SELECT count(*) FROM pg_attribute d WHERE d.attrelid = a.attrelid AND d.attisdropped AND d.attnum < a.attnum),
                a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
                (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) || a.attgenerated::text, {}, col_description(a.attrelid, a.attnum))
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE {relation} AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v')",
            acl("a.attacl")
        ),
        format!("SELECT format('constraint %s %s: %s', n.conrelid::regclass, n.conname, pg_get_constraintdef(n.oid)) FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid WHERE {relation}"),
        format!("SELECT format('index %s', pg_get_indexdef(c.oid)) FROM pg_class c WHERE c.relkind IN ('i', 'I') AND {relation}"),
        "SELECT format('policy %s', p) FROM pg_policies p WHERE p.schemaname IN ('billing', 'billing_internal') AND p.tablename !~ '_[0-9]{4}_[0-9]{2}$'".to_owned(),
        format!("SELECT format('trigger %s', pg_get_triggerdef(t.oid)) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE {relation} AND NOT t.tgisinternal"),
        "SELECT format('member %s', pg_describe_object(d.classid, d.objid, 0)) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_billing' WHERE d.deptype = 'e'".to_owned(),
        "SELECT format('extension %s %s', e.extname, e.extversion) FROM pg_extension e".to_owned(),
        format!("SELECT format('initial rights %s %s', pg_describe_object(i.classoid, i.objoid, i.objsubid), {}) FROM pg_init_privs i JOIN pg_proc p ON p.oid = i.objoid AND i.classoid = 'pg_proc'::regclass AND p.pronamespace IN {ours}", acl("i.initprivs")),
        format!("SELECT format('type %s %s %s %s', t.oid::regtype, t.typtype, {}, obj_description(t.oid, 'pg_type')) FROM pg_type t WHERE t.typnamespace IN {ours} AND t.typrelid = 0 AND t.typelem = 0", acl("t.typacl")),
        format!("SELECT format('composite %s: %s', c.oid::regclass, (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped)) FROM pg_class c WHERE c.relkind = 'c' AND c.relnamespace IN {ours}"),
        format!("SELECT format('operator %s %s %s %s %s %s', o.oid::regoperator, o.oprcode, o.oprcom::regoperator, o.oprnegate::regoperator, format('%s %s', o.oprrest, o.oprjoin), obj_description(o.oid, 'pg_operator')) FROM pg_operator o WHERE o.oprnamespace IN {ours}"),
        "SELECT format('cast %s %s %s %s', c.castsource::regtype, c.casttarget::regtype, c.castcontext, c.castmethod) FROM pg_cast c WHERE 'billing.pricing'::regtype IN (c.castsource, c.casttarget)".to_owned(),
        format!("SELECT format('schema %s owner %s acl %s', n.nspname, n.nspowner::regrole, {}) FROM pg_namespace n WHERE n.nspname LIKE 'billing%'", acl("n.nspacl")),
        "SELECT format('file %s %s %s', m.version, m.name, m.sha256) FROM billing.schema_migration m".to_owned(),
        "SELECT format('kind %s %s', k.table_name, k.kind) FROM billing_internal.table_kind k".to_owned(),
    ];
    let mut lines = Vec::new();
    for part in parts {
        let rows = client.query(&part, &[]).unwrap_or_else(|e| panic!("{part}: {e:?}"));
        assert!(!rows.is_empty() || part.contains("pg_trigger"), "nothing to compare: {part}");
        lines.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    lines.sort_unstable();
    lines
}

#[test]
fn an_updated_database_is_what_a_new_one_is() {
    let db = old_database("upgrade_catalogue");
    let mut client = db.connect();
    client.batch_execute("ALTER EXTENSION pg_billing UPDATE").expect("update");
    assert_migrates(&mut client);
    client
        .batch_execute("DROP TABLE public.wallet CASCADE; DROP VIEW public.usage_report")
        .expect("not ours");
    let updated = catalogue(&mut db.connect());
    let fresh = catalogue(&mut Db::fresh("upgrade_fresh").connect());
    let gone: Vec<_> = fresh.iter().filter(|line| !updated.contains(line)).collect();
    let left: Vec<_> = updated.iter().filter(|line| !fresh.contains(line)).collect();
    assert!(
        gone.is_empty() && left.is_empty(),
        "only in a new database {gone:#?}, only in the updated one {left:#?}"
    );
    assert!(fresh.len() > 1500 && fresh.len() == updated.len(), "{} lines", fresh.len());
}

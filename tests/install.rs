//! Install, dump, restore, drop and make again, migrate: what a person who runs the database does.

mod common;

use common::{Db, Refusal, Server, pg_program, refusal, run};
use postgres::Client;
use std::process::Command;

/// A month of two customers, billed: usage folded and unfolded, contracts with an override and policies, issued, voided
/// and draft invoices, rejected events, a sealed and an unsealed part of the audit log.
fn fill(db: &Db) {
    let mut client = db.connect();
    let mut script = |sql: &str| client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    script("SELECT billing.test_clock_set('2023-11-20 00:00:00Z')");
    script("SELECT billing.catalog_apply(billing.catalog_example('llm-api'))");
    script(
        r#"SELECT billing.catalog_apply('{"meters": [{"key": "users", "event_type": "llm.request", "aggregation": "unique_count", "value": "user_id", "dimensions": ["model"]}]}')"#,
    );
    script(
        r#"SELECT billing.customer_upsert(jsonb_build_object('key', k, 'name', initcap(k), 'time_zone', z, 'aliases', jsonb_build_array(k || '-inc'),
            'contacts', '[{"role": "billing", "name": "Ann Ä", "email": "ann@example.com"}]'::jsonb,
            'overrides', '[{"meter": "tokens", "match": {"model": "gpt-4"}, "unit_price": "0.02"}]'::jsonb))
        FROM (VALUES ('acme', 'America/New_York'), ('globex', 'Asia/Kathmandu')) c (k, z)"#,
    );
    script("SELECT billing.subscribe(k, 'pro', '2023-11-01') FROM unnest('{acme,globex}'::text[]) k");
    script("SELECT billing.policy_set('rounding_mode', 'half_even', 'contract:acme-1', 'agreed')");
    script(
        r#"SELECT billing.ingest((SELECT json_agg(json_build_object('customer', k, 'event_id', k || '-' || n, 'event_type', 'llm.request',
            'occurred_at', timestamptz '2023-11-03 00:00Z' + n * interval '17 minutes',
            'properties', json_build_object('model', CASE n % 3 WHEN 0 THEN 'gpt-4' ELSE 'gpt-3.5' END, 'user_id', 'u' || n % 20, 'input_tokens', n, 'output_tokens', 7)))
            FROM generate_series(1, 1000) n)) FROM unnest('{acme,globex}'::text[]) k"#,
    );
    script("CALL billing.fold()");
    script(
        r#"SELECT billing.ingest('[{"customer": "nobody", "event_id": "x", "event_type": "llm.request", "occurred_at": "2023-11-05T00:00:00Z", "properties": {}}]')"#,
    );
    script("CALL billing.audit_seal()");
    script("SELECT billing.test_clock_set('2023-12-02 00:00:00Z')");
    script("CALL billing.bill_run()");
    script(
        "SELECT billing.invoice_void(number, 'wrong address') FROM billing.invoice WHERE key = 'globex-1/1'",
    );
    script("SELECT billing.invoice_generate('globex-1')");
    script(
        r#"SELECT billing.ingest(json_build_array(json_build_object('customer', k, 'event_id', 'december', 'event_type', 'llm.request', 'occurred_at', '2023-12-01T12:00:00Z',
            'properties', json_build_object('model', 'gpt-4', 'user_id', 'u', 'input_tokens', 5, 'output_tokens', 5)))) FROM unnest('{acme,globex}'::text[]) k"#,
    );
}

/// Everything a restore must keep, as lines of text: the digest of every table's rows, what readers say, what is checked.
fn picture(client: &mut Client) -> Vec<String> {
    let mut lines = Vec::new();
    let tables = client
        .query("SELECT table_name FROM billing_internal.table_kind ORDER BY table_name", &[])
        .expect("tables");
    assert!(tables.len() >= 40, "{} tables", tables.len());
    for table in tables {
        let table: &str = table.get(0);
        let row = client
            .query_one(&format!("SELECT count(*), coalesce(encode(sha256(convert_to(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\"), 'UTF8')), 'hex'), '') FROM {table} t"), &[])
            .unwrap_or_else(|e| panic!("{table}: {e:?}"));
        lines.push(format!("{table}: {} rows {}", row.get::<_, i64>(0), row.get::<_, &str>(1)));
    }
    let questions = [
        "SELECT format('%s %s', m, u::text) FROM unnest('{acme,globex}'::text[]) c, unnest('{tokens,requests,users}'::text[]) m,
            billing.usage(c, m, '2023-11-01Z', '2024-01-01Z', 'day', '{model}') u ORDER BY c, m, u::text",
        "SELECT u::text FROM billing.usage('acme', 'tokens', '2023-11-03 00:10Z', '2023-11-04 07:35Z', NULL, '{user_id}') u ORDER BY u::text",
        "SELECT s::text FROM unnest('{acme,globex}'::text[]) c, billing.spend(c, '2023-11-01Z', '2024-01-01Z', 'month', '{model}') s ORDER BY c, s::text",
        "SELECT i.number || ' ' || i.state || ' ' || i.total || ' ' || l FROM billing.invoice i, billing.invoice_explain(i.key) WITH ORDINALITY x (l, n) ORDER BY i.key, x.n",
        "SELECT i.key || ' ' || r::text FROM billing.invoice i, billing.invoice_recompute(i.key) r WHERE i.state <> 'draft' ORDER BY i.key, r::text",
        "SELECT c || billing.invoice_preview(c)::text FROM unnest('{acme,globex}'::text[]) c ORDER BY 1",
        "SELECT v::text FROM billing.verify('full') v ORDER BY v::text",
        "SELECT f::text FROM billing.fact_invoice_line f ORDER BY f::text",
        "SELECT billing.catalog_export()::text",
        "SELECT billing.now()::text",
    ];
    for question in questions {
        let answers = client.query(question, &[]).unwrap_or_else(|e| panic!("{question}: {e:?}"));
        assert!(!answers.is_empty(), "nothing to compare: {question}");
        lines.extend(answers.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()));
    }
    lines
}

/// Who owns and may do what, with every function's source and settings: what a dump leaves out must come from the script.
fn rights(client: &mut Client) -> Vec<String> {
    client
        .query(
            "SELECT x FROM (
                SELECT format('%s owner %s definer %s acl %s config %s', p.oid::regprocedure, p.proowner::regrole, p.prosecdef,
                    (SELECT string_agg(a::text, ' ' ORDER BY a::text COLLATE \"C\") FROM unnest(p.proacl) a), p.proconfig) AS x
                FROM pg_proc p WHERE p.pronamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace)
                UNION ALL
                SELECT format('%s kind %s owner %s security %s %s acl %s', c.oid::regclass, c.relkind, c.relowner::regrole, c.relrowsecurity, c.relforcerowsecurity,
                    (SELECT string_agg(a::text, ' ' ORDER BY a::text COLLATE \"C\") FROM unnest(c.relacl) a))
                FROM pg_class c WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'i', 'I')
                UNION ALL
                SELECT format('%s.%s acl %s', a.attrelid::regclass, a.attname, a.attacl) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND a.attacl IS NOT NULL
                UNION ALL
                SELECT format('%s %s %s %s', p.schemaname, p.tablename, p.policyname, p.qual) FROM pg_policies p WHERE p.schemaname LIKE 'billing%'
                UNION ALL
                SELECT format('%s owner %s acl %s', n.nspname, n.nspowner::regrole, (SELECT string_agg(a::text, ' ' ORDER BY a::text COLLATE \"C\") FROM unnest(n.nspacl) a))
                FROM pg_namespace n WHERE n.nspname LIKE 'billing%'
                UNION ALL
                SELECT format('%s %s', d.classid::regclass, pg_describe_object(d.classid, d.objid, 0)) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_billing'
                WHERE d.deptype = 'e'
            ) y ORDER BY x COLLATE \"C\"",
            &[],
        )
        .expect("rights")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[track_caller]
fn assert_same(what: &str, before: &[String], after: &[String]) {
    let missing: Vec<_> = before.iter().filter(|line| !after.contains(line)).take(10).collect();
    let added: Vec<_> = after.iter().filter(|line| !before.contains(line)).take(10).collect();
    assert!(missing.is_empty() && added.is_empty(), "{what}\nbefore: {missing:#?}\nafter: {added:#?}");
    assert_eq!(before.len(), after.len(), "{what}");
}

/// Work goes on: another month is ingested, billed, sealed, and checks out.
fn works(db: &Db) {
    let mut client = db.connect();
    let mut script = |sql: &str| client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    script("SELECT billing.test_clock_set('2024-01-20 00:00:00Z')");
    script("SET ROLE billing_app");
    script(
        r#"SELECT billing.ingest_event('acme', 'llm.request', 'after', '2024-01-10 00:00Z', '{"model": "gpt-4", "user_id": "u", "input_tokens": 5, "output_tokens": 5}')"#,
    );
    script(r#"SELECT billing.customer_upsert('{"key": "initech"}')"#);
    script("RESET ROLE");
    script("CALL billing.fold()");
    script("SET ROLE billing_finance");
    script("CALL billing.bill_run()");
    script("CALL billing.audit_seal()");
    script("RESET ROLE");
    let again: String = client
        .query_one(
            r#"SELECT billing.ingest_event('acme', 'llm.request', 'after', '2024-01-10 00:00Z', '{"model": "gpt-4", "user_id": "u", "input_tokens": 5, "output_tokens": 5}')"#,
            &[],
        )
        .expect("ingest again")
        .get(0);
    assert_eq!(again, "duplicate");
    let row = client
        .query_one("SELECT count(*), count(*) FILTER (WHERE number IS NOT NULL) FROM billing.invoice WHERE created_at > (SELECT max(sealed_at) - interval '1 hour' FROM billing.audit_seal)", &[])
        .expect("invoices");
    assert!(row.get::<_, i64>(1) >= 4, "December was billed: {row:?}");
    assert_eq!(db.verify(), Vec::<String>::new());
}

fn migrate(client: &mut Client) -> Vec<(String, String)> {
    let rows = client.query("SELECT step, state FROM billing.migrate()", &[]).expect("migrate");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// A dump's own file, away when the test ends.
struct DumpFile(std::path::PathBuf);

impl DumpFile {
    fn new(name: &str) -> DumpFile {
        let path = std::env::temp_dir().join(format!("pg_billing-{}-{name}", std::process::id()));
        DumpFile(path)
    }
    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for DumpFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn dump(db: &Db, options: &[&str], file: &DumpFile) {
    run(db.program("pg_dump").args(options).arg("-f").arg(file.path()));
}

/// The restored database says what the dumped one said, with migrate() as the only step, and works on.
fn check_restored(
    name: &str,
    options: &[&str],
    target: impl Fn(&str) -> Db,
    restore: impl Fn(&Db, &DumpFile) -> Command,
) {
    let source = Db::fresh(&format!("install_{name}"));
    fill(&source);
    let (before, rights_before) = (picture(&mut source.connect()), rights(&mut source.connect()));
    assert_eq!(source.verify(), Vec::<String>::new());
    let file = DumpFile::new(name);
    dump(&source, options, &file);

    let target = target(&format!("install_{name}_restored"));
    run(&mut restore(&target, &file));
    let steps = migrate(&mut target.connect());
    assert!(steps.iter().all(|(_, state)| state == "kept"), "{steps:?}");
    // The clock is a setting of the database, which pg_dump without --create leaves out.
    target.connect().batch_execute("SELECT billing.test_clock_set('2023-12-02 00:00:00Z')").expect("clock");
    assert_same("rights", &rights_before, &rights(&mut target.connect()));
    assert_same("data", &before, &picture(&mut target.connect()));
    works(&target);
    // What was done there is not here.
    assert_same("source", &before, &picture(&mut source.connect()));
}

fn restore_plain(db: &Db, file: &DumpFile) -> Command {
    let mut psql = db.program("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file.path()]);
    psql
}

fn restore_in_parallel(db: &Db, file: &DumpFile) -> Command {
    let mut restore = db.program("pg_restore");
    restore.args(["-j2", "--exit-on-error", file.path()]);
    restore
}

#[test]
fn a_plain_dump_restores_on_another_server() {
    // Which has none of our roles: the extension's script makes them before the dump needs them.
    let server = Server::spawn("restore");
    check_restored("plain", &["-Fp"], |name| server.empty(name), restore_plain);
}

#[test]
fn a_custom_dump_restores_in_parallel() {
    check_restored("custom", &["-Fc"], Db::empty, restore_in_parallel);
}

#[test]
fn a_directory_dump_restores_in_parallel() {
    check_restored("directory", &["-Fd", "-j2"], Db::empty, restore_in_parallel);
}

#[test]
fn dropping_and_making_the_extension_keeps_every_row() {
    let db = Db::fresh("install_drop");
    fill(&db);
    let (before, rights_before) = (picture(&mut db.connect()), rights(&mut db.connect()));
    let mut client = db.connect();
    // Without CASCADE: nothing stored refers to the extension.
    client.batch_execute("DROP EXTENSION pg_billing").expect("drop");
    let kept: i64 = client.query_one("SELECT count(*) FROM billing.usage_event", &[]).expect("events").get(0);
    assert_eq!(kept, 2002);
    let functions: i64 = client
        .query_one("SELECT count(*) FROM pg_proc WHERE pronamespace = 'billing'::regnamespace", &[])
        .expect("functions")
        .get(0);
    assert_eq!(functions, 0);
    client.batch_execute("CREATE EXTENSION pg_billing").expect("create");
    drop(client);
    let mut client = db.connect();
    for call in
        ["SELECT step, state FROM billing.install('test')", "SELECT step, state FROM billing.migrate()"]
    {
        let steps = client.query(call, &[]).expect(call);
        assert!(steps.iter().all(|row| row.get::<_, &str>(1) == "kept"), "{call}: {steps:?}");
    }
    assert_same("rights", &rights_before, &rights(&mut client));
    assert_same("data", &before, &picture(&mut client));
    drop(client);
    works(&db);
}

#[test]
fn before_install_every_function_says_so() {
    let db = Db::empty("install_before");
    let mut client = db.connect();
    client.batch_execute("CREATE EXTENSION pg_billing").expect("create");
    let wanted = Refusal {
        code: "55000".into(),
        message: "pg_billing's tables are not installed in this database".into(),
        detail: None,
        hint: Some("Run: SELECT * FROM billing.install();".into()),
    };
    // Every function people call with arguments but for the ones that need no table: they take what they are given.
    let calls = client
        .query(
            "SELECT format(CASE WHEN p.prokind = 'p' THEN 'CALL %s.%I(%s)' ELSE 'SELECT * FROM %s.%I(%s)' END, p.pronamespace::regnamespace, p.proname,
                (SELECT string_agg(format('%s => %s::%s', quote_ident(n), CASE WHEN t = 'regclass'::regtype THEN '''pg_class''' ELSE 'NULL' END, t::regtype), ', ')
                 FROM unnest(p.proargtypes::oid[], p.proargnames[1:p.pronargs]) x (t, n)))
            FROM pg_proc p WHERE p.pronamespace = 'billing'::regnamespace AND p.prokind IN ('f', 'p') AND NOT p.proisstrict
                AND p.proname NOT IN ('install', 'now', 'catalog_example', 'rate_explain') AND p.oid <> 'billing.invoice_explain(jsonb)'::regprocedure
            ORDER BY 1",
            &[],
        )
        .expect("functions");
    assert!(calls.len() >= 25, "{}", calls.len());
    for call in calls {
        let call: String = call.get(0);
        assert_eq!(refusal(client.batch_execute(&call)), wanted, "{call}");
    }
    let strict = "SELECT billing.allocate('1.00 USD', '{1,1,1}')";
    assert_eq!(refusal(client.batch_execute(strict)), wanted, "{strict}");
}

#[test]
fn only_a_superuser_installs() {
    let db = Db::empty("install_rights");
    let mut client = db.connect();
    client
        .batch_execute("DROP ROLE IF EXISTS client_dba; CREATE ROLE client_dba LOGIN CREATEROLE CREATEDB")
        .expect("role");
    client.batch_execute(&format!("GRANT ALL ON DATABASE {} TO client_dba", db.name)).expect("grant");
    let mut dba = db.connect_as("client_dba");
    let create = refusal(dba.batch_execute("CREATE EXTENSION pg_billing"));
    assert_eq!(
        (create.code.as_str(), create.hint.as_deref()),
        ("42501", Some("Must be superuser to create this extension."))
    );
    client.batch_execute("CREATE EXTENSION pg_billing").expect("create");
    for role in ["client_dba", "billing_owner", "billing_admin", "billing_customer"] {
        let mut who = db.connect_as(role);
        for call in [
            "SELECT * FROM billing.install()",
            "SELECT * FROM billing.install('test')",
            "SELECT * FROM billing.migrate()",
        ] {
            assert_eq!(
                refusal(who.batch_execute(call)),
                Refusal {
                    code: "42501".into(),
                    message: format!("{role} can't install pg_billing's tables"),
                    detail: None,
                    hint: Some("Run it as a superuser: the tables are made for the role billing_owner, and btree_gist is created if it is missing.".into()),
                },
                "{role}: {call}"
            );
        }
        // Nor by what stands behind it.
        assert_eq!(
            refusal(who.batch_execute("SELECT * FROM billing_internal.migrate_schema('live')")).code,
            "42501",
            "{role}"
        );
    }
    let tables: i64 = client
        .query_one("SELECT count(*) FROM pg_class WHERE relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND relkind IN ('r', 'p')", &[])
        .expect("tables")
        .get(0);
    assert_eq!(tables, 0);
    drop(dba);
    client.batch_execute("DROP OWNED BY client_dba; DROP ROLE client_dba").expect("drop role");
}

/// What CREATE EXTENSION says of a database in which `before` was run; nothing of the attempt stays.
fn refused_ground(db: &Db, before: &str) -> (String, String) {
    let mut client = db.connect();
    client.batch_execute(before).unwrap_or_else(|e| panic!("{before}: {e:?}"));
    let said = refusal(client.batch_execute("CREATE EXTENSION pg_billing"));
    assert!(said.hint.is_some(), "{said:?}");
    (said.code, said.message)
}

#[test]
fn a_schema_of_somebody_else_is_not_taken_over() {
    let db = Db::empty("install_squatter");
    let mut client = db.connect();
    client
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS client_squatter; CREATE ROLE client_squatter LOGIN; GRANT CREATE ON DATABASE {} TO client_squatter",
            db.name
        ))
        .expect("role");
    // What the squatter would have the superuser run: in its place, or while the extension is made.
    let traps = "CREATE TABLE public.trapped (what text);
        CREATE FUNCTION {S}.format(text, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.trapped VALUES ('format'); RETURN pg_catalog.format($1, $2); END$$;
        CREATE FUNCTION {S}.customer_upsert(doc text) RETURNS text LANGUAGE sql AS $$SELECT 'mine'$$;";
    for schema in ["billing", "billing_internal"] {
        let mut squatter = db.connect_as("client_squatter");
        client.batch_execute("GRANT CREATE ON SCHEMA public TO client_squatter").expect("grant");
        squatter.batch_execute(&format!("CREATE SCHEMA {schema}")).expect("schema");
        squatter.batch_execute(&traps.replace("{S}", schema)).expect("traps");
        let owned = format!("the schema {schema} belongs to client_squatter, who is no superuser");
        assert_eq!(refused_ground(&db, ""), ("42501".into(), owned));
        // Taken from the squatter, but still with what the squatter put there, and may put there.
        squatter
            .batch_execute(&format!("GRANT CREATE ON SCHEMA {schema} TO client_squatter"))
            .expect("grant");
        let (code, said) = refused_ground(&db, &format!("ALTER SCHEMA {schema} OWNER TO CURRENT_USER"));
        assert_eq!(code, "42501");
        if said != format!("client_squatter may create objects in the schema {schema}") {
            assert!(said.ends_with("belongs to client_squatter, who is no superuser"), "{said}");
        }
        let (code, said) =
            refused_ground(&db, &format!("REVOKE CREATE ON SCHEMA {schema} FROM client_squatter"));
        assert_eq!(code, "42501");
        assert_eq!(
            said,
            format!(
                "function {schema}.customer_upsert(text) belongs to client_squatter, who is no superuser"
            )
        );
        let trapped: i64 =
            client.query_one("SELECT count(*) FROM public.trapped", &[]).expect("trapped").get(0);
        assert_eq!(trapped, 0, "something of the squatter was run as a superuser");
        client.batch_execute("DROP TABLE public.trapped").expect("drop");
        client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).expect("drop");
    }
    client.batch_execute("DROP OWNED BY client_squatter; DROP ROLE client_squatter").expect("drop");
    // A superuser's schema is as good as one that is made.
    client
        .batch_execute("CREATE SCHEMA billing; CREATE SCHEMA billing_internal; CREATE EXTENSION pg_billing; SELECT billing.install()")
        .expect("create and install");
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn roles_of_somebody_else_are_not_taken_over() {
    // Roles belong to the server: this needs one of its own.
    let server = Server::spawn("roles");
    let db = server.empty("install_roles");
    let mut client = db.connect();
    client.batch_execute("CREATE ROLE mallory LOGIN CREATEROLE").expect("role");
    for (before, after, wanted) in [
        ("CREATE ROLE billing_owner LOGIN", "DROP ROLE billing_owner", "the role billing_owner may log in"),
        (
            "CREATE ROLE billing_engine LOGIN BYPASSRLS",
            "DROP ROLE billing_engine",
            "the role billing_engine may bypass row security",
        ),
        (
            "CREATE ROLE billing_owner SUPERUSER",
            "DROP ROLE billing_owner",
            "the role billing_owner may do everything",
        ),
        (
            "CREATE ROLE billing_customer CREATEROLE",
            "DROP ROLE billing_customer",
            "the role billing_customer may make roles",
        ),
        (
            "CREATE ROLE billing_engine ROLE mallory",
            "DROP ROLE billing_engine",
            "mallory is a member of billing_engine",
        ),
        (
            "CREATE ROLE billing_owner ADMIN mallory",
            "DROP ROLE billing_owner",
            "mallory is a member of billing_owner",
        ),
    ] {
        assert_eq!(refused_ground(&db, before), ("42501".into(), wanted.into()), "{before}");
        client.batch_execute(after).expect(after);
    }
    // Those of an installation in another database are taken as they are.
    client.batch_execute("CREATE EXTENSION pg_billing; SELECT billing.install('test')").expect("install");
    let other = server.fresh("install_roles_again");
    assert_eq!(other.verify(), Vec::<String>::new());
    // What becomes of them later, install() and migrate() refuse and verify() shows.
    client.batch_execute("GRANT billing_owner TO mallory").expect("grant");
    for call in ["SELECT billing.install('test')", "SELECT billing.migrate()"] {
        let said = refusal(client.batch_execute(call));
        assert_eq!(
            (said.code.as_str(), said.message.as_str()),
            ("42501", "mallory is a member of billing_owner")
        );
        assert_eq!(
            said.hint.as_deref(),
            Some("REVOKE billing_owner FROM mallory; nobody acts as this role.")
        );
    }
    assert_eq!(
        db.verify(),
        ["security: schemas and roles are ours alone: 1 (mallory is a member of billing_owner)"]
    );
}

#[test]
fn a_login_speaks_for_its_customer_after_a_restore_only_when_told_again() {
    let source = Db::fresh("install_logins");
    let mut client = source.connect();
    client
        .batch_execute("DROP ROLE IF EXISTS client_acme; CREATE ROLE client_acme LOGIN IN ROLE billing_customer; SELECT billing.customer_upsert('{\"key\": \"acme\"}');
            SELECT billing.customer_login_add('acme', 'client_acme')")
        .expect("login");
    let sees = |db: &Db| -> i64 {
        db.connect_as("client_acme")
            .query_one("SELECT count(*) FROM billing.customer", &[])
            .expect("customers")
            .get(0)
    };
    assert_eq!(sees(&source), 1);
    let file = DumpFile::new("logins");
    dump(&source, &["-Fp"], &file);
    // On this server it is the same role.
    let here = Db::empty("install_logins_here");
    run(&mut restore_plain(&here, &file));
    assert_eq!((sees(&here), here.verify()), (1, vec![]));
    // On another one, somebody else may bear the name.
    let server = Server::spawn("logins");
    let there = server.empty("install_logins_there");
    run(&mut restore_plain(&there, &file));
    let mut admin = there.connect();
    admin
        .batch_execute("CREATE ROLE shifts_the_oids; CREATE ROLE client_acme LOGIN IN ROLE billing_customer")
        .expect("role");
    admin.batch_execute("SELECT billing.migrate()").expect("migrate");
    assert_eq!(sees(&there), 0);
    assert_eq!(
        there.verify(),
        ["security: logins are the roles they were given to: 1 (client_acme of customer acme)"]
    );
    admin.batch_execute("SELECT billing.customer_login_add('acme', 'client_acme')").expect("again");
    assert_eq!((sees(&there), there.verify()), (1, vec![]));
    drop((here, there));
    client.batch_execute("DROP OWNED BY client_acme; DROP ROLE client_acme").expect("drop role");
}

/// SECURITY.md's statements against a login that takes our advisory locks, as they stand there.
#[test]
fn advisory_locks_can_be_kept_from_logins() {
    let text = std::fs::read_to_string(common::checkout().join("SECURITY.md")).expect("SECURITY.md");
    let statements =
        text.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of SQL");
    let db = Db::fresh("install_locks");
    let mut client = db.connect();
    client
        .batch_execute(
            "DROP ROLE IF EXISTS client_locker; CREATE ROLE client_locker LOGIN IN ROLE billing_customer",
        )
        .expect("role");
    let mut locker = db.connect_as("client_locker");
    let calls = ["", "try_"].map(|how| {
        ["", "xact_"].map(|until| {
            ["", "_shared"].map(|mode| format!("SELECT pg_{how}advisory_{until}lock{mode}(1651076199, 0)"))
        })
    });
    let mut refused = 0;
    locker.batch_execute(&calls[0][0][0]).expect("before, it may");
    locker.batch_execute("SELECT pg_advisory_unlock_all()").expect("unlock");
    client.batch_execute(statements).expect("SECURITY.md");
    for call in calls.iter().flatten().flatten() {
        let said = refusal(locker.batch_execute(call));
        assert_eq!(said.code, "42501", "{call}");
        refused += 1;
    }
    assert_eq!(refused, 8);
    // We go on, and a dump keeps it so.
    fill(&db);
    works(&db);
    let file = DumpFile::new("locks");
    dump(&db, &["-Fp"], &file);
    let restored = Db::empty("install_locks_restored");
    run(&mut restore_plain(&restored, &file));
    assert_eq!(refusal(restored.connect_as("client_locker").batch_execute(&calls[0][0][0])).code, "42501");
    drop((locker, restored));
    client.batch_execute("DROP OWNED BY client_locker; DROP ROLE client_locker").expect("drop role");
}

#[test]
fn migrations_carry_checksums() {
    let db = Db::empty("install_checksums");
    let mut client = db.connect();
    client.batch_execute("CREATE EXTENSION pg_billing").expect("create");
    let said = refusal(client.batch_execute("SELECT * FROM billing.migrate()"));
    assert_eq!(
        (said.code.as_str(), said.hint.as_deref()),
        ("55000", Some("Run: SELECT * FROM billing.install();"))
    );
    let said = refusal(client.batch_execute("SELECT * FROM billing.install('staging')"));
    assert_eq!((said.code.as_str(), said.hint.as_deref()), ("ZB004", Some("Use live or test.")));

    let steps = client.query("SELECT step, state FROM billing.install('test')", &[]).expect("install");
    let steps: Vec<(String, String)> = steps.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(steps[0], ("btree_gist".into(), "created".into()));
    assert!(steps[1..].iter().all(|(_, state)| state == "applied"), "{steps:?}");
    let files: Vec<String> = std::fs::read_dir(common::checkout().join("sql/schema"))
        .expect("sql/schema")
        .flatten()
        .map(|file| file.path().file_stem().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    assert_eq!(steps.len() - 1, files.len());
    assert!(steps[1..].iter().all(|(step, _)| files.contains(step)), "{steps:?} {files:?}");

    // Again: nothing changes, not even a time stamp.
    let stamp = "SELECT (SELECT string_agg(m::text, ',' ORDER BY m.version) FROM billing.schema_migration m) || (SELECT i::text FROM billing.installation i)
        || (SELECT s::text FROM billing.seller s)";
    let before: String = client.query_one(stamp, &[]).expect("stamp").get(0);
    for call in ["SELECT * FROM billing.install('test')", "SELECT * FROM billing.migrate()"] {
        let steps = client.query(call, &[]).expect(call);
        assert_eq!(steps.len(), files.len(), "{call}");
        assert!(steps.iter().all(|row| row.get::<_, &str>(1) == "kept"), "{call}: {steps:?}");
        assert_eq!(client.query_one(stamp, &[]).expect("stamp").get::<_, String>(0), before, "{call}");
    }
    let said = refusal(client.batch_execute("SELECT * FROM billing.install('live')"));
    assert_eq!(
        (said.code.as_str(), said.message.as_str()),
        ("55000", "this installation is test and stays so")
    );

    // The recorded checksum of another file.
    let mine: String = client
        .query_one("SELECT sha256 FROM billing.schema_migration WHERE version = 3", &[])
        .expect("sha256")
        .get(0);
    let other = "0".repeat(64);
    client
        .execute("UPDATE billing.schema_migration SET sha256 = $1 WHERE version = 3", &[&other])
        .expect("tamper");
    for call in ["SELECT * FROM billing.install('test')", "SELECT * FROM billing.migrate()"] {
        assert_eq!(
            refusal(client.batch_execute(call)),
            Refusal {
                code: "55000".into(),
                message: "the schema file 0003_metering is not the one that was applied to this database"
                    .into(),
                detail: Some(format!("applied {other}, in this library {mine}")),
                hint: Some(
                    "Install the library that belongs to this database, then upgrade from there.".into()
                ),
            },
            "{call}"
        );
    }
    client
        .execute("UPDATE billing.schema_migration SET sha256 = $1 WHERE version = 3", &[&mine])
        .expect("mend");
    assert!(migrate(&mut client).iter().all(|(_, state)| state == "kept"));

    // Tables of another version: every function names the command that helps, in a new session.
    client
        .batch_execute("UPDATE billing.installation SET schema_version = schema_version - 1")
        .expect("older");
    let said = refusal(db.connect().batch_execute("SELECT * FROM billing.verify()"));
    assert_eq!(
        (said.code.as_str(), said.hint.as_deref()),
        ("55000", Some("Run: SELECT * FROM billing.migrate();"))
    );
    migrate(&mut client);
    assert_eq!(db.verify(), Vec::<String>::new());

    // Tables of a newer library are not taken for older ones.
    client
        .batch_execute(
            "INSERT INTO billing.schema_migration SELECT max(version) + 1, 'from_the_future', repeat('0', 64), now() FROM billing.schema_migration;
            UPDATE billing.installation SET schema_version = schema_version + 1",
        )
        .expect("newer");
    let said = refusal(client.batch_execute("SELECT * FROM billing.migrate()"));
    assert_eq!(said.code, "55000");
    assert_eq!(
        said.message,
        "this database has schema files that this library does not know: from_the_future"
    );
    assert!(said.hint.is_some());
}

#[test]
fn sessions_that_install_at_once_make_one_installation() {
    let db = Db::empty("install_at_once");
    db.connect().batch_execute("CREATE EXTENSION pg_billing").expect("create");
    let states: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let mut client = db.connect();
                // install() and migrate() are one walk; whoever comes later finds everything made.
                let call = if n == 0 { "install('test')" } else { ["install('test')", "migrate()"][n % 2] };
                scope.spawn(move || {
                    loop {
                        match client.query(&format!("SELECT state FROM billing.{call}"), &[]) {
                            Ok(rows) => return rows.iter().map(|row| row.get(0)).collect(),
                            // migrate() before anybody has begun to install
                            Err(error) if call == "migrate()" => {
                                let said = refusal::<()>(Err(error));
                                assert_eq!(
                                    said.message,
                                    "pg_billing's tables are not installed in this database"
                                );
                            }
                            Err(error) => panic!("{call}: {error:?}"),
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("thread")).collect()
    });
    let applied = |states: &Vec<String>| states.iter().any(|state| state != "kept");
    assert_eq!(states.iter().filter(|states| applied(states)).count(), 1, "{states:?}");
    let mut client = db.connect();
    let sellers: i64 = client.query_one("SELECT count(*) FROM billing.seller", &[]).expect("sellers").get(0);
    assert_eq!(sellers, 1);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn the_control_file_and_the_library_agree() {
    let db = Db::fresh("install_version");
    let version: String = db
        .connect()
        .query_one("SELECT extversion FROM pg_extension WHERE extname = 'pg_billing'", &[])
        .expect("version")
        .get(0);
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let output = run(pg_program("pg_config").arg("--pkglibdir"));
    let lib = String::from_utf8_lossy(&output.stdout);
    assert!(std::path::Path::new(lib.trim()).join("pg_billing.so").exists());
}

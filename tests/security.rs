//! Who gets at what, as a matrix made from the catalogues: every function × every kind of name and id of another
//! customer, every relation × every way in, every role × every right. What is added later is covered without a line
//! here, or the test names it.
//!
//! acme and globex have the same data; everything of globex says so or holds one of [`SECRETS`]. As acme's login each call
//! about globex must answer as it does about somebody who is not there, and nothing of globex may stand in any answer,
//! message, detail, hint or statistic.

mod common;

use common::Db;
use postgres::{Client, SimpleQueryMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// What only globex's rows hold: in texts and, as numbers that are nobody else's, as price, usage and id.
const SECRETS: [&str; 6] = ["globex", "Globex", "GLOBEX", "0.0271828", "314159", "777000001"];

const LOGINS: [&str; 3] = ["security_acme", "security_nobody", "security_stranger"];

/// Logins belong to the server: one test at a time has them.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn prepare(db: &Db) -> Client {
    let mut client = db.connect();
    for login in LOGINS.iter().chain(&["security_globex"]) {
        let membership = if *login == "security_stranger" { "" } else { "IN ROLE billing_customer" };
        client
            .batch_execute(&format!("DROP ROLE IF EXISTS {login}; CREATE ROLE {login} LOGIN {membership}"))
            .expect("a login");
    }
    client
        .batch_execute(
            r#"SELECT billing.test_clock_set('2023-11-20 00:00:00Z');
            SELECT billing.catalog_apply(billing.catalog_example('llm-api'));
            SELECT billing.catalog_apply('{"meters": [{"key": "users", "event_type": "llm.request", "aggregation": "unique_count", "value": "user_id"}]}');
            SELECT billing.customer_upsert(jsonb_build_object('key', k, 'name', initcap(k), 'aliases', jsonb_build_array(k || '-inc'), 'attributes', jsonb_build_object('segment', k),
                'bill_tos', jsonb_build_array(jsonb_build_object('key', k, 'name', 'Unit of ' || k)),
                'contacts', jsonb_build_array(jsonb_build_object('role', 'billing', 'name', 'Bill of ' || k, 'email', 'bill@' || k || '.example')),
                'overrides', jsonb_build_array(jsonb_build_object('meter', 'tokens', 'match', jsonb_build_object('model', 'gpt-4'), 'unit_price', price))))
            FROM (VALUES ('acme', '0.02')) v (k, price);
            UPDATE billing_internal.counter SET value = 777000000 WHERE name = 'customer_id';
            SELECT billing.customer_upsert(jsonb_build_object('key', k, 'name', initcap(k), 'aliases', jsonb_build_array(k || '-inc'), 'attributes', jsonb_build_object('segment', k),
                'bill_tos', jsonb_build_array(jsonb_build_object('key', k, 'name', 'Unit of ' || k)),
                'contacts', jsonb_build_array(jsonb_build_object('role', 'billing', 'name', 'Bill of ' || k, 'email', 'bill@' || k || '.example')),
                'overrides', jsonb_build_array(jsonb_build_object('meter', 'tokens', 'match', jsonb_build_object('model', 'gpt-4'), 'unit_price', price))))
            FROM (VALUES ('globex', '0.0271828')) v (k, price);
            SELECT billing.customer_login_add('acme', 'security_acme'), billing.customer_login_add('globex', 'security_globex');
            SELECT billing.subscribe(k, 'pro', '2023-11-01') FROM unnest('{acme,globex}'::text[]) k;
            SELECT billing.policy_set('rounding_mode', 'half_even', 'contract:' || k || '-1', 'asked by ' || k) FROM unnest('{acme,globex}'::text[]) k;
            SELECT billing.ingest_event(k, 'llm.request', k || n, '2023-11-16 00:00Z'::timestamptz + n * interval '1 hour',
                jsonb_build_object('model', 'gpt-4', 'user_id', k || n, 'input_tokens', tokens, 'output_tokens', 10, 'tag', k), NULL)
            FROM (VALUES ('acme', 1000), ('globex', 314159)) v (k, tokens), generate_series(1, 3) n;"#,
        )
        .expect("two customers");
    client.batch_execute("CALL billing.fold()").expect("fold");
    client.batch_execute("SELECT billing.test_clock_set('2023-12-01 00:00:00Z')").expect("the clock");
    client.batch_execute("CALL billing.bill_run()").expect("a run");
    client
        .batch_execute(
            r#"SELECT billing.ingest_event(k, 'llm.request', k || '4', '2023-12-01 00:00Z', jsonb_build_object('model', 'gpt-4', 'user_id', k, 'input_tokens', tokens, 'output_tokens', 10), NULL)
            FROM (VALUES ('acme', 1000), ('globex', 314159)) v (k, tokens);
            SELECT billing_internal.usage_window_keep(c.customer_id, m.meter_id, '2023-11-01Z', '2023-12-01Z') FROM billing.customer c, billing.meter m WHERE m.key = 'tokens';
            SELECT billing.contract_create(jsonb_build_object('key', k || '-draft', 'customer', k, 'starts_on', '2024-01-01', 'plan', 'pro')) FROM unnest('{acme,globex}'::text[]) k;
            SELECT billing.ingest(json_build_array(json_build_object('customer', 'globex', 'event_id', 'globex-bad', 'event_type', 'llm.request', 'occurred_at', 'never')));
            ANALYZE;"#,
        )
        .expect("more of both");
    client
}

/// The names and ids of a customer, by what they are: text, number, uuid.
struct Names {
    texts: Vec<String>,
    numbers: Vec<String>,
    uuids: Vec<String>,
    document: String,
}

fn column(client: &mut Client, query: &str) -> Vec<String> {
    client.query(query, &[]).unwrap_or_else(|e| panic!("{query}: {e}")).iter().map(|row| row.get(0)).collect()
}

fn names_of(client: &mut Client, key: &str) -> Names {
    let of = format!("(SELECT customer_id FROM billing.customer WHERE key = '{key}')");
    Names {
        texts: column(
            client,
            &format!(
                "SELECT '{key}' UNION ALL SELECT '{key}-inc' UNION ALL SELECT '{key}1' UNION ALL SELECT customer_id::text FROM billing.customer WHERE key = '{key}'
                 UNION ALL SELECT key FROM billing.contract WHERE customer_id = {of} UNION ALL SELECT contract_id::text FROM billing.contract WHERE customer_id = {of}
                 UNION ALL SELECT number FROM billing.invoice WHERE customer_id = {of} AND number IS NOT NULL UNION ALL SELECT key FROM billing.invoice WHERE customer_id = {of}
                 UNION ALL SELECT invoice_id::text FROM billing.invoice WHERE customer_id = {of}"
            ),
        ),
        numbers: column(client, &format!("SELECT {of}::text")),
        uuids: column(
            client,
            &format!(
                "SELECT contract_id::text FROM billing.contract WHERE customer_id = {of} UNION ALL SELECT invoice_id::text FROM billing.invoice WHERE customer_id = {of}
                 UNION ALL SELECT event_key::text FROM billing.usage_event_key WHERE customer_id = {of} UNION ALL SELECT audit_id::text FROM billing.audit_log WHERE customer_id = {of}
                 UNION ALL SELECT job_run_id::text FROM billing.job_run"
            ),
        ),
        document: format!(r#"{{"key": "{key}", "customer": "{key}", "name": "x", "lines": []}}"#),
    }
}

/// Names that nobody bears, one for each of `like`.
fn names_of_nobody(like: &Names) -> Names {
    let uuid = |n: usize| format!("00000000-0000-7000-8000-{n:012}");
    let is_uuid = |text: &str| text.len() == 36 && text.matches('-').count() == 4;
    Names {
        texts: like
            .texts
            .iter()
            .enumerate()
            .map(|(n, text)| match text {
                text if is_uuid(text) => uuid(n),
                text if text.bytes().all(|b| b.is_ascii_digit()) => "777000009".to_owned(),
                _ => format!("absent{n}"),
            })
            .collect(),
        numbers: like.numbers.iter().map(|_| "777000009".to_owned()).collect(),
        uuids: (0..like.uuids.len()).map(uuid).collect(),
        document: like.document.replace("globex", "absent0"),
    }
}

struct Function {
    /// With its schema, quoted.
    name: String,
    signature: String,
    procedure: bool,
    /// Whether Postgres takes it for a function of its arguments, which reads no tables.
    pure: bool,
    /// Name (may be empty) and type of each argument of a call, and whether it has a default.
    arguments: Vec<(String, String, bool)>,
}

/// Every function and procedure of our schemas that SQL can call.
fn functions(client: &mut Client) -> Vec<Function> {
    client
        .query(
            "SELECT format('%I.%I', n.nspname, p.proname), p.oid::regprocedure::text, p.prokind = 'p',
                coalesce(p.proargnames[1:p.pronargs], '{}'), ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a (t, i) ORDER BY i), (p.pronargs - p.pronargdefaults)::int, p.provolatile = 'i'
             FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname IN ('billing', 'billing_internal') AND p.prokind IN ('f', 'p')
                AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' AND e.extname <> 'pg_billing')
             ORDER BY 2",
            &[],
        )
        .expect("functions")
        .iter()
        .map(|row| {
            let names: Vec<Option<String>> = row.get(3);
            let types: Vec<String> = row.get(4);
            let required: i32 = row.get(5);
            let argument = |(n, of_type): (usize, &String)| {
                (names.get(n).cloned().flatten().unwrap_or_default(), of_type.clone(), n as i32 >= required)
            };
            Function {
                name: row.get(0),
                signature: row.get(1),
                procedure: row.get(2),
                pure: row.get(6),
                arguments: types.iter().enumerate().map(argument).collect(),
            }
        })
        .collect()
}

/// What an argument gets that names nobody, by its name or its type; `None` where SQL can't write such a value.
fn plain_value(name: &str, of_type: &str) -> Option<String> {
    let by_name = match name {
        _ if of_type.ends_with("[]") => "",
        "from_at" | "since" => "2023-11-01Z",
        "until_at" | "as_of" | "recorded_until" => "2024-01-01Z",
        "grain" => "day",
        "meter" => "tokens",
        "line_key" => "tokens/2023-11-01/model=gpt-4",
        "zone" | "time_zone" => "UTC",
        "plan" => "pro",
        "format" => "native",
        "mode" => "test",
        "scope" => "full",
        "currency" => "USD",
        "definition" => r#"{"key":"tokens","event_type":"llm.request","aggregation":"count"}"#,
        "pricing" if of_type == "text" => r#"{"model":"flat","amount":"1"}"#,
        "dry_run" => "true",
        _ => "",
    };
    if !by_name.is_empty() {
        return Some(by_name.to_owned());
    }
    Some(
        match of_type {
            "timestamp with time zone" => "2023-11-16Z",
            "date" => "2023-11-16",
            "interval" => "1 s",
            "integer" | "smallint" | "numeric" => "1",
            "boolean" => "false",
            "billing.money" => "1 USD",
            "billing.pricing" => r#"{"model":"flat","amount":"1"}"#,
            "bytea" => "",
            "regclass" => "billing.customer",
            "oid" => "1",
            "\"char\"" => "x",
            "billing_internal.bill_ref" => "(,,,,,,,)",
            other if other.ends_with("[]") => "{}",
            _ => return None,
        }
        .to_owned(),
    )
}

/// The calls of a function about these names: each argument that may hold one gets each of them, all arguments of its
/// kind at once. `None` where a type has no value of SQL.
fn calls(f: &Function, names: &Names) -> Option<Vec<String>> {
    let most = names.texts.len().max(names.uuids.len());
    let mut calls = Vec::new();
    for n in 0..most {
        let mut written = Vec::new();
        for (name, of_type, _) in &f.arguments {
            let pick = |of: &Vec<String>| of[n % of.len()].clone();
            let fixed = plain_value(name, of_type);
            let value = match of_type.as_str() {
                "text" | "name" | "character varying" if fixed.is_none() => pick(&names.texts),
                "bigint" => pick(&names.numbers),
                "uuid" => pick(&names.uuids),
                "jsonb" | "json" => names.document.clone(),
                "text[]" | "name[]" => format!("{{{}}}", pick(&names.texts)),
                "bigint[]" => format!("{{{}}}", pick(&names.numbers)),
                "uuid[]" => format!("{{{}}}", pick(&names.uuids)),
                "jsonb[]" => "{}".to_owned(),
                _ => fixed?,
            };
            let literal = format!("'{}'::{of_type}", value.replace('\'', "''"));
            written.push(if name.is_empty() { literal } else { format!("\"{name}\" => {literal}") });
        }
        let call = format!("{}({})", f.name, written.join(", "));
        let call = if f.procedure { format!("CALL {call}") } else { format!("SELECT t::text FROM {call} t") };
        if calls.last() != Some(&call) {
            calls.push(call);
        }
    }
    Some(calls)
}

/// What a statement answers: rows, or the error with all it says. Nothing of it stays.
fn answer(client: &mut Client, statement: &str) -> (String, bool) {
    let written = "SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid)), 0)::text
        FROM pg_class c WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'billing%') AND c.relkind = 'r'";
    client.batch_execute("BEGIN; SET LOCAL statement_timeout = '20s'").expect("begin");
    let said = match client.simple_query(statement) {
        Ok(messages) => {
            let rows: Vec<String> = messages
                .iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
                    _ => None,
                })
                .collect();
            let wrote = client.query_one(written, &[]).expect("statistics").get::<_, String>(0) != "0";
            client.batch_execute("ROLLBACK").expect("rollback");
            return (format!("{} rows\n{}", rows.len(), rows.join("\n")), wrote);
        }
        Err(error) => {
            // Not an error of the server: it went away, or waits for rows to copy.
            let e = error.as_db_error().unwrap_or_else(|| panic!("{statement} is let in: {error:?}"));
            // Machinery called with what no caller of ours gives it may say that it is broken.
            let internal = statement.contains(" billing_internal.");
            let code = e.code().code();
            assert!(
                code != "57014" && (internal || !code.starts_with("XX")),
                "{statement}: {code} {}",
                e.message()
            );
            format!("{} {}\n{:?}\n{:?}\n{:?}", e.code().code(), e.message(), e.detail(), e.hint(), e.where_())
        }
    };
    client.batch_execute("ROLLBACK").expect("rollback");
    (said, false)
}

/// The answer with what was asked for, and what is new in every call, taken out.
fn without(said: &str, names: &Names) -> String {
    let mut said = said.to_owned();
    let mut asked: Vec<&String> = names.texts.iter().chain(&names.uuids).chain(&names.numbers).collect();
    asked.sort_by_key(|name| std::cmp::Reverse(name.len()));
    said = said.replace(&names.document, "<it>");
    for name in asked {
        // Postgres says some names in lower case.
        said = said.replace(name.as_str(), "<it>").replace(&name.to_lowercase(), "<it>");
    }
    said
}

/// All but the last line of an error: where in our code it was raised says nothing about anybody.
fn heard(shown: &str) -> &str {
    shown
        .rsplit_once('\n')
        .map_or(shown, |(heard, last)| if last.contains("PL/pgSQL") { heard } else { shown })
}

fn leaked(said: &str) -> Vec<&'static str> {
    SECRETS.into_iter().filter(|secret| said.contains(secret)).collect()
}

/// Functions whose answers differ for reasons of their own: the clock, and a hash of what is passed.
const DIFFERS: [&str; 5] = [
    "billing.now()",
    "billing_internal.first_id(timestamp with time zone)",
    "billing_internal.audit_hash(uuid,timestamp with time zone,text,text,text,text,bigint,jsonb,jsonb,text,bytea,bytea)",
    // They calculate with instants and read nothing.
    "billing_internal.credit_after(timestamp with time zone,text,text)",
    "billing_internal.credit_moment(text,text)",
];

/// What is wrong with functions, which have no case, and how many answered.
struct Asked {
    faults: Vec<String>,
    no_case: BTreeSet<String>,
    answered: usize,
}

fn ask_all(db: &Db, functions: &[Function], globex: &Names) -> Asked {
    let nobody = names_of_nobody(globex);
    let (mut faults, mut no_case, mut asked, mut answered) =
        (Vec::new(), BTreeSet::new(), 0, BTreeSet::new());

    for login in LOGINS {
        let mut client = db.connect_as(login);
        for f in functions {
            let (Some(about_globex), Some(about_nobody)) = (calls(f, globex), calls(f, &nobody)) else {
                no_case.insert(f.signature.clone());
                continue;
            };
            // Without rights one call says all there is to hear.
            let mut refused = false;
            let before = faults.len();
            for (call, twin) in about_globex.iter().zip(&about_nobody) {
                let (said, wrote) = answer(&mut client, call);
                asked += 1;
                if said.starts_with("22P02 malformed") {
                    no_case.insert(f.signature.clone());
                }
                if wrote {
                    faults.push(format!("{login}: {call} wrote"));
                }
                let shown = without(&said, globex);
                if !leaked(&shown).is_empty() {
                    faults.push(format!("{login}: {call} tells {:?}: {shown}", leaked(&shown)));
                }
                if said.starts_with("42501") || faults.len() > before {
                    refused = said.starts_with("42501");
                    break;
                }
                answered.insert((login, f.signature.as_str()));
                if !f.pure && !DIFFERS.contains(&f.signature.as_str()) {
                    let of_nobody = without(&answer(&mut client, twin).0, &nobody);
                    if heard(&shown) != heard(&of_nobody) {
                        faults.push(format!("{login}: {call} says\n{shown}\nbut about nobody\n{of_nobody}"));
                    }
                }
            }
            // A login that is no customer's gets past the door of install() and migrate() only, which say who may.
            if login == "security_stranger" && !refused && !f.arguments.is_empty() {
                faults.push(format!("{login} may call {}", f.signature));
            }
        }
    }
    println!(
        "{} functions, {asked} calls, {} of a login and a function answered",
        functions.len(),
        answered.len()
    );
    Asked { faults, no_case, answered: answered.len() }
}

#[test]
fn functions_tell_nobody_about_others_and_write_nothing_for_them() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let db = Db::fresh("security_functions");
    let mut admin = prepare(&db);
    let globex = names_of(&mut admin, "globex");
    let all = functions(&mut admin);
    assert!(all.len() > 150, "{} functions", all.len());
    let mut found = ask_all(&db, &all, &globex);
    assert_eq!(found.faults, Vec::<String>::new());
    // No SQL writes a value of these types: they are called by Postgres itself.
    let unwritable = ["internal", "\"any\"", "cstring", "anyelement"];
    found.no_case.retain(|signature| !unwritable.iter().any(|of_type| signature.contains(of_type)));
    assert_eq!(
        found.no_case,
        BTreeSet::new(),
        "functions without a case: teach plain_value() their arguments"
    );
    // About itself acme hears something, or all of this would prove nothing.
    assert!(found.answered > 100, "only {} functions answered", found.answered);
    let own = "SELECT t::text FROM billing.usage('acme', 'tokens', '2023-11-01Z', '2024-01-01Z') t";
    let said = answer(&mut db.connect_as("security_acme"), own).0;
    assert!(said.starts_with("1 rows"), "{said}");
    // And functions that tell, or write, are found.
    admin
        .batch_execute(
            "CREATE FUNCTION billing.oracle(customer text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT EXISTS (SELECT FROM billing.customer c WHERE c.key = customer)';
             CREATE FUNCTION billing.teller() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT max(c.name) FROM billing.customer c';
             CREATE FUNCTION billing.writer(name text) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'UPDATE billing_internal.counter c SET value = c.value';
             CREATE FUNCTION billing.stranger(shape box) RETURNS box LANGUAGE sql AS 'SELECT shape'",
        )
        .expect("leaks");
    let bad: Vec<Function> = functions(&mut admin)
        .into_iter()
        .filter(|f| !all.iter().any(|old| old.signature == f.signature))
        .collect();
    assert_eq!(bad.len(), 4);
    let found = ask_all(&db, &bad, &globex);
    for name in ["oracle", "teller", "writer"] {
        assert!(
            found
                .faults
                .iter()
                .any(|fault| fault.contains(&format!("security_acme: SELECT t::text FROM billing.{name}("))),
            "{name} is not found: {:?}",
            found.faults
        );
    }
    assert_eq!(found.no_case, BTreeSet::from(["billing.stranger(box)".to_owned()]));
    forget(&mut admin);
}

fn forget(admin: &mut Client) {
    for login in LOGINS.iter().chain(&["security_globex"]) {
        admin.batch_execute(&format!("DROP OWNED BY {login}; DROP ROLE {login}")).expect("drop the login");
    }
}

struct Relation {
    name: String,
    kind: String,
}

fn relations(client: &mut Client) -> Vec<Relation> {
    client
        .query(
            "SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname IN ('billing', 'billing_internal') AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') ORDER BY 1",
            &[],
        )
        .expect("relations")
        .iter()
        .map(|row| Relation { name: row.get(0), kind: row.get(1) })
        .collect()
}

#[test]
fn relations_show_each_login_its_own_and_take_nothing() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let db = Db::fresh("security_relations");
    let mut admin = prepare(&db);
    let relations = relations(&mut admin);
    assert!(relations.len() > 60, "{} relations", relations.len());
    let (faults, shown) = look_at_all(&db, &mut admin, &relations);
    assert_eq!(faults, Vec::<String>::new());
    // acme sees its own; the others what is everybody's, or nothing at all.
    println!("{} relations; reads with rows: {shown:?}", relations.len());
    assert!(shown.get("security_acme").is_some_and(|n| *n > 40), "{shown:?}");
    assert_eq!(shown.get("security_stranger"), None);
    // And relations that tell, or take, are found.
    admin
        .batch_execute(
            "CREATE TABLE billing.notes AS SELECT key FROM billing.customer; GRANT SELECT ON billing.notes TO billing_customer;
             CREATE TABLE billing.box (key text); GRANT DELETE, TRUNCATE ON billing.box TO PUBLIC",
        )
        .expect("leaks");
    let of = |name: &str| [Relation { name: name.to_owned(), kind: "r".to_owned() }];
    let (faults, _) = look_at_all(&db, &mut admin, &of("billing.notes"));
    assert!(
        faults.iter().any(|f| f.starts_with("security_acme: COPY billing.notes TO STDOUT tells")),
        "{faults:?}"
    );
    let (faults, _) = look_at_all(&db, &mut admin, &of("billing.box"));
    for statement in ["DELETE FROM billing.box", "TRUNCATE billing.box"] {
        assert!(faults.iter().any(|f| f.contains(statement)), "{statement} is not found: {faults:?}");
    }
    forget(&mut admin);
}

fn look_at_all(
    db: &Db,
    admin: &mut Client,
    relations: &[Relation],
) -> (Vec<String>, BTreeMap<&'static str, usize>) {
    let mut faults = Vec::new();
    let mut shown = BTreeMap::new();
    for login in LOGINS {
        let mut client = db.connect_as(login);
        let public: Vec<String> =
            column(&mut client, "SELECT 'x' WHERE has_schema_privilege('public', 'CREATE')");
        assert_eq!(public, Vec::<String>::new(), "logins can make no tables, so no foreign keys to ours");
        for relation in relations {
            let name = &relation.name;
            // What it reads, row by row and by COPY, is never of globex.
            for read in [
                format!("SELECT t::text FROM {name} t"),
                format!("SELECT t::text FROM {name} t WHERE t::text LIKE '%globex%'"),
                format!("COPY {name} TO STDOUT"),
                format!("COPY (SELECT * FROM {name}) TO STDOUT"),
            ] {
                let said = if read.starts_with("COPY") {
                    copied(&mut client, &read)
                } else {
                    answer(&mut client, &read).0
                };
                if !leaked(&said).is_empty() {
                    faults.push(format!("{login}: {read} tells {:?}: {said:.300}", leaked(&said)));
                }
                if !said.starts_with("42501") && !said.starts_with("0 rows") {
                    *shown.entry(login).or_default() += 1;
                }
            }
            // Nothing else is done to it: 42501, or it is a kind that nobody can do this to.
            let column: String = admin
                .query_one("SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT 1", &[name])
                .expect("a column")
                .get(0);
            let mut others = vec![
                format!("INSERT INTO {name} DEFAULT VALUES"),
                format!("UPDATE {name} SET {column} = DEFAULT WHERE false"),
                format!("DELETE FROM {name} WHERE false"),
                format!(
                    "MERGE INTO {name} USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES"
                ),
                format!("TRUNCATE {name}"),
                format!("LOCK TABLE {name} IN ACCESS SHARE MODE"),
                format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"),
                format!("SELECT 1 FROM {name} FOR KEY SHARE"),
                format!("COPY {name} FROM STDIN"),
                format!("CREATE TEMP TABLE mine (a bigint REFERENCES {name})"),
                format!(
                    "CREATE TRIGGER mine AFTER INSERT ON {name} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                ),
                format!("CREATE RULE mine AS ON INSERT TO {name} DO NOTHING"),
                format!("CREATE INDEX ON {name} ({column})"),
                format!("COMMENT ON TABLE {name} IS 'mine'"),
                format!("ALTER TABLE {name} DISABLE ROW LEVEL SECURITY"),
                format!("ALTER TABLE {name} OWNER TO {login}"),
                format!("DROP TABLE {name}"),
            ];
            if relation.kind == "S" {
                others = vec![
                    format!("SELECT nextval('{name}')"),
                    format!("SELECT setval('{name}', 1)"),
                    format!("SELECT currval('{name}')"),
                    format!("ALTER SEQUENCE {name} RESTART"),
                    format!("DROP SEQUENCE {name}"),
                ];
            }
            for statement in others {
                let said = answer(&mut client, &statement).0;
                // Wrong kind of object, an updatable view's refusal, a foreign key from a temporary to a permanent table.
                let fine = ["42501", "42809", "55000", "42P16", "42830", "0A000"];
                let lock_shared = statement.contains("ACCESS SHARE");
                let allowed = fine.iter().any(|code| said.starts_with(code));
                if !(allowed || lock_shared && said.starts_with("0 rows")) {
                    faults.push(format!("{login}: {statement}: {said:.300}"));
                }
                if !leaked(&said).is_empty() {
                    faults.push(format!("{login}: {statement} tells {:?}: {said:.300}", leaked(&said)));
                }
            }
        }
        // Statistics hold values of columns; the ones of tables with row security are hidden.
        for statement in [
            "SELECT s::text FROM pg_stats s",
            "SELECT s::text FROM pg_stats_ext s",
            "SELECT a::text FROM pg_stat_activity a",
            "SELECT a::text FROM pg_locks a",
            "SELECT d::text FROM pg_description d",
            "SELECT p::text FROM pg_policies p",
            "SELECT c::text FROM pg_constraint c",
            "SELECT a::text FROM pg_attrdef a",
        ] {
            let said = answer(&mut client, statement).0;
            if login == "security_acme" && statement.contains("pg_stats s") {
                assert!(!said.starts_with("0 rows"), "statistics of system tables are seen");
            }
            if !leaked(&said).is_empty() {
                faults.push(format!("{login}: {statement} tells {:?}", leaked(&said)));
            }
        }
    }
    (faults, shown)
}

/// What a COPY TO STDOUT says: its data, or the error.
fn copied(client: &mut Client, statement: &str) -> String {
    let said = client.copy_out(statement).map(|mut reader| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).expect("a copy");
        format!("{} rows\n{text}", text.lines().count())
    });
    said.unwrap_or_else(|error| {
        let e = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}"));
        format!("{} {} {:?} {:?}", e.code().code(), e.message(), e.detail(), e.hint())
    })
}

/// Rights as the catalogues have them, of every role that may be given to a person: nobody but the engine and the owner
/// writes to a relation, and customers' logins call nothing that writes.
#[test]
fn rights_are_those_of_the_matrix() {
    let db = Db::fresh("security_rights");
    let mut admin = db.connect();
    let staff = column(
        &mut admin,
        "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'billing\\_%' AND rolname NOT IN ('billing_owner', 'billing_engine') ORDER BY 1",
    );
    assert!(staff.len() >= 8, "{staff:?}");
    let offenders = column(
        &mut admin,
        "SELECT format('%s may %s %s', r.rolname, v.verb, c.oid::regclass) FROM pg_roles r, pg_class c,
            unnest('{INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) v (verb)
         WHERE r.rolname LIKE 'billing\\_%' AND r.rolname NOT IN ('billing_owner', 'billing_engine')
            AND c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
            AND (has_table_privilege(r.oid, c.oid, v.verb) OR v.verb IN ('INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(r.oid, c.oid, v.verb))
         UNION ALL
         SELECT format('%s may use %s', r.rolname, c.oid::regclass) FROM pg_roles r, pg_class c WHERE r.rolname LIKE 'billing\\_%' AND r.rolname NOT IN ('billing_owner', 'billing_engine')
            AND c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind = 'S' AND has_sequence_privilege(r.oid, c.oid, 'USAGE, UPDATE')
         UNION ALL
         SELECT format('PUBLIC may %s %s', a.privilege_type, c.oid::regclass) FROM pg_class c, aclexplode(c.relacl) a
         WHERE a.grantee = 0 AND c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace)
         UNION ALL
         SELECT format('the engine may %s %s', v.verb, c.oid::regclass) FROM pg_class c, unnest('{DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) v (verb)
         WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p') AND has_table_privilege('billing_engine', c.oid, v.verb)
         UNION ALL
         SELECT format('%s has customers who read it and no row security', c.oid::regclass) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'customer_id' AND NOT a.attisdropped
         WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT c.relrowsecurity
            AND has_any_column_privilege('billing_customer', c.oid, 'SELECT')
         UNION ALL
         SELECT format('view %s runs with its owner''s rights', c.oid::regclass) FROM pg_class c
         WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind = 'v' AND NOT coalesce('security_invoker=true' = ANY (c.reloptions), false)
            AND EXISTS (SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid WHERE w.ev_class = c.oid)
         UNION ALL
         SELECT format('a partition, %s, is readable by %s', c.oid::regclass, r.rolname) FROM pg_class c, pg_roles r
         WHERE c.relispartition AND c.relkind = 'r' AND c.relnamespace = 'billing_internal'::regnamespace AND r.rolname LIKE 'billing\\_%' AND r.rolname NOT IN ('billing_owner', 'billing_engine')
            AND has_table_privilege(r.oid, c.oid, 'SELECT')
         ORDER BY 1",
    );
    assert_eq!(offenders, Vec::<String>::new());
    let offenders = column(
        &mut admin,
        "SELECT format('%s may call %s', r.rolname, p.oid::regprocedure) FROM pg_proc p, (SELECT 'billing_customer' AS rolname, 'billing_customer'::regrole AS oid UNION ALL SELECT 'PUBLIC', 0) r
         WHERE p.pronamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND p.proname NOT IN ('install', 'migrate', 'fail', 'raise_fault', 'my_customers', 'customer_bills', 'customer_spend', 'customer_pending', 'customer_credit_left', 'customer_limits', 'customer_rate')
            AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' AND e.extname <> 'pg_billing')
            AND CASE r.rolname WHEN 'PUBLIC' THEN EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
                ELSE (p.provolatile = 'v' OR p.prosecdef) AND has_function_privilege('billing_customer', p.oid, 'EXECUTE') END
         ORDER BY 1",
    );
    assert_eq!(offenders, Vec::<String>::new());
}

-- What the catalogue of an installed database must look like, whatever layers it has: kinds of tables and their keys,
-- who may do what, row security, functions, comments. Every query lists offenders, so that a failure names them;
-- lists that are there to be read say so.
\set ON_ERROR_STOP on
\pset format unaligned
SELECT billing.test_clock_set('2023-12-01 00:00:00Z');
-- A month of partitions, since they are part of what must hold.
SELECT billing_internal.partition_ensure('2023-11-16Z'), billing_internal.partition_ensure('2023-12-01Z');

-- Ours: everything in the two schemas but what belongs to btree_gist.
CREATE TEMP VIEW our_table AS
    SELECT c.oid::regclass::text AS name, c.*, k.kind FROM pg_class c LEFT JOIN billing_internal.table_kind k ON k.table_name = c.oid::regclass::text
    WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'f');
CREATE TEMP VIEW our_function AS
    SELECT p.oid::regprocedure::text AS name, p.*, l.lanname, r.rolname AS owner,
        EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_billing'
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') AS member
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_roles r ON r.oid = p.proowner
    WHERE p.pronamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace)
        AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'btree_gist'
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e');
-- Keys and unique indexes with their columns in order; expressions are NULL.
CREATE TEMP VIEW our_key AS
    SELECT t.name AS table_name, t.kind, i.indexrelid::regclass::text AS index_name, i.indisprimary,
        ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (n, place)
            LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n AND k.n > 0 ORDER BY k.place) AS columns
    FROM our_table t JOIN pg_index i ON i.indrelid = t.oid
    WHERE (i.indisunique OR i.indisexclusion) AND NOT t.relispartition;

\echo '-- 2.3 members and tables'
\echo a table, view or index that is a member of the extension
SELECT pg_describe_object(d.classid, d.objid, 0) AS offender FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_billing'
WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_class'::regclass
    AND (SELECT c.relkind FROM pg_class c WHERE c.oid = d.objid) <> 'c' ORDER BY 1;
\echo a stored object that refers to a member
SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) || ' → ' || pg_describe_object(d.refclassid, d.refobjid, 0) AS offender
FROM pg_depend d JOIN pg_depend m ON m.classid = d.refclassid AND m.objid = d.refobjid AND m.deptype = 'e'
JOIN pg_extension e ON e.oid = m.refobjid AND e.extname = 'pg_billing' AND m.refclassid = 'pg_extension'::regclass
WHERE d.deptype IN ('n', 'a') AND d.classid IN ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass)
    AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = d.classid AND x.objid = d.objid AND x.deptype IN ('e', 'i')
        AND EXISTS (SELECT FROM pg_depend y WHERE y.classid = x.refclassid AND y.objid = x.refobjid AND y.deptype = 'e'))
    AND NOT EXISTS (SELECT FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind = 'c')
    AND NOT EXISTS (SELECT FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relpersistence = 't')
    AND NOT EXISTS (SELECT FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid AND c.relpersistence = 't')
ORDER BY 1;
\echo a member function whose signature names a table
SELECT f.name AS offender FROM our_function f
WHERE f.member AND EXISTS (SELECT FROM pg_type y JOIN pg_class c ON c.oid = y.typrelid AND c.relkind <> 'c'
    WHERE y.oid = ANY (f.proargtypes::oid[] || coalesce(f.proallargtypes, '{}') || f.prorettype) OR y.typarray = ANY (f.proargtypes::oid[] || coalesce(f.proallargtypes, '{}') || f.prorettype))
ORDER BY 1;

\echo 'a function people call that declares a variable of a table''s type: before install() it would say that the type is missing, not what helps'
SELECT f.name AS offender FROM our_function f WHERE f.pronamespace = 'billing'::regnamespace AND f.lanname = 'plpgsql'
    AND EXISTS (SELECT FROM regexp_matches(f.prosrc, '\m(billing(?:_internal)?\.\w+)(?:%ROWTYPE|\[\])?;', 'g') m JOIN pg_class c ON c.oid = to_regclass(m[1]) AND c.relkind <> 'c' WHERE f.prosrc ~ ('\n\s+\w+ ' || m[1] || '(%ROWTYPE|\[\])?;')) ORDER BY 1;

\echo '-- 2.4 columns'
\echo a column whose type is not built in
SELECT t.name || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) AS offender
FROM our_table t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE a.atttypid >= 16384 ORDER BY 1;
\echo a float
SELECT t.name || '.' || a.attname AS offender
FROM our_table t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE a.atttypid IN ('float4'::regtype, 'float8'::regtype, 'money'::regtype, 'timestamp'::regtype) ORDER BY 1;
\echo 'a text column of a key that is not COLLATE "C"'
SELECT DISTINCT k.table_name || '.' || a.attname AS offender
FROM our_key k JOIN pg_attribute a ON a.attrelid = k.table_name::regclass AND a.attname = ANY (k.columns)
WHERE a.attcollation NOT IN (0, '"C"'::regcollation) ORDER BY 1;
\echo 'a currency, state or key column that is not COLLATE "C"'
SELECT t.name || '.' || a.attname AS offender FROM our_table t JOIN pg_attribute a ON a.attrelid = t.oid
WHERE a.atttypid = 'text'::regtype AND a.attname ~ '(^|_)(key|currency|state|kind|code|time_zone|number|sha256)$' AND a.attcollation <> '"C"'::regcollation ORDER BY 1;

\echo '-- 2.6 kinds and keys'
\echo 'every table and its kind (to be read)'
SELECT t.kind, string_agg(t.name, ' ' ORDER BY t.name COLLATE "C") AS tables FROM our_table t WHERE NOT t.relispartition GROUP BY t.kind ORDER BY t.kind;
\echo a table without a kind, or a kind without a table
SELECT coalesce(t.name, k.table_name) AS offender FROM (SELECT * FROM our_table x WHERE NOT x.relispartition) t
FULL JOIN billing_internal.table_kind k ON k.table_name = t.name WHERE t.name IS NULL OR k.table_name IS NULL ORDER BY 1;
\echo 'a table without a primary key. Left: usage_delta and usage_dirty are queues that fold() empties; usage_event is keyed by usage_event_key (2.12)'
SELECT t.name AS offender FROM our_table t WHERE NOT t.relispartition AND NOT EXISTS (SELECT FROM our_key k WHERE k.table_name = t.name AND k.indisprimary)
    AND t.name NOT IN ('billing.usage_delta', 'billing.usage_dirty', 'billing.usage_event') ORDER BY 1;
\echo a key of a customer-owned table that customer_id does not lead
SELECT k.index_name AS offender FROM our_key k WHERE k.kind = 'customer-owned' AND k.columns[1] IS DISTINCT FROM 'customer_id' ORDER BY 1;
\echo a customer_id that may be NULL where it is a key
SELECT t.name AS offender FROM our_table t LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'customer_id'
WHERE t.kind IN ('customer-owned', 'directory') AND a.attnotnull IS NOT true ORDER BY 1;
\echo 'a foreign key of a customer-owned table to another one, or from outside, that customer_id does not lead on both sides'
SELECT s.name || ' ' || c.conname AS offender
FROM pg_constraint c JOIN our_table s ON s.oid = c.conrelid JOIN our_table d ON d.oid = c.confrelid
WHERE c.contype = 'f' AND NOT s.relispartition AND d.kind = 'customer-owned'
    AND (s.kind <> 'customer-owned'
        OR (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = s.oid AND a.attnum = c.conkey[1]) <> 'customer_id'
        OR (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = d.oid AND a.attnum = c.confkey[1]) <> 'customer_id')
ORDER BY 1;
\echo 'a foreign key to what is neither customer-owned, catalogue nor directory, or between machinery and others'
SELECT s.name || ' ' || c.conname AS offender
FROM pg_constraint c JOIN our_table s ON s.oid = c.conrelid JOIN our_table d ON d.oid = c.confrelid
WHERE c.contype = 'f' AND NOT s.relispartition AND (d.kind = 'seller-owned' OR (d.kind = 'machinery') <> (s.kind = 'machinery') OR (s.kind = 'catalogue' AND d.kind <> 'catalogue')) ORDER BY 1;
\echo a key of a seller-owned table that seller_id does not lead
SELECT k.index_name AS offender FROM our_key k WHERE k.kind = 'seller-owned' AND k.columns[1] IS DISTINCT FROM 'seller_id' ORDER BY 1;
\echo a foreign key on the tables of events and usage
SELECT t.name || ' ' || c.conname AS offender FROM pg_constraint c JOIN our_table t ON t.oid = c.conrelid
WHERE c.contype = 'f' AND t.name ~ '\.(usage_|dimension_set)' ORDER BY 1;
\echo 'an id of another type: customer_id bigint, meter_id and feature_id int, dimension_set_id bigint, all others uuid (event_id is the sender''s text)'
SELECT t.name || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) AS offender
FROM our_table t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE a.attname ~ '_id$' AND a.atttypid <> CASE a.attname WHEN 'customer_id' THEN 'bigint'::regtype WHEN 'meter_id' THEN 'int'::regtype WHEN 'feature_id' THEN 'int'::regtype
    WHEN 'dimension_set_id' THEN 'bigint'::regtype WHEN 'event_id' THEN 'text'::regtype ELSE 'uuid'::regtype END
ORDER BY 1;
\echo 'a trigger (those of foreign keys are Postgres''s own), a rule, a sequence, inheritance, an unlogged table (but the state of ingest and rate limits)'
SELECT t.name || ' ' || g.tgname AS offender FROM pg_trigger g JOIN our_table t ON t.oid = g.tgrelid WHERE NOT g.tgisinternal
UNION ALL SELECT t.name || ' ' || r.rulename FROM pg_rewrite r JOIN our_table t ON t.oid = r.ev_class
UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'S' AND c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace)
UNION ALL SELECT t.name FROM our_table t JOIN pg_inherits i ON i.inhrelid = t.oid WHERE NOT t.relispartition
UNION ALL SELECT t.name FROM our_table t WHERE t.relpersistence <> 'p' AND t.name NOT IN ('billing_internal.ingest_limit_state', 'billing.rate_state')
ORDER BY 1;

\echo '-- 2.9 privileges'
\echo an owner other than billing_owner
SELECT t.name AS offender FROM our_table t WHERE t.relowner <> 'billing_owner'::regrole
UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('v', 'm') AND c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relowner <> 'billing_owner'::regrole
ORDER BY 1;
CREATE TEMP VIEW our_grant AS
    SELECT t.name AS table_name, t.kind, t.relispartition, NULL::text AS column_name, a.grantee::regrole::text AS role, a.privilege_type AS privilege, a.is_grantable
    FROM our_table t, aclexplode(coalesce(t.relacl, acldefault('r', t.relowner))) a WHERE a.grantee <> t.relowner
    UNION ALL
    SELECT t.name, t.kind, t.relispartition, c.attname, a.grantee::regrole::text, a.privilege_type, a.is_grantable
    FROM our_table t JOIN pg_attribute c ON c.attrelid = t.oid, aclexplode(c.attacl) a WHERE a.grantee <> t.relowner;
\echo 'a privilege on a table that nobody should have: DELETE, TRUNCATE, REFERENCES, TRIGGER; INSERT or UPDATE for others than the engine; UPDATE of whole rows; anything for PUBLIC, for strangers, on a partition or to be passed on'
SELECT g.table_name || coalesce('.' || g.column_name, '') || ' ' || g.privilege || ' ' || g.role AS offender FROM our_grant g
WHERE g.privilege NOT IN ('SELECT', 'INSERT', 'UPDATE') OR (g.privilege <> 'SELECT' AND g.role <> 'billing_engine') OR (g.privilege = 'UPDATE' AND g.column_name IS NULL)
    OR g.role NOT IN ('billing_engine', 'billing_reader', 'billing_customer') OR g.relispartition OR g.is_grantable ORDER BY 1;
\echo 'a table the engine can''t read or insert into, or staff can''t read'
SELECT t.name || ' ' || m.role || ' ' || m.privilege AS offender
FROM our_table t, (VALUES ('billing_engine', 'SELECT'), ('billing_engine', 'INSERT'), ('billing_reader', 'SELECT')) m (role, privilege)
WHERE NOT t.relispartition AND NOT (t.name = 'billing_internal.table_kind' AND m.privilege = 'INSERT')
    AND NOT EXISTS (SELECT FROM our_grant g WHERE g.table_name = t.name AND g.role = m.role AND g.privilege = m.privilege AND g.column_name IS NULL) ORDER BY 1;
\echo 'what the engine may update (to be read): the closing columns of each table; all else is only ever inserted'
SELECT t.name AS table_name, coalesce(string_agg(g.column_name, ' ' ORDER BY g.column_name COLLATE "C"), '–') AS engine_updates
FROM our_table t LEFT JOIN our_grant g ON g.table_name = t.name AND g.privilege = 'UPDATE' WHERE NOT t.relispartition GROUP BY t.name ORDER BY t.name COLLATE "C";
\echo 'a key column the engine may update'
SELECT g.table_name || '.' || g.column_name AS offender FROM our_grant g JOIN our_key k ON k.table_name = g.table_name AND g.column_name = ANY (k.columns)
WHERE g.privilege = 'UPDATE' AND k.indisprimary ORDER BY 1;
\echo 'what a customer''s login does not see (to be read): columns of tables it has some of, then whole tables and views'
SELECT t.name AS table_name, string_agg(a.attname, ' ' ORDER BY a.attnum) AS hidden FROM our_table t
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE EXISTS (SELECT FROM our_grant g WHERE g.table_name = t.name AND g.role = 'billing_customer')
    AND NOT has_column_privilege('billing_customer', t.oid, a.attnum, 'SELECT') GROUP BY t.name ORDER BY t.name COLLATE "C";
SELECT c.oid::regclass AS hidden FROM pg_class c WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    AND NOT has_any_column_privilege('billing_customer', c.oid, 'SELECT') ORDER BY c.oid::regclass::text COLLATE "C";
\echo 'a view that is not security_invoker and reads tables (dim_date reads none), or that someone may write through'
SELECT c.oid::regclass AS offender FROM pg_class c WHERE c.relkind IN ('v', 'm') AND c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace)
    AND (NOT coalesce(c.reloptions @> '{security_invoker=true}', false) AND EXISTS (SELECT FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid WHERE r.ev_class = c.oid)
        OR EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner AND (a.privilege_type <> 'SELECT' OR a.grantee::regrole::text NOT IN ('billing_engine', 'billing_reader', 'billing_customer'))))
ORDER BY 1;
\echo 'roles: who is in whom (to be read), and one that may log in or has an attribute of its own'
SELECT g.rolname AS role, string_agg(r.rolname, ' ' ORDER BY r.rolname) AS members FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
WHERE g.rolname LIKE 'billing\_%' AND r.rolname LIKE 'billing\_%' GROUP BY g.rolname ORDER BY 1;
SELECT r.rolname AS offender FROM pg_roles r
WHERE r.rolname IN ('billing_owner', 'billing_engine', 'billing_admin', 'billing_operator', 'billing_app', 'billing_finance', 'billing_success', 'billing_sales', 'billing_reader', 'billing_customer')
    AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolcanlogin OR r.rolreplication OR r.rolbypassrls) ORDER BY 1;
\echo 'a schema others than billing_owner may create in'
SELECT n.nspname || ' ' || a.grantee::regrole AS offender FROM pg_namespace n, aclexplode(n.nspacl) a
WHERE n.nspname IN ('billing', 'billing_internal') AND a.privilege_type = 'CREATE' AND a.grantee NOT IN (n.nspowner, 'billing_owner'::regrole) ORDER BY 1;

\echo '-- 2.16 row security'
\echo 'a customer-owned or directory table, or a partition of one, where it is not enabled and forced'
SELECT t.name AS offender FROM our_table t LEFT JOIN pg_partition_root(t.oid) root (oid) ON t.relispartition LEFT JOIN billing_internal.table_kind k ON k.table_name = root.oid::regclass::text
WHERE coalesce(t.kind, k.kind) IS DISTINCT FROM 'catalogue' AND coalesce(t.kind, k.kind) IS DISTINCT FROM 'machinery' AND coalesce(t.kind, k.kind) IS DISTINCT FROM 'seller-owned'
    AND NOT (t.relrowsecurity AND t.relforcerowsecurity) ORDER BY 1;
\echo 'a table with a customer_id that is neither under row security nor closed to customers'
SELECT t.name AS offender FROM our_table t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'customer_id' AND NOT a.attisdropped
WHERE NOT (t.relrowsecurity AND t.relforcerowsecurity) AND has_any_column_privilege('billing_customer', t.oid, 'SELECT, INSERT, UPDATE, REFERENCES') ORDER BY 1;
\echo 'a policy missing, of another form, or one too many'
WITH draft (kind, hangs_on, id) AS (VALUES ('contract', 'billing.contract', 'contract_id'), ('invoice', 'billing.invoice', 'invoice_id')
), hides_drafts (table_name, kind) AS (VALUES
    -- What is not agreed or issued yet, and what hangs on it, is for staff.
    ('billing.contract_key', 'contract'), ('billing.contract_version', 'contract'), ('billing.contract_charge', 'contract'), ('billing.price_override', 'contract'), ('billing.invoice_line', 'invoice')
), wanted AS (
    SELECT t.name AS table_name, p.* FROM our_table t
    LEFT JOIN hides_drafts h ON h.table_name = t.name LEFT JOIN draft d ON d.kind = h.kind
    CROSS JOIN LATERAL (SELECT '(customer_id = ANY (( SELECT billing_internal.my_customers() AS my_customers)::bigint[]))' AS mine,
        format('(EXISTS ( SELECT FROM %1$s %4$s WHERE ((%4$s.customer_id = %2$s.customer_id) AND (%4$s.%3$s = %2$s.%3$s) AND (%4$s.state <> ''draft''::text))))',
            d.hangs_on, split_part(t.name, '.', 2), d.id, CASE d.kind WHEN 'contract' THEN 'k' ELSE 'i' END) AS final) x
    CROSS JOIN LATERAL (VALUES
        ('owner_all', '*', 'billing_owner', 'true', 'true'),
        ('engine_all', '*', 'billing_engine', 'true', 'true'),
        ('staff_read', 'r', 'billing_reader', 'true', NULL),
        ('customer_read', 'r', 'billing_customer', CASE WHEN t.name IN ('billing.contract', 'billing.invoice') THEN format('(%s AND (state <> ''draft''::text))', x.mine)
            WHEN t.name = 'billing.price_override' THEN format('(%s AND ((contract_id IS NULL) OR %s))', x.mine, x.final)
            WHEN h.kind IS NOT NULL THEN format('(%s AND %s)', x.mine, x.final) ELSE x.mine END, NULL)
    ) p (policy, command, role, reads, writes)
    WHERE t.kind IN ('customer-owned', 'directory')
), found AS (
    SELECT p.polrelid::regclass::text AS table_name, p.polname::text AS policy, p.polcmd::text AS command,
        (SELECT string_agg(r::regrole::text, ' ') FROM unnest(p.polroles) r) AS role, regexp_replace(pg_get_expr(p.polqual, p.polrelid), '\s+', ' ', 'g') AS reads, pg_get_expr(p.polwithcheck, p.polrelid) AS writes
    FROM pg_policy p JOIN our_table t ON t.oid = p.polrelid WHERE p.polpermissive
)
(SELECT 'missing' AS what, * FROM wanted EXCEPT SELECT 'missing', * FROM found)
UNION ALL (SELECT 'unexpected', * FROM found EXCEPT SELECT 'unexpected', * FROM wanted)
ORDER BY 2, 3, 1;
SELECT p.polrelid::regclass AS offender FROM pg_policy p JOIN our_table t ON t.oid = p.polrelid WHERE NOT p.polpermissive ORDER BY 1;

\echo '-- 2.16 functions'
\echo 'definers of billing_owner (to be read): what the engine may not do itself'
SELECT f.name FROM our_function f WHERE f.prosecdef AND f.owner = 'billing_owner' ORDER BY f.name COLLATE "C";
\echo a definer of anybody else than billing_engine, or with EXECUTE for PUBLIC
SELECT f.name || ' ' || f.owner AS offender FROM our_function f
WHERE f.prosecdef AND (f.owner NOT IN ('billing_engine', 'billing_owner') OR EXISTS (SELECT FROM aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a WHERE a.grantee = 0)) ORDER BY 1;
\echo 'a definer that takes the name of a relation'
SELECT f.name AS offender FROM our_function f WHERE f.prosecdef AND 'regclass'::regtype = ANY (f.proargtypes::oid[]) ORDER BY 1;
\echo 'a function that asks current_user or session_user instead of caller(); install and migrate name who is no superuser'
SELECT f.name AS offender FROM our_function f WHERE f.prosrc ~* '\m(current_user|session_user)\M' AND f.lanname <> 'c' AND f.name NOT IN ('billing.install(text)', 'billing.migrate()') ORDER BY 1;
\echo 'a reader (STABLE or IMMUTABLE) that is a definer. Left: my_customers() reads the one table its callers can''t; six price what a customer has not been billed yet or asks for, or read shared memory, each after asking may_see()'
SELECT f.name AS offender FROM our_function f WHERE f.prosecdef AND f.provolatile <> 'v' AND f.name <> 'billing_internal.my_customers()'
    AND NOT (f.name IN ('billing_internal.customer_bills(bigint)', 'billing_internal.customer_spend(bigint,timestamp with time zone,timestamp with time zone,text[])', 'billing_internal.customer_pending(bigint)',
        'billing_internal.customer_credit_left(bigint,text)', 'billing_internal.customer_limits(bigint,integer,numeric,jsonb,text,text)', 'billing_internal.customer_rate(bigint,integer,numeric,numeric,numeric,interval)')
        AND split_part(f.prosrc, 'BEGIN', 2) ~ '^\s+IF (NOT )?billing_internal\.may_see\(of_customer_id\) THEN') ORDER BY 1;
\echo 'a writer people call (VOLATILE, in billing) that is no definer. Left: install, migrate and the test clock are for superusers; ingest_from, usage_source_set and sample_step read their caller''s tables; procedures commit and only loop over definers; aggregates can''t write'
SELECT f.name AS offender FROM our_function f WHERE f.pronamespace = 'billing'::regnamespace AND f.provolatile = 'v' AND NOT f.prosecdef AND f.prokind = 'f'
    AND f.name NOT IN ('billing.install(text)', 'billing.migrate()', 'billing.test_clock_set(timestamp with time zone)', 'billing.ingest_from(regclass)', 'billing.usage_source_set(text,regclass,text,text,text)', 'billing.sample_step(uuid,text)') ORDER BY 1;
\echo 'a function that deletes, but not as billing_owner'
SELECT f.name AS offender FROM our_function f WHERE f.prosrc ~* '\m(DELETE\s+FROM|TRUNCATE\s+(TABLE\s+)?billing)' AND f.owner <> 'billing_owner' ORDER BY 1;
\echo 'EXECUTE for PUBLIC: install() and migrate() check for themselves'
SELECT f.name AS offender FROM our_function f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
WHERE a.grantee = 0 AND f.name NOT IN ('billing.install(text)', 'billing.migrate()') ORDER BY 1;
\echo 'who may call which writer (to be read; admin, engine and owner may call all)'
SELECT f.name, coalesce((SELECT string_agg(substr(r, 9), ' ' ORDER BY n) FROM unnest('{billing_app,billing_operator,billing_finance,billing_success,billing_sales,billing_reader,billing_customer}'::text[]) WITH ORDINALITY x (r, n)
    WHERE has_function_privilege(r, f.oid, 'EXECUTE')), '–') AS roles
FROM our_function f WHERE f.provolatile = 'v' AND f.prokind IN ('f', 'p') AND (f.pronamespace = 'billing'::regnamespace OR f.prosecdef) ORDER BY f.name COLLATE "C";
\echo 'a function of billing_internal that acts on the session or on tables and that a customer or a reader may call. Left: raising a fault, and for staff the batch in which a preview is computed'
SELECT f.name AS offender FROM our_function f WHERE f.pronamespace = 'billing_internal'::regnamespace AND f.provolatile = 'v'
    AND (has_function_privilege('billing_customer', f.oid, 'EXECUTE') OR has_function_privilege('billing_reader', f.oid, 'EXECUTE'))
    AND NOT (f.proname IN ('fail', 'raise_fault')
        OR (f.proname LIKE 'bill\_%' AND f.lanname = 'c' AND NOT has_function_privilege('billing_customer', f.oid, 'EXECUTE'))) ORDER BY 1;
\echo 'what staff may call and a customer''s login may not (to be read): it reads what that login can''t; row_security shows that the rest works for it'
SELECT f.name FROM our_function f WHERE f.member AND f.pronamespace = 'billing'::regnamespace AND has_function_privilege('billing_reader', f.oid, 'EXECUTE') AND NOT has_function_privilege('billing_customer', f.oid, 'EXECUTE') ORDER BY f.name COLLATE "C";
\echo 'what an administrator may call of the machinery that writes or acts on the session (to be read)'
SELECT f.name FROM our_function f WHERE f.member AND f.pronamespace = 'billing_internal'::regnamespace AND f.provolatile = 'v' AND NOT (f.proname LIKE 'bill\_%' AND f.lanname = 'c')
    AND has_function_privilege('billing_admin', f.oid, 'EXECUTE') ORDER BY f.name COLLATE "C";
\echo 'a reader that staff may not call'
SELECT f.name AS offender FROM our_function f WHERE f.member AND f.provolatile <> 'v' AND NOT has_function_privilege('billing_reader', f.oid, 'EXECUTE') ORDER BY 1;

\echo '-- search_path'
\echo 'a function without SET search_path = pg_catalog, pg_temp'
WITH exception (name, reason) AS (VALUES
    -- SET would keep them from being inlined into the statements that call them once a row; their bodies are bound when made.
    ('billing_internal.audit_hash(uuid,timestamp with time zone,text,text,text,text,bigint,jsonb,jsonb,text,bytea,bytea)', 'inlined, bound when made'),
    ('billing_internal.fiscal_year(timestamp with time zone,text,smallint)', 'inlined, bound when made'),
    ('billing_internal.event_age_default()', 'inlined, bound when made'), ('billing_internal.event_future_default()', 'inlined, bound when made'),
    ('billing_internal.grace_over(timestamp with time zone,text,timestamp with time zone)', 'inlined, bound when made'),
    ('billing_internal.invoice_key(text,integer,bigint,text)', 'inlined, bound when made'),
    ('billing_internal.local_midnight(date,text)', 'inlined, bound when made'),
    ('billing_internal.ref_now(bigint,uuid,integer[],timestamp with time zone)', 'inlined, bound when made'),
    ('billing_internal.reservations_kept()', 'inlined, bound when made'), ('billing.entitlement_check(text,text,numeric,jsonb,text)', 'inlined, bound when made'),
    ('billing_internal.rfc3339(timestamp with time zone)', 'inlined, bound when made'),
    ('billing_internal.stripe_of(bigint)', 'inlined, bound when made'),
    -- A procedure with SET can't COMMIT. They run with their caller's rights and only name what is qualified.
    ('billing.bill_run(timestamp with time zone)', 'commits'),
    ('billing.fold()', 'commits'), ('billing.sample()', 'commits'), ('billing.retention()', 'commits'), ('billing.meter_rebuild(text,timestamp with time zone,timestamp with time zone,text)', 'commits'),
    ('billing.audit_seal()', 'commits'), ('billing.renewal()', 'commits'), ('billing.credit_expiry()', 'commits'), ('billing.reservation_expiry()', 'commits'), ('billing.top_up()', 'commits'), ('billing.alerts()', 'commits'),
    -- Called once a row, where SET would take as long as the rest. With its caller's rights, and every name has its schema.
    ('billing.rate(billing.pricing,numeric,jsonb,bigint)', 'qualified'))
SELECT f.name AS offender FROM our_function f
WHERE NOT coalesce(f.proconfig @> '{"search_path=pg_catalog, pg_temp"}', false) AND f.lanname NOT IN ('c', 'internal')
    AND NOT EXISTS (SELECT FROM exception e WHERE e.name = f.name AND CASE e.reason
        WHEN 'commits' THEN f.prokind = 'p' AND NOT f.prosecdef
        WHEN 'qualified' THEN f.lanname = 'plpgsql' AND NOT f.prosecdef
        ELSE f.lanname = 'sql' AND f.prosqlbody IS NOT NULL AND NOT f.prosecdef END)
UNION ALL
SELECT e.name || ' is an exception but needs none' FROM exception e
WHERE NOT EXISTS (SELECT FROM our_function f WHERE f.name = e.name AND NOT coalesce(f.proconfig @> '{"search_path=pg_catalog, pg_temp"}', false))
ORDER BY 1;
\echo 'a procedure that commits and names something unqualified: an operator, a function'
SELECT f.name AS offender FROM our_function f WHERE f.prokind = 'p'
    AND (regexp_replace(f.prosrc, 'OPERATOR\(pg_catalog\.[^)]*\)|:=', '', 'g') ~ '[<>=+*/|~!]' OR f.prosrc ~ '(^|[^.\w])[a-z_]+\(') ORDER BY 1;

\echo '-- labels'
\echo 'a C function that is IMMUTABLE but not parallel safe'
SELECT f.name AS offender FROM our_function f WHERE f.lanname = 'c' AND f.provolatile = 'i' AND f.proparallel <> 's' ORDER BY 1;

\echo '-- comments'
\echo 'a schema, table, view, column of them, function, procedure, aggregate, operator, type or cast without a comment'
SELECT 'schema ' || n.nspname AS offender FROM pg_namespace n WHERE n.nspname IN ('billing', 'billing_internal') AND obj_description(n.oid, 'pg_namespace') IS NULL
UNION ALL SELECT CASE c.relkind WHEN 'v' THEN 'view ' ELSE 'table ' END || c.oid::regclass FROM pg_class c WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    AND obj_description(c.oid, 'pg_class') IS NULL
UNION ALL SELECT 'column ' || c.oid::regclass || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND col_description(c.oid, a.attnum) IS NULL
UNION ALL SELECT 'routine ' || f.name FROM our_function f WHERE obj_description(f.oid, 'pg_proc') IS NULL
UNION ALL SELECT 'operator ' || o.oid::regoperator FROM pg_operator o WHERE o.oprnamespace = 'billing'::regnamespace AND obj_description(o.oid, 'pg_operator') IS NULL
UNION ALL SELECT 'type ' || t.oid::regtype FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE t.typnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace)
    AND t.typelem = 0 AND t.typtype <> 'p' AND (c.oid IS NULL OR c.relkind = 'c') AND obj_description(t.oid, 'pg_type') IS NULL
    AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'btree_gist' WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
UNION ALL SELECT 'cast ' || format('(%s AS %s)', x.castsource::regtype, x.casttarget::regtype) FROM pg_cast x JOIN pg_type s ON s.oid = x.castsource JOIN pg_type d ON d.oid = x.casttarget
    WHERE 'billing'::regnamespace IN (s.typnamespace, d.typnamespace) AND obj_description(x.oid, 'pg_cast') IS NULL
UNION ALL SELECT 'operator class ' || k.opcname FROM pg_opclass k WHERE k.opcnamespace = 'billing'::regnamespace AND obj_description(k.oid, 'pg_opclass') IS NULL
UNION ALL SELECT 'extension ' || e.extname FROM pg_extension e WHERE e.extname = 'pg_billing' AND obj_description(e.oid, 'pg_extension') IS NULL
ORDER BY 1;
\echo 'a function people call whose comment does not name its error codes though it raises some itself'
SELECT f.name AS offender FROM our_function f WHERE f.pronamespace = 'billing'::regnamespace AND f.prosrc ~ 'fail\(''(ZB|55|42)' AND obj_description(f.oid, 'pg_proc') !~ 'Errors' ORDER BY 1;
SELECT check_name, failed FROM billing.verify('full') WHERE failed <> 0;

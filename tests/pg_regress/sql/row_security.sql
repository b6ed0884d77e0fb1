-- Who sees and does what: a customer's login sees its own rows, through tables, views, partitions and functions, and
-- writes nothing; staff reads everything and writes only through functions; the engine inserts and closes, and deletes
-- nothing. Every table with a customer_id has its leak test here, or the file says which one has none.
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT billing.test_clock_set('2023-11-20 00:00:00Z');

-- ── two customers with everything ────────────────────────────────────────────────────────────────
DROP ROLE IF EXISTS golden_acme, golden_globex, golden_both, golden_nobody, golden_stranger;
CREATE ROLE golden_acme LOGIN IN ROLE billing_customer;
CREATE ROLE golden_globex LOGIN IN ROLE billing_customer;
CREATE ROLE golden_both LOGIN IN ROLE billing_customer;
CREATE ROLE golden_nobody LOGIN IN ROLE billing_customer;
CREATE ROLE golden_stranger LOGIN;
SELECT count(*) > 0 AS applied FROM billing.catalog_apply(billing.catalog_example('llm-api'));
SELECT count(*) > 0 AS applied FROM billing.catalog_apply('{"meters": [{"key": "users", "event_type": "llm.request", "aggregation": "unique_count", "value": "user_id"}]}');
SELECT billing.customer_upsert(jsonb_build_object('key', k, 'name', initcap(k), 'aliases', jsonb_build_array(k || '-inc'), 'attributes', '{"segment": "gold", "margin": "0.4"}'::jsonb,
    'contacts', jsonb_build_array(jsonb_build_object('role', 'billing', 'name', 'Bill of ' || k, 'email', 'bill@' || k || '.example')),
    'overrides', '[{"meter": "tokens", "match": {"model": "gpt-4"}, "unit_price": "0.02"}]'::jsonb)) FROM unnest('{acme,globex}'::text[]) k;
SELECT billing.customer_login_add('acme', 'golden_acme'), billing.customer_login_add('globex', 'golden_globex'), billing.customer_login_add('acme', 'golden_both'), billing.customer_login_add('globex', 'golden_both');
SELECT billing.subscribe(k, 'pro', '2023-11-01') FROM unnest('{acme,globex}'::text[]) k;
SELECT billing.policy_set('rounding_mode', 'half_even', 'contract:' || k || '-1') FROM unnest('{acme,globex}'::text[]) k;
SELECT billing.ingest_event(k, 'llm.request', k || n, '2023-11-16 00:00Z'::timestamptz + n * interval '1 hour', jsonb_build_object('model', 'gpt-4', 'user_id', k || n, 'input_tokens', 1000, 'output_tokens', 10), NULL)
FROM unnest('{acme,globex}'::text[]) k, generate_series(1, 3) n;
CALL billing.fold();
SELECT billing.test_clock_set('2023-12-01 00:00:00Z');
CALL billing.bill_run();
SELECT billing.ingest_event(k, 'llm.request', k || n, '2023-12-01 00:00Z', jsonb_build_object('model', 'gpt-4', 'user_id', k, 'input_tokens', 1000, 'output_tokens', 10), NULL)
FROM unnest('{acme,globex}'::text[]) k, generate_series(4, 4) n;
-- What no function writes yet, and an issue of a run.
INSERT INTO billing.purchase_order (customer_id, purchase_order_id, number, valid_from) SELECT customer_id, gen_random_uuid(), 'PO-' || key, '2023-01-01' FROM billing.customer;
INSERT INTO billing.payment_method (customer_id, payment_method_id, key, processor, reference, label) SELECT customer_id, gen_random_uuid(), 'card', 'stripe', 'pm_' || key, 'Visa' FROM billing.customer;
INSERT INTO billing.usage_event_void (customer_id, event_key, revision, occurred_at, voided_at, reason, actor) SELECT customer_id, gen_random_uuid(), 0, '2023-11-20', '2023-11-20', 'wrong', 'me' FROM billing.customer;
INSERT INTO billing.ingest_limit SELECT customer_id, 1000000, 1000, '2023-11-20', 'me' FROM billing.customer;
INSERT INTO billing.usage_dirty SELECT customer_id, 1, '2024-11-20', '2024-11-21' FROM billing.customer;
DO $$ BEGIN PERFORM billing_internal.usage_window_keep(c.customer_id, m.meter_id, '2023-11-01Z', '2023-12-01Z') FROM billing.customer c, billing.meter m WHERE m.key = 'tokens'; END $$;
INSERT INTO billing.late_usage (customer_id, contract_id, n, late_usage_id, noted_at) SELECT customer_id, contract_id, 1, gen_random_uuid(), '2023-12-01' FROM billing.contract;
INSERT INTO billing.contract_term (customer_id, contract_id, kind, term_key, valid_during, from_version, position, terms)
SELECT customer_id, contract_id, 'entitlement', 'sso', tstzrange(starts_at, NULL), 1, 1, '{"feature": "sso"}' FROM billing.contract;
SELECT count(*) FROM billing.catalog_apply('{"features": [{"key": "tokens", "kind": "metered", "meter": "tokens"}]}');
SELECT count(billing.entitlement_override(k, 'tokens', '1000000', NULL, 'a test')) FROM unnest('{acme,globex}'::text[]) k;
INSERT INTO billing.entitlement_window SELECT customer_id, 1, '2023-11-20', '2023-11-21' FROM billing.customer;
INSERT INTO billing.reservation (customer_id, reservation_id, idempotency_key, feature_id, meter_id, quantity, properties, made_at, expires_at, recorded_at)
SELECT customer_id, gen_random_uuid(), 'r', 1, (SELECT meter_id FROM billing.meter WHERE key = 'tokens'), 5, '{}', '2023-12-01', '2023-12-02', '2023-12-01' FROM billing.customer;
INSERT INTO billing.job_issue (job_issue_id, job_run_id, at, customer_id, kind, key, sqlstate, message)
SELECT gen_random_uuid(), (SELECT min(job_run_id::text)::uuid FROM billing.job_run), now(), customer_id, 'contract', key, 'ZB007', 'no price' FROM billing.customer;
SELECT billing.credit_purchase(k, '{"key":"pack","amount":"100","unit":"credits","price":"10"}') FROM unnest('{acme,globex}'::text[]) k;
SELECT d.result FROM unnest('{acme,globex}'::text[]) k, billing.draw_down(k, 90, 'first', 'credits') d;
SELECT billing.top_up_rule_set(k, '{"unit":"credits","threshold":"20","amount":"100","price":"0.1"}') FROM unnest('{acme,globex}'::text[]) k;
SELECT billing_internal.credits_post(jsonb_agg(jsonb_build_object('customer_id', i.customer_id, 'invoice_id', i.invoice_id, 'contract_id', i.contract_id, 'n', 1, 'bill_to', 'x', 'line_key', 'x', 'grant_id', g.grant_id, 'amount', '1')))
FROM billing.invoice i JOIN billing.credit_grant g USING (customer_id) WHERE g.key = 'pack' AND i.contract_id IS NOT NULL;
INSERT INTO billing.commitment SELECT customer_id, gen_random_uuid(), contract_id, 'annual', '2023-11-01' FROM billing.contract;
INSERT INTO billing.commitment_period (customer_id, commitment_id, starts_on, n, starts_at, from_version, kind, amount, unit, terms)
SELECT customer_id, commitment_id, '2023-11-01', 0, '2023-11-01', 1, 'postpaid', 100, 'USD', '{}' FROM billing.commitment;
SELECT billing.spend_limit_set(k, '{"key":"money","amount":"1","period":"month"}'), billing.alert_rule_set(k, '{"key":"money","kind":"spend","period":"month","thresholds":["0"]}'),
    billing.alert_rule_set(k, '{"key":"low","kind":"credit","unit":"credits","thresholds":["1000"]}') FROM unnest('{acme,globex}'::text[]) k;
SELECT r.allowed FROM billing.customer c, billing_internal.rate_take(c.customer_id, 1, 1, 1) r;
SELECT number, total FROM billing.invoice ORDER BY number;
SELECT key, customer_id FROM billing.customer ORDER BY key;

-- ── the leak test of one table or view ───────────────────────────────────────────────────────────
-- As golden_acme: how many rows it sees of its own (of how many there are) and of others (of how many), and what each
-- write says. 42501 is insufficient privilege.
CREATE FUNCTION pg_temp.leak_test(target text, OUT relation text, OUT own text, OUT others text, OUT writes text, OUT ok boolean) LANGUAGE plpgsql AS $$
DECLARE
    me bigint := (SELECT customer_id FROM billing.customer WHERE key = 'acme');
    shown boolean := has_column_privilege('golden_acme', target, 'customer_id', 'SELECT');
    partition boolean := (SELECT relispartition FROM pg_class WHERE oid = target::regclass);
    mine bigint; theirs bigint; seen bigint; leaked bigint;
    verb text;
    outcome text;
    outcomes text[] := '{}';
BEGIN
    relation := target;
    EXECUTE format('SELECT count(*) FILTER (WHERE customer_id = $1), count(*) FILTER (WHERE customer_id <> $1) FROM %s', target) INTO mine, theirs USING me;
    PERFORM set_config('role', 'golden_acme', true);
    BEGIN
        EXECUTE format('SELECT count(*) FILTER (WHERE customer_id = $1), count(*) FILTER (WHERE customer_id <> $1) FROM %s', target) INTO seen, leaked USING me;
        own := format('%s of %s', seen, mine);
        others := format('%s of %s', leaked, theirs);
    EXCEPTION WHEN insufficient_privilege THEN
        own := 'refused';
        others := 'refused';
    END;
    FOREACH verb IN ARRAY ARRAY['INSERT INTO %s (customer_id) VALUES (1)', 'UPDATE %s SET customer_id = 1', 'DELETE FROM %s', 'SELECT customer_id FROM %s FOR UPDATE', 'TRUNCATE %s', 'LOCK TABLE %s'] LOOP
        BEGIN
            EXECUTE format(verb, target);
            outcome := 'done!';
        EXCEPTION WHEN OTHERS THEN
            outcome := SQLSTATE;
        END;
        IF outcome <> ALL (outcomes) THEN outcomes := outcomes || outcome; END IF;
    END LOOP;
    PERFORM set_config('role', 'none', true);
    writes := array_to_string(outcomes, ' ');
    ok := (mine > 0 AND theirs > 0 OR partition) AND (writes = '42501' OR writes = '55000 42501 42809' /* a view nobody can write through */) AND CASE WHEN shown THEN seen = mine AND leaked = 0 ELSE own = 'refused' END;
END $$;

CREATE TEMP TABLE tested (target text);
INSERT INTO tested VALUES
    -- the directory
    ('billing.customer'), ('billing.customer_alias'), ('billing.login_customer'), ('billing.contract_key'), ('billing.invoice_number'),
    -- customer-owned
    ('billing.bill_to'), ('billing.contact'), ('billing.purchase_order'), ('billing.payment_method'), ('billing.contract'), ('billing.contract_version'), ('billing.contract_charge'), ('billing.contract_term'),
    ('billing.contract_policy'), ('billing.price_override'), ('billing.billing_period'), ('billing.usage_event_key'), ('billing.usage_event'), ('billing.usage_event_void'), ('billing.ingest_limit'), ('billing.dimension_set'),
    ('billing.usage_delta'), ('billing.usage_dirty'), ('billing.usage_bucket'), ('billing.usage_value'), ('billing.usage_window_kept'), ('billing.usage_total'), ('billing.invoice'), ('billing.invoice_line'), ('billing.late_usage'),
    ('billing.credit_pool'), ('billing.credit_grant'), ('billing.credit_block_balance'), ('billing.credit_ledger_entry'), ('billing.credit_allocation'), ('billing.credit_draw'),
    ('billing.top_up_rule'), ('billing.top_up'), ('billing.commitment'), ('billing.commitment_period'),
    ('billing.rate_state'), ('billing.spend_limit'), ('billing.alert_rule'), ('billing.alert_state'), ('billing.event_feed'),
    -- machinery that names customers: for staff
    ('billing.audit_log'), ('billing.job_issue'),
    -- views
    ('billing_internal.usage_cell'), ('billing_internal.usage_distinct'), ('billing.usage_hourly'), ('billing.usage_daily'), ('billing.fact_usage_daily'), ('billing.fact_invoice_line'), ('billing.my_contract'), ('billing.my_usage'), ('billing.my_invoices');
SELECT l.* FROM tested t, pg_temp.leak_test(t.target) l ORDER BY l.relation COLLATE "C";
-- Each customer with a credit note for its invoice
INSERT INTO tested VALUES ('billing.credit_note');
BEGIN;
INSERT INTO billing.invoice SELECT (jsonb_populate_record(i, jsonb_build_object('invoice_id', gen_random_uuid(), 'kind', 'credit_note', 'key', i.key || '.2', 'number', 'CN-' || i.number, 'state', 'open', 'total', -1, 'corrects', '{1}'::int[], 'credits', i.invoice_id))).* FROM billing.invoice i WHERE i.n = 1;
SELECT l.* FROM pg_temp.leak_test('billing.credit_note') l;
ROLLBACK;
-- For staff: a customer's login may not read them at all. (unpriced_usage is empty here.)
INSERT INTO tested VALUES ('billing.entitlement_override'), ('billing.entitlement_state'), ('billing.entitlement_window'), ('billing.reservation');
SELECT l.* FROM tested t, pg_temp.leak_test(t.target) l WHERE t.target ~ '(entitlement|reservation)' ORDER BY l.relation COLLATE "C";
INSERT INTO tested VALUES ('billing.dim_customer'), ('billing.unpriced_usage'), ('billing_internal.ingest_limit_state'), ('billing.contract_change'), ('billing.contract_item');
SELECT l.relation, l.own, l.writes FROM pg_temp.leak_test('billing.dim_customer') l UNION ALL SELECT l.relation, l.own, l.writes FROM pg_temp.leak_test('billing.unpriced_usage') l
UNION ALL SELECT l.relation, l.own, l.writes FROM pg_temp.leak_test('billing_internal.ingest_limit_state') l
UNION ALL SELECT l.relation, l.own, l.writes FROM unnest('{billing.contract_change, billing.contract_item}'::text[]) t, pg_temp.leak_test(t) l;
\echo 'a table or view with a customer_id that has no leak test'
SELECT c.oid::regclass AS offender FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'customer_id' AND NOT a.attisdropped
WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
    AND c.oid::regclass::text NOT IN (SELECT t.target FROM tested t) ORDER BY 1;
\echo 'a partition that a customer''s login, or staff, can read by itself'
SELECT l.* FROM pg_class c, pg_temp.leak_test(c.oid::regclass::text) l
WHERE c.relispartition AND c.relkind = 'r' AND c.relnamespace = 'billing_internal'::regnamespace AND (l.own <> 'refused' OR l.writes <> '42501');
SELECT count(*) AS partitions, count(*) FILTER (WHERE has_table_privilege('billing_reader', c.oid, 'SELECT')) AS readable FROM pg_class c
WHERE c.relispartition AND c.relkind = 'r' AND c.relnamespace = 'billing_internal'::regnamespace;

-- ── who one is ───────────────────────────────────────────────────────────────────────────────────
SET ROLE golden_acme;
SELECT string_agg(key, ' ' ORDER BY key) AS acme_sees FROM billing.customer;
RESET ROLE;
SET ROLE golden_both;
SELECT string_agg(key, ' ' ORDER BY key) AS both_see FROM billing.customer;
RESET ROLE;
SET ROLE golden_nobody;
SELECT count(*) AS nobody_sees FROM billing.customer;
\set ON_ERROR_STOP off
\echo 'a login that maps to nothing, or is no customer, gets nothing'
RESET ROLE; SET ROLE golden_stranger;
SELECT count(*) FROM billing.customer;
SELECT * FROM billing.usage('acme', 'tokens', '2023-11-01Z', '2023-12-01Z');
RESET ROLE;
\c - golden_acme
\echo 'nor by becoming somebody else, or by leaving row security out'
SET ROLE golden_globex;
SET ROLE billing_reader;
SET SESSION AUTHORIZATION golden_globex;
SET row_security = off;
SELECT count(*) FROM billing.invoice;
RESET row_security;
\echo 'nor by a function that looks at rows before row security does'
CREATE FUNCTION pg_temp.look(seen text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE WARNING 'saw %', seen; RETURN true; END $$;
SELECT count(*) FROM billing.customer WHERE pg_temp.look(key);
SELECT count(*) FROM billing.usage_daily WHERE pg_temp.look(customer);
\echo 'nor by names of one''s own'
CREATE TEMP TABLE login_customer AS SELECT 'golden_acme'::name AS login, 2::bigint AS customer_id;
CREATE FUNCTION pg_temp.my_customers() RETURNS bigint[] LANGUAGE sql AS 'SELECT ''{1,2}''::bigint[]';
SET search_path = pg_temp, billing, billing_internal;
SELECT billing_internal.my_customers() = ARRAY[(SELECT customer_id FROM billing.customer WHERE key = 'acme')] AS only_mine, (SELECT count(*) FROM billing.customer) AS customers;
CREATE TABLE billing.mine (a int);
CREATE FUNCTION billing.now(a int) RETURNS int LANGUAGE sql AS 'SELECT 1';
INSERT INTO billing.login_customer VALUES ('golden_acme', 2);
RESET search_path;
\c - postgres
SET client_min_messages = warning;
\set ON_ERROR_STOP on

-- ── functions ────────────────────────────────────────────────────────────────────────────────────
-- Every reader that takes a customer, contract or invoice, asked by golden_acme about each name globex has, and the
-- same about a name nobody has: the answers must not differ but in the name.
CREATE TEMP TABLE known (argument text, owner text, what text, value text);
INSERT INTO known
SELECT 'customer', c.key, x.what, x.value FROM billing.customer c, LATERAL (VALUES ('key', c.key), ('alias', c.key || '-inc'), ('id', c.customer_id::text)) x (what, value)
UNION ALL SELECT 'contract', c.key, x.what, x.value FROM billing.customer c JOIN billing.contract k USING (customer_id), LATERAL (VALUES ('key', k.key), ('customer', c.key), ('id', k.contract_id::text)) x (what, value)
UNION ALL SELECT 'invoice', c.key, x.what, x.value FROM billing.customer c JOIN billing.invoice i ON i.customer_id = c.customer_id AND i.n = 1, LATERAL (VALUES ('number', i.number), ('key', i.key), ('id', i.invoice_id::text)) x (what, value)
UNION ALL SELECT a, 'nobody', 'name', 'nobody' FROM unnest('{customer,contract,invoice}'::text[]) a;
GRANT SELECT ON known TO golden_acme;
CREATE TEMP TABLE other_argument (name text, value text);
INSERT INTO other_argument VALUES ('meter', 'tokens'), ('feature', 'tokens'), ('from_at', '2023-11-01Z'), ('until_at', '2024-01-01Z'), ('line_key', 'tokens/2023-11-01/model=gpt-4'), ('at', '2023-11-16Z');
CREATE FUNCTION pg_temp.ask(f regprocedure, of_argument text, of_value text) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    call text;
    n bigint;
    said text;
BEGIN
    SELECT format('SELECT count(*) FROM %s(%s)', p.proname_full, string_agg(format('%I => %L', a.name, CASE WHEN a.name = of_argument THEN of_value ELSE o.value END), ', ')) INTO call
    FROM (SELECT p.*, p.pronamespace::regnamespace || '.' || quote_ident(p.proname) AS proname_full FROM pg_proc p WHERE p.oid = f) p,
        unnest(p.proargnames[1:p.pronargs]) WITH ORDINALITY a (name, place) LEFT JOIN other_argument o USING (name)
    WHERE a.name = of_argument OR a.place <= p.pronargs - p.pronargdefaults GROUP BY p.proname_full;
    PERFORM set_config('role', 'golden_acme', true);
    BEGIN
        EXECUTE call INTO n;
        said := n || ' rows';
    EXCEPTION WHEN OTHERS THEN
        said := SQLSTATE || ' ' || replace(SQLERRM, of_value, '<it>');
    END;
    PERFORM set_config('role', 'none', true);
    RETURN said;
END $$;
CREATE TEMP TABLE answer AS
SELECT p.oid::regprocedure::text AS function, k.owner, k.what, pg_temp.ask(p.oid, k.argument, k.value) AS said
FROM pg_proc p, unnest(p.proargnames[1:p.pronargs]) a (name) JOIN known k ON k.argument = a.name
WHERE p.pronamespace = 'billing'::regnamespace AND p.provolatile <> 'v' ORDER BY 1, 2, 3;
\echo 'what it hears about others (to be read): one answer a function, the same as about what is not there'
SELECT split_part(a.function, '(', 1) AS function, string_agg(DISTINCT a.owner || ' ' || a.what, ', ') AS asked, a.said FROM answer a WHERE a.owner <> 'acme' GROUP BY a.function, a.said ORDER BY 1, 2;
\echo 'an answer about globex that differs from that about nobody'
SELECT a.* FROM answer a WHERE a.owner = 'globex' AND a.said <> (SELECT n.said FROM answer n WHERE n.function = a.function AND n.owner = 'nobody' LIMIT 1);
\echo 'what it hears about itself (to be read): list prices, policies and previews made of them are for staff'
SELECT split_part(a.function, '(', 1) AS function, a.said, string_agg(a.what, ', ' ORDER BY a.what) AS asked_by FROM answer a WHERE a.owner = 'acme' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT (SELECT min(i.number) FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE c.key = 'acme' AND i.n = 1) AS acme_invoice,
    (SELECT min(i.number) FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE c.key = 'globex' AND i.n = 1) AS globex_invoice \gset
SET ROLE golden_acme;
SELECT quantity, events FROM billing.usage('acme', 'tokens', '2023-11-01Z', '2024-01-01Z');
SELECT quantity FROM billing.usage('acme', 'users', '2023-11-01Z', '2024-01-01Z');
SELECT starts_at, dimensions, quantity FROM billing.usage('acme', 'tokens', '2023-11-01Z', '2024-01-01Z', 'month', '{user_id}') ORDER BY 1, 2;
SELECT event_id, value FROM billing.invoice_line_events(:'acme_invoice', 'tokens/2023-11-01/model=gpt-4');
SELECT count(*) > 10 AS explained, bool_or(t ~ 'globex') AS of_others FROM billing.invoice_explain(:'acme_invoice') t;
SELECT invoice, line_key, amount FROM billing.fact_invoice_line ORDER BY line_key;
SELECT meter, day, quantity FROM billing.usage_daily ORDER BY 1, 2;
\set ON_ERROR_STOP off
SELECT billing.invoice_explain(:'globex_invoice');
\echo :SQLSTATE
\set ON_ERROR_STOP on
RESET ROLE;

\echo 'a function granted to a customer''s login that does not work for it: it lacks a right, or there is no call of it here'
CREATE TEMP TABLE customer_call (function text, call text);
INSERT INTO customer_call VALUES
    ('allocate', $$billing.allocate('1.00 USD', '{1,2}')$$), ('amount', $$billing.amount('1 USD')$$), ('currency', $$billing.currency('1 USD')$$), ('to_money', $$billing.to_money(1, 'USD')$$),
    ('sum', $$(SELECT billing.sum(m) FROM unnest('{"1 USD"}'::billing.money[]) m)$$), ('now', $$billing.now()$$), ('catalog_example', $$billing.catalog_example('seats')$$),
    ('usage_count', $$(SELECT billing.usage_count(x) + billing.usage_count(*) FROM generate_series(1, 3) x)$$), ('usage_sum', $$(SELECT billing.usage_sum(x) FROM generate_series(1, 3) x)$$),
    ('usage_max', $$(SELECT billing.usage_max(x) FROM generate_series(1, 3) x)$$), ('usage_unique_count', $$(SELECT billing.usage_unique_count(x::text) FROM generate_series(1, 3) x)$$),
    ('usage_min', $$(SELECT billing.usage_min(x) FROM generate_series(1, 3) x)$$), ('usage_average', $$(SELECT billing.usage_average(x) FROM generate_series(1, 3) x)$$),
    ('usage_latest', $$(SELECT billing.usage_latest(x, '2026-01-01Z') FROM generate_series(1, 3) x)$$), ('usage_percentile', $$(SELECT billing.usage_percentile(x, 50) FROM generate_series(1, 3) x)$$),
    ('usage_weighted_sum', $$(SELECT billing.usage_weighted_sum(x, '2026-01-01Z', '2026-01-01Z', '2026-02-01Z') FROM generate_series(1, 3) x)$$),
    ('credit_statement', $$billing.credit_statement('acme')$$), ('rate', $$billing.rate('{"model":"per_unit","unit_price":"1"}', 2)$$), ('rate_events', $$billing.rate_events('{"model":"per_unit","unit_price":"1"}', '{1,2}')$$),
    ('rate_explain', $$billing.rate_explain('{"model":"per_unit","unit_price":"1"}', 2)$$), ('usage', $$billing.usage('acme', 'tokens', '2023-11-01 00:10Z', '2024-01-01Z', 'day', '{user_id}')$$),
    ('usage', $$billing.usage('acme', 'users', '2023-11-01 00:10Z', '2024-01-01Z', 'hour', '{}', '{"user_id":"acme1"}', 'Asia/Kolkata')$$),
    ('entitled', $$billing.entitled('acme', 'tokens')$$), ('entitlement_check', $$billing.entitlement_check('acme', 'tokens')$$), ('entitlements', $$billing.entitlements('acme')$$), ('why_denied', $$billing.why_denied('acme', 'tokens')$$),
    ('invoice_explain', format('billing.invoice_explain(%L)', :'acme_invoice')), ('invoice_explain', format('billing.invoice_explain((SELECT document FROM billing.invoice WHERE number = %L))', :'acme_invoice')),
    ('my_spend', $$billing.my_spend('2023-11-01', '2023-12-02', '{model}')$$), ('my_credits', 'billing.my_credits()'), ('my_entitlements', 'billing.my_entitlements()'), ('customer_summary', $$billing.customer_summary('acme')$$), ('customer_page', $$billing.customer_page('acme')$$),
    ('invoice_line_events', format('billing.invoice_line_events(%L, ''tokens/2023-11-01/model=gpt-4'')', :'acme_invoice'));
CREATE FUNCTION pg_temp.call_it(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE said text := 'works';
BEGIN
    PERFORM set_config('role', 'golden_acme', true);
    BEGIN
        EXECUTE 'SELECT ' || call;
    EXCEPTION WHEN OTHERS THEN
        said := SQLSTATE || ' ' || SQLERRM;
    END;
    PERFORM set_config('role', 'none', true);
    RETURN said;
END $$;
SELECT p.proname, coalesce(pg_temp.call_it(c.call), 'is not called here') AS said
FROM (SELECT DISTINCT p.proname::text FROM pg_proc p WHERE p.pronamespace = 'billing'::regnamespace AND has_function_privilege('billing_customer', p.oid, 'EXECUTE')
    AND p.proname NOT IN ('install', 'migrate') /* PUBLIC's: they say who may */) p FULL JOIN customer_call c ON c.function = p.proname
WHERE p.proname IS NULL OR c.call IS NULL OR pg_temp.call_it(c.call) <> 'works' ORDER BY 1;
\echo 'a writer that a customer''s login may call'
SELECT p.oid::regprocedure AS offender FROM pg_proc p WHERE p.pronamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND (p.provolatile = 'v' OR p.prosecdef)
    AND has_function_privilege('golden_acme', p.oid, 'EXECUTE') AND p.proname NOT IN ('install', 'migrate', 'fail', 'raise_fault', 'my_customers', 'customer_bills', 'customer_spend', 'customer_pending', 'customer_credit_left', 'customer_limits', 'customer_rate' /* see catalogue.sql */)
    AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'btree_gist' WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') ORDER BY 1;
\set ON_ERROR_STOP off
SET ROLE golden_acme;
SELECT billing.ingest_event('acme', 'llm.request', 'mine', '2023-12-01Z', '{}', NULL);
SELECT billing.customer_upsert('{"key": "acme", "name": "Mine"}');
SELECT billing.invoice_void(:'acme_invoice', 'too much');
SELECT billing.customer_login_add('globex', 'golden_acme');
SELECT * FROM billing.install();
SELECT billing_internal.meters_load('1/1', '{}', '{}', '{}', '{}');
RESET ROLE;
\set ON_ERROR_STOP on

-- ── staff and the engine ─────────────────────────────────────────────────────────────────────────
-- As each role, on each table: does it see all rows; which of the writes is done.
CREATE FUNCTION pg_temp.try_role(of_role text, target text, OUT sees_all boolean, OUT done text) LANGUAGE plpgsql AS $$
DECLARE
    every bigint;
    seen bigint := -1;
    verb record;
    -- a column the engine may close, if the table has one
    closing text := (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = target::regclass AND a.attnum > 0 AND a.attgenerated = '' ORDER BY has_column_privilege('billing_engine', a.attrelid, a.attnum, 'UPDATE') DESC, a.attnum LIMIT 1);
BEGIN
    EXECUTE format('SELECT count(*) FROM %s', target) INTO every;
    PERFORM set_config('role', of_role, true);
    BEGIN
        EXECUTE format('SELECT count(*) FROM %s', target) INTO seen;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
    done := '';
    FOR verb IN SELECT * FROM (VALUES ('insert', format('INSERT INTO %s DEFAULT VALUES', target)),
        ('update', format('UPDATE %s SET %I = %I WHERE false', target, closing, closing)), ('delete', format('DELETE FROM %s WHERE false', target)), ('truncate', format('TRUNCATE %s', target))) v (name, statement) LOOP
        BEGIN
            EXECUTE verb.statement;
            done := done || verb.name || ' ';
        EXCEPTION WHEN insufficient_privilege THEN NULL;
            WHEN not_null_violation OR check_violation OR unique_violation THEN done := done || verb.name || ' '; -- let in
        END;
    END LOOP;
    PERFORM set_config('role', 'none', true);
    sees_all := seen = every;
END $$;
SELECT r.role, t.sees_all, t.done, count(*) AS tables, CASE WHEN count(*) <= 10 THEN string_agg(k.table_name, ' ' ORDER BY k.table_name) END AS which
FROM unnest('{billing_reader,billing_app,billing_operator,billing_finance,billing_success,billing_sales,billing_admin,billing_engine}'::text[]) WITH ORDINALITY r (role, place), billing_internal.table_kind k, pg_temp.try_role(r.role, k.table_name) t
GROUP BY r.place, r.role, t.sees_all, t.done ORDER BY r.place, t.sees_all, t.done;
\set ON_ERROR_STOP off
\echo 'what was posted stays: the engine itself can''t'
SET ROLE billing_engine;
UPDATE billing.invoice SET total = 0;
UPDATE billing.invoice_line SET amount = 0;
UPDATE billing.usage_event SET properties = '{}';
UPDATE billing.contract_version SET document = '{}';
UPDATE billing.audit_log SET after = '{}';
DELETE FROM billing.usage_event_key;
ALTER TABLE billing.invoice DISABLE ROW LEVEL SECURITY;
RESET ROLE;
\echo 'each role does its own work'
SET ROLE billing_app;
SELECT billing.ingest_event('acme', 'llm.request', 'by-app', '2023-12-01Z', '{"model": "gpt-4", "input_tokens": 1, "output_tokens": 1}', NULL);
SELECT quantity FROM billing.usage('acme', 'tokens', '2023-12-01Z', '2024-01-01Z');
SELECT amount, state FROM billing.spend('globex', '2023-11-01Z', '2024-01-01Z');
SELECT billing.invoice_finalize('acme-1/1');
SELECT billing.policy_set('rounding_mode', 'half_up');
CREATE TEMP TABLE batch (LIKE billing.usage_event_input);
INSERT INTO batch VALUES ('acme', 'llm.request', 'from-table', '2023-12-01T00:00:00Z', '{"model": "gpt-4", "input_tokens": 1, "output_tokens": 1}');
SELECT accepted FROM billing.ingest_from('batch');
DROP TABLE batch;
RESET ROLE; SET ROLE billing_reader;
SELECT billing.invoice_preview('acme')->'totals'->>'total' AS preview;
SELECT count(*) > 0 AS checked, sum(failed) AS failed FROM billing.verify('full');
SELECT billing.ingest_event('acme', 'llm.request', 'by-reader', '2023-12-01Z', '{}', NULL);
CALL billing.bill_run();
RESET ROLE; SET ROLE billing_finance;
SELECT billing.policy_set('rounding_mode', 'half_up');
CALL billing.bill_run();
SELECT billing.ingest_event('acme', 'llm.request', 'by-finance', '2023-12-01Z', '{}', NULL);
RESET ROLE; SET ROLE billing_operator;
CALL billing.fold();
SELECT count(*) AS changes FROM billing.catalog_apply(billing.catalog_example('seats'), true);
RESET ROLE; SET ROLE billing_sales;
SELECT billing.customer_upsert('{"key": "initech"}');
SELECT billing.catalog_apply(billing.catalog_example('seats'), true);
RESET ROLE; SET ROLE billing_success;
SELECT count(*) FROM billing.customer;
SELECT billing.customer_upsert('{"key": "hooli"}');
RESET ROLE;
\set ON_ERROR_STOP on
-- ── drafts are for staff ─────────────────────────────────────────────────────────────────────────
SELECT billing.contract_create('{"key": "acme-secret", "customer": "acme", "starts_on": "2024-01-01", "plan": "pro", "overrides": [{"meter": "tokens", "match": {"model": "gpt-4"}, "unit_price": "0.01"}]}');
SELECT billing.test_clock_set('2024-01-01 00:00:00Z');
SELECT count(*) AS drafted FROM billing.invoice_generate('acme-1');
CREATE TEMP TABLE draft_of AS SELECT 'contract' AS kind, contract_id AS id FROM billing.contract WHERE state = 'draft' UNION ALL SELECT 'invoice', invoice_id FROM billing.invoice WHERE state = 'draft';
GRANT SELECT ON draft_of TO golden_acme;
CREATE TEMP VIEW drafts AS
    SELECT 'contract' AS relation, count(*) FROM billing.contract WHERE contract_id IN (SELECT id FROM draft_of)
    UNION ALL SELECT 'contract_key', count(*) FROM billing.contract_key WHERE contract_id IN (SELECT id FROM draft_of)
    UNION ALL SELECT 'contract_version', count(*) FROM billing.contract_version WHERE contract_id IN (SELECT id FROM draft_of)
    UNION ALL SELECT 'contract_charge', count(*) FROM billing.contract_charge WHERE contract_id IN (SELECT id FROM draft_of)
    UNION ALL SELECT 'contract_term', count(*) FROM billing.contract_term WHERE contract_id IN (SELECT id FROM draft_of)
    UNION ALL SELECT 'price_override', count(*) FROM billing.price_override WHERE contract_id IN (SELECT id FROM draft_of)
    UNION ALL SELECT 'billing_period', count(*) FROM billing.billing_period WHERE contract_id IN (SELECT id FROM draft_of)
    UNION ALL SELECT 'invoice', count(*) FROM billing.invoice WHERE invoice_id IN (SELECT id FROM draft_of)
    UNION ALL SELECT 'invoice_line', count(*) FROM billing.invoice_line WHERE invoice_id IN (SELECT id FROM draft_of);
ALTER VIEW drafts SET (security_invoker = true);
GRANT SELECT ON drafts TO golden_acme;
CREATE TEMP TABLE seen AS SELECT * FROM drafts;
SET ROLE golden_acme;
CREATE TEMP TABLE seen_by_acme AS SELECT * FROM drafts;
RESET ROLE;
SELECT relation, s.count AS there, a.count AS acme_sees FROM seen s JOIN seen_by_acme a USING (relation) ORDER BY relation;
SELECT key AS draft FROM billing.invoice WHERE state = 'draft' AND key LIKE 'acme%' \gset
\echo 'a draft that a function tells it about, or that differs from one that is not there'
SELECT replace(pg_temp.call_it(format('billing.invoice_explain(%L)', x)), x, '<it>') AS said, count(*) FROM unnest(ARRAY[:'draft', 'nothing']) x GROUP BY 1;
SELECT count(*) AS contracts, count(*) FILTER (WHERE state = 'draft') AS drafts FROM billing.contract;
-- … of which the rest is seen as before
SET ROLE golden_acme;
SELECT (SELECT count(*) FROM billing.contract) AS contracts, (SELECT count(*) FROM billing.contract_charge) AS charges, (SELECT count(*) FROM billing.price_override) AS overrides, (SELECT count(*) > 0 FROM billing.invoice_line) AS lines;
RESET ROLE;

-- ── a login is the role it was given to ──────────────────────────────────────────────────────────
SET ROLE golden_both;
SELECT string_agg(key, ' ' ORDER BY key) AS both_see FROM billing.customer;
RESET ROLE;
SELECT billing.customer_login_remove('globex', 'golden_both');
SET ROLE golden_both;
SELECT string_agg(key, ' ' ORDER BY key) AS both_see FROM billing.customer;
RESET ROLE;
\set ON_ERROR_STOP off
SELECT billing.customer_login_remove('globex', 'golden_both');
SELECT billing.customer_login_remove('nobody', 'golden_both');
SELECT billing.customer_login_remove('acme', NULL);
\set ON_ERROR_STOP on
\echo 'a role made anew under the name of one that was dropped is another one'
DROP OWNED BY golden_both;
DROP ROLE golden_both;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
CREATE ROLE golden_both LOGIN IN ROLE billing_customer;
SET ROLE golden_both;
SELECT count(*) AS both_see FROM billing.customer;
RESET ROLE;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
SELECT billing.customer_login_add('acme', 'golden_both'), billing.customer_login_add('globex', 'golden_both');
SET ROLE golden_both;
SELECT string_agg(key, ' ' ORDER BY key) AS both_see FROM billing.customer;
RESET ROLE;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
SELECT action, key, (SELECT c.key FROM billing.customer c WHERE c.customer_id = a.customer_id) AS customer FROM billing.audit_log a WHERE kind = 'login' ORDER BY audit_id;
SELECT billing.customer_login_remove(c.key, l.login) FROM billing.login_customer l JOIN billing.customer c USING (customer_id);

-- The audit log names who asked, not the engine.
SELECT DISTINCT actor, action FROM billing.audit_log WHERE actor LIKE 'billing%' ORDER BY 1, 2;
DROP OWNED BY golden_acme, golden_globex, golden_both, golden_nobody, golden_stranger;
DROP ROLE golden_acme, golden_globex, golden_both, golden_nobody, golden_stranger;
SELECT check_name, failed FROM billing.verify('full') WHERE failed <> 0;

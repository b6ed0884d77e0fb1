-- time_travel(): what is due until an instant, on the real data; previews of numbers; nothing of it stays.
\set ECHO none
\i tests/pg_regress/helpers.sql
-- All tables, each with its rows, as one text a table.
CREATE FUNCTION pg_temp.picture() RETURNS TABLE (name text, rows text) LANGUAGE plpgsql AS $$
BEGIN
    FOR name IN SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1 LOOP
        EXECUTE format('SELECT count(*) || '' '' || coalesce(md5(string_agg(t::text, '''' ORDER BY t::text)), '''') FROM %s t', name) INTO rows;
        RETURN NEXT;
    END LOOP;
END
$$;
CREATE FUNCTION pg_temp.use(id text, n numeric, at timestamptz) RETURNS text LANGUAGE sql AS $$ SELECT billing.ingest_event('acme', 'use', id, at, jsonb_build_object('n', n)) $$;
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}],"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"q","meter":"q","pricing":{"model":"per_unit","unit_price":"1"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"q"}],"fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"49"}}]}]}');
SELECT billing.customer_upsert('{"key":"acme"}') AS a, billing.subscribe('acme', 'pro', '2026-01-01') AS b \gset
SELECT billing.customer_upsert('{"key":"tokyo","time_zone":"Asia/Tokyo"}') AS a, billing.contract_create('{"key":"tokyo-1","customer":"tokyo","plan":"pro","starts_on":"2026-01-15","term":"2 months","billing":{"alignment":"anniversary"}}') AS b,
  billing.contract_activate('tokyo-1') AS c \gset
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-01-20T12:00:00Z') AS clock \gset
SELECT pg_temp.use('a1', 100, '2026-01-10Z'), pg_temp.use('a2', 7, '2026-01-20Z');

-- Not outside a transaction, not back, not for ever, not above READ COMMITTED, not for everybody
\set ON_ERROR_STOP off
\set VERBOSITY terse
SELECT * FROM billing.time_travel('2026-04-01Z');
\echo :SQLSTATE :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY['SELECT * FROM billing.time_travel(''2026-01-20 11:59:59Z'')', 'SELECT * FROM billing.time_travel(NULL)', 'SELECT * FROM billing.time_travel(''2036-01-20 12:00:01Z'')', 'SELECT * FROM billing.time_travel(''infinity'')', 'SELECT * FROM billing.time_travel(''-infinity'')']) c;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.fails('SELECT * FROM billing.time_travel(''2026-04-01Z'')');
ROLLBACK;
SET ROLE billing_operator;
SELECT pg_temp.fails('SELECT * FROM billing.time_travel(''2026-04-01Z'')');
RESET ROLE;
\a \t

-- Every boundary on the way, in order of time; Tokyo's midnights are those of 15:00 UTC
CREATE TEMP TABLE before AS SELECT * FROM pg_temp.picture();
BEGIN;
SET LOCAL ROLE billing_finance;
SELECT * FROM billing.time_travel('2026-04-01Z');
SELECT billing.now();
SELECT i.number, k.key, i.n, i.issued_on, i.total FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE i.number LIKE 'PREVIEW%' ORDER BY substr(i.number, 9)::int;
SELECT key, state, next_bill_at FROM billing.contract ORDER BY key;
-- … no number is used, no lock of a stripe held, and what can be asked of an invoice can be asked of a preview
SELECT series, last_number FROM billing.invoice_number_series;
SELECT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
RESET ROLE;
SELECT line_key, billed, recomputed, same_bytes FROM billing.invoice_recompute('PREVIEW-2');
SELECT t FROM billing.invoice_explain('PREVIEW-2') t LIMIT 3;
SELECT * FROM billing.verify('full') WHERE failed <> 0;
-- … on from here, but not back
SELECT * FROM billing.time_travel('2026-05-01Z');
SELECT billing.invoice_void('PREVIEW-2', 'what if');
SELECT billing.now(), state, did FROM billing.tick() WHERE job = 'bill_run';
SELECT number, total FROM billing.invoice WHERE replaces IS NOT NULL;
-- … usage of months to come: without a lock, where there are partitions
SELECT pg_temp.use('a3', 1, '2026-01-25Z');
SELECT number, total FROM billing.invoice WHERE state = 'open' AND number LIKE 'PREVIEW%' AND n = 1;
SELECT * FROM billing.time_travel('2026-06-01Z');
SELECT i.number, l.key, l.amount FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) WHERE l.kind = 'difference';
SELECT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
\a \t
SELECT pg_temp.fails($$SELECT pg_temp.use('a4', 1, '2026-05-25Z')$$);
\a \t
-- … fold would keep the deltas from others
SELECT count(*) > 0 AS deltas FROM billing.usage_delta;
SELECT job FROM billing.tick();
ROLLBACK;
SELECT * FROM pg_temp.picture() EXCEPT SELECT * FROM before;
SELECT billing.now();

-- It can't be committed
BEGIN;
SELECT count(*) FROM billing.time_travel('2026-04-01Z');
\set ON_ERROR_STOP off
COMMIT;
\echo :SQLSTATE :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
SELECT * FROM pg_temp.picture() EXCEPT SELECT * FROM before;
-- … also within a savepoint that is released
BEGIN;
SAVEPOINT a;
SELECT count(*) FROM billing.time_travel('2026-04-01Z');
RELEASE a;
\set ON_ERROR_STOP off
COMMIT;
\echo :SQLSTATE
\set ON_ERROR_STOP on
-- … or in a function that catches its error
BEGIN;
DO $$ BEGIN PERFORM billing.time_travel('2026-02-01Z'); RAISE 'back'; EXCEPTION WHEN OTHERS THEN NULL; END $$;
SELECT billing.now();
COMMIT;
SELECT * FROM pg_temp.picture() EXCEPT SELECT * FROM before;
-- … but rolled back to a savepoint before, nobody travelled: the rest is real
BEGIN;
SAVEPOINT a;
SELECT count(*) FROM billing.time_travel('2026-04-01Z');
ROLLBACK TO a;
SELECT billing.now(), billing_internal.travelling();
SELECT pg_temp.use('b1', 5, '2026-01-20Z');
COMMIT;
SELECT count(*) AS events FROM billing.usage_event;

-- The next numbers are what they would have been
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT number, total FROM billing.invoice WHERE issued_on = '2026-02-01';

-- Grace: a draft at its boundary, issued when the grace has passed; what is due at the start is done first
SELECT billing.policy_set('invoice_grace', '3 days');
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
BEGIN;
SELECT * FROM billing.time_travel('2026-04-02Z');
SELECT number, key, state FROM billing.invoice WHERE number IS NULL OR number LIKE 'PREVIEW%' ORDER BY issued_on, key;
ROLLBACK;
-- What can't be billed is an issue, and no loop
UPDATE billing.contract_charge SET terms = terms - 'pricing' WHERE charge_key = 'platform' AND customer_id = (SELECT customer_id FROM billing.customer WHERE key = 'tokyo');
BEGIN;
SELECT * FROM billing.time_travel('2026-04-04Z');
ROLLBACK;

-- A term that renews itself on the way
SELECT billing.customer_upsert('{"key":"renews"}') AS a, billing.contract_create('{"key":"renews-1","customer":"renews","plan":"pro","starts_on":"2026-03-01","term":"2 months","renewal":{"auto":true,"notice_days":10,"uplift":{"percent":"5"}}}') AS b, billing.contract_activate('renews-1') AS c \gset
BEGIN;
SELECT at, job, state, did FROM billing.time_travel('2026-05-05Z') WHERE job = 'renewal' OR at = '2026-05-04Z';
SELECT i.key, i.number IS NOT NULL AS issued, i.total FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'renews-1' ORDER BY i.n;
SELECT ends_on FROM billing.contract WHERE key = 'renews-1';
ROLLBACK;
SELECT ends_on FROM billing.contract WHERE key = 'renews-1';
-- In a live installation as here
UPDATE billing.installation SET mode = 'live';
BEGIN;
SELECT count(*) FROM billing.time_travel('2026-04-01Z');
\set ON_ERROR_STOP off
COMMIT;
\echo :SQLSTATE :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on

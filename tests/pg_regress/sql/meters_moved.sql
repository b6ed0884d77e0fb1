-- A meter whose event type changed in a version, under retention of the old type and corrections of old events; what a
-- change of a meter asks of its transaction; bounds of what is asked.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p","name":"Product"}],"meters":[{"key":"peak","event_type":"old","aggregation":"max","value":"n"},{"key":"lvl","event_type":"old","aggregation":"weighted_sum","value":"n"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"l","meter":"lvl","pricing":{"model":"per_unit","unit_price":"0.01"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"l","product":"p","meter":"lvl","price":"l"}]}]}');
SELECT billing.customer_upsert('{"key":"acme"}'), billing.subscribe('acme', 'pro', '2026-01-01');
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
SELECT accepted FROM billing.ingest('[{"customer":"acme","event_id":"level","event_type":"old","occurred_at":"2026-01-10T00:00:00Z","properties":{"n":10}},{"customer":"acme","event_id":"b","event_type":"new","occurred_at":"2026-02-26T00:10:00Z","properties":{"n":100}},
  {"customer":"acme","event_id":"c","event_type":"new","occurred_at":"2026-02-26T00:20:00Z","properties":{"n":50}}]');
SELECT action, key FROM billing.catalog_apply('{"meters":[{"key":"peak","event_type":"new","aggregation":"max","value":"n","valid_from":"2026-02-01T00:00:00Z"},{"key":"lvl","event_type":"another","aggregation":"weighted_sum","value":"n","valid_from":"2026-02-01T00:00:00Z"}]}');
CALL billing.bill_run();
SELECT i.n, l.key, trim_scale(l.quantity) AS quantity FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) ORDER BY 1;
-- A level of the old type is carried into all periods since: each is noted, and billed by the next run.
SELECT billing.event_void('acme', 'level', 'wrong');
SELECT n FROM billing.late_usage WHERE closed_at IS NULL ORDER BY n;
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT i.kind, l.key, trim_scale(l.quantity) AS quantity, l.amount FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) WHERE l.kind = 'difference' ORDER BY l.key;
-- Retention of the old type does not stop the new one from being corrected and measured again.
SELECT billing.policy_set('event_age_max', '34 days'), billing.event_retention_set('old', '34 days');
CALL billing.retention();
SELECT event_type, removed_until FROM billing.event_retention;
SELECT action, key, before, after FROM billing.audit_log WHERE action = 'retention';
SELECT quantity FROM billing.usage('acme', 'peak', '2026-02-01Z', '2026-03-01Z');
SELECT billing.event_void('acme', 'b', 'wrong');
SELECT quantity FROM billing.usage('acme', 'peak', '2026-02-01Z', '2026-03-01Z');
CALL billing.fold();
SELECT quantity FROM billing.usage('acme', 'peak', '2026-02-01Z', '2026-03-01Z');
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
-- Events committed just before must be seen
\set ON_ERROR_STOP off
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT action FROM billing.catalog_apply('{"meters":[{"key":"calls","event_type":"new","aggregation":"count"}]}');
\echo :SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT billing.meter_rebuild_step(gen_random_uuid());
\echo :SQLSTATE
ROLLBACK;
-- A dry run measures nothing
SELECT action FROM billing.catalog_apply('{"meters":[{"key":"calls","event_type":"new","aggregation":"count"}]}', true);
SELECT count(*) FROM billing.meter_rebuild WHERE finished_at IS NULL;
-- Bounds
\set ON_ERROR_STOP on
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  $$SELECT billing.usage('acme', 'peak', '1900-01-01Z', '2026-01-01Z', 'hour')$$, $$SELECT billing.usage('acme', 'peak', '0001-01-01Z', '2026-01-01Z')$$]) c;
\a \t
-- The name of a source is only ever a name; one that fails in its own way stops no other
SELECT billing_internal.source_store('a', '(SELECT ''acme'' AS customer, current_user AS u)', 'steal', 'hour', NULL);
CREATE SCHEMA app;
CREATE FUNCTION app.broken() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
CREATE VIEW app.b AS SELECT 'acme' AS customer, app.broken() AS n;
CREATE VIEW app.c AS SELECT 'acme' AS customer, 1 AS n;
SELECT billing.usage_source_set(s, ('app.' || s)::regclass, 'sample') FROM unnest('{b,c}'::text[]) s;
CALL billing.sample();
SELECT key, sqlstate, message FROM billing.job_issue WHERE kind = 'usage_source' ORDER BY key;
SELECT event_type, properties FROM billing.usage_event WHERE event_type IN ('steal', 'sample');

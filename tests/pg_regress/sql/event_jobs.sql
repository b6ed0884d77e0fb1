-- Views of the application's own tables that become usage, and events that are removed once nobody needs them.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-05T10:20:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p","name":"Product"}],
  "meters":[{"key":"gb","event_type":"storage","aggregation":"max","value":"gb","dimensions":["item"],"unit":"GB"},{"key":"gb-hours","event_type":"storage","aggregation":"sum","value":"gb","unit":"GBh"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"gb","meter":"gb-hours","pricing":{"model":"per_unit","unit_price":"0.10"}}]}],
  "plans":[{"key":"disk","currency":"USD","price_book":"list","charges":[{"key":"gb","product":"p","meter":"gb-hours","price":"gb"}]}]}');
SELECT billing.customer_upsert(jsonb_build_object('key', k)), billing.subscribe(k, 'disk', '2026-01-01') FROM unnest('{acme,globex}'::text[]) k;
-- The application's own tables, and what of them is usage
CREATE SCHEMA app;
CREATE TABLE app.disk (customer text, name text, gb numeric);
INSERT INTO app.disk VALUES ('acme', 'a', 10), ('acme', 'b', 2.5), ('globex', 'a', 7), ('nobody', 'a', 1), (NULL, 'a', 1);
CREATE VIEW app.storage_now AS SELECT customer, name AS item, gb FROM app.disk;
SELECT billing.usage_source_set('disk', 'app.storage_now', 'storage');
CALL billing.sample();
SELECT c.key, e.event_id, e.occurred_at, e.properties FROM billing.usage_event e JOIN billing.customer c USING (customer_id) ORDER BY 2;
SELECT message, hint FROM billing.job_issue;
SELECT reason, event_id FROM billing.rejected_event;
DELETE FROM app.disk WHERE customer = 'nobody';
-- Once an hour, however often it is asked; a sample is what the table is when the job runs.
UPDATE app.disk SET gb = gb * 2;
CALL billing.sample();
CALL billing.sample();
SELECT c.key, u.quantity, u.events FROM billing.customer c CROSS JOIN LATERAL billing.usage(c.key, 'gb-hours', '2026-01-05Z', '2026-01-06Z') u ORDER BY 1;
SELECT billing.test_clock_set('2026-01-05T11:00:00Z') AS clock \gset
CALL billing.sample();
SELECT c.key, u.starts_at, u.dimensions, u.quantity FROM billing.customer c CROSS JOIN LATERAL billing.usage(c.key, 'gb', '2026-01-05Z', '2026-01-06Z', 'hour', '{item}') u ORDER BY 1, 2, 3;
-- What was missed is said: the past of a table can't be seen.
SELECT billing.test_clock_set('2026-01-05T14:59:59Z') AS clock \gset
CALL billing.sample();
SELECT message FROM billing.job_issue WHERE message LIKE '%missed%';
SELECT sampled_until FROM billing.usage_source;
-- A broken view stops no other, and is sampled once it works again.
CREATE VIEW app.seats AS SELECT customer, count(*) AS gb FROM app.disk GROUP BY customer;
SELECT billing.usage_source_set('seats', 'app.seats', 'seats', 'day');
ALTER VIEW app.seats RENAME TO seats_gone;
CALL billing.sample();
SELECT key, sqlstate, message FROM billing.job_issue WHERE key = 'seats';
SELECT sampled_until FROM billing.usage_source WHERE key = 'seats';
ALTER VIEW app.seats_gone RENAME TO seats;
CALL billing.sample();
SELECT count(*) FROM billing.usage_event WHERE event_type = 'seats';
SELECT billing.usage_source_end('seats');
-- The job reads with its caller's rights, not with ours.
SET ROLE billing_operator;
CALL billing.sample();
RESET ROLE;
SELECT billing.test_clock_set('2026-01-05T15:00:00Z') AS clock \gset
SET ROLE billing_operator;
CALL billing.sample();
RESET ROLE;
SELECT key, sqlstate, message FROM billing.job_issue WHERE sqlstate = '42501';
-- Rows that nothing tells apart are one event: it is said that they were counted once.
CREATE VIEW app.seats_of AS SELECT 'acme' AS customer, 5 AS seats FROM generate_series(1, 3) UNION ALL SELECT 'globex', 5;
SELECT billing.usage_source_set('twice', 'app.seats_of', 'seats.of', 'day');
CALL billing.sample();
SELECT key, sqlstate, message, hint FROM billing.job_issue WHERE key = 'twice';
SELECT count(*) FROM billing.usage_event WHERE event_type = 'seats.of';
SELECT billing.usage_source_end('twice');
SELECT check_name, failed FROM billing.verify('full') WHERE failed > 0;

-- ── retention ────────────────────────────────────────────────────────────────────────────────────
CALL billing.fold();
SELECT billing.test_clock_set('2026-03-03T00:00:00Z') AS clock \gset
SELECT accepted FROM billing.ingest('[{"customer":"acme","event_id":"late","event_type":"storage","occurred_at":"2026-01-06T00:00:00Z","properties":{"gb":3}},{"customer":"acme","event_id":"feb","event_type":"storage","occurred_at":"2026-02-06T00:00:00Z","properties":{"gb":4}}]');
SELECT billing.policy_set('event_age_max', '34 days');
SELECT billing.event_retention_set('storage', '60 days', 'data protection');
-- Nothing goes before it is billed.
CALL billing.retention();
SELECT count(*) FROM billing.usage_event WHERE event_type = 'storage';
SELECT removed_until FROM billing.event_retention;
CALL billing.bill_run();
SELECT i.key, i.total FROM billing.invoice i ORDER BY 1;
SELECT billing.test_clock_set('2026-03-09T12:00:00Z') AS clock \gset
CREATE TEMP TABLE was AS SELECT c.key, u.* FROM billing.customer c CROSS JOIN LATERAL billing.usage(c.key, 'gb-hours', '2026-01-01Z', '2026-03-01Z', 'hour') u;
CALL billing.retention();
SELECT event_type, count(*) FROM billing.usage_event GROUP BY 1 ORDER BY 1;
SELECT removed_until FROM billing.event_retention;
SELECT job, state, done FROM billing.job_run WHERE job = 'retention' ORDER BY job_run_id;
-- Usage and keys are what they were.
SELECT count(*) AS cells, bool_and(w IS NOT DISTINCT FROM n) AS same FROM was w FULL JOIN
  (SELECT c.key, u.* FROM billing.customer c CROSS JOIN LATERAL billing.usage(c.key, 'gb-hours', '2026-01-01Z', '2026-03-01Z', 'hour') u) n USING (key, starts_at);
SELECT duplicate, conflicting, rejected, errors->0->>'reason' AS reason FROM billing.ingest('[{"customer":"acme","event_id":"feb","event_type":"storage","occurred_at":"2026-02-06T00:00:00Z","properties":{"gb":4}},{"customer":"acme","event_id":"late","event_type":"storage","occurred_at":"2026-01-06T00:00:00Z","properties":{"gb":3}}]');
-- A new meter is filled from what there is; the old ones are not measured away.
SELECT action FROM billing.catalog_apply('{"meters":[{"key":"samples","event_type":"storage","aggregation":"count"}]}');
SELECT quantity FROM billing.usage('acme', 'samples', '2026-01-01Z', '2026-03-01Z');
CALL billing.meter_rebuild('gb-hours');
SELECT sum(quantity) FROM billing.usage('acme', 'gb-hours', '2026-01-01Z', '2026-03-01Z');
SELECT check_name, failed FROM billing.verify('full') WHERE failed > 0;

-- Errors
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  $$SELECT billing.usage('acme', 'gb-hours', '2026-01-05T10:30:00Z', '2026-01-06Z')$$, $$SELECT billing.usage('acme', 'gb-hours', '2026-01-05Z', '2026-01-06Z', group_by => '{gb}')$$,
  $$SELECT * FROM billing.invoice_recompute((SELECT min(number) FROM billing.invoice))$$,
  $$SELECT billing.event_retention_set('storage', '30 days')$$, $$SELECT billing.event_retention_set('', '90 days')$$, $$SELECT billing.policy_set('event_age_max', '61 days')$$,
  $$SELECT billing.usage_source_set('x', NULL, 'e')$$, $$SELECT billing.usage_source_set('x', 'app.disk_pkey', 'e')$$, $$SELECT billing.usage_source_set('x', 'billing.meter', 'e')$$, $$SELECT billing.usage_source_set('a/b', 'app.disk', 'e')$$,
  $$SELECT billing.usage_source_set('x', 'app.disk', 'e', 'week')$$, $$SELECT billing.usage_source_end('seats')$$]) c;
\a \t

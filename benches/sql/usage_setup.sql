-- One customer with :batches thousand events in June, another with a hundredth of them in the same days, and the
-- same events in a plain table with an index, for what aggregating them costs.
\set ON_ERROR_STOP on
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "meters": [{"key": "bytes", "event_type": "transfer", "aggregation": "sum", "value": "bytes", "dimensions": ["region"], "unit": "byte"}]}') \gset
SELECT count(billing.customer_upsert(jsonb_build_object('key', k))) AS made FROM unnest('{few,many}'::text[]) k \gset
-- The events stored before may be the new meter's, until its job has looked.
CALL billing.meter_rebuild();
CREATE TEMP TABLE batch (LIKE billing.usage_event_input);
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
SELECT c, 'transfer', c || n, to_char(timestamp '2026-06-01' + n * (interval '30 days' / (:batches * 1000 / d)), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    json_build_object('region', CASE WHEN n % 2 = 0 THEN 'eu' ELSE 'us' END, 'bytes', n % 100000)
FROM (VALUES ('many', 1), ('few', 100)) c (c, d), generate_series(1, :batches * 1000 / d - 1) n;
SELECT accepted FROM billing.ingest_from('batch') \gset
CALL billing.fold();
CREATE SCHEMA IF NOT EXISTS bench;
DROP TABLE IF EXISTS bench.raw;
CREATE TABLE bench.raw AS
SELECT e.customer_id, e.occurred_at, e.properties->>'region' AS region, (e.properties->>'bytes')::numeric AS bytes
FROM billing.usage_event e WHERE e.event_type = 'transfer';
CREATE INDEX ON bench.raw (customer_id, occurred_at);
VACUUM ANALYZE;

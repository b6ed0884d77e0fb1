-- A customer whose usage can't be folded stops no other, and none of its usage is lost.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p","name":"Product"}],
  "meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"]},{"key":"users","event_type":"llm","aggregation":"unique_count","value":"user"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"a"},"unit_price":"1"},{"match":{"model":"b"},"unit_price":"10"}]}}]}],
  "plans":[{"key":"api","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"p","meter":"tokens","price":"tokens"}]}]}');
SELECT billing.customer_upsert(jsonb_build_object('key', k)), billing.subscribe(k, 'api', '2026-01-01') FROM unnest('{broken,collides,later,well}'::text[]) k;
CREATE FUNCTION pg_temp.send(customer text, event_id text, model text, n int) RETURNS text LANGUAGE sql AS $$
  SELECT billing.ingest_event(customer, 'llm', event_id, '2026-01-05T12:00:00Z', jsonb_build_object('model', model, 'n', n, 'user', event_id)) $$;
SELECT billing.test_clock_set('2026-01-06T00:00:00Z') AS clock \gset
-- One in 2^53 can't be waited for, so the ids are made to meet: before a fold, and after.
SELECT pg_temp.send(c, m || c, m, 3) FROM unnest('{broken,collides,well}'::text[]) c, unnest('{a,b}'::text[]) m;
SELECT pg_temp.send('later', 'alater', 'a', 3);
CREATE FUNCTION pg_temp.meet(customer text) RETURNS void LANGUAGE sql AS $$
  UPDATE billing.usage_delta d SET dimension_set_id = o.dimension_set_id FROM billing.customer c,
    LATERAL (SELECT x.dimension_set_id FROM billing.usage_delta x WHERE x.customer_id = c.customer_id AND x.dimensions->>'model' = 'a' UNION ALL
      SELECT x.dimension_set_id FROM billing.dimension_set x WHERE x.customer_id = c.customer_id AND x.dimensions->>'model' = 'a' LIMIT 1) o
  WHERE c.key = customer AND d.customer_id = c.customer_id AND d.dimensions->>'model' = 'b' $$;
SELECT pg_temp.meet('collides');
-- … and a bucket of a month that nobody made.
UPDATE billing.usage_delta d SET bucket_start = '1990-01-01Z' FROM billing.customer c WHERE c.customer_id = d.customer_id AND c.key = 'broken' AND d.dimensions->>'model' = 'b';
CALL billing.fold();
SELECT pg_temp.send('later', 'blater', 'b', 3);
SELECT pg_temp.meet('later');
CALL billing.fold();
CREATE VIEW pg_temp.state AS SELECT c.key, (SELECT count(*) FROM billing.usage_delta d WHERE d.customer_id = c.customer_id) AS deltas, (SELECT count(*) FROM billing.usage_bucket b WHERE b.customer_id = c.customer_id) AS buckets,
  (SELECT jsonb_object_agg(u.dimensions->>'model', u.quantity) FROM billing.usage(c.key, 'tokens', '2026-01-01Z', '2026-02-01Z', group_by => '{model}') u) AS tokens,
  (SELECT u.quantity FROM billing.usage(c.key, 'users', '2026-01-01Z', '2026-02-01Z') u) AS users FROM billing.customer c;
SELECT * FROM pg_temp.state ORDER BY 1;
SELECT r.state, i.kind, i.key, i.sqlstate, regexp_replace(i.message, 'id \d+', 'id …') AS message, i.hint FROM billing.job_issue i JOIN billing.job_run r USING (job_run_id) WHERE r.job = 'fold' ORDER BY r.started_at, i.key;
-- Whoever has two sets under one id is read and billed by what each says.
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
SELECT c.key, l.* FROM unnest('{collides,later,well}'::text[]) c (key) CROSS JOIN LATERAL pg_temp.lines(billing.invoice_preview(c.key, '2026-02-01Z')) l;
-- More of both, and one taken back
SELECT pg_temp.send('later', 'a2', 'a', 1), pg_temp.send('later', 'b2', 'b', 1);
SELECT pg_temp.meet('later');
SELECT billing.event_void('later', 'blater', 'a test');
SELECT pg_temp.meet('later');
CALL billing.fold();
SELECT * FROM pg_temp.state WHERE key = 'later';
SELECT check_name, failed FROM billing.verify('full') WHERE failed > 0 AND example NOT LIKE 'customer 1 %';
-- The way out: other dimension values, and measured again.
SELECT billing.event_amend('collides', 'bcollides', 'a test', properties => '{"model":"b ","n":3,"user":"bcollides"}');
CALL billing.meter_rebuild('tokens', '2026-01-01Z', '2026-02-01Z');
CALL billing.fold();
SELECT * FROM pg_temp.state WHERE key = 'collides';
-- An ingest folds in passing what it can of a backlog, leaves what is dirty to the job, and never fails for it.
SELECT accepted FROM billing.ingest((SELECT json_agg(json_build_object('customer', c, 'event_type', 'llm', 'event_id', 'h' || n, 'occurred_at', '2026-01-01Z'::timestamptz - n * interval '1 hour',
  'properties', json_build_object('model', 'a', 'n', 1, 'user', 'u'))) FROM unnest('{broken,well}'::text[]) c, generate_series(1, 1100) n));
INSERT INTO billing.usage_dirty SELECT c.customer_id, m.meter_id, '2025-12-01Z', '2026-01-01Z' FROM billing.customer c, billing.meter m WHERE c.key IN ('broken', 'well') AND m.key = 'tokens';
SELECT setseed(0.5) \gset
SELECT count(*) FROM generate_series(1, 100) n CROSS JOIN LATERAL (SELECT pg_temp.send('well', 'w' || n, 'a', 1), pg_temp.send('broken', 'w' || n, 'a', 1)) x;
SELECT key, deltas > 1100 AS backlog, buckets > 0 AS folded, (SELECT count(*) FROM billing.usage_dirty d JOIN billing.customer c USING (customer_id) WHERE c.key = s.key) AS dirty FROM pg_temp.state s WHERE key IN ('broken', 'well') ORDER BY 1;
CALL billing.fold();
SELECT key, deltas > 1100 AS backlog, (SELECT count(*) FROM billing.usage_dirty d JOIN billing.customer c USING (customer_id) WHERE c.key = s.key) AS dirty FROM pg_temp.state s WHERE key IN ('broken', 'well') ORDER BY 1;
SELECT check_name, failed FROM billing.verify('full') WHERE failed > 0 AND example NOT LIKE 'customer 1 %';

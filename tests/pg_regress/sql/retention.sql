-- Retention by type of event: what is removed of one type takes no check, and no answer, from the others.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p","name":"Product"}],
  "meters":[{"key":"pings","event_type":"ping","aggregation":"count"},{"key":"gb","event_type":"storage","aggregation":"sum","value":"gb","dimensions":["disk"]},{"key":"paid","event_type":"payment","aggregation":"sum","value":"amount"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"pings","meter":"pings","pricing":{"model":"per_unit","unit_price":"0.10"}},{"key":"gb","meter":"gb","pricing":{"model":"per_unit","unit_price":"1"}},
    {"key":"paid","meter":"paid","pricing":{"model":"percentage","rate":"0.01","per_event_minimum":"0.50"}}]}],
  "plans":[{"key":"noisy","currency":"USD","price_book":"list","charges":[{"key":"pings","product":"p","meter":"pings","price":"pings"}]},
    {"key":"disk","currency":"USD","price_book":"list","charges":[{"key":"gb","product":"p","meter":"gb","price":"gb"}]},
    {"key":"both","currency":"USD","price_book":"list","charges":[{"key":"pings","product":"p","meter":"pings","price":"pings"},{"key":"gb","product":"p","meter":"gb","price":"gb"}]},
    {"key":"fees","currency":"USD","price_book":"list","charges":[{"key":"paid","product":"p","meter":"paid","price":"paid"}]}]}');
SELECT billing.customer_upsert(jsonb_build_object('key', k)), billing.subscribe(k, k, '2026-01-01') FROM unnest('{noisy,disk,both,fees}'::text[]) k;
SELECT billing.test_clock_set('2026-03-15T00:00:00Z') AS clock \gset
SELECT accepted FROM billing.ingest((SELECT json_agg(json_build_object('customer', c, 'event_id', t || c || n, 'event_type', t, 'occurred_at', '2026-01-10T00:00:00Z'::timestamptz + n * interval '17 hours',
    'properties', CASE t WHEN 'storage' THEN json_build_object('gb', n, 'disk', 'd' || n % 2) WHEN 'payment' THEN json_build_object('amount', 10 * n) ELSE '{}' END))
  FROM (VALUES ('noisy', 'ping'), ('disk', 'storage'), ('both', 'ping'), ('both', 'storage'), ('fees', 'payment'), ('disk', 'unmetered')) x (c, t) CROSS JOIN generate_series(1, 63) n));
CALL billing.bill_run();
CALL billing.fold();
SELECT key, total FROM billing.invoice ORDER BY 1;
-- Whatever is kept longer: February is whole as long as an event can come that it has to be compared with.
SELECT billing.policy_set('event_age_max', '20 days');
SELECT billing.event_retention_set('ping', '30 days'), billing.event_retention_set('payment', '30 days'), billing.event_retention_set('unmetered', '30 days') \gset kept_
SELECT billing.test_clock_set('2026-03-22T23:59:59Z') AS clock \gset
CALL billing.retention();
SELECT event_type, removed_until FROM billing.event_retention ORDER BY 1;
SELECT billing.test_clock_set('2026-03-25T00:00:00Z') AS clock \gset
CALL billing.retention();
SELECT event_type, count(*), min(occurred_at) FROM billing.usage_event GROUP BY 1 ORDER BY 1;
SELECT event_type, removed_until FROM billing.event_retention ORDER BY 1;
SELECT done, result FROM billing.job_run WHERE job = 'retention' ORDER BY started_at;
-- All is well; what nobody can compute again is told, and only that.
SELECT check_name, checked, failed, example FROM billing.verify('full') WHERE failed > 0 OR check_name LIKE 'invoices: %re%' OR check_name LIKE '%late usage is%';
SELECT i.key, r.line_key, r.difference, r.same_bytes FROM billing.invoice i CROSS JOIN LATERAL billing.invoice_recompute(i.number) r WHERE i.key LIKE 'disk%' ORDER BY 1;
SELECT count(*) FROM billing.invoice_line_events('disk-1/1', (SELECT l.key FROM billing.invoice_line l JOIN billing.invoice i USING (customer_id, invoice_id) WHERE i.key = 'disk-1/1'));
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT * FROM billing.invoice_recompute('noisy-1/1')$$, $$SELECT * FROM billing.invoice_recompute('both-1/1')$$, $$SELECT * FROM billing.invoice_recompute('fees-1/1')$$,
  $$SELECT * FROM billing.invoice_line_events('noisy-1/1', (SELECT l.key FROM billing.invoice_line l JOIN billing.invoice i USING (customer_id, invoice_id) WHERE i.key = 'noisy-1/1'))$$,
  $$SELECT billing.retention_step('00000000-0000-0000-0000-000000000000')$$, $$SELECT billing.retention_step((SELECT job_run_id FROM billing.job_run WHERE job = 'retention' LIMIT 1), 0)$$]) c;
\a \t
-- Tampering with a type that is kept is found: in an event of that time, in a bucket, in what was billed.
BEGIN;
UPDATE billing.usage_event SET properties = '{"gb": 1000, "disk": "d1"}' WHERE event_id = 'storagedisk1';
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0 AND check_name LIKE 'invoices%';
ROLLBACK;
BEGIN;
UPDATE billing.usage_bucket b SET quantity = quantity + 5 FROM billing.customer c WHERE c.customer_id = b.customer_id AND c.key = 'both' AND b.bucket_start = '2026-01-10T17:00:00Z' AND b.quantity IS NOT NULL;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0 AND check_name LIKE 'invoices%';
ROLLBACK;
-- The next night only what came since is looked through.
SELECT billing.test_clock_set('2026-03-26T00:00:00Z') AS clock \gset
CALL billing.retention();
SELECT count(*) FROM billing.usage_event WHERE event_type = 'ping' AND occurred_at < '2026-02-24Z';
SELECT done, result->'months' AS months, result->'removed_until'->'ping' AS ping FROM billing.job_run WHERE job = 'retention' ORDER BY started_at;
-- Single amounts are gone, so a bill that asks for them can't be made again; the others can. Nothing is billed from what is left.
\a \t
SELECT pg_temp.fails($$SELECT billing.invoice_void(number, 'wrong address') FROM billing.invoice WHERE key = 'fees-1/1'$$);
\a \t
SELECT count(billing.invoice_void(number, 'wrong address')::text) FROM billing.invoice WHERE key = 'both-1/1';
CALL billing.bill_run();
SELECT i.key, i.state, i.total FROM billing.invoice i WHERE i.key ~ '^(fees|both)-1/1' ORDER BY 1;
SELECT kind, key, sqlstate, message FROM billing.job_issue;

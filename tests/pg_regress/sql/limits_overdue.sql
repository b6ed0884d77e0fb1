-- Limits in money while bills are overdue: what is not billed yet counts, of the period that ended and of the one that runs; once
-- it is billed, the same.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-02-10 00:00+00') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{"products":[{"key":"api","name":"API"}],
  "meters":[{"key":"tokens","event_type":"request","aggregation":"sum","value":"tokens","dimensions":["api_key"],"unit":"token"}],
  "features":[{"key":"tokens","kind":"metered","meter":"tokens"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.01"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"api","meter":"tokens","price":"tokens"}],"fees":[{"key":"platform","product":"api","pricing":{"model":"flat","amount":"49"}}],
    "entitlements":[{"feature":"tokens","value":null}]}]}');
SELECT billing.customer_upsert('{"key":"acme","currency":"USD","bill_tos":[{"key":"inc","name":"Inc"},{"key":"gmbh","name":"GmbH"}]}'), billing.subscribe('acme', 'pro', '2026-02-01');
SELECT billing.spend_limit_set('acme', '{"key":"day","amount":"1.00","period":"day"}');
SELECT billing.spend_limit_set('acme', '{"key":"gmbh","amount":"3.00","period":"week","bill_to":"gmbh","mode":"soft"}');
SELECT billing.ingest_event('acme', 'request', 'feb', '2026-02-05Z', '{"tokens": 1000}');
SELECT billing.ingest_event('acme', 'request', 'feb-gmbh', '2026-02-09 12:00+00', '{"tokens": 70}', 'gmbh');
-- Nobody bills February and March.
SELECT billing.test_clock_set('2026-04-01 00:10+00') AS clock \gset
SELECT n, c.result, c.reason FROM generate_series(1, 3) n CROSS JOIN LATERAL billing.consume('acme', 'tokens', 40, 'a' || n, '{"api_key":"k"}') c;
SELECT key, starts_at, used, remaining, used = CASE key WHEN 'day' THEN 0.80 ELSE 0 END AS ok FROM billing.spend_limits('acme');
-- A week of two periods: 70 cents of March, 150 of April.
SELECT billing.ingest_event('acme', 'request', 'late-march', '2026-03-31 12:00+00', '{"tokens": 70}', 'gmbh'), billing.ingest_event('acme', 'request', 'april', '2026-04-01Z', '{"tokens": 150}', 'gmbh');
SELECT key, starts_at, used, used = CASE key WHEN 'day' THEN 2.30 ELSE 2.20 END AS ok FROM billing.spend_limits('acme');
SELECT key, u.used, u.used = w.want AS ok FROM (VALUES ('february', '2026-02-01Z'::timestamptz, '2026-03-01Z'::timestamptz, 10.70), ('to april', '2026-02-01Z', '2026-05-01Z', 13.70), ('march on', '2026-03-01Z', '2026-05-01Z', 3.00)) w (key, from_at, until_at, want)
CROSS JOIN LATERAL billing_internal.uses(billing_internal.find_customer('acme'), jsonb_build_array(jsonb_build_object('id', 'x', 'currency', 'USD', 'from_at', w.from_at, 'until_at', w.until_at))) u;
-- One boundary billed, and all of them: the same figures.
SELECT billing.invoice_generate('acme-1') IS NOT NULL AS billed;
SELECT key, used FROM billing.spend_limits('acme');
CALL billing.bill_run();
SELECT key, used FROM billing.spend_limits('acme');
SELECT amount, state FROM billing.spend('acme', '2026-02-01Z', '2026-05-01Z', filter => '{"charge": "tokens"}');
-- In grace a bill is a draft for days: it counts.
SELECT billing.policy_set('invoice_grace', '3 days');
SELECT billing.test_clock_set('2026-05-01 00:10+00') AS clock \gset
SELECT billing.ingest_event('acme', 'request', 'late-april', '2026-04-30 12:00+00', '{"tokens": 30}', 'gmbh');
CALL billing.bill_run();
SELECT n, c.result, c.reason FROM generate_series(1, 3) n CROSS JOIN LATERAL billing.consume('acme', 'tokens', 40, 'b' || n) c;
SELECT key, starts_at, used, used = CASE key WHEN 'day' THEN 0.80 ELSE 0.30 END AS ok FROM billing.spend_limits('acme');
-- Of a boundary of which one legal entity's invoice is void and to be issued again, the other's stands.
SELECT billing.test_clock_set('2026-05-04 00:10+00') AS clock \gset
CALL billing.bill_run();
SELECT billing.invoice_void((SELECT i.number FROM billing.invoice i JOIN billing.bill_to t USING (customer_id, bill_to_id) WHERE t.key = 'gmbh' AND i.state = 'open' ORDER BY i.period_starts_at DESC LIMIT 1), 'wrong', true) IS NOT NULL AS void;
SELECT u.used, u.used = 1.50 + 0.30 + 0.80 + 0.80 AS ok FROM billing_internal.uses(1, '[{"id":"april on","currency":"USD","from_at":"2026-04-01T00:00:00Z","until_at":"2026-06-01T00:00:00Z"}]') u;
SELECT check_name, failed FROM billing.verify('full') WHERE failed > 0;

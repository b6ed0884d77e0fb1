-- Spend and the views for BI: money by day, model, charge; the parts sum to the lines, billed and unbilled.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai","name":"AI"},{"key":"base","name":"Base"}],"meters":[
  {"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model","region"],"unit":"token"},{"key":"requests","event_type":"llm","aggregation":"count","dimensions":["model"],"unit":"request"},
  {"key":"users","event_type":"llm","aggregation":"unique_count","value":"user","unit":"user"},{"key":"peak","event_type":"llm","aggregation":"max","value":"n"}],
  "plans":[{"key":"pro","currency":"USD","charges":[
      {"key":"tokens","product":"ai","meter":"tokens","pricing":{"model":"matrix","dimensions":["model"],"per":1000,"rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{},"unit_price":"0.002"}]}},
      {"key":"requests","product":"ai","meter":"requests","pricing":{"model":"graduated","tiers":[{"up_to":"2","unit_price":"1"},{"unit_price":"0.5"}],"minimum":"5"}},
      {"key":"users","product":"ai","meter":"users","pricing":{"model":"per_unit","unit_price":"1"}}],
    "fees":[{"key":"platform","product":"base","pricing":{"model":"flat","amount":"49"}}]}]}');
SELECT billing.customer_upsert('{"key":"acme","name":"Acme Corp","time_zone":"America/New_York","attributes":{"segment":"enterprise","channel":"direct"}}'), billing.subscribe('acme', 'pro', '2026-01-01');
SELECT accepted FROM billing.ingest((SELECT json_agg(json_build_object('customer', 'acme', 'event_id', id, 'event_type', 'llm', 'occurred_at', at, 'properties', p::json)) FROM (VALUES
  ('1', '2026-01-10T12:00:00Z', '{"model":"gpt-4","region":"eu","n":1234567,"user":"ann"}'), ('2', '2026-01-10T12:30:00Z', '{"model":"gpt-4","region":"us","n":333,"user":"ann"}'), ('3', '2026-01-11T04:59:59Z', '{"model":"gpt-3.5","region":"eu","n":9876543,"user":"bob"}'),
  ('4', '2026-01-11T05:00:00Z', '{"model":"gpt-4","region":"eu","n":7,"user":"bob"}'), ('5', '2026-02-03T00:00:00Z', '{"model":"gpt-4","region":"eu","n":100000,"user":"ann"}')) e (id, at, p)));
CALL billing.bill_run('2026-02-01T05:00:00Z');
SELECT number, document->'totals'->>'total' AS total FROM billing.invoice ORDER BY number;
SELECT l.* FROM billing.invoice i, pg_temp.lines(i.document) l WHERE i.n = 1;
SELECT * FROM pg_temp.lines(billing.invoice_preview('acme'));

-- By charge and state; the fee falls on the start of its service, the minimum on its period's
SELECT starts_at, dimensions, currency, amount, state FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-03-01T05:00:00Z', 'month', '{charge}');
-- By day and model, days of New York: 04:59:59Z is still 10 January
SELECT starts_at, dimensions, amount FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-02-01T05:00:00Z', 'day', '{model}', '{"charge":"tokens"}');
-- The parts sum to the line, whatever they are cut by
SELECT x.label, x.got, x.want, x.got = x.want AS ok FROM (VALUES
  ('gpt-4 in January: 37.05', (SELECT sum(amount) FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-02-01T05:00:00Z', 'hour', '{region}', '{"charge":"tokens","model":"gpt-4"}')), (SELECT amount FROM billing.invoice_line WHERE key = 'tokens/2026-01-01/model=gpt-4')),
  ('requests, tiered: 3.00 over four events', (SELECT sum(amount) FROM billing.spend('acme', '2026-01-02T05:00:00Z', '2026-02-01T05:00:00Z', 'hour', '{model}', '{"charge":"requests"}')), 3.00),
  ('all of January', (SELECT sum(amount) FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-02-01T05:00:00Z')), 37.05 + 19.75 + 3 + 2 + 2 + 49),
  ('half of it and the other half', (SELECT sum(amount) FROM (SELECT * FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-01-10T12:15:00Z') UNION ALL SELECT * FROM billing.spend('acme', '2026-01-10T12:15:00Z', '2026-02-01T05:00:00Z')) h), 37.05 + 19.75 + 3 + 2 + 2 + 49),
  ('billed', (SELECT amount FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-04-01T05:00:00Z') WHERE state = 'billed'), (SELECT sum(total) FROM billing.invoice)),
  ('unbilled is the preview', (SELECT amount FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-04-01T05:00:00Z') WHERE state = 'unbilled'), (billing.invoice_preview('acme')->'totals'->>'total')::numeric)) x (label, got, want);
SELECT dimensions, amount FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-02-01T05:00:00Z', NULL, '{product,bill_to}');
SELECT count(*) AS nothing FROM billing.spend('acme', '2020-01-01Z', '2021-01-01Z');

-- A voided invoice is spent no more; its boundary is unbilled again
SELECT billing.invoice_void('INV-2026-000002', 'x');
SELECT state, amount FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-02-01T05:00:00Z') ORDER BY state;
CALL billing.bill_run();
SELECT state, amount FROM billing.spend('acme', '2026-01-01T05:00:00Z', '2026-02-01T05:00:00Z') ORDER BY state;

-- The views: bounded numerics, no custom types
SELECT customer, customer_name, seller, currency, time_zone, segment, channel, region, live_contracts, customer_since FROM billing.dim_customer;
SELECT product, product_name, retired FROM billing.dim_product ORDER BY product;
SELECT * FROM billing.dim_date WHERE day IN ('2024-02-29', '2026-01-01');
SELECT day, meter, model, region, quantity, events FROM billing.fact_usage_daily WHERE meter IN ('tokens', 'users') ORDER BY day, meter, model, region;
SELECT invoice, state, issued_on, line_key, kind, charge, product, meter, service_day, model, quantity, unit, currency, amount FROM billing.fact_invoice_line ORDER BY invoice, line_n;
SELECT sum(f.amount) = (SELECT sum(total) FROM billing.invoice WHERE state <> 'void') AS the_lines_are_the_invoices FROM billing.fact_invoice_line f;
SELECT c.relname AS view, a.attname AS bare_numeric FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'billing' AND c.relkind = 'v' AND (c.relname ~ '^(fact|dim)_' OR c.relname ~ '^usage_') AND a.attnum > 0 AND ((a.atttypid = 'numeric'::regtype AND a.atttypmod = -1) OR col_description(c.oid, a.attnum) IS NULL) ORDER BY 1, 2;

-- Errors
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.spend('nobody', '2026-01-01Z', '2026-02-01Z')$$, $$SELECT billing.spend('acme', '2026-02-01Z', '2026-01-01Z')$$, $$SELECT billing.spend('acme', '2026-01-01Z', 'infinity')$$, $$SELECT billing.spend('acme', '2026-01-01Z', '2026-02-01Z', 'year')$$,
  $$SELECT billing.spend('acme', '2026-01-01Z', '2026-02-01Z', group_by => NULL)$$, $$SELECT billing.spend('acme', '2026-01-01Z', '2026-02-01Z', filter => '5')$$, $$SELECT billing.spend('acme', '2026-01-01Z', '2026-02-01Z', time_zone => 'Mars')$$]) c;
\a \t
CALL billing.audit_seal();
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;

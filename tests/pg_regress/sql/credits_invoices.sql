-- Credits on invoices: the year of rules.md 10.5, the prepaid deals of 3 A, draw-down C, the shared pool of 10.6, commitments D; what is void, late or shared.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai-api"},{"key":"images"}],
  "meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"],"unit":"token"},{"key":"images","event_type":"image","aggregation":"sum","value":"n","unit":"image"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"matrix","dimensions":["model"],"per":1000,
    "rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"model":"gpt-3.5"},"unit_price":"0.002"}]}}]}],
  "plans":[{"key":"enterprise","currency":"USD","price_book":"list","billing":{"interval":"3 months"},"charges":[{"key":"tokens","product":"ai-api","meter":"tokens","price":"tokens"}]}]}');
CREATE FUNCTION pg_temp.used(customer text, id text, at timestamptz, n numeric, model text DEFAULT NULL, bill_to text DEFAULT NULL, kind text DEFAULT 'llm') RETURNS text LANGUAGE sql AS $$
  SELECT billing.ingest_event(customer, kind, id, at, jsonb_strip_nulls(jsonb_build_object('n', n, 'model', model)), bill_to) $$;
CREATE TEMP VIEW lines AS SELECT k.key AS contract, i.n, i.kind AS document, i.state, b.key AS bill_to, l.key, l.kind, trim_scale(l.quantity) AS quantity, trim_scale(l.exact) AS exact, l.amount
  FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id ORDER BY k.key, i.n, i.created_at, i.number, l.line_n;
CREATE TEMP VIEW totals AS SELECT k.key AS contract, i.n, b.key AS bill_to, i.kind AS document, i.state, i.issued_on, i.total, i.document->'totals'->>'credits' AS credits, i.document->'totals'->>'due' AS due, i.due_on
  FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id ORDER BY k.key, i.n, i.created_at, i.number;
CREATE TEMP VIEW drawn AS SELECT k.key AS contract, i.n AS on_n, a.n, g.key AS block, a.line_key, trim_scale(a.quantity) AS quantity, trim_scale(a.amount) AS amount
  FROM billing.credit_allocation a JOIN billing.invoice i USING (customer_id, invoice_id) JOIN billing.contract k ON k.customer_id = i.customer_id AND k.contract_id = i.contract_id
  JOIN billing.credit_grant g ON g.customer_id = a.customer_id AND g.grant_id = a.grant_id ORDER BY k.key, i.n, i.created_at, a.recorded_at, a.place;
CREATE TEMP VIEW blocks AS SELECT c.key AS customer, g.key, trim_scale(b.posted) AS posted FROM billing.credit_block_balance b JOIN billing.credit_grant g USING (customer_id, grant_id) JOIN billing.customer c USING (customer_id) ORDER BY 1, 2;
-- All is well, and all documents compute again to the same bytes

-- rules.md 10.5: $100,000 with a 20% bonus, 120,000 credits, paid in four instalments. And read as a discount: 125,000.
SELECT billing.customer_upsert(c::jsonb) FROM unnest(ARRAY['{"key":"acme"}', '{"key":"acme-discount"}']) c;
SELECT billing.contract_create(jsonb_build_object('key', c || '-2026', 'customer', c, 'plan', 'enterprise', 'starts_on', '2026-01-01', 'term', '12 months', 'prices', 'pin', 'billing', '{"interval":"3 months","net_days":45}'::jsonb,
  'overrides', '[{"meter":"tokens","match":{},"percent_off":"50"}]'::jsonb, 'commitments', '[{"key":"annual","kind":"prepaid","amount":"100000","instalments":"3 months"}]'::jsonb,
  'credits', jsonb_build_array(jsonb_build_object('key', 'annual-credits', 'category', 'paid', 'amount', a, 'paid_by', 'annual', 'expires', 'contract_end', 'scope', '{"products":["ai-api"]}'::jsonb, 'priority', 50))))
FROM (VALUES ('acme', '120000'), ('acme-discount', '125000')) v (c, a);
SELECT billing.contract_activate(c) FROM unnest(ARRAY['acme-2026', 'acme-discount-2026']) c;
SELECT e FROM billing.invoice_explain(billing.invoice_preview('acme-2026')) e;
CALL billing.bill_run();
CREATE FUNCTION pg_temp.quarter(at timestamptz, four numeric, three numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM billing.test_clock_set(at);
  PERFORM pg_temp.used(c, 'four ' || at::date, at, four * 1e9, 'gpt-4'), pg_temp.used(c, 'three ' || at::date, at, three * 1e9, 'gpt-3.5') FROM unnest(ARRAY['acme', 'acme-discount']) c;
END $$;
SELECT pg_temp.quarter('2026-02-01Z', 1.2, 2) \gset done_
-- … what is unbilled is pending, and a preview shows it
SELECT billing.test_clock_set('2026-02-02T00:00:00Z') AS clock \gset
SELECT g.key, trim_scale(p.amount) AS pending FROM billing.customer c, billing_internal.credit_pending_usage(c.customer_id, 'USD') p JOIN billing.credit_grant g USING (grant_id) WHERE c.key = 'acme';
SELECT d->'totals' AS totals, d->'credits' AS credits, d->'inputs'->'credits' AS opened FROM billing.invoice_preview('acme-2026') d;
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'acme-2026/1';
SELECT pg_temp.quarter('2026-05-01Z', 1.8, 3), billing.test_clock_set('2026-07-01T00:00:00Z') \gset done_
CALL billing.bill_run();
SELECT pg_temp.quarter('2026-08-01Z', 2.1, 4.5), billing.test_clock_set('2026-10-01T00:00:00Z') \gset done_
CALL billing.bill_run();
SELECT pg_temp.quarter('2026-12-31T23:00:00Z', 2.4, 5.5), billing.test_clock_set('2027-01-01T00:00:00Z') \gset done_
CALL billing.bill_run();
SELECT contract, n, key, kind, quantity, amount FROM lines;
SELECT contract, n, state, issued_on, total, credits, due, due_on, due = w.want AS ok FROM totals JOIN (VALUES ('acme-2026', '{25000.00,25000.00,25000.00,25000.00,7500.00}'::text[]), ('acme-discount-2026', '{25000.00,25000.00,25000.00,25000.00,2500.00}')) v (k, wants) ON k = contract
  CROSS JOIN LATERAL (SELECT v.wants[n + 1] AS want) w;
SELECT * FROM drawn;
SELECT * FROM blocks;
SELECT * FROM pg_temp.well();

-- Commitments in units, prices beyond postpaid ones, windows, credit_only, and true-ups of a bill with a correction beside it. All numbers worked by hand.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai-api"},{"key":"images"}],
  "meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"],"unit":"token"},{"key":"images","event_type":"image","aggregation":"sum","value":"n","unit":"image"}],
  "plans":[{"key":"one","currency":"USD","charges":[{"key":"tokens","product":"ai-api","meter":"tokens","pricing":{"model":"per_unit","unit_price":"1"}},{"key":"images","product":"images","meter":"images","pricing":{"model":"per_unit","unit_price":"1"}}]}]}');
CREATE FUNCTION pg_temp.used(customer text, id text, at timestamptz, n numeric, bill_to text DEFAULT NULL, kind text DEFAULT 'llm') RETURNS text LANGUAGE sql AS $$
  SELECT billing.ingest_event(customer, kind, id, at, jsonb_build_object('n', n), bill_to) $$;
CREATE TEMP VIEW lines AS SELECT k.key AS contract, i.n, i.kind AS document, b.key AS bill_to, l.key, l.kind, trim_scale(l.quantity) AS quantity, l.amount
  FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id
  WHERE i.state <> 'void' ORDER BY k.key, i.n, i.created_at, i.number, l.line_n;
CREATE TEMP VIEW totals AS SELECT k.key AS contract, i.n, b.key AS bill_to, i.kind AS document, i.state, i.total, i.credits_applied AS credits, (i.document->'totals'->>'due')::numeric AS due
  FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id WHERE i.state <> 'void' ORDER BY k.key, i.n, i.created_at, i.number;
CREATE FUNCTION pg_temp.deal(customer text, more jsonb) RETURNS text LANGUAGE sql AS $$
  SELECT billing.customer_upsert(jsonb_build_object('key', customer, 'bill_tos', '[{"key":"inc","name":"Inc"},{"key":"gmbh","name":"GmbH"}]'::jsonb));
  SELECT billing.contract_create(jsonb_build_object('key', customer || '-1', 'customer', customer, 'plan', 'one', 'starts_on', '2026-04-01', 'term', '3 months') || more);
  SELECT billing.contract_activate(customer || '-1') $$;

-- The deals, and how they read
CREATE TEMP TABLE deal (customer text, more jsonb);
INSERT INTO deal VALUES
  ('pack', '{"commitments":[{"key":"pack","kind":"prepaid","quantity":"1000","meter":"tokens","amount":"800","instalments":"1 month","overage":[{"meter":"tokens","unit_price":"0.9"}]}]}'),
  ('list', '{"commitments":[{"key":"pack","kind":"prepaid","quantity":"1000","meter":"tokens","amounts":["800"]}]}'),
  ('least', '{"commitments":[{"key":"volume","kind":"postpaid","quantity":"1000","meter":"tokens","shortfall_price":{"model":"per_unit","unit_price":"700","per":1000}}]}'),
  ('beyond', '{"commitments":[{"key":"spend","kind":"postpaid","amount":"500","overage":[{"meter":"tokens","unit_price":"0.8"}]}]}'),
  ('volume', '{"commitments":[{"key":"volume","kind":"postpaid","quantity":"500","meter":"tokens","shortfall_price":{"model":"per_unit","unit_price":"0.5"},"overage":[{"meter":"tokens","unit_price":"0.6"}]}]}'),
  ('window', '{"commitments":[{"key":"spring","kind":"postpaid","amount":"100","scope":{"windows":[{"from":"2026-04-10","until":"2026-04-20"}]}}]}'),
  ('only', '{"credits":[{"key":"gift","category":"promotional","amount":"100"}],"credit_mode":"credit_only"}'),
  ('none', '{"credit_mode":"credit_only"}'),
  ('both', '{"commitments":[{"key":"quarter","kind":"postpaid","amount":"1000"},{"key":"month","kind":"postpaid","amount":"150","every":"1 month","priority":50}]}');
SELECT d.customer, t FROM deal d CROSS JOIN LATERAL billing.contract_describe(jsonb_build_object('key', d.customer || '-1', 'customer', d.customer, 'plan', 'one', 'starts_on', '2026-04-01', 'term', '3 months') || d.more) t WHERE t ~ 'ommitment|credit' ORDER BY d.customer, t;
SELECT pg_temp.deal(customer, more) FROM deal ORDER BY customer;

-- April, May, June
SELECT billing.test_clock_set('2026-04-28T00:00:00Z') AS clock \gset
SELECT pg_temp.used(c, '1', '2026-04-10Z', n) FROM (VALUES ('pack', 600), ('list', 600), ('least', 300), ('beyond', 300), ('volume', 300), ('only', 60), ('none', 30), ('both', 100)) v (c, n);
SELECT pg_temp.used('window', '1', '2026-04-05Z', 40), pg_temp.used('window', '2', '2026-04-15Z', 70), pg_temp.used('window', '3', '2026-04-25Z', 30);
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-05-28T00:00:00Z') AS clock \gset
SELECT pg_temp.used(c, '2', '2026-05-05Z', a), pg_temp.used(c, '3', '2026-05-20Z', b), pg_temp.used(c, 'i', '2026-05-10Z', i, kind => 'image')
FROM (VALUES ('pack', 300, 400, 5), ('list', 300, 400, 5), ('least', 100, 100, 5), ('beyond', 100, 400, 60), ('volume', 100, 400, 60), ('only', 30, 40, 20), ('none', 10, 5, 5), ('both', 50, 50, 0)) v (c, a, b, i);
SELECT billing.test_clock_set('2026-06-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-06-28T00:00:00Z') AS clock \gset
SELECT pg_temp.used(c, '4', '2026-06-05Z', n) FROM (VALUES ('pack', 100), ('list', 100), ('least', 100), ('beyond', 50), ('volume', 50), ('only', 10), ('none', 1), ('both', 100), ('window', 500)) v (c, n);
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM pg_temp.well();

-- Bought in advance: 1,000 tokens for 800 in three parts (266.67, 266.66, 266.67); 600 and 400 are covered, 300 and 100 beyond cost 0.90, or 1.00 where nothing is agreed
SELECT contract, n, key, quantity, amount FROM lines WHERE contract IN ('pack-1', 'list-1');
SELECT t.contract, sum(t.due) AS due, sum(t.due) = w.want AS ok FROM totals t JOIN (VALUES ('pack-1', 800 + 300 * 0.9 + 100 * 0.9 + 5), ('list-1', 800 + 300 + 100 + 5)) w (contract, want) USING (contract) GROUP BY 1, w.want ORDER BY 1;
SELECT g.key, g.unit, g.category, g.amount, p.paid, p.credits, g.expires_at FROM billing.credit_grant g JOIN billing.credit_pool p USING (customer_id, pool_id) ORDER BY 1;
SELECT m.key, c.kind, c.amount, c.unit FROM billing.commitment_period c JOIN billing.commitment m USING (customer_id, commitment_id) ORDER BY 1, 3, 4;
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'pack-1/2';
-- The least: 300 + 200 + 100 of 1,000 tokens; 400 that are missing cost 700 per 1,000 = 280.00
SELECT n, key, quantity, amount, amount = 280 AS ok FROM lines WHERE contract = 'least-1' AND kind = 'true_up';
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'least-1/3';
-- Beyond 500 spent tokens cost 0.80: 300 in April, in May 100, then 60 of images, then 40 of 400; 360 and 50 are beyond: 288.00 and 40.00
SELECT n, key, quantity, amount FROM lines WHERE contract = 'beyond-1';
SELECT sum(due) AS due, sum(due) = 300 + 100 + 60 + 40 + 360 * 0.8 + 50 * 0.8 AS ok FROM totals WHERE contract = 'beyond-1';
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'beyond-1/2';
-- Beyond 500 tokens they cost 0.60: images count nothing here; 300 + 100 + 100, then 300 and 50
SELECT n, key, quantity, amount FROM lines WHERE contract = 'volume-1';
SELECT sum(due) AS due, sum(due) = 500 + 60 + 300 * 0.6 + 50 * 0.6 AS ok FROM totals WHERE contract = 'volume-1';
-- Only what was used from 10 to 19 April counts: 70 of 100
SELECT n, key, quantity, amount FROM lines WHERE contract = 'window-1';
SELECT sum(amount) FILTER (WHERE kind = 'true_up') AS true_up, sum(amount) FILTER (WHERE kind = 'true_up') = 30 AS ok FROM lines WHERE contract = 'window-1';
-- Credit alone pays: 60 in April, in May 30 and 10 of images; the rest is shown and costs nothing
SELECT contract, n, key, quantity, amount FROM lines WHERE contract IN ('only-1', 'none-1');
SELECT contract, n, total, credits, due, due = 0 AS ok FROM totals WHERE contract IN ('only-1', 'none-1');
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'only-1/2';

-- Late: 100 tokens of April fill what May's had; the same is billed as if they had come in time
SELECT pg_temp.used(c, 'late', '2026-04-20Z', 100) FROM unnest(ARRAY['beyond', 'volume', 'pack', 'only']) c;
CALL billing.bill_run();
SELECT contract, n, document, key, quantity, amount FROM lines WHERE document <> 'invoice';
SELECT t.contract, sum(t.due) AS due, sum(t.due) = w.want AS ok FROM totals t
JOIN (VALUES ('beyond-1', 400 + 100 + 60 + 400 * 0.8 + 50 * 0.8), ('volume-1', 500 + 60 + 450 * 0.6), ('pack-1', 800 + 500 * 0.9 + 5), ('only-1', 0)) w (contract, want) USING (contract) GROUP BY 1, w.want ORDER BY 1;
SELECT * FROM pg_temp.well();

-- Every month 50 of 150 are missing, and all of the quarter's 1,000. April is invoiced again, now with 600 for another legal entity: 50 of them fill April, 550 the quarter. That credit is more than April's invoice, and stands on a credit note beside it; both compute again to the same bytes
SELECT n, key, amount FROM lines WHERE contract = 'both-1';
SELECT billing.invoice_void(number, 'other entity') FROM billing.invoice WHERE key = 'both-1/1';
SELECT pg_temp.used('both', 'late', '2026-04-20Z', 600, 'gmbh');
CALL billing.bill_run();
SELECT n, document, bill_to, key, amount FROM lines WHERE contract = 'both-1';
SELECT sum(due) AS due, sum(due) = 700 + 2 * 150 + 450 AS ok FROM totals WHERE contract = 'both-1';
SELECT * FROM pg_temp.well();

-- What another boundary's usage makes of a true-up waits for the next bill, as that usage does: no failure.
SELECT billing.event_void('least', '1', 'a test');
SELECT * FROM pg_temp.well();
CALL billing.bill_run();
SELECT n, document, bill_to, key, amount FROM lines WHERE contract = 'least-1' AND n > 2;
SELECT * FROM pg_temp.well();

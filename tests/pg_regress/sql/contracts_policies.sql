-- Policies of changes: downgrade_timing, credit_on_decrease, co_term; and step-ups of what has no end. All numbers worked by hand.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2025-01-01T12:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}],
  "plans":[{"key":"big","currency":"USD","fees":[{"key":"seats","product":"p","pricing":{"model":"per_unit","unit_price":"20"},"quantity":"10"}]},
           {"key":"small","currency":"USD","fees":[{"key":"seats","product":"p","pricing":{"model":"per_unit","unit_price":"20"},"quantity":"5"}]}]}');
CREATE FUNCTION pg_temp.deal(customer text, more jsonb) RETURNS text LANGUAGE sql AS $$
  SELECT billing.customer_upsert(jsonb_build_object('key', customer));
  SELECT billing.contract_create(jsonb_strip_nulls(jsonb_build_object('key', customer, 'customer', customer, 'currency', 'USD', 'starts_on', '2025-01-01', 'term', '12 months') || more));
  SELECT billing.contract_activate(customer) $$;
CREATE TEMP VIEW lines AS SELECT k.key AS contract, i.n, l.key, l.kind, l.service_from::date AS "from", l.service_until::date AS until, l.amount
  FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id) ORDER BY k.key, i.n, i.created_at, i.number, l.line_n;
SELECT pg_temp.deal(c, '{"plan":"big"}') FROM unnest(ARRAY['waits', 'plan', 'at-once', 'dated', 'raised', 'kept', 'kept-up', 'left', 'given-back']) c;
SELECT billing.policy_set('downgrade_timing', 'immediate', 'contract:at-once');
SELECT billing.policy_set('credit_on_decrease', 'none', 'contract:' || c) FROM unnest(ARRAY['kept', 'kept-up', 'left']) c;
CALL billing.bill_run();
SELECT billing.test_clock_set('2025-03-11T12:00:00Z') AS clock \gset
CALL billing.bill_run();

-- Without a date what lowers the fees waits for the period's end, and says so; what raises them, has a date, or is "now" does not
SELECT billing.contract_amend('waits', '{"quantities":{"seats":"5"}}') AS version;
SELECT billing.contract_change_plan('plan', 'small') AS version;
SELECT billing.contract_amend('at-once', '{"quantities":{"seats":"5"}}') AS version;
SELECT billing.contract_change_plan('dated', 'small', 'now') AS version;
SELECT billing.contract_amend('raised', '{"quantities":{"seats":"15"}}') AS version;
SELECT contract, kind, effective_at FROM billing.contract_change WHERE version = 2 ORDER BY 1;
-- What was billed in advance is given back, or stays; a raise in the same period costs what the period then comes to beyond what was billed: 9 of 31 days at 5 seats are 29.03, 12 of 31 at 30 are 232.26
SELECT billing.contract_amend(c, '{"quantities":{"seats":"5"}}', '2025-03-11') AS version FROM unnest(ARRAY['kept', 'kept-up']) c;
SELECT billing.contract_cancel(c, 'now') AS version FROM unnest(ARRAY['left', 'given-back']) c;
SELECT billing.test_clock_set('2025-03-20T12:00:00Z') AS clock \gset
SELECT billing.contract_amend('kept-up', '{"quantities":{"seats":"30"}}', '2025-03-20') AS version;
SELECT billing.test_clock_set('2025-04-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT contract, n, key, "from", until, amount FROM lines WHERE n >= 2 AND (n = 3 OR kind = 'proration');
SELECT x.contract, x.billed, x.billed = w.want AS ok FROM (SELECT contract, sum(amount) AS billed FROM lines GROUP BY contract) x JOIN (VALUES
  ('waits', 600 + 100), ('plan', 600 + 100), ('at-once', 600 - 135.48 + 67.74 + 100), ('dated', 600 - 135.48 + 67.74 + 100), ('raised', 600 - 135.48 + 203.23 + 300),
  ('kept', 600 + 100), ('kept-up', 600 - 135.48 + 29.03 + 232.26 + 600), ('left', 600), ('given-back', 600 - 135.48)) w (contract, want) USING (contract) ORDER BY 1;
SELECT * FROM pg_temp.well();
-- It would take effect when the contract ends
SELECT billing.test_clock_set('2025-12-11T12:00:00Z') AS clock \gset
SELECT pg_temp.fails($$SELECT billing.contract_amend('waits', '{"quantities":{"seats":"1"}}')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.policy_set('co_term', 'week')$$);

-- rules.md 2, co-term: 12,000 a year from 1 April to the year's end: 275 of 365 days, or 9 of 12 months; from 11 April 8 months and 20 of 30 days: 8,666.67. A raise inside it is by months, too: 1 July, 6 of 12
SELECT pg_temp.deal(c, '{"starts_on":"2026-01-01","term":"24 months","fees":[{"key":"base","product":"p","pricing":{"model":"flat","amount":"1"}}]}') FROM unnest(ARRAY['by-day', 'by-month', 'by-month-11', 'by-month-up', 'by-own']) c;
SELECT billing.policy_set('co_term', 'month', 'contract:' || c) FROM unnest(ARRAY['by-month', 'by-month-11', 'by-month-up', 'by-own']) c;
SELECT billing.contract_amend(c, jsonb_build_object('add_ons', jsonb_build_array(jsonb_build_object('key', 'extra', 'fees', jsonb_build_array(jsonb_strip_nulls(
  jsonb_build_object('key', 'fee', 'product', 'p', 'pricing', '{"model":"flat","amount":"12000"}'::jsonb, 'every', '12 months', 'proration', b)))))), d) AS version
FROM (VALUES ('by-day', '2026-04-01'::timestamptz, NULL), ('by-month', '2026-04-01', NULL), ('by-month-11', '2026-04-11', NULL), ('by-month-up', '2026-04-01', NULL), ('by-own', '2026-04-01', 'day')) v (c, d, b);
SELECT billing.contract_amend('by-month-up', '{"prices":{"extra/fee":{"model":"flat","amount":"24000"}}}', '2026-07-01') AS version;
SELECT billing.test_clock_set('2027-02-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT contract, key, "from", until, amount FROM lines WHERE key LIKE 'extra%';
SELECT x.contract, x.billed, x.billed = w.want AS ok FROM (SELECT contract, sum(amount) AS billed FROM lines WHERE key LIKE 'extra%' AND "from" < '2027-01-01' GROUP BY contract) x JOIN (VALUES
  ('by-day', 9041.10), ('by-month', 9000), ('by-month-11', 8666.67), ('by-month-up', 3000 + 12000), ('by-own', 9041.10)) w (contract, want) USING (contract) ORDER BY 1;
SELECT * FROM pg_temp.well();

-- rules.md 1, ramp: 100,000 and 7% a year, in a contract without an end
SELECT pg_temp.deal('ever', '{"starts_on":"2027-03-01","term":null,"billing":{"alignment":"anniversary"},"fees":[{"key":"licence","product":"p","every":"12 months","pricing":{"model":"flat","amount":"100000"},"step_up":{"percent":"7","every":"12 months"}}]}');
SELECT t FROM billing.contract_describe('{"key":"x","customer":"ever","currency":"USD","starts_on":"2027-03-01","fees":[{"key":"licence","product":"p","every":"12 months","pricing":{"model":"flat","amount":"100000"},"step_up":{"percent":"7","every":"12 months"}}]}') t;
SELECT billing.test_clock_set('2029-03-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT "from", amount, amount = w.want AS ok FROM lines JOIN (VALUES ('2027-03-01'::date, 100000), ('2028-03-01', 107000), ('2029-03-01', 114490)) w (day, want) ON day = "from" WHERE contract = 'ever';
SELECT * FROM pg_temp.well();

-- What a change of terms costs in the middle of what is billed: the worked numbers of rules 2, each as the two lines it
-- names, on the bill after the change.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2025-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}],
  "plans":[{"key":"basic","name":"Basic","currency":"USD","fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"100"}}]},
    {"key":"plus","name":"Plus","currency":"USD","fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"300"}}]}]}');
CREATE FUNCTION pg_temp.deal(key text, starts_on date, extra jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT billing.customer_upsert(jsonb_build_object('key', key, 'time_zone', coalesce(extra->>'time_zone', 'UTC')));
    SELECT billing.contract_create(jsonb_build_object('key', key, 'customer', key, 'starts_on', starts_on) || extra);
    SELECT billing.contract_activate(key)
$$;
CREATE FUNCTION pg_temp.flat(amount text, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('fees', jsonb_build_array(jsonb_build_object('key', 'platform', 'product', 'p', 'pricing', jsonb_build_object('model', 'flat', 'amount', amount)) || more))
$$;
-- Every line of every document of a contract
CREATE FUNCTION pg_temp.billed(contract text) RETURNS TABLE (number text, kind text, key text, of_n int, service_from timestamptz, service_until timestamptz, quantity numeric, amount numeric) LANGUAGE sql AS $$
    SELECT i.number, l.kind, l.key, l.of_n, l.service_from, l.service_until, l.quantity, l.amount
    FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id)
    WHERE k.key = billed.contract AND i.state <> 'void' ORDER BY i.n, i.created_at, l.line_n
$$;
CREATE FUNCTION pg_temp.want(contract text, line text, want numeric) RETURNS TABLE (line text, got numeric, want numeric, ok boolean) LANGUAGE sql AS $$
    SELECT want.line, sum(b.amount), want.want, sum(b.amount) = want.want FROM pg_temp.billed(want.contract) b WHERE b.key LIKE want.line
$$;

-- Upgrades in the middle of a month: by a plan, by a price, by seats; at a stub; discounted and cancelled; in New York by the second
SELECT pg_temp.deal('april', '2025-04-01', '{"plan":"basic"}'), pg_temp.deal('march', '2025-03-01', pg_temp.flat('100')), pg_temp.deal('stub', '2025-01-20', pg_temp.flat('310')),
  pg_temp.deal('off', '2025-04-01', pg_temp.flat('100') || '{"discounts":[{"key":"friends","percent_off":"20"}]}'),
  pg_temp.deal('seats', '2025-04-01', '{"fees":[{"key":"seats","product":"p","pricing":{"model":"per_unit","unit_price":"20"},"quantity":"10"}]}'),
  pg_temp.deal('ny', '2025-03-01', pg_temp.flat('100') || '{"time_zone":"America/New_York"}'),
  pg_temp.deal('annual', '2025-01-01', pg_temp.flat('1200') || '{"billing":{"interval":"1 year"}}'),
  pg_temp.deal('annual-monthly', '2025-01-01', pg_temp.flat('1200', '{"every":"12 months"}')),
  pg_temp.deal('parent', '2025-01-01', pg_temp.flat('10') || '{"term":"12 months"}'),
  pg_temp.deal('parent-30', '2025-01-01', pg_temp.flat('10') || '{"term":"12 months"}'),
  pg_temp.deal('fiscal', '2025-11-15', pg_temp.flat('120000') || '{"billing":{"interval":"1 year","alignment":"fiscal","fiscal_year_starts":"02-01"}}'),
  pg_temp.deal('quarter', '2025-02-10', pg_temp.flat('9000') || '{"billing":{"interval":"3 months","alignment":"calendar"}}');
SELECT billing.policy_set('proration_basis', 'second', 'contract:ny');
SELECT billing.test_clock_set('2025-03-11T09:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.contract_amend('march', '{"prices":{"platform":{"model":"flat","amount":"300"}}}', reason => 'more of it') AS version;
-- By the second a change holds from its instant on: noon of 16 March in New York
SELECT billing.contract_amend('ny', '{"prices":{"platform":{"model":"flat","amount":"300"}}}', '2025-03-16T16:00:00Z') AS version;
SELECT billing.test_clock_set('2025-04-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.contract_amend('parent', '{"add_ons":[{"key":"extra","fees":[{"key":"fee","product":"p","pricing":{"model":"flat","amount":"12000"},"every":"12 months"}]}]}') AS version;
SELECT billing.contract_amend('parent-30', '{"add_ons":[{"key":"extra","fees":[{"key":"fee","product":"p","pricing":{"model":"flat","amount":"12000"},"every":"12 months","proration":"30_strict"}]}]}') AS version;
SELECT billing.test_clock_set('2025-04-11T12:00:00Z') AS clock \gset
SELECT billing.contract_amend('seats', '{"quantities":{"seats":"15"}}') AS version;
SELECT billing.test_clock_set('2025-04-16T12:00:00Z') AS clock \gset
SELECT billing.contract_change_plan('april', 'plus') AS version;
SELECT billing.contract_cancel('off', 'now') AS version;
SELECT key, state, ends_on, next_bill_at FROM billing.contract WHERE key = 'off';
SELECT billing.test_clock_set('2025-05-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.test_clock_set('2025-07-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.contract_cancel('annual', 'now') AS version, billing.contract_cancel('annual-monthly', '2025-07-01') AS version;
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-02-02T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, message FROM billing.job_issue;
SELECT x.label, w.* FROM (VALUES
  (1, 'stub: 310 × 12/31', 'stub', 'platform/2025-01-20', 120.00),
  (2, 'upgrade on 16 April, what is given back', 'april', 'platform/2025-04-01/proration', -50.00), (3, 'and what is due instead', 'april', 'platform/2025-04-01/from=%/proration', 150.00),
  (4, 'upgrade on 11 March', 'march', 'platform/2025-03-01/proration', -67.74), (5, 'net 135.49, not 135.48', 'march', 'platform/2025-03-01/from=%/proration', 203.23),
  (6, 'by the second: 372 h of 743 h', 'ny', 'platform/2025-03-01/proration', -50.07), (7, 'by the second', 'ny', 'platform/2025-03-01/from=%/proration', 150.20),
  (8, '80 × 15/30', 'off', 'platform/2025-04-01/proration', -40.00),
  (9, '5 seats × 20 × 20/30', 'seats', 'seats/2025-04-01%/proration', 66.67),
  (10, 'co-termed, by day: 12,000 × 275/365', 'parent', 'extra/fee/2025-01-01/from=2025-04-01T00:00:00Z%', 9041.10), (11, 'by month: 9/12', 'parent-30', 'extra/fee/2025-01-01/from=2025-04-01T00:00:00Z%', 9000.00),
  (12, 'fiscal stub, 78 days', 'fiscal', 'platform/2025-11-15', 25643.84), (13, 'and then a whole year', 'fiscal', 'platform/2026-02-01', 120000.00),
  (14, 'annual, 184/365 unused', 'annual', '%proration', -604.93), (15, 'the same, billed by month', 'annual-monthly', '%proration', -604.93),
  (16, 'calendar quarter from 10 February', 'quarter', 'platform/2025-02-10', 5000.00)) x (n, label, contract, line, want)
  CROSS JOIN LATERAL pg_temp.want(x.contract, x.line, x.want) w ORDER BY x.n;
SELECT * FROM pg_temp.billed('march') WHERE service_from < '2025-05-01';
SELECT * FROM pg_temp.billed('seats') WHERE service_from < '2025-06-01';
SELECT * FROM pg_temp.billed('ny') WHERE service_from < '2025-05-01';
SELECT * FROM pg_temp.billed('annual');
SELECT * FROM pg_temp.billed('off');
SELECT key, state, starts_on, ends_on, next_bill_at FROM billing.contract ORDER BY key;
-- Every document comes out again as it is, by the version it names; and nothing is left unbilled
SELECT count(*) AS documents, count(*) FILTER (WHERE NOT r.same) AS differ FROM billing.invoice i CROSS JOIN LATERAL (SELECT bool_and(x.same_bytes) AS same FROM billing.invoice_recompute(i.number) x) r;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

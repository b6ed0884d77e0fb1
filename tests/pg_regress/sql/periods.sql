-- Periods and proration: rules 2, every worked number that a fee can have, boundaries in time zones.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2025-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}]}');

-- A contract with one fee, billed to the end: the lines of all its invoices
CREATE FUNCTION pg_temp.deal(key text, starts_on date, fee jsonb, extra jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
    SELECT billing.customer_upsert(jsonb_build_object('key', key, 'time_zone', coalesce(extra->>'time_zone', 'UTC')));
    SELECT billing.contract_create(jsonb_build_object('key', key, 'customer', key, 'starts_on', starts_on, 'fees', jsonb_build_array('{"key":"fee","product":"p"}'::jsonb || fee)) || extra);
    SELECT billing.contract_activate(key)
$$;
CREATE TEMP VIEW lines AS SELECT k.key AS contract, i.n, i.issued_on, l.key, l.service_from, l.service_until, trim_scale(l.exact) AS exact, l.amount
  FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id) WHERE i.state <> 'void' ORDER BY k.key, i.n, l.line_n;

-- Stubs: 310 a month from 20 January by every basis; a quarter from 10 February; seats from day 11 of 30
SELECT pg_temp.deal('day', '2025-01-20', '{"pricing":{"model":"flat","amount":"310"}}'),
  pg_temp.deal('30-actual', '2025-01-20', '{"pricing":{"model":"flat","amount":"310"},"proration":"30_actual"}'),
  pg_temp.deal('30-strict', '2025-01-20', '{"pricing":{"model":"flat","amount":"310"},"proration":"30_strict"}'),
  pg_temp.deal('none', '2025-01-20', '{"pricing":{"model":"flat","amount":"310"},"proration":"none"}'),
  pg_temp.deal('quarter', '2025-02-10', '{"pricing":{"model":"flat","amount":"9000"}}', '{"billing":{"interval":"3 months","alignment":"calendar"}}'),
  pg_temp.deal('seats', '2025-04-11', '{"pricing":{"model":"per_unit","unit_price":"20"},"quantity":"5"}'),
  pg_temp.deal('policy', '2025-01-20', '{"pricing":{"model":"flat","amount":"310"}}'),
  pg_temp.deal('add-on', '2025-04-01', '{"pricing":{"model":"flat","amount":"12000"}}', '{"billing":{"interval":"1 year","alignment":"anniversary"},"term":"275 days"}'),
  pg_temp.deal('last', '2025-01-01', '{"pricing":{"model":"flat","amount":"310"},"timing":"arrears"}', '{"term":"50 days"}'),
  pg_temp.deal('ny-second', '2025-03-16', '{"pricing":{"model":"flat","amount":"100"},"proration":"second"}', '{"time_zone":"America/New_York"}'),
  pg_temp.deal('ny-day', '2025-03-16', '{"pricing":{"model":"flat","amount":"100"}}', '{"time_zone":"America/New_York"}');
SELECT billing.policy_set('proration_basis', '30_actual', 'contract:policy');
SELECT billing.test_clock_set('2025-05-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, message FROM billing.job_issue;
SELECT x.label, l.exact, l.amount, x.want, l.amount = x.want AS ok FROM (VALUES
  (1, 'day', 0, '310 × 12/31', 120.00), (2, '30-actual', 0, '310 × 12/30', 124.00), (3, '30-strict', 0, '310 × 11/30', 113.67), (4, 'none', 0, 'not at all', 310), (5, 'policy', 0, 'by the contract''s policy', 124.00),
  (6, 'day', 1, 'a whole month', 310), (7, 'quarter', 0, '9,000 × 50/90', 5000.00), (8, 'seats', 0, '5 × 20 × 20/30, rounded once', 66.67), (9, 'add-on', 0, '12,000 × 275/365', 9041.10),
  (10, 'last', 1, 'January in arrears', 310), (11, 'last', 2, '310 × 19/28: the term ends on 20 February', 210.36), (12, 'ny-day', 0, '100 × 16/31', 51.61), (13, 'ny-second', 0, '100 × 384 h/743 h', 51.68)) x (n, contract, boundary, label, want)
  LEFT JOIN lines l ON l.contract = x.contract AND l.n = x.boundary ORDER BY x.n;
-- In advance at the period's start, in arrears at its end; several boundaries behind give an invoice each
SELECT contract, n, issued_on, key, service_from, service_until, amount FROM lines WHERE contract IN ('day', 'last', 'ny-day', 'seats');
SELECT key, state, next_n, next_bill_at FROM billing.contract WHERE key IN ('day', 'last', 'ny-day', 'add-on') ORDER BY key;

-- The anchor: 31 January clamps, 30 November does not stick to the month's end, 29 February returns
SELECT pg_temp.deal('anchor-31', '2025-01-31', '{"pricing":{"model":"flat","amount":"1"}}', '{"billing":{"alignment":"anniversary"},"term":"5 months"}'),
  pg_temp.deal('anchor-30', '2025-11-30', '{"pricing":{"model":"flat","amount":"1"}}', '{"billing":{"interval":"3 months","alignment":"anniversary"},"term":"12 months"}'),
  pg_temp.deal('leap', '2024-02-29', '{"pricing":{"model":"flat","amount":"1"}}', '{"billing":{"interval":"1 year","alignment":"anniversary"},"term":"5 years"}'),
  pg_temp.deal('weeks', '2025-01-30', '{"pricing":{"model":"flat","amount":"1"}}', '{"billing":{"interval":"2 weeks","alignment":"anniversary"},"term":"30 days"}');
SELECT billing.test_clock_set('2029-03-01T00:00:00Z') AS clock \gset
SELECT count(*) AS ended FROM billing.contract WHERE state = 'ended';
UPDATE billing.contract SET state = 'paused' WHERE key IN ('day', '30-actual', '30-strict', 'none', 'quarter', 'seats', 'policy', 'ny-second', 'ny-day');
CALL billing.bill_run();
SELECT k.key, string_agg(p.starts_on::text, ' ' ORDER BY p.n) AS boundaries FROM billing.billing_period p JOIN billing.contract k USING (contract_id) WHERE k.key IN ('anchor-31', 'anchor-30', 'leap', 'weeks') GROUP BY k.key ORDER BY k.key;
SELECT contract, n, exact, amount FROM lines WHERE contract = 'weeks';
SELECT key, state, next_bill_at FROM billing.contract WHERE key IN ('anchor-31', 'anchor-30', 'leap', 'weeks') ORDER BY key;

-- Boundaries are local midnights: 743 h and 721 h in New York, a midnight that does not exist in Cairo, one that comes twice in Havana, a day that Apia left out
SELECT billing.test_clock_set('2025-01-01T00:00:00Z') AS clock \gset
SELECT pg_temp.deal('new-york', '2025-01-01', '{"pricing":{"model":"flat","amount":"1"}}', '{"time_zone":"America/New_York","term":"12 months"}'),
  pg_temp.deal('cairo', '2025-04-25', '{"pricing":{"model":"flat","amount":"1"}}', '{"time_zone":"Africa/Cairo","billing":{"interval":"1 day","alignment":"anniversary"},"term":"2 days"}'),
  pg_temp.deal('havana', '2025-11-01', '{"pricing":{"model":"flat","amount":"1"}}', '{"time_zone":"America/Havana","billing":{"interval":"1 day","alignment":"anniversary"},"term":"2 days"}'),
  pg_temp.deal('apia', '2011-12-28', '{"pricing":{"model":"flat","amount":"1"}}', '{"time_zone":"Pacific/Apia","billing":{"interval":"1 day","alignment":"anniversary"},"term":"4 days"}'),
  pg_temp.deal('kolkata', '2025-01-01', '{"pricing":{"model":"flat","amount":"1"}}', '{"time_zone":"Asia/Kolkata","term":"2 months"}');
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, sqlstate, message, hint FROM billing.job_issue;
SELECT k.key, p.n, p.starts_on, p.starts_at, p.ends_at, extract(epoch FROM p.ends_at - p.starts_at) / 3600 AS hours FROM billing.billing_period p JOIN billing.contract k USING (contract_id)
WHERE (k.key = 'new-york' AND p.n IN (2, 3, 10)) OR k.key IN ('cairo', 'havana', 'apia', 'kolkata') ORDER BY k.key, p.n;
SELECT contract, n, issued_on, amount FROM lines WHERE contract IN ('apia', 'cairo') ORDER BY contract, n;
SELECT label, got, want, got = want AS ok FROM (SELECT x.label, (SELECT extract(epoch FROM p.ends_at - p.starts_at)::int / 3600 FROM billing.billing_period p JOIN billing.contract k USING (contract_id) WHERE k.key = 'new-york' AND p.n = x.n), x.want FROM (VALUES ('March', 2, 743), ('April', 3, 720), ('November', 10, 721)) x (label, n, want)) y (label, got, want);

-- Due at the very instant, not a microsecond before
SELECT billing.test_clock_set('2025-12-31T22:59:59.999999Z') AS clock \gset
SELECT pg_temp.deal('berlin', '2026-01-01', '{"pricing":{"model":"flat","amount":"1"}}', '{"time_zone":"Europe/Berlin"}');
SELECT count(*) AS drafts FROM billing.invoice_generate('berlin');
SELECT state FROM billing.contract WHERE key = 'berlin';
SELECT billing.test_clock_set('2025-12-31T23:00:00Z') AS clock \gset
SELECT billing.invoice_generate('berlin');
SELECT document->>'issued_on' AS issued_on, document->>'due_on' AS due_on FROM billing.invoice WHERE key LIKE 'berlin%';
-- Net terms count calendar days: 31 January + 30 = 2 March; 1 January + 45 = 15 February
SELECT billing.test_clock_set('2025-01-31T00:00:00Z') AS clock \gset
SELECT pg_temp.deal('net-30', '2025-01-31', '{"pricing":{"model":"flat","amount":"1"}}', '{"billing":{"alignment":"anniversary"}}');
SELECT billing.invoice_generate('net-30');
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT pg_temp.deal('net-45', '2026-01-01', '{"pricing":{"model":"flat","amount":"1"}}', '{"billing":{"net_days":45}}');
SELECT billing.invoice_generate('net-45');
SELECT key, due_on, due_on = CASE key WHEN 'net-30/0' THEN date '2025-03-02' ELSE '2026-02-15' END AS ok FROM billing.invoice WHERE key LIKE 'net-%' ORDER BY key;

UPDATE billing.contract SET state = 'active' WHERE state = 'paused';
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;

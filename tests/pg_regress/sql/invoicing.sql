-- Invoicing: amounts, from event to line. Every worked number of rules 10.1 to 10.4 and of rules 1 that a line can show.
\set ECHO none
\i tests/pg_regress/helpers.sql
\i tests/pg_regress/deals.sql
\set ECHO all
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
-- 10.1 Twilio; 10.2 AssemblyAI; 10.3 Datadog per 720 and 744; 10.4 the rate card with its two deals
SELECT pg_temp.deal('twilio', '[{"key":"sms","pricing":{"model":"per_unit","unit_price":"0.0083"},"match":{"model":"sms"}},{"key":"three","pricing":{"model":"per_unit","unit_price":"0.0083"},"match":{"model":"three"}}]'),
  pg_temp.deal('assembly', '[{"key":"speech","pricing":{"model":"matrix","dimensions":["model"],"per":3600,"rows":[{"match":{"model":"nano"},"unit_price":"0.15"},{"match":{"model":"best"},"unit_price":"0.45"}]}}]'),
  pg_temp.deal('session', '[{"key":"speech","pricing":{"model":"matrix","dimensions":["model"],"per":3600,"rows":[{"match":{"model":"nano"},"unit_price":"0.15"},{"match":{"model":"best"},"unit_price":"0.45"}]}}]'),
  pg_temp.deal('datadog-720', '[{"key":"hosts","pricing":{"model":"per_unit","unit_price":"15","per":720}}]'),
  pg_temp.deal('datadog-23', '[{"key":"hosts","pricing":{"model":"per_unit","unit_price":"23","per":720}}]'),
  pg_temp.deal('datadog-744', '[{"key":"hosts","pricing":{"model":"per_unit","unit_price":"15","per":744}}]');
SELECT count(*) AS changes FROM billing.catalog_apply('{"price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"q","pricing":{"model":"matrix","dimensions":["model"],"per":1000,"rows":[
  {"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"model":"gpt-3.5"},"unit_price":"0.002"}]}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"p","meter":"q","price":"tokens"}]}]}');
SELECT billing.customer_upsert('{"key":"startup"}') AS a, billing.customer_upsert('{"key":"acme"}') AS b, billing.customer_upsert('{"key":"mega"}') AS c \gset
SELECT billing.subscribe('startup', 'pro', '2026-01-01'), billing.subscribe('acme', 'pro', '2026-01-01', '{"overrides":[{"meter":"q","match":{"model":"gpt-4"},"unit_price":"0.02"}]}'),
  billing.subscribe('mega', 'pro', '2026-01-01', '{"overrides":[{"meter":"q","match":{"model":"gpt-4"},"unit_price":"0.015"},{"meter":"q","match":{"model":"gpt-3.5"},"unit_price":"0.001"}]}');
SELECT sum(pg_temp.use(c, n, jsonb_build_object('model', m))) AS events FROM (VALUES ('twilio', 1234567, 'sms'), ('twilio', 1, 'three'), ('twilio', 2, 'three'), ('assembly', 4567890, 'nano'), ('assembly', 1234567, 'best'), ('session', 8263, 'nano'), ('session', 8263, 'best'),
  ('datadog-720', 7200, NULL), ('datadog-720', 180, NULL), ('datadog-23', 7380, NULL), ('datadog-744', 7440, NULL), ('datadog-744', 180, NULL)) x (c, n, m);
SELECT sum(pg_temp.use(c, n, jsonb_build_object('model', m))) AS events FROM unnest(ARRAY['startup', 'acme', 'mega']) c, (VALUES (1234567, 'gpt-4'), (9876543, 'gpt-3.5')) x (n, m);

-- Bounds: a minimum is met exactly by a line of its own, a maximum cut by one; per row of a matrix; min > max can't be
SELECT pg_temp.deal('minimum', '[{"key":"m","lines_by":["model"],"pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]'),
  pg_temp.deal('maximum', '[{"key":"m","lines_by":["model"],"pricing":{"model":"per_unit","unit_price":"1","maximum":"50"}}]'),
  pg_temp.deal('nothing', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]'),
  pg_temp.deal('rows', '[{"key":"m","pricing":{"model":"matrix","dimensions":["state"],"rows":[{"match":{"state":"CA"},"unit_price":"10","minimum":"100","maximum":"200"},{"match":{"state":"NY"},"unit_price":"12","minimum":"120","maximum":"240"}]}}]'),
  pg_temp.deal('rows-2', '[{"key":"m","pricing":{"model":"matrix","dimensions":["state"],"rows":[{"match":{"state":"CA"},"unit_price":"10","minimum":"100","maximum":"200"},{"match":{"state":"NY"},"unit_price":"12","minimum":"120","maximum":"240"}]}}]'),
  pg_temp.deal('tier-cap', '[{"key":"m","pricing":{"model":"graduated","tiers":[{"up_to":"100","unit_price":"1","maximum":"60"},{"unit_price":"0.5"}]}}]'),
  pg_temp.deal('stub', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1","minimum":"310"}}]', '{"starts_on":"2026-01-20"}'),
  pg_temp.deal('stub-units', '[{"key":"m","prorate_units":true,"pricing":{"model":"graduated","free_units":"31","tiers":[{"up_to":"62","unit_price":"1"},{"unit_price":"0.5"}]}}]', '{"starts_on":"2026-01-20"}'),
  pg_temp.deal('stub-whole', '[{"key":"m","pricing":{"model":"graduated","free_units":"31","tiers":[{"up_to":"62","unit_price":"1"},{"unit_price":"0.5"}]}}]', '{"starts_on":"2026-01-20"}');
SELECT sum(pg_temp.use(c, n, p::jsonb, '2026-01-25Z')) AS events FROM (VALUES ('minimum', 45.005, '{"model":"a"}'), ('minimum', 45.005, '{"model":"b"}'), ('maximum', 45.005, '{"model":"a"}'), ('maximum', 45.005, '{"model":"b"}'), ('rows', 8, '{"state":"CA"}'), ('rows', 25, '{"state":"NY"}'),
  ('rows-2', 10, '{"state":"NY"}'), ('tier-cap', 110, '{}'), ('stub', 20, '{}'), ('stub-units', 100, '{}'), ('stub-whole', 100, '{}')) x (c, n, p);

-- Rounding: by line and by invoice, half up and half even; currencies with no, three and four minor units
SELECT pg_temp.deal('by-line', '[{"key":"m","lines_by":["model"],"pricing":{"model":"per_unit","unit_price":"1"}}]'), pg_temp.deal('by-invoice', '[{"key":"m","lines_by":["model"],"pricing":{"model":"per_unit","unit_price":"1"}}]'),
  pg_temp.deal('half-up', '[{"key":"m","lines_by":["model"],"pricing":{"model":"per_unit","unit_price":"1"}}]'), pg_temp.deal('half-even', '[{"key":"m","lines_by":["model"],"pricing":{"model":"per_unit","unit_price":"1"}}]'),
  pg_temp.deal('jpy', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1"}}]', '{"currency":"JPY"}'), pg_temp.deal('kwd', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1"}}]', '{"currency":"KWD"}'), pg_temp.deal('clf', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1"}}]', '{"currency":"CLF"}'),
  pg_temp.deal('credit', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"0.125"}}]'),
  pg_temp.deal('digits', '[{"key":"m","lines_by":["model"],"pricing":{"model":"per_unit","unit_price":"1"}},{"key":"tiny","match":{"model":"tiny"},"pricing":{"model":"per_unit","unit_price":"0.000000000001"}}]', '{"charges":[{"key":"m","product":"p","meter":"q","match":{"model":"big"},"pricing":{"model":"per_unit","unit_price":"1"}},{"key":"tenth","product":"p","meter":"q","match":{"model":"tenth"},"pricing":{"model":"per_unit","unit_price":"0.1"}},{"key":"tiny","product":"p","meter":"q","match":{"model":"tiny"},"pricing":{"model":"per_unit","unit_price":"1"}}]}');
SELECT billing.policy_set('rounding_level', 'invoice', 'contract:by-invoice'), billing.policy_set('rounding_mode', 'half_even', 'contract:half-even');
SELECT sum(pg_temp.use(c, n, jsonb_build_object('model', m))) AS events FROM (VALUES ('by-line', 33.335, 'a'), ('by-line', 33.335, 'b'), ('by-line', 33.335, 'c'), ('by-invoice', 33.335, 'a'), ('by-invoice', 33.335, 'b'), ('by-invoice', 33.335, 'c'),
  ('half-up', 0.125, 'a'), ('half-up', 2.345, 'b'), ('half-up', 2.355, 'c'), ('half-even', 0.125, 'a'), ('half-even', 2.345, 'b'), ('half-even', 2.355, 'c'), ('jpy', 1234.5, NULL), ('kwd', 1.2345, NULL), ('clf', 0.00005, NULL), ('credit', -1, NULL),
  ('digits', 12345678901234567.89, 'big'), ('digits', 0.1, 'tenth'), ('digits', 1e-12, 'tiny')) x (c, n, m);

-- Tiers run over the whole quantity of the price, then its lines share the amount: requests 6.20 over two models
SELECT pg_temp.deal('tiers', '[{"key":"m","lines_by":["model"],"pricing":{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0"},{"up_to":"5000","unit_price":"0.001"},{"unit_price":"0.0005"}]}}]'),
  pg_temp.deal('thirds', '[{"key":"m","lines_by":["model"],"pricing":{"model":"flat","amount":"100"}}]'),
  pg_temp.deal('package', '[{"key":"m","lines_by":["model"],"pricing":{"model":"package","package_size":"250","amount":"4"}}]'),
  pg_temp.deal('step', '[{"key":"m","pricing":{"model":"stairstep","tiers":[{"up_to":"100","amount":"50"},{"up_to":"500","amount":"200"},{"amount":"700"}]}}]'),
  pg_temp.deal('percent', '[{"key":"m","pricing":{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}}]'),
  pg_temp.deal('percent-sum', '[{"key":"m","pricing":{"model":"percentage","rate":"0.029","fixed":"0.30"}}]'),
  pg_temp.deal('grad-percent', '[{"key":"m","pricing":{"model":"graduated_percentage","tiers":[{"up_to":"1000","rate":"0.01","flat_fee":"200"},{"up_to":"10000","rate":"0.02","flat_fee":"300"},{"rate":"0.03"}]}}]'),
  pg_temp.deal('dynamic', '[{"key":"m","pricing":{"model":"dynamic","multiplier":"1.2"}}]'),
  pg_temp.deal('users', '[{"key":"u","meter":"users","pricing":{"model":"volume","tiers":[{"up_to":"2","unit_price":"12"},{"unit_price":"10"}]}},{"key":"peak","meter":"peak","pricing":{"model":"package","package_size":"100","amount":"10"}},{"key":"calls","meter":"calls","pricing":{"model":"per_unit","unit_price":"0.01"}}]');
SELECT sum(pg_temp.use(c, n, p::jsonb)) AS events FROM (VALUES ('tiers', 6455, '{"model":"gpt-4"}'), ('tiers', 2940, '{"model":"gpt-3.5"}'), ('thirds', 1, '{"model":"a"}'), ('thirds', 1, '{"model":"b"}'), ('thirds', 1, '{"model":"c"}'), ('package', 300, '{"model":"a"}'), ('package', 201, '{"model":"b"}'),
  ('step', 101, '{}'), ('percent', 5, '{}'), ('percent', 100, '{}'), ('percent', 500, '{}'), ('percent-sum', 5, '{}'), ('percent-sum', 100, '{}'), ('percent-sum', 500, '{}'), ('grad-percent', 500, '{}'), ('grad-percent', 550, '{}'), ('grad-percent', 4000, '{}'), ('dynamic', 10.05, '{}'),
  ('users', 50, '{"user":"ann","model":"a"}'), ('users', 201, '{"user":"bob","model":"a"}'), ('users', 7, '{"user":"ann","model":"b"}'), ('users', 8, '{"user":"cy","model":"b"}')) x (c, n, p);

-- A price that changes on 16 January: by usage time two lines, by the period's start one
SELECT count(*) FROM billing.catalog_apply('{"price_books":[{"key":"moving","currency":"USD","prices":[{"key":"q","meter":"q","pricing":{"model":"per_unit","unit_price":"0.010"}}]}]}');
SELECT count(*) FROM billing.catalog_apply('{"price_books":[{"key":"moving","prices":[{"key":"q","meter":"q","valid_from":"2026-01-16T00:00:00Z","pricing":{"model":"per_unit","unit_price":"0.008"}}]}]}');
SELECT pg_temp.deal('usage-time', '[{"key":"m","price":"q"}]', '{"price_book":"moving"}'), pg_temp.deal('period-start', '[{"key":"m","price":"q"}]', '{"price_book":"moving"}'), pg_temp.deal('signature', '[{"key":"m","price":"q"}]', '{"price_book":"moving"}'), pg_temp.deal('pinned', '[{"key":"m","price":"q"}]', '{"price_book":"moving","prices":"pin"}');
SELECT billing.policy_set('rate_at', 'period_start', 'contract:period-start'), billing.policy_set('rate_at', 'contract_signature', 'contract:signature');
SELECT sum(pg_temp.use(c, 10000, '{}', '2026-01-15T23:59:59.999999Z')) + sum(pg_temp.use(c, 12000, '{}', '2026-01-16Z')) AS events FROM unnest(ARRAY['usage-time', 'period-start', 'signature', 'pinned']) c;

-- Monthly tiers, billed by the quarter: 9,395 a month cost 18.60, not 15.59
SELECT pg_temp.deal('quarterly', '[{"key":"m","every":"1 month","pricing":{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0"},{"up_to":"5000","unit_price":"0.001"},{"unit_price":"0.0005"}]}}]', '{"billing":{"interval":"3 months"}}'),
  pg_temp.deal('quarter-tiers', '[{"key":"m","pricing":{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0"},{"up_to":"5000","unit_price":"0.001"},{"unit_price":"0.0005"}]}}]', '{"billing":{"interval":"3 months"}}');
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
SELECT sum(pg_temp.use(c, 9395, '{}', at::timestamptz)) AS events FROM unnest(ARRAY['quarterly', 'quarter-tiers']) c, unnest(ARRAY['2026-01-10Z', '2026-02-10Z', '2026-03-10Z']) at;

-- A matrix of 1,000 rows: more than a batch reads at once. (*, eu) is one price: 21 units are 3 packages over its two lines
SELECT count(*) FROM billing.catalog_apply(jsonb_build_object('price_books', jsonb_build_array(jsonb_build_object('key', 'wide', 'currency', 'USD', 'prices', jsonb_build_array(jsonb_build_object('key', 'q', 'meter', 'q', 'pricing',
  jsonb_build_object('model', 'matrix', 'dimensions', '["model","region"]'::jsonb, 'rows', (SELECT jsonb_agg(jsonb_build_object('match', jsonb_build_object('model', 'm' || i), 'unit_price', (i / 1000.0)::numeric(10,3)::text)) FROM generate_series(1, 998) i)
    || '[{"match":{"model":"m7","region":"eu"},"unit_price":"5"},{"match":{"region":"eu"},"pricing":{"model":"package","package_size":"10","amount":"3"}}]'::jsonb)))))));
SELECT pg_temp.deal('wide', '[{"key":"m","price":"q"}]', '{"price_book":"wide"}'), pg_temp.deal('wide-gap', '[{"key":"m","price":"q"}]', '{"price_book":"wide"}');
SELECT sum(pg_temp.use(c, n, p::jsonb)) AS events FROM (VALUES ('wide', 10, '{"model":"m1"}'), ('wide', 10, '{"model":"m998"}'), ('wide', 10, '{"model":"m7"}'), ('wide', 10, '{"model":"m7","region":"eu"}'), ('wide', 11, '{"model":"other","region":"eu"}'), ('wide', 10, '{"region":"eu"}'), ('wide-gap', 1, '{"model":"other"}')) x (c, n, p);

CALL billing.bill_run('2026-02-01T00:00:00Z');
-- what has no price blocks its contract and no other
SELECT key, sqlstate, message, hint FROM billing.job_issue;
UPDATE billing.contract SET state = 'draft' WHERE key = 'wide-gap';
SELECT x.contract, string_agg(l.amount::text || CASE WHEN l.kind <> 'usage' THEN ' ' || l.kind ELSE '' END, ', ' ORDER BY l.line_n) AS lines, t.total, x.want, string_agg(l.amount::text || CASE WHEN l.kind <> 'usage' THEN ' ' || l.kind ELSE '' END, ', ' ORDER BY l.line_n) || ' = ' || t.total = x.want AS ok
FROM (VALUES (1, 'twilio', '10246.91, 0.02 = 10246.93'), (2, 'assembly', '154.32, 190.33 = 344.65'), (3, 'session', '1.03, 0.34 = 1.37'), (4, 'datadog-720', '153.75 = 153.75'), (5, 'datadog-23', '235.75 = 235.75'), (6, 'datadog-744', '153.63 = 153.63'),
  (7, 'startup-1', '19.75, 37.04 = 56.79'), (8, 'acme-1', '19.75, 24.69 = 44.44'), (9, 'mega-1', '9.88, 18.52 = 28.40'),
  (10, 'minimum', '45.01, 45.01, 9.98 true_up = 100.00'), (11, 'maximum', '45.01, 45.01, -40.02 cap = 50.00'), (12, 'nothing', '100.00 true_up = 100.00'), (13, 'rows', '80.00, 300.00, 20.00 true_up, -60.00 cap = 340.00'), (14, 'rows-2', '120.00 = 120.00'), (15, 'tier-cap', '65.00 = 65.00'),
  (16, 'stub', '20.00, 100.00 true_up = 120.00'), (17, 'stub-units', '56.00 = 56.00'), (18, 'stub-whole', '65.50 = 65.50'),
  (20, 'by-line', '33.34, 33.34, 33.34 = 100.02'), (21, 'by-invoice', '33.34, 33.34, 33.33 = 100.01'), (22, 'half-up', '0.13, 2.35, 2.36 = 4.84'), (23, 'half-even', '0.12, 2.34, 2.36 = 4.82'), (24, 'jpy', '1235 = 1235'), (25, 'kwd', '1.235 = 1.235'), (26, 'clf', '0.0001 = 0.0001'), (27, 'credit', '-0.13 = -0.13'),
  (30, 'tiers', '1.94, 4.26 = 6.20'), (31, 'thirds', '33.34, 33.33, 33.33 = 100.00'), (32, 'package', '7.19, 4.81 = 12.00'), (33, 'step', '200.00 = 200.00'), (34, 'percent', '13.70 = 13.70'), (35, 'percent-sum', '18.45 = 18.45'), (36, 'grad-percent', '591.00 = 591.00'), (37, 'dynamic', '12.06 = 12.06'),
  (38, 'users', '0.04, 30.00, 30.00 = 60.04'), (40, 'usage-time', '100.00, 96.00 = 196.00'), (41, 'period-start', '220.00 = 220.00'), (42, 'signature', '220.00 = 220.00'), (43, 'pinned', '220.00 = 220.00'), (50, 'wide', '0.01, 0.07, 50.00, 9.98, 4.71, 4.29 = 69.06')) x (n, contract, want)
LEFT JOIN lines l USING (contract) LEFT JOIN totals t USING (contract) GROUP BY x.n, x.contract, t.total, x.want ORDER BY x.n;
-- Rounded once, at the line; the exact amount beside it
SELECT contract, key, kind, quantity, exact, amount FROM lines WHERE contract IN ('digits', 'minimum', 'rows', 'stub-units', 'tiers', 'usage-time', 'wide', 'users', 'by-invoice');
CALL billing.bill_run();
SELECT contract, string_agg(amount::text, ', ' ORDER BY line_n), sum(amount), sum(amount) = CASE contract WHEN 'quarterly' THEN 18.60 ELSE 15.59 END AS ok FROM lines WHERE contract LIKE 'quarter%' GROUP BY contract ORDER BY contract;

-- Every invoice, computed again from its events, has the same bytes; and stays so when buckets are folded
SELECT count(*) AS invoices, count(*) FILTER (WHERE same) AS same FROM (SELECT (SELECT bool_and(same_bytes) FROM billing.invoice_recompute(i.number)) AS same FROM billing.invoice i) x;
CALL billing.fold();
SELECT * FROM totals t, billing.invoice_recompute(t.number) r WHERE t.contract IN ('wide', 'digits', 'percent', 'users') AND t.total <> 0 ORDER BY t.contract, t.number, r.line_key;

-- From the line to the working
SELECT billing.invoice_explain(number) FROM totals WHERE contract = 'stub' AND total = 120;
SELECT billing.invoice_explain(number) FROM totals WHERE contract = 'percent-sum';
SELECT billing.invoice_explain(number) FROM totals WHERE contract = 'stub-units' AND total > 50;
SELECT jsonb_pretty(document - 'inputs') FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'acme-1' AND i.n = 1;
SELECT e.event_id, e.value, e.dimensions FROM (SELECT min(number) AS number FROM totals WHERE contract = 'minimum') t, billing.invoice_line_events(t.number, 'm/2026-01-01/model=a') e;
SELECT count(*) AS none FROM (SELECT min(number) AS number FROM totals WHERE contract = 'minimum') t, billing.invoice_line_events(t.number, 'm/2026-01-01/true_up') e;
UPDATE billing.contract SET state = 'active' WHERE key = 'wide-gap';
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;

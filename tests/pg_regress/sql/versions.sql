-- Prices on live contracts: versions inside a period and the position in their tiers, float and pin, what a new price would
-- bill, publishing and withdrawing, and usage that has no price yet. Amounts worked out by hand beside each case.
\set ECHO none
\i tests/pg_regress/helpers.sql
\i tests/pg_regress/deals.sql
CREATE FUNCTION pg_temp.apply(prices jsonb, at timestamptz DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM billing.catalog_apply(jsonb_build_object('price_books', jsonb_build_array(jsonb_build_object('key', 'j', 'currency', 'USD', 'prices',
        (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('meter', 'q', 'valid_from', at)) || p) FROM jsonb_array_elements(prices) p)))))
$$;
\set ECHO all
SELECT billing.test_clock_set('2026-02-02T00:00:00Z') AS clock \gset

-- rules.md 1: 8,000 then 6,000, v1 ≤10,000 @.010 then .006, v2 from 16 January .008/.005. Continue 80 + 16 + 20, reset 80 + 48,
-- period_start 100 + 24; pinned the same; $0.010→$0.008, 10,000 then 12,000: 100 + 96, period_start 220
SELECT pg_temp.apply('[{"key":"tiers","pricing":{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.010"},{"unit_price":"0.006"}]}}, {"key":"unit","pricing":{"model":"per_unit","unit_price":"0.010"}},
  {"key":"volume","pricing":{"model":"volume","tiers":[{"up_to":"10000","unit_price":"0.010"},{"unit_price":"0.006"}]}}, {"key":"package","pricing":{"model":"package","package_size":"5000","amount":"10"}},
  {"key":"flat","pricing":{"model":"flat","amount":"7"}}, {"key":"bounded","pricing":{"model":"per_unit","unit_price":"0.010","minimum":"150"}}, {"key":"peak","meter":"peak","pricing":{"model":"per_unit","unit_price":"0.010"}}]') AS v1;
SELECT pg_temp.apply('[{"key":"tiers","pricing":{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.008"},{"unit_price":"0.005"}]}}, {"key":"unit","pricing":{"model":"per_unit","unit_price":"0.008"}},
  {"key":"volume","pricing":{"model":"volume","tiers":[{"up_to":"10000","unit_price":"0.008"},{"unit_price":"0.005"}]}}, {"key":"package","pricing":{"model":"package","package_size":"5000","amount":"8"}},
  {"key":"bounded","pricing":{"model":"per_unit","unit_price":"0.008","minimum":"500"}}]', '2026-01-16T00:00:00Z') AS v2;
SELECT pg_temp.deal(d, jsonb_build_array(jsonb_build_object('key', 'm', 'price', p)), '{"price_book":"j"}'::jsonb || o) FROM (VALUES
  ('goes-on', 'tiers', '{}'::jsonb), ('anew', 'tiers', '{}'), ('start', 'tiers', '{}'), ('pinned', 'tiers', '{"prices":"pin"}'), ('unit', 'unit', '{}'), ('unit-start', 'unit', '{}'), ('unit-pinned', 'unit', '{"prices":"pin"}'),
  ('volume', 'volume', '{}'), ('package', 'package', '{}'), ('bounded', 'bounded', '{}'), ('half-off', 'tiers', '{"overrides":[{"meter":"q","percent_off":"50"}]}'),
  ('by-model', 'tiers', '{"charges":[{"key":"m","product":"p","meter":"q","price":"tiers","lines_by":["model"]}]}'), ('tokyo', 'tiers', '{"time_zone":"Asia/Tokyo"}')) x (d, p, o);
SELECT billing.policy_set('tier_continuity', 'reset', 'contract:anew') AS reset, billing.policy_set('rate_at', 'period_start', 'contract:start') AS start, billing.policy_set('rate_at', 'period_start', 'contract:unit-start') AS unit \gset
SELECT sum(pg_temp.use(c, 8000, '{"model":"a"}', '2026-01-10Z') + pg_temp.use(c, 5999, '{"model":"b"}', '2026-01-20Z') + pg_temp.use(c, 1, '{"model":"a"}', '2026-01-20Z')) AS events
FROM unnest(ARRAY['goes-on', 'anew', 'start', 'pinned', 'volume', 'package', 'bounded', 'half-off', 'by-model', 'tokyo']) c;
SELECT sum(pg_temp.use(c, 10000, '{}', '2026-01-10Z') + pg_temp.use(c, 12000, '{}', '2026-01-20Z')) AS events FROM unnest(ARRAY['unit', 'unit-start', 'unit-pinned']) c;
CALL billing.bill_run();
SELECT contract, key, kind, quantity, exact, amount FROM lines;
SELECT billing.invoice_explain(number) FROM totals WHERE contract IN ('goes-on', 'volume');
-- What billing took is what price_resolve tells
SELECT customer, at::date AS day, r.version FROM unnest(ARRAY['goes-on', 'anew', 'start', 'pinned', 'bounded']) customer, unnest(ARRAY['2026-01-10Z', '2026-01-20Z']::timestamptz[]) at, billing.price_resolve(customer, 'q', '{}', at) r;
-- Invoices recorded before there was a continuity are computed as they were billed
SELECT pg_temp.lines(d.document) FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id),
  LATERAL (SELECT billing_internal.issued_ref(i.customer_id, i.invoice_id, i.cut_at) AS r) x,
  LATERAL billing_internal.bill_look(ARRAY[jsonb_populate_record(x.r, jsonb_build_object('policies', (x.r).policies - 'tier_continuity'))]) d
WHERE k.key = 'goes-on';
-- What is for a whole period changes with a period: a flat amount, and any price of a maximum
SELECT pg_temp.deal('flat', '[{"key":"m","price":"flat"}]', '{"price_book":"j"}'), pg_temp.deal('peak', '[{"key":"m","meter":"peak","price":"peak"}]', '{"price_book":"j"}');
\a \t
SELECT pg_temp.fails(format('SELECT pg_temp.apply(%L, %L)', p, '2026-02-10T00:00:00Z')) FROM unnest(ARRAY['[{"key":"flat","pricing":{"model":"flat","amount":"8"}}]', '[{"key":"flat","pricing":{"model":"per_unit","unit_price":"1"}}]', '[{"key":"peak","meter":"peak","pricing":{"model":"per_unit","unit_price":"1"}}]']) p;

-- A backtest: the bills of January of all who use the price, pinned ones too; 14,000 × 0.001, half of it under 50 % off
\a \t
SELECT * FROM billing.price_backtest('{"price_books":[{"key":"j","prices":[{"key":"tiers","meter":"q","pricing":{"model":"per_unit","unit_price":"0.001"}}]}]}', '2026-01-01Z', '2026-02-01Z');
-- Of the running period the usage until now; of one customer: 1,000 × 0.008 and × 0.001
SELECT pg_temp.use('goes-on', 1000, '{}', '2026-02-01Z') AS february;
SELECT * FROM billing.price_backtest('{"price_books":[{"key":"j","prices":[{"key":"tiers","meter":"q","pricing":{"model":"per_unit","unit_price":"0.001"}}]}]}', '2026-02-01Z', '2026-03-01Z', 'goes-on');
-- What it can't price it says
SELECT * FROM billing.price_backtest('{"price_books":[{"key":"j","prices":[{"key":"tiers","meter":"q","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"a"},"unit_price":"0.001"}]}}]}]}', '2026-01-01Z', '2026-02-01Z', 'goes-on');
SELECT pg_temp.apply('[{"key":"tiers","pricing":{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.008"},{"unit_price":"0.005"}]}}]') AS nothing_changed;
\a \t
SELECT pg_temp.fails(format('SELECT * FROM billing.price_backtest(%L, %L, %L)', d, f, u)) FROM (VALUES
  ('{"price_books":[{"key":"j","prices":[{"key":"none","meter":"q","pricing":{"model":"flat","amount":"1"}}]}]}', '2026-01-01Z', '2026-02-01Z'),
  ('{"price_books":[{"key":"j","prices":[{"key":"tiers","meter":"peak","pricing":{"model":"flat","amount":"1"}}]}]}', '2026-01-01Z', '2026-02-01Z'),
  ('{"price_books":[{"key":"j","prices":[{"key":"tiers","meter":"q","pricing":{"model":"matrix","dimensions":["nope"],"rows":[{"match":{},"unit_price":"1"}]}}]}]}', '2026-01-01Z', '2026-02-01Z'),
  ('{"price_books":[{"key":"j"}]}', '2026-01-01Z', '2026-02-01Z'), ('{"plans":[]}', '2026-01-01Z', '2026-02-01Z'), ('7', '2026-01-01Z', '2026-02-01Z'),
  ('{"price_books":[{"key":"j","prices":[{"key":"tiers","meter":"q","pricing":{"model":"flat","amount":"1"}}]}]}', '2026-02-01Z', '2026-02-01Z')) x (d, f, u);

-- Publishing: who it is for, with old and new bills; nothing is done until it is asked for
\a \t
SELECT pg_temp.deal('replaced', '[{"key":"m","price":"tiers"}]', '{"price_book":"j","overrides":[{"meter":"q","pricing":{"model":"per_unit","unit_price":"1"}}]}'), pg_temp.deal('new', '[{"key":"m","price":"tiers"}]', '{"price_book":"j","starts_on":"2026-02-01"}');
\set doc '{"price_books":[{"key":"j","prices":[{"key":"tiers","meter":"q","pricing":{"model":"per_unit","unit_price":"0.001"}},{"key":"flat","meter":"q","pricing":{"model":"flat","amount":"7"}}]}]}'
SELECT * FROM billing.price_publish(:'doc', '2026-03-01Z');
-- What is billed already keeps its prices: that is said
SET client_min_messages = notice;
SELECT count(*) FROM billing.price_publish('{"price_books":[{"key":"j","prices":[{"key":"tiers","meter":"q","pricing":{"model":"per_unit","unit_price":"0.001"}}]}]}', '2026-01-30Z');
SET client_min_messages = warning;
SELECT count(*) AS versions FROM billing.price WHERE key = 'tiers';
SELECT effect, sum(contracts) AS contracts, count(*) AS rows FROM billing.price_publish(:'doc', '2026-03-01Z', dry_run => false) GROUP BY effect ORDER BY effect;
SELECT key, version, valid_during FROM billing.price WHERE key IN ('tiers', 'flat') ORDER BY key, version;
SELECT count(*) AS nothing_left FROM billing.price_publish(:'doc', '2026-03-01Z', dry_run => false);
\a \t
SELECT pg_temp.fails(format('SELECT * FROM billing.price_publish(%L, %s)', d, a)) FROM (VALUES
  (:'doc', 'NULL'), (:'doc', '''2026-03-01Z'', NULL'), ('{"price_books":[{"key":"j","prices":[{"key":"tiers.new","meter":"q","pricing":{"model":"flat","amount":"1"}}]}]}', '''2026-04-01Z'', false'),
  ('{"price_books":[{"key":"nope","prices":[{"key":"tiers","meter":"q","pricing":{"model":"flat","amount":"1"}}]}]}', '''2026-04-01Z'''), ('{"price_books":[{"key":"j","prices":[{"key":"tiers","meter":"q","valid_from":"2026-04-01T00:00:00Z","pricing":{"model":"flat","amount":"1"}}]}]}', '''2026-04-01Z'''),
  ('{"price_books":[{"key":"j","prices":[{"key":"tiers","retired":true}]}]}', '''2026-04-01Z'''), ('{"price_books":[{"key":"j","prices":[{"key":"flat","meter":"q","pricing":{"model":"flat","amount":"9"}}]}]}', '''2026-03-05Z''')) x (d, a);

-- A version that has not begun can be withdrawn: the one before goes on, the number is used
\a \t
SELECT billing.price_withdraw('j/tiers', 3, 'too cheap');
SELECT version, valid_during, withdrawn_at IS NOT NULL AS withdrawn, withdrawn_reason FROM billing.price WHERE key = 'tiers' ORDER BY version;
SELECT r.version FROM billing.price_resolve('goes-on', 'q', '{}', '2026-03-05Z') r;
SELECT p->>'key' AS key, p->'pricing'->>'model' AS exported FROM jsonb_array_elements(billing.catalog_export()->'price_books'->0->'prices') p WHERE p->>'key' = 'tiers';
SELECT pg_temp.apply('[{"key":"tiers","pricing":{"model":"per_unit","unit_price":"0.002"}}]', '2026-03-01Z') AS again;
SELECT version, valid_during FROM billing.price WHERE key = 'tiers' AND withdrawn_at IS NULL ORDER BY version;
\a \t
SELECT pg_temp.apply('[{"key":"later","pricing":{"model":"flat","amount":"1"}}]', '2026-03-01Z');
SELECT pg_temp.deal('scheduled', '[{"key":"m","price":"later"}]', '{"price_book":"j","starts_on":"2026-03-01"}');
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.price_withdraw('j/tiers', 2, 'no')$$, $$SELECT billing.price_withdraw('j/tiers', 1, 'no')$$, $$SELECT billing.price_withdraw('j/tiers', 3, 'twice')$$, $$SELECT billing.price_withdraw('j/tiers', 9, 'no')$$,
  $$SELECT billing.price_withdraw('j/tiers', 4, ' ')$$, $$SELECT billing.price_withdraw('j/later', 1, 'needed')$$]) c;

-- Usage without a price: hold waits for it, bill bills the rest and the report keeps what was left out
\a \t
SELECT pg_temp.apply('[{"key":"rows","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"a"},"unit_price":"1"}]}}]') AS rows;
SELECT pg_temp.deal(c, '[{"key":"m","price":"rows"}]', '{"price_book":"j","starts_on":"2026-02-01"}') FROM unnest(ARRAY['holds', 'bills']) c;
SELECT billing.policy_set('unpriced_usage', 'bill', 'contract:bills') AS policy \gset
SELECT sum(pg_temp.use(c, n, jsonb_build_object('model', m), d)) AS events FROM unnest(ARRAY['holds', 'bills']) c, (VALUES (10, 'a', '2026-02-01 10:30Z'::timestamptz), (5, 'x', '2026-02-01 11:30Z'), (2, 'x', '2026-02-01 23:30Z')) u (n, m, d);
SELECT billing.test_clock_set('2026-03-02T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, sqlstate, message FROM billing.job_issue ORDER BY at;
SELECT contract, key, quantity, amount FROM lines WHERE contract IN ('holds', 'bills');
SELECT jsonb_pretty(i.document->'inputs'->'unpriced') AS left_out FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'bills';
SELECT customer, contract, charge, meter, day, dimensions, events, quantity, since, reason, left_out FROM billing.unpriced_usage WHERE customer IN ('holds', 'bills') AND meter = 'q' ORDER BY customer, day, dimensions;
SELECT line_key, billed, recomputed, same_bytes FROM totals t, billing.invoice_recompute(t.number) WHERE t.contract = 'bills';
-- Once it has a price, what was left out is known as not billed: 7 at 2, and nothing of what was
SELECT pg_temp.apply('[{"key":"rows","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"a"},"unit_price":"3"},{"match":{},"unit_price":"2"}]}}]', '2026-02-01Z') AS priced;
SELECT count(*) AS unpriced FROM billing.unpriced_usage WHERE customer = 'bills' AND meter = 'q';
SELECT u.* FROM billing.contract k, billing_internal.unbilled_usage(k.customer_id, k.contract_id, ARRAY[1]) u WHERE k.key = 'bills';
SELECT line_key, billed, recomputed, same_bytes FROM totals t, billing.invoice_recompute(t.number) WHERE t.contract = 'bills';
CALL billing.bill_run();
SELECT contract, key, quantity, amount FROM lines WHERE contract IN ('holds', 'bills');

-- A list price that has ended blocks nobody whose override replaces it wholly: 100 × 2
SELECT billing.test_clock_set('2026-03-10T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{"price_books":[{"key":"j","prices":[{"key":"unit","retired":true,"valid_from":"2026-03-05T00:00:00Z"}]}]}');
SELECT pg_temp.deal('own-price', '[{"key":"m","price":"unit"}]', '{"price_book":"j","starts_on":"2026-03-06","overrides":[{"meter":"q","pricing":{"model":"per_unit","unit_price":"2"}}]}');
SELECT pg_temp.use('own-price', 100, '{}', '2026-03-07Z') AS events;
SELECT pg_temp.lines(billing.invoice_preview('own-price'));
SELECT source, price, version, pricing FROM billing.price_resolve('own-price', 'q', '{}', '2026-03-07Z');
\a \t
SELECT pg_temp.fails(format('SELECT pg_temp.deal(%L, %L, %L)', 'no-price', '[{"key":"m","price":"unit"}]', '{"price_book":"j","starts_on":"2026-03-06","overrides":[{"meter":"q","match":{"model":"a"},"pricing":{"model":"per_unit","unit_price":"2"}}]}'));
\a \t

-- A large book: 100 prices of 50 rows are applied, each found, and nothing the second time; one row that changes is one version
CREATE FUNCTION pg_temp.book(special text) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('price_books', jsonb_build_array(jsonb_build_object('key', 'large', 'currency', 'USD', 'prices', (SELECT jsonb_agg(jsonb_build_object('key', 'p' || p, 'meter', 'q', 'pricing',
    jsonb_build_object('model', 'matrix', 'dimensions', '["model"]'::jsonb, 'rows', (SELECT jsonb_agg(jsonb_build_object('match', jsonb_build_object('model', 'm' || r), 'unit_price', CASE WHEN p = 42 AND r = 7 THEN special ELSE p || '.' || r END))
      FROM generate_series(1, 50) r)))) FROM generate_series(1, 100) p))))
$$;
SELECT count(*) AS changes FROM billing.catalog_apply(pg_temp.book('42.7'));
SELECT count(*) AS nothing FROM billing.catalog_apply(pg_temp.book('42.7'));
SELECT pg_temp.deal('large', '[{"key":"m","price":"p42"}]', '{"price_book":"large"}');
SELECT action, key, after->'pricing'->'rows'->6 AS row FROM billing.catalog_apply(jsonb_set(pg_temp.book('9'), '{price_books,0,prices,41,valid_from}', '"2026-03-05T00:00:00Z"'));
SELECT at::date AS day, version, pricing FROM unnest(ARRAY['2026-03-01Z', '2026-03-06Z']::timestamptz[]) at, billing.price_resolve('large', 'q', '{"model":"m7"}', at) r;
SELECT count(*) AS rows, count(DISTINCT price_id) AS versions FROM billing.price_row JOIN billing.price p USING (price_id) JOIN billing.price_book b USING (price_book_id) WHERE b.key = 'large';

SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;

-- What was left out for want of a price is on the next bill once it has one, and that computes to the same bytes
SELECT check_name, failed, example FROM billing.verify('full') WHERE check_name ~ 'late usage';
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT i.key, l.key AS line, trim_scale(l.quantity) AS quantity, l.price, l.amount, r.same_bytes FROM billing.contract k JOIN billing.invoice i USING (customer_id, contract_id) JOIN billing.invoice_line l USING (customer_id, invoice_id),
  LATERAL (SELECT bool_and(x.same_bytes) AS same_bytes FROM billing.invoice_recompute(i.number) x) r WHERE k.key = 'bills' ORDER BY i.number, l.line_n;
-- The next bill has what was left out, and computes again to the same bytes, also with a version that came later
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT contract, key, quantity, amount FROM lines WHERE contract = 'bills';
SELECT i.number, i.document->'inputs'->'differences'->0->'terms'->'inputs'->'later_prices' AS later FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'bills' AND i.document->'inputs' ? 'differences';
SELECT pg_temp.apply('[{"key":"rows","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"a"},"unit_price":"3"},{"match":{},"unit_price":"9"}]}}]', '2026-04-01Z') AS priced;
CALL billing.bill_run();
SELECT line_key, billed, recomputed, same_bytes FROM totals t, billing.invoice_recompute(t.number) WHERE t.contract = 'bills';
-- What only a version inside the period has a row for is under the period's minimum and maximum all the same: 5 + 90, at most 50
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
CREATE FUNCTION pg_temp.bounded(more text) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_agg(jsonb_build_object('key', k, 'meter', 'q', 'pricing', jsonb_build_object('model', 'matrix', 'dimensions', '["model"]'::jsonb, b, v, 'rows', ('[{"match":{"model":"a"},"unit_price":"1"}' || more || ']')::jsonb)))
  FROM (VALUES ('least', 'minimum', '20'), ('most', 'maximum', '50')) x (k, b, v) $$;
SELECT pg_temp.apply(pg_temp.bounded('')) AS made;
SELECT pg_temp.deal(x, jsonb_build_array(jsonb_build_object('key', 'm', 'price', x)), '{"price_book":"j","starts_on":"2026-05-01"}') FROM unnest('{least,most}'::text[]) x;
SELECT pg_temp.apply(pg_temp.bounded(',{"match":{"model":"z"},"unit_price":"3"}'), '2026-05-10Z') AS changed;
SELECT billing.test_clock_set('2026-05-20T00:00:00Z') AS clock \gset
SELECT pg_temp.use(x, 5, '{"model":"a"}', '2026-05-15Z') + pg_temp.use(x, 30, '{"model":"z"}', '2026-05-15Z') AS events FROM unnest('{least,most}'::text[]) x;
SELECT billing.test_clock_set('2026-06-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT contract, key, kind, quantity, amount FROM lines WHERE contract IN ('least', 'most');
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0 OR (check_name ~ 'late usage' AND example IS NOT NULL);
SELECT k.key, count(*) AS open FROM billing.late_usage l JOIN billing.contract k USING (customer_id, contract_id) WHERE l.closed_at IS NULL GROUP BY 1 ORDER BY 1;

-- With reset a version of 00:00 UTC of a period's first day is that period's in every zone, though New York's January still runs for 5 hours and Kolkata's
-- February has run for 5:30. 3 and 2 units of January, the 2 in its last hours: 4 × 10 + 1; 3 and 2 of February, by version 2: 4 × 20 + 2
SELECT billing.test_clock_set('2026-01-02T00:00:00Z') AS clock \gset
SELECT pg_temp.apply('[{"key":"anew","pricing":{"model":"graduated","tiers":[{"up_to":"4","unit_price":"10"},{"unit_price":"1"}]}}]') AS v1,
  pg_temp.apply('[{"key":"anew","pricing":{"model":"graduated","tiers":[{"up_to":"4","unit_price":"20"},{"unit_price":"2"}]}}]', '2026-02-01T00:00:00Z') AS v2;
SELECT pg_temp.deal(z, '[{"key":"m","price":"anew"}]', jsonb_build_object('price_book', 'j', 'time_zone', z)), billing.policy_set('tier_continuity', 'reset', 'contract:' || z) FROM unnest('{America/New_York,Asia/Kolkata,UTC}'::text[]) z;
SELECT billing.test_clock_set('2026-03-02T00:00:00Z') AS clock \gset
SELECT z, sum(pg_temp.use(z, n, '{}', at::timestamp AT TIME ZONE z)) AS events FROM unnest('{America/New_York,Asia/Kolkata,UTC}'::text[]) z, (VALUES (3, '2026-01-20'), (2, '2026-01-31 22:00'), (3, '2026-02-01 01:00'), (2, '2026-02-10')) u (n, at) GROUP BY z ORDER BY z;
CALL billing.bill_run();
SELECT contract, key, quantity, amount FROM lines WHERE key ~ '^m/' AND contract IN ('America/New_York', 'Asia/Kolkata', 'UTC');
-- What billing took is what price_resolve tells
SELECT z, string_agg(r.version::text, ' ' ORDER BY at) AS versions FROM unnest('{America/New_York,Asia/Kolkata,UTC}'::text[]) z, unnest('{2026-01-31 22:00,2026-02-01 01:00}'::timestamp[]) at, billing.price_resolve(z, 'q', '{}', at AT TIME ZONE z) r GROUP BY z ORDER BY z;

-- A version published after the signature, back to before it, changes nothing agreed on: 10 × 1 for those with the prices of their signature, also
-- for late usage and where nothing was billed yet; 10 × 3 for those that float. A backtest of a pinned contract has the prices asked about.
SELECT billing.test_clock_set('2026-02-10T00:00:00Z') AS clock \gset
SELECT pg_temp.apply('[{"key":"agreed","pricing":{"model":"per_unit","unit_price":"1"}}]') AS v1;
SELECT pg_temp.deal(d, '[{"key":"m","price":"agreed"}]', '{"price_book":"j","starts_on":"2026-02-01"}'::jsonb || o) FROM (VALUES ('agreed', '{"prices":"pin"}'::jsonb), ('agreed-later', '{"prices":"pin","starts_on":"2026-03-01"}'), ('by-policy', '{}'), ('floats', '{}')) x (d, o);
SELECT billing.policy_set('rate_at', 'contract_signature', 'contract:by-policy') AS policy \gset
SELECT sum(pg_temp.use(c, 10, '{}', '2026-02-05Z')) AS events FROM unnest(ARRAY['agreed', 'by-policy', 'floats']) c;
SELECT billing.test_clock_set('2026-02-20T00:00:00Z') AS clock \gset
SELECT effect, contracts, contract FROM billing.price_publish('{"price_books":[{"key":"j","prices":[{"key":"agreed","meter":"q","pricing":{"model":"per_unit","unit_price":"3"}}]}]}', '2026-02-01', dry_run => false);
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
SELECT pg_temp.use('agreed-later', 10, '{}', '2026-03-05Z') + pg_temp.use('agreed', 2, '{}', '2026-02-06Z') AS events;
CALL billing.bill_run();
SELECT contract, key, kind, quantity, amount FROM lines WHERE contract IN ('agreed', 'agreed-later', 'by-policy', 'floats');
SELECT customer, r.version FROM unnest(ARRAY['agreed', 'agreed-later', 'by-policy', 'floats']) customer, billing.price_resolve(customer, 'q', '{}', '2026-03-10Z') r;
SELECT contract, current_amount, backtested_amount FROM billing.price_backtest('{"price_books":[{"key":"j","prices":[{"key":"agreed","meter":"q","pricing":{"model":"per_unit","unit_price":"5"}}]}]}', '2026-02-01', '2026-04-01') WHERE contract <> 'floats';
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;

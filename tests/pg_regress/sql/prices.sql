-- Prices over time and under overrides: what is one amount for a period keeps one price for it, minimums and maximums hold
-- whatever overrides say, and what does not add up is not added. Amounts worked out by hand beside each case.
\set ECHO none
\i tests/pg_regress/helpers.sql
\i tests/pg_regress/deals.sql
\set ECHO all
SELECT billing.test_clock_set('2026-02-02T00:00:00Z') AS clock \gset

-- A version of a flat price from 00:00 UTC of 1 February is February's in every zone, though New York's January still runs
SELECT count(*) AS changes FROM billing.catalog_apply('{"price_books":[{"key":"j","currency":"USD","prices":[{"key":"flat","meter":"q","pricing":{"model":"flat","amount":"100"}},
  {"key":"tiers","meter":"q","pricing":{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.01"},{"unit_price":"0.008"}]}},
  {"key":"linear","meter":"q","pricing":{"model":"per_unit","unit_price":"0.01"}},{"key":"least","meter":"q","pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]}]}');
SELECT count(*) AS changes FROM billing.catalog_apply('{"price_books":[{"key":"j","prices":[{"key":"flat","meter":"q","valid_from":"2026-02-01T00:00:00Z","pricing":{"model":"flat","amount":"120"}},
  {"key":"tiers","meter":"q","valid_from":"2026-01-16T00:00:00Z","pricing":{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.02"},{"unit_price":"0.016"}]}},
  {"key":"linear","meter":"q","valid_from":"2026-01-16T00:00:00Z","pricing":{"model":"per_unit","unit_price":"0.02"}},{"key":"least","meter":"q","valid_from":"2026-01-16T00:00:00Z","pricing":{"model":"per_unit","unit_price":"2","minimum":"100"}}]}]}');
SELECT pg_temp.deal('flat-ny', '[{"key":"m","price":"flat"}]', '{"price_book":"j","time_zone":"America/New_York","term":"2 months"}'),
  pg_temp.deal('flat-tokyo', '[{"key":"m","price":"flat"}]', '{"price_book":"j","time_zone":"Asia/Tokyo","term":"2 months"}'),
-- January's graduated price goes on in the tiers of 16 January: 8,000 × 0.01 + 2,000 × 0.02 + 4,000 × 0.016 = 80 + 104; a linear one: 80 + 120; one minimum: 10 × 1 + 10 × 2 + 70
  pg_temp.deal('tiers', '[{"key":"m","price":"tiers"}]', '{"price_book":"j"}'), pg_temp.deal('linear', '[{"key":"m","price":"linear"}]', '{"price_book":"j"}'), pg_temp.deal('least', '[{"key":"m","price":"least"}]', '{"price_book":"j"}');
SELECT sum(pg_temp.use(c, 8000, '{}', '2026-01-10Z') + pg_temp.use(c, 6000, '{}', '2026-01-20Z')) AS events FROM unnest(ARRAY['tiers', 'linear', 'flat-ny', 'flat-tokyo']) c;
SELECT pg_temp.use('least', 10, '{}', '2026-01-10Z') + pg_temp.use('least', 10, '{}', '2026-01-20Z') AS events;
-- What billing takes is what price_resolve tells
SELECT customer, at::date AS day, r.price, r.version, r.pricing FROM unnest(ARRAY['tiers', 'linear', 'least', 'flat-ny', 'flat-tokyo']) customer, unnest(ARRAY['2026-01-10Z', '2026-01-20Z', '2026-02-01 12:00Z']::timestamptz[]) at, billing.price_resolve(customer, 'q', '{}', at) r;

-- Minimums and maximums of the list act on overridden lines too: 10 × 0.9 + 10 + 81; 900 + 1,000 − 1,800; 9 + 91; of rows, 9 + 10 + 81; each row its own
SELECT pg_temp.deal('least-off', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]', '{"overrides":[{"meter":"q","match":{"model":"a"},"percent_off":"10"}]}'),
  pg_temp.deal('most-off', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1","maximum":"100"}}]', '{"overrides":[{"meter":"q","match":{"model":"a"},"percent_off":"10"}]}'),
  pg_temp.deal('least-unit', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]', '{"overrides":[{"meter":"q","match":{"model":"a"},"unit_price":"0.9"}]}'),
  pg_temp.deal('least-unit-unused', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]', '{"overrides":[{"meter":"q","match":{"model":"a"},"unit_price":"0.9"}]}'),
  pg_temp.deal('least-rows', '[{"key":"m","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"a"},"unit_price":"1","minimum":"100"},{"match":{"model":"b"},"unit_price":"1","minimum":"50"}]}}]', '{"overrides":[{"meter":"q","match":{"region":"eu"},"percent_off":"10"}]}'),
  pg_temp.deal('least-replaced', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]', '{"overrides":[{"meter":"q","pricing":{"model":"per_unit","unit_price":"2"}}]}');
SELECT sum(pg_temp.use(c, n, jsonb_build_object('model', m))) AS events FROM (VALUES ('least-off', 10, 'a'), ('least-off', 10, 'b'), ('most-off', 1000, 'a'), ('most-off', 1000, 'b'), ('least-unit', 10, 'a'), ('least-replaced', 10, 'a')) x (c, n, m);
SELECT sum(pg_temp.use('least-rows', 10, jsonb_build_object('model', m, 'region', r))) AS events FROM (VALUES ('a', 'eu'), ('a', 'us'), ('b', 'eu')) x (m, r);

-- Naming the contract's own legal entity is the same as naming none: one peak of 10, one user. A peak in tiers is that of all lines:
-- 60 and 40 in packages of 100 at 10 are one package
SELECT pg_temp.deal('entity', '[{"key":"peak","meter":"peak","pricing":{"model":"per_unit","unit_price":"1"}},{"key":"users","meter":"users","pricing":{"model":"per_unit","unit_price":"1"}}]'),
  pg_temp.deal('peak-rows', '[{"key":"peak","meter":"peak","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{},"pricing":{"model":"package","package_size":"100","amount":"10"}}]}}]');
SELECT pg_temp.use('entity', 10, '{"user":"a"}') + (SELECT accepted FROM billing.ingest('{"customer":"entity","event_id":"named","event_type":"use","occurred_at":"2026-01-16T00:00:00Z","bill_to":"entity","properties":{"n":8,"user":"a"}}'))
  + pg_temp.use('peak-rows', 60, '{"model":"a"}') + pg_temp.use('peak-rows', 40, '{"model":"b"}') AS events;
\a \t
SELECT pg_temp.fails(format('SELECT pg_temp.deal(%L, %L, %L)', 'refused', c, o)) FROM (VALUES
  ('[{"key":"u","meter":"users","pricing":{"model":"volume","tiers":[{"up_to":"2","unit_price":"10"},{"unit_price":"100"}]}}]', '{"overrides":[{"meter":"users","match":{"model":"zzz"},"unit_price":"1"}]}'),
  ('[{"key":"u","meter":"users","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{},"pricing":{"model":"package","package_size":"2","amount":"1"}}]}}]', '{}'),
  ('[{"key":"u","meter":"users","pricing":{"model":"per_unit","unit_price":"1"}}]', '{"overrides":[{"meter":"users","pricing":{"model":"percentage","rate":"0.1","per_event_minimum":"1"}}]}'),
  ('[{"key":"m","prorate_units":true,"pricing":{"model":"percentage","rate":"0.1","per_event_minimum":"1"}}]', '{}')) x (c, o);
\a \t

-- prorate_units leaves the fixed part of real events alone: 0.029 × 1,000 + 0.30 × 100 = 59; of 50 free in a whole month 12/31 are: 980.645… × 0.1
SELECT pg_temp.deal('fixed-part', '[{"key":"m","prorate_units":true,"pricing":{"model":"percentage","rate":"0.029","fixed":"0.30"}}]', '{"starts_on":"2026-01-20"}'),
  pg_temp.deal('free-part', '[{"key":"m","prorate_units":true,"pricing":{"model":"percentage","rate":"0.1","free_amount":"50"}}]', '{"starts_on":"2026-01-20"}');
SELECT sum(pg_temp.use('fixed-part', 10, '{}', '2026-01-25Z')) AS fixed FROM generate_series(1, 100);
SELECT pg_temp.use('free-part', 1000, '{}', '2026-01-25Z') AS free;

-- rate_at contract_signature: the list of the day of signing for the whole term, overrides by usage time. Signed 20 January: 10,000 × 0.02; half of 0.01 from 1 January
SELECT billing.customer_upsert(jsonb_build_object('key', k)), billing.contract_create(jsonb_build_object('key', k, 'customer', k, 'starts_on', '2026-01-01', 'price_book', 'j', 'charges', '[{"key":"m","product":"p","meter":"q","price":"linear"}]'::jsonb) || o), billing.contract_activate(k, s)
FROM (VALUES ('signed-late', '{}'::jsonb, '2026-01-20Z'::timestamptz), ('signed-early', '{"overrides":[{"meter":"q","percent_off":"50","from":"2026-01-01"}]}', '2026-01-02Z')) x (k, o, s);
SELECT billing.policy_set('rate_at', 'contract_signature', 'contract:signed-late') AS late, billing.policy_set('rate_at', 'contract_signature', 'contract:signed-early') AS early \gset
SELECT pg_temp.use('signed-late', 10000) + pg_temp.use('signed-early', 10000, '{}', '2026-01-20Z') AS events;
SELECT customer, r.version, r.pricing FROM unnest(ARRAY['signed-late', 'signed-early']) customer, billing.price_resolve(customer, 'q', '{}', '2026-01-20Z') r;
CALL billing.bill_run();
SELECT contract, key, kind, quantity, exact, amount FROM lines WHERE contract LIKE 'signed%';

-- Lines whose values hold what joins a key; corrections below 0 in one line of a graduated price: 80 × 1 over 100 and −20
SELECT pg_temp.deal('joined', '[{"key":"m","lines_by":["model","region"],"pricing":{"model":"per_unit","unit_price":"1"}}]'),
  pg_temp.deal('corrected', '[{"key":"m","lines_by":["model"],"pricing":{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.5"}]}}]');
SELECT pg_temp.use('joined', 1, '{"model":"x","region":"eu"}') + pg_temp.use('joined', 2, '{"model":"x/region=eu"}') + pg_temp.use('joined', 3, '{"model":"100%"}')
  + pg_temp.use('corrected', 100, '{"model":"x"}') + pg_temp.use('corrected', -20, '{"model":"y"}') AS events;
CALL billing.bill_run();
SELECT contract, key, kind, quantity, exact, amount FROM lines WHERE contract NOT LIKE 'signed%';

-- What is due whatever was used: the bounds of the price that nothing in particular has. 10 × 2 (the override is that price); 10 × 3 and 100;
-- 0.50 and 100; half of 100; 100; 195 and 5, the minimum of the period's start in Tokyo
SELECT count(*) AS changes FROM billing.catalog_apply('{"price_books":[{"key":"k","currency":"USD","prices":[{"key":"least","meter":"q","pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]}]}');
SELECT count(*) AS changes FROM billing.catalog_apply('{"price_books":[{"key":"k","prices":[{"key":"least","meter":"q","valid_from":"2026-01-01T00:00:00Z","pricing":{"model":"per_unit","unit_price":"1","minimum":"200"}}]}]}');
SELECT billing.customer_upsert('{"key":"loses","overrides":[{"meter":"q","pricing":{"model":"per_unit","unit_price":"2"}}]}') AS customer;
SELECT pg_temp.deal('same-match', '[{"key":"m","match":{"model":"a"},"pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]', '{"overrides":[{"meter":"q","match":{"model":"a"},"pricing":{"model":"per_unit","unit_price":"2"}}]}'),
  pg_temp.deal('loses', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]', '{"overrides":[{"meter":"q","percent_off":"10"},{"meter":"q","match":{"model":"a"},"pricing":{"model":"per_unit","unit_price":"3"}}]}'),
  pg_temp.deal('replaces', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1"}}]', '{"overrides":[{"meter":"q","pricing":{"model":"per_unit","unit_price":"2","minimum":"100"}},{"meter":"q","match":{"model":"b"},"unit_price":"0.5"}]}'),
  pg_temp.deal('flat-unused', '[{"key":"m","match":{"model":"a"},"pricing":{"model":"flat","amount":"100"}}]', '{"overrides":[{"meter":"q","match":{"model":"a"},"percent_off":"50"}]}'),
  pg_temp.deal('row-unused', '[{"key":"m","match":{"model":"a"},"pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"a"},"unit_price":"1","minimum":"100"}]}}]'),
  pg_temp.deal('least-tokyo', '[{"key":"m","price":"least"}]', '{"price_book":"k","time_zone":"Asia/Tokyo","overrides":[{"meter":"q","unit_price":"0.5"}]}');
SELECT sum(pg_temp.use(c, n, jsonb_build_object('model', m))) AS events FROM (VALUES ('same-match', 10, 'a'), ('loses', 10, 'a'), ('replaces', 1, 'b'), ('least-tokyo', 10, 'a')) x (c, n, m);

-- Distinct users by line under a flat price; events rated one by one for two entities; a bound of one entity stands on its own invoice;
-- a price agreed with a customer is in the customer's currency, so not for a contract in another
SELECT pg_temp.deal('flat-users', '[{"key":"m","meter":"users","lines_by":["model"],"pricing":{"model":"flat","amount":"100"}}]'),
  pg_temp.deal2('each', '[{"key":"m","pricing":{"model":"percentage","rate":"0.01","per_event_minimum":"0.5"}}]'),
  pg_temp.deal2('theirs', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1"}}]', '{"overrides":[{"meter":"q","match":{"bill_to":"gmbh"},"pricing":{"model":"per_unit","unit_price":"1","minimum":"100"}}]}');
SELECT billing.customer_upsert('{"key":"yen","currency":"USD","overrides":[{"meter":"q","unit_price":"2"}]}') AS customer;
SELECT pg_temp.deal_of('yen', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"300"}}]', '{"currency":"JPY"}');
SELECT pg_temp.use('flat-users', 1, '{"user":"u","model":"a"}') + pg_temp.use('flat-users', 1, '{"user":"u","model":"b"}') + pg_temp.use('yen', 10) AS events, pg_temp.use2('each', 10, 'inc') AS inc, pg_temp.use2('each', 200, 'gmbh') AS gmbh, pg_temp.use2('theirs', 10, 'gmbh') AS theirs;
SELECT r.source, r.pricing FROM billing.price_resolve('yen', 'q', '{}', '2026-01-15Z') r;
CALL billing.bill_run();
SELECT contract, key, kind, quantity, exact, amount FROM lines WHERE contract IN ('same-match', 'loses', 'replaces', 'flat-unused', 'row-unused', 'least-tokyo', 'flat-users', 'each', 'theirs', 'yen');
SELECT i.key, i.total FROM billing.invoice i WHERE i.key ~ '^(each|theirs)/' ORDER BY 1;

-- A rate and a fixed part per event: each entity has those of its own events, 20 × 0.3 + 0.2 and 0.3 + 9.9. Bounds per event with something free run over
-- the events of all in order: 40 is free; 20 asks 1 + 1; 30 asks 1 + 3; 90 at most 5: 11 over 180, split by amount. Late usage of one changes the other's share
SELECT pg_temp.deal2('parts', '[{"key":"m","pricing":{"model":"percentage","rate":"0.01","fixed":"0.30"}}]'),
  pg_temp.deal2('ordered', '[{"key":"m","lines_by":["model"],"pricing":{"model":"percentage","rate":"0.1","free_events":1,"free_amount":"50","fixed":"1","per_event_maximum":"5"}}]');
SELECT count(pg_temp.use2('parts', 1, 'inc')) AS inc FROM generate_series(1, 20);
SELECT pg_temp.use2('parts', 990, 'gmbh') AS gmbh, pg_temp.use2('ordered', 30, 'gmbh', '2026-01-17Z') AS third, pg_temp.use('ordered', 40, '{"model":"a"}', '2026-01-15Z') + pg_temp.use('ordered', 20, '{"model":"b"}', '2026-01-16Z') + pg_temp.use('ordered', 90, '{"model":"a"}', '2026-01-18Z') AS others;
CALL billing.bill_run();
SELECT contract, key, quantity, exact, amount FROM lines WHERE contract IN ('parts', 'ordered');
SELECT i.key, i.total, bool_and(r.same_bytes) AS same FROM billing.invoice i, billing.invoice_recompute(i.key) r WHERE i.key ~ '^(parts|ordered)/' GROUP BY 1, 2 ORDER BY 1;

-- A maximum over two entities: gmbh's late usage changes inc's share of it, so what inc has too much comes with its next bill
SELECT pg_temp.deal2('shared', '[{"key":"m","pricing":{"model":"per_unit","unit_price":"1","maximum":"100"}}]'), pg_temp.use2('shared', 50, 'inc'), pg_temp.use2('shared', 100, 'gmbh');
CALL billing.bill_run();
SELECT i.key, i.state, i.total FROM billing.invoice i WHERE i.key LIKE 'shared%' ORDER BY i.created_at, 1;
SELECT pg_temp.use2('shared', 1000, 'gmbh') AS late;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0 OR example IS NOT NULL;
SELECT billing.invoice_void('shared/1:gmbh', 'late usage');
CALL billing.bill_run();
SELECT i.key, i.state, i.total FROM billing.invoice i WHERE i.key LIKE 'shared%' ORDER BY i.created_at, 1;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0 OR example IS NOT NULL;
SELECT p->>'bill_to' AS bill_to, l->>'key' AS key, l->>'amount' AS amount FROM billing.invoice_preview('shared') p, jsonb_array_elements(p->'lines') l;

-- A version fits its meter and the live charges that will take it; what is published is neither moved nor ended before it begins
\a \t
SELECT pg_temp.fails(format('SELECT billing.catalog_apply(%L)', jsonb_build_object('price_books', jsonb_build_array(jsonb_build_object('key', 'j', 'currency', 'USD', 'prices', jsonb_build_array(p)))))) FROM unnest(ARRAY[
  '{"key":"linear","meter":"q","valid_from":"2026-05-01T00:00:00Z","pricing":{"model":"matrix","dimensions":["zone"],"rows":[{"match":{"zone":"eu"},"unit_price":"5"},{"match":{},"unit_price":"1"}]}}',
  '{"key":"calls","meter":"calls","pricing":{"model":"percentage","rate":"0.1","per_event_minimum":"1"}}',
  '{"key":"linear","meter":"q","valid_from":"2026-01-10T00:00:00Z","pricing":{"model":"per_unit","unit_price":"0.02"}}',
  '{"key":"linear","retired":true,"valid_from":"2026-01-16T00:00:00Z"}']::jsonb[]) p;
\a \t

-- What is one amount for a period does not change inside everybody's period; at one contract's start it does, and the others
-- take it with their next period. One instant suits all zones: 00:00 UTC of a first day
SELECT count(*) AS changes FROM billing.catalog_apply('{"price_books":[{"key":"j","prices":[{"key":"steps","meter":"q","pricing":{"model":"stairstep","tiers":[{"amount":"10"}]}}]}]}');
SELECT pg_temp.deal('first', '[{"key":"m","price":"steps"}]', '{"price_book":"j"}');
SELECT pg_temp.deal('zone-ny', '[{"key":"m","price":"steps"}]', '{"price_book":"j","time_zone":"America/New_York"}'), pg_temp.deal('zone-tokyo', '[{"key":"m","price":"steps"}]', '{"price_book":"j","time_zone":"Asia/Tokyo"}'),
  pg_temp.deal('tenth', '[{"key":"m","price":"steps"}]', '{"price_book":"j","starts_on":"2026-01-10","billing":{"alignment":"anniversary"}}');
CREATE FUNCTION pg_temp.publish(price text, at timestamptz) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(key || ' ' || action, ', ') FROM billing.catalog_apply(jsonb_build_object('price_books', jsonb_build_array(jsonb_build_object('key', 'j', 'prices', jsonb_build_array(jsonb_build_object(
    'key', 'steps', 'meter', 'q', 'valid_from', at, 'pricing', jsonb_build_object('model', 'stairstep', 'tiers', jsonb_build_array(jsonb_build_object('amount', price)))))))))
$$;
\a \t
SELECT pg_temp.fails($$SELECT pg_temp.publish('0.03', '2026-03-05T00:00:00Z')$$);
\a \t
SELECT pg_temp.publish('0.03', '2026-03-01T00:00:00Z') AS march, pg_temp.publish('0.04', '2026-04-10T00:00:00Z') AS tenth;
SELECT at AT TIME ZONE 'UTC' AS at, string_agg(customer || ' ' || r.version, ', ' ORDER BY customer) AS versions
FROM unnest(ARRAY['first', 'tenth', 'zone-ny', 'zone-tokyo']) customer, unnest(ARRAY['2026-02-28 14:59Z', '2026-02-28 15:00Z', '2026-03-01 00:00Z', '2026-03-01 05:00Z', '2026-03-10 00:00Z', '2026-04-10 00:00Z', '2026-05-01 12:00Z']::timestamptz[]) at, billing.price_resolve(customer, 'q', '{}', at) r GROUP BY at ORDER BY at;

-- A price retired inside a period prices nothing after that: the invoice waits
SELECT pg_temp.deal('retired', '[{"key":"m","price":"linear"}]', '{"price_book":"j","starts_on":"2026-02-01"}');
SELECT count(*) AS changes FROM billing.catalog_apply('{"price_books":[{"key":"j","prices":[{"key":"linear","retired":true,"valid_from":"2026-02-10T00:00:00Z"}]}]}');
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
SELECT pg_temp.use('retired', 5, '{}', '2026-02-05Z') + pg_temp.use('retired', 70, '{}', '2026-02-20Z') AS events;
\a \t
SELECT pg_temp.fails($$SELECT billing.invoice_generate('retired', '2026-03-01Z')$$);
\a \t
SELECT day, quantity, reason FROM billing.unpriced_usage WHERE customer = 'retired';
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;

-- A meter that charges have used counts on after it is retired: late usage of a contract that has ended is billed after a void
SELECT pg_temp.deal('ended', '[{"key":"m","meter":"calls","pricing":{"model":"per_unit","unit_price":"1"}}]', '{"term":"1 month"}'), pg_temp.use('ended', 1);
CALL billing.bill_run();
SELECT count(*) AS changes FROM billing.catalog_apply('{"meters":[{"key":"calls","retired":true}]}');
SELECT pg_temp.use('ended', 1) AS late;
SELECT billing.invoice_void('ended/1', 'late usage');
CALL billing.bill_run();
SELECT i.key, i.total, r.same_bytes FROM billing.invoice i, billing.invoice_recompute(i.key) r WHERE i.key = 'ended/1.2';

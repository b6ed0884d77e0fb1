-- Rating: what a quantity costs. Every worked number of rules 0 and 1 stands here beside what came out.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z');

-- Worked numbers: graduated, volume, flat fees in tiers, package, stairstep, free units
WITH case_of (label, pricing, quantity, want) AS (VALUES
  ('graduated 1,000',            '{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}', 1000, 100.00),
  ('graduated 1,001',            '{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}', 1001, 100.05),
  ('graduated 15,000',           '{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}', 15000, 600.00),
  ('graduated, half a unit',     '{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}', 1000.5, 100.025),
  ('graduated 0',                '{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}', 0, 0),
  ('volume 1,000',               '{"model":"volume","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}', 1000, 100.00),
  ('volume 1,001 (the cliff)',   '{"model":"volume","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}', 1001, 50.05),
  ('volume 15,000',              '{"model":"volume","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}', 15000, 150.00),
  ('flat fees 101',              '{"model":"graduated","tiers":[{"up_to":"100","unit_price":"1","flat_fee":"10"},{"up_to":"200","unit_price":"0.5","flat_fee":"5"},{"unit_price":"0.1"}]}', 101, 115.50),
  ('flat fees 250',              '{"model":"graduated","tiers":[{"up_to":"100","unit_price":"1","flat_fee":"10"},{"up_to":"200","unit_price":"0.5","flat_fee":"5"},{"unit_price":"0.1"}]}', 250, 170.00),
  ('flat fees 0, default off',   '{"model":"graduated","tiers":[{"up_to":"100","unit_price":"1","flat_fee":"10"},{"unit_price":"0.5","flat_fee":"5"}]}', 0, 0),
  ('first_flat_at_zero',         '{"model":"graduated","first_flat_at_zero":true,"tiers":[{"up_to":"100","unit_price":"1","flat_fee":"10"},{"unit_price":"0.5","flat_fee":"5"}]}', 0, 10),
  ('volume: only its own fee',   '{"model":"volume","tiers":[{"up_to":"100","unit_price":"1","flat_fee":"10"},{"unit_price":"0.5","flat_fee":"5"}]}', 101, 55.50),
  ('package 10',                 '{"model":"package","package_size":"1000000","amount":"1.25"}', 10, 1.25),
  ('package 1,500,000',          '{"model":"package","package_size":"1000000","amount":"1.25"}', 1500000, 2.50),
  ('package, 500,000 free',      '{"model":"package","package_size":"1000000","amount":"1.25","free_units":"500000"}', 1500001, 2.50),
  ('package 0',                  '{"model":"package","package_size":"1000000","amount":"1.25"}', 0, 0),
  ('minimum_one_package',        '{"model":"package","package_size":"1000000","amount":"1.25","minimum_one_package":true}', 0, 1.25),
  ('packages in tiers',          '{"model":"graduated","tiers":[{"up_to":"100","unit_price":"2","package_size":"40"},{"unit_price":"1","package_size":"50"}]}', 160, 8),
  ('stairstep 100',              '{"model":"stairstep","tiers":[{"up_to":"100","amount":"50"},{"up_to":"500","amount":"200"},{"amount":"700"}]}', 100, 50),
  ('stairstep 101',              '{"model":"stairstep","tiers":[{"up_to":"100","amount":"50"},{"up_to":"500","amount":"200"},{"amount":"700"}]}', 101, 200),
  ('stairstep 501',              '{"model":"stairstep","tiers":[{"up_to":"100","amount":"50"},{"up_to":"500","amount":"200"},{"amount":"700"}]}', 501, 700),
  ('flat, quantity ignored',     '{"model":"flat","amount":"149.00"}', 7, 149),
  ('after a free 500, minimum 100', '{"model":"per_unit","unit_price":"0.10","free_units":"500","minimum":"100"}', 1400, 100),
  ('dynamic: cost times 1.2',    '{"model":"dynamic","amount_property":"cost","multiplier":"1.2"}', 10.05, 12.06),
  ('per 3,600 has no finite price a second', '{"model":"per_unit","unit_price":"0.15","per":3600}', 8263, 0.344291666666666667),
  ('0.45 an hour',               '{"model":"per_unit","unit_price":"0.45","per":3600}', 8263, 1.032875),
  ('0.0000025 a token',          '{"model":"per_unit","unit_price":"0.0000025"}', 1234567, 3.0864175),
  ('1,000 events of 400 tokens, rated once', '{"model":"per_unit","unit_price":"0.0000025"}', 400000, 1.00),
  ('unit price floor',           '{"model":"per_unit","unit_price":"0.01","unit_price_floor":"0.015"}', 100, 1.5),
  ('a tier''s own maximum',      '{"model":"graduated","tiers":[{"up_to":"100","unit_price":"1","maximum":"60"},{"unit_price":"0.5"}]}', 110, 65),
  ('linear prices mirror',       '{"model":"per_unit","unit_price":"0.125"}', -1, -0.125),
  ('Twilio 1,234,567 segments',  '{"model":"per_unit","unit_price":"0.0083"}', 1234567, 10246.9061),
  ('Twilio 3 segments',          '{"model":"per_unit","unit_price":"0.0083"}', 3, 0.0249),
  ('AssemblyAI 4,567,890 s',     '{"model":"per_unit","unit_price":"0.15","per":3600}', 4567890, 190.32875),
  ('AssemblyAI 1,234,567 s',     '{"model":"per_unit","unit_price":"0.45","per":3600}', 1234567, 154.320875),
  ('Datadog, 180 host-hours of 720', '{"model":"per_unit","unit_price":"15","per":720}', 180, 3.75),
  ('Datadog at 23',              '{"model":"per_unit","unit_price":"23","per":720}', 180, 5.75),
  ('Datadog, of 744',            '{"model":"per_unit","unit_price":"15","per":744}', 180, 3.629032258064516129),
  ('gpt-4 by default',           '{"model":"per_unit","unit_price":"0.03","per":1000}', 1234567, 37.03701),
  ('gpt-3.5 by default',         '{"model":"per_unit","unit_price":"0.002","per":1000}', 9876543, 19.753086),
  ('gpt-4, Acme',                '{"model":"per_unit","unit_price":"0.02","per":1000}', 1234567, 24.69134),
  ('gpt-4, Mega',                '{"model":"per_unit","unit_price":"0.015","per":1000}', 1234567, 18.518505),
  ('gpt-3.5, Mega',              '{"model":"per_unit","unit_price":"0.001","per":1000}', 9876543, 9.876543),
  ('late tiered usage: 1,050 less 950', '{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.5"}]}', 1050, 1025))
SELECT label, trim_scale(billing.rate(pricing::billing.pricing, quantity)) AS got, billing.rate(pricing::billing.pricing, quantity) = want AS ok
FROM case_of;

-- Worked numbers: a matrix; the more dimensions match the better, then the priority of the dimensions
WITH card (name, pricing) AS (VALUES
  ('card', '{"model":"matrix","dimensions":["model","region"],"rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"model":"gpt-4","region":"eu"},"unit_price":"0.033"},{"match":{"region":"eu"},"unit_price":"0.02"},{"match":{},"unit_price":"0.01"}]}'),
  ('without (gpt-4, eu)', '{"model":"matrix","dimensions":["model","region"],"rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"region":"eu"},"unit_price":"0.02"},{"match":{},"unit_price":"0.01"}]}'),
  ('region first', '{"model":"matrix","dimensions":["region","model"],"rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"region":"eu"},"unit_price":"0.02"},{"match":{},"unit_price":"0.01"}]}'),
  ('charge bounds', '{"model":"matrix","dimensions":["state"],"rows":[{"match":{"state":"CA"},"unit_price":"10","minimum":"100","maximum":"200"},{"match":{"state":"NY"},"unit_price":"12","minimum":"120","maximum":"240"}]}'))
SELECT c.name, x.dimensions, x.quantity, billing.rate(c.pricing::billing.pricing, x.quantity, x.dimensions::jsonb) AS got,
  billing.rate(c.pricing::billing.pricing, x.quantity, x.dimensions::jsonb) = x.want AS ok
FROM card c JOIN (VALUES
  ('card', '{"model":"gpt-4","region":"eu"}', 1, 0.033), ('card', '{"model":"gpt-4","region":"us"}', 1, 0.03),
  ('card', '{"model":"other","region":"eu"}', 1, 0.02), ('card', '{"model":"other","region":"us"}', 1, 0.01), ('card', '{}', 1, 0.01),
  ('without (gpt-4, eu)', '{"model":"gpt-4","region":"eu"}', 1, 0.03), ('region first', '{"model":"gpt-4","region":"eu"}', 1, 0.02),
  ('charge bounds', '{"state":"CA"}', 8, 100), ('charge bounds', '{"state":"NY"}', 25, 240), ('charge bounds', '{"state":"NY"}', 10, 120)
) x (name, dimensions, quantity, want) USING (name);

-- Worked numbers: percentages, event by event and graduated
WITH case_of (label, pricing, amounts, want) AS (VALUES
  ('2.9% + 0.30, 0.50 to 10 each', '{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}', '{5,100,500}', 13.70),
  ('one of 5',                     '{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}', '{5}', 0.50),
  ('one of 100',                   '{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}', '{100}', 3.20),
  ('one of 500',                   '{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}', '{500}', 10),
  ('two free events, 100 free',    '{"model":"percentage","rate":"0.01","fixed":"0.30","free_events":2,"free_amount":"100"}', '{80,40,10}', 0.60),
  ('graduated 500',                '{"model":"graduated_percentage","tiers":[{"up_to":"1000","rate":"0.01","flat_fee":"200"},{"up_to":"10000","rate":"0.02","flat_fee":"300"},{"rate":"0.03"}]}', '{500}', 205),
  ('graduated 500, 550',           '{"model":"graduated_percentage","tiers":[{"up_to":"1000","rate":"0.01","flat_fee":"200"},{"up_to":"10000","rate":"0.02","flat_fee":"300"},{"rate":"0.03"}]}', '{500,550}', 511),
  ('graduated 500, 550, 4,000',    '{"model":"graduated_percentage","tiers":[{"up_to":"1000","rate":"0.01","flat_fee":"200"},{"up_to":"10000","rate":"0.02","flat_fee":"300"},{"rate":"0.03"}]}', '{500,550,4000}', 591),
  ('other prices rate the sum',    '{"model":"per_unit","unit_price":"0.0000025"}', '{400,400,400}', 0.003))
SELECT label, trim_scale(billing.rate_events(pricing::billing.pricing, amounts::numeric[])) AS got, billing.rate_events(pricing::billing.pricing, amounts::numeric[]) = want AS ok
FROM case_of;
-- ... without bounds per event rate() needs only the sum and how many there were
SELECT billing.rate('{"model":"percentage","rate":"0.029","fixed":"0.30"}', 605, events => 3) AS got,
  billing.rate('{"model":"percentage","rate":"0.029","fixed":"0.30"}', 605, events => 3) = 18.445 AS ok;

-- 0.2, 0.3, 0.4: rounding is the last step, away from zero, alike in both directions
SELECT label, got, want, got = want AS ok FROM (VALUES
  ('multiply, then divide: 4.35 × 1/30', round(billing.rate('{"model":"per_unit","unit_price":"4.35","per":30}', 1), 2), 0.15),
  ('three SMS',                          round(billing.rate('{"model":"per_unit","unit_price":"0.0083"}', 3), 2), 0.02),
  ('a charge of 0.125',                  round(billing.rate('{"model":"per_unit","unit_price":"0.125"}', 1), 2), 0.13),
  ('and its credit',                     round(billing.rate('{"model":"per_unit","unit_price":"0.125"}', -1), 2), -0.13)) x (label, got, want);

-- The working, step by step, sums to the amount: tiers, free units, floor, bounds, thirds, percentages
CREATE TEMP TABLE worked (label text, pricing text, quantity numeric, dimensions jsonb DEFAULT '{}', events bigint DEFAULT 1);
INSERT INTO worked VALUES
  ('tiers with fee and cap', '{"model":"graduated","free_units":"500","maximum":"400","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05","flat_fee":"5"},{"unit_price":"0.01"}]}', 15500),
  ('volume', '{"model":"volume","minimum":"60","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}', 1001),
  ('thirds', '{"model":"graduated","per":3,"tiers":[{"up_to":"1","unit_price":"1"},{"up_to":"2","unit_price":"1"},{"unit_price":"1"}]}', 2.5),
  ('floor', '{"model":"per_unit","unit_price":"0.01","unit_price_floor":"0.015","per":7}', 10),
  ('package', '{"model":"package","package_size":"1000000","amount":"1.25","free_units":"500000"}', 1500001),
  ('step', '{"model":"stairstep","tiers":[{"up_to":"100","amount":"50"},{"amount":"200"}]}', 101),
  ('dynamic', '{"model":"dynamic","multiplier":"1.2","minimum":"20"}', 10),
  ('flat', '{"model":"flat","amount":"5","unit_price_floor":"7"}', 3);
INSERT INTO worked VALUES
  ('percentage', '{"model":"percentage","rate":"0.029","fixed":"0.30","free_events":1,"free_amount":"50"}', 655, '{}', 4),
  ('graduated percentage', '{"model":"graduated_percentage","tiers":[{"up_to":"1000","rate":"0.01","flat_fee":"200"},{"rate":"0.02","flat_fee":"300"}]}', 5050, '{}', 3),
  ('matrix row in bounds', '{"model":"matrix","dimensions":["state"],"minimum":"250","rows":[{"match":{"state":"NY"},"unit_price":"12","maximum":"240"}]}', 25, '{"state":"NY"}', 1);
SELECT w.label, s.step, s.what, s.quantity, s.unit_price, trim_scale(s.amount) AS amount
FROM worked w, billing.rate_explain(w.pricing::billing.pricing, w.quantity, w.dimensions, w.events) s ORDER BY w.ctid, s.step;
SELECT w.label, trim_scale(sum(s.amount)) AS steps, sum(s.amount) = billing.rate(w.pricing::billing.pricing, w.quantity, w.dimensions, w.events) AS ok
FROM worked w, billing.rate_explain(w.pricing::billing.pricing, w.quantity, w.dimensions, w.events) s GROUP BY w.ctid, w.label, w.pricing, w.quantity, w.dimensions, w.events ORDER BY w.ctid;

-- The type: canonical text, through text and jsonb
SELECT '{"per":1000.0,"unit_price":"0.020","model":"per_unit"}'::billing.pricing;
SELECT jsonb_pretty('{"model":"flat","amount":"149.00"}'::billing.pricing::jsonb);

-- What can't be rated is an error, never 0
\a \t
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"stairstep","tiers":[{"up_to":"100","amount":"50"}]}', 101)$$);
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"graduated","tiers":[{"up_to":"100","unit_price":"1"}]}', 100.5)$$);
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"graduated","tiers":[{"unit_price":"1"}]}', -1)$$);
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"package","package_size":"10","amount":"1"}', -1)$$);
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"stairstep","tiers":[{"amount":"50"}]}', -1)$$);
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"gpt-4"},"unit_price":"1"}]}', 1, '{"model":"gpt-5"}')$$);
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"percentage","rate":"0.029","per_event_minimum":"0.50"}', 605, events => 3)$$);
SELECT pg_temp.fails($$SELECT billing.rate_events('{"model":"graduated","tiers":[{"unit_price":"1"}]}', '{1,-2}')$$);
SELECT pg_temp.fails($$SELECT billing.rate_explain('{"model":"graduated","tiers":[{"unit_price":"1"}]}', -1)$$);
-- … nor is a number that would lose digits, or is none
SELECT pg_temp.fails(format($$SELECT billing.rate('{"model":"per_unit","unit_price":"1"}', %L::numeric)$$, q))
FROM unnest(ARRAY['NaN', 'infinity', '-infinity', '1e40', '12345678901234567890123456789']) q;
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"per_unit","unit_price":"1"}', 1, events => -1)$$);
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"per_unit","unit_price":"1"}', 1, '[]')$$);
SELECT pg_temp.fails($$SELECT billing.rate('{"model":"per_unit","unit_price":"1"}', 1, '{"model":{}}')$$);
SELECT pg_temp.fails($$SELECT billing.rate_events('{"model":"per_unit","unit_price":"1"}', '{1,NULL}')$$);
SELECT pg_temp.fails($$SELECT billing.rate_events('{"model":"per_unit","unit_price":"1"}', '{1,NaN}')$$);
\a \t
-- NULL in, NULL out, as SQL functions do
SELECT billing.rate('{"model":"flat","amount":"1"}', NULL) IS NULL AS rate, billing.rate(NULL, 1) IS NULL AS pricing;
\a \t
-- A pricing that can't be, with the place and the cure; the misspelled field, not the one then missing
SELECT pg_temp.fails(format('SELECT %L::billing.pricing', p)) FROM unnest(ARRAY[
  '', 'x', '[]', '{}', '{"modle":"flat","amount":"1"}', '{"model":"flatt"}', '{"model":"flat","amonut":"1"}', '{"model":"flat","amount":1}', '{"model":"flat"}',
  '{"model":"per_unit","unit_price":"NaN"}', '{"model":"per_unit","unit_price":"1e40"}', '{"model":"per_unit","unit_price":"1","per":0}',
  '{"model":"flat","amount":"1","per":10}', '{"model":"graduated","tiers":[]}', '{"model":"graduated","tiers":[{"up_to":"10","unit_price":"1"},{"up_to":"10","unit_price":"1"}]}',
  '{"model":"graduated","tiers":[{"unit_price":"1"},{"up_to":"10","unit_price":"1"}]}', '{"model":"graduated","tiers":[{"unit_pric":"1"}]}',
  '{"model":"per_unit","unit_price":"1","minimum":"5","maximum":"4"}', '{"model":"matrix","dimensions":["a"],"free_units":"5","rows":[{"match":{},"unit_price":"1"}]}',
  '{"model":"matrix","dimensions":["a","b"],"rows":[{"match":{"a":"1"},"unit_price":"1"},{"match":{"a":"1"},"unit_price":"2"}]}',
  '{"model":"matrix","dimensions":["a"],"rows":[{"match":{"b":"1"},"unit_price":"1"}]}', '{"model":"package","package_size":"0","amount":"1"}',
  '{"model":"flat","amount":"1","amount":"2"}', '{"model":"flat","amount":"\ud800"}', '{"model":"flat","amount":"1"}}']) p;

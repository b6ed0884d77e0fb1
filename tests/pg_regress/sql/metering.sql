-- Metering: what counts, read at any grain, in any zone, before and after fold.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2025-12-01T00:00:00Z') AS clock \gset
SELECT action, key FROM billing.catalog_apply('{"meters":[
  {"key":"calls","event_type":"llm","aggregation":"count","dimensions":["model"],"unit":"call"},
  {"key":"tokens","event_type":"llm","aggregation":"sum","value":"coalesce(input, 0) + 2 * output","dimensions":["model","region"],"unit":"token"},
  {"key":"peak","event_type":"llm","aggregation":"max","value":"output","dimensions":["model"]},
  {"key":"users","event_type":"llm","aggregation":"unique_count","value":"user_id","dimensions":["model"],"unit":"user"},
  {"key":"big-eu","event_type":"llm","aggregation":"count","filter":{"region":"eu","output":{"gte":10,"lt":1000},"model":{"prefix":"gpt"}}},
  {"key":"minutes","event_type":"call","aggregation":"sum","value":"round(seconds / 60, 2)"},
  {"key":"capped","event_type":"call","aggregation":"sum","value":"if(plan = ''free'', 0, min(seconds, 100))"},
  {"key":"nested","event_type":"call","aggregation":"sum","value":"max(cost.total - \"odd name\", 0)"}]}');
SELECT billing.customer_upsert('{"key":"acme","time_zone":"America/New_York"}') AS a, billing.customer_upsert('{"key":"delhi","time_zone":"Asia/Kolkata"}') AS d, billing.customer_upsert('{"key":"apia","time_zone":"Pacific/Apia"}') AS p \gset
SELECT key, time_zone, bucket_minutes FROM billing.customer ORDER BY customer_id;
CREATE TEMP TABLE sent (customer text, id text, at text, properties json);
INSERT INTO sent VALUES
  ('acme', '1', '2025-11-02T03:59:59.999999Z', '{"model":"gpt-4","region":"eu","input":100,"output":10,"user_id":"ann"}'),
  ('acme', '2', '2025-11-02T04:00:00Z',        '{"model":"gpt-4","region":"us","input":50,"output":5,"user_id":"bob"}'),
  ('acme', '3', '2025-11-02T05:30:00Z',        '{"model":"gpt-3.5","region":"eu","output":999,"user_id":"ann"}'),
  ('acme', '4', '2025-11-02T06:30:00Z',        '{"model":"claude","region":"eu","input":7,"output":70,"user_id":7}'),
  ('acme', '5', '2025-11-03T04:59:59Z',        '{"region":"eu","input":null,"output":1,"user_id":"ann"}'),
  ('acme', '6', '2025-11-03T05:00:00Z',        '{"model":"gpt-4","output":null,"user_id":"7"}'),
  ('acme', '7', '2025-11-03T05:00:00Z',        '{"model":4,"input":3}');
SELECT accepted, rejected FROM billing.ingest((SELECT json_agg(json_build_object('customer', customer, 'event_id', id, 'event_type', 'llm', 'occurred_at', at, 'properties', properties)) FROM sent));

-- Totals: an event whose value is absent or null does not count on that meter; a value of 7 and "7" is one user
CREATE FUNCTION pg_temp.total(meter text, customer text DEFAULT 'acme') RETURNS text LANGUAGE sql AS
  $$ SELECT coalesce(trim_scale(quantity)::text, 'none') || ' of ' || events FROM billing.usage(customer, meter, '2025-11-01Z', '2025-12-01Z') $$;
CREATE TEMP VIEW totals AS SELECT label, got, want, got = want AS ok FROM (VALUES
  ('calls', pg_temp.total('calls'), '7 of 7'),
  ('tokens = (100+20) + (50+10) + 1998 + (7+140) + 2', pg_temp.total('tokens'), '2327 of 5'),
  ('peak', pg_temp.total('peak'), '999 of 5'),
  ('users: ann, bob, 7', pg_temp.total('users'), '3 of 6'),
  ('big-eu: 1 and 3', pg_temp.total('big-eu'), '2 of 2'),
  ('nobody''s usage', pg_temp.total('tokens', 'apia'), '0 of 0'),
  ('nobody''s peak', pg_temp.total('peak', 'apia'), 'none of 0')) x (label, got, want);
SELECT * FROM totals;

-- Days and months of New York: 2 November has 25 hours, [04:00Z, 05:00Z next day)
SELECT starts_at, quantity, events FROM billing.usage('acme', 'calls', '2025-11-01T04:00:00Z', '2025-12-01T05:00:00Z', 'day');
SELECT starts_at, quantity, events FROM billing.usage('acme', 'calls', '2025-11-01T04:00:00Z', '2025-12-01T05:00:00Z', 'day', time_zone => 'UTC');
SELECT starts_at, quantity FROM billing.usage('acme', 'calls', '2025-10-01Z', '2025-12-01Z', 'month', time_zone => 'Pacific/Auckland');
-- Hours: the repeated hour of the night of 2 November is two cells
SELECT starts_at, quantity FROM billing.usage('acme', 'calls', '2025-11-02T04:00:00Z', '2025-11-02T08:00:00Z', 'hour');
-- Any instants, half-open
SELECT label, got, want, got = want AS ok FROM (VALUES
  ('the last microsecond is outside', (SELECT events FROM billing.usage('acme', 'calls', '2025-11-01Z', '2025-11-02T03:59:59.999999Z')), 0),
  ('… and here inside', (SELECT events FROM billing.usage('acme', 'calls', '2025-11-01Z', '2025-11-02T04:00:00Z')), 1),
  ('inside an hour', (SELECT events FROM billing.usage('acme', 'calls', '2025-11-02T05:29:00Z', '2025-11-02T06:30:00Z')), 1),
  ('one microsecond', (SELECT events FROM billing.usage('acme', 'calls', '2025-11-02T06:30:00Z', '2025-11-02T06:30:00.000001Z')), 1)) x (label, got, want);
-- The first cell starts where the question does
SELECT starts_at, quantity FROM billing.usage('acme', 'calls', '2025-11-02T05:00:00Z', '2025-11-04T05:00:00Z', 'day');

-- By dimension, from buckets; by any property, from events, with the same sums
SELECT dimensions, trim_scale(quantity) AS quantity, events FROM billing.usage('acme', 'tokens', '2025-11-01Z', '2025-12-01Z', group_by => '{model,region}');
SELECT dimensions, quantity, events FROM billing.usage('acme', 'users', '2025-11-01Z', '2025-12-01Z', group_by => '{model}');
SELECT dimensions, quantity, events FROM billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', group_by => '{user_id}');
SELECT dimensions, quantity FROM billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', 'month', '{region,model}', '{"model":["gpt-4","claude","4"]}');
SELECT label, got, want, got = want AS ok FROM (VALUES
  ('filter on a dimension', (SELECT quantity FROM billing.usage('acme', 'tokens', '2025-11-01Z', '2025-12-01Z', filter => '{"region":"eu"}')), 2267),
  ('filter on a number', (SELECT quantity FROM billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', filter => '{"model":4}')), 1),
  ('filter on a property', (SELECT quantity FROM billing.usage('acme', 'tokens', '2025-11-01Z', '2025-12-01Z', filter => '{"user_id":"ann"}')), 2120),
  ('nothing fits', (SELECT quantity FROM billing.usage('acme', 'tokens', '2025-11-01Z', '2025-12-01Z', filter => '{"region":"mars"}')), 0)) x (label, got, want);

-- Fold moves deltas into buckets and changes no answer
CREATE TEMP TABLE before_fold AS SELECT customer, meter, day, dimensions, quantity, events FROM billing.usage_daily;
SELECT count(*) > 0 AS deltas FROM billing.usage_delta;
CALL billing.fold();
SELECT count(*) AS deltas FROM billing.usage_delta;
SELECT job, state, done, issues FROM billing.job_run;
SELECT * FROM totals;
SELECT count(*) AS cells, count(*) FILTER (WHERE b IS NOT NULL AND a IS NOT NULL) AS same FROM billing.usage_daily a FULL JOIN before_fold b USING (customer, meter, day, dimensions, quantity, events);
SELECT customer, meter, day, dimensions, trim_scale(quantity) AS quantity, events FROM billing.usage_daily WHERE meter IN ('calls', 'users') ORDER BY meter, day, dimensions;
SELECT meter, hour_start, dimensions, trim_scale(quantity) AS quantity, events FROM billing.usage_hourly WHERE meter = 'tokens' ORDER BY hour_start, dimensions;
-- … half folded, half not
SELECT billing.ingest_event('acme', 'llm', '8', '2025-11-02T04:00:00Z', '{"model":"gpt-4","region":"us","input":1,"output":2000,"user_id":"bob"}');
SELECT label, got, want, got = want AS ok FROM (VALUES ('calls', pg_temp.total('calls'), '8 of 8'), ('tokens', pg_temp.total('tokens'), '6328 of 6'), ('peak', pg_temp.total('peak'), '2000 of 6'), ('users', pg_temp.total('users'), '3 of 7')) x (label, got, want);

-- Expressions (no decimal is lost: what needs more than 28 digits is refused): division inside round, texts, nested properties, decimals without loss
SELECT accepted, rejected, errors FROM billing.ingest('[{"customer":"acme","event_id":"e1","event_type":"call","occurred_at":"2025-11-05T00:00:00Z","properties":{"seconds":100,"plan":"free","cost":{"total":0.3},"odd name":0.1}},
  {"customer":"acme","event_id":"e2","event_type":"call","occurred_at":"2025-11-05T00:00:00Z","properties":{"seconds":101.5,"plan":"pro","cost":{"total":12345678901234567.89},"odd name":0.1}}]');
SELECT label, got, want, got = want AS ok FROM (VALUES ('1.67 + 1.69', pg_temp.total('minutes'), '3.36 of 2'), ('0 + 100', pg_temp.total('capped'), '100 of 2'), ('0.2 + 12345678901234567.79', pg_temp.total('nested'), '12345678901234567.99 of 2')) x (label, got, want);

-- A zone off the whole hour: days of Kolkata (+05:30) are cut at 18:30Z; those of Kathmandu (+05:45) at 18:15Z
SELECT count(*) FILTER (WHERE o = 'accepted') AS accepted FROM (SELECT billing.ingest_event('delhi', 'llm', 'd' || n, at::timestamptz, '{"model":"m","output":1}') AS o
  FROM (VALUES (1, '2025-11-10T18:14:59Z'), (2, '2025-11-10T18:15:00Z'), (3, '2025-11-10T18:29:59.999999Z'), (4, '2025-11-10T18:30:00Z')) e (n, at)) x;
SELECT starts_at, quantity FROM billing.usage('delhi', 'calls', '2025-11-09T18:30:00Z', '2025-11-12T18:30:00Z', 'day');
SELECT starts_at, quantity FROM billing.usage('delhi', 'calls', '2025-11-09T18:15:00Z', '2025-11-12T18:15:00Z', 'day', time_zone => 'Asia/Kathmandu');
SELECT starts_at, quantity FROM billing.usage('delhi', 'calls', '2025-11-10T17:30:00Z', '2025-11-10T20:30:00Z', 'hour');
SELECT day, quantity::int FROM billing.usage_daily WHERE customer = 'delhi' AND meter = 'calls' ORDER BY day;
-- … asked of a customer with hourly buckets: answered from events
SELECT starts_at, quantity FROM billing.usage('acme', 'calls', '2025-11-01T18:30:00Z', '2025-11-03T18:30:00Z', 'day', time_zone => 'Asia/Kolkata');
SELECT starts_at, quantity FROM billing.usage('acme', 'calls', '2025-11-02T05:00:00Z', '2025-11-02T07:00:00Z', 'hour', time_zone => 'Asia/Kolkata');
-- Apia skipped 30 December 2011: no such day
SELECT billing.policy_set('event_age_max', '20 years');
SELECT count(*) AS sent FROM (SELECT billing.ingest_event('apia', 'llm', 'p' || n, at::timestamptz, '{"output":1}') FROM (VALUES (1, '2011-12-30T09:59:59Z'), (2, '2011-12-30T10:00:00Z'), (3, '2011-12-31T10:00:00Z')) e (n, at)) x;
SELECT starts_at, starts_at AT TIME ZONE 'Pacific/Apia' AS local, quantity FROM billing.usage('apia', 'calls', '2011-12-29Z', '2012-01-02Z', 'day');

-- A meter made later is filled from stored events; the same question, the same answer
SELECT action, key FROM billing.catalog_apply('{"meters":[{"key":"late","event_type":"llm","aggregation":"sum","value":"output","dimensions":["region"]}]}');
SELECT dimensions, quantity, events FROM billing.usage('acme', 'late', '2025-11-01Z', '2025-12-01Z', group_by => '{region}');
SELECT action, key, after->'retired' AS retired FROM billing.catalog_apply('{"meters":[{"key":"late","retired":true}]}');

-- Errors
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  $$SELECT billing.usage('nobody', 'calls', '2025-11-01Z', '2025-12-01Z')$$, $$SELECT billing.usage('acme', 'nothing', '2025-11-01Z', '2025-12-01Z')$$, $$SELECT billing.usage('acme', NULL, '2025-11-01Z', '2025-12-01Z')$$,
  $$SELECT billing.usage('acme', 'calls', '2025-12-01Z', '2025-11-01Z')$$, $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', '2025-11-01Z')$$, $$SELECT billing.usage('acme', 'calls', '-infinity', '2025-11-01Z')$$, $$SELECT billing.usage('acme', 'calls', NULL, '2025-11-01Z')$$,
  $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', 'infinity')$$, $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', 'week')$$, $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', group_by => NULL)$$,
  $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', group_by => '{a,NULL}')$$, $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', filter => '[]')$$, $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', filter => '{"model":{"gt":1}}')$$,
  $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', filter => '{"model":[[1]]}')$$, $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', time_zone => 'Nowhere')$$, $$SELECT billing.usage('acme', 'calls', '2025-11-01Z', '2025-12-01Z', time_zone => '')$$]) c;
-- … of meters
SELECT pg_temp.fails(format('SELECT billing.catalog_apply(%L)', json_build_object('meters', json_build_array(d::json)))) FROM unnest(ARRAY[
  '{"kye":"m"}', '{"key":"m","event_typ":"t"}', '{"key":"m","event_type":"t","aggregation":"median"}', '{"key":"m","event_type":"t","aggregation":"sum"}', '{"key":"m","event_type":"t","aggregation":"count","value":"n"}',
  '{"key":"m","event_type":"t","aggregation":"sum","value":"a / 2"}', '{"key":"m","event_type":"t","aggregation":"sum","value":"a +"}', '{"key":"m","event_type":"t","aggregation":"sum","value":"round(a, 13)"}', '{"key":"m","event_type":"t","aggregation":"sum","value":"sqrt(a)"}',
  '{"key":"m","event_type":"t","aggregation":"count","dimensions":["a","a"]}', '{"key":"m","event_type":"t","aggregation":"count","dimensions":["bill_to"]}', '{"key":"m","event_type":"t","aggregation":"count","filter":{"a":{"like":"x"}}}', '{"key":"m","event_type":"t","aggregation":"count","filter":{"a":{}}}',
  '{"key":"calls","event_type":"llm","aggregation":"sum","value":"output"}', '{"key":"late","event_type":"llm","aggregation":"sum","value":"output","dimensions":["region"]}', '{"key":"m2","retired":true}', '5']) d;
\a \t

-- The largest numbers an event may have, and their sum, pass through every view and stop no other row
SELECT accepted FROM billing.ingest((SELECT json_agg(json_build_object('customer', 'apia', 'event_id', 'huge-' || n, 'event_type', 'call', 'occurred_at', '2025-11-09T00:00:00Z', 'properties', '{"seconds":0,"cost":{"total":9999999999999999999999999999},"odd name":0}'::json)) FROM generate_series(1, 3) n));
SELECT count(*) > 0 AS rows, max(quantity) = 29999999999999999999999999997 AS ok FROM billing.usage_daily;
SELECT count(*) > 0 AS rows, max(quantity) = 29999999999999999999999999997 AS ok FROM billing.usage_hourly;
SELECT max(quantity) = 29999999999999999999999999997 AS ok FROM billing.fact_usage_daily;
SELECT max(quantity) = 29999999999999999999999999997 AS ok FROM billing.unpriced_usage;
SELECT check_name, checked > 0 AS checked, failed, example FROM billing.verify('full') WHERE check_name LIKE 'usage%';

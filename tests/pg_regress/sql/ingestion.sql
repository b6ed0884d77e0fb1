-- Ingestion: events are stored once, whole batches survive one broken event, nothing is dropped in silence.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-03-15T12:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"]}]}');
SELECT billing.customer_upsert('{"key":"acme","aliases":["acme-inc"],"bill_tos":[{"key":"us","name":"US"},{"key":"uk","name":"UK"}]}') AS a, billing.customer_upsert('{"key":"globex"}') AS g \gset

-- A batch; the same again; the same id with other content; the first of two in one batch counts
CREATE TEMP TABLE batch (doc json);
INSERT INTO batch VALUES ('[{"customer":"acme","event_id":"a","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":1,"model":"m"}},
  {"customer":"acme","event_id":"b","event_type":"llm","occurred_at":"2026-03-01T01:00:00+01:00","properties":{"n":2.50}}]');
SELECT accepted, duplicate, conflicting, rejected, errors FROM batch, billing.ingest(doc);
SELECT accepted, duplicate, conflicting, rejected, errors FROM batch, billing.ingest(doc);
SELECT * FROM billing.ingest('[{"customer":"acme","event_id":"a","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":7,"model":"m"}},
  {"customer":"acme","event_id":"c","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":3}},
  {"customer":"acme","event_id":"c","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":4}},
  {"customer":"acme","event_id":"c","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":3}}]');
-- the same content written otherwise is the same event: offset, order, zeros, alias of the customer
SELECT * FROM billing.ingest('{"properties":{"n":2.5},"occurred_at":"2026-03-01T00:00:00.000000Z","event_type":"llm","event_id":"b","customer":"acme-inc"}');
-- ids are kept per customer; a UUID is an id as any other
SELECT accepted, duplicate, conflicting, rejected FROM billing.ingest('[{"customer":"globex","event_id":"a","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":9}},
  {"customer":"globex","event_id":"00000000-0000-4000-8000-000000000001","event_type":"other","occurred_at":"2026-03-01T00:00:00Z"}]');
SELECT k.key, e.event_id, e.event_type, e.occurred_at, e.bill_to, e.properties FROM billing.usage_event e JOIN billing.customer k USING (customer_id) ORDER BY k.key, e.event_id;

-- a customer is named by its key or an alias, never by our id
SELECT billing.customer_upsert('{"key":"101"}') AS key, customer_id AS ours FROM billing.customer WHERE key = 'globex';
SELECT accepted, rejected, errors->0->>'reason' AS reason FROM unnest('{1,2,3}'::text[]) c, billing.ingest(json_build_object('customer', c, 'event_id', 'by-id', 'event_type', 'llm', 'occurred_at', '2026-03-01T00:00:00Z', 'properties', '{}'::json));
SELECT accepted FROM billing.ingest('{"customer":"101","event_id":"by-key","event_type":"other","occurred_at":"2026-03-01T00:00:00Z","properties":{}}');
SELECT k.key, e.event_id FROM billing.usage_event e JOIN billing.customer k USING (customer_id) WHERE e.event_id LIKE 'by-%';

-- Every way in which one event can be refused; its neighbours are stored
CREATE TEMP TABLE hostile (n serial, why text, event text);
INSERT INTO hostile (why, event) VALUES
  ('not an object', '5'),
  ('empty object', '{}'),
  ('no customer', '{"event_id":"x","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z"}'),
  ('misspelled field', '{"customer":"acme","event_di":"x","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z"}'),
  ('unknown customer', '{"customer":"nobody","event_id":"x2","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z"}'),
  ('unknown bill_to', '{"customer":"acme","bill_to":"fr","event_id":"x3","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z"}'),
  ('id is a number', '{"customer":"acme","event_id":5,"event_type":"llm","occurred_at":"2026-03-01T00:00:00Z"}'),
  ('id is empty', '{"customer":"acme","event_id":"","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z"}'),
  ('id of 256 bytes', format('{"customer":"acme","event_id":"%s","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z"}', repeat('x', 256))),
  ('field twice', '{"customer":"acme","customer":"globex","event_id":"x4","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z"}'),
  ('property twice', '{"customer":"acme","event_id":"x5","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":1,"n":2}}'),
  ('no offset', '{"customer":"acme","event_id":"x6","event_type":"llm","occurred_at":"2026-03-01T00:00:00"}'),
  ('year 10000', '{"customer":"acme","event_id":"x7","event_type":"llm","occurred_at":"10000-01-01T00:00:00Z"}'),
  ('year 0000', '{"customer":"acme","event_id":"x7b","event_type":"llm","occurred_at":"0000-01-01T00:00:00Z"}'),
  ('30 February', '{"customer":"acme","event_id":"x8","event_type":"llm","occurred_at":"2026-02-30T00:00:00Z"}'),
  ('infinity', '{"customer":"acme","event_id":"x9","event_type":"llm","occurred_at":"infinity"}'),
  ('hour 24', '{"customer":"acme","event_id":"x10","event_type":"llm","occurred_at":"2026-03-01T24:00:00Z"}'),
  ('older than 5 years', '{"customer":"acme","event_id":"x11","event_type":"llm","occurred_at":"2021-03-15T11:59:59.999999Z"}'),
  ('more than an hour ahead', '{"customer":"acme","event_id":"x12","event_type":"llm","occurred_at":"2026-03-15T13:00:00.000001Z"}'),
  ('properties are a list', '{"customer":"acme","event_id":"x13","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":[]}'),
  ('value is a text', '{"customer":"acme","event_id":"x14","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":"many"}}'),
  ('value NaN as text', '{"customer":"acme","event_id":"x15","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":"NaN"}}'),
  ('value is true', '{"customer":"acme","event_id":"x16","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":true}}'),
  ('10^40', '{"customer":"acme","event_id":"x17","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":1e40}}'),
  ('29 digits', '{"customer":"acme","event_id":"x18","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":12345678901234567890123456789}}'),
  ('1e-13', '{"customer":"acme","event_id":"x19","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":1e-13}}'),
  ('1e400 in any property', '{"customer":"acme","event_id":"x20","event_type":"none","occurred_at":"2026-03-01T00:00:00Z","properties":{"x":1e400}}'),
  ('zero byte', '{"customer":"acme","event_id":"x21","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"x":"\u0000"}}'),
  ('half a surrogate pair', '{"customer":"acme","event_id":"x22","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"x":"\ud800"}}'),
  ('nine levels', '{"customer":"acme","event_id":"x23","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}}}}}'),
  ('dimension is an object', '{"customer":"acme","event_id":"x24","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":1,"model":{}}}'),
  ('dimension of 257 bytes', format('{"customer":"acme","event_id":"x25","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":1,"model":"%s"}}', repeat('x', 257))),
  ('properties of 16 kB and more', format('{"customer":"acme","event_id":"x26","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"x":"%s"}}', repeat('x', 16384)));
SELECT h.why, r.rejected, r.errors->0->>'reason' AS reason, left(r.errors->0->>'message', 110) AS message
FROM (SELECT * FROM hostile ORDER BY n) h, billing.ingest(('[' || h.event || ']')::json) r;
-- … all at once, a good event before, between and after
SELECT accepted, duplicate, conflicting, rejected, jsonb_array_length(errors) AS errors
FROM billing.ingest((SELECT '[' || string_agg(format('{"customer":"acme","event_id":"good-%s","event_type":"llm","occurred_at":"2026-03-02T00:00:00Z","properties":{"n":1}},', h.n) || h.event, ',' ORDER BY h.n)
  || ',{"customer":"acme","event_id":"good-last","event_type":"llm","occurred_at":"2026-03-02T00:00:00Z","properties":{"n":1}}]' FROM hostile h)::json);
SELECT quantity, events FROM billing.usage('acme', 'tokens', '2026-03-02Z', '2026-03-03Z');
-- rejected events are kept whole
SELECT count(*), count(DISTINCT raw) FROM billing.rejected_event;
SELECT reason, customer, event_id, raw FROM billing.rejected_event WHERE event_id IN ('x14', 'x6') ORDER BY event_id, rejected_id;

-- At the limits: just allowed
SELECT h.why, r.accepted, r.rejected, r.errors FROM (VALUES
  (1, 'exactly 5 years', '{"customer":"acme","event_id":"l1","event_type":"llm","occurred_at":"2021-03-15T12:00:00Z","properties":{"n":1}}'),
  (2, 'exactly an hour ahead', '{"customer":"acme","event_id":"l2","event_type":"llm","occurred_at":"2026-03-15T13:00:00Z","properties":{"n":1}}'),
  (3, '28 digits', '{"customer":"acme","event_id":"l3","event_type":"llm","occurred_at":"2026-03-03T00:00:00Z","properties":{"n":1234567890123456.789012345678}}'),
  (4, '1e-12', '{"customer":"acme","event_id":"l4","event_type":"llm","occurred_at":"2026-03-03T00:00:00Z","properties":{"n":1e-12}}'),
  (5, 'id of 255 bytes', format('{"customer":"acme","event_id":"%s","event_type":"llm","occurred_at":"2026-03-03T00:00:00Z","properties":{"n":0}}', repeat('x', 255))),
  (6, 'dimension of 256 bytes', format('{"customer":"acme","event_id":"l6","event_type":"llm","occurred_at":"2026-03-03T00:00:00Z","properties":{"n":0,"model":"%s"}}', repeat('x', 256))),
  (7, 'eight levels', '{"customer":"acme","event_id":"l7","event_type":"llm","occurred_at":"2026-03-03T00:00:00Z","properties":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}}}}'),
  (8, 'beyond the microsecond is cut', '{"customer":"acme","event_id":"l8","event_type":"llm","occurred_at":"2026-03-03T00:00:00.9999999Z","properties":{"n":null}}'),
  (9, 'offset of 14 hours', '{"customer":"acme","event_id":"l9","event_type":"llm","occurred_at":"2026-03-03T14:00:00+14:00","properties":{"n":-5}}')) h (n, why, event),
  billing.ingest(h.event::json) r ORDER BY h.n;
SELECT event_id, occurred_at FROM billing.usage_event WHERE event_id IN ('l8', 'l9') ORDER BY 1;
SELECT trim_scale(sum(quantity)) AS got, trim_scale(sum(quantity)) = 1234567890123451.789012345679 AS ok FROM billing.usage('acme', 'tokens', '2026-03-03Z', '2026-03-04Z');

-- Numbers survive: what was sent is what is stored, digit by digit
SELECT accepted FROM billing.ingest('[{"customer":"globex","event_id":"n1","event_type":"llm","occurred_at":"2026-03-05T00:00:00Z","properties":{"n":0.1}},
  {"customer":"globex","event_id":"n2","event_type":"llm","occurred_at":"2026-03-05T00:00:00Z","properties":{"n":1e-12}},
  {"customer":"globex","event_id":"n3","event_type":"llm","occurred_at":"2026-03-05T00:00:00Z","properties":{"n":"12345678901234567.89"}},
  {"customer":"globex","event_id":"n4","event_type":"llm","occurred_at":"2026-03-05T00:00:00Z","properties":{"n":12345678901234567.89}}]');
SELECT event_id, properties->>'n' AS n FROM billing.usage_event WHERE event_id LIKE 'n_' ORDER BY 1;
SELECT quantity AS got, quantity = 12345678901234567.990000000001 AS ok FROM billing.usage('globex', 'tokens', '2026-03-05Z', '2026-03-06Z');

-- A document that is no batch fails as a whole and stores nothing
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  $$SELECT billing.ingest('[{"customer":"acme"')$$, $$SELECT billing.ingest('')$$, $$SELECT billing.ingest('"an event"')$$, $$SELECT billing.ingest('null')$$, $$SELECT billing.ingest(NULL)$$, $$SELECT billing.ingest('[]', 'cloudevents')$$, $$SELECT billing.ingest('[]', NULL)$$,
  $$SELECT billing.ingest(('[' || repeat('{},', 10000) || '{}]')::json)$$, $$SELECT billing.ingest(to_json(repeat('x', 16777216)))$$, $$SELECT billing.ingest(repeat('[', 100000)::json)$$]) c;
\a \t
SELECT accepted, rejected FROM billing.ingest('[]');
SELECT accepted, rejected FROM billing.ingest(('[' || repeat('{},', 9999) || '{}]')::json);
SELECT accepted, rejected, errors->0->>'reason' AS reason FROM billing.ingest((repeat('[', 2000) || repeat(']', 2000))::json);

-- One event: accepted, duplicate; what ingest would reject or call conflicting is raised, and not stored
SELECT billing.ingest_event('acme', 'llm', 'one', '2026-03-06T00:00:00Z', '{"n":5}', 'uk');
SELECT billing.ingest_event('acme', 'llm', 'one', '2026-03-06T00:00:00Z', '{"n":5.0}', 'uk');
SELECT count(*) AS rejected_before FROM billing.rejected_event \gset
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  $$SELECT billing.ingest_event('acme', 'llm', 'one', '2026-03-06T00:00:00Z', '{"n":6}', 'uk')$$, $$SELECT billing.ingest_event('acme', 'llm', 'one', '2026-03-06T00:00:00Z', '{"n":5}')$$,
  $$SELECT billing.ingest_event('nobody', 'llm', 'two', '2026-03-06T00:00:00Z')$$, $$SELECT billing.ingest_event('acme', 'llm', 'two', '2026-03-06T00:00:00Z', '{}', 'fr')$$,
  $$SELECT billing.ingest_event('acme', 'llm', 'two', 'infinity')$$, $$SELECT billing.ingest_event('acme', 'llm', 'two', '-infinity')$$, $$SELECT billing.ingest_event('acme', 'llm', 'two', '10000-01-01Z')$$,
  $$SELECT billing.ingest_event('acme', 'llm', 'two', '4000-01-01Z BC')$$, $$SELECT billing.ingest_event('acme', 'llm', 'two', '2026-03-16Z')$$, $$SELECT billing.ingest_event('acme', 'llm', 'two', NULL)$$, $$SELECT billing.ingest_event(NULL, 'llm', 'two', now())$$,
  $$SELECT billing.ingest_event('acme', '', 'two', '2026-03-06T00:00:00Z')$$, $$SELECT billing.ingest_event('acme', 'llm', 'two', '2026-03-06T00:00:00Z', '[]')$$, $$SELECT billing.ingest_event('acme', 'llm', 'two', '2026-03-06T00:00:00Z', '{"n":"x"}')$$,
  $$SELECT billing.ingest_event('acme', 'llm', 'two', '2026-03-06T00:00:00Z', jsonb_build_object('n', 1e40))$$]) c;
\a \t
SELECT count(*) - :rejected_before AS stored FROM billing.rejected_event;

-- In bulk, from a table of the caller
BEGIN;
CREATE TEMP TABLE bulk (LIKE billing.usage_event_input);
INSERT INTO bulk (customer, event_type, event_id, occurred_at, properties)
SELECT CASE WHEN i = 7000 THEN 'nobody' ELSE 'globex' END, 'llm', 'bulk-' || i, '2026-03-07T00:00:00Z', CASE i WHEN 5 THEN '{"n":"NaN"}' WHEN 6 THEN '{' ELSE '{"n":0.1}' END::text::json FROM generate_series(1, 12000) i WHERE i <> 6;
SELECT accepted, duplicate, conflicting, rejected, (SELECT jsonb_agg(e->'reason') FROM jsonb_array_elements(errors) e) AS reasons FROM billing.ingest_from('bulk');
SELECT accepted, duplicate, conflicting, rejected FROM billing.ingest_from('bulk');
COMMIT;
SELECT quantity AS got, quantity = 1199.7 AS ok FROM billing.usage('globex', 'tokens', '2026-03-07Z', '2026-03-08Z');
TRUNCATE bulk;
INSERT INTO bulk VALUES (NULL, NULL, NULL, NULL, NULL, NULL);
SELECT accepted, rejected, errors->0->>'reason' AS reason, errors->0->>'message' AS message FROM billing.ingest_from('bulk');
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.ingest_from('no_such_table')$$, $$SELECT billing.ingest_from('batch')$$, $$SELECT billing.ingest_from(NULL)$$,
  $$SELECT billing_internal.ingest_rows(a, a, a, a, a, a) FROM (SELECT array_fill('x'::text, ARRAY[10001])) x (a)$$, $$SELECT billing_internal.ingest_rows('{}', '{}', '{}', '{}', NULL, '{}')$$]) c;
\a \t

-- How old and how far ahead an event may be: the seller's own policy, or everybody's, or the default
SELECT billing.seller_upsert('{"key":"eu","name":"EU GmbH"}') AS eu, billing.customer_upsert('{"key":"initech","seller":"eu"}') AS i \gset
CREATE FUNCTION pg_temp.admits() RETURNS TABLE (customer text, at timestamptz, outcome text) LANGUAGE sql AS $$
  SELECT c, t, coalesce(i.errors->0->>'reason', 'taken') FROM unnest('{initech,globex}'::text[]) c, unnest('{2026-02-20Z,2026-03-10Z,2026-03-15 14:00Z,2026-03-16 11:00Z}'::timestamptz[]) t,
    billing.ingest(json_build_object('customer', c, 'event_id', gen_random_uuid(), 'event_type', 'other', 'occurred_at', t)) i ORDER BY 1, 2 $$;
SELECT billing.policy_set('event_age_max', '7 days', 'seller:eu'), billing.policy_set('event_future_max', '3 hours');
SELECT * FROM pg_temp.admits();
SELECT billing.policy_set('event_age_max', '20 days'), billing.policy_set('event_age_max', '30 days', 'seller:eu'), billing.policy_set('event_future_max', '1 hour', 'seller:eu');
SELECT * FROM pg_temp.admits();

-- An event is judged by the meters as they are, not by those that this session knew before
SELECT action FROM billing.catalog_apply('{"meters":[{"key":"moved","event_type":"moved","aggregation":"sum","value":"n"}]}');
\a \t
SELECT pg_temp.fails($$SELECT billing.ingest_event('acme', 'moved', 'judged', '2026-03-06Z', '{"n":"x","m":1}')$$);
\a \t
SELECT action FROM billing.catalog_apply('{"meters":[{"key":"moved","event_type":"moved","aggregation":"sum","value":"m","valid_from":"2026-03-01T00:00:00Z"}]}');
SELECT billing.ingest_event('acme', 'moved', 'judged', '2026-03-06Z', '{"n":"x","m":1}');
SELECT quantity FROM billing.usage('acme', 'moved', '2026-03-06Z', '2026-03-07Z');

-- A call looks up whom it is about, however many others there are and were when its plans were made
SELECT count(billing.customer_upsert(jsonb_build_object('key', 'c' || i))) FROM generate_series(1, 300) i;
ANALYZE billing.customer;
\c -
SELECT billing.test_clock_set('2026-03-15T12:00:00Z') AS clock \gset
SELECT count(billing.ingest_event('c290', 'llm', 'one-of-many-' || i, '2026-03-06Z', '{"n":1}')) FROM generate_series(1, 10) i;
BEGIN;
SELECT billing.ingest_event('c299', 'llm', 'one-of-many', '2026-03-06Z', '{"n":1}');
SELECT idx_tup_fetch AS read_before FROM pg_stat_xact_user_tables WHERE relid = 'billing.customer'::regclass \gset
SELECT billing.ingest_event('c298', 'llm', 'one-of-many', '2026-03-06Z', '{"n":1}');
SELECT idx_tup_fetch - :read_before AS read FROM pg_stat_xact_user_tables WHERE relid = 'billing.customer'::regclass;
COMMIT;

SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;

-- What was rejected is tried again or decided about; events come in other systems' formats; customers have ingest limits.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-03-15T12:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"]},{"key":"searches","event_type":"ai_search_api","aggregation":"sum","value":"value","dimensions":["model"]}]}');
SELECT billing.customer_upsert('{"key":"acme","aliases":["cus_NciAYcXfLnqBoz","sub_1234567890"]}') AS a \gset

-- Rejected, then tried again in the order they came: the customer is there by now; others stay open, with the new reason
SELECT accepted, rejected FROM billing.ingest('[{"customer":"globex","event_id":"a","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":1}},
  {"customer":"globex","event_id":"a","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":2}},
  {"customer":"globex","event_id":"b","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":3}},
  {"customer":"globex","event_id":"b","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":3.0}},
  {"customer":"nobody","event_id":"c","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":4}},
  {"customer":"acme","event_id":"d","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":"x"}}, 7, {"customer":"globex","bill_to":"de","event_id":"e","event_type":"llm","occurred_at":"2026-03-01T00:00:00Z","properties":{"n":5}}]');
SELECT * FROM billing.rejected_event_retry();
SELECT billing.customer_upsert('{"key":"globex","aliases":["glob"]}') AS c \gset
SELECT * FROM billing.rejected_event_retry(reason => 'meter_refused');
SELECT * FROM billing.rejected_event_retry(customer => 'glob');
SELECT * FROM billing.rejected_event_retry(1);
SELECT event_id, customer, reason, left(message, 70) AS message, resolution, retried_at > received_at AS retried, resolved_at IS NOT NULL AS resolved FROM billing.rejected_event ORDER BY rejected_id;
SELECT quantity, events FROM billing.usage('globex', 'tokens', '2026-03-01Z', '2026-04-01Z');
-- what stays rejected is in nobody's way: each call takes those whose last try is longest ago
SELECT (SELECT retried FROM billing.rejected_event_retry(2)) AS first, (SELECT retried FROM billing.rejected_event_retry(2)) AS second, (SELECT retried FROM billing.rejected_event_retry(1)) AS third \gset
SELECT count(DISTINCT retried_at) AS tried_apart FROM billing.rejected_event WHERE resolved_at IS NULL;
SELECT key, action, after - 'customer' AS after FROM billing.audit_log WHERE kind = 'rejected_event' ORDER BY audit_id LIMIT 4;

-- Decided by a person: the stored event stands, or says this from now on, or the rejected one is given up
SELECT accepted, conflicting FROM billing.ingest('{"customer":"glob","event_id":"b","event_type":"llm","occurred_at":"2026-03-02T00:00:00Z","properties":{"n":30}}');
SELECT rejected_id AS keep_id FROM billing.rejected_event WHERE event_id = 'a' AND resolved_at IS NULL \gset
SELECT rejected_id AS replace_id FROM billing.rejected_event WHERE event_id = 'b' AND resolved_at IS NULL \gset
SELECT rejected_id AS discard_id FROM billing.rejected_event WHERE event_id = 'c' \gset
SELECT billing.rejected_event_resolve(:'keep_id', 'keep', 'the first is right'), billing.rejected_event_resolve(:'replace_id', 'replace', 'the second is right'), billing.rejected_event_resolve(:'discard_id', 'discard', 'a test');
SELECT quantity, events FROM billing.usage('globex', 'tokens', '2026-03-01Z', '2026-04-01Z');
SELECT event_id, reason, resolution FROM billing.rejected_event WHERE resolved_at IS NOT NULL ORDER BY rejected_id;
SELECT action, kind, before->>'reason' AS before, after, reason FROM billing.audit_log WHERE action IN ('rejected_event_resolve', 'event_amend') ORDER BY audit_id;
\a \t
SELECT regexp_replace(pg_temp.fails(c), '01[0-9a-f]{6}-[0-9a-f-]*', '…') FROM (VALUES (1, format($$SELECT billing.rejected_event_resolve(%L, 'keep', 'x')$$, :'keep_id')), (2, $$SELECT billing.rejected_event_resolve('00000000-0000-7000-8000-000000000000', 'keep', 'x')$$),
  (3, format($$SELECT billing.rejected_event_resolve(%L, 'forget', 'x')$$, :'keep_id')), (4, format($$SELECT billing.rejected_event_resolve(%L, 'keep', '')$$, :'keep_id')), (5, $$SELECT billing.rejected_event_resolve(NULL, 'keep', 'x')$$),
  (6, $$SELECT billing.rejected_event_retry(0)$$), (7, $$SELECT billing.rejected_event_retry(10001)$$), (8, $$SELECT billing.rejected_event_retry(NULL)$$)) x (n, c) ORDER BY n;
SELECT regexp_replace(f, '[0-9a-f]{8}-[0-9a-f-]*', '…') FROM billing.rejected_event r, pg_temp.fails(format($$SELECT billing.rejected_event_resolve(%L, 'replace', 'x')$$, r.rejected_id)) f WHERE r.event_id = 'd';
\a \t

-- ── other systems' events ──
SELECT accepted, duplicate, rejected FROM billing.ingest('{"specversion":"1.0","type":"llm","source":"/gateway","subject":"acme","id":"1","time":"2026-03-03T00:00:00Z","data":{"n":1,"model":"gpt-4"}}', 'cloudevents');
SELECT accepted, duplicate, rejected FROM billing.ingest('{"events":[{"event_name":"ai_search_api","identifier":"identifier_123","timestamp":1772582400,"payload":{"value":"25","stripe_customer_id":"cus_NciAYcXfLnqBoz","model":"1.10"}},
  {"event_name":"ai_search_api","identifier":"identifier_124","timestamp":"2026-03-04T00:00:01.5Z","payload":{"value":"10.50","stripe_customer_id":"cus_NciAYcXfLnqBoz"}}]}', 'stripe');
SELECT accepted, duplicate, rejected FROM billing.ingest('{"events":[{"event_name":"llm","idempotency_key":"orb-1","timestamp":"2026-03-05T00:00:00Z","external_customer_id":"acme","properties":{"n":0.5,"model":"gpt-4"}}]}', 'orb');
SELECT accepted, duplicate, rejected FROM billing.ingest('[{"transaction_id":"m-1","customer_id":"acme","event_type":"llm","timestamp":"2026-03-06T00:00:00Z","properties":{"n":"12.5","model":"gpt-4"}}]', 'metronome');
SELECT accepted, duplicate, rejected FROM billing.ingest('{"event":{"transaction_id":"l-1","external_subscription_id":"sub_1234567890","code":"llm","timestamp":"1772841600.123","properties":{"n":"3"},"precise_total_amount_cents":"1234.50"}}', 'lago');
-- the same event natively is a duplicate
SELECT accepted, duplicate, rejected FROM billing.ingest('[{"customer":"acme","event_id":"/gateway 1","event_type":"llm","occurred_at":"2026-03-03T00:00:00Z","properties":{"n":1,"model":"gpt-4"}},
  {"customer":"acme","event_id":"identifier_123","event_type":"ai_search_api","occurred_at":"2026-03-04T00:00:00Z","properties":{"value":25,"model":"1.10"}},{"customer":"acme","event_id":"m-1","event_type":"llm","occurred_at":"2026-03-06T00:00:00Z","properties":{"n":12.5,"model":"gpt-4"}}]');
SELECT event_id, event_type, occurred_at, properties FROM billing.usage_event JOIN billing.customer USING (customer_id) WHERE key = 'acme' ORDER BY occurred_at;
SELECT m.key, trim_scale(u.quantity) AS quantity, u.events, quantity = CASE m.key WHEN 'tokens' THEN 17.0 ELSE 35.5 END AS ok FROM (VALUES ('tokens'), ('searches')) m (key), billing.usage('acme', m.key, '2026-03-01Z', '2026-04-01Z') u;
-- what is refused is kept as it was sent, with its format, and tried again in it
SELECT accepted, rejected, errors FROM billing.ingest('[{"event_name":"llm","idempotency_key":"orb-2","timestamp":"2026-03-05T00:00:00Z","external_customer_id":"initech","properties":{"n":7}},{"event_name":"llm","idempotency_key":"orb-3","timestamp":"yesterday","external_customer_id":"acme"}]', 'orb');
SELECT event_id, format, reason, raw FROM billing.rejected_event WHERE event_id LIKE 'orb-%' ORDER BY event_id;
SELECT billing.customer_upsert('{"key":"initech"}') AS c \gset
SELECT retried, accepted, rejected FROM billing.rejected_event_retry(reason => 'unknown_customer', customer => 'initech');
SELECT retried, accepted, rejected FROM billing.rejected_event_retry(customer => 'acme');
SELECT event_id, reason, message FROM billing.rejected_event WHERE event_id LIKE 'orb-%' AND resolved_at IS NULL;
-- … and decided about in it (what conflicts is kept in native form, unless a meter refused it at first)
SELECT accepted, rejected FROM billing.ingest('[{"event_name":"llm","idempotency_key":"h-1","timestamp":"2026-03-05T00:00:00Z","external_customer_id":"hooli","properties":{"n":7}},{"event_name":"llm","idempotency_key":"h-1","timestamp":"2026-03-05T00:00:00Z","external_customer_id":"hooli","properties":{"n":8}}]', 'orb');
SELECT billing.customer_upsert('{"key":"hooli"}') AS c \gset
SELECT retried, accepted, conflicting FROM billing.rejected_event_retry(customer => 'hooli');
UPDATE billing.rejected_event SET format = 'orb', raw = '{"event_name":"llm","idempotency_key":"h-1","timestamp":"2026-03-05T00:00:00Z","external_customer_id":"hooli","properties":{"n":8}}' WHERE event_id = 'h-1' AND resolved_at IS NULL;
SELECT format, billing.rejected_event_resolve(rejected_id, 'replace', 'eight it was') FROM billing.rejected_event WHERE event_id = 'h-1' AND resolved_at IS NULL;
SELECT quantity, events FROM billing.usage('hooli', 'tokens', '2026-03-01Z', '2026-04-01Z');
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.ingest('[]', 'avro')$$, $$SELECT billing.ingest('[]', NULL)$$, $$SELECT billing.ingest('{"events":[],"more":1}', 'orb')$$, $$SELECT billing.ingest('7', 'stripe')$$]) c;
\a \t

-- ── limits ──
-- 5 at once, then one every 1,000 seconds: what is over fails as a whole and says when (the clock of limits is the real one)
CREATE FUNCTION pg_temp.send(customer text, first int, last int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text; hint text; sent text;
BEGIN
    SELECT format('%s accepted, %s duplicate, %s rejected', accepted, duplicate, rejected) INTO sent FROM billing.ingest((SELECT coalesce(json_agg(json_build_object('customer', customer, 'event_id', 'limit-' || i, 'event_type', 'llm',
      'occurred_at', '2026-03-10T00:00:00Z', 'properties', json_build_object('n', 1))), '[]') FROM generate_series(first, last) i));
    RETURN sent;
EXCEPTION WHEN SQLSTATE 'ZB013' OR SQLSTATE 'ZB010' THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ': ' || SQLERRM || '; ' || regexp_replace(hint, '[0-9]{4,} ms', '… ms') || CASE WHEN split_part(detail, ' ', 2) <> '' THEN format(' (%s; within a thousand seconds of %s: %s)', split_part(detail, ' ', 1),
      1000 * ceil(split_part(detail, ' ', 2)::numeric / 1000000), split_part(detail, ' ', 2)::numeric % 1000000 BETWEEN 900000 AND 999999 OR split_part(detail, ' ', 2)::numeric % 1000000 = 0) ELSE '' END;
END
$$;
SELECT billing.ingest_limit_set('globex', 0.001, 5, 'noisy');
SELECT trim_scale(events_per_second) AS events_per_second, burst, set_by FROM billing.ingest_limit;
SELECT pg_temp.send('globex', 1, 4);
SELECT pg_temp.send('globex', 5, 6);
SELECT pg_temp.send('globex', 4, 5);
SELECT pg_temp.send('globex', 6, 6);
SELECT count(*) FROM billing.usage_event WHERE event_id LIKE 'limit-%';
-- over the limit, repeats are refused early, too; more than ever fit are refused for good
SELECT pg_temp.send('globex', 1, 1);
SELECT billing.ingest_limit_set('globex', 1000, 5), pg_sleep(0.01);
SELECT pg_temp.send('globex', 1, 12);
-- duplicates and what is rejected are free
SELECT pg_temp.send('globex', 1, 5), pg_temp.send('globex', 1, 5);
-- others have no limit; retries and corrections ask none
SELECT pg_temp.send('acme', 1, 50);
SELECT billing.ingest_limit_set('globex', 0.000001, 1);
SELECT pg_temp.send('globex', 101, 101), pg_temp.send('globex', 102, 102);
SELECT billing.event_amend('globex', 'limit-1', 'x', properties => '{"n":2}');
\a \t
SELECT regexp_replace(f, '[0-9]{7,}', '…') FROM pg_temp.fails($$SELECT billing.ingest_event('globex', 'llm', 'limit-103', '2026-03-10T00:00:00Z', '{"n":1}')$$) f;
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.ingest_limit_set('globex', 0)$$, $$SELECT billing.ingest_limit_set('globex', -1)$$, $$SELECT billing.ingest_limit_set('globex', 1, 0)$$, $$SELECT billing.ingest_limit_set('globex', 'NaN')$$,
  $$SELECT billing.ingest_limit_set('globex', 1000001)$$, $$SELECT billing.ingest_limit_set('globex', 0.0000001)$$, $$SELECT billing.ingest_limit_set('nobody', 1)$$]) c;
\a \t
SELECT billing.ingest_limit_set('globex', NULL, reason => 'calm again');
SELECT pg_temp.send('globex', 102, 150);
SELECT before, after, reason FROM billing.audit_log WHERE action = 'ingest_limit_set' ORDER BY audit_id;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;

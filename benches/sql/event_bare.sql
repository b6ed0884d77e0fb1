-- pgbench: what one event costs at best, a row in the key table and one in the event table.
\set c random(1, 500)
\set tokens random(1, 4000)
WITH e AS MATERIALIZED (SELECT gen_random_uuid() AS event_key, '2026-06-20Z'::timestamptz + random() * interval '1 day' AS occurred_at),
k AS (INSERT INTO bench.usage_event_key (customer_id, event_key, occurred_at, content_hash) SELECT :c::bigint, e.event_key, e.occurred_at, 0 FROM e ON CONFLICT DO NOTHING)
INSERT INTO bench.usage_event (customer_id, event_key, occurred_at, recorded_at, event_type, event_id, properties)
SELECT :c::bigint, e.event_key, e.occurred_at, clock_timestamp(), 'llm.request', e.event_key::text,
  jsonb_build_object('model', 'model-' || (:c::int % 3), 'region', 'eu', 'tier', 'std', 'input_tokens', :tokens::int, 'output_tokens', :tokens::int, 'tool_calls', 1) FROM e;

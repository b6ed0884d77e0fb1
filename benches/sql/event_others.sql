-- pgbench: one event a transaction of all customers but the first.
\set c random(2, 500)
\set tokens random(1, 4000)
SELECT billing.ingest_event('bench-' || :c::int, 'llm.request', gen_random_uuid()::text, '2026-06-20Z'::timestamptz + random() * interval '1 day',
  jsonb_build_object('model', 'model-' || (:c::int % 3), 'region', 'eu', 'tier', 'std', 'input_tokens', :tokens::int, 'output_tokens', :tokens::int, 'tool_calls', 1));

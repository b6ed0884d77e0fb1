-- pgbench: one event a transaction, as an application sends it.
\set c random(1, 500)
\set tokens random(1, 4000)
SELECT billing.ingest_event('bench-' || :c, gen_random_uuid()::text, 'llm.request', '2026-06-20Z'::timestamptz + random() * interval '1 day',
  jsonb_build_object('model', 'model-' || :c % 3, 'region', 'eu', 'tier', 'std', 'input_tokens', :tokens, 'output_tokens', :tokens, 'tool_calls', 1));

-- A database with something of everything, for scripts/pg17 to carry over.
SET client_min_messages = warning;
SELECT billing.test_clock_set('2024-01-05 00:00:00Z');
SELECT count(*) FROM billing.catalog_apply(billing.catalog_example('llm-api'));
SELECT count(*) FROM billing.catalog_apply('{"meters": [{"key": "users", "event_type": "llm.request", "aggregation": "unique_count", "value": "user_id", "dimensions": ["model"]},
    {"key": "peak", "event_type": "llm.request", "aggregation": "max", "value": "input_tokens"}]}');
SELECT billing.customer_upsert(jsonb_build_object('key', 'c' || n, 'name', 'Ä ' || n, 'time_zone', (ARRAY['UTC', 'America/New_York', 'Asia/Kathmandu'])[1 + n % 3], 'aliases', jsonb_build_array('alias-' || n)))
FROM generate_series(1, 20) n;
SELECT billing.subscribe('c' || n, 'pro', '2024-01-01') FROM generate_series(1, 20) n;
SELECT billing.ingest((SELECT json_agg(json_build_object('customer', 'c' || 1 + n % 20, 'event_id', b || '-' || n, 'event_type', 'llm.request', 'occurred_at', timestamptz '2024-01-01 12:00Z' + (b * 1000 + n) * interval '5 minutes',
    'properties', json_build_object('model', CASE n % 3 WHEN 0 THEN 'gpt-4' ELSE 'gpt-3.5' END, 'user_id', 'u' || n % 50, 'input_tokens', n, 'output_tokens', 7.25))) FROM generate_series(1, 1000) n))
FROM generate_series(0, 14) b;
CALL billing.fold();
SELECT billing.ingest('[{"customer": "nobody", "event_id": "x", "event_type": "llm.request", "occurred_at": "2024-01-05T00:00:00Z", "properties": {}}]');
SELECT billing.test_clock_set('2024-03-02 00:00:00Z');
CALL billing.bill_run('2024-03-01Z');
SELECT billing.invoice_void((SELECT min(number) FROM billing.invoice), 'a mistake');
CALL billing.audit_seal();
-- Not folded.
SELECT billing.ingest_event('c1', 'llm.request', 'late', '2024-03-01 12:00Z', '{"model": "gpt-4", "user_id": "u1", "input_tokens": 5, "output_tokens": 5}');

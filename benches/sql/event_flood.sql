-- pgbench: the first customer, who has a limit; over it, a call fails as a whole.
DO $$
BEGIN
    PERFORM billing.ingest_event('bench-1', 'llm.request', gen_random_uuid()::text, '2026-06-20Z', '{"model": "model-1", "region": "eu", "tier": "std", "input_tokens": 1, "output_tokens": 1}');
EXCEPTION WHEN SQLSTATE 'ZB013' THEN
    NULL;
END
$$;

-- The restored database goes on.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET ROLE billing_app;
SELECT billing.ingest_event('c1', 'llm.request', 'late', '2024-03-01 12:00Z', '{"model": "gpt-4", "user_id": "u1", "input_tokens": 5, "output_tokens": 5}') = 'duplicate' AS again,
    billing.ingest_event('c2', 'llm.request', 'new', '2024-03-01 12:00Z', '{"model": "gpt-4", "user_id": "u1", "input_tokens": 5, "output_tokens": 5}') = 'accepted' AS new \gset
RESET ROLE;
CALL billing.fold();
SELECT billing.test_clock_set('2024-04-02 00:00:00Z');
CALL billing.bill_run('2024-04-01Z');
SELECT :'again' AND :'new' AND count(*) >= 20 AS good FROM billing.invoice WHERE period_starts_at >= '2024-02-28Z' AND number IS NOT NULL \gset
SELECT 1 / (:'good')::boolean::int;
SELECT 1 / (sum(failed) = 0)::int FROM billing.verify('full');

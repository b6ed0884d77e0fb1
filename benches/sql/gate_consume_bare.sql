-- pgbench: what it costs at best, one counter compared and counted up and one row that says why, once per key.
\set c random(1, :customers)
WITH t AS (INSERT INTO bench.consumed (customer, idempotency_key, n, at) VALUES ('use-' || :c::int, gen_random_uuid()::text, 1, clock_timestamp()) ON CONFLICT DO NOTHING RETURNING n)
UPDATE bench.counter b SET used = b.used + t.n FROM t WHERE b.customer = 'use-' || :c::int AND b.feature = 'gate-calls' AND b.used + t.n <= b.quota;

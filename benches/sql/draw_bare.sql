-- pgbench: what a draw costs at best, one balance changed and one row that says why, once per key.
\set c random(1, :customers)
WITH t AS (INSERT INTO bench.transfer (customer_id, idempotency_key, amount, at) VALUES (:c::bigint, gen_random_uuid()::text, 0.05, clock_timestamp()) ON CONFLICT DO NOTHING RETURNING amount)
UPDATE bench.balance b SET left_over = b.left_over - t.amount FROM t WHERE b.customer_id = :c::bigint;

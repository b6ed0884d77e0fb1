-- pgbench: one consume a transaction, of a hard quota.
\set c random(1, :customers)
SELECT result FROM billing.consume('use-' || :c::int, 'gate-calls', 1, gen_random_uuid()::text);

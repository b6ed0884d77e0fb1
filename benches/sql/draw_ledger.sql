-- pgbench: the same on a plain ledger of two tables: a customer's account and one of what it consumed, an entry for each.
\set c random(1, :customers)
WITH t AS MATERIALIZED (SELECT gen_random_uuid() AS id, gen_random_uuid()::text AS key),
e AS (INSERT INTO bench.entry (transfer_id, account_id, amount, idempotency_key, at)
  SELECT t.id, a.account_id, a.amount, a.key, clock_timestamp() FROM t, LATERAL (VALUES (:c::bigint, -0.05, t.key), (:c::bigint + 1000, 0.05, NULL)) a (account_id, amount, key)
  ON CONFLICT DO NOTHING RETURNING account_id, amount)
UPDATE bench.account a SET balance = a.balance + e.amount FROM e WHERE a.account_id = e.account_id;

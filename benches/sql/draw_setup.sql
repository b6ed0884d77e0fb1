-- 1,000 customers with a block of credit each, and the same as bare tables: balances with transfers, and a plain ledger of
-- accounts and entries.
CREATE SCHEMA bench;
SELECT count(billing.customer_upsert(jsonb_build_object('key', 'draw-' || n, 'currency', 'USD'))) FROM generate_series(1, 1000) n;
SELECT count(billing.credit_grant_create('draw-' || n, '{"amount":"1000000000","unit":"credits"}')) FROM generate_series(1, 1000) n;
CREATE TABLE bench.balance (customer_id bigint PRIMARY KEY, left_over numeric NOT NULL CHECK (left_over >= 0)) WITH (fillfactor = 50);
CREATE TABLE bench.transfer (customer_id bigint, idempotency_key text COLLATE "C", amount numeric NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (customer_id, idempotency_key));
INSERT INTO bench.balance SELECT n, 1000000000 FROM generate_series(1, 1000) n;
-- The plain ledger: each account holds its balance, each transfer has two entries.
CREATE TABLE bench.account (account_id bigint PRIMARY KEY, balance numeric NOT NULL) WITH (fillfactor = 50);
CREATE TABLE bench.entry (transfer_id uuid, account_id bigint, amount numeric NOT NULL, idempotency_key text COLLATE "C", at timestamptz NOT NULL, PRIMARY KEY (account_id, transfer_id));
CREATE UNIQUE INDEX ON bench.entry (account_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
INSERT INTO bench.account SELECT n, 1000000000 FROM generate_series(1, 2000) n;
ANALYZE;

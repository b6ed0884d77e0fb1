-- Timed: the run; then inserting the very same finished rows into empty tables of the same shape; then the closed month
-- rated again at another price, each bill compared with what it was.
\set ON_ERROR_STOP on
SELECT clock_timestamp() AS started \gset
CALL billing.bill_run('2026-07-01T00:00:00Z');
SELECT extract(epoch FROM clock_timestamp() - :'started') AS run_seconds \gset
-- The most this backend had in memory of its own (not the shared buffers), in MiB.
SELECT (substring(status FROM 'VmHWM:\s+(\d+)')::bigint - substring(status FROM 'RssShmem:\s+(\d+)')::bigint) / 1024 AS memory
FROM pg_read_file('/proc/self/status') status \gset
CREATE SCHEMA finished;
-- The same columns, indexes, checks and foreign keys.
CREATE TABLE finished.invoice (LIKE billing.invoice INCLUDING ALL);
CREATE TABLE finished.invoice_line (LIKE billing.invoice_line INCLUDING ALL);
CREATE TABLE finished.invoice_number (LIKE billing.invoice_number INCLUDING ALL);
CREATE TABLE finished.audit_log (LIKE billing.audit_log INCLUDING ALL);
CREATE TABLE finished.billing_period (LIKE billing.billing_period INCLUDING ALL);
SELECT format('ALTER TABLE finished.%I ADD %s', c.relname, replace(replace(pg_get_constraintdef(k.oid), ' billing.invoice(', ' finished.invoice('), ' billing.invoice_line(', ' finished.invoice_line('))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE k.contype = 'f' AND k.conparentid = 0 AND c.relnamespace = 'billing'::regnamespace AND to_regclass('finished.' || quote_ident(c.relname)) IS NOT NULL
ORDER BY c.relname, k.conname \gexec
CREATE TEMP TABLE i AS SELECT * FROM billing.invoice WHERE n = 1;
CREATE TEMP TABLE l AS SELECT x.* FROM billing.invoice_line x JOIN billing.invoice v USING (customer_id, invoice_id) WHERE v.n = 1;
CREATE TEMP TABLE u AS SELECT x.* FROM billing.invoice_number x JOIN billing.invoice v USING (customer_id, invoice_id) WHERE v.n = 1;
CREATE TEMP TABLE a AS SELECT x.* FROM billing.audit_log x JOIN billing.invoice v ON v.number = x.key WHERE v.n = 1;
CREATE TEMP TABLE p AS SELECT * FROM billing.billing_period WHERE n = 2;
CHECKPOINT;
SELECT clock_timestamp() AS started \gset
INSERT INTO finished.invoice SELECT * FROM i;
INSERT INTO finished.invoice_line SELECT * FROM l;
INSERT INTO finished.invoice_number SELECT * FROM u;
INSERT INTO finished.audit_log SELECT * FROM a;
INSERT INTO finished.billing_period SELECT * FROM p;
SELECT extract(epoch FROM clock_timestamp() - :'started') AS insert_seconds \gset
SELECT clock_timestamp() AS started \gset
SELECT count(*) AS compared FROM billing.price_backtest('{"price_books": [{"key": "list", "prices": [{"key": "tokens", "meter": "tokens", "pricing": {"model": "per_unit", "per": 1000, "unit_price": "0.02"}}]}]}',
    '2026-06-01T00:00:00Z', '2026-07-01T00:00:00Z') b WHERE b.difference <> 0 \gset
SELECT extract(epoch FROM clock_timestamp() - :'started') AS compare_seconds \gset
SELECT round(:run_seconds, 2), round(:insert_seconds, 2), :memory, round(:compare_seconds, 2), :compared;

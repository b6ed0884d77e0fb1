-- tick(): a round of every job that is due, in one transaction; what it leaves alone, what it leaves out, and for whom.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}],"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"q","meter":"q","pricing":{"model":"per_unit","unit_price":"1"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"q"}],"fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"49"}}]}]}');
-- jobs, in the order in which they run; sample reads tables with its caller's rights and is called by itself
SELECT job, travels FROM billing_internal.jobs() ORDER BY place;
-- what was written by setting up is sealed; nothing else is due
SELECT job, state, did > 0 AS did, remaining, issues FROM billing.tick();
SELECT * FROM billing.tick();
-- … and nothing is written for it
SELECT job, count(*) FROM billing.job_run GROUP BY job ORDER BY job;

-- Boundary 0 is due at once; usage is folded
SELECT billing.customer_upsert('{"key":"acme"}') AS a, billing.subscribe('acme', 'pro', '2026-01-01') AS b \gset
SELECT billing.ingest_event('acme', 'use', 'a1', '2026-01-01T00:00:00Z', '{"n":10}');
SELECT * FROM billing.tick();
SELECT number, total FROM billing.invoice ORDER BY number;
SELECT count(*) AS deltas FROM billing.usage_delta;
-- A contract three boundaries behind gets an invoice for each
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
SELECT job, state, did, remaining, issues FROM billing.tick() WHERE job = 'bill_run';
SELECT number, total, total = CASE n WHEN 1 THEN 59 ELSE 49 END AS ok FROM billing.invoice WHERE n > 0 ORDER BY number;
SELECT job, state, done, total, issues FROM billing.job_run WHERE job = 'bill_run' ORDER BY started_at;
-- A microsecond before a boundary it is not due
SELECT billing.test_clock_set('2026-04-30T23:59:59.999999Z') AS clock \gset
SELECT state FROM billing.tick() WHERE job = 'bill_run';

-- What can't be billed is an issue of the run, and stops nobody
SELECT billing.customer_upsert('{"key":"broken"}') AS a, billing.subscribe('broken', 'pro', '2026-04-30') AS b \gset
UPDATE billing.contract_charge SET terms = terms - 'pricing' WHERE charge_key = 'platform' AND customer_id = (SELECT customer_id FROM billing.customer WHERE key = 'broken');
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
SELECT job, state, did, issues FROM billing.tick() WHERE job = 'bill_run';
SELECT kind, key, sqlstate FROM billing.job_issue i JOIN billing.job_run r USING (job_run_id) WHERE r.job = 'bill_run' ORDER BY 2;
SELECT i.number, k.key FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE i.issued_on = '2026-05-01';

-- Late usage of a contract that has ended
SELECT billing.customer_upsert('{"key":"gone"}') AS a, billing.contract_create('{"key":"gone-1","customer":"gone","plan":"pro","starts_on":"2026-04-01","term":"1 month"}') AS b, billing.contract_activate('gone-1') AS c \gset
SELECT job, state, did FROM billing.tick() WHERE job = 'bill_run';
SELECT state FROM billing.contract WHERE key = 'gone-1';
SELECT billing.ingest_event('gone', 'use', 'g1', '2026-04-20Z', '{"n":7}');
SELECT job, state, did FROM billing.tick() WHERE job IN ('fold', 'bill_run');
SELECT i.kind, i.total FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE c.key = 'gone' ORDER BY i.number;

-- Grace: drafts when the boundary comes, and anew every hour; issued when it has passed
DELETE FROM billing.contract_charge WHERE customer_id = (SELECT customer_id FROM billing.customer WHERE key = 'broken');
SELECT billing.policy_set('invoice_grace', '3 days');
SELECT state FROM billing.tick() WHERE job = 'bill_run';
SELECT billing.test_clock_set('2026-06-01T00:00:00Z') AS clock \gset
SELECT state, did FROM billing.tick() WHERE job = 'bill_run';
SELECT state FROM billing.tick() WHERE job = 'bill_run';
SELECT billing.test_clock_set('2026-06-01T00:59:59Z') AS clock \gset
SELECT state FROM billing.tick() WHERE job = 'bill_run';
SELECT billing.test_clock_set('2026-06-01T01:00:00Z') AS clock \gset
SELECT state FROM billing.tick() WHERE job = 'bill_run';
SELECT state FROM billing.invoice WHERE issued_on = '2026-06-01';
SELECT billing.test_clock_set('2026-06-04T00:00:00Z') AS clock \gset
SELECT state FROM billing.tick() WHERE job = 'bill_run';
SELECT number, state FROM billing.invoice WHERE issued_on = '2026-06-04';

-- Renewal, the day after notice could be given for the last time
SELECT billing.customer_upsert('{"key":"renews"}') AS a, billing.contract_create('{"key":"renews-1","customer":"renews","plan":"pro","starts_on":"2026-06-01","term":"2 months","renewal":{"auto":true,"notice_days":30}}') AS b, billing.contract_activate('renews-1') AS c \gset
SELECT contract, notice_deadline, renews_on FROM billing.renewals_due();
SELECT billing.test_clock_set('2026-07-02T23:59:59Z') AS clock \gset
SELECT job, state FROM billing.tick() WHERE job = 'renewal';
SELECT billing.test_clock_set('2026-07-03T00:00:00Z') AS clock \gset
SELECT job, state, did, remaining, issues FROM billing.tick() WHERE job = 'renewal';
SELECT ends_on FROM billing.contract WHERE key = 'renews-1';
SELECT job, state FROM billing.tick() WHERE job = 'renewal';

-- Retention, once a day
SELECT job, state FROM billing.tick() WHERE job = 'retention';
SELECT billing.event_retention_set('use', '5 years');
SELECT job, state, did, remaining FROM billing.tick() WHERE job = 'retention';
SELECT job, state FROM billing.tick() WHERE job = 'retention';
-- … one that a round did not end goes on where it stopped
UPDATE billing.job_run SET state = 'running', finished_at = NULL, result = '{"months":["2026-01-01T00:00:00+00:00"],"block":0}' WHERE job = 'retention';
SELECT job, state, remaining FROM billing.tick() WHERE job = 'retention';
SELECT state, result->'months' AS months FROM billing.job_run WHERE job = 'retention';

-- A job that fails says why and stops no other
ALTER TABLE billing.audit_seal RENAME COLUMN sealed_at TO was_sealed_at;
SELECT job, state, did, remaining, issues FROM billing.tick() WHERE job = 'audit_seal';
ALTER TABLE billing.audit_seal RENAME COLUMN was_sealed_at TO sealed_at;
SELECT r.job, r.state, i.kind, i.key, i.sqlstate, i.message FROM billing.job_run r JOIN billing.job_issue i USING (job_run_id) WHERE r.job = 'audit_seal';
\a \t
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.fails('SELECT * FROM billing.tick()');
ROLLBACK;
\a \t
CREATE FUNCTION billing_internal.breaks(run uuid) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'it broke' USING HINT = 'Mend it.', DETAIL = 'here'; END $$;
SELECT * FROM billing_internal.job_round('breaks', 'now()', NULL, 'billing_internal.breaks($1)', '1 second');
SELECT r.job, r.state, i.kind, i.key, i.sqlstate, i.message, i.detail, i.hint FROM billing.job_run r JOIN billing.job_issue i USING (job_run_id) WHERE r.job = 'breaks';
-- … one that gets nowhere is not waited for, and one that gets on has its time
CREATE FUNCTION billing_internal.waits(run uuid) RETURNS bigint LANGUAGE sql AS $$ SELECT 1 FROM pg_sleep(0.01) $$;
SELECT * FROM billing_internal.job_round('waits', 'now()', NULL, 'billing_internal.waits($1)', '200 milliseconds');
CREATE FUNCTION billing_internal.works(run uuid) RETURNS bigint LANGUAGE sql AS $$ UPDATE billing.job_run SET done = done + 1 FROM pg_sleep(0.01) WHERE job_run_id = run; SELECT 9 $$;
SELECT state, did > 3 AS did, remaining, issues FROM billing_internal.job_round('works', 'now()', NULL, 'billing_internal.works($1)', '200 milliseconds');

-- For operators and finance
SET ROLE billing_operator;
SELECT count(*) FROM billing.tick();
SET ROLE billing_finance;
SELECT count(*) FROM billing.tick();
SET ROLE billing_app;
\a \t
SELECT pg_temp.fails('SELECT * FROM billing.tick()');
\a \t
RESET ROLE;
SELECT * FROM billing.verify('full') WHERE failed <> 0;

-- Three quarters under the test clock: usage, then a round of the jobs at the boundary; the balance just before and just after.
\i use.sql
CREATE TEMP TABLE balance (on_day date, posted numeric, pending numeric, available numeric, tick text);
CREATE PROCEDURE pg_temp.look(ticked text DEFAULT NULL) LANGUAGE sql AS $$
    INSERT INTO balance SELECT billing.now() AT TIME ZONE 'America/New_York', trim_scale(posted), trim_scale(pending), trim_scale(available), ticked FROM billing.credit_balance('acme') $$;
CREATE PROCEDURE pg_temp.go_on(at timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    ticked text;
BEGIN
    PERFORM billing.test_clock_set(at);
    SELECT string_agg(job || ' ' || did, ', ' ORDER BY job) INTO ticked FROM billing.tick() WHERE did > 0 AND job <> 'audit_seal';
    CALL pg_temp.look(ticked);
END
$$;
CALL pg_temp.go_on('2026-01-01T00:00:00-05:00');
SELECT billing.test_clock_set('2026-03-31T23:59:59-04:00') AS clock, pg_temp.use('2026-01-01', 1200000000, 2000000000) AS events \gset
CALL pg_temp.look();
CALL pg_temp.go_on('2026-04-01T00:00:00-04:00');
SELECT billing.test_clock_set('2026-06-30T23:59:59-04:00') AS clock, pg_temp.use('2026-04-01', 1800000000, 3000000000) AS events \gset
CALL pg_temp.look();
CALL pg_temp.go_on('2026-07-01T00:00:00-04:00');
SELECT billing.test_clock_set('2026-09-30T23:59:59-04:00') AS clock, pg_temp.use('2026-07-01', 2100000000, 4500000000) AS events \gset
CALL pg_temp.look();
CALL pg_temp.go_on('2026-10-01T00:00:00-04:00');
SELECT * FROM balance;
SELECT i.number, i.issued_on, (SELECT string_agg((l->>'label') || ' ' || (l->>'amount'), ', ' ORDER BY place) FROM jsonb_array_elements(i.document->'lines') WITH ORDINALITY x (l, place)) AS lines,
    i.document#>>'{totals,credits}' AS credits, i.document#>>'{totals,due}' AS due
FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'acme-2026' ORDER BY i.issued_on;

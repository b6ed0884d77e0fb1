-- Rate limits under the test clock, which keeps them in rows: the numbers of rules.md 9, and what a limit can't be.
\set ECHO none
\i tests/pg_regress/helpers.sql
CREATE FUNCTION pg_temp.arrivals(rate numeric, burst numeric, per interval, millis int[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    ms int;
    r record;
BEGIN
    FOREACH ms IN ARRAY millis LOOP
        PERFORM billing.test_clock_set('2026-03-01 00:00+00'::timestamptz + ms * interval '1 millisecond');
        SELECT * INTO r FROM billing_internal.rate_take(1, 1, rate, burst, per => per);
        RETURN NEXT format('%s ms: %s, %s left%s', ms, r.allowed, r.remaining, CASE WHEN NOT r.allowed THEN ', in ' || r.retry_after END);
    END LOOP;
END
$$;
\set ECHO all
-- 10/s, burst 5, arrivals (ms) 0×6, 100, 150, 200 → ✓✓✓✓✓✗✓✗✓
SELECT a AS arrival FROM pg_temp.arrivals(10, 5, '1 second', '{0,0,0,0,0,0,100,150,200}') a;
SELECT string_agg(CASE WHEN a LIKE '%: t,%' THEN '✓' ELSE '✗' END, '') AS got, '✓✓✓✓✓✗✓✗✓' AS want, string_agg(CASE WHEN a LIKE '%: t,%' THEN '✓' ELSE '✗' END, '') = '✓✓✓✓✓✗✓✗✓' AS ok
FROM pg_temp.arrivals(10, 5, '1 second', '{10000,10000,10000,10000,10000,10000,10100,10150,10200}') a;
-- A hundred a minute is one in 0.6 seconds, exactly.
SELECT a AS arrival FROM pg_temp.arrivals(100, 1, '1 minute', '{20000,20599,20600,21199,21200}') a;
-- What costs more, what costs more than fits, and a look that takes nothing.
SELECT billing.test_clock_set('2026-03-01 01:00+00') AS clock \gset
SELECT * FROM billing_internal.rate_take(2, 1, 10, 5, 3);
SELECT * FROM billing_internal.rate_take(2, 1, 10, 5, 2.5, dry => true);
SELECT * FROM billing_internal.rate_take(2, 1, 10, 5, 2, dry => true);
SELECT * FROM billing_internal.rate_take(2, 1, 10, 5, 2);
SELECT * FROM billing_internal.rate_take(2, 1, 10, 5, 6);
-- Another feature, another customer: their own.
SELECT a.allowed, b.allowed FROM billing_internal.rate_take(2, 2, 10, 5, 5) a, billing_internal.rate_take(3, 1, 10, 5, 5) b;
-- In a row, what was taken is given back with the transaction.
BEGIN;
SELECT * FROM billing_internal.rate_take(4, 1, 1, 1);
SELECT * FROM billing_internal.rate_take(4, 1, 1, 1);
ROLLBACK;
SELECT * FROM billing_internal.rate_take(4, 1, 1, 1);
-- A limit that is set anew keeps what has not drained.
SELECT * FROM billing_internal.rate_take(4, 1, 60, 2, per => '1 minute');
SELECT * FROM billing_internal.rate_take(4, 1, 60, 2, per => '1 minute');
SELECT pg_temp.fails($$SELECT billing_internal.rate_take(4, 1, 0, 1)$$);
SELECT pg_temp.fails($$SELECT billing_internal.rate_take(4, 1, 1, 0)$$);
SELECT pg_temp.fails($$SELECT billing_internal.rate_take(4, 1, 1, 1, -1)$$);
SELECT pg_temp.fails($$SELECT billing_internal.rate_take(4, 1, 1, 1, per => '2 years')$$);

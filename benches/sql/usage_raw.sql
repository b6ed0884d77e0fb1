-- Milliseconds of the same answer from the raw events, as typed columns in a plain table with an index.
\set ON_ERROR_STOP on
CREATE FUNCTION pg_temp.timed() RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz := clock_timestamp();
BEGIN
    PERFORM date_trunc('day', r.occurred_at, 'UTC'), r.region, sum(r.bytes), count(*) FROM bench.raw r
    WHERE r.customer_id = (SELECT c.customer_id FROM billing.customer c WHERE c.key = 'many') AND r.occurred_at >= '2026-06-01Z' AND r.occurred_at < '2026-07-01Z' GROUP BY 1, 2;
    RETURN round(1000 * extract(epoch FROM clock_timestamp() - started), 3);
END
$$;
SELECT pg_temp.timed() FROM generate_series(1, 3);

-- Milliseconds of usage() of a customer-month by day, thirty times in a warm session.
\set ON_ERROR_STOP on
DO $$ BEGIN PERFORM billing.usage('many', 'bytes', '2026-06-01Z', '2026-07-01Z', 'day', '{region}') FROM generate_series(1, 10); END $$;
CREATE FUNCTION pg_temp.timed(customer text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz := clock_timestamp();
BEGIN
    PERFORM FROM billing.usage(customer, 'bytes', '2026-06-01Z', '2026-07-01Z', 'day', '{region}');
    RETURN round(1000 * extract(epoch FROM clock_timestamp() - started), 3);
END
$$;
SELECT pg_temp.timed(:'customer') FROM generate_series(1, 30);

-- Limits: how often (rate limits), and for how much money or how many units (spend limits and budgets).
--
-- Rate limits are GCRA (src/domain/entitlements/gcra.rs) on a state that shared memory holds, or a row where it doesn't. Limits on
-- money and units have no counter: what was used is asked of usage and bills. Who consumes locks the hard limits that apply, by
-- id ascending, after the locks of entitlements and before those of ingest.

-- ── rate limits ──────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.rate_shared(customer_id bigint, feature_id int, rate numeric, period bigint, burst numeric, cost numeric, dry boolean)
    RETURNS TABLE (allowed boolean, wait bigint, remaining numeric)
    LANGUAGE c VOLATILE ROWS 1 AS 'MODULE_PATHNAME', 'rate_shared_wrapper';
COMMENT ON FUNCTION billing_internal.rate_shared(bigint, int, numeric, bigint, numeric, numeric, boolean) IS 'A request in shared memory: whether it passes, in how many microseconds it would (NULL = never), what may still come at once. No row where it is not preloaded, has no room, or the clock stands still; nor where rate_error() says why. dry: takes nothing.';

CREATE FUNCTION billing_internal.rate_step(level text, level_period bigint, level_at timestamptz, rate numeric, period bigint, burst numeric, cost numeric, at timestamptz)
    RETURNS TABLE (allowed boolean, wait bigint, remaining numeric, level text, level_period bigint, level_at timestamptz)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'rate_step_wrapper';
COMMENT ON FUNCTION billing_internal.rate_step(text, bigint, timestamptz, numeric, bigint, numeric, numeric, timestamptz) IS 'A request on a state that the caller keeps (NULL = none yet), and what stands then. No row where rate_error() says why.';

CREATE FUNCTION billing_internal.rate_error(rate numeric, period bigint, burst numeric, cost numeric) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rate_error_wrapper';
COMMENT ON FUNCTION billing_internal.rate_error(numeric, bigint, numeric, numeric) IS 'Why a rate limit or the cost of a request can''t be, as JSON; NULL if they can.';

CREATE FUNCTION billing_internal.rates_use() RETURNS TABLE (used bigint, size bigint, "full" bigint)
    LANGUAGE c VOLATILE ROWS 1 AS 'MODULE_PATHNAME', 'rates_use_wrapper';
COMMENT ON FUNCTION billing_internal.rates_use() IS 'Slots of shared memory in use by all databases, slots there are, and how often there was no room; no row where it is not preloaded.';

CREATE FUNCTION billing_internal.clock_stands_still() RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'clock_stands_still_wrapper';
COMMENT ON FUNCTION billing_internal.clock_stands_still() IS 'Whether billing.now() is not the real clock: a test clock, or a transaction that travels.';

CREATE FUNCTION billing_internal.rate_row(of_customer_id bigint, of_feature_id int, rate numeric, period bigint, burst numeric, cost numeric, dry boolean,
    OUT allowed boolean, OUT wait bigint, OUT remaining numeric)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    at timestamptz := CASE WHEN billing_internal.clock_stands_still() THEN billing.now() ELSE clock_timestamp() END;
    left_over numeric;
BEGIN
    -- Looked at first, without a lock: who is refused waits for nobody.
    SELECT s.allowed, s.wait, s.remaining INTO allowed, wait, remaining
    FROM (SELECT) one LEFT JOIN billing.rate_state r ON r.customer_id = of_customer_id AND r.feature_id = of_feature_id
    CROSS JOIN LATERAL billing_internal.rate_step(r.level::text, r.level_period, r.level_at, rate, period, burst, cost, at) s;
    IF NOT allowed OR dry OR billing_internal.travelling() THEN
        RETURN;
    END IF;
    LOOP
        -- Whoever had the row before has committed: what he took is counted when the condition is checked again.
        UPDATE billing.rate_state r SET (level, level_period, level_at) = (SELECT s.level::numeric, s.level_period, s.level_at
            FROM billing_internal.rate_step(r.level::text, r.level_period, r.level_at, rate, period, burst, cost, at) s)
        WHERE r.customer_id = of_customer_id AND r.feature_id = of_feature_id
            AND (SELECT s.allowed FROM billing_internal.rate_step(r.level::text, r.level_period, r.level_at, rate, period, burst, cost, at) s)
        RETURNING (SELECT s.remaining FROM billing_internal.rate_step(r.level::text, r.level_period, r.level_at, rate, period, burst, 0, at) s) INTO left_over;
        IF FOUND THEN
            remaining := left_over;
            RETURN;
        END IF;
        INSERT INTO billing.rate_state (customer_id, feature_id, level, level_period, level_at)
        SELECT of_customer_id, of_feature_id, s.level::numeric, s.level_period, s.level_at FROM billing_internal.rate_step(NULL, NULL, NULL, rate, period, burst, cost, at) s
        ON CONFLICT ON CONSTRAINT rate_state_pkey DO NOTHING;
        IF FOUND THEN
            RETURN;
        END IF;
        SELECT s.allowed, s.wait, s.remaining INTO allowed, wait, remaining
        FROM billing.rate_state r CROSS JOIN LATERAL billing_internal.rate_step(r.level::text, r.level_period, r.level_at, rate, period, burst, cost, at) s
        WHERE r.customer_id = of_customer_id AND r.feature_id = of_feature_id;
        EXIT WHEN NOT allowed;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.rate_row(bigint, int, numeric, bigint, numeric, numeric, boolean) IS
    'A request on the row of a customer and feature in rate_state. One that passes holds the row until its transaction ends, and gives back what it took if that is rolled back; one that is refused locks nothing.';

CREATE FUNCTION billing_internal.rate_take(of_customer_id bigint, of_feature_id int, rate numeric, burst numeric, cost numeric DEFAULT 1, dry boolean DEFAULT false,
    per interval DEFAULT '1 second', OUT allowed boolean, OUT retry_after interval, OUT remaining numeric)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    period bigint := (extract(epoch FROM per) * 1000000)::bigint;
    wait bigint;
BEGIN
    SELECT s.allowed, s.wait, s.remaining INTO allowed, wait, remaining FROM billing_internal.rate_shared(of_customer_id, of_feature_id, rate, period, burst, cost, dry) s;
    IF NOT FOUND THEN
        PERFORM billing_internal.raise_fault(f::jsonb) FROM billing_internal.rate_error(rate, period, burst, cost) f WHERE f IS NOT NULL;
        SELECT s.allowed, s.wait, s.remaining INTO allowed, wait, remaining FROM billing_internal.rate_row(of_customer_id, of_feature_id, rate, period, burst, cost, dry) s;
    END IF;
    retry_after := CASE WHEN allowed THEN interval '0' WHEN wait IS NOT NULL THEN wait * interval '1 microsecond' END;
END
$$;
COMMENT ON FUNCTION billing_internal.rate_take(bigint, int, numeric, numeric, numeric, boolean, interval) IS
    'Takes a request that costs so much off a rate limit of rate per a length of time and burst at once, all or nothing: in shared memory where it is preloaded (then a rollback gives nothing back), else in rate_state. retry_after: 0 if it passed, NULL if it never can. dry: only looks. Errors: ZB004 a limit or cost that can''t be.';

CREATE FUNCTION billing.worker_status() RETURNS TABLE (part text, state text, used bigint, size bigint, detail text, hint text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shared record;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO shared FROM billing_internal.rates_use();
    IF FOUND THEN
        RETURN QUERY VALUES ('rate_limits', CASE WHEN billing_internal.clock_stands_still() THEN 'row' ELSE 'shared memory' END, shared.used, shared.size,
            CASE WHEN billing_internal.clock_stands_still() THEN 'the clock is not the real one: rate limits are kept in billing.rate_state' ELSE format('of all databases; %s requests found no room and went to billing.rate_state', shared."full") END,
            CASE WHEN shared."full" > 0 THEN 'Raise billing.rate_limit_slots in postgresql.conf and restart the server.' END);
    ELSE
        RETURN QUERY SELECT 'rate_limits', 'row', (SELECT count(*) FROM billing.rate_state), NULL::bigint, 'the library is not preloaded: rate limits are kept in billing.rate_state',
            'Put shared_preload_libraries = ''pg_billing'' into postgresql.conf and restart the server: rate limits get faster and wait for no transaction.';
    END IF;
END
$$;
COMMENT ON FUNCTION billing.worker_status() IS 'What of pg_billing lives in the server rather than in tables, and how it is: a row a part. rate_limits: whether their state is in shared memory or in rows, slots used and slots there are.';

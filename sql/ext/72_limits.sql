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

CREATE FUNCTION billing_internal.rate_shared_look(customer_id bigint, feature_id int, rate numeric, period bigint, burst numeric, cost numeric)
    RETURNS TABLE (allowed boolean, wait bigint, remaining numeric)
    LANGUAGE c STABLE ROWS 1 AS 'MODULE_PATHNAME', 'rate_shared_look_wrapper';
COMMENT ON FUNCTION billing_internal.rate_shared_look(bigint, int, numeric, bigint, numeric, numeric) IS 'rate_shared() that takes nothing: for readers.';

CREATE FUNCTION billing_internal.rate_step(level text, level_period bigint, level_at timestamptz, rate numeric, period bigint, burst numeric, cost numeric, at timestamptz)
    RETURNS TABLE (allowed boolean, wait bigint, remaining numeric, level text, level_period bigint, level_at timestamptz)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'rate_step_wrapper';
COMMENT ON FUNCTION billing_internal.rate_step(text, bigint, timestamptz, numeric, bigint, numeric, numeric, timestamptz) IS 'A request on a state that the caller keeps (NULL = none yet), and what stands then. No row where rate_error() says why.';

CREATE FUNCTION billing_internal.rate_error(rate numeric, period bigint, burst numeric, cost numeric) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rate_error_wrapper';
COMMENT ON FUNCTION billing_internal.rate_error(numeric, bigint, numeric, numeric) IS 'Why a rate limit or the cost of a request can''t be, as JSON; NULL if they can.';

CREATE FUNCTION billing_internal.rates_use() RETURNS TABLE (used bigint, size bigint, "full" bigint)
    LANGUAGE c STABLE ROWS 1 AS 'MODULE_PATHNAME', 'rates_use_wrapper';
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

CREATE FUNCTION billing_internal.rate_peek(of_customer_id bigint, of_feature_id int, rate numeric, burst numeric, cost numeric, per interval, OUT allowed boolean, OUT retry_after interval, OUT remaining numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    period bigint := (extract(epoch FROM per) * 1000000)::bigint;
    wait bigint;
BEGIN
    SELECT s.allowed, s.wait, s.remaining INTO allowed, wait, remaining FROM billing_internal.rate_shared_look(of_customer_id, of_feature_id, rate, period, burst, cost) s;
    IF NOT FOUND THEN
        PERFORM billing_internal.raise_fault(f::jsonb) FROM billing_internal.rate_error(rate, period, burst, cost) f WHERE f IS NOT NULL;
        SELECT s.allowed, s.wait, s.remaining INTO allowed, wait, remaining
        FROM (SELECT) one LEFT JOIN billing.rate_state r ON r.customer_id = of_customer_id AND r.feature_id = of_feature_id
        CROSS JOIN LATERAL billing_internal.rate_step(r.level::text, r.level_period, r.level_at, rate, period, burst, cost,
            CASE WHEN billing_internal.clock_stands_still() THEN billing.now() ELSE clock_timestamp() END) s;
    END IF;
    retry_after := CASE WHEN allowed THEN interval '0' WHEN wait IS NOT NULL THEN wait * interval '1 microsecond' END;
END
$$;
COMMENT ON FUNCTION billing_internal.rate_peek(bigint, int, numeric, numeric, numeric, interval) IS 'What rate_take() would say. Errors: ZB004 a limit or cost that can''t be.';

CREATE FUNCTION billing_internal.customer_rate(of_customer_id bigint, of_feature_id int, rate numeric, burst numeric, cost numeric, per interval) RETURNS TABLE (allowed boolean, retry_after interval, remaining numeric)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT billing_internal.may_see(of_customer_id) THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT p.* FROM billing_internal.rate_peek(of_customer_id, of_feature_id, rate, burst, cost, per) p;
END
$$;
COMMENT ON FUNCTION billing_internal.customer_rate(bigint, int, numeric, numeric, numeric, interval) IS 'What rate_take() would say, for those who may see the customer: shared memory has no row security. Nothing for others. Errors: ZB004 a limit or cost that can''t be.';

CREATE FUNCTION billing_internal.rate_look(of_customer_id bigint, of_feature_id int, rate numeric, burst numeric, cost numeric, per interval, OUT allowed boolean, OUT retry_after interval, OUT remaining numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
BEGIN
    IF billing_internal.asks_for_itself() THEN
        SELECT p.* INTO r FROM billing_internal.customer_rate(of_customer_id, of_feature_id, rate, burst, cost, per) p;
    ELSE
        r := billing_internal.rate_peek(of_customer_id, of_feature_id, rate, burst, cost, per);
    END IF;
    allowed := r.allowed;
    retry_after := r.retry_after;
    remaining := r.remaining;
END
$$;
COMMENT ON FUNCTION billing_internal.rate_look(bigint, int, numeric, numeric, numeric, interval) IS 'What rate_take() would say, with the rights of a reader. Errors: ZB004 a limit or cost that can''t be.';

CREATE FUNCTION billing.rate_limit(customer text, feature text, cost numeric DEFAULT 1, OUT allowed boolean, OUT reason text, OUT retry_after interval, OUT remaining numeric)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    by_key text := customer;
    at timestamptz := billing_internal.moment();
    s record;
    r record;
BEGIN
    IF (billing_internal.require_installed() IS NULL) IS NULL THEN -- an expression, which costs less than PERFORM
        RETURN;
    END IF;
    IF (cost >= 0 AND cost < 1e28) IS NOT TRUE THEN
        PERFORM billing_internal.refuse_quantity(cost, 'taken off a rate limit', 'Give what the request costs: 0 or more, as a rule 1.');
    END IF;
    LOOP
        SELECT c.customer_id, f.feature_id, f.key, f.kind, e.suspended, e.rate INTO s
        FROM billing.customer c CROSS JOIN billing.feature f
        LEFT JOIN billing.entitlement_state e ON e.customer_id = c.customer_id AND e.feature_id = f.feature_id AND e.valid_during @> at
        WHERE c.key = by_key AND f.key = rate_limit.feature;
        EXIT WHEN FOUND;
        -- By an alias or id, or this raises.
        SELECT c.key INTO by_key FROM billing.customer c WHERE c.customer_id = billing_internal.find_customer(rate_limit.customer);
        PERFORM billing_internal.find_feature(rate_limit.feature);
    END LOOP;
    IF s.kind <> 'rate_limit' THEN
        PERFORM billing_internal.fail('ZB005', format('feature %s is of kind %s', s.key, s.kind), 'billing.consume() counts what has a quota; rate_limit() is for features of kind rate_limit.');
    ELSIF s.suspended IS NOT FALSE OR s.rate IS NULL THEN
        allowed := false;
        reason := CASE WHEN s.suspended THEN 'suspended' ELSE 'not_entitled' END;
        RETURN;
    END IF;
    r := billing_internal.rate_take(s.customer_id, s.feature_id, (s.rate->>'limit')::numeric, (s.rate->>'burst')::numeric, cost, false, (s.rate->>'per')::interval);
    allowed := r.allowed;
    reason := CASE WHEN r.allowed THEN 'allowed' ELSE 'rate_limited' END;
    retry_after := r.retry_after;
    remaining := r.remaining;
END
$$;
COMMENT ON FUNCTION billing.rate_limit(text, text, numeric) IS
    'Takes a request that costs so much off a customer''s rate limit of a feature, as the entitlement says ({"limit","per","burst"}): allowed, or rate_limited with the time after which it would pass (NULL = never: it costs more than the burst), not_entitled, suspended. Writes no row where the server preloads pg_billing; then a rollback gives nothing back, and each server has limits of its own. Errors: ZB001, ZB004 the cost, ZB005 the feature is no rate limit.';

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

-- ── documents ────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.limit_document(kind text, doc text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'limit_document_wrapper';
COMMENT ON FUNCTION billing_internal.limit_document(text, text) IS 'The canonical text of the document of a limit or rule whose form is right, else NULL. Kinds: spend_limit, budget, alert_rule.';

CREATE FUNCTION billing_internal.limit_document_error(kind text, doc text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'limit_document_error_wrapper';
COMMENT ON FUNCTION billing_internal.limit_document_error(text, text) IS 'The fault that limit_document() found, as JSON.';

CREATE FUNCTION billing_internal.read_limit_document(kind text, doc jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text;
BEGIN
    IF doc IS NULL THEN
        PERFORM billing_internal.fail('ZB003', format('the document of the %s is NULL', replace(kind, '_', ' ')), 'Pass a JSON object.');
    END IF;
    result := billing_internal.limit_document(kind, doc::text);
    IF result IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.limit_document_error(kind, doc::text)::jsonb);
    END IF;
    RETURN result::jsonb;
END
$$;
COMMENT ON FUNCTION billing_internal.read_limit_document(text, jsonb) IS 'Checks the form of the document of a limit or rule. Errors: ZB003 with the JSON path, ZB004.';

CREATE FUNCTION billing_internal.check_limit_target(of_customer_id bigint, of_meter_id int, match jsonb, bill_to text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT k FROM jsonb_object_keys(match) k WHERE k <> 'bill_to' OR of_meter_id IS NULL ORDER BY k LOOP
        IF NOT EXISTS (SELECT FROM billing.meter m WHERE (of_meter_id IS NULL OR m.meter_id = of_meter_id) AND name = ANY (m.dimensions)) THEN
            PERFORM billing_internal.fail('ZB003', format('match.%s: is no dimension of %s', name, coalesce((SELECT 'meter ' || m.key FROM billing.meter m WHERE m.meter_id = of_meter_id), 'any meter')),
                'SELECT key, dimensions FROM billing.meter; lists them.');
        END IF;
    END LOOP;
    IF bill_to IS NOT NULL AND NOT EXISTS (SELECT FROM billing.bill_to b WHERE b.customer_id = of_customer_id AND b.key = check_limit_target.bill_to) THEN
        PERFORM billing_internal.fail('ZB001', format('bill_to: the customer has no legal entity %s', quote_literal(bill_to)), 'SELECT key FROM billing.bill_to; lists them.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_limit_target(bigint, int, jsonb, text) IS 'Errors: ZB003 a dimension that no meter (or not that one) has, ZB001 an unknown legal entity.';

-- ── setting ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.limit_set(of_kind text, customer text, doc jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    c record;
    d jsonb;
    old record;
    of_meter_id int;
    said text := replace(of_kind, '_', ' ');
BEGIN
    PERFORM billing_internal.require_installed();
    d := billing_internal.read_limit_document(of_kind, doc);
    of_customer_id := billing_internal.find_customer(customer);
    -- Two changes of one customer don't race for a key.
    SELECT * INTO c FROM billing.customer x WHERE x.customer_id = of_customer_id FOR NO KEY UPDATE;
    SELECT * INTO old FROM billing.spend_limit l WHERE l.customer_id = of_customer_id AND l.key = d->>'key' AND l.ended_at IS NULL;
    IF old.kind <> of_kind THEN
        PERFORM billing_internal.fail('ZB005', format('%s of customer %s is a %s', d->>'key', c.key, replace(old.kind, '_', ' ')), 'Give another key, or end that one.');
    ELSIF (d->>'end')::boolean IS TRUE AND old.limit_id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('customer %s has no %s %s', c.key, said, quote_literal(d->>'key')), format('SELECT * FROM billing.%ss(%L); lists them.', of_kind, c.key));
    END IF;
    UPDATE billing.spend_limit l SET ended_at = clock_timestamp() WHERE l.customer_id = of_customer_id AND l.limit_id = old.limit_id;
    IF (d->>'end')::boolean IS NOT TRUE THEN
        of_meter_id := CASE WHEN d ? 'meter' THEN billing_internal.find_meter(d->>'meter') END;
        PERFORM billing_internal.check_limit_target(of_customer_id, of_meter_id, coalesce(d->'match', '{}'), d->>'bill_to');
        IF d ? 'currency' THEN
            PERFORM billing_internal.check_currency(d->>'currency', (billing.now() AT TIME ZONE c.time_zone)::date);
        END IF;
        INSERT INTO billing.spend_limit (customer_id, limit_id, key, kind, bill_to, match, meter_id, currency, amount, period, mode, reason, set_at, set_by)
        VALUES (of_customer_id, billing_internal.uuid_v7(), d->>'key', of_kind, d->>'bill_to', coalesce(d->'match', '{}'), of_meter_id, CASE WHEN of_meter_id IS NULL THEN coalesce(d->>'currency', c.currency) END,
            (d->>'amount')::numeric, d->>'period', coalesce(d->>'mode', 'hard'), d->>'reason', clock_timestamp(), billing_internal.caller());
    END IF;
    PERFORM billing_internal.audit(of_kind || '_set', 'customer', c.key, of_customer_id,
        CASE WHEN old.limit_id IS NOT NULL THEN jsonb_strip_nulls(jsonb_build_object('key', old.key, 'amount', old.amount, 'period', old.period, 'mode', old.mode, 'bill_to', old.bill_to, 'match', nullif(old.match, '{}'))) END,
        d - 'reason', d->>'reason');
END
$$;
COMMENT ON FUNCTION billing_internal.limit_set(text, text, jsonb) IS 'spend_limit_set() and budget_set().';

CREATE FUNCTION billing.spend_limit_set(customer text, doc jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.limit_set('spend_limit', customer, doc);
END
$$;
COMMENT ON FUNCTION billing.spend_limit_set(text, jsonb) IS
    'Limits what a customer''s usage may cost: {"key", "amount", "period": "day" | "week" | "month" (of the customer''s zone) | "billing_period", "mode": "hard" (the default: what would go beyond is denied) | "soft" (allowed, and said), "bill_to" (a legal entity), "match" (values of dimensions), "currency" (the customer''s), "reason"}. What counts is usage at its price, before it is rounded and before credit, billed or not; fees and true-ups do not. Takes the place of the limit with that key; {"key","end":true} ends it. Asked by entitled(), entitlement_check() and consume(); ingest refuses nothing. Errors: ZB001 customer, legal entity, currency, ZB003, ZB004, ZB005.';

CREATE FUNCTION billing.budget_set(customer text, doc jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.limit_set('budget', customer, doc);
END
$$;
COMMENT ON FUNCTION billing.budget_set(text, jsonb) IS
    'Gives an API key, a project, a user, or whatever else is a dimension, a budget: as spend_limit_set(), with a "match" such as {"api_key":"k1"}; with a "meter" the amount is in its units instead of money. {"key","end":true} ends it. Errors: ZB001, ZB003, ZB004, ZB005.';

-- ── what was used ────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.limit_window(of_customer_id bigint, period text, at timestamptz, OUT starts_at timestamptz, OUT ends_at timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    zone text;
    day timestamp;
BEGIN
    IF period = 'billing_period' THEN
        SELECT billing_internal.local_midnight(b.starts_on, k.time_zone), billing_internal.local_midnight(b.ends_on, k.time_zone) INTO starts_at, ends_at
        FROM billing.contract k
        CROSS JOIN LATERAL billing_internal.calendar_period_at(k.starts_on, k.ends_on, k.billed_every, k.alignment, (at AT TIME ZONE k.time_zone)::date) b
        WHERE k.customer_id = of_customer_id AND k.state IN ('scheduled', 'active', 'paused') ORDER BY k.starts_on, k.key LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
        period := 'month';
    END IF;
    SELECT c.time_zone INTO zone FROM billing.customer c WHERE c.customer_id = of_customer_id;
    day := date_trunc(period, at AT TIME ZONE zone);
    starts_at := day AT TIME ZONE zone;
    ends_at := (day + ('1 ' || period)::interval) AT TIME ZONE zone;
END
$$;
COMMENT ON FUNCTION billing_internal.limit_window(bigint, text, timestamptz) IS 'The period of a limit that holds an instant: a day, week or month of the customer''s zone, or the billing period of the customer''s oldest live contract (without one, the month).';

CREATE FUNCTION billing_internal.uses(of_customer_id bigint, asked jsonb) RETURNS TABLE (id text, used numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    from_at timestamptz;
    until_at timestamptz;
BEGIN
    RETURN QUERY
    SELECT a.id, coalesce((SELECT q.quantity FROM billing_internal.usage_window(of_customer_id, a.meter_id, a.from_at, a.until_at, coalesce(a.filter, '{}')) q), 0)
    FROM jsonb_to_recordset(asked) a (id text, meter_id int, filter jsonb, from_at timestamptz, until_at timestamptz) WHERE a.meter_id IS NOT NULL;
    SELECT min(a.from_at), max(a.until_at) INTO from_at, until_at FROM jsonb_to_recordset(asked) a (meter_id int, from_at timestamptz, until_at timestamptz) WHERE a.meter_id IS NULL;
    IF from_at IS NULL THEN
        RETURN;
    END IF;
    -- One preview answers all that is asked in money.
    RETURN QUERY
    WITH ask AS (
        SELECT a.id, a.currency, coalesce(a.filter, '{}') AS filter, a.scope, a.bill_to, a.contract_id, a.from_at, a.until_at
        FROM jsonb_to_recordset(asked) a (id text, meter_id int, currency text, filter jsonb, scope jsonb, bill_to text, contract_id uuid, from_at timestamptz, until_at timestamptz) WHERE a.meter_id IS NULL
    ), line AS MATERIALIZED (
        SELECT l.*, m.key AS meter, m.aggregation, m.state AS meter_state FROM billing_internal.spend_lines(of_customer_id, from_at, until_at, until_at) l LEFT JOIN billing.meter m USING (meter_id)
        WHERE l.kind IN ('usage', 'cap')
    ), pair AS (
        SELECT a.id, a.filter, a.from_at, a.until_at, l.line_n, l.kind, l.meter_id, l.aggregation, l.meter_state, l.service_from, l.service_until, l.dimensions, l.line_by, l.match, l.bill_to, l.default_bill_to, l.exact,
            a.filter = '{}' AND l.service_from >= a.from_at AND l.service_until <= a.until_at AS whole
        FROM ask a JOIN line l ON l.currency = a.currency AND l.service_from < a.until_at AND l.service_until > a.from_at
        WHERE (a.bill_to IS NULL OR l.bill_to = a.bill_to) AND (a.contract_id IS NULL OR l.contract_id = a.contract_id)
            AND (NOT coalesce(a.scope ? 'products', false) OR a.scope->'products' ? l.product) AND (NOT coalesce(a.scope ? 'meters', false) OR coalesce(a.scope->'meters' ? l.meter, false))
            AND (NOT coalesce(a.scope ? 'bill_tos', false) OR a.scope->'bill_tos' ? l.bill_to)
    ), weighed AS (
        -- A line of more than is asked: its part by quantity, as spend() splits it.
        SELECT p.id, p.line_n, sum(greatest(c.weight, 0)) AS all_of_it,
            sum(greatest(c.weight, 0)) FILTER (WHERE c.at >= p.from_at AND c.at < p.until_at
                AND NOT EXISTS (SELECT FROM billing_internal.filter_values(p.filter) f WHERE (c.dimensions->>f.name = ANY (f.accepted)) IS NOT TRUE)) AS asked_of_it
        FROM pair p CROSS JOIN LATERAL (
            SELECT x.at, x.dimensions, CASE WHEN p.aggregation IN ('count', 'sum', 'max', 'unique_count') AND p.meter_state <> 'presence'
                THEN billing_internal.bucket_quantity(p.meter_state, sum(x.events), sum(x.quantity), max(x.quantity), min(x.quantity), count(DISTINCT x.value_key)) ELSE sum(x.events) END AS weight
            FROM billing_internal.usage_cells(of_customer_id, p.meter_id, p.service_from, p.service_until) x
            WHERE billing_internal.of_line(x.dimensions, p.dimensions, p.line_by, p.match, p.bill_to, p.default_bill_to)
            GROUP BY x.at, x.dimensions
        ) c WHERE NOT p.whole AND p.kind = 'usage' GROUP BY p.id, p.line_n
    )
    SELECT a.id, coalesce((SELECT sum(CASE WHEN p.whole THEN p.exact WHEN w.all_of_it > 0 THEN p.exact * coalesce(w.asked_of_it, 0) / w.all_of_it
            -- What has no quantity falls on the start of its service.
            WHEN p.filter = '{}' AND p.service_from >= p.from_at THEN p.exact END)
        FROM pair p LEFT JOIN weighed w USING (id, line_n) WHERE p.id = a.id), 0) FROM ask a;
END
$$;
COMMENT ON FUNCTION billing_internal.uses(bigint, jsonb) IS
    'What was used, of a list of {"id", "from_at", "until_at", and "meter_id" (units) or "currency" (money), "filter" (as in usage()), "bill_to", "contract_id", "scope" (of a commitment: products, meters, bill_tos)}. Money is what usage costs, before it is rounded: the lines of usage and caps on issued documents and in previews, not what is due anyway (fees, true-ups).';

CREATE FUNCTION billing_internal.uses_keep(of_customer_id bigint, asked jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.usage_window_keep(of_customer_id, a.meter_id, a.from_at, a.until_at)
    FROM (SELECT DISTINCT x.meter_id, x.from_at, x.until_at FROM jsonb_to_recordset(asked) x (meter_id int, from_at timestamptz, until_at timestamptz) WHERE x.meter_id IS NOT NULL) a;
END
$$;
COMMENT ON FUNCTION billing_internal.uses_keep(bigint, jsonb) IS 'Has the totals of the periods kept that uses() is asked about in units. For whoever writes.';

CREATE FUNCTION billing_internal.limit_cost(of_customer_id bigint, of_meter_id int, quantities numeric[], dimensions jsonb, at timestamptz, ahead numeric DEFAULT 0, ahead_events bigint DEFAULT 0,
    OUT currency text, OUT amount numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c record;
    names text[];
    p record;
    k record;
    quantity numeric := (SELECT sum(q) FROM unnest(quantities) q);
    used numeric := 0;
    events bigint := 0;
    off numeric;
BEGIN
    amount := 0;
    SELECT x.time_zone INTO c FROM billing.customer x WHERE x.customer_id = of_customer_id;
    SELECT x.dimensions || '{bill_to}'::text[] INTO names FROM billing.meter x WHERE x.meter_id = of_meter_id;
    dimensions := (SELECT coalesce(jsonb_object_agg(d.key, d.value), '{}') FROM jsonb_each(dimensions) d WHERE d.key = ANY (names));
    SELECT * INTO p FROM billing_internal.price_found(of_customer_id, of_meter_id, dimensions - 'bill_to', at);
    IF NOT FOUND OR p.fault->>'code' = 'ZB007' THEN
        RETURN; -- nothing prices it
    END IF;
    PERFORM billing_internal.raise_fault(p.fault);
    SELECT x.contract_id, x.currency, x.starts_on, x.ends_on, x.billed_every, x.alignment, x.time_zone, h.charge_key, h.terms, h.every INTO k
    FROM billing.contract x JOIN billing.contract_charge h USING (customer_id, contract_id)
    WHERE x.customer_id = of_customer_id AND x.key = p.contract AND h.charge_key = p.charge AND h.kind = 'usage' AND h.until_version IS NULL AND h.valid_during @> at;
    currency := k.currency;
    IF p.pricing ?| '{per_event_minimum, per_event_maximum}' THEN
        amount := billing.rate_events(p.pricing::text::billing.pricing, quantities);
    ELSIF p.pricing->>'model' NOT IN ('per_unit', 'matrix', 'dynamic') OR p.pricing ?| '{free_units, minimum, maximum}' THEN
        -- Where it stands in the tiers of its service period.
        SELECT coalesce(sum(q.quantity), 0), coalesce(sum(q.events), 0) INTO used, events
        FROM billing_internal.calendar_period_at(k.starts_on, k.ends_on, k.billed_every, k.alignment, (at AT TIME ZONE k.time_zone)::date) b
        CROSS JOIN LATERAL billing_internal.calendar_service_periods(k.starts_on, k.ends_on, k.billed_every, k.alignment, k.every, b.n) s
        CROSS JOIN LATERAL billing_internal.usage_quantities(of_customer_id, of_meter_id, billing_internal.local_midnight(s.starts_on, k.time_zone), billing_internal.local_midnight(s.ends_on, k.time_zone),
            NULL, c.time_zone, '{}', coalesce(k.terms->'match', '{}')) q
        WHERE s.starts_on <= (at AT TIME ZONE k.time_zone)::date AND (at AT TIME ZONE k.time_zone)::date < s.ends_on;
        used := used + ahead;
        events := events + ahead_events;
    END IF;
    IF NOT p.pricing ?| '{per_event_minimum, per_event_maximum}' THEN
        amount := billing.rate(p.pricing::text::billing.pricing, used + quantity, dimensions, events + cardinality(quantities))
            - CASE WHEN events = 0 THEN 0 ELSE billing.rate(p.pricing::text::billing.pricing, used, dimensions, events) END;
    END IF;
    FOR off IN SELECT (t.terms->>'percent_off')::numeric FROM billing.contract_term t
        WHERE t.customer_id = of_customer_id AND t.contract_id = k.contract_id AND t.kind = 'discount' AND t.until_version IS NULL AND t.valid_during @> at AND t.terms ? 'percent_off'
            AND (coalesce(t.terms->'charges', '[]') = '[]' AND coalesce(t.terms->'products', '[]') = '[]' OR t.terms->'charges' ? k.charge_key OR t.terms->'products' ? (k.terms->>'product')) LOOP
        amount := amount * (100 - off) * 0.01;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.limit_cost(bigint, int, numeric[], jsonb, timestamptz, numeric, bigint) IS 'What the quantities of some events more would cost, by the customer''s price at their place in the tiers, behind what is used and what is ahead of them: the difference of the rated total with and without them, less the contract''s percentages off. 0 where nothing prices it. Amounts off are left out: what they leave to this is known when the period is billed.';

CREATE FUNCTION billing_internal.event_worths(of_meter_id int, quantity numeric, dimensions jsonb, bill_to text, properties text) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    RETURN jsonb_build_array(jsonb_build_object('meter_id', of_meter_id, 'quantities', jsonb_build_array(quantity), 'dimensions', coalesce(dimensions, '{}'), 'bill_to', bill_to))
        || CASE WHEN properties IS NULL THEN '[]' ELSE coalesce((SELECT jsonb_agg(jsonb_build_object('meter_id', m.meter_id, 'quantities', jsonb_build_array(e.value), 'dimensions', e.dimensions::jsonb, 'bill_to', bill_to) ORDER BY m.meter_id)
            FROM billing.meter f JOIN billing.meter m ON m.event_type = f.event_type AND m.meter_id <> f.meter_id AND m.counts AND m.additive
            CROSS JOIN LATERAL billing_internal.measured_events(m.definition::text, ARRAY[bill_to], ARRAY[properties]) e
            WHERE f.meter_id = of_meter_id AND e.value <> 0), '[]') END;
END
$$;
COMMENT ON FUNCTION billing_internal.event_worths(int, numeric, jsonb, text, text) IS
    'What an event counts: a quantity on one meter and, by its properties (NULL = only that one), on the other counts and sums of its type: [{"meter_id","quantities","dimensions","bill_to"}]. What doesn''t add up from event to event is left out.';

CREATE FUNCTION billing_internal.reserved_worths(of_customer_id bigint, at timestamptz) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    RETURN (SELECT jsonb_agg(jsonb_build_object('meter_id', g.meter_id, 'quantities', g.quantities, 'dimensions', g.dimensions, 'bill_to', g.bill_to) ORDER BY g.meter_id, g.dimensions, g.bill_to) FROM (
        SELECT w.meter_id, w.dimensions, w.bill_to, jsonb_agg(w.quantities->0 ORDER BY r.reservation_id) AS quantities
        FROM billing.reservation r JOIN billing.meter m USING (meter_id)
        CROSS JOIN LATERAL billing_internal.consume_worth(m.definition::text, r.quantity, r.properties::text, r.bill_to) c
        CROSS JOIN LATERAL jsonb_to_recordset(billing_internal.event_worths(m.meter_id, c.quantity, c.dimensions::jsonb, r.bill_to, c.properties)) w (meter_id int, quantities jsonb, dimensions jsonb, bill_to text)
        WHERE r.customer_id = of_customer_id AND r.outcome IS NULL AND r.expires_at > at
        GROUP BY w.meter_id, w.dimensions, w.bill_to) g);
END
$$;
COMMENT ON FUNCTION billing_internal.reserved_worths(bigint, timestamptz) IS 'What the events to come of a customer''s open reservations count, as event_worths() says it, those of one kind together; NULL = there are none.';

CREATE FUNCTION billing_internal.limits_used(of_customer_id bigint, at timestamptz, with_kind text DEFAULT NULL) RETURNS TABLE (limit_id uuid, starts_at timestamptz, ends_at timestamptz, used numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH l AS MATERIALIZED (
        SELECT l.*, w.starts_at, w.ends_at FROM billing.spend_limit l CROSS JOIN LATERAL billing_internal.limit_window(of_customer_id, l.period, at) w
        WHERE l.customer_id = of_customer_id AND l.ended_at IS NULL AND (with_kind IS NULL OR l.kind = with_kind)
    )
    SELECT l.limit_id, l.starts_at, l.ends_at, u.used FROM l
    JOIN billing_internal.uses(of_customer_id, (SELECT coalesce(jsonb_agg(jsonb_build_object('id', x.limit_id, 'meter_id', x.meter_id, 'currency', x.currency, 'filter', x.match, 'bill_to', x.bill_to,
        'from_at', x.starts_at, 'until_at', x.ends_at)), '[]') FROM l x)) u ON u.id = l.limit_id::text;
END
$$;
COMMENT ON FUNCTION billing_internal.limits_used(bigint, timestamptz, text) IS 'The periods of a customer''s limits at an instant, and what was used in them.';

CREATE FUNCTION billing_internal.limit_rows(customer text, of_kind text)
    RETURNS TABLE (key text, bill_to text, match jsonb, mode text, period text, starts_at timestamptz, ends_at timestamptz, unit text, amount numeric, used numeric, reserved numeric, remaining numeric, exceeded boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    of_customer_id bigint;
    worths jsonb;
    at timestamptz := billing_internal.moment();
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    worths := billing_internal.reserved_worths(of_customer_id, at);
    RETURN QUERY
    SELECT l.key, l.bill_to, l.match, l.mode, l.period, u.starts_at, u.ends_at, coalesce(l.currency, m.unit, m.key), l.amount, trim_scale(u.used), trim_scale(coalesce(r.reserved, 0)),
        trim_scale(greatest(l.amount - u.used - coalesce(r.reserved, 0), 0)), u.used > l.amount
    FROM billing_internal.limits_used(of_customer_id, at, of_kind) u JOIN billing.spend_limit l ON l.customer_id = of_customer_id AND l.limit_id = u.limit_id LEFT JOIN billing.meter m USING (meter_id)
    LEFT JOIN billing_internal.limits_add(of_customer_id, worths, jsonb_array_length(worths), at) r ON r.limit_id = l.limit_id
    ORDER BY l.key;
END
$$;
COMMENT ON FUNCTION billing_internal.limit_rows(text, text) IS 'spend_limits() and budgets().';

CREATE FUNCTION billing.spend_limits(customer text)
    RETURNS TABLE (key text, bill_to text, match jsonb, mode text, period text, starts_at timestamptz, ends_at timestamptz, unit text, amount numeric, used numeric, reserved numeric, remaining numeric, exceeded boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM billing_internal.limit_rows(customer, 'spend_limit');
END
$$;
COMMENT ON FUNCTION billing.spend_limits(text) IS 'The limits on a customer''s money that hold, with their present period, what was used in it (before rounding), what open reservations hold of it and what remains. Errors: ZB001, ZB007 the next bill can''t be priced.';

CREATE FUNCTION billing.budgets(customer text)
    RETURNS TABLE (key text, bill_to text, match jsonb, mode text, period text, starts_at timestamptz, ends_at timestamptz, unit text, amount numeric, used numeric, reserved numeric, remaining numeric, exceeded boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM billing_internal.limit_rows(customer, 'budget');
END
$$;
COMMENT ON FUNCTION billing.budgets(text) IS 'The budgets of a customer''s API keys, projects, users …, as spend_limits(); unit is a currency or the meter''s unit. Errors: ZB001, ZB007 the next bill can''t be priced.';

-- ── asking ───────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.limits_about(of_customer_id bigint, worths jsonb, at timestamptz) RETURNS TABLE (n int, limit_id uuid, hard boolean, ask jsonb)
    LANGUAGE plpgsql STABLE ROWS 2 SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    payer text;
BEGIN
    IF EXISTS (SELECT FROM billing.spend_limit x WHERE x.customer_id = of_customer_id AND x.ended_at IS NULL AND x.bill_to IS NOT NULL) THEN
        SELECT billing_internal.contract_bill_to(k.customer_id, k.contract_id, k.next_n) INTO payer FROM billing.contract k
        WHERE k.customer_id = of_customer_id AND k.state IN ('scheduled', 'active', 'paused') ORDER BY k.starts_on, k.key LIMIT 1;
    END IF;
    RETURN QUERY SELECT w.n::int, x.limit_id, x.mode = 'hard', jsonb_build_object('id', x.limit_id, 'meter_id', x.meter_id, 'currency', x.currency, 'filter', x.match, 'bill_to', x.bill_to, 'from_at', p.starts_at, 'until_at', p.ends_at)
    FROM billing.spend_limit x CROSS JOIN LATERAL billing_internal.limit_window(of_customer_id, x.period, at) p
    JOIN LATERAL jsonb_array_elements(worths) WITH ORDINALITY w (worth, n) ON w.worth->'dimensions' || jsonb_strip_nulls(jsonb_build_object('bill_to', w.worth->'bill_to')) @> x.match
        AND (x.bill_to IS NULL OR x.bill_to = coalesce(w.worth->>'bill_to', payer)) AND (x.meter_id IS NULL OR x.meter_id = (w.worth->>'meter_id')::int)
    WHERE x.customer_id = of_customer_id AND x.ended_at IS NULL;
END
$$;
COMMENT ON FUNCTION billing_internal.limits_about(bigint, jsonb, timestamptz) IS 'The limits that usage counts towards, for each of event_worths() (n, from 1; paid by its legal entity, NULL = the contract''s), and how to ask uses(), at an instant.';

CREATE FUNCTION billing_internal.limits_add(of_customer_id bigint, worths jsonb, held int, at timestamptz) RETURNS TABLE (limit_id uuid, ask jsonb, reserved numeric, adds numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    about jsonb := (SELECT jsonb_agg(to_jsonb(a)) FROM billing_internal.limits_about(of_customer_id, worths, at) a);
    w record;
    ahead numeric;
    ahead_events bigint;
    priced_in text;
    cost numeric;
    costs jsonb := '[]';
    sums jsonb := '{}';
BEGIN
    -- What an event costs depends on its place in the tiers: first what is reserved, then what is asked for.
    FOR w IN SELECT x.n, x.worth->>'meter_id' AS meter_id, x.worth->'dimensions' || jsonb_strip_nulls(jsonb_build_object('bill_to', x.worth->'bill_to')) AS dimensions,
            ARRAY(SELECT q::numeric FROM jsonb_array_elements_text(x.worth->'quantities') q) AS quantities,
            (SELECT sum(q::numeric) FROM jsonb_array_elements_text(x.worth->'quantities') q) AS quantity,
            EXISTS (SELECT FROM jsonb_array_elements(about) a WHERE (a->>'n')::int = x.n AND a->'ask'->>'currency' IS NOT NULL) AS money
        FROM jsonb_array_elements(worths) WITH ORDINALITY x (worth, n) ORDER BY x.n LOOP
        ahead := coalesce((sums->w.meter_id->>0)::numeric, 0);
        ahead_events := coalesce((sums->w.meter_id->>1)::bigint, 0);
        priced_in := NULL;
        cost := NULL;
        IF w.money THEN
            SELECT x.currency, x.amount INTO priced_in, cost FROM billing_internal.limit_cost(of_customer_id, w.meter_id::int, w.quantities, w.dimensions, at, ahead, ahead_events) x;
        END IF;
        costs := costs || jsonb_build_object('n', w.n, 'quantity', w.quantity, 'currency', priced_in, 'cost', cost);
        sums := sums || jsonb_build_object(w.meter_id, jsonb_build_array(ahead + w.quantity, ahead_events + cardinality(w.quantities)));
    END LOOP;
    RETURN QUERY SELECT a.limit_id, a.ask, coalesce(sum(v.adds) FILTER (WHERE v.n <= held), 0), coalesce(sum(v.adds) FILTER (WHERE v.n > held), 0)
    FROM jsonb_to_recordset(about) a (n int, limit_id uuid, ask jsonb)
    JOIN LATERAL (SELECT x.n, CASE WHEN a.ask->>'meter_id' IS NOT NULL THEN x.quantity WHEN a.ask->>'currency' = x.currency THEN x.cost ELSE 0 END AS adds
        FROM jsonb_to_recordset(costs) x (n int, quantity numeric, currency text, cost numeric)) v ON v.n = a.n
    GROUP BY a.limit_id, a.ask;
END
$$;
COMMENT ON FUNCTION billing_internal.limits_add(bigint, jsonb, int, timestamptz) IS 'What usage (event_worths()) at an instant would add to each limit it counts towards, in its money or units: the first so many, which are reserved, and the others.';

CREATE FUNCTION billing_internal.limits_ask(of_customer_id bigint, of_meter_id int, quantity numeric, dimensions jsonb DEFAULT '{}', bill_to text DEFAULT NULL, properties text DEFAULT NULL, at timestamptz DEFAULT NULL,
    OUT allowed boolean, OUT reason text, OUT detail jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    worths jsonb;
    reserved jsonb;
    added jsonb;
    l record;
BEGIN
    allowed := true;
    reason := 'allowed';
    -- What no meter counts costs nothing.
    IF of_meter_id IS NULL THEN
        RETURN;
    END IF;
    at := coalesce(at, billing_internal.moment());
    worths := billing_internal.event_worths(of_meter_id, quantity, dimensions, bill_to, properties);
    IF NOT EXISTS (SELECT FROM billing_internal.limits_about(of_customer_id, worths, at)) THEN
        RETURN;
    END IF;
    reserved := coalesce(billing_internal.reserved_worths(of_customer_id, at), '[]');
    added := (SELECT jsonb_agg(to_jsonb(a)) FROM billing_internal.limits_add(of_customer_id, reserved || worths, jsonb_array_length(reserved), at) a WHERE a.adds > 0);
    IF added IS NULL THEN
        RETURN;
    END IF;
    SELECT x.*, u.used, a.reserved, a.adds, (a.ask->>'until_at')::timestamptz AS ends_at, coalesce(x.currency, m.unit, m.key) AS unit INTO l
    FROM jsonb_to_recordset(added) a (limit_id uuid, ask jsonb, reserved numeric, adds numeric)
    JOIN billing_internal.uses(of_customer_id, (SELECT jsonb_agg(x->'ask') FROM jsonb_array_elements(added) x)) u ON u.id = a.limit_id::text
    JOIN billing.spend_limit x ON x.customer_id = of_customer_id AND x.limit_id = a.limit_id
    LEFT JOIN billing.meter m ON m.meter_id = x.meter_id
    WHERE u.used + a.reserved + a.adds > x.amount
    ORDER BY x.mode, x.kind, x.key COLLATE "C" LIMIT 1;
    IF FOUND THEN
        allowed := l.mode = 'soft';
        reason := CASE WHEN allowed THEN 'soft_limit' ELSE l.kind END;
        detail := jsonb_build_object('kind', l.kind, 'key', l.key, 'mode', l.mode, 'period', l.period, 'resets_at', l.ends_at, 'unit', l.unit,
            'amount', trim_scale(l.amount)::text, 'used', trim_scale(l.used + l.reserved)::text, 'asked', trim_scale(l.adds)::text);
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.limits_ask(bigint, int, numeric, jsonb, text, text, timestamptz) IS
    'Whether a quantity more of a meter keeps within the limits and budgets that are about it (reason: allowed; soft_limit: beyond a soft one; spend_limit, budget: beyond a hard one), and the limit in question. What is reserved counts as used. properties: of the event, which counts on the other meters of its type, too. at: when it happens (NULL = this moment). What costs nothing passes.';

CREATE FUNCTION billing_internal.customer_limits(of_customer_id bigint, of_meter_id int, quantity numeric, dimensions jsonb, bill_to text, properties text) RETURNS TABLE (allowed boolean, reason text, detail jsonb)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT billing_internal.may_see(of_customer_id) THEN
        RETURN;
    END IF;
    BEGIN
        RETURN QUERY SELECT a.allowed, a.reason, a.detail FROM billing_internal.limits_ask(of_customer_id, of_meter_id, quantity, dimensions, bill_to, properties) a;
    EXCEPTION WHEN OTHERS THEN
        -- What keeps usage from being priced is for staff.
        IF left(SQLSTATE, 2) <> 'ZB' THEN
            RAISE;
        END IF;
        PERFORM billing_internal.fail(SQLSTATE, 'whether limits allow this can''t be said now', 'Ask your provider.');
    END;
END
$$;
COMMENT ON FUNCTION billing_internal.customer_limits(bigint, int, numeric, jsonb, text, text) IS 'What limits_ask() says, for those who may see the customer: what is asked for is priced, and a customer''s login reads no prices. Nothing for others. Errors: the code of what keeps usage from being priced, without the reason.';

CREATE FUNCTION billing_internal.limits_say(of_customer_id bigint, of_meter_id int, quantity numeric, dimensions jsonb, bill_to text, properties text, OUT allowed boolean, OUT reason text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF billing_internal.asks_for_itself() THEN
        SELECT a.allowed, a.reason INTO allowed, reason FROM billing_internal.customer_limits(of_customer_id, of_meter_id, quantity, dimensions, bill_to, properties) a;
    ELSE
        SELECT a.allowed, a.reason INTO allowed, reason FROM billing_internal.limits_ask(of_customer_id, of_meter_id, quantity, dimensions, bill_to, properties) a;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.limits_say(bigint, int, numeric, jsonb, text, text) IS 'limits_ask() for whoever only wants to know: allowed and reason.';

CREATE FUNCTION billing_internal.limits_check(of_customer_id bigint, of_meter_id int, quantity numeric, dimensions jsonb, bill_to text, properties text, at timestamptz, otherwise text, OUT allowed boolean, OUT reason text)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    worths jsonb;
    locked uuid[] := '{}';
    hard uuid[];
BEGIN
    IF NOT billing_internal.travelling() THEN
        worths := billing_internal.event_worths(of_meter_id, quantity, dimensions, bill_to, properties);
        PERFORM billing_internal.uses_keep(of_customer_id, (SELECT jsonb_agg(a.ask) FROM billing_internal.limits_about(of_customer_id, worths, at) a));
        LOOP
            -- While it was waited for, a limit may have been replaced: then the one in its place is locked, too.
            hard := ARRAY(SELECT DISTINCT a.limit_id FROM billing_internal.limits_about(of_customer_id, worths, at) a WHERE a.hard AND a.limit_id <> ALL (locked));
            EXIT WHEN hard = '{}';
            PERFORM FROM billing.spend_limit x WHERE x.customer_id = of_customer_id AND x.limit_id = ANY (hard) ORDER BY x.limit_id FOR NO KEY UPDATE;
            locked := locked || hard;
        END LOOP;
    END IF;
    -- Asked afterwards: who had the lock before has committed what he used.
    SELECT a.allowed, CASE WHEN a.reason = 'allowed' THEN otherwise ELSE a.reason END INTO allowed, reason FROM billing_internal.limits_ask(of_customer_id, of_meter_id, quantity, dimensions, bill_to, properties, at) a;
END
$$;
COMMENT ON FUNCTION billing_internal.limits_check(bigint, int, numeric, jsonb, text, text, timestamptz, text) IS
    'limits_ask() for whoever is entitled and goes on to write: holds the hard limits until the transaction ends, so that of several at once only those pass that fit. otherwise: the reason where limits say nothing.';

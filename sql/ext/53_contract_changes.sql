-- Contracts, continued: what changes in a deal while it runs. Every change is a version with the instant from which it
-- holds; the terms are the fold of all of them (contract_timeline()), so a change may be recorded late, or ahead.
--
--   contract_change(): lock → the change in canonical form → fold → rows (contract_apply) → boundaries follow the end
--                      (contract_periods) → what is billed already is noted, and the next bill compares it

-- ── when ─────────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.contract_policy_value(of_customer_id bigint, of_contract_id uuid, of_name text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT c.value FROM billing.contract_policy c WHERE c.customer_id = k.customer_id AND c.contract_id = k.contract_id AND c.name = of_name),
        (SELECT s.value FROM billing_internal.seller_policies(ARRAY[of_name]) s WHERE s.seller_id = k.seller_id))
    FROM billing.contract k WHERE k.customer_id = of_customer_id AND k.contract_id = of_contract_id
$$;
COMMENT ON FUNCTION billing_internal.contract_policy_value(bigint, uuid, text) IS 'The value of a policy in force for a contract: its own, its seller''s, the global one, or the default.';

CREATE FUNCTION billing_internal.contract_instant(of_customer_id bigint, of_contract_id uuid, at text) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    k record;
    ends date;
BEGIN
    SELECT c.* INTO k FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id;
    IF at IS NULL OR at = 'now' THEN
        RETURN billing.now();
    ELSIF at = 'term_end' THEN
        IF k.ends_at IS NULL THEN
            PERFORM billing_internal.fail('ZB004', format('contract %s has no term that ends', k.key), 'Use now, period_end, or a date.');
        END IF;
        RETURN k.ends_at;
    ELSIF at = 'period_end' THEN
        SELECT p.ends_on INTO ends FROM billing_internal.calendar_period_at(k.starts_on, k.ends_on, k.billed_every, k.alignment, (billing.now() AT TIME ZONE k.time_zone)::date) p;
        -- Before it starts no period runs; after its end none will.
        RETURN coalesce(billing_internal.local_midnight(ends, k.time_zone), CASE WHEN billing.now() < k.starts_at THEN k.starts_at ELSE k.ends_at END);
    ELSIF at ~ '^\d{4}-\d\d-\d\d$' THEN
        RETURN billing_internal.local_midnight(at::date, k.time_zone);
    ELSIF at !~ '^\d{4}-\d\d-\d\d[T ]' THEN -- Postgres knows more words
        RAISE invalid_datetime_format;
    END IF;
    RETURN at::timestamptz;
EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow OR invalid_parameter_value THEN
    PERFORM billing_internal.fail('ZB004', format('%s is no instant', quote_literal(at)), 'Use now, period_end, term_end, a local date such as 2026-07-01, or a time stamp with its zone.');
END
$$;
COMMENT ON FUNCTION billing_internal.contract_instant(bigint, uuid, text) IS 'An instant of a contract''s life: now, period_end (of the billing period that runs), term_end, a local date, or a time stamp. Errors: ZB004.';

CREATE FUNCTION billing_internal.contract_day(of_customer_id bigint, of_contract_id uuid, zone text, at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN billing_internal.contract_policy_value(of_customer_id, of_contract_id, 'proration_basis') = 'second' THEN at
        ELSE billing_internal.local_midnight((at AT TIME ZONE zone)::date, zone) END;
COMMENT ON FUNCTION billing_internal.contract_day(bigint, uuid, text, timestamptz) IS 'When a change takes effect: at the local midnight of its day (the day of a change belongs to the new terms), unless policy proration_basis is second.';

-- ── boundaries ───────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.contract_touched(of_customer_id bigint, of_contract_id uuid, since timestamptz) RETURNS int[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Advance of the period after a boundary and arrears of the one before; what is billed for longer reaches further.
    SELECT coalesce(array_agg(p.n ORDER BY p.n), '{}')
    FROM billing.contract k
    JOIN billing.billing_period p ON p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.state <> 'due'
    LEFT JOIN billing.billing_period q ON q.customer_id = p.customer_id AND q.contract_id = p.contract_id AND q.n = p.n - 1
    WHERE k.customer_id = of_customer_id AND k.contract_id = of_contract_id
        AND (greatest(p.ends_at, q.ends_at) > since OR EXISTS (SELECT FROM billing.contract_charge h WHERE h.customer_id = k.customer_id AND h.contract_id = k.contract_id AND h.kind = 'fee' AND h.every <> k.billed_every
            AND billing_internal.local_midnight((p.starts_on + h.every::interval)::date, k.time_zone) > since))
$$;
COMMENT ON FUNCTION billing_internal.contract_touched(bigint, uuid, timestamptz) IS 'The boundaries, billed or closed, on which something is billed for service after an instant.';

CREATE FUNCTION billing_internal.contract_periods(of_customer_id bigint, of_contract_id uuid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    p record;
    ends date;
    first_at timestamptz;
    last_at timestamptz;
    before_on date;
    before_at timestamptz;
    is_past boolean := false;
    due record;
BEGIN
    SELECT * INTO k FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id;
    IF k.state = 'draft' THEN
        RETURN;
    END IF;
    FOR p IN SELECT * FROM billing.billing_period x WHERE x.customer_id = k.customer_id AND x.contract_id = k.contract_id ORDER BY x.n LOOP
        before_on := coalesce(before_on, p.starts_on);
        before_at := coalesce(before_at, p.starts_at);
        SELECT c.ends_on INTO ends FROM billing_internal.calendar_period(k.starts_on, k.ends_on, k.billed_every, k.alignment, p.n) c;
        IF NOT FOUND OR is_past OR k.cancelled_at <= k.starts_at THEN -- the end, and what lies behind it
            ends := before_on;
        END IF;
        last_at := CASE WHEN ends = before_on THEN before_at WHEN ends = p.ends_on AND ends IS DISTINCT FROM k.ends_on THEN p.ends_at
            WHEN ends = p.ends_on AND k.ends_at = p.ends_at THEN p.ends_at ELSE least(billing_internal.local_midnight(ends, k.time_zone), k.ends_at) END;
        UPDATE billing.billing_period x SET starts_on = before_on, starts_at = before_at, ends_on = ends, ends_at = last_at,
            -- A boundary behind the end has nothing to bill; it has again where the end moves on.
            state = CASE WHEN x.state = 'due' AND (is_past OR k.cancelled_at <= k.starts_at) THEN 'closed' WHEN x.state = 'closed' AND x.n > 0 AND NOT is_past AND (x.terms IS NULL OR p.starts_on = p.ends_on AND ends > before_on) THEN 'due' ELSE x.state END,
            cut_at = CASE WHEN x.state = 'due' AND (is_past OR k.cancelled_at <= k.starts_at) THEN coalesce(x.cut_at, clock_timestamp()) ELSE x.cut_at END
        WHERE x.customer_id = p.customer_id AND x.contract_id = p.contract_id AND x.n = p.n
            AND (x.starts_on <> before_on OR x.starts_at <> before_at OR x.ends_on <> ends OR x.ends_at <> last_at OR x.state <> 'billed');
        is_past := ends = before_on;
        before_on := ends;
        before_at := last_at;
    END LOOP;
    -- The end was billed, and is no end any more.
    IF NOT is_past AND p.state IS NOT NULL AND NOT EXISTS (SELECT FROM billing.billing_period x WHERE x.customer_id = k.customer_id AND x.contract_id = k.contract_id AND x.state = 'due' AND x.n = p.n) THEN
        SELECT c.ends_on INTO ends FROM billing_internal.calendar_period(k.starts_on, k.ends_on, k.billed_every, k.alignment, p.n + 1) c;
        INSERT INTO billing.billing_period (customer_id, contract_id, n, starts_on, ends_on, starts_at, ends_at, recorded_at)
        VALUES (k.customer_id, k.contract_id, p.n + 1, before_on, coalesce(ends, before_on), before_at,
            CASE WHEN ends IS NULL THEN before_at ELSE least(billing_internal.local_midnight(ends, k.time_zone), k.ends_at) END, clock_timestamp());
    END IF;
    SELECT x.n, x.starts_at INTO due FROM billing.billing_period x WHERE x.customer_id = k.customer_id AND x.contract_id = k.contract_id AND x.state = 'due' ORDER BY x.n LIMIT 1;
    UPDATE billing.contract c SET next_n = coalesce(due.n, c.next_n), next_bill_at = due.starts_at,
        state = billing_internal.contract_state(c.customer_id, c.contract_id, c.version, c.starts_at, c.cancelled_at, due.n IS NULL)
    WHERE c.customer_id = k.customer_id AND c.contract_id = k.contract_id;
END
$$;
COMMENT ON FUNCTION billing_internal.contract_periods(bigint, uuid) IS
    'Lets a contract''s billing periods follow its end: the boundary that is due moves to an earlier end, what lies behind it is closed with nothing to bill, and where the end has moved on the next boundary is due. Then the contract''s next boundary and state. The caller holds the contract''s row.';

-- ── a change ─────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.contract_lock(contract text) RETURNS TABLE (customer_id bigint, contract_id uuid)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f record;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO f FROM billing_internal.find_contract(contract);
    -- The customer first: under its row live charges are compared. Then the contract, as whoever bills it.
    PERFORM billing_internal.contract_hold(f.customer_id, f.contract_id, true);
    RETURN QUERY SELECT f.customer_id, f.contract_id;
END
$$;
COMMENT ON FUNCTION billing_internal.contract_lock(text) IS 'Finds a contract and locks its customer and it, in that order: one change at a time, and none beside a bill. Errors: ZB001, ZB002, 55P03 another session holds them for five seconds.';

CREATE FUNCTION billing_internal.contract_change(of_customer_id bigint, of_contract_id uuid, kind text, change jsonb, effective_at timestamptz, reason text, plan text DEFAULT NULL) RETURNS int
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    d jsonb;
    entry jsonb;
    changes jsonb;
    made jsonb;
    document jsonb;
    new_version int;
    never_began boolean;
    new_ends_on date;
    new_ends_at timestamptz;
    cancelled timestamptz;
    since timestamptz;
    touched int[];
BEGIN
    SELECT * INTO k FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id;
    d := billing_internal.contract_change_read(kind, change::text)::jsonb;
    IF d IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.contract_change_read_error(kind, change::text)::jsonb);
    END IF;
    effective_at := greatest(effective_at, k.starts_at);
    new_version := k.version + 1;
    entry := billing_internal.contract_change_entry(new_version, kind, effective_at, k.time_zone, plan, d);
    changes := billing_internal.contract_changes(k.customer_id, k.contract_id) || jsonb_build_array(entry);
    made := billing_internal.timeline(changes);
    document := billing_internal.timeline(coalesce(billing_internal.contract_changes(k.customer_id, k.contract_id, NULL, effective_at), '[]') || jsonb_build_array(entry))->'document';
    PERFORM billing_internal.check_rows(made, k.customer_id, k.currency, d) WHERE kind IN ('amend', 'change_plan');
    -- One that is cancelled before it starts has no time at all: its dates stay as they were agreed.
    never_began := (made->>'ends_on')::date <= k.starts_on;
    new_ends_on := CASE WHEN never_began THEN k.ends_on ELSE (made->>'ends_on')::date END;
    new_ends_at := CASE WHEN never_began THEN k.ends_at ELSE coalesce((made->>'ends_at')::timestamptz, billing_internal.local_midnight((made->>'ends_on')::date, k.time_zone)) END;
    cancelled := coalesce((made->'cancelled'->>'at')::timestamptz, billing_internal.local_midnight((made->'cancelled'->>'on')::date, k.time_zone));

    INSERT INTO billing.contract_version (customer_id, contract_id, version, effective_at, recorded_at, kind, reason, document, change, plan, ends_on, ends_at)
    VALUES (k.customer_id, k.contract_id, new_version, effective_at, clock_timestamp(), kind, reason, document, d, plan, new_ends_on, new_ends_at);
    since := billing_internal.contract_apply(k.customer_id, k.contract_id, new_version, made);
    -- What is billed or closed already and is billed otherwise now: the next bill compares it.
    touched := CASE WHEN since IS NULL THEN '{}' ELSE billing_internal.contract_touched(k.customer_id, k.contract_id, since) END;
    UPDATE billing.contract c SET version = new_version, ends_on = new_ends_on, ends_at = new_ends_at, cancelled_at = cancelled, renewal = nullif(made->'renewal', 'null'),
        notice_given_at = coalesce((made->'notice'->>'at')::timestamptz, billing_internal.local_midnight((made->'notice'->>'on')::date, k.time_zone)),
        state = CASE WHEN k.state = 'draft' AND cancelled IS NOT NULL THEN 'cancelled' ELSE c.state END
    WHERE c.customer_id = k.customer_id AND c.contract_id = k.contract_id;
    IF k.state <> 'draft' THEN
        PERFORM billing_internal.bills_seen(ARRAY[k.customer_id]) WHERE k.ends_at IS DISTINCT FROM new_ends_at;
        PERFORM billing_internal.contract_periods(k.customer_id, k.contract_id);
        IF since IS NOT NULL THEN
            touched := touched || billing_internal.contract_touched(k.customer_id, k.contract_id, since);
        END IF;
        IF touched <> '{}' THEN
            PERFORM billing_internal.events_hold();
            PERFORM billing_internal.late_note(k.customer_id, k.contract_id, ARRAY(SELECT DISTINCT t.n FROM unnest(touched) t (n)
                JOIN billing.billing_period p ON p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.n = t.n AND p.state <> 'due'));
        END IF;
        PERFORM billing_internal.check_carried(k.customer_id, k.contract_id, made, d);
        PERFORM billing_internal.check_overlap(k.customer_id, k.contract_id, document, d);
        PERFORM billing_internal.check_priced(k.customer_id, k.contract_id, k.signed_at, document, new_version);
        PERFORM billing_internal.contract_credits_apply(k.customer_id, k.contract_id);
        PERFORM billing_internal.entitlements_compile(k.customer_id);
    END IF;
    PERFORM billing_internal.check_override_targets(coalesce(jsonb_agg(r->'terms' ORDER BY place), '[]'), k.customer_id, k.contract_id)
    FROM jsonb_array_elements(made->'rows') WITH ORDINALITY x (r, place) WHERE r->>'kind' = 'override';
    PERFORM billing_internal.check_overrides(k.customer_id, k.contract_id);
    PERFORM billing_internal.audit('contract_' || kind, 'contract', k.key, k.customer_id, jsonb_build_object('version', k.version),
        jsonb_strip_nulls(jsonb_build_object('version', new_version, 'effective_at', effective_at, 'plan', plan)) || jsonb_build_object('change', d), reason);
    RETURN new_version;
END
$$;
COMMENT ON FUNCTION billing_internal.contract_change(bigint, uuid, text, jsonb, timestamptz, text, text) IS
    'Records a change of a contract from an instant on and lets its rows, periods, state and credits follow. What of it touches billed boundaries is noted for the next bill. Returns the new version. The caller holds the rows of customer and contract. Errors: as contract_create(), of the change''s own form with its JSON path.';

CREATE FUNCTION billing_internal.require_live(key text, state text, ends_at timestamptz, at timestamptz, what text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
BEGIN
    IF state IN ('ended', 'cancelled') THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s is %s and can''t be %s', key, state, what), CASE WHEN state = 'ended' THEN 'billing.contract_renew() goes on with it; else make a new contract.' ELSE 'Make a new contract.' END);
    ELSIF at >= ends_at THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s ends at %s and can''t be %s at %s', key, ends_at, what, at), 'Choose an earlier instant, or extend its term first.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.require_live(text, text, timestamptz, timestamptz, text) IS 'Errors: ZB005 a contract is over, or will be at an instant, so nothing can be changed from then on.';

CREATE FUNCTION billing_internal.contract_later(of_customer_id bigint, of_contract_id uuid) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    at timestamptz := billing_internal.contract_instant(of_customer_id, of_contract_id, 'period_end');
BEGIN
    IF EXISTS (SELECT FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id AND at >= c.ends_at) THEN
        PERFORM billing_internal.fail('ZB005', 'the change lowers fees, so it would take effect when the contract ends', 'Name the instant: now, or a date; or set policy downgrade_timing to immediate.');
    END IF;
    RAISE NOTICE 'the change lowers fees: it takes effect at %', at USING HINT = 'Policy downgrade_timing says period_end; name an instant to have it otherwise.';
    RETURN at;
END
$$;
COMMENT ON FUNCTION billing_internal.contract_later(bigint, uuid) IS 'The end of the billing period that runs, for a downgrade that says no date; tells so by a NOTICE. Errors: ZB005 the contract ends with it.';

CREATE FUNCTION billing_internal.contract_falls(of_customer_id bigint, of_contract_id uuid, kind text, change jsonb, plan text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    at timestamptz;
    d jsonb := billing_internal.contract_change_read(kind, change::text)::jsonb;
    changes jsonb := billing_internal.contract_changes(of_customer_id, of_contract_id);
BEGIN
    IF d IS NULL OR billing_internal.contract_policy_value(of_customer_id, of_contract_id, 'downgrade_timing') <> 'period_end' THEN
        RETURN false;
    END IF;
    SELECT * INTO k FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id;
    at := greatest(billing_internal.contract_day(k.customer_id, k.contract_id, k.time_zone, billing.now()), k.starts_at);
    RETURN billing_internal.contract_fees_fall(billing_internal.timeline(changes)::text,
        billing_internal.timeline(changes || jsonb_build_array(billing_internal.contract_change_entry(k.version + 1, kind, at, k.time_zone, plan, d)))::text, (at AT TIME ZONE k.time_zone)::date::text);
END
$$;
COMMENT ON FUNCTION billing_internal.contract_falls(bigint, uuid, text, jsonb, text) IS 'Whether a change without a date waits for the end of the billing period that runs: it would lower the fees of today, and policy downgrade_timing is period_end.';

-- ── the verbs ────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.contract_amend(contract text, change jsonb, effective_at timestamptz DEFAULT NULL, reason text DEFAULT NULL) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    at timestamptz;
    wanted text;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT c.* INTO k FROM billing_internal.contract_lock(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    IF change IS NULL OR jsonb_typeof(change) <> 'object' THEN
        PERFORM billing_internal.fail('ZB003', 'the amendment must be an object', 'Pass {"quantities": {"seats": "15"}}; docs/contracts.md lists what can be amended.');
    END IF;
    at := billing_internal.contract_day(k.customer_id, k.contract_id, k.time_zone, coalesce(effective_at, billing.now()));
    PERFORM billing_internal.require_live(k.key, k.state, k.ends_at, at, 'amended');
    IF effective_at IS NULL AND billing_internal.contract_falls(k.customer_id, k.contract_id, 'amend', change) THEN
        at := billing_internal.contract_later(k.customer_id, k.contract_id);
    END IF;
    wanted := change->>'bill_to';
    IF wanted IS NOT NULL AND NOT EXISTS (SELECT FROM billing.bill_to b WHERE b.customer_id = k.customer_id AND b.key = wanted AND b.retired_at IS NULL) THEN
        PERFORM billing_internal.fail('ZB001', format('bill_to: %s is not one of the customer''s', quote_literal(wanted)), 'SELECT key, name FROM billing.bill_to; lists them.');
    END IF;
    RETURN billing_internal.contract_change(k.customer_id, k.contract_id, 'amend', change, at, reason);
END
$$;
COMMENT ON FUNCTION billing.contract_amend(text, jsonb, timestamptz, text) IS
    'Amends a contract from an instant on (default billing.now(), or the end of the billing period that runs where it lowers the fees: policy downgrade_timing; it takes effect at the local midnight of its day, unless policy proration_basis is second; it may lie in the past): lists of charges, fees, overrides, discounts, commitments, credits, add_ons, entitlements (same key = replaced from then on, "remove": true = ends), "quantities", "prices", "term", "renewal", "purchase_order", "bill_to", "credit_order" and "credit_mode" (for usage from then on). What is billed already for time after it is corrected on the next bill. Returns the new version. Errors: ZB001, ZB002 contract, ZB003 form with its JSON path, ZB005 the contract has ended by then, ZB006 two usage charges could price one event.';

CREATE FUNCTION billing.contract_change_plan(contract text, plan text, at text DEFAULT NULL, reason text DEFAULT NULL) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    found_plan record;
    at_instant timestamptz;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT c.* INTO k FROM billing_internal.contract_lock(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    IF plan IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'the plan is NULL', 'Name a plan: SELECT key, name FROM billing.plan;');
    END IF;
    SELECT * INTO found_plan FROM billing_internal.find_plan(plan, 'plan');
    IF found_plan.document->>'currency' <> k.currency THEN
        PERFORM billing_internal.fail('ZB011', format('plan %s is in %s, contract %s in %s', found_plan.name, found_plan.document->>'currency', k.key, k.currency), 'Use a plan in the contract''s currency, or make a new contract.');
    END IF;
    at_instant := billing_internal.contract_day(k.customer_id, k.contract_id, k.time_zone, billing_internal.contract_instant(k.customer_id, k.contract_id, at));
    PERFORM billing_internal.require_live(k.key, k.state, k.ends_at, at_instant, 'put on another plan');
    IF at IS NULL AND billing_internal.contract_falls(k.customer_id, k.contract_id, 'change_plan', jsonb_build_object('plan', found_plan.name), found_plan.name) THEN
        at_instant := billing_internal.contract_later(k.customer_id, k.contract_id);
    END IF;
    RETURN billing_internal.contract_change(k.customer_id, k.contract_id, 'change_plan', jsonb_build_object('plan', found_plan.name), at_instant, reason, found_plan.name);
END
$$;
COMMENT ON FUNCTION billing.contract_change_plan(text, text, text, text) IS
    'Puts a contract on another plan (its latest version, or plan@n) from an instant on: now, period_end (of the billing period that runs), a local date or a time stamp; NULL (the default): now, or at period_end where it lowers the fees (policy downgrade_timing). What the contract itself agrees stays. Upgrade and downgrade in the middle of a period are prorated. Returns the new version. Errors: ZB001, ZB003 the plan is billed otherwise, ZB004 at, ZB005 retired plan or the contract has ended by then, ZB006, ZB011 currency.';

CREATE FUNCTION billing.contract_pause(contract text, at timestamptz DEFAULT NULL, reason text DEFAULT NULL) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    effective timestamptz;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT c.* INTO k FROM billing_internal.contract_lock(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    effective := greatest(billing_internal.contract_day(k.customer_id, k.contract_id, k.time_zone, coalesce(at, billing.now())), k.starts_at);
    PERFORM billing_internal.require_live(k.key, k.state, k.ends_at, effective, 'paused');
    IF EXISTS (SELECT FROM billing.contract_term t WHERE t.customer_id = k.customer_id AND t.contract_id = k.contract_id AND t.kind = 'pause' AND t.until_version IS NULL AND t.valid_during @> effective) THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s is paused then already', k.key), 'billing.contract_resume() ends a pause.');
    END IF;
    RETURN billing_internal.contract_change(k.customer_id, k.contract_id, 'pause', '{}', effective, reason);
END
$$;
COMMENT ON FUNCTION billing.contract_pause(text, timestamptz, text) IS
    'Pauses a contract from an instant on (default billing.now()) until contract_resume(): no fees for that time; usage that happens is billed as ever. What was billed in advance is given back on the next bill. Returns the new version. Errors: ZB001, ZB002, ZB005 it has ended by then, or is paused.';

CREATE FUNCTION billing.contract_resume(contract text, at timestamptz DEFAULT NULL, extend_term boolean DEFAULT false, reason text DEFAULT NULL) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    effective timestamptz;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT c.* INTO k FROM billing_internal.contract_lock(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    effective := billing_internal.contract_day(k.customer_id, k.contract_id, k.time_zone, coalesce(at, billing.now()));
    PERFORM billing_internal.require_live(k.key, k.state, k.ends_at, effective, 'resumed');
    IF NOT EXISTS (SELECT FROM billing.contract_term t WHERE t.customer_id = k.customer_id AND t.contract_id = k.contract_id AND t.kind = 'pause' AND t.until_version IS NULL AND t.valid_during @> effective) THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s is not paused then', k.key), 'billing.contract_pause() pauses it; SELECT * FROM billing.contract_change; shows its changes.');
    END IF;
    RETURN billing_internal.contract_change(k.customer_id, k.contract_id, 'resume', CASE WHEN extend_term THEN '{"extend_term": true}' ELSE '{}' END::jsonb, effective, reason);
END
$$;
COMMENT ON FUNCTION billing.contract_resume(text, timestamptz, boolean, text) IS
    'Goes on with a paused contract from an instant on (default billing.now()), also sooner than was said before. extend_term: its term ends later by the days it was paused. Returns the new version. Errors: ZB001, ZB002, ZB005 it is not paused then, or has ended.';

CREATE FUNCTION billing.contract_cancel(contract text, at text DEFAULT 'period_end', reason text DEFAULT NULL) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    asked timestamptz;
    effective timestamptz;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT c.* INTO k FROM billing_internal.contract_lock(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    IF k.state IN ('ended', 'cancelled') THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s is %s', k.key, k.state), 'There is nothing left to cancel.');
    END IF;
    asked := billing_internal.contract_instant(k.customer_id, k.contract_id, at);
    effective := billing_internal.contract_day(k.customer_id, k.contract_id, k.time_zone, asked);
    -- The last day may be served to its end; an end of a period or term is one already.
    IF at NOT IN ('period_end', 'term_end') AND billing_internal.contract_policy_value(k.customer_id, k.contract_id, 'termination_day') = 'included' THEN
        effective := billing_internal.local_midnight((asked AT TIME ZONE k.time_zone)::date + 1, k.time_zone);
    END IF;
    IF effective = k.ends_at AND k.cancelled_at IS NULL THEN
        -- It ends then anyway: so that it is not renewed.
        RETURN billing_internal.contract_change(k.customer_id, k.contract_id, 'amend', '{"renewal": {"auto": false}}', billing_internal.contract_day(k.customer_id, k.contract_id, k.time_zone, least(billing.now(), k.ends_at - interval '1 microsecond')), reason);
    ELSIF effective >= k.ends_at THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s ends on %s already', k.key, CASE WHEN k.ends_at < billing_internal.local_midnight(k.ends_on, k.time_zone) THEN k.ends_on - 1 ELSE k.ends_on END), 'Choose an earlier instant.');
    END IF;
    RETURN billing_internal.contract_change(k.customer_id, k.contract_id, 'cancel', '{}', effective, reason);
END
$$;
COMMENT ON FUNCTION billing.contract_cancel(text, text, text) IS
    'Ends a contract: at period_end (of the billing period that runs; the default), term_end, now, on a local date or at a time stamp, which may lie in the past. The day of the end is no longer served, unless policy termination_day is included. What was billed in advance for later is given back; a draft is just dropped, and one that has not started never will. Returns the new version. Errors: ZB001, ZB002, ZB004 at, ZB005 it ends before that.';

CREATE FUNCTION billing.contract_notice(contract text, given_at timestamptz DEFAULT NULL, reason text DEFAULT NULL) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    given timestamptz;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT c.* INTO k FROM billing_internal.contract_lock(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    given := billing_internal.contract_day(k.customer_id, k.contract_id, k.time_zone, coalesce(given_at, billing.now()));
    PERFORM billing_internal.require_live(k.key, k.state, k.ends_at, given, 'given notice of');
    IF k.ends_at IS NULL THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s has no term that could be renewed', k.key), 'billing.contract_cancel() ends it.');
    ELSIF k.notice_given_at IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB005', format('notice of contract %s was given on %s', k.key, (k.notice_given_at AT TIME ZONE k.time_zone)::date), 'One notice is enough.');
    END IF;
    RETURN billing_internal.contract_change(k.customer_id, k.contract_id, 'notice', '{}', given, reason);
END
$$;
COMMENT ON FUNCTION billing.contract_notice(text, timestamptz, text) IS
    'Records that notice was given (default billing.now()): on or before the notice deadline, the contract is not renewed by itself. It runs to the end of its term. Returns the new version. Errors: ZB001, ZB002, ZB005 no term, notice was given, or the contract has ended.';

CREATE FUNCTION billing.contract_renew(contract text, index numeric DEFAULT NULL, reason text DEFAULT NULL) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    percent text;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT c.* INTO k FROM billing_internal.contract_lock(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    IF k.state = 'draft' OR k.cancelled_at IS NOT NULL OR k.ends_at IS NULL THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s %s and can''t be renewed', k.key, CASE WHEN k.cancelled_at IS NOT NULL THEN 'is cancelled' WHEN k.ends_at IS NULL THEN 'has no end' ELSE 'is a draft' END),
            'Only a contract with a term is renewed.');
    END IF;
    percent := billing_internal.contract_uplift(coalesce(k.renewal, '{}')::text, coalesce(index::text, nullif(billing_internal.contract_policy_value(k.customer_id, k.contract_id, 'renewal_index'), '')));
    IF percent IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.contract_uplift_error(coalesce(k.renewal, '{}')::text, coalesce(index::text, nullif(billing_internal.contract_policy_value(k.customer_id, k.contract_id, 'renewal_index'), '')))::jsonb);
    END IF;
    RETURN billing_internal.contract_change(k.customer_id, k.contract_id, 'renew', jsonb_strip_nulls(jsonb_build_object('percent', nullif(percent, '0'), 'term', k.renewal->>'term', 'prices', nullif(k.renewal->>'prices', 'keep'))),
        k.ends_at, reason);
END
$$;
COMMENT ON FUNCTION billing.contract_renew(text, numeric, text) IS
    'Renews a contract from the end of its term on, for the term agreed for renewals (default its own), with the uplift agreed: index is the value in percent of the index it follows (default policy renewal_index), kept between its min and max. Returns the new version. Errors: ZB001, ZB002, ZB004 an index is needed, ZB005 a draft, cancelled, or without an end.';

-- ── renewals ─────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.renewals_due(within interval DEFAULT '90 days')
    RETURNS TABLE (contract text, customer text, ends_on date, notice_deadline date, notice_given_at timestamptz, auto boolean, renews_on date, new_term text, uplift jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing_internal.require_installed();
    RETURN QUERY
    SELECT k.key, c.key, k.ends_on, (k.renewal->>'notice_deadline')::date, k.notice_given_at, coalesce((k.renewal->>'auto')::boolean, false),
        CASE WHEN billing_internal.renews(k.renewal, k.notice_given_at, k.time_zone) THEN k.ends_on END, k.renewal->>'term', nullif(k.renewal->'uplift', 'null')
    FROM billing.contract k JOIN billing.customer c USING (customer_id)
    WHERE k.state IN ('scheduled', 'active', 'paused') AND k.cancelled_at IS NULL AND k.ends_at <= billing.now() + within
    ORDER BY k.ends_at, k.key;
END
$$;
COMMENT ON FUNCTION billing.renewals_due(interval) IS
    'Contracts whose term ends within some time from billing.now(), the next one first: the last day on which notice counts, the notice given, whether they renew by themselves and on which day (NULL = they end), for how long, and the uplift agreed.';

CREATE FUNCTION billing_internal.renews(renewal jsonb, notice_given_at timestamptz, zone text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN coalesce((renewal->>'auto')::boolean, false)
        AND (notice_given_at IS NULL OR (notice_given_at AT TIME ZONE zone)::date > (renewal->>'notice_deadline')::date);
COMMENT ON FUNCTION billing_internal.renews(jsonb, timestamptz, text) IS 'Whether a contract renews by itself: agreed so, and no notice on or before the deadline.';

CREATE FUNCTION billing.renewal_step(run uuid, max_rows int DEFAULT 100) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    renewed bigint := 0;
    seen bigint := 0;
    of_detail text;
    of_hint text;
BEGIN
    PERFORM billing_internal.require_installed();
    IF max_rows IS NULL OR max_rows < 1 THEN
        PERFORM billing_internal.fail('ZB004', format('%s contracts can''t be renewed in a step', coalesce(max_rows::text, 'NULL')), 'Give 1 or more.');
    END IF;
    -- Once no notice can come any more; the bill of the end is to know it.
    FOR k IN SELECT c.customer_id, c.contract_id, c.key FROM billing.contract c
        WHERE c.renewal IS NOT NULL AND c.state IN ('scheduled', 'active', 'paused', 'ended') AND c.cancelled_at IS NULL AND billing_internal.renews(c.renewal, c.notice_given_at, c.time_zone)
            AND (c.ends_at <= billing.now() OR billing_internal.local_midnight((c.renewal->>'notice_deadline')::date + 1, c.time_zone) <= billing.now())
            AND NOT EXISTS (SELECT FROM billing.job_issue i WHERE i.job_run_id = run AND i.kind = 'contract' AND i.key = c.key)
        ORDER BY c.customer_id, c.contract_id LIMIT max_rows LOOP
        seen := seen + 1;
        BEGIN
            -- What somebody holds is not waited for, so that it stops no other.
            PERFORM FROM billing.customer c WHERE c.customer_id = k.customer_id FOR NO KEY UPDATE SKIP LOCKED;
            IF FOUND THEN
                PERFORM FROM billing.contract c WHERE c.customer_id = k.customer_id AND c.contract_id = k.contract_id FOR NO KEY UPDATE SKIP LOCKED;
            END IF;
            IF NOT FOUND THEN
                PERFORM billing_internal.fail('ZB005', format('contract %s is held by a transaction of another session', k.key), 'The next run renews it.');
            END IF;
            PERFORM billing.contract_renew(k.key);
            renewed := renewed + 1;
        EXCEPTION WHEN serialization_failure OR deadlock_detected OR query_canceled OR lock_not_available OR insufficient_resources THEN
            RAISE;
        WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS of_detail = PG_EXCEPTION_DETAIL, of_hint = PG_EXCEPTION_HINT;
            INSERT INTO billing.job_issue (job_issue_id, job_run_id, at, customer_id, kind, key, sqlstate, message, detail, hint)
            VALUES (billing_internal.uuid_v7(), run, clock_timestamp(), k.customer_id, 'contract', k.key, SQLSTATE, SQLERRM, nullif(of_detail, ''), nullif(of_hint, ''));
        END;
    END LOOP;
    UPDATE billing.job_run r SET done = r.done + renewed WHERE r.job_run_id = run;
    RETURN seen;
END
$$;
COMMENT ON FUNCTION billing.renewal_step(uuid, int) IS
    'One step of the job renewal: renews up to max_rows contracts that renew by themselves and whose notice deadline has passed. Returns how many it looked at, 0 = done. What could not be renewed (an index that is missing) is in job_issue. Errors: ZB004 max_rows.';

CREATE PROCEDURE billing.renewal()
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.job_start('renewal');
BEGIN
    COMMIT;
    WHILE billing.renewal_step(run) OPERATOR(pg_catalog.>) 0 LOOP
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run);
END
$$;
COMMENT ON PROCEDURE billing.renewal() IS
    'Renews every contract that renews by itself once its notice deadline has passed, committing step by step; to be run before the bill run of the day on which terms end. Progress in job_run, what could not be renewed and why in job_issue.';

-- ── reading ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.contract_as_of(contract text, valid_at timestamptz DEFAULT NULL, known_at timestamptz DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f record;
    changes jsonb;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO f FROM billing_internal.find_contract(contract);
    changes := billing_internal.contract_changes(f.customer_id, f.contract_id, NULL, coalesce(valid_at, billing.now()), known_at);
    IF changes IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('contract %s was not known then', contract), 'SELECT version, recorded_at FROM billing.contract_change; shows since when it is.');
    END IF;
    RETURN billing_internal.timeline(changes)->'document';
END
$$;
COMMENT ON FUNCTION billing.contract_as_of(text, timestamptz, timestamptz) IS
    'The contract document in force at an instant (default billing.now()), as it was known at another (real time; default: as we know it today). Errors: ZB001, ZB002.';

CREATE FUNCTION billing.contract_document(contract text) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f record;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO f FROM billing_internal.find_contract(contract);
    RETURN billing_internal.timeline(billing_internal.contract_changes(f.customer_id, f.contract_id))->'document';
END
$$;
COMMENT ON FUNCTION billing.contract_document(text) IS 'The contract document with all its changes applied: given to contract_create() with another key, it makes the same deal. Errors: ZB001, ZB002.';

CREATE FUNCTION billing_internal.contract_credit_term(of_customer_id bigint, of_contract_id uuid, of_kind text, at timestamptz) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT t.terms->'value' FROM billing.contract_term t WHERE t.customer_id = of_customer_id AND t.contract_id = of_contract_id AND t.kind = of_kind AND t.until_version IS NULL AND t.valid_during @> at),
        (SELECT v.document->of_kind FROM billing.contract_version v WHERE v.customer_id = of_customer_id AND v.contract_id = of_contract_id AND v.version = 1))
$$;
COMMENT ON FUNCTION billing_internal.contract_credit_term(bigint, uuid, text, timestamptz) IS 'The credit_mode or credit_order (kind) of a contract at an instant: as amended, or as signed; NULL = the default.';

CREATE FUNCTION billing.contract_summary(contract text) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    at timestamptz;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT c.*, u.key AS customer INTO k FROM billing_internal.find_contract(contract) f JOIN billing.contract c USING (customer_id, contract_id) JOIN billing.customer u USING (customer_id);
    at := greatest(billing.now(), k.starts_at);
    RETURN jsonb_strip_nulls(jsonb_build_object('contract', k.key, 'customer', k.customer, 'state', k.state, 'version', k.version, 'currency', k.currency, 'time_zone', k.time_zone,
        'plan', (SELECT v.plan FROM billing.contract_version v WHERE v.customer_id = k.customer_id AND v.contract_id = k.contract_id AND v.kind IN ('create', 'change_plan') AND v.effective_at <= at ORDER BY v.effective_at DESC, v.version DESC LIMIT 1),
        'starts_on', k.starts_on, 'ends_on', k.ends_on, 'billed_every', k.billed_every, 'alignment', k.alignment, 'net_days', k.net_days, 'next_bill_at', k.next_bill_at,
        'cancelled_at', k.cancelled_at, 'notice_given_at', k.notice_given_at, 'renewal', k.renewal, 'signed_at', k.signed_at,
        'purchase_order', (SELECT t.terms->>'value' FROM billing.contract_term t WHERE t.customer_id = k.customer_id AND t.contract_id = k.contract_id AND t.kind = 'purchase_order' AND t.until_version IS NULL AND t.valid_during @> at),
        'credit_mode', billing_internal.contract_credit_term(k.customer_id, k.contract_id, 'credit_mode', at), 'credit_order', billing_internal.contract_credit_term(k.customer_id, k.contract_id, 'credit_order', at),
        'items', (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('kind', i.kind, 'item', i.item, 'from', lower(i.valid_during), 'until', upper(i.valid_during))) || jsonb_build_object('terms', i.terms) ORDER BY i.kind, i.item)
            FROM (
                SELECT h.kind, h.charge_key AS item, h.valid_during, h.terms FROM billing.contract_charge h WHERE h.customer_id = k.customer_id AND h.contract_id = k.contract_id AND h.until_version IS NULL
                UNION ALL
                SELECT t.kind, t.term_key, t.valid_during, t.terms FROM billing.contract_term t WHERE t.customer_id = k.customer_id AND t.contract_id = k.contract_id AND t.until_version IS NULL AND t.kind NOT IN ('bill_to', 'purchase_order', 'pause', 'credit_mode', 'credit_order')
            ) i WHERE i.valid_during @> at),
        'billed', (SELECT jsonb_object_agg(b.state, b.total) FROM (SELECT i.state, sum(i.total)::text AS total FROM billing.invoice i WHERE i.customer_id = k.customer_id AND i.contract_id = k.contract_id AND i.state <> 'draft' GROUP BY i.state) b)));
END
$$;
COMMENT ON FUNCTION billing.contract_summary(text) IS
    'A contract at a glance: who, since when, until when, how it is billed, what is next, what holds now (of one that has not started: when it does), and what was billed by invoice state, in its currency. Errors: ZB001, ZB002.';

CREATE FUNCTION billing.contract_preview(doc jsonb, months int DEFAULT 12) RETURNS TABLE (boundary int, issued_on date, due_on date, document jsonb)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    k record;
    p record;
    look record;
    n int := 0;
    day date;
    made text;
    seen jsonb := '[]';
BEGIN
    PERFORM billing_internal.require_installed();
    IF jsonb_typeof(doc) IS DISTINCT FROM 'object' THEN
        PERFORM billing_internal.fail('ZB003', 'the contract document must be an object', 'Pass {"customer", "starts_on", "plan"}.');
    ELSIF months IS NULL OR months NOT BETWEEN 0 AND 120 THEN
        PERFORM billing_internal.fail('ZB004', format('%s months can''t be looked ahead', coalesce(months::text, 'NULL')), 'Give 0 to 120.');
    END IF;
    -- The deal is made, looked at, and taken back: nothing stays, and no number is given out.
    BEGIN
        made := billing.contract_create(doc || jsonb_build_object('key', 'preview ' || billing_internal.uuid_v7()));
        SELECT c.* INTO k FROM billing.contract_key x JOIN billing.contract c USING (customer_id, contract_id) WHERE x.key = made;
        LOOP
            SELECT * INTO p FROM billing_internal.calendar_period(k.starts_on, k.ends_on, k.billed_every, k.alignment, n);
            EXIT WHEN NOT FOUND AND (day IS NULL OR day >= k.ends_on);
            day := coalesce(p.starts_on, k.ends_on);
            EXIT WHEN day > k.starts_on + make_interval(months => months);
            FOR look IN SELECT d.document FROM billing_internal.bill_look(ARRAY[billing_internal.ref_now(k.customer_id, k.contract_id, ARRAY[n], k.starts_at)]) d WHERE jsonb_array_length(d.document->'lines') > 0 LOOP
                seen := seen || jsonb_build_array(jsonb_build_object('n', n, 'day', day, 'document', look.document
                    || jsonb_build_object('status', 'preview', 'contract', coalesce(doc->>'key', 'preview'), 'issued_on', day, 'due_on', day + k.net_days)));
            END LOOP;
            n := n + 1;
        END LOOP;
        RAISE EXCEPTION USING ERRCODE = 'ZBDRY', MESSAGE = 'taken back';
    EXCEPTION WHEN SQLSTATE 'ZBDRY' THEN -- never ZB000: that would catch the whole class
        NULL;
    END;
    RETURN QUERY SELECT (s->>'n')::int, (s->>'day')::date, (s->'document'->>'due_on')::date, s->'document' FROM jsonb_array_elements(seen) WITH ORDINALITY x (s, place) ORDER BY x.place;
END
$$;
COMMENT ON FUNCTION billing.contract_preview(jsonb, int) IS
    'The invoices that a contract document will produce in its first months, without any usage: boundary by boundary, with dates and invoice_document. Stores nothing. Errors: as contract_create(), ZB004 months.';

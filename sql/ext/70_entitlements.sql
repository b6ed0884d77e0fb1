-- Entitlements: what a customer may use, now. What plans, add-ons, contracts and operators say is compiled into stretches of
-- time when it changes (entitlement_state); asking reads one of them, and the usage of its window.
--
-- There is no cache in a session: a check reads committed rows in its own snapshot, and asks at the moment of its call, so whatever another session committed before
-- that snapshot was taken is in the answer, and a change that begins or ends later does so by its dates.

-- ── leaves ───────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.entitlements_folded(sources text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'entitlements_folded_wrapper';
COMMENT ON FUNCTION billing_internal.entitlements_folded(text) IS 'Rows of entitlement_state as JSON, of all that is said of features and when; NULL where entitlements_folded_error() says why not.';
CREATE FUNCTION billing_internal.entitlements_folded_error(sources text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'entitlements_folded_error_wrapper';
COMMENT ON FUNCTION billing_internal.entitlements_folded_error(text) IS 'Why entitlements_folded() gave NULL.';
CREATE FUNCTION billing_internal.quota_verdict(mode text, quota numeric, used numeric, asked numeric) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'quota_verdict_wrapper';
COMMENT ON FUNCTION billing_internal.quota_verdict(text, numeric, numeric, numeric) IS 'What becomes of a request: allowed, unlimited (quota NULL), soft_limit, overage or quota_exceeded; NULL where a number has more than 28 digits.';
CREATE FUNCTION billing_internal.quota_rolled(quota numeric, used numeric, cap numeric) RETURNS numeric
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'quota_rolled_wrapper';
COMMENT ON FUNCTION billing_internal.quota_rolled(numeric, numeric, numeric) IS 'What of a window''s quota, with what had rolled into it, was not used and rolls into the next: not more than the cap (NULL = all).';

CREATE FUNCTION billing_internal.quota_window(starts_on date, every text, alignment text, zone text, at timestamptz) RETURNS timestamptz[]
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'quota_window_wrapper';
COMMENT ON FUNCTION billing_internal.quota_window(date, text, text, text, timestamptz) IS 'The period of a rhythm that holds an instant, as {from, until}: midnights of a zone, as local_midnight() of calendar_period_at(). NULL before the first.';

-- ── what is said ─────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.find_feature(feature text) RETURNS int
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id int := (SELECT f.feature_id FROM billing.feature f WHERE f.key = feature);
BEGIN
    IF id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('feature %s is not known', coalesce(quote_literal(feature), 'NULL')), 'SELECT key, name, kind FROM billing.feature; lists them.');
    END IF;
    RETURN id;
END
$$;
COMMENT ON FUNCTION billing_internal.find_feature(text) IS 'A feature by key. Errors: ZB001.';

CREATE FUNCTION billing_internal.iso_instant(at timestamptz) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
COMMENT ON FUNCTION billing_internal.iso_instant(timestamptz) IS 'An instant as leaves read it.';

CREATE FUNCTION billing_internal.entitlement_sources(of_customer_id bigint) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH said AS (
        -- Terms of contracts that were activated; the key says who gives it: plan:<feature>, <add-on>/<feature> or <feature>.
        SELECT t.terms->>'feature' AS feature, CASE WHEN t.term_key LIKE 'plan:%' THEN 'plan' WHEN t.term_key LIKE '%/%' THEN 'add_on' ELSE 'contract' END AS level,
            CASE WHEN t.term_key LIKE 'plan:%' THEN 'plan of ' WHEN t.term_key LIKE '%/%' THEN 'add-on ' || split_part(t.term_key, '/', 1) || ' of ' ELSE 'contract ' END || k.key AS label,
            t.valid_during, t.terms AS item, k.starts_at, k.contract_id::text AS id, t.position,
            jsonb_build_object('zone', k.time_zone, 'starts_on', k.starts_on, 'every', k.billed_every, 'alignment', k.alignment) AS grid,
            (SELECT jsonb_agg(jsonb_build_object('from', billing_internal.iso_instant(lower(p.valid_during)), 'until', billing_internal.iso_instant(upper(p.valid_during))) ORDER BY p.valid_during)
                FROM billing.contract_term p WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.kind = 'pause' AND p.until_version IS NULL) AS paused
        FROM billing.contract k JOIN billing.contract_term t ON t.customer_id = k.customer_id AND t.contract_id = k.contract_id AND t.kind = 'entitlement' AND t.until_version IS NULL
        WHERE k.customer_id = of_customer_id AND k.state <> 'draft'
        UNION ALL
        -- The one made last counts, whichever transaction began first.
        SELECT o.item->>'feature', 'override', 'override', tstzrange(o.from_at, o.until_at), o.item, o.created_at, o.override_id::text, 0, NULL, NULL
        FROM billing.entitlement_override o WHERE o.customer_id = of_customer_id AND o.from_at < coalesce(o.until_at, 'infinity')
    )
    SELECT jsonb_agg(jsonb_build_object('feature_id', f.feature_id, 'kind', f.kind, 'zone', f.time_zone, 'sources', f.sources))
    FROM (
        SELECT f.feature_id, f.kind, c.time_zone, jsonb_agg(jsonb_build_object('level', s.level, 'label', s.label, 'from', billing_internal.iso_instant(lower(s.valid_during)),
            'until', billing_internal.iso_instant(upper(s.valid_during)), 'item', s.item, 'grid', s.grid, 'paused', s.paused) ORDER BY s.starts_at, s.id, s.position) AS sources
        FROM said s JOIN billing.feature f ON f.key = s.feature JOIN billing.customer c ON c.customer_id = of_customer_id
        GROUP BY f.feature_id, f.kind, c.time_zone
    ) f
$$;
COMMENT ON FUNCTION billing_internal.entitlement_sources(bigint) IS 'All that plans, add-ons, contracts and operators say of a customer''s features, as entitlements_folded() takes it; NULL = nothing. Contracts are heard in the order in which they start, exceptions as they were made.';

CREATE FUNCTION billing_internal.entitlement_rows(rows jsonb)
    RETURNS TABLE (feature_id int, valid_during tstzrange, suspended boolean, value jsonb, quota numeric, mode text, resets text, length interval, zone text,
        starts_on date, every text, alignment text, match jsonb, rollover numeric, rate jsonb, source text, heard jsonb)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.feature_id, tstzrange(r.from_at, r.until_at), r.suspended, coalesce(r.value, 'null'), r.quota, r.mode, r.resets, r.length, r.zone, r.starts_on, r.every, r.alignment, r.match,
        r.rollover, nullif(r.rate, 'null'), r.source, r.heard
    FROM jsonb_to_recordset(rows) r (feature_id int, from_at timestamptz, until_at timestamptz, suspended boolean, value jsonb, quota numeric, mode text, resets text, length interval, zone text,
        starts_on date, every text, alignment text, match jsonb, rollover numeric, rate jsonb, source text, heard jsonb)
$$;
COMMENT ON FUNCTION billing_internal.entitlement_rows(jsonb) IS 'What entitlements_folded() said, as rows of entitlement_state.';

CREATE FUNCTION billing_internal.entitlements_store(of_customer_id bigint, rows jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
BEGIN
    DELETE FROM billing.entitlement_state s WHERE s.customer_id = of_customer_id;
    INSERT INTO billing.entitlement_state (customer_id, feature_id, valid_during, suspended, value, quota, mode, resets, length, zone, starts_on, every, alignment, match, rollover, rate, source, heard)
    SELECT of_customer_id, r.* FROM billing_internal.entitlement_rows(rows) r;
END
$$;
COMMENT ON FUNCTION billing_internal.entitlements_store(bigint, jsonb) IS 'Replaces what a customer has of all features. The caller is entitlements_compile(). Runs as billing_owner.';

CREATE FUNCTION billing_internal.entitlements_compile(of_customer_id bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    sources jsonb := billing_internal.entitlement_sources(of_customer_id);
    rows jsonb;
BEGIN
    IF sources IS NULL AND NOT EXISTS (SELECT FROM billing.entitlement_state s WHERE s.customer_id = of_customer_id) THEN
        RETURN;
    END IF;
    rows := billing_internal.entitlements_folded(coalesce(sources, '[]')::text)::jsonb;
    IF rows IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.entitlements_folded_error(coalesce(sources, '[]')::text)::jsonb);
    END IF;
    PERFORM billing_internal.entitlements_store(of_customer_id, rows);
    PERFORM billing_internal.entitlement_windows_keep(of_customer_id, NULL);
END
$$;
COMMENT ON FUNCTION billing_internal.entitlements_compile(bigint) IS 'Brings entitlement_state up to what contracts and exceptions say, in the transaction that changes them. The caller holds the customer''s row, so that two changes don''t compile each from half.';

-- ── exceptions ───────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.entitlement_override(customer text, feature text, value jsonb, until timestamptz DEFAULT NULL, reason text DEFAULT NULL) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    of_customer_id bigint;
    f record;
    item jsonb;
    id uuid;
    customer_key text;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    SELECT x.* INTO f FROM billing.feature x WHERE x.feature_id = billing_internal.find_feature(entitlement_override.feature);
    IF coalesce(reason, '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'a reason is missing', 'Say why: it is kept with the exception.');
    ELSIF until <= billing.now() THEN
        PERFORM billing_internal.fail('ZB004', format('%s is not after billing.now()', until), 'Give a later instant, or NULL: until billing.entitlement_override_end().');
    END IF;
    -- A number is as good as the text of it.
    value := coalesce(value, 'null');
    item := jsonb_build_object('feature', f.key) || CASE WHEN f.kind = 'rate_limit' THEN jsonb_build_object('rate', value)
        ELSE jsonb_build_object('value', CASE WHEN jsonb_typeof(value) = 'number' THEN to_jsonb(value #>> '{}') ELSE value END) END;
    PERFORM billing_internal.raise_fault(billing_internal.entitlement_error(item::text, f.kind, '')::jsonb);
    SELECT c.key INTO customer_key FROM billing.customer c WHERE c.customer_id = of_customer_id FOR NO KEY UPDATE;
    id := billing_internal.uuid_v7();
    INSERT INTO billing.entitlement_override (customer_id, override_id, feature_id, item, from_at, until_at, reason, created_by, created_at)
    VALUES (of_customer_id, id, f.feature_id, item, billing.now(), until, reason, billing_internal.caller(), clock_timestamp());
    PERFORM billing_internal.entitlements_compile(of_customer_id);
    PERFORM billing_internal.audit('entitlement_override', 'entitlement', customer_key || '/' || f.key, of_customer_id, NULL, item || jsonb_build_object('until', until), reason);
    RETURN id;
END
$$;
COMMENT ON FUNCTION billing.entitlement_override(text, text, jsonb, timestamptz, text) IS
    'Gives a customer another value of a feature than what was agreed, from now on until an instant (exclusive; NULL = until entitlement_override_end()): ''300000'' (a quota), ''null'' (unlimited), ''true'', ''false'', ''"large"'', or {"limit","per","burst"} of a rate limit. How usage is counted stays as agreed; a suspended customer stays suspended. The last one made counts. Holds for every check that begins after the commit. Returns its id. Errors: ZB001, ZB003 the value doesn''t suit the feature, ZB004 until, no reason.';

CREATE FUNCTION billing.entitlement_override_end(customer text, feature text, reason text) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    of_feature_id int;
    customer_key text;
    ended int;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    of_feature_id := billing_internal.find_feature(entitlement_override_end.feature);
    IF coalesce(reason, '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'a reason is missing', 'Say why: it is kept in the audit log.');
    END IF;
    SELECT c.key INTO customer_key FROM billing.customer c WHERE c.customer_id = of_customer_id FOR NO KEY UPDATE;
    UPDATE billing.entitlement_override o SET until_at = greatest(o.from_at, billing.now())
    WHERE o.customer_id = of_customer_id AND o.feature_id = of_feature_id AND (o.until_at IS NULL OR o.until_at > billing.now());
    GET DIAGNOSTICS ended = ROW_COUNT;
    IF ended = 0 THEN
        PERFORM billing_internal.fail('ZB005', format('customer %s has no exception for feature %s', customer_key, entitlement_override_end.feature), 'SELECT * FROM billing.entitlements(…); says where each comes from.');
    END IF;
    PERFORM billing_internal.entitlements_compile(of_customer_id);
    PERFORM billing_internal.audit('entitlement_override_end', 'entitlement', customer_key || '/' || entitlement_override_end.feature, of_customer_id, NULL, jsonb_build_object('ended', ended), reason);
    RETURN ended;
END
$$;
COMMENT ON FUNCTION billing.entitlement_override_end(text, text, text) IS 'Ends all exceptions of a customer for a feature now: what was agreed holds again. Returns how many there were. Errors: ZB001, ZB004 no reason, ZB005 there is none.';

-- ── how much is used ─────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.entitlement_rolled(
    of_customer_id bigint, of_feature_id int, of_meter_id int, resets text, zone text, starts_on date, every text, alignment text, match jsonb, rollover numeric, from_at timestamptz
) RETURNS numeric
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    windows_max CONSTANT int := 24;
    until_at timestamptz := from_at;
    cap numeric := rollover;
    s record;
    quotas numeric[] := '{}';
    useds numeric[] := '{}';
    caps numeric[] := '{}';
    rolled numeric := 0;
BEGIN
    -- From the window before this one back to where what had rolled into it makes no difference.
    WHILE cardinality(quotas) < windows_max LOOP
        -- The quota that held when the window ended, if there was one.
        SELECT e.quota, e.rollover, e.match INTO s FROM billing.entitlement_state e
        WHERE e.customer_id = of_customer_id AND e.feature_id = of_feature_id AND e.valid_during @> until_at - interval '1 microsecond' AND NOT e.suspended;
        EXIT WHEN s.quota IS NULL;
        from_at := CASE WHEN resets = 'hour' THEN until_at - interval '1 hour' ELSE (SELECT billing_internal.local_midnight(p.starts_on, zone)
            FROM billing_internal.calendar_period_at(entitlement_rolled.starts_on, NULL, every, alignment, ((until_at - interval '1 microsecond') AT TIME ZONE zone)::date) p) END;
        EXIT WHEN from_at IS NULL;
        quotas := quotas || s.quota;
        useds := useds || coalesce((SELECT w.quantity FROM billing_internal.usage_window(of_customer_id, of_meter_id, from_at, until_at, s.match) w), 0);
        caps := caps || cap;
        EXIT WHEN s.rollover IS NULL OR quotas[cardinality(quotas)] - useds[cardinality(quotas)] >= cap OR useds[cardinality(quotas)] - quotas[cardinality(quotas)] >= s.rollover;
        cap := s.rollover;
        until_at := from_at;
    END LOOP;
    FOR i IN REVERSE cardinality(quotas) .. 1 LOOP
        rolled := coalesce(billing_internal.quota_rolled(quotas[i] + rolled, useds[i], nullif(caps[i], 'Infinity')), 0);
    END LOOP;
    RETURN rolled;
END
$$;
COMMENT ON FUNCTION billing_internal.entitlement_rolled(bigint, int, int, text, text, date, text, text, jsonb, numeric, timestamptz) IS
    'What rolled over into the window that begins at from_at: of each window before, quota and what had rolled into it less what was used of what that quota was for, up to the cap that held at the end of the next (rollover; Infinity = none). Windows are today''s, and not more than 24 back play a part.';

CREATE FUNCTION billing_internal.entitlement_used(
    of_customer_id bigint, of_feature_id int, of_kind text, of_meter_id int, resets text, length interval, zone text, starts_on date, every text, alignment text,
    match jsonb, rollover numeric, at timestamptz, OUT used numeric, OUT rolled numeric, OUT from_at timestamptz, OUT until_at timestamptz
)
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    bounds timestamptz[];
    -- whether usage is who or what is there, not what was done
    present boolean;
    -- usage, where what is reserved is not in it
    counted numeric;
BEGIN
    IF resets = 'never' AND of_kind <> 'seat' THEN
        present := (SELECT m.state IN ('level', 'presence') FROM billing.meter m WHERE m.meter_id = of_meter_id);
    END IF;
    IF present OR of_kind = 'seat' THEN
        -- Who is there now: what is carried over says so in any window.
        from_at := date_bin('1 hour', at, '2000-01-01 00:00+00');
        counted := coalesce((SELECT w.quantity FROM billing_internal.usage_window(of_customer_id, of_meter_id, from_at, from_at + interval '1 hour', match) w), 0);
        from_at := NULL;
    ELSE
        IF resets NOT IN ('never', 'hour', 'sliding', 'first_use') THEN
            bounds := billing_internal.quota_window(starts_on, every, alignment, zone, at);
            from_at := bounds[1];
            until_at := bounds[2];
        ELSIF resets = 'never' THEN
            -- Before any usage; the totals of a window have a beginning.
            from_at := '1900-01-01 00:00+00';
            until_at := 'infinity';
        ELSIF resets = 'hour' THEN
            from_at := date_trunc('hour', at, zone);
            until_at := from_at + interval '1 hour';
        ELSIF resets = 'sliding' THEN
            -- All that is stored since: others, who began later, may have been first.
            from_at := at - length + interval '1 microsecond';
            until_at := 'infinity';
        ELSE
            -- Others, who began later, may have been first.
            SELECT w.starts_at, w.ends_at INTO from_at, until_at FROM billing.entitlement_window w
            WHERE w.customer_id = of_customer_id AND w.feature_id = of_feature_id AND w.ends_at > at ORDER BY w.starts_at DESC LIMIT 1;
        END IF;
        IF match = '{}' THEN
            -- Nearly always all is in one statement, and in one snapshot: what usage_window() says of a count or sum whose total is kept, and what is reserved;
            -- NULL where there is more to it. Each relation and each node of its plan costs as much as ten rows, so it has few.
            SELECT CASE WHEN EXISTS (SELECT FROM billing.usage_window_kept w WHERE w.customer_id = of_customer_id AND w.meter_id = of_meter_id AND w.starts_at = from_at AND w.ends_at = until_at AND w.summed)
                    AND NOT EXISTS (SELECT FROM billing.usage_dirty x WHERE x.customer_id = of_customer_id AND x.meter_id = of_meter_id AND x.from_at < entitlement_used.until_at AND x.until_at > entitlement_used.from_at)
                    AND NOT EXISTS (SELECT FROM billing.meter_rebuild x WHERE x.meter_id = of_meter_id AND x.finished_at IS NULL AND x.listed_to < of_customer_id
                        AND x.from_at < entitlement_used.until_at AND x.until_at > entitlement_used.from_at)
                THEN CASE (SELECT k.aggregation FROM billing.meter k WHERE k.meter_id = of_meter_id AND NOT k.definition ? 'rounding')
                    WHEN 'count' THEN coalesce(sum(u.events), 0)
                    WHEN 'sum' THEN CASE WHEN sum(u.events) <> 0 THEN coalesce(sum(u.quantity), 0) ELSE 0 END END
                END + coalesce((SELECT sum(r.quantity) FILTER (WHERE r.expires_at > at) FROM billing.reservation r WHERE r.customer_id = of_customer_id AND r.meter_id = of_meter_id AND r.outcome IS NULL), 0)
            INTO used
            FROM (
                SELECT x.events, x.quantity FROM billing.usage_total x WHERE x.customer_id = of_customer_id AND x.meter_id = of_meter_id AND x.starts_at = from_at AND x.ends_at = until_at
                UNION ALL
                SELECT x.events, x.quantity FROM billing.usage_delta x WHERE x.customer_id = of_customer_id AND x.meter_id = of_meter_id AND x.bucket_start >= from_at AND x.bucket_start < until_at
            ) u;
        END IF;
        IF used IS NULL THEN
            counted := CASE WHEN from_at IS NULL THEN 0 ELSE coalesce((SELECT w.quantity FROM billing_internal.usage_window(of_customer_id, of_meter_id, from_at, until_at, match) w), 0) END;
        END IF;
        IF rollover IS NOT NULL THEN
            rolled := billing_internal.entitlement_rolled(of_customer_id, of_feature_id, of_meter_id, resets, zone, starts_on, every, alignment, match, rollover, from_at);
        END IF;
        until_at := CASE WHEN resets IN ('never', 'sliding') THEN NULL ELSE until_at END;
    END IF;
    rolled := coalesce(rolled, 0);
    IF used IS NULL THEN
        -- What is reserved counts as used while it holds, for whichever feature of the meter; of a part of the usage, by the dimensions of the event to come.
        used := counted + coalesce(CASE WHEN match = '{}' THEN
            (SELECT sum(r.quantity) FILTER (WHERE r.expires_at > at) FROM billing.reservation r WHERE r.customer_id = of_customer_id AND r.meter_id = of_meter_id AND r.outcome IS NULL)
        ELSE
            (SELECT sum(r.quantity) FILTER (WHERE r.expires_at > at) FROM billing.reservation r JOIN billing.meter k USING (meter_id)
                CROSS JOIN LATERAL billing_internal.consume_worth(k.definition::text, r.quantity, r.properties::text, r.bill_to) e
                WHERE r.customer_id = of_customer_id AND r.meter_id = of_meter_id AND r.outcome IS NULL AND e.dimensions::jsonb @> match)
        END, 0);
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.entitlement_used(bigint, int, text, int, text, interval, text, date, text, text, jsonb, numeric, timestamptz) IS
    'How much of a quota is used at an instant, in the window that holds it, reservations included; what rolled over from windows before; and the window. until_at is when it resets; NULL = never at once.';

CREATE FUNCTION billing_internal.may_see(of_customer_id bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN of_customer_id = ANY (billing_internal.my_customers()) OR pg_has_role(billing_internal.caller(), 'billing_reader', 'USAGE')
        OR billing_internal.caller() IN ('billing_engine', 'billing_owner');
END
$$;
COMMENT ON FUNCTION billing_internal.may_see(bigint) IS 'Whether the caller speaks for a customer, or is staff: what row security says, for definers.';

CREATE FUNCTION billing_internal.asks_for_itself() RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- once, since each transaction plans it anew
    who name := billing_internal.caller();
BEGIN
    RETURN pg_has_role(who, 'billing_customer', 'MEMBER') AND NOT pg_has_role(who, 'billing_reader', 'MEMBER');
END
$$;
COMMENT ON FUNCTION billing_internal.asks_for_itself() IS 'Whether the caller is a customer''s login, which reads no prices and changes nothing.';

CREATE FUNCTION billing_internal.customer_credit_left(of_customer_id bigint, of_unit text) RETURNS numeric
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT billing_internal.may_see(of_customer_id) THEN
        RETURN NULL;
    END IF;
    BEGIN
        RETURN coalesce((SELECT s.available FROM billing_internal.credit_standing(of_customer_id, of_unit, billing_internal.moment()) s), 0);
    EXCEPTION WHEN OTHERS THEN
        -- What keeps usage from being priced is for staff.
        IF left(SQLSTATE, 2) <> 'ZB' THEN
            RAISE;
        END IF;
        PERFORM billing_internal.fail(SQLSTATE, format('what %s credit is available can''t be said now', of_unit), 'Ask your provider.');
    END;
END
$$;
COMMENT ON FUNCTION billing_internal.customer_credit_left(bigint, text) IS 'What a customer has available of a unit, for those who may see it: what is pending is priced, and a customer''s login reads no prices. NULL for others. Errors: the code of what keeps usage from being priced, without the reason.';

CREATE FUNCTION billing_internal.credit_left(of_customer_id bigint, of_unit text) RETURNS numeric
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
BEGIN
    IF billing_internal.asks_for_itself() THEN
        RETURN billing_internal.customer_credit_left(of_customer_id, of_unit);
    END IF;
    RETURN coalesce((SELECT s.available FROM billing_internal.credit_standing(of_customer_id, of_unit, billing_internal.moment()) s), 0);
END
$$;
COMMENT ON FUNCTION billing_internal.credit_left(bigint, text) IS 'What a customer has available of a unit.';

CREATE FUNCTION billing_internal.entitlement_windows_keep(of_customer_id bigint, of_feature_id int) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    s record;
    u record;
BEGIN
    FOR s IN SELECT f.kind, f.meter_id, e.* FROM billing.entitlement_state e JOIN billing.feature f USING (feature_id)
        WHERE e.customer_id = of_customer_id AND (of_feature_id IS NULL OR e.feature_id = of_feature_id) AND e.valid_during @> billing.now() AND f.kind = 'metered' AND e.resets NOT IN ('sliding', 'first_use') LOOP
        u := billing_internal.entitlement_used(of_customer_id, s.feature_id, s.kind, s.meter_id, s.resets, s.length, s.zone, s.starts_on, s.every, s.alignment, s.match, NULL, billing.now());
        IF u.from_at IS NOT NULL THEN
            PERFORM billing_internal.usage_window_keep(of_customer_id, s.meter_id, u.from_at, coalesce(u.until_at, 'infinity'));
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.entitlement_windows_keep(bigint, int) IS 'Asks that totals of the windows that run now be kept, of one feature or (NULL) all: then a check reads no bucket. Nothing but speed depends on it.';

-- ── asking ───────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.refuse_quantity(quantity numeric, done text, hint text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.fail('ZB004', format('%s can''t be %s', coalesce(quantity::text, 'NULL'), done), CASE WHEN quantity > 0 THEN 'Numbers have up to 28 digits.' ELSE hint END);
END
$$;
COMMENT ON FUNCTION billing_internal.refuse_quantity(numeric, text, text) IS 'Errors: ZB004, always: a quantity that is missing, too small (so the hint), too large or none.';

CREATE FUNCTION billing_internal.event_asked(of_customer_id bigint, of_meter_id int, INOUT quantity numeric, INOUT dimensions jsonb, bill_to text, OUT properties text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    w record;
BEGIN
    IF jsonb_typeof(dimensions) <> 'object' THEN
        PERFORM billing_internal.fail('ZB004', 'the dimensions must be an object', 'Pass {"model": "gpt-4"}, or {}.');
    ELSIF bill_to IS NOT NULL AND NOT EXISTS (SELECT FROM billing.bill_to b WHERE b.customer_id = of_customer_id AND b.key = event_asked.bill_to) THEN
        PERFORM billing_internal.fail('ZB001', format('the customer has no legal entity %s', quote_literal(bill_to)), 'SELECT key FROM billing.bill_to; lists them.');
    END IF;
    dimensions := coalesce(dimensions, '{}');
    SELECT x.* INTO w FROM billing.meter m CROSS JOIN LATERAL billing_internal.consume_worth(m.definition::text, event_asked.quantity, event_asked.dimensions::text, event_asked.bill_to) x WHERE m.meter_id = of_meter_id;
    IF FOUND THEN
        quantity := w.quantity;
        dimensions := w.dimensions::jsonb;
        properties := w.properties;
    ELSE
        -- Too little is said to make an event of: the question is of what is said.
        dimensions := dimensions || jsonb_strip_nulls(jsonb_build_object('bill_to', bill_to));
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.event_asked(bigint, int, numeric, jsonb, text) IS
    'What a question about a quantity of a meter with such properties, paid by a legal entity, is of: what the event that consume() would store counts, its dimensions, and its properties (NULL = no event can be made of these). Errors: ZB001 the legal entity, ZB004 no object.';

CREATE FUNCTION billing_internal.entitlement_asked(customer text, feature text, quantity numeric, dimensions jsonb, bill_to text, at timestamptz, to_use boolean,
    OUT allowed boolean, OUT reason text, OUT kind text, OUT mode text, OUT used numeric, OUT quota numeric, OUT remaining numeric, OUT resets_at timestamptz, OUT source text, OUT value jsonb, OUT limited boolean)
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    by_key text := entitlement_asked.customer;
    s record;
    u record;
    properties text;
BEGIN
    IF (billing_internal.require_installed() IS NULL) IS NULL THEN -- an expression, which costs less than PERFORM
        RETURN;
    END IF;
    at := coalesce(at, billing_internal.moment());
    LOOP
        SELECT c.customer_id, f.feature_id, f.kind, f.meter_id, f.unit, e.suspended, e.value, e.quota, e.mode, e.resets, e.length, e.zone, e.starts_on, e.every, e.alignment, e.match, e.rollover, e.rate, e.source,
            EXISTS (SELECT FROM billing.spend_limit l WHERE l.customer_id = c.customer_id AND l.ended_at IS NULL) AS limited INTO s
        FROM billing.customer c CROSS JOIN billing.feature f
        LEFT JOIN billing.entitlement_state e ON e.customer_id = c.customer_id AND e.feature_id = f.feature_id AND e.valid_during @> entitlement_asked.at
        WHERE c.key = by_key AND f.key = entitlement_asked.feature AND entitlement_asked.quantity >= 0 AND entitlement_asked.quantity < 1e28;
        EXIT WHEN FOUND;
        -- By an alias or id, or this raises.
        IF (entitlement_asked.quantity >= 0 AND entitlement_asked.quantity < 1e28) IS NOT TRUE THEN
            PERFORM billing_internal.refuse_quantity(entitlement_asked.quantity, 'asked for', 'Ask for 0 or more.');
        END IF;
        PERFORM billing_internal.find_feature(entitlement_asked.feature);
        SELECT c.key INTO by_key FROM billing.customer c WHERE c.customer_id = billing_internal.find_customer(entitlement_asked.customer);
    END LOOP;
    kind := s.kind;
    limited := s.limited AND s.meter_id IS NOT NULL;
    IF s.meter_id IS NOT NULL AND NOT to_use AND (limited OR entitlement_asked.bill_to IS NOT NULL OR entitlement_asked.dimensions IS DISTINCT FROM '{}') THEN
        u := billing_internal.event_asked(s.customer_id, s.meter_id, entitlement_asked.quantity, entitlement_asked.dimensions, entitlement_asked.bill_to);
        entitlement_asked.quantity := u.quantity;
        entitlement_asked.dimensions := u.dimensions;
        properties := u.properties;
    END IF;
    IF s.match <> '{}' THEN -- by itself: an expression with a query in it costs what a statement does, also where it isn't asked
        IF EXISTS (SELECT FROM jsonb_each(s.match) m WHERE coalesce(entitlement_asked.dimensions->>m.key <> m.value #>> '{}', to_use)) THEN
            s.source := NULL;
        END IF;
    END IF;
    source := s.source;
    value := CASE WHEN s.source IS NOT NULL THEN coalesce(s.rate, s.value) END;
    IF s.source IS NULL THEN
        allowed := false;
        reason := 'not_entitled';
    ELSIF s.suspended THEN
        allowed := false;
        reason := 'suspended';
    ELSIF s.kind = 'metered' OR s.kind = 'seat' THEN
        mode := s.mode;
        u := billing_internal.entitlement_used(s.customer_id, s.feature_id, s.kind, s.meter_id, s.resets, s.length, s.zone, s.starts_on, s.every, s.alignment, s.match, s.rollover, at);
        used := u.used;
        quota := s.quota + u.rolled;
        remaining := CASE WHEN s.quota IS NOT NULL THEN greatest(quota - u.used, 0) END;
        resets_at := u.until_at;
        reason := billing_internal.quota_verdict(s.mode, s.quota + u.rolled, u.used, entitlement_asked.quantity);
        allowed := reason <> 'quota_exceeded';
        IF reason IS NULL THEN
            PERFORM billing_internal.refuse_quantity(entitlement_asked.quantity, 'asked for', 'Ask for 0 or more.');
        END IF;
    ELSIF s.kind = 'credit' THEN
        allowed := s.value = 'true';
        reason := CASE WHEN allowed THEN 'allowed' ELSE 'not_entitled' END;
        IF allowed THEN
            remaining := billing_internal.credit_left(s.customer_id, s.unit);
            allowed := remaining > 0;
            reason := CASE WHEN allowed THEN 'allowed' WHEN NOT allowed THEN 'no_credit' END;
        END IF;
    ELSIF s.kind = 'rate_limit' THEN
        allowed := true;
        IF NOT to_use THEN
            u := billing_internal.rate_look(s.customer_id, s.feature_id, (s.rate->>'limit')::numeric, (s.rate->>'burst')::numeric, entitlement_asked.quantity, (s.rate->>'per')::interval);
            allowed := u.allowed;
            remaining := u.remaining + CASE WHEN allowed THEN entitlement_asked.quantity ELSE 0 END; -- a question takes nothing
            resets_at := CASE WHEN NOT allowed THEN at + u.retry_after END;
        END IF;
        reason := CASE WHEN allowed THEN 'allowed' ELSE 'rate_limited' END;
    ELSE
        allowed := s.value <> 'false';
        reason := CASE WHEN allowed THEN 'allowed' ELSE 'not_entitled' END;
    END IF;
    IF limited AND allowed AND NOT to_use AND entitlement_asked.quantity > 0 THEN
        u := billing_internal.limits_say(s.customer_id, s.meter_id, entitlement_asked.quantity, entitlement_asked.dimensions, entitlement_asked.bill_to, properties);
        IF NOT u.allowed OR u.reason = 'soft_limit' THEN
            allowed := u.allowed;
            reason := u.reason;
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.entitlement_asked(text, text, numeric, jsonb, text, timestamptz, boolean) IS
    'What entitlement_check() says at an instant (NULL = this moment), and whether limits in money or units may be about it. to_use: for whoever goes on to count it: quantity and dimensions are the event''s and must say that the usage is of what the entitlement is for, limits are left to limits_check(), rate limits to rate_take().';

CREATE FUNCTION billing.entitlement_check(customer text, feature text, quantity numeric DEFAULT 1, dimensions jsonb DEFAULT '{}', bill_to text DEFAULT NULL)
    RETURNS TABLE (allowed boolean, reason text, kind text, mode text, used numeric, quota numeric, remaining numeric, resets_at timestamptz, source text, value jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 -- bound when made: inlined, so no search_path
BEGIN ATOMIC
    SELECT a.allowed, a.reason, a.kind, a.mode, a.used, a.quota, a.remaining, a.resets_at, a.source, a.value
    FROM billing_internal.entitlement_asked(entitlement_check.customer, entitlement_check.feature, entitlement_check.quantity, entitlement_check.dimensions, entitlement_check.bill_to, NULL, false) a;
END;
COMMENT ON FUNCTION billing.entitlement_check(text, text, numeric, jsonb, text) IS
    'Whether a customer may use so much of a feature now, and why: allowed, unlimited, soft_limit (above the quota, allowed), overage (above it, allowed and billed), not_entitled, quota_exceeded, no_credit, suspended, rate_limited (resets_at says when it would pass; nothing is taken, remaining is what may come at once), spend_limit or budget. used and quota are of the window that runs (what is reserved counts as used, what rolled over is in the quota; NULL = unlimited), resets_at is its end. dimensions and bill_to say which usage is meant, as properties and legal entity do in consume(): it says what that would (but for credit, of which any is enough here); what they leave out may be any, where an entitlement or limit is for some usage only. A customer''s login may ask for its own customers. Counts nothing: between this and the use others may use it up; billing.consume() checks and counts in one. Errors: ZB001 customer, feature, legal entity, ZB004 quantity, dimensions.';

CREATE FUNCTION billing.entitled(customer text, feature text, quantity numeric DEFAULT 1, dimensions jsonb DEFAULT '{}', bill_to text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    at timestamptz := billing_internal.moment();
    s record;
    u record;
    allowed boolean;
BEGIN
    IF (billing_internal.require_installed() IS NULL) IS NULL THEN -- an expression, which costs less than PERFORM
        RETURN NULL;
    END IF;
    SELECT c.customer_id, f.feature_id, f.kind, f.meter_id, e.suspended, e.value, e.quota, e.mode, e.resets, e.length, e.zone, e.starts_on, e.every, e.alignment, e.match, e.rollover,
        CASE WHEN f.meter_id IS NOT NULL THEN EXISTS (SELECT FROM billing.spend_limit l WHERE l.customer_id = c.customer_id AND l.ended_at IS NULL) END AS limited INTO s
    FROM billing.customer c CROSS JOIN billing.feature f
    LEFT JOIN billing.entitlement_state e ON e.customer_id = c.customer_id AND e.feature_id = f.feature_id AND e.valid_during @> at
    WHERE c.key = customer AND f.key = feature AND quantity >= 0 AND quantity < 1e28;
    IF FOUND THEN
        -- What entitlement_check() says of the ordinary cases, with less ado.
        IF s.suspended IS NOT FALSE THEN
            RETURN false;
        ELSIF s.kind IN ('boolean', 'static') THEN
            RETURN s.value <> 'false';
        ELSIF s.kind IN ('metered', 'seat') AND NOT s.limited AND dimensions = '{}' AND bill_to IS NULL THEN
            u := billing_internal.entitlement_used(s.customer_id, s.feature_id, s.kind, s.meter_id, s.resets, s.length, s.zone, s.starts_on, s.every, s.alignment, s.match, s.rollover, at);
            allowed := billing_internal.quota_verdict(s.mode, s.quota + u.rolled, u.used, quantity) <> 'quota_exceeded';
            IF allowed IS NOT NULL THEN
                RETURN allowed;
            END IF;
        END IF;
    ELSIF billing_internal.customer_of(customer) IS NULL THEN
        -- In a WHERE clause over rows of many a customer nobody knows, or whom this login may not see, has nothing.
        PERFORM billing_internal.find_feature(feature);
        RETURN false;
    END IF;
    u := billing_internal.entitlement_asked(customer, feature, quantity, dimensions, bill_to, at, false);
    RETURN coalesce(u.allowed, false);
END
$$;
COMMENT ON FUNCTION billing.entitled(text, text, numeric, jsonb, text) IS
    'Whether a customer may use so much of a feature now: entitlement_check() in one word, cheap enough for WHERE clauses and row security policies. A customer that is not known, or not the login''s own, has nothing. Errors: ZB001 feature, legal entity, ZB004 quantity, dimensions.';

CREATE FUNCTION billing.entitlements(customer text)
    RETURNS TABLE (feature text, name text, kind text, allowed boolean, reason text, value jsonb, mode text, used numeric, quota numeric, remaining numeric, resets text, resets_at timestamptz,
        source text, why jsonb, valid_until timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    of_customer_id bigint;
    of_key text;
    at timestamptz := billing_internal.moment();
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    SELECT c.key INTO of_key FROM billing.customer c WHERE c.customer_id = of_customer_id;
    RETURN QUERY
    SELECT f.key, f.name, f.kind, x.allowed, x.reason, x.value, x.mode, x.used, x.quota, x.remaining, CASE WHEN f.kind = 'metered' THEN s.resets END, x.resets_at, s.source, s.heard, upper(s.valid_during)
    FROM billing.entitlement_state s JOIN billing.feature f USING (feature_id)
    CROSS JOIN LATERAL billing_internal.entitlement_asked(of_key, f.key, 1, '{}', NULL, at, false) x
    WHERE s.customer_id = of_customer_id AND s.valid_during @> at ORDER BY f.key;
END
$$;
COMMENT ON FUNCTION billing.entitlements(text) IS
    'Everything a customer has, feature by feature: whether one more may be used and why (reason), value, how much is used of the quota and when it resets, who gives it (source), all that say something about it in the order they are heard (why: [{"source","value","effect"}]), and until when that holds as far as it is known. Errors: ZB001.';

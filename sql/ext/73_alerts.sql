-- Alerts, and the feed of events that tells them.
--
-- A crossing is an entry of the feed under a key of rule, what it measures, threshold and period, so it is told once, whoever sees it
-- first. Who uses looks at the present period; the job looks at those that ended, too, until a day later (alert_rule.looked_until).
-- Credit has no periods: on which side of a threshold it was is remembered under a lock (alert_state). Entries get their number after
-- they are committed, by one session at a time: nobody who reads by number misses what commits late.

CREATE FUNCTION billing.alert_rule_set(customer text, doc jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    c record;
    d jsonb;
    old record;
    l record;
    of_meter_id int;
    of_feature record;
    of_contract_id uuid;
    new_unit text;
    looked timestamptz;
    new_id uuid := billing_internal.uuid_v7();
BEGIN
    PERFORM billing_internal.require_installed();
    d := billing_internal.read_limit_document('alert_rule', doc);
    of_customer_id := billing_internal.find_customer(customer);
    SELECT * INTO c FROM billing.customer x WHERE x.customer_id = of_customer_id FOR NO KEY UPDATE;
    UPDATE billing.alert_rule r SET ended_at = clock_timestamp() WHERE r.customer_id = of_customer_id AND r.key = d->>'key' AND r.ended_at IS NULL RETURNING r.* INTO old;
    IF (d->>'end')::boolean IS TRUE THEN
        IF old.rule_id IS NULL THEN
            PERFORM billing_internal.fail('ZB001', format('customer %s has no alert rule %s', c.key, quote_literal(d->>'key')), 'SELECT key, kind FROM billing.alert_rule WHERE ended_at IS NULL; lists them.');
        END IF;
    ELSE
        IF d ? 'limit' THEN
            SELECT * INTO l FROM billing.spend_limit x WHERE x.customer_id = of_customer_id AND x.key = d->>'limit' AND x.ended_at IS NULL;
            IF l.limit_id IS NULL THEN
                PERFORM billing_internal.fail('ZB001', format('limit: customer %s has no limit or budget %s', c.key, quote_literal(d->>'limit')), format('SELECT * FROM billing.spend_limits(%1$L); and billing.budgets(%1$L); list them.', c.key));
            ELSIF (d->>'kind' = 'usage') <> (l.meter_id IS NOT NULL) THEN
                PERFORM billing_internal.fail('ZB003', format('limit: %s is in %s', l.key, CASE WHEN l.meter_id IS NULL THEN 'money' ELSE 'units' END), 'A rule of kind usage takes a budget in units, one of kind spend a limit in money.');
            END IF;
        END IF;
        of_meter_id := CASE WHEN d ? 'meter' THEN billing_internal.find_meter(d->>'meter') END;
        SELECT f.feature_id, f.key, f.kind INTO of_feature FROM billing.feature f WHERE f.feature_id = CASE WHEN d ? 'feature' THEN billing_internal.find_feature(d->>'feature') END;
        IF of_feature.kind NOT IN ('metered', 'seat') THEN
            PERFORM billing_internal.fail('ZB003', format('feature: %s is a %s feature and has no quota', of_feature.key, of_feature.kind), 'Metered and seat features have one; a rule of kind credit looks at what is available.');
        END IF;
        PERFORM billing_internal.check_limit_target(of_customer_id, of_meter_id, coalesce(d->'match', '{}'), d->>'bill_to');
        IF d ? 'contract' THEN
            SELECT k.contract_id INTO of_contract_id FROM billing.contract k WHERE k.customer_id = of_customer_id AND k.key = d->>'contract';
            IF of_contract_id IS NULL THEN
                PERFORM billing_internal.fail('ZB001', format('contract: %s is not one of customer %s', quote_literal(d->>'contract'), c.key), 'SELECT key, state FROM billing.contract; lists them.');
            END IF;
        END IF;
        IF d ? 'commitment' AND NOT EXISTS (SELECT FROM billing.commitment m WHERE m.customer_id = of_customer_id AND m.key = d->>'commitment' AND (of_contract_id IS NULL OR m.contract_id = of_contract_id)) THEN
            PERFORM billing_internal.fail('ZB001', format('commitment: customer %s has no commitment %s', c.key, quote_literal(d->>'commitment')), 'SELECT key, contract_id FROM billing.commitment; lists them.');
        END IF;
        IF d->>'kind' = 'spend' AND d ? 'unit' THEN
            PERFORM billing_internal.check_currency(d->>'unit', (billing.now() AT TIME ZONE c.time_zone)::date);
        END IF;
        new_unit := CASE WHEN d->>'kind' = 'credit' OR d->>'kind' = 'spend' AND NOT d ? 'limit' THEN coalesce(d->>'unit', c.currency) END;
        -- What measures the same goes on from where the job looked last: a period that ended since then is still to be told.
        looked := CASE WHEN (old.kind, old.meter_id, old.feature_id, old.match, old.bill_to, old.unit, old.limit_key, old.contract_id, old.commitment, old.period)
            IS NOT DISTINCT FROM (d->>'kind', of_meter_id, of_feature.feature_id, coalesce(d->'match', '{}'), d->>'bill_to', new_unit, d->>'limit', of_contract_id, d->>'commitment', d->>'period') THEN old.looked_until ELSE billing.now() END;
        INSERT INTO billing.alert_rule (customer_id, rule_id, key, kind, meter_id, feature_id, match, bill_to, unit, limit_key, contract_id, commitment, base, period, thresholds, looked_until, reason, set_at, set_by)
        VALUES (of_customer_id, new_id, d->>'key', d->>'kind', of_meter_id, of_feature.feature_id, coalesce(d->'match', '{}'), d->>'bill_to', new_unit, d->>'limit', of_contract_id, d->>'commitment',
            (d->>'of')::numeric, d->>'period', d->'thresholds', looked, d->>'reason', clock_timestamp(), billing_internal.caller());
        IF d->>'kind' = 'credit' AND old.kind = 'credit' AND old.unit = new_unit THEN
            -- It was told where it is below.
            INSERT INTO billing.alert_state (customer_id, rule_id, threshold, crossings, below)
            SELECT of_customer_id, new_id, a.threshold, a.crossings, a.below FROM (
                SELECT x.* FROM billing.alert_state x WHERE x.customer_id = of_customer_id AND x.rule_id = old.rule_id AND d->'thresholds' ? x.threshold ORDER BY x.threshold FOR UPDATE) a;
        END IF;
    END IF;
    PERFORM billing_internal.audit('alert_rule_set', 'customer', c.key, of_customer_id,
        CASE WHEN old.rule_id IS NOT NULL THEN jsonb_build_object('key', old.key, 'kind', old.kind, 'thresholds', old.thresholds) END, d - 'reason', d->>'reason');
    PERFORM billing_internal.alerts_look(of_customer_id);
END
$$;
COMMENT ON FUNCTION billing.alert_rule_set(text, jsonb) IS
    'Tells in billing.event_feed, once per crossing and period, when a threshold is reached: {"key", "kind", "thresholds": ["80%", "100%"] or ["500"], …}. usage: "limit" (a budget in units), "feature" (its quota), or "meter", "period", "match"; spend: "limit" (a limit or budget in money), or "period", "match", "bill_to", "unit" (a currency); both without a limit or feature: "of" (what is 100%). credit: "unit" (the customer''s currency), "of" (else what blocks in force were granted): told when what is available falls to the threshold, again after it has been above. commitment: "contract", "commitment" (else all): used of each period. Takes the place of the rule with that key, and does not tell again what that told; {"key","end":true} ends it. Looked at after every consume() and change of reservations and seats, rules of credit after every draw_down(); by tick() and CALL billing.alerts() also for usage that came without a call, and periods that ended, until a day later. Errors: ZB001, ZB003, ZB004.';

-- ── what there is to look at ─────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.alert_windows(of_customer_id bigint, period text, at timestamptz, since timestamptz) RETURNS TABLE (starts_at timestamptz, ends_at timestamptz)
    LANGUAGE plpgsql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    w record;
BEGIN
    FOR n IN 1 .. 40 LOOP
        w := billing_internal.limit_window(of_customer_id, period, coalesce(starts_at - interval '1 microsecond', at));
        EXIT WHEN w.ends_at > starts_at;
        starts_at := w.starts_at;
        ends_at := w.ends_at;
        RETURN NEXT;
        EXIT WHEN (starts_at > since) IS NOT TRUE;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.alert_windows(bigint, text, timestamptz, timestamptz) IS 'The period of a rule that holds an instant, and of those before it the last 39 that ended after since (NULL = none).';

CREATE FUNCTION billing_internal.alert_quotas(of_customer_id bigint, of_feature_id int, at timestamptz, since timestamptz)
    RETURNS TABLE (starts_at timestamptz, ends_at timestamptz, quota numeric, used numeric)
    LANGUAGE plpgsql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    s record;
    u record;
    w record;
    runs boolean;
    looked timestamptz := at;
BEGIN
    FOR n IN 1 .. 40 LOOP
        SELECT f.kind, f.meter_id, x.* INTO s FROM billing.feature f JOIN billing.entitlement_state x ON x.customer_id = of_customer_id AND x.feature_id = f.feature_id AND x.valid_during @> looked
        WHERE f.feature_id = of_feature_id AND NOT x.suspended;
        runs := FOUND;
        IF runs THEN
            u := billing_internal.entitlement_used(of_customer_id, of_feature_id, s.kind, s.meter_id, s.resets, s.length, s.zone, s.starts_on, s.every, s.alignment, s.match, s.rollover, looked);
            -- Where no window begins anew it is told once (never), a month (seats) or for as long as the window is (sliding).
            IF s.kind = 'seat' THEN
                w := billing_internal.limit_window(of_customer_id, 'month', looked);
            ELSIF s.resets = 'first_use' AND looked < at THEN
                SELECT x.starts_at, x.ends_at INTO w FROM billing.entitlement_window x
                WHERE x.customer_id = of_customer_id AND x.feature_id = of_feature_id AND x.starts_at <= looked AND x.ends_at > looked ORDER BY x.starts_at DESC LIMIT 1;
                runs := FOUND;
            ELSE
                SELECT CASE s.resets WHEN 'never' THEN NULL WHEN 'sliding' THEN date_bin(s.length, looked, '2000-01-01 00:00+00') ELSE u.from_at END AS starts_at, u.until_at AS ends_at INTO w;
                runs := s.resets = 'never' OR u.from_at IS NOT NULL;
            END IF;
        END IF;
        IF NOT runs THEN
            -- None runs then: the last one that ended since.
            looked := (SELECT max(x.ended) FROM (
                SELECT upper(y.valid_during) AS ended FROM billing.entitlement_state y WHERE y.customer_id = of_customer_id AND y.feature_id = of_feature_id AND NOT y.suspended
                UNION ALL
                SELECT y.ends_at FROM billing.entitlement_window y WHERE y.customer_id = of_customer_id AND y.feature_id = of_feature_id) x
                WHERE x.ended <= looked AND x.ended > since) - interval '1 microsecond';
            EXIT WHEN looked IS NULL;
            CONTINUE;
        END IF;
        EXIT WHEN starts_at IS NOT NULL AND (w.ends_at <= starts_at) IS NOT TRUE;
        starts_at := w.starts_at;
        ends_at := w.ends_at;
        quota := s.quota + u.rolled;
        -- What is reserved now says nothing of a window that ended.
        used := CASE WHEN looked = at OR s.kind = 'seat' OR s.resets IN ('never', 'sliding') THEN u.used ELSE coalesce((SELECT x.quantity FROM billing_internal.usage_window(of_customer_id, s.meter_id, w.starts_at, w.ends_at, s.match) x), 0) END;
        RETURN NEXT;
        EXIT WHEN ends_at IS NULL OR (starts_at > since) IS NOT TRUE;
        looked := starts_at - interval '1 microsecond';
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.alert_quotas(bigint, int, timestamptz, timestamptz) IS 'The window of a quota that holds an instant, what rolled over included, and what is used of it; and of those before it the last 39 that ended after since (NULL = none).';

CREATE FUNCTION billing_internal.alert_measures(of_customer_id bigint, at timestamptz, past boolean DEFAULT false)
    RETURNS TABLE (rule_id uuid, id text, about jsonb, starts_at timestamptz, ends_at timestamptz, base numeric, unit text, of text, ask jsonb, pool_id uuid, feature text, so_far numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT r.rule_id, k.id, jsonb_build_array('use', r.limit_key, k.meter, k.currency, k.filter, k.bill_to, k.period), w.starts_at, w.ends_at, coalesce(l.amount, r.base), coalesce(l.currency, r.unit, m.unit, m.key), r.limit_key,
        jsonb_build_object('id', k.id, 'meter_id', m.meter_id, 'currency', k.currency, 'filter', k.filter, 'bill_to', k.bill_to, 'from_at', w.starts_at, 'until_at', w.ends_at), NULL::uuid, NULL::text, NULL::numeric
    FROM billing.alert_rule r LEFT JOIN billing.spend_limit l ON l.customer_id = r.customer_id AND l.key = r.limit_key AND l.ended_at IS NULL
    LEFT JOIN billing.meter m ON m.meter_id = coalesce(l.meter_id, r.meter_id)
    CROSS JOIN LATERAL billing_internal.alert_windows(of_customer_id, coalesce(l.period, r.period), at, CASE WHEN past THEN r.looked_until END) w
    CROSS JOIN LATERAL (SELECT r.rule_id || '/' || billing_internal.rfc3339(w.starts_at) AS id, m.key AS meter, coalesce(l.currency, CASE WHEN m.meter_id IS NULL THEN r.unit END) AS currency,
        coalesce(l.match, r.match) AS filter, coalesce(l.bill_to, r.bill_to) AS bill_to, coalesce(l.period, r.period) AS period) k
    WHERE r.customer_id = of_customer_id AND r.ended_at IS NULL AND r.kind IN ('usage', 'spend') AND r.feature_id IS NULL AND (r.limit_key IS NULL OR l.limit_id IS NOT NULL);
    RETURN QUERY
    SELECT r.rule_id, r.rule_id || '/' || coalesce(billing_internal.rfc3339(q.starts_at), ''), jsonb_build_array('quota', f.key), q.starts_at, q.ends_at, q.quota, coalesce(f.unit, f.key), NULL, NULL::jsonb, NULL::uuid, f.key, q.used
    FROM billing.alert_rule r JOIN billing.feature f USING (feature_id)
    CROSS JOIN LATERAL billing_internal.alert_quotas(of_customer_id, f.feature_id, at, CASE WHEN past THEN r.looked_until END) q
    WHERE r.customer_id = of_customer_id AND r.ended_at IS NULL;
    RETURN QUERY
    SELECT r.rule_id, i.id, jsonb_build_array('commitment', p.commitment_id), p.starts_at, p.ends_at, coalesce(o.credits, p.amount),
        coalesce(CASE WHEN o.pool_id IS NOT NULL THEN (SELECT min(g.unit) FROM billing.credit_grant g WHERE g.customer_id = of_customer_id AND g.pool_id = p.pool_id) END, p.unit), k.key || '/' || c.key,
        jsonb_build_object('id', i.id, 'meter_id', p.meter_id, 'currency', CASE WHEN p.meter_id IS NULL THEN p.unit END, 'contract_id', c.contract_id, 'scope', p.terms->'scope',
            'filter', coalesce(p.terms->'scope'->'dimensions', '{}'), 'from_at', p.starts_at, 'until_at', coalesce(p.ends_at, at + interval '1 microsecond')), p.pool_id, NULL::text, NULL::numeric
    FROM billing.alert_rule r
    JOIN billing.commitment c ON c.customer_id = r.customer_id AND (r.commitment IS NULL OR c.key = r.commitment) AND (r.contract_id IS NULL OR c.contract_id = r.contract_id)
    JOIN billing.contract k ON k.customer_id = c.customer_id AND k.contract_id = c.contract_id
    JOIN billing.commitment_period p ON p.customer_id = c.customer_id AND p.commitment_id = c.commitment_id AND p.until_version IS NULL AND p.starts_at <= at
        AND (p.ends_at IS NULL OR p.ends_at > CASE WHEN past THEN least(at, r.looked_until) ELSE at END)
    CROSS JOIN LATERAL (SELECT r.rule_id || '/' || p.commitment_id || '/' || billing_internal.rfc3339(p.starts_at) AS id) i
    LEFT JOIN billing.credit_pool o ON o.customer_id = p.customer_id AND o.pool_id = p.pool_id
    WHERE r.customer_id = of_customer_id AND r.ended_at IS NULL AND r.kind = 'commitment';
END
$$;
COMMENT ON FUNCTION billing_internal.alert_measures(bigint, timestamptz, boolean) IS 'What a customer''s rules of usage, spend and commitment look at: its period, what is 100 percent, and how to ask uses(), or the pool of credits that is drawn, or the feature and what is used of its quota; about tells one measure from another. past: also periods that ended after they were looked at last.';

CREATE FUNCTION billing_internal.alert_tell(of_customer_id bigint, of_kind text, of_subject text, of_key text, of_payload jsonb) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM billing.event_feed f WHERE f.customer_id = of_customer_id AND f.key = of_key) THEN
        RETURN false;
    END IF;
    INSERT INTO billing.event_feed (customer_id, feed_id, kind, subject, key, occurred_at, recorded_at, payload)
    VALUES (of_customer_id, billing_internal.uuid_v7(), of_kind, of_subject, of_key, billing.now(), clock_timestamp(), jsonb_strip_nulls(of_payload))
    ON CONFLICT ON CONSTRAINT event_feed_customer_id_key_key DO NOTHING;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION billing_internal.alert_tell(bigint, text, text, text, jsonb) IS 'Writes an entry of the feed, unless there is one under that key. Whether it did.';

CREATE FUNCTION billing_internal.alert_at(threshold text, base numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN threshold LIKE '%\%' THEN base * rtrim(threshold, '%')::numeric / 100 ELSE threshold::numeric END;
COMMENT ON FUNCTION billing_internal.alert_at(text, numeric) IS 'A threshold as an amount; NULL for a percentage of nothing known, which is never reached.';

CREATE FUNCTION billing_internal.alert_credit(of_customer_id bigint, of_rule_id uuid) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    t record;
    s record;
    at timestamptz := billing.now();
    available numeric;
    base numeric;
    fired bigint := 0;
    locked boolean := false;
BEGIN
    SELECT * INTO r FROM billing.alert_rule x WHERE x.customer_id = of_customer_id AND x.rule_id = of_rule_id;
    LOOP
        -- Who never had any has fallen to no part of it.
        base := coalesce(r.base, (SELECT CASE WHEN count(*) > 0 THEN coalesce(sum(g.amount) FILTER (WHERE g.expires_at IS NULL OR g.expires_at > at), 0) END
            FROM billing.credit_grant g WHERE g.customer_id = of_customer_id AND g.unit = r.unit AND g.voided_at IS NULL AND g.effective_at <= at));
        available := coalesce((SELECT x.available FROM billing_internal.credit_standing(of_customer_id, r.unit, at) x), 0);
        -- A look changes nothing as a rule, so it takes the lock only to write, and then looks again.
        EXIT WHEN locked OR NOT EXISTS (SELECT FROM jsonb_array_elements_text(r.thresholds) x LEFT JOIN billing.alert_state a ON a.customer_id = of_customer_id AND a.rule_id = of_rule_id AND a.threshold = x
            WHERE coalesce(a.below, false) <> (available <= billing_internal.alert_at(x, base)));
        -- Who sets it anew carries on from what is told here, or has.
        PERFORM FROM billing.alert_rule x WHERE x.customer_id = of_customer_id AND x.rule_id = of_rule_id AND x.ended_at IS NULL FOR SHARE;
        EXIT WHEN NOT FOUND;
        INSERT INTO billing.alert_state (customer_id, rule_id, threshold, crossings, below)
        SELECT of_customer_id, of_rule_id, x, 0, false FROM jsonb_array_elements_text(r.thresholds) x ORDER BY x ON CONFLICT ON CONSTRAINT alert_state_pkey DO NOTHING;
        PERFORM FROM billing.alert_state a WHERE a.customer_id = of_customer_id AND a.rule_id = of_rule_id ORDER BY a.threshold FOR UPDATE;
        locked := true;
    END LOOP;
    IF NOT locked THEN
        RETURN 0;
    END IF;
    FOR t IN SELECT x.threshold, billing_internal.alert_at(x.threshold, base) AS amount FROM jsonb_array_elements_text(r.thresholds) x (threshold) ORDER BY amount DESC, x.threshold LOOP
        UPDATE billing.alert_state a SET below = available <= t.amount, crossings = a.crossings + (available <= t.amount)::int
        WHERE a.customer_id = of_customer_id AND a.rule_id = of_rule_id AND a.threshold = t.threshold AND a.below <> (available <= t.amount) RETURNING a.* INTO s;
        IF s.below THEN
            fired := fired + billing_internal.alert_tell(of_customer_id, 'alert.credit', r.key, format('alert/%s/%s/%s', of_rule_id, t.threshold, s.crossings),
                jsonb_build_object('rule', r.key, 'threshold', t.threshold, 'at', trim_scale(t.amount)::text, 'available', trim_scale(available)::text, 'granted', trim_scale(base)::text, 'unit', r.unit, 'crossing', s.crossings))::int;
        END IF;
    END LOOP;
    RETURN fired;
END
$$;
COMMENT ON FUNCTION billing_internal.alert_credit(bigint, uuid) IS 'Looks at what is available for a rule of credit, and tells the thresholds that it has fallen to since it was above. How many.';

CREATE FUNCTION billing_internal.alerts_tell(of_customer_id bigint, past boolean) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    at timestamptz := billing.now();
    r record;
    fired bigint := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM billing.alert_rule x WHERE x.customer_id = of_customer_id AND x.ended_at IS NULL) THEN
        RETURN 0;
    END IF;
    PERFORM billing_internal.uses_keep(of_customer_id, (SELECT jsonb_agg(m.ask) FROM billing_internal.alert_measures(of_customer_id, at, past) m WHERE m.pool_id IS NULL AND m.feature IS NULL));
    FOR r IN
        WITH measure AS MATERIALIZED (
            SELECT * FROM billing_internal.alert_measures(of_customer_id, at, past)
        ), used AS MATERIALIZED (
            SELECT u.id, u.used FROM billing_internal.uses(of_customer_id, (SELECT jsonb_agg(x.ask) FROM measure x WHERE x.pool_id IS NULL AND x.feature IS NULL)) u
            UNION ALL
            SELECT x.id, x.so_far FROM measure x WHERE x.feature IS NOT NULL
            UNION ALL
            -- Of credits that a commitment pays for: what was drawn, and what the usage of open periods will draw.
            SELECT x.id, coalesce((SELECT -sum(e.amount) FROM billing.credit_ledger_entry e JOIN billing.credit_grant g USING (customer_id, grant_id)
                    WHERE g.customer_id = of_customer_id AND g.pool_id = x.pool_id AND e.account = 'customer_balance' AND e.kind IN ('burnt', 'reinstated')), 0)
                + coalesce((SELECT sum(p.amount) FROM billing_internal.credit_pending(of_customer_id, x.unit) p JOIN billing.credit_grant g ON g.customer_id = of_customer_id AND g.grant_id = p.grant_id
                    WHERE g.pool_id = x.pool_id), 0)
            FROM measure x WHERE x.pool_id IS NOT NULL
        )
        SELECT m.*, a.kind, a.key AS rule_key, u.used, t.threshold, t.amount,
            -- What 100% is tells crossings of a percentage apart; an amount is the same whatever it is a part of.
            format('alert/%s/%s', a.key, encode(sha256(convert_to(jsonb_build_array(a.kind, m.about, t.threshold, CASE WHEN t.threshold LIKE '%\%' THEN trim_scale(m.base)::text END, billing_internal.rfc3339(m.starts_at))::text, 'UTF8')), 'hex')) AS feed_key
        FROM measure m JOIN used u USING (id) JOIN billing.alert_rule a ON a.customer_id = of_customer_id AND a.rule_id = m.rule_id
        CROSS JOIN LATERAL (SELECT x AS threshold, billing_internal.alert_at(x, m.base) AS amount FROM jsonb_array_elements_text(a.thresholds) x) t
        WHERE u.used >= t.amount ORDER BY a.key COLLATE "C", m.starts_at, t.amount, m.id, t.threshold
    LOOP
        fired := fired + billing_internal.alert_tell(of_customer_id, 'alert.' || r.kind, r.rule_key, r.feed_key, jsonb_build_object('rule', r.rule_key, 'threshold', r.threshold, 'at', trim_scale(r.amount)::text,
            'used', trim_scale(r.used)::text, 'of', trim_scale(r.base)::text, 'unit', r.unit, r.kind || CASE WHEN r.kind = 'commitment' THEN '' ELSE '_limit' END, r.of, 'feature', r.feature,
            'from', billing_internal.rfc3339(r.starts_at), 'until', billing_internal.rfc3339(r.ends_at)))::int;
    END LOOP;
    FOR r IN SELECT x.rule_id FROM billing.alert_rule x WHERE x.customer_id = of_customer_id AND x.ended_at IS NULL AND x.kind = 'credit' ORDER BY x.rule_id LOOP
        fired := fired + billing_internal.alert_credit(of_customer_id, r.rule_id);
    END LOOP;
    RETURN fired;
END
$$;
COMMENT ON FUNCTION billing_internal.alerts_tell(bigint, boolean) IS 'Looks at all alert rules of a customer and tells what they have crossed in their present periods (past: and in those that ended after they were looked at last). How many were told; one index look-up where there are no rules. Errors: those of pricing.';

CREATE FUNCTION billing_internal.alerts_look(of_customer_id bigint) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN billing_internal.alerts_tell(of_customer_id, false);
EXCEPTION WHEN OTHERS THEN
    IF left(SQLSTATE, 2) <> 'ZB' THEN
        RAISE;
    END IF;
    RETURN 0;
END
$$;
COMMENT ON FUNCTION billing_internal.alerts_look(bigint) IS 'What alerts_tell() tells of the present periods, for whoever used: what can''t be priced now keeps nobody from using, and is left to the job, which says why.';

CREATE FUNCTION billing_internal.alerts_drawn(of_customer_id bigint, of_unit text) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT sum(billing_internal.alert_credit(of_customer_id, r.rule_id)) FROM (
        SELECT x.rule_id FROM billing.alert_rule x WHERE x.customer_id = of_customer_id AND x.ended_at IS NULL AND x.kind = 'credit' AND x.unit = of_unit ORDER BY x.rule_id) r);
EXCEPTION WHEN OTHERS THEN
    IF left(SQLSTATE, 2) <> 'ZB' THEN
        RAISE;
    END IF;
    RETURN 0;
END
$$;
COMMENT ON FUNCTION billing_internal.alerts_drawn(bigint, text) IS 'alerts_look() of a customer''s rules of credit in a unit, for who drew of it: last of all, for it may lock a rule.';

-- ── the job ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.alerts_or_issue(run uuid, of_customer_id bigint) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fired bigint;
    what text;
BEGIN
    fired := billing_internal.alerts_tell(of_customer_id, true);
    -- Usage may come late: for a day.
    UPDATE billing.alert_rule r SET looked_until = billing.now() - interval '1 day' WHERE r.customer_id = of_customer_id AND r.ended_at IS NULL AND r.looked_until < billing.now() - interval '25 hours';
    RETURN fired;
EXCEPTION WHEN serialization_failure OR deadlock_detected OR query_canceled OR lock_not_available OR insufficient_resources THEN
    RAISE;
WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS what = MESSAGE_TEXT;
    PERFORM billing_internal.customer_issue(run, of_customer_id, SQLSTATE, what, 'Its alerts wait until this is mended, and are told then; the others'' were looked at.');
    RETURN 0;
END
$$;
COMMENT ON FUNCTION billing_internal.alerts_or_issue(uuid, bigint) IS 'Looks at a customer''s rules for the job; what is wrong with it is an issue of the run and stops no other.';

CREATE FUNCTION billing.alerts_step(after_customer bigint DEFAULT 0, max_rows int DEFAULT 200, run uuid DEFAULT NULL, OUT looked bigint, OUT fired bigint, OUT last_customer bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    IF (max_rows BETWEEN 1 AND 10000) IS NOT TRUE OR after_customer IS NULL THEN
        PERFORM billing_internal.fail('ZB004', format('%s customers after %s can''t be looked at at once', coalesce(max_rows::text, 'NULL'), coalesce(after_customer::text, 'NULL')), 'Give 1 to 10,000, and the last customer that was looked at, or 0 to begin.');
    END IF;
    looked := 0;
    fired := 0;
    last_customer := after_customer;
    FOR c IN SELECT DISTINCT r.customer_id FROM billing.alert_rule r WHERE r.ended_at IS NULL AND r.customer_id > after_customer ORDER BY r.customer_id LIMIT max_rows LOOP
        fired := fired + billing_internal.alerts_or_issue(run, c);
        looked := looked + 1;
        last_customer := c;
    END LOOP;
    IF looked = 0 THEN
        PERFORM billing_internal.feed_number();
    END IF;
END
$$;
COMMENT ON FUNCTION billing.alerts_step(bigint, int, uuid) IS 'Looks at the alert rules of up to max_rows customers after one: for usage that came without a call, and for periods that ended, until a day later. Returns how many customers it looked at (0 = done), how many alerts it told, and the customer to go on after. Whose usage can''t be priced is an issue of the run (NULL = of none) and stops no other. Errors: ZB004.';

CREATE PROCEDURE billing.alerts()
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.job_start('alerts');
    step record;
    fired bigint := 0;
    after_customer bigint := 0;
BEGIN
    COMMIT;
    LOOP
        SELECT s.looked, s.fired, s.last_customer INTO step FROM billing.alerts_step(after_customer, 200, run) s;
        EXIT WHEN step.looked OPERATOR(pg_catalog.=) 0;
        fired := fired OPERATOR(pg_catalog.+) step.fired;
        after_customer := step.last_customer;
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run, pg_catalog.jsonb_build_object('alerts', fired));
END
$$;
COMMENT ON PROCEDURE billing.alerts() IS 'Looks at every alert rule, committing step by step. Customers whose usage can''t be priced, and why, are in job_issue.';

-- ── the feed ─────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.feed_number() RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    numbered bigint;
BEGIN
    -- One at a time, and each sees the numbers of the one before: so not under an older snapshot.
    IF billing_internal.travelling() OR current_setting('transaction_read_only')::boolean OR current_setting('transaction_isolation') <> 'read committed'
        OR NOT pg_try_advisory_xact_lock(billing_internal.lock_class('feed'), 0) THEN
        RETURN 0;
    END IF;
    WITH new AS (
        SELECT f.customer_id, f.feed_id, coalesce((SELECT max(x.n) FROM billing.event_feed x), 0) + row_number() OVER (ORDER BY f.recorded_at, f.feed_id) AS n
        FROM billing.event_feed f WHERE f.n IS NULL
    )
    UPDATE billing.event_feed f SET n = new.n FROM new WHERE f.customer_id = new.customer_id AND f.feed_id = new.feed_id;
    GET DIAGNOSTICS numbered = ROW_COUNT;
    RETURN numbered;
END
$$;
COMMENT ON FUNCTION billing_internal.feed_number() IS 'Numbers the entries of the feed that have none, in the order in which they were written; they follow those that have one. Nothing, where another session is at it.';

CREATE FUNCTION billing.events_after(cursor bigint DEFAULT 0, max_rows int DEFAULT 100)
    RETURNS TABLE (n bigint, customer text, kind text, subject text, occurred_at timestamptz, payload jsonb)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing_internal.require_installed();
    -- NULL is what the first look for a place nobody noted yet gives: it would read nothing, for ever.
    IF cursor IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'the cursor is NULL', 'Pass the last n that you have dealt with, or 0 to read from the beginning.');
    ELSIF (max_rows BETWEEN 1 AND 10000) IS NOT TRUE THEN
        PERFORM billing_internal.fail('ZB004', format('%s entries can''t be read at once', coalesce(max_rows::text, 'NULL')), 'Ask for 1 to 10,000.');
    END IF;
    PERFORM billing_internal.feed_number();
    RETURN QUERY SELECT f.n, c.key, f.kind, f.subject, f.occurred_at, f.payload
    FROM billing.event_feed f JOIN billing.customer c USING (customer_id) WHERE f.n > cursor ORDER BY f.n LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION billing.events_after(bigint, int) IS
    'The feed after a number, in order: pass 0 first, then the last n you have dealt with. Numbers have no gaps, and nothing ever appears before one that was read, however transactions overlap. An entry may be told again if you did not note its number: deal with it once. Read in a transaction of its own, and use what you read only once that has committed (autocommit does). Errors: ZB004.';

-- Why not: what denies a question to the gate, in words, and the command that lifts it. It asks what entitlement_check() asks.

CREATE FUNCTION billing.why_denied(customer text, feature text, quantity numeric DEFAULT 1, dimensions jsonb DEFAULT '{}', bill_to text DEFAULT NULL)
    RETURNS TABLE (allowed boolean, reason text, explanation text, command text)
    LANGUAGE plpgsql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    of_customer_id bigint;
    c record;
    f record;
    e record;
    l record;
    beyond jsonb;
    asked record;
    who text;
    paused text;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(why_denied.customer);
    SELECT k.key INTO who FROM billing.customer k WHERE k.customer_id = of_customer_id;
    SELECT x.key, x.kind, x.unit, x.meter_id INTO f FROM billing.feature x WHERE x.feature_id = billing_internal.find_feature(why_denied.feature);
    c := billing.entitlement_check(who, f.key, why_denied.quantity, why_denied.dimensions, why_denied.bill_to);
    IF f.meter_id IS NOT NULL THEN
        asked := billing_internal.event_asked(of_customer_id, f.meter_id, why_denied.quantity, why_denied.dimensions, why_denied.bill_to);
        why_denied.quantity := asked.quantity;
    END IF;
    allowed := c.allowed;
    reason := c.reason;
    CASE
    WHEN c.allowed THEN
        explanation := format('%s may use %s of %s now (%s)', who, trim_scale(why_denied.quantity), f.key, c.reason);
    WHEN c.reason = 'suspended' THEN
        SELECT k.key INTO paused FROM billing.contract k JOIN billing.contract_term t USING (customer_id, contract_id) JOIN billing.contract_term e USING (customer_id, contract_id)
        WHERE k.customer_id = of_customer_id AND t.kind = 'pause' AND t.until_version IS NULL AND t.valid_during @> billing_internal.moment()
            AND e.kind = 'entitlement' AND e.until_version IS NULL AND e.valid_during @> billing_internal.moment() AND e.terms->>'feature' = f.key ORDER BY k.key LIMIT 1;
        explanation := format('all contracts that give %s to %s are paused', f.key, who);
        command := format('SELECT billing.contract_resume(%L);', paused);
    WHEN c.reason = 'quota_exceeded' THEN
        explanation := format('%s has used %s of %s %s, so %s more is too much%s', who, trim_scale(c.used), trim_scale(c.quota), coalesce(f.unit, f.key), trim_scale(why_denied.quantity),
            CASE WHEN c.resets_at IS NOT NULL THEN format('; it resets at %s', to_char(c.resets_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) ELSE '' END);
        command := format('SELECT billing.entitlement_override(%L, %L, %L, %s, ''why'');', who, f.key, trim_scale(c.used + why_denied.quantity),
            CASE WHEN c.resets_at IS NOT NULL THEN quote_literal(to_char(c.resets_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) ELSE 'NULL' END);
    WHEN c.reason = 'no_credit' THEN
        explanation := format('%s has no %s credit available; usage that is not billed yet counts as drawn', who, f.unit);
        -- Below zero, what is missing comes first.
        command := format('SELECT billing.credit_purchase(%L, %L);', who, jsonb_build_object('unit', f.unit, 'amount', p.amount, 'price', p.amount)) FROM (SELECT (100 + ceil(greatest(-c.remaining, 0)))::text AS amount) p;
    WHEN c.reason = 'not_entitled' THEN
        SELECT s.match, s.value, s.source INTO e FROM billing.entitlement_state s JOIN billing.feature x USING (feature_id)
        WHERE s.customer_id = of_customer_id AND x.key = f.key AND s.valid_during @> billing_internal.moment() AND s.match <> '{}';
        IF FOUND THEN
            explanation := format('%s has %s for other usage only: %s', who, f.key, e.match);
            -- An exception would be for that usage, too. The contract that begins last is heard last.
            command := format('SELECT billing.contract_amend(%L, %L, reason => ''why'');', k.key, jsonb_build_object('entitlements', jsonb_build_array(
                    t.terms - '{match,combine}'::text[] || CASE WHEN e.source = 'override' THEN '{}' ELSE jsonb_build_object('value', e.value) END)))
                FROM billing.contract k JOIN billing.contract_term t USING (customer_id, contract_id)
                WHERE k.customer_id = of_customer_id AND t.kind = 'entitlement' AND t.until_version IS NULL AND t.valid_during @> billing_internal.moment() AND t.terms->>'feature' = f.key
                ORDER BY k.starts_on DESC, t.term_key LIKE 'plan:%' OR t.term_key LIKE '%/%' LIMIT 1;
        ELSE
            explanation := CASE WHEN c.value = 'false' THEN format('%s is off for %s, by %s', f.key, who, c.source) ELSE format('no plan, add-on, contract or exception of %s gives %s now', who, f.key) END;
            command := format('SELECT billing.entitlement_override(%L, %L, %L, NULL, ''why'');', who, f.key,
                CASE f.kind WHEN 'static' THEN '"value"' WHEN 'rate_limit' THEN '{"limit": "10", "per": "1 second"}' WHEN 'boolean' THEN 'true' WHEN 'credit' THEN 'true' ELSE trim_scale(why_denied.quantity)::text END);
        END IF;
    WHEN c.reason = 'rate_limited' THEN
        explanation := format('%s asks for %s too often', who, f.key);
        -- The same rate, and a burst in which this has room beside what has not drained yet.
        command := format('SELECT billing.entitlement_override(%L, %L, %L, NULL, ''why'');', who, f.key,
            c.value || jsonb_build_object('burst', ceil((c.value->>'burst')::numeric + why_denied.quantity - c.remaining)::text));
    WHEN c.reason IN ('spend_limit', 'budget') THEN
        IF billing_internal.asks_for_itself() THEN
            SELECT a.detail INTO beyond FROM billing_internal.customer_limits(of_customer_id, f.meter_id, asked.quantity, asked.dimensions, why_denied.bill_to, asked.properties) a;
        ELSE
            SELECT a.detail INTO beyond FROM billing_internal.limits_ask(of_customer_id, f.meter_id, asked.quantity, asked.dimensions, why_denied.bill_to, asked.properties) a;
            SELECT x.*, m.key AS meter INTO l FROM billing.spend_limit x LEFT JOIN billing.meter m ON m.meter_id = x.meter_id
            WHERE x.customer_id = of_customer_id AND x.key = beyond->>'key' AND x.ended_at IS NULL;
            command := format('SELECT billing.%s_set(%L, %L);', l.kind, who, jsonb_strip_nulls(jsonb_build_object('key', l.key, 'amount', ceil((beyond->>'used')::numeric + (beyond->>'asked')::numeric)::text,
                'period', l.period, 'mode', l.mode, 'bill_to', l.bill_to, 'match', nullif(l.match, '{}'), 'currency', l.currency, 'meter', l.meter, 'reason', 'why')));
        END IF;
        explanation := format('%s %s: %s of %s %s is used or reserved, so %s more is too much; it resets at %s', replace(beyond->>'kind', '_', ' '), beyond->>'key', beyond->>'used', beyond->>'amount', beyond->>'unit',
            beyond->>'asked', to_char((beyond->>'resets_at')::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
    ELSE
        explanation := format('%s may not use %s of %s now (%s)', who, trim_scale(why_denied.quantity), f.key, c.reason);
    END CASE;
    -- Only operators can change it.
    command := CASE WHEN NOT billing_internal.asks_for_itself() THEN command END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION billing.why_denied(text, text, numeric, jsonb, text) IS 'Why a customer may not use so much of a feature now (dimensions, bill_to: as of entitlement_check()), in words, and a command that lifts that (for operators; an amendment or another plan does, too): where something else denies it then, ask again. command is NULL where nothing is to be lifted, and for a customer''s login, which may ask for its own customers. Errors: ZB001, ZB004 quantity, dimensions.';

-- The customer's side: what a customer's login (or staff about it) sees of its own billing, and the page that shows it.
--
-- Everything here runs with its caller's rights, so that row security decides whose rows there are. What is not billed yet
-- has to be priced, which reads list prices, policies and terms that customers may not read: three definers do that, each
-- for one customer, after asking may_see(), and hand out no more than the next invoice will say.

CREATE FUNCTION billing_internal.customer_bills(of_customer_id bigint) RETURNS TABLE (contract_id uuid, boundary int, document jsonb, problem text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    k record;
    found jsonb;
BEGIN
    IF NOT billing_internal.may_see(of_customer_id) THEN
        RETURN;
    END IF;
    FOR k IN SELECT c.contract_id, c.key, c.next_n FROM billing.contract c
        WHERE c.customer_id = of_customer_id AND (c.state IN ('scheduled', 'active', 'paused') AND c.next_bill_at IS NOT NULL OR c.state IN ('ended', 'cancelled')
            AND EXISTS (SELECT FROM billing.late_usage l WHERE l.customer_id = c.customer_id AND l.contract_id = c.contract_id AND l.closed_at IS NULL))
        ORDER BY c.starts_at, c.key LOOP
        BEGIN
            found := billing.invoice_preview(k.key);
            RETURN QUERY SELECT k.contract_id, k.next_n, d - 'inputs', NULL::text FROM jsonb_array_elements(CASE jsonb_typeof(found) WHEN 'array' THEN found ELSE jsonb_build_array(found) END) d;
        EXCEPTION WHEN OTHERS THEN
            -- One contract that can't be billed as it stands does not hide the others. Why, is for staff.
            IF left(SQLSTATE, 2) <> 'ZB' THEN
                RAISE;
            END IF;
            RETURN QUERY SELECT k.contract_id, k.next_n, NULL::jsonb, SQLSTATE::text;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.customer_bills(bigint) IS
    'What each contract of a customer has to bill by now: previews of the next invoices, without what they were computed from; or the code of what keeps one from being computed. Nothing for customers the caller may not see.';

CREATE FUNCTION billing_internal.customer_spend(of_customer_id bigint, from_at timestamptz, until_at timestamptz, group_by text[]) RETURNS TABLE (starts_at timestamptz, dimensions jsonb, currency text, amount numeric, state text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF billing_internal.may_see(of_customer_id) THEN
        RETURN QUERY SELECT s.* FROM billing.customer c CROSS JOIN LATERAL billing.spend(c.key, from_at, until_at, 'day', group_by) s WHERE c.customer_id = of_customer_id;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.customer_spend(bigint, timestamptz, timestamptz, text[]) IS 'billing.spend() of one customer by day, for those who may see the customer. Nothing for others.';

CREATE FUNCTION billing_internal.customer_pending(of_customer_id bigint) RETURNS TABLE (grant_id uuid, amount numeric)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF billing_internal.may_see(of_customer_id) THEN
        RETURN QUERY SELECT p.grant_id, sum(p.amount) FROM (SELECT DISTINCT b.unit FROM billing.credit_block_balance b WHERE b.customer_id = of_customer_id) u
            CROSS JOIN LATERAL billing_internal.credit_pending(of_customer_id, u.unit) p GROUP BY p.grant_id;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.customer_pending(bigint) IS 'What usage that is not billed yet will draw from each block of a customer, for those who may see it. Nothing for others.';

-- ── plain tables ─────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.my_spend(from_on date DEFAULT NULL, until_on date DEFAULT NULL, group_by text[] DEFAULT '{}', of_customer text DEFAULT NULL)
    RETURNS TABLE (customer text, day date, charge text, product text, dimensions jsonb, currency text, amount numeric, state text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    only_id bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    only_id := CASE WHEN of_customer IS NOT NULL THEN billing_internal.find_customer(of_customer) END;
    IF until_on <= from_on THEN
        PERFORM billing_internal.fail('ZB004', format('until_on %s is not after from_on %s', until_on, from_on), 'until_on is exclusive: the day after the last one.');
    END IF;
    RETURN QUERY
    SELECT c.key, (s.starts_at AT TIME ZONE c.time_zone)::date, s.dimensions->>'charge', s.dimensions->>'product', s.dimensions - '{charge, product}'::text[], s.currency, s.amount, s.state
    FROM billing.customer c
    CROSS JOIN LATERAL (SELECT (billing.now() AT TIME ZONE c.time_zone)::date AS day) today
    CROSS JOIN LATERAL (SELECT coalesce(until_on, greatest(today.day, from_on) + 1) AS until_on) u
    CROSS JOIN LATERAL billing_internal.customer_spend(c.customer_id, billing_internal.local_midnight(coalesce(from_on, u.until_on - 31), c.time_zone),
        billing_internal.local_midnight(u.until_on, c.time_zone), group_by || '{charge, product}'::text[]) s
    WHERE only_id IS NULL OR c.customer_id = only_id
    ORDER BY c.key, s.starts_at, s.dimensions, s.currency, s.state;
END
$$;
COMMENT ON FUNCTION billing.my_spend(date, date, text[], text) IS
    'Money by day for the customers you may see (of_customer: for one of them), in [from_on, until_on), by default the last 31 days with today. day: local date in the customer''s zone; charge and product: keys; dimensions: those asked for in group_by, such as {model}; amount: in currency, before credit, to 6 decimals; state: billed (on an invoice) or unbilled (priced as the next invoice will). Fees fall on the day their service begins. Errors: ZB001 customer, ZB004 dates or group_by; those of invoice_preview() where a contract can''t be billed as it stands.';

CREATE FUNCTION billing.my_credits(of_customer text DEFAULT NULL)
    RETURNS TABLE (customer text, block text, unit text, category text, granted numeric, used numeric, ended numeric, posted numeric, reserved numeric, pending numeric, available numeric, standing text,
        effective_at timestamptz, expires_at timestamptz, contract text, scope jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    only_id bigint;
    now_at timestamptz := billing.now();
BEGIN
    PERFORM billing_internal.require_installed();
    only_id := CASE WHEN of_customer IS NOT NULL THEN billing_internal.find_customer(of_customer) END;
    RETURN QUERY
    SELECT c.key, g.key, g.unit, g.category, g.amount, e.used, e.ended, b.posted, b.reserved, p.amount,
        CASE WHEN s.standing IN ('live', 'used') THEN b.posted - b.reserved - p.amount ELSE 0 END, s.standing, g.effective_at, g.expires_at, k.key, g.scope
    FROM billing.customer c
    JOIN billing.credit_grant g USING (customer_id)
    JOIN billing.credit_block_balance b USING (customer_id, grant_id)
    LEFT JOIN billing.contract k ON k.customer_id = g.customer_id AND k.contract_id = g.contract_id
    CROSS JOIN LATERAL (
        SELECT coalesce(-sum(x.amount) FILTER (WHERE x.kind IN ('burnt', 'reinstated')), 0) AS used, coalesce(-sum(x.amount) FILTER (WHERE x.kind IN ('expired', 'voided', 'refunded', 'rolled_out')), 0) AS ended
        FROM billing.credit_ledger_entry x WHERE x.customer_id = g.customer_id AND x.grant_id = g.grant_id AND x.account = 'customer_balance') e
    LEFT JOIN (SELECT o.customer_id, w.grant_id, w.amount FROM billing.customer o CROSS JOIN LATERAL billing_internal.customer_pending(o.customer_id) w WHERE only_id IS NULL OR o.customer_id = only_id) w
        ON w.customer_id = g.customer_id AND w.grant_id = g.grant_id
    CROSS JOIN LATERAL (SELECT coalesce(w.amount, 0) AS amount) p
    CROSS JOIN LATERAL (SELECT CASE WHEN g.voided_at IS NOT NULL THEN 'void' WHEN g.expired_at IS NOT NULL THEN 'expired' WHEN now_at < g.effective_at THEN 'upcoming'
        WHEN g.expires_at <= now_at THEN 'pending_expiration' WHEN b.posted = 0 THEN 'used' ELSE 'live' END AS standing) s
    WHERE only_id IS NULL OR c.customer_id = only_id
    ORDER BY c.key, g.unit, s.standing <> 'live', g.expires_at, g.grant_id;
END
$$;
COMMENT ON FUNCTION billing.my_credits(text) IS
    'Blocks of credit of the customers you may see (of_customer: of one of them). Quantities are in unit (a currency, or a unit of the seller''s). granted − used − ended (expired, taken back, refunded or moved) = posted; reserved: promised to calls under way; pending: what usage that is not billed yet will draw; available: what is left of them to use now. category: paid, promotional or pilot; standing: upcoming, live, used, pending_expiration, expired or void; effective_at and expires_at (exclusive; NULL = never): instants; scope: what it pays for, {} = everything. Errors: ZB001 customer; those of invoice_preview() where a contract can''t be billed as it stands.';

CREATE FUNCTION billing.my_entitlements(of_customer text DEFAULT NULL)
    RETURNS TABLE (customer text, feature text, name text, kind text, allowed boolean, reason text, value jsonb, unit text, mode text, used numeric, quota numeric, remaining numeric, resets_at timestamptz, valid_until timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    only_id bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    only_id := CASE WHEN of_customer IS NOT NULL THEN billing_internal.find_customer(of_customer) END;
    RETURN QUERY
    SELECT c.key, e.feature, e.name, e.kind, e.allowed, e.reason, e.value, coalesce(f.unit, m.unit), e.mode, e.used, e.quota, e.remaining, e.resets_at, e.valid_until
    FROM billing.customer c
    CROSS JOIN LATERAL billing.entitlements(c.key) e
    JOIN billing.feature f ON f.key = e.feature
    LEFT JOIN billing.meter m ON m.meter_id = f.meter_id
    WHERE only_id IS NULL OR c.customer_id = only_id
    ORDER BY c.key, e.name, e.feature;
END
$$;
COMMENT ON FUNCTION billing.my_entitlements(text) IS
    'What the customers you may see (of_customer: one of them) have, feature by feature: whether one more may be used now and why (reason, as of entitlement_check()), value, used and quota in unit (quota NULL = unlimited), what remains, when the quota begins anew (resets_at: instant; NULL = never), until when this holds as far as it is known. Errors: ZB001 customer.';

-- ── the summary ──────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.amount_text(amount numeric, unit text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN EXISTS (SELECT FROM billing.currency u WHERE u.code = unit AND u.minor_units IS NOT NULL) THEN round(amount, billing_internal.unit_places(unit, (billing.now() AT TIME ZONE 'UTC')::date))
        ELSE trim_scale(round(amount, 12)) END::text;
END
$$;
COMMENT ON FUNCTION billing_internal.amount_text(numeric, text) IS 'An amount as the customer''s side writes it: to the minor units of its currency, of any other unit without trailing zeros.';

CREATE FUNCTION billing_internal.commitments_filled(periods text, spent text, meter text) RETURNS TABLE (place int, filled numeric)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 2 AS 'MODULE_PATHNAME', 'commitments_filled_wrapper';
COMMENT ON FUNCTION billing_internal.commitments_filled(text, text, text) IS
    'How much of each period of postpaid commitments ([{"priority","amount","scope","from","until"}], in one currency or, with a meter, in its units) usage has filled ([{"number","boundary","bill_to","lines","credits"}], as commitment_spend() says it), by the rule of the true-up. place counts from 1. No row where commitments_filled_error() says why.';
CREATE FUNCTION billing_internal.commitments_filled_error(periods text, spent text, meter text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'commitments_filled_error_wrapper';
COMMENT ON FUNCTION billing_internal.commitments_filled_error(text, text, text) IS 'The fault that commitments_filled() found, as JSON.';

CREATE FUNCTION billing_internal.summary_commitments(of_customer_id bigint, bills jsonb, held jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    found jsonb;
    spent jsonb;
    result jsonb := '[]';
    now_at timestamptz := billing.now();
BEGIN
    FOR k IN SELECT c.contract_id, c.key, c.currency, c.time_zone FROM billing.contract c
        WHERE c.customer_id = of_customer_id AND c.state IN ('scheduled', 'active', 'paused') ORDER BY c.starts_at, c.key LOOP
        -- All periods, since those that overlap fill one after the other; shown is the one of now, or the next.
        SELECT jsonb_agg(to_jsonb(x) ORDER BY x.key, x.starts_on) INTO found FROM (
            SELECT m.key, p.kind, p.amount, p.unit, (SELECT w.key FROM billing.meter w WHERE w.meter_id = p.meter_id) AS meter, p.starts_on, p.ends_on, p.starts_at, p.ends_at, p.pool_id, coalesce(p.terms->'scope', '{}') AS scope, coalesce((p.terms->>'priority')::int, 100) AS priority,
                row_number() OVER (PARTITION BY m.key ORDER BY p.starts_at <= now_at AND (p.ends_at IS NULL OR p.ends_at > now_at) DESC, p.starts_at > now_at DESC,
                    abs(extract(epoch FROM p.starts_at - now_at))) = 1 AS shown
            FROM billing.commitment m JOIN billing.commitment_period p USING (customer_id, commitment_id)
            WHERE m.customer_id = of_customer_id AND m.contract_id = k.contract_id AND p.until_version IS NULL) x;
        CONTINUE WHEN found IS NULL;
        spent := coalesce(billing_internal.commitment_spend(of_customer_id, k.contract_id, NULL), '[]') || coalesce((
            SELECT jsonb_agg(jsonb_build_object('number', 'next', 'boundary', b->'boundary', 'bill_to', b->'document'->'bill_to', 'credits', b->'document'->'credits',
                'lines', (SELECT coalesce(jsonb_agg(l), '[]') FROM jsonb_array_elements(b->'document'->'lines') l WHERE l ? 'meter')))
            FROM jsonb_array_elements(bills) b WHERE (b->>'contract_id')::uuid = k.contract_id AND b->'document' ? 'lines'), '[]');
        SELECT result || coalesce(jsonb_agg(jsonb_build_object('contract', k.key, 'key', f->'key', 'kind', f->'kind', 'unit', f->'unit', 'amount', billing_internal.amount_text((f->>'amount')::numeric, f->>'unit'),
                'starts_on', f->'starts_on', 'ends_on', f->'ends_on', 'consumed', billing_internal.amount_text(u.consumed, f->>'unit'),
                'remaining', billing_internal.amount_text(greatest((f->>'amount')::numeric - u.consumed, 0), f->>'unit'), 'percent', trunc(100 * u.consumed / nullif((f->>'amount')::numeric, 0))::text,
                'time_percent', trunc(least(100, t.share * 100))::text,
                -- At the pace since the period began, if at least a day of it has passed.
                'projected', CASE WHEN t.share > 0 AND now_at - (f->>'starts_at')::timestamptz >= interval '1 day' THEN billing_internal.amount_text(CASE WHEN f->>'meter' IS NULL THEN u.consumed / least(t.share, 1)
                    -- Of units no part that nothing was counted in.
                    ELSE round(u.consumed / least(t.share, 1)::numeric, greatest(scale(trim_scale(u.consumed)), scale(trim_scale((f->>'amount')::numeric)))) END, f->>'unit') END)
            ORDER BY f->>'key'), '[]') INTO result
        FROM jsonb_array_elements(found) WITH ORDINALITY x (f, place)
        CROSS JOIN LATERAL (SELECT greatest(0, extract(epoch FROM now_at - (f->>'starts_at')::timestamptz) / extract(epoch FROM (f->>'ends_at')::timestamptz - (f->>'starts_at')::timestamptz)) AS share) t
        CROSS JOIN LATERAL (SELECT CASE
            -- Those of one measure (money, or the units of a meter) are filled one after the other.
            WHEN f->>'kind' = 'postpaid' THEN (SELECT q.filled FROM billing_internal.commitments_filled((SELECT jsonb_agg(jsonb_build_object('priority', e->'priority', 'amount', e->>'amount', 'scope', billing_internal.credit_scope(e->'scope', k.time_zone),
                    'from', billing_internal.rfc3339((e->>'starts_at')::timestamptz), 'until', billing_internal.rfc3339((e->>'ends_at')::timestamptz)) ORDER BY i)
                FROM jsonb_array_elements(found) WITH ORDINALITY o (e, i) WHERE e->>'kind' = 'postpaid' AND e->>'meter' IS NOT DISTINCT FROM f->>'meter')::text, spent::text, f->>'meter') q
                WHERE q.place = (SELECT count(*) FROM jsonb_array_elements(found) WITH ORDINALITY o (e, i) WHERE e->>'kind' = 'postpaid' AND e->>'meter' IS NOT DISTINCT FROM f->>'meter' AND o.i <= x.place))
            -- What the credits it pays for were used, at its price of them, or counted; one that pays for none is only paid.
            WHEN f->>'pool_id' IS NOT NULL THEN (SELECT CASE WHEN f->>'unit' = k.currency THEN p.paid ELSE p.credits END * least(1, sum((b->>'used')::numeric + (b->>'pending')::numeric) / p.credits)
                FROM billing.credit_pool p JOIN billing.credit_grant g USING (customer_id, pool_id) JOIN jsonb_array_elements(held) b ON b->>'block' = g.key
                WHERE p.customer_id = of_customer_id AND p.pool_id = (f->>'pool_id')::uuid GROUP BY p.paid, p.credits) END AS consumed) u
        WHERE (f->>'shown')::boolean;
    END LOOP;
    RETURN result;
END
$$;
COMMENT ON FUNCTION billing_internal.summary_commitments(bigint, jsonb, jsonb) IS
    'The commitments of a customer''s live contracts: the period of now (else the next), what is consumed of it by usage billed and not, and where the pace since its start leads. consumed is NULL for a prepaid one that pays for no credits.';

CREATE FUNCTION billing_internal.summary_spend(of_customer_id bigint, from_on date, until_on date, zone text, bills jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    now_at timestamptz := billing.now();
    today date := (billing.now() AT TIME ZONE zone)::date;
    first_on date;
    burn_from date;
    by_dimension text;
    result jsonb;
BEGIN
    SELECT min((k.starts_at AT TIME ZONE zone)::date) INTO first_on FROM billing.contract k WHERE k.customer_id = of_customer_id AND k.state NOT IN ('draft', 'scheduled');
    burn_from := greatest(today - 7, first_on);
    -- By model where the meters know it, else by the dimension that most lines have, else by charge.
    SELECT d INTO by_dimension FROM billing.contract_charge h JOIN billing.meter m USING (meter_id) CROSS JOIN LATERAL unnest(m.dimensions) d
    WHERE h.customer_id = of_customer_id AND h.kind = 'usage' AND h.until_version IS NULL AND d <> 'bill_to'
    GROUP BY d ORDER BY d = 'model' DESC, (SELECT count(*) FROM jsonb_array_elements(bills) b, jsonb_array_elements(b->'document'->'lines') l WHERE l->'dimensions' ? d) DESC, count(*) DESC, d LIMIT 1;
    WITH label AS (
        SELECT x.charge, min(split_part(x.label, ' · ', 1)) AS label FROM (
            SELECT l->>'charge' AS charge, l->>'label' AS label FROM jsonb_array_elements(bills) b, jsonb_array_elements(b->'document'->'lines') l
            UNION ALL
            SELECT l.charge_key, l.label FROM billing.invoice_line l WHERE l.customer_id = of_customer_id AND l.kind NOT IN ('commitment', 'credit') AND l.service_until > billing_internal.local_midnight(least(from_on, burn_from), zone)) x
        GROUP BY x.charge
    ), entry AS MATERIALIZED (
        SELECT (s.starts_at AT TIME ZONE zone)::date AS day, s.currency, s.amount, s.state, s.dimensions->>'charge' AS charge,
            h.metered, h.metered IS NOT NULL AS charged,
            coalesce(s.dimensions->>by_dimension, l.label, s.dimensions->>'charge') AS part, by_dimension IS NOT NULL AND s.dimensions ? by_dimension AS dimensioned
        FROM billing_internal.customer_spend(of_customer_id, billing_internal.local_midnight(least(from_on, burn_from, today), zone), billing_internal.local_midnight(until_on, zone),
            CASE WHEN by_dimension IS NULL THEN '{charge}' ELSE ARRAY['charge', by_dimension] END) s
        LEFT JOIN label l ON l.charge = s.dimensions->>'charge'
        -- Instalments and true-ups of commitments have no charge.
        CROSS JOIN LATERAL (SELECT bool_or(x.kind = 'usage') AS metered FROM billing.contract_charge x WHERE x.customer_id = of_customer_id AND x.charge_key = s.dimensions->>'charge') h
    ), total AS (
        SELECT e.currency, coalesce(sum(e.amount) FILTER (WHERE e.charged), 0) AS amount, coalesce(sum(e.amount) FILTER (WHERE e.metered), 0) AS usage,
            coalesce(sum(e.amount) FILTER (WHERE e.charged AND e.state = 'billed'), 0) AS billed, coalesce(sum(e.amount) FILTER (WHERE NOT e.charged), 0) AS other
        FROM entry e WHERE e.day >= from_on GROUP BY e.currency
    ), burn AS (
        SELECT e.currency, sum(e.amount) / (today - burn_from) AS a_day FROM entry e WHERE e.metered AND e.day >= burn_from AND e.day < today AND today > burn_from GROUP BY e.currency
    ), forecast AS (
        SELECT t.currency, billing_internal.amount_text(coalesce(b.a_day, 0), t.currency)::numeric AS a_day, greatest(0, round(extract(epoch FROM billing_internal.local_midnight(until_on, zone) - now_at) / 86400, 2)) AS days_left
        FROM total t LEFT JOIN burn b USING (currency)
    )
    SELECT jsonb_agg(jsonb_build_object('currency', t.currency, 'amount', billing_internal.amount_text(t.amount, t.currency), 'usage', billing_internal.amount_text(t.usage, t.currency),
            'fees', billing_internal.amount_text(billing_internal.amount_text(t.amount, t.currency)::numeric - billing_internal.amount_text(t.usage, t.currency)::numeric, t.currency),
            'billed', billing_internal.amount_text(t.billed, t.currency), 'unbilled', billing_internal.amount_text(billing_internal.amount_text(t.amount, t.currency)::numeric - billing_internal.amount_text(t.billed, t.currency)::numeric, t.currency),
            'other', billing_internal.amount_text(t.other, t.currency), 'dimension', by_dimension,
            -- Parts are shown to the minor units and sum to the total.
            'by_part', (SELECT jsonb_agg(jsonb_build_object('part', p.part, 'dimension', p.dimensioned, 'amount', billing_internal.amount_text(coalesce(CASE WHEN p.splits THEN
                    (billing_internal.allocate_parts(billing_internal.amount_text(t.amount, t.currency)::numeric, p.amounts, billing_internal.unit_places(t.currency, today)))[p.place] END, p.amount), t.currency)) ORDER BY p.place)
                FROM (SELECT g.*, row_number() OVER o AS place, array_agg(g.amount) OVER (o ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS amounts, min(g.amount) OVER () >= 0 AND t.amount > 0 AS splits
                    FROM (SELECT e.part, e.dimensioned, sum(e.amount) AS amount FROM entry e WHERE e.currency = t.currency AND e.charged AND e.day >= from_on GROUP BY e.part, e.dimensioned) g
                    WINDOW o AS (ORDER BY g.amount DESC, g.part COLLATE "C", g.dimensioned)) p),
            'by_day', (SELECT jsonb_agg(jsonb_build_object('day', d.day, 'part', d.part, 'dimension', d.dimensioned, 'amount', trim_scale(d.amount)::text) ORDER BY d.day, d.part COLLATE "C")
                FROM (SELECT e.day, e.part, e.dimensioned, sum(e.amount) AS amount FROM entry e WHERE e.currency = t.currency AND e.charged AND e.day >= from_on GROUP BY e.day, e.part, e.dimensioned HAVING sum(e.amount) <> 0) d),
            'burn', CASE WHEN today > burn_from THEN jsonb_build_object('per_day', billing_internal.amount_text(f.a_day, t.currency), 'days', (today - burn_from)::text, 'from', burn_from, 'until', today) END,
            'forecast', CASE WHEN today > burn_from AND f.days_left > 0 AND today >= from_on THEN jsonb_build_object('amount', billing_internal.amount_text(t.amount + f.a_day * f.days_left, t.currency), 'days_left', f.days_left::text,
                'formula', format('%s so far + %s usage a day (average of the last %s complete days) × %s days left. A straight line: tiers, minimums and discounts still to come are not foreseen.',
                    billing_internal.amount_text(t.amount, t.currency), billing_internal.amount_text(f.a_day, t.currency), today - burn_from, f.days_left)) END)
        ORDER BY t.currency)
    INTO result FROM total t JOIN forecast f USING (currency);
    RETURN coalesce(result, '[]');
END
$$;
COMMENT ON FUNCTION billing_internal.summary_spend(bigint, date, date, text, jsonb) IS
    'Money of a customer for usage and fees in [from_on, until_on), by currency: billed and not, by day and by part (a value of one dimension, or a charge without it); other: instalments and true-ups of commitments; the average of the last complete days (7, or as many as there are) and a straight line from it to the end.';

CREATE FUNCTION billing.customer_summary(customer text) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    c record;
    w record;
    now_at timestamptz := billing.now();
    today date;
    bills jsonb;
    blocks jsonb := '[]';
    problem boolean;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    SELECT x.key, x.name, x.currency, x.time_zone, s.name AS seller INTO c FROM billing.customer x JOIN billing.seller s USING (seller_id) WHERE x.customer_id = of_customer_id;
    today := (now_at AT TIME ZONE c.time_zone)::date;
    SELECT coalesce(jsonb_agg(to_jsonb(b)), '[]'), coalesce(bool_or(b.problem IS NOT NULL), false) INTO bills, problem FROM billing_internal.customer_bills(of_customer_id) b;
    IF NOT problem THEN
        SELECT coalesce(jsonb_agg(to_jsonb(b) - 'customer'), '[]') INTO blocks FROM billing.my_credits(c.key) b;
    END IF;
    -- The period shown is the one that the oldest live contract bills next, else the calendar month.
    SELECT k.contract, k.period_starts_on AS starts_on, k.period_ends_on AS ends_on INTO w FROM billing.my_contract k
    WHERE k.customer_id = of_customer_id AND k.state IN ('active', 'paused', 'scheduled') AND k.period_starts_on IS NOT NULL
    ORDER BY k.period_starts_on > today, k.starts_on, k.contract LIMIT 1;
    IF w.starts_on IS NULL THEN
        SELECT NULL::text AS contract, date_trunc('month', today)::date AS starts_on, (date_trunc('month', today) + interval '1 month')::date AS ends_on INTO w;
    END IF;
    RETURN jsonb_build_object(
        'customer', c.key, 'name', c.name, 'seller', c.seller, 'currency', c.currency, 'time_zone', c.time_zone, 'as_of', to_char(now_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'as_of_local', to_char(now_at AT TIME ZONE c.time_zone, 'YYYY-MM-DD HH24:MI'), 'today', today, 'problem', problem,
        'contracts', coalesce((SELECT jsonb_agg(jsonb_build_object('contract', k.contract, 'state', k.state, 'plan', k.plan_name, 'currency', k.currency, 'time_zone', k.time_zone, 'starts_on', k.starts_on, 'ends_on', k.ends_on,
                'billed_every', k.billed_every, 'net_days', k.net_days, 'collection', k.collection, 'renews', k.renews, 'notice_deadline', k.notice_deadline,
                'period', CASE WHEN k.period_starts_on IS NOT NULL THEN jsonb_build_object('starts_on', k.period_starts_on, 'ends_on', k.period_ends_on) END, 'next_invoice', n.next)
                ORDER BY k.state IN ('ended', 'cancelled'), k.starts_on, k.contract)
            FROM (SELECT m.*, b.contract_id FROM billing.my_contract m JOIN billing.contract b ON b.customer_id = m.customer_id AND b.key = m.contract
                WHERE m.customer_id = of_customer_id ORDER BY m.state IN ('ended', 'cancelled'), m.starts_on DESC LIMIT 50) k
            CROSS JOIN LATERAL (
                SELECT jsonb_build_object('on', k.next_invoice_on, 'currency', k.currency, 'problem', bool_or(b->>'problem' IS NOT NULL),
                    'total', billing_internal.amount_text(sum((b#>>'{document,totals,total}')::numeric), k.currency), 'credits', billing_internal.amount_text(-sum((b#>>'{document,totals,credits}')::numeric), k.currency),
                    'due', billing_internal.amount_text(sum((b#>>'{document,totals,due}')::numeric), k.currency),
                    'lines', (SELECT jsonb_agg(jsonb_build_object('label', l->'label', 'kind', l->'kind', 'quantity', l->'quantity', 'unit', l->'unit', 'amount', l->'amount'))
                        FROM jsonb_array_elements(bills) d, jsonb_array_elements(d->'document'->'lines') l WHERE (d->>'contract_id')::uuid = k.contract_id)) AS next
                FROM jsonb_array_elements(bills) b WHERE (b->>'contract_id')::uuid = k.contract_id HAVING count(*) > 0) n), '[]'),
        'period', jsonb_build_object('contract', w.contract, 'starts_on', w.starts_on, 'ends_on', w.ends_on, 'days', (w.ends_on - w.starts_on)::text,
            'day', greatest(0, least(today - w.starts_on + 1, w.ends_on - w.starts_on))::text, 'over', now_at >= billing_internal.local_midnight(w.ends_on, c.time_zone)),
        'usage', coalesce((SELECT jsonb_agg(jsonb_build_object('meter', m.key, 'unit', coalesce(m.unit, 'unit'), 'quantity', trim_scale(u.quantity)::text, 'events', u.events::text) ORDER BY m.key)
            FROM billing.meter m
            CROSS JOIN LATERAL billing.usage(c.key, m.key, billing_internal.local_midnight(w.starts_on, c.time_zone), billing_internal.local_midnight(w.ends_on, c.time_zone)) u
            WHERE m.meter_id IN (SELECT h.meter_id FROM billing.contract_charge h JOIN billing.contract k USING (customer_id, contract_id)
                WHERE h.customer_id = of_customer_id AND h.kind = 'usage' AND h.until_version IS NULL AND k.state IN ('active', 'paused', 'scheduled'))), '[]'),
        'spend', CASE WHEN NOT problem THEN billing_internal.summary_spend(of_customer_id, w.starts_on, w.ends_on, c.time_zone, bills) END,
        'commitments', CASE WHEN NOT problem THEN billing_internal.summary_commitments(of_customer_id, bills, blocks) END,
        'credits', CASE WHEN NOT problem THEN coalesce((SELECT jsonb_agg(jsonb_build_object('unit', u.unit, 'posted', billing_internal.amount_text(u.posted, u.unit), 'reserved', billing_internal.amount_text(u.reserved, u.unit),
                'pending', billing_internal.amount_text(u.pending, u.unit), 'available', billing_internal.amount_text(u.available, u.unit), 'upcoming', billing_internal.amount_text(u.upcoming, u.unit), 'blocks', u.blocks) ORDER BY u.unit)
            FROM (SELECT b->>'unit' AS unit, coalesce(sum((b->>'posted')::numeric) FILTER (WHERE b->>'standing' = 'live'), 0) AS posted, sum((b->>'reserved')::numeric) AS reserved, sum((b->>'pending')::numeric) AS pending,
                    sum((b->>'available')::numeric) AS available, coalesce(sum((b->>'posted')::numeric) FILTER (WHERE b->>'standing' = 'upcoming'), 0) AS upcoming,
                    jsonb_agg(jsonb_build_object('block', b->'block', 'category', b->'category', 'standing', b->'standing', 'granted', billing_internal.amount_text((b->>'granted')::numeric, b->>'unit'),
                        'used', billing_internal.amount_text((b->>'used')::numeric + (b->>'pending')::numeric, b->>'unit'), 'ended', billing_internal.amount_text((b->>'ended')::numeric, b->>'unit'),
                        'left', billing_internal.amount_text((b->>'posted')::numeric - (b->>'reserved')::numeric - (b->>'pending')::numeric, b->>'unit'),
                        'effective_on', ((b->>'effective_at')::timestamptz AT TIME ZONE c.time_zone)::date, 'expires_on', ((b->>'expires_at')::timestamptz AT TIME ZONE c.time_zone)::date, 'contract', b->'contract')
                        ORDER BY p) AS blocks
                FROM jsonb_array_elements(blocks) WITH ORDINALITY x (b, p) GROUP BY b->>'unit') u), '[]') END,
        'entitlements', coalesce((SELECT jsonb_agg(jsonb_build_object('feature', e.feature, 'name', e.name, 'kind', e.kind, 'allowed', e.allowed, 'reason', e.reason,
                'value', CASE jsonb_typeof(e.value) WHEN 'null' THEN NULL ELSE e.value #>> '{}' END, 'unit', e.unit, 'mode', e.mode, 'used', trim_scale(e.used)::text, 'quota', trim_scale(e.quota)::text,
                'remaining', CASE WHEN e.kind = 'credit' THEN billing_internal.amount_text(e.remaining, e.unit) ELSE trim_scale(e.remaining)::text END,
                'resets_at', to_char(e.resets_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'resets_on', (e.resets_at AT TIME ZONE c.time_zone)::date) ORDER BY e.name, e.feature)
            FROM billing.my_entitlements(c.key) e), '[]'),
        'balances', coalesce((SELECT jsonb_agg(jsonb_build_object('currency', i.currency, 'open', billing_internal.amount_text(i.open_amount, i.currency), 'overdue', billing_internal.amount_text(i.overdue, i.currency), 'invoices', i.n::text) ORDER BY i.currency)
            FROM (SELECT v.currency, sum(v.open_amount) AS open_amount, coalesce(sum(v.open_amount) FILTER (WHERE v.due_on < today AND v.open_amount > 0), 0) AS overdue, count(*) AS n
                FROM billing.my_invoices v WHERE v.customer_id = of_customer_id AND v.state = 'open' GROUP BY v.currency) i), '[]'),
        'invoices', coalesce((SELECT jsonb_agg(jsonb_build_object('invoice', i.invoice, 'kind', i.kind, 'state', i.state, 'contract', i.contract, 'bill_to', i.bill_to, 'issued_on', i.issued_on, 'due_on', i.due_on, 'currency', i.currency,
                'total', billing_internal.amount_text(i.total, i.currency), 'credits', billing_internal.amount_text(i.credits_applied, i.currency), 'due', billing_internal.amount_text(i.due, i.currency),
                'overdue', i.state = 'open' AND i.due_on < today AND i.open_amount > 0) ORDER BY i.issued_on DESC, i.invoice DESC)
            FROM (SELECT v.* FROM billing.my_invoices v WHERE v.customer_id = of_customer_id ORDER BY v.state = 'open' DESC, v.issued_on DESC, v.invoice DESC LIMIT 24) i), '[]'));
END
$$;
COMMENT ON FUNCTION billing.customer_summary(text) IS
    'Everything a billing page shows of a customer, in one call: contracts with term and next invoice so far, the current period, its usage, spend by day and by model (or another dimension), average and forecast with their formula, commitments, credit by unit with blocks, entitlements with their quotas, open amounts, open and recent invoices. Amounts are strings, each with its currency or unit beside it; days are local to time_zone, ends exclusive. problem: true where a contract can''t be priced as it stands; what depends on it is null then. Errors: ZB001.';

CREATE FUNCTION billing_internal.page_html(summary text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS 'MODULE_PATHNAME', 'page_html_wrapper';
COMMENT ON FUNCTION billing_internal.page_html(text) IS 'The HTML page of a customer_summary(); NULL where page_html_error() says why.';
CREATE FUNCTION billing_internal.page_html_error(summary text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'page_html_error_wrapper';
COMMENT ON FUNCTION billing_internal.page_html_error(text) IS 'The fault that page_html() found, as JSON.';

CREATE FUNCTION billing.customer_page(customer text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    summary text := billing.customer_summary(customer)::text;
    page text := billing_internal.page_html(summary);
BEGIN
    IF page IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.page_html_error(summary)::jsonb);
    END IF;
    RETURN page;
END
$$;
COMMENT ON FUNCTION billing.customer_page(text) IS
    'A customer''s billing page: one self-contained HTML document made of customer_summary(), with inline SVG, no script and nothing loaded from elsewhere, for phones to wide screens, light and dark. Send it as text/html; charset=utf-8. Errors: ZB001.';

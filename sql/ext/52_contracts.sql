-- Contracts: deals, their terms over time, and the price that holds for some usage.

CREATE FUNCTION billing_internal.resolved_price(prices text, dimensions text, at timestamptz, starts timestamptz, begins timestamptz, ends timestamptz, continuity text)
    RETURNS TABLE (source text, label text, list_label text, pricing text)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'resolved_price_wrapper';
COMMENT ON FUNCTION billing_internal.resolved_price(text, text, timestamptz, timestamptz, timestamptz, timestamptz, text) IS 'Which of {"list","overrides","dimensions"} holds at an instant of the service period that starts at an instant; begins counts as its start for what is for a whole period, ends as the start of the next one. list_label is NULL where no list price is in force. No row where resolved_price_error() says why.';
CREATE FUNCTION billing_internal.resolved_price_error(prices text, dimensions text, at timestamptz, starts timestamptz, begins timestamptz, ends timestamptz, continuity text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'resolved_price_error_wrapper';
COMMENT ON FUNCTION billing_internal.resolved_price_error(text, text, timestamptz, timestamptz, timestamptz, timestamptz, text) IS 'Why resolved_price() gave no row.';

-- ── contracts ────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.find_contract(contract text, OUT customer_id bigint, OUT contract_id uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    live text[];
BEGIN
    SELECT k.customer_id, k.contract_id INTO customer_id, contract_id FROM billing.contract_key k WHERE k.key = contract;
    IF FOUND THEN
        RETURN;
    END IF;
    IF contract ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
        SELECT k.customer_id, k.contract_id INTO customer_id, contract_id FROM billing.contract_key k WHERE k.contract_id = contract::uuid;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    of_customer_id := billing_internal.customer_of(contract);
    IF of_customer_id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('contract %s is not known', coalesce(quote_literal(contract), 'NULL')),
            'SELECT key, state FROM billing.contract; lists them; a customer with one live contract may stand for it.');
    END IF;
    SELECT coalesce(array_agg(k.key ORDER BY k.key), '{}'), min(k.contract_id::text)::uuid INTO live, contract_id
    FROM billing.contract k WHERE k.customer_id = of_customer_id AND k.state IN ('scheduled', 'active', 'paused');
    IF cardinality(live) = 0 THEN
        PERFORM billing_internal.fail('ZB001', format('customer %s has no live contract', quote_literal(contract)), 'SELECT billing.subscribe(''customer'', ''plan''); makes one.');
    ELSIF cardinality(live) > 1 THEN
        PERFORM billing_internal.fail('ZB002', format('customer %s has %s live contracts', quote_literal(contract), cardinality(live)),
            'Name one of them: ' || array_to_string(live, ', '));
    END IF;
    customer_id := of_customer_id;
END
$$;
COMMENT ON FUNCTION billing_internal.find_contract(text) IS 'A contract by key, by id, or by the key of a customer with exactly one live contract. Errors: ZB001, ZB002 with the candidates.';

CREATE FUNCTION billing_internal.contract_hold(of_customer_id bigint, of_contract_id uuid, with_customer boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before text := current_setting('lock_timeout');
BEGIN
    -- For five seconds at most, or as long as the caller waits for any lock.
    IF before = '0' OR before::interval > interval '5 seconds' THEN
        PERFORM set_config('lock_timeout', '5s', true);
    END IF;
    PERFORM FROM billing.customer c WHERE c.customer_id = of_customer_id AND with_customer FOR NO KEY UPDATE;
    PERFORM FROM billing.contract k WHERE k.customer_id = of_customer_id AND k.contract_id = of_contract_id FOR NO KEY UPDATE;
    PERFORM set_config('lock_timeout', before, true);
EXCEPTION WHEN lock_not_available THEN
    PERFORM billing_internal.fail('55P03', (SELECT format('contract %s is held by a transaction of another session', k.key) FROM billing.contract k WHERE k.customer_id = of_customer_id AND k.contract_id = of_contract_id),
        'Try again when it has ended; a time travel holds what it bills. SELECT pid, xact_start, query FROM pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY 2; shows whose it may be.');
END
$$;
COMMENT ON FUNCTION billing_internal.contract_hold(bigint, uuid, boolean) IS
    'Holds a contract (and its customer before it) until the transaction ends, as whoever changes, bills or voids does first. Errors: 55P03 another session has held it for five seconds (or the caller''s lock_timeout, if that is shorter).';

CREATE FUNCTION billing_internal.contract_policy_set(contract text, of_name text, of_value text, reason text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_contract record;
    before text;
BEGIN
    SELECT * INTO found_contract FROM billing_internal.find_contract(contract);
    SELECT p.value INTO before FROM billing.contract_policy p
    WHERE p.customer_id = found_contract.customer_id AND p.contract_id = found_contract.contract_id AND p.name = of_name;
    INSERT INTO billing.contract_policy (customer_id, contract_id, name, value, set_at, set_by)
    VALUES (found_contract.customer_id, found_contract.contract_id, of_name, of_value, clock_timestamp(), billing_internal.caller())
    ON CONFLICT (customer_id, contract_id, name) DO UPDATE SET value = excluded.value, set_at = excluded.set_at, set_by = excluded.set_by;
    PERFORM billing_internal.audit('policy_set', 'policy', of_name || '@contract:' || contract, found_contract.customer_id, to_jsonb(before), to_jsonb(of_value), reason);
END
$$;
COMMENT ON FUNCTION billing_internal.contract_policy_set(text, text, text, text) IS 'policy_set() for scope contract:<key>.';

CREATE FUNCTION billing.policies(contract text DEFAULT NULL) RETURNS TABLE (name text, value text, source text, meaning text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    of_contract_id uuid;
    seller_key text := 'default';
BEGIN
    PERFORM billing_internal.require_installed();
    IF contract IS NOT NULL THEN
        SELECT f.customer_id, f.contract_id, s.key INTO of_customer_id, of_contract_id, seller_key
        FROM billing_internal.find_contract(contract) f JOIN billing.contract c USING (customer_id, contract_id) JOIN billing.seller s USING (seller_id);
    END IF;
    RETURN QUERY
    SELECT d.name, coalesce(c.value, s.value, g.value, d.default_value),
        CASE WHEN c.value IS NOT NULL THEN 'contract' WHEN s.value IS NOT NULL THEN 'seller ' || seller_key WHEN g.value IS NOT NULL THEN 'global' ELSE 'default' END,
        d.meaning
    FROM billing_internal.policy_definition() d
    LEFT JOIN billing.policy g ON g.name = d.name AND g.scope = 'global'
    LEFT JOIN billing.policy s ON s.name = d.name AND s.scope = 'seller:' || seller_key
    LEFT JOIN billing.contract_policy c ON c.customer_id = of_customer_id AND c.contract_id = of_contract_id AND c.name = d.name
    ORDER BY d.name;
END
$$;
COMMENT ON FUNCTION billing.policies(text) IS 'Every policy with the value in force, where it comes from (contract, seller, global, default) and what it does; for one contract, or in general (seller default). Errors: ZB001, ZB002 contract.';

CREATE FUNCTION billing_internal.check_overlap(of_customer_id bigint, of_contract_id uuid, document jsonb, change jsonb DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hit record;
BEGIN
    SELECT a.charge_key AS mine, b.charge_key AS theirs, k.key AS contract, m.key AS meter, a.terms->'match' AS mine_match, b.terms->'match' AS their_match,
        billing_internal.item_path(document, change, '{charges}', a.charge_key, a.terms) AS mine_path,
        CASE WHEN b.contract_id = a.contract_id THEN billing_internal.item_path(document, change, '{charges}', b.charge_key, b.terms) END AS their_path INTO hit
    FROM billing.contract_charge a
    JOIN billing.contract_charge b ON b.customer_id = a.customer_id AND b.meter_id = a.meter_id AND b.kind = 'usage' AND b.until_version IS NULL
        AND b.valid_during && a.valid_during AND (b.contract_id, b.charge_key) <> (a.contract_id, a.charge_key)
    JOIN billing.contract k ON k.customer_id = b.customer_id AND k.contract_id = b.contract_id
        -- One that has ended has priced what came before its end: a contract from an earlier day would price it again.
        AND (k.contract_id = of_contract_id OR k.state IN ('scheduled', 'active', 'paused', 'ended', 'cancelled'))
    JOIN billing.meter m ON m.meter_id = a.meter_id
    WHERE a.customer_id = of_customer_id AND a.contract_id = of_contract_id AND a.kind = 'usage' AND a.until_version IS NULL
        -- One event could match both unless some dimension is asked for with two values.
        AND NOT EXISTS (SELECT FROM jsonb_each_text(coalesce(a.terms->'match', '{}')) x JOIN jsonb_each_text(coalesce(b.terms->'match', '{}')) y USING (key)
            WHERE x.value <> y.value)
    ORDER BY m.key, a.charge_key, k.key, b.charge_key LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB006', format('charge %s and charge %s of contract %s would both price the same events of meter %s', hit.mine, hit.theirs, hit.contract, hit.meter),
            'Give the charges matches that exclude each other, or let one contract begin where the other ends.',
            format('at %s: match %s, and %smatch %s', hit.mine_path, coalesce(hit.mine_match, '{}'), 'at ' || hit.their_path || ': ', coalesce(hit.their_match, '{}')));
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_overlap(bigint, uuid, jsonb, jsonb) IS
    'Errors: ZB006 if two usage charges of one meter, in contracts that are live or were, could price one event; DETAIL has the place, as item_path() finds it.';

-- ── terms over time ──────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.timeline(changes jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plans text;
    made text;
BEGIN
    SELECT coalesce(jsonb_object_agg(n.name, v.document), '{}')::text INTO plans
    FROM (SELECT DISTINCT c->>'plan' AS name FROM jsonb_array_elements(changes) c WHERE c ? 'plan') n
    JOIN billing.plan p ON p.key = regexp_replace(n.name, '@[0-9]+$', '')
    JOIN billing.plan_version v ON v.plan_id = p.plan_id AND v.version = substring(n.name FROM '@([0-9]+)$')::int;
    made := billing_internal.contract_timeline(changes::text, plans);
    IF made IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.contract_timeline_error(changes::text, plans)::jsonb);
    END IF;
    RETURN made::jsonb;
END
$$;
COMMENT ON FUNCTION billing_internal.timeline(jsonb) IS 'contract_timeline() of some changes, with the plans they name. What is wrong with them is raised.';

CREATE FUNCTION billing_internal.contract_changes(of_customer_id bigint, of_contract_id uuid, known int DEFAULT NULL, valid_at timestamptz DEFAULT NULL, known_at timestamptz DEFAULT NULL) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_agg(billing_internal.contract_change_entry(v.version, v.kind, v.effective_at, k.time_zone, v.plan, v.change) ORDER BY v.version)
    FROM billing.contract k JOIN billing.contract_version v ON v.customer_id = k.customer_id AND v.contract_id = k.contract_id
    WHERE k.customer_id = of_customer_id AND k.contract_id = of_contract_id AND (known IS NULL OR v.version <= known)
        AND (valid_at IS NULL OR v.version = 1 OR v.effective_at <= valid_at) AND (known_at IS NULL OR v.recorded_at <= known_at)
$$;
COMMENT ON FUNCTION billing_internal.contract_changes(bigint, uuid, int, timestamptz, timestamptz) IS 'The changes of a contract as contract_timeline() takes them: those up to a version, in force at an instant, recorded by an instant (NULL = all).';

CREATE FUNCTION billing_internal.contract_change_entry(version int, kind text, effective_at timestamptz, zone text, plan text, change jsonb) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN jsonb_strip_nulls(jsonb_build_object('version', version, 'kind', kind, 'on', (effective_at AT TIME ZONE zone)::date, 'plan', plan,
        'at', CASE WHEN effective_at <> billing_internal.local_midnight((effective_at AT TIME ZONE zone)::date, zone) THEN to_char(effective_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END))
        || jsonb_build_object('change', change);
COMMENT ON FUNCTION billing_internal.contract_change_entry(int, text, timestamptz, text, text, jsonb) IS 'A change as contract_timeline() takes it.';

CREATE FUNCTION billing_internal.timeline_rows(made jsonb, zone text) RETURNS TABLE (kind text, key text, place int, valid_during tstzrange, every text, book text, terms jsonb)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT x.kind, x.key, x.place, tstzrange(
            -- An override that begins or ends with the contract has no bounds of its own.
            CASE WHEN x.kind = 'override' AND x.r->>'from' = made->>'starts_on' AND NOT x.r ? 'from_at' THEN NULL
                ELSE coalesce((x.r->>'from_at')::timestamptz, billing_internal.local_midnight((x.r->>'from')::date, zone)) END,
            CASE WHEN x.kind = 'override' AND (x.r->>'until', x.r->>'until_at') IS NOT DISTINCT FROM (CASE WHEN made ? 'ends_at' THEN made->'cancelled'->>'on' ELSE made->>'ends_on' END, made->>'ends_at') THEN NULL
                ELSE coalesce((x.r->>'until_at')::timestamptz, billing_internal.local_midnight((x.r->>'until')::date, zone)) END),
        x.r->>'every', x.r->>'price_book', x.terms
    FROM (
        SELECT r->>'kind' AS kind, r->>'key' AS key, (r->>'position')::int AS place, r, r->'terms' AS terms FROM jsonb_array_elements(made->'rows') r
        UNION ALL
        SELECT 'pause', 'pause', 0, r, '{}' FROM jsonb_array_elements(made->'paused') r
        UNION ALL
        -- The legal entity that was signed is the contract's own, until another takes its place.
        SELECT 'bill_to', 'bill_to', 0, r, jsonb_build_object('value', r->'value') FROM jsonb_array_elements(made->'bill_tos') WITH ORDINALITY x (r, place) WHERE x.place > 1 OR r ? 'amended'
        UNION ALL
        SELECT 'purchase_order', 'purchase_order', 0, r, jsonb_build_object('value', r->'value') FROM jsonb_array_elements(made->'purchase_orders') r
        WHERE EXISTS (SELECT FROM jsonb_array_elements(made->'purchase_orders') o WHERE o->>'value' IS NOT NULL)
        UNION ALL
        -- What was signed is in the first version.
        SELECT f.kind, f.kind, 0, r, jsonb_build_object('value', r->'value')
        FROM (VALUES ('credit_mode', 'credit_modes'), ('credit_order', 'credit_orders')) f (kind, name), jsonb_array_elements(made->f.name) r WHERE r ? 'amended'
    ) x
$$;
COMMENT ON FUNCTION billing_internal.timeline_rows(jsonb, text) IS 'What a timeline says, item by item, with instants: charges, fees, overrides and other terms.';

CREATE FUNCTION billing_internal.stored_rows(of_customer_id bigint, of_contract_id uuid) RETURNS TABLE (kind text, key text, valid_during tstzrange, every text, book text, terms jsonb)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.kind, h.charge_key, h.valid_during, h.every, b.key, h.terms
    FROM billing.contract_charge h LEFT JOIN billing.price_book b USING (price_book_id)
    WHERE h.customer_id = of_customer_id AND h.contract_id = of_contract_id AND h.until_version IS NULL
    UNION ALL
    SELECT t.kind, t.term_key, t.valid_during, CASE WHEN t.kind = 'commitment' THEN t.terms->>'every' END, NULL, t.terms
    FROM billing.contract_term t WHERE t.customer_id = of_customer_id AND t.contract_id = of_contract_id AND t.until_version IS NULL
    UNION ALL
    SELECT 'override', NULL, tstzrange(CASE WHEN lower(o.valid_during) > k.starts_at THEN lower(o.valid_during) END, CASE WHEN upper(o.valid_during) < coalesce(k.ends_at, 'infinity') THEN upper(o.valid_during) END), NULL, NULL,
        jsonb_strip_nulls(jsonb_build_object('meter', m.key, 'charge', o.charge_key)) || CASE WHEN o.match = '{}' THEN '{}' ELSE jsonb_build_object('match', o.match) END || o.terms
    FROM billing.price_override o JOIN billing.contract k ON k.customer_id = o.customer_id AND k.contract_id = o.contract_id LEFT JOIN billing.meter m USING (meter_id)
    WHERE o.customer_id = of_customer_id AND o.contract_id = of_contract_id AND o.until_version IS NULL
$$;
COMMENT ON FUNCTION billing_internal.stored_rows(bigint, uuid) IS 'What the newest version of a contract says, item by item, as timeline_rows() has it; overrides are told apart by what they say.';

CREATE FUNCTION billing_internal.contract_apply(of_customer_id bigint, of_contract_id uuid, of_version int, made jsonb) RETURNS timestamptz
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    zone text;
    since timestamptz;
BEGIN
    SELECT k.time_zone INTO zone FROM billing.contract k WHERE k.customer_id = of_customer_id AND k.contract_id = of_contract_id;
    -- The first instant at which something is billed otherwise: where terms begin or end, or only their end has moved.
    WITH old AS MATERIALIZED (SELECT * FROM billing_internal.stored_rows(of_customer_id, of_contract_id)),
    new AS MATERIALIZED (SELECT n.kind, CASE WHEN n.kind <> 'override' THEN n.key END AS key, n.valid_during, n.every, n.book, n.terms FROM billing_internal.timeline_rows(made, zone) n),
    changed AS (
        (SELECT * FROM old EXCEPT SELECT * FROM new) UNION ALL (SELECT * FROM new EXCEPT SELECT * FROM old)
    )
    SELECT min(coalesce(CASE WHEN c.ends_moved THEN c.ends ELSE c.begins END, '-infinity')) INTO since
    FROM (
        SELECT lower(x.valid_during) AS begins, min(coalesce(upper(x.valid_during), 'infinity')) AS ends, count(*) > 1 AS ends_moved
        FROM changed x WHERE x.kind NOT IN ('entitlement', 'credit', 'pause', 'purchase_order') GROUP BY x.kind, x.key, x.every, x.book, x.terms, lower(x.valid_during)
    ) c;

    UPDATE billing.contract_charge h SET until_version = of_version
    WHERE h.customer_id = of_customer_id AND h.contract_id = of_contract_id AND h.until_version IS NULL
        AND NOT EXISTS (SELECT FROM billing_internal.timeline_rows(made, zone) n WHERE (n.kind, n.key, n.valid_during, n.every, n.terms) = (h.kind, h.charge_key, h.valid_during, h.every, h.terms)
            AND n.book IS NOT DISTINCT FROM (SELECT b.key FROM billing.price_book b WHERE b.price_book_id = h.price_book_id));
    UPDATE billing.contract_term t SET until_version = of_version
    WHERE t.customer_id = of_customer_id AND t.contract_id = of_contract_id AND t.until_version IS NULL
        AND NOT EXISTS (SELECT FROM billing_internal.timeline_rows(made, zone) n WHERE (n.kind, n.key, n.valid_during, n.terms) = (t.kind, t.term_key, t.valid_during, t.terms));
    UPDATE billing.price_override o SET until_version = of_version
    FROM billing.contract k
    WHERE o.customer_id = of_customer_id AND o.contract_id = of_contract_id AND o.until_version IS NULL AND k.customer_id = o.customer_id AND k.contract_id = o.contract_id
        AND NOT EXISTS (SELECT FROM billing_internal.timeline_rows(made, zone) n WHERE n.kind = 'override' AND n.terms - ARRAY['meter', 'charge', 'match'] = o.terms AND coalesce(n.terms->'match', '{}') = o.match
            AND n.terms->>'charge' IS NOT DISTINCT FROM o.charge_key AND n.terms->>'meter' IS NOT DISTINCT FROM (SELECT m.key FROM billing.meter m WHERE m.meter_id = o.meter_id)
            AND n.valid_during = tstzrange(CASE WHEN lower(o.valid_during) > k.starts_at THEN lower(o.valid_during) END, CASE WHEN upper(o.valid_during) < coalesce(k.ends_at, 'infinity') THEN upper(o.valid_during) END));

    INSERT INTO billing.contract_charge (customer_id, contract_id, charge_key, valid_during, from_version, position, kind, product_id, meter_id, price_book_id, price_key, every, terms)
    SELECT of_customer_id, of_contract_id, n.key, n.valid_during, of_version, n.place, n.kind, p.product_id, m.meter_id, b.price_book_id, n.terms->>'price', n.every, n.terms
    FROM billing_internal.timeline_rows(made, zone) n
    JOIN billing.product p ON p.key = n.terms->>'product'
    LEFT JOIN billing.meter m ON m.key = n.terms->>'meter'
    LEFT JOIN billing.price_book b ON b.key = n.book
    WHERE n.kind IN ('usage', 'fee') AND NOT EXISTS (SELECT FROM billing.contract_charge h WHERE h.customer_id = of_customer_id AND h.contract_id = of_contract_id AND h.charge_key = n.key
        AND h.valid_during = n.valid_during AND h.until_version IS NULL);
    INSERT INTO billing.contract_term (customer_id, contract_id, kind, term_key, valid_during, from_version, position, terms)
    SELECT of_customer_id, of_contract_id, n.kind, n.key, n.valid_during, of_version, n.place, n.terms
    FROM billing_internal.timeline_rows(made, zone) n
    WHERE n.kind NOT IN ('usage', 'fee', 'override') AND NOT EXISTS (SELECT FROM billing.contract_term t WHERE t.customer_id = of_customer_id AND t.contract_id = of_contract_id AND t.kind = n.kind AND t.term_key = n.key
        AND t.valid_during = n.valid_during AND t.until_version IS NULL);
    INSERT INTO billing.price_override (customer_id, override_id, contract_id, meter_id, charge_key, match, valid_during, from_version, terms)
    SELECT of_customer_id, billing_internal.uuid_v7(), of_contract_id, m.meter_id, n.terms->>'charge', coalesce(n.terms->'match', '{}'), n.valid_during, of_version, n.terms - ARRAY['meter', 'charge', 'match']
    FROM billing_internal.timeline_rows(made, zone) n LEFT JOIN billing.meter m ON m.key = n.terms->>'meter'
    WHERE n.kind = 'override' AND NOT EXISTS (SELECT FROM billing_internal.stored_rows(of_customer_id, of_contract_id) s WHERE s.kind = 'override' AND s.terms = n.terms AND s.valid_during = n.valid_during);
    RETURN since;
END
$$;
COMMENT ON FUNCTION billing_internal.contract_apply(bigint, uuid, int, jsonb) IS
    'Stores what a timeline says as of a version: rows it no longer says end with that version, new ones begin with it, others stay. Returns the first instant at which something is billed otherwise; NULL = nowhere. The caller holds the contract''s row.';

CREATE FUNCTION billing_internal.item_places(document jsonb, lists text[]) RETURNS TABLE (path text, key text, item jsonb)
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s[%s]', l.name, i.place - 1), i.value->>'key', i.value
    FROM unnest(lists) l (name) CROSS JOIN LATERAL jsonb_array_elements(coalesce(document->l.name, '[]')) WITH ORDINALITY i (value, place)
    UNION ALL
    SELECT format('%s[%s].%s[%s]', g.name, o.place - 1, l.name, i.place - 1), CASE g.name WHEN 'add_ons' THEN o.value->>'key' || '/' ELSE '' END || (i.value->>'key'), i.value
    FROM unnest('{phases, add_ons}'::text[]) g (name) CROSS JOIN LATERAL jsonb_array_elements(coalesce(document->g.name, '[]')) WITH ORDINALITY o (value, place)
    CROSS JOIN unnest(lists) l (name) CROSS JOIN LATERAL jsonb_array_elements(coalesce(o.value->l.name, '[]')) WITH ORDINALITY i (value, place)
$$;
COMMENT ON FUNCTION billing_internal.item_places(jsonb, text[]) IS 'The items of some lists of a contract document, also in its phases and add-ons: JSON path, key among the terms, the item.';

CREATE FUNCTION billing_internal.item_path(document jsonb, change jsonb, lists text[], key text, terms jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- An item and what takes its place in a phase have one key: the one that says what the terms say.
    SELECT coalesce((
        SELECT x.path FROM (
            SELECT p.*, 0 AS place FROM billing_internal.item_places(change, lists) p
            UNION ALL
            SELECT CASE WHEN change IS NULL THEN '' ELSE 'contract.' END || p.path, p.key, p.item, 1 FROM billing_internal.item_places(document, lists) p
        ) x WHERE x.key = item_path.key
        ORDER BY x.place, (x.item->>'product', x.item->>'meter', x.item->>'price', x.item->'match') IS NOT DISTINCT FROM (terms->>'product', terms->>'meter', terms->>'price', terms->'match') DESC, x.path LIMIT 1), 'plan')
$$;
COMMENT ON FUNCTION billing_internal.item_path(jsonb, jsonb, text[], text, jsonb) IS
    'Where an item of some lists is said, as a JSON path: in the change that is being made (NULL = the contract is being made), else in the contract''s document; plan = its plan does.';

CREATE FUNCTION billing_internal.entitlement_path(document jsonb, key text) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT format('entitlements[%s]', i.place - 1) FROM jsonb_array_elements(coalesce(document->'entitlements', '[]')) WITH ORDINALITY i (value, place) WHERE i.value->>'feature' = entitlement_path.key),
        (SELECT format('add_ons[%s].entitlements[%s]', o.place - 1, i.place - 1) FROM jsonb_array_elements(coalesce(document->'add_ons', '[]')) WITH ORDINALITY o (value, place)
            CROSS JOIN LATERAL jsonb_array_elements(coalesce(o.value->'entitlements', '[]')) WITH ORDINALITY i (value, place) WHERE (o.value->>'key') || '/' || (i.value->>'feature') = entitlement_path.key),
        'plan')
$$;
COMMENT ON FUNCTION billing_internal.entitlement_path(jsonb, text) IS 'Where a contract document says an entitlement, by its key among the terms, as a JSON path; plan = its plan does.';

CREATE FUNCTION billing_internal.check_scope(scope jsonb, of_customer_id bigint, path text, billed boolean DEFAULT true) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong record;
    names text[];
BEGIN
    SELECT format('%s.%s[%s]', path, l.list, v.place - 1) AS path, l.what || quote_literal(v.value) AS what, l.hint INTO wrong
    FROM (VALUES (1, 'products', 'product ', 'SELECT key, name FROM billing.product; lists them.'), (2, 'meters', 'meter ', 'SELECT key, event_type FROM billing.meter; lists them.'),
        (3, 'bill_tos', 'bill_to ', 'SELECT key, name FROM billing.bill_to; lists those of all customers.')) l (n, list, what, hint)
    CROSS JOIN LATERAL jsonb_array_elements_text(scope->l.list) WITH ORDINALITY v (value, place)
    WHERE NOT CASE l.list WHEN 'products' THEN EXISTS (SELECT FROM billing.product p WHERE p.key = v.value) WHEN 'meters' THEN EXISTS (SELECT FROM billing.meter m WHERE m.key = v.value)
        ELSE EXISTS (SELECT FROM billing.bill_to b WHERE b.customer_id = of_customer_id AND b.key = v.value) END
    ORDER BY l.n, v.place LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB001', format('%s: %s is not known', wrong.path, wrong.what), wrong.hint);
    END IF;
    SELECT array_agg(DISTINCT d ORDER BY d) || 'bill_to'::text INTO names FROM billing.meter m CROSS JOIN LATERAL unnest(m.dimensions) d
    WHERE NOT scope ? 'meters' OR scope->'meters' ? m.key;
    SELECT k AS name INTO wrong FROM jsonb_object_keys(scope->'dimensions') k WHERE billed AND (k = ANY (coalesce(names, '{bill_to}'))) IS NOT TRUE ORDER BY k LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB003', format('%s.dimensions: %s is no dimension of %s', path, quote_literal(wrong.name), CASE WHEN scope ? 'meters' THEN 'its meters' ELSE 'any meter' END),
            format('Dimensions are: %s.', array_to_string(coalesce(names, '{bill_to}'), ', ')));
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_scope(jsonb, bigint, text, boolean) IS 'Whether what a scope of credit or of a commitment lists is there; path is its own. billed: bills draw it, so its dimensions are those of meters. Errors: ZB001 product, meter, bill_to of the customer, ZB003 dimension of its meters.';

CREATE FUNCTION billing_internal.unit_is_billed(of_unit text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM billing.currency u WHERE u.code = of_unit) OR EXISTS (SELECT FROM billing.meter m WHERE coalesce(m.unit, m.key) = of_unit)
$$;
COMMENT ON FUNCTION billing_internal.unit_is_billed(text) IS 'Whether bills draw credit in a unit: money, or what a meter counts in. Any other is drawn by the application''s calls alone, which say dimensions of their own.';

CREATE FUNCTION billing_internal.check_credit_unit(of_unit text, of_currency text, path text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- What bills price in it, what meters count in it, what consume() asks for in it.
    IF of_unit = of_currency OR EXISTS (SELECT FROM billing.currency u WHERE u.code = of_unit AND u.numeric_code IS NULL) OR EXISTS (SELECT FROM billing.meter m WHERE coalesce(m.unit, m.key) = of_unit)
        OR EXISTS (SELECT FROM billing.feature f WHERE f.kind = 'credit' AND f.unit = of_unit) THEN
        RETURN;
    ELSIF EXISTS (SELECT FROM billing.currency u WHERE u.code = of_unit) THEN
        PERFORM billing_internal.fail('ZB011', format('%s.unit: credit in %s can''t pay in a contract in %s', path, of_unit, of_currency), 'Grant it in the contract''s currency; money is never converted silently.');
    END IF;
    PERFORM billing_internal.fail('ZB001', format('%s.unit: unit %s is not known', path, quote_literal(of_unit)),
        'Use the contract''s currency, a meter''s unit, or one of your own: a feature of kind credit makes it known, {"features": [{"key": "credits", "kind": "credit", "unit": "credits"}]}.');
END
$$;
COMMENT ON FUNCTION billing_internal.check_credit_unit(text, text, text) IS 'Whether anything can draw credit that a contract grants in a unit. Errors: ZB001 a unit of nothing, ZB011 another currency.';

CREATE FUNCTION billing_internal.check_carried(of_customer_id bigint, of_contract_id uuid, made jsonb, change jsonb DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong record;
BEGIN
    SELECT x.path || '.carry_from.contract' AS path, x.contract, k.contract_id, c.key AS customer INTO wrong
    FROM (SELECT r->'terms'->'carry_from'->>'contract' AS contract, x.place, billing_internal.item_path(made->'document', change, '{credits}', r->>'key', r->'terms') AS path
        FROM jsonb_array_elements(made->'rows') WITH ORDINALITY x (r, place) WHERE r->>'kind' = 'credit' AND r->'terms' ? 'carry_from') x
    JOIN billing.customer c ON c.customer_id = of_customer_id
    LEFT JOIN billing.contract k ON k.customer_id = of_customer_id AND k.key = x.contract
    -- While it is being made, the other one may still be a draft.
    WHERE k.contract_id IS NULL OR k.contract_id = of_contract_id OR (k.state = 'draft' AND EXISTS (SELECT FROM billing.contract n WHERE n.customer_id = of_customer_id AND n.contract_id = of_contract_id))
    ORDER BY x.place LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    ELSIF wrong.contract_id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('%s: %s is not a contract of customer %s', wrong.path, quote_literal(wrong.contract), wrong.customer), 'Name the contract whose unused credit it takes over; SELECT key, state FROM billing.contract; lists them.');
    ELSIF wrong.contract_id = of_contract_id THEN
        PERFORM billing_internal.fail('ZB003', format('%s: %s is this contract', wrong.path, wrong.contract), 'Credit is carried from another contract, such as a pilot; in one contract it lives on by rollover.');
    END IF;
    PERFORM billing_internal.fail('ZB005', format('%s: contract %s is a draft, so it has granted nothing', wrong.path, wrong.contract), 'Activate it first.');
END
$$;
COMMENT ON FUNCTION billing_internal.check_carried(bigint, uuid, jsonb, jsonb) IS 'Whether what a contract''s credits are to be carried from is another contract of the customer, which was activated when it is itself. Errors, with the JSON path: ZB001, ZB003, ZB005.';

CREATE FUNCTION billing_internal.check_rows(made jsonb, of_customer_id bigint, of_currency text, change jsonb DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    document jsonb := made->'document';
    item record;
BEGIN
    PERFORM billing_internal.check_items('[]', b.book, of_currency, CASE WHEN document ? 'price_book' THEN '' ELSE 'plan: ' END)
    FROM (SELECT DISTINCT r->>'price_book' AS book FROM jsonb_array_elements(made->'rows') r WHERE r ? 'price_book') b;
    FOR item IN SELECT DISTINCT ON (r->>'kind', r->>'key', r->'terms', r->>'price_book') r, billing_internal.item_path(document, change, '{charges, fees}', r->>'key', r->'terms') || ': ' AS path
        FROM jsonb_array_elements(made->'rows') WITH ORDINALITY x (r, place) WHERE r->>'kind' IN ('usage', 'fee') ORDER BY r->>'kind', r->>'key', r->'terms', r->>'price_book', x.place LOOP
        PERFORM billing_internal.check_items(jsonb_build_array(jsonb_build_object('kind', item.r->>'kind', 'terms', (item.r->'terms') - 'trial')), item.r->>'price_book', of_currency, item.path);
    END LOOP;
    PERFORM billing_internal.check_entitlement(r->'terms', billing_internal.entitlement_path(document, r->>'key'), false)
    FROM jsonb_array_elements(made->'rows') WITH ORDINALITY x (r, place) WHERE r->>'kind' = 'entitlement';
    FOR item IN SELECT r->'terms' AS terms, r->'terms'->>'product' AS product, r->'terms'->>'meter' AS meter, billing_internal.item_path(document, change, '{commitments}', r->>'key', r->'terms') AS path
        FROM jsonb_array_elements(made->'rows') r WHERE r->>'kind' = 'commitment' LOOP
        IF NOT EXISTS (SELECT FROM billing.product p WHERE p.key = item.product AND p.retired_at IS NULL) THEN
            PERFORM billing_internal.fail('ZB001', format('%s: product %s is not known', item.path, coalesce(quote_literal(item.product), 'NULL')), 'SELECT key, name FROM billing.product; lists them.');
        ELSIF item.meter IS NOT NULL AND NOT EXISTS (SELECT FROM billing.meter m WHERE m.key = item.meter AND m.retired_at IS NULL) THEN
            PERFORM billing_internal.fail('ZB001', format('%s: meter %s is not known', item.path, quote_literal(item.meter)), 'SELECT key, event_type FROM billing.meter WHERE retired_at IS NULL; lists them.');
        END IF;
        PERFORM billing_internal.check_scope(item.terms->'scope', of_customer_id, item.path || '.scope');
    END LOOP;
    -- What a commitment in units buys has its scope and its meter's unit.
    FOR item IN SELECT r->'terms' AS terms, billing_internal.item_path(document, change, '{credits}', r->>'key', r->'terms') AS path
        FROM jsonb_array_elements(made->'rows') r WHERE r->>'kind' = 'credit' AND NOT r->'terms' ? 'of_meter' LOOP
        PERFORM billing_internal.check_credit_unit(coalesce(item.terms->>'unit', of_currency), of_currency, item.path);
        PERFORM billing_internal.check_scope(item.terms->'scope', of_customer_id, item.path || '.scope');
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.check_rows(jsonb, bigint, text, jsonb) IS
    'Whether everything that a timeline says can be billed: products, meters, prices, dimensions, currency, what credits and commitments are for. Errors: as check_items(), check_scope(), check_credit_unit(), with the place of the item, as item_path() finds it.';

CREATE FUNCTION billing_internal.contract_state(of_customer_id bigint, of_contract_id uuid, version int, starts_at timestamptz, cancelled_at timestamptz, is_over boolean) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN is_over THEN CASE WHEN cancelled_at IS NOT NULL THEN 'cancelled' ELSE 'ended' END
        WHEN starts_at > billing.now() THEN 'scheduled'
        WHEN version > 1 AND EXISTS (SELECT FROM billing.contract_term t WHERE t.customer_id = of_customer_id AND t.contract_id = of_contract_id AND t.kind = 'pause'
            AND t.until_version IS NULL AND t.valid_during @> billing.now()) THEN 'paused'
        ELSE 'active' END
$$;
COMMENT ON FUNCTION billing_internal.contract_state(bigint, uuid, int, timestamptz, timestamptz, boolean) IS 'The state of a contract that was activated; is_over: no boundary is left to bill.';

CREATE FUNCTION billing_internal.contract_bill_to(of_customer_id bigint, of_contract_id uuid, of_n int) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT x.terms->>'value' FROM billing.contract_term x
            WHERE x.customer_id = of_customer_id AND x.contract_id = of_contract_id AND x.kind = 'bill_to' AND x.until_version IS NULL
                AND lower(x.valid_during) <= coalesce((SELECT p.starts_at FROM billing.billing_period p WHERE p.customer_id = of_customer_id AND p.contract_id = of_contract_id AND p.n = of_n), billing.now())
            ORDER BY lower(x.valid_during) DESC LIMIT 1),
        (SELECT b.key FROM billing.contract k JOIN billing.bill_to b ON b.customer_id = k.customer_id AND b.bill_to_id = k.bill_to_id WHERE k.customer_id = of_customer_id AND k.contract_id = of_contract_id))
$$;
COMMENT ON FUNCTION billing_internal.contract_bill_to(bigint, uuid, int) IS 'The legal entity that a boundary of a contract bills for what names none.';

CREATE FUNCTION billing_internal.find_plan(plan_key text, path text, OUT name text, OUT plan_id uuid, OUT version int, OUT document jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plan record;
BEGIN
    IF plan_key IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO plan FROM billing.plan p WHERE split_part(plan_key, '@', 1) IN (p.key, p.plan_id::text)
    ORDER BY p.key = split_part(plan_key, '@', 1) DESC LIMIT 1;
    SELECT plan.key || '@' || v.version, v.plan_id, v.version, v.document INTO name, plan_id, version, document FROM billing.plan_version v
    WHERE v.plan_id = plan.plan_id AND (plan_key !~ '@' OR v.version::text = split_part(plan_key, '@', 2))
    ORDER BY v.version DESC LIMIT 1;
    IF name IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('%s: plan %s is not known', path, quote_literal(plan_key)), 'SELECT key, name FROM billing.plan; lists them; plan@2 names a version.');
    ELSIF plan.retired_at IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB005', format('%s: plan %s is retired', path, plan_key), 'Choose another plan.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.find_plan(text, text) IS 'A plan by key or id, its latest version unless @n names one; nothing for NULL. Errors: ZB001, ZB005 retired.';

CREATE FUNCTION billing.contract_create(doc jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    d jsonb;
    made jsonb;
    of_customer_id bigint;
    customer record;
    plan record;
    k record;
    currency text;
BEGIN
    PERFORM billing_internal.require_installed();
    IF doc IS NULL THEN
        PERFORM billing_internal.fail('ZB003', 'the contract document is NULL', 'Pass {"key", "customer", "starts_on", "plan"}.');
    END IF;
    SELECT * INTO plan FROM billing_internal.find_plan(doc->>'plan', 'plan');
    IF plan.name IS NOT NULL AND doc->>'plan' !~ ('^' || regexp_replace(split_part(plan.name, '@', 1), '([^A-Za-z0-9_])', '\\\1', 'g') || '(@|$)') THEN -- asked for by its id
        doc := doc || jsonb_build_object('plan', regexp_replace(plan.name, '@[0-9]+$', '') || substr(doc->>'plan', length(split_part(doc->>'plan', '@', 1)) + 1));
    END IF;
    d := billing_internal.contract_change_read('create', doc::text)::jsonb;
    IF d IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.contract_change_read_error('create', doc::text)::jsonb);
    END IF;
    made := billing_internal.timeline(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('version', 1, 'kind', 'create', 'on', d->>'starts_on', 'plan', plan.name)) || jsonb_build_object('change', d)));
    -- Found by itself: in a WHERE the planner would call it with the snapshot of the caller's statement.
    of_customer_id := billing_internal.find_customer(d->>'customer');
    -- Buckets must hold this zone's midnights, too. The stripe first, then the row.
    IF d->>'time_zone' IS NOT NULL THEN
        PERFORM billing_internal.lock_for_zone(of_customer_id, d->>'time_zone');
    END IF;
    SELECT * INTO customer FROM billing.customer c WHERE c.customer_id = of_customer_id FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM billing.contract_key x WHERE x.key = d->>'key') THEN
        PERFORM billing_internal.fail('ZB005', format('key: contract %s exists', quote_literal(d->>'key')), 'Choose another key; a contract that exists is amended, not created again.');
    END IF;
    currency := coalesce(d->>'currency', plan.document->>'currency', customer.currency);
    IF plan.document->>'currency' <> currency THEN
        PERFORM billing_internal.fail('ZB011', format('currency: plan %s is in %s, the contract in %s', regexp_replace(plan.name, '@[0-9]+$', ''), plan.document->>'currency', currency),
            'Use a plan in the contract''s currency; prices are never converted silently.');
    END IF;
    SELECT * INTO k FROM billing.contract WHERE false; -- its columns
    k.customer_id := customer.customer_id;
    k.contract_id := billing_internal.uuid_v7();
    k.seller_id := CASE WHEN d ? 'seller' THEN billing_internal.find_seller(d->>'seller') ELSE customer.seller_id END;
    k.time_zone := coalesce(d->>'time_zone', customer.time_zone);
    PERFORM billing_internal.check_zone(k.time_zone);
    PERFORM billing_internal.check_currency(currency, (d->>'starts_on')::date);
    SELECT b.bill_to_id INTO k.bill_to_id FROM billing.bill_to b
    WHERE b.customer_id = customer.customer_id AND b.retired_at IS NULL AND (NOT d ? 'bill_to' OR b.key = d->>'bill_to') ORDER BY b.position LIMIT 1;
    IF k.bill_to_id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('bill_to: %s is not one of customer %s', quote_literal(d->>'bill_to'), customer.key),
            'SELECT key, name FROM billing.bill_to; lists them.');
    END IF;
    PERFORM billing_internal.check_rows(made, customer.customer_id, currency);
    PERFORM billing_internal.check_carried(k.customer_id, k.contract_id, made);
    INSERT INTO billing.contract (customer_id, contract_id, key, seller_id, bill_to_id, plan_id, plan_version, currency, time_zone, starts_on, ends_on,
        starts_at, ends_at, billed_every, alignment, net_days, collection, prices, renewal, created_at)
    VALUES (k.customer_id, k.contract_id, d->>'key', k.seller_id, k.bill_to_id, plan.plan_id, plan.version, currency, k.time_zone, (made->>'starts_on')::date,
        (made->>'ends_on')::date, billing_internal.local_midnight((made->>'starts_on')::date, k.time_zone), billing_internal.local_midnight((made->>'ends_on')::date, k.time_zone),
        made->>'interval', made->>'alignment', (made->>'net_days')::int, made->>'collection', made->>'prices', nullif(made->'renewal', 'null'), clock_timestamp())
    RETURNING * INTO k;
    INSERT INTO billing.contract_key (key, customer_id, contract_id) VALUES (k.key, k.customer_id, k.contract_id) ON CONFLICT (key) DO NOTHING;
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('key: contract %s exists', quote_literal(k.key)), 'Another session made it just now. Choose another key.');
    END IF;
    INSERT INTO billing.contract_version (customer_id, contract_id, version, effective_at, recorded_at, kind, document, change, plan, ends_on, ends_at)
    VALUES (k.customer_id, k.contract_id, 1, k.starts_at, clock_timestamp(), 'create', d, d, plan.name, k.ends_on, k.ends_at);
    PERFORM billing_internal.contract_apply(k.customer_id, k.contract_id, 1, made);
    PERFORM billing_internal.check_override_targets(coalesce(jsonb_agg(r->'terms' ORDER BY place), '[]'), k.customer_id, k.contract_id)
    FROM jsonb_array_elements(made->'rows') WITH ORDINALITY x (r, place) WHERE r->>'kind' = 'override';
    PERFORM billing_internal.check_overrides(k.customer_id, k.contract_id);
    IF billing_internal.zone_minutes(k.time_zone) < customer.bucket_minutes THEN -- under the stripe lock taken above
        UPDATE billing.customer c SET bucket_minutes = 15 WHERE c.customer_id = k.customer_id;
    END IF;
    PERFORM billing_internal.audit('contract_create', 'contract', k.key, k.customer_id, NULL, d);
    RETURN k.key;
END
$$;
COMMENT ON FUNCTION billing.contract_create(jsonb) IS
    'Makes a draft contract from its document (docs/contracts.md): {"key","customer","starts_on","term","plan","charges","fees","overrides","billing","phases","trial","discounts","commitments","credits","add_ons","renewal", …}. Items with a plan item''s key replace it; "remove": true drops it. Returns the key. Errors: ZB003 form, with the JSON path, ZB001 unknown references, ZB005 the key exists, ZB011 currency, 55P03 ingest never paused for a zone that narrows its buckets.';

CREATE FUNCTION billing_internal.check_priced(of_customer_id bigint, of_contract_id uuid, list_at timestamptz, document jsonb, since_version int) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong record;
BEGIN
    SELECT h.charge_key, h.price_key, b.key AS book, k.key AS contract, billing_internal.item_path(document, NULL, '{charges}', h.charge_key, h.terms) AS path INTO wrong
    FROM billing.contract k JOIN billing.contract_charge h ON h.customer_id = k.customer_id AND h.contract_id = k.contract_id JOIN billing.price_book b USING (price_book_id)
    WHERE k.customer_id = of_customer_id AND k.contract_id = of_contract_id AND h.until_version IS NULL AND h.from_version >= since_version AND NOT h.terms ? 'trial'
        AND NOT EXISTS (SELECT FROM billing.price p WHERE p.price_book_id = h.price_book_id AND p.key = h.price_key AND p.withdrawn_at IS NULL
            AND p.valid_during @> CASE WHEN k.prices = 'pin' THEN list_at ELSE lower(h.valid_during) END
            -- What was signed is what had been published when it was activated.
            AND (k.prices <> 'pin' OR p.recorded_at <= coalesce((SELECT a.recorded_at FROM billing.billing_period a WHERE a.customer_id = k.customer_id AND a.contract_id = k.contract_id AND a.n = 0), 'infinity')))
        AND NOT billing_internal.is_replaced(k.customer_id, k.contract_id, h.meter_id, h.charge_key, lower(h.valid_during))
    ORDER BY h.position, lower(h.valid_during) LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB007', format('charge %s: price %s of %s is not in force when contract %s needs it', wrong.charge_key, wrong.price_key, wrong.book, wrong.contract),
            'Publish a version that is, with billing.catalog_apply().', 'at ' || wrong.path);
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_priced(bigint, uuid, timestamptz, jsonb, int) IS 'Whether every charge that a contract says since a version finds its list price when it begins, or, pinned, at the signature (list_at). Errors: ZB007, with the place in the contract document.';

CREATE FUNCTION billing_internal.check_billable(of_customer_id bigint, of_contract_id uuid, list_at timestamptz) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    made jsonb;
    wrong record;
BEGIN
    SELECT * INTO k FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id;
    made := billing_internal.timeline(billing_internal.contract_changes(of_customer_id, of_contract_id));
    -- A meter may have been retired while the draft was being made.
    SELECT h.charge_key, m.key AS meter, billing_internal.item_path(made->'document', NULL, '{charges}', h.charge_key, h.terms) AS path INTO wrong FROM billing.contract_charge h JOIN billing.meter m USING (meter_id)
    WHERE h.customer_id = k.customer_id AND h.contract_id = k.contract_id AND h.until_version IS NULL AND m.retired_at IS NOT NULL ORDER BY h.position LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('charge %s: meter %s is retired', wrong.charge_key, wrong.meter), 'Make the contract anew, with a meter that counts.', 'at ' || wrong.path);
    END IF;
    PERFORM billing_internal.check_rows(made, k.customer_id, k.currency);
    PERFORM billing_internal.check_carried(k.customer_id, k.contract_id, made);
    PERFORM billing_internal.check_priced(k.customer_id, k.contract_id, list_at, made->'document', 1);
    PERFORM billing_internal.check_overlap(k.customer_id, k.contract_id, made->'document');
END
$$;
COMMENT ON FUNCTION billing_internal.check_billable(bigint, uuid, timestamptz) IS
    'Whether every item of a contract can be billed; list_at is when a pinned contract was signed. Errors, with the JSON path of the item: ZB001, ZB003, ZB005 a meter is retired, or credit is carried from a draft, ZB006 two usage charges could price one event, ZB007 a price is not in force, ZB011.';

CREATE FUNCTION billing.contract_activate(
    contract text, signed_at timestamptz DEFAULT NULL, document_url text DEFAULT NULL, document_sha256 text DEFAULT NULL
) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_contract record;
    k record;
    first record;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO found_contract FROM billing_internal.find_contract(contract);
    -- The customer's row is the lock under which its live charges are compared.
    PERFORM FROM billing.customer c WHERE c.customer_id = found_contract.customer_id FOR NO KEY UPDATE;
    SELECT * INTO k FROM billing.contract c WHERE c.customer_id = found_contract.customer_id AND c.contract_id = found_contract.contract_id FOR NO KEY UPDATE;
    IF k.state <> 'draft' THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s is %s, not a draft', k.key, k.state), 'Only a draft is activated.');
    ELSIF document_sha256 IS NOT NULL AND document_sha256 !~ '^[0-9a-f]{64}$' THEN
        PERFORM billing_internal.fail('ZB004', 'document_sha256 is not 64 lower-case hexadecimal digits', 'Pass the SHA-256 of the signed document.');
    ELSIF document_url !~* '^https?://[^[:space:][:cntrl:]/?#]+([/?#][^[:space:][:cntrl:]]*)?$' OR octet_length(document_url) > 2000 THEN
        PERFORM billing_internal.fail('ZB004', format('document_url %s is not the address of a document', quote_literal(left(document_url, 100))), 'Pass an http or https address of at most 2,000 bytes, without spaces: https://documents.example/order-form.pdf.');
    END IF;
    PERFORM billing_internal.check_billable(k.customer_id, k.contract_id, coalesce(contract_activate.signed_at, billing.now()));
    SELECT * INTO first FROM billing_internal.calendar_period(k.starts_on, k.ends_on, k.billed_every, k.alignment, 0);
    PERFORM billing_internal.bills_seen(ARRAY[k.customer_id]);
    INSERT INTO billing.billing_period (customer_id, contract_id, n, starts_on, ends_on, starts_at, ends_at, recorded_at)
    VALUES (k.customer_id, k.contract_id, 0, first.starts_on, first.ends_on,
        billing_internal.local_midnight(first.starts_on, k.time_zone), billing_internal.local_midnight(first.ends_on, k.time_zone), clock_timestamp());
    UPDATE billing.contract c SET state = CASE WHEN k.starts_at <= billing.now() THEN 'active' ELSE 'scheduled' END, next_n = 0, next_bill_at = k.starts_at,
        signed_at = coalesce(contract_activate.signed_at, billing.now()), document_url = contract_activate.document_url,
        document_sha256 = contract_activate.document_sha256
    WHERE c.customer_id = k.customer_id AND c.contract_id = k.contract_id;
    PERFORM billing_internal.contract_credits_apply(k.customer_id, k.contract_id);
    PERFORM billing_internal.entitlements_compile(k.customer_id);
    PERFORM billing_internal.audit('contract_activate', 'contract', k.key, k.customer_id, jsonb_build_object('state', k.state),
        jsonb_strip_nulls(jsonb_build_object('state', CASE WHEN k.starts_at <= billing.now() THEN 'active' ELSE 'scheduled' END, 'signed_at', signed_at, 'document_url', document_url, 'document_sha256', document_sha256)));
    RETURN k.key;
END
$$;
COMMENT ON FUNCTION billing.contract_activate(text, timestamptz, text, text) IS
    'Starts a draft contract: from now on it is billed. signed_at defaults to billing.now(); pinned prices are those in force then. Returns the key. What can''t be billed blocks it, and DETAIL or the message names its place in the contract document. document_url is an http or https address. Errors: ZB001, ZB004 address or hash of the document, ZB005 not a draft, a charge''s meter is retired, or credit is carried from a draft, ZB006 two usage charges of one meter, in this or another live or ended contract of the customer, could price one event, ZB007 a price is not in force.';

CREATE FUNCTION billing.subscribe(customer text, plan text, starts_on date DEFAULT NULL, doc jsonb DEFAULT '{}') RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    c record;
    n int;
    new_key text;
    twice text;
BEGIN
    PERFORM billing_internal.require_installed();
    IF jsonb_typeof(doc) IS DISTINCT FROM 'object' THEN
        PERFORM billing_internal.fail('ZB003', 'the subscription''s doc must be an object', 'Pass contract fields such as {"overrides": [...]}, or {}.');
    END IF;
    SELECT f INTO twice FROM unnest('{customer,plan,starts_on}'::text[]) f WHERE doc ? f LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB003', format('%s: is an argument of subscribe(), not a field of its doc', twice), 'Pass it once, as the argument.');
    END IF;
    of_customer_id := billing_internal.find_customer(customer);
    IF doc->>'time_zone' IS NOT NULL THEN -- before the row, as everywhere
        PERFORM billing_internal.lock_for_zone(of_customer_id, doc->>'time_zone');
    END IF;
    SELECT * INTO c FROM billing.customer k WHERE k.customer_id = of_customer_id FOR NO KEY UPDATE;
    -- The next free <customer>-<n>; another contract may bear such a key by hand.
    SELECT count(*) INTO n FROM billing.contract k WHERE k.customer_id = c.customer_id;
    LOOP
        n := n + 1;
        new_key := c.key || '-' || n;
        EXIT WHEN NOT EXISTS (SELECT FROM billing.contract_key x WHERE x.key = new_key);
    END LOOP;
    new_key := billing.contract_create(jsonb_build_object('key', new_key, 'customer', c.key, 'plan', plan, 'starts_on',
        coalesce(starts_on, (billing.now() AT TIME ZONE coalesce(doc->>'time_zone', c.time_zone))::date)) || doc);
    RETURN billing.contract_activate(new_key);
END
$$;
COMMENT ON FUNCTION billing.subscribe(text, text, date, jsonb) IS
    'A contract on a plan''s standard terms, active at once: contract_create() and contract_activate() in one. starts_on defaults to today in the billing zone; doc adds contract fields (overrides, term, time_zone …). Returns the contract''s key, <customer>-<n>. Errors: as contract_create() and contract_activate().';

-- ── which price holds ────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.price_found(of_customer_id bigint, of_meter_id int, dimensions jsonb, at timestamptz)
    RETURNS TABLE (contract text, charge text, source text, price text, version int, pricing jsonb, fault jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    m record;
    h record;
    rate_at text;
    continuity text;
    list_at timestamptz;
    starts timestamptz;
    begins timestamptz;
    ends timestamptz;
    until timestamptz;
    prices text;
    found_price record;
BEGIN
    SELECT * INTO m FROM billing.meter x WHERE x.meter_id = of_meter_id;
    SELECT c.*, k.key AS contract_key, k.version AS contract_version, k.prices, coalesce(k.signed_at, k.starts_at) AS signed_at, u.terms_version, k.seller_id, k.currency = u.currency AS in_customer_currency,
        k.time_zone, k.starts_on, k.ends_on, k.billed_every, k.alignment INTO h
    FROM billing.contract_charge c
    JOIN billing.contract k USING (customer_id, contract_id)
    JOIN billing.customer u USING (customer_id)
    WHERE c.customer_id = of_customer_id AND c.meter_id = m.meter_id AND c.kind = 'usage' AND c.until_version IS NULL AND c.valid_during @> at
        AND k.state IN ('scheduled', 'active', 'paused', 'ended', 'cancelled') AND dimensions @> coalesce(c.terms->'match', '{}')
    ORDER BY k.state IN ('ended', 'cancelled'), k.key LIMIT 1;
    IF h.charge_key IS NULL THEN
        RETURN;
    END IF;
    -- As the bill does (ServicePeriod::price_at): what is for a whole period has the price of its start.
    SELECT billing_internal.local_midnight(p.starts_on, h.time_zone), greatest(billing_internal.local_midnight(p.starts_on, h.time_zone),
            CASE WHEN p.starts_on::timestamp AT TIME ZONE 'UTC' < billing_internal.local_midnight(p.ends_on, h.time_zone) THEN p.starts_on::timestamp AT TIME ZONE 'UTC' END),
            p.ends_on::timestamp AT TIME ZONE 'UTC' INTO starts, begins, ends
    FROM billing_internal.calendar_period_at(h.starts_on, h.ends_on, h.billed_every, h.alignment, (at AT TIME ZONE h.time_zone)::date) b
    CROSS JOIN LATERAL billing_internal.calendar_service_periods(h.starts_on, h.ends_on, h.billed_every, h.alignment, h.every, b.n) p
    WHERE p.starts_on <= (at AT TIME ZONE h.time_zone)::date AND (at AT TIME ZONE h.time_zone)::date < p.ends_on;
    SELECT max(p.value) FILTER (WHERE p.name = 'rate_at'), max(p.value) FILTER (WHERE p.name = 'tier_continuity') INTO rate_at, continuity FROM (
        SELECT s.name, coalesce((SELECT c.value FROM billing.contract_policy c WHERE c.customer_id = h.customer_id AND c.contract_id = h.contract_id AND c.name = s.name), s.value) AS value
        FROM billing_internal.seller_policies('{rate_at, tier_continuity}') s WHERE s.seller_id = h.seller_id) p;
    starts := coalesce(starts, at);
    begins := coalesce(begins, at);
    ends := coalesce(ends, at);
    IF NOT m.additive OR rate_at = 'period_start' THEN
        at := begins;
        starts := begins;
    END IF;
    until := greatest(at, begins);
    list_at := CASE WHEN h.prices = 'pin' OR rate_at = 'contract_signature' THEN h.signed_at END;
    prices := jsonb_build_object(
        'dimensions', to_jsonb(m.dimensions),
        'list', CASE WHEN h.price_key IS NULL THEN jsonb_build_array(jsonb_build_object('label', 'charge', 'pricing', h.terms->'pricing'))
            ELSE (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('label', p.key || '@' || p.version,
                    'from', CASE WHEN list_at IS NULL THEN lower(p.valid_during) END, 'until', CASE WHEN list_at IS NULL THEN upper(p.valid_during) END)) || jsonb_build_object('pricing', CASE WHEN p.row_count = 0 THEN p.pricing
                    ELSE p.pricing || jsonb_build_object('rows', (SELECT coalesce(jsonb_agg(r.pricing || jsonb_build_object('match', r.match) ORDER BY r.n), '[]')
                        FROM billing.price_row r WHERE r.price_id = p.price_id AND r.match IN (SELECT k::jsonb
                            FROM billing_internal.price_candidates(ARRAY(SELECT jsonb_array_elements_text(p.pricing->'dimensions')), dimensions::text) k))) END) ORDER BY p.version), '[]')
                FROM billing.price p WHERE p.price_book_id = h.price_book_id AND p.key = h.price_key AND p.withdrawn_at IS NULL
                    AND CASE WHEN list_at IS NULL THEN p.valid_during && tstzrange(starts, until, '[]')
                        -- The one in force at the signature, of those published by then (signed_prices()).
                        ELSE p.version = (SELECT max(x.version) FROM billing.price x JOIN billing.billing_period a ON a.customer_id = h.customer_id AND a.contract_id = h.contract_id AND a.n = 0
                            WHERE x.price_book_id = h.price_book_id AND x.key = h.price_key AND x.withdrawn_at IS NULL AND x.recorded_at <= a.recorded_at AND coalesce(lower(x.valid_during) <= list_at, true)) END) END,
        'overrides', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('scope', CASE WHEN o.contract_id IS NOT NULL THEN 'contract' ELSE 'customer' END,
                'meter', CASE WHEN o.meter_id IS NOT NULL THEN m.key END, 'charge', o.charge_key, 'match', o.match,
                'from', lower(o.valid_during), 'until', upper(o.valid_during))) || o.terms ORDER BY o.contract_id IS NULL, o.meter_id, o.charge_key, o.match), '[]')
            FROM billing.price_override o
            WHERE o.customer_id = of_customer_id AND (o.meter_id = m.meter_id OR o.charge_key = h.charge_key) AND o.valid_during && tstzrange(starts, until, '[]')
                AND CASE WHEN o.contract_id IS NULL THEN (o.terms ? 'percent_off' OR h.in_customer_currency) AND o.from_version <= h.terms_version AND (o.until_version IS NULL OR o.until_version > h.terms_version)
                    ELSE o.contract_id = h.contract_id AND o.from_version <= h.contract_version AND (o.until_version IS NULL OR o.until_version > h.contract_version) END))::text;
    SELECT * INTO found_price FROM billing_internal.resolved_price(prices, dimensions::text, at, starts, begins, ends, continuity);
    IF found_price.source IS NULL THEN
        fault := billing_internal.resolved_price_error(prices, dimensions::text, at, starts, begins, ends, continuity);
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY SELECT h.contract_key, h.charge_key, found_price.source, CASE WHEN found_price.list_label = 'charge' THEN NULL ELSE nullif(split_part(found_price.list_label, '@', 1), '') END,
        nullif(split_part(found_price.list_label, '@', 2), '')::int, found_price.pricing::jsonb, NULL::jsonb;
END
$$;
COMMENT ON FUNCTION billing_internal.price_found(bigint, int, jsonb, timestamptz) IS
    'price_resolve() that raises nothing: no row where no live charge prices it; where the charge has no price for it, only fault says so. (It catches nothing either, since parallel queries can''t.)';

CREATE FUNCTION billing.price_resolve(customer text, meter text, dimensions jsonb DEFAULT '{}', at timestamptz DEFAULT NULL)
    RETURNS TABLE (contract text, charge text, source text, price text, version int, pricing jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    of_customer_id bigint;
    of_meter_id int;
    p record;
BEGIN
    PERFORM billing_internal.require_installed();
    at := coalesce(at, billing.now());
    of_customer_id := billing_internal.find_customer(customer);
    of_meter_id := billing_internal.find_meter(meter);
    IF jsonb_typeof(dimensions) IS DISTINCT FROM 'object' THEN
        PERFORM billing_internal.fail('ZB004', 'dimensions must be a JSON object', 'Pass {"model":"gpt-4"}, or {}.');
    END IF;
    SELECT * INTO p FROM billing_internal.price_found(of_customer_id, of_meter_id, dimensions, at);
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB007', format('no live charge of customer %s prices meter %s for %s at %s', customer, (SELECT m.key FROM billing.meter m WHERE m.meter_id = of_meter_id), dimensions, at),
            'SELECT * FROM billing.unpriced_usage; lists usage that nothing prices; billing.subscribe() makes a contract.');
    END IF;
    PERFORM billing_internal.raise_fault(p.fault);
    RETURN QUERY SELECT p.contract, p.charge, p.source, p.price, p.version, p.pricing;
END
$$;
COMMENT ON FUNCTION billing.price_resolve(text, text, jsonb, timestamptz) IS
    'The price a customer''s usage of a meter has, for dimension values at an instant (default billing.now()): contract override, customer override, the charge''s own pricing, or the price book''s version in force; what is one amount for a whole period (flat, stairstep), or counts what does not add up, has the price in force at its start. pricing is one model, never a matrix. Errors: ZB001, ZB004, ZB007 nothing prices it.';

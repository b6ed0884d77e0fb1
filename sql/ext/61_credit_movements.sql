-- Credits, continued: granting, selling and taking back, balances and statements, draw_down, expiry.

-- ── finding ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.find_grant("grant" text) RETURNS TABLE (customer_id bigint, grant_id uuid)
    LANGUAGE plpgsql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    found bigint[];
    ids uuid[];
    keys text[];
BEGIN
    SELECT array_agg(g.customer_id ORDER BY c.key), array_agg(g.grant_id ORDER BY c.key), array_agg(g.grant_id || ' of ' || c.key ORDER BY c.key) INTO found, ids, keys
    FROM billing.credit_grant g JOIN billing.customer c USING (customer_id) WHERE g.key = find_grant."grant" OR g.grant_id::text = find_grant."grant";
    IF found IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('credit %s is not known', coalesce(quote_literal("grant"), 'NULL')), 'SELECT key, unit, amount FROM billing.credit_grant; lists them.');
    ELSIF cardinality(found) > 1 THEN
        PERFORM billing_internal.fail('ZB002', format('%s customers have a credit %s', cardinality(found), quote_literal("grant")), 'Name one by its id: ' || array_to_string(keys, ', '));
    END IF;
    customer_id := found[1];
    grant_id := ids[1];
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION billing_internal.find_grant(text) IS 'A block by key or id. Errors: ZB001, ZB002 with the ids, where several customers use the key.';

CREATE FUNCTION billing_internal.credit_lock(of_customer_id bigint, of_unit text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
BEGIN
    IF NOT billing_internal.travelling() THEN
        PERFORM FROM billing.credit_block_balance b WHERE b.customer_id = of_customer_id AND b.unit = of_unit AND b.open ORDER BY b.grant_id FOR UPDATE;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_lock(bigint, text) IS 'Locks what a customer has of a unit. For any change of more than one block. A time travel holds only what it changes.';

CREATE FUNCTION billing_internal.credit_standing(of_customer_id bigint, of_unit text, at timestamptz)
    RETURNS TABLE (unit text, posted numeric, reserved numeric, pending numeric, available numeric, pending_expiration numeric, upcoming numeric, next_expires_at timestamptz, blocks bigint)
    LANGUAGE plpgsql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH block AS MATERIALIZED (
        SELECT b.unit, b.grant_id, b.posted, b.reserved, g.effective_at <= at AS begun, g.expires_at <= at AS over, g.expires_at
        FROM billing.credit_block_balance b JOIN billing.credit_grant g USING (customer_id, grant_id)
        WHERE b.customer_id = of_customer_id AND (of_unit IS NULL OR b.unit = of_unit) AND g.voided_at IS NULL
    ), waiting AS MATERIALIZED (
        SELECT p.grant_id, sum(p.amount) AS amount FROM (SELECT DISTINCT k.unit FROM block k) u CROSS JOIN LATERAL billing_internal.credit_pending(of_customer_id, u.unit) p GROUP BY p.grant_id
    ), held AS (
        SELECT k.*, coalesce(w.amount, 0) AS pending, k.posted - k.reserved - coalesce(w.amount, 0) AS free FROM block k LEFT JOIN waiting w USING (grant_id)
    )
    SELECT h.unit, coalesce(sum(h.posted) FILTER (WHERE h.begun), 0), coalesce(sum(h.reserved) FILTER (WHERE h.begun), 0), coalesce(sum(h.pending) FILTER (WHERE h.begun), 0),
        coalesce(sum(h.free) FILTER (WHERE h.begun AND h.over IS NOT TRUE), 0), coalesce(sum(h.free) FILTER (WHERE h.begun AND h.over), 0), coalesce(sum(h.posted) FILTER (WHERE NOT h.begun), 0),
        min(h.expires_at) FILTER (WHERE h.begun AND h.over IS NOT TRUE AND h.posted > 0), count(*) FILTER (WHERE h.posted <> 0)
    FROM held h GROUP BY h.unit ORDER BY h.unit;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_standing(bigint, text, timestamptz) IS 'What credit_balance() says, of blocks as they stand at an instant that is not past.';

-- ── granting ─────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.credit_begin(customer text, kind text, INOUT doc jsonb, OUT customer_id bigint, OUT customer_key text, OUT zone text, OUT currency text, OUT unit text, OUT contract_id uuid,
    OUT effective_at timestamptz, OUT expires_at timestamptz)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    of_id bigint;
    c record;
    k record;
BEGIN
    PERFORM billing_internal.require_installed();
    doc := billing_internal.read_credit_document(kind, doc);
    of_id := billing_internal.find_customer(customer);
    -- Two grants of one customer don't race for a key, nor for its debt.
    SELECT * INTO c FROM billing.customer x WHERE x.customer_id = of_id FOR NO KEY UPDATE;
    customer_id := c.customer_id;
    customer_key := c.key;
    zone := c.time_zone;
    currency := c.currency;
    unit := coalesce(doc->>'unit', c.currency);
    IF doc ? 'contract' THEN
        SELECT * INTO k FROM billing.contract x WHERE x.customer_id = of_id AND x.key = doc->>'contract';
        IF k.contract_id IS NULL THEN
            PERFORM billing_internal.fail('ZB001', format('contract: %s is not one of customer %s', quote_literal(doc->>'contract'), c.key), 'SELECT key, state FROM billing.contract; lists them.');
        ELSIF k.state = 'draft' THEN
            PERFORM billing_internal.fail('ZB005', format('contract: %s is a draft', k.key), 'Activate it first, or write the credit into its document.');
        END IF;
        contract_id := k.contract_id;
        zone := k.time_zone;
    END IF;
    PERFORM billing_internal.check_scope(doc->'scope', of_id, 'scope', billing_internal.unit_is_billed(unit));
    effective_at := coalesce(billing_internal.credit_moment(doc->>'effective_on', zone), billing.now());
    expires_at := billing_internal.credit_moment(nullif(doc->>'expires', 'never'), zone);
    doc := doc || jsonb_build_object('scope', billing_internal.credit_scope(doc->'scope', zone));
END
$$;
COMMENT ON FUNCTION billing_internal.credit_begin(text, text, jsonb) IS 'Reads a grant''s document, finds what it names and locks the customer. Errors: ZB001 (also what the scope names), ZB003, ZB005.';

CREATE FUNCTION billing.credit_grant_create(customer text, doc jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b record;
    of_key text;
    id uuid;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO b FROM billing_internal.credit_begin(customer, 'grant', doc);
    of_key := coalesce(b.doc->>'key', billing_internal.credit_key(b.customer_id, 'grant-' || (SELECT count(*) + 1 FROM billing.credit_grant g WHERE g.customer_id = b.customer_id)));
    PERFORM billing_internal.credit_lock(b.customer_id, b.unit);
    id := billing_internal.credit_grant_make(b.customer_id, of_key, b.contract_id, NULL, b.unit, coalesce(b.doc->>'category', 'promotional'), (b.doc->>'amount')::numeric, b.doc,
        b.effective_at, b.expires_at, NULL, b.doc->>'reason');
    PERFORM billing_internal.audit('credit_grant_create', 'credit', of_key, b.customer_id, NULL, b.doc || jsonb_build_object('key', of_key), b.doc->>'reason');
    PERFORM billing_internal.credit_debts_pay(b.customer_id, b.unit);
    PERFORM billing_internal.credit_sales_issue(ARRAY[b.customer_id]) WHERE billing_internal.top_up_check(b.customer_id, b.unit);
    RETURN of_key;
END
$$;
COMMENT ON FUNCTION billing.credit_grant_create(text, jsonb) IS
    'Gives a customer a block of credit outside any purchase, so its cost basis is 0: {"key","amount","unit" (the customer''s currency),"category" (promotional | pilot | paid; promotional),"priority" (50; lower first),"scope","effective_on" (now),"expires" (never),"rollover":{"cap","for"},"overdraft","contract","reason"}. Dates are the customer''s (the contract''s) local ones, or instants; expires is exclusive. Usable at once; what blocks owe (credit_mode allow_negative) it pays off first. Returns the key. Errors: ZB001 (also a product, meter or bill_to of the scope that is not there), ZB003 form, a dimension of no meter, ZB004 terms that can''t hold, ZB005 the key exists.';

CREATE FUNCTION billing_internal.credit_sell(of_customer_id bigint, of_key text, of_contract_id uuid, of_currency text, of_price numeric, of_unit text, of_amount numeric, of_bonus numeric,
    of_terms jsonb, of_effective_at timestamptz, of_expires_at timestamptz, why text, of_invoiced boolean, OUT pool_id uuid, OUT grant_id uuid)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    pool_id := billing_internal.uuid_v7();
    INSERT INTO billing.credit_pool (customer_id, pool_id, key, contract_id, currency, paid, credits, created_at, invoiced)
    VALUES (of_customer_id, pool_id, of_key, of_contract_id, of_currency, of_price, of_amount + coalesce(of_bonus, 0), clock_timestamp(), of_invoiced) ON CONFLICT (customer_id, key) DO NOTHING;
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('key: credit %s exists', quote_literal(of_key)), 'Choose another key: a purchase that exists never changes.');
    END IF;
    grant_id := billing_internal.credit_grant_make(of_customer_id, of_key, of_contract_id, pool_id, of_unit, 'paid', of_amount, of_terms, of_effective_at, of_expires_at, NULL, why);
    IF of_bonus IS NOT NULL THEN
        PERFORM billing_internal.credit_grant_make(of_customer_id, of_key || '-bonus', of_contract_id, pool_id, of_unit, 'promotional', of_bonus, of_terms - 'rollover', of_effective_at, of_expires_at, NULL, why);
    END IF;
    PERFORM billing_internal.credit_debts_pay(of_customer_id, of_unit);
END
$$;
COMMENT ON FUNCTION billing_internal.credit_sell(bigint, text, uuid, text, numeric, text, numeric, numeric, jsonb, timestamptz, timestamptz, text, boolean) IS 'A pool with its price and its blocks, which pay off debts first. Whoever sells issues the invoice, last: credit_sales_issue().';

CREATE FUNCTION billing.credit_purchase(customer text, doc jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b record;
    of_key text;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO b FROM billing_internal.credit_begin(customer, 'purchase', doc);
    of_key := coalesce(b.doc->>'key', billing_internal.credit_key(b.customer_id, 'purchase-' || (SELECT count(*) + 1 FROM billing.credit_pool p WHERE p.customer_id = b.customer_id AND p.source_key IS NULL)));
    PERFORM billing_internal.check_places((b.doc->>'price')::numeric, b.currency, 'price:');
    PERFORM billing_internal.credit_lock(b.customer_id, b.unit);
    PERFORM billing_internal.credit_sell(b.customer_id, of_key, b.contract_id, b.currency, (b.doc->>'price')::numeric, b.unit, (b.doc->>'amount')::numeric, (b.doc->>'bonus')::numeric,
        b.doc, b.effective_at, b.expires_at, b.doc->>'reason', coalesce((b.doc->>'invoice')::boolean, true));
    PERFORM billing_internal.audit('credit_purchase', 'credit', of_key, b.customer_id, NULL, b.doc || jsonb_build_object('key', of_key), b.doc->>'reason');
    PERFORM billing_internal.top_up_check(b.customer_id, b.unit);
    PERFORM billing_internal.credit_sales_issue(ARRAY[b.customer_id]);
    RETURN of_key;
END
$$;
COMMENT ON FUNCTION billing.credit_purchase(text, jsonb) IS
    'Sells a customer credit: as credit_grant_create(), with "price" (in the customer''s currency) and "bonus" (free credits of the same purchase: a block <key>-bonus of category promotional, which does not roll over). All blocks share one pool, so each credit is worth price ÷ (amount + bonus). "20% discount" and "20% bonus" are different deals: say how many credits the price buys. Usable at once; issues an invoice of its own, dated today in the bill_to''s zone, by the terms of the contract (named, or the only live one; else the customer''s and 30 net days), unless "invoice" is false: sold elsewhere. Returns the key. Errors: as credit_grant_create().';

CREATE FUNCTION billing_internal.credit_change_begin("grant" text, reason text, OUT customer_id bigint, OUT grant_id uuid, OUT key text, OUT unit text, OUT pool_id uuid, OUT amount numeric,
    OUT left_over numeric, OUT effective_at timestamptz, OUT expires_at timestamptz, OUT expired_at timestamptz, OUT voided_at timestamptz)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    f record;
BEGIN
    PERFORM billing_internal.require_installed();
    IF coalesce(credit_change_begin.reason, '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'a reason is missing', 'Say why: it is kept with the change.');
    END IF;
    SELECT * INTO f FROM billing_internal.find_grant("grant");
    PERFORM FROM billing.customer c WHERE c.customer_id = f.customer_id FOR NO KEY UPDATE;
    SELECT b.posted - b.reserved INTO left_over FROM billing.credit_block_balance b WHERE b.customer_id = f.customer_id AND b.grant_id = f.grant_id FOR UPDATE;
    SELECT g.customer_id, g.grant_id, g.key, g.unit, g.pool_id, g.amount, g.effective_at, g.expires_at, g.expired_at, g.voided_at
    INTO customer_id, grant_id, key, unit, pool_id, amount, effective_at, expires_at, expired_at, voided_at
    FROM billing.credit_grant g WHERE g.customer_id = f.customer_id AND g.grant_id = f.grant_id;
    IF voided_at IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB005', format('credit %s was voided', key), 'It holds nothing; grant anew.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_change_begin(text, text) IS 'Finds a block and locks its customer and it. Errors: ZB001, ZB002, ZB004 no reason, ZB005 it is void.';

CREATE FUNCTION billing.credit_void("grant" text, reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    g record;
    free numeric;
    sold_by text;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO g FROM billing_internal.credit_change_begin("grant", reason);
    SELECT f.amount INTO free FROM billing_internal.credit_free(g.customer_id, ARRAY[g.grant_id]) f;
    SELECT i.number INTO sold_by FROM billing.invoice i WHERE i.customer_id = g.customer_id AND i.pool_id = g.pool_id AND i.kind = 'credit_sale' AND i.state <> 'void';
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('credit %s was sold by invoice %s', g.key, sold_by), format('Void the invoice, and the credit goes with it: SELECT billing.invoice_void(%L, ''…'');', sold_by));
    ELSIF g.expired_at IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB005', format('credit %s has expired', g.key), 'There is nothing left to take back.');
    ELSIF free <> g.amount THEN
        PERFORM billing_internal.fail('ZB005', format('credit %s of %s can''t be voided: %s is left of it', g.key, g.amount, free), 'Refund what is unused, or void the invoices that used it first.');
    END IF;
    PERFORM billing_internal.credit_take_back(g.customer_id, ARRAY[g.grant_id], reason);
    PERFORM billing_internal.audit('credit_void', 'credit', g.key, g.customer_id, jsonb_build_object('amount', g.amount), jsonb_build_object('voided', g.amount), reason);
END
$$;
COMMENT ON FUNCTION billing.credit_void(text, text) IS 'Takes back a block that was never used, nor is about to be by usage that is not billed yet. Errors: ZB001, ZB002 (several customers have the key: give the id), ZB004 no reason, ZB005 it was used, has expired or is void, or an invoice sold it (void that).';

CREATE FUNCTION billing.credit_refund("grant" text, credits numeric DEFAULT NULL, reason text DEFAULT NULL) RETURNS billing.money
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    g record;
    p record;
    free numeric;
    released numeric;
    paid_back numeric;
    minor_units int;
    rounding text;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO g FROM billing_internal.credit_change_begin("grant", reason);
    -- What other blocks of the pool lose at the same time would be counted from the same place twice.
    SELECT * INTO p FROM billing.credit_pool x WHERE x.customer_id = g.customer_id AND x.pool_id = g.pool_id FOR NO KEY UPDATE;
    IF p.pool_id IS NULL THEN
        PERFORM billing_internal.fail('ZB005', format('credit %s was not paid for, so it can''t be refunded', g.key), 'Let it expire, or void it.');
    ELSIF g.expired_at IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB005', format('credit %s has expired', g.key), 'billing.credit_extend() before its end keeps what is unused.');
    END IF;
    SELECT f.amount INTO free FROM billing_internal.credit_free(g.customer_id, ARRAY[g.grant_id]) f;
    credits := coalesce(credits, free);
    PERFORM billing_internal.check_places(credits, g.unit, 'credits:');
    IF credits <= 0 OR credits > free THEN
        PERFORM billing_internal.fail('ZB004', format('%s credits can''t be refunded: %s are unused', credits, greatest(free, 0)), 'Usage that is not billed yet counts as used.');
    END IF;
    SELECT coalesce(-sum(e.amount), 0) INTO released FROM billing.credit_grant x JOIN billing.credit_ledger_entry e USING (customer_id, grant_id)
    WHERE x.customer_id = g.customer_id AND x.pool_id = g.pool_id AND e.account = 'customer_balance'
        -- What a contract no longer grants has left its pool's credits, too.
        AND (e.kind IN ('burnt', 'reinstated', 'expired', 'refunded') OR (e.kind = 'voided' AND p.source_key IS NULL));
    minor_units := billing_internal.unit_places(p.currency, (billing.now() AT TIME ZONE 'UTC')::date);
    SELECT s.value INTO rounding FROM billing_internal.seller_policies('{rounding_mode}') s JOIN billing.customer c USING (seller_id) WHERE c.customer_id = g.customer_id;
    paid_back := billing_internal.credit_release(p.paid, p.credits, released, credits, minor_units, rounding);
    IF paid_back IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.credit_release_error(p.paid, p.credits, released, credits, minor_units, rounding)::jsonb);
    END IF;
    PERFORM billing_internal.credit_book(g.customer_id, g.grant_id, 'refunded', credits, billing.now(), reason, NULL, paid_back);
    PERFORM billing_internal.audit('credit_refund', 'credit', g.key, g.customer_id, jsonb_build_object('left', trim_scale(g.left_over)),
        jsonb_build_object('refunded', trim_scale(credits), 'money', paid_back, 'currency', p.currency), reason);
    IF paid_back > 0 THEN
        PERFORM billing_internal.credit_document_issue(i.customer_id, i.pool_id, 'credit_note', jsonb_build_object('purchase', p.key, 'block', g.key, 'refunded', trim_scale(credit_refund.credits)::text, 'before', trim_scale(released)::text,
            'rounding_mode', rounding, 'at', replace(billing_internal.rfc3339(billing.now()), '.000000Z', 'Z')), i.invoice_id)
        FROM billing.invoice i WHERE i.customer_id = g.customer_id AND i.pool_id = g.pool_id AND i.kind = 'credit_sale' AND i.state <> 'void';
    END IF;
    RETURN billing.to_money(paid_back, p.currency);
END
$$;
COMMENT ON FUNCTION billing.credit_refund(text, numeric, text) IS
    'Refunds unused credits of a block (all, without a number): they are worth their cost basis (what the pool cost ÷ all its credits), never face value; rounded so that all that leaves a pool sums to its price. Where an invoice sold them, a credit note says so. Returns the money to pay back; paying is not its business. Errors: ZB001, ZB002, ZB004 more than is unused, no reason, ZB005 nobody paid for it, it has expired or is void.';

CREATE FUNCTION billing.credit_extend("grant" text, expires_at timestamptz, reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    g record;
    new_end timestamptz := nullif(credit_extend.expires_at, 'infinity');
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO g FROM billing_internal.credit_change_begin("grant", reason);
    IF g.expires_at IS NULL THEN
        PERFORM billing_internal.fail('ZB005', format('credit %s never expires', g.key), 'It needs no extension.');
    ELSIF new_end <= g.expires_at THEN
        PERFORM billing_internal.fail('ZB004', format('%s is not after the end of credit %s, %s', new_end, g.key, g.expires_at), 'Give a later instant, or NULL for never.');
    END IF;
    UPDATE billing.credit_grant x SET expires_at = new_end, extended_at = clock_timestamp(), expired_at = CASE WHEN new_end <= billing.now() THEN x.expired_at END
    WHERE x.customer_id = g.customer_id AND x.grant_id = g.grant_id;
    PERFORM billing_internal.audit('credit_extend', 'credit', g.key, g.customer_id, jsonb_build_object('expires_at', g.expires_at), jsonb_build_object('expires_at', new_end), reason);
END
$$;
COMMENT ON FUNCTION billing.credit_extend(text, timestamptz, text) IS
    'Moves the end of a block: until then (exclusive; NULL = for ever) it pays for usage. What has expired does not come back, but what an invoice gives back to the block then stays. Errors: ZB001, ZB002, ZB004 not later, no reason, ZB005 it never expires or is void.';

-- ── what there is ────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.credit_balance_rows(customer text, unit text, at timestamptz)
    RETURNS TABLE (of_unit text, posted numeric, reserved numeric, pending numeric, available numeric, pending_expiration numeric, upcoming numeric, next_expires_at timestamptz, blocks bigint)
    LANGUAGE plpgsql STABLE ROWS 2 SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    of_customer_id bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    IF credit_balance_rows.at IS NULL OR credit_balance_rows.at >= billing.now() THEN
        RETURN QUERY SELECT * FROM billing_internal.credit_standing(of_customer_id, credit_balance_rows.unit, coalesce(credit_balance_rows.at, billing.now()));
        RETURN;
    END IF;
    RETURN QUERY
    SELECT b.unit, coalesce(sum(b.posted) FILTER (WHERE b.begun), 0), 0::numeric, 0::numeric, coalesce(sum(b.posted) FILTER (WHERE b.begun AND b.over IS NOT TRUE), 0),
        coalesce(sum(b.posted) FILTER (WHERE b.begun AND b.over), 0), coalesce(sum(b.posted) FILTER (WHERE NOT b.begun), 0),
        min(b.expires_at) FILTER (WHERE b.begun AND b.over IS NOT TRUE AND b.posted > 0), count(*) FILTER (WHERE b.posted <> 0)
    FROM (
        SELECT g.unit, g.effective_at <= credit_balance_rows.at AS begun, g.expires_at <= credit_balance_rows.at AS over, g.expires_at,
            coalesce((SELECT sum(e.amount) FROM billing.credit_ledger_entry e WHERE e.customer_id = g.customer_id AND e.grant_id = g.grant_id AND e.account = 'customer_balance' AND e.occurred_at <= credit_balance_rows.at), 0) AS posted
        FROM billing.credit_grant g WHERE g.customer_id = of_customer_id AND (credit_balance_rows.unit IS NULL OR g.unit = credit_balance_rows.unit)
    ) b GROUP BY b.unit ORDER BY b.unit;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_balance_rows(text, text, timestamptz) IS 'What credit_balance() says. In PL/pgSQL a column can''t be called as an argument is.';

CREATE FUNCTION billing.credit_balance(customer text, unit text DEFAULT NULL, at timestamptz DEFAULT NULL)
    RETURNS TABLE (unit text, posted numeric, reserved numeric, pending numeric, available numeric, pending_expiration numeric, upcoming numeric, next_expires_at timestamptz, blocks bigint)
    LANGUAGE sql STABLE ROWS 2 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM billing_internal.credit_balance_rows(credit_balance.customer, credit_balance.unit, credit_balance.at)
$$;
COMMENT ON FUNCTION billing.credit_balance(text, text, timestamptz) IS
    'A customer''s credit by unit. posted: what its blocks hold that have begun. reserved: promised to calls under way. pending: what usage that is not billed yet will draw, priced and allocated as the bill will do it. pending_expiration: what blocks past their end hold until their expiry is posted; it pays only for usage of before. available = posted − reserved − pending − pending_expiration: what can be spent now. upcoming: blocks that have not begun. At a past instant: the ledger''s, by when things happened, without what was pending then. Errors: ZB001.';

CREATE FUNCTION billing_internal.credit_blocks_rows(customer text, unit text)
    RETURNS TABLE (key text, of_unit text, category text, granted numeric, burnt numeric, expired numeric, voided numeric, refunded numeric, rolled_out numeric, posted numeric, standing text,
        effective_at timestamptz, expires_at timestamptz, priority int, scope jsonb, contract text, basis numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    of_customer_id bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    RETURN QUERY
    SELECT g.key, g.unit, g.category, g.amount, e.burnt, e.expired, e.voided, e.refunded, e.rolled_out, b.posted,
        CASE WHEN g.voided_at IS NOT NULL THEN 'void' WHEN g.expired_at IS NOT NULL THEN 'expired' WHEN billing.now() < g.effective_at THEN 'upcoming'
            WHEN g.expires_at <= billing.now() THEN 'pending_expiration' WHEN b.posted = 0 THEN 'used' ELSE 'live' END,
        g.effective_at, g.expires_at, g.priority, g.scope, k.key, coalesce(round(p.paid / p.credits, 12), 0)
    FROM billing.credit_grant g
    JOIN billing.credit_block_balance b USING (customer_id, grant_id)
    LEFT JOIN billing.credit_pool p USING (customer_id, pool_id)
    LEFT JOIN billing.contract k ON k.customer_id = g.customer_id AND k.contract_id = g.contract_id
    CROSS JOIN LATERAL (
        SELECT coalesce(-sum(x.amount) FILTER (WHERE x.kind IN ('burnt', 'reinstated')), 0) AS burnt, coalesce(-sum(x.amount) FILTER (WHERE x.kind = 'expired'), 0) AS expired,
            coalesce(-sum(x.amount) FILTER (WHERE x.kind = 'voided'), 0) AS voided, coalesce(-sum(x.amount) FILTER (WHERE x.kind = 'refunded'), 0) AS refunded,
            coalesce(-sum(x.amount) FILTER (WHERE x.kind = 'rolled_out'), 0) AS rolled_out
        FROM billing.credit_ledger_entry x WHERE x.customer_id = g.customer_id AND x.grant_id = g.grant_id AND x.account = 'customer_balance') e
    WHERE g.customer_id = of_customer_id AND (credit_blocks_rows.unit IS NULL OR g.unit = credit_blocks_rows.unit)
    ORDER BY g.unit, g.grant_id;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_blocks_rows(text, text) IS 'What credit_blocks() says. In PL/pgSQL a column can''t be called as an argument is.';

CREATE FUNCTION billing.credit_blocks(customer text, unit text DEFAULT NULL)
    RETURNS TABLE (key text, unit text, category text, granted numeric, burnt numeric, expired numeric, voided numeric, refunded numeric, rolled_out numeric, posted numeric, standing text,
        effective_at timestamptz, expires_at timestamptz, priority int, scope jsonb, contract text, basis numeric)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM billing_internal.credit_blocks_rows(credit_blocks.customer, credit_blocks.unit)
$$;
COMMENT ON FUNCTION billing.credit_blocks(text, text) IS
    'A customer''s blocks: granted − burnt (less what was given back) − expired − voided − refunded − rolled_out = posted. standing: upcoming, live, used, pending_expiration (past its end, not posted yet), expired or void. basis: money per credit, to 12 decimals (0 = nobody paid for it). Errors: ZB001.';

CREATE FUNCTION billing_internal.credit_statement_rows(customer text, unit text, from_at timestamptz, until_at timestamptz)
    RETURNS TABLE (of_unit text, occurred_at timestamptz, kind text, block text, amount numeric, balance numeric, block_balance numeric, source text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    of_customer_id bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    RETURN QUERY
    WITH entry AS MATERIALIZED (
        SELECT e.unit, e.occurred_at, e.kind, e.amount, e.entry_id, e.grant_id, e.invoice_id, e.line_key, e.draw_id,
            sum(e.amount) OVER (PARTITION BY e.unit ORDER BY e.occurred_at, e.entry_id) AS balance, sum(e.amount) OVER (PARTITION BY e.grant_id ORDER BY e.occurred_at, e.entry_id) AS block_balance
        FROM billing.credit_ledger_entry e
        WHERE e.customer_id = of_customer_id AND e.account = 'customer_balance' AND (credit_statement_rows.unit IS NULL OR e.unit = credit_statement_rows.unit)
            AND CASE WHEN credit_statement_rows.until_at IS NULL THEN e.occurred_at <= billing.now() ELSE e.occurred_at < credit_statement_rows.until_at END
    )
    SELECT r.unit, r.occurred_at, r.kind, g.key, r.amount, r.balance, r.block_balance,
        coalesce(coalesce(i.number, i.key) || ' ' || r.line_key, 'draw ' || d.idempotency_key)
    FROM (
        SELECT u.unit, credit_statement_rows.from_at AS occurred_at, 'opening' AS kind, NULL::uuid AS grant_id, NULL::numeric AS amount,
            coalesce((SELECT sum(e.amount) FROM entry e WHERE e.unit = u.unit AND e.occurred_at < credit_statement_rows.from_at), 0) AS balance, NULL::numeric AS block_balance,
            NULL::uuid AS invoice_id, NULL::text AS line_key, NULL::uuid AS draw_id, 0 AS part, NULL::uuid AS entry_id
        FROM (SELECT DISTINCT e.unit FROM entry e) u
        UNION ALL
        SELECT e.unit, e.occurred_at, e.kind, e.grant_id, e.amount, e.balance, e.block_balance, e.invoice_id, e.line_key, e.draw_id, 1, e.entry_id
        FROM entry e WHERE credit_statement_rows.from_at IS NULL OR e.occurred_at >= credit_statement_rows.from_at
        UNION ALL
        SELECT e.unit, credit_statement_rows.until_at, 'closing', NULL, NULL, sum(e.amount), NULL, NULL, NULL, NULL, 2, NULL FROM entry e GROUP BY e.unit
    ) r
    LEFT JOIN billing.credit_grant g ON g.customer_id = of_customer_id AND g.grant_id = r.grant_id
    LEFT JOIN billing.invoice i ON i.customer_id = of_customer_id AND i.invoice_id = r.invoice_id
    LEFT JOIN billing.credit_draw d ON d.customer_id = of_customer_id AND d.draw_id = r.draw_id
    ORDER BY r.unit, r.part, r.occurred_at, r.entry_id;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_statement_rows(text, text, timestamptz, timestamptz) IS 'What credit_statement() says. In PL/pgSQL a column can''t be called as an argument is.';

CREATE FUNCTION billing.credit_statement(customer text, unit text DEFAULT NULL, from_at timestamptz DEFAULT NULL, until_at timestamptz DEFAULT NULL)
    RETURNS TABLE (unit text, occurred_at timestamptz, kind text, block text, amount numeric, balance numeric, block_balance numeric, source text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM billing_internal.credit_statement_rows(credit_statement.customer, credit_statement.unit, credit_statement.from_at, credit_statement.until_at)
$$;
COMMENT ON FUNCTION billing.credit_statement(text, text, timestamptz, timestamptz) IS
    'Every movement of a customer''s credit in [from_at, until_at), by default up to now, by unit and time: kind (opening, granted, rolled_in, burnt, reinstated, expired, voided, refunded, rolled_out, closing), the block, the amount, the balance of the unit and of the block after it, and the invoice line or the draw it is of. Errors: ZB001.';

-- ── drawing ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.credit_choose(of_customer_id bigint, of_unit text, at timestamptz, of_amount numeric, doc jsonb,
    OUT grants uuid[], OUT amounts numeric[], OUT drawn jsonb, OUT available numeric)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    of_order text;
    of_contract_id uuid;
    blocks text;
BEGIN
    IF doc ? 'contract' THEN
        SELECT k.contract_id INTO of_contract_id FROM billing.contract k WHERE k.customer_id = of_customer_id AND k.key = doc->>'contract';
        IF of_contract_id IS NULL THEN
            PERFORM billing_internal.fail('ZB001', format('contract: %s is not one of the customer', quote_literal(doc->>'contract')), 'SELECT key, state FROM billing.contract; lists them.');
        END IF;
    END IF;
    -- The order that the contract says for then, or the newest live contract that says one.
    SELECT o.said::text INTO of_order
    FROM billing.contract k CROSS JOIN LATERAL billing_internal.contract_credit_term(k.customer_id, k.contract_id, 'credit_order', at) o (said)
    WHERE k.customer_id = of_customer_id AND o.said IS NOT NULL AND k.state IN ('scheduled', 'active', 'paused') AND (of_contract_id IS NULL OR k.contract_id = of_contract_id)
    ORDER BY k.starts_at DESC, k.contract_id DESC LIMIT 1;
    PERFORM billing_internal.credit_periods_keep(of_customer_id)
    WHERE EXISTS (SELECT FROM billing.contract_charge h WHERE h.customer_id = of_customer_id AND h.kind = 'usage' AND h.until_version IS NULL);
    WITH waiting AS MATERIALIZED (
        SELECT p.grant_id, sum(p.amount) AS amount FROM billing_internal.credit_pending(of_customer_id, of_unit) p GROUP BY p.grant_id
    ), block AS (
        SELECT o.grant_id, o.contract_id, o.block::jsonb AS block, (o.block::jsonb->>'left')::numeric - coalesce(w.amount, 0) AS left_over
        FROM billing_internal.credit_opens(ARRAY[of_customer_id]) o LEFT JOIN waiting w USING (grant_id)
        WHERE o.unit = of_unit AND (of_contract_id IS NULL OR o.contract_id IS NULL OR o.contract_id = of_contract_id)
    )
    SELECT '[' || string_agg((b.block || jsonb_build_object('left', b.left_over::text))::text, ',') || ']',
        coalesce(sum(b.left_over) FILTER (WHERE (b.block->>'effective_at')::timestamptz <= at AND ((b.block->>'expires_at')::timestamptz > at) IS NOT FALSE), 0)
    INTO blocks, available FROM block b;
    IF blocks IS NULL OR available < of_amount THEN
        RETURN;
    END IF;
    SELECT array_agg(a.grant_id ORDER BY a.place), array_agg(a.amount ORDER BY a.place), jsonb_agg(jsonb_build_object('grant', g.key, 'amount', trim_scale(a.amount)::text) ORDER BY a.place)
    INTO grants, amounts, drawn
    FROM billing_internal.credit_allot(of_order, doc::text, at, of_amount, blocks) WITH ORDINALITY a (grant_id, amount, place)
    JOIN billing.credit_grant g ON g.customer_id = of_customer_id AND g.grant_id = a.grant_id;
    IF grants IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.credit_allot_error(of_order, doc::text, at, of_amount, blocks)::jsonb);
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_choose(bigint, text, timestamptz, numeric, jsonb) IS
    'Which of a customer''s blocks, which are locked, a draw takes from, and what is available: less pending usage, with debt counted. No grants where there is too little.';

CREATE FUNCTION billing_internal.drawn_before(of_customer_id bigint, key text, of_unit text, of_amount numeric, of_doc jsonb, OUT draw_id uuid, OUT drawn jsonb, OUT available numeric)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    d record;
BEGIN
    SELECT n.*, c.key AS customer INTO d FROM billing.credit_draw n JOIN billing.customer c USING (customer_id) WHERE n.customer_id = of_customer_id AND n.idempotency_key = drawn_before.key;
    IF FOUND AND (d.unit, d.amount, d.doc) IS DISTINCT FROM (of_unit, of_amount, of_doc) THEN
        PERFORM billing_internal.fail('ZB009', format('draw %s of customer %s was %s %s%s', quote_literal(d.idempotency_key), d.customer, trim_scale(d.amount), d.unit, CASE WHEN d.doc <> '{}' THEN ' ' || d.doc::text ELSE '' END),
            'Nothing was drawn. A draw that differs needs another key.');
    END IF;
    draw_id := d.draw_id;
    drawn := d.drawn;
    available := d.available;
END
$$;
COMMENT ON FUNCTION billing_internal.drawn_before(bigint, text, text, numeric, jsonb) IS 'What a draw with this key returned; NULLs where there was none. Errors: ZB009 it was another draw.';

CREATE FUNCTION billing_internal.draw_down_chosen(customer text, amount numeric, idempotency_key text, unit text, doc jsonb, at timestamptz)
    RETURNS TABLE (result text, draw_id uuid, drawn jsonb, available numeric)
    LANGUAGE plpgsql ROWS 1 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
#variable_conflict use_variable
DECLARE
    b record;
    d record;
    grants uuid[];
    amounts numeric[];
    new_id uuid;
BEGIN
    FOR look IN 1..2 LOOP
        LOOP
            -- All that the customer has of the unit is locked, by id.
            SELECT k.customer_id, k.key AS customer, coalesce(unit, k.currency) AS unit, x.*,
                EXISTS (SELECT FROM billing.top_up_rule r WHERE r.customer_id = k.customer_id AND r.unit = coalesce(unit, k.currency) AND r.ended_at IS NULL) AS has_rule,
                EXISTS (SELECT FROM billing.alert_rule r WHERE r.customer_id = k.customer_id AND r.ended_at IS NULL AND r.kind = 'credit' AND r.unit = coalesce(unit, k.currency)) AS watched
            INTO b
            FROM billing.customer k
            CROSS JOIN LATERAL (
                SELECT count(*) AS blocks, min(y.places) AS places
                FROM (SELECT l.places FROM billing.credit_block_balance l WHERE l.customer_id = k.customer_id AND l.unit = coalesce(unit, k.currency) AND l.open ORDER BY l.grant_id FOR UPDATE) y
            ) x
            WHERE k.key = customer;
            EXIT WHEN FOUND;
            -- By an alias or id; or this raises.
            SELECT k.key INTO customer FROM billing.customer k WHERE k.customer_id = billing_internal.find_customer(customer);
        END LOOP;
        unit := b.unit;
        IF scale(amount) > b.places THEN
            PERFORM billing_internal.check_places(amount, unit, 'amount');
        END IF;
        available := 0;
        IF b.blocks > 0 THEN
            SELECT x.grants, x.amounts, x.drawn, x.available INTO grants, amounts, drawn, available FROM billing_internal.credit_choose(b.customer_id, unit, at, amount, doc) x;
        END IF;
        EXIT WHEN grants IS NOT NULL OR look = 2;
        -- What it waited for may have been emptied and another block bought: what is open now is what was locked, or it looks again.
        EXIT WHEN (SELECT count(*) = b.blocks FROM billing.credit_block_balance l WHERE l.customer_id = b.customer_id AND l.unit = b.unit AND l.open);
    END LOOP;
    IF grants IS NOT NULL THEN
        new_id := billing_internal.uuid_v7();
        available := available - amount;
        WITH draw AS (
            INSERT INTO billing.credit_draw AS n (customer_id, idempotency_key, draw_id, unit, amount, doc, drawn, available, occurred_at, recorded_at)
            VALUES (b.customer_id, idempotency_key, new_id, unit, amount, doc, drawn, available, at, clock_timestamp())
            ON CONFLICT ON CONSTRAINT credit_draw_pkey DO NOTHING RETURNING n.recorded_at
        ), part AS (
            SELECT p.grant_id, p.amount, n.recorded_at FROM draw n, unnest(grants, amounts) p (grant_id, amount)
        ), entries AS (
            INSERT INTO billing.credit_ledger_entry (customer_id, grant_id, entry_id, transaction_id, kind, account, unit, amount, occurred_at, recorded_at, draw_id)
            SELECT b.customer_id, p.grant_id, billing_internal.uuid_v7(), new_id, 'burnt', e.account, unit, p.amount * e.sign, at, p.recorded_at, new_id
            FROM part p, (VALUES ('customer_balance', -1), ('consumed', 1)) e (account, sign)
        )
        UPDATE billing.credit_block_balance l SET posted = l.posted - p.amount, open = l.posted - p.amount <> 0 OR l.reserved <> 0
        FROM part p WHERE l.customer_id = b.customer_id AND l.grant_id = p.grant_id;
        IF FOUND THEN
            result := 'drawn';
            draw_id := new_id;
            IF b.has_rule THEN
                PERFORM billing_internal.credit_sales_issue(ARRAY[b.customer_id]) WHERE billing_internal.top_up_look_at(b.customer_id, unit);
            END IF;
            IF b.watched THEN
                PERFORM billing_internal.alerts_drawn(b.customer_id, unit);
            END IF;
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    SELECT x.draw_id, x.drawn, x.available INTO d FROM billing_internal.drawn_before(b.customer_id, idempotency_key, unit, amount, doc) x;
    IF d.draw_id IS NULL THEN
        PERFORM billing_internal.fail('ZB014', format(CASE WHEN available < amount THEN 'customer %s has %s %s available, not %s' ELSE 'customer %s has %s %s available, but not %s for this usage' END,
                b.customer, trim_scale(greatest(available, 0)), unit, trim_scale(amount)),
            'Grant or sell credit, or draw less. Usage that is not billed yet counts as drawn.', 'available ' || trim_scale(greatest(available, 0)));
    END IF;
    result := 'duplicate';
    draw_id := d.draw_id;
    drawn := d.drawn;
    available := d.available;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION billing_internal.draw_down_chosen(text, numeric, text, text, jsonb, timestamptz) IS
    'What draw_down() does where it has to choose, or there is too little: all that the customer has of the unit is locked, and Rust decides by the bill''s rules.';

CREATE FUNCTION billing.draw_down(customer text, amount numeric, idempotency_key text, unit text DEFAULT NULL, doc jsonb DEFAULT '{}')
    RETURNS TABLE (result text, draw_id uuid, drawn jsonb, available numeric)
    LANGUAGE plpgsql SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
#variable_conflict use_variable
DECLARE
    b record;
    at timestamptz := billing.now();
    recorded_at timestamptz;
BEGIN
    -- Each statement and expression here is paid for by every draw: expressions instead of PERFORM, and statements of one thing
    -- by its key, which start sooner than one statement of many parts and hold the block for less time.
    IF (billing_internal.require_installed() IS NULL) IS NULL OR (amount > 0 AND amount < 1e16 AND idempotency_key <> '' AND octet_length(idempotency_key) <= 255) IS NOT TRUE THEN
        IF coalesce(octet_length(idempotency_key), 0) NOT BETWEEN 1 AND 255 THEN
            PERFORM billing_internal.fail('ZB004', format('the idempotency key has %s bytes', coalesce(octet_length(idempotency_key), 0)), 'Give each draw a key of 1 to 255 bytes of its own, and send the same one when you try again.');
        END IF;
        PERFORM billing_internal.fail('ZB004', format('%s can''t be drawn', coalesce(amount::text, 'NULL')), 'Draw an amount above 0; what was drawn too much is granted again.');
    END IF;
    IF doc IS DISTINCT FROM '{}' THEN
        doc := billing_internal.read_credit_document('draw', doc);
        at := coalesce((doc->>'occurred_at')::timestamptz, at);
        IF at > billing.now() THEN
            PERFORM billing_internal.fail('ZB004', format('occurred_at: %s is after billing.now()', doc->>'occurred_at'), 'Draw when it happens.');
        END IF;
    END IF;
    -- Nearly always the customer has one block of the unit, which pays for anything, and no metered contract: nothing to choose, nothing pending.
    SELECT k.customer_id, l.grant_id, l.unit, g.key AS grant_key,
        EXISTS (SELECT FROM billing.top_up_rule r WHERE r.customer_id = l.customer_id AND r.unit = l.unit AND r.ended_at IS NULL) AS has_rule,
        EXISTS (SELECT FROM billing.alert_rule r WHERE r.customer_id = l.customer_id AND r.ended_at IS NULL AND r.kind = 'credit' AND r.unit = l.unit) AS watched
    INTO b
    FROM billing.customer k
    JOIN billing.credit_block_balance l ON l.customer_id = k.customer_id AND l.unit = coalesce(unit, k.currency) AND l.open
    JOIN billing.credit_grant g ON g.customer_id = l.customer_id AND g.grant_id = l.grant_id
    WHERE k.key = customer AND scale(amount) <= l.places AND g.scope = '{}' AND g.effective_at <= at AND (g.expires_at > at) IS NOT FALSE AND g.overdraft IS NULL AND NOT doc ? 'contract'
        AND NOT EXISTS (SELECT FROM billing.credit_block_balance o WHERE o.customer_id = l.customer_id AND o.unit = l.unit AND o.open AND o.grant_id <> l.grant_id)
        AND NOT EXISTS (SELECT FROM billing.contract_charge h WHERE h.customer_id = k.customer_id AND h.kind = 'usage' AND h.until_version IS NULL);
    IF FOUND THEN
        -- From here on other draws wait. What it holds is asked of the row as it is once others are done with it.
        UPDATE billing.credit_block_balance l SET posted = l.posted - amount, open = l.posted - amount <> 0 OR l.reserved <> 0
        WHERE l.customer_id = b.customer_id AND l.grant_id = b.grant_id AND l.open AND l.posted - l.reserved >= amount
        RETURNING l.posted - l.reserved INTO available;
        IF FOUND THEN
            draw_id := billing_internal.uuid_v7();
            drawn := jsonb_build_array(jsonb_build_object('grant', b.grant_key, 'amount', trim_scale(amount)::text));
            recorded_at := clock_timestamp();
            INSERT INTO billing.credit_draw (customer_id, idempotency_key, draw_id, unit, amount, doc, drawn, available, occurred_at, recorded_at)
            VALUES (b.customer_id, idempotency_key, draw_id, b.unit, amount, doc, drawn, available, at, recorded_at)
            ON CONFLICT ON CONSTRAINT credit_draw_pkey DO NOTHING;
            IF FOUND THEN
                INSERT INTO billing.credit_ledger_entry (customer_id, grant_id, entry_id, transaction_id, kind, account, unit, amount, occurred_at, recorded_at, draw_id)
                VALUES (b.customer_id, b.grant_id, billing_internal.uuid_v7(), draw_id, 'burnt', 'customer_balance', b.unit, -amount, at, recorded_at, draw_id),
                    (b.customer_id, b.grant_id, billing_internal.uuid_v7(), draw_id, 'burnt', 'consumed', b.unit, amount, at, recorded_at, draw_id);
                result := 'drawn';
                IF b.has_rule THEN
                    PERFORM billing_internal.credit_sales_issue(ARRAY[b.customer_id]) WHERE billing_internal.top_up_look_at(b.customer_id, b.unit);
                END IF;
                IF b.watched THEN
                    PERFORM billing_internal.alerts_drawn(b.customer_id, b.unit);
                END IF;
                RETURN NEXT;
                RETURN;
            END IF;
            -- The key was used before: what was taken is put back.
            UPDATE billing.credit_block_balance l SET posted = l.posted + amount, open = true WHERE l.customer_id = b.customer_id AND l.grant_id = b.grant_id;
            SELECT x.draw_id, x.drawn, x.available INTO draw_id, drawn, available FROM billing_internal.drawn_before(b.customer_id, idempotency_key, b.unit, amount, doc) x;
            result := 'duplicate';
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT d.* FROM billing_internal.draw_down_chosen(customer, amount, idempotency_key, unit, doc, at) d;
END
$$;
COMMENT ON FUNCTION billing.draw_down(text, numeric, text, text, jsonb) IS
    'Draws credit now, exactly once per customer and idempotency key, all of the amount or nothing: from the blocks that may pay for it (by doc: {"product","meter","dimensions","bill_to","contract","occurred_at","reference"}), in the contract''s or the default order. unit defaults to the customer''s currency. Never lets what is available (posted − reserved − pending) fall below zero, whoever else draws. Returns drawn, or duplicate with what the first call returned; which block gave how much, and what was available right after. Errors: ZB001, ZB003, ZB004, ZB009 the key was used for another draw, ZB014 too little; nothing is drawn then.';

-- ── expiry ───────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.credit_over_at(of_customer_id bigint, of_contract_id uuid, expires_at timestamptz, grace text) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT expires_at + coalesce((SELECT p.value FROM billing.contract_policy p WHERE p.customer_id = of_customer_id AND p.contract_id = of_contract_id AND p.name = 'credit_expiry_grace'), grace)::interval
$$;
COMMENT ON FUNCTION billing_internal.credit_over_at(bigint, uuid, timestamptz, text) IS 'When a block''s grace (policy credit_expiry_grace: its contract''s, else the one given, its seller''s) is over.';

CREATE FUNCTION billing_internal.credits_ending(max_rows int) RETURNS TABLE (customer_id bigint, grant_id uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT g.customer_id, g.grant_id FROM billing.credit_grant g
    JOIN billing.customer c USING (customer_id)
    JOIN billing_internal.seller_policies('{credit_expiry_grace}') s ON s.seller_id = c.seller_id
    WHERE g.expired_at IS NULL AND g.voided_at IS NULL AND g.expires_at <= billing.now() AND billing_internal.credit_over_at(g.customer_id, g.contract_id, g.expires_at, s.value) <= billing.now()
        -- It may still pay for usage of before its end that is not billed: of the period before the next boundary, which may be one that was billed, voided, and is due again.
        AND NOT EXISTS (SELECT FROM billing.contract k LEFT JOIN billing.billing_period p ON p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.n = k.next_n - 1
            WHERE k.customer_id = g.customer_id AND k.contract_id = coalesce(g.contract_id, k.contract_id) AND k.next_bill_at IS NOT NULL
            AND k.starts_at < g.expires_at AND (p.starts_at >= g.expires_at) IS NOT TRUE
            AND EXISTS (SELECT FROM billing.contract_charge h WHERE h.customer_id = k.customer_id AND h.contract_id = k.contract_id AND h.kind = 'usage' AND h.until_version IS NULL))
    ORDER BY g.expires_at LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION billing_internal.credits_ending(int) IS 'Blocks whose end is to be posted: past it, its grace (policy credit_expiry_grace) and the bill of all usage that they could pay for.';

CREATE FUNCTION billing_internal.credits_owing(max_rows int) RETURNS TABLE (customer_id bigint, unit text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT DISTINCT g.customer_id, g.unit FROM billing.credit_grant g JOIN billing.credit_block_balance b USING (customer_id, grant_id)
    WHERE g.overdraft IS NOT NULL AND g.voided_at IS NULL AND b.posted < b.reserved AND EXISTS (
        SELECT FROM billing.credit_block_balance l JOIN billing.credit_grant x USING (customer_id, grant_id)
        WHERE l.customer_id = g.customer_id AND l.unit = g.unit AND l.open AND l.posted > l.reserved AND x.effective_at <= billing.now() AND (x.expires_at > billing.now()) IS NOT FALSE AND x.scope IN ('{}', g.scope)
            AND (x.contract_id IS NULL OR EXISTS (SELECT FROM billing.credit_allocation a WHERE a.customer_id = g.customer_id AND a.grant_id = g.grant_id AND a.contract_id = x.contract_id)))
    ORDER BY g.customer_id, g.unit LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION billing_internal.credits_owing(int) IS 'Customers with units in which a block owes what another could pay off now (see credit_debts_pay()).';

CREATE FUNCTION billing_internal.credit_end(of_customer_id bigint, of_grant_id uuid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    g record;
    left_over numeric;
    moves numeric := 0;
    at timestamptz := billing.now();
    of_transaction uuid := billing_internal.uuid_v7();
    zone text;
    new_id uuid;
BEGIN
    SELECT * INTO g FROM billing.credit_grant x WHERE x.customer_id = of_customer_id AND x.grant_id = of_grant_id;
    SELECT greatest(b.posted - b.reserved, 0) INTO left_over FROM billing.credit_block_balance b WHERE b.customer_id = of_customer_id AND b.grant_id = of_grant_id;
    IF g.rollover IS NOT NULL AND left_over > 0 THEN
        moves := least(left_over, coalesce((g.rollover->>'cap')::numeric, left_over));
    END IF;
    IF moves > 0 THEN
        SELECT coalesce((SELECT k.time_zone FROM billing.contract k WHERE k.customer_id = of_customer_id AND k.contract_id = g.contract_id), c.time_zone) INTO zone FROM billing.customer c WHERE c.customer_id = of_customer_id;
        -- The same terms and the same pool, so the same cost basis; it rolls over no more.
        new_id := billing_internal.credit_grant_make(of_customer_id, billing_internal.credit_key(of_customer_id, g.key || '/rolled'), g.contract_id, g.pool_id, g.unit, g.category, moves,
            jsonb_build_object('priority', g.priority, 'scope', g.scope), g.expires_at, billing_internal.credit_after(g.expires_at, g.rollover->>'for', zone), NULL, 'rolled over', g.grant_id, moves);
        PERFORM billing_internal.credit_book(of_customer_id, of_grant_id, 'rolled_out', moves, at, NULL, of_transaction);
        PERFORM billing_internal.credit_book(of_customer_id, new_id, 'rolled_in', moves, at, NULL, of_transaction);
    END IF;
    IF left_over > moves THEN
        PERFORM billing_internal.credit_book(of_customer_id, of_grant_id, 'expired', left_over - moves, at);
    END IF;
    UPDATE billing.credit_grant x SET expired_at = clock_timestamp() WHERE x.customer_id = of_customer_id AND x.grant_id = of_grant_id;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_end(bigint, uuid) IS 'Posts the end of a block, which is locked: min(unused, cap) moves to a new block that begins where this one ended, the rest expires. No billing event: no invoice, no tax.';

CREATE FUNCTION billing_internal.contract_credits_make(of_customer_id bigint, of_contract_id uuid) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before bigint;
BEGIN
    PERFORM FROM billing.customer c WHERE c.customer_id = of_customer_id FOR NO KEY UPDATE;
    SELECT count(*) INTO before FROM billing.credit_grant x WHERE x.customer_id = of_customer_id AND x.contract_id = of_contract_id;
    PERFORM billing_internal.contract_credits_apply(of_customer_id, of_contract_id);
    RETURN (SELECT count(*) FROM billing.credit_grant x WHERE x.customer_id = of_customer_id AND x.contract_id = of_contract_id) - before;
END
$$;
COMMENT ON FUNCTION billing_internal.contract_credits_make(bigint, uuid) IS 'contract_credits_apply() under the customer''s row. Returns how many blocks it made.';

CREATE FUNCTION billing.credit_expiry_step(max_rows int DEFAULT 500) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    g record;
    k record;
    done bigint := 0;
BEGIN
    PERFORM billing_internal.require_installed();
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 10000 THEN
        PERFORM billing_internal.fail('ZB004', format('%s blocks can''t be ended at once', coalesce(max_rows::text, 'NULL')), 'Give 1 to 10,000.');
    END IF;
    -- What begins now takes over what is unused elsewhere, before that ends.
    FOR k IN SELECT c.customer_id, c.contract_id FROM billing_internal.credits_carrying() c LIMIT max_rows LOOP
        done := done + billing_internal.contract_credits_make(k.customer_id, k.contract_id);
    END LOOP;
    IF done > 0 THEN
        RETURN done;
    END IF;
    FOR g IN SELECT b.customer_id, b.grant_id FROM billing_internal.credits_ending(max_rows) e JOIN billing.credit_block_balance b USING (customer_id, grant_id)
        ORDER BY b.customer_id, b.grant_id FOR UPDATE OF b SKIP LOCKED LOOP
        -- Another session may have ended, extended or voided it just now.
        CONTINUE WHEN NOT EXISTS (SELECT FROM billing.credit_grant x WHERE x.customer_id = g.customer_id AND x.grant_id = g.grant_id AND x.expired_at IS NULL AND x.voided_at IS NULL AND x.expires_at <= billing.now());
        PERFORM billing_internal.credit_end(g.customer_id, g.grant_id);
        done := done + 1;
    END LOOP;
    IF done > 0 THEN
        RETURN done;
    END IF;
    -- Debts that credit which has begun since can pay.
    FOR k IN SELECT o.customer_id, o.unit FROM billing_internal.credits_owing(max_rows) o LOOP
        PERFORM billing_internal.credit_lock(k.customer_id, k.unit);
        IF billing_internal.credit_debts_pay(k.customer_id, k.unit) > 0 THEN
            done := done + 1;
        END IF;
    END LOOP;
    -- Evergreen contracts: what they grant within a year from now.
    FOR k IN SELECT c.customer_id, c.contract_id FROM billing.contract c
        WHERE c.state IN ('scheduled', 'active', 'paused') AND c.ends_at IS NULL
            AND EXISTS (SELECT FROM billing.contract_term t WHERE t.customer_id = c.customer_id AND t.contract_id = c.contract_id AND t.kind IN ('credit', 'commitment')
                AND t.until_version IS NULL AND upper_inf(t.valid_during) AND t.terms ? 'every')
            AND EXISTS (SELECT FROM billing_internal.term_occurrences(c.customer_id, c.contract_id, 'credit', billing.now() + interval '1 year') o
                WHERE NOT o.terms ? 'carry_from' AND NOT EXISTS (SELECT FROM billing.credit_grant x WHERE x.customer_id = c.customer_id AND starts_with(x.source_key, c.contract_id || '/' || o.term_key || '/' || o.starts_on)))
        LIMIT max_rows LOOP
        done := done + billing_internal.contract_credits_make(k.customer_id, k.contract_id);
    END LOOP;
    RETURN done;
END
$$;
COMMENT ON FUNCTION billing.credit_expiry_step(int) IS
    'Carries to credit that begins what is unused of other contracts (carry_from). Posts the end of up to max_rows blocks that are past it, their grace (policy credit_expiry_grace) and the bills of all usage they could pay for: roll-over, then expiry. Then pays off debts from credit that has begun, and makes what evergreen contracts grant within a year. Returns how many blocks it ended or made, and debts it paid, 0 = done. Errors: ZB004.';

CREATE PROCEDURE billing.credit_expiry()
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.job_start('credit_expiry');
    done bigint := 0;
    one bigint;
BEGIN
    COMMIT;
    LOOP
        one := billing.credit_expiry_step();
        EXIT WHEN one OPERATOR(pg_catalog.=) 0;
        done := done OPERATOR(pg_catalog.+) one;
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run, pg_catalog.jsonb_build_object('blocks', done));
END
$$;
COMMENT ON PROCEDURE billing.credit_expiry() IS 'Ends every block that is due, committing step by step, and makes what evergreen contracts grant within a year. Can be stopped and started at any time.';

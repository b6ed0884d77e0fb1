-- Top-ups: rules that sell a customer credit where little is left, and the job that looks.

CREATE FUNCTION billing_internal.top_up_look_at(of_customer_id bigint, of_unit text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    r record;
    seen record;
    c record;
    fired boolean := false;
    today date;
    bought record;
    paid numeric;
    expires_at timestamptz;
    balance numeric;
BEGIN
    IF NOT billing_internal.travelling() THEN
        PERFORM FROM billing.top_up_rule x WHERE x.customer_id = of_customer_id AND x.unit = of_unit AND x.ended_at IS NULL FOR UPDATE;
    END IF;
    SELECT * INTO r FROM billing.top_up_rule x WHERE x.customer_id = of_customer_id AND x.unit = of_unit AND x.ended_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT * INTO c FROM billing.customer x WHERE x.customer_id = of_customer_id;
    today := (billing.now() AT TIME ZONE c.time_zone)::date;
    -- Asked here, under the rule's lock: whoever had it before may have bought a block that a statement of before doesn't see.
    balance := coalesce((SELECT s.available FROM billing_internal.credit_standing(of_customer_id, of_unit, billing.now()) s), 0);
    LOOP
        SELECT * INTO seen FROM billing_internal.top_up_look(r.mode, r.threshold, r.amount, r.monthly_cap, r.crossings, r.below, r.waiting, r.month, r.bought, balance, today);
        IF NOT FOUND THEN
            PERFORM billing_internal.raise_fault(billing_internal.top_up_look_error(r.mode, r.threshold, r.amount, r.monthly_cap, r.crossings, r.below, r.waiting, r.month, r.bought, balance, today)::jsonb);
        END IF;
        -- That a month has begun is seen again the next time; for that alone a time travel keeps nobody's draws waiting.
        IF (seen.crossings, seen.below, seen.waiting, seen.month, seen.bought) IS DISTINCT FROM (r.crossings, r.below, r.waiting, r.month, r.bought)
            AND NOT (billing_internal.travelling() AND seen.buys IS NULL AND (seen.crossings, seen.below, seen.waiting) IS NOT DISTINCT FROM (r.crossings, r.below, r.waiting)) THEN
            UPDATE billing.top_up_rule x SET crossings = seen.crossings, below = seen.below, waiting = seen.waiting, month = seen.month, bought = seen.bought
            WHERE x.customer_id = of_customer_id AND x.rule_id = r.rule_id RETURNING * INTO r;
        END IF;
        EXIT WHEN seen.buys IS NULL;
        paid := round(seen.buys * r.price, billing_internal.unit_places(c.currency, today));
        expires_at := billing_internal.credit_after(billing.now(), r.terms->>'lasts', c.time_zone);
        SELECT * INTO bought FROM billing_internal.credit_sell(of_customer_id, billing_internal.credit_key(of_customer_id, format('top-up/%s/%s', of_unit, seen.crossing)), NULL, c.currency, paid,
            of_unit, seen.buys, NULL, r.terms, billing.now(), expires_at, 'top-up', r.invoiced);
        INSERT INTO billing.top_up (customer_id, rule_id, crossing, pool_id, grant_id, amount, paid, currency, occurred_at, recorded_at)
        VALUES (of_customer_id, r.rule_id, seen.crossing, bought.pool_id, bought.grant_id, seen.buys, paid, c.currency, billing.now(), clock_timestamp());
        fired := true;
        -- Usable at once: whether that brought the balance back up is seen at once, too, so that the next fall is another crossing.
        balance := balance + seen.buys;
    END LOOP;
    RETURN fired;
END
$$;
COMMENT ON FUNCTION billing_internal.top_up_look_at(bigint, text) IS 'Shows the rule of a customer''s unit what is available, under the rule''s lock; the customer''s blocks are locked. Buys where it fires. Whether it did: then the caller issues the invoice, last (credit_sales_issue()).';

CREATE FUNCTION billing_internal.top_up_check(of_customer_id bigint, of_unit text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM billing.top_up_rule r WHERE r.customer_id = of_customer_id AND r.unit = of_unit AND r.ended_at IS NULL) THEN
        RETURN false;
    END IF;
    PERFORM billing_internal.credit_lock(of_customer_id, of_unit);
    RETURN billing_internal.top_up_look_at(of_customer_id, of_unit);
END
$$;
COMMENT ON FUNCTION billing_internal.top_up_check(bigint, text) IS 'As top_up_look_at(), where there is a rule. Locks the blocks first.';

CREATE FUNCTION billing.top_up_rule_set(customer text, doc jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    c record;
    d jsonb;
    old record;
    of_unit text;
    terms jsonb;
BEGIN
    PERFORM billing_internal.require_installed();
    d := billing_internal.read_credit_document('top_up_rule', doc);
    of_customer_id := billing_internal.find_customer(customer);
    SELECT * INTO c FROM billing.customer x WHERE x.customer_id = of_customer_id FOR NO KEY UPDATE;
    of_unit := coalesce(d->>'unit', c.currency);
    PERFORM billing_internal.credit_lock(of_customer_id, of_unit);
    UPDATE billing.top_up_rule r SET ended_at = clock_timestamp() WHERE r.customer_id = of_customer_id AND r.unit = of_unit AND r.ended_at IS NULL RETURNING r.* INTO old;
    IF (d->>'end')::boolean IS TRUE THEN
        IF old.rule_id IS NULL THEN
            PERFORM billing_internal.fail('ZB001', format('customer %s has no top-up rule for %s', c.key, of_unit), 'SELECT * FROM billing.top_up_rule WHERE ended_at IS NULL; lists them.');
        END IF;
    ELSE
        IF NOT d ? 'price' AND of_unit <> c.currency THEN
            PERFORM billing_internal.fail('ZB003', format('price: is missing: what a %s costs in %s', of_unit, c.currency), 'Give the price of one credit; of credit in the customer''s currency it is 1.');
        END IF;
        PERFORM billing_internal.check_places((d->>a)::numeric, of_unit, a || ':') FROM unnest('{threshold, amount, target, monthly_cap}'::text[]) a WHERE d ? a;
        PERFORM billing_internal.check_scope(d->'scope', of_customer_id, 'scope', billing_internal.unit_is_billed(of_unit));
        terms := jsonb_strip_nulls(jsonb_build_object('priority', d->'priority', 'lasts', d->'lasts')) || jsonb_build_object('scope', billing_internal.credit_scope(d->'scope', c.time_zone));
        INSERT INTO billing.top_up_rule (customer_id, rule_id, unit, threshold, mode, amount, price, monthly_cap, terms, set_at, set_by, invoiced, month, bought)
        VALUES (of_customer_id, billing_internal.uuid_v7(), of_unit, (d->>'threshold')::numeric, CASE WHEN d ? 'target' THEN 'target' ELSE 'fixed' END, coalesce(d->>'amount', d->>'target')::numeric,
            coalesce((d->>'price')::numeric, 1), (d->>'monthly_cap')::numeric, terms, clock_timestamp(), billing_internal.caller(), coalesce((d->>'invoice')::boolean, true),
            -- The month goes on: another rule is no way around its cap.
            old.month, coalesce(old.bought, 0));
    END IF;
    PERFORM billing_internal.audit('top_up_rule_set', 'customer', c.key, of_customer_id,
        CASE WHEN old.rule_id IS NOT NULL THEN jsonb_strip_nulls(jsonb_build_object('unit', old.unit, 'threshold', old.threshold, 'mode', old.mode, 'amount', old.amount, 'price', old.price, 'monthly_cap', old.monthly_cap)) END, d);
    PERFORM billing_internal.credit_sales_issue(ARRAY[of_customer_id]) WHERE billing_internal.top_up_check(of_customer_id, of_unit);
END
$$;
COMMENT ON FUNCTION billing.top_up_rule_set(text, jsonb) IS
    'Buys credit by itself once each time what is available falls below a threshold: {"threshold", "amount" (a pack) | "target" (brought up to), "unit" (the customer''s currency), "price" (per credit, in the customer''s currency; 1 of the currency itself), "monthly_cap" (credits a calendar month of the customer''s zone), "priority","scope","lasts":"12 months", "invoice" (true; false: it is invoiced elsewhere)}. Takes the place of the rule there was; {"unit","end":true} ends it. A balance that is below the threshold already is a crossing. Looked at after every draw and grant, and by CALL billing.top_up(). Errors: ZB001, ZB003, ZB004.';

CREATE FUNCTION billing.top_up_step(after_customer bigint DEFAULT 0, max_rows int DEFAULT 500, OUT looked bigint, OUT fired bigint, OUT last_customer bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    r record;
    bought bigint[] := '{}';
BEGIN
    PERFORM billing_internal.require_installed();
    looked := 0;
    fired := 0;
    last_customer := after_customer;
    -- A customer's rules together, so that the next step begins with the next customer.
    FOR r IN SELECT x.customer_id, x.unit FROM billing.top_up_rule x WHERE x.ended_at IS NULL AND x.customer_id IN (
            SELECT DISTINCT y.customer_id FROM billing.top_up_rule y WHERE y.ended_at IS NULL AND y.customer_id > after_customer ORDER BY y.customer_id LIMIT max_rows)
        ORDER BY x.customer_id, x.unit LOOP
        IF billing_internal.top_up_check(r.customer_id, r.unit) THEN
            fired := fired + 1;
            bought := bought || r.customer_id;
        END IF;
        looked := looked + 1;
        last_customer := r.customer_id;
    END LOOP;
    -- Number series come after all blocks.
    PERFORM billing_internal.credit_sales_issue(bought) WHERE bought <> '{}';
END
$$;
COMMENT ON FUNCTION billing.top_up_step(bigint, int) IS 'Looks at what is available for the top-up rules of up to max_rows customers after one: for usage that drew without a call, and caps that a new month lifts. Returns how many it looked at (0 = done), how many fired, and the customer to go on after.';

CREATE PROCEDURE billing.top_up()
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.job_start('top_up');
    step record;
    fired bigint := 0;
    after_customer bigint := 0;
BEGIN
    COMMIT;
    LOOP
        SELECT s.looked, s.fired, s.last_customer INTO step FROM billing.top_up_step(after_customer) s;
        EXIT WHEN step.looked OPERATOR(pg_catalog.=) 0;
        fired := fired OPERATOR(pg_catalog.+) step.fired;
        after_customer := step.last_customer;
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run, pg_catalog.jsonb_build_object('top_ups', fired));
END
$$;
COMMENT ON PROCEDURE billing.top_up() IS 'Looks at every top-up rule, committing step by step.';

-- Consumption: checking and counting in one, reservations, seats. There is no second counter: what is consumed, confirmed or
-- assigned is an ordinary usage event, and its id makes it happen once.
--
-- Order of locks: the customer's stripe (shared, as ingest), the caller's key, the quota, blocks of credit, and then ingest's own.

CREATE FUNCTION billing_internal.consume_worth(definition text, quantity numeric, properties text, bill_to text) RETURNS TABLE (properties text, quantity numeric, dimensions text)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'consume_worth_wrapper';
COMMENT ON FUNCTION billing_internal.consume_worth(text, numeric, text, text) IS 'The event that consumes so much on a meter: its properties (a sum of one property gets it), what it counts and its dimensions. No row where consume_worth_error() says why.';
CREATE FUNCTION billing_internal.consume_worth_error(definition text, quantity numeric, properties text, bill_to text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'consume_worth_error_wrapper';
COMMENT ON FUNCTION billing_internal.consume_worth_error(text, numeric, text, text) IS 'Why consume_worth() gave no row.';
CREATE FUNCTION billing_internal.seat_event(definition text, seat_holder text, leaves boolean, seats numeric) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'seat_event_wrapper';
COMMENT ON FUNCTION billing_internal.seat_event(text, text, boolean, numeric) IS 'The properties of the event by which a seat is taken or left: holder and operation where the meter looks for them, "seats" (how many there are then) and "change" (1 or -1) for meters that bill peaks or time.';

CREATE TYPE billing_internal.reservation_row AS (
    customer_id bigint, customer text, feature_id int, feature text, definition text, event_type text, quantity numeric, properties jsonb, bill_to text, expires_at timestamptz, outcome text, actual numeric
);
COMMENT ON TYPE billing_internal.reservation_row IS 'A reservation with what its event needs.';

-- ── what all of them do ──────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.consume_subject(of_customer text, of_feature text,
    OUT customer_id bigint, OUT customer text, OUT feature_id int, OUT feature text, OUT kind text, OUT unit text, OUT event_type text, OUT meter_id int, OUT additive boolean, OUT definition text,
    OUT mode text, OUT quota numeric, OUT resets text, OUT length interval, OUT rate jsonb, OUT limited boolean, OUT watched boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    by_key text := of_customer;
    at timestamptz := billing_internal.moment();
BEGIN
    LOOP
        SELECT c.customer_id, c.key, f.feature_id, f.key, f.kind, f.unit, m.event_type, f.meter_id, m.additive, m.definition::text, e.mode, e.quota, e.resets, e.length, e.rate,
            EXISTS (SELECT FROM billing.spend_limit l WHERE l.customer_id = c.customer_id AND l.ended_at IS NULL), EXISTS (SELECT FROM billing.alert_rule r WHERE r.customer_id = c.customer_id AND r.ended_at IS NULL)
        INTO customer_id, customer, feature_id, feature, kind, unit, event_type, meter_id, additive, definition, mode, quota, resets, length, rate, limited, watched
        FROM billing.customer c CROSS JOIN billing.feature f LEFT JOIN billing.meter m USING (meter_id)
        LEFT JOIN billing.entitlement_state e ON e.customer_id = c.customer_id AND e.feature_id = f.feature_id AND e.valid_during @> at
        WHERE c.key = by_key AND f.key = of_feature;
        EXIT WHEN FOUND;
        -- By an alias or id, or this raises.
        PERFORM billing_internal.find_feature(of_feature);
        SELECT c.key INTO by_key FROM billing.customer c WHERE c.customer_id = billing_internal.find_customer(of_customer);
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.consume_subject(text, text) IS 'What consuming needs to know of a customer and a feature before it locks. Errors: ZB001.';

CREATE FUNCTION billing_internal.consume_lock(of_customer_id bigint, idempotency_key text, of_meter_id int DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM billing_internal.require_read_committed('usage is not consumed');
    END IF;
    IF NOT billing_internal.travelling() THEN
        -- The same call twice at once: the second waits, and finds what the first did.
        PERFORM pg_advisory_xact_lock_shared(billing_internal.lock_class('stripe'), billing_internal.stripe_of(of_customer_id)),
            pg_advisory_xact_lock(billing_internal.lock_class('consume'), hashtext(of_customer_id || '/' || idempotency_key)),
            CASE WHEN of_meter_id IS NOT NULL THEN pg_advisory_xact_lock(billing_internal.lock_class('quota'), hashtext(of_customer_id || '/' || of_meter_id)) END;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.consume_lock(bigint, text, int) IS
    'The locks of every call that counts, in order; with a meter, the customer''s quotas of it, too, so that the last unit is given once. Errors: ZB005 above READ COMMITTED, whose snapshot would not show what others consumed before the lock was had.';

CREATE FUNCTION billing_internal.quota_lock(of_customer_id bigint, of_meter_id int) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT billing_internal.travelling() THEN
        PERFORM pg_advisory_xact_lock(billing_internal.lock_class('quota'), hashtext(of_customer_id || '/' || of_meter_id));
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.quota_lock(bigint, int) IS 'Holds a customer''s quotas of a meter until the transaction ends, so that the last unit is given once, whichever feature asks.';

CREATE FUNCTION billing_internal.check_key(idempotency_key text, most int) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(octet_length(idempotency_key), 0) NOT BETWEEN 1 AND most THEN
        PERFORM billing_internal.fail('ZB004', format('the idempotency key has %s bytes', coalesce(octet_length(idempotency_key), 0)), format('Give each call a key of 1 to %s bytes of its own, and send the same one when you try again.', most));
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_key(text, int) IS 'Errors: ZB004 an idempotency key that is missing or too long.';

CREATE FUNCTION billing_internal.require_consumable(s_feature text, s_kind text, s_additive boolean) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF s_kind = 'seat' THEN
        PERFORM billing_internal.fail('ZB004', format('feature %s is a seat feature', s_feature), 'billing.seat_assign() and billing.seat_release() count who is there.');
    ELSIF s_additive IS NULL THEN
        PERFORM billing_internal.fail('ZB004', format('feature %s has no meter, so there is nothing to count', s_feature),
            CASE WHEN s_kind = 'credit' THEN 'Let the feature name the meter that counts it, or draw credit by billing.draw_down().' ELSE 'Ask billing.entitled() or billing.entitlement_check().' END);
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.require_consumable(text, text, boolean) IS 'Errors: ZB004 a feature of which nothing is consumed.';

-- ── consume ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.consume_again(of_customer_id bigint, of_customer text, of_feature text, of_event_type text, of_event_id text, of_properties jsonb, of_dimensions jsonb, of_bill_to text)
    RETURNS TABLE (result text, allowed boolean, reason text, kind text, mode text, used numeric, quota numeric, remaining numeric, resets_at timestamptz, source text, value jsonb)
    LANGUAGE plpgsql ROWS 1 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    stored_at timestamptz := (SELECT k.occurred_at FROM billing.usage_event_key k WHERE k.customer_id = of_customer_id AND k.event_key = billing_internal.key_of_text(of_event_id));
BEGIN
    IF stored_at IS NOT NULL THEN
        -- It was consumed. Whether this is the same once more, ingest says by its content.
        PERFORM billing.ingest_event(of_customer, of_event_type, of_event_id, stored_at, of_properties, of_bill_to);
        RETURN QUERY SELECT 'duplicate', true, CASE WHEN x.allowed THEN x.reason ELSE 'allowed' END, x.kind, x.mode, x.used, x.quota, x.remaining, x.resets_at, x.source, x.value
        FROM billing.entitlement_check(of_customer, of_feature, 0, of_dimensions, of_bill_to) x;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.consume_again(bigint, text, text, text, text, jsonb, jsonb, text) IS 'What consume() says where the key was used before; no row where it was not. Errors: ZB009 for something else.';

CREATE FUNCTION billing.consume(customer text, feature text, quantity numeric DEFAULT 1, idempotency_key text DEFAULT NULL, properties jsonb DEFAULT '{}', bill_to text DEFAULT NULL)
    RETURNS TABLE (result text, allowed boolean, reason text, kind text, mode text, used numeric, quota numeric, remaining numeric, resets_at timestamptz, source text, value jsonb)
    LANGUAGE plpgsql SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    s record;
    w record;
    c record;
    at timestamptz := billing_internal.moment();
    event_id text := 'consume:' || consume.idempotency_key;
    locked boolean;
    done boolean := false;
    before record;
    after record;
BEGIN
    IF (billing_internal.require_installed() IS NULL) IS NULL THEN -- an expression, which costs less than PERFORM
        RETURN;
    ELSIF coalesce(octet_length(consume.idempotency_key), 0) NOT BETWEEN 1 AND 247 THEN
        PERFORM billing_internal.check_key(consume.idempotency_key, 247);
    END IF;
    IF (consume.quantity >= 0 AND consume.quantity < 1e28) IS NOT TRUE OR jsonb_typeof(consume.properties) IS DISTINCT FROM 'object' THEN
        IF (consume.quantity >= 0 AND consume.quantity < 1e28) IS NOT TRUE THEN
            PERFORM billing_internal.refuse_quantity(consume.quantity, 'consumed', 'Consume 0 or more.');
        END IF;
        PERFORM billing_internal.fail('ZB004', 'the properties must be an object', 'Pass {"model": "gpt-4"}, or {}.');
    END IF;
    s := billing_internal.consume_subject(consume.customer, consume.feature);
    IF s.kind = 'rate_limit' THEN
        -- No event: what a rate limit counts is over in a moment. So the key is not kept, and the same again is another request.
        c := billing_internal.entitlement_asked(s.customer, s.feature, 0, '{}', NULL, at, true);
        IF c.allowed THEN
            w := billing_internal.rate_take(s.customer_id, s.feature_id, (s.rate->>'limit')::numeric, (s.rate->>'burst')::numeric, consume.quantity, false, (s.rate->>'per')::interval);
            c.allowed := w.allowed;
            c.reason := CASE WHEN w.allowed THEN 'allowed' ELSE 'rate_limited' END;
            c.remaining := w.remaining;
            c.resets_at := CASE WHEN NOT w.allowed THEN at + w.retry_after END;
        END IF;
        RETURN QUERY SELECT CASE WHEN c.allowed THEN 'consumed' ELSE 'denied' END, c.allowed, c.reason, c.kind, c.mode, c.used, c.quota, c.remaining, c.resets_at, c.source, c.value;
        RETURN;
    END IF;
    IF s.kind = 'seat' OR s.additive IS NULL THEN
        PERFORM billing_internal.require_consumable(s.feature, s.kind, s.additive);
    END IF;
    SELECT * INTO w FROM billing_internal.consume_worth(s.definition, consume.quantity, consume.properties::text, consume.bill_to);
    IF NOT FOUND THEN
        PERFORM billing_internal.raise_fault(billing_internal.consume_worth_error(s.definition, consume.quantity, consume.properties::text, consume.bill_to)::jsonb);
    END IF;
    locked := s.kind = 'metered' AND (s.mode = 'hard' AND s.quota IS NOT NULL OR s.resets = 'first_use');
    PERFORM billing_internal.consume_lock(s.customer_id, consume.idempotency_key, CASE WHEN locked THEN s.meter_id END);
    IF s.limited OR s.kind = 'credit' THEN
        -- First of all, where looking is dear or may fail.
        RETURN QUERY SELECT * FROM billing_internal.consume_again(s.customer_id, s.customer, s.feature, s.event_type, event_id, w.properties::jsonb, w.dimensions::jsonb, consume.bill_to);
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF s.kind = 'credit' THEN
        PERFORM billing_internal.credit_lock(s.customer_id, s.unit);
    END IF;
    LOOP
        -- Once the locks are had: it happens now, after what others counted.
        at := billing_internal.moment();
        IF s.resets = 'first_use' THEN
            at := greatest(at, (SELECT max(w.starts_at) FROM billing.entitlement_window w WHERE w.customer_id = s.customer_id AND w.feature_id = s.feature_id AND w.ends_at > at));
        END IF;
        c := billing_internal.entitlement_asked(s.customer, s.feature, w.quantity, w.dimensions::jsonb, NULL, at, true);
        EXIT WHEN locked OR c.kind <> 'metered' OR c.mode IS DISTINCT FROM 'hard' OR c.quota IS NULL;
        -- It became a hard limit just now.
        PERFORM billing_internal.quota_lock(s.customer_id, s.meter_id);
        locked := true;
    END LOOP;
    IF c.allowed AND c.limited THEN
        SELECT l.allowed, l.reason INTO c.allowed, c.reason FROM billing_internal.limits_check(s.customer_id, s.meter_id, w.quantity, w.dimensions::jsonb, consume.bill_to, w.properties, at, c.reason) l;
    END IF;
    -- Nearly always all there is to do. Credit has to be looked at around it.
    IF c.allowed AND s.kind <> 'credit' AND consume.bill_to IS NULL THEN
        done := billing_internal.event_store(s.customer_id, s.customer, s.event_type, event_id, at, w.properties, 100);
    END IF;
    IF NOT done THEN
        RETURN QUERY SELECT * FROM billing_internal.consume_again(s.customer_id, s.customer, s.feature, s.event_type, event_id, w.properties::jsonb, w.dimensions::jsonb, consume.bill_to);
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF c.allowed AND s.kind = 'credit' THEN
        before := billing_internal.credit_coverage(s.customer_id);
        c.allowed := false;
        FOR try IN 1..20 LOOP
            BEGIN
                PERFORM billing.ingest_event(s.customer, s.event_type, event_id, at, w.properties::jsonb, consume.bill_to);
                after := billing_internal.credit_coverage(s.customer_id);
                IF after.uncovered > before.uncovered THEN
                    RAISE EXCEPTION USING ERRCODE = 'ZBDRY';
                END IF;
                c.allowed := true;
                c.remaining := greatest(c.remaining - (after.covered - before.covered), 0);
            EXCEPTION WHEN SQLSTATE 'ZBDRY' THEN
                NULL;
            END;
            EXIT WHEN c.allowed;
            -- Was it this? What others used meanwhile, without asking, is in after, too.
            after := billing_internal.credit_coverage(s.customer_id);
            IF (after.covered, after.uncovered) = (before.covered, before.uncovered) THEN
                c.reason := 'no_credit';
                EXIT;
            END IF;
            before := after;
        END LOOP;
        IF NOT c.allowed AND c.reason <> 'no_credit' THEN
            PERFORM billing_internal.fail('40001', format('usage of customer %s comes too fast to tell what credit covers', s.customer), 'Nothing was counted. Send it again, with the same key.');
        END IF;
    ELSIF c.allowed THEN
        IF NOT done THEN
            PERFORM billing.ingest_event(s.customer, s.event_type, event_id, at, w.properties::jsonb, consume.bill_to);
        END IF;
        IF s.resets = 'first_use' AND c.resets_at IS NULL THEN
            PERFORM billing_internal.window_enter(s.customer_id, s.feature_id, at);
            c.resets_at := at + s.length;
        END IF;
        c.used := c.used + w.quantity;
        c.remaining := CASE WHEN c.quota IS NOT NULL THEN greatest(c.quota - c.used, 0) END;
        -- Now and then: a window that has begun since.
        IF random() < 0.05 THEN
            PERFORM billing_internal.entitlement_windows_keep(s.customer_id, s.feature_id);
        END IF;
    END IF;
    IF c.allowed AND s.watched THEN
        PERFORM billing_internal.alerts_look(s.customer_id);
    END IF;
    result := CASE WHEN c.allowed THEN 'consumed' ELSE 'denied' END;
    allowed := c.allowed;
    reason := c.reason;
    kind := c.kind;
    mode := c.mode;
    used := c.used;
    quota := c.quota;
    remaining := c.remaining;
    resets_at := c.resets_at;
    source := c.source;
    value := c.value;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION billing.consume(text, text, numeric, text, jsonb, text) IS
    'Checks and counts in one: if the customer may use so much of a feature, an event of its meter is stored (id consume:<idempotency_key>, occurred now). Returns consumed; denied, with the reason, and nothing stored; or duplicate: the key was used for the same before, which counted once. A hard limit gives its last unit once, whoever else asks. Of a sum of one property the quantity is put there, of other sums the properties say it, a count takes 1. Credit features: while credit covers it (available never falls below zero). Rate limits: a request is taken, nothing stored, the key not kept. Then what entitlement_check() says, this included. Errors: ZB001, ZB004, ZB005 above READ COMMITTED, ZB008 ingest would reject it, ZB009 the key was used for something else, ZB013 over the customer''s ingest limit.';

-- ── reservations ─────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.reservation_create(
    customer text, feature text, quantity numeric, idempotency_key text, expires_in interval DEFAULT '5 minutes', properties jsonb DEFAULT '{}', bill_to text DEFAULT NULL
) RETURNS TABLE (result text, reservation_id uuid, expires_at timestamptz, allowed boolean, reason text, used numeric, quota numeric, remaining numeric)
    LANGUAGE plpgsql SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    s record;
    w record;
    c record;
    r record;
    at timestamptz;
    id uuid;
BEGIN
    PERFORM billing_internal.require_installed();
    PERFORM billing_internal.check_key(reservation_create.idempotency_key, 255);
    IF (reservation_create.quantity > 0 AND reservation_create.quantity < 1e28) IS NOT TRUE THEN
        PERFORM billing_internal.refuse_quantity(reservation_create.quantity, 'reserved', 'Reserve more than 0.');
    ELSIF (reservation_create.expires_in BETWEEN interval '1 second' AND interval '7 days') IS NOT TRUE THEN
        PERFORM billing_internal.fail('ZB004', format('a reservation can''t last %s', coalesce(reservation_create.expires_in::text, 'NULL')), 'Give 1 second to 7 days.');
    ELSIF jsonb_typeof(reservation_create.properties) IS DISTINCT FROM 'object' THEN
        PERFORM billing_internal.fail('ZB004', 'the properties must be an object', 'Pass {"model": "gpt-4"}, or {}.');
    END IF;
    s := billing_internal.consume_subject(reservation_create.customer, reservation_create.feature);
    PERFORM billing_internal.require_consumable(s.feature, s.kind, s.additive);
    IF s.kind <> 'metered' THEN
        PERFORM billing_internal.fail('ZB004', format('feature %s is a %s feature', s.feature, s.kind), 'Parts of quotas are reserved; consume the others.');
    END IF;
    -- What could not be confirmed is not promised.
    SELECT * INTO w FROM billing_internal.consume_worth(s.definition, reservation_create.quantity, reservation_create.properties::text, reservation_create.bill_to);
    IF NOT FOUND THEN
        PERFORM billing_internal.raise_fault(billing_internal.consume_worth_error(s.definition, reservation_create.quantity, reservation_create.properties::text, reservation_create.bill_to)::jsonb);
    ELSIF w.quantity = 0 THEN
        PERFORM billing_internal.refuse_quantity(w.quantity, 'reserved', 'Reserve more than 0.');
    ELSIF reservation_create.bill_to IS NOT NULL AND NOT EXISTS (SELECT FROM billing.bill_to b WHERE b.customer_id = s.customer_id AND b.key = reservation_create.bill_to) THEN
        PERFORM billing_internal.fail('ZB001', format('customer %s has no legal entity %s', s.customer, quote_literal(reservation_create.bill_to)), 'SELECT key FROM billing.bill_to; lists them.');
    END IF;
    PERFORM billing_internal.consume_lock(s.customer_id, 'reservation:' || reservation_create.idempotency_key, s.meter_id);
    SELECT * INTO r FROM billing.reservation x WHERE x.customer_id = s.customer_id AND x.idempotency_key = reservation_create.idempotency_key;
    IF FOUND THEN
        IF (r.feature_id, r.quantity, r.properties, r.bill_to) IS DISTINCT FROM (s.feature_id, w.quantity, reservation_create.properties, reservation_create.bill_to) THEN
            PERFORM billing_internal.fail('ZB009', format('reservation %s of customer %s was of %s', quote_literal(reservation_create.idempotency_key), s.customer, trim_scale(r.quantity)), 'Nothing was reserved. A reservation that differs needs another key.');
        END IF;
        RETURN QUERY SELECT 'duplicate', r.reservation_id, r.expires_at, true, 'allowed', x.used, x.quota, x.remaining FROM billing.entitlement_check(s.customer, s.feature, 0) x;
        RETURN;
    END IF;
    at := billing_internal.moment();
    c := billing_internal.entitlement_asked(s.customer, s.feature, w.quantity, w.dimensions::jsonb, NULL, at, true);
    IF c.allowed AND c.limited THEN
        SELECT l.allowed, l.reason INTO c.allowed, c.reason FROM billing_internal.limits_check(s.customer_id, s.meter_id, w.quantity, w.dimensions::jsonb, reservation_create.bill_to, w.properties, at, c.reason) l;
    END IF;
    IF c.allowed THEN
        id := billing_internal.uuid_v7();
        INSERT INTO billing.reservation (customer_id, reservation_id, idempotency_key, feature_id, meter_id, quantity, properties, bill_to, made_at, expires_at, recorded_at)
        VALUES (s.customer_id, id, reservation_create.idempotency_key, s.feature_id, s.meter_id, w.quantity, reservation_create.properties, reservation_create.bill_to, at, at + reservation_create.expires_in, clock_timestamp());
        c.used := c.used + w.quantity;
        c.remaining := CASE WHEN c.quota IS NOT NULL THEN greatest(c.quota - c.used, 0) END;
        IF s.watched THEN
            PERFORM billing_internal.alerts_look(s.customer_id);
        END IF;
    END IF;
    RETURN QUERY SELECT CASE WHEN c.allowed THEN 'reserved' ELSE 'denied' END, id, CASE WHEN c.allowed THEN at + reservation_create.expires_in END, c.allowed, c.reason, c.used, c.quota, c.remaining;
END
$$;
COMMENT ON FUNCTION billing.reservation_create(text, text, numeric, text, interval, jsonb, text) IS
    'Holds a part of a quota for work of unknown size: it counts as used until it is confirmed, released or expires (expires_in: 1 second to 7 days). Returns reserved with the reservation''s id; denied, with the reason; or duplicate (the same key again, which is known until 90 days after the reservation is settled). Limits and budgets count it, too. Its event has these properties: what could not be confirmed so is refused at once. Errors: ZB001, ZB004, ZB005 above READ COMMITTED, ZB008 ingest would reject the event, ZB009 the key was used for something else.';

CREATE FUNCTION billing_internal.window_enter(of_customer_id bigint, of_feature_id int, at timestamptz) RETURNS timestamptz
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    length interval := (SELECT e.length FROM billing.entitlement_state e WHERE e.customer_id = of_customer_id AND e.feature_id = of_feature_id AND e.valid_during @> at AND e.resets = 'first_use');
    starts_at timestamptz;
BEGIN
    IF length IS NULL THEN
        RETURN at;
    END IF;
    SELECT max(w.starts_at) INTO starts_at FROM billing.entitlement_window w WHERE w.customer_id = of_customer_id AND w.feature_id = of_feature_id AND w.ends_at > at;
    IF starts_at IS NULL THEN
        INSERT INTO billing.entitlement_window (customer_id, feature_id, starts_at, ends_at) VALUES (of_customer_id, of_feature_id, at, at + length);
    END IF;
    -- Who began later may have been first: then it is in that window.
    RETURN greatest(at, starts_at);
END
$$;
COMMENT ON FUNCTION billing_internal.window_enter(bigint, int, timestamptz) IS 'Begins the window of a quota that resets with its first use, where none runs; when the use is to count: at, or when the window began. The caller holds the quotas of the meter.';

CREATE FUNCTION billing_internal.reservation_hold(of_reservation_id uuid) RETURNS billing_internal.reservation_row
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r billing_internal.reservation_row;
BEGIN
    SELECT x.customer_id, c.key, f.feature_id, f.key, m.definition::text, m.event_type, x.quantity, x.properties, x.bill_to, x.expires_at, x.outcome, x.actual INTO r
    FROM billing.reservation x JOIN billing.customer c USING (customer_id) JOIN billing.feature f USING (feature_id) JOIN billing.meter m ON m.meter_id = x.meter_id
    WHERE x.reservation_id = of_reservation_id FOR UPDATE OF x;
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB001', format('reservation %s is not known', coalesce(of_reservation_id::text, 'NULL')), 'SELECT reservation_id, idempotency_key FROM billing.reservation; lists them.');
    END IF;
    RETURN r;
END
$$;
COMMENT ON FUNCTION billing_internal.reservation_hold(uuid) IS 'A reservation with what its event needs, held until the transaction ends. Errors: ZB001.';

CREATE FUNCTION billing.reservation_confirm(reservation uuid, actual numeric DEFAULT NULL) RETURNS TABLE (result text, was_late boolean, used numeric, quota numeric, remaining numeric)
    LANGUAGE plpgsql SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    r billing_internal.reservation_row;
    w record;
    late boolean;
    at timestamptz;
    counted numeric;
BEGIN
    PERFORM billing_internal.require_installed();
    PERFORM billing_internal.require_read_committed('usage is not consumed');
    IF reservation_confirm.actual < 0 OR reservation_confirm.actual >= 1e28 THEN
        PERFORM billing_internal.fail('ZB004', format('%s can''t have been used', reservation_confirm.actual), 'Give 0 or more, or NULL for what was reserved.');
    END IF;
    -- The stripe and the quota before the row, as everywhere.
    SELECT x.customer_id, x.feature_id, x.meter_id INTO w FROM billing.reservation x WHERE x.reservation_id = reservation_confirm.reservation;
    IF FOUND THEN
        PERFORM billing_internal.consume_lock(w.customer_id, 'confirm:' || reservation_confirm.reservation,
            CASE WHEN EXISTS (SELECT FROM billing.entitlement_state e WHERE e.customer_id = w.customer_id AND e.feature_id = w.feature_id AND e.resets = 'first_use') THEN w.meter_id END);
    END IF;
    r := billing_internal.reservation_hold(reservation_confirm.reservation);
    IF r.outcome = 'released' THEN
        PERFORM billing_internal.fail('ZB005', format('reservation %s was released', reservation_confirm.reservation), 'What was used after all is an event: billing.ingest_event().');
    END IF;
    counted := coalesce(reservation_confirm.actual, r.quantity);
    IF counted > 0 THEN
        SELECT * INTO w FROM billing_internal.consume_worth(r.definition, counted, r.properties::text, r.bill_to);
        IF NOT FOUND AND r.outcome IS DISTINCT FROM 'confirmed' THEN
            PERFORM billing_internal.raise_fault(billing_internal.consume_worth_error(r.definition, counted, r.properties::text, r.bill_to)::jsonb);
        END IF;
        -- Where the properties say how much, it is that.
        counted := coalesce(w.quantity, counted);
    END IF;
    IF r.outcome = 'confirmed' THEN
        IF r.actual <> counted THEN
            PERFORM billing_internal.fail('ZB009', format('reservation %s was confirmed with %s', reservation_confirm.reservation, trim_scale(r.actual)), 'Nothing was counted. More usage is an event of its own.');
        END IF;
        RETURN QUERY SELECT 'duplicate', y.was_late, x.used, x.quota, x.remaining FROM billing.reservation y CROSS JOIN LATERAL billing.entitlement_check(r.customer, r.feature, 0) x
        WHERE y.customer_id = r.customer_id AND y.reservation_id = reservation_confirm.reservation;
        RETURN;
    END IF;
    late := r.expires_at <= billing_internal.moment();
    IF counted > 0 THEN
        at := billing_internal.window_enter(r.customer_id, r.feature_id, billing_internal.moment());
        PERFORM billing.ingest_event(r.customer, r.event_type, 'reservation:' || reservation_confirm.reservation, at, w.properties::jsonb, r.bill_to);
    END IF;
    UPDATE billing.reservation x SET outcome = 'confirmed', actual = counted, was_late = late, settled_at = billing.now()
    WHERE x.customer_id = r.customer_id AND x.reservation_id = reservation_confirm.reservation;
    PERFORM billing_internal.alerts_look(r.customer_id);
    RETURN QUERY SELECT 'confirmed', late, x.used, x.quota, x.remaining FROM billing.entitlement_check(r.customer, r.feature, 0) x;
END
$$;
COMMENT ON FUNCTION billing.reservation_confirm(uuid, numeric) IS
    'Counts what was really used (NULL = what was reserved) as one event and frees the rest. It happened, so it counts: also where it is more than was reserved, or the reservation has expired (was_late: others may have been given its part). Confirmed again with the same: duplicate. Errors: ZB001, ZB004, ZB005 it was released, ZB008, ZB009 it was confirmed with another quantity.';

CREATE FUNCTION billing.reservation_release(reservation uuid) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    r billing_internal.reservation_row;
BEGIN
    PERFORM billing_internal.require_installed();
    r := billing_internal.reservation_hold(reservation);
    IF r.outcome = 'confirmed' THEN
        PERFORM billing_internal.fail('ZB005', format('reservation %s was confirmed', reservation), 'What was counted by mistake is taken back by billing.event_void().');
    ELSIF r.outcome IS NULL THEN
        UPDATE billing.reservation x SET outcome = 'released', settled_at = billing.now() WHERE x.customer_id = r.customer_id AND x.reservation_id = reservation;
        RETURN 'released';
    END IF;
    RETURN r.outcome;
END
$$;
COMMENT ON FUNCTION billing.reservation_release(uuid) IS 'Frees a reservation: nothing was used. Returns released, or expired where it was found so before. Errors: ZB001, ZB005 it was confirmed.';

CREATE FUNCTION billing_internal.reservations_kept() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE -- inlined, so no search_path
    RETURN interval '90 days';
COMMENT ON FUNCTION billing_internal.reservations_kept() IS 'How long a reservation is known after it was settled.';

CREATE FUNCTION billing_internal.reservations_remove(settled_before timestamptz, max_rows bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    done bigint;
BEGIN
    DELETE FROM billing.reservation r
    USING (SELECT x.customer_id, x.reservation_id FROM billing.reservation x WHERE x.outcome IS NOT NULL AND x.settled_at < settled_before ORDER BY x.settled_at LIMIT max_rows FOR UPDATE SKIP LOCKED) x
    WHERE r.customer_id = x.customer_id AND r.reservation_id = x.reservation_id;
    GET DIAGNOSTICS done = ROW_COUNT;
    RETURN done;
END
$$;
COMMENT ON FUNCTION billing_internal.reservations_remove(timestamptz, bigint) IS 'Removes reservations that were settled before an instant; what was used of them is usage. The caller is reservation_expiry_step(). Runs as billing_owner.';

CREATE FUNCTION billing.reservation_expiry_step(max_rows int DEFAULT 1000) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    done bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 10000 THEN
        PERFORM billing_internal.fail('ZB004', format('%s reservations can''t be ended at once', coalesce(max_rows::text, 'NULL')), 'Give 1 to 10,000.');
    END IF;
    UPDATE billing.reservation r SET outcome = 'expired', settled_at = billing.now()
    FROM (SELECT x.customer_id, x.reservation_id FROM billing.reservation x WHERE x.settled_at IS NULL AND x.expires_at <= billing.now() ORDER BY x.expires_at LIMIT max_rows FOR UPDATE SKIP LOCKED) x
    WHERE r.customer_id = x.customer_id AND r.reservation_id = x.reservation_id;
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done < max_rows THEN
        done := done + billing_internal.reservations_remove(billing.now() - billing_internal.reservations_kept(), max_rows - done);
    END IF;
    RETURN done;
END
$$;
COMMENT ON FUNCTION billing.reservation_expiry_step(int) IS 'Notes that reservations have expired, and removes those that were settled more than 90 days ago; returns how many, at most max_rows. They count no more since their instant, with or without this. Errors: ZB004.';

CREATE PROCEDURE billing.reservation_expiry()
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.job_start('reservation_expiry');
    done bigint := 0;
    one bigint;
BEGIN
    COMMIT;
    LOOP
        one := billing.reservation_expiry_step();
        EXIT WHEN one OPERATOR(pg_catalog.=) 0;
        done := done OPERATOR(pg_catalog.+) one;
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run, pg_catalog.jsonb_build_object('reservations', done));
END
$$;
COMMENT ON PROCEDURE billing.reservation_expiry() IS 'Notes that reservations have expired, and removes those that were settled more than 90 days ago, committing step by step. Can be stopped and started at any time.';

-- ── seats ────────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.seat_change(customer text, feature text, seat_holder text, leaves boolean)
    RETURNS TABLE (result text, allowed boolean, reason text, used numeric, quota numeric, remaining numeric)
    LANGUAGE plpgsql ROWS 1 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    s record;
    c record;
    sits boolean;
    holder uuid;
    from_events tstzmultirange;
    -- After the holder's last operation, also in the same transaction.
    changed_at timestamptz := billing.now();
BEGIN
    PERFORM billing_internal.require_installed();
    IF coalesce(octet_length(seat_change.seat_holder), 0) NOT BETWEEN 1 AND 200 THEN
        PERFORM billing_internal.fail('ZB004', format('a seat holder has 1 to 200 bytes, not %s', coalesce(octet_length(seat_change.seat_holder), 0)), 'Name the user by your own id.');
    END IF;
    s := billing_internal.consume_subject(seat_change.customer, seat_change.feature);
    IF s.kind <> 'seat' THEN
        PERFORM billing_internal.fail('ZB004', format('feature %s is a %s feature', s.feature, s.kind), 'Seats are of seat features.');
    END IF;
    PERFORM billing_internal.consume_lock(s.customer_id, 'seats', s.meter_id);
    -- The last operation of this holder, as usage_cells() would say, which reads everybody's: from buckets and deltas, or from events where those are not true.
    holder := billing_internal.key_of_text(seat_change.seat_holder);
    from_events := coalesce(billing_internal.dirty_usage(s.customer_id, s.meter_id, '-infinity', 'infinity'), '{}');
    SELECT o.present, greatest(changed_at, o.placed_at + interval '1 microsecond') INTO sits, changed_at FROM (
        SELECT u.present, u.placed_at, u.event_key FROM billing_internal.usage_distinct u
        WHERE u.customer_id = s.customer_id AND u.meter_id = s.meter_id AND u.value_key = holder AND NOT from_events @> u.bucket_start
        UNION ALL
        SELECT e.value = 1, e.occurred_at, e.event_key FROM unnest(from_events) r (stretch)
        CROSS JOIN LATERAL billing_internal.stored_measures(s.customer_id, s.meter_id, lower(r.stretch), upper(r.stretch)) e WHERE e.value_key = holder) o
    ORDER BY o.placed_at DESC, o.event_key DESC, o.present LIMIT 1;
    c := billing.entitlement_check(s.customer, s.feature, CASE WHEN leaves OR sits IS TRUE THEN 0 ELSE 1 END);
    IF NOT leaves AND sits IS NOT TRUE AND NOT c.allowed THEN
        RETURN QUERY SELECT 'denied', false, c.reason, c.used, c.quota, c.remaining;
        RETURN;
    END IF;
    -- A seat that is held stays, and one may always go.
    c.reason := CASE WHEN c.allowed THEN c.reason ELSE 'allowed' END;
    IF coalesce(sits, false) <> leaves THEN
        RETURN QUERY SELECT CASE WHEN leaves THEN 'absent' ELSE 'already' END, true, c.reason, c.used, c.quota, c.remaining;
        RETURN;
    END IF;
    -- Without an entitlement nobody counts; what is left has to be known all the same.
    c.used := coalesce(c.used, (SELECT w.quantity FROM billing.feature f CROSS JOIN LATERAL billing_internal.usage_window(s.customer_id, f.meter_id, date_bin('1 hour', billing.now(), '2000-01-01 00:00+00'),
        date_bin('1 hour', billing.now(), '2000-01-01 00:00+00') + interval '1 hour') w WHERE f.feature_id = s.feature_id), 0) + CASE WHEN leaves THEN -1 ELSE 1 END;
    PERFORM billing.ingest_event(s.customer, s.event_type, 'seat:' || billing_internal.uuid_v7(), coalesce(changed_at, billing.now()), billing_internal.seat_event(s.definition, seat_change.seat_holder, leaves, c.used + CASE WHEN leaves THEN 1 ELSE 0 END)::jsonb);
    IF s.watched THEN
        PERFORM billing_internal.alerts_look(s.customer_id);
    END IF;
    RETURN QUERY SELECT CASE WHEN leaves THEN 'released' ELSE 'assigned' END, true, c.reason, c.used, c.quota, CASE WHEN c.quota IS NOT NULL THEN greatest(c.quota - c.used, 0) END;
END
$$;
COMMENT ON FUNCTION billing_internal.seat_change(text, text, text, boolean) IS 'What seat_assign() and seat_release() do: one change of a customer''s seats at a time, by what the meter says of the holder.';

CREATE FUNCTION billing.seat_assign(customer text, feature text, seat_holder text) RETURNS TABLE (result text, allowed boolean, reason text, used numeric, quota numeric, remaining numeric)
    LANGUAGE plpgsql SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM billing_internal.seat_change(customer, feature, seat_holder, false);
END
$$;
COMMENT ON FUNCTION billing.seat_assign(text, text, text) IS
    'Gives a user a seat now, by an event of the feature''s meter. Returns assigned; already, where the user has one (nothing is stored, so it can be sent again); or denied at a hard limit. Above a soft one the reason is soft_limit. The event says who, "seats" (the most that were taken at that moment) and "change": end of period, peak and time are other meters of it. Errors: ZB001, ZB004, ZB005 above READ COMMITTED.';

CREATE FUNCTION billing.seat_release(customer text, feature text, seat_holder text) RETURNS TABLE (result text, allowed boolean, reason text, used numeric, quota numeric, remaining numeric)
    LANGUAGE plpgsql SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM billing_internal.seat_change(customer, feature, seat_holder, true);
END
$$;
COMMENT ON FUNCTION billing.seat_release(text, text, text) IS 'Takes a user''s seat back now: released, or absent where the user has none. Errors: as seat_assign().';

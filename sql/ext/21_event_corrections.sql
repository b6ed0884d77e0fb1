-- Corrections: what was sent wrongly is voided, amended or replaced. Nothing stored is changed: a void is a row that says
-- since when a revision no longer counts, an amendment a void and the next revision, at one reading of the clock.

CREATE TYPE billing_internal.event_change AS (
    event_key uuid, change text, revision int, occurred_at timestamptz, new_occurred_at timestamptz, new_hash bigint
);
COMMENT ON TYPE billing_internal.event_change IS 'What a correction does to one event: ingested, amended, restored or voided; the revision that stood and its time; time and content of the one that follows.';

CREATE FUNCTION billing_internal.correction_begin(of_customer_id bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF billing_internal.travelling() THEN
        RETURN;
    END IF;
    -- Corrections of one stripe go one after the other, so that each finds what the last one left. Then as ingest does.
    PERFORM pg_advisory_xact_lock(billing_internal.lock_class('correction'), billing_internal.stripe_of(of_customer_id));
    PERFORM pg_advisory_xact_lock_shared(billing_internal.lock_class('stripe'), billing_internal.stripe_of(of_customer_id));
    -- An older snapshot would not show what was billed since, so that the difference would go unnoticed.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM billing_internal.bills_unseen(ARRAY[of_customer_id]);
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.correction_begin(bigint) IS 'The locks of a correction: among corrections of the customer''s stripe exclusive, against finalization shared. Errors: 40001 above READ COMMITTED, where the customer''s stripe was billed since the snapshot.';

CREATE FUNCTION billing_internal.check_correction_reason(reason text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(trim(reason), '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'a correction needs a reason', 'Say why: it stays with the events and in the audit log.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_correction_reason(text) IS 'Errors: ZB004 no reason.';

CREATE FUNCTION billing_internal.events_standing(of_customer_id bigint, event_keys uuid[])
    RETURNS TABLE (event_key uuid, revision int, occurred_at timestamptz, content_hash bigint, void boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT k.event_key, CASE WHEN v.revision IS NULL THEN 0 WHEN v.replaced_at IS NULL THEN v.revision ELSE v.revision + 1 END,
        CASE WHEN v.revision IS NULL THEN k.occurred_at ELSE coalesce(v.replaced_at, v.occurred_at) END,
        CASE WHEN v.revision IS NULL THEN k.content_hash ELSE v.replaced_hash END, v.revision IS NOT NULL AND v.replaced_at IS NULL
    FROM unnest(event_keys) w JOIN billing.usage_event_key k ON k.customer_id = of_customer_id AND k.event_key = w
    LEFT JOIN LATERAL (
        SELECT x.* FROM billing.usage_event_void x WHERE x.customer_id = of_customer_id AND x.event_key = w ORDER BY x.revision DESC LIMIT 1
    ) v ON true;
END
$$;
COMMENT ON FUNCTION billing_internal.events_standing(bigint, uuid[]) IS 'Of each event that is known: its last revision, when that happened, the hash of its content (NULL if it is void) and whether it is void.';

CREATE FUNCTION billing_internal.event_content(of_customer_id bigint, of_event_key uuid, of_revision int, at timestamptz) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
    SELECT jsonb_build_object('revision', e.revision, 'event_type', e.event_type, 'occurred_at', e.occurred_at, 'bill_to', e.bill_to, 'properties', e.properties)
    FROM billing.usage_event e WHERE e.customer_id = of_customer_id AND e.occurred_at = at AND e.event_key = of_event_key AND e.revision = of_revision
$$;
COMMENT ON FUNCTION billing_internal.event_content(bigint, uuid, int, timestamptz) IS 'One revision of an event, for the audit log; NULL if it is not stored any more.';

CREATE FUNCTION billing_internal.events_correct(
    of_customer_id bigint, handle bigint, void_keys uuid[], reason text, OUT ingested bigint, OUT amended bigint, OUT restored bigint, OUT voided bigint
)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    at timestamptz;
    changes billing_internal.event_change[];
    old record;
    lost record;
    written bigint;
BEGIN
    -- What there is to do. The caller holds the correction lock, so this stays true.
    SELECT coalesce(array_agg(ROW(c.event_key, c.change, c.revision, c.occurred_at, c.new_occurred_at, c.new_hash)::billing_internal.event_change), '{}'),
        count(*) FILTER (WHERE c.change = 'ingested'), count(*) FILTER (WHERE c.change = 'amended'), count(*) FILTER (WHERE c.change = 'restored'),
        count(*) FILTER (WHERE c.change = 'voided')
    INTO changes, ingested, amended, restored, voided
    FROM (
        SELECT w.event_key, CASE WHEN s.event_key IS NULL THEN 'ingested' WHEN s.void THEN 'restored' ELSE 'amended' END AS change, s.revision, s.occurred_at,
            w.occurred_at AS new_occurred_at, w.content_hash AS new_hash
        FROM billing_internal.call_contents(handle) w
        LEFT JOIN billing_internal.events_standing(of_customer_id, ARRAY(SELECT k.event_key FROM billing_internal.call_contents(handle) k)) s USING (event_key)
        WHERE s.event_key IS NULL OR s.void OR s.content_hash <> w.content_hash
        UNION ALL
        SELECT s.event_key, 'voided', s.revision, s.occurred_at, NULL, NULL FROM billing_internal.events_standing(of_customer_id, void_keys) s WHERE NOT s.void
    ) c;
    IF changes = '{}' THEN
        RETURN;
    END IF;

    -- The revisions that end, as they were measured. Their months may have been made since this transaction took its locks.
    PERFORM billing_internal.partitions_heed(ARRAY(SELECT DISTINCT date_trunc('month', c.occurred_at, 'UTC') FROM unnest(changes) c WHERE c.occurred_at IS NOT NULL));
    SELECT count(*) AS n, array_agg(e.event_key) AS keys, array_agg(e.event_type) AS types, array_agg(e.occurred_at) AS times,
        array_agg(e.bill_to) AS bill_tos, array_agg(e.properties::text) AS properties
    INTO old
    FROM unnest(changes) c
    JOIN billing.usage_event e ON e.customer_id = of_customer_id AND e.occurred_at = c.occurred_at AND e.event_key = c.event_key AND e.revision = c.revision
    WHERE c.change IN ('amended', 'voided');
    -- Where retention has begun, what is left of an hour does not say what the hour counted.
    PERFORM billing_internal.events_hold();
    IF old.n <> amended + voided OR EXISTS (SELECT FROM unnest(old.types, old.times) o (event_type, occurred_at)
        JOIN billing.event_retention r ON r.event_type = o.event_type AND o.occurred_at < r.removed_until) THEN
        PERFORM billing_internal.fail('ZB005', 'events of that time are not stored any more, only their keys', 'What they counted stands for good. Correct the invoice instead.');
    END IF;

    at := clock_timestamp();
    INSERT INTO billing.usage_event_void (customer_id, event_key, revision, occurred_at, voided_at, replaced_hash, replaced_at, reason, actor)
    SELECT of_customer_id, c.event_key, c.revision, c.occurred_at, at, c.new_hash, c.new_occurred_at, events_correct.reason, billing_internal.caller()
    FROM unnest(changes) c WHERE c.change IN ('amended', 'voided') ORDER BY c.event_key
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> amended + voided THEN
        PERFORM billing_internal.fail('40001', 'events were corrected meanwhile', 'Retry the transaction.');
    END IF;
    UPDATE billing.usage_event_void v SET replaced_hash = c.new_hash, replaced_at = c.new_occurred_at
    FROM unnest(changes) c
    WHERE c.change = 'restored' AND v.customer_id = of_customer_id AND v.event_key = c.event_key AND v.revision = c.revision AND v.replaced_at IS NULL;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> restored THEN
        PERFORM billing_internal.fail('40001', 'events were corrected meanwhile', 'Retry the transaction.');
    END IF;
    INSERT INTO billing.usage_event_key (customer_id, event_key, occurred_at, content_hash)
    SELECT of_customer_id, c.event_key, c.new_occurred_at, c.new_hash FROM unnest(changes) c WHERE c.change = 'ingested' ORDER BY c.event_key
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> ingested THEN
        PERFORM billing_internal.fail('40001', 'events were ingested meanwhile', 'Retry the transaction.');
    END IF;
    INSERT INTO billing.usage_event (customer_id, event_key, revision, occurred_at, recorded_at, event_type, event_id, bill_to, properties)
    SELECT e.customer_id, e.event_key, coalesce(c.revision + 1, 0), e.occurred_at, at, e.event_type, e.event_id, e.bill_to, e.properties::jsonb
    FROM billing_internal.call_accept(handle, ARRAY(SELECT of_customer_id FROM unnest(changes) c WHERE c.change <> 'voided'),
        ARRAY(SELECT c.event_key FROM unnest(changes) c WHERE c.change <> 'voided')) e
    JOIN unnest(changes) c USING (event_key);

    -- Usage: what can be taken back is, what can't is measured afresh. An hour holds the buckets of both widths.
    WITH ended AS MATERIALIZED (
        SELECT u.*, m.state IN ('count', 'sum', 'level') AS reversible
        FROM (
            SELECT array_agg(w.meter_id) AS ids, array_agg(w.from_at) AS starts, array_agg(w.until_at) AS ends, array_agg(w.definition::text) AS definitions
            FROM billing.meter x JOIN billing_internal.meter_stretch w ON w.meter_id = x.meter_id AND w.as_of_version = x.version
            WHERE x.counts AND w.definition->>'event_type' = ANY (old.types)
        ) k
        CROSS JOIN LATERAL billing_internal.stored_usage(k.ids, k.starts, k.ends, k.definitions, array_fill(of_customer_id, ARRAY[old.n::int]),
            array_fill((SELECT c.bucket_minutes FROM billing.customer c WHERE c.customer_id = of_customer_id), ARRAY[old.n::int]),
            old.keys, old.types, old.times, old.bill_tos, old.properties) u
        JOIN billing.meter m USING (meter_id)
    ), dirty AS (
        INSERT INTO billing.usage_dirty (customer_id, meter_id, from_at, until_at)
        SELECT DISTINCT x.customer_id, x.meter_id, date_trunc('hour', x.bucket_start, 'UTC'), date_trunc('hour', x.bucket_start, 'UTC') + interval '1 hour'
        FROM ended x WHERE NOT x.reversible
    ), d AS (
        SELECT * FROM billing_internal.call_deltas(handle)
        UNION ALL
        SELECT x.customer_id, x.meter_id, x.bucket_minutes, x.bucket_start, x.dimension_set_id, x.dimensions, -x.events, -x.quantity, -x.moment, NULL, NULL, NULL FROM ended x WHERE x.reversible
    )
    INSERT INTO billing.usage_delta (customer_id, meter_id, bucket_minutes, bucket_start, dimension_set_id, events, quantity, moment, placed_at, event_key, dimensions, value_keys)
    SELECT d.customer_id, d.meter_id, d.bucket_minutes, d.bucket_start, d.dimension_set_id, d.events, d.quantity, d.moment, d.placed_at, d.event_key,
        CASE WHEN s.dimensions IS DISTINCT FROM d.dimensions::jsonb THEN d.dimensions::jsonb END, d.value_keys
    FROM d LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id);
    -- What was billed with it is compared by the next bill; what is carried over, with all that comes after.
    PERFORM billing_internal.usage_changed(array_agg(of_customer_id), array_agg(x.first), array_agg(CASE WHEN EXISTS (SELECT FROM billing.meter m WHERE m.counts AND m.state IN ('level', 'presence')
            AND (EXISTS (SELECT FROM billing_internal.meter_stretch w WHERE w.meter_id = m.meter_id AND w.as_of_version = m.version AND w.definition->>'event_type' = ANY (old.types)) OR m.meter_id IN (SELECT d.meter_id FROM billing_internal.call_deltas(handle) d))) THEN 'infinity' ELSE x.last + interval '1 microsecond' END)) FROM (
        SELECT min(a.at) AS first, max(a.at) AS last FROM unnest(changes) c CROSS JOIN LATERAL (VALUES (c.occurred_at), (c.new_occurred_at)) a (at)
        WHERE a.at IS NOT NULL GROUP BY date_trunc('day', a.at, 'UTC')) x;
    -- Of a period that begins where events are gone, they may be what its price asks for.
    SELECT g.contract, g.n INTO lost FROM billing_internal.late_boundaries(ARRAY(
        SELECT billing_internal.ref_now(k.customer_id, k.contract_id, '{}') FROM billing.contract k WHERE k.customer_id = of_customer_id)) g WHERE g.gone LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s boundary %s, which was billed with it, can''t be computed again: retention has removed events of its period', lost.contract, lost.n),
            'What is billed stands for good.', 'reason events_removed');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.events_correct(bigint, bigint, uuid[], text) IS
    'Stores what a call holds as what now stands under its ids (new, amended or restored; the same content is left alone) and voids other events of the customer; counts of what was done. The caller holds the locks and has admitted the call. Errors: ZB005 no longer stored, or what was billed with it can''t be computed any more, 40001.';

CREATE FUNCTION billing.event_void(customer text, event_id text, reason text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    standing record;
    handle bigint;
    before jsonb;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    PERFORM billing_internal.check_correction_reason(reason);
    PERFORM billing_internal.correction_begin(of_customer_id);
    SELECT * INTO standing FROM billing_internal.event_standing(of_customer_id, customer, event_id);
    IF standing.void THEN
        RETURN 'already void';
    END IF;
    handle := billing_internal.call_read('[]');
    PERFORM billing_internal.call_admit(handle, billing_internal.meters_ready());
    before := billing_internal.event_content(of_customer_id, standing.event_key, standing.revision, standing.occurred_at);
    PERFORM billing_internal.events_correct(of_customer_id, handle, ARRAY[standing.event_key], reason);
    PERFORM billing_internal.call_end(handle);
    PERFORM billing_internal.audit('event_void', 'event', event_id, of_customer_id, before, NULL, reason);
    RETURN 'void';
END
$$;
COMMENT ON FUNCTION billing.event_void(text, text, text) IS
    'Makes an event count no longer: void, or already void. It stays stored, its id stays used, and sending it again changes nothing; event_amend() makes it count again. What was billed with it is billed as a difference. Errors: ZB001 customer or event, ZB004 no reason, ZB005 only its key is stored.';

CREATE FUNCTION billing_internal.event_standing(of_customer_id bigint, customer text, event_id text)
    RETURNS TABLE (event_key uuid, revision int, occurred_at timestamptz, content_hash bigint, void boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM billing_internal.events_standing(of_customer_id, ARRAY[billing_internal.key_of_text(event_id)]);
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB001', format('event %s of customer %s is not known', coalesce(quote_literal(event_id), 'NULL'), quote_literal(customer)),
            'Name it by the id it was sent with: SELECT event_id, event_type, occurred_at FROM billing.usage_event;');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.event_standing(bigint, text, text) IS 'One event as events_standing() has it. Errors: ZB001.';

CREATE FUNCTION billing_internal.amend_by_call(of_customer_id bigint, of_event_id text, handle bigint, state text, reason text) RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    standing record;
    done record;
    refused record;
    before jsonb;
BEGIN
    SELECT * INTO standing FROM billing_internal.event_standing(of_customer_id, (SELECT c.key FROM billing.customer c WHERE c.customer_id = of_customer_id), of_event_id);
    PERFORM billing_internal.call_admit(handle, state);
    SELECT o.reason, o.message INTO refused FROM billing_internal.call_outcomes(handle) o WHERE o.reason IS NOT NULL;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB008', 'event rejected: ' || refused.message, 'Nothing was changed. What an amended event says must be as good as what is ingested.', 'reason ' || refused.reason);
    END IF;
    IF NOT standing.void THEN
        before := billing_internal.event_content(of_customer_id, standing.event_key, standing.revision, standing.occurred_at);
    END IF;
    SELECT * INTO done FROM billing_internal.events_correct(of_customer_id, handle, '{}', reason);
    PERFORM billing_internal.call_end(handle);
    IF done.amended + done.restored = 0 THEN
        RETURN 'unchanged';
    END IF;
    PERFORM billing_internal.audit('event_amend', 'event', of_event_id, of_customer_id, before,
        (SELECT billing_internal.event_content(of_customer_id, s.event_key, s.revision, s.occurred_at) FROM billing_internal.events_standing(of_customer_id, ARRAY[standing.event_key]) s), reason);
    RETURN CASE WHEN done.restored > 0 THEN 'restored' ELSE 'amended' END;
END
$$;
COMMENT ON FUNCTION billing_internal.amend_by_call(bigint, text, bigint, text, text) IS 'Amends a known event to the one event of a call, under the correction lock: amended, unchanged or restored. Errors: ZB001, ZB005, ZB008.';

CREATE FUNCTION billing.event_amend(
    customer text, event_id text, reason text, event_type text DEFAULT NULL, occurred_at timestamptz DEFAULT NULL, properties jsonb DEFAULT NULL, bill_to text DEFAULT NULL
) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    standing record;
    stood jsonb;
    state text;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    PERFORM billing_internal.check_correction_reason(reason);
    PERFORM billing_internal.correction_begin(of_customer_id);
    SELECT * INTO standing FROM billing_internal.event_standing(of_customer_id, customer, event_id);
    stood := billing_internal.event_content(of_customer_id, standing.event_key, standing.revision, standing.occurred_at);
    IF stood IS NULL THEN
        PERFORM billing_internal.fail('ZB005', format('event %s is not stored any more, only its key', quote_literal(event_id)),
            'What it counted stands for good. Correct the invoice instead.');
    END IF;
    state := billing_internal.meters_ready();
    RETURN billing_internal.amend_by_call(of_customer_id, event_id, billing_internal.call_read_event((SELECT c.key FROM billing.customer c WHERE c.customer_id = of_customer_id),
        coalesce(event_type, stood->>'event_type'), event_id, coalesce(occurred_at, standing.occurred_at), coalesce(properties, stood->'properties')::text,
        nullif(coalesce(bill_to, stood->>'bill_to'), '')), state, reason);
END
$$;
COMMENT ON FUNCTION billing.event_amend(text, text, text, text, timestamptz, jsonb, text) IS
    'Corrects an event: its next revision counts instead, under the same id. What is NULL stays as it is; properties are replaced as a whole; bill_to '''' takes the legal entity away. Returns amended, unchanged (it says so already), or restored (it was void and counts again, with what is given). What was billed with it is billed as a difference. Errors: ZB001 customer or event, ZB004 no reason, ZB005 only its key is stored, ZB008 what ingest would reject.';

-- ── replacing a stretch ──────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.bills_of_stretch(of_customer_id bigint, from_at timestamptz, until_at timestamptz)
    RETURNS TABLE (contract text, n int, invoice text, bill_to text, line text, currency text, quantity numeric, amount numeric, fault text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    p record;
BEGIN
    -- What is billed already: what is missing on the invoices.
    FOR p IN SELECT k.contract_id, k.key, k.currency, b.n, t.key AS bill_to FROM billing.contract k JOIN billing.bill_to t USING (customer_id, bill_to_id)
        JOIN billing.billing_period b ON b.customer_id = k.customer_id AND b.contract_id = k.contract_id AND b.n > 0 AND b.state <> 'due'
        JOIN billing.billing_period q ON q.customer_id = b.customer_id AND q.contract_id = b.contract_id AND q.n = b.n - 1
        WHERE k.customer_id = of_customer_id AND q.starts_at < until_at AND q.ends_at > from_at ORDER BY k.key, b.n LOOP
        BEGIN
            RETURN QUERY SELECT p.key, p.n, coalesce((SELECT i.number FROM billing.invoice i JOIN billing.bill_to t ON t.customer_id = i.customer_id AND t.bill_to_id = i.bill_to_id
                    WHERE i.customer_id = of_customer_id AND i.contract_id = p.contract_id AND i.n = p.n AND i.kind = 'invoice' AND i.number IS NOT NULL AND i.reissue IS NOT true AND t.key = u.bill_to),
                    billing_internal.invoice_key(p.key, p.n, 1, NULLIF(u.bill_to, p.bill_to))),
                NULL::text, u.line_key, p.currency::text, u.quantity, u.amount, NULL::text
            FROM billing_internal.unbilled_usage(of_customer_id, p.contract_id, ARRAY[p.n]) u;
        EXCEPTION WHEN OTHERS THEN
            RETURN QUERY SELECT p.key, p.n, NULL::text, NULL::text, NULL::text, p.currency::text, NULL::numeric, NULL::numeric, SQLERRM;
        END;
    END LOOP;
    -- What is not: the next invoice as it would be with all usage of its period.
    FOR p IN SELECT k.key, k.currency, greatest(k.next_n, 1) AS n FROM billing.contract k
        WHERE k.customer_id = of_customer_id AND k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at IS NOT NULL AND k.starts_at < until_at
            AND NOT EXISTS (SELECT FROM billing.billing_period q WHERE q.customer_id = k.customer_id AND q.contract_id = k.contract_id AND q.n = greatest(k.next_n, 1) - 1
                AND (q.starts_at >= until_at OR q.ends_at <= from_at)) ORDER BY k.key LOOP
        BEGIN
            RETURN QUERY SELECT p.key, p.n, NULL::text, d->>'bill_to', l->>'key', p.currency::text, (l->>'quantity')::numeric, (l->>'amount')::numeric, NULL::text
            FROM billing.invoice_preview(p.key, greatest(until_at, billing.now())) v,
                jsonb_array_elements(CASE jsonb_typeof(v) WHEN 'array' THEN v ELSE jsonb_build_array(v) END) d, jsonb_array_elements(d->'lines') l
            WHERE NOT l ? 'corrects'; -- differences are told where they belong
        EXCEPTION WHEN OTHERS THEN
            RETURN QUERY SELECT p.key, p.n, NULL::text, NULL::text, NULL::text, p.currency::text, NULL::numeric, NULL::numeric, SQLERRM;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.bills_of_stretch(bigint, timestamptz, timestamptz) IS
    'Of each boundary of the customer whose period meets [from_at, until_at): if it is billed, what is on no invoice, by invoice and line; if it is next, the lines of its preview. fault: why it can''t be computed.';

CREATE FUNCTION billing_internal.bills_difference(of_customer_id bigint, before jsonb, after jsonb) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH b AS (SELECT * FROM jsonb_to_recordset(before) x (contract text, n int, invoice text, bill_to text, line text, currency text, quantity numeric, amount numeric, fault text)),
    a AS (SELECT * FROM jsonb_to_recordset(after) x (contract text, n int, invoice text, bill_to text, line text, currency text, quantity numeric, amount numeric, fault text)),
    joined AS (
        SELECT coalesce(a.contract, b.contract) AS contract, coalesce(a.n, b.n) AS n, coalesce(a.invoice, b.invoice) AS invoice, coalesce(a.bill_to, b.bill_to) AS bill_to,
            coalesce(a.line, b.line) AS line, coalesce(a.currency, b.currency) AS currency,
            coalesce(b.quantity, 0) AS quantity_before, coalesce(a.quantity, 0) AS quantity_after, coalesce(b.amount, 0) AS before, coalesce(a.amount, 0) AS after
        FROM (SELECT * FROM a WHERE a.fault IS NULL) a
        FULL JOIN (SELECT * FROM b WHERE b.fault IS NULL) b ON (b.contract, b.n, b.line) = (a.contract, a.n, a.line)
            AND b.invoice IS NOT DISTINCT FROM a.invoice AND b.bill_to IS NOT DISTINCT FROM a.bill_to
    ), line AS (
        SELECT j.*, CASE WHEN j.invoice IS NULL THEN j.quantity_before ELSE coalesce(v.quantity, 0) END AS quantity_billed,
            CASE WHEN j.invoice IS NULL THEN j.before ELSE coalesce(v.amount, 0) END AS billed, j.invoice IS NOT NULL AS issued
        FROM joined j
        LEFT JOIN LATERAL (
            SELECT sum((l->>'quantity')::numeric) AS quantity, sum((l->>'amount')::numeric) AS amount
            FROM billing.contract k, jsonb_array_elements(billing_internal.standing(k.customer_id, k.contract_id, j.n, NULL)::jsonb) d, jsonb_array_elements(d->'lines') l
            WHERE k.customer_id = of_customer_id AND k.key = j.contract AND j.invoice IS NOT NULL AND coalesce(l->>'corrects', l->>'key') = j.line
        ) v ON true
        WHERE j.quantity_before <> j.quantity_after OR j.before <> j.after
    )
    SELECT coalesce((SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('contract', l.contract, 'boundary', l.n, 'invoice', l.invoice, 'bill_to', l.bill_to, 'line', l.line, 'currency', l.currency,
            'billed', trim_scale(l.billed)::text, 'pending', CASE WHEN l.issued THEN trim_scale(l.before)::text END, 'difference', trim_scale(l.after - l.before)::text,
            'corrected', trim_scale(CASE WHEN l.issued THEN l.billed + l.after ELSE l.after END)::text,
            'quantity_billed', trim_scale(l.quantity_billed)::text, 'quantity_difference', trim_scale(l.quantity_after - l.quantity_before)::text,
            'quantity_corrected', trim_scale(CASE WHEN l.issued THEN l.quantity_billed + l.quantity_after ELSE l.quantity_after END)::text))
            ORDER BY l.contract, l.n, l.invoice, l.bill_to, l.line) FROM line l), '[]')
        || coalesce((SELECT jsonb_agg(jsonb_build_object('contract', x.contract, 'boundary', x.n, 'fault', x.fault) ORDER BY x.contract, x.n)
            FROM (SELECT contract, n, fault FROM a WHERE fault IS NOT NULL UNION SELECT contract, n, fault FROM b WHERE fault IS NOT NULL) x), '[]')
$$;
COMMENT ON FUNCTION billing_internal.bills_difference(bigint, jsonb, jsonb) IS
    'What changed between two answers of bills_of_stretch(), by line: billed (on the invoice, and by differences since; of the next invoice: as it was), pending (missing on it before), difference, corrected; and what can''t be computed.';

CREATE FUNCTION billing.event_replace(
    customer text, event_type text, from_at timestamptz, until_at timestamptz, events json, reason text, dry_run boolean DEFAULT true
) RETURNS TABLE (ingested bigint, amended bigint, voided bigint, unchanged bigint, changes jsonb, invoices jsonb)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    of_customer_id bigint;
    of_type text := event_replace.event_type;
    state text;
    handle bigint;
    size bigint;
    gone uuid[];
    refused record;
    done record;
    before jsonb;
    key_before jsonb;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    PERFORM billing_internal.check_correction_reason(reason);
    IF of_type IS NULL OR events IS NULL OR dry_run IS NULL THEN
        PERFORM billing_internal.fail('ZB004', format('%s is NULL', CASE WHEN of_type IS NULL THEN 'the event type' WHEN events IS NULL THEN 'the document of events' ELSE 'dry_run' END),
            'Say which type of event is replaced, by which events ([] for none), and whether to store it.');
    ELSIF from_at IS NULL OR until_at IS NULL OR from_at >= until_at OR from_at = '-infinity' OR until_at = 'infinity' THEN
        PERFORM billing_internal.fail('ZB004', format('%s until %s is not a stretch of time', coalesce(from_at::text, 'NULL'), coalesce(until_at::text, 'NULL')),
            'Give two instants, the first before the second; the second is exclusive.');
    END IF;
    PERFORM billing_internal.correction_begin(of_customer_id);
    SELECT coalesce(jsonb_agg(to_jsonb(b)), '[]') INTO before FROM billing_internal.bills_of_stretch(of_customer_id, from_at, until_at) b;

    -- All of it in a subtransaction, which a dry run ends with an exception of its own.
    BEGIN
        state := billing_internal.meters_ready();
        handle := billing_internal.call_read(events::text);
        IF handle IS NULL THEN
            PERFORM billing_internal.raise_fault(billing_internal.call_read_error(events::text)::jsonb);
        END IF;
        PERFORM billing_internal.call_admit(handle, state);
        PERFORM billing_internal.call_confine(handle, of_customer_id, of_type, from_at, until_at);
        SELECT array_agg(x.event_key), count(*) INTO gone, size FROM (
            SELECT e.event_key FROM billing.usage_event e
            WHERE e.customer_id = of_customer_id AND e.event_type = of_type AND e.occurred_at >= from_at AND e.occurred_at < until_at
                AND NOT EXISTS (SELECT FROM billing.usage_event_void v WHERE v.customer_id = e.customer_id AND v.event_key = e.event_key AND v.revision = e.revision)
            LIMIT 100001) x;
        IF size > 100000 THEN
            PERFORM billing_internal.fail('ZB010', format('more than 100,000 events of type %s are stored from %s until %s', of_type, from_at, until_at), 'Replace shorter stretches, one by one.');
        END IF;
        -- Whoever is replaced here stands here: an id that counts elsewhere is another event.
        SELECT f.place, f.reason, f.message, count(*) OVER () AS size INTO refused FROM (
            SELECT o.place, o.reason, o.message FROM billing_internal.call_outcomes(handle) o WHERE o.reason IS NOT NULL
            UNION ALL
            SELECT c.place, 'conflicting', format('event_id: "%s" is used for another event, at %s', c.event_id, to_char(s.occurred_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
            FROM billing_internal.call_contents(handle) c
            JOIN billing_internal.events_standing(of_customer_id, ARRAY(SELECT k.event_key FROM billing_internal.call_contents(handle) k)) s USING (event_key)
            WHERE NOT s.void AND NOT EXISTS (SELECT FROM unnest(gone) g WHERE g = c.event_key)
        ) f ORDER BY f.place LIMIT 1;
        IF FOUND THEN
            PERFORM billing_internal.fail('ZB008', format('events[%s]: %s', refused.place, refused.message),
                format('Nothing was stored%s. Mend the document and send it again as a whole.', CASE WHEN refused.size > 1 THEN format('; %s more can''t be stored either', refused.size - 1) ELSE '' END),
                'reason ' || refused.reason);
        END IF;
        gone := ARRAY(SELECT g FROM unnest(gone) g EXCEPT SELECT c.event_key FROM billing_internal.call_contents(handle) c);
        SELECT count(*) INTO unchanged FROM billing_internal.call_contents(handle) c;
        SELECT coalesce(jsonb_object_agg(x.event_id, x.state), '{}') INTO key_before FROM (
            SELECT c.event_id, CASE WHEN s.event_key IS NULL THEN 'ingested' WHEN s.void THEN 'restored' ELSE 'amended' END AS state
            FROM billing_internal.call_contents(handle) c
            LEFT JOIN billing_internal.events_standing(of_customer_id, ARRAY(SELECT k.event_key FROM billing_internal.call_contents(handle) k)) s USING (event_key)
            WHERE s.event_key IS NULL OR s.void OR s.content_hash <> c.content_hash
            UNION ALL
            SELECT e.event_id, 'voided' FROM billing_internal.events_standing(of_customer_id, gone) s
            JOIN billing.usage_event e ON e.customer_id = of_customer_id AND e.event_key = s.event_key AND e.occurred_at = s.occurred_at AND e.revision = s.revision
            ORDER BY 1 LIMIT 100
        ) x;
        SELECT * INTO done FROM billing_internal.events_correct(of_customer_id, handle, gone, reason);
        PERFORM billing_internal.call_end(handle);
        ingested := done.ingested;
        amended := done.amended + done.restored;
        voided := done.voided;
        unchanged := unchanged - ingested - amended;
        changes := (SELECT coalesce(jsonb_agg(jsonb_build_object('event_id', k.key, 'change', k.value) ORDER BY k.key), '[]') FROM jsonb_each(key_before) k);
        SELECT billing_internal.bills_difference(of_customer_id, before, coalesce(jsonb_agg(to_jsonb(b)), '[]')) INTO invoices
        FROM billing_internal.bills_of_stretch(of_customer_id, from_at, until_at) b;
        IF ingested + amended + voided > 0 THEN
            PERFORM billing_internal.audit('event_replace', 'event', of_type, of_customer_id, NULL,
                jsonb_build_object('from_at', from_at, 'until_at', until_at, 'ingested', ingested, 'amended', amended, 'voided', voided, 'unchanged', unchanged), reason);
        END IF;
        IF dry_run THEN
            RAISE EXCEPTION USING ERRCODE = 'ZBDRY', MESSAGE = 'dry run';
        END IF;
    EXCEPTION WHEN SQLSTATE 'ZBDRY' THEN
        NULL;
    END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION billing.event_replace(text, text, timestamptz, timestamptz, json, text, boolean) IS
    'Makes a document (as ingest() takes, native) what a customer''s events of one type in [from_at, until_at) are: other content under an id that stands there amends it, what is not in the document is voided, new ids are ingested, void ones restored (counted as amended). dry_run (the default) stores nothing and returns the same: counts, up to 100 changes, and what it does to invoices, by line: billed, pending (late usage that was missing already), difference, corrected; of the next invoice as previewed. Errors: ZB001 customer, ZB003 not a document, ZB004 arguments, ZB005 only keys are stored, ZB008 an event that can''t be stored, with its place, ZB010 more than 10,000 events in the document or 100,000 stored.';

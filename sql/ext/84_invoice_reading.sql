-- Invoicing, what only looks: preview, recompute, explain, the events behind a line, spend. The bills themselves are
-- computed where they are issued from, in 80_invoicing.sql.

-- ── looking ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.invoice_preview(contract text, as_of timestamptz DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    boundaries int[];
    last_n int;
    boundary_on date;
    boundary_at timestamptz;
    ref billing_internal.bill_ref;
    documents jsonb;
BEGIN
    PERFORM billing_internal.require_installed();
    as_of := coalesce(as_of, billing.now());
    SELECT c.* INTO k FROM billing_internal.find_contract(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    IF k.state IN ('ended', 'cancelled') AND NOT EXISTS (SELECT FROM billing.late_usage l WHERE l.customer_id = k.customer_id AND l.contract_id = k.contract_id AND l.closed_at IS NULL) THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s is %s and has nothing left to bill', k.key, k.state), 'SELECT number, document FROM billing.invoice; shows what was billed.');
    END IF;
    -- What boundary 0 left unbilled stands on the first boundary's document, unless that one is billed itself (boundary 0 was voided).
    boundaries := CASE WHEN k.state IN ('ended', 'cancelled') THEN '{}' WHEN k.next_n > 0 THEN ARRAY[k.next_n]
        WHEN EXISTS (SELECT FROM billing.billing_period p WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.n = 1 AND p.state <> 'due')
            OR EXISTS (SELECT FROM billing.invoice v WHERE v.customer_id = k.customer_id AND v.contract_id = k.contract_id AND v.n = 1 AND v.kind = 'invoice' AND v.number IS NOT NULL AND v.reissue IS NOT true) THEN '{0}'
        ELSE '{0, 1}' END;
    last_n := boundaries[cardinality(boundaries)];
    IF last_n IS NULL THEN
        boundary_on := k.ends_on;
        boundary_at := k.ends_at;
    ELSIF last_n = 0 THEN
        boundary_on := k.starts_on;
        boundary_at := k.starts_at;
    ELSE
        SELECT p.ends_on INTO boundary_on FROM billing_internal.calendar_period(k.starts_on, k.ends_on, k.billed_every, k.alignment, last_n - 1) p;
        boundary_at := coalesce((SELECT p.ends_at FROM billing.billing_period p WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.n = last_n - 1),
            billing_internal.local_midnight(boundary_on, k.time_zone));
    END IF;
    ref := billing_internal.ref_now(k.customer_id, k.contract_id, boundaries, least(as_of, boundary_at));
    SELECT jsonb_agg(d.document || jsonb_build_object('status', 'preview', 'issued_on', i.day)
        || CASE WHEN d.document->>'kind' = 'credit_note' THEN '{}' ELSE jsonb_build_object('due_on', i.day + k.net_days) END ORDER BY d.place) INTO documents
    FROM billing_internal.bill_look(ref || billing_internal.earlier_refs(ARRAY[ref]), true) d
    JOIN billing.bill_to t ON t.customer_id = k.customer_id AND t.key = d.bill_to
    CROSS JOIN LATERAL (SELECT greatest(boundary_on, (billing.now() AT TIME ZONE coalesce(t.time_zone, k.time_zone))::date) AS day) i
    -- Of a boundary that is billed again, what other legal entities were invoiced for it stays.
    WHERE d.document ? 'kind' OR NOT EXISTS (SELECT FROM billing.invoice v WHERE v.customer_id = k.customer_id AND v.contract_id = k.contract_id AND v.n = last_n AND v.bill_to_id = t.bill_to_id AND v.kind = 'invoice'
        AND v.number IS NOT NULL AND v.reissue IS NOT true);
    RETURN CASE WHEN jsonb_array_length(documents) = 1 THEN documents->0 ELSE coalesce(documents, '[]') END;
END
$$;
COMMENT ON FUNCTION billing.invoice_preview(text, timestamptz) IS
    'The invoice_document a contract''s next boundary would give, with the usage before as_of (default billing.now()): what boundary 0 left unbilled stands on it, too, and late usage of earlier ones, which is all there is of a contract that has ended. Where several legal entities have lines, or none is left to bill, an array of documents. Stores nothing. Errors: ZB001, ZB002 contract, ZB005 nothing left to bill, ZB007 usage that no price matches.';

CREATE FUNCTION billing_internal.issued_ref(of_customer_id bigint, of_invoice_id uuid, recorded_until timestamptz) RETURNS billing_internal.bill_ref
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT billing_internal.ref_by(i.customer_id, i.contract_id, CASE WHEN i.kind = 'invoice' THEN ARRAY[i.n] ELSE '{}' END,
        jsonb_build_object('inputs', i.document->'inputs', 'minor_units', i.minor_units), recorded_until, false, '[]',
        CASE WHEN recorded_until IS NOT NULL THEN i.document->'inputs'->'credits' END)
    FROM billing.invoice i WHERE i.customer_id = of_customer_id AND i.invoice_id = of_invoice_id
$$;
COMMENT ON FUNCTION billing_internal.issued_ref(bigint, uuid, timestamptz) IS 'The bill of an invoice''s boundary with the terms, price versions and policies that the invoice recorded, and the events recorded until an instant (NULL = all there are); nothing that it corrects.';

CREATE FUNCTION billing_internal.recomputed(of_customer_id bigint, of_invoice_id uuid, recorded_until timestamptz) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i billing.invoice;
    ref billing_internal.bill_ref;
    refs billing_internal.bill_ref[];
    -- What was billed with it, of other boundaries, was not issued yet when the documents were counted.
    beside text[];
    documents jsonb;
BEGIN
    SELECT * INTO i FROM billing.invoice x WHERE x.customer_id = of_customer_id AND x.invoice_id = of_invoice_id;
    IF i.pool_id IS NOT NULL THEN
        RETURN billing_internal.credit_sale_document(i.customer_id, i.pool_id, i.minor_units, i.document->'inputs');
    END IF;
    SELECT array_agg(x.number ORDER BY x.created_at, x.number) INTO beside FROM billing.invoice x
    WHERE x.customer_id = i.customer_id AND x.contract_id = i.contract_id AND x.cut_at = i.cut_at AND x.invoice_id <> i.invoice_id AND x.number IS NOT NULL;
    ref := billing_internal.issued_ref(of_customer_id, of_invoice_id, recorded_until);
    ref.beside := CASE WHEN i.document->'inputs' ? 'counted' THEN beside END;
    ref.usage_until := CASE WHEN i.kind <> 'invoice' THEN (i.document->'inputs'->>'due_until')::timestamptz END;
    SELECT coalesce(max(billing_internal.standing(i.customer_id, i.contract_id, d.boundary, d.billed_on, coalesce(d.given_up, '{}'))) FILTER (WHERE d.terms IS NULL), '[]'),
        coalesce(array_agg(billing_internal.ref_by(i.customer_id, i.contract_id, ARRAY[d.boundary], d.terms, recorded_until, true,
            billing_internal.standing(i.customer_id, i.contract_id, d.boundary, d.billed_on, coalesce(d.given_up, '{}')), i.document->'inputs'->'credits', beside) ORDER BY d.boundary) FILTER (WHERE d.terms IS NOT NULL), '{}') INTO ref.standing, refs
    FROM jsonb_to_recordset(coalesce(i.document->'inputs'->'differences', '[]')) d (boundary int, billed_on text[], given_up text[], terms jsonb);
    -- The legal entity's own document; if nothing is left for it, the bill's without lines.
    SELECT jsonb_agg(CASE WHEN d.bill_to = i.document->>'bill_to' THEN d.document ELSE d.document || '{"lines": []}' END ORDER BY d.bill_to <> i.document->>'bill_to', d.place) INTO documents
    FROM billing_internal.bill_look(ref || refs) d;
    RETURN documents->0;
END
$$;
COMMENT ON FUNCTION billing_internal.recomputed(bigint, uuid, timestamptz) IS 'An invoice''s document computed again from the events recorded until an instant, with the terms, price versions and policies it recorded, and of what it corrects the documents that it counted as billed, whatever became of them.';

CREATE FUNCTION billing_internal.pending_boundaries(of_customer_id bigint, of_contract_id uuid, as_of timestamptz) RETURNS int[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    at_n int;
    begins date;
    boundaries int[] := '{}';
BEGIN
    SELECT * INTO k FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id;
    at_n := greatest(k.next_n, 1);
    WHILE k.next_bill_at IS NOT NULL LOOP
        SELECT p.starts_on INTO begins FROM billing_internal.calendar_period(k.starts_on, k.ends_on, k.billed_every, k.alignment, at_n - 1) p;
        EXIT WHEN begins IS NULL OR begins > (as_of AT TIME ZONE k.time_zone)::date;
        IF NOT EXISTS (SELECT FROM billing.billing_period p WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.n = at_n AND p.state <> 'due') THEN
            boundaries := boundaries || at_n;
        END IF;
        at_n := at_n + 1;
    END LOOP;
    RETURN boundaries;
END
$$;
COMMENT ON FUNCTION billing_internal.pending_boundaries(bigint, uuid, timestamptz) IS 'The boundaries of a contract whose period has begun by the day of an instant and was not billed.';

CREATE FUNCTION billing_internal.pending_refs(of_customer_id bigint, as_of timestamptz) RETURNS billing_internal.bill_ref[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    boundaries int[];
    again int[];
    refs billing_internal.bill_ref[] := '{}';
    noted billing_internal.bill_ref[] := '{}';
BEGIN
    FOR k IN SELECT c.customer_id, c.contract_id FROM billing.contract c WHERE c.customer_id = of_customer_id AND (c.next_bill_at IS NOT NULL AND c.starts_at <= as_of OR EXISTS (SELECT FROM billing.late_usage l
            WHERE l.customer_id = c.customer_id AND l.contract_id = c.contract_id AND l.closed_at IS NULL)) ORDER BY c.contract_id LOOP
        boundaries := billing_internal.pending_boundaries(k.customer_id, k.contract_id, as_of);
        -- What is billed again for some legal entities only is compared with what stands for the others.
        again := ARRAY(SELECT DISTINCT x.n FROM billing.invoice x WHERE x.customer_id = k.customer_id AND x.contract_id = k.contract_id AND x.n = ANY (boundaries)
            AND x.kind = 'invoice' AND x.number IS NOT NULL AND x.reissue IS NOT true);
        noted := noted || billing_internal.ref_now(k.customer_id, k.contract_id, boundaries, as_of);
        refs := refs || billing_internal.ref_now(k.customer_id, k.contract_id, ARRAY(SELECT b FROM unnest(boundaries) b WHERE b <> ALL (again)), as_of)
            || ARRAY(SELECT billing_internal.compared_ref(k.customer_id, k.contract_id, b) FROM unnest(again) b);
    END LOOP;
    RETURN refs || billing_internal.earlier_refs(noted);
END
$$;
COMMENT ON FUNCTION billing_internal.pending_refs(bigint, timestamptz) IS 'The boundaries of a customer''s contracts whose periods have begun by an instant and were not billed, with those that are to be compared: what is pending then.';

CREATE FUNCTION billing_internal.credit_pending_usage(of_customer_id bigint, of_unit text, by_period boolean DEFAULT true) RETURNS TABLE (grant_id uuid, amount numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refs billing_internal.bill_ref[] := billing_internal.pending_refs(of_customer_id, billing.now());
    handle bigint;
BEGIN
    IF refs = '{}' THEN
        RETURN;
    END IF;
    handle := billing_internal.bill_batch(refs, false, NULL, by_period);
    PERFORM billing_internal.raise_fault(o.fault::jsonb) FROM billing_internal.bill_outcomes(handle) o;
    RETURN QUERY SELECT g.grant_id, sum(c.amount) FROM billing_internal.bill_credits(handle) c JOIN billing.credit_grant g ON g.customer_id = of_customer_id AND g.key = c.block
        WHERE g.unit = of_unit GROUP BY g.grant_id HAVING sum(c.amount) <> 0;
    PERFORM billing_internal.bill_close(handle);
END
$$;
COMMENT ON FUNCTION billing_internal.credit_pending_usage(bigint, text, boolean) IS
    'What the unbilled usage of a customer (and what corrections of billed usage come to) would draw from each block now, by the path of bills, in the caller''s snapshot; below 0 = it would be given back. Usage that was stored ahead of time (policy event_future_max) counts already. by_period: from kept totals of service periods and, where the time of the usage leads to nothing else, without asking for its hours; false is the oracle of verify(). Locks nothing. Errors: ZB007 usage that no price matches.';

CREATE FUNCTION billing_internal.credit_periods_keep(of_customer_id bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    PERFORM billing_internal.usage_window_keep(p.customer_id, p.meter_id, p.starts_at, p.ends_at) FROM (
        SELECT DISTINCT h.customer_id, h.meter_id, billing_internal.local_midnight(s.starts_on, k.time_zone) AS starts_at, billing_internal.local_midnight(s.ends_on, k.time_zone) AS ends_at
        FROM billing.contract k JOIN billing.contract_charge h USING (customer_id, contract_id)
        CROSS JOIN LATERAL (SELECT (billing.now() AT TIME ZONE k.time_zone)::date AS day) t
        CROSS JOIN LATERAL billing_internal.calendar_period_at(k.starts_on, k.ends_on, k.billed_every, k.alignment, t.day) b
        CROSS JOIN LATERAL billing_internal.calendar_service_periods(k.starts_on, k.ends_on, k.billed_every, k.alignment, h.every, b.n) s
        WHERE k.customer_id = of_customer_id AND k.next_bill_at IS NOT NULL AND h.kind = 'usage' AND h.until_version IS NULL AND h.valid_during @> billing.now()
            AND s.starts_on <= t.day AND t.day < s.ends_on
    ) p WHERE NOT EXISTS (SELECT FROM billing.usage_window_kept w WHERE w.customer_id = p.customer_id AND w.meter_id = p.meter_id AND w.starts_at = p.starts_at AND w.ends_at = p.ends_at);
END
$$;
COMMENT ON FUNCTION billing_internal.credit_periods_keep(bigint) IS 'From now on the totals of the service periods that a customer''s usage is in are kept (usage_window_keep), so that what is pending is told from them. For whoever draws; nothing but speed depends on it.';

CREATE FUNCTION billing_internal.credit_pending_differs(of_customer_id bigint, of_unit text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT format('customer %s %s: %s by periods, %s by hours', of_customer_id, of_unit, x.amount, y.amount)
        FROM (SELECT coalesce(sum(p.amount), 0) AS amount, jsonb_object_agg(p.grant_id, trim_scale(p.amount)) AS blocks FROM billing_internal.credit_pending_usage(of_customer_id, of_unit, true) p) x,
            (SELECT coalesce(sum(p.amount), 0) AS amount, jsonb_object_agg(p.grant_id, trim_scale(p.amount)) AS blocks FROM billing_internal.credit_pending_usage(of_customer_id, of_unit, false) p) y
        WHERE x.blocks IS DISTINCT FROM y.blocks);
EXCEPTION WHEN SQLSTATE 'ZB007' THEN
    RETURN NULL; -- unpriced usage is told by its own row
END
$$;
COMMENT ON FUNCTION billing_internal.credit_pending_differs(bigint, text) IS 'Where what is pending for a customer''s blocks of a unit is another by kept totals of periods than by hours, as bills draw; NULL = nowhere.';

CREATE FUNCTION billing_internal.credit_coverage(of_customer_id bigint, OUT covered numeric, OUT uncovered numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- What others consumed is later than this transaction began, and so is what it consumes itself.
    refs billing_internal.bill_ref[] := billing_internal.pending_refs(of_customer_id, billing_internal.moment() + interval '1 day');
    handle bigint;
BEGIN
    covered := 0;
    uncovered := 0;
    IF refs = '{}' THEN
        RETURN;
    END IF;
    handle := billing_internal.bill_batch(refs, false);
    PERFORM billing_internal.raise_fault(o.fault::jsonb) FROM billing_internal.bill_outcomes(handle) o;
    -- Under credit_only what no credit pays costs nothing, and stands on lines of its own.
    SELECT coalesce(sum(d.credits), 0), coalesce(sum(d.total - d.credits), 0) + (SELECT coalesce(sum(l.quantity), 0) FROM billing_internal.bill_lines(handle) l WHERE l.key LIKE '%/uncovered')
    INTO covered, uncovered FROM billing_internal.bill_documents(handle) d;
    PERFORM billing_internal.bill_close(handle);
END
$$;
COMMENT ON FUNCTION billing_internal.credit_coverage(bigint) IS 'What of a customer''s pending bills credit pays, and what it does not: usage that makes the latter more is beyond the credit. Up to a day ahead, so that all usage there is counts. Errors: ZB007 usage that no price matches.';

CREATE FUNCTION billing_internal.comparable(document jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN billing_internal.canonical_json(jsonb_build_object('lines', document->'lines', 'totals', document->'totals', 'inputs', document->'inputs')::text);
COMMENT ON FUNCTION billing_internal.comparable(jsonb) IS 'What a recompute compares byte for byte: lines, totals and inputs, not status, number and dates.';

CREATE FUNCTION billing.invoice_recompute(invoice text)
    RETURNS TABLE (line_key text, billed numeric, recomputed numeric, difference numeric, same_bytes boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i record;
    again jsonb;
    same boolean;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT x.customer_id, x.invoice_id, x.document, x.cut_at, x.period_starts_at INTO i FROM billing_internal.find_invoice(invoice) f JOIN billing.invoice x USING (customer_id, invoice_id);
    again := billing_internal.recomputed(i.customer_id, i.invoice_id, i.cut_at);
    same := billing_internal.comparable(i.document) = billing_internal.comparable(again);
    RETURN QUERY
    SELECT coalesce(b.key, a.key), b.amount, a.amount, coalesce(a.amount, 0) - coalesce(b.amount, 0), same
    FROM (SELECT l.value->>'key' AS key, (l.value->>'amount')::numeric AS amount, l.place FROM jsonb_array_elements(i.document->'lines') WITH ORDINALITY l (value, place)) b
    FULL JOIN (SELECT l->>'key' AS key, (l->>'amount')::numeric AS amount FROM jsonb_array_elements(again->'lines') l) a ON a.key = b.key
    ORDER BY b.place, a.key;
END
$$;
COMMENT ON FUNCTION billing.invoice_recompute(text) IS
    'Computes an invoice again from its events (recorded up to its cut), with the contract version, price versions and policies it recorded, and compares line by line; same_bytes says whether lines, totals and inputs came out byte for byte. Changes nothing. Errors: ZB001, ZB002, ZB005 events of its periods have been removed.';

CREATE FUNCTION billing_internal.of_line(cell_dimensions jsonb, line_dimensions jsonb, line_by text[], match jsonb, bill_to text, default_bill_to text) RETURNS boolean
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN cell_dimensions @> match AND coalesce(cell_dimensions->>'bill_to', default_bill_to) = bill_to
        AND (SELECT coalesce(jsonb_object_agg(n, cell_dimensions->n) FILTER (WHERE cell_dimensions ? n), '{}') FROM unnest(line_by) n) = line_dimensions;
COMMENT ON FUNCTION billing_internal.of_line(jsonb, jsonb, text[], jsonb, text, text) IS 'Whether usage with these dimensions belongs to a line.';

CREATE FUNCTION billing_internal.meter_version(document jsonb, boundary int, meter text) RETURNS int
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN coalesce((SELECT (regexp_match(v, '@([0-9]+)$'))[1]::int
        FROM jsonb_array_elements_text(coalesce((SELECT coalesce(d->'terms'->'inputs'->'meters', '[]') FROM jsonb_array_elements(document->'inputs'->'differences') d
            WHERE (d->>'boundary')::int = boundary AND d ? 'terms'), document->'inputs'->'meters')) v
        WHERE regexp_replace(v, '@[0-9]+$', '') = meter), 1);
COMMENT ON FUNCTION billing_internal.meter_version(jsonb, int, text) IS 'The version of a meter with which a document was computed: its own boundary (NULL), or one that it corrects.';

CREATE FUNCTION billing.invoice_line_events(invoice text, line_key text, max_rows int DEFAULT NULL)
    RETURNS TABLE (occurred_at timestamptz, event_id text, value numeric, dimensions jsonb, properties jsonb, change int)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Named columns: a customer's login may read no others.
    i record;
    l record;
    default_bill_to text;
    since record;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT x.customer_id, x.invoice_id, x.contract_id, x.n, x.number, x.key, x.cut_at, x.document->>'bill_to' AS bill_to, x.document INTO i
    FROM billing_internal.find_invoice(invoice) f JOIN billing.invoice x USING (customer_id, invoice_id);
    SELECT x.key, coalesce(x.of_kind, x.kind) AS kind, x.of_n, x.of_key, x.meter_id, x.service_from, x.service_until, x.dimensions, x.line_by, x.match, m.key AS meter,
        billing_internal.meter_version(i.document, x.of_n, m.key) AS meter_version INTO l
    FROM billing.invoice_line x LEFT JOIN billing.meter m USING (meter_id) WHERE x.customer_id = i.customer_id AND x.invoice_id = i.invoice_id AND x.key = line_key;
    IF l.key IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('invoice %s has no line %s', coalesce(i.number, i.key), coalesce(quote_literal(line_key), 'NULL')),
            'SELECT key, label, amount FROM billing.invoice_line; lists them.');
    ELSIF l.kind <> 'usage' THEN
        RETURN; -- fees, true-ups and caps have no events
    END IF;
    -- What a difference's line was billed on before, it was billed with the events recorded until then.
    SELECT x.cut_at, x.document, CASE WHEN x.kind <> 'invoice' OR x.n <> l.of_n THEN l.of_n END AS n INTO since FROM billing.invoice c, jsonb_array_elements(c.document->'lines') d, jsonb_array_elements_text(d->'billed_on') b (number)
    JOIN billing.invoice x ON x.customer_id = i.customer_id AND x.contract_id = i.contract_id AND x.number = b.number
    WHERE l.of_key IS NOT NULL AND c.customer_id = i.customer_id AND c.invoice_id = i.invoice_id AND d->>'key' = l.key ORDER BY x.cut_at DESC LIMIT 1;
    default_bill_to := billing_internal.contract_bill_to(i.customer_id, i.contract_id, coalesce(l.of_n, i.n));
    RETURN QUERY
    SELECT e.occurred_at, e.event_id, e.value, e.dimensions, e.properties, e.change
    FROM (
        SELECT x.occurred_at, x.event_key, x.event_id, x.value, x.value_key, x.dimensions, x.properties, sum(x.change)::int AS change
        FROM (
            SELECT l.meter_id, l.meter
            UNION ALL
            -- of a compound, the events of its meters
            SELECT k.meter_id, k.key
            FROM billing.meter_version v CROSS JOIN LATERAL billing_internal.compound_parts(v.definition) p JOIN billing.meter k ON k.key = p.meter
            WHERE v.meter_id = l.meter_id AND v.version = l.meter_version
        ) w (meter_id, key)
        JOIN billing.meter m USING (meter_id)
        CROSS JOIN LATERAL (
            SELECT 1 AS change, i.cut_at, billing_internal.meter_version(i.document, l.of_n, w.key) AS version
            UNION ALL
            SELECT -1, since.cut_at, billing_internal.meter_version(since.document, since.n, w.key) WHERE since.cut_at IS NOT NULL
        ) s
        -- What is carried over comes from all events before.
        CROSS JOIN LATERAL (
            SELECT y.*, s.change FROM billing_internal.stored_measures(i.customer_id, w.meter_id, CASE WHEN m.state IN ('level', 'presence') THEN '-infinity' ELSE l.service_from END,
                l.service_until, s.cut_at, s.version) y
        ) x
        WHERE billing_internal.of_line(x.dimensions, l.dimensions, l.line_by, l.match, i.bill_to, default_bill_to)
        GROUP BY w.meter_id, x.occurred_at, x.event_key, x.event_id, x.value, x.value_key, x.dimensions, x.properties
        HAVING sum(x.change) <> 0
    ) e
    ORDER BY e.occurred_at, e.event_key, e.change LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION billing.invoice_line_events(text, text, int) IS
    'The events that a usage line counted, in order of time, with the value each had on the meter (NULL for a unique count; 1 or 0 where it adds or removes a value): those of its charge, period and dimensions as they stood at the invoice''s cut; also those before the period where a level or what is present goes on; for a compound those of each of its meters. Of a difference: those that came after the cut of the documents the line was billed on before (change 1), and those that no longer count, or not with that value (change −1). Errors: ZB001, ZB002, ZB005 they have been removed.';

CREATE FUNCTION billing_internal.line_notes(of_customer_id bigint, of_invoice_id uuid) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
    SELECT coalesce(jsonb_object_agg(n.key, n.notes), '{}')
    FROM (
        SELECT l.key, (
            SELECT jsonb_agg(x.note ORDER BY x.place) FROM (
                SELECT b.place, CASE WHEN b.place <= 24 THEN format('bucket %s: %s from %s events', to_char(b.at, 'YYYY-MM-DD HH24:MI"Z"'),
                        rtrim(to_char(b.quantity, 'FM999,999,999,999,999,990.999999999999'), '.'), to_char(b.events, 'FM999,999,999,990'))
                    ELSE format('… and %s more buckets', b.buckets - 24) END AS note
                FROM (
                    SELECT c.at, billing_internal.bucket_quantity(m.state, sum(c.events), sum(c.quantity), max(c.quantity), min(c.quantity), count(DISTINCT c.value_key)) AS quantity,
                        sum(c.events) AS events, row_number() OVER (ORDER BY c.at) AS place, count(*) OVER () AS buckets
                    FROM billing_internal.usage_cells(l.customer_id, l.meter_id, l.service_from, l.service_until) c
                    WHERE l.kind = 'usage' AND billing_internal.of_line(c.dimensions, l.dimensions, l.line_by, l.match, i.document->>'bill_to', t.key)
                    GROUP BY c.at
                ) b WHERE b.place <= 25
                UNION ALL
                SELECT 26, format('events: SELECT * FROM billing.invoice_line_events(%L, %L);', coalesce(i.number, i.key), l.key)
            ) x) AS notes
        FROM billing.invoice i
        JOIN billing.invoice_line l USING (customer_id, invoice_id)
        JOIN billing.meter m USING (meter_id)
        CROSS JOIN LATERAL (SELECT billing_internal.contract_bill_to(i.customer_id, i.contract_id, i.n) AS key) t
        WHERE i.customer_id = of_customer_id AND i.invoice_id = of_invoice_id AND coalesce(l.of_kind, l.kind) = 'usage'
    ) n
$$;
COMMENT ON FUNCTION billing_internal.line_notes(bigint, uuid) IS 'Buckets and the way to the events of each usage line, for invoice_explain(); of a difference the way to its events alone.';

CREATE FUNCTION billing.invoice_explain(document jsonb) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF document IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'the document is NULL', 'Pass billing.invoice_preview(…), or an invoice number.');
    END IF;
    PERFORM billing_internal.raise_fault(billing_internal.explain_document_error(d::text)::jsonb)
    FROM jsonb_array_elements(CASE jsonb_typeof(document) WHEN 'array' THEN document ELSE jsonb_build_array(document) END) d;
    RETURN QUERY SELECT t FROM jsonb_array_elements(CASE jsonb_typeof(document) WHEN 'array' THEN document ELSE jsonb_build_array(document) END) d
    CROSS JOIN LATERAL billing_internal.explain_document(d::text, '{}') t;
END
$$;
COMMENT ON FUNCTION billing.invoice_explain(jsonb) IS 'An invoice document (such as a preview) as an indented tree: every line with its quantity, price, working, rounding. Errors: ZB004 NULL, ZB003 not an invoice document.';

CREATE FUNCTION billing.invoice_explain(invoice text) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i record;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT x.customer_id, x.invoice_id, x.document, x.state INTO i FROM billing_internal.find_invoice(invoice) f JOIN billing.invoice x USING (customer_id, invoice_id);
    RETURN QUERY SELECT t FROM billing_internal.explain_document(
        (i.document || jsonb_build_object('status', i.state))::text, billing_internal.line_notes(i.customer_id, i.invoice_id)::text) t;
END
$$;
COMMENT ON FUNCTION billing.invoice_explain(text) IS 'An invoice (by number, key or id) as an indented tree, down to price version, tiers, buckets and the call that lists its events. Errors: ZB001, ZB002.';

-- ── spend ────────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.unbilled_documents(of_customer_id bigint, of_contract_id uuid, from_at timestamptz, as_of timestamptz, with_overdue boolean) RETURNS TABLE (document jsonb, overdue boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    k record;
    pending int[];
    ref billing_internal.bill_ref;
    preview jsonb;
BEGIN
    SELECT * INTO k FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id;
    IF with_overdue THEN
        -- Beside the next bill those of later periods that touch what is asked for; with all between where what is spent decides prices.
        -- Up to a day ahead, since others may have begun later (credit_coverage()).
        pending := ARRAY(SELECT b FROM unnest(billing_internal.pending_boundaries(of_customer_id, of_contract_id, least(as_of - interval '1 microsecond', billing_internal.moment() + interval '1 day'))) b
            WHERE b > k.next_n AND (EXISTS (SELECT FROM billing.contract_term t WHERE t.customer_id = k.customer_id AND t.contract_id = k.contract_id AND t.kind = 'commitment' AND t.until_version IS NULL)
                OR (SELECT billing_internal.local_midnight(p.ends_on, k.time_zone) > from_at FROM billing_internal.calendar_period(k.starts_on, k.ends_on, k.billed_every, k.alignment, b - 1) p)) ORDER BY b);
    END IF;
    IF coalesce(pending, '{}') IN ('{}', '{1}') THEN
        preview := billing.invoice_preview(k.key, as_of);
        RETURN QUERY SELECT d.value, false FROM jsonb_array_elements(CASE jsonb_typeof(preview) WHEN 'array' THEN preview ELSE jsonb_build_array(preview) END) d;
        RETURN;
    END IF;
    ref := billing_internal.ref_now(of_customer_id, of_contract_id, CASE WHEN k.next_n > 0 THEN k.next_n || pending ELSE pending END, as_of);
    RETURN QUERY SELECT d.document, true FROM billing_internal.bill_look(ref || billing_internal.earlier_refs(ARRAY[ref]), true) d;
END
$$;
COMMENT ON FUNCTION billing_internal.unbilled_documents(bigint, uuid, timestamptz, timestamptz, boolean) IS
    'The documents of what a contract has not billed as of an instant: invoice_preview(), or, where periods that ended were not billed yet and one asks for them, one document of those boundaries together (as far as they touch what comes from from_at on; overdue).';

CREATE FUNCTION billing_internal.spend_lines(of_customer_id bigint, from_at timestamptz, until_at timestamptz, as_of timestamptz DEFAULT NULL)
    RETURNS TABLE (line_n bigint, state text, currency text, kind text, meter_id int, charge text, product text, service_from timestamptz, service_until timestamptz,
        dimensions jsonb, line_by text[], match jsonb, bill_to text, default_bill_to text, amount numeric, exact numeric, contract_id uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off -- compiling takes seconds, the work milliseconds
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH document AS (
        SELECT 'billed' AS state, i.document, i.customer_id, i.contract_id, i.n, false AS overdue FROM billing.invoice i
        WHERE i.customer_id = of_customer_id AND i.state NOT IN ('draft', 'void') AND i.pool_id IS NULL AND i.period_starts_at < until_at AND i.period_ends_at > from_at
        UNION ALL
        SELECT 'unbilled', d.document, k.customer_id, k.contract_id, k.next_n, d.overdue
        FROM billing.contract k
        CROSS JOIN LATERAL billing_internal.unbilled_documents(k.customer_id, k.contract_id, from_at, coalesce(as_of, billing.now()), as_of IS NOT NULL) d
        WHERE k.customer_id = of_customer_id AND (k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at IS NOT NULL OR k.state IN ('ended', 'cancelled')
            AND EXISTS (SELECT FROM billing.late_usage n WHERE n.customer_id = k.customer_id AND n.contract_id = k.contract_id AND n.closed_at IS NULL))
    )
    SELECT row_number() OVER (), d.state, d.document->>'currency', coalesce(l->>'corrects_kind', l->>'kind'), m.meter_id, l->>'charge', l->>'product', (l->>'from')::timestamptz, (l->>'until')::timestamptz,
        l->'dimensions', ARRAY(SELECT jsonb_array_elements_text(l->'line_by')), coalesce(l->'match', '{}'), d.document->>'bill_to', CASE WHEN m.meter_id IS NOT NULL THEN billing_internal.contract_bill_to(d.customer_id, d.contract_id, b.n) END, (l->>'amount')::numeric,
        coalesce(l->>'exact', l->>'amount')::numeric, d.contract_id
    FROM document d CROSS JOIN LATERAL jsonb_array_elements(d.document->'lines') l
    LEFT JOIN billing.meter m ON m.key = l->>'meter'
    -- The boundary of arrears, where a document has several.
    CROSS JOIN LATERAL (SELECT coalesce((l->>'boundary')::int, CASE WHEN d.overdue THEN (SELECT p.n + 1 FROM billing.contract k
        CROSS JOIN LATERAL billing_internal.calendar_period_at(k.starts_on, k.ends_on, k.billed_every, k.alignment, ((l->>'from')::timestamptz AT TIME ZONE k.time_zone)::date) p
        WHERE k.customer_id = d.customer_id AND k.contract_id = d.contract_id) ELSE d.n END) AS n) b
    WHERE (l->>'from')::timestamptz < until_at AND (l->>'until')::timestamptz > from_at
        -- Of a boundary that is billed again, what other legal entities were invoiced for it stays.
        AND NOT (d.overdue AND NOT l ? 'boundary' AND EXISTS (SELECT FROM billing.invoice v JOIN billing.bill_to t USING (customer_id, bill_to_id) WHERE v.customer_id = d.customer_id AND v.contract_id = d.contract_id AND v.n = b.n
            AND t.key = d.document->>'bill_to' AND v.kind = 'invoice' AND v.number IS NOT NULL AND v.reissue IS NOT true));
END
$$;
COMMENT ON FUNCTION billing_internal.spend_lines(bigint, timestamptz, timestamptz, timestamptz) IS 'Lines of issued invoices (billed) and of previews as of an instant (unbilled; default billing.now()) that touch a stretch of time, with the amount before it was rounded. Credit that was sold is not spent yet. A difference counts as the line it corrects. With as_of the periods that ended and were not billed yet are there, too (usage and caps: their fees are not told apart).';

CREATE FUNCTION billing.spend(
    customer text, from_at timestamptz, until_at timestamptz, grain text DEFAULT NULL, group_by text[] DEFAULT '{}', filter jsonb DEFAULT '{}', time_zone text DEFAULT NULL
) RETURNS TABLE (starts_at timestamptz, dimensions jsonb, currency text, amount numeric, state text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    of_customer_id bigint;
    zone text;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    SELECT coalesce(spend.time_zone, c.time_zone) INTO zone FROM billing.customer c WHERE c.customer_id = of_customer_id;
    PERFORM billing_internal.check_usage_arguments(from_at, until_at, grain, group_by, filter, zone);
    RETURN QUERY
    WITH line AS MATERIALIZED (
        SELECT * FROM billing_internal.spend_lines(of_customer_id, from_at, until_at)
    ), held AS MATERIALIZED (
        -- Read once for all lines of a meter and service period, and met by what each line is of: of a thousand values there are a thousand lines.
        SELECT s.*, c.*, (SELECT coalesce(jsonb_object_agg(n, c.dimensions->n) FILTER (WHERE c.dimensions ? n), '{}') FROM unnest(s.line_by) n) AS part
        FROM (SELECT DISTINCT l.meter_id, l.service_from, l.service_until, l.line_by FROM line l WHERE l.kind = 'usage') s
        CROSS JOIN LATERAL billing_internal.usage_cells(of_customer_id, s.meter_id, s.service_from, s.service_until) c
    ), cell AS (
        -- Every usage line is split over its (bucket, dimension set) rows in proportion to quantity.
        SELECT l.line_n, c.at, c.dimensions, CASE WHEN m.aggregation IN ('count', 'sum', 'max', 'unique_count') AND m.state <> 'presence'
            THEN billing_internal.bucket_quantity(m.state, sum(c.events), sum(c.quantity), max(c.quantity), min(c.quantity), count(DISTINCT c.value_key)) ELSE sum(c.events) END AS weight
        FROM line l JOIN billing.meter m USING (meter_id)
        JOIN held c ON c.meter_id = l.meter_id AND c.part = l.dimensions AND c.service_from = l.service_from AND c.service_until = l.service_until AND c.line_by IS NOT DISTINCT FROM l.line_by
        WHERE l.kind = 'usage' AND billing_internal.of_line(c.dimensions, l.dimensions, l.line_by, l.match, l.bill_to, l.default_bill_to)
        GROUP BY l.line_n, c.at, c.dimensions, m.aggregation, m.state
    ), split AS (
        SELECT c.line_n, array_agg(c.at ORDER BY c.at, c.dimensions) AS times, jsonb_agg(c.dimensions ORDER BY c.at, c.dimensions) AS sets,
            array_agg(CASE WHEN c.weight > 0 THEN c.weight ELSE 0 END ORDER BY c.at, c.dimensions) AS weights
        FROM cell c GROUP BY c.line_n
    ), part AS (
        SELECT l.line_n, s.times[p.place] AS at, s.sets->(p.place::int - 1) AS dimensions, p.value AS amount
        FROM line l JOIN split s USING (line_n)
        CROSS JOIN LATERAL unnest(billing_internal.allocate_parts(l.amount, s.weights, 6)) WITH ORDINALITY p (value, place)
        UNION ALL
        -- Fees, true-ups and caps fall on the start of their service.
        SELECT l.line_n, l.service_from, '{}', l.amount FROM line l LEFT JOIN split s USING (line_n) WHERE s.line_n IS NULL
    ), kept AS (
        SELECT CASE WHEN grain IS NULL THEN from_at ELSE greatest(date_trunc(grain, p.at, zone), from_at) END AS cell,
            p.dimensions || jsonb_build_object('charge', l.charge, 'product', l.product, 'bill_to', l.bill_to) AS dimensions, l.currency, p.amount, l.state
        FROM part p JOIN line l USING (line_n)
        WHERE p.at >= from_at AND p.at < until_at
    )
    SELECT k.cell, (SELECT coalesce(jsonb_object_agg(g, k.dimensions->g) FILTER (WHERE k.dimensions ? g), '{}') FROM unnest(group_by) g) AS grouped,
        k.currency, sum(k.amount), k.state
    FROM kept k
    WHERE NOT EXISTS (SELECT FROM billing_internal.filter_values(filter) f WHERE (k.dimensions->>f.name = ANY (f.accepted)) IS NOT TRUE)
    GROUP BY k.cell, grouped, k.currency, k.state
    ORDER BY k.cell, grouped, k.currency, k.state;
END
$$;
COMMENT ON FUNCTION billing.spend(text, timestamptz, timestamptz, text, text[], jsonb, text) IS
    'What a customer spent in [from_at, until_at), in money, billed and unbilled: every line split over its buckets and dimensions in proportion to quantity, to 6 decimals so that the parts sum to the line; fees, true-ups and caps fall on the start of their service; late usage and corrections fall on the usage they correct, whichever invoice they are on. grain, filter, time_zone as in usage(); group_by takes dimensions and also charge, product, bill_to. Errors: ZB001, ZB004, ZB007 the next bill can''t be priced (unpriced_usage shows why).';

-- Corrections: what is late or was measured otherwise is billed as total(now) − total(billed), by line (design 2.10).
--
--   ingest and corrections of events note closed boundaries (late_usage); the next bill of the contract compares them:
--   each is computed once more, by the terms it was billed by, beside the documents that stand for it.

-- Plans are kept for the session. Those made while few notes and corrections are there would read all of them when there
-- are many: each look-up is to be by key, one row after another.

CREATE FUNCTION billing_internal.standing(of_customer_id bigint, of_contract_id uuid, of_n int, numbers text[], given_up text[] DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    -- Invoiced for good: open, paid, or void and not to be issued again. A recompute counts what was counted then.
    RETURN coalesce((SELECT jsonb_agg(jsonb_build_object('number', i.number, 'bill_to', i.document->>'bill_to', 'own', i.kind = 'invoice' AND i.n = of_n,
            'given_up', CASE WHEN numbers IS NULL THEN i.state = 'void' ELSE coalesce(i.number = ANY (given_up), false) END, 'lines', (
            SELECT coalesce(jsonb_agg(l.value ORDER BY l.place), '[]') FROM jsonb_array_elements(i.document->'lines') WITH ORDINALITY l (value, place)
            WHERE coalesce((l.value->>'boundary')::int, i.n) = of_n), 'credits', (
            SELECT jsonb_agg(c.value ORDER BY c.place) FROM jsonb_array_elements(CASE jsonb_typeof(i.document->'credits') WHEN 'array' THEN i.document->'credits' ELSE '[]' END) WITH ORDINALITY c (value, place)
            WHERE coalesce((c.value->>'boundary')::int, i.n) = of_n)) ORDER BY array_position(numbers, i.number), i.created_at, i.number)
        FROM billing.invoice i
        WHERE i.customer_id = of_customer_id AND i.contract_id = of_contract_id AND (i.n = of_n AND i.kind = 'invoice' OR i.corrects @> ARRAY[of_n])
            AND CASE WHEN numbers IS NULL THEN i.number IS NOT NULL AND i.reissue IS NOT true ELSE i.number = ANY (numbers) END), '[]')::text;
END
$$;
COMMENT ON FUNCTION billing_internal.standing(bigint, uuid, int, text[], text[]) IS
    'The documents that stand for a boundary, with their lines of it and what those drew from credit: its invoices, and the differences of it on others. With numbers: those documents, whatever became of them, given_up being those that were void already, for good.';

CREATE FUNCTION billing_internal.compared_ref(of_customer_id bigint, of_contract_id uuid, of_n int, credits jsonb DEFAULT NULL) RETURNS billing_internal.bill_ref
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT billing_internal.ref_by(of_customer_id, of_contract_id, ARRAY[of_n],
        -- What is agreed now holds from when it says, also where that was billed otherwise.
        coalesce((SELECT jsonb_build_object('inputs', i.document->'inputs', 'minor_units', i.minor_units) FROM billing.invoice i
                WHERE i.customer_id = of_customer_id AND i.contract_id = of_contract_id AND i.n = of_n AND i.kind = 'invoice' AND i.number IS NOT NULL AND i.reissue IS NOT true
                ORDER BY i.cut_at DESC, i.number LIMIT 1),
            (SELECT p.terms FROM billing.billing_period p WHERE p.customer_id = of_customer_id AND p.contract_id = of_contract_id AND p.n = of_n)) #- '{inputs,contract_version}',
        NULL, true, billing_internal.standing(of_customer_id, of_contract_id, of_n, NULL), credits)
$$;
COMMENT ON FUNCTION billing_internal.compared_ref(bigint, uuid, int, jsonb) IS
    'An earlier boundary to be compared: by the newest version of its contract and otherwise (prices, policies) the terms of its latest invoice that stands (all its legal entities are one bill), or those it was closed by, with the usage of now, beside the documents that stand for it.';

CREATE FUNCTION billing_internal.events_gone(of_customer_id bigint, of_contract_id uuid, of_n int) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    detail text;
BEGIN
    -- Nearly always none were.
    IF NOT EXISTS (SELECT FROM billing.billing_period q JOIN billing.event_retention r ON r.removed_until > q.starts_at
        WHERE q.customer_id = of_customer_id AND q.contract_id = of_contract_id AND q.n = of_n - 1) THEN
        RETURN false;
    END IF;
    PERFORM FROM billing_internal.unbilled_usage(of_customer_id, of_contract_id, ARRAY[of_n]);
    RETURN false;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    IF SQLSTATE NOT LIKE 'ZB%' THEN
        RAISE;
    END IF;
    -- Whatever else is in the way can be mended.
    RETURN coalesce(detail = 'reason events_removed', false);
END
$$;
COMMENT ON FUNCTION billing_internal.events_gone(bigint, uuid, int) IS 'Whether a boundary that was billed or closed can''t be compared any more, since its prices ask for events that retention has removed.';

CREATE FUNCTION billing_internal.late_boundaries(refs billing_internal.bill_ref[]) RETURNS TABLE (customer_id bigint, contract_id uuid, contract text, n int, gone boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    removed boolean := EXISTS (SELECT FROM billing.event_retention r WHERE r.removed_until > '-infinity');
BEGIN
    RETURN QUERY
    WITH noted AS MATERIALIZED (
        SELECT DISTINCT r.customer_id, r.contract_id, k.key, l.n
        FROM billing_internal.each_ref(refs) r
        JOIN billing.late_usage l ON l.customer_id = r.customer_id AND l.contract_id = r.contract_id AND l.closed_at IS NULL
        JOIN billing.billing_period p ON p.customer_id = l.customer_id AND p.contract_id = l.contract_id AND p.n = l.n AND p.state <> 'due'
        JOIN billing.contract k ON k.customer_id = r.customer_id AND k.contract_id = r.contract_id
        WHERE cardinality(r.boundaries) = 0 OR l.n < r.boundaries[1]
    ), checked AS MATERIALIZED (
        SELECT e.*, removed AND billing_internal.events_gone(e.customer_id, e.contract_id, e.n) AS gone FROM noted e
    ), settled AS MATERIALIZED (
        -- What is used earlier is paid first: where credit or a commitment is shared, boundaries after one that is compared, or billed again, may come to something else.
        SELECT f.customer_id, f.contract_id, f.key, p.n FROM (
            SELECT c.customer_id, c.contract_id, c.key, min(c.n) AS n FROM checked c WHERE NOT c.gone GROUP BY c.customer_id, c.contract_id, c.key
            UNION ALL
            SELECT r.customer_id, r.contract_id, k.key, r.boundaries[1] FROM billing_internal.each_ref(refs) r JOIN billing.contract k USING (customer_id, contract_id)
            WHERE r.boundaries[1] > 0 AND k.billed_until > k.next_bill_at
        ) f
        JOIN billing.billing_period p ON p.customer_id = f.customer_id AND p.contract_id = f.contract_id AND p.n > f.n AND p.state <> 'due'
        WHERE EXISTS (SELECT FROM billing.credit_grant g WHERE g.customer_id = f.customer_id)
            OR EXISTS (SELECT FROM billing.contract_term t WHERE t.customer_id = f.customer_id AND t.contract_id = f.contract_id AND t.kind = 'commitment')
    )
    SELECT c.customer_id, c.contract_id, c.key, c.n, c.gone FROM checked c
    UNION
    SELECT s.customer_id, s.contract_id, s.key, s.n, false FROM settled s
    WHERE NOT EXISTS (SELECT FROM checked c WHERE c.customer_id = s.customer_id AND c.contract_id = s.contract_id AND c.n = s.n)
        AND NOT EXISTS (SELECT FROM billing_internal.each_ref(refs) r WHERE r.customer_id = s.customer_id AND r.contract_id = s.contract_id AND s.n = ANY (r.boundaries))
        AND NOT (removed AND billing_internal.events_gone(s.customer_id, s.contract_id, s.n));
END
$$;
COMMENT ON FUNCTION billing_internal.late_boundaries(billing_internal.bill_ref[]) IS
    'The earlier boundaries with open notes, not due themselves, of a batch of bills; gone: what such a one needs has been removed, so it can''t be compared. Where credit or commitments are shared by boundaries, also those billed after one of them, or after one that is billed again.';

CREATE FUNCTION billing_internal.earlier_refs(refs billing_internal.bill_ref[]) RETURNS billing_internal.bill_ref[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(billing_internal.compared_ref(e.customer_id, e.contract_id, e.n)), '{}') FROM billing_internal.late_boundaries(refs) e WHERE NOT e.gone
$$;
COMMENT ON FUNCTION billing_internal.earlier_refs(billing_internal.bill_ref[]) IS 'The earlier boundaries that a batch of bills has to compare, and can.';

CREATE FUNCTION billing_internal.late_note(of_customer_id bigint, of_contract_id uuid, boundaries int[]) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO billing.late_usage (customer_id, contract_id, n, late_usage_id, noted_at)
    SELECT of_customer_id, of_contract_id, b, billing_internal.uuid_v7(), clock_timestamp() FROM (SELECT DISTINCT x AS b FROM unnest(boundaries) x) n
    WHERE NOT EXISTS (SELECT FROM billing.late_usage l WHERE l.customer_id = of_customer_id AND l.contract_id = of_contract_id AND l.n = n.b AND l.closed_at IS NULL)
$$;
COMMENT ON FUNCTION billing_internal.late_note(bigint, uuid, int[]) IS 'Notes boundaries of a contract, to be compared by its next bill. The caller holds the contract''s row.';

CREATE FUNCTION billing_internal.late_open(refs billing_internal.bill_ref[]) RETURNS uuid[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN ARRAY(SELECT l.late_usage_id FROM billing_internal.each_ref(refs) r
        JOIN billing.late_usage l ON l.customer_id = r.customer_id AND l.contract_id = r.contract_id AND l.closed_at IS NULL);
END
$$;
COMMENT ON FUNCTION billing_internal.late_open(billing_internal.bill_ref[]) IS 'The open notes of some contracts. Read before a batch compares: what is noted while it does is for the next bill.';

CREATE FUNCTION billing_internal.late_close(handle bigint, cut timestamptz, notes uuid[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    UPDATE billing.late_usage l SET closed_at = cut
    FROM (SELECT b.customer_id, b.contract_id, max(b.boundary) AS boundary, max(b.fault) AS fault
        FROM billing_internal.bill_outcomes(handle) b GROUP BY b.customer_id, b.contract_id) o
    WHERE o.fault IS NULL AND l.customer_id = o.customer_id AND l.contract_id = o.contract_id AND l.closed_at IS NULL AND l.late_usage_id = ANY (notes) AND (o.boundary IS NULL OR l.n <= o.boundary)
        AND NOT EXISTS (SELECT FROM billing.invoice i WHERE i.customer_id = o.customer_id AND i.contract_id = o.contract_id AND i.n = o.boundary AND i.kind = 'invoice' AND i.number IS NOT NULL
            AND i.reissue IS NOT true AND i.cut_at <> cut);
    -- What stands for a later boundary that is billed again was not settled with this one: the bill after that one does.
    PERFORM billing_internal.late_note(o.customer_id, o.contract_id, ARRAY[o.boundary])
    FROM billing_internal.bill_outcomes(handle) o JOIN billing.contract k ON k.customer_id = o.customer_id AND k.contract_id = o.contract_id AND k.next_bill_at <= k.billed_until
    WHERE o.fault IS NULL AND o.boundary > 0 AND EXISTS (SELECT FROM billing.billing_period p JOIN billing.invoice i ON i.customer_id = p.customer_id AND i.contract_id = p.contract_id AND i.n = p.n
        WHERE p.customer_id = o.customer_id AND p.contract_id = o.contract_id AND p.n > o.boundary AND p.state = 'due' AND i.kind = 'invoice' AND i.number IS NOT NULL AND i.reissue IS NOT true)
        AND EXISTS (SELECT FROM billing.credit_grant g WHERE g.customer_id = o.customer_id);
    -- Left out for want of a price: every bill looks again.
    PERFORM billing_internal.late_note(o.customer_id, o.contract_id, o.left_out) FROM billing_internal.bill_outcomes(handle) o WHERE o.fault IS NULL AND o.left_out <> '{}';
END
$$;
COMMENT ON FUNCTION billing_internal.late_close(bigint, timestamptz, uuid[]) IS
    'Closes those of the given notes that a batch of bills, issued with this cut, has compared; not those of a bill of a boundary for which a legal entity has an invoice already: the next bill has what differs for it. Where credit is shared, a boundary before such a one is noted anew; boundaries with usage that nothing prices are noted again.';

CREATE FUNCTION billing_internal.usage_changed(customer_ids bigint[], from_at timestamptz[], until_at timestamptz[], always boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    INSERT INTO billing.late_usage (customer_id, contract_id, n, late_usage_id, noted_at)
    SELECT b.customer_id, b.contract_id, b.n, billing_internal.uuid_v7(), clock_timestamp()
    FROM (
        SELECT DISTINCT k.customer_id, k.contract_id, p.n + 1 AS n
        FROM unnest(customer_ids, from_at, until_at) u (customer_id, from_at, until_at)
        JOIN billing.contract k ON k.customer_id = u.customer_id AND k.billed_until > u.from_at
        JOIN billing.billing_period p ON p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.starts_at < u.until_at AND p.ends_at > u.from_at
            AND p.starts_at < p.ends_at AND p.ends_at <= k.billed_until
    ) b
    WHERE always OR NOT EXISTS (SELECT FROM billing.late_usage l WHERE l.customer_id = b.customer_id AND l.contract_id = b.contract_id AND l.n = b.n AND l.closed_at IS NULL);
END
$$;
COMMENT ON FUNCTION billing_internal.usage_changed(bigint[], timestamptz[], timestamptz[], boolean) IS
    'Notes every boundary billed or closed whose usage in [from_at, until_at) of a customer may have changed; columns of equal length. Only inserts. The caller holds the customers'' stripes, shared or exclusive, or what it wrote could be billed before it is noted; without them it notes always, since a bill may be about to close the note there is. Usage that is carried over periods changes them until infinity.';

CREATE FUNCTION billing_internal.unbilled_usage(of_customer_id bigint, of_contract_id uuid, boundaries int[], credits jsonb DEFAULT NULL)
    RETURNS TABLE (n int, bill_to text, line_key text, of_kind text, quantity numeric, amount numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    handle bigint;
    main billing_internal.bill_ref := billing_internal.ref_now(of_customer_id, of_contract_id, '{}', billing.now());
BEGIN
    main.credits := unbilled_usage.credits;
    SELECT billing_internal.bill_batch(main || array_agg(billing_internal.compared_ref(of_customer_id, of_contract_id, b, unbilled_usage.credits)), false) INTO handle
    FROM unnest(boundaries) b;
    PERFORM billing_internal.raise_fault(o.fault::jsonb) FROM billing_internal.bill_outcomes(handle) o;
    RETURN QUERY SELECT l.of_n, d.bill_to, l.of_key, l.of_kind, l.quantity, l.amount
    FROM billing_internal.bill_lines(handle) l JOIN billing_internal.bill_documents(handle) d USING (bill, place) ORDER BY l.of_n, d.place, l.line_n;
    PERFORM billing_internal.bill_close(handle);
END
$$;
COMMENT ON FUNCTION billing_internal.unbilled_usage(bigint, uuid, int[], jsonb) IS
    'With credits {"frozen": true} as if there were no more credit than they drew. How boundaries of a contract differ from what stands for them, line by line: quantity in the meter''s unit (NULL or 0 where only the amount changes), amount in the contract''s currency. What can''t be computed is raised.';

-- ── correcting an invoice ────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.changes(i billing_internal.bill_ref, invoice_id uuid, again boolean) RETURNS TABLE (line_key text, billed numeric, corrected numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    of_n int := i.boundaries[1];
    of_bill_to text;
    draft boolean;
BEGIN
    SELECT x.document->>'bill_to', x.state = 'draft' INTO of_bill_to, draft FROM billing.invoice x WHERE x.customer_id = i.customer_id AND x.invoice_id = changes.invoice_id;
    RETURN QUERY
    WITH now AS MATERIALIZED (
        -- Issued again, by the terms of now; else what differs by those it was billed by.
        SELECT l->>'key' AS key, (l->>'amount')::numeric AS amount, NULL::numeric AS difference FROM billing_internal.bill_look(i || CASE WHEN draft THEN billing_internal.earlier_refs(ARRAY[i]) ELSE '{}' END, draft) d,
            jsonb_array_elements(d.document->'lines') l
        WHERE again AND d.bill_to = of_bill_to AND (draft OR NOT l ? 'corrects') AND NOT d.document ? 'kind'
        UNION ALL
        SELECT u.line_key, NULL, u.amount FROM billing_internal.unbilled_usage(i.customer_id, i.contract_id, ARRAY[of_n]) u WHERE NOT again AND u.bill_to = of_bill_to
    ), stands AS MATERIALIZED (
        SELECT CASE WHEN draft THEN l.value->>'key' ELSE coalesce(l.value->>'corrects', l.value->>'key') END AS key, sum((l.value->>'amount')::numeric) AS amount, min(d.place * 100000 + l.place) AS place
        FROM jsonb_array_elements(CASE WHEN again THEN (SELECT jsonb_build_array(x.document) FROM billing.invoice x WHERE x.customer_id = i.customer_id AND x.invoice_id = changes.invoice_id)
            ELSE billing_internal.standing(i.customer_id, i.contract_id, of_n, NULL)::jsonb END) WITH ORDINALITY d (value, place),
            jsonb_array_elements(d.value->'lines') WITH ORDINALITY l (value, place)
        WHERE d.value->>'bill_to' = of_bill_to AND (draft OR NOT (again AND l.value ? 'corrects')) GROUP BY 1
    )
    SELECT coalesce(s.key, n.key), coalesce(s.amount, 0), CASE WHEN again THEN coalesce(n.amount, 0) ELSE coalesce(s.amount, 0) + coalesce(n.difference, 0) END
    FROM stands s FULL JOIN now n ON n.key = s.key ORDER BY s.place, n.key;
END
$$;
COMMENT ON FUNCTION billing_internal.changes(billing_internal.bill_ref, uuid, boolean) IS
    'An invoice''s lines: what was billed for them, on it and by differences since, and what they come to now. again: only what the invoice itself has, against the boundary billed anew; of a draft with the differences on it.';

CREATE FUNCTION billing.invoice_correct(invoice text, method text DEFAULT NULL, reason text DEFAULT NULL, dry_run boolean DEFAULT true)
    RETURNS TABLE (line_key text, billed numeric, corrected numeric, difference numeric, action text, document text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    i record;
    ref billing_internal.bill_ref;
    how text;
    made text;
    net numeric;
    changed boolean;
    keys text[];
    were numeric[];
    become numeric[];
BEGIN
    PERFORM billing_internal.require_installed();
    IF method NOT IN ('replace', 'next_invoice', 'credit_note', 'void_reissue') THEN
        PERFORM billing_internal.fail('ZB004', format('correction method %s is not known', quote_literal(method)), 'Use next_invoice, credit_note or void_reissue; replace for a draft; NULL for policy correction_method.');
    ELSIF dry_run IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'dry_run is NULL', 'Pass true (only look) or false (correct).');
    ELSIF NOT dry_run AND coalesce(trim(reason), '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'a correction needs a reason', 'Say why: reason => ''the meter counted cached tokens''.');
    END IF;
    IF NOT dry_run THEN
        PERFORM billing_internal.require_read_committed();
        PERFORM billing_internal.contract_hold(x.customer_id, x.contract_id) FROM billing_internal.find_invoice(invoice) f JOIN billing.invoice x USING (customer_id, invoice_id);
        PERFORM billing_internal.events_hold(); -- what is noted here was computed here
    END IF;
    SELECT x.* INTO i FROM billing_internal.find_invoice(invoice) f JOIN billing.invoice x USING (customer_id, invoice_id);
    IF i.kind <> 'invoice' THEN
        PERFORM billing_internal.fail('ZB005', format('%s is a %s, which is not corrected itself', i.number, replace(i.kind, '_', ' ')), 'Correct the invoice that has the line; or void this document.');
    ELSIF i.state = 'void' THEN
        PERFORM billing_internal.fail('ZB005', format('invoice %s is void', i.number), 'SELECT number, state FROM billing.invoice; shows what stands.');
    END IF;
    how := CASE WHEN method IS NOT NULL THEN method WHEN i.state = 'draft' THEN 'replace' ELSE coalesce(
        (SELECT p.value FROM billing.contract_policy p WHERE p.customer_id = i.customer_id AND p.contract_id = i.contract_id AND p.name = 'correction_method'),
        (SELECT p.value FROM billing_internal.seller_policies('{correction_method}') p WHERE p.seller_id = i.seller_id)) END;
    IF (how = 'replace') <> (i.state = 'draft') THEN
        PERFORM billing_internal.fail('ZB005', format('invoice %s is %s, so it is not corrected by %s', coalesce(i.number, i.key), i.state, how),
            CASE WHEN i.state = 'draft' THEN 'A draft is replaced.' ELSE 'What was issued is corrected by next_invoice, credit_note or void_reissue.' END);
    END IF;
    -- Whoever issues shuts ingest out.
    IF NOT dry_run AND how IN ('credit_note', 'void_reissue') AND NOT billing_internal.lock_stripe(i.customer_id, '5 seconds') THEN
        PERFORM billing_internal.fail('55P03', format('invoice %s could not be corrected: ingest of its customer never paused for 5 seconds', i.number), 'Try again; or use next_invoice.');
    END IF;

    ref := billing_internal.ref_now(i.customer_id, i.contract_id, ARRAY[i.n]);
    IF how = 'void_reissue' THEN
        ref.standing := '[]';
    END IF;
    SELECT coalesce(array_agg(c.line_key), '{}'), coalesce(array_agg(c.billed), '{}'), coalesce(array_agg(c.corrected), '{}'), coalesce(bool_or(c.billed <> c.corrected), false),
        coalesce(sum(c.corrected - c.billed), 0) INTO keys, were, become, changed, net
    FROM billing_internal.changes(ref, i.invoice_id, how IN ('replace', 'void_reissue')) c;
    IF how = 'credit_note' AND net >= 0 THEN
        how := 'correction';
    ELSIF how = 'credit_note' AND i.total + net + coalesce((SELECT sum(x.total) FROM billing.invoice x WHERE x.customer_id = i.customer_id AND x.credits = i.invoice_id
            AND x.kind = 'credit_note' AND x.reissue IS NOT true), 0) < 0 THEN
        PERFORM billing_internal.fail('ZB005', format('a credit note of %s %s would be more than what is left of invoice %s', trim_scale(-net), i.currency, i.number),
            'Part of it was billed on other invoices; use next_invoice.');
    END IF;

    IF changed AND NOT dry_run THEN
        PERFORM billing_internal.heed_changes();
        CASE how
        WHEN 'replace' THEN
            IF NOT EXISTS (SELECT FROM billing.contract k WHERE k.customer_id = i.customer_id AND k.contract_id = i.contract_id AND k.next_n = i.n AND k.next_bill_at IS NOT NULL) THEN
                PERFORM billing_internal.fail('ZB005', format('draft %s is not of the boundary that is next', i.key), 'SELECT billing.invoice_generate(…); makes the drafts of that one.');
            END IF;
            SELECT b.key INTO made FROM billing_internal.bill(ARRAY[ref], false) b WHERE b.key = i.key;
        WHEN 'next_invoice' THEN
            PERFORM billing_internal.late_note(i.customer_id, i.contract_id, ARRAY[i.n]);
        WHEN 'void_reissue' THEN
            PERFORM billing.invoice_void(i.number, reason, true);
            IF EXISTS (SELECT FROM billing.contract k WHERE k.customer_id = i.customer_id AND k.contract_id = i.contract_id AND k.next_n < i.n) THEN
                PERFORM billing_internal.fail('ZB005', format('invoice %s can''t be issued again: an earlier boundary of its contract is due', i.number), 'CALL billing.bill_run(); first.');
            END IF;
            ref.standing := NULL;
            PERFORM FROM billing_internal.bill(ARRAY[ref], true);
            SELECT x.number INTO made FROM billing.invoice x WHERE x.customer_id = i.customer_id AND x.replaces = i.invoice_id;
        ELSE
            SELECT b.number INTO made FROM billing_internal.bill(ARRAY[billing_internal.ref_now(i.customer_id, i.contract_id, '{}', billing.now())], true,
                compared => ARRAY[billing_internal.compared_ref(i.customer_id, i.contract_id, i.n)], of_invoice => i.invoice_id) b;
            -- Other legal entities may share the difference: the next bill has theirs.
            IF EXISTS (SELECT FROM billing.invoice x WHERE x.customer_id = i.customer_id AND x.contract_id = i.contract_id AND x.n = i.n AND x.bill_to_id <> i.bill_to_id) THEN
                PERFORM billing_internal.late_note(i.customer_id, i.contract_id, ARRAY[i.n]);
            END IF;
        END CASE;
        PERFORM billing_internal.audit('invoice_correct', 'invoice', coalesce(i.number, i.key), i.customer_id, NULL,
            jsonb_strip_nulls(jsonb_build_object('method', how, 'difference', net, 'currency', i.currency, 'document', made)), reason);
    END IF;
    RETURN QUERY SELECT c.key, c.was, c.becomes, c.becomes - c.was, CASE WHEN c.was = c.becomes THEN 'none' ELSE how END, CASE WHEN c.was <> c.becomes THEN made END
    FROM unnest(keys, were, become) WITH ORDINALITY c (key, was, becomes, place) ORDER BY c.place;
END
$$;
COMMENT ON FUNCTION billing.invoice_correct(text, text, text, boolean) IS
    'Corrects an invoice by its exact difference: every line with what was billed for it (on it, and by differences since) and what it comes to with the events and meters of now, by the terms and prices it recorded. A draft is replaced. An issued one by method (NULL = policy correction_method): next_invoice (the contract''s next bill has the difference), credit_note (at once; where more is due, a correction invoice), void_reissue (voided, and its boundary billed again by the terms of now). With dry_run it only looks. document is what was made. Errors: ZB001, ZB002, ZB004 method, no reason, ZB005 the method does not fit its state, void, not an invoice, more credit than is left, above READ COMMITTED, 55P03 ingest never paused or another session holds the contract.';

-- Invoicing: one path from terms and usage to documents, for preview, draft, final and recompute.
--
--   bill_ref[] → bill_batch(): the batch (src/domain/invoicing/batch.rs) asks for contracts, meters, prices,
--                midnights and usage, one statement each, and computes lines, totals, inputs
--              → bill() stores drafts or issues invoices; preview and recompute only look.

CREATE FUNCTION billing_internal.bill_open(customer_ids bigint[], contract_ids uuid[], contracts text[], earlier boolean[], standing text[]) RETURNS bigint
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_open_wrapper';
COMMENT ON FUNCTION billing_internal.bill_open(bigint[], uuid[], text[], boolean[], text[]) IS 'Opens a batch of bills in this backend''s memory: contracts as JSON, which of them are earlier boundaries to be compared, and the documents that stand for them. Returns its handle.';
CREATE FUNCTION billing_internal.bill_meter_ids(handle bigint) RETURNS SETOF int
    LANGUAGE c VOLATILE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'bill_meter_ids_wrapper';
COMMENT ON FUNCTION billing_internal.bill_meter_ids(bigint) IS 'The meters the batch needs.';
CREATE FUNCTION billing_internal.bill_add_meter(handle bigint, meter_id int, definition text) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_add_meter_wrapper';
COMMENT ON FUNCTION billing_internal.bill_add_meter(bigint, int, text) IS 'Gives the batch a version of a meter, in order, all of them.';
CREATE FUNCTION billing_internal.bill_price_keys(handle bigint) RETURNS TABLE (book_id uuid, key text)
    LANGUAGE c VOLATILE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'bill_price_keys_wrapper';
COMMENT ON FUNCTION billing_internal.bill_price_keys(bigint) IS 'The prices whose versions the batch needs.';
CREATE FUNCTION billing_internal.bill_add_version(handle bigint, book_id uuid, key text, price_id uuid, name text, label text, from_at timestamptz, until_at timestamptz,
    pricing text, sha256 text, needs_events boolean, row_count bigint) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bill_add_version_wrapper';
COMMENT ON FUNCTION billing_internal.bill_add_version(bigint, uuid, text, uuid, text, text, timestamptz, timestamptz, text, text, boolean, bigint) IS 'Gives the batch a version of a price, in order; its pricing with its rows if there are at most 64.';
CREATE FUNCTION billing_internal.bill_days(handle bigint) RETURNS TABLE (zone text, day date)
    LANGUAGE c VOLATILE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'bill_days_wrapper';
COMMENT ON FUNCTION billing_internal.bill_days(bigint) IS 'The local days whose midnights the batch needs.';
CREATE FUNCTION billing_internal.bill_add_midnight(handle bigint, zone text, day date, at timestamptz) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_add_midnight_wrapper';
COMMENT ON FUNCTION billing_internal.bill_add_midnight(bigint, text, date, timestamptz) IS 'Gives the batch the instant of a local midnight.';
CREATE FUNCTION billing_internal.bill_stretches(handle bigint) RETURNS TABLE (n int, customer_id bigint, meter_id int, from_at timestamptz, until_at timestamptz, source text,
    recorded_until timestamptz, meter_version int, known_meters text, matches text, dropped text[], bill_to text)
    LANGUAGE c VOLATILE STRICT ROWS 500 AS 'MODULE_PATHNAME', 'bill_stretches_wrapper';
COMMENT ON FUNCTION billing_internal.bill_stretches(bigint) IS 'The stretches of time whose usage the batch needs: source buckets, values, cells, amounts, events or composed; known_meters are the meters with more than one version then; matches limits it, dropped dimensions are summed away; bill_to is the entity of usage that names none.';
CREATE FUNCTION billing_internal.bill_add_usage(handle bigint, stretches int[], dimensions text[], events bigint[], quantities numeric[], amounts text[]) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_add_usage_wrapper';
COMMENT ON FUNCTION billing_internal.bill_add_usage(bigint, int[], text[], bigint[], numeric[], text[]) IS 'Gives the batch usage: columns of equal length, one row per stretch and line dimensions.';
CREATE FUNCTION billing_internal.bill_pending(handle bigint, by_period boolean) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_pending_wrapper';
COMMENT ON FUNCTION billing_internal.bill_pending(bigint, boolean) IS 'Says that a batch is not to be issued, only to tell what usage would draw from credit: right after bill_open(). What adds up in time is asked for over whole service periods; by_period by their kept totals, and not by hour where that leads to the same.';

CREATE FUNCTION billing_internal.bill_hours(handle bigint) RETURNS TABLE (n int, customer_id bigint, meter_id int, from_at timestamptz, until_at timestamptz,
    recorded_until timestamptz, meter_version int, matches text, dropped text[], bill_to text)
    LANGUAGE c VOLATILE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'bill_hours_wrapper';
COMMENT ON FUNCTION billing_internal.bill_hours(bigint) IS 'The stretches of time whose usage the batch needs by hour, since credit may pay for it: cut where what blocks pay for changes. Columns as of bill_stretches().';
CREATE FUNCTION billing_internal.bill_add_hours(handle bigint, stretches int[], at timestamptz[], dimensions text[], quantities numeric[]) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_add_hours_wrapper';
COMMENT ON FUNCTION billing_internal.bill_add_hours(bigint, int[], timestamptz[], text[], numeric[]) IS 'Gives the batch usage by hour: columns of equal length, one row per stretch, hour and dimensions.';
CREATE FUNCTION billing_internal.bill_wanted_rows(handle bigint) RETURNS TABLE (price_id uuid, matches text)
    LANGUAGE c VOLATILE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'bill_wanted_rows_wrapper';
COMMENT ON FUNCTION billing_internal.bill_wanted_rows(bigint) IS 'Rows of large matrices that the usage of the batch can match.';
CREATE FUNCTION billing_internal.bill_add_rows(handle bigint, price_ids uuid[], rows text[]) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_add_rows_wrapper';
COMMENT ON FUNCTION billing_internal.bill_add_rows(bigint, uuid[], text[]) IS 'Gives the batch those of the wanted rows that there are.';
CREATE FUNCTION billing_internal.bill_compute(handle bigint, with_empty boolean) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_compute_wrapper';
COMMENT ON FUNCTION billing_internal.bill_compute(bigint, boolean) IS 'Computes the bills of the batch; with_empty: a bill without lines gives one document all the same.';
CREATE FUNCTION billing_internal.bill_outcomes(handle bigint) RETURNS TABLE (bill int, customer_id bigint, contract_id uuid, boundary int, next_ends_on date, documents int, fault text, left_out int[])
    LANGUAGE c VOLATILE STRICT ROWS 300 AS 'MODULE_PATHNAME', 'bill_outcomes_wrapper';
COMMENT ON FUNCTION billing_internal.bill_outcomes(bigint) IS 'What came of each bill: its boundary, the last day (exclusive) of the billing period after the one that begins there, its number of documents, or the fault that says why there are none; left_out: the boundaries, its own and those compared, with usage that nothing prices.';
CREATE FUNCTION billing_internal.bill_documents(handle bigint) RETURNS TABLE (bill int, place int, customer_id bigint, contract_id uuid, boundary int, bill_to text, minor_units smallint,
    contract_version int, terms_version int, starts_at timestamptz, ends_at timestamptz, total numeric, credits numeric, sha256 text, corrects int[])
    LANGUAGE c VOLATILE STRICT ROWS 300 AS 'MODULE_PATHNAME', 'bill_documents_wrapper';
COMMENT ON FUNCTION billing_internal.bill_documents(bigint) IS 'The documents of the computed bills, one per legal entity with lines, the contract''s own first; starts_at and ends_at are those of its lines (NULL = it has none), credits what credit pays of the total, corrects the boundaries of its differences.';
CREATE FUNCTION billing_internal.bill_lines(handle bigint) RETURNS TABLE (bill int, place int, line_n int, key text, kind text, charge text, product text, meter text,
    label text, from_at timestamptz, until_at timestamptz, dimensions text, line_by text[], matches text, quantity numeric, unit text, price text, pricing text, exact numeric, amount numeric, of_n int, of_key text, of_kind text)
    LANGUAGE c VOLATILE STRICT ROWS 1500 AS 'MODULE_PATHNAME', 'bill_lines_wrapper';
COMMENT ON FUNCTION billing_internal.bill_lines(bigint) IS 'The lines of the documents of the computed bills, in order; of a difference also the boundary, key and kind of the line it corrects.';
CREATE FUNCTION billing_internal.bill_credits(handle bigint) RETURNS TABLE (bill int, place int, credit_n int, boundary int, bill_to text, line_key text, block text, unit text, quantity numeric, amount numeric)
    LANGUAGE c VOLATILE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'bill_credits_wrapper';
COMMENT ON FUNCTION billing_internal.bill_credits(bigint) IS 'What the lines of the computed documents draw from blocks (below 0 = give back), in order; boundary is that of the line where it is an earlier one, unit that of a block that is not in the bill''s currency.';
CREATE FUNCTION billing_internal.bill_document(handle bigint, bill int, place int, status text, number text, issued_on date, due_on date) RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bill_document_wrapper';
COMMENT ON FUNCTION billing_internal.bill_document(bigint, int, int, text, text, date, date) IS 'A document as canonical JSON, with what is known once it is issued; NULLs are left out.';
CREATE FUNCTION billing_internal.bill_terms(handle bigint, bill int) RETURNS text
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_terms_wrapper';
COMMENT ON FUNCTION billing_internal.bill_terms(bigint, int) IS 'By what a bill was computed: {"inputs","minor_units"}, as documents have it.';
CREATE FUNCTION billing_internal.bill_close(handle bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bill_close_wrapper';
COMMENT ON FUNCTION billing_internal.bill_close(bigint) IS 'Closes a batch.';
CREATE FUNCTION billing_internal.explain_document(document text, notes text) RETURNS SETOF text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 20 AS 'MODULE_PATHNAME', 'explain_document_wrapper';
COMMENT ON FUNCTION billing_internal.explain_document(text, text) IS 'An invoice document as an indented tree; notes are more leaves by line key. No rows where explain_document_error() says why.';
CREATE FUNCTION billing_internal.explain_document_error(document text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'explain_document_error_wrapper';
COMMENT ON FUNCTION billing_internal.explain_document_error(text) IS 'Why explain_document() gave no rows.';
CREATE FUNCTION billing_internal.canonical_json(document text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'canonical_json_wrapper';
COMMENT ON FUNCTION billing_internal.canonical_json(text) IS 'Canonical JSON: sorted keys, trimmed numbers. Documents that mean the same have the same bytes.';

-- ── what a bill is computed from ─────────────────────────────────────────────────────────────────

CREATE TYPE billing_internal.bill_ref AS (
    customer_id bigint, contract_id uuid, boundaries int[], usage_until timestamptz, contract_version int, terms_version int,
    recorded_until timestamptz, known_prices jsonb, policies jsonb, minor_units smallint, known_meters jsonb, earlier boolean, standing text, later_prices jsonb,
    credits jsonb, counted text[], beside text[]
);
COMMENT ON TYPE billing_internal.bill_ref IS
    'Which bill: boundaries (arrears of period b−1, advance of period b for each), usage before usage_until; of no boundary: with what changed terms make of service that begins up to then. For a recompute also what was recorded then: versions, cut (recorded_until: measure events, not buckets), prices in play with the ends they had (null = none), policies, minor units, meters with more than one version and how many; NULL = as of now. later_prices: the versions, with their ends, that priced what those did not. earlier: only to be compared with the documents that stand for it; its differences go to the bill of the same contract, which may have no boundary of its own. credits: the blocks as they were opened then; {"frozen": true} = blocks hold only what the documents that stand drew. counted: the documents whose usage counted for commitments; beside: those that were issued with it, of other boundaries.';

CREATE FUNCTION billing_internal.each_ref(refs billing_internal.bill_ref[]) RETURNS SETOF billing_internal.bill_ref
    -- Kept apart from unnest() for its ROWS: the planner must expect a batch, or it joins the parts of a bill row by row.
    LANGUAGE plpgsql IMMUTABLE ROWS 300 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM unnest(refs);
END
$$;
COMMENT ON FUNCTION billing_internal.each_ref(billing_internal.bill_ref[]) IS 'unnest() of a batch of bills.';

CREATE FUNCTION billing_internal.ref_now(customer_id bigint, contract_id uuid, boundaries int[], usage_until timestamptz DEFAULT NULL) RETURNS billing_internal.bill_ref
    LANGUAGE sql IMMUTABLE -- bound when made: inlined, so no search_path
    RETURN ROW(customer_id, contract_id, boundaries, usage_until, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, NULL, NULL, NULL)::billing_internal.bill_ref;
COMMENT ON FUNCTION billing_internal.ref_now(bigint, uuid, int[], timestamptz) IS 'The bill of some boundaries by the terms of now; of none: only corrections.';

CREATE FUNCTION billing_internal.ref_by(customer_id bigint, contract_id uuid, boundaries int[], terms jsonb, recorded_until timestamptz, earlier boolean, standing text, credits jsonb DEFAULT NULL, beside text[] DEFAULT NULL) RETURNS billing_internal.bill_ref
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN ROW(customer_id, contract_id, boundaries, NULL, (terms->'inputs'->>'contract_version')::int, (terms->'inputs'->>'terms_version')::int, recorded_until,
        (SELECT coalesce(jsonb_object_agg(p, terms->'inputs'->'price_ends'->p), '{}') FROM jsonb_array_elements_text(terms->'inputs'->'prices') p WHERE terms IS NOT NULL HAVING terms IS NOT NULL),
        terms->'inputs'->'policies', (terms->>'minor_units')::smallint,
        -- What is computed as of now is measured as meters measure now.
        CASE WHEN recorded_until IS NOT NULL THEN (SELECT coalesce(jsonb_object_agg(m.version[1], m.version[2]::int), '{}')
            FROM (SELECT regexp_match(x, '^(.*)@([0-9]+)$') AS version FROM jsonb_array_elements_text(terms->'inputs'->'meters') x) m) END, earlier, standing,
        CASE WHEN recorded_until IS NOT NULL THEN coalesce(terms->'inputs'->'later_prices', '{}') END,
        CASE WHEN recorded_until IS NOT NULL THEN coalesce(credits, '{"blocks": []}') || '{"opened": true}' ELSE credits END,
        CASE WHEN recorded_until IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(terms->'inputs'->'counted')) END,
        CASE WHEN terms->'inputs' ? 'counted' THEN beside END)::billing_internal.bill_ref;
COMMENT ON FUNCTION billing_internal.ref_by(bigint, uuid, int[], jsonb, timestamptz, boolean, text, jsonb, text[]) IS
    'The bill of some boundaries by recorded terms ({"inputs","minor_units"}: contract version, price versions, policies; NULL = those of now), with the events recorded until an instant, the meters recorded and the credits given (NULL = all there are, measured as now, and the blocks of now).';

CREATE FUNCTION billing_internal.signed_prices(of_customer_id bigint, of_contract_id uuid) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_object_agg(b.key || '/' || p.key || '@' || p.version, NULL)
    FROM billing.contract k
    JOIN billing.billing_period a ON a.customer_id = k.customer_id AND a.contract_id = k.contract_id AND a.n = 0
    JOIN billing.contract_charge h ON h.customer_id = k.customer_id AND h.contract_id = k.contract_id
    JOIN billing.price p ON p.price_book_id = h.price_book_id AND p.key = h.price_key AND p.withdrawn_at IS NULL AND p.recorded_at <= a.recorded_at
    JOIN billing.price_book b ON b.price_book_id = p.price_book_id
    WHERE k.customer_id = of_customer_id AND k.contract_id = of_contract_id AND (k.prices = 'pin' OR 'contract_signature' = coalesce(
        (SELECT c.value FROM billing.contract_policy c WHERE c.customer_id = k.customer_id AND c.contract_id = k.contract_id AND c.name = 'rate_at'),
        (SELECT s.value FROM billing_internal.seller_policies('{rate_at}') s WHERE s.seller_id = k.seller_id)))
$$;
COMMENT ON FUNCTION billing_internal.signed_prices(bigint, uuid) IS
    'Of a contract with the prices of its signature, the list prices it could be signed on, as known_prices: the versions published when it was activated. One published later that begins before the signature changes nothing agreed on. NULL = its prices float.';

CREATE FUNCTION billing_internal.commitment_spend(of_customer_id bigint, of_contract_id uuid, numbers text[], beside text[] DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    RETURN (SELECT jsonb_agg(jsonb_build_object('number', CASE WHEN i.number = ANY (beside) IS NOT TRUE THEN i.number END, 'boundary', i.n, 'bill_to', i.document->>'bill_to', 'credits', i.document->'credits',
            'lines', (SELECT coalesce(jsonb_agg(l.value ORDER BY l.place), '[]') FROM jsonb_array_elements(i.document->'lines') WITH ORDINALITY l (value, place) WHERE l.value ? 'meter'))
            ORDER BY array_position(numbers, i.number), i.created_at, i.number)
        FROM billing.invoice i WHERE i.customer_id = of_customer_id AND i.contract_id = of_contract_id
            AND CASE WHEN numbers IS NULL THEN i.number IS NOT NULL AND i.reissue IS NOT true ELSE i.number = ANY (numbers || beside) END);
END
$$;
COMMENT ON FUNCTION billing_internal.commitment_spend(bigint, uuid, text[], text[]) IS
    'The usage lines on the documents that stand for a contract, of which commitments count what is theirs; with numbers: on those documents, whatever became of them, and on those beside, which had no number yet when they were counted.';

CREATE FUNCTION billing_internal.edge(at timestamptz, zone text) RETURNS json
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    RETURN json_build_array((at AT TIME ZONE zone)::date, at, at <> billing_internal.local_midnight((at AT TIME ZONE zone)::date, zone));
COMMENT ON FUNCTION billing_internal.edge(timestamptz, text) IS 'Where terms begin or end, for a bill: [local day, instant, whether it is inside that day].';

CREATE FUNCTION billing_internal.bill_contracts(refs billing_internal.bill_ref[]) RETURNS TABLE (customer_id bigint, contract_id uuid, document text, earlier boolean, standing text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    today timestamptz := billing.now();
BEGIN
    RETURN QUERY
    WITH seller_policy AS MATERIALIZED (
        SELECT p.seller_id, jsonb_object_agg(p.name, p.value) FILTER (WHERE p.name NOT IN ('co_term', 'credit_on_decrease')) AS policies,
            -- Newer than what was billed before them: said only where they are not the default.
            coalesce(jsonb_object_agg(p.name, p.value) FILTER (WHERE (p.name, p.value) IN (('co_term', 'month'), ('credit_on_decrease', 'none'))), '{}') AS more
        FROM billing_internal.seller_policies('{rounding_mode, rounding_level, proration_basis, minimum_basis, rate_at, tier_continuity, unpriced_usage, co_term, credit_on_decrease}') p
        GROUP BY p.seller_id
    ), block AS MATERIALIZED (
        -- Where boundaries are compared, what they drew may come back to blocks that are used up.
        SELECT o.customer_id, o.grant_id, o.contract_id, o.block::jsonb || jsonb_build_object('key', g.key) AS block
        FROM billing_internal.credit_opened(ARRAY(SELECT DISTINCT r.customer_id FROM unnest(refs) r WHERE (r.credits ? 'blocks') IS NOT TRUE),
            EXISTS (SELECT FROM unnest(refs) r LEFT JOIN billing.contract k USING (customer_id, contract_id) WHERE r.earlier OR r.standing IS NOT NULL OR k.billed_until > k.next_bill_at)) o
        JOIN billing.credit_grant g ON g.customer_id = o.customer_id AND g.grant_id = o.grant_id
    )
    SELECT k.customer_id, k.contract_id, json_build_object(
        'key', k.key, 'customer', c.key, 'seller', s.key, 'currency', k.currency, 'bill_to', coalesce(t.bill_to, b.key), 'purchase_order', t.purchase_order, 'zone', k.time_zone,
        'starts_on', k.starts_on, 'ends_on', e.ends_on, 'ends', CASE WHEN e.ends_at < billing_internal.local_midnight(e.ends_on, k.time_zone) THEN billing_internal.edge(e.ends_at, k.time_zone) END, 'every', k.billed_every, 'alignment', k.alignment,
        'pinned', k.prices = 'pin', 'signed_at', coalesce(k.signed_at, k.starts_at), 'version', v.contract, 'terms_version', v.terms,
        'boundaries', r.boundaries, 'usage_until', nullif(r.usage_until, 'infinity'), 'recorded_until', CASE WHEN r.recorded_until = 'infinity' THEN '9999-12-31 00:00+00' ELSE r.recorded_until END,
        -- A bill that is compared has what it left out, too, where it has a price now.
        'known_prices', coalesce(r.known_prices, CASE WHEN k.prices = 'pin' OR q.policies->>'rate_at' = 'contract_signature' THEN billing_internal.signed_prices(k.customer_id, k.contract_id) END), 'prices_now', coalesce(r.earlier, false), 'later_prices', r.later_prices, 'known_meters', r.known_meters,
        'minor_units', coalesce(r.minor_units, (SELECT u.minor_units FROM billing.currency u WHERE u.code = k.currency
            AND (today AT TIME ZONE k.time_zone)::date >= u.valid_from AND (u.valid_until IS NULL OR (today AT TIME ZONE k.time_zone)::date < u.valid_until))),
        'policies', q.policies,
        'periods', (SELECT json_agg(json_build_array(p.starts_on, p.starts_at, p.ends_on, p.ends_at)) FROM billing.billing_period p
            WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND (p.n = ANY (r.boundaries) OR p.n + 1 = ANY (r.boundaries))),
        'charges', (SELECT json_agg(json_build_object('product', d.key, 'every', h.every, 'meter_id', h.meter_id, 'book_id', h.price_book_id,
                -- Terms that begin or end with the contract hold for all of it.
                'from', CASE WHEN lower(h.valid_during) > k.starts_at THEN billing_internal.edge(lower(h.valid_during), k.time_zone) END,
                'until', CASE WHEN upper(h.valid_during) < coalesce(e.ends_at, 'infinity') THEN billing_internal.edge(upper(h.valid_during), k.time_zone) END,
                'terms', h.terms) ORDER BY h.position, lower(h.valid_during))
            FROM billing.contract_charge h JOIN billing.product d USING (product_id)
            WHERE h.customer_id = k.customer_id AND h.contract_id = k.contract_id AND h.from_version <= v.contract AND (h.until_version IS NULL OR h.until_version > v.contract)),
        'overrides', (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('scope', CASE WHEN o.contract_id IS NOT NULL THEN 'contract' ELSE 'customer' END,
                'meter', m.key, 'charge', o.charge_key, 'match', o.match, 'from', lower(o.valid_during), 'until', upper(o.valid_during))) || o.terms
                ORDER BY o.contract_id IS NULL, m.key, o.charge_key, o.match, lower(o.valid_during))
            FROM billing.price_override o LEFT JOIN billing.meter m USING (meter_id)
            -- Prices agreed with a customer are in the customer's currency.
            WHERE o.customer_id = k.customer_id AND CASE WHEN o.contract_id IS NULL THEN (o.terms ? 'percent_off' OR k.currency = c.currency) AND o.from_version <= v.terms AND (o.until_version IS NULL OR o.until_version > v.terms)
                ELSE o.contract_id = k.contract_id AND o.from_version <= v.contract AND (o.until_version IS NULL OR o.until_version > v.contract) END),
        'commitments', t.commitments, 'spent', CASE WHEN t.postpaid THEN billing_internal.commitment_spend(k.customer_id, k.contract_id, r.counted, r.beside) END,
        'credits', CASE WHEN r.credits ? 'blocks' THEN r.credits ELSE (
            -- Order and mode as they were signed, and where they were amended.
            SELECT jsonb_strip_nulls(jsonb_build_object('blocks', coalesce(o.blocks, '[]'), 'order', d.document->'credit_order', 'mode', d.document->'credit_mode', 'amended', t.credit_terms,
                -- Billed again for some: what stands for the others is settled.
                'held', CASE WHEN r.standing IS NULL AND r.recorded_until IS NULL THEN (SELECT jsonb_agg(DISTINCT y.key) FROM billing.invoice x JOIN billing.bill_to y USING (customer_id, bill_to_id)
                    WHERE x.customer_id = r.customer_id AND x.contract_id = r.contract_id AND x.n = ANY (r.boundaries) AND x.kind = 'invoice' AND x.number IS NOT NULL AND x.reissue IS NOT true) END)) || coalesce(r.credits, '{}')
            FROM billing.contract_version d WHERE d.customer_id = k.customer_id AND d.contract_id = k.contract_id AND d.version = 1
                AND (o.blocks IS NOT NULL OR d.document->>'credit_mode' = 'credit_only' OR t.credit_terms @> '[{"mode": "credit_only"}]')) END
        , 'discounts', t.discounts)::text, coalesce(r.earlier, false), CASE WHEN r.standing IS NOT NULL THEN r.standing
            -- A boundary billed again, which other documents have corrected meanwhile.
            WHEN EXISTS (SELECT FROM billing.invoice i WHERE i.customer_id = r.customer_id AND i.contract_id = r.contract_id AND i.corrects <> '{}'
                AND i.corrects @> r.boundaries AND cardinality(r.boundaries) = 1 AND i.reissue IS NOT true AND i.number IS NOT NULL)
            THEN billing_internal.standing(r.customer_id, r.contract_id, r.boundaries[1], NULL) END
    FROM billing_internal.each_ref(refs) r
    JOIN billing.contract k ON k.customer_id = r.customer_id AND k.contract_id = r.contract_id
    JOIN billing.customer c ON c.customer_id = r.customer_id
    JOIN billing.seller s ON s.seller_id = k.seller_id
    JOIN billing.bill_to b ON b.customer_id = k.customer_id AND b.bill_to_id = k.bill_to_id
    JOIN seller_policy sp ON sp.seller_id = k.seller_id
    CROSS JOIN LATERAL (SELECT coalesce(r.contract_version, k.version) AS contract, coalesce(r.terms_version, c.terms_version) AS terms) v
    LEFT JOIN billing.contract_version cv ON v.contract <> k.version AND cv.customer_id = k.customer_id AND cv.contract_id = k.contract_id AND cv.version = v.contract
    CROSS JOIN LATERAL (SELECT CASE WHEN cv.version IS NULL THEN k.ends_on ELSE cv.ends_on END AS ends_on, CASE WHEN cv.version IS NULL THEN k.ends_at ELSE cv.ends_at END AS ends_at) e
    -- Who is billed, and by which order, as of the boundary.
    CROSS JOIN LATERAL (SELECT coalesce((SELECT max(p.starts_at) FROM billing.billing_period p WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.n = ANY (r.boundaries)), today) AS at) n
    CROSS JOIN LATERAL (
        SELECT json_agg(json_build_object('from', CASE WHEN lower(x.valid_during) > k.starts_at THEN billing_internal.edge(lower(x.valid_during), k.time_zone) END,
                'until', CASE WHEN upper(x.valid_during) < coalesce(e.ends_at, 'infinity') THEN billing_internal.edge(upper(x.valid_during), k.time_zone) END,
                'terms', x.terms) ORDER BY x.position, lower(x.valid_during)) FILTER (WHERE x.kind = 'discount') AS discounts,
            json_agg(json_build_object('terms', x.terms, 'scope', CASE WHEN x.terms->'scope' ? 'windows' THEN billing_internal.credit_scope(x.terms->'scope', k.time_zone) END, 'from', coalesce(lower(x.valid_during), k.starts_at), 'until', upper(x.valid_during),
                'until_on', ((upper(x.valid_during) - interval '1 microsecond') AT TIME ZONE k.time_zone)::date + 1)
                ORDER BY (x.terms->>'priority')::int, x.term_key, lower(x.valid_during)) FILTER (WHERE x.kind = 'commitment') AS commitments,
            bool_or(x.terms->>'kind' = 'postpaid') FILTER (WHERE x.kind = 'commitment') AS postpaid,
            jsonb_agg(jsonb_build_object('from', lower(x.valid_during), 'until', upper(x.valid_during), CASE x.kind WHEN 'credit_mode' THEN 'mode' ELSE 'order' END, x.terms->'value')
                ORDER BY x.kind, lower(x.valid_during)) FILTER (WHERE x.kind IN ('credit_mode', 'credit_order')) AS credit_terms,
            (array_agg(x.terms->>'value' ORDER BY lower(x.valid_during) DESC) FILTER (WHERE x.kind = 'bill_to' AND lower(x.valid_during) <= n.at))[1] AS bill_to,
            (array_agg(x.terms->>'value' ORDER BY lower(x.valid_during) DESC) FILTER (WHERE x.kind = 'purchase_order' AND lower(x.valid_during) <= n.at))[1] AS purchase_order
        FROM billing.contract_term x
        WHERE x.customer_id = k.customer_id AND x.contract_id = k.contract_id AND x.kind IN ('discount', 'commitment', 'bill_to', 'purchase_order', 'credit_mode', 'credit_order')
            AND x.from_version <= v.contract AND (x.until_version IS NULL OR x.until_version > v.contract)
    ) t
    CROSS JOIN LATERAL (SELECT coalesce(r.policies, sp.policies || sp.more || (SELECT jsonb_object_agg(p.name, p.value) FROM billing.contract_policy p
        WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND (sp.policies ? p.name OR p.name IN ('co_term', 'credit_on_decrease'))), sp.policies || sp.more) AS policies) q
    CROSS JOIN LATERAL (SELECT jsonb_agg(b.block ORDER BY b.grant_id) AS blocks FROM block b WHERE b.customer_id = k.customer_id AND coalesce(b.contract_id, k.contract_id) = k.contract_id) o;
END
$$;
COMMENT ON FUNCTION billing_internal.bill_contracts(billing_internal.bill_ref[]) IS 'The contracts of a batch of bills as JSON: header, policies, charges, overrides, commitments, the customer''s credit, fixed instants; and what stands for their boundaries.';

CREATE FUNCTION billing_internal.bill_usage(handle bigint) RETURNS TABLE (stretch int, dimensions text, events bigint, quantity numeric, amounts text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    -- Usage that names the entity of the contract is the same as usage that names none.
    WITH stretch AS MATERIALIZED (
        -- Where buckets and deltas are not true, usage_cells() knows what is.
        SELECT s.n, s.customer_id, s.meter_id, s.from_at, s.until_at, s.recorded_until, s.meter_version, s.known_meters, s.dropped, s.bill_to, s.matches::jsonb AS match, m.aggregation,
            CASE WHEN s.source IN ('buckets', 'values', 'totals') AND NOT isempty(billing_internal.dirty_usage(s.customer_id, s.meter_id, s.from_at, s.until_at)) THEN 'cells'
                WHEN s.source = 'totals' AND NOT EXISTS (SELECT FROM billing.usage_window_kept w WHERE w.customer_id = s.customer_id AND w.meter_id = s.meter_id AND w.starts_at = s.from_at AND w.ends_at = s.until_at AND w.summed) THEN 'buckets'
                ELSE s.source END AS source
        FROM billing_internal.bill_stretches(handle) s JOIN billing.meter m USING (meter_id)
    ), used AS (
        SELECT s.n, s.aggregation, coalesce(u.dimensions, d.dimensions) - s.dropped
                - CASE WHEN coalesce(u.dimensions, d.dimensions)->>'bill_to' = s.bill_to THEN 'bill_to' ELSE '' END AS dimensions, u.events, u.quantity, NULL::uuid AS value_key, NULL::bigint AS place
        FROM stretch s
        CROSS JOIN LATERAL (
            -- A delta that says its dimensions means those, whatever the dictionary has under the id.
            SELECT x.dimension_set_id, x.dimensions, sum(x.events) AS events,
                CASE s.aggregation WHEN 'max' THEN max(x.quantity) WHEN 'min' THEN min(x.quantity) ELSE sum(x.quantity) END AS quantity
            FROM (
                SELECT b.dimension_set_id, NULL::jsonb AS dimensions, b.events, b.quantity FROM billing.usage_bucket b
                WHERE s.source = 'buckets' AND b.customer_id = s.customer_id AND b.meter_id = s.meter_id AND b.bucket_start >= s.from_at AND b.bucket_start < s.until_at
                UNION ALL
                SELECT t.dimension_set_id, NULL, t.events, t.quantity FROM billing.usage_total t
                WHERE s.source = 'totals' AND t.customer_id = s.customer_id AND t.meter_id = s.meter_id AND t.starts_at = s.from_at AND t.ends_at = s.until_at
                UNION ALL
                SELECT d.dimension_set_id, d.dimensions, d.events, d.quantity FROM billing.usage_delta d
                WHERE d.customer_id = s.customer_id AND d.meter_id = s.meter_id AND d.bucket_start >= s.from_at AND d.bucket_start < s.until_at
            ) x GROUP BY x.dimension_set_id, x.dimensions
        ) u
        LEFT JOIN billing.dimension_set d ON d.customer_id = s.customer_id AND d.dimension_set_id = u.dimension_set_id
        WHERE s.source IN ('buckets', 'totals') AND coalesce(u.dimensions, d.dimensions) @> s.match
        UNION ALL
        SELECT s.n, s.aggregation, u.dimensions - s.dropped - CASE WHEN u.dimensions->>'bill_to' = s.bill_to THEN 'bill_to' ELSE '' END, u.events, u.quantity, u.value_key, NULL
        FROM stretch s CROSS JOIN LATERAL billing_internal.usage_cells(s.customer_id, s.meter_id, s.from_at, s.until_at) u
        WHERE s.source IN ('cells', 'values') AND u.dimensions @> s.match
        UNION ALL
        SELECT s.n, s.aggregation, u.dimensions - s.dropped - CASE WHEN u.dimensions->>'bill_to' = s.bill_to THEN 'bill_to' ELSE '' END, CASE WHEN v.n IS NULL OR v.n = 1 THEN u.events ELSE 0 END, u.quantity, v.key, NULL
        FROM stretch s
        CROSS JOIN LATERAL billing_internal.stored_cells(s.customer_id, s.meter_id, s.from_at, s.until_at, s.recorded_until, s.meter_version) u
        LEFT JOIN LATERAL unnest(u.value_keys) WITH ORDINALITY v (key, n) ON true
        WHERE s.source = 'events' AND u.dimensions @> s.match
        UNION ALL
        SELECT s.n, s.aggregation, u.dimensions - s.dropped - CASE WHEN u.dimensions->>'bill_to' = s.bill_to THEN 'bill_to' ELSE '' END, 1, u.value, NULL,
            row_number() OVER (PARTITION BY s.n ORDER BY u.occurred_at, u.event_key)
        FROM stretch s CROSS JOIN LATERAL billing_internal.stored_measures(s.customer_id, s.meter_id, s.from_at, s.until_at, coalesce(s.recorded_until, 'infinity'), s.meter_version) u
        WHERE s.source = 'amounts' AND u.dimensions @> s.match
    )
    SELECT u.n, u.dimensions::text, sum(u.events)::bigint,
        CASE u.aggregation WHEN 'count' THEN sum(u.events) WHEN 'sum' THEN coalesce(sum(u.quantity), 0) WHEN 'max' THEN coalesce(max(u.quantity), 0)
            WHEN 'min' THEN coalesce(min(u.quantity), 0) ELSE count(DISTINCT u.value_key) END,
        -- Single amounts in order of time, where the price needs them, with their places among those of all lines.
        (jsonb_agg(jsonb_build_array(u.place, trim_scale(u.quantity)::text) ORDER BY u.place) FILTER (WHERE u.place IS NOT NULL))::text
    FROM used u GROUP BY u.n, u.dimensions, u.aggregation
    HAVING sum(u.events) <> 0 -- what corrections took back is not there
    UNION ALL
    SELECT s.n, q.dimensions::text, q.events, coalesce(q.quantity, 0), NULL
    FROM stretch s
    JOIN billing.meter m USING (meter_id)
    JOIN billing.meter_version v ON v.meter_id = s.meter_id AND v.version = coalesce(s.meter_version, m.version)
    CROSS JOIN LATERAL billing_internal.usage_quantities(s.customer_id, s.meter_id, s.from_at, s.until_at, NULL, 'UTC',
        ARRAY(SELECT x FROM jsonb_array_elements_text(v.definition->'dimensions') x WHERE x <> ALL (s.dropped)) || 'bill_to'::text, s.match, s.bill_to, s.recorded_until, s.known_meters::jsonb) q
    WHERE s.source = 'composed';
END
$$;
COMMENT ON FUNCTION billing_internal.bill_usage(bigint) IS 'The usage a batch asked for, by stretch and line dimensions.';

CREATE FUNCTION billing_internal.bill_usage_by_hour(handle bigint) RETURNS TABLE (stretch int, at timestamptz, dimensions text, quantity numeric)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH stretch AS MATERIALIZED (
        SELECT s.n, s.customer_id, s.meter_id, s.from_at, s.until_at, s.recorded_until, s.meter_version, s.dropped, s.bill_to, s.matches::jsonb AS match, m.aggregation
        FROM billing_internal.bill_hours(handle) s JOIN billing.meter m USING (meter_id)
    ), used AS (
        SELECT s.n, u.at, u.dimensions, u.events, u.quantity
        FROM stretch s CROSS JOIN LATERAL billing_internal.usage_cells(s.customer_id, s.meter_id, s.from_at, s.until_at) u WHERE s.recorded_until IS NULL
        UNION ALL
        SELECT s.n, u.bucket_start, u.dimensions, u.events, u.quantity
        FROM stretch s CROSS JOIN LATERAL billing_internal.stored_cells(s.customer_id, s.meter_id, s.from_at, s.until_at, s.recorded_until, s.meter_version) u WHERE s.recorded_until IS NOT NULL
    )
    SELECT s.n, h.at, h.dimensions::text, CASE s.aggregation WHEN 'count' THEN sum(u.events) ELSE coalesce(sum(u.quantity), 0) END
    FROM used u JOIN stretch s USING (n)
    -- However wide buckets are, and whether events answer: by the hour, or where it is cut.
    CROSS JOIN LATERAL (SELECT greatest(date_trunc('hour', u.at, 'UTC'), s.from_at) AS at,
        u.dimensions - s.dropped - CASE WHEN u.dimensions->>'bill_to' = s.bill_to THEN 'bill_to' ELSE '' END AS dimensions) h
    WHERE u.dimensions @> s.match
    GROUP BY s.n, s.aggregation, h.at, h.dimensions;
END
$$;
COMMENT ON FUNCTION billing_internal.bill_usage_by_hour(bigint) IS 'The usage a batch asked for by hour, by what lines and blocks look at.';

CREATE FUNCTION billing_internal.bill_batch(refs billing_internal.bill_ref[], with_empty boolean, hypothetical jsonb DEFAULT NULL, pending_by_period boolean DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    handle bigint;
BEGIN
    SELECT billing_internal.bill_open(coalesce(array_agg(c.customer_id), '{}'), coalesce(array_agg(c.contract_id), '{}'), coalesce(array_agg(c.document), '{}'),
        coalesce(array_agg(c.earlier), '{}'), coalesce(array_agg(c.standing), '{}')) INTO handle
    FROM billing_internal.bill_contracts(refs) c;
    IF pending_by_period IS NOT NULL THEN
        PERFORM billing_internal.bill_pending(handle, pending_by_period);
    END IF;
    PERFORM billing_internal.bill_add_meter(handle, v.meter_id, v.definition::text)
    FROM (
        WITH wanted AS MATERIALIZED (SELECT i.meter_id FROM billing_internal.bill_meter_ids(handle) i (meter_id))
        SELECT x.meter_id, x.definition FROM billing.meter_version x WHERE x.meter_id IN (SELECT w.meter_id FROM wanted w UNION
            -- what compounds are made of
            SELECT k.meter_id FROM wanted w JOIN billing.meter m ON m.meter_id = w.meter_id AND m.aggregation = 'compound' JOIN billing.meter_version c ON c.meter_id = w.meter_id
            CROSS JOIN LATERAL billing_internal.compound_parts(c.definition) p JOIN billing.meter k ON k.key = p.meter)
        ORDER BY x.meter_id, x.version) v;
    -- In order of version: sorted last, since a join after it may lose the order.
    PERFORM billing_internal.bill_add_version(handle, p.price_book_id, p.key, p.price_id, p.book || '/' || p.key || '@' || p.version, p.key || '@' || p.version,
        lower(p.valid_during), upper(p.valid_during),
        (CASE WHEN p.row_count = 0 OR p.row_count > 64 THEN p.pricing ELSE billing_internal.pricing_of(p.price_id) END)::text, encode(p.content_hash, 'hex'), p.needs_events, p.row_count::bigint)
    FROM (SELECT x.*, b.key AS book FROM billing_internal.bill_price_keys(handle) i JOIN billing.price x ON x.price_book_id = i.book_id AND x.key = i.key AND x.withdrawn_at IS NULL
        JOIN billing.price_book b ON b.price_book_id = i.book_id
        WHERE hypothetical IS NULL OR NOT EXISTS (SELECT FROM jsonb_array_elements(hypothetical) h WHERE (h->>'book_id')::uuid = x.price_book_id AND h->>'key' = x.key)
        ORDER BY x.price_book_id, x.key, x.version) p;
    IF hypothetical IS NOT NULL THEN
        PERFORM billing_internal.bill_add_version(handle, i.book_id, i.key, '00000000-0000-0000-0000-000000000000', h->>'name', h->>'label', NULL, NULL, h->>'pricing', h->>'sha256', (h->>'needs_events')::boolean, 0)
        FROM billing_internal.bill_price_keys(handle) i JOIN jsonb_array_elements(hypothetical) h ON (h->>'book_id')::uuid = i.book_id AND h->>'key' = i.key;
    END IF;
    PERFORM billing_internal.bill_add_midnight(handle, d.zone, d.day, billing_internal.local_midnight(d.day, d.zone)) FROM billing_internal.bill_days(handle) d;
    PERFORM billing_internal.bill_add_usage(handle, coalesce(array_agg(u.stretch), '{}'), coalesce(array_agg(u.dimensions), '{}'), coalesce(array_agg(u.events), '{}'),
        coalesce(array_agg(u.quantity), '{}'), coalesce(array_agg(u.amounts), '{}'))
    FROM billing_internal.bill_usage(handle) u;
    PERFORM billing_internal.bill_add_hours(handle, coalesce(array_agg(u.stretch), '{}'), coalesce(array_agg(u.at), '{}'), coalesce(array_agg(u.dimensions), '{}'), coalesce(array_agg(u.quantity), '{}'))
    FROM billing_internal.bill_usage_by_hour(handle) u;
    PERFORM billing_internal.bill_add_rows(handle, coalesce(array_agg(r.price_id), '{}'), coalesce(array_agg((r.pricing || jsonb_build_object('match', r.match))::text), '{}'))
    FROM billing_internal.bill_wanted_rows(handle) w JOIN billing.price_row r ON r.price_id = w.price_id AND r.match = w.matches::jsonb;
    PERFORM billing_internal.bill_compute(handle, with_empty);
    RETURN handle;
END
$$;
COMMENT ON FUNCTION billing_internal.bill_batch(billing_internal.bill_ref[], boolean, jsonb, boolean) IS
    'Computes a batch of bills (of each contract at most one, one of no boundary, and any earlier boundaries to compare, whose differences go to the latter if it is there) in this backend''s memory: the batch asks for contracts with their credit, meters, prices, midnights, usage (by hour where credit may pay) and rows of large matrices, in one statement each. Hypothetical prices (hypothetical_prices()) take the place of the versions there are, for all time. pending_by_period: bill_pending(); NULL = to be issued or looked at. Returns its handle, for bill_outcomes(), bill_documents(), bill_lines(), bill_close().';

CREATE FUNCTION billing_internal.bill_apart(refs billing_internal.bill_ref[], with_empty boolean) RETURNS bigint
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    handle bigint := billing_internal.bill_batch(refs, with_empty);
    apart billing_internal.bill_ref[];
BEGIN
    -- What is not due with the boundary isn't beside it. With the last one all is due.
    SELECT array_agg(billing_internal.ref_now(d.customer_id, d.contract_id, '{}', CASE WHEN p.starts_at < p.ends_at THEN p.starts_at END)) INTO apart
    FROM (SELECT DISTINCT b.customer_id, b.contract_id, b.boundary FROM billing_internal.bill_documents(handle) b
        WHERE b.boundary IS NOT NULL AND (b.total < 0 OR b.total < b.credits) AND EXISTS (SELECT FROM unnest(b.corrects) c WHERE c <> b.boundary)) d
    LEFT JOIN billing.billing_period p ON p.customer_id = d.customer_id AND p.contract_id = d.contract_id AND p.n = d.boundary;
    IF apart IS NULL THEN
        RETURN handle;
    END IF;
    PERFORM billing_internal.bill_close(handle);
    RETURN billing_internal.bill_batch(refs || apart, false);
END
$$;
COMMENT ON FUNCTION billing_internal.bill_apart(billing_internal.bill_ref[], boolean) IS
    'As bill_batch(), but neither the total nor what is due for a boundary is ever taken below zero by differences of earlier ones: where it would be, for one legal entity, all differences of the contract come in a bill of their own, without a boundary.';

CREATE FUNCTION billing_internal.document_kind(boundary int, total numeric, credits numeric) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN boundary IS NOT NULL THEN 'invoice' WHEN total < credits OR (total = credits AND total < 0) THEN 'credit_note' ELSE 'correction' END;
COMMENT ON FUNCTION billing_internal.document_kind(int, numeric, numeric) IS 'What a computed document is: without a boundary of its own it only corrects, as a credit note where what is due, or else its total, is in the customer''s favour.';

CREATE FUNCTION billing_internal.bill_look(refs billing_internal.bill_ref[], apart boolean DEFAULT false) RETURNS TABLE (place int, bill_to text, document jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    handle bigint := CASE WHEN apart THEN billing_internal.bill_apart(refs, true) ELSE billing_internal.bill_batch(refs, true) END;
BEGIN
    PERFORM billing_internal.raise_fault(o.fault::jsonb) FROM billing_internal.bill_outcomes(handle) o;
    RETURN QUERY SELECT row_number() OVER (ORDER BY d.boundary IS NULL, d.place)::int, d.bill_to, billing_internal.bill_document(handle, d.bill, d.place, NULL, NULL, NULL, NULL)::jsonb
        || CASE WHEN apart AND d.boundary IS NULL THEN jsonb_build_object('kind', billing_internal.document_kind(d.boundary, d.total, d.credits)) ELSE '{}' END
    FROM billing_internal.bill_documents(handle) d;
    PERFORM billing_internal.bill_close(handle);
END
$$;
COMMENT ON FUNCTION billing_internal.bill_look(billing_internal.bill_ref[], boolean) IS 'The documents of one bill (with the earlier boundaries it corrects; apart: as they would be issued, see bill_apart()), at least one; stores nothing. What can''t be computed is raised.';

-- ── finding ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.find_invoice(invoice text) RETURNS TABLE (customer_id bigint, invoice_id uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    n int;
BEGIN
    RETURN QUERY
    SELECT x.customer_id, x.invoice_id FROM billing.invoice_number x WHERE x.number = invoice
    UNION
    -- The register does not know previews, so that they collide with nobody's.
    SELECT i.customer_id, i.invoice_id FROM billing.invoice i WHERE billing_internal.travelling() AND i.number = invoice
    UNION
    SELECT i.customer_id, i.invoice_id FROM billing.invoice i WHERE i.key = invoice
    UNION
    SELECT i.customer_id, i.invoice_id FROM billing.invoice i
    WHERE i.invoice_id = CASE WHEN invoice ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN invoice::uuid END;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n > 1 THEN
        PERFORM billing_internal.fail('ZB002', format('%s invoices are called %s', n, quote_literal(invoice)),
            'Sellers number apart; name it by its key or id: SELECT key, invoice_id, number FROM billing.invoice;');
    ELSIF n = 0 THEN
        PERFORM billing_internal.fail('ZB001', format('invoice %s is not known', coalesce(quote_literal(invoice), 'NULL')), 'SELECT key, number, state FROM billing.invoice; lists them.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.find_invoice(text) IS 'An invoice by number, key or id. Errors: ZB001, ZB002 more than one is called so: two sellers use the number.';

-- ── storing ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.draft_discard(of_customer_id bigint, of_contract_id uuid, of_n int) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM billing.invoice i WHERE i.customer_id = of_customer_id AND i.contract_id = of_contract_id AND i.n = of_n AND i.state = 'draft'
$$;
COMMENT ON FUNCTION billing_internal.draft_discard(bigint, uuid, int) IS 'Drops the drafts of a boundary, to be made anew. Runs as billing_owner; nothing but drafts can go.';

CREATE FUNCTION billing_internal.fiscal_year(at timestamptz, zone text, starts_in smallint) RETURNS int
    LANGUAGE sql STABLE -- bound when made: inlined, so no search_path
    RETURN (extract(year FROM at AT TIME ZONE zone) - CASE WHEN extract(month FROM at AT TIME ZONE zone) < starts_in THEN 1 ELSE 0 END)::int;
COMMENT ON FUNCTION billing_internal.fiscal_year(timestamptz, text, smallint) IS 'Fiscal year of an instant in a zone, named by the calendar year it begins in.';

CREATE FUNCTION billing_internal.invoice_key(contract text, n int, k bigint, bill_to text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE -- bound when made: inlined, so no search_path
    RETURN contract || '/' || n || CASE WHEN k > 1 THEN '.' || k ELSE '' END || coalesce(':' || replace(replace(bill_to, '%', '%25'), '/', '%2F'), '');
COMMENT ON FUNCTION billing_internal.invoice_key(text, int, bigint, text) IS
    'Key of the k-th invoice of a boundary to a legal entity (NULL = the contract''s own). Keys may hold any of its characters, so none separates; but after the last slash stand only digits, a dot and the legal entity after a colon: two different invoices never have one key.';

CREATE FUNCTION billing_internal.require_past(as_of timestamptz) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
BEGIN
    IF as_of > billing.now() THEN
        PERFORM billing_internal.fail('ZB004', format('%s has not come yet: it is %s', as_of, billing.now()),
            'What has not happened is not billed. billing.invoice_preview(contract, as_of) looks ahead and stores nothing.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.require_past(timestamptz) IS 'Periods are billed once they are over: usage that came after would be on no invoice. Errors: ZB004 the instant is after billing.now().';

CREATE FUNCTION billing_internal.bill(refs billing_internal.bill_ref[], finalize boolean, run uuid DEFAULT NULL, compared billing_internal.bill_ref[] DEFAULT NULL,
    of_invoice uuid DEFAULT NULL)
    RETURNS TABLE (customer_id bigint, contract_id uuid, key text, number text)
    -- Plans are kept for the session. Made while tables are empty they would scan them when they are full.
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    cut timestamptz := clock_timestamp();
    today timestamptz := billing.now();
    who text := billing_internal.caller();
    travels boolean := billing_internal.travelling();
    handle bigint;
    broken record;
    compares billing_internal.bill_ref[];
    notes uuid[];
    -- Of a correction: the boundary and the legal entity it is made for; NULL = the last boundary, all.
    at_n int;
    only_bill_to uuid;
BEGIN
    SELECT i.n, i.bill_to_id INTO at_n, only_bill_to FROM unnest(refs) r JOIN billing.invoice i ON i.customer_id = r.customer_id AND i.invoice_id = of_invoice;
    -- Under the stripes nobody adds to what is billed; what was added before may be in partitions made since.
    PERFORM billing_internal.heed_changes();
    -- 1. In one batch with the earlier boundaries whose usage may have changed. What is noted from here on is compared by the
    -- next bill: a meter that changes notes what it finds without the stripes.
    notes := billing_internal.late_open(refs);
    -- What can't be compared any more holds up nothing: it is told once.
    IF finalize AND compared IS NULL THEN
        FOR broken IN SELECT g.customer_id, g.contract AS key, format('contract %s boundary %s: what changed since it was billed can''t be billed, retention has removed events of its period', g.contract, g.n) AS fault
            FROM billing_internal.late_boundaries(refs) g WHERE g.gone ORDER BY 2, g.n LOOP
            IF run IS NULL THEN
                RAISE WARNING '%', broken.fault USING HINT = 'What is billed stands. Settle the rest outside.';
            ELSE
                INSERT INTO billing.job_issue (job_issue_id, job_run_id, at, customer_id, kind, key, sqlstate, message, detail, hint)
                VALUES (billing_internal.uuid_v7(), run, clock_timestamp(), broken.customer_id, 'late_usage', broken.key, 'ZB005', broken.fault, 'reason events_removed',
                    'What is billed stands. Settle the rest outside.');
            END IF;
        END LOOP;
    END IF;
    IF finalize THEN
        PERFORM billing_internal.bills_seen(ARRAY(SELECT r.customer_id FROM unnest(refs) r));
    END IF;
    compares := coalesce(compared, billing_internal.earlier_refs(refs));
    IF finalize THEN
        -- Whoever else draws from the customers' credit waits, and what is read is what is posted.
        PERFORM FROM billing.credit_block_balance b WHERE b.customer_id = ANY (ARRAY(SELECT DISTINCT r.customer_id FROM unnest(refs) r)) AND (b.open OR compares <> '{}')
        ORDER BY b.customer_id, b.grant_id FOR UPDATE;
    END IF;
    handle := billing_internal.bill_apart(refs || compares, false);
    -- What can't be computed is an issue of the run, or an error where one contract was asked for.
    FOR broken IN SELECT o.customer_id, k.key, o.fault::jsonb AS fault FROM billing_internal.bill_outcomes(handle) o
        JOIN billing.contract k ON k.customer_id = o.customer_id AND k.contract_id = o.contract_id WHERE o.fault IS NOT NULL LOOP
        IF run IS NULL THEN
            PERFORM billing_internal.raise_fault(broken.fault || jsonb_build_object('message', 'contract ' || broken.key || ': ' || (broken.fault->>'message')));
        END IF;
        INSERT INTO billing.job_issue (job_issue_id, job_run_id, at, customer_id, kind, key, sqlstate, message, detail, hint)
        VALUES (billing_internal.uuid_v7(), run, clock_timestamp(), broken.customer_id, 'contract', broken.key, broken.fault->>'code',
            broken.fault->>'message', broken.fault->>'detail', broken.fault->>'hint');
    END LOOP;
    PERFORM billing_internal.draft_discard(i.customer_id, i.contract_id, i.n)
    FROM billing_internal.each_ref(refs) r JOIN billing.invoice i ON i.customer_id = r.customer_id AND i.contract_id = r.contract_id
        AND i.n = r.boundaries[cardinality(r.boundaries)] AND i.state = 'draft';

    -- 2. One invoice per document, in a fixed order. What a legal entity was already invoiced for this boundary stays,
    -- and so does a void that is not to be issued again.
    -- The last lock taken is that of the number series, in order, so that sellers never wait for each other in a circle. A time
    -- travel takes none: its numbers are previews, which no register has.
    RETURN QUERY
    WITH made AS MATERIALIZED (
        SELECT billing_internal.uuid_v7() AS invoice_id, k.key AS contract_key, k.seller_id, k.currency, k.net_days, t.bill_to_id,
            row_number() OVER (PARTITION BY k.seller_id, CASE WHEN d.kind = 'credit_note' THEN 'CN' ELSE s.invoice_series END ORDER BY k.key, t.position, b.bill, b.place) AS place_in_series,
            b.bill, b.place, b.customer_id, b.contract_id, d.boundary, d.kind, b.corrects, b.minor_units, b.contract_version, b.terms_version, b.total, b.credits, b.sha256,
            -- Without lines it only gives back credit, or takes it.
            coalesce(b.starts_at, k.starts_at) AS starts_at, coalesce(b.ends_at, b.starts_at, k.starts_at) AS ends_at,
            (today AT TIME ZONE coalesce(t.time_zone, k.time_zone))::date AS issued_on,
            CASE WHEN d.kind = 'credit_note' THEN 'CN' ELSE s.invoice_series END AS series, billing_internal.fiscal_year(today, s.time_zone, s.fiscal_year_start) AS fiscal_year,
            billing_internal.invoice_key(k.key, d.boundary, v.before + 1, CASE WHEN t.bill_to_id <> k.bill_to_id THEN t.key END) AS key,
            v.replaces
        FROM billing_internal.bill_documents(handle) b
        JOIN billing.contract k ON k.customer_id = b.customer_id AND k.contract_id = b.contract_id
        JOIN billing.seller s ON s.seller_id = k.seller_id
        JOIN billing.bill_to t ON t.customer_id = b.customer_id AND t.key = b.bill_to
        CROSS JOIN LATERAL (
            SELECT coalesce(b.boundary, at_n, (SELECT max(p.n) FROM billing.billing_period p WHERE p.customer_id = b.customer_id AND p.contract_id = b.contract_id AND p.state <> 'due')) AS boundary,
                billing_internal.document_kind(b.boundary, b.total, b.credits) AS kind
        ) d
        CROSS JOIN LATERAL (
            SELECT count(*) AS before, (array_agg(x.invoice_id ORDER BY x.created_at DESC) FILTER (WHERE x.kind = 'invoice' AND d.kind = 'invoice'))[1] AS replaces,
                coalesce(bool_or(x.kind = 'invoice' AND d.kind = 'invoice' AND x.reissue IS NOT true), false) AS stands
            FROM billing.invoice x WHERE x.customer_id = b.customer_id AND x.contract_id = b.contract_id AND x.n = d.boundary AND x.bill_to_id = t.bill_to_id
        ) v
        -- What only corrects is never a draft.
        WHERE NOT v.stands AND (only_bill_to IS NULL OR t.bill_to_id = only_bill_to) AND (finalize OR d.kind = 'invoice')
    ), series AS (
        INSERT INTO billing.invoice_number_series AS x (seller_id, series, fiscal_year, last_number)
        SELECT m.seller_id, m.series, m.fiscal_year, count(*) FROM made m WHERE finalize AND NOT travels GROUP BY m.seller_id, m.series, m.fiscal_year ORDER BY m.seller_id, m.series, m.fiscal_year
        ON CONFLICT (seller_id, series, fiscal_year) DO UPDATE SET last_number = x.last_number + excluded.last_number
        RETURNING x.seller_id, x.series, x.last_number
    ), numbered AS MATERIALIZED (
        -- One seller has one series of invoices and one of credit notes in one fiscal year at a time.
        SELECT m.*, x.last_number - count(*) OVER (PARTITION BY m.seller_id, m.series) + m.place_in_series AS counter,
            CASE WHEN NOT finalize THEN 'draft' WHEN m.total = m.credits THEN 'paid' ELSE 'open' END AS state
        FROM made m LEFT JOIN series x ON x.seller_id = m.seller_id AND x.series = m.series
    ), named AS MATERIALIZED (
        SELECT n.*, CASE WHEN travels AND finalize THEN 'PREVIEW-' || billing_internal.preview_number()
                ELSE n.series || '-' || n.fiscal_year || '-' || lpad(n.counter::text, greatest(6, length(n.counter::text)), '0') END AS number,
            CASE WHEN n.kind <> 'credit_note' THEN n.issued_on + n.net_days END AS due_on
        FROM (SELECT x.* FROM numbered x ORDER BY x.seller_id, x.series, x.place_in_series) n
    ), inserted AS (
        INSERT INTO billing.invoice (customer_id, invoice_id, contract_id, n, seller_id, bill_to_id, kind, key, state, number, currency, minor_units, period_starts_at,
            period_ends_at, issued_on, due_on, lines_total, total, credits_applied, contract_version, terms_version, cut_at, input_sha256, document, created_at, replaces, corrects, credits)
        SELECT n.customer_id, n.invoice_id, n.contract_id, n.boundary, n.seller_id, n.bill_to_id, n.kind, n.key, n.state, n.number, n.currency, n.minor_units,
            n.starts_at, n.ends_at, n.issued_on, coalesce(n.due_on, n.issued_on), n.total, n.total, n.credits, n.contract_version, n.terms_version, cut, n.sha256,
            d.document || CASE WHEN n.kind = 'invoice' THEN '{}' ELSE jsonb_strip_nulls(jsonb_build_object('kind', n.kind,
                -- "credits" is what it credits; where it gives back what was drawn, that.
                CASE WHEN d.document ? 'credits' THEN 'for_invoice' ELSE 'credits' END, (SELECT o.number FROM billing.invoice o WHERE o.customer_id = n.customer_id AND o.invoice_id = of_invoice))) END,
            clock_timestamp(), n.replaces, n.corrects, of_invoice
        FROM named n CROSS JOIN LATERAL (SELECT billing_internal.bill_document(handle, n.bill, n.place, n.state, n.number, n.issued_on, n.due_on)::jsonb AS document) d
    ), lines AS (
        INSERT INTO billing.invoice_line (customer_id, invoice_id, line_n, key, kind, charge_key, product_id, meter_id, label, service_from, service_until, dimensions,
            line_by, match, quantity, unit, price, pricing, exact, amount, of_n, of_key, of_kind)
        SELECT n.customer_id, n.invoice_id, l.line_n, l.key, l.kind, l.charge, p.product_id, m.meter_id, l.label, l.from_at, l.until_at, l.dimensions::jsonb,
            l.line_by, l.matches::jsonb, l.quantity, l.unit, l.price, l.pricing::jsonb, l.exact, l.amount, l.of_n, l.of_key, l.of_kind
        FROM billing_internal.bill_lines(handle) l JOIN named n ON n.bill = l.bill AND n.place = l.place
        LEFT JOIN billing.product p ON p.key = l.product
        LEFT JOIN billing.meter m ON m.key = l.meter
    ), numbers AS (
        INSERT INTO billing.invoice_number (number, seller_id, series, fiscal_year, counter, customer_id, invoice_id)
        SELECT n.number, n.seller_id, n.series, n.fiscal_year, n.counter, n.customer_id, n.invoice_id FROM named n WHERE finalize AND NOT travels
    ), audited AS (
        INSERT INTO billing.audit_log (audit_id, at, actor, action, kind, key, customer_id, before, after, reason, content_hash)
        SELECT a.id, a.at, who, 'invoice_finalize', 'invoice', n.number, n.customer_id, NULL, a.after, NULL,
            billing_internal.audit_hash(a.id, a.at, who, 'invoice_finalize', 'invoice', n.number, n.customer_id, NULL, a.after, NULL)
        FROM named n
        CROSS JOIN LATERAL (SELECT billing_internal.uuid_v7() AS id, clock_timestamp() AS at,
            jsonb_build_object('key', n.key, 'total', n.total, 'currency', n.currency, 'sha256', n.sha256) AS after) a
        WHERE finalize
    )
    SELECT n.customer_id, n.contract_id, n.key, n.number FROM named n;
    IF NOT finalize THEN
        PERFORM billing_internal.bill_close(handle);
        RETURN;
    END IF;

    -- 3. What the documents drew, or gave back.
    PERFORM billing_internal.credits_post(jsonb_agg(jsonb_build_object('customer_id', d.customer_id, 'invoice_id', i.invoice_id, 'contract_id', d.contract_id, 'n', coalesce(c.boundary, i.n),
        'bill_to', c.bill_to, 'line_key', c.line_key, 'grant_id', g.grant_id, 'quantity', c.quantity, 'amount', c.amount, 'occurred_at', today) ORDER BY c.bill, c.place, c.credit_n))
    FROM billing_internal.bill_credits(handle) c
    JOIN billing_internal.bill_documents(handle) d USING (bill, place)
    JOIN billing.bill_to t ON t.customer_id = d.customer_id AND t.key = d.bill_to
    -- Of a document that was not issued, since one stands, nothing is drawn.
    JOIN billing.invoice i ON i.customer_id = d.customer_id AND i.contract_id = d.contract_id AND i.cut_at = cut AND i.bill_to_id = t.bill_to_id AND i.n = coalesce(d.boundary, i.n)
        AND i.kind = billing_internal.document_kind(d.boundary, d.total, d.credits)
    JOIN billing.credit_grant g ON g.customer_id = d.customer_id AND g.key = c.block
    WHERE c.amount <> 0
    HAVING count(*) > 0;

    -- 4. The boundary is billed (or had nothing to bill); the next one is due.
    UPDATE billing.billing_period p SET state = CASE WHEN o.documents = 0 AND NOT EXISTS (SELECT FROM billing.invoice i WHERE i.customer_id = p.customer_id AND i.contract_id = p.contract_id AND i.n = p.n
            AND i.kind = 'invoice' AND i.number IS NOT NULL AND i.reissue IS NOT true) THEN 'closed' ELSE 'billed' END, cut_at = cut,
        terms = CASE WHEN o.documents = 0 AND p.n > 0 THEN billing_internal.bill_terms(handle, o.bill)::jsonb END
    FROM billing_internal.bill_outcomes(handle) o JOIN billing_internal.each_ref(refs) r USING (customer_id, contract_id), unnest(r.boundaries) of_n
    WHERE o.fault IS NULL AND o.boundary IS NOT NULL AND p.customer_id = o.customer_id AND p.contract_id = o.contract_id AND p.n = of_n;
    INSERT INTO billing.billing_period (customer_id, contract_id, n, starts_on, ends_on, starts_at, ends_at, recorded_at)
    SELECT o.customer_id, o.contract_id, last.n + 1, last.ends_on, coalesce(o.next_ends_on, last.ends_on), last.ends_at,
        CASE WHEN o.next_ends_on IS NULL THEN last.ends_at ELSE least(billing_internal.local_midnight(o.next_ends_on, k.time_zone), k.ends_at) END, cut
    FROM billing_internal.bill_outcomes(handle) o
    JOIN billing.contract k ON k.customer_id = o.customer_id AND k.contract_id = o.contract_id
    JOIN billing.billing_period last ON last.customer_id = o.customer_id AND last.contract_id = o.contract_id AND last.n = o.boundary AND last.starts_on < last.ends_on
    WHERE o.fault IS NULL
    ON CONFLICT (customer_id, contract_id, n) DO NOTHING; -- a boundary billed again has its next one
    UPDATE billing.contract k SET next_n = coalesce(due.n, k.next_n + 1), next_bill_at = due.starts_at, billed_until = greatest(k.billed_until, k.next_bill_at),
        state = billing_internal.contract_state(k.customer_id, k.contract_id, k.version, '-infinity', k.cancelled_at, due.n IS NULL)
    FROM billing_internal.bill_outcomes(handle) o
    LEFT JOIN LATERAL (SELECT p.n, p.starts_at FROM billing.billing_period p WHERE p.customer_id = o.customer_id AND p.contract_id = o.contract_id AND p.state = 'due' ORDER BY p.n LIMIT 1) due ON true
    WHERE o.fault IS NULL AND o.boundary IS NOT NULL AND k.customer_id = o.customer_id AND k.contract_id = o.contract_id;
    IF compared IS NULL THEN
        PERFORM billing_internal.late_close(handle, cut, notes);
    END IF;
    PERFORM billing_internal.bill_close(handle);
END
$$;
COMMENT ON FUNCTION billing_internal.bill(billing_internal.bill_ref[], boolean, uuid, billing_internal.bill_ref[], uuid) IS
    'Stores the bills of some contracts (at most one boundary each) as drafts, or issues them. Earlier boundaries that late_usage notes are billed with them, as differences. A bill without a boundary only corrects: those noted, or those given as compared, for the legal entity of one invoice. The caller holds the contracts'' rows; to issue, the customers'' stripes exclusively, too. Faults become issues of the run; without a run they are raised.';

CREATE FUNCTION billing_internal.lock_stripe(customer_id bigint, patience interval) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + patience;
BEGIN
    IF billing_internal.travelling() THEN
        RETURN true;
    END IF;
    LOOP
        IF pg_try_advisory_xact_lock(billing_internal.lock_class('stripe'), billing_internal.stripe_of(customer_id)) THEN
            RETURN true;
        ELSIF clock_timestamp() >= deadline THEN
            RETURN false;
        END IF;
        PERFORM pg_sleep(0.02);
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.lock_stripe(bigint, interval) IS 'Tries for some time to shut ingest of the customer''s stripe out; never queues, so nobody waits behind it. A time travel shuts nobody out.';

CREATE FUNCTION billing.invoice_generate(contract text, as_of timestamptz DEFAULT NULL) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    ref billing_internal.bill_ref;
BEGIN
    PERFORM billing_internal.require_installed();
    PERFORM billing_internal.require_past(as_of);
    PERFORM billing_internal.contract_hold(f.customer_id, f.contract_id) FROM billing_internal.find_contract(contract) f;
    SELECT c.* INTO k FROM billing_internal.find_contract(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    IF k.next_bill_at IS NULL OR k.state NOT IN ('scheduled', 'active', 'paused') THEN
        PERFORM billing_internal.fail('ZB005', format('contract %s is %s and has nothing to bill', k.key, k.state), 'Only live contracts are billed.');
    END IF;
    WHILE k.next_bill_at <= coalesce(as_of, billing.now()) LOOP
        ref := billing_internal.ref_now(k.customer_id, k.contract_id, ARRAY[k.next_n]);
        RETURN QUERY SELECT b.key FROM billing_internal.bill(ARRAY[ref], false) b;
        EXIT WHEN FOUND OR k.next_n > 0;
        -- Without fees in advance nothing can ever stand on boundary 0: it closes, and the next one may be due.
        PERFORM FROM billing_internal.bill(ARRAY[ref], true);
        SELECT * INTO k FROM billing.contract c WHERE c.customer_id = k.customer_id AND c.contract_id = k.contract_id;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing.invoice_generate(text, timestamptz) IS
    'Makes the drafts of a contract''s earliest unbilled boundary, if it is due as of the given instant (default billing.now()), replacing those of before; returns their keys. A draft has no number and can be made anew at any time. Errors: ZB001, ZB002 contract, ZB004 as_of is after billing.now(), ZB005 nothing to bill, ZB007 usage that no price matches, 55P03 another session holds the contract.';

CREATE FUNCTION billing.invoice_finalize(invoice text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    draft record;
    issued text;
BEGIN
    PERFORM billing_internal.require_installed();
    PERFORM billing_internal.require_read_committed();
    SELECT i.* INTO draft FROM billing_internal.find_invoice(invoice) f JOIN billing.invoice i USING (customer_id, invoice_id);
    IF draft.state <> 'draft' THEN
        PERFORM billing_internal.fail('ZB005', format('invoice %s is %s, not a draft', coalesce(draft.number, draft.key), draft.state), 'Only a draft is finalized.');
    END IF;
    -- Whoever drafts, issues or voids holds the contract's row first; the stripe is only tried, so nobody waits in a circle.
    PERFORM billing_internal.contract_hold(draft.customer_id, draft.contract_id);
    IF NOT billing_internal.lock_stripe(draft.customer_id, '5 seconds') THEN
        PERFORM billing_internal.fail('55P03', format('invoice %s could not be finalized: ingest of its customer never paused for 5 seconds', draft.key),
            'Try again; or let the bill run do it.');
    END IF;
    -- Under the lock: is it still the draft of the boundary that is due?
    PERFORM FROM billing.invoice i WHERE i.customer_id = draft.customer_id AND i.invoice_id = draft.invoice_id AND i.state = 'draft';
    IF NOT FOUND OR NOT EXISTS (SELECT FROM billing.contract k WHERE k.customer_id = draft.customer_id AND k.contract_id = draft.contract_id AND k.next_n = draft.n
            AND k.next_bill_at IS NOT NULL) THEN
        PERFORM billing_internal.fail('ZB005', format('draft %s was finalized or replaced meanwhile', draft.key), 'SELECT key, number, state FROM billing.invoice; shows what stands.');
    END IF;
    PERFORM billing_internal.require_past(k.next_bill_at) FROM billing.contract k WHERE k.customer_id = draft.customer_id AND k.contract_id = draft.contract_id;
    SELECT b.number INTO issued FROM billing_internal.bill(
        ARRAY[billing_internal.ref_now(draft.customer_id, draft.contract_id, ARRAY[draft.n])], true) b
    WHERE b.key = draft.key;
    IF issued IS NULL THEN
        PERFORM billing_internal.fail('ZB005', format('draft %s has no lines any more', draft.key), 'Nothing was issued. SELECT billing.invoice_generate(…); shows what is due.');
    END IF;
    RETURN issued;
END
$$;
COMMENT ON FUNCTION billing.invoice_finalize(text) IS
    'Issues a draft: computes it once more with ingest shut out, gives it the next number of its series (and the other legal entities'' documents of the same boundary theirs), and never changes it again. Returns the number. Errors: ZB001, ZB005 not a draft, replaced meanwhile, or above READ COMMITTED, 55P03 ingest never paused for 5 seconds or another session holds the contract, ZB007 usage that no price matches.';

CREATE FUNCTION billing_internal.require_reissuable(of_customer_id bigint, of_invoice_id uuid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i billing.invoice;
    gone boolean;
    detail text;
BEGIN
    SELECT * INTO i FROM billing.invoice x WHERE x.customer_id = of_customer_id AND x.invoice_id = of_invoice_id;
    PERFORM billing_internal.events_hold();
    -- Nearly always nothing was removed.
    IF NOT EXISTS (SELECT FROM billing.event_retention r WHERE r.removed_until > '-infinity') THEN
        RETURN;
    END IF;
    gone := EXISTS (SELECT FROM unnest(i.corrects) n WHERE billing_internal.events_gone(i.customer_id, i.contract_id, n));
    IF NOT gone AND i.kind = 'invoice' THEN
        BEGIN
            PERFORM FROM billing_internal.bill_look(ARRAY[billing_internal.issued_ref(of_customer_id, of_invoice_id, NULL)]);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            IF SQLSTATE NOT LIKE 'ZB%' THEN
                RAISE;
            END IF;
            gone := detail = 'reason events_removed';
        END;
    END IF;
    IF gone THEN
        PERFORM billing_internal.fail('ZB005', format('%s %s can''t be issued again: %s single events, and retention has removed some', replace(i.kind, '_', ' '), i.number,
                CASE WHEN i.corrects <> '{}' THEN 'a price of what it bills or corrects asks for' ELSE 'its price asks for' END),
            format('Void it for good: SELECT billing.invoice_void(''%s'', ''…'', reissue => false);', i.number), 'reason events_removed');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.require_reissuable(bigint, uuid) IS
    'Errors: ZB005 (DETAIL reason events_removed) the boundary of an invoice can''t be billed again, or one that a document corrects can''t be compared again, since its price needs events that retention has removed. Whatever else is in the way can be mended, so it is not asked here. From here on retention waits.';

CREATE FUNCTION billing_internal.require_credit_back(of_customer_id bigint, of_invoice_id uuid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    i billing.invoice;
    short record;
    since text;
BEGIN
    SELECT * INTO i FROM billing.invoice x WHERE x.customer_id = of_customer_id AND x.invoice_id = of_invoice_id;
    -- Nearly always it drew, and gave nothing back.
    SELECT g.grant_id, g.key, -a.amount AS gave, -a.amount - coalesce(g.overdraft, 0) - (b.posted - b.reserved) AS missing INTO short
    FROM (SELECT x.grant_id, sum(x.amount) AS amount FROM billing.credit_allocation x WHERE x.customer_id = of_customer_id AND x.invoice_id = of_invoice_id GROUP BY x.grant_id HAVING sum(x.amount) < 0) a
    JOIN billing.credit_grant g ON g.customer_id = of_customer_id AND g.grant_id = a.grant_id
    JOIN billing.credit_block_balance b ON b.customer_id = of_customer_id AND b.grant_id = a.grant_id
    WHERE b.posted - b.reserved + a.amount < -coalesce(g.overdraft, 0) ORDER BY g.key LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- The latest that together drew as much.
    SELECT string_agg(d.number, ', ' ORDER BY d.before) FILTER (WHERE d.before < short.missing) INTO since
    FROM (SELECT x.number, sum(y.amount) OVER (ORDER BY x.cut_at DESC, x.number DESC) - y.amount AS before, sum(y.amount) OVER () AS drawn
        FROM billing.invoice x CROSS JOIN LATERAL (SELECT sum(z.amount) AS amount FROM billing.credit_allocation z WHERE z.customer_id = x.customer_id AND z.invoice_id = x.invoice_id AND z.grant_id = short.grant_id) y
        WHERE x.customer_id = of_customer_id AND x.invoice_id <> of_invoice_id AND x.state <> 'void' AND x.cut_at >= i.cut_at AND y.amount > 0) d
    WHERE d.drawn >= short.missing;
    PERFORM billing_internal.fail('ZB014', format('%s gave %s back to block %s, of which %s has been drawn since', i.number, trim_scale(short.gave), short.key, trim_scale(short.missing)),
        CASE WHEN since IS NOT NULL THEN format('Void first what drew it: %s.', since)
            ELSE format('Calls drew it, and they stay. Correct the invoice that has the line instead: SELECT * FROM billing.invoice_correct(''%s'');', CASE WHEN i.kind = 'invoice' THEN i.number ELSE (
                SELECT x.number FROM billing.invoice x WHERE x.customer_id = i.customer_id AND x.contract_id = i.contract_id AND x.n = ANY (i.corrects) AND x.bill_to_id = i.bill_to_id AND x.kind = 'invoice' AND x.state <> 'void'
                ORDER BY x.n, x.created_at DESC LIMIT 1) END) END);
END
$$;
COMMENT ON FUNCTION billing_internal.require_credit_back(bigint, uuid) IS 'Errors: ZB014 a document that is to be voided gave credit back that has been drawn since: what drew it is to be voided first.';

CREATE FUNCTION billing.invoice_void(invoice text, reason text, reissue boolean DEFAULT true) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i record;
    credited_by text;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT x.customer_id, x.invoice_id, x.pool_id INTO i FROM billing_internal.find_invoice(invoice) f JOIN billing.invoice x USING (customer_id, invoice_id);
    IF i.pool_id IS NOT NULL THEN
        PERFORM billing_internal.credit_sale_void(i.customer_id, i.invoice_id, reason);
        RETURN;
    END IF;
    PERFORM billing_internal.contract_hold(x.customer_id, x.contract_id) FROM billing_internal.find_invoice(invoice) f JOIN billing.invoice x USING (customer_id, invoice_id);
    SELECT x.* INTO i FROM billing_internal.find_invoice(invoice) f JOIN billing.invoice x USING (customer_id, invoice_id);
    IF NOT (i.state IN ('open', 'uncollectible') OR (i.state = 'paid' AND i.total = i.credits_applied)) THEN
        PERFORM billing_internal.fail('ZB005', format('invoice %s is %s and can''t be voided', coalesce(i.number, i.key), i.state),
            CASE i.state WHEN 'draft' THEN 'A draft has no number; make it anew with billing.invoice_generate().' WHEN 'paid' THEN 'A paid invoice is corrected by a credit note.' ELSE 'It is void already.' END);
    ELSIF coalesce(trim(reason), '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'a void needs a reason', 'Say why: the number stays used for ever.');
    ELSIF invoice_void.reissue IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'reissue is NULL', 'Pass true (its boundary is billed again) or false (the void stands).');
    END IF;
    SELECT x.number INTO credited_by FROM billing.invoice x WHERE x.customer_id = i.customer_id AND x.credits = i.invoice_id AND x.kind = 'credit_note' AND x.state <> 'void' ORDER BY x.number LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('invoice %s has credit note %s and can''t be voided', i.number, credited_by),
            format('Void the credit note first: SELECT billing.invoice_void(''%s'', ''…''); or correct the invoice: SELECT * FROM billing.invoice_correct(''%s'');', credited_by, i.number));
    END IF;
    IF invoice_void.reissue THEN
        PERFORM billing_internal.require_reissuable(i.customer_id, i.invoice_id);
    END IF;
    PERFORM billing_internal.require_credit_back(i.customer_id, i.invoice_id);
    UPDATE billing.invoice x SET state = 'void', voided_at = clock_timestamp(), void_reason = reason, reissue = invoice_void.reissue WHERE x.customer_id = i.customer_id AND x.invoice_id = i.invoice_id;
    -- What it drew goes back, each credit to its own block.
    PERFORM billing_internal.credits_post(jsonb_agg(jsonb_build_object('customer_id', a.customer_id, 'invoice_id', i.invoice_id, 'contract_id', i.contract_id, 'n', a.n, 'bill_to', a.bill_to,
        'line_key', a.line_key, 'grant_id', a.grant_id, 'quantity', -a.quantity, 'amount', -a.amount, 'occurred_at', billing.now(), 'absorbed_from', a.absorbed_from) ORDER BY a.line_key, a.place DESC), true)
    FROM (SELECT x.customer_id, x.n, x.bill_to, x.line_key, x.grant_id, x.absorbed_from, sum(x.quantity) AS quantity, sum(x.amount) AS amount, max(x.place) AS place FROM billing.credit_allocation x
        WHERE x.customer_id = i.customer_id AND x.invoice_id = i.invoice_id GROUP BY x.customer_id, x.n, x.bill_to, x.line_key, x.grant_id, x.absorbed_from HAVING sum(x.amount) <> 0) a
    HAVING count(*) > 0;
    IF invoice_void.reissue THEN
        -- Its differences are unbilled again; and what other legal entities were billed for the boundary may change with it.
        PERFORM billing_internal.late_note(i.customer_id, i.contract_id, i.corrects || ARRAY(SELECT i.n WHERE i.kind = 'invoice' AND EXISTS (SELECT FROM billing.invoice x
            WHERE x.customer_id = i.customer_id AND x.contract_id = i.contract_id AND x.n = i.n AND x.kind = 'invoice' AND x.number IS NOT NULL AND x.reissue IS NOT true)));
    END IF;
    IF invoice_void.reissue AND i.kind = 'invoice' THEN
        UPDATE billing.billing_period p SET state = 'due' WHERE p.customer_id = i.customer_id AND p.contract_id = i.contract_id AND p.n = i.n;
        UPDATE billing.contract k SET next_n = due.n, next_bill_at = due.starts_at, state = CASE WHEN k.state IN ('ended', 'cancelled') THEN 'active' ELSE k.state END
        FROM (SELECT p.n, p.starts_at FROM billing.billing_period p WHERE p.customer_id = i.customer_id AND p.contract_id = i.contract_id AND p.state = 'due' ORDER BY p.n LIMIT 1) due
        WHERE k.customer_id = i.customer_id AND k.contract_id = i.contract_id;
    END IF;
    PERFORM billing_internal.audit('invoice_void', 'invoice', i.number, i.customer_id, jsonb_build_object('state', i.state), jsonb_build_object('state', 'void', 'reissue', invoice_void.reissue), reason);
END
$$;
COMMENT ON FUNCTION billing.invoice_void(text, text, boolean) IS
    'Voids an open invoice or credit note; its number stays used. With reissue its boundary is due again and the next run issues it anew (of a correction or credit note, and of difference lines, the next run bills what is missing then); without, it stays void for good and counts as settled, also when another legal entity''s invoice of that boundary is issued again. One with nothing due (a total of 0, or credit paid it all) can be voided too. What it drew from credit goes back to the blocks it came from; to one that has expired, to expire again. The invoice of credit sold by itself takes the credit with it, and is never issued again. Errors: ZB001, ZB002, ZB004 no reason, ZB005 not open (a paid invoice is corrected by a credit note), it has credit notes, or it is to be issued again and events that its price needs have been removed, ZB014 it gave credit back that has been drawn since, 55P03 another session holds the contract.';

-- Contracts for people: a deal in sentences, and what of it is different between two versions.

CREATE FUNCTION billing.contract_describe(doc jsonb) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plan record;
    of_customer_id bigint;
    known text;
BEGIN
    PERFORM billing_internal.require_installed();
    IF jsonb_typeof(doc) IS DISTINCT FROM 'object' THEN
        PERFORM billing_internal.fail('ZB003', 'the contract document must be an object', 'Pass {"key", "customer", "starts_on", "plan"}.');
    END IF;
    SELECT * INTO plan FROM billing_internal.find_plan(doc->>'plan', 'plan');
    IF doc->>'currency' IS NULL AND plan.document IS NULL THEN
        -- As contract_create() has it; a customer who isn't there yet leaves it open.
        of_customer_id := billing_internal.customer_of(doc->>'customer');
        doc := doc || coalesce((SELECT jsonb_build_object('currency', c.currency) FROM billing.customer c WHERE c.customer_id = of_customer_id), '{}');
    END IF;
    -- List prices as they are now, and what features are, of those that deal and plan name.
    SELECT jsonb_build_object(
        'prices', (SELECT coalesce(jsonb_agg(jsonb_build_object('book', p.book, 'key', p.key, 'pricing', p.pricing)), '[]') FROM (
            SELECT DISTINCT ON (b.key, r.key) b.key AS book, r.key, billing_internal.pricing_of(r.price_id) AS pricing FROM billing.price_book b JOIN billing.price r USING (price_book_id)
            WHERE b.key IN (doc->>'price_book', plan.document->>'price_book') AND r.withdrawn_at IS NULL AND r.valid_during @> billing.now()
                AND to_jsonb(r.key) IN (SELECT jsonb_path_query(jsonb_build_array(doc, plan.document), '$.**.price')) ORDER BY b.key, r.key, r.version DESC) p),
        'features', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('key', f.key, 'kind', f.kind, 'unit', f.unit))), '[]') FROM billing.feature f
            WHERE to_jsonb(f.key) IN (SELECT jsonb_path_query(jsonb_build_array(doc, plan.document), '$.**.feature')))) INTO known;
    PERFORM billing_internal.raise_fault(billing_internal.contract_describe_error(doc::text, plan.document::text, known)::jsonb);
    RETURN QUERY SELECT s FROM billing_internal.contract_describe(doc::text, plan.document::text, known) s;
END
$$;
COMMENT ON FUNCTION billing.contract_describe(jsonb) IS
    'A contract document in English: one sentence a term, with its amounts (of list prices those of now) and dates (the last day is named). billing.contract_describe(billing.contract_document(''acme-2026'')) tells a contract that runs. Errors: ZB003 form, with the JSON path, ZB001 plan.';

CREATE FUNCTION billing.contract_diff(contract text, from_version int, until_version int DEFAULT NULL)
    RETURNS TABLE (kind text, item text, change text, before jsonb, after jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    missing int;
    was jsonb;
    is_now jsonb;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT c.customer_id, c.contract_id, c.key, c.version INTO k FROM billing_internal.find_contract(contract) f JOIN billing.contract c USING (customer_id, contract_id);
    SELECT v INTO missing FROM unnest(ARRAY[from_version, coalesce(until_version, k.version)]) v WHERE v IS NULL OR v NOT BETWEEN 1 AND k.version LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB004', format('contract %s has no version %s', k.key, coalesce(missing::text, 'NULL')), format('It has versions 1 to %s.', k.version));
    END IF;
    was := billing_internal.timeline(billing_internal.contract_changes(k.customer_id, k.contract_id, from_version));
    is_now := billing_internal.timeline(billing_internal.contract_changes(k.customer_id, k.contract_id, coalesce(until_version, k.version)));
    RETURN QUERY SELECT d.kind, d.item, d.change, d.before_terms::jsonb, d.after_terms::jsonb FROM billing_internal.contract_diff(was::text, is_now::text) d;
END
$$;
COMMENT ON FUNCTION billing.contract_diff(text, int, int) IS
    'What a version of a contract says otherwise than an earlier one (default: its newest): each item that is added, removed or changed, with all its stretches before and after ({"from", "until", "terms"}, local dates, until exclusive and absent where it ends with the contract), and facts of the whole contract (kind contract: ends_on, renewal, …). Errors: ZB001, ZB002, ZB004 a version that is not there.';

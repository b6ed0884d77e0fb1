-- Contracts, third part: prices on live contracts. What a price would bill is asked of the bills themselves.

CREATE FUNCTION billing_internal.read_prices(doc jsonb) RETURNS TABLE (book text, key text, path text, price jsonb, pricing_sha256 text, needs_events boolean)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    items jsonb;
    other text;
BEGIN
    SELECT k INTO other FROM jsonb_object_keys(CASE jsonb_typeof(doc) WHEN 'object' THEN doc ELSE '{}' END) k WHERE k <> 'price_books' LIMIT 1;
    IF jsonb_typeof(doc) IS DISTINCT FROM 'object' OR other IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB003', CASE WHEN other IS NULL THEN 'the document must be an object' ELSE format('%s: only price_books are read here', other) END,
            'Pass {"price_books": [{"key", "prices": [{"key", "meter", "pricing"}]}]}; billing.catalog_apply() takes the rest.');
    END IF;
    items := billing_internal.catalogue_items(doc::text)::jsonb;
    IF items IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.catalogue_items_error(doc::text)::jsonb);
    END IF;
    SELECT i->>'path' INTO other FROM jsonb_array_elements(items) i WHERE (i->>'retired')::boolean OR i->>'valid_from' IS NOT NULL LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB003', format('%s: retired and valid_from are not read here', other), 'Give the pricing alone; billing.catalog_apply() retires, and publishes at instants of your own.');
    END IF;
    RETURN QUERY SELECT i->>'parent', i->>'key', i->>'path', i->'document', i->>'pricing_sha256', (i->>'needs_events')::boolean FROM jsonb_array_elements(items) i WHERE i->>'kind' = 'price';
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB003', 'the document holds no price', 'Pass {"price_books": [{"key", "prices": [{"key", "meter", "pricing"}]}]}.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.read_prices(jsonb) IS 'The prices of a catalogue part that holds price books only. Errors: ZB003.';

CREATE FUNCTION billing_internal.hypothetical_prices(doc jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    found_price record;
    prices jsonb := '[]';
BEGIN
    FOR p IN SELECT * FROM billing_internal.read_prices(doc) LOOP
        SELECT b.price_book_id, m.key AS meter, m.definition INTO found_price FROM billing.price_book b JOIN billing.price x USING (price_book_id) JOIN billing.meter m USING (meter_id)
        WHERE b.key = p.book AND x.key = p.key AND x.withdrawn_at IS NULL LIMIT 1;
        IF found_price.price_book_id IS NULL THEN
            PERFORM billing_internal.fail('ZB001', format('%s: price book %s has no price %s', p.path, quote_literal(p.book), quote_literal(p.key)),
                'No contract uses it, so it would bill nothing. SELECT key FROM billing.price; lists prices; billing.catalog_apply() makes new ones.');
        ELSIF found_price.meter <> p.price->>'meter' THEN
            PERFORM billing_internal.fail('ZB005', format('%s.meter: price %s is for meter %s', p.path, p.key, found_price.meter), 'Give the price for its own meter.');
        END IF;
        PERFORM billing_internal.raise_fault(billing_internal.charge_error(
            jsonb_build_object('key', p.key, 'product', 'any', 'meter', found_price.meter, 'price', p.key)::text, found_price.definition::text, (p.price->'pricing')::text, '[]')::jsonb);
        prices := prices || jsonb_build_object('book_id', found_price.price_book_id, 'book', p.book, 'key', p.key, 'name', p.book || '/' || p.key || '@new', 'label', p.key || '@new',
            'pricing', p.price->'pricing', 'sha256', p.pricing_sha256, 'needs_events', p.needs_events);
    END LOOP;
    RETURN prices;
END
$$;
COMMENT ON FUNCTION billing_internal.hypothetical_prices(jsonb) IS 'The prices of a document as bill_batch() takes them in the place of those there are. Errors: ZB001 no such price, ZB003 form, or it doesn''t fit its meter, ZB005 another meter.';

CREATE FUNCTION billing_internal.boundary_ref(of_customer_id bigint, of_contract_id uuid, of_n int, usage_until timestamptz) RETURNS billing_internal.bill_ref
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT billing_internal.issued_ref(i.customer_id, i.invoice_id, NULL) FROM billing.invoice i
            WHERE i.customer_id = of_customer_id AND i.contract_id = of_contract_id AND i.n = of_n AND i.kind = 'invoice' AND i.state NOT IN ('draft', 'void') ORDER BY i.cut_at DESC, i.invoice_id LIMIT 1),
        jsonb_populate_record(NULL::billing_internal.bill_ref, jsonb_build_object('customer_id', of_customer_id, 'contract_id', of_contract_id, 'boundaries', ARRAY[of_n], 'usage_until', usage_until)))
$$;
COMMENT ON FUNCTION billing_internal.boundary_ref(bigint, uuid, int, timestamptz) IS 'The bill of a boundary with the usage known today: by the terms of its invoice, or else by those of today.';

CREATE FUNCTION billing_internal.compare_bills(refs billing_internal.bill_ref[], hypothetical jsonb)
    RETURNS TABLE (customer_id bigint, contract_id uuid, boundary int, current_amount numeric, new_amount numeric, problem text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    names jsonb := (SELECT jsonb_object_agg(h->>'name', NULL) FROM jsonb_array_elements(hypothetical) h);
    batch record;
    handles bigint[];
BEGIN
    -- A batch holds one bill of a contract.
    FOR batch IN
        SELECT array_agg(x.ref ORDER BY x.place) AS refs,
            array_agg(jsonb_populate_record(x.ref, jsonb_build_object('known_prices', coalesce((x.ref).known_prices, billing_internal.signed_prices((x.ref).customer_id, (x.ref).contract_id)) || names)) ORDER BY x.place) AS new_refs
        FROM (SELECT y.ref, y.rank, row_number() OVER (PARTITION BY y.rank ORDER BY (y.ref).customer_id, (y.ref).contract_id) AS place FROM (
            SELECT r AS ref, row_number() OVER (PARTITION BY (r).customer_id, (r).contract_id ORDER BY (r).boundaries[1]) AS rank FROM unnest(refs) r) y) x
        GROUP BY x.rank, (x.place - 1) / 500
    LOOP
        handles := ARRAY[billing_internal.bill_batch(batch.refs, true), billing_internal.bill_batch(batch.new_refs, true, hypothetical)];
        RETURN QUERY
        SELECT r.customer_id, r.contract_id, r.boundaries[1],
            (SELECT sum(d.total) FROM billing_internal.bill_documents(handles[1]) d WHERE d.bill = was.bill), (SELECT sum(d.total) FROM billing_internal.bill_documents(handles[2]) d WHERE d.bill = will.bill),
            coalesce(was.fault, will.fault)::jsonb->>'message'
        FROM unnest(batch.refs) r
        JOIN billing_internal.bill_outcomes(handles[1]) was ON was.customer_id = r.customer_id AND was.contract_id = r.contract_id
        JOIN billing_internal.bill_outcomes(handles[2]) will ON will.customer_id = r.customer_id AND will.contract_id = r.contract_id;
        PERFORM billing_internal.bill_close(h) FROM unnest(handles) h;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.compare_bills(billing_internal.bill_ref[], jsonb) IS
    'What bills come to, fees included, by the prices there are and with others in their place for the whole period: both on the usage known today. NULL with the problem where one can''t be computed.';

CREATE TYPE billing.backtest AS (customer text, contract text, currency text, periods bigint, current_amount numeric, backtested_amount numeric, difference numeric, problem text);
COMMENT ON TYPE billing.backtest IS 'A row of billing.price_backtest(): a contract, how many periods were looked at, what they come to by its prices and by the given ones, and what could not be computed.';

COMMENT ON COLUMN billing.backtest.customer IS 'Key of the customer.';
COMMENT ON COLUMN billing.backtest.contract IS 'Key of the contract.';
COMMENT ON COLUMN billing.backtest.currency IS 'Currency of the amounts.';
COMMENT ON COLUMN billing.backtest.periods IS 'How many billing periods were looked at, those with a problem, too.';
COMMENT ON COLUMN billing.backtest.current_amount IS 'What they come to by the contract''s prices, fees included, without those that have a problem.';
COMMENT ON COLUMN billing.backtest.backtested_amount IS 'What the same come to with the given prices.';
COMMENT ON COLUMN billing.backtest.difference IS 'backtested_amount less current_amount.';
COMMENT ON COLUMN billing.backtest.problem IS 'Why one of them can''t be computed; NULL = all can.';

CREATE FUNCTION billing.price_backtest(doc jsonb, from_at timestamptz, until_at timestamptz, customer text DEFAULT NULL)
    RETURNS SETOF billing.backtest -- a type of its own, since an argument is called customer, too
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    given jsonb;
    of_customer_id bigint;
    refs billing_internal.bill_ref[];
    right_now timestamptz := billing.now();
BEGIN
    PERFORM billing_internal.require_installed();
    IF from_at IS NULL OR until_at IS NULL OR NOT (isfinite(from_at) AND isfinite(until_at) AND from_at < until_at) THEN
        PERFORM billing_internal.fail('ZB004', 'from_at must be before until_at', 'The billing periods whose first day is in [from_at, until_at) are computed.');
    END IF;
    given := billing_internal.hypothetical_prices(doc);
    IF price_backtest.customer IS NOT NULL THEN
        of_customer_id := billing_internal.find_customer(price_backtest.customer);
    END IF;
    SELECT array_agg(billing_internal.boundary_ref(k.customer_id, k.contract_id, p.n + 1, CASE WHEN p.ends_at > right_now THEN right_now END)) INTO refs
    FROM billing.contract k
    CROSS JOIN LATERAL (
        SELECT c.n, c.starts_on, billing_internal.local_midnight(c.starts_on, k.time_zone) AS starts_at, billing_internal.local_midnight(c.ends_on, k.time_zone) AS ends_at
        FROM billing_internal.calendar_period_at(k.starts_on, k.ends_on, k.billed_every, k.alignment, greatest(k.starts_on, (from_at AT TIME ZONE 'UTC')::date)) first
        CROSS JOIN LATERAL billing_internal.calendar_period_at(k.starts_on, k.ends_on, k.billed_every, k.alignment, least(k.ends_on - 1, (least(until_at, right_now + interval '1 day') AT TIME ZONE 'UTC')::date)) last
        CROSS JOIN LATERAL generate_series(first.n, last.n) g
            CROSS JOIN LATERAL billing_internal.calendar_period(k.starts_on, k.ends_on, k.billed_every, k.alignment, g) c
    ) p
    WHERE (of_customer_id IS NULL OR k.customer_id = of_customer_id) AND k.state IN ('scheduled', 'active', 'paused', 'ended', 'cancelled')
        AND EXISTS (SELECT FROM billing.contract_charge h JOIN jsonb_array_elements(given) x ON h.price_book_id = (x->>'book_id')::uuid AND h.price_key = x->>'key'
            WHERE h.customer_id = k.customer_id AND h.contract_id = k.contract_id AND h.until_version IS NULL)
        -- As for prices: 00:00 UTC of the first day suits all zones.
        AND p.starts_on::timestamp AT TIME ZONE 'UTC' >= from_at AND p.starts_on::timestamp AT TIME ZONE 'UTC' < until_at AND p.starts_at < right_now;
    RETURN QUERY
    SELECT c.key, k.key, k.currency, count(*)::bigint, sum(b.current_amount) FILTER (WHERE b.problem IS NULL), sum(b.new_amount) FILTER (WHERE b.problem IS NULL),
        sum(b.new_amount - b.current_amount) FILTER (WHERE b.problem IS NULL), min(b.problem)
    FROM billing_internal.compare_bills(refs, given) b
    JOIN billing.customer c ON c.customer_id = b.customer_id
    JOIN billing.contract k ON k.customer_id = b.customer_id AND k.contract_id = b.contract_id
    GROUP BY c.key, k.key, k.currency ORDER BY c.key, k.key;
END
$$;
COMMENT ON FUNCTION billing.price_backtest(jsonb, timestamptz, timestamptz, text) IS
    'What the prices of {"price_books": [{"key", "prices"}]} would have billed for real usage: of every contract that uses them, pinned ones too, the bills (fees included) of the billing periods whose first day, at 00:00 UTC, is in [from_at, until_at), now and with these prices in the place of theirs for the whole period; of the running period the usage until billing.now(). Amounts are in the contract''s currency; a period that can''t be computed is left out of them and named in problem. Changes nothing. Errors: ZB001 customer or price, ZB003 form, ZB004 instants, ZB005 another meter.';

CREATE FUNCTION billing_internal.price_users(changed jsonb, effective_at timestamptz) RETURNS TABLE (customer_id bigint, contract_id uuid, effect text, prices text[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH signature AS MATERIALIZED (SELECT p.seller_id, p.value FROM billing_internal.seller_policies('{rate_at}') p)
    SELECT u.customer_id, u.contract_id, (array_agg(u.effect ORDER BY array_position('{affected,overridden,pinned}', u.effect)))[1],
        coalesce(array_agg(u.price ORDER BY u.price) FILTER (WHERE u.effect = 'affected'), array_agg(u.price ORDER BY u.price))
    FROM (
        SELECT DISTINCT h.customer_id, h.contract_id, x.price, CASE
            WHEN k.prices = 'pin' OR coalesce((SELECT c.value FROM billing.contract_policy c WHERE c.customer_id = k.customer_id AND c.contract_id = k.contract_id AND c.name = 'rate_at'), s.value) = 'contract_signature' THEN 'pinned'
            WHEN billing_internal.is_replaced(h.customer_id, h.contract_id, h.meter_id, h.charge_key, effective_at) THEN 'overridden'
            ELSE 'affected' END AS effect
        FROM (SELECT c AS price, b.price_book_id, substr(c, length(b.key) + 2) AS key FROM jsonb_array_elements_text(changed) c JOIN billing.price_book b ON starts_with(c, b.key || '/')) x
        JOIN billing.contract_charge h ON h.price_book_id = x.price_book_id AND h.price_key = x.key AND h.until_version IS NULL
        JOIN billing.contract k ON k.customer_id = h.customer_id AND k.contract_id = h.contract_id AND k.state IN ('scheduled', 'active', 'paused')
        JOIN signature s ON s.seller_id = k.seller_id
    ) u GROUP BY u.customer_id, u.contract_id;
END
$$;
COMMENT ON FUNCTION billing_internal.price_users(jsonb, timestamptz) IS 'Live contracts that use some prices (book/key): affected by a change of them at an instant, pinned (so is rate_at = contract_signature), or overridden by whole pricings.';

CREATE FUNCTION billing.price_publish(doc jsonb, effective_at timestamptz, dry_run boolean DEFAULT true)
    RETURNS TABLE (effect text, contracts bigint, contract text, customer text, prices text[], period_from timestamptz, period_until timestamptz, currency text,
        old_amount numeric, new_amount numeric, difference numeric, problem text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    dated jsonb;
    changed jsonb;
    known jsonb;
    billed record;
    refs billing_internal.bill_ref[];
BEGIN
    PERFORM billing_internal.require_installed();
    IF effective_at IS NULL OR NOT isfinite(effective_at) THEN
        PERFORM billing_internal.fail('ZB004', 'a price needs the instant from which it holds', 'Pass effective_at, such as 2027-01-01T00:00:00Z.');
    ELSIF dry_run IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'dry_run is NULL', 'Pass true (only look) or false (publish).');
    END IF;
    PERFORM billing_internal.hypothetical_prices(doc);
    SELECT jsonb_build_object('price_books', jsonb_agg(CASE WHEN b ? 'prices' THEN b || jsonb_build_object('prices',
            (SELECT jsonb_agg(p || jsonb_build_object('valid_from', effective_at)) FROM jsonb_array_elements(b->'prices') p)) ELSE b END)) INTO dated
    FROM jsonb_array_elements(doc->'price_books') b;
    -- What it changes, by doing it and undoing it; then what that means, by the prices of before.
    SELECT coalesce(jsonb_agg(a.key), '[]') INTO changed FROM billing.catalog_apply(dated, true) a WHERE a.kind = 'price' AND a.action = 'version';
    SELECT jsonb_build_object('price_books', jsonb_agg(b || jsonb_build_object('prices',
            (SELECT coalesce(jsonb_agg(p), '[]') FROM jsonb_array_elements(b->'prices') p WHERE changed ? ((b->>'key') || '/' || (p->>'key')))))) INTO known
    FROM jsonb_array_elements(doc->'price_books') b;
    SELECT array_agg(billing_internal.boundary_ref(u.customer_id, u.contract_id, p.n, NULL)) INTO refs
    FROM billing_internal.price_users(changed, effective_at) u
    CROSS JOIN LATERAL (SELECT p.n FROM billing.billing_period p WHERE p.customer_id = u.customer_id AND p.contract_id = u.contract_id AND p.n > 0 AND p.state <> 'due' ORDER BY p.n DESC LIMIT 3) p
    WHERE u.effect = 'affected';
    RETURN QUERY
    WITH users AS MATERIALIZED (SELECT * FROM billing_internal.price_users(changed, effective_at))
    SELECT u.effect, 1::bigint, k.key, c.key, u.prices, q.starts_at, q.ends_at, k.currency, b.current_amount, b.new_amount, b.new_amount - b.current_amount, b.problem
    FROM users u
    JOIN billing.contract k ON k.customer_id = u.customer_id AND k.contract_id = u.contract_id
    JOIN billing.customer c ON c.customer_id = u.customer_id
    LEFT JOIN (SELECT * FROM billing_internal.compare_bills(refs, CASE WHEN refs IS NULL THEN '[]' ELSE billing_internal.hypothetical_prices(known) END)) b ON b.customer_id = u.customer_id AND b.contract_id = u.contract_id
    LEFT JOIN billing.billing_period q ON q.customer_id = b.customer_id AND q.contract_id = b.contract_id AND q.n = b.boundary - 1
    WHERE u.effect = 'affected'
    UNION ALL
    SELECT u.effect, count(*), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM users u WHERE u.effect <> 'affected' GROUP BY u.effect
    ORDER BY 1, 3, 6;
    -- An invoice keeps the versions it was computed by, for late usage, too.
    SELECT count(*) AS contracts, max(k.billed_until) AS until_at INTO billed
    FROM billing_internal.price_users(changed, effective_at) u JOIN billing.contract k ON k.customer_id = u.customer_id AND k.contract_id = u.contract_id
    WHERE u.effect = 'affected' AND k.billed_until > effective_at;
    IF billed.contracts > 0 THEN
        RAISE NOTICE 'contracts that are billed beyond % already, by the prices of before: %, the last until %', effective_at, billed.contracts, billed.until_at
            USING HINT = 'What is billed keeps its prices. Correct such an invoice by voiding it with reissue, or publish from the next period on.';
    END IF;
    IF NOT dry_run THEN
        PERFORM FROM billing.catalog_apply(dated);
    END IF;
END
$$;
COMMENT ON FUNCTION billing.price_publish(jsonb, timestamptz, boolean) IS
    'Publishes the prices of {"price_books": [{"key", "prices"}]} from an instant on, and says for whom: each live contract that floats on a price that changes (effect affected) with its bills of the last three billed periods, fees included, as they are and with the new prices for the whole period, on the usage known today; a contract never billed has one row without amounts. Contracts that are pinned, or whose overrides replace the price wholly (overridden), are counted. With dry_run (the default) nothing changes. A notice says how many of the affected are billed beyond the instant already: what is billed keeps its prices. Errors: as catalog_apply(); ZB001 no such price (catalog_apply() makes new ones), ZB003 more than prices, ZB004 no instant, dry_run is NULL.';

CREATE FUNCTION billing.price_withdraw(price text, version int, reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    p record;
    user_of record;
BEGIN
    PERFORM billing_internal.require_installed();
    IF coalesce(trim(reason), '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'a withdrawal needs a reason', 'Say why: the version stays in the list for ever.');
    END IF;
    PERFORM pg_advisory_xact_lock(billing_internal.lock_class('catalogue'), 0);
    SELECT x.*, b.key AS book INTO p FROM billing.price x JOIN billing.price_book b USING (price_book_id)
    WHERE b.key || '/' || x.key = price_withdraw.price AND x.version = price_withdraw.version FOR NO KEY UPDATE OF x;
    IF p.price_id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('price %s has no version %s', coalesce(quote_literal(price), 'NULL'), coalesce(version::text, 'NULL')),
            'Name the price as book/key. SELECT key, version, valid_during FROM billing.price; lists versions.');
    ELSIF p.withdrawn_at IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB005', format('version %s of price %s is withdrawn already', version, price), 'Nothing is left to do.');
    ELSIF lower(p.valid_during) IS NULL OR lower(p.valid_during) <= billing.now() THEN
        PERFORM billing_internal.fail('ZB005', format('version %s of price %s holds since %s', version, price, coalesce(lower(p.valid_during)::text, 'ever')),
            'What may have priced something stays. Publish another version to take its place from now on.');
    END IF;
    SELECT k.key AS contract, h.charge_key INTO user_of FROM billing.contract_charge h JOIN billing.contract k USING (customer_id, contract_id)
    WHERE h.price_book_id = p.price_book_id AND h.price_key = p.key AND h.until_version IS NULL AND k.state IN ('draft', 'scheduled', 'active', 'paused')
        AND NOT EXISTS (SELECT FROM billing.price o WHERE o.price_book_id = p.price_book_id AND o.key = p.key AND o.withdrawn_at IS NULL AND o.price_id <> p.price_id)
    ORDER BY k.key, h.charge_key LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('charge %s of contract %s would be left without any version of price %s', user_of.charge_key, user_of.contract, price), 'Publish another version first.');
    END IF;
    UPDATE billing.price x SET withdrawn_at = clock_timestamp(), withdrawn_by = billing_internal.caller(), withdrawn_reason = trim(reason) WHERE x.price_id = p.price_id;
    -- The version that it would have ended goes on to where this one would have.
    UPDATE billing.price x SET valid_during = tstzrange(lower(x.valid_during), upper(p.valid_during))
    WHERE x.price_book_id = p.price_book_id AND x.key = p.key AND x.withdrawn_at IS NULL AND upper(x.valid_during) = lower(p.valid_during);
    PERFORM billing_internal.audit('price_withdraw', 'price', format('%s@%s', price, version), NULL, jsonb_build_object('valid_from', lower(p.valid_during)),
        jsonb_build_object('valid_from', lower(p.valid_during), 'withdrawn', true), trim(reason));
END
$$;
COMMENT ON FUNCTION billing.price_withdraw(text, int, text) IS
    'Withdraws a version of a price (named book/key) that is scheduled and has not begun to hold: it stays in the list, marked, and prices nothing; the version before it goes on. A number is never used twice. Errors: ZB001 no such version, ZB004 no reason, ZB005 it has begun, is withdrawn, or a contract would be left without any.';

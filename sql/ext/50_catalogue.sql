-- The catalogue of products, meters, prices, features and plans.

CREATE FUNCTION billing_internal.catalogue_items(document text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'catalogue_items_wrapper';
COMMENT ON FUNCTION billing_internal.catalogue_items(text) IS 'A catalogue document as a JSON array of items in order of dependence; NULL where catalogue_items_error() says why not.';
CREATE FUNCTION billing_internal.catalogue_items_error(document text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'catalogue_items_error_wrapper';
COMMENT ON FUNCTION billing_internal.catalogue_items_error(text) IS 'Why catalogue_items() gave NULL.';
CREATE FUNCTION billing_internal.charge_error(charge text, meter text, pricing text, overrides text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'charge_error_wrapper';
COMMENT ON FUNCTION billing_internal.charge_error(text, text, text, text) IS 'Why a usage charge can''t price a meter with a list price and a list of overrides; NULL if it can.';

CREATE FUNCTION billing_internal.entitlement_error(item text, kind text, path text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'entitlement_error_wrapper';
COMMENT ON FUNCTION billing_internal.entitlement_error(text, text, text) IS 'Why an entitlement that stands at a path does not suit features of a kind; NULL if it does.';

CREATE FUNCTION billing_internal.local_midnight(day date, zone text) RETURNS timestamptz
    LANGUAGE sql STABLE STRICT PARALLEL SAFE -- bound when made: inlined, so no search_path
    RETURN day::timestamp AT TIME ZONE zone;
COMMENT ON FUNCTION billing_internal.local_midnight(date, text) IS 'The instant at which a local day begins, by Postgres''s time zone data: of two midnights the standard-time one, of none the transition.';

CREATE FUNCTION billing_internal.pricing_of(of_price_id uuid) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN p.row_count = 0 THEN p.pricing ELSE p.pricing || jsonb_build_object('rows',
        (SELECT jsonb_agg(r.pricing || jsonb_build_object('match', r.match) ORDER BY r.n) FROM billing.price_row r WHERE r.price_id = p.price_id)) END
    FROM billing.price p WHERE p.price_id = of_price_id
$$;
COMMENT ON FUNCTION billing_internal.pricing_of(uuid) IS 'The whole pricing document of a price version, rows included.';

CREATE FUNCTION billing_internal.catalogue_document(kind text, key text, parent text) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE kind
        WHEN 'product' THEN (SELECT jsonb_build_object('key', p.key, 'name', p.name)
                || CASE WHEN p.retired_at IS NOT NULL THEN '{"retired": true}' ELSE '{}' END::jsonb
            FROM billing.product p WHERE p.key = catalogue_document.key)
        WHEN 'meter' THEN (SELECT m.definition || CASE WHEN m.retired_at IS NOT NULL THEN '{"retired": true}' ELSE '{}' END::jsonb
                || CASE WHEN m.version > 1 THEN jsonb_build_object('version', v.version, 'valid_from', v.valid_from) ELSE '{}' END
            FROM billing.meter m JOIN billing.meter_version v USING (meter_id, version) WHERE m.key = catalogue_document.key)
        WHEN 'price_book' THEN (SELECT jsonb_build_object('key', b.key, 'currency', b.currency)
                || CASE WHEN b.retired_at IS NOT NULL THEN '{"retired": true}' ELSE '{}' END::jsonb
            FROM billing.price_book b WHERE b.key = catalogue_document.key)
        WHEN 'price' THEN (SELECT jsonb_strip_nulls(jsonb_build_object('key', p.key, 'meter', m.key, 'version', p.version,
                    'valid_from', lower(p.valid_during), 'valid_until', upper(p.valid_during)))
                || jsonb_build_object('pricing', billing_internal.pricing_of(p.price_id))
            FROM billing.price p JOIN billing.price_book b USING (price_book_id) JOIN billing.meter m USING (meter_id)
            WHERE b.key = catalogue_document.parent AND p.key = catalogue_document.key AND p.withdrawn_at IS NULL ORDER BY p.version DESC LIMIT 1)
        WHEN 'feature' THEN (SELECT f.definition || CASE WHEN f.retired_at IS NOT NULL THEN '{"retired": true}' ELSE '{}' END::jsonb
            FROM billing.feature f WHERE f.key = catalogue_document.key)
        WHEN 'plan' THEN (SELECT v.document || jsonb_build_object('version', v.version)
                || CASE WHEN p.retired_at IS NOT NULL THEN '{"retired": true}' ELSE '{}' END::jsonb
            FROM billing.plan p JOIN billing.plan_version v USING (plan_id) WHERE p.key = catalogue_document.key ORDER BY v.version DESC LIMIT 1)
        END
$$;
COMMENT ON FUNCTION billing_internal.catalogue_document(text, text, text) IS 'The newest state of a catalogue entity, as its document; NULL if there is none.';

CREATE FUNCTION billing_internal.check_price_instant(of_price_book_id uuid, of_key text, at timestamptz) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hit record;
BEGIN
    -- Live contracts that float on this price take it when a service period of theirs begins. Where none does at that
    -- instant (their own midnight, or 00:00 UTC of that day), it was not meant as a period's start.
    SELECT k.key, p.ends_on, p.starts_at = at OR p.starts_on::timestamp AT TIME ZONE 'UTC' = at AS begins INTO hit
    FROM billing.contract_charge h
    JOIN billing.contract k USING (customer_id, contract_id)
    CROSS JOIN LATERAL (
        SELECT s.starts_on, s.ends_on, billing_internal.local_midnight(s.starts_on, k.time_zone) AS starts_at
        FROM (SELECT DISTINCT d.day FROM (VALUES ((at AT TIME ZONE k.time_zone)::date), ((at AT TIME ZONE 'UTC')::date)) d (day)) d
        CROSS JOIN LATERAL billing_internal.calendar_period_at(k.starts_on, k.ends_on, k.billed_every, k.alignment, d.day) b
        CROSS JOIN LATERAL billing_internal.calendar_service_periods(k.starts_on, k.ends_on, k.billed_every, k.alignment, h.every, b.n) s
        WHERE s.starts_on <= d.day AND d.day < s.ends_on
    ) p
    WHERE h.price_book_id = of_price_book_id AND h.price_key = of_key AND h.until_version IS NULL AND h.valid_during @> at
        AND k.state IN ('scheduled', 'active', 'paused') AND k.prices = 'float'
    ORDER BY begins DESC, k.key LIMIT 1;
    IF NOT hit.begins THEN
        PERFORM billing_internal.fail('ZB005', format('price %s can''t change at %s, inside a period of contract %s', of_key, at, hit.key),
            format('Give valid_from as a period''s start, such as %sT00:00:00Z: a flat amount, a step, and any price of a maximum or a distinct count is for a whole period.', hit.ends_on));
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_price_instant(uuid, text, timestamptz) IS 'Errors: ZB005 if a price that is for a whole period would change when no service period of a live contract begins. Each contract takes it with its next period.';

CREATE FUNCTION billing_internal.apply_product(item jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF item->'document' = 'null' THEN
        UPDATE billing.product p SET retired_at = clock_timestamp() WHERE p.key = item->>'key' AND p.retired_at IS NULL;
        RETURN;
    END IF;
    INSERT INTO billing.product AS p (product_id, key, name, created_at)
    VALUES (billing_internal.uuid_v7(), item->>'key', item->'document'->>'name', clock_timestamp())
    ON CONFLICT (key) DO UPDATE SET name = excluded.name;
    UPDATE billing.product p SET retired_at = CASE WHEN (item->>'retired')::boolean THEN coalesce(p.retired_at, clock_timestamp()) END
    WHERE p.key = item->>'key' AND (p.retired_at IS NOT NULL) <> (item->>'retired')::boolean;
END
$$;
COMMENT ON FUNCTION billing_internal.apply_product(jsonb) IS 'Applies one product of a catalogue document.';

CREATE FUNCTION billing_internal.apply_meter(item jsonb, dry_run boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old billing.meter;
    d jsonb := item->'document';
    id int;
    live record;
    fault text;
    starts timestamptz;
    since timestamptz;
BEGIN
    SELECT * INTO old FROM billing.meter m WHERE m.key = item->>'key' FOR NO KEY UPDATE;
    PERFORM billing_internal.check_compound(item->>'path', d) WHERE d <> 'null' AND d IS DISTINCT FROM old.definition;
    IF old.meter_id IS NULL AND d <> 'null' THEN
        PERFORM billing_internal.require_read_committed('meters are not added or changed');
        UPDATE billing_internal.counter SET value = value + 1 WHERE name = 'meter_id' RETURNING value::int INTO id;
        INSERT INTO billing.meter (meter_id, key, event_type, aggregation, value, filter, dimensions, unit, definition, created_at)
        VALUES (id, d->>'key', d->>'event_type', d->>'aggregation', d->>'value', coalesce(d->'filter', '{}'),
            ARRAY(SELECT jsonb_array_elements_text(d->'dimensions')), d->>'unit', d, clock_timestamp());
        INSERT INTO billing.meter_version (meter_id, version, valid_from, definition, recorded_at) VALUES (id, 1, '-infinity', d, clock_timestamp());
        UPDATE billing_internal.counter SET value = value + 1 WHERE name = 'catalogue';
        since := billing_internal.events_since(id);
        IF since > '-infinity' THEN
            RAISE NOTICE 'meter % counts events from % on only: of those before, some have been removed', d->>'key', since USING HINT = 'SELECT * FROM billing.event_retention; shows what is kept.';
        END IF;
        IF NOT dry_run AND NOT billing_internal.rebuild_small(billing_internal.rebuild_ask(id, '-infinity', 'infinity', 'a new meter')) THEN
            RAISE NOTICE 'meter % answers from events until it has been filled', d->>'key' USING HINT = 'CALL billing.meter_rebuild(); fills it.';
        END IF;
    -- The same since an earlier instant is a change, too.
    ELSIF d <> 'null' AND (d <> old.definition OR (item->>'valid_from')::timestamptz < (SELECT v.valid_from FROM billing.meter_version v WHERE v.meter_id = old.meter_id AND v.version = old.version)) THEN
        PERFORM billing_internal.require_read_committed('meters are not added or changed');
        IF d->>'aggregation' <> old.aggregation OR (d->'per'->>'aggregation', d ? 'operation', d ? 'counted') IS DISTINCT FROM (old.definition->'per'->>'aggregation', old.definition ? 'operation', old.definition ? 'counted') THEN
            PERFORM billing_internal.fail('ZB005', format('%s.aggregation: meter %s is a %s and stays one', item->>'path', old.key, old.aggregation || coalesce(' per ' || (old.definition->'per'->>'aggregation'), '')),
                'Make a new meter under another key: it is filled from stored events.', format('it is %s', old.definition));
        END IF;
        SELECT k.key INTO live FROM billing.meter k CROSS JOIN billing_internal.compound_parts(k.definition) x
        WHERE x.meter = old.key AND k.retired_at IS NULL AND NOT (k.definition->'dimensions') <@ (d->'dimensions') LIMIT 1;
        IF FOUND THEN
            PERFORM billing_internal.fail('ZB005', format('%s.dimensions: compound meter %s needs the dimensions of meter %s', item->>'path', live.key, old.key),
                'Take the dimension off the compound first.', format('it is %s', old.definition));
        END IF;
        FOR fault IN
            SELECT billing_internal.charge_error(c.terms::text, d::text, c.pricing::text, c.overrides) FROM (
                SELECT jsonb_build_object('key', p.key, 'product', 'any', 'meter', old.key, 'price', p.key) AS terms, billing_internal.pricing_of(p.price_id) AS pricing, '[]' AS overrides
                FROM billing.price p WHERE p.meter_id = old.meter_id AND p.withdrawn_at IS NULL AND (upper_inf(p.valid_during) OR upper(p.valid_during) > billing.now())
                UNION
                SELECT h.terms, billing_internal.pricing_of(p.price_id), coalesce(billing_internal.overrides_of(k.customer_id, k.contract_id, h.meter_id, h.charge_key)::text, '[]')
                FROM billing.contract_charge h JOIN billing.contract k USING (customer_id, contract_id)
                LEFT JOIN billing.price p ON p.price_book_id = h.price_book_id AND p.key = h.price_key AND upper_inf(p.valid_during) AND p.withdrawn_at IS NULL
                WHERE h.meter_id = old.meter_id AND h.until_version IS NULL AND k.state IN ('draft', 'scheduled', 'active', 'paused')
            ) c
        LOOP
            PERFORM billing_internal.raise_fault(fault::jsonb);
        END LOOP;
        starts := coalesce((item->>'valid_from')::timestamptz, billing.now());
        UPDATE billing.meter m SET event_type = d->>'event_type', value = d->>'value', filter = coalesce(d->'filter', '{}'),
            dimensions = ARRAY(SELECT jsonb_array_elements_text(d->'dimensions')), unit = d->>'unit', definition = d, version = m.version + 1
        WHERE m.meter_id = old.meter_id;
        INSERT INTO billing.meter_version (meter_id, version, valid_from, definition, recorded_at) VALUES (old.meter_id, old.version + 1, starts, d, clock_timestamp());
        UPDATE billing_internal.counter SET value = value + 1 WHERE name = 'catalogue';
        since := billing_internal.events_since(old.meter_id);
        IF since > starts THEN
            RAISE NOTICE 'meter % counts by version % from % on, not from %: of the events before, some have been removed', old.key, old.version + 1, since, starts
                USING HINT = 'Usage before stays as it was measured. SELECT * FROM billing.event_retention; shows what is kept.';
        END IF;
        IF NOT dry_run AND NOT billing_internal.rebuild_small(billing_internal.rebuild_ask(old.meter_id, starts, 'infinity', format('version %s', old.version + 1))) THEN
            RAISE NOTICE 'meter % answers from events since % until it has been measured again', old.key, starts USING HINT = 'CALL billing.meter_rebuild(); does it.';
        END IF;
    END IF;
    IF (item->>'retired')::boolean AND old.retired_at IS NULL AND (old.meter_id IS NOT NULL OR d <> 'null') THEN
        -- Charges refer to the meter: with its row locked so that none is added meanwhile, is one of them live?
        PERFORM FROM billing.meter m WHERE m.meter_id = old.meter_id FOR UPDATE;
        SELECT k.key AS contract, h.charge_key INTO live FROM billing.contract_charge h JOIN billing.contract k USING (customer_id, contract_id)
        WHERE h.meter_id = old.meter_id AND h.until_version IS NULL AND k.state IN ('draft', 'scheduled', 'active', 'paused') ORDER BY k.key, h.charge_key LIMIT 1;
        IF FOUND THEN
            PERFORM billing_internal.fail('ZB005', format('%s: meter %s is in use by charge %s of contract %s', item->>'path', old.key, live.charge_key, live.contract),
                'Retire it when no draft or live contract needs it any more.');
        END IF;
        SELECT f.key INTO live FROM billing.feature f WHERE f.meter_id = old.meter_id AND f.retired_at IS NULL ORDER BY f.key LIMIT 1;
        IF FOUND THEN
            PERFORM billing_internal.fail('ZB005', format('%s: meter %s says how much of feature %s is used', item->>'path', old.key, live.key), 'Retire the feature first.');
        END IF;
        SELECT k.key INTO live FROM billing.meter k CROSS JOIN billing_internal.compound_parts(k.definition) x WHERE x.meter = item->>'key' AND k.retired_at IS NULL LIMIT 1;
        IF FOUND THEN
            PERFORM billing_internal.fail('ZB005', format('%s: meter %s is part of the compound %s', item->>'path', item->>'key', live.key), 'Retire the compound first.');
        END IF;
        UPDATE billing.meter m SET retired_at = clock_timestamp(), counts = EXISTS (SELECT FROM billing.contract_charge h WHERE h.meter_id = m.meter_id)
            -- also through a compound
            OR EXISTS (SELECT FROM billing.contract_charge h JOIN billing.meter_version v USING (meter_id) CROSS JOIN billing_internal.compound_parts(v.definition) x WHERE x.meter = m.key) WHERE m.key = item->>'key';
        UPDATE billing_internal.counter SET value = value + 1 WHERE name = 'catalogue';
    ELSIF NOT (item->>'retired')::boolean AND old.retired_at IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB005', format('%s: meter %s is retired', item->>'path', old.key),
            'A retired meter stays retired. Make a new one under another key: it is filled from stored events.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.apply_meter(jsonb, boolean) IS 'Applies one meter of a catalogue document (in a dry run without measuring anything): a changed one is a new version, for events since valid_from. Errors: ZB003 a price or charge doesn''t fit it any more, ZB005 another aggregation, retired, or to be retired under a charge of a draft or live contract.';

CREATE FUNCTION billing_internal.apply_price_book(item jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old billing.price_book;
    d jsonb := item->'document';
BEGIN
    SELECT * INTO old FROM billing.price_book b WHERE b.key = item->>'key' FOR NO KEY UPDATE;
    IF old.price_book_id IS NULL THEN
        IF d = 'null' THEN
            PERFORM billing_internal.fail('ZB003', format('%s.currency: is missing', item->>'path'), 'A new price book names its currency.');
        END IF;
        PERFORM billing_internal.check_currency(d->>'currency', (billing.now() AT TIME ZONE 'UTC')::date);
        INSERT INTO billing.price_book (price_book_id, key, currency, created_at)
        VALUES (billing_internal.uuid_v7(), d->>'key', d->>'currency', clock_timestamp());
    ELSIF d <> 'null' AND d->>'currency' <> old.currency THEN
        PERFORM billing_internal.fail('ZB005', format('%s.currency: price book %s is in %s and stays so', item->>'path', old.key, old.currency),
            'Make another price book for another currency.');
    END IF;
    UPDATE billing.price_book b SET retired_at = CASE WHEN (item->>'retired')::boolean THEN coalesce(b.retired_at, clock_timestamp()) END
    WHERE b.key = item->>'key' AND (b.retired_at IS NOT NULL) <> (item->>'retired')::boolean;
END
$$;
COMMENT ON FUNCTION billing_internal.apply_price_book(jsonb) IS 'Applies one price book of a catalogue document. Errors: ZB001 currency, ZB003 no currency, ZB005 another currency.';

CREATE FUNCTION billing_internal.overrides_of(of_customer_id bigint, of_contract_id uuid, of_meter_id int, charge text) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_agg(jsonb_build_object('charge', charge, 'match', o.match) || o.terms ORDER BY o.contract_id IS NULL, o.match, o.override_id)
    FROM billing.price_override o
    JOIN billing.customer c ON c.customer_id = o.customer_id
    JOIN billing.contract k ON k.customer_id = of_customer_id AND k.contract_id = of_contract_id
    WHERE o.customer_id = of_customer_id AND (o.meter_id = of_meter_id OR o.charge_key = charge) AND o.until_version IS NULL
        AND (o.contract_id = of_contract_id OR (o.contract_id IS NULL AND (o.terms ? 'percent_off' OR k.currency = c.currency)))
$$;
COMMENT ON FUNCTION billing_internal.overrides_of(bigint, uuid, int, text) IS 'The overrides of both scopes that target a charge today, as documents. Prices agreed with a customer are in the customer''s currency.';

CREATE FUNCTION billing_internal.apply_price(item jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    book billing.price_book;
    old billing.price;
    meter billing.meter;
    d jsonb := item->'document';
    wanted_hash bytea := decode(item->>'pricing_sha256', 'hex');
    starts timestamptz := (item->>'valid_from')::timestamptz;
    id uuid := billing_internal.uuid_v7();
    facts record;
    fault text;
BEGIN
    SELECT * INTO book FROM billing.price_book b WHERE b.key = item->>'parent';
    SELECT * INTO old FROM billing.price p WHERE p.price_book_id = book.price_book_id AND p.key = item->>'key' AND p.withdrawn_at IS NULL ORDER BY p.version DESC LIMIT 1 FOR NO KEY UPDATE;
    IF d = 'null' THEN
        IF upper_inf(old.valid_during) THEN
            starts := coalesce(starts, billing.now());
            IF starts <= lower(old.valid_during) THEN
                PERFORM billing_internal.fail('ZB005', format('%s: price %s can''t end at %s: version %s begins to hold at %s', item->>'path', old.key, starts, old.version, lower(old.valid_during)),
                    'Give a valid_from after that, or publish another version to take its place from then on.');
            END IF;
            UPDATE billing.price p SET valid_during = tstzrange(lower(old.valid_during), starts) WHERE p.price_id = old.price_id;
        END IF;
        RETURN;
    END IF;
    SELECT * INTO meter FROM billing.meter m WHERE m.key = d->>'meter';
    IF meter.meter_id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('%s.meter: meter %s is not known', item->>'path', quote_literal(d->>'meter')),
            'Put the meter into the same document, or apply it first.');
    ELSIF old.price_id IS NOT NULL AND old.meter_id <> meter.meter_id THEN
        PERFORM billing_internal.fail('ZB005', format('%s.meter: price %s is for another meter and stays so', item->>'path', old.key), 'Use another key.');
    ELSIF old.content_hash = wanted_hash AND upper_inf(old.valid_during) THEN
        -- It holds already. What is only scheduled is not moved in silence.
        IF starts <> lower(old.valid_during) AND (starts < lower(old.valid_during) OR lower(old.valid_during) > billing.now()) THEN
            PERFORM billing_internal.fail('ZB005', format('%s.valid_from: version %s of price %s, which says the same, begins to hold at %s, not at %s', item->>'path', old.version, old.key,
                lower(old.valid_during), starts), 'A published version is not moved. Publish what shall hold from another instant on as another version.');
        END IF;
        RETURN;
    END IF;
    SELECT f.splits, f.cuts, f.needs_events INTO facts FROM jsonb_to_record(item) f (splits boolean, cuts boolean, needs_events boolean);
    IF old.price_id IS NOT NULL THEN
        starts := coalesce(starts, billing.now());
        IF starts <= lower(old.valid_during) THEN
            PERFORM billing_internal.fail('ZB005', format('%s.valid_from: %s is not after %s, when version %s begins to hold',
                item->>'path', starts, lower(old.valid_during), old.version), 'Prices change forward in time; give a later valid_from.');
        END IF;
        IF NOT (facts.cuts AND old.cuts) OR NOT meter.additive THEN
            PERFORM billing_internal.check_price_instant(book.price_book_id, old.key, starts);
        END IF;
        IF upper_inf(old.valid_during) OR upper(old.valid_during) > starts THEN
            UPDATE billing.price p SET valid_during = tstzrange(lower(old.valid_during), starts) WHERE p.price_id = old.price_id;
        END IF;
    END IF;
    INSERT INTO billing.price (price_id, price_book_id, key, version, meter_id, valid_during, pricing, row_count, splits, cuts, needs_events, content_hash, recorded_at)
    VALUES (id, book.price_book_id, item->>'key', (SELECT coalesce(max(p.version), 0) + 1 FROM billing.price p WHERE p.price_book_id = book.price_book_id AND p.key = item->>'key'), meter.meter_id, tstzrange(starts, NULL),
        CASE WHEN d->'pricing' ? 'rows' THEN (d->'pricing') || '{"rows": []}' ELSE d->'pricing' END,
        coalesce(jsonb_array_length(d->'pricing'->'rows'), 0), facts.splits, facts.cuts, facts.needs_events, wanted_hash, clock_timestamp());
    INSERT INTO billing.price_row (price_id, n, match, pricing)
    SELECT id, r.place - 1, coalesce(r.value->'match', '{}'), r.value - 'match'
    FROM jsonb_array_elements(d->'pricing'->'rows') WITH ORDINALITY r (value, place);
    -- It must fit its meter, and the live charges that will take it.
    FOR fault IN
        SELECT billing_internal.charge_error(c.terms::text, meter.definition::text, d->>'pricing', c.overrides) FROM (
            SELECT jsonb_build_object('key', item->>'key', 'product', 'any', 'meter', meter.key, 'price', item->>'key') AS terms, '[]' AS overrides
            UNION
            SELECT h.terms, coalesce(billing_internal.overrides_of(k.customer_id, k.contract_id, h.meter_id, h.charge_key)::text, '[]')
            FROM billing.contract_charge h JOIN billing.contract k USING (customer_id, contract_id)
            WHERE h.price_book_id = book.price_book_id AND h.price_key = item->>'key' AND h.until_version IS NULL AND k.prices = 'float' AND k.state IN ('draft', 'scheduled', 'active', 'paused')
        ) c
    LOOP
        PERFORM billing_internal.raise_fault(fault::jsonb);
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.apply_price(jsonb) IS 'Applies one price of a catalogue document: a changed pricing is a new version. Errors: ZB001 meter, ZB003 it doesn''t fit the meter or a live charge, ZB005 other meter, not after the version before, or inside a period.';

CREATE FUNCTION billing_internal.check_items(items jsonb, book_key text, of_currency text, path text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item record;
    book billing.price_book;
    meter billing.meter;
    pricing text;
BEGIN
    IF book_key IS NOT NULL THEN
        SELECT * INTO book FROM billing.price_book b WHERE b.key = book_key;
        IF book.price_book_id IS NULL THEN
            PERFORM billing_internal.fail('ZB001', format('%sprice_book: price book %s is not known', path, quote_literal(book_key)),
                'SELECT key, currency FROM billing.price_book; lists them.');
        ELSIF book.currency <> of_currency THEN
            PERFORM billing_internal.fail('ZB011', format('%sprice_book: %s is in %s, not in %s', path, book_key, book.currency, of_currency),
                'Use a price book in the same currency; prices are never converted silently.');
        END IF;
    END IF;
    FOR item IN SELECT i->>'kind' AS kind, i->'terms' AS terms FROM jsonb_array_elements(items) i LOOP
        IF NOT EXISTS (SELECT FROM billing.product p WHERE p.key = item.terms->>'product' AND p.retired_at IS NULL) THEN
            PERFORM billing_internal.fail('ZB001', format('%s%s %s: product %s is not known', path, CASE item.kind WHEN 'usage' THEN 'charge' ELSE 'fee' END, item.terms->>'key', quote_literal(item.terms->>'product')),
                'SELECT key, name FROM billing.product; lists them.');
        END IF;
        CONTINUE WHEN item.kind = 'fee';
        SELECT * INTO meter FROM billing.meter m WHERE m.key = item.terms->>'meter' AND m.retired_at IS NULL;
        IF meter.meter_id IS NULL THEN
            PERFORM billing_internal.fail('ZB001', format('%scharge %s: meter %s is not known', path, item.terms->>'key', quote_literal(item.terms->>'meter')),
                'SELECT key, event_type FROM billing.meter WHERE retired_at IS NULL; lists them.');
        END IF;
        -- What seat_assign() says of a moment says nothing of a period without a change.
        IF meter.definition->>'value' = 'seats' AND EXISTS (SELECT FROM billing.feature f JOIN billing.meter s ON s.meter_id = f.meter_id WHERE f.kind = 'seat' AND f.retired_at IS NULL AND s.event_type = meter.event_type) THEN
            PERFORM billing_internal.fail('ZB003', format('%scharge %s: meter %s would bill no seats in a period in which nobody came or went', path, item.terms->>'key', meter.key),
                'Bill peaks by {"aggregation": "unique_count", "value": …, "operation": …, "counted": "peak"}, time by a weighted_sum of "change" with "weighting": "period", the end of the period by the meter of the seats itself.');
        END IF;
        pricing := item.terms->>'pricing';
        IF pricing IS NULL THEN
            SELECT CASE WHEN NOT meter.additive THEN billing_internal.pricing_of(p.price_id) ELSE p.pricing END::text INTO pricing FROM billing.price p
            WHERE p.price_book_id = book.price_book_id AND p.key = item.terms->>'price' AND p.meter_id = meter.meter_id AND p.withdrawn_at IS NULL
            ORDER BY p.version DESC LIMIT 1;
            IF pricing IS NULL THEN
                PERFORM billing_internal.fail('ZB001', format('%scharge %s: price book %s has no price %s for meter %s', path, item.terms->>'key',
                    book_key, quote_literal(item.terms->>'price'), meter.key), 'Put the price into the book, or give the charge its own pricing.');
            END IF;
        END IF;
        PERFORM billing_internal.raise_fault(f || jsonb_build_object('message', path || (f->>'message'))) FROM (SELECT billing_internal.charge_error(item.terms::text, meter.definition::text, pricing, '[]')::jsonb) x (f);
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.check_items(jsonb, text, text, text) IS 'Whether charges and fees can be billed: products, meters, prices, dimensions, currency. Errors: ZB001, ZB003, ZB011.';

CREATE FUNCTION billing_internal.apply_feature(item jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old billing.feature;
    meter billing.meter;
    d jsonb := item->'document';
    id int;
BEGIN
    SELECT * INTO old FROM billing.feature f WHERE f.key = item->>'key' FOR NO KEY UPDATE;
    IF d <> 'null' THEN
        IF d ? 'meter' THEN
            -- Held, so that it is not retired meanwhile.
            SELECT * INTO meter FROM billing.meter m WHERE m.key = d->>'meter' FOR KEY SHARE;
            IF meter.meter_id IS NULL OR meter.retired_at IS NOT NULL THEN
                PERFORM billing_internal.fail('ZB001', format('%s.meter: meter %s is %s', item->>'path', quote_literal(d->>'meter'), CASE WHEN meter.meter_id IS NULL THEN 'not known' ELSE 'retired' END),
                    'SELECT key, event_type FROM billing.meter WHERE retired_at IS NULL; lists them.');
            ELSIF d->>'kind' = 'seat' AND meter.state <> 'presence' THEN
                PERFORM billing_internal.fail('ZB003', format('%s.meter: meter %s does not say who is there', item->>'path', meter.key),
                    'The meter of seats is a unique_count with an operation: {"aggregation": "unique_count", "value": "seat", "operation": "operation"}.');
            ELSIF d->>'kind' = 'seat' AND meter.definition->>'counted' = 'peak' THEN
                PERFORM billing_internal.fail('ZB003', format('%s.meter: meter %s says how many were there at most, not who is there now', item->>'path', meter.key),
                    'Let the feature have a meter of the same events without "counted", and the charge this one.');
            END IF;
        END IF;
        IF old.feature_id IS NULL THEN
            UPDATE billing_internal.counter SET value = value + 1 WHERE name = 'feature_id' RETURNING value::int INTO id;
            INSERT INTO billing.feature (feature_id, key, name, kind, meter_id, unit, definition, created_at)
            VALUES (id, d->>'key', d->>'name', d->>'kind', meter.meter_id, coalesce(d->>'unit', meter.unit), d, clock_timestamp());
        ELSIF d - 'name' <> old.definition - 'name' THEN
            PERFORM billing_internal.fail('ZB005', format('%s: feature %s is another one', item->>'path', old.key), 'What a feature is never changes: make a new one under another key.', format('it is %s', old.definition));
        ELSIF d <> old.definition THEN
            UPDATE billing.feature f SET name = d->>'name', definition = d WHERE f.feature_id = old.feature_id;
        END IF;
    END IF;
    UPDATE billing.feature f SET retired_at = CASE WHEN (item->>'retired')::boolean THEN coalesce(f.retired_at, clock_timestamp()) END
    WHERE f.key = item->>'key' AND (f.retired_at IS NOT NULL) <> (item->>'retired')::boolean;
END
$$;
COMMENT ON FUNCTION billing_internal.apply_feature(jsonb) IS 'Applies one feature of a catalogue document. Errors: ZB001 its meter, ZB003 a meter that does not suit it, ZB005 it is another one.';

CREATE FUNCTION billing_internal.check_entitlement(item jsonb, path text, is_new boolean) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f billing.feature;
    wrong text;
BEGIN
    SELECT * INTO f FROM billing.feature x WHERE x.key = item->>'feature';
    IF f.feature_id IS NULL OR (is_new AND f.retired_at IS NOT NULL) THEN
        PERFORM billing_internal.fail('ZB001', format('%s.feature: feature %s is %s', path, quote_literal(item->>'feature'), CASE WHEN f.feature_id IS NULL THEN 'not known' ELSE 'retired' END),
            'Put it into the catalogue''s features; SELECT key, name, kind FROM billing.feature WHERE retired_at IS NULL; lists them.');
    END IF;
    PERFORM billing_internal.raise_fault(billing_internal.entitlement_error(item::text, f.kind, path)::jsonb);
    SELECT k INTO wrong FROM jsonb_object_keys(coalesce(item->'match', '{}')) k
    WHERE k <> 'bill_to' AND NOT EXISTS (SELECT FROM billing.meter m WHERE m.meter_id = f.meter_id AND k = ANY (m.dimensions)) LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB003', format('%s.match: %s is no dimension of the meter of %s', path, quote_literal(wrong), f.key),
            (SELECT format('Dimensions of %s: %s.', m.key, array_to_string(m.dimensions || 'bill_to'::text, ', ')) FROM billing.meter m WHERE m.meter_id = f.meter_id));
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_entitlement(jsonb, text, boolean) IS 'Whether an entitlement that stands at a path names a feature and suits it; is_new: a retired one can''t be named. Errors: ZB001, ZB003.';

CREATE FUNCTION billing_internal.apply_plan(item jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old billing.plan;
    newest billing.plan_version;
    d jsonb := item->'document';
    id uuid;
BEGIN
    SELECT * INTO old FROM billing.plan p WHERE p.key = item->>'key' FOR NO KEY UPDATE;
    id := coalesce(old.plan_id, billing_internal.uuid_v7());
    IF d <> 'null' THEN
        SELECT * INTO newest FROM billing.plan_version v WHERE v.plan_id = old.plan_id ORDER BY v.version DESC LIMIT 1;
        PERFORM billing_internal.check_currency(d->>'currency', (billing.now() AT TIME ZONE 'UTC')::date);
        PERFORM billing_internal.check_items(
            (SELECT coalesce(jsonb_agg(x), '[]') FROM (
                SELECT jsonb_build_object('kind', 'usage', 'terms', c) AS x FROM jsonb_array_elements(coalesce(d->'charges', '[]')) c
                UNION ALL SELECT jsonb_build_object('kind', 'fee', 'terms', f) FROM jsonb_array_elements(coalesce(d->'fees', '[]')) f) i),
            d->>'price_book', d->>'currency', (item->>'path') || ': ');
        PERFORM billing_internal.check_entitlement(e.value, format('%s.entitlements[%s]', item->>'path', e.place - 1), true)
        FROM jsonb_array_elements(coalesce(d->'entitlements', '[]')) WITH ORDINALITY e (value, place);
        IF old.plan_id IS NULL THEN
            INSERT INTO billing.plan (plan_id, key, name, created_at) VALUES (id, d->>'key', d->>'name', clock_timestamp());
        ELSIF old.name <> d->>'name' THEN
            UPDATE billing.plan p SET name = d->>'name' WHERE p.plan_id = id;
        END IF;
        IF newest.document IS DISTINCT FROM d THEN
            INSERT INTO billing.plan_version (plan_id, version, document, recorded_at)
            VALUES (id, coalesce(newest.version, 0) + 1, d, clock_timestamp());
        END IF;
    END IF;
    UPDATE billing.plan p SET retired_at = CASE WHEN (item->>'retired')::boolean THEN coalesce(p.retired_at, clock_timestamp()) END
    WHERE p.plan_id = id AND (p.retired_at IS NOT NULL) <> (item->>'retired')::boolean;
END
$$;
COMMENT ON FUNCTION billing_internal.apply_plan(jsonb) IS 'Applies one plan of a catalogue document: a changed plan is a new version; contracts keep theirs. Errors: as check_items().';

CREATE FUNCTION billing.catalog_apply(doc jsonb, dry_run boolean DEFAULT false)
    RETURNS TABLE (action text, kind text, key text, before jsonb, after jsonb)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    items jsonb;
    item jsonb;
    was jsonb;
    now_is jsonb;
    changes jsonb[] := '{}';
    full_key text;
BEGIN
    PERFORM billing_internal.require_installed();
    IF doc IS NULL THEN
        PERFORM billing_internal.fail('ZB003', 'the catalogue document is NULL', 'SELECT billing.catalog_example(''llm-api''); shows one.');
    END IF;
    items := billing_internal.catalogue_items(doc::text)::jsonb;
    IF items IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.catalogue_items_error(doc::text)::jsonb);
    END IF;
    -- One change of the catalogue at a time.
    PERFORM pg_advisory_xact_lock(billing_internal.lock_class('catalogue'), 0);
    BEGIN
        FOR item IN SELECT * FROM jsonb_array_elements(items) LOOP
            was := billing_internal.catalogue_document(item->>'kind', item->>'key', item->>'parent');
            IF was IS NULL AND item->'document' = 'null' AND item->>'kind' <> 'price_book' THEN
                PERFORM billing_internal.fail('ZB001', format('%s: %s %s is not known, so it can''t be retired', item->>'path', item->>'kind', quote_literal(item->>'key')),
                    'SELECT billing.catalog_export(); shows what there is.');
            END IF;
            CASE item->>'kind'
                WHEN 'product' THEN PERFORM billing_internal.apply_product(item);
                WHEN 'meter' THEN PERFORM billing_internal.apply_meter(item, dry_run IS NOT FALSE);
                WHEN 'price_book' THEN PERFORM billing_internal.apply_price_book(item);
                WHEN 'price' THEN PERFORM billing_internal.apply_price(item);
                WHEN 'feature' THEN PERFORM billing_internal.apply_feature(item);
                WHEN 'plan' THEN PERFORM billing_internal.apply_plan(item);
            END CASE;
            now_is := billing_internal.catalogue_document(item->>'kind', item->>'key', item->>'parent');
            CONTINUE WHEN now_is IS NOT DISTINCT FROM was;
            full_key := coalesce((item->>'parent') || '/', '') || (item->>'key');
            changes := changes || jsonb_build_object('kind', item->>'kind', 'key', full_key, 'before', was, 'after', now_is, 'action',
                CASE WHEN was IS NULL THEN 'create' WHEN (item->>'retired')::boolean THEN 'retire'
                    WHEN item->>'kind' IN ('meter', 'price', 'plan') THEN 'version' ELSE 'update' END);
            PERFORM billing_internal.audit('catalog_apply', item->>'kind', full_key, NULL, was, now_is);
        END LOOP;
        IF dry_run IS NOT FALSE THEN
            RAISE EXCEPTION USING ERRCODE = 'ZBDRY';
        END IF;
    EXCEPTION WHEN SQLSTATE 'ZBDRY' THEN -- never ZB000: that would catch the whole class
        NULL; -- a dry run undoes everything and keeps the list
    END;
    RETURN QUERY SELECT c->>'action', c->>'kind', c->>'key', nullif(c->'before', 'null'), nullif(c->'after', 'null') FROM unnest(changes) c;
END
$$;
COMMENT ON FUNCTION billing.catalog_apply(jsonb, boolean) IS
    'Applies a catalogue document: products, meters, price books with prices, features, plans. What is absent stays as it is; a changed meter, price or plan becomes a new version (valid_from, default now; of a meter it may lie in the past: usage since then is measured again); "retired": true ends. Idempotent: returns what changed, and nothing the second time. dry_run shows the changes and makes none. A new meter is filled from stored events at once. Errors: ZB003 form, with the JSON path, ZB001 unknown references, ZB005 what can''t change, ZB010 bounds, ZB011 currency.';

CREATE FUNCTION billing.catalog_export() RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.require_installed();
    RETURN jsonb_build_object(
        'products', (SELECT coalesce(jsonb_agg(billing_internal.catalogue_document('product', p.key, NULL) ORDER BY p.key), '[]') FROM billing.product p),
        'meters', (SELECT coalesce(jsonb_agg(billing_internal.catalogue_document('meter', m.key, NULL) - ARRAY['version', 'valid_from'] ORDER BY m.key), '[]') FROM billing.meter m),
        'price_books', (SELECT coalesce(jsonb_agg(billing_internal.catalogue_document('price_book', b.key, NULL) || jsonb_build_object('prices',
                (SELECT coalesce(jsonb_agg(billing_internal.catalogue_document('price', k.key, b.key) - ARRAY['version', 'valid_from', 'valid_until'] ORDER BY k.key), '[]')
                FROM (SELECT DISTINCT p.key FROM billing.price p WHERE p.price_book_id = b.price_book_id AND upper_inf(p.valid_during) AND p.withdrawn_at IS NULL) k)) ORDER BY b.key), '[]')
            FROM billing.price_book b),
        'features', (SELECT coalesce(jsonb_agg(billing_internal.catalogue_document('feature', f.key, NULL) ORDER BY f.key), '[]') FROM billing.feature f),
        'plans', (SELECT coalesce(jsonb_agg(billing_internal.catalogue_document('plan', p.key, NULL) - 'version' ORDER BY p.key), '[]') FROM billing.plan p));
END
$$;
COMMENT ON FUNCTION billing.catalog_export() IS 'The newest state of the catalogue as a document that catalog_apply() reads: applying it changes nothing.';

CREATE FUNCTION billing.catalog_example(name text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    example jsonb;
BEGIN
    example := CASE name
    WHEN 'llm-api' THEN $json${
        "products": [{"key": "ai-api", "name": "AI API"}],
        "meters": [
            {"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "input_tokens + output_tokens", "dimensions": ["model"], "unit": "token"},
            {"key": "requests", "event_type": "llm.request", "aggregation": "count", "dimensions": ["model"], "unit": "request"}],
        "price_books": [{"key": "list", "currency": "USD", "prices": [
            {"key": "tokens", "meter": "tokens", "pricing": {"model": "matrix", "dimensions": ["model"], "per": 1000, "rows": [
                {"match": {"model": "gpt-4"}, "unit_price": "0.03"}, {"match": {"model": "gpt-3.5"}, "unit_price": "0.002"}]}},
            {"key": "requests", "meter": "requests", "pricing": {"model": "graduated", "tiers": [
                {"up_to": "1000", "unit_price": "0"}, {"up_to": "5000", "unit_price": "0.001"}, {"unit_price": "0.0005"}]}}]}],
        "plans": [{"key": "pro", "name": "Pro", "currency": "USD", "price_book": "list",
            "billing": {"interval": "1 month", "alignment": "calendar", "net_days": 30, "collection": "send_invoice"},
            "charges": [{"key": "tokens", "product": "ai-api", "meter": "tokens", "price": "tokens"},
                {"key": "requests", "product": "ai-api", "meter": "requests", "price": "requests"}],
            "fees": [{"key": "platform", "product": "ai-api", "pricing": {"model": "flat", "amount": "49.00"}}]}]}$json$
    WHEN 'seats' THEN $json${
        "products": [{"key": "workspace", "name": "Workspace"}],
        "meters": [{"key": "active-users", "event_type": "user.active", "aggregation": "unique_count", "value": "user_id", "unit": "user"}],
        "price_books": [{"key": "list", "currency": "USD", "prices": [
            {"key": "active-users", "meter": "active-users", "pricing": {"model": "volume", "tiers": [
                {"up_to": "10", "unit_price": "12"}, {"up_to": "100", "unit_price": "10"}, {"unit_price": "8"}]}}]}],
        "plans": [{"key": "team", "name": "Team", "currency": "USD", "price_book": "list",
            "charges": [{"key": "active-users", "product": "workspace", "meter": "active-users", "price": "active-users"}],
            "fees": [{"key": "seats", "product": "workspace", "pricing": {"model": "per_unit", "unit_price": "20"}, "quantity": "5"}]}]}$json$
    WHEN 'api' THEN $json${
        "products": [{"key": "messaging", "name": "Messaging API"}],
        "meters": [{"key": "segments", "event_type": "sms.sent", "aggregation": "sum", "value": "segments", "dimensions": ["country"], "unit": "segment"}],
        "price_books": [{"key": "list", "currency": "USD", "prices": [
            {"key": "segments", "meter": "segments", "pricing": {"model": "matrix", "dimensions": ["country"], "rows": [
                {"match": {"country": "US"}, "unit_price": "0.0083"}, {"match": {}, "unit_price": "0.05"}]}}]}],
        "plans": [{"key": "pay-as-you-go", "name": "Pay as you go", "currency": "USD", "price_book": "list",
            "charges": [{"key": "segments", "product": "messaging", "meter": "segments", "price": "segments"}]}]}$json$
    WHEN 'infra' THEN $json${
        "products": [{"key": "compute", "name": "Compute"}, {"key": "storage", "name": "Storage"}],
        "meters": [
            {"key": "cpu-seconds", "event_type": "vm.usage", "aggregation": "sum", "value": "cpus * seconds", "dimensions": ["region", "machine"], "unit": "cpu-second"},
            {"key": "peak-gigabytes", "event_type": "disk.size", "aggregation": "max", "value": "gigabytes", "dimensions": ["region"], "unit": "GB"}],
        "price_books": [{"key": "list", "currency": "USD", "prices": [
            {"key": "cpu-seconds", "meter": "cpu-seconds", "pricing": {"model": "matrix", "dimensions": ["region", "machine"], "per": 3600, "rows": [
                {"match": {"machine": "gpu"}, "unit_price": "2.50"}, {"match": {"region": "eu"}, "unit_price": "0.055"}, {"match": {}, "unit_price": "0.05"}]}},
            {"key": "peak-gigabytes", "meter": "peak-gigabytes", "pricing": {"model": "package", "package_size": "100", "amount": "10.00"}}]}],
        "plans": [{"key": "cloud", "name": "Cloud", "currency": "USD", "price_book": "list",
            "charges": [{"key": "cpu", "product": "compute", "meter": "cpu-seconds", "price": "cpu-seconds"},
                {"key": "storage", "product": "storage", "meter": "peak-gigabytes", "price": "peak-gigabytes"}]}]}$json$
    END;
    IF example IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('no example is called %s', coalesce(quote_literal(name), 'NULL')), 'Use llm-api, seats, api or infra.');
    END IF;
    RETURN example;
END
$$;
COMMENT ON FUNCTION billing.catalog_example(text) IS 'A small catalogue to begin with: llm-api, seats, api or infra. Errors: ZB001.';

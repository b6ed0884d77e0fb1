-- Customers: who they are, and the overrides of prices agreed with one, in all contracts or in one.

CREATE FUNCTION billing_internal.overrides_read(overrides text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'overrides_read_wrapper';
COMMENT ON FUNCTION billing_internal.overrides_read(text) IS 'A list of overrides in canonical form; NULL where overrides_read_error() says why not.';
CREATE FUNCTION billing_internal.overrides_read_error(overrides text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'overrides_read_error_wrapper';
COMMENT ON FUNCTION billing_internal.overrides_read_error(text) IS 'Why overrides_read() gave NULL.';

CREATE FUNCTION billing_internal.check_override_targets(overrides jsonb, of_customer_id bigint, of_contract_id uuid) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item record;
    meter billing.meter;
    wrong text;
BEGIN
    FOR item IN SELECT o.value AS doc, o.place - 1 AS n FROM jsonb_array_elements(overrides) WITH ORDINALITY o (value, place) LOOP
        IF item.doc ? 'meter' THEN
            SELECT * INTO meter FROM billing.meter m WHERE m.key = item.doc->>'meter';
        ELSE
            SELECT m.* INTO meter FROM billing.contract_charge h JOIN billing.meter m USING (meter_id)
            WHERE h.customer_id = of_customer_id AND (of_contract_id IS NULL OR h.contract_id = of_contract_id)
                AND h.charge_key = item.doc->>'charge' AND h.until_version IS NULL LIMIT 1;
        END IF;
        IF meter.meter_id IS NULL THEN
            PERFORM billing_internal.fail('ZB001', format('overrides[%s]: %s is not known', item.n,
                CASE WHEN item.doc ? 'meter' THEN 'meter ' || quote_literal(item.doc->>'meter') ELSE 'charge ' || quote_literal(item.doc->>'charge') END),
                'An override names a meter, or a charge of the contract.');
        END IF;
        SELECT k INTO wrong FROM jsonb_object_keys(coalesce(item.doc->'match', '{}')) k WHERE k <> ALL (meter.dimensions || 'bill_to'::text) LIMIT 1;
        IF wrong IS NULL THEN
            SELECT n INTO wrong FROM billing_internal.pricing_facts((item.doc->'pricing')::text) f, unnest(f.dimensions) n
            WHERE n <> ALL (meter.dimensions || 'bill_to'::text) LIMIT 1;
        END IF;
        IF wrong IS NOT NULL THEN
            PERFORM billing_internal.fail('ZB003', format('overrides[%s]: %s is no dimension of meter %s', item.n, quote_literal(wrong), meter.key),
                format('Dimensions of %s: %s.', meter.key, array_to_string(meter.dimensions || 'bill_to'::text, ', ')));
        END IF;
        meter := NULL;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.check_override_targets(jsonb, bigint, uuid) IS 'Errors: ZB001 an override''s meter or charge is not known, ZB003 it names what is no dimension.';

CREATE FUNCTION billing_internal.insert_overrides(overrides jsonb, of_customer_id bigint, of_contract_id uuid, zone text, of_version int) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO billing.price_override (customer_id, override_id, contract_id, meter_id, charge_key, match, valid_during, from_version, terms)
    SELECT of_customer_id, billing_internal.uuid_v7(), of_contract_id, m.meter_id, o->>'charge', coalesce(o->'match', '{}'),
        tstzrange(billing_internal.local_midnight((o->>'from')::date, zone), billing_internal.local_midnight((o->>'until')::date, zone)),
        of_version, o - ARRAY['meter', 'charge', 'match', 'from', 'until']
    FROM jsonb_array_elements(overrides) o LEFT JOIN billing.meter m ON m.key = o->>'meter'
$$;
COMMENT ON FUNCTION billing_internal.insert_overrides(jsonb, bigint, uuid, text, int) IS 'Stores a list of overrides; dates become local midnights.';

CREATE FUNCTION billing_internal.check_overrides(of_customer_id bigint, of_contract_id uuid) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hit record;
BEGIN
    -- Each live charge with the overrides of both scopes that target it.
    FOR hit IN
        SELECT h.terms::text AS charge, m.definition::text AS meter, coalesce(h.terms->'pricing', CASE WHEN NOT m.additive THEN billing_internal.pricing_of(p.price_id) ELSE p.pricing END)::text AS pricing, o.list::text AS overrides
        FROM billing.contract_charge h
        JOIN billing.contract k ON k.customer_id = h.customer_id AND k.contract_id = h.contract_id AND k.state IN ('draft', 'scheduled', 'active', 'paused')
        JOIN billing.meter m ON m.meter_id = h.meter_id
        LEFT JOIN LATERAL (SELECT x.price_id, x.pricing FROM billing.price x WHERE x.price_book_id = h.price_book_id AND x.key = h.price_key AND x.meter_id = h.meter_id AND x.withdrawn_at IS NULL
            ORDER BY x.version DESC LIMIT 1) p ON true
        CROSS JOIN LATERAL billing_internal.overrides_of(h.customer_id, h.contract_id, h.meter_id, h.charge_key) o (list)
        WHERE h.customer_id = of_customer_id AND (of_contract_id IS NULL OR h.contract_id = of_contract_id) AND h.kind = 'usage' AND h.until_version IS NULL AND o.list IS NOT NULL
        ORDER BY k.key, h.position
    LOOP
        PERFORM billing_internal.raise_fault(billing_internal.charge_error(hit.charge, hit.meter, hit.pricing, hit.overrides)::jsonb);
    END LOOP;
    -- An override that begins or ends inside a service period would cut tiers, packages, minimums: refused.
    SELECT h.charge_key, k.key AS contract, b.at INTO hit
    FROM billing.price_override o
    JOIN billing.contract_charge h ON h.customer_id = o.customer_id AND (o.contract_id IS NULL OR h.contract_id = o.contract_id)
        AND (h.meter_id = o.meter_id OR h.charge_key = o.charge_key) AND h.until_version IS NULL AND h.kind = 'usage'
    JOIN billing.contract k ON k.customer_id = h.customer_id AND k.contract_id = h.contract_id AND k.state IN ('draft', 'scheduled', 'active', 'paused')
    JOIN billing.meter m ON m.meter_id = h.meter_id
    CROSS JOIN LATERAL (VALUES (lower(o.valid_during)), (upper(o.valid_during))) b (at)
    CROSS JOIN LATERAL billing_internal.calendar_period_at(k.starts_on, k.ends_on, k.billed_every, k.alignment, (b.at AT TIME ZONE k.time_zone)::date) p
    CROSS JOIN LATERAL billing_internal.calendar_service_periods(k.starts_on, k.ends_on, k.billed_every, k.alignment, h.every, p.n) s
    WHERE o.customer_id = of_customer_id AND (of_contract_id IS NULL OR h.contract_id = of_contract_id) AND o.until_version IS NULL
        AND b.at IS NOT NULL AND h.valid_during @> b.at AND lower(h.valid_during) <> b.at AND b.at > billing_internal.local_midnight(s.starts_on, k.time_zone) AND b.at < billing_internal.local_midnight(s.ends_on, k.time_zone)
        AND (NOT m.additive
            OR EXISTS (SELECT FROM billing_internal.pricing_facts((o.terms->'pricing')::text) f WHERE NOT f.splits)
            OR NOT coalesce((SELECT f.splits FROM billing_internal.pricing_facts((h.terms->'pricing')::text) f), true)
            OR EXISTS (SELECT FROM billing.price r WHERE r.price_book_id = h.price_book_id AND r.key = h.price_key AND NOT r.splits AND r.withdrawn_at IS NULL))
    ORDER BY k.key, h.charge_key LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('an override of charge %s would change the price at %s, inside a period of contract %s',
            hit.charge_key, hit.at, hit.contract), 'Let it begin and end with a period: tiers, packages, minimums and maximums run over a whole period.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_overrides(bigint, uuid) IS 'Errors: ZB003 if an override doesn''t fit the charges it targets, ZB005 if it would change a price that can''t be split in time inside a service period.';

CREATE FUNCTION billing_internal.is_replaced(of_customer_id bigint, of_contract_id uuid, of_meter_id int, charge text, at timestamptz) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- The contract's beat the customer's; a unit price or a percentage among those that may hold needs the list.
    SELECT coalesce(bool_and(o.terms ? 'pricing') FILTER (WHERE o.contract_id IS NOT NULL), true)
        AND (coalesce(bool_or(o.match = '{}') FILTER (WHERE o.contract_id IS NOT NULL), false) OR coalesce(bool_and(o.terms ? 'pricing') AND bool_or(o.match = '{}'), false))
    FROM billing.price_override o
    JOIN billing.customer c ON c.customer_id = o.customer_id
    JOIN billing.contract k ON k.customer_id = of_customer_id AND k.contract_id = of_contract_id
    WHERE o.customer_id = of_customer_id AND (o.meter_id = of_meter_id OR o.charge_key = charge) AND o.until_version IS NULL AND o.valid_during @> at
        AND (o.contract_id = of_contract_id OR (o.contract_id IS NULL AND (o.terms ? 'percent_off' OR k.currency = c.currency)))
$$;
COMMENT ON FUNCTION billing_internal.is_replaced(bigint, uuid, int, text, timestamptz) IS 'Whether overrides with a whole pricing take the place of a charge''s list price for all its usage at an instant, so that it needs none.';

CREATE FUNCTION billing_internal.usage_is_billed(of_customer_id bigint) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id)
        WHERE i.customer_id = of_customer_id AND i.state NOT IN ('draft', 'void') AND l.kind <> 'fee')
$$;
COMMENT ON FUNCTION billing_internal.usage_is_billed(bigint) IS 'Whether an issued invoice has usage of the customer: then its currency and zone are fixed.';

CREATE FUNCTION billing_internal.lock_for_zone(of_customer_id bigint, zone text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c record;
BEGIN
    SELECT k.key, k.bucket_minutes INTO c FROM billing.customer k WHERE k.customer_id = of_customer_id;
    PERFORM billing_internal.check_zone(zone);
    IF billing_internal.zone_minutes(zone) < c.bucket_minutes THEN
        -- An ingest that read the width before looks again where this has moved. Before the stripe, as a change of the
        -- catalogue has it, or the two could wait for each other.
        UPDATE billing_internal.counter SET value = value + 1 WHERE name = 'catalogue';
        IF NOT billing_internal.lock_stripes(ARRAY[billing_internal.stripe_of(of_customer_id)]) THEN
            PERFORM billing_internal.fail('55P03', format('customer %s could not take on time zone %s: ingest never paused', c.key, zone),
                'Try again, or when transactions that ingest are shorter.');
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.lock_for_zone(bigint, text) IS
    'Shuts ingest of a customer out where a zone will narrow its buckets, whose width ingest reads under its stripe lock. Called before the customer''s row is locked; buckets never get wider, so what it decides stays right. Errors: ZB004 zone, 55P03 ingest never paused.';

CREATE FUNCTION billing.customer_upsert(doc jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    d jsonb;
    old record;
    new record;
    seller record;
    was jsonb;
    overrides jsonb;
    taken text;
BEGIN
    PERFORM billing_internal.require_installed();
    d := billing_internal.read_document('customer', doc);
    -- One session gives out names at a time, since a name is unique over keys and aliases; the one before us may have made
    -- this customer. Written, not just locked: whoever looks with an older snapshot is refused (40001).
    IF NOT EXISTS (SELECT FROM billing.customer c WHERE c.key = d->>'key')
        OR EXISTS (SELECT FROM jsonb_array_elements_text(coalesce(nullif(d->'aliases', 'null'), '[]')) x (alias)
            WHERE NOT EXISTS (SELECT FROM billing.customer_alias a JOIN billing.customer c USING (customer_id)
                WHERE a.alias = x.alias AND a.removed_at IS NULL AND c.key = d->>'key')) THEN
        UPDATE billing_internal.counter c SET value = c.value WHERE c.name = 'customer_id';
    END IF;
    -- Then the stripe, then the row.
    IF d ? 'time_zone' THEN
        PERFORM billing_internal.lock_for_zone(c.customer_id, coalesce(d->>'time_zone', 'UTC')) FROM billing.customer c WHERE c.key = d->>'key';
    END IF;
    SELECT * INTO old FROM billing.customer c WHERE c.key = d->>'key' FOR NO KEY UPDATE;
    was := CASE WHEN old.customer_id IS NOT NULL THEN billing_internal.customer_document(old.customer_id) END;
    new := old;
    new.seller_id := coalesce(billing_internal.find_seller(coalesce(d->>'seller', CASE WHEN old.customer_id IS NULL OR d ? 'seller' THEN 'default' END, old.seller_id::text)));
    SELECT * INTO seller FROM billing.seller s WHERE s.seller_id = new.seller_id;
    new.name := coalesce(d->>'name', old.name, d->>'key');
    new.currency := coalesce(d->>'currency', CASE WHEN d ? 'currency' THEN seller.currency END, old.currency, seller.currency);
    new.time_zone := coalesce(d->>'time_zone', CASE WHEN d ? 'time_zone' THEN 'UTC' END, old.time_zone, 'UTC');
    new.attributes := CASE WHEN d ? 'attributes' THEN coalesce(nullif(d->'attributes', 'null'), '{}') ELSE coalesce(old.attributes, '{}') END;
    PERFORM billing_internal.check_zone(new.time_zone);
    PERFORM billing_internal.check_currency(new.currency, (billing.now() AT TIME ZONE new.time_zone)::date);
    new.bucket_minutes := CASE WHEN d ? 'time_zone' OR old.customer_id IS NULL THEN least(coalesce(old.bucket_minutes, 60), billing_internal.zone_minutes(new.time_zone))
        ELSE old.bucket_minutes END;
    IF old.customer_id IS NOT NULL AND (new.currency, new.time_zone) IS DISTINCT FROM (old.currency, old.time_zone)
        AND billing_internal.usage_is_billed(old.customer_id) THEN
        PERFORM billing_internal.fail('ZB005', format('customer %s is billed in %s and %s, which stay so', old.key, old.currency, old.time_zone),
            'Give a new contract its own currency and time_zone instead.');
    END IF;
    IF old.customer_id IS NULL THEN
        SELECT a.alias INTO taken FROM billing.customer_alias a WHERE a.alias = d->>'key' AND a.removed_at IS NULL;
        IF FOUND THEN
            PERFORM billing_internal.fail('ZB005', format('key: %s is an alias of another customer', quote_literal(taken)), 'Choose another key.');
        END IF;
        UPDATE billing_internal.counter c SET value = c.value + 1 WHERE c.name = 'customer_id' RETURNING c.value INTO new.customer_id;
        INSERT INTO billing.customer (customer_id, key, name, seller_id, currency, time_zone, attributes, bucket_minutes, created_at)
        VALUES (new.customer_id, d->>'key', new.name, new.seller_id, new.currency, new.time_zone, new.attributes, new.bucket_minutes, clock_timestamp());
    ELSIF new IS DISTINCT FROM old THEN
        UPDATE billing.customer c SET name = new.name, seller_id = new.seller_id, currency = new.currency, time_zone = new.time_zone,
            attributes = new.attributes, bucket_minutes = new.bucket_minutes
        WHERE c.customer_id = new.customer_id;
    END IF;

    IF d ? 'aliases' THEN
        SELECT x.alias INTO taken FROM jsonb_array_elements_text(coalesce(nullif(d->'aliases', 'null'), '[]')) x (alias)
        WHERE EXISTS (SELECT FROM billing.customer_alias a WHERE a.alias = x.alias AND a.customer_id <> new.customer_id)
            OR EXISTS (SELECT FROM billing.customer c WHERE c.key = x.alias AND c.customer_id <> new.customer_id) LIMIT 1;
        IF FOUND THEN
            PERFORM billing_internal.fail('ZB005', format('aliases: %s belongs to another customer', quote_literal(taken)), 'An alias never moves; choose another.');
        END IF;
        INSERT INTO billing.customer_alias AS a (alias, customer_id)
        SELECT x.alias, new.customer_id FROM jsonb_array_elements_text(coalesce(nullif(d->'aliases', 'null'), '[]')) x (alias)
        ON CONFLICT (alias) DO UPDATE SET removed_at = NULL;
        UPDATE billing.customer_alias a SET removed_at = clock_timestamp()
        WHERE a.customer_id = new.customer_id AND a.removed_at IS NULL AND NOT coalesce(nullif(d->'aliases', 'null'), '[]') ? a.alias;
    END IF;
    IF d ? 'bill_tos' OR old.customer_id IS NULL THEN
        PERFORM billing_internal.upsert_bill_tos(new.customer_id,
            coalesce(nullif(d->'bill_tos', 'null'), jsonb_build_array(jsonb_build_object('key', d->>'key', 'name', new.name))));
    END IF;
    IF d ? 'contacts' THEN
        UPDATE billing.contact p SET removed_at = clock_timestamp() WHERE p.customer_id = new.customer_id AND p.removed_at IS NULL;
        SELECT c->>'bill_to' INTO taken FROM jsonb_array_elements(coalesce(nullif(d->'contacts', 'null'), '[]')) c
        WHERE c->>'bill_to' IS NOT NULL AND NOT EXISTS (SELECT FROM billing.bill_to b WHERE b.customer_id = new.customer_id AND b.key = c->>'bill_to') LIMIT 1;
        IF FOUND THEN
            PERFORM billing_internal.fail('ZB001', format('contacts: bill_to %s is not one of customer %s', quote_literal(taken), d->>'key'), 'Name one of its bill_tos.');
        END IF;
        INSERT INTO billing.contact (customer_id, contact_id, role, name, email, bill_to_id)
        SELECT new.customer_id, billing_internal.uuid_v7(), c->>'role', c->>'name', c->>'email', b.bill_to_id
        FROM jsonb_array_elements(coalesce(nullif(d->'contacts', 'null'), '[]')) c
        LEFT JOIN billing.bill_to b ON b.customer_id = new.customer_id AND b.key = c->>'bill_to';
    END IF;
    IF d ? 'overrides' THEN
        overrides := coalesce(nullif(d->'overrides', 'null'), '[]');
        IF billing_internal.overrides_read(overrides::text) IS NULL THEN
            PERFORM billing_internal.raise_fault(billing_internal.overrides_read_error(overrides::text)::jsonb);
        END IF;
        overrides := billing_internal.overrides_read(overrides::text)::jsonb;
        PERFORM billing_internal.check_override_targets(overrides, new.customer_id, NULL);
        UPDATE billing.customer c SET terms_version = c.terms_version + 1 WHERE c.customer_id = new.customer_id RETURNING c.terms_version INTO new.terms_version;
        UPDATE billing.price_override o SET until_version = new.terms_version
        WHERE o.customer_id = new.customer_id AND o.contract_id IS NULL AND o.until_version IS NULL;
        PERFORM billing_internal.insert_overrides(overrides, new.customer_id, NULL, new.time_zone, new.terms_version);
        PERFORM billing_internal.check_overrides(new.customer_id, NULL);
    END IF;
    IF old.time_zone <> new.time_zone THEN
        PERFORM billing_internal.entitlements_compile(new.customer_id);
    END IF;
    IF was IS DISTINCT FROM billing_internal.customer_document(new.customer_id) OR d ? 'overrides' THEN
        PERFORM billing_internal.audit('customer_upsert', 'customer', d->>'key', new.customer_id, was,
            billing_internal.customer_document(new.customer_id) || CASE WHEN d ? 'overrides' THEN jsonb_build_object('overrides', overrides) ELSE '{}' END);
    END IF;
    RETURN d->>'key';
END
$$;
COMMENT ON FUNCTION billing.customer_upsert(jsonb) IS
    'Makes or changes a customer: {"key","name","seller","currency","time_zone","aliases":[],"attributes":{},"bill_tos":[],"contacts":[],"overrides":[]}. Keeps what is absent, clears what is null, replaces lists. Defaults: seller default, the seller''s currency, UTC, one bill_to with the customer''s key. Currency and zone are fixed once usage is billed. Returns the key. Errors: ZB003 form, ZB001 unknown references, ZB004 time zone, ZB005 what can''t change, 55P03 ingest never paused for a zone that narrows its buckets.';

-- Rating and contracts, continued: price versions that take each other's place inside a period, and that are withdrawn before
-- they hold; a leakage report that names contract, charge and what was left out.

ALTER TABLE billing.price
    ADD COLUMN cuts boolean,
    ADD COLUMN withdrawn_at timestamptz,
    ADD COLUMN withdrawn_by text COLLATE "C",
    ADD COLUMN withdrawn_reason text,
    ADD CHECK ((withdrawn_at IS NULL) = (withdrawn_by IS NULL) AND (withdrawn_at IS NULL) = (withdrawn_reason IS NULL)),
    DROP CONSTRAINT price_validity_excl,
    ADD CONSTRAINT price_validity_excl EXCLUDE USING gist (price_book_id WITH =, key WITH =, valid_during WITH &&) WHERE (withdrawn_at IS NULL);
-- As pricing_facts() finds it: neither the price nor a row of its matrix is one amount for the period.
UPDATE billing.price p SET cuts = p.pricing->>'model' NOT IN ('flat', 'stairstep')
    AND NOT EXISTS (SELECT FROM billing.price_row r WHERE r.price_id = p.price_id AND r.pricing->'pricing'->>'model' IN ('flat', 'stairstep'));
ALTER TABLE billing.price ALTER COLUMN cuts SET NOT NULL;
COMMENT ON COLUMN billing.price.cuts IS 'Whether another version may take its place inside a period: it is not one amount for the period (flat, stairstep).';
COMMENT ON COLUMN billing.price.withdrawn_at IS 'Real time it was withdrawn before it began to hold; it never prices anything. NULL = it stands.';
COMMENT ON COLUMN billing.price.withdrawn_by IS 'Role that withdrew it.';
COMMENT ON COLUMN billing.price.withdrawn_reason IS 'Why it was withdrawn.';
GRANT UPDATE (withdrawn_at, withdrawn_by, withdrawn_reason) ON billing.price TO billing_engine;

-- Its columns stand otherwise than before.
DROP VIEW billing.unpriced_usage;
CREATE VIEW billing.unpriced_usage WITH (security_invoker = true) AS
    SELECT u.customer_id, k.key AS customer, u.contract, u.charge, m.key AS meter, u.day, u.dimensions, sum(u.events)::bigint AS events, sum(u.quantity)::numeric(50, 12) AS quantity,
        min(min(u.bucket_start)) OVER (PARTITION BY u.customer_id, u.contract, u.charge, m.key, u.dimensions, u.reason) AS since, u.reason, bool_or(u.left_out) AS left_out
    FROM (
        SELECT c.customer_id, c.meter_id, c.bucket_start, (c.bucket_start AT TIME ZONE 'UTC')::date AS day, c.dimensions, c.events, c.quantity, h.contract_key AS contract, h.charge_key AS charge,
            CASE WHEN h.charge_key IS NULL THEN 'no charge'
                WHEN h.price_key IS NOT NULL AND NOT EXISTS (SELECT FROM billing.price p WHERE p.price_book_id = h.price_book_id AND p.key = h.price_key AND p.withdrawn_at IS NULL
                    AND p.valid_during @> CASE WHEN h.prices = 'pin' THEN h.signed_at ELSE c.bucket_start END) THEN 'no price in force'
                ELSE 'no price' END AS reason,
            h.charge_key IS NOT NULL AND EXISTS (SELECT FROM billing.billing_period q JOIN billing.billing_period b USING (customer_id, contract_id)
                WHERE q.customer_id = c.customer_id AND q.contract_id = h.contract_id AND q.starts_at <= c.bucket_start AND c.bucket_start < q.ends_at AND b.n = q.n + 1 AND b.state <> 'due') AS left_out
        FROM billing_internal.usage_cell c
        LEFT JOIN LATERAL (
            SELECT h.*, x.key AS contract_key, x.prices, coalesce(x.signed_at, x.starts_at) AS signed_at, x.currency
            FROM billing.contract_charge h JOIN billing.contract x USING (customer_id, contract_id)
            WHERE h.customer_id = c.customer_id AND h.meter_id = c.meter_id AND h.kind = 'usage' AND h.until_version IS NULL AND h.valid_during @> c.bucket_start
                AND x.state IN ('scheduled', 'active', 'paused', 'ended') AND c.dimensions @> coalesce(h.terms->'match', '{}')
            LIMIT 1
        ) h ON true
        WHERE h.charge_key IS NULL OR NOT (
            -- its own pricing, or the price book's version in force: any model, or a matrix with a row that matches
            EXISTS (SELECT WHERE h.terms ? 'pricing' AND (h.terms->'pricing'->>'model' <> 'matrix'
                OR EXISTS (SELECT FROM jsonb_array_elements(h.terms->'pricing'->'rows') r WHERE c.dimensions @> coalesce(r->'match', '{}'))))
            OR EXISTS (SELECT FROM billing.price p WHERE p.price_book_id = h.price_book_id AND p.key = h.price_key AND p.withdrawn_at IS NULL
                AND p.valid_during @> CASE WHEN h.prices = 'pin' THEN h.signed_at ELSE c.bucket_start END
                AND (p.row_count = 0 OR EXISTS (SELECT FROM billing.price_row r WHERE r.price_id = p.price_id AND c.dimensions @> r.match)))
            -- or a price agreed with the customer; a unit price is per what the list says
            OR EXISTS (SELECT FROM billing.price_override o WHERE o.customer_id = c.customer_id AND (o.contract_id = h.contract_id
                    OR (o.contract_id IS NULL AND h.currency = (SELECT u.currency FROM billing.customer u WHERE u.customer_id = c.customer_id)))
                AND (o.meter_id = c.meter_id OR o.charge_key = h.charge_key) AND o.until_version IS NULL AND o.valid_during @> c.bucket_start AND c.dimensions @> o.match
                AND ((o.terms ? 'unit_price' AND (h.price_key IS NULL OR EXISTS (SELECT FROM billing.price p WHERE p.price_book_id = h.price_book_id AND p.key = h.price_key AND p.withdrawn_at IS NULL
                        AND p.valid_during @> CASE WHEN h.prices = 'pin' THEN h.signed_at ELSE c.bucket_start END)))
                    OR (o.terms ? 'pricing' AND (o.terms->'pricing'->>'model' <> 'matrix'
                        OR EXISTS (SELECT FROM jsonb_array_elements(o.terms->'pricing'->'rows') r WHERE c.dimensions @> coalesce(r->'match', '{}')))))))
    ) u
    JOIN billing.customer k USING (customer_id)
    JOIN billing.meter m USING (meter_id)
    GROUP BY u.customer_id, k.key, u.contract, u.charge, m.key, u.day, u.dimensions, u.reason;
COMMENT ON VIEW billing.unpriced_usage IS 'The leakage report: usage that no live charge prices. What has a charge but no price blocks the invoice of its contract, or is left out of it (policy unpriced_usage); what has no charge is billed by nobody.';
COMMENT ON COLUMN billing.unpriced_usage.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.unpriced_usage.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.unpriced_usage.contract IS 'Key of the contract whose charge takes it; NULL = none does.';
COMMENT ON COLUMN billing.unpriced_usage.charge IS 'The charge that takes it; NULL = none does.';
COMMENT ON COLUMN billing.unpriced_usage.meter IS 'The meter''s key.';
COMMENT ON COLUMN billing.unpriced_usage.day IS 'UTC day.';
COMMENT ON COLUMN billing.unpriced_usage.dimensions IS 'Dimension values.';
COMMENT ON COLUMN billing.unpriced_usage.events IS 'How many events counted.';
COMMENT ON COLUMN billing.unpriced_usage.quantity IS 'Sum of their values in the meter''s unit; NULL for count and unique count.';
COMMENT ON COLUMN billing.unpriced_usage.since IS 'Start of the first bucket with such usage, over all days.';
COMMENT ON COLUMN billing.unpriced_usage.reason IS 'no charge: no live charge takes it. no price in force: no version of its price holds then. no price: its price has no row for these dimensions.';
COMMENT ON COLUMN billing.unpriced_usage.left_out IS 'Whether the bill of its period was issued without it (policy unpriced_usage = bill).';
GRANT SELECT ON billing.unpriced_usage TO billing_engine, billing_reader;

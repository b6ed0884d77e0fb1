-- Contracts, continued: what changes in a deal while it runs. A version is a change; the terms are the fold of all changes.

-- ── changes ──────────────────────────────────────────────────────────────────────────────────────

ALTER TABLE billing.contract_version
    ADD COLUMN change jsonb,
    ADD COLUMN plan text COLLATE "C",
    ADD COLUMN ends_on date,
    ADD COLUMN ends_at timestamptz,
    DROP CONSTRAINT contract_version_kind_check,
    ADD CONSTRAINT contract_version_kind_check CHECK (kind IN ('create', 'amend', 'change_plan', 'pause', 'resume', 'cancel', 'notice', 'renew'));
-- What there is was created, and ends where it was agreed to.
UPDATE billing.contract_version v SET change = v.document, ends_on = k.ends_on, ends_at = k.ends_at,
    plan = (SELECT p.key || '@' || k.plan_version FROM billing.plan p WHERE p.plan_id = k.plan_id)
FROM billing.contract k WHERE k.customer_id = v.customer_id AND k.contract_id = v.contract_id;
ALTER TABLE billing.contract_version ALTER COLUMN change SET NOT NULL;
COMMENT ON TABLE billing.contract_version IS 'The changes of a contract, version by version: effective_at says from when each holds, recorded_at since when we know. The terms are the fold of all changes in order of (effective_at, version).';
COMMENT ON COLUMN billing.contract_version.version IS '1 when created, then one per change.';
COMMENT ON COLUMN billing.contract_version.kind IS 'create, amend, change_plan, pause, resume, cancel, notice (that it is not to be renewed) or renew.';
COMMENT ON COLUMN billing.contract_version.document IS 'The contract document in force from then on, this change and those before it (in effect) applied.';
COMMENT ON COLUMN billing.contract_version.change IS 'What was changed, canonical: the contract document of create, the amendment of amend, {"plan"} of change_plan, {"percent","term"} of renew ….';
COMMENT ON COLUMN billing.contract_version.plan IS 'Plan and version (pro@2) that create or change_plan put the contract on; NULL = none.';
COMMENT ON COLUMN billing.contract_version.ends_on IS 'Day after the contract''s last, as of this version; NULL = evergreen.';
COMMENT ON COLUMN billing.contract_version.ends_at IS 'The contract''s end as an instant, as of this version; NULL = evergreen.';
GRANT SELECT (plan, ends_on, ends_at) ON billing.contract_version TO billing_customer;

-- ── the contract ─────────────────────────────────────────────────────────────────────────────────

ALTER TABLE billing.contract
    ADD COLUMN cancelled_at timestamptz,
    ADD COLUMN notice_given_at timestamptz,
    ADD COLUMN renewal jsonb,
    DROP CONSTRAINT contract_alignment_check,
    ADD CONSTRAINT contract_alignment_check CHECK (alignment ~ '^(calendar|anniversary|fiscal)');
COMMENT ON COLUMN billing.contract.ends_on IS 'Day after the last (exclusive); NULL = evergreen. Of a contract cancelled inside a day the day after that one.';
COMMENT ON COLUMN billing.contract.ends_at IS 'The end as an instant: local midnight of ends_on, or inside the day before where policy proration_basis is second; NULL = evergreen.';
COMMENT ON COLUMN billing.contract.alignment IS 'calendar (firsts of months), anniversary (of starts_on; "anniversary of 2026-01-15": of that day; ", end of month": month ends stay month ends) or fiscal 02-01 (years from 1 February).';
COMMENT ON COLUMN billing.contract.state IS 'draft, scheduled (starts later), active, paused (no fees until it is resumed; usage is billed), ended or cancelled. One that is to end by cancellation is active until its last boundary is billed.';
COMMENT ON COLUMN billing.contract.cancelled_at IS 'Instant it ends (or never began) by cancellation; NULL = not cancelled.';
COMMENT ON COLUMN billing.contract.notice_given_at IS 'When notice was given that it is not to be renewed; NULL = none since the last renewal.';
COMMENT ON COLUMN billing.contract.renewal IS 'Agreed renewal with its dates: {"auto","notice_days","term","uplift","prices","notice_deadline","renews_on"}; NULL = none.';
GRANT UPDATE (cancelled_at, notice_given_at, renewal) ON billing.contract TO billing_engine;
GRANT SELECT (cancelled_at, notice_given_at, renewal) ON billing.contract TO billing_customer;
-- What is paused is billed, too.
DROP INDEX billing.contract_due_idx;
CREATE INDEX contract_due_idx ON billing.contract (stripe, next_bill_at, customer_id, contract_id) WHERE state IN ('scheduled', 'active', 'paused');
CREATE INDEX contract_renewal_idx ON billing.contract (ends_at) WHERE renewal IS NOT NULL;

-- ── terms beside charges, fees and overrides ─────────────────────────────────────────────────────

CREATE TABLE billing.contract_term (
    customer_id bigint NOT NULL,
    contract_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('discount', 'commitment', 'credit', 'entitlement', 'bill_to', 'purchase_order', 'pause')),
    term_key text COLLATE "C" NOT NULL,
    valid_during tstzrange NOT NULL CHECK (NOT isempty(valid_during)),
    from_version int NOT NULL CHECK (from_version > 0),
    until_version int CHECK (until_version > from_version),
    position int NOT NULL,
    terms jsonb NOT NULL,
    PRIMARY KEY (customer_id, contract_id, kind, term_key, from_version, valid_during),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract,
    CONSTRAINT contract_term_validity_excl EXCLUDE USING gist (customer_id WITH =, contract_id WITH =, kind WITH =, term_key WITH =,
        valid_during WITH &&, int4range(from_version, until_version) WITH &&)
);
COMMENT ON TABLE billing.contract_term IS 'What a contract agrees beside charges, fees and overrides: discounts, commitments, credits, entitlements, pauses, and who is billed, by effective range (valid_during) and knowledge (from_version, until_version).';
COMMENT ON COLUMN billing.contract_term.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.contract_term.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.contract_term.kind IS 'discount, commitment, credit, entitlement, bill_to (another legal entity than the first), purchase_order or pause.';
COMMENT ON COLUMN billing.contract_term.term_key IS 'Key, unique among the contract''s terms of its kind; the kind itself where there is only one at a time.';
COMMENT ON COLUMN billing.contract_term.valid_during IS 'When it holds, half-open.';
COMMENT ON COLUMN billing.contract_term.from_version IS 'First contract version that says so (inclusive).';
COMMENT ON COLUMN billing.contract_term.until_version IS 'First contract version that no longer says so (exclusive); NULL = still said.';
COMMENT ON COLUMN billing.contract_term.position IS 'Order: discounts apply in it.';
COMMENT ON COLUMN billing.contract_term.terms IS 'The canonical document of the term.';
SELECT billing_internal.declare_table('billing.contract_term', 'customer-owned', '{until_version}',
    '{customer_id, contract_id, kind, term_key, valid_during, from_version, until_version, position, terms}',
    'EXISTS (SELECT FROM billing.contract k WHERE k.customer_id = contract_term.customer_id AND k.contract_id = contract_term.contract_id AND k.state <> ''draft'')');

-- ── boundaries and lines ─────────────────────────────────────────────────────────────────────────

COMMENT ON TABLE billing.billing_period IS 'Billing periods that have begun or are next, each with the boundary at its start. Boundaries are instants from the moment the row is made, whatever later time zone data say. The last row of a contract that ends is its end: an empty period. Where a contract ends sooner or later than thought, its periods follow.';
GRANT UPDATE (starts_on, ends_on, starts_at, ends_at) ON billing.billing_period TO billing_engine;

ALTER TABLE billing.invoice_line
    DROP CONSTRAINT invoice_line_kind_check,
    ADD CONSTRAINT invoice_line_kind_check CHECK (kind IN ('usage', 'fee', 'true_up', 'cap', 'difference', 'proration', 'commitment')),
    DROP CONSTRAINT invoice_line_check1,
    ADD CONSTRAINT invoice_line_corrects_check CHECK ((kind IN ('difference', 'proration')) = (of_key IS NOT NULL AND of_n IS NOT NULL AND of_kind IS NOT NULL));
COMMENT ON COLUMN billing.invoice_line.kind IS 'usage, fee, commitment (an instalment), true_up (up to a minimum or what was committed), cap (down to a maximum), difference (late usage and corrections: what the line of_key comes to now, less what was billed for it) or proration (the same of a fee: its terms have changed).';
COMMENT ON COLUMN billing.invoice_line.of_n IS 'Of a difference or proration: the boundary of the line it corrects.';
COMMENT ON COLUMN billing.invoice_line.of_key IS 'Of a difference or proration: the key of the line it corrects.';
COMMENT ON COLUMN billing.invoice_line.of_kind IS 'Of a difference or proration: the kind of the line it corrects.';

-- ── views ────────────────────────────────────────────────────────────────────────────────────────

CREATE OR REPLACE VIEW billing.unpriced_usage WITH (security_invoker = true) AS
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
                AND x.state IN ('scheduled', 'active', 'paused', 'ended', 'cancelled') AND c.dimensions @> coalesce(h.terms->'match', '{}')
            LIMIT 1
        ) h ON true
        WHERE h.charge_key IS NULL OR NOT (
            -- a trial costs nothing,
            h.terms ? 'trial' OR
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

CREATE VIEW billing.contract_change WITH (security_invoker = true) AS
    SELECT v.customer_id, c.key AS customer, k.key AS contract, v.version, v.kind, v.effective_at, v.recorded_at, v.plan, v.ends_on, v.change, v.reason
    FROM billing.contract_version v
    JOIN billing.contract k ON k.customer_id = v.customer_id AND k.contract_id = v.contract_id
    JOIN billing.customer c ON c.customer_id = v.customer_id;
COMMENT ON VIEW billing.contract_change IS 'Every change of every contract: what was agreed, from when it holds, since when we know, and why.';
COMMENT ON COLUMN billing.contract_change.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.contract_change.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.contract_change.contract IS 'The contract''s key.';
COMMENT ON COLUMN billing.contract_change.version IS 'Its number, from 1.';
COMMENT ON COLUMN billing.contract_change.kind IS 'create, amend, change_plan, pause, resume, cancel, notice or renew.';
COMMENT ON COLUMN billing.contract_change.effective_at IS 'From when it holds (inclusive).';
COMMENT ON COLUMN billing.contract_change.recorded_at IS 'Real time it was recorded.';
COMMENT ON COLUMN billing.contract_change.plan IS 'Plan and version it put the contract on; NULL = none.';
COMMENT ON COLUMN billing.contract_change.ends_on IS 'Day after the contract''s last as of this change; NULL = evergreen.';
COMMENT ON COLUMN billing.contract_change.change IS 'What was changed.';
COMMENT ON COLUMN billing.contract_change.reason IS 'Why, in the words of the person who did it.';
GRANT SELECT ON billing.contract_change TO billing_engine, billing_reader;

CREATE VIEW billing.contract_item WITH (security_invoker = true) AS
    SELECT k.customer_id, c.key AS customer, k.key AS contract, k.state, k.currency, i.kind, i.item, p.key AS product, m.key AS meter, lower(i.valid_during) AS from_at, upper(i.valid_during) AS until_at,
        i.every, i.terms->'pricing'->>'model' AS model, (i.terms->>'quantity')::numeric AS quantity, i.terms
    FROM (
        SELECT h.customer_id, h.contract_id, h.kind, h.charge_key AS item, h.product_id, h.meter_id, h.valid_during, h.every, h.terms
        FROM billing.contract_charge h WHERE h.until_version IS NULL
        UNION ALL
        SELECT t.customer_id, t.contract_id, t.kind, t.term_key, NULL, NULL, t.valid_during, t.terms->>'every', t.terms FROM billing.contract_term t WHERE t.until_version IS NULL
        UNION ALL
        SELECT o.customer_id, o.contract_id, 'override', coalesce('charge:' || o.charge_key, 'meter:' || x.key) || CASE WHEN o.match = '{}' THEN '' ELSE ' ' || o.match::text END, NULL, o.meter_id, o.valid_during, NULL, o.terms
        FROM billing.price_override o LEFT JOIN billing.meter x USING (meter_id) WHERE o.until_version IS NULL AND o.contract_id IS NOT NULL
    ) i
    JOIN billing.contract k ON k.customer_id = i.customer_id AND k.contract_id = i.contract_id
    JOIN billing.customer c ON c.customer_id = i.customer_id
    LEFT JOIN billing.product p ON p.product_id = i.product_id
    LEFT JOIN billing.meter m ON m.meter_id = i.meter_id;
COMMENT ON VIEW billing.contract_item IS 'What contracts say now, item by item: charges, fees, overrides, discounts, commitments, credits, entitlements, each with the stretch of time in which it holds. Filter by from_at and until_at for what holds at an instant.';
COMMENT ON COLUMN billing.contract_item.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.contract_item.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.contract_item.contract IS 'The contract''s key.';
COMMENT ON COLUMN billing.contract_item.state IS 'The contract''s state.';
COMMENT ON COLUMN billing.contract_item.currency IS 'Currency of its amounts.';
COMMENT ON COLUMN billing.contract_item.kind IS 'usage, fee, override, discount, commitment, credit, entitlement, bill_to, purchase_order or pause.';
COMMENT ON COLUMN billing.contract_item.item IS 'Its key; of an override what it is for.';
COMMENT ON COLUMN billing.contract_item.product IS 'Product of a charge or fee.';
COMMENT ON COLUMN billing.contract_item.meter IS 'Meter of a usage charge or of an override; NULL = none.';
COMMENT ON COLUMN billing.contract_item.from_at IS 'From when it holds (inclusive).';
COMMENT ON COLUMN billing.contract_item.until_at IS 'Until when (exclusive); NULL = no end.';
COMMENT ON COLUMN billing.contract_item.every IS 'Interval of its amounts; NULL = none.';
COMMENT ON COLUMN billing.contract_item.model IS 'Pricing model of its own pricing; NULL = none.';
COMMENT ON COLUMN billing.contract_item.quantity IS 'Quantity of a fee, such as seats; NULL = 1 or none.';
COMMENT ON COLUMN billing.contract_item.terms IS 'Its canonical document.';
GRANT SELECT ON billing.contract_item TO billing_engine, billing_reader;

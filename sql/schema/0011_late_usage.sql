-- Contracts and invoicing, continued: late usage billed as differences, corrections, credit notes.

-- ── what was billed until when, and by what ──────────────────────────────────────────────────────

COMMENT ON COLUMN billing_internal.counter.name IS 'What is counted: customer_id, meter_id, catalogue (bumped by every change that ingest must see), bills/0 to bills/255 (by stripe: bumped by every bill and activation, for callers with an older snapshot).';
INSERT INTO billing_internal.counter SELECT 'bills/' || s, 0 FROM generate_series(0, 255) s;

ALTER TABLE billing.contract ADD COLUMN billed_until timestamptz;
UPDATE billing.contract k SET billed_until = p.starts_at
FROM (SELECT customer_id, contract_id, max(starts_at) AS starts_at FROM billing.billing_period WHERE cut_at IS NOT NULL GROUP BY customer_id, contract_id) p
WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id;
-- Whether anything at all that comes in can be late.
CREATE INDEX contract_billed_idx ON billing.contract (billed_until);
COMMENT ON COLUMN billing.contract.billed_until IS 'Instant of the latest boundary that was billed or closed: usage before it may be late. NULL = none yet.';
GRANT UPDATE (billed_until) ON billing.contract TO billing_engine;
GRANT SELECT (billed_until) ON billing.contract TO billing_customer;

ALTER TABLE billing.billing_period ADD COLUMN terms jsonb;
-- Nobody wrote down by what boundaries were closed. The versions of prices are those that had been published then, with their
-- ends of now; contract, overrides and policies are those of now, and stay so. Policies are those that 0.1.0 put on its
-- invoices: there was no tier_continuity.
UPDATE billing.billing_period p SET terms = jsonb_build_object('minor_units', u.minor_units, 'inputs', jsonb_build_object(
        'contract_version', k.version, 'terms_version', c.terms_version, 'policies', (
            SELECT jsonb_object_agg(d.name, coalesce(o.value, s.value, g.value, d.value))
            FROM (VALUES ('rounding_mode', 'half_up'), ('rounding_level', 'line'), ('proration_basis', 'day'), ('minimum_basis', 'after_discount'), ('rate_at', 'usage_time')) d (name, value)
            LEFT JOIN billing.contract_policy o ON o.customer_id = k.customer_id AND o.contract_id = k.contract_id AND o.name = d.name
            LEFT JOIN billing.policy s ON s.scope = 'seller:' || l.key AND s.name = d.name
            LEFT JOIN billing.policy g ON g.scope = 'global' AND g.name = d.name))
    || (SELECT jsonb_strip_nulls(jsonb_build_object('prices', coalesce(jsonb_agg(v.name ORDER BY v.name), '[]'),
            'price_ends', jsonb_object_agg(v.name, to_char(v.ends_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) FILTER (WHERE v.ends_at IS NOT NULL)))
        FROM (
            SELECT (b.key || '/' || x.key || '@' || x.version) COLLATE "C" AS name,
                -- the end of the last one; the others end where the next begins
                CASE WHEN NOT EXISTS (SELECT FROM billing.price y WHERE y.price_book_id = x.price_book_id AND y.key = x.key AND y.version > x.version) THEN upper(x.valid_during) END AS ends_at
            FROM billing.price x JOIN billing.price_book b USING (price_book_id)
            WHERE x.recorded_at <= p.cut_at AND EXISTS (SELECT FROM billing.contract_charge h
                WHERE h.customer_id = p.customer_id AND h.contract_id = p.contract_id AND h.price_book_id = x.price_book_id AND h.price_key = x.key)
        ) v))
FROM billing.contract k JOIN billing.customer c USING (customer_id) JOIN billing.seller l ON l.seller_id = k.seller_id JOIN billing.currency u ON u.code = k.currency
WHERE p.state = 'closed' AND p.n > 0 AND k.customer_id = p.customer_id AND k.contract_id = p.contract_id
    AND u.valid_from <= (p.cut_at AT TIME ZONE k.time_zone)::date AND (u.valid_until IS NULL OR (p.cut_at AT TIME ZONE k.time_zone)::date < u.valid_until);
COMMENT ON COLUMN billing.billing_period.terms IS 'Of a closed boundary: by what it was computed ({"inputs","minor_units"}, as invoices record it), so that usage that comes later is priced by the same. NULL where invoices say it.';
GRANT UPDATE (terms) ON billing.billing_period TO billing_engine;

-- ── documents ────────────────────────────────────────────────────────────────────────────────────

ALTER TABLE billing.invoice
    ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'invoice' CHECK (kind IN ('invoice', 'correction', 'credit_note')),
    ADD COLUMN corrects int[] NOT NULL DEFAULT '{}',
    ADD COLUMN credits uuid,
    ADD CHECK (kind = 'invoice' OR (state <> 'draft' AND corrects <> '{}')),
    ADD CHECK (kind <> 'credit_note' OR total < 0),
    ADD CHECK (kind <> 'invoice' OR credits IS NULL);
DROP INDEX billing.invoice_live_idx;
-- One live invoice per boundary and legal entity: what can't be billed twice, the table refuses.
CREATE UNIQUE INDEX invoice_live_idx ON billing.invoice (customer_id, contract_id, n, bill_to_id) WHERE state <> 'void' AND kind = 'invoice';
-- Few documents correct earlier ones.
CREATE INDEX invoice_corrects_idx ON billing.invoice (customer_id, contract_id) WHERE corrects <> '{}';
COMMENT ON COLUMN billing.invoice.n IS 'The boundary it bills: arrears of period n−1, advance of period n. Of a correction or credit note the boundary it was made at.';
COMMENT ON COLUMN billing.invoice.kind IS 'invoice (of a boundary), correction (only differences, to be paid) or credit_note (only differences, in the customer''s favour).';
COMMENT ON COLUMN billing.invoice.due_on IS 'Due date: issue date plus net days; of a credit note its issue date.';
COMMENT ON COLUMN billing.invoice.corrects IS 'The boundaries whose lines it corrects by differences.';
COMMENT ON COLUMN billing.invoice.credits IS 'Of a credit note or correction: the invoice it was made for; NULL = several.';
GRANT SELECT (kind, corrects, credits) ON billing.invoice TO billing_customer;

ALTER TABLE billing.invoice_line
    ADD COLUMN of_n int,
    ADD COLUMN of_key text COLLATE "C",
    ADD COLUMN of_kind text COLLATE "C",
    ADD CHECK ((kind = 'difference') = (of_key IS NOT NULL AND of_n IS NOT NULL AND of_kind IS NOT NULL));
COMMENT ON COLUMN billing.invoice_line.kind IS 'usage, fee, true_up (up to a minimum), cap (down to a maximum), difference (late usage and corrections: what the line of_key comes to now, less what was billed for it) or proration.';
COMMENT ON COLUMN billing.invoice_line.of_n IS 'Of a difference: the boundary of the line it corrects.';
COMMENT ON COLUMN billing.invoice_line.of_key IS 'Of a difference: the key of the line it corrects.';
COMMENT ON COLUMN billing.invoice_line.of_kind IS 'Of a difference: the kind of the line it corrects.';
GRANT SELECT (of_n, of_key, of_kind) ON billing.invoice_line TO billing_customer;

CREATE VIEW billing.credit_note WITH (security_invoker = true) AS
    SELECT i.customer_id, i.invoice_id AS credit_note_id, i.number, i.key, i.state, i.contract_id, i.bill_to_id, o.number AS invoice, i.currency, i.issued_on, -i.total AS credited, i.document
    FROM billing.invoice i LEFT JOIN billing.invoice o ON o.customer_id = i.customer_id AND o.invoice_id = i.credits
    WHERE i.kind = 'credit_note';
COMMENT ON VIEW billing.credit_note IS 'The credit notes among the documents of billing.invoice. Their lines are in invoice_line.';
COMMENT ON COLUMN billing.credit_note.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.credit_note.credit_note_id IS 'Its invoice_id.';
COMMENT ON COLUMN billing.credit_note.number IS 'Its number: CN-2026-000001. Gapless, in a series of its own.';
COMMENT ON COLUMN billing.credit_note.key IS 'Its key.';
COMMENT ON COLUMN billing.credit_note.state IS 'open or void.';
COMMENT ON COLUMN billing.credit_note.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.credit_note.bill_to_id IS 'The customer''s legal entity.';
COMMENT ON COLUMN billing.credit_note.invoice IS 'Number of the invoice it credits; NULL where it corrects several.';
COMMENT ON COLUMN billing.credit_note.currency IS 'Currency of its amounts.';
COMMENT ON COLUMN billing.credit_note.issued_on IS 'Issue date, local to the bill_to.';
COMMENT ON COLUMN billing.credit_note.credited IS 'What it credits, above zero, in currency.';
COMMENT ON COLUMN billing.credit_note.document IS 'Its document; amounts are below zero.';
GRANT SELECT ON billing.credit_note TO billing_engine, billing_reader, billing_customer;

COMMENT ON VIEW billing.fact_invoice_line IS 'Billing: one row per line of an issued invoice or credit note (drafts and void ones left out). A difference (late usage, correction) has the service period of the line it corrects, so sums by service month are right.';
COMMENT ON COLUMN billing.fact_invoice_line.invoice IS 'Number of the invoice, correction or credit note.';

-- ── late usage ───────────────────────────────────────────────────────────────────────────────────

CREATE TABLE billing.late_usage (
    customer_id bigint NOT NULL,
    contract_id uuid NOT NULL,
    n int NOT NULL CHECK (n >= 0),
    late_usage_id uuid NOT NULL,
    noted_at timestamptz NOT NULL,
    closed_at timestamptz,
    stripe smallint NOT NULL GENERATED ALWAYS AS (customer_id % 256) STORED,
    PRIMARY KEY (customer_id, contract_id, n, late_usage_id)
);
CREATE INDEX late_usage_open_idx ON billing.late_usage (customer_id, contract_id, n) WHERE closed_at IS NULL;
CREATE INDEX late_usage_stripe_idx ON billing.late_usage (stripe, customer_id, contract_id) WHERE closed_at IS NULL;
COMMENT ON TABLE billing.late_usage IS 'Notes that what a billed or closed boundary comes to may have changed: usage came, was taken back or is measured otherwise. The next bill of the contract compares those boundaries and closes the notes. They only make the search fast: verify() compares everything.';
COMMENT ON COLUMN billing.late_usage.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.late_usage.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.late_usage.n IS 'The boundary: usage of period n−1.';
COMMENT ON COLUMN billing.late_usage.late_usage_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.late_usage.noted_at IS 'Real time.';
COMMENT ON COLUMN billing.late_usage.closed_at IS 'Real time of the bill that compared it; NULL = the next one will.';
COMMENT ON COLUMN billing.late_usage.stripe IS 'customer_id mod 256: the lock under which it is billed.';
SELECT billing_internal.declare_table('billing.late_usage', 'customer-owned', '{closed_at}', '{customer_id, contract_id, n, noted_at, closed_at}');
-- What came after its boundary had been billed was kept, but nobody was to bill it: the next bill compares.
INSERT INTO billing.late_usage (customer_id, contract_id, n, late_usage_id, noted_at)
SELECT p.customer_id, p.contract_id, p.n, billing_internal.uuid_v7(), clock_timestamp()
FROM billing.billing_period p JOIN billing.billing_period q ON q.customer_id = p.customer_id AND q.contract_id = p.contract_id AND q.n = p.n - 1
WHERE p.state <> 'due' AND EXISTS (SELECT FROM billing.usage_event e
    WHERE e.customer_id = p.customer_id AND e.occurred_at >= q.starts_at AND e.occurred_at < q.ends_at AND e.recorded_at >= p.cut_at);

-- Invoicing: documents that are never changed once they have a number.

CREATE TABLE billing.invoice (
    customer_id bigint NOT NULL,
    invoice_id uuid NOT NULL,
    contract_id uuid NOT NULL,
    n int NOT NULL CHECK (n >= 0),
    seller_id uuid NOT NULL REFERENCES billing.seller,
    bill_to_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('draft', 'open', 'paid', 'uncollectible', 'void')),
    number text COLLATE "C",
    currency text COLLATE "C" NOT NULL,
    minor_units smallint NOT NULL,
    period_starts_at timestamptz NOT NULL,
    period_ends_at timestamptz NOT NULL,
    issued_on date NOT NULL,
    due_on date NOT NULL,
    lines_total numeric NOT NULL,
    total numeric NOT NULL,
    contract_version int NOT NULL,
    terms_version int NOT NULL,
    cut_at timestamptz NOT NULL,
    input_sha256 text COLLATE "C" NOT NULL,
    document jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    voided_at timestamptz,
    void_reason text,
    reissue boolean,
    replaces uuid,
    CHECK ((state = 'draft') = (number IS NULL)),
    CHECK ((state = 'void') = (voided_at IS NOT NULL)),
    CHECK ((state = 'void') = (reissue IS NOT NULL)),
    PRIMARY KEY (customer_id, invoice_id),
    UNIQUE (customer_id, key),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract,
    FOREIGN KEY (customer_id, bill_to_id) REFERENCES billing.bill_to (customer_id, bill_to_id)
);
-- One live invoice per boundary and legal entity: what can't be billed twice, the table refuses.
CREATE UNIQUE INDEX invoice_live_idx ON billing.invoice (customer_id, contract_id, n, bill_to_id) WHERE state <> 'void';
-- An invoice is asked for by its key or id alone; drafts have no number.
CREATE INDEX invoice_key_idx ON billing.invoice (key);
CREATE INDEX invoice_id_idx ON billing.invoice (invoice_id);
CREATE INDEX invoice_contract_idx ON billing.invoice (customer_id, contract_id, period_ends_at);
COMMENT ON TABLE billing.invoice IS 'Invoices: drafts, and those with a number, whose content never changes.';
COMMENT ON COLUMN billing.invoice.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.invoice.invoice_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.invoice.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.invoice.n IS 'The boundary it bills: arrears of period n−1, advance of period n.';
COMMENT ON COLUMN billing.invoice.seller_id IS 'Our legal entity.';
COMMENT ON COLUMN billing.invoice.bill_to_id IS 'The customer''s legal entity.';
COMMENT ON COLUMN billing.invoice.key IS 'Its name before and beside the number: contract/boundary, .2 or .3 after voids, :bill_to if it is not the contract''s own. Unique in the installation: what follows the last slash has no other (a / of the bill_to is written %2F, a % %25).';
COMMENT ON COLUMN billing.invoice.state IS 'draft, open, paid, uncollectible or void.';
COMMENT ON COLUMN billing.invoice.number IS 'Its number; NULL while a draft. Gapless per seller, series and fiscal year.';
COMMENT ON COLUMN billing.invoice.currency IS 'Currency of all its amounts.';
COMMENT ON COLUMN billing.invoice.minor_units IS 'Digits after the point of its posted amounts, as they were on the issue date.';
COMMENT ON COLUMN billing.invoice.period_starts_at IS 'Earliest service instant on it (inclusive).';
COMMENT ON COLUMN billing.invoice.period_ends_at IS 'Latest service instant on it (exclusive).';
COMMENT ON COLUMN billing.invoice.issued_on IS 'Issue date, local to the bill_to.';
COMMENT ON COLUMN billing.invoice.due_on IS 'Due date: issue date plus net days.';
COMMENT ON COLUMN billing.invoice.lines_total IS 'Sum of its lines, before tax, in currency.';
COMMENT ON COLUMN billing.invoice.total IS 'What it asks for, in currency.';
COMMENT ON COLUMN billing.invoice.contract_version IS 'Version of the contract''s terms it was made from.';
COMMENT ON COLUMN billing.invoice.terms_version IS 'customer.terms_version it was made from.';
COMMENT ON COLUMN billing.invoice.cut_at IS 'Real clock under the exclusive lock: it counts the events recorded up to here.';
COMMENT ON COLUMN billing.invoice.input_sha256 IS 'SHA-256 of everything it was computed from.';
COMMENT ON COLUMN billing.invoice.document IS 'The invoice_document: what preview, draft and final share (docs/invoicing.md).';
COMMENT ON COLUMN billing.invoice.created_at IS 'Real time.';
COMMENT ON COLUMN billing.invoice.voided_at IS 'When it was voided; NULL = not.';
COMMENT ON COLUMN billing.invoice.void_reason IS 'Why it was voided.';
COMMENT ON COLUMN billing.invoice.reissue IS 'Of a voided one: whether its boundary is billed again; false = the void stands for good. NULL = not voided.';
COMMENT ON COLUMN billing.invoice.replaces IS 'The voided invoice it stands for.';
SELECT billing_internal.declare_table('billing.invoice', 'customer-owned', '{state, voided_at, void_reason, reissue}',
    '{customer_id, invoice_id, contract_id, n, seller_id, bill_to_id, key, state, number, currency, minor_units, period_starts_at, period_ends_at, issued_on, due_on, lines_total, total, cut_at, document, created_at, voided_at, reissue, replaces}', 'state <> ''draft''');

CREATE TABLE billing.invoice_line (
    customer_id bigint NOT NULL,
    invoice_id uuid NOT NULL,
    line_n int NOT NULL CHECK (line_n > 0),
    key text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('usage', 'fee', 'true_up', 'cap', 'difference', 'proration')),
    charge_key text COLLATE "C" NOT NULL,
    product_id uuid REFERENCES billing.product,
    meter_id int,
    label text NOT NULL,
    service_from timestamptz NOT NULL,
    service_until timestamptz NOT NULL CHECK (service_until >= service_from),
    dimensions jsonb NOT NULL DEFAULT '{}',
    line_by text[] COLLATE "C" NOT NULL DEFAULT '{}',
    match jsonb NOT NULL DEFAULT '{}',
    quantity numeric,
    unit text,
    price text,
    pricing jsonb,
    exact numeric NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (customer_id, invoice_id, line_n),
    UNIQUE (customer_id, invoice_id, key),
    FOREIGN KEY (customer_id, invoice_id) REFERENCES billing.invoice ON DELETE CASCADE
);
CREATE INDEX invoice_line_service_idx ON billing.invoice_line (customer_id, charge_key, service_from);
COMMENT ON TABLE billing.invoice_line IS 'The lines of invoices. Each was rounded once, from its exact amount.';
COMMENT ON COLUMN billing.invoice_line.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.invoice_line.invoice_id IS 'The invoice.';
COMMENT ON COLUMN billing.invoice_line.line_n IS 'Position, from 1.';
COMMENT ON COLUMN billing.invoice_line.key IS 'charge/service date/dimensions: the same line of a recompute has the same key.';
COMMENT ON COLUMN billing.invoice_line.kind IS 'usage, fee, true_up (up to a minimum), cap (down to a maximum), difference (late usage) or proration.';
COMMENT ON COLUMN billing.invoice_line.charge_key IS 'The contract''s charge or fee.';
COMMENT ON COLUMN billing.invoice_line.product_id IS 'What it is for.';
COMMENT ON COLUMN billing.invoice_line.meter_id IS 'The meter of a usage line.';
COMMENT ON COLUMN billing.invoice_line.label IS 'What a person reads.';
COMMENT ON COLUMN billing.invoice_line.service_from IS 'Start of its service (inclusive).';
COMMENT ON COLUMN billing.invoice_line.service_until IS 'End of its service (exclusive).';
COMMENT ON COLUMN billing.invoice_line.dimensions IS 'The dimension values of this line.';
COMMENT ON COLUMN billing.invoice_line.line_by IS 'The dimensions by which lines of this charge were kept apart.';
COMMENT ON COLUMN billing.invoice_line.match IS 'The part of the meter that the charge takes.';
COMMENT ON COLUMN billing.invoice_line.quantity IS 'Quantity in unit, exact; NULL for true-ups and caps.';
COMMENT ON COLUMN billing.invoice_line.unit IS 'Unit of the quantity.';
COMMENT ON COLUMN billing.invoice_line.price IS 'Where the price came from: contract override, tokens@1.';
COMMENT ON COLUMN billing.invoice_line.pricing IS 'The resolved pricing document.';
COMMENT ON COLUMN billing.invoice_line.exact IS 'Amount before rounding, to 18 places where it has no end.';
COMMENT ON COLUMN billing.invoice_line.amount IS 'Posted amount in the invoice''s currency.';
SELECT billing_internal.declare_table('billing.invoice_line', 'customer-owned', '{}',
    '{customer_id, invoice_id, line_n, key, kind, charge_key, product_id, meter_id, label, service_from, service_until, dimensions, line_by, match, quantity, unit, price, pricing, exact, amount}',
    'EXISTS (SELECT FROM billing.invoice i WHERE i.customer_id = invoice_line.customer_id AND i.invoice_id = invoice_line.invoice_id AND i.state <> ''draft'')');

CREATE TABLE billing.invoice_number_series (
    seller_id uuid NOT NULL REFERENCES billing.seller,
    series text COLLATE "C" NOT NULL,
    fiscal_year int NOT NULL,
    last_number bigint NOT NULL DEFAULT 0 CHECK (last_number >= 0),
    PRIMARY KEY (seller_id, series, fiscal_year)
);
COMMENT ON TABLE billing.invoice_number_series IS 'Last number given out per seller, series and fiscal year. A locked row, not a sequence: a failed finalization burns no number.';
COMMENT ON COLUMN billing.invoice_number_series.seller_id IS 'The seller.';
COMMENT ON COLUMN billing.invoice_number_series.series IS 'Prefix of the numbers.';
COMMENT ON COLUMN billing.invoice_number_series.fiscal_year IS 'Fiscal year of the issue date in the seller''s zone, named by the calendar year it begins in.';
COMMENT ON COLUMN billing.invoice_number_series.last_number IS 'The last one given out; 0 = none yet.';
SELECT billing_internal.declare_table('billing.invoice_number_series', 'seller-owned', '{last_number}');

CREATE TABLE billing.invoice_number (
    number text COLLATE "C" NOT NULL,
    seller_id uuid NOT NULL REFERENCES billing.seller,
    series text COLLATE "C" NOT NULL,
    fiscal_year int NOT NULL,
    counter bigint NOT NULL CHECK (counter > 0),
    customer_id bigint NOT NULL,
    invoice_id uuid NOT NULL,
    PRIMARY KEY (seller_id, series, fiscal_year, counter),
    UNIQUE (number, seller_id)
);
CREATE INDEX invoice_number_customer_idx ON billing.invoice_number (customer_id, invoice_id);
COMMENT ON TABLE billing.invoice_number IS 'Every number ever given out and the invoice that bears it, void ones included.';
COMMENT ON COLUMN billing.invoice_number.number IS 'The number: INV-2026-000001.';
COMMENT ON COLUMN billing.invoice_number.seller_id IS 'The seller.';
COMMENT ON COLUMN billing.invoice_number.series IS 'Its series.';
COMMENT ON COLUMN billing.invoice_number.fiscal_year IS 'Its fiscal year.';
COMMENT ON COLUMN billing.invoice_number.counter IS 'Its place in the series: 1, 2, 3 …';
COMMENT ON COLUMN billing.invoice_number.customer_id IS 'Whose invoice it is.';
COMMENT ON COLUMN billing.invoice_number.invoice_id IS 'The invoice.';
SELECT billing_internal.declare_table('billing.invoice_number', 'directory', '{}',
    '{number, seller_id, series, fiscal_year, counter, customer_id, invoice_id}');

-- A document is over 2 kB, so it is compressed: with lz4, where the server has it, in a fifth of the time.
DO $$
BEGIN
    IF (SELECT 'lz4' = ANY (s.enumvals) FROM pg_catalog.pg_settings s WHERE s.name = 'default_toast_compression') THEN
        ALTER TABLE billing.invoice ALTER COLUMN document SET COMPRESSION lz4;
    END IF;
END
$$;

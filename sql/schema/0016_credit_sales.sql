-- Credits, continued: debts that later credit has paid, and invoices for credit that is sold by itself.

ALTER TABLE billing.credit_allocation ADD COLUMN absorbed_from uuid;
CREATE INDEX credit_allocation_absorbed_idx ON billing.credit_allocation (customer_id, absorbed_from) WHERE absorbed_from IS NOT NULL;
COMMENT ON COLUMN billing.credit_allocation.absorbed_from IS 'The block whose debt this paid off: the draw was its before. NULL = drawn here at once.';
GRANT SELECT (absorbed_from) ON billing.credit_allocation TO billing_customer;
-- Only these can be in debt. What a draw changes is in no index, so it stays on its page.
CREATE INDEX credit_grant_overdraft_idx ON billing.credit_grant (customer_id, unit) WHERE overdraft IS NOT NULL AND voided_at IS NULL;

ALTER TABLE billing.credit_pool ADD COLUMN invoiced boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN billing.credit_pool.invoiced IS 'Whether its sale stands on an invoice of its own (billing.invoice.pool_id); false: a contract''s invoices have it, or it was sold elsewhere.';
GRANT SELECT (invoiced) ON billing.credit_pool TO billing_customer;
ALTER TABLE billing.top_up_rule ADD COLUMN invoiced boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN billing.top_up_rule.invoiced IS 'Whether each top-up makes an invoice.';
GRANT SELECT (invoiced) ON billing.top_up_rule TO billing_customer;

-- What is sold by itself is of no contract's boundary.
ALTER TABLE billing.invoice
    ALTER COLUMN contract_id DROP NOT NULL,
    ALTER COLUMN n DROP NOT NULL,
    ALTER COLUMN contract_version DROP NOT NULL,
    ADD COLUMN pool_id uuid,
    DROP CONSTRAINT invoice_kind_check,
    ADD CONSTRAINT invoice_kind_check CHECK (kind IN ('invoice', 'correction', 'credit_note', 'credit_sale')),
    DROP CONSTRAINT invoice_check3,
    ADD CONSTRAINT invoice_corrects_check CHECK (kind = 'invoice' OR (state <> 'draft' AND (corrects <> '{}' OR pool_id IS NOT NULL))),
    ADD CONSTRAINT invoice_pool_check CHECK (CASE WHEN pool_id IS NULL THEN kind <> 'credit_sale' AND contract_id IS NOT NULL AND n IS NOT NULL AND contract_version IS NOT NULL
        ELSE kind IN ('credit_sale', 'credit_note') AND contract_id IS NULL AND n IS NULL AND corrects = '{}' END),
    ADD FOREIGN KEY (customer_id, pool_id) REFERENCES billing.credit_pool;
CREATE UNIQUE INDEX invoice_pool_idx ON billing.invoice (customer_id, pool_id) WHERE kind = 'credit_sale';
COMMENT ON COLUMN billing.invoice.contract_id IS 'The contract; NULL = of credit that was sold by itself.';
COMMENT ON COLUMN billing.invoice.n IS 'The boundary it bills: arrears of period n−1, advance of period n. Of a correction or credit note the boundary it was made at; NULL = of credit that was sold by itself.';
COMMENT ON COLUMN billing.invoice.contract_version IS 'Version of the contract''s terms it was made from; NULL = of credit that was sold by itself.';
COMMENT ON COLUMN billing.invoice.kind IS 'invoice (of a boundary), correction (only differences, to be paid), credit_note (in the customer''s favour: differences, or credit that is refunded) or credit_sale (credit that was bought by itself).';
COMMENT ON COLUMN billing.invoice.pool_id IS 'Of a credit_sale: the purchase; of a credit note: the purchase of which credit was refunded. NULL = of a contract.';
GRANT SELECT (pool_id) ON billing.invoice TO billing_customer;

ALTER TABLE billing.invoice_line
    DROP CONSTRAINT invoice_line_kind_check,
    ADD CONSTRAINT invoice_line_kind_check CHECK (kind IN ('usage', 'fee', 'true_up', 'cap', 'difference', 'proration', 'commitment', 'credit'));
COMMENT ON COLUMN billing.invoice_line.kind IS 'usage, fee, commitment (an instalment), credit (sold or refunded), true_up (up to a minimum or what was committed), cap (down to a maximum), difference (late usage and corrections: what the line of_key comes to now, less what was billed for it) or proration (the same of a fee: its terms have changed).';
COMMENT ON COLUMN billing.invoice_line.charge_key IS 'The contract''s charge or fee; of credit the purchase.';

CREATE OR REPLACE VIEW billing.fact_invoice_line WITH (security_invoker = true) AS
    SELECT i.customer_id, c.key AS customer, i.number AS invoice, i.state, i.issued_on, i.due_on, date_trunc('month', i.issued_on)::date AS issued_month,
        k.key AS contract, b.key AS bill_to, s.key AS seller, l.line_n, l.key AS line_key, l.kind, l.charge_key AS charge, l.product_id, p.key AS product,
        m.key AS meter, l.label, (l.service_from AT TIME ZONE z.zone)::date AS service_day, date_trunc('month', l.service_from AT TIME ZONE z.zone)::date AS service_month,
        l.service_from, l.service_until, l.dimensions, l.dimensions->>'model' AS model, l.dimensions->>'region' AS region,
        l.quantity::numeric(50, 12) AS quantity, l.unit, l.price, i.currency, l.amount::numeric(38, 6) AS amount
    FROM billing.invoice i
    JOIN billing.invoice_line l USING (customer_id, invoice_id)
    JOIN billing.customer c USING (customer_id)
    LEFT JOIN billing.contract k USING (customer_id, contract_id)
    JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id
    JOIN billing.seller s ON s.seller_id = i.seller_id
    LEFT JOIN billing.product p ON p.product_id = l.product_id
    LEFT JOIN billing.meter m ON m.meter_id = l.meter_id
    CROSS JOIN LATERAL (SELECT coalesce(k.time_zone, c.time_zone) AS zone) z
    WHERE i.state NOT IN ('draft', 'void');
COMMENT ON COLUMN billing.fact_invoice_line.contract IS 'Contract key; NULL = credit that was sold by itself.';
COMMENT ON COLUMN billing.fact_invoice_line.kind IS 'usage, fee, commitment, credit (sold by itself: the usage that draws it is billed, too), true_up, cap, difference or proration.';

-- Invoicing, continued: what credit pays of invoices.

ALTER TABLE billing.invoice ADD COLUMN credits_applied numeric NOT NULL DEFAULT 0;
COMMENT ON COLUMN billing.invoice.total IS 'Sum of lines and taxes, in currency; what is due is total − credits_applied.';
COMMENT ON COLUMN billing.invoice.credits_applied IS 'What credit pays of the total, in currency: the rows of credit_allocation; below 0 = credit that is given back, so more is due.';
COMMENT ON COLUMN billing.invoice.state IS 'draft, open, paid (also where nothing is due, since credit paid it all), uncollectible or void.';
GRANT SELECT (credits_applied) ON billing.invoice TO billing_customer;
-- What is given back may be credit that pays for what was billed.
ALTER TABLE billing.invoice
    DROP CONSTRAINT invoice_check4,
    ADD CONSTRAINT invoice_credit_note_check CHECK (kind <> 'credit_note' OR total < 0 OR total < credits_applied);
CREATE OR REPLACE VIEW billing.credit_note WITH (security_invoker = true) AS
    SELECT i.customer_id, i.invoice_id AS credit_note_id, i.number, i.key, i.state, i.contract_id, i.bill_to_id, o.number AS invoice, i.currency, i.issued_on, i.credits_applied - i.total AS credited, i.document
    FROM billing.invoice i LEFT JOIN billing.invoice o ON o.customer_id = i.customer_id AND o.invoice_id = i.credits
    WHERE i.kind = 'credit_note';
COMMENT ON COLUMN billing.credit_note.state IS 'open, paid (nothing is given back in money: what it credits goes back to blocks of credit) or void.';
COMMENT ON COLUMN billing.credit_note.credited IS 'What it gives back in money, in currency; what it gives back to blocks of credit stands in credit_allocation.';

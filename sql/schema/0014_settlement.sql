-- Invoicing, continued: what credit pays of invoices.

ALTER TABLE billing.invoice ADD COLUMN credits_applied numeric NOT NULL DEFAULT 0;
COMMENT ON COLUMN billing.invoice.total IS 'Sum of lines and taxes, in currency; what is due is total − credits_applied.';
COMMENT ON COLUMN billing.invoice.credits_applied IS 'What credit pays of the total, in currency: the rows of credit_allocation; below 0 = credit that is given back, so more is due.';
COMMENT ON COLUMN billing.invoice.state IS 'draft, open, paid (also where nothing is due, since credit paid it all), uncollectible or void.';
GRANT SELECT (credits_applied) ON billing.invoice TO billing_customer;

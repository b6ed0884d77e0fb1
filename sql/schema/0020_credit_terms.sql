-- Contracts, continued: the order in which credit is drawn, and what happens at its end, can be amended.

ALTER TABLE billing.contract_term
    DROP CONSTRAINT contract_term_kind_check,
    ADD CONSTRAINT contract_term_kind_check CHECK (kind IN ('discount', 'commitment', 'credit', 'entitlement', 'bill_to', 'purchase_order', 'pause', 'credit_mode', 'credit_order'));
COMMENT ON TABLE billing.contract_term IS 'What a contract agrees beside charges, fees and overrides: discounts, commitments, credits, entitlements, pauses, who is billed, and how credit is drawn where that was amended, by effective range (valid_during) and knowledge (from_version, until_version).';
COMMENT ON COLUMN billing.contract_term.kind IS 'discount, commitment, credit, entitlement, bill_to (another legal entity than the first), purchase_order, pause, or credit_mode and credit_order (where they are not as signed).';
COMMENT ON COLUMN billing.contract_item.kind IS 'usage, fee, override, discount, commitment, credit, entitlement, bill_to, purchase_order, pause, credit_mode or credit_order.';

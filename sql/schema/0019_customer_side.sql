-- What a customer's login reads in plain SQL: its contracts, usage and invoices. Views run with their reader's rights, so
-- a login sees the customers it speaks for, staff all of them, and nobody what is kept back from customers (drafts, costs,
-- notes). What has to be computed (spend, credit, entitlements) are functions: sql/ext/90_customer_side.sql.

CREATE VIEW billing.my_contract WITH (security_invoker = true) AS
    SELECT k.customer_id, c.key AS customer, k.key AS contract, k.state, p.key AS plan, p.name AS plan_name, s.name AS seller, k.currency, k.time_zone, k.starts_on, k.ends_on,
        k.billed_every, n.starts_on AS period_starts_on, n.ends_on AS period_ends_on, (k.next_bill_at AT TIME ZONE k.time_zone)::date AS next_invoice_on,
        k.net_days, k.collection, coalesce((k.renewal->>'auto')::boolean, false) AND k.notice_given_at IS NULL AND k.cancelled_at IS NULL AS renews,
        (k.renewal->>'notice_deadline')::date AS notice_deadline, k.signed_at
    FROM billing.contract k
    JOIN billing.customer c USING (customer_id)
    JOIN billing.seller s ON s.seller_id = k.seller_id
    LEFT JOIN billing.plan p ON p.plan_id = k.plan_id
    LEFT JOIN billing.billing_period n ON n.customer_id = k.customer_id AND n.contract_id = k.contract_id AND n.n = greatest(k.next_n - 1, 0) AND n.ends_on > n.starts_on AND k.next_bill_at IS NOT NULL
    WHERE k.state <> 'draft';
COMMENT ON VIEW billing.my_contract IS 'The contracts of the customers you may see; drafts are left out. One row per contract.';
COMMENT ON COLUMN billing.my_contract.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.my_contract.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.my_contract.contract IS 'The contract''s key.';
COMMENT ON COLUMN billing.my_contract.state IS 'scheduled (starts later), active, paused, ended or cancelled.';
COMMENT ON COLUMN billing.my_contract.plan IS 'Key of the plan it was made on; NULL = none.';
COMMENT ON COLUMN billing.my_contract.plan_name IS 'Name of that plan.';
COMMENT ON COLUMN billing.my_contract.seller IS 'Who it is with.';
COMMENT ON COLUMN billing.my_contract.currency IS 'Currency of all its amounts (ISO 4217).';
COMMENT ON COLUMN billing.my_contract.time_zone IS 'IANA zone of its days.';
COMMENT ON COLUMN billing.my_contract.starts_on IS 'First day, in time_zone.';
COMMENT ON COLUMN billing.my_contract.ends_on IS 'Day after the last one, in time_zone; NULL = no end agreed.';
COMMENT ON COLUMN billing.my_contract.billed_every IS 'Billing interval: 1 month, 3 months …';
COMMENT ON COLUMN billing.my_contract.period_starts_on IS 'First day of the earliest period whose usage is not billed yet, in time_zone; NULL = nothing left to bill.';
COMMENT ON COLUMN billing.my_contract.period_ends_on IS 'Day after the last one of that period, in time_zone.';
COMMENT ON COLUMN billing.my_contract.next_invoice_on IS 'Day of the next invoice, in time_zone; NULL = none to come.';
COMMENT ON COLUMN billing.my_contract.net_days IS 'Days from an invoice''s issue to its due date.';
COMMENT ON COLUMN billing.my_contract.collection IS 'send_invoice or charge_automatically.';
COMMENT ON COLUMN billing.my_contract.renews IS 'Whether it renews by itself at its end, as things stand.';
COMMENT ON COLUMN billing.my_contract.notice_deadline IS 'Last day on which notice keeps it from renewing, in time_zone; NULL = no renewal agreed.';
COMMENT ON COLUMN billing.my_contract.signed_at IS 'When it was signed; NULL = not recorded.';
GRANT SELECT ON billing.my_contract TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing.my_usage WITH (security_invoker = true) AS
    SELECT u.customer_id, u.customer, u.day, u.meter, u.unit, u.aggregation, u.dimensions, u.quantity, u.events FROM billing.usage_daily u;
COMMENT ON VIEW billing.my_usage IS 'Usage of the customers you may see, current at commit: one row per local day, meter and dimension values.';
COMMENT ON COLUMN billing.my_usage.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.my_usage.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.my_usage.day IS 'Local date in the customer''s time zone.';
COMMENT ON COLUMN billing.my_usage.meter IS 'The meter''s key.';
COMMENT ON COLUMN billing.my_usage.unit IS 'What one unit of quantity is called.';
COMMENT ON COLUMN billing.my_usage.aggregation IS 'count and sum add up over days; of max take the maximum; unique_count does not add up: billing.usage() counts over longer times.';
COMMENT ON COLUMN billing.my_usage.dimensions IS 'Dimension values: {"model":"gpt-4"}.';
COMMENT ON COLUMN billing.my_usage.quantity IS 'The aggregated value, in unit.';
COMMENT ON COLUMN billing.my_usage.events IS 'How many events counted.';
GRANT SELECT ON billing.my_usage TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing.my_invoices WITH (security_invoker = true) AS
    SELECT i.customer_id, c.key AS customer, k.key AS contract, i.number AS invoice, i.kind, i.state, b.name AS bill_to, s.name AS seller,
        i.issued_on, i.due_on, (i.period_starts_at AT TIME ZONE coalesce(k.time_zone, c.time_zone))::date AS service_from, (i.period_ends_at AT TIME ZONE coalesce(k.time_zone, c.time_zone))::date AS service_until,
        i.currency, i.total::numeric(38, 6) AS total, i.credits_applied::numeric(38, 6) AS credits_applied, (i.total - i.credits_applied)::numeric(38, 6) AS due,
        CASE WHEN i.state = 'open' THEN i.total - i.credits_applied ELSE 0 END::numeric(38, 6) AS open_amount
    FROM billing.invoice i
    JOIN billing.customer c USING (customer_id)
    LEFT JOIN billing.contract k USING (customer_id, contract_id)
    JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id
    JOIN billing.seller s ON s.seller_id = i.seller_id
    WHERE i.state <> 'draft';
COMMENT ON VIEW billing.my_invoices IS 'Invoices and credit notes of the customers you may see; drafts are left out. Their lines: billing.fact_invoice_line, and billing.invoice_explain(invoice).';
COMMENT ON COLUMN billing.my_invoices.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.my_invoices.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.my_invoices.contract IS 'The contract''s key; NULL = of credit that was bought by itself.';
COMMENT ON COLUMN billing.my_invoices.invoice IS 'Its number.';
COMMENT ON COLUMN billing.my_invoices.kind IS 'invoice, correction (only differences, to be paid), credit_sale (credit bought by itself) or credit_note (in the customer''s favour: amounts below 0).';
COMMENT ON COLUMN billing.my_invoices.state IS 'open, paid, uncollectible or void.';
COMMENT ON COLUMN billing.my_invoices.bill_to IS 'The legal entity it is addressed to.';
COMMENT ON COLUMN billing.my_invoices.seller IS 'Who issued it.';
COMMENT ON COLUMN billing.my_invoices.issued_on IS 'Issue date, local to bill_to.';
COMMENT ON COLUMN billing.my_invoices.due_on IS 'Due date.';
COMMENT ON COLUMN billing.my_invoices.service_from IS 'First day of what it is for, in the contract''s zone (without one, the customer''s).';
COMMENT ON COLUMN billing.my_invoices.service_until IS 'Day after the last one, in the contract''s zone (without one, the customer''s).';
COMMENT ON COLUMN billing.my_invoices.currency IS 'Currency of its amounts (ISO 4217).';
COMMENT ON COLUMN billing.my_invoices.total IS 'Sum of its lines and taxes, in currency.';
COMMENT ON COLUMN billing.my_invoices.credits_applied IS 'What credit paid of it, in currency; below 0 = credit that is given back.';
COMMENT ON COLUMN billing.my_invoices.due IS 'total − credits_applied: what it asked for in money, in currency.';
COMMENT ON COLUMN billing.my_invoices.open_amount IS 'What of that is not settled yet: due while it is open, else 0; in currency.';
GRANT SELECT ON billing.my_invoices TO billing_engine, billing_reader, billing_customer;

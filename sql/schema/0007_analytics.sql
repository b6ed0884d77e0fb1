-- Analytics: a star schema that BI tools read as it is: bounded numerics (bare numeric becomes a float in many
-- readers), no custom types, a comment on every column.

CREATE VIEW billing.dim_customer WITH (security_invoker = true) AS
    SELECT c.customer_id, c.key AS customer, c.name AS customer_name, s.key AS seller, c.currency, c.time_zone,
        c.attributes->>'segment' AS segment, c.attributes->>'channel' AS channel, c.attributes->>'region' AS region, c.attributes,
        (SELECT count(*)::int FROM billing.contract k WHERE k.customer_id = c.customer_id AND k.state IN ('scheduled', 'active', 'paused')) AS live_contracts,
        (SELECT min(k.starts_on) FROM billing.contract k WHERE k.customer_id = c.customer_id AND k.state <> 'draft') AS customer_since,
        c.created_at
    FROM billing.customer c JOIN billing.seller s USING (seller_id);
COMMENT ON VIEW billing.dim_customer IS 'One row per customer.';
COMMENT ON COLUMN billing.dim_customer.customer_id IS 'Joins the facts.';
COMMENT ON COLUMN billing.dim_customer.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.dim_customer.customer_name IS 'Display name.';
COMMENT ON COLUMN billing.dim_customer.seller IS 'Key of our legal entity it is with.';
COMMENT ON COLUMN billing.dim_customer.currency IS 'Default currency.';
COMMENT ON COLUMN billing.dim_customer.time_zone IS 'IANA zone of its days.';
COMMENT ON COLUMN billing.dim_customer.segment IS 'Attribute segment, if you set it.';
COMMENT ON COLUMN billing.dim_customer.channel IS 'Attribute channel, if you set it.';
COMMENT ON COLUMN billing.dim_customer.region IS 'Attribute region, if you set it.';
COMMENT ON COLUMN billing.dim_customer.attributes IS 'All attributes.';
COMMENT ON COLUMN billing.dim_customer.live_contracts IS 'Contracts scheduled, active or paused.';
COMMENT ON COLUMN billing.dim_customer.customer_since IS 'First day of its first contract; NULL = none yet.';
COMMENT ON COLUMN billing.dim_customer.created_at IS 'When it was made here.';
GRANT SELECT ON billing.dim_customer TO billing_engine, billing_reader;

CREATE VIEW billing.dim_product WITH (security_invoker = true) AS
    SELECT p.product_id, p.key AS product, p.name AS product_name, p.retired_at IS NOT NULL AS retired FROM billing.product p;
COMMENT ON VIEW billing.dim_product IS 'One row per product.';
COMMENT ON COLUMN billing.dim_product.product_id IS 'Joins fact_invoice_line.';
COMMENT ON COLUMN billing.dim_product.product IS 'The product''s key.';
COMMENT ON COLUMN billing.dim_product.product_name IS 'Its name.';
COMMENT ON COLUMN billing.dim_product.retired IS 'Whether it is withdrawn.';
GRANT SELECT ON billing.dim_product TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing.dim_date AS
    SELECT d::date AS day, extract(year FROM d)::int AS year, extract(quarter FROM d)::int AS quarter, extract(month FROM d)::int AS month,
        date_trunc('month', d)::date AS month_start, date_trunc('quarter', d)::date AS quarter_start, date_trunc('year', d)::date AS year_start,
        extract(week FROM d)::int AS iso_week, extract(isodow FROM d)::int AS iso_weekday, extract(isodow FROM d) >= 6 AS weekend,
        to_char(d, 'FMMonth YYYY') AS month_name
    FROM generate_series(timestamp '2015-01-01', timestamp '2040-12-31', interval '1 day') d;
COMMENT ON VIEW billing.dim_date IS 'One row per day from 2015 to 2040.';
COMMENT ON COLUMN billing.dim_date.day IS 'Joins the facts'' days.';
COMMENT ON COLUMN billing.dim_date.year IS 'Calendar year.';
COMMENT ON COLUMN billing.dim_date.quarter IS '1 to 4.';
COMMENT ON COLUMN billing.dim_date.month IS '1 to 12.';
COMMENT ON COLUMN billing.dim_date.month_start IS 'First day of its month.';
COMMENT ON COLUMN billing.dim_date.quarter_start IS 'First day of its quarter.';
COMMENT ON COLUMN billing.dim_date.year_start IS 'First day of its year.';
COMMENT ON COLUMN billing.dim_date.iso_week IS 'ISO week, 1 to 53.';
COMMENT ON COLUMN billing.dim_date.iso_weekday IS '1 = Monday to 7 = Sunday.';
COMMENT ON COLUMN billing.dim_date.weekend IS 'Saturday or Sunday.';
COMMENT ON COLUMN billing.dim_date.month_name IS 'Such as November 2023.';
GRANT SELECT ON billing.dim_date TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing.fact_usage_daily WITH (security_invoker = true) AS
    SELECT u.customer_id, u.customer, u.day, date_trunc('month', u.day)::date AS month_start, u.meter, u.aggregation, u.unit, u.dimensions,
        u.dimensions->>'model' AS model, u.dimensions->>'region' AS region, u.dimensions->>'bill_to' AS bill_to, u.quantity, u.events
    FROM billing.usage_daily u;
COMMENT ON VIEW billing.fact_usage_daily IS 'Usage: one row per customer, local day, meter and dimension values, current at commit.';
COMMENT ON COLUMN billing.fact_usage_daily.customer_id IS 'Joins dim_customer.';
COMMENT ON COLUMN billing.fact_usage_daily.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.fact_usage_daily.day IS 'Local date in the customer''s zone; joins dim_date.';
COMMENT ON COLUMN billing.fact_usage_daily.month_start IS 'First day of its month.';
COMMENT ON COLUMN billing.fact_usage_daily.meter IS 'The meter''s key.';
COMMENT ON COLUMN billing.fact_usage_daily.aggregation IS 'count and sum add up over days; of max take the maximum; unique_count does not add up.';
COMMENT ON COLUMN billing.fact_usage_daily.unit IS 'What one unit is called.';
COMMENT ON COLUMN billing.fact_usage_daily.dimensions IS 'All dimension values.';
COMMENT ON COLUMN billing.fact_usage_daily.model IS 'Dimension model, where the meter has it.';
COMMENT ON COLUMN billing.fact_usage_daily.region IS 'Dimension region, where the meter has it.';
COMMENT ON COLUMN billing.fact_usage_daily.bill_to IS 'Legal entity the events named; NULL = the contract''s default.';
COMMENT ON COLUMN billing.fact_usage_daily.quantity IS 'The aggregated value in unit.';
COMMENT ON COLUMN billing.fact_usage_daily.events IS 'How many events counted.';
GRANT SELECT ON billing.fact_usage_daily TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing.fact_invoice_line WITH (security_invoker = true) AS
    SELECT i.customer_id, c.key AS customer, i.number AS invoice, i.state, i.issued_on, i.due_on, date_trunc('month', i.issued_on)::date AS issued_month,
        k.key AS contract, b.key AS bill_to, s.key AS seller, l.line_n, l.key AS line_key, l.kind, l.charge_key AS charge, l.product_id, p.key AS product,
        m.key AS meter, l.label, (l.service_from AT TIME ZONE k.time_zone)::date AS service_day, date_trunc('month', l.service_from AT TIME ZONE k.time_zone)::date AS service_month,
        l.service_from, l.service_until, l.dimensions, l.dimensions->>'model' AS model, l.dimensions->>'region' AS region,
        l.quantity::numeric(50, 12) AS quantity, l.unit, l.price, i.currency, l.amount::numeric(38, 6) AS amount
    FROM billing.invoice i
    JOIN billing.invoice_line l USING (customer_id, invoice_id)
    JOIN billing.customer c USING (customer_id)
    JOIN billing.contract k USING (customer_id, contract_id)
    JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id
    JOIN billing.seller s ON s.seller_id = i.seller_id
    LEFT JOIN billing.product p ON p.product_id = l.product_id
    LEFT JOIN billing.meter m ON m.meter_id = l.meter_id
    WHERE i.state NOT IN ('draft', 'void');
COMMENT ON VIEW billing.fact_invoice_line IS 'Billing: one row per line of an issued invoice (drafts and void ones left out).';
COMMENT ON COLUMN billing.fact_invoice_line.customer_id IS 'Joins dim_customer.';
COMMENT ON COLUMN billing.fact_invoice_line.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.fact_invoice_line.invoice IS 'Invoice number.';
COMMENT ON COLUMN billing.fact_invoice_line.state IS 'open, paid or uncollectible.';
COMMENT ON COLUMN billing.fact_invoice_line.issued_on IS 'Issue date; joins dim_date.';
COMMENT ON COLUMN billing.fact_invoice_line.due_on IS 'Due date.';
COMMENT ON COLUMN billing.fact_invoice_line.issued_month IS 'First day of the issue date''s month.';
COMMENT ON COLUMN billing.fact_invoice_line.contract IS 'Contract key.';
COMMENT ON COLUMN billing.fact_invoice_line.bill_to IS 'Key of the legal entity invoiced.';
COMMENT ON COLUMN billing.fact_invoice_line.seller IS 'Key of our legal entity.';
COMMENT ON COLUMN billing.fact_invoice_line.line_n IS 'Position on the invoice.';
COMMENT ON COLUMN billing.fact_invoice_line.line_key IS 'charge/service date/dimensions.';
COMMENT ON COLUMN billing.fact_invoice_line.kind IS 'usage, fee, true_up, cap, difference or proration.';
COMMENT ON COLUMN billing.fact_invoice_line.charge IS 'Charge or fee of the contract.';
COMMENT ON COLUMN billing.fact_invoice_line.product_id IS 'Joins dim_product.';
COMMENT ON COLUMN billing.fact_invoice_line.product IS 'The product''s key.';
COMMENT ON COLUMN billing.fact_invoice_line.meter IS 'The meter of a usage line.';
COMMENT ON COLUMN billing.fact_invoice_line.label IS 'What a person reads.';
COMMENT ON COLUMN billing.fact_invoice_line.service_day IS 'First local day of the service, in the contract''s zone; joins dim_date.';
COMMENT ON COLUMN billing.fact_invoice_line.service_month IS 'First day of that day''s month.';
COMMENT ON COLUMN billing.fact_invoice_line.service_from IS 'Start of the service (inclusive).';
COMMENT ON COLUMN billing.fact_invoice_line.service_until IS 'End of the service (exclusive).';
COMMENT ON COLUMN billing.fact_invoice_line.dimensions IS 'The line''s dimension values.';
COMMENT ON COLUMN billing.fact_invoice_line.model IS 'Dimension model, where the line has it.';
COMMENT ON COLUMN billing.fact_invoice_line.region IS 'Dimension region, where the line has it.';
COMMENT ON COLUMN billing.fact_invoice_line.quantity IS 'Quantity in unit; NULL for true-ups and caps.';
COMMENT ON COLUMN billing.fact_invoice_line.unit IS 'Unit of the quantity.';
COMMENT ON COLUMN billing.fact_invoice_line.price IS 'Where the price came from: contract override, tokens@1.';
COMMENT ON COLUMN billing.fact_invoice_line.currency IS 'Currency of the amount.';
COMMENT ON COLUMN billing.fact_invoice_line.amount IS 'Posted amount in currency, before tax.';
GRANT SELECT ON billing.fact_invoice_line TO billing_engine, billing_reader, billing_customer;

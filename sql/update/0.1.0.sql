-- What can't be replaced: functions of 0.1.0 whose results or argument names have changed or that are gone, and a composite type. Without
-- CASCADE: where somebody's view stands on one of these (only invoice_line_events is public), the update says so and changes
-- nothing.
DROP FUNCTION
    billing.invoice_line_events(text, text, int),
    billing_internal.bill_contracts(billing_internal.bill_ref[]),
    billing_internal.bill_documents(bigint),
    billing_internal.bill_lines(bigint),
    billing_internal.bill_outcomes(bigint),
    billing_internal.bill_stretches(bigint),
    billing_internal.calendar_error(date, date, text, text),
    billing_internal.call_deltas(bigint),
    billing_internal.call_rejections(bigint),
    billing_internal.call_resolve(bigint, bigint[], smallint[], timestamptz[], timestamptz[], text[]),
    billing_internal.insert_overrides(jsonb, bigint, uuid, text, int),
    billing_internal.meter_error(text),
    billing_internal.pricing_facts(text),
    billing_internal.usage_cells(bigint, int, timestamptz, timestamptz, timestamptz[]);
ALTER TYPE billing_internal.bill_ref
    ADD ATTRIBUTE known_meters jsonb, ADD ATTRIBUTE earlier boolean, ADD ATTRIBUTE standing text, ADD ATTRIBUTE later_prices jsonb,
    ADD ATTRIBUTE credits jsonb, ADD ATTRIBUTE counted text[], ADD ATTRIBUTE beside text[];

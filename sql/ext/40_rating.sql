-- Rating: what a quantity costs. Calculators in C never raise; rate() and rate_events() are the raising facades.

CREATE TYPE billing.pricing;
CREATE FUNCTION billing_internal.pricing_in(cstring) RETURNS billing.pricing
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pricing_in_wrapper';
CREATE FUNCTION billing_internal.pricing_out(billing.pricing) RETURNS cstring
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pricing_out_wrapper';
CREATE FUNCTION billing_internal.pricing_recv(internal) RETURNS billing.pricing
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pricing_recv_wrapper';
CREATE FUNCTION billing_internal.pricing_send(billing.pricing) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pricing_send_wrapper';
CREATE TYPE billing.pricing (
    INPUT = billing_internal.pricing_in, OUTPUT = billing_internal.pricing_out,
    RECEIVE = billing_internal.pricing_recv, SEND = billing_internal.pricing_send,
    INTERNALLENGTH = VARIABLE, STORAGE = extended
);
CREATE CAST (billing.pricing AS text) WITH INOUT AS ASSIGNMENT;
CREATE CAST (billing.pricing AS jsonb) WITH INOUT AS ASSIGNMENT;
CREATE CAST (jsonb AS billing.pricing) WITH INOUT AS IMPLICIT;
CREATE CAST (text AS billing.pricing) WITH INOUT;
COMMENT ON FUNCTION billing_internal.pricing_in(cstring) IS 'Text input of billing.pricing: validates. Errors: 22P02 with the JSON path.';
COMMENT ON FUNCTION billing_internal.pricing_out(billing.pricing) IS 'Text output of billing.pricing: canonical JSON.';
COMMENT ON FUNCTION billing_internal.pricing_recv(internal) IS 'Binary input of billing.pricing: its text. Errors: 22P03.';
COMMENT ON FUNCTION billing_internal.pricing_send(billing.pricing) IS 'Binary output of billing.pricing: its text.';
COMMENT ON CAST (billing.pricing AS text) IS 'The canonical document.';
COMMENT ON CAST (billing.pricing AS jsonb) IS 'The canonical document.';
COMMENT ON CAST (jsonb AS billing.pricing) IS 'Validates a pricing document.';
COMMENT ON CAST (text AS billing.pricing) IS 'Validates a pricing document.';
COMMENT ON TYPE billing.pricing IS
    'A validated pricing document: {"model":"per_unit","unit_price":"0.03","per":1000}. Models: flat, per_unit, graduated, volume, stairstep, package, percentage, graduated_percentage, matrix, dynamic (docs/rating.md). For function boundaries; tables hold jsonb.';

CREATE FUNCTION billing_internal.rate_value(pricing billing.pricing, quantity numeric, dimensions text, events bigint) RETURNS numeric
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'rate_value_wrapper';
COMMENT ON FUNCTION billing_internal.rate_value(billing.pricing, numeric, text, bigint) IS 'The calculator behind rate(): NULL where rate_value_error() says why.';
CREATE FUNCTION billing_internal.rate_value_error(pricing billing.pricing, quantity numeric, dimensions text, events bigint) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'rate_value_error_wrapper';
COMMENT ON FUNCTION billing_internal.rate_value_error(billing.pricing, numeric, text, bigint) IS 'Why rate_value() gave NULL.';
CREATE FUNCTION billing_internal.rate_events_value(pricing billing.pricing, amounts numeric[]) RETURNS numeric
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'rate_events_value_wrapper';
COMMENT ON FUNCTION billing_internal.rate_events_value(billing.pricing, numeric[]) IS 'The calculator behind rate_events(): NULL where rate_events_error() says why.';
CREATE FUNCTION billing_internal.rate_events_error(pricing billing.pricing, amounts numeric[]) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'rate_events_error_wrapper';
COMMENT ON FUNCTION billing_internal.rate_events_error(billing.pricing, numeric[]) IS 'Why rate_events_value() gave NULL.';
CREATE FUNCTION billing_internal.rate_steps(pricing billing.pricing, quantity numeric, dimensions text, events bigint)
    RETURNS TABLE (step int, what text, quantity text, unit_price text, amount numeric)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 3 AS 'MODULE_PATHNAME', 'rate_steps_wrapper';
COMMENT ON FUNCTION billing_internal.rate_steps(billing.pricing, numeric, text, bigint) IS 'The working behind rate_explain().';
CREATE FUNCTION billing_internal.price_candidates(names text[], dimensions text) RETURNS SETOF text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 4 AS 'MODULE_PATHNAME', 'price_candidates_wrapper';
COMMENT ON FUNCTION billing_internal.price_candidates(text[], text) IS 'Every match a matrix row could have that holds for these dimensions, as JSON, strongest first.';
CREATE FUNCTION billing_internal.pricing_facts(pricing text) RETURNS TABLE (splits boolean, cuts boolean, needs_events boolean, dimensions text[])
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'pricing_facts_wrapper';
COMMENT ON FUNCTION billing_internal.pricing_facts(text) IS 'Of a pricing document: may usage be priced apart at any instant (splits), may versions of it take each other''s place inside a period (cuts), does it need single events, its dimensions.';

CREATE FUNCTION billing.rate(pricing billing.pricing, quantity numeric, dimensions jsonb DEFAULT '{}', events bigint DEFAULT 1) RETURNS numeric
    -- Called for every row: setting search_path would take as long as the rest, so every name here has its schema.
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    amount pg_catalog.numeric := billing_internal.rate_value(pricing, quantity, dimensions::pg_catalog.text, events);
BEGIN
    IF amount IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.rate_value_error(pricing, quantity, dimensions::pg_catalog.text, events)::pg_catalog.jsonb);
    END IF;
    RETURN amount;
END
$$;
COMMENT ON FUNCTION billing.rate(billing.pricing, numeric, jsonb, bigint) IS
    'What a quantity costs: the exact amount, to 18 places where it has no end, with minimum and maximum; not rounded to a currency. dimensions select the row of a matrix; of a percentage, quantity is the amount and events the number of events. rules.md 1. Errors: ZB007 can''t be rated (no row, above the last step, negative on tiers), ZB004 numbers, ZB003 dimensions.';

CREATE FUNCTION billing.rate_events(pricing billing.pricing, amounts numeric[]) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    amount numeric := billing_internal.rate_events_value(pricing, amounts);
BEGIN
    IF amount IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.rate_events_error(pricing, amounts)::jsonb);
    END IF;
    RETURN amount;
END
$$;
COMMENT ON FUNCTION billing.rate_events(billing.pricing, numeric[]) IS
    'What single events cost, in the order given: for percentages with per-event minimum or maximum, free events and free amount. Other prices rate the sum. Errors: ZB007, ZB004.';

CREATE TYPE billing.rate_step AS (step int, what text, quantity text, unit_price text, amount numeric);
COMMENT ON TYPE billing.rate_step IS 'A row of billing.rate_explain(): what a step is about, its quantity and unit price as text, and its exact amount.';

COMMENT ON COLUMN billing.rate_step.step IS 'Its place, from 1.';
COMMENT ON COLUMN billing.rate_step.what IS 'What it is about: a tier, a flat fee, a bound, the total.';
COMMENT ON COLUMN billing.rate_step.quantity IS 'How much of it, as text; NULL where nothing is counted.';
COMMENT ON COLUMN billing.rate_step.unit_price IS 'Price of one, as text; NULL where there is none.';
COMMENT ON COLUMN billing.rate_step.amount IS 'What it comes to, exactly, without a currency.';

CREATE FUNCTION billing.rate_explain(pricing billing.pricing, quantity numeric, dimensions jsonb DEFAULT '{}', events bigint DEFAULT 1)
    RETURNS SETOF billing.rate_step -- a type of its own, since an argument is called quantity, too
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing.rate(pricing, quantity, dimensions, events);
    RETURN QUERY SELECT s.step, s.what, s.quantity, s.unit_price, s.amount
    FROM billing_internal.rate_steps(pricing, quantity, dimensions::text, events) s;
END
$$;
COMMENT ON FUNCTION billing.rate_explain(billing.pricing, numeric, jsonb, bigint) IS
    'The working of rate(), step by step: tier by tier, free units, floor, minimum. The amounts of the steps sum to rate() exactly. Errors: as rate().';

-- An upgraded database (the demo's customers and prices, November 2023 billed by 0.1.0) does what this version does. Every
-- statement that checks divides by zero where it does not hold.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET timezone = 'UTC';
SELECT number AS acme FROM billing.invoice WHERE key = 'acme-1/1' \gset
-- The meters are what they were: the same document changes nothing, and no version of a price.
SELECT 1 / (count(*) = 0)::int AS catalogue FROM billing.catalog_apply(billing.catalog_export());

-- Late usage of a month that 0.1.0 billed, and an event it counted that is taken back: the next run bills the differences.
SELECT billing.test_clock_set('2024-01-01 00:00Z');
SELECT 1 / (billing.ingest_event('startup', 'llm.request', 'late', '2023-11-20 10:00Z', '{"model": "gpt-4", "input_tokens": 2000, "output_tokens": 1000}') = 'accepted')::int AS late;
SELECT e.event_id AS taken_back, e.properties->>'model' AS model, (e.properties->>'input_tokens')::int + (e.properties->>'output_tokens')::int AS taken
FROM billing.usage_event e JOIN billing.customer c USING (customer_id) WHERE c.key = 'mega' AND e.properties->>'model' = 'gpt-3.5' ORDER BY e.occurred_at, e.event_id LIMIT 1 \gset
SELECT 1 / (billing.event_void('mega', :'taken_back', 'sent by mistake') = 'void')::int AS void;
SELECT 1 / (sum(failed) = 0)::int AS verify FROM billing.verify('full');
SELECT 1 / (checked >= 2)::int AS waits FROM billing.verify('full') WHERE check_name = 'invoices: late usage that waits for the next bill';
CALL billing.bill_run();
SELECT 1 / (sum(l.quantity) = 3000 AND sum(l.amount) = 0.09)::int AS startup
FROM billing.invoice i JOIN billing.customer c USING (customer_id) JOIN billing.invoice_line l USING (customer_id, invoice_id)
WHERE c.key = 'startup' AND l.kind = 'difference' AND l.of_n = 1 AND l.of_key = 'tokens/2023-11-01/model=gpt-4' AND i.state <> 'void';
SELECT 1 / (sum(l.quantity) = - :taken)::int AS mega
FROM billing.invoice i JOIN billing.customer c USING (customer_id) JOIN billing.invoice_line l USING (customer_id, invoice_id)
WHERE c.key = 'mega' AND l.kind = 'difference' AND l.of_n = 1 AND l.of_key = 'tokens/2023-11-01/model=' || :'model' AND i.state <> 'void';
SELECT 1 / (checked = 0)::int AS nothing_waits FROM billing.verify('full') WHERE check_name = 'invoices: late usage that waits for the next bill';

-- A meter is mended since the middle of that month, measured again, and Acme's invoice corrected by a credit note.
SELECT 1 / (count(*) = 1)::int AS changed FROM billing.catalog_apply('{"meters": [{"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "min(input_tokens, 1500) + output_tokens",
    "dimensions": ["model"], "unit": "token", "valid_from": "2023-11-15T00:00:00Z"}]}');
CALL billing.meter_rebuild();
SELECT 1 / (bool_and(u.quantity = e.quantity))::int AS measured
FROM (SELECT c.key, sum(CASE WHEN x.occurred_at < '2023-11-15Z' THEN (x.properties->>'input_tokens')::numeric ELSE least((x.properties->>'input_tokens')::numeric, 1500) END + (x.properties->>'output_tokens')::numeric) AS quantity
    FROM billing.usage_event x JOIN billing.customer c USING (customer_id)
    WHERE c.key IN ('acme', 'startup') AND x.occurred_at >= '2023-11-01Z' AND x.occurred_at < '2023-12-01Z' GROUP BY c.key) e,
    billing.usage(e.key, 'tokens', '2023-11-01Z', '2023-12-01Z') u;
SELECT sum(difference) AS difference FROM billing.invoice_correct(:'acme') \gset
SELECT 1 / (:difference < 0)::int AS too_much;
SELECT 1 / (count(DISTINCT document) = 1)::int AS corrected FROM billing.invoice_correct(:'acme', 'credit_note', 'the meter counted too much', dry_run => false) WHERE action <> 'none';
SELECT 1 / (count(*) = 1 AND sum(credited) = - :difference)::int AS credit_note FROM billing.credit_note WHERE invoice = :'acme';

-- The month after is billed, and everything, old and new, computes again to the same bytes.
SELECT billing.test_clock_set('2024-02-01 00:00Z');
SELECT 1 / (bool_and(billing.ingest_event(c, 'llm.request', 'january', '2024-01-15 10:00Z', '{"model": "gpt-4", "input_tokens": 2000, "output_tokens": 1000}') = 'accepted'))::int AS january
FROM unnest('{startup,acme,mega}'::text[]) c;
-- What was agreed changes from here on like any contract.
SELECT 1 / (billing.contract_amend('mega-1', '{"purchase_order": "PO-7"}', '2024-01-20Z') = 2)::int AS amended, 1 / (billing.contract_cancel('startup-1', '2024-01-21') = 2)::int AS cancelled;
CALL billing.bill_run();
SELECT 1 / (count(*) = 1)::int AS cancelled FROM billing.contract WHERE key = 'startup-1' AND state = 'cancelled';
SELECT 1 / (i.document->>'purchase_order' = 'PO-7')::int AS ordered FROM billing.invoice i WHERE i.document->>'contract' = 'mega-1' ORDER BY i.n DESC LIMIT 1;
SELECT 1 / (count(*) = 3 AND bool_and(l.quantity = 2500))::int AS january FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id)
WHERE i.number IS NOT NULL AND l.key = 'tokens/2024-01-01/model=gpt-4' AND l.kind = 'usage';
SELECT 1 / (bool_and(r.same_bytes AND r.difference = 0))::int AS recomputed FROM billing.invoice i, billing.invoice_recompute(i.key) r WHERE i.number IS NOT NULL;
CALL billing.fold();
CALL billing.audit_seal();
SELECT 1 / (sum(failed) = 0)::int AS verify FROM billing.verify('full');

-- Twenty questions of a BI analyst, answered from plain views as the role billing_reader. The data are the demo's (an
-- hour of real LLM traffic, three customers, invoices of November 2023), plus some usage of December that is not
-- billed yet and a customer without a contract. Today is 2 January 2024, so the last quarter is October to December.
\cd demo
\i setup.sql
\i load.sql
SELECT accepted, rejected FROM billing.ingest_from('batch') \gset
CALL billing.bill_run();
SELECT billing.test_clock_set('2024-01-02T00:00:00Z') AS clock \gset
TRUNCATE batch;
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
SELECT c, 'llm.request', 'december-' || n, format('2023-12-%sT09:00:00Z', lpad(n::text, 2, '0')), json_build_object('model', 'gpt-4', 'input_tokens', 900 + n, 'output_tokens', 100)
FROM unnest(ARRAY['acme', 'trial']) c, generate_series(1, 20) n;
SELECT billing.customer_upsert('{"key": "startup", "attributes": {"segment": "small", "region": "eu"}}'),
    billing.customer_upsert('{"key": "acme", "attributes": {"segment": "enterprise", "region": "us"}}'),
    billing.customer_upsert('{"key": "mega", "attributes": {"segment": "enterprise", "region": "us"}}'),
    billing.customer_upsert('{"key": "trial", "name": "On trial", "attributes": {"segment": "small", "region": "us"}}') \gset
SELECT accepted, rejected FROM billing.ingest_from('batch') \gset
SET ROLE billing_reader;
\pset footer off

\echo '1. What did this customer spend on gpt-4 against gpt-3.5 last quarter?'
SELECT l.customer, l.model, sum(l.amount) AS billed, l.currency
FROM billing.fact_invoice_line l JOIN billing.dim_date d ON d.day = l.service_day
WHERE l.customer = 'acme' AND l.model IN ('gpt-4', 'gpt-3.5') AND d.quarter_start = date_trunc('quarter', billing.now())::date - interval '3 months'
GROUP BY l.customer, l.model, l.currency ORDER BY l.model DESC;

\echo '2. And with its share of the request charge (tiered over both models), and what is not billed yet?'
SELECT s.dimensions->>'model' AS model, s.state, s.amount, s.currency
FROM billing.spend('acme', date_trunc('quarter', billing.now()) - interval '3 months', date_trunc('quarter', billing.now()), group_by => '{model}') s
ORDER BY model DESC, s.state;

\echo '3. What did each product bring in, by month of service?'
SELECT l.service_month, p.product_name AS product, l.currency, sum(l.amount) AS billed
FROM billing.fact_invoice_line l JOIN billing.dim_product p USING (product_id)
GROUP BY l.service_month, p.product_name, l.currency ORDER BY 1, 2;

\echo '4. Who are the largest customers, and what share of billing is theirs?'
SELECT customer, sum(amount) AS billed, round(100 * sum(amount) / sum(sum(amount)) OVER (), 1) AS percent
FROM billing.fact_invoice_line GROUP BY customer ORDER BY billed DESC;

\echo '5. Billing by segment and region?'
SELECT c.segment, c.region, count(DISTINCT l.customer_id) AS customers, sum(l.amount) AS billed
FROM billing.fact_invoice_line l JOIN billing.dim_customer c USING (customer_id) GROUP BY c.segment, c.region ORDER BY billed DESC;

\echo '6. How many tokens did each customer use, by model, one column each?'
SELECT customer, (sum(quantity) FILTER (WHERE model = 'gpt-4'))::bigint AS gpt_4, (sum(quantity) FILTER (WHERE model = 'gpt-3.5'))::bigint AS gpt_35
FROM billing.fact_usage_daily WHERE meter = 'tokens' GROUP BY customer ORDER BY gpt_4 DESC;

\echo '7. How long is a request, by model?'
SELECT model, (sum(quantity) FILTER (WHERE meter = 'requests'))::bigint AS requests,
    round(sum(quantity) FILTER (WHERE meter = 'tokens') / sum(quantity) FILTER (WHERE meter = 'requests'), 1) AS tokens_per_request
FROM billing.fact_usage_daily GROUP BY model ORDER BY model DESC;

\echo '8. What does each customer really pay per 1,000 tokens?'
SELECT customer, model, round(1000 * sum(amount) / sum(quantity), 6) AS per_1000_tokens
FROM billing.fact_invoice_line WHERE meter = 'tokens' GROUP BY customer, model ORDER BY model DESC, per_1000_tokens DESC;

\echo '9. What did negotiated prices cost us against the list?'
SELECT l.customer, sum(round(l.quantity * list.unit_price / 1000, 2) - l.amount) AS given_away
FROM billing.fact_invoice_line l
JOIN (SELECT r.match->>'model' AS model, (r.pricing->>'unit_price')::numeric AS unit_price
    FROM billing.price p JOIN billing.price_row r USING (price_id) WHERE p.key = 'tokens') list USING (model)
WHERE l.meter = 'tokens' GROUP BY l.customer ORDER BY given_away DESC;

\echo '10. Which invoices are open, and how many days past due are they?'
SELECT invoice, customer, due_on, (billing.now() AT TIME ZONE 'UTC')::date - due_on AS days_past_due, sum(amount) AS amount
FROM billing.fact_invoice_line WHERE state = 'open' GROUP BY invoice, customer, due_on ORDER BY invoice;

\echo '11. Billing by month of issue, with the months that had none?'
SELECT d.month_name, coalesce(sum(l.amount), 0) AS billed
FROM (SELECT DISTINCT month_start, month_name FROM billing.dim_date WHERE day >= '2023-10-01' AND day < '2024-01-01') d
LEFT JOIN billing.fact_invoice_line l ON l.issued_month = d.month_start GROUP BY d.month_start, d.month_name ORDER BY d.month_start;

\echo '12. When is the busiest hour?'
SELECT hour_start, sum(quantity)::bigint AS requests FROM billing.usage_hourly WHERE meter = 'requests' GROUP BY hour_start ORDER BY requests DESC LIMIT 1;

\echo '13. How much of the traffic falls on weekends?'
SELECT d.weekend, sum(u.events) AS requests FROM billing.fact_usage_daily u JOIN billing.dim_date d USING (day) WHERE u.meter = 'requests' GROUP BY d.weekend ORDER BY d.weekend;

\echo '14. What has every customer used that is not billed yet?'
SELECT c.customer, coalesce(sum(s.amount), 0) AS unbilled
FROM billing.dim_customer c LEFT JOIN LATERAL billing.spend(c.customer, '2023-10-01Z', '2024-01-02Z') s ON s.state = 'unbilled' GROUP BY c.customer ORDER BY c.customer;

\echo '15. What usage does nobody pay for?'
SELECT customer, meter, reason, sum(events) AS events, min(day) AS first_day, max(day) AS last_day FROM billing.unpriced_usage GROUP BY customer, meter, reason ORDER BY customer, meter;

\echo '16. Who got no invoice for last quarter?'
SELECT c.customer, c.live_contracts FROM billing.dim_customer c
WHERE NOT EXISTS (SELECT FROM billing.fact_invoice_line l JOIN billing.dim_date d ON d.day = l.service_day WHERE l.customer_id = c.customer_id AND d.year = 2023 AND d.quarter = 4);

\echo '17. How are request sizes distributed? (from the events themselves)'
SELECT e.properties->>'model' AS model, percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY (e.properties->>'input_tokens')::int) AS p50_p95_p99
FROM billing.usage_event e WHERE e.event_type = 'llm.request' GROUP BY 1 ORDER BY 1 DESC;

\echo '18. Which three requests were the dearest on acme''s gpt-4 line?'
SELECT e.event_id, to_char(e.occurred_at, 'HH24:MI:SS') AS at, e.value AS tokens, round(e.value * 0.02 / 1000, 6) AS share_of_the_line
FROM billing.fact_invoice_line l, billing.invoice_line_events(l.invoice, l.line_key) e
WHERE l.customer = 'acme' AND l.model = 'gpt-4' ORDER BY e.value DESC, e.event_id LIMIT 3;

\echo '19. How did acme''s tokens run, day by day and cumulatively?'
SELECT day, sum(quantity)::bigint AS tokens, (sum(sum(quantity)) OVER (ORDER BY day))::bigint AS running
FROM billing.fact_usage_daily WHERE customer = 'acme' AND meter = 'tokens' GROUP BY day ORDER BY day LIMIT 5;

\echo '20. Do the reports agree: lines billed, and spend() over the same time?'
SELECT l.customer, l.billed, s.billed AS spend, l.billed = s.billed AS equal
FROM (SELECT customer, sum(amount) AS billed FROM billing.fact_invoice_line GROUP BY customer) l
CROSS JOIN LATERAL (SELECT sum(x.amount) AS billed FROM billing.spend(l.customer, '2023-11-01Z', '2023-12-01Z', 'day', '{model,charge}') x) s
ORDER BY l.customer;
RESET ROLE;
SELECT sum(failed) AS failed_checks FROM billing.verify('full');

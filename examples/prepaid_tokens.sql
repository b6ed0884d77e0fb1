-- "$50,000 prepaid against tokens, then $0.002 per 1,000": what that costs depends on three things nobody says. Three deals, the
-- same words: the rate inside the commitment is that of the overage; it is lower; and one event straddles the end of the credit.
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "ai-api", "name": "AI API"}],
  "meters": [{"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "tokens", "unit": "token"}],
  "price_books": [{"key": "list", "currency": "USD", "prices": [{"key": "tokens", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.002", "per": 1000}}]}],
  "plans": [{"key": "api", "name": "API", "currency": "USD", "price_book": "list", "charges": [{"key": "tokens", "product": "ai-api", "meter": "tokens", "price": "tokens"}]}]}') \gset
CREATE PROCEDURE pg_temp.live_until(at timestamptz) LANGUAGE sql AS $$ SELECT billing.test_clock_set(at); SELECT * FROM billing.tick(); $$;
CREATE FUNCTION pg_temp.sign(key text, doc jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT billing.customer_upsert(jsonb_build_object('key', key));
    SELECT billing.contract_create('{"currency": "USD", "starts_on": "2026-01-01", "term": "12 months", "plan": "api", "billing": {"interval": "12 months"},
        "commitments": [{"key": "prepaid", "kind": "prepaid", "amount": "50000"}],
        "credits": [{"key": "tokens", "category": "paid", "amount": "50000", "paid_by": "prepaid"}]}'::jsonb || doc || jsonb_build_object('key', key || '-1', 'customer', key));
    SELECT billing.contract_activate(key || '-1') $$;
CREATE FUNCTION pg_temp.use(customer text, id text, tokens numeric, at timestamptz) RETURNS text LANGUAGE sql AS $$ SELECT billing.ingest_event(customer, 'llm.request', id, at, jsonb_build_object('tokens', tokens)) $$;
CREATE FUNCTION pg_temp.billed(of_customer text) RETURNS TABLE (issued_on date, line text, quantity numeric, price text, amount numeric, due text) LANGUAGE sql AS $$
    SELECT i.issued_on, l.label, trim_scale(l.quantity), l.price, l.amount, CASE WHEN l.line_n = max(l.line_n) OVER (PARTITION BY i.invoice_id) THEN i.document#>>'{totals,due}' END
    FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.customer c USING (customer_id) WHERE c.key = of_customer ORDER BY i.issued_on, l.line_n $$;
CREATE FUNCTION pg_temp.draws(of_customer text) RETURNS TABLE (line text, tokens numeric, amount numeric) LANGUAGE sql AS $$
    SELECT a.line_key, trim_scale(a.quantity), trim_scale(a.amount) FROM billing.credit_allocation a JOIN billing.customer c USING (customer_id) WHERE c.key = of_customer ORDER BY a.place $$;

\echo 1. The same rate inside and after: 50,000 buy 25 billion tokens
SELECT pg_temp.sign('same', '{}') AS contract;
\echo 2. 0.0016 inside the commitment: 50,000 buy 31.25 billion; what goes beyond costs 0.002
SELECT pg_temp.sign('lower', '{"overrides": [{"meter": "tokens", "match": {}, "unit_price": "0.0016"}],
    "commitments": [{"key": "prepaid", "kind": "prepaid", "amount": "50000", "overage": [{"meter": "tokens", "match": {}, "unit_price": "0.002"}]}]}') AS contract;
\echo 3. As the second, with 0.30 left when an event of 400,000 tokens comes
SELECT pg_temp.sign('straddle', '{"overrides": [{"meter": "tokens", "match": {}, "unit_price": "0.0016"}],
    "commitments": [{"key": "prepaid", "kind": "prepaid", "amount": "50000", "overage": [{"meter": "tokens", "match": {}, "unit_price": "0.002"}]}]}') AS contract;
CALL pg_temp.live_until('2026-01-01T00:00:00Z');
SELECT c.key AS customer, i.number, i.document#>>'{totals,due}' AS due FROM billing.invoice i JOIN billing.customer c USING (customer_id) ORDER BY i.number;

\echo A year of usage
SELECT billing.test_clock_set('2026-12-31T00:00:00Z') AS clock \gset
SELECT pg_temp.use('same', m::text, 27500000000 / 11, make_timestamptz(2026, m, 15, 12, 0, 0, 'UTC')), pg_temp.use('lower', m::text, 35000000000 / 10, make_timestamptz(2026, least(m, 10), 15, 12, m, 0, 'UTC')) FROM generate_series(1, 11) m WHERE m <= 10 \g /dev/null
SELECT pg_temp.use('same', '11', 27500000000 / 11, '2026-11-15T12:00:00Z') \g /dev/null
-- 31,250,000,000 tokens less those of 0.30
SELECT pg_temp.use('straddle', 'most', 31249812500, '2026-06-01T00:00:00Z') \g /dev/null
SELECT customer, available FROM unnest(ARRAY['same', 'lower', 'straddle']) customer, billing.credit_balance(customer);
SELECT pg_temp.use('straddle', 'the one', 400000, '2026-12-30T00:00:00Z') AS straddling;
CALL pg_temp.live_until('2027-01-01T00:00:00Z');
\echo 1.
SELECT * FROM pg_temp.billed('same');
SELECT * FROM pg_temp.draws('same');
\echo 2.
SELECT * FROM pg_temp.billed('lower');
SELECT * FROM pg_temp.draws('lower');
\echo 3. The event is split at the exact token: 187,500 burn the 0.30, 212,500 at 0.002 are 0.425
SELECT * FROM pg_temp.billed('straddle');
SELECT * FROM pg_temp.draws('straddle');
SELECT l.label, trim_scale(l.exact) AS exact, l.amount FROM billing.invoice_line l JOIN billing.customer c USING (customer_id) WHERE c.key = 'straddle' AND l.kind <> 'commitment' ORDER BY l.line_n;

DO $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(format('%s: %s, not %s', w.customer, i.due, w.due), '; ') INTO wrong
    FROM (VALUES ('same', 5000.00), ('lower', 7500.00), ('straddle', 0.43)) w (customer, due)
    LEFT JOIN (SELECT c.key AS customer, (i.document#>>'{totals,due}')::numeric AS due FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE i.issued_on = '2027-01-01') i USING (customer)
    WHERE i.due IS DISTINCT FROM w.due;
    SELECT concat_ws('; ', wrong, string_agg(v.check_name || ': ' || v.example, '; ')) INTO wrong FROM billing.verify('full') v WHERE v.failed > 0;
    IF wrong <> '' THEN RAISE EXCEPTION '%', wrong; END IF;
END
$$;

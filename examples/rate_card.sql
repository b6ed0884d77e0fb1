-- One plan, three prices: a rate card by model, what two customers negotiated on it, and the same usage for all.
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "ai-api", "name": "AI API"}],
  "meters": [{"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "tokens", "dimensions": ["model"], "unit": "token"}],
  "price_books": [{"key": "list", "currency": "USD", "prices": [
    {"key": "tokens", "meter": "tokens", "pricing": {"model": "matrix", "dimensions": ["model"], "per": 1000, "rows": [
      {"match": {"model": "gpt-4"}, "unit_price": "0.03"}, {"match": {"model": "gpt-3.5"}, "unit_price": "0.002"}]}}]}],
  "plans": [{"key": "pro", "name": "Pro", "currency": "USD", "price_book": "list",
    "charges": [{"key": "tokens", "product": "ai-api", "meter": "tokens", "price": "tokens"}]}]}') \gset
SELECT billing.customer_upsert(jsonb_build_object('key', k, 'name', n)), billing.subscribe(k, 'pro', '2026-06-01', doc)
FROM (VALUES ('startup', 'Startup Inc', jsonb '{}'),
    ('acme', 'Acme Corp', '{"overrides": [{"meter": "tokens", "match": {"model": "gpt-4"}, "unit_price": "0.02"}]}'),
    ('mega', 'Mega Enterprise', '{"overrides": [{"meter": "tokens", "match": {"model": "gpt-4"}, "unit_price": "0.015"},
        {"meter": "tokens", "match": {"model": "gpt-3.5"}, "unit_price": "0.001"}]}')) c (k, n, doc) \g /dev/null
SELECT accepted, duplicate, conflicting, rejected
FROM billing.ingest((SELECT json_agg(json_build_object('customer', c, 'event_type', 'llm.request', 'event_id', 'june-' || m, 'occurred_at', '2026-06-15T12:00:00Z',
    'properties', json_build_object('model', m, 'tokens', tokens)))
  FROM unnest(ARRAY['startup', 'acme', 'mega']) c, (VALUES ('gpt-4', 1234567), ('gpt-3.5', 9876543)) u (m, tokens)));

-- Where each price comes from, before anything is billed
SELECT c AS customer, m AS model, r.source, r.price, r.pricing->>'unit_price' AS unit_price, r.pricing->>'per' AS per
FROM unnest(ARRAY['startup', 'acme', 'mega']) WITH ORDINALITY u (c, n), unnest(ARRAY['gpt-4', 'gpt-3.5']) m,
    billing.price_resolve(c, 'tokens', jsonb_build_object('model', m), '2026-06-15T12:00:00Z') r ORDER BY n, m DESC;

CALL billing.bill_run();
SELECT l.customer, l.label, d->>'exact' AS exact, l.amount::numeric(12, 2) AS amount, l.price
FROM billing.fact_invoice_line l JOIN billing.invoice i ON i.number = l.invoice, jsonb_array_elements(i.document->'lines') d
WHERE d->>'key' = l.line_key ORDER BY l.customer_id, l.model DESC;
SELECT c.key AS customer, i.total, i.currency FROM billing.invoice i JOIN billing.customer c USING (customer_id) ORDER BY customer_id;

DO $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(format('%s %s: %s, not %s', w.customer, w.model, l.amount, w.amount), '; ') INTO wrong
    FROM (VALUES ('startup', 'gpt-4', 37.04), ('startup', 'gpt-3.5', 19.75), ('acme', 'gpt-4', 24.69), ('acme', 'gpt-3.5', 19.75), ('mega', 'gpt-4', 18.52), ('mega', 'gpt-3.5', 9.88)) w (customer, model, amount)
    LEFT JOIN billing.fact_invoice_line l USING (customer, model)
    WHERE l.amount IS DISTINCT FROM w.amount;
    SELECT concat_ws('; ', wrong, string_agg(format('%s: %s, not %s', w.customer, i.total, w.total), '; ')) INTO wrong
    FROM (VALUES ('startup', 56.79), ('acme', 44.44), ('mega', 28.40)) w (customer, total)
    LEFT JOIN (billing.invoice i JOIN billing.customer c USING (customer_id)) ON c.key = w.customer
    WHERE i.total IS DISTINCT FROM w.total;
    SELECT concat_ws('; ', wrong, string_agg(v.check_name || ': ' || v.example, '; ')) INTO wrong FROM billing.verify('full') v WHERE v.failed > 0;
    IF wrong <> '' THEN RAISE EXCEPTION '%', wrong; END IF;
END
$$;

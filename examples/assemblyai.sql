-- Speech to text by the second of an hourly price, as AssemblyAI sells it: 0.15 an hour standard, 0.45 premium.
-- 0.15 / 3,600 has no end as a decimal, so the price is kept as it is said, {"unit_price": "0.15", "per": 3600}, and
-- the division is the last step. A stream is billed by its connection, idle time included; one that is never
-- closed ends after three hours, which the meter says itself: min(seconds, 10800).
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "speech", "name": "Speech to text"}],
  "meters": [{"key": "seconds", "event_type": "session", "aggregation": "sum", "value": "min(seconds, 10800)", "dimensions": ["tier"], "unit": "second"}],
  "price_books": [{"key": "list", "currency": "USD", "prices": [
    {"key": "seconds", "meter": "seconds", "pricing": {"model": "matrix", "dimensions": ["tier"], "per": 3600, "rows": [
      {"match": {"tier": "standard"}, "unit_price": "0.15"}, {"match": {"tier": "premium"}, "unit_price": "0.45"}]}}]}],
  "plans": [{"key": "speech", "name": "By the hour", "currency": "USD", "price_book": "list",
    "charges": [{"key": "seconds", "product": "speech", "meter": "seconds", "price": "seconds"}]}]}') \gset
SELECT billing.customer_upsert(format('{"key": "%s", "name": "%s"}', k, n)::jsonb), billing.subscribe(k, 'speech', '2026-06-01')
FROM (VALUES ('podcast', 'A podcast'), ('callcentre', 'A call centre')) c (k, n) \g /dev/null

-- The podcast transcribes one session of 8,263 seconds on each tier. The call centre has 552 standard sessions of
-- 8,263 seconds and one of 6,714; 148 premium ones of 8,263, one of 843, and one that nobody closed for 30,000.
CREATE TEMP TABLE batch (LIKE billing.usage_event_input);
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
SELECT s.customer, 'session', format('%s-%s-%s', s.tier, s.seconds, n), '2026-06-15T08:00:00Z', json_build_object('tier', s.tier, 'seconds', s.seconds)
FROM (VALUES ('podcast', 'standard', 8263, 1), ('podcast', 'premium', 8263, 1), ('callcentre', 'standard', 8263, 552), ('callcentre', 'standard', 6714, 1),
    ('callcentre', 'premium', 8263, 148), ('callcentre', 'premium', 843, 1), ('callcentre', 'premium', 30000, 1)) s (customer, tier, seconds, sessions),
  generate_series(1, s.sessions) n;
SELECT accepted, duplicate, conflicting, rejected FROM billing.ingest_from('batch');

CALL billing.bill_run();
SELECT customer, label, trim_scale(quantity) AS quantity, unit, amount::numeric(12, 2) AS amount, currency
FROM billing.fact_invoice_line ORDER BY customer_id, line_n;
SELECT c.key AS customer, i.total, i.currency FROM billing.invoice i JOIN billing.customer c USING (customer_id) ORDER BY customer_id;
\pset format unaligned
\pset tuples_only on
SELECT line FROM billing.invoice_explain('callcentre-1/1') line WHERE line !~ 'bucket|inputs';

DO $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(format('%s %s: %s, not %s', w.customer, w.tier, l.amount, w.amount), '; ') INTO wrong
    FROM (VALUES ('podcast', 'standard', 0.34), ('podcast', 'premium', 1.03), ('callcentre', 'standard', 190.33), ('callcentre', 'premium', 154.32)) w (customer, tier, amount)
    LEFT JOIN billing.fact_invoice_line l ON l.customer = w.customer AND l.dimensions->>'tier' = w.tier
    WHERE l.amount IS DISTINCT FROM w.amount;
    IF (SELECT i.total FROM billing.invoice i WHERE i.key = 'callcentre-1/1') <> 344.65 THEN wrong := concat_ws('; ', wrong, 'the total is not 344.65'); END IF;
    SELECT concat_ws('; ', wrong, string_agg(v.check_name || ': ' || v.example, '; ')) INTO wrong FROM billing.verify('full') v WHERE v.failed > 0;
    IF wrong <> '' THEN RAISE EXCEPTION '%', wrong; END IF;
END
$$;

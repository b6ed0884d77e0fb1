-- Text messages by the segment, as Twilio sells them: 0.0083 a segment of a delivered message, 0.001 a failed
-- message whatever its length. A fraction of a cent is a price like any other; a line is rounded once.
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "messaging", "name": "Messaging"}],
  "meters": [
    {"key": "segments", "event_type": "sms", "aggregation": "sum", "value": "segments", "filter": {"status": "delivered"}, "unit": "segment"},
    {"key": "failed", "event_type": "sms", "aggregation": "count", "filter": {"status": "failed"}, "unit": "message"}],
  "price_books": [{"key": "list", "currency": "USD", "prices": [
    {"key": "segments", "meter": "segments", "pricing": {"model": "per_unit", "unit_price": "0.0083"}},
    {"key": "failed", "meter": "failed", "pricing": {"model": "per_unit", "unit_price": "0.001"}}]}],
  "plans": [{"key": "sms", "name": "Pay as you go", "currency": "USD", "price_book": "list", "charges": [
    {"key": "segments", "product": "messaging", "meter": "segments", "price": "segments"},
    {"key": "failed", "product": "messaging", "meter": "failed", "price": "failed"}]}]}') \gset
SELECT billing.customer_upsert(format('{"key": "%s", "name": "%s"}', k, n)::jsonb), billing.subscribe(k, 'sms', '2026-06-01')
FROM (VALUES ('retailer', 'A retailer'), ('clinic', 'A clinic'), ('bakery', 'A bakery')) c (k, n) \g /dev/null

-- The retailer counts for itself and reports once an hour: 1,234,567 segments in the 720 hours of June.
-- The clinic sends 1,000 messages of 3 segments to dead numbers. The bakery sends one message, 3 segments long.
CREATE TEMP TABLE batch (LIKE billing.usage_event_input);
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
SELECT 'retailer', 'sms', 'hour-' || h, to_char(timestamp '2026-06-01' + h * interval '1 hour', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    json_build_object('status', 'delivered', 'segments', 1234567 / 720 + (h < 1234567 % 720)::int)
FROM generate_series(0, 719) h
UNION ALL
SELECT 'clinic', 'sms', 'message-' || n, '2026-06-15T08:00:00Z', '{"status": "failed", "segments": 3}' FROM generate_series(1, 1000) n
UNION ALL
SELECT 'bakery', 'sms', 'message-1', '2026-06-15T08:00:00Z', '{"status": "delivered", "segments": 3}';
SELECT accepted, duplicate, conflicting, rejected FROM billing.ingest_from('batch');

CALL billing.bill_run();
SELECT customer, label, trim_scale(quantity) AS quantity, unit, amount::numeric(12, 2) AS amount, currency
FROM billing.fact_invoice_line ORDER BY customer_id, line_n;
\pset format unaligned
\pset tuples_only on
SELECT line FROM billing.invoice_explain('retailer-1/1') line WHERE line !~ 'bucket|inputs';

DO $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(format('%s: %s, not %s', w.customer, i.total, w.total), '; ') INTO wrong
    FROM (VALUES ('retailer', 10246.91), ('clinic', 1.00), ('bakery', 0.02)) w (customer, total)
    LEFT JOIN (billing.invoice i JOIN billing.customer c USING (customer_id)) ON c.key = w.customer
    WHERE i.total IS DISTINCT FROM w.total;
    SELECT concat_ws('; ', wrong, string_agg(v.check_name || ': ' || v.example, '; ')) INTO wrong FROM billing.verify('full') v WHERE v.failed > 0;
    IF wrong <> '' THEN RAISE EXCEPTION '%', wrong; END IF;
END
$$;

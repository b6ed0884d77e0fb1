-- Hosts by the month, as Datadog sells them: 15 a host and month (Pro) or 23 (Enterprise). Ten hosts run all month;
-- ninety more run for two hours.
--
-- The pro-rated model is a sum of host-hours at the monthly price per 720 or 744 hours: one plan for each length.
-- Datadog's own rule drops the top 1 % of hourly counts and bills the highest of the rest: a percentile of the hours,
-- each with the most hosts it saw, hours without any counting as 0. One plan for all months.
SELECT billing.test_clock_set('2026-08-01T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "monitoring", "name": "Infrastructure monitoring"}],
  "meters": [{"key": "host-hours", "event_type": "hosts", "aggregation": "sum", "value": "hosts", "unit": "host-hour"},
    {"key": "hosts-p99", "event_type": "hosts", "aggregation": "percentile", "percentile": "99", "per": {"bucket": "hour", "aggregation": "max"}, "value": "hosts", "unit": "host"}],
  "plans": [
    {"key": "pro-720", "name": "Pro, 30 days", "currency": "USD", "charges": [
      {"key": "hosts", "product": "monitoring", "meter": "host-hours", "pricing": {"model": "per_unit", "unit_price": "15", "per": 720}}]},
    {"key": "enterprise-720", "name": "Enterprise, 30 days", "currency": "USD", "charges": [
      {"key": "hosts", "product": "monitoring", "meter": "host-hours", "pricing": {"model": "per_unit", "unit_price": "23", "per": 720}}]},
    {"key": "pro-p99", "name": "Pro, 99th percentile", "currency": "USD", "charges": [
      {"key": "hosts", "product": "monitoring", "meter": "hosts-p99", "pricing": {"model": "per_unit", "unit_price": "15"}}]},
    {"key": "pro-744", "name": "Pro, 31 days", "currency": "USD", "charges": [
      {"key": "hosts", "product": "monitoring", "meter": "host-hours", "pricing": {"model": "per_unit", "unit_price": "15", "per": 744}}]}]}') \gset
SELECT billing.customer_upsert(jsonb_build_object('key', k)), billing.subscribe(k, plan, starts_on, '{"term": "1 month"}')
FROM (VALUES ('june', 'pro-720', date '2026-06-01'), ('june-enterprise', 'enterprise-720', '2026-06-01'), ('july', 'pro-744', '2026-07-01'),
    ('p99-2-hours', 'pro-p99', '2026-06-01'), ('p99-7-hours', 'pro-p99', '2026-06-01'), ('p99-8-hours', 'pro-p99', '2026-06-01')) c (k, plan, starts_on) \g /dev/null

-- One event an hour with the number of hosts. The spike is on the 10th at noon; two customers have it for longer.
CREATE TEMP TABLE batch (LIKE billing.usage_event_input);
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
SELECT c.customer, 'hosts', 'hour-' || h, to_char(c.month + h * interval '1 hour', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    json_build_object('hosts', CASE WHEN h >= 9 * 24 + 12 AND h < 9 * 24 + 12 + c.spike THEN 100 ELSE 10 END)
FROM (VALUES ('june', timestamp '2026-06-01', 720, 2), ('june-enterprise', '2026-06-01', 720, 2), ('july', '2026-07-01', 744, 2),
    ('p99-2-hours', '2026-06-01', 720, 2), ('p99-7-hours', '2026-06-01', 720, 7), ('p99-8-hours', '2026-06-01', 720, 8)) c (customer, month, hours, spike), generate_series(0, c.hours - 1) h;
SELECT accepted, duplicate, conflicting, rejected FROM billing.ingest_from('batch');

CALL billing.bill_run();
SELECT customer, trim_scale(quantity) AS quantity, unit, amount::numeric(12, 2) AS amount, currency FROM billing.fact_invoice_line ORDER BY customer_id;

\echo 'The vendor''s own rule, once more in SQL over usage(): the count at rank ceil(0.99 n) of the n hours'
SELECT customer, hours, rank, hosts, hosts = (SELECT m.quantity FROM billing.usage(customer, 'hosts-p99', '2026-06-01Z', '2026-07-01Z') m) AS as_metered
FROM (
    SELECT customer, count(*) AS hours, ceil(0.99 * count(*)) AS rank, (array_agg(trim_scale(u.quantity) ORDER BY u.quantity))[ceil(0.99 * count(*))] AS hosts
    FROM (VALUES ('p99-2-hours'), ('p99-7-hours'), ('p99-8-hours')) c (customer), billing.usage(c.customer, 'host-hours', '2026-06-01Z', '2026-07-01Z', 'hour') u
    GROUP BY customer
) s ORDER BY customer;

DO $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(format('%s: %s, not %s', w.customer, i.total, w.total), '; ') INTO wrong
    FROM (VALUES ('june', 153.75), ('june-enterprise', 235.75), ('july', 153.63), ('p99-2-hours', 150.00), ('p99-7-hours', 150.00), ('p99-8-hours', 1500.00)) w (customer, total)
    LEFT JOIN (billing.invoice i JOIN billing.customer c USING (customer_id)) ON c.key = w.customer
    WHERE i.total IS DISTINCT FROM w.total;
    SELECT concat_ws('; ', wrong, string_agg(v.check_name || ': ' || v.example, '; ')) INTO wrong FROM billing.verify('full') v WHERE v.failed > 0;
    IF wrong <> '' THEN RAISE EXCEPTION '%', wrong; END IF;
END
$$;

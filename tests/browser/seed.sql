-- Five customers whose pages the browser test looks at: one with much, one with little, one with nothing, one whose texts
-- are hostile, and one whose figures are worked out by hand (tests/browser.rs). All by the calls an application makes; the clock ends on 14 March 2026.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SELECT billing.test_clock_set('2025-12-31 23:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "inference", "name": "Inference"}, {"key": "storage", "name": "Storage"}, {"key": "scanning", "name": "Scanning"}, {"key": "printing", "name": "Printing"}],
  "meters": [
    {"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "tokens", "dimensions": ["model"], "unit": "token"},
    {"key": "requests", "event_type": "llm.request", "aggregation": "sum", "value": "requests", "dimensions": ["model"], "unit": "request"},
    {"key": "storage", "event_type": "storage.day", "aggregation": "sum", "value": "gb", "unit": "GB-day"},
    {"key": "scans", "event_type": "scan", "aggregation": "sum", "value": "n", "unit": "scan"}, {"key": "prints", "event_type": "print", "aggregation": "sum", "value": "n", "unit": "page"}],
  "features": [{"key": "tokens", "name": "Tokens a month", "kind": "metered", "meter": "tokens"}, {"key": "requests", "name": "Requests a month", "kind": "metered", "meter": "requests"},
    {"key": "sso", "name": "Single sign-on", "kind": "boolean"}, {"key": "support", "name": "Support", "kind": "static"}, {"key": "renders", "name": "Renders", "kind": "credit", "unit": "credits"},
    {"key": "scans", "name": "Scans a month", "kind": "metered", "meter": "scans"}],
  "price_books": [{"key": "list", "currency": "USD", "prices": [
    {"key": "tokens", "meter": "tokens", "pricing": {"model": "matrix", "dimensions": ["model"], "per": 1000000, "rows": [
      {"match": {"model": "atlas-large"}, "unit_price": "12.00"}, {"match": {"model": "atlas-medium"}, "unit_price": "4.00"}, {"match": {"model": "atlas-small"}, "unit_price": "0.60"},
      {"match": {"model": "embed-3"}, "unit_price": "0.10"}, {"match": {"model": "vision-2"}, "unit_price": "6.50"}, {"match": {"model": "voice-1"}, "unit_price": "3.20"}, {"match": {"model": "rerank-1"}, "unit_price": "0.80"},
      {"match": {}, "unit_price": "1.00"}]}},
    {"key": "requests", "meter": "requests", "pricing": {"model": "graduated", "tiers": [{"up_to": "100000", "unit_price": "0"}, {"up_to": "1000000", "unit_price": "0.0004"}, {"unit_price": "0.0002"}]}},
    {"key": "storage", "meter": "storage", "pricing": {"model": "per_unit", "unit_price": "0.0031"}}]}],
  "plans": [
    {"key": "scale", "name": "Scale", "currency": "USD", "price_book": "list", "billing": {"interval": "1 month", "alignment": "calendar", "net_days": 30, "collection": "send_invoice"},
      "charges": [{"key": "tokens", "product": "inference", "meter": "tokens", "price": "tokens"}, {"key": "requests", "product": "inference", "meter": "requests", "price": "requests"}, {"key": "storage", "product": "storage", "meter": "storage", "price": "storage"}],
      "fees": [{"key": "platform", "product": "inference", "pricing": {"model": "flat", "amount": "499.00"}, "quantity": "1", "every": "1 month", "timing": "advance", "proration": "day"}],
      "entitlements": [{"feature": "tokens", "value": "3000000000", "mode": "overage"}, {"feature": "requests", "value": "300000"}, {"feature": "sso"}, {"feature": "support", "value": "within 4 hours"}, {"feature": "renders"}]},
    {"key": "office", "name": "Office", "currency": "USD", "billing": {"interval": "1 month", "alignment": "calendar", "net_days": 14, "collection": "send_invoice"},
      "charges": [{"key": "scans", "product": "scanning", "meter": "scans", "pricing": {"model": "per_unit", "unit_price": "0.50"}}, {"key": "prints", "product": "printing", "meter": "prints", "pricing": {"model": "per_unit", "unit_price": "1.00"}}],
      "entitlements": [{"feature": "scans", "value": "1000"}]},
    {"key": "starter", "name": "Starter", "currency": "USD", "price_book": "list", "billing": {"interval": "1 month", "alignment": "anniversary", "net_days": 14, "collection": "send_invoice"},
      "charges": [{"key": "tokens", "product": "inference", "meter": "tokens", "price": "tokens"}],
      "fees": [{"key": "platform", "product": "inference", "pricing": {"model": "flat", "amount": "29.00"}, "quantity": "1", "every": "1 month", "timing": "advance", "proration": "day"}]}]}') \g /dev/null
SELECT billing.customer_upsert('{"key": "acme", "name": "Acme Robotics", "currency": "USD", "time_zone": "America/New_York", "bill_tos": [{"key": "acme", "name": "Acme Robotics Inc."}]}'),
    billing.customer_upsert('{"key": "nova", "name": "Nova Labs", "currency": "USD", "time_zone": "Europe/Berlin"}'),
    billing.customer_upsert('{"key": "olive", "name": "Olive Office", "currency": "USD", "time_zone": "UTC"}'),
    billing.customer_upsert('{"key": "blank", "name": "Blank Slate Ltd", "currency": "EUR", "time_zone": "UTC"}'),
    billing.customer_upsert('{"key": "hostile", "name": "<script>document.title=1</script>\" onload=\"x 日本語 ‮мир", "currency": "USD", "time_zone": "UTC", "bill_tos": [{"key": "<b>", "name": "</td><h1>Bill & \"Ted\"''s"}]}') \g /dev/null
SELECT billing.contract_create('{"key": "acme-2026", "customer": "acme", "currency": "USD", "time_zone": "America/New_York", "starts_on": "2026-01-01", "term": "12 months", "plan": "scale",
  "billing": {"interval": "1 month", "alignment": "calendar", "net_days": 30, "collection": "send_invoice"},
  "overrides": [{"meter": "tokens", "match": {"model": "atlas-large"}, "percent_off": "20"}],
  "commitments": [{"key": "annual-minimum", "kind": "postpaid", "amount": "48000", "product": "inference", "every": "12 months", "scope": {"products": ["inference"]}}],
  "renewal": {"auto": true, "notice_days": 60}}'), billing.contract_activate('acme-2026', '2025-12-20T15:00:00Z') \g /dev/null
SELECT billing.credit_purchase('acme', '{"key": "storage-2026", "amount": "600", "price": "500", "unit": "USD", "effective_on": "2026-01-01", "expires": "2027-01-01", "scope": {"products": ["storage"]}}'),
    billing.credit_grant_create('acme', '{"key": "welcome", "amount": "1500", "unit": "USD", "expires": "2026-07-01", "reason": "a slow start", "scope": {"products": ["inference"]}}'),
    billing.credit_purchase('acme', '{"key": "renders", "amount": "10000", "bonus": "2000", "price": "800", "unit": "credits", "effective_on": "2026-01-01", "expires": "2027-01-01"}') \g /dev/null

CREATE PROCEDURE pg_temp.live_until(at timestamptz) LANGUAGE sql AS $$ SELECT billing.test_clock_set(at); SELECT * FROM billing.tick(); $$;
-- A weekday's traffic grows, weekends are quiet.
CREATE FUNCTION pg_temp.traffic(from_on date, until_on date) RETURNS bigint LANGUAGE sql AS $$
    SELECT sum(r.accepted) FROM (
        SELECT json_agg(json_build_object('customer', 'acme', 'event_id', m.model || '/' || d::date, 'event_type', 'llm.request', 'occurred_at', (d + time '15:00') AT TIME ZONE 'America/New_York',
            'properties', json_build_object('model', m.model, 'tokens', trunc(m.tokens * CASE WHEN extract(isodow FROM d) > 5 THEN 0.35 ELSE 1 END * (1 + 0.006 * (d::date - date '2026-01-01')) * (1 + 0.18 * sin(m.n * (d::date - date '2026-01-01')))),
                'requests', trunc(m.tokens / 5200)))) AS events
        FROM generate_series(from_on::timestamp, until_on - interval '1 day', interval '1 day') d,
            (VALUES (1, 'atlas-large', 4800000), (2, 'atlas-medium', 9100000), (3, 'atlas-small', 30000000), (4, 'embed-3', 61000000), (5, 'vision-2', 1900000), (6, 'voice-1', 1400000), (7, 'rerank-1', 2200000)) m (n, model, tokens)
        UNION ALL
        SELECT json_agg(json_build_object('customer', 'acme', 'event_id', 'storage/' || d::date, 'event_type', 'storage.day', 'occurred_at', (d + time '12:00') AT TIME ZONE 'America/New_York', 'properties', json_build_object('gb', 1800 + 9 * (d::date - date '2026-01-01'))))
        FROM generate_series(from_on::timestamp, until_on - interval '1 day', interval '1 day') d) x, billing.ingest(x.events) r $$;
CALL pg_temp.live_until('2026-01-01 12:00:00Z');
SELECT billing.test_clock_set('2026-01-31 23:30:00Z'), pg_temp.traffic('2026-01-01', '2026-02-01') \g /dev/null
CALL pg_temp.live_until('2026-02-01 12:00:00Z');
SELECT result FROM billing.draw_down('acme', 3120, 'batch-1', 'credits') \g /dev/null
SELECT billing.test_clock_set('2026-02-28 23:30:00Z'), pg_temp.traffic('2026-02-01', '2026-03-01') \g /dev/null
CALL pg_temp.live_until('2026-03-01 12:00:00Z');
SELECT result FROM billing.draw_down('acme', 2410.5, 'batch-2', 'credits') \g /dev/null

SELECT billing.credit_purchase('acme', '{"key": "renders-march", "amount": "500", "price": "45", "unit": "credits"}') \g /dev/null

SELECT billing.test_clock_set('2026-03-11 09:00:00Z') AS clock \gset
SELECT billing.subscribe('nova', 'starter', '2026-03-11') \g /dev/null
SELECT billing.contract_create('{"key": "<i>1", "customer": "hostile", "currency": "USD", "time_zone": "UTC", "starts_on": "2026-03-01", "plan": "starter"}'), billing.contract_activate('<i>1') \g /dev/null
SELECT billing.contract_create('{"key": "olive-2026", "customer": "olive", "currency": "USD", "time_zone": "UTC", "starts_on": "2026-03-01", "plan": "office",
  "commitments": [{"key": "scans-of-the-year", "kind": "postpaid", "amount": "6000", "product": "scanning", "every": "12 months", "scope": {"products": ["scanning"]}}]}'), billing.contract_activate('olive-2026') \g /dev/null
SELECT billing.credit_grant_create('olive', '{"key": "gift", "amount": "50", "unit": "USD", "effective_on": "2026-03-01", "expires": "2026-03-20", "scope": {"products": ["printing"]}}'),
    billing.credit_purchase('olive', '{"key": "paper", "amount": "200", "price": "150", "unit": "USD", "effective_on": "2026-03-01", "expires": "2027-03-01", "scope": {"products": ["printing"]}}') \g /dev/null
CALL pg_temp.live_until('2026-03-11 10:00:00Z');
SELECT billing.test_clock_set('2026-03-14 08:30:00Z') AS clock \gset
SELECT pg_temp.traffic('2026-03-01', '2026-03-14') \g /dev/null
-- 40 scans and 6 pages a day, the 1st to the 13th.
SELECT sum(r.accepted) FROM generate_series(1, 13) d, billing.ingest(json_build_array(
    json_build_object('customer', 'olive', 'event_id', 'scan' || d, 'event_type', 'scan', 'occurred_at', make_timestamptz(2026, 3, d, 12, 0, 0, 'UTC'), 'properties', json_build_object('n', 40)),
    json_build_object('customer', 'olive', 'event_id', 'print' || d, 'event_type', 'print', 'occurred_at', make_timestamptz(2026, 3, d, 12, 0, 0, 'UTC'), 'properties', json_build_object('n', 6)))) r \g /dev/null
SELECT accepted FROM billing.ingest('[
  {"customer": "nova", "event_id": "n1", "event_type": "llm.request", "occurred_at": "2026-03-12T09:00:00Z", "properties": {"model": "atlas-small", "tokens": 812000}},
  {"customer": "nova", "event_id": "n2", "event_type": "llm.request", "occurred_at": "2026-03-13T10:00:00Z", "properties": {"model": "atlas-large", "tokens": 120000}},
  {"customer": "hostile", "event_id": "h1", "event_type": "llm.request", "occurred_at": "2026-03-13T10:00:00Z", "properties": {"model": "</svg><img src=x onerror=document.title=2>", "tokens": 5000000}},
  {"customer": "hostile", "event_id": "h2", "event_type": "llm.request", "occurred_at": "2026-03-12T10:00:00Z", "properties": {"model": "a-very-long-name-of-a-model-without-any-place-to-break-it-so-that-it-may-push-the-page-apart-2026-03-12", "tokens": 9000000}}]') \g /dev/null
CALL billing.fold();

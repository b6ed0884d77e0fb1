-- :contracts contracts of one plan with usage of three models, ready for their second boundary: five lines each
-- (tokens × 3 models, requests, platform). One contract is made by the product, the others are copies of its rows.
\set ON_ERROR_STOP on
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "ai-api"}],
  "meters": [
    {"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "input_tokens + output_tokens", "dimensions": ["model"], "unit": "token"},
    {"key": "requests", "event_type": "llm.request", "aggregation": "count", "dimensions": ["model"], "unit": "request"}],
  "price_books": [{"key": "list", "currency": "USD", "prices": [
    {"key": "tokens", "meter": "tokens", "pricing": {"model": "matrix", "dimensions": ["model"], "per": 1000, "rows": [
      {"match": {"model": "gpt-4"}, "unit_price": "0.03"}, {"match": {"model": "gpt-3.5"}, "unit_price": "0.002"}, {"match": {}, "unit_price": "0.01"}]}},
    {"key": "requests", "meter": "requests", "pricing": {"model": "graduated", "tiers": [
      {"up_to": "1", "unit_price": "0.01"}, {"up_to": "5000", "unit_price": "0.001"}, {"unit_price": "0.0005"}]}}]}],
  "plans": [{"key": "usage", "currency": "USD", "price_book": "list",
    "charges": [{"key": "tokens", "product": "ai-api", "meter": "tokens", "price": "tokens"}, {"key": "requests", "product": "ai-api", "meter": "requests", "price": "requests"}],
    "fees": [{"key": "platform", "product": "ai-api", "pricing": {"model": "flat", "amount": "49"}}]}]}') \gset
SELECT billing.customer_upsert('{"key": "c1"}') AS customer \gset
SELECT billing.subscribe('c1', 'usage', '2026-06-01') AS contract \gset
-- Ids as a tenth-size run would have them in as few stripes: 391 contracts a stripe whatever :contracts is, up to 100,096.
CREATE TEMP TABLE copy AS SELECT (n % 391 + 1) * 256 + n / 391 AS customer_id, gen_random_uuid() AS bill_to_id, gen_random_uuid() AS contract_id FROM generate_series(2, :contracts) n;
INSERT INTO billing.customer (customer_id, key, name, seller_id, currency, time_zone, created_at)
SELECT x.customer_id, 'c' || x.customer_id, 'Customer ' || x.customer_id, c.seller_id, c.currency, c.time_zone, c.created_at FROM copy x, billing.customer c WHERE c.customer_id = 1;
UPDATE billing_internal.counter SET value = (SELECT max(customer_id) FROM copy) WHERE name = 'customer_id';
INSERT INTO billing.bill_to (customer_id, bill_to_id, key, position, name) SELECT x.customer_id, x.bill_to_id, 'c' || x.customer_id, 1, 'Customer ' || x.customer_id FROM copy x;
INSERT INTO billing.contract (customer_id, contract_id, key, seller_id, bill_to_id, plan_id, plan_version, currency, time_zone, starts_on, starts_at, billed_every, alignment, net_days,
    collection, prices, state, version, next_n, next_bill_at, signed_at, created_at)
SELECT x.customer_id, x.contract_id, 'c' || x.customer_id || '-1', k.seller_id, x.bill_to_id, k.plan_id, k.plan_version, k.currency, k.time_zone, k.starts_on, k.starts_at, k.billed_every,
    k.alignment, k.net_days, k.collection, k.prices, k.state, k.version, k.next_n, k.next_bill_at, k.signed_at, k.created_at
FROM copy x, billing.contract k WHERE k.customer_id = 1;
INSERT INTO billing.contract_key SELECT 'c' || x.customer_id || '-1', x.customer_id, x.contract_id FROM copy x;
INSERT INTO billing.contract_version (customer_id, contract_id, version, effective_at, recorded_at, kind, document, change)
SELECT x.customer_id, x.contract_id, v.version, v.effective_at, v.recorded_at, v.kind, v.document, v.change FROM copy x, billing.contract_version v WHERE v.customer_id = 1;
INSERT INTO billing.contract_charge (customer_id, contract_id, charge_key, valid_during, from_version, position, kind, product_id, meter_id, price_book_id, price_key, every, terms)
SELECT x.customer_id, x.contract_id, h.charge_key, h.valid_during, h.from_version, h.position, h.kind, h.product_id, h.meter_id, h.price_book_id, h.price_key, h.every, h.terms
FROM copy x, billing.contract_charge h WHERE h.customer_id = 1;
INSERT INTO billing.billing_period (customer_id, contract_id, n, starts_on, ends_on, starts_at, ends_at, state, recorded_at)
SELECT x.customer_id, x.contract_id, p.n, p.starts_on, p.ends_on, p.starts_at, p.ends_at, p.state, p.recorded_at FROM copy x, billing.billing_period p WHERE p.customer_id = 1;
CREATE TEMP TABLE batch (LIKE billing.usage_event_input);
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
SELECT 'c' || n, 'llm.request', n || '-' || i, format('2026-06-15T0%s:00:00Z', i), json_build_object('model', (ARRAY['gpt-4', 'gpt-3.5', 'o1'])[i], 'input_tokens', 100 * i + n, 'output_tokens', i)
FROM (SELECT customer_id AS n FROM billing.customer) n, generate_series(1, 3) i;
SELECT accepted FROM billing.ingest_from('batch') \gset
DROP TABLE batch;
CALL billing.fold();
VACUUM ANALYZE;
-- Boundary 0: the first platform fee, not timed.
CALL billing.bill_run('2026-06-01T00:00:00Z');
VACUUM ANALYZE;
CHECKPOINT;

-- Run on the code of 0.1.0 (scripts/upgrade): the demo's catalogue, customers and deals with some hundred events, and what else
-- a database of that version may hold that the schema files since then have to bring along.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
\ir ../../examples/demo/setup.sql
CREATE TEMP TABLE batch (LIKE billing.usage_event_input);
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
SELECT (ARRAY['mega', 'startup', 'acme'])[n % 3 + 1], 'llm.request', 'call-' || n, to_char(timestamp '2023-11-02 07:00' + n * interval '83 minutes', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    json_build_object('model', CASE n % 4 WHEN 0 THEN 'gpt-4' ELSE 'gpt-3.5' END, 'input_tokens', 1000 + n * 37 % 5000, 'output_tokens', n * 11 % 300, 'user_id', 'u' || n % 17)
FROM generate_series(1, 450) n;
SELECT accepted = 450 AS good FROM billing.ingest_from('batch') \gset
SELECT 1 / (:'good')::boolean::int;

-- Other aggregations, a price that is one amount for the period, fees, two legal entities, another zone and rounding.
SELECT count(*) FROM billing.catalog_apply('{
  "products": [{"key": "suite", "name": "Suite"}],
  "meters": [
    {"key": "users", "event_type": "llm.request", "aggregation": "unique_count", "value": "user_id", "unit": "user"},
    {"key": "longest", "event_type": "llm.request", "aggregation": "max", "value": "input_tokens", "dimensions": ["model"], "unit": "token"}],
  "price_books": [{"key": "suite", "currency": "EUR", "prices": [
    {"key": "users", "meter": "users", "pricing": {"model": "stairstep", "tiers": [{"up_to": "10", "amount": "50"}, {"amount": "120"}]}},
    {"key": "requests", "meter": "requests", "pricing": {"model": "matrix", "dimensions": ["model"], "rows": [
      {"match": {"model": "gpt-4"}, "unit_price": "0.0125"}, {"match": {}, "pricing": {"model": "flat", "amount": "3"}}]}}]}],
  "plans": [{"key": "suite", "name": "Suite", "currency": "EUR", "price_book": "suite",
    "billing": {"interval": "1 month", "alignment": "anniversary", "net_days": 14},
    "charges": [
      {"key": "users", "product": "suite", "meter": "users", "price": "users"},
      {"key": "requests", "product": "suite", "meter": "requests", "price": "requests"},
      {"key": "longest", "product": "suite", "meter": "longest", "pricing": {"model": "per_unit", "unit_price": "0.0003"}}],
    "fees": [{"key": "platform", "product": "suite", "pricing": {"model": "flat", "amount": "99"}, "every": "1 month", "timing": "advance"}]}]}');
SELECT billing.customer_upsert('{"key": "globex", "name": "Globex", "currency": "EUR", "time_zone": "Asia/Kathmandu", "aliases": ["globex-gmbh"],
    "bill_tos": [{"key": "gmbh", "name": "Globex GmbH"}, {"key": "emea", "name": "Globex EMEA"}]}'),
  billing.customer_upsert('{"key": "idle", "name": "Idle Ltd", "currency": "USD", "time_zone": "America/New_York"}');
SELECT billing.subscribe('globex', 'suite', '2023-10-05'), billing.subscribe('idle', 'usage', '2023-09-01');
-- One contract that has ended.
SELECT billing.customer_upsert('{"key": "gone", "name": "Gone LLC", "currency": "USD", "time_zone": "UTC"}');
SELECT billing.subscribe('gone', 'usage', '2023-09-01', '{"term": "2 months"}');
SELECT billing.policy_set('rounding_mode', 'half_even', 'contract:globex-1', 'agreed'), billing.policy_set('proration_basis', 'second', 'global');
TRUNCATE batch;
INSERT INTO batch (customer, event_type, event_id, occurred_at, bill_to, properties)
SELECT 'globex-gmbh', 'llm.request', 'g-' || n, to_char(timestamp '2023-10-06 00:00' + n * interval '11 hours', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), CASE n % 5 WHEN 0 THEN 'emea' END,
    json_build_object('model', CASE n % 2 WHEN 0 THEN 'gpt-4' ELSE 'mixtral' END, 'input_tokens', 100 * n, 'output_tokens', n, 'user_id', 'g' || n % 23)
FROM generate_series(1, 90) n;
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
VALUES ('gone', 'llm.request', 'last', '2023-10-20T12:00:00Z', '{"model": "gpt-4", "input_tokens": 5000, "output_tokens": 0, "user_id": "u"}');
SELECT accepted = 91 AS good FROM billing.ingest_from('batch') \gset
SELECT 1 / (:'good')::boolean::int;

-- Part of it folded, all of it billed; one bill voided and issued again, one left a draft.
CALL billing.fold();
CALL billing.bill_run();
SELECT 1 / count(*) FROM billing.invoice i, billing.invoice_void(i.number, 'wrong address') WHERE i.key = 'globex-1/1';
CALL billing.bill_run();
SELECT 1 / count(*) FROM billing.invoice i, billing.invoice_void(i.number, 'not to be issued again', reissue => false) WHERE i.key = 'globex-1/1:emea';

-- A price whose next version was published after the bills.
SELECT count(*) FROM billing.catalog_apply('{"price_books": [{"key": "list", "currency": "USD", "prices": [
    {"key": "requests", "meter": "requests", "valid_from": "2024-06-01T00:00:00Z", "pricing": {"model": "per_unit", "unit_price": "0.004"}}]}]}');

-- What came after the bill: nobody billed it then. In a month that was billed, in one that was closed with nothing, in
-- the last one of a contract that has ended.
SELECT billing.ingest('[
  {"customer": "acme", "event_type": "llm.request", "event_id": "after", "occurred_at": "2023-11-30T23:59:59Z", "properties": {"model": "gpt-4", "input_tokens": 2000, "output_tokens": 500, "user_id": "u1"}},
  {"customer": "idle", "event_type": "llm.request", "event_id": "after", "occurred_at": "2023-10-10T10:00:00Z", "properties": {"model": "gpt-4", "input_tokens": 90000, "output_tokens": 10000, "user_id": "u1"}},
  {"customer": "gone", "event_type": "llm.request", "event_id": "after", "occurred_at": "2023-10-31T10:00:00Z", "properties": {"model": "gpt-4", "input_tokens": 4000, "output_tokens": 0, "user_id": "u1"}}]');
SELECT billing.test_clock_set('2023-12-08 00:00Z');
SELECT billing.invoice_generate('globex-1');
-- Refused, and one of them settled by hand; conflicting; a duplicate.
SELECT billing.ingest('[
  {"customer": "nobody", "event_type": "llm.request", "event_id": "x", "occurred_at": "2023-12-01T00:00:00Z", "properties": {}},
  {"customer": "acme", "event_type": "llm.request", "event_id": "y", "occurred_at": "yesterday", "properties": {}},
  {"customer": "acme", "event_type": "llm.request", "event_id": "after", "occurred_at": "2023-11-30T23:59:59Z", "properties": {"model": "gpt-4", "input_tokens": 1}}]');
UPDATE billing.rejected_event SET resolved_at = '2023-12-08 01:00Z' WHERE event_id = 'y';
CALL billing.audit_seal();
SELECT billing.customer_upsert('{"key": "acme", "name": "Acme Corporation", "currency": "USD", "time_zone": "UTC"}');

-- What others may have built on it.
CREATE TABLE public.wallet (holder text PRIMARY KEY, balance billing.money NOT NULL);
INSERT INTO public.wallet VALUES ('acme', '12.50 USD');
CREATE VIEW public.wallet_report AS SELECT holder, billing.amount(balance) AS amount, billing.rate('{"model":"per_unit","unit_price":"2"}', billing.amount(balance)) AS twice FROM public.wallet;
CREATE VIEW public.usage_report AS SELECT customer, meter, sum(quantity) AS quantity FROM billing.usage_daily GROUP BY customer, meter;

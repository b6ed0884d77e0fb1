-- The contract document: what it comes to over time, in words, between versions, and what is refused by which path.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2025-01-02T00:00:00Z') AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply(billing.catalog_example('llm-api'));
SELECT billing.customer_upsert('{"key": "acme", "currency": "USD"}');
CREATE FUNCTION pg_temp.previewed(doc jsonb, months int DEFAULT 12) RETURNS TABLE (issued_on date, key text, amount numeric) LANGUAGE sql AS $$
    SELECT p.issued_on, l->>'key', (l->>'amount')::numeric FROM billing.contract_preview('{"key": "x", "customer": "acme"}' || doc, months) p, jsonb_array_elements(p.document->'lines') l
$$;

-- rules.md 2: fiscal year from 1 February: a stub of 78 days, then full years
WITH got AS (SELECT * FROM pg_temp.previewed('{"starts_on": "2025-11-15", "billing": {"interval": "1 year", "alignment": "fiscal", "fiscal_year_starts": "02-01"},
    "fees": [{"key": "licence", "product": "ai-api", "pricing": {"model": "flat", "amount": "120000"}}]}', 24))
SELECT got.*, want, amount = want AS ok FROM got JOIN (VALUES ('2025-11-15'::date, 25643.84), ('2026-02-01', 120000.00), ('2027-02-01', 120000.00)) w (issued_on, want) USING (issued_on) ORDER BY issued_on;
-- The same fee in a contract that is billed by the month: once a year, in the fiscal year's first month.
SELECT * FROM pg_temp.previewed('{"starts_on": "2025-11-15", "billing": {"interval": "1 month", "alignment": "fiscal", "fiscal_year_starts": "02-01"},
    "fees": [{"key": "licence", "product": "ai-api", "every": "12 months", "pricing": {"model": "flat", "amount": "120000"}}]}', 15) ORDER BY issued_on;

-- rules.md 2, co-term: an add-on of 12,000 a year from 1 April ends with its contract's year, by day or by month
WITH got AS (SELECT basis, p.* FROM unnest('{day, 30_strict}'::text[]) basis, pg_temp.previewed(('{"starts_on": "2025-01-01", "term": "12 months", "billing": {"interval": "1 year"},
    "fees": [{"key": "base", "product": "ai-api", "pricing": {"model": "flat", "amount": "1000"}}],
    "add_ons": [{"key": "sso", "from": "2025-04-01", "fees": [{"key": "fee", "product": "ai-api", "every": "12 months", "proration": "' || basis || '", "pricing": {"model": "flat", "amount": "12000"}}]}]}')::jsonb) p WHERE p.key LIKE 'sso%')
SELECT got.basis, key, amount, want, amount = want AS ok FROM got JOIN (VALUES ('day', 9041.10), ('30_strict', 9000.00)) w (basis, want) USING (basis) ORDER BY basis;

-- rules.md 2, anchors: 31 January with and without months' ends; a trial's end is the anchor
SELECT string_agg(DISTINCT p.issued_on::text, ' ' ORDER BY p.issued_on::text) AS boundaries, doc->'billing' AS billing FROM (VALUES
    ('{"starts_on": "2025-11-30", "billing": {"interval": "3 months", "alignment": "anniversary"}}'::jsonb),
    ('{"starts_on": "2025-11-30", "billing": {"interval": "3 months", "alignment": "anniversary", "end_of_month": true}}'),
    ('{"starts_on": "2025-12-28", "trial": {"duration": "3 days"}, "billing": {"interval": "1 month", "alignment": "anniversary"}}')) d (doc)
CROSS JOIN LATERAL pg_temp.previewed(doc || '{"fees": [{"key": "f", "product": "ai-api", "pricing": {"model": "flat", "amount": "10"}}]}', 9) p GROUP BY doc ORDER BY doc;

-- rules.md 1: 100,000 and 7% a year for three years are 321,490.00
SELECT sum(amount) AS got, 321490.00 AS want, sum(amount) = 321490.00 AS ok FROM pg_temp.previewed('{"starts_on": "2025-01-01", "term": "36 months", "billing": {"interval": "1 year"},
    "fees": [{"key": "licence", "product": "ai-api", "pricing": {"model": "flat", "amount": "100000"}, "step_up": {"percent": "7", "every": "12 months"}}]}', 36);

-- in words
SELECT billing.contract_describe('{"key": "acme-2026", "customer": "acme", "starts_on": "2026-01-01", "term": "12 months", "plan": "pro", "prices": "pin", "billing": {"interval": "3 months", "net_days": 45},
  "overrides": [{"meter": "tokens", "percent_off": "50"}],
  "commitments": [{"key": "annual", "kind": "prepaid", "amount": "100000", "instalments": "3 months"}],
  "credits": [{"key": "annual-credits", "category": "paid", "amount": "120000", "paid_by": "annual", "scope": {"products": ["ai-api"]}}],
  "renewal": {"auto": true, "notice_days": 60, "uplift": {"index": "cpi", "min": "3", "max": "7"}}}');
SELECT pg_temp.fails($$SELECT billing.contract_describe('{"key": "a", "customer": "acme", "starts_on": "2026-01-01", "plan": "nothing"}')$$);
SELECT pg_temp.fails($$SELECT billing.contract_describe('{"key": "a", "customer": "acme", "starts_on": "2026-01-01", "plan": "pro", "fees": [{"key": "x"}]}')$$);
SELECT pg_temp.fails($$SELECT billing.contract_describe(NULL)$$);

-- between versions; what did not change is not there
SELECT billing.contract_create('{"key": "deal", "customer": "acme", "starts_on": "2025-01-01", "term": "12 months", "plan": "pro",
  "fees": [{"key": "seats", "product": "ai-api", "pricing": {"model": "per_unit", "unit_price": "20"}, "quantity": "5"}, {"key": "platform", "product": "ai-api", "pricing": {"model": "flat", "amount": "100"}}]}');
SELECT billing.contract_activate('deal');
SELECT billing.contract_amend('deal', '{"quantities": {"seats": "10"}, "fees": [{"key": "platform", "remove": true}, {"key": "support", "product": "ai-api", "pricing": {"model": "flat", "amount": "50"}}]}', '2025-03-01');
SELECT billing.contract_amend('deal', '{"term": "24 months"}', '2025-04-01');
SELECT kind, item, change, before, after FROM billing.contract_diff('deal', 1, 2);
SELECT kind, item, change, before, after FROM billing.contract_diff('deal', 2) ORDER BY kind, item;
SELECT count(*) AS differences FROM billing.contract_diff('deal', 3, 3);
SELECT pg_temp.fails($$SELECT * FROM billing.contract_diff('deal', 4)$$);
SELECT pg_temp.fails($$SELECT * FROM billing.contract_diff('deal', NULL)$$);
SELECT s FROM billing.contract_describe(billing.contract_document('deal')) s WHERE s ~ 'seats|support|runs';

-- what can't be billed is refused by its path, in contracts and in amendments
SELECT f FROM (VALUES
    ('{"fees": [{"key": "f", "product": "ai-api", "pricing": {"model": "flat", "amount": "1"}, "step_up": {"percent": "7", "every": "1 day"}}]}'::jsonb),
    ('{"commitments": [{"key": "c", "kind": "postpaid", "quantity": "10", "meter": "tokens"}]}'),
    ('{"fees": [{"key": "f", "product": "ai-api", "pricing": {"model": "flat", "amount": "1"}, "ramp": [{"after": "2 months", "percent": "1"}, {"after": "1 month", "percent": "1"}]}]}'),
    ('{"fees": [{"key": "f", "product": "ai-api", "pricing": {"model": "flat", "amount": "1"}, "every": "5 weeks"}]}'),
    ('{"commitments": [{"key": "c", "kind": "prepaid", "quantity": "10", "meter": "tokens"}]}'),
    ('{"credits": [{"key": "c", "category": "paid", "amount": "1", "expires": "never"}]}'),
    ('{"discounts": [{"key": "d", "percent_off": "10", "charges": ["tokens", "x"]}]}'),
    ('{"phases": [{"key": "a"}, {"key": "b"}]}'),
    ('{"billing": {"alignment": "fiscal"}}'),
    ('{"trial": {"until": "2025-01-01"}}'),
    ('{"renewal": {"auto": true}}')) d (doc),
    pg_temp.fails(format('SELECT billing.contract_create(%L)', '{"key": "no", "customer": "acme", "starts_on": "2025-01-01", "plan": "pro"}'::jsonb || doc)) f;
SELECT f FROM (VALUES
    ('{"currency": "EUR"}'::jsonb), ('{"quantities": {"seat": "3"}}'), ('{"quantities": {"tokens": "3"}}'), ('{"fees": [{"key": "x", "remove": true}]}'),
    ('{"overrides": [{"meter": "tokens", "remove": true}]}'), ('{"term": "1 month"}'), ('{}')) d (doc),
    pg_temp.fails(format('SELECT billing.contract_amend(''deal'', %L, ''2025-06-01'')', doc)) f;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

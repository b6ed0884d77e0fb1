-- Acme's year: half of list price, $100,000 committed and invoiced in four parts, 20 % bonus (120,000 credits), overage at the
-- discounted rate, Net 45, New York. Signed in December, lived through by tick(), until notice ends it.
SELECT billing.test_clock_set('2025-12-15T15:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "ai-api", "name": "AI API"}],
  "meters": [{"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "tokens", "dimensions": ["model"], "unit": "token"}],
  "price_books": [{"key": "list", "currency": "USD", "prices": [
    {"key": "tokens", "meter": "tokens", "pricing": {"model": "matrix", "dimensions": ["model"], "per": 1000, "rows": [
      {"match": {"model": "gpt-4"}, "unit_price": "0.03"}, {"match": {"model": "gpt-3.5"}, "unit_price": "0.002"}]}}]}],
  "plans": [{"key": "enterprise", "name": "Enterprise", "currency": "USD", "price_book": "list",
    "charges": [{"key": "tokens", "product": "ai-api", "meter": "tokens", "price": "tokens"}]}]}') \gset
SELECT billing.customer_upsert('{"key": "acme", "name": "Acme Corp", "currency": "USD", "time_zone": "America/New_York"}') \g /dev/null
CREATE TEMP TABLE deal AS SELECT jsonb '{
  "key": "acme-2026", "customer": "acme", "currency": "USD", "time_zone": "America/New_York", "starts_on": "2026-01-01", "term": "12 months", "plan": "enterprise", "prices": "pin",
  "billing": {"interval": "3 months", "alignment": "calendar", "net_days": 45, "collection": "send_invoice"},
  "overrides": [{"meter": "tokens", "match": {}, "percent_off": "50"}],
  "commitments": [{"key": "annual", "kind": "prepaid", "amount": "100000", "instalments": "3 months"}],
  "credits": [{"key": "annual-credits", "category": "paid", "amount": "120000", "paid_by": "annual", "expires": "contract_end", "scope": {"products": ["ai-api"]}, "priority": 50}],
  "renewal": {"auto": true, "notice_days": 60, "uplift": {"index": "cpi", "min": "3", "max": "7"}}}' AS doc;
CREATE PROCEDURE pg_temp.live_until(at timestamptz) LANGUAGE sql AS $$ SELECT billing.test_clock_set(at); SELECT * FROM billing.tick(); $$;

\echo The deal as it will be billed without any usage, before anyone signs
SELECT boundary, issued_on, due_on, document#>>'{totals,due}' AS due FROM deal, billing.contract_preview(deal.doc);
SELECT billing.contract_create(doc) AS contract FROM deal;
SELECT billing.contract_activate('acme-2026', '2025-12-15T15:00:00Z', 'https://acme.example/order-form.pdf', repeat('a', 64)) AS signed;
SELECT key, state, starts_on, ends_on FROM billing.contract;

\echo New year in New York: the first instalment, and the credits are there
CALL pg_temp.live_until('2026-01-01T00:00:00-05:00');
SELECT posted, pending, available, next_expires_at FROM billing.credit_balance('acme');

\echo Four quarters of usage, a day at a time. Quarter by quarter the credits burn
CREATE FUNCTION pg_temp.use(first date, gpt4 numeric, gpt35 numeric) RETURNS bigint LANGUAGE sql AS $$
    -- As much every day; the rest on the last one.
    WITH day AS (SELECT d::date AS day, row_number() OVER (ORDER BY d) AS n, count(*) OVER () AS days FROM generate_series(first, first + interval '3 months' - interval '1 day', interval '1 day') d)
    SELECT r.accepted FROM billing.ingest((SELECT json_agg(json_build_object('customer', 'acme', 'event_type', 'llm.request', 'event_id', m.model || '/' || day, 'occurred_at', (day + time '12:00') AT TIME ZONE 'America/New_York',
        'properties', json_build_object('model', m.model, 'tokens', CASE WHEN n < days THEN trunc(m.tokens / days) ELSE m.tokens - trunc(m.tokens / days) * (days - 1) END)))
      FROM day, (VALUES ('gpt-4', gpt4), ('gpt-3.5', gpt35)) m (model, tokens))) r $$;
CREATE TEMP TABLE balance (on_day date, posted numeric, pending numeric, available numeric);
CREATE PROCEDURE pg_temp.look() LANGUAGE sql AS $$ INSERT INTO balance SELECT billing.now() AT TIME ZONE 'America/New_York', trim_scale(posted), trim_scale(pending), trim_scale(available) FROM billing.credit_balance('acme') $$;
SELECT billing.test_clock_set('2026-03-31T23:59:59-04:00') AS clock \gset
SELECT pg_temp.use('2026-01-01', 1200000000, 2000000000) AS events;
CALL pg_temp.look();
CALL pg_temp.live_until('2026-04-01T00:00:00-04:00');
CALL pg_temp.look();
SELECT billing.test_clock_set('2026-06-30T23:59:59-04:00') AS clock \gset
SELECT pg_temp.use('2026-04-01', 1800000000, 3000000000) \g /dev/null
CALL pg_temp.look();
CALL pg_temp.live_until('2026-07-01T00:00:00-04:00');
CALL pg_temp.look();
SELECT billing.test_clock_set('2026-09-30T23:59:59-04:00') AS clock \gset
SELECT pg_temp.use('2026-07-01', 2100000000, 4500000000) \g /dev/null
CALL pg_temp.look();
CALL pg_temp.live_until('2026-10-01T00:00:00-04:00');
CALL pg_temp.look();

\echo 1 November: will it renew? Notice counts until the 2nd. Looking ahead on the real data, in a transaction that can only be rolled back:
CALL pg_temp.live_until('2026-11-01T09:00:00-05:00');
SELECT contract, ends_on, notice_deadline, auto, renews_on, new_term, uplift FROM billing.renewals_due('90 days');
SELECT billing.policy_set('renewal_index', '8.1') \g /dev/null
BEGIN;
SELECT at, job, state, did, issues FROM billing.time_travel('2027-01-02Z');
SELECT number, issued_on, document#>>'{totals,due}' AS due, (SELECT string_agg((l->>'label') || ' ' || (l->>'amount'), ', ' ORDER BY place) FROM jsonb_array_elements(document->'lines') WITH ORDINALITY x (l, place)) AS lines
FROM billing.invoice WHERE number LIKE 'PREVIEW-%' ORDER BY issued_on;
ROLLBACK;
\echo Acme gives notice in time, so the contract ends with its term
SELECT billing.contract_notice('acme-2026', reason => 'going to tender') AS version;
SELECT contract, notice_given_at IS NOT NULL AS notice_given, renews_on FROM billing.renewals_due('90 days');

SELECT billing.test_clock_set('2026-12-31T23:59:59-05:00') AS clock \gset
SELECT pg_temp.use('2026-10-01', 2400000000, 5500000000) \g /dev/null
CALL pg_temp.look();
CALL pg_temp.live_until('2027-01-01T00:00:00-05:00');
CALL pg_temp.look();
\echo Credits just before and just after each bill: what is pending is what the open quarter would draw
SELECT * FROM balance;
\echo The year
SELECT i.number, i.issued_on, (SELECT string_agg((l->>'label') || ' ' || (l->>'amount'), ', ' ORDER BY place) FROM jsonb_array_elements(i.document->'lines') WITH ORDINALITY x (l, place)) AS lines,
    i.document#>>'{totals,credits}' AS credits, i.document#>>'{totals,due}' AS due, i.due_on
FROM billing.invoice i ORDER BY i.number;
\echo The last one, down to its roots
SELECT t AS line FROM billing.invoice_explain('INV-2027-000001') t WHERE t !~ ' bucket';
SELECT key, state FROM billing.contract;

DO $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(format('%s: credits %s due %s on %s, not %s, %s on %s', w.issued_on, i.document#>>'{totals,credits}', i.document#>>'{totals,due}', i.due_on, w.credits, w.due, w.due_on), '; ') INTO wrong
    FROM (VALUES (date '2026-01-01', 0, 25000.00, date '2026-02-15'), ('2026-04-01', -20000, 25000.00, '2026-05-16'), ('2026-07-01', -30000, 25000.00, '2026-08-15'),
        ('2026-10-01', -36000, 25000.00, '2026-11-15'), ('2027-01-01', -34000, 7500.00, '2027-02-15')) w (issued_on, credits, due, due_on)
    LEFT JOIN billing.invoice i USING (issued_on)
    WHERE (abs((i.document#>>'{totals,credits}')::numeric), (i.document#>>'{totals,due}')::numeric, i.due_on) IS DISTINCT FROM (abs(w.credits), w.due, w.due_on);
    SELECT concat_ws('; ', wrong, format('billed %s, not 107500', b.due)) INTO wrong FROM (SELECT sum((document#>>'{totals,due}')::numeric) AS due FROM billing.invoice) b WHERE b.due <> 107500;
    SELECT concat_ws('; ', wrong, string_agg(v.check_name || ': ' || v.example, '; ')) INTO wrong FROM billing.verify('full') v WHERE v.failed > 0;
    IF wrong <> '' THEN RAISE EXCEPTION '%', wrong; END IF;
END
$$;

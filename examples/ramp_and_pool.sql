-- $300,000 over 36 months: a platform fee that ramps 40/50/60 thousand a year, tokens prepaid 30/50/70 thousand a year, both in
-- advance; 60 % for Globex Inc, 40 % for Globex GmbH, which another seller of ours invoices; and one pool of tokens a year for both, drawn in the
-- order in which they use it. Whoever comes after it is empty pays for himself. (Taxes and the exchange into euros are not in this version.)
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "platform", "name": "Platform"}, {"key": "tokens", "name": "Tokens"}],
  "meters": [{"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "tokens", "unit": "token"}],
  "price_books": [{"key": "list", "currency": "USD", "prices": [{"key": "tokens", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.002", "per": 1000}}]}],
  "plans": [{"key": "tokens", "name": "Tokens", "currency": "USD", "price_book": "list", "charges": [{"key": "tokens", "product": "tokens", "meter": "tokens", "price": "tokens"}]}]}') \gset
SELECT billing.seller_upsert('{"key": "ireland", "name": "Ours Ltd, Dublin", "invoice_series": "IE"}') \g /dev/null
SELECT billing.customer_upsert('{"key": "globex", "name": "Globex", "bill_tos": [{"key": "globex-inc", "name": "Globex Inc"}, {"key": "globex-gmbh", "name": "Globex GmbH"}]}') \g /dev/null
CREATE PROCEDURE pg_temp.live_until(at timestamptz) LANGUAGE sql AS $$ SELECT billing.test_clock_set(at); SELECT * FROM billing.tick(); $$;
CREATE FUNCTION pg_temp.entity(key text, seller text, platform text[], tokens text[]) RETURNS text LANGUAGE sql AS $$
    SELECT billing.contract_create(jsonb_build_object('key', key, 'customer', 'globex', 'bill_to', key, 'seller', seller, 'currency', 'USD', 'starts_on', '2026-02-01', 'term', '36 months',
        'billing', '{"interval": "12 months", "alignment": "anniversary", "net_days": 30}'::jsonb,
        'fees', jsonb_build_array(jsonb_build_object('key', 'platform', 'product', 'platform', 'pricing', jsonb_build_object('model', 'flat', 'amount', platform[1]), 'ramp', jsonb_build_array(
            jsonb_build_object('after', '12 months', 'pricing', jsonb_build_object('model', 'flat', 'amount', platform[2])), jsonb_build_object('after', '24 months', 'pricing', jsonb_build_object('model', 'flat', 'amount', platform[3]))))),
        'commitments', jsonb_build_array(jsonb_build_object('key', 'tokens', 'kind', 'prepaid', 'product', 'tokens', 'amounts', tokens, 'every', '12 months'))));
    SELECT billing.contract_activate(key) $$;
CREATE FUNCTION pg_temp.use(entity text, usd numeric, at timestamptz) RETURNS text LANGUAGE sql AS $$
    SELECT billing.ingest_event('globex', 'llm.request', entity || '/' || at, at, jsonb_build_object('tokens', usd / 0.002 * 1000), 'globex-' || entity) $$;
-- What each legal entity was billed on a day.
CREATE FUNCTION pg_temp.billed(on_day date) RETURNS TABLE (entity text, number text, lines text, credits text, due numeric) LANGUAGE sql AS $$
    SELECT b.key, i.number, (SELECT string_agg((l->>'label') || ' ' || (l->>'amount'), ', ' ORDER BY place) FROM jsonb_array_elements(i.document->'lines') WITH ORDINALITY x (l, place)),
        i.document#>>'{totals,credits}', (i.document#>>'{totals,due}')::numeric
    FROM billing.invoice i JOIN billing.bill_to b USING (customer_id, bill_to_id) WHERE i.issued_on = on_day ORDER BY b.key DESC, i.number $$;

\echo Signed: a contract for each legal entity, which pay 18,000 and 12,000 for the first year of tokens; one for the usage of both; and the pool that this buys, a year at a time
SELECT pg_temp.entity('globex-inc', 'default', '{24000,30000,36000}', '{18000,30000,42000}'), pg_temp.entity('globex-gmbh', 'ireland', '{16000,20000,24000}', '{12000,20000,28000}');
SELECT billing.contract_create('{"key": "globex-usage", "customer": "globex", "bill_to": "globex-inc", "currency": "USD", "plan": "tokens", "starts_on": "2026-02-01", "term": "36 months",
  "billing": {"interval": "12 months", "alignment": "anniversary"}}'), billing.contract_activate('globex-usage');
SELECT billing.credit_purchase('globex', jsonb_build_object('key', key, 'price', amount, 'amount', amount, 'effective_on', starts, 'expires', ends, 'scope', '{"products": ["tokens"]}'::jsonb, 'invoice', false, 'reason', 'the deal of 2026'))
FROM (VALUES ('year-1', '30000', '2026-02-01', '2027-02-01'), ('year-2', '50000', '2027-02-01', '2028-02-01'), ('year-3', '70000', '2028-02-01', '2029-02-01')) y (key, amount, starts, ends);
CALL pg_temp.live_until('2026-02-01T00:00:00Z');
SELECT * FROM pg_temp.billed('2026-02-01');

\echo On 15 January 2027 they have used 29,000 of its 30,000
SELECT billing.test_clock_set('2027-01-31T00:00:00Z') AS clock \gset
SELECT pg_temp.use('inc', 20000, '2026-06-01T12:00:00Z'), pg_temp.use('gmbh', 9000, '2026-11-01T12:00:00Z') \g /dev/null
SELECT posted, trim_scale(pending) AS pending, trim_scale(available) AS available, upcoming FROM billing.credit_balance('globex');
\echo On the 16th Inc uses 1,200 more, on the 20th GmbH 2,300
SELECT pg_temp.use('gmbh', 2300, '2027-01-20T09:00:00Z') AS sent_first, pg_temp.use('inc', 1200, '2027-01-16T09:00:00Z') AS sent_last;
CALL pg_temp.live_until('2027-02-01T00:00:00Z');
SELECT * FROM pg_temp.billed('2027-02-01');
\echo Who drew what, in the order of use
SELECT a.bill_to, a.line_key, g.key AS credit, trim_scale(sum(a.amount)) AS amount FROM billing.credit_allocation a JOIN billing.credit_grant g USING (customer_id, grant_id) GROUP BY 1, 2, 3 ORDER BY min(a.place);

\echo Year 2: 45,000 of 50,000 are used; the rest expires, nothing rolls over
SELECT billing.test_clock_set('2028-01-31T00:00:00Z') AS clock \gset
SELECT pg_temp.use('inc', 25000, '2027-05-01T12:00:00Z'), pg_temp.use('gmbh', 20000, '2027-12-01T12:00:00Z') \g /dev/null
CALL pg_temp.live_until('2028-02-01T00:00:00Z');
SELECT * FROM pg_temp.billed('2028-02-01');
\echo Year 3
SELECT billing.test_clock_set('2029-01-31T00:00:00Z') AS clock \gset
SELECT pg_temp.use('inc', 40000, '2028-05-01T12:00:00Z'), pg_temp.use('gmbh', 30000, '2028-12-01T12:00:00Z') \g /dev/null
CALL pg_temp.live_until('2029-02-01T00:00:00Z');
SELECT * FROM pg_temp.billed('2029-02-01');
SELECT key, granted, trim_scale(basis) AS basis, trim_scale(burnt) AS burnt, trim_scale(expired) AS expired, standing FROM billing.credit_blocks('globex') ORDER BY key;

\echo The whole deal
SELECT extract(year FROM issued_on) AS year, b.key AS entity, sum((i.document#>>'{totals,due}')::numeric) AS due FROM billing.invoice i JOIN billing.bill_to b USING (customer_id, bill_to_id) GROUP BY 1, 2 ORDER BY 1, 2 DESC;
DO $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(format('%s %s: %s, not %s', w.day, w.entity, d.due, w.due), '; ') INTO wrong
    FROM (VALUES (date '2026-02-01', 'globex-inc', 42000), ('2026-02-01', 'globex-gmbh', 28000), ('2027-02-01', 'globex-inc', 60200), ('2027-02-01', 'globex-gmbh', 42300),
        ('2028-02-01', 'globex-inc', 78000), ('2028-02-01', 'globex-gmbh', 52000)) w (day, entity, due)
    LEFT JOIN LATERAL (SELECT sum(x.due) AS due FROM pg_temp.billed(w.day) x WHERE x.entity = w.entity) d ON true WHERE d.due IS DISTINCT FROM w.due;
    SELECT concat_ws('; ', wrong, string_agg(v.check_name || ': ' || v.example, '; ')) INTO wrong FROM billing.verify('full') v WHERE v.failed > 0;
    IF wrong <> '' THEN RAISE EXCEPTION '%', wrong; END IF;
END
$$;

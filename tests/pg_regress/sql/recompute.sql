-- Recompute: whatever changes later, an issued invoice computed again from its events has the same bytes.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p","name":"Product"}],"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n","dimensions":["model","region"]},{"key":"users","event_type":"use","aggregation":"unique_count","value":"user"},{"key":"peak","event_type":"use","aggregation":"max","value":"n"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"q","meter":"q","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"a"},"unit_price":"0.03"},{"match":{},"unit_price":"0.01"}]}},
    {"key":"users","meter":"users","pricing":{"model":"graduated","tiers":[{"up_to":"1","unit_price":"3"},{"unit_price":"2"}],"minimum":"20"}},{"key":"peak","meter":"peak","pricing":{"model":"package","package_size":"100","amount":"1.25"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"q"},{"key":"users","product":"p","meter":"users","price":"users"},{"key":"peak","product":"p","meter":"peak","price":"peak"}],
    "fees":[{"key":"seats","product":"p","pricing":{"model":"per_unit","unit_price":"33.335"},"quantity":"3"}]}]}');
SELECT billing.customer_upsert('{"key":"acme","time_zone":"America/New_York","overrides":[{"meter":"q","match":{"model":"a"},"unit_price":"0.025"},{"meter":"q","match":{"region":"eu"},"percent_off":"10","from":"2026-01-16"}],"bill_tos":[{"key":"us","name":"US"},{"key":"uk","name":"UK"}]}');
SELECT billing.subscribe('acme', 'pro', '2026-01-05', '{"overrides":[{"meter":"q","match":{"model":"b"},"unit_price":"0.005","from":"2026-01-20"}]}');
SELECT billing.test_clock_set('2026-02-02T00:00:00Z') AS clock \gset
SELECT accepted, rejected FROM billing.ingest((SELECT json_agg(json_build_object('customer', 'acme', 'event_id', 'e' || i, 'event_type', 'use', 'occurred_at', to_char(timestamp '2026-01-06' + i * interval '7 hours 13 minutes', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'bill_to', CASE WHEN i % 7 = 0 THEN 'uk' END,
  'properties', json_build_object('n', (i * 1.37)::numeric, 'model', (ARRAY['a', 'b', 'c'])[i % 3 + 1], 'region', (ARRAY['eu', 'us'])[i % 2 + 1], 'user', 'u' || i % 5))) FROM generate_series(1, 80) i));
CALL billing.bill_run();
SELECT key, message FROM billing.job_issue;
SELECT i.number, l.key, trim_scale(l.quantity) AS quantity, l.price, trim_scale(l.exact) AS exact, l.amount FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) ORDER BY i.number, l.line_n;
CREATE TEMP TABLE issued AS SELECT number, document FROM billing.invoice;
CREATE FUNCTION pg_temp.same() RETURNS text LANGUAGE sql AS $$
    SELECT count(*) FILTER (WHERE r.same) || ' of ' || count(*) || ' recomputed to the same bytes, ' || count(*) FILTER (WHERE i.document = x.document) || ' stored as issued'
    FROM issued x JOIN billing.invoice i USING (number) CROSS JOIN LATERAL (SELECT bool_and(same_bytes AND difference = 0) AS same FROM billing.invoice_recompute(i.number)) r
$$;
SELECT pg_temp.same();

-- New overrides of the customer
SELECT billing.customer_upsert('{"key":"acme","overrides":[{"meter":"q","unit_price":"9"}]}'), pg_temp.same();
-- New versions of the prices and the plan, in force from later on
SELECT count(*) FROM billing.catalog_apply('{"price_books":[{"key":"list","prices":[{"key":"q","meter":"q","valid_from":"2026-02-10T00:00:00Z","pricing":{"model":"per_unit","unit_price":"7"}}]}],"plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"q"}]}]}');
SELECT pg_temp.same();
-- Other policies
SELECT billing.policy_set('rounding_mode', 'half_even'), billing.policy_set('rounding_level', 'invoice', 'seller:default'), billing.policy_set('proration_basis', 'none', 'contract:acme-1'), billing.policy_set('rate_at', 'period_start');
SELECT pg_temp.same();
-- Late events, folded and not
SELECT billing.ingest_event('acme', 'use', 'late', '2026-01-20Z', '{"n":1000,"model":"a","region":"eu","user":"new"}'), pg_temp.same();
CALL billing.fold();
SELECT pg_temp.same();
-- A new name of the customer, its legal entity, the product; a retired meter; a finer bucket
SELECT billing.customer_upsert('{"key":"acme","name":"Acme Reborn","bill_tos":[{"key":"uk","name":"UK Ltd"},{"key":"us","name":"US Inc"}]}');
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p","name":"Renamed"}]}');
UPDATE billing.contract SET state = 'ended';
SELECT count(*) FROM billing.catalog_apply('{"meters":[{"key":"peak","retired":true}]}');
UPDATE billing.contract SET state = 'active';
SELECT billing.contract_create('{"key":"kolkata","customer":"acme","starts_on":"2026-02-01","time_zone":"Asia/Kolkata","fees":[{"key":"f","product":"p","pricing":{"model":"flat","amount":"1"}}]}') AS made, (SELECT bucket_minutes FROM billing.customer) AS minutes_before;
SELECT bucket_minutes FROM billing.customer;
SELECT pg_temp.same();
-- Prices that are said later to have ended, before the period and in it
UPDATE billing.price SET valid_during = tstzrange(NULL, '2025-12-01Z') WHERE key = 'users';
UPDATE billing.price SET valid_during = tstzrange(NULL, '2026-01-15Z') WHERE key = 'peak';
SELECT pg_temp.same();
-- A later version that is rated event by event
SELECT count(*) FROM billing.catalog_apply('{"price_books":[{"key":"list","prices":[{"key":"q","meter":"q","valid_from":"2026-06-01T04:00:00Z","pricing":{"model":"percentage","rate":"0.01","per_event_minimum":"0.5"}}]}]}');
SELECT pg_temp.same();
-- … what waits for the next bill is the late event, and nothing else
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0 OR example IS NOT NULL;
-- … an invoice that can't be computed any more is one failure, and hides no other
BEGIN;
UPDATE billing.invoice SET document = jsonb_set(document, '{inputs,policies,rounding_mode}', '"sideways"') WHERE number = 'INV-2026-000002';
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
ROLLBACK;

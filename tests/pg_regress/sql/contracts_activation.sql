-- What can't be billed blocks activation, by its place in the contract document: charges, fees, commitments and credits that
-- name what is not there, credit in a unit that nothing draws, credit carried from nowhere, two charges for one event, and the
-- address of what was signed.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply('{"products":[{"key":"ai"}],
  "meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"],"unit":"token"},{"key":"calls","event_type":"llm","aggregation":"count","dimensions":["region"]}],
  "features":[{"key":"credits","kind":"credit","unit":"credits"},{"key":"calls","kind":"metered","meter":"calls"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.01"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"ai","meter":"tokens","price":"tokens"}]}]}');
SELECT billing.customer_upsert('{"key":"acme","currency":"USD","bill_tos":[{"key":"inc","name":"Acme Inc"},{"key":"gmbh","name":"Acme GmbH"}]}'), billing.customer_upsert('{"key":"other","currency":"USD"}');
SELECT billing.subscribe('other', 'pro', '2026-01-01'), billing.contract_create('{"key":"pilot","customer":"acme","plan":"pro","starts_on":"2026-01-01","term":"3 months","credits":[{"key":"gift","category":"pilot","amount":"100","expires":"never"}]}');
-- A deal that starts where the pilot ends, of some terms: it says why it can't be, when it is made or when it is activated.
CREATE FUNCTION pg_temp.refused(doc jsonb) RETURNS TABLE (when_it_is text, why text) LANGUAGE plpgsql AS $$
DECLARE
    deal jsonb := '{"key":"deal","customer":"acme","plan":"pro","starts_on":"2026-04-01","term":"12 months"}'::jsonb || doc;
BEGIN
    RETURN QUERY SELECT 'made', f FROM pg_temp.fails(format('SELECT billing.contract_create(%L)', deal)) f WHERE f <> 'NO ERROR';
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'activated', f FROM pg_temp.fails(format('SELECT billing.contract_create(%L), billing.contract_activate(''deal'')', deal)) f;
    END IF;
END
$$;

-- charges and fees, the contract's own, a phase's in the place of one of it, an add-on's, the plan's
SELECT r.* FROM (VALUES (1,
    '{"charges":[{"key":"a","product":"ai","meter":"calls","pricing":{"model":"per_unit","unit_price":"1"}},{"key":"b","product":"ai","meter":"nope","pricing":{"model":"per_unit","unit_price":"1"}}]}'::jsonb),
  (2, '{"charges":[{"key":"a","product":"nope","meter":"calls","pricing":{"model":"per_unit","unit_price":"1"}}]}'),
  (3, '{"charges":[{"key":"a","product":"ai","meter":"calls","price":"nope"}]}'),
  (4, '{"charges":[{"key":"a","product":"ai","meter":"calls","match":{"colour":"red"},"pricing":{"model":"per_unit","unit_price":"1"}}]}'),
  (5, '{"fees":[{"key":"f","product":"nope","pricing":{"model":"flat","amount":"1"}}]}'),
  (6, '{"charges":[{"key":"a","product":"ai","meter":"calls","pricing":{"model":"per_unit","unit_price":"1"}}],"phases":[{"key":"p","duration":"1 month","charges":[{"key":"a","product":"nope","meter":"calls","pricing":{"model":"per_unit","unit_price":"1"}}]}]}'),
  (7, '{"add_ons":[{"key":"x","fees":[{"key":"f","product":"ai","pricing":{"model":"flat","amount":"1"}},{"key":"g","product":"nope","pricing":{"model":"flat","amount":"1"}}]}]}'),
  (8, '{"overrides":[{"meter":"nope","unit_price":"1"}]}'),
  (9, '{"price_book":"nope"}')) d (n, doc), pg_temp.refused(doc) r ORDER BY n;

-- two charges that could price one event
SELECT r.* FROM (VALUES (1, '{"charges":[{"key":"a","product":"ai","meter":"calls","pricing":{"model":"per_unit","unit_price":"1"}},{"key":"b","product":"ai","meter":"calls","match":{"region":"eu"},"pricing":{"model":"per_unit","unit_price":"2"}}]}'::jsonb),
  (2, '{"charges":[{"key":"more","product":"ai","meter":"tokens","pricing":{"model":"per_unit","unit_price":"1"}}]}')) d (n, doc), pg_temp.refused(doc) r ORDER BY n;

-- what commitments and credits are for
SELECT r.* FROM (VALUES (1, '{"commitments":[{"key":"c","kind":"postpaid","amount":"10","scope":{"meters":["tokens","nope"]}}]}'::jsonb),
  (2, '{"commitments":[{"key":"c","kind":"postpaid","amount":"10","scope":{"products":["nope"]}}]}'),
  (3, '{"commitments":[{"key":"c","kind":"postpaid","amount":"10","scope":{"bill_tos":["inc","other"]}}]}'),
  (4, '{"commitments":[{"key":"c","kind":"postpaid","amount":"10","scope":{"meters":["tokens"],"dimensions":{"region":["eu"]}}}]}'),
  (5, '{"commitments":[{"key":"c","kind":"prepaid","quantity":"10","meter":"nope","amount":"1"}]}'),
  (6, '{"commitments":[{"key":"c","kind":"postpaid","amount":"10","product":"nope"}]}'),
  (7, '{"commitments":[{"key":"c","kind":"postpaid","amount":"10","overage":[{"meter":"nope","unit_price":"1"}]}]}'),
  (8, '{"commitments":[{"key":"ok","kind":"postpaid","amount":"10"},{"key":"c","kind":"prepaid","amount":"10"}],"credits":[{"key":"c","category":"paid","amount":"1","paid_by":"c","scope":{"products":["nope"]}}]}'),
  (9, '{"credits":[{"key":"a","category":"pilot","amount":"1"},{"key":"b","category":"pilot","amount":"1","scope":{"bill_tos":["other"]}}]}'),
  (10, '{"credits":[{"key":"tokens","category":"pilot","amount":"1","scope":{"dimensions":{"colour":["red"]}}}]}'),
  (11, '{"credits":[{"key":"c","category":"paid","amount":"1","paid_by":"nope"}]}'),
  (12, '{"discounts":[{"key":"d","percent_off":"10","products":["nope"]}]}')) d (n, doc), pg_temp.refused(doc) r ORDER BY n;

-- units: the contract's currency, a meter's, one of its own that a feature makes known
SELECT r.* FROM unnest('{tokn,EUR,USD,token,unit,credits}'::text[]) WITH ORDINALITY u (unit, n),
  pg_temp.refused(jsonb_build_object('credits', jsonb_build_array(jsonb_build_object('key', 'c', 'category', 'pilot', 'amount', '1', 'unit', unit)))) r ORDER BY n;

-- credit carried from another contract of the customer, which has begun to grant
SELECT r.* FROM unnest('{nope,other-1,deal,pilot}'::text[]) WITH ORDINALITY u (contract, n),
  pg_temp.refused(jsonb_build_object('credits', jsonb_build_array(jsonb_build_object('key', 'c', 'category', 'pilot', 'carry_from', jsonb_build_object('contract', contract))))) r ORDER BY n;
SELECT billing.contract_activate('pilot');
SELECT billing.contract_create('{"key":"deal","customer":"acme","plan":"pro","starts_on":"2026-04-01","term":"12 months",
  "commitments":[{"key":"least","kind":"postpaid","amount":"10","scope":{"products":["ai"],"meters":["tokens"],"dimensions":{"model":["gpt-4"]},"bill_tos":["gmbh"]}}],
  "credits":[{"key":"c","category":"pilot","carry_from":{"contract":"pilot"}},{"key":"own","category":"promotional","amount":"5","unit":"credits","scope":{"meters":["calls"],"dimensions":{"region":["eu"],"bill_to":["inc"]}}}]}');
-- the address of what was signed
SELECT f FROM unnest(ARRAY['not a url', 'javascript:alert(1)', 'https://', 'https://docs.example/a b', '', 'ftp://docs.example/1', 'https://docs.example/' || repeat('x', 2000)]) u,
  pg_temp.fails(format('SELECT billing.contract_activate(''deal'', NULL, %L, repeat(''ab'', 32))', u)) f WHERE f !~ '^  HINT';
SELECT pg_temp.fails($$SELECT billing.contract_activate('deal', NULL, 'https://docs.example/1', 'ab')$$);
SELECT billing.contract_activate('deal', '2025-12-30Z', 'https://docs.example:8443/deal?version=1', repeat('ab', 32));
SELECT document_url FROM billing.contract WHERE key = 'deal';
SELECT key, unit, granted, rolled_out, posted, scope FROM billing.credit_blocks('acme') ORDER BY key;

-- An amendment says it by its own places, and by the contract's where that is why.
SELECT f FROM (VALUES (1, '{"charges":[{"key":"a","product":"ai","meter":"nope","pricing":{"model":"per_unit","unit_price":"1"}}]}'::jsonb),
  (2, '{"charges":[{"key":"more","product":"ai","meter":"tokens","pricing":{"model":"per_unit","unit_price":"1"}}]}'),
  (3, '{"commitments":[{"key":"least","kind":"postpaid","amount":"10","scope":{"meters":["nope"]}}]}'),
  (4, '{"credits":[{"key":"more","category":"pilot","amount":"1","unit":"tokn"}]}'),
  (5, '{"credits":[{"key":"more","category":"pilot","carry_from":{"contract":"nope"}}]}'),
  (6, '{"fees":[{"key":"f","product":"nope","pricing":{"model":"flat","amount":"1"}}]}')) d (n, doc), pg_temp.fails(format('SELECT billing.contract_amend(''deal'', %L, ''2026-06-01'')', doc)) f ORDER BY n;
SELECT billing.contract_amend('deal', '{"fees":[{"key":"f","product":"ai","pricing":{"model":"flat","amount":"1"}}]}', '2026-06-01') AS version;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

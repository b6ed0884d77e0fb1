-- Contracts: the catalogue and its versions, deals, and which price holds.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset

-- The examples apply, a second time changes nothing; what is exported is what was applied
SELECT name, (SELECT string_agg(action || ' ' || kind || ' ' || key, ', ') FROM billing.catalog_apply(billing.catalog_example(name), dry_run => true)) AS would
FROM unnest(ARRAY['llm-api', 'seats', 'api', 'infra']) name;
SELECT count(*) AS would FROM billing.catalog_apply(billing.catalog_example('api'), dry_run => NULL);
SELECT count(*) AS kept FROM billing.product;
SELECT action, kind, key FROM billing.catalog_apply(billing.catalog_example('llm-api'));
SELECT count(*) AS changes FROM billing.catalog_apply(billing.catalog_example('llm-api'));
SELECT count(*) AS changes FROM billing.catalog_apply(billing.catalog_export());

-- A changed price is a new version from an instant on; the ones before keep theirs
SELECT action, key, before->'pricing'->'rows'->0->>'unit_price' AS was, after->'pricing'->'rows'->0->>'unit_price' AS is, after->'version' AS version FROM billing.catalog_apply('{"price_books":[{"key":"list","prices":[{"key":"tokens","meter":"tokens","valid_from":"2026-03-16T00:00:00Z",
  "pricing":{"model":"matrix","dimensions":["model"],"per":1000,"rows":[{"match":{"model":"gpt-4"},"unit_price":"0.04"},{"match":{"model":"gpt-3.5"},"unit_price":"0.002"}]}}]}]}');
SELECT key, version, valid_during FROM billing.price ORDER BY key, version;
SELECT action, kind, key, after->'version' AS version, after->'name' AS name FROM billing.catalog_apply('{"plans":[{"key":"pro","name":"Professional","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"ai-api","meter":"tokens","price":"tokens"}],"fees":[{"key":"platform","product":"ai-api","pricing":{"model":"flat","amount":"59.00"}}]}]}');

-- Which price holds: contract override, customer override, the charge's own pricing, the book. Scope beats specificity.
SELECT billing.customer_upsert('{"key":"plain"}') AS a, billing.customer_upsert('{"key":"deal","overrides":[{"meter":"tokens","match":{"model":"gpt-4"},"unit_price":"0.025","until":"2026-02-01"},{"meter":"tokens","match":{},"percent_off":"10"}]}') AS b,
  billing.customer_upsert('{"key":"signed","overrides":[{"meter":"tokens","match":{"model":"gpt-4"},"unit_price":"0.02"}]}') AS c, billing.customer_upsert('{"key":"own"}') AS d, billing.customer_upsert('{"key":"pinned"}') AS e \gset
SELECT billing.subscribe('plain', 'pro@1', '2026-01-01'), billing.subscribe('deal', 'pro@1', '2026-01-01'),
  billing.subscribe('signed', 'pro', '2026-01-01', '{"overrides":[{"meter":"tokens","percent_off":"50"}]}'),
  billing.subscribe('own', 'pro', '2026-01-01', '{"charges":[{"key":"tokens","product":"ai-api","meter":"tokens","match":{"model":"gpt-4"},"pricing":{"model":"per_unit","unit_price":"5"}}],"fees":[{"key":"platform","remove":true}]}'),
  billing.subscribe('pinned', 'pro', '2026-01-01', '{"prices":"pin"}');
SELECT label, got, want, got = want AS ok FROM (SELECT x.label, p.source || ' ' || coalesce(p.price || '@' || p.version || ' ', '') || (p.pricing->>'unit_price') || ' per ' || coalesce(p.pricing->>'per', '1') AS got, x.want
  FROM (VALUES
  (1, 'the list',                                 'plain',  'gpt-4',   '2026-01-15Z', 'price book tokens@1 0.03 per 1000'),
  (2, 'the list, next version',                   'plain',  'gpt-4',   '2026-03-16Z', 'price book tokens@2 0.04 per 1000'),
  (3, 'customer override',                        'deal',   'gpt-4',   '2026-01-31T23:59:59Z', 'customer override tokens@1 0.025 per 1000'),
  (4, 'expired: the next that holds, 10% off',    'deal',   'gpt-4',   '2026-02-01Z', 'customer override tokens@1 0.027 per 1000'),
  (5, '10% off the other model',                  'deal',   'gpt-3.5', '2026-01-15Z', 'customer override tokens@1 0.0018 per 1000'),
  (6, 'contract 50% of the list, not of 0.02',    'signed', 'gpt-4',   '2026-01-15Z', 'contract override tokens@1 0.015 per 1000'),
  (7, 'the charge''s own',                        'own',    'gpt-4',   '2026-01-15Z', 'charge 5 per 1'),
  (8, 'pinned at signature',                      'pinned', 'gpt-4',   '2026-06-15Z', 'price book tokens@1 0.03 per 1000')) x (n, label, customer, model, at, want),
  billing.price_resolve(x.customer, 'tokens', jsonb_build_object('model', x.model), x.at::timestamptz) p ORDER BY x.n) y;
-- stackable takes the percentage of the next scope's result: 50% of 0.02
SELECT billing.customer_upsert('{"key":"stack","overrides":[{"meter":"tokens","match":{"model":"gpt-4"},"unit_price":"0.02"}]}') AS a,
  billing.subscribe('stack', 'pro', '2026-01-01', '{"overrides":[{"meter":"tokens","percent_off":"50","stackable":true}]}') AS b \gset
SELECT source, pricing, pricing->>'unit_price' = '0.01' AS ok FROM billing.price_resolve('stack', 'tokens', '{"model":"gpt-4"}', '2026-01-15Z');

-- Percent off scales every rate, fee and package, exactly; minimum, maximum and free units stay; the floor comes after
SELECT action, key FROM billing.catalog_apply('{"meters":[{"key":"x","event_type":"x","aggregation":"count"}],"price_books":[{"key":"list","prices":[{"key":"x","meter":"x","pricing":{"model":"graduated","free_units":"10","minimum":"5","unit_price_floor":"0.04","tiers":[{"up_to":"100","unit_price":"0.07","flat_fee":"3"},{"unit_price":"0.05"}]}}]}],
  "plans":[{"key":"x","currency":"USD","price_book":"list","charges":[{"key":"x","product":"ai-api","meter":"x","price":"x"}]}]}');
SELECT billing.subscribe('plain', 'x', '2026-01-01', '{"overrides":[{"charge":"x","percent_off":"33.3"}]}');
SELECT source, jsonb_pretty(pricing) FROM billing.price_resolve('plain', 'x', '{}', '2026-01-15Z');

-- Drafts, activation, keys
SELECT billing.contract_create('{"key":"frame-2027","customer":"own","plan":"x","starts_on":"2027-01-01","term":"12 months","billing":{"interval":"3 months","alignment":"anniversary","net_days":45}}');
SELECT billing.contract_activate('frame-2027', '2026-12-01Z', 'https://docs.example/1', repeat('ab', 32));
SELECT key, state, starts_on, ends_on, billed_every, alignment, net_days, prices, next_n, next_bill_at FROM billing.contract ORDER BY key;
SELECT contract, charge FROM (SELECT k.key AS contract, h.charge_key AS charge FROM billing.contract_charge h JOIN billing.contract k USING (contract_id) WHERE k.key LIKE 'own%' OR k.key LIKE 'signed%') x ORDER BY 1, 2;

-- Errors of the catalogue: nothing of the document is applied
\a \t
SELECT pg_temp.fails(format('SELECT billing.catalog_apply(%L)', d)) FROM unnest(ARRAY[
  '{"products":[{"key":"new"}],"meters":[{"key":"x2","event_type":"x","aggregation":"avg"}]}', '{"prodcuts":[]}', '{"products":[{"kye":"p"}]}', '{"products":[{"key":"p"},{"key":"p"}]}', '{"products":[{"key":"gone","retired":true}]}',
  '{"products":[{"key":"new"}],"price_books":[{"key":"eur"}]}', '{"price_books":[{"key":"eur","currency":"ZZZ"}]}', '{"price_books":[{"key":"list","currency":"EUR"}]}', '{"price_books":[{"key":"list","prices":[{"key":"tokens","metre":"x"}]}]}',
  '{"price_books":[{"key":"list","prices":[{"key":"y","meter":"nope","pricing":{"model":"flat","amount":"1"}}]}]}', '{"price_books":[{"key":"list","prices":[{"key":"tokens","meter":"x","pricing":{"model":"flat","amount":"1"}}]}]}',
  '{"price_books":[{"key":"list","prices":[{"key":"tokens","meter":"tokens","valid_from":"2026-03-16T00:00:00Z","pricing":{"model":"per_unit","unit_price":"1"}}]}]}', '{"price_books":[{"key":"list","prices":[{"key":"a@b","meter":"x","pricing":{"model":"flat","amount":"1"}}]}]}',
  '{"price_books":[{"key":"list","prices":[{"key":"requests","meter":"requests","valid_from":"2026-02-10T00:00:00Z","pricing":{"model":"flat","amount":"1"}}]}]}',
  '{"plans":[{"key":"p","curency":"USD"}]}', '{"plans":[{"key":"p","currency":"USD","charges":[{"key":"c","product":"ai-api","meter":"x","price":"x"}]}]}', '{"plans":[{"key":"p","currency":"EUR","price_book":"list","charges":[{"key":"c","product":"ai-api","meter":"x","price":"x"}]}]}',
  '{"plans":[{"key":"p","currency":"USD","price_book":"nope"}]}', '{"plans":[{"key":"p","currency":"USD","price_book":"list","charges":[{"key":"c","product":"nope","meter":"x","price":"x"}]}]}', '{"plans":[{"key":"p","currency":"USD","price_book":"list","charges":[{"key":"c","product":"ai-api","meter":"nope","price":"x"}]}]}',
  '{"plans":[{"key":"p","currency":"USD","price_book":"list","charges":[{"key":"c","product":"ai-api","meter":"x","price":"tokens"}]}]}', '{"plans":[{"key":"p","currency":"USD","price_book":"list","charges":[{"key":"c","product":"ai-api","meter":"x","price":"x","match":{"model":"m"}}]}]}',
  '{"plans":[{"key":"p","currency":"USD","charges":[{"key":"c","product":"ai-api","meter":"x","pricing":{"model":"flat","amount":"1"},"every":"2 months"}],"billing":{"interval":"3 months"}}]}', '{"plans":[{"key":"p","currency":"USD","fees":[{"key":"f","product":"ai-api","pricing":{"model":"percentage","rate":"0.1"}}]}]}',
  '{"plans":[{"key":"p","currency":"USD","fees":[{"key":"f","product":"ai-api","pricing":{"model":"flat","amount":"1"},"timing":"later"}]}]}', '{"plans":[{"key":"p","currency":"USD","fees":[{"key":"f","product":"ai-api","pricing":{"model":"flat","amount":"1"},"quantity":"-1"}]}]}',
  '{"plans":[{"key":"p","currency":"USD","entitlements":[{"feature":"x"}]}]}', '[]', 'null', '"x"']) d;
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.catalog_apply(NULL)$$, $$SELECT billing.catalog_example('saas')$$, $$SELECT billing.catalog_example(NULL)$$,
  $$SELECT billing.catalog_apply(jsonb_build_object('products', (SELECT jsonb_agg(jsonb_build_object('key', 'p' || i)) FROM generate_series(1, 100000) i)))$$, $$SELECT billing.catalog_apply((repeat('[', 1000) || repeat(']', 1000))::jsonb)$$]) c;
SELECT key FROM billing.product;
-- Errors of contracts
SELECT pg_temp.fails(format('SELECT billing.contract_create(%L)', '{"key":"k","customer":"own","starts_on":"2026-01-01","plan":"pro"}'::jsonb || d::jsonb)) FROM unnest(ARRAY[
  '{"key":"own-1"}', '{"customer":"nobody"}', '{"plan":"gold"}', '{"plan":"pro@9"}', '{"currency":"EUR"}', '{"seller":"nobody"}', '{"time_zone":"Nowhere"}', '{"bill_to":"nowhere"}', '{"starts_on":"2026-02-30"}', '{"starts_on":"10000-01-01"}', '{"term":"forever"}', '{"term":"1200 years"}',
  '{"billing":{"intervall":"1 month"}}', '{"billing":{"interval":"0 months"}}', '{"billing":{"alignment":"fiscal"}}', '{"billing":{"net_days":4000}}', '{"prices":"locked"}', '{"commitments":[{"key":"c"}]}', '{"strats_on":"2026-01-01"}',
  '{"charges":[{"key":"tokens","remvoe":true}]}', '{"charges":[{"key":"nothing","remove":true}]}', '{"charges":[{"key":"tokens","remove":true},{"key":"requests","remove":true}],"fees":[{"key":"platform","remove":true}]}', '{"charges":[{"key":"tokens","remove":false}]}',
  '{"overrides":[{"meter":"x","unit_price":"1"}]}', '{"overrides":[{"charge":"nope","unit_price":"1"}]}', '{"overrides":[{"meter":"tokens"}]}', '{"overrides":[{"meter":"tokens","percent_off":"101"}]}', '{"overrides":[{"meter":"tokens","unit_price":"1","percent_off":"5"}]}', '{"overrides":[{"meter":"tokens","match":{"colour":"red"},"unit_price":"1"}]}',
  '{"overrides":[{"meter":"tokens","unit_price":"1"},{"meter":"tokens","unit_price":"2"}]}', '{"overrides":[{"meter":"tokens","unit_price":"1","from":"2026-02-01","until":"2026-02-01"}]}', '{"overrides":[{"meter":"tokens","unit_price":"1","stackable":true}]}', '{"overrides":[{"meter":"tokens","from":"2026-01-10","pricing":{"model":"flat","amount":"1"}}]}']) d;
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.contract_create(NULL)$$, $$SELECT billing.contract_create('{"key":"k"}')$$, $$SELECT billing.contract_create('{}')$$,
  $$SELECT billing.contract_activate('nobody')$$, $$SELECT billing.contract_activate('own-1')$$, $$SELECT billing.subscribe('own', 'pro')$$, $$SELECT billing.subscribe('nobody', 'pro')$$, $$SELECT billing.subscribe('own', 'gold')$$, $$SELECT billing.subscribe('own', 'pro', doc => '[]')$$, $$SELECT billing.subscribe('own', NULL)$$,
  $$SELECT billing.subscribe('own', 'x', '2026-01-01', '{"customer":"plain"}')$$, $$SELECT billing.subscribe('own', 'x', '2026-01-01', '{"plan":"pro"}')$$, $$SELECT billing.subscribe('own', 'x', doc => '{"starts_on":"2026-01-01"}')$$,
  $$SELECT billing.price_resolve('nobody', 'tokens')$$, $$SELECT billing.price_resolve('plain', 'nope')$$, $$SELECT billing.price_resolve('plain', 'tokens', '[]')$$, $$SELECT billing.price_resolve('plain', 'tokens', '{"model":"gpt-5"}')$$, $$SELECT billing.price_resolve('own', 'tokens', '{"model":"gpt-3.5"}')$$, $$SELECT billing.price_resolve('plain', 'tokens', '{"model":"gpt-4"}', '2025-01-01Z')$$,
  $$SELECT billing.invoice_preview('plain')$$, $$SELECT billing.policies('plain')$$]) c;
-- A plan by its id is the same plan, of a version, too; the contract keeps its key
BEGIN;
SELECT billing.customer_upsert('{"key":"by-id"}'), billing.customer_upsert('{"key":"by-id-1"}');
SELECT billing.subscribe('by-id', plan_id::text, '2026-01-01'), billing.subscribe('by-id-1', plan_id || '@1', '2026-01-01') FROM billing.plan WHERE key = 'pro';
SELECT k.key, p.key AS plan, k.plan_version, v.document->>'plan' AS document FROM billing.contract k JOIN billing.plan p USING (plan_id) JOIN billing.contract_version v USING (customer_id, contract_id) WHERE k.key LIKE 'by-id%' ORDER BY k.key;
ROLLBACK;
-- A caller's lock_timeout outlives the back-fill of a meter
BEGIN;
SET LOCAL lock_timeout = '7s';
SELECT count(*) FROM billing.catalog_apply('{"meters":[{"key":"patience","event_type":"p","aggregation":"count"}]}');
SHOW lock_timeout;
ROLLBACK;
BEGIN;
SELECT billing.contract_create('{"key":"draft","customer":"own","starts_on":"2026-01-01","plan":"x"}');
SELECT pg_temp.fails($$SELECT billing.contract_activate('draft', document_sha256 => 'abc')$$);
SELECT billing.contract_create('{"key":"twice","customer":"own","starts_on":"2026-01-01","plan":"pro"}');
SELECT pg_temp.fails($$SELECT billing.contract_activate('twice')$$);
SELECT billing.contract_create('{"key":"apart","customer":"own","starts_on":"2026-01-01","charges":[{"key":"other","product":"ai-api","meter":"tokens","match":{"model":"gpt-3.5"},"pricing":{"model":"per_unit","unit_price":"1"}}]}'), billing.contract_activate('apart');
SELECT count(*) AS early FROM billing.catalog_apply('{"price_books":[{"key":"list","prices":[{"key":"later","meter":"x","valid_from":"2026-05-01T00:00:00Z","pricing":{"model":"per_unit","unit_price":"1"}}]}]}');
SELECT billing.contract_create('{"key":"early","customer":"pinned","starts_on":"2026-01-01","price_book":"list","charges":[{"key":"x","product":"ai-api","meter":"x","price":"later"}]}');
SELECT pg_temp.fails($$SELECT billing.contract_activate('early')$$);
SELECT count(*) AS seats FROM billing.catalog_apply('{"meters":[{"key":"seats","event_type":"seen","aggregation":"unique_count","value":"user","dimensions":["model"]}]}');
SELECT pg_temp.fails(format('SELECT billing.contract_create(%L)', '{"key":"seats","customer":"own","starts_on":"2026-01-01","charges":[{"key":"seats","product":"ai-api","meter":"seats","lines_by":["model"],"pricing":{"model":"graduated","tiers":[{"up_to":"10","unit_price":"2"},{"unit_price":"1"}]}}]}'));
SELECT billing.contract_create('{"key":"seats","customer":"own","starts_on":"2026-01-01","charges":[{"key":"seats","product":"ai-api","meter":"seats","lines_by":["model"],"pricing":{"model":"per_unit","unit_price":"2"}}]}'), billing.contract_activate('seats');
ROLLBACK;
\a \t
-- A meter is not retired under a charge that is drafted or live: its usage would be billed by nobody, and nobody would be told
\a \t
SELECT pg_temp.fails($$SELECT billing.catalog_apply('{"meters":[{"key":"tokens","retired":true}]}')$$);
BEGIN;
SELECT billing.customer_upsert('{"key":"drafts"}'), billing.contract_create('{"key":"drafted","customer":"drafts","starts_on":"2026-01-01","charges":[{"key":"x","product":"ai-api","meter":"x","pricing":{"model":"flat","amount":"1"}}]}');
SELECT pg_temp.fails($$SELECT billing.catalog_apply('{"meters":[{"key":"x","retired":true}]}')$$);
UPDATE billing.meter SET retired_at = now() WHERE key = 'x';
SELECT pg_temp.fails($$SELECT billing.contract_activate('drafted')$$);
ROLLBACK;
\a \t
SELECT check_name, checked > 0 AS checked, failed, example FROM billing.verify('full') WHERE check_name LIKE 'contracts%';

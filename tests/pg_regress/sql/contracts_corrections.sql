-- What changes in a deal, and what was billed before: each of these was once wrong.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-10T12:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}], "meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"tokens","dimensions":["model"],"unit":"token"}]}');
SELECT billing.customer_upsert('{"key":"ends"}'), billing.customer_upsert('{"key":"again"}'), billing.customer_upsert('{"key":"paid"}');

-- A contract ends in the middle of what was billed for a year ahead: the period that is cut and those that never come.
SELECT billing.contract_create('{"key":"ends","customer":"ends","currency":"USD","starts_on":"2026-01-01","billing":{"interval":"12 months"},
  "fees":[{"key":"seats","product":"p","pricing":{"model":"flat","amount":"100"},"every":"3 months","timing":"advance"}]}'), billing.contract_activate('ends');
-- An invoice is issued again whose lines a later one has corrected.
SELECT billing.contract_create('{"key":"again","customer":"again","currency":"USD","starts_on":"2026-01-01","fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"31"}}]}'), billing.contract_activate('again');
-- A boundary that was paid with credit is compared, and found right.
SELECT billing.contract_create('{"key":"paid","customer":"paid","currency":"USD","starts_on":"2026-01-01","term":"12 months","billing":{"alignment":"anniversary"},
  "charges":[{"key":"tokens","product":"p","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.01"}}], "commitments":[{"key":"commit","kind":"prepaid","amount":"100"}],
  "credits":[{"key":"pool","category":"promotional","amount":"120"},{"key":"gift","category":"promotional","amount":"54","expires":"2026-01-20","priority":20}]}'), billing.contract_activate('paid');
SELECT accepted FROM billing.ingest('[{"customer":"paid","event_id":"1","event_type":"llm","occurred_at":"2026-01-05T11:00:00Z","properties":{"model":"a","tokens":3000}}]');
CALL billing.bill_run();
SELECT billing.contract_amend('again', '{"prices":{"platform":{"model":"flat","amount":"62"}}}', '2026-01-11');
SELECT billing.test_clock_set('2026-02-02T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.invoice_void('again/0', 'wrong address');
CALL billing.bill_run();
SELECT i.key, i.state, l->>'key' AS line, l->>'amount' AS amount FROM billing.invoice i, jsonb_array_elements(i.document->'lines') WITH ORDINALITY l (l, place) WHERE i.key LIKE 'again/%' ORDER BY i.number, place;
SELECT sum((l->>'amount')::numeric) AS january FROM billing.invoice i, jsonb_array_elements(i.document->'lines') l WHERE i.key LIKE 'again/%' AND i.state <> 'void' AND l->>'from' < '2026-02-01';
SELECT billing.test_clock_set('2026-03-12T12:00:00Z') AS clock \gset
SELECT billing.contract_amend('paid', '{"fees":[{"key":"extra","product":"p","pricing":{"model":"flat","amount":"28"}}]}', '2026-03-11');
CALL billing.bill_run();
SELECT i.key, l->>'key' AS line, l->>'amount' AS amount, i.document->'totals'->>'credits' AS credits, i.document->'inputs' ? 'credits' AS says_credits
FROM billing.invoice i, jsonb_array_elements(i.document->'lines') WITH ORDINALITY l (l, place) WHERE i.key LIKE 'paid/%' ORDER BY i.number, place;
SELECT billing.test_clock_set('2026-07-04T12:00:00Z') AS clock \gset
SELECT billing.contract_cancel('ends', '2026-07-04', 'leaves');
CALL billing.bill_run();
SELECT i.key, i.kind, l->>'key' AS line, l->>'from' AS from, l->>'until' AS until, l->>'amount' AS amount FROM billing.invoice i, jsonb_array_elements(i.document->'lines') WITH ORDINALITY l (l, place)
WHERE i.key LIKE 'ends/%' ORDER BY i.created_at, place;
SELECT sum(total) FROM billing.invoice WHERE key LIKE 'ends/%';
-- A trial beside the customer's own price: nothing until it ends, half of 1 afterwards; and a new list price is taken during it.
SELECT billing.test_clock_set('2026-08-10T12:00:00Z') AS clock \gset
SELECT billing.customer_upsert('{"key":"tries","overrides":[{"meter":"tokens","match":{"model":"small"},"percent_off":"50"}]}');
SELECT billing.contract_create('{"key":"tries","customer":"tries","currency":"USD","starts_on":"2026-08-01","trial":{"duration":"14 days"},
  "charges":[{"key":"tokens","product":"p","meter":"tokens","pricing":{"model":"per_unit","unit_price":"1"}}]}'), billing.contract_activate('tries');
SELECT accepted FROM billing.ingest('[{"customer":"tries","event_id":"1","event_type":"llm","occurred_at":"2026-08-02T11:00:00Z","properties":{"model":"small","tokens":30}}]');
SELECT billing.test_clock_set('2026-09-01T12:00:00Z') AS clock \gset
SELECT accepted FROM billing.ingest('[{"customer":"tries","event_id":"2","event_type":"llm","occurred_at":"2026-08-20T11:00:00Z","properties":{"model":"small","tokens":30}}]');
SELECT action, kind, key FROM billing.catalog_apply('{"meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"tokens + 0","dimensions":["model"],"unit":"token"}]}', dry_run => true);
CALL billing.bill_run();
SELECT i.key, l->>'key' AS line, l->>'quantity' AS quantity, l->>'amount' AS amount FROM billing.invoice i, jsonb_array_elements(i.document->'lines') WITH ORDINALITY l (l, place) WHERE i.key LIKE 'tries/%' ORDER BY i.number, place;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

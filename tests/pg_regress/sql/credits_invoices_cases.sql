-- Credits on invoices, further cases: the prepaid deals of rules.md 3 A, draw-down C, the shared pool of 10.6, commitments D, units; what is void or late, and two contracts of one customer.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai-api"},{"key":"images"}],
  "meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"],"unit":"token"},{"key":"images","event_type":"image","aggregation":"sum","value":"n","unit":"image"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"matrix","dimensions":["model"],"per":1000,
    "rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"model":"gpt-3.5"},"unit_price":"0.002"}]}}]}],
  "plans":[
    {"key":"flat","currency":"USD","charges":[{"key":"tokens","product":"ai-api","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.002","per":1000}}]},
    {"key":"one","currency":"USD","charges":[{"key":"tokens","product":"ai-api","meter":"tokens","pricing":{"model":"per_unit","unit_price":"1"}},{"key":"images","product":"images","meter":"images","pricing":{"model":"per_unit","unit_price":"1"}}]},
    {"key":"tiers","currency":"USD","charges":[{"key":"tokens","product":"ai-api","meter":"tokens","pricing":{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.10"},{"unit_price":"0.05"}]}}]},
{"key":"enterprise","currency":"USD","price_book":"list","billing":{"interval":"3 months"},"charges":[{"key":"tokens","product":"ai-api","meter":"tokens","price":"tokens"}]}]}');
CREATE FUNCTION pg_temp.used(customer text, id text, at timestamptz, n numeric, model text DEFAULT NULL, bill_to text DEFAULT NULL, kind text DEFAULT 'llm') RETURNS text LANGUAGE sql AS $$
  SELECT billing.ingest_event(customer, kind, id, at, jsonb_strip_nulls(jsonb_build_object('n', n, 'model', model)), bill_to) $$;
CREATE TEMP VIEW lines AS SELECT k.key AS contract, i.n, i.kind AS document, i.state, b.key AS bill_to, l.key, l.kind, trim_scale(l.quantity) AS quantity, trim_scale(l.exact) AS exact, l.amount
  FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id ORDER BY k.key, i.n, i.created_at, i.number, l.line_n;
CREATE TEMP VIEW totals AS SELECT k.key AS contract, i.n, b.key AS bill_to, i.kind AS document, i.state, i.issued_on, i.total, i.document->'totals'->>'credits' AS credits, i.document->'totals'->>'due' AS due, i.due_on
  FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id ORDER BY k.key, i.n, i.created_at, i.number;
CREATE TEMP VIEW drawn AS SELECT k.key AS contract, i.n AS on_n, a.n, g.key AS block, a.line_key, trim_scale(a.quantity) AS quantity, trim_scale(a.amount) AS amount
  FROM billing.credit_allocation a JOIN billing.invoice i USING (customer_id, invoice_id) JOIN billing.contract k ON k.customer_id = i.customer_id AND k.contract_id = i.contract_id
  JOIN billing.credit_grant g ON g.customer_id = a.customer_id AND g.grant_id = a.grant_id ORDER BY k.key, i.n, i.created_at, a.recorded_at, a.place;
CREATE TEMP VIEW blocks AS SELECT c.key AS customer, g.key, trim_scale(b.posted) AS posted FROM billing.credit_block_balance b JOIN billing.credit_grant g USING (customer_id, grant_id) JOIN billing.customer c USING (customer_id) ORDER BY 1, 2;
-- All is well, and all documents compute again to the same bytes

-- rules.md 3 A: $50,000 prepaid against tokens, then $0.002 per 1,000: the same rate in commit, $0.0016, and $0.30 left before a call of 400,000 tokens
SELECT billing.customer_upsert(jsonb_build_object('key', c)), billing.contract_create(jsonb_build_object('key', c || '-1', 'customer', c, 'plan', 'flat', 'starts_on', '2026-01-01', 'term', '12 months',
  'overrides', CASE WHEN c = 'same' THEN '[]' ELSE '[{"meter":"tokens","match":{},"unit_price":"0.0016"}]' END::jsonb,
  'commitments', jsonb_build_array(jsonb_build_object('key', 'prepaid', 'kind', 'prepaid', 'amount', a, 'overage', '[{"meter":"tokens","match":{},"unit_price":"0.002"}]'::jsonb)),
  'credits', jsonb_build_array(jsonb_build_object('key', 'tokens', 'category', 'paid', 'amount', a, 'paid_by', 'prepaid', 'scope', '{"meters":["tokens"]}'::jsonb)))), billing.contract_activate(c || '-1')
FROM (VALUES ('same', '50000'), ('cheaper', '50000'), ('straddle', '0.30')) v (c, a);
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-01-10T12:00:00Z') AS clock \gset
SELECT pg_temp.used('same', '1', '2026-01-10Z', 27.5e9), pg_temp.used('cheaper', '1', '2026-01-10Z', 35e9), pg_temp.used('straddle', '1', '2026-01-10Z', 400000);
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT contract, key, quantity, exact, amount FROM lines WHERE kind = 'usage';
SELECT contract, credits, due, due = w.want AS ok FROM totals JOIN (VALUES ('same-1', '5000.00'), ('cheaper-1', '7500.00'), ('straddle-1', '0.43')) w (k, want) ON k = contract WHERE n = 1;
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'straddle-1/1';
SELECT * FROM drawn;
SELECT * FROM pg_temp.well();

-- rules.md 3 C: which blocks pay for 400 of tokens, then for 350 of images
SELECT billing.customer_upsert('{"key":"c"}'), billing.subscribe('c', 'one', '2026-02-01');
SELECT billing.credit_grant_create('c', g::jsonb) FROM unnest(ARRAY['{"key":"A","amount":"500","category":"paid","expires":"2027-01-01"}', '{"key":"B","amount":"100","expires":"2027-01-01"}', '{"key":"C","amount":"200","expires":"2026-07-01"}',
  '{"key":"D","amount":"50","category":"paid","priority":10,"scope":{"meters":["tokens"]}}', '{"key":"E","amount":"300","category":"paid","expires":"2026-07-01","scope":{"meters":["images"]}}']) g;
SELECT billing.test_clock_set('2026-02-20T00:00:00Z') AS clock \gset
SELECT pg_temp.used('c', '1', '2026-02-10Z', 400), pg_temp.used('c', '2', '2026-02-11Z', 350, kind => 'image');
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT block, line_key, amount FROM drawn WHERE contract = 'c-1';
SELECT key, posted FROM blocks WHERE customer = 'c';
SELECT state, total, credits, due FROM totals WHERE contract = 'c-1';
-- … a void gives each block its own back, and the invoice issued again draws the same; 120 that were not used come back in reverse order: A 50, B 70
SELECT billing.invoice_void(number, 'wrong address') FROM billing.invoice WHERE key = 'c-1/1';
SELECT key, posted FROM blocks WHERE customer = 'c';
CALL billing.bill_run();
SELECT key, posted FROM blocks WHERE customer = 'c';
SELECT billing.event_amend('c', '1', properties => '{"n":280}'::jsonb, reason => 'counted twice') IS NOT NULL AS amended;
SELECT line_key, billed, corrected, difference, action FROM billing.invoice_correct('c-1/1.2', 'credit_note', 'counted twice', false);
SELECT on_n, n, block, line_key, quantity, amount FROM drawn WHERE contract = 'c-1' AND amount < 0 AND line_key LIKE 'tokens%';
SELECT n, document, total, credits, due, state FROM totals WHERE contract = 'c-1';
SELECT key, posted FROM blocks WHERE customer = 'c';
SELECT * FROM pg_temp.well();

-- rules.md 10.6: two legal entities share a pool of a year. 1,000 are left on 15 January; Inc uses 1,200 on the 16th, GmbH 2,300 on the 20th
SELECT billing.customer_upsert('{"key":"globex","bill_tos":[{"key":"inc","name":"Globex Inc"},{"key":"gmbh","name":"Globex GmbH"}]}'), billing.contract_create('{"key":"globex-1","customer":"globex","plan":"one","starts_on":"2026-03-01","term":"36 months",
  "billing":{"interval":"12 months","alignment":"anniversary"},"commitments":[{"key":"pool","kind":"prepaid","amounts":["30000","50000","70000"],"every":"12 months"}],
  "credits":[{"key":"pool","category":"paid","amount":"30000","paid_by":"pool","expires":"period_end"}]}'), billing.contract_activate('globex-1');
CALL billing.bill_run();
SELECT billing.test_clock_set('2027-02-20T00:00:00Z') AS clock \gset
SELECT pg_temp.used('globex', 'before', '2026-06-01Z', 29000, bill_to => 'inc'), pg_temp.used('globex', 'gmbh', '2027-02-20T00:00:00Z', 2300, bill_to => 'gmbh'), pg_temp.used('globex', 'inc', '2027-02-16T00:00:00Z', 1200, bill_to => 'inc');
SELECT billing.test_clock_set('2027-03-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT n, bill_to, key, quantity, amount FROM lines WHERE contract = 'globex-1';
SELECT n, bill_to, total, credits, due, due = w.want AS ok FROM totals JOIN (VALUES (0, 'inc', '30000.00'), (1, 'inc', '50200.00'), (1, 'gmbh', '2300.00')) w (n, bill_to, want) USING (n, bill_to) WHERE contract = 'globex-1';
SELECT * FROM blocks WHERE customer = 'globex';

-- rules.md 3 D: three monthly minimums of 10,000 bill 36,000, one quarterly commitment of 30,000 bills 30,000; 97,500 of 120,000 leave 22,500; two that overlap
SELECT billing.test_clock_set('2027-04-01T00:00:00Z') AS clock \gset
SELECT billing.customer_upsert(jsonb_build_object('key', c)), billing.contract_create(jsonb_build_object('key', c || '-1', 'customer', c, 'plan', 'one', 'starts_on', '2027-04-01', 'term', '3 months', 'commitments', m::jsonb)), billing.contract_activate(c || '-1')
FROM (VALUES ('months', '[{"key":"monthly","kind":"postpaid","amount":"10000","every":"1 month"}]'), ('quarter', '[{"key":"quarterly","kind":"postpaid","amount":"30000"}]'),
  ('year', '[{"key":"annual","kind":"postpaid","amount":"120000","scope":{"products":["ai-api"]}}]'), ('two', '[{"key":"a","kind":"postpaid","amount":"1000","priority":1},{"key":"b","kind":"postpaid","amount":"200","priority":2}]')) v (c, m);
CREATE FUNCTION pg_temp.month(at timestamptz, n numeric, year numeric, two numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM billing.test_clock_set(at);
  PERFORM pg_temp.used('months', at::text, at, n), pg_temp.used('quarter', at::text, at, n), pg_temp.used('year', at::text, at, year), pg_temp.used('year', at::text || ' images', at, 500, kind => 'image'), pg_temp.used('two', at::text, at, two);
END $$;
SELECT pg_temp.month('2027-04-10Z', 4000, 30000, 700), billing.test_clock_set('2027-05-01T00:00:00Z') \gset done_
CALL billing.bill_run();
SELECT pg_temp.month('2027-05-10Z', 16000, 40000, 400), billing.test_clock_set('2027-06-01T00:00:00Z') \gset done_
CALL billing.bill_run();
SELECT pg_temp.month('2027-06-10Z', 10000, 27500, 0), billing.test_clock_set('2027-07-01T00:00:00Z') \gset done_
CALL billing.bill_run();
SELECT contract, n, key, amount FROM lines WHERE kind = 'true_up' AND contract IN ('months-1', 'quarter-1', 'year-1', 'two-1');
SELECT contract, sum(amount) AS billed, sum(amount) = w.want AS ok FROM lines JOIN (VALUES ('months-1', 36000), ('quarter-1', 30000), ('year-1', 121500), ('two-1', 1200)) w (contract, want) USING (contract) GROUP BY contract, w.want ORDER BY 1;
-- … late usage of April lowers what May's end asked for
SELECT pg_temp.used('months', 'late', '2027-04-20Z', 1000), pg_temp.used('year', 'late', '2027-04-20Z', 2500);
CALL billing.bill_run();
SELECT contract, document, key, amount FROM lines WHERE document <> 'invoice' AND contract IN ('months-1', 'year-1');
SELECT contract, sum(amount) AS billed FROM lines WHERE contract IN ('months-1', 'year-1') GROUP BY contract ORDER BY 1;
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'year-1/3' AND e ~ 'ommit';
SELECT * FROM pg_temp.well();

-- Late usage is settled again: 10 credits paid 6 of February, then 8 of January turn out to have been used; whatever comes first, the same is drawn
SELECT billing.test_clock_set('2028-01-01T00:00:00Z') AS clock \gset
SELECT billing.customer_upsert(jsonb_build_object('key', c)), billing.subscribe(c, 'one', '2028-01-01'), billing.credit_grant_create(c, jsonb_build_object('key', c || '-block', 'amount', '10', 'expires', '2028-03-01')) FROM unnest(ARRAY['in-time', 'late']) c;
SELECT billing.test_clock_set('2028-01-20T00:00:00Z') AS clock \gset
SELECT pg_temp.used('in-time', '1', '2028-01-10Z', 8);
SELECT billing.test_clock_set('2028-02-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.test_clock_set('2028-02-20T00:00:00Z') AS clock \gset
SELECT pg_temp.used(c, '2', '2028-02-10Z', 6) FROM unnest(ARRAY['in-time', 'late']) c;
SELECT billing.test_clock_set('2028-03-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT pg_temp.used('late', '1', '2028-01-10Z', 8);
SELECT * FROM pg_temp.well();
SELECT billing.test_clock_set('2028-04-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT contract, n, document, total, credits, due FROM totals WHERE contract IN ('in-time-1', 'late-1');
SELECT contract, on_n, n, line_key, quantity, amount FROM drawn WHERE contract IN ('in-time-1', 'late-1');
SELECT line_key, sum(amount) FILTER (WHERE contract = 'in-time-1') AS in_time, sum(amount) FILTER (WHERE contract = 'late-1') AS late FROM drawn WHERE contract IN ('in-time-1', 'late-1') GROUP BY 1 ORDER BY 1;
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'late-1/3';
SELECT * FROM pg_temp.well();

-- Credit in a meter's unit: 1,000 tokens cost nothing, the others what they do in the tiers they are in; and money credit after it
SELECT billing.customer_upsert('{"key":"units"}'), billing.subscribe('units', 'tiers', '2028-04-01'), billing.credit_grant_create('units', '{"key":"tokens","amount":"1200","unit":"token"}'), billing.credit_grant_create('units', '{"key":"money","amount":"10"}');
SELECT billing.test_clock_set('2028-04-20T00:00:00Z') AS clock \gset
SELECT pg_temp.used('units', '1', '2028-04-10Z', 1500);
SELECT billing.test_clock_set('2028-05-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, quantity, amount FROM lines WHERE contract = 'units-1';
SELECT block, line_key, quantity, amount FROM drawn WHERE contract = 'units-1';
SELECT total, credits, due FROM totals WHERE contract = 'units-1';
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'units-1/1';

-- Two contracts of one customer in one run never spend a credit twice
SELECT billing.customer_upsert('{"key":"pair"}'), billing.contract_create('{"key":"pair-a","customer":"pair","plan":"one","charges":[{"key":"images","remove":true}],"starts_on":"2028-05-01"}'), billing.contract_create('{"key":"pair-b","customer":"pair","plan":"one","charges":[{"key":"tokens","remove":true}],"starts_on":"2028-05-01"}');
SELECT billing.contract_activate('pair-a'), billing.contract_activate('pair-b'), billing.credit_grant_create('pair', '{"key":"shared","amount":"100"}');
SELECT billing.test_clock_set('2028-05-20T00:00:00Z') AS clock \gset
SELECT pg_temp.used('pair', '1', '2028-05-10Z', 70), pg_temp.used('pair', '2', '2028-05-05Z', 60, kind => 'image');
SELECT billing.test_clock_set('2028-06-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT contract, total, credits, due FROM totals WHERE contract LIKE 'pair%';
SELECT * FROM blocks WHERE customer = 'pair';
SELECT * FROM pg_temp.well();

-- Credit that comes back to what was billed as overage: what is due then is given back by a credit note, no invoice goes below zero
SELECT billing.test_clock_set('2028-07-01T00:00:00Z') AS clock \gset
SELECT billing.customer_upsert('{"key":"again"}'), billing.subscribe('again', 'one', '2028-07-01'), billing.credit_grant_create('again', '{"key":"again","amount":"100"}');
SELECT billing.test_clock_set('2028-07-20T00:00:00Z') AS clock \gset
SELECT pg_temp.used('again', '1', '2028-07-10Z', 90);
SELECT billing.test_clock_set('2028-08-20T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT pg_temp.used('again', '2', '2028-08-10Z', 30);
SELECT billing.test_clock_set('2028-09-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.event_void('again', '1', 'never happened');
SELECT billing.test_clock_set('2028-10-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT n, document, state, total, credits, due FROM totals WHERE contract = 'again-1';
SELECT key, posted FROM blocks WHERE customer = 'again';
-- … usage taken back by one hour counts in others; a void that stands gives credit back, too
SELECT billing.invoice_void(number, 'goodwill', false) FROM billing.invoice WHERE key = 'again-1/2';
SELECT key, posted FROM blocks WHERE customer = 'again';
SELECT * FROM pg_temp.well();

-- Corrections: late usage as differences, credit notes, invoices corrected by method; everything computes again to the same bytes.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}],"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n","dimensions":["model"]}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"q","meter":"q","pricing":{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.5"}]}},
    {"key":"volume","meter":"q","pricing":{"model":"volume","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.9"}]}},
    {"key":"bounds","meter":"q","pricing":{"model":"per_unit","unit_price":"1","minimum":"100","maximum":"500"}}]}],
  "plans":[{"key":"q","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"q"}]},
    {"key":"volume","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"volume"}]},
    {"key":"bounds","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"bounds","lines_by":["model"]}]}]}');
CREATE TEMP VIEW lines AS SELECT k.key AS contract, coalesce(i.number, i.key) AS document, i.kind AS document_kind, i.state, b.key AS bill_to, l.key, l.kind, l.service_from::date AS service, trim_scale(l.quantity) AS quantity, trim_scale(l.exact) AS exact, l.amount
  FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id ORDER BY i.created_at, i.number, l.line_n;
CREATE FUNCTION pg_temp.use(key text, id text, n numeric, at timestamptz, bill_to text DEFAULT NULL, model text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$ SELECT billing.ingest_event(key, 'use', id, at, jsonb_strip_nulls(jsonb_build_object('n', n, 'model', model)), bill_to) $$;
-- All is well, all documents compute again to the same bytes; and what waits for the next bill
SELECT billing.customer_upsert(c::jsonb) FROM unnest(ARRAY['{"key":"tiers"}', '{"key":"volume"}', '{"key":"bounds"}', '{"key":"pair","bill_tos":[{"key":"a","name":"A"},{"key":"b","name":"B"}]}', '{"key":"ended"}', '{"key":"closed"}', '{"key":"credit"}']) c;
SELECT billing.subscribe('tiers', 'q', '2026-01-01'), billing.subscribe('volume', 'volume', '2026-01-01'), billing.subscribe('bounds', 'bounds', '2026-01-01'), billing.subscribe('pair', 'q', '2026-01-01'),
  billing.subscribe('ended', 'q', '2026-01-01', '{"term":"1 month"}'), billing.subscribe('closed', 'q', '2026-01-01'), billing.subscribe('credit', 'q', '2026-01-01');
SELECT pg_temp.use('tiers', '1', 950, '2026-01-10Z'), pg_temp.use('volume', '1', 999, '2026-01-10Z'), pg_temp.use('bounds', '1', 40, '2026-01-10Z', NULL, 'x'), pg_temp.use('pair', '1', 600, '2026-01-10Z', 'a'),
  pg_temp.use('pair', '2', 600, '2026-01-10Z', 'b'), pg_temp.use('ended', '1', 10, '2026-01-10Z'), pg_temp.use('credit', '1', 1200, '2026-01-10Z') \gset use_
CALL billing.bill_run();
SELECT document, bill_to, key, quantity, amount FROM lines;
SELECT * FROM pg_temp.well();

-- Late usage. 1,050 cost 1,025, so 75 are missing; with volume tiers 1,001 cost 900.90, less than 999; under a minimum nothing is missing but the
-- lines move; what two legal entities share moves between them; a contract has ended; a boundary had nothing to bill
SELECT pg_temp.use('tiers', '2', 100, '2026-01-31T23:59:59Z'), pg_temp.use('volume', '2', 2, '2026-01-20Z'), pg_temp.use('bounds', '2', 30, '2026-01-20Z', NULL, 'y'), pg_temp.use('pair', '3', 800, '2026-01-20Z', 'b'),
  pg_temp.use('ended', '2', 5, '2026-01-20Z'), pg_temp.use('closed', '1', 7, '2026-01-20Z') \gset late_
SELECT k.key AS contract, l.n, l.closed_at IS NULL AS open FROM billing.late_usage l JOIN billing.contract k USING (customer_id, contract_id) ORDER BY 1, 2;
SELECT * FROM pg_temp.well();
-- … usage of the open month beside it, in a preview and in spend() where it happened, billed and not
SELECT billing.test_clock_set('2026-02-20T00:00:00Z') AS clock \gset
SELECT pg_temp.use('tiers', '3', 10, '2026-02-10Z') AS in_time;
SELECT * FROM pg_temp.lines(billing.invoice_preview('tiers'));
SELECT starts_at, amount, state FROM billing.spend('tiers', '2026-01-01Z', '2026-03-01Z', 'day');
SELECT * FROM pg_temp.lines(billing.invoice_preview('ended-1'));
SELECT starts_at, amount, state FROM billing.spend('ended', '2026-01-01Z', '2026-03-01Z', 'day');
-- … the contract that has ended needs no boundary; the others have it on their next bill
CALL billing.bill_run();
SELECT contract, document, document_kind, key, service, quantity, amount FROM lines WHERE kind = 'difference';
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT contract, document, document_kind, bill_to, key, service, quantity, exact, amount FROM lines WHERE kind = 'difference';
SELECT contract, bill_to, sum(amount) AS billed FROM lines GROUP BY 1, 2 ORDER BY 1, 2;
SELECT starts_at, amount, state FROM billing.spend('tiers', '2026-01-01Z', '2026-03-01Z', 'day');
SELECT occurred_at, event_id, value, change FROM billing.invoice i, billing.invoice_line_events(i.number, 'q/2026-01-01/difference') WHERE i.key = 'tiers-1/2';
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'tiers-1/2';
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'bounds-1/2';
SELECT jsonb_pretty(document->'inputs'->'differences') AS recorded FROM billing.invoice WHERE key = 'tiers-1/2' \gset
SELECT :'recorded' ~ '"billed_on": \[\s+"INV-2026' AS names_what_was_billed, count(*) FILTER (WHERE closed_at IS NULL) AS open FROM billing.late_usage;
SELECT * FROM pg_temp.well();
-- … and nothing twice
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT l.contract, l.document, l.kind, l.key FROM lines l JOIN billing.invoice i ON i.number = l.document WHERE i.n > 2;

-- Under a maximum: more usage costs nothing more
SELECT pg_temp.use('bounds', '3', 600, '2026-03-20Z', NULL, 'x'), pg_temp.use('bounds', '4', 300, '2026-01-21Z', NULL, 'x'), pg_temp.use('bounds', '5', 400, '2026-01-22Z', NULL, 'y');
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT document, key, service, quantity, amount FROM lines WHERE contract = 'bounds-1' AND service = '2026-01-01';
SELECT sum(amount) AS at_most_500 FROM lines WHERE contract = 'bounds-1' AND service = '2026-01-01';
SELECT * FROM pg_temp.well();

-- A void of an invoice with differences makes them unbilled again; what it stood for is billed once
SELECT billing.invoice_void(number, 'wrong address') FROM billing.invoice WHERE key = 'tiers-1/2';
SELECT * FROM pg_temp.well();
CALL billing.bill_run();
SELECT document, state, key, quantity, amount FROM lines WHERE contract = 'tiers-1';
-- … a void of the invoice they correct, too: its reissue has the whole, less what stands elsewhere
SELECT billing.invoice_void(number, 'wrong address') FROM billing.invoice WHERE key = 'tiers-1/1';
CALL billing.bill_run();
SELECT document, state, key, quantity, amount FROM lines WHERE contract = 'tiers-1' AND state <> 'void';
SELECT sum(amount) AS total, sum(amount) = 1025 + 10 AS ok FROM lines WHERE contract = 'tiers-1' AND state <> 'void';
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.key = 'tiers-1/1.2';
SELECT * FROM pg_temp.well();
-- … of an ended contract's correction likewise; and one that is not to be issued again is settled
SELECT billing.invoice_void(number, 'wrong address') FROM billing.invoice WHERE key = 'ended-1/1.2';
CALL billing.bill_run();
SELECT l.document, document_kind, l.state, i.key AS invoice, l.key, amount FROM lines l JOIN billing.invoice i ON i.number = l.document WHERE contract = 'ended-1';
SELECT billing.invoice_void(number, 'goodwill', false) FROM billing.invoice WHERE key = 'ended-1/1.3';
CALL billing.bill_run();
SELECT count(*) AS invoices FROM billing.invoice WHERE key LIKE 'ended-1/%';
SELECT * FROM pg_temp.well();

-- An invoice corrected by method. What the engine finds is what events and meters say now: 300 more came
SELECT number AS invoice FROM billing.invoice WHERE key = 'credit-1/1' \gset
SELECT * FROM billing.invoice_correct(:'invoice');
SELECT pg_temp.use('credit', '2', 300, '2026-01-25Z') AS late;
SELECT * FROM billing.invoice_correct(:'invoice');
SELECT * FROM billing.invoice_correct(:'invoice', 'credit_note', 'found 300', false);
SELECT contract, document, document_kind, key, quantity, amount FROM lines WHERE contract = 'credit-1';
SELECT * FROM pg_temp.well();
CALL billing.bill_run();
-- … an override makes the past no cheaper: it is the recorded terms that count
SELECT billing.customer_upsert('{"key":"credit","overrides":[{"meter":"q","percent_off":"50"}]}') AS overridden;
SELECT * FROM billing.invoice_correct(:'invoice', 'credit_note');
-- … but voided and issued again it is by the terms of now
SELECT * FROM billing.invoice_correct(:'invoice', 'void_reissue');
SELECT line_key, billed, corrected, difference, action, document IS NOT NULL AS made FROM billing.invoice_correct(:'invoice', 'void_reissue', 'half price was agreed', false);
SELECT document, state, key, quantity, amount FROM lines WHERE contract = 'credit-1';
SELECT * FROM pg_temp.well();
CALL billing.bill_run();
SELECT count(*) AS documents FROM billing.invoice WHERE key LIKE 'credit-1/%';

-- Credit: late usage of a volume price that is a cliff; the credit note has a series of its own
SELECT billing.test_clock_set('2026-06-01T00:00:00Z') AS clock \gset
SELECT pg_temp.use('volume', '9', 999, '2026-05-10Z') AS may;
CALL billing.bill_run();
SELECT number AS may FROM billing.invoice WHERE key = 'volume-1/5' \gset
SELECT pg_temp.use('volume', '10', 2, '2026-05-20Z') AS late;
SELECT * FROM billing.invoice_correct(:'may', 'credit_note', 'late usage', false);
SELECT number, invoice, credited, state FROM billing.credit_note;
SELECT number AS note FROM billing.credit_note WHERE invoice = :'may' \gset
SELECT e FROM billing.invoice_explain(:'note') e;
SELECT occurred_at, event_id, value, change FROM billing.invoice_line_events(:'note', 'q/2026-05-01/difference');
SELECT * FROM pg_temp.well();
CALL billing.bill_run();
SELECT customer, invoice, kind, amount FROM billing.fact_invoice_line WHERE customer = 'volume';
\a \t
SELECT pg_temp.fails(format($$SELECT billing.invoice_void(%L, 'x')$$, :'may'));
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT * FROM billing.invoice_correct('nope')$$, format($$SELECT * FROM billing.invoice_correct(%L)$$, :'note'), $$SELECT * FROM billing.invoice_correct('tiers-1/1.2', 'guess')$$,
  $$SELECT * FROM billing.invoice_correct('tiers-1/1')$$, $$SELECT * FROM billing.invoice_correct('tiers-1/1.2', 'replace')$$, $$SELECT * FROM billing.invoice_correct('tiers-1/1.2', 'credit_note', NULL, false)$$,
  $$SELECT * FROM billing.invoice_correct('tiers-1/1.2', dry_run => NULL)$$]) c;
\a \t
-- … one that is voided leaves its difference to the next bill, as every void does
SELECT billing.invoice_void(:'note', 'sent to the wrong person');
SELECT * FROM pg_temp.well();
-- … a policy decides; where an invoice has less left than the credit, because the rest is on others, there is none
SELECT billing.policy_set('correction_method', 'credit_note', 'contract:pair-1'), billing.policy_set('invoice_grace', '3 days', 'contract:pair-1');
SELECT billing.test_clock_set('2026-06-20T00:00:00Z') AS clock \gset
SELECT pg_temp.use('pair', '4', 10, '2026-06-10Z', 'a'), pg_temp.use('pair', '5', 10, '2026-01-11Z', 'a'), pg_temp.use('volume', '11', 100, '2026-04-10Z');
SELECT number AS pair FROM billing.invoice WHERE key = 'pair-1/1' \gset
SELECT line_key, billed, corrected, difference, action FROM billing.invoice_correct(:'pair');
SELECT line_key, billed, corrected, difference, action, document FROM billing.invoice_correct(:'pair', reason => 'late', dry_run => false);
SELECT * FROM pg_temp.well();
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT document, document_kind, state, key, amount FROM lines WHERE contract = 'volume-1';
SELECT pg_temp.use('volume', '12', 10, '2026-06-10Z') AS june;
SELECT billing.invoice_void(number, 'issued too early') FROM billing.invoice WHERE key = 'volume-1/6';
CALL billing.bill_run();
SELECT pg_temp.use('volume', '13', 990, '2026-06-10Z') AS june;
SELECT billing.test_clock_set('2026-08-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT pg_temp.use('volume', '14', 1, '2026-06-10Z') AS june;
SELECT number AS june FROM billing.invoice WHERE key = 'volume-1/6.2' \gset
SELECT document, document_kind, state, key, amount FROM lines WHERE contract = 'volume-1' AND service = '2026-06-01';
\a \t
SELECT pg_temp.fails(format($$SELECT * FROM billing.invoice_correct(%L, 'credit_note')$$, :'june'));
\a \t
SELECT line_key, billed, corrected, difference, action, document FROM billing.invoice_correct(:'june', 'next_invoice', 'more came', false);
-- … a draft is replaced
SELECT pg_temp.use('pair', '6', 30, '2026-07-11Z', 'a') AS in_grace;
CALL billing.bill_run();
SELECT pg_temp.use('pair', '7', 30, '2026-07-11Z', 'a') AS in_grace, pg_temp.use('pair', '8', 4, '2026-06-12Z', 'a') AS late;
SELECT * FROM billing.invoice_correct('pair-1/7');
SELECT * FROM billing.invoice_correct('pair-1/7', reason => 'usage came in', dry_run => false);
SELECT document, document_kind, state, bill_to, key, quantity, amount FROM lines WHERE contract = 'pair-1';
SELECT * FROM pg_temp.well();
SELECT billing.test_clock_set('2026-09-05T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT sum(amount) AS of_january, sum(amount) = 1000 + 0.5 * 1010 AS ok FROM lines WHERE contract = 'pair-1' AND service = '2026-01-01';
SELECT document, key, amount FROM lines WHERE contract = 'volume-1' AND service = '2026-06-01';
SELECT key, message FROM billing.job_issue;
SELECT * FROM pg_temp.well();

-- A meter was wrong: it counted what was cached. It is fixed from the start, history is measured again, every invoice is corrected by its exact
-- difference, by credit notes or on the next bill, and each document still computes to the same bytes, by the meter it recorded
SELECT billing.customer_upsert('{"key":"fixed"}'), billing.subscribe('fixed', 'q', '2026-07-01');
SELECT count(billing.ingest_event('fixed', 'use', 'f' || i, '2026-07-01Z'::timestamptz + i * interval '1 day', jsonb_build_object('n', 100, 'cached', i))) AS events FROM generate_series(1, 30) i;
CALL billing.bill_run();
SELECT number AS fixed FROM billing.invoice WHERE key = 'fixed-1/1' \gset
SELECT action FROM billing.catalog_apply('{"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n - coalesce(cached, 0)","dimensions":["model"],"valid_from":"2026-01-01T00:00:00Z"}]}');
CALL billing.meter_rebuild();
SELECT * FROM pg_temp.well();
SELECT * FROM billing.invoice_correct(:'fixed', 'credit_note', 'the meter counted cached tokens', false);
SELECT occurred_at::date AS day, event_id, value, change FROM billing.credit_note n, billing.invoice_line_events(n.number, 'q/2026-07-01/difference', 4) WHERE n.invoice = :'fixed';
SELECT sum(value) FILTER (WHERE change = -1) AS billed, sum(value) FILTER (WHERE change = 1) AS now, count(*) AS changes FROM billing.credit_note n, billing.invoice_line_events(n.number, 'q/2026-07-01/difference') WHERE n.invoice = :'fixed';
SELECT line_key, billed, recomputed, same_bytes FROM billing.credit_note n, billing.invoice_recompute(n.number) WHERE n.invoice = :'fixed';
CALL billing.bill_run();
SELECT * FROM pg_temp.well();

-- What is late on a contract that has ended, and in the customer's favour, is a credit note of the run
SELECT billing.customer_upsert('{"key":"over"}'), billing.subscribe('over', 'volume', '2026-08-01', '{"term":"1 month"}'), pg_temp.use('over', '1', 1500, '2026-08-10Z');
CALL billing.bill_run();
SELECT pg_temp.use('over', '2', -501, '2026-08-11Z') AS late;
CALL billing.bill_run();
SELECT document, document_kind, key, service, quantity, amount FROM lines WHERE contract = 'over-1';
SELECT n.invoice IS NULL AS of_several, n.credited FROM billing.credit_note n JOIN lines l ON l.document = n.number WHERE l.contract = 'over-1';
SELECT * FROM pg_temp.well();

-- An event of a billed period is taken back: noted, and on the next bill with the event that no longer counts
SELECT billing.event_void('fixed', 'f30', 'sent twice');
SELECT * FROM pg_temp.well();
SELECT billing.test_clock_set('2026-10-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT document, document_kind, key, quantity, amount FROM lines WHERE contract = 'fixed-1';
SELECT e.occurred_at, e.event_id, e.value, e.change FROM billing.credit_note n, billing.invoice_line_events(n.number, 'q/2026-07-01/difference') e WHERE n.credited = 35;
SELECT * FROM pg_temp.well();

-- What is carried over: a change of a level that comes late changes every period that was billed since
SELECT count(*) FROM billing.catalog_apply('{"meters":[{"key":"gb","event_type":"disk","aggregation":"weighted_sum","value":"gb","unit":"GB-hour"}]}');
SELECT billing.customer_upsert('{"key":"disk"}'), billing.contract_create('{"key":"disk","customer":"disk","currency":"USD","starts_on":"2026-07-01","billing":{"interval":"1 month"},
  "charges":[{"key":"gb","product":"p","meter":"gb","pricing":{"model":"per_unit","unit_price":"0.01"}}]}'), billing.contract_activate('disk');
SELECT billing.ingest_event('disk', 'disk', '1', '2026-07-01Z', '{"gb":10}');
CALL billing.bill_run();
SELECT billing.ingest_event('disk', 'disk', '2', '2026-07-31T12:00:00Z', '{"gb":4}') AS late;
SELECT count(*) AS boundaries FROM billing.late_usage l JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'disk' AND l.closed_at IS NULL;
SELECT * FROM pg_temp.well();
SELECT billing.test_clock_set('2026-11-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT document, key, quantity, amount FROM lines WHERE contract = 'disk';
SELECT occurred_at, event_id, value, change FROM billing.invoice_line_events('disk/4', 'gb/2026-08-01/difference');
SELECT * FROM pg_temp.well();

-- What is due is never taken below zero: of a fee of 310 a month and October's 640 units, 40 taken back come off the next invoice; the other 600 are more
-- than what is due, so fee and usage are an invoice and the 600 a credit note. A preview shows both, a draft what is due
SELECT count(*) AS changes FROM billing.catalog_apply('{"plans":[{"key":"feed","currency":"USD","price_book":"list","billing":{"interval":"1 month","alignment":"calendar"},"charges":[{"key":"q","product":"p","meter":"q","price":"volume"}],
  "fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"310"}}]}]}');
SELECT billing.test_clock_set('2026-11-01T00:00:00Z') AS clock \gset
SELECT billing.customer_upsert('{"key":"feed"}'), billing.subscribe('feed', 'feed', '2026-10-01'), pg_temp.use('feed', '1', 600, '2026-10-10Z'), pg_temp.use('feed', '2', 40, '2026-10-11Z'), billing.policy_set('invoice_grace', '3 days', 'contract:feed-1');
SELECT billing.test_clock_set('2026-11-04T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.event_void('feed', '2', 'sent twice');
SELECT billing.test_clock_set('2026-12-04T00:00:00Z') AS clock \gset
SELECT d->>'kind' AS kind, d->'totals'->>'total' AS total FROM jsonb_array_elements('[]' || billing.invoice_preview('feed-1')) d;
CALL billing.bill_run();
SELECT billing.event_void('feed', '1', 'a test');
SELECT billing.test_clock_set('2027-01-02T00:00:00Z') AS clock \gset
SELECT pg_temp.use('feed', '3', 7, '2026-12-10Z');
SELECT d->>'kind' AS kind, d->'totals'->>'total' AS total, d ? 'due_on' AS due FROM jsonb_array_elements('[]' || billing.invoice_preview('feed-1')) d;
CALL billing.bill_run();
SELECT i.key, i.kind, i.state, i.total FROM billing.invoice i WHERE i.state = 'draft' AND i.key LIKE 'feed-1/%';
SELECT billing.test_clock_set('2027-01-04T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT document, document_kind, key, service, amount FROM lines WHERE contract = 'feed-1';
SELECT * FROM pg_temp.well();
-- … and voided, it is unbilled again
SELECT billing.invoice_void(number, 'not agreed') FROM billing.credit_note WHERE credited = 600;
SELECT * FROM pg_temp.well();
CALL billing.bill_run();
SELECT billing.test_clock_set('2027-02-04T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT document_kind, key, service, amount FROM lines WHERE contract = 'feed-1' AND state <> 'void';
SELECT * FROM pg_temp.well();

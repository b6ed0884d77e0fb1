-- Runs: what is due and when, drafts in grace, several legal entities, what is broken, voids, numbers, late usage.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}],"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n","dimensions":["model"]},{"key":"free","event_type":"use","aggregation":"count"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"q","meter":"q","pricing":{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.5"}]}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"q"}],"fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"49"}},{"key":"support","product":"p","pricing":{"model":"flat","amount":"10"},"timing":"arrears"}]},
    {"key":"usage","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"q"}]}]}');
CREATE TEMP VIEW invoices AS SELECT k.key AS contract, i.key, i.number, i.state, b.key AS bill_to, i.n, i.issued_on, i.total, i.currency,
    (SELECT string_agg(l.key || ' ' || l.amount, ', ' ORDER BY l.line_n) FROM billing.invoice_line l WHERE l.invoice_id = i.invoice_id) AS lines
  FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id ORDER BY i.number, i.key;
CREATE FUNCTION pg_temp.use(key text, id text, n numeric, at timestamptz, bill_to text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$ SELECT billing.ingest_event(key, 'use', id, at, jsonb_build_object('n', n), bill_to) $$;

-- Boundary 0 holds the fee in advance; boundary 1 the usage and arrears of January and February's fee in advance
SELECT billing.customer_upsert('{"key":"acme"}') AS a, billing.subscribe('acme', 'pro', '2026-01-01') AS b \gset
CALL billing.bill_run();
SELECT number, lines, total FROM invoices;
CALL billing.bill_run();
SELECT count(*) AS invoices FROM invoices;
SELECT billing.test_clock_set('2026-01-20T00:00:00Z') AS clock \gset
SELECT pg_temp.use('acme', 'a1', 950, '2026-01-10Z');
-- the preview has the usage so far, and what will be billed beside it; before an instant, only the usage before it
SELECT * FROM pg_temp.lines(billing.invoice_preview('acme'));
SELECT * FROM pg_temp.lines(billing.invoice_preview('acme', '2026-01-10Z'));
SELECT p->>'status' AS status, p->>'number' AS number, p->>'issued_on' AS issued_on, p->>'due_on' AS due_on FROM billing.invoice_preview('acme') p;
SELECT count(*) AS nothing_due FROM billing.invoice_generate('acme');
CALL billing.bill_run('2026-01-31T23:59:59.999999Z');
SELECT count(*) AS invoices FROM invoices;
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT number, lines, total, total = 950 + 10 + 49 AS ok FROM invoices WHERE n = 1;

-- Late usage is stored and shown as not billed: 1,050 cost 1,025, so 75 are missing
SELECT pg_temp.use('acme', 'a2', 100, '2026-01-31T23:59:59Z');
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
-- … and the issued invoice is as it was
SELECT line_key, billed, recomputed, same_bytes FROM billing.invoice_recompute('INV-2026-000002');
SELECT count(*) AS events FROM billing.invoice_line_events('INV-2026-000002', 'q/2026-01-01');

-- Void and reissue: the number stays used, the boundary is billed again, late usage included
SELECT billing.invoice_void('INV-2026-000002', 'late usage of 31 January');
SELECT key, next_n, next_bill_at FROM billing.contract;
CALL billing.bill_run();
SELECT number, key, state, lines, total FROM invoices;
SELECT i.number, r.number AS replaces, i.total - r.total AS difference, i.total - r.total = 75 AS ok FROM billing.invoice i JOIN billing.invoice r ON r.invoice_id = i.replaces;
-- … without reissue its periods stay closed
SELECT billing.invoice_void('INV-2026-000003', 'goodwill', reissue => false);
CALL billing.bill_run();
SELECT number, state FROM invoices;
SELECT key, next_n, next_bill_at FROM billing.contract;

-- Grace: the run leaves drafts, remade by each run, and issues them when it has passed
SELECT billing.customer_upsert('{"key":"grace"}') AS a, billing.subscribe('grace', 'usage', '2026-02-01') AS b \gset
SELECT billing.policy_set('invoice_grace', '3 days', 'contract:grace-1');
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
SELECT pg_temp.use('grace', 'g1', 10, '2026-02-10Z');
CALL billing.bill_run();
SELECT key, number, state, total FROM invoices WHERE contract = 'grace-1';
SELECT pg_temp.use('grace', 'g2', 5, '2026-02-28T23:59:59Z');
SELECT billing.test_clock_set('2026-03-03T23:59:59Z') AS clock \gset
CALL billing.bill_run();
SELECT key, number, state, total FROM invoices WHERE contract = 'grace-1';
SELECT billing.test_clock_set('2026-03-04T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, state, issued_on, total FROM invoices WHERE contract = 'grace-1';

-- By hand: boundary 0 has nothing to bill and closes; generate the next, generate again, finalize
SELECT billing.customer_upsert('{"key":"hand"}') AS a, billing.subscribe('hand', 'usage', '2026-02-01') AS b, pg_temp.use('hand', 'h1', 7, '2026-02-10Z') AS c \gset
SELECT billing.invoice_generate('hand');
SELECT pg_temp.use('hand', 'h2', 1, '2026-02-11Z');
SELECT billing.invoice_generate('hand');
SELECT key, number, state, total FROM invoices WHERE contract = 'hand-1';
SELECT pg_temp.use('hand', 'h3', 2, '2026-02-12Z');
-- what is finalized is what there is now
SELECT billing.invoice_finalize('hand-1/1');
SELECT key, state, total FROM invoices WHERE contract = 'hand-1';

-- Several boundaries behind: an invoice for each, in order; the term ends with the last
SELECT billing.test_clock_set('2026-06-15T00:00:00Z') AS clock \gset
UPDATE billing.contract SET state = 'paused' WHERE key IN ('acme-1', 'grace-1', 'hand-1');
SELECT billing.customer_upsert('{"key":"behind"}') AS a, billing.subscribe('behind', 'pro', '2026-01-15', '{"term":"3 months","billing":{"alignment":"anniversary"}}') AS b, pg_temp.use('behind', 'b1', 3, '2026-02-20Z') AS c, pg_temp.use('behind', 'b2', 4, '2026-04-14T23:59:59Z') AS d, pg_temp.use('behind', 'b3', 9, '2026-04-15Z') AS e \gset
CALL billing.bill_run();
SELECT n, issued_on, lines, total FROM invoices WHERE contract = 'behind-1' ORDER BY n;
SELECT key, state, next_bill_at FROM billing.contract WHERE key = 'behind-1';
-- … usage after it is priced by nothing
SELECT meter, trim_scale(sum(quantity)) AS quantity, sum(events) AS events FROM billing.unpriced_usage WHERE customer = 'behind' GROUP BY meter ORDER BY meter;

-- Legal entities: what an event names goes to it, the rest to the contract's own; a preview is an array then
SELECT billing.customer_upsert('{"key":"globex","bill_tos":[{"key":"inc","name":"Globex Inc","time_zone":"America/New_York"},{"key":"gmbh","name":"Globex GmbH"},{"key":"kk","name":"Globex KK","time_zone":"Asia/Tokyo"}]}') AS a, billing.subscribe('globex', 'pro', '2026-06-01') AS b \gset
SELECT pg_temp.use('globex', 'x1', 900, '2026-06-02Z', 'gmbh'), pg_temp.use('globex', 'x2', 100, '2026-06-03Z'), pg_temp.use('globex', 'x3', 1000, '2026-06-04Z', 'kk');
SELECT d->>'bill_to' AS bill_to, l.key, l.quantity, l.exact, l.amount FROM jsonb_array_elements(billing.invoice_preview('globex')) d, pg_temp.lines(d) l;
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
-- one price over all of them: 2,000 cost 1,500, shared by quantity. Issued on the day it is there: 30 June in New York
SELECT key, bill_to, issued_on, lines, total FROM invoices WHERE contract = 'globex-1';
SELECT sum(l.amount) AS usage, sum(l.amount) = 1500 AS ok FROM billing.invoice_line l WHERE l.kind = 'usage' AND l.invoice_id IN (SELECT invoice_id FROM billing.invoice WHERE key LIKE 'globex-1/1%');
SELECT i.key, bool_and(r.same_bytes) AS same FROM invoices i, billing.invoice_recompute(i.number) r WHERE i.contract = 'globex-1' GROUP BY i.key ORDER BY i.key;
-- … one of them is voided and issued again, the others stay
SELECT billing.invoice_void(number, 'wrong address') FROM invoices WHERE key = 'globex-1/1/gmbh';
CALL billing.bill_run();
SELECT key, state, total FROM invoices WHERE contract = 'globex-1' AND n = 1;

-- A contract that can't be billed is an issue of the run, and the others are billed
SELECT billing.customer_upsert('{"key":"broken"}') AS a, billing.customer_upsert('{"key":"fine"}') AS b \gset
SELECT billing.subscribe('broken', 'usage', '2026-07-01', '{"charges":[{"key":"q","product":"p","meter":"q","pricing":{"model":"stairstep","tiers":[{"up_to":"10","amount":"5"}]}}]}'), billing.subscribe('fine', 'usage', '2026-07-01');
SELECT billing.test_clock_set('2026-08-01T00:00:00Z') AS clock \gset
SELECT pg_temp.use('broken', 'o1', 11, '2026-07-10Z'), pg_temp.use('fine', 'f1', 11, '2026-07-10Z');
UPDATE billing.contract SET state = 'paused' WHERE key = 'globex-1';
CALL billing.bill_run();
SELECT i.kind, i.key, i.sqlstate, i.message, i.hint, r.state, r.issues, r.result->>'invoices' AS invoices FROM billing.job_issue i JOIN billing.job_run r USING (job_run_id);
SELECT contract, lines FROM invoices WHERE n = 1 AND contract IN ('fine-1', 'broken-1');
SELECT pg_temp.fails($$SELECT billing.invoice_preview('broken')$$);
SELECT pg_temp.fails($$SELECT billing.invoice_generate('broken')$$);
-- … mended, the next run bills it
SELECT pg_temp.use('broken', 'o2', -1, '2026-07-11Z');
CALL billing.bill_run();
SELECT contract, lines FROM invoices WHERE n = 1 AND contract = 'broken-1';

-- … so is one that breaks in a way nobody foresaw, and one whose currency is no more
SELECT billing.customer_upsert('{"key":"unlucky"}'), billing.subscribe('unlucky', 'usage', '2026-07-01'), pg_temp.use('unlucky', 'u13', 13, '2026-07-10Z');
SELECT billing.contract_create('{"key":"beside","customer":"unlucky","starts_on":"2026-08-01","fees":[{"key":"f","product":"p","pricing":{"model":"flat","amount":"5"}}]}'), billing.contract_activate('beside');
SELECT billing.customer_upsert('{"key":"lucky"}'), billing.subscribe('lucky', 'usage', '2026-07-01'), pg_temp.use('lucky', 'u7', 7, '2026-07-10Z');
SELECT billing.customer_upsert('{"key":"frank","currency":"CHF"}'), billing.contract_create('{"key":"frank","customer":"frank","starts_on":"2026-07-01","fees":[{"key":"f","product":"p","pricing":{"model":"flat","amount":"1"}}]}'), billing.contract_activate('frank');
ALTER TABLE billing.invoice ADD CONSTRAINT nobody_foresaw CHECK (total <> 13);
UPDATE billing.currency SET valid_until = '2026-07-15' WHERE code = 'CHF';
CALL billing.bill_run();
SELECT i.key, i.sqlstate, i.message, i.hint FROM billing.job_issue i WHERE i.key NOT LIKE 'broken%' ORDER BY i.key;
SELECT contract, lines FROM invoices WHERE contract IN ('unlucky-1', 'beside', 'lucky-1', 'frank') ORDER BY contract;
ALTER TABLE billing.invoice DROP CONSTRAINT nobody_foresaw;
UPDATE billing.currency SET valid_until = NULL WHERE code = 'CHF';
CALL billing.bill_run();
SELECT contract, lines FROM invoices WHERE contract IN ('unlucky-1', 'beside', 'lucky-1', 'frank') ORDER BY contract, n;

-- Zero totals are issued and paid; an invoice without lines is not
SELECT billing.customer_upsert('{"key":"zero"}') AS a, billing.subscribe('zero', 'usage', '2026-07-01', '{"charges":[{"key":"q","product":"p","meter":"q","pricing":{"model":"per_unit","unit_price":"0"}}]}') AS b, pg_temp.use('zero', 'z1', 5, '2026-07-10Z') AS c \gset
SELECT billing.customer_upsert('{"key":"idle"}') AS a, billing.subscribe('idle', 'usage', '2026-07-01') AS b \gset
CALL billing.bill_run();
SELECT contract, state, lines, total FROM invoices WHERE contract IN ('zero-1', 'idle-1');
SELECT k.key, string_agg(p.state, ' ' ORDER BY p.n) AS periods FROM billing.billing_period p JOIN billing.contract k USING (contract_id) WHERE k.key IN ('zero-1', 'idle-1') GROUP BY k.key ORDER BY k.key;

-- Numbers: one series, no gap, whatever happened in between; another seller and fiscal year count apart
SELECT count(*) AS numbers, max(counter) AS last, count(DISTINCT number) AS different FROM billing.invoice_number;
SELECT billing.seller_upsert('{"key":"uk","invoice_series":"UK","fiscal_year_start":4,"currency":"GBP","time_zone":"Europe/London"}') AS a, billing.customer_upsert('{"key":"brit","seller":"uk"}') AS b,
  billing.contract_create('{"key":"brit","customer":"brit","starts_on":"2026-01-01","currency":"GBP","fees":[{"key":"f","product":"p","pricing":{"model":"flat","amount":"1.005"}}]}') AS c, billing.contract_activate('brit') AS d \gset
SELECT billing.test_clock_set('2027-03-31T22:59:59Z') AS clock \gset
CALL billing.bill_run('2026-01-01Z');
SELECT billing.test_clock_set('2027-03-31T23:00:00Z') AS clock \gset
CALL billing.bill_run('2026-02-01Z');
SELECT number, total, currency FROM invoices WHERE contract = 'brit';

-- Errors
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  $$SELECT billing.invoice_preview('nobody')$$, $$SELECT billing.invoice_preview('behind-1')$$, $$SELECT billing.invoice_generate('nobody')$$, $$SELECT billing.invoice_generate('behind-1')$$,
  $$SELECT billing.invoice_finalize('INV-2026-999999')$$, $$SELECT billing.invoice_finalize('INV-2026-000001')$$, $$SELECT billing.invoice_finalize(NULL)$$, $$SELECT billing.invoice_void('INV-2026-000002', 'again')$$, $$SELECT billing.invoice_void('INV-2026-000001', ' ')$$, $$SELECT billing.invoice_void('nothing', 'x')$$,
  $$SELECT billing.invoice_recompute('nothing')$$, $$SELECT billing.invoice_explain('nothing')$$, $$SELECT billing.invoice_explain(NULL::jsonb)$$, $$SELECT billing.invoice_explain('{}'::jsonb)$$, $$SELECT billing.invoice_explain('[5]'::jsonb)$$, $$SELECT billing.invoice_explain('"x"'::jsonb)$$,
  $$SELECT billing.invoice_line_events('INV-2026-000001', 'nothing')$$, $$SELECT billing.invoice_line_events('INV-2026-000001', NULL)$$, $$SELECT billing.bill_run_start('infinity')$$, $$SELECT billing.bill_run_step('00000000-0000-7000-8000-000000000000')$$, $$SELECT billing.bill_run_step(NULL)$$, $$SELECT billing.verify('all')$$, $$SELECT billing.verify(NULL)$$]) c;
SELECT pg_temp.fails(format('SELECT billing.invoice_void(%L, %L)', number, 'x')) FROM invoices WHERE state = 'paid';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.fails($$SELECT billing.invoice_finalize('INV-2026-000001')$$);
ROLLBACK;
\a \t

-- verify() finds what was tampered with
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
BEGIN;
UPDATE billing.invoice SET total = total + 1, document = jsonb_set(document, '{totals,total}', '"50.00"') WHERE number = 'INV-2026-000001';
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
ROLLBACK;
BEGIN;
DELETE FROM billing.invoice_number WHERE number = 'INV-2026-000004';
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
ROLLBACK;
BEGIN;
UPDATE billing.usage_delta SET quantity = quantity + 1 WHERE customer_id = (SELECT customer_id FROM billing.customer WHERE key = 'fine') AND quantity IS NOT NULL;
SELECT check_name, failed FROM billing.verify('full') WHERE failed <> 0;
ROLLBACK;

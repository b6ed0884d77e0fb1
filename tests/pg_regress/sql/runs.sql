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
SELECT billing.test_clock_set('2026-01-31T23:59:59.999999Z') AS clock \gset
CALL billing.bill_run();
SELECT count(*) AS invoices FROM invoices;
-- … what has not happened is not billed, whoever asks; only a preview looks ahead
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.bill_run_start('2026-02-01Z')$$, $$SELECT billing.invoice_generate('acme', '2026-02-01Z')$$,
  $$SELECT billing.bill_run_step(billing.job_start('bill_run', '{"as_of":"2026-02-01T00:00:00Z"}'))$$]) c;
\a \t
SELECT billing.invoice_preview('acme', '2026-03-01Z')->'totals'->>'total' AS looks_ahead;
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT number, lines, total, total = 950 + 10 + 49 AS ok FROM invoices WHERE n = 1;

-- Late usage waits for the next bill: 1,050 cost 1,025, so 75 are missing
SELECT pg_temp.use('acme', 'a2', 100, '2026-01-31T23:59:59Z');
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0 OR example IS NOT NULL;
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
UPDATE billing.contract SET state = 'draft' WHERE key IN ('acme-1', 'grace-1', 'hand-1');
SELECT billing.customer_upsert('{"key":"behind"}') AS a, billing.subscribe('behind', 'pro', '2026-01-15', '{"term":"3 months","billing":{"alignment":"anniversary"}}') AS b, pg_temp.use('behind', 'b1', 3, '2026-02-20Z') AS c, pg_temp.use('behind', 'b2', 4, '2026-04-14T23:59:59Z') AS d, pg_temp.use('behind', 'b3', 9, '2026-04-15Z') AS e \gset
CALL billing.bill_run();
SELECT n, issued_on, lines, total FROM invoices WHERE contract = 'behind-1' ORDER BY n;
SELECT key, state, next_bill_at FROM billing.contract WHERE key = 'behind-1';
-- … what it priced is not priced again by a contract that begins before its end
SELECT pg_temp.fails($$SELECT billing.subscribe('behind', 'usage', '2026-04-14')$$);
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
SELECT billing.invoice_void(number, 'wrong address') FROM invoices WHERE key = 'globex-1/1:gmbh';
CALL billing.bill_run();
SELECT key, state, total FROM invoices WHERE contract = 'globex-1' AND n = 1;

-- A contract that can't be billed is an issue of the run, and the others are billed
SELECT billing.customer_upsert('{"key":"broken"}') AS a, billing.customer_upsert('{"key":"fine"}') AS b \gset
SELECT billing.subscribe('broken', 'usage', '2026-07-01', '{"charges":[{"key":"q","product":"p","meter":"q","pricing":{"model":"stairstep","tiers":[{"up_to":"10","amount":"5"}]}}]}'), billing.subscribe('fine', 'usage', '2026-07-01');
SELECT billing.test_clock_set('2026-08-01T00:00:00Z') AS clock \gset
SELECT pg_temp.use('broken', 'o1', 11, '2026-07-10Z'), pg_temp.use('fine', 'f1', 11, '2026-07-10Z');
UPDATE billing.contract SET state = 'draft' WHERE key = 'globex-1';
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

-- Late usage is missed wherever nothing was invoiced: on a boundary with a fee alone, on one that closed, for another legal entity
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
SELECT billing.customer_upsert('{"key":"fee"}') AS a, billing.subscribe('fee', 'pro', '2026-01-01') AS b, billing.customer_upsert('{"key":"closed"}') AS c, billing.subscribe('closed', 'usage', '2026-01-01') AS d,
  billing.customer_upsert('{"key":"pair","bill_tos":[{"key":"a","name":"A"},{"key":"b","name":"B"}]}') AS e, billing.subscribe('pair', 'usage', '2026-01-01', '{"overrides":[{"meter":"q","pricing":{"model":"per_unit","unit_price":"1"}}]}') AS f, pg_temp.use('pair', 'p1', 30, '2026-01-10Z') AS g \gset
CALL billing.bill_run();
SELECT key, lines FROM invoices WHERE contract IN ('fee-1', 'closed-1', 'pair-1') AND n = 1;
CREATE TEMP VIEW unbilled AS SELECT k.key AS contract, u.* FROM billing.contract k, LATERAL (SELECT array_agg(p.n) AS boundaries FROM billing.billing_period p
    WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.n > 0 AND p.state <> 'due') p, billing_internal.unbilled_usage(k.customer_id, k.contract_id, p.boundaries) u
  WHERE k.key IN ('fee-1', 'closed-1', 'pair-1');
CREATE TEMP VIEW late AS SELECT check_name, failed, example FROM billing.verify() WHERE check_name ~ '^invoices: late usage';
SELECT * FROM late;
BEGIN;
SELECT pg_temp.use('fee', 'l1', 7, '2026-01-20Z'), pg_temp.use('closed', 'l2', 8, '2026-01-20Z'), pg_temp.use('pair', 'l3', 9, '2026-01-20Z', 'b'), pg_temp.use('closed', 'l4', 1, '2026-02-01Z') AS in_time;
SELECT * FROM unbilled ORDER BY contract;
SELECT * FROM late;
ROLLBACK;
-- … also when the late usage came between two bills of the boundary
BEGIN;
SELECT pg_temp.use('pair', 'p2', 50, '2026-01-11Z', 'b');
SELECT billing.invoice_void('pair-1/1', 'wrong address');
SELECT billing.invoice_generate('pair');
SELECT billing.invoice_finalize('pair-1/1.2') IS NOT NULL AS issued;
SELECT pg_temp.use('pair', 'p3', 5, '2026-01-12Z', 'a');
SELECT billing.invoice_void('pair-1/1:b', 'wrong address');
SELECT billing.invoice_generate('pair');
SELECT billing.invoice_finalize('pair-1/1.2:b') IS NOT NULL AS issued;
SELECT key, state, total FROM invoices WHERE contract = 'pair-1';
SELECT * FROM unbilled;
SELECT * FROM late;
ROLLBACK;

-- A void that is not to be issued again stands, also when another legal entity's is
SELECT pg_temp.use('pair', 'p4', 50, '2026-01-11Z', 'b') AS late, billing.invoice_void('pair-1/1', 'bill both') \gset
CALL billing.bill_run();
SELECT billing.invoice_void('pair-1/1.2', 'goodwill', false), billing.invoice_void('pair-1/1:b', 'wrong address', true);
SELECT jsonb_agg(d->>'bill_to') AS previewed FROM (SELECT billing.invoice_preview('pair') AS d) p;
CALL billing.bill_run();
SELECT key, state, total FROM invoices WHERE contract = 'pair-1';
SELECT * FROM late;

-- A preview does not repeat what stands billed: boundary 0 voided while boundary 1 stands, and both voided
SELECT pg_temp.use('fee', 'f1', 7, '2026-01-10Z') AS late, billing.invoice_void('fee-1/1', 'bill the late usage') \gset
CALL billing.bill_run();
SELECT billing.invoice_void('fee-1/0', 'x');
SELECT * FROM pg_temp.lines(billing.invoice_preview('fee'));
SELECT starts_at, dimensions->>'charge' AS charge, amount, state FROM billing.spend('fee', '2026-01-01Z', '2026-03-01Z', 'month', '{charge}');
BEGIN;
SELECT billing.invoice_void('fee-1/1.2', 'x');
SELECT * FROM pg_temp.lines(billing.invoice_preview('fee'));
ROLLBACK;
SELECT billing.invoice_generate('fee');
CALL billing.bill_run();
SELECT key, state, lines FROM invoices WHERE contract = 'fee-1';
SELECT * FROM late;

-- Keys of invoices are unique, whatever the keys of contracts and legal entities are
SELECT billing.customer_upsert('{"key":"multi","bill_tos":[{"key":"main","name":"M"},{"key":"x","name":"X"},{"key":"x.2","name":"X2"},{"key":"1/1:%","name":"S"}]}') AS a, billing.subscribe('multi', 'usage', '2026-01-01') AS b,
  billing.customer_upsert('{"key":"c"}') AS c, billing.contract_create('{"key":"multi-1/1","customer":"c","plan":"usage","starts_on":"2026-01-01"}') AS d, billing.contract_activate('multi-1/1') AS e \gset
SELECT pg_temp.use('multi', 'm' || b, 10, '2026-01-10Z', b) FROM unnest('{main,x,x.2,1/1:%}'::text[]) b;
SELECT pg_temp.use('c', 'c1', 10, '2026-01-10Z');
CALL billing.bill_run();
SELECT billing.invoice_void('multi-1/1:x', 'wrong address');
CALL billing.bill_run();
SELECT bill_to, key, state, total FROM invoices WHERE key LIKE 'multi-1/%';
-- … two sellers may give one number, which then names none of the two
SELECT billing.seller_upsert('{"key":"ie","invoice_series":"UK","fiscal_year_start":4,"currency":"GBP"}') AS a, billing.customer_upsert('{"key":"irish","seller":"ie"}') AS b,
  billing.contract_create('{"key":"irish","customer":"irish","starts_on":"2026-01-01","currency":"GBP","fees":[{"key":"f","product":"p","pricing":{"model":"flat","amount":"2"}}]}') AS c, billing.contract_activate('irish') AS d \gset
SELECT billing.test_clock_set('2027-03-31T22:00:00Z') AS clock \gset
CALL billing.bill_run('2026-01-01Z');
SELECT key, number, total FROM invoices WHERE number LIKE 'UK%000001' ORDER BY key;
SELECT pg_temp.fails($$SELECT billing.invoice_recompute('UK-2026-000001')$$);
SELECT line_key, billed FROM billing.invoice_recompute('irish/0');

-- Grace: a run in small steps drafts each contract once; a day has 24 hours wherever the session is
SELECT billing.customer_upsert(jsonb_build_object('key', 'g' || i)) AS a, billing.subscribe('g' || i, 'pro', '2026-01-01') AS b FROM generate_series(1, 3) i;
SELECT billing.policy_set('invoice_grace', '366 days', 'contract:g' || i || '-1') FROM generate_series(1, 3) i;
SELECT billing.bill_run_start('2026-01-01Z') AS run \gset
SELECT billing.bill_run_step(:'run', 1) > 0 AS a, billing.bill_run_step(:'run', 2) > 0 AS b, billing.bill_run_step(:'run', 2) AS c;
SELECT done, result->>'drafts' AS drafts FROM billing.job_run WHERE job_run_id = :'run';
SELECT billing.bill_run_step(:'run', 2) AS left;
SELECT key, state FROM invoices WHERE contract LIKE 'g_-1';
UPDATE billing.contract SET state = 'draft' WHERE key LIKE 'g_-1';
SET timezone = 'America/New_York';
SELECT billing_internal.grace_over('2026-03-01Z', '10 days', '2026-03-10T23:59:59Z') AS before, billing_internal.grace_over('2026-03-01Z', '10 days', '2026-03-11Z') AS after;
RESET timezone;
SELECT billing.test_clock_set('2027-03-31T23:00:00Z') AS clock \gset

-- Errors
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  $$SELECT billing.invoice_preview('nobody')$$, $$SELECT billing.invoice_preview('behind-1')$$, $$SELECT billing.invoice_generate('nobody')$$, $$SELECT billing.invoice_generate('behind-1')$$,
  $$SELECT billing.invoice_finalize('INV-2026-999999')$$, $$SELECT billing.invoice_finalize('INV-2026-000001')$$, $$SELECT billing.invoice_finalize(NULL)$$, $$SELECT billing.invoice_void('INV-2026-000002', 'again')$$, $$SELECT billing.invoice_void('INV-2026-000001', ' ')$$, $$SELECT billing.invoice_void('INV-2026-000001', 'x', NULL)$$, $$SELECT billing.invoice_void('nothing', 'x')$$,
  $$SELECT billing.invoice_recompute('nothing')$$, $$SELECT billing.invoice_explain('nothing')$$, $$SELECT billing.invoice_explain(NULL::jsonb)$$, $$SELECT billing.invoice_explain('{}'::jsonb)$$, $$SELECT billing.invoice_explain('[5]'::jsonb)$$, $$SELECT billing.invoice_explain('"x"'::jsonb)$$,
  $$SELECT billing.invoice_line_events('INV-2026-000001', 'nothing')$$, $$SELECT billing.invoice_line_events('INV-2026-000001', NULL)$$, $$SELECT billing.bill_run_start('infinity')$$, $$SELECT billing.bill_run_step('00000000-0000-7000-8000-000000000000')$$, $$SELECT billing.bill_run_step(NULL)$$, $$SELECT billing.verify('all')$$, $$SELECT billing.verify(NULL)$$]) c;
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

-- … recent looks at what happened since, and at nothing else
SELECT check_name, checked FROM billing.verify('recent', clock_timestamp() + interval '1 day') WHERE check_name !~ '^(security|usage)';
SELECT count(*) AS checks, count(*) FILTER (WHERE r.checked <> f.checked) AS differing FROM billing.verify('full') f JOIN billing.verify('recent', clock_timestamp() - interval '1 day') r USING (check_name) WHERE check_name !~ '^usage';

-- A quantity of more digits than can be billed stops its own contract, by name
SELECT count(*) FROM billing.catalog_apply('{"meters":[{"key":"mean","event_type":"huge","aggregation":"average","value":"v"},{"key":"huge","event_type":"huge","aggregation":"sum","value":"v"}],
  "plans":[{"key":"mean","name":"Mean","currency":"USD","charges":[{"key":"mean","product":"p","meter":"mean","pricing":{"model":"per_unit","unit_price":"1"}}]},
    {"key":"huge","name":"Huge","currency":"USD","charges":[{"key":"huge","product":"p","meter":"huge","pricing":{"model":"per_unit","unit_price":"1"}}]}]}');
SELECT billing.customer_upsert('{"key":"mean"}'), billing.customer_upsert('{"key":"huge"}'), billing.customer_upsert('{"key":"small"}'),
  billing.subscribe('mean', 'mean', '2027-03-01'), billing.subscribe('huge', 'huge', '2027-03-01'), billing.subscribe('small', 'huge', '2027-03-01') \gset
SELECT accepted FROM billing.ingest('[{"customer":"mean","event_id":"1","event_type":"huge","occurred_at":"2027-03-05T00:00:00Z","properties":{"v":12345678901234567890.5}},
  {"customer":"mean","event_id":"2","event_type":"huge","occurred_at":"2027-03-05T00:00:00Z","properties":{"v":1}},{"customer":"mean","event_id":"3","event_type":"huge","occurred_at":"2027-03-05T00:00:00Z","properties":{"v":0}},
  {"customer":"huge","event_id":"1","event_type":"huge","occurred_at":"2027-03-05T00:00:00Z","properties":{"v":9999999999999999999999999999}},
  {"customer":"huge","event_id":"2","event_type":"huge","occurred_at":"2027-03-05T00:00:00Z","properties":{"v":0.000000000001}},
  {"customer":"small","event_id":"1","event_type":"huge","occurred_at":"2027-03-05T00:00:00Z","properties":{"v":5}}]');
SELECT billing.test_clock_set('2027-04-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT j.key, j.sqlstate, j.message, j.hint FROM billing.job_issue j WHERE j.key IN ('mean-1', 'huge-1', 'small-1') ORDER BY j.key;
SELECT i.key, i.total FROM billing.invoice i WHERE i.key LIKE 'mean-%' OR i.key LIKE 'huge-%' OR i.key LIKE 'small-%';
SELECT billing.event_void('huge', '2', 'a test');
CALL billing.bill_run();
SELECT i.key, i.total FROM billing.invoice i WHERE i.key LIKE 'huge-%';

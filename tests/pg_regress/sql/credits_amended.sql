-- Credits: an amendment changes the order in which credit is drawn and what happens at its end (credit_order, credit_mode). Usage goes
-- by what is in force when it happens; what is billed is compared; old invoices compute again by the version they were billed with.
\set ECHO none
\i tests/pg_regress/helpers.sql
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
\i tests/pg_regress/credit_deals.sql
\set ECHO all
CREATE FUNCTION pg_temp.deal(c text, doc jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
  SELECT billing.customer_upsert(jsonb_build_object('key', c)); SELECT billing.contract_create(jsonb_build_object('key', c || '-1', 'customer', c, 'plan', 'one', 'starts_on', '2026-01-01') || doc); SELECT billing.contract_activate(c || '-1') $$;
CREATE TEMP VIEW lines AS SELECT i.key AS invoice, l.key, l.quantity, l.amount FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) WHERE i.number IS NOT NULL ORDER BY i.key, l.line_n;
CREATE TEMP VIEW dues AS SELECT i.key AS invoice, i.kind, i.total, i.credits_applied, i.total - i.credits_applied AS due FROM billing.invoice i WHERE i.number IS NOT NULL ORDER BY i.key, i.number;
CREATE TEMP VIEW blocks AS SELECT g.key, trim_scale(b.posted) AS posted FROM billing.credit_block_balance b JOIN billing.credit_grant g USING (customer_id, grant_id) ORDER BY 1;

-- What an amendment can't say.
SELECT pg_temp.deal('mode');
SELECT pg_temp.fails($$SELECT billing.contract_amend('mode-1', '{"credit_mode": "debt"}')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_amend('mode-1', '{"credit_order": ["size"]}')$$);

-- A deal amended in mid-term: what credit does not cover is billed; from 15 February on credit alone pays; from 15 March on it is billed again.
SELECT billing.credit_grant_create('mode', '{"key":"pack","amount":"150"}');
SELECT billing.test_clock_set('2026-02-15T09:00:00Z') AS clock \gset
SELECT pg_temp.used('mode', 'jan', '2026-01-10Z', 100);
CALL billing.bill_run();
SELECT billing.contract_amend('mode-1', '{"credit_mode": "credit_only"}', reason => 'prepaid only') AS version, billing.contract_amend('mode-1', '{"credit_mode": "credit_then_invoice"}', '2026-03-15') AS later;
SELECT pg_temp.used('mode', id, at::timestamptz, n) FROM (VALUES ('feb1', '2026-02-10Z', 70), ('feb2', '2026-02-14T23:59:59Z', 30), ('feb3', '2026-02-15Z', 40)) e (id, at, n);
SELECT pg_temp.lines(billing.invoice_preview('mode-1'));
SELECT billing.test_clock_set('2026-03-20T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT pg_temp.used('mode', id, at::timestamptz, n) FROM (VALUES ('mar1', '2026-03-14Z', 11), ('mar2', '2026-03-15Z', 22)) e (id, at, n);
SELECT billing.test_clock_set('2026-04-10T00:00:00Z') AS clock \gset
SELECT pg_temp.used('mode', 'apr', '2026-04-05Z', 5);
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM lines;
-- January: 100 of credit. February: 50 of credit and 50 that are billed (20 of the 10th, 30 of the 14th), 40 nobody pays. March: 11 nobody pays, 22 are billed.
SELECT d.*, w.due AS want, d.due = w.due AS ok FROM dues d JOIN (VALUES ('mode-1/1', 0.00), ('mode-1/2', 50.00), ('mode-1/3', 22.00), ('mode-1/4', 5.00)) w (invoice, due) USING (invoice);
SELECT i.key, (i.document->'inputs'->'credits') - 'blocks' AS recorded FROM billing.invoice i WHERE i.number IS NOT NULL ORDER BY 1;
SELECT x FROM billing.invoice_explain((SELECT number FROM billing.invoice WHERE key = 'mode-1/2')) x;
SELECT * FROM pg_temp.well();

-- How it is told.
SELECT kind, item, from_at::date, until_at::date, terms FROM billing.contract_item WHERE contract = 'mode-1' AND kind <> 'usage';
SELECT version, kind, effective_at::date, change, reason FROM billing.contract_change WHERE contract = 'mode-1' ORDER BY version;
SELECT kind, item, change, before, after FROM billing.contract_diff('mode-1', 1, 2) UNION ALL SELECT kind, item, change, before, after FROM billing.contract_diff('mode-1', 2);
SELECT at::date, billing.contract_as_of('mode-1', at)->>'credit_mode' AS mode FROM unnest('{2026-02-14Z, 2026-02-15Z, 2026-03-15Z}'::timestamptz[]) at;
SELECT billing.contract_summary('mode-1')->>'credit_mode' AS mode, billing.contract_document('mode-1')->>'credit_mode' AS document;
SELECT t FROM billing.contract_describe(billing.contract_document('mode-1') || '{"credit_order": ["expires_at", "category"]}') t;
SELECT billing.contract_create(billing.contract_document('mode-1') || '{"key": "mode-2", "starts_on": "2027-01-01"}') AS again;
SELECT billing.contract_summary('mode-2')->>'credit_mode' AS mode, billing.contract_document('mode-2') - '{key,starts_on}'::text[] = billing.contract_document('mode-1') - '{key,starts_on}'::text[] AS same;

-- Amended back to a day that is billed: credit alone pays from 1 February on. The next bill takes back what February and March asked for.
SELECT billing.contract_amend('mode-1', '{"credit_mode": "credit_only"}', '2026-02-01', 'it was agreed so') AS version;
SELECT kind, item, from_at::date, until_at::date, terms FROM billing.contract_item WHERE contract = 'mode-1' AND kind = 'credit_mode' ORDER BY from_at;
SELECT billing.test_clock_set('2026-06-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM lines WHERE invoice > 'mode-1/4';
-- February asked for 50.00; since 15 March it is billed as before.
SELECT invoice, kind, total, credits_applied, due FROM dues WHERE invoice > 'mode-1/4';
SELECT sum(due) AS got, 0.00 + 22.00 + 5.00 AS want, sum(due) = 27.00 AS ok FROM dues;
SELECT * FROM blocks;
SELECT * FROM pg_temp.well();
-- From a day on that no usage was billed for: the boundaries before it are not looked at again.

SELECT billing.contract_amend('mode-1', '{"credit_mode": "allow_negative"}', '2026-06-01');
SELECT n FROM billing.late_usage WHERE closed_at IS NULL;

-- The order: by end, from 15 January on by priority, and back on 1 February. draw_down() goes by it, too.
SELECT pg_temp.deal('order', '{"credit_order": ["expires_at"]}');
SELECT billing.credit_grant_create('order', '{"key":"soon","amount":"100","effective_on":"2026-01-01","expires":"2027-01-01"}'), billing.credit_grant_create('order', '{"key":"first","amount":"100","effective_on":"2026-01-01","priority":1}');
SELECT billing.contract_amend('order-1', '{"credit_order": ["priority", {"category": ["paid", "pilot", "promotional"]}]}', '2026-01-15') AS version, billing.contract_amend('order-1', '{"credit_order": ["expires_at"]}', '2026-02-01') AS back;
SELECT pg_temp.used('order', id, at::timestamptz, n) FROM (VALUES ('o1', '2026-01-10Z', 10), ('o2', '2026-01-20Z', 20), ('o3', '2026-02-10Z', 30)) e (id, at, n);
SELECT drawn FROM unnest('{2026-01-14Z, 2026-01-15Z, 2026-02-01Z}'::timestamptz[]) at, billing.draw_down('order', 1, 'at ' || at, doc => jsonb_build_object('occurred_at', at));
CALL billing.bill_run();
SELECT i.key AS invoice, g.key AS block, trim_scale(a.quantity) AS quantity, trim_scale(a.amount) AS amount FROM billing.credit_allocation a JOIN billing.invoice i USING (customer_id, invoice_id) JOIN billing.credit_grant g ON g.customer_id = a.customer_id AND g.grant_id = a.grant_id
  WHERE i.key LIKE 'order%' ORDER BY 1, a.place;
-- soon: 100 − 10 − 30 − 2, first: 100 − 20 − 1.
SELECT b.*, w.posted AS want, b.posted = w.posted AS ok FROM blocks b JOIN (VALUES ('soon', 58), ('first', 79)) w (key, posted) USING (key);
SELECT kind, item, change, before, after FROM billing.contract_diff('order-1', 1);
SELECT billing.contract_summary('order-1')->'credit_order' AS summary;
-- Backdated: all of January by priority. The 10 move, and nothing else.
SELECT billing.contract_amend('order-1', '{"credit_order": ["priority"]}', '2026-01-01') AS version;
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT b.*, w.posted AS want, b.posted = w.posted AS ok FROM blocks b JOIN (VALUES ('soon', 68), ('first', 69)) w (key, posted) USING (key);
SELECT * FROM dues WHERE invoice LIKE 'order%';
SELECT * FROM pg_temp.well();

-- Inside a day, where proration goes by the second; without any credit; and a tiered price, whose tiers run on.
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT pg_temp.deal('second', '{"charges":[{"key":"tokens","product":"ai-api","meter":"tokens","pricing":{"model":"graduated","tiers":[{"up_to":"60","unit_price":"1"},{"unit_price":"0.5"}]}}]}');
SELECT billing.policy_set('proration_basis', 'second', 'contract:second-1', 'test');
SELECT billing.contract_amend('second-1', '{"credit_mode": "credit_only"}', '2026-01-10T10:30:00Z') AS version;
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
SELECT pg_temp.used('second', id, at::timestamptz, n) FROM (VALUES ('s1', '2026-01-10T10:29:59Z', 80), ('s2', '2026-01-10T10:30:00Z', 7), ('s3', '2026-01-20Z', 13)) e (id, at, n);
CALL billing.bill_run();
SELECT * FROM lines WHERE invoice LIKE 'second%';
SELECT d.*, 60 + 20 * 0.50 AS want, d.due = 70 AS ok FROM dues d WHERE invoice LIKE 'second%';
-- More was used before 10:30 after all.
SELECT pg_temp.used('second', 'late', '2026-01-05Z', 4);
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT invoice, kind, total, due, due = 2.00 AS ok FROM dues WHERE invoice = 'second-1/2';
SELECT * FROM pg_temp.well();

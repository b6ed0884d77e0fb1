-- Credits: what is sold by itself stands on an invoice of its own: by whose terms, voided, refunded by a credit note, computed again, in time travel.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-02-01T03:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai"}],"plans":[{"key":"flat","currency":"USD","billing":{"net_days":45},"fees":[{"key":"platform","product":"ai","pricing":{"model":"flat","amount":"700"}}]}]}');
CREATE TEMP VIEW docs AS SELECT i.key, i.kind, i.number, i.state, b.key AS bill_to, i.currency, i.issued_on, i.due_on, i.total FROM billing.invoice i JOIN billing.bill_to b USING (customer_id, bill_to_id) ORDER BY i.created_at;

-- Without a contract: the customer's zone (where it is still January), its first legal entity, 30 days.
SELECT billing.customer_upsert('{"key":"solo","currency":"USD","time_zone":"America/New_York","bill_tos":[{"key":"solo-eu","name":"Solo EU"},{"key":"solo-us","name":"Solo US"}]}');
SELECT billing.credit_purchase('solo', '{"key":"pack/1","amount":"100000","bonus":"20000","price":"100000","unit":"credits","expires":"2027-02-01"}');
SELECT * FROM docs;
SELECT jsonb_pretty(i.document) FROM billing.invoice i WHERE kind = 'credit_sale';
SELECT * FROM billing.invoice_explain('solo/credit:pack%2F1');
SELECT line_key, billed, recomputed, same_bytes FROM billing.invoice_recompute('INV-2026-000001');
SELECT key, kind, charge_key, label, quantity, unit, amount, service_from, service_until FROM billing.invoice_line ORDER BY line_n;
SELECT customer, contract, invoice, kind, unit, amount, service_day FROM billing.fact_invoice_line ORDER BY line_n;
SELECT * FROM billing.spend('solo', '2026-01-01', '2027-01-01');
-- An extension changes no invoice.
SELECT billing.credit_extend('pack/1', NULL, 'they asked'), (SELECT same_bytes FROM billing.invoice_recompute('INV-2026-000001') LIMIT 1);

-- By the terms of the contract that it is sold for, or the only live one: 45 days. Sold elsewhere, or for nothing.
SELECT billing.customer_upsert('{"key":"acme","currency":"USD","time_zone":"Pacific/Auckland"}'), billing.subscribe('acme', 'flat', '2026-02-01') AS contract;
CALL billing.bill_run();
SELECT billing.credit_purchase('acme', '{"key":"own","amount":"10","price":"10"}'), billing.credit_purchase('acme', '{"key":"named","amount":"10","price":"8","contract":"acme-1"}'),
  billing.credit_purchase('acme', '{"key":"elsewhere","amount":"10","price":"10","invoice":false}'), billing.credit_purchase('acme', '{"key":"free","amount":"10","price":"0"}');
SELECT * FROM docs WHERE key LIKE 'acme/%';
SELECT document->>'contract' AS contract FROM billing.invoice WHERE key = 'acme/credit:named';
SELECT pg_temp.fails($$SELECT billing.credit_purchase('acme', '{"amount":"10","price":"10","invoice":"no"}')$$);

-- A void takes the credit with it, as long as none of it was used; else its credit note is a refund at cost.
SELECT pg_temp.fails($$SELECT billing.credit_void('own', 'a mistake')$$);
SELECT pg_temp.fails($$SELECT billing.invoice_void('acme/credit:own', '')$$);
SELECT billing.invoice_void('acme/credit:own', 'a mistake');
SELECT pg_temp.fails($$SELECT billing.invoice_void('acme/credit:own', 'a mistake')$$);
SELECT pg_temp.fails($$SELECT billing.invoice_correct('acme/credit:named')$$);
SELECT key, posted, standing FROM billing.credit_blocks('acme');
SELECT result FROM billing.draw_down('solo', 1, 'one', 'credits');
SELECT pg_temp.fails($$SELECT billing.invoice_void('INV-2026-000001', 'a mistake')$$);
SELECT billing.credit_refund('pack/1', 60000, 'half of it'), billing.credit_refund('pack/1', reason => 'the rest');
SELECT key, kind, number, state, issued_on, due_on, total FROM docs WHERE kind = 'credit_note';
SELECT * FROM billing.invoice_explain('solo/refund-1:pack%2F1');
SELECT number, invoice, credited FROM billing.credit_note ORDER BY number;
SELECT pg_temp.fails($$SELECT billing.invoice_void('CN-2026-000001', 'a mistake')$$);
SELECT pg_temp.fails($$SELECT billing.invoice_void('INV-2026-000001', 'a mistake')$$);

-- Each top-up makes one, of its call's day; the job does what calls do.
SELECT billing.top_up_rule_set('solo', '{"unit":"credits","threshold":"50","amount":"100","price":"0.85"}');
SELECT billing.credit_refund('pack/1-bonus', reason => 'all');
CALL billing.top_up();
SELECT result, available FROM billing.draw_down('solo', 80, 'two', 'credits');
SELECT key, number, total FROM docs WHERE key LIKE '%top-up%';
BEGIN;
SELECT count(*) > 0 AS travelled FROM billing.time_travel('2026-02-02T00:00:00Z');
SELECT result FROM billing.draw_down('solo', 100, 'three', 'credits');
SELECT key, number LIKE 'PREVIEW-%' AS preview FROM docs WHERE key LIKE '%top-up%';
SELECT * FROM pg_temp.well();
ROLLBACK;
SELECT billing.top_up_rule_set('solo', '{"unit":"credits","threshold":"50","amount":"100","price":"0.85","invoice":false}');
SELECT result, available FROM billing.draw_down('solo', 100, 'four', 'credits');
SELECT count(*) AS top_ups, (SELECT count(*) FROM docs WHERE key LIKE '%top-up%') AS invoices FROM billing.top_up;
SELECT number FROM billing.invoice_number ORDER BY series, counter;
SELECT * FROM pg_temp.well();

-- Up to a target, cut short by the month's cap: the rest is bought when the next month begins, once.
SELECT billing.customer_upsert('{"key":"capped","currency":"USD"}') AS a \gset
SELECT billing.top_up_rule_set('capped', '{"unit":"credits","threshold":"100","target":"500","price":"0.5","monthly_cap":"520"}');
SELECT billing.credit_grant_create('capped', '{"key":"gift","unit":"credits","amount":"450"}');
SELECT available FROM billing.draw_down('capped', 900, 'all', 'credits');
CREATE TEMP VIEW capped AS SELECT t.crossing, t.amount, t.paid FROM billing.top_up t JOIN billing.customer c USING (customer_id) WHERE c.key = 'capped' ORDER BY 1;
CALL billing.top_up();
SELECT * FROM capped;
SELECT billing.test_clock_set('2026-03-01T03:00:00Z') AS clock \gset
CALL billing.top_up();
CALL billing.top_up();
SELECT * FROM capped;
SELECT available FROM billing.credit_balance('capped', 'credits');
SELECT * FROM pg_temp.well();

-- Sold for a contract whose payer was amended: the invoice is for the payer of now, a refund's credit note for whom the invoice was.
SELECT billing.customer_upsert('{"key":"moved","bill_tos":[{"key":"old","name":"Old Ltd"},{"key":"new","name":"New Ltd"}]}') AS a \gset
SELECT billing.contract_create('{"key":"moved-1","customer":"moved","currency":"USD","starts_on":"2026-03-01","term":"12 months","fees":[{"key":"seat","product":"ai","pricing":{"model":"flat","amount":"1"}}]}'), billing.contract_activate('moved-1') \g /dev/null
SELECT billing.credit_purchase('moved', '{"key":"one","amount":"10","price":"10","contract":"moved-1"}');
SELECT billing.contract_amend('moved-1', '{"bill_to":"new"}');
SELECT billing.credit_purchase('moved', '{"key":"two","amount":"10","price":"10","contract":"moved-1"}');
SELECT billing.credit_refund('one', reason => 'a test') AS refund, billing.credit_refund('two', reason => 'a test');
SELECT i.key, i.kind, b.key AS bill_to, i.total FROM billing.invoice i JOIN billing.bill_to b USING (customer_id, bill_to_id) JOIN billing.customer c USING (customer_id) WHERE c.key = 'moved' ORDER BY i.created_at, i.key;
SELECT * FROM pg_temp.well();

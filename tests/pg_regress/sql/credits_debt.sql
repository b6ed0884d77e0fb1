-- Credits: what is drawn beyond a block (credit_mode allow_negative) is a debt, which the next credit pays off first; and what comes back later.
\set ECHO none
\i tests/pg_regress/helpers.sql
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
\i tests/pg_regress/credit_deals.sql
SELECT count(*) AS images FROM billing.catalog_apply('{"meters":[{"key":"images","event_type":"image","aggregation":"count"}]}') \gset
\set ECHO all
CREATE TEMP VIEW blocks AS SELECT c.key AS customer, g.key, trim_scale(b.posted) AS posted FROM billing.credit_block_balance b JOIN billing.credit_grant g USING (customer_id, grant_id) JOIN billing.customer c USING (customer_id) ORDER BY 1, g.grant_id;
CREATE TEMP VIEW draws AS SELECT k.key AS contract, i.number, a.n, g.key AS block, a.line_key, trim_scale(a.quantity) AS quantity, trim_scale(a.amount) AS amount, f.key AS absorbed_from
  FROM billing.credit_allocation a JOIN billing.invoice i USING (customer_id, invoice_id) JOIN billing.contract k ON k.customer_id = i.customer_id AND k.contract_id = i.contract_id
  JOIN billing.credit_grant g ON g.customer_id = a.customer_id AND g.grant_id = a.grant_id LEFT JOIN billing.credit_grant f ON f.customer_id = a.customer_id AND f.grant_id = a.absorbed_from ORDER BY k.key, a.recorded_at, a.place;

-- A block of 4 that may be overdrawn gives 14: 10 are owed.
SELECT billing.customer_upsert(jsonb_build_object('key', c)), billing.contract_create(jsonb_build_object('key', c || '-1', 'customer', c, 'plan', 'one', 'starts_on', '2026-01-01', 'credit_mode', 'allow_negative')),
  billing.contract_activate(c || '-1'), billing.credit_grant_create(c, '{"key":"A","amount":"4","overdraft":"unlimited","expires":"2026-03-01"}') FROM unnest('{debt,late,topped}'::text[]) c;
SELECT billing.test_clock_set('2026-01-20T00:00:00Z') AS clock \gset
SELECT pg_temp.used(c, '1', '2026-01-10Z', 14) FROM unnest('{debt,late,topped}'::text[]) c;
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT number, total, credits_applied, total - credits_applied AS due FROM billing.invoice ORDER BY number;
SELECT * FROM blocks;
SELECT available, available = -10 AS ok FROM billing.credit_balance('debt');

-- The next grant pays it off first: the part of the draw that went into debt moves with its line.
SELECT billing.credit_grant_create('debt', '{"key":"small","amount":"3"}'), billing.credit_purchase('debt', '{"key":"B","amount":"100","price":"80","invoice":false}');
SELECT * FROM blocks WHERE customer = 'debt';
SELECT block, line_key, quantity, amount, absorbed_from FROM draws WHERE contract = 'debt-1';
SELECT posted, available, available = 93 AS ok FROM billing.credit_balance('debt');
SELECT kind, block, amount, balance, block_balance, source FROM billing.credit_statement('debt');
SELECT key, granted, burnt, posted FROM billing.credit_blocks('debt');
SELECT * FROM pg_temp.well();
-- 12 less were used: what paid the debt last gets its part back first, then who owed.
SELECT billing.event_void('debt', '1', 'a retry') AS void, pg_temp.used('debt', '2', '2026-01-11Z', 2) AS other \gset
SELECT billing.test_clock_set('2026-02-10T00:00:00Z') AS clock \gset
SELECT line_key, difference, action FROM billing.invoice_correct((SELECT number FROM billing.invoice WHERE key = 'debt-1/1'), 'credit_note', 'a retry', dry_run => false);
SELECT * FROM blocks WHERE customer = 'debt';
SELECT block, amount, absorbed_from FROM draws WHERE contract = 'debt-1';
SELECT * FROM pg_temp.well();

-- A void gives each block what stands drawn from it; issued again it is owed again, and paid by what there is.
SELECT billing.credit_grant_create('late', '{"key":"B","amount":"100"}');
SELECT billing.invoice_void(number, 'wrong address') FROM billing.invoice WHERE key = 'late-1/1';
SELECT * FROM blocks WHERE customer = 'late';
CALL billing.bill_run();
SELECT * FROM blocks WHERE customer = 'late';
SELECT block, amount, absorbed_from FROM draws WHERE contract = 'late-1';
SELECT * FROM pg_temp.well();

-- A top-up pays it off, and buys what is missing to its target then. What begins later pays when it begins; a block for other usage never.
SELECT billing.credit_grant_create('topped', '{"key":"images","amount":"50","scope":{"meters":["images"]}}'), billing.credit_grant_create('topped', '{"key":"march","amount":"5","effective_on":"2026-03-01","expires":"2026-04-01"}');
SELECT * FROM blocks WHERE customer = 'topped';
BEGIN;
SELECT billing.top_up_rule_set('topped', '{"threshold":"60","target":"70","invoice":false}');
SELECT amount, paid FROM billing.top_up;
SELECT * FROM blocks WHERE customer = 'topped';
ROLLBACK;
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT job, state FROM billing.tick() WHERE job = 'credit_expiry';
SELECT * FROM blocks WHERE customer = 'topped';
SELECT key, posted, standing FROM billing.credit_blocks('topped');
SELECT * FROM pg_temp.well();

-- A contract's own grace holds for its blocks alone; usage of the block's time that comes late is paid by it.
SELECT billing.customer_upsert('{"key":"patient"}') AS a \gset
SELECT billing.contract_create('{"key":"patient-1","customer":"patient","plan":"one","starts_on":"2026-03-01","term":"3 months","credits":[{"key":"pool","category":"promotional","amount":"100","expires":"2026-03-20"}]}') AS a \gset
SELECT billing.policy_set('credit_expiry_grace', '30 days', 'contract:patient-1'), billing.contract_activate('patient-1'), billing.credit_grant_create('patient', '{"key":"gift","amount":"5","expires":"2026-03-20"}') \g /dev/null
SELECT billing.test_clock_set('2026-04-02T00:00:00Z') AS clock \gset
CALL billing.bill_run();
CALL billing.credit_expiry();
SELECT key, standing, posted FROM billing.credit_blocks('patient');
SELECT pg_temp.used('patient', '1', '2026-03-10Z', 4) AS late \gset
BEGIN;
SELECT job, state, at FROM billing.time_travel('2026-04-20T00:00:00Z') WHERE job = 'credit_expiry';
ROLLBACK;
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT amount FROM draws WHERE contract = 'patient-1';
CALL billing.credit_expiry();
SELECT key, standing, posted FROM billing.credit_blocks('patient');
SELECT * FROM pg_temp.well();

-- A boundary that was billed, voided, and is due again draws what it drew before, however long the block is past its end.
SELECT billing.customer_upsert('{"key":"again"}'), billing.subscribe('again', 'one', '2026-05-01'), billing.credit_grant_create('again', '{"key":"may","amount":"40","expires":"2026-05-25"}') \g /dev/null
SELECT billing.test_clock_set('2026-05-10T00:00:00Z') AS clock, pg_temp.used('again', '1', '2026-05-02Z', 60) AS used \gset
SELECT billing.test_clock_set('2026-07-02T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.invoice_void(number, 'a wrong address') FROM billing.invoice WHERE key = 'again-1/1';
CALL billing.credit_expiry();
SELECT key, standing, posted FROM billing.credit_blocks('again');
CALL billing.bill_run();
SELECT key, state, document->'totals'->>'credits' AS credits FROM billing.invoice WHERE key LIKE 'again-1/1%' ORDER BY key;
CALL billing.credit_expiry();
SELECT key, standing, posted FROM billing.credit_blocks('again');
SELECT * FROM pg_temp.well();

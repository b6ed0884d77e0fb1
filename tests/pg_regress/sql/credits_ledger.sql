-- Credits: blocks, the ledger, draws and what is refused. The worked numbers of rules.md 3 that are the ledger's.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01 00:00+00');
SELECT billing.customer_upsert('{"key":"acme","name":"Acme","currency":"USD","time_zone":"UTC"}');
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai"}],"meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"],"unit":"token"},{"key":"images","event_type":"image","aggregation":"count"}]}');

-- C: 400 of tokens on 10 May takes D 50, C 200, B 100, A 50; then 350 of images E 300, A 50.
SELECT billing.credit_purchase('acme', '{"key":"A","amount":"500","price":"500","expires":"2027-01-01"}');
SELECT billing.credit_grant_create('acme', '{"key":"B","amount":"100","expires":"2027-01-01"}');
SELECT billing.credit_grant_create('acme', '{"key":"C","amount":"200","expires":"2026-07-01"}');
SELECT billing.credit_purchase('acme', '{"key":"D","amount":"50","price":"50","priority":10,"scope":{"meters":["tokens"]}}');
SELECT billing.credit_purchase('acme', '{"key":"E","amount":"300","price":"300","expires":"2026-07-01","scope":{"meters":["images"]}}');
SELECT billing.test_clock_set('2026-05-10 12:00+00');
SELECT * FROM billing.credit_balance('acme');
SELECT result, drawn, available, drawn = '[{"grant":"D","amount":"50"},{"grant":"C","amount":"200"},{"grant":"B","amount":"100"},{"grant":"A","amount":"50"}]' AS ok
FROM billing.draw_down('acme', 400, 'first', doc => '{"meter":"tokens"}');
SELECT result, drawn, available, drawn = '[{"grant":"E","amount":"300"},{"grant":"A","amount":"50"}]' AS ok FROM billing.draw_down('acme', 350, 'second', doc => '{"meter":"images"}');
SELECT result, drawn, available FROM billing.draw_down('acme', 350, 'second', doc => '{"meter":"images"}');
SELECT pg_temp.fails($$SELECT billing.draw_down('acme', 351, 'second', doc => '{"meter":"images"}')$$);
SELECT pg_temp.fails($$SELECT billing.draw_down('acme', 400.01, 'third')$$);
SELECT result, drawn, available FROM billing.draw_down('acme', 400, 'third');
SELECT pg_temp.fails($$SELECT billing.draw_down('acme', 0.01, 'fourth')$$);
-- What was drawn is a duplicate also where nothing is left.
SELECT result, available FROM billing.draw_down('acme', 400, 'third');
SELECT * FROM billing.credit_statement('acme', from_at => '2026-05-01');
SELECT * FROM billing.credit_blocks('acme');
SELECT kind, account, count(*), sum(amount) FROM billing.credit_ledger_entry GROUP BY kind, account ORDER BY kind, account;
SELECT * FROM billing.verify('full') WHERE failed > 0;

-- What a scope names must be there: such credit would pay for nothing. Dimensions of an application's own draws are its own.
SELECT x.n, pg_temp.fails(format('SELECT billing.credit_%s(%L, %L)', x.call, 'acme', x.doc)) FROM (VALUES
  (1, 'grant_create', '{"amount":"1","scope":{"products":["ai","nope"]}}'), (2, 'purchase', '{"amount":"1","price":"1","scope":{"meters":["tokes"]}}'),
  (3, 'grant_create', '{"amount":"1","unit":"credits","scope":{"bill_tos":["gmbh"]}}'), (4, 'grant_create', '{"amount":"1","scope":{"meters":["tokens"],"dimensions":{"region":["eu"]}}}'),
  (5, 'grant_create', '{"amount":"1","unit":"token","scope":{"dimensions":{"region":["eu"]}}}')) x (n, call, doc) ORDER BY 1;
SELECT pg_temp.fails($$SELECT billing.top_up_rule_set('acme', '{"threshold":"1","amount":"5","scope":{"meters":["tokes"]}}')$$);
SELECT billing.credit_grant_create('acme', '{"key":"team","amount":"1","unit":"credits","scope":{"products":["ai"],"dimensions":{"team":["red"]}}}');
SELECT result, drawn FROM billing.draw_down('acme', 1, 'red', 'credits', '{"product":"ai","dimensions":{"team":"red"}}');

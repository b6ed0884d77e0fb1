-- Credits: voids, refunds, extensions, expiry with roll-over, reversal of invoices, top-ups, and what is refused.
\set ECHO none
\i tests/pg_regress/helpers.sql
CREATE TEMP VIEW moves AS SELECT g.key, e.kind, e.account, e.amount, e.money, e.occurred_at, e.reason FROM billing.credit_ledger_entry e JOIN billing.credit_grant g USING (customer_id, grant_id)
    WHERE e.kind <> 'granted' ORDER BY e.recorded_at, e.entry_id;
\set ECHO all
SELECT billing.test_clock_set('2026-01-01 00:00+00') AS clock \gset
SELECT billing.customer_upsert('{"key":"acme","currency":"USD","time_zone":"America/New_York"}') AS a \gset

-- B: 100,000 with a 20% discount: 125,000 credits at 0.80. 45,000 burnt, then 100,000; the rest refunded at cost.
SELECT billing.credit_purchase('acme', '{"key":"deal","amount":"125000","unit":"credits","price":"100000","effective_on":"2026-01-01","expires":"2027-01-01","invoice":false}');
SELECT pg_temp.fails($$SELECT billing.draw_down('acme', 10, 'early', 'credits')$$);
SELECT billing.test_clock_set('2026-02-01 05:00+00') AS clock \gset
SELECT result, available, available = 80000 AS ok FROM billing.draw_down('acme', 45000, 'b1', 'credits');
SELECT result, available, available = 25000 AS ok FROM billing.draw_down('acme', 55000, 'b2', 'credits');
SELECT key, basis, basis = 0.80 AS ok FROM billing.credit_blocks('acme');
SELECT pg_temp.fails($$SELECT billing.credit_refund('deal', 25000.01, 'leaving')$$);
SELECT pg_temp.fails($$SELECT billing.credit_refund('deal', 5000)$$);
SELECT pg_temp.fails($$SELECT billing.credit_void('deal', 'mistake')$$);
SELECT m AS money, billing.amount(m) = 4000.00 AS ok FROM billing.credit_refund('deal', 5000, 'partly leaving') m;
SELECT m AS money, billing.amount(m) = 16000.00 AS ok FROM billing.credit_refund('deal', reason => 'leaving') m;
SELECT billing.credit_extend('deal', '2027-02-01 05:00+00', 'they asked');
SELECT pg_temp.fails($$SELECT billing.credit_extend('deal', '2027-02-01 05:00+00', 'again')$$);
SELECT expires_at, posted, refunded FROM billing.credit_blocks('acme');

-- Roll-over with a cap of 20% of 100,000 and 30,000 unused: 20,000 move at the same basis (16,000 stay a liability), 10,000 expire (8,000).
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai"}]}');
SELECT billing.customer_upsert('{"key":"roll","currency":"USD","time_zone":"America/New_York"}') AS a \gset
SELECT billing.credit_purchase('roll', '{"key":"year","amount":"125000","unit":"credits","price":"100000","effective_on":"2026-01-01","expires":"2027-01-01","rollover":{"cap":"20000","for":"12 months"},"scope":{"products":["ai"]},"priority":7}');
SELECT result FROM billing.draw_down('roll', 95000, 'r1', 'credits', '{"product":"ai"}');
SELECT pg_temp.fails($$SELECT billing.draw_down('roll', 1, 'r2', 'credits', '{"product":"other"}')$$);
SELECT billing.test_clock_set('2027-01-01 04:59:59+00') AS clock, billing.policy_set('credit_expiry_grace', '3 days') AS p \gset
SELECT billing.credit_expiry_step() AS not_yet;
SELECT billing.test_clock_set('2027-01-04 04:59:59+00') AS clock \gset
SELECT billing.credit_expiry_step() AS in_grace;
SELECT unit, posted, available, pending_expiration FROM billing.credit_balance('roll');
-- … what was used before the end may still be drawn
SELECT pg_temp.fails($$SELECT billing.draw_down('roll', 1, 'r3', 'credits', '{"product":"ai"}')$$);
BEGIN;
SELECT result, drawn FROM billing.draw_down('roll', 1, 'r3', 'credits', '{"product":"ai","occurred_at":"2026-12-31T23:00:00Z"}');
ROLLBACK;
SELECT billing.test_clock_set('2027-01-04 05:00+00') AS clock \gset
CALL billing.credit_expiry();
SELECT key, posted, expired, rolled_out, standing, effective_at, expires_at, priority, scope, basis FROM billing.credit_blocks('roll');
SELECT pg_temp.fails($$SELECT billing.credit_refund('year', 1, 'late')$$);
SELECT billing_internal.credit_release(p.paid, p.credits, 95000, 10000, 2, 'half_up') AS breakage, billing_internal.credit_release(p.paid, p.credits, 95000, 10000, 2, 'half_up') = 8000 AS ok
FROM billing.credit_pool p WHERE p.key = 'year';
SELECT kind, block, amount, balance, block_balance FROM billing.credit_statement('roll');

-- A void gives each block its own; of an expired one it expires again at once.
SELECT billing.test_clock_set('2026-05-10 00:00+00') AS clock \gset
SELECT billing.customer_upsert('{"key":"vera","currency":"USD"}') AS a \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai"}],"plans":[{"key":"flat","currency":"USD","fees":[{"key":"platform","product":"ai","pricing":{"model":"flat","amount":"700"}}]}]}');
SELECT billing.subscribe('vera', 'flat', '2026-05-01') AS contract \gset
SELECT billing.credit_purchase('vera', '{"key":"VA","amount":"500","price":"500","invoice":false,"effective_on":"2026-01-01","expires":"2027-01-01"}'), billing.credit_grant_create('vera', '{"key":"VC","amount":"200","effective_on":"2026-01-01","expires":"2026-07-01"}');
SELECT billing.invoice_generate('vera-1');
CREATE FUNCTION pg_temp.post(of_line text, sign int, VARIADIC parts text[]) RETURNS void LANGUAGE sql AS $$
    SELECT billing_internal.credits_post(jsonb_agg(jsonb_build_object('customer_id', i.customer_id, 'invoice_id', i.invoice_id, 'contract_id', i.contract_id, 'n', i.n, 'bill_to', 'vera', 'line_key', of_line,
        'grant_id', g.grant_id, 'quantity', NULL, 'amount', (split_part(p, ' ', 2)::numeric * sign)::text) ORDER BY place))
    FROM unnest(parts) WITH ORDINALITY x (p, place) JOIN billing.credit_grant g ON g.key = split_part(p, ' ', 1) JOIN billing.invoice i ON i.customer_id = g.customer_id $$;
SELECT pg_temp.post('tokens', 1, 'VC 200', 'VA 50');
SELECT key, burnt, posted FROM billing.credit_blocks('vera');
SELECT pg_temp.fails($$SELECT pg_temp.post('images', 1, 'VA 450.01')$$);
SELECT pg_temp.fails($$SELECT pg_temp.post('images', 1, 'VC 0.01')$$);
-- one line gives back what another needs
SELECT pg_temp.post('tokens', -1, 'VC 100') FROM pg_temp.post('more', 1, 'VA 450') \gset
SELECT billing.test_clock_set('2026-07-01 00:00+00') AS clock, billing.policy_set('credit_expiry_grace', '0') AS p \gset
SELECT billing.credit_expiry_step();
SELECT pg_temp.post('tokens', -1, 'VC 100', 'VA 50');
SELECT key, burnt, expired, posted, standing FROM billing.credit_blocks('vera');
SELECT billing.credit_extend('VC', NULL, 'an apology');
SELECT pg_temp.post('tokens', 1, 'VA 10');
SELECT a.line_key, g.key, a.amount, a.place FROM billing.credit_allocation a JOIN billing.credit_grant g USING (customer_id, grant_id) ORDER BY a.recorded_at, a.allocation_id;

-- Top-ups: once a downward crossing, fixed packs or up to a target, at most so much a month.
SELECT billing.customer_upsert('{"key":"tops","currency":"USD","time_zone":"Pacific/Auckland"}') AS a \gset
SELECT billing.credit_grant_create('tops', '{"amount":"30","unit":"credits"}');
SELECT billing.top_up_rule_set('tops', '{"unit":"credits","threshold":"20","amount":"100","price":"0.015","monthly_cap":"250","lasts":"1 month","priority":60}');
CREATE TEMP VIEW tops AS SELECT t.crossing, g.key, t.amount, t.paid, t.currency, g.expires_at, g.priority FROM billing.top_up t JOIN billing.credit_grant g USING (customer_id, grant_id) ORDER BY t.crossing;
SELECT result, available FROM billing.draw_down('tops', 10, 't1', 'credits');
SELECT count(*) AS at_the_threshold FROM tops;
SELECT result, available FROM billing.draw_down('tops', 0.5, 't2', 'credits');
SELECT * FROM tops;
SELECT unit, available FROM billing.credit_balance('tops');
SELECT result FROM billing.draw_down('tops', 110, 't3', 'credits');
CALL billing.top_up();
SELECT * FROM tops;
-- The cap leaves 50, and a pack is bought whole or not: the third crossing waits for August.
SELECT result FROM billing.draw_down('tops', 100, 't4', 'credits');
CALL billing.top_up();
SELECT count(*) FROM tops;
SELECT crossings, below, waiting, month, bought FROM billing.top_up_rule WHERE ended_at IS NULL;
SELECT billing.test_clock_set('2026-07-31 11:59+00') AS clock \gset
CALL billing.top_up();
SELECT count(*) FROM tops;
SELECT billing.test_clock_set('2026-07-31 12:00+00') AS clock \gset
CALL billing.top_up();
SELECT * FROM tops;
-- Another rule: up to a target; the balance that is low already is a crossing. The month's cap goes on.
SELECT billing.top_up_rule_set('tops', '{"unit":"credits","threshold":"200","target":"300","price":"0.01"}');
SELECT unit, available FROM billing.credit_balance('tops');
SELECT billing.top_up_rule_set('tops', '{"unit":"credits","end":true}');
SELECT pg_temp.fails($$SELECT billing.top_up_rule_set('tops', '{"unit":"credits","end":true}')$$);
SELECT pg_temp.fails($$SELECT billing.top_up_rule_set('tops', '{"unit":"credits","threshold":"1","amount":"5"}')$$);
SELECT result, available FROM billing.draw_down('tops', 290, 't5', 'credits');
SELECT count(*) AS without_a_rule FROM billing.top_up;

-- What is refused.
SELECT f.* FROM unnest(ARRAY[
  $$SELECT billing.credit_grant_create('nobody', '{"amount":"1"}')$$, $$SELECT billing.credit_grant_create('acme', NULL)$$, $$SELECT billing.credit_grant_create('acme', '{"amount":"1.001"}')$$,
  $$SELECT billing.credit_grant_create('acme', '{"key":"deal","amount":"1"}')$$, $$SELECT billing.credit_grant_create('acme', '{"amount":"1","expires":"2020-01-01"}')$$,
  $$SELECT billing.credit_grant_create('acme', '{"amount":"1","rollover":{"cap":"1"}}')$$, $$SELECT billing.credit_grant_create('acme', '{"amount":"1","contract":"vera-1"}')$$,
  $$SELECT billing.credit_purchase('acme', '{"amount":"1","price":"0.001"}')$$, $$SELECT billing.credit_void('nothing', 'x')$$, $$SELECT billing.credit_extend('VC', NULL, 'x')$$,
  $$SELECT billing.draw_down('acme', 0, 'k')$$, $$SELECT billing.draw_down('acme', NULL, 'k')$$, $$SELECT billing.draw_down('acme', 'NaN', 'k')$$, $$SELECT billing.draw_down('acme', 1, '')$$,
  $$SELECT billing.draw_down('acme', 1, 'k', 'USD', '{"model":"x"}')$$, $$SELECT billing.draw_down('acme', 1.001, 'k')$$, $$SELECT billing.draw_down('acme', 1, 'k', 'credits', '{"occurred_at":"2030-01-01T00:00:00Z"}')$$,
  $$SELECT billing.draw_down('acme', 1, 'k', 'credits', '{"contract":"none"}')$$, $$SELECT billing.credit_balance('nobody')$$, $$SELECT billing.credit_expiry_step(0)$$]) s, LATERAL pg_temp.fails(s) f;
SELECT * FROM billing.credit_balance('acme', at => '2026-01-15 00:00+00');
SELECT * FROM moves WHERE key IN ('deal', 'VC') AND account = 'customer_balance';
-- … all is well but the invoice to which this file posted by hand
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0 OR check_name LIKE 'credits%';

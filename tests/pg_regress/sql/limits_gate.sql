-- Limits and rate limits as the gate asks them: by an application, and by a customer's login, which has no rights on tables.
\set ECHO none
\i tests/pg_regress/helpers.sql
DROP ROLE IF EXISTS golden_limits;
CREATE ROLE golden_limits LOGIN IN ROLE billing_customer;
\set ECHO all
SELECT billing.test_clock_set('2026-03-02 12:00+00') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{"products":[{"key":"api","name":"API"}],
  "meters":[{"key":"tokens","event_type":"request","aggregation":"sum","value":"tokens","unit":"token"}],
  "features":[{"key":"tokens","name":"Tokens","kind":"metered","meter":"tokens"},{"key":"calls","name":"Calls","kind":"rate_limit"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.01"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"api","meter":"tokens","price":"tokens"}],
    "entitlements":[{"feature":"tokens","value":null},{"feature":"calls","rate":{"limit":"10","per":"1 second","burst":"5"}}]}]}');
SELECT billing.customer_upsert('{"key":"acme","currency":"USD"}'), billing.subscribe('acme', 'pro', '2026-03-01') AS contract, billing.customer_login_add('acme', 'golden_limits') AS login \gset
SELECT billing.spend_limit_set('acme', '{"key":"money","amount":"1.00","period":"month"}');
SELECT billing.alert_rule_set('acme', '{"key":"money","kind":"spend","limit":"money","thresholds":["50%","100%"]}');
SET ROLE billing_app;
SELECT allowed, reason FROM billing.entitlement_check('acme', 'tokens', 100);
SELECT allowed, reason FROM billing.entitlement_check('acme', 'tokens', 101);
SELECT billing.entitled('acme', 'tokens', 100), billing.entitled('acme', 'tokens', 101);
SELECT result, allowed, reason FROM billing.consume('acme', 'tokens', 60, 'c1');
SELECT result, allowed, reason FROM billing.consume('acme', 'tokens', 41, 'c2');
SELECT result, allowed, reason FROM billing.consume('acme', 'tokens', 40, 'c3');
SELECT n, kind, subject, payload->>'threshold' AS threshold, payload->>'used' AS used FROM billing.events_after();
-- Five at once, as agreed; a look takes none.
SELECT allowed, reason, remaining FROM billing.entitlement_check('acme', 'calls', 5);
SELECT r.* FROM generate_series(1, 6) n, billing.rate_limit('acme', 'calls', CASE WHEN n > 0 THEN 1 END) r;
SELECT allowed, reason, remaining FROM billing.entitlement_check('acme', 'calls', 1);
SELECT * FROM billing.rate_limit('acme', 'calls', 6);
SELECT pg_temp.fails($$SELECT billing.rate_limit('acme', 'tokens')$$);
SELECT pg_temp.fails($$SELECT billing.rate_limit('acme', 'nothing')$$);
RESET ROLE;
SET SESSION AUTHORIZATION golden_limits;
SELECT allowed, reason, remaining FROM billing.entitlement_check('acme', 'calls', 1);
SELECT pg_temp.fails($$SELECT billing.rate_limit('acme', 'calls')$$);
RESET SESSION AUTHORIZATION;
DROP ROLE golden_limits;

-- Asking in parallel workers, of every kind of feature and with limits in money, as a row security policy on a large table would.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-03-02 12:00+00') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{"products":[{"key":"api","name":"API"}],
  "meters":[{"key":"tokens","event_type":"request","aggregation":"sum","value":"tokens","unit":"token"}, {"key":"free","event_type":"free","aggregation":"count"},
            {"key":"seats","event_type":"seat","aggregation":"unique_count","value":"seat","operation":"operation"}],
  "features":[{"key":"tokens","kind":"metered","meter":"tokens"},{"key":"free","kind":"metered","meter":"free"},{"key":"calls","kind":"rate_limit"},{"key":"sso","kind":"boolean"},{"key":"size","kind":"static"},
              {"key":"seats","kind":"seat","meter":"seats"},{"key":"ai","kind":"credit","unit":"USD","meter":"tokens"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.01"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"api","meter":"tokens","price":"tokens"}],
    "entitlements":[{"feature":"tokens","value":null},{"feature":"free","value":"5"},{"feature":"calls","rate":{"limit":"10","per":"1 second","burst":"5"}},{"feature":"sso"},{"feature":"size","value":"large"},{"feature":"seats","value":"3"},{"feature":"ai"}]}]}');
SELECT billing.customer_upsert('{"key":"acme","currency":"USD"}'), billing.subscribe('acme', 'pro', '2026-02-01'), billing.credit_grant_create('acme', '{"amount":"5"}');
SELECT billing.ingest_event('acme', 'request', 'r1', '2026-02-10Z', '{"tokens": 100}'), billing.ingest_event('acme', 'request', 'r2', billing.now(), '{"tokens": 100}');
CREATE TABLE asked AS SELECT f.key AS feature, n FROM billing.feature f CROSS JOIN generate_series(1, 3) n;
CREATE FUNCTION pg_temp.both() RETURNS TABLE (feature text, allowed boolean, reason text) LANGUAGE sql AS $$
    SELECT a.feature, billing.entitled('acme', a.feature, a.n), c.reason FROM asked a CROSS JOIN LATERAL billing.entitlement_check('acme', a.feature, a.n) c
$$;
SELECT DISTINCT * FROM pg_temp.both() ORDER BY feature;
SELECT billing.spend_limit_set('acme', '{"key":"money","amount":"1.02","period":"month"}');
SET force_parallel_mode = on;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS OFF) SELECT a.feature FROM asked a WHERE billing.entitled('acme', a.feature, a.n);
-- Nothing to pay February's and March's usage from, but credit; limits in money; usage that nothing prices.
SELECT a.feature, a.n, billing.entitled('acme', a.feature, a.n) AS entitled FROM asked a ORDER BY a.feature, a.n;
SELECT a.feature, a.n, c.allowed, c.reason FROM asked a CROSS JOIN LATERAL billing.entitlement_check('acme', a.feature, a.n) c ORDER BY a.feature, a.n;
DROP TABLE asked;

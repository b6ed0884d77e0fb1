\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
-- Features, what customers have of them from plan, add-ons, contract and exceptions, and when it holds.
SELECT billing.test_clock_set('2026-01-10T12:00:00Z') IS NOT NULL AS clock;
SELECT action, kind, key FROM billing.catalog_apply('{
  "products": [{"key": "ai-api"}],
  "meters": [{"key": "tokens", "event_type": "llm", "aggregation": "sum", "value": "tokens", "dimensions": ["model"], "unit": "token"},
             {"key": "projects", "event_type": "project.created", "aggregation": "count"},
             {"key": "seats", "event_type": "seat", "aggregation": "unique_count", "value": "seat", "operation": "operation"}],
  "features": [{"key": "sso", "name": "Single sign-on", "kind": "boolean"}, {"key": "support", "kind": "static"}, {"key": "tokens", "kind": "metered", "meter": "tokens"},
               {"key": "projects", "kind": "metered", "meter": "projects"}, {"key": "seats", "kind": "seat", "meter": "seats"}, {"key": "api", "kind": "rate_limit"}, {"key": "credit", "kind": "credit", "unit": "USD"}],
  "plans": [{"key": "free", "currency": "USD", "entitlements": [{"feature": "projects", "value": "1", "reset": "never"}]},
            {"key": "pro", "currency": "USD", "entitlements": [{"feature": "sso"}, {"feature": "support", "value": "email"}, {"feature": "tokens", "value": "100000"},
              {"feature": "projects", "value": "5", "reset": "never"}, {"feature": "seats", "value": "3"}, {"feature": "credit"}]}]}');
SELECT count(*) AS changes FROM billing.catalog_apply(billing.catalog_export());
SELECT f AS feature FROM jsonb_array_elements(billing.catalog_export()->'features') f;

-- What can't be is refused, by its path.
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"features":[{"key":"x","kind":"metered"}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"features":[{"key":"x","kind":"metered","meter":"nope"}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"features":[{"key":"x","kind":"boolean","meter":"tokens"}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"features":[{"key":"x","kind":"seat","meter":"tokens"}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"features":[{"key":"sso","kind":"static"}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"features":[{"key":"a/b","kind":"static"}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"meters":[{"key":"tokens","retired":true}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"plans":[{"key":"bad","currency":"USD","entitlements":[{"feature":"sso"},{"feature":"nope"}]}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"plans":[{"key":"bad","currency":"USD","entitlements":[{"feature":"tokens","value":"5","match":{"region":"eu"}}]}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"plans":[{"key":"bad","currency":"USD","entitlements":[{"feature":"tokens","value":true}]}]}')$$);

SELECT billing.customer_upsert('{"key": "acme", "currency": "USD", "time_zone": "America/New_York"}'), billing.customer_upsert('{"key": "globex", "currency": "USD"}');
SELECT * FROM pg_temp.fails($$SELECT billing.contract_create('{"key":"x","customer":"acme","starts_on":"2026-01-01","plan":"pro","entitlements":[{"feature":"sso","value":"5"}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.contract_create('{"key":"x","customer":"acme","starts_on":"2026-01-01","plan":"pro","add_ons":[{"key":"a","entitlements":[{"feature":"nope"}]}]}')$$);
-- A draft gives nothing.
SELECT billing.contract_create('{"key": "acme-2026", "customer": "acme", "starts_on": "2026-01-01", "term": "12 months", "plan": "pro",
  "add_ons": [{"key": "more", "from": "2026-02-01", "until": "2026-03-01", "entitlements": [{"feature": "tokens", "value": "50000"}]},
              {"key": "most", "from": "2026-02-01", "entitlements": [{"feature": "tokens", "value": "50000"}]}]}');
SELECT billing.entitled('acme', 'sso'), count(*) AS rows FROM billing.entitlement_state;
SELECT billing.contract_activate('acme-2026');
SELECT feature, kind, allowed, reason, value, mode, used, quota, remaining, resets, resets_at, source FROM billing.entitlements('acme');
-- rules.md 9: 100k + 2 × 50k = 200k, then a contract override of 300k.
SELECT billing.contract_amend('acme-2026', '{"entitlements": [{"feature": "tokens", "value": "300000"}]}', '2026-02-15T05:00:00Z') AS version;
SELECT valid_during, quota, source FROM billing.entitlement_state JOIN billing.feature f USING (feature_id) WHERE f.key = 'tokens' ORDER BY valid_during;
SELECT sum(e.quota) FILTER (WHERE e.valid_during @> timestamptz '2026-02-10T00:00:00Z') AS got, 200000 AS want, sum(e.quota) FILTER (WHERE e.valid_during @> timestamptz '2026-02-16T00:00:00Z') AS after, 300000 AS want_after
FROM billing.entitlement_state e JOIN billing.feature f USING (feature_id) WHERE f.key = 'tokens';
-- absent = denied, null = unlimited, 0 = none
SELECT allowed, reason, value FROM billing.entitlement_check('globex', 'sso');
SELECT billing.entitled('globex', 'sso'), billing.entitled('acme', 'sso'), billing.entitled('nobody', 'sso');
SELECT billing.entitlement_override('globex', 'tokens', 'null', reason => 'a partner') IS NOT NULL AS made, allowed, reason, quota FROM billing.entitlement_check('globex', 'tokens', 1e12);
SELECT allowed, reason, quota, remaining FROM billing.entitlement_check('globex', 'tokens', 1e12);
SELECT billing.entitlement_override('globex', 'tokens', '0', reason => 'no partner any more') IS NOT NULL AS made;
SELECT allowed, reason, quota, remaining, resets_at FROM billing.entitlement_check('globex', 'tokens');
SELECT why FROM billing.entitlements('globex');
SELECT billing.entitlement_override_end('globex', 'tokens', 'over') AS ended;
SELECT allowed, reason FROM billing.entitlement_check('globex', 'tokens');
SELECT * FROM pg_temp.fails($$SELECT billing.entitlement_override_end('globex', 'tokens', 'over')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.entitlement_override('globex', 'tokens', 'true', reason => 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.entitlement_override('globex', 'tokens', '1')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.entitlement_override('globex', 'tokens', '1', '2026-01-01', 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT * FROM billing.entitlement_check('acme', 'nope')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.entitled('acme', 'nope')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.entitled('nobody', 'nope')$$);
SELECT * FROM pg_temp.fails($$SELECT * FROM billing.entitlement_check('nobody', 'sso')$$);
SELECT * FROM pg_temp.fails($$SELECT * FROM billing.entitlement_check('acme', 'sso', -1)$$);

-- A quota is the meter's value in the window that runs, whoever sent the events.
SELECT accepted FROM billing.ingest('[{"customer":"acme","event_id":"1","event_type":"llm","occurred_at":"2026-01-10T11:00:00Z","properties":{"tokens":99999,"model":"a"}},
  {"customer":"acme","event_id":"2","event_type":"llm","occurred_at":"2026-01-01T04:59:59Z","properties":{"tokens":50000,"model":"a"}}]');
SELECT allowed, reason, used, quota, remaining, resets_at FROM billing.entitlement_check('acme', 'tokens');
SELECT allowed, reason, used, remaining FROM billing.entitlement_check('acme', 'tokens', 2);
-- By hand an operator lets them go on until the month's end; then it is over by itself.
SELECT billing.entitlement_override('acme', 'tokens', '150000', '2026-01-20T00:00:00Z', 'a launch') IS NOT NULL AS made;
SELECT allowed, reason, quota, source FROM billing.entitlement_check('acme', 'tokens', 2);
SELECT billing.test_clock_set('2026-01-20T00:00:00Z') IS NOT NULL AS clock;
SELECT allowed, reason, quota, source FROM billing.entitlement_check('acme', 'tokens', 2);
-- In February New York the quota is whole again.
SELECT billing.test_clock_set('2026-02-01T04:59:59Z') IS NOT NULL AS clock, billing.test_clock_set('2026-02-01T05:00:00Z') IS NOT NULL AS clock;
SELECT allowed, reason, used, quota, resets_at FROM billing.entitlement_check('acme', 'tokens', 2);

-- A pause suspends, what was agreed comes back with the end of the pause; cancellation ends all of it.
SELECT billing.contract_pause('acme-2026', '2026-02-10T05:00:00Z') AS version;
SELECT billing.contract_resume('acme-2026', '2026-02-12T05:00:00Z') AS version;
SELECT x.at, e.suspended, e.value FROM (VALUES (timestamptz '2026-02-10T04:59:59Z'), ('2026-02-10T05:00:00Z'), ('2026-02-12T04:59:59Z'), ('2026-02-12T05:00:00Z')) x (at)
JOIN billing.entitlement_state e ON e.valid_during @> x.at JOIN billing.feature f USING (feature_id) JOIN billing.customer c USING (customer_id) WHERE f.key = 'sso' AND c.key = 'acme' ORDER BY x.at;
SELECT billing.test_clock_set('2026-02-11T00:00:00Z') IS NOT NULL AS clock;
SELECT allowed, reason FROM billing.entitlement_check('acme', 'sso');
SELECT billing.entitled('acme', 'sso');
SELECT billing.contract_change_plan('acme-2026', 'free', '2026-02-20') AS version;
SELECT billing.contract_cancel('acme-2026', '2026-03-01') AS version;
SELECT f.key, valid_during, value, source FROM billing.entitlement_state JOIN billing.feature f USING (feature_id) WHERE upper(valid_during) > '2026-02-12T05:00:00Z' ORDER BY 1, 2;
SELECT billing.test_clock_set('2026-03-01T05:00:00Z') IS NOT NULL AS clock;
SELECT count(*) AS rights FROM billing.entitlements('acme');
-- A feature that is retired is for nobody new; what was agreed stays.
SELECT action, kind, key FROM billing.catalog_apply('{"features":[{"key":"support","retired":true}]}');
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"plans":[{"key":"pro","currency":"USD","entitlements":[{"feature":"support","value":"phone"}]}]}')$$);
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
-- verify() compiles anew what was compiled: a row that is another, rows that are missing.
BEGIN;
UPDATE billing.entitlement_state SET quota = quota + 1 WHERE (customer_id, feature_id) = (SELECT customer_id, feature_id FROM billing.entitlement_state WHERE quota IS NOT NULL ORDER BY customer_id, feature_id LIMIT 1);
SELECT check_name, checked > 0 AS some, failed FROM billing.verify('full') WHERE check_name LIKE 'entitlements%' UNION ALL SELECT check_name, checked > 0, failed FROM billing.verify() WHERE check_name LIKE 'entitlements%';
ROLLBACK;
BEGIN;
DELETE FROM billing.entitlement_state WHERE customer_id = 1;
SELECT failed, regexp_replace(example, ' \[.*', '') AS example FROM billing.verify('full') WHERE check_name LIKE 'entitlements%';
ROLLBACK;
SELECT check_name, failed FROM billing.verify('full') WHERE failed > 0 OR check_name LIKE 'entitlements%';

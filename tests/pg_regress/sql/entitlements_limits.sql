\set ECHO none
\i tests/pg_regress/helpers.sql
DROP ROLE IF EXISTS golden_gate;
CREATE ROLE golden_gate LOGIN IN ROLE billing_customer;
\set ECHO all
-- Rate limits, limits on money and alerts behind the gate; and what would lift each denial.
SELECT billing.test_clock_set('2026-06-10T00:00:00Z') IS NOT NULL AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "app"}],
  "meters": [{"key": "tokens", "event_type": "llm", "aggregation": "sum", "value": "tokens", "unit": "token"}],
  "features": [{"key": "tokens", "kind": "metered", "meter": "tokens"}, {"key": "api", "kind": "rate_limit"}, {"key": "sso", "kind": "boolean"}, {"key": "ai", "kind": "credit", "unit": "USD"}, {"key": "size", "kind": "static"}],
  "plans": [{"key": "p", "currency": "USD", "charges": [{"key": "tokens", "product": "app", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.01"}}],
    "entitlements": [{"feature": "tokens", "value": "1000"}, {"feature": "api", "rate": {"limit": "10", "per": "1 second", "burst": "5"}}, {"feature": "ai"}]}]}');
SELECT billing.customer_upsert('{"key": "acme", "currency": "USD"}'), billing.subscribe('acme', 'p', '2026-06-01');
-- rules.md 9: ten a second, five at once: the sixth waits a tenth of a second.
SELECT allowed, reason, remaining, value FROM billing.entitlement_check('acme', 'api');
SELECT n, c.result, c.reason, c.remaining, c.resets_at FROM generate_series(1, 6) n CROSS JOIN LATERAL billing.consume('acme', 'api', 1, 'r' || n) c;
SELECT allowed, reason, resets_at FROM billing.entitlement_check('acme', 'api');
SELECT billing.entitled('acme', 'api');
SELECT billing.test_clock_set('2026-06-10T00:00:00.1Z') IS NOT NULL AS clock;
SELECT billing.entitled('acme', 'api');
SELECT allowed, reason FROM billing.rate_limit('acme', 'api');
SELECT allowed, reason, retry_after FROM billing.rate_limit('acme', 'api');
-- No more than two dollars this month.
SELECT billing.spend_limit_set('acme', '{"key": "cap", "amount": "2.00", "period": "month", "mode": "hard"}');
SELECT result, reason, used FROM billing.consume('acme', 'tokens', 150, 't1');
SELECT allowed, reason, used, remaining FROM billing.entitlement_check('acme', 'tokens', 51);
SELECT result, reason FROM billing.consume('acme', 'tokens', 51, 't2');
SELECT result, reason, used FROM billing.consume('acme', 'tokens', 50, 't3');
SELECT billing.entitled('acme', 'tokens');
-- Why not, and what would help (entitlements_denied runs every command).
CREATE TEMP TABLE why AS SELECT x.feature, w.* FROM (VALUES ('tokens', 1), ('api', 1), ('sso', 1), ('size', 1), ('ai', 1)) x (feature, quantity) CROSS JOIN LATERAL billing.why_denied('acme', x.feature, x.quantity) w;
SELECT feature, reason, explanation, command FROM why;
SELECT billing.contract_pause('acme-1') AS version;
SELECT reason, explanation, command FROM billing.why_denied('acme', 'tokens');
SELECT reason, value FROM billing.entitlement_check('acme', 'api');
SELECT billing.contract_resume('acme-1') AS version;
SELECT format('SELECT count(*) AS done FROM (%s) x', rtrim(command, ';')) FROM why WHERE feature IN ('sso', 'size', 'ai') \gexec
SELECT f, billing.entitled('acme', f) FROM unnest('{sso,size,ai}'::text[]) f;
SELECT allowed, reason, explanation, command FROM billing.why_denied('acme', 'sso');
-- A customer's login is told the same of itself, but for what only operators can do; and of others nothing, whether they are there or not.
SELECT billing.customer_upsert('{"key": "other", "currency": "USD"}'), billing.subscribe('other', 'p', '2026-06-01');
SELECT billing.customer_login_add('acme', 'golden_gate');
SELECT billing.credit_grant_create('acme', '{"key": "gift", "amount": "3", "unit": "USD"}');
CREATE TEMP TABLE said AS SELECT f AS feature, n, c.*, w.explanation, billing.entitled('acme', f, n) AS entitled FROM unnest('{tokens,api,sso,size,ai}'::text[]) f, unnest('{0,1,2000}'::numeric[]) n,
    billing.entitlement_check('acme', f, n) c, billing.why_denied('acme', f, n) w;
GRANT SELECT ON said TO golden_gate;
SET ROLE golden_gate;
SELECT count(*) AS answers, count(*) FILTER (WHERE NOT s.allowed) AS denied, count(*) FILTER (WHERE (s.allowed, s.reason, s.used, s.quota, s.remaining, s.value, s.explanation, s.entitled) IS DISTINCT FROM
        (c.allowed, c.reason, c.used, c.quota, c.remaining, c.value, w.explanation, billing.entitled('acme', s.feature, s.n))) AS otherwise, count(w.command) AS commands
FROM said s, billing.entitlement_check('acme', s.feature, s.n) c, billing.why_denied('acme', s.feature, s.n) w;
SELECT reason, explanation, command FROM billing.why_denied('acme', 'tokens');
SELECT feature, allowed, reason, remaining FROM billing.entitlements('acme') WHERE kind = 'credit' UNION ALL SELECT feature, allowed, reason, remaining FROM billing.my_entitlements('acme') WHERE kind = 'credit';
SELECT who, f FROM unnest('{other,nobody}'::text[]) who, unnest('{why_denied,entitlement_check}'::text[]) c, pg_temp.fails(format('SELECT * FROM billing.%I(%L, %L)', c, who, 'tokens')) f;
SELECT who, billing.entitled(who, 'tokens') FROM unnest('{other,nobody}'::text[]) who;
SELECT billing_internal.customer_credit_left(2, 'USD') AS credit, (SELECT count(*) FROM billing_internal.customer_limits(2, 1, 1, '{}', NULL, NULL)) AS limits;
RESET ROLE;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
DROP OWNED BY golden_gate;
DROP ROLE golden_gate;

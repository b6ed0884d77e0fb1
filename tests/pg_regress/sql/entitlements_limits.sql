\set ECHO none
\i tests/pg_regress/helpers.sql
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
-- Why not, and what would help; each command does.
CREATE TEMP TABLE why AS SELECT x.feature, w.* FROM (VALUES ('tokens', 1), ('api', 1), ('sso', 1), ('size', 1), ('ai', 1)) x (feature, quantity) CROSS JOIN LATERAL billing.why_denied('acme', x.feature, x.quantity) w;
SELECT feature, reason, explanation, command FROM why;
SELECT billing.contract_pause('acme-1') AS version;
SELECT reason, explanation, command FROM billing.why_denied('acme', 'tokens');
SELECT billing.contract_resume('acme-1') AS version;
SELECT format('SELECT count(*) AS done FROM (%s) x', rtrim(command, ';')) FROM why WHERE feature IN ('sso', 'size', 'ai') \gexec
SELECT f, billing.entitled('acme', f) FROM unnest('{sso,size,ai}'::text[]) f;
SELECT allowed, reason, explanation, command FROM billing.why_denied('acme', 'sso');
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

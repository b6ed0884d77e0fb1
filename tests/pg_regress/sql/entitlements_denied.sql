-- What would lift each denial: every command that why_denied() prints is run, and lifts it. What is no quantity; whose rate limits one may look at; seats of a long history.
\set ECHO none
\i tests/pg_regress/helpers.sql
DROP ROLE IF EXISTS golden_denied;
CREATE ROLE golden_denied LOGIN IN ROLE billing_customer;
-- Asks why, does as it is told, and asks again until nothing denies it; a command that did not lift its reason fails.
CREATE FUNCTION pg_temp.lift(of_feature text, quantity numeric DEFAULT 1) RETURNS TABLE (feature text, reason text, command text, next text) LANGUAGE plpgsql AS $$
DECLARE
    w record;
BEGIN
    LOOP
        SELECT * INTO w FROM billing.why_denied('acme', of_feature, quantity);
        EXIT WHEN w.allowed;
        feature := of_feature;
        reason := w.reason;
        command := w.command;
        IF w.command IS NULL THEN
            RAISE 'no command lifts %', w.reason;
        END IF;
        EXECUTE w.command;
        SELECT * INTO w FROM billing.why_denied('acme', of_feature, quantity);
        next := w.reason;
        RETURN NEXT;
        IF (reason, command) IS NOT DISTINCT FROM (w.reason, w.command) THEN
            RAISE '% does not lift %', command, reason;
        END IF;
    END LOOP;
    IF NOT billing.entitled('acme', of_feature, quantity) THEN
        RAISE '% is denied', of_feature;
    END IF;
END
$$;
\set ECHO all
SELECT billing.test_clock_set('2026-06-10T00:00:00Z') IS NOT NULL AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "app"}],
  "meters": [{"key": "tokens", "event_type": "llm", "aggregation": "sum", "value": "tokens", "unit": "token"}, {"key": "calls", "event_type": "call", "aggregation": "count"},
    {"key": "seats", "event_type": "seat", "aggregation": "unique_count", "value": "seat", "operation": "operation", "unit": "seat"}],
  "features": [{"key": "tokens", "kind": "metered", "meter": "tokens"}, {"key": "daily", "kind": "metered", "meter": "tokens"}, {"key": "calls", "kind": "metered", "meter": "calls"}, {"key": "none", "kind": "metered", "meter": "calls"},
    {"key": "seats", "kind": "seat", "meter": "seats"}, {"key": "api", "kind": "rate_limit"}, {"key": "slow", "kind": "rate_limit"}, {"key": "sso", "kind": "boolean"}, {"key": "off", "kind": "boolean"}, {"key": "ai", "kind": "credit", "unit": "USD"}, {"key": "size", "kind": "static"},
    {"key": "extra", "kind": "boolean"}],
  "plans": [{"key": "p", "currency": "USD", "charges": [{"key": "tokens", "product": "app", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.01"}}],
    "entitlements": [{"feature": "tokens", "value": "1000"}, {"feature": "daily", "value": "100", "reset": "day", "rollover": {"cap": "50"}}, {"feature": "calls", "value": "2", "reset": "never"}, {"feature": "seats", "value": "1"}, {"feature": "off", "value": false},
      {"feature": "api", "rate": {"limit": "10", "per": "1 second", "burst": "5"}}]},
    {"key": "q", "currency": "USD", "entitlements": [{"feature": "extra"}]}]}');
SELECT billing.customer_upsert('{"key": "acme", "currency": "USD"}'), billing.subscribe('acme', 'p', '2026-06-01'), billing.subscribe('acme', 'q', '2026-06-01');
-- Quotas: of a window that resets, with what rolled over, for good, of seats; beyond them, and far beyond.
SELECT result FROM billing.consume('acme', 'tokens', 990, 't1');
SELECT * FROM pg_temp.lift('tokens', 11);
SELECT * FROM pg_temp.lift('daily', 200);
SELECT n, c.result FROM generate_series(1, 3) n CROSS JOIN LATERAL billing.consume('acme', 'calls', 1, 'c' || n) c;
SELECT * FROM pg_temp.lift('calls');
SELECT s.result FROM unnest('{ann,bob}'::text[]) u, billing.seat_assign('acme', 'seats', u) s;
SELECT * FROM pg_temp.lift('seats', 2);
SELECT s.result FROM billing.seat_assign('acme', 'seats', 'bob') s;
-- How often: at once after a burst, more than the burst, and what nobody was given.
SELECT c.result FROM generate_series(1, 6) n CROSS JOIN LATERAL billing.consume('acme', 'api', 1, 'r' || n) c;
SELECT * FROM pg_temp.lift('api');
SELECT allowed, remaining FROM billing.rate_limit('acme', 'api');
SELECT * FROM pg_temp.lift('api', 40.5);
SELECT * FROM pg_temp.lift('slow', 3);
-- Credit, and what nobody gives or somebody takes.
SELECT * FROM pg_temp.lift('ai', 1);
SELECT f.* FROM unnest('{sso,off,size,none}'::text[]) x CROSS JOIN LATERAL pg_temp.lift(x) f;
-- Money: several limits at once, one after the other, each as it was but for the amount.
SELECT billing.spend_limit_set('acme', '{"key": "cap", "amount": "9.95", "period": "month"}'), billing.spend_limit_set('acme', '{"key": "day", "amount": "9.99", "period": "day"}'), billing.spend_limit_set('acme', '{"key": "soft", "amount": "1", "period": "month", "mode": "soft"}');
SELECT * FROM pg_temp.lift('tokens', 11);
SELECT key, period, unit, amount, mode FROM billing.spend_limits('acme');
SELECT result, reason FROM billing.consume('acme', 'tokens', 11, 't2');
-- Paused: the contract that gives it, not the first that is paused.
SELECT billing.contract_pause('acme-1') AS a, billing.contract_pause('acme-2') AS b;
SELECT * FROM pg_temp.lift('extra');
SELECT billing.entitled('acme', 'calls') AS calls, billing.entitled('acme', 'extra') AS extra;
SELECT * FROM pg_temp.lift('calls');
-- Also where it is to go on by itself, later.
SELECT billing.contract_pause('acme-1') > 0 AS paused, billing.contract_resume('acme-1', billing.now() + interval '9 days') > 0 AS resumed_later;
SELECT * FROM pg_temp.lift('calls');

-- What is no quantity is refused, and says so.
SELECT call, q AS quantity, f FROM unnest('{entitled,entitlement_check,why_denied}'::text[]) call, unnest('{tokens,seats,sso,api,ai}'::text[]) feature, unnest('{"NULL",-1,NaN,Infinity,1e40,0.00000000000000000000000000001}'::text[]) q,
    LATERAL (SELECT string_agg(x, E'\n') AS f FROM pg_temp.fails(format('SELECT * FROM billing.%I(%L, %L, %s)', call, 'acme', feature, CASE q WHEN 'NULL' THEN 'NULL::numeric' ELSE quote_literal(q) || '::numeric' END)) x) f
WHERE feature = 'tokens' OR q IN ('NaN', 'NULL') AND call = 'entitled';
SELECT q AS quantity, f FROM unnest('{"NULL",-1,NaN,Infinity,1e40}'::text[]) q, LATERAL (VALUES ('SELECT * FROM billing.rate_limit(''acme'', ''api'', %s)'), ('SELECT * FROM billing.consume(''acme'', ''api'', %s, ''k'')'), ('SELECT * FROM billing.consume(''acme'', ''tokens'', %s, ''k'')'),
    ('SELECT * FROM billing.reservation_create(''acme'', ''tokens'', %s, ''k'')')) s (statement), LATERAL (SELECT string_agg(x, E'\n') AS f FROM pg_temp.fails(format(statement, CASE q WHEN 'NULL' THEN 'NULL::numeric' ELSE quote_literal(q) || '::numeric' END)) x) f;
SELECT reservation_id AS r FROM billing.reservation_create('acme', 'tokens', 1, 'held') \gset
SELECT pg_temp.fails(format('SELECT * FROM billing.reservation_confirm(%L, %L)', :'r', q)) FROM unnest('{-1,NaN,Infinity}'::text[]) q;

-- A customer's login is told what its own rate limits let, and nothing of others'.
SELECT billing.customer_upsert('{"key": "other", "currency": "USD"}'), billing.subscribe('other', 'p', '2026-06-01'), billing.customer_login_add('acme', 'golden_denied');
SELECT c.result FROM generate_series(1, 3) n CROSS JOIN LATERAL billing.consume('other', 'api', 1, 'r' || n) c;
SELECT f.feature_id AS api, c.customer_id AS other, a.customer_id AS acme FROM billing.feature f, billing.customer c, billing.customer a WHERE f.key = 'api' AND c.key = 'other' AND a.key = 'acme' \gset
SELECT remaining FROM billing.entitlement_check('other', 'api');
SET ROLE golden_denied;
SELECT allowed, remaining FROM billing.entitlement_check('acme', 'api');
SELECT * FROM billing_internal.rate_look(:other, :api, 10, 5, 1, '1 second');
SELECT * FROM billing_internal.customer_rate(:other, :api, 10, 5, 1, '1 second');
SELECT pg_temp.fails(format('SELECT * FROM billing_internal.%s(%s, %s, 10, %s)', f, :other, :api, a)) FROM (VALUES ('rate_peek', '5, 1, ''1 second'''), ('rate_shared_look', '1000000, 5, 1')) x (f, a);
RESET ROLE;

-- Seats: the last thing that was said of a holder counts, from buckets, deltas and events; whatever others did.
SELECT billing.entitlement_override('acme', 'seats', 'null', NULL, 'many') IS NOT NULL AS many;
SELECT count(*) FILTER (WHERE s.result = 'assigned') AS assigned FROM generate_series(1, 50) n CROSS JOIN LATERAL billing.seat_assign('acme', 'seats', 'user ' || n) s;
CALL billing.fold();
SELECT billing.test_clock_set('2026-06-12T00:00:00Z') IS NOT NULL AS clock;
SELECT s.result FROM (VALUES ('release', 'user 7'), ('release', 'user 7'), ('assign', 'user 8'), ('assign', 'user 7'), ('release', 'user 7'), ('release', 'nobody')) c (what, who)
CROSS JOIN LATERAL (SELECT result FROM billing.seat_assign('acme', 'seats', c.who) WHERE c.what = 'assign' UNION ALL SELECT result FROM billing.seat_release('acme', 'seats', c.who) WHERE c.what = 'release') s;
SELECT billing.event_void('acme', e.event_id, 'a mistake') IS NOT NULL AS voided FROM billing.usage_event e WHERE e.event_type = 'seat' AND e.properties->>'seat' = 'user 7' AND e.properties->>'operation' = 'remove' ORDER BY e.occurred_at DESC LIMIT 1;
SELECT s.result FROM billing.seat_assign('acme', 'seats', 'user 7') s;
SELECT s.result FROM billing.seat_release('acme', 'seats', 'user 9') s;
CALL billing.fold();
SELECT s.result FROM billing.seat_release('acme', 'seats', 'user 7') s;
SELECT used FROM billing.entitlement_check('acme', 'seats', 0);
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
DROP OWNED BY golden_denied;
DROP ROLE golden_denied;

\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
-- One quota, several features of one meter: what one of them reserves or uses, the others don't have, as far as it is usage of what they are for.
SELECT billing.test_clock_set('2026-03-02T12:00:00Z') IS NOT NULL AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "meters": [{"key": "tokens", "event_type": "llm", "aggregation": "sum", "value": "tokens", "dimensions": ["model"], "unit": "token"},
             {"key": "seats", "event_type": "seat", "aggregation": "unique_count", "value": "seat", "operation": "operation", "unit": "seat"}],
  "features": [{"key": "all", "kind": "metered", "meter": "tokens"}, {"key": "also", "kind": "metered", "meter": "tokens"}, {"key": "big", "kind": "metered", "meter": "tokens"},
               {"key": "gmbh", "kind": "metered", "meter": "tokens"}, {"key": "first", "kind": "metered", "meter": "tokens"},
               {"key": "seats", "kind": "seat", "meter": "seats"}, {"key": "chairs", "kind": "seat", "meter": "seats"}],
  "plans": [{"key": "p", "currency": "USD", "entitlements": [{"feature": "all", "value": "100"}, {"feature": "also", "value": "100", "reset": "day"}, {"feature": "big", "value": "40", "match": {"model": "1.5"}},
      {"feature": "gmbh", "value": "30", "match": {"bill_to": "gmbh"}}, {"feature": "first", "value": "100", "reset": {"first_use": "7 days"}}, {"feature": "seats", "value": "2"}, {"feature": "chairs", "value": "2"}]}]}');
SELECT billing.customer_upsert('{"key": "acme", "currency": "USD", "bill_tos": [{"key": "gmbh", "name": "Acme GmbH"}]}'), billing.subscribe('acme', 'p', '2026-03-01');
CREATE FUNCTION pg_temp.reserve(feature text, quantity numeric, key text, properties jsonb DEFAULT '{}', bill_to text DEFAULT NULL) RETURNS TABLE (result text, reason text, used numeric, remaining numeric) LANGUAGE sql AS $$
    SELECT result, reason, used, remaining FROM billing.reservation_create('acme', feature, quantity, key, '1 hour', properties, bill_to)
$$;
CREATE FUNCTION pg_temp.look() RETURNS TABLE (feature text, used numeric, remaining numeric) LANGUAGE sql AS $$
    SELECT f.key, c.used, c.remaining FROM billing.feature f CROSS JOIN LATERAL billing.entitlement_check('acme', f.key, 0) c WHERE f.kind = 'metered' ORDER BY f.key
$$;

-- ── reservations ─────────────────────────────────────────────────────────────────────────────────
SELECT result, used, remaining FROM pg_temp.reserve('all', 60, 'r1');
-- Of no model and no entity in particular: those for some usage only are free.
SELECT * FROM pg_temp.look();
SELECT result, reason FROM pg_temp.reserve('also', 41, 'r2');
SELECT result, reason FROM billing.consume('acme', 'also', 41, 'c1');
SELECT result, reason FROM billing.consume('acme', 'first', 41, 'c2');
-- 1.5 as a number is the text 1.5, as in usage: it is of the big model, whichever feature was named.
SELECT result, used, remaining FROM pg_temp.reserve('also', 30, 'r3', '{"model": 1.50}');
SELECT * FROM pg_temp.look();
SELECT result, reason FROM billing.consume('acme', 'big', 11, 'c3', '{"model": "1.5"}');
SELECT result, used, remaining FROM pg_temp.reserve('big', 10, 'r4', '{"model": "1.5"}', 'gmbh');
-- All is given: 60 + 30 + 10.
SELECT * FROM pg_temp.look();
SELECT f.key, c.result, c.reason FROM billing.feature f CROSS JOIN LATERAL billing.consume('acme', f.key, 1, 'd-' || f.key, '{"model": "other"}') c WHERE f.kind = 'metered' ORDER BY f.key;
SELECT result, used, remaining FROM billing.consume('acme', 'gmbh', 20, 'c4', '{"model": "other"}', 'gmbh');
-- Settled, it counts as usage for all of them, in their windows.
SELECT r.idempotency_key AS key, c.result, c.used, c.remaining FROM billing.reservation r CROSS JOIN LATERAL billing.reservation_confirm(r.reservation_id, CASE r.idempotency_key WHEN 'r1' THEN 10 END) c
    WHERE r.idempotency_key <> 'r4' ORDER BY 1;
SELECT billing.reservation_release(r.reservation_id) FROM billing.reservation r WHERE r.idempotency_key = 'r4';
SELECT * FROM pg_temp.look();
SELECT u.dimensions, u.quantity FROM billing.usage('acme', 'tokens', '2026-03-01Z', '2026-04-01Z', NULL, '{model,bill_to}') u;
-- One that expires frees all of them.
SELECT result, used, remaining FROM pg_temp.reserve('all', 40, 'r5');
SELECT billing.test_clock_set('2026-03-02T13:00:00Z') IS NOT NULL AS clock;
SELECT * FROM pg_temp.look();
-- Its own login sees the same numbers.
SET client_min_messages = warning;
DROP ROLE IF EXISTS golden_shared;
CREATE ROLE golden_shared LOGIN IN ROLE billing_customer;
SELECT billing.customer_login_add('acme', 'golden_shared');
SELECT result FROM pg_temp.reserve('all', 5, 'r6', '{"model": "1.5"}');
SET ROLE golden_shared;
SELECT c.used, c.remaining, b.used AS big, b.remaining AS big_remaining FROM billing.entitlement_check('acme', 'all', 0) c CROSS JOIN billing.entitlement_check('acme', 'big', 0) b;
RESET ROLE;
SELECT billing.customer_login_remove('acme', 'golden_shared');
DROP ROLE golden_shared;

-- ── where the properties say how much ────────────────────────────────────────────────────────────
-- That is held, and is what was used: 65 are used.
SELECT result, used FROM pg_temp.reserve('all', 1, 's1', '{"tokens": 36}');
SELECT n, r.result, r.used, r.remaining FROM generate_series(1, 2) n CROSS JOIN LATERAL pg_temp.reserve('all', 1, 's2', '{"tokens": 35}') r;
SELECT reservation_id AS s2 FROM billing.reservation WHERE idempotency_key = 's2' \gset
SELECT result, used FROM billing.reservation_confirm(:'s2', 1);
SELECT x.result, x.used FROM unnest('{NULL,1,35}'::numeric[]) n CROSS JOIN LATERAL billing.reservation_confirm(:'s2', n) x;
SELECT replace(f, :'s2', 's2') AS fails FROM pg_temp.fails(format('SELECT * FROM billing.reservation_confirm(%L, 3)', :'s2')) f UNION ALL SELECT pg_temp.fails($$SELECT * FROM pg_temp.reserve('all', 1, 's3', '{"tokens": 0}')$$);
SELECT quantity, actual FROM billing.reservation WHERE idempotency_key = 's2';

-- ── seats ────────────────────────────────────────────────────────────────────────────────────────
SELECT f, u, s.result, s.used, s.remaining FROM (VALUES ('seats', 'ann'), ('chairs', 'bob'), ('seats', 'cem'), ('chairs', 'ann')) x (f, u) CROSS JOIN LATERAL billing.seat_assign('acme', f, u) s;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

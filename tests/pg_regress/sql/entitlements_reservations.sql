\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
-- Reservations beside what else counts: windows that begin with the first use, limits and budgets, what can't be confirmed, how
-- long they are known.
SELECT billing.test_clock_set('2026-03-02T12:00:00Z') IS NOT NULL AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "app"}],
  "meters": [{"key": "projects", "event_type": "project.created", "aggregation": "count", "filter": {"kind": "real"}},
             {"key": "tokens", "event_type": "llm", "aggregation": "sum", "value": "tokens", "dimensions": ["model", "api_key"], "unit": "token"},
             {"key": "out", "event_type": "llm", "aggregation": "sum", "value": "out", "dimensions": ["model"], "unit": "token"},
             {"key": "tiered", "event_type": "tiered", "aggregation": "sum", "value": "n"}],
  "features": [{"key": "projects", "kind": "metered", "meter": "projects"}, {"key": "first", "kind": "metered", "meter": "tokens"}, {"key": "tokens", "kind": "metered", "meter": "tokens"},
               {"key": "tiered", "kind": "metered", "meter": "tiered"}],
  "plans": [{"key": "p", "currency": "USD", "charges": [{"key": "tokens", "product": "app", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.01"}},
      {"key": "out", "product": "app", "meter": "out", "pricing": {"model": "per_unit", "unit_price": "1.00"}},
      {"key": "tiered", "product": "app", "meter": "tiered", "pricing": {"model": "graduated", "tiers": [{"up_to": "10", "unit_price": "0"}, {"unit_price": "1"}]}}],
    "entitlements": [{"feature": "projects", "value": "5"}, {"feature": "first", "value": "5", "reset": {"first_use": "7 days"}}, {"feature": "tokens", "value": null}, {"feature": "tiered", "value": null}]}]}');
SELECT billing.customer_upsert('{"key": "acme", "currency": "USD", "bill_tos": [{"key": "acme", "name": "Acme"}, {"key": "gmbh", "name": "Acme GmbH"}]}'), billing.subscribe('acme', 'p', '2026-03-01');
CREATE FUNCTION pg_temp.reserve(feature text, quantity numeric, key text, properties jsonb DEFAULT '{}', bill_to text DEFAULT NULL) RETURNS TABLE (result text, reason text, used numeric, remaining numeric) LANGUAGE sql AS $$
    SELECT result, reason, used, remaining FROM billing.reservation_create('acme', feature, quantity, key, '1 hour', properties, bill_to)
$$;
CREATE FUNCTION pg_temp.confirm(key text, actual numeric DEFAULT NULL) RETURNS TABLE (result text, was_late boolean, used numeric, remaining numeric) LANGUAGE sql AS $$
    SELECT c.result, c.was_late, c.used, c.remaining FROM billing.reservation r CROSS JOIN LATERAL billing.reservation_confirm(r.reservation_id, $2) c WHERE r.idempotency_key = $1
$$;

-- ── a window that begins with the first use ──────────────────────────────────────────────────────
-- The first that is confirmed begins it: five are all there is, whichever way they are used.
SELECT n, r.result, r.used, c.result AS confirmed, c.used, c.remaining FROM generate_series(1, 6) n CROSS JOIN LATERAL pg_temp.reserve('first', 1, 'f' || n) r LEFT JOIN LATERAL pg_temp.confirm('f' || n) c ON true;
SELECT starts_at, ends_at FROM billing.entitlement_window;
SELECT result, reason FROM billing.consume('acme', 'first', 1, 'f7');
-- Confirmed with nothing used, none begins; one that is confirmed when the window is over begins another.
SELECT billing.test_clock_set('2026-03-09T11:59:59Z') IS NOT NULL AS clock;
SELECT result, reason FROM pg_temp.reserve('first', 1, 'f8');
SELECT billing.test_clock_set('2026-03-09T12:00:00Z') IS NOT NULL AS clock;
SELECT result, used FROM pg_temp.reserve('first', 3, 'f9');
SELECT result, used, resets_at FROM pg_temp.confirm('f9', 0) CROSS JOIN LATERAL (SELECT x.resets_at FROM billing.entitlement_check('acme', 'first', 0) x) e;
SELECT result, used FROM pg_temp.reserve('first', 3, 'f10');
SELECT billing.test_clock_set('2026-03-09T12:30:00Z') IS NOT NULL AS clock;
SELECT result, used FROM pg_temp.confirm('f10');
SELECT used, remaining, resets_at FROM billing.entitlement_check('acme', 'first', 0);

-- ── limits and budgets ───────────────────────────────────────────────────────────────────────────
-- 50 a month at 0.01, of which 8 tokens are used: one reservation of 40 fits, and no other; also not by consuming.
SELECT billing.spend_limit_set('acme', '{"key": "money", "amount": "50", "period": "month"}');
SELECT n, r.result, r.reason FROM generate_series(1, 3) n CROSS JOIN LATERAL pg_temp.reserve('tokens', 4000, 'm' || n) r;
SELECT allowed, reason FROM billing.entitlement_check('acme', 'tokens', 992);
SELECT allowed, reason FROM billing.entitlement_check('acme', 'tokens', 993);
SELECT result, reason FROM billing.consume('acme', 'tokens', 1000, 'c1');
SELECT key, amount, used, reserved, remaining FROM billing.spend_limits('acme');
-- What it really used is used; the rest is free again.
SELECT result FROM pg_temp.confirm('m1', 3000);
SELECT key, amount, used, reserved, remaining FROM billing.spend_limits('acme');
SELECT result FROM billing.consume('acme', 'tokens', 1992, 'c2');
SELECT key, amount, used, reserved, remaining FROM billing.spend_limits('acme');
SELECT result, reason FROM pg_temp.reserve('tokens', 1, 'm4');
SELECT billing.spend_limit_set('acme', '{"key": "money", "end": true}');
-- A budget in units, of the key it is for; what expires is free.
SELECT billing.budget_set('acme', '{"key": "k1", "amount": "100", "period": "day", "match": {"api_key": "k1"}, "meter": "tokens"}');
SELECT result, reason FROM pg_temp.reserve('tokens', 60, 'u1', '{"api_key": "k1"}');
SELECT result, reason FROM pg_temp.reserve('tokens', 60, 'u2', '{"api_key": "k1"}');
SELECT result, reason FROM pg_temp.reserve('tokens', 60, 'u3', '{"api_key": "k2"}');
SELECT key, unit, amount, used, reserved, remaining FROM billing.budgets('acme');
SELECT billing.test_clock_set('2026-03-09T13:30:00Z') IS NOT NULL AS clock;
SELECT result, reason FROM pg_temp.reserve('tokens', 60, 'u4', '{"api_key": "k1"}');
SELECT key, unit, amount, used, reserved, remaining FROM billing.budgets('acme');
SELECT billing.budget_set('acme', '{"key": "k1", "end": true}');
-- Each stands behind the others in the tiers: the first ten are free, of three times eight 14 are not.
SELECT billing.spend_limit_set('acme', '{"key": "tiers", "amount": "10", "period": "month", "mode": "soft"}');
SELECT billing.test_clock_set('2026-04-02T00:00:00Z') IS NOT NULL AS clock;
CALL billing.bill_run();
SELECT n, r.result, r.reason FROM generate_series(1, 3) n CROSS JOIN LATERAL pg_temp.reserve('tiered', 8, 't' || n) r;
SELECT reserved, reserved = 3 * 8 - 10 AS ok FROM billing.spend_limits('acme');
-- An event counts on all meters of its type: 100 in for 1.00, and 7 out for 7.00.
SELECT result, reason FROM pg_temp.reserve('tokens', 100, 'w1', '{"out": 7}') r;
SELECT reserved, reserved = 14 + 1 + 7 AS ok FROM billing.spend_limits('acme');
SELECT billing.spend_limit_set('acme', '{"key": "tiers", "end": true}');

-- ── what could never be confirmed ────────────────────────────────────────────────────────────────
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  -- a count takes 1 at a time
  $$SELECT billing.reservation_create('acme', 'projects', 3, 'x', properties => '{"kind": "real"}')$$,
  -- the meter's filter leaves it out
  $$SELECT billing.reservation_create('acme', 'projects', 1, 'x', properties => '{"kind": "test"}')$$,
  $$SELECT billing.reservation_create('acme', 'tokens', 5, 'x', bill_to => 'inc')$$]) c;
SELECT result, used FROM pg_temp.reserve('projects', 1, 'p1', '{"kind": "real"}');
SELECT result, used FROM pg_temp.confirm('p1');

-- ── how long they are known ──────────────────────────────────────────────────────────────────────
SELECT job, state FROM billing.tick() WHERE job = 'reservation_expiry';
SELECT outcome, count(*) FROM billing.reservation GROUP BY outcome ORDER BY outcome;
SELECT r.result, r.reservation_id IS NOT NULL AS id FROM billing.reservation_create('acme', 'first', 1, 'f1') r;
SELECT billing.test_clock_set('2026-05-31T12:00:00Z') IS NOT NULL AS clock;
SELECT billing.reservation_expiry_step(), (SELECT count(*) FROM billing.reservation WHERE idempotency_key = 'f1') AS first;
SELECT billing.test_clock_set('2026-05-31T12:00:00.000001Z') IS NOT NULL AS clock;
SELECT billing_internal.reservation_expiry_due('-infinity', billing.now());
SELECT billing.reservation_expiry_step(), (SELECT count(*) FROM billing.reservation WHERE idempotency_key = 'f1') AS first;
SELECT billing_internal.reservation_expiry_due('-infinity', billing.now()), billing_internal.reservation_expiry_due(billing.now(), '2027-01-01Z');
SELECT billing.test_clock_set('2027-01-01T00:00:00Z') IS NOT NULL AS clock;
CALL billing.reservation_expiry();
SELECT state, (result->>'reservations')::int > 0 AS removed, (SELECT count(*) FROM billing.reservation) AS kept FROM billing.job_run WHERE job = 'reservation_expiry' ORDER BY job_run_id DESC LIMIT 1;
-- By id it is one look-up.
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT FROM billing.reservation WHERE reservation_id = '00000000-0000-7000-8000-000000000000';
-- What is open of a customer is found by the customer also where a plan was made before there were any: never by when it expires.
CREATE TEMP TABLE r (LIKE billing.reservation INCLUDING INDEXES);
EXPLAIN (COSTS OFF) SELECT sum(quantity) FROM r WHERE customer_id = 1 AND meter_id = 1 AND outcome IS NULL;
DROP TABLE r;
RESET enable_seqscan;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

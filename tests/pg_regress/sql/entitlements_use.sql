\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
-- What is counted is only what the entitlement is for, within the limits of who pays, with all that the event costs.
SELECT billing.test_clock_set('2026-03-02T12:00:00Z') IS NOT NULL AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "app"}],
  "meters": [{"key": "in", "event_type": "llm", "aggregation": "sum", "value": "in", "dimensions": ["model"], "unit": "token"},
             {"key": "out", "event_type": "llm", "aggregation": "sum", "value": "out", "dimensions": ["model"], "unit": "token"}],
  "features": [{"key": "big", "kind": "metered", "meter": "in"}, {"key": "any", "kind": "metered", "meter": "in"}],
  "plans": [{"key": "p", "currency": "USD", "charges": [{"key": "in", "product": "app", "meter": "in", "pricing": {"model": "per_unit", "unit_price": "0.01"}},
      {"key": "out", "product": "app", "meter": "out", "pricing": {"model": "per_unit", "unit_price": "1.00"}}],
    "entitlements": [{"feature": "big", "value": "10", "match": {"model": "gpt-4"}}, {"feature": "any", "value": null}]}]}');
SELECT billing.customer_upsert('{"key": "acme", "currency": "USD", "bill_tos": [{"key": "inc", "name": "Inc"}, {"key": "gmbh", "name": "GmbH"}]}'), billing.subscribe('acme', 'p', '2026-03-01');
-- Whoever counts says of what; who only asks may leave it open.
SELECT n, c.result, c.reason, c.used FROM generate_series(1, 2) n CROSS JOIN LATERAL billing.consume('acme', 'big', 10, 'n' || n) c;
SELECT result, reason, used FROM billing.consume('acme', 'big', 10, 'n3', '{"model": "gpt-3"}');
SELECT result, reason FROM billing.reservation_create('acme', 'big', 10, 'r1');
SELECT result, reason, used FROM billing.reservation_create('acme', 'big', 4, 'r2', properties => '{"model": "gpt-4"}');
SELECT n, c.result, c.reason, c.used FROM generate_series(1, 2) n CROSS JOIN LATERAL billing.consume('acme', 'big', 6, 'm' || n, '{"model": "gpt-4"}') c;
SELECT billing.entitled('acme', 'big', 0) AS open, billing.entitled('acme', 'big', 1) AS more, c.allowed, c.reason, d.allowed AS other FROM billing.entitlement_check('acme', 'big', 0) c CROSS JOIN billing.entitlement_check('acme', 'big', 0, '{"model": "gpt-3"}') d;
SELECT quantity FROM billing.usage('acme', 'in', '2026-03-01Z', '2026-04-01Z');
-- A limit of one legal entity denies nothing that another pays.
SELECT billing.spend_limit_set('acme', '{"key": "inc", "amount": "1.00", "period": "month", "bill_to": "inc"}');
SELECT result, reason FROM billing.consume('acme', 'any', 90, 'i1');
SELECT result, reason FROM billing.consume('acme', 'any', 1, 'i2');
SELECT result, reason FROM billing.consume('acme', 'any', 1, 'i3', bill_to => 'inc');
SELECT result, reason FROM billing.consume('acme', 'any', 1000, 'i4', bill_to => 'gmbh');
SELECT result, reason FROM billing.reservation_create('acme', 'any', 1, 'i5');
SELECT result, reason FROM billing.reservation_create('acme', 'any', 1000, 'i6', bill_to => 'gmbh');
SELECT allowed, reason FROM billing.entitlement_check('acme', 'any');
SELECT key, used, reserved, remaining FROM billing.spend_limits('acme');
SELECT billing.spend_limit_set('acme', '{"key": "inc", "end": true}');
-- The event counts on both meters: 4 more in and 1 out cost 1.04.
SELECT billing.spend_limit_set('acme', '{"key": "all", "amount": "22.05", "period": "month"}');
SELECT used, reserved, remaining FROM billing.spend_limits('acme');
SELECT result, reason FROM billing.consume('acme', 'any', 6, 'b1', '{"out": 1}');
SELECT result, reason FROM billing.consume('acme', 'any', 5, 'b2', '{"out": 1}');
SELECT used, reserved, remaining FROM billing.spend_limits('acme');
-- Of two exceptions the one made last counts.
SELECT billing.entitlement_override('acme', 'any', '5', NULL, 'first') IS NOT NULL AS a, billing.entitlement_override('acme', 'any', '7', NULL, 'last') IS NOT NULL AS b;
SELECT quota FROM billing.entitlement_check('acme', 'any', 0);
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

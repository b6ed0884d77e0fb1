-- Asking is answered as consuming would be, with the same properties and legal entity: quotas, quotas of some usage, limits and budgets in money
-- and in units, of customers, legal entities and dimensions. Every combination is asked, then consumed and taken back; and why_denied() lifts what denies it.
\set ECHO none
\i tests/pg_regress/helpers.sql
-- What consume() would say: it is done, and undone.
CREATE FUNCTION pg_temp.consumed(of_feature text, quantity numeric, properties jsonb, bill_to text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    BEGIN
        SELECT CASE WHEN c.allowed THEN 'yes: ' ELSE 'no: ' END || c.reason INTO said FROM billing.consume('acme', of_feature, quantity, 'k', properties, bill_to) c;
        RAISE EXCEPTION USING ERRCODE = 'ZZZZZ';
    EXCEPTION WHEN SQLSTATE 'ZZZZZ' THEN
        RETURN said;
    END;
END
$$;
-- Does as it is told until nothing denies it, and consumes it.
CREATE FUNCTION pg_temp.lift(of_feature text, quantity numeric, properties jsonb DEFAULT '{}', bill_to text DEFAULT NULL) RETURNS TABLE (reason text, explanation text, command text) LANGUAGE plpgsql AS $$
DECLARE
    said text := '';
BEGIN
    FOR n IN 1..10 LOOP
        SELECT w.reason, w.explanation, w.command INTO reason, explanation, command FROM billing.why_denied('acme', of_feature, quantity, properties, bill_to) w WHERE NOT w.allowed;
        EXIT WHEN NOT FOUND;
        IF reason || command = said THEN
            RAISE '% does not lift %', command, reason;
        END IF;
        said := reason || command;
        EXECUTE command;
        RETURN NEXT;
    END LOOP;
    reason := pg_temp.consumed(of_feature, quantity, properties, bill_to);
    explanation := NULL;
    command := NULL;
    RETURN NEXT;
END
$$;
\set ECHO all
SELECT billing.test_clock_set('2026-03-02T12:00:00Z') IS NOT NULL AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "app"}],
  "meters": [{"key": "tokens", "event_type": "llm", "aggregation": "sum", "value": "tokens", "dimensions": ["model", "api_key"], "unit": "token"},
             {"key": "out", "event_type": "llm", "aggregation": "sum", "value": "out", "dimensions": ["model"], "unit": "token"},
             {"key": "calls", "event_type": "llm", "aggregation": "count", "dimensions": ["api_key"]},
             {"key": "real", "event_type": "project", "aggregation": "count", "filter": {"kind": "real"}}],
  "features": [{"key": "tokens", "kind": "metered", "meter": "tokens"}, {"key": "soft", "kind": "metered", "meter": "tokens"}, {"key": "big", "kind": "metered", "meter": "tokens"}, {"key": "gmbh", "kind": "metered", "meter": "tokens"},
               {"key": "calls", "kind": "metered", "meter": "calls"}, {"key": "real", "kind": "metered", "meter": "real"}],
  "plans": [{"key": "p", "currency": "USD", "charges": [{"key": "tokens", "product": "app", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.01"}},
      {"key": "out", "product": "app", "meter": "out", "pricing": {"model": "per_unit", "unit_price": "1.00"}}],
    "entitlements": [{"feature": "tokens", "value": "100"}, {"feature": "soft", "value": "10", "mode": "soft"}, {"feature": "big", "value": "40", "match": {"model": "1.5"}, "reset": "day"}, {"feature": "gmbh", "value": "30", "match": {"bill_to": "gmbh"}},
      {"feature": "calls", "value": null}, {"feature": "real", "value": "1"}]}]}');
SELECT billing.customer_upsert('{"key": "acme", "currency": "USD", "bill_tos": [{"key": "inc", "name": "Acme"}, {"key": "gmbh", "name": "Acme GmbH"}]}'), billing.subscribe('acme', 'p', '2026-03-01');
CREATE TABLE question AS SELECT f AS feature, q AS quantity, p AS properties, b AS bill_to
FROM unnest('{tokens,soft,big,gmbh}'::text[]) f, unnest('{1,35,101}'::numeric[]) q, (VALUES (jsonb '{}'), ('{"model": 1.50}'), ('{"model": "a", "api_key": "k1", "out": 3}'), ('{"api_key": "k2"}')) p (p), unnest('{NULL,inc,gmbh}'::text[]) b
UNION ALL SELECT 'calls', 1, p, b FROM (VALUES (jsonb '{}'), ('{"api_key": "k1", "tokens": 30, "out": 1}')) p (p), unnest('{NULL,inc,gmbh}'::text[]) b
-- what the properties say is the quantity
UNION ALL SELECT 'tokens', 1, '{"tokens": 101}', NULL UNION ALL SELECT 'real', 1, '{"kind": "real"}', NULL;
-- Of an entitlement for some usage only what is left open may be any, but consume() has to know.
CREATE FUNCTION pg_temp.compare() RETURNS TABLE (questions bigint, denied bigint, reasons text, otherwise bigint, example text) LANGUAGE sql AS $$
    SELECT count(*), count(*) FILTER (WHERE NOT c.allowed), string_agg(DISTINCT c.reason, ', ' ORDER BY c.reason), count(*) FILTER (WHERE x.said <> x.wants OR e <> c.allowed OR (w.allowed, w.reason) IS DISTINCT FROM (c.allowed, c.reason)),
        min(format('%s %s %s %s: %s, not %s', q.feature, q.quantity, q.properties, q.bill_to, x.said, x.wants)) FILTER (WHERE x.said <> x.wants)
    FROM question q CROSS JOIN LATERAL billing.entitlement_check('acme', q.feature, q.quantity, q.properties, q.bill_to) c CROSS JOIN LATERAL billing.entitled('acme', q.feature, q.quantity, q.properties, q.bill_to) e
    CROSS JOIN LATERAL billing.why_denied('acme', q.feature, q.quantity, q.properties, q.bill_to) w
    CROSS JOIN LATERAL (SELECT CASE WHEN c.allowed THEN 'yes: ' ELSE 'no: ' END || c.reason AS said, pg_temp.consumed(q.feature, q.quantity, q.properties, q.bill_to) AS wants) x
    WHERE NOT (q.feature = 'big' AND NOT q.properties ? 'model') AND NOT (q.feature = 'gmbh' AND q.bill_to IS NULL)
$$;
SELECT * FROM pg_temp.compare();
SELECT q.feature, q.properties, q.bill_to, c.allowed AS asked, pg_temp.consumed(q.feature, q.quantity, q.properties, q.bill_to) AS consumed
FROM question q CROSS JOIN LATERAL billing.entitlement_check('acme', q.feature, q.quantity, q.properties, q.bill_to) c
WHERE q.quantity = 1 AND (q.feature = 'big' AND NOT q.properties ? 'model' OR q.feature = 'gmbh' AND q.bill_to IS NULL) ORDER BY q.feature, q.bill_to, q.properties;

-- ── with limits ──────────────────────────────────────────────────────────────────────────────────
SELECT billing.spend_limit_set('acme', '{"key": "entity", "amount": "0.30", "period": "month", "bill_to": "gmbh"}'), billing.budget_set('acme', '{"key": "k1", "amount": "2", "period": "day", "match": {"api_key": "k1"}}'),
    billing.budget_set('acme', '{"key": "k2", "amount": "30", "period": "month", "match": {"api_key": "k2"}, "meter": "tokens"}'), billing.budget_set('acme', '{"key": "out", "amount": "2", "period": "month", "match": {"model": "a"}, "meter": "out", "mode": "soft"}'),
    billing.spend_limit_set('acme', '{"key": "all", "amount": "1.00", "period": "billing_period"}');
-- A count of the same events, too; and with what is used and reserved.
SELECT billing.budget_set('acme', '{"key": "calls", "amount": "2", "period": "month", "match": {"api_key": "k2"}, "meter": "calls"}');
SELECT result FROM billing.consume('acme', 'tokens', 5, 'a', '{"api_key": "k2", "model": "1.5"}', 'gmbh') UNION ALL SELECT result FROM billing.reservation_create('acme', 'soft', 7, 'b', '1 hour', '{"api_key": "k2", "model": "a"}');
SELECT * FROM pg_temp.compare();
-- A customer's login hears the same.
SET client_min_messages = warning;
DROP ROLE IF EXISTS golden_asked;
CREATE ROLE golden_asked LOGIN IN ROLE billing_customer;
SELECT billing.customer_login_add('acme', 'golden_asked');
CREATE TABLE said AS SELECT q.*, c.allowed, c.reason, c.used, c.remaining FROM question q CROSS JOIN LATERAL billing.entitlement_check('acme', q.feature, q.quantity, q.properties, q.bill_to) c;
GRANT SELECT ON said TO golden_asked;
SET ROLE golden_asked;
SELECT count(*) AS answers, count(*) FILTER (WHERE (s.allowed, s.reason, s.used, s.remaining) IS DISTINCT FROM (c.allowed, c.reason, c.used, c.remaining)) AS otherwise, count(w.command) AS commands
FROM said s CROSS JOIN LATERAL billing.entitlement_check('acme', s.feature, s.quantity, s.properties, s.bill_to) c CROSS JOIN LATERAL billing.why_denied('acme', s.feature, s.quantity, s.properties, s.bill_to) w;
RESET ROLE;
SELECT billing.customer_login_remove('acme', 'golden_asked');
DROP TABLE said;
DROP ROLE golden_asked;

-- ── what lifts it ────────────────────────────────────────────────────────────────────────────────
SELECT * FROM pg_temp.lift('tokens', 60, '{"api_key": "k1", "model": "a", "out": 3}', 'gmbh');
SELECT * FROM pg_temp.lift('tokens', 60, '{"api_key": "k2"}');
SELECT * FROM pg_temp.lift('tokens', 1, '{"tokens": 150}');
-- Of other usage no exception would.
SELECT * FROM pg_temp.lift('big', 41, '{"model": "a"}');
SELECT * FROM pg_temp.lift('gmbh', 5, '{}', 'inc');
SELECT e.feature, e.quota, s.match, s.resets FROM billing.entitlements('acme') e JOIN billing.feature f ON f.key = e.feature JOIN billing.entitlement_state s USING (feature_id) WHERE e.feature IN ('big', 'gmbh') AND s.valid_during @> billing.now() ORDER BY 1;
SELECT pg_temp.fails(format('SELECT * FROM billing.%I(%L, %L, 1, %s)', f, 'acme', 'tokens', a)) FROM unnest('{entitled,entitlement_check,why_denied}'::text[]) f, unnest('{"''{}'', ''nobody''","''[1]''"}'::text[]) a;
SELECT billing.entitled('acme', 'tokens', 1, NULL, NULL);
DROP TABLE question;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

-- 1,000 customers of one plan with 1,000 features, of which some are asked for: a boolean, a quota with about 100 unfolded rows
-- of usage each; and of as many more who consume. And the same as bare tables.
--
-- The first customer subscribes to the whole plan. The others subscribe to what is asked for, and what the first one's other
-- features were compiled to is copied to them: compiling them a thousand times would measure contract_create().
CREATE SCHEMA bench;
SELECT count(*) FROM billing.catalog_apply(jsonb_build_object(
    'meters', '[{"key": "gate-tokens", "event_type": "gate", "aggregation": "sum", "value": "tokens"}, {"key": "gate-calls", "event_type": "gate-call", "aggregation": "sum", "value": "n"}]'::jsonb,
    'features', (SELECT jsonb_agg(jsonb_build_object('key', 'gate-' || n, 'kind', 'boolean')) FROM generate_series(1, 997) n)
        || '[{"key": "gate-static", "kind": "static"}, {"key": "gate-tokens", "kind": "metered", "meter": "gate-tokens"}, {"key": "gate-calls", "kind": "metered", "meter": "gate-calls"}]',
    'plans', (SELECT jsonb_agg(jsonb_build_object('key', p.key, 'currency', 'USD', 'entitlements', p.others
            || '[{"feature": "gate-static", "value": "x"}, {"feature": "gate-tokens", "value": "1000000000"}, {"feature": "gate-calls", "value": "1000000000000"}]'))
        FROM (VALUES ('gate', (SELECT jsonb_agg(jsonb_build_object('feature', 'gate-' || n)) FROM generate_series(1, 997) n)), ('asked', '[]')) p (key, others))));
-- Where there are customers already, a new meter is measured for them; until that is through readers ask events.
CALL billing.meter_rebuild();
SELECT count(billing.customer_upsert(jsonb_build_object('key', 'gate-' || n, 'currency', 'USD'))) FROM generate_series(1, :customers) n;
SELECT count(billing.subscribe('gate-' || n, CASE n WHEN 1 THEN 'gate' ELSE 'asked' END)) FROM generate_series(1, :customers) n;
SELECT count(billing.customer_upsert(jsonb_build_object('key', 'use-' || n, 'currency', 'USD'))) FROM generate_series(1, :customers) n;
SELECT count(billing.subscribe('use-' || n, 'asked')) FROM generate_series(1, :customers) n;
-- No triggers: the keys that rows refer to are the first one's.
SET session_replication_role = replica;
INSERT INTO billing.entitlement_state
SELECT c.customer_id, s.feature_id, s.valid_during, s.suspended, s.value, s.quota, s.mode, s.resets, s.length, s.zone, s.starts_on, s.every, s.alignment, s.match, s.rollover, s.rate, s.source, s.heard
FROM billing.customer one JOIN billing.entitlement_state s USING (customer_id) JOIN billing.customer c ON c.key LIKE 'gate-%' AND c.key <> one.key
JOIN billing.feature f USING (feature_id) WHERE one.key = 'gate-1' AND f.kind = 'boolean';
RESET session_replication_role;
CALL billing.fold();
-- About 100 rows that are not folded: each call adds one a meter.
SELECT sum((SELECT sum(accepted) FROM billing.ingest((SELECT json_agg(json_build_object('customer', 'gate-' || c, 'event_id', 'gate-' || c || '-' || n, 'event_type', 'gate', 'occurred_at', billing.now(),
    'properties', json_build_object('tokens', n))) FROM generate_series(1, :customers) c)))) AS events FROM generate_series(1, 100) n;
CREATE TABLE bench.flag (customer text COLLATE "C", feature text COLLATE "C", allowed boolean NOT NULL, PRIMARY KEY (customer, feature));
INSERT INTO bench.flag SELECT 'gate-' || c, 'gate-static', true FROM generate_series(1, :customers) c;
-- What a user would write: a counter that is compared and counted up, and a row that says why.
CREATE TABLE bench.counter (customer text COLLATE "C", feature text COLLATE "C", used numeric NOT NULL, quota numeric NOT NULL, PRIMARY KEY (customer, feature)) WITH (fillfactor = 50);
INSERT INTO bench.counter SELECT 'use-' || c, 'gate-calls', 0, 1000000000000 FROM generate_series(1, :customers) c;
CREATE TABLE bench.consumed (customer text COLLATE "C", idempotency_key text COLLATE "C", n numeric NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (customer, idempotency_key));
ANALYZE;

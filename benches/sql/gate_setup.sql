-- 1,000 customers of one plan with 1,000 features, of which some are asked for: a boolean, a quota with about 100 unfolded rows
-- of usage each, and one that is consumed. And the same as bare tables.
CREATE SCHEMA bench;
SELECT count(*) FROM billing.catalog_apply(jsonb_build_object(
    'meters', '[{"key": "gate-tokens", "event_type": "gate", "aggregation": "sum", "value": "tokens"}, {"key": "gate-calls", "event_type": "gate-call", "aggregation": "sum", "value": "n"}]'::jsonb,
    'features', (SELECT jsonb_agg(jsonb_build_object('key', 'gate-' || n, 'kind', 'boolean')) FROM generate_series(1, 997) n)
        || '[{"key": "gate-static", "kind": "static"}, {"key": "gate-tokens", "kind": "metered", "meter": "gate-tokens"}, {"key": "gate-calls", "kind": "metered", "meter": "gate-calls"}]',
    'plans', jsonb_build_array(jsonb_build_object('key', 'gate', 'currency', 'USD', 'entitlements', (SELECT jsonb_agg(jsonb_build_object('feature', 'gate-' || n)) FROM generate_series(1, 997) n)
        || '[{"feature": "gate-static", "value": "x"}, {"feature": "gate-tokens", "value": "1000000000"}, {"feature": "gate-calls", "value": "1000000000000"}]'))));
SELECT count(billing.customer_upsert(jsonb_build_object('key', 'gate-' || n, 'currency', 'USD'))) FROM generate_series(1, :customers) n;
SELECT count(billing.subscribe('gate-' || n, 'gate')) FROM generate_series(1, :customers) n;
CALL billing.fold();
-- About 100 rows that are not folded: each call adds one a meter.
SELECT sum((SELECT sum(accepted) FROM billing.ingest((SELECT json_agg(json_build_object('customer', 'gate-' || c, 'event_id', 'gate-' || c || '-' || n, 'event_type', 'gate', 'occurred_at', billing.now(),
    'properties', json_build_object('tokens', n))) FROM generate_series(1, :customers) c)))) AS events FROM generate_series(1, 100) n;
CREATE TABLE bench.flag (customer text COLLATE "C", feature text COLLATE "C", allowed boolean NOT NULL, PRIMARY KEY (customer, feature));
INSERT INTO bench.flag SELECT 'gate-' || c, 'gate-static', true FROM generate_series(1, :customers) c;
-- What a user would write: a counter that is compared and counted up, and a row that says why.
CREATE TABLE bench.counter (customer text COLLATE "C", feature text COLLATE "C", used numeric NOT NULL, quota numeric NOT NULL, PRIMARY KEY (customer, feature)) WITH (fillfactor = 50);
INSERT INTO bench.counter SELECT 'gate-' || c, 'gate-calls', 0, 1000000000000 FROM generate_series(1, :customers) c;
CREATE TABLE bench.consumed (customer text COLLATE "C", idempotency_key text COLLATE "C", n numeric NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (customer, idempotency_key));
ANALYZE;

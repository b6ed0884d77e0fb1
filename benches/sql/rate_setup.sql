-- 1,000 customers with a rate limit that is never reached, and a bare row for each.
CREATE SCHEMA bench;
SELECT count(*) FROM billing.catalog_apply('{"features": [{"key": "rate-api", "kind": "rate_limit"}],
    "plans": [{"key": "rate", "currency": "USD", "entitlements": [{"feature": "rate-api", "rate": {"limit": "1000000", "per": "1 second", "burst": "1000"}}]}]}');
SELECT count(billing.customer_upsert(jsonb_build_object('key', 'rate-' || n, 'currency', 'USD'))) FROM generate_series(1, 1000) n;
SELECT count(billing.subscribe('rate-' || n, 'rate')) FROM generate_series(1, 1000) n;
CREATE TABLE bench.rate (customer_id bigint PRIMARY KEY, level numeric NOT NULL);
INSERT INTO bench.rate SELECT n, n FROM generate_series(1, 1000) n;
ANALYZE;

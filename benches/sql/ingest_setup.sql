-- Data of the ingest benches, made once per run and not timed: batches of 1,000 events as JSON documents and as
-- typed rows, for the engine and for the bare tables it is measured against.
-- psql variables: batches, customers (per installation), spread (customers in one batch)
\set ON_ERROR_STOP on
CREATE SCHEMA bench;

SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "ai-api"}],
  "meters": [
    {"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "input_tokens + output_tokens", "dimensions": ["model", "region", "tier"], "unit": "token"},
    {"key": "requests", "event_type": "llm.request", "aggregation": "count", "dimensions": ["model", "region", "tier"], "unit": "request"},
    {"key": "output", "event_type": "llm.request", "aggregation": "sum", "value": "output_tokens", "filter": {"tool_calls": {"gte": 0}}, "dimensions": ["model", "region", "tier"], "unit": "token"},
    {"key": "longest", "event_type": "llm.request", "aggregation": "max", "value": "input_tokens", "dimensions": ["model", "region", "tier"], "unit": "token"}]}') \gset
SELECT count(billing.customer_upsert(jsonb_build_object('key', 'bench-' || n))) AS made FROM generate_series(1, :customers) n \gset

-- Time-ordered ids (UUIDv7-like: the event's milliseconds, then random bits) unless random_ids is set.
CREATE TABLE bench.event AS
SELECT b AS batch, c.customer_id, c.key AS customer,
    CASE WHEN :random_ids THEN gen_random_uuid() ELSE
        (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3) || 'a' || substr(md5(random()::text), 1, 15))::uuid END AS event_key,
    at AS occurred_at,
    json_build_object('model', 'model-' || (random() * 3)::int, 'region', CASE WHEN random() < 0.5 THEN 'eu' ELSE 'us' END, 'tier', CASE WHEN random() < 0.8 THEN 'std' ELSE 'pro' END,
        'input_tokens', (random() * 4000)::int, 'output_tokens', (random() * 800)::int, 'tool_calls', (random() * 3)::int)::text AS properties
FROM generate_series(1, :batches) b CROSS JOIN generate_series(1, 1000) i
CROSS JOIN LATERAL (SELECT timestamptz '2026-06-01Z' + b * interval '1 second' + i * interval '1 millisecond' AS at) t
JOIN billing.customer c ON c.customer_id = 1 + (b * 7 + i % :spread) % :customers;
CREATE INDEX ON bench.event (batch);

CREATE TABLE bench.document (batch int PRIMARY KEY, events json);
ALTER TABLE bench.document ALTER COLUMN events SET STORAGE EXTERNAL;
INSERT INTO bench.document
SELECT batch, json_agg(json_build_object('customer', customer, 'event_id', event_key, 'event_type', 'llm.request', 'occurred_at', to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'properties', properties::json))
FROM bench.event GROUP BY batch;

-- The bare tables: the same columns, partitions and indexes as the engine's.
CREATE TABLE bench.usage_event_key (LIKE billing.usage_event_key INCLUDING ALL) PARTITION BY HASH (customer_id);
SELECT format('CREATE TABLE bench.usage_event_key_%s PARTITION OF bench.usage_event_key FOR VALUES WITH (MODULUS 16, REMAINDER %s)', i, i) FROM generate_series(0, 15) i \gexec
CREATE TABLE bench.usage_event (LIKE billing.usage_event INCLUDING ALL) PARTITION BY RANGE (occurred_at);
CREATE TABLE bench.usage_event_2026_06 PARTITION OF bench.usage_event FOR VALUES FROM ('2026-06-01Z') TO ('2026-07-01Z');
CREATE INDEX ON bench.usage_event (customer_id, occurred_at);

-- What "bare" means: the batch's keys, sorted, then its events; typed rows, no parsing, no metering.
CREATE FUNCTION bench.bare(b int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    INSERT INTO bench.usage_event_key (customer_id, event_key, occurred_at, content_hash)
    SELECT customer_id, event_key, occurred_at, 0 FROM bench.event WHERE batch = b ORDER BY customer_id, event_key ON CONFLICT DO NOTHING;
    INSERT INTO bench.usage_event (customer_id, event_key, occurred_at, recorded_at, event_type, event_id, properties)
    SELECT customer_id, event_key, occurred_at, clock_timestamp(), 'llm.request', event_key::text, properties::jsonb FROM bench.event WHERE batch = b;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$$;

-- Runs a call for each batch, one transaction each, and adds the seconds of call and commit to bench.result.
-- prepare is run before each call and not timed. Both see the batch as $1.
CREATE TABLE bench.result (what text, events bigint, seconds double precision);
CREATE PROCEDURE bench.measure(what text, call text, first int, last int, prepare text DEFAULT NULL, calls int DEFAULT 1) LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz;
    spent double precision := 0;
BEGIN
    FOR b IN first..last BY calls LOOP
        IF prepare IS NOT NULL THEN
            FOR i IN 0..calls - 1 LOOP
                EXECUTE prepare USING b + i;
            END LOOP;
            COMMIT;
        END IF;
        started := clock_timestamp();
        FOR i IN 0..calls - 1 LOOP
            EXECUTE call USING b + i;
        END LOOP;
        COMMIT;
        spent := spent + extract(epoch FROM clock_timestamp() - started);
    END LOOP;
    INSERT INTO bench.result VALUES (what, (last - first + 1) * 1000, spent);
    COMMIT;
END
$$;

-- Typed rows of one batch, as ingest_from() takes them.
CREATE VIEW bench.input AS SELECT e.batch, e.customer, 'llm.request' AS event_type, e.event_key::text AS event_id, e.occurred_at::text AS occurred_at, e.properties::json AS properties FROM bench.event e;

GRANT USAGE ON SCHEMA bench TO billing_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA bench TO billing_app;
VACUUM ANALYZE bench.event, bench.document;
CHECKPOINT;

-- :events events of June 2026 for a thousand customers and ten models, ingested and folded, and exported for others.
\set ON_ERROR_STOP on
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "meters": [{"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "tokens", "dimensions": ["model"], "unit": "token"}]}') \gset
SELECT count(billing.customer_upsert(jsonb_build_object('key', 'side-' || n))) AS made FROM generate_series(1, 1000) n \gset
CREATE SCHEMA bench;
CREATE TABLE bench.chunk AS SELECT n AS first, least(n + 499999, :events) AS last, :events AS events FROM generate_series(1, :events, 500000) n;
CREATE FUNCTION bench.event_of(first bigint, last bigint, events bigint) RETURNS TABLE (customer text, id text, at timestamptz, model text, tokens int) LANGUAGE sql STABLE AS $$
    -- Scattered by multiplication, so that neither customers nor models come in runs.
    SELECT 'side-' || 1 + (n * 7919) % 1000, 'e' || n, '2026-06-01Z'::timestamptz + n * (interval '30 days' / events::float8), 'model-' || (n * 104729) / 1000 % 10, ((n * 31337) % 4000)::int
    FROM generate_series(first, last) n
$$;
CREATE PROCEDURE bench.fill() LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT * FROM bench.chunk ORDER BY first LOOP
        TRUNCATE batch;
        INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
        SELECT e.customer, 'llm.request', e.id, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), json_build_object('model', e.model, 'tokens', e.tokens) FROM bench.event_of(c.first, c.last, c.events) e;
        COMMIT;
        PERFORM billing.ingest_from('batch');
        COMMIT;
    END LOOP;
END
$$;
CREATE TEMP TABLE batch (LIKE billing.usage_event_input);
CALL bench.fill();
CALL billing.fold();
VACUUM ANALYZE;

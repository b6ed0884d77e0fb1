-- :stored event keys of a year before June 2026, as many as :customers customers would have, without their events: what
-- every further key has to be told from. The key is built anew over them, packed as it would be after growing: full where
-- ids come in the order of time, 70 % where they come at random.
\set ON_ERROR_STOP on
SELECT CASE WHEN :random_ids THEN 70 ELSE 90 END AS fill \gset
SELECT format('ALTER TABLE billing.usage_event_key DROP CONSTRAINT %I', conname) AS dropped FROM pg_constraint WHERE conrelid = 'billing.usage_event_key'::regclass AND contype = 'p' \gset
:dropped;
CREATE PROCEDURE bench.fill(stored bigint, customers int, random_ids boolean) LANGUAGE plpgsql AS $$
BEGIN
    FOR chunk IN 0..(stored - 1) / 1000000 LOOP
        INSERT INTO billing.usage_event_key (customer_id, event_key, occurred_at, content_hash)
        SELECT 1 + n % customers, CASE WHEN random_ids THEN gen_random_uuid() ELSE
            (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3) || 'a' || substr(md5(n::text), 4, 15))::uuid END, at, n
        FROM generate_series(chunk * 1000000, least(stored, (chunk + 1) * 1000000) - 1) n
        CROSS JOIN LATERAL (SELECT timestamptz '2025-06-01Z' + n * (interval '365 days' / stored::float8) AS at) t;
        COMMIT;
    END LOOP;
END
$$;
CALL bench.fill(:stored, :customers, :random_ids);
SET maintenance_work_mem = '1GB';
ALTER TABLE billing.usage_event_key ADD PRIMARY KEY (customer_id, event_key) WITH (fillfactor = :fill);
SELECT format('ALTER INDEX %s RESET (fillfactor)', i.indexrelid::regclass) FROM pg_partition_tree('billing.usage_event_key') t JOIN pg_index i ON i.indrelid = t.relid AND i.indisprimary WHERE t.isleaf \gexec
VACUUM (FREEZE, ANALYZE) billing.usage_event_key;
CHECKPOINT;

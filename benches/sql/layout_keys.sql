-- The table bench.keys of identities in one :layout, with :stored of them, packed as it would be after growing (see
-- growth_fill.sql), and batches of 1,000 new ones to be added: bench.add(batch).
\set ON_ERROR_STOP on
DROP TABLE IF EXISTS bench.keys, bench.new_key;
SELECT CASE WHEN :random_ids THEN 70 ELSE 90 END AS fill, CASE :'layout' WHEN 'text' THEN 'text COLLATE "C"' ELSE 'uuid' END AS id, CASE :'layout' WHEN 'sixteen' THEN 'PARTITION BY HASH (customer_id)' ELSE '' END AS parts,
    CASE WHEN :random_ids THEN 'gen_random_uuid()' ELSE
        '(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, ''0'') || ''7'' || substr(md5(n::text), 1, 3) || ''a'' || substr(md5(n::text), 4, 15))::uuid' END AS made \gset
CREATE TABLE bench.keys (customer_id bigint NOT NULL, id :id NOT NULL, occurred_at timestamptz NOT NULL, content_hash bigint NOT NULL) :parts;
SELECT format('CREATE TABLE bench.keys_%s PARTITION OF bench.keys FOR VALUES WITH (MODULUS 16, REMAINDER %s)', i, i) FROM generate_series(0, 15) i WHERE :'layout' = 'sixteen' \gexec
INSERT INTO bench.keys SELECT 1 + n % 500, (:made)::text:::id, at, n
FROM generate_series(0, :stored - 1) n CROSS JOIN LATERAL (SELECT timestamptz '2025-06-01Z' + n * (interval '365 days' / :stored::float8) AS at) t;
SET maintenance_work_mem = '1GB';
ALTER TABLE bench.keys ADD PRIMARY KEY (customer_id, id) WITH (fillfactor = :fill);
SELECT format('ALTER INDEX %s RESET (fillfactor)', i.indexrelid::regclass) FROM (SELECT relid FROM pg_partition_tree('bench.keys') WHERE isleaf UNION SELECT 'bench.keys' WHERE :'layout' <> 'sixteen') t JOIN pg_index i ON i.indrelid = t.relid AND i.indisprimary \gexec
CREATE TABLE bench.new_key AS SELECT b AS batch, 1 + (b * 7 + n % 20) % 500 AS customer_id, (:made)::text:::id AS id, at AS occurred_at
FROM generate_series(1, :batches) b, generate_series(1, 1000) i CROSS JOIN LATERAL (SELECT b * 1000 + i AS n, timestamptz '2026-06-01Z' + b * interval '1 second' + i * interval '1 millisecond' AS at) t;
CREATE INDEX ON bench.new_key (batch);
CREATE OR REPLACE FUNCTION bench.add(b int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO bench.keys SELECT k.customer_id, k.id, k.occurred_at, 0 FROM bench.new_key k WHERE k.batch = b ORDER BY k.customer_id, k.id ON CONFLICT DO NOTHING;
END
$$;
VACUUM (FREEZE, ANALYZE) bench.keys;
VACUUM ANALYZE bench.new_key;
CHECKPOINT;

-- Bytes of table and of key, for each stored key: total, then a key.
SELECT pg_size_pretty(sum(pg_table_size(relid))), pg_size_pretty(sum(pg_indexes_size(relid))), round(sum(pg_table_size(relid)) / :stored), round(sum(pg_indexes_size(relid)) / :stored)
FROM pg_partition_tree('billing.usage_event_key') WHERE isleaf;

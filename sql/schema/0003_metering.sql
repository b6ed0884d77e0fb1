-- Metering: what events count for. Ingest inserts deltas, fold moves them into buckets, readers add both.

CREATE TABLE billing.meter (
    meter_id int PRIMARY KEY CHECK (meter_id > 0),
    key text COLLATE "C" NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200),
    event_type text COLLATE "C" NOT NULL,
    aggregation text COLLATE "C" NOT NULL CHECK (aggregation IN ('count', 'sum', 'max', 'unique_count')),
    value text,
    filter jsonb NOT NULL DEFAULT '{}',
    dimensions text[] COLLATE "C" NOT NULL DEFAULT '{}',
    unit text,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz,
    counts boolean NOT NULL DEFAULT true
);
CREATE INDEX meter_event_type_idx ON billing.meter (event_type);
COMMENT ON TABLE billing.meter IS 'What is counted: which events, which value, how it is aggregated, by which dimensions.';
COMMENT ON COLUMN billing.meter.meter_id IS 'Leads the keys of usage tables after customer_id.';
COMMENT ON COLUMN billing.meter.key IS 'Its key, unique.';
COMMENT ON COLUMN billing.meter.event_type IS 'Type of the events it looks at.';
COMMENT ON COLUMN billing.meter.aggregation IS 'count, sum, max or unique_count.';
COMMENT ON COLUMN billing.meter.value IS 'Value expression over the event''s properties; NULL for count.';
COMMENT ON COLUMN billing.meter.filter IS 'Conditions on properties; all must hold.';
COMMENT ON COLUMN billing.meter.dimensions IS 'Properties by which usage is kept apart, in order of priority. bill_to is always one more.';
COMMENT ON COLUMN billing.meter.unit IS 'What one unit is called: token, request.';
COMMENT ON COLUMN billing.meter.definition IS 'The whole canonical document, as ingest compiles it.';
COMMENT ON COLUMN billing.meter.created_at IS 'Real time.';
COMMENT ON COLUMN billing.meter.retired_at IS 'When it was closed to new charges; NULL = open.';
COMMENT ON COLUMN billing.meter.counts IS 'Whether events are measured on it: not if it was retired before any charge used it. One that was used goes on, for late usage of contracts that have ended.';
SELECT billing_internal.declare_table('billing.meter', 'catalogue', '{event_type, aggregation, value, filter, dimensions, unit, definition, retired_at, counts}',
    '{meter_id, key, event_type, aggregation, value, filter, dimensions, unit, definition, created_at, retired_at, counts}');

CREATE TABLE billing.dimension_set (
    customer_id bigint NOT NULL,
    dimension_set_id bigint NOT NULL,
    dimensions jsonb NOT NULL,
    PRIMARY KEY (customer_id, dimension_set_id)
);
COMMENT ON TABLE billing.dimension_set IS 'The dimension values behind each dimension_set_id. Filled by fold; until then the delta carries them.';
COMMENT ON COLUMN billing.dimension_set.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.dimension_set.dimension_set_id IS '53 bits of SHA-256 of the canonical dimensions.';
COMMENT ON COLUMN billing.dimension_set.dimensions IS 'Names and values: {"model":"gpt-4"}; bill_to is one of them where the event named it.';
SELECT billing_internal.declare_table('billing.dimension_set', 'customer-owned', '{}', '{customer_id, dimension_set_id, dimensions}');

CREATE TABLE billing.usage_delta (
    customer_id bigint NOT NULL,
    meter_id int NOT NULL,
    bucket_minutes smallint NOT NULL CHECK (bucket_minutes IN (15, 60)),
    bucket_start timestamptz NOT NULL,
    dimension_set_id bigint NOT NULL,
    events bigint NOT NULL CHECK (events >= 0),
    quantity numeric,
    dimensions jsonb,
    value_keys uuid[]
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX usage_delta_customer_idx ON billing.usage_delta (customer_id, meter_id, bucket_start);
ALTER TABLE billing.usage_delta REPLICA IDENTITY FULL;
COMMENT ON TABLE billing.usage_delta IS 'Usage not yet folded into buckets: one row per ingest call, customer, meter, bucket and dimension set.';
COMMENT ON COLUMN billing.usage_delta.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_delta.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.usage_delta.bucket_minutes IS 'Width of the bucket: 60 or 15 minutes.';
COMMENT ON COLUMN billing.usage_delta.bucket_start IS 'Start of the bucket (inclusive).';
COMMENT ON COLUMN billing.usage_delta.dimension_set_id IS 'Its dimension values.';
COMMENT ON COLUMN billing.usage_delta.events IS 'How many events counted.';
COMMENT ON COLUMN billing.usage_delta.quantity IS 'Sum or maximum of their values; NULL for count and unique count.';
COMMENT ON COLUMN billing.usage_delta.dimensions IS 'The dimension values, where dimension_set did not have them yet.';
COMMENT ON COLUMN billing.usage_delta.value_keys IS 'Keys of the distinct values, for unique count.';
SELECT billing_internal.declare_table('billing.usage_delta', 'customer-owned', '{}',
    '{customer_id, meter_id, bucket_minutes, bucket_start, dimension_set_id, events, quantity, dimensions, value_keys}');

CREATE TABLE billing.usage_bucket (
    customer_id bigint NOT NULL,
    meter_id int NOT NULL,
    bucket_start timestamptz NOT NULL,
    bucket_minutes smallint NOT NULL CHECK (bucket_minutes IN (15, 60)),
    dimension_set_id bigint NOT NULL,
    events bigint NOT NULL CHECK (events >= 0),
    quantity numeric,
    PRIMARY KEY (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id)
) PARTITION BY RANGE (bucket_start);
COMMENT ON TABLE billing.usage_bucket IS 'Folded usage. The truth is usage_event; buckets plus deltas always equal a fresh aggregation of it.';
COMMENT ON COLUMN billing.usage_bucket.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_bucket.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.usage_bucket.bucket_start IS 'Start of the bucket (inclusive).';
COMMENT ON COLUMN billing.usage_bucket.bucket_minutes IS 'Its width: 60 or 15 minutes.';
COMMENT ON COLUMN billing.usage_bucket.dimension_set_id IS 'Its dimension values.';
COMMENT ON COLUMN billing.usage_bucket.events IS 'How many events counted.';
COMMENT ON COLUMN billing.usage_bucket.quantity IS 'Sum or maximum of their values; NULL for count and unique count.';
SELECT billing_internal.declare_table('billing.usage_bucket', 'customer-owned', '{events, quantity}',
    '{customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, events, quantity}');

CREATE TABLE billing.usage_value (
    customer_id bigint NOT NULL,
    meter_id int NOT NULL,
    bucket_start timestamptz NOT NULL,
    bucket_minutes smallint NOT NULL CHECK (bucket_minutes IN (15, 60)),
    dimension_set_id bigint NOT NULL,
    value_key uuid NOT NULL,
    PRIMARY KEY (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, value_key)
) PARTITION BY RANGE (bucket_start);
COMMENT ON TABLE billing.usage_value IS 'The distinct values of unique-count meters, per bucket.';
COMMENT ON COLUMN billing.usage_value.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_value.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.usage_value.bucket_start IS 'Start of the bucket (inclusive).';
COMMENT ON COLUMN billing.usage_value.bucket_minutes IS 'Its width: 60 or 15 minutes.';
COMMENT ON COLUMN billing.usage_value.dimension_set_id IS 'Its dimension values.';
COMMENT ON COLUMN billing.usage_value.value_key IS 'Key of the value: a UUID as it is, other text by 128 bits of SHA-256.';
SELECT billing_internal.declare_table('billing.usage_value', 'customer-owned', '{}',
    '{customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, value_key}');

-- ── views ────────────────────────────────────────────────────────────────────────────────────────

CREATE VIEW billing_internal.usage_cell WITH (security_invoker = true) AS
    SELECT b.customer_id, b.meter_id, b.bucket_start, b.bucket_minutes, b.dimension_set_id, s.dimensions, b.events, b.quantity, NULL::uuid[] AS value_keys
    FROM billing.usage_bucket b JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    UNION ALL
    SELECT d.customer_id, d.meter_id, d.bucket_start, d.bucket_minutes, d.dimension_set_id, coalesce(d.dimensions, s.dimensions), d.events, d.quantity, d.value_keys
    FROM billing.usage_delta d LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id);
COMMENT ON VIEW billing_internal.usage_cell IS 'Buckets and unfolded deltas side by side, with their dimensions. Distinct values of folded buckets are in usage_value.';
COMMENT ON COLUMN billing_internal.usage_cell.customer_id IS 'The customer.';
COMMENT ON COLUMN billing_internal.usage_cell.meter_id IS 'The meter.';
COMMENT ON COLUMN billing_internal.usage_cell.bucket_start IS 'Start of the bucket (inclusive).';
COMMENT ON COLUMN billing_internal.usage_cell.bucket_minutes IS 'Its width: 60 or 15 minutes.';
COMMENT ON COLUMN billing_internal.usage_cell.dimension_set_id IS 'Id of its dimension values.';
COMMENT ON COLUMN billing_internal.usage_cell.dimensions IS 'Its dimension values.';
COMMENT ON COLUMN billing_internal.usage_cell.events IS 'How many events counted.';
COMMENT ON COLUMN billing_internal.usage_cell.quantity IS 'Sum or maximum of their values; NULL for count and unique count.';
COMMENT ON COLUMN billing_internal.usage_cell.value_keys IS 'Distinct values of an unfolded delta of a unique-count meter.';
GRANT SELECT ON billing_internal.usage_cell TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing_internal.usage_distinct WITH (security_invoker = true) AS
    SELECT v.customer_id, v.meter_id, v.bucket_start, v.bucket_minutes, v.dimension_set_id, s.dimensions, v.value_key
    FROM billing.usage_value v JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    UNION ALL
    SELECT d.customer_id, d.meter_id, d.bucket_start, d.bucket_minutes, d.dimension_set_id, coalesce(d.dimensions, s.dimensions), unnest(d.value_keys)
    FROM billing.usage_delta d LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    WHERE d.value_keys IS NOT NULL;
COMMENT ON VIEW billing_internal.usage_distinct IS 'Distinct values of unique-count meters, folded or not (a value may stand twice), with their dimensions.';
COMMENT ON COLUMN billing_internal.usage_distinct.customer_id IS 'The customer.';
COMMENT ON COLUMN billing_internal.usage_distinct.meter_id IS 'The meter.';
COMMENT ON COLUMN billing_internal.usage_distinct.bucket_start IS 'Start of the bucket (inclusive).';
COMMENT ON COLUMN billing_internal.usage_distinct.bucket_minutes IS 'Its width: 60 or 15 minutes.';
COMMENT ON COLUMN billing_internal.usage_distinct.dimension_set_id IS 'Id of its dimension values.';
COMMENT ON COLUMN billing_internal.usage_distinct.dimensions IS 'Its dimension values.';
COMMENT ON COLUMN billing_internal.usage_distinct.value_key IS 'Key of the value.';
GRANT SELECT ON billing_internal.usage_distinct TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing.usage_hourly WITH (security_invoker = true) AS
    SELECT u.customer_id, u.customer, u.meter, u.aggregation, u.unit, u.hour_start, u.dimensions,
        (CASE u.aggregation WHEN 'count' THEN sum(u.events) WHEN 'sum' THEN sum(u.quantity) WHEN 'max' THEN max(u.quantity)
            ELSE count(DISTINCT u.value_key) END)::numeric(50, 12) AS quantity,
        coalesce(sum(u.events), 0)::bigint AS events
    FROM (
        SELECT c.customer_id, k.key AS customer, m.key AS meter, m.aggregation, m.unit, date_trunc('hour', c.bucket_start, 'UTC') AS hour_start,
            c.dimensions, c.quantity, c.events, NULL::uuid AS value_key
        FROM billing_internal.usage_cell c JOIN billing.meter m USING (meter_id) JOIN billing.customer k USING (customer_id)
        UNION ALL
        SELECT d.customer_id, k.key, m.key, m.aggregation, m.unit, date_trunc('hour', d.bucket_start, 'UTC'), d.dimensions, NULL, NULL, d.value_key
        FROM billing_internal.usage_distinct d JOIN billing.meter m USING (meter_id) JOIN billing.customer k USING (customer_id)
    ) u
    GROUP BY u.customer_id, u.customer, u.meter, u.aggregation, u.unit, u.hour_start, u.dimensions;
COMMENT ON VIEW billing.usage_hourly IS 'Usage per customer, meter, UTC hour and dimension values, current at commit. Sums over hours are right for count and sum; for max take max, for unique_count use billing.usage().';
COMMENT ON COLUMN billing.usage_hourly.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.usage_hourly.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.usage_hourly.meter IS 'The meter''s key.';
COMMENT ON COLUMN billing.usage_hourly.aggregation IS 'count, sum, max or unique_count.';
COMMENT ON COLUMN billing.usage_hourly.unit IS 'What one unit is called.';
COMMENT ON COLUMN billing.usage_hourly.hour_start IS 'Start of the hour (inclusive), on UTC hours.';
COMMENT ON COLUMN billing.usage_hourly.dimensions IS 'Dimension values: {"model":"gpt-4"}.';
COMMENT ON COLUMN billing.usage_hourly.quantity IS 'The aggregated value in the meter''s unit.';
COMMENT ON COLUMN billing.usage_hourly.events IS 'How many events counted.';
GRANT SELECT ON billing.usage_hourly TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing.usage_daily WITH (security_invoker = true) AS
    SELECT u.customer_id, u.customer, u.meter, u.aggregation, u.unit, u.day, u.dimensions,
        (CASE u.aggregation WHEN 'count' THEN sum(u.events) WHEN 'sum' THEN sum(u.quantity) WHEN 'max' THEN max(u.quantity)
            ELSE count(DISTINCT u.value_key) END)::numeric(50, 12) AS quantity,
        coalesce(sum(u.events), 0)::bigint AS events
    FROM (
        SELECT c.customer_id, k.key AS customer, m.key AS meter, m.aggregation, m.unit, (c.bucket_start AT TIME ZONE k.time_zone)::date AS day,
            c.dimensions, c.quantity, c.events, NULL::uuid AS value_key
        FROM billing_internal.usage_cell c JOIN billing.meter m USING (meter_id) JOIN billing.customer k USING (customer_id)
        UNION ALL
        SELECT d.customer_id, k.key, m.key, m.aggregation, m.unit, (d.bucket_start AT TIME ZONE k.time_zone)::date, d.dimensions, NULL, NULL, d.value_key
        FROM billing_internal.usage_distinct d JOIN billing.meter m USING (meter_id) JOIN billing.customer k USING (customer_id)
    ) u
    GROUP BY u.customer_id, u.customer, u.meter, u.aggregation, u.unit, u.day, u.dimensions;
COMMENT ON VIEW billing.usage_daily IS 'Usage per customer, meter, local day of the customer''s zone and dimension values, current at commit. Sums over days are right for count and sum; for max take max, for unique_count use billing.usage().';
COMMENT ON COLUMN billing.usage_daily.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.usage_daily.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.usage_daily.meter IS 'The meter''s key.';
COMMENT ON COLUMN billing.usage_daily.aggregation IS 'count, sum, max or unique_count.';
COMMENT ON COLUMN billing.usage_daily.unit IS 'What one unit is called.';
COMMENT ON COLUMN billing.usage_daily.day IS 'Local date in the customer''s time zone.';
COMMENT ON COLUMN billing.usage_daily.dimensions IS 'Dimension values: {"model":"gpt-4"}.';
COMMENT ON COLUMN billing.usage_daily.quantity IS 'The aggregated value in the meter''s unit.';
COMMENT ON COLUMN billing.usage_daily.events IS 'How many events counted.';
GRANT SELECT ON billing.usage_daily TO billing_engine, billing_reader, billing_customer;

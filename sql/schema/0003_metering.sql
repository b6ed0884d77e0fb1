-- Metering: what events count for. Ingest inserts deltas, fold moves them into buckets, readers add both.

CREATE TABLE billing.meter (
    meter_id int PRIMARY KEY CHECK (meter_id > 0),
    key text COLLATE "C" NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200),
    event_type text COLLATE "C",
    aggregation text COLLATE "C" NOT NULL CHECK (aggregation IN ('count', 'sum', 'max', 'min', 'average', 'latest', 'weighted_sum', 'percentile', 'unique_count', 'compound')),
    value text,
    filter jsonb NOT NULL DEFAULT '{}',
    dimensions text[] COLLATE "C" NOT NULL DEFAULT '{}',
    unit text,
    definition jsonb NOT NULL,
    version int NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL,
    retired_at timestamptz,
    counts boolean NOT NULL DEFAULT true,
    state text COLLATE "C" NOT NULL GENERATED ALWAYS AS (CASE
        WHEN definition->>'aggregation' = 'compound' THEN 'none'
        WHEN definition ? 'operation' THEN 'presence'
        ELSE CASE coalesce(definition->'per'->>'aggregation', definition->>'aggregation') WHEN 'percentile' THEN 'count' WHEN 'average' THEN 'sum'
            WHEN 'weighted_sum' THEN 'level' WHEN 'unique_count' THEN 'unique' ELSE coalesce(definition->'per'->>'aggregation', definition->>'aggregation') END
        END) STORED,
    additive boolean NOT NULL GENERATED ALWAYS AS (definition->>'aggregation' IN ('count', 'sum') AND NOT definition ? 'per' AND NOT definition ? 'rounding') STORED
);
CREATE INDEX meter_event_type_idx ON billing.meter (event_type);
COMMENT ON TABLE billing.meter IS 'What is counted: which events, which value, how it is aggregated, by which dimensions. Its newest version; all of them are in meter_version.';
COMMENT ON COLUMN billing.meter.meter_id IS 'Leads the keys of usage tables after customer_id.';
COMMENT ON COLUMN billing.meter.key IS 'Its key, unique.';
COMMENT ON COLUMN billing.meter.event_type IS 'Type of the events it looks at; NULL for a compound, which looks at other meters.';
COMMENT ON COLUMN billing.meter.aggregation IS 'count, sum, max, min, average, latest, weighted_sum, percentile, unique_count or compound; with "per" in its definition that of the second step.';
COMMENT ON COLUMN billing.meter.value IS 'Value expression over the event''s properties; NULL for count.';
COMMENT ON COLUMN billing.meter.filter IS 'Conditions on properties; all must hold.';
COMMENT ON COLUMN billing.meter.dimensions IS 'Properties by which usage is kept apart, in order of priority. bill_to is always one more.';
COMMENT ON COLUMN billing.meter.unit IS 'What one unit is called: token, request.';
COMMENT ON COLUMN billing.meter.definition IS 'The whole canonical document, as ingest compiles it.';
COMMENT ON COLUMN billing.meter.version IS 'Number of its newest version, from 1.';
COMMENT ON COLUMN billing.meter.created_at IS 'Real time.';
COMMENT ON COLUMN billing.meter.retired_at IS 'When it was closed to new charges; NULL = open.';
COMMENT ON COLUMN billing.meter.counts IS 'Whether events are measured on it: not if it was retired before any charge used it. One that was used goes on, for late usage of contracts that have ended.';
COMMENT ON COLUMN billing.meter.state IS 'What its buckets hold: count, sum, max, min, latest, level (changes of a level and when they came), unique (values), presence (values and their last operation), none.';
COMMENT ON COLUMN billing.meter.additive IS 'Whether the quantities of the parts of a period add up to that of the whole: counts and sums. Everything else has one price a period.';
SELECT billing_internal.declare_table('billing.meter', 'catalogue', '{event_type, aggregation, value, filter, dimensions, unit, definition, version, retired_at, counts}',
    '{meter_id, key, event_type, aggregation, value, filter, dimensions, unit, definition, version, created_at, retired_at, counts, state, additive}');

CREATE TABLE billing.meter_version (
    meter_id int NOT NULL REFERENCES billing.meter,
    version int NOT NULL CHECK (version > 0),
    valid_from timestamptz NOT NULL,
    definition jsonb NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (meter_id, version)
);
COMMENT ON TABLE billing.meter_version IS 'Every definition a meter has had. An event is measured by the newest version among those valid when it happened; an invoice recomputes with the versions it was made with.';
COMMENT ON COLUMN billing.meter_version.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.meter_version.version IS 'Its number, from 1; a higher one was recorded later and decides where both are valid.';
COMMENT ON COLUMN billing.meter_version.valid_from IS 'Events that happened from then on (inclusive) are measured by it; -infinity for the first.';
COMMENT ON COLUMN billing.meter_version.definition IS 'The whole canonical document.';
COMMENT ON COLUMN billing.meter_version.recorded_at IS 'Real time.';
SELECT billing_internal.declare_table('billing.meter_version', 'catalogue', '{}', '{meter_id, version, valid_from, definition, recorded_at}');

CREATE TABLE billing.meter_rebuild (
    meter_rebuild_id uuid PRIMARY KEY,
    meter_id int NOT NULL REFERENCES billing.meter,
    from_at timestamptz NOT NULL,
    until_at timestamptz NOT NULL CHECK (until_at > from_at),
    reason text NOT NULL,
    requested_at timestamptz NOT NULL,
    stripes_passed int NOT NULL DEFAULT 0 CHECK (stripes_passed BETWEEN 0 AND 256),
    listed_to bigint NOT NULL DEFAULT 0,
    finished_at timestamptz
);
CREATE INDEX meter_rebuild_open_idx ON billing.meter_rebuild (meter_id) WHERE finished_at IS NULL;
COMMENT ON TABLE billing.meter_rebuild IS 'Usage of a meter that has to be measured again for all customers, because it is new, has changed, or somebody asked. Until a customer''s turn has come its usage there is answered from events; then its part is in usage_dirty until fold has done it.';
COMMENT ON COLUMN billing.meter_rebuild.meter_rebuild_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.meter_rebuild.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.meter_rebuild.from_at IS 'Start of the first bucket (inclusive); -infinity = since ever.';
COMMENT ON COLUMN billing.meter_rebuild.until_at IS 'End of the last bucket (exclusive); infinity = for ever.';
COMMENT ON COLUMN billing.meter_rebuild.reason IS 'Why.';
COMMENT ON COLUMN billing.meter_rebuild.requested_at IS 'Real time.';
COMMENT ON COLUMN billing.meter_rebuild.stripes_passed IS 'In how many of the 256 stripes no ingest is under way that began before it was asked for.';
COMMENT ON COLUMN billing.meter_rebuild.listed_to IS 'Customers up to this id have their part in usage_dirty.';
COMMENT ON COLUMN billing.meter_rebuild.finished_at IS 'When all customers had; NULL = not yet.';
SELECT billing_internal.declare_table('billing.meter_rebuild', 'catalogue', '{stripes_passed, listed_to, finished_at}',
    '{meter_rebuild_id, meter_id, from_at, until_at, requested_at, stripes_passed, listed_to, finished_at}');

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
    events bigint NOT NULL,
    quantity numeric,
    moment numeric,
    placed_at timestamptz,
    event_key uuid,
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
COMMENT ON COLUMN billing.usage_delta.events IS 'How many events counted; negative where a correction takes them back.';
COMMENT ON COLUMN billing.usage_delta.quantity IS 'Sum, largest, smallest or last of their values; where a value is added or removed 1 or 0; NULL for count and unique count.';
COMMENT ON COLUMN billing.usage_delta.moment IS 'Of a weighted sum: sum of value × microseconds since bucket_start.';
COMMENT ON COLUMN billing.usage_delta.placed_at IS 'When the last value, or the operation on the value, was.';
COMMENT ON COLUMN billing.usage_delta.event_key IS 'The event it came from: of two at one instant the greater key is the later one.';
COMMENT ON COLUMN billing.usage_delta.dimensions IS 'The dimension values, where dimension_set did not have them yet.';
COMMENT ON COLUMN billing.usage_delta.value_keys IS 'Keys of the distinct values, for unique count.';
SELECT billing_internal.declare_table('billing.usage_delta', 'customer-owned', '{}',
    '{customer_id, meter_id, bucket_minutes, bucket_start, dimension_set_id, events, quantity, moment, placed_at, event_key, dimensions, value_keys}');

CREATE TABLE billing.usage_dirty (
    customer_id bigint NOT NULL,
    meter_id int NOT NULL,
    from_at timestamptz NOT NULL,
    until_at timestamptz NOT NULL CHECK (until_at > from_at)
);
CREATE INDEX usage_dirty_customer_idx ON billing.usage_dirty (customer_id, meter_id);
ALTER TABLE billing.usage_dirty REPLICA IDENTITY FULL;
COMMENT ON TABLE billing.usage_dirty IS 'Usage that buckets and deltas no longer say: buckets that start in [from_at, until_at) are answered from events until fold has measured them again. Written by corrections that can''t be added up, and by meters that change.';
COMMENT ON COLUMN billing.usage_dirty.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_dirty.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.usage_dirty.from_at IS 'Start of the first bucket (inclusive).';
COMMENT ON COLUMN billing.usage_dirty.until_at IS 'End of the last bucket (exclusive).';
SELECT billing_internal.declare_table('billing.usage_dirty', 'customer-owned', '{}', '{customer_id, meter_id, from_at, until_at}');

CREATE TABLE billing.usage_bucket (
    customer_id bigint NOT NULL,
    meter_id int NOT NULL,
    bucket_start timestamptz NOT NULL,
    bucket_minutes smallint NOT NULL CHECK (bucket_minutes IN (15, 60)),
    dimension_set_id bigint NOT NULL,
    events bigint NOT NULL,
    quantity numeric,
    moment numeric,
    placed_at timestamptz,
    event_key uuid,
    PRIMARY KEY (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id)
) PARTITION BY RANGE (bucket_start);
COMMENT ON TABLE billing.usage_bucket IS 'Folded usage. The truth is usage_event; buckets plus deltas always equal a fresh aggregation of it.';
COMMENT ON COLUMN billing.usage_bucket.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_bucket.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.usage_bucket.bucket_start IS 'Start of the bucket (inclusive).';
COMMENT ON COLUMN billing.usage_bucket.bucket_minutes IS 'Its width: 60 or 15 minutes.';
COMMENT ON COLUMN billing.usage_bucket.dimension_set_id IS 'Its dimension values.';
COMMENT ON COLUMN billing.usage_bucket.events IS 'How many events counted.';
COMMENT ON COLUMN billing.usage_bucket.quantity IS 'Sum, largest, smallest or last of their values; NULL for count and unique count.';
COMMENT ON COLUMN billing.usage_bucket.moment IS 'Of a weighted sum: sum of value × microseconds since bucket_start.';
COMMENT ON COLUMN billing.usage_bucket.placed_at IS 'When the last value was.';
COMMENT ON COLUMN billing.usage_bucket.event_key IS 'The event it came from.';
SELECT billing_internal.declare_table('billing.usage_bucket', 'customer-owned', '{events, quantity, moment, placed_at, event_key}',
    '{customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, events, quantity, moment, placed_at, event_key}');

CREATE TABLE billing.usage_value (
    customer_id bigint NOT NULL,
    meter_id int NOT NULL,
    bucket_start timestamptz NOT NULL,
    bucket_minutes smallint NOT NULL CHECK (bucket_minutes IN (15, 60)),
    dimension_set_id bigint NOT NULL,
    value_key uuid NOT NULL,
    placed_at timestamptz,
    event_key uuid,
    present boolean,
    PRIMARY KEY (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, value_key)
) PARTITION BY RANGE (bucket_start);
COMMENT ON TABLE billing.usage_value IS 'The distinct values of unique-count meters, per bucket.';
COMMENT ON COLUMN billing.usage_value.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_value.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.usage_value.bucket_start IS 'Start of the bucket (inclusive).';
COMMENT ON COLUMN billing.usage_value.bucket_minutes IS 'Its width: 60 or 15 minutes.';
COMMENT ON COLUMN billing.usage_value.dimension_set_id IS 'Its dimension values.';
COMMENT ON COLUMN billing.usage_value.value_key IS 'Key of the value: a UUID as it is, other text by 128 bits of SHA-256.';
COMMENT ON COLUMN billing.usage_value.placed_at IS 'When its last operation in the bucket was; NULL where the meter has no operations.';
COMMENT ON COLUMN billing.usage_value.event_key IS 'The event of that operation.';
COMMENT ON COLUMN billing.usage_value.present IS 'Whether that operation added it or removed it.';
SELECT billing_internal.declare_table('billing.usage_value', 'customer-owned', '{placed_at, event_key, present}',
    '{customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, value_key, placed_at, event_key, present}');

-- ── views ────────────────────────────────────────────────────────────────────────────────────────

CREATE VIEW billing_internal.meter_stretch WITH (security_invoker = true) AS
    SELECT v.meter_id, k.n AS as_of_version, v.version, v.valid_from AS from_at, s.until_at, v.definition
    FROM billing.meter m CROSS JOIN LATERAL generate_series(1, m.version) k (n)
    JOIN billing.meter_version v ON v.meter_id = m.meter_id AND v.version <= k.n
    CROSS JOIN LATERAL (SELECT coalesce(min(w.valid_from), 'infinity') AS until_at FROM billing.meter_version w
        WHERE w.meter_id = v.meter_id AND w.version > v.version AND w.version <= k.n) s
    WHERE v.valid_from < s.until_at;
COMMENT ON VIEW billing_internal.meter_stretch IS 'When which version of a meter measures, as it was when the meter had so many versions: stretches that do not overlap and leave no gap.';
COMMENT ON COLUMN billing_internal.meter_stretch.meter_id IS 'The meter.';
COMMENT ON COLUMN billing_internal.meter_stretch.as_of_version IS 'How many versions it had.';
COMMENT ON COLUMN billing_internal.meter_stretch.version IS 'The version in force.';
COMMENT ON COLUMN billing_internal.meter_stretch.from_at IS 'For events from then on (inclusive).';
COMMENT ON COLUMN billing_internal.meter_stretch.until_at IS 'Until then (exclusive).';
COMMENT ON COLUMN billing_internal.meter_stretch.definition IS 'Its document.';
GRANT SELECT ON billing_internal.meter_stretch TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing_internal.usage_cell WITH (security_invoker = true) AS
    SELECT b.customer_id, b.meter_id, b.bucket_start, b.bucket_minutes, b.dimension_set_id, s.dimensions, b.events, b.quantity, NULL::uuid[] AS value_keys,
        b.moment, b.placed_at, b.event_key
    FROM billing.usage_bucket b JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    UNION ALL
    SELECT d.customer_id, d.meter_id, d.bucket_start, d.bucket_minutes, d.dimension_set_id, coalesce(d.dimensions, s.dimensions), d.events, d.quantity, d.value_keys,
        d.moment, d.placed_at, d.event_key
    FROM billing.usage_delta d LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id);
COMMENT ON VIEW billing_internal.usage_cell IS 'Buckets and unfolded deltas side by side, with their dimensions. Distinct values of folded buckets are in usage_value.';
COMMENT ON COLUMN billing_internal.usage_cell.customer_id IS 'The customer.';
COMMENT ON COLUMN billing_internal.usage_cell.meter_id IS 'The meter.';
COMMENT ON COLUMN billing_internal.usage_cell.bucket_start IS 'Start of the bucket (inclusive).';
COMMENT ON COLUMN billing_internal.usage_cell.bucket_minutes IS 'Its width: 60 or 15 minutes.';
COMMENT ON COLUMN billing_internal.usage_cell.dimension_set_id IS 'Id of its dimension values.';
COMMENT ON COLUMN billing_internal.usage_cell.dimensions IS 'Its dimension values.';
COMMENT ON COLUMN billing_internal.usage_cell.events IS 'How many events counted.';
COMMENT ON COLUMN billing_internal.usage_cell.quantity IS 'Sum, largest, smallest or last of their values; 1 or 0 where an unfolded delta adds or removes a value; NULL for count and unique count.';
COMMENT ON COLUMN billing_internal.usage_cell.value_keys IS 'Distinct values of an unfolded delta of a unique-count meter.';
COMMENT ON COLUMN billing_internal.usage_cell.moment IS 'Of a weighted sum: sum of value × microseconds since bucket_start.';
COMMENT ON COLUMN billing_internal.usage_cell.placed_at IS 'When the last value was.';
COMMENT ON COLUMN billing_internal.usage_cell.event_key IS 'The event it came from.';
GRANT SELECT ON billing_internal.usage_cell TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing_internal.usage_distinct WITH (security_invoker = true) AS
    SELECT v.customer_id, v.meter_id, v.bucket_start, v.bucket_minutes, v.dimension_set_id, s.dimensions, v.value_key, v.placed_at, v.event_key, v.present
    FROM billing.usage_value v JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    UNION ALL
    SELECT d.customer_id, d.meter_id, d.bucket_start, d.bucket_minutes, d.dimension_set_id, coalesce(d.dimensions, s.dimensions), unnest(d.value_keys),
        d.placed_at, d.event_key, d.quantity = 1
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
COMMENT ON COLUMN billing_internal.usage_distinct.placed_at IS 'When its operation was; NULL where the meter has no operations.';
COMMENT ON COLUMN billing_internal.usage_distinct.event_key IS 'The event of that operation.';
COMMENT ON COLUMN billing_internal.usage_distinct.present IS 'Whether that operation added it or removed it.';
GRANT SELECT ON billing_internal.usage_distinct TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing.usage_hourly WITH (security_invoker = true) AS
    SELECT u.customer_id, u.customer, u.meter, u.aggregation, u.unit, u.hour_start, u.dimensions,
        (CASE u.measure WHEN 'count' THEN sum(u.events) WHEN 'sum' THEN sum(u.quantity) WHEN 'max' THEN max(u.quantity) WHEN 'min' THEN min(u.quantity)
            WHEN 'average' THEN sign(sum(u.quantity)) * div(abs(sum(u.quantity)) * 2000000000000 + sum(u.events), nullif(2 * sum(u.events), 0)) * 0.000000000001
            WHEN 'latest' THEN (array_agg(u.quantity ORDER BY u.placed_at DESC, u.event_key DESC) FILTER (WHERE u.measure = 'latest' AND u.placed_at IS NOT NULL))[1]
            WHEN 'unique_count' THEN count(DISTINCT u.value_key) END)::numeric(50, 12) AS quantity,
        coalesce(sum(u.events), 0)::bigint AS events
    FROM (
        SELECT c.customer_id, k.key AS customer, m.key AS meter, m.aggregation, m.unit, date_trunc('hour', c.bucket_start, 'UTC') AS hour_start,
            c.dimensions, c.quantity, c.events, NULL::uuid AS value_key,
            CASE WHEN m.definition ?| '{per, operation, rounding}' THEN NULL ELSE m.aggregation END AS measure, c.placed_at, c.event_key
        FROM billing_internal.usage_cell c JOIN billing.meter m USING (meter_id) JOIN billing.customer k USING (customer_id)
        UNION ALL
        SELECT d.customer_id, k.key, m.key, m.aggregation, m.unit, date_trunc('hour', d.bucket_start, 'UTC'), d.dimensions, NULL, NULL, d.value_key,
            CASE WHEN m.definition ?| '{per, operation, rounding}' THEN NULL ELSE m.aggregation END, NULL, NULL
        FROM billing_internal.usage_distinct d JOIN billing.meter m USING (meter_id) JOIN billing.customer k USING (customer_id)
    ) u
    GROUP BY u.customer_id, u.customer, u.meter, u.aggregation, u.measure, u.unit, u.hour_start, u.dimensions
    HAVING sum(u.events) <> 0;
COMMENT ON VIEW billing.usage_hourly IS 'Usage per customer, meter, UTC hour and dimension values, current at commit; where a correction or a changed meter has not been measured yet (usage_dirty, meter_rebuild), as it was before: billing.usage() always knows. Sums over hours are right for count and sum; of max take the largest, of min the smallest; for all others use it, as it alone knows what takes history, events or two steps (quantity is NULL there).';
COMMENT ON COLUMN billing.usage_hourly.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.usage_hourly.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.usage_hourly.meter IS 'The meter''s key.';
COMMENT ON COLUMN billing.usage_hourly.aggregation IS 'As billing.meter.aggregation.';
COMMENT ON COLUMN billing.usage_hourly.unit IS 'What one unit is called.';
COMMENT ON COLUMN billing.usage_hourly.hour_start IS 'Start of the hour (inclusive), on UTC hours.';
COMMENT ON COLUMN billing.usage_hourly.dimensions IS 'Dimension values: {"model":"gpt-4"}.';
COMMENT ON COLUMN billing.usage_hourly.quantity IS 'The aggregated value in the meter''s unit; NULL where only billing.usage() can tell it: weighted sums, percentiles, operations, two steps, rounded quantities.';
COMMENT ON COLUMN billing.usage_hourly.events IS 'How many events counted.';
GRANT SELECT ON billing.usage_hourly TO billing_engine, billing_reader, billing_customer;

CREATE VIEW billing.usage_daily WITH (security_invoker = true) AS
    SELECT u.customer_id, u.customer, u.meter, u.aggregation, u.unit, u.day, u.dimensions,
        (CASE u.measure WHEN 'count' THEN sum(u.events) WHEN 'sum' THEN sum(u.quantity) WHEN 'max' THEN max(u.quantity) WHEN 'min' THEN min(u.quantity)
            WHEN 'average' THEN sign(sum(u.quantity)) * div(abs(sum(u.quantity)) * 2000000000000 + sum(u.events), nullif(2 * sum(u.events), 0)) * 0.000000000001
            WHEN 'latest' THEN (array_agg(u.quantity ORDER BY u.placed_at DESC, u.event_key DESC) FILTER (WHERE u.measure = 'latest' AND u.placed_at IS NOT NULL))[1]
            WHEN 'unique_count' THEN count(DISTINCT u.value_key) END)::numeric(50, 12) AS quantity,
        coalesce(sum(u.events), 0)::bigint AS events
    FROM (
        SELECT c.customer_id, k.key AS customer, m.key AS meter, m.aggregation, m.unit, (c.bucket_start AT TIME ZONE k.time_zone)::date AS day,
            c.dimensions, c.quantity, c.events, NULL::uuid AS value_key,
            CASE WHEN m.definition ?| '{per, operation, rounding}' THEN NULL ELSE m.aggregation END AS measure, c.placed_at, c.event_key
        FROM billing_internal.usage_cell c JOIN billing.meter m USING (meter_id) JOIN billing.customer k USING (customer_id)
        UNION ALL
        SELECT d.customer_id, k.key, m.key, m.aggregation, m.unit, (d.bucket_start AT TIME ZONE k.time_zone)::date, d.dimensions, NULL, NULL, d.value_key,
            CASE WHEN m.definition ?| '{per, operation, rounding}' THEN NULL ELSE m.aggregation END, NULL, NULL
        FROM billing_internal.usage_distinct d JOIN billing.meter m USING (meter_id) JOIN billing.customer k USING (customer_id)
    ) u
    GROUP BY u.customer_id, u.customer, u.meter, u.aggregation, u.measure, u.unit, u.day, u.dimensions
    HAVING sum(u.events) <> 0;
COMMENT ON VIEW billing.usage_daily IS 'Usage per customer, meter, local day of the customer''s zone and dimension values, current at commit; where a correction or a changed meter has not been measured yet (usage_dirty, meter_rebuild), as it was before: billing.usage() always knows. Sums over days are right for count and sum; of max take the largest, of min the smallest; for all others use it, as it alone knows what takes history, events or two steps (quantity is NULL there).';
COMMENT ON COLUMN billing.usage_daily.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.usage_daily.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.usage_daily.meter IS 'The meter''s key.';
COMMENT ON COLUMN billing.usage_daily.aggregation IS 'As billing.meter.aggregation.';
COMMENT ON COLUMN billing.usage_daily.unit IS 'What one unit is called.';
COMMENT ON COLUMN billing.usage_daily.day IS 'Local date in the customer''s time zone.';
COMMENT ON COLUMN billing.usage_daily.dimensions IS 'Dimension values: {"model":"gpt-4"}.';
COMMENT ON COLUMN billing.usage_daily.quantity IS 'The aggregated value in the meter''s unit; NULL where only billing.usage() can tell it: weighted sums, percentiles, operations, two steps, rounded quantities.';
COMMENT ON COLUMN billing.usage_daily.events IS 'How many events counted.';
GRANT SELECT ON billing.usage_daily TO billing_engine, billing_reader, billing_customer;

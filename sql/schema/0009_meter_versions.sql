-- Metering, continued: versions of meters, more aggregations (what their buckets hold), usage that is to be measured again.

-- ── meters ───────────────────────────────────────────────────────────────────────────────────────

ALTER TABLE billing.meter
    ALTER COLUMN event_type DROP NOT NULL,
    DROP CONSTRAINT meter_aggregation_check,
    ADD CHECK (aggregation IN ('count', 'sum', 'max', 'min', 'average', 'latest', 'weighted_sum', 'percentile', 'unique_count', 'compound')),
    ADD COLUMN version int NOT NULL DEFAULT 1 CHECK (version > 0),
    ADD COLUMN state text COLLATE "C" NOT NULL GENERATED ALWAYS AS (CASE
        WHEN definition->>'aggregation' = 'compound' THEN 'none'
        WHEN definition ? 'operation' THEN 'presence'
        ELSE CASE coalesce(definition->'per'->>'aggregation', definition->>'aggregation') WHEN 'percentile' THEN 'count' WHEN 'average' THEN 'sum'
            WHEN 'weighted_sum' THEN 'level' WHEN 'unique_count' THEN 'unique' ELSE coalesce(definition->'per'->>'aggregation', definition->>'aggregation') END
        END) STORED,
    ADD COLUMN additive boolean NOT NULL GENERATED ALWAYS AS (definition->>'aggregation' IN ('count', 'sum') AND NOT definition ? 'per' AND NOT definition ? 'rounding') STORED;
COMMENT ON TABLE billing.meter IS 'What is counted: which events, which value, how it is aggregated, by which dimensions. Its newest version; all of them are in meter_version.';
COMMENT ON COLUMN billing.meter.event_type IS 'Type of the events it looks at; NULL for a compound, which looks at other meters.';
COMMENT ON COLUMN billing.meter.aggregation IS 'count, sum, max, min, average, latest, weighted_sum, percentile, unique_count or compound; with "per" in its definition that of the second step.';
COMMENT ON COLUMN billing.meter.version IS 'Number of its newest version, from 1.';
COMMENT ON COLUMN billing.meter.state IS 'What its buckets hold: count, sum, max, min, latest, level (changes of a level and when they came), unique (values), presence (values and their last operation), none.';
COMMENT ON COLUMN billing.meter.additive IS 'Whether the quantities of the parts of a period add up to that of the whole: counts and sums. Everything else has one price a period.';
GRANT UPDATE (version) ON billing.meter TO billing_engine;
GRANT SELECT (version, state, additive) ON billing.meter TO billing_customer;

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
-- What a meter is now is what it has always been.
INSERT INTO billing.meter_version (meter_id, version, valid_from, definition, recorded_at)
SELECT m.meter_id, 1, '-infinity', m.definition, m.created_at FROM billing.meter m;
-- Sessions compile meters from their versions: what they hold is not to be taken for that.
UPDATE billing_internal.counter SET value = value + 1 WHERE name = 'catalogue' AND EXISTS (SELECT FROM billing.meter);

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

-- ── usage ────────────────────────────────────────────────────────────────────────────────────────
-- No row is written anew: what is added is NULL in those there are, and means there what it means in new ones.

ALTER TABLE billing.usage_delta
    DROP CONSTRAINT usage_delta_events_check,
    ADD COLUMN moment numeric,
    ADD COLUMN placed_at timestamptz,
    ADD COLUMN event_key uuid;
COMMENT ON COLUMN billing.usage_delta.events IS 'How many events counted; negative where a correction takes them back.';
COMMENT ON COLUMN billing.usage_delta.quantity IS 'Sum, largest, smallest or last of their values; where a value is added or removed 1 or 0; NULL for count and unique count.';
COMMENT ON COLUMN billing.usage_delta.moment IS 'Of a weighted sum: sum of value × microseconds since bucket_start.';
COMMENT ON COLUMN billing.usage_delta.placed_at IS 'When the last value, or the operation on the value, was.';
COMMENT ON COLUMN billing.usage_delta.event_key IS 'The event it came from: of two at one instant the greater key is the later one.';
GRANT SELECT (moment, placed_at, event_key) ON billing.usage_delta TO billing_customer;

ALTER TABLE billing.usage_bucket
    DROP CONSTRAINT usage_bucket_events_check,
    ADD COLUMN moment numeric,
    ADD COLUMN placed_at timestamptz,
    ADD COLUMN event_key uuid;
COMMENT ON COLUMN billing.usage_bucket.quantity IS 'Sum, largest, smallest or last of their values; NULL for count and unique count.';
COMMENT ON COLUMN billing.usage_bucket.moment IS 'Of a weighted sum: sum of value × microseconds since bucket_start.';
COMMENT ON COLUMN billing.usage_bucket.placed_at IS 'When the last value was.';
COMMENT ON COLUMN billing.usage_bucket.event_key IS 'The event it came from.';
GRANT UPDATE (moment, placed_at, event_key) ON billing.usage_bucket TO billing_engine;
GRANT SELECT (moment, placed_at, event_key) ON billing.usage_bucket TO billing_customer;

ALTER TABLE billing.usage_value
    ADD COLUMN placed_at timestamptz,
    ADD COLUMN event_key uuid,
    ADD COLUMN present boolean;
COMMENT ON COLUMN billing.usage_value.placed_at IS 'When its last operation in the bucket was; NULL where the meter has no operations.';
COMMENT ON COLUMN billing.usage_value.event_key IS 'The event of that operation.';
COMMENT ON COLUMN billing.usage_value.present IS 'Whether that operation added it or removed it.';
GRANT UPDATE (placed_at, event_key, present) ON billing.usage_value TO billing_engine;
GRANT SELECT (placed_at, event_key, present) ON billing.usage_value TO billing_customer;

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

CREATE OR REPLACE VIEW billing_internal.usage_cell WITH (security_invoker = true) AS
    SELECT b.customer_id, b.meter_id, b.bucket_start, b.bucket_minutes, b.dimension_set_id, s.dimensions, b.events, b.quantity, NULL::uuid[] AS value_keys,
        b.moment, b.placed_at, b.event_key
    FROM billing.usage_bucket b JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    UNION ALL
    SELECT d.customer_id, d.meter_id, d.bucket_start, d.bucket_minutes, d.dimension_set_id, coalesce(d.dimensions, s.dimensions), d.events, d.quantity, d.value_keys,
        d.moment, d.placed_at, d.event_key
    FROM billing.usage_delta d LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id);
COMMENT ON COLUMN billing_internal.usage_cell.quantity IS 'Sum, largest, smallest or last of their values; 1 or 0 where an unfolded delta adds or removes a value; NULL for count and unique count.';
COMMENT ON COLUMN billing_internal.usage_cell.moment IS 'Of a weighted sum: sum of value × microseconds since bucket_start.';
COMMENT ON COLUMN billing_internal.usage_cell.placed_at IS 'When the last value was.';
COMMENT ON COLUMN billing_internal.usage_cell.event_key IS 'The event it came from.';

CREATE OR REPLACE VIEW billing_internal.usage_distinct WITH (security_invoker = true) AS
    SELECT v.customer_id, v.meter_id, v.bucket_start, v.bucket_minutes, v.dimension_set_id, s.dimensions, v.value_key, v.placed_at, v.event_key, v.present
    FROM billing.usage_value v JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    UNION ALL
    SELECT d.customer_id, d.meter_id, d.bucket_start, d.bucket_minutes, d.dimension_set_id, coalesce(d.dimensions, s.dimensions), unnest(d.value_keys),
        d.placed_at, d.event_key, d.quantity = 1
    FROM billing.usage_delta d LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    WHERE d.value_keys IS NOT NULL;
COMMENT ON COLUMN billing_internal.usage_distinct.placed_at IS 'When its operation was; NULL where the meter has no operations.';
COMMENT ON COLUMN billing_internal.usage_distinct.event_key IS 'The event of that operation.';
COMMENT ON COLUMN billing_internal.usage_distinct.present IS 'Whether that operation added it or removed it.';

CREATE OR REPLACE VIEW billing.usage_hourly WITH (security_invoker = true) AS
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
COMMENT ON COLUMN billing.usage_hourly.aggregation IS 'As billing.meter.aggregation.';
COMMENT ON COLUMN billing.usage_hourly.quantity IS 'The aggregated value in the meter''s unit; NULL where only billing.usage() can tell it: weighted sums, percentiles, operations, two steps, rounded quantities.';

CREATE OR REPLACE VIEW billing.usage_daily WITH (security_invoker = true) AS
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
COMMENT ON COLUMN billing.usage_daily.aggregation IS 'As billing.meter.aggregation.';
COMMENT ON COLUMN billing.usage_daily.quantity IS 'The aggregated value in the meter''s unit; NULL where only billing.usage() can tell it: weighted sums, percentiles, operations, two steps, rounded quantities.';

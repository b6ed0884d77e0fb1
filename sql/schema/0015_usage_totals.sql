-- Metering, continued: totals of whole periods, kept by fold, for those who ask again and again.

CREATE TABLE billing.usage_window_kept (
    customer_id bigint NOT NULL,
    meter_id int NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL CHECK (ends_at > starts_at),
    summed boolean NOT NULL,
    kept_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, meter_id, starts_at, ends_at)
) WITH (fillfactor = 70);
COMMENT ON TABLE billing.usage_window_kept IS 'Periods of a customer''s usage on a meter whose totals are kept in usage_total: billing periods, periods of entitlements. Made by whoever writes and will ask again; gone once they have been over for as long as they lasted. Nothing but speed depends on them.';
COMMENT ON COLUMN billing.usage_window_kept.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_window_kept.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.usage_window_kept.starts_at IS 'Start of the first bucket (inclusive).';
COMMENT ON COLUMN billing.usage_window_kept.ends_at IS 'End of the last bucket (exclusive); infinity = for ever.';
COMMENT ON COLUMN billing.usage_window_kept.summed IS 'Whether usage_total has it; false from when buckets were taken back until the next fold.';
COMMENT ON COLUMN billing.usage_window_kept.kept_at IS 'Real time.';
SELECT billing_internal.declare_table('billing.usage_window_kept', 'customer-owned', '{summed}', '{customer_id, meter_id, starts_at, ends_at, summed, kept_at}');

CREATE TABLE billing.usage_total (
    customer_id bigint NOT NULL,
    meter_id int NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    dimension_set_id bigint NOT NULL,
    events bigint NOT NULL,
    quantity numeric,
    PRIMARY KEY (customer_id, meter_id, starts_at, ends_at, dimension_set_id)
-- Every fold changes the same few rows; no index has what it changes, so that they stay on their page.
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE billing.usage_total IS 'Folded usage of whole periods: of a period that is summed exactly its buckets, added up (of a largest or smallest value, compared). Usage is total + unfolded deltas.';
COMMENT ON COLUMN billing.usage_total.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_total.meter_id IS 'The meter.';
COMMENT ON COLUMN billing.usage_total.starts_at IS 'Start of the period (inclusive).';
COMMENT ON COLUMN billing.usage_total.ends_at IS 'End of the period (exclusive).';
COMMENT ON COLUMN billing.usage_total.dimension_set_id IS 'Its dimension values.';
COMMENT ON COLUMN billing.usage_total.events IS 'How many events counted.';
COMMENT ON COLUMN billing.usage_total.quantity IS 'Sum, largest or smallest of their values; NULL for count.';
SELECT billing_internal.declare_table('billing.usage_total', 'customer-owned', '{events, quantity}',
    '{customer_id, meter_id, starts_at, ends_at, dimension_set_id, events, quantity}');

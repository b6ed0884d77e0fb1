-- Totals of kept periods: fold adds them up with the buckets, so that asking for a period's usage reads a few rows,
-- however many buckets it has, and no partitioned table.
--
-- What holds (verify() compares it): of a kept period that is summed, usage_total is its buckets, per dimension set.
-- Whoever changes buckets holds the customer's fold lock to the end of the transaction and changes the totals in the same
-- transaction: fold adds what it adds, mending takes back whole periods. A period is added to the list under that lock, too,
-- and in a snapshot that was taken after it was got: no fold is missed and none counted twice.

CREATE FUNCTION billing_internal.usage_window_sums(of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz)
    RETURNS TABLE (dimension_set_id bigint, events bigint, quantity numeric)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
    SELECT b.dimension_set_id, sum(b.events)::bigint, CASE m.state WHEN 'max' THEN max(b.quantity) WHEN 'min' THEN min(b.quantity) ELSE sum(b.quantity) END
    FROM billing.usage_bucket b JOIN billing.meter m USING (meter_id)
    WHERE b.customer_id = of_customer_id AND b.meter_id = of_meter_id AND b.bucket_start >= from_at AND b.bucket_start < until_at
    GROUP BY b.dimension_set_id, m.state
$$;
COMMENT ON FUNCTION billing_internal.usage_window_sums(bigint, int, timestamptz, timestamptz) IS 'The folded usage of a period, by dimension set: what usage_total says of it.';

CREATE FUNCTION billing_internal.usage_window_fits(of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
    SELECT from_at < until_at AND from_at > '-infinity'
        AND EXISTS (SELECT FROM billing.meter m WHERE m.meter_id = of_meter_id AND m.aggregation IN ('count', 'sum', 'max', 'min', 'average') AND NOT m.definition ? 'per')
        -- On whole hours, or on quarters where no bucket of an hour is cut.
        AND NOT EXISTS (SELECT FROM unnest(ARRAY[from_at, until_at]) b (at) WHERE isfinite(b.at) AND date_trunc('hour', b.at, 'UTC') <> b.at
            AND (date_bin('15 minutes', b.at, '2000-01-01 00:00+00') <> b.at
                OR NOT EXISTS (SELECT FROM billing.customer c WHERE c.customer_id = of_customer_id AND c.bucket_minutes = 15)
                OR EXISTS (SELECT FROM billing_internal.usage_cell u WHERE u.customer_id = of_customer_id AND u.meter_id = of_meter_id
                    AND u.bucket_start = date_trunc('hour', b.at, 'UTC') AND u.bucket_minutes = 60)))
$$;
COMMENT ON FUNCTION billing_internal.usage_window_fits(bigint, int, timestamptz, timestamptz) IS
    'Whether a period''s usage is what its buckets add up to: counts, sums, largest and smallest values (and averages, of sums), in one step, between bounds that cut no bucket.';

CREATE FUNCTION billing_internal.usage_window_over(from_at timestamptz, until_at timestamptz, at timestamptz) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN isfinite(until_at) THEN until_at + (until_at - from_at) <= at ELSE false END;
COMMENT ON FUNCTION billing_internal.usage_window_over(timestamptz, timestamptz, timestamptz) IS 'Whether a period has been over for as long as it lasted: its totals are kept no longer.';

CREATE FUNCTION billing_internal.usage_window_keep(of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    IF EXISTS (SELECT FROM billing.usage_window_kept w WHERE w.customer_id = of_customer_id AND w.meter_id = of_meter_id AND w.starts_at = from_at AND w.ends_at = until_at)
        -- It would be gone at once.
        OR billing_internal.usage_window_over(from_at, until_at, billing.now())
        OR billing_internal.travelling() OR current_setting('transaction_isolation') <> 'read committed'
        -- Tried, never waited for: a fold may be long, and the next who asks tries again.
        OR NOT pg_try_advisory_xact_lock(billing_internal.lock_class('fold'), hashint8(of_customer_id)) THEN
        RETURN;
    END IF;
    WITH window_new AS (
        INSERT INTO billing.usage_window_kept (customer_id, meter_id, starts_at, ends_at, summed, kept_at)
        SELECT of_customer_id, of_meter_id, from_at, until_at, true, clock_timestamp()
        WHERE billing_internal.usage_window_fits(of_customer_id, of_meter_id, from_at, until_at) ON CONFLICT DO NOTHING RETURNING customer_id, meter_id, starts_at, ends_at
    )
    INSERT INTO billing.usage_total (customer_id, meter_id, starts_at, ends_at, dimension_set_id, events, quantity)
    SELECT n.customer_id, n.meter_id, n.starts_at, n.ends_at, s.dimension_set_id, s.events, s.quantity
    FROM window_new n CROSS JOIN LATERAL billing_internal.usage_window_sums(n.customer_id, n.meter_id, n.starts_at, n.ends_at) s;
END
$$;
COMMENT ON FUNCTION billing_internal.usage_window_keep(bigint, int, timestamptz, timestamptz) IS
    'From now on the totals of a period are kept, where that can be (usage_window_fits) and no fold of the customer is under way. For whoever writes and will ask again, never for readers; it is cheap where it is kept already. Nothing but speed depends on it.';

CREATE FUNCTION billing_internal.usage_windows_tidy(of_customer_id bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    w record;
    at timestamptz := billing.now();
BEGIN
    FOR w IN SELECT x.meter_id, x.starts_at, x.ends_at, x.over OR NOT billing_internal.usage_window_fits(of_customer_id, x.meter_id, x.starts_at, x.ends_at) AS gone
        FROM (SELECT y.*, billing_internal.usage_window_over(y.starts_at, y.ends_at, at) AS over FROM billing.usage_window_kept y WHERE y.customer_id = of_customer_id) x
        WHERE x.over OR NOT x.summed LOOP
        IF w.gone THEN
            WITH total AS (
                DELETE FROM billing.usage_total t WHERE t.customer_id = of_customer_id AND t.meter_id = w.meter_id AND t.starts_at = w.starts_at AND t.ends_at = w.ends_at
            )
            DELETE FROM billing.usage_window_kept x WHERE x.customer_id = of_customer_id AND x.meter_id = w.meter_id AND x.starts_at = w.starts_at AND x.ends_at = w.ends_at;
        ELSE
            WITH summed AS (
                UPDATE billing.usage_window_kept x SET summed = true WHERE x.customer_id = of_customer_id AND x.meter_id = w.meter_id AND x.starts_at = w.starts_at AND x.ends_at = w.ends_at
            )
            INSERT INTO billing.usage_total (customer_id, meter_id, starts_at, ends_at, dimension_set_id, events, quantity)
            SELECT of_customer_id, w.meter_id, w.starts_at, w.ends_at, s.dimension_set_id, s.events, s.quantity
            FROM billing_internal.usage_window_sums(of_customer_id, w.meter_id, w.starts_at, w.ends_at) s;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.usage_windows_tidy(bigint) IS
    'Before a fold, under its lock: totals that were taken back are added up again, and periods that have been over for as long as they lasted are forgotten. Whoever asks for one later gets the same answer from buckets. Runs as billing_owner.';

CREATE FUNCTION billing_internal.usage_window(
    of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz, match jsonb DEFAULT '{}', OUT quantity numeric, OUT events bigint
) RETURNS SETOF record
    -- Asked for each request: planning for its very period would take ten times as long as the answer.
    LANGUAGE plpgsql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    accepted jsonb;
    -- where each name has one value, a text
    single jsonb;
    aggregation text;
    rounding jsonb;
BEGIN
    -- All in one statement: totals, deltas and what is dirty as of one snapshot, also where the caller's is a new one each time.
    IF match = '{}' THEN
        SELECT x.events, CASE k.aggregation WHEN 'sum' THEN coalesce(x.sum, 0) WHEN 'count' THEN x.events WHEN 'max' THEN x.largest WHEN 'min' THEN x.smallest
            ELSE billing_internal.quotient(x.sum, x.events) END, k.aggregation, k.definition->'rounding' INTO events, quantity, aggregation, rounding
        FROM billing.usage_window_kept w JOIN billing.meter k USING (meter_id)
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(y.events), 0)::bigint AS events, sum(y.quantity) AS sum, max(y.quantity) AS largest, min(y.quantity) AS smallest FROM (
                SELECT t.events, t.quantity FROM billing.usage_total t
                WHERE t.customer_id = of_customer_id AND t.meter_id = of_meter_id AND t.starts_at = from_at AND t.ends_at = until_at
                UNION ALL
                SELECT d.events, d.quantity FROM billing.usage_delta d
                WHERE d.customer_id = of_customer_id AND d.meter_id = of_meter_id AND d.bucket_start >= from_at AND d.bucket_start < until_at
            ) y
        ) x
        WHERE w.customer_id = of_customer_id AND w.meter_id = of_meter_id AND w.starts_at = from_at AND w.ends_at = until_at AND w.summed
            AND NOT EXISTS (SELECT FROM billing.usage_dirty d WHERE d.customer_id = of_customer_id AND d.meter_id = of_meter_id AND d.from_at < usage_window.until_at AND d.until_at > usage_window.from_at)
            AND NOT EXISTS (SELECT FROM billing.meter_rebuild r WHERE r.meter_id = of_meter_id AND r.finished_at IS NULL AND r.listed_to < of_customer_id
                AND r.from_at < usage_window.until_at AND r.until_at > usage_window.from_at);
    ELSE
        IF (SELECT bool_and(jsonb_typeof(f.value) = 'string') FROM jsonb_each(match) f) THEN
            single := match;
            accepted := match;
        ELSE
            SELECT jsonb_object_agg(f.name, f.accepted) INTO accepted FROM billing_internal.filter_values(match) f;
        END IF;
        SELECT x.events, CASE k.aggregation WHEN 'sum' THEN coalesce(x.sum, 0) WHEN 'count' THEN x.events WHEN 'max' THEN x.largest WHEN 'min' THEN x.smallest
            ELSE billing_internal.quotient(x.sum, x.events) END, k.aggregation, k.definition->'rounding' INTO events, quantity, aggregation, rounding
        FROM billing.usage_window_kept w JOIN billing.meter k USING (meter_id)
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(y.events), 0)::bigint AS events, sum(y.quantity) AS sum, max(y.quantity) AS largest, min(y.quantity) AS smallest FROM (
                SELECT t.events, t.quantity, s.dimensions FROM billing.usage_total t JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
                WHERE t.customer_id = of_customer_id AND t.meter_id = of_meter_id AND t.starts_at = from_at AND t.ends_at = until_at
                UNION ALL
                SELECT d.events, d.quantity, coalesce(d.dimensions, s.dimensions) FROM billing.usage_delta d LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
                WHERE d.customer_id = of_customer_id AND d.meter_id = of_meter_id AND d.bucket_start >= from_at AND d.bucket_start < until_at
            ) y
            WHERE CASE WHEN single IS NOT NULL THEN y.dimensions @> single ELSE NOT EXISTS (SELECT FROM jsonb_each(accepted) f WHERE (f.value ? (y.dimensions->>f.key)) IS NOT TRUE) END
        ) x
        WHERE w.customer_id = of_customer_id AND w.meter_id = of_meter_id AND w.starts_at = from_at AND w.ends_at = until_at AND w.summed
            AND NOT EXISTS (SELECT FROM billing.usage_dirty d WHERE d.customer_id = of_customer_id AND d.meter_id = of_meter_id AND d.from_at < usage_window.until_at AND d.until_at > usage_window.from_at)
            AND NOT EXISTS (SELECT FROM billing.meter_rebuild r WHERE r.meter_id = of_meter_id AND r.finished_at IS NULL AND r.listed_to < of_customer_id
                AND r.from_at < usage_window.until_at AND r.until_at > usage_window.from_at)
            -- By dimensions, of all versions of the meter that measure in it.
            AND NOT EXISTS (SELECT FROM jsonb_object_keys(accepted) n WHERE n <> ALL (k.dimensions || 'bill_to'::text))
            AND (k.version = 1 OR NOT EXISTS (SELECT FROM billing_internal.meter_stretch v CROSS JOIN jsonb_object_keys(accepted) n WHERE v.meter_id = of_meter_id AND v.as_of_version = k.version
                AND v.from_at < usage_window.until_at AND v.until_at > usage_window.from_at AND n <> 'bill_to' AND ((v.definition->'dimensions') ? n) IS NOT TRUE));
    END IF;
    IF FOUND THEN
        -- What corrections took back is not there.
        IF events = 0 THEN
            quantity := CASE WHEN aggregation IN ('count', 'sum') THEN 0 END;
        ELSIF rounding IS NOT NULL THEN
            quantity := billing_internal.rounded_quantity(quantity, rounding);
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT q.quantity, q.events INTO quantity, events
    FROM billing.customer c CROSS JOIN LATERAL billing_internal.usage_quantities(of_customer_id, of_meter_id, from_at, until_at, NULL, c.time_zone, '{}', match) q
    WHERE c.customer_id = of_customer_id;
    IF NOT FOUND THEN
        -- Nothing has no largest, smallest, last, average or ranked value.
        SELECT CASE WHEN k.definition ? 'per' OR k.aggregation NOT IN ('max', 'min', 'average', 'latest', 'percentile') THEN 0::numeric END, 0 INTO quantity, events
        FROM billing.meter k WHERE k.meter_id = of_meter_id;
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION billing_internal.usage_window(bigint, int, timestamptz, timestamptz, jsonb) IS
    'A customer''s usage on a meter in [from_at, until_at), as billing.usage() says it without a grain, in the caller''s snapshot; match is its filter. Of a kept period whose usage is not dirty it reads the total and what is not folded yet, and no partitioned table.';

-- Metering: deltas fold into buckets; readers add both; everything can be measured again from events.

CREATE FUNCTION billing_internal.stored_usage(
    meter_ids int[], definitions text[], customer_ids bigint[], minutes smallint[], event_keys uuid[], event_types text[],
    occurred_at timestamptz[], bill_tos text[], properties text[]
) RETURNS TABLE (customer_id bigint, meter_id int, bucket_minutes smallint, bucket_start timestamptz, dimension_set_id bigint,
    dimensions text, events bigint, quantity numeric, value_keys uuid[])
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'stored_usage_wrapper';
COMMENT ON FUNCTION billing_internal.stored_usage(int[], text[], bigint[], smallint[], uuid[], text[], timestamptz[], text[], text[]) IS 'The deltas of stored events (columns of equal length) on the given meters.';

CREATE FUNCTION billing_internal.measured_events(definition text, bill_tos text[], properties text[])
    RETURNS TABLE (n int, dimensions text, value numeric, value_key uuid)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 1000 AS 'MODULE_PATHNAME', 'measured_events_wrapper';
COMMENT ON FUNCTION billing_internal.measured_events(text, text[], text[]) IS 'What each event is on one meter: its place (from 1), dimensions and value. Events that do not count are left out.';

CREATE FUNCTION billing_internal.meter_error(definition text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'meter_error_wrapper';
COMMENT ON FUNCTION billing_internal.meter_error(text) IS 'Why a meter''s document can''t be; NULL if it can.';

CREATE FUNCTION billing_internal.key_of_text(value text) RETURNS uuid
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'key_of_text_wrapper';
COMMENT ON FUNCTION billing_internal.key_of_text(text) IS 'The stored key of an event id or a distinct value.';

-- ── fold ─────────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.fold_customer(of_customer_id bigint, max_rows int DEFAULT 20000) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    rows tid[];
    months timestamptz[];
    folded bigint;
    collision bigint;
BEGIN
    -- Never waited for: whoever holds it does the same work.
    IF NOT pg_try_advisory_xact_lock(billing_internal.lock_class('fold'), hashint8(of_customer_id)) THEN
        RETURN 0;
    END IF;
    SELECT d.dimension_set_id INTO collision
    FROM billing.usage_delta d LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    WHERE d.customer_id = of_customer_id AND d.dimensions IS NOT NULL
    GROUP BY d.dimension_set_id, s.dimensions
    HAVING count(DISTINCT d.dimensions) > 1 OR bool_or(d.dimensions <> s.dimensions)
    LIMIT 1;
    IF collision IS NOT NULL THEN
        PERFORM billing_internal.dimension_collision(of_customer_id, collision);
    END IF;
    -- What is seen here may lie in a month whose partitions this transaction does not know yet.
    SELECT array_agg(d.ctid), array_agg(DISTINCT date_trunc('month', d.bucket_start, 'UTC')) INTO rows, months
    FROM (SELECT d.ctid, d.bucket_start FROM billing.usage_delta d WHERE d.customer_id = of_customer_id LIMIT max_rows) d;
    IF rows IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM billing_internal.partitions_heed(months);
    WITH taken AS (
        DELETE FROM billing.usage_delta WHERE ctid = ANY (rows) RETURNING *
    ), sets AS (
        INSERT INTO billing.dimension_set (customer_id, dimension_set_id, dimensions)
        SELECT DISTINCT t.customer_id, t.dimension_set_id, t.dimensions FROM taken t WHERE t.dimensions IS NOT NULL
        ON CONFLICT DO NOTHING
    ), value_keys AS (
        INSERT INTO billing.usage_value (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, value_key)
        SELECT DISTINCT t.customer_id, t.meter_id, t.bucket_start, t.bucket_minutes, t.dimension_set_id, v
        FROM taken t, unnest(t.value_keys) v
        ON CONFLICT DO NOTHING
    ), buckets AS (
        INSERT INTO billing.usage_bucket AS b (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, events, quantity)
        SELECT t.customer_id, t.meter_id, t.bucket_start, t.bucket_minutes, t.dimension_set_id, sum(t.events),
            CASE WHEN m.aggregation = 'max' THEN max(t.quantity) ELSE sum(t.quantity) END
        FROM taken t JOIN billing.meter m USING (meter_id)
        GROUP BY t.customer_id, t.meter_id, t.bucket_start, t.bucket_minutes, t.dimension_set_id, m.aggregation
        ON CONFLICT (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id) DO UPDATE
            SET events = b.events + excluded.events,
                quantity = CASE WHEN (SELECT m.aggregation = 'max' FROM billing.meter m WHERE m.meter_id = b.meter_id)
                    THEN greatest(b.quantity, excluded.quantity) ELSE b.quantity + excluded.quantity END
    )
    SELECT count(*) INTO folded FROM taken;
    RETURN folded;
END
$$;
COMMENT ON FUNCTION billing_internal.fold_customer(bigint, int) IS 'Moves a customer''s deltas (at most max_rows) into buckets; how many. 0 if another session is at it. Runs as billing_owner, the only one that may delete.';

CREATE FUNCTION billing.fold_step(run uuid, max_rows int DEFAULT 20000) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint := 0;
    moved bigint;
    folded bigint := 0;
    customers int := 0;
    started timestamptz := clock_timestamp();
BEGIN
    PERFORM billing_internal.require_installed();
    -- Hops from customer to customer along the index. Each is a lock held until commit, and the lock table is small.
    LOOP
        SELECT d.customer_id INTO of_customer_id FROM billing.usage_delta d WHERE d.customer_id > of_customer_id ORDER BY d.customer_id LIMIT 1;
        EXIT WHEN of_customer_id IS NULL;
        moved := billing_internal.fold_customer(of_customer_id, max_rows);
        folded := folded + moved;
        customers := customers + CASE WHEN moved > 0 THEN 1 ELSE 0 END;
        EXIT WHEN folded >= max_rows OR customers >= 256 OR clock_timestamp() > started + interval '2 seconds';
    END LOOP;
    UPDATE billing.job_run r SET done = r.done + folded WHERE r.job_run_id = run;
    RETURN folded;
END
$$;
COMMENT ON FUNCTION billing.fold_step(uuid, int) IS 'One step of the job fold: folds customers until 256 of them, max_rows deltas or two seconds are reached. Returns how many deltas it moved; 0 = nothing left, or other sessions are at it.';

CREATE FUNCTION billing.job_start(job text, arguments jsonb DEFAULT '{}', total bigint DEFAULT NULL) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id uuid := billing_internal.uuid_v7();
BEGIN
    PERFORM billing_internal.require_installed();
    IF job IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'the job is NULL', 'Name it: fold, bill_run.');
    END IF;
    INSERT INTO billing.job_run (job_run_id, job, arguments, started_at, total) VALUES (id, job, coalesce(arguments, '{}'), clock_timestamp(), total);
    RETURN id;
END
$$;
COMMENT ON FUNCTION billing.job_start(text, jsonb, bigint) IS 'Opens a job_run row; the procedures of jobs call it. Returns its id. Errors: ZB004 no name.';

CREATE FUNCTION billing.job_end(run uuid, result jsonb DEFAULT '{}') RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.require_installed();
    UPDATE billing.job_run r SET finished_at = clock_timestamp(), state = 'done', result = r.result || coalesce(job_end.result, '{}'),
        issues = (SELECT count(*) FROM billing.job_issue i WHERE i.job_run_id = run)
    WHERE r.job_run_id = run;
END
$$;
COMMENT ON FUNCTION billing.job_end(uuid, jsonb) IS 'Closes a job_run row.';

CREATE PROCEDURE billing.fold()
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.job_start('fold');
BEGIN
    COMMIT;
    LOOP
        EXIT WHEN billing.fold_step(run) OPERATOR(pg_catalog.=) 0;
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run);
END
$$;
COMMENT ON PROCEDURE billing.fold() IS 'Moves all deltas into buckets, committing step by step. Only makes reading faster; nothing depends on it having run. Progress in job_run.';

-- ── reading ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.find_meter(meter text) RETURNS int
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id int;
BEGIN
    SELECT m.meter_id INTO id FROM billing.meter m WHERE m.key = meter;
    IF id IS NULL AND meter ~ '^[0-9]{1,9}$' THEN
        SELECT m.meter_id INTO id FROM billing.meter m WHERE m.meter_id = meter::int;
    END IF;
    IF id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('meter %s is not known', coalesce(quote_literal(meter), 'NULL')),
            'SELECT key, event_type, aggregation FROM billing.meter; lists them.');
    END IF;
    RETURN id;
END
$$;
COMMENT ON FUNCTION billing_internal.find_meter(text) IS 'A meter by key or id. Errors: ZB001.';

CREATE FUNCTION billing_internal.stored_cells(
    of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz, recorded_until timestamptz DEFAULT 'infinity'
) RETURNS TABLE (bucket_start timestamptz, bucket_minutes smallint, dimensions jsonb, events bigint, quantity numeric, value_keys uuid[])
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT u.bucket_start, u.bucket_minutes, u.dimensions::jsonb, u.events, u.quantity, u.value_keys
    FROM (
        SELECT array_agg(e.event_key) AS keys, array_agg(e.event_type) AS types, array_agg(e.occurred_at) AS times,
            array_agg(e.bill_to) AS bill_tos, array_agg(e.properties::text) AS properties, count(*)::int AS size
        FROM (
            SELECT e.*, (row_number() OVER () - 1) / 10000 AS slice
            FROM billing.usage_event e JOIN billing.meter m ON m.meter_id = of_meter_id AND m.event_type = e.event_type
            WHERE e.customer_id = of_customer_id AND e.occurred_at >= from_at AND e.occurred_at < until_at AND e.recorded_at <= recorded_until
                AND NOT EXISTS (SELECT FROM billing.usage_event_void v WHERE v.customer_id = e.customer_id AND v.event_key = e.event_key AND v.revision = e.revision
                    AND v.voided_at <= recorded_until)
        ) e GROUP BY e.slice
    ) s
    CROSS JOIN billing.meter m
    CROSS JOIN LATERAL billing_internal.stored_usage(ARRAY[m.meter_id], ARRAY[m.definition::text], array_fill(of_customer_id, ARRAY[s.size]),
        array_fill((SELECT c.bucket_minutes FROM billing.customer c WHERE c.customer_id = of_customer_id), ARRAY[s.size]),
        s.keys, s.types, s.times, s.bill_tos, s.properties) u
    WHERE m.meter_id = of_meter_id
$$;
COMMENT ON FUNCTION billing_internal.stored_cells(bigint, int, timestamptz, timestamptz, timestamptz) IS 'Usage measured afresh from events in [from_at, until_at) recorded until an instant: a cell may stand in several rows, which add up.';

CREATE FUNCTION billing_internal.stored_measures(
    of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz, recorded_until timestamptz DEFAULT 'infinity'
) RETURNS TABLE (occurred_at timestamptz, event_key uuid, event_id text, recorded_at timestamptz, properties jsonb, dimensions jsonb, value numeric, value_key uuid)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.times[u.n], s.keys[u.n], s.ids[u.n], s.recorded[u.n], s.properties[u.n]::jsonb, u.dimensions::jsonb, u.value, u.value_key
    FROM (
        SELECT array_agg(e.event_key) AS keys, array_agg(e.event_id) AS ids, array_agg(e.occurred_at) AS times,
            array_agg(e.recorded_at) AS recorded, array_agg(e.bill_to) AS bill_tos, array_agg(e.properties::text) AS properties
        FROM (
            SELECT e.*, (row_number() OVER () - 1) / 10000 AS slice
            FROM billing.usage_event e JOIN billing.meter m ON m.meter_id = of_meter_id AND m.event_type = e.event_type
            WHERE e.customer_id = of_customer_id AND e.occurred_at >= from_at AND e.occurred_at < until_at AND e.recorded_at <= recorded_until
                AND NOT EXISTS (SELECT FROM billing.usage_event_void v WHERE v.customer_id = e.customer_id AND v.event_key = e.event_key AND v.revision = e.revision
                    AND v.voided_at <= recorded_until)
        ) e GROUP BY e.slice
    ) s
    CROSS JOIN billing.meter m
    CROSS JOIN LATERAL billing_internal.measured_events(m.definition::text, s.bill_tos, s.properties) u
    WHERE m.meter_id = of_meter_id
$$;
COMMENT ON FUNCTION billing_internal.stored_measures(bigint, int, timestamptz, timestamptz, timestamptz) IS 'Every event that counts on a meter in [from_at, until_at), with its dimensions and value.';

CREATE FUNCTION billing_internal.filter_values(filter jsonb) RETURNS TABLE (name text, accepted text[])
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT f.key, ARRAY(
        SELECT CASE jsonb_typeof(v) WHEN 'number' THEN trim_scale((v #>> '{}')::numeric)::text ELSE v #>> '{}' END
        FROM jsonb_array_elements(CASE jsonb_typeof(f.value) WHEN 'array' THEN f.value ELSE jsonb_build_array(f.value) END) v)
    FROM jsonb_each(filter) f
$$;
COMMENT ON FUNCTION billing_internal.filter_values(jsonb) IS 'A filter {"model":"gpt-4","region":["eu","us"]} as names and accepted texts.';

CREATE FUNCTION billing_internal.check_usage_arguments(from_at timestamptz, until_at timestamptz, grain text, group_by text[], filter jsonb, time_zone text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text;
    value jsonb;
BEGIN
    IF from_at IS NULL OR until_at IS NULL OR from_at >= until_at OR from_at = '-infinity' OR until_at = 'infinity' THEN
        PERFORM billing_internal.fail('ZB004', format('%s until %s is not a stretch of time', coalesce(from_at::text, 'NULL'), coalesce(until_at::text, 'NULL')),
            'Give two instants, the first before the second; the second is exclusive.');
    ELSIF grain IS NOT NULL AND grain NOT IN ('hour', 'day', 'month') THEN
        PERFORM billing_internal.fail('ZB004', format('grain %L is not known', grain), 'Use hour, day, month, or NULL for one total.');
    ELSIF group_by IS NULL OR array_ndims(group_by) > 1 OR array_position(group_by, NULL) IS NOT NULL OR cardinality(group_by) > 10 THEN
        PERFORM billing_internal.fail('ZB004', 'group_by must be an array of at most 10 property names', 'Pass ARRAY[''model''], or ''{}'' for none.');
    ELSIF jsonb_typeof(filter) IS DISTINCT FROM 'object' THEN
        PERFORM billing_internal.fail('ZB004', 'the filter must be a JSON object', 'Pass {"model":"gpt-4"} or {"region":["eu","us"]}, or {} for none.');
    END IF;
    FOR name, value IN SELECT * FROM jsonb_each(filter) LOOP
        IF jsonb_typeof(value) NOT IN ('string', 'number', 'boolean')
            AND (jsonb_typeof(value) <> 'array' OR EXISTS (SELECT FROM jsonb_array_elements(value) v WHERE jsonb_typeof(v) NOT IN ('string', 'number', 'boolean'))) THEN
            PERFORM billing_internal.fail('ZB004', format('filter %s must be a value or a list of values', name), 'Pass {"model":"gpt-4"} or {"region":["eu","us"]}.');
        END IF;
    END LOOP;
    PERFORM billing_internal.check_zone(time_zone);
END
$$;
COMMENT ON FUNCTION billing_internal.check_usage_arguments(timestamptz, timestamptz, text, text[], jsonb, text) IS 'Arguments that usage() and spend() share. Errors: ZB004.';

CREATE FUNCTION billing_internal.usage_cells(
    of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz, boundaries timestamptz[] DEFAULT '{}'
) RETURNS TABLE (at timestamptz, dimensions jsonb, events bigint, quantity numeric, value_key uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    width interval := '60 minutes';
    unique_count boolean := (SELECT m.aggregation = 'unique_count' FROM billing.meter m WHERE m.meter_id = of_meter_id);
    ragged timestamptz[];
BEGIN
    -- The widest bucket there is decides which boundaries cut through one.
    IF (SELECT c.bucket_minutes = 15 FROM billing.customer c WHERE c.customer_id = of_customer_id)
        AND NOT EXISTS (SELECT FROM billing_internal.usage_cell u WHERE u.customer_id = of_customer_id AND u.meter_id = of_meter_id
            AND u.bucket_start >= from_at - interval '1 hour' AND u.bucket_start < until_at AND u.bucket_minutes = 60) THEN
        width := '15 minutes';
    END IF;
    SELECT coalesce(array_agg(DISTINCT date_bin(width, b, '2000-01-01 00:00+00')), '{}') INTO ragged
    FROM unnest(boundaries || from_at || until_at) b
    WHERE date_bin(width, b, '2000-01-01 00:00+00') <> b AND b >= from_at AND b <= until_at;

    IF NOT unique_count THEN
        RETURN QUERY SELECT u.bucket_start, u.dimensions, u.events, u.quantity, NULL::uuid
        FROM billing_internal.usage_cell u
        WHERE u.customer_id = of_customer_id AND u.meter_id = of_meter_id AND u.bucket_start >= from_at AND u.bucket_start < until_at
            AND date_bin(width, u.bucket_start, '2000-01-01 00:00+00') <> ALL (ragged);
    ELSE
        RETURN QUERY SELECT u.bucket_start, u.dimensions, u.events, NULL::numeric, NULL::uuid
        FROM billing_internal.usage_cell u
        WHERE u.customer_id = of_customer_id AND u.meter_id = of_meter_id AND u.bucket_start >= from_at AND u.bucket_start < until_at
            AND date_bin(width, u.bucket_start, '2000-01-01 00:00+00') <> ALL (ragged)
        UNION ALL
        SELECT u.bucket_start, u.dimensions, 0::bigint, NULL::numeric, u.value_key
        FROM billing_internal.usage_distinct u
        WHERE u.customer_id = of_customer_id AND u.meter_id = of_meter_id AND u.bucket_start >= from_at AND u.bucket_start < until_at
            AND date_bin(width, u.bucket_start, '2000-01-01 00:00+00') <> ALL (ragged);
    END IF;
    -- Inside a bucket that a boundary cuts, the events answer.
    IF ragged <> '{}' THEN
        RETURN QUERY SELECT e.occurred_at, e.dimensions, 1::bigint, e.value, e.value_key
        FROM unnest(ragged) r
        CROSS JOIN LATERAL billing_internal.stored_measures(of_customer_id, of_meter_id, greatest(r, from_at), least(r + width, until_at)) e;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.usage_cells(bigint, int, timestamptz, timestamptz, timestamptz[]) IS 'Usage in [from_at, until_at) from buckets and deltas, and from events where a boundary cuts a bucket. Rows add up (count, sum), or are to be maximised or counted distinct.';

CREATE FUNCTION billing.usage(
    customer text, meter text, from_at timestamptz, until_at timestamptz, grain text DEFAULT NULL, group_by text[] DEFAULT '{}',
    filter jsonb DEFAULT '{}', time_zone text DEFAULT NULL
) RETURNS TABLE (starts_at timestamptz, dimensions jsonb, quantity numeric, events bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    m record;
    zone text;
    from_buckets boolean;
    boundaries timestamptz[] := '{}';
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    SELECT k.meter_id, k.aggregation, k.dimensions INTO m FROM billing.meter k WHERE k.meter_id = billing_internal.find_meter(meter);
    SELECT coalesce(usage.time_zone, c.time_zone) INTO zone FROM billing.customer c WHERE c.customer_id = of_customer_id;
    PERFORM billing_internal.check_usage_arguments(from_at, until_at, grain, group_by, filter, zone);
    from_buckets := group_by <@ (m.dimensions || 'bill_to'::text)
        AND NOT EXISTS (SELECT FROM jsonb_object_keys(filter) f WHERE f <> ALL (m.dimensions || 'bill_to'::text));
    -- Where the zone's hours are not the buckets', every boundary of the grain may cut a bucket.
    IF grain IS NOT NULL AND billing_internal.zone_minutes(zone) < 60 THEN
        IF grain = 'hour' AND (SELECT c.bucket_minutes > 15 FROM billing.customer c WHERE c.customer_id = of_customer_id) THEN
            from_buckets := false;
        ELSE
            SELECT coalesce(array_agg(b AT TIME ZONE zone), '{}') INTO boundaries
            FROM generate_series(date_trunc(grain, from_at AT TIME ZONE zone), until_at AT TIME ZONE zone, ('1 ' || grain)::interval) b;
        END IF;
    END IF;
    RETURN QUERY
    WITH cells AS (
        SELECT c.at, c.dimensions, c.events, c.quantity, c.value_key
        FROM billing_internal.usage_cells(of_customer_id, m.meter_id, from_at, until_at, boundaries) c WHERE from_buckets
        UNION ALL
        -- A property that is no dimension is looked up in the events.
        SELECT e.occurred_at, e.dimensions || (SELECT coalesce(jsonb_object_agg(p.name, CASE jsonb_typeof(p.value) WHEN 'number'
                THEN trim_scale((p.value #>> '{}')::numeric)::text ELSE p.value #>> '{}' END), '{}')
            FROM (SELECT n.name, e.properties #> string_to_array(n.name, '.') AS value
                FROM (SELECT unnest(group_by) AS name UNION SELECT jsonb_object_keys(filter)) n WHERE NOT e.dimensions ? n.name) p
            WHERE p.value IS NOT NULL AND jsonb_typeof(p.value) <> 'null'),
            1, e.value, e.value_key
        FROM billing_internal.stored_measures(of_customer_id, m.meter_id, from_at, until_at) e WHERE NOT from_buckets
    ), kept AS (
        SELECT CASE WHEN grain IS NULL THEN from_at ELSE greatest(date_trunc(grain, c.at, zone), from_at) END AS cell,
            (SELECT coalesce(jsonb_object_agg(g, c.dimensions->g) FILTER (WHERE c.dimensions ? g), '{}') FROM unnest(group_by) g) AS grouped,
            c.events, c.quantity, c.value_key
        FROM cells c
        WHERE NOT EXISTS (SELECT FROM billing_internal.filter_values(filter) f WHERE (c.dimensions->>f.name = ANY (f.accepted)) IS NOT TRUE)
    )
    SELECT k.cell, k.grouped,
        CASE m.aggregation WHEN 'count' THEN sum(k.events) WHEN 'sum' THEN coalesce(sum(k.quantity), 0) WHEN 'max' THEN max(k.quantity)
            ELSE count(DISTINCT k.value_key) END,
        coalesce(sum(k.events), 0)::bigint
    FROM kept k GROUP BY k.cell, k.grouped
    -- What corrections took back leaves cells in which nothing counts.
    HAVING sum(k.events) <> 0
    ORDER BY k.cell, k.grouped;
    IF NOT FOUND AND grain IS NULL AND group_by = '{}' THEN
        RETURN QUERY SELECT from_at, '{}'::jsonb, CASE WHEN m.aggregation <> 'max' THEN 0::numeric END, 0::bigint;
    END IF;
END
$$;
COMMENT ON FUNCTION billing.usage(text, text, timestamptz, timestamptz, text, text[], jsonb, text) IS
    'A customer''s usage on a meter in [from_at, until_at), exact for any instants and right at commit. grain: hour, day, month (cells of time_zone, by default the customer''s; the first cell starts at from_at) or NULL for one total. group_by: dimensions (answered from buckets) or any property (answered from events, the same but slower). filter: {"model":"gpt-4"} or {"region":["eu","us"]}. quantity is in the meter''s unit; events says how many counted. Errors: ZB001 unknown customer or meter, ZB004 arguments.';

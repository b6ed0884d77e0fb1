-- Metering: deltas fold into buckets; readers add both; everything can be measured again from events.

CREATE FUNCTION billing_internal.stored_usage(
    meter_ids int[], meter_from timestamptz[], meter_until timestamptz[], definitions text[], customer_ids bigint[], minutes smallint[], event_keys uuid[], event_types text[],
    occurred_at timestamptz[], bill_tos text[], properties text[]
) RETURNS TABLE (customer_id bigint, meter_id int, bucket_minutes smallint, bucket_start timestamptz, dimension_set_id bigint,
    dimensions text, events bigint, quantity numeric, moment numeric, placed_at timestamptz, event_key uuid, value_keys uuid[])
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'stored_usage_wrapper';
COMMENT ON FUNCTION billing_internal.stored_usage(int[], timestamptz[], timestamptz[], text[], bigint[], smallint[], uuid[], text[], timestamptz[], text[], text[]) IS 'The deltas of stored events (columns of equal length) on the given versions of meters, each for the events of its stretch.';

CREATE FUNCTION billing_internal.measured_events(definition text, bill_tos text[], properties text[])
    RETURNS TABLE (n int, dimensions text, value numeric, value_key uuid)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 1000 AS 'MODULE_PATHNAME', 'measured_events_wrapper';
COMMENT ON FUNCTION billing_internal.measured_events(text, text[], text[]) IS 'What each event is on one meter: its place (from 1), dimensions and value. Events that do not count are left out.';

CREATE FUNCTION billing_internal.key_of_text(value text) RETURNS uuid
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'key_of_text_wrapper';
COMMENT ON FUNCTION billing_internal.key_of_text(text) IS 'The stored key of an event id or a distinct value.';

CREATE FUNCTION billing_internal.events_since(of_meter_id int, of_version int DEFAULT NULL, until_at timestamptz DEFAULT 'infinity') RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- A type counts only in the stretch whose version has it; whole hours.
    SELECT coalesce(max(date_trunc('hour', least(r.removed_until, w.until_at) + interval '1 hour' - interval '1 microsecond', 'UTC')), '-infinity') FROM billing.event_retention r
    JOIN billing_internal.meter_stretch w ON w.definition->>'event_type' = r.event_type AND w.from_at < least(r.removed_until, events_since.until_at)
    JOIN billing.meter m ON m.meter_id = w.meter_id
    WHERE w.meter_id = of_meter_id AND w.as_of_version = coalesce(of_version, m.version)
$$;
COMMENT ON FUNCTION billing_internal.events_since(int, int, timestamptz) IS 'From when on the events until an instant that a meter counts, as it was with so many versions (NULL = now), are all there; -infinity if none were removed.';

CREATE FUNCTION billing_internal.require_events(of_meter_id int, from_at timestamptz, until_at timestamptz DEFAULT 'infinity', of_version int DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    since timestamptz;
BEGIN
    -- Nearly always nothing was.
    IF EXISTS (SELECT FROM billing.event_retention r WHERE r.removed_until > from_at) THEN
        since := billing_internal.events_since(of_meter_id, of_version, until_at);
        IF since > from_at THEN
            PERFORM billing_internal.fail('ZB005', format('events before %s, which this needs since %s, have been removed', since, from_at),
                'What is older is answered from buckets: ask for whole hours, and by declared dimensions. SELECT * FROM billing.event_retention; shows what is kept.',
                'reason events_removed');
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.require_events(int, timestamptz, timestamptz, int) IS
    'Errors: ZB005 (DETAIL reason events_removed) of the events in [from_at, until_at) that a meter counts, as it was with so many versions (NULL = now), some have been removed by retention. Whatever measures stored events asks this first, or it would take what is left for all there was.';

CREATE FUNCTION billing_internal.events_hold() RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    SELECT FROM billing.event_retention r WHERE NOT billing_internal.travelling() ORDER BY r.event_type FOR SHARE
$$;
COMMENT ON FUNCTION billing_internal.events_hold() IS 'Until the transaction ends no more events are said to be removed: retention waits, and then sees what was noted meanwhile. Called before asking what has been removed by whoever is about to need the rest.';

CREATE FUNCTION billing_internal.late_from(age interval) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least(billing.now() - age, (SELECT min(p.starts_at) FROM billing.billing_period p WHERE p.ends_at > billing.now() - age))
$$;
COMMENT ON FUNCTION billing_internal.late_from(interval) IS 'From when on events are needed if such up to an age are accepted: a period that can still get one may have to be computed as a whole.';

-- ── fold ─────────────────────────────────────────────────────────────────────────────────────────

CREATE TYPE billing_internal.rebuild_ref AS (meter_rebuild_id uuid, meter_id int, from_at timestamptz, until_at timestamptz, listed_to bigint);
COMMENT ON TYPE billing_internal.rebuild_ref IS 'What listing needs of a meter_rebuild row.';

CREATE TYPE billing_internal.usage_measure AS (
    bucket_start timestamptz, bucket_minutes smallint, dimension_set_id bigint, dimensions jsonb, events bigint, quantity numeric, value_keys uuid[],
    moment numeric, placed_at timestamptz, event_key uuid
);
COMMENT ON TYPE billing_internal.usage_measure IS 'Usage of a cell as measured from events; several of one cell add up.';

CREATE FUNCTION billing_internal.usage_mend(of_customer_id bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    piece record;
    piece_until timestamptz;
    next_event timestamptz;
    stale tid[];
    asked tid[];
    rest_until timestamptz;
    fresh billing_internal.usage_measure[];
    mended bigint := 0;
BEGIN
    LOOP
        -- The first stretch of one meter, cut after about 50,000 events where an hour ends.
        SELECT d.meter_id, lower(s.stretch) AS from_at, upper(s.stretch) AS until_at, lower(s.stretch) AS asked_from INTO piece
        FROM (SELECT x.meter_id, range_agg(tstzrange(x.from_at, x.until_at)) AS stretches FROM billing.usage_dirty x WHERE x.customer_id = of_customer_id
            GROUP BY x.meter_id ORDER BY x.meter_id LIMIT 1) d, unnest(d.stretches) s (stretch) ORDER BY s.stretch LIMIT 1;
        EXIT WHEN NOT FOUND OR mended >= 16;
        -- What was removed can't be measured again: its buckets stay as they are.
        IF piece.from_at < billing_internal.events_since(piece.meter_id) THEN
            DELETE FROM billing.usage_dirty d WHERE d.customer_id = of_customer_id AND d.meter_id = piece.meter_id AND d.until_at <= billing_internal.events_since(piece.meter_id);
            piece.from_at := billing_internal.events_since(piece.meter_id);
            CONTINUE WHEN piece.from_at >= piece.until_at;
        END IF;
        SELECT e.occurred_at INTO next_event FROM billing.usage_event e
        WHERE e.customer_id = of_customer_id AND e.occurred_at >= piece.from_at AND e.occurred_at < piece.until_at ORDER BY e.occurred_at OFFSET 50000 LIMIT 1;
        piece_until := coalesce(date_trunc('hour', next_event, 'UTC'), piece.until_at);
        IF piece_until <= piece.from_at THEN
            -- A single hour has more.
            piece_until := least(date_trunc('hour', piece.from_at, 'UTC') + interval '1 hour', piece.until_at);
        END IF;
        -- One snapshot of the events, of the deltas that say the same, and of what asked for this. What others commit
        -- from here on stays in deltas and dirty stretches of its own; so does what asks since a moment ago for an earlier time.
        SELECT ARRAY(SELECT d.ctid FROM billing.usage_delta d WHERE d.customer_id = of_customer_id AND d.meter_id = piece.meter_id
                AND d.bucket_start >= piece.from_at AND d.bucket_start < piece_until),
            ARRAY(SELECT ROW(c.bucket_start, c.bucket_minutes, c.dimension_set_id, c.dimensions, c.events, c.quantity, c.value_keys, c.moment, c.placed_at, c.event_key)::billing_internal.usage_measure
                FROM billing_internal.stored_cells(of_customer_id, piece.meter_id, piece.from_at, piece_until) c),
            ARRAY(SELECT d.ctid FROM billing.usage_dirty d WHERE d.customer_id = of_customer_id AND d.meter_id = piece.meter_id AND d.from_at >= piece.asked_from AND d.from_at < piece_until),
            (SELECT max(d.until_at) FROM billing.usage_dirty d WHERE d.customer_id = of_customer_id AND d.meter_id = piece.meter_id AND d.from_at >= piece.asked_from AND d.from_at < piece_until)
        INTO stale, fresh, asked, rest_until;
        PERFORM billing_internal.partitions_heed(ARRAY(SELECT DISTINCT date_trunc('month', f.bucket_start, 'UTC') FROM unnest(fresh) f));
        DELETE FROM billing.usage_delta WHERE ctid = ANY (stale);
        DELETE FROM billing.usage_dirty WHERE ctid = ANY (asked);
        DELETE FROM billing.usage_bucket b WHERE b.customer_id = of_customer_id AND b.meter_id = piece.meter_id AND b.bucket_start >= piece.from_at AND b.bucket_start < piece_until;
        DELETE FROM billing.usage_value v WHERE v.customer_id = of_customer_id AND v.meter_id = piece.meter_id AND v.bucket_start >= piece.from_at AND v.bucket_start < piece_until;
        -- Totals of what is no longer in buckets: the fold that comes next adds them up again.
        WITH unsummed AS (
            UPDATE billing.usage_window_kept w SET summed = false
            WHERE w.customer_id = of_customer_id AND w.meter_id = piece.meter_id AND w.starts_at < piece_until AND w.ends_at > piece.from_at AND w.summed RETURNING w.*
        )
        DELETE FROM billing.usage_total t USING unsummed w
        WHERE t.customer_id = w.customer_id AND t.meter_id = w.meter_id AND t.starts_at = w.starts_at AND t.ends_at = w.ends_at;
        IF rest_until > piece_until THEN
            INSERT INTO billing.usage_dirty (customer_id, meter_id, from_at, until_at) VALUES (of_customer_id, piece.meter_id, piece_until, rest_until);
        END IF;
        INSERT INTO billing.usage_delta (customer_id, meter_id, bucket_minutes, bucket_start, dimension_set_id, events, quantity, moment, placed_at, event_key, dimensions, value_keys)
        SELECT of_customer_id, piece.meter_id, f.bucket_minutes, f.bucket_start, f.dimension_set_id, f.events, f.quantity, f.moment, f.placed_at, f.event_key,
            CASE WHEN s.dimensions IS DISTINCT FROM f.dimensions THEN f.dimensions END, f.value_keys
        FROM unnest(fresh) f LEFT JOIN billing.dimension_set s ON s.customer_id = of_customer_id AND s.dimension_set_id = f.dimension_set_id;
        mended := mended + 1;
    END LOOP;
    RETURN mended;
END
$$;
COMMENT ON FUNCTION billing_internal.usage_mend(bigint) IS
    'Measures dirty usage of a customer again, in at most 16 pieces of about 50,000 events: its buckets and deltas give way to fresh deltas. How many pieces it did. The caller is fold, under its lock. Runs as billing_owner.';

CREATE FUNCTION billing_internal.fold_customer(of_customer_id bigint, max_rows int DEFAULT 20000, mend boolean DEFAULT true) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    rows tid[];
    months timestamptz[];
    folded bigint;
    mended bigint := 0;
BEGIN
    -- Never waited for: whoever holds it does the same work. A time travel would keep the deltas from others and gain nothing.
    -- A snapshot of before the lock may not have periods whose totals are kept by now.
    IF billing_internal.travelling() OR current_setting('transaction_isolation') <> 'read committed'
        OR NOT pg_try_advisory_xact_lock(billing_internal.lock_class('fold'), hashint8(of_customer_id)) THEN
        RETURN 0;
    END IF;
    IF mend THEN
        mended := billing_internal.usage_mend(of_customer_id);
    END IF;
    PERFORM billing_internal.usage_windows_tidy(of_customer_id);
    -- What to take, in one snapshot; a distinct value costs as much as a row. Of two dimension sets with one id (1 in 2^53 per
    -- pair) only the one that is in the dictionary, or comes there now: the other's deltas stay, and say their dimensions
    -- themselves. What is seen here may lie in a month whose partitions this transaction does not know yet.
    SELECT array_agg(t.ctid), array_agg(DISTINCT date_trunc('month', t.bucket_start, 'UTC')) INTO rows, months
    FROM (
        SELECT d.ctid, d.bucket_start, d.dimensions, first_value(d.dimensions) OVER (PARTITION BY d.dimension_set_id ORDER BY d.dimensions) AS taken,
            sum(1 + coalesce(cardinality(d.value_keys), 0)) OVER (ORDER BY d.dimension_set_id, d.dimensions ROWS UNBOUNDED PRECEDING) - coalesce(cardinality(d.value_keys), 0) AS work
        FROM (
            SELECT x.ctid, x.* FROM billing.usage_delta x LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
            WHERE x.customer_id = of_customer_id AND (x.dimensions = s.dimensions OR x.dimensions IS NULL OR s.dimensions IS NULL) LIMIT max_rows
        ) d
    ) t WHERE t.work <= max_rows AND (t.dimensions = t.taken OR t.dimensions IS NULL);
    IF rows IS NULL THEN
        RETURN mended;
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
        FROM taken t, unnest(t.value_keys) v WHERE t.placed_at IS NULL
        ON CONFLICT DO NOTHING
    ), operations AS (
        INSERT INTO billing.usage_value AS v (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, value_key, placed_at, event_key, present)
        SELECT DISTINCT ON (t.meter_id, t.bucket_start, t.bucket_minutes, t.dimension_set_id, t.value_keys[1])
            t.customer_id, t.meter_id, t.bucket_start, t.bucket_minutes, t.dimension_set_id, t.value_keys[1], t.placed_at, t.event_key, t.quantity = 1
        FROM taken t WHERE t.placed_at IS NOT NULL AND t.value_keys IS NOT NULL
        ORDER BY t.meter_id, t.bucket_start, t.bucket_minutes, t.dimension_set_id, t.value_keys[1], t.placed_at DESC, t.event_key DESC, t.quantity
        ON CONFLICT (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, value_key) DO UPDATE
            SET placed_at = excluded.placed_at, event_key = excluded.event_key, present = excluded.present
            WHERE (excluded.placed_at, excluded.event_key) > (v.placed_at, v.event_key)
    ), buckets AS (
        INSERT INTO billing.usage_bucket AS b (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id, events, quantity, moment, placed_at, event_key)
        SELECT t.customer_id, t.meter_id, t.bucket_start, t.bucket_minutes, t.dimension_set_id, sum(t.events),
            CASE m.state WHEN 'max' THEN max(t.quantity) WHEN 'min' THEN min(t.quantity) WHEN 'presence' THEN NULL
                WHEN 'latest' THEN (array_agg(t.quantity ORDER BY t.placed_at DESC, t.event_key DESC) FILTER (WHERE m.state = 'latest' AND t.placed_at IS NOT NULL))[1]
                ELSE sum(t.quantity) END,
            sum(t.moment), max(t.placed_at) FILTER (WHERE m.state = 'latest'),
            (array_agg(t.event_key ORDER BY t.placed_at DESC, t.event_key DESC) FILTER (WHERE m.state = 'latest' AND t.placed_at IS NOT NULL))[1]
        FROM taken t JOIN billing.meter m USING (meter_id)
        GROUP BY t.customer_id, t.meter_id, t.bucket_start, t.bucket_minutes, t.dimension_set_id, m.state
        ON CONFLICT (customer_id, meter_id, bucket_start, bucket_minutes, dimension_set_id) DO UPDATE
            SET events = b.events + excluded.events,
                quantity = CASE (SELECT m.state FROM billing.meter m WHERE m.meter_id = b.meter_id)
                    WHEN 'max' THEN greatest(b.quantity, excluded.quantity) WHEN 'min' THEN least(b.quantity, excluded.quantity)
                    WHEN 'latest' THEN CASE WHEN (excluded.placed_at, excluded.event_key) > (b.placed_at, b.event_key) OR b.placed_at IS NULL THEN excluded.quantity ELSE b.quantity END
                    ELSE b.quantity + excluded.quantity END,
                moment = b.moment + excluded.moment,
                placed_at = greatest(b.placed_at, excluded.placed_at),
                event_key = CASE WHEN (excluded.placed_at, excluded.event_key) > (b.placed_at, b.event_key) OR b.placed_at IS NULL THEN excluded.event_key ELSE b.event_key END
    ), totals AS (
        -- The same once more for the periods whose totals are kept.
        INSERT INTO billing.usage_total AS u (customer_id, meter_id, starts_at, ends_at, dimension_set_id, events, quantity)
        SELECT w.customer_id, w.meter_id, w.starts_at, w.ends_at, t.dimension_set_id, sum(t.events),
            CASE m.state WHEN 'max' THEN max(t.quantity) WHEN 'min' THEN min(t.quantity) ELSE sum(t.quantity) END
        FROM billing.usage_window_kept w JOIN billing.meter m USING (meter_id)
        JOIN taken t ON t.meter_id = w.meter_id AND t.bucket_start >= w.starts_at AND t.bucket_start < w.ends_at
        WHERE w.customer_id = of_customer_id AND w.summed
        GROUP BY w.customer_id, w.meter_id, w.starts_at, w.ends_at, t.dimension_set_id, m.state
        ON CONFLICT (customer_id, meter_id, starts_at, ends_at, dimension_set_id) DO UPDATE
            SET events = u.events + excluded.events,
                quantity = CASE (SELECT m.state FROM billing.meter m WHERE m.meter_id = u.meter_id)
                    WHEN 'max' THEN greatest(u.quantity, excluded.quantity) WHEN 'min' THEN least(u.quantity, excluded.quantity) ELSE u.quantity + excluded.quantity END
    )
    SELECT count(*) INTO folded FROM taken;
    RETURN folded + mended;
END
$$;
COMMENT ON FUNCTION billing_internal.fold_customer(bigint, int, boolean) IS 'Measures a customer''s dirty usage again (mend) and moves its deltas (at most max_rows, counted with their distinct values) into buckets and kept totals; how many pieces of work it did. 0 if another session is at it, and above READ COMMITTED. Deltas whose dimension set has the id of another stay. Runs as billing_owner, the only one that may delete.';

CREATE FUNCTION billing_internal.customer_issue(run uuid, of_customer_id bigint, of_sqlstate text, what text, of_hint text) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO billing.job_issue (job_issue_id, job_run_id, at, customer_id, kind, key, sqlstate, message, hint)
    SELECT billing_internal.uuid_v7(), run, clock_timestamp(), of_customer_id, 'customer', coalesce(c.key, of_customer_id::text), of_sqlstate, what, of_hint
    FROM billing.job_run r LEFT JOIN billing.customer c ON c.customer_id = of_customer_id
    WHERE r.job_run_id = run AND NOT EXISTS (SELECT FROM billing.job_issue i WHERE i.job_run_id = run AND i.kind = 'customer' AND i.customer_id = of_customer_id AND i.message = what)
$$;
COMMENT ON FUNCTION billing_internal.customer_issue(uuid, bigint, text, text, text) IS 'Notes, once a run, why a job left a customer out.';

CREATE FUNCTION billing_internal.fold_or_issue(run uuid, of_customer_id bigint, max_rows int DEFAULT 20000) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    what text;
    collision bigint;
    folded bigint;
BEGIN
    folded := billing_internal.fold_customer(of_customer_id, max_rows);
    -- What is still there when nothing was folded is what can't be.
    FOR collision IN SELECT DISTINCT d.dimension_set_id FROM billing.usage_delta d JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
        WHERE d.customer_id = of_customer_id AND d.dimensions <> s.dimensions AND folded = 0 LOOP
        PERFORM billing_internal.customer_issue(run, of_customer_id, 'ZB005', format('two dimension sets have the id %s; usage of both is right, but that of one stays unfolded', collision),
            'Nothing is lost, and reading it only costs more. To end it, amend the events of one of them (billing.event_amend) so that a dimension value differs, then CALL billing.meter_rebuild() for the meter.');
    END LOOP;
    RETURN folded;
EXCEPTION WHEN serialization_failure OR deadlock_detected OR query_canceled OR lock_not_available OR insufficient_resources THEN
    RAISE;
WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS what = MESSAGE_TEXT;
    PERFORM billing_internal.customer_issue(run, of_customer_id, SQLSTATE, what, 'Its usage is answered from deltas and events until this is mended; the others'' was folded.');
    RETURN 0;
END
$$;
COMMENT ON FUNCTION billing_internal.fold_or_issue(uuid, bigint, int) IS 'Folds a customer; what is wrong with it is an issue of the run and stops no other.';

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
    IF max_rows IS NULL OR max_rows < 1 THEN
        PERFORM billing_internal.fail('ZB004', format('%s deltas can''t be folded in a step', coalesce(max_rows::text, 'NULL')), 'Give 1 or more.');
    END IF;
    PERFORM billing_internal.require_read_committed('usage is not folded');
    -- Hops from customer to customer along the index. Each is a lock held until commit, and the lock table is small.
    LOOP
        of_customer_id := least((SELECT d.customer_id FROM billing.usage_delta d WHERE d.customer_id > of_customer_id ORDER BY d.customer_id LIMIT 1),
            (SELECT d.customer_id FROM billing.usage_dirty d WHERE d.customer_id > of_customer_id ORDER BY d.customer_id LIMIT 1));
        EXIT WHEN of_customer_id IS NULL;
        moved := billing_internal.fold_or_issue(run, of_customer_id, max_rows);
        folded := folded + moved;
        customers := customers + CASE WHEN moved > 0 THEN 1 ELSE 0 END;
        EXIT WHEN folded >= max_rows OR customers >= 256 OR clock_timestamp() > started + interval '2 seconds';
    END LOOP;
    UPDATE billing.job_run r SET done = r.done + folded WHERE r.job_run_id = run;
    RETURN folded;
END
$$;
COMMENT ON FUNCTION billing.fold_step(uuid, int) IS 'One step of the job fold: folds customers until 256 of them, max_rows deltas or two seconds are reached. Returns how many deltas it moved; 0 = nothing left, or other sessions are at it. What is wrong with one customer is in job_issue and stops no other. Errors: ZB004 max_rows, ZB005 above READ COMMITTED.';

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
COMMENT ON PROCEDURE billing.fold() IS 'Moves all deltas into buckets, committing step by step. Only makes reading faster; nothing depends on it having run. Progress in job_run; customers that could not be folded, and why, in job_issue.';

-- ── rebuild ──────────────────────────────────────────────────────────────────────────────────────
-- A meter that is new or has changed counts otherwise from the commit that says so. What that means for usage:
--   asked for      one meter_rebuild row: readers take the stretch from events, for every customer
--   stripes        no ingest that measured with the old meter is under way any more
--   listing        customer by customer, the stretch that has events becomes usage_dirty
--   mending        fold measures it again; readers take buckets again

CREATE FUNCTION billing_internal.rebuild_ask(of_meter_id int, from_at timestamptz, until_at timestamptz, why text) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id uuid := billing_internal.uuid_v7();
BEGIN
    -- What retention has removed can't be measured again; what it has not must stay until this is done.
    PERFORM billing_internal.events_hold();
    from_at := greatest(from_at, billing_internal.events_since(of_meter_id));
    until_at := greatest(until_at, from_at + interval '1 hour');
    INSERT INTO billing.meter_rebuild (meter_rebuild_id, meter_id, from_at, until_at, reason, requested_at)
    VALUES (id, of_meter_id, date_trunc('hour', from_at, 'UTC'),
        CASE WHEN date_trunc('hour', until_at, 'UTC') = until_at THEN until_at ELSE date_trunc('hour', until_at, 'UTC') + interval '1 hour' END, why, clock_timestamp());
    RETURN id;
END
$$;
COMMENT ON FUNCTION billing_internal.rebuild_ask(int, timestamptz, timestamptz, text) IS 'Asks for a meter''s usage in [from_at, until_at), widened to whole hours, to be measured again, as far back as its events are kept. Returns the id of its meter_rebuild row.';

CREATE FUNCTION billing_internal.rebuild_list(r billing_internal.rebuild_ref, max_rows int) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    customers bigint[] := ARRAY(SELECT c.customer_id FROM billing.customer c WHERE c.customer_id > r.listed_to ORDER BY c.customer_id LIMIT max_rows);
    listed bigint;
    charged_ids bigint[];
    charged_from timestamptz[];
    charged_until timestamptz[];
BEGIN
    WITH dirty AS (
        INSERT INTO billing.usage_dirty (customer_id, meter_id, from_at, until_at)
        SELECT c, r.meter_id, greatest(r.from_at, date_trunc('hour', first.at, 'UTC')), least(r.until_at, date_trunc('hour', last.at, 'UTC') + interval '1 hour')
        FROM unnest(customers) c
        CROSS JOIN LATERAL (SELECT e.occurred_at AS at FROM billing.usage_event e WHERE e.customer_id = c AND e.occurred_at >= r.from_at AND e.occurred_at < r.until_at
            ORDER BY e.occurred_at LIMIT 1) first
        CROSS JOIN LATERAL (SELECT e.occurred_at AS at FROM billing.usage_event e WHERE e.customer_id = c AND e.occurred_at >= r.from_at AND e.occurred_at < r.until_at
            ORDER BY e.occurred_at DESC LIMIT 1) last
        RETURNING customer_id, from_at, until_at
    )
    SELECT count(*), array_agg(d.customer_id) FILTER (WHERE h.charged), array_agg(d.from_at) FILTER (WHERE h.charged), array_agg(CASE WHEN h.carried THEN 'infinity' ELSE d.until_at END) FILTER (WHERE h.charged)
    INTO listed, charged_ids, charged_from, charged_until
    FROM dirty d CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM billing.contract_charge x WHERE x.customer_id = d.customer_id AND (x.meter_id = r.meter_id
            OR EXISTS (SELECT FROM billing.meter_version v CROSS JOIN LATERAL billing_internal.compound_parts(v.definition) p JOIN billing.meter k ON k.key = p.meter
                WHERE v.meter_id = x.meter_id AND k.meter_id = r.meter_id))) AS charged,
        (SELECT m.state IN ('level', 'presence') FROM billing.meter m WHERE m.meter_id = r.meter_id) AS carried) h;
    -- Whoever bills from here on measures with the new meter: what was billed by the old one is compared.
    PERFORM billing_internal.usage_changed(charged_ids, charged_from, charged_until, true) WHERE charged_ids IS NOT NULL;
    UPDATE billing.meter_rebuild x SET listed_to = coalesce(customers[cardinality(customers)], x.listed_to), finished_at = CASE WHEN cardinality(customers) < max_rows THEN clock_timestamp() END
    WHERE x.meter_rebuild_id = r.meter_rebuild_id;
    RETURN listed;
END
$$;
COMMENT ON FUNCTION billing_internal.rebuild_list(billing_internal.rebuild_ref, int) IS 'Makes the part of the next max_rows customers of a rebuild dirty, notes what was billed by it for comparison, and closes the rebuild after the last; how many of them have events there.';

CREATE FUNCTION billing_internal.rebuild_small(id uuid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r billing_internal.rebuild_ref;
    of_customer_id bigint;
BEGIN
    SELECT x.meter_rebuild_id, x.meter_id, x.from_at, x.until_at, x.listed_to INTO r FROM billing.meter_rebuild x WHERE x.meter_rebuild_id = id;
    IF (SELECT coalesce(sum(pg_relation_size(p.relid)), 0) FROM pg_partition_tree('billing.usage_event') p WHERE p.isleaf) > 64 * 1024 * 1024
        OR (SELECT count(*) FROM (SELECT FROM billing.customer LIMIT 257) c) > 256
        OR NOT billing_internal.lock_stripes(ARRAY(SELECT generate_series(0, 255)), 4) THEN
        RETURN false;
    END IF;
    UPDATE billing.meter_rebuild x SET stripes_passed = 256 WHERE x.meter_rebuild_id = id;
    PERFORM billing_internal.rebuild_list(r, 2147483647);
    FOR of_customer_id IN SELECT DISTINCT d.customer_id FROM billing.usage_dirty d WHERE d.meter_id = r.meter_id ORDER BY 1 LOOP
        WHILE EXISTS (SELECT FROM billing.usage_dirty d WHERE d.customer_id = of_customer_id) AND billing_internal.fold_customer(of_customer_id) > 0 LOOP
        END LOOP;
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION billing_internal.rebuild_small(uuid) IS
    'Does a rebuild at once, with ingest shut out until the transaction ends, where there are few customers (256 at most: each is a lock) and events (64 MB) and ingest pauses; false = it waits for CALL billing.meter_rebuild(), and its usage is answered from events until then.';

CREATE FUNCTION billing.meter_rebuild_step(run uuid, max_rows int DEFAULT 5000) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    x record;
    passed int;
    of_customer_id bigint := 0;
    worked bigint := 0;
    left_before bigint;
    mended bigint := 0;
    started timestamptz := clock_timestamp();
BEGIN
    PERFORM billing_internal.require_installed();
    PERFORM billing_internal.require_read_committed('usage is not measured again');
    SELECT * INTO x FROM billing.meter_rebuild r WHERE r.finished_at IS NULL ORDER BY r.meter_rebuild_id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF FOUND AND x.stripes_passed < 256 THEN
        -- Whoever measured with the old meter held its stripe. Tried, never waited for, so nobody queues behind us.
        passed := x.stripes_passed;
        WHILE passed < 256 AND NOT billing_internal.travelling() AND pg_try_advisory_xact_lock(billing_internal.lock_class('stripe'), passed) LOOP
            passed := passed + 1;
        END LOOP;
        UPDATE billing.meter_rebuild r SET stripes_passed = passed WHERE r.meter_rebuild_id = x.meter_rebuild_id;
        IF passed < 256 THEN
            PERFORM pg_sleep(0.02);
        END IF;
        RETURN 1;
    ELSIF FOUND THEN
        worked := billing_internal.rebuild_list(ROW(x.meter_rebuild_id, x.meter_id, x.from_at, x.until_at, x.listed_to)::billing_internal.rebuild_ref, max_rows);
        UPDATE billing.job_run r SET total = coalesce(r.total, 0) + worked WHERE r.job_run_id = run;
        RETURN 1;
    END IF;
    -- Nothing to list: mend, customer by customer.
    LOOP
        SELECT d.customer_id INTO of_customer_id FROM billing.usage_dirty d WHERE d.customer_id > of_customer_id ORDER BY d.customer_id LIMIT 1;
        EXIT WHEN of_customer_id IS NULL OR worked >= 256 OR clock_timestamp() > started + interval '2 seconds';
        left_before := (SELECT count(*) FROM billing.usage_dirty d WHERE d.customer_id = of_customer_id);
        worked := worked + billing_internal.fold_or_issue(run, of_customer_id);
        mended := mended + left_before - (SELECT count(*) FROM billing.usage_dirty d WHERE d.customer_id = of_customer_id);
    END LOOP;
    UPDATE billing.job_run r SET done = r.done + mended WHERE r.job_run_id = run;
    RETURN CASE WHEN worked > 0 OR EXISTS (SELECT FROM billing.meter_rebuild r WHERE r.finished_at IS NULL) THEN 1 ELSE 0 END;
END
$$;
COMMENT ON FUNCTION billing.meter_rebuild_step(uuid, int) IS 'One step of the job meter_rebuild, for all rebuilds that were asked for: lets the ingests that began before them end, lists up to max_rows customers, or mends for about two seconds. Returns 0 when nothing is left or other sessions are at the rest.';

CREATE FUNCTION billing.meter_rebuild_start(meter text DEFAULT NULL, from_at timestamptz DEFAULT '-infinity', until_at timestamptz DEFAULT 'infinity', reason text DEFAULT NULL) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_meter_id int;
BEGIN
    PERFORM billing_internal.require_installed();
    IF meter IS NOT NULL THEN
        of_meter_id := billing_internal.find_meter(meter);
        IF from_at IS NULL OR until_at IS NULL OR from_at >= until_at THEN
            PERFORM billing_internal.fail('ZB004', format('%s until %s is not a stretch of time', coalesce(from_at::text, 'NULL'), coalesce(until_at::text, 'NULL')),
                'Give two instants, the first before the second; the second is exclusive.');
        END IF;
        PERFORM billing_internal.rebuild_ask(of_meter_id, from_at, until_at, coalesce(reason, 'asked for'));
        PERFORM billing_internal.audit('meter_rebuild', 'meter', (SELECT m.key FROM billing.meter m WHERE m.meter_id = of_meter_id), NULL, NULL,
            jsonb_build_object('from_at', from_at, 'until_at', until_at), reason);
    END IF;
    RETURN billing.job_start('meter_rebuild', jsonb_strip_nulls(jsonb_build_object('meter', meter, 'from_at', from_at, 'until_at', until_at)));
END
$$;
COMMENT ON FUNCTION billing.meter_rebuild_start(text, timestamptz, timestamptz, text) IS 'Opens a run of the job meter_rebuild and asks for a meter''s usage in [from_at, until_at), for all customers (NULL = only what was asked for already). Returns its job_run id. Errors: ZB001 meter, ZB004 arguments.';

CREATE PROCEDURE billing.meter_rebuild(meter text DEFAULT NULL, from_at timestamptz DEFAULT '-infinity', until_at timestamptz DEFAULT 'infinity', reason text DEFAULT NULL)
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.meter_rebuild_start(meter, from_at, until_at, reason);
BEGIN
    COMMIT;
    LOOP
        EXIT WHEN billing.meter_rebuild_step(run) OPERATOR(pg_catalog.=) 0;
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run);
END
$$;
COMMENT ON PROCEDURE billing.meter_rebuild(text, timestamptz, timestamptz, text) IS
    'Measures a meter''s usage in [from_at, until_at) again from events, for all customers; without a meter, what changed meters and corrections asked for. Commits step by step and can be stopped and started at any time: until a piece is done its usage is answered from events, so no answer changes. Progress in job_run. Errors: ZB001, ZB004.';

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
    of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz, recorded_until timestamptz DEFAULT 'infinity', of_version int DEFAULT NULL
) RETURNS TABLE (bucket_start timestamptz, bucket_minutes smallint, dimension_set_id bigint, dimensions jsonb, events bigint, quantity numeric, value_keys uuid[], moment numeric, placed_at timestamptz, event_key uuid)
    -- How many were voided in this very transaction no statistics tell: row by row it would take hours.
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_nestloop = off SET jit = off
AS $$
    SELECT billing_internal.require_events(of_meter_id, stored_cells.from_at, stored_cells.until_at, of_version);
    WITH stretch AS MATERIALIZED (
        SELECT w.from_at, w.until_at, w.definition, w.definition->>'event_type' AS event_type FROM billing_internal.meter_stretch w JOIN billing.meter m USING (meter_id)
        WHERE m.meter_id = of_meter_id AND w.as_of_version = coalesce(of_version, m.version)
    ), gone AS MATERIALIZED (
        SELECT v.event_key, v.revision FROM billing.usage_event_void v
        WHERE v.customer_id = of_customer_id AND v.occurred_at >= stored_cells.from_at AND v.occurred_at < stored_cells.until_at AND v.voided_at <= recorded_until
    )
    SELECT u.bucket_start, u.bucket_minutes, u.dimension_set_id, u.dimensions::jsonb, u.events, u.quantity, u.value_keys, u.moment, u.placed_at, u.event_key
    FROM (
        SELECT array_agg(e.event_key) AS keys, array_agg(e.event_type) AS types, array_agg(e.occurred_at) AS times,
            array_agg(e.bill_to) AS bill_tos, array_agg(e.properties::text) AS properties, count(*)::int AS size
        FROM (
            SELECT e.*, (row_number() OVER () - 1) / 10000 AS slice
            FROM billing.usage_event e
            WHERE e.customer_id = of_customer_id AND e.occurred_at >= stored_cells.from_at AND e.occurred_at < stored_cells.until_at AND e.recorded_at <= recorded_until
                AND e.event_type IN (SELECT w.event_type FROM stretch w) AND NOT EXISTS (SELECT FROM gone g WHERE g.event_key = e.event_key AND g.revision = e.revision)
        ) e GROUP BY e.slice
    ) s
    CROSS JOIN (SELECT array_agg(of_meter_id) AS ids, array_agg(w.from_at) AS starts, array_agg(w.until_at) AS ends, array_agg(w.definition::text) AS definitions FROM stretch w) m
    CROSS JOIN LATERAL billing_internal.stored_usage(m.ids, m.starts, m.ends, m.definitions, array_fill(of_customer_id, ARRAY[s.size]),
        array_fill((SELECT c.bucket_minutes FROM billing.customer c WHERE c.customer_id = of_customer_id), ARRAY[s.size]),
        s.keys, s.types, s.times, s.bill_tos, s.properties) u
$$;
COMMENT ON FUNCTION billing_internal.stored_cells(bigint, int, timestamptz, timestamptz, timestamptz, int) IS
    'Usage measured afresh from the events in [from_at, until_at) as they stood at an instant (recorded and not voided until then), by the meter as it was with so many versions (NULL = now): a cell may stand in several rows, which add up. Errors: ZB005 some have been removed.';

CREATE FUNCTION billing_internal.stored_measures(
    of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz, recorded_until timestamptz DEFAULT 'infinity', of_version int DEFAULT NULL
) RETURNS TABLE (occurred_at timestamptz, event_key uuid, event_id text, recorded_at timestamptz, properties jsonb, dimensions jsonb, value numeric, value_key uuid)
    -- How many were voided in this very transaction no statistics tell: row by row it would take hours.
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_nestloop = off SET jit = off
AS $$
    SELECT billing_internal.require_events(of_meter_id, stored_measures.from_at, stored_measures.until_at, of_version);
    WITH stretch AS MATERIALIZED (
        SELECT w.version, w.from_at, w.until_at, w.definition, w.definition->>'event_type' AS event_type FROM billing_internal.meter_stretch w JOIN billing.meter m USING (meter_id)
        WHERE m.meter_id = of_meter_id AND w.as_of_version = coalesce(of_version, m.version)
    ), gone AS MATERIALIZED (
        SELECT v.event_key, v.revision FROM billing.usage_event_void v
        WHERE v.customer_id = of_customer_id AND v.occurred_at >= stored_measures.from_at AND v.occurred_at < stored_measures.until_at AND v.voided_at <= recorded_until
    )
    SELECT s.times[u.n], s.keys[u.n], s.ids[u.n], s.recorded[u.n], s.properties[u.n]::jsonb, u.dimensions::jsonb, u.value, u.value_key
    FROM (
        SELECT e.version, array_agg(e.event_key) AS keys, array_agg(e.event_id) AS ids, array_agg(e.occurred_at) AS times,
            array_agg(e.recorded_at) AS recorded, array_agg(e.bill_to) AS bill_tos, array_agg(e.properties::text) AS properties
        FROM (
            SELECT e.event_key, e.event_id, e.occurred_at, e.recorded_at, e.bill_to, e.properties, w.version, (row_number() OVER () - 1) / 10000 AS slice
            FROM billing.usage_event e JOIN stretch w ON w.event_type = e.event_type AND e.occurred_at >= w.from_at AND e.occurred_at < w.until_at
            WHERE e.customer_id = of_customer_id AND e.occurred_at >= stored_measures.from_at AND e.occurred_at < stored_measures.until_at AND e.recorded_at <= recorded_until
                AND NOT EXISTS (SELECT FROM gone g WHERE g.event_key = e.event_key AND g.revision = e.revision)
        ) e GROUP BY e.version, e.slice
    ) s
    JOIN stretch m USING (version)
    CROSS JOIN LATERAL billing_internal.measured_events(m.definition::text, s.bill_tos, s.properties) u
$$;
COMMENT ON FUNCTION billing_internal.stored_measures(bigint, int, timestamptz, timestamptz, timestamptz, int) IS
    'Every event that counts on a meter in [from_at, until_at), with its dimensions and value, as stored_cells() has them. Errors: ZB005 some have been removed.';

CREATE FUNCTION billing_internal.dirty_usage(of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz) RETURNS tstzmultirange
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT range_agg(tstzrange(d.from_at, d.until_at)) * tstzmultirange(tstzrange(dirty_usage.from_at, dirty_usage.until_at)) FROM (
        SELECT x.from_at, x.until_at FROM billing.usage_dirty x
        WHERE x.customer_id = of_customer_id AND x.meter_id = of_meter_id AND x.from_at < dirty_usage.until_at AND x.until_at > dirty_usage.from_at
        UNION ALL
        SELECT r.from_at, r.until_at FROM billing.meter_rebuild r
        WHERE r.meter_id = of_meter_id AND r.finished_at IS NULL AND r.listed_to < of_customer_id AND r.from_at < dirty_usage.until_at AND r.until_at > dirty_usage.from_at) d
$$;
COMMENT ON FUNCTION billing_internal.dirty_usage(bigint, int, timestamptz, timestamptz) IS 'The part of [from_at, until_at) in which a customer''s usage is answered from events; NULL or empty = none.';

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
    ELSIF until_at - from_at > interval '300 years' OR grain = 'hour' AND until_at - from_at > interval '100000 hours' THEN
        PERFORM billing_internal.fail('ZB010', format('%s until %s has too many cells', from_at, until_at), 'At most 100,000 hours, or 300 years of days or months: ask for a coarser grain, or in pieces.');
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
COMMENT ON FUNCTION billing_internal.check_usage_arguments(timestamptz, timestamptz, text, text[], jsonb, text) IS 'Arguments that usage() and spend() share. Errors: ZB004, ZB010 too many cells.';

CREATE FUNCTION billing_internal.usage_cells(
    of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz, boundaries timestamptz[] DEFAULT '{}'
) RETURNS TABLE (at timestamptz, dimensions jsonb, events bigint, quantity numeric, value_key uuid, moment numeric, placed_at timestamptz, event_key uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    width interval := '60 minutes';
    by_value boolean := (SELECT m.state IN ('unique', 'presence') FROM billing.meter m WHERE m.meter_id = of_meter_id);
    from_events tstzmultirange;
BEGIN
    -- The widest bucket there is decides which boundaries cut through one.
    IF (SELECT c.bucket_minutes = 15 FROM billing.customer c WHERE c.customer_id = of_customer_id)
        AND NOT EXISTS (SELECT FROM billing_internal.usage_cell u WHERE u.customer_id = of_customer_id AND u.meter_id = of_meter_id
            AND u.bucket_start >= from_at - interval '1 hour' AND u.bucket_start < until_at AND u.bucket_minutes = 60) THEN
        width := '15 minutes';
    END IF;
    -- Inside a bucket that a boundary cuts, and where buckets and deltas are not true, the events answer.
    SELECT coalesce(range_agg(tstzrange(b.start, b.start + width)), '{}') INTO from_events
    FROM (SELECT date_bin(width, b, '2000-01-01 00:00+00') AS start FROM unnest(boundaries || from_at || until_at) b
        WHERE date_bin(width, b, '2000-01-01 00:00+00') <> b AND b >= from_at AND b <= until_at) b;
    from_events := from_events + coalesce(billing_internal.dirty_usage(of_customer_id, of_meter_id, from_at, until_at), '{}');

    RETURN QUERY SELECT u.bucket_start, u.dimensions, u.events, CASE WHEN NOT by_value THEN u.quantity END, NULL::uuid, u.moment, u.placed_at, u.event_key
    FROM billing_internal.usage_cell u
    WHERE u.customer_id = of_customer_id AND u.meter_id = of_meter_id AND u.bucket_start >= from_at AND u.bucket_start < until_at
        AND NOT from_events @> u.bucket_start;
    IF by_value THEN
        RETURN QUERY SELECT u.bucket_start, u.dimensions, 0::bigint, u.present::int::numeric, u.value_key, NULL::numeric, u.placed_at, u.event_key
        FROM billing_internal.usage_distinct u
        WHERE u.customer_id = of_customer_id AND u.meter_id = of_meter_id AND u.bucket_start >= from_at AND u.bucket_start < until_at
            AND NOT from_events @> u.bucket_start;
    END IF;
    IF NOT isempty(from_events) THEN
        RETURN QUERY SELECT e.occurred_at, e.dimensions, 1::bigint, e.value, e.value_key, 0::numeric, e.occurred_at, e.event_key
        FROM unnest(from_events * tstzmultirange(tstzrange(from_at, until_at))) r (stretch)
        CROSS JOIN LATERAL billing_internal.stored_measures(of_customer_id, of_meter_id, lower(r.stretch), upper(r.stretch)) e;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.usage_cells(bigint, int, timestamptz, timestamptz, timestamptz[]) IS
    'Usage in [from_at, until_at) from buckets and deltas, and from events where a boundary cuts a bucket or usage is dirty. Rows add up (count, sum, changes of a level; what a correction took back stands as its opposite), are to be compared (max, min, the last by placed_at and event_key) or counted distinct; a value that is added or removed has quantity 1 or 0.';

CREATE FUNCTION billing_internal.quotient(dividend numeric, divisor numeric, places int DEFAULT 12) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN divisor <> 0 THEN trim_scale(sign(dividend) * sign(divisor) * div(abs(dividend) * 2 * 10::numeric ^ places + abs(divisor), 2 * abs(divisor)) / 10::numeric ^ places) END;
COMMENT ON FUNCTION billing_internal.quotient(numeric, numeric, int) IS 'A quotient rounded once, half away from zero, from the exact fraction: numeric''s own / rounds before. NULL where the divisor is 0.';

CREATE FUNCTION billing_internal.rounded_quantity(quantity numeric, rounding jsonb) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN rounding IS NULL THEN quantity ELSE sign(quantity) * (rounding->>'to')::numeric * (div(abs(quantity), (rounding->>'to')::numeric)
        + CASE WHEN CASE rounding->>'mode' WHEN 'up' THEN mod(abs(quantity), (rounding->>'to')::numeric) > 0
            WHEN 'half_up' THEN 2 * mod(abs(quantity), (rounding->>'to')::numeric) >= (rounding->>'to')::numeric ELSE false END THEN 1 ELSE 0 END) END;
COMMENT ON FUNCTION billing_internal.rounded_quantity(numeric, jsonb) IS 'A quantity to a multiple of "to", by "mode": up (away from zero), down, half_up; what is below zero mirrors what is above. NULL rounding leaves it.';

CREATE FUNCTION billing_internal.micros_between(from_at timestamptz, until_at timestamptz) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN extract(epoch FROM until_at - from_at) * 1000000;
COMMENT ON FUNCTION billing_internal.micros_between(timestamptz, timestamptz) IS 'Microseconds from one instant to another, exactly.';

CREATE FUNCTION billing_internal.cell_starts(from_at timestamptz, until_at timestamptz, unit text, zone text) RETURNS SETOF timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Steps that no local hour, day or month is shorter than, and the last instant for what is left at the end.
    SELECT DISTINCT greatest(date_trunc(unit, x.at, zone), from_at)
    FROM (SELECT generate_series(from_at, until_at, CASE unit WHEN 'month' THEN interval '24 hours' WHEN 'day' THEN interval '1 hour'
            ELSE interval '30 minutes' END) AS at
        UNION ALL SELECT until_at - interval '1 microsecond') x
    WHERE x.at < until_at
$$;
COMMENT ON FUNCTION billing_internal.cell_starts(timestamptz, timestamptz, text, text) IS 'Where the local hours, days or months begin that lie in [from_at, until_at), at least in part; the first no earlier than from_at.';

CREATE FUNCTION billing_internal.usage_quantities(
    of_customer_id bigint, of_meter_id int, from_at timestamptz, until_at timestamptz, grain text, zone text, kept text[], filter jsonb,
    home text DEFAULT NULL, recorded_until timestamptz DEFAULT NULL, of_versions jsonb DEFAULT NULL
) RETURNS TABLE (cell timestamptz, dimensions jsonb, quantity numeric, events bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET plan_cache_mode = auto
AS $$
#variable_conflict use_column
DECLARE
    m record;
    c record;
    d jsonb;
    -- of each bucket of two steps, or of the whole
    measured text;
    bucket text;
    carried boolean;
    -- Of what is present the most at once: buckets have each value's last operation only, so those of the time asked for are events.
    peak boolean;
    from_buckets boolean;
    boundaries timestamptz[] := '{}';
BEGIN
    SELECT k.aggregation, k.state, v.version, v.definition, ARRAY(SELECT jsonb_array_elements_text(v.definition->'dimensions')) || 'bill_to'::text AS names INTO m
    FROM billing.meter k JOIN billing.meter_version v ON v.meter_id = k.meter_id AND v.version = CASE WHEN of_versions IS NULL THEN k.version ELSE coalesce((of_versions->>k.key)::int, 1) END
    WHERE k.meter_id = of_meter_id;
    SELECT k.time_zone, k.bucket_minutes INTO c FROM billing.customer k WHERE k.customer_id = of_customer_id;
    d := m.definition;
    IF m.aggregation = 'compound' THEN
        RETURN QUERY
        -- Its meters first: joined in another order, this would ask all meters there are, itself among them.
        WITH part AS MATERIALIZED (SELECT x.role, x.factor, k.meter_id FROM billing_internal.compound_parts(d) x JOIN billing.meter k ON k.key = x.meter)
        SELECT q.cell, q.dimensions, billing_internal.rounded_quantity(
            CASE WHEN jsonb_typeof(d->'of') = 'array' THEN sum(p.factor * q.quantity)
                -- Nothing over nothing is nothing, and so is what nothing is shared by.
                ELSE coalesce(billing_internal.quotient(coalesce(sum(q.quantity) FILTER (WHERE p.role = 'numerator'), 0),
                    coalesce(sum(q.quantity) FILTER (WHERE p.role = 'denominator'), 0), (d->'of'->>'places')::int), 0) END, d->'rounding'), sum(q.events)::bigint
        FROM part p
        CROSS JOIN LATERAL billing_internal.usage_quantities(of_customer_id, p.meter_id, from_at, until_at, grain, zone, kept, usage_quantities.filter, home, recorded_until, of_versions) q
        GROUP BY q.cell, q.dimensions;
        RETURN;
    END IF;
    measured := coalesce(d->'per'->>'aggregation', m.aggregation);
    bucket := d->'per'->>'bucket';
    carried := m.state IN ('level', 'presence');
    peak := m.state = 'presence' AND d->>'counted' = 'peak';
    -- What the version of a stretch does not keep apart is a property like any other there.
    from_buckets := recorded_until IS NULL AND measured <> 'percentile' AND kept <@ m.names
        AND NOT EXISTS (SELECT FROM jsonb_object_keys(filter) f WHERE f <> ALL (m.names))
        AND (m.version = 1 OR NOT EXISTS (SELECT FROM billing_internal.meter_stretch w WHERE w.meter_id = of_meter_id AND w.as_of_version = m.version
            AND w.from_at < until_at AND (carried OR w.until_at > from_at)
            AND NOT kept || ARRAY(SELECT jsonb_object_keys(filter)) <@ (ARRAY(SELECT jsonb_array_elements_text(w.definition->'dimensions')) || 'bill_to'::text)));
    -- Where the zone's hours are not the buckets', every boundary of the grain may cut a bucket.
    IF from_buckets AND grain IS NOT NULL AND billing_internal.zone_minutes(zone) < 60 THEN
        IF grain = 'hour' AND c.bucket_minutes > 15 THEN
            from_buckets := false;
        ELSE
            boundaries := ARRAY(SELECT billing_internal.cell_starts(from_at, until_at, grain, zone));
        END IF;
    END IF;
    IF from_buckets AND bucket IS NOT NULL AND c.bucket_minutes < 60 THEN
        boundaries := boundaries || ARRAY(SELECT billing_internal.cell_starts(from_at, until_at, bucket, c.time_zone));
    END IF;
    RETURN QUERY
    WITH atom AS (
        SELECT u.at, u.dimensions, u.events, u.quantity, u.value_key, u.moment, u.placed_at, u.event_key
        FROM billing_internal.usage_cells(of_customer_id, of_meter_id, CASE WHEN carried THEN '-infinity' ELSE from_at END, CASE WHEN peak THEN from_at ELSE until_at END, CASE WHEN peak THEN '{}' ELSE boundaries END || from_at) u WHERE from_buckets
        UNION ALL
        -- A property that is no dimension is looked up in the events.
        SELECT e.occurred_at, e.dimensions || (SELECT coalesce(jsonb_object_agg(p.name, CASE jsonb_typeof(p.value) WHEN 'number'
                THEN trim_scale((p.value #>> '{}')::numeric)::text ELSE p.value #>> '{}' END), '{}')
            FROM (SELECT n.name, e.properties #> string_to_array(n.name, '.') AS value
                FROM (SELECT unnest(kept) AS name UNION SELECT jsonb_object_keys(filter)) n
                WHERE NOT e.dimensions ? n.name AND NOT (n.name IN ('bill_to', 'filter') AND n.name = ANY (m.names))) p
            WHERE p.value IS NOT NULL AND jsonb_typeof(p.value) <> 'null'),
            1, e.value, e.value_key, 0, e.occurred_at, e.event_key
        FROM billing_internal.stored_measures(of_customer_id, of_meter_id, CASE WHEN carried AND NOT from_buckets THEN '-infinity' ELSE from_at END, until_at, coalesce(recorded_until, 'infinity'), m.version) e
        WHERE NOT from_buckets OR peak
    ), used AS (
        SELECT CASE WHEN a.at < from_at THEN '-infinity' WHEN grain IS NULL THEN from_at ELSE greatest(date_trunc(grain, a.at, zone), from_at) END AS cell,
            CASE WHEN bucket IS NOT NULL THEN date_trunc(bucket, a.at, c.time_zone) END AS bucket,
            -- Usage that names the entity of the contract is the same as usage that names none.
            (SELECT coalesce(jsonb_object_agg(g, a.dimensions->g) FILTER (WHERE a.dimensions ? g AND (g <> 'bill_to' OR a.dimensions->>g IS DISTINCT FROM home)), '{}') FROM unnest(kept) g) AS grouped,
            a.at, a.events, a.quantity, a.value_key, a.moment, a.placed_at, a.event_key
        FROM atom a
        WHERE NOT EXISTS (SELECT FROM billing_internal.filter_values(filter) f WHERE (a.dimensions->>f.name = ANY (f.accepted)) IS NOT TRUE)
    ), one AS (
        SELECT u.cell, u.grouped, u.bucket,
            CASE measured WHEN 'count' THEN sum(u.events) WHEN 'sum' THEN coalesce(sum(u.quantity), 0) WHEN 'max' THEN max(u.quantity) WHEN 'min' THEN min(u.quantity)
                WHEN 'average' THEN billing_internal.quotient(sum(u.quantity), sum(u.events))
                WHEN 'latest' THEN (array_agg(u.quantity ORDER BY u.placed_at DESC, u.event_key DESC) FILTER (WHERE measured = 'latest' AND u.placed_at IS NOT NULL))[1]
                WHEN 'percentile' THEN (array_agg(u.quantity ORDER BY u.quantity) FILTER (WHERE measured = 'percentile'))[ceil((d->>'percentile')::numeric * count(*) * 0.01)::bigint]
                ELSE count(DISTINCT u.value_key) END AS quantity,
            sum(u.events) AS events
        FROM used u WHERE NOT carried GROUP BY u.cell, u.grouped, u.bucket
        HAVING sum(u.events) <> 0 -- what corrections took back is not there
    ), span AS MATERIALIZED (
        -- All cells, where those without usage play a part; of what is carried over, all that was before as one.
        SELECT s.starts, lead(s.starts, 1, until_at) OVER (ORDER BY s.starts) AS ends
        FROM (SELECT '-infinity'::timestamptz AS starts WHERE carried
            UNION ALL SELECT from_at WHERE (carried OR bucket IS NOT NULL) AND grain IS NULL
            UNION ALL SELECT x FROM billing_internal.cell_starts(from_at, until_at, grain, zone) x WHERE (carried OR bucket IS NOT NULL) AND grain IS NOT NULL) s
    ), two AS (
        -- Over all buckets of the cell; one without usage is 0.
        SELECT o.cell, o.grouped, CASE m.aggregation WHEN 'sum' THEN sum(o.quantity) WHEN 'average' THEN billing_internal.quotient(sum(o.quantity), n.buckets)
                WHEN 'max' THEN CASE WHEN count(*) < n.buckets THEN greatest(max(o.quantity), 0) ELSE max(o.quantity) END
                WHEN 'min' THEN CASE WHEN count(*) < n.buckets THEN least(min(o.quantity), 0) ELSE min(o.quantity) END
                ELSE CASE WHEN r.rank <= count(*) FILTER (WHERE o.quantity < 0) THEN (array_agg(o.quantity ORDER BY o.quantity))[r.rank]
                    WHEN r.rank <= count(*) FILTER (WHERE o.quantity < 0) + n.buckets - count(*) THEN 0
                    ELSE (array_agg(o.quantity ORDER BY o.quantity))[r.rank - (n.buckets - count(*))] END END AS quantity,
            sum(o.events) AS events
        FROM (SELECT x.cell, x.grouped, coalesce(x.quantity, 0) AS quantity, x.events FROM one x WHERE bucket IS NOT NULL) o
        JOIN (SELECT s.starts AS cell, (SELECT count(*) FROM billing_internal.cell_starts(s.starts, s.ends, bucket, c.time_zone)) AS buckets
            FROM span s WHERE bucket IS NOT NULL AND EXISTS (SELECT FROM one y WHERE y.cell = s.starts)) n USING (cell)
        CROSS JOIN LATERAL (SELECT ceil((d->>'percentile')::numeric * n.buckets * 0.01)::bigint AS rank) r
        GROUP BY o.cell, o.grouped, n.buckets, r.rank
    ), operation AS (
        -- Where a value comes or goes: it was there after the operation before.
        SELECT u.cell, u.grouped, u.placed_at, u.quantity - coalesce(lag(u.quantity) OVER (PARTITION BY u.grouped, u.value_key ORDER BY u.placed_at, u.event_key, u.quantity DESC), 0) AS change
        FROM used u WHERE m.state = 'presence' AND u.value_key IS NOT NULL
    ), most AS (
        -- After each instant: who comes as another goes is no more than before.
        SELECT h.cell, h.grouped, max(h.here) AS here
        FROM (SELECT o.cell, o.grouped, sum(o.change) OVER (PARTITION BY o.grouped ORDER BY o.placed_at) AS here FROM operation o WHERE peak) h GROUP BY h.cell, h.grouped
    ), change AS (
        SELECT x.cell, x.grouped, sum(x.change) AS change, sum(x.area) AS area, sum(x.events) AS events
        FROM (
            SELECT u.cell, u.grouped, u.quantity AS change, CASE WHEN u.cell > '-infinity' THEN u.quantity * billing_internal.micros_between(u.at, s.ends) - u.moment END AS area, u.events
            FROM used u JOIN span s ON s.starts = u.cell WHERE m.state = 'level'
            UNION ALL
            SELECT u.cell, u.grouped, NULL, NULL, u.events FROM used u WHERE m.state = 'presence'
            UNION ALL
            SELECT o.cell, o.grouped, o.change, NULL, 0 FROM operation o
        ) x GROUP BY x.cell, x.grouped
    ), level AS (
        SELECT s.starts AS cell, g.grouped, x.area, coalesce(x.events, 0) AS events, CASE WHEN s.starts > '-infinity' THEN billing_internal.micros_between(s.starts, s.ends) END AS micros,
            coalesce(sum(x.change) OVER (PARTITION BY g.grouped ORDER BY s.starts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before,
            coalesce(sum(x.change) OVER (PARTITION BY g.grouped ORDER BY s.starts), 0) AS after
        FROM span s CROSS JOIN (SELECT DISTINCT y.grouped FROM change y) g LEFT JOIN change x ON x.cell = s.starts AND x.grouped = g.grouped
    ), carry AS (
        SELECT l.cell, l.grouped, CASE m.state WHEN 'presence' THEN CASE WHEN peak THEN greatest(l.before, p.here) ELSE l.after END ELSE billing_internal.quotient(coalesce(l.area, 0) + l.before * l.micros,
            CASE d->>'weighting' WHEN 'period' THEN l.micros WHEN 'second' THEN 1000000 WHEN 'minute' THEN 60000000 WHEN 'day' THEN 86400000000 ELSE 3600000000 END) END AS quantity, l.events
        FROM level l LEFT JOIN most p USING (cell, grouped) WHERE l.cell > '-infinity'
    )
    SELECT o.cell, o.grouped, billing_internal.rounded_quantity(o.quantity, d->'rounding'), coalesce(o.events, 0)::bigint FROM one o WHERE bucket IS NULL
    UNION ALL
    SELECT t.cell, t.grouped, billing_internal.rounded_quantity(t.quantity, d->'rounding'), coalesce(t.events, 0)::bigint FROM two t
    UNION ALL
    SELECT y.cell, y.grouped, billing_internal.rounded_quantity(y.quantity, d->'rounding'), y.events::bigint FROM carry y WHERE y.quantity <> 0 OR y.events <> 0;
END
$$;
COMMENT ON FUNCTION billing_internal.usage_quantities(bigint, int, timestamptz, timestamptz, text, text, text[], jsonb, text, timestamptz, jsonb) IS
    'The quantities of a meter in [from_at, until_at), by cells of the grain in a zone and by the kept dimensions: the last step of usage() and of bills, for every aggregation. home is the legal entity that usage of no entity belongs to; recorded_until measures the events as they stood then, of_versions by meters that had so many versions (those not named had one); NULL = now.';

CREATE FUNCTION billing_internal.bucket_quantity(state text, events numeric, sum numeric, largest numeric, smallest numeric, keys bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN CASE state WHEN 'count' THEN events WHEN 'max' THEN largest WHEN 'min' THEN smallest WHEN 'unique' THEN keys WHEN 'presence' THEN keys ELSE sum END;
COMMENT ON FUNCTION billing_internal.bucket_quantity(text, numeric, numeric, numeric, numeric, bigint) IS 'What rows of one bucket show of a meter, by what its buckets hold: the quantity of those that add up, the change of a level, the values touched.';

CREATE FUNCTION billing_internal.compound_parts(definition jsonb) RETURNS TABLE (meter text, factor numeric, role text)
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT x->>'meter', (x->>'factor')::numeric, 'term' FROM jsonb_array_elements(CASE jsonb_typeof(definition->'of') WHEN 'array' THEN definition->'of' ELSE '[]' END) x
    UNION ALL
    SELECT definition->'of'->>r, NULL, r FROM unnest('{numerator,denominator}'::text[]) r WHERE jsonb_typeof(definition->'of') = 'object'
$$;
COMMENT ON FUNCTION billing_internal.compound_parts(jsonb) IS 'The meters that a compound meter is made of: terms with their factors, or numerator and denominator. None of other meters.';

CREATE FUNCTION billing_internal.check_compound(path text, definition jsonb) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part record;
    missing text;
BEGIN
    FOR part IN SELECT x.meter, m.meter_id, m.aggregation, m.dimensions, m.retired_at FROM billing_internal.compound_parts(definition) x LEFT JOIN billing.meter m ON m.key = x.meter LOOP
        IF part.meter_id IS NULL OR part.retired_at IS NOT NULL THEN
            PERFORM billing_internal.fail('ZB001', format('%s.of: meter %s is %s', path, part.meter, CASE WHEN part.meter_id IS NULL THEN 'not known' ELSE 'retired' END),
                'Put the meters that a compound is made of into the same document, or apply them first.');
        ELSIF part.aggregation = 'compound' THEN
            PERFORM billing_internal.fail('ZB003', format('%s.of: meter %s is a compound itself', path, part.meter), 'A compound is made of measured meters.');
        END IF;
        SELECT n INTO missing FROM jsonb_array_elements_text(definition->'dimensions') n WHERE n <> ALL (part.dimensions) LIMIT 1;
        IF missing IS NOT NULL THEN
            PERFORM billing_internal.fail('ZB003', format('%s.dimensions: meter %s has no dimension %s', path, part.meter, missing),
                'A compound has the dimensions that all its meters have, or some of them.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.check_compound(text, jsonb) IS 'Whether a compound meter can be: its meters are there, measured themselves, and have its dimensions. Errors: ZB001, ZB003.';

CREATE FUNCTION billing.usage(
    customer text, meter text, from_at timestamptz, until_at timestamptz, grain text DEFAULT NULL, group_by text[] DEFAULT '{}',
    filter jsonb DEFAULT '{}', time_zone text DEFAULT NULL
) RETURNS TABLE (starts_at timestamptz, dimensions jsonb, quantity numeric, events bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_customer_id bigint;
    of_meter_id int;
    zone text;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    of_meter_id := billing_internal.find_meter(meter);
    SELECT coalesce(usage.time_zone, c.time_zone) INTO zone FROM billing.customer c WHERE c.customer_id = of_customer_id;
    -- In two steps it is hours (or days) first, whatever is asked for.
    PERFORM billing_internal.check_usage_arguments(from_at, until_at, CASE WHEN grain IS NULL AND (SELECT m.definition ? 'per' FROM billing.meter m WHERE m.meter_id = of_meter_id)
        THEN 'hour' ELSE grain END, group_by, usage.filter, zone);
    RETURN QUERY SELECT q.cell, q.dimensions, q.quantity, q.events
    FROM billing_internal.usage_quantities(of_customer_id, of_meter_id, from_at, until_at, grain, zone, group_by, filter) q ORDER BY q.cell, q.dimensions;
    IF NOT FOUND AND grain IS NULL AND group_by = '{}' THEN
        -- Nothing has no largest, smallest, last, average or ranked value.
        RETURN QUERY SELECT from_at, '{}'::jsonb, CASE WHEN m.definition ? 'per' OR m.aggregation NOT IN ('max', 'min', 'average', 'latest', 'percentile') THEN 0::numeric END, 0::bigint
        FROM billing.meter m WHERE m.meter_id = of_meter_id;
    END IF;
END
$$;
COMMENT ON FUNCTION billing.usage(text, text, timestamptz, timestamptz, text, text[], jsonb, text) IS
    'A customer''s usage on a meter in [from_at, until_at), exact for any instants and right at commit. grain: hour, day, month (cells of time_zone, by default the customer''s; the first cell starts at from_at; each is computed from its own part) or NULL for one total. group_by: dimensions (answered from buckets) or any property (answered from events, the same but slower). filter: {"model":"gpt-4"} or {"region":["eu","us"]}. quantity is in the meter''s unit; events says how many counted in the cell (of a compound: on its meters together). Weighted sums and counts of what is present carry on what was before from_at. Errors: ZB001 unknown customer or meter, ZB004 arguments, ZB005 events it needs have been removed, ZB010 too many cells.';

-- Jobs around events that look at more than one layer: sampling the application's own tables, and removing old events.

-- ── sources ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.source_store(of_key text, of_relation text, of_event_type text, of_grain text, reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before jsonb;
BEGIN
    SELECT to_jsonb(s) - '{created_at,sampled_until}'::text[] INTO before FROM billing.usage_source s WHERE s.key = of_key FOR UPDATE;
    INSERT INTO billing.usage_source AS s (key, relation, event_type, grain, created_at) VALUES (of_key, of_relation, of_event_type, of_grain, clock_timestamp())
    ON CONFLICT (key) DO UPDATE SET relation = excluded.relation, event_type = excluded.event_type, grain = excluded.grain, retired_at = NULL;
    PERFORM billing_internal.audit('usage_source_set', 'usage_source', of_key, NULL, before, jsonb_build_object('relation', of_relation, 'event_type', of_event_type, 'grain', of_grain), reason);
END
$$;
COMMENT ON FUNCTION billing_internal.source_store(text, text, text, text, text) IS 'Stores a source that usage_source_set() has checked. Only the name of the relation comes here.';

CREATE FUNCTION billing.usage_source_set(key text, relation regclass, event_type text, grain text DEFAULT 'hour', reason text DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT format('%I.%I', n.nspname, c.relname) INTO name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = relation AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't';
    IF name IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'the source is no lasting table or view', 'Pass a view with a column customer: its other columns become the event''s properties.');
    ELSIF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = 'customer' AND a.attnum > 0 AND NOT a.attisdropped) THEN
        PERFORM billing_internal.fail('ZB004', format('%s has no column customer', name),
            'A source has one row per customer with the column customer (its key); item tells several rows of one customer apart, bill_to names a legal entity, all others are properties.');
    ELSIF coalesce(length(key), 0) NOT BETWEEN 1 AND 100 OR key LIKE '%/%' THEN
        PERFORM billing_internal.fail('ZB004', format('%s can''t be the key of a source', coalesce(quote_literal(key), 'NULL')), 'Use 1 to 100 characters without a slash.');
    ELSIF coalesce(event_type, '') = '' OR grain IS NULL OR grain NOT IN ('hour', 'day') THEN
        PERFORM billing_internal.fail('ZB004', 'a source needs an event type, and the grain hour or day', 'SELECT billing.usage_source_set(''storage'', ''app.storage_now'', ''storage.sample'', ''hour'');');
    END IF;
    PERFORM billing_internal.source_store(key, name, event_type, grain, reason);
    RETURN key;
END
$$;
COMMENT ON FUNCTION billing.usage_source_set(text, regclass, text, text, text) IS
    'Makes a view of the application''s own tables a source of usage: once per hour or day (UTC) the job sample turns each of its rows into an event of the given type. Columns: customer (its key), optional item (tells several rows of one customer apart) and bill_to; all others become properties. Returns the key. Errors: ZB004 arguments.';

CREATE FUNCTION billing.usage_source_end(key text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.require_installed();
    UPDATE billing.usage_source s SET retired_at = clock_timestamp() WHERE s.key = usage_source_end.key AND s.retired_at IS NULL;
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB001', format('no source %s is being sampled', coalesce(quote_literal(key), 'NULL')), 'SELECT key, relation, retired_at FROM billing.usage_source; lists them.');
    END IF;
    PERFORM billing_internal.audit('usage_source_end', 'usage_source', key, NULL, NULL, NULL, reason);
END
$$;
COMMENT ON FUNCTION billing.usage_source_end(text, text) IS 'Ends the sampling of a source; usage_source_set() takes it up again. Errors: ZB001 not sampled.';

CREATE FUNCTION billing_internal.sample_begin(of_key text, OUT relation text, OUT event_type text, OUT bucket timestamptz, OUT missed bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s record;
    starts timestamptz;
BEGIN
    -- One sample of a source at a time; it is taken until the commit that also stores its events.
    SELECT * INTO s FROM billing.usage_source x WHERE x.key = of_key AND x.retired_at IS NULL FOR UPDATE;
    starts := date_trunc(s.grain, billing.now(), 'UTC');
    IF s.key IS NULL OR s.sampled_until > starts THEN
        RETURN;
    END IF;
    relation := s.relation; event_type := s.event_type; bucket := starts;
    missed := coalesce(round(extract(epoch FROM starts - s.sampled_until) / CASE s.grain WHEN 'hour' THEN 3600 ELSE 86400 END), 0);
    UPDATE billing.usage_source x SET sampled_until = starts + CASE s.grain WHEN 'hour' THEN interval '1 hour' ELSE interval '24 hours' END WHERE x.key = of_key;
END
$$;
COMMENT ON FUNCTION billing_internal.sample_begin(text) IS 'Takes a source''s present hour or day to be sampled, if it was not yet: what to read and how many before were missed. NULL = nothing to do.';

CREATE FUNCTION billing_internal.sample_issue(run uuid, of_key text, of_sqlstate text, what text, of_hint text) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO billing.job_issue (job_issue_id, job_run_id, at, kind, key, sqlstate, message, hint)
    VALUES (billing_internal.uuid_v7(), run, clock_timestamp(), 'usage_source', of_key, of_sqlstate, what, nullif(of_hint, ''))
$$;
COMMENT ON FUNCTION billing_internal.sample_issue(uuid, text, text, text, text) IS 'Notes what was wrong with the sample of a source.';

CREATE FUNCTION billing_internal.sample_rows(customers text[], event_ids text[], event_types text[], occurred_at text[], bill_tos text[], properties text[])
    RETURNS TABLE (accepted bigint, duplicate bigint, conflicting bigint, rejected bigint, errors jsonb)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state text := billing_internal.meters_ready();
BEGIN
    RETURN QUERY SELECT * FROM billing_internal.ingest_call(
        billing_internal.call_read_rows(customers, event_ids, event_types, occurred_at, bill_tos, properties), state, unlimited => true);
END
$$;
COMMENT ON FUNCTION billing_internal.sample_rows(text[], text[], text[], text[], text[], text[]) IS 'As ingest_rows(), for what the application itself says about its customers: their ingest limits are not asked.';

CREATE FUNCTION billing.sample_step(run uuid, source text) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_hashagg = off
AS $$
DECLARE
    s record;
    batches refcursor;
    batch record;
    part record;
    stored bigint := 0;
    refused bigint := 0;
    same bigint := 0;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO s FROM billing_internal.sample_begin(source);
    IF s.bucket IS NULL THEN
        RETURN 0;
    END IF;
    IF s.missed > 0 THEN
        PERFORM billing_internal.sample_issue(run, source, 'ZB005', format('%s samples of source %s before %s were missed: nobody ran the job', s.missed, source, s.bucket),
            'What a table was then can''t be seen any more. Run CALL billing.sample(); at least once per grain.');
    END IF;
    -- As many rows as there are, one batch in memory at a time, all or none of them stored.
    OPEN batches FOR EXECUTE format($query$
        SELECT array_agg(r.customer) AS customers, array_agg(r.event_id) AS event_ids, array_agg(r.event_type) AS event_types, array_agg(r.at) AS times,
            array_agg(r.bill_to) AS bill_tos, array_agg(r.properties) AS properties
        FROM (
            SELECT d->>'customer' AS customer, concat_ws('/', $1, $2, d->>'customer', d->>'item') AS event_id, $3 AS event_type, $2 AS at, d->>'bill_to' AS bill_to,
                (d - '{customer,bill_to}'::text[])::text AS properties, (row_number() OVER () - 1) / 5000 AS n
            FROM (SELECT to_jsonb(x) AS d FROM %s x WHERE x.customer IS NOT NULL) y
        ) r GROUP BY r.n ORDER BY r.n $query$, s.relation::regclass) USING source, to_char(s.bucket AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), s.event_type;
    LOOP
        FETCH batches INTO batch;
        EXIT WHEN NOT FOUND;
        SELECT * INTO part FROM billing_internal.sample_rows(batch.customers, batch.event_ids, batch.event_types, batch.times, batch.bill_tos, batch.properties);
        stored := stored + part.accepted;
        refused := refused + part.rejected + part.conflicting;
        same := same + part.duplicate;
    END LOOP;
    CLOSE batches;
    IF same > 0 THEN
        PERFORM billing_internal.sample_issue(run, source, 'ZB009', format('%s rows of source %s say the same as another row of their customer, so they were counted once', same, source),
            'Give the source a column item that tells the rows of one customer apart, or let it sum them up.');
    END IF;
    IF refused > 0 THEN
        PERFORM billing_internal.sample_issue(run, source, 'ZB008', format('%s rows of source %s could not be stored as events', refused, source),
            'SELECT reason, message, raw FROM billing.rejected_event WHERE resolved_at IS NULL; says why.');
    END IF;
    RETURN stored;
END
$$;
COMMENT ON FUNCTION billing.sample_step(uuid, text) IS 'Samples one source if its present hour or day was not sampled yet: every row becomes an event that happened at its start. Reads the source with the caller''s rights. Returns how many events were stored.';

CREATE PROCEDURE billing.sample()
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.job_start('sample');
    source text;
    stored pg_catalog.int8 := 0;
    hint text;
BEGIN
    COMMIT;
    FOR source IN SELECT s.key FROM billing.usage_source s WHERE s.retired_at IS NULL ORDER BY s.key LOOP
        BEGIN
            stored := stored OPERATOR(pg_catalog.+) billing.sample_step(run, source);
        EXCEPTION WHEN serialization_failure OR deadlock_detected OR query_canceled OR lock_not_available OR insufficient_resources THEN
            RAISE;
        WHEN OTHERS THEN
            -- One broken view stops no other; its sample is not taken, so the next run tries again.
            GET STACKED DIAGNOSTICS hint := PG_EXCEPTION_HINT;
            PERFORM billing_internal.sample_issue(run, source, SQLSTATE, SQLERRM, hint);
        END;
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run, pg_catalog.jsonb_build_object('events', stored));
END
$$;
COMMENT ON PROCEDURE billing.sample() IS 'Samples every source whose present hour or day was not sampled yet, exactly once however often it is called; run it a few times per grain, as a role that may read the sources. What was missed or refused is in job_issue.';

-- ── retention ────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.event_retention_set(event_type text, keep interval, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET intervalstyle = 'postgres'
AS $$
#variable_conflict use_variable
DECLARE
    longest interval;
    before jsonb;
BEGIN
    PERFORM billing_internal.require_installed();
    longest := billing_internal.event_age_longest();
    IF coalesce(event_type, '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'the event type is missing', 'Name it: SELECT billing.event_retention_set(''llm.request'', ''5 years'');');
    ELSIF keep < longest THEN
        PERFORM billing_internal.fail('ZB004', format('events are accepted up to %s late, so they can''t be removed after %s', longest, keep),
            format('Keep them at least as long, or accept none that old, from no seller: SELECT billing.policy_set(''event_age_max'', ''%s'');', keep));
    END IF;
    SELECT jsonb_build_object('keep', r.keep) INTO before FROM billing.event_retention r WHERE r.event_type = event_type FOR UPDATE;
    INSERT INTO billing.event_retention AS r (event_type, keep, set_at) VALUES (event_type, keep, clock_timestamp())
    ON CONFLICT ON CONSTRAINT event_retention_pkey DO UPDATE SET keep = excluded.keep, set_at = excluded.set_at;
    PERFORM billing_internal.audit('event_retention_set', 'event_type', event_type, NULL, before, jsonb_build_object('keep', keep), reason);
END
$$;
COMMENT ON FUNCTION billing.event_retention_set(text, interval, text) IS
    'How long events of a type are kept after they happened (NULL = for ever); the job retention removes older ones once they are billed. Their keys stay, so a repeat is still a duplicate, and so does their usage; an invoice whose events are gone can''t be recomputed from them. Errors: ZB004 shorter than policy event_age_max, within which late events are still accepted.';

CREATE FUNCTION billing_internal.events_remove(month timestamptz, from_block bigint, max_rows int, OUT removed bigint, OUT next_block bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    child regclass := to_regclass('billing_internal.usage_event' || to_char(month, '_YYYY_MM'));
    size bigint := pg_relation_size(child) / current_setting('block_size')::int;
    step constant int := 64;
    gone bigint;
    started timestamptz := clock_timestamp();
BEGIN
    removed := 0;
    next_block := from_block;
    WHILE next_block < size AND removed < max_rows AND clock_timestamp() < started + interval '1 second' LOOP
        -- By its place, so that each block is read once and written once. Never by emptying the month as a whole: whoever has
        -- an older snapshot may still read these events. Planned each time, for this month alone.
        EXECUTE format($query$
            DELETE FROM billing.usage_event e USING billing.event_retention r
            WHERE e.tableoid = %s AND e.ctid >= '(%s,0)' AND e.ctid < '(%s,0)' AND e.occurred_at >= %L AND e.occurred_at < %L
                AND r.event_type = e.event_type AND r.keep IS NOT NULL AND e.occurred_at < r.removed_until $query$,
            child::oid, next_block, next_block + step, month, month + interval '1 month');
        -- What says which revision of an event stands, and which contents its id ever had, stays with its key.
        GET DIAGNOSTICS gone = ROW_COUNT;
        removed := removed + gone;
        next_block := next_block + step;
    END LOOP;
    next_block := CASE WHEN next_block < size THEN next_block END;
END
$$;
COMMENT ON FUNCTION billing_internal.events_remove(timestamptz, bigint, int) IS
    'Removes the events of one month that event_retention says are removed, from a block on until about max_rows or a second are reached; how many, and where to go on (NULL = the month is done). Runs as billing_owner.';

CREATE FUNCTION billing_internal.retention_plan(run uuid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    r record;
    needed timestamptz;
    horizon timestamptz;
    marks jsonb;
    said jsonb := '{}';
    first timestamptz := 'infinity';
    last timestamptz := '-infinity';
BEGIN
    -- Corrections and meters that change hold these rows until they commit; what they asked for is seen after, not before.
    PERFORM FROM billing.event_retention x WHERE x.keep IS NOT NULL ORDER BY x.event_type FOR UPDATE;
    -- Nothing that a bill to come may count: the earliest period of any live contract that is not billed, what is noted as
    -- late, and no usage that is to be measured again; nor any period that can still get a late event, by an ingest of a long
    -- transaction, too, as it would have to be compared as a whole.
    SELECT least(min(p.starts_at), (SELECT min(q.starts_at) FROM billing.late_usage l JOIN billing.billing_period q ON q.customer_id = l.customer_id
            AND q.contract_id = l.contract_id AND q.n = l.n - 1 WHERE l.closed_at IS NULL), (SELECT min(d.from_at) FROM billing.usage_dirty d), (SELECT min(x.from_at) FROM billing.meter_rebuild x WHERE x.finished_at IS NULL),
        billing_internal.late_from(billing_internal.event_age_longest() + interval '48 hours')) INTO needed
    FROM billing.contract k JOIN billing.billing_period p ON p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.n = greatest(k.next_n - 1, 0)
    WHERE k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at IS NOT NULL;
    -- Up to where the last run that came to its end removed each type: only what came after is looked for. Two days are for
    -- events whose transaction began before that and ended after.
    SELECT j.result->'removed_until' INTO marks FROM billing.job_run j WHERE j.job = 'retention' AND j.state = 'done' AND j.result->'months' = '[]' ORDER BY j.started_at DESC LIMIT 1;
    FOR r IN SELECT x.event_type, x.keep, x.removed_until FROM billing.event_retention x WHERE x.keep IS NOT NULL ORDER BY x.event_type LOOP
        horizon := greatest(r.removed_until, date_trunc('hour', least(billing.now() - r.keep, needed), 'UTC'));
        IF horizon > r.removed_until THEN
            UPDATE billing.event_retention x SET removed_until = horizon WHERE x.event_type = r.event_type;
            PERFORM billing_internal.audit('retention', 'event_type', r.event_type, NULL, jsonb_build_object('removed_until', r.removed_until), jsonb_build_object('removed_until', horizon));
        END IF;
        said := said || jsonb_build_object(r.event_type, horizon);
        IF horizon > coalesce((marks->>r.event_type)::timestamptz, '-infinity') THEN
            first := least(first, coalesce((marks->>r.event_type)::timestamptz - interval '48 hours', '-infinity'));
            last := greatest(last, horizon);
        END IF;
    END LOOP;
    UPDATE billing.job_run j SET result = j.result || jsonb_build_object('removed_until', said, 'block', 0, 'months', (
        SELECT coalesce(jsonb_agg(m.starts ORDER BY m.starts), '[]')
        -- OFFSET keeps the conditions from being asked of other tables' names.
        FROM (SELECT to_timestamp(right(c.relname, 7) || ' +00', 'YYYY_MM TZH') AS starts FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'billing.usage_event'::regclass OFFSET 0) m
        WHERE m.starts < last AND m.starts + interval '1 month' > first)) WHERE j.job_run_id = run;
END
$$;
COMMENT ON FUNCTION billing_internal.retention_plan(uuid) IS 'Says up to when the events of each type go, and which months the run has to look through, oldest first: in its job_run.result.';

CREATE FUNCTION billing.retention_step(run uuid, max_rows int DEFAULT 10000) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    work jsonb;
    step record;
BEGIN
    PERFORM billing_internal.require_installed();
    PERFORM billing_internal.require_read_committed('events are not removed');
    SELECT j.result INTO work FROM billing.job_run j WHERE j.job_run_id = run AND j.job = 'retention' FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB001', format('retention run %s is not known', coalesce(run::text, 'NULL')), 'CALL billing.retention(); starts one.');
    ELSIF max_rows IS NULL OR max_rows < 1 THEN
        PERFORM billing_internal.fail('ZB004', format('%s events can''t be removed in a step', coalesce(max_rows::text, 'NULL')), 'Give 1 or more.');
    END IF;
    -- First it is said, then done: readers never take what is half gone for all there is.
    IF NOT work ? 'months' THEN
        PERFORM billing_internal.retention_plan(run);
        RETURN 1;
    ELSIF work->'months' = '[]' THEN
        RETURN 0;
    END IF;
    SELECT * INTO step FROM billing_internal.events_remove((work->'months'->>0)::timestamptz, (work->>'block')::bigint, max_rows);
    UPDATE billing.job_run j SET done = j.done + step.removed, result = j.result || jsonb_build_object('block', coalesce(step.next_block, 0),
        'months', CASE WHEN step.next_block IS NULL THEN (work->'months') - 0 ELSE work->'months' END)
    WHERE j.job_run_id = run;
    RETURN 1;
END
$$;
COMMENT ON FUNCTION billing.retention_step(uuid, int) IS 'One step of the job retention: first says up to when the events of each type go, then removes about max_rows of them at a time, month by month, reading each block once. Returns 0 when nothing is left. Errors: ZB001 no such run, ZB004 max_rows, ZB005 above READ COMMITTED.';

CREATE PROCEDURE billing.retention()
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.job_start('retention');
BEGIN
    COMMIT;
    WHILE billing.retention_step(run) OPERATOR(pg_catalog.>) 0 LOOP
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run);
END
$$;
COMMENT ON PROCEDURE billing.retention() IS 'Removes events older than event_retention says, never before the period of every live contract they may count in is billed and gets no late events any more (policy event_age_max). Keys, usage and invoices stay. Progress in job_run.';


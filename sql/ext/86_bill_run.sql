-- The bill run: which contracts are due, and billing them stripe by stripe, in steps that each commit.

CREATE FUNCTION billing_internal.grace_over(due_at timestamptz, grace text, as_of timestamptz) RETURNS boolean
    LANGUAGE sql STABLE -- bound when made: inlined, so no search_path
    RETURN (due_at AT TIME ZONE 'UTC' + grace::interval) AT TIME ZONE 'UTC' <= as_of;
COMMENT ON FUNCTION billing_internal.grace_over(timestamptz, text, timestamptz) IS 'Whether the grace after a boundary has passed. A day of grace has 24 hours, in whatever zone the session is.';

CREATE FUNCTION billing_internal.due_final(as_of timestamptz, run uuid, of_stripe int, max_rows int) RETURNS TABLE (customer_id bigint, contract_id uuid, n int)
    -- In the order of an index, with a look-up for each row: a page costs what it holds, not what is left.
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH grace AS MATERIALIZED (SELECT p.seller_id, p.value FROM billing_internal.seller_policies('{invoice_grace}') p)
    SELECT k.customer_id, k.contract_id, k.next_n
    FROM billing.contract k
    WHERE k.stripe = of_stripe AND k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at <= as_of AND billing_internal.grace_over(k.next_bill_at, coalesce((SELECT p.value FROM billing.contract_policy p
            WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.name = 'invoice_grace'), (SELECT g.value FROM grace g WHERE g.seller_id = k.seller_id)), as_of)
        AND (SELECT true FROM billing.job_issue i WHERE i.job_run_id = run AND i.kind = 'contract' AND i.key = k.key LIMIT 1) IS NULL
    ORDER BY k.next_bill_at, k.customer_id, k.contract_id LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION billing_internal.due_final(timestamptz, uuid, int, int) IS 'The next contracts of a stripe to be issued as of an instant: a boundary is due, its grace is over, and it had no issue in this run.';

CREATE FUNCTION billing_internal.due_corrections(run uuid, of_stripe int, max_rows int) RETURNS TABLE (customer_id bigint, contract_id uuid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT DISTINCT l.customer_id, l.contract_id
    FROM billing.late_usage l JOIN billing.contract k USING (customer_id, contract_id)
    WHERE l.stripe = of_stripe AND l.closed_at IS NULL AND k.next_bill_at IS NULL
        -- What has no price yet is noted again by the run that compares it.
        AND l.noted_at < (SELECT r.started_at FROM billing.job_run r WHERE r.job_run_id = run)
        AND (SELECT true FROM billing.job_issue i WHERE i.job_run_id = run AND i.kind = 'contract' AND i.key = k.key LIMIT 1) IS NULL
    ORDER BY l.customer_id, l.contract_id LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION billing_internal.due_corrections(uuid, int, int) IS 'The next contracts of a stripe that have no boundary left and late usage to be compared, and had no issue in this run.';

CREATE FUNCTION billing_internal.due_drafts(as_of timestamptz, run uuid, after_customer_id bigint, after_contract_id uuid, max_rows int) RETURNS TABLE (customer_id bigint, contract_id uuid, n int)
    -- In the order of an index, with a look-up for each row: a page costs what it holds, not what is left.
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH grace AS MATERIALIZED (SELECT p.seller_id, p.value FROM billing_internal.seller_policies('{invoice_grace}') p)
    SELECT k.customer_id, k.contract_id, k.next_n
    FROM billing.contract k
    WHERE (k.customer_id, k.contract_id) > (after_customer_id, after_contract_id) AND k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at <= as_of
        AND NOT billing_internal.grace_over(k.next_bill_at, coalesce((SELECT p.value FROM billing.contract_policy p
            WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.name = 'invoice_grace'), (SELECT g.value FROM grace g WHERE g.seller_id = k.seller_id)), as_of)
        AND (SELECT true FROM billing.job_issue i WHERE i.job_run_id = run AND i.kind = 'contract' AND i.key = k.key LIMIT 1) IS NULL
    ORDER BY k.customer_id, k.contract_id LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION billing_internal.due_drafts(timestamptz, uuid, bigint, uuid, int) IS 'The next contracts, after one, that are due as of an instant and in their grace, and had no issue in this run.';

CREATE FUNCTION billing.bill_run_step(run uuid, max_rows int DEFAULT 500) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    r record;
    as_of timestamptz;
    candidate int;
    of_stripe int;
    waits boolean := false;
    refs billing_internal.bill_ref[];
    ref billing_internal.bill_ref;
    issued bigint := 0;
    one bigint;
    page record;
    of_detail text;
    of_hint text;
BEGIN
    PERFORM billing_internal.require_installed();
    PERFORM billing_internal.require_read_committed();
    SELECT * INTO r FROM billing.job_run x WHERE x.job_run_id = run AND x.job = 'bill_run' FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB001', format('bill run %s is not known', coalesce(run::text, 'NULL')), 'CALL billing.bill_run(); starts one.');
    END IF;
    as_of := (r.arguments->>'as_of')::timestamptz;
    PERFORM billing_internal.require_past(as_of);
    -- The next stripe with something to issue whose lock is free, from where the run was; the lock in a statement of
    -- its own, before the one that reads usage. Once the run drafts, nothing is left to issue.
    FOR n IN 0..CASE WHEN r.result ? 'drafted_to' THEN -1 ELSE 255 END LOOP
        candidate := (coalesce((r.result->>'stripe')::int, 0) + n) % 256;
        CONTINUE WHEN NOT EXISTS (SELECT FROM billing.contract k WHERE k.stripe = candidate AND k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at <= as_of)
            AND NOT EXISTS (SELECT FROM billing.late_usage l WHERE l.stripe = candidate AND l.closed_at IS NULL); -- most have none
        CONTINUE WHEN NOT EXISTS (SELECT FROM billing_internal.due_final(as_of, run, candidate, 1)) AND NOT EXISTS (SELECT FROM billing_internal.due_corrections(run, candidate, 1));
        waits := true;
        IF billing_internal.travelling() OR pg_try_advisory_xact_lock(billing_internal.lock_class('stripe'), candidate) THEN
            of_stripe := candidate;
            EXIT;
        END IF;
    END LOOP;
    IF waits AND of_stripe IS NULL THEN
        -- Others are at work on what is left: wait a moment, holding nothing.
        PERFORM pg_sleep(0.05);
        RETURN greatest(r.total - r.done, 1);
    END IF;
    IF waits THEN
        SELECT array_agg(billing_internal.ref_now(d.customer_id, d.contract_id, ARRAY[d.n])) INTO refs
        FROM (SELECT d.customer_id, d.contract_id, d.n FROM billing_internal.due_final(as_of, run, of_stripe, max_rows) d JOIN billing.contract k USING (customer_id, contract_id)
            WHERE k.next_n = d.n ORDER BY d.customer_id, d.contract_id FOR NO KEY UPDATE OF k SKIP LOCKED) d;
        IF refs IS NULL THEN
            -- Contracts that have ended get what is late by an invoice of its own.
            SELECT array_agg(billing_internal.ref_now(d.customer_id, d.contract_id, '{}')) INTO refs
            FROM (SELECT d.customer_id, d.contract_id FROM billing_internal.due_corrections(run, of_stripe, max_rows) d JOIN billing.contract k USING (customer_id, contract_id)
                WHERE k.next_bill_at IS NULL ORDER BY d.customer_id, d.contract_id FOR NO KEY UPDATE OF k SKIP LOCKED) d;
        END IF;
        IF refs IS NULL THEN
            -- Another run billed them before we had the stripe, or a session drafts, issues, voids or travels in time: other
            -- stripes first. Where nothing moves for five seconds (a time travel meets the same ones at every instant: half a
            -- second), the next run has them.
            IF (r.result->>'waits_since')::timestamptz < clock_timestamp() - (CASE WHEN billing_internal.travelling() THEN interval '500 milliseconds' ELSE interval '5 seconds' END) THEN
                INSERT INTO billing.job_issue (job_issue_id, job_run_id, at, customer_id, kind, key, sqlstate, message, hint)
                SELECT billing_internal.uuid_v7(), run, clock_timestamp(), k.customer_id, 'contract', k.key, '55P03', format('contract %s is held by a transaction of another session', k.key),
                    'The next bill run tries again. SELECT pid, xact_start, query FROM pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY 2; shows whose it may be.'
                FROM (SELECT d.customer_id, d.contract_id FROM billing_internal.due_final(as_of, run, of_stripe, max_rows) d
                    UNION SELECT d.customer_id, d.contract_id FROM billing_internal.due_corrections(run, of_stripe, max_rows) d) d JOIN billing.contract k USING (customer_id, contract_id);
            ELSE
                PERFORM pg_sleep(0.01);
            END IF;
            UPDATE billing.job_run x SET result = jsonb_build_object('waits_since', clock_timestamp()) || x.result || jsonb_build_object('stripe', (of_stripe + 1) % 256) WHERE x.job_run_id = run;
            RETURN greatest(r.total - r.done, 1);
        END IF;
        BEGIN
            SELECT count(*) INTO issued FROM billing_internal.bill(refs, true, run);
        EXCEPTION WHEN serialization_failure OR deadlock_detected OR query_canceled OR lock_not_available OR insufficient_resources THEN
            RAISE;
        WHEN OTHERS THEN
            -- One of them is broken in a way nobody foresaw: find it, bill the others.
            issued := 0;
            -- Seller by seller: number series are locked in that order everywhere.
            FOR ref IN SELECT r.* FROM unnest(refs) r JOIN billing.contract k USING (customer_id, contract_id) ORDER BY k.seller_id, r.customer_id, r.contract_id LOOP
                BEGIN
                    SELECT count(*) INTO one FROM billing_internal.bill(ARRAY[ref], true, run);
                    issued := issued + one;
                EXCEPTION WHEN serialization_failure OR deadlock_detected OR query_canceled OR lock_not_available OR insufficient_resources THEN
                    RAISE;
                WHEN OTHERS THEN
                    GET STACKED DIAGNOSTICS of_detail = PG_EXCEPTION_DETAIL, of_hint = PG_EXCEPTION_HINT;
                    INSERT INTO billing.job_issue (job_issue_id, job_run_id, at, customer_id, kind, key, sqlstate, message, detail, hint)
                    SELECT billing_internal.uuid_v7(), run, clock_timestamp(), k.customer_id, 'contract', k.key, SQLSTATE, SQLERRM, nullif(of_detail, ''), nullif(of_hint, '')
                    FROM billing.contract k WHERE k.customer_id = ref.customer_id AND k.contract_id = ref.contract_id;
                END;
            END LOOP;
        END;
        UPDATE billing.job_run x SET done = x.done + cardinality(refs), result = x.result - 'waits_since' || jsonb_build_object('stripe', of_stripe, 'invoices', coalesce((x.result->>'invoices')::bigint, 0) + issued)
        WHERE x.job_run_id = run;
        RETURN greatest(r.total - r.done - cardinality(refs), 1);
    END IF;
    -- In grace: drafts, remade by every run, a batch of contracts after another.
    SELECT array_agg(d.customer_id) AS customers, array_agg(d.contract_id) AS contracts, array_agg(d.n) AS boundaries, count(*)::int AS size INTO page
    FROM billing_internal.due_drafts(as_of, run, coalesce((r.result->'drafted_to'->>0)::bigint, 0), coalesce((r.result->'drafted_to'->>1)::uuid, '00000000-0000-0000-0000-000000000000'), max_rows) d;
    IF page.size = 0 THEN
        UPDATE billing.job_run x SET result = x.result - 'waits_since' WHERE x.job_run_id = run AND x.result ? 'waits_since';
        RETURN 0;
    END IF;
    -- What another session billed meanwhile needs no draft; what it holds gets one from the next run.
    SELECT array_agg(billing_internal.ref_now(d.customer_id, d.contract_id, ARRAY[d.n])) INTO refs
    FROM (SELECT d.customer_id, d.contract_id, d.n FROM unnest(page.customers, page.contracts, page.boundaries) d (customer_id, contract_id, n)
        JOIN billing.contract k USING (customer_id, contract_id) WHERE k.next_n = d.n ORDER BY d.customer_id, d.contract_id FOR NO KEY UPDATE OF k SKIP LOCKED) d;
    IF refs IS NOT NULL THEN
        SELECT count(*) INTO issued FROM billing_internal.bill(refs, false, run);
    END IF;
    UPDATE billing.job_run x SET done = x.done + page.size,
        result = x.result || jsonb_build_object('drafts', coalesce((x.result->>'drafts')::bigint, 0) + issued,
            'drafted_to', jsonb_build_array(page.customers[page.size], page.contracts[page.size]))
    WHERE x.job_run_id = run;
    RETURN greatest(r.total - r.done - page.size, 1);
END
$$;
COMMENT ON FUNCTION billing.bill_run_step(uuid, int) IS 'One step of a bill run: takes one free stripe and bills up to max_rows due contracts of it, one boundary each with the late usage of earlier ones, and then late usage of contracts that have ended; when none is left to issue, drafts those in grace. Contracts that another session holds for five seconds are left to the next run, as issues (55P03). Returns how much is left, 0 = done. Errors: ZB001 no such run, ZB004 its instant is after billing.now(), ZB005 above READ COMMITTED.';

CREATE FUNCTION billing.bill_run_start(as_of timestamptz DEFAULT NULL) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run uuid;
BEGIN
    PERFORM billing_internal.require_installed();
    as_of := coalesce(as_of, billing.now());
    PERFORM billing_internal.require_past(as_of);
    IF as_of = '-infinity' THEN
        PERFORM billing_internal.fail('ZB004', 'a bill run needs an instant', 'CALL billing.bill_run(); bills what is due now.');
    END IF;
    run := billing.job_start('bill_run', jsonb_build_object('as_of', as_of));
    UPDATE billing.job_run r SET total = (SELECT count(*) FROM billing.contract k WHERE k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at <= as_of)
        + (SELECT count(DISTINCT k.contract_id) FROM billing.late_usage l JOIN billing.contract k USING (customer_id, contract_id) WHERE l.closed_at IS NULL AND k.next_bill_at IS NULL) WHERE r.job_run_id = run;
    RETURN run;
END
$$;
COMMENT ON FUNCTION billing.bill_run_start(timestamptz) IS 'Opens a bill run as of an instant (default billing.now()); bill_run_step() does it. Returns its job_run id. Errors: ZB004 as_of is after billing.now().';

CREATE PROCEDURE billing.bill_run(as_of timestamptz DEFAULT NULL)
    LANGUAGE plpgsql
AS $$
DECLARE
    run uuid := billing.bill_run_start(as_of);
BEGIN
    COMMIT;
    WHILE billing.bill_run_step(run) OPERATOR(pg_catalog.>) 0 LOOP
        COMMIT;
    END LOOP;
    PERFORM billing.job_end(run);
END
$$;
COMMENT ON PROCEDURE billing.bill_run(timestamptz) IS
    'Bills every contract with a boundary due as of an instant (default billing.now()): issues invoices, or drafts while policy invoice_grace lasts; a contract several boundaries behind gets one invoice for each. Commits step by step; progress in job_run, what could not be billed and why in job_issue. Can be stopped and started at any time. Errors: ZB004 as_of is after billing.now().';

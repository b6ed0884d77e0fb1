-- Jobs together: one round of all that is due, and the same jobs run into the future on the real data.
--
--   jobs()            what there is: a row a job, in the order in which they run at one instant
--   <job>_due()       since when it has work to do, or when it next will
--   job_round()       one run of a job: its steps, each apart, for a while or to the end
--   tick()            a round of each job that is due now
--   time_travel()     billing.now() from one due instant to the next, what is due there run, nothing ever committed

CREATE FUNCTION billing_internal.jobs() RETURNS TABLE (place int, job text, due text, start text, step text, travels boolean)
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    VALUES
        (10, 'fold', 'billing_internal.fold_due($1, $2)', NULL, 'billing.fold_step($1)', false),
        (20, 'meter_rebuild', 'billing_internal.meter_rebuild_due($1, $2)', NULL, 'billing.meter_rebuild_step($1)', false),
        (40, 'renewal', 'billing_internal.renewal_due($1, $2)', NULL, 'billing.renewal_step($1)', true),
        (50, 'bill_run', 'billing_internal.bill_run_due($1, $2)', 'billing.bill_run_start()', 'billing.bill_run_step($1)', true),
        -- After the bill run: a block pays for usage of before its end.
        (60, 'credit_expiry', 'billing_internal.credit_expiry_due($1, $2)', NULL, 'billing_internal.job_did($1, billing.credit_expiry_step())', true),
        (70, 'top_up', 'billing_internal.top_up_due($1, $2)', 'billing_internal.job_go_on(''top_up'')', 'billing_internal.job_walk($1, ''billing.top_up_step($2)'', ''top_ups'')', true),
        (72, 'reservation_expiry', 'billing_internal.reservation_expiry_due($1, $2)', NULL, 'billing_internal.job_did($1, billing.reservation_expiry_step())', false),
        -- Last of those that change what customers have.
        (75, 'alerts', 'billing_internal.alerts_due($1, $2)', 'billing_internal.job_go_on(''alerts'')', 'billing_internal.job_walk($1, ''billing.alerts_step($2, run => $1)'', ''alerts'')', true),
        (80, 'retention', 'billing_internal.retention_due($1, $2)', 'billing_internal.job_go_on(''retention'')', 'billing.retention_step($1)', false),
        (90, 'audit_seal', 'billing_internal.audit_seal_due($1, $2)', NULL, 'billing_internal.job_did($1, billing.audit_seal_step())', false)
$$;
COMMENT ON FUNCTION billing_internal.jobs() IS
    'The jobs of tick(), in the order in which they run at one instant; as SQL expressions: due, from when on in ($1, $2] it has work to do by what is known now (NULL = not before $2; $1 = -infinity: now, if it is not after $2); start, which opens a run (NULL = job_start(job)); step, one step of run $1, bounded to about two seconds, which gives what is left (0 = nothing). travels: whether it changes what will be billed, so that time_travel() runs it. Not here: sample, which reads tables with its caller''s rights.';

-- ── when they are due ────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.fold_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT billing.now() WHERE EXISTS (SELECT FROM billing.usage_delta) OR EXISTS (SELECT FROM billing.usage_dirty)
$$;
COMMENT ON FUNCTION billing_internal.fold_due(timestamptz, timestamptz) IS 'When the job fold is due: there are deltas, or usage to be measured again.';

CREATE FUNCTION billing_internal.meter_rebuild_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT billing.now() WHERE EXISTS (SELECT FROM billing.meter_rebuild r WHERE r.finished_at IS NULL)
$$;
COMMENT ON FUNCTION billing_internal.meter_rebuild_due(timestamptz, timestamptz) IS 'When the job meter_rebuild is due: one was asked for and is not finished.';

CREATE FUNCTION billing_internal.bill_run_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    issues_at timestamptz;
    drafts_at timestamptz;
    drafted_at timestamptz;
BEGIN
    -- Contracts that have ended wait for nothing but a run.
    IF from_at = '-infinity' AND EXISTS (SELECT FROM billing.late_usage l JOIN billing.contract k USING (customer_id, contract_id) WHERE l.closed_at IS NULL AND k.next_bill_at IS NULL) THEN
        RETURN billing.now();
    ELSIF NOT EXISTS (SELECT FROM billing.policy p WHERE p.name = 'invoice_grace' AND p.value::interval <> '0') AND NOT EXISTS (SELECT FROM billing.contract_policy p WHERE p.name = 'invoice_grace' AND p.value::interval <> '0') THEN
        -- Hops from stripe to stripe along the index.
        RETURN min(d.next_bill_at) FROM generate_series(0, 255) s (stripe)
        CROSS JOIN LATERAL (SELECT k.next_bill_at FROM billing.contract k WHERE k.stripe = s.stripe AND k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at > from_at AND k.next_bill_at <= until_at
            ORDER BY k.next_bill_at LIMIT 1) d;
    END IF;
    SELECT min(d.issues_at) FILTER (WHERE d.issues_at > from_at AND d.issues_at <= until_at), min(d.drafts_at) FILTER (WHERE d.drafts_at > from_at) INTO issues_at, drafts_at
    FROM (
        SELECT k.next_bill_at AS drafts_at, (k.next_bill_at AT TIME ZONE 'UTC' + coalesce((SELECT p.value FROM billing.contract_policy p WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.name = 'invoice_grace'),
            (SELECT g.value FROM billing_internal.seller_policies('{invoice_grace}') g WHERE g.seller_id = k.seller_id))::interval) AT TIME ZONE 'UTC' AS issues_at
        FROM billing.contract k WHERE k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at <= until_at
    ) d;
    IF issues_at IS NULL AND drafts_at IS NOT NULL AND from_at = '-infinity' THEN
        -- A run drafts all that is in grace anew: once an hour, and when something new is due.
        SELECT (r.arguments->>'as_of')::timestamptz INTO drafted_at FROM billing.job_run r WHERE r.job = 'bill_run' AND r.result ? 'drafted_to' AND r.state = 'done' ORDER BY r.started_at DESC LIMIT 1;
        SELECT min(k.next_bill_at) INTO drafts_at FROM billing.contract k
        WHERE k.state IN ('scheduled', 'active', 'paused') AND k.next_bill_at <= until_at AND (k.next_bill_at > drafted_at OR drafted_at <= until_at - interval '1 hour' OR drafted_at > until_at OR drafted_at IS NULL);
    END IF;
    RETURN least(issues_at, drafts_at);
END
$$;
COMMENT ON FUNCTION billing_internal.bill_run_due(timestamptz, timestamptz) IS 'When the job bill_run is due: a boundary comes, a grace ends, or a contract that has ended got late usage. Drafts are made anew once an hour.';

CREATE FUNCTION billing_internal.renewal_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- As renewal_step() asks; least() leaves out what is NULL.
    SELECT min(d.at) FROM (
        SELECT least(k.ends_at, billing_internal.local_midnight((k.renewal->>'notice_deadline')::date + 1, k.time_zone)) AS at FROM billing.contract k
        WHERE k.renewal IS NOT NULL AND k.state IN ('scheduled', 'active', 'paused', 'ended') AND k.cancelled_at IS NULL AND billing_internal.renews(k.renewal, k.notice_given_at, k.time_zone)
    ) d WHERE d.at > from_at AND d.at <= until_at
$$;
COMMENT ON FUNCTION billing_internal.renewal_due(timestamptz, timestamptz) IS 'When the job renewal is due: of a contract that renews by itself the day after its notice deadline, at the latest its end.';

CREATE FUNCTION billing_internal.retention_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT billing.now() WHERE EXISTS (SELECT FROM billing.event_retention r WHERE r.keep IS NOT NULL)
        AND NOT EXISTS (SELECT FROM billing.job_run r WHERE r.job = 'retention' AND r.state = 'done' AND r.started_at > clock_timestamp() - interval '1 day')
$$;
COMMENT ON FUNCTION billing_internal.retention_due(timestamptz, timestamptz) IS 'When the job retention is due: some events are kept for a time, and no run has come to its end for a day.';

CREATE FUNCTION billing_internal.credit_expiry_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN from_at = '-infinity' THEN (SELECT billing.now() WHERE EXISTS (SELECT FROM billing_internal.credits_ending(1)) OR EXISTS (SELECT FROM billing_internal.credits_owing(1)) OR EXISTS (SELECT FROM billing_internal.credits_carrying())
        -- What evergreen contracts grant is made a year ahead.
        OR EXISTS (SELECT FROM billing.contract_term t JOIN billing.contract k USING (customer_id, contract_id) WHERE t.kind IN ('credit', 'commitment') AND t.until_version IS NULL
            AND upper_inf(t.valid_during) AND t.terms ? 'every' AND k.ends_at IS NULL AND k.state IN ('scheduled', 'active', 'paused')))
    ELSE least((SELECT min(o.over_at) FROM billing.credit_grant g JOIN billing.customer c USING (customer_id)
            JOIN billing_internal.seller_policies('{credit_expiry_grace}') s USING (seller_id)
            CROSS JOIN LATERAL (SELECT billing_internal.credit_over_at(g.customer_id, g.contract_id, g.expires_at, s.value) AS over_at) o
        WHERE g.expired_at IS NULL AND g.voided_at IS NULL AND g.expires_at <= until_at AND o.over_at > from_at AND o.over_at <= until_at),
        -- Credit that begins takes over what is unused of another contract.
        (SELECT min(lower(t.valid_during)) FROM billing.contract_term t WHERE t.kind = 'credit' AND t.until_version IS NULL AND t.terms ? 'carry_from' AND lower(t.valid_during) > from_at AND lower(t.valid_during) <= until_at),
        -- What a block owes, one that begins later pays off.
        (SELECT min(x.effective_at) FROM billing.credit_grant g JOIN billing.credit_block_balance b USING (customer_id, grant_id) JOIN billing.credit_grant x ON x.customer_id = g.customer_id AND x.unit = g.unit
        WHERE g.overdraft IS NOT NULL AND g.voided_at IS NULL AND b.posted < b.reserved AND x.voided_at IS NULL AND x.effective_at > from_at AND x.effective_at <= until_at)) END
$$;
COMMENT ON FUNCTION billing_internal.credit_expiry_due(timestamptz, timestamptz) IS 'When the job credit_expiry is due: a block has ended, its grace is over, and what it could pay for is billed; a block has begun that can pay what another owes; or an evergreen contract grants again and again.';

CREATE FUNCTION billing_internal.top_up_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT billing.now() WHERE from_at = '-infinity' AND EXISTS (SELECT FROM billing.top_up_rule r WHERE r.ended_at IS NULL)
$$;
COMMENT ON FUNCTION billing_internal.top_up_due(timestamptz, timestamptz) IS 'When the job top_up is due: always, if there are rules. Nobody knows when usage will have drawn enough.';

CREATE FUNCTION billing_internal.reservation_expiry_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least((SELECT min(r.expires_at) FROM billing.reservation r WHERE r.settled_at IS NULL AND r.expires_at > from_at AND r.expires_at <= until_at),
        (SELECT min(r.settled_at) + billing_internal.reservations_kept() + interval '1 microsecond' FROM billing.reservation r
            WHERE r.outcome IS NOT NULL AND r.settled_at >= from_at - billing_internal.reservations_kept() AND r.settled_at < until_at - billing_internal.reservations_kept()))
$$;
COMMENT ON FUNCTION billing_internal.reservation_expiry_due(timestamptz, timestamptz) IS 'When the job reservation_expiry is due: an open reservation expires, or one was settled so long ago that it is removed.';

CREATE FUNCTION billing_internal.alerts_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT billing.now() WHERE from_at = '-infinity' AND (EXISTS (SELECT FROM billing.alert_rule r WHERE r.ended_at IS NULL) OR EXISTS (SELECT FROM billing.event_feed f WHERE f.n IS NULL))
$$;
COMMENT ON FUNCTION billing_internal.alerts_due(timestamptz, timestamptz) IS 'When the job alerts is due: always, if there are rules, or entries of the feed without a number. Nobody knows when usage will cross a threshold.';

CREATE FUNCTION billing_internal.job_did(run uuid, steps bigint) RETURNS bigint
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE billing.job_run r SET done = r.done + steps WHERE r.job_run_id = run RETURNING steps
$$;
COMMENT ON FUNCTION billing_internal.job_did(uuid, bigint) IS 'A step that knows no run, as one of a run: what it did (0 = nothing is left).';

CREATE FUNCTION billing_internal.job_walk(run uuid, step text, fired_as text) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    did record;
BEGIN
    EXECUTE format('SELECT s.* FROM %s s', step) INTO did USING run, coalesce((SELECT (r.result->>'after_customer')::bigint FROM billing.job_run r WHERE r.job_run_id = run), 0);
    UPDATE billing.job_run r SET done = r.done + did.looked, result = r.result || jsonb_build_object('after_customer', did.last_customer, fired_as, coalesce((r.result->>fired_as)::bigint, 0) + did.fired)
    WHERE r.job_run_id = run;
    RETURN did.looked;
END
$$;
COMMENT ON FUNCTION billing_internal.job_walk(uuid, text, text) IS 'A step that walks through customers ($1 = the run, $2 = the customer to go on after → looked, fired, last_customer) as one of a run, which says how far it is and how many fired.';

CREATE FUNCTION billing_internal.job_go_on(of_job text) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Where an earlier round stopped; a run by hand is its caller's.
    RETURN coalesce((SELECT r.job_run_id FROM billing.job_run r WHERE r.job = of_job AND r.state = 'running' AND r.arguments ? 'tick' AND r.started_at > clock_timestamp() - interval '7 days'
        ORDER BY r.started_at DESC LIMIT 1), billing.job_start(of_job, '{"tick": true}'));
END
$$;
COMMENT ON FUNCTION billing_internal.job_go_on(text) IS 'The run of a job that an earlier tick() began and did not end; else a new one. For jobs whose runs say by themselves where to go on.';

CREATE FUNCTION billing_internal.audit_seal_due(from_at timestamptz, until_at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT billing.now() WHERE EXISTS (SELECT FROM billing.audit_log a WHERE a.seal_n IS NULL)
        AND NOT EXISTS (SELECT FROM (SELECT s.sealed_at FROM billing.audit_seal s ORDER BY s.n DESC LIMIT 1) s WHERE s.sealed_at > clock_timestamp() - interval '1 hour')
$$;
COMMENT ON FUNCTION billing_internal.audit_seal_due(timestamptz, timestamptz) IS 'When the job audit_seal is due: there are new entries, and the last seal is an hour old.';

-- ── rounds ───────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.job_round(job text, due text, start text, step text, patience interval, OUT state text, OUT did bigint, OUT remaining bigint, OUT issues bigint)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run uuid;
    due_at timestamptz;
    before bigint := 0;
    began timestamptz := clock_timestamp();
    moved timestamptz := clock_timestamp();
    message text;
    of_detail text;
    of_hint text;
BEGIN
    did := 0;
    LOOP
        -- Each step apart: what fails takes back only itself, and gives its locks back.
        BEGIN
            IF run IS NULL THEN
                EXECUTE format('SELECT %s', due) INTO due_at USING '-infinity'::timestamptz, billing.now();
                IF due_at IS NULL THEN
                    SELECT 'idle', 0, 0 INTO state, remaining, issues;
                    RETURN;
                END IF;
                EXECUTE format('SELECT %s', coalesce(start, format('billing.job_start(%L)', job))) INTO run;
                SELECT r.done INTO before FROM billing.job_run r WHERE r.job_run_id = run;
            END IF;
            EXECUTE format('SELECT %s', step) INTO remaining USING run;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            state := 'busy';
        WHEN serialization_failure OR query_canceled OR insufficient_resources THEN
            RAISE;
        WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, of_detail = PG_EXCEPTION_DETAIL, of_hint = PG_EXCEPTION_HINT;
            IF NOT EXISTS (SELECT FROM billing.job_run r WHERE r.job_run_id = run) THEN
                run := billing.job_start(job); -- what opened it was taken back
            END IF;
            INSERT INTO billing.job_issue (job_issue_id, job_run_id, at, kind, key, sqlstate, message, detail, hint)
            VALUES (billing_internal.uuid_v7(), run, clock_timestamp(), 'job', job, SQLSTATE, message, nullif(of_detail, ''), nullif(of_hint, ''));
            state := 'failed';
        END;
        EXIT WHEN state IS NOT NULL OR remaining = 0;
        IF (SELECT r.done FROM billing.job_run r WHERE r.job_run_id = run) - before <> did THEN
            SELECT r.done - before INTO did FROM billing.job_run r WHERE r.job_run_id = run;
            moved := clock_timestamp();
        END IF;
        IF clock_timestamp() > began + patience THEN
            state := 'more';
        ELSIF clock_timestamp() > moved + patience / 4 THEN
            -- Others hold what is left.
            state := 'busy';
        END IF;
        EXIT WHEN state IS NOT NULL;
    END LOOP;
    state := coalesce(state, 'done');
    SELECT coalesce(max(r.done) - before, 0), (SELECT count(*) FROM billing.job_issue i WHERE i.job_run_id = run) INTO did, issues FROM billing.job_run r WHERE r.job_run_id = run;
    -- A run that says by itself where to go on stays open until it is through.
    IF start NOT LIKE '%job_go_on(%' OR start IS NULL OR remaining = 0 THEN
        PERFORM billing.job_end(run);
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.job_round(text, text, text, text, interval) IS
    'One run of a job of jobs(), if it is due: steps until nothing is left, the time is up (patience; NULL = none), or a quarter of it passes with nothing done. state: idle (not due), done, more (call again), busy (others hold what is left), failed (an error of a step, in job_issue). remaining is NULL where no step came to its end.';

CREATE FUNCTION billing.tick() RETURNS TABLE (job text, state text, did bigint, remaining bigint, issues bigint)
    -- Locks of one step are held while the next is done: so nobody waits in a circle, none is waited for for long.
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms'
AS $$
#variable_conflict use_column
DECLARE
    j record;
    round record;
BEGIN
    PERFORM billing_internal.require_installed();
    PERFORM billing_internal.require_read_committed('jobs don''t run');
    FOR j IN SELECT * FROM billing_internal.jobs() x WHERE x.travels OR NOT billing_internal.travelling() ORDER BY x.place LOOP
        IF NOT (billing_internal.travelling() OR pg_try_advisory_xact_lock(billing_internal.lock_class('job'), hashtext(j.job))) THEN
            RETURN QUERY VALUES (j.job, 'busy', 0::bigint, NULL::bigint, 0::bigint);
        ELSE
            SELECT * INTO round FROM billing_internal.job_round(j.job, j.due, j.start, j.step, '2 seconds');
            RETURN QUERY VALUES (j.job, round.state, round.did, round.remaining, round.issues);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing.tick() IS
    'One round of every job that is due, for about two seconds each, in one transaction; a row a job. state: idle (nothing is due), done, more (call again), busy (another session runs it, or holds what is left), failed (why is in job_issue). did: what it did, in the job''s own unit (deltas, contracts, entries); remaining: what its last step left, 0 = nothing, NULL = not known; issues: what it left out, in job_issue. Any number of sessions may call it at once. Until its transaction ends, ingest of the customers it billed waits: call it by itself. Errors: ZB005 above READ COMMITTED.';

CREATE FUNCTION billing.time_travel(to_at timestamptz) RETURNS TABLE (at timestamptz, job text, state text, did bigint, issues bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s'
AS $$
#variable_conflict use_column
DECLARE
    here timestamptz := billing.now();
    next_at timestamptz;
    due_at timestamptz;
    j record;
    round record;
BEGIN
    PERFORM billing_internal.require_installed();
    IF to_at IS NULL OR to_at < here OR to_at > here + interval '10 years' THEN
        PERFORM billing_internal.fail('ZB004', format('nobody travels to %s: it is %s', coalesce(to_at::text, 'NULL'), here), 'Give an instant that is still to come, within ten years.');
    ELSIF NOT billing_internal.in_transaction_block() THEN
        PERFORM billing_internal.fail('ZB005', 'time travel ends with its transaction, and none was begun', format('BEGIN; SELECT * FROM billing.time_travel(%L); then look at what there is, and ROLLBACK;', to_at));
    END IF;
    PERFORM billing_internal.require_read_committed('nobody travels in time');
    -- Who goes for lunch there keeps nobody waiting.
    IF current_setting('idle_in_transaction_session_timeout') = '0' OR current_setting('idle_in_transaction_session_timeout')::interval > interval '1 minute' THEN
        PERFORM set_config('idle_in_transaction_session_timeout', '1min', true);
    END IF;
    LOOP
        PERFORM billing_internal.travel_to(here);
        FOR j IN SELECT * FROM billing_internal.jobs() x WHERE x.travels ORDER BY x.place LOOP
            SELECT * INTO round FROM billing_internal.job_round(j.job, j.due, j.start, j.step, NULL);
            CONTINUE WHEN round.state = 'idle';
            RETURN QUERY VALUES (here, j.job, round.state, round.did, round.issues);
        END LOOP;
        EXIT WHEN here >= to_at;
        -- To the next instant at which anything is due, as things stand now.
        next_at := to_at;
        FOR j IN SELECT * FROM billing_internal.jobs() x WHERE x.travels ORDER BY x.place LOOP
            EXECUTE format('SELECT %s', j.due) INTO due_at USING here, to_at;
            next_at := least(next_at, due_at);
        END LOOP;
        here := next_at;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing.time_travel(timestamptz) IS
    'Moves billing.now() of this transaction to an instant in the future, through every instant at which a job is due, and runs what is due there, on the real data: BEGIN; SELECT * FROM billing.time_travel(''2027-01-01''); look around; ROLLBACK; One row for each run of a job: when, which, state and issues as in tick(), and what it did. What it issues has numbers PREVIEW-1, PREVIEW-2 …, and nothing leaves the database. The transaction can''t be committed or prepared (55000), in no installation; rolled back to a savepoint before, it never travelled. It takes no lock that ingest or other contracts'' bills wait for; the contracts it bills and the blocks of credit that these draw from are held until it ends: a bill run leaves them out, other changes of them and draw_down() wait. So a session that does nothing for a minute there is ended (SET LOCAL idle_in_transaction_session_timeout, afterwards, for longer). Errors: ZB004 in the past or more than ten years ahead, ZB005 outside a transaction or above READ COMMITTED.';

-- Ingestion: events in, once. Ingest only inserts; what it adds to usage is in deltas (30_metering.sql).

CREATE TYPE billing.usage_event_input AS (
    customer text, event_type text, event_id text, occurred_at text, properties json, bill_to text
);
COMMENT ON TYPE billing.usage_event_input IS
    'Shape of a table for billing.ingest_from(): CREATE TEMP TABLE batch (LIKE billing.usage_event_input); then COPY into it. occurred_at is RFC 3339 with an offset, as text, so that no session time zone touches it.';

COMMENT ON COLUMN billing.usage_event_input.customer IS 'Key or alias of the customer.';
COMMENT ON COLUMN billing.usage_event_input.event_type IS 'What happened; meters ask for it.';
COMMENT ON COLUMN billing.usage_event_input.event_id IS 'The customer''s id of the event, by which it is stored once.';
COMMENT ON COLUMN billing.usage_event_input.occurred_at IS 'When it happened: RFC 3339 with an offset.';
COMMENT ON COLUMN billing.usage_event_input.properties IS 'What meters read, an object; NULL = {}.';
COMMENT ON COLUMN billing.usage_event_input.bill_to IS 'Key of the legal entity it is billed to; NULL = the contract''s.';

-- ── leaves: one call of ingest, kept in backend memory between its statements ────────────────────

CREATE FUNCTION billing_internal.meters_state() RETURNS text
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'meters_state_wrapper';
COMMENT ON FUNCTION billing_internal.meters_state() IS 'State of the catalogue whose meters this backend has compiled.';
CREATE FUNCTION billing_internal.meters_load(state text, ids int[], from_at timestamptz[], until_at timestamptz[], definitions text[]) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'meters_load_wrapper';
COMMENT ON FUNCTION billing_internal.meters_load(text, int[], timestamptz[], timestamptz[], text[]) IS 'Compiles the meters of a state of the catalogue in this backend: the stretches of their versions.';
CREATE FUNCTION billing_internal.call_read(document text, format text DEFAULT 'native') RETURNS bigint
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_read_wrapper';
COMMENT ON FUNCTION billing_internal.call_read(text, text) IS 'Reads and measures a document of events in a format; a handle, or NULL where call_read_error() says why not.';
CREATE FUNCTION billing_internal.call_read_error(document text, format text DEFAULT 'native') RETURNS text
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_read_error_wrapper';
COMMENT ON FUNCTION billing_internal.call_read_error(text, text) IS 'Why a document of events can''t be read at all.';
CREATE FUNCTION billing_internal.call_read_kept(raws text[], formats text[]) RETURNS bigint
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_read_kept_wrapper';
COMMENT ON FUNCTION billing_internal.call_read_kept(text[], text[]) IS 'Reads and measures events that were refused before, each as it was kept; a handle.';
CREATE FUNCTION billing_internal.call_read_event(customer text, event_type text, event_id text, occurred_at timestamptz, properties text, bill_to text)
    RETURNS bigint LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'call_read_event_wrapper';
COMMENT ON FUNCTION billing_internal.call_read_event(text, text, text, timestamptz, text, text) IS 'Reads and measures one event; a handle.';
-- A call of one event that is kept only if it can be stored.
CREATE FUNCTION billing_internal.call_one(customer_id bigint, minutes smallint, earliest timestamptz, latest timestamptz, customer text, event_type text, event_id text, occurred_at timestamptz, properties text)
    RETURNS bigint LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_one_wrapper';
COMMENT ON FUNCTION billing_internal.call_one(bigint, smallint, timestamptz, timestamptz, text, text, text, timestamptz, text) IS 'Reads and measures one event of a known customer, without a legal entity; a handle, or NULL where it can''t be stored.';
CREATE FUNCTION billing_internal.call_one_month(handle bigint) RETURNS timestamptz LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_one_month_wrapper';
COMMENT ON FUNCTION billing_internal.call_one_month(bigint) IS 'The month whose partitions this session has not yet seen; NULL if it has.';
CREATE FUNCTION billing_internal.call_one_key(handle bigint) RETURNS uuid LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_one_key_wrapper';
COMMENT ON FUNCTION billing_internal.call_one_key(bigint) IS 'The event''s key.';
CREATE FUNCTION billing_internal.call_one_hash(handle bigint) RETURNS bigint LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_one_hash_wrapper';
COMMENT ON FUNCTION billing_internal.call_one_hash(bigint) IS 'The hash of its content.';
CREATE FUNCTION billing_internal.call_one_properties(handle bigint) RETURNS text LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_one_properties_wrapper';
COMMENT ON FUNCTION billing_internal.call_one_properties(bigint) IS 'Its properties, in canonical form.';
CREATE FUNCTION billing_internal.call_one_accept(handle bigint) RETURNS boolean LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_one_accept_wrapper';
COMMENT ON FUNCTION billing_internal.call_one_accept(bigint) IS 'Tells the call that the key was new; call_deltas() says what it adds. Always true.';
CREATE FUNCTION billing_internal.call_forget(handle bigint) RETURNS boolean LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_forget_wrapper';
COMMENT ON FUNCTION billing_internal.call_forget(bigint) IS 'Closes a call of which nothing more is asked; whether it was open.';
CREATE FUNCTION billing_internal.call_read_rows(customers text[], event_ids text[], event_types text[], occurred_at text[], bill_tos text[], properties text[])
    RETURNS bigint LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_read_rows_wrapper';
COMMENT ON FUNCTION billing_internal.call_read_rows(text[], text[], text[], text[], text[], text[]) IS 'Reads and measures rows of usage_event_input; a handle.';
CREATE FUNCTION billing_internal.call_measure_again(handle bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_measure_again_wrapper';
COMMENT ON FUNCTION billing_internal.call_measure_again(bigint) IS 'Measures the call with the meters loaded since it was read.';
CREATE FUNCTION billing_internal.call_parties(handle bigint) RETURNS TABLE (n int, customer text, bill_to text)
    LANGUAGE c VOLATILE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'call_parties_wrapper';
COMMENT ON FUNCTION billing_internal.call_parties(bigint) IS 'Customers and legal entities that the call names, each once.';
CREATE FUNCTION billing_internal.call_resolve(handle bigint, customer_ids bigint[], minutes smallint[], earliest timestamptz[], latest timestamptz[], faults text[])
    RETURNS timestamptz[] LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_resolve_wrapper';
COMMENT ON FUNCTION billing_internal.call_resolve(bigint, bigint[], smallint[], timestamptz[], timestamptz[], text[]) IS 'Tells the call who its parties are; gives the UTC months that need partitions and are not known to have them (month_learn), NULL if none.';
CREATE FUNCTION billing_internal.call_keys(handle bigint) RETURNS TABLE (customer_id bigint, event_key uuid, occurred_at timestamptz, content_hash bigint)
    LANGUAGE c VOLATILE STRICT ROWS 1000 AS 'MODULE_PATHNAME', 'call_keys_wrapper';
COMMENT ON FUNCTION billing_internal.call_keys(bigint) IS 'The keys to insert, sorted by customer and key.';
CREATE FUNCTION billing_internal.call_accept(handle bigint, customer_ids bigint[], event_keys uuid[])
    RETURNS TABLE (customer_id bigint, event_key uuid, occurred_at timestamptz, event_type text, event_id text, bill_to text, properties text)
    LANGUAGE c VOLATILE STRICT ROWS 1000 AS 'MODULE_PATHNAME', 'call_accept_wrapper';
COMMENT ON FUNCTION billing_internal.call_accept(bigint, bigint[], uuid[]) IS 'Tells the call which keys were new; gives their events.';
CREATE FUNCTION billing_internal.call_deltas(handle bigint)
    RETURNS TABLE (customer_id bigint, meter_id int, bucket_minutes smallint, bucket_start timestamptz, dimension_set_id bigint,
        dimensions text, events bigint, quantity numeric, moment numeric, placed_at timestamptz, event_key uuid, value_keys uuid[])
    LANGUAGE c VOLATILE STRICT ROWS 100 AS 'MODULE_PATHNAME', 'call_deltas_wrapper';
COMMENT ON FUNCTION billing_internal.call_deltas(bigint) IS 'What the accepted events add to usage.';
CREATE FUNCTION billing_internal.call_has_known(handle bigint) RETURNS boolean
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_has_known_wrapper';
COMMENT ON FUNCTION billing_internal.call_has_known(bigint) IS 'Whether a call has repeats to look up.';
CREATE FUNCTION billing_internal.call_has_rejections(handle bigint) RETURNS boolean
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_has_rejections_wrapper';
COMMENT ON FUNCTION billing_internal.call_has_rejections(bigint) IS 'Whether a call has events to keep aside.';
CREATE FUNCTION billing_internal.month_learn(month timestamptz) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'month_learn_wrapper';
COMMENT ON FUNCTION billing_internal.month_learn(timestamptz) IS 'Remembers in this backend that a month has its partitions.';
CREATE FUNCTION billing_internal.call_known(handle bigint) RETURNS TABLE (customer_id bigint, event_key uuid)
    LANGUAGE c VOLATILE STRICT ROWS 100 AS 'MODULE_PATHNAME', 'call_known_wrapper';
COMMENT ON FUNCTION billing_internal.call_known(bigint) IS 'The keys whose stored content decides between duplicate and conflicting.';
CREATE FUNCTION billing_internal.call_judge(handle bigint, customer_ids bigint[], event_keys uuid[], content_hashes bigint[]) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_judge_wrapper';
COMMENT ON FUNCTION billing_internal.call_judge(bigint, bigint[], uuid[], bigint[]) IS 'Tells the call the stored content of its known keys.';
CREATE FUNCTION billing_internal.call_rejections(handle bigint) RETURNS TABLE (customer text, event_id text, reason text, message text, raw text, format text)
    LANGUAGE c VOLATILE STRICT ROWS 1 AS 'MODULE_PATHNAME', 'call_rejections_wrapper';
COMMENT ON FUNCTION billing_internal.call_rejections(bigint) IS 'Rejected and conflicting events, whole.';
CREATE FUNCTION billing_internal.call_confine(handle bigint, customer_id bigint, event_type text, from_at timestamptz, until_at timestamptz) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'call_confine_wrapper';
COMMENT ON FUNCTION billing_internal.call_confine(bigint, bigint, text, timestamptz, timestamptz) IS 'Refuses events that are not of one customer, type and stretch of time [from_at, until_at), and ids that stand twice.';
CREATE FUNCTION billing_internal.call_contents(handle bigint)
    RETURNS TABLE (place int, event_key uuid, event_id text, occurred_at timestamptz, content_hash bigint)
    LANGUAGE c VOLATILE STRICT ROWS 1000 AS 'MODULE_PATHNAME', 'call_contents_wrapper';
COMMENT ON FUNCTION billing_internal.call_contents(bigint) IS 'The events that can be stored, with their places in the call (from 0).';
CREATE FUNCTION billing_internal.call_outcomes(handle bigint) RETURNS TABLE (place int, outcome text, reason text, message text)
    LANGUAGE c VOLATILE STRICT ROWS 1000 AS 'MODULE_PATHNAME', 'call_outcomes_wrapper';
COMMENT ON FUNCTION billing_internal.call_outcomes(bigint) IS 'What became of each event so far, by its place in the call (from 0): open, accepted, duplicate, conflicting or rejected, and why.';
CREATE FUNCTION billing_internal.limit_check(events_per_second numeric, burst int, level numeric, level_at timestamptz, now timestamptz, events bigint)
    RETURNS TABLE (level numeric, level_at timestamptz, wait_ms bigint)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'limit_check_wrapper';
COMMENT ON FUNCTION billing_internal.limit_check(numeric, int, numeric, timestamptz, timestamptz, bigint) IS 'Whether so many more events may pass (GCRA): what stands then; else wait_ms until they may, and no value at all if they never fit.';
CREATE FUNCTION billing_internal.limit_error(events_per_second numeric, burst int) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'limit_error_wrapper';
COMMENT ON FUNCTION billing_internal.limit_error(numeric, int) IS 'Why a limit can''t be; NULL if it can.';
CREATE FUNCTION billing_internal.call_end(handle bigint) RETURNS TABLE (accepted bigint, duplicate bigint, conflicting bigint, rejected bigint)
    LANGUAGE c VOLATILE STRICT ROWS 1 AS 'MODULE_PATHNAME', 'call_end_wrapper';
COMMENT ON FUNCTION billing_internal.call_end(bigint) IS 'The counts of the call; closes it.';

-- ── locks and partitions ─────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.stripe_of(customer_id bigint) RETURNS int
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE -- bound when made: inlined, so no search_path
    RETURN (customer_id % 256)::int;
COMMENT ON FUNCTION billing_internal.stripe_of(bigint) IS 'The customer''s lock stripe. Ingest holds it shared, finalization and back-fill exclusively; 256 stripes, since a lock per customer would exhaust the lock table.';

CREATE FUNCTION billing_internal.lock_stripes(stripes int[], max_tries int DEFAULT 20) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms'
AS $$
DECLARE
    stripe int;
BEGIN
    IF billing_internal.travelling() THEN
        RETURN true;
    END IF;
    -- All of them, briefly and never while others wait for us in a circle: what can't be had in time is given back (the
    -- subtransaction ends) and tried again.
    FOR tries IN 1..max_tries LOOP
        BEGIN
            FOREACH stripe IN ARRAY stripes LOOP
                PERFORM pg_advisory_xact_lock(billing_internal.lock_class('stripe'), stripe);
            END LOOP;
            RETURN true;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN false;
END
$$;
COMMENT ON FUNCTION billing_internal.lock_stripes(int[], int) IS
    'Shuts ingest of these stripes out until the transaction ends, for what is rare and must not starve: waits in the queue, half a second at a time. false: not in so many tries. The caller''s lock_timeout stays as it is.';

CREATE FUNCTION billing_internal.bills_unseen(customer_ids bigint[]) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    SELECT FROM billing_internal.counter c WHERE c.name IN (SELECT 'bills/' || billing_internal.stripe_of(x) FROM unnest(customer_ids) x WHERE x IS NOT NULL)
    ORDER BY c.name FOR SHARE SKIP LOCKED
$$;
COMMENT ON FUNCTION billing_internal.bills_unseen(bigint[]) IS 'Of callers above READ COMMITTED, under the stripe locks: fails with 40001 where a customer of the stripes was billed, or a contract activated, since their snapshot.';

CREATE FUNCTION billing_internal.bills_seen(customer_ids bigint[]) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE billing_internal.counter c SET value = c.value + 1 FROM (
        SELECT x.name FROM billing_internal.counter x
        WHERE NOT billing_internal.travelling() AND x.name IN (SELECT 'bills/' || billing_internal.stripe_of(y) FROM unnest(customer_ids) y) ORDER BY x.name FOR NO KEY UPDATE
    ) s WHERE c.name = s.name
$$;
COMMENT ON FUNCTION billing_internal.bills_seen(bigint[]) IS 'Says to callers with an older snapshot that customers were billed or a contract activated; not of what only a time travel bills.';

CREATE FUNCTION billing_internal.month_number(at timestamptz) RETURNS int
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN (extract(year FROM at AT TIME ZONE 'UTC') * 12 + extract(month FROM at AT TIME ZONE 'UTC'))::int;
COMMENT ON FUNCTION billing_internal.month_number(timestamptz) IS 'The UTC month of an instant as a number above 0: the second key of the lock under which its partitions are made.';

CREATE FUNCTION billing_internal.partitions_heed(months timestamptz[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A partition is visible a moment before its maker has told everybody; the maker's lock lasts until it has.
    PERFORM pg_advisory_lock_shared(billing_internal.lock_class('partition'), m.n), pg_advisory_unlock_shared(billing_internal.lock_class('partition'), m.n)
    FROM (SELECT DISTINCT billing_internal.month_number(x) AS n FROM unnest(months) x) m;
    PERFORM billing_internal.heed_changes();
END
$$;
COMMENT ON FUNCTION billing_internal.partitions_heed(timestamptz[]) IS 'Makes sure that this session knows the partitions of months that are committed.';

CREATE FUNCTION billing_internal.partition_ensure(month timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    parent text;
    child text;
    starts timestamptz := date_trunc('month', month, 'UTC');
    ends timestamptz;
BEGIN
    IF to_regclass('billing_internal.usage_value_' || to_char(starts, 'YYYY_MM')) IS NOT NULL THEN
        PERFORM billing_internal.partitions_heed(ARRAY[starts]);
        -- Looked up once per session, but not what this transaction made and may take back: it holds the maker's lock.
        IF NOT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.pid = pg_backend_pid() AND l.mode = 'ExclusiveLock'
            AND l.classid::bigint = billing_internal.lock_class('partition') AND l.objid::bigint = billing_internal.month_number(starts)) THEN
            PERFORM billing_internal.month_learn(starts);
        END IF;
        RETURN;
    END IF;
    IF billing_internal.travelling() THEN
        PERFORM billing_internal.fail('ZB005', format('there are no partitions of %s yet, and a time travel makes none', to_char(starts, 'YYYY-MM')),
            'Others would wait for them until it ends. Send events of months that have some.');
    END IF;
    -- One session makes a month; the others wait here and then find it.
    PERFORM pg_advisory_xact_lock(billing_internal.lock_class('partition'), 0);
    PERFORM pg_advisory_xact_lock(billing_internal.lock_class('partition'), billing_internal.month_number(starts));
    PERFORM billing_internal.heed_changes();
    ends := (starts AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
    FOREACH parent IN ARRAY ARRAY['usage_event', 'usage_bucket', 'usage_value'] LOOP
        child := parent || to_char(starts, '_YYYY_MM');
        CONTINUE WHEN to_regclass('billing_internal.' || child) IS NOT NULL;
        -- Made apart and attached: CREATE … PARTITION OF would take ACCESS EXCLUSIVE on the parent, ATTACH does not.
        EXECUTE format('CREATE TABLE billing_internal.%I (LIKE billing.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
        EXECUTE format('ALTER TABLE billing_internal.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', child);
        IF parent = 'usage_event' THEN
            -- It has no key of its own, and retention removes rows: a publication must be able to say which.
            EXECUTE format('ALTER TABLE billing_internal.%I REPLICA IDENTITY FULL', child);
        END IF;
        IF parent = 'usage_bucket' THEN
            EXECUTE format('ALTER TABLE billing_internal.%I SET (fillfactor = 70)', child);
        END IF;
        EXECUTE format('ALTER TABLE billing.%I ATTACH PARTITION billing_internal.%I FOR VALUES FROM (%L) TO (%L)', parent, child, starts, ends);
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.partition_ensure(timestamptz) IS 'Makes the partitions of a UTC month of events and buckets if they are missing. Runs as billing_owner. Errors: ZB005 under time travel.';

-- ── ingest ───────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.meters_ready() RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    wanted text;
BEGIN
    -- The state that ingest compiles. The writing transaction is part of it: a rolled back change and the next one bear the
    -- same number. Not in a function of SQL, which each transaction would plan anew.
    SELECT c.value || '/' || c.xmin::text INTO wanted FROM billing_internal.counter c WHERE c.name = 'catalogue';
    IF billing_internal.meters_state() <> wanted THEN
        PERFORM billing_internal.meters_load(wanted, coalesce(array_agg(w.meter_id ORDER BY w.meter_id, w.from_at), '{}'),
            coalesce(array_agg(w.from_at ORDER BY w.meter_id, w.from_at), '{}'), coalesce(array_agg(w.until_at ORDER BY w.meter_id, w.from_at), '{}'),
            coalesce(array_agg(w.definition::text ORDER BY w.meter_id, w.from_at), '{}'))
        FROM billing.meter m JOIN billing_internal.meter_stretch w ON w.meter_id = m.meter_id AND w.as_of_version = m.version WHERE m.counts;
    END IF;
    RETURN wanted;
END
$$;
COMMENT ON FUNCTION billing_internal.meters_ready() IS 'Loads the meters of the catalogue''s present state into this backend; returns that state.';

CREATE FUNCTION billing_internal.limit_refuse(of_customer_id bigint, events bigint, wait_ms bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    l record;
BEGIN
    SELECT c.key, trim_scale(x.events_per_second) AS rate, x.burst INTO l FROM billing.ingest_limit x JOIN billing.customer c USING (customer_id) WHERE x.customer_id = of_customer_id;
    IF wait_ms IS NULL THEN
        PERFORM billing_internal.fail('ZB010', format('%s new events of customer %s in one call; its ingest limit takes %s at once', events, quote_literal(l.key), l.burst),
            format('Nothing was stored. Send at most %s in one call, or ask for a larger burst.', l.burst));
    END IF;
    PERFORM billing_internal.fail('ZB013', format('customer %s is over its ingest limit of %s events a second, %s at once', quote_literal(l.key), l.rate, l.burst),
        format('Nothing was stored. Send the same call again in %s ms.', wait_ms), 'retry_after_ms ' || wait_ms);
END
$$;
COMMENT ON FUNCTION billing_internal.limit_refuse(bigint, bigint, bigint) IS 'Raises ZB013 with the time to wait, or ZB010 where no wait helps.';

CREATE FUNCTION billing_internal.limit_look(limited bigint[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    over record;
BEGIN
    SELECT l.customer_id, k.wait_ms INTO over
    FROM billing.ingest_limit l JOIN billing_internal.ingest_limit_state s USING (customer_id)
    CROSS JOIN LATERAL billing_internal.limit_check(l.events_per_second, l.burst, s.level, s.level_at, clock_timestamp(), 1) k
    WHERE l.customer_id = ANY (limited) AND l.events_per_second IS NOT NULL AND k.level IS NULL
    ORDER BY k.wait_ms DESC LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.limit_refuse(over.customer_id, 1, over.wait_ms);
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.limit_look(bigint[]) IS 'Refuses a call early, without a lock, where one of its customers could not bring a single event. Errors: ZB013.';

CREATE FUNCTION billing_internal.limit_take(limited bigint[], new_ids bigint[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    ids bigint[];
    sizes bigint[];
    taken bigint[];
    levels numeric[];
    instants timestamptz[];
    over record;
BEGIN
    SELECT array_agg(n.customer_id ORDER BY n.customer_id), array_agg(n.size ORDER BY n.customer_id) INTO ids, sizes
    FROM (SELECT c AS customer_id, count(*) AS size FROM unnest(new_ids) c WHERE c = ANY (limited) GROUP BY c) n;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO billing_internal.ingest_limit_state (customer_id)
    SELECT c FROM unnest(ids) c WHERE NOT EXISTS (SELECT FROM billing_internal.ingest_limit_state s WHERE s.customer_id = c) ORDER BY c
    ON CONFLICT DO NOTHING;
    -- Locked in one statement, in ascending order, and looked at in the next, with the clock read when they are ours.
    PERFORM FROM (SELECT s.customer_id FROM billing_internal.ingest_limit_state s WHERE s.customer_id = ANY (ids) ORDER BY s.customer_id FOR UPDATE) s;
    FOR over IN
        SELECT n.customer_id, n.size, k.level, k.level_at, k.wait_ms
        FROM unnest(ids, sizes) n (customer_id, size) JOIN billing.ingest_limit l USING (customer_id) JOIN billing_internal.ingest_limit_state s USING (customer_id)
        CROSS JOIN LATERAL billing_internal.limit_check(l.events_per_second, l.burst, s.level, s.level_at, clock_timestamp(), n.size) k
        WHERE l.events_per_second IS NOT NULL
        ORDER BY k.level IS NULL DESC, k.wait_ms DESC NULLS FIRST, n.customer_id
    LOOP
        IF over.level IS NULL THEN
            PERFORM billing_internal.limit_refuse(over.customer_id, over.size, over.wait_ms);
        END IF;
        taken := taken || over.customer_id;
        levels := levels || over.level;
        instants := instants || over.level_at;
    END LOOP;
    UPDATE billing_internal.ingest_limit_state s SET level = n.level, level_at = n.level_at
    FROM unnest(taken, levels, instants) n (customer_id, level, level_at)
    WHERE s.customer_id = n.customer_id;
END
$$;
COMMENT ON FUNCTION billing_internal.limit_take(bigint[], bigint[]) IS 'Takes the new events of limited customers (those of the first list) off their limits, all or none. The last thing an ingest call does, so that the rows are locked briefly. Errors: ZB013 with the time to wait, ZB010.';

CREATE FUNCTION billing_internal.call_admit(handle bigint, state text, OUT limited bigint[])
    -- Plans are kept for the session. Made while tables are small they would read them whole when they are large.
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    at timestamptz := billing.now();
    -- What happens in this transaction is later than its start.
    moment timestamptz := billing_internal.moment();
    party_ids bigint[];
    party_minutes smallint[];
    party_earliest timestamptz[];
    party_latest timestamptz[];
    party_faults text[];
    policies boolean;
    months timestamptz[];
BEGIN
    -- 1. Who is it about? Found by index only.
    SELECT array_agg(c.customer_id ORDER BY p.n), array_agg(c.bucket_minutes ORDER BY p.n),
        array_agg(CASE WHEN c.customer_id IS NULL THEN 'unknown_customer'
            WHEN p.bill_to IS NOT NULL AND (SELECT t.key FROM billing.bill_to t WHERE t.customer_id = c.customer_id AND t.key = p.bill_to AND t.retired_at IS NULL) IS NULL
                THEN 'unknown_bill_to' END ORDER BY p.n),
        array_agg(c.customer_id) FILTER (WHERE (SELECT l.events_per_second FROM billing.ingest_limit l WHERE l.customer_id = c.customer_id) IS NOT NULL),
        (SELECT true FROM billing.policy y WHERE y.name IN ('event_age_max', 'event_future_max') LIMIT 1)
    INTO party_ids, party_minutes, party_faults, limited, policies
    FROM billing_internal.call_parties(handle) p
    -- Never by our id: an event for a customer '3' that is not there yet would count for whoever was made third.
    LEFT JOIN billing.customer c ON c.customer_id = coalesce((SELECT k.customer_id FROM billing.customer k WHERE k.key = p.customer),
        (SELECT a.customer_id FROM billing.customer_alias a WHERE a.alias = p.customer AND a.removed_at IS NULL));
    IF policies THEN
        SELECT array_agg(at - coalesce(y.own_age, y.age, billing_internal.event_age_default())::interval ORDER BY p.n),
            array_agg(moment + coalesce(y.own_future, y.future, billing_internal.event_future_default())::interval ORDER BY p.n)
        INTO party_earliest, party_latest
        FROM unnest(party_ids) WITH ORDINALITY p (customer_id, n)
        LEFT JOIN billing.customer c USING (customer_id)
        LEFT JOIN (
            -- One look at the policies, the seller's own or everybody's.
            SELECT s.seller_id, max(y.value) FILTER (WHERE y.name = 'event_age_max' AND y.scope <> 'global') AS own_age, max(y.value) FILTER (WHERE y.name = 'event_age_max') AS age,
                max(y.value) FILTER (WHERE y.name = 'event_future_max' AND y.scope <> 'global') AS own_future, max(y.value) FILTER (WHERE y.name = 'event_future_max') AS future
            FROM billing.seller s JOIN billing.policy y ON y.name IN ('event_age_max', 'event_future_max') AND y.scope IN ('global', 'seller:' || s.key)
            GROUP BY s.seller_id
        ) y USING (seller_id);
    ELSE
        party_earliest := array_fill(at - billing_internal.event_age_default()::interval, ARRAY[coalesce(cardinality(party_ids), 0)]);
        party_latest := array_fill(moment + billing_internal.event_future_default()::interval, ARRAY[coalesce(cardinality(party_ids), 0)]);
    END IF;

    -- 2. Shut out finalization and back-fill, in ascending order; a statement of its own before those that read.
    PERFORM pg_advisory_xact_lock_shared(billing_internal.lock_class('stripe'), s.stripe)
    FROM (SELECT DISTINCT billing_internal.stripe_of(c) AS stripe FROM unnest(party_ids) c WHERE c IS NOT NULL ORDER BY 1) s WHERE NOT billing_internal.travelling();

    -- 3. A meter that appeared meanwhile must see these events, too; so must a bucket width. A snapshot from before the
    -- meter can't show it, and the back-fill did not see these events: then the share lock fails with 40001. It skips
    -- a change that is not committed yet, whose back-fill waits for us.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM FROM billing_internal.counter c WHERE c.name = 'catalogue' FOR SHARE SKIP LOCKED;
        -- Nor would it show what was billed since, so that a late event would go unnoticed.
        PERFORM billing_internal.bills_unseen(party_ids);
    END IF;
    IF billing_internal.meters_ready() <> state THEN
        PERFORM billing_internal.call_measure_again(handle);
        SELECT array_agg(c.bucket_minutes ORDER BY p.n) INTO party_minutes
        FROM unnest(party_ids) WITH ORDINALITY p (customer_id, n) LEFT JOIN billing.customer c USING (customer_id);
    END IF;
    months := billing_internal.call_resolve(handle, coalesce(party_ids, '{}'), coalesce(party_minutes, '{}'), coalesce(party_earliest, '{}'),
        coalesce(party_latest, '{}'), coalesce(party_faults, '{}'));
    IF months IS NOT NULL THEN
        PERFORM billing_internal.partition_ensure(m) FROM unnest(months) m;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.call_admit(bigint, text) IS 'First half of every call with events: parties, stripe locks (shared, ascending), meters and bucket widths as they are under the locks, what can''t be stored, partitions. Gives the customers that have an ingest limit; NULL = none.';

CREATE FUNCTION billing_internal.usage_late(customer_ids bigint[], meter_ids int[], from_at timestamptz[], until_at timestamptz[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.usage_changed(array_agg(l.customer_id), array_agg(l.from_at), array_agg(l.until_at))
    FROM (
        -- What is carried over changes all that comes after.
        SELECT a.customer_id, min(a.from_at) AS from_at, max(CASE WHEN m.state IN ('level', 'presence') THEN 'infinity' ELSE a.until_at END) AS until_at
        FROM unnest(customer_ids, meter_ids, from_at, until_at) a (customer_id, meter_id, from_at, until_at) JOIN billing.meter m USING (meter_id)
        GROUP BY a.customer_id
    ) l;
END
$$;
COMMENT ON FUNCTION billing_internal.usage_late(bigint[], int[], timestamptz[], timestamptz[]) IS 'Says of buckets that were added to that they may have been billed before.';

CREATE FUNCTION billing_internal.fold_some(customer_ids bigint[], most int) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    to_fold bigint;
    folds_until timestamptz := clock_timestamp() + interval '100 milliseconds';
BEGIN
    FOR to_fold IN SELECT DISTINCT c FROM unnest(customer_ids) c LIMIT 16 LOOP
        BEGIN
            WHILE clock_timestamp() < folds_until AND EXISTS (SELECT FROM billing.usage_delta d WHERE d.customer_id = to_fold OFFSET most) LOOP
                EXIT WHEN billing_internal.fold_customer(to_fold, max_rows => 1000, mend => false) = 0;
            END LOOP;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.fold_some(bigint[], int) IS 'Folds customers with more deltas than that, for a moment. Nothing depends on it: what is left, what is dirty and what is broken waits for the job.';

CREATE FUNCTION billing_internal.event_store(of_customer_id bigint, customer text, event_type text, event_id text, occurred_at timestamptz, properties text, fold_above int DEFAULT 1000) RETURNS boolean
    -- As call_admit().
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    ready record;
    handle bigint;
    month timestamptz;
    late record;
BEGIN
    -- Read under the stripe's lock, so once: meters (meters_ready), the width of buckets, and what was billed. Rules of its own are for the others.
    SELECT k.value || '/' || k.xmin::text AS state, c.bucket_minutes, (SELECT max(t.billed_until) FROM billing.contract t) AS billed_until INTO ready
    FROM billing_internal.counter k CROSS JOIN billing.customer c
    WHERE k.name = 'catalogue' AND c.customer_id = of_customer_id AND NOT EXISTS (SELECT FROM billing.policy y WHERE y.name IN ('event_age_max', 'event_future_max'))
        AND NOT EXISTS (SELECT FROM billing.ingest_limit l WHERE l.customer_id = of_customer_id AND l.events_per_second IS NOT NULL);
    IF NOT FOUND THEN
        RETURN false;
    ELSIF billing_internal.meters_state() <> ready.state THEN
        PERFORM billing_internal.meters_ready();
    END IF;
    handle := billing_internal.call_one(of_customer_id, ready.bucket_minutes, billing.now() - billing_internal.event_age_default()::interval,
        billing_internal.moment() + billing_internal.event_future_default()::interval, customer, event_type, event_id, occurred_at, properties);
    IF handle IS NULL THEN
        RETURN false;
    END IF;
    month := billing_internal.call_one_month(handle);
    IF month IS NOT NULL THEN
        PERFORM billing_internal.partition_ensure(month);
    END IF;
    -- Key, event and what it adds, as ingest_call() does it. A statement each, of values: they cost less than one statement whose steps hand each other rows.
    INSERT INTO billing.usage_event_key (customer_id, event_key, occurred_at, content_hash)
    VALUES (of_customer_id, billing_internal.call_one_key(handle), occurred_at, billing_internal.call_one_hash(handle)) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        PERFORM billing_internal.call_forget(handle);
        RETURN false;
    END IF;
    INSERT INTO billing.usage_event (customer_id, event_key, occurred_at, recorded_at, event_type, event_id, bill_to, properties)
    VALUES (of_customer_id, billing_internal.call_one_key(handle), occurred_at, clock_timestamp(), event_type, event_id, NULL, billing_internal.call_one_properties(handle)::jsonb);
    IF billing_internal.call_one_accept(handle) THEN
        INSERT INTO billing.usage_delta (customer_id, meter_id, bucket_minutes, bucket_start, dimension_set_id, events, quantity, moment, placed_at, event_key, dimensions, value_keys)
        SELECT d.customer_id, d.meter_id, d.bucket_minutes, d.bucket_start, d.dimension_set_id, d.events, d.quantity, d.moment, d.placed_at, d.event_key,
            CASE WHEN (SELECT s.dimensions FROM billing.dimension_set s WHERE s.customer_id = d.customer_id AND s.dimension_set_id = d.dimension_set_id)
                IS DISTINCT FROM d.dimensions::jsonb THEN d.dimensions::jsonb END, d.value_keys
        FROM billing_internal.call_deltas(handle) d;
    END IF;
    -- A bucket begins less than an hour before its events.
    IF ready.billed_until > occurred_at - interval '1 hour' THEN
        SELECT array_agg(d.customer_id) AS customer_ids, array_agg(d.meter_id) AS meter_ids, array_agg(d.bucket_start) AS from_at, array_agg(d.bucket_start + make_interval(mins => d.bucket_minutes)) AS until_at
        INTO late FROM billing_internal.call_deltas(handle) d WHERE d.bucket_start < ready.billed_until;
        IF late.meter_ids IS NOT NULL THEN
            PERFORM billing_internal.usage_late(late.customer_ids, late.meter_ids, late.from_at, late.until_at);
        END IF;
    END IF;
    IF billing_internal.call_forget(handle) AND random() < 0.0625 THEN
        PERFORM billing_internal.fold_some(ARRAY[of_customer_id], fold_above);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION billing_internal.event_store(bigint, text, text, text, timestamptz, text, int) IS
    'The common case of ingest_event() in few statements: one new event, without a legal entity, of a customer whose stripe the caller holds (shared), in READ COMMITTED, without rules of its own. false = nothing was stored; ingest_event() does it, or says why not. Customers with more deltas than fold_above may be folded.';

CREATE FUNCTION billing_internal.ingest_call(
    handle bigint, state text, kept boolean DEFAULT false, unlimited boolean DEFAULT false, OUT accepted bigint, OUT duplicate bigint, OUT conflicting bigint, OUT rejected bigint, OUT errors jsonb
)
    -- As call_admit().
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    limited bigint[];
    new_ids bigint[];
    new_keys uuid[];
    known_ids bigint[];
    known_keys uuid[];
    known_hashes bigint[];
    recorded timestamptz;
    older boolean := current_setting('transaction_isolation') <> 'read committed';
    late_ids bigint[];
    late_meters int[];
    late_from timestamptz[];
    late_until timestamptz[];
BEGIN
    -- 1 to 3.
    limited := billing_internal.call_admit(handle, state);
    IF kept OR unlimited OR billing_internal.travelling() THEN
        limited := NULL;
    ELSIF limited IS NOT NULL THEN
        PERFORM billing_internal.limit_look(limited);
    END IF;

    -- 4. Keys: what is new is decided here, by the primary key, and nowhere else.
    WITH new AS (
        INSERT INTO billing.usage_event_key (customer_id, event_key, occurred_at, content_hash)
        SELECT k.customer_id, k.event_key, k.occurred_at, k.content_hash FROM billing_internal.call_keys(handle) k
        ON CONFLICT DO NOTHING
        RETURNING customer_id, event_key
    )
    SELECT coalesce(array_agg(n.customer_id), '{}'), coalesce(array_agg(n.event_key), '{}') INTO new_ids, new_keys FROM new n;

    -- 5. The events, and what they add to usage.
    recorded := clock_timestamp();
    INSERT INTO billing.usage_event (customer_id, event_key, occurred_at, recorded_at, event_type, event_id, bill_to, properties)
    SELECT e.customer_id, e.event_key, e.occurred_at, recorded, e.event_type, e.event_id, e.bill_to, e.properties::jsonb
    FROM billing_internal.call_accept(handle, new_ids, new_keys) e;
    WITH added AS (
        INSERT INTO billing.usage_delta (customer_id, meter_id, bucket_minutes, bucket_start, dimension_set_id, events, quantity, moment, placed_at, event_key, dimensions, value_keys)
        SELECT d.customer_id, d.meter_id, d.bucket_minutes, d.bucket_start, d.dimension_set_id, d.events, d.quantity, d.moment, d.placed_at, d.event_key,
            CASE WHEN (SELECT s.dimensions FROM billing.dimension_set s WHERE s.customer_id = d.customer_id AND s.dimension_set_id = d.dimension_set_id)
                IS DISTINCT FROM d.dimensions::jsonb THEN d.dimensions::jsonb END, d.value_keys
        FROM billing_internal.call_deltas(handle) d
        RETURNING customer_id, meter_id, bucket_start, bucket_minutes
    )
    -- What may be late: it comes before the latest boundary of all that was billed. An older snapshot does not know it.
    SELECT array_agg(a.customer_id), array_agg(a.meter_id), array_agg(a.bucket_start), array_agg(a.bucket_start + make_interval(mins => a.bucket_minutes))
    INTO late_ids, late_meters, late_from, late_until
    FROM added a WHERE older OR a.bucket_start < (SELECT max(k.billed_until) FROM billing.contract k);
    IF late_ids IS NOT NULL THEN
        PERFORM billing_internal.usage_late(late_ids, late_meters, late_from, late_until);
    END IF;

    -- 6. Repeats: content that was stored once, in whichever revision, is a duplicate, other content is conflicting.
    IF billing_internal.call_has_known(handle) THEN
        SELECT array_agg(k.customer_id), array_agg(k.event_key), array_agg(k.content_hash) INTO known_ids, known_keys, known_hashes
        FROM billing_internal.call_known(handle) n CROSS JOIN LATERAL (
            SELECT x.customer_id, x.event_key, x.content_hash FROM billing.usage_event_key x WHERE x.customer_id = n.customer_id AND x.event_key = n.event_key
            UNION ALL
            SELECT v.customer_id, v.event_key, v.replaced_hash FROM billing.usage_event_void v
            WHERE v.customer_id = n.customer_id AND v.event_key = n.event_key AND v.replaced_hash IS NOT NULL
        ) k;
        PERFORM billing_internal.call_judge(handle, known_ids, known_keys, known_hashes);
    END IF;

    -- 7. What could not be stored is kept, whole; unless it was before.
    IF kept THEN
        RETURN;
    END IF;
    errors := '[]';
    IF billing_internal.call_has_rejections(handle) THEN
        WITH stored AS (
            INSERT INTO billing.rejected_event (rejected_id, received_at, customer, event_id, reason, message, raw, format)
            SELECT billing_internal.uuid_v7(), clock_timestamp(), r.customer, r.event_id, r.reason, r.message, r.raw, r.format
            FROM billing_internal.call_rejections(handle) r
            RETURNING rejected_id, customer, event_id, reason, message
        )
        SELECT coalesce(jsonb_agg(jsonb_build_object('customer', k.customer, 'event_id', k.event_id, 'reason', k.reason, 'message', k.message)), '[]')
        INTO errors FROM (SELECT * FROM stored ORDER BY rejected_id LIMIT 100) k;
    END IF;

    -- 8. Now and then.
    IF random() < 0.0625 THEN
        PERFORM billing_internal.fold_some(new_ids, 1000);
    END IF;

    -- 9. What is over a limit fails as a whole.
    IF limited IS NOT NULL THEN
        PERFORM billing_internal.limit_take(limited, new_ids);
    END IF;
    SELECT e.accepted, e.duplicate, e.conflicting, e.rejected INTO accepted, duplicate, conflicting, rejected
    FROM billing_internal.call_end(handle) e;
END
$$;
COMMENT ON FUNCTION billing_internal.ingest_call(bigint, text, boolean, boolean) IS 'The steps of every ingest, set-based: parties, stripe locks, keys, events, deltas, repeats, rejections, limits. kept: the events are rejected ones that are tried again; then nothing is kept a second time, no limit asked, and the caller reads the outcomes and ends the call. unlimited: no limit is asked.';

CREATE FUNCTION billing.ingest(events json, format text DEFAULT 'native')
    RETURNS TABLE (accepted bigint, duplicate bigint, conflicting bigint, rejected bigint, errors jsonb)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state text;
    handle bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    IF events IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'the events are NULL', 'Pass a JSON array of events, or one event.');
    ELSIF format IS NULL THEN
        PERFORM billing_internal.fail('ZB004', 'the event format is NULL', 'Use native, cloudevents, stripe, orb, metronome or lago.');
    END IF;
    state := billing_internal.meters_ready();
    handle := billing_internal.call_read(events::text, format);
    IF handle IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.call_read_error(events::text, format)::jsonb);
    END IF;
    RETURN QUERY SELECT * FROM billing_internal.ingest_call(handle, state);
END
$$;
COMMENT ON FUNCTION billing.ingest(json, text) IS
    'Stores usage events, each exactly once: a JSON array of at most 10,000 events (16 MB), or one event {"customer","event_id","event_type","occurred_at","properties":{},"bill_to"}. Returns how many were accepted, duplicate (the same again), conflicting (same id, other content) and rejected; errors describes up to 100 of the latter two, all are in rejected_event. format: native, or cloudevents, stripe, orb, metronome, lago for events as those write them. Usage is visible at commit. Errors: ZB003 not a batch of events, ZB010 too many or too large, ZB004 format, ZB013 a customer is over its ingest limit (nothing is stored; HINT and DETAIL say when to send it again).';

CREATE FUNCTION billing.ingest_event(
    customer text, event_type text, event_id text, occurred_at timestamptz, properties jsonb DEFAULT '{}', bill_to text DEFAULT NULL
) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state text;
    outcome record;
    of_customer_id bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    IF customer IS NULL OR event_type IS NULL OR event_id IS NULL OR occurred_at IS NULL THEN
        PERFORM billing_internal.fail('ZB008', format('event rejected: %s is missing',
            CASE WHEN customer IS NULL THEN 'customer' WHEN event_type IS NULL THEN 'event_type' WHEN event_id IS NULL THEN 'event_id' ELSE 'occurred_at' END),
            'An event names its customer, type, id and time.');
    END IF;
    IF bill_to IS NULL AND current_setting('transaction_isolation') = 'read committed' AND NOT billing_internal.travelling() THEN
        of_customer_id := (SELECT c.customer_id FROM billing.customer c WHERE c.key = ingest_event.customer);
        IF of_customer_id IS NOT NULL THEN
            PERFORM pg_advisory_xact_lock_shared(billing_internal.lock_class('stripe'), billing_internal.stripe_of(of_customer_id));
            IF billing_internal.event_store(of_customer_id, customer, event_type, event_id, occurred_at, coalesce(properties, '{}')::text) THEN
                RETURN 'accepted';
            END IF;
        END IF;
    END IF;
    state := billing_internal.meters_ready();
    outcome := billing_internal.ingest_call(billing_internal.call_read_event(
        customer, event_type, event_id, occurred_at, coalesce(properties, '{}')::text, bill_to), state);
    IF outcome.conflicting > 0 THEN
        PERFORM billing_internal.fail('ZB009', 'event conflicts: ' || (outcome.errors->0->>'message'),
            'Nothing was stored. Send a new event under a new event_id; a stored event never changes.');
    ELSIF outcome.rejected > 0 THEN
        PERFORM billing_internal.fail('ZB008', 'event rejected: ' || (outcome.errors->0->>'message'),
            'Nothing was stored. Mend the event and send it again.', 'reason ' || (outcome.errors->0->>'reason'));
    END IF;
    RETURN CASE WHEN outcome.accepted > 0 THEN 'accepted' ELSE 'duplicate' END;
END
$$;
COMMENT ON FUNCTION billing.ingest_event(text, text, text, timestamptz, jsonb, text) IS
    'Stores one usage event exactly once. Returns accepted, or duplicate if the same event was stored before. Errors (nothing is stored): ZB008 rejected, with the reason, ZB009 the id was used for another event, ZB013 over the customer''s ingest limit.';

CREATE FUNCTION billing_internal.ingest_rows(customers text[], event_ids text[], event_types text[], occurred_at text[], bill_tos text[], properties text[])
    RETURNS TABLE (accepted bigint, duplicate bigint, conflicting bigint, rejected bigint, errors jsonb)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state text;
BEGIN
    PERFORM billing_internal.require_installed();
    -- An event without a legal entity has a NULL in the list; a list that is NULL is a mistake.
    IF (customers IS NULL OR event_ids IS NULL OR event_types IS NULL OR occurred_at IS NULL OR bill_tos IS NULL OR properties IS NULL) THEN
        PERFORM billing_internal.fail('ZB004', 'a column of the events is NULL', 'Call billing.ingest_from().');
    ELSIF cardinality(customers) > 10000 THEN
        PERFORM billing_internal.fail('ZB010', format('%s events in one batch', cardinality(customers)), 'At most 10,000; call billing.ingest_from(), which makes batches.');
    END IF;
    state := billing_internal.meters_ready();
    RETURN QUERY SELECT * FROM billing_internal.ingest_call(
        billing_internal.call_read_rows(customers, event_ids, event_types, occurred_at, bill_tos, properties), state);
END
$$;
COMMENT ON FUNCTION billing_internal.ingest_rows(text[], text[], text[], text[], text[], text[]) IS 'One batch of ingest_from(), whose reading half runs with the caller''s rights. Errors: ZB004 NULL, ZB010 more than 10,000 events.';

CREATE FUNCTION billing.ingest_from(source regclass)
    RETURNS TABLE (accepted bigint, duplicate bigint, conflicting bigint, rejected bigint, errors jsonb)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_hashagg = off
AS $$
DECLARE
    batches refcursor;
    batch record;
    part record;
    missing text;
BEGIN
    PERFORM billing_internal.require_installed();
    IF coalesce(source::oid, 0) = 0 THEN
        PERFORM billing_internal.fail('ZB004', 'the table is NULL', 'CREATE TEMP TABLE batch (LIKE billing.usage_event_input); COPY into it, pass its name.');
    END IF;
    SELECT string_agg(n, ', ' ORDER BY place) INTO missing
    FROM unnest(ARRAY['customer', 'event_type', 'event_id', 'occurred_at', 'properties', 'bill_to']) WITH ORDINALITY x (n, place)
    WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = n AND a.attnum > 0 AND NOT a.attisdropped);
    IF missing IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB004', format('table %s has no column %s', source, missing),
            'Use a table of the right shape: CREATE TEMP TABLE batch (LIKE billing.usage_event_input);');
    END IF;
    accepted := 0; duplicate := 0; conflicting := 0; rejected := 0; errors := '[]';
    -- Grouped in the order of the table, one batch in memory at a time: a cursor, since FOR … IN would fetch 50 at once. The
    -- caller reads the table with its own rights; only arrays are handed on.
    OPEN batches FOR EXECUTE format($query$
        SELECT array_agg(customer::text) AS customers, array_agg(event_id::text) AS event_ids, array_agg(event_type::text) AS event_types,
            array_agg(occurred_at::text) AS occurred_at, array_agg(bill_to::text) AS bill_tos, array_agg(properties::text) AS properties
        FROM (SELECT i.*, (row_number() OVER () - 1) / 5000 AS batch_n FROM %s i) numbered
        GROUP BY batch_n ORDER BY batch_n $query$, source);
    LOOP
        FETCH batches INTO batch;
        EXIT WHEN NOT FOUND;
        SELECT * INTO part FROM billing_internal.ingest_rows(batch.customers, batch.event_ids, batch.event_types, batch.occurred_at, batch.bill_tos, batch.properties);
        accepted := accepted + part.accepted;
        duplicate := duplicate + part.duplicate;
        conflicting := conflicting + part.conflicting;
        rejected := rejected + part.rejected;
        IF jsonb_array_length(errors) < 100 THEN
            errors := errors || part.errors;
        END IF;
    END LOOP;
    CLOSE batches;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION billing.ingest_from(regclass) IS
    'As ingest(), for a table of shape billing.usage_event_input that the caller may read: CREATE TEMP TABLE batch (LIKE billing.usage_event_input); COPY batch FROM …; SELECT * FROM billing.ingest_from(''batch''); all in one transaction. Any number of rows, in batches of 5,000. Errors: ZB004 NULL, ZB010 and ZB013 ingest limits: a limited customer''s burst must take its part of a batch.';

-- ── limits ───────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.ingest_limit_set(customer text, events_per_second numeric, burst int DEFAULT NULL, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    of_customer_id bigint;
    before jsonb;
BEGIN
    PERFORM billing_internal.require_installed();
    of_customer_id := billing_internal.find_customer(customer);
    IF events_per_second IS NULL THEN
        burst := 1;
    ELSE
        burst := coalesce(burst, CASE WHEN events_per_second BETWEEN 0 AND 1000000 THEN greatest(ceil(events_per_second), 1) ELSE 1 END);
        PERFORM billing_internal.raise_fault(billing_internal.limit_error(events_per_second, burst)::jsonb);
    END IF;
    SELECT jsonb_build_object('events_per_second', trim_scale(l.events_per_second), 'burst', l.burst) INTO before FROM billing.ingest_limit l WHERE l.customer_id = of_customer_id;
    INSERT INTO billing.ingest_limit (customer_id, events_per_second, burst, set_at, set_by)
    VALUES (of_customer_id, events_per_second, burst, clock_timestamp(), billing_internal.caller())
    ON CONFLICT ON CONSTRAINT ingest_limit_pkey DO UPDATE SET events_per_second = excluded.events_per_second, burst = excluded.burst, set_at = excluded.set_at, set_by = excluded.set_by;
    PERFORM billing_internal.audit('ingest_limit_set', 'customer', (SELECT c.key FROM billing.customer c WHERE c.customer_id = of_customer_id), of_customer_id, before,
        jsonb_build_object('events_per_second', trim_scale(events_per_second), 'burst', burst), reason);
END
$$;
COMMENT ON FUNCTION billing.ingest_limit_set(text, numeric, int, text) IS
    'Limits how many new events a customer''s ingest calls may bring: events_per_second (0.000001 to 1,000,000) in the long run, burst at once (default: one second''s). NULL events_per_second = no limit. A call over it fails as a whole with ZB013 and says when to send it again; duplicates and rejected events are free. Holds from the next call on. Errors: ZB001 customer, ZB004 bounds.';

-- ── what was rejected ────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.rejected_event_retry(max_rows int DEFAULT 1000, reason text DEFAULT NULL, customer text DEFAULT NULL)
    RETURNS TABLE (retried bigint, accepted bigint, duplicate bigint, conflicting bigint, rejected bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    ids uuid[];
    raws text[];
    formats text[];
    state text;
    handle bigint;
    names text[] := ARRAY[rejected_event_retry.customer];
BEGIN
    PERFORM billing_internal.require_installed();
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 10000 THEN
        PERFORM billing_internal.fail('ZB004', format('%s rejected events can''t be tried at once', coalesce(max_rows::text, 'NULL')), 'Give 1 to 10,000.');
    END IF;
    IF rejected_event_retry.customer IS NOT NULL THEN
        names := names || ARRAY(SELECT x.name FROM (SELECT c.customer_id, c.key AS name FROM billing.customer c UNION ALL SELECT a.customer_id, a.alias FROM billing.customer_alias a) x
            WHERE x.customer_id = billing_internal.customer_of(rejected_event_retry.customer));
    END IF;
    -- The never tried first, then those whose last try is longest ago, so that none that stays rejected is in the way of others.
    SELECT array_agg(r.rejected_id ORDER BY r.rejected_id), array_agg(r.raw ORDER BY r.rejected_id), array_agg(r.format ORDER BY r.rejected_id) INTO ids, raws, formats
    FROM (
        SELECT x.*, sum(octet_length(x.raw)) OVER (ORDER BY x.retried_at NULLS FIRST, x.rejected_id) - octet_length(x.raw) AS bytes_before
        FROM (
            SELECT e.* FROM billing.rejected_event e
            WHERE e.resolved_at IS NULL AND (rejected_event_retry.reason IS NULL OR e.reason = rejected_event_retry.reason)
                AND (rejected_event_retry.customer IS NULL OR e.customer = ANY (names))
            ORDER BY e.retried_at NULLS FIRST, e.rejected_id LIMIT max_rows FOR UPDATE SKIP LOCKED
        ) x
    ) r WHERE r.bytes_before < 16777216;
    retried := coalesce(cardinality(ids), 0);
    accepted := 0; duplicate := 0; conflicting := 0; rejected := 0;
    IF retried > 0 THEN
        state := billing_internal.meters_ready();
        handle := billing_internal.call_read_kept(raws, formats);
        PERFORM billing_internal.ingest_call(handle, state, true);
        UPDATE billing.rejected_event r SET retried_at = clock_timestamp(), reason = coalesce(o.reason, r.reason), message = coalesce(o.message, r.message),
            resolved_at = CASE WHEN o.outcome IN ('accepted', 'duplicate') THEN clock_timestamp() END,
            resolution = CASE WHEN o.outcome IN ('accepted', 'duplicate') THEN o.outcome END
        FROM unnest(ids) WITH ORDINALITY i (rejected_id, n) JOIN billing_internal.call_outcomes(handle) o ON o.place = i.n - 1
        WHERE r.rejected_id = i.rejected_id;
        SELECT e.accepted, e.duplicate, e.conflicting, e.rejected INTO accepted, duplicate, conflicting, rejected FROM billing_internal.call_end(handle) e;
        PERFORM billing_internal.audit('rejected_event_retry', 'rejected_event', coalesce(rejected_event_retry.reason, 'all'), NULL, NULL,
            jsonb_build_object('customer', rejected_event_retry.customer, 'retried', retried, 'accepted', accepted, 'duplicate', duplicate, 'conflicting', conflicting, 'rejected', rejected));
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION billing.rejected_event_retry(int, text, text) IS
    'Ingests open rejected events again, at most max_rows (1 to 10,000) and about 16 MB, in the order they came; only those of a reason or customer (by any of its names), if given. What is stored now, or was before, is resolved; the others stay open with the new reason. Those never tried come first, then those whose last try is longest ago: call it until retried is what stays. Events that other sessions are retrying are passed over. Errors: ZB004.';

CREATE FUNCTION billing.rejected_event_resolve(rejected_id uuid, decision text, reason text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_id uuid := rejected_event_resolve.rejected_id;
    r record;
    of_customer_id bigint;
    state text;
    result text;
    outcome text;
BEGIN
    PERFORM billing_internal.require_installed();
    IF decision IS NULL OR decision NOT IN ('keep', 'replace', 'discard') THEN
        PERFORM billing_internal.fail('ZB004', format('decision %s is not known', coalesce(quote_literal(decision), 'NULL')),
            'Use keep (the stored event stands), replace (the stored event says this from now on) or discard (give it up).');
    END IF;
    PERFORM billing_internal.check_correction_reason(reason);
    SELECT * INTO r FROM billing.rejected_event e WHERE e.rejected_id = of_id FOR UPDATE;
    IF r.rejected_id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('rejected event %s is not known', coalesce(of_id::text, 'NULL')), 'SELECT rejected_id, customer, event_id, reason FROM billing.rejected_event WHERE resolved_at IS NULL; lists the open ones.');
    ELSIF r.resolved_at IS NOT NULL THEN
        PERFORM billing_internal.fail('ZB005', format('rejected event %s is resolved: %s', of_id, r.resolution), 'SELECT rejected_id, customer, event_id, reason FROM billing.rejected_event WHERE resolved_at IS NULL; lists the open ones.');
    ELSIF decision <> 'discard' AND r.reason <> 'conflicting' THEN
        PERFORM billing_internal.fail('ZB005', format('rejected event %s does not conflict with a stored one: its reason is %s', of_id, r.reason),
            'Mend what is missing and call billing.rejected_event_retry(), or discard it.');
    END IF;
    IF decision = 'replace' THEN
        SELECT coalesce(k.customer_id, a.customer_id) INTO of_customer_id
        FROM (SELECT 1) one LEFT JOIN billing.customer k ON k.key = r.customer LEFT JOIN billing.customer_alias a ON a.alias = r.customer AND a.removed_at IS NULL;
        IF of_customer_id IS NULL THEN
            PERFORM billing_internal.fail('ZB001', format('customer %s is not known', coalesce(quote_literal(r.customer), 'NULL')), 'Discard the event, or give the customer its alias back.');
        END IF;
        PERFORM billing_internal.correction_begin(of_customer_id);
        state := billing_internal.meters_ready();
        outcome := billing_internal.amend_by_call(of_customer_id, r.event_id, billing_internal.call_read_kept(ARRAY[r.raw], ARRAY[r.format]), state, reason);
    END IF;
    result := CASE decision WHEN 'keep' THEN 'kept' WHEN 'replace' THEN 'replaced' ELSE 'discarded' END;
    UPDATE billing.rejected_event e SET resolved_at = clock_timestamp(), resolution = result WHERE e.rejected_id = of_id;
    PERFORM billing_internal.audit('rejected_event_resolve', 'rejected_event', of_id::text, of_customer_id,
        jsonb_build_object('reason', r.reason, 'customer', r.customer, 'event_id', r.event_id), jsonb_strip_nulls(jsonb_build_object('resolution', result, 'event', outcome)), reason);
    RETURN result;
END
$$;
COMMENT ON FUNCTION billing.rejected_event_resolve(uuid, text, text) IS
    'Decides about an open rejected event: keep (conflicting: the stored event stands), replace (conflicting: the stored event is amended to say this) or discard (given up). Returns kept, replaced or discarded. Errors: ZB001 not known, ZB004 decision or no reason, ZB005 resolved already, or it conflicts with nothing, ZB008 what ingest would reject.';

-- verify(): what always holds (design 5), checked from the outside: buckets against events, invoices against
-- their events, numbers, periods, the audit chain. Every test ends with it.

CREATE FUNCTION billing_internal.verify_usage(since timestamptz) RETURNS TABLE (check_name text, checked bigint, failed bigint, example text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
    WITH meters AS MATERIALIZED (
        SELECT array_agg(w.meter_id) AS ids, array_agg(w.from_at) AS starts, array_agg(w.until_at) AS ends, array_agg(w.definition::text) AS definitions
        FROM billing.meter m JOIN billing_internal.meter_stretch w ON w.meter_id = m.meter_id AND w.as_of_version = m.version WHERE m.counts
    ), dirty AS MATERIALIZED (
        -- Answered from events, or of events that were removed: nothing to compare.
        SELECT d.customer_id, d.meter_id, range_agg(tstzrange(date_trunc('hour', d.from_at, 'UTC'), d.until_at)) AS stretches FROM (
            SELECT x.customer_id, x.meter_id, x.from_at, x.until_at FROM billing.usage_dirty x
            UNION ALL
            SELECT c.customer_id, m.meter_id, '-infinity', m.since FROM (SELECT x.meter_id, billing_internal.events_since(x.meter_id) AS since FROM billing.meter x OFFSET 0) m
            CROSS JOIN billing.customer c WHERE m.since > '-infinity'
            UNION ALL
            SELECT c.customer_id, r.meter_id, r.from_at, r.until_at FROM billing.meter_rebuild r JOIN billing.customer c ON c.customer_id > r.listed_to WHERE r.finished_at IS NULL
        ) d GROUP BY d.customer_id, d.meter_id
    ), fresh AS (
        SELECT u.customer_id, u.meter_id, u.bucket_start, u.dimensions::jsonb AS dimensions, u.events, u.quantity, u.value_keys, u.moment, u.placed_at, u.event_key
        FROM (
            SELECT array_agg(e.customer_id) AS customers, array_agg(c.bucket_minutes) AS minutes, array_agg(e.event_key) AS keys, array_agg(e.event_type) AS types,
                array_agg(e.occurred_at) AS times, array_agg(e.bill_to) AS bill_tos, array_agg(e.properties::text) AS properties
            FROM (SELECT e.*, (row_number() OVER () - 1) / 10000 AS slice FROM billing.usage_event e WHERE e.occurred_at >= date_trunc('hour', since, 'UTC')
                AND NOT EXISTS (SELECT FROM billing.usage_event_void v WHERE v.customer_id = e.customer_id AND v.event_key = e.event_key AND v.revision = e.revision)) e
            JOIN billing.customer c USING (customer_id)
            GROUP BY e.slice
        ) b CROSS JOIN meters m
        CROSS JOIN LATERAL billing_internal.stored_usage(m.ids, m.starts, m.ends, m.definitions, b.customers, b.minutes, b.keys, b.types, b.times, b.bill_tos, b.properties) u
    ), fresh_cell AS (
        SELECT f.customer_id, f.meter_id, date_trunc('hour', f.bucket_start, 'UTC') AS hour, f.dimensions, sum(f.events) AS events,
            CASE m.state WHEN 'max' THEN max(f.quantity) WHEN 'min' THEN min(f.quantity) WHEN 'sum' THEN sum(f.quantity) WHEN 'level' THEN sum(f.quantity)
                WHEN 'latest' THEN (array_agg(f.quantity ORDER BY f.placed_at DESC, f.event_key DESC) FILTER (WHERE m.state = 'latest'))[1] END AS quantity,
            sum(f.moment + CASE WHEN m.state = 'level' THEN f.quantity * billing_internal.micros_between(date_trunc('hour', f.bucket_start, 'UTC'), f.bucket_start) END) AS moment,
            max(f.placed_at) FILTER (WHERE m.state = 'latest') AS placed_at
        FROM fresh f JOIN billing.meter m USING (meter_id) GROUP BY 1, 2, 3, 4, m.state
    ), kept_cell AS (
        SELECT u.customer_id, u.meter_id, date_trunc('hour', u.bucket_start, 'UTC') AS hour, u.dimensions, sum(u.events) AS events,
            CASE m.state WHEN 'max' THEN max(u.quantity) WHEN 'min' THEN min(u.quantity) WHEN 'sum' THEN sum(u.quantity) WHEN 'level' THEN sum(u.quantity)
                WHEN 'latest' THEN (array_agg(u.quantity ORDER BY u.placed_at DESC, u.event_key DESC) FILTER (WHERE m.state = 'latest'))[1] END AS quantity,
            sum(u.moment + CASE WHEN m.state = 'level' THEN u.quantity * billing_internal.micros_between(date_trunc('hour', u.bucket_start, 'UTC'), u.bucket_start) END) AS moment,
            max(u.placed_at) FILTER (WHERE m.state = 'latest') AS placed_at
        FROM billing_internal.usage_cell u JOIN billing.meter m USING (meter_id)
        WHERE u.bucket_start >= date_trunc('hour', since, 'UTC') AND m.counts GROUP BY 1, 2, 3, 4, m.state
        HAVING sum(u.events) <> 0 OR sum(u.quantity) <> 0 -- what a correction took back leaves nothing
    ), cell AS (
        SELECT customer_id, meter_id, hour, dimensions, f.events AS from_events, k.events AS from_buckets,
            f.events IS DISTINCT FROM k.events OR f.quantity IS DISTINCT FROM k.quantity OR f.moment IS DISTINCT FROM k.moment OR f.placed_at IS DISTINCT FROM k.placed_at AS wrong
        FROM fresh_cell f FULL JOIN kept_cell k USING (customer_id, meter_id, hour, dimensions)
        WHERE NOT EXISTS (SELECT FROM dirty d WHERE d.customer_id = coalesce(f.customer_id, k.customer_id) AND d.meter_id = coalesce(f.meter_id, k.meter_id)
            AND d.stretches @> coalesce(f.hour, k.hour))
    ), fresh_value AS (
        -- Each value with its last operation, where the meter has them.
        SELECT DISTINCT ON (1, 2, 3, 4, 5) f.customer_id, f.meter_id, date_trunc('hour', f.bucket_start, 'UTC') AS hour, f.dimensions, v AS key,
            f.placed_at, f.event_key, CASE WHEN f.placed_at IS NOT NULL THEN f.quantity = 1 END AS present
        FROM fresh f, unnest(f.value_keys) v ORDER BY 1, 2, 3, 4, 5, f.placed_at DESC, f.event_key DESC, f.quantity
    ), kept_value AS (
        SELECT DISTINCT ON (1, 2, 3, 4, 5) u.customer_id, u.meter_id, date_trunc('hour', u.bucket_start, 'UTC') AS hour, u.dimensions, u.value_key AS key,
            u.placed_at, u.event_key, u.present
        FROM billing_internal.usage_distinct u JOIN billing.meter m USING (meter_id) WHERE u.bucket_start >= date_trunc('hour', since, 'UTC') AND m.counts
        ORDER BY 1, 2, 3, 4, 5, u.placed_at DESC, u.event_key DESC, u.present
    ), value AS (
        SELECT customer_id, meter_id, hour, dimensions, f.found IS NULL OR k.found IS NULL
            OR (f.placed_at, f.event_key, f.present) IS DISTINCT FROM (k.placed_at, k.event_key, k.present) AS wrong
        FROM (SELECT x.*, x.customer_id AS found FROM fresh_value x) f FULL JOIN (SELECT x.*, x.customer_id AS found FROM kept_value x) k USING (customer_id, meter_id, hour, dimensions, key)
        WHERE NOT EXISTS (SELECT FROM dirty d WHERE d.customer_id = coalesce(f.customer_id, k.customer_id) AND d.meter_id = coalesce(f.meter_id, k.meter_id)
            AND d.stretches @> coalesce(f.hour, k.hour))
    )
    SELECT 'usage: buckets and deltas equal a fresh aggregation of the events', count(*), count(*) FILTER (WHERE c.wrong),
        min(format('customer %s meter %s hour %s %s: %s events, buckets say %s', c.customer_id, c.meter_id, c.hour, c.dimensions, c.from_events, c.from_buckets)) FILTER (WHERE c.wrong)
    FROM cell c
    UNION ALL
    SELECT 'usage: distinct values equal those of the events', count(*), count(*) FILTER (WHERE v.wrong),
        min(format('customer %s meter %s hour %s %s', v.customer_id, v.meter_id, v.hour, v.dimensions)) FILTER (WHERE v.wrong)
    FROM value v
    UNION ALL
    SELECT 'usage: kept totals equal the buckets of their periods', count(*), count(*) FILTER (WHERE t.wrong),
        min(format('customer %s meter %s from %s until %s: %s events, buckets say %s', t.customer_id, t.meter_id, t.starts_at, t.ends_at, t.total, t.folded)) FILTER (WHERE t.wrong)
    FROM (
        SELECT w.customer_id, w.meter_id, w.starts_at, w.ends_at, coalesce(sum(x.total), 0) AS total, coalesce(sum(x.folded), 0) AS folded, coalesce(bool_or(x.wrong), false) AS wrong
        FROM (
            SELECT k.customer_id, k.meter_id, k.starts_at, k.ends_at, k.summed FROM billing.usage_window_kept k
            UNION ALL
            SELECT DISTINCT y.customer_id, y.meter_id, y.starts_at, y.ends_at, false FROM billing.usage_total y
            WHERE NOT EXISTS (SELECT FROM billing.usage_window_kept k WHERE k.customer_id = y.customer_id AND k.meter_id = y.meter_id AND k.starts_at = y.starts_at AND k.ends_at = y.ends_at)
        ) w
        LEFT JOIN LATERAL (
            SELECT u.events AS total, s.events AS folded, u.events IS DISTINCT FROM s.events OR u.quantity IS DISTINCT FROM s.quantity AS wrong
            FROM (SELECT * FROM billing.usage_total y WHERE y.customer_id = w.customer_id AND y.meter_id = w.meter_id AND y.starts_at = w.starts_at AND y.ends_at = w.ends_at) u
            FULL JOIN (SELECT * FROM billing_internal.usage_window_sums(w.customer_id, w.meter_id, w.starts_at, w.ends_at) z WHERE w.summed) s USING (dimension_set_id)) x ON true
        WHERE w.ends_at > since GROUP BY w.customer_id, w.meter_id, w.starts_at, w.ends_at
    ) t
    UNION ALL
    SELECT 'usage: every event has one key and every key its event', count(*), count(*) FILTER (WHERE k.customer_id IS NULL OR e.n IS DISTINCT FROM 1),
        min(format('customer %s event %s', coalesce(k.customer_id, e.customer_id), coalesce(k.event_key, e.event_key))) FILTER (WHERE k.customer_id IS NULL OR e.n IS DISTINCT FROM 1)
    FROM (SELECT x.customer_id, x.event_key, count(*) AS n FROM billing.usage_event x WHERE x.revision = 0 AND x.occurred_at >= since GROUP BY 1, 2) e
    FULL JOIN (SELECT x.customer_id, x.event_key, x.occurred_at FROM billing.usage_event_key x WHERE x.occurred_at >= since) k
        ON k.customer_id = e.customer_id AND k.event_key = e.event_key
    -- Keys outlive the events that retention removes, and don't say of which type they were.
    WHERE e.event_key IS NOT NULL OR k.occurred_at >= (SELECT coalesce(max(r.removed_until), '-infinity') FROM billing.event_retention r)
    UNION ALL
    SELECT 'usage: events, buckets and deltas point at customers, meters and dimensions that exist', count(*), count(*) FILTER (WHERE r.wrong), min(r.what) FILTER (WHERE r.wrong)
    FROM (
        SELECT c.customer_id IS NULL AS wrong, 'events of customer ' || e.customer_id AS what
        FROM (SELECT DISTINCT x.customer_id FROM billing.usage_event x WHERE x.occurred_at >= since) e LEFT JOIN billing.customer c USING (customer_id)
        UNION ALL
        SELECT m.meter_id IS NULL OR u.dimensions IS NULL, format('usage of customer %s on meter %s', u.customer_id, u.meter_id)
        FROM (SELECT DISTINCT x.customer_id, x.meter_id, x.dimensions FROM billing_internal.usage_cell x WHERE x.bucket_start >= since) u LEFT JOIN billing.meter m USING (meter_id)
        UNION ALL
        SELECT s.dimension_set_id IS NULL, format('bucket of customer %s names dimension set %s', b.customer_id, b.dimension_set_id)
        FROM (SELECT DISTINCT x.customer_id, x.dimension_set_id FROM billing.usage_bucket x WHERE x.bucket_start >= since) b LEFT JOIN billing.dimension_set s USING (customer_id, dimension_set_id)
    ) r
$$;
COMMENT ON FUNCTION billing_internal.verify_usage(timestamptz) IS 'The usage checks of verify().';

CREATE FUNCTION billing_internal.verify_contracts(since timestamptz) RETURNS TABLE (check_name text, checked bigint, failed bigint, example text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
    WITH period AS MATERIALIZED (
        SELECT p.customer_id, p.contract_id, p.n, p.starts_at FROM billing.billing_period p WHERE p.recorded_at >= since OR p.cut_at >= since
    ), agreed AS MATERIALIZED (
        -- activated, or given other terms
        SELECT p.customer_id, p.contract_id FROM period p WHERE p.n = 0 UNION SELECT v.customer_id, v.contract_id FROM billing.contract_version v WHERE v.recorded_at >= since
    )
    SELECT 'contracts: one event is priced by at most one charge of a meter', count(*), count(*) FILTER (WHERE c.other IS NOT NULL), min(format('%s and %s', c.mine, c.other)) FILTER (WHERE c.other IS NOT NULL)
    FROM (
        SELECT k.key || ' ' || a.charge_key AS mine, (SELECT j.key || ' ' || b.charge_key FROM billing.contract_charge b JOIN billing.contract j USING (customer_id, contract_id)
            WHERE b.customer_id = a.customer_id AND b.meter_id = a.meter_id AND b.kind = 'usage' AND b.until_version IS NULL AND b.valid_during && a.valid_during
                AND (b.contract_id, b.charge_key) <> (a.contract_id, a.charge_key) AND j.state IN ('scheduled', 'active', 'paused', 'ended', 'cancelled')
                AND NOT EXISTS (SELECT FROM jsonb_each_text(coalesce(a.terms->'match', '{}')) x JOIN jsonb_each_text(coalesce(b.terms->'match', '{}')) y USING (key) WHERE x.value <> y.value)
            LIMIT 1) AS other
        FROM agreed g JOIN billing.contract_charge a USING (customer_id, contract_id) JOIN billing.contract k USING (customer_id, contract_id)
        WHERE a.kind = 'usage' AND a.until_version IS NULL AND k.state IN ('scheduled', 'active', 'paused', 'ended', 'cancelled')
    ) c
    UNION ALL
    SELECT 'contracts: billing periods tile time, and the earliest due one is next', count(*), count(*) FILTER (WHERE p.wrong), min(p.what) FILTER (WHERE p.wrong)
    FROM (
        SELECT p.starts_at IS DISTINCT FROM CASE WHEN p.n = 0 THEN k.starts_at ELSE q.ends_at END AS wrong, format('contract %s period %s', k.key, p.n) AS what
        FROM period p JOIN billing.contract k USING (customer_id, contract_id)
        LEFT JOIN billing.billing_period q ON q.customer_id = p.customer_id AND q.contract_id = p.contract_id AND q.n = p.n - 1
        UNION ALL
        SELECT (k.next_bill_at IS NOT NULL AND (k.next_n, k.next_bill_at) IS DISTINCT FROM (d.n, d.starts_at)) OR (k.state IN ('ended', 'cancelled') AND d.n IS NOT NULL), format('contract %s next boundary %s', k.key, k.next_n)
        FROM (SELECT p.customer_id, p.contract_id FROM period p UNION SELECT c.customer_id, c.contract_id FROM billing.contract c WHERE c.created_at >= since) t
        JOIN billing.contract k USING (customer_id, contract_id)
        LEFT JOIN LATERAL (SELECT p.n, p.starts_at FROM billing.billing_period p WHERE p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.state = 'due' ORDER BY p.n LIMIT 1) d ON true
        WHERE k.state <> 'draft'
        UNION ALL
        SELECT NOT EXISTS (SELECT FROM billing.contract k WHERE k.customer_id = x.customer_id AND k.contract_id = x.contract_id AND k.key = x.key), format('contract key %s', x.key)
        FROM billing.contract_key x WHERE x.contract_id >= billing_internal.first_id(since)
    ) p
$$;
COMMENT ON FUNCTION billing_internal.verify_contracts(timestamptz) IS 'The contract checks of verify(): contracts made, activated, changed or billed since.';

CREATE FUNCTION billing_internal.verify_boundaries(
    of_customer_id bigint, of_contract_id uuid, contract text, boundaries int[],
    OUT seen bigint, OUT missing bigint, OUT missing_example text, OUT waiting bigint, OUT waiting_example text
)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    rebuilding boolean := EXISTS (SELECT FROM billing.meter_rebuild r WHERE r.finished_at IS NULL); -- which notes what it finds
    noted int[] := ARRAY(SELECT l.n FROM billing.late_usage l WHERE l.customer_id = of_customer_id AND l.contract_id = of_contract_id AND l.n = ANY (boundaries) AND l.closed_at IS NULL);
    -- As late_boundaries(): with these the next bill compares what comes after them.
    shared_from int := (SELECT min(l.n) FROM billing.late_usage l WHERE l.customer_id = of_customer_id AND l.contract_id = of_contract_id AND l.closed_at IS NULL
        AND (EXISTS (SELECT FROM billing.credit_grant g WHERE g.customer_id = of_customer_id)
            OR EXISTS (SELECT FROM billing.contract_term t WHERE t.customer_id = of_customer_id AND t.contract_id = of_contract_id AND t.kind = 'commitment')));
    x record;
    said text;
    detail text;
BEGIN
    seen := cardinality(boundaries); missing := 0; waiting := 0;
    FOR x IN SELECT u.n, u.line_key, trim_scale(u.quantity) AS quantity, u.amount FROM billing_internal.unbilled_usage(of_customer_id, of_contract_id, boundaries, '{"frozen": true}') u LOOP
        said := format('%s of contract %s boundary %s: %s%s, on no invoice yet', x.line_key, contract, x.n, coalesce('quantity ' || x.quantity || ', amount ', 'amount '), x.amount);
        IF rebuilding OR x.n = ANY (noted) OR x.n > shared_from THEN
            waiting := waiting + 1;
            waiting_example := coalesce(waiting_example, said);
        ELSE
            missing := missing + 1;
            missing_example := coalesce(missing_example, said);
        END IF;
    END LOOP;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    said := format('contract %s boundary %s: %s', contract, boundaries[1], SQLERRM);
    IF seen > 1 THEN
        SELECT sum(f.seen), sum(f.missing), min(f.missing_example), sum(f.waiting), min(f.waiting_example) INTO seen, missing, missing_example, waiting, waiting_example
        FROM unnest(boundaries) n CROSS JOIN LATERAL billing_internal.verify_boundaries(of_customer_id, of_contract_id, contract, ARRAY[n]) f;
    ELSIF noted <> '{}' AND (SQLSTATE = 'ZB007' OR detail = 'reason events_removed') THEN
        -- It can't be told yet, since no price matches, or any more: the next bill says so.
        waiting := 1;
        waiting_example := said;
    ELSIF detail = 'reason events_removed' THEN
        seen := 0;
    ELSE
        missing := 1;
        missing_example := said;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.verify_boundaries(bigint, uuid, text, int[]) IS
    'Computes billed boundaries of a contract again: what differs from what stands for them is waiting, if the next bill compares it (it is noted, or comes after a noted one with which it shares credit or a commitment), else missing. A noted one that can''t be computed (no price matches what came, or retention has removed events it needs) is waiting, too, once. seen: how many could be computed or are waiting; of one that is not noted and needs removed events nothing can be said.';

CREATE FUNCTION billing_internal.verify_invoices(since timestamptz) RETURNS TABLE (check_name text, checked bigint, failed bigint, example text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    first_id uuid := billing_internal.first_id(since);
    i record;
    seen bigint := 0;
    wrong bigint := 0;
    wrong_example text;
    late bigint := 0;
    late_seen bigint := 0;
    late_example text;
    waiting bigint := 0;
    waiting_example text;
    gone bigint := 0;
    gone_example text;
    detail text;
    found record;
BEGIN
    RETURN QUERY
    SELECT 'invoices: total = lines = document', count(*), count(*) FILTER (WHERE x.wrong), min(x.name) FILTER (WHERE x.wrong)
    FROM (
        SELECT coalesce(i.number, i.key) AS name, i.lines_total <> coalesce(l.amount, 0) OR i.total <> i.lines_total OR (i.document->'totals'->>'due')::numeric <> i.total - i.credits_applied
            OR l.lines IS DISTINCT FROM jsonb_array_length(i.document->'lines') OR l.keys IS DISTINCT FROM (SELECT array_agg(d->>'key') FROM jsonb_array_elements(i.document->'lines') d) AS wrong
        FROM billing.invoice i LEFT JOIN LATERAL (SELECT sum(x.amount) AS amount, count(*)::int AS lines, array_agg(x.key ORDER BY x.line_n) AS keys FROM billing.invoice_line x
            WHERE x.customer_id = i.customer_id AND x.invoice_id = i.invoice_id) l ON true
        WHERE i.invoice_id >= first_id
    ) x
    UNION ALL
    SELECT 'invoices: credits are what was drawn from blocks', count(*), count(*) FILTER (WHERE x.wrong), min(x.name) FILTER (WHERE x.wrong)
    FROM (
        SELECT coalesce(i.number, i.key) AS name, coalesce(a.drawn, 0) <> CASE WHEN i.state IN ('draft', 'void') THEN 0 ELSE coalesce(d.said, 0) END OR i.credits_applied <> coalesce(d.money, 0)
            OR i.credits_applied <> -(i.document->'totals'->>'credits')::numeric AS wrong
        FROM billing.invoice i
        LEFT JOIN LATERAL (SELECT sum(x.amount) AS drawn FROM billing.credit_allocation x WHERE x.customer_id = i.customer_id AND x.invoice_id = i.invoice_id) a ON true
        LEFT JOIN LATERAL (SELECT sum((c->>'amount')::numeric) AS said, sum((c->>'amount')::numeric) FILTER (WHERE NOT c ? 'unit') AS money
            FROM jsonb_array_elements(CASE jsonb_typeof(i.document->'credits') WHEN 'array' THEN i.document->'credits' ELSE '[]' END) c) d ON true
        WHERE i.invoice_id >= first_id
    ) x
    UNION ALL
    SELECT 'invoices: numbers have no gap and no duplicate', count(*), count(*) FILTER (WHERE x.wrong), min(x.name) FILTER (WHERE x.wrong)
    FROM (
        SELECT format('series %s %s', s.series, s.fiscal_year) AS name, s.last_number IS DISTINCT FROM (SELECT coalesce(max(x.counter), 0) FROM billing.invoice_number x
            WHERE x.seller_id = s.seller_id AND x.series = s.series AND x.fiscal_year = s.fiscal_year) AS wrong
        FROM billing.invoice_number_series s
        UNION ALL
        SELECT 'number ' || x.number, v.number IS DISTINCT FROM x.number
            OR x.counter > 1 AND NOT EXISTS (SELECT FROM billing.invoice_number y WHERE y.seller_id = x.seller_id AND y.series = x.series AND y.fiscal_year = x.fiscal_year AND y.counter = x.counter - 1)
        FROM billing.invoice_number x LEFT JOIN billing.invoice v ON v.customer_id = x.customer_id AND v.invoice_id = x.invoice_id
        WHERE x.invoice_id >= first_id
        UNION ALL
        SELECT 'invoice ' || v.number, NOT EXISTS (SELECT FROM billing.invoice_number x WHERE x.customer_id = v.customer_id AND x.invoice_id = v.invoice_id AND x.number = v.number)
        FROM billing.invoice v WHERE v.number IS NOT NULL AND v.invoice_id >= first_id AND NOT (v.number LIKE 'PREVIEW-%' AND billing_internal.travelling())
    ) x;
    -- What can't be computed any more is a failure of that invoice and hides no other.
    FOR i IN SELECT x.customer_id, x.invoice_id, x.number, x.cut_at, x.document FROM billing.invoice x WHERE x.state NOT IN ('draft', 'void') AND x.invoice_id >= first_id LOOP
        seen := seen + 1;
        BEGIN
            IF billing_internal.comparable(billing_internal.recomputed(i.customer_id, i.invoice_id, i.cut_at)) IS DISTINCT FROM billing_internal.comparable(i.document) THEN
                wrong := wrong + 1;
                wrong_example := coalesce(wrong_example, i.number);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            IF detail = 'reason events_removed' THEN
                seen := seen - 1;
                gone := gone + 1;
                gone_example := coalesce(gone_example, i.number);
            ELSE
                wrong := wrong + 1;
                wrong_example := coalesce(wrong_example, format('%s: %s', i.number, SQLERRM));
            END IF;
        END;
    END LOOP;
    -- Every boundary that was billed, or closed with nothing to bill, is computed again: what differs from what stands for it
    -- must be noted, so that the next bill has it.
    FOR i IN SELECT p.customer_id, p.contract_id, k.key, array_agg(p.n ORDER BY p.n) AS boundaries
        FROM billing.billing_period p JOIN billing.contract k USING (customer_id, contract_id)
        JOIN billing.billing_period q ON q.customer_id = p.customer_id AND q.contract_id = p.contract_id AND q.n = p.n - 1
        WHERE p.n > 0 AND p.state <> 'due' AND p.cut_at >= since GROUP BY p.customer_id, p.contract_id, k.key ORDER BY p.customer_id, p.contract_id LOOP
        SELECT * INTO found FROM billing_internal.verify_boundaries(i.customer_id, i.contract_id, i.key, i.boundaries);
        late_seen := late_seen + found.seen;
        late := late + found.missing;
        late_example := coalesce(late_example, found.missing_example);
        waiting := waiting + found.waiting;
        waiting_example := coalesce(waiting_example, found.waiting_example);
    END LOOP;
    RETURN QUERY VALUES ('invoices: recomputed from their events they are the same bytes', seen, wrong, wrong_example),
        ('invoices: late usage is billed', late_seen, late, late_example),
        -- No failures: what the next bill will have, and what nobody can check any more.
        ('invoices: late usage that waits for the next bill', waiting, 0::bigint, waiting_example),
        ('invoices: not recomputed, since retention has removed events of theirs', gone, 0::bigint, gone_example);
END
$$;
COMMENT ON FUNCTION billing_internal.verify_invoices(timestamptz) IS 'The invoice checks of verify(): invoices made and boundaries billed since.';

CREATE FUNCTION billing_internal.verify_credits(since timestamptz) RETURNS TABLE (check_name text, checked bigint, failed bigint, example text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
    WITH entry AS MATERIALIZED (
        SELECT e.customer_id, e.grant_id, e.transaction_id, e.unit, e.account, e.amount, e.invoice_id, e.line_key, e.draw_id FROM billing.credit_ledger_entry e WHERE e.recorded_at >= since
    ), block AS MATERIALIZED (
        SELECT e.customer_id, e.grant_id FROM entry e UNION SELECT g.customer_id, g.grant_id FROM billing.credit_grant g WHERE g.created_at >= since
        UNION SELECT b.customer_id, b.grant_id FROM billing.credit_block_balance b WHERE since <= '0001-01-01 00:00+00'
    )
    SELECT 'credits: every transaction sums to zero', count(*), count(*) FILTER (WHERE t.amount <> 0), min(format('transaction %s %s', t.transaction_id, t.unit)) FILTER (WHERE t.amount <> 0)
    FROM (SELECT e.transaction_id, e.unit, sum(e.amount) AS amount FROM entry e GROUP BY e.customer_id, e.transaction_id, e.unit) t
    UNION ALL
    SELECT 'credits: a block holds what its entries say, never below what it may', count(*), count(*) FILTER (WHERE x.wrong), min(format('block %s holds %s, its entries %s', coalesce(x.key, x.grant_id::text), x.posted, x.sum)) FILTER (WHERE x.wrong)
    FROM (
        SELECT k.grant_id, g.key, b.posted, s.sum, (b.posted = s.sum AND b.unit = g.unit AND g.amount = s.granted AND s.units AND s.used >= 0
            AND (b.posted - b.reserved >= 0 OR b.posted - b.reserved >= -g.overdraft)
            AND (g.voided_at IS NULL OR b.posted = 0) AND (g.expired_at IS NULL OR b.posted - b.reserved <= 0)) IS NOT TRUE AS wrong
        FROM block k
        LEFT JOIN billing.credit_grant g ON g.customer_id = k.customer_id AND g.grant_id = k.grant_id
        LEFT JOIN billing.credit_block_balance b ON b.customer_id = k.customer_id AND b.grant_id = k.grant_id
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(e.amount), 0) AS sum, coalesce(sum(e.amount) FILTER (WHERE e.kind IN ('granted', 'rolled_in')), 0) AS granted,
                coalesce(-sum(e.amount) FILTER (WHERE e.kind IN ('burnt', 'reinstated')), 0) AS used, coalesce(bool_and(e.unit = b.unit AND (e.amount > 0) = (e.kind IN ('granted', 'rolled_in', 'reinstated'))), true) AS units
            FROM billing.credit_ledger_entry e WHERE e.customer_id = k.customer_id AND e.grant_id = k.grant_id AND e.account = 'customer_balance') s
    ) x
    UNION ALL
    SELECT 'credits: what is pending by totals of periods is what bills would draw by hours', count(*), count(x.what), min(x.what)
    FROM (SELECT billing_internal.credit_pending_differs(o.customer_id, o.unit) AS what FROM (
        SELECT DISTINCT l.customer_id, l.unit FROM billing.credit_block_balance l
        WHERE l.open AND EXISTS (SELECT FROM billing.usage_window_kept w WHERE w.customer_id = l.customer_id AND w.ends_at > since)) o) x
    UNION ALL
    SELECT 'credits: what invoices and draws took is what the ledger says', count(*), count(*) FILTER (WHERE x.wrong), min(x.what) FILTER (WHERE x.wrong)
    FROM (
        SELECT sum(m.amount) <> 0 AS wrong, format('%s of invoice %s, block %s', m.line_key, m.invoice_id, m.grant_id) AS what
        FROM (
            SELECT a.customer_id, a.invoice_id, a.line_key, a.grant_id, a.amount FROM billing.credit_allocation a WHERE a.recorded_at >= since
            UNION ALL
            SELECT e.customer_id, e.invoice_id, e.line_key, e.grant_id, e.amount FROM entry e WHERE e.invoice_id IS NOT NULL AND e.account = 'customer_balance'
        ) m GROUP BY m.customer_id, m.invoice_id, m.line_key, m.grant_id
        UNION ALL
        SELECT sum(m.amount) <> 0, format('draw %s', m.draw_id)
        FROM (
            SELECT d.customer_id, d.draw_id, d.unit, d.amount FROM billing.credit_draw d WHERE d.recorded_at >= since
            UNION ALL
            SELECT e.customer_id, e.draw_id, e.unit, e.amount FROM entry e WHERE e.draw_id IS NOT NULL AND e.account = 'customer_balance'
        ) m GROUP BY m.customer_id, m.draw_id, m.unit
    ) x
$$;
COMMENT ON FUNCTION billing_internal.verify_credits(timestamptz) IS 'The credit checks of verify(): entries recorded since, and the blocks they are of.';

CREATE FUNCTION billing_internal.verify_entitlements(since timestamptz) RETURNS TABLE (check_name text, checked bigint, failed bigint, example text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
    WITH who AS MATERIALIZED (
        -- Of what is recent a sample: the customers whose contracts or exceptions changed last.
        SELECT x.customer_id FROM (
            SELECT v.customer_id, v.recorded_at FROM billing.contract_version v WHERE v.recorded_at >= since
            UNION ALL
            SELECT o.customer_id, o.created_at FROM billing.entitlement_override o WHERE o.created_at >= since
            UNION ALL
            SELECT s.customer_id, since FROM billing.entitlement_state s WHERE since < '0002-01-01 00:00+00') x
        GROUP BY x.customer_id ORDER BY max(x.recorded_at) DESC, x.customer_id LIMIT CASE WHEN since >= '0002-01-01 00:00+00' THEN 100 END
    ), wanted AS MATERIALIZED (
        SELECT w.customer_id, r.* FROM who w CROSS JOIN LATERAL billing_internal.entitlement_rows(billing_internal.entitlements_folded(coalesce(billing_internal.entitlement_sources(w.customer_id), '[]')::text)::jsonb) r
    ), kept AS MATERIALIZED (
        SELECT s.customer_id, s.feature_id, s.valid_during, s.suspended, s.value, s.quota, s.mode, s.resets, s.length, s.zone, s.starts_on, s.every, s.alignment, s.match, s.rollover, s.rate, s.source, s.heard
        FROM billing.entitlement_state s JOIN who USING (customer_id)
    ), wrong AS (
        (TABLE wanted EXCEPT TABLE kept) UNION ALL (TABLE kept EXCEPT TABLE wanted)
    )
    SELECT 'entitlements: what was compiled is what contracts and exceptions say', (SELECT count(*) FROM who), count(DISTINCT w.customer_id), min(format('customer %s feature %s %s', w.customer_id, f.key, w.valid_during))
    FROM wrong w LEFT JOIN billing.feature f USING (feature_id)
$$;
COMMENT ON FUNCTION billing_internal.verify_entitlements(timestamptz) IS 'The check of entitlements of verify(): of up to 100 customers whose contracts or exceptions changed since, or of all (since the beginning).';

CREATE FUNCTION billing.verify(scope text DEFAULT 'recent', since timestamptz DEFAULT NULL)
    RETURNS TABLE (check_name text, checked bigint, failed bigint, example text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.require_installed();
    IF scope IS NULL OR scope NOT IN ('recent', 'full') THEN
        PERFORM billing_internal.fail('ZB004', format('verify scope %s is not known', coalesce(quote_literal(scope), 'NULL')), 'Use recent or full.');
    END IF;
    since := CASE WHEN scope = 'full' THEN '0001-01-01 00:00+00' ELSE coalesce(since, least(billing.now(), clock_timestamp()) - interval '35 days') END;
    RETURN QUERY SELECT * FROM billing_internal.verify_foundation();
    RETURN QUERY SELECT * FROM billing_internal.verify_usage(since);
    RETURN QUERY SELECT * FROM billing_internal.verify_contracts(since);
    RETURN QUERY SELECT * FROM billing_internal.verify_invoices(since);
    RETURN QUERY SELECT * FROM billing_internal.verify_credits(since);
    RETURN QUERY SELECT * FROM billing_internal.verify_entitlements(since);
    RETURN QUERY
    SELECT 'audit: the sealed chain is unbroken', (SELECT count(*) FROM billing.audit_log a WHERE a.audit_id >= billing_internal.first_id(since)), count(*), min(v.fault) FROM billing_internal.audit_faults(since) v;
    RETURN QUERY
    SELECT 'security: row security is forced on every customer''s table', count(*), count(*) FILTER (WHERE NOT (c.relrowsecurity AND c.relforcerowsecurity)),
        min(t.table_name) FILTER (WHERE NOT (c.relrowsecurity AND c.relforcerowsecurity))
    FROM billing_internal.table_kind t JOIN pg_class c ON c.oid = t.table_name::regclass WHERE t.kind IN ('customer-owned', 'directory');
END
$$;
COMMENT ON FUNCTION billing.verify(text, timestamptz) IS
    'Checks what always holds: usage against events, charges, periods, invoices against their events, numbers, credits against their ledger, compiled entitlements against contracts, the audit chain, row security, names, roles and logins. Clean = failed is 0 in every row; example names one failure. scope recent looks at usage, contracts, invoices and audit entries since an instant (default 35 days ago), full at everything. Changes nothing. Errors: ZB004.';

-- Credits: what blocks there are, how they come into being, what bills open them with and post to them.
--
-- Whoever changes what a block holds has its row of credit_block_balance locked, those of a customer by grant_id
-- ascending, and adds the entries that say why in the same statement. Locks of blocks come after those of customer,
-- contract and stripe, before the number series.

-- ── leaves ───────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.credit_document(kind text, doc text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'credit_document_wrapper';
COMMENT ON FUNCTION billing_internal.credit_document(text, text) IS 'The canonical text of a credit document whose form is right, else NULL. Kinds: grant, purchase, top_up_rule, draw.';

CREATE FUNCTION billing_internal.credit_document_error(kind text, doc text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'credit_document_error_wrapper';
COMMENT ON FUNCTION billing_internal.credit_document_error(text, text) IS 'The fault that credit_document() found, as JSON.';

CREATE FUNCTION billing_internal.credit_block_error(block text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'credit_block_error_wrapper';
COMMENT ON FUNCTION billing_internal.credit_block_error(text) IS 'Why a block, as credit_opens() writes it, can''t be, as JSON; NULL if it can.';

CREATE FUNCTION billing_internal.credit_allot(credit_order text, doc text, at timestamptz, amount numeric, blocks text) RETURNS TABLE (grant_id uuid, amount numeric)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 2 AS 'MODULE_PATHNAME', 'credit_allot_wrapper';
COMMENT ON FUNCTION billing_internal.credit_allot(text, text, timestamptz, numeric, text) IS 'What a draw takes from each of a list of blocks (as credit_opens() writes them), in burn order: filtered by scope and time, sorted by the order (NULL = the default), all of the amount or no row.';

CREATE FUNCTION billing_internal.credit_allot_error(credit_order text, doc text, at timestamptz, amount numeric, blocks text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'credit_allot_error_wrapper';
COMMENT ON FUNCTION billing_internal.credit_allot_error(text, text, timestamptz, numeric, text) IS 'Why credit_allot() could not decide, as JSON; NULL where it did.';

CREATE FUNCTION billing_internal.credit_release(paid numeric, credits numeric, before numeric, leaving numeric, minor_units int, rounding_mode text) RETURNS numeric
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'credit_release_wrapper';
COMMENT ON FUNCTION billing_internal.credit_release(numeric, numeric, numeric, numeric, int, text) IS 'The money that leaves a pool (paid, credits) with so many credits, others having left it before: round(paid × (before + leaving) ÷ credits) − round(paid × before ÷ credits), so all parts sum to what was paid. NULL where credit_release_error() says why.';

CREATE FUNCTION billing_internal.credit_release_error(paid numeric, credits numeric, before numeric, leaving numeric, minor_units int, rounding_mode text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'credit_release_error_wrapper';
COMMENT ON FUNCTION billing_internal.credit_release_error(numeric, numeric, numeric, numeric, int, text) IS 'The fault that credit_release() found, as JSON.';

CREATE FUNCTION billing_internal.credit_absorb(left_over numeric, owed numeric, draws text) RETURNS TABLE (line text, quantity numeric, amount numeric)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 2 AS 'MODULE_PATHNAME', 'credit_absorb_wrapper';
COMMENT ON FUNCTION billing_internal.credit_absorb(numeric, numeric, text) IS 'Which draws of a block that owes so much move to one that holds so much: those that went furthest into debt first. draws: what the block gave, [[line, quantity, amount], …] in burn order. No row where credit_absorb_error() says why.';

CREATE FUNCTION billing_internal.credit_absorb_error(left_over numeric, owed numeric, draws text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'credit_absorb_error_wrapper';
COMMENT ON FUNCTION billing_internal.credit_absorb_error(numeric, numeric, text) IS 'The fault that credit_absorb() found, as JSON.';

CREATE FUNCTION billing_internal.top_up_look(
    mode text, threshold numeric, amount numeric, monthly_cap numeric, crossings bigint, below boolean, waiting boolean, month date, bought numeric, balance numeric, today date
) RETURNS TABLE (crossings bigint, below boolean, waiting boolean, month date, bought numeric, buys numeric, crossing bigint)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'top_up_look_wrapper';
COMMENT ON FUNCTION billing_internal.top_up_look(text, numeric, numeric, numeric, bigint, boolean, boolean, date, numeric, numeric, date) IS 'What a top-up rule remembers after it looked at a balance, and how much it buys then, for which crossing (NULL = nothing). No row where top_up_look_error() says why.';

CREATE FUNCTION billing_internal.top_up_look_error(
    mode text, threshold numeric, amount numeric, monthly_cap numeric, crossings bigint, below boolean, waiting boolean, month date, bought numeric, balance numeric, today date
) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'top_up_look_error_wrapper';
COMMENT ON FUNCTION billing_internal.top_up_look_error(text, numeric, numeric, numeric, bigint, boolean, boolean, date, numeric, numeric, date) IS 'The fault that top_up_look() found, as JSON.';

-- ── the form of things ───────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.read_credit_document(kind text, doc jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text;
BEGIN
    IF doc IS NULL THEN
        PERFORM billing_internal.fail('ZB003', format('the document of the %s is NULL', replace(kind, '_', ' ')), 'Pass a JSON object.');
    END IF;
    result := billing_internal.credit_document(kind, doc::text);
    IF result IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.credit_document_error(kind, doc::text)::jsonb);
    END IF;
    RETURN result::jsonb;
END
$$;
COMMENT ON FUNCTION billing_internal.read_credit_document(text, jsonb) IS 'Checks the form of a credit document. Errors: ZB003 with the JSON path, ZB004.';

CREATE FUNCTION billing_internal.unit_places(of_unit text, on_day date) RETURNS int
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce((SELECT u.minor_units FROM billing.currency u WHERE u.code = of_unit AND u.valid_from <= on_day AND (u.valid_until IS NULL OR on_day < u.valid_until)), 12);
END
$$;
COMMENT ON FUNCTION billing_internal.unit_places(text, date) IS 'Decimals of credit in a unit: a currency''s minor units, 12 of any other.';

CREATE FUNCTION billing_internal.check_places(amount numeric, of_unit text, what text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    places int := billing_internal.unit_places(of_unit, (billing.now() AT TIME ZONE 'UTC')::date);
BEGIN
    IF amount IN ('NaN', 'Infinity', '-Infinity') OR amount <> round(amount, places) OR abs(amount) >= 1e16 THEN
        PERFORM billing_internal.fail('ZB004', format('%s %s is no amount of %s', what, amount, of_unit),
            format('%s is counted to %s decimals, below 10,000,000,000,000,000. For smaller parts count in a unit of your own, such as credits.', of_unit, places));
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_places(numeric, text, text) IS 'Errors: ZB004 an amount that credit of a unit is not counted in.';

CREATE FUNCTION billing_internal.credit_moment(moment text, zone text) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN length(moment) = 10 THEN billing_internal.local_midnight(moment::date, zone) ELSE moment::timestamptz END;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_moment(text, text) IS 'An instant, or the first instant of a local date.';

CREATE FUNCTION billing_internal.credit_after(at timestamptz, length text, zone text) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (at AT TIME ZONE zone + length::interval) AT TIME ZONE zone;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_after(timestamptz, text, text) IS 'An instant so many local days, months or years later; NULL for NULL. 31 January + 1 month = 28 February.';

CREATE FUNCTION billing_internal.credit_scope(scope jsonb, zone text) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF scope ? 'windows' THEN
        RETURN scope || jsonb_build_object('windows', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'from', billing_internal.rfc3339(billing_internal.credit_moment(w.value->>'from', zone)),
                'until', billing_internal.rfc3339(billing_internal.credit_moment(w.value->>'until', zone))) ORDER BY w.place), '[]')
            FROM jsonb_array_elements(scope->'windows') WITH ORDINALITY w (value, place)));
    END IF;
    RETURN coalesce(scope, '{}');
END
$$;
COMMENT ON FUNCTION billing_internal.credit_scope(jsonb, text) IS 'A scope as it is stored: local dates of its windows become instants.';

CREATE FUNCTION billing_internal.rfc3339(at timestamptz) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE -- inlined, so no search_path
    RETURN pg_catalog.to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
COMMENT ON FUNCTION billing_internal.rfc3339(timestamptz) IS 'An instant as Rust reads it.';

-- ── blocks as Rust reads them ────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.credit_opened(of_customers bigint[], with_spent boolean) RETURNS TABLE (customer_id bigint, grant_id uuid, contract_id uuid, unit text, block text)
    LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT g.customer_id, g.grant_id, g.contract_id, g.unit, jsonb_strip_nulls(jsonb_build_object(
        'id', g.grant_id, 'unit', g.unit, 'category', g.category, 'granted', g.amount::text,
        'pool', CASE WHEN p.pool_id IS NOT NULL THEN jsonb_build_object('id', p.pool_id, 'currency', p.currency, 'paid', p.paid::text, 'credits', p.credits::text) END,
        'priority', g.priority, 'scope', g.scope, 'effective_at', billing_internal.rfc3339(g.effective_at), 'expires_at', billing_internal.rfc3339(g.expires_at),
        'rollover', CASE WHEN g.rollover IS NOT NULL THEN jsonb_build_object('cap', g.rollover->>'cap') END,
        'overdraft', CASE WHEN g.overdraft = 'Infinity' THEN 'unlimited' ELSE g.overdraft::text END, 'rolled_from', g.rolled_from, 'left', (b.posted - b.reserved)::text))::text
    FROM billing.credit_block_balance b
    JOIN billing.credit_grant g USING (customer_id, grant_id)
    LEFT JOIN billing.credit_pool p USING (customer_id, pool_id)
    WHERE b.customer_id = ANY (of_customers) AND (with_spent OR g.voided_at IS NULL AND (b.open OR g.overdraft IS NOT NULL))
    ORDER BY g.customer_id, g.grant_id;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_opened(bigint[], boolean) IS
    'The blocks of customers, as Block::read() reads them, with what is left (posted − reserved), in the caller''s snapshot. Only those that hold something or may be overdrawn; with_spent: all there ever were, for boundaries that are settled again.';

CREATE FUNCTION billing_internal.credit_opens(of_customers bigint[], for_update boolean DEFAULT false, with_spent boolean DEFAULT false)
    RETURNS TABLE (customer_id bigint, grant_id uuid, contract_id uuid, unit text, block text)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    IF for_update THEN
        PERFORM FROM billing.credit_block_balance b WHERE b.customer_id = ANY (of_customers) AND (b.open OR with_spent) ORDER BY b.customer_id, b.grant_id FOR UPDATE;
    END IF;
    RETURN QUERY SELECT * FROM billing_internal.credit_opened(of_customers, with_spent);
END
$$;
COMMENT ON FUNCTION billing_internal.credit_opens(bigint[], boolean, boolean) IS
    'As credit_opened(). for_update locks the blocks first, by customer and id: what is read then is what is posted. Not STABLE, so that it sees what it locked.';

-- ── the ledger ───────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.credit_book(of_customer_id bigint, of_grant_id uuid, of_kind text, of_amount numeric, at timestamptz,
    why text DEFAULT NULL, of_transaction uuid DEFAULT NULL, of_money numeric DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    signed numeric := CASE WHEN of_kind IN ('granted', 'rolled_in', 'reinstated') THEN of_amount ELSE -of_amount END;
    left_over numeric;
BEGIN
    of_transaction := coalesce(of_transaction, billing_internal.uuid_v7());
    WITH b AS (
        UPDATE billing.credit_block_balance b SET posted = b.posted + signed, open = b.posted + signed <> 0 OR b.reserved <> 0
        FROM billing.credit_grant g
        WHERE b.customer_id = of_customer_id AND b.grant_id = of_grant_id AND g.customer_id = b.customer_id AND g.grant_id = b.grant_id
        -- What is taken back before it begins never was there.
        RETURNING b.unit, b.posted - b.reserved AS left_over, greatest(credit_book.at, g.effective_at) AS at
    ), entries AS (
        INSERT INTO billing.credit_ledger_entry (customer_id, grant_id, entry_id, transaction_id, kind, account, unit, amount, occurred_at, recorded_at, money, reason)
        SELECT of_customer_id, of_grant_id, billing_internal.uuid_v7(), of_transaction, of_kind, e.account, b.unit, e.amount, b.at, clock_timestamp(), e.money, why
        FROM b CROSS JOIN (VALUES ('customer_balance', signed, of_money),
            -- The other side of what moves between blocks is the other block's.
            (CASE WHEN of_kind IN ('burnt', 'reinstated') THEN 'consumed' WHEN of_kind = 'expired' THEN 'expired' WHEN of_kind NOT IN ('rolled_in', 'rolled_out') THEN 'issued' END, -signed, NULL)) e (account, amount, money)
        WHERE e.account IS NOT NULL
    )
    SELECT b.left_over INTO left_over FROM b;
    IF signed < 0 AND left_over < 0 THEN
        PERFORM billing_internal.fail('ZB014', format('%s can''t be %s: %s is left in block %s', of_amount, replace(of_kind, '_', ' '), left_over + of_amount, of_grant_id));
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_book(bigint, uuid, text, numeric, timestamptz, text, uuid, numeric) IS 'One movement of one block, whose row is locked or new: both entries and what the block holds then. The amount is above zero, the kind says where it goes. Errors: ZB014 more than is left.';

CREATE FUNCTION billing_internal.credits_redirected(posts jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    -- Nearly always nobody was in debt.
    IF NOT EXISTS (SELECT FROM jsonb_to_recordset(posts) p (customer_id bigint, grant_id uuid) JOIN billing.credit_allocation a ON a.customer_id = p.customer_id AND a.absorbed_from = p.grant_id) THEN
        RETURN posts;
    END IF;
    RETURN (
        WITH post AS (
            -- Rows of one line and block stand behind each other, and so do the blocks that paid: what overlaps is theirs.
            SELECT x.value, x.place, p.*, coalesce(sum(abs(p.amount)) OVER (PARTITION BY p.customer_id, p.contract_id, p.n, p.bill_to, p.line_key, p.grant_id, sign(p.amount)
                ORDER BY x.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS begins
            FROM jsonb_array_elements(posts) WITH ORDINALITY x (value, place)
            CROSS JOIN LATERAL jsonb_to_record(x.value) p (customer_id bigint, contract_id uuid, n int, bill_to text, line_key text, grant_id uuid, quantity numeric, amount numeric)
        ), moved AS (
            SELECT a.customer_id, a.contract_id, a.n, a.bill_to, a.line_key, a.absorbed_from, a.grant_id, sum(a.amount) AS amount, max(a.recorded_at) AS at
            FROM billing.credit_allocation a WHERE a.absorbed_from IS NOT NULL AND (a.customer_id, a.absorbed_from) IN (SELECT p.customer_id, p.grant_id FROM post p)
            GROUP BY a.customer_id, a.contract_id, a.n, a.bill_to, a.line_key, a.absorbed_from, a.grant_id HAVING sum(a.amount) <> 0
        ), stretch AS (
            SELECT m.*, sum(abs(m.amount)) OVER (PARTITION BY m.customer_id, m.contract_id, m.n, m.bill_to, m.line_key, m.absorbed_from, sign(m.amount) ORDER BY m.at DESC, m.grant_id) - abs(m.amount) AS begins FROM moved m
        ), part AS (
            SELECT p.place, s.grant_id, s.absorbed_from, s.begins, least(p.begins + abs(p.amount), s.begins + abs(s.amount)) - greatest(p.begins, s.begins) AS amount
            FROM post p JOIN stretch s ON (s.customer_id, s.contract_id, s.n, s.bill_to, s.line_key, s.absorbed_from) = (p.customer_id, p.contract_id, p.n, p.bill_to, p.line_key, p.grant_id)
                AND sign(s.amount) = -sign(p.amount)
        ), cut AS (
            SELECT p.place, x.begins, p.value, x.grant_id, x.absorbed_from, sign(p.amount) * x.amount AS amount, round(p.quantity * x.amount / abs(p.amount), 12) AS quantity
            FROM post p JOIN part x USING (place) WHERE x.amount > 0
        )
        SELECT jsonb_agg(r.value ORDER BY r.place, r.begins) FROM (
            SELECT c.place, c.begins, c.value || jsonb_build_object('grant_id', c.grant_id, 'absorbed_from', c.absorbed_from, 'amount', c.amount, 'quantity', c.quantity) AS value FROM cut c
            UNION ALL
            SELECT p.place, 'Infinity', p.value || jsonb_build_object('amount', p.amount - coalesce(c.amount, 0), 'quantity', p.quantity - coalesce(c.quantity, 0))
            FROM post p LEFT JOIN (SELECT x.place, sum(x.amount) AS amount, sum(x.quantity) AS quantity FROM cut x GROUP BY x.place) c USING (place)
            WHERE p.amount <> coalesce(c.amount, 0)
        ) r);
END
$$;
COMMENT ON FUNCTION billing_internal.credits_redirected(jsonb) IS
    'Posts (as credits_post() takes them) of lines whose debt was paid off: what such a line gives back to the block that owed goes to the blocks that paid, the last first, as much as they paid; where they were given more than that, it is drawn there again.';

CREATE FUNCTION billing_internal.credit_debts_pay(of_customer_id bigint, of_unit text) RETURNS numeric
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    now_at timestamptz := billing.now();
    held uuid[];
    debtor record;
    lender record;
    of_draws text;
    reach numeric;
    owed numeric;
    part numeric;
    paid numeric := 0;
BEGIN
    -- Nearly always nobody is in debt: only blocks with an overdraft can be.
    IF NOT EXISTS (SELECT FROM billing.credit_grant g JOIN billing.credit_block_balance b USING (customer_id, grant_id)
            WHERE g.customer_id = of_customer_id AND g.overdraft IS NOT NULL AND g.unit = of_unit AND b.posted < b.reserved) THEN
        RETURN 0;
    END IF;
    -- The caller has locked what there was. Whoever may hold the number series waits for no block that came since: the job has it.
    SELECT array_agg(l.grant_id) INTO held FROM (SELECT x.grant_id FROM billing.credit_block_balance x WHERE x.customer_id = of_customer_id AND x.unit = of_unit AND x.open
        ORDER BY x.grant_id FOR UPDATE SKIP LOCKED) l;
    FOR debtor IN SELECT g.grant_id, g.scope, b.reserved - b.posted AS owed FROM billing.credit_block_balance b JOIN billing.credit_grant g USING (customer_id, grant_id)
        WHERE b.customer_id = of_customer_id AND b.grant_id = ANY (held) AND b.posted < b.reserved ORDER BY g.effective_at, g.grant_id LOOP
        owed := debtor.owed;
        FOR lender IN SELECT g.grant_id, g.contract_id, l.posted - l.reserved AS left_over FROM billing.credit_block_balance l JOIN billing.credit_grant g USING (customer_id, grant_id)
            WHERE l.customer_id = of_customer_id AND l.grant_id = ANY (held) AND l.posted > l.reserved AND g.effective_at <= now_at AND (g.expires_at > now_at) IS NOT FALSE
                AND g.scope IN ('{}', debtor.scope)
            ORDER BY g.priority, g.expires_at, array_position('{promotional,pilot,paid}'::text[], g.category), g.effective_at, g.grant_id LOOP
            EXIT WHEN owed = 0;
            -- What stands drawn from the block that owes, of the contracts that the other one pays for.
            SELECT jsonb_agg(jsonb_build_array(d.ids::text, coalesce(d.quantity, 0)::text, d.amount::text) ORDER BY d.at, d.place)::text, coalesce(sum(d.amount), 0) INTO of_draws, reach
            FROM (
                SELECT jsonb_build_object('customer_id', x.customer_id, 'invoice_id', x.invoice_id, 'contract_id', x.contract_id, 'n', x.n, 'bill_to', x.bill_to, 'line_key', x.line_key) AS ids,
                    sum(x.quantity) AS quantity, sum(x.amount) AS amount, max(x.recorded_at) AS at, max(x.place) AS place
                FROM billing.credit_allocation x WHERE x.customer_id = of_customer_id AND x.grant_id = debtor.grant_id AND (lender.contract_id IS NULL OR x.contract_id = lender.contract_id)
                GROUP BY x.customer_id, x.invoice_id, x.contract_id, x.n, x.bill_to, x.line_key HAVING sum(x.amount) > 0
            ) d;
            part := least(owed, lender.left_over, reach);
            CONTINUE WHEN part <= 0;
            PERFORM billing_internal.raise_fault(billing_internal.credit_absorb_error(part, part, of_draws)::jsonb);
            PERFORM billing_internal.credits_post(jsonb_agg(m.line::jsonb || jsonb_build_object('occurred_at', now_at, 'grant_id', y.grant_id, 'quantity', y.sign * m.quantity, 'amount', y.sign * m.amount,
                    'absorbed_from', CASE WHEN y.sign > 0 THEN debtor.grant_id END) ORDER BY m.place, y.sign), true)
            FROM billing_internal.credit_absorb(part, part, of_draws) WITH ORDINALITY m (line, quantity, amount, place)
            CROSS JOIN (VALUES (debtor.grant_id, -1), (lender.grant_id, 1)) y (grant_id, sign);
            owed := owed - part;
            paid := paid + part;
        END LOOP;
    END LOOP;
    RETURN paid;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_debts_pay(bigint, text) IS
    'Pays off what blocks of a unit owe from those that hold something, have begun and not ended, and pay for all usage (or have the debtor''s scope): the oldest debt first, in draw order. The draws that went furthest into debt move with their lines: reinstated there, burnt here, at this block''s cost basis; a void gives them back here. The customer''s blocks are locked. Returns how much.';

CREATE FUNCTION billing_internal.credits_post(posts jsonb, as_said boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    short record;
    d record;
BEGIN
    IF jsonb_array_length(posts) = 0 THEN
        RETURN;
    END IF;
    PERFORM FROM billing.credit_block_balance b
    WHERE (b.customer_id, b.grant_id) IN (SELECT p.customer_id, p.grant_id FROM jsonb_to_recordset(posts) p (customer_id bigint, grant_id uuid))
    ORDER BY b.customer_id, b.grant_id FOR UPDATE;
    IF NOT as_said THEN
        posts := billing_internal.credits_redirected(posts);
        PERFORM FROM billing.credit_block_balance b
        WHERE (b.customer_id, b.grant_id) IN (SELECT p.customer_id, p.grant_id FROM jsonb_to_recordset(posts) p (customer_id bigint, grant_id uuid))
        ORDER BY b.customer_id, b.grant_id FOR UPDATE;
    END IF;
    WITH moved AS (
        SELECT p.customer_id, p.grant_id, sum(p.amount) AS amount FROM jsonb_to_recordset(posts) p (customer_id bigint, grant_id uuid, amount numeric) GROUP BY p.customer_id, p.grant_id
    )
    SELECT m.amount, coalesce(b.posted - b.reserved, 0) AS left_over, coalesce(g.key, m.grant_id::text) AS key INTO short
    FROM moved m LEFT JOIN billing.credit_block_balance b USING (customer_id, grant_id) LEFT JOIN billing.credit_grant g USING (customer_id, grant_id)
    WHERE b.grant_id IS NULL OR (m.amount > 0 AND b.posted - b.reserved - m.amount < -coalesce(g.overdraft, 0)) LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB014', format('block %s has %s left, not the %s that its lines draw', short.key, short.left_over, short.amount), 'Bill again: what it held has changed.');
    END IF;
    WITH post AS MATERIALIZED (
        SELECT p.*, x.place::int AS place, billing_internal.uuid_v7() AS allocation_id, clock_timestamp() AS recorded_at, coalesce(p.occurred_at, billing.now()) AS at
        FROM jsonb_array_elements(posts) WITH ORDINALITY x (value, place)
        CROSS JOIN LATERAL jsonb_to_record(x.value) p (customer_id bigint, invoice_id uuid, contract_id uuid, n int, bill_to text, line_key text, grant_id uuid, quantity numeric, amount numeric, occurred_at timestamptz,
            absorbed_from uuid)
        WHERE p.amount <> 0
    ), allocated AS (
        INSERT INTO billing.credit_allocation (customer_id, allocation_id, invoice_id, contract_id, n, bill_to, line_key, grant_id, quantity, amount, place, recorded_at, absorbed_from)
        SELECT p.customer_id, p.allocation_id, p.invoice_id, p.contract_id, p.n, p.bill_to, p.line_key, p.grant_id, p.quantity, p.amount, p.place, p.recorded_at, p.absorbed_from FROM post p
    ), block AS MATERIALIZED (
        -- A block whose end was posted keeps nothing that comes back, but what pays off its debt.
        SELECT m.customer_id, m.grant_id, b.unit, b.posted - m.amount AS posted, m.at, billing_internal.uuid_v7() AS transaction_id,
            CASE WHEN g.expired_at IS NOT NULL THEN greatest(least(b.posted - m.amount, m.back), 0) ELSE 0 END AS expires
        FROM (SELECT p.customer_id, p.grant_id, sum(p.amount) AS amount, -coalesce(sum(p.amount) FILTER (WHERE p.amount < 0), 0) AS back, max(p.at) AS at FROM post p GROUP BY p.customer_id, p.grant_id) m
        JOIN billing.credit_block_balance b USING (customer_id, grant_id) JOIN billing.credit_grant g USING (customer_id, grant_id)
    ), entries AS (
        INSERT INTO billing.credit_ledger_entry (customer_id, grant_id, entry_id, transaction_id, kind, account, unit, amount, occurred_at, recorded_at, invoice_id, line_key)
        SELECT p.customer_id, p.grant_id, billing_internal.uuid_v7(), p.allocation_id, CASE WHEN p.amount > 0 THEN 'burnt' ELSE 'reinstated' END, e.account, k.unit, e.sign * p.amount,
            p.at, p.recorded_at, p.invoice_id, p.line_key
        -- What is given back first.
        FROM (SELECT * FROM post ORDER BY amount > 0, place) p JOIN block k USING (customer_id, grant_id) CROSS JOIN (VALUES ('customer_balance', -1), ('consumed', 1)) e (account, sign)
        UNION ALL
        SELECT k.customer_id, k.grant_id, billing_internal.uuid_v7(), k.transaction_id, 'expired', e.account, k.unit, e.sign * k.expires, k.at, clock_timestamp(), NULL, NULL
        FROM block k CROSS JOIN (VALUES ('customer_balance', -1), ('expired', 1)) e (account, sign) WHERE k.expires > 0
    )
    UPDATE billing.credit_block_balance b SET posted = k.posted - k.expires, open = k.posted - k.expires <> 0 OR b.reserved <> 0
    FROM block k WHERE b.customer_id = k.customer_id AND b.grant_id = k.grant_id;
    -- What they drew beyond what blocks held, other credit pays off that is there.
    FOR d IN SELECT DISTINCT b.customer_id, b.unit FROM jsonb_to_recordset(posts) p (customer_id bigint, grant_id uuid, amount numeric) JOIN billing.credit_block_balance b USING (customer_id, grant_id)
        WHERE p.amount > 0 AND b.posted < b.reserved AND NOT as_said ORDER BY b.customer_id, b.unit LOOP
        PERFORM billing_internal.credit_debts_pay(d.customer_id, d.unit);
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.credits_post(jsonb, boolean) IS
    'Posts what the lines of invoices drew from blocks (amount above zero) or give back (below): [{"customer_id","invoice_id","contract_id","n","bill_to","line_key","grant_id","quantity","amount","occurred_at"}], in burn order. Allocations, ledger entries and balances, of the whole batch in one statement; blocks are locked first. What comes back to a block whose end was posted expires at once. What is given back (or drawn again) of draws whose debt other blocks have paid is theirs, as credits_redirected() finds; as_said: not so, and "absorbed_from" is what the rows say. Errors: ZB014 a block would fall below zero, or below its overdraft.';

-- ── pending ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.credit_pending(of_customer_id bigint, of_unit text) RETURNS TABLE (grant_id uuid, amount numeric)
    LANGUAGE plpgsql STABLE ROWS 2 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    IF EXISTS (SELECT FROM billing.contract_charge h WHERE h.customer_id = of_customer_id AND h.kind = 'usage' AND h.until_version IS NULL) THEN
        RETURN QUERY SELECT * FROM billing_internal.credit_pending_usage(of_customer_id, of_unit);
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_pending(bigint, text) IS 'What usage that is not billed yet would draw from each block of a unit now, in the caller''s snapshot. Nothing for customers without a usage charge.';

-- ── new blocks ───────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.credit_grant_make(
    of_customer_id bigint, of_key text, of_contract_id uuid, of_pool_id uuid, of_unit text, of_category text, of_amount numeric, of_terms jsonb,
    of_effective_at timestamptz, of_expires_at timestamptz, of_source_key text DEFAULT NULL, why text DEFAULT NULL, of_rolled_from uuid DEFAULT NULL, carried numeric DEFAULT 0
) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id uuid := billing_internal.uuid_v7();
    block text;
BEGIN
    PERFORM billing_internal.check_places(of_amount, of_unit, 'amount:');
    PERFORM billing_internal.check_places(nullif(of_terms->>'overdraft', 'unlimited')::numeric, of_unit, 'overdraft:') WHERE of_terms->>'overdraft' <> 'unlimited';
    PERFORM billing_internal.check_places((of_terms->'rollover'->>'cap')::numeric, of_unit, 'rollover.cap:') WHERE of_terms->'rollover' ? 'cap';
    IF of_expires_at <= of_effective_at THEN
        PERFORM billing_internal.fail('ZB004', format('credit that takes effect at %s can''t expire at %s', of_effective_at, of_expires_at), 'It must expire after it takes effect; a date is its first instant.');
    END IF;
    INSERT INTO billing.credit_grant (customer_id, grant_id, key, contract_id, pool_id, unit, category, amount, priority, scope, effective_at, expires_at, rollover, overdraft,
        rolled_from, source_key, reason, created_at)
    VALUES (of_customer_id, id, of_key, of_contract_id, of_pool_id, of_unit, of_category, of_amount, coalesce((of_terms->>'priority')::int, 50), coalesce(of_terms->'scope', '{}'),
        of_effective_at, of_expires_at, of_terms->'rollover', CASE of_terms->>'overdraft' WHEN 'unlimited' THEN 'Infinity' ELSE (of_terms->>'overdraft')::numeric END,
        of_rolled_from, of_source_key, why, clock_timestamp())
    ON CONFLICT (customer_id, key) DO NOTHING;
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('key: credit %s exists', quote_literal(of_key)), 'Choose another key: a grant that exists never changes.');
    END IF;
    INSERT INTO billing.credit_block_balance (customer_id, grant_id, unit, places, posted, open)
    VALUES (of_customer_id, id, of_unit, billing_internal.unit_places(of_unit, (billing.now() AT TIME ZONE 'UTC')::date), 0, true);
    SELECT o.block INTO block FROM billing_internal.credit_opens(ARRAY[of_customer_id], false, true) o WHERE o.grant_id = id;
    PERFORM billing_internal.raise_fault(billing_internal.credit_block_error(block)::jsonb);
    IF of_amount > carried THEN
        PERFORM billing_internal.credit_book(of_customer_id, id, 'granted', of_amount - carried, of_effective_at, why);
    END IF;
    RETURN id;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_grant_make(bigint, text, uuid, uuid, text, text, numeric, jsonb, timestamptz, timestamptz, text, text, uuid, numeric) IS
    'Makes a block and posts its grant, but for what is carried here from other blocks. Terms: {"priority","scope","rollover","overdraft"}. Errors: ZB004 terms that can''t hold, ZB005 the key exists.';

CREATE FUNCTION billing_internal.credit_key(of_customer_id bigint, wanted text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    n int := 1;
    result text := wanted;
BEGIN
    WHILE EXISTS (SELECT FROM billing.credit_grant g WHERE g.customer_id = of_customer_id AND g.key = result) LOOP
        n := n + 1;
        result := wanted || '-' || n;
    END LOOP;
    RETURN result;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_key(bigint, text) IS 'The wanted key of a grant, or the next free one after it.';

CREATE FUNCTION billing_internal.credit_carry(of_customer_id bigint, from_grants uuid[], into_grant uuid, at timestamptz, why text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b record;
    of_transaction uuid;
BEGIN
    FOR b IN SELECT c.grant_id, c.amount FROM billing_internal.credit_free(of_customer_id, from_grants) c WHERE c.amount > 0 ORDER BY c.grant_id LOOP
        of_transaction := billing_internal.uuid_v7();
        PERFORM billing_internal.credit_book(of_customer_id, b.grant_id, 'rolled_out', b.amount, at, why, of_transaction);
        PERFORM billing_internal.credit_book(of_customer_id, into_grant, 'rolled_in', b.amount, at, why, of_transaction);
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_carry(bigint, uuid[], uuid, timestamptz, text) IS 'Moves what is free in blocks, which are locked, to another.';

CREATE FUNCTION billing_internal.credit_free(of_customer_id bigint, of_grants uuid[]) RETURNS TABLE (grant_id uuid, amount numeric)
    LANGUAGE plpgsql STABLE ROWS 2 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT b.grant_id, b.posted - b.reserved - coalesce(p.amount, 0)
    FROM billing.credit_block_balance b
    LEFT JOIN (SELECT x.grant_id, sum(x.amount) AS amount FROM (SELECT DISTINCT u.unit FROM billing.credit_block_balance u WHERE u.customer_id = of_customer_id AND u.grant_id = ANY (of_grants)) u
        CROSS JOIN LATERAL billing_internal.credit_pending(of_customer_id, u.unit) x GROUP BY x.grant_id) p USING (grant_id)
    WHERE b.customer_id = of_customer_id AND b.grant_id = ANY (of_grants);
END
$$;
COMMENT ON FUNCTION billing_internal.credit_free(bigint, uuid[]) IS 'What of blocks is neither reserved nor pending.';

CREATE FUNCTION billing_internal.credits_to_carry(of_customer_id bigint, of_contract text, of_unit text, at timestamptz) RETURNS TABLE (grant_id uuid, amount numeric)
    LANGUAGE plpgsql STABLE ROWS 2 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT f.grant_id, f.amount FROM billing.contract c JOIN billing.credit_grant x USING (customer_id, contract_id)
    CROSS JOIN LATERAL billing_internal.credit_free(x.customer_id, ARRAY[x.grant_id]) f
    WHERE c.customer_id = of_customer_id AND c.key = of_contract AND x.unit = of_unit AND x.expired_at IS NULL AND x.voided_at IS NULL AND f.amount > 0
        AND x.effective_at <= at AND (x.expires_at >= at) IS NOT FALSE;
END
$$;
COMMENT ON FUNCTION billing_internal.credits_to_carry(bigint, text, text, timestamptz) IS
    'What is free in the blocks of a contract, by its key, that pay in a unit up to an instant, at which it is carried on: those that have begun by then and end at it or later. What ended before has expired, whether or not that is posted.';

CREATE FUNCTION billing_internal.credits_carrying() RETURNS TABLE (customer_id bigint, contract_id uuid)
    LANGUAGE plpgsql STABLE ROWS 2 SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT DISTINCT t.customer_id, t.contract_id FROM billing.contract_term t JOIN billing.contract k USING (customer_id, contract_id)
    WHERE t.kind = 'credit' AND t.until_version IS NULL AND t.terms ? 'carry_from' AND lower(t.valid_during) <= billing.now() AND k.state IN ('scheduled', 'active', 'paused')
        -- Of what had begun when it was signed the activation carried what there was.
        AND (k.signed_at >= lower(t.valid_during)) IS NOT TRUE
        AND NOT EXISTS (SELECT FROM billing.credit_grant g JOIN billing.credit_ledger_entry e USING (customer_id, grant_id)
            WHERE g.customer_id = t.customer_id AND g.contract_id = t.contract_id AND starts_with(g.source_key, t.contract_id || '/' || t.term_key || '/') AND e.kind = 'rolled_in')
        AND EXISTS (SELECT FROM billing_internal.credits_to_carry(t.customer_id, t.terms->'carry_from'->>'contract', coalesce(t.terms->>'unit', k.currency), lower(t.valid_during)))
    ORDER BY t.customer_id, t.contract_id;
END
$$;
COMMENT ON FUNCTION billing_internal.credits_carrying() IS 'Contracts with credit that begins now and takes over what is unused of another contract: contract_credits_apply() carries it.';

CREATE FUNCTION billing_internal.credit_used(of_customer_id bigint, of_grants uuid[]) RETURNS numeric
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(-sum(e.amount), 0) FROM billing.credit_ledger_entry e
    WHERE e.customer_id = of_customer_id AND e.grant_id = ANY (of_grants) AND e.account = 'customer_balance' AND e.kind NOT IN ('granted', 'rolled_in', 'voided')
$$;
COMMENT ON FUNCTION billing_internal.credit_used(bigint, uuid[]) IS 'Credits that have left blocks otherwise than by being taken back: burnt less reinstated, expired, refunded, moved on.';

-- ── what contracts grant ─────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.term_occurrences(of_customer_id bigint, of_contract_id uuid, of_kind text, until_at timestamptz)
    RETURNS TABLE (term_key text, place int, n int, starts_on date, starts_at timestamptz, ends_on date, ends_at timestamptz, terms jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    k record;
    r record;
    p record;
    anchor date;
    every text;
BEGIN
    SELECT * INTO k FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id;
    FOR r IN SELECT t.*, max(coalesce(upper(t.valid_during), 'infinity')) OVER (PARTITION BY t.term_key) AS chain_ends_at FROM billing.contract_term t
        WHERE t.customer_id = of_customer_id AND t.contract_id = of_contract_id AND t.kind = of_kind AND t.until_version IS NULL ORDER BY t.position, lower(t.valid_during) LOOP
        anchor := coalesce((r.terms->>'effective_on')::date, (r.terms->>'from')::date, (lower(r.valid_during) AT TIME ZONE k.time_zone)::date);
        every := r.terms->>'every';
        term_key := r.term_key;
        terms := r.terms;
        place := 0;
        LOOP
            IF every IS NULL THEN
                EXIT WHEN place > 0;
                starts_on := anchor; ends_on := NULL;
            ELSE
                SELECT * INTO p FROM billing_internal.calendar_period(anchor, NULL, every, 'anniversary', place);
                starts_on := p.starts_on; ends_on := p.ends_on;
            END IF;
            n := place;
            starts_at := billing_internal.local_midnight(starts_on, k.time_zone);
            EXIT WHEN starts_at >= least(coalesce(upper(r.valid_during), 'infinity'), until_at);
            ends_at := least(billing_internal.local_midnight(ends_on, k.time_zone), nullif(r.chain_ends_at, 'infinity'));
            ends_on := CASE WHEN ends_at IS NOT NULL THEN (ends_at AT TIME ZONE k.time_zone)::date END;
            IF starts_at >= lower(r.valid_during) THEN
                RETURN NEXT;
            END IF;
            place := place + 1;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION billing_internal.term_occurrences(bigint, uuid, text, timestamptz) IS
    'The periods of a contract''s commitments or credits as its newest version says: each has the terms of the stretch in which it begins and ends with the grid or the last stretch. n counts from the anchor. Those that begin before an instant.';

CREATE FUNCTION billing_internal.instalments_begun(contract text, of_currency text, amount numeric, starts_on date, every text, instalments text, until_on date) RETURNS numeric
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ends_on date := (SELECT p.ends_on FROM billing_internal.calendar_period(starts_on, NULL, every, 'anniversary', 0) p);
    parts int := 0;
    begun int := 0;
    day date := starts_on;
BEGIN
    IF until_on >= ends_on THEN
        RETURN amount;
    END IF;
    WHILE day < ends_on LOOP
        parts := parts + 1;
        begun := begun + (day < until_on)::int;
        day := (SELECT p.starts_on FROM billing_internal.calendar_period(instalments_begun.starts_on, NULL, instalments, 'anniversary', parts) p);
    END LOOP;
    RETURN trim_scale(billing_internal.credit_release(amount, parts, 0, begun, billing_internal.unit_places(of_currency, starts_on), (SELECT p.value FROM billing.policies(contract) p WHERE p.name = 'rounding_mode')));
END
$$;
COMMENT ON FUNCTION billing_internal.instalments_begun(text, text, numeric, date, text, text, date) IS
    'What a contract bills of a commitment''s period: its amount, or the instalments that begin before until_on where the period ends there, before its time.';

CREATE FUNCTION billing_internal.contract_credits_apply(of_customer_id bigint, of_contract_id uuid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    w record;
    g record;
    until_at timestamptz;
    now_at timestamptz := billing.now();
    wanted jsonb := '[]';
    periods jsonb;
    pools jsonb := '{}';
    carried numeric;
    from_grants uuid[];
    stands uuid[];
    promised numeric;
    used numeric;
    changed boolean;
    new_id uuid;
    new_amount numeric;
    of_pool_id uuid;
    of_expires_at timestamptz;
    of_unit text;
BEGIN
    SELECT c.* INTO k FROM billing.contract c WHERE c.customer_id = of_customer_id AND c.contract_id = of_contract_id;
    IF NOT EXISTS (SELECT FROM billing.contract_term t WHERE t.customer_id = of_customer_id AND t.contract_id = of_contract_id AND t.kind IN ('commitment', 'credit')) THEN
        RETURN;
    END IF;
    -- An evergreen contract gets what begins within a year; the job makes more (credit_expiry_step).
    until_at := CASE WHEN k.ends_at IS NULL THEN greatest(now_at, k.starts_at) + interval '1 year' ELSE 'infinity' END;
    PERFORM FROM billing.credit_block_balance b JOIN billing.credit_grant x USING (customer_id, grant_id)
    WHERE NOT billing_internal.travelling() AND b.customer_id = of_customer_id AND (x.contract_id = of_contract_id OR x.contract_id IN (
        SELECT c.contract_id FROM billing.contract_term t JOIN billing.contract c ON c.customer_id = t.customer_id AND c.key = t.terms->'carry_from'->>'contract'
        WHERE t.customer_id = of_customer_id AND t.contract_id = of_contract_id AND t.kind = 'credit' AND t.until_version IS NULL))
    ORDER BY b.customer_id, b.grant_id FOR UPDATE OF b;
    -- Commitments and their periods.
    SELECT coalesce(jsonb_agg(to_jsonb(o) || jsonb_build_object('seq', o.seq, 'money', NOT o.terms ? 'quantity',
            'amount', CASE WHEN o.terms ? 'quantity' THEN o.terms->>'quantity' ELSE m.paid END,
            -- Where a period is cut short, credit costs what is billed of it.
            'paid', CASE WHEN o.terms ? 'instalments' AND o.until_at IS NOT NULL THEN billing_internal.instalments_begun(k.key, k.currency, m.paid::numeric, o.starts_on, o.terms->>'every', o.terms->>'instalments', (o.until_at AT TIME ZONE k.time_zone)::date)::text ELSE m.paid END)), '[]')
    INTO periods FROM (
        SELECT x.*, row_number() OVER (PARTITION BY x.term_key ORDER BY x.starts_at) - 1 AS seq,
            least(x.ends_at, lead(x.starts_at) OVER (PARTITION BY x.term_key ORDER BY x.starts_at)) AS until_at
        FROM billing_internal.term_occurrences(of_customer_id, of_contract_id, 'commitment', until_at) x
    ) o CROSS JOIN LATERAL (SELECT coalesce(o.terms->'amounts'->>least(o.n, jsonb_array_length(o.terms->'amounts') - 1), o.terms->>'amount') AS paid) m;
    INSERT INTO billing.commitment (customer_id, commitment_id, contract_id, key, created_at)
    SELECT of_customer_id, billing_internal.uuid_v7(), of_contract_id, x.term_key, clock_timestamp()
    FROM (SELECT DISTINCT p->>'term_key' AS term_key FROM jsonb_array_elements(periods) p) x ON CONFLICT (customer_id, contract_id, key) DO NOTHING;
    -- Grants, each with the commitment period that pays for it.
    SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.starts_at, x.term_key), '[]') INTO wanted FROM (
        SELECT o.*, of_contract_id || '/' || o.term_key || '/' || o.starts_on AS source_key, row_number() OVER (PARTITION BY o.term_key ORDER BY o.starts_at) = 1 AS first,
            (SELECT of_contract_id || '/' || (p->>'term_key') || '/' || (p->>'starts_on') FROM jsonb_array_elements(periods) p
                WHERE p->>'term_key' = o.terms->>'paid_by' ORDER BY (p->>'starts_at')::timestamptz > o.starts_at, abs(extract(epoch FROM (p->>'starts_at')::timestamptz - o.starts_at)) LIMIT 1) AS pool_source
        FROM billing_internal.term_occurrences(of_customer_id, of_contract_id, 'credit', until_at) o
    ) x;
    -- No longer said: what is left of it is taken back.
    FOR g IN SELECT x.*, b.posted - b.reserved AS left_over FROM billing.credit_grant x JOIN billing.credit_block_balance b USING (customer_id, grant_id)
        WHERE x.customer_id = of_customer_id AND x.contract_id = of_contract_id AND x.source_key IS NOT NULL AND x.voided_at IS NULL AND x.expired_at IS NULL
            AND NOT EXISTS (SELECT FROM jsonb_array_elements(wanted) c WHERE x.source_key = c->>'source_key' OR starts_with(x.source_key, (c->>'source_key') || '/v'))
        ORDER BY x.grant_id LOOP
        PERFORM billing_internal.credit_take_back(of_customer_id, ARRAY[g.grant_id], 'no longer in the contract');
    END LOOP;
    FOR w IN SELECT c->>'term_key' AS term_key, c->>'source_key' AS source_key, c->>'pool_source' AS pool_source, c->'terms' AS terms, (c->>'starts_on')::date AS starts_on,
            (c->>'starts_at')::timestamptz AS starts_at, (c->>'ends_at')::timestamptz AS ends_at, (c->>'first')::boolean AS first, coalesce((c->'terms'->>'amount')::numeric, 0) AS amount
        FROM jsonb_array_elements(wanted) WITH ORDINALITY x (c, place) ORDER BY x.place LOOP
        -- What a commitment in units buys is in its meter's.
        of_unit := coalesce(w.terms->>'unit', (SELECT coalesce(m.unit, m.key) FROM billing.meter m WHERE m.key = w.terms->>'of_meter'), k.currency);
        -- Those of an earlier term end with it, where the next renewal begins.
        of_expires_at := CASE w.terms->>'expires' WHEN 'never' THEN NULL WHEN 'period_end' THEN coalesce(w.ends_at, k.ends_at)
            WHEN 'contract_end' THEN least((SELECT min(v.effective_at) FROM billing.contract_version v WHERE v.customer_id = of_customer_id AND v.contract_id = of_contract_id
                AND v.kind = 'renew' AND v.effective_at > w.starts_at), k.ends_at)
            ELSE billing_internal.local_midnight((w.terms->>'expires')::date, k.time_zone) END;
        -- It begins where the contract ends.
        CONTINUE WHEN of_expires_at <= w.starts_at;
        -- What was promised so far, without what was moved in.
        SELECT array_agg(x.grant_id ORDER BY x.grant_id), coalesce(sum(x.amount + v.voided - v.moved_in), 0), coalesce(sum(v.moved_in), 0) INTO stands, promised, carried
        FROM billing.credit_grant x
        CROSS JOIN LATERAL (SELECT coalesce(sum(e.amount) FILTER (WHERE e.kind = 'voided'), 0) AS voided, coalesce(sum(e.amount) FILTER (WHERE e.kind = 'rolled_in'), 0) AS moved_in
            FROM billing.credit_ledger_entry e WHERE e.customer_id = x.customer_id AND e.grant_id = x.grant_id AND e.account = 'customer_balance') v
        WHERE x.customer_id = of_customer_id AND x.contract_id = of_contract_id AND (x.source_key = w.source_key OR starts_with(x.source_key, w.source_key || '/v'));
        SELECT * INTO g FROM billing.credit_grant x WHERE x.customer_id = of_customer_id AND x.grant_id = stands[cardinality(stands)];
        new_amount := w.amount;
        changed := false;
        IF stands IS NOT NULL THEN
            IF promised = w.amount AND (g.unit, g.category, g.priority, g.scope) = (of_unit, w.terms->>'category', (w.terms->>'priority')::int, billing_internal.credit_scope(w.terms->'scope', k.time_zone))
                AND g.rollover IS NOT DISTINCT FROM w.terms->'rollover' AND (g.voided_at IS NULL OR w.amount = 0) THEN
                -- As it was; its end may have moved with the contract's.
                UPDATE billing.credit_grant x SET expires_at = of_expires_at WHERE x.customer_id = of_customer_id AND x.grant_id = ANY (stands)
                    AND x.extended_at IS NULL AND x.expired_at IS NULL AND x.voided_at IS NULL AND x.expires_at IS DISTINCT FROM of_expires_at;
                CONTINUE WHEN carried > 0 OR NOT w.terms ? 'carry_from';
                -- Only what it takes over is still to come.
                new_amount := 0;
            ELSE
                used := billing_internal.credit_used(of_customer_id, stands);
                PERFORM billing_internal.credit_take_back(of_customer_id, stands, 'changed in the contract');
                new_amount := w.amount + carried - used;
                changed := true;
            END IF;
        END IF;
        carried := 0;
        IF w.terms ? 'carry_from' AND NOT changed AND w.starts_at <= now_at THEN
            -- Until it begins, what is there pays for what it is for; the job carries it then (credits_carrying).
            SELECT array_agg(x.grant_id ORDER BY x.grant_id), coalesce(sum(x.amount), 0) INTO from_grants, carried
            FROM billing_internal.credits_to_carry(of_customer_id, w.terms->'carry_from'->>'contract', of_unit, w.starts_at) x;
        END IF;
        CONTINUE WHEN new_amount + carried <= 0;
        -- The pool first; how many credits it has is summed below.
        of_pool_id := NULL;
        IF w.pool_source IS NOT NULL THEN
            SELECT p.pool_id INTO of_pool_id FROM billing.credit_pool p WHERE p.customer_id = of_customer_id AND p.source_key = w.pool_source;
            IF of_pool_id IS NULL THEN
                of_pool_id := billing_internal.uuid_v7();
                INSERT INTO billing.credit_pool (customer_id, pool_id, key, contract_id, currency, paid, credits, source_key, created_at)
                SELECT of_customer_id, of_pool_id, k.key || '/' || (p->>'term_key') || '/' || (p->>'starts_on'), of_contract_id, k.currency, (p->>'paid')::numeric, 1e15, w.pool_source, clock_timestamp()
                FROM jsonb_array_elements(periods) p WHERE of_contract_id || '/' || (p->>'term_key') || '/' || (p->>'starts_on') = w.pool_source;
            END IF;
        END IF;
        new_id := billing_internal.credit_grant_make(of_customer_id,
            billing_internal.credit_key(of_customer_id, k.key || '/' || w.term_key || CASE WHEN w.first THEN '' ELSE '/' || w.starts_on END), of_contract_id, of_pool_id, of_unit, w.terms->>'category',
            new_amount + carried, w.terms || jsonb_build_object('scope', billing_internal.credit_scope(w.terms->'scope', k.time_zone)), w.starts_at, of_expires_at,
            w.source_key || CASE WHEN stands IS NOT NULL THEN '/v' || k.version || CASE WHEN changed THEN '' ELSE '/carried' END ELSE '' END, NULL, NULL, carried);
        IF carried > 0 THEN
            PERFORM billing_internal.credit_carry(of_customer_id, from_grants, new_id, now_at, format('carried into %s', k.key));
        END IF;
    END LOOP;
    -- What each pool promised: all its blocks as granted, less what was taken back of them.
    UPDATE billing.credit_pool p SET credits = s.credits, paid = coalesce(s.paid, p.paid)
    FROM (
        SELECT x.pool_id, sum(x.amount - coalesce(v.amount, 0)) AS credits,
            (SELECT (q->>'paid')::numeric FROM jsonb_array_elements(periods) q WHERE of_contract_id || '/' || (q->>'term_key') || '/' || (q->>'starts_on') = min(o.source_key)) AS paid
        FROM billing.credit_grant x JOIN billing.credit_pool o USING (customer_id, pool_id)
        LEFT JOIN LATERAL (SELECT -sum(e.amount) AS amount FROM billing.credit_ledger_entry e
            WHERE e.customer_id = x.customer_id AND e.grant_id = x.grant_id AND e.account = 'customer_balance' AND e.kind = 'voided') v ON true
        WHERE x.customer_id = of_customer_id AND o.contract_id = of_contract_id AND o.source_key IS NOT NULL AND x.source_key IS NOT NULL GROUP BY x.pool_id
    ) s
    WHERE p.customer_id = of_customer_id AND p.pool_id = s.pool_id AND s.credits > 0 AND (p.credits, p.paid) IS DISTINCT FROM (s.credits, coalesce(s.paid, p.paid));
    -- Periods as this version says them.
    UPDATE billing.commitment_period c SET until_version = k.version
    FROM billing.commitment m
    WHERE m.customer_id = of_customer_id AND m.contract_id = of_contract_id AND c.customer_id = m.customer_id AND c.commitment_id = m.commitment_id AND c.until_version IS NULL
        AND NOT EXISTS (SELECT FROM jsonb_array_elements(periods) p WHERE p->>'term_key' = m.key AND (p->>'seq')::int = c.n AND (p->>'starts_on')::date = c.starts_on
            AND (p->>'until_at')::timestamptz IS NOT DISTINCT FROM c.ends_at AND (p->>'amount')::numeric = c.amount AND p->'terms' = c.terms);
    INSERT INTO billing.commitment_period (customer_id, commitment_id, starts_on, n, ends_on, starts_at, ends_at, from_version, kind, amount, unit, meter_id, pool_id, terms)
    SELECT of_customer_id, m.commitment_id, (p->>'starts_on')::date, (p->>'seq')::int, ((p->>'until_at')::timestamptz AT TIME ZONE k.time_zone)::date, (p->>'starts_at')::timestamptz, (p->>'until_at')::timestamptz,
        k.version, p->'terms'->>'kind', (p->>'amount')::numeric, CASE WHEN (p->>'money')::boolean THEN k.currency ELSE coalesce(t.unit, t.key) END, t.meter_id,
        (SELECT o.pool_id FROM billing.credit_pool o WHERE o.customer_id = of_customer_id AND o.source_key = of_contract_id || '/' || m.key || '/' || (p->>'starts_on')), p->'terms'
    FROM jsonb_array_elements(periods) p
    JOIN billing.commitment m ON m.customer_id = of_customer_id AND m.contract_id = of_contract_id AND m.key = p->>'term_key'
    LEFT JOIN billing.meter t ON t.key = p->'terms'->>'meter' AND NOT (p->>'money')::boolean
    WHERE NOT EXISTS (SELECT FROM billing.commitment_period c WHERE c.customer_id = m.customer_id AND c.commitment_id = m.commitment_id AND c.n = (p->>'seq')::int AND c.until_version IS NULL);
    PERFORM billing_internal.credit_debts_pay(of_customer_id, u.unit) FROM (SELECT DISTINCT x.unit FROM billing.credit_grant x WHERE x.customer_id = of_customer_id AND x.contract_id = of_contract_id) u;
END
$$;
COMMENT ON FUNCTION billing_internal.contract_credits_apply(bigint, uuid) IS
    'Makes what a contract''s newest version says of commitments and credits: periods, pools, grants. Asked after every change of the contract, and for evergreen ones by the job; asked again it changes nothing. What is no longer said, or said otherwise, is taken back as far as it is unused, and granted anew. Errors: ZB004 terms of a block that can''t hold.';

CREATE FUNCTION billing_internal.credit_take_back(of_customer_id bigint, of_grants uuid[], why text) RETURNS numeric
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    g record;
    total numeric := 0;
BEGIN
    FOR g IN SELECT x.grant_id, x.amount, b.posted - b.reserved AS left_over FROM billing.credit_grant x JOIN billing.credit_block_balance b USING (customer_id, grant_id)
        WHERE x.customer_id = of_customer_id AND x.grant_id = ANY (of_grants) AND x.expired_at IS NULL AND x.voided_at IS NULL ORDER BY x.grant_id LOOP
        IF g.left_over > 0 THEN
            PERFORM billing_internal.credit_book(of_customer_id, g.grant_id, 'voided', g.left_over, billing.now(), why);
            total := total + g.left_over;
        END IF;
        IF g.left_over = g.amount THEN
            UPDATE billing.credit_grant x SET voided_at = clock_timestamp() WHERE x.customer_id = of_customer_id AND x.grant_id = g.grant_id;
        END IF;
    END LOOP;
    RETURN total;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_take_back(bigint, uuid[], text) IS 'Voids what is left of blocks, which are locked. One that was used stays open for what is reinstated; one that was not is void.';

-- Foundation: clock, install, faults, audit, parties, policies, money.
-- Convention: leaves in C never raise; <name>_error(same arguments) says why they returned NULL, and the
-- PL/pgSQL facade above raises it with our SQLSTATE (class ZB, docs/errors.md).
-- Convention: functions in billing declare rows of tables as record, never as the table's type. PL/pgSQL resolves types
-- before the first statement, so before install() they would complain about a type and not say what helps.

-- ── faults ───────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.fail(code text, message text, hint text DEFAULT NULL, detail text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF hint IS NULL AND detail IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message;
    ELSIF detail IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, HINT = hint;
    ELSIF hint IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, DETAIL = detail;
    END IF;
    RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, HINT = hint, DETAIL = detail;
END
$$;
COMMENT ON FUNCTION billing_internal.fail(text, text, text, text) IS 'Raises with a SQLSTATE, message, HINT and DETAIL.';

CREATE FUNCTION billing_internal.raise_fault(fault jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF fault IS NOT NULL THEN
        PERFORM billing_internal.fail(fault->>'code', fault->>'message', fault->>'hint', fault->>'detail');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.raise_fault(jsonb) IS 'Raises a fault that a leaf described; does nothing for NULL.';

-- ── clock ────────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing.now() RETURNS timestamptz
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'billing_now_wrapper';
COMMENT ON FUNCTION billing.now() IS
    'The clock of every function here: the start of the transaction, the instant set by billing.test_clock_set(), which stands still, or where billing.time_travel() has taken this transaction. Row stamps such as recorded_at use the real clock.';

CREATE FUNCTION billing_internal.moment() RETURNS timestamptz
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'billing_moment_wrapper';
COMMENT ON FUNCTION billing_internal.moment() IS
    'The real clock at this moment, not before what this statement can see was committed; where billing.now() stands still, that. What customers may use is asked at it, so that a change is seen in a transaction that began before. Read it once, into a variable: it goes on inside a statement.';

CREATE FUNCTION billing_internal.refuse_commit(reason text) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'refuse_commit_wrapper';
COMMENT ON FUNCTION billing_internal.refuse_commit(text) IS 'Makes the COMMIT of this transaction fail with 55000 and the given reason.';

CREATE FUNCTION billing_internal.travel_to(at timestamptz) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'travel_to_wrapper';
COMMENT ON FUNCTION billing_internal.travel_to(timestamptz) IS 'Moves billing.now() of this transaction to an instant, until it ends or is rolled back to a savepoint before; its COMMIT fails with 55000, and so does PREPARE TRANSACTION.';

CREATE FUNCTION billing_internal.travelling() RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'travelling_wrapper';
COMMENT ON FUNCTION billing_internal.travelling() IS
    'Whether this transaction has travelled in time. Whatever takes a lock that others wait for (customer stripes, number series, counters, rows that ingest or draw_down() lock), or sends something out of the database, asks this first and leaves it out: the transaction can only be rolled back, and until then nobody may wait for it.';

CREATE FUNCTION billing_internal.preview_number() RETURNS bigint
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'preview_number_wrapper';
COMMENT ON FUNCTION billing_internal.preview_number() IS 'The next n of PREVIEW-n, the numbers of what is issued under time travel: from 1 in each transaction, without a lock.';

CREATE FUNCTION billing_internal.in_transaction_block() RETURNS boolean
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'in_transaction_block_wrapper';
COMMENT ON FUNCTION billing_internal.in_transaction_block() IS 'Whether the caller began a transaction (BEGIN); else it ends with this statement.';

CREATE FUNCTION billing.test_clock_set(at timestamptz) RETURNS timestamptz
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    setting text := '';
BEGIN
    PERFORM billing_internal.require_installed();
    IF current_setting('is_superuser') <> 'on' THEN
        PERFORM billing_internal.fail('42501', 'only the owner of the installation may set the test clock', 'Connect as a superuser.');
    END IF;
    IF at IN ('infinity', '-infinity') THEN
        PERFORM billing_internal.fail('ZB004', 'the test clock can''t stand at infinity', 'Give an instant, or NULL for the real clock.');
    END IF;
    IF at IS NOT NULL THEN
        setting := to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
    END IF;
    IF (SELECT i.mode FROM billing.installation i) = 'live' THEN
        PERFORM set_config('billing.test_clock', setting, true);
        PERFORM billing_internal.refuse_commit('the test clock was moved in a live installation, so this transaction can''t be committed');
    ELSE
        PERFORM set_config('billing.test_clock', setting, false);
        EXECUTE format('ALTER DATABASE %I SET billing.test_clock = %L', current_database(), setting);
    END IF;
    RETURN billing.now();
END
$$;
COMMENT ON FUNCTION billing.test_clock_set(timestamptz) IS
    'Sets billing.now() to an instant at which it stands still, in this session and in new ones; NULL returns to the real clock. Returns billing.now(). In a live installation it lasts for this transaction, which then can only be rolled back (55000 at COMMIT). Errors: 42501 not a superuser, ZB004 infinity.';

-- ── install ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.schema_files() RETURNS TABLE (version int, name text, sha256 text, body text)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'schema_files_wrapper';
COMMENT ON FUNCTION billing_internal.schema_files() IS 'The schema files this library carries, with their checksums.';

CREATE FUNCTION billing_internal.heed_changes() RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'heed_changes_wrapper';
COMMENT ON FUNCTION billing_internal.heed_changes() IS 'Takes in partitions that other sessions made since this transaction took its locks; else it would read past them.';

CREATE FUNCTION billing_internal.require_installed() RETURNS void
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'require_installed_0_2_wrapper';
COMMENT ON FUNCTION billing_internal.require_installed() IS 'Raises 55000 with the command that helps unless functions and tables are of this library''s version. First call of every public function; remembered per session.';

CREATE FUNCTION billing_internal.forget_installed() RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'forget_installed_wrapper';
COMMENT ON FUNCTION billing_internal.forget_installed() IS 'Makes require_installed() look again in this session.';

CREATE FUNCTION billing_internal.migrate_schema(mode text) RETURNS TABLE (step text, state text)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    file record;
    applied text;
    role_before text := current_setting('role');
    unknown text;
BEGIN
    PERFORM billing_internal.forget_installed();
    PERFORM billing_internal.check_ground();
    -- One session installs; the others wait here and then find everything made.
    PERFORM pg_advisory_xact_lock(billing_internal.lock_class('install'), 0);
    IF to_regclass('billing.schema_migration') IS NOT NULL THEN
        SELECT string_agg(m.name, ', ' ORDER BY m.version) INTO unknown FROM billing.schema_migration m
        WHERE NOT EXISTS (SELECT FROM billing_internal.schema_files() f WHERE f.version = m.version);
        IF unknown IS NOT NULL THEN
            PERFORM billing_internal.fail('55000', format('this database has schema files that this library does not know: %s', unknown),
                'Install the library that belongs to this database; there is no way back to an older one.');
        END IF;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'btree_gist') THEN
        CREATE EXTENSION btree_gist WITH SCHEMA billing_internal;
        RETURN QUERY SELECT 'btree_gist', 'created';
    END IF;
    FOR file IN SELECT * FROM billing_internal.schema_files() f ORDER BY f.version LOOP
        applied := NULL;
        IF to_regclass('billing.schema_migration') IS NOT NULL THEN
            SELECT m.sha256 INTO applied FROM billing.schema_migration m WHERE m.version = file.version;
        END IF;
        IF applied = file.sha256 THEN
            RETURN QUERY SELECT file.name, 'kept';
            CONTINUE;
        ELSIF applied IS NOT NULL THEN
            PERFORM billing_internal.fail('55000',
                format('the schema file %s is not the one that was applied to this database', file.name),
                'Install the library that belongs to this database, then upgrade from there.',
                format('applied %s, in this library %s', applied, file.sha256));
        END IF;
        PERFORM set_config('role', 'billing_owner', true);
        EXECUTE file.body;
        PERFORM set_config('role', role_before, true);
        INSERT INTO billing.schema_migration VALUES (file.version, file.name, file.sha256, clock_timestamp());
        RETURN QUERY SELECT file.name, 'applied';
    END LOOP;
    INSERT INTO billing.installation (mode, schema_version, installed_at)
    SELECT coalesce(migrate_schema.mode, 'live'), max(f.version), clock_timestamp() FROM billing_internal.schema_files() f
    ON CONFLICT (only_one) DO UPDATE SET schema_version = excluded.schema_version;
    INSERT INTO billing.seller (seller_id, key, name, currency, time_zone, created_at)
    SELECT billing_internal.uuid_v7(), 'default', 'Default seller', 'USD', 'UTC', clock_timestamp()
    WHERE NOT EXISTS (SELECT FROM billing.seller);
    IF mode IS NOT NULL AND mode <> (SELECT i.mode FROM billing.installation i) THEN
        PERFORM billing_internal.fail('55000', format('this installation is %s and stays so', (SELECT i.mode FROM billing.installation i)),
            'Install test mode in a database of its own: CREATE DATABASE … ; CREATE EXTENSION pg_billing; SELECT * FROM billing.install(''test'');');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.migrate_schema(text) IS 'The one walk over the schema files that install() and migrate() are. Errors: 42501 schemas or roles that are not ours alone.';

CREATE FUNCTION billing.install(mode text DEFAULT 'live') RETURNS TABLE (step text, state text)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Said here and not by a helper: who has no rights here can't call helpers.
    IF current_setting('is_superuser') <> 'on' THEN
        RAISE EXCEPTION '% can''t install pg_billing''s tables', current_user USING ERRCODE = 'insufficient_privilege',
            HINT = 'Run it as a superuser: the tables are made for the role billing_owner, and btree_gist is created if it is missing.';
    END IF;
    IF mode IS NULL OR mode NOT IN ('live', 'test') THEN
        PERFORM billing_internal.fail('ZB004', format('an installation can''t be %s', coalesce(quote_literal(mode), 'NULL')), 'Use live or test.');
    END IF;
    RETURN QUERY SELECT * FROM billing_internal.migrate_schema(mode);
END
$$;
COMMENT ON FUNCTION billing.install(text) IS
    'Creates pg_billing''s tables, views and the default seller, outside the extension, so that they survive DROP EXTENSION and stand whole in dumps. Idempotent; lists its steps. mode live or test: only a test installation lets the clock be moved for good. Errors: 42501 not a superuser, or schemas or roles that are not ours alone, 55000 other mode or other schema file, ZB004 unknown mode.';

CREATE FUNCTION billing.migrate() RETURNS TABLE (step text, state text)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Said here and not by a helper: who has no rights here can't call helpers.
    IF current_setting('is_superuser') <> 'on' THEN
        RAISE EXCEPTION '% can''t install pg_billing''s tables', current_user USING ERRCODE = 'insufficient_privilege',
            HINT = 'Run it as a superuser: the tables are made for the role billing_owner, and btree_gist is created if it is missing.';
    END IF;
    IF to_regclass('billing.installation') IS NULL THEN
        PERFORM billing_internal.fail('55000', 'pg_billing''s tables are not installed in this database', 'Run: SELECT * FROM billing.install();');
    END IF;
    RETURN QUERY SELECT * FROM billing_internal.migrate_schema(NULL);
END
$$;
COMMENT ON FUNCTION billing.migrate() IS
    'Brings the tables of an older version, or of a restored dump, up to this library. Idempotent; lists its steps. Errors: 42501 not a superuser, or schemas or roles that are not ours alone, 55000 not installed or another library''s schema.';

-- ── ids, calendars, documents ────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.uuid_v7() RETURNS uuid
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'uuid_v7_wrapper';
COMMENT ON FUNCTION billing_internal.uuid_v7() IS 'A UUIDv7 from the real clock.';

CREATE FUNCTION billing_internal.calendar_period(starts_on date, ends_on date, every text, alignment text, n int)
    RETURNS TABLE (n int, starts_on date, ends_on date, whole_starts_on date, whole_ends_on date)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'calendar_period_wrapper';
COMMENT ON FUNCTION billing_internal.calendar_period(date, date, text, text, int) IS 'Billing period n of a contract on local dates, half-open, with the whole period it is part of; no row past the end.';

CREATE FUNCTION billing_internal.calendar_period_at(starts_on date, ends_on date, every text, alignment text, day date)
    RETURNS TABLE (n int, starts_on date, ends_on date, whole_starts_on date, whole_ends_on date)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'calendar_period_at_wrapper';
COMMENT ON FUNCTION billing_internal.calendar_period_at(date, date, text, text, date) IS 'The billing period that holds a local day.';

CREATE FUNCTION billing_internal.calendar_service_periods(starts_on date, ends_on date, billed_every text, alignment text, every text, n int)
    RETURNS TABLE (n int, starts_on date, ends_on date, whole_starts_on date, whole_ends_on date)
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'calendar_service_periods_wrapper';
COMMENT ON FUNCTION billing_internal.calendar_service_periods(date, date, text, text, text, int) IS 'The service periods of a charge billed every so often, inside billing period n.';

CREATE FUNCTION billing_internal.document_read(kind text, document text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'document_read_wrapper';
COMMENT ON FUNCTION billing_internal.document_read(text, text) IS 'The canonical text of a document whose form is right, else NULL. Kinds: seller, customer, catalogue, contract.';

CREATE FUNCTION billing_internal.document_read_error(kind text, document text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'document_read_error_wrapper';
COMMENT ON FUNCTION billing_internal.document_read_error(text, text) IS 'The fault that document_read() found, as JSON.';

CREATE FUNCTION billing_internal.read_document(kind text, document jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text;
BEGIN
    IF document IS NULL THEN
        PERFORM billing_internal.fail('ZB003', format('the %s document is NULL', kind), 'Pass a JSON object.');
    END IF;
    result := billing_internal.document_read(kind, document::text);
    IF result IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.document_read_error(kind, document::text)::jsonb);
    END IF;
    RETURN result::jsonb;
END
$$;
COMMENT ON FUNCTION billing_internal.read_document(text, jsonb) IS 'Checks the form of a document. Errors: ZB003 with the JSON path, ZB010 too large.';

-- ── audit ────────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.audit(
    action text, kind text, key text, customer_id bigint, before jsonb, after jsonb, reason text DEFAULT NULL
) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id uuid := billing_internal.uuid_v7();
    at timestamptz := clock_timestamp();
    actor text := billing_internal.caller();
BEGIN
    INSERT INTO billing.audit_log (audit_id, at, actor, action, kind, key, customer_id, before, after, reason, content_hash)
    VALUES (id, at, actor, action, kind, key, customer_id, before, after, reason,
        billing_internal.audit_hash(id, at, actor, action, kind, key, customer_id, before, after, reason));
END
$$;
COMMENT ON FUNCTION billing_internal.audit(text, text, text, bigint, jsonb, jsonb, text) IS 'Writes one audit_log row in the transaction of the change.';

CREATE FUNCTION billing_internal.audit_hash(
    audit_id uuid, at timestamptz, actor text, action text, kind text, key text, customer_id bigint, before jsonb, after jsonb, reason text,
    before_hash bytea DEFAULT NULL, after_hash bytea DEFAULT NULL
) RETURNS bytea
    LANGUAGE sql STABLE -- bound when made: inlined, so no search_path
    -- Of the documents only their hashes, so that the documents can be erased. What is there beats what is said of it.
    RETURN sha256(convert_to(jsonb_build_array(audit_id, extract(epoch FROM at), actor, action, kind, key, customer_id,
        encode(coalesce(sha256(convert_to(before::text, 'UTF8')), before_hash), 'hex'),
        encode(coalesce(sha256(convert_to(after::text, 'UTF8')), after_hash), 'hex'), reason)::text, 'UTF8'));
COMMENT ON FUNCTION billing_internal.audit_hash(uuid, timestamptz, text, text, text, text, bigint, jsonb, jsonb, text, bytea, bytea) IS
    'SHA-256 of an audit row''s canonical content; of an erased document, its hash stands for it.';

CREATE FUNCTION billing.audit_seal_step() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch uuid[];
    hashes bytea;
    last record;
BEGIN
    PERFORM billing_internal.require_installed();
    PERFORM pg_advisory_xact_lock(billing_internal.lock_class('audit_seal'), 0);
    SELECT array_agg(l.audit_id ORDER BY l.audit_id), string_agg(l.content_hash, ''::bytea ORDER BY l.audit_id) INTO batch, hashes
    FROM (SELECT a.audit_id, a.content_hash FROM billing.audit_log a WHERE a.seal_n IS NULL ORDER BY a.audit_id LIMIT 10000) l;
    IF batch IS NULL THEN
        RETURN 0;
    END IF;
    SELECT s.n, s.chain_hash INTO last FROM billing.audit_seal s ORDER BY s.n DESC LIMIT 1;
    INSERT INTO billing.audit_seal (n, sealed_at, entries, previous, chain_hash)
    VALUES (coalesce(last.n, 0) + 1, clock_timestamp(), cardinality(batch), coalesce(last.chain_hash, decode(repeat('00', 32), 'hex')),
        sha256(coalesce(last.chain_hash, decode(repeat('00', 32), 'hex')) || hashes));
    UPDATE billing.audit_log SET seal_n = coalesce(last.n, 0) + 1 WHERE audit_id = ANY (batch);
    RETURN cardinality(batch);
END
$$;
COMMENT ON FUNCTION billing.audit_seal_step() IS 'Seals up to 10,000 unsealed audit entries as one link of the hash chain; returns how many.';

CREATE PROCEDURE billing.audit_seal()
    LANGUAGE plpgsql
AS $$
BEGIN
    WHILE billing.audit_seal_step() OPERATOR(pg_catalog.>) 0 LOOP
        COMMIT;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE billing.audit_seal() IS 'Seals all audit entries written so far, committing per batch of 10,000.';

CREATE FUNCTION billing.audit_erase(entries uuid[], reason text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id uuid := billing_internal.uuid_v7();
    at timestamptz := clock_timestamp();
    actor text;
    summary jsonb;
    erased bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    actor := billing_internal.caller();
    IF entries IS NULL OR cardinality(entries) > 10000 THEN
        PERFORM billing_internal.fail('ZB004', 'the entries must be a list of at most 10,000 audit_ids',
            'SELECT array_agg(audit_id) FROM billing.audit_log WHERE …; makes one.');
    ELSIF coalesce(reason, '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'an erasure needs a reason', 'Name the request it follows; the reason stays in the audit log.');
    END IF;
    UPDATE billing.audit_log a SET erased_by = id, before = NULL, after = NULL,
        before_hash = sha256(convert_to(a.before::text, 'UTF8')), after_hash = sha256(convert_to(a.after::text, 'UTF8'))
    WHERE a.audit_id = ANY (entries) AND a.erased_by IS NULL AND a.action <> 'audit_erase' AND (a.before IS NOT NULL OR a.after IS NOT NULL);
    GET DIAGNOSTICS erased = ROW_COUNT;
    IF erased > 0 THEN
        summary := jsonb_build_object('entries', erased);
        INSERT INTO billing.audit_log (audit_id, at, actor, action, kind, key, after, reason, content_hash)
        VALUES (id, at, actor, 'audit_erase', 'audit', id::text, summary, reason,
            billing_internal.audit_hash(id, at, actor, 'audit_erase', 'audit', id::text, NULL, NULL, summary, reason));
    END IF;
    RETURN erased;
END
$$;
COMMENT ON FUNCTION billing.audit_erase(uuid[], text) IS
    'Erases what stood before and after in these audit entries (personal data), for good; returns how many had any. Who changed what and when stays, and so do the hashes of what is gone: the chain still verifies. The erasure is itself an entry, to which erased_by points. Errors: ZB004 more than 10,000, or no reason.';

CREATE FUNCTION billing_internal.first_id(since timestamptz) RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN (CASE WHEN since < 'epoch' THEN repeat('0', 12) ELSE lpad(to_hex((extract(epoch FROM least(since, '9999-12-31 00:00+00')) * 1000)::bigint), 12, '0') END || repeat('0', 20))::uuid;
COMMENT ON FUNCTION billing_internal.first_id(timestamptz) IS 'The least UUIDv7 that can have been made at or after an instant: what is newer has a greater id.';

CREATE FUNCTION billing_internal.audit_faults(since timestamptz) RETURNS TABLE (seal bigint, audit_id uuid, fault text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT a.seal_n, a.audit_id, 'the entry is not what was written: ' || a.kind || ' ' || a.key
    FROM billing.audit_log a
    WHERE a.audit_id >= billing_internal.first_id(since) AND a.content_hash <> billing_internal.audit_hash(a.audit_id, a.at, a.actor, a.action, a.kind, a.key, a.customer_id, a.before, a.after, a.reason,
        a.before_hash, a.after_hash);
    RETURN QUERY
    SELECT a.seal_n, a.audit_id, 'the entry was erased without a record of it: ' || a.kind || ' ' || a.key
    FROM billing.audit_log a
    WHERE a.audit_id >= billing_internal.first_id(since) AND (a.erased_by IS NOT NULL OR a.before_hash IS NOT NULL OR a.after_hash IS NOT NULL)
        AND NOT EXISTS (SELECT FROM billing.audit_log e WHERE e.audit_id = a.erased_by AND e.action = 'audit_erase');
    RETURN QUERY
    SELECT s.n, NULL::uuid, CASE
            WHEN s.previous IS DISTINCT FROM coalesce(p.chain_hash, decode(repeat('00', 32), 'hex')) THEN 'the chain is broken before this seal'
            WHEN coalesce(l.entries, 0) <> s.entries THEN format('%s entries were sealed, %s are there', s.entries, coalesce(l.entries, 0))
            ELSE 'the sealed entries were changed or reordered' END
    FROM billing.audit_seal s
    LEFT JOIN billing.audit_seal p ON p.n = s.n - 1
    LEFT JOIN LATERAL (SELECT count(*) AS entries, string_agg(a.content_hash, ''::bytea ORDER BY a.audit_id) AS hashes
        FROM billing.audit_log a WHERE a.seal_n = s.n) l ON true
    WHERE s.sealed_at >= since AND (s.previous IS DISTINCT FROM coalesce(p.chain_hash, decode(repeat('00', 32), 'hex'))
        OR coalesce(l.entries, 0) <> s.entries
        OR s.chain_hash <> sha256(s.previous || coalesce(l.hashes, ''::bytea)));
END
$$;
COMMENT ON FUNCTION billing_internal.audit_faults(timestamptz) IS 'Audit entries written and seals made since an instant that are not as they were written.';

CREATE FUNCTION billing.audit_verify() RETURNS TABLE (seal bigint, audit_id uuid, fault text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM billing_internal.require_installed();
    RETURN QUERY SELECT * FROM billing_internal.audit_faults('-infinity');
END
$$;
COMMENT ON FUNCTION billing.audit_verify() IS 'Every audit entry or seal that is not as it was written: changed, deleted, reordered, or emptied by other means than audit_erase(). No rows = the chain is whole.';

CREATE FUNCTION billing_internal.lock_class(purpose text) RETURNS int
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN 1651076199 + CASE purpose WHEN 'stripe' THEN 0 WHEN 'fold' THEN 1 WHEN 'partition' THEN 2 WHEN 'audit_seal' THEN 3
        WHEN 'catalogue' THEN 4 WHEN 'install' THEN 5 WHEN 'correction' THEN 6 WHEN 'job' THEN 7 WHEN 'feed' THEN 8 WHEN 'consume' THEN 9 WHEN 'quota' THEN 10 END;
COMMENT ON FUNCTION billing_internal.lock_class(text) IS 'First key of our two-key advisory locks ("bill" in ASCII, plus the purpose).';

-- ── parties ──────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.find_seller(seller text) RETURNS uuid
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id uuid;
BEGIN
    SELECT s.seller_id INTO id FROM billing.seller s WHERE s.key = seller OR s.seller_id::text = seller;
    IF id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('seller %s is not known', coalesce(quote_literal(seller), 'NULL')),
            'SELECT key, name FROM billing.seller; lists them; billing.seller_upsert(''{"key": …}'') makes one.');
    END IF;
    RETURN id;
END
$$;
COMMENT ON FUNCTION billing_internal.find_seller(text) IS 'A seller by key or id. Errors: ZB001.';

CREATE FUNCTION billing_internal.customer_of(customer text) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT c.customer_id FROM billing.customer c WHERE c.key = customer),
        (SELECT a.customer_id FROM billing.customer_alias a WHERE a.alias = customer AND a.removed_at IS NULL),
        (SELECT c.customer_id FROM billing.customer c WHERE c.customer_id = CASE WHEN customer ~ '^[0-9]{1,18}$' THEN customer::bigint END))
$$;
COMMENT ON FUNCTION billing_internal.customer_of(text) IS 'A customer by key, then alias, then id; NULL if there is none. For people''s calls: ingest knows keys and aliases only.';

CREATE FUNCTION billing_internal.find_customer(customer text) RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id bigint := billing_internal.customer_of(customer);
BEGIN
    IF id IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('customer %s is not known', coalesce(quote_literal(customer), 'NULL')),
            'SELECT key, name FROM billing.customer; lists them; billing.customer_upsert(''{"key": …}'') makes one.');
    END IF;
    RETURN id;
END
$$;
COMMENT ON FUNCTION billing_internal.find_customer(text) IS 'A customer by key, alias or id. Errors: ZB001.';

CREATE FUNCTION billing_internal.check_zone(zone text) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Words separated by /, as IANA names are; offsets and POSIX rules would fix no calendar.
    IF zone IS NULL OR zone !~ '^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$' THEN
        RAISE invalid_parameter_value;
    END IF;
    PERFORM timestamptz '2026-01-01 00:00+00' AT TIME ZONE zone;
EXCEPTION WHEN invalid_parameter_value THEN
    PERFORM billing_internal.fail('ZB004', format('time zone %s is not known', coalesce(quote_literal(zone), 'NULL')),
        'Use an IANA name: SELECT name FROM pg_timezone_names; lists them.');
END
$$;
COMMENT ON FUNCTION billing_internal.check_zone(text) IS 'Errors: ZB004 for a name that is not an IANA time zone.';

CREATE FUNCTION billing_internal.zone_minutes(zone text) RETURNS smallint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT CASE WHEN bool_or(extract(minute FROM (at AT TIME ZONE zone) - (at AT TIME ZONE 'UTC')) <> 0) THEN 15 ELSE 60 END
        FROM generate_series(timestamptz '1995-01-01 00:00+00', timestamptz '2040-01-01 00:00+00', interval '2190 hours') at);
COMMENT ON FUNCTION billing_internal.zone_minutes(text) IS 'Bucket width that keeps a zone''s midnights on bucket boundaries: 60, or 15 where its offset was ever not on whole hours since 1995.';

CREATE FUNCTION billing_internal.check_currency(code text, on_day date) RETURNS smallint
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    units smallint;
BEGIN
    SELECT c.minor_units INTO units FROM billing.currency c
    WHERE c.code = check_currency.code AND on_day >= c.valid_from AND (c.valid_until IS NULL OR on_day < c.valid_until);
    IF units IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('currency %s is not known on %s', coalesce(quote_literal(code), 'NULL'), on_day),
            'SELECT * FROM billing.currency; lists codes with their validity.');
    END IF;
    RETURN units;
END
$$;
COMMENT ON FUNCTION billing_internal.check_currency(text, date) IS 'Minor units of a currency on a day. Errors: ZB001.';

CREATE FUNCTION billing.seller_upsert(doc jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    d jsonb;
    old record;
    new record;
    account jsonb;
BEGIN
    PERFORM billing_internal.require_installed();
    d := billing_internal.read_document('seller', doc);
    SELECT * INTO old FROM billing.seller s WHERE s.key = d->>'key' FOR NO KEY UPDATE;
    new := old;
    new.seller_id := coalesce(old.seller_id, billing_internal.uuid_v7());
    new.key := d->>'key';
    new.name := coalesce(d->>'name', old.name, d->>'key');
    new.currency := coalesce(d->>'currency', CASE WHEN NOT d ? 'currency' THEN old.currency END, 'USD');
    new.time_zone := coalesce(d->>'time_zone', CASE WHEN NOT d ? 'time_zone' THEN old.time_zone END, 'UTC');
    new.fiscal_year_start := coalesce((d->>'fiscal_year_start')::smallint, CASE WHEN NOT d ? 'fiscal_year_start' THEN old.fiscal_year_start END, 1);
    new.invoice_series := coalesce(d->>'invoice_series', CASE WHEN NOT d ? 'invoice_series' THEN old.invoice_series END, 'INV');
    new.address := CASE WHEN d ? 'address' THEN coalesce(nullif(d->'address', 'null'), '{}') ELSE coalesce(old.address, '{}') END;
    new.tax_ids := CASE WHEN d ? 'tax_ids' THEN coalesce(nullif(d->'tax_ids', 'null'), '[]') ELSE coalesce(old.tax_ids, '[]') END;
    new.created_at := coalesce(old.created_at, clock_timestamp());
    PERFORM billing_internal.check_zone(new.time_zone);
    PERFORM billing_internal.check_currency(new.currency, (billing.now() AT TIME ZONE new.time_zone)::date);
    IF old.seller_id IS NULL THEN
        INSERT INTO billing.seller (seller_id, key, name, currency, time_zone, fiscal_year_start, invoice_series, address, tax_ids, created_at)
        VALUES (new.seller_id, new.key, new.name, new.currency, new.time_zone, new.fiscal_year_start, new.invoice_series, new.address, new.tax_ids, new.created_at)
        ON CONFLICT (key) DO NOTHING;
        IF NOT FOUND THEN
            -- Another session made it just now: then this changes it.
            RETURN billing.seller_upsert(doc);
        END IF;
    ELSIF new IS DISTINCT FROM old THEN
        UPDATE billing.seller SET name = new.name, currency = new.currency, time_zone = new.time_zone,
            fiscal_year_start = new.fiscal_year_start, invoice_series = new.invoice_series, address = new.address, tax_ids = new.tax_ids
        WHERE seller_id = new.seller_id;
    END IF;
    IF d ? 'bank_accounts' THEN
        FOR account IN SELECT * FROM jsonb_array_elements(coalesce(nullif(d->'bank_accounts', 'null'), '[]')) LOOP
            INSERT INTO billing.seller_bank_account (seller_id, key, currency, holder, details)
            VALUES (new.seller_id, account->>'key', account->>'currency', account->>'holder', coalesce(account->'details', '{}'))
            ON CONFLICT (seller_id, key) DO UPDATE
                SET currency = excluded.currency, holder = excluded.holder, details = excluded.details, closed_at = NULL;
        END LOOP;
        UPDATE billing.seller_bank_account b SET closed_at = clock_timestamp()
        WHERE b.seller_id = new.seller_id AND b.closed_at IS NULL
            AND NOT EXISTS (SELECT FROM jsonb_array_elements(coalesce(nullif(d->'bank_accounts', 'null'), '[]')) a WHERE a->>'key' = b.key);
    END IF;
    IF new IS DISTINCT FROM old OR d ? 'bank_accounts' THEN
        PERFORM billing_internal.audit('seller_upsert', 'seller', new.key, NULL,
            CASE WHEN old.seller_id IS NOT NULL THEN to_jsonb(old) END, to_jsonb(new));
    END IF;
    RETURN new.key;
END
$$;
COMMENT ON FUNCTION billing.seller_upsert(jsonb) IS
    'Makes or changes one of our legal entities: {"key","name","currency","time_zone","fiscal_year_start","invoice_series","address":{},"tax_ids":[],"bank_accounts":[]}. Keeps what is absent, clears what is null, replaces lists. Returns the key. Errors: ZB003 form, ZB001 currency, ZB004 time zone.';

CREATE FUNCTION billing_internal.upsert_bill_tos(of_customer_id bigint, d jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    item record;
BEGIN
    FOR item IN SELECT b.value AS doc, b.ordinality AS place FROM jsonb_array_elements(d) WITH ORDINALITY b LOOP
        IF item.doc->>'time_zone' IS NOT NULL THEN
            PERFORM billing_internal.check_zone(item.doc->>'time_zone');
        END IF;
        INSERT INTO billing.bill_to (customer_id, bill_to_id, key, position, name, address, tax_ids, email, time_zone)
        VALUES (of_customer_id, billing_internal.uuid_v7(), item.doc->>'key', item.place, item.doc->>'name',
            coalesce(item.doc->'address', '{}'), coalesce(item.doc->'tax_ids', '[]'), item.doc->>'email', item.doc->>'time_zone')
        ON CONFLICT (customer_id, key) DO UPDATE SET position = excluded.position, name = excluded.name, address = excluded.address,
            tax_ids = excluded.tax_ids, email = excluded.email, time_zone = excluded.time_zone, retired_at = NULL;
    END LOOP;
    UPDATE billing.bill_to b SET retired_at = clock_timestamp()
    WHERE b.customer_id = of_customer_id AND b.retired_at IS NULL
        AND NOT EXISTS (SELECT FROM jsonb_array_elements(d) n WHERE n->>'key' = b.key);
END
$$;
COMMENT ON FUNCTION billing_internal.upsert_bill_tos(bigint, jsonb) IS 'Replaces a customer''s legal entities; those left out are retired, never deleted.';

CREATE FUNCTION billing_internal.customer_document(of_customer_id bigint) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT jsonb_build_object('key', c.key, 'name', c.name, 'seller', s.key, 'currency', c.currency, 'time_zone', c.time_zone,
            'attributes', c.attributes,
            'aliases', (SELECT coalesce(jsonb_agg(a.alias ORDER BY a.alias), '[]') FROM billing.customer_alias a
                WHERE a.customer_id = c.customer_id AND a.removed_at IS NULL),
            'bill_tos', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('key', b.key, 'name', b.name, 'address', b.address,
                    'tax_ids', b.tax_ids, 'email', b.email, 'time_zone', b.time_zone)) ORDER BY b.position), '[]')
                FROM billing.bill_to b WHERE b.customer_id = c.customer_id AND b.retired_at IS NULL),
            'contacts', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('role', p.role, 'name', p.name, 'email', p.email,
                    'bill_to', t.key)) ORDER BY p.role, p.name), '[]')
                FROM billing.contact p LEFT JOIN billing.bill_to t USING (customer_id, bill_to_id)
                WHERE p.customer_id = c.customer_id AND p.removed_at IS NULL))
        FROM billing.customer c JOIN billing.seller s USING (seller_id) WHERE c.customer_id = of_customer_id)
$$;
COMMENT ON FUNCTION billing_internal.customer_document(bigint) IS 'A customer as the document that customer_upsert() reads, without overrides; for the audit log.';

CREATE FUNCTION billing.customer_login_add(customer text, login text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id bigint;
    of_role oid;
BEGIN
    PERFORM billing_internal.require_installed();
    id := billing_internal.find_customer(customer);
    SELECT r.oid INTO of_role FROM pg_roles r WHERE r.rolname = login;
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB001', format('role %s is not known', coalesce(quote_literal(login), 'NULL')),
            format('CREATE ROLE %I LOGIN IN ROLE billing_customer;', coalesce(login, 'name')));
    END IF;
    IF NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE g.rolname = 'billing_customer' AND m.member = of_role) THEN
        PERFORM billing_internal.fail('ZB005', format('role %I is not a member of billing_customer', login),
            format('GRANT billing_customer TO %I;', login));
    END IF;
    INSERT INTO billing.login_customer AS l (login, customer_id, role_oid) VALUES (login, id, of_role)
    ON CONFLICT ON CONSTRAINT login_customer_pkey DO UPDATE SET role_oid = excluded.role_oid, removed_at = NULL
        WHERE l.role_oid <> excluded.role_oid OR l.removed_at IS NOT NULL;
    IF FOUND THEN
        PERFORM billing_internal.audit('customer_login_add', 'login', login, id, NULL, jsonb_build_object('login', login));
    END IF;
END
$$;
COMMENT ON FUNCTION billing.customer_login_add(text, text) IS
    'Lets a database role see one customer''s rows, until customer_login_remove() or until the role is dropped: a role made anew under that name sees nothing, nor does the same name on another server, before this is called again. Errors: ZB001 unknown customer or role, ZB005 the role is not a member of billing_customer.';

CREATE FUNCTION billing.customer_login_remove(customer text, login text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id bigint;
BEGIN
    PERFORM billing_internal.require_installed();
    id := billing_internal.find_customer(customer);
    UPDATE billing.login_customer l SET removed_at = clock_timestamp()
    WHERE l.login = customer_login_remove.login AND l.customer_id = id AND l.removed_at IS NULL;
    IF NOT FOUND THEN
        PERFORM billing_internal.fail('ZB001', format('login %s does not speak for customer %s', coalesce(quote_literal(login), 'NULL'), quote_literal(customer)),
            'SELECT login, customer_id FROM billing.login_customer WHERE removed_at IS NULL; lists them.');
    END IF;
    PERFORM billing_internal.audit('customer_login_remove', 'login', login, id, jsonb_build_object('login', login), NULL);
END
$$;
COMMENT ON FUNCTION billing.customer_login_remove(text, text) IS
    'Ends what customer_login_add() began, at once; the role may be gone already. Errors: ZB001 unknown customer, or the login does not speak for it.';

CREATE FUNCTION billing_internal.verify_foundation() RETURNS TABLE (check_name text, checked bigint, failed bigint, example text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'customers: a name belongs to one customer, be it key or alias', count(*), count(*) FILTER (WHERE x.wrong), min(x.alias) FILTER (WHERE x.wrong)
    FROM (SELECT a.alias, EXISTS (SELECT FROM billing.customer c WHERE c.key = a.alias AND c.customer_id <> a.customer_id) AS wrong
        FROM billing.customer_alias a WHERE a.removed_at IS NULL) x
    UNION ALL
    SELECT 'security: schemas and roles are ours alone', 2, count(*), min(g.fault) FROM billing_internal.ground_faults() g
    UNION ALL
    SELECT 'security: logins are the roles they were given to', count(*), count(*) FILTER (WHERE x.wrong), min(format('%s of customer %s', x.login, x.customer)) FILTER (WHERE x.wrong)
    FROM (SELECT l.login, c.key AS customer, r.oid IS NULL AS wrong FROM billing.login_customer l JOIN billing.customer c USING (customer_id)
        LEFT JOIN pg_roles r ON r.rolname = l.login AND r.oid = l.role_oid WHERE l.removed_at IS NULL) x
$$;
COMMENT ON FUNCTION billing_internal.verify_foundation() IS 'The checks of verify() on parties, roles and logins.';

-- ── policies ─────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION billing_internal.require_read_committed(what text DEFAULT 'invoices are not issued') RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM billing_internal.fail('ZB005', format('%s in a %s transaction', what, current_setting('transaction_isolation')),
            'Use READ COMMITTED: events committed just before must be seen.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.require_read_committed(text) IS 'Errors: ZB005 above READ COMMITTED, where events committed after the transaction began could be missed.';

CREATE FUNCTION billing_internal.event_age_default() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE -- bound when made: inlined, so no search_path
    RETURN '5 years'::text;
COMMENT ON FUNCTION billing_internal.event_age_default() IS 'Default of policy event_age_max, which every ingest reads.';
CREATE FUNCTION billing_internal.event_future_default() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE -- bound when made: inlined, so no search_path
    RETURN '1 hour'::text;
COMMENT ON FUNCTION billing_internal.event_future_default() IS 'Default of policy event_future_max, which every ingest reads.';

CREATE FUNCTION billing_internal.policy_definition() RETURNS TABLE (name text, default_value text, form text, most interval, meaning text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    VALUES
    ('rounding_mode', 'half_up', '^(half_up|half_even)$', NULL::interval, 'How a line is rounded to the minor unit: half away from zero, or half to even. Both mirror for credits.'),
    ('rounding_level', 'line', '^(line|invoice)$', NULL, 'line: every line is rounded once and the total is their sum. invoice: the exact total is rounded once and split over the lines.'),
    ('proration_basis', 'day', '^(day|second|30_actual|30_strict|none)$', NULL, 'How a recurring amount is prorated over a partial period: by local days, elapsed seconds, days over 30, 30/360 days over 30, or not at all.'),
    ('minimum_basis', 'after_discount', '^(after_discount|before_discount)$', NULL, 'Whether a minimum is tested on the amount after or before line discounts.'),
    ('rate_at', 'usage_time', '^(usage_time|period_start|contract_signature)$', NULL, 'Which price version rates usage: the one in force when it happened, at the start of its service period, or at signature.'),
    ('tier_continuity', 'continue', '^(continue|reset)$', NULL, 'Where a price has versions inside a period: continue: a quantity keeps its position in the tiers, packages and free units. reset: it begins at 0 with each version.'),
    ('unpriced_usage', 'hold', '^(hold|bill)$', NULL, 'Usage that no price matches. hold: its bill waits. bill: the rest is billed, and what was left out is listed in unpriced_usage until it can be priced.'),
    ('invoice_grace', '0', '^(0|[1-9][0-9]{0,3} (hour|hours|day|days))$', '366 days', 'How long a draft stays open for late usage before it is finalized: 0, 36 hours, 3 days. With 0 the bill run finalizes at once.'),
    ('correction_method', 'next_invoice', '^(next_invoice|credit_note|void_reissue)$', NULL, 'How invoice_correct() corrects an issued invoice if it is not told: by difference lines on the contract''s next invoice, by a credit note (or a correction invoice, where more is due) at once, or by voiding and issuing it again.'),
    ('credit_expiry_grace', '0', '^(0|[1-9][0-9]{0,3} (hour|hours|day|days))$', '366 days', 'How long after its end a block of credit waits for late usage before it expires: 0, 36 hours, 3 days. It always waits until the usage it may pay for is billed.'),
    ('termination_day', 'excluded', '^(excluded|included)$', NULL, 'Whether a contract that is cancelled on a day is still served on it: excluded: it ends as the day begins. included: as it ends.'),
    ('downgrade_timing', 'period_end', '^(period_end|immediate)$', NULL, 'When an amendment or change of plan takes effect that says no date and lowers the fees: at the end of the billing period that runs, or at once.'),
    ('credit_on_decrease', 'credit', '^(credit|none)$', NULL, 'Where a fee billed in advance becomes less inside its period, or ends: credit: the rest is given back. none: what was billed stays billed.'),
    ('co_term', 'day', '^(day|month)$', NULL, 'How a fee that begins inside a period of several months is prorated until its end: day: by proration_basis. month: by months.'),
    ('renewal_index', '', '^(|-?[0-9]{1,4}([.][0-9]{1,4})?)$', NULL, 'Percent by which the index has risen that renewals follow (such as 8.1 for consumer prices), where contract_renew() is not told; empty: none is known.'),
    ('event_age_max', billing_internal.event_age_default(), '^[1-9][0-9]{0,3} (day|days|month|months|year|years)$', '100 years', 'Events older than this are rejected.'),
    ('event_future_max', billing_internal.event_future_default(), '^(0|[1-9][0-9]{0,3}) (minute|minutes|hour|hours|day|days)$', '366 days', 'Events later than now plus this are rejected.');
END;
COMMENT ON FUNCTION billing_internal.policy_definition() IS 'The policies, their defaults, the form of their values and, of lengths of time, the longest.';

CREATE FUNCTION billing_internal.seller_policies(names text[]) RETURNS TABLE (seller_id uuid, name text, value text)
    LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT s.seller_id, d.name, coalesce(p.value, g.value, d.default_value)
    FROM billing.seller s CROSS JOIN billing_internal.policy_definition() d
    LEFT JOIN billing.policy p ON p.name = d.name AND p.scope = 'seller:' || s.key
    LEFT JOIN billing.policy g ON g.name = d.name AND g.scope = 'global'
    WHERE d.name = ANY (names);
END
$$;
COMMENT ON FUNCTION billing_internal.seller_policies(text[]) IS 'The values of these policies in force for each seller: the seller''s own, else the global one, else the default. A contract may have its own (contract_policy).';

CREATE FUNCTION billing_internal.event_age_longest() RETURNS interval
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- The global value counts even where every seller has its own: the next seller has none.
    SELECT max(v.value::interval) FROM (
        SELECT p.value FROM billing.policy p WHERE p.name = 'event_age_max'
        UNION ALL
        SELECT billing_internal.event_age_default() WHERE NOT EXISTS (SELECT FROM billing.policy p WHERE p.name = 'event_age_max' AND p.scope = 'global')) v
$$;
COMMENT ON FUNCTION billing_internal.event_age_longest() IS 'Up to which age events of any seller, of one to come too, are accepted (policy event_age_max).';

CREATE FUNCTION billing.policy_set(name text, value text, scope text DEFAULT 'global', reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    definition record;
    before text;
    of_seller_id uuid;
    removed_until timestamptz;
BEGIN
    PERFORM billing_internal.require_installed();
    SELECT * INTO definition FROM billing_internal.policy_definition() p WHERE p.name = policy_set.name;
    IF name = 'event_age_max' THEN
        PERFORM billing_internal.events_hold();
        SELECT max(r.removed_until) INTO removed_until FROM billing.event_retention r;
    END IF;
    IF definition.name IS NULL THEN
        PERFORM billing_internal.fail('ZB001', format('policy %s is not known', coalesce(quote_literal(name), 'NULL')),
            'SELECT * FROM billing.policies(); lists them.');
    ELSIF value IS NULL OR value !~ definition.form THEN
        PERFORM billing_internal.fail('ZB004', format('%s is not a value of policy %s', coalesce(quote_literal(value), 'NULL'), name),
            format('%sIt must match %s. %s', CASE WHEN value ~ '^0+ ' AND '0' ~ definition.form THEN 'Write 0 without a unit. ' ELSE '' END, definition.form, definition.meaning));
    ELSIF definition.most IS NOT NULL AND value::interval > definition.most THEN
        PERFORM billing_internal.fail('ZB004', format('%s is too long for policy %s', quote_literal(value), name),
            format('At most %s. %s', definition.most, definition.meaning));
    ELSIF name = 'event_age_max' AND value::interval > (SELECT min(r.keep) FROM billing.event_retention r) THEN
        PERFORM billing_internal.fail('ZB005', format('events that are %s old can''t be accepted: events are removed after %s', value, (SELECT min(r.keep) FROM billing.event_retention r)),
            'SELECT * FROM billing.event_retention; says of which type; billing.event_retention_set() keeps them longer.');
    ELSIF name = 'event_age_max' AND value::interval > billing_internal.event_age_longest() AND billing_internal.late_from(value::interval) < removed_until THEN
        PERFORM billing_internal.fail('ZB005', format('events that are %s old can''t be accepted: events before %s have been removed', value, removed_until),
            'What came for a period of which events are gone could not be billed. Keep events longer now, and accept older ones when that many are there.', 'reason events_removed');
    END IF;
    IF scope = 'global' OR scope LIKE 'seller:%' THEN
        IF scope <> 'global' THEN
            of_seller_id := billing_internal.find_seller(substr(scope, 8));
            SELECT 'seller:' || s.key INTO scope FROM billing.seller s WHERE s.seller_id = of_seller_id;
        END IF;
        SELECT p.value INTO before FROM billing.policy p WHERE p.name = policy_set.name AND p.scope = policy_set.scope;
        INSERT INTO billing.policy (name, scope, value, set_at, set_by) VALUES (name, scope, value, clock_timestamp(), billing_internal.caller())
        ON CONFLICT ON CONSTRAINT policy_pkey DO UPDATE SET value = excluded.value, set_at = excluded.set_at, set_by = excluded.set_by;
        PERFORM billing_internal.audit('policy_set', 'policy', name || '@' || scope, NULL, to_jsonb(before), to_jsonb(value), reason);
    ELSIF scope LIKE 'contract:%' THEN
        IF name IN ('event_age_max', 'event_future_max') THEN
            PERFORM billing_internal.fail('ZB004', format('policy %s is about events, not about a contract', name), 'Set it at scope global or seller:<key>.');
        END IF;
        PERFORM billing_internal.contract_policy_set(substr(scope, 10), name, value, reason);
    ELSE
        PERFORM billing_internal.fail('ZB004', format('scope %s is not known', coalesce(quote_literal(scope), 'NULL')),
            'Use global, seller:<key> or contract:<key>.');
    END IF;
END
$$;
COMMENT ON FUNCTION billing.policy_set(text, text, text, text) IS
    'Sets a policy at scope global, seller:<key> or contract:<key>. It acts on what is billed from then on; an invoice records the values it used. Errors: ZB001 unknown policy, seller or contract, ZB004 value or scope, ZB005 events older than those that are kept, or of periods of which events have been removed, would be accepted.';

-- ── money ────────────────────────────────────────────────────────────────────────────────────────

CREATE TYPE billing.money;
CREATE FUNCTION billing_internal.money_in(cstring) RETURNS billing.money
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_in_wrapper';
CREATE FUNCTION billing_internal.money_out(billing.money) RETURNS cstring
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_out_wrapper';
CREATE FUNCTION billing_internal.money_recv(internal) RETURNS billing.money
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_recv_wrapper';
CREATE FUNCTION billing_internal.money_send(billing.money) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_send_wrapper';
CREATE TYPE billing.money (
    INPUT = billing_internal.money_in, OUTPUT = billing_internal.money_out,
    RECEIVE = billing_internal.money_recv, SEND = billing_internal.money_send,
    INTERNALLENGTH = 32, ALIGNMENT = char, STORAGE = plain
);
COMMENT ON FUNCTION billing_internal.money_in(cstring) IS 'Text input of billing.money. Errors: 22P02.';
COMMENT ON FUNCTION billing_internal.money_out(billing.money) IS 'Text output of billing.money.';
COMMENT ON FUNCTION billing_internal.money_recv(internal) IS 'Binary input of billing.money. Errors: 22P03.';
COMMENT ON FUNCTION billing_internal.money_send(billing.money) IS 'Binary output of billing.money.';
COMMENT ON TYPE billing.money IS
    'An exact amount (at most 28 digits) in one currency or unit: ''12.34 USD''. For function boundaries; tables hold amount and currency apart. + and − within one currency, × numeric; to divide, use billing.allocate().';

CREATE FUNCTION billing_internal.money_make(amount numeric, currency text) RETURNS billing.money
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_make_wrapper';
COMMENT ON FUNCTION billing_internal.money_make(numeric, text) IS 'Leaf of billing.to_money().';
CREATE FUNCTION billing_internal.money_make_error(amount numeric, currency text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_make_error_wrapper';
COMMENT ON FUNCTION billing_internal.money_make_error(numeric, text) IS 'Why money_make() gave NULL.';
CREATE FUNCTION billing_internal.money_sum(a billing.money, b billing.money, subtract boolean) RETURNS billing.money
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_sum_wrapper';
COMMENT ON FUNCTION billing_internal.money_sum(billing.money, billing.money, boolean) IS 'Leaf of + and −.';
CREATE FUNCTION billing_internal.money_sum_error(a billing.money, b billing.money, subtract boolean) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_sum_error_wrapper';
COMMENT ON FUNCTION billing_internal.money_sum_error(billing.money, billing.money, boolean) IS 'Why money_sum() gave NULL.';
CREATE FUNCTION billing_internal.money_times(a billing.money, factor numeric) RETURNS billing.money
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_times_wrapper';
COMMENT ON FUNCTION billing_internal.money_times(billing.money, numeric) IS 'Leaf of ×.';
CREATE FUNCTION billing_internal.money_times_error(a billing.money, factor numeric) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_times_error_wrapper';
COMMENT ON FUNCTION billing_internal.money_times_error(billing.money, numeric) IS 'Why money_times() gave NULL.';
CREATE FUNCTION billing_internal.money_order(a billing.money, b billing.money) RETURNS int
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_order_wrapper';
COMMENT ON FUNCTION billing_internal.money_order(billing.money, billing.money) IS 'Leaf of the comparisons: −1, 0, 1, or NULL when the currencies differ.';
CREATE FUNCTION billing_internal.money_order_error(a billing.money, b billing.money) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_order_error_wrapper';
COMMENT ON FUNCTION billing_internal.money_order_error(billing.money, billing.money) IS 'Why money_order() gave NULL.';

CREATE FUNCTION billing.amount(money billing.money) RETURNS numeric
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_amount_wrapper';
COMMENT ON FUNCTION billing.amount(billing.money) IS 'The amount: 12.34 of ''12.34 USD''.';
CREATE FUNCTION billing.currency(money billing.money) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_currency_wrapper';
COMMENT ON FUNCTION billing.currency(billing.money) IS 'The currency or unit: USD of ''12.34 USD''.';

CREATE FUNCTION billing.to_money(amount numeric, currency text) RETURNS billing.money
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result billing.money := billing_internal.money_make(amount, currency);
BEGIN
    IF result IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.money_make_error(amount, currency)::jsonb);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION billing.to_money(numeric, text) IS 'An amount in a currency or unit. Errors: ZB004 for NaN, infinity, more than 28 digits or a malformed code.';

CREATE FUNCTION billing_internal.money_plus(a billing.money, b billing.money) RETURNS billing.money
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result billing.money := billing_internal.money_sum(a, b, false);
BEGIN
    IF result IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.money_sum_error(a, b, false)::jsonb);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION billing_internal.money_plus(billing.money, billing.money) IS 'Sum of two amounts of one currency. Errors: ZB011 currencies differ, ZB004 too many digits.';

CREATE FUNCTION billing_internal.money_minus(a billing.money, b billing.money) RETURNS billing.money
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result billing.money := billing_internal.money_sum(a, b, true);
BEGIN
    IF result IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.money_sum_error(a, b, true)::jsonb);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION billing_internal.money_minus(billing.money, billing.money) IS 'Difference of two amounts of one currency. Errors: ZB011 currencies differ, ZB004 too many digits.';

CREATE FUNCTION billing_internal.money_multiply(a billing.money, factor numeric) RETURNS billing.money
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result billing.money := billing_internal.money_times(a, factor);
BEGIN
    IF result IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.money_times_error(a, factor)::jsonb);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION billing_internal.money_multiply(billing.money, numeric) IS 'An amount times a number, exactly. Errors: ZB004 too many digits.';

CREATE FUNCTION billing_internal.money_compare(a billing.money, b billing.money) RETURNS int
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result int := billing_internal.money_order(a, b);
BEGIN
    IF result IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.money_order_error(a, b)::jsonb);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION billing_internal.money_compare(billing.money, billing.money) IS '−1, 0 or 1 for two amounts of one currency. Errors: ZB011 currencies differ.';

CREATE FUNCTION billing_internal.money_equal(a billing.money, b billing.money) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_equal_wrapper';
COMMENT ON FUNCTION billing_internal.money_equal(billing.money, billing.money) IS 'Same amount and same currency.';
CREATE FUNCTION billing_internal.money_different(a billing.money, b billing.money) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp RETURN NOT billing_internal.money_equal(a, b);
COMMENT ON FUNCTION billing_internal.money_different(billing.money, billing.money) IS 'Other amount or other currency.';
CREATE FUNCTION billing_internal.money_less(a billing.money, b billing.money) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp RETURN billing_internal.money_compare(a, b) < 0;
COMMENT ON FUNCTION billing_internal.money_less(billing.money, billing.money) IS 'Less, within one currency. Errors: ZB011.';
CREATE FUNCTION billing_internal.money_at_most(a billing.money, b billing.money) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp RETURN billing_internal.money_compare(a, b) <= 0;
COMMENT ON FUNCTION billing_internal.money_at_most(billing.money, billing.money) IS 'At most, within one currency. Errors: ZB011.';
CREATE FUNCTION billing_internal.money_greater(a billing.money, b billing.money) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp RETURN billing_internal.money_compare(a, b) > 0;
COMMENT ON FUNCTION billing_internal.money_greater(billing.money, billing.money) IS 'Greater, within one currency. Errors: ZB011.';
CREATE FUNCTION billing_internal.money_at_least(a billing.money, b billing.money) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp RETURN billing_internal.money_compare(a, b) >= 0;
COMMENT ON FUNCTION billing_internal.money_at_least(billing.money, billing.money) IS 'At least, within one currency. Errors: ZB011.';
CREATE FUNCTION billing_internal.money_hash(a billing.money) RETURNS int
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'money_hash_wrapper';
COMMENT ON FUNCTION billing_internal.money_hash(billing.money) IS 'Hash for GROUP BY and DISTINCT.';

CREATE OPERATOR billing.+ (FUNCTION = billing_internal.money_plus, LEFTARG = billing.money, RIGHTARG = billing.money, COMMUTATOR = OPERATOR(billing.+));
CREATE OPERATOR billing.- (FUNCTION = billing_internal.money_minus, LEFTARG = billing.money, RIGHTARG = billing.money);
CREATE OPERATOR billing.* (FUNCTION = billing_internal.money_multiply, LEFTARG = billing.money, RIGHTARG = numeric);
CREATE OPERATOR billing.= (FUNCTION = billing_internal.money_equal, LEFTARG = billing.money, RIGHTARG = billing.money,
    COMMUTATOR = OPERATOR(billing.=), NEGATOR = OPERATOR(billing.<>), HASHES, RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR billing.<> (FUNCTION = billing_internal.money_different, LEFTARG = billing.money, RIGHTARG = billing.money,
    COMMUTATOR = OPERATOR(billing.<>), NEGATOR = OPERATOR(billing.=), RESTRICT = neqsel, JOIN = neqjoinsel);
CREATE OPERATOR billing.< (FUNCTION = billing_internal.money_less, LEFTARG = billing.money, RIGHTARG = billing.money, COMMUTATOR = OPERATOR(billing.>), NEGATOR = OPERATOR(billing.>=));
CREATE OPERATOR billing.<= (FUNCTION = billing_internal.money_at_most, LEFTARG = billing.money, RIGHTARG = billing.money, COMMUTATOR = OPERATOR(billing.>=), NEGATOR = OPERATOR(billing.>));
CREATE OPERATOR billing.> (FUNCTION = billing_internal.money_greater, LEFTARG = billing.money, RIGHTARG = billing.money, COMMUTATOR = OPERATOR(billing.<), NEGATOR = OPERATOR(billing.<=));
CREATE OPERATOR billing.>= (FUNCTION = billing_internal.money_at_least, LEFTARG = billing.money, RIGHTARG = billing.money, COMMUTATOR = OPERATOR(billing.<=), NEGATOR = OPERATOR(billing.<));
COMMENT ON OPERATOR billing.+ (billing.money, billing.money) IS 'Sum within one currency; ZB011 otherwise.';
COMMENT ON OPERATOR billing.- (billing.money, billing.money) IS 'Difference within one currency; ZB011 otherwise.';
COMMENT ON OPERATOR billing.* (billing.money, numeric) IS 'Exact product with a number.';
COMMENT ON OPERATOR billing.= (billing.money, billing.money) IS 'Same amount and same currency.';
COMMENT ON OPERATOR billing.<> (billing.money, billing.money) IS 'Other amount or other currency.';
COMMENT ON OPERATOR billing.< (billing.money, billing.money) IS 'Less, within one currency; ZB011 otherwise.';
COMMENT ON OPERATOR billing.<= (billing.money, billing.money) IS 'At most, within one currency; ZB011 otherwise.';
COMMENT ON OPERATOR billing.> (billing.money, billing.money) IS 'Greater, within one currency; ZB011 otherwise.';
COMMENT ON OPERATOR billing.>= (billing.money, billing.money) IS 'At least, within one currency; ZB011 otherwise.';
-- Hashing gives GROUP BY and DISTINCT. There is no sort order across currencies on purpose: sort by
-- billing.currency(m), billing.amount(m).
CREATE OPERATOR CLASS billing.money_hash_ops DEFAULT FOR TYPE billing.money USING hash AS
    OPERATOR 1 billing.= , FUNCTION 1 billing_internal.money_hash(billing.money);
COMMENT ON OPERATOR CLASS billing.money_hash_ops USING hash IS 'GROUP BY and DISTINCT over billing.money.';

CREATE AGGREGATE billing.sum(billing.money) (
    SFUNC = billing_internal.money_plus, STYPE = billing.money, COMBINEFUNC = billing_internal.money_plus, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.sum(billing.money) IS 'Sum of amounts of one currency; ZB011 when currencies mix.';

CREATE FUNCTION billing_internal.allocate_parts(total numeric, weights numeric[], scale int) RETURNS numeric[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'allocate_parts_wrapper';
COMMENT ON FUNCTION billing_internal.allocate_parts(numeric, numeric[], int) IS 'A total split by weights to scale digits, largest remainder (rules.md 0.6); NULL weights count 0, all-zero weights are equal.';
CREATE FUNCTION billing_internal.allocate_parts_error(total numeric, weights numeric[], scale int) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'allocate_parts_error_wrapper';
COMMENT ON FUNCTION billing_internal.allocate_parts_error(numeric, numeric[], int) IS 'Why allocate_parts() gave NULL.';

CREATE FUNCTION billing.allocate(total billing.money, weights numeric[]) RETURNS billing.money[]
    LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    units int;
    parts numeric[];
BEGIN
    PERFORM billing_internal.require_installed();
    units := billing_internal.check_currency(billing.currency(total), (billing.now() AT TIME ZONE 'UTC')::date);
    parts := billing_internal.allocate_parts(billing.amount(total), weights, units);
    IF parts IS NULL THEN
        PERFORM billing_internal.raise_fault(billing_internal.allocate_parts_error(billing.amount(total), weights, units)::jsonb);
    END IF;
    RETURN ARRAY(SELECT billing_internal.money_make(p.value, billing.currency(total)) FROM unnest(parts) WITH ORDINALITY p (value, place) ORDER BY p.place);
END
$$;
COMMENT ON FUNCTION billing.allocate(billing.money, numeric[]) IS
    'Splits an amount by weights to the currency''s minor unit so that the parts sum to it exactly (largest remainder, ties by position): 100.00 over {1,1,1} is 33.34, 33.33, 33.33. Errors: ZB001 unknown currency, ZB004 more digits than the minor unit, no weights, weights of both signs.';

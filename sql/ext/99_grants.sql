-- Who owns and who may call what.
--
-- Functions that write are SECURITY DEFINER of billing_engine and granted to the roles that may do so; functions
-- that read run with their caller's rights, so row security and column grants hold inside them. Nothing is left
-- to PUBLIC but install() and migrate(), which check for themselves, so that a non-owner gets a clear error.
DO $grants$
DECLARE
    f record;
    may record;
    needs_owner regprocedure[] := ARRAY[
        -- more than the engine has: making partitions, deleting what was moved, dropping drafts, erasing what was logged
        'billing_internal.partition_ensure(timestamptz)'::regprocedure,
        'billing_internal.fold_customer(bigint, int, boolean)'::regprocedure,
        'billing_internal.usage_mend(bigint)'::regprocedure,
        'billing_internal.usage_windows_tidy(bigint)'::regprocedure,
        'billing_internal.events_remove(timestamptz, bigint, int)'::regprocedure,
        'billing_internal.draft_discard(bigint, uuid, int)'::regprocedure,
        'billing_internal.entitlements_store(bigint, jsonb)'::regprocedure,
        'billing_internal.reservations_remove(timestamptz, bigint)'::regprocedure,
        'billing.audit_erase(uuid[], text)'::regprocedure];
    raises regprocedure[] := ARRAY['billing_internal.fail(text, text, text, text)'::regprocedure, 'billing_internal.raise_fault(jsonb)'::regprocedure];
    -- What works with the rights a customer's login has. The others read list prices, policies or the log: for staff.
    for_customers regprocedure[] := ARRAY[
        'billing.now()'::regprocedure, 'billing.usage(text, text, timestamptz, timestamptz, text, text[], jsonb, text)'::regprocedure,
        'billing.credit_statement(text, text, timestamptz, timestamptz)'::regprocedure,
        'billing.entitled(text, text, numeric, jsonb, text)'::regprocedure, 'billing.entitlement_check(text, text, numeric, jsonb, text)'::regprocedure, 'billing.entitlements(text)'::regprocedure, 'billing.why_denied(text, text, numeric, jsonb, text)'::regprocedure,
        'billing.invoice_explain(text)'::regprocedure, 'billing.invoice_explain(jsonb)'::regprocedure, 'billing.invoice_line_events(text, text, int)'::regprocedure,
        'billing.amount(billing.money)'::regprocedure, 'billing.currency(billing.money)'::regprocedure, 'billing.to_money(numeric, text)'::regprocedure,
        'billing.sum(billing.money)'::regprocedure, 'billing.allocate(billing.money, numeric[])'::regprocedure,
        'billing.usage_count()'::regprocedure, 'billing.usage_count("any")'::regprocedure, 'billing.usage_sum(numeric)'::regprocedure,
        'billing.usage_max(numeric)'::regprocedure, 'billing.usage_unique_count(text)'::regprocedure,
        'billing.usage_min(numeric)'::regprocedure, 'billing.usage_average(numeric)'::regprocedure, 'billing.usage_latest(numeric, timestamptz)'::regprocedure,
        'billing.usage_weighted_sum(numeric, timestamptz, timestamptz, timestamptz)'::regprocedure, 'billing.usage_percentile(numeric, numeric)'::regprocedure,
        'billing.usage_unique_count(text, timestamptz, text)'::regprocedure,
        'billing.rate(billing.pricing, numeric, jsonb, bigint)'::regprocedure, 'billing.rate_events(billing.pricing, numeric[])'::regprocedure,
        'billing.rate_explain(billing.pricing, numeric, jsonb, bigint)'::regprocedure, 'billing.catalog_example(text)'::regprocedure,
        'billing.my_spend(date, date, text[], text)'::regprocedure, 'billing.my_credits(text)'::regprocedure, 'billing.my_entitlements(text)'::regprocedure, 'billing.customer_summary(text)'::regprocedure, 'billing.customer_page(text)'::regprocedure];
BEGIN
    FOR f IN SELECT p.oid::regprocedure AS signature, p.pronamespace = 'billing'::regnamespace AS public, p.proname AS name, p.prosecdef, p.provolatile,
            l.lanname AS language FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_billing' LOOP
        IF f.prosecdef THEN
            EXECUTE format('ALTER ROUTINE %s OWNER TO %I', f.signature, CASE WHEN f.signature = ANY (needs_owner) THEN 'billing_owner' ELSE 'billing_engine' END);
        END IF;
        -- Grants come after: a change of owner rewrites them.
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', f.signature);
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO billing_owner, billing_engine', f.signature);
        IF f.public THEN
            -- What is behind these is not for it: who could load meters into a pooled backend (meters_load, call_*) would
            -- change what the application's next ingest counts.
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO billing_admin', f.signature);
        END IF;
        IF NOT f.prosecdef AND (f.provolatile <> 'v' OR f.signature = ANY (raises)) THEN
            -- Readers, leaves, and what they raise with: harmless without rights on the tables.
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO billing_reader', f.signature);
            -- What others asked of a rate limit, shared memory would tell: customer_rate() asks for them.
            IF NOT f.public AND f.name NOT IN ('rate_shared_look', 'rate_peek') OR f.signature = ANY (for_customers) THEN
                EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO billing_customer', f.signature);
            END IF;
        ELSIF NOT f.prosecdef AND f.language = 'c' AND f.name LIKE 'bill\_%' THEN
            -- The batch in which invoice_preview() computes. Staff only, since the backend's memory may hold a batch that
            -- an error left behind.
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO billing_reader', f.signature);
        END IF;
    END LOOP;
    FOR may IN SELECT * FROM (VALUES
        ('{billing_app, billing_operator}'::text[], '{billing.ingest(json, text), "billing.ingest_event(text, text, text, timestamptz, jsonb, text)", billing.ingest_from(regclass)}'::text[]),
        ('{billing_app, billing_operator, billing_admin}', '{"billing_internal.ingest_rows(text[], text[], text[], text[], text[], text[])"}'),
        ('{billing_app, billing_operator, billing_sales}', '{billing.customer_upsert(jsonb), "billing.subscribe(text, text, date, jsonb)"}'),
        ('{billing_operator, billing_sales}', '{billing.contract_create(jsonb), "billing.contract_activate(text, timestamptz, text, text)"}'),
        ('{billing_app, billing_operator}', '{"billing.draw_down(text, numeric, text, text, jsonb)"}'),
        ('{billing_operator, billing_finance, billing_sales}', '{"billing.credit_grant_create(text, jsonb)", "billing.credit_purchase(text, jsonb)", "billing.top_up_rule_set(text, jsonb)"}'),
        ('{billing_app, billing_operator}', '{"billing.consume(text, text, numeric, text, jsonb, text)", "billing.reservation_create(text, text, numeric, text, interval, jsonb, text)",
            "billing.reservation_confirm(uuid, numeric)", "billing.reservation_release(uuid)", "billing.seat_assign(text, text, text)", "billing.seat_release(text, text, text)"}'),
        ('{billing_app, billing_operator}', '{"billing.rate_limit(text, text, numeric)"}'),
        ('{billing_operator}', '{"billing.reservation_expiry_step(int)", billing.reservation_expiry()}'),
        ('{billing_operator}', '{"billing.entitlement_override(text, text, jsonb, timestamptz, text)", "billing.entitlement_override_end(text, text, text)"}'),
        ('{billing_operator, billing_finance}', '{"billing.credit_void(text, text)", "billing.credit_refund(text, numeric, text)", "billing.credit_extend(text, timestamptz, text)",
            "billing.credit_expiry_step(int)", billing.credit_expiry(), "billing.top_up_step(bigint, int)", billing.top_up()}'),
        ('{billing_operator, billing_sales}', '{"billing.contract_amend(text, jsonb, timestamptz, text)", "billing.contract_change_plan(text, text, text, text)", "billing.contract_pause(text, timestamptz, text)",
            "billing.contract_resume(text, timestamptz, boolean, text)", "billing.contract_cancel(text, text, text)", "billing.contract_notice(text, timestamptz, text)", "billing.contract_renew(text, numeric, text)",
            "billing.contract_preview(jsonb, int)"}'),
        ('{billing_operator}', '{"billing.renewal_step(uuid, int)", billing.renewal()}'),
        ('{billing_operator}', '{"billing.price_publish(jsonb, timestamptz, boolean)", "billing.price_withdraw(text, int, text)"}'),
        ('{billing_operator}', '{"billing.event_void(text, text, text)",
            "billing.event_amend(text, text, text, text, timestamptz, jsonb, text)", "billing.event_replace(text, text, timestamptz, timestamptz, json, text, boolean)",
            "billing.rejected_event_retry(int, text, text)", "billing.rejected_event_resolve(uuid, text, text)", "billing.ingest_limit_set(text, numeric, int, text)"}'),
        ('{billing_operator}', '{"billing.catalog_apply(jsonb, boolean)", "billing.usage_source_set(text, regclass, text, text, text)", "billing.usage_source_end(text, text)",
            "billing.sample_step(uuid, text)", billing.sample(), "billing_internal.sample_rows(text[], text[], text[], text[], text[], text[])", "billing_internal.source_store(text, text, text, text, text)", "billing_internal.sample_begin(text)", "billing_internal.sample_issue(uuid, text, text, text, text)"}'),
        ('{billing_admin}', '{"billing_internal.sample_rows(text[], text[], text[], text[], text[], text[])", "billing_internal.source_store(text, text, text, text, text)", "billing_internal.sample_begin(text)", "billing_internal.sample_issue(uuid, text, text, text, text)"}'),
        ('{billing_operator}', '{"billing.event_retention_set(text, interval, text)", "billing.retention_step(uuid, int)", billing.retention()}'),
        ('{billing_operator, billing_finance}', '{"billing.invoice_generate(text, timestamptz)", "billing.invoice_finalize(text)", "billing.invoice_void(text, text, boolean)", "billing.invoice_correct(text, text, text, boolean)",
            "billing.bill_run_start(timestamptz)", "billing.bill_run_step(uuid, int)", "billing.fold_step(uuid, int)", "billing.meter_rebuild_start(text, timestamptz, timestamptz, text)", "billing.meter_rebuild_step(uuid, int)",
            "billing.meter_rebuild(text, timestamptz, timestamptz, text)", "billing.job_start(text, jsonb, bigint)", "billing.job_end(uuid, jsonb)",
            "billing.audit_seal_step()", billing.bill_run(timestamptz), billing.fold(), billing.audit_seal(), billing.tick()}'),
        ('{billing_operator, billing_finance, billing_sales, billing_success}', '{"billing.spend_limit_set(text, jsonb)", "billing.budget_set(text, jsonb)", "billing.alert_rule_set(text, jsonb)"}'),
        ('{billing_app, billing_operator, billing_finance}', '{"billing.events_after(bigint, int)"}'),
        ('{billing_operator}', '{"billing.alerts_step(bigint, int, uuid)", billing.alerts()}'),
        -- Readers that are definers, for one customer that the caller may see
        ('{billing_reader, billing_customer}', '{billing_internal.customer_bills(bigint), "billing_internal.customer_spend(bigint, timestamptz, timestamptz, text[])", billing_internal.customer_pending(bigint), "billing_internal.customer_credit_left(bigint, text)", "billing_internal.customer_limits(bigint, int, numeric, jsonb, text, text)", "billing_internal.customer_rate(bigint, int, numeric, numeric, numeric, interval)"}'),
        ('{billing_finance}', '{billing.time_travel(timestamptz)}'),
        ('{billing_finance}', '{billing.seller_upsert(jsonb), "billing.policy_set(text, text, text, text)"}')
    ) m (roles, routines) LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', array_to_string(may.routines, ', '), array_to_string(may.roles, ', '));
    END LOOP;
END
$grants$;
GRANT EXECUTE ON FUNCTION billing.install(text), billing.migrate() TO PUBLIC;

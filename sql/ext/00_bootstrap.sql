-- Roles and schemas, before anything else. Roles belong to the cluster and survive DROP EXTENSION.
--
-- billing            what people see. Named in the control file, so not a member of the extension.
-- billing_internal   machinery and partitions. Made here only if absent and then released from the
--                    extension, so that DROP EXTENSION keeps it and the tables in it.

DO $bootstrap$
DECLARE
    role_name text;
    owner_name name;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['billing_owner', 'billing_engine', 'billing_admin', 'billing_operator', 'billing_app',
        'billing_finance', 'billing_success', 'billing_sales', 'billing_reader', 'billing_customer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    -- Whoever may act may read.
    GRANT billing_reader TO billing_admin, billing_operator, billing_app, billing_finance, billing_success, billing_sales;

    SELECT r.rolname INTO owner_name FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
    WHERE n.nspname = 'billing_internal';
    IF owner_name IS NULL THEN
        CREATE SCHEMA billing_internal;
        ALTER EXTENSION pg_billing DROP SCHEMA billing_internal;
    ELSIF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = owner_name) THEN
        RAISE EXCEPTION 'the schema billing_internal belongs to %, who is no superuser', owner_name
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Rename or drop that schema; whoever owns it could replace functions that bill.';
    END IF;
END
$bootstrap$;

-- Everyone may look into billing: what is in it has its own grants, and install() must be callable to say who may.
GRANT USAGE ON SCHEMA billing TO PUBLIC;
GRANT USAGE ON SCHEMA billing_internal TO billing_owner, billing_engine, billing_reader, billing_customer;
GRANT CREATE ON SCHEMA billing, billing_internal TO billing_owner;
COMMENT ON SCHEMA billing IS 'pg_billing: usage, rating, contracts and invoices. Start with SELECT * FROM billing.install();';
COMMENT ON SCHEMA billing_internal IS 'pg_billing''s machinery and partitions. Nothing here is an interface.';

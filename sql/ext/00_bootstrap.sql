-- Roles and schemas, before anything else. Roles belong to the cluster and survive DROP EXTENSION.
--
-- billing            what people see. Named in the control file, so not a member of the extension.
-- billing_internal   machinery and partitions. Made here only if absent and then released from the
--                    extension, so that DROP EXTENSION keeps it and the tables in it.
--
-- Until check_ground() has passed, either schema may be somebody else's, and hold a format(text, name) that would run
-- as the superuser who creates the extension: the path comes first, for this whole script.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $bootstrap$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['billing_owner', 'billing_engine', 'billing_admin', 'billing_operator', 'billing_app',
        'billing_finance', 'billing_success', 'billing_sales', 'billing_reader', 'billing_customer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    IF to_regnamespace('billing_internal') IS NULL THEN
        CREATE SCHEMA billing_internal;
        ALTER EXTENSION pg_billing DROP SCHEMA billing_internal;
    END IF;
END
$bootstrap$;

CREATE FUNCTION billing_internal.ground_faults() RETURNS TABLE (fault text, hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH trusted AS (
        SELECT r.oid FROM pg_roles r WHERE r.rolsuper OR r.rolname IN ('billing_owner', 'billing_engine')
    ), ours AS (
        SELECT n.* FROM pg_namespace n WHERE n.nspname IN ('billing', 'billing_internal')
    ), object (class, id, schema, owner) AS (
        SELECT 'pg_class'::regclass, c.oid, c.relnamespace, c.relowner FROM pg_class c
        UNION ALL SELECT 'pg_proc'::regclass, p.oid, p.pronamespace, p.proowner FROM pg_proc p
        UNION ALL SELECT 'pg_type'::regclass, t.oid, t.typnamespace, t.typowner FROM pg_type t
        UNION ALL SELECT 'pg_operator'::regclass, o.oid, o.oprnamespace, o.oprowner FROM pg_operator o
        UNION ALL SELECT 'pg_opclass'::regclass, k.oid, k.opcnamespace, k.opcowner FROM pg_opclass k
        UNION ALL SELECT 'pg_opfamily'::regclass, f.oid, f.opfnamespace, f.opfowner FROM pg_opfamily f
        UNION ALL SELECT 'pg_collation'::regclass, c.oid, c.collnamespace, c.collowner FROM pg_collation c
        UNION ALL SELECT 'pg_conversion'::regclass, c.oid, c.connamespace, c.conowner FROM pg_conversion c
        UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid, s.stxnamespace, s.stxowner FROM pg_statistic_ext s
        UNION ALL SELECT 'pg_ts_config'::regclass, c.oid, c.cfgnamespace, c.cfgowner FROM pg_ts_config c
        UNION ALL SELECT 'pg_ts_dict'::regclass, d.oid, d.dictnamespace, d.dictowner FROM pg_ts_dict d
    )
    SELECT f.fault, f.hint FROM (
        SELECT 1 AS place, format('the schema %s belongs to %s, who is no superuser', n.nspname, pg_get_userbyid(n.nspowner)) AS fault,
            'Rename or drop that schema; whoever owns it could replace functions that bill.' AS hint
        FROM ours n WHERE n.nspowner NOT IN (SELECT t.oid FROM trusted t)
        UNION ALL
        SELECT 2, format('%s may create objects in the schema %s', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, n.nspname),
            format('REVOKE CREATE ON SCHEMA %s FROM %s; a function put there could be called instead of one of ours.', n.nspname,
                CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
        FROM ours n, aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE' AND a.grantee NOT IN (SELECT t.oid FROM trusted t)
        UNION ALL
        SELECT 3, format('%s belongs to %s, who is no superuser', pg_describe_object(o.class, o.id, 0), pg_get_userbyid(o.owner)),
            'Drop it or move it to another schema: here it could be used instead of an object of ours.'
        FROM object o JOIN ours n ON n.oid = o.schema WHERE o.owner NOT IN (SELECT t.oid FROM trusted t)
        UNION ALL
        SELECT 4, format('the role %s may %s', r.rolname, x.may),
            format('If a stranger made it, drop it; else: ALTER ROLE %I %s;', r.rolname, x.attribute)
        FROM pg_roles r, LATERAL (VALUES
            (r.rolsuper, 'do everything', 'NOSUPERUSER'), (r.rolcreaterole, 'make roles', 'NOCREATEROLE'), (r.rolbypassrls, 'bypass row security', 'NOBYPASSRLS'),
            (r.rolcanlogin AND r.rolname IN ('billing_owner', 'billing_engine'), 'log in', 'NOLOGIN')) x (has, may, attribute)
        WHERE r.rolname IN ('billing_owner', 'billing_engine', 'billing_admin', 'billing_operator', 'billing_app', 'billing_finance', 'billing_success',
            'billing_sales', 'billing_reader', 'billing_customer') AND x.has
        UNION ALL
        SELECT 5, format('%s is a member of %s', m.rolname, r.rolname), format('REVOKE %I FROM %I; nobody acts as this role.', r.rolname, m.rolname)
        FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
        WHERE r.rolname IN ('billing_owner', 'billing_engine') AND NOT m.rolsuper
        UNION ALL
        -- What a former member may have left behind: rights on every table that install() makes.
        SELECT DISTINCT 6, format('new objects of %s come with rights for others', r.rolname),
            format('ALTER DEFAULT PRIVILEGES FOR ROLE %I REVOKE …; psql''s \ddp shows them.', r.rolname)
        FROM pg_default_acl d JOIN pg_roles r ON r.oid = d.defaclrole WHERE r.rolname IN ('billing_owner', 'billing_engine')
    ) f ORDER BY f.place, f.fault
$$;
COMMENT ON FUNCTION billing_internal.ground_faults() IS
    'Who could put a function of his own in place of ours, or act as the roles that own and write: strangers who own or may create in our schemas, and roles with attributes or members they must not have.';

CREATE FUNCTION billing_internal.check_ground() RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f record;
BEGIN
    SELECT * INTO f FROM billing_internal.ground_faults() LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%', f.fault USING ERRCODE = 'insufficient_privilege', HINT = f.hint;
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.check_ground() IS 'Errors: 42501 unless our schemas and roles are ours alone. Asked by CREATE EXTENSION, install() and migrate(); verify() lists all of it.';

SELECT billing_internal.check_ground();

-- Whoever may act may read.
GRANT billing_reader TO billing_admin, billing_operator, billing_app, billing_finance, billing_success, billing_sales;

-- Everyone may look into billing: what is in it has its own grants, and install() must be callable to say who may.
GRANT USAGE ON SCHEMA billing TO PUBLIC;
GRANT USAGE ON SCHEMA billing_internal TO billing_owner, billing_engine, billing_reader, billing_customer;
GRANT CREATE ON SCHEMA billing, billing_internal TO billing_owner;
COMMENT ON SCHEMA billing IS 'pg_billing: usage, rating, contracts and invoices. Start with SELECT * FROM billing.install();';
COMMENT ON SCHEMA billing_internal IS 'pg_billing''s machinery and partitions. Nothing here is an interface.';

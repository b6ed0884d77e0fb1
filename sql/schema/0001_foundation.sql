-- Foundation: what every layer stands on. Run once by billing.install() as billing_owner.
-- Stored objects here use built-in functions and types only, so DROP EXTENSION keeps them.

-- ── helpers that stored objects may use (never members of the extension) ──────────────────────────

CREATE FUNCTION billing_internal.caller() RETURNS name
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN current_setting('role') = 'none' THEN session_user ELSE current_setting('role')::name END;
COMMENT ON FUNCTION billing_internal.caller() IS
    'Who is asking, also inside SECURITY DEFINER functions: the role set by SET ROLE, else the login.';

-- A table is declared as one kind; the kind decides who sees its rows.
--   customer-owned  customer_id leads every key; a customer's login sees its own rows
--   directory       globally unique names of customers' things; a customer's login sees its own rows
--   catalogue       small and shared: prices, plans, sellers; no row security
--   seller-owned    our legal entities' counters and periods; no row security, staff only
--   machinery       jobs, seals, rejected events; staff only
CREATE FUNCTION billing_internal.declare_table(
    target regclass, kind text, engine_updates text[] DEFAULT '{}', customer_columns text[] DEFAULT '{}', customer_rows text DEFAULT NULL
) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF kind NOT IN ('customer-owned', 'directory', 'catalogue', 'seller-owned', 'machinery') THEN
        RAISE EXCEPTION 'table kind % is not known', kind;
    END IF;
    INSERT INTO billing_internal.table_kind VALUES (target::text, kind);
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', target);
    EXECUTE format('GRANT SELECT, INSERT ON %s TO billing_engine', target);
    EXECUTE format('GRANT SELECT ON %s TO billing_reader', target);
    IF engine_updates <> '{}' THEN
        EXECUTE format('GRANT UPDATE (%s) ON %s TO billing_engine',
            (SELECT string_agg(quote_ident(c), ', ') FROM unnest(engine_updates) c), target);
    END IF;
    IF customer_columns <> '{}' THEN
        EXECUTE format('GRANT SELECT (%s) ON %s TO billing_customer',
            (SELECT string_agg(quote_ident(c), ', ') FROM unnest(customer_columns) c), target);
    END IF;
    IF kind IN ('customer-owned', 'directory') THEN
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
        EXECUTE format('CREATE POLICY owner_all ON %s TO billing_owner USING (true) WITH CHECK (true)', target);
        EXECUTE format('CREATE POLICY engine_all ON %s TO billing_engine USING (true) WITH CHECK (true)', target);
        EXECUTE format('CREATE POLICY staff_read ON %s FOR SELECT TO billing_reader USING (true)', target);
        EXECUTE format('CREATE POLICY customer_read ON %s FOR SELECT TO billing_customer '
            'USING (customer_id = ANY ((SELECT billing_internal.my_customers())::bigint[])%s)', target, ' AND (' || customer_rows || ')');
    END IF;
END
$$;
COMMENT ON FUNCTION billing_internal.declare_table(regclass, text, text[], text[], text) IS
    'Gives a new table its kind, its grants and its row security: the engine may select, insert and update only the named closing columns; a customer''s login sees the named columns of its own rows, as far as customer_rows holds for them.';

CREATE TABLE billing_internal.table_kind (
    table_name text COLLATE "C" PRIMARY KEY,
    kind text COLLATE "C" NOT NULL
);
COMMENT ON TABLE billing_internal.table_kind IS 'The declared kind of every table, for the catalogue test and billing.distribute().';
COMMENT ON COLUMN billing_internal.table_kind.table_name IS 'The table, with its schema.';
COMMENT ON COLUMN billing_internal.table_kind.kind IS 'customer-owned, directory, catalogue, seller-owned or machinery.';
INSERT INTO billing_internal.table_kind VALUES ('billing_internal.table_kind', 'machinery');
GRANT SELECT ON billing_internal.table_kind TO billing_reader, billing_engine;

-- ── the installation itself ──────────────────────────────────────────────────────────────────────

CREATE TABLE billing.installation (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('live', 'test')),
    schema_version int NOT NULL,
    installed_at timestamptz NOT NULL
);
COMMENT ON TABLE billing.installation IS 'One row: what this database holds.';
COMMENT ON COLUMN billing.installation.only_one IS 'Always true; keeps the table to one row.';
COMMENT ON COLUMN billing.installation.mode IS 'live, or test (the clock may be moved for good).';
COMMENT ON COLUMN billing.installation.schema_version IS 'Version of the newest schema file applied.';
COMMENT ON COLUMN billing.installation.installed_at IS 'Real time of install().';
SELECT billing_internal.declare_table('billing.installation', 'machinery', '{}', '{only_one, mode, schema_version, installed_at}');

CREATE TABLE billing.schema_migration (
    version int PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    sha256 text COLLATE "C" NOT NULL,
    applied_at timestamptz NOT NULL
);
COMMENT ON TABLE billing.schema_migration IS 'The schema files applied to this database, with their checksums.';
COMMENT ON COLUMN billing.schema_migration.version IS 'Number of the file.';
COMMENT ON COLUMN billing.schema_migration.name IS 'Its name, sql/schema/<name>.sql.';
COMMENT ON COLUMN billing.schema_migration.sha256 IS 'SHA-256 of its text when it was applied.';
COMMENT ON COLUMN billing.schema_migration.applied_at IS 'Real time.';
SELECT billing_internal.declare_table('billing.schema_migration', 'machinery');

-- ── machinery ────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE billing_internal.counter (
    name text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL DEFAULT 0 CHECK (value >= 0)
);
COMMENT ON TABLE billing_internal.counter IS 'Last number given out, per kind of id. A row, not a sequence: it is dumped, replicated and rolls back.';
COMMENT ON COLUMN billing_internal.counter.name IS 'What is counted: customer_id, meter_id, catalogue (bumped by every change that ingest must see).';
COMMENT ON COLUMN billing_internal.counter.value IS 'The last number given out.';
INSERT INTO billing_internal.counter VALUES ('customer_id', 0), ('meter_id', 0), ('catalogue', 0);
SELECT billing_internal.declare_table('billing_internal.counter', 'machinery', '{value}');

CREATE TABLE billing.audit_log (
    audit_id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    customer_id bigint,
    before jsonb,
    after jsonb,
    reason text,
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    seal_n bigint,
    erased_by uuid,
    before_hash bytea CHECK (length(before_hash) = 32),
    after_hash bytea CHECK (length(after_hash) = 32),
    CHECK (CASE WHEN erased_by IS NULL THEN before_hash IS NULL AND after_hash IS NULL ELSE before IS NULL AND after IS NULL END)
);
CREATE INDEX audit_log_unsealed_idx ON billing.audit_log (audit_id) WHERE seal_n IS NULL;
CREATE INDEX audit_log_customer_idx ON billing.audit_log (customer_id, at) WHERE customer_id IS NOT NULL;
CREATE INDEX audit_log_seal_idx ON billing.audit_log (seal_n, audit_id) WHERE seal_n IS NOT NULL;
COMMENT ON TABLE billing.audit_log IS 'Every business change: who, when, before and after. Append-only; sealed in hash-chained batches by billing.audit_seal().';
COMMENT ON COLUMN billing.audit_log.audit_id IS 'UUIDv7 from the real clock.';
COMMENT ON COLUMN billing.audit_log.at IS 'Real time of the change (never the test clock).';
COMMENT ON COLUMN billing.audit_log.actor IS 'The role that asked.';
COMMENT ON COLUMN billing.audit_log.action IS 'The function that did it, such as contract_create.';
COMMENT ON COLUMN billing.audit_log.kind IS 'Kind of thing changed: customer, contract, invoice, price …';
COMMENT ON COLUMN billing.audit_log.key IS 'Its key or number.';
COMMENT ON COLUMN billing.audit_log.customer_id IS 'The customer it belongs to; NULL for the catalogue.';
COMMENT ON COLUMN billing.audit_log.before IS 'What stood before; NULL for something new, or once erased (personal data) by billing.audit_erase().';
COMMENT ON COLUMN billing.audit_log.after IS 'What stands now; NULL for something ended, or once erased (personal data) by billing.audit_erase().';
COMMENT ON COLUMN billing.audit_log.reason IS 'Why, in the words of the person who did it.';
COMMENT ON COLUMN billing.audit_log.content_hash IS 'SHA-256 of the row''s canonical content, taken when it was written; of before and after it covers their hashes.';
COMMENT ON COLUMN billing.audit_log.seal_n IS 'The seal that covers this row; NULL until sealed.';
COMMENT ON COLUMN billing.audit_log.erased_by IS 'The entry (action audit_erase) that erased before and after; NULL = they are as written.';
COMMENT ON COLUMN billing.audit_log.before_hash IS 'SHA-256 of an erased before, by which the row still verifies.';
COMMENT ON COLUMN billing.audit_log.after_hash IS 'SHA-256 of an erased after, by which the row still verifies.';
SELECT billing_internal.declare_table('billing.audit_log', 'machinery', '{seal_n}');

CREATE TABLE billing.audit_seal (
    n bigint PRIMARY KEY CHECK (n > 0),
    sealed_at timestamptz NOT NULL,
    entries bigint NOT NULL CHECK (entries > 0),
    previous bytea NOT NULL CHECK (length(previous) = 32),
    chain_hash bytea NOT NULL CHECK (length(chain_hash) = 32)
);
COMMENT ON TABLE billing.audit_seal IS 'The hash chain over audit_log: seal n covers a batch of entries and seal n−1.';
COMMENT ON COLUMN billing.audit_seal.n IS 'Number of the seal, from 1 without gaps.';
COMMENT ON COLUMN billing.audit_seal.sealed_at IS 'Real time of sealing.';
COMMENT ON COLUMN billing.audit_seal.entries IS 'How many audit_log rows it covers.';
COMMENT ON COLUMN billing.audit_seal.previous IS 'chain_hash of seal n−1; 32 zero bytes for the first.';
COMMENT ON COLUMN billing.audit_seal.chain_hash IS 'SHA-256 of previous and the covered rows'' content hashes in order of audit_id. Keep the newest one outside the database to prove nothing was rewritten.';
SELECT billing_internal.declare_table('billing.audit_seal', 'machinery');

CREATE TABLE billing.job_run (
    job_run_id uuid PRIMARY KEY,
    job text COLLATE "C" NOT NULL,
    arguments jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    state text COLLATE "C" NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done')),
    done bigint NOT NULL DEFAULT 0,
    total bigint,
    issues bigint NOT NULL DEFAULT 0,
    result jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX job_run_started_idx ON billing.job_run (job, started_at);
COMMENT ON TABLE billing.job_run IS 'One row per run of a job, with its progress: done of total. Readable while the run goes on, since runs commit in batches.';
COMMENT ON COLUMN billing.job_run.job_run_id IS 'UUIDv7 of the run.';
COMMENT ON COLUMN billing.job_run.job IS 'bill_run, fold, audit_seal …';
COMMENT ON COLUMN billing.job_run.arguments IS 'What it was called with.';
COMMENT ON COLUMN billing.job_run.started_at IS 'Real time it began.';
COMMENT ON COLUMN billing.job_run.finished_at IS 'Real time it ended; NULL while it runs, or when an error or a crash ended it.';
COMMENT ON COLUMN billing.job_run.state IS 'running or done. done may have issues; a run that an error or a crash ended stays running: a new one takes up what it left.';
COMMENT ON COLUMN billing.job_run.done IS 'Things done so far (contracts billed, customers folded).';
COMMENT ON COLUMN billing.job_run.total IS 'Things to do, counted when the run began; NULL if unknown.';
COMMENT ON COLUMN billing.job_run.issues IS 'How many things were left out with a reason in job_issue.';
COMMENT ON COLUMN billing.job_run.result IS 'Figures of the run, such as invoices made.';
SELECT billing_internal.declare_table('billing.job_run', 'machinery', '{finished_at, state, done, total, issues, result}');

CREATE TABLE billing.job_issue (
    job_issue_id uuid PRIMARY KEY,
    job_run_id uuid NOT NULL REFERENCES billing.job_run,
    at timestamptz NOT NULL,
    customer_id bigint,
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    sqlstate text COLLATE "C" NOT NULL,
    message text NOT NULL,
    detail text,
    hint text
);
CREATE INDEX job_issue_run_idx ON billing.job_issue (job_run_id, kind, key);
COMMENT ON TABLE billing.job_issue IS 'What a run could not do and why. A broken contract never stops the others.';
COMMENT ON COLUMN billing.job_issue.job_issue_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.job_issue.job_run_id IS 'The run.';
COMMENT ON COLUMN billing.job_issue.at IS 'Real time.';
COMMENT ON COLUMN billing.job_issue.customer_id IS 'The customer, if it is about one.';
COMMENT ON COLUMN billing.job_issue.kind IS 'Kind of thing left out: contract, meter …';
COMMENT ON COLUMN billing.job_issue.key IS 'Its key.';
COMMENT ON COLUMN billing.job_issue.sqlstate IS 'Code of the error (class ZB: docs/errors.md).';
COMMENT ON COLUMN billing.job_issue.message IS 'What is wrong, with the value.';
COMMENT ON COLUMN billing.job_issue.detail IS 'More about it.';
COMMENT ON COLUMN billing.job_issue.hint IS 'What helps.';
SELECT billing_internal.declare_table('billing.job_issue', 'machinery');

-- ── catalogue: currencies, sellers, policies ─────────────────────────────────────────────────────

CREATE TABLE billing.currency (
    code text COLLATE "C" NOT NULL CHECK (code ~ '^[A-Za-z][A-Za-z0-9_]{1,11}$'),
    valid_from date NOT NULL DEFAULT '0001-01-01',
    valid_until date CHECK (valid_until > valid_from),
    numeric_code smallint,
    minor_units smallint NOT NULL CHECK (minor_units BETWEEN 0 AND 12),
    name text NOT NULL,
    PRIMARY KEY (code, valid_from),
    CONSTRAINT currency_validity_excl EXCLUDE USING gist (
        code WITH =, daterange(valid_from, valid_until) WITH &&)
);
COMMENT ON TABLE billing.currency IS 'ISO 4217 currencies and pricing units with their minor units, effective-dated: lists change, old invoices do not.';
COMMENT ON COLUMN billing.currency.code IS 'ISO 4217 code, or a pricing unit such as credits (a letter, then up to 11 letters, digits or _).';
COMMENT ON COLUMN billing.currency.valid_from IS 'First day on which invoices may use it (inclusive).';
COMMENT ON COLUMN billing.currency.valid_until IS 'First day on which they no longer may (exclusive); NULL = still valid.';
COMMENT ON COLUMN billing.currency.numeric_code IS 'ISO 4217 number; NULL for pricing units.';
COMMENT ON COLUMN billing.currency.minor_units IS 'Digits after the point of a posted amount: USD 2, JPY 0, KWD 3.';
COMMENT ON COLUMN billing.currency.name IS 'English name.';
SELECT billing_internal.declare_table('billing.currency', 'catalogue', '{valid_until}',
    '{code, valid_from, valid_until, numeric_code, minor_units, name}');

CREATE TABLE billing.seller (
    seller_id uuid PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200),
    name text NOT NULL,
    currency text COLLATE "C" NOT NULL,
    time_zone text COLLATE "C" NOT NULL,
    fiscal_year_start smallint NOT NULL DEFAULT 1 CHECK (fiscal_year_start BETWEEN 1 AND 12),
    invoice_series text COLLATE "C" NOT NULL DEFAULT 'INV' CHECK (invoice_series ~ '^[A-Za-z0-9]{1,12}$'),
    address jsonb NOT NULL DEFAULT '{}',
    tax_ids jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE billing.seller IS 'Our own legal entities that invoice. install() makes one: default.';
COMMENT ON COLUMN billing.seller.seller_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.seller.key IS 'Its key, unique.';
COMMENT ON COLUMN billing.seller.name IS 'Legal name, as invoices show it.';
COMMENT ON COLUMN billing.seller.currency IS 'Base currency (ISO 4217); default of its customers.';
COMMENT ON COLUMN billing.seller.time_zone IS 'IANA zone; the fiscal year of an invoice number is read in it.';
COMMENT ON COLUMN billing.seller.fiscal_year_start IS 'Month (1–12) in which its fiscal year begins. A fiscal year is named by the calendar year it begins in.';
COMMENT ON COLUMN billing.seller.invoice_series IS 'Prefix of its invoice numbers: INV gives INV-2026-000001.';
COMMENT ON COLUMN billing.seller.address IS 'Postal address as an object.';
COMMENT ON COLUMN billing.seller.tax_ids IS 'Tax registrations: [{"type","value"}].';
COMMENT ON COLUMN billing.seller.created_at IS 'Real time of the first seller_upsert.';
SELECT billing_internal.declare_table('billing.seller', 'catalogue',
    '{name, currency, time_zone, fiscal_year_start, invoice_series, address, tax_ids}', '{seller_id, key, name, address, tax_ids}');

CREATE TABLE billing.seller_bank_account (
    seller_id uuid NOT NULL REFERENCES billing.seller,
    key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    currency text COLLATE "C" NOT NULL,
    holder text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    closed_at timestamptz,
    PRIMARY KEY (seller_id, key)
);
COMMENT ON TABLE billing.seller_bank_account IS 'Where customers pay a seller. Printed on invoices; holds no secret.';
COMMENT ON COLUMN billing.seller_bank_account.seller_id IS 'The seller.';
COMMENT ON COLUMN billing.seller_bank_account.key IS 'Key, unique within the seller.';
COMMENT ON COLUMN billing.seller_bank_account.currency IS 'Currency of the account (ISO 4217).';
COMMENT ON COLUMN billing.seller_bank_account.holder IS 'Account holder.';
COMMENT ON COLUMN billing.seller_bank_account.details IS 'IBAN, BIC, routing and account number, as printed.';
COMMENT ON COLUMN billing.seller_bank_account.closed_at IS 'When it was closed; NULL = in use.';
SELECT billing_internal.declare_table('billing.seller_bank_account', 'catalogue', '{currency, holder, details, closed_at}',
    '{seller_id, key, currency, holder, details, closed_at}');

CREATE TABLE billing.policy (
    name text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL DEFAULT 'global' CHECK (scope = 'global' OR scope LIKE 'seller:%'),
    value text COLLATE "C" NOT NULL,
    set_at timestamptz NOT NULL,
    set_by text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, scope)
);
COMMENT ON TABLE billing.policy IS 'Settings on which the field disagrees, for the whole installation or one seller. billing.policies() shows all with their meaning.';
COMMENT ON COLUMN billing.policy.name IS 'Name of the policy, as billing.policies() lists it.';
COMMENT ON COLUMN billing.policy.scope IS 'global, or seller:<key>. A contract''s own setting (contract_policy) beats the seller''s, that beats global.';
COMMENT ON COLUMN billing.policy.value IS 'The value in force.';
COMMENT ON COLUMN billing.policy.set_at IS 'Real time it was last set.';
COMMENT ON COLUMN billing.policy.set_by IS 'Role that set it.';
SELECT billing_internal.declare_table('billing.policy', 'catalogue', '{value, set_at, set_by}');

-- ── directory: customers ─────────────────────────────────────────────────────────────────────────

CREATE TABLE billing.login_customer (
    login name NOT NULL,
    customer_id bigint NOT NULL,
    role_oid oid NOT NULL,
    removed_at timestamptz,
    PRIMARY KEY (login, customer_id)
);
COMMENT ON TABLE billing.login_customer IS 'Which database roles speak for which customer. Written by billing.customer_login_add() and customer_login_remove() only.';
COMMENT ON COLUMN billing.login_customer.login IS 'A database role.';
COMMENT ON COLUMN billing.login_customer.customer_id IS 'The customer whose rows it sees.';
COMMENT ON COLUMN billing.login_customer.role_oid IS 'The role itself: one made anew under the same name, or of the same name on another server, is another one.';
COMMENT ON COLUMN billing.login_customer.removed_at IS 'When that ended; NULL = it holds.';

CREATE FUNCTION billing_internal.my_customers() RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT coalesce(array_agg(l.customer_id), '{}') FROM billing.login_customer l JOIN pg_roles r ON r.rolname = l.login AND r.oid = l.role_oid
        WHERE l.login = billing_internal.caller() AND l.removed_at IS NULL);
COMMENT ON FUNCTION billing_internal.my_customers() IS 'The customers the caller speaks for. The one function every row policy asks.';
SELECT billing_internal.declare_table('billing.login_customer', 'directory', '{role_oid, removed_at}', '{login, customer_id, removed_at}');

CREATE TABLE billing.customer (
    customer_id bigint PRIMARY KEY CHECK (customer_id > 0),
    key text COLLATE "C" NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200),
    name text NOT NULL,
    seller_id uuid NOT NULL REFERENCES billing.seller,
    currency text COLLATE "C" NOT NULL,
    time_zone text COLLATE "C" NOT NULL,
    attributes jsonb NOT NULL DEFAULT '{}',
    bucket_minutes smallint NOT NULL DEFAULT 60 CHECK (bucket_minutes IN (15, 60)),
    terms_version int NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE billing.customer IS 'The party under contract and the isolation boundary. Its legal entities that receive invoices are bill_to rows.';
COMMENT ON COLUMN billing.customer.customer_id IS 'Leads every key of customer-owned tables. Never changes.';
COMMENT ON COLUMN billing.customer.key IS 'Your name for it, unique; aliases are in customer_alias.';
COMMENT ON COLUMN billing.customer.name IS 'Display name.';
COMMENT ON COLUMN billing.customer.seller_id IS 'The seller its contracts are with by default.';
COMMENT ON COLUMN billing.customer.currency IS 'Default currency of its contracts. Fixed once usage is billed.';
COMMENT ON COLUMN billing.customer.time_zone IS 'IANA zone of its days and months. Fixed once usage is billed.';
COMMENT ON COLUMN billing.customer.attributes IS 'Your own facts (segment, channel, region) for analysis.';
COMMENT ON COLUMN billing.customer.bucket_minutes IS 'Width of its usage buckets: 60, or 15 once one of its zones is not on whole hours. Never goes back.';
COMMENT ON COLUMN billing.customer.terms_version IS 'Counts changes of its customer-wide price overrides; an invoice records the one it used.';
COMMENT ON COLUMN billing.customer.created_at IS 'Real time of the first customer_upsert.';
SELECT billing_internal.declare_table('billing.customer', 'directory',
    '{name, seller_id, currency, time_zone, attributes, bucket_minutes, terms_version}',
    '{customer_id, key, name, seller_id, currency, time_zone, bucket_minutes, created_at}');

CREATE TABLE billing.customer_alias (
    alias text COLLATE "C" PRIMARY KEY CHECK (length(alias) BETWEEN 1 AND 200),
    customer_id bigint NOT NULL REFERENCES billing.customer,
    removed_at timestamptz
);
CREATE INDEX customer_alias_customer_idx ON billing.customer_alias (customer_id);
COMMENT ON TABLE billing.customer_alias IS 'Other names of a customer that events and calls may use. An alias never moves to another customer.';
COMMENT ON COLUMN billing.customer_alias.alias IS 'The other name, unique in the installation.';
COMMENT ON COLUMN billing.customer_alias.customer_id IS 'Whose it is.';
COMMENT ON COLUMN billing.customer_alias.removed_at IS 'When it was taken out of use; NULL = in use.';
SELECT billing_internal.declare_table('billing.customer_alias', 'directory', '{removed_at}', '{alias, customer_id, removed_at}');

-- ── customer-owned: legal entities, people, orders, payment references ───────────────────────────

CREATE TABLE billing.bill_to (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    bill_to_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    position int NOT NULL,
    name text NOT NULL,
    address jsonb NOT NULL DEFAULT '{}',
    tax_ids jsonb NOT NULL DEFAULT '[]',
    email text,
    time_zone text COLLATE "C",
    retired_at timestamptz,
    PRIMARY KEY (customer_id, bill_to_id),
    UNIQUE (customer_id, key)
);
COMMENT ON TABLE billing.bill_to IS 'The legal entities inside a customer that receive invoices. The first in position is the default.';
COMMENT ON COLUMN billing.bill_to.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.bill_to.bill_to_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.bill_to.key IS 'Key, unique within the customer; events may name it as bill_to.';
COMMENT ON COLUMN billing.bill_to.position IS 'Order; the lowest that is not retired is the default.';
COMMENT ON COLUMN billing.bill_to.name IS 'Legal name on invoices.';
COMMENT ON COLUMN billing.bill_to.address IS 'Postal address as an object.';
COMMENT ON COLUMN billing.bill_to.tax_ids IS 'Tax registrations: [{"type","value"}].';
COMMENT ON COLUMN billing.bill_to.email IS 'Where its invoices go.';
COMMENT ON COLUMN billing.bill_to.time_zone IS 'IANA zone of its issue and due dates; NULL = the contract''s.';
COMMENT ON COLUMN billing.bill_to.retired_at IS 'When it stopped receiving new invoices; NULL = in use.';
SELECT billing_internal.declare_table('billing.bill_to', 'customer-owned',
    '{position, name, address, tax_ids, email, time_zone, retired_at}',
    '{customer_id, bill_to_id, key, position, name, address, tax_ids, email, time_zone, retired_at}');

CREATE TABLE billing.contact (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    contact_id uuid NOT NULL,
    role text COLLATE "C" NOT NULL CHECK (role IN ('billing', 'ap', 'technical', 'exec', 'account_executive', 'csm')),
    name text NOT NULL,
    email text,
    bill_to_id uuid,
    removed_at timestamptz,
    PRIMARY KEY (customer_id, contact_id),
    FOREIGN KEY (customer_id, bill_to_id) REFERENCES billing.bill_to (customer_id, bill_to_id)
);
COMMENT ON TABLE billing.contact IS 'People: the customer''s (billing, ap, technical, exec) and ours for it (account_executive, csm).';
COMMENT ON COLUMN billing.contact.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.contact.contact_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.contact.role IS 'billing, ap, technical, exec, account_executive or csm.';
COMMENT ON COLUMN billing.contact.name IS 'Name of the person or desk.';
COMMENT ON COLUMN billing.contact.email IS 'E-mail address.';
COMMENT ON COLUMN billing.contact.bill_to_id IS 'The legal entity it is about; NULL = all.';
COMMENT ON COLUMN billing.contact.removed_at IS 'When it was replaced; NULL = current.';
SELECT billing_internal.declare_table('billing.contact', 'customer-owned', '{removed_at}',
    '{customer_id, contact_id, role, name, email, bill_to_id, removed_at}');

CREATE TABLE billing.purchase_order (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    purchase_order_id uuid NOT NULL,
    number text COLLATE "C" NOT NULL CHECK (length(number) BETWEEN 1 AND 200),
    bill_to_id uuid,
    amount numeric CHECK (amount > 0),
    currency text COLLATE "C",
    valid_from date NOT NULL,
    valid_until date CHECK (valid_until > valid_from),
    closed_at timestamptz,
    PRIMARY KEY (customer_id, purchase_order_id),
    UNIQUE (customer_id, number),
    FOREIGN KEY (customer_id, bill_to_id) REFERENCES billing.bill_to (customer_id, bill_to_id)
);
COMMENT ON TABLE billing.purchase_order IS 'Purchase orders a customer gave us, printed on its invoices.';
COMMENT ON COLUMN billing.purchase_order.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.purchase_order.purchase_order_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.purchase_order.number IS 'The customer''s number for it.';
COMMENT ON COLUMN billing.purchase_order.bill_to_id IS 'The legal entity it is for; NULL = all.';
COMMENT ON COLUMN billing.purchase_order.amount IS 'Its limit in currency; NULL = none.';
COMMENT ON COLUMN billing.purchase_order.currency IS 'Currency of the limit.';
COMMENT ON COLUMN billing.purchase_order.valid_from IS 'First day (inclusive).';
COMMENT ON COLUMN billing.purchase_order.valid_until IS 'Day after the last (exclusive); NULL = open.';
COMMENT ON COLUMN billing.purchase_order.closed_at IS 'When it was closed; NULL = open.';
SELECT billing_internal.declare_table('billing.purchase_order', 'customer-owned', '{valid_until, closed_at}',
    '{customer_id, purchase_order_id, number, bill_to_id, amount, currency, valid_from, valid_until, closed_at}');

CREATE TABLE billing.payment_method (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    payment_method_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    processor text COLLATE "C" NOT NULL,
    reference text COLLATE "C" NOT NULL,
    label text NOT NULL,
    removed_at timestamptz,
    PRIMARY KEY (customer_id, payment_method_id),
    UNIQUE (customer_id, key)
);
COMMENT ON TABLE billing.payment_method IS 'How a customer pays, as the processor''s reference. Never a card or account number.';
COMMENT ON COLUMN billing.payment_method.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.payment_method.payment_method_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.payment_method.key IS 'Key, unique within the customer.';
COMMENT ON COLUMN billing.payment_method.processor IS 'Which processor holds it: stripe, adyen, manual …';
COMMENT ON COLUMN billing.payment_method.reference IS 'The processor''s id of it (a token, not the number itself).';
COMMENT ON COLUMN billing.payment_method.label IS 'What a person sees: Visa ending 4242.';
COMMENT ON COLUMN billing.payment_method.removed_at IS 'When it was removed; NULL = usable.';
SELECT billing_internal.declare_table('billing.payment_method', 'customer-owned', '{removed_at}',
    '{customer_id, payment_method_id, key, processor, label, removed_at}');

GRANT EXECUTE ON FUNCTION billing_internal.caller(), billing_internal.my_customers() TO billing_engine, billing_reader, billing_customer;
REVOKE EXECUTE ON FUNCTION billing_internal.caller(), billing_internal.my_customers(),
    billing_internal.declare_table(regclass, text, text[], text[], text) FROM PUBLIC;

-- ── ISO 4217, as of 2026 ─────────────────────────────────────────────────────────────────────────
INSERT INTO billing.currency (code, valid_from, valid_until, numeric_code, minor_units, name) VALUES
    ('AED', '0001-01-01', NULL, 784, 2, 'UAE Dirham'),
    ('AFN', '0001-01-01', NULL, 971, 2, 'Afghani'),
    ('ALL', '0001-01-01', NULL, 8, 2, 'Lek'),
    ('AMD', '0001-01-01', NULL, 51, 2, 'Armenian Dram'),
    ('ANG', '0001-01-01', '2025-07-01', 532, 2, 'Netherlands Antillean Guilder'),
    ('AOA', '0001-01-01', NULL, 973, 2, 'Kwanza'),
    ('ARS', '0001-01-01', NULL, 32, 2, 'Argentine Peso'),
    ('AUD', '0001-01-01', NULL, 36, 2, 'Australian Dollar'),
    ('AWG', '0001-01-01', NULL, 533, 2, 'Aruban Florin'),
    ('AZN', '0001-01-01', NULL, 944, 2, 'Azerbaijan Manat'),
    ('BAM', '0001-01-01', NULL, 977, 2, 'Convertible Mark'),
    ('BBD', '0001-01-01', NULL, 52, 2, 'Barbados Dollar'),
    ('BDT', '0001-01-01', NULL, 50, 2, 'Taka'),
    ('BGN', '0001-01-01', '2026-01-01', 975, 2, 'Bulgarian Lev'),
    ('BHD', '0001-01-01', NULL, 48, 3, 'Bahraini Dinar'),
    ('BIF', '0001-01-01', NULL, 108, 0, 'Burundi Franc'),
    ('BMD', '0001-01-01', NULL, 60, 2, 'Bermudian Dollar'),
    ('BND', '0001-01-01', NULL, 96, 2, 'Brunei Dollar'),
    ('BOB', '0001-01-01', NULL, 68, 2, 'Boliviano'),
    ('BOV', '0001-01-01', NULL, 984, 2, 'Mvdol'),
    ('BRL', '0001-01-01', NULL, 986, 2, 'Brazilian Real'),
    ('BSD', '0001-01-01', NULL, 44, 2, 'Bahamian Dollar'),
    ('BTN', '0001-01-01', NULL, 64, 2, 'Ngultrum'),
    ('BWP', '0001-01-01', NULL, 72, 2, 'Pula'),
    ('BYN', '2016-07-01', NULL, 933, 2, 'Belarusian Ruble'),
    ('BYR', '0001-01-01', '2017-01-01', 974, 0, 'Belarusian Ruble'),
    ('BZD', '0001-01-01', NULL, 84, 2, 'Belize Dollar'),
    ('CAD', '0001-01-01', NULL, 124, 2, 'Canadian Dollar'),
    ('CDF', '0001-01-01', NULL, 976, 2, 'Congolese Franc'),
    ('CHE', '0001-01-01', NULL, 947, 2, 'WIR Euro'),
    ('CHF', '0001-01-01', NULL, 756, 2, 'Swiss Franc'),
    ('CHW', '0001-01-01', NULL, 948, 2, 'WIR Franc'),
    ('CLF', '0001-01-01', NULL, 990, 4, 'Unidad de Fomento'),
    ('CLP', '0001-01-01', NULL, 152, 0, 'Chilean Peso'),
    ('CNY', '0001-01-01', NULL, 156, 2, 'Yuan Renminbi'),
    ('COP', '0001-01-01', NULL, 170, 2, 'Colombian Peso'),
    ('COU', '0001-01-01', NULL, 970, 2, 'Unidad de Valor Real'),
    ('CRC', '0001-01-01', NULL, 188, 2, 'Costa Rican Colon'),
    ('CUC', '0001-01-01', '2021-07-01', 931, 2, 'Peso Convertible'),
    ('CUP', '0001-01-01', NULL, 192, 2, 'Cuban Peso'),
    ('CVE', '0001-01-01', NULL, 132, 2, 'Cabo Verde Escudo'),
    ('CZK', '0001-01-01', NULL, 203, 2, 'Czech Koruna'),
    ('DJF', '0001-01-01', NULL, 262, 0, 'Djibouti Franc'),
    ('DKK', '0001-01-01', NULL, 208, 2, 'Danish Krone'),
    ('DOP', '0001-01-01', NULL, 214, 2, 'Dominican Peso'),
    ('DZD', '0001-01-01', NULL, 12, 2, 'Algerian Dinar'),
    ('EEK', '0001-01-01', '2011-01-01', 233, 2, 'Kroon'),
    ('EGP', '0001-01-01', NULL, 818, 2, 'Egyptian Pound'),
    ('ERN', '0001-01-01', NULL, 232, 2, 'Nakfa'),
    ('ETB', '0001-01-01', NULL, 230, 2, 'Ethiopian Birr'),
    ('EUR', '1999-01-01', NULL, 978, 2, 'Euro'),
    ('FJD', '0001-01-01', NULL, 242, 2, 'Fiji Dollar'),
    ('FKP', '0001-01-01', NULL, 238, 2, 'Falkland Islands Pound'),
    ('GBP', '0001-01-01', NULL, 826, 2, 'Pound Sterling'),
    ('GEL', '0001-01-01', NULL, 981, 2, 'Lari'),
    ('GHS', '0001-01-01', NULL, 936, 2, 'Ghana Cedi'),
    ('GIP', '0001-01-01', NULL, 292, 2, 'Gibraltar Pound'),
    ('GMD', '0001-01-01', NULL, 270, 2, 'Dalasi'),
    ('GNF', '0001-01-01', NULL, 324, 0, 'Guinean Franc'),
    ('GTQ', '0001-01-01', NULL, 320, 2, 'Quetzal'),
    ('GYD', '0001-01-01', NULL, 328, 2, 'Guyana Dollar'),
    ('HKD', '0001-01-01', NULL, 344, 2, 'Hong Kong Dollar'),
    ('HNL', '0001-01-01', NULL, 340, 2, 'Lempira'),
    ('HRK', '0001-01-01', '2023-01-01', 191, 2, 'Kuna'),
    ('HTG', '0001-01-01', NULL, 332, 2, 'Gourde'),
    ('HUF', '0001-01-01', NULL, 348, 2, 'Forint'),
    ('IDR', '0001-01-01', NULL, 360, 2, 'Rupiah'),
    ('ILS', '0001-01-01', NULL, 376, 2, 'New Israeli Sheqel'),
    ('INR', '0001-01-01', NULL, 356, 2, 'Indian Rupee'),
    ('IQD', '0001-01-01', NULL, 368, 3, 'Iraqi Dinar'),
    ('IRR', '0001-01-01', NULL, 364, 2, 'Iranian Rial'),
    ('ISK', '0001-01-01', NULL, 352, 0, 'Iceland Krona'),
    ('JMD', '0001-01-01', NULL, 388, 2, 'Jamaican Dollar'),
    ('JOD', '0001-01-01', NULL, 400, 3, 'Jordanian Dinar'),
    ('JPY', '0001-01-01', NULL, 392, 0, 'Yen'),
    ('KES', '0001-01-01', NULL, 404, 2, 'Kenyan Shilling'),
    ('KGS', '0001-01-01', NULL, 417, 2, 'Som'),
    ('KHR', '0001-01-01', NULL, 116, 2, 'Riel'),
    ('KMF', '0001-01-01', NULL, 174, 0, 'Comorian Franc'),
    ('KPW', '0001-01-01', NULL, 408, 2, 'North Korean Won'),
    ('KRW', '0001-01-01', NULL, 410, 0, 'Won'),
    ('KWD', '0001-01-01', NULL, 414, 3, 'Kuwaiti Dinar'),
    ('KYD', '0001-01-01', NULL, 136, 2, 'Cayman Islands Dollar'),
    ('KZT', '0001-01-01', NULL, 398, 2, 'Tenge'),
    ('LAK', '0001-01-01', NULL, 418, 2, 'Lao Kip'),
    ('LBP', '0001-01-01', NULL, 422, 2, 'Lebanese Pound'),
    ('LKR', '0001-01-01', NULL, 144, 2, 'Sri Lanka Rupee'),
    ('LRD', '0001-01-01', NULL, 430, 2, 'Liberian Dollar'),
    ('LSL', '0001-01-01', NULL, 426, 2, 'Loti'),
    ('LTL', '0001-01-01', '2015-01-01', 440, 2, 'Lithuanian Litas'),
    ('LVL', '0001-01-01', '2014-01-01', 428, 2, 'Latvian Lats'),
    ('LYD', '0001-01-01', NULL, 434, 3, 'Libyan Dinar'),
    ('MAD', '0001-01-01', NULL, 504, 2, 'Moroccan Dirham'),
    ('MDL', '0001-01-01', NULL, 498, 2, 'Moldovan Leu'),
    ('MGA', '0001-01-01', NULL, 969, 2, 'Malagasy Ariary'),
    ('MKD', '0001-01-01', NULL, 807, 2, 'Denar'),
    ('MMK', '0001-01-01', NULL, 104, 2, 'Kyat'),
    ('MNT', '0001-01-01', NULL, 496, 2, 'Tugrik'),
    ('MOP', '0001-01-01', NULL, 446, 2, 'Pataca'),
    ('MRO', '0001-01-01', '2018-01-01', 478, 2, 'Ouguiya'),
    ('MRU', '2018-01-01', NULL, 929, 2, 'Ouguiya'),
    ('MUR', '0001-01-01', NULL, 480, 2, 'Mauritius Rupee'),
    ('MVR', '0001-01-01', NULL, 462, 2, 'Rufiyaa'),
    ('MWK', '0001-01-01', NULL, 454, 2, 'Malawi Kwacha'),
    ('MXN', '0001-01-01', NULL, 484, 2, 'Mexican Peso'),
    ('MXV', '0001-01-01', NULL, 979, 2, 'Mexican Unidad de Inversion (UDI)'),
    ('MYR', '0001-01-01', NULL, 458, 2, 'Malaysian Ringgit'),
    ('MZN', '0001-01-01', NULL, 943, 2, 'Mozambique Metical'),
    ('NAD', '0001-01-01', NULL, 516, 2, 'Namibia Dollar'),
    ('NGN', '0001-01-01', NULL, 566, 2, 'Naira'),
    ('NIO', '0001-01-01', NULL, 558, 2, 'Cordoba Oro'),
    ('NOK', '0001-01-01', NULL, 578, 2, 'Norwegian Krone'),
    ('NPR', '0001-01-01', NULL, 524, 2, 'Nepalese Rupee'),
    ('NZD', '0001-01-01', NULL, 554, 2, 'New Zealand Dollar'),
    ('OMR', '0001-01-01', NULL, 512, 3, 'Rial Omani'),
    ('PAB', '0001-01-01', NULL, 590, 2, 'Balboa'),
    ('PEN', '0001-01-01', NULL, 604, 2, 'Sol'),
    ('PGK', '0001-01-01', NULL, 598, 2, 'Kina'),
    ('PHP', '0001-01-01', NULL, 608, 2, 'Philippine Peso'),
    ('PKR', '0001-01-01', NULL, 586, 2, 'Pakistan Rupee'),
    ('PLN', '0001-01-01', NULL, 985, 2, 'Zloty'),
    ('PYG', '0001-01-01', NULL, 600, 0, 'Guarani'),
    ('QAR', '0001-01-01', NULL, 634, 2, 'Qatari Rial'),
    ('RON', '0001-01-01', NULL, 946, 2, 'Romanian Leu'),
    ('RSD', '0001-01-01', NULL, 941, 2, 'Serbian Dinar'),
    ('RUB', '0001-01-01', NULL, 643, 2, 'Russian Ruble'),
    ('RWF', '0001-01-01', NULL, 646, 0, 'Rwanda Franc'),
    ('SAR', '0001-01-01', NULL, 682, 2, 'Saudi Riyal'),
    ('SBD', '0001-01-01', NULL, 90, 2, 'Solomon Islands Dollar'),
    ('SCR', '0001-01-01', NULL, 690, 2, 'Seychelles Rupee'),
    ('SDG', '0001-01-01', NULL, 938, 2, 'Sudanese Pound'),
    ('SEK', '0001-01-01', NULL, 752, 2, 'Swedish Krona'),
    ('SGD', '0001-01-01', NULL, 702, 2, 'Singapore Dollar'),
    ('SHP', '0001-01-01', NULL, 654, 2, 'Saint Helena Pound'),
    ('SKK', '0001-01-01', '2009-01-01', 703, 2, 'Slovak Koruna'),
    ('SLE', '2022-04-01', NULL, 925, 2, 'Leone'),
    ('SLL', '0001-01-01', '2024-04-01', 694, 2, 'Leone'),
    ('SOS', '0001-01-01', NULL, 706, 2, 'Somali Shilling'),
    ('SRD', '0001-01-01', NULL, 968, 2, 'Surinam Dollar'),
    ('SSP', '0001-01-01', NULL, 728, 2, 'South Sudanese Pound'),
    ('STD', '0001-01-01', '2018-01-01', 678, 2, 'Dobra'),
    ('STN', '2018-01-01', NULL, 930, 2, 'Dobra'),
    ('SVC', '0001-01-01', NULL, 222, 2, 'El Salvador Colon'),
    ('SYP', '0001-01-01', NULL, 760, 2, 'Syrian Pound'),
    ('SZL', '0001-01-01', NULL, 748, 2, 'Lilangeni'),
    ('THB', '0001-01-01', NULL, 764, 2, 'Baht'),
    ('TJS', '0001-01-01', NULL, 972, 2, 'Somoni'),
    ('TMT', '0001-01-01', NULL, 934, 2, 'Turkmenistan New Manat'),
    ('TND', '0001-01-01', NULL, 788, 3, 'Tunisian Dinar'),
    ('TOP', '0001-01-01', NULL, 776, 2, 'Pa’anga'),
    ('TRY', '0001-01-01', NULL, 949, 2, 'Turkish Lira'),
    ('TTD', '0001-01-01', NULL, 780, 2, 'Trinidad and Tobago Dollar'),
    ('TWD', '0001-01-01', NULL, 901, 2, 'New Taiwan Dollar'),
    ('TZS', '0001-01-01', NULL, 834, 2, 'Tanzanian Shilling'),
    ('UAH', '0001-01-01', NULL, 980, 2, 'Hryvnia'),
    ('UGX', '0001-01-01', NULL, 800, 0, 'Uganda Shilling'),
    ('USD', '0001-01-01', NULL, 840, 2, 'US Dollar'),
    ('USN', '0001-01-01', NULL, 997, 2, 'US Dollar (Next day)'),
    ('UYI', '0001-01-01', NULL, 940, 0, 'Uruguay Peso en Unidades Indexadas (UI)'),
    ('UYU', '0001-01-01', NULL, 858, 2, 'Peso Uruguayo'),
    ('UYW', '2018-08-29', NULL, 927, 4, 'Unidad Previsional'),
    ('UZS', '0001-01-01', NULL, 860, 2, 'Uzbekistan Sum'),
    ('VED', '2021-10-01', NULL, 926, 2, 'Bolívar Soberano'),
    ('VEF', '0001-01-01', '2018-08-20', 937, 2, 'Bolívar'),
    ('VES', '2018-08-20', NULL, 928, 2, 'Bolívar Soberano'),
    ('VND', '0001-01-01', NULL, 704, 0, 'Dong'),
    ('VUV', '0001-01-01', NULL, 548, 0, 'Vatu'),
    ('WST', '0001-01-01', NULL, 882, 2, 'Tala'),
    ('XAD', '0001-01-01', NULL, 396, 2, 'Arab Accounting Dinar'),
    ('XAF', '0001-01-01', NULL, 950, 0, 'CFA Franc BEAC'),
    ('XCD', '0001-01-01', NULL, 951, 2, 'East Caribbean Dollar'),
    ('XCG', '2025-03-31', NULL, 532, 2, 'Caribbean Guilder'),
    ('XOF', '0001-01-01', NULL, 952, 0, 'CFA Franc BCEAO'),
    ('XPF', '0001-01-01', NULL, 953, 0, 'CFP Franc'),
    ('YER', '0001-01-01', NULL, 886, 2, 'Yemeni Rial'),
    ('ZAR', '0001-01-01', NULL, 710, 2, 'Rand'),
    ('ZMK', '0001-01-01', '2013-01-01', 894, 2, 'Zambian Kwacha'),
    ('ZMW', '0001-01-01', NULL, 967, 2, 'Zambian Kwacha'),
    ('ZWG', '2024-08-31', NULL, 924, 2, 'Zimbabwe Gold'),
    ('ZWL', '0001-01-01', '2024-09-01', 932, 2, 'Zimbabwe Dollar');

-- Contracts: the one commercial concept. Bitemporal: validity in time, knowledge by version number.

CREATE TABLE billing.plan (
    plan_id uuid PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200),
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz
);
COMMENT ON TABLE billing.plan IS 'Standard terms that customers subscribe to.';
COMMENT ON COLUMN billing.plan.plan_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.plan.key IS 'Its key, unique.';
COMMENT ON COLUMN billing.plan.name IS 'Its name.';
COMMENT ON COLUMN billing.plan.created_at IS 'Real time.';
COMMENT ON COLUMN billing.plan.retired_at IS 'When it stopped taking new contracts; NULL = open.';
SELECT billing_internal.declare_table('billing.plan', 'catalogue', '{name, retired_at}', '{plan_id, key, name, retired_at}');

CREATE TABLE billing.plan_version (
    plan_id uuid NOT NULL REFERENCES billing.plan,
    version int NOT NULL CHECK (version > 0),
    document jsonb NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (plan_id, version)
);
COMMENT ON TABLE billing.plan_version IS 'Versions of a plan; a contract keeps the version it was made on.';
COMMENT ON COLUMN billing.plan_version.plan_id IS 'The plan.';
COMMENT ON COLUMN billing.plan_version.version IS '1, 2, …';
COMMENT ON COLUMN billing.plan_version.document IS 'The canonical plan document.';
COMMENT ON COLUMN billing.plan_version.recorded_at IS 'Real time it was published.';
SELECT billing_internal.declare_table('billing.plan_version', 'catalogue');

CREATE TABLE billing.contract (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    contract_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    seller_id uuid NOT NULL REFERENCES billing.seller,
    bill_to_id uuid NOT NULL,
    plan_id uuid,
    plan_version int,
    currency text COLLATE "C" NOT NULL,
    time_zone text COLLATE "C" NOT NULL,
    starts_on date NOT NULL,
    ends_on date CHECK (ends_on > starts_on),
    starts_at timestamptz NOT NULL,
    ends_at timestamptz CHECK (ends_at > starts_at),
    billed_every text COLLATE "C" NOT NULL,
    alignment text COLLATE "C" NOT NULL CHECK (alignment IN ('calendar', 'anniversary')),
    net_days int NOT NULL CHECK (net_days BETWEEN 0 AND 3650),
    collection text COLLATE "C" NOT NULL CHECK (collection IN ('send_invoice', 'charge_automatically')),
    prices text COLLATE "C" NOT NULL CHECK (prices IN ('float', 'pin')),
    state text COLLATE "C" NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'scheduled', 'active', 'paused', 'ended', 'cancelled')),
    version int NOT NULL DEFAULT 1 CHECK (version > 0),
    next_n int NOT NULL DEFAULT 0 CHECK (next_n >= 0),
    next_bill_at timestamptz,
    signed_at timestamptz,
    document_url text,
    document_sha256 text COLLATE "C",
    created_at timestamptz NOT NULL,
    stripe smallint NOT NULL GENERATED ALWAYS AS (customer_id % 256) STORED,
    PRIMARY KEY (customer_id, contract_id),
    UNIQUE (customer_id, key),
    FOREIGN KEY (customer_id, bill_to_id) REFERENCES billing.bill_to (customer_id, bill_to_id),
    FOREIGN KEY (plan_id, plan_version) REFERENCES billing.plan_version (plan_id, version)
);
CREATE INDEX contract_due_idx ON billing.contract (stripe, next_bill_at, customer_id, contract_id) WHERE state IN ('scheduled', 'active');
COMMENT ON TABLE billing.contract IS 'A deal with a customer. Its terms are in contract_charge and price_override, by effective range and version.';
COMMENT ON COLUMN billing.contract.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.contract.contract_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.contract.key IS 'Its key, unique in the installation (contract_key).';
COMMENT ON COLUMN billing.contract.seller_id IS 'Our legal entity.';
COMMENT ON COLUMN billing.contract.bill_to_id IS 'The customer''s legal entity invoiced by default.';
COMMENT ON COLUMN billing.contract.plan_id IS 'The plan it was made on; NULL = none.';
COMMENT ON COLUMN billing.contract.plan_version IS 'The plan''s version.';
COMMENT ON COLUMN billing.contract.currency IS 'Currency of all its amounts.';
COMMENT ON COLUMN billing.contract.time_zone IS 'IANA zone of its period boundaries.';
COMMENT ON COLUMN billing.contract.starts_on IS 'First local day (inclusive).';
COMMENT ON COLUMN billing.contract.ends_on IS 'Day after the last (exclusive); NULL = evergreen.';
COMMENT ON COLUMN billing.contract.starts_at IS 'Local midnight of starts_on as an instant.';
COMMENT ON COLUMN billing.contract.ends_at IS 'Local midnight of ends_on as an instant; NULL = evergreen.';
COMMENT ON COLUMN billing.contract.billed_every IS 'Billing interval: 1 month, 3 months …';
COMMENT ON COLUMN billing.contract.alignment IS 'calendar (firsts of months) or anniversary (of starts_on).';
COMMENT ON COLUMN billing.contract.net_days IS 'Days from issue to due date.';
COMMENT ON COLUMN billing.contract.collection IS 'send_invoice or charge_automatically.';
COMMENT ON COLUMN billing.contract.prices IS 'float: the list version in force at usage time; pin: the versions in force at signing, for the whole term.';
COMMENT ON COLUMN billing.contract.state IS 'draft, scheduled (starts later), active, paused, ended or cancelled.';
COMMENT ON COLUMN billing.contract.version IS 'Newest version of its terms (contract_version).';
COMMENT ON COLUMN billing.contract.next_n IS 'Earliest unbilled boundary: the start of billing period next_n.';
COMMENT ON COLUMN billing.contract.next_bill_at IS 'Instant of that boundary: due once now reaches it. NULL = nothing left to bill.';
COMMENT ON COLUMN billing.contract.signed_at IS 'When it was signed.';
COMMENT ON COLUMN billing.contract.document_url IS 'Where the signed document is kept.';
COMMENT ON COLUMN billing.contract.document_sha256 IS 'SHA-256 of the signed document, 64 hexadecimal digits.';
COMMENT ON COLUMN billing.contract.created_at IS 'Real time.';
COMMENT ON COLUMN billing.contract.stripe IS 'customer_id mod 256: the lock under which it is billed.';
SELECT billing_internal.declare_table('billing.contract', 'customer-owned',
    '{state, version, next_n, next_bill_at, signed_at, document_url, document_sha256, ends_on, ends_at}',
    '{customer_id, contract_id, key, seller_id, bill_to_id, plan_id, plan_version, currency, time_zone, starts_on, ends_on, starts_at, ends_at, billed_every, alignment, net_days, collection, prices, state, version, next_n, next_bill_at, signed_at, document_url, document_sha256, stripe, created_at}',
    'state <> ''draft''');

CREATE TABLE billing.contract_key (
    key text COLLATE "C" PRIMARY KEY,
    customer_id bigint NOT NULL,
    contract_id uuid NOT NULL
);
CREATE INDEX contract_key_contract_idx ON billing.contract_key (contract_id);
COMMENT ON TABLE billing.contract_key IS 'Contract keys, unique in the installation.';
COMMENT ON COLUMN billing.contract_key.key IS 'The key.';
COMMENT ON COLUMN billing.contract_key.customer_id IS 'Whose contract it is.';
COMMENT ON COLUMN billing.contract_key.contract_id IS 'The contract.';
SELECT billing_internal.declare_table('billing.contract_key', 'directory', '{}', '{key, customer_id, contract_id}',
    'EXISTS (SELECT FROM billing.contract k WHERE k.customer_id = contract_key.customer_id AND k.contract_id = contract_key.contract_id AND k.state <> ''draft'')');

CREATE TABLE billing.contract_version (
    customer_id bigint NOT NULL,
    contract_id uuid NOT NULL,
    version int NOT NULL CHECK (version > 0),
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('create', 'amend')),
    reason text,
    document jsonb NOT NULL,
    PRIMARY KEY (customer_id, contract_id, version),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract
);
CREATE INDEX contract_version_recorded_idx ON billing.contract_version (recorded_at);
COMMENT ON TABLE billing.contract_version IS 'What was agreed, version by version: effective_at says from when it holds, recorded_at since when we know.';
COMMENT ON COLUMN billing.contract_version.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.contract_version.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.contract_version.version IS '1 when created, then one per amendment.';
COMMENT ON COLUMN billing.contract_version.effective_at IS 'From when it holds (inclusive).';
COMMENT ON COLUMN billing.contract_version.recorded_at IS 'Real time it was recorded.';
COMMENT ON COLUMN billing.contract_version.kind IS 'create or amend.';
COMMENT ON COLUMN billing.contract_version.reason IS 'Why, in the words of the person who did it.';
COMMENT ON COLUMN billing.contract_version.document IS 'The canonical contract document.';
SELECT billing_internal.declare_table('billing.contract_version', 'customer-owned', '{}',
    '{customer_id, contract_id, version, effective_at, recorded_at, kind}',
    'EXISTS (SELECT FROM billing.contract k WHERE k.customer_id = contract_version.customer_id AND k.contract_id = contract_version.contract_id AND k.state <> ''draft'')');

CREATE TABLE billing.contract_charge (
    customer_id bigint NOT NULL,
    contract_id uuid NOT NULL,
    charge_key text COLLATE "C" NOT NULL,
    valid_during tstzrange NOT NULL CHECK (NOT isempty(valid_during)),
    from_version int NOT NULL CHECK (from_version > 0),
    until_version int CHECK (until_version > from_version),
    position int NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('usage', 'fee')),
    product_id uuid REFERENCES billing.product,
    meter_id int REFERENCES billing.meter,
    price_book_id uuid REFERENCES billing.price_book,
    price_key text COLLATE "C",
    every text COLLATE "C" NOT NULL,
    terms jsonb NOT NULL,
    CHECK ((kind = 'usage') = (meter_id IS NOT NULL)),
    CHECK ((price_book_id IS NULL) = (price_key IS NULL)),
    PRIMARY KEY (customer_id, contract_id, charge_key, from_version, valid_during),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract,
    CONSTRAINT contract_charge_validity_excl EXCLUDE USING gist (customer_id WITH =, contract_id WITH =, charge_key WITH =,
        valid_during WITH &&, int4range(from_version, until_version) WITH &&)
);
COMMENT ON TABLE billing.contract_charge IS 'The usage charges and fees of a contract, by effective range (valid_during) and knowledge (from_version, until_version).';
COMMENT ON COLUMN billing.contract_charge.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.contract_charge.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.contract_charge.charge_key IS 'Key, unique among the contract''s charges and fees.';
COMMENT ON COLUMN billing.contract_charge.valid_during IS 'When it holds, half-open.';
COMMENT ON COLUMN billing.contract_charge.from_version IS 'First contract version that says so (inclusive).';
COMMENT ON COLUMN billing.contract_charge.until_version IS 'First contract version that no longer says so (exclusive); NULL = still said.';
COMMENT ON COLUMN billing.contract_charge.position IS 'Order on the invoice.';
COMMENT ON COLUMN billing.contract_charge.kind IS 'usage (priced by a meter) or fee (priced by itself).';
COMMENT ON COLUMN billing.contract_charge.product_id IS 'What it is for.';
COMMENT ON COLUMN billing.contract_charge.meter_id IS 'The meter of a usage charge.';
COMMENT ON COLUMN billing.contract_charge.price_book_id IS 'The rate card its price is taken from; NULL = the terms hold their own pricing.';
COMMENT ON COLUMN billing.contract_charge.price_key IS 'Key of the price in that book.';
COMMENT ON COLUMN billing.contract_charge.every IS 'Interval of its amounts, tiers and minimum; each is a service period of its own.';
COMMENT ON COLUMN billing.contract_charge.terms IS 'The canonical charge or fee document.';
SELECT billing_internal.declare_table('billing.contract_charge', 'customer-owned', '{until_version}',
    '{customer_id, contract_id, charge_key, valid_during, from_version, until_version, position, kind, product_id, meter_id, every, terms}',
    'EXISTS (SELECT FROM billing.contract k WHERE k.customer_id = contract_charge.customer_id AND k.contract_id = contract_charge.contract_id AND k.state <> ''draft'')');
CREATE INDEX contract_charge_meter_idx ON billing.contract_charge (customer_id, meter_id) WHERE kind = 'usage';

CREATE TABLE billing.price_override (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    override_id uuid NOT NULL,
    contract_id uuid,
    meter_id int REFERENCES billing.meter,
    charge_key text COLLATE "C",
    match jsonb NOT NULL DEFAULT '{}',
    valid_during tstzrange NOT NULL CHECK (NOT isempty(valid_during)),
    from_version int NOT NULL CHECK (from_version > 0),
    until_version int CHECK (until_version > from_version),
    terms jsonb NOT NULL,
    CHECK ((meter_id IS NULL) <> (charge_key IS NULL)),
    PRIMARY KEY (customer_id, override_id),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract,
    CONSTRAINT price_override_validity_excl EXCLUDE USING gist (customer_id WITH =,
        coalesce(contract_id, '00000000-0000-0000-0000-000000000000'::uuid) WITH =, coalesce(meter_id, 0) WITH =,
        coalesce(charge_key, '') WITH =, (match #>> '{}') WITH =, valid_during WITH &&, int4range(from_version, until_version) WITH &&)
);
CREATE INDEX price_override_contract_idx ON billing.price_override (customer_id, contract_id);
COMMENT ON TABLE billing.price_override IS 'Prices agreed for one contract, or for all contracts of one customer. The contract''s beat the customer''s, both beat the list.';
COMMENT ON COLUMN billing.price_override.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.price_override.override_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.price_override.contract_id IS 'The contract it is for; NULL = all of the customer''s.';
COMMENT ON COLUMN billing.price_override.meter_id IS 'The meter whose charges it changes; NULL = charge_key says which.';
COMMENT ON COLUMN billing.price_override.charge_key IS 'The charge it changes; NULL = meter_id says which.';
COMMENT ON COLUMN billing.price_override.match IS 'Dimension values it is limited to; {} = all.';
COMMENT ON COLUMN billing.price_override.valid_during IS 'When it holds, half-open.';
COMMENT ON COLUMN billing.price_override.from_version IS 'First version (of the contract, or customer.terms_version) that says so.';
COMMENT ON COLUMN billing.price_override.until_version IS 'First version that no longer says so; NULL = still said.';
COMMENT ON COLUMN billing.price_override.terms IS 'One of unit_price, percent_off, pricing; and stackable.';
SELECT billing_internal.declare_table('billing.price_override', 'customer-owned', '{until_version}',
    '{customer_id, override_id, contract_id, meter_id, charge_key, match, valid_during, from_version, until_version, terms}',
    'contract_id IS NULL OR EXISTS (SELECT FROM billing.contract k WHERE k.customer_id = price_override.customer_id AND k.contract_id = price_override.contract_id AND k.state <> ''draft'')');

CREATE TABLE billing.contract_policy (
    customer_id bigint NOT NULL,
    contract_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    set_at timestamptz NOT NULL,
    set_by text COLLATE "C" NOT NULL,
    PRIMARY KEY (customer_id, contract_id, name),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract
);
COMMENT ON TABLE billing.contract_policy IS 'Policies set for one contract; they beat the seller''s and the global ones.';
COMMENT ON COLUMN billing.contract_policy.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.contract_policy.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.contract_policy.name IS 'Name of the policy.';
COMMENT ON COLUMN billing.contract_policy.value IS 'The value in force.';
COMMENT ON COLUMN billing.contract_policy.set_at IS 'Real time it was last set.';
COMMENT ON COLUMN billing.contract_policy.set_by IS 'Role that set it.';
SELECT billing_internal.declare_table('billing.contract_policy', 'customer-owned', '{value, set_at, set_by}');

CREATE TABLE billing.billing_period (
    customer_id bigint NOT NULL,
    contract_id uuid NOT NULL,
    n int NOT NULL CHECK (n >= 0),
    starts_on date NOT NULL,
    ends_on date NOT NULL CHECK (ends_on >= starts_on),
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL CHECK (ends_at >= starts_at),
    state text COLLATE "C" NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'billed', 'closed')),
    recorded_at timestamptz NOT NULL,
    cut_at timestamptz,
    CHECK (state = 'due' OR cut_at IS NOT NULL),
    PRIMARY KEY (customer_id, contract_id, n),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract
);
CREATE INDEX billing_period_due_idx ON billing.billing_period (customer_id, contract_id, n) WHERE state = 'due';
CREATE INDEX billing_period_recorded_idx ON billing.billing_period (recorded_at);
CREATE INDEX billing_period_cut_idx ON billing.billing_period (cut_at);
COMMENT ON TABLE billing.billing_period IS 'Billing periods that have begun or are next, each with the boundary at its start. Boundaries are instants from the moment the row is made, whatever later time zone data say. The last row of an ended contract is its end: an empty period.';
COMMENT ON COLUMN billing.billing_period.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.billing_period.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.billing_period.n IS 'Number of the period and of the boundary at its start, from 0.';
COMMENT ON COLUMN billing.billing_period.starts_on IS 'First local day (inclusive).';
COMMENT ON COLUMN billing.billing_period.ends_on IS 'Day after the last (exclusive).';
COMMENT ON COLUMN billing.billing_period.starts_at IS 'Its start as an instant (inclusive).';
COMMENT ON COLUMN billing.billing_period.ends_at IS 'Its end as an instant (exclusive).';
COMMENT ON COLUMN billing.billing_period.state IS 'Of the boundary at its start: due (not billed yet), billed (an invoice stands), closed (nothing to bill).';
COMMENT ON COLUMN billing.billing_period.recorded_at IS 'Real time the row was made: the contract was activated, or the boundary before it billed.';
COMMENT ON COLUMN billing.billing_period.cut_at IS 'Real clock under the exclusive lock when the boundary was last billed or closed: usage of the period before it that was recorded later is late. NULL = never yet.';
SELECT billing_internal.declare_table('billing.billing_period', 'customer-owned', '{state, cut_at}',
    '{customer_id, contract_id, n, starts_on, ends_on, starts_at, ends_at, state, recorded_at, cut_at}');

-- ── what nothing prices ──────────────────────────────────────────────────────────────────────────

CREATE VIEW billing.unpriced_usage WITH (security_invoker = true) AS
    SELECT u.customer_id, k.key AS customer, m.key AS meter, u.day, u.dimensions, sum(u.events)::bigint AS events, sum(u.quantity)::numeric(50, 12) AS quantity, u.reason
    FROM (
        SELECT c.customer_id, c.meter_id, (c.bucket_start AT TIME ZONE 'UTC')::date AS day, c.dimensions, c.events, c.quantity,
            CASE WHEN h.charge_key IS NULL THEN 'no charge' ELSE 'no price' END AS reason
        FROM billing_internal.usage_cell c
        LEFT JOIN LATERAL (
            SELECT h.*, x.prices, coalesce(x.signed_at, x.starts_at) AS signed_at, x.currency
            FROM billing.contract_charge h JOIN billing.contract x USING (customer_id, contract_id)
            WHERE h.customer_id = c.customer_id AND h.meter_id = c.meter_id AND h.kind = 'usage' AND h.until_version IS NULL AND h.valid_during @> c.bucket_start
                AND x.state IN ('scheduled', 'active', 'paused', 'ended') AND c.dimensions @> coalesce(h.terms->'match', '{}')
            LIMIT 1
        ) h ON true
        WHERE h.charge_key IS NULL OR NOT (
            -- its own pricing, or the price book's version in force: any model, or a matrix with a row that matches
            EXISTS (SELECT WHERE h.terms ? 'pricing' AND (h.terms->'pricing'->>'model' <> 'matrix'
                OR EXISTS (SELECT FROM jsonb_array_elements(h.terms->'pricing'->'rows') r WHERE c.dimensions @> coalesce(r->'match', '{}'))))
            OR EXISTS (SELECT FROM billing.price p WHERE p.price_book_id = h.price_book_id AND p.key = h.price_key
                AND p.valid_during @> CASE WHEN h.prices = 'pin' THEN h.signed_at ELSE c.bucket_start END
                AND (p.row_count = 0 OR EXISTS (SELECT FROM billing.price_row r WHERE r.price_id = p.price_id AND c.dimensions @> r.match)))
            -- or a price agreed with the customer
            OR EXISTS (SELECT FROM billing.price_override o WHERE o.customer_id = c.customer_id AND (o.contract_id = h.contract_id
                    OR (o.contract_id IS NULL AND h.currency = (SELECT u.currency FROM billing.customer u WHERE u.customer_id = c.customer_id)))
                AND (o.meter_id = c.meter_id OR o.charge_key = h.charge_key) AND o.until_version IS NULL AND o.valid_during @> c.bucket_start AND c.dimensions @> o.match
                AND (o.terms ? 'unit_price' OR (o.terms ? 'pricing' AND (o.terms->'pricing'->>'model' <> 'matrix'
                    OR EXISTS (SELECT FROM jsonb_array_elements(o.terms->'pricing'->'rows') r WHERE c.dimensions @> coalesce(r->'match', '{}')))))))
    ) u
    JOIN billing.customer k USING (customer_id)
    JOIN billing.meter m USING (meter_id)
    GROUP BY u.customer_id, k.key, m.key, u.day, u.dimensions, u.reason;
COMMENT ON VIEW billing.unpriced_usage IS 'The leakage report: usage that no live charge prices. What has a charge but no price blocks the invoice of its contract; what has no charge is billed by nobody.';
COMMENT ON COLUMN billing.unpriced_usage.customer_id IS 'The customer''s id.';
COMMENT ON COLUMN billing.unpriced_usage.customer IS 'The customer''s key.';
COMMENT ON COLUMN billing.unpriced_usage.meter IS 'The meter''s key.';
COMMENT ON COLUMN billing.unpriced_usage.day IS 'UTC day.';
COMMENT ON COLUMN billing.unpriced_usage.dimensions IS 'Dimension values.';
COMMENT ON COLUMN billing.unpriced_usage.events IS 'How many events counted.';
COMMENT ON COLUMN billing.unpriced_usage.quantity IS 'Sum of their values in the meter''s unit; NULL for count and unique count.';
COMMENT ON COLUMN billing.unpriced_usage.reason IS 'no charge: no live charge takes it. no price: its charge has no price for these dimensions.';
GRANT SELECT ON billing.unpriced_usage TO billing_engine, billing_reader;

-- Entitlements: features, what customers have of them and when, exceptions, reservations.

INSERT INTO billing_internal.counter VALUES ('feature_id', 0);

CREATE TABLE billing.feature (
    feature_id int PRIMARY KEY CHECK (feature_id > 0),
    key text COLLATE "C" NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200),
    name text NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('boolean', 'static', 'metered', 'seat', 'rate_limit', 'credit')),
    meter_id int REFERENCES billing.meter,
    unit text COLLATE "C",
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz,
    CHECK (CASE WHEN kind IN ('metered', 'seat') THEN meter_id IS NOT NULL WHEN kind <> 'credit' THEN meter_id IS NULL ELSE true END)
);
COMMENT ON TABLE billing.feature IS 'What customers may be entitled to. What a feature is never changes; how much of it a customer has is said by plans, add-ons, contracts and overrides.';
COMMENT ON COLUMN billing.feature.feature_id IS 'From a locked counter row.';
COMMENT ON COLUMN billing.feature.key IS 'Its key, unique; without / and :.';
COMMENT ON COLUMN billing.feature.name IS 'Its name.';
COMMENT ON COLUMN billing.feature.kind IS 'boolean (may be used or not), static (has a value), metered (a quota of what a meter counts), seat (as many as a meter says are there), rate_limit (so often in a time), credit (while credit remains).';
COMMENT ON COLUMN billing.feature.meter_id IS 'Of metered and seat features: the meter that says how much is used; of credit features the one that counts what is consumed (NULL = nothing is).';
COMMENT ON COLUMN billing.feature.unit IS 'Unit of what is used: the meter''s, or that of the credit it needs; NULL = none.';
COMMENT ON COLUMN billing.feature.definition IS 'The canonical document.';
COMMENT ON COLUMN billing.feature.created_at IS 'Real time.';
COMMENT ON COLUMN billing.feature.retired_at IS 'When new versions of plans could no longer name it; NULL = open. What was agreed stays.';
SELECT billing_internal.declare_table('billing.feature', 'catalogue', '{name, definition, retired_at}', '{feature_id, key, name, kind, meter_id, unit, retired_at}');
CREATE INDEX feature_meter_idx ON billing.feature (meter_id) WHERE meter_id IS NOT NULL;

CREATE TABLE billing.entitlement_override (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    override_id uuid NOT NULL,
    feature_id int NOT NULL REFERENCES billing.feature,
    item jsonb NOT NULL,
    from_at timestamptz NOT NULL,
    until_at timestamptz CHECK (until_at >= from_at),
    reason text NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, override_id)
);
COMMENT ON TABLE billing.entitlement_override IS 'Operators'' dated exceptions: another value of a feature than what was agreed, for a while.';
COMMENT ON COLUMN billing.entitlement_override.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.entitlement_override.override_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.entitlement_override.feature_id IS 'The feature.';
COMMENT ON COLUMN billing.entitlement_override.item IS 'The exception as an entitlement item: {"feature","value"} or {"feature","rate"}.';
COMMENT ON COLUMN billing.entitlement_override.from_at IS 'From when on it holds.';
COMMENT ON COLUMN billing.entitlement_override.until_at IS 'Until when (exclusive); NULL = until it is ended.';
COMMENT ON COLUMN billing.entitlement_override.reason IS 'Why, in the words of the person who made it.';
COMMENT ON COLUMN billing.entitlement_override.created_by IS 'The role that made it.';
COMMENT ON COLUMN billing.entitlement_override.created_at IS 'Real time; of two that hold the later one counts.';
SELECT billing_internal.declare_table('billing.entitlement_override', 'customer-owned', '{until_at}', '{customer_id, override_id, feature_id, item, from_at, until_at}');
CREATE INDEX entitlement_override_feature_idx ON billing.entitlement_override (customer_id, feature_id);

CREATE TABLE billing.entitlement_state (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    feature_id int NOT NULL REFERENCES billing.feature,
    valid_during tstzrange NOT NULL CHECK (NOT isempty(valid_during)),
    suspended boolean NOT NULL,
    value jsonb NOT NULL,
    quota numeric CHECK (quota >= 0),
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('hard', 'soft', 'overage')),
    resets text COLLATE "C" NOT NULL CHECK (resets IN ('billing_period', 'hour', 'day', 'week', 'month', 'year', 'anniversary', 'sliding', 'first_use', 'never')),
    length interval CHECK ((length IS NOT NULL) = (resets IN ('sliding', 'first_use'))),
    zone text COLLATE "C" NOT NULL,
    starts_on date NOT NULL,
    every text COLLATE "C" NOT NULL,
    alignment text COLLATE "C" NOT NULL,
    match jsonb NOT NULL,
    rollover numeric,
    rate jsonb,
    source text NOT NULL,
    heard jsonb NOT NULL,
    PRIMARY KEY (customer_id, feature_id, valid_during)
);
COMMENT ON TABLE billing.entitlement_state IS 'What customers have of each feature and when: compiled by entitlements_compile() in the transaction that changes a contract or an exception, so that asking is one look-up. Where there is no row the customer has nothing.';
COMMENT ON COLUMN billing.entitlement_state.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.entitlement_state.feature_id IS 'The feature.';
COMMENT ON COLUMN billing.entitlement_state.valid_during IS 'When it holds, half-open; of one feature they never overlap.';
COMMENT ON COLUMN billing.entitlement_state.suspended IS 'Only contracts that are paused give it.';
COMMENT ON COLUMN billing.entitlement_state.value IS 'true, false, a text, a quantity, or null (unlimited; of rate limits).';
COMMENT ON COLUMN billing.entitlement_state.quota IS 'Of metered and seat features: how much, in the meter''s unit; NULL = unlimited.';
COMMENT ON COLUMN billing.entitlement_state.mode IS 'Above the quota: hard (refused), soft (allowed and said), overage (allowed and billed).';
COMMENT ON COLUMN billing.entitlement_state.resets IS 'When what is used begins at 0 again.';
COMMENT ON COLUMN billing.entitlement_state.length IS 'Of sliding and first_use: for how long; NULL = other resets.';
COMMENT ON COLUMN billing.entitlement_state.zone IS 'IANA zone of the windows'' local days.';
COMMENT ON COLUMN billing.entitlement_state.starts_on IS 'Day from which windows are counted, as billing periods are.';
COMMENT ON COLUMN billing.entitlement_state.every IS 'Length of a window.';
COMMENT ON COLUMN billing.entitlement_state.alignment IS 'How windows are aligned, as contract.alignment.';
COMMENT ON COLUMN billing.entitlement_state.match IS 'The usage it is for, by dimensions; {} = all.';
COMMENT ON COLUMN billing.entitlement_state.rollover IS 'How much of what was not used in a window is there once more in the next; Infinity = all, NULL = nothing.';
COMMENT ON COLUMN billing.entitlement_state.rate IS 'Of rate limits: {"limit","per","burst"}; NULL = other features.';
COMMENT ON COLUMN billing.entitlement_state.source IS 'Who gives it, for people.';
COMMENT ON COLUMN billing.entitlement_state.heard IS 'All that say something about it, in order: [{"source","value","effect"}], effect is set, added, raised, kept or replaced.';
SELECT billing_internal.declare_table('billing.entitlement_state', 'customer-owned', '{}',
    '{customer_id, feature_id, valid_during, suspended, value, quota, mode, resets, length, zone, starts_on, every, alignment, match, rollover, rate, source, heard}');
GRANT DELETE ON billing.entitlement_state TO billing_owner;

CREATE TABLE billing.entitlement_window (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    feature_id int NOT NULL REFERENCES billing.feature,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL CHECK (ends_at > starts_at),
    PRIMARY KEY (customer_id, feature_id, starts_at)
);
COMMENT ON TABLE billing.entitlement_window IS 'Windows that began with the first use of a quota that resets so.';
COMMENT ON COLUMN billing.entitlement_window.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.entitlement_window.feature_id IS 'The feature.';
COMMENT ON COLUMN billing.entitlement_window.starts_at IS 'The first use.';
COMMENT ON COLUMN billing.entitlement_window.ends_at IS 'When it is over (exclusive).';
SELECT billing_internal.declare_table('billing.entitlement_window', 'customer-owned', '{}', '{customer_id, feature_id, starts_at, ends_at}');

CREATE TABLE billing.reservation (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    reservation_id uuid NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL CHECK (octet_length(idempotency_key) BETWEEN 1 AND 255),
    feature_id int NOT NULL REFERENCES billing.feature,
    meter_id int NOT NULL REFERENCES billing.meter,
    quantity numeric NOT NULL CHECK (quantity > 0),
    properties jsonb NOT NULL,
    bill_to text COLLATE "C",
    made_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > made_at),
    outcome text COLLATE "C" CHECK (outcome IN ('confirmed', 'released', 'expired')),
    actual numeric,
    was_late boolean,
    settled_at timestamptz,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, reservation_id),
    UNIQUE (customer_id, idempotency_key)
);
CREATE INDEX reservation_open_idx ON billing.reservation (customer_id, meter_id, expires_at) WHERE outcome IS NULL;
-- By what else says that it is open, so that whoever asks for a customer's open ones never goes by this: a plan made while there are few is kept.
CREATE INDEX reservation_expiry_idx ON billing.reservation (expires_at) WHERE settled_at IS NULL;
CREATE INDEX reservation_id_idx ON billing.reservation (reservation_id);
CREATE INDEX reservation_settled_idx ON billing.reservation (settled_at) WHERE outcome IS NOT NULL;
COMMENT ON TABLE billing.reservation IS 'Parts of quotas that are promised to work of unknown size. What was really used is an ordinary event, written when the reservation is confirmed. Removed 90 days after it was settled.';
COMMENT ON COLUMN billing.reservation.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.reservation.reservation_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.reservation.idempotency_key IS 'The caller''s key, unique per customer.';
COMMENT ON COLUMN billing.reservation.feature_id IS 'The feature.';
COMMENT ON COLUMN billing.reservation.meter_id IS 'The feature''s meter: on it the reservation counts as used, whichever feature asks.';
COMMENT ON COLUMN billing.reservation.quantity IS 'How much counts as used while it is open, in the meter''s unit.';
COMMENT ON COLUMN billing.reservation.properties IS 'Properties of the event to come.';
COMMENT ON COLUMN billing.reservation.bill_to IS 'Legal entity of the event to come; NULL = the contract''s.';
COMMENT ON COLUMN billing.reservation.made_at IS 'When it was made (billing.now()).';
COMMENT ON COLUMN billing.reservation.expires_at IS 'Until when it counts (exclusive), unless it is settled before.';
COMMENT ON COLUMN billing.reservation.outcome IS 'confirmed, released or expired; NULL = open. One past its expiry counts no more, whether or not this says so yet.';
COMMENT ON COLUMN billing.reservation.actual IS 'What was really used, of confirmed ones.';
COMMENT ON COLUMN billing.reservation.was_late IS 'Of confirmed ones: whether it had expired by then, so that its part may have been given to others.';
COMMENT ON COLUMN billing.reservation.settled_at IS 'When it was confirmed, released or found expired (billing.now()); NULL = open.';
COMMENT ON COLUMN billing.reservation.recorded_at IS 'Real time it was made.';
SELECT billing_internal.declare_table('billing.reservation', 'customer-owned', '{outcome, actual, was_late, settled_at}',
    '{customer_id, reservation_id, idempotency_key, feature_id, meter_id, quantity, properties, bill_to, made_at, expires_at, outcome, actual, was_late, settled_at}');
GRANT DELETE ON billing.reservation TO billing_owner;

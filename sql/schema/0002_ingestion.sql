-- Ingestion: events as they happened, and their keys for ever. Ingest only inserts.
-- No foreign keys here (2.5 µs a row each); billing.verify() checks the references.

CREATE TABLE billing.usage_event_key (
    customer_id bigint NOT NULL,
    event_key uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    content_hash bigint NOT NULL,
    PRIMARY KEY (customer_id, event_key)
) PARTITION BY HASH (customer_id);
COMMENT ON TABLE billing.usage_event_key IS 'Identity of every event ever accepted, kept for ever: a repeat is a duplicate if its content is the same, conflicting if not.';
COMMENT ON COLUMN billing.usage_event_key.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_event_key.event_key IS 'The event id: a canonical lower-case UUID as it is, any other text by 128 bits of its SHA-256 (marked UUIDv8).';
COMMENT ON COLUMN billing.usage_event_key.occurred_at IS 'When it happened; leads to the month of usage_event that holds it.';
COMMENT ON COLUMN billing.usage_event_key.content_hash IS 'First 64 bits of SHA-256 of the canonical content (type, time, bill_to, properties).';
SELECT billing_internal.declare_table('billing.usage_event_key', 'customer-owned');

DO $$
BEGIN
    FOR i IN 0..15 LOOP
        EXECUTE format('CREATE TABLE billing_internal.usage_event_key_%s PARTITION OF billing.usage_event_key FOR VALUES WITH (MODULUS 16, REMAINDER %s)', i, i);
        EXECUTE format('ALTER TABLE billing_internal.usage_event_key_%s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', i);
    END LOOP;
END
$$;

CREATE TABLE billing.usage_event (
    customer_id bigint NOT NULL,
    event_key uuid NOT NULL,
    revision int NOT NULL DEFAULT 0 CHECK (revision >= 0),
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    bill_to text COLLATE "C",
    properties jsonb NOT NULL
) PARTITION BY RANGE (occurred_at);
CREATE INDEX usage_event_customer_idx ON billing.usage_event (customer_id, occurred_at);
COMMENT ON TABLE billing.usage_event IS 'What happened, as it was sent. One partition a month (UTC), made when the month''s first event arrives.';
COMMENT ON COLUMN billing.usage_event.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_event.event_key IS 'Its key in usage_event_key.';
COMMENT ON COLUMN billing.usage_event.revision IS '0 as first sent; corrections are later revisions under the same key.';
COMMENT ON COLUMN billing.usage_event.occurred_at IS 'When it happened; decides period and price.';
COMMENT ON COLUMN billing.usage_event.recorded_at IS 'Real clock at ingest, read under the customer''s shared lock; what an invoice counted was recorded before its cut_at.';
COMMENT ON COLUMN billing.usage_event.event_type IS 'Which meters look at it.';
COMMENT ON COLUMN billing.usage_event.event_id IS 'The id as the sender gave it.';
COMMENT ON COLUMN billing.usage_event.bill_to IS 'Legal entity it is invoiced to (a bill_to key); NULL = the contract''s default.';
COMMENT ON COLUMN billing.usage_event.properties IS 'What the meters measure, canonical JSON.';
SELECT billing_internal.declare_table('billing.usage_event', 'customer-owned', '{}',
    '{customer_id, event_key, revision, occurred_at, recorded_at, event_type, event_id, bill_to, properties}');

CREATE TABLE billing.rejected_event (
    rejected_id uuid PRIMARY KEY,
    received_at timestamptz NOT NULL,
    customer text COLLATE "C",
    event_id text COLLATE "C",
    reason text COLLATE "C" NOT NULL,
    message text NOT NULL,
    raw text NOT NULL,
    resolved_at timestamptz
);
CREATE INDEX rejected_event_open_idx ON billing.rejected_event (received_at) WHERE resolved_at IS NULL;
COMMENT ON TABLE billing.rejected_event IS 'Events that could not be stored, whole and with the reason, so that nothing sent is lost.';
COMMENT ON COLUMN billing.rejected_event.rejected_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.rejected_event.received_at IS 'Real time of the call.';
COMMENT ON COLUMN billing.rejected_event.customer IS 'The customer as the event named it, if that could be read.';
COMMENT ON COLUMN billing.rejected_event.event_id IS 'Its event id, if that could be read.';
COMMENT ON COLUMN billing.rejected_event.reason IS 'A fixed word: unknown_customer, unknown_bill_to, bad_time, too_old, in_future, bad_value, too_large, conflicting …';
COMMENT ON COLUMN billing.rejected_event.message IS 'What is wrong, with the place and the value.';
COMMENT ON COLUMN billing.rejected_event.raw IS 'The event as it was sent.';
COMMENT ON COLUMN billing.rejected_event.resolved_at IS 'When it was sent again with success or given up; NULL = open.';
SELECT billing_internal.declare_table('billing.rejected_event', 'machinery', '{resolved_at}');

-- Ingestion, continued: revisions of events that no longer count, retries of refused events, limits, retention, samples of
-- the application's tables.

-- ── corrections ──────────────────────────────────────────────────────────────────────────────────

CREATE TABLE billing.usage_event_void (
    customer_id bigint NOT NULL,
    event_key uuid NOT NULL,
    revision int NOT NULL CHECK (revision >= 0),
    occurred_at timestamptz NOT NULL,
    voided_at timestamptz NOT NULL,
    replaced_hash bigint,
    replaced_at timestamptz,
    reason text NOT NULL,
    actor text COLLATE "C" NOT NULL,
    PRIMARY KEY (customer_id, event_key, revision),
    CHECK ((replaced_hash IS NULL) = (replaced_at IS NULL))
);
CREATE INDEX usage_event_void_time_idx ON billing.usage_event_void (customer_id, occurred_at);
COMMENT ON TABLE billing.usage_event_void IS 'Revisions of events that no longer count, and since when. A revision counts at an instant if it was recorded until then and not voided until then; an amendment voids one revision and records the next.';
COMMENT ON COLUMN billing.usage_event_void.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.usage_event_void.event_key IS 'The event.';
COMMENT ON COLUMN billing.usage_event_void.revision IS 'The revision that no longer counts.';
COMMENT ON COLUMN billing.usage_event_void.occurred_at IS 'When that revision says it happened; leads to its month.';
COMMENT ON COLUMN billing.usage_event_void.voided_at IS 'Real clock, read under the customer''s shared lock, as recorded_at is: an invoice cut before still counts it.';
COMMENT ON COLUMN billing.usage_event_void.replaced_hash IS 'Content hash of the revision that took its place; NULL = none did. Sending that content again is a duplicate.';
COMMENT ON COLUMN billing.usage_event_void.replaced_at IS 'When the revision that took its place says it happened; leads to its month. Both are filled in later if a void event is amended.';
COMMENT ON COLUMN billing.usage_event_void.reason IS 'Why, as the person or program said.';
COMMENT ON COLUMN billing.usage_event_void.actor IS 'Who: the session''s role.';
SELECT billing_internal.declare_table('billing.usage_event_void', 'customer-owned', '{replaced_hash, replaced_at}',
    '{customer_id, event_key, revision, occurred_at, voided_at}');

-- Retention removes events, which have no key of their own: a publication must be able to say which. New months are made so.
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = 'billing.usage_event'::regclass LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', part);
    END LOOP;
END
$$;

-- ── refused events ───────────────────────────────────────────────────────────────────────────────

ALTER TABLE billing.rejected_event
    ADD COLUMN format text COLLATE "C" NOT NULL DEFAULT 'native',
    ADD COLUMN retried_at timestamptz,
    ADD COLUMN resolution text COLLATE "C" CHECK (resolution IN ('accepted', 'duplicate', 'kept', 'replaced', 'discarded'));
-- Nothing resolved them before: whoever did so by hand gave them up.
UPDATE billing.rejected_event SET resolution = 'discarded' WHERE resolved_at IS NOT NULL;
ALTER TABLE billing.rejected_event ADD CHECK ((resolved_at IS NULL) = (resolution IS NULL));
DROP INDEX billing.rejected_event_open_idx;
CREATE INDEX rejected_event_open_idx ON billing.rejected_event (retried_at NULLS FIRST, rejected_id) WHERE resolved_at IS NULL;
COMMENT ON COLUMN billing.rejected_event.reason IS 'A fixed word: unknown_customer, unknown_bill_to, bad_time, too_old, in_future, bad_value, too_large, conflicting … The last retry''s, if it is open.';
COMMENT ON COLUMN billing.rejected_event.message IS 'What is wrong, with the place and the value; the last retry''s, if it is open.';
COMMENT ON COLUMN billing.rejected_event.format IS 'The form of raw: native, cloudevents, stripe, orb, metronome or lago.';
COMMENT ON COLUMN billing.rejected_event.retried_at IS 'Real time of the last retry; NULL = none.';
COMMENT ON COLUMN billing.rejected_event.resolved_at IS 'When it was sent again with success or decided about; NULL = open.';
COMMENT ON COLUMN billing.rejected_event.resolution IS 'accepted or duplicate by a retry; of a conflicting one kept (the stored event stands) or replaced (it says this now); discarded (given up); NULL = open.';
GRANT UPDATE (reason, message, retried_at, resolution) ON billing.rejected_event TO billing_engine;

-- ── limits, retention, samples ───────────────────────────────────────────────────────────────────

CREATE TABLE billing.ingest_limit (
    customer_id bigint PRIMARY KEY,
    events_per_second numeric(13, 6) CHECK (events_per_second > 0),
    burst int NOT NULL CHECK (burst > 0),
    set_at timestamptz NOT NULL,
    set_by text COLLATE "C" NOT NULL
);
COMMENT ON TABLE billing.ingest_limit IS 'How many new events a customer''s calls may bring. Customers without a row have no limit.';
COMMENT ON COLUMN billing.ingest_limit.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.ingest_limit.events_per_second IS 'Events a second in the long run; NULL = no limit any more.';
COMMENT ON COLUMN billing.ingest_limit.burst IS 'Events that may come at once.';
COMMENT ON COLUMN billing.ingest_limit.set_at IS 'Real time of the last change.';
COMMENT ON COLUMN billing.ingest_limit.set_by IS 'Who set it.';
SELECT billing_internal.declare_table('billing.ingest_limit', 'customer-owned', '{events_per_second, burst, set_at, set_by}', '{customer_id, events_per_second, burst}');

CREATE UNLOGGED TABLE billing_internal.ingest_limit_state (
    customer_id bigint PRIMARY KEY,
    level numeric,
    level_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE billing_internal.ingest_limit_state IS 'What limited customers have sent and what has not drained yet. Not logged: after a crash every customer begins anew.';
COMMENT ON COLUMN billing_internal.ingest_limit_state.customer_id IS 'The customer.';
COMMENT ON COLUMN billing_internal.ingest_limit_state.level IS 'Events not drained at level_at; NULL = none yet.';
COMMENT ON COLUMN billing_internal.ingest_limit_state.level_at IS 'Real time.';
SELECT billing_internal.declare_table('billing_internal.ingest_limit_state', 'customer-owned', '{level, level_at}');

CREATE TABLE billing.event_retention (
    event_type text COLLATE "C" PRIMARY KEY,
    keep interval,
    removed_until timestamptz NOT NULL DEFAULT '-infinity',
    set_at timestamptz NOT NULL
);
COMMENT ON TABLE billing.event_retention IS 'How long events of a type are kept once they are billed. Keys and usage stay for ever.';
COMMENT ON COLUMN billing.event_retention.event_type IS 'Type of the events.';
COMMENT ON COLUMN billing.event_retention.keep IS 'How long after they happened; NULL = for ever.';
COMMENT ON COLUMN billing.event_retention.removed_until IS 'Events that happened before (exclusive) have been removed: usage from then on can be measured again, usage before can not.';
COMMENT ON COLUMN billing.event_retention.set_at IS 'Real time of the last change.';
SELECT billing_internal.declare_table('billing.event_retention', 'catalogue', '{keep, removed_until, set_at}', '{event_type, keep, removed_until}');

CREATE TABLE billing.usage_source (
    key text COLLATE "C" PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 100),
    relation text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    grain text COLLATE "C" NOT NULL CHECK (grain IN ('hour', 'day')),
    sampled_until timestamptz,
    created_at timestamptz NOT NULL,
    retired_at timestamptz
);
COMMENT ON TABLE billing.usage_source IS 'Views of the application''s own tables that become usage: a job samples each once per hour or day.';
COMMENT ON COLUMN billing.usage_source.key IS 'Its key; the event ids are key/bucket/customer.';
COMMENT ON COLUMN billing.usage_source.relation IS 'The view or table, schema-qualified; read with the rights of whoever runs the job.';
COMMENT ON COLUMN billing.usage_source.event_type IS 'Type of the events that the samples become.';
COMMENT ON COLUMN billing.usage_source.grain IS 'hour or day, in UTC: one sample in each.';
COMMENT ON COLUMN billing.usage_source.sampled_until IS 'End (exclusive) of the last hour or day that was sampled; NULL = none yet.';
COMMENT ON COLUMN billing.usage_source.created_at IS 'Real time.';
COMMENT ON COLUMN billing.usage_source.retired_at IS 'When sampling was ended; NULL = it goes on.';
SELECT billing_internal.declare_table('billing.usage_source', 'catalogue', '{relation, event_type, grain, sampled_until, retired_at}', '{key, event_type, grain, sampled_until}');

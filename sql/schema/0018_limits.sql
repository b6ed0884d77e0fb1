-- Entitlements, continued: rate limits kept in a row, limits on money and units, alerts, the feed of events.

-- ── rate limits ──────────────────────────────────────────────────────────────────────────────────

CREATE UNLOGGED TABLE billing.rate_state (
    customer_id bigint NOT NULL,
    feature_id int NOT NULL,
    level numeric NOT NULL,
    level_period bigint NOT NULL,
    level_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, feature_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE billing.rate_state IS 'What of rate-limited requests has not drained yet, where shared memory does not hold it. Not logged: it survives a restart; after a crash everybody begins anew.';
COMMENT ON COLUMN billing.rate_state.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.rate_state.feature_id IS 'The feature.';
COMMENT ON COLUMN billing.rate_state.level IS 'What had not drained at level_at, in parts of a request: a million times level_period to one.';
COMMENT ON COLUMN billing.rate_state.level_period IS 'The limit''s period in microseconds, as it was then.';
COMMENT ON COLUMN billing.rate_state.level_at IS 'Real time; under a test clock, its time.';
SELECT billing_internal.declare_table('billing.rate_state', 'customer-owned', '{level, level_period, level_at}', '{customer_id, feature_id, level, level_period, level_at}');

-- ── limits on money and units ────────────────────────────────────────────────────────────────────

CREATE TABLE billing.spend_limit (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    limit_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('spend_limit', 'budget')),
    bill_to text COLLATE "C",
    match jsonb NOT NULL DEFAULT '{}',
    meter_id int REFERENCES billing.meter,
    currency text COLLATE "C",
    amount numeric NOT NULL CHECK (amount >= 0),
    period text COLLATE "C" NOT NULL CHECK (period IN ('day', 'week', 'month', 'billing_period')),
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('hard', 'soft')),
    reason text,
    set_at timestamptz NOT NULL,
    set_by text COLLATE "C" NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (customer_id, limit_id),
    CHECK ((meter_id IS NULL) = (currency IS NOT NULL)),
    CHECK (kind <> 'budget' OR match <> '{}'),
    CHECK (kind <> 'spend_limit' OR meter_id IS NULL),
    CHECK (meter_id IS NULL OR bill_to IS NULL)
);
CREATE UNIQUE INDEX spend_limit_key_idx ON billing.spend_limit (customer_id, key) WHERE ended_at IS NULL;
COMMENT ON TABLE billing.spend_limit IS 'How much a customer, one of its legal entities, or a part of its usage (an API key, a project, a user) may use in a period: limits on money, and budgets in money or in units of a meter. A change ends the row and makes another.';
COMMENT ON COLUMN billing.spend_limit.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.spend_limit.limit_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.spend_limit.key IS 'Key, unique per customer among those that hold.';
COMMENT ON COLUMN billing.spend_limit.kind IS 'spend_limit (money of a customer, legal entity or match) or budget (of a match, in money or units).';
COMMENT ON COLUMN billing.spend_limit.bill_to IS 'Only usage billed to this legal entity; NULL = whoever pays.';
COMMENT ON COLUMN billing.spend_limit.match IS 'Only usage with these values of declared dimensions; {} = all.';
COMMENT ON COLUMN billing.spend_limit.meter_id IS 'The meter whose units are counted; NULL = money.';
COMMENT ON COLUMN billing.spend_limit.currency IS 'Currency of amount; usage priced in another does not count. NULL = units.';
COMMENT ON COLUMN billing.spend_limit.amount IS 'What may be used in a period, in currency or in the meter''s unit.';
COMMENT ON COLUMN billing.spend_limit.period IS 'day, week (from Monday) or month of the customer''s zone, or billing_period.';
COMMENT ON COLUMN billing.spend_limit.mode IS 'hard: what would go beyond is denied; soft: it is allowed, and said.';
COMMENT ON COLUMN billing.spend_limit.reason IS 'Why, in the words of the person who set it.';
COMMENT ON COLUMN billing.spend_limit.set_at IS 'Real time.';
COMMENT ON COLUMN billing.spend_limit.set_by IS 'Who set it.';
COMMENT ON COLUMN billing.spend_limit.ended_at IS 'Real time from which it does not hold any more; NULL = it holds.';
SELECT billing_internal.declare_table('billing.spend_limit', 'customer-owned', '{ended_at}',
    '{customer_id, limit_id, key, kind, bill_to, match, meter_id, currency, amount, period, mode, ended_at}');

-- ── alerts ───────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE billing.alert_rule (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    rule_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('usage', 'spend', 'credit', 'commitment')),
    meter_id int REFERENCES billing.meter,
    feature_id int REFERENCES billing.feature,
    match jsonb NOT NULL DEFAULT '{}',
    bill_to text COLLATE "C",
    unit text COLLATE "C",
    limit_key text COLLATE "C",
    contract_id uuid,
    commitment text COLLATE "C",
    base numeric CHECK (base > 0),
    period text COLLATE "C" CHECK (period IN ('day', 'week', 'month', 'billing_period')),
    thresholds jsonb NOT NULL,
    looked_until timestamptz NOT NULL,
    reason text,
    set_at timestamptz NOT NULL,
    set_by text COLLATE "C" NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (customer_id, rule_id),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract
);
CREATE UNIQUE INDEX alert_rule_key_idx ON billing.alert_rule (customer_id, key) WHERE ended_at IS NULL;
COMMENT ON TABLE billing.alert_rule IS 'What is told in the feed when it crosses a threshold. A change ends the row and makes another.';
COMMENT ON COLUMN billing.alert_rule.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.alert_rule.rule_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.alert_rule.key IS 'Key, unique per customer among those that hold.';
COMMENT ON COLUMN billing.alert_rule.kind IS 'usage (of a meter), spend (what usage costs), credit (available, downward) or commitment (used of a period of one).';
COMMENT ON COLUMN billing.alert_rule.meter_id IS 'Of usage: the meter.';
COMMENT ON COLUMN billing.alert_rule.feature_id IS 'Of usage: the feature whose quota is looked at; NULL = none.';
COMMENT ON COLUMN billing.alert_rule.match IS 'Of usage and spend: only usage with these values of dimensions; {} = all.';
COMMENT ON COLUMN billing.alert_rule.bill_to IS 'Of spend: only what is billed to this legal entity; NULL = all.';
COMMENT ON COLUMN billing.alert_rule.unit IS 'Of spend the currency, of credit its unit; NULL = of neither.';
COMMENT ON COLUMN billing.alert_rule.limit_key IS 'Of usage and spend: the limit or budget whose use is looked at; NULL = named here.';
COMMENT ON COLUMN billing.alert_rule.contract_id IS 'Of commitment: the contract; NULL = each of the customer''s.';
COMMENT ON COLUMN billing.alert_rule.commitment IS 'Of commitment: its key; NULL = each.';
COMMENT ON COLUMN billing.alert_rule.base IS 'What is 100 percent; NULL = what the limit, the blocks of credit or the commitment say, or no threshold is a percentage.';
COMMENT ON COLUMN billing.alert_rule.period IS 'Of usage and spend: day, week or month of the customer''s zone, or billing_period; NULL = the limit''s, or of neither.';
COMMENT ON COLUMN billing.alert_rule.thresholds IS 'List of texts: "80%" or "500".';
COMMENT ON COLUMN billing.alert_rule.looked_until IS 'By billing.now(): periods that ended up to then are not looked at any more.';
COMMENT ON COLUMN billing.alert_rule.reason IS 'Why, in the words of the person who set it.';
COMMENT ON COLUMN billing.alert_rule.set_at IS 'Real time.';
COMMENT ON COLUMN billing.alert_rule.set_by IS 'Who set it.';
COMMENT ON COLUMN billing.alert_rule.ended_at IS 'Real time from which it does not hold any more; NULL = it holds.';
SELECT billing_internal.declare_table('billing.alert_rule', 'customer-owned', '{ended_at, looked_until}',
    '{customer_id, rule_id, key, kind, meter_id, feature_id, match, bill_to, unit, limit_key, contract_id, commitment, base, period, thresholds, ended_at}');

CREATE TABLE billing.alert_state (
    customer_id bigint NOT NULL,
    rule_id uuid NOT NULL,
    threshold text COLLATE "C" NOT NULL,
    crossings bigint NOT NULL,
    below boolean NOT NULL,
    PRIMARY KEY (customer_id, rule_id, threshold),
    FOREIGN KEY (customer_id, rule_id) REFERENCES billing.alert_rule
) WITH (fillfactor = 50);
COMMENT ON TABLE billing.alert_state IS 'Of rules of credit, which has no periods: on which side of each threshold it was when it was last looked at.';
COMMENT ON COLUMN billing.alert_state.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.alert_state.rule_id IS 'The rule.';
COMMENT ON COLUMN billing.alert_state.threshold IS 'The threshold.';
COMMENT ON COLUMN billing.alert_state.crossings IS 'How often it was crossed downward.';
COMMENT ON COLUMN billing.alert_state.below IS 'Whether credit was at or below it.';
SELECT billing_internal.declare_table('billing.alert_state', 'customer-owned', '{crossings, below}');

-- ── the feed ─────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE billing.event_feed (
    customer_id bigint NOT NULL,
    feed_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    payload jsonb NOT NULL,
    n bigint,
    PRIMARY KEY (customer_id, feed_id),
    UNIQUE (customer_id, key)
);
CREATE INDEX event_feed_n_idx ON billing.event_feed (n);
CREATE INDEX event_feed_new_idx ON billing.event_feed (recorded_at, feed_id) WHERE n IS NULL;
COMMENT ON TABLE billing.event_feed IS 'What happened to customers that others want to be told: alerts. Append-only; read in order by billing.events_after().';
COMMENT ON COLUMN billing.event_feed.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.event_feed.feed_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.event_feed.kind IS 'alert.usage, alert.spend, alert.credit or alert.commitment.';
COMMENT ON COLUMN billing.event_feed.subject IS 'What it is about: of an alert, the key of its rule.';
COMMENT ON COLUMN billing.event_feed.key IS 'What makes it happen once: of an alert its rule, what that measures, threshold and period.';
COMMENT ON COLUMN billing.event_feed.occurred_at IS 'When it was seen, by billing.now().';
COMMENT ON COLUMN billing.event_feed.recorded_at IS 'Real time.';
COMMENT ON COLUMN billing.event_feed.payload IS 'The figures.';
COMMENT ON COLUMN billing.event_feed.n IS 'Its place in the feed, from 1, without gaps: given after the transaction that wrote it has committed, so nothing comes before what was read. NULL = not yet.';
SELECT billing_internal.declare_table('billing.event_feed', 'customer-owned', '{n}', '{customer_id, feed_id, kind, subject, key, occurred_at, payload, n}');

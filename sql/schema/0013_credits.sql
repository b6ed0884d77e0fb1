-- Credits: blocks of prepaid credit, their ledger, what invoices and calls drew from them, commitments, top-ups.
--
-- Ledger, allocations and draws have no foreign keys: each would lock the block's row for every draw. They are written by
-- functions that hold the block, and verify() compares them.

-- ── what was bought ──────────────────────────────────────────────────────────────────────────────

CREATE TABLE billing.credit_pool (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    pool_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    contract_id uuid,
    currency text COLLATE "C" NOT NULL,
    paid numeric NOT NULL CHECK (paid >= 0),
    credits numeric NOT NULL CHECK (credits > 0),
    source_key text COLLATE "C",
    created_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, pool_id),
    UNIQUE (customer_id, key),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract
);
CREATE UNIQUE INDEX credit_pool_source_idx ON billing.credit_pool (customer_id, source_key) WHERE source_key IS NOT NULL;
COMMENT ON TABLE billing.credit_pool IS 'All credit that one purchase promised, and its price: paid ÷ credits is the cost basis of every block in it, whatever the block is called. Stored as the two numbers, since the quotient often has no decimal.';
COMMENT ON COLUMN billing.credit_pool.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.credit_pool.pool_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.credit_pool.key IS 'Key, unique per customer: that of the purchase, or <contract>/<commitment>/<first day>.';
COMMENT ON COLUMN billing.credit_pool.contract_id IS 'The contract whose commitment pays for it; NULL = bought by itself.';
COMMENT ON COLUMN billing.credit_pool.currency IS 'Currency of paid.';
COMMENT ON COLUMN billing.credit_pool.paid IS 'The price of all of it, in currency.';
COMMENT ON COLUMN billing.credit_pool.credits IS 'The sum of its blocks as granted, free ones among them, in the blocks'' unit.';
COMMENT ON COLUMN billing.credit_pool.source_key IS 'Of a contract: the commitment and period it is made of; NULL = bought by itself.';
COMMENT ON COLUMN billing.credit_pool.created_at IS 'Real time.';
SELECT billing_internal.declare_table('billing.credit_pool', 'customer-owned', '{paid, credits}', '{customer_id, pool_id, key, contract_id, currency, paid, credits, created_at}');

CREATE TABLE billing.credit_grant (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    grant_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    contract_id uuid,
    pool_id uuid,
    unit text COLLATE "C" NOT NULL CHECK (unit ~ '^[A-Za-z][A-Za-z0-9_]{1,11}$'),
    category text COLLATE "C" NOT NULL CHECK (category IN ('paid', 'promotional', 'pilot')),
    amount numeric NOT NULL CHECK (amount > 0),
    priority int NOT NULL,
    scope jsonb NOT NULL,
    effective_at timestamptz NOT NULL,
    expires_at timestamptz CHECK (expires_at > effective_at),
    rollover jsonb,
    overdraft numeric CHECK (overdraft >= 0),
    rolled_from uuid,
    source_key text COLLATE "C",
    reason text,
    created_at timestamptz NOT NULL,
    extended_at timestamptz,
    expired_at timestamptz,
    voided_at timestamptz,
    PRIMARY KEY (customer_id, grant_id),
    UNIQUE (customer_id, key),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract,
    FOREIGN KEY (customer_id, pool_id) REFERENCES billing.credit_pool
);
CREATE UNIQUE INDEX credit_grant_source_idx ON billing.credit_grant (customer_id, source_key) WHERE source_key IS NOT NULL;
CREATE INDEX credit_grant_contract_idx ON billing.credit_grant (customer_id, contract_id);
CREATE INDEX credit_grant_pool_idx ON billing.credit_grant (customer_id, pool_id);
CREATE INDEX credit_grant_expiry_idx ON billing.credit_grant (expires_at) WHERE expired_at IS NULL AND voided_at IS NULL;
CREATE INDEX credit_grant_key_idx ON billing.credit_grant (key);
COMMENT ON TABLE billing.credit_grant IS 'Blocks of credit: granted at once, drawn down by usage, never mixed with another block''s. What one holds is in credit_block_balance, why in credit_ledger_entry.';
COMMENT ON COLUMN billing.credit_grant.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.credit_grant.grant_id IS 'UUIDv7, so the lower one is the older block.';
COMMENT ON COLUMN billing.credit_grant.key IS 'Key, unique per customer.';
COMMENT ON COLUMN billing.credit_grant.contract_id IS 'The contract whose usage alone it pays for; NULL = usage of any of the customer''s contracts.';
COMMENT ON COLUMN billing.credit_grant.pool_id IS 'The purchase that promised it; NULL = given outside any purchase, so its cost basis is 0.';
COMMENT ON COLUMN billing.credit_grant.unit IS 'What is counted: a currency, or a pricing unit. It pays only for usage priced in it.';
COMMENT ON COLUMN billing.credit_grant.category IS 'paid, promotional or pilot: why the customer has it. Its worth is the pool''s.';
COMMENT ON COLUMN billing.credit_grant.amount IS 'Credits granted, in unit.';
COMMENT ON COLUMN billing.credit_grant.priority IS 'Lower ones are drawn first.';
COMMENT ON COLUMN billing.credit_grant.scope IS 'Which usage it may pay for: {"products","meters","dimensions","bill_tos","windows"}; what is listed must fit, {} = all. Windows are instants, until exclusive.';
COMMENT ON COLUMN billing.credit_grant.effective_at IS 'It pays for usage from here on (inclusive), whenever that is rated and invoiced.';
COMMENT ON COLUMN billing.credit_grant.expires_at IS 'It pays for usage before this (exclusive); NULL = never expires.';
COMMENT ON COLUMN billing.credit_grant.rollover IS 'What becomes of what is unused at its end: {"cap","for"}: up to cap credits (all, without it) move to a new block that lasts so long (for ever, without it). NULL = it expires.';
COMMENT ON COLUMN billing.credit_grant.overdraft IS 'How far below 0 it may be drawn under credit_mode allow_negative, in unit; Infinity = without end, NULL = not at all.';
COMMENT ON COLUMN billing.credit_grant.rolled_from IS 'The block whose unused credits these are.';
COMMENT ON COLUMN billing.credit_grant.source_key IS 'What made it, once: <contract>/<credit>/<day>[/v<version>[/carried]] of a contract; NULL = a call, a top-up or a roll-over.';
COMMENT ON COLUMN billing.credit_grant.reason IS 'Why, in the words of the person who granted it.';
COMMENT ON COLUMN billing.credit_grant.created_at IS 'Real time.';
COMMENT ON COLUMN billing.credit_grant.extended_at IS 'Real time a person last moved its end: from then on the contract''s end does not. NULL = never.';
COMMENT ON COLUMN billing.credit_grant.expired_at IS 'Real time its end was posted: from then on what is reinstated to it expires at once. NULL = not yet.';
COMMENT ON COLUMN billing.credit_grant.voided_at IS 'Real time it was taken back, unused. NULL = it stands.';
SELECT billing_internal.declare_table('billing.credit_grant', 'customer-owned', '{expires_at, extended_at, expired_at, voided_at}',
    '{customer_id, grant_id, key, contract_id, pool_id, unit, category, amount, priority, scope, effective_at, expires_at, rollover, overdraft, rolled_from, created_at, expired_at, voided_at}');

CREATE TABLE billing.credit_block_balance (
    customer_id bigint NOT NULL,
    grant_id uuid NOT NULL,
    unit text COLLATE "C" NOT NULL,
    places smallint NOT NULL,
    posted numeric NOT NULL,
    reserved numeric NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    open boolean NOT NULL CHECK (open OR (posted = 0 AND reserved = 0)),
    PRIMARY KEY (customer_id, grant_id),
    FOREIGN KEY (customer_id, grant_id) REFERENCES billing.credit_grant
) WITH (fillfactor = 50);
-- Whoever draws looks at open blocks only, however many are used up. What a draw changes is in no index, so it stays on its page.
CREATE INDEX credit_block_balance_open_idx ON billing.credit_block_balance (customer_id, unit, grant_id) WHERE open;
COMMENT ON TABLE billing.credit_block_balance IS 'What each block holds: the sum of its ledger entries, and the lock under which they are added. Locked by customer_id, grant_id, ascending.';
COMMENT ON COLUMN billing.credit_block_balance.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.credit_block_balance.grant_id IS 'The block.';
COMMENT ON COLUMN billing.credit_block_balance.unit IS 'Its unit.';
COMMENT ON COLUMN billing.credit_block_balance.places IS 'Decimals that its unit is counted in: a currency''s minor units, 12 of any other.';
COMMENT ON COLUMN billing.credit_block_balance.posted IS 'Granted − burnt + reinstated − expired − voided − refunded − rolled out; below 0 it is debt.';
COMMENT ON COLUMN billing.credit_block_balance.reserved IS 'Part of posted that is promised to calls under way.';
COMMENT ON COLUMN billing.credit_block_balance.open IS 'Whether there is anything in it; false only where posted and reserved are 0.';
SELECT billing_internal.declare_table('billing.credit_block_balance', 'customer-owned', '{posted, reserved, open}', '{customer_id, grant_id, unit, places, posted, reserved, open}');

-- ── movements ────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE billing.credit_ledger_entry (
    customer_id bigint NOT NULL,
    grant_id uuid NOT NULL,
    entry_id uuid NOT NULL,
    transaction_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('granted', 'rolled_in', 'burnt', 'reinstated', 'expired', 'voided', 'refunded', 'rolled_out')),
    account text COLLATE "C" NOT NULL CHECK (account IN ('customer_balance', 'issued', 'consumed', 'expired')),
    unit text COLLATE "C" NOT NULL,
    amount numeric NOT NULL CHECK (amount <> 0),
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    invoice_id uuid,
    line_key text COLLATE "C",
    draw_id uuid,
    money numeric,
    reason text,
    PRIMARY KEY (customer_id, grant_id, entry_id)
);
CREATE INDEX credit_ledger_entry_invoice_idx ON billing.credit_ledger_entry (customer_id, invoice_id) WHERE invoice_id IS NOT NULL;
CREATE INDEX credit_ledger_entry_recorded_idx ON billing.credit_ledger_entry USING brin (recorded_at);
COMMENT ON TABLE billing.credit_ledger_entry IS 'The credit ledger, double entry, append-only: the entries of a transaction sum to 0 in each unit, and those of a block in account customer_balance to its balance. A correction is another entry.';
COMMENT ON COLUMN billing.credit_ledger_entry.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.credit_ledger_entry.grant_id IS 'The block.';
COMMENT ON COLUMN billing.credit_ledger_entry.entry_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.credit_ledger_entry.transaction_id IS 'The entries that belong together.';
COMMENT ON COLUMN billing.credit_ledger_entry.kind IS 'granted, rolled_in (moved here from another block), burnt (drawn), reinstated (given back), expired, voided (the grant was taken back), refunded or rolled_out (moved to another block).';
COMMENT ON COLUMN billing.credit_ledger_entry.account IS 'customer_balance, issued, consumed or expired.';
COMMENT ON COLUMN billing.credit_ledger_entry.unit IS 'The block''s unit.';
COMMENT ON COLUMN billing.credit_ledger_entry.amount IS 'In unit: debit above zero, credit below. So in customer_balance what comes in is above zero.';
COMMENT ON COLUMN billing.credit_ledger_entry.occurred_at IS 'When it happened, by billing.now(): of an invoice its boundary, of a draw when it was asked for.';
COMMENT ON COLUMN billing.credit_ledger_entry.recorded_at IS 'Real time it was posted.';
COMMENT ON COLUMN billing.credit_ledger_entry.invoice_id IS 'The invoice whose usage drew it, or gave it back.';
COMMENT ON COLUMN billing.credit_ledger_entry.line_key IS 'The line of that invoice.';
COMMENT ON COLUMN billing.credit_ledger_entry.draw_id IS 'The draw_down() that drew it.';
COMMENT ON COLUMN billing.credit_ledger_entry.money IS 'Of a refund: what is paid back, in the pool''s currency; on the entry in customer_balance.';
COMMENT ON COLUMN billing.credit_ledger_entry.reason IS 'Why, where somebody said.';
SELECT billing_internal.declare_table('billing.credit_ledger_entry', 'customer-owned', '{}',
    '{customer_id, grant_id, entry_id, transaction_id, kind, account, unit, amount, occurred_at, recorded_at, invoice_id, line_key, draw_id, money}');

CREATE TABLE billing.credit_allocation (
    customer_id bigint NOT NULL,
    allocation_id uuid NOT NULL,
    invoice_id uuid NOT NULL,
    contract_id uuid NOT NULL,
    n int NOT NULL CHECK (n >= 0),
    bill_to text COLLATE "C" NOT NULL,
    line_key text COLLATE "C" NOT NULL,
    grant_id uuid NOT NULL,
    quantity numeric,
    amount numeric NOT NULL CHECK (amount <> 0),
    place int NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, allocation_id)
);
CREATE INDEX credit_allocation_contract_idx ON billing.credit_allocation (customer_id, contract_id, n);
CREATE INDEX credit_allocation_invoice_idx ON billing.credit_allocation (customer_id, invoice_id);
CREATE INDEX credit_allocation_grant_idx ON billing.credit_allocation (customer_id, grant_id);
CREATE INDEX credit_allocation_recorded_idx ON billing.credit_allocation USING brin (recorded_at);
COMMENT ON TABLE billing.credit_allocation IS 'What each invoice line drew from each block, append-only: differences and what a void gives back are rows below zero. The sum of a line''s rows is what stands.';
COMMENT ON COLUMN billing.credit_allocation.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.credit_allocation.allocation_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.credit_allocation.invoice_id IS 'The invoice or credit note.';
COMMENT ON COLUMN billing.credit_allocation.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.credit_allocation.n IS 'The boundary whose usage it is.';
COMMENT ON COLUMN billing.credit_allocation.bill_to IS 'Key of the legal entity whose line it is.';
COMMENT ON COLUMN billing.credit_allocation.line_key IS 'Key of the line.';
COMMENT ON COLUMN billing.credit_allocation.grant_id IS 'The block.';
COMMENT ON COLUMN billing.credit_allocation.quantity IS 'The part of the line''s quantity it paid for; NULL where the line has none.';
COMMENT ON COLUMN billing.credit_allocation.amount IS 'Credits, in the block''s unit; below zero = given back.';
COMMENT ON COLUMN billing.credit_allocation.place IS 'Burn order among the rows posted together: a credit note gives the last back first.';
COMMENT ON COLUMN billing.credit_allocation.recorded_at IS 'Real time it was posted.';
SELECT billing_internal.declare_table('billing.credit_allocation', 'customer-owned', '{}',
    '{customer_id, allocation_id, invoice_id, contract_id, n, bill_to, line_key, grant_id, quantity, amount, place, recorded_at}');

CREATE TABLE billing.credit_draw (
    customer_id bigint NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    draw_id uuid NOT NULL,
    unit text COLLATE "C" NOT NULL,
    amount numeric NOT NULL CHECK (amount > 0),
    doc jsonb NOT NULL,
    drawn jsonb NOT NULL,
    available numeric NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, idempotency_key)
);
COMMENT ON TABLE billing.credit_draw IS 'Credit drawn by draw_down(), once per idempotency key.';
COMMENT ON COLUMN billing.credit_draw.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.credit_draw.idempotency_key IS 'The caller''s key.';
COMMENT ON COLUMN billing.credit_draw.draw_id IS 'UUIDv7; also the transaction of its ledger entries.';
COMMENT ON COLUMN billing.credit_draw.unit IS 'The unit drawn.';
COMMENT ON COLUMN billing.credit_draw.amount IS 'How much, in unit.';
COMMENT ON COLUMN billing.credit_draw.doc IS 'What it was for, as the caller said.';
COMMENT ON COLUMN billing.credit_draw.drawn IS 'Which block gave how much, in burn order: [{"grant","amount"}].';
COMMENT ON COLUMN billing.credit_draw.available IS 'What was available of the unit right after it.';
COMMENT ON COLUMN billing.credit_draw.occurred_at IS 'The usage''s time: the caller''s, or billing.now().';
COMMENT ON COLUMN billing.credit_draw.recorded_at IS 'Real time.';
SELECT billing_internal.declare_table('billing.credit_draw', 'customer-owned', '{}',
    '{customer_id, idempotency_key, draw_id, unit, amount, doc, drawn, available, occurred_at, recorded_at}');

-- ── top-ups ──────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE billing.top_up_rule (
    customer_id bigint NOT NULL REFERENCES billing.customer,
    rule_id uuid NOT NULL,
    unit text COLLATE "C" NOT NULL,
    threshold numeric NOT NULL,
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('fixed', 'target')),
    amount numeric NOT NULL,
    price numeric NOT NULL CHECK (price >= 0),
    monthly_cap numeric CHECK (monthly_cap > 0),
    terms jsonb NOT NULL,
    crossings bigint NOT NULL DEFAULT 0,
    below boolean NOT NULL DEFAULT false,
    waiting boolean NOT NULL DEFAULT false,
    month date,
    bought numeric NOT NULL DEFAULT 0,
    set_at timestamptz NOT NULL,
    set_by text COLLATE "C" NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (customer_id, rule_id)
);
CREATE UNIQUE INDEX top_up_rule_live_idx ON billing.top_up_rule (customer_id, unit) WHERE ended_at IS NULL;
COMMENT ON TABLE billing.top_up_rule IS 'When credit is bought by itself: once each time what is available falls below the threshold. At most one live rule per customer and unit; its row is the lock under which it fires.';
COMMENT ON COLUMN billing.top_up_rule.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.top_up_rule.rule_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.top_up_rule.unit IS 'The unit it watches and buys.';
COMMENT ON COLUMN billing.top_up_rule.threshold IS 'It fires where what is available, that was not, is below this; in unit.';
COMMENT ON COLUMN billing.top_up_rule.mode IS 'fixed (always amount) or target (what brings the balance up to amount).';
COMMENT ON COLUMN billing.top_up_rule.amount IS 'Credits of a pack, or the target; in unit.';
COMMENT ON COLUMN billing.top_up_rule.price IS 'Money per credit, in the customer''s currency.';
COMMENT ON COLUMN billing.top_up_rule.monthly_cap IS 'Most credits bought in a calendar month of the customer''s zone; NULL = without end.';
COMMENT ON COLUMN billing.top_up_rule.terms IS 'Of the blocks it buys: {"priority","scope","lasts"}.';
COMMENT ON COLUMN billing.top_up_rule.crossings IS 'Downward crossings seen so far; the number of the last is the idempotency key of its top-up.';
COMMENT ON COLUMN billing.top_up_rule.below IS 'Whether the balance was below the threshold when it was last looked at.';
COMMENT ON COLUMN billing.top_up_rule.waiting IS 'Whether the monthly cap kept the last crossing from firing.';
COMMENT ON COLUMN billing.top_up_rule.month IS 'First day of the month that bought is of; NULL = nothing looked at yet.';
COMMENT ON COLUMN billing.top_up_rule.bought IS 'Credits bought in that month.';
COMMENT ON COLUMN billing.top_up_rule.set_at IS 'Real time it was set.';
COMMENT ON COLUMN billing.top_up_rule.set_by IS 'Role that set it.';
COMMENT ON COLUMN billing.top_up_rule.ended_at IS 'Real time it was replaced or ended; NULL = it holds.';
SELECT billing_internal.declare_table('billing.top_up_rule', 'customer-owned', '{crossings, below, waiting, month, bought, ended_at}',
    '{customer_id, rule_id, unit, threshold, mode, amount, price, monthly_cap, terms, month, bought, set_at, ended_at}');

CREATE TABLE billing.top_up (
    customer_id bigint NOT NULL,
    rule_id uuid NOT NULL,
    crossing bigint NOT NULL,
    pool_id uuid NOT NULL,
    grant_id uuid NOT NULL,
    amount numeric NOT NULL,
    paid numeric NOT NULL,
    currency text COLLATE "C" NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, rule_id, crossing),
    FOREIGN KEY (customer_id, rule_id) REFERENCES billing.top_up_rule,
    FOREIGN KEY (customer_id, grant_id) REFERENCES billing.credit_grant,
    FOREIGN KEY (customer_id, pool_id) REFERENCES billing.credit_pool
);
COMMENT ON TABLE billing.top_up IS 'Top-ups made, one per downward crossing.';
COMMENT ON COLUMN billing.top_up.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.top_up.rule_id IS 'The rule.';
COMMENT ON COLUMN billing.top_up.crossing IS 'Number of the crossing, from 1.';
COMMENT ON COLUMN billing.top_up.pool_id IS 'The purchase.';
COMMENT ON COLUMN billing.top_up.grant_id IS 'The block that was bought.';
COMMENT ON COLUMN billing.top_up.amount IS 'Credits bought, in the rule''s unit.';
COMMENT ON COLUMN billing.top_up.paid IS 'Its price, in currency.';
COMMENT ON COLUMN billing.top_up.currency IS 'Currency of paid.';
COMMENT ON COLUMN billing.top_up.occurred_at IS 'When it fired, by billing.now().';
COMMENT ON COLUMN billing.top_up.recorded_at IS 'Real time.';
SELECT billing_internal.declare_table('billing.top_up', 'customer-owned', '{}', '{customer_id, rule_id, crossing, pool_id, grant_id, amount, paid, currency, occurred_at, recorded_at}');

-- ── commitments ──────────────────────────────────────────────────────────────────────────────────

CREATE TABLE billing.commitment (
    customer_id bigint NOT NULL,
    commitment_id uuid NOT NULL,
    contract_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, commitment_id),
    UNIQUE (customer_id, contract_id, key),
    FOREIGN KEY (customer_id, contract_id) REFERENCES billing.contract
);
COMMENT ON TABLE billing.commitment IS 'What a customer promised in a contract to spend. Its terms are those of each period.';
COMMENT ON COLUMN billing.commitment.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.commitment.commitment_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.commitment.contract_id IS 'The contract.';
COMMENT ON COLUMN billing.commitment.key IS 'Its key in the contract.';
COMMENT ON COLUMN billing.commitment.created_at IS 'Real time.';
SELECT billing_internal.declare_table('billing.commitment', 'customer-owned', '{}', '{customer_id, commitment_id, contract_id, key, created_at}');

CREATE TABLE billing.commitment_period (
    customer_id bigint NOT NULL,
    commitment_id uuid NOT NULL,
    starts_on date NOT NULL,
    n int NOT NULL CHECK (n >= 0),
    ends_on date,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    from_version int NOT NULL CHECK (from_version > 0),
    until_version int CHECK (until_version > from_version),
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('prepaid', 'postpaid')),
    amount numeric NOT NULL CHECK (amount >= 0),
    unit text COLLATE "C" NOT NULL,
    meter_id int REFERENCES billing.meter,
    pool_id uuid,
    terms jsonb NOT NULL,
    CHECK (ends_at > starts_at),
    PRIMARY KEY (customer_id, commitment_id, starts_on, from_version),
    FOREIGN KEY (customer_id, commitment_id) REFERENCES billing.commitment,
    FOREIGN KEY (customer_id, pool_id) REFERENCES billing.credit_pool
);
CREATE UNIQUE INDEX commitment_period_live_idx ON billing.commitment_period (customer_id, commitment_id, n) WHERE until_version IS NULL;
COMMENT ON TABLE billing.commitment_period IS 'The periods a commitment is paid or tested for, as each version of the contract says.';
COMMENT ON COLUMN billing.commitment_period.customer_id IS 'The customer.';
COMMENT ON COLUMN billing.commitment_period.commitment_id IS 'The commitment.';
COMMENT ON COLUMN billing.commitment_period.starts_on IS 'First local day (inclusive).';
COMMENT ON COLUMN billing.commitment_period.n IS 'Number of the period, from 0.';
COMMENT ON COLUMN billing.commitment_period.ends_on IS 'Day after the last (exclusive); NULL = without end.';
COMMENT ON COLUMN billing.commitment_period.starts_at IS 'Its start as an instant (inclusive).';
COMMENT ON COLUMN billing.commitment_period.ends_at IS 'Its end as an instant (exclusive); NULL = without end.';
COMMENT ON COLUMN billing.commitment_period.from_version IS 'First contract version that says so (inclusive).';
COMMENT ON COLUMN billing.commitment_period.until_version IS 'First contract version that no longer says so (exclusive); NULL = still said.';
COMMENT ON COLUMN billing.commitment_period.kind IS 'prepaid (paid in advance) or postpaid (tested at its end: what is missing is billed as true-up).';
COMMENT ON COLUMN billing.commitment_period.amount IS 'What is promised for the period, in unit.';
COMMENT ON COLUMN billing.commitment_period.unit IS 'The contract''s currency, or the meter''s unit.';
COMMENT ON COLUMN billing.commitment_period.meter_id IS 'Of a commitment in units: the meter they are of; NULL = in money.';
COMMENT ON COLUMN billing.commitment_period.pool_id IS 'The pool of the credits it pays for; NULL = it pays for none.';
COMMENT ON COLUMN billing.commitment_period.terms IS 'The canonical commitment document.';
SELECT billing_internal.declare_table('billing.commitment_period', 'customer-owned', '{until_version, pool_id}',
    '{customer_id, commitment_id, starts_on, n, ends_on, starts_at, ends_at, from_version, until_version, kind, amount, unit, meter_id, pool_id, terms}');

-- Contracts, from document to document: what of a deal is arithmetic on dates and texts, in Rust. Dates are local days of the
-- contract's zone throughout; SQL makes instants of them.

CREATE FUNCTION billing_internal.contract_change_read(kind text, change text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_change_read_wrapper';
COMMENT ON FUNCTION billing_internal.contract_change_read(text, text) IS 'The canonical form of one change of a contract, of a kind: create (a contract document), amend, change_plan ({"plan"}), pause, resume ({"extend_term"}), cancel, renew ({"percent", "term", "prices"}), notice. NULL where contract_change_read_error() says why not.';
CREATE FUNCTION billing_internal.contract_change_read_error(kind text, change text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_change_read_error_wrapper';
COMMENT ON FUNCTION billing_internal.contract_change_read_error(text, text) IS 'Why contract_change_read() gave NULL, with the JSON path in the change.';

CREATE FUNCTION billing_internal.contract_timeline(changes text, plans text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_timeline_wrapper';
COMMENT ON FUNCTION billing_internal.contract_timeline(text, text) IS
    'What changes come to: the stretches in which each item of a contract has which terms. changes is [{"version", "kind", "on", "at", "plan", "change"}] in any order: on is the local day from which it holds, at the instant if that lies inside the day; plan is the key, in the object plans, of the plan that a create or change_plan puts in force. The fold goes by (on, at, version); changes after the end are passed over; a renewal extends the end that is there. The result has starts_on, ends_on (ends_at if inside a day), cancelled, notice, interval, alignment, trial_until, renewal with notice_deadline, paused, bill_tos, purchase_orders, document (in force after the last change) and rows: {"kind", "key", "position", "from", "until", "from_at", "until_at", "every", "price_book", "terms"}, half-open; from_at and until_at stand only where a row begins or ends inside that day. NULL where contract_timeline_error() says why.';
CREATE FUNCTION billing_internal.contract_timeline_error(changes text, plans text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_timeline_error_wrapper';
COMMENT ON FUNCTION billing_internal.contract_timeline_error(text, text) IS 'Why contract_timeline() gave NULL. A fault of the newest change has its path in that change; one that it causes in a later one names the version.';

CREATE FUNCTION billing_internal.contract_uplift(renewal text, index text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_uplift_wrapper';
COMMENT ON FUNCTION billing_internal.contract_uplift(text, text) IS 'By how many percent a renewal raises prices: of the renewal of a timeline, and the value in percent of the index it follows (NULL where it follows none). An index is kept between min (0 unless said) and max. NULL where contract_uplift_error() says why.';
CREATE FUNCTION billing_internal.contract_uplift_error(renewal text, index text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_uplift_error_wrapper';
COMMENT ON FUNCTION billing_internal.contract_uplift_error(text, text) IS 'Why contract_uplift() gave NULL.';

CREATE FUNCTION billing_internal.contract_fees_fall(before text, after text, day text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_fees_fall_wrapper';
COMMENT ON FUNCTION billing_internal.contract_fees_fall(text, text, text) IS 'Whether the fees that hold on a local day, each spread over its own interval, sum to less in the second of two timelines: a downgrade.';

CREATE FUNCTION billing_internal.contract_describe(document text, plan text, known text) RETURNS SETOF text
    LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 20 AS 'MODULE_PATHNAME', 'contract_describe_wrapper';
COMMENT ON FUNCTION billing_internal.contract_describe(text, text, text) IS 'A contract document with its plan (NULL = none) and what the catalogue says of what it names ({"prices":[{"book","key","pricing"}],"features":[{"key","kind","unit"}]}) in English sentences, one a term, with dates (the last day is named) and amounts. No row where contract_describe_error() says why.';
CREATE FUNCTION billing_internal.contract_describe_error(document text, plan text, known text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_describe_error_wrapper';
COMMENT ON FUNCTION billing_internal.contract_describe_error(text, text, text) IS 'Why contract_describe() gave no row.';

CREATE FUNCTION billing_internal.contract_diff(before text, after text)
    RETURNS TABLE (kind text, item text, change text, before_terms text, after_terms text)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 20 AS 'MODULE_PATHNAME', 'contract_diff_wrapper';
COMMENT ON FUNCTION billing_internal.contract_diff(text, text) IS 'What two timelines, as contract_timeline() gave them, say differently: kind is a row''s kind or contract, item its key or the name of a fact (ends_on, renewal, …), change is added, removed or changed; before_terms and after_terms are JSON: the item''s stretches, or the fact.';

-- The aggregations of meters as SQL aggregates, for any rows: `SELECT billing.usage_sum(tokens) FROM …`.
-- One state serves all of them. It merges in any order, so partial and parallel plans give the same quantity.
-- The functions that take in rows raise ZB codes themselves: no facade can stand above a state of type internal.

CREATE FUNCTION billing_internal.usage_count_add(internal) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_count_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_count_add(internal) IS 'Adds a row to a count.';
CREATE FUNCTION billing_internal.usage_count_add(internal, "any") RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_count_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_count_add(internal, "any") IS 'Adds a row to a count unless its value is NULL.';
CREATE FUNCTION billing_internal.usage_sum_add(internal, numeric) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_sum_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_sum_add(internal, numeric) IS 'Adds a number to a sum. Errors: ZB004 more than 28 digits or 12 after the point, NaN, infinity; ZB010 a sum beyond 38 digits.';
CREATE FUNCTION billing_internal.usage_max_add(internal, numeric) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_max_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_max_add(internal, numeric) IS 'Compares a number with a maximum. Errors: ZB004 more than 28 digits, NaN, infinity.';
CREATE FUNCTION billing_internal.usage_min_add(internal, numeric) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_min_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_min_add(internal, numeric) IS 'Compares a number with a minimum. Errors: ZB004 more than 28 digits, NaN, infinity.';
CREATE FUNCTION billing_internal.usage_average_add(internal, numeric) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_average_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_average_add(internal, numeric) IS 'Adds a number to an average. Errors: ZB004 more than 28 digits or 12 after the point, NaN, infinity; ZB010 a sum beyond 38 digits.';
CREATE FUNCTION billing_internal.usage_latest_add(internal, numeric, timestamptz) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_latest_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_latest_add(internal, numeric, timestamptz) IS 'Keeps the later of a number and the last one. Errors: ZB004 more than 28 digits, NaN, infinity.';
CREATE FUNCTION billing_internal.usage_weighted_sum_add(internal, numeric, timestamptz, timestamptz, timestamptz) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_weighted_sum_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_weighted_sum_add(internal, numeric, timestamptz, timestamptz, timestamptz) IS 'Adds a change to a level. Errors: ZB004 more than 28 digits or 12 after the point, NaN, infinity, no stretch of time, another than before; ZB010 a level beyond 38 digits.';
CREATE FUNCTION billing_internal.usage_percentile_add(internal, numeric, numeric) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_percentile_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_percentile_add(internal, numeric, numeric) IS 'Adds a number to all the others. Errors: ZB004 more than 28 digits, NaN, infinity, no percentile, another than before.';
CREATE FUNCTION billing_internal.usage_unique_add(internal, text) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_unique_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_unique_add(internal, text) IS 'Adds the key of a value to a set of keys.';
CREATE FUNCTION billing_internal.usage_unique_add(internal, text, timestamptz, text) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_unique_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_unique_add(internal, text, timestamptz, text) IS 'Keeps the later of an operation on a value and its last one. Errors: ZB004 neither add nor remove.';
CREATE FUNCTION billing_internal.usage_state_combine(internal, internal) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_state_combine_wrapper';
COMMENT ON FUNCTION billing_internal.usage_state_combine(internal, internal) IS 'Two states into one that holds the rows of both. Errors: ZB010 a sum beyond 38 digits.';
CREATE FUNCTION billing_internal.usage_state_serial(internal) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_state_serial_wrapper';
COMMENT ON FUNCTION billing_internal.usage_state_serial(internal) IS 'The bytes of a state, on its way from a parallel worker.';
CREATE FUNCTION billing_internal.usage_state_deserial(bytea, internal) RETURNS internal
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_state_deserial_wrapper';
COMMENT ON FUNCTION billing_internal.usage_state_deserial(bytea, internal) IS 'The state of its bytes.';
CREATE FUNCTION billing_internal.usage_state_total(internal) RETURNS numeric
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_state_total_wrapper';
COMMENT ON FUNCTION billing_internal.usage_state_total(internal) IS 'The quantity of a count, sum, weighted sum or unique count; 0 of no rows.';
CREATE FUNCTION billing_internal.usage_state_quantity(internal) RETURNS numeric
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_state_quantity_wrapper';
COMMENT ON FUNCTION billing_internal.usage_state_quantity(internal) IS 'The quantity of a maximum, minimum, average, last or ranked value; NULL of no rows.';

CREATE AGGREGATE billing.usage_count(*) (
    SFUNC = billing_internal.usage_count_add, STYPE = internal, SSPACE = 64, FINALFUNC = billing_internal.usage_state_total,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_count(*) IS 'The number of rows, as a meter of aggregation count counts events; 0 of none.';

CREATE AGGREGATE billing.usage_count("any") (
    SFUNC = billing_internal.usage_count_add, STYPE = internal, SSPACE = 64, FINALFUNC = billing_internal.usage_state_total,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_count("any") IS 'The number of rows whose value is not NULL; 0 of none.';

CREATE AGGREGATE billing.usage_sum(numeric) (
    SFUNC = billing_internal.usage_sum_add, STYPE = internal, SSPACE = 64, FINALFUNC = billing_internal.usage_state_total,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_sum(numeric) IS
    'The exact sum of usage numbers, as a meter of aggregation sum gives it, in the unit of the numbers, without trailing zeros. NULLs do not count; 0 of no numbers. Errors: ZB004 a number of more than 28 digits or 12 after the point, NaN, infinity; ZB010 a sum beyond 38 digits before the point.';

CREATE AGGREGATE billing.usage_max(numeric) (
    SFUNC = billing_internal.usage_max_add, STYPE = internal, SSPACE = 64, FINALFUNC = billing_internal.usage_state_quantity,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_max(numeric) IS
    'The largest usage number, as a meter of aggregation max gives it, in the unit of the numbers, without trailing zeros. NULLs do not count; NULL of no numbers. Errors: ZB004 a number of more than 28 digits, NaN, infinity.';

CREATE AGGREGATE billing.usage_unique_count(text) (
    SFUNC = billing_internal.usage_unique_add, STYPE = internal, SSPACE = 4096, FINALFUNC = billing_internal.usage_state_total,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_unique_count(text) IS
    'The number of distinct values, exactly, as a meter of aggregation unique_count gives it: case counts, 1 and 1.0 are two texts, the keys in usage_value count as what they are. NULLs do not count; 0 of no values. Takes about 40 bytes of memory a distinct value.';

CREATE AGGREGATE billing.usage_unique_count(text, timestamptz, text) (
    SFUNC = billing_internal.usage_unique_add, STYPE = internal, SSPACE = 4096, FINALFUNC = billing_internal.usage_state_total,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_unique_count(text, timestamptz, text) IS
    'The number of values that are present after all operations (value, at, operation), as a meter with "operation" gives it: a value is present if the last operation on it is add and not remove; of two at one instant a removal is the last. Rows with a NULL do not count; 0 of no values. Errors: ZB004 an operation that is neither.';

CREATE AGGREGATE billing.usage_min(numeric) (
    SFUNC = billing_internal.usage_min_add, STYPE = internal, SSPACE = 64, FINALFUNC = billing_internal.usage_state_quantity,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_min(numeric) IS
    'The smallest usage number, as a meter of aggregation min gives it. NULLs do not count; NULL of no numbers. Errors: ZB004 a number of more than 28 digits, NaN, infinity.';

CREATE AGGREGATE billing.usage_average(numeric) (
    SFUNC = billing_internal.usage_average_add, STYPE = internal, SSPACE = 64, FINALFUNC = billing_internal.usage_state_quantity,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_average(numeric) IS
    'The exact sum of usage numbers over their number, divided once and rounded to 12 places, half away from zero, as a meter of aggregation average gives it. NULLs do not count; NULL of no numbers. Errors: ZB004 a number of more than 28 digits or 12 after the point, NaN, infinity; ZB010 a sum beyond 38 digits before the point.';

CREATE AGGREGATE billing.usage_latest(numeric, timestamptz) (
    SFUNC = billing_internal.usage_latest_add, STYPE = internal, SSPACE = 128, FINALFUNC = billing_internal.usage_state_quantity,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_latest(numeric, timestamptz) IS
    'The last usage number (value, at), as a meter of aggregation latest gives it; of two at one instant the greater. Rows with a NULL do not count; NULL of no numbers. Errors: ZB004 a number of more than 28 digits, NaN, infinity.';

CREATE AGGREGATE billing.usage_weighted_sum(numeric, timestamptz, timestamptz, timestamptz) (
    SFUNC = billing_internal.usage_weighted_sum_add, STYPE = internal, SSPACE = 256, FINALFUNC = billing_internal.usage_state_total,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_weighted_sum(numeric, timestamptz, timestamptz, timestamptz) IS
    'The level that changes (value, at, from_at, until_at) make, over time: its integral over [from_at, until_at) in unit-hours, rounded once to 12 places, as a meter of aggregation weighted_sum gives it. Changes before from_at count for the whole stretch, those from until_at on not at all. Rows with a NULL value or time do not count; 0 of no changes. Errors: ZB004 a number of more than 28 digits or 12 after the point, a stretch that is NULL, empty or not the same in all rows; ZB010 a level beyond 38 digits.';

CREATE AGGREGATE billing.usage_percentile(numeric, numeric) (
    SFUNC = billing_internal.usage_percentile_add, STYPE = internal, SSPACE = 4096, FINALFUNC = billing_internal.usage_state_quantity,
    COMBINEFUNC = billing_internal.usage_state_combine, SERIALFUNC = billing_internal.usage_state_serial,
    DESERIALFUNC = billing_internal.usage_state_deserial, PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.usage_percentile(numeric, numeric) IS
    'The value that so many percent (99 for the 99th percentile) of the usage numbers do not exceed, by nearest rank: of n sorted numbers the one at ceil(percentile · n / 100). Exact; takes about 50 bytes of memory a distinct number. NULLs do not count; NULL of no numbers. Errors: ZB004 a number of more than 28 digits, a percentile not above 0 and up to 100 or not the same in all rows.';

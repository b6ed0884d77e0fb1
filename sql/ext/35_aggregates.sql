-- The aggregations of meters as SQL aggregates, for any rows: `SELECT billing.usage_sum(tokens) FROM …`.
-- One state serves all four. It merges in any order, so partial and parallel plans give the same quantity.
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
CREATE FUNCTION billing_internal.usage_unique_add(internal, text) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_unique_add_wrapper';
COMMENT ON FUNCTION billing_internal.usage_unique_add(internal, text) IS 'Adds the key of a value to a set of keys.';
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
COMMENT ON FUNCTION billing_internal.usage_state_total(internal) IS 'The quantity of a count, sum or unique count; 0 of no rows.';
CREATE FUNCTION billing_internal.usage_state_quantity(internal) RETURNS numeric
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_state_quantity_wrapper';
COMMENT ON FUNCTION billing_internal.usage_state_quantity(internal) IS 'The quantity of a maximum; NULL of no rows.';

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

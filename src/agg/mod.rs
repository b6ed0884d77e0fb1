//! SQL aggregates over the states of the domain. Declared in sql/ext/35_aggregates.sql.

mod usage;

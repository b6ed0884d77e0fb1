//! Postgres itself: datums, settings, errors, the installed schema. The only unsafe code beside `types` and `agg`.

pub mod clock;
pub mod fault;
pub mod install;
pub mod instant;
pub mod numeric;
pub mod raising;

pub use fault::{FaultJson, raise};
pub use numeric::Numeric;

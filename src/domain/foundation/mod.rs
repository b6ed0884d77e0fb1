//! Foundation: exact numbers, rounding, splits, calendars, documents, instants, hashes and faults.

pub mod allocate;
pub mod calendar;
pub mod decimal;
pub mod fault;
pub mod hash;
pub mod instant;
pub mod json;
pub mod money;
pub mod party;
pub mod proration;
pub mod ratio;
pub mod rounding;

pub use allocate::allocate;
pub use decimal::Exact;
pub use fault::{Code, Fault};
pub use ratio::Ratio;
pub use rounding::{RoundingLevel, RoundingMode};

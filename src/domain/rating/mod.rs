//! Rating: pricing documents, their models, and the exact amount of a quantity with its working.
//!
//! A [`Pricing`] is read and validated once into a compiled form; [`Pricing::rate`] then only adds and
//! multiplies exact fractions. Nothing here rounds: an amount is rounded once, at the invoice line.
//! [`Pricing::explain`] walks the document itself, tier by tier, so it and `rate` check each other.

mod adjust;
mod document;
mod explain;
mod matrix;
mod percentage;
mod pricing;
mod tiers;
mod versions;
mod words;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod worked_numbers;

pub use adjust::raised;
pub use explain::{Step, shown_steps};
pub use matrix::{MATRIX_DIMENSIONS_MAX, MATRIX_ROWS_MAX, MatrixRow, match_candidates};
pub use pricing::Pricing;
pub use tiers::TIERS_MAX;
pub use versions::{EventAmount, TierContinuity, Used, rate_versions};
pub use words::number;

//! The rules of billing as pure functions: no Postgres, no clock, no environment, no I/O, no floating point.
//!
//! The layers stand in the order of dependence; a layer uses only the ones above it in this list.
//! `cargo test --no-default-features` builds and tests all of this without Postgres.
#![deny(clippy::float_arithmetic, clippy::float_cmp, clippy::lossy_float_literal)]
#![deny(unsafe_code)]

pub mod contracts;
pub mod credits;
pub mod entitlements;
pub mod foundation;
pub mod ingestion;
pub mod invoicing;
pub mod metering;
pub mod page;
pub mod rating;

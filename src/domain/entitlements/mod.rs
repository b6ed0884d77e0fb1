//! Entitlements: what a customer may do, how often, and for how much.

pub mod gcra;
pub mod limit_document;
pub mod rate_table;

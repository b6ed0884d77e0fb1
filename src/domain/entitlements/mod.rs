//! Entitlements: what a customer may do, how often, and for how much.

pub mod gcra;
pub mod rate_table;

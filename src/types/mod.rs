//! SQL base types for function boundaries. Tables store built-in types only.

pub mod money;
pub mod pricing;

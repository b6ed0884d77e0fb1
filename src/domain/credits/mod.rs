//! Credits: blocks of prepaid credit, what usage draws from them, and commitments (rules.md 3). Arithmetic on values
//! only; SQL holds rows, locks and the clock, and posts what ends a block or takes back (tests/credit_conservation.rs).
//!
//! - [`pool`]: what a purchase promised for its price, and so what one credit is worth: the exact cost basis.
//! - [`scope`]: which usage a block may pay for, and which of two scopes is narrower.
//! - [`block`]: a block's terms.
//! - [`order`]: in which order blocks are drawn down; contract data.
//! - [`draw`]: settles usage against blocks. [`rows`]: the allocation rows that makes.
//! - [`top_up`]: automatic top-ups, and how debt is paid off.
//! - [`document`]: the documents that grants, purchases and top-up rules are made of.
//! - [`commitment`]: true-up, instalments, waterfall.
//!
//! Credits are drawn in multiples of their unit's smallest part (`places`, at most [`PLACES_MAX`]), which the caller
//! brings along, as for all posted amounts; nothing here looks up a currency.

pub mod block;
pub mod commitment;
pub mod document;
pub mod draw;
pub mod order;
pub mod pool;
pub mod rows;
pub mod scope;
pub mod top_up;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod worked_numbers;

pub use block::{Block, Category, Overdraft, Rollover};
pub use draw::{Mode, Open, Piece, Settled, Terms, settle};
pub use order::Order;
pub use pool::Pool;
pub use rows::{Draw, Rest, Rows};
pub use scope::{Scope, Subject, Window};

/// Most digits after the point of an amount of credit: as many as of a quantity.
pub const PLACES_MAX: u32 = 12;

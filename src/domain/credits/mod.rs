//! Credits: blocks of prepaid credit, what usage draws from them, how draws are reversed, how blocks end, and
//! commitments (rules.md 3). Arithmetic on values only; SQL holds rows, locks and the clock.
//!
//! - [`pool`]: what a purchase promised for its price, and so what one credit is worth: the exact cost basis.
//! - [`scope`]: which usage a block may pay for, and which of two scopes is narrower.
//! - [`block`]: a block's terms. [`ledger`]: a block's entries and its balance.
//! - [`order`]: in which order blocks are drawn down; contract data.
//! - [`draw`]: settles usage against blocks. [`rows`]: the allocation rows that makes, and their differences.
//! - [`reverse`]: voids, partial credit notes, refunds, reinstatement.
//! - [`expire`]: expiry after grace and roll-over. [`top_up`]: automatic top-ups, and how debt is paid off.
//! - [`document`]: the documents that grants, purchases and top-up rules are made of.
//! - [`commitment`]: true-up, true-down, instalments, waterfall.
//!
//! Credits are drawn in multiples of their unit's smallest part (`places`, at most [`PLACES_MAX`]), which the caller
//! brings along, as for all posted amounts; nothing here looks up a currency.

pub mod block;
pub mod commitment;
pub mod document;
pub mod draw;
pub mod expire;
pub mod ledger;
pub mod order;
pub mod pool;
pub mod reverse;
pub mod rows;
pub mod scope;
pub mod top_up;

#[cfg(test)]
mod conservation;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod worked_numbers;

pub use block::{Block, Category, Overdraft, Rollover};
pub use draw::{Beyond, Mode, Open, Piece, Settled, Terms, settle};
pub use ledger::{Account, Balance, Entry, Kind};
pub use order::Order;
pub use pool::Pool;
pub use rows::{Draw, Rest, Rows};
pub use scope::{Scope, Subject, Window};

/// Most digits after the point of an amount of credit: as many as of a quantity.
pub const PLACES_MAX: u32 = 12;

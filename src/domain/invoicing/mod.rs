//! Invoicing: from terms and quantities to lines, totals and the invoice document.
//!
//! `batch` asks the database for what bills need and makes their `inputs`: everything an invoice is computed
//! from. `compute` turns those into lines (`discount` takes off), `settlement` draws for them on the customer's credit
//! (`purse`), `difference` makes what stands for earlier periods into lines that correct it, `document` the canonical document,
//! `explain` text for a person. The same inputs always give the same bytes.

pub mod batch;
pub mod commitments;
pub mod compute;
pub mod difference;
pub mod discount;
pub mod document;
pub mod explain;
pub mod inputs;
pub mod purse;
pub mod settlement;
pub mod total;

#[cfg(test)]
mod tests;

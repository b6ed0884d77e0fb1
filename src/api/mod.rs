//! The functions behind the SQL surface, one file per layer: decode, call the domain, encode.
//! They are declared in sql/ext, where each has its signature, labels and comment.

mod contracts;
mod credits;
mod entitlements;
mod foundation;
mod ingestion;
mod invoicing;
mod limits;
mod metering;
mod page;
mod rating;

//! Contracts: the documents of the catalogue, of plans and of deals, and which price holds for which usage.

pub mod amendment;
pub mod catalogue;
pub mod charge;
pub mod contract;
pub mod describe;
pub mod diff;
pub mod extras;
pub mod overrides;
pub mod plan;
pub mod renewal;
pub mod resolve;
pub mod schedule;
pub mod timeline;

/// Most charges and fees of one contract or plan.
pub const CHARGES_MAX: usize = 1000;
/// Most discounts, commitments, credits, entitlements, add-ons or phases of one contract.
pub const EXTRAS_MAX: usize = 1000;
/// Most overrides of one contract or customer.
pub const OVERRIDES_MAX: usize = 10_000;

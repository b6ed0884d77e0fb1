//! What is left out of the simulation until the billing system does it as its documents say. Each switch is turned on, and
//! then removed, by whoever mends it.

/// A trial in a contract of a customer that has prices of its own: `trial: is not a field of this document`.
pub(crate) const TRIALS_BESIDE_CUSTOMER_OVERRIDES: bool = false;

//! Metering: what an event counts for on a meter, and how counts merge.

pub mod aggregate;
pub mod call;
pub mod delta;
pub mod dimensions;
pub mod expression;
pub mod filter;
pub mod filters;
pub mod measure;
pub mod meter;
pub mod meters;
pub mod path;
mod scalar;

pub use aggregate::{Aggregation, Contribution, Kind, Quantity, State, Sum};
pub use dimensions::Dimensions;
pub use expression::{Evaluated, Expression};
pub use filter::Filter;
pub use measure::{Measure, Together};
pub use meter::{Measured, Meter};
pub use meters::Meters;
pub use path::Path;

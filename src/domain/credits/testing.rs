//! Helpers of this layer's tests.

use super::{Block, Category, Overdraft, Scope, Subject};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, Ratio};
use crate::domain::metering::Dimensions;
use std::collections::BTreeSet;
use uuid::Uuid;

pub fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

pub fn ratio(text: &str) -> Ratio {
    exact(text).into()
}

pub fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

pub fn usd() -> Unit {
    Unit::parse("USD").unwrap()
}

/// Midnight UTC of a date, or an instant as it is written.
pub fn at(text: &str) -> Instant {
    Instant::parse(text).or_else(|_| Instant::parse(&format!("{text}T00:00:00Z"))).unwrap()
}

pub fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| value.to_string()).collect()
}

/// A promotional block in USD, for all usage since for ever.
pub fn block(n: u128, granted: &str) -> Block {
    Block {
        id: id(n),
        unit: usd(),
        category: Category::Promotional,
        granted: exact(granted),
        pool: None,
        priority: 50,
        scope: Scope::default(),
        effective_at: Instant(0),
        expires_at: None,
        rollover: None,
        overdraft: Overdraft::None,
        rolled_from: None,
    }
}

pub fn subject(line: &str, product: &str, meter: &str, bill_to: &str) -> Subject {
    Subject {
        line: line.into(),
        product: product.into(),
        meter: meter.into(),
        dimensions: Dimensions::new(),
        bill_to: bill_to.into(),
        unit: usd(),
    }
}

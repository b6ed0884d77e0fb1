//! What a quantity costs.

use super::documents::{field, list, maybe, text};
use super::{Q, dec, decimal, q};
use num_traits::Zero;
use serde_json::Value;

/// What a quantity costs by a pricing without minimum and maximum; a matrix must be resolved to a row before.
pub fn rate(pricing: &Value, quantity: &Q) -> Q {
    let per = maybe(pricing, "per").unwrap_or_else(|| q(1));
    let free = maybe(pricing, "free_units").unwrap_or_else(|| q(0));
    let quantity = if free.is_zero() { quantity.clone() } else { (quantity - free).max(q(0)) };
    let tiers = || {
        let mut below = q(0);
        list(pricing, "tiers")
            .iter()
            .map(|tier| {
                let from = below.clone();
                let until = maybe(tier, "up_to");
                if let Some(until) = &until {
                    below = until.clone();
                }
                (from, until, tier)
            })
            .collect::<Vec<_>>()
    };
    match text(pricing, "model").expect("a model") {
        "flat" => field(pricing, "amount"),
        "per_unit" => quantity * field(pricing, "unit_price") / per,
        "graduated" => {
            let mut amount = q(0);
            for (from, until, tier) in tiers() {
                if quantity > from {
                    let top = until.map_or(quantity.clone(), |u| u.min(quantity.clone()));
                    amount += (top - from) * field(tier, "unit_price") / &per;
                    amount += maybe(tier, "flat_fee").unwrap_or_else(|| q(0));
                }
            }
            amount
        }
        "volume" => {
            if quantity.is_zero() {
                return q(0);
            }
            for (_, until, tier) in tiers() {
                if until.is_none_or(|u| quantity <= u) {
                    return &quantity * field(tier, "unit_price") / &per
                        + maybe(tier, "flat_fee").unwrap_or_else(|| q(0));
                }
            }
            panic!("{quantity} is above the last tier")
        }
        "stairstep" => {
            if quantity.is_zero() {
                return q(0);
            }
            for (_, until, tier) in tiers() {
                if until.is_none_or(|u| quantity <= u) {
                    return field(tier, "amount");
                }
            }
            panic!("{quantity} is above the last step")
        }
        "package" => (quantity / field(pricing, "package_size")).ceil() * field(pricing, "amount"),
        other => panic!("no model {other}"),
    }
}

pub fn is_linear(pricing: &Value) -> bool {
    text(pricing, "model") == Some("per_unit") && pricing["free_units"].is_null()
}

/// Every amount of a pricing times a factor, exactly; minimum, maximum, free units and bounds stay.
pub fn scale(pricing: &Value, factor: &Q) -> Value {
    match pricing {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    let value = match (name.as_str(), value) {
                        ("unit_price" | "amount" | "flat_fee", Value::String(t)) => {
                            Value::String(decimal(&(dec(t) * factor)))
                        }
                        ("tiers" | "rows" | "pricing", inner) => scale(inner, factor),
                        _ => value.clone(),
                    };
                    (name.clone(), value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(|item| scale(item, factor)).collect()),
        other => other.clone(),
    }
}

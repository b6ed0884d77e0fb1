//! Events of Lago, as `{"event": {…}}`, `{"events": […]}`, in an array or alone: `transaction_id`,
//! `external_subscription_id` or `external_customer_id`, `code`, `timestamp` (unix seconds, with a fraction or not, as
//! number or string, or RFC 3339), `properties`, `precise_total_amount_cents`.
//!
//! The subscription, where no customer is named, must be a key or alias of the customer. Numbers that are sent as
//! strings: see [`canonical_numbers`](super::canonical_numbers). The amount becomes the property
//! `precise_total_amount_cents`, a number in any decimal form.

use super::{Adapted, Fields, Native, Places, canonical_numbers, number, unix_time};
use crate::domain::foundation::json::Tree;
use crate::domain::ingestion::event::{Problem, reason};
use std::borrow::Cow;

const AMOUNT: &str = "precise_total_amount_cents";
const PLACES: Places = Places {
    customer: "external_subscription_id",
    event_id: "transaction_id",
    event_type: "code",
    occurred_at: "timestamp",
    properties: "properties",
    bill_to: "bill_to",
};

pub(super) fn adapt(mut fields: Fields<'_>) -> Result<Adapted<'_>, Problem> {
    let (own, subscription) = (fields.take("external_customer_id"), fields.take("external_subscription_id"));
    let customer_place = if own.is_some() { "external_customer_id" } else { PLACES.customer };
    let mut properties = canonical_numbers(fields.take("properties"));
    if let Some(amount) = fields.take(AMOUNT) {
        match properties.get_or_insert_with(|| Tree::Object(Vec::new())) {
            Tree::Object(members) if members.iter().any(|(key, _)| key == AMOUNT) => {
                let message = format!("{AMOUNT}: stands in properties, too");
                return Err(Problem::new(reason::BAD_VALUE, message));
            }
            Tree::Object(members) => members.push((Cow::Borrowed(AMOUNT), number(amount))),
            _ => {} // the native reader refuses such properties
        }
    }
    let native = Native {
        customer: own.or(subscription),
        event_id: fields.take("transaction_id"),
        event_type: fields.take("code"),
        occurred_at: unix_time(fields.take("timestamp"), PLACES.occurred_at)?,
        properties,
        bill_to: None,
    };
    fields.ignore(&["lago_id", "lago_customer_id", "lago_subscription_id", "created_at"]);
    fields.finish(
        "transaction_id, external_subscription_id, external_customer_id, code, timestamp, properties, precise_total_amount_cents",
    )?;
    Ok(native.adapted(Places { customer: customer_place, ..PLACES }))
}

//! Meter events of Stripe, v1 (unix seconds) and v2 (RFC 3339), alone, in an array or as `{"events": […]}`:
//! `event_name`, `identifier`, `timestamp`, `payload`.
//!
//! The payload's `stripe_customer_id` is the customer, the rest the properties. Its values are strings; see
//! [`canonical_numbers`](super::canonical_numbers) for those that become numbers. `value`, which is always a quantity,
//! becomes one in any decimal form (`"10.00"`).

use super::{Adapted, Fields, Native, Places, canonical_numbers, number, unix_time};
use crate::domain::foundation::json::Tree;
use crate::domain::ingestion::event::{Problem, reason, wrong_type};

const CUSTOMER: &str = "stripe_customer_id";
const PLACES: Places = Places {
    customer: "payload.stripe_customer_id",
    event_id: "identifier",
    event_type: "event_name",
    occurred_at: "timestamp",
    properties: "payload",
    bill_to: "payload",
};

pub(super) fn adapt(mut fields: Fields<'_>) -> Result<Adapted<'_>, Problem> {
    let payload = match fields.take("payload") {
        Some(Tree::Object(payload)) => payload,
        Some(other) => return Err(wrong_type("payload", "an object", &other)),
        None => return Err(Problem::new(reason::MISSING_FIELD, "payload: is missing")),
    };
    let mut payload = Fields(payload);
    let customer = payload.take(CUSTOMER);
    for (key, value) in &mut payload.0 {
        if key == "value" {
            *value = number(std::mem::replace(value, Tree::Null));
        }
    }
    let native = Native {
        customer,
        event_id: fields.take("identifier"),
        event_type: fields.take("event_name"),
        occurred_at: unix_time(fields.take("timestamp"), PLACES.occurred_at)?,
        properties: canonical_numbers(Some(Tree::Object(payload.0))),
        bill_to: None,
    };
    fields.ignore(&["object", "created", "livemode"]);
    fields.finish("event_name, identifier, timestamp, payload")?;
    Ok(native.adapted(PLACES))
}

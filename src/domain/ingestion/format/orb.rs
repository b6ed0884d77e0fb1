//! Events of Orb, alone, in an array or as `{"events": […]}`: `event_name`, `idempotency_key`, `timestamp`,
//! `external_customer_id` or `customer_id`, `properties`. Values are as they are sent: numbers are numbers there.

use super::{Adapted, Fields, Native, Places, either};
use crate::domain::ingestion::event::Problem;

const PLACES: Places = Places {
    customer: "external_customer_id",
    event_id: "idempotency_key",
    event_type: "event_name",
    occurred_at: "timestamp",
    properties: "properties",
    bill_to: "bill_to",
};

pub(super) fn adapt(mut fields: Fields<'_>) -> Result<Adapted<'_>, Problem> {
    let (customer, own) = either(&mut fields, "customer_id", "external_customer_id")?;
    let native = Native {
        customer,
        event_id: fields.take("idempotency_key"),
        event_type: fields.take("event_name"),
        occurred_at: fields.take("timestamp"),
        properties: fields.take("properties"),
        bill_to: None,
    };
    fields
        .finish("event_name, idempotency_key, timestamp, external_customer_id or customer_id, properties")?;
    Ok(native.adapted(Places { customer: if own { "customer_id" } else { PLACES.customer }, ..PLACES }))
}

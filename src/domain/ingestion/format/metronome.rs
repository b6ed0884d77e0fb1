//! Usage events of Metronome, alone or in an array: `transaction_id`, `customer_id`, `event_type`, `timestamp`,
//! `properties`. Quantities are sent there as strings; see [`canonical_numbers`](super::canonical_numbers) for those
//! that become numbers.

use super::{Adapted, Fields, Native, Places, canonical_numbers};
use crate::domain::ingestion::event::Problem;

const PLACES: Places = Places {
    customer: "customer_id",
    event_id: "transaction_id",
    event_type: "event_type",
    occurred_at: "timestamp",
    properties: "properties",
    bill_to: "bill_to",
};

pub(super) fn adapt(mut fields: Fields<'_>) -> Result<Adapted<'_>, Problem> {
    let native = Native {
        customer: fields.take("customer_id"),
        event_id: fields.take("transaction_id"),
        event_type: fields.take("event_type"),
        occurred_at: fields.take("timestamp"),
        properties: canonical_numbers(fields.take("properties")),
        bill_to: None,
    };
    fields.finish("transaction_id, customer_id, event_type, timestamp, properties")?;
    Ok(native.adapted(PLACES))
}

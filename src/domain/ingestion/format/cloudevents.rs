//! CloudEvents 1.0, structured mode, one event or a batch: `id`, `source`, `specversion`, `type`, `time`, `subject`,
//! `data`.
//!
//! The specification lets `id` repeat under another `source`, so the event's id is both, with a space between, which no
//! source can have. `subject` is the customer; the extension attribute `billto` the legal entity; other extensions are
//! left out, as the specification allows.

use super::{Adapted, Fields, Native, Places};
use crate::domain::foundation::decimal::quoted;
use crate::domain::foundation::json::Tree;
use crate::domain::ingestion::event::{Problem, reason, required_text};

const PLACES: Places = Places {
    customer: "subject",
    event_id: "source and id",
    event_type: "type",
    occurred_at: "time",
    properties: "data",
    bill_to: "billto",
};

pub(super) fn adapt(mut fields: Fields<'_>) -> Result<Adapted<'_>, Problem> {
    let version = required_text(fields.take("specversion"), "specversion")?;
    if version != "1.0" {
        let message = format!("specversion: is {}, not \"1.0\"", quoted(&version));
        return Err(Problem::new(reason::BAD_VALUE, message));
    }
    if fields.take("data_base64").is_some() {
        return Err(Problem::new(reason::BAD_VALUE, "data_base64: is not JSON; send data as an object"));
    }
    if let Some(content_type) = fields.take("datacontenttype") {
        let content_type = required_text(Some(content_type), "datacontenttype")?;
        if !is_json(&content_type) {
            let message = format!("datacontenttype: is {}, not JSON", quoted(&content_type));
            return Err(Problem::new(reason::BAD_VALUE, message));
        }
    }
    let source = required_text(fields.take("source"), "source")?;
    if source.is_empty() || source.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let message = format!("source: {} is not a URI reference", quoted(&source));
        return Err(Problem::new(reason::BAD_VALUE, message));
    }
    let id = required_text(fields.take("id"), "id")?;
    if id.is_empty() {
        return Err(Problem::new(reason::BAD_VALUE, "id: is empty"));
    }
    let native = Native {
        customer: fields.take("subject"),
        event_id: Some(Tree::text(format!("{source} {id}"))),
        event_type: fields.take("type"),
        occurred_at: fields.take("time"),
        properties: fields.take("data"),
        bill_to: fields.take("billto"),
    };
    Ok(native.adapted(PLACES))
}

/// `application/json`, `application/cloudevents+json; charset=utf-8` …
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((_, subtype)) = essence.split_once('/') else { return false };
    subtype == "json" || subtype.ends_with("+json")
}

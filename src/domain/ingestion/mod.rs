//! Ingestion: outside text to validated events, one by one, without exceptions.

mod batch;
mod event;
mod format;
pub mod limit;
pub(crate) mod scan;

pub use batch::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Events, EventsWith, read_batch, read_batch_of, read_batch_with,
    read_each_with, read_event_with,
};
pub use event::{
    EVENT_ID_BYTES_MAX, Event, EventParts, PROPERTIES_BYTES_MAX, PROPERTIES_DEPTH_MAX, Rejection,
    content_hash, read_event, reason,
};
pub use format::Format;

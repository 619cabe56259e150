//! From a row to a domain event.
//!
//! Owns the rules of what a row means: which column is what, what fills what is missing, which
//! topic and key an event has, and what cannot be an event at all. Knows neither where rows come
//! from nor how a record looks. A [`DomainEvent`] borrows everything, from the row's frame or from
//! the [`Mapping`]'s scratch memory: a row costs no allocation.
//!
//! ```text
//! Relation ─► Mapping::observe_relation ─► column positions, once per table
//! Tuple ────► Mapping::insert ───────────► DomainEvent, or why it cannot be one
//! ```

mod column_at;
mod context;
mod domain_event;
mod error;
mod events;
mod header;
mod id;
mod json;
mod json_blocks;
mod mapping;
mod route;
mod timestamp;
mod topic;
mod topic_name;
mod unmapped;

#[cfg(test)]
pub(crate) mod fixture;

// Outboxes: each inserted row of a table, or each message of a prefix, is an event.
pub mod outbox;

// Domain tables: what happens to their rows becomes events.
pub mod table;

pub use column_at::ColumnAt;
pub use context::CONTEXT_PREFIX;
pub use domain_event::{DomainEvent, ExtraHeaders, Field, FieldSet, Payload};
pub use error::{
    ColumnProblem, EventError, FieldProblem, HeaderProblem, MessagePlace, MessageProblem, Reason,
    Row, RowOrigin,
};
pub use events::{Events, Happening, SnapshotRow};
pub use header::{CONFIGURED_HEADERS_MAX, EXTRA_HEADERS_MAX, HEADER_NAME_BYTES_MAX, OwnHeader};
pub use id::DatabaseIdentity;
pub use mapping::{LogicalMessage, Mapping, Settings};
pub use route::{GlobError, Route, TypeGlob};
pub use topic::{
    Piece, TemplateError, TopicNameError, TopicTemplate, TypeTemplate,
    check_name as check_topic_name,
};
pub use unmapped::{Raw, Unmapped};

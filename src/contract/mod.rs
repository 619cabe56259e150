//! What consumers can rely on: the topics, keys, headers and values of the events that some settings
//! produce, as documents for their tools. Knows the settings of events, the columns of their domain
//! tables, and how they are delivered; a topic that a row's values make stays a template.
//!
//! ```text
//! event::Settings, Descriptions ─► channel ─► json_schema (values)
//!                                     └─────► async_api (topics, keys, headers, values)
//! DeadLetterTopics ─► dead_letter ─────────────────▲
//! ```

mod async_api;
mod channel;
mod dead_letter;
mod header;
mod json_schema;
mod value;

pub use async_api::async_api;
pub use json_schema::json_schema;

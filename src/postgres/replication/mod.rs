//! The walsender's commands and the CopyBoth stream.
//!
//! A [`Connection`] takes commands; [`Connection::start_replication`] consumes it and returns a
//! [`ReplicationStream`], on which no SQL can be said any more. A walsender that has left a logical
//! CopyBoth cannot start another: whoever wants to go on connects anew.
//!
//! Manual page: protocol-replication.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

mod connection;
mod history;
mod pacing;
mod stream;

pub use connection::{Connection, CreatedSlot, SlotSnapshot, SystemIdentity};
pub use history::TimelineHistory;
#[cfg(test)]
pub(crate) use stream::tests as scripted;
pub use stream::{ReplicationStream, StreamMessage};

//! The only code that knows PostgreSQL.
//!
//! Everything that ordinary SQL can say goes through tokio-postgres (`sql`, `catalog`, `slot`,
//! `publication`); the replication connection is our own, because no published client keeps
//! notices, SQLSTATEs and the closing handshake.

mod encryption;
mod error;
mod login;
pub(crate) mod name;
mod settings;

// Open transactions that are waited for.
pub mod blocker;
// What the server and its tables are.
pub mod catalog;
// What the types of columns are made of.
pub mod column_types;
// What a doctor asks the server.
pub mod diagnosis;
// Which row an update is of.
pub mod identity;
// The pure decoder of pgoutput's messages.
pub mod pgoutput;
// Publications.
pub mod publication;
// The walsender's commands and the CopyBoth stream.
pub mod replication;
// Old rows of a table.
pub mod old_rows;
// Replication slots.
pub mod slot;
// Rows of a table under one snapshot.
pub mod snapshot;
// The ordinary SQL connection.
pub mod sql;
// Begin … Commit: every change gets its transaction and ordinal.
pub mod transaction;
// Bytes ↔ messages of the frontend/backend protocol; knows nothing of replication.
pub mod wire;

pub use blocker::Blocker;
pub use encryption::{ChannelBinding, Encryption, Roots, Source, SslMode, SslNegotiation};
pub use error::PostgresError;
pub use name::quote_identifier;
pub use name::{NameError, PublicationName, SlotName, TableName};
pub use settings::{Host, Secret, Settings};

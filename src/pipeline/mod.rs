//! The loop, its start, its supervisor. The only place that wires the parts together.
//!
//! ```text
//! start ──► stream_loop ──► supervisor (slow_transaction) ──► (standby) ──► start …
//!   │            │
//!   │            └─ assembler (records, cuts), resume (what is published already),
//!   │               on_error (what becomes of events that cannot be published)
//!   │            ├─ backfill (the rows that tables had before), beside (what is asked meanwhile)
//!   │            ├─ requests (back-fills that somebody asks for)
//!   │            ├─ outage (how long the slot is held while Kafka takes nothing)
//!   │            ├─ lookup (what the stream does not say of a table)
//!   ├─ judgement (checkpoint, slot, server), continuity (the publication), refusal (their words)
//!   ├─ tables (whether there are such), published_tables (what comes of them),
//!   │    descendants (partitions, and what inherits), retention (how long rows stay in them)
//!   ├─ first_start (publication, intent, slot, slot_creation), init
//!   ├─ from_poller (rows that waited for a poller, before the stream)
//!   ├─ keyless (the rows of tables without a key, before the stream)
//!   │    row_batches (both of them, on their way to Kafka)
//!   └─ held_slot ──► adoption, reset, row_reset (checkpoints that are written by hand), amendment
//!      (their words), writing_by_hand (what a stop of them leaves)
//! check (what the same judgements say, with nothing taken), status
//! former_primary (a host that is passed over, by all of these)
//!
//! tail: stream_loop between a temporary slot and standard output
//! ```

mod adoption;
mod amendment;
mod assembler;
mod backfill;
mod beside;
// The doctor.
pub mod check;
mod checkpoint_writer;
mod continuity;
mod descendants;
mod first_start;
mod former_primary;
mod from_poller;
mod held_slot;
mod init;
mod judgement;
mod keyless;
mod lookup;
mod on_error;
mod outage;
mod progress;
mod publication_watch;
mod published_tables;
mod refusal;
mod requests;
mod reset;
mod resume;
mod retention;
mod row_batches;
mod row_reset;
mod settings;
mod shutdown;
mod slot_creation;
mod slow_transaction;
mod standby;
mod start;
mod status;
mod stream_loop;
mod supervisor;
mod table_identity;
mod tables;
mod tail;
#[cfg(test)]
mod tests;
mod writing_by_hand;

pub use adoption::Adoption;
pub use amendment::{Act, Amendment, NotConfirmed};
pub use from_poller::{TakeOverError, TakenOverTable};
pub use init::{
    NotConnected, adopt_slot, domain_tables, init, publication_sql, reset, reset_rows, take_over,
};
pub use refusal::Refusal;
pub use requests::{Accepted, Phase, RefusalKind, RequestRefused, Requests, SnapshotProgress};
pub use reset::Reset;
pub use resume::HistoryError;
pub use retention::FilteredTable;
pub use row_reset::{RowReset, RowResetError};
pub use settings::{KafkaSettings, LargeTransactions, Retention, Settings};
pub use shutdown::{Shutdown, ShutdownTrigger};
pub use status::{State, Status, status};
pub use supervisor::run;
pub use tables::TableMistake;
pub use tail::tail;
pub use writing_by_hand::CutShort;

/// How far a table's rows are.
pub use crate::checkpoint::SnapshotState;
/// Whom a back-fill waits for.
pub use crate::postgres::Blocker;
/// How [`tail()`] shows events.
pub use crate::sink::stdout::Style as TailStyle;

/// An error and what caused it, joined by colons.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

//! The loop, its start, its supervisor. The only place that wires the parts together.
//!
//! ```text
//! start ──► stream_loop ──► supervisor (slow_transaction) ──► (standby) ──► start …
//!   │            │
//!   │            └─ assembler (records, cuts), resume (what is published already),
//!   │               on_error (what becomes of events that cannot be published)
//!   │            ├─ outage (how long the slot is held while Kafka takes nothing)
//!   ├─ judgement (checkpoint, slot, server), continuity (the publication), refusal (their words)
//!   ├─ outbox_tables (whether there are such)
//!   └─ first_start (publication, intent, slot, slot_creation), init
//! check (what the same judgements say, with nothing taken), status
//! former_primary (a host that is passed over, by all of these)
//!
//! tail: stream_loop between a temporary slot and standard output
//! ```

mod assembler;
// The doctor.
pub mod check;
mod checkpoint_writer;
mod continuity;
mod first_start;
mod former_primary;
mod init;
mod judgement;
mod on_error;
mod outage;
mod outbox_tables;
mod progress;
mod publication_watch;
mod refusal;
mod resume;
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
mod tail;
#[cfg(test)]
mod tests;

pub use init::{NotConnected, init, publication_sql};
pub use outbox_tables::TableMistake;
pub use refusal::Refusal;
pub use resume::HistoryError;
pub use settings::{KafkaSettings, LargeTransactions, Settings};
pub use shutdown::{Shutdown, ShutdownTrigger};
pub use status::{State, Status, status};
pub use supervisor::run;
pub use tail::tail;

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

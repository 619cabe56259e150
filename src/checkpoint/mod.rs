//! Which position may be acknowledged, and where it is kept.
//!
//! Invariant: `confirmed_flush` ≤ the committed checkpoint. A [`FlushLsn`] is made by
//! [`Tracker`] alone, and nothing else can be sent to the server as a flush position.

mod record;
mod snapshot;
#[cfg(feature = "kafka")]
pub mod store;
mod take_over;
mod tracker;

pub use record::{
    CheckpointKey, CheckpointRecord, Fingerprint, InProgress, Intent, LastTransaction,
    TableFingerprint,
};
pub use snapshot::{Contained, OutstandingKey, SnapshotKeyColumn, SnapshotRecord, SnapshotState};
pub use take_over::{Published, RowPlace, TakeOver};
pub use tracker::{FlushLsn, Tracker};

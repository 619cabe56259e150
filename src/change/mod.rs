//! The neutral row model: what a change says, with no protocol above it and no Kafka below.
//!
//! A [`Tuple`] is a view of the frame that it came in: nothing is copied per row or column.
//! NULL, an unchanged TOAST value and an absent column are three different things.

mod relation;
mod row_change;
mod timestamp;
mod tuple;

pub use relation::{Column, Oid, Relation, RelationId, ReplicaIdentity, Xid};
pub use row_change::RowChange;
pub use timestamp::PgTimestamp;
pub use tuple::{OldTuple, Tuple, TupleValue, ValueSlot};

use crate::lsn::{CommitLsn, Lsn};

/// The transaction that changes belong to; known from its Begin on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Where its commit record begins.
    pub commit_lsn: CommitLsn,
    /// Its identifier.
    pub xid: Xid,
    /// When it committed, by the server's clock.
    pub committed_at: PgTimestamp,
}

/// Where a change stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Among the changes of its transaction, from 0.
    pub ordinal: u64,
    /// In the log; rows of one COPY share it.
    pub lsn: Option<Lsn>,
    /// Among the changes of its transaction that share its place in the log, from 0.
    pub ordinal_at_lsn: u64,
}

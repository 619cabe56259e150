//! How far a take-over from a poller has come: a record of its own beside the checkpoint's.

use serde::{Deserialize, Serialize};

use crate::lsn::EndLsn;

/// The value of the record. Field names are part of the interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TakeOver {
    /// 1.
    pub version: u32,
    /// The setting `source` of the pipeline.
    pub source: String,
    /// `schema.table`.
    pub table: String,
    /// Which rows: an SQL condition.
    pub condition: String,
    /// What is published; none where nothing is.
    pub published: Option<Published>,
    /// When the record was written, RFC 3339 in UTC.
    pub written_at: String,
}

/// What is published of the rows that waited, written with the last of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Published {
    /// The slot's consistent point: what was committed below it is not in the stream.
    pub consistent_lsn: EndLsn,
    /// The timeline that it was read on.
    pub timeline: u32,
    /// The last row, in the order of the rows.
    pub last: RowPlace,
    /// How many rows.
    pub rows: u64,
}

/// A row by its place in the order by `created_at`, id: both as text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RowPlace {
    /// None for NULL, which comes last, and where the table has no such column.
    pub created_at: Option<String>,
    /// Its id.
    pub id: String,
}

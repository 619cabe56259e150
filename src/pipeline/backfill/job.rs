//! What is to be read, and what came of it.

use std::sync::Arc;

use super::row_key::RowKey;
use crate::{
    change::{PgTimestamp, RelationId},
    checkpoint::SnapshotKeyColumn,
    event::table::Description,
    postgres::{
        Blocker, TableName,
        snapshot::{Bound, KeyColumn, Moment, OpenTransactions, RowBlock, Shape, Snapshot},
    },
};

/// Something to be done on another connection, for one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::pipeline) struct Job {
    pub(in crate::pipeline) table: TableName,
    /// Which rows, as an SQL condition.
    pub(in crate::pipeline) condition: Option<String>,
    pub(in crate::pipeline) work: Work,
    /// What it is known to be; no key where it was not looked up.
    pub(in crate::pipeline) expected: Expected,
    /// What the table was looked up as does not count.
    pub(super) is_anew: bool,
    /// Nothing of the stream is taken until it is done.
    pub(in crate::pipeline) is_held: bool,
    /// Of the table, at the time of the job.
    pub(super) generation: u64,
}

/// What a table is by its record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::pipeline) struct Expected {
    pub(in crate::pipeline) oid: RelationId,
    pub(in crate::pipeline) key: Vec<SnapshotKeyColumn>,
}

impl Expected {
    /// Whether a cursor of then means the same rows, whatever columns are called.
    pub(in crate::pipeline) fn is_met_by(&self, shape: &Shape) -> bool {
        let order = |column: &SnapshotKeyColumn| (column.number, column.type_oid, column.collation);
        let key = key_columns(shape);
        self.oid == shape.oid && self.key.iter().map(order).eq(key.iter().map(order))
    }
}

/// The columns of a table's key, as a record has them.
pub(super) fn key_columns(shape: &Shape) -> Vec<SnapshotKeyColumn> {
    let column = |column: &KeyColumn| SnapshotKeyColumn {
        name: column.name.clone(),
        number: column.number,
        type_oid: column.type_oid,
        collation: column.collation,
    };
    shape.key.iter().map(column).collect()
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::pipeline) enum Work {
    /// Look what the table is.
    Describe,
    /// Wait until every transaction has ended that is open by now, or was when the waiting began.
    Settle { since: Option<Settling> },
    /// Read the next rows.
    Range { behind: RangeEnd, rows_max: usize },
    /// Read single rows. Of each one it is told whether the ranges have come to it.
    Keys { keys: Vec<Vec<String>>, end: RangeEnd },
}

/// Transactions that are waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::pipeline) struct Settling {
    pub(super) open: OpenTransactions,
    /// How often it was looked whether they have ended.
    pub(super) looks: u32,
    /// Some of them, as of a while ago; none where the waiting has just begun.
    pub(super) blockers: Vec<Blocker>,
}

/// What came of it.
#[derive(Debug)]
pub(in crate::pipeline) enum Outcome {
    Described(Arc<Shape>),
    /// Some of them are still open. What the snapshot shows every later one shows.
    Unsettled(Settling, Snapshot),
    /// All have ended. What the snapshot shows every later one shows.
    Settled(Snapshot),
    Read(Chunk),
    /// The table has another key than was known, or is another one: nothing was read.
    Altered(Arc<Shape>),
}

impl Outcome {
    /// Whose end is still waited for, as far as that is known.
    pub(super) fn waits_for(&self) -> &[Blocker] {
        match self {
            Self::Unsettled(settling, _) => &settling.blockers,
            Self::Described(_) | Self::Settled(_) | Self::Read(_) | Self::Altered(_) => &[],
        }
    }
}

/// Rows under one snapshot.
#[derive(Debug)]
pub(in crate::pipeline) struct Chunk {
    pub(in crate::pipeline) moment: Moment,
    pub(in crate::pipeline) shape: Arc<Shape>,
    pub(in crate::pipeline) description: Arc<Description>,
    pub(in crate::pipeline) rows: RowBlock,
    pub(in crate::pipeline) read_at: PgTimestamp,
}

/// How far the ranges come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::pipeline) enum RangeEnd {
    /// There is none.
    Nowhere,
    /// Up to this key, which is theirs.
    At(RowKey),
    /// No key is behind them.
    OfTable,
}

impl RangeEnd {
    /// As a statement has it.
    pub(in crate::pipeline) fn bound(&self) -> Bound<'_> {
        match self {
            Self::Nowhere => Bound::Nothing,
            Self::At(key) => Bound::UpTo(&key.0),
            Self::OfTable => Bound::Everything,
        }
    }
}

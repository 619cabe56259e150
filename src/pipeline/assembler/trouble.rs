//! Why the assembler takes nothing more.

use super::super::resume::HistoryError;
use crate::{failure::Failure, lsn::CommitLsn};

/// Why a change was not taken.
#[derive(Debug)]
pub(in crate::pipeline) enum Trouble {
    /// An event of this transaction cannot be published: everything before it is, then we stop.
    Halt {
        /// Where the transaction's commit record begins.
        before: CommitLsn,
        /// What is wrong with the event.
        failure: Box<dyn Failure>,
    },
    /// A row that was there cannot be published: everything up to here is, then we stop.
    Row(Box<dyn Failure>),
    /// A change of this table came before the rows that it had, and it has no key by which both could
    /// be told apart.
    RowsFirst(String),
    /// The stream itself is not to be followed.
    Failed(Box<dyn Failure>),
}

impl From<HistoryError> for Trouble {
    fn from(error: HistoryError) -> Self {
        Self::Failed(Box::new(error))
    }
}

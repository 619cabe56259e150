//! Which events a change is, and in which order.

use crate::{
    change::RowChange,
    event::{
        Reason,
        table::rules::{Operation, Row},
    },
};

/// What happens to a table.
#[derive(Clone, Copy, Debug)]
pub(in crate::event) enum TableChange<'a> {
    /// A change of a row.
    Row(RowChange<'a>),
    /// It is emptied.
    Truncate,
}

impl<'a> TableChange<'a> {
    /// As rules see it.
    pub(super) fn row(self) -> Row<'a> {
        let (operation, old, new) = match self {
            Self::Row(RowChange::Insert { new }) => (Operation::Insert, None, Some(new)),
            Self::Row(RowChange::Update { old, new }) => (Operation::Update, old, Some(new)),
            Self::Row(RowChange::Delete { old }) => (Operation::Delete, Some(old), None),
            Self::Truncate => (Operation::Truncate, None, None),
        };
        Row { operation, old, new }
    }
}

/// One event of a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::event) enum Step {
    Created,
    Updated,
    Deleted,
    /// The null record behind a delete.
    Tombstone,
    Truncated,
    /// Of a rule that matches, by its place among the table's.
    Rule {
        index: usize,
        made: Made,
    },
    /// The null record behind a delete, where the events of that rule go.
    RuleTombstone {
        index: usize,
    },
}

/// What a rule made of a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::event) enum Made {
    /// Its event has the table's own `data`.
    OwnData,
    /// Its event has a `data` of its own.
    Data,
    /// It has no answer.
    Nothing(Reason),
}

/// Appends the events of a change without rules. A row whose key changes is gone under the old one
/// and new under the new one.
pub(super) fn push_default(
    steps: &mut Vec<Step>,
    change: TableChange<'_>,
    moves: bool,
    tombstone: bool,
) {
    let is_gone = match change {
        TableChange::Row(RowChange::Insert { .. }) => {
            return steps.push(Step::Created);
        }
        TableChange::Row(RowChange::Update { .. }) if !moves => {
            return steps.push(Step::Updated);
        }
        TableChange::Truncate => return steps.push(Step::Truncated),
        TableChange::Row(RowChange::Update { .. }) => false,
        TableChange::Row(RowChange::Delete { .. }) => true,
    };
    steps.push(Step::Deleted);
    if tombstone {
        steps.push(Step::Tombstone);
    }
    if !is_gone {
        steps.push(Step::Created);
    }
}

//! Which events a change is, and in which order.

use crate::change::RowChange;

/// What happens to a table.
#[derive(Clone, Copy, Debug)]
pub(in crate::event) enum TableChange<'a> {
    /// A change of a row.
    Row(RowChange<'a>),
    /// It is emptied.
    Truncate,
}

/// One event of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::event) enum Step {
    Created,
    Updated,
    Deleted,
    /// The null record behind a delete.
    Tombstone,
    Truncated,
}

/// The events of a change without rules. A row whose key changes is gone under the old one and new
/// under the new one.
pub(super) fn default_steps(
    change: TableChange<'_>,
    moves: bool,
    tombstone: bool,
) -> &'static [Step] {
    match (change, moves, tombstone) {
        (TableChange::Row(RowChange::Insert { .. }), _, _) => &[Step::Created],
        (TableChange::Row(RowChange::Update { .. }), false, _) => &[Step::Updated],
        (TableChange::Row(RowChange::Update { .. }), true, false) => {
            &[Step::Deleted, Step::Created]
        }
        (TableChange::Row(RowChange::Update { .. }), true, true) => {
            &[Step::Deleted, Step::Tombstone, Step::Created]
        }
        (TableChange::Row(RowChange::Delete { .. }), _, false) => &[Step::Deleted],
        (TableChange::Row(RowChange::Delete { .. }), _, true) => &[Step::Deleted, Step::Tombstone],
        (TableChange::Truncate, _, _) => &[Step::Truncated],
    }
}

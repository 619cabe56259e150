//! What happens to one row.

use super::{OldTuple, Tuple};

/// A change of a row, borrowing from its frame.
#[derive(Clone, Copy, Debug)]
pub enum RowChange<'a> {
    /// It was inserted.
    Insert {
        /// The row.
        new: Tuple<'a>,
    },
    /// It was updated.
    Update {
        /// The old row or key; none where the key is unchanged and the identity is not FULL.
        old: Option<OldTuple<'a>>,
        /// The new row.
        new: Tuple<'a>,
    },
    /// It was deleted.
    Delete {
        /// The old row or key.
        old: OldTuple<'a>,
    },
}

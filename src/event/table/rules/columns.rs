//! The table that rules are compiled against.

use crate::{
    event::table::rules::{Side, coding::Coding},
    value::Type,
};

/// A table's published columns, in the order of its tuples.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'t> {
    /// Schema and name, as SQL has them.
    pub quoted_table: &'t str,
    /// The columns.
    pub columns: &'t [Column<'t>],
}

/// A column, as far as rules ask for it.
#[derive(Clone, Copy, Debug)]
pub struct Column<'t> {
    /// Its name.
    pub name: &'t str,
    /// Its type.
    pub column_type: &'t Type,
    /// Whether the old value of each update and delete is known.
    pub old: OldValue,
    /// How events show it.
    pub shown: Shown,
}

/// Whether updates and deletes carry the old value of a column: all columns' under FULL, those of the
/// replica identity else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldValue {
    /// It is there.
    Delivered,
    /// It is not: who asks for it is mistaken.
    Refused,
    /// It is not in what was written so far: who asks for it has no answer.
    Unknown,
}

/// How events show a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// As it is.
    Plainly,
    /// In another form (`columns.mask`).
    Masked,
    /// Not at all (`columns.exclude`).
    Never,
}

/// A column of one side that some expression asks for. All expressions of a table share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) side: Side,
    /// Its place in the tuple.
    pub(super) index: usize,
    pub(super) name: String,
    /// It is of an old row, and updates and deletes do not carry it.
    pub(super) is_unknown: bool,
    pub(super) coding: Coding,
}

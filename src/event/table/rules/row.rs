//! A change as rules see it.

use crate::{
    change::{OldTuple, Tuple, TupleValue},
    event::table::rules::Problem,
};

/// What happened, as `op` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `"insert"`
    Insert,
    /// `"update"`
    Update,
    /// `"delete"`
    Delete,
    /// `"truncate"`
    Truncate,
    /// `"snapshot"`: the row was there before the stream.
    Snapshot,
}

impl Operation {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Insert, Self::Update, Self::Delete, Self::Truncate, Self::Snapshot];

    /// The word that `op` is.
    pub fn word(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Which of both rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// `old`
    Old,
    /// `new`
    New,
}

impl Side {
    /// The word for it in expressions.
    pub fn word(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }
}

/// A change of one row, or of all rows of a table, borrowing from its frame.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// What happened.
    pub operation: Operation,
    /// The old row, as far as the server sent it.
    pub old: Option<OldTuple<'a>>,
    /// The new row.
    pub new: Option<Tuple<'a>>,
}

/// What a row holds in a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held<'a> {
    /// SQL NULL, or there is no such row.
    Null,
    /// The value's text form.
    Text(&'a [u8]),
    /// A value that is not NULL, and that the server did not send.
    Unavailable,
    /// An old value that the server did not send.
    Unknown,
}

impl<'a> Row<'a> {
    pub(super) fn at(&self, side: Side, index: usize) -> Held<'a> {
        match side {
            Side::New => self.new_at(index),
            Side::Old => self.old_at(index),
        }
    }

    /// An old value that updates and deletes carry with the whole old row alone.
    pub(super) fn at_unless_unknown(&self, index: usize) -> Held<'a> {
        match (self.old, self.operation) {
            (Some(OldTuple::Full(old)), _) => held(old, index),
            (Some(OldTuple::Key(_)) | None, Operation::Update | Operation::Delete) => Held::Unknown,
            (
                Some(OldTuple::Key(_)) | None,
                Operation::Insert | Operation::Truncate | Operation::Snapshot,
            ) => Held::Null,
        }
    }

    /// A TOAST value that the update did not touch is that of the old row, where that is there.
    fn new_at(&self, index: usize) -> Held<'a> {
        match self.new.map(|new| new.get(index)) {
            None | Some(Some(TupleValue::Null)) => Held::Null,
            Some(Some(TupleValue::Text(text))) => Held::Text(text),
            Some(Some(TupleValue::UnchangedToast)) => match self.old {
                Some(OldTuple::Full(old)) => held(old, index),
                Some(OldTuple::Key(_)) | None => Held::Unavailable,
            },
            Some(None) => Held::Unavailable,
        }
    }

    /// An update without an old row left the replica identity as it was, and nothing else of the old
    /// row is asked for there: [`Rules::compile`] sees to that.
    ///
    /// [`Rules::compile`]: super::Rules::compile
    fn old_at(&self, index: usize) -> Held<'a> {
        match (self.old, self.operation) {
            (Some(OldTuple::Full(old) | OldTuple::Key(old)), _) => held(old, index),
            (None, Operation::Update) => self.new_at(index),
            (
                None,
                Operation::Insert | Operation::Delete | Operation::Truncate | Operation::Snapshot,
            ) => Held::Null,
        }
    }
}

fn held<'a>(tuple: Tuple<'a>, index: usize) -> Held<'a> {
    match tuple.get(index) {
        Some(TupleValue::Null) => Held::Null,
        Some(TupleValue::Text(text)) => Held::Text(text),
        Some(TupleValue::UnchangedToast) | None => Held::Unavailable,
    }
}

impl<'a> Held<'a> {
    /// Its text; none for NULL.
    pub(super) fn text(self, column: &str) -> Result<Option<&'a str>, Problem> {
        match self {
            Self::Null => Ok(None),
            Self::Unknown => Err(Problem::OldNotSent { column: column.to_owned() }),
            Self::Unavailable => Err(Problem::NotSent { column: column.to_owned() }),
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(Problem::NotUtf8 { column: column.to_owned() }),
            },
        }
    }
}

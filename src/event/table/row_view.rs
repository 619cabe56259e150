//! What is known of one row of a domain table: which columns events show, in which form, and which
//! values the server sent.

use sha2::{Digest as _, Sha256};

use crate::{
    change::{OldTuple, Tuple, TupleValue},
    event::{Reason, table::Mask},
    value::{Form, Written, string},
};

/// The least that stands for a masked value: `"***"`.
const MASKED_BYTES_MIN: usize = 5;

/// A column of a domain table.
#[derive(Clone, Debug)]
pub struct ColumnView {
    pub(super) name: String,
    /// `"name":`
    label: Vec<u8>,
    pub(super) form: Form,
    pub(super) shown: Shown,
    /// Part of the replica identity: what updates and deletes carry of the old row holds it.
    pub(super) is_identity: bool,
}

/// How events show a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Shown {
    Plainly,
    Masked(Mask),
    Never,
}

impl ColumnView {
    pub(super) fn new(name: String, form: Form, shown: Shown, is_identity: bool) -> Self {
        let mut label = Vec::new();
        string::write(&mut label, &name);
        label.push(b':');
        Self { name, label, form, shown, is_identity }
    }

    /// `"name":`, as JSON has it before a value.
    pub fn label(&self) -> &[u8] {
        &self.label
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether events show it at all.
    pub fn is_shown(&self) -> bool {
        self.shown != Shown::Never
    }

    /// Appends the JSON form of a value that has this text.
    ///
    /// # Errors
    /// Where the column's type cannot have written the text.
    pub fn write(&self, text: &[u8], target: &mut Vec<u8>) -> Result<Written, Reason> {
        match &self.shown {
            Shown::Plainly | Shown::Never => {
                let written = self.form.write(text, target);
                written.map_err(|problem| Reason::Value { column: self.name.clone(), problem })
            }
            Shown::Masked(mask) => {
                write_masked(mask, text, target);
                Ok(Written::AsDescribed)
            }
        }
    }

    /// Whether events show its values as they are.
    pub fn is_plain(&self) -> bool {
        self.shown == Shown::Plainly
    }

    /// Appends what stands for a value that events do not show as it is.
    pub fn write_masked(&self, text: &[u8], target: &mut Vec<u8>) {
        match &self.shown {
            Shown::Masked(mask) => write_masked(mask, text, target),
            Shown::Plainly | Shown::Never => write_masked(&Mask::Redact, text, target),
        }
    }
}

fn write_masked(mask: &Mask, text: &[u8], target: &mut Vec<u8>) {
    target.push(b'"');
    match mask {
        Mask::Redact => target.extend_from_slice(b"***"),
        Mask::Sha256(salt) => {
            let mut hash = Sha256::new();
            hash.update(salt.reveal().as_bytes());
            hash.update(text);
            target.extend(hash.finalize().iter().copied().flat_map(string::hexadecimal));
        }
    }
    target.push(b'"');
}

/// One row, as far as the server sent it. Borrows from the frame.
#[derive(Clone, Copy, Debug)]
pub struct RowView<'a> {
    columns: &'a [ColumnView],
    values: Values<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    /// All of it.
    Whole(Tuple<'a>),
    /// All but what was large and unchanged, which an old row may have.
    New { new: Tuple<'a>, old: Option<OldTuple<'a>> },
    /// The columns of the replica identity.
    Identity(Tuple<'a>),
}

/// What a row holds in a column. Four things, of which no two are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held<'a> {
    /// SQL NULL.
    Null,
    /// The value's text form.
    Text(&'a [u8]),
    /// A TOAST value that the update did not touch, and that the server did not send.
    Unavailable,
    /// A column beyond those that are sent of an old row.
    NotSent,
}

impl<'a> RowView<'a> {
    pub(super) fn whole(columns: &'a [ColumnView], tuple: Tuple<'a>) -> Self {
        Self { columns, values: Values::Whole(tuple) }
    }

    pub(super) fn new_row(
        columns: &'a [ColumnView],
        new: Tuple<'a>,
        old: Option<OldTuple<'a>>,
    ) -> Self {
        Self { columns, values: Values::New { new, old } }
    }

    pub(super) fn identity(columns: &'a [ColumnView], tuple: Tuple<'a>) -> Self {
        Self { columns, values: Values::Identity(tuple) }
    }

    /// Whether the server sent all of it.
    pub fn is_whole(&self) -> bool {
        match self.values {
            Values::Whole(_) => true,
            Values::New { .. } | Values::Identity(_) => false,
        }
    }

    /// The columns that events show, with what the row holds there; those that were not sent left
    /// out.
    pub fn shown(&self) -> impl Iterator<Item = (&'a ColumnView, Held<'a>)> + use<'a> {
        let view = *self;
        view.columns.iter().enumerate().filter_map(move |(index, column)| {
            let held = view.held(index, column);
            (column.is_shown() && held != Held::NotSent).then_some((column, held))
        })
    }

    /// Appends the JSON form of a text in the column at that place, also of one that events do not
    /// show.
    pub(super) fn write_plainly(
        &self,
        index: usize,
        text: &[u8],
        target: &mut Vec<u8>,
    ) -> Result<Written, Reason> {
        let column = self.columns.get(index).expect("a column of this table");
        let written = column.form.write(text, target);
        written.map_err(|problem| Reason::Value { column: column.name.clone(), problem })
    }

    /// What the row holds in the column at that place.
    pub(super) fn at(&self, index: usize) -> Held<'a> {
        self.columns.get(index).map_or(Held::NotSent, |column| self.held(index, column))
    }

    fn held(&self, index: usize, column: &ColumnView) -> Held<'a> {
        let (tuple, older) = match self.values {
            Values::Identity(_) if !column.is_identity => return Held::NotSent,
            Values::Whole(tuple) | Values::Identity(tuple) => (tuple, None),
            Values::New { new, old: Some(OldTuple::Full(old)) } => (new, Some(old)),
            // What it holds beside the key is NULL whatever the row has. A large key is there.
            Values::New { new, old: Some(OldTuple::Key(old)) } if column.is_identity => {
                (new, Some(old))
            }
            Values::New { new, old: Some(OldTuple::Key(_)) | None } => (new, None),
        };
        match tuple.get(index) {
            Some(TupleValue::Text(text)) => Held::Text(text),
            // An identity's columns are never NULL: the partition has another identity than its root.
            Some(TupleValue::Null) if matches!(self.values, Values::Identity(_)) => Held::NotSent,
            Some(TupleValue::Null) => Held::Null,
            Some(TupleValue::UnchangedToast) => match older.and_then(|old| old.get(index)) {
                Some(TupleValue::Text(text)) => Held::Text(text),
                Some(TupleValue::Null) => Held::Null,
                Some(TupleValue::UnchangedToast) | None => Held::Unavailable,
            },
            None => Held::NotSent,
        }
    }

    /// The names of the columns that events show and that differ from `before`, of which the server
    /// sent all.
    pub fn changed_since(&self, before: RowView<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
        let view = *self;
        view.columns.iter().enumerate().filter_map(move |(index, column)| {
            let is_changed = view.held(index, column) != before.held(index, column);
            (column.is_shown() && is_changed).then_some(column.name())
        })
    }

    /// The bytes of the texts that events show: about what the row takes in an event, which is never
    /// less than half of it.
    pub fn text_bytes(&self) -> usize {
        let bytes = |(column, held): (&ColumnView, Held<'_>)| match held {
            Held::Text(_) if !column.is_plain() => MASKED_BYTES_MIN,
            Held::Text(text) => text.len(),
            Held::Null | Held::Unavailable | Held::NotSent => 0,
        };
        self.shown().map(bytes).sum()
    }
}

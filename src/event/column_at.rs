//! Where a column lies, and what a row holds there.

use crate::{
    change::{Tuple, TupleValue},
    event::Reason,
};

/// A column of a table, by its place in the tuple.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnAt {
    index: usize,
    name: String,
}

impl ColumnAt {
    /// The column of that name, at that place.
    pub(super) fn new(index: usize, name: &str) -> Self {
        Self { index, name: name.to_owned() }
    }

    /// Its place in the tuple.
    pub fn index(&self) -> usize {
        self.index
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A copy of its name, for errors.
    pub(super) fn owned_name(&self) -> String {
        self.name.clone()
    }

    /// Its bytes; none for NULL.
    pub(super) fn bytes<'a>(&self, tuple: Tuple<'a>) -> Result<Option<&'a [u8]>, Reason> {
        match tuple.get(self.index) {
            Some(TupleValue::Text(text)) => Ok(Some(text)),
            Some(TupleValue::Null) => Ok(None),
            Some(TupleValue::UnchangedToast) | None => {
                Err(Reason::NotCarried { column: self.owned_name() })
            }
        }
    }

    /// Its text; none for NULL.
    pub(super) fn text<'a>(&self, tuple: Tuple<'a>) -> Result<Option<&'a str>, Reason> {
        let text = |bytes| {
            std::str::from_utf8(bytes).map_err(|_| Reason::NotUtf8 { column: self.owned_name() })
        };
        self.bytes(tuple)?.map(text).transpose()
    }

    /// Its text, which must be there.
    pub(super) fn needed_text<'a>(&self, tuple: Tuple<'a>) -> Result<&'a str, Reason> {
        self.text(tuple)?.ok_or_else(|| Reason::Null { column: self.owned_name() })
    }
}

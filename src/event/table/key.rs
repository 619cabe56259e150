//! The key of a table's records.

use crate::event::{
    ColumnAt, Reason,
    table::{Description, Held, RowView, Settings, TableProblem},
};

/// Which columns it is made of, by their places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// There is none: a null key.
    None,
    /// A column's text.
    Text(ColumnAt),
    /// A JSON array of the columns' JSON forms.
    Array(Vec<ColumnAt>),
}

impl Key {
    /// The settings' columns, else the table's own key.
    pub(super) fn compile(
        settings: &Settings,
        table: &Description,
        find: impl Fn(&str, &str) -> Result<ColumnAt, TableProblem>,
    ) -> Result<Self, TableProblem> {
        let names: Vec<&str> = match &settings.key {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => table.key().ok_or(TableProblem::KeyUnknown)?,
        };
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            columns.push(match find(name, "key") {
                Err(TableProblem::Missing { column, .. }) if settings.key.is_none() => {
                    return Err(TableProblem::KeyRenamed { column });
                }
                found => found?,
            });
        }
        Ok(match <[ColumnAt; 1]>::try_from(columns) {
            Ok([column]) => Self::Text(column),
            Err(columns) if columns.is_empty() => Self::None,
            Err(columns) => Self::Array(columns),
        })
    }

    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// The places of its columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> {
        let columns = match self {
            Self::None => &[],
            Self::Text(column) => std::slice::from_ref(column),
            Self::Array(columns) => columns.as_slice(),
        };
        columns.iter().map(ColumnAt::index)
    }

    /// The key of a row; none where it is null. `memory` is for one of several columns.
    pub(super) fn write<'a>(
        &self,
        row: RowView<'a>,
        memory: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, Reason> {
        let held = |column: &ColumnAt| match row.at(column.index()) {
            Held::Text(text) => Ok(Some(text)),
            Held::Null => Ok(None),
            Held::Unavailable | Held::NotSent => {
                Err(Reason::NotSent { column: column.owned_name() })
            }
        };
        match self {
            Self::None => Ok(None),
            Self::Text(column) => held(column),
            Self::Array(columns) => {
                memory.clear();
                let mut separator = b'[';
                for column in columns {
                    memory.push(separator);
                    separator = b',';
                    match held(column)? {
                        // A composite that was altered is in the key by its text.
                        Some(text) => _ = row.write_plainly(column.index(), text, memory)?,
                        None => memory.extend_from_slice(b"null"),
                    }
                }
                memory.push(b']');
                Ok(Some(memory))
            }
        }
    }
}

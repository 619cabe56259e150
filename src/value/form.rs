//! The JSON form of one column's values. (placeholder until merged)
use super::string;
use super::{ColumnForm, Options, Type};

/// How one column is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Form(());

/// A text that its type cannot have written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is no {expected}")]
pub struct Malformed {
    /// what
    pub expected: &'static str,
}

/// A word of `types.columns` that does not fit the type.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("does not fit")]
pub struct Unfit;

impl Form {
    /// Of a column.
    pub fn of_column(_: &Type, _: Options, _: Option<ColumnForm>) -> Result<Self, Unfit> {
        Ok(Self(()))
    }
    /// Appends.
    pub fn write(&self, text: &[u8], target: &mut Vec<u8>) -> Result<(), Malformed> {
        let text = std::str::from_utf8(text).map_err(|_| Malformed { expected: "UTF-8" })?;
        string::write(target, text);
        Ok(())
    }
}

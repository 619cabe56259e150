//! Why an expression has no value for a row.

/// What went wrong. Names columns, operations and types, never values.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// A TOAST value that the update did not touch.
    #[error(
        "the server did not send the value of column \"{column}\", which is large and unchanged"
    )]
    NotSent {
        /// The column.
        column: String,
    },
    /// An old value beyond those of the replica identity.
    #[error("the UPDATE or DELETE does not carry the old value of column \"{column}\"")]
    OldNotSent {
        /// The column.
        column: String,
    },
    /// The bytes are no text.
    #[error("column \"{column}\" is not valid UTF-8")]
    NotUtf8 {
        /// The column.
        column: String,
    },
    /// The text is none of the column's type.
    #[error("the value of column \"{column}\" cannot be read as {expected}")]
    Malformed {
        /// The column.
        column: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Types that only the row shows, as those within JSON.
    #[error("{operation} cannot be applied to {found}")]
    Operands {
        /// The operator or function.
        operation: &'static str,
        /// The types.
        found: String,
    },
    /// A condition, or a side of `&&`, `||` or `!`.
    #[error("a bool is needed, and this is a {found}")]
    NotBool {
        /// Its type.
        found: &'static str,
    },
    /// A sum, product or conversion.
    #[error("the result of {operation} is out of range")]
    OutOfRange {
        /// The operator or function.
        operation: &'static str,
    },
    /// Of ints.
    #[error("{operation} divides by zero")]
    DivisionByZero {
        /// The operator.
        operation: &'static str,
    },
    /// A name in an expression is no member of what it is asked of.
    #[error("there is no member \"{name}\" (has(…) asks whether there is)")]
    NoMember {
        /// The name.
        name: String,
    },
    /// An index or a key.
    #[error("there is nothing under this index or key")]
    NoElement,
    /// A conversion of a text that is none.
    #[error("the text is no {wanted}")]
    NotA {
        /// What it should be.
        wanted: &'static str,
    },
    /// Infinity, or a year that CEL and RFC 3339 do not have.
    #[error("{operation} needs a timestamp of the years 0001 to 9999")]
    BeyondCalendar {
        /// The function.
        operation: &'static str,
    },
    /// A map that is built of values.
    #[error("two entries of the map have the same key")]
    DuplicateKey,
    /// Lists within lists.
    #[error("the values are nested too deep to be compared")]
    TooDeep,
}

//! What the settings say of types whose JSON form is a matter of taste.

/// How int8 is written: a number that JavaScript may round, or a string.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Int8Form {
    /// `9007199254740993`
    #[default]
    Number,
    /// `"9007199254740993"`
    String,
}

/// How numeric is written. Every digit is kept either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NumericForm {
    /// `"12.50"`
    #[default]
    String,
    /// `12.50`; what is no number (`NaN`, `Infinity`) stays a string.
    Number,
}

/// How bytea is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ByteaForm {
    /// Base64 with padding (RFC 4648, section 4).
    #[default]
    Base64,
    /// Hexadecimal in lower case, without a prefix.
    Hex,
}

/// The settings `types` of a file or a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `types.int8`
    pub int8: Int8Form,
    /// `types.numeric`
    pub numeric: NumericForm,
    /// `types.bytea`
    pub bytea: ByteaForm,
}

/// What `types.columns` says of one column, whose type decides which of the words can be meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnForm {
    /// Of an int8 or numeric.
    Number,
    /// Of an int8 or numeric.
    String,
    /// Of a bytea.
    Base64,
    /// Of a bytea.
    Hex,
}

impl ColumnForm {
    /// As the settings have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::String => "string",
            Self::Base64 => "base64",
            Self::Hex => "hex",
        }
    }
}

//! The compiled writer of one column.
//!
//! What is a number, a timestamp, an array or the like is read as PostgreSQL's output functions
//! write it in a session with the pinned forms (`postgres::settings`), and anything else is
//! [`Malformed`]. What is written as its text is checked for UTF-8 alone. A row costs no allocation
//! here, unless quoted elements within it hold escapes.

use std::{collections::HashMap, sync::Arc};

use super::{
    ByteaForm, ColumnForm, Int8Form, Kind, NumericForm, Options, Type, array, built_in, bytea,
    composite::{self, FieldWriter},
    hstore, number, string,
    timestamp::{self, Zone},
};

/// How the values of a column become JSON. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Form(pub(super) Arc<Writer>);

/// How a value was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Written {
    /// In its type's form.
    AsDescribed,
    /// It is or holds a composite whose fields are not those that its type is known to have, so that
    /// one was written as its text. The type was altered, before or after this value was logged: say
    /// so once, and look the type up again once. Older WAL may bring more of them.
    OtherFields,
}

impl Written {
    /// Of several values.
    pub(crate) fn and(self, other: Self) -> Self {
        match self {
            Self::AsDescribed => other,
            Self::OtherFields => self,
        }
    }
}

/// A text that its type cannot have written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the value's text is not {expected}")]
pub struct Malformed {
    /// What it should have been, with its article.
    pub expected: &'static str,
}

impl Malformed {
    pub(super) const fn not(expected: &'static str) -> Self {
        Self { expected }
    }
}

/// A form was asked for that the column's type does not have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnfitForm {
    /// It has others.
    #[error("\"{}\" is no form of type {type_name}: {fitting}", form.word())]
    Other {
        /// What was asked for.
        form: ColumnForm,
        /// The column's type.
        type_name: String,
        /// The words that could have been said.
        fitting: &'static str,
    },
    /// It has one.
    #[error("\"{}\" is no form of type {type_name}, which has only one", form.word())]
    None {
        /// What was asked for.
        form: ColumnForm,
        /// The column's type.
        type_name: String,
    },
}

/// How one value is written.
#[derive(Debug)]
pub(super) enum Writer {
    /// `true` and `false`.
    Boolean,
    /// Digits.
    Integer,
    /// A number, or what is none as a string.
    Number,
    /// ISO 8601.
    Timestamp(Zone),
    /// As it is: the server has checked that it is JSON.
    Json,
    /// Binary.
    Bytea(ByteaForm),
    /// The text as a string.
    Text,
    /// Of an array.
    Array { element: Arc<Writer>, delimiter: u8 },
    /// Of a composite.
    Composite { fields: Vec<FieldWriter> },
    /// Of an hstore.
    Hstore,
}

impl Form {
    /// How values of this type are written.
    pub fn of(described: &Type, options: Options) -> Self {
        Self(Compiler { options, shared: HashMap::new() }.writer(described))
    }

    /// How a column of this type is written of which the settings may say something of its own. That
    /// holds for the elements of an array and the base of a domain too, for a composite's fields it
    /// does not.
    ///
    /// # Errors
    /// Where the type has no such form.
    pub fn of_column(
        described: &Type,
        options: Options,
        form: Option<ColumnForm>,
    ) -> Result<Self, UnfitForm> {
        let options = form.map_or(Ok(options), |form| chosen(described, options, form))?;
        Ok(Self::of(described, options))
    }

    /// Appends the JSON form of a value, given as its text. Where that fails something may have been
    /// appended.
    ///
    /// # Errors
    /// Where no value of the type has this text.
    pub fn write(&self, text: &[u8], target: &mut Vec<u8>) -> Result<Written, Malformed> {
        self.0.write(text, target)
    }
}

impl Writer {
    pub(super) fn write(&self, text: &[u8], target: &mut Vec<u8>) -> Result<Written, Malformed> {
        match self {
            Self::Array { element, delimiter } => {
                return array::write(text, element, *delimiter, target);
            }
            Self::Composite { fields } => return composite::write(text, fields, target),
            Self::Boolean => write_boolean(text, target)?,
            Self::Integer => number::write_integer(text, target)?,
            Self::Number => number::write_number(text, target)?,
            Self::Timestamp(zone) => timestamp::write(text, *zone, target)?,
            Self::Json => target.extend_from_slice(utf8(text)?.as_bytes()),
            Self::Bytea(form) => bytea::write(text, *form, target)?,
            Self::Text => write_text(text, target)?,
            Self::Hstore => hstore::write(text, target)?,
        }
        Ok(Written::AsDescribed)
    }
}

pub(super) fn utf8(text: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(text).map_err(|_| Malformed::not("UTF-8"))
}

pub(super) fn write_text(text: &[u8], target: &mut Vec<u8>) -> Result<(), Malformed> {
    string::write(target, utf8(text)?);
    Ok(())
}

/// A text that was checked: it needs no escapes.
pub(super) fn write_plain(text: &[u8], target: &mut Vec<u8>) {
    target.push(b'"');
    target.extend_from_slice(text);
    target.push(b'"');
}

fn write_boolean(text: &[u8], target: &mut Vec<u8>) -> Result<(), Malformed> {
    let json: &[u8] = match text {
        b"t" => b"true",
        b"f" => b"false",
        _ => return Err(Malformed::not("t or f")),
    };
    target.extend_from_slice(json);
    Ok(())
}

/// The options where a word is said of a column.
fn chosen(described: &Type, options: Options, form: ColumnForm) -> Result<Options, UnfitForm> {
    let mut innermost = described;
    while let Kind::Array { element: inner, .. } | Kind::Domain { base: inner } = &innermost.kind {
        innermost = inner;
    }
    let other =
        |fitting| Err(UnfitForm::Other { form, type_name: described.name.clone(), fitting });
    match (&innermost.kind, innermost.oid.0, form) {
        (Kind::Base, built_in::INT8, ColumnForm::Number) => {
            Ok(Options { int8: Int8Form::Number, ..options })
        }
        (Kind::Base, built_in::INT8, ColumnForm::String) => {
            Ok(Options { int8: Int8Form::String, ..options })
        }
        (Kind::Base, built_in::NUMERIC, ColumnForm::Number) => {
            Ok(Options { numeric: NumericForm::Number, ..options })
        }
        (Kind::Base, built_in::NUMERIC, ColumnForm::String) => {
            Ok(Options { numeric: NumericForm::String, ..options })
        }
        (Kind::Base, built_in::BYTEA, ColumnForm::Base64) => {
            Ok(Options { bytea: ByteaForm::Base64, ..options })
        }
        (Kind::Base, built_in::BYTEA, ColumnForm::Hex) => {
            Ok(Options { bytea: ByteaForm::Hex, ..options })
        }
        (Kind::Base, built_in::INT8 | built_in::NUMERIC, ColumnForm::Base64 | ColumnForm::Hex) => {
            other("\"number\" and \"string\" are")
        }
        (Kind::Base, built_in::BYTEA, ColumnForm::Number | ColumnForm::String) => {
            other("\"base64\" and \"hex\" are")
        }
        _ => Err(UnfitForm::None { form, type_name: described.name.clone() }),
    }
}

/// Makes writers. A type that others share has one writer too: otherwise composites of composites
/// could grow exponentially.
struct Compiler {
    options: Options,
    shared: HashMap<*const Type, Arc<Writer>>,
}

impl Compiler {
    fn shared(&mut self, described: &Arc<Type>) -> Arc<Writer> {
        if let Some(writer) = self.shared.get(&Arc::as_ptr(described)) {
            return Arc::clone(writer);
        }
        let writer = self.writer(described);
        self.shared.insert(Arc::as_ptr(described), Arc::clone(&writer));
        writer
    }

    fn writer(&mut self, described: &Type) -> Arc<Writer> {
        Arc::new(match &described.kind {
            Kind::Base => self.base(described.oid.0),
            Kind::Hstore => Writer::Hstore,
            Kind::Array { element, delimiter } => {
                Writer::Array { element: self.shared(element), delimiter: *delimiter }
            }
            Kind::Composite { fields } => {
                let field = |field: &super::Field| {
                    FieldWriter::new(&field.name, self.shared(&field.field_type))
                };
                Writer::Composite { fields: fields.iter().map(field).collect() }
            }
            Kind::Domain { base } => return self.shared(base),
            Kind::Enum | Kind::Range | Kind::Unknown => Writer::Text,
        })
    }

    fn base(&self, oid: u32) -> Writer {
        match oid {
            built_in::BOOL => Writer::Boolean,
            built_in::INT2 | built_in::INT4 | built_in::OID => Writer::Integer,
            built_in::INT8 => match self.options.int8 {
                Int8Form::Number => Writer::Integer,
                Int8Form::String => Writer::Text,
            },
            built_in::FLOAT4 | built_in::FLOAT8 => Writer::Number,
            built_in::NUMERIC => match self.options.numeric {
                NumericForm::Number => Writer::Number,
                NumericForm::String => Writer::Text,
            },
            built_in::TIMESTAMP => Writer::Timestamp(Zone::None),
            built_in::TIMESTAMPTZ => Writer::Timestamp(Zone::Utc),
            built_in::JSON | built_in::JSONB => Writer::Json,
            built_in::BYTEA => Writer::Bytea(self.options.bytea),
            _ => Writer::Text,
        }
    }
}

#[cfg(test)]
mod tests;

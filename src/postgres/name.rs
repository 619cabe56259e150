//! Names that reach SQL, checked once and quoted in one place.

use std::fmt;

/// A name cannot be what it was given for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name \"{name}\" {reason}")]
pub struct NameError {
    /// `slot`, `publication` or `table`.
    pub kind: &'static str,
    /// The name as given.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The longest identifier PostgreSQL keeps, in bytes (`NAMEDATALEN` - 1).
const NAME_BYTES_MAX: usize = 63;

/// A replication slot's name: `[a-z0-9_]{1,63}` (`ReplicationSlotValidateName`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotName(String);

/// A publication's name: any identifier of at most 63 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PublicationName(String);

/// A table by schema and name, each as the catalog holds it (no quotes, no folding).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The table.
    pub name: String,
}

impl TryFrom<String> for SlotName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
            let reason = "must be 1 to 63 characters of a-z, 0-9 and _";
            return Err(NameError { kind: "slot", name, reason });
        }
        Ok(Self(name))
    }
}

impl TryFrom<String> for PublicationName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        check_identifier("publication", &name).map(|()| Self(name))
    }
}

impl TryFrom<String> for TableName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let Some((schema, name)) = text.split_once('.') else {
            let reason = "needs its schema, as in public.outbox_events";
            return Err(NameError { kind: "table", name: text, reason });
        };
        check_identifier("table", schema)?;
        check_identifier("table", name)?;
        Ok(Self { schema: schema.to_owned(), name: name.to_owned() })
    }
}

fn check_identifier(kind: &'static str, name: &str) -> Result<(), NameError> {
    let reason = match name {
        "" => "is empty",
        _ if name.len() > NAME_BYTES_MAX => "is longer than 63 bytes",
        _ if name.contains('\0') => "holds a zero byte",
        _ => return Ok(()),
    };
    Err(NameError { kind, name: name.to_owned(), reason })
}

impl SlotName {
    /// The name, unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PublicationName {
    /// The name, unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! display {
    ($($name:ident),+) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        })+
    };
}

display!(SlotName, PublicationName);

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.schema, self.name)
    }
}

impl TableName {
    /// `"schema"."name"`, for SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

/// An identifier in double quotes (C name `quote_identifier`, always quoting).
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string in single quotes, as the replication grammar and SQL read it.
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

//! What a column's text is in expressions.

use std::borrow::Cow;

use crate::{
    change::Oid,
    event::table::rules::{
        array::{self, Item},
        cel_type::CelType,
        instant::Timestamp,
        value::Value,
    },
    value::{Kind, Type},
};

// Types by their OIDs, under the names of pg_type_d.h.
const BOOLOID: Oid = Oid(16);
const INT8OID: Oid = Oid(20);
const INT2OID: Oid = Oid(21);
const INT2VECTOROID: Oid = Oid(22);
const INT4OID: Oid = Oid(23);
const OIDOID: Oid = Oid(26);
const OIDVECTOROID: Oid = Oid(30);
const JSONOID: Oid = Oid(114);
const FLOAT4OID: Oid = Oid(700);
const FLOAT8OID: Oid = Oid(701);
const BPCHAROID: Oid = Oid(1042);
const TIMESTAMPOID: Oid = Oid(1114);
const TIMESTAMPTZOID: Oid = Oid(1184);
const NUMERICOID: Oid = Oid(1700);
const JSONBOID: Oid = Oid(3802);

/// How the text of a type is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    Bool,
    Int,
    Double,
    String,
    /// char(n): without its padding, as the server has it where it makes text of it.
    Padded,
    Timestamp,
    Json,
    List {
        element: Box<Coding>,
        delimiter: u8,
    },
}

impl Coding {
    pub(super) fn of(column_type: &Type) -> Self {
        match &column_type.kind {
            Kind::Domain { base } => Self::of(base),
            // Their text has no braces.
            Kind::Array { .. } if matches!(column_type.oid, INT2VECTOROID | OIDVECTOROID) => {
                Self::String
            }
            Kind::Array { element, delimiter } => {
                Self::List { element: Box::new(Self::of(element)), delimiter: *delimiter }
            }
            Kind::Base => match column_type.oid {
                BOOLOID => Self::Bool,
                INT2OID | INT4OID | INT8OID | OIDOID => Self::Int,
                FLOAT4OID | FLOAT8OID | NUMERICOID => Self::Double,
                BPCHAROID => Self::Padded,
                TIMESTAMPOID | TIMESTAMPTZOID => Self::Timestamp,
                JSONOID | JSONBOID => Self::Json,
                Oid(_) => Self::String,
            },
            Kind::Hstore | Kind::Composite { .. } | Kind::Enum | Kind::Range | Kind::Unknown => {
                Self::String
            }
        }
    }

    /// What expressions take it for.
    pub(super) fn cel_type(&self) -> CelType {
        match self {
            Self::Bool => CelType::Bool,
            Self::Int => CelType::Int,
            Self::Double => CelType::Double,
            Self::String | Self::Padded => CelType::String,
            Self::Timestamp => CelType::Timestamp,
            Self::Json => CelType::Dynamic,
            Self::List { element, .. } => CelType::List(Box::new(element.cel_type())),
        }
    }

    /// The name of what is expected, for errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::String | Self::Padded => "string",
            Self::Timestamp => "timestamp",
            Self::Json => "JSON",
            Self::List { .. } => "list",
        }
    }

    /// Reads a text; `None` where the type cannot have written it. A numeric is rounded to the
    /// nearest double, which is infinite for one beyond all of them.
    pub(super) fn read<'a>(&self, text: Cow<'a, str>) -> Option<Value<'a>> {
        Some(match self {
            Self::Bool => match &*text {
                "t" => Value::Bool(true),
                "f" => Value::Bool(false),
                _ => return None,
            },
            Self::Int => Value::Int(text.parse().ok()?),
            Self::Double => Value::Double(text.parse().ok()?),
            Self::String => Value::String(text),
            Self::Padded => Value::String(match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(' ')),
                Cow::Owned(text) => Cow::Owned(text.trim_end_matches(' ').to_owned()),
            }),
            Self::Timestamp => Value::Timestamp(Timestamp::parse_column(&text)?),
            Self::Json => Value::Json(text),
            Self::List { element, delimiter } => match text {
                Cow::Borrowed(text) => element.read_items(array::parse(text, *delimiter)?)?,
                // Arrays of arrays are none in PostgreSQL, but those of domains over them are.
                Cow::Owned(text) => {
                    let items = array::parse(&text, *delimiter)?;
                    element.read_items(items.into_iter().map(Item::into_owned).collect())?
                }
            },
        })
    }

    fn read_items<'a>(&self, items: Vec<Item<'a>>) -> Option<Value<'a>> {
        let read = |item| match item {
            Item::Null => Some(Value::Null),
            Item::Text(text) => self.read(text),
            Item::List(items) => self.read_items(items),
        };
        Some(Value::List(items.into_iter().map(read).collect::<Option<_>>()?))
    }
}

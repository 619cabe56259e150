//! What is known of a value before there is any.

use std::fmt;

/// A type, as far as an expression's text and the table's columns tell it. Each may be null.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum CelType {
    /// Only the row shows it: what is within JSON.
    Dynamic,
    /// `null` as it is written.
    Null,
    Bool,
    Int,
    Double,
    String,
    Timestamp,
    Duration,
    List(Box<CelType>),
    /// Of keys and values.
    Map(Box<CelType>, Box<CelType>),
    /// What `type()` gives.
    Type,
}

impl CelType {
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Double)
    }

    /// Whether a value of it can be one of `wanted`.
    pub(super) fn can_be(&self, wanted: &[Self]) -> bool {
        *self == Self::Dynamic || wanted.contains(self)
    }

    /// Whether `==` of both can ever say anything but false.
    pub(super) fn is_comparable_to(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dynamic | Self::Null, _) | (_, Self::Dynamic | Self::Null) => true,
            (Self::List(one), Self::List(other)) => one.is_comparable_to(other),
            (Self::Map(key, value), Self::Map(other_key, other_value)) => {
                key.is_comparable_to(other_key) && value.is_comparable_to(other_value)
            }
            _ => self == other || (self.is_number() && other.is_number()),
        }
    }

    /// The type of what is one or the other; `None` where they have nothing in common.
    pub(super) fn joined(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Null, one) | (one, Self::Null) => Some(one.clone()),
            (Self::Dynamic, _) | (_, Self::Dynamic) => Some(Self::Dynamic),
            (Self::List(one), Self::List(other)) => {
                Some(Self::List(Box::new(one.or_dynamic(other))))
            }
            (Self::Map(key, value), Self::Map(other_key, other_value)) => Some(Self::Map(
                Box::new(key.or_dynamic(other_key)),
                Box::new(value.or_dynamic(other_value)),
            )),
            _ if self == other => Some(self.clone()),
            _ if self.is_number() && other.is_number() => Some(Self::Double),
            _ => None,
        }
    }

    /// The same; of types without anything in common it is open.
    pub(super) fn or_dynamic(&self, other: &Self) -> Self {
        self.joined(other).unwrap_or(Self::Dynamic)
    }

    /// The type of all of them; open where there are none, or where they differ.
    pub(super) fn of_all<'t>(types: impl IntoIterator<Item = &'t Self>) -> Self {
        let joined = types.into_iter().cloned().reduce(|one, other| one.or_dynamic(&other));
        joined.unwrap_or(Self::Dynamic)
    }
}

impl fmt::Display for CelType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Dynamic => "JSON",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::String => "string",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::List(element) => return write!(formatter, "list({element})"),
            Self::Map(key, value) => return write!(formatter, "map({key}, {value})"),
            Self::Type => "type",
        };
        formatter.write_str(name)
    }
}

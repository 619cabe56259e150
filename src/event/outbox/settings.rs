//! What the settings say of an outbox table.

use crate::event::TopicTemplate;

/// One outbox table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Schema and name, as the catalog holds them.
    pub table: (String, String),
    /// Where its events go.
    pub topic: TopicTemplate,
    /// What its payload is.
    pub payload: PayloadForm,
    /// Which column is what.
    pub columns: ColumnNames,
    /// Headers to add: name, and the column that holds the value.
    pub headers: Vec<(String, String)>,
}

/// Which columns an outbox table has, and what else follows from whom it was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Layout {
    /// Every column has the name of what it is.
    #[default]
    Tailwater,
    /// The table of Debezium's EventRouter: its columns, topics, values and its header `id`.
    Debezium,
}

impl Layout {
    /// Where events go unless the settings say otherwise.
    pub fn topic(self) -> &'static str {
        match self {
            Self::Tailwater => "{domain}.events",
            Self::Debezium => "outbox.event.{aggregate_type}",
        }
    }

    /// What the payload is unless the settings say otherwise.
    pub fn payload(self) -> PayloadForm {
        match self {
            Self::Tailwater => PayloadForm::Data,
            Self::Debezium => PayloadForm::Bare,
        }
    }

    /// How the columns are called unless the settings say otherwise.
    pub fn columns(self) -> ColumnNames {
        let names = ColumnNames::default();
        let named = |name: &str| ColumnName::Default(name.to_owned());
        match self {
            Self::Tailwater => names,
            Self::Debezium => ColumnNames {
                aggregate_type: named("aggregatetype"),
                aggregate_id: named("aggregateid"),
                event_type: named("type"),
                ..names
            },
        }
    }

    /// The header that every record gets the value of the id column in.
    pub fn id_header(self) -> Option<&'static str> {
        match self {
            Self::Tailwater => None,
            Self::Debezium => Some("id"),
        }
    }
}

/// What an outbox table's payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PayloadForm {
    /// The event's `data`.
    #[default]
    Data,
    /// The whole envelope already.
    Envelope,
    /// The record's value as it is; the envelope's other fields are headers.
    Bare,
}

/// The name of a column, and whether somebody wrote it down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ColumnName {
    /// The layout's own name: an optional column of this name may be absent.
    Default(String),
    /// Named in the settings: it must exist.
    Configured(String),
}

impl ColumnName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Default(name) | Self::Configured(name) => name,
        }
    }
}

macro_rules! column_names {
    ($($(#[$documentation:meta])* $field:ident,)+) => {
        /// Which column of an outbox table is what.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct ColumnNames {
            $($(#[$documentation])* pub $field: ColumnName,)+
        }

        impl Default for ColumnNames {
            /// The layout `tailwater`: every column has the name of what it is.
            fn default() -> Self {
                Self { $($field: ColumnName::Default(stringify!($field).to_owned()),)+ }
            }
        }
    };
}

column_names! {
    /// The event's id.
    id,
    /// The record's key.
    aggregate_id,
    /// For the topic template `{aggregate_type}`; optional.
    aggregate_type,
    /// The event's type.
    event_type,
    /// The event's data, or all of the event.
    payload,
    /// When it occurred; optional.
    created_at,
    /// The envelope's version; optional.
    version,
    /// Optional.
    correlation_id,
    /// Optional.
    causation_id,
    /// Optional.
    traceparent,
    /// A JSON object whose members become headers; optional.
    headers,
}

//! The event, complete: nothing is left to decide for whoever encodes it.

use std::ops::Range;

use crate::{
    change::{Tuple, TupleValue},
    event::{ColumnAt, table::RowView},
};

/// One event and where it goes. All of it borrows from the row and the mapping.
#[derive(Clone, Debug)]
pub struct DomainEvent<'a> {
    /// A hyphenated UUID; lower case unless the payload's envelope wrote it otherwise.
    pub id: &'a str,
    /// Never empty.
    pub event_type: &'a str,
    /// The envelope's version.
    pub version: &'a str,
    /// The service that the event comes from.
    pub source: &'a str,
    /// What the event belongs to; its own id where nothing says otherwise.
    pub correlation_id: &'a str,
    /// The event or command that caused it.
    pub causation_id: Option<&'a str>,
    /// An RFC 3339 instant.
    pub occurred_at: &'a str,
    /// The W3C trace context of whoever wrote the row.
    pub traceparent: Option<&'a str>,
    /// The record's key; `None` is a null key.
    pub key: Option<&'a [u8]>,
    /// A name that Kafka allows.
    pub topic: &'a str,
    /// The record's value.
    pub payload: Payload<'a>,
    /// Headers beside the event's own.
    pub headers: ExtraHeaders<'a>,
    /// The partition, where neither key nor id decides it.
    pub partition: Option<u32>,
}

/// What the record's value is made of. All texts are valid JSON.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// The envelope's `data`; every other field comes from the event.
    Data(&'a str),
    /// The envelope as the application wrote it.
    Envelope {
        /// A JSON object.
        text: &'a str,
        /// Members to leave out, each with its comma; in order, without overlap.
        cuts: &'a [Range<usize>],
        /// Where the object's closing brace stands.
        closing_brace: usize,
        /// Fields to add before it, from the event.
        missing: FieldSet,
    },
    /// The value as it is; `None` is a null value.
    Bare(Option<&'a str>),
    /// The envelope's `data` is a row.
    Row(RowView<'a>),
    /// The envelope's `data` is what changed of a row.
    Change {
        /// What the server sent of the old row.
        before: Option<RowView<'a>>,
        /// The new row.
        after: Option<RowView<'a>>,
    },
}

/// A field that the envelope knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// `id`
    Id,
    /// `type`
    Type,
    /// `version`
    Version,
    /// `source`
    Source,
    /// `correlationId`
    CorrelationId,
    /// `causationId`
    CausationId,
    /// `occurredAt`
    OccurredAt,
    /// `data`
    Data,
}

impl Field {
    /// Every field, in the envelope's order.
    pub const ALL: [Field; 8] = [
        Field::Id,
        Field::Type,
        Field::Version,
        Field::Source,
        Field::CorrelationId,
        Field::CausationId,
        Field::OccurredAt,
        Field::Data,
    ];

    /// The field's name in the envelope.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Type => "type",
            Self::Version => "version",
            Self::Source => "source",
            Self::CorrelationId => "correlationId",
            Self::CausationId => "causationId",
            Self::OccurredAt => "occurredAt",
            Self::Data => "data",
        }
    }

    /// The field of that name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "type" => Self::Type,
            "version" => Self::Version,
            "source" => Self::Source,
            "correlationId" => Self::CorrelationId,
            "causationId" => Self::CausationId,
            "occurredAt" => Self::OccurredAt,
            "data" => Self::Data,
            _ => return None,
        })
    }
}

/// Some of the envelope's fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FieldSet(u8);

impl FieldSet {
    /// Every field.
    pub const ALL: FieldSet = FieldSet(u8::MAX);

    /// Without `field`.
    pub fn without(self, field: Field) -> Self {
        Self(self.0 & !(1 << field as u8))
    }

    /// With `field`.
    pub fn with(self, field: Field) -> Self {
        Self(self.0 | 1 << field as u8)
    }

    /// Whether `field` is one of them.
    pub fn contains(self, field: Field) -> bool {
        self.0 & 1 << field as u8 != 0
    }
}

/// Headers that the row brings along; a NULL makes none.
#[derive(Clone, Copy, Debug)]
pub struct ExtraHeaders<'a> {
    /// Columns that become a header each.
    columns: &'a [(String, ColumnAt)],
    tuple: Tuple<'a>,
    /// Members of the column `headers`.
    members: &'a [(String, String)],
}

impl<'a> ExtraHeaders<'a> {
    pub(super) fn none() -> Self {
        Self::new(&[], Tuple::new(&[], &[]), &[])
    }

    pub(super) fn new(
        columns: &'a [(String, ColumnAt)],
        tuple: Tuple<'a>,
        members: &'a [(String, String)],
    ) -> Self {
        Self { columns, tuple, members }
    }

    /// Name and value: columns in the settings' order, then members in theirs.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let tuple = self.tuple;
        let columns = self.columns.iter().filter_map(move |(name, column)| {
            match tuple.get(column.index())? {
                TupleValue::Text(value) => Some((name.as_str(), value)),
                // An INSERT carries every value, so nothing is lost with the second of the two.
                TupleValue::Null | TupleValue::UnchangedToast => None,
            }
        });
        let members = self.members.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        columns.chain(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_set_holds_what_was_put_in() {
        let set = FieldSet::default().with(Field::Data).with(Field::Id);
        let held: Vec<_> = Field::ALL.into_iter().filter(|field| set.contains(*field)).collect();
        assert_eq!(held, [Field::Id, Field::Data]);
        assert_eq!(set.without(Field::Id).without(Field::Data), FieldSet::default());
        assert!(Field::ALL.into_iter().all(|field| FieldSet::ALL.contains(field)));
    }

    #[test]
    fn every_field_is_found_by_its_name() {
        for field in Field::ALL {
            assert_eq!(Field::named(field.name()), Some(field));
        }
        assert_eq!(Field::named("Data"), None);
    }
}

//! Headers of a record: which are Tailwater's own, how long names are and how many.

use crate::event::outbox::PayloadForm;

/// The longest name of a header, in bytes. A batch writes a name's length in 16 bits.
pub const HEADER_NAME_BYTES_MAX: usize = 65_535;

/// The most headers that the settings may add to a table's records: no table has many more columns.
pub const CONFIGURED_HEADERS_MAX: usize = 1_000;

/// The most headers that a row may bring along, those of the settings included. A record counts its
/// headers in 16 bits; what is left is for Tailwater's own.
pub const EXTRA_HEADERS_MAX: usize = 65_000;

/// A header that Tailwater writes itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnHeader {
    /// `content-type`
    ContentType,
    /// `schema-version`
    SchemaVersion,
    /// `event-id`
    EventId,
    /// `event-type`
    EventType,
    /// `correlation-id`
    CorrelationId,
    /// `traceparent`, where the row has one.
    Traceparent,
    /// `pg-lsn`
    PgLsn,
    /// `pg-seq`
    PgSeq,
    /// `pg-xid`
    PgXid,
    /// `occurred-at`, of bare values.
    OccurredAt,
    /// `source`, of bare values.
    Source,
    /// `causation-id`, of bare values, where the row has one.
    CausationId,
}

impl OwnHeader {
    /// Every one, in the order of a record's headers.
    pub const ALL: [OwnHeader; 12] = [
        OwnHeader::ContentType,
        OwnHeader::SchemaVersion,
        OwnHeader::EventId,
        OwnHeader::EventType,
        OwnHeader::CorrelationId,
        OwnHeader::Traceparent,
        OwnHeader::PgLsn,
        OwnHeader::PgSeq,
        OwnHeader::PgXid,
        OwnHeader::OccurredAt,
        OwnHeader::Source,
        OwnHeader::CausationId,
    ];

    /// Its name in the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::ContentType => "content-type",
            Self::SchemaVersion => "schema-version",
            Self::EventId => "event-id",
            Self::EventType => "event-type",
            Self::CorrelationId => "correlation-id",
            Self::Traceparent => "traceparent",
            Self::PgLsn => "pg-lsn",
            Self::PgSeq => "pg-seq",
            Self::PgXid => "pg-xid",
            Self::OccurredAt => "occurred-at",
            Self::Source => "source",
            Self::CausationId => "causation-id",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|header| header.name() == name)
    }

    /// Whether records of that form ever carry it.
    pub fn belongs_to(self, form: PayloadForm) -> bool {
        match self {
            Self::ContentType
            | Self::SchemaVersion
            | Self::EventId
            | Self::EventType
            | Self::CorrelationId
            | Self::Traceparent
            | Self::PgLsn
            | Self::PgSeq
            | Self::PgXid => true,
            Self::OccurredAt | Self::Source | Self::CausationId => match form {
                PayloadForm::Bare => true,
                PayloadForm::Data | PayloadForm::Envelope => false,
            },
        }
    }
}

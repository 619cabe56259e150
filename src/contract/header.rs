//! Schemas of a record's headers. All values are texts in UTF-8.

use serde_json::{Map, Value, json};

use super::channel::{Contents, Message, Types};
use crate::event::{OwnHeader, Settings, outbox::PayloadForm};

/// The headers of one kind of events, as an object of texts. There may be more: a row's column
/// `headers` brings its own.
pub(super) fn headers(settings: &Settings, message: &Message) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for header in OwnHeader::ALL.into_iter().filter(|it| it.belongs_to(message.contents.form())) {
        properties.insert(header.name().to_owned(), own(header, settings, message));
        if is_always_there(header) {
            required.push(header.name());
        }
    }
    for name in &message.headers {
        let description = "From a column of the row. Absent where that is NULL.";
        let schema = json!({ "type": "string", "description": description });
        properties.insert(name.clone(), schema);
    }
    json!({ "type": "object", "required": required, "properties": properties })
}

fn is_always_there(header: OwnHeader) -> bool {
    match header {
        OwnHeader::Traceparent | OwnHeader::CausationId => false,
        OwnHeader::ContentType
        | OwnHeader::SchemaVersion
        | OwnHeader::EventId
        | OwnHeader::EventType
        | OwnHeader::CorrelationId
        | OwnHeader::PgLsn
        | OwnHeader::PgSeq
        | OwnHeader::PgXid
        | OwnHeader::OccurredAt
        | OwnHeader::Source => true,
    }
}

fn own(header: OwnHeader, settings: &Settings, message: &Message) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let matching = |pattern: &str, description: &str| json!({ "type": "string", "pattern": pattern, "description": description });
    match header {
        OwnHeader::ContentType => json!({ "const": "application/json" }),
        OwnHeader::SchemaVersion => match &message.contents {
            Contents::Payload(_) => text("The envelope's version."),
            Contents::Rows { version, .. } | Contents::Tombstone { version, .. } => {
                json!({ "const": version })
            }
        },
        OwnHeader::EventId => matching(
            "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
            "The event's id: consumers that must not act twice remember it.",
        ),
        OwnHeader::EventType => match &message.types {
            Types::Any => text("The event's type."),
            Types::Matching(pattern) => matching(pattern, "The event's type."),
            Types::Only(only) => json!({ "const": only }),
        },
        OwnHeader::CorrelationId => text("What the event belongs to, over all services."),
        OwnHeader::Traceparent => text("The W3C trace context, where there is one."),
        OwnHeader::PgLsn => matching(
            "^[0-9A-F]+/[0-9A-F]+$",
            "Where the commit record of the event's transaction begins. With pg-seq it orders all \
             events of a pipeline.",
        ),
        OwnHeader::PgSeq => {
            matching("^[0-9]+$", "The event's ordinal in its transaction, from 0, without gaps.")
        }
        OwnHeader::PgXid => matching("^[0-9]+$", "The transaction's identifier."),
        OwnHeader::OccurredAt => text("When it happened: an RFC 3339 instant."),
        OwnHeader::Source => match message.contents.form() {
            PayloadForm::Bare | PayloadForm::Data => json!({ "const": settings.source }),
            PayloadForm::Envelope => text("The service that it happened in."),
        },
        OwnHeader::CausationId => text("The event or command that caused it."),
    }
}

//! Schemas of a record's headers. All values are texts in UTF-8.

use serde_json::{Map, Value, json};

use super::channel::{Contents, Message, Types};
use crate::event::{OwnHeader, Settings, outbox::PayloadForm, table::Occasion};

/// The headers of one kind of events, as an object of texts. There may be more: a row's column
/// `headers` brings its own.
pub(super) fn headers(settings: &Settings, message: &Message) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for header in OwnHeader::ALL.into_iter().filter(|it| it.belongs_to(message.contents.form())) {
        let presence = presence(header, message.occasion);
        if presence != Presence::Never {
            properties.insert(header.name().to_owned(), own(header, settings, message));
        }
        if presence == Presence::Always {
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Presence {
    Always,
    AtTimes,
    Never,
}

fn presence(header: OwnHeader, occasion: Occasion) -> Presence {
    match header {
        OwnHeader::Traceparent | OwnHeader::CausationId => match occasion {
            Occasion::Change | Occasion::Either => Presence::AtTimes,
            Occasion::Snapshot => Presence::Never,
        },
        OwnHeader::PgSeq | OwnHeader::PgXid => match occasion {
            Occasion::Change => Presence::Always,
            Occasion::Either => Presence::AtTimes,
            Occasion::Snapshot => Presence::Never,
        },
        OwnHeader::ContentType
        | OwnHeader::SchemaVersion
        | OwnHeader::EventId
        | OwnHeader::EventType
        | OwnHeader::CorrelationId
        | OwnHeader::PgLsn
        | OwnHeader::OccurredAt
        | OwnHeader::Source => Presence::Always,
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
        OwnHeader::CorrelationId => text(match message.occasion {
            Occasion::Snapshot => "The request for the table's rows.",
            Occasion::Change | Occasion::Either => "What the event belongs to, over all services.",
        }),
        OwnHeader::Traceparent => text("The W3C trace context, where there is one."),
        OwnHeader::PgLsn => matching("^[0-9A-F]+/[0-9A-F]+$", &position(message.occasion)),
        OwnHeader::PgSeq => {
            let ordinal = "The event's ordinal in its transaction, from 0, without gaps.";
            matching("^[0-9]+$", &of_changes(ordinal, message.occasion))
        }
        OwnHeader::PgXid => {
            matching("^[0-9]+$", &of_changes("The transaction's identifier.", message.occasion))
        }
        OwnHeader::OccurredAt => text("When it happened: an RFC 3339 instant."),
        OwnHeader::Source => match message.contents.form() {
            PayloadForm::Bare | PayloadForm::Data => json!({ "const": settings.source }),
            PayloadForm::Envelope => text("The service that it happened in."),
        },
        OwnHeader::CausationId => text("The event or command that caused it."),
    }
}

const READ_AT: &str =
    "Where the log was when the row was read: what was committed before is in it.";

fn position(occasion: Occasion) -> String {
    let of_change = "Where the commit record of the event's transaction begins. With pg-seq it \
                     orders all events of a pipeline.";
    match occasion {
        Occasion::Change => of_change.to_owned(),
        Occasion::Snapshot => READ_AT.to_owned(),
        Occasion::Either => format!("{of_change} Without pg-seq: {READ_AT}"),
    }
}

/// What is said of a header that rows which were there before do not have.
fn of_changes(said: &str, occasion: Occasion) -> String {
    match occasion {
        Occasion::Either => format!("{said} Absent where the row was there before."),
        Occasion::Change | Occasion::Snapshot => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::channel::channels,
        event::{
            TypeTemplate,
            fixture::{Outbox, domain_table::DomainTable},
            outbox::MessageSettings,
            table::{Otherwise, RuleSettings},
        },
    };

    /// Of headers that only changes have: `!` where each record has it, `?` where some have, and
    /// nothing where none has.
    fn of_changes(headers: &Value) -> String {
        let told = ["pg-lsn", "pg-seq", "pg-xid", "traceparent"].map(|name| {
            let is_required = headers["required"].as_array().expect("names").contains(&json!(name));
            match headers["properties"].get(name) {
                None => String::new(),
                Some(_) => format!("{name}{}", if is_required { "!" } else { "?" }),
            }
        });
        told.concat()
    }

    #[test]
    fn rows_that_were_there_have_no_place_in_a_transaction() {
        let table = DomainTable::orders().with(|table| {
            table.settings.tombstone = true;
            table.settings.otherwise = Otherwise::Default;
            table.settings.rules = vec![RuleSettings {
                event_type: "order.seen".to_owned(),
                when: Some("op == 'snapshot'".to_owned()),
                version: None,
                data: None,
                topic: None,
            }];
        });
        let mut settings = table.file();
        settings.outboxes = vec![Outbox::of(PayloadForm::Data).settings()];
        settings.messages = vec![MessageSettings {
            prefix: "outbox".to_owned(),
            topic: TypeTemplate::parse("messages").expect("a template"),
        }];
        let found = channels(&settings, &[table.description()]).expect("channels");
        let messages: Vec<&Message> = found.iter().flat_map(|channel| &channel.messages).collect();
        let of = |start: &str| {
            let is_meant = |message: &&&Message| message.title().starts_with(start);
            let message = messages.iter().find(is_meant).expect(start);
            of_changes(&headers(&settings, message))
        };
        let of_change = "pg-lsn!pg-seq!pg-xid!traceparent?";
        for title in
            ["orders.created", "orders.deleted", "orders.truncated", "Tombstone", "From messages"]
        {
            assert_eq!(of(title), of_change, "{title}");
        }
        assert_eq!(of("orders.snapshot"), "pg-lsn!");
        // Rules may match either, and rows of an outbox may have waited for a poller.
        for title in ["order.seen", "From table"] {
            assert_eq!(of(title), "pg-lsn!pg-seq?pg-xid?traceparent?", "{title}");
        }
    }
}

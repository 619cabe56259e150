//! Schemas of a record's value and key.

use serde_json::{Map, Value, json};

use super::channel::{Contents, Message, Types};
use crate::event::{Settings, outbox::PayloadForm};

/// The envelope, as schemas/domain-event.schema.json has it, without its `$schema`: it becomes a part
/// of another document.
pub(super) fn domain_event() -> Value {
    let text = include_str!("../../schemas/domain-event.schema.json");
    let mut schema: Value = serde_json::from_str(text).expect("the published schema is JSON");
    schema.as_object_mut().expect("a schema is an object").remove("$schema");
    schema
}

/// The value of one kind of events. `envelope` is where [`domain_event`] is found in the document.
pub(super) fn value(settings: &Settings, message: &Message, envelope: &str) -> Value {
    let mut properties = Map::new();
    match &message.types {
        Types::Any => {}
        Types::Matching(pattern) => {
            _ = properties.insert("type".to_owned(), json!({ "pattern": pattern }))
        }
        Types::Only(only) => _ = properties.insert("type".to_owned(), json!({ "const": only })),
    }
    match &message.contents {
        // The application's own envelope may name another source.
        Contents::Payload(PayloadForm::Envelope) => {}
        Contents::Payload(PayloadForm::Data) => {
            properties.insert("source".to_owned(), json!({ "const": settings.source }));
        }
        Contents::Payload(PayloadForm::Bare) => {
            return json!({
                "description": "The payload as the application wrote it: any JSON, also null. The \
                                envelope's other fields are headers."
            });
        }
        Contents::Rows { version, data, unavailable, key: _ } => {
            properties.insert("source".to_owned(), json!({ "const": settings.source }));
            properties.insert("version".to_owned(), json!({ "const": version }));
            properties.insert("data".to_owned(), data.clone());
            let unavailable = match unavailable.is_empty() {
                // No name can be in it, and it is never empty.
                true => json!({ "not": {} }),
                false => json!({ "minItems": 1, "items": { "enum": unavailable } }),
            };
            properties.insert("unavailable".to_owned(), unavailable);
        }
        Contents::Tombstone { .. } => {
            return json!({
                "type": "null",
                "description": "The tombstone behind a deleted row: a compacted topic forgets its \
                                key. The envelope's fields are headers."
            });
        }
    }
    match properties.is_empty() {
        true => json!({ "$ref": envelope }),
        false => json!({ "allOf": [{ "$ref": envelope }, { "properties": properties }] }),
    }
}

/// The key of one kind of events.
pub(super) fn key(message: &Message) -> Value {
    match &message.contents {
        Contents::Payload(_) => of_aggregate(),
        Contents::Rows { key, .. } | Contents::Tombstone { key, .. } => key.clone(),
    }
}

/// The key of an outbox's events.
fn of_aggregate() -> Value {
    json!({
        "type": ["string", "null"],
        "description": "The aggregate's id: events of one keep their order. Null where it has none."
    })
}

/// The key of what could not be published.
pub(super) fn key_of_dead_letter() -> Value {
    json!({ "type": ["string", "null"], "description": "The key that the event would have had." })
}

//! Schemas of a record's value and key.

use serde_json::{Value, json};

use super::channel::Message;
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
    let narrowed = |source: Option<&str>| {
        let mut properties = serde_json::Map::new();
        if let Some(source) = source {
            properties.insert("source".to_owned(), json!({ "const": source }));
        }
        if let Some(pattern) = &message.type_pattern {
            properties.insert("type".to_owned(), json!({ "pattern": pattern }));
        }
        match properties.is_empty() {
            true => json!({ "$ref": envelope }),
            false => json!({ "allOf": [{ "$ref": envelope }, { "properties": properties }] }),
        }
    };
    match message.form {
        PayloadForm::Data => narrowed(Some(&settings.source)),
        // The application's own envelope may name another source.
        PayloadForm::Envelope => narrowed(None),
        PayloadForm::Bare => json!({
            "description": "The payload as the application wrote it: any JSON, also null. The \
                            envelope's other fields are headers."
        }),
    }
}

/// The key of every event.
pub(super) fn key() -> Value {
    json!({
        "type": ["string", "null"],
        "description": "The aggregate's id: events of one keep their order. Null where it has none."
    })
}

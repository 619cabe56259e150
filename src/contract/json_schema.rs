//! Values as JSON Schema, by topic.

use serde_json::{Map, Value, json};

use super::{
    channel::{Channel, channels},
    value,
};
use crate::event::{EventError, Settings, table::Description};

/// The envelope's name among the definitions.
const ENVELOPE: &str = "DomainEvent";

/// Its name where a topic has the other one. No topic has a colon.
const ENVELOPE_BESIDE_TOPIC: &str = "envelope:DomainEvent";

/// A JSON Schema (2020-12) of the values of all events that these settings produce, of tables that
/// the database has. What goes to one topic is under `$defs`, by the topic or its template.
///
/// # Errors
/// Where a table does not fit its settings.
pub fn json_schema(settings: &Settings, tables: &[Description]) -> Result<Value, EventError> {
    let channels = channels(settings, tables)?;
    let is_taken = channels.iter().any(|it| it.address == ENVELOPE);
    let envelope = if is_taken { ENVELOPE_BESIDE_TOPIC } else { ENVELOPE };
    let of_channel = |it: &Channel| (it.address.clone(), of_channel(settings, it, envelope));
    let mut definitions: Map<String, Value> = channels.iter().map(of_channel).collect();
    definitions.insert(envelope.to_owned(), value::domain_event());
    let all: Vec<Value> =
        channels.iter().map(|it| json!({ "$ref": reference(&it.address) })).collect();
    // A pattern may match no table, and no value is one of none.
    let (word, any) = if all.is_empty() { ("not", json!({})) } else { ("anyOf", json!(all)) };
    Ok(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Events of {}", settings.source),
        "description": "The value of any record; that of one topic's records is under $defs.",
        word: any,
        "$defs": definitions,
    }))
}

fn of_channel(settings: &Settings, channel: &Channel, envelope: &str) -> Value {
    let kinds = channel.messages.iter().map(|message| {
        let mut schema = value::value(settings, message, &reference(envelope));
        schema["title"] = json!(message.title());
        schema
    });
    let kinds: Vec<Value> = kinds.collect();
    json!({ "title": format!("Records of {}", channel.address), "anyOf": kinds })
}

/// Where a definition stands. A topic's name or template has no other mark that means something in a
/// fragment of a URI.
fn reference(address: &str) -> String {
    format!("#/$defs/{}", address.replace('{', "%7B").replace('}', "%7D"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{
        Route, TypeGlob, TypeTemplate,
        fixture::{Outbox, domain_table::DomainTable},
        outbox::PayloadForm,
    };

    fn settings(form: PayloadForm) -> Settings {
        Settings {
            source: "shop".to_owned(),
            outboxes: vec![Outbox::of(form).settings()],
            messages: Vec::new(),
            tables: Vec::new(),
            routes: vec![Route {
                event_type: TypeGlob::parse("*.audited").expect("a pattern"),
                topic: TypeTemplate::parse("audit").expect("a template"),
            }],
        }
    }

    fn event(event_type: &str, source: &str) -> Value {
        json!({
            "id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "type": event_type,
            "version": "1.0",
            "source": source,
            "correlationId": "c",
            "occurredAt": "2026-03-01T12:00:00.000000Z",
            "data": null
        })
    }

    #[test]
    fn values_are_those_of_the_source_and_of_the_types_of_a_route() {
        for (form, others) in [(PayloadForm::Data, false), (PayloadForm::Envelope, true)] {
            let mut schema = json_schema(&settings(form), &[]).expect("a document");
            let whole = jsonschema::draft202012::new(&schema).expect("a schema");
            assert!(whole.is_valid(&event("order.placed", "shop")));
            assert_eq!(whole.is_valid(&event("order.placed", "other")), others);
            schema["anyOf"] = json!([{ "$ref": "#/$defs/audit" }]);
            let audit = jsonschema::draft202012::new(&schema).expect("a schema");
            assert!(audit.is_valid(&event("order.audited", "shop")));
            assert!(!audit.is_valid(&event("order.placed", "shop")));
            assert!(!audit.is_valid(&event("order.audited.late", "shop")));
        }
    }

    #[test]
    fn a_tables_events_have_the_data_of_their_type_and_nothing_else_is_any() {
        let table = DomainTable::orders().with(|table| table.settings.tombstone = true);
        let schema = json_schema(&table.file(), &[table.description()]).expect("a document");
        let schema = jsonschema::draft202012::new(&schema).expect("a schema");
        let with = |event_type: &str, data: Value| {
            let mut event = event(event_type, "order-service");
            event["data"] = data;
            event
        };
        let row = json!({ "id": 7, "status": "placed", "note": null });
        let mut updated = with("orders.updated", json!({ "id": 7, "status": "placed" }));
        updated["unavailable"] = json!(["note"]);
        for value in [
            with("orders.created", row.clone()),
            updated.clone(),
            with("orders.deleted", json!({ "id": 7 })),
            with("orders.truncated", Value::Null),
            Value::Null,
        ] {
            assert!(schema.is_valid(&value), "{value}");
        }
        updated["unavailable"] = json!(["id"]);
        let mut deleted = with("orders.deleted", json!({ "id": 7 }));
        deleted["unavailable"] = json!(["note"]);
        let mut other_version = with("orders.created", row.clone());
        other_version["version"] = json!("2.0");
        for value in [
            with("orders.archived", row.clone()),
            with("orders.created", json!({ "id": "7", "status": "placed", "note": null })),
            with("orders.created", Value::Null),
            with("orders.deleted", json!({})),
            with("orders.truncated", row),
            updated,
            deleted,
            other_version,
        ] {
            assert!(!schema.is_valid(&value), "{value}");
        }
        let nothing = json_schema(&table.file(), &[]).expect("a document");
        assert!(jsonschema::meta::is_valid(&nothing), "{nothing}");
        assert!(!jsonschema::draft202012::new(&nothing).expect("a schema").is_valid(&Value::Null));
    }

    #[test]
    fn a_topic_of_the_envelopes_name_has_a_definition_of_its_own() {
        let mut settings = settings(PayloadForm::Data);
        for route in &mut settings.routes {
            route.topic = TypeTemplate::parse("DomainEvent").expect("a template");
        }
        let mut schema = json_schema(&settings, &[]).expect("a document");
        schema["anyOf"] = json!([{ "$ref": "#/$defs/DomainEvent" }]);
        let topic = jsonschema::draft202012::new(&schema).expect("a schema");
        assert!(topic.is_valid(&event("order.audited", "shop")));
        assert!(!topic.is_valid(&event("order.placed", "shop")), "it is the envelope's");
    }
}

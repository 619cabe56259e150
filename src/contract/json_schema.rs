//! Values as JSON Schema, by topic.

use serde_json::{Map, Value, json};

use super::{
    channel::{Channel, channels},
    value,
};
use crate::event::Settings;

/// The envelope's name among the definitions.
const ENVELOPE: &str = "DomainEvent";

/// Its name where a topic has the other one. No topic has a colon.
const ENVELOPE_BESIDE_TOPIC: &str = "envelope:DomainEvent";

/// A JSON Schema (2020-12) of the values of all events that these settings produce. What goes to one
/// topic is under `$defs`, by the topic or its template.
pub fn json_schema(settings: &Settings) -> Value {
    let channels = channels(settings);
    let is_taken = channels.iter().any(|it| it.address == ENVELOPE);
    let envelope = if is_taken { ENVELOPE_BESIDE_TOPIC } else { ENVELOPE };
    let of_channel = |it: &Channel| (it.address.clone(), of_channel(settings, it, envelope));
    let mut definitions: Map<String, Value> = channels.iter().map(of_channel).collect();
    definitions.insert(envelope.to_owned(), value::domain_event());
    let all: Vec<Value> =
        channels.iter().map(|it| json!({ "$ref": reference(&it.address) })).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Events of {}", settings.source),
        "description": "The value of any record; that of one topic's records is under $defs.",
        "anyOf": all,
        "$defs": definitions,
    })
}

fn of_channel(settings: &Settings, channel: &Channel, envelope: &str) -> Value {
    let kinds = channel.messages.iter().map(|message| {
        let origins = message.origins.join(", ");
        let mut schema = value::value(settings, message, &reference(envelope));
        schema["title"] = json!(format!("From {origins}"));
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
    use crate::event::{Route, TypeGlob, TypeTemplate, fixture::Outbox, outbox::PayloadForm};

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
            let mut schema = json_schema(&settings(form));
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
    fn a_topic_of_the_envelopes_name_has_a_definition_of_its_own() {
        let mut settings = settings(PayloadForm::Data);
        for route in &mut settings.routes {
            route.topic = TypeTemplate::parse("DomainEvent").expect("a template");
        }
        let mut schema = json_schema(&settings);
        schema["anyOf"] = json!([{ "$ref": "#/$defs/DomainEvent" }]);
        let topic = jsonschema::draft202012::new(&schema).expect("a schema");
        assert!(topic.is_valid(&event("order.audited", "shop")));
        assert!(!topic.is_valid(&event("order.placed", "shop")), "it is the envelope's");
    }
}

//! Topics, keys, headers and values as an AsyncAPI 3.0 document.

use serde_json::{Map, Value, json};

use super::{
    channel::{Channel, Message, channels},
    header, value,
};
use crate::event::{Settings, outbox::PayloadForm};

/// Where the envelope stands in the document.
const ENVELOPE: &str = "#/components/schemas/DomainEvent";

/// The version of AsyncAPI's bindings to Kafka.
const BINDING_VERSION: &str = "0.5.0";

/// An AsyncAPI 3.0 document of the channels that events of these settings go to. A topic that a row's
/// values make is an address with parameters.
pub fn async_api(settings: &Settings) -> Value {
    let (mut all, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for channel in &channels(settings) {
        let id = name(&channel.address, &all);
        let names: Vec<String> =
            (0..channel.messages.len()).map(|ordinal| format!("{id}.{}", ordinal + 1)).collect();
        for (name, message) in names.iter().zip(&channel.messages) {
            messages.insert(name.clone(), of_message(settings, message));
        }
        let references = |place: &str| {
            names.iter().map(|it| json!({ "$ref": format!("{place}{it}") })).collect::<Vec<_>>()
        };
        operations.insert(
            format!("publish.{id}"),
            json!({
                "action": "send",
                "channel": { "$ref": format!("#/channels/{id}") },
                "messages": references(&format!("#/channels/{id}/messages/")),
            }),
        );
        let components = references("#/components/messages/");
        let of_channel = names.iter().cloned().zip(components).collect();
        all.insert(id, described(channel, of_channel));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": format!("Events of {}", settings.source),
            "version": "1.0",
            "description": "Published by Tailwater, exactly once for consumers that read with \
                            isolation.level=read_committed.",
        },
        "defaultContentType": "application/json",
        "channels": all,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": { "DomainEvent": value::domain_event() },
        },
    })
}

fn described(channel: &Channel, messages: Map<String, Value>) -> Value {
    let parameters = channel
        .parameters
        .iter()
        .map(|it| (it.name.clone(), json!({ "description": it.description })));
    let parameters: Map<String, Value> = parameters.collect();
    let mut described = json!({ "address": channel.address, "messages": messages });
    if !parameters.is_empty() {
        described["parameters"] = Value::Object(parameters);
    }
    described
}

fn of_message(settings: &Settings, message: &Message) -> Value {
    let origins = message.origins.join(", ");
    let form = match message.form {
        PayloadForm::Data => "the payload as the data of an envelope",
        PayloadForm::Envelope => "the envelope that the application wrote",
        PayloadForm::Bare => "the payload as it is",
    };
    json!({
        "title": format!("From {origins}"),
        "summary": format!("The value is {form}."),
        "contentType": "application/json",
        "correlationId": { "location": "$message.header#/correlation-id" },
        "headers": header::headers(settings, message),
        "payload": value::value(settings, message, ENVELOPE),
        "bindings": { "kafka": { "key": value::key(), "bindingVersion": BINDING_VERSION } },
    })
}

/// A name for references: the address without its braces, which mean something there. Two addresses
/// may differ in nothing else.
fn name(address: &str, taken: &Map<String, Value>) -> String {
    let plain: String = address.chars().filter(|letter| !"{}".contains(*letter)).collect();
    let mut name = plain.clone();
    let mut ordinal = 1;
    while taken.contains_key(&name) {
        ordinal += 1;
        name = format!("{plain}-{ordinal}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_differ_in_their_braces_have_names_of_their_own() {
        let mut taken = Map::new();
        for expected in ["domain.events", "domain.events-2", "domain.events-3"] {
            let name = name("{domain}.events", &taken);
            assert_eq!(name, expected);
            taken.insert(name, Value::Null);
        }
        assert_eq!(super::name("{type}", &taken), "type");
    }
}

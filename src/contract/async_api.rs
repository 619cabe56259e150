//! Topics, keys, headers and values as an AsyncAPI 3.0 document.

use serde_json::{Map, Value, json};

use super::{
    channel::{Channel, Contents, Message, channels},
    dead_letter, header, value,
};
use crate::{
    event::{EventError, Settings, outbox::PayloadForm, table::Description},
    sink::{DeadLetterTopics, kafka::Delivery},
};

/// Where the envelope stands in the document.
const ENVELOPE: &str = "#/components/schemas/DomainEvent";

/// The one message of all topics of dead letters. Those of events end with a number.
const DEAD_LETTER: &str = "DeadLetter";

/// The version of AsyncAPI's bindings to Kafka.
const BINDING_VERSION: &str = "0.5.0";

/// An AsyncAPI 3.0 document of the channels that events of these settings go to, and their dead
/// letters where there are such. A topic that a row's values make is an address with parameters.
///
/// # Errors
/// Where a table does not fit its settings.
pub fn async_api(
    settings: &Settings,
    tables: &[Description],
    delivery: Delivery,
    dead_letters: Option<&DeadLetterTopics>,
) -> Result<Value, EventError> {
    let (mut all, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    let channels = channels(settings, tables)?;
    for channel in &channels {
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
            operation(&id, references(&format!("#/channels/{id}/messages/"))),
        );
        let components = references("#/components/messages/");
        let of_channel = names.iter().cloned().zip(components).collect();
        all.insert(id, described(channel, of_channel));
    }
    let dead_letters = dead_letters.map(|topics| dead_letter::channels(topics, &channels));
    for channel in dead_letters.iter().flatten() {
        let id = name(&channel.address, &all);
        let place = format!("#/channels/{id}/messages/{DEAD_LETTER}");
        operations.insert(format!("publish.{id}"), operation(&id, vec![json!({ "$ref": place })]));
        let component = json!({ "$ref": format!("#/components/messages/{DEAD_LETTER}") });
        let of_channel = Map::from_iter([(DEAD_LETTER.to_owned(), component)]);
        all.insert(id, described(channel, of_channel));
        messages.insert(DEAD_LETTER.to_owned(), dead_letter::message(BINDING_VERSION));
    }
    Ok(json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": format!("Events of {}", settings.source),
            "version": "1.0",
            "description": guarantee(delivery),
        },
        "defaultContentType": "application/json",
        "channels": all,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": { "DomainEvent": value::domain_event() },
        },
    }))
}

/// What consumers must reckon with.
fn guarantee(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::ExactlyOnce => {
            "Published by Tailwater, exactly once for consumers that read with \
             isolation.level=read_committed."
        }
        Delivery::AtLeastOnce => {
            "Published by Tailwater, at least once: after a crash events may come again, with the \
             ids that they had."
        }
    }
}

fn operation(channel: &str, messages: Vec<Value>) -> Value {
    json!({
        "action": "send",
        "channel": { "$ref": format!("#/channels/{channel}") },
        "messages": messages,
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
    let form = match message.contents {
        Contents::Payload(PayloadForm::Data) => "the payload as the data of an envelope",
        Contents::Payload(PayloadForm::Envelope) => "the envelope that the application wrote",
        Contents::Payload(PayloadForm::Bare) => "the payload as it is",
        Contents::Rows { .. } => "an envelope, whose data is made of rows",
        Contents::Tombstone { .. } => "null",
    };
    json!({
        "title": message.title(),
        "summary": format!("The value is {form}."),
        "contentType": "application/json",
        "correlationId": { "location": "$message.header#/correlation-id" },
        "headers": header::headers(settings, message),
        "payload": value::value(settings, message, ENVELOPE),
        "bindings": { "kafka": { "key": value::key(message), "bindingVersion": BINDING_VERSION } },
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
    use crate::event::fixture::Outbox;

    fn document(delivery: Delivery, dead_letters: Option<&str>) -> Value {
        let settings = Settings {
            source: "shop".to_owned(),
            outboxes: vec![Outbox::of(PayloadForm::Data).settings()],
            messages: Vec::new(),
            tables: Vec::new(),
            routes: Vec::new(),
        };
        let topics = dead_letters
            .map(|template| DeadLetterTopics::new(template.to_owned(), "shop".to_owned()));
        async_api(&settings, &[], delivery, topics.as_ref()).expect("a document")
    }

    #[test]
    fn the_guarantee_is_that_of_the_settings() {
        for (delivery, said, other) in [
            (Delivery::ExactlyOnce, "exactly once", "at least once"),
            (Delivery::AtLeastOnce, "at least once", "exactly once"),
        ] {
            let document = document(delivery, None);
            let text = document["info"]["description"].as_str().expect("a text");
            assert!(text.contains(said) && !text.contains(other), "{text}");
        }
    }

    #[test]
    fn topics_of_dead_letters_are_channels_where_there_are_such() {
        for (template, expected) in [
            (None, vec!["{domain}.events"]),
            (Some("{topic}.dlq"), vec!["{domain}.events", "{domain}.events.dlq", "shop.dlq"]),
            (Some("dead"), vec!["dead", "{domain}.events"]),
        ] {
            let document = document(Delivery::ExactlyOnce, template);
            let channels = document["channels"].as_object().expect("channels");
            let mut addresses: Vec<&str> =
                channels.values().filter_map(|it| it["address"].as_str()).collect();
            addresses.sort_unstable();
            let mut expected = expected;
            expected.sort_unstable();
            assert_eq!(addresses, expected);
            let operations = document["operations"].as_object().expect("operations");
            assert_eq!(operations.len(), channels.len());
        }
    }

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

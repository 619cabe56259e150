//! Topics of dead letters, and the records in them.

use serde_json::{Value, json};

use super::{
    channel::{Channel, Parameter},
    value,
};
use crate::{
    event::OwnHeader,
    sink::{
        DeadLetterTopics, FAILURE_REASON, FAILURE_STAGE, FailureStage, ORIGINAL_PREFIX,
        ORIGINAL_TABLE, ORIGINAL_TOPIC,
    },
};

/// Where dead letters of these channels go, and those for which no topic could be made. Where one of them
/// is a topic of events too, it is not named a second time.
pub(super) fn channels(topics: &DeadLetterTopics, events: &[Channel]) -> Vec<Channel> {
    let mut found: Vec<Channel> = Vec::new();
    let mut add = |address: String, parameters: &[Parameter]| {
        let mut known = events.iter().chain(&found);
        if known.all(|channel| channel.address != address) {
            // A topic for all has no place to fill.
            let is_filled = |it: &&Parameter| address.contains(&format!("{{{}}}", it.name));
            let parameters = parameters.iter().filter(is_filled).cloned().collect();
            found.push(Channel { address, parameters, messages: Vec::new() });
        }
    };
    for channel in events {
        add(topics.of(Some(&channel.address)), &channel.parameters);
    }
    add(topics.of(None), &[]);
    found
}

/// A dead letter, as AsyncAPI describes a message.
pub(super) fn message(binding_version: &str) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let [lsn, seq, xid] = [OwnHeader::PgLsn, OwnHeader::PgSeq, OwnHeader::PgXid];
    json!({
        "title": "Dead letter",
        "summary": "What could not be published, with the reason.",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": [FAILURE_REASON, FAILURE_STAGE, lsn.name()],
            "properties": {
                FAILURE_REASON: text("Why, in words."),
                FAILURE_STAGE: { "enum": FailureStage::ALL.map(FailureStage::word) },
                ORIGINAL_TOPIC: text("Where it was to go. Absent where that is not known."),
                ORIGINAL_TABLE: text("Whose row it is."),
                ORIGINAL_PREFIX: text("Which message it is."),
                lsn.name(): text(
                    "Where the commit record of its transaction begins. Without pg-seq: where the \
                     log was when the row was read."
                ),
                seq.name(): text(
                    "The ordinal that the event would have had. Absent where the row was there \
                     before."
                ),
                xid.name(): text(
                    "The transaction's identifier. Absent where the row was there before."
                ),
            },
        },
        "payload": {
            "description": "The record that is too large; or the row as an object of its columns' \
                            texts; or the message as an object of prefix and content."
        },
        "bindings": { "kafka": { "key": value::key_of_dead_letter(), "bindingVersion": binding_version } },
    })
}

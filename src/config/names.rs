//! Tables whose keys are not ours: Kafka's properties, headers, a topic's configuration.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use serde_json::{Value as Json, json};

use super::{
    document::{Node, Value, join},
    mistake::{Mistakes, Origin},
    section::Read,
};
use crate::sink::kafka::PROTECTED_PROPERTIES;

/// What is expected of such a table.
const NAMES_EXPECTED: &str = "a table of names and texts";

/// Names of Kafka's or the user's own, each with a text, and where each was given.
#[derive(Clone, Default, Debug)]
pub(super) struct Names(BTreeMap<String, (String, Origin)>);

impl Names {
    /// Without the places.
    pub(super) fn texts(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, (text, _))| (name.clone(), text.clone())).collect()
    }

    /// Each name, and where it was given.
    pub(super) fn places(&self) -> impl ExactSizeIterator<Item = (&str, &Origin)> {
        self.0.iter().map(|(name, (_, origin))| (name.as_str(), origin))
    }

    /// Kafka's names have dots, which TOML reads as tables within tables where they are not in
    /// quotes: both are the same here.
    fn gather(&mut self, table: &BTreeMap<String, Node>, prefix: &str) -> Vec<(String, Origin)> {
        let mut unfit = Vec::new();
        for (name, node) in table {
            let name = join(prefix, name);
            let text = match &node.value {
                Value::Table(inner) => {
                    unfit.extend(self.gather(inner, &name));
                    continue;
                }
                Value::Text(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Boolean(boolean) => boolean.to_string(),
                Value::List(_) | Value::Other(_) | Value::Mistaken => {
                    unfit.push((name, node.origin.clone()));
                    continue;
                }
            };
            self.0.insert(name, (text, node.origin.clone()));
        }
        unfit
    }
}

impl Read for Names {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            let problem = format!("must be {NAMES_EXPECTED}, not {}", node.value.kind());
            mistakes.add(&node.origin, key, problem);
            return None;
        };
        let mut names = Self::default();
        let unfit = names.gather(table, "");
        for (name, origin) in &unfit {
            mistakes.add(origin, &join(key, name), "must be a text, a number, true or false");
        }
        unfit.is_empty().then_some(names)
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn expected(_key: &str) -> String {
        NAMES_EXPECTED.to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": {
            "type": ["string", "integer", "boolean", "object"],
        } })
    }
}

/// `kafka.properties`: librdkafka's, but those that the guarantee rests on.
#[derive(Clone, Default, Debug)]
pub(super) struct Properties(pub(super) Names);

impl Read for Properties {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let names = Names::read(node, key, mistakes)?;
        let mut are_right = true;
        for (name, (value, origin)) in &names.0 {
            if let Err(problem) = check_property(name, value) {
                mistakes.add(origin, &join(key, name), problem);
                are_right = false;
            }
        }
        are_right.then_some(Self(names))
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn expected(_key: &str) -> String {
        NAMES_EXPECTED.to_owned()
    }

    fn schema() -> Json {
        Names::schema()
    }
}

/// What is wrong with it, without the value: it may be a password.
fn check_property(name: &str, value: &str) -> Result<(), String> {
    use rdkafka::{
        error::KafkaError::ClientConfig as Refused, types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
    };
    if let Some((_, reason)) = PROTECTED_PROPERTIES.iter().find(|(known, _)| *known == name) {
        return Err(format!("cannot be set: {reason}"));
    }
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(Refused(RD_KAFKA_CONF_UNKNOWN, ..)) => {
            Err("is no property of librdkafka, or not of this build".to_owned())
        }
        Err(Refused(_, description, ..)) => {
            Err(format!("has a value that librdkafka refuses: {description}"))
        }
        Err(error) => Err(format!("is refused by librdkafka: {error}")),
    }
}

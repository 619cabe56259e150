//! The topics that records go to, each looked up at its first record.
//!
//! A topic's partitions are counted once in a sink's life. Where they are made more meanwhile, keys
//! stay where they were until the next start: a key that moved while records of it are in flight
//! would lose its order.

use std::{collections::BTreeSet, sync::Arc};

use tracing::info;

use crate::sink::{
    TopicId,
    kafka::{
        Cancel, Kafka, KafkaError,
        administration::{Brokers, NewTopic},
        native::Topic,
        producer::Producer,
        settings::Settings,
    },
};

/// Kafka's default of `message.max.bytes`, which stands where the topic's cannot be asked for.
const MESSAGE_BYTES_MAX: usize = 1_048_588;

/// A topic that records can be produced to.
#[derive(Debug)]
pub(super) struct KnownTopic {
    /// A handle of each producer's, in their order.
    pub(super) handles: Vec<Topic>,
    pub(super) name: Arc<str>,
    pub(super) partitions: u32,
    /// Its `max.message.bytes`.
    pub(super) bytes_max: usize,
    /// Bytes produced since everything was last known to be answered; counted only where a batch
    /// could exceed the topic's limit.
    pub(super) unanswered_bytes: usize,
}

/// A topic by its caller's number.
#[derive(Clone, Debug)]
enum Entry {
    Unannounced,
    Announced(Arc<str>),
    /// Its place among those that are known.
    Known(usize),
}

/// All topics of a sink, by the numbers that its caller gave them.
#[derive(Debug, Default)]
pub(super) struct Topics {
    entries: Vec<Entry>,
    known: Vec<KnownTopic>,
}

impl Topics {
    /// Names a topic.
    pub(super) fn announce(&mut self, id: TopicId, name: &Arc<str>) {
        let index = id.0 as usize;
        if self.entries.len() <= index {
            self.entries.resize(index + 1, Entry::Unannounced);
        }
        if let Some(entry @ Entry::Unannounced) = self.entries.get_mut(index) {
            *entry = Entry::Announced(Arc::clone(name));
        }
    }

    /// The topic, looked up or made where this is its first record.
    pub(super) fn known(
        &mut self,
        id: TopicId,
        producers: &[Producer],
        settings: &Settings,
        cancel: &Cancel,
    ) -> Result<&mut KnownTopic, KafkaError> {
        const ANNOUNCED: &str = "a topic is announced before its first record";
        let entry = self.entries.get(id.0 as usize).expect(ANNOUNCED).clone();
        let place = match entry {
            Entry::Unannounced => unreachable!("{ANNOUNCED}"),
            Entry::Known(place) => place,
            Entry::Announced(name) => {
                let place = self.place(&name, producers, settings, cancel)?;
                *self.entries.get_mut(id.0 as usize).expect(ANNOUNCED) = Entry::Known(place);
                place
            }
        };
        Ok(self.known.get_mut(place).expect("places are of known topics"))
    }

    /// Where the topic of that name lies among those that are known.
    fn place(
        &mut self,
        name: &Arc<str>,
        producers: &[Producer],
        settings: &Settings,
        cancel: &Cancel,
    ) -> Result<usize, KafkaError> {
        if let Some(place) = self.known.iter().position(|known| known.name == *name) {
            return Ok(place);
        }
        self.known.push(look_up(name, producers, settings, cancel)?);
        Ok(self.known.len() - 1)
    }

    /// Everything was answered.
    pub(super) fn all_answered(&mut self) {
        for topic in &mut self.known {
            topic.unanswered_bytes = 0;
        }
    }
}

impl Kafka {
    /// Looks topics up, and makes those that are missing.
    ///
    /// # Errors
    /// [`KafkaError::TopicMissing`] where one may not or cannot be made.
    pub fn ensure_topics(&self, names: &BTreeSet<String>) -> Result<(), KafkaError> {
        let (cancel, settings) = (&self.cancel, &self.settings);
        let [first, _] = &self.producers;
        let client = first.client();
        let brokers = Brokers { client, cancel, administration: settings.administration };
        for name in names {
            if brokers.partitions(name)?.is_none() {
                make(name, &brokers, settings)?;
            }
        }
        Ok(())
    }
}

fn look_up(
    name: &Arc<str>,
    producers: &[Producer],
    settings: &Settings,
    cancel: &Cancel,
) -> Result<KnownTopic, KafkaError> {
    let client = producers.first().expect("a sink has a producer").client();
    let brokers = Brokers { client, cancel, administration: settings.administration };
    let partitions = match brokers.partitions(name)? {
        Some(partitions) => partitions,
        None => make(name, &brokers, settings)?,
    };
    let bytes_max = brokers
        .configuration(name)?
        .and_then(|entries| entries.get("max.message.bytes")?.parse().ok())
        .unwrap_or(MESSAGE_BYTES_MAX);
    let handle = |producer: &Producer| Topic::new(producer.client().native_ptr(), name);
    let handles = producers.iter().map(handle).collect::<Result<_, _>>()?;
    let name = Arc::clone(name);
    Ok(KnownTopic { handles, name, partitions, bytes_max, unanswered_bytes: 0 })
}

fn make(name: &str, brokers: &Brokers<'_>, settings: &Settings) -> Result<u32, KafkaError> {
    let topic = NewTopic {
        name,
        partitions: settings.topic.partitions.unwrap_or(-1),
        replication_factor: settings.topic.replication_factor.unwrap_or(-1),
        config: &settings.topic.config,
    };
    if !settings.create_topics {
        let (topic, command) = (name.to_owned(), topic.command());
        return Err(KafkaError::TopicMissing { topic, reason: None, command });
    }
    let partitions = brokers.create(&topic)?;
    info!(topic = name, partitions, "topic created");
    Ok(partitions)
}

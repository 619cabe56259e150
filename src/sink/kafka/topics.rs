//! The topics that records go to, each looked up at its first record.
//!
//! Of each partition it is known whether the brokers know our sequence numbers in it ([`Numbering`]).
//!
//! A topic's partitions are counted once in a sink's life. Where they are made more meanwhile, keys
//! stay where they were until the next start: a key that moved while records of it are in flight
//! would lose its order.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::info;

use crate::sink::{
    NewTopic, TopicId, TopicUse,
    kafka::{
        Cancel, Kafka, KafkaError,
        administration::{self, Brokers},
        native::Topic,
        producer::Producer,
        settings::{Settings, TopicSettings},
    },
};

/// Kafka's default of `message.max.bytes`, which stands where the topic's cannot be asked for.
const MESSAGE_BYTES_MAX: usize = 1_048_588;

/// The property of a topic that bounds its records.
const LIMIT: &str = "max.message.bytes";

/// What a dead letter's headers take beside those of the event, generously.
const DEAD_LETTER_HEADERS_BYTES: usize = 64 * 1024;

/// A topic that records can be produced to.
#[derive(Debug)]
pub(super) struct KnownTopic {
    /// A handle of each producer's, in their order.
    pub(super) handles: Vec<Topic>,
    pub(super) name: Arc<str>,
    pub(super) topic_use: TopicUse,
    pub(super) partitions: u32,
    /// Its `max.message.bytes`.
    pub(super) bytes_max: usize,
    /// Bytes produced since everything was last known to be answered; counted only where a batch
    /// could exceed the topic's limit.
    pub(super) unanswered_bytes: usize,
    /// How far each producer's numbers are known to each partition, by producer.
    numbering: Vec<Vec<Numbering>>,
}

/// Whether the brokers know a producer's sequence numbers in a partition.
///
/// A broker that knows none takes a request with any. So of two first requests that are under way
/// the second may be taken while the first is refused for a passing reason (a leader that was just
/// elected, too few replicas), and librdkafka takes the second's success for the first's too
/// (C name `rd_kafka_dr_implicit_ack`): its records would be lost, and count as delivered. Behind an
/// answered one a gap is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Numbering {
    Unknown,
    /// A first record was sent and is not known to be answered.
    Asked,
    /// Answered, at that time or later.
    Known(Instant),
}

/// Brokers forget the numbers of a producer that is silent for a day
/// (`producer.id.expiration.ms`); well before that they count as forgotten.
const NUMBERING_KEPT: Duration = Duration::from_secs(3600);

impl KnownTopic {
    /// Whether a record may follow what is under way, from this producer into this partition. If
    /// not, everything must be answered first.
    pub(super) fn may_follow(&mut self, producer: usize, partition: i32, now: Instant) -> bool {
        let numbering = usize::try_from(partition)
            .ok()
            .and_then(|partition| self.numbering.get_mut(producer)?.get_mut(partition));
        match numbering {
            Some(Numbering::Asked) => false,
            Some(known @ Numbering::Known(_)) => {
                let Numbering::Known(at) = *known else { return true };
                *known = match now.saturating_duration_since(at) < NUMBERING_KEPT {
                    true => Numbering::Known(now),
                    false => Numbering::Asked,
                };
                true
            }
            Some(unknown @ Numbering::Unknown) => {
                *unknown = Numbering::Asked;
                true
            }
            // There is no such partition: the brokers say so.
            None => true,
        }
    }

    fn all_answered(&mut self, now: Instant) {
        self.unanswered_bytes = 0;
        for numbering in self.numbering.iter_mut().flatten() {
            if *numbering == Numbering::Asked {
                *numbering = Numbering::Known(now);
            }
        }
    }
}

/// Where a topic lies among those that are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

/// A topic by its caller's number.
#[derive(Clone, Debug)]
enum Entry {
    Unannounced,
    Announced(Arc<str>, TopicUse),
    Known(Place),
}

/// All topics of a sink, by the numbers that its caller gave them.
#[derive(Debug, Default)]
pub(super) struct Topics {
    entries: Vec<Entry>,
    known: Vec<KnownTopic>,
}

impl Topics {
    /// Names a topic. What was announced last under a number counts: the rows that come before the
    /// stream are numbered by another encoder than its events.
    pub(super) fn announce(&mut self, topic: &NewTopic) {
        let index = topic.id.0 as usize;
        if self.entries.len() <= index {
            self.entries.resize(index + 1, Entry::Unannounced);
        }
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = Entry::Announced(Arc::clone(&topic.name), topic.topic_use);
        }
    }

    /// Where a topic lies among those that are known; looked up or made where this is its first
    /// record.
    pub(super) fn place_of(
        &mut self,
        id: TopicId,
        lookup: Lookup<'_>,
    ) -> Result<Place, KafkaError> {
        const ANNOUNCED: &str = "a topic is announced before its first record";
        let entry = self.entries.get(id.0 as usize).expect(ANNOUNCED).clone();
        Ok(match entry {
            Entry::Unannounced => unreachable!("{ANNOUNCED}"),
            Entry::Known(place) => place,
            Entry::Announced(name, topic_use) => {
                let place = self.place(&name, topic_use, lookup)?;
                *self.entries.get_mut(id.0 as usize).expect(ANNOUNCED) = Entry::Known(place);
                place
            }
        })
    }

    /// Where the topic of dead letters of that name lies; looked up or made where this is its first
    /// record.
    pub(super) fn place_of_dead_letters(
        &mut self,
        name: &str,
        lookup: Lookup<'_>,
    ) -> Result<Place, KafkaError> {
        self.place(&Arc::from(name), TopicUse::DeadLetters, lookup)
    }

    /// The topic there.
    pub(super) fn at(&mut self, Place(place): Place) -> &mut KnownTopic {
        self.known.get_mut(place).expect("places are of known topics")
    }

    /// Where the topic of that name lies among those that are known.
    fn place(
        &mut self,
        name: &Arc<str>,
        topic_use: TopicUse,
        lookup: Lookup<'_>,
    ) -> Result<Place, KafkaError> {
        if let Some(place) = self.known.iter().position(|known| known.name == *name) {
            return Ok(Place(place));
        }
        self.known.push(lookup.look_up(name, topic_use)?);
        Ok(Place(self.known.len() - 1))
    }

    /// Everything was answered.
    pub(super) fn all_answered(&mut self) {
        let now = Instant::now();
        self.known.iter_mut().for_each(|topic| topic.all_answered(now));
    }
}

impl Kafka {
    /// How topics of that use are made.
    pub fn topic_settings(&self, topic_use: TopicUse) -> TopicSettings {
        let config = config_for(topic_use, &self.settings, self.record_bytes_max()).into_owned();
        TopicSettings { config, ..self.settings.topic.clone() }
    }

    /// What a topic of dead letters must take, in bytes: the largest record that may be refused
    /// elsewhere, and the headers that say why.
    pub fn dead_letter_bytes_max(&self) -> usize {
        self.record_bytes_max() + DEAD_LETTER_HEADERS_BYTES
    }

    /// Looks topics up, and makes those that are missing.
    ///
    /// # Errors
    /// [`KafkaError::TopicMissing`] where one may not or cannot be made.
    pub fn ensure_topics(
        &self,
        names: &BTreeSet<String>,
        topic_use: TopicUse,
    ) -> Result<(), KafkaError> {
        let (cancel, settings) = (&self.cancel, &self.settings);
        let [first, _] = &self.producers;
        let client = first.client();
        let brokers = Brokers { client, cancel, administration: settings.administration };
        for name in names {
            if brokers.partitions(name)?.is_none() {
                let config = config_for(topic_use, settings, self.record_bytes_max());
                make(name, &brokers, settings, &config)?;
            }
        }
        Ok(())
    }
}

/// What looking a topic up takes.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    /// Each gets a handle; the first one asks.
    pub(super) producers: &'a [Producer],
    pub(super) settings: &'a Settings,
    /// The largest record that the producers take.
    pub(super) record_bytes_max: usize,
    pub(super) cancel: &'a Cancel,
}

impl Lookup<'_> {
    fn look_up(self, name: &Arc<str>, topic_use: TopicUse) -> Result<KnownTopic, KafkaError> {
        let Self { producers, settings, record_bytes_max, cancel } = self;
        let client = producers.first().expect("a sink has a producer").client();
        let brokers = Brokers { client, cancel, administration: settings.administration };
        let config = config_for(topic_use, settings, record_bytes_max);
        let limit_of = |entries: &BTreeMap<String, String>| entries.get(LIMIT)?.parse().ok();
        // Where the brokers do not tell it, what was just made has what was asked for.
        let (partitions, otherwise) = match brokers.partitions(name)? {
            Some(partitions) => (partitions, None),
            None => (make(name, &brokers, settings, &config)?, limit_of(&config)),
        };
        let told = brokers.configuration(name)?.as_ref().and_then(limit_of);
        let bytes_max = told.or(otherwise).unwrap_or(MESSAGE_BYTES_MAX);
        let handle = |producer: &Producer| Topic::new(producer.client().native_ptr(), name);
        let handles = producers.iter().map(handle).collect::<Result<_, _>>()?;
        Ok(KnownTopic {
            handles,
            name: Arc::clone(name),
            topic_use,
            partitions,
            bytes_max,
            unanswered_bytes: 0,
            numbering: vec![vec![Numbering::Unknown; partitions as usize]; producers.len()],
        })
    }
}

/// How a topic is made.
fn config_for(
    topic_use: TopicUse,
    settings: &Settings,
    record_bytes_max: usize,
) -> Cow<'_, BTreeMap<String, String>> {
    let mut config = Cow::Borrowed(&settings.topic.config);
    match topic_use {
        TopicUse::Events => {}
        TopicUse::DeadLetters => {
            // What a topic of events may refuse, this one must take.
            let bytes = record_bytes_max + DEAD_LETTER_HEADERS_BYTES;
            let limit = config.get(LIMIT).and_then(|text| text.trim().parse().ok());
            if limit.is_none_or(|limit: usize| limit < bytes) {
                config.to_mut().insert(LIMIT.to_owned(), bytes.to_string());
            }
            // Compacted, a key's second dead letter would remove its first.
            config.to_mut().insert("cleanup.policy".to_owned(), "delete".to_owned());
        }
    }
    config
}

fn make(
    name: &str,
    brokers: &Brokers<'_>,
    settings: &Settings,
    config: &BTreeMap<String, String>,
) -> Result<u32, KafkaError> {
    let topic = administration::NewTopic {
        name,
        partitions: settings.topic.partitions.unwrap_or(-1),
        replication_factor: settings.topic.replication_factor.unwrap_or(-1),
        config,
    };
    if !settings.create_topics {
        let (topic, command) = (name.to_owned(), topic.command());
        return Err(KafkaError::TopicMissing { topic, reason: None, command });
    }
    let partitions = brokers.create(&topic)?;
    info!(topic = name, partitions, "topic created");
    Ok(partitions)
}

//! What the Kafka side is told.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::sink::{DeadLetterTopics, kafka::Partitioner};

/// All that a connection to Kafka needs.
#[derive(Clone)]
pub struct Settings {
    /// `kafka.brokers`: host:port, separated by commas.
    pub brokers: String,
    /// librdkafka's properties as the user gave them, free of
    /// [`PROTECTED_PROPERTIES`](super::PROTECTED_PROPERTIES). May hold secrets.
    pub properties: BTreeMap<String, String>,
    /// One per slot: whoever initialises it last fences all others.
    pub transactional_id: String,
    /// How often each event is there.
    pub delivery: Delivery,
    /// Where checkpoint records go: partition 0 of it.
    pub checkpoint_topic: String,
    /// Which partition a key belongs to.
    pub partitioner: Partitioner,
    /// Under load a Kafka transaction is committed at the first cut after this time.
    pub transaction_interval: Duration,
    /// Under load a Kafka transaction is committed before it would hold more than this.
    pub transaction_bytes: usize,
    /// Whether missing topics are made.
    pub create_topics: bool,
    /// How missing topics are made.
    pub topic: TopicSettings,
    /// Where records go that are too large for their topics; none where they are refused.
    pub dead_letters: Option<DeadLetterTopics>,
    /// Whether the brokers can be administered.
    pub administration: Administration,
}

/// The guarantee.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Delivery {
    /// Events and their checkpoint become visible in one Kafka transaction.
    #[default]
    ExactlyOnce,
    /// An event becomes visible as soon as the brokers have it; what is behind the latest checkpoint
    /// comes again after a crash.
    AtLeastOnce,
}

/// How missing topics are made; the broker's defaults where not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// How many partitions.
    pub partitions: Option<i32>,
    /// How many replicas.
    pub replication_factor: Option<i32>,
    /// The topic's configuration.
    pub config: BTreeMap<String, String>,
}

/// Whether topics can be made and described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Administration {
    /// Apache Kafka.
    Full,
    /// librdkafka's in-process mock cluster: topics come into being when asked for, their limits
    /// are Kafka's defaults, and nothing can be said of their policy.
    Absent,
}

impl fmt::Debug for Settings {
    /// Names the properties and leaves out their values: some are passwords.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys())
            .field("transactional_id", &self.transactional_id)
            .field("checkpoint_topic", &self.checkpoint_topic)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

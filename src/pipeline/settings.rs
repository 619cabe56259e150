//! What a pipeline is told: one source, one slot, one transactional id.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    event, postgres,
    postgres::{PublicationName, SlotName, TableName},
    sink::kafka::{self, Administration, Partitioner, TopicSettings},
};

/// A pipeline's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The envelope's `source`, and the checkpoint's.
    pub source: String,
    /// Where the database is.
    pub postgres: postgres::Settings,
    /// The slot.
    pub slot: SlotName,
    /// The publication.
    pub publication: PublicationName,
    /// Whether the slot survives a failover (PostgreSQL 17 and later).
    pub failover: bool,
    /// The outbox tables.
    pub tables: Vec<TableName>,
    /// How long rows stay in some of them.
    pub retentions: Vec<Retention>,
    /// How rows become events.
    pub event: event::Settings,
    /// Where events go.
    pub kafka: KafkaSettings,
}

/// How long rows stay in an outbox table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retention {
    /// The table.
    pub table: TableName,
    /// Its key.
    pub id: String,
    /// When a row was made.
    pub created_at: String,
    /// Older rows are deleted.
    pub age: Duration,
}

/// The part of the Kafka settings that does not depend on the database's identity.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// librdkafka properties, screened.
    pub properties: BTreeMap<String, String>,
    /// The compacted topic.
    pub checkpoint_topic: String,
    /// How a key becomes a partition.
    pub partitioner: Partitioner,
    /// How long a Kafka transaction gathers under load.
    pub transaction_interval: Duration,
    /// How large a Kafka transaction becomes, and from where on a PostgreSQL transaction is split.
    pub transaction_bytes: usize,
    /// Whether missing topics are made.
    pub create_topics: bool,
    /// How they are made.
    pub topic: TopicSettings,
    /// What the broker can be asked.
    pub administration: Administration,
}

impl Settings {
    /// Kafka's settings for the intent of a first start, which must not fence whoever publishes: an
    /// id of its own. A slot's name has no slash, so it is nobody else's.
    pub(super) fn kafka_for_intent(&self, system_id: &str) -> kafka::Settings {
        let mut settings = self.kafka_for(system_id);
        settings.transactional_id.push_str("/intent");
        settings
    }

    /// The topics that are known before any event: those of templates without places to fill but a
    /// table's own.
    pub(super) fn known_topics(&self) -> BTreeSet<String> {
        let outboxes = self.event.outboxes.iter();
        let known = outboxes.filter_map(|outbox| {
            let (schema, table) = &outbox.table;
            let topic = outbox.topic.for_table(schema, table).ok()?;
            topic.literal().map(str::to_owned)
        });
        let routes = self.event.routes.iter().filter_map(|route| route.topic.literal());
        let messages = self.event.messages.iter().filter_map(|message| message.topic.literal());
        known.chain(messages.chain(routes).map(str::to_owned)).collect()
    }

    /// Kafka's settings for one database. Two clusters with default names share one Kafka without
    /// meeting, because the system id is part of the transactional id.
    pub(super) fn kafka_for(&self, system_id: &str) -> kafka::Settings {
        let KafkaSettings { brokers, properties, checkpoint_topic, .. } = self.kafka.clone();
        kafka::Settings {
            brokers,
            properties,
            checkpoint_topic,
            transactional_id: format!(
                "tailwater-{system_id}-{}-{}",
                self.postgres.database, self.slot
            ),
            partitioner: self.kafka.partitioner,
            transaction_interval: self.kafka.transaction_interval,
            transaction_bytes: self.kafka.transaction_bytes,
            create_topics: self.kafka.create_topics,
            topic: self.kafka.topic.clone(),
            administration: self.kafka.administration,
        }
    }
}

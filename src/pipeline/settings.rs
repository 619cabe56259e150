//! What a pipeline is told: one source, one slot, one transactional id.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    checkpoint::CheckpointKey,
    event, postgres,
    postgres::{PublicationName, SlotName, TableName, publication::Operations},
    sink::{
        DeadLetterTopics,
        kafka::{self, Administration, Delivery, Partitioner, TopicSettings},
    },
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
    /// How much WAL the slot may hold before that is warned of.
    pub retained_wal_bytes_max: Option<u64>,
    /// The tables that are configured by their names: outboxes and domain tables.
    pub tables: Vec<TableName>,
    /// How long rows stay in some of them.
    pub retentions: Vec<Retention>,
    /// How rows become events.
    pub event: event::Settings,
    /// Where events go that cannot be published; none where the first of them stops the daemon.
    pub dead_letters: Option<DeadLetterTopics>,
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
    /// How often each event is there.
    pub delivery: Delivery,
    /// The compacted topic.
    pub checkpoint_topic: String,
    /// How a key becomes a partition.
    pub partitioner: Partitioner,
    /// How long a Kafka transaction gathers under load.
    pub transaction_interval: Duration,
    /// How large a Kafka transaction becomes, and from where on a PostgreSQL transaction is split.
    pub transaction_bytes: usize,
    /// What becomes of a PostgreSQL transaction above that size.
    pub large_transactions: LargeTransactions,
    /// How long the slot is held while something waits for Kafka and nothing is taken.
    pub outage_grace: Duration,
    /// Whether missing topics are made.
    pub create_topics: bool,
    /// How they are made.
    pub topic: TopicSettings,
    /// What the broker can be asked.
    pub administration: Administration,
}

/// What becomes of a PostgreSQL transaction whose events exceed `kafka.transaction_bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LargeTransactions {
    /// It is published in parts.
    #[default]
    Split,
    /// It is one Kafka transaction all the same, as far as the brokers' time-out reaches.
    Atomic,
}

impl Settings {
    /// Whether rows of that table become events.
    pub(super) fn is_configured(&self, table: &TableName) -> bool {
        self.event.is_configured(&table.schema, &table.name)
    }

    /// What the publication has to publish for these tables.
    pub(super) fn operations(&self, tables: &[TableName]) -> Operations {
        let is_domain_table =
            |table: &TableName| self.event.table(&table.schema, &table.name).is_some();
        match tables {
            [] => Operations::None,
            tables if tables.iter().any(is_domain_table) => Operations::All,
            [..] => Operations::Inserts,
        }
    }

    /// The key of the checkpoint on one cluster.
    pub(super) fn checkpoint_key(&self, system_id: &str) -> CheckpointKey {
        CheckpointKey {
            system_id: system_id.to_owned(),
            database: self.postgres.database.clone(),
            slot: self.slot.to_string(),
        }
    }

    /// Kafka's settings for a trial of what the brokers allow: an id of its own, which fences nobody,
    /// behind the prefix of all ids of this pipeline.
    pub(super) fn kafka_for_trial(&self, system_id: &str) -> kafka::Settings {
        let mut settings = self.kafka_for(system_id);
        settings.transactional_id.push_str("/check");
        settings
    }

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
        let tables = self.event.tables.iter().filter_map(|table| {
            let (schema, name) = table.name.exact()?;
            table.topic.for_table(schema, name).ok()?.literal().map(str::to_owned)
        });
        known.chain(tables).chain(messages.chain(routes).map(str::to_owned)).collect()
    }

    /// The topics of dead letters that are known before any event.
    pub(super) fn known_dead_letter_topics(&self) -> BTreeSet<String> {
        let of = |topics: &DeadLetterTopics| {
            let known = self.known_topics();
            let known = known.iter().map(|topic| Some(topic.as_str()));
            known.chain([None]).map(|topic| topics.of(topic)).collect()
        };
        self.dead_letters.as_ref().map(of).unwrap_or_default()
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
            delivery: self.kafka.delivery,
            partitioner: self.kafka.partitioner,
            transaction_interval: self.kafka.transaction_interval,
            transaction_bytes: self.kafka.transaction_bytes,
            create_topics: self.kafka.create_topics,
            topic: self.kafka.topic.clone(),
            dead_letters: self.dead_letters.clone(),
            administration: self.kafka.administration,
        }
    }
}

//! The demo's Kafka: librdkafka's in-process mock cluster, or a real one.
//!
//! The mock cluster speaks the protocol, so other programs can read from it; its transactions are
//! accepted and mean nothing, so it proves nothing of them.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};

use super::DemoError;
use crate::sink::kafka::Administration;

/// How many partitions the events get on the mock cluster.
const PARTITIONS: i32 = 4;

/// How long a real Kafka may take to make a topic.
const CREATION_MAX: Duration = Duration::from_secs(10);

/// Where the events go.
pub(super) enum Broker {
    /// Within this process, as long as this lives.
    Embedded(MockCluster<'static, DefaultProducerContext>),
    /// Elsewhere: `host:port`, separated by commas.
    Real(String),
}

impl Broker {
    /// Starts the embedded one, where none is named.
    pub(super) fn start(brokers: Option<String>) -> Result<Self, DemoError> {
        let Some(brokers) = brokers else {
            let cluster = MockCluster::new(1).map_err(failed("start the embedded broker"))?;
            return Ok(Self::Embedded(cluster));
        };
        Ok(Self::Real(brokers))
    }

    /// `bootstrap.servers`.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Embedded(cluster) => cluster.bootstrap_servers(),
            Self::Real(brokers) => brokers.clone(),
        }
    }

    /// What it can be asked.
    pub(super) fn administration(&self) -> Administration {
        match self {
            Self::Embedded(_) => Administration::Absent,
            Self::Real(_) => Administration::Full,
        }
    }

    /// Makes a topic, unless it is there: the reader wants to know where it ends before the first
    /// event.
    pub(super) async fn ensure_topic(&self, name: &str) -> Result<(), DemoError> {
        match self {
            Self::Embedded(cluster) => {
                cluster.create_topic(name, PARTITIONS, 1).map_err(failed("create the topic"))
            }
            Self::Real(brokers) => {
                create(brokers, name).await.map_err(failed("create the topic on the brokers"))
            }
        }
    }
}

async fn create(brokers: &str, name: &str) -> Result<(), KafkaError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "tailwater-demo");
    let client: AdminClient<DefaultClientContext> = config.create()?;
    let topic = NewTopic::new(name, -1, TopicReplication::Fixed(-1));
    let options = AdminOptions::new()
        .request_timeout(Some(CREATION_MAX))
        .operation_timeout(Some(CREATION_MAX));
    for result in client.create_topics([&topic], &options).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}

/// For `map_err`: what was being done.
pub(super) fn failed(action: &'static str) -> impl Fn(KafkaError) -> DemoError {
    move |source| DemoError::Broker { action: action.to_owned(), source }
}

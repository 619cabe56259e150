//! A consumer as users have them: it reads committed records and shows each as it appears.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use serde::Deserialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    DemoError,
    broker::failed,
    ledger::{Ledger, Sighting},
    screen::{EventLine, Screen},
};
use crate::sink::kafka::Administration;

/// How long the broker may take to say what the topic consists of.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The longest look for a record: the wish to end is seen after it.
const LOOK: Duration = Duration::from_millis(100);

/// This long without a record, nothing more is under way to a reader that keeps up.
const SILENCE: Duration = Duration::from_millis(300);

/// Where to read, and what to tell whom.
pub(super) struct Reading {
    pub(super) brokers: String,
    pub(super) administration: Administration,
    pub(super) topic: String,
    pub(super) ledger: Arc<Ledger>,
    pub(super) screen: Screen,
}

/// A reader on its own thread. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Reader {
    finish: Arc<AtomicBool>,
    failure: oneshot::Receiver<DemoError>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts to read at the topic's end; events of earlier demos are not shown.
    pub(super) async fn start(reading: Reading) -> Result<Self, DemoError> {
        let finish = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = oneshot::channel();
        let (fail, failure) = oneshot::channel();
        let asked = Arc::clone(&finish);
        let run = move || match reading.open() {
            Ok(consumer) => {
                drop(ready.send(Ok(())));
                if let Err(error) = reading.read(&consumer, &asked) {
                    // Nobody listens any more where the demo is at its end.
                    drop(fail.send(error));
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        let thread = thread::Builder::new()
            .name("demo-reader".to_owned())
            .spawn(run)
            .map_err(|source| DemoError::Server { action: "start a thread".to_owned(), source })?;
        let reader = Self { finish, failure, thread: Some(thread) };
        is_ready.await.expect("the reader says whether it is ready")?;
        Ok(reader)
    }

    /// Why reading ended; waits for ever while it goes on.
    ///
    /// # Cancel safety
    /// A failure that was returned is gone; one that was not is kept.
    pub(super) async fn failed(&mut self) -> DemoError {
        match (&mut self.failure).await {
            Ok(failure) => failure,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Reader {
    /// Waits until what is under way was read: an event that comes twice is to be seen.
    fn drop(&mut self) {
        self.finish.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Reading {
    fn open(&self) -> Result<BaseConsumer, DemoError> {
        let wait_ms = match self.administration {
            // A real broker answers as soon as there is a record.
            Administration::Full => "500",
            // The mock cluster sleeps that long when there is none, whatever comes meanwhile.
            Administration::Absent => "1",
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "tailwater-demo")
            // Partitions are assigned here, so no group of this name ever comes into being.
            .set("group.id", "tailwater-demo")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", wait_ms);
        let consumer: BaseConsumer = config.create().map_err(failed("make a consumer"))?;
        let metadata = consumer
            .fetch_metadata(Some(&self.topic), ANSWER_MAX)
            .map_err(failed("ask the brokers for the topic"))?;
        let mut assignment = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            let (_, end) = consumer
                .fetch_watermarks(&self.topic, partition.id(), ANSWER_MAX)
                .map_err(failed("ask the brokers where the topic ends"))?;
            assignment
                .add_partition_offset(&self.topic, partition.id(), Offset::Offset(end))
                .map_err(failed("read the topic"))?;
        }
        consumer.assign(&assignment).map_err(failed("read the topic"))?;
        Ok(consumer)
    }

    fn read(&self, consumer: &BaseConsumer, finish: &AtomicBool) -> Result<(), DemoError> {
        let mut heard_at = Instant::now();
        loop {
            match consumer.poll(LOOK) {
                Some(Ok(message)) => {
                    heard_at = Instant::now();
                    self.on_record(&message, heard_at);
                }
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(failed("read the topic")(error)),
                None => {}
            }
            if finish.load(Ordering::Relaxed) && heard_at.elapsed() >= SILENCE {
                return Ok(());
            }
        }
    }

    fn on_record(&self, message: &BorrowedMessage<'_>, seen_at: Instant) {
        // Not an event of ours, where others write to the topic.
        let Some(Ok(event)) = message.payload().map(serde_json::from_slice::<Event<'_>>) else {
            return;
        };
        let (latency, is_repeated) = match self.ledger.see(event.id, seen_at) {
            Sighting::Foreign => return,
            Sighting::First(latency) => (latency, false),
            Sighting::Again => (Duration::ZERO, true),
        };
        self.screen.event(&EventLine {
            seen_at: jiff::Timestamp::now(),
            event_type: event.event_type,
            aggregate_id: message.key().and_then(|key| str::from_utf8(key).ok()).unwrap_or("-"),
            customer: event.data.customer,
            total: event.data.total,
            latency,
            is_repeated,
        });
    }
}

/// What librdkafka mends by itself.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
        )
    )
}

/// What is shown of an event.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(deserialize_with = "uuid_text")]
    id: Uuid,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(borrow)]
    data: Order<'a>,
}

#[derive(Deserialize)]
struct Order<'a> {
    customer: &'a str,
    total: f64,
}

fn uuid_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    Uuid::try_parse(text).map_err(serde::de::Error::custom)
}

//! The way from settings to a sink: connect, look around, fence, produce.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::sink::{
    Checkpoints, Headers,
    kafka::{
        Cancel, KafkaError, KafkaSink,
        error::SizeLimit,
        native::Topic,
        producer::{Parts, Producer, Refusal},
        progress::Progress,
        properties::{self, ProducerProperties},
        reader::Reader,
        settings::{Delivery, Settings},
        turn::Turn,
    },
};

/// How long a first answer may take. The caller tries again; in between it can say what is wrong.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Between two questions.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// How long one question may take: cancellation is looked at between two.
const CONNECT_ATTEMPT: Duration = Duration::from_millis(500);

/// Connected to Kafka, in no transaction. Nobody is fenced until [`Kafka::fence`].
pub struct Kafka {
    /// Both are fenced and one of them writes checkpoints, whatever the guarantee is: a predecessor
    /// may have had the other one.
    pub(super) producers: [Producer; Turn::COUNT],
    /// Produces events where that takes no transaction.
    pub(super) events: Option<Producer>,
    pub(super) progress: Progress,
    pub(super) settings: Arc<Settings>,
    pub(super) properties: ProducerProperties,
    pub(super) cancel: Cancel,
}

impl Kafka {
    /// Makes the clients and waits until a broker has answered.
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`] after 5 s, with what librdkafka said last: call again.
    pub fn connect(settings: Settings, cancel: Cancel) -> Result<Self, KafkaError> {
        let properties = properties::producer(&settings);
        let progress = Progress::default();
        let producer =
            |turn| Producer::transactional(turn, &settings, &properties, progress.clone());
        let producers = [producer(Turn::First)?, producer(Turn::Second)?];
        let events = match settings.delivery {
            Delivery::ExactlyOnce => None,
            Delivery::AtLeastOnce => {
                Some(Producer::idempotent(&settings, &properties, progress.clone())?)
            }
        };
        let settings = Arc::new(settings);
        let kafka = Self { producers, events, progress, settings, properties, cancel };
        let mut all = kafka.producers.iter().chain(&kafka.events);
        all.try_for_each(|producer| kafka.await_answer(producer))?;
        Ok(kafka)
    }

    /// Asks for metadata, because whatever is asked of a coordinator before a connection is up is
    /// only asked again half a second later.
    fn await_answer(&self, producer: &Producer) -> Result<(), KafkaError> {
        let (client, brokers) = (producer.client(), &self.settings.brokers);
        let deadline = Instant::now() + CONNECT_LIMIT;
        loop {
            self.cancel.check()?;
            let topic = Some(self.settings.checkpoint_topic.as_str());
            let Err(error) = client.fetch_metadata(topic, CONNECT_ATTEMPT) else { return Ok(()) };
            // Some refusals come at once: do not ask in a loop.
            producer.poll(CONNECT_PAUSE, 0)?;
            if Instant::now() > deadline {
                let reason = client.context().last_error_or(&error.to_string());
                let brokers = brokers.clone();
                return Err(if client.context().authentication_failed() {
                    KafkaError::Authentication { brokers, reason }
                } else if client.context().certificate_failed() {
                    KafkaError::Tls { brokers, reason }
                } else {
                    KafkaError::Unreachable { brokers, reason }
                });
            }
        }
    }

    /// Another client on the same brokers, which reads the checkpoint topic.
    pub fn reader(&self) -> Result<Reader, KafkaError> {
        Reader::open(&self.settings, self.cancel.clone())
    }

    /// Ends the transactions of whoever had our transactional ids, and fences them. Only who holds
    /// the slot may call it. What is committed after it is ours.
    pub fn fence(&mut self) -> Result<(), KafkaError> {
        let [first, second] = &self.producers;
        let cancel = &self.cancel;
        // Side by side: each waits for its coordinator.
        thread::scope(|scope| {
            let second = scope.spawn(|| second.fence(cancel));
            let fenced = first.fence(cancel);
            fenced.and(second.join().unwrap_or(Err(KafkaError::ThreadEnded)))
        })
    }

    /// Writes records, keys and values, to the checkpoint topic in one transaction of their own.
    pub fn write(&mut self, records: &[(&str, &[u8])]) -> Result<(), KafkaError> {
        let [producer, _] = &self.producers;
        let topic = Topic::new(producer.client().native_ptr(), &self.settings.checkpoint_topic)?;
        let bytes = records.iter().map(|(key, value)| key.len() + value.len()).sum();
        producer.begin()?;
        for (key, value) in records {
            produce_checkpoint(producer, &topic, key, value, &self.cancel)?;
        }
        producer.commit(bytes, &self.cancel)
    }

    /// The largest record that the producers' queues take: key, value and headers, in bytes.
    pub fn record_bytes_max(&self) -> usize {
        self.properties.limits.queue_bytes
    }

    /// Starts the threads that produce and commit. Cancelling what was given to [`Kafka::connect`] has no
    /// effect on it.
    pub fn into_sink(self) -> Result<KafkaSink, KafkaError> {
        KafkaSink::start(self)
    }
}

/// Produces checkpoints. The queue is waited for.
pub(super) fn produce_checkpoints(
    producer: &Producer,
    topic: &Topic,
    checkpoints: &Checkpoints,
    cancel: &Cancel,
) -> Result<(), KafkaError> {
    checkpoints
        .iter()
        .try_for_each(|one| produce_checkpoint(producer, topic, &one.key, &one.value, cancel))
}

fn produce_checkpoint(
    producer: &Producer,
    topic: &Topic,
    key: &str,
    value: &[u8],
    cancel: &Cancel,
) -> Result<(), KafkaError> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let parts = Parts {
        partition: 0,
        key: Some(key.as_bytes()),
        value: Some(value),
        headers: Headers::new(&[]),
        header_count: 0,
        timestamp_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
    };
    let bytes = key.len() + value.len();
    let too_large = |limit| {
        let (topic, key) = (topic.name(), key.to_owned());
        Err(KafkaError::CheckpointTooLarge { topic, key, bytes, limit })
    };
    if !producer.can_queue(bytes) {
        return too_large(SizeLimit::Queue);
    }
    loop {
        match producer.produce(topic, &parts) {
            Ok(()) => return Ok(()),
            Err(Refusal::QueueFull) => {
                cancel.check()?;
                producer.poll(QUEUE_PAUSE, value.len())?;
            }
            Err(Refusal::Broken(code)) => return Err(producer.broken(code, value.len())),
            Err(Refusal::TooLarge) => return too_large(SizeLimit::Message),
        }
    }
}

/// Between two tries to hand over a record when the queue is full: at 400,000 records/s the brokers
/// have taken 400 meanwhile, out of the thousands that it holds.
pub(super) const QUEUE_PAUSE: Duration = Duration::from_millis(1);

//! A batch's records on their way to a producer: topic, partition, limits.

use std::sync::Arc;

use crate::sink::{
    Batch, Headers, Record,
    kafka::{
        Cancel, KafkaError,
        client::QUEUE_PAUSE,
        error::SizeLimit,
        producer::{Parts, Producer, Refusal},
        properties::{ProducerProperties, RecordLimits},
        settings::Settings,
        topics::{KnownTopic, Topics},
    },
};

/// What a record costs in a batch beside key, value and headers: the batch's own 61 bytes and at
/// most 36 of the record.
const FRAMING_BYTES: usize = 97;

/// A producer among those that records go to.
#[derive(Clone, Copy)]
pub(super) struct Outlet<'a> {
    pub(super) producers: &'a [Producer],
    /// Its place among them.
    pub(super) index: usize,
}

impl<'a> Outlet<'a> {
    pub(super) fn producer(self) -> &'a Producer {
        self.producers.get(self.index).expect("a place among the producers")
    }
}

/// Knows the topics that records go to. Must be dropped before the producers.
pub(super) struct Records {
    topics: Topics,
    settings: Arc<Settings>,
    batch_bytes: usize,
    limits: RecordLimits,
}

impl Records {
    pub(super) fn new(settings: Arc<Settings>, properties: &ProducerProperties) -> Self {
        let (batch_bytes, limits) = (properties.batch_bytes, properties.limits);
        Self { topics: Topics::default(), settings, batch_bytes, limits }
    }

    /// Takes note of the topics that the batch is the first to use.
    pub(super) fn announce(&mut self, batch: &Batch) {
        for (id, name) in batch.new_topics() {
            self.topics.announce(*id, name);
        }
    }

    /// Everything that was produced is answered.
    pub(super) fn all_answered(&mut self) {
        self.topics.all_answered();
    }

    /// Whether each of the batch's records fits its topic.
    ///
    /// # Errors
    /// [`KafkaError::EventTooLarge`] for the first that does not, and what goes wrong while topics
    /// are looked up.
    pub(super) fn check(
        &mut self,
        outlet: Outlet<'_>,
        batch: &Batch,
        cancel: &Cancel,
    ) -> Result<(), KafkaError> {
        for record in batch.records() {
            let topic =
                self.topics.known(record.topic, outlet.producers, &self.settings, cancel)?;
            fit(batch, record, topic, self.limits)?;
        }
        Ok(())
    }

    /// Hands one record over. A full queue is waited for.
    ///
    /// # Errors
    /// [`KafkaError::EventTooLarge`], and whatever ends the producer.
    pub(super) fn produce(
        &mut self,
        outlet: Outlet<'_>,
        batch: &Batch,
        record: &Record,
        cancel: &Cancel,
    ) -> Result<(), KafkaError> {
        let producer = outlet.producer();
        let topic = self.topics.known(record.topic, outlet.producers, &self.settings, cancel)?;
        let bytes = fit(batch, record, topic, self.limits)?;
        if topic.bytes_max < self.batch_bytes {
            // librdkafka does not know of topics' limits: a batch that grew past this one would
            // be refused, and it does not split them.
            if topic.unanswered_bytes + bytes > topic.bytes_max {
                producer.flush(0, cancel)?;
                topic.unanswered_bytes = 0;
            }
            topic.unanswered_bytes += bytes;
        }
        let key = record.key.map(|span| batch.slice(span));
        let hashed = key.unwrap_or_else(|| batch.slice(record.event_id));
        let parts = Parts {
            partition: self.settings.partitioner.partition(hashed, topic.partitions),
            key,
            value: record.value.map(|span| batch.slice(span)),
            headers: Headers::new(batch.slice(record.headers)),
            header_count: record.header_count,
            timestamp_ms: record.timestamp_ms,
        };
        let handle = topic.handles.get(outlet.index).expect("a handle of each producer's");
        loop {
            match producer.produce(handle, &parts) {
                Ok(()) => return Ok(()),
                // This record and no other: behind it in its partition none may come first.
                Err(Refusal::QueueFull) => {
                    cancel.check()?;
                    producer.poll(QUEUE_PAUSE, 0)?;
                }
                Err(Refusal::TooLarge) => {
                    let limit = (self.limits.message_bytes, SizeLimit::Message);
                    return Err(too_large(batch, record, topic, limit));
                }
                Err(Refusal::Broken(code)) => return Err(producer.broken(code, 0)),
            }
        }
    }
}

/// The record's bytes with its framing, where they fit.
fn fit(
    batch: &Batch,
    record: &Record,
    topic: &KnownTopic,
    limits: RecordLimits,
) -> Result<usize, KafkaError> {
    let bytes = record.bytes() + FRAMING_BYTES;
    let (bytes_max, limit) = limits.smallest(topic.bytes_max);
    if bytes > bytes_max {
        return Err(too_large(batch, record, topic, (bytes_max, limit)));
    }
    Ok(bytes)
}

fn too_large(
    batch: &Batch,
    record: &Record,
    topic: &KnownTopic,
    (bytes_max, limit): (usize, SizeLimit),
) -> KafkaError {
    KafkaError::EventTooLarge {
        topic: topic.name.to_string(),
        bytes: record.bytes() + FRAMING_BYTES,
        bytes_max,
        limit,
        commit_lsn: record.commit_lsn,
        event_id: String::from_utf8_lossy(batch.slice(record.event_id)).into_owned(),
    }
}

//! A batch's records on their way to a producer: topic, partition, limits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{
    lsn::CommitLsn,
    sink::{
        Batch, DEAD_LETTERS_SAID_EVERY, FAILURE_REASON, FAILURE_STAGE, FailureStage, Headers,
        ORIGINAL_TOPIC, Record, Subject, TopicUse,
        kafka::{
            Cancel, KafkaError,
            client::QUEUE_PAUSE,
            error::SizeLimit,
            producer::{Parts, Producer, Refusal},
            properties::{ProducerProperties, RecordLimits},
            queued::Queued,
            settings::Settings,
            topics::{KnownTopic, Lookup, Place, Topics},
        },
    },
    telemetry::Seldom,
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
    queued: Queued,
    /// Memory for the headers of a dead letter.
    dead_letter: Vec<u8>,
    said: Seldom,
    /// When the batch at hand came, which is near enough for what it is asked for.
    now: Instant,
}

impl Records {
    pub(super) fn new(settings: Arc<Settings>, properties: &ProducerProperties) -> Self {
        let (batch_bytes, limits) = (properties.batch_bytes, properties.limits);
        Self {
            topics: Topics::default(),
            settings,
            batch_bytes,
            limits,
            queued: Queued::new(properties.queued_bytes_max),
            dead_letter: Vec::new(),
            said: Seldom::every(DEAD_LETTERS_SAID_EVERY),
            now: Instant::now(),
        }
    }

    /// Takes note of the topics that the batch is the first to use.
    pub(super) fn announce(&mut self, batch: &Batch) {
        self.now = Instant::now();
        for topic in batch.new_topics() {
            self.topics.announce(topic);
        }
    }

    /// Everything that was produced is answered.
    pub(super) fn all_answered(&mut self) {
        self.topics.all_answered();
    }

    /// Whether each of the batch's records can go somewhere.
    ///
    /// # Errors
    /// [`KafkaError::EventTooLarge`] or [`KafkaError::DeadLetterTooLarge`] for the first that cannot,
    /// and what goes wrong while topics are looked up.
    pub(super) fn check(
        &mut self,
        outlet: Outlet<'_>,
        batch: &Batch,
        cancel: &Cancel,
    ) -> Result<(), KafkaError> {
        let Self { topics, settings, limits, dead_letter, .. } = self;
        let lookup = lookup(settings, *limits, outlet, cancel);
        for record in batch.records() {
            let place = topics.place_of(record.topic, lookup)?;
            let letter = Letter::of(batch, record);
            let Err(error) = letter.fit(topics.at(place), *limits) else { continue };
            let redirected = redirect(topics, place, error, (settings, lookup))?;
            let letter = letter.with_failure(&redirected, dead_letter);
            letter.fit(topics.at(redirected.place), *limits)?;
        }
        Ok(())
    }

    /// Hands one record over. A full queue is waited for. What does not fit its topic becomes a dead
    /// letter, where the settings say so.
    ///
    /// # Errors
    /// [`KafkaError::EventTooLarge`], [`KafkaError::DeadLetterTooLarge`], and whatever ends the
    /// producer.
    pub(super) fn produce(
        &mut self,
        outlet: Outlet<'_>,
        batch: &Batch,
        record: &Record,
        cancel: &Cancel,
    ) -> Result<(), KafkaError> {
        let Self { topics, settings, batch_bytes, limits, queued, dead_letter, said, now } = self;
        let lookup = lookup(settings, *limits, outlet, cancel);
        let place = topics.place_of(record.topic, lookup)?;
        let letter = Letter::of(batch, record);
        let (batch_bytes, limits, now) = (*batch_bytes, *limits, *now);
        let by = By { outlet, settings, batch_bytes, limits, cancel, now };
        let error = match by.hand_over(letter, (&mut *topics, place), queued) {
            Err(error @ KafkaError::EventTooLarge { .. }) => error,
            done => return done,
        };
        let redirected = redirect(topics, place, error, (settings, lookup))?;
        if let Some(unsaid) = said.is_due() {
            let (error, from) = (&redirected.error, &redirected.from);
            warn!(%from, %error, unsaid, "an event is too large and becomes a dead letter");
        }
        let letter = letter.with_failure(&redirected, dead_letter);
        by.hand_over(letter, (topics, redirected.place), queued)
    }
}

/// A record that goes to another topic than its own.
struct Redirected {
    /// The topic of dead letters.
    place: Place,
    /// Its own.
    from: Arc<str>,
    /// Why.
    error: KafkaError,
}

/// Where a record goes that does not fit its topic.
///
/// # Errors
/// That very error where the settings, or a dead letter already, let it go nowhere else.
fn redirect(
    topics: &mut Topics,
    place: Place,
    error: KafkaError,
    (settings, lookup): (&Settings, Lookup<'_>),
) -> Result<Redirected, KafkaError> {
    let topic = topics.at(place);
    let Some(dead_letters) = &settings.dead_letters else { return Err(error) };
    match topic.topic_use {
        TopicUse::DeadLetters => Err(error),
        TopicUse::Events => {
            let from = Arc::clone(&topic.name);
            let name = dead_letters.of(Some(&from));
            let place = topics.place_of_dead_letters(&name, lookup)?;
            Ok(Redirected { place, from, error })
        }
    }
}

fn lookup<'a>(
    settings: &'a Settings,
    limits: RecordLimits,
    outlet: Outlet<'a>,
    cancel: &'a Cancel,
) -> Lookup<'a> {
    let (producers, record_bytes_max) = (outlet.producers, limits.queue_bytes);
    Lookup { producers, settings, record_bytes_max, cancel }
}

/// One record, wherever its bytes lie.
#[derive(Clone, Copy)]
struct Letter<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [u8],
    header_count: u16,
    event_id: &'a [u8],
    partition: Option<u32>,
    timestamp_ms: i64,
    commit_lsn: CommitLsn,
}

impl<'a> Letter<'a> {
    fn of(batch: &'a Batch, record: &Record) -> Self {
        Self {
            key: record.key.map(|span| batch.slice(span)),
            value: record.value.map(|span| batch.slice(span)),
            headers: batch.slice(record.headers),
            header_count: record.header_count,
            event_id: batch.slice(record.event_id),
            partition: record.partition,
            timestamp_ms: record.timestamp_ms,
            commit_lsn: record.commit_lsn,
        }
    }

    /// The same with the headers of a dead letter, which are written into `memory`.
    fn with_failure(self, redirected: &Redirected, memory: &'a mut Vec<u8>) -> Self {
        memory.clear();
        memory.extend_from_slice(self.headers);
        let more = [
            (FAILURE_REASON, redirected.error.to_string()),
            (FAILURE_STAGE, FailureStage::Publish.word().to_owned()),
            (ORIGINAL_TOPIC, redirected.from.to_string()),
        ];
        let header_count = self.header_count + more.len() as u16;
        for (name, value) in more {
            Headers::write(memory, name, value.as_bytes());
        }
        Self { headers: memory, header_count, ..self }
    }

    /// Key, value, headers and framing, uncompressed.
    fn bytes(&self) -> usize {
        let of = |slice: Option<&[u8]>| slice.map_or(0, <[u8]>::len);
        of(self.key) + of(self.value) + self.headers.len() + FRAMING_BYTES
    }

    fn too_large(&self, topic: &KnownTopic, (bytes_max, limit): (usize, SizeLimit)) -> KafkaError {
        let (topic_use, topic, bytes) = (topic.topic_use, topic.name.to_string(), self.bytes());
        let event_id = String::from_utf8_lossy(self.event_id).into_owned();
        let subject = Subject::of(Headers::new(self.headers));
        let subject = subject.unwrap_or(Subject::Transaction(self.commit_lsn));
        match topic_use {
            TopicUse::Events => {
                KafkaError::EventTooLarge { topic, bytes, bytes_max, limit, subject, event_id }
            }
            TopicUse::DeadLetters => {
                KafkaError::DeadLetterTooLarge { topic, bytes, bytes_max, limit, subject }
            }
        }
    }

    /// Its bytes, where the topic takes them.
    fn fit(&self, topic: &KnownTopic, limits: RecordLimits) -> Result<usize, KafkaError> {
        let (bytes, (bytes_max, limit)) = (self.bytes(), limits.smallest(topic.bytes_max));
        if bytes > bytes_max {
            return Err(self.too_large(topic, (bytes_max, limit)));
        }
        Ok(bytes)
    }
}

/// What handing a record over takes.
#[derive(Clone, Copy)]
struct By<'a> {
    outlet: Outlet<'a>,
    settings: &'a Settings,
    batch_bytes: usize,
    limits: RecordLimits,
    cancel: &'a Cancel,
    now: Instant,
}

impl By<'_> {
    fn hand_over(
        self,
        letter: Letter<'_>,
        (topics, place): (&mut Topics, Place),
        queued: &mut Queued,
    ) -> Result<(), KafkaError> {
        let Self { outlet, settings, batch_bytes, limits, cancel, now } = self;
        let producer = outlet.producer();
        let bytes = letter.fit(topics.at(place), limits)?;
        let hashed = letter.key.unwrap_or(letter.event_id);
        let partition = match letter.partition {
            Some(partition) => i32::try_from(partition).unwrap_or_default(),
            None => settings.partitioner.partition(hashed, topics.at(place).partitions),
        };
        if !topics.at(place).may_follow(outlet.index, partition, now) {
            producer.flush(0, cancel)?;
            producer.poll(Duration::ZERO, 0)?;
            topics.all_answered();
            topics.at(place).may_follow(outlet.index, partition, now);
        }
        let topic = topics.at(place);
        if topic.bytes_max < batch_bytes {
            // librdkafka does not know of topics' limits: a batch that grew past this one would
            // be refused, and it does not split them.
            if topic.unanswered_bytes + bytes > topic.bytes_max {
                producer.flush(0, cancel)?;
                topic.unanswered_bytes = 0;
            }
            topic.unanswered_bytes += bytes;
        }
        let parts = Parts {
            partition,
            key: letter.key,
            value: letter.value,
            headers: Headers::new(letter.headers),
            header_count: letter.header_count,
            timestamp_ms: letter.timestamp_ms,
        };
        let handle = topic.handles.get(outlet.index).expect("a handle of each producer's");
        let mut has_waited = false;
        loop {
            let taken = match queued.has_room(outlet.index, || producer.waiting()) {
                true => producer.produce(handle, &parts),
                false => Err(Refusal::QueueFull),
            };
            match taken {
                Ok(()) => {
                    queued.add(outlet.index, bytes);
                    if has_waited {
                        producer.progress.add();
                    }
                    return Ok(());
                }
                // This record and no other: behind it in its partition none may come first.
                Err(Refusal::QueueFull) => {
                    cancel.check()?;
                    producer.poll(QUEUE_PAUSE, 0)?;
                    has_waited = true;
                }
                Err(Refusal::TooLarge) => {
                    return Err(letter.too_large(topic, (limits.message_bytes, SizeLimit::Message)));
                }
                Err(Refusal::Broken(code)) => return Err(producer.broken(code, 0)),
            }
        }
    }
}

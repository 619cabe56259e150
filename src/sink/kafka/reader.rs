//! Reads partition 0 of the checkpoint topic, committed records only.
//!
//! By librdkafka's consumer without a group: nothing has to be allowed for a group, no group
//! coordinator is looked for, and no offset is kept anywhere.

use std::{
    collections::BTreeMap,
    ptr::NonNull,
    slice, thread,
    time::{Duration, Instant},
};

use rdkafka::{
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode,
};
use rdkafka_sys as sys;

use crate::sink::kafka::{
    Cancel, KafkaError,
    administration::{self, Brokers, NewTopic, milliseconds},
    context::Context,
    native::{CallError, Topic},
    properties,
    settings::{Administration, Settings},
};

/// The one partition that checkpoints are in.
const PARTITION: i32 = 0;

/// How long one look may take: cancellation is looked at between two.
const ATTEMPT: Duration = Duration::from_millis(100);

/// How long a broker may leave a read without records and without an end.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// How often a broker that says nothing is asked whether it is there.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);

/// How long the brokers may take to tell offsets.
const OFFSETS_LIMIT: Duration = Duration::from_secs(5);

/// Where partition 0 begins and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// The first offset that is there.
    pub low: i64,
    /// Below it every transaction has ended.
    pub last_stable: i64,
    /// One past the last record, of open transactions too.
    pub high_watermark: i64,
}

/// A committed record.
#[derive(Clone, Copy, Debug)]
pub struct StoredRecord<'a> {
    /// Its place.
    pub offset: i64,
    /// Its key; empty where it has none.
    pub key: &'a [u8],
    /// Its value; none for a tombstone.
    pub value: Option<&'a [u8]>,
}

/// A client that reads the checkpoint topic.
pub struct Reader {
    topic: Topic,
    consumer: BaseConsumer<Context>,
    name: String,
    administration: Administration,
    create_topics: bool,
    replication_factor: i32,
    cancel: Cancel,
}

impl Reader {
    pub(super) fn open(settings: &Settings, cancel: Cancel) -> Result<Self, KafkaError> {
        let config = properties::reader(settings);
        let consumer = BaseConsumer::from_config_and_context(&config, Context::default())
            .map_err(|error| KafkaError::Settings { what: error.to_string() })?;
        let topic = Topic::new(consumer.client().native_ptr(), &settings.checkpoint_topic)?;
        Ok(Self {
            topic,
            consumer,
            name: settings.checkpoint_topic.clone(),
            administration: settings.administration,
            create_topics: settings.create_topics,
            replication_factor: settings.topic.replication_factor.unwrap_or(-1),
            cancel,
        })
    }

    /// The topic that is read.
    pub fn topic(&self) -> &str {
        &self.name
    }

    fn brokers(&self) -> Brokers<'_> {
        Brokers {
            client: self.consumer.client(),
            cancel: &self.cancel,
            administration: self.administration,
        }
    }

    /// How many partitions the topic has; none where there is no topic.
    pub fn partitions(&self) -> Result<Option<u32>, KafkaError> {
        self.brokers().partitions(&self.name)
    }

    /// Whether the topic's partitions and configuration are anybody's choice.
    pub fn is_administered(&self) -> bool {
        self.administration == Administration::Full
    }

    /// The topic's configuration; none where the brokers do not tell us.
    pub fn configuration(&self) -> Result<Option<BTreeMap<String, String>>, KafkaError> {
        self.brokers().configuration(&self.name)
    }

    /// Makes the topic with one partition, where topics may be made.
    pub fn create_topic(&self, config: &BTreeMap<String, String>) -> Result<(), KafkaError> {
        let topic = NewTopic {
            name: &self.name,
            partitions: 1,
            replication_factor: self.replication_factor,
            config,
        };
        if !self.create_topics {
            let (topic, command) = (self.name.clone(), topic.command());
            return Err(KafkaError::TopicMissing { topic, reason: None, command });
        }
        self.brokers().create(&topic).map(|_| ())
    }

    /// Where partition 0 begins and ends. The high watermark is asked for last: what the caller
    /// did before is below it.
    pub fn offsets(&self) -> Result<Offsets, KafkaError> {
        let deadline = Instant::now() + OFFSETS_LIMIT;
        let (low, last_stable) = loop {
            self.cancel.check()?;
            let watermarks =
                self.consumer.fetch_watermarks(&self.name, PARTITION, Duration::from_secs(1));
            match watermarks {
                Ok(found) => break found,
                Err(error) if Instant::now() > deadline => {
                    return Err(KafkaError::Call {
                        action: format!("ask for the offsets of topic \"{}\"", self.name),
                        reason: error.to_string(),
                    });
                }
                Err(_) => self.serve_events(),
            }
        };
        let high_watermark = self.brokers().high_watermark(&self.name)?;
        Ok(Offsets { low, last_stable, high_watermark })
    }

    /// As [`Reader::offsets`]. Where a transaction is open, the last stable offset is asked for again
    /// for up to `patience`, until those that were open at first have ended.
    pub fn offsets_within(&self, patience: Duration) -> Result<Offsets, KafkaError> {
        let asked_at = Instant::now();
        let mut offsets = self.offsets()?;
        while offsets.last_stable < offsets.high_watermark && asked_at.elapsed() < patience {
            self.cancel.check()?;
            self.serve_events();
            thread::park_timeout(ATTEMPT);
            // Where no broker answers, whoever reads next is told.
            offsets.last_stable = self.last_stable().unwrap_or(offsets.last_stable);
        }
        Ok(offsets)
    }

    /// Reads committed records from `from` on, until all below `until` were read. While an open
    /// transaction hides what lies behind it, `on_blocked` is called again and again, with the
    /// offset that the transaction begins at.
    pub fn read(
        &self,
        from: i64,
        until: i64,
        mut on_record: impl FnMut(StoredRecord<'_>) -> Result<(), KafkaError>,
        mut on_blocked: impl FnMut(i64),
    ) -> Result<(), KafkaError> {
        self.await_stable(from, &mut on_blocked)?;
        let reading = Reading::start(&self.topic, from).map_err(|code| self.failure(code))?;
        let (mut position, mut heard_at, mut at_end) = (from, Instant::now(), false);
        while position < until {
            self.cancel.check()?;
            let Some(message) = reading.next(ATTEMPT) else {
                self.serve_events();
                let silent_for = heard_at.elapsed();
                // The end is said once. Whether it is an open transaction that is waited for
                // since, or a broker that died, only an answer tells.
                if at_end && silent_for > ANSWER_INTERVAL && self.last_stable().is_some() {
                    heard_at = Instant::now();
                    on_blocked(position);
                } else if silent_for > SILENCE_LIMIT {
                    return Err(self.silence(position));
                }
                continue;
            };
            heard_at = Instant::now();
            match message.content() {
                Ok(record) => {
                    position = record.offset + 1;
                    at_end = false;
                    if record.offset < until {
                        on_record(record)?;
                    }
                }
                // Only an end says how far we are: markers and rolled-back records have offsets
                // and are not delivered.
                Err((RDKafkaErrorCode::PartitionEOF, end)) => {
                    position = position.max(end);
                    at_end = true;
                }
                Err((code, _)) => return Err(self.failure(code)),
            }
        }
        Ok(())
    }

    /// Waits until the last stable offset has reached `from`: librdkafka tells that it is at the
    /// end only where it asks for exactly that offset, and behind it gets neither records nor a
    /// word.
    fn await_stable(&self, from: i64, on_blocked: &mut impl FnMut(i64)) -> Result<(), KafkaError> {
        let mut heard_at = Instant::now();
        loop {
            self.cancel.check()?;
            match self.last_stable() {
                Some(last_stable) if last_stable >= from => return Ok(()),
                Some(last_stable) => {
                    heard_at = Instant::now();
                    on_blocked(last_stable);
                }
                None if heard_at.elapsed() > SILENCE_LIMIT => return Err(self.silence(from)),
                None => {}
            }
            self.serve_events();
            thread::park_timeout(ATTEMPT);
        }
    }

    /// The last stable offset; none where no broker answers.
    fn last_stable(&self) -> Option<i64> {
        let watermarks =
            self.consumer.fetch_watermarks(&self.name, PARTITION, Duration::from_secs(1));
        watermarks.ok().map(|(_, last_stable)| last_stable)
    }

    fn serve_events(&self) {
        // Without a group this queue has log lines and errors only, and the context gets them.
        drop(self.consumer.poll(Duration::ZERO));
    }

    fn failure(&self, code: RDKafkaErrorCode) -> KafkaError {
        let error = CallError { code, reason: code.to_string(), retriable: false };
        administration::failure(format!("read topic \"{}\"", self.name), error)
    }

    fn silence(&self, position: i64) -> KafkaError {
        KafkaError::TimedOut {
            action: format!("read topic \"{}\" from offset {position}", self.name),
            limit: SILENCE_LIMIT,
            bytes: 0,
            reason: self.consumer.client().context().last_error_or("no broker answered"),
        }
    }
}

/// The partition being fetched, until dropped.
struct Reading<'a> {
    topic: &'a Topic,
}

impl<'a> Reading<'a> {
    fn start(topic: &'a Topic, from: i64) -> Result<Self, RDKafkaErrorCode> {
        // SAFETY: the topic is alive.
        let started = unsafe { sys::rd_kafka_consume_start(topic.as_ptr(), PARTITION, from) };
        if started == 0 {
            return Ok(Self { topic });
        }
        // SAFETY: reads this thread's last error.
        Err(unsafe { sys::rd_kafka_last_error() }.into())
    }

    fn next(&self, limit: Duration) -> Option<Fetched> {
        // SAFETY: the topic is alive and being fetched.
        let message =
            unsafe { sys::rd_kafka_consume(self.topic.as_ptr(), PARTITION, milliseconds(limit)) };
        NonNull::new(message).map(Fetched)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        // SAFETY: started by `start`, and nothing of it is used after this.
        unsafe { sys::rd_kafka_consume_stop(self.topic.as_ptr(), PARTITION) };
    }
}

/// A record or a word about the partition.
struct Fetched(NonNull<sys::rd_kafka_message_t>);

impl Fetched {
    /// The record, or a code with the offset that it speaks of.
    fn content(&self) -> Result<StoredRecord<'_>, (RDKafkaErrorCode, i64)> {
        // SAFETY: the message, and what it points to, lives as long as `self`; pointer and length
        // belong together, and a null pointer has no bytes.
        unsafe {
            let message = self.0.as_ref();
            let code = message.err.into();
            if code != RDKafkaErrorCode::NoError {
                return Err((code, message.offset));
            }
            let bytes = |start: *mut std::ffi::c_void, length| {
                NonNull::new(start.cast::<u8>())
                    .map(|start| slice::from_raw_parts(start.as_ptr().cast_const(), length))
            };
            Ok(StoredRecord {
                offset: message.offset,
                key: bytes(message.key, message.key_len).unwrap_or_default(),
                value: bytes(message.payload, message.len),
            })
        }
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // SAFETY: the message is ours and is not used after this.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

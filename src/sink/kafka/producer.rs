//! The producer and its transactions. Every call is bounded.

use std::{
    cell::Cell,
    ffi::{CStr, c_char, c_void},
    ptr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext,
    error::RDKafkaErrorCode,
    producer::{BaseProducer, Producer as _, PurgeConfig},
};
use rdkafka_sys as sys;

use crate::sink::{
    Headers,
    kafka::{
        Cancel, KafkaError,
        administration::{self, milliseconds},
        context::{Context, FailedDelivery, FailedEvent},
        error::SizeLimit,
        native::{self, CallError, HeaderList, Topic},
        progress::Progress,
        properties::{self, ProducerProperties},
        settings::Settings,
        turn::Turn,
    },
};

/// How long one call of librdkafka may take. Between two, events are served and cancellation is
/// looked at; a call that ran out of time goes on in the background and is made again.
const SLICE: Duration = Duration::from_millis(250);

/// How long a predecessor's transaction may take to end: the broker has to write its markers.
const FENCE_LIMIT: Duration = Duration::from_secs(30);

/// How long the report of a failed delivery may come behind what it caused.
const REPORT_LIMIT: Duration = Duration::from_secs(1);

/// Between two looks for it.
const REPORT_PAUSE: Duration = Duration::from_millis(10);

/// A commit that the broker did not answer this long after it gave the transaction up never will.
const COMMIT_GRACE: Duration = Duration::from_secs(5);

/// One record as librdkafka gets it. Everything is copied.
pub(super) struct Parts<'a> {
    pub(super) partition: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
    pub(super) header_count: u16,
    pub(super) timestamp_ms: i64,
}

/// Why a record was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The queue is full: this record is to be tried again, before any other.
    QueueFull,
    /// The record is larger than the client takes.
    TooLarge,
    /// The transaction is broken.
    Broken(RDKafkaErrorCode),
}

/// A producer. Fields are dropped in this order: the queue before its client.
pub(super) struct Producer {
    /// What it has to tell: records that failed, connections that are lost, lines for the log.
    events: native::Queue,
    base: BaseProducer<Context>,
    /// None where it has no transactions.
    transactional_id: Option<String>,
    brokers: String,
    transaction_timeout: Duration,
    /// The largest record that its queue takes.
    queue_bytes: usize,
    /// When its latest transaction began.
    begun_at: BegunAt,
    pub(super) progress: Progress,
}

/// A moment that both threads know of.
#[derive(Default)]
struct BegunAt(Mutex<Option<Instant>>);

impl BegunAt {
    fn set_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Producer {
    /// A producer with a transactional id.
    pub(super) fn transactional(
        turn: Turn,
        settings: &Settings,
        properties: &ProducerProperties,
        progress: Progress,
    ) -> Result<Self, KafkaError> {
        let transactional_id = turn.transactional_id(&settings.transactional_id);
        let mut config = properties.config.clone();
        config.set("transactional.id", &transactional_id);
        Self::new(&config, Some(transactional_id), (settings, properties), progress)
    }

    /// A producer without transactions: what it delivers is visible at once.
    pub(super) fn idempotent(
        settings: &Settings,
        properties: &ProducerProperties,
        progress: Progress,
    ) -> Result<Self, KafkaError> {
        let config = properties::without_transactions(properties, settings);
        Self::new(&config, None, (settings, properties), progress)
    }

    fn new(
        config: &ClientConfig,
        transactional_id: Option<String>,
        (settings, properties): (&Settings, &ProducerProperties),
        progress: Progress,
    ) -> Result<Self, KafkaError> {
        let base = BaseProducer::from_config_and_context(config, Context::default())
            .map_err(|error| KafkaError::Settings { what: error.to_string() })?;
        Ok(Self {
            events: native::Queue::main(base.client().native_ptr()),
            base,
            transactional_id,
            brokers: settings.brokers.clone(),
            transaction_timeout: properties.transaction_timeout,
            queue_bytes: properties.limits.queue_bytes,
            begun_at: BegunAt::default(),
            progress,
        })
    }

    pub(super) fn client(&self) -> &rdkafka::client::Client<Context> {
        self.base.client()
    }

    fn native(&self) -> *mut sys::rd_kafka_t {
        self.base.client().native_ptr()
    }

    /// Ends a predecessor's transaction and makes every other producer of this id fail from here
    /// on.
    pub(super) fn fence(&self, cancel: &Cancel) -> Result<(), KafkaError> {
        cancel.check()?;
        self.repeat("take the transactional id", FENCE_LIMIT, 0, cancel, |client, timeout_ms| {
            // SAFETY: the client is alive, and the error is ours.
            unsafe { native::check(sys::rd_kafka_init_transactions(client, timeout_ms)) }
        })
    }

    pub(super) fn begin(&self) -> Result<(), KafkaError> {
        self.begun_at.set_now();
        // SAFETY: the client is alive, and the error is ours.
        let begun = unsafe { native::check(sys::rd_kafka_begin_transaction(self.native())) };
        begun.map_err(|error| self.failure("begin a transaction", error, 0))
    }

    /// Commits by librdkafka's own call: rdkafka's flushes first, which takes 100 ms whether there
    /// is something to wait for or not. librdkafka's flushes too, and does not linger.
    pub(super) fn commit(&self, bytes: usize, cancel: &Cancel) -> Result<(), KafkaError> {
        let limit = self.transaction_timeout.saturating_add(COMMIT_GRACE);
        self.repeat("commit a transaction", limit, bytes, cancel, |client, timeout_ms| {
            // SAFETY: the client is alive, and the error is ours.
            unsafe { native::check(sys::rd_kafka_commit_transaction(client, timeout_ms)) }
        })
    }

    /// Ends an open transaction at an orderly end, so that readers need not wait for its time-out
    /// or for our next start. Only a kindness: what does not succeed in time is left.
    ///
    /// # Errors
    /// [`KafkaError::Fenced`] where another producer has the id, and nothing else.
    pub(super) fn abort(&self, limit: Duration) -> Result<(), KafkaError> {
        let deadline = Instant::now() + limit;
        self.base.purge(PurgeConfig::default().queue());
        // What is on its way must be answered first: after the end of its transaction it could
        // open another one on an old broker, which nobody would end.
        while self.waiting() > 0 {
            if Instant::now() > deadline {
                return Ok(());
            }
            self.base.poll(Duration::from_millis(2));
        }
        let left = milliseconds(deadline.saturating_duration_since(Instant::now()));
        // SAFETY: the client is alive, and the error is ours.
        let aborted =
            unsafe { native::check(sys::rd_kafka_abort_transaction(self.native(), left)) };
        let Err(error) = aborted else { return Ok(()) };
        tracing::debug!(reason = error.reason, "transaction left open");
        match self.failure("abort a transaction", error, 0) {
            fenced @ KafkaError::Fenced { .. } => Err(fenced),
            _ => Ok(()),
        }
    }

    /// Sends everything without lingering and waits until it is answered, for as long as some of it
    /// is answered now and then.
    pub(super) fn flush(&self, bytes: usize, cancel: &Cancel) -> Result<(), KafkaError> {
        let action = "send waiting records";
        let least = Cell::new(self.waiting());
        loop {
            let before = least.get();
            let limit = self.transaction_timeout;
            let flushed = self.repeat(action, limit, bytes, cancel, |client, timeout_ms| {
                // SAFETY: the client is alive.
                let code = unsafe { sys::rd_kafka_flush(client, timeout_ms) }.into();
                if code == RDKafkaErrorCode::NoError {
                    return Ok(());
                }
                let waiting = self.waiting();
                if waiting < least.get() {
                    least.set(waiting);
                    self.progress.add();
                }
                let retriable = code == RDKafkaErrorCode::OperationTimedOut;
                Err(CallError { code, reason: code.to_string(), retriable })
            });
            match flushed {
                Err(KafkaError::TimedOut { .. }) if least.get() < before => {}
                flushed => return flushed,
            }
        }
    }

    /// Hands one record over.
    pub(super) fn produce(&self, topic: &Topic, parts: &Parts<'_>) -> Result<(), Refusal> {
        fn bytes(slice: Option<&[u8]>) -> (*const c_void, usize) {
            slice.map_or((ptr::null(), 0), |slice| (slice.as_ptr().cast(), slice.len()))
        }
        let headers = HeaderList::new(parts.headers, parts.header_count);
        let ((key, key_length), (value, value_length)) = (bytes(parts.key), bytes(parts.value));
        // SAFETY: client and topic are alive; each value has the type that rdkafka.h names for
        // its tag (`rd_kafka_vtype_t`); key and value are copied within the call.
        let code = unsafe {
            sys::rd_kafka_producev(
                self.native(),
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
                topic.as_ptr(),
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
                parts.partition,
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
                key,
                key_length,
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
                value,
                value_length,
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
                parts.timestamp_ms,
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
                headers.as_ptr(),
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
            )
        };
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => {
                headers.given_away();
                Ok(())
            }
            RDKafkaErrorCode::QueueFull => Err(Refusal::QueueFull),
            RDKafkaErrorCode::MessageSizeTooLarge => Err(Refusal::TooLarge),
            code => Err(Refusal::Broken(code)),
        }
    }

    /// Whether its queue takes a record of that size at any time.
    pub(super) fn can_queue(&self, bytes: usize) -> bool {
        bytes <= self.queue_bytes
    }

    /// Records that are not answered yet.
    pub(super) fn waiting(&self) -> usize {
        // librdkafka counts events along, which come and go while brokers are away: that is no
        // progress. Both counts must be of one moment.
        loop {
            let events = self.events.len();
            // SAFETY: the client is alive.
            let all = unsafe { sys::rd_kafka_outq_len(self.native()) };
            if self.events.len() == events {
                return usize::try_from(all).unwrap_or(0).saturating_sub(events);
            }
        }
    }

    /// Serves the events that are there. One poll serves one: those of brokers that are away would
    /// gather, and hide that of a record that failed.
    fn serve_events(&self) {
        for _ in 0..self.events.len() {
            self.base.poll(Duration::ZERO);
        }
    }

    /// Serves events for that long, and fails where one of them ended the transaction.
    pub(super) fn poll(&self, time: Duration, bytes: usize) -> Result<(), KafkaError> {
        if !time.is_zero() {
            self.base.poll(time);
        }
        self.serve_events();
        self.root_cause("deliver records", bytes).map_or(Ok(()), Err)
    }

    /// The error of a record that was not taken.
    pub(super) fn broken(&self, code: RDKafkaErrorCode, bytes: usize) -> KafkaError {
        self.serve_events();
        let reason = code.to_string();
        self.failure("produce", CallError { code, reason, retriable: false }, bytes)
    }

    /// Makes a call again and again until it succeeds, fails for good, or `limit` is over. It is made
    /// once also where it was called off already: a transaction that is whole must not stay open,
    /// holding back readers, for the lack of one more request.
    fn repeat(
        &self,
        action: &str,
        limit: Duration,
        bytes: usize,
        cancel: &Cancel,
        call: impl Fn(*mut sys::rd_kafka_t, i32) -> Result<(), CallError>,
    ) -> Result<(), KafkaError> {
        let deadline = Instant::now() + limit;
        loop {
            let Err(error) = call(self.native(), milliseconds(SLICE)) else { return Ok(()) };
            self.serve_events();
            if !error.retriable {
                return Err(self.failure(action, error, bytes));
            }
            if let Some(cause) = self.root_cause(action, bytes) {
                return Err(cause);
            }
            cancel.check()?;
            if Instant::now() > deadline {
                let reason = self.client().context().last_error_or(&error.reason);
                let action = action.to_owned();
                return Err(KafkaError::TimedOut { action, limit, bytes, reason });
            }
        }
    }

    fn failure(&self, action: &str, error: CallError, bytes: usize) -> KafkaError {
        self.root_cause(action, bytes)
            .unwrap_or_else(|| self.classify(action, error.code, error.reason, bytes))
    }

    /// What ended the transaction before the failing call did: being fenced, then the first record
    /// that was not taken.
    fn root_cause(&self, action: &str, bytes: usize) -> Option<KafkaError> {
        if let Some((code, reason)) = self.fatal_error() {
            // A record that was not taken ended it: that one says why, as soon as it is reported.
            let is_of_record = code == RDKafkaErrorCode::GaplessGuarantee;
            if !is_of_record || !self.await_failed_delivery() {
                return Some(self.classify(action, code, reason, bytes));
            }
        }
        let failed = self.client().context().failed_delivery()?;
        if let Some(error) = refused_for_good(&failed) {
            return Some(error);
        }
        match self.classify(action, failed.code, failed.code.to_string(), bytes) {
            KafkaError::Call { reason, .. } => {
                Some(KafkaError::Delivery { topic: failed.topic, reason })
            }
            other => Some(other),
        }
    }

    /// Serves events until a failed delivery is among them, for a while.
    fn await_failed_delivery(&self) -> bool {
        let deadline = Instant::now() + REPORT_LIMIT;
        let context = self.client().context();
        while context.failed_delivery().is_none() && Instant::now() < deadline {
            self.base.poll(REPORT_PAUSE);
        }
        context.failed_delivery().is_some()
    }

    fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        let mut words: [c_char; 512] = [0; 512];
        // SAFETY: librdkafka writes at most the given length, a final zero included.
        let code =
            unsafe { sys::rd_kafka_fatal_error(self.native(), words.as_mut_ptr(), words.len()) }
                .into();
        if code == RDKafkaErrorCode::NoError {
            return None;
        }
        // SAFETY: filled by the call above.
        Some((code, unsafe { CStr::from_ptr(words.as_ptr()) }.to_string_lossy().into_owned()))
    }

    fn classify(
        &self,
        action: &str,
        code: RDKafkaErrorCode,
        reason: String,
        bytes: usize,
    ) -> KafkaError {
        match (code, &self.transactional_id) {
            (
                RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch,
                Some(transactional_id),
            ) => KafkaError::Fenced {
                transactional_id: transactional_id.clone(),
                bytes,
                open_for: self.begun_at.get().map(|at| at.elapsed()),
                timeout: self.transaction_timeout,
            },
            (RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed, _) => {
                KafkaError::Authentication { brokers: self.brokers.clone(), reason }
            }
            (RDKafkaErrorCode::MessageTimedOut, _) => KafkaError::TimedOut {
                action: action.to_owned(),
                limit: self.transaction_timeout,
                bytes,
                reason: self.client().context().last_error_or(&reason),
            },
            (RDKafkaErrorCode::InvalidTransactionTimeout, _) => KafkaError::Settings {
                what: format!(
                    "the brokers allow no transaction.timeout.ms of {}; their bound is \
                     transaction.max.timeout.ms",
                    self.transaction_timeout.as_millis()
                ),
            },
            (code, _) if administration::is_denial(code) => {
                KafkaError::Denied { action: action.to_owned(), reason }
            }
            _ => KafkaError::Call { action: action.to_owned(), reason },
        }
    }
}

/// A record that no broker will ever take, as it is: trying again would try for ever.
fn refused_for_good(failed: &FailedDelivery) -> Option<KafkaError> {
    let topic = failed.topic.clone();
    let Some(FailedEvent { id, subject }) = failed.event.clone() else {
        let is_too_large = failed.code == RDKafkaErrorCode::MessageSizeTooLarge;
        return is_too_large.then(|| KafkaError::CheckpointTooLarge {
            topic,
            key: failed.key.clone().unwrap_or_default(),
            bytes: failed.bytes,
            limit: SizeLimit::Topic,
        });
    };
    match failed.code {
        code @ (RDKafkaErrorCode::InvalidRecord
        | RDKafkaErrorCode::InvalidTimestamp
        | RDKafkaErrorCode::PolicyViolation) => Some(KafkaError::EventRefused {
            topic,
            reason: code.to_string(),
            subject,
            event_id: id.unwrap_or_else(|| "(a dead letter)".to_owned()),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::kafka::{Administration, Delivery, Partitioner, TopicSettings};

    fn settings() -> Settings {
        let limit = ("transaction.timeout.ms".to_owned(), "2000".to_owned());
        Settings {
            // Nobody listens there.
            brokers: "127.0.0.1:1".to_owned(),
            properties: [limit].into(),
            transactional_id: "unused".to_owned(),
            delivery: Delivery::AtLeastOnce,
            checkpoint_topic: "unused".to_owned(),
            partitioner: Partitioner::default(),
            transaction_interval: Duration::ZERO,
            transaction_bytes: 1,
            create_topics: false,
            topic: TopicSettings::default(),
            dead_letters: None,
            administration: Administration::Full,
        }
    }

    #[test]
    fn what_brokers_that_are_away_have_to_tell_is_no_progress() {
        const RECORDS: usize = 3;
        const EVENTS: usize = 3;
        let settings = settings();
        let properties = properties::producer(&settings);
        let progress = Progress::default();
        let producer = Producer::idempotent(&settings, &properties, progress.clone());
        let producer = producer.expect("a producer needs no broker");
        let topic = Topic::new(producer.native(), "orders").expect("a topic");
        for _ in 0..RECORDS {
            let parts = Parts {
                partition: 0,
                key: None,
                value: Some(b"{}"),
                headers: Headers::new(&[]),
                header_count: 0,
                timestamp_ms: 0,
            };
            assert_eq!(producer.produce(&topic, &parts), Ok(()));
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while producer.events.len() < EVENTS {
            assert!(Instant::now() < deadline, "a refused connection is told of");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        assert_eq!(producer.waiting(), RECORDS);
        assert!(producer.poll(Duration::ZERO, 0).is_ok());
        assert!(producer.events.len() < EVENTS - 1, "all of them are served at once");
        let flushed = producer.flush(0, &Cancel::default());
        assert!(matches!(flushed, Err(KafkaError::TimedOut { .. })), "{flushed:?}");
        assert_eq!((producer.waiting(), progress.count()), (RECORDS, 0));
    }
}

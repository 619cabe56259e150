//! What librdkafka tells us of its own accord: log lines, errors, failed deliveries.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError as ClientError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
    producer::{DeliveryResult, ProducerContext},
};
use tracing::{debug, info, trace, warn};

use crate::sink::Subject;

/// A record that was not taken.
#[derive(Clone, Debug)]
pub(super) struct FailedDelivery {
    pub(super) topic: String,
    pub(super) code: RDKafkaErrorCode,
    /// Its key, where that is text.
    pub(super) key: Option<String>,
    /// Key and value, uncompressed.
    pub(super) bytes: usize,
    /// The event that it is, as its headers say; none for a checkpoint.
    pub(super) event: Option<FailedEvent>,
}

/// An event by what its record's headers say.
#[derive(Clone, Debug)]
pub(super) struct FailedEvent {
    /// None for a dead letter of what is no event.
    pub(super) id: Option<String>,
    pub(super) subject: Subject,
}

/// Remembers the last error and the first failed delivery.
///
/// The first one, because librdkafka fails everything behind it too, and with other words.
#[derive(Debug, Default)]
pub(super) struct Context {
    last_error: Mutex<Option<String>>,
    authentication_failed: AtomicBool,
    certificate_failed: AtomicBool,
    failed_delivery: Mutex<Option<FailedDelivery>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// The last thing librdkafka said, or `otherwise`.
    pub(super) fn last_error_or(&self, otherwise: &str) -> String {
        locked(&self.last_error).clone().unwrap_or_else(|| otherwise.to_owned())
    }

    pub(super) fn authentication_failed(&self) -> bool {
        self.authentication_failed.load(Ordering::Relaxed)
    }

    /// A certificate was refused, on either side.
    pub(super) fn certificate_failed(&self) -> bool {
        self.certificate_failed.load(Ordering::Relaxed)
    }

    pub(super) fn failed_delivery(&self) -> Option<FailedDelivery> {
        locked(&self.failed_delivery).clone()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // FAIL and ERROR repeat what the error callback says of each attempt to connect, which
        // the supervisor's own lines report; CONFWARN says that a producer's property is of no
        // use to a consumer, and both are given the user's properties.
        if matches!(facility, "FAIL" | "ERROR" | "CONFWARN") {
            debug!(facility, message, "librdkafka");
            return;
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => warn!(facility, message, "librdkafka"),
            RDKafkaLogLevel::Warning => info!(facility, message, "librdkafka"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                debug!(facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Debug => trace!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        debug!(%error, reason, "librdkafka");
        let code = error.rdkafka_error_code();
        // A broker that goes down in the middle of a login has not refused it.
        if code == Some(RDKafkaErrorCode::Authentication)
            && !reason.contains("handshake failed: Local:")
        {
            self.authentication_failed.store(true, Ordering::Relaxed);
        }
        if is_certificate(code, reason) {
            self.certificate_failed.store(true, Ordering::Relaxed);
        }
        // "All brokers are down" follows the line that says why.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            *locked(&self.last_error) = Some(reason.to_owned());
        }
    }
}

/// Whether one side did not take the other's certificate. Other failures of a handshake may pass: a
/// broker that goes down has them too. By TLS 1.3 a broker says only after it that it does not take
/// ours, which librdkafka reports as a transport failure.
fn is_certificate(code: Option<RDKafkaErrorCode>, reason: &str) -> bool {
    let is_theirs = reason.contains("certificate verify failed")
        || reason.contains("verify broker certificate");
    let is_ours = reason.contains("alert")
        && ["certificate required", "bad certificate", "certificate unknown", "unknown ca"]
            .iter()
            .chain(&["certificate expired", "certificate revoked", "unsupported certificate"])
            .any(|words| reason.contains(words));
    match code {
        Some(RDKafkaErrorCode::SSL) => is_theirs || is_ours,
        Some(RDKafkaErrorCode::BrokerTransportFailure) => is_ours,
        _ => false,
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((error, message)) = result else { return };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        // Beside a record that was refused, or behind it: that one says why.
        let is_consequence = |code| {
            matches!(
                code,
                RDKafkaErrorCode::InvalidDifferentRecord
                    | RDKafkaErrorCode::PurgeQueue
                    | RDKafkaErrorCode::PurgeInflight
            )
        };
        let mut first = locked(&self.failed_delivery);
        if first.as_ref().is_none_or(|first| is_consequence(first.code) && !is_consequence(code)) {
            let (topic, event) = (message.topic().to_owned(), failed_event(message));
            let key = message.key().unwrap_or_default();
            let bytes = key.len() + message.payload_len();
            let key = String::from_utf8(key.to_vec()).ok();
            *first = Some(FailedDelivery { topic, code, key, bytes, event });
        }
    }
}

fn failed_event(message: &BorrowedMessage<'_>) -> Option<FailedEvent> {
    let headers = message.headers()?;
    let id = headers.iter().find(|header| header.key == "event-id");
    let id = id.and_then(|header| String::from_utf8(header.value?.to_vec()).ok());
    let all = headers.iter().filter_map(|header| Some((header.key.as_bytes(), header.value?)));
    Some(FailedEvent { id, subject: Subject::of(all)? })
}

//! What can go wrong between us and Kafka.

use std::{fmt, time::Duration};

use crate::{
    failure::{Code, Failure, Recovery},
    sink::{Report, Subject},
};

/// A failed exchange with Kafka.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// librdkafka refuses its configuration.
    #[error("cannot set up the Kafka client: {what}")]
    Settings {
        /// librdkafka's words, the property among them.
        what: String,
    },
    /// No broker answered in time.
    #[error("could not reach Kafka at {brokers}: {reason}")]
    Unreachable {
        /// The setting.
        brokers: String,
        /// The last thing librdkafka said of it.
        reason: String,
    },
    /// The brokers refuse user or password.
    #[error("cannot log in to Kafka at {brokers}: {reason}")]
    Authentication {
        /// The setting.
        brokers: String,
        /// librdkafka's words.
        reason: String,
    },
    /// A certificate is not trusted.
    #[error("cannot encrypt the connection to Kafka at {brokers}: {reason}")]
    Tls {
        /// The setting.
        brokers: String,
        /// librdkafka's words.
        reason: String,
    },
    /// The user may not do this.
    #[error("cannot {action}: Kafka does not allow it ({reason})")]
    Denied {
        /// A verb phrase.
        action: String,
        /// The broker's words.
        reason: String,
    },
    /// The brokers hold our epoch for an old one.
    #[error(
        "cannot go on as transactional id \"{transactional_id}\": another instance uses it, or \
         Kafka gave up a transaction that was open for too long"
    )]
    Fenced {
        /// Whose epoch it is.
        transactional_id: String,
        /// The bytes of the transaction's records, where one was open.
        bytes: usize,
        /// For how long it was open.
        open_for: Option<Duration>,
        /// For how long the brokers leave one open (`transaction.timeout.ms`).
        timeout: Duration,
    },
    /// A call took longer than it may.
    #[error("could not {action} within {} s ({bytes} bytes waited): {reason}", .limit.as_secs())]
    TimedOut {
        /// A verb phrase.
        action: String,
        /// The bound.
        limit: Duration,
        /// The bytes of the transaction's records.
        bytes: usize,
        /// The last thing librdkafka said.
        reason: String,
    },
    /// Records were not taken.
    #[error("could not deliver to topic \"{topic}\": {reason}")]
    Delivery {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
    },
    /// Another refused call.
    #[error("could not {action}: {reason}")]
    Call {
        /// A verb phrase.
        action: String,
        /// librdkafka's words.
        reason: String,
    },
    /// The topic is not there, and is not or cannot be made.
    #[error("topic \"{topic}\" does not exist{}", reason_suffix(.reason))]
    TopicMissing {
        /// The topic.
        topic: String,
        /// Why it was not made, where that was tried.
        reason: Option<String>,
        /// The command that makes it.
        command: String,
    },
    /// The checkpoint topic could lose checkpoints.
    #[error("checkpoint topic \"{topic}\" has {found} and must have {wanted}")]
    CheckpointTopicPolicy {
        /// The topic.
        topic: String,
        /// What it has.
        found: String,
        /// What it must have.
        wanted: &'static str,
        /// What mends it, as a sentence.
        mend: String,
    },
    /// A checkpoint under our key is nothing that we can read.
    #[error(
        "cannot read the record \"{key}\" at offset {offset} of checkpoint topic \"{topic}\": \
         {reason}"
    )]
    CheckpointUnreadable {
        /// The topic.
        topic: String,
        /// The record's key.
        key: String,
        /// Where it lies.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint is larger than its topic or our own client allows.
    #[error(
        "the record \"{key}\" of checkpoint topic \"{topic}\" has {bytes} bytes, and {limit} takes \
         none of that size"
    )]
    CheckpointTooLarge {
        /// The topic.
        topic: String,
        /// The record's key.
        key: String,
        /// Key and value, uncompressed.
        bytes: usize,
        /// What it meets first.
        limit: SizeLimit,
    },
    /// A record is larger than its topic or our own client allows.
    #[error(
        "event {event_id} of {subject} has {bytes} bytes with its framing, \
         and {limit} for topic \"{topic}\" takes {bytes_max}"
    )]
    EventTooLarge {
        /// The topic.
        topic: String,
        /// Key, value, headers and framing, uncompressed.
        bytes: usize,
        /// The smallest of the limits.
        bytes_max: usize,
        /// Which one that is.
        limit: SizeLimit,
        /// The transaction, or the rows, that the event is of.
        subject: Subject,
        /// The event.
        event_id: String,
    },
    /// What takes an event's place is too large as well.
    #[error(
        "the dead letter of an event of {subject} has {bytes} bytes with its \
         framing, and {limit} for topic \"{topic}\" takes {bytes_max}"
    )]
    DeadLetterTooLarge {
        /// The topic of dead letters.
        topic: String,
        /// Key, value, headers and framing, uncompressed.
        bytes: usize,
        /// The smallest of the limits.
        bytes_max: usize,
        /// Which one that is.
        limit: SizeLimit,
        /// The transaction, or the rows, that the event is of.
        subject: Subject,
    },
    /// The broker refuses a record for what it is.
    #[error(
        "event {event_id} of {subject} is refused by topic \"{topic}\": \
         {reason}"
    )]
    EventRefused {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
        /// The transaction, or the rows, that the event is of.
        subject: Subject,
        /// The event.
        event_id: String,
    },
    /// The caller ended the call.
    #[error("could not go on with Kafka: it was called off")]
    Cancelled,
    /// The thread that produces is gone.
    #[error("could not go on with Kafka: its thread has ended")]
    ThreadEnded,
}

/// What bounds a record's size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SizeLimit {
    /// The topic's `max.message.bytes`.
    Topic,
    /// The property `queue.buffering.max.kbytes`, as bytes.
    Queue,
    /// The property `message.max.bytes`.
    Message,
}

impl fmt::Display for SizeLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Topic => "max.message.bytes of the topic",
            Self::Queue => "queue.buffering.max.kbytes of kafka.properties",
            Self::Message => "message.max.bytes of kafka.properties",
        })
    }
}

impl SizeLimit {
    /// What raises it to `bytes` for the topic.
    fn raise(self, topic: &str, bytes: usize) -> String {
        match self {
            Self::Topic => format!(
                "Raise the topic's limit and start again: kafka-configs.sh --bootstrap-server \
                 <broker> --alter --entity-type topics --entity-name {topic} --add-config \
                 max.message.bytes={bytes}; above 16 MiB also queue.buffering.max.kbytes in \
                 kafka.properties."
            ),
            Self::Queue => format!(
                "Set queue.buffering.max.kbytes in kafka.properties to {} or more and start \
                 again.",
                bytes.div_ceil(1024)
            ),
            Self::Message => format!(
                "Set message.max.bytes in kafka.properties to {bytes} or more, or take it out: \
                 unless set, it is no limit; and start again."
            ),
        }
    }
}

impl KafkaError {
    /// What the caller hears of the error that ended the thread that produces.
    pub(super) fn into_report(self) -> Report {
        match self {
            Self::EventTooLarge { ref subject, .. }
            | Self::DeadLetterTooLarge { ref subject, .. }
            | Self::EventRefused { ref subject, .. } => {
                Report::Refused { subject: subject.clone(), failure: Box::new(self) }
            }
            _ => Report::Failed(Box::new(self)),
        }
    }
}

fn reason_suffix(reason: &Option<String>) -> String {
    reason.as_ref().map_or(String::new(), |reason| format!(" and cannot be made: {reason}"))
}

impl Failure for KafkaError {
    fn code(&self) -> Option<Code> {
        match self {
            Self::Settings { .. } => Some(Code::Settings),
            Self::Authentication { .. } => Some(Code::AuthFailed),
            Self::Tls { .. } => Some(Code::TlsFailed),
            Self::Denied { .. } => Some(Code::KafkaDenied),
            Self::Fenced { .. } => Some(Code::Fenced),
            Self::TopicMissing { .. } => Some(Code::TopicMissing),
            Self::CheckpointTopicPolicy { .. } | Self::CheckpointTooLarge { .. } => {
                Some(Code::CheckpointTopicPolicy)
            }
            Self::CheckpointUnreadable { .. } => Some(Code::CheckpointMissing),
            Self::EventTooLarge { .. } => Some(Code::EventTooLarge),
            Self::DeadLetterTooLarge { .. } => Some(Code::DeadLetterTooLarge),
            Self::EventRefused { .. } => Some(Code::EventUnmappable),
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Delivery { .. }
            | Self::Call { .. }
            | Self::Cancelled
            | Self::ThreadEnded => None,
        }
    }

    fn recovery(&self) -> Recovery {
        match self {
            Self::Settings { .. }
            | Self::Authentication { .. }
            | Self::Tls { .. }
            | Self::Denied { .. }
            | Self::TopicMissing { .. }
            | Self::CheckpointTopicPolicy { .. }
            | Self::CheckpointTooLarge { .. }
            | Self::CheckpointUnreadable { .. }
            | Self::EventTooLarge { .. }
            | Self::DeadLetterTooLarge { .. }
            | Self::EventRefused { .. } => Recovery::Stop,
            // Fenced by the broker's time-out is retried; whoever sees it without holding the
            // slot, or twice in a minute, has to stop by itself.
            Self::Fenced { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Delivery { .. }
            | Self::Call { .. }
            | Self::Cancelled
            | Self::ThreadEnded => Recovery::Retry,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Settings { .. } => {
                "Correct kafka.brokers or kafka.properties; the names are librdkafka's.".to_owned()
            }
            Self::Unreachable { .. } => {
                "Check kafka.brokers, that the brokers run, and that security.protocol in \
                 kafka.properties is theirs."
                    .to_owned()
            }
            Self::Authentication { .. } => {
                "Check sasl.mechanism, sasl.username and sasl.password in kafka.properties, or \
                 kafka.password_file."
                    .to_owned()
            }
            Self::Tls { .. } => {
                "Name the authority that signed the brokers' certificates by ssl.ca.location in \
                 kafka.properties, and the client's own by ssl.certificate.location and \
                 ssl.key.location where the brokers ask for one. The host of kafka.brokers must be \
                 a name of the certificate."
                    .to_owned()
            }
            Self::Denied { .. } => {
                "Allow the user Write and Describe on its topics and on its transactional id, and \
                 Read on the checkpoint topic."
                    .to_owned()
            }
            Self::Fenced { .. } => {
                "Stop the other instance of this slot; if there is none, look for a stalled broker \
                 or raise transaction.timeout.ms in kafka.properties."
                    .to_owned()
            }
            Self::TopicMissing { command, .. } => format!("Create the topic: {command}"),
            Self::CheckpointTopicPolicy { mend, .. } => mend.clone(),
            Self::CheckpointTooLarge { topic, bytes, limit, .. } => format!(
                "{} Each published table that is configured takes about 130 bytes of it: patterns \
                 that match fewer tables, or several pipelines, do too.",
                limit.raise(topic, bytes.saturating_mul(2))
            ),
            Self::CheckpointUnreadable { .. } => {
                "If a later version wrote it, run that version; nothing was published or \
                 acknowledged."
                    .to_owned()
            }
            Self::EventTooLarge { topic, bytes, limit, .. } => format!(
                "{} Or set on_error = \"dead-letter\", which puts such events into a topic of their \
                 own.",
                limit.raise(topic, bytes.saturating_add(*bytes / 4))
            ),
            Self::DeadLetterTooLarge { topic, bytes, limit, .. } => {
                limit.raise(topic, bytes.saturating_add(*bytes / 4))
            }
            Self::EventRefused { topic, .. } => format!(
                "Mend what topic \"{topic}\" refuses and start again: a compacted topic takes no \
                 null key (aggregate_id), message.timestamp.after.max.ms no commit time that far \
                 ahead of the broker's clock, a policy of the brokers says its own."
            ),
            Self::TimedOut { .. }
            | Self::Delivery { .. }
            | Self::Call { .. }
            | Self::Cancelled
            | Self::ThreadEnded => return None,
        };
        Some(hint)
    }
}

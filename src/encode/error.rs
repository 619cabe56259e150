//! Why an event cannot be a record.

use crate::{
    event::Reason,
    failure::{Code, Failure, Recovery},
    lsn::CommitLsn,
};

/// An event does not fit a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// A value has no JSON form.
    #[error("cannot encode event {event_id} at {commit_lsn}: {reason}")]
    Value {
        /// The event's id.
        event_id: String,
        /// The commit record of its transaction, or where its row was read.
        commit_lsn: CommitLsn,
        /// Which value, and why.
        reason: Reason,
    },
    /// It is larger than any record that the sink takes.
    #[error(
        "event {event_id} at {commit_lsn}, for topic \"{topic}\", has {bytes} \
         bytes, and the producer's queue takes {bytes_max}"
    )]
    TooLarge {
        /// The event's id.
        event_id: String,
        /// Where it was to go.
        topic: String,
        /// The commit record of its transaction, or where its row was read.
        commit_lsn: CommitLsn,
        /// Key and payload.
        bytes: usize,
        /// The most that the sink takes.
        bytes_max: usize,
    },
    /// What takes an event's place is larger than any record that the sink takes.
    #[error(
        "the dead letter for topic \"{topic}\" has {bytes} bytes, and the producer's queue takes \
         {bytes_max}; it says: {reason}"
    )]
    DeadLetterTooLarge {
        /// Where it was to go.
        topic: String,
        /// Why there is a dead letter.
        reason: String,
        /// Key and value.
        bytes: usize,
        /// The most that the sink takes.
        bytes_max: usize,
    },
}

impl Failure for EncodeError {
    fn code(&self) -> Option<Code> {
        match self {
            Self::Value { .. } => Some(Code::EventUnmappable),
            Self::TooLarge { .. } => Some(Code::EventTooLarge),
            Self::DeadLetterTooLarge { .. } => Some(Code::DeadLetterTooLarge),
        }
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Value { reason, .. } => Some(reason.hint()),
            Self::TooLarge { topic, bytes, .. } => {
                let bytes = bytes.saturating_add(bytes / 4);
                Some(format!(
                    "Let the application keep large content elsewhere and publish a reference to \
                     it. Or raise both limits and start again: queue.buffering.max.kbytes in \
                     kafka.properties to {}, and kafka-configs.sh --bootstrap-server <broker> \
                     --alter --entity-type topics --entity-name {topic} --add-config \
                     max.message.bytes={bytes}",
                    bytes.saturating_mul(2).div_ceil(1024)
                ))
            }
            Self::DeadLetterTooLarge { topic, bytes, .. } => {
                let bytes = bytes.saturating_add(bytes / 4);
                Some(format!(
                    "Raise both limits and start again: queue.buffering.max.kbytes in \
                     kafka.properties to {}, and, where the topic is there already, \
                     kafka-configs.sh --bootstrap-server <broker> --alter --entity-type topics \
                     --entity-name {topic} --add-config max.message.bytes={bytes}. Or let the \
                     application keep large content elsewhere; that holds for rows to come.",
                    bytes.saturating_mul(2).div_ceil(1024)
                ))
            }
        }
    }
}

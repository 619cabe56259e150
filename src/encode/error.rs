//! Why an event cannot be a record.

use crate::{
    failure::{Code, Failure, Recovery},
    lsn::CommitLsn,
};

/// An event does not fit a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// The batch would grow past what a [`Span`](crate::sink::Span) reaches.
    #[error(
        "event {event_id} for topic \"{topic}\", committed at {commit_lsn}, is too large: it makes \
         a batch of {bytes} bytes"
    )]
    TooLarge {
        /// The event's id.
        event_id: String,
        /// Where it was to go.
        topic: String,
        /// The commit record of its transaction.
        commit_lsn: CommitLsn,
        /// The batch with it.
        bytes: usize,
    },
}

impl Failure for EncodeError {
    fn code(&self) -> Option<Code> {
        match self {
            Self::TooLarge { .. } => Some(Code::EventTooLarge),
        }
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::TooLarge { .. } => Some(
                "No Kafka topic takes a record of this size. Let the application keep large \
                 content elsewhere and publish a reference to it."
                    .to_owned(),
            ),
        }
    }
}

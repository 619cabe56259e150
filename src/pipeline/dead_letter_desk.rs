//! What becomes of an event that cannot be published: a stop, or a dead letter in its place.
//!
//! A dead letter is an event like the others in all that counts positions: it has the `pg-seq` that
//! the event would have had, lies in the same Kafka transaction, and is skipped with it after a
//! crash.

use tracing::warn;

use crate::{
    change::Transaction,
    encode::{DeadLetter, EncodeError, Encoder},
    event::{EventError, Unmapped},
    failure::Failure,
    sink::{Batch, DEAD_LETTERS_SAID_EVERY, DeadLetterTopics, FailureStage},
    telemetry::Seldom,
};

/// Why a row or a message did not become a record.
#[derive(Debug)]
pub(super) enum Failed {
    /// It is no event.
    Map(EventError),
    /// It is no record.
    Encode(EncodeError),
}

impl Failed {
    /// Whether other rows of the same table can do better. If not, it is the table that does not fit
    /// the settings, and each of its rows would become a dead letter.
    fn is_of_one_event(&self) -> bool {
        match self {
            Self::Map(EventError::Column { .. }) => false,
            Self::Map(EventError::Unmappable { .. } | EventError::UnmappableMessage { .. })
            | Self::Encode(_) => true,
        }
    }

    fn stage(&self) -> FailureStage {
        match self {
            Self::Map(_) => FailureStage::Map,
            Self::Encode(_) => FailureStage::Encode,
        }
    }

    fn into_failure(self) -> Box<dyn Failure> {
        match self {
            Self::Map(error) => error.into(),
            Self::Encode(error) => error.into(),
        }
    }
}

/// Writes dead letters, where the settings ask for them.
#[derive(Debug)]
pub(super) struct DeadLetterDesk {
    topics: DeadLetterTopics,
    said: Seldom,
}

impl DeadLetterDesk {
    pub(super) fn new(topics: DeadLetterTopics) -> Self {
        Self { topics, said: Seldom::every(DEAD_LETTERS_SAID_EVERY) }
    }

    fn write(
        &mut self,
        encoder: &mut Encoder,
        batch: &mut Batch,
        failed: &Failed,
        unmapped: Unmapped<'_>,
        (transaction, sequence): (&Transaction, u64),
    ) -> Result<(), EncodeError> {
        let topic = self.topics.of(unmapped.topic);
        let reason = match failed {
            Failed::Map(error) => error.to_string(),
            Failed::Encode(error) => error.to_string(),
        };
        let stage = failed.stage();
        let letter = DeadLetter { unmapped, topic: &topic, stage, reason: &reason };
        encoder.encode_dead_letter(&letter, transaction, sequence, batch)?;
        if let Some(unsaid) = self.said.is_due() {
            warn!(topic, reason, unsaid, "an event cannot be published and becomes a dead letter");
        }
        Ok(())
    }
}

/// Puts a dead letter behind the records of `batch`, in the place of the event of that sequence.
///
/// # Errors
/// What stops the daemon: the failure itself where there is no desk or the whole table is concerned,
/// or that the dead letter is too large as well.
pub(super) fn write(
    desk: Option<&mut DeadLetterDesk>,
    encoder: &mut Encoder,
    batch: &mut Batch,
    (failed, unmapped): (Failed, Option<Unmapped<'_>>),
    place: (&Transaction, u64),
) -> Result<(), Box<dyn Failure>> {
    match (desk, unmapped) {
        (Some(desk), Some(unmapped)) if failed.is_of_one_event() => {
            Ok(desk.write(encoder, batch, &failed, unmapped, place)?)
        }
        _ => Err(failed.into_failure()),
    }
}

//! What becomes of an event that cannot be published: a stop, a dead letter in its place, or, where
//! events are only shown, a word.
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
            Self::Map(EventError::Column { .. } | EventError::Table { .. }) => false,
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

    /// What stops the daemon for it.
    pub(super) fn into_failure(self) -> Box<dyn Failure> {
        match self {
            Self::Map(error) => error.into(),
            Self::Encode(error) => error.into(),
        }
    }
}

/// What a change became.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// The current batch's last record.
    Record,
    /// Nothing: its table or prefix is not configured, or it was only told of.
    Nothing,
}

/// What is done with an event that cannot be published.
#[derive(Debug)]
pub(super) enum OnError {
    /// Nothing of its transaction and behind it is published.
    Halt,
    /// It becomes a dead letter.
    DeadLetter(DeadLetterDesk),
    /// It is said, and what follows goes on. For who shows events and publishes none: nobody relies
    /// on what is shown.
    Tell,
}

impl OnError {
    /// As the settings say.
    pub(super) fn of(topics: Option<DeadLetterTopics>) -> Self {
        topics.map_or(Self::Halt, |topics| Self::DeadLetter(DeadLetterDesk::new(topics)))
    }

    /// How many dead letters were written.
    pub(super) fn dead_letters(&self) -> u64 {
        match self {
            Self::DeadLetter(desk) => desk.written,
            Self::Halt | Self::Tell => 0,
        }
    }

    /// Settles a failure, at most by a record behind those of `batch`, in the place of the event of
    /// that sequence.
    ///
    /// # Errors
    /// What stops the daemon: the failure itself where it halts or the whole table is concerned, or
    /// that the dead letter is too large as well.
    pub(super) fn settle(
        &mut self,
        encoder: &mut Encoder,
        batch: &mut Batch,
        (failed, unmapped): (Failed, Option<Unmapped<'_>>),
        place: (&Transaction, u64),
    ) -> Result<Written, Box<dyn Failure>> {
        match (self, unmapped) {
            (Self::DeadLetter(desk), Some(unmapped)) if failed.is_of_one_event() => {
                let (transaction, sequence) = place;
                desk.write(&failed, unmapped, None, |letter| {
                    encoder.encode_dead_letter(letter, transaction, sequence, batch)
                })?;
                Ok(Written::Record)
            }
            (Self::Tell, _) => {
                let failure = failed.into_failure();
                let hint = failure.hint().unwrap_or_default();
                warn!(error = super::chain(&*failure), hint, "this is no event");
                Ok(Written::Nothing)
            }
            (Self::Halt | Self::DeadLetter(_), _) => Err(failed.into_failure()),
        }
    }

    /// The same for a row that was there before the stream, read for that request. Whether a dead
    /// letter took its place: if not, it stops what reads the rows.
    ///
    /// # Errors
    /// That the dead letter is too large.
    pub(super) fn settle_snapshot(
        &mut self,
        encoder: &mut Encoder,
        batch: &mut Batch,
        (failed, unmapped): (&Failed, Option<Unmapped<'_>>),
        (place, request): (&Transaction, Option<&str>),
    ) -> Result<bool, EncodeError> {
        let (Self::DeadLetter(desk), Some(unmapped)) = (self, unmapped) else { return Ok(false) };
        if !failed.is_of_one_event() {
            return Ok(false);
        }
        desk.write(failed, unmapped, request, |letter| {
            encoder.encode_snapshot_dead_letter(letter, place, batch)
        })?;
        Ok(true)
    }
}

/// Writes dead letters.
#[derive(Debug)]
pub(super) struct DeadLetterDesk {
    topics: DeadLetterTopics,
    written: u64,
    said: Seldom,
}

impl DeadLetterDesk {
    fn new(topics: DeadLetterTopics) -> Self {
        Self { topics, written: 0, said: Seldom::every(DEAD_LETTERS_SAID_EVERY) }
    }

    fn write(
        &mut self,
        failed: &Failed,
        unmapped: Unmapped<'_>,
        request: Option<&str>,
        encode: impl FnOnce(&DeadLetter<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let topic = self.topics.of(unmapped.topic);
        let reason = match failed {
            Failed::Map(error) => error.to_string(),
            Failed::Encode(error) => error.to_string(),
        };
        let stage = failed.stage();
        let letter = DeadLetter { unmapped, topic: &topic, stage, reason: &reason, request };
        encode(&letter)?;
        self.written += 1;
        if let Some(unsaid) = self.said.is_due() {
            warn!(topic, reason, unsaid, "an event cannot be published and becomes a dead letter");
        }
        Ok(())
    }
}

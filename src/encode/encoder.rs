//! One event after the other into a batch.

use std::{collections::HashMap, sync::Arc};

use super::{EncodeError, envelope, headers};
use crate::{
    change::Transaction,
    event::{DomainEvent, Payload},
    sink::{Batch, Record, Span, TopicId},
};

/// More than the labels and headers of a record take beside the event's own texts, in bytes.
const OVERHEAD_BYTES: usize = 512;

/// Encodes events, and knows the numbers of the topics that they go to.
///
/// A topic is announced in the batch of its first record. So an encoder lives as long as the sink
/// that its batches go to, and ends with it: after a batch that was thrown away the next encoder
/// announces everything anew.
#[derive(Debug, Default)]
pub struct Encoder {
    topics: HashMap<Arc<str>, TopicId>,
    /// The topic of the latest record: mostly also that of the next.
    latest: Option<(Arc<str>, TopicId)>,
}

impl Encoder {
    /// An encoder that has announced no topic.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the event as a record. `sequence` is its ordinal among the events of its
    /// transaction (`pg-seq`).
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`]; the batch is then as it was.
    pub fn encode(
        &mut self,
        event: &DomainEvent<'_>,
        transaction: &Transaction,
        sequence: u64,
        batch: &mut Batch,
    ) -> Result<(), EncodeError> {
        let arena = batch.arena_mut();
        let start = arena.len();
        arena.reserve(OVERHEAD_BYTES + payload_bytes(&event.payload));
        arena.extend_from_slice(event.key.unwrap_or_default());
        let value_start = arena.len();
        let has_value = envelope::write(arena, event);
        let headers_start = arena.len();
        let (header_count, id) = headers::write(arena, event, transaction, sequence);
        let end = arena.len();
        if u32::try_from(end).is_err() {
            arena.truncate(start);
            return Err(EncodeError::TooLarge {
                event_id: event.id.to_owned(),
                topic: event.topic.to_owned(),
                commit_lsn: transaction.commit_lsn,
                bytes: end,
            });
        }
        let topic = self.topic(event.topic, batch);
        batch.push(Record {
            topic,
            key: event.key.map(|_| span(start, value_start)),
            value: has_value.then(|| span(value_start, headers_start)),
            event_id: span(id.start, id.end),
            headers: span(headers_start, end),
            header_count,
            timestamp_ms: transaction.committed_at.unix_milliseconds(),
            commit_lsn: transaction.commit_lsn,
        });
        Ok(())
    }

    /// The number of a topic, which the batch announces where it is the first to use it.
    fn topic(&mut self, name: &str, batch: &mut Batch) -> TopicId {
        if let Some((latest, id)) = &self.latest
            && **latest == *name
        {
            return *id;
        }
        let (name, id) = match self.topics.get_key_value(name) {
            Some((name, id)) => (Arc::clone(name), *id),
            None => {
                let name: Arc<str> = Arc::from(name);
                let number = u32::try_from(self.topics.len()).expect("fewer topics than memory");
                let id = TopicId(number);
                self.topics.insert(Arc::clone(&name), id);
                batch.announce_topic(id, Arc::clone(&name));
                (name, id)
            }
        };
        self.latest = Some((name, id));
        id
    }
}

fn payload_bytes(payload: &Payload<'_>) -> usize {
    match payload {
        Payload::Data(text) | Payload::Envelope { text, .. } | Payload::Bare(Some(text)) => {
            text.len()
        }
        Payload::Bare(None) => 0,
    }
}

/// A span of an arena whose end was checked to be within reach.
fn span(start: usize, end: usize) -> Span {
    let place = |index| u32::try_from(index).expect("no further than the arena's end");
    Span { start: place(start), end: place(end) }
}

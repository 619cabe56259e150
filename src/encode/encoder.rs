//! One event after the other into a batch.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    DeadLetter, EncodeError, dead_letter, envelope,
    headers::{self, Origin},
};
use crate::{
    change::Transaction,
    event::{DomainEvent, Payload},
    sink::{Batch, NewTopic, Record, Span, TopicId, TopicUse},
    value::Written,
};

/// More than the labels and headers of a record take beside the event's own texts, in bytes.
const OVERHEAD_BYTES: usize = 512;

/// Encodes events, and knows the numbers of the topics that they go to.
///
/// A topic is announced in the batch of its first record. So an encoder lives as long as the sink
/// that its batches go to, and ends with it: after a batch that was thrown away the next encoder
/// announces everything anew.
#[derive(Debug)]
pub struct Encoder {
    record_bytes_max: usize,
    topics: HashMap<Arc<str>, TopicId>,
    /// The topic of the latest record: mostly also that of the next.
    latest: Option<(Arc<str>, TopicId)>,
}

impl Encoder {
    /// An encoder that has announced no topic. What the sink would not take, because it is larger
    /// than `record_bytes_max`, is refused before memory is taken for it.
    pub fn new(record_bytes_max: usize) -> Self {
        Self { record_bytes_max, topics: HashMap::new(), latest: None }
    }

    /// Appends the event as a record. `sequence` is its ordinal among the events of its
    /// transaction (`pg-seq`). Says whether its values are in the forms of their types.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`]; the batch is then as it was.
    pub fn encode(
        &mut self,
        event: &DomainEvent<'_>,
        transaction: &Transaction,
        sequence: u64,
        batch: &mut Batch,
    ) -> Result<Written, EncodeError> {
        self.append(event, transaction, Origin::Stream { sequence }, batch)
    }

    /// Appends the event of a row that was there before the stream began: without `pg-seq` and
    /// `pg-xid`. `place` has the consistent point as its position, and the time of the read.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`]; the batch is then as it was.
    pub fn encode_snapshot(
        &mut self,
        event: &DomainEvent<'_>,
        place: &Transaction,
        batch: &mut Batch,
    ) -> Result<Written, EncodeError> {
        self.append(event, place, Origin::Snapshot, batch)
    }

    fn append(
        &mut self,
        event: &DomainEvent<'_>,
        transaction: &Transaction,
        origin: Origin,
        batch: &mut Batch,
    ) -> Result<Written, EncodeError> {
        let bytes = event.key.map_or(0, <[u8]>::len) + payload_bytes(&event.payload);
        let too_large = |bytes| EncodeError::TooLarge {
            event_id: event.id.to_owned(),
            topic: event.topic.to_owned(),
            commit_lsn: transaction.commit_lsn,
            bytes,
            bytes_max: self.record_bytes_max,
        };
        if least_bytes(event, bytes) > self.record_bytes_max {
            return Err(too_large(bytes));
        }
        let arena = batch.arena_mut();
        let start = arena.len();
        arena.reserve(OVERHEAD_BYTES + bytes);
        arena.extend_from_slice(event.key.unwrap_or_default());
        let value_start = arena.len();
        let written = envelope::write(arena, event);
        let headers_start = arena.len();
        // What JSON escapes has grown, and so has what a row's names take.
        let bytes = headers_start - start;
        let written = match written {
            Ok(written) if bytes <= self.record_bytes_max => written,
            Ok(_) => {
                arena.truncate(start);
                return Err(too_large(bytes));
            }
            Err(reason) => {
                arena.truncate(start);
                return Err(EncodeError::Value {
                    event_id: event.id.to_owned(),
                    commit_lsn: transaction.commit_lsn,
                    reason,
                });
            }
        };
        let headers = headers::write(arena, event, transaction, origin);
        let parts = Parts {
            topic: self.topic(event.topic, TopicUse::Events, batch),
            key: event.key.map(|_| span(start, value_start)),
            value: written.map(|_| span(value_start, headers_start)),
            headers_start,
            headers,
        };
        parts.push_to(batch, transaction, event.partition);
        Ok(written.unwrap_or(Written::AsDescribed))
    }

    /// Appends a dead letter as a record, in the place of the event of that `sequence`.
    ///
    /// # Errors
    /// [`EncodeError::DeadLetterTooLarge`]; the batch is then as it was.
    pub fn encode_dead_letter(
        &mut self,
        letter: &DeadLetter<'_>,
        transaction: &Transaction,
        sequence: u64,
        batch: &mut Batch,
    ) -> Result<(), EncodeError> {
        self.append_dead_letter(letter, transaction, Origin::Stream { sequence }, batch)
    }

    /// The same for a row that was there before the stream began; see [`Encoder::encode_snapshot`].
    ///
    /// # Errors
    /// [`EncodeError::DeadLetterTooLarge`]; the batch is then as it was.
    pub fn encode_snapshot_dead_letter(
        &mut self,
        letter: &DeadLetter<'_>,
        place: &Transaction,
        batch: &mut Batch,
    ) -> Result<(), EncodeError> {
        self.append_dead_letter(letter, place, Origin::Snapshot, batch)
    }

    fn append_dead_letter(
        &mut self,
        letter: &DeadLetter<'_>,
        transaction: &Transaction,
        origin: Origin,
        batch: &mut Batch,
    ) -> Result<(), EncodeError> {
        let too_large = |bytes| EncodeError::DeadLetterTooLarge {
            topic: letter.topic.to_owned(),
            reason: letter.reason.to_owned(),
            bytes,
            bytes_max: self.record_bytes_max,
        };
        let bytes = dead_letter::bytes(&letter.unmapped);
        if bytes > self.record_bytes_max {
            return Err(too_large(bytes));
        }
        let key = letter.unmapped.key;
        let arena = batch.arena_mut();
        let start = arena.len();
        arena.extend_from_slice(key.unwrap_or_default());
        let value_start = arena.len();
        dead_letter::write_value(arena, &letter.unmapped.raw);
        let headers_start = arena.len();
        // What JSON escapes has grown.
        let bytes = headers_start - start;
        if bytes > self.record_bytes_max {
            arena.truncate(start);
            return Err(too_large(bytes));
        }
        let headers = headers::write_of_dead_letter(arena, letter, transaction, origin);
        let parts = Parts {
            topic: self.topic(letter.topic, TopicUse::DeadLetters, batch),
            key: key.map(|_| span(start, value_start)),
            value: Some(span(value_start, headers_start)),
            headers_start,
            headers,
        };
        parts.push_to(batch, transaction, None);
        Ok(())
    }

    /// The number of a topic, which the batch announces where it is the first to use it.
    fn topic(&mut self, name: &str, topic_use: TopicUse, batch: &mut Batch) -> TopicId {
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
                batch.announce_topic(NewTopic { id, name: Arc::clone(&name), topic_use });
                (name, id)
            }
        };
        self.latest = Some((name, id));
        id
    }
}

/// A record's parts at the end of a batch's arena: the headers come last.
struct Parts {
    topic: TopicId,
    key: Option<Span>,
    value: Option<Span>,
    headers_start: usize,
    /// How many they are, and where the event's id lies among them.
    headers: (u16, Range<usize>),
}

impl Parts {
    #[inline]
    fn push_to(self, batch: &mut Batch, transaction: &Transaction, partition: Option<u32>) {
        let (header_count, id) = self.headers;
        let end = batch.arena_mut().len();
        batch.push(Record {
            topic: self.topic,
            key: self.key,
            value: self.value,
            partition,
            event_id: span(id.start, id.end),
            headers: span(self.headers_start, end),
            header_count,
            timestamp_ms: transaction.committed_at.unix_milliseconds(),
            commit_lsn: transaction.commit_lsn,
        });
    }
}

/// What the event takes at least, where its texts have so many bytes: of rows, whose values have
/// another form, half of them.
fn least_bytes(event: &DomainEvent<'_>, bytes: usize) -> usize {
    match event.payload {
        Payload::Row(_) | Payload::Change { .. } => bytes / 2,
        Payload::Data(_) | Payload::Envelope { .. } | Payload::Bare(_) => bytes,
    }
}

fn payload_bytes(payload: &Payload<'_>) -> usize {
    match payload {
        Payload::Data(text) | Payload::Envelope { text, .. } | Payload::Bare(Some(text)) => {
            text.len()
        }
        Payload::Bare(None) => 0,
        Payload::Row(row) => row.text_bytes(),
        Payload::Change { before, after } => {
            [before, after].into_iter().flatten().map(|row| row.text_bytes()).sum()
        }
    }
}

/// # Panics
/// Where the arena exceeds 4 GiB: PostgreSQL sends 1 GiB at most in one row, of which a record is
/// made, and a batch is handed over long before.
fn span(start: usize, end: usize) -> Span {
    let place = |index| u32::try_from(index).expect("a batch stays below 4 GiB");
    Span { start: place(start), end: place(end) }
}

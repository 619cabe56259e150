//! A batch: many records in one arena, handed over at once.
//!
//! The arena is reused for the life of the process. A record is a handful of spans of it, so that
//! a row costs no allocation and a hand-over costs the same for one record as for thousands.

use std::sync::Arc;

use crate::lsn::CommitLsn;

/// A range of bytes of a batch's arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A topic by the number that its batches' caller gave it: dense, from 0, for the sink's life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TopicId(pub u32);

/// What a topic is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopicUse {
    /// Events.
    Events,
    /// What could not be delivered elsewhere.
    DeadLetters,
}

/// A topic, named before its first record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic {
    /// Its number from here on.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// What it is for.
    pub topic_use: TopicUse,
}

/// One record, all of it in the arena of its batch.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Where it goes; announced by [`Batch::announce_topic`] in this batch or an earlier one.
    pub topic: TopicId,
    /// The record's key; `None` is a null key.
    pub key: Option<Span>,
    /// The record's value; `None` is a null value.
    pub value: Option<Span>,
    /// The partition, where neither key nor id decides it.
    pub partition: Option<u32>,
    /// What the partitioner hashes where the key is null: the event's id as text.
    pub event_id: Span,
    /// Headers as [`Headers`] writes them.
    pub headers: Span,
    /// How many headers there are.
    pub header_count: u16,
    /// Record timestamp: milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Where the commit record of its transaction begins.
    pub commit_lsn: CommitLsn,
}

/// Numbers the cuts of one sink's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CutSequence(pub u64);

/// Whether the sink may gather more before it commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// Commit when it suits: at once when idle, grouped with what follows under load.
    Group,
    /// Commit exactly here, before anything that follows.
    Now,
}

/// A record of the checkpoint topic, encoded: a pipeline's position, or how far a table's rows are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The record's key in the checkpoint topic.
    pub key: Arc<str>,
    /// The record's value, JSON.
    pub value: Vec<u8>,
}

/// The checkpoints that are due at a cut: at most one of each key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoints(Vec<Checkpoint>);

impl Checkpoints {
    /// In the order in which their keys came first.
    pub fn iter(&self) -> impl Iterator<Item = &Checkpoint> {
        self.0.iter()
    }

    /// The bytes of their values.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|checkpoint| checkpoint.value.len()).sum()
    }

    /// Takes a later one in: it replaces the earlier one of its key.
    pub fn push(&mut self, later: Checkpoint) {
        match self.0.iter_mut().find(|earlier| earlier.key == later.key) {
            Some(earlier) => earlier.value = later.value,
            None => self.0.push(later),
        }
    }

    /// Takes in what a later cut has. A cut that is passed over leaves behind what the later one has
    /// no newer word of.
    pub fn succeed(&mut self, later: &Self) {
        later.iter().cloned().for_each(|checkpoint| self.push(checkpoint));
    }
}

impl From<Checkpoint> for Checkpoints {
    fn from(checkpoint: Checkpoint) -> Self {
        Self(vec![checkpoint])
    }
}

/// A place between two events where everything before it may be committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Its number, one more than the cut's before.
    pub sequence: CutSequence,
    /// What is written together with the records before it.
    pub checkpoints: Checkpoints,
    /// Whether more may be gathered first.
    pub urgency: Urgency,
}

/// Encoded records in order, and at most one cut: after the last of them.
#[derive(Debug, Default)]
pub struct Batch {
    arena: Vec<u8>,
    records: Vec<Record>,
    new_topics: Vec<NewTopic>,
    cut: Option<Cut>,
}

impl Batch {
    /// The bytes of all records.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The memory that the arena holds, in bytes.
    pub fn capacity(&self) -> usize {
        self.arena.capacity()
    }

    /// The records, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Topics that records of this batch are the first to use.
    pub fn new_topics(&self) -> &[NewTopic] {
        &self.new_topics
    }

    /// The cut after the last record.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// True where there is neither a record nor a cut.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.cut.is_none()
    }

    /// The bytes of a span.
    ///
    /// # Panics
    /// Where the span is of another batch.
    pub fn slice(&self, span: Span) -> &[u8] {
        self.arena
            .get(span.start as usize..span.end as usize)
            .expect("a span of this batch's arena")
    }

    /// The arena, to encode the next record at its end.
    pub fn arena_mut(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// The span from `start` to the arena's end.
    ///
    /// # Panics
    /// Where the arena exceeds 4 GiB: the largest value PostgreSQL sends is 1 GiB, and a batch is
    /// handed over long before.
    pub fn span_from(&self, start: usize) -> Span {
        let place = |index| u32::try_from(index).expect("a batch stays below 4 GiB");
        Span { start: place(start), end: place(self.arena.len()) }
    }

    /// Adds a record whose spans lie in this arena.
    pub fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Names a topic before its first record.
    pub fn announce_topic(&mut self, topic: NewTopic) {
        self.new_topics.push(topic);
    }

    /// Ends the batch here.
    pub fn set_cut(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    /// Forgets everything and keeps the memory, up to `capacity_max` bytes of it: one large
    /// record must not hold its room for ever.
    pub fn clear(&mut self, capacity_max: usize) {
        self.arena.clear();
        self.arena.shrink_to(capacity_max);
        self.records.clear();
        self.new_topics.clear();
        self.cut = None;
    }

    /// Takes back the records from `first_record` on. Topics that they announced stay announced.
    pub fn truncate(&mut self, first_record: usize) {
        let Some(first) = self.records.get(first_record) else { return };
        self.arena.truncate(first.first_byte() as usize);
        self.records.truncate(first_record);
    }

    /// Takes over what `later` announced, whose records are given up.
    pub fn announce_for(&mut self, later: &mut Batch) {
        self.new_topics.append(&mut later.new_topics);
    }

    /// Moves the records from `first_record` on, and their bytes, into the empty batch `rest`.
    pub fn split_into(&mut self, first_record: usize, rest: &mut Batch) {
        debug_assert!(
            rest.is_empty() && rest.arena.is_empty(),
            "the rest goes into an empty batch"
        );
        let Some(first) = self.records.get(first_record) else { return };
        // Records are encoded one after the other, so each one's bytes begin with its first span.
        let boundary = first.first_byte();
        rest.arena.extend_from_slice(self.arena.get(boundary as usize..).unwrap_or_default());
        rest.records
            .extend(self.records.drain(first_record..).map(|record| record.moved_by(boundary)));
        self.arena.truncate(boundary as usize);
    }
}

impl Record {
    fn spans(&self) -> impl Iterator<Item = Span> {
        [self.key, self.value, Some(self.event_id), Some(self.headers)].into_iter().flatten()
    }

    fn first_byte(&self) -> u32 {
        self.spans().map(|span| span.start).min().unwrap_or(0)
    }

    fn moved_by(self, bytes: u32) -> Self {
        let moved = |span: Span| Span { start: span.start - bytes, end: span.end - bytes };
        Self {
            key: self.key.map(moved),
            value: self.value.map(moved),
            event_id: moved(self.event_id),
            headers: moved(self.headers),
            ..self
        }
    }

    /// Key, value and headers in bytes, uncompressed: what a topic's `max.message.bytes` bounds.
    pub fn bytes(&self) -> usize {
        let of = |span: Span| (span.end - span.start) as usize;
        self.key.map_or(0, of) + self.value.map_or(0, of) + of(self.headers)
    }
}

/// Headers as they lie in the arena, one after the other: name length (u16), name, value length
/// (u32), value; native byte order.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Reads what [`Headers::write`] wrote.
    pub fn new(encoded: &'a [u8]) -> Self {
        Self { rest: encoded }
    }

    /// Appends one header.
    ///
    /// # Panics
    /// Where the name is longer than 65,535 bytes, or the value than 4 GiB.
    pub fn write(arena: &mut Vec<u8>, name: &str, value: &[u8]) {
        let name_length = u16::try_from(name.len()).expect("the caller bounds its header names");
        let value_length = u32::try_from(value.len()).expect("a batch stays below 4 GiB");
        arena.extend_from_slice(&name_length.to_ne_bytes());
        arena.extend_from_slice(name.as_bytes());
        arena.extend_from_slice(&value_length.to_ne_bytes());
        arena.extend_from_slice(value);
    }
}

impl<'a> Iterator for Headers<'a> {
    /// Name and value.
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_length, rest) = self.rest.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_ne_bytes(*name_length)))?;
        let (value_length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_ne_bytes(*value_length) as usize)?;
        self.rest = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batch: &mut Batch, text: &str) {
        let start = batch.arena.len();
        batch.arena.extend_from_slice(text.as_bytes());
        let value = batch.span_from(start);
        let start = batch.arena.len();
        Headers::write(&mut batch.arena, "event-id", text.as_bytes());
        let headers = batch.span_from(start);
        batch.push(Record {
            topic: TopicId(0),
            key: None,
            value: Some(value),
            partition: None,
            event_id: value,
            headers,
            header_count: 1,
            timestamp_ms: 0,
            commit_lsn: CommitLsn(crate::lsn::Lsn::from_wire(1).expect("a position")),
        });
    }

    #[test]
    fn split_moves_the_tail_with_its_bytes() {
        let (mut batch, mut rest) = (Batch::default(), Batch::default());
        for text in ["first", "second", "third"] {
            push(&mut batch, text);
        }
        batch.split_into(1, &mut rest);
        let values = |batch: &Batch| -> Vec<String> {
            let text = |span| String::from_utf8_lossy(batch.slice(span)).into_owned();
            batch.records.iter().filter_map(|record| record.value.map(text)).collect()
        };
        assert_eq!(values(&batch), ["first"]);
        assert_eq!(values(&rest), ["second", "third"]);
        let third = rest.records.get(1).expect("the third record");
        let header = Headers::new(rest.slice(third.headers)).next();
        assert_eq!(header, Some(("event-id".as_bytes(), "third".as_bytes())));
    }

    #[test]
    fn what_is_taken_back_leaves_the_records_before_it() {
        let mut batch = Batch::default();
        for text in ["first", "second", "third"] {
            push(&mut batch, text);
        }
        batch.truncate(3);
        assert_eq!(batch.records().len(), 3);
        batch.truncate(1);
        let [only] = batch.records() else { panic!("{batch:?}") };
        assert_eq!(batch.bytes(), only.headers.end as usize);
    }

    #[test]
    fn a_later_checkpoint_replaces_that_of_its_key_alone() {
        let one = |key: &str, value: &str| Checkpoint { key: key.into(), value: value.into() };
        let mut due = Checkpoints::from(one("7/shop/slot", "1"));
        due.push(one("7/shop/slot/snapshot/a", "a1"));
        let mut later = Checkpoints::from(one("7/shop/slot", "2"));
        later.push(one("7/shop/slot/snapshot/b", "b1"));
        due.succeed(&later);
        let values: Vec<&[u8]> = due.iter().map(|checkpoint| &*checkpoint.value).collect();
        assert_eq!(values, [&b"2"[..], b"a1", b"b1"]);
        assert_eq!(due.bytes(), 5);
    }

    #[test]
    fn one_large_record_does_not_hold_its_memory() {
        let mut batch = Batch::default();
        batch.arena.resize(1 << 20, 0);
        batch.clear(64);
        assert!(batch.capacity() <= 64);
        assert!(batch.is_empty());
    }
}

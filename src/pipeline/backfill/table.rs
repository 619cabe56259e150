//! One table's rows: what the stream does to them (`streamed`), what is read next (`read`), and what of
//! it may go out (`released`).

mod read;
mod released;
mod streamed;

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;
use tracing::warn;

use super::{
    Unfit,
    job::{Chunk, RangeEnd, Settling},
    outstanding::Outstanding,
    row_key::{KeyPlaces, RowKey},
    touches::{KeyHasher, Memory, Touches},
};
use crate::{
    change::{Relation, Tuple},
    checkpoint::{SnapshotRecord, SnapshotState},
    lsn::{CommitLsn, EndLsn},
    postgres::{Blocker, TableName},
};

/// What a chunk's rows are to take, in bytes: enough for what is done once for each chunk to count
/// for little.
const CHUNK_BYTES: usize = 512 << 10;

/// What they are to take once they are encoded, three batches: names and headers may be much longer
/// than values.
const ENCODED_BYTES: usize = 3 << 19;

/// A chunk is cut off there: rows may be wider than those before them.
pub(in crate::pipeline) const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Rows that are read and wait take no more than this, but for one chunk of a single huge row.
const HELD_BYTES_MAX: usize = 2 << 20;

/// The first chunk's rows, and the most that any has, with those that are looked at and left out.
const ROWS_FIRST: usize = 256;
const ROWS_MAX: usize = 1 << 16;

/// The most of them that are not left out: a record has some 500 bytes, however short its row is.
pub(in crate::pipeline) const MEANT_ROWS_MAX: usize = 3_000;

/// How many keys are looked for at once: so many alternatives a statement is planned quickly with.
const KEYS_MAX: usize = 200;

/// While more keys than this are outstanding no further range is read, and a chunk with more rows to
/// be left out is read again as a whole.
const OUTSTANDING_MAX: usize = 1_000;

/// The texts of all outstanding keys, in bytes: they go into one record, of which Kafka takes a
/// megabyte.
const OUTSTANDING_BYTES_MAX: usize = 256 << 10;

/// What was tried so often in vain is read while the stream is held.
const HELD_AFTER: u32 = 3;

/// The pause after a read in vain, and the longest one.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) rows_first: usize,
    pub(super) rows_max: usize,
    pub(super) keys_max: usize,
    pub(super) outstanding_max: usize,
    pub(super) outstanding_bytes_max: usize,
    pub(super) memory: Memory,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            rows_first: ROWS_FIRST,
            rows_max: ROWS_MAX,
            keys_max: KEYS_MAX,
            outstanding_max: OUTSTANDING_MAX,
            outstanding_bytes_max: OUTSTANDING_BYTES_MAX,
            memory: Memory::default(),
        }
    }
}

/// What comes before the first read of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It is not known what the table's key is.
    Unknown,
    /// What the stream does is remembered. Transactions may be open that it told of before.
    Unsettled,
    /// Whatever the stream told before remembering began, every snapshot shows.
    Settled,
}

/// A chunk that was read.
#[derive(Debug)]
struct Waiting {
    chunk: Chunk,
    asked: Asked,
    /// It was read while the stream was held.
    is_held: bool,
}

/// What a chunk was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Asked {
    Range(RangeEnd),
    Keys(Vec<RowKey>),
}

/// A row of a chunk that goes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::pipeline) struct Selected {
    /// Its place in the chunk.
    pub(in crate::pipeline) index: usize,
    /// Where the transaction was committed that moved it to its key, where that is why it was read.
    pub(in crate::pipeline) moved_at: Option<CommitLsn>,
}

/// What a chunk comes to, at the place of the stream where that was asked.
#[derive(Debug)]
pub(super) struct Release {
    pub(super) chunk: Chunk,
    pub(super) rows: Vec<Selected>,
    asked: Asked,
    /// Left out, to be looked for by themselves.
    left_out: Vec<RowKey>,
    /// Looked for, and out or gone or ahead.
    settled: Vec<RowKey>,
    /// Looked for in vain.
    vain: Vec<RowKey>,
}

/// A table whose rows are to be published.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: TableName,
    bounds: Bounds,
    record: SnapshotRecord,
    /// The record as it is was not written.
    is_changed: bool,
    /// What the stream said of the table last, with the names of its primary key's columns.
    described: Option<(Relation, Vec<String>)>,
    /// Where the key is in the stream's rows; none where the stream does not name rows by it.
    places: Option<KeyPlaces>,
    stage: Stage,
    /// Who is waited for since what was forgotten last.
    settling: Option<Settling>,
    /// Some of them, as far as that is known.
    waits_for: Vec<Blocker>,
    /// Grows when what is being read has become useless.
    generation: u64,
    hasher: KeyHasher,
    touches: Touches,
    outstanding: Outstanding,
    /// Where the open transaction moved rows to.
    moved: Vec<RowKey>,
    moved_bytes: usize,
    /// More than can be kept.
    is_moved_overflown: bool,
    /// It moved rows, perhaps, that it does not name by the key.
    is_moved_unknown: bool,
    /// In the order in which they were read.
    waiting: VecDeque<Waiting>,
    /// So many rows take as many bytes as a chunk should.
    rows_max: usize,
    /// The same for their records, once some were encoded.
    encoded_rows_max: Option<usize>,
    /// What the table is must be looked up anew.
    is_outdated: bool,
    /// How often in a row reading was in vain.
    tries: u32,
    paused_until: Option<Instant>,
}

impl Table {
    pub(super) fn new(
        name: TableName,
        record: SnapshotRecord,
        hasher: KeyHasher,
        bounds: Bounds,
    ) -> Self {
        Self {
            name,
            bounds,
            outstanding: Outstanding::of(&record.outstanding, &hasher),
            record,
            is_changed: false,
            described: None,
            places: None,
            stage: Stage::Unknown,
            settling: None,
            waits_for: Vec::new(),
            generation: 0,
            hasher,
            touches: Touches::new(bounds.memory),
            moved: Vec::new(),
            moved_bytes: 0,
            is_moved_overflown: false,
            is_moved_unknown: false,
            waiting: VecDeque::new(),
            rows_max: bounds.rows_first,
            encoded_rows_max: None,
            is_outdated: false,
            tries: 0,
            paused_until: None,
        }
    }

    /// One whose record is to be written with the next cut.
    pub(super) fn due(
        name: TableName,
        record: SnapshotRecord,
        hasher: KeyHasher,
        bounds: Bounds,
    ) -> Self {
        Self { is_changed: true, ..Self::new(name, record, hasher, bounds) }
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    pub(super) fn record(&self) -> &SnapshotRecord {
        &self.record
    }

    /// Whose end is waited for before rows are read, as far as that is known.
    pub(super) fn waits_for(&self) -> &[Blocker] {
        &self.waits_for
    }

    /// A checkpoint at `end` is about to be written.
    pub(super) fn pass(&mut self, end: EndLsn) {
        if self.record.contained.is_some_and(|contained| contained.below <= end) {
            self.record.contained = None;
            self.is_changed = true;
        }
    }

    /// The record, where it was not written since it became so.
    pub(super) fn take_changed(&mut self) -> Option<&SnapshotRecord> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        self.refresh();
        Some(&self.record)
    }

    /// The record of a table whose rest never comes.
    pub(super) fn failed_for(self, reason: &Unfit) -> SnapshotRecord {
        SnapshotRecord {
            state: SnapshotState::Failed,
            failure: Some(reason.to_string()),
            ..self.into_record()
        }
    }

    /// The record as it is now.
    pub(super) fn into_record(mut self) -> SnapshotRecord {
        self.refresh();
        self.record
    }

    fn refresh(&mut self) {
        self.record.outstanding = self.outstanding.to_record();
        self.record.written_at = jiff::Timestamp::now().to_string();
    }
}

/// How far it is, and what is begun anew.
impl Table {
    /// Whether something is out, or outstanding.
    fn has_begun(&self) -> bool {
        self.record.cursor.is_some() || self.record.is_at_end || !self.outstanding.is_empty()
    }

    fn is_remembering(&self) -> bool {
        self.stage != Stage::Unknown
    }

    /// Begins with the first row, for another request: those that are out come again.
    fn start_over(&mut self, reason: &str) {
        let record = &mut self.record;
        record.has_events = true;
        warn!(
            table = %self.name,
            rows = record.rows,
            reason,
            "the table's rows are published again from the first one on, under other ids"
        );
        (record.request, record.state) = (super::new_request(), SnapshotState::Due);
        (record.cursor, record.is_at_end, record.rows) = (None, false, 0);
        self.outstanding = Outstanding::default();
        self.is_changed = true;
        self.settle_anew();
    }

    /// What is outstanding, or touched, is forgotten: each snapshot from here on must show it.
    fn settle_anew(&mut self) {
        if self.is_remembering() {
            self.stage = Stage::Unsettled;
        }
        self.settling = None;
        self.discard();
    }

    /// Another table is read first: nothing has to be remembered until it is this one's turn.
    pub(super) fn put_off(&mut self) {
        self.discard();
        self.waits_for.clear();
        self.stage = Stage::Unknown;
        self.settling = None;
        self.touches = Touches::new(self.bounds.memory);
        self.tries = 0;
    }

    /// What was read and did not go out is read again.
    fn discard(&mut self) {
        self.waiting.clear();
        self.generation += 1;
    }

    /// What was read shows that the table is not what it was looked up as.
    pub(super) fn read_anew(&mut self, now: Instant) {
        self.is_outdated = true;
        self.discard();
        self.pause(now);
    }

    fn pause(&mut self, now: Instant) {
        self.tries += 1;
        self.paused_until = Some(now + (PAUSE * 2_u32.pow(self.tries.min(8))).min(PAUSE_MAX));
    }
}

fn key_of(places: &KeyPlaces, row: Tuple<'_>) -> Option<RowKey> {
    places.of_row(row)?.to_key()
}

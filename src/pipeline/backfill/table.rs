//! One table's rows: what is read next, and what of it may go out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use super::{
    Unfit,
    job::{Chunk, Expected, Job, Outcome, RangeEnd, Settling, Work, key_columns},
    outstanding::Outstanding,
    row_key::{Changed, KeyPlaces, RowKey},
    touches::{Hidden, KeyHasher, Memory, Touches},
};
use crate::{
    change::{Relation, ReplicaIdentity, RowChange, Transaction, Tuple},
    checkpoint::{SnapshotKeyColumn, SnapshotRecord, SnapshotState},
    lsn::{CommitLsn, EndLsn, Lsn},
    postgres::{
        TableName,
        snapshot::{RowBlock, Shape},
    },
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
}

/// What the stream does.
impl Table {
    /// The table as the changes that follow know it.
    pub(super) fn observe_relation(&mut self, relation: &Relation, primary_key: &[String]) {
        self.described = Some((relation.clone(), primary_key.to_vec()));
        self.find_places();
    }

    /// The stream's key must be the one that rows are ordered by. It is another one only before the
    /// key was altered, or after it.
    fn find_places(&mut self) {
        self.places = self.described.as_ref().and_then(|(relation, primary_key)| {
            let columns = &relation.columns;
            let count = match relation.replica_identity {
                ReplicaIdentity::Default | ReplicaIdentity::Index => {
                    columns.iter().filter(|column| column.is_replica_identity).count()
                }
                ReplicaIdentity::Full | ReplicaIdentity::Nothing => primary_key.len(),
            };
            let place = |column: &SnapshotKeyColumn| {
                let place = columns.iter().position(|found| found.name == column.name)?;
                let is_of_key = match relation.replica_identity {
                    ReplicaIdentity::Default | ReplicaIdentity::Index => {
                        columns.get(place)?.is_replica_identity
                    }
                    ReplicaIdentity::Full | ReplicaIdentity::Nothing => {
                        primary_key.contains(&column.name)
                    }
                };
                is_of_key.then_some(place)
            };
            let places: Option<Vec<usize>> = self.record.key.iter().map(place).collect();
            places.filter(|places| places.len() == count).map(KeyPlaces)
        });
    }

    /// Whether something is out, or outstanding.
    fn has_begun(&self) -> bool {
        self.record.cursor.is_some() || self.record.is_at_end || !self.outstanding.is_empty()
    }

    fn is_remembering(&self) -> bool {
        self.stage != Stage::Unknown
    }

    /// A change of the open transaction.
    pub(super) fn change(&mut self, transaction: &Transaction, change: RowChange<'_>) {
        self.observe_event();
        if !self.has_begun() && !self.is_remembering() {
            return;
        }
        let xid = transaction.xid;
        let changed = self.places.as_ref().map_or(Changed::Unknown, |at| at.of_change(change));
        let (keys, moved) = match changed {
            Changed::Unknown => {
                let may_move = matches!(change, RowChange::Update { old: Some(_), .. });
                if may_move && self.has_begun() {
                    // To where the cursor has been, perhaps, and nobody knows which row.
                    self.is_moved_unknown = true;
                }
                return self.touch_all(transaction);
            }
            Changed::Key(key) => ([Some(key.hash(&self.hasher)), None], None),
            Changed::Moved { from, to } => {
                let hashes = [from, to].map(|key| Some(key.hash(&self.hasher)));
                // A range may yet be read under a snapshot that does not show it.
                (hashes, to.to_key())
            }
        };
        if self.is_remembering() {
            keys.into_iter().flatten().for_each(|key| self.touches.touch(xid, key));
        }
        if let Some(key) = moved {
            self.moved_bytes += key.bytes();
            self.is_moved_overflown |=
                self.outstanding.bytes() + self.moved_bytes > self.bounds.outstanding_bytes_max;
            match self.is_moved_overflown {
                true => self.moved = Vec::new(),
                false => self.moved.push(key),
            }
        }
    }

    /// The open transaction emptied the table.
    pub(super) fn truncate(&mut self, transaction: &Transaction) {
        self.observe_event();
        self.touch_all(transaction);
    }

    fn observe_event(&mut self) {
        self.is_changed |= !std::mem::replace(&mut self.record.has_events, true);
    }

    /// The open transaction may have changed every row.
    fn touch_all(&mut self, transaction: &Transaction) {
        if self.is_remembering() {
            self.touches.touch_all(transaction.xid);
        }
    }

    /// The open transaction came to its end.
    pub(super) fn commit(&mut self, transaction: &Transaction) {
        for key in std::mem::take(&mut self.moved) {
            self.outstanding.insert(key, Some(transaction.commit_lsn), &self.hasher);
            self.is_changed = true;
        }
        self.moved_bytes = 0;
        if std::mem::take(&mut self.is_moved_overflown) {
            self.start_over("more keys were changed than can be looked for one by one");
        }
        if std::mem::take(&mut self.is_moved_unknown) && self.has_begun() {
            self.start_over("rows were changed while their key had other columns than is known");
        }
        if self.touches.take_overflow() {
            warn!(
                table = %self.name,
                "more changes of the table came than can be remembered before a snapshot showed \
                 them: what was read and is not out is read again, once the transactions have ended \
                 that are open now"
            );
            self.settle_anew();
        }
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
}

/// What is read.
impl Table {
    /// The next thing to do, while nothing is under way.
    pub(super) fn next_job(&mut self, now: Instant) -> Option<Job> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        let mut is_held = self.tries >= HELD_AFTER;
        let work = match self.stage {
            Stage::Unknown if self.record.key.is_empty() => Work::Describe,
            Stage::Unknown => {
                // From here on: what is open when the job begins is waited for.
                self.stage = Stage::Unsettled;
                Work::Settle { since: None }
            }
            Stage::Unsettled => Work::Settle { since: self.settling.take() },
            Stage::Settled => {
                // Its session is gone, and with it who would have the log written up to its position.
                let waits_alone = self.waiting.len() == 1
                    && self.waiting.iter().all(|one| one.chunk.rows.is_cut_off());
                let held: usize = self.waiting.iter().map(|one| one.chunk.rows.bytes()).sum();
                if held + CHUNK_BYTES_MAX > HELD_BYTES_MAX && !waits_alone {
                    return None;
                }
                let looks_for_keys =
                    self.waiting.iter().any(|one| matches!(one.asked, Asked::Keys(_)));
                let end = self.end();
                if !self.outstanding.is_empty() && !looks_for_keys {
                    let (keys, tries) = self.outstanding.next(self.bounds.keys_max);
                    is_held |= tries >= HELD_AFTER;
                    let keys = keys.into_iter().map(|key| key.0).collect();
                    Work::Keys { keys, end }
                } else if end == RangeEnd::OfTable
                    || self.outstanding.len() > self.bounds.outstanding_max
                    || (self.encoded_rows_max.is_none() && !self.waiting.is_empty() && !waits_alone)
                {
                    return None;
                } else {
                    let most = self.encoded_rows_max.unwrap_or(usize::MAX);
                    let most = match self.record.condition {
                        Some(_) => most,
                        None => most.min(MEANT_ROWS_MAX),
                    };
                    Work::Range { behind: end, rows_max: self.rows_max.min(most) }
                }
            }
        };
        Some(Job {
            table: self.name.clone(),
            condition: self.record.condition.clone(),
            expected: Expected { oid: self.record.oid, key: self.record.key.clone() },
            work,
            is_anew: std::mem::take(&mut self.is_outdated),
            is_held: is_held && self.stage == Stage::Settled,
            generation: self.generation,
        })
    }

    /// How far the ranges come that were read or are out.
    fn end(&self) -> RangeEnd {
        let read = self.waiting.iter().rev().find_map(|waiting| match &waiting.asked {
            Asked::Range(end) => Some(end.clone()),
            Asked::Keys(_) => None,
        });
        read.unwrap_or_else(|| match &self.record.cursor {
            _ if self.record.is_at_end => RangeEnd::OfTable,
            Some(key) => RangeEnd::At(RowKey(key.clone())),
            None => RangeEnd::Nowhere,
        })
    }

    /// What came of a job.
    ///
    /// # Errors
    /// Why it never will.
    pub(super) fn done(&mut self, job: Job, outcome: Outcome) -> Result<(), Unfit> {
        if job.generation != self.generation {
            return Ok(());
        }
        match outcome {
            Outcome::Described(shape) => self.describe(&shape),
            Outcome::Unsettled(settling, snapshot) => {
                // Nothing is read by now.
                self.touches.forget_shown_by(&snapshot);
                self.settling = Some(settling);
                Ok(())
            }
            Outcome::Settled(snapshot) => {
                if self.stage == Stage::Unsettled {
                    self.touches.forget_shown_by(&snapshot);
                    self.stage = Stage::Settled;
                }
                Ok(())
            }
            Outcome::Read(chunk) => self.take_chunk(job, chunk),
            Outcome::Altered(shape) => self.alter(&shape),
        }
    }

    /// A job failed, and is to be done again, a range with half of its rows. How often in a row that
    /// was so.
    pub(super) fn failed(&mut self, job: &Job, now: Instant) -> u32 {
        if job.generation == self.generation {
            if let Work::Range { rows_max, .. } = job.work {
                // It may have taken longer than a statement may. Where something else went wrong, the
                // next chunks are as large again.
                self.rows_max = self.rows_max.min((rows_max / 2).max(1));
            }
            self.pause(now);
        }
        self.touches.remember_all();
        self.tries
    }

    fn describe(&mut self, shape: &Shape) -> Result<(), Unfit> {
        if shape.oid != self.record.oid {
            return Err(Unfit::Gone);
        }
        if shape.key.is_empty() {
            return Err(Unfit::NoKey);
        }
        self.record.key = key_columns(shape);
        self.record.estimate = shape.estimate.filter(|_| self.record.condition.is_none());
        self.find_places();
        Ok(())
    }

    /// The table is not what it was looked up as: what is out was read in another order.
    fn alter(&mut self, shape: &Shape) -> Result<(), Unfit> {
        if shape.oid != self.record.oid {
            return Err(Unfit::Gone);
        }
        if shape.key.is_empty() {
            return Err(Unfit::NoKey);
        }
        if self.has_begun() {
            self.start_over("the key was altered while rows were read in the order of it");
        }
        self.forget_moved();
        self.record.key = Vec::new();
        self.put_off();
        Ok(())
    }

    /// Keys of the open transaction are those of a key that is no more.
    fn forget_moved(&mut self) {
        (self.moved, self.moved_bytes) = (Vec::new(), 0);
        (self.is_moved_overflown, self.is_moved_unknown) = (false, false);
    }

    fn take_chunk(&mut self, job: Job, chunk: Chunk) -> Result<(), Unfit> {
        let Job { work, is_held, .. } = job;
        let key = key_columns(&chunk.shape);
        if key != self.record.key {
            self.record.key = key;
            self.find_places();
        }
        let asked = match work {
            Work::Range { rows_max, .. } => {
                let count = chunk.rows.scanned();
                self.adapt(&chunk.rows);
                let places = KeyPlaces(chunk.shape.key.iter().map(|column| column.index).collect());
                let last = chunk.rows.last_scanned();
                let is_last = count < rows_max && !chunk.rows.is_cut_off();
                match (is_last, last) {
                    (true, _) | (false, None) => Asked::Range(RangeEnd::OfTable),
                    (false, Some(row)) => {
                        let key = key_of(&places, row).ok_or(Unfit::NoText)?;
                        Asked::Range(RangeEnd::At(key))
                    }
                }
            }
            Work::Keys { keys, .. } => Asked::Keys(keys.into_iter().map(RowKey).collect()),
            Work::Describe | Work::Settle { .. } => return Ok(()),
        };
        if self.waiting.is_empty() {
            // Nothing is under way, and what is read next has a later snapshot.
            self.touches.forget_shown_by(&chunk.moment.snapshot);
        }
        self.waiting.push_back(Waiting { chunk, asked, is_held });
        Ok(())
    }

    /// Has the next chunk take as many bytes as one should.
    fn adapt(&mut self, rows: &RowBlock) {
        let (count, bytes) = (rows.scanned().max(1), rows.filled_bytes().max(1));
        let fitting = count.saturating_mul(CHUNK_BYTES) / bytes;
        let fitting = if rows.is_cut_off() { fitting.min(count) } else { fitting };
        self.rows_max = fitting.clamp(1, self.rows_max.saturating_mul(8)).min(self.bounds.rows_max);
    }

    /// What a release was encoded to, in bytes. Rows that were looked at and left out count, as they do
    /// for what was read.
    pub(super) fn observe_encoded(&mut self, release: &Release, bytes: usize) {
        if let Asked::Range(_) = release.asked {
            let count = release.chunk.rows.scanned().max(1);
            let fitting = count.saturating_mul(ENCODED_BYTES) / bytes.max(1);
            self.encoded_rows_max = Some(fitting.max(1));
        }
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

/// What goes out.
impl Table {
    /// The position that the stream must have passed for the oldest chunk.
    pub(super) fn position(&self) -> Option<Lsn> {
        self.waiting.front().map(|waiting| waiting.chunk.moment.position)
    }

    /// Whether something waits that was read while the stream was held: each change that comes before
    /// it goes out may have it read in vain.
    pub(super) fn has_held(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.is_held)
    }

    /// Judges the oldest chunk, whose position the stream has passed, between two transactions. None
    /// where it is to be read again, with whatever was read behind it.
    ///
    /// # Errors
    /// Why it never comes.
    pub(super) fn judge(&mut self, now: Instant) -> Result<Option<Release>, Unfit> {
        let Some(Waiting { chunk, asked, .. }) = self.waiting.pop_front() else { return Ok(None) };
        let hidden = self.touches.hidden_from(&chunk.moment.snapshot);
        let places = KeyPlaces(chunk.shape.key.iter().map(|column| column.index).collect());
        let release = match asked {
            Asked::Range(end) => self.judge_range(chunk, end, &places, &hidden)?,
            Asked::Keys(keys) => Some(self.judge_keys(chunk, keys, &places, &hidden)?),
        };
        if release.is_none() {
            self.discard();
            self.pause(now);
        }
        Ok(release)
    }

    /// The rows whose key nobody touched behind the snapshot's back; none where those are too few.
    fn judge_range(
        &self,
        chunk: Chunk,
        end: RangeEnd,
        places: &KeyPlaces,
        hidden: &Hidden,
    ) -> Result<Option<Release>, Unfit> {
        if hidden.is_all() {
            return Ok(None);
        }
        let (mut rows, mut left_out, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = self.outstanding.bytes();
        for (index, row) in chunk.rows.rows().enumerate() {
            let texts = places.of_row(row).ok_or(Unfit::NoText)?;
            let hash = texts.hash(&self.hasher);
            let key = || texts.to_key().ok_or(Unfit::NoText);
            if hidden.contains(hash) {
                let key = key()?;
                bytes += key.bytes();
                left_out.push(key);
                if left_out.len() > self.bounds.outstanding_max
                    || bytes > self.bounds.outstanding_bytes_max
                {
                    return Ok(None);
                }
                continue;
            }
            rows.push(Selected { index, moved_at: None });
            if !self.outstanding.is_empty() {
                let key = key()?;
                if self.outstanding.contains(hash, || key.clone()) {
                    settled.push(key);
                }
            }
        }
        let (asked, vain) = (Asked::Range(end), Vec::new());
        Ok(Some(Release { chunk, rows, asked, left_out, settled, vain }))
    }

    /// Of the rows that were looked for those that nobody touched behind the snapshot's back. One
    /// that is not there is gone; one ahead comes with its range, which is read under a later
    /// snapshot.
    fn judge_keys(
        &self,
        chunk: Chunk,
        keys: Vec<RowKey>,
        places: &KeyPlaces,
        hidden: &Hidden,
    ) -> Result<Release, Unfit> {
        let mut found = BTreeMap::new();
        for (index, row) in chunk.rows.rows().enumerate() {
            let key = key_of(places, row).ok_or(Unfit::NoText)?;
            found.insert(key, (index, RowBlock::is_within_bound(row)));
        }
        let (mut rows, mut settled, mut vain) = (Vec::new(), Vec::new(), Vec::new());
        for key in &keys {
            // It may have come with its range meanwhile.
            let Some(moved_at) = self.outstanding.get(key) else { continue };
            if hidden.contains(key.hash(&self.hasher)) {
                vain.push(key.clone());
                continue;
            }
            if let Some((index, true)) = found.get(key) {
                rows.push(Selected { index: *index, moved_at });
            }
            settled.push(key.clone());
        }
        rows.sort_by_key(|selected: &Selected| selected.index);
        let (asked, left_out) = (Asked::Keys(keys), Vec::new());
        Ok(Release { chunk, rows, asked, left_out, settled, vain })
    }

    /// The rows of a release are on their way. Says whether those were the last ones.
    pub(super) fn release(&mut self, release: Release, now: Instant) -> bool {
        let Release { chunk, rows, asked, left_out, settled, vain } = release;
        let is_in_vain = rows.is_empty() && settled.is_empty() && !vain.is_empty();
        settled.iter().for_each(|key| self.outstanding.remove(key, &self.hasher));
        vain.iter().for_each(|key| self.outstanding.try_again(key));
        for key in left_out {
            self.outstanding.insert(key, None, &self.hasher);
        }
        let record = &mut self.record;
        record.rows += rows.len() as u64;
        match asked {
            Asked::Range(RangeEnd::At(key)) => record.cursor = Some(key.0),
            Asked::Range(RangeEnd::OfTable) => record.is_at_end = true,
            Asked::Range(RangeEnd::Nowhere) | Asked::Keys(_) => {}
        }
        let is_done = record.is_at_end && self.outstanding.is_empty();
        record.state = if is_done { SnapshotState::Done } else { SnapshotState::Running };
        self.is_changed = true;
        // Chunks that were read later have later snapshots, and so has what is under way.
        let oldest = self.waiting.front().map_or(&chunk, |waiting| &waiting.chunk);
        self.touches.forget_shown_by(&oldest.moment.snapshot);
        if is_in_vain {
            self.pause(now);
        } else {
            (self.tries, self.paused_until) = (0, None);
        }
        is_done
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

fn key_of(places: &KeyPlaces, row: Tuple<'_>) -> Option<RowKey> {
    places.of_row(row)?.to_key()
}

//! The rows that tables had before, beside the stream: initially, and whenever somebody asks.
//!
//! ```text
//! stream ─► Backfills: what the stream touched ──────────────┐
//!              │ Job                                          ▼
//!              └────► reading (another connection) ─► Chunk ─► judged where the stream has passed
//!                                                              its position ─► rows, record ─► cut
//! ```
//!
//! **What a consumer gets.** Events of the stream, and between two transactions of it rows of a
//! chunk, each as the events up to there leave it. So whoever applies all of them in their order has
//! the table, and each row that was there comes once as such.
//!
//! **Why that is so.** A chunk is read under a snapshot S, and goes out once the stream has passed a
//! position P that lies behind the commit of everything that S shows. Of the transactions that
//! touched a row, and that the stream told before the chunk goes out, each is shown by S or hidden
//! from it. Where none is hidden, the row is what all of them left. Where one is hidden, the row is
//! older than what the stream said, and is left out. Hidden are those that were committed behind S,
//! and those whose commit S does not show yet, because it waits for a synchronous standby: the log
//! has it then, and the stream may have told it before the chunk was read.
//!
//! - What the stream touches is remembered from before S (`touches`). What it told before that, S
//!   must show: so before the first chunk every transaction is waited for that was open when
//!   remembering began.
//! - What the oldest snapshot shows that anything may still be judged by, every later one shows, and
//!   it need not be remembered: of a slot that lags most of what the stream tells. While open
//!   transactions are waited for, that is the snapshot of the last look.
//! - TRUNCATE touches every key, and so does a transaction with very many keys, or one whose keys the
//!   stream does not say. A chunk from which it is hidden is read again.
//! - A row that was left out is outstanding: what the stream said of it may lack something (a large
//!   value that did not change, a rule that did not match). It is looked for by its key until it
//!   comes through, or is gone.
//! - A change of its key moves a row. Where it was ahead of the ranges that were read and is behind
//!   them now, no range has it; nor where one is still to be read under a snapshot from which the
//!   change is hidden. So from when remembering began each new key is outstanding too, from the commit
//!   on. A row that is found ahead of the ranges that were read comes with its own, which is read
//!   under a later snapshot.
//! - What is touched faster than it can be read (a row that somebody updates all the time) is read
//!   while nothing of the stream is taken: then only what is committed within a moment is hidden.
//!
//! A read ends soon, also where row filter and condition let few rows through: it looks at so many rows
//! and no more, and says how far it came.
//!
//! Nothing grows without bound. Where more was touched than can be remembered, remembering begins
//! anew, what was read and did not go out is read again, and open transactions are waited for again.
//! Where more rows were moved than can be looked for one by one, all rows come again from the first
//! one on, under another request, and so under other ids; so they do where the key is altered by which
//! they are ordered.
//!
//! **What is kept.** Of each table a record with cursor and outstanding keys, written with the cut
//! behind the rows: in the same Kafka transaction, or at least once with the next checkpoint. A
//! restart goes on from it. Chunks that did not go out are read again, and what the stream told since
//! the checkpoint it tells again. A transaction that moved rows has their keys in the record of the
//! first cut behind it.
//!
//! A table without a key is not read here, but at a start (`keyless`). What the stream brings of it
//! and its rows contain is known here, like that of a table which got its key later.
//!
//! Shown by `tests`: random transactions, with commits that become visible late, random reads and
//! crashes.

pub(super) mod due;
mod job;
mod meter;
mod outstanding;
mod reading;
mod row_key;
mod table;
#[cfg(test)]
mod tests;
mod touches;
mod written;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

pub(super) use self::{
    job::{Chunk, Job, Outcome},
    meter::Meter,
    reading::{ReadError, Reading, is_of_condition},
    table::Selected,
};
use self::{
    table::{Bounds, CHUNK_BYTES_MAX, MEANT_ROWS_MAX, Release, Table},
    touches::KeyHasher,
    written::Written,
};
use super::requests::SnapshotProgress;
use crate::{
    change::{Relation, RelationId, RowChange, Transaction},
    checkpoint::{SnapshotRecord, SnapshotState},
    event::table::PrimaryKey,
    lsn::{CommitLsn, EndLsn, Lsn},
    postgres::{Blocker, TableName},
    sink::CutSequence,
};

/// Another name for each request.
pub(super) fn new_request() -> String {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid().to_string()
}

/// Of no table.
const ORPHANED: u64 = u64::MAX;

/// So long at most the stream is held for a read.
const HELD_MAX: Duration = Duration::from_secs(2);

/// A table that fails so often in a row lets the next one be read first.
const FAILURES_MAX: u32 = 5;

/// Why a table's rows cannot be read, now or ever.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// Its rows have no order and no names.
    #[error("it has no key by which rows could be told apart")]
    NoKey,
    /// A record could not hold it.
    #[error("the key of a row is no text in UTF-8")]
    NoText,
    /// What the request says fails for some row.
    #[error("the condition cannot be carried out: {0}")]
    Condition(String),
    /// It is not there any more, or not published.
    #[error("the table is not published any more")]
    Gone,
    /// Somebody asked for a row that is no event, or none that Kafka takes.
    #[error("a row cannot be published: {0}")]
    Row(String),
}

/// A request, a row of which cannot be published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RefusedRows {
    pub(super) request: String,
    /// What Kafka said.
    pub(super) reason: String,
}

/// A table's rows that will never all come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Given {
    pub(super) record: SnapshotRecord,
    pub(super) reason: Unfit,
}

/// Rows that go out here, between two transactions.
#[derive(Debug)]
pub(super) struct Due {
    release: Release,
    request: String,
    is_requested: bool,
}

impl Due {
    pub(super) fn chunk(&self) -> &Chunk {
        &self.release.chunk
    }

    /// Which of its rows.
    pub(super) fn rows(&self) -> &[Selected] {
        &self.release.rows
    }

    /// Whether somebody asked for them.
    pub(super) fn is_requested(&self) -> bool {
        self.is_requested
    }

    /// For whom.
    pub(super) fn request(&self) -> &str {
        &self.request
    }
}

/// The tables whose rows are still to come.
#[derive(Debug, Default)]
pub(super) struct Backfills {
    /// The first one is read, then the next.
    tables: VecDeque<Table>,
    bounds: Bounds,
    hasher: KeyHasher,
    /// What the stream said last of tables whose rows may be asked for, with the names of the columns
    /// of their primary keys. It says it once.
    relations: HashMap<RelationId, (Relation, Vec<String>)>,
    /// Tables of which changes came.
    changed: HashSet<RelationId>,
    /// The last one of them, which most often is the next.
    last_changed: Option<RelationId>,
    /// The open transaction.
    open: Option<Transaction>,
    /// Every transaction that was committed below came by.
    passed: Option<Lsn>,
    /// What is being read, and since when.
    under_way: Option<(Job, Instant)>,
    /// Records of tables that are over, which are to be written.
    over: Vec<SnapshotRecord>,
    /// Records of tables that are over, of which the stream still brings what their rows contain.
    kept: Vec<SnapshotRecord>,
    /// A table without a key, whose rows must come before anything else of it.
    rows_first: Option<String>,
    given_up: Vec<Given>,
    written: Written,
    /// Tables came or went since their names were asked for.
    is_set_changed: bool,
    is_stopped: bool,
}

impl Backfills {
    /// Goes on with what records say that are written.
    pub(super) fn of(records: impl IntoIterator<Item = SnapshotRecord>) -> Self {
        // The checkpoint may name some that are nobody's by now.
        let mut backfills = Self { is_set_changed: true, ..Self::default() };
        for record in records {
            match record.state.is_unfinished() {
                true => backfills.push(record, Table::new),
                false => backfills.keep_contained(&record),
            }
        }
        backfills
    }

    /// Takes a table on. Its record is to be written.
    pub(super) fn add_due(&mut self, mut record: SnapshotRecord) {
        if let Some(index) = self.kept.iter().position(|kept| kept.oid == record.oid) {
            record.contained = self.kept.swap_remove(index).contained;
        }
        record.has_events |= self.changed.contains(&record.oid);
        self.push(record, Table::due);
    }

    fn keep_contained(&mut self, record: &SnapshotRecord) {
        if record.contained.is_some() {
            self.kept.push(record.clone());
            self.is_set_changed = true;
        }
    }

    fn push(
        &mut self,
        record: SnapshotRecord,
        table: impl FnOnce(TableName, SnapshotRecord, KeyHasher, Bounds) -> Table,
    ) {
        // A name that is none would be in no fingerprint.
        let Ok(name) = TableName::try_from(record.table.clone()) else { return };
        let oid = record.oid;
        let mut table = table(name, record, self.hasher.clone(), self.bounds);
        if let Some((relation, primary_key)) = self.relations.get(&oid) {
            table.observe_relation(relation, primary_key);
        }
        self.tables.push_back(table);
        self.is_set_changed = true;
    }

    /// Nothing is read and nothing goes out from here on. What the stream does is still observed.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Gives up those of a request, a row of which cannot be published.
    pub(super) fn give_up_request(&mut self, refused: &RefusedRows) {
        let is_it =
            |record: &&SnapshotRecord| record.is_requested && record.request == refused.request;
        let table = self.records().find(is_it).map(|record| record.table.clone());
        if let Some(table) = table {
            self.give_up(&table, Unfit::Row(refused.reason.clone()));
        }
    }

    /// Gives up those that are not published any more, or not the same tables.
    pub(super) fn keep(&mut self, is_published: impl Fn(&str, RelationId) -> bool) {
        let gone = self.records().filter(|record| !is_published(&record.table, record.oid));
        let gone: Vec<String> = gone.map(|record| record.table.clone()).collect();
        gone.iter().for_each(|table| self.give_up(table, Unfit::Gone));
    }

    /// Rows of it were to come, and it is nobody's table by now.
    pub(super) fn add_gone(&mut self, record: SnapshotRecord) {
        let record = SnapshotRecord {
            state: SnapshotState::Failed,
            failure: Some(Unfit::Gone.to_string()),
            written_at: jiff::Timestamp::now().to_string(),
            ..record
        };
        self.keep_contained(&record);
        self.over.push(record);
    }

    /// The names of those whose records the next start must know, where they are others than when this
    /// was asked last.
    pub(super) fn take_names(&mut self) -> Option<Vec<String>> {
        let is_changed = std::mem::take(&mut self.is_set_changed);
        let records = || self.records().chain(&self.kept);
        is_changed.then(|| records().map(|record| record.table.clone()).collect())
    }

    /// The records of those whose rows are still to come.
    pub(super) fn records(&self) -> impl Iterator<Item = &SnapshotRecord> {
        self.tables.iter().map(Table::record)
    }

    /// Whether some record was not written since it became what it is.
    pub(super) fn has_changed(&self) -> bool {
        !self.over.is_empty() || self.tables.iter().any(Table::is_changed)
    }

    /// The records that were not written since they became what they are.
    pub(super) fn take_changed(&mut self) -> Vec<SnapshotRecord> {
        let changed = self.tables.iter_mut().filter_map(Table::take_changed).cloned();
        self.over.drain(..).chain(changed).collect()
    }

    /// The same, which go out with that cut.
    pub(super) fn take_changed_for(&mut self, sequence: CutSequence) -> Vec<SnapshotRecord> {
        let changed = self.take_changed();
        self.written.push(sequence, &changed);
        changed
    }

    /// How far rows are that are durable by the report of that cut, or of one before it.
    pub(super) fn take_delivered(&mut self, sequence: CutSequence) -> Vec<SnapshotProgress> {
        self.written.take_delivered(sequence)
    }

    /// What was given up since this was asked last.
    pub(super) fn take_given_up(&mut self) -> Vec<Given> {
        std::mem::take(&mut self.given_up)
    }

    /// A table is not published any more, or its rows cannot be read.
    fn give_up(&mut self, name: &str, reason: Unfit) {
        let is_meant = |table: &Table| table.record().table == name;
        let Some(index) = self.tables.iter().position(is_meant) else { return };
        let Some(table) = self.tables.remove(index) else { return };
        self.orphan(&table.name);
        let record = table.failed_for(&reason);
        self.over.push(record.clone());
        // What was committed before the table went still comes.
        self.keep_contained(&record);
        self.given_up.push(Given { record, reason });
        self.is_set_changed = true;
    }

    /// The tables of which nothing is to be published that was committed there: rows that are out
    /// contain it.
    pub(super) fn contained(&self, commit_lsn: CommitLsn) -> impl Iterator<Item = RelationId> {
        let contains = move |record: &&SnapshotRecord| {
            record.contained.is_some_and(|contained| commit_lsn.lsn() < contained.below.lsn())
        };
        self.kept.iter().chain(self.records()).filter(contains).map(|record| record.oid)
    }

    /// A checkpoint at `end` is about to be written: nothing comes any more that was committed below.
    pub(super) fn pass(&mut self, end: EndLsn) {
        self.tables.iter_mut().for_each(|table| table.pass(end));
        let is_passed = |record: &SnapshotRecord| {
            record.contained.is_some_and(|contained| contained.below <= end)
        };
        while let Some(index) = self.kept.iter().position(is_passed) {
            let record = self.kept.swap_remove(index);
            let written_at = jiff::Timestamp::now().to_string();
            self.over.push(SnapshotRecord { contained: None, written_at, ..record });
            self.is_set_changed = true;
        }
    }

    /// Whether a table's rows are due, and nothing was done about it: one without a key is not begun
    /// beside the stream.
    pub(super) fn is_untouched(&self, relation: RelationId) -> bool {
        self.records().any(|record| record.oid == relation && record.is_untouched())
    }

    /// A table without a key, once it is known to be one.
    pub(super) fn take_rows_first(&mut self) -> Option<String> {
        self.rows_first.take()
    }

    /// What is being read for a table is nobody's, not even where its rows are asked for again.
    fn orphan(&mut self, table: &TableName) {
        if let Some((job, _)) = self.under_way.as_mut().filter(|(job, _)| job.table == *table) {
            job.generation = ORPHANED;
        }
    }

    fn of_relation(&mut self, relation: RelationId) -> impl Iterator<Item = &mut Table> {
        self.tables.iter_mut().filter(move |table| table.record().oid == relation)
    }
}

/// What the stream does.
impl Backfills {
    /// A domain table as the changes that follow know it.
    pub(super) fn observe_relation(&mut self, relation: &Relation, primary_key: &PrimaryKey) {
        let primary_key: &[String] = match primary_key {
            PrimaryKey::Columns(names) => names,
            PrimaryKey::Unknown => &[],
        };
        self.of_relation(relation.id)
            .for_each(|table| table.observe_relation(relation, primary_key));
        self.relations.insert(relation.id, (relation.clone(), primary_key.to_vec()));
    }

    /// Everything that was committed below came by.
    pub(super) fn observe_passed(&mut self, position: Lsn) {
        self.passed = self.passed.max(Some(position));
    }

    /// A transaction begins, of which something is to be published.
    pub(super) fn begin(&mut self, transaction: Transaction) {
        self.open = Some(transaction);
    }

    /// A row of the open transaction.
    pub(super) fn change(&mut self, relation: RelationId, change: RowChange<'_>) {
        let Some(transaction) = self.open else { return };
        self.of_relation(relation).for_each(|table| table.change(&transaction, change));
        self.observe_changed(relation);
    }

    /// Rows of it may be due later: of one that came by a pattern, once the publication is looked at.
    fn observe_changed(&mut self, relation: RelationId) {
        if self.last_changed != Some(relation) {
            self.last_changed = Some(relation);
            self.changed.insert(relation);
        }
    }

    /// Tables were emptied by the open transaction.
    pub(super) fn truncate(&mut self, relations: &[RelationId]) {
        let Some(transaction) = self.open else { return };
        for relation in relations {
            self.of_relation(*relation).for_each(|table| table.truncate(&transaction));
            self.observe_changed(*relation);
        }
    }

    /// The open transaction is received whole.
    pub(super) fn commit(&mut self) {
        if let Some(transaction) = self.open.take() {
            self.tables.iter_mut().for_each(|table| table.commit(&transaction));
        }
    }
}

/// What is read.
impl Backfills {
    /// What is to be read next, while nothing is.
    pub(super) fn next_job(&mut self, now: Instant) -> Option<Job> {
        if self.under_way.is_some() || self.is_stopped {
            return None;
        }
        let job = self.tables.front_mut()?.next_job(now)?;
        self.under_way = Some((job.clone(), now));
        Some(job)
    }

    /// Whether nothing of the stream is to be taken until what is being read is here.
    pub(super) fn holds_stream(&self, now: Instant) -> bool {
        let holds = |(job, since): &(Job, Instant)| job.is_held && now < *since + HELD_MAX;
        self.under_way.as_ref().is_some_and(holds)
    }

    /// What is being read, unless it is nobody's.
    fn take_under_way(&mut self) -> Option<Job> {
        let (job, _) = self.under_way.take()?;
        (job.generation != ORPHANED).then_some(job)
    }

    /// What was to be done is done.
    pub(super) fn done(&mut self, outcome: Outcome) {
        let Some(job) = self.take_under_way() else { return };
        let Some(table) = self.tables.iter_mut().find(|table| table.name == job.table) else {
            return;
        };
        let name = table.record().table.clone();
        match table.done(job, outcome) {
            Err(Unfit::NoKey) if table.record().is_untouched() => self.rows_first = Some(name),
            Err(reason) => self.give_up(&name, reason),
            Ok(()) => {}
        }
    }

    /// For whom the first table waits, as far as that is known.
    pub(super) fn waits_for(&self) -> Option<(&SnapshotRecord, &[Blocker])> {
        let first = self.tables.front().filter(|table| !table.waits_for().is_empty())?;
        Some((first.record(), first.waits_for()))
    }

    /// It never can be done.
    pub(super) fn refused(&mut self, reason: Unfit) {
        if let Some(job) = self.take_under_way() {
            self.give_up(&job.table.to_string(), reason);
        }
    }

    /// It could not be done, and may be later. Of which table it was.
    pub(super) fn failed(&mut self, now: Instant) -> Option<String> {
        let job = self.take_under_way()?;
        let table = self.tables.iter_mut().find(|table| table.name == job.table)?;
        if table.failed(&job, now) >= FAILURES_MAX && self.tables.len() > 1 {
            // Another one may be easier to read.
            if let Some(mut table) = self.tables.pop_front() {
                table.put_off();
                self.tables.push_back(table);
            }
        }
        Some(job.table.to_string())
    }
}

/// What goes out.
impl Backfills {
    /// Whether rows were read that the stream has passed: they go out between two transactions.
    pub(super) fn is_due(&self) -> bool {
        let position = self.tables.front().and_then(Table::position);
        !self.is_stopped && position.is_some_and(|position| self.passed >= Some(position))
    }

    /// Whether they do not wait for their turn: the stream is held for them, or was.
    pub(super) fn are_urgent(&self, now: Instant) -> bool {
        self.holds_stream(now) || self.tables.front().is_some_and(Table::has_held)
    }

    /// The rows that go out here; between two transactions only, until there are none.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Due> {
        debug_assert!(self.open.is_none(), "rows go out between two transactions");
        if !self.is_due() {
            return None;
        }
        let table = self.tables.front_mut()?;
        match table.judge(now) {
            Ok(release) => {
                let SnapshotRecord { request, is_requested, .. } = table.record();
                let (request, is_requested) = (request.clone(), *is_requested);
                release.map(|release| Due { release, request, is_requested })
            }
            Err(reason) => {
                let name = table.record().table.clone();
                self.give_up(&name, reason);
                None
            }
        }
    }

    /// They are on their way, encoded to so many bytes.
    pub(super) fn out(&mut self, due: Due, bytes: usize, now: Instant) {
        let Some(table) = self.tables.front_mut() else { return };
        table.observe_encoded(&due.release, bytes);
        if table.release(due.release, now)
            && let Some(table) = self.tables.pop_front()
        {
            self.orphan(&table.name);
            let record = table.into_record();
            self.keep_contained(&record);
            self.over.push(record);
            self.is_set_changed = true;
        }
    }

    /// One of the rows that are due cannot be published: neither is any other of that request.
    pub(super) fn give_up_due(&mut self, reason: String) {
        if let Some(table) = self.tables.front().map(|table| table.record().table.clone()) {
            self.give_up(&table, Unfit::Row(reason));
        }
    }

    /// What was read shows that the table is not what it was looked up as: nothing of it goes out.
    pub(super) fn read_anew(&mut self, now: Instant) {
        if let Some(table) = self.tables.front_mut() {
            table.read_anew(now);
        }
    }
}

//! Rows that tables had before, between two transactions of the stream.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::{
        backfill::{Backfills, Chunk, Due},
        chain,
        lookup::Answers,
        on_error::{Failed, OnError},
    },
    Assembler, BATCH_BYTES, BATCHES_PER_CHANGE, Trouble,
};
use crate::{
    change::{Place, Relation, Transaction, Tuple, TupleValue, Xid},
    checkpoint::Tracker,
    encode::Encoder,
    event::{
        Happening, Mapping, SnapshotRow,
        table::{Description, SnapshotMode},
    },
    failure::Failure,
    lsn::{CommitLsn, EndLsn},
    sink::{Batch, Checkpoints, CutSequence},
    value,
};

/// A row that was there is no change of a transaction.
const NO_PLACE: Place = Place { ordinal: 0, lsn: None, ordinal_at_lsn: 0 };

/// A request that somebody made, of which rows went out.
#[derive(Debug)]
pub(super) struct RequestOut {
    request: String,
    /// The cut behind them, once it is made.
    cut: Option<CutSequence>,
}

/// What is used by every row.
#[derive(Debug, Default)]
pub(super) struct RowMemory {
    /// As what the mapping knows the table.
    description: Option<Arc<Description>>,
    key: Vec<u8>,
    /// The catalog was asked anew, because a composite had other fields than its type.
    is_looked_up_anew: bool,
}

/// What became of a chunk.
enum Written {
    /// So many records, and their bytes.
    Records { count: usize, bytes: usize },
    /// Nothing: a type is not what it was looked up as.
    Outdated,
}

impl Assembler {
    /// The tables whose rows are still to come.
    pub(in crate::pipeline) fn backfills(&self) -> &Backfills {
        &self.backfills
    }

    /// The same, for whoever reads them, and adds to them.
    pub(in crate::pipeline) fn backfills_mut(&mut self) -> &mut Backfills {
        &mut self.backfills
    }

    /// Everything up to that cut is on Kafka.
    pub(in crate::pipeline) fn observe_delivered(&mut self, sequence: CutSequence) {
        self.requests_out.retain(|out| out.cut.is_none_or(|cut| cut > sequence));
    }

    /// Whether somebody made that request, and rows of it are on their way.
    pub(in crate::pipeline) fn has_rows_out_of(&self, request: &str) -> bool {
        self.requests_out.iter().any(|out| out.request == request)
    }

    /// Lets rows go out that may, where the stream is between two transactions and past what is
    /// published. What is written of them is there for the next cut, and so are records that changed
    /// without a row.
    pub(in crate::pipeline) fn release_rows(
        &mut self,
        tracker: &mut Tracker,
    ) -> Result<(), Trouble> {
        if self.open.is_some() || tracker.flush_lsn().is_none() {
            return Ok(());
        }
        let now = Instant::now();
        while self.has_room_for_rows(now)
            && let Some(due) = self.backfills.next_due(now)
        {
            if self.whole_records > 0 && due.chunk().rows.filled_bytes() > BATCH_BYTES / 8 {
                // It may become several batches, of which the first has no cut.
                self.hand_over_whole(tracker);
            }
            let first_record = self.current.records().len();
            match self.write_rows(&due) {
                Err(failure) => {
                    self.take_back(first_record);
                    self.row_memory.is_looked_up_anew = false;
                    if !due.is_requested() {
                        // What was handed over goes out, and no row behind this one.
                        self.backfills.stop();
                        return Err(Trouble::Row(failure));
                    }
                    // Whoever asked is told. The stream loses nothing by it.
                    self.backfills.give_up_due(chain(&*failure));
                }
                Ok(Written::Outdated) => {
                    self.take_back(first_record);
                    self.backfills.read_anew(now);
                }
                Ok(Written::Records { count, bytes }) => {
                    self.counters.events += count as u64;
                    self.counters.rows += count as u64;
                    let is_in_parts = !self.row_parts.is_empty();
                    self.ready.extend(self.row_parts.drain(..));
                    self.whole_records = self.current.records().len();
                    if count > 0 && due.is_requested() {
                        self.remember(due.request());
                    }
                    self.backfills.out(due, bytes, now);
                    self.turns.observe_rows(bytes);
                    self.is_cut_due = true;
                    if is_in_parts {
                        self.hand_over_whole(tracker);
                    }
                }
            }
            if self.current.bytes() >= BATCH_BYTES {
                self.hand_over_whole(tracker);
            }
        }
        self.is_cut_due |= self.backfills.has_changed();
        Ok(())
    }

    /// Gives up what was written of a chunk.
    fn take_back(&mut self, first_record: usize) {
        let mut parts = std::mem::take(&mut self.row_parts).into_iter();
        if let Some(first) = parts.next() {
            let last = std::mem::replace(&mut self.current, first);
            for mut part in parts.chain([last]) {
                self.current.announce_for(&mut part);
                self.keep(part);
            }
        }
        self.current.truncate(first_record);
    }

    fn remember(&mut self, request: &str) {
        match self.requests_out.iter_mut().find(|out| out.request == request) {
            Some(out) => out.cut = None,
            None => {
                self.requests_out.push(RequestOut { request: request.to_owned(), cut: None });
            }
        }
    }

    /// Writes the rows of a chunk behind the records of the current batch. Batches that it fills are
    /// kept until all of it is written.
    fn write_rows(&mut self, due: &Due) -> Result<Written, Box<dyn Failure>> {
        let Chunk { moment, shape, description, rows, read_at } = due.chunk();
        let place = Transaction {
            commit_lsn: CommitLsn(moment.position),
            xid: Xid(0),
            committed_at: *read_at,
        };
        let (mut count, mut bytes) = (0, 0);
        let known = self.row_memory.description.as_ref();
        if !known.is_some_and(|known| Arc::ptr_eq(known, description)) {
            self.mapping.observe_snapshot(shape.oid, description);
            self.row_memory.description = Some(Arc::clone(description));
        }
        let key: Vec<usize> = shape.key.iter().map(|column| column.index).collect();
        let mut selected = due.rows().iter().peekable();
        for (index, row) in rows.rows().enumerate() {
            let Some(found) = selected.next_if(|selected| selected.index == index) else {
                continue;
            };
            write_key(row, &key, &mut self.row_memory.key);
            let row = SnapshotRow {
                row,
                key: &self.row_memory.key,
                request: due.request(),
                moved_at: found.moved_at,
            };
            let mut desk = RowDesk {
                mapping: &mut self.mapping,
                encoder: &mut self.encoder,
                on_error: &mut self.on_error,
                place: &place,
            };
            let (records, size) = (self.current.records().len(), self.current.bytes());
            let written = desk.write(row, &mut self.current)?;
            count += self.current.records().len() - records;
            bytes += self.current.bytes() - size;
            if self.current.bytes() >= BATCH_BYTES
                && self.free.len() > BATCHES_PER_CHANGE
                && let Some(next) = self.free.pop()
            {
                self.row_parts.push(std::mem::replace(&mut self.current, next));
            }
            if written == value::Written::OtherFields && !self.row_memory.is_looked_up_anew {
                self.row_memory.is_looked_up_anew = true;
                return Ok(Written::Outdated);
            }
        }
        self.row_memory.is_looked_up_anew = false;
        Ok(Written::Records { count, bytes })
    }

    /// What is written with a cut: the pipeline's own checkpoint, and how far rows are.
    pub(super) fn checkpoints(&mut self, end: EndLsn, sequence: CutSequence) -> Checkpoints {
        for out in self.requests_out.iter_mut().filter(|out| out.cut.is_none()) {
            out.cut = Some(sequence);
        }
        self.backfills.pass(end);
        if let Some(tables) = self.backfills.take_names() {
            self.checkpoint.set_snapshots(tables);
        }
        let checkpoint = self.checkpoint.encode(end, self.last, self.in_progress);
        let mut checkpoints = Checkpoints::from(checkpoint);
        for record in self.backfills.take_changed_for(sequence) {
            checkpoints.push(self.checkpoint.encode_snapshot(&record));
        }
        checkpoints
    }
}

impl Assembler {
    /// Whether it must be known if a table has a key, before anything of it goes out: the rows that it
    /// had were not read.
    pub(super) fn may_be_unread(&self, relation: &Relation) -> bool {
        let settings = self.mapping.settings().table(&relation.schema, &relation.name);
        if settings.is_none_or(|settings| settings.snapshot != SnapshotMode::Initial) {
            return false;
        }
        let known = self.checkpoint.publication().tables.get(&relation.to_string());
        let is_taken_on = known.is_some_and(|table| table.oid == relation.id);
        !is_taken_on || self.backfills.is_untouched(relation.id)
    }

    pub(super) fn observe_unread(&mut self, relation: &Relation, answers: &Answers) {
        self.unread.retain(|(id, _)| *id != relation.id);
        if answers.has_rows_first {
            self.unread.push((relation.id, relation.to_string()));
        }
    }
}

/// Writes rows that were there before.
pub(in crate::pipeline) struct RowDesk<'a> {
    pub(in crate::pipeline) mapping: &'a mut Mapping,
    pub(in crate::pipeline) encoder: &'a mut Encoder,
    pub(in crate::pipeline) on_error: &'a mut OnError,
    /// Where and when they were read.
    pub(in crate::pipeline) place: &'a Transaction,
}

impl RowDesk<'_> {
    /// Writes what a row becomes behind the records of a batch.
    ///
    /// # Errors
    /// Why it cannot be published, where no dead letter takes its place.
    pub(in crate::pipeline) fn write(
        &mut self,
        row: SnapshotRow<'_>,
        batch: &mut Batch,
    ) -> Result<value::Written, Box<dyn Failure>> {
        let Self { mapping, encoder, on_error, place } = self;
        // Of no transaction, and so without a context.
        mapping.begin();
        let (mut written, request) = (value::Written::AsDescribed, Some(row.request));
        let mut events = mapping.events(Happening::Snapshot(row), place, NO_PLACE);
        loop {
            let failed = match events.next() {
                Ok(None) => return Ok(written),
                Ok(Some(event)) => match encoder.encode_snapshot(&event, place, batch) {
                    Ok(value::Written::AsDescribed) => continue,
                    Ok(value::Written::OtherFields) => {
                        written = value::Written::OtherFields;
                        continue;
                    }
                    Err(error) => Failed::Encode(error),
                },
                Err(error) => Failed::Map(error),
            };
            let failure = (&failed, events.unmapped());
            if !on_error.settle_snapshot(encoder, batch, failure, (place, request))? {
                return Err(failed.into_failure());
            }
            if !events.may_go_on() {
                return Ok(written);
            }
        }
    }
}

/// The texts of a row's key, each preceded by its length.
fn write_key(row: Tuple<'_>, places: &[usize], key: &mut Vec<u8>) {
    key.clear();
    for place in places {
        if let Some(TupleValue::Text(text)) = row.get(*place) {
            key.extend_from_slice(&(text.len() as u64).to_be_bytes());
            key.extend_from_slice(text);
        }
    }
}

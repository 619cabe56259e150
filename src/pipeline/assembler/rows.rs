//! Rows that tables had before, between two transactions of the stream.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::{
        backfill::{Backfills, Chunk, Due},
        lookup::Answers,
        on_error::{Failed, OnError},
    },
    Assembler, BATCH_BYTES, Trouble,
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
    lsn::{CommitLsn, EndLsn, Lsn},
    sink::{Batch, Checkpoints, CutSequence},
    value,
};

/// A row that was there is no change of a transaction.
const NO_PLACE: Place = Place { ordinal: 0, lsn: None, ordinal_at_lsn: 0 };

/// So many positions of chunks are remembered: more than the sink can have cuts that it did not
/// report.
const POSITIONS_MAX: usize = 256;

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
    /// Records of the current batch, so many.
    Records(usize),
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

    /// Whether a chunk that went out lately stands there.
    pub(in crate::pipeline) fn is_of_rows(&self, position: CommitLsn) -> bool {
        self.row_positions.contains(&position.lsn())
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
        while self.has_room()
            && let Some(due) = self.backfills.next_due(now)
        {
            let first_record = self.current.records().len();
            let written = self.write_rows(&due).map_err(|failure| {
                self.current.truncate(first_record);
                // What was handed over goes out, and no row behind this one.
                self.backfills.stop();
                Trouble::Row(failure)
            })?;
            match written {
                Written::Outdated => {
                    self.current.truncate(first_record);
                    self.backfills.read_anew(now);
                }
                Written::Records(count) => {
                    self.counters.events += count as u64;
                    self.counters.rows += count as u64;
                    self.whole_records = self.current.records().len();
                    self.remember(due.chunk().moment.position);
                    self.backfills.out(due, now);
                    self.is_cut_due = true;
                }
            }
            if self.current.bytes() >= BATCH_BYTES {
                self.hand_over_whole(tracker);
            }
        }
        self.is_cut_due |= self.backfills.has_changed();
        Ok(())
    }

    fn remember(&mut self, position: Lsn) {
        self.row_positions.push_back(position);
        let forgotten = self.row_positions.len().saturating_sub(POSITIONS_MAX);
        self.row_positions.drain(..forgotten);
    }

    /// Writes the rows of a chunk behind the records of the current batch.
    fn write_rows(&mut self, due: &Due) -> Result<Written, Box<dyn Failure>> {
        let Chunk { moment, shape, description, rows, read_at } = due.chunk();
        let place = Transaction {
            commit_lsn: CommitLsn(moment.position),
            xid: Xid(0),
            committed_at: *read_at,
        };
        let first_record = self.current.records().len();
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
            let written = desk.write(row, &mut self.current)?;
            if written == value::Written::OtherFields && !self.row_memory.is_looked_up_anew {
                self.row_memory.is_looked_up_anew = true;
                return Ok(Written::Outdated);
            }
        }
        self.row_memory.is_looked_up_anew = false;
        Ok(Written::Records(self.current.records().len() - first_record))
    }

    /// What is written with a cut: the pipeline's own checkpoint, and how far rows are.
    pub(super) fn checkpoints(&mut self, end: EndLsn, sequence: CutSequence) -> Checkpoints {
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
        let mut written = value::Written::AsDescribed;
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
            if !on_error.settle_snapshot(encoder, batch, failure, place)? {
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

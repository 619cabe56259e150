//! Rows become batches: which records belong together, where they may be cut, what the checkpoint
//! at each cut says.
//!
//! A transaction is never held back until its end: its records go into the batch as they come. What
//! keeps it whole is where cuts are made, because the sink commits at cuts only:
//!
//! - after the last whole transaction of a batch; the records of the open one behind it move on into
//!   the next batch;
//! - inside a transaction only where its events exceed `transaction_bytes`: between two changes,
//!   with a checkpoint that counts the changes that are out;
//! - without records, so that an idle table pins no WAL: never behind records of an open transaction.
//!
//! A transaction that is out in part stays in every checkpoint until it is received whole, so that
//! none can forget it.
//!
//! Between two transactions rows of tables go out that were there before (`rows`), each chunk whole,
//! with a cut behind it that has the record of how far they are, and in turns with the stream (`turns`).
//!
//! A batch that fills up inside a transaction, or inside a chunk, is handed over without a cut. Nothing
//! is read while the sink holds a fixed number of bytes, so memory is bounded whatever the size of a
//! transaction.

mod cuts;
mod published;
mod rows;
mod trouble;
mod turns;

use std::collections::VecDeque;

use tokio::time::Instant;

use self::{
    published::Published,
    rows::{RequestOut, RowMemory},
    turns::Turns,
};
pub(super) use self::{rows::RowDesk, trouble::Trouble};
use super::{
    backfill::Backfills,
    checkpoint_writer::CheckpointWriter,
    lookup::{Answers, Inquiry},
    on_error::{Failed, OnError, Written},
    resume::{Admission, Resume},
    table_identity::TableIdentities,
};
use crate::{
    change::{Place, Relation, RelationId, Transaction},
    checkpoint::{CheckpointRecord, InProgress, LastTransaction, Tracker},
    encode::Encoder,
    event::{self, Happening, LogicalMessage, Mapping},
    failure::Failure,
    lsn::{EndLsn, Lsn},
    postgres::transaction::Change,
    sink::Batch,
    value,
};

/// A batch is handed over when it holds this many bytes: large enough to make the hand-over free,
/// small enough that filling one and emptying another go on side by side.
const BATCH_BYTES: usize = 512 << 10;

/// The parts in which a transaction is published that need not become visible at once: below
/// `BATCH_BYTES`, so that no batch goes out without a cut, and a checkpoint can follow each one. A
/// stop in the middle then repeats nothing.
pub(super) const PART_BYTES_AT_LEAST_ONCE: usize = 256 << 10;

/// How many batches there are. Under backlog a few large ones are under way; below it each read
/// makes a small one, and a Kafka transaction takes in all that came since the one before.
const BATCHES: usize = 32;

/// Nothing is read while the sink holds this much, so that all batches together stay below 4 MiB:
/// at 150 MB/s it outlasts the commit of a Kafka transaction.
const BYTES_OUT_MAX: usize = 3 << 20;

/// No further chunk of rows is encoded while so much is on its way or is about to be: one is several
/// batches at once, and a change of the stream waits behind all of it.
const ROW_BYTES_OUT_MAX: usize = 2 << 20;

/// How many free batches one change may need.
const BATCHES_PER_CHANGE: usize = 2;

/// What all batches together may keep of their memory while they are free: a large record, or a
/// backlog that is over, must not hold its room for ever.
const FREE_CAPACITY_MAX: usize = 4 << 20;

/// While the sink holds this much it has enough to do, and smaller batches are gathered into one.
const BYTES_OUT_MIN: usize = BATCH_BYTES;

/// So many batches are kept back from gathered ones: what comes while the others are out goes out
/// in one.
const BATCHES_KEPT: usize = BATCHES_PER_CHANGE + 2;

/// The transaction that is open.
#[derive(Debug)]
struct Open {
    transaction: Transaction,
    /// None where the transaction is skipped.
    published: Option<Published>,
}

/// Where publishing goes on.
pub(super) struct Beginning {
    pub(super) checkpoint: CheckpointRecord,
    /// What the stream is asked of it.
    pub(super) resume: Resume,
    /// Rows that are still to come.
    pub(super) backfills: Backfills,
}

/// How large things may become, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// A transaction whose events exceed this is split.
    pub(super) transaction_bytes: usize,
    /// The largest record that the sink takes.
    pub(super) record_bytes: usize,
}

/// What the assembler counts for the line a minute.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counters {
    /// Events encoded.
    pub(super) events: u64,
    /// Transactions received whole, the skipped ones left out.
    pub(super) transactions: u64,
    /// How many of the events are rows that were there before.
    pub(super) rows: u64,
    /// How many of the events are dead letters.
    pub(super) dead_letters: u64,
    /// Messages outside of transactions that would have been events inside one.
    pub(super) unpublished_messages: u64,
}

/// Gathers records into batches.
pub(super) struct Assembler {
    mapping: Mapping,
    identities: TableIdentities,
    /// Domain tables, as the stream described them last.
    relations: Vec<Relation>,
    /// Tables without a key whose rows were not read yet.
    unread: Vec<(RelationId, String)>,
    /// One of the domain tables whose types must be asked for anew.
    outdated: Option<RelationId>,
    encoder: Encoder,
    on_error: OnError,
    resume: Resume,
    checkpoint: CheckpointWriter,
    backfills: Backfills,
    /// The requests that somebody made, with rows that went out and are not reported.
    requests_out: Vec<RequestOut>,
    /// What a chunk is written with.
    row_memory: RowMemory,
    /// Full batches of the chunk that is being written.
    row_parts: Vec<Batch>,
    turns: Turns,
    transaction_bytes: usize,
    current: Batch,
    /// Records of the current batch that belong to whole transactions.
    whole_records: usize,
    /// A transaction ended whose records were handed over without a cut.
    is_cut_due: bool,
    open: Option<Open>,
    last: Option<LastTransaction>,
    /// What every checkpoint says of the transaction that is out in part: the open one, or one that
    /// is still to come again.
    in_progress: Option<InProgress>,
    free: Vec<Batch>,
    ready: VecDeque<Batch>,
    /// Bytes of the batches that were taken and did not come back.
    bytes_out: usize,
    counters: Counters,
}

impl Assembler {
    pub(super) fn new(
        mapping: Mapping,
        beginning: Beginning,
        bounds: Bounds,
        on_error: OnError,
    ) -> Self {
        let Beginning { checkpoint, resume, backfills } = beginning;
        Self {
            identities: TableIdentities::new(&checkpoint.publication, mapping.settings()),
            mapping,
            relations: Vec::new(),
            unread: Vec::new(),
            outdated: None,
            encoder: Encoder::new(bounds.record_bytes),
            on_error,
            last: resume.last_of_publication(),
            in_progress: checkpoint.in_progress,
            resume,
            checkpoint: CheckpointWriter::new(checkpoint),
            backfills,
            requests_out: Vec::new(),
            row_memory: RowMemory::default(),
            row_parts: Vec::new(),
            turns: Turns::default(),
            transaction_bytes: bounds.transaction_bytes,
            current: Batch::default(),
            whole_records: 0,
            is_cut_due: false,
            open: None,
            free: (1..BATCHES).map(|_| Batch::default()).collect(),
            ready: VecDeque::with_capacity(BATCHES),
            bytes_out: 0,
            counters: Counters::default(),
        }
    }

    /// True while one more message can be taken, whatever it brings. This is the back-pressure.
    pub(super) fn has_room(&self) -> bool {
        // Where it is the turn of rows, the stream leaves them room.
        let is_for_rows =
            self.open.is_none() && self.backfills.is_due() && self.is_turn_of_rows(Instant::now());
        let most = if is_for_rows { ROW_BYTES_OUT_MAX } else { BYTES_OUT_MAX };
        self.free.len() >= BATCHES_PER_CHANGE && self.bytes_out < most
    }

    /// True while one more chunk of rows can be taken. What is gathered does not count: it may not be
    /// handed over before there is room.
    fn has_room_for_rows(&self, now: Instant) -> bool {
        let ready: usize = self.ready.iter().map(Batch::bytes).sum();
        self.free.len() >= BATCHES_PER_CHANGE
            && self.bytes_out + ready < ROW_BYTES_OUT_MAX
            && self.is_turn_of_rows(now)
    }

    fn is_turn_of_rows(&self, now: Instant) -> bool {
        !self.turns.is_of_stream() || self.backfills.are_urgent(now)
    }

    /// Whose turn it is.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// The same, to be told what the stream does.
    pub(super) fn turns_mut(&mut self) -> &mut Turns {
        &mut self.turns
    }

    /// True while the sink holds something.
    pub(super) fn has_out(&self) -> bool {
        self.bytes_out > 0
    }

    /// The next batch for the sink, in order.
    pub(super) fn take_ready(&mut self) -> Option<Batch> {
        let batch = self.ready.pop_front()?;
        self.bytes_out += batch.bytes();
        Some(batch)
    }

    /// True where [`Assembler::take_ready`] has something.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A batch comes back from the sink.
    pub(super) fn give_back(&mut self, batch: Batch) {
        self.bytes_out -= batch.bytes();
        self.keep(batch);
    }

    /// Has a batch ready to be filled again.
    fn keep(&mut self, mut batch: Batch) {
        let kept: usize = self.free.iter().map(Batch::capacity).sum();
        batch.clear(FREE_CAPACITY_MAX.saturating_sub(kept));
        self.free.push(batch);
    }

    /// What went by so far.
    pub(super) fn counters(&self) -> Counters {
        Counters { dead_letters: self.on_error.dead_letters(), ..self.counters }
    }

    /// The last transaction that was received whole.
    pub(super) fn last(&self) -> Option<LastTransaction> {
        self.last
    }

    /// How rows become events.
    pub(super) fn event_settings(&self) -> &event::Settings {
        self.mapping.settings()
    }

    /// What the checkpoint says of the publication from here on.
    pub(super) fn checkpoint_mut(&mut self) -> &mut CheckpointWriter {
        &mut self.checkpoint
    }

    /// The stream describes a table. Returns what must be asked of the catalog before
    /// [`Assembler::relation`].
    pub(super) fn described(&mut self, relation: &Relation) -> Inquiry {
        self.mapping.observe_description(relation.id);
        Inquiry { questions: self.mapping.questions(relation), rows: self.may_be_unread(relation) }
    }

    /// A table of which the latest change showed that a type is not what it was, and what must be
    /// asked of the catalog anew.
    pub(super) fn take_outdated(&mut self) -> Option<(Relation, Inquiry)> {
        let outdated = self.outdated.take()?;
        let relation = self.relations.iter().find(|relation| relation.id == outdated)?.clone();
        let questions = self.mapping.questions_anew(&relation)?;
        let rows = self.may_be_unread(&relation);
        Some((relation, Inquiry { questions, rows }))
    }

    /// A table as the changes that follow know it, with what the catalog answered; also while
    /// skipping.
    pub(super) fn relation(&mut self, relation: &Relation, answers: Answers) {
        self.observe_unread(relation, &answers);
        self.mapping.learn(answers.types);
        if self.mapping.settings().table(&relation.schema, &relation.name).is_some() {
            self.backfills.observe_relation(relation, &answers.primary_key);
        }
        self.mapping.observe_relation(relation, answers.primary_key);
        self.identities.observe(relation);
        self.relations.retain(|known| known.id != relation.id);
        if self.mapping.settings().table(&relation.schema, &relation.name).is_some() {
            self.relations.push(relation.clone());
        }
    }

    /// A keepalive's end. Outside a transaction everything that was committed below came by, and
    /// the tracker hears of it only where nothing is missing.
    pub(super) fn keepalive(&mut self, end: Lsn, tracker: &mut Tracker) -> Result<(), Trouble> {
        if self.open.is_some() {
            return Ok(());
        }
        self.resume.observe_passed(end)?;
        tracker.observe_keepalive(end);
        self.backfills.observe_passed(end);
        self.release_rows(tracker)
    }

    /// A transaction begins. Everything that was committed before it came by.
    pub(super) fn begin(
        &mut self,
        transaction: Transaction,
        tracker: &mut Tracker,
    ) -> Result<(), Trouble> {
        self.backfills.observe_passed(transaction.commit_lsn.lsn());
        self.release_rows(tracker)?;
        tracker.begin();
        let published = match self.resume.admit(&transaction)? {
            Admission::Skip => None,
            Admission::Publish => Some(Published::new(None)),
            Admission::GoOn(part) => Some(Published::new(Some(part))),
        };
        self.mapping.begin();
        self.mapping.leave_out(self.backfills.contained(transaction.commit_lsn));
        if published.is_some() {
            self.backfills.begin(transaction);
        }
        self.open = Some(Open { transaction, published });
        Ok(())
    }

    /// A change of the open transaction. What a message says of the events that follow counts also
    /// where it is skipped: they may not be.
    pub(super) fn change(
        &mut self,
        place: Place,
        change: &Change<'_>,
        tracker: &mut Tracker,
    ) -> Result<(), Trouble> {
        let Some(Open { transaction, published: Some(published) }) = &mut self.open else {
            return Ok(());
        };
        let happening = happening(change);
        let is_due = published.is_due(place, transaction.commit_lsn)?;
        let is_of = |table: &&(RelationId, String)| happening.relations().contains(&table.0);
        if let Some((_, table)) = self.unread.iter().find(is_of).filter(|_| is_due) {
            return Err(Trouble::RowsFirst(table.clone()));
        }
        // Also what is out: of a transaction that goes on all changes count.
        match happening {
            Happening::Message(message) => self.mapping.observe_message(message, transaction),
            Happening::Row { relation, change } => self.backfills.change(relation, change),
            Happening::Truncate { relations } => self.backfills.truncate(relations),
            Happening::Snapshot(_) => {}
        }
        if is_due {
            let first_record = self.current.records().len();
            let before = transaction.commit_lsn;
            self.write_events(happening, place)
                .map_err(|failure| Trouble::Halt { before, failure })?;
            self.take_in(first_record, tracker);
        }
        if let Some(Open { published: Some(published), .. }) = &mut self.open {
            published.pass(place, change.kind(), change.relation());
        }
        Ok(())
    }

    /// Writes what a change becomes behind the records of the current batch.
    fn write_events(
        &mut self,
        happening: Happening<'_>,
        place: Place,
    ) -> Result<(), Box<dyn Failure>> {
        let Some(Open { transaction, published: Some(published) }) = &self.open else {
            return Ok(());
        };
        // Also where no event comes of it: a row under a name that is not configured is lost.
        for relation in happening.relations() {
            self.identities.judge(*relation)?;
        }
        let (encoder, batch) = (&mut self.encoder, &mut self.current);
        let mut events = self.mapping.events(happening, transaction, place);
        let mut sequence = published.events;
        loop {
            let encoded = match events.next() {
                Ok(None) => return Ok(()),
                Ok(Some(event)) => {
                    let encoded = encoder.encode(&event, transaction, sequence, batch);
                    encoded.map_err(Failed::Encode)
                }
                Err(error) => Err(Failed::Map(error)),
            };
            let is_altered = matches!(encoded, Ok(value::Written::OtherFields));
            if is_altered || events.has_other_fields() {
                self.outdated = events.relation();
            }
            let written = match encoded {
                Ok(_) => Written::Record,
                Err(failed) => {
                    let failed = (failed, events.unmapped());
                    self.on_error.settle(encoder, batch, failed, (transaction, sequence))?
                }
            };
            match written {
                Written::Record => sequence += 1,
                Written::Nothing => {}
            }
            if !events.may_go_on() {
                return Ok(());
            }
        }
    }

    /// A message outside of transactions: never an event.
    pub(super) fn non_transactional_message(&mut self, prefix: &str) {
        if self.mapping.observe_non_transactional(prefix) {
            self.counters.unpublished_messages += 1;
        }
    }

    /// A transaction ends. The tracker hears of it only where it is what was published of it.
    pub(super) fn commit(&mut self, end: EndLsn, tracker: &mut Tracker) -> Result<(), Trouble> {
        let Some(Open { transaction, published }) = self.open.take() else { return Ok(()) };
        // Else the slot moves past the difference, and the next start finds nothing to compare.
        self.resume.observe_passed(end.lsn())?;
        let received = LastTransaction {
            commit_lsn: transaction.commit_lsn,
            xid: transaction.xid,
            commit_time: transaction.committed_at.0,
        };
        if let Some(published) = published {
            if published.part.is_some_and(|part| published.changes <= part.changes) {
                let what = "it has fewer changes";
                return Err(published.changed(transaction.commit_lsn, what).into());
            }
            self.is_cut_due |= published.is_handed_over;
            self.whole_records = self.current.records().len();
            self.in_progress = None;
            self.counters.transactions += 1;
            self.backfills.commit();
        }
        self.backfills.observe_passed(end.lsn());
        // Of those that are skipped the checkpoint's is the last, unless the publication is another.
        if self.last.is_none_or(|last| last.commit_lsn < received.commit_lsn) {
            self.last = Some(received);
        }
        tracker.commit(end);
        self.release_rows(tracker)
    }
}

fn happening<'a>(change: &Change<'a>) -> Happening<'a> {
    match *change {
        Change::Row { relation, change } => Happening::Row { relation, change },
        Change::Truncate { relations } => Happening::Truncate { relations },
        Change::Message { prefix, content, message_lsn } => {
            Happening::Message(LogicalMessage { prefix, content, message_lsn })
        }
    }
}

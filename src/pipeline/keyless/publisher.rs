//! Rows into Kafka transactions, each with the record of how far they are.

use std::collections::VecDeque;

use tokio::time::{Duration, Interval, interval};
use tracing::{info, warn};

use super::super::{
    assembler::RowDesk, backfill::Meter, on_error::OnError, settings::Settings, start::Failed,
};
use crate::{
    change::{PgTimestamp, Transaction, Tuple, ValueSlot, Xid},
    checkpoint::{CheckpointKey, CheckpointRecord, SnapshotRecord, SnapshotState},
    encode::Encoder,
    event::{Mapping, SnapshotRow},
    lsn::{CommitLsn, Lsn},
    postgres::{
        PostgresError,
        replication::ReplicationStream,
        snapshot::{SnapshotReader, WholeTable},
    },
    sink::{
        Batch, Checkpoint, Checkpoints, Cut, CutSequence, Report, Sink as _, Urgency,
        kafka::KafkaSink,
    },
};

/// A batch is handed over, and may be committed, when it holds this many bytes.
const BATCH_BYTES: usize = 512 << 10;

/// How many batches there are: enough for one to be filled while others are produced and committed.
const BATCHES: usize = 5;

/// Nothing is read while the sink holds this much: a batch of one huge row counts for many.
const BYTES_OUT_MAX: usize = 3 << 20;

/// What a batch that comes back may keep of its memory.
const BATCH_CAPACITY_MAX: usize = 2 * BATCH_BYTES;

/// How often the server hears from us.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Where rows come from.
pub(super) struct Source {
    /// The transaction that reads them.
    pub(super) reader: SnapshotReader,
    pub(super) rows: WholeTable,
}

/// What the rows become.
pub(super) struct Target<'a> {
    /// It knows the table whose rows come.
    pub(super) mapping: &'a mut Mapping,
    /// The pipeline.
    pub(super) key: CheckpointKey,
    /// The checkpoint, which says that the table has a record: written with the first rows.
    pub(super) checkpoint: Option<&'a CheckpointRecord>,
    /// The position of every row.
    pub(super) position: Lsn,
    /// How far the rows are.
    pub(super) record: SnapshotRecord,
}

/// Publishes the rows of one table after the other. Dropped, it leaves an open Kafka transaction that
/// is aborted.
pub(super) struct Publisher {
    encoder: Encoder,
    on_error: OnError,
    sink: KafkaSink,
    current: Batch,
    free: Vec<Batch>,
    next: CutSequence,
    /// Cuts that were not reported, oldest first.
    in_flight: VecDeque<CutSequence>,
    batches_out: usize,
    bytes_out: usize,
    frame: Vec<u8>,
    slots: Vec<ValueSlot>,
    ticks: Interval,
}

/// Says so where a table is left in the middle.
struct InTheMiddle {
    table: String,
    is_out: bool,
}

impl Drop for InTheMiddle {
    fn drop(&mut self) {
        if self.is_out {
            warn!(
                table = self.table,
                "not all rows of a table without a key were published before the end: where some of \
                 them are out, the next start asks for tailwater reset --snapshot"
            );
        }
    }
}

impl Publisher {
    pub(super) fn new(sink: KafkaSink, record_bytes_max: usize, settings: &Settings) -> Self {
        Self {
            encoder: Encoder::new(record_bytes_max),
            on_error: OnError::of(settings.dead_letters.clone()),
            sink,
            current: Batch::default(),
            free: (1..BATCHES).map(|_| Batch::default()).collect(),
            next: CutSequence(1),
            in_flight: VecDeque::new(),
            batches_out: 0,
            bytes_out: 0,
            frame: Vec::new(),
            slots: Vec::new(),
            ticks: interval(STATUS_INTERVAL),
        }
    }

    /// The sink, with nothing of ours in it.
    pub(super) fn into_sink(self) -> KafkaSink {
        debug_assert!(self.is_settled(), "whoever has it next knows nothing of these batches");
        self.sink
    }

    /// Publishes all rows of a table, and returns the record as it is written then.
    ///
    /// # Errors
    /// Where a row cannot be an event, or a server does not do its part. Some rows may be out then,
    /// which the record says as it is on Kafka.
    pub(super) async fn publish(
        &mut self,
        stream: &mut ReplicationStream,
        mut source: Source,
        mut target: Target<'_>,
    ) -> Result<SnapshotRecord, Failed> {
        let table = target.record.table.clone();
        let mut unfinished = InTheMiddle { table, is_out: false };
        let mut meter = Meter::default();
        meter.look(Some(&target.record));
        loop {
            let has_room = !self.free.is_empty() && self.bytes_out < BYTES_OUT_MAX;
            let Self { sink, ticks, frame, slots, .. } = self;
            tokio::select! {
                biased;
                report = sink.next_report() => self.on_report(report)?,
                _ = ticks.tick() => {
                    stream.send_status(None, None, false).await?;
                    meter.look(Some(&target.record));
                    // While there is no room nobody listens to it.
                    if source.reader.sql().is_closed() {
                        return Err(PostgresError::Ended.into());
                    }
                }
                is_there = source.rows.next(frame, slots), if has_room => {
                    if !is_there? {
                        break;
                    }
                    self.take(&mut target)?;
                    if self.current.bytes() >= BATCH_BYTES {
                        unfinished.is_out = true;
                        self.cut(&mut target, Urgency::Group);
                    }
                }
            }
        }
        target.record.state = SnapshotState::Done;
        unfinished.is_out = true;
        self.cut(&mut target, Urgency::Now);
        self.settle(stream).await?;
        unfinished.is_out = false;
        let SnapshotRecord { table, rows, .. } = &target.record;
        info!(
            table,
            rows,
            position = %target.position,
            "published the rows that a table without a key had; what the stream brings of it from \
             below that position is in them"
        );
        Ok(target.record)
    }

    /// The row that was just read.
    fn take(&mut self, target: &mut Target<'_>) -> Result<(), Failed> {
        let record = &mut target.record;
        let number = record.rows.to_be_bytes();
        record.rows += 1;
        let row = SnapshotRow {
            row: Tuple::new(&self.frame, &self.slots),
            key: &number,
            request: &record.request,
            moved_at: None,
        };
        let place = Transaction {
            commit_lsn: CommitLsn(target.position),
            xid: Xid(0),
            committed_at: PgTimestamp::now(),
        };
        let mut desk = RowDesk {
            mapping: target.mapping,
            encoder: &mut self.encoder,
            on_error: &mut self.on_error,
            place: &place,
        };
        // A composite with other fields is one of before its type was altered: its text is told.
        desk.write(row, &mut self.current).map(drop)
    }

    /// The batch, with the record of how far it goes.
    fn cut(&mut self, target: &mut Target<'_>, urgency: Urgency) {
        let Target { key, checkpoint, record, .. } = target;
        record.written_at = jiff::Timestamp::now().to_string();
        let encoded = |value: serde_json::Result<Vec<u8>>| {
            value.expect("texts, text keys and numbers always encode")
        };
        let value = encoded(serde_json::to_vec(record));
        let mut checkpoints =
            Checkpoints::from(Checkpoint { key: key.snapshot(&record.table).into(), value });
        if let Some(checkpoint) = checkpoint.take() {
            let value = encoded(serde_json::to_vec(checkpoint));
            checkpoints.push(Checkpoint { key: key.to_string().into(), value });
        }
        let sequence = self.next;
        self.next = CutSequence(sequence.0 + 1);
        self.current.set_cut(Cut { sequence, checkpoints, urgency });
        let next = self.free.pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.current, next);
        self.bytes_out += batch.bytes();
        self.sink.send(batch);
        self.in_flight.push_back(sequence);
        self.batches_out += 1;
    }

    fn on_report(&mut self, report: Report) -> Result<(), Failed> {
        match report {
            Report::Delivered(sequence) => self.in_flight.retain(|oldest| *oldest > sequence),
            Report::Emptied(mut batch) => {
                self.batches_out -= 1;
                self.bytes_out -= batch.bytes();
                batch.clear(BATCH_CAPACITY_MAX);
                self.free.push(batch);
            }
            Report::LastCall => self.sink.go_on(),
            Report::Refused { failure, .. } | Report::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.in_flight.is_empty() && self.batches_out == 0
    }

    /// Waits until everything that was handed over is committed, and every batch is back.
    async fn settle(&mut self, stream: &mut ReplicationStream) -> Result<(), Failed> {
        while !self.is_settled() {
            tokio::select! {
                biased;
                report = self.sink.next_report() => self.on_report(report)?,
                _ = self.ticks.tick() => stream.send_status(None, None, false).await?,
            }
        }
        Ok(())
    }
}

//! Rows into Kafka transactions, each with the record of how far they are.

use tokio::time::{Interval, interval};
use tracing::{info, warn};

use super::super::{
    assembler::RowDesk,
    backfill::Meter,
    on_error::OnError,
    row_batches::{RowBatches, STATUS_INTERVAL},
    settings::Settings,
    start::Failed,
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
    sink::{Checkpoint, Checkpoints, Urgency, kafka::KafkaSink},
};

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
    batches: RowBatches,
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
            batches: RowBatches::new(sink),
            frame: Vec::new(),
            slots: Vec::new(),
            ticks: interval(STATUS_INTERVAL),
        }
    }

    /// The sink, with nothing of ours in it.
    pub(super) fn into_sink(self) -> KafkaSink {
        self.batches.into_sink()
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
            let Self { batches, ticks, frame, slots, .. } = self;
            let has_room = batches.has_room();
            tokio::select! {
                biased;
                advanced = batches.advance() => advanced?,
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
                    if self.batches.is_full() {
                        unfinished.is_out = true;
                        self.cut(&mut target, Urgency::Group);
                    }
                }
            }
        }
        target.record.state = SnapshotState::Done;
        unfinished.is_out = true;
        self.cut(&mut target, Urgency::Now);
        self.batches.settle(stream, &mut self.ticks).await?;
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
        desk.write(row, self.batches.current()).map(drop)
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
        self.batches.hand_over(checkpoints, urgency);
    }
}

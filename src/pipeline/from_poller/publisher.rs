//! Rows into Kafka transactions, each with the record of how far it is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{Interval, interval};
use tracing::info;

use super::{
    super::{
        on_error::{self, OnError},
        row_batches::{RowBatches, STATUS_INTERVAL},
        start::Failed,
    },
    error::TakeOverError,
    streamed::StreamedRows,
    waiting::refused,
};
use crate::{
    change::{PgTimestamp, Place, RelationId, RowChange, Transaction, Tuple, ValueSlot},
    checkpoint::{Published, RowPlace, TakeOver},
    encode::Encoder,
    event::{EventError, Happening, Mapping},
    postgres::{
        TableName,
        replication::ReplicationStream,
        snapshot::{Row, Rows, RowsQuery},
    },
    sink::{Checkpoint, Checkpoints, Urgency, kafka::KafkaSink},
};

/// A row that waited is no change of a transaction.
const NO_PLACE: Place = Place { ordinal: 0, lsn: None, ordinal_at_lsn: 0 };

/// How often it is said how far it is.
const WORD_INTERVAL: Duration = Duration::from_secs(2);

/// What the rows become.
pub(super) struct Target {
    pub(super) query: RowsQuery,
    /// Who reads.
    pub(super) role: String,
    /// What becomes of a row that cannot be published.
    pub(super) on_error: OnError,
    pub(super) relation: RelationId,
    pub(super) mapping: Mapping,
    /// The consistent point, as the position of every row.
    pub(super) place: Transaction,
    /// The timeline of the consistent point.
    pub(super) timeline: u32,
    /// The key of the take-over's record.
    pub(super) key: String,
    /// How many columns a row has.
    pub(super) columns: usize,
}

/// Publishes rows in order. Dropped, it leaves an open Kafka transaction that is aborted.
pub(super) struct Publisher {
    target: Target,
    encoder: Encoder,
    batches: RowBatches,
    key: Arc<str>,
    record: TakeOver,
    frame: Vec<u8>,
    slots: Vec<ValueSlot>,
    meter: Meter,
    ticks: Interval,
}

impl Publisher {
    /// Goes on from `record`; `waiting` rows are to come.
    pub(super) fn new(
        target: Target,
        record: TakeOver,
        sink: KafkaSink,
        record_bytes_max: usize,
        waiting: u64,
    ) -> Self {
        Self {
            key: target.key.as_str().into(),
            target,
            encoder: Encoder::new(record_bytes_max),
            batches: RowBatches::new(sink),
            record,
            frame: Vec::new(),
            slots: Vec::new(),
            meter: Meter { waiting, passed: 0, since: Instant::now(), said_at: Instant::now() },
            ticks: interval(STATUS_INTERVAL),
        }
    }

    /// Publishes all rows but those that the stream brings. How many are published, those of
    /// earlier attempts included.
    ///
    /// # Errors
    /// Where a row cannot be an event: everything before it is published then. And where a server
    /// does not do its part.
    pub(super) async fn publish(
        &mut self,
        stream: &mut ReplicationStream,
        mut rows: Rows,
        streamed: &StreamedRows,
    ) -> Result<u64, Failed> {
        let mut unfit = None;
        while unfit.is_none() {
            let has_room = self.batches.has_room();
            tokio::select! {
                biased;
                advanced = self.batches.advance() => advanced?,
                _ = self.ticks.tick() => {
                    stream.send_status(None, None, false).await?;
                    self.meter.say(&self.target.query.table);
                }
                row = rows.next(), if has_room => match row {
                    Ok(Some(row)) => unfit = self.take(&row, streamed).err(),
                    Ok(None) => break,
                    Err(error) => {
                        unfit = Some(refused(&self.target.query, &self.target.role, error));
                    }
                },
            }
        }
        self.cut(Urgency::Now);
        self.batches.settle(stream, &mut self.ticks).await?;
        match unfit {
            Some(failure) => Err(failure),
            None => Ok(self.record.published.as_ref().map_or(0, |published| published.rows)),
        }
    }

    /// Ends the take-over: the first checkpoint, in a Kafka transaction behind all rows.
    ///
    /// # Errors
    /// Where Kafka does not do its part.
    pub(super) async fn end(
        mut self,
        stream: &mut ReplicationStream,
        checkpoints: Checkpoints,
    ) -> Result<(), Failed> {
        self.batches.hand_over(checkpoints, Urgency::Now);
        self.batches.settle(stream, &mut self.ticks).await?;
        // Committed: who takes our place now reads it.
        self.batches.close().await;
        Ok(())
    }

    fn take(&mut self, row: &Row, streamed: &StreamedRows) -> Result<(), Failed> {
        self.meter.passed += 1;
        let id = row.id()?;
        if id.is_some_and(|id| streamed.contain(id)) {
            return Ok(());
        }
        self.read_values(row)?;
        let Self { target, encoder, batches, frame, slots, .. } = self;
        target.mapping.begin();
        target.place.committed_at = PgTimestamp::now();
        let tuple = Tuple::new(frame, slots);
        let (relation, change) = (target.relation, RowChange::Insert { new: tuple });
        let happening = Happening::Row { relation, change };
        let mut events = target.mapping.events(happening, &target.place, NO_PLACE);
        let outcome = match events.next() {
            Ok(Some(event)) => encoder
                .encode_snapshot(&event, &target.place, batches.current())
                .map(drop)
                .map_err(on_error::Failed::Encode),
            Ok(None) => Ok(()),
            Err(error) => Err(on_error::Failed::Map(error)),
        };
        if let Err(failed) = outcome {
            let failure = (&failed, events.unmapped());
            // A row without an id has no place that a later attempt could go on behind.
            let is_settled = id.is_some()
                && target.on_error.settle_snapshot(
                    encoder,
                    batches.current(),
                    failure,
                    (&target.place, None),
                )?;
            if !is_settled {
                return Err(unfit(&target.query.table, id, failed));
            }
        }
        let id = id.unwrap_or_default().to_owned();
        let last = RowPlace { created_at: row.created_at()?.map(str::to_owned), id };
        let rows = self.record.published.as_ref().map_or(0, |published| published.rows);
        self.record.published = Some(Published {
            consistent_lsn: crate::lsn::EndLsn(self.target.place.commit_lsn.lsn()),
            timeline: self.target.timeline,
            last,
            rows: rows + 1,
        });
        if self.batches.is_full() {
            self.cut(Urgency::Group);
        }
        Ok(())
    }

    /// The row's values as a tuple of the stream has them.
    fn read_values(&mut self, row: &Row) -> Result<(), Failed> {
        self.frame.clear();
        self.slots.clear();
        for index in 0..self.target.columns {
            let place = |length| u32::try_from(length).expect("a row has less than 1 GiB");
            self.slots.push(match row.value(index)? {
                Some(text) => {
                    let start = place(self.frame.len());
                    self.frame.extend_from_slice(text.as_bytes());
                    ValueSlot::Text { start, length: place(text.len()) }
                }
                None => ValueSlot::Null,
            });
        }
        Ok(())
    }

    /// The batch, with the record of how far it goes.
    fn cut(&mut self, urgency: Urgency) {
        if self.batches.is_empty() {
            return;
        }
        self.record.written_at = jiff::Timestamp::now().to_string();
        let value = serde_json::to_vec(&self.record).expect("texts and numbers always encode");
        let checkpoint = Checkpoint { key: Arc::clone(&self.key), value };
        self.batches.hand_over(checkpoint.into(), urgency);
    }
}

fn unfit(table: &TableName, id: Option<&str>, failed: on_error::Failed) -> Failed {
    match failed {
        on_error::Failed::Map(EventError::Unmappable { reason, .. }) => {
            let (table, id) = (table.clone(), id.unwrap_or("NULL").to_owned());
            TakeOverError::Unfit { table, id, reason }.into()
        }
        on_error::Failed::Map(error) => error.into(),
        on_error::Failed::Encode(error) => error.into(),
    }
}

/// How far it is.
struct Meter {
    waiting: u64,
    passed: u64,
    since: Instant,
    said_at: Instant,
}

impl Meter {
    fn say(&mut self, table: &TableName) {
        if self.said_at.elapsed() < WORD_INTERVAL {
            return;
        }
        self.said_at = Instant::now();
        let rate = self.passed as f64 / self.since.elapsed().as_secs_f64();
        let left = self.waiting.saturating_sub(self.passed) as f64 / rate.max(1.);
        info!(
            %table,
            rows = self.passed,
            of = self.waiting,
            rows_per_second = rate.round(),
            seconds_left = left.round(),
            "taking over"
        );
    }
}

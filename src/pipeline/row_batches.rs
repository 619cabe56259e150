//! Rows on their way to Kafka while the stream is held: nothing of the stream is among them.

use std::collections::VecDeque;

use tokio::time::{Duration, Interval};

use super::start::Failed;
use crate::{
    postgres::replication::ReplicationStream,
    sink::{Batch, Checkpoints, Cut, CutSequence, Report, Sink as _, Urgency, kafka::KafkaSink},
};

/// A batch is handed over, and may be committed, when it holds this many bytes.
const BATCH_BYTES: usize = 512 << 10;

/// How many batches there are: enough for one to be filled while others are produced and committed.
const BATCHES: usize = 5;

/// Nothing is read while the sink holds this much: a batch of one huge row counts for many.
const BYTES_OUT_MAX: usize = 3 << 20;

/// What a batch that comes back may keep of its memory.
const BATCH_CAPACITY_MAX: usize = 2 * BATCH_BYTES;

/// How often the server hears from us meanwhile.
pub(super) const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The batch that is being filled, and those that the sink has. Dropped, it leaves an open Kafka
/// transaction that is aborted.
pub(super) struct RowBatches {
    sink: KafkaSink,
    current: Batch,
    free: Vec<Batch>,
    next: CutSequence,
    /// Cuts that were not reported, oldest first.
    in_flight: VecDeque<CutSequence>,
    batches_out: usize,
    bytes_out: usize,
}

impl RowBatches {
    pub(super) fn new(sink: KafkaSink) -> Self {
        Self {
            sink,
            current: Batch::default(),
            free: (1..BATCHES).map(|_| Batch::default()).collect(),
            next: CutSequence(1),
            in_flight: VecDeque::new(),
            batches_out: 0,
            bytes_out: 0,
        }
    }

    /// The batch that is being filled.
    pub(super) fn current(&mut self) -> &mut Batch {
        &mut self.current
    }

    /// True where the batch that is being filled has as much as it should.
    pub(super) fn is_full(&self) -> bool {
        self.current.bytes() >= BATCH_BYTES
    }

    /// True where nothing was written since the last one was handed over.
    pub(super) fn is_empty(&self) -> bool {
        self.current.records().is_empty()
    }

    /// While there is none, no row is read: this is the back-pressure.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() && self.bytes_out < BYTES_OUT_MAX
    }

    /// Hands over what was written, with the checkpoints that are true behind it.
    pub(super) fn hand_over(&mut self, checkpoints: Checkpoints, urgency: Urgency) {
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

    /// Waits until the sink has got on.
    ///
    /// # Errors
    /// What ended it.
    ///
    /// # Cancel safety
    /// Nothing that the sink reports is lost.
    pub(super) async fn advance(&mut self) -> Result<(), Failed> {
        match self.sink.next_report().await {
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
    ///
    /// # Errors
    /// What ended the sink, or the stream.
    pub(super) async fn settle(
        &mut self,
        stream: &mut ReplicationStream,
        ticks: &mut Interval,
    ) -> Result<(), Failed> {
        while !self.is_settled() {
            tokio::select! {
                biased;
                advanced = self.advance() => advanced?,
                _ = ticks.tick() => stream.send_status(None, None, false).await?,
            }
        }
        Ok(())
    }

    /// The sink, with nothing of ours in it.
    pub(super) fn into_sink(self) -> KafkaSink {
        debug_assert!(self.is_settled(), "whoever has it next knows nothing of these batches");
        self.sink
    }

    /// Ends the sink.
    pub(super) async fn close(self) {
        drop(self.sink.close().await);
    }
}

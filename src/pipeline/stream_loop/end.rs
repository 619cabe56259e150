//! How a stream ends, and what is done then.

use std::time::Duration;

use tracing::{debug, warn};

use super::{
    super::{assembler::Trouble, shutdown::Shutdown},
    STATUS_INTERVAL, StreamLoop,
};
use crate::{
    failure::{Code, Failure},
    lsn::CommitLsn,
    postgres::PostgresError,
    sink::Sink,
};

/// How long it is waited for who holds the slot.
const HOLDER_MAX: Duration = Duration::from_secs(5);

/// How long draining may take at a stop: some time is left behind it, for the closing handshakes.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// How long draining before a halt may take: not by itself, but by `kafka.outage_grace` and a wish to
/// stop.
const HALT_DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long closing both sides may take; each bounds itself below this.
const CLOSE_MAX: Duration = Duration::from_secs(4);

/// Why a stream ended.
#[derive(Debug)]
pub(in crate::pipeline) enum End {
    /// As asked: everything that was received whole is published.
    Stopped,
    /// An event of the transaction at `before` cannot be published; nothing more is.
    Halt {
        /// Where the transaction's commit record begins.
        before: CommitLsn,
        /// What is wrong with the event.
        failure: Box<dyn Failure>,
    },
    /// The transaction that cannot be published is next.
    BeforeHalt {
        /// Everything before it is out.
        is_all_delivered: bool,
    },
    /// Another producer has our transactional id, or the broker gave up our transaction.
    Fenced {
        /// What the sink said.
        failure: Box<dyn Failure>,
        /// The replication slot is still ours.
        holds_slot: bool,
    },
    /// A row that was there before cannot be published. Everything up to it is.
    Row(Box<dyn Failure>),
    /// The rows of a table without a key come before anything else of it: at the next start.
    RowsFirst {
        /// `schema.table`.
        table: String,
    },
    /// A row that somebody asked for cannot be published.
    RowsRefused {
        /// For this request.
        request: String,
        /// What the sink said.
        failure: Box<dyn Failure>,
    },
    /// Something failed.
    Failed(Box<dyn Failure>),
    /// The replication connection broke, or it cannot be said whether the slot is ours, and another
    /// producer had our transactional id by then.
    FailedFenced {
        /// What failed.
        failure: Box<dyn Failure>,
        /// What the sink said.
        fenced: Box<dyn Failure>,
    },
}

/// A stream's end.
#[derive(Debug)]
pub(in crate::pipeline) struct Ended {
    /// Why.
    pub(in crate::pipeline) end: End,
    /// Something was delivered since it began.
    pub(in crate::pipeline) has_delivered: bool,
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Halt { before, failure } => Self::Halt { before, failure },
            Trouble::Row(failure) => Self::Row(failure),
            Trouble::RowsFirst(table) => Self::RowsFirst { table },
            Trouble::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl<F: Failure> From<F> for End {
    fn from(failure: F) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl<S: Sink> StreamLoop<S> {
    /// Publishes until something ends it. What it leaves behind is in order: nothing is
    /// acknowledged that is not durable, and both sides are closed.
    pub(in crate::pipeline) async fn run(mut self, shutdown: &mut Shutdown) -> Ended {
        let ended = tokio::select! {
            biased;
            // Stop the intake first, whatever it waits for: draining is a function of its own.
            () = shutdown.requested() => End::Stopped,
            ended = self.publish() => {
                let Err(end) = ended;
                end
            }
        };
        let end = match ended {
            End::Stopped => self.drain(End::Stopped, DRAIN_MAX, shutdown).await,
            // Nobody waits for its end: whatever waits may go out, as long as anything goes out.
            End::BeforeHalt { .. } => {
                let all = End::BeforeHalt { is_all_delivered: true };
                self.drain(all, HALT_DRAIN_MAX, shutdown).await
            }
            // The next start reads it again, and comes as far.
            End::Row(failure) => match self.drain(End::Stopped, HALT_DRAIN_MAX, shutdown).await {
                End::Stopped => End::Failed(failure),
                end => end,
            },
            End::Failed(failure) if failure.code() == Some(Code::Fenced) => {
                self.judge_fenced(failure, shutdown).await
            }
            end @ (End::Halt { .. }
            | End::RowsFirst { .. }
            | End::RowsRefused { .. }
            | End::Fenced { .. }
            | End::Failed(_)
            | End::FailedFenced { .. }) => end,
        };
        let has_delivered = self.has_delivered;
        let closed = shutdown.within(CLOSE_MAX, self.close()).await;
        if closed.is_none() {
            debug!("closing took too long");
        }
        let end = match (end, closed.flatten()) {
            (End::Failed(failure), Some(fenced)) => End::FailedFenced { failure, fenced },
            (end, _) => end,
        };
        Ended { end, has_delivered }
    }

    /// Lets the sink finish the whole transactions, for a bounded time.
    async fn drain(&mut self, end: End, limit: Duration, shutdown: &mut Shutdown) -> End {
        self.assembler.backfills_mut().stop();
        match shutdown.within(limit, self.await_deliveries()).await {
            Some(Ok(())) => end,
            Some(Err(failure)) => failure,
            None => {
                warn!(
                    "the sink did not finish in time; the rest is published after the next start"
                );
                match end {
                    End::BeforeHalt { .. } => End::BeforeHalt { is_all_delivered: false },
                    End::Stopped
                    | End::Row(_)
                    | End::RowsFirst { .. }
                    | End::RowsRefused { .. }
                    | End::Halt { .. }
                    | End::Fenced { .. }
                    | End::Failed(_)
                    | End::FailedFenced { .. } => end,
                }
            }
        }
    }

    async fn await_deliveries(&mut self) -> Result<(), End> {
        loop {
            self.assembler.hand_over_whole(&mut self.tracker);
            self.send_ready();
            if !self.assembler.has_whole() && !self.tracker.has_in_flight() {
                return Ok(());
            }
            tokio::select! {
                biased;
                report = self.sink.next_report() => self.on_report(report)?,
                _ = self.ticks.tick() => {
                    self.observe_patience()?;
                    self.is_status_due |= self.status_at.elapsed() >= STATUS_INTERVAL;
                }
            }
            if self.is_status_due
                && let Err(end) = self.send_due_status().await
            {
                // What is under way can be delivered without it; the next start tells it the server.
                debug!(?end, "could not acknowledge while draining");
            }
        }
    }

    /// Asks the server who holds the slot. A word of our own walsender would prove it too, but one
    /// that decodes a large transaction has none for half a minute. Where the server does not say,
    /// or nobody has the slot, the next start finds out.
    async fn judge_fenced(&mut self, failure: Box<dyn Failure>, shutdown: &mut Shutdown) -> End {
        let mut stopped = shutdown.clone();
        let holder = tokio::select! {
            biased;
            () = stopped.requested() => return End::Failed(failure),
            holder = shutdown.within(HOLDER_MAX, self.beside.watch.slot_holder()) => holder,
        };
        let unknown: PostgresError = match holder {
            Some(Ok(Some(holder))) => {
                let holds_slot = self.stream.process_id() == Some(holder);
                return End::Fenced { failure, holds_slot };
            }
            Some(Ok(None)) => PostgresError::Ended,
            Some(Err(error)) => error,
            None => PostgresError::Silent {
                action: "ask who holds the slot".to_owned(),
                seconds: HOLDER_MAX.as_secs(),
            },
        };
        End::FailedFenced { failure: unknown.into(), fenced: failure }
    }

    /// Closes both sides, one beside the other: an open group of the sink must not hold back
    /// readers, and the server hears what is durable. Returns what the sink found out meanwhile.
    async fn close(self) -> Option<Box<dyn Failure>> {
        let (write, flush) = (self.tracker.write_lsn(), self.tracker.flush_lsn());
        let (fenced, ()) = tokio::join!(self.sink.close(), self.stream.finish(write, flush));
        fenced
    }
}

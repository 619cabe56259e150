//! The loop: reads what there is room for, hands over what is whole, acknowledges what is durable.

mod requests;
mod rows;

use std::{convert::Infallible, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use super::{
    assembler::{Assembler, Trouble},
    backfill::Meter,
    beside::Beside,
    lookup::Answers,
    outage::{Outage, Patience},
    progress::Progress,
    shutdown::Shutdown,
};
use crate::{
    checkpoint::Tracker,
    event,
    failure::{Code, Failure},
    lsn::CommitLsn,
    postgres::{
        PostgresError,
        pgoutput::Decoder,
        replication::{ReplicationStream, StreamMessage},
        transaction::{Step, TransactionReader},
    },
    sink::{Report, Sink, Subject},
    telemetry::Seldom,
};

/// How often timers are looked at: fine enough for an acknowledgement to be prompt, coarse enough
/// to cost nothing when idle.
const TICK: Duration = Duration::from_millis(200);

/// The longest pause between two status updates: a sixth of the server's default
/// `wal_sender_timeout`.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// The shortest pause between two status updates: a server that waits for an acknowledgement asks
/// again for each answer, tens of thousands of times a second if it is let.
const STATUS_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The shortest pause between two checkpoints without events.
const IDLE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// After this long without a word from the server it is asked for one.
const PING_AFTER: Duration = Duration::from_secs(10);

/// How long it is waited for who holds the slot.
const HOLDER_MAX: Duration = Duration::from_secs(5);

/// How long draining may take at a stop: some time is left behind it, for the closing handshakes.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// How long draining before a halt may take: not by itself, but by `kafka.outage_grace` and a wish to
/// stop.
const HALT_DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long closing both sides may take; each bounds itself below this.
const CLOSE_MAX: Duration = Duration::from_secs(4);

/// How often it is said that rows cannot be read.
const ROWS_SAID_EVERY: Duration = Duration::from_secs(30);

/// Why a stream ended.
#[derive(Debug)]
pub(super) enum End {
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
pub(super) struct Ended {
    /// Why.
    pub(super) end: End,
    /// Something was delivered since it began.
    pub(super) has_delivered: bool,
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

/// Where a stream ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Before this transaction, once everything earlier is published.
    pub(super) halt_before: Option<CommitLsn>,
    /// When something waits for that long and the sink takes nothing.
    pub(super) outage_grace: Duration,
}

/// A stream that publishes: holds the slot, knows its checkpoint.
pub(super) struct StreamLoop<S: Sink> {
    stream: ReplicationStream,
    decoder: Decoder,
    reader: TransactionReader,
    assembler: Assembler,
    tracker: Tracker,
    sink: S,
    beside: Beside,
    /// Everything before this transaction is published, then the loop ends.
    halt_before: Option<CommitLsn>,
    /// The stream's buffer holds messages that there was no room for.
    has_unread: bool,
    /// Rows may go out that did not yet: they were read, or do not wait for the stream any longer.
    are_rows_due: bool,
    /// The sink waits for what there is to read.
    is_called: bool,
    ticks: Interval,
    status_at: Instant,
    idle_checkpoint_at: Instant,
    ping_at: Instant,
    is_status_due: bool,
    has_delivered: bool,
    patience: Patience,
    progress: Progress,
    /// How rows become events.
    settings: event::Settings,
    /// Of rows that could not be read.
    rows_said: Seldom,
    meter: Meter,
}

impl<S: Sink> StreamLoop<S> {
    pub(super) fn new(
        stream: ReplicationStream,
        assembler: Assembler,
        tracker: Tracker,
        sink: S,
        beside: Beside,
        limits: Limits,
    ) -> Self {
        let now = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            settings: assembler.event_settings().clone(),
            rows_said: Seldom::every(ROWS_SAID_EVERY),
            meter: Meter::default(),
            stream,
            decoder: Decoder::new(),
            reader: TransactionReader::new(),
            assembler,
            tracker,
            sink,
            progress: Progress::new(beside.watch.wal_end()),
            beside,
            halt_before: limits.halt_before,
            has_unread: false,
            are_rows_due: false,
            is_called: false,
            ticks,
            status_at: now,
            idle_checkpoint_at: now,
            ping_at: now,
            is_status_due: true,
            has_delivered: false,
            patience: Patience::new(limits.outage_grace),
        }
    }

    /// Publishes until something ends it. What it leaves behind is in order: nothing is
    /// acknowledged that is not durable, and both sides are closed.
    pub(super) async fn run(mut self, shutdown: &mut Shutdown) -> Ended {
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

    /// Publishes until something ends it.
    ///
    /// # Cancel safety
    /// Whatever it waits for is cancel-safe.
    async fn publish(&mut self) -> Result<Infallible, End> {
        loop {
            self.tell_given_up();
            self.read_rows();
            self.observe_quiet_stream();
            if std::mem::take(&mut self.are_rows_due) {
                // What is read next is asked for before these are encoded.
                yield_now().await;
                self.hand_over_rows()?;
                if self.assembler.owes_stream() {
                    // A stream that has nothing to tell leaves its turn to the next ones.
                    continue;
                }
            }
            let may_read = self.may_read();
            if self.has_unread && may_read {
                self.take_messages()?;
                continue;
            }
            let is_held = self.is_held();
            tokio::select! {
                biased;
                // What is delivered frees room and moves the flush position.
                report = self.sink.next_report() => self.on_report(report)?,
                // Answer before wal_sender_timeout, also while the sink is stalled.
                _ = self.ticks.tick() => self.on_tick().await?,
                // A table that left the publication has a gap that no position shows; what follows a
                // description can only be read with what the catalog says.
                news = self.beside.next() => self.on_news(news)?,
                // Read only what there is room for: this is the back-pressure.
                read = read(&mut self.stream, is_held), if may_read => {
                    read?;
                    self.take_messages()?;
                }
            }
            if self.is_status_due {
                self.send_due_status().await?;
            }
        }
    }

    /// Takes what the stream has read, as far as there is room.
    fn take_messages(&mut self) -> Result<(), End> {
        let flush_before = self.tracker.flush_lsn();
        let outcome = loop {
            if !self.may_read() {
                self.has_unread = true;
                break Ok(());
            }
            match self.take_message() {
                Ok(true) => {}
                Ok(false) => {
                    self.has_unread = false;
                    break Ok(());
                }
                Err(end) => break Err(end),
            }
        };
        self.assembler.hand_over_gathered(&mut self.tracker);
        self.send_ready();
        if std::mem::take(&mut self.is_called) {
            self.sink.go_on();
        }
        // The stream is past what is published: the slot may hear how far that is.
        self.is_status_due |= self.tracker.flush_lsn() != flush_before;
        outcome
    }

    /// False where the buffer holds no whole message.
    fn take_message(&mut self) -> Result<bool, End> {
        let Some(message) = self.stream.next_message()? else { return Ok(false) };
        match message {
            StreamMessage::Keepalive { wal_end, reply_requested } => {
                self.progress.observe_wal_end(wal_end);
                if let Some(wal_end) = wal_end {
                    self.assembler.keepalive(wal_end, &mut self.tracker)?;
                }
                self.is_status_due |= reply_requested;
            }
            StreamMessage::XLogData { wal_start, payload } => {
                self.assembler.observe_stream_bytes(payload.len());
                let step = self.reader.accept(wal_start, self.decoder.decode(payload)?)?;
                match step {
                    Step::Begin(transaction) => {
                        if self.halt_before.is_some_and(|halt| transaction.commit_lsn >= halt) {
                            return Err(End::BeforeHalt { is_all_delivered: false });
                        }
                        self.assembler.begin(transaction, &mut self.tracker)?;
                    }
                    Step::Change { place, change } => {
                        self.assembler.change(place, &change, &mut self.tracker)?;
                        if let Some((relation, inquiry)) = self.assembler.take_outdated() {
                            self.beside.lookup.ask(relation, inquiry);
                        }
                    }
                    Step::Commit { end_lsn, .. } => {
                        self.assembler.commit(end_lsn, &mut self.tracker)?;
                    }
                    Step::Relation(relation) => {
                        let inquiry = self.assembler.described(&relation);
                        match inquiry.is_empty() {
                            true => self.assembler.relation(&relation, Answers::none()),
                            false => self.beside.lookup.ask(relation, inquiry),
                        }
                    }
                    Step::NonTransactionalMessage { prefix } => {
                        self.assembler.non_transactional_message(prefix);
                    }
                    Step::Nothing => {}
                }
                if self.assembler.has_ready() {
                    self.send_ready();
                }
            }
        }
        Ok(true)
    }

    /// Whether the next message can be taken.
    fn may_read(&self) -> bool {
        self.assembler.has_room()
            && !self.beside.lookup.is_under_way()
            && !self.assembler.backfills().holds_stream(Instant::now())
    }

    /// While the sink waits for its turn with what it has, what comes can wait in the socket.
    fn is_held(&self) -> bool {
        self.sink.will_call() && !self.stream.has_backlog()
    }

    /// Rows do not wait for a stream that has nothing to tell.
    fn observe_quiet_stream(&mut self) {
        if self.assembler.owes_stream() && !self.has_unread && !self.stream.has_waiting() {
            self.assembler.observe_quiet_stream();
            self.are_rows_due = true;
        }
    }

    fn send_ready(&mut self) {
        while let Some(batch) = self.assembler.take_ready() {
            self.sink.send(batch);
        }
    }

    fn on_report(&mut self, report: Report) -> Result<(), End> {
        match report {
            Report::Delivered(sequence) => {
                self.tracker.delivered(sequence);
                self.assembler.observe_delivered(sequence);
                let told = self.assembler.backfills_mut().take_delivered(sequence);
                self.tell_delivered(told);
                self.is_status_due = true;
                self.has_delivered = true;
                self.patience.observe_progress();
            }
            Report::Emptied(batch) => {
                self.assembler.give_back(batch);
                self.patience.observe_progress();
                self.assembler.release_rows(&mut self.tracker)?;
                if !self.has_unread {
                    self.assembler.hand_over_gathered(&mut self.tracker);
                }
                self.send_ready();
            }
            Report::LastCall if self.stream.has_waiting() => self.is_called = true,
            Report::LastCall => self.sink.go_on(),
            Report::Refused { subject, failure } => {
                return Err(match subject {
                    Subject::Transaction(before) => End::Halt { before, failure },
                    Subject::Row { request: Some(request), .. }
                        if self.assembler.has_rows_out_of(&request) =>
                    {
                        End::RowsRefused { request, failure }
                    }
                    Subject::Row { .. } => End::Failed(failure),
                });
            }
            Report::Failed(failure) => return Err(End::Failed(failure)),
        }
        Ok(())
    }
}

/// Reads; later where nothing gets out sooner for being read.
///
/// # Cancel safety
/// That of both steps: waiting goes on where it was, and nothing that was read is lost.
async fn read(stream: &mut ReplicationStream, is_held: bool) -> Result<(), PostgresError> {
    if is_held {
        stream.hold().await;
    }
    stream.read_chunk().await
}

/// Whether a status update asks for an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Requested,
    NotNeeded,
}

/// Keeping the connection alive and the slot moving.
impl<S: Sink> StreamLoop<S> {
    async fn on_tick(&mut self) -> Result<(), End> {
        self.checkpoint_when_idle();
        self.observe_patience()?;
        self.progress.tick(self.assembler.counters(), self.assembler.last(), &self.tracker);
        self.meter.look(self.assembler.backfills().records().next());
        let is_silent = self.stream.silent_for() >= PING_AFTER;
        if is_silent && self.ping_at.elapsed() >= PING_AFTER {
            self.ping_at = Instant::now();
            return Ok(self.send_status(Reply::Requested).await?);
        }
        self.is_status_due |= self.status_at.elapsed() >= STATUS_INTERVAL;
        Ok(())
    }

    /// The slot is not held for ever while the sink takes nothing.
    fn observe_patience(&mut self) -> Result<(), Outage> {
        let is_waiting = self.tracker.has_in_flight() || self.assembler.has_out();
        self.patience.observe(is_waiting, self.sink.progress())
    }

    /// An idle table must not pin WAL: where the log moved and nothing of ours is in it, the
    /// position is committed by itself, then acknowledged.
    fn checkpoint_when_idle(&mut self) {
        let is_due = self.idle_checkpoint_at.elapsed() >= IDLE_CHECKPOINT_INTERVAL;
        if !is_due || self.has_unread || !self.assembler.is_idle() || !self.assembler.has_room() {
            return;
        }
        if let Some(position) = self.tracker.idle_position() {
            self.idle_checkpoint_at = Instant::now();
            self.assembler.hand_over_idle(position, &mut self.tracker);
            self.send_ready();
        }
    }

    /// Sends a status update, unless one was sent just now: then the next tick does.
    async fn send_due_status(&mut self) -> Result<(), End> {
        if self.status_at.elapsed() >= STATUS_INTERVAL_MIN {
            self.send_status(Reply::NotNeeded).await?;
        }
        Ok(())
    }

    async fn send_status(&mut self, reply: Reply) -> Result<(), PostgresError> {
        self.is_status_due = false;
        self.status_at = Instant::now();
        let (write, flush) = (self.tracker.write_lsn(), self.tracker.flush_lsn());
        self.stream.send_status(write, flush, reply == Reply::Requested).await
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

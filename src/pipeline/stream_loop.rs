//! The loop: reads what there is room for, hands over what is whole, acknowledges what is durable.

mod end;
mod requests;
mod rows;

use std::{convert::Infallible, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

pub(super) use self::end::{End, Ended};
use super::{
    assembler::Assembler,
    backfill::Meter,
    beside::Beside,
    lookup::Answers,
    outage::{Outage, Patience},
    progress::Progress,
};
use crate::{
    checkpoint::Tracker,
    event,
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

/// How often it is said that rows cannot be read.
const ROWS_SAID_EVERY: Duration = Duration::from_secs(30);

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
                if self.assembler.turns().is_of_stream() {
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
                self.assembler.turns_mut().observe_stream(payload.len());
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
        let turns = self.assembler.turns_mut();
        if turns.is_of_stream() && !self.has_unread && !self.stream.has_waiting() {
            turns.observe_quiet_stream();
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
}

//! The thread that produces.
//!
//! ```text
//!            a batch waits               cut, and …
//! no transaction ─────────► open, records ──────────► flushed ─► the committer ends it, while
//!      ▲                       ▲    │ cut, and a whole group        this thread goes on with the
//!      │                       └────┘ waits that still fits         other producer
//!      └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Two producers take turns, one transaction each. That is sound because of three rules:
//!
//! - A transaction is begun only after all records of the one before it are answered, so that logs
//!   hold records and checkpoints in the order in which they were produced.
//! - Transactions end one after the other, in their order, and none after one that failed
//!   (`committer.rs`): what is visible is always a beginning of what was produced.
//! - Both transactional ids are fenced before the checkpoint is read, so that neither of a
//!   predecessor's transactions can end after that.
//!
//! A commit happens at a cut only, and holds the checkpoints of that very cut: whether to commit is
//! decided before anything behind the cut is produced. Of the cuts passed over only that is written
//! which a later one has no newer word of.
//!
//! Under backlog the checkpoints are produced when committing. Where all that a transaction will hold
//! is there when it begins, they are produced first: then their partition and those of the events are
//! added to the transaction by one request, not by two that wait for each other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::sink::{
    Batch, Checkpoints, CutSequence, Report, Urgency,
    kafka::{
        Cancel, Kafka, KafkaError, client,
        committer::{Committer, Order},
        inbox::{IDLE_POLL, Inbox, Next},
        native::Topic,
        producer::Producer,
        records::{Outlet, Records},
        settings::Settings,
        turn::Turn,
    },
};

/// A transaction costs a broker 1.3 to 2.1 ms of CPU time, however small it is. Begun no more often
/// than this they take it a third of a core, and each event waits for half as long on average.
const BEGIN_INTERVAL: Duration = Duration::from_millis(7);

/// After a commit the brokers still write its markers. Where the same producer adds a partition
/// before they are done, librdkafka waits 20 ms.
const MARKER_PAUSE: Duration = Duration::from_millis(2);

/// A transaction or a queue of this many bytes means that there is a backlog: it pays to make the
/// transactions larger then, and no single event's latency hangs on it.
const BACKLOG_BYTES: usize = 128 * 1024;

/// Under backlog the next group is waited for this long: longer than the reader lets its socket fill
/// at the rates at which that pays.
const BACKLOG_PAUSE: Duration = Duration::from_millis(6);

/// How long an orderly end may take to abort an open transaction.
const ABORT_LIMIT: Duration = Duration::from_millis(700);

/// A Kafka transaction that is open.
struct Transaction {
    opened_at: Instant,
    bytes: usize,
    /// The cut behind the last record, where there is one.
    cut: Option<(CutSequence, Urgency)>,
    /// Those of all cuts that came by.
    checkpoints: Checkpoints,
    /// The cut to commit at, where its checkpoints are produced already.
    foreseen: Option<CutSequence>,
    /// Batches that are given back together when it ends: each would wake the caller by itself, and
    /// of few small ones none is missed.
    emptied: Vec<Batch>,
}

/// All that the thread owns. Fields are dropped in this order: topics before their clients.
pub(super) struct Worker {
    records: Records,
    checkpoint_topics: [Topic; Turn::COUNT],
    producers: Arc<[Producer; Turn::COUNT]>,
    settings: Arc<Settings>,
    inbox: Inbox,
    committer: Committer,
    reports: mpsc::Sender<Report>,
    closing: Cancel,
    /// Whose transaction is open, or comes next.
    turn: Turn,
    open: Option<Transaction>,
    begun_at: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        kafka: Kafka,
        inbox: Inbox,
        reports: mpsc::Sender<Report>,
        closing: Cancel,
    ) -> Result<Self, KafkaError> {
        let producers = Arc::new(kafka.producers);
        let [first, second] = &*producers;
        let checkpoint_topic = |producer: &Producer| {
            Topic::new(producer.client().native_ptr(), &kafka.settings.checkpoint_topic)
        };
        Ok(Self {
            records: Records::new(Arc::clone(&kafka.settings), &kafka.properties),
            checkpoint_topics: [checkpoint_topic(first)?, checkpoint_topic(second)?],
            committer: Committer::start(Arc::clone(&producers), reports.clone(), closing.clone())?,
            producers,
            settings: kafka.settings,
            inbox,
            reports,
            closing,
            turn: Turn::default(),
            open: None,
            begun_at: None,
        })
    }

    /// Works until the caller is gone or something fails. The producers do not outlive it.
    pub(super) fn run(mut self) {
        let ended = self.work();
        match ended {
            Ok(()) | Err(KafkaError::Cancelled) => {
                if self.open.is_some()
                    && let Err(fenced) = self.producer().abort(ABORT_LIMIT)
                {
                    self.report(Report::Failed(Box::new(fenced)));
                }
            }
            // Nothing is aborted: after an error the transaction's outcome may be unknown, and
            // the next start settles it.
            Err(error) => self.report(error.into_report()),
        }
        self.committer.end();
    }

    fn work(&mut self) -> Result<(), KafkaError> {
        loop {
            self.closing.check()?;
            if let (None, Some(begun_at)) = (&self.open, self.begun_at) {
                self.gather_at(begun_at + BEGIN_INTERVAL);
            }
            match self.inbox.next(IDLE_POLL) {
                Next::Batch(batch) if self.open.is_none() && !batch.is_empty() => {
                    self.inbox.put_back(batch);
                    self.open_transaction()?;
                }
                Next::Batch(batch) => self.take(batch)?,
                Next::Nothing => self.poll_all()?,
                Next::Closed => return Ok(()),
            }
            if self.commit_is_due() {
                self.commit()?;
            }
        }
    }

    fn producer(&self) -> &Producer {
        self.turn.of(&self.producers)
    }

    fn poll_all(&self) -> Result<(), KafkaError> {
        self.producers.iter().try_for_each(|producer| producer.poll(Duration::ZERO, 0))
    }

    /// Begins a transaction for what waits, once its producer is free, and gathers what comes until
    /// then.
    fn open_transaction(&mut self) -> Result<(), KafkaError> {
        let committed_at = self.committer.await_free(self.turn, &self.closing)?;
        let markers = committed_at.map(|at| at + MARKER_PAUSE);
        if let Some(deadline) = markers {
            self.gather_at(deadline);
        }
        self.inbox.fill();
        self.producer().begin()?;
        let opened_at = Instant::now();
        self.begun_at = Some(opened_at);
        let foreseen = cuts_of_few(self.inbox.waiting());
        if let Some((_, checkpoints)) = &foreseen {
            self.inbox.announce_last_call();
            self.produce_checkpoints(checkpoints)?;
        }
        self.open = Some(Transaction {
            opened_at,
            bytes: 0,
            cut: None,
            checkpoints: Checkpoints::default(),
            foreseen: foreseen.map(|(sequence, _)| sequence),
            emptied: Vec::new(),
        });
        Ok(())
    }

    /// What comes until then goes into the next transaction.
    fn gather_at(&mut self, deadline: Instant) {
        let reports = &self.reports;
        // Where the caller is gone, the channel of batches says so too.
        self.inbox.gather_at(deadline, || drop(reports.blocking_send(Report::LastCall)));
    }

    fn produce_checkpoints(&self, checkpoints: &Checkpoints) -> Result<(), KafkaError> {
        let (producer, topic) = (self.producer(), self.turn.of(&self.checkpoint_topics));
        client::produce_checkpoints(producer, topic, checkpoints, &self.closing)
    }

    /// Produces a batch and gives it back.
    fn take(&mut self, batch: Batch) -> Result<(), KafkaError> {
        self.records.announce(&batch);
        let outlet = Outlet { producers: &*self.producers, index: self.turn.index() };
        for record in batch.records() {
            self.records.produce(outlet, &batch, record, &self.closing)?;
        }
        self.producer().poll(Duration::ZERO, self.open_bytes() + batch.bytes())?;
        let Some(transaction) = &mut self.open else {
            self.report(Report::Emptied(batch));
            return Ok(());
        };
        transaction.bytes += batch.bytes();
        if !batch.is_empty() {
            transaction.cut = batch.cut().map(|cut| (cut.sequence, cut.urgency));
        }
        if let Some(cut) = batch.cut() {
            transaction.checkpoints.succeed(&cut.checkpoints);
        }
        if transaction.foreseen.is_some() {
            transaction.emptied.push(batch);
        } else {
            self.report(Report::Emptied(batch));
        }
        Ok(())
    }

    fn open_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |transaction| transaction.bytes)
    }

    /// Whether to commit at this cut rather than to go on to the next. Nothing behind the cut was
    /// produced yet.
    fn commit_is_due(&mut self) -> bool {
        let Some(transaction) = &self.open else { return false };
        let Some((sequence, urgency)) = transaction.cut else { return false };
        if let Some(foreseen) = transaction.foreseen {
            return sequence == foreseen;
        }
        self.inbox.fill();
        let budget = self.settings.transaction_bytes.saturating_sub(transaction.bytes);
        let is_over = |transaction: &Transaction| {
            budget == 0 || transaction.opened_at.elapsed() >= self.settings.transaction_interval
        };
        if urgency == Urgency::Now || is_over(transaction) {
            return true;
        }
        if transaction.bytes >= BACKLOG_BYTES {
            let deadline = Instant::now() + BACKLOG_PAUSE;
            self.inbox.gather(deadline, |inbox| inbox.bytes_to_cut().is_some());
        }
        // Only a whole group is gone on to: a part of one would keep this cut waiting for as long
        // as the rest of its PostgreSQL transaction takes.
        self.inbox.bytes_to_cut().is_none_or(|bytes| bytes > budget)
    }

    /// Waits until all records are answered, and leaves the rest to the committer.
    fn commit(&mut self) -> Result<(), KafkaError> {
        let Some(Transaction { bytes, cut: Some((sequence, _)), checkpoints, foreseen, .. }) =
            &self.open
        else {
            return Ok(());
        };
        if foreseen.is_none() {
            self.produce_checkpoints(checkpoints)?;
        }
        self.producer().flush(*bytes, &self.closing)?;
        let order = Order { turn: self.turn, sequence: *sequence, bytes: *bytes };
        // Not before it is whole: where the flush was called off, it is aborted.
        let ended = self.open.take();
        self.records.all_answered();
        self.committer.commit(order)?;
        self.turn = self.turn.next();
        let emptied = ended.into_iter().flat_map(|transaction| transaction.emptied);
        emptied.for_each(|batch| self.report(Report::Emptied(batch)));
        Ok(())
    }

    /// Waits while the caller does not fetch its reports; where it is gone, so are we soon.
    fn report(&self, report: Report) {
        if self.reports.blocking_send(report).is_err() {
            self.closing.cancel();
        }
    }
}

/// The last cut of what waits, and the checkpoints that are due there, where that is little: all of
/// it then goes into one transaction. None under backlog, or where no cut is there yet.
fn cuts_of_few<'a>(batches: impl Iterator<Item = &'a Batch>) -> Option<(CutSequence, Checkpoints)> {
    let (mut bytes, mut last, mut checkpoints) = (0, None, Checkpoints::default());
    for batch in batches {
        bytes += batch.bytes();
        if bytes >= BACKLOG_BYTES {
            return None;
        }
        let Some(cut) = batch.cut() else { continue };
        last = Some(cut.sequence);
        checkpoints.succeed(&cut.checkpoints);
        if cut.urgency == Urgency::Now {
            break;
        }
    }
    last.map(|sequence| (sequence, checkpoints))
}

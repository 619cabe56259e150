//! The thread that produces at least once: without transactions around events.
//!
//! ```text
//! batches ─► idempotent producer ─► visible as soon as the brokers have them
//!               │ once a second: flushed, and …
//!               └─► the latest cut's checkpoints, in a transaction of their own ─► delivered
//! ```
//!
//! - Nothing is reported as delivered before its checkpoint is committed, and no checkpoint is written
//!   before everything in front of its cut is answered: what may be acknowledged is always a
//!   beginning of what was produced. How far a table's rows are is such a checkpoint too.
//! - The first record that is not taken ends the producer, with all that it holds: behind a gap
//!   nothing more is delivered, and all of it comes again in order, with the ids that it had.
//! - Checkpoints are written by the transactional producer that a successor fences. So is the
//!   exactly-once predecessor's. Who was fenced finds out with its next checkpoint at the latest;
//!   what it had queued until then may come late.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    failure::{Code, Failure},
    sink::{
        Batch, Checkpoints, CutSequence, Report,
        kafka::{
            Cancel, Kafka, KafkaError, client,
            committer::{Committer, Order},
            inbox::{IDLE_POLL, Inbox, Next},
            native::Topic,
            producer::Producer,
            records::{Outlet, Records},
            turn::Turn,
        },
    },
};

/// The shortest time between two checkpoints. A crash doubles what came after the latest one.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// So many batches are given back together: each would wake the caller by itself, and of few small
/// ones none is missed.
const EMPTIED_MAX: usize = 8;

/// … unless they hold this many bytes: the caller bounds what is out.
const EMPTIED_BYTES_MAX: usize = 64 * 1024;

/// How long the last checkpoint may take.
const SETTLE_LIMIT: Duration = Duration::from_millis(1_200);

/// The checkpoints' producer. The other one was fenced with it, and has nothing more to do.
const TURN: Turn = Turn::First;

/// All that the thread owns. Fields are dropped in this order: topics before their clients.
pub(super) struct AtLeastOnce {
    records: Records,
    checkpoint_topic: Topic,
    events: [Producer; 1],
    checkpoints: Arc<[Producer; Turn::COUNT]>,
    inbox: Inbox,
    committer: Committer,
    reports: mpsc::Sender<Report>,
    closing: Cancel,
    /// Cancelled some time after `closing`. Until then what was begun is finished: a batch, of which a
    /// half would be behind no cut; a commit; and the last checkpoint is written.
    last: Cancel,
    /// The latest cut, and the checkpoints since the ones that were written; everything before it
    /// was produced.
    due: Option<(CutSequence, Checkpoints)>,
    checkpoint_at: Option<Instant>,
    /// Bytes produced since the latest checkpoint.
    bytes: usize,
    emptied: Vec<Batch>,
}

impl AtLeastOnce {
    pub(super) fn new(
        kafka: Kafka,
        events: Producer,
        inbox: Inbox,
        reports: mpsc::Sender<Report>,
        closing: Cancel,
    ) -> Result<Self, KafkaError> {
        let checkpoints = Arc::new(kafka.producers);
        let client = TURN.of(&checkpoints).client();
        let checkpoint_topic = Topic::new(client.native_ptr(), &kafka.settings.checkpoint_topic)?;
        let last = closing.lingering(SETTLE_LIMIT);
        let committer = Committer::start(Arc::clone(&checkpoints), reports.clone(), last.clone())?;
        Ok(Self {
            records: Records::new(kafka.settings, &kafka.properties),
            checkpoint_topic,
            events: [events],
            checkpoints,
            inbox,
            committer,
            reports,
            closing,
            last,
            due: None,
            checkpoint_at: None,
            bytes: 0,
            emptied: Vec::new(),
        })
    }

    /// Works until the caller is gone or something fails. The producers do not outlive it.
    pub(super) fn run(mut self) {
        let ended = self.work();
        self.closing.cancel();
        match ended {
            Ok(()) | Err(KafkaError::Cancelled) => self.settle(),
            Err(error) => {
                // What is missing on the brokers did no harm to the producer.
                let is_missing =
                    matches!(error, KafkaError::TopicMissing { .. } | KafkaError::Denied { .. });
                let report = error.into_report();
                if is_missing || matches!(report, Report::Refused { .. }) {
                    self.settle();
                }
                self.report(report);
                drop(self.committer.await_free(TURN, &self.last));
            }
        }
        self.last.cancel();
        self.committer.end();
    }

    fn work(&mut self) -> Result<(), KafkaError> {
        loop {
            self.closing.check()?;
            match self.inbox.next(self.wait_max()) {
                Next::Batch(batch) => self.take(batch)?,
                Next::Nothing => {
                    self.give_back();
                    self.events().poll(Duration::ZERO, self.bytes)?;
                    for producer in &*self.checkpoints {
                        producer.poll(Duration::ZERO, 0)?;
                    }
                }
                Next::Closed => return Ok(()),
            }
            if self.due.is_some() && self.until_checkpoint().is_zero() {
                self.checkpoint()?;
            }
        }
    }

    fn events(&self) -> &Producer {
        let [events] = &self.events;
        events
    }

    fn until_checkpoint(&self) -> Duration {
        self.checkpoint_at.map_or(Duration::ZERO, |at| {
            (at + CHECKPOINT_INTERVAL).saturating_duration_since(Instant::now())
        })
    }

    fn wait_max(&self) -> Duration {
        match self.due {
            Some(_) => IDLE_POLL.min(self.until_checkpoint()),
            None => IDLE_POLL,
        }
    }

    /// Produces a batch and gives it back. Where one of its records fits nowhere, none of it is
    /// produced: what comes again after that is not out.
    fn take(&mut self, batch: Batch) -> Result<(), KafkaError> {
        self.records.announce(&batch);
        let outlet = Outlet { producers: &self.events, index: 0 };
        self.records.check(outlet, &batch, &self.closing)?;
        for record in batch.records() {
            self.records.produce(outlet, &batch, record, &self.last)?;
        }
        self.bytes += batch.bytes();
        self.events().poll(Duration::ZERO, self.bytes)?;
        if let Some(cut) = batch.cut() {
            let (sequence, checkpoints) =
                self.due.get_or_insert_with(|| (cut.sequence, Checkpoints::default()));
            *sequence = cut.sequence;
            checkpoints.succeed(&cut.checkpoints);
        }
        self.emptied.push(batch);
        let bytes: usize = self.emptied.iter().map(Batch::bytes).sum();
        if self.emptied.len() >= EMPTIED_MAX || bytes >= EMPTIED_BYTES_MAX {
            self.give_back();
        }
        Ok(())
    }

    fn give_back(&mut self) {
        for batch in std::mem::take(&mut self.emptied) {
            self.report(Report::Emptied(batch));
        }
    }

    /// Writes the latest cut's checkpoints, and leaves the rest to the committer.
    fn checkpoint(&mut self) -> Result<(), KafkaError> {
        let closing = self.closing.clone();
        self.await_answers(&closing)?;
        let Some((sequence, checkpoints)) = self.due.take() else { return Ok(()) };
        self.write_checkpoints(&checkpoints)?;
        self.checkpoint_at = Some(Instant::now());
        self.committer.commit(Order { turn: TURN, sequence, bytes: checkpoints.bytes() })
    }

    /// Waits until everything is answered, and the checkpoints before are committed. What is due is due
    /// still where that is called off.
    fn await_answers(&mut self, cancel: &Cancel) -> Result<(), KafkaError> {
        self.events().flush(self.bytes, cancel)?;
        // Also where the flush found nothing to wait for: a record that was not taken is none.
        self.events().poll(Duration::ZERO, self.bytes)?;
        self.records.all_answered();
        self.bytes = 0;
        self.committer.await_free(TURN, cancel).map(drop)
    }

    /// Opens a transaction with the checkpoints of all that was answered.
    fn write_checkpoints(&self, checkpoints: &Checkpoints) -> Result<(), KafkaError> {
        let producer = TURN.of(&self.checkpoints);
        producer.begin()?;
        client::produce_checkpoints(producer, &self.checkpoint_topic, checkpoints, &self.last)
    }

    /// The last checkpoints, so that nothing comes again that need not. Only a kindness, but for who
    /// was fenced: that one must hear of it.
    fn settle(&mut self) {
        let Err(error) = self.write_last_checkpoints() else { return };
        if error.code() == Some(Code::Fenced) {
            return self.report(Report::Failed(Box::new(error)));
        }
        // What the committer failed by it reported.
        if matches!(error, KafkaError::Cancelled) && !self.last.is_cancelled() {
            return;
        }
        tracing::warn!(
            %error,
            "no checkpoint within {SETTLE_LIMIT:?} at the end: what came after the latest one may be \
             published again"
        );
    }

    fn write_last_checkpoints(&mut self) -> Result<(), KafkaError> {
        let last = self.last.clone();
        if self.due.is_none() {
            return self.committer.await_free(TURN, &last).map(drop);
        }
        self.await_answers(&last)?;
        let Some((_, checkpoints)) = self.due.take() else { return Ok(()) };
        self.write_checkpoints(&checkpoints)?;
        TURN.of(&self.checkpoints).commit(checkpoints.bytes(), &last)
    }

    /// Waits while the caller does not fetch its reports; where it is gone, so are we soon.
    fn report(&self, report: Report) {
        if self.reports.blocking_send(report).is_err() {
            self.closing.cancel();
        }
    }
}

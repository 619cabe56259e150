//! The thread that produces and commits.
//!
//! ```text
//!            first record or cut                      cut, and …
//! no transaction ─────────────► open, records ──────────────────► commit ─► Delivered
//!                                    ▲    │ cut, and a whole group waits that still fits
//!                                    └────┘
//! ```
//!
//! A commit happens at a cut only, and holds the checkpoint of that very cut: whether to commit is
//! decided before anything behind the cut is produced. The checkpoint record is produced when
//! committing, so of the cuts passed over nothing is written.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::sink::{
    Batch, Cut, Headers, Record, Report, Urgency,
    kafka::{
        Cancel, Kafka, KafkaError,
        client::{self, QUEUE_PAUSE},
        inbox::{Inbox, Next},
        native::Topic,
        producer::{Parts, Producer, Refusal},
        settings::Settings,
        topics::{KnownTopic, Topics},
    },
};

/// After a commit the brokers still write its markers. A transaction begun before they are done
/// waits 20 ms in librdkafka, so what comes within this time is gathered first.
const MARKER_PAUSE: Duration = Duration::from_millis(2);

/// A transaction or a queue of this many bytes means that there is a backlog: it pays to make the
/// transactions larger then, and no single event's latency hangs on it.
const BACKLOG_BYTES: usize = 128 * 1024;

/// Under backlog the next group is waited for this long: the reader drains its socket in pauses of
/// a few milliseconds.
const BACKLOG_PAUSE: Duration = Duration::from_millis(6);

/// How often events are served when there is nothing to do.
const IDLE_POLL: Duration = Duration::from_millis(100);

/// How long an orderly end may take to abort an open transaction.
const ABORT_LIMIT: Duration = Duration::from_millis(700);

/// What a record costs in a batch beside key, value and headers: the batch's own 61 bytes and at
/// most 36 of the record.
const FRAMING_BYTES: usize = 97;

/// A Kafka transaction that is open.
struct Transaction {
    opened_at: Instant,
    bytes: usize,
    /// The cut behind the last record, where there is one.
    cut: Option<Cut>,
}

/// All that the thread owns. Fields are dropped in this order: topics before their client.
pub(super) struct Worker {
    topics: Topics,
    checkpoint_topic: Topic,
    producer: Producer,
    settings: Arc<Settings>,
    batch_bytes: usize,
    queue_bytes: usize,
    inbox: Inbox,
    reports: mpsc::Sender<Report>,
    closing: Cancel,
    open: Option<Transaction>,
    committed_at: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        kafka: Kafka,
        inbox: Inbox,
        reports: mpsc::Sender<Report>,
        closing: Cancel,
    ) -> Result<Self, KafkaError> {
        let client = kafka.producer.client().native_ptr();
        Ok(Self {
            topics: Topics::default(),
            checkpoint_topic: Topic::new(client, &kafka.settings.checkpoint_topic)?,
            producer: kafka.producer,
            settings: kafka.settings,
            batch_bytes: kafka.properties.batch_bytes,
            queue_bytes: kafka.properties.queue_bytes,
            inbox,
            reports,
            closing,
            open: None,
            committed_at: None,
        })
    }

    /// Works until the caller is gone or something fails. The producer does not outlive it.
    pub(super) fn run(mut self) {
        let ended = self.work();
        match ended {
            Ok(()) | Err(KafkaError::Cancelled) => {
                if self.open.is_some() {
                    self.producer.abort(ABORT_LIMIT);
                }
            }
            Err(error @ KafkaError::EventTooLarge { commit_lsn, .. }) => {
                self.report(Report::Refused { commit_lsn, failure: Box::new(error) });
            }
            // Nothing is aborted: after an error the transaction's outcome may be unknown, and
            // the next start settles it.
            Err(error) => self.report(Report::Failed(Box::new(error))),
        }
    }

    fn work(&mut self) -> Result<(), KafkaError> {
        loop {
            self.closing.check()?;
            match self.inbox.next(IDLE_POLL) {
                Next::Batch(batch) => self.take(batch)?,
                Next::Nothing => self.producer.poll(Duration::ZERO, self.open_bytes())?,
                Next::Closed => return Ok(()),
            }
            if self.commit_is_due() {
                self.commit()?;
            }
        }
    }

    /// Produces a batch and gives it back.
    fn take(&mut self, batch: Batch) -> Result<(), KafkaError> {
        let Some(batch) = self.after_markers(batch) else { return Ok(()) };
        for (id, name) in batch.new_topics() {
            self.topics.announce(*id, name);
        }
        if !batch.is_empty() {
            self.open_transaction()?;
        }
        for record in batch.records() {
            self.produce(&batch, record)?;
        }
        if let Some(transaction) = &mut self.open {
            transaction.bytes += batch.bytes();
            if !batch.is_empty() {
                transaction.cut = batch.cut().cloned();
            }
        }
        self.producer.poll(Duration::ZERO, self.open_bytes())?;
        self.report(Report::Emptied(batch));
        Ok(())
    }

    /// Holds the batch back while the markers of the last commit are being written, and gathers
    /// what comes meanwhile. None where it has to wait for its turn again.
    fn after_markers(&mut self, batch: Batch) -> Option<Batch> {
        let Some(committed_at) = self.committed_at.take() else { return Some(batch) };
        let deadline = committed_at + MARKER_PAUSE;
        if Instant::now() < deadline {
            self.inbox.put_back(batch);
            self.inbox.gather(deadline, |inbox| inbox.bytes() >= BACKLOG_BYTES);
            return None;
        }
        Some(batch)
    }

    fn open_transaction(&mut self) -> Result<(), KafkaError> {
        if self.open.is_none() {
            self.producer.begin()?;
            self.open = Some(Transaction { opened_at: Instant::now(), bytes: 0, cut: None });
        }
        Ok(())
    }

    fn open_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |transaction| transaction.bytes)
    }

    fn produce(&mut self, batch: &Batch, record: &Record) -> Result<(), KafkaError> {
        let topic =
            self.topics.known(record.topic, &self.producer, &self.settings, &self.closing)?;
        let bytes = record.bytes() + FRAMING_BYTES;
        if bytes > topic.bytes_max.min(self.queue_bytes) {
            return Err(too_large(batch, record, topic, self.queue_bytes));
        }
        if topic.bytes_max < self.batch_bytes {
            // librdkafka does not know of topics' limits: a batch that grew past this one would
            // be refused, and it does not split them.
            if topic.unanswered_bytes + bytes > topic.bytes_max {
                self.producer.flush(0, &self.closing)?;
                topic.unanswered_bytes = 0;
            }
            topic.unanswered_bytes += bytes;
        }
        let key = record.key.map(|span| batch.slice(span));
        let hashed = key.unwrap_or_else(|| batch.slice(record.event_id));
        let parts = Parts {
            partition: self.settings.partitioner.partition(hashed, topic.partitions),
            key,
            value: record.value.map(|span| batch.slice(span)),
            headers: Headers::new(batch.slice(record.headers)),
            header_count: record.header_count,
            timestamp_ms: record.timestamp_ms,
        };
        loop {
            match self.producer.produce(&topic.handle, &parts) {
                Ok(()) => return Ok(()),
                // This record and no other: behind it in its partition none may come first.
                Err(Refusal::QueueFull) => {
                    self.closing.check()?;
                    self.producer.poll(QUEUE_PAUSE, 0)?;
                }
                Err(Refusal::TooLarge) => {
                    return Err(too_large(batch, record, topic, self.queue_bytes));
                }
                Err(Refusal::Broken(code)) => return Err(self.producer.broken(code, 0)),
            }
        }
    }

    /// Whether to commit at this cut rather than to go on to the next. Nothing behind the cut was
    /// produced yet.
    fn commit_is_due(&mut self) -> bool {
        let Some(transaction) = &self.open else { return false };
        let Some(cut) = &transaction.cut else { return false };
        self.inbox.fill();
        let budget = self.settings.transaction_bytes.saturating_sub(transaction.bytes);
        let is_over = |transaction: &Transaction| {
            budget == 0 || transaction.opened_at.elapsed() >= self.settings.transaction_interval
        };
        if cut.urgency == Urgency::Now || is_over(transaction) {
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

    fn commit(&mut self) -> Result<(), KafkaError> {
        let Some(Transaction { bytes, cut: Some(cut), .. }) = self.open.take() else {
            return Ok(());
        };
        let Cut { sequence, checkpoint, .. } = cut;
        client::produce_checkpoint(
            &self.producer,
            &self.checkpoint_topic,
            &checkpoint.key,
            &checkpoint.value,
            &self.closing,
        )?;
        self.producer.commit(bytes, &self.closing)?;
        self.topics.all_answered();
        self.committed_at = Some(Instant::now());
        self.report(Report::Delivered(sequence));
        Ok(())
    }

    /// Waits while the caller does not fetch its reports; where it is gone, so are we soon.
    fn report(&self, report: Report) {
        if self.reports.blocking_send(report).is_err() {
            self.closing.cancel();
        }
    }
}

fn too_large(batch: &Batch, record: &Record, topic: &KnownTopic, queue_bytes: usize) -> KafkaError {
    KafkaError::EventTooLarge {
        topic: topic.name.to_string(),
        bytes: record.bytes(),
        bytes_max: topic.bytes_max.min(queue_bytes),
        commit_lsn: record.commit_lsn,
        event_id: String::from_utf8_lossy(batch.slice(record.event_id)).into_owned(),
    }
}

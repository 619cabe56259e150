//! The caller's end of the thread.

use std::{
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, Thread},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    failure::{Code, Failure},
    sink::{
        Batch, Report, Sink,
        kafka::{
            Cancel, Kafka, KafkaError, at_least_once::AtLeastOnce, inbox::Inbox,
            last_call::LastCall, progress::Progress, worker::Worker,
        },
    },
};

/// How many batches a caller may own. They are handed over without waiting, so there is a place
/// for each.
pub const BATCHES_MAX: usize = 64;

/// How long the thread may take to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// Publishes to Kafka, by a thread of its own.
///
/// Dropping it ends the thread within about two seconds; an open transaction is aborted.
#[derive(Debug)]
pub struct KafkaSink {
    batches: SyncSender<Batch>,
    reports: mpsc::Receiver<Report>,
    closing: Cancel,
    last_call: Arc<LastCall>,
    progress: Progress,
    worker: Thread,
}

impl KafkaSink {
    pub(super) fn start(kafka: Kafka) -> Result<Self, KafkaError> {
        let (batches, incoming) = sync_channel(BATCHES_MAX);
        // A report for each batch and for each cut; with a last call among them the thread waits.
        let (outgoing, reports) = mpsc::channel(2 * BATCHES_MAX);
        let closing = Cancel::default();
        let last_call = Arc::new(LastCall::default());
        let inbox = Inbox::new(incoming, Arc::clone(&last_call));
        let progress = kafka.progress.clone();
        let work = work(kafka, inbox, outgoing, closing.clone())?;
        let started = thread::Builder::new().name("kafka".to_owned()).spawn(work);
        let thread = started.map_err(|error| KafkaError::Call {
            action: "start the thread that produces".to_owned(),
            reason: error.to_string(),
        })?;
        let worker = thread.thread().clone();
        Ok(Self { batches, reports, closing, last_call, progress, worker })
    }
}

/// What the thread does, by the guarantee.
fn work(
    mut kafka: Kafka,
    inbox: Inbox,
    reports: mpsc::Sender<Report>,
    closing: Cancel,
) -> Result<Box<dyn FnOnce() + Send>, KafkaError> {
    Ok(match kafka.events.take() {
        None => {
            let worker = Worker::new(kafka, inbox, reports, closing)?;
            Box::new(move || worker.run())
        }
        Some(events) => {
            let worker = AtLeastOnce::new(kafka, events, inbox, reports, closing)?;
            Box::new(move || worker.run())
        }
    })
}

impl Sink for KafkaSink {
    /// # Panics
    /// Where the caller has more than [`BATCHES_MAX`] batches.
    fn send(&mut self, batch: Batch) {
        match self.batches.try_send(batch) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => panic!("a caller has at most {BATCHES_MAX} batches"),
            // The thread ended: why is among the reports.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    fn will_call(&self) -> bool {
        self.last_call.is_announced()
    }

    fn go_on(&mut self) {
        self.last_call.answer();
        self.worker.unpark();
    }

    fn progress(&self) -> u64 {
        self.progress.count()
    }

    async fn next_report(&mut self) -> Report {
        let report = self.reports.recv().await;
        report.unwrap_or_else(|| Report::Failed(Box::new(KafkaError::ThreadEnded)))
    }

    /// Ends the thread and waits until the producer is gone, three seconds at most. What was not
    /// reported as delivered is not published.
    async fn close(mut self) -> Option<Box<dyn Failure>> {
        self.closing.cancel();
        let mut found = None;
        let ended = async {
            while let Some(report) = self.reports.recv().await {
                // Another failure behind it says nothing more.
                if let Report::Failed(failure) = report
                    && failure.code() == Some(Code::Fenced)
                {
                    found = Some(failure);
                }
            }
        };
        if tokio::time::timeout(CLOSE_LIMIT, ended).await.is_err() {
            tracing::debug!("the producer takes long to end");
        }
        found
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

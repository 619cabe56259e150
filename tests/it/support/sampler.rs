//! The slot is never above the committed checkpoint: looked at all the time, whatever dies
//! meanwhile.

use std::{
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tailwater::lsn::Lsn;

use super::{
    kafka::Broker,
    postgres::{Server, Session},
    reader::CommittedReader,
};

/// Between two samples: often enough to see every state that lasts, and no load.
const INTERVAL: Duration = Duration::from_millis(20);

/// How long an open transaction may hide the newest checkpoint from a sample.
const READ_MAX: Duration = Duration::from_secs(10);

const KEY_SQL: &str = "SELECT system_identifier || '/' || current_database() || '/tailwater' FROM pg_control_system()";

const SLOT_SQL: &str =
    "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'tailwater'";

/// A thread that samples.
pub struct Sampler {
    end: mpsc::SyncSender<()>,
    thread: JoinHandle<u64>,
}

impl Sampler {
    /// Begins. The slot of the database `shop` and its checkpoint must be there.
    pub fn start(server: &Server, broker: &Broker) -> Self {
        let url = server.url("shop");
        let session = server.session("shop");
        let sampling = Sampling {
            key: session.value(KEY_SQL).expect("a key"),
            url,
            session: Some(session),
            topic: CommittedReader::open(broker, "__tailwater_checkpoints"),
            checkpoint: None,
        };
        let (end, is_ended) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || sampling.run(&is_ended));
        Self { end, thread }
    }

    /// Ends. Asserts that the slot never was above the checkpoint, in so many samples at least.
    pub fn finish(self, samples_min: u64) {
        drop(self.end);
        let samples = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        eprintln!("{samples} samples of slot and checkpoint");
        assert!(samples >= samples_min, "{samples} samples, not {samples_min}");
    }
}

struct Sampling {
    key: String,
    url: String,
    session: Option<Session>,
    topic: CommittedReader,
    /// The newest that was read.
    checkpoint: Option<Lsn>,
}

impl Sampling {
    fn run(mut self, is_ended: &mpsc::Receiver<()>) -> u64 {
        let mut samples = 0;
        loop {
            samples += u64::from(self.sample().is_some());
            if is_ended.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Disconnected) {
                return samples;
            }
        }
    }

    /// The slot first, then the topic to its high watermark: readers see a committed checkpoint
    /// some milliseconds late. None where a server is down.
    fn sample(&mut self) -> Option<()> {
        let session = self.session.take().or_else(|| Session::open(&self.url).ok())?;
        let rows = session.try_rows(SLOT_SQL).ok()?;
        self.session = Some(session);
        let flush = rows.first().and_then(|row| row.first()).cloned().flatten();
        let flush: Lsn = flush.expect("the slot is there").parse().expect("a position");
        let (key, checkpoint) = (self.key.as_bytes(), &mut self.checkpoint);
        let read = self.topic.try_read(READ_MAX, |record| {
            if record.key.as_deref() == Some(key) {
                let value = record.json();
                let text = value["commit_end_lsn"].as_str().expect("a position");
                *checkpoint = Some(text.parse().expect("a position"));
            }
        });
        read.ok()?;
        let checkpoint = self.checkpoint.expect("a checkpoint is there");
        assert!(flush <= checkpoint, "the slot is at {flush}, the checkpoint at {checkpoint}");
        Some(())
    }
}

//! A sink that keeps what it commits, takes its time, and fails when told.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::history::History;
use crate::{
    checkpoint::CheckpointRecord,
    failure::{Code, Failure, Recovery},
    sink::{Batch, Checkpoints, CutSequence, Report, Sink, Urgency},
};

/// An event that is visible.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Visible {
    pub(super) id: String,
    commit_lsn: u64,
    bytes: usize,
}

/// What became visible at once.
#[derive(Debug)]
struct Commit {
    events: Vec<Visible>,
    checkpoint: CheckpointRecord,
}

/// What a `read_committed` reader sees; it outlives sinks.
#[derive(Debug)]
pub(super) struct Topic {
    first: CheckpointRecord,
    commits: Vec<Commit>,
}

pub(super) type SharedTopic = Rc<RefCell<Topic>>;

impl Topic {
    /// With the checkpoint of a first start.
    pub(super) fn new(first: CheckpointRecord) -> SharedTopic {
        Rc::new(RefCell::new(Self { first, commits: Vec::new() }))
    }

    /// The newest checkpoint.
    pub(super) fn checkpoint(&self) -> CheckpointRecord {
        self.commits.last().map_or(&self.first, |commit| &commit.checkpoint).clone()
    }

    /// How far the newest checkpoint is.
    pub(super) fn commit_end_lsn(&self) -> u64 {
        self.checkpoint().commit_end_lsn.lsn().to_wire()
    }

    /// How often something was committed.
    pub(super) fn commit_count(&self) -> usize {
        self.commits.len()
    }

    /// Everything visible, in order.
    pub(super) fn events(&self) -> impl Iterator<Item = &Visible> {
        self.commits.iter().flat_map(|commit| &commit.events)
    }

    /// Whether all that is visible is in `history`, the rest of what is out in part included.
    pub(super) fn is_of(&self, history: &History) -> bool {
        let expected: Vec<&str> =
            history.transactions.iter().flat_map(|transaction| transaction.events()).collect();
        let is_prefix = self.events().zip(&expected).all(|(event, id)| event.id == **id);
        is_prefix && self.events().count() <= expected.len()
    }

    /// At every commit, the checkpoint says exactly what is visible: each event once, in order, and
    /// of a transaction a part only where it is larger than `transaction_bytes`.
    pub(super) fn assert_exact(&self, history: &History, transaction_bytes: usize, seed: u64) {
        let mut visible: Vec<&Visible> = Vec::new();
        for commit in &self.commits {
            let open = visible.last().map(|event| event.commit_lsn);
            visible.extend(&commit.events);
            let checkpoint = &commit.checkpoint;
            let end = checkpoint.commit_end_lsn.lsn().to_wire();
            let whole = history.transactions.iter().filter(|one| one.commit_lsn < end);
            let mut expected: Vec<&str> = whole.flat_map(|one| one.events()).collect();
            if let Some(part) = checkpoint.in_progress {
                let commit_lsn = part.commit_lsn.lsn().to_wire();
                let torn = history.transactions.iter().find(|one| one.commit_lsn == commit_lsn);
                let torn = torn.unwrap_or_else(|| panic!("nothing at {commit_lsn:X}, seed {seed}"));
                let events = usize::try_from(part.events).expect("few");
                assert!(events > 0 && events < torn.events().count(), "seed {seed}: {part:?}");
                expected.extend(torn.events().take(events));
                let rest = self.events().filter(|event| event.commit_lsn == commit_lsn);
                let bytes: usize = rest.map(|event| event.bytes).sum();
                // Until its rest is out nobody knows how large it is.
                let is_out = checkpoint != &self.checkpoint() && open != Some(commit_lsn);
                assert!(bytes > transaction_bytes || !is_out, "seed {seed}: torn at {bytes} bytes");
            }
            let ids: Vec<&str> = visible.iter().map(|event| event.id.as_str()).collect();
            assert_eq!(ids, expected, "seed {seed}, at the checkpoint {checkpoint:?}");
        }
    }
}

/// Told to fail.
#[derive(Debug, thiserror::Error)]
#[error("the broker is gone")]
pub(super) struct BrokerGone;

impl Failure for BrokerGone {
    fn code(&self) -> Option<Code> {
        None
    }

    fn recovery(&self) -> Recovery {
        Recovery::Retry
    }

    fn hint(&self) -> Option<String> {
        None
    }
}

/// How a sink works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// Takes no batch, reports nothing, and promises a last call that never comes.
    Stalled,
    /// Takes up to this long for each thing it does.
    UpTo(Duration),
    /// The same, until it has committed so often: then it fails, and its last commit is not
    /// reported.
    FailingAfter(Duration, usize),
}

/// Commits at cuts, as the sink of Kafka does: exactly there where a cut is urgent, later where a
/// whole group waits behind it.
pub(super) struct RecordingSink {
    topic: SharedTopic,
    pace: Pace,
    random: fastrand::Rng,
    queue: VecDeque<Batch>,
    group: Vec<Visible>,
    cut: Option<(CutSequence, Urgency)>,
    /// Those of all cuts since the latest commit.
    checkpoints: Checkpoints,
    reports: VecDeque<Report>,
    /// When the next thing is done, once there is something to do.
    due: Option<Instant>,
    /// A last call is among the reports.
    is_announced: bool,
    commits: usize,
}

impl RecordingSink {
    pub(super) fn new(topic: SharedTopic, pace: Pace, seed: u64) -> Self {
        Self {
            topic,
            pace,
            random: fastrand::Rng::with_seed(seed),
            queue: VecDeque::new(),
            group: Vec::new(),
            cut: None,
            checkpoints: Checkpoints::default(),
            reports: VecDeque::new(),
            due: None,
            is_announced: pace == Pace::Stalled,
            commits: 0,
        }
    }

    fn take(&mut self, batch: Batch) {
        let text = |span| String::from_utf8_lossy(batch.slice(span)).into_owned();
        self.group.extend(batch.records().iter().map(|record| Visible {
            id: text(record.event_id),
            commit_lsn: record.commit_lsn.lsn().to_wire(),
            bytes: record.bytes(),
        }));
        if let Some(cut) = batch.cut() {
            self.checkpoints.succeed(&cut.checkpoints);
        }
        self.cut = batch.cut().map(|cut| (cut.sequence, cut.urgency));
        self.reports.push_back(Report::Emptied(batch));
        let Some((_, urgency)) = self.cut else { return };
        let group_waits = self.queue.iter().any(|batch| batch.cut().is_some());
        if urgency == Urgency::Now || !group_waits || self.random.bool() {
            self.commit();
        }
    }

    fn commit(&mut self) {
        let Some((sequence, _)) = self.cut.take() else { return };
        let checkpoints = std::mem::take(&mut self.checkpoints);
        let checkpoint = checkpoints.iter().next().expect("a pipeline's own");
        let checkpoint = serde_json::from_slice(&checkpoint.value).expect("a checkpoint");
        let events = std::mem::take(&mut self.group);
        self.topic.borrow_mut().commits.push(Commit { events, checkpoint });
        self.commits += 1;
        let fails = matches!(self.pace, Pace::FailingAfter(_, limit) if self.commits >= limit);
        self.reports.push_back(if fails {
            Report::Failed(Box::new(BrokerGone))
        } else {
            Report::Delivered(sequence)
        });
        if self.random.bool() && !self.is_announced {
            self.is_announced = true;
            self.reports.push_back(Report::LastCall);
        }
    }
}

impl Sink for RecordingSink {
    fn send(&mut self, batch: Batch) {
        self.queue.push_back(batch);
    }

    fn will_call(&self) -> bool {
        self.is_announced
    }

    async fn next_report(&mut self) -> Report {
        loop {
            let pause_max = match self.pace {
                Pace::UpTo(pause_max) | Pace::FailingAfter(pause_max, _) => pause_max,
                Pace::Stalled => std::future::pending().await,
            };
            if self.queue.is_empty() && self.reports.is_empty() {
                std::future::pending::<()>().await;
            }
            let pause = pause_max.mul_f64(self.random.f64());
            sleep_until(*self.due.get_or_insert_with(|| Instant::now() + pause)).await;
            self.due = None;
            let takes = self.reports.is_empty() || self.random.bool();
            match self.queue.pop_front() {
                Some(batch) if takes => self.take(batch),
                Some(batch) => self.queue.push_front(batch),
                None => {}
            }
            if let Some(report) = self.reports.pop_front() {
                self.is_announced &= !matches!(report, Report::LastCall);
                return report;
            }
        }
    }

    async fn close(self) -> Option<Box<dyn Failure>> {
        None
    }
}

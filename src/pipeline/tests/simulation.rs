//! Random histories, random crashes: what is visible is what was committed, once, in order.
//!
//! Each run prints nothing unless it fails; then the message holds its seed, and
//! `TAILWATER_SEED=<seed>` repeats that very run.

use std::{future::pending, time::Duration};

use tokio::time::{sleep, timeout};

use super::{history::History, recording_sink::Pace, rig::Rig, walsender::Tempo};
use crate::{
    failure::{Code, Failure, Recovery},
    pipeline::{ShutdownTrigger, stream_loop::End},
};

/// How many runs a test makes.
const RUNS: usize = 150;

/// How often a run crashes.
const CRASHES_MAX: usize = 12;

/// A run that has not ended by then, with nothing to disturb it, never does.
const SETTLED_MAX: Duration = Duration::from_secs(600);

/// How a session ended.
#[derive(Debug)]
enum Outcome {
    /// By a crash, a failure that is tried again, or a stop.
    Interrupted,
    /// Everything is published, and the slot has moved to the log's end.
    Finished,
    /// By a refusal.
    Refused(Box<dyn Failure>),
}

/// One run.
struct Simulation {
    rig: Rig,
    random: fastrand::Rng,
    seed: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut history = History::new();
        if random.bool() {
            history.grow_silently(&mut random);
        }
        history.grow(random.usize(1..30), &mut random);
        let transaction_bytes = [700, 2_500, 100_000, 4 << 20][random.usize(..4)];
        let rig = Rig::new(history, transaction_bytes, random.u64(..));
        Self { rig, random, seed }
    }

    fn pace(&mut self) -> Pace {
        let pause_max = Duration::from_millis([0, 50, 3_000][self.random.usize(..3)]);
        match self.random.u8(0..4) {
            0 => Pace::FailingAfter(pause_max, self.random.usize(1..6)),
            _ => Pace::UpTo(pause_max),
        }
    }

    /// Runs until it is interrupted; without a crash, until everything is out.
    async fn session(&mut self, pace: Pace, crash: Option<Duration>) -> Outcome {
        let seed = self.random.u64(..);
        let (stream_loop, walsender, socket) = match self.rig.start(pace, seed).await {
            Ok(started) => started,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let (trigger, mut shutdown) = ShutdownTrigger::new();
        let stops = self.random.bool();
        let crashed = async {
            match crash {
                Some(crash) => sleep(crash).await,
                None => pending().await,
            }
            if stops {
                trigger.request();
                pending().await
            }
        };
        let end = self.rig.server.borrow().history.end;
        let finished = async {
            while self.rig.server.borrow().confirmed_flush < end {
                sleep(Duration::from_millis(100)).await;
            }
            if crash.is_some() {
                pending().await
            }
        };
        let serving = async {
            walsender.serve(socket).await;
            pending().await
        };
        tokio::select! {
            ended = stream_loop.run(&mut shutdown) => match ended.end {
                End::Failed(failure) if failure.recovery() == Recovery::Stop => {
                    Outcome::Refused(failure)
                }
                End::Failed(_) | End::Stopped => Outcome::Interrupted,
                end @ (End::Halt { .. }
                | End::BeforeHalt { .. }
                | End::Row(_)
                | End::RowsFirst { .. }
                | End::RowsRefused { .. }
                | End::Fenced { .. }
                | End::FailedFenced { .. }) => panic!("{end:?}, seed {}", self.seed),
            },
            () = crashed => Outcome::Interrupted,
            () = finished => Outcome::Finished,
            () = serving => Outcome::Interrupted,
        }
    }

    /// Some crashes while the log grows. The server may lose what its slot was told since it last
    /// wrote it down.
    async fn disturb(&mut self) {
        for _ in 0..self.random.usize(..CRASHES_MAX) {
            let (pace, crash) = (self.pace(), Duration::from_millis(self.random.u64(..20_000)));
            let outcome = self.session(pace, Some(crash)).await;
            assert!(matches!(outcome, Outcome::Interrupted), "seed {}: {outcome:?}", self.seed);
            self.assert_exact();
            let mut server = self.rig.server.borrow_mut();
            if self.random.u8(0..4) == 0 {
                server.confirmed_flush = server.saved_flush;
            }
            if self.random.bool() {
                server.history.grow(self.random.usize(..8), &mut self.random);
            }
        }
    }

    /// Goes on undisturbed until everything is out.
    async fn finish(&mut self) {
        let tempo = if self.random.bool() { Tempo::Random } else { Tempo::Hurried };
        self.rig.server.borrow_mut().tempo = tempo;
        let pace = Pace::UpTo(Duration::from_millis(20));
        let outcome = timeout(SETTLED_MAX, self.session(pace, None)).await;
        let seed = self.seed;
        let outcome = outcome.unwrap_or_else(|_| panic!("the slot does not move, seed {seed}"));
        assert!(matches!(outcome, Outcome::Finished), "seed {seed}: {outcome:?}");
        self.assert_exact();
        let (server, topic) = (self.rig.server.borrow(), self.rig.topic.borrow());
        let committed = server.history.transactions.iter().flat_map(|one| one.events());
        let visible = topic.events().map(|event| event.id.as_str());
        assert!(visible.eq(committed), "seed {seed}");
        assert_eq!(topic.checkpoint().in_progress, None, "seed {seed}");
    }

    fn assert_exact(&self) {
        let server = self.rig.server.borrow();
        let topic = self.rig.topic.borrow();
        topic.assert_exact(&server.history, self.rig.transaction_bytes, self.seed);
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("TAILWATER_SEED") {
        Ok(seed) => vec![seed.parse().expect("a seed is a number")],
        Err(_) => (0..RUNS).map(|_| fastrand::u64(..)).collect(),
    }
}

#[tokio::test(start_paused = true)]
async fn every_event_is_visible_once_whatever_crashes() {
    for seed in seeds() {
        let mut simulation = Simulation::new(seed);
        simulation.disturb().await;
        simulation.finish().await;
    }
}

/// A failover or a restored backup takes away the end of the log, and another one grows.
#[tokio::test(start_paused = true)]
async fn a_history_that_lost_what_is_visible_is_refused_each_time() {
    for seed in seeds() {
        let mut simulation = Simulation::new(seed);
        simulation.disturb().await;
        let switch_point = simulation.fork();
        simulation.judge_fork(switch_point).await;
    }
}

impl Simulation {
    /// Forks the history somewhere between the slot's position and the log's end, and returns
    /// where.
    fn fork(&mut self) -> u64 {
        let mut server = self.rig.server.borrow_mut();
        let server = &mut *server;
        // Another server's slot, or a backup's, is where ours was a while ago.
        server.confirmed_flush = server.saved_flush;
        let (confirmed, written) = (server.confirmed_flush, server.written);
        // Most often at a place that matters: a transaction's begin or end.
        let places: Vec<u64> = server
            .history
            .transactions
            .iter()
            .flat_map(|one| [one.commit_lsn, one.end_lsn])
            .filter(|place| (confirmed..=written).contains(place))
            .chain([confirmed, written])
            .collect();
        let switch_point = places[self.random.usize(..places.len())];
        server.history.fork(switch_point, &mut self.random);
        server.history.grow(self.random.usize(1..20), &mut self.random);
        server.written = server.history.end;
        if self.random.bool() {
            self.rig.switch_points.push(switch_point);
        } else if self.random.bool() {
            server.written = switch_point;
        }
        switch_point
    }

    /// Either everything of the history at hand gets visible once, or it is refused, again and
    /// again, and nothing more gets visible.
    async fn judge_fork(&mut self, switch_point: u64) {
        let seed = self.seed;
        let checkpoint = self.rig.topic.borrow().checkpoint();
        let part = checkpoint.in_progress.map(|part| part.commit_lsn.lsn().to_wire());
        let is_behind_all = checkpoint.commit_end_lsn.lsn().to_wire() <= switch_point
            && part.is_none_or(|part| part < switch_point);
        let is_intact = self.rig.topic.borrow().is_of(&self.rig.server.borrow().history);
        let count = self.rig.topic.borrow().commit_count();
        let pace = Pace::UpTo(Duration::from_millis(20));
        let outcome = timeout(SETTLED_MAX, self.session(pace, None)).await;
        match outcome.unwrap_or_else(|_| panic!("neither refused nor done, seed {seed}")) {
            Outcome::Finished => {
                assert!(is_intact, "what is visible is lost, and nothing says so, seed {seed}");
                self.assert_exact();
            }
            Outcome::Refused(first) => {
                assert!(!is_behind_all, "{first:?}, though nothing is lost, seed {seed}");
                for _ in 0..3 {
                    let again = timeout(SETTLED_MAX, self.session(pace, None)).await;
                    let Ok(Outcome::Refused(again)) = again else {
                        panic!("refused once only ({first}), then {again:?}, seed {seed}")
                    };
                    assert!(is_about_history(&*again), "{again:?}, seed {seed}");
                }
                assert_eq!(self.rig.topic.borrow().commit_count(), count, "seed {seed}");
            }
            Outcome::Interrupted => panic!("seed {seed}"),
        }
    }
}

fn is_about_history(failure: &dyn Failure) -> bool {
    matches!(
        failure.code(),
        Some(
            Code::HistoryDiverged
                | Code::TransactionChanged
                | Code::TimelineDiverged
                | Code::CheckpointAhead
        )
    )
}

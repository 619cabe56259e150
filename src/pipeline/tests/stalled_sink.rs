//! A sink that takes nothing does not keep the server waiting.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    history::History,
    recording_sink::Pace,
    rig::{LIMITS, Rig},
    walsender::Tempo,
};
use crate::{
    failure::Recovery,
    pipeline::{ShutdownTrigger, stream_loop::End},
};

/// A little more than the longest pause between two status updates.
const STATUS_INTERVAL_MAX: Duration = Duration::from_secs(11);

/// More rows than the loop's batches hold, so that it stops to read.
fn backlog() -> Rig {
    let mut random = fastrand::Rng::with_seed(7);
    let mut history = History::new();
    for _ in 0..2_000 {
        history.append(50, 1, &mut random);
    }
    let rig = Rig::new(history, 100_000, 7);
    let mut server = rig.server.borrow_mut();
    server.written = server.history.end;
    server.tempo = Tempo::Hurried;
    drop(server);
    rig
}

/// Runs over a stalled sink, asks for the end after a while, and returns when it came.
async fn run(rig: &Rig, stop_after: Duration) -> (End, Instant) {
    let started = rig.start(Pace::Stalled, 7).await;
    let (stream_loop, walsender, socket) = started.unwrap_or_else(|refusal| panic!("{refusal}"));
    let (trigger, mut shutdown) = ShutdownTrigger::new();
    let serving = walsender.serve(socket);
    let stopping = async {
        sleep(stop_after).await;
        trigger.request();
        Instant::now()
    };
    let (ended, (), stopped_at) = tokio::join!(stream_loop.run(&mut shutdown), serving, stopping);
    (ended.end, stopped_at)
}

fn longest_pause(rig: &Rig, began: Instant) -> Duration {
    let server = rig.server.borrow();
    let times = std::iter::once(began).chain(server.statuses.iter().copied());
    let times: Vec<Instant> = times.collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn status_updates_flow_while_the_sink_is_stalled() {
    let (rig, began) = (backlog(), Instant::now());
    let stop_after = Duration::from_secs(120);
    let (end, stopped_at) = run(&rig, stop_after).await;
    assert!(matches!(end, End::Stopped), "{end:?}");
    assert!(longest_pause(&rig, began) <= STATUS_INTERVAL_MAX);
    let server = rig.server.borrow();
    assert_eq!(server.confirmed_flush, rig.topic.borrow().commit_end_lsn(), "nothing is delivered");
    assert!(server.statuses.last().is_some_and(|at| *at >= stopped_at));
}

/// What asks a walsender to end waits for what is acknowledged, and nothing is while Kafka is away.
#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_nothing_for_too_long_ends_the_stream() {
    let (rig, began) = (backlog(), Instant::now());
    let (end, _) = run(&rig, LIMITS.outage_grace * 2).await;
    let End::Failed(failure) = end else { panic!("{end:?}") };
    assert_eq!(failure.recovery(), Recovery::Retry);
    let server = rig.server.borrow();
    let last = server.statuses.last().expect("status updates");
    let held = *last - began;
    assert!(held >= LIMITS.outage_grace && held < LIMITS.outage_grace + STATUS_INTERVAL_MAX);
}

#[tokio::test(start_paused = true)]
async fn status_updates_flow_while_draining() {
    for tenths in 0..100 {
        let (rig, began) = (backlog(), Instant::now());
        let (end, stopped_at) = run(&rig, Duration::from_millis(20_000 + 100 * tenths)).await;
        assert!(matches!(end, End::Stopped), "{end:?}");
        assert!(stopped_at.elapsed() <= Duration::from_secs(5), "draining is bounded");
        assert!(longest_pause(&rig, began) <= STATUS_INTERVAL_MAX);
    }
}

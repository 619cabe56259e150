//! Checkpoints without events, while some transaction is open at any moment.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{history::History, recording_sink::Pace, rig::Rig, walsender::Tempo};
use crate::pipeline::ShutdownTrigger;

/// Some transaction is open at any moment, so no keepalive ever counts: what moves the slot is the
/// end of the transaction before.
#[tokio::test(start_paused = true)]
async fn the_slot_follows_transactions_of_other_tables_that_leave_no_pause() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut history = History::new();
    for _ in 0..20 {
        history.append_of_others(50, &mut random);
    }
    let third = history.transactions[2].end_lsn;
    let rig = Rig::new(history, 100_000, 7);
    {
        let mut server = rig.server.borrow_mut();
        server.written = server.history.end;
        server.tempo = Tempo::Steady(Duration::from_millis(100));
    }
    let started = rig.start(Pace::UpTo(Duration::ZERO), 7).await;
    let (stream_loop, walsender, socket) = started.unwrap_or_else(|refusal| panic!("{refusal}"));
    let (_trigger, mut shutdown) = ShutdownTrigger::new();
    let followed = async {
        while rig.server.borrow().confirmed_flush < third {
            sleep(Duration::from_millis(100)).await;
        }
    };
    // Each takes five seconds and a bit.
    tokio::select! {
        end = stream_loop.run(&mut shutdown) => panic!("{end:?}"),
        () = walsender.serve(socket) => panic!("the connection ended"),
        followed = timeout(Duration::from_secs(25), followed) => followed.expect("the slot follows"),
    }
}

/// What is worth a checkpoint of its own becomes so while the next transaction's first records are
/// with the sink already: a cut behind them would tear it.
#[tokio::test(start_paused = true)]
async fn no_checkpoint_comes_behind_records_of_an_open_transaction() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut history = History::new();
        history.append_events(1, 10, &mut random);
        history.append_of_others(1, &mut random);
        history.append_events(60, 60_000, &mut random);
        let rig = Rig::new(history, 16 << 20, seed);
        let end = {
            let mut server = rig.server.borrow_mut();
            server.written = server.history.end;
            server.tempo = Tempo::Steady(Duration::from_millis(100));
            server.history.end
        };
        let started = rig.start(Pace::UpTo(Duration::from_millis(2_500)), seed).await;
        let (stream_loop, walsender, socket) = started.unwrap_or_else(|error| panic!("{error}"));
        let (_trigger, mut shutdown) = ShutdownTrigger::new();
        let published = async {
            while rig.server.borrow().confirmed_flush < end {
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            end = stream_loop.run(&mut shutdown) => panic!("{end:?}"),
            () = walsender.serve(socket) => panic!("the connection ended"),
            published = timeout(Duration::from_secs(300), published) => {
                published.expect("the slot follows");
            }
        }
        rig.topic.borrow().assert_exact(&rig.server.borrow().history, 16 << 20, seed);
    }
}

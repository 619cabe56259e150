//! Whatever dies, stalls or comes back too late: each committed row is on Kafka once.

use std::{thread, time::Duration};

use crate::support::{
    kafka::Broker,
    let_pass,
    oracle::Value,
    postgres::Server,
    proof_scale,
    sampler::Sampler,
    scaled,
    scene::{
        SAMPLES_MIN, envelope_settings, init, judge, publishing, shop, stop, under_load,
        wait_for_events, wait_until_published,
    },
    workload::Workload,
};

#[test]
fn sigterm_under_load_ends_in_time_and_repeats_nothing() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let sampler = Sampler::start(&server, &broker);
    let url = server.url("shop");
    thread::scope(|scope| {
        let writing = scope.spawn(|| Workload::default().run(&url, scaled(300_000)));
        while !writing.is_finished() {
            let daemon = publishing(&settings);
            let_pass(Duration::from_millis(fastrand::u64(100..1_500)));
            stop(daemon);
        }
    });
    let daemon = publishing(&settings);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    judge(&broker, &session, Value::Envelope);
}

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Daemon,
    Broker,
    Database,
}

#[test]
fn kill_9_of_everything_loses_and_doubles_nothing() {
    let (server, broker) = (Server::start(), Broker::start());
    shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let mut victims = Vec::new();
    for (victim, times) in [(Victim::Daemon, 30.), (Victim::Broker, 5.), (Victim::Database, 5.)] {
        // At a small scale each of them still dies once; the daemon at more moments than one.
        let times = (times * proof_scale().max(0.2)) as usize;
        victims.extend(std::iter::repeat_n(victim, times));
    }
    let seed = fastrand::u64(..);
    eprintln!("order of kills: seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    random.shuffle(&mut victims);

    let sampler = Sampler::start(&server, &broker);
    let mut daemon = publishing(&settings);
    // They write until the last kill, and at least that many rows.
    under_load(&[server.url("shop")], scaled(1_000_000), || {
        for victim in victims {
            let_pass(Duration::from_millis(random.u64(50..3_000)));
            match victim {
                Victim::Daemon => daemon.kill_and_restart(&settings),
                Victim::Broker => broker.restart(),
                Victim::Database => server.restart(),
            }
            assert!(daemon.is_running(), "{victim:?}: {}", daemon.stderr());
        }
    });
    let session = server.session("shop");
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    judge(&broker, &session, Value::Envelope);
}

/// Longer than what waits inside librdkafka and the walsender may take it for a hiccup.
const STALL: Duration = Duration::from_secs(20);

/// None can be taken while a server is stopped.
const SAMPLES_BESIDE_A_STALL_MIN: u64 = 3;

/// Who does not answer any more, and is not dead either.
#[derive(Clone, Copy, Debug)]
enum Stalled {
    Broker,
    Database,
}

#[test]
fn servers_that_stall_under_load_lose_and_double_nothing() {
    for stalled in [Stalled::Broker, Stalled::Database] {
        let (server, broker) = (Server::start(), Broker::start());
        let session = shop(&server);
        let settings = envelope_settings(&server, &broker);
        init(&settings);
        let sampler = Sampler::start(&server, &broker);
        let mut daemon = publishing(&settings);
        under_load(&[server.url("shop")], scaled(100_000), || {
            wait_for_events(&broker, "order.events");
            match stalled {
                Stalled::Broker => broker.freeze(),
                Stalled::Database => server.freeze(),
            }
            let_pass(STALL);
            match stalled {
                Stalled::Broker => broker.thaw(),
                Stalled::Database => server.thaw(),
            }
            wait_until_published(&session, "tailwater");
        });
        assert!(daemon.is_running(), "{stalled:?}: {}", daemon.stderr());
        wait_until_published(&session, "tailwater");
        stop(daemon);
        sampler.finish(SAMPLES_BESIDE_A_STALL_MIN);
        judge(&broker, &session, Value::Envelope);
    }
}

//! Two instances on one slot: one publishes, the other one stands by.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    kafka::Broker,
    oracle::Value,
    postgres::{Server, Session},
    sampler::Sampler,
    scaled,
    scene::{
        SAMPLES_MIN, assert_gives_way, envelope_settings, freeze_in_transaction, holder, init,
        judge, publishing, shop, stop, under_trickle, wait_for_events, wait_until_published,
    },
    settings::SettingsFile,
    wait_until,
};

/// From the slot being free to the one that stood by having it.
const TAKE_OVER_MAX: Duration = Duration::from_secs(2);

/// How often the instances take turns, at full size.
const ROUNDS: u64 = 10;

/// One that stands by, and says for whom.
fn standing_by(settings: &SettingsFile, session: &Session) -> Daemon {
    let daemon = Daemon::start(settings);
    let holder = holder(session).expect("the slot is held");
    daemon.wait_for(&format!("the slot is in use by process {holder}"));
    daemon
}

/// What an instance that went to sleep inside a Kafka transaction had under way is published by the
/// other one, and nothing of it twice.
#[test]
fn one_that_stood_by_takes_over_and_a_former_leader_that_wakes_up_gives_way() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let sampler = Sampler::start(&server, &broker);
    let (mut taken_over_after, mut fenced) = (Duration::MAX, 0);
    let last = under_trickle(&server.url("shop"), || {
        wait_for_events_of(&settings, &broker);
        let mut first = publishing(&settings);
        for _ in 0..scaled(ROUNDS).max(2) {
            let second = standing_by(&settings, &session);
            freeze_in_transaction(&first, &broker, "order.events");
            let former = holder(&session).expect("the slot is held");
            session.run(&format!("SELECT pg_terminate_backend({former})"));
            wait_until("the slot to be free", PATIENCE, || {
                holder(&session).is_none_or(|pid| pid != former)
            });
            let free_since = Instant::now();
            wait_until("the second to have the slot", PATIENCE, || holder(&session).is_some());
            taken_over_after = taken_over_after.min(free_since.elapsed());
            second.wait_for("publishing");
            wait_until_published(&session, "tailwater");
            fenced += usize::from(assert_gives_way(first));
            first = second;
        }
        first
    });
    // One of them on a machine that is busy with something else.
    assert!(taken_over_after <= TAKE_OVER_MAX, "{taken_over_after:?}");
    assert!(fenced > 0, "nobody was fenced");
    wait_until_published(&session, "tailwater");
    stop(last);
    sampler.finish(SAMPLES_MIN);
    judge(&broker, &session, Value::Envelope);
}

/// Has one instance publish something, so that the topic is there.
fn wait_for_events_of(settings: &SettingsFile, broker: &Broker) {
    let daemon = publishing(settings);
    wait_for_events(broker, "order.events");
    stop(daemon);
}

#[test]
fn another_source_does_not_stand_by() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let first = publishing(&settings);
    let text = fs::read_to_string(settings.path()).expect("settings");
    let other = SettingsFile::of_text(text).replaced("source = \"", "source = \"other-");
    let ended = Daemon::start(&other).wait(PATIENCE);
    assert!(ended.is_code("foreign_slot"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("standing by"), "{}", ended.stderr);
    assert!(holder(&session).is_some(), "the first one publishes");
    stop(first);
}

#[test]
fn one_that_stands_by_ends_at_once_when_asked_to() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let first = publishing(&settings);
    stop(standing_by(&settings, &session));
    stop(first);
}

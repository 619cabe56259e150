//! Servers that neither answer nor go away: what a stalled disk, a paused container or a partition
//! of the network looks like.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::support::{
    daemon::Daemon,
    kafka::Broker,
    let_pass,
    oracle::Value,
    postgres::Server,
    scene::{
        TOPICS, envelope_settings, init, judge, publishing, shop, stop, wait_for_events,
        wait_until_published,
    },
    settings::SettingsFile,
    workload::Workload,
};

/// Enough to fill what is in flight many times over, at any scale of the proofs.
const ROWS: u64 = 40_000;

/// Longer than a server may be silent, shorter than a commit is waited for.
const STALL: Duration = Duration::from_secs(45);

#[test]
fn a_broker_that_stalls_under_load_is_waited_out_by_the_same_stream() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let daemon = publishing(&settings);
    let url = server.url("shop");
    thread::scope(|scope| {
        let writing = scope.spawn(|| Workload::default().run(&url, ROWS));
        // What needs the broker's answer at once is over: topics are looked up.
        for topic in TOPICS {
            wait_for_events(&broker, topic);
        }
        broker.freeze();
        let_pass(STALL);
        broker.thaw();
        writing.join().expect("the application writes");
    });
    wait_until_published(&session, "tailwater");
    let starts = daemon.stderr().matches("publishing").count();
    assert_eq!(starts, 1, "it started over: {}", daemon.stderr());
    stop(daemon);
    judge(&broker, &session, Value::Envelope);
}

/// A pipeline that publishes under load.
struct Busy {
    server: Server,
    broker: Broker,
    settings: SettingsFile,
}

impl Busy {
    fn new() -> Self {
        let (server, broker) = (Server::start(), Broker::start());
        let session = shop(&server);
        let settings = envelope_settings(&server, &broker);
        init(&settings);
        drop(session);
        Self { server, broker, settings }
    }

    /// Freezes something under load, asks for the end, and judges what is on Kafka once all is
    /// well again.
    fn stop_while(&self, freeze: impl Fn(&Self), thaw: impl Fn(&Self), signals: usize) {
        let goes_on = AtomicBool::new(true);
        let url = self.server.url("shop");
        thread::scope(|scope| {
            scope.spawn(|| Workload::default().run_while(&url, u64::MAX, &goes_on));
            let daemon = publishing(&self.settings);
            daemon.wait_for("topic created");
            freeze(self);
            // Until what is in flight waits for it.
            let_pass(Duration::from_secs(1));
            for _ in 1..signals {
                daemon.signal(libc::SIGTERM);
                let_pass(Duration::from_millis(300));
            }
            stop(daemon);
            thaw(self);
            goes_on.store(false, Ordering::Relaxed);
        });
        let session = self.server.session("shop");
        let daemon = publishing(&self.settings);
        wait_until_published(&session, "tailwater");
        stop(daemon);
        judge(&self.broker, &session, Value::Envelope);
    }
}

#[test]
fn sigterm_ends_in_time_while_the_broker_does_not_answer() {
    let busy = Busy::new();
    busy.stop_while(|busy| busy.broker.freeze(), |busy| busy.broker.thaw(), 1);
}

#[test]
fn sigterm_ends_in_time_while_the_database_does_not_answer() {
    let busy = Busy::new();
    busy.stop_while(|busy| busy.server.freeze(), |busy| busy.server.thaw(), 1);
}

/// Draining, closing the sink and closing the stream each wait for their own bound.
#[test]
fn sigterm_ends_in_time_while_neither_side_answers() {
    let busy = Busy::new();
    let freeze = |busy: &Busy| {
        busy.broker.freeze();
        // So that the database's last rows wait for the broker.
        let_pass(Duration::from_secs(1));
        busy.server.freeze();
    };
    let thaw = |busy: &Busy| {
        busy.server.thaw();
        busy.broker.thaw();
    };
    busy.stop_while(freeze, thaw, 1);
}

#[test]
fn a_second_sigterm_neither_kills_nor_delays() {
    let busy = Busy::new();
    busy.stop_while(|busy| busy.broker.freeze(), |busy| busy.broker.thaw(), 3);
}

#[test]
fn sigterm_ends_a_start_that_nothing_answers() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    drop(session);
    let freezes: [fn(&Server, &Broker); 2] =
        [|_, broker| broker.freeze(), |server, _| server.freeze()];
    for freeze in freezes {
        freeze(&server, &broker);
        let daemon = Daemon::start(&settings);
        // Long enough to be waiting for an answer.
        let_pass(Duration::from_secs(2));
        stop(daemon);
        server.thaw();
        broker.thaw();
    }
    stop(publishing(&settings));
}

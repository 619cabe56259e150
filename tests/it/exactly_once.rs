//! The guarantee: each committed row is on Kafka once, in the order of commits per aggregate,
//! whole transactions only, whatever is killed in between.

use std::time::Duration;

use crate::support::{
    daemon::{self, Daemon},
    java,
    kafka::Broker,
    oracle::{Oracle, Value},
    postgres::{Server, Session},
    scaled,
    settings::SettingsFile,
    wait_until,
    workload::{self, Payload, Workload},
};

/// Topics that the workload's events go to, and their partitions (the broker's default).
const TOPICS: [&str; 2] = ["order.events", "invoice.events"];
const PARTITIONS: u32 = 3;

/// The most that `run` may ever hold in memory.
const RESIDENT_BYTES_MAX: u64 = 64 << 20;

/// How long everything that waits may take to be published.
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// A database with the application's tables.
fn shop(server: &Server) -> Session {
    let session = server.create_database("shop");
    workload::create_tables(&session);
    session
}

/// Waits until the slot has passed all that is in the log at this moment.
fn wait_until_published(session: &Session, slot: &str) {
    let end = session.value("SELECT pg_current_wal_lsn()").expect("a position");
    let sql = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots \
         WHERE slot_name = '{slot}'"
    );
    wait_until("the slot to pass what was committed", DRAIN_MAX, || {
        session.value(&sql).as_deref() == Some("t")
    });
}

fn judge(broker: &Broker, session: &Session, value: Value) {
    let mut oracle = Oracle::new(session, value, PARTITIONS);
    for topic in TOPICS {
        broker.for_each_committed(topic, |record| oracle.take(&record));
    }
    oracle.verdict().assert_exact();
}

fn init(settings: &SettingsFile) {
    let ended = daemon::run(&["init"], settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Stops it as a service manager does.
fn stop(daemon: Daemon) {
    daemon.signal(libc::SIGTERM);
    let ended = daemon.wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn a_java_consumer_finds_each_committed_row_once_and_in_order() {
    let (server, broker) = (Server::start_with(&[("fsync", "off")]), Broker::start());
    let session = shop(&server);
    let settings =
        SettingsFile::new(&server, &broker, "shop").with("[[outbox]]", "payload = \"envelope\"");
    init(&settings);
    let daemon = Daemon::start(&settings);
    Workload::default().run(&server.url("shop"), scaled(1_000_000));
    wait_until_published(&session, "tailwater");
    assert!(daemon.resident_bytes_peak() <= RESIDENT_BYTES_MAX);
    stop(daemon);
    let mut oracle = Oracle::new(&session, Value::Envelope, PARTITIONS);
    java::for_each_committed(&broker, &TOPICS, |record| oracle.take(&record));
    oracle.verdict().assert_exact();
}

#[test]
fn data_and_bare_payloads_reach_consumers_as_the_envelope_does() {
    for (form, value) in [("data", Value::Envelope), ("bare", Value::Bare)] {
        let (server, broker) = (Server::start_with(&[("fsync", "off")]), Broker::start());
        let session = shop(&server);
        let settings = SettingsFile::new(&server, &broker, "shop")
            .with("[[outbox]]", &format!("payload = \"{form}\""));
        let daemon = Daemon::start(&settings);
        daemon.wait_for("publishing");
        let workload = Workload { payload: Payload::Data, ..Workload::default() };
        workload.run(&server.url("shop"), scaled(200_000));
        wait_until_published(&session, "tailwater");
        stop(daemon);
        judge(&broker, &session, value);
    }
}

#[test]
fn sigterm_under_load_ends_in_time_and_repeats_nothing() {
    let (server, broker) = (Server::start_with(&[("fsync", "off")]), Broker::start());
    let session = shop(&server);
    let settings =
        SettingsFile::new(&server, &broker, "shop").with("[[outbox]]", "payload = \"envelope\"");
    init(&settings);
    std::thread::scope(|scope| {
        let url = server.url("shop");
        let writing = scope.spawn(move || Workload::default().run(&url, scaled(300_000)));
        while !writing.is_finished() {
            let daemon = Daemon::start(&settings);
            daemon.wait_for("publishing");
            std::thread::park_timeout(Duration::from_millis(fastrand::u64(100..1_500)));
            stop(daemon);
        }
    });
    let daemon = Daemon::start(&settings);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    judge(&broker, &session, Value::Envelope);
}

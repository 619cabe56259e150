//! A shop with an outbox, and what is done to it over and over.

use std::time::Duration;

use super::{
    daemon::{self, Daemon},
    kafka::Broker,
    oracle::{Oracle, Value},
    postgres::{Server, Session},
    settings::SettingsFile,
    wait_until, workload,
};

/// Topics that the workload's events go to.
pub const TOPICS: [&str; 2] = ["order.events", "invoice.events"];

/// Their partitions: the broker's default.
pub const PARTITIONS: u32 = 3;

/// How long everything that waits may take to be published.
const DRAIN_MAX: Duration = Duration::from_secs(900);

/// A database `shop` with the application's tables.
pub fn shop(server: &Server) -> Session {
    let session = server.create_database("shop");
    workload::create_tables(&session);
    session
}

/// The first pipeline of README.md, for an application that writes envelopes.
pub fn envelope_settings(server: &Server, broker: &Broker) -> SettingsFile {
    SettingsFile::new(server, broker, "shop").with("[[outbox]]", "payload = \"envelope\"")
}

/// `tailwater init`.
pub fn init(settings: &SettingsFile) {
    let ended = daemon::run(&["init"], settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// A daemon that publishes.
pub fn publishing(settings: &SettingsFile) -> Daemon {
    let daemon = Daemon::start(settings);
    daemon.wait_for("publishing");
    daemon
}

/// Stops it as a service manager does.
pub fn stop(daemon: Daemon) {
    daemon.stop();
}

/// Waits until the slot has passed all that is in the log at this moment.
pub fn wait_until_published(session: &Session, slot: &str) {
    let end = session.value("SELECT pg_current_wal_lsn()").expect("a position");
    let sql = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots \
         WHERE slot_name = '{slot}'"
    );
    wait_until("the slot to pass what was committed", DRAIN_MAX, || {
        session.value(&sql).as_deref() == Some("t")
    });
}

/// Compares what is on Kafka with what was committed.
pub fn judge(broker: &Broker, session: &Session, value: Value) {
    let mut oracle = Oracle::new(session, value, PARTITIONS);
    for topic in TOPICS {
        broker.for_each_committed(topic, |record| oracle.take(&record));
    }
    oracle.verdict().assert_exact();
}

/// The newest committed checkpoint's `commit_end_lsn`, of the one pipeline that there is.
pub fn checkpoint(broker: &Broker) -> Option<String> {
    let newest = broker
        .read_committed("__tailwater_checkpoints")
        .into_iter()
        .rfind(|record| record.key.as_deref().is_some_and(|key| key.ends_with(b"/tailwater")))?;
    newest.json()["commit_end_lsn"].as_str().map(str::to_owned)
}

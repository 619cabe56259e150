//! What `tailwater status` says, and that asking changes nothing.

use serde_json::Value as Json;

use crate::support::{
    PATIENCE,
    daemon::run,
    kafka::Broker,
    postgres::{Server, Session},
    scene::{envelope_settings, init, publishing, shop, stop, wait_until_published},
    settings::SettingsFile,
    wait_until,
    workload::Workload,
};

fn status(settings: &SettingsFile) -> Json {
    let ended = run(&["status", "--json"], settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("one line of JSON")
}

fn words(settings: &SettingsFile) -> String {
    let ended = run(&["status"], settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

fn is_state(settings: &SettingsFile, state: &str) -> bool {
    status(settings)["state"] == state
}

fn slots(session: &Session) -> String {
    session.value("SELECT count(*) FROM pg_replication_slots").expect("a count")
}

#[test]
fn status_follows_a_pipeline_through_its_life() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker).with("[kafka]", "outage_grace = \"20s\"");

    let found = status(&settings);
    assert_eq!(found["state"], "not_running");
    assert_eq!(found["lag_bytes"], Json::Null);
    assert!(words(&settings).contains("`tailwater run` makes it"));
    assert_eq!(slots(&session), "0", "asking makes nothing");
    assert!(broker.topics().is_empty(), "{:?}", broker.topics());

    init(&settings);
    let found = status(&settings);
    assert_eq!((&found["state"], &found["holder"]), (&"not_running".into(), &Json::Null));
    assert_eq!(found["source"], "order-service");
    assert!(found["retained_wal_bytes"].as_u64().is_some(), "{found}");
    assert!(words(&settings).contains("nobody holds slot \"tailwater\""));

    let daemon = publishing(&settings);
    assert!(is_state(&settings, "idle"), "{}", words(&settings));
    Workload::default().run(&server.url("shop"), 100);
    wait_until_published(&session, "tailwater");
    let found = status(&settings);
    assert_eq!(found["state"], "running", "{found}");
    assert_eq!((&found["lag_bytes"], &found["lag_seconds"]), (&0.into(), &0.0.into()));
    let holder = session.value("SELECT active_pid FROM pg_replication_slots");
    assert_eq!(found["holder"]["pid"].to_string(), holder.expect("the slot is held"));
    assert!(words(&settings).starts_with("running: order-service"), "{}", words(&settings));

    daemon.signal(libc::SIGSTOP);
    Workload::default().run(&server.url("shop"), 100);
    wait_until("a daemon that sleeps to lag", PATIENCE, || is_state(&settings, "lagging"));
    let found = status(&settings);
    assert!(found["lag_bytes"].as_u64() > Some(0), "{found}");
    daemon.signal(libc::SIGCONT);
    wait_until_published(&session, "tailwater");

    broker.kill();
    Workload::default().run(&server.url("shop"), 10);
    let found = status(&settings);
    assert_eq!(found["state"], "stuck_on_kafka", "{found}");
    assert!(found["kafka_error"].as_str().is_some_and(|text| !text.is_empty()), "{found}");
    // It lets go of the slot, and is as well as before.
    let holder = || session.value("SELECT count(active_pid) FROM pg_replication_slots");
    wait_until("the slot to be free", PATIENCE, || holder().as_deref() == Some("0"));
    let found = status(&settings);
    assert_eq!((&found["state"], &found["holder"]), (&"stuck_on_kafka".into(), &Json::Null));
    let said = words(&settings);
    assert!(said.contains("goes on by itself when Kafka answers, or none is there"), "{said}");
    broker.restart();
    wait_until_published(&session, "tailwater");
    stop(daemon);
    assert_eq!(status(&settings)["state"], "not_running", "Kafka answers");

    session.run("SELECT pg_drop_replication_slot('tailwater')");
    assert_eq!(status(&settings)["state"], "slot_lost");
    assert!(words(&settings).contains("there is a checkpoint and no slot"));
    broker.kill();
    assert_eq!(status(&settings)["state"], "stuck_on_kafka", "nobody knows of the checkpoint");
    assert!(words(&settings).contains("only the checkpoint on Kafka says"));
    assert_eq!(slots(&session), "0", "asking makes nothing");
}

#[test]
fn wal_that_is_kept_above_the_bound_is_warned_of() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings =
        envelope_settings(&server, &broker).with("[postgres]", "retained_wal_max = \"16MiB\"");
    init(&settings);
    let daemon = publishing(&settings);
    assert!(!words(&settings).contains("retained_wal_max"), "{}", words(&settings));
    // A transaction that is open keeps the log from there on.
    let open = server.session("shop");
    open.run("BEGIN; INSERT INTO audit_log (what) VALUES ('slow')");
    session.run(
        "INSERT INTO audit_log (what) SELECT repeat('x', 1000) FROM generate_series(1, 30000)",
    );
    daemon.wait_for("more WAL than postgres.retained_wal_max");
    let found = status(&settings);
    assert_eq!(found["retained_wal_bytes_max"], 16 << 20);
    assert!(found["retained_wal_bytes"].as_u64() > Some(16 << 20), "{found}");
    assert!(words(&settings).contains("more than postgres.retained_wal_max, 16.0 MiB"));
    open.run("COMMIT");
    stop(daemon);
}

#[test]
fn the_status_of_another_sources_slot_is_refused() {
    let (server, broker) = (Server::start(), Broker::start());
    let _session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let text = std::fs::read_to_string(settings.path()).expect("settings");
    let other = SettingsFile::of_text(text).replaced("source = \"", "source = \"other-");
    let ended = run(&["status"], &other);
    assert!(ended.code == Some(1) && ended.is_code("foreign_slot"), "{}", ended.stderr);
}

//! `init --adopt-slot`: what it takes over, what it asks, what it leaves alone.

use crate::{
    refusals::{Shop, insert, published},
    support::{
        daemon::{self, Ended},
        kafka::Broker,
        scene::{publishing, stop, wait_until_published},
        settings::SettingsFile,
    },
};

use std::fs;

fn adopt(shop: &Shop) -> Ended {
    daemon::run(&["init", "--adopt-slot", "--yes", "--json"], &shop.settings)
}

fn adopted(shop: &Shop) -> serde_json::Value {
    let ended = adopt(shop);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("one line of JSON")
}

#[test]
fn a_slot_made_by_hand_is_adopted_at_its_position() {
    let shop = Shop::open();
    shop.session
        .run("CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'insert')");
    shop.session.run("SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')");
    insert(&shop.session, 3);
    let ended = shop.refuse("checkpoint_missing", "tailwater init --adopt-slot");
    assert!(ended.stderr.contains("knows nothing of it"), "{}", ended.stderr);
    let said = adopted(&shop);
    assert_eq!((&said["act"], &said["changed"]), (&"adopt-slot".into(), &true.into()));
    assert_eq!(said["to_lsn"], said["confirmed_flush_lsn"]);
    stop(publishing(&shop.settings));
    shop.assert_publishes();
    assert_eq!(published(&shop), 4, "everything behind the slot's position");
}

#[test]
fn a_slot_is_adopted_only_where_somebody_agrees() {
    let shop = Shop::open();
    shop.session
        .run("CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'insert')");
    shop.session.run("SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')");
    let ended = daemon::run(&["init", "--adopt-slot"], &shop.settings);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert!(ended.stderr.contains("--yes was not given"), "{}", ended.stderr);
    assert!(ended.stderr.contains("has no checkpoint"), "it says what it would do");
    shop.refuse("checkpoint_missing", "--adopt-slot");
}

#[test]
fn adopting_twice_or_beside_a_daemon_changes_nothing() {
    let shop = Shop::initialised();
    shop.publish(2);
    for _ in 0..2 {
        let said = adopted(&shop);
        assert_eq!(said["act"], serde_json::Value::Null, "{said}");
        assert!(said["commit_end_lsn"].is_string(), "{said}");
    }
    let daemon = publishing(&shop.settings);
    adopted(&shop);
    stop(daemon);
    shop.assert_publishes();
    assert_eq!(published(&shop), 3);
}

#[test]
fn a_slot_whose_checkpoint_topic_was_lost_loses_no_event() {
    let shop = Shop::initialised();
    let topic = shop.settings.checkpoint_topic().to_owned();
    shop.publish(3);
    insert(&shop.session, 4);
    let lost = shop.with_settings(|settings| settings.replaced(&topic, &format!("{topic}-new")));
    lost.refuse("checkpoint_missing", "--adopt-slot");
    adopted(&lost);
    let daemon = publishing(&lost.settings);
    wait_until_published(&lost.session, "tailwater");
    stop(daemon);
    // The slot had heard of the three, so they are not doubled either.
    assert_eq!(published(&lost), 7);
}

/// The checkpoint lies above the slot's position: to begin at the latter would double.
#[test]
fn a_renamed_source_goes_on_without_doubling_or_losing_an_event() {
    let shop = Shop::initialised();
    let topic = shop.settings.checkpoint_topic().to_owned();
    let daemon = publishing(&shop.settings);
    insert(&shop.session, 50);
    wait_until_published(&shop.session, "tailwater");
    daemon.kill();
    // As after a crash of the server, which writes positions down at its leisure.
    let before = newest_checkpoint(&topic);
    insert(&shop.session, 5);
    let source = before["source"].as_str().expect("a source").to_owned();
    let shop = shop.with_settings(|settings| {
        settings.replaced(&format!("source = \"{source}\""), "source = \"renamed\"")
    });
    shop.refuse("foreign_slot", "tailwater init --adopt-slot");
    let said = adopted(&shop);
    assert_eq!((&said["act"], &said["former_source"]), (&"rename-source".into(), &source.into()));
    let after = newest_checkpoint(&topic);
    assert_eq!(after["source"], "renamed");
    assert_eq!(after["commit_end_lsn"], before["commit_end_lsn"]);
    assert_eq!(after["last"], before["last"]);
    let daemon = publishing(&shop.settings);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    let topic = events_topic(&shop.settings);
    assert_eq!(Broker::shared().read_committed(&topic).len(), 55);
}

/// The topic that the settings name, whatever the source is called.
fn events_topic(settings: &SettingsFile) -> String {
    let text = fs::read_to_string(settings.path()).expect("settings");
    let line = text.lines().find_map(|line| line.strip_prefix("topic = \""));
    line.expect("a topic").replace("{domain}.events\"", "order.events")
}

fn newest_checkpoint(topic: &str) -> serde_json::Value {
    let newest = Broker::shared()
        .read_committed(topic)
        .into_iter()
        .rfind(|record| record.key.as_deref().is_some_and(|key| key.ends_with(b"/tailwater")));
    newest.expect("a checkpoint").json()
}

#[test]
fn a_slot_older_than_its_publication_is_not_adopted() {
    let shop = Shop::open();
    shop.session.run("SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')");
    insert(&shop.session, 3);
    shop.session
        .run("CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'insert')");
    let ended = adopt(&shop);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
    assert!(ended.stderr.contains("pg_drop_replication_slot"), "{}", ended.stderr);
    shop.refuse("checkpoint_missing", "--adopt-slot");
}

#[test]
fn there_must_be_a_slot_to_adopt() {
    let shop = Shop::open();
    let ended = adopt(&shop);
    assert!(ended.is_code("slot_missing"), "{}", ended.stderr);
    assert!(ended.stderr.contains("Run tailwater init"), "{}", ended.stderr);
}

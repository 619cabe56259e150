//! Rows that an UPDATE moves from one partition into another: what the log has of it, and who says so.

use crate::{
    refusals::{Shop, published, settings},
    support::{
        daemon,
        kafka::Broker,
        postgres::Server,
        scene::{init, publishing, shop, stop, wait_until_published},
    },
};

/// An outbox partitioned by that.
fn partitioned(server: Server, key: &str) -> Shop {
    let session = shop(&server);
    session.run(&format!(
        "DROP TABLE outbox_events;
         CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload jsonb, \
             status text DEFAULT 'pending', created_at timestamptz DEFAULT now()) \
             PARTITION BY {key};
         CREATE TABLE outbox_all PARTITION OF outbox_events DEFAULT"
    ));
    let settings = settings(&server, Broker::shared());
    Shop { server, session, settings }
}

fn publish_and_move(version: u32) {
    let shop = partitioned(Server::start_version(version), "LIST (status)");
    shop.session.run("CREATE TABLE outbox_sent PARTITION OF outbox_events FOR VALUES IN ('sent')");
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    shop.session.run(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) \
         SELECT gen_random_uuid(), 'order-1', 'order.placed', '{}' FROM generate_series(1, 3)",
    );
    shop.session.run("UPDATE outbox_events SET aggregate_id = 'order-2'");
    wait_until_published(&shop.session, "tailwater");
    assert_eq!(published(&shop), 3, "an update within a partition is none");
    shop.session.run("UPDATE outbox_events SET status = 'sent'");
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 6, "the log has inserts");
    assert!(said(&shop).contains("partitioned by status"), "{}", said(&shop));
}

/// What `check` says of the outbox.
fn said(shop: &Shop) -> String {
    let ended = daemon::run(&["check", "--json"], &shop.settings);
    let findings: serde_json::Value = serde_json::from_str(&ended.stdout).expect("findings");
    let findings = findings.as_array().expect("findings").iter();
    let of_outbox = findings.filter(|finding| finding["name"] == "outbox");
    of_outbox.filter_map(|finding| finding["detail"].as_str()).collect()
}

#[test]
fn an_update_that_moves_a_row_publishes_it_again_which_check_tells_15() {
    publish_and_move(15);
}

#[test]
fn an_update_that_moves_a_row_publishes_it_again_which_check_tells_18() {
    publish_and_move(18);
}

#[test]
fn check_tells_of_partition_keys_that_an_update_may_change_alone() {
    for (key, is_told) in [
        ("RANGE (created_at)", false),
        ("HASH (id)", false),
        ("RANGE ((created_at AT TIME ZONE 'UTC'))", false),
        ("LIST (lower(status))", true),
        ("RANGE (created_at, status)", true),
    ] {
        // A partition by hash has no default.
        let server = Server::start();
        let shop = match key.starts_with("HASH") {
            false => partitioned(server, key),
            true => {
                let shop = partitioned(server, "RANGE (created_at)");
                shop.session.run(
                    "CREATE TABLE hashed (LIKE outbox_events) PARTITION BY HASH (id); \
                     DROP TABLE outbox_events; ALTER TABLE hashed RENAME TO outbox_events",
                );
                shop
            }
        };
        assert_eq!(said(&shop).contains("moves a row"), is_told, "{key}: {}", said(&shop));
    }
}

//! `retention`: which rows go, which stay, and that neither is an event or stops one.

use crate::{
    refusals::{Shop, insert, published},
    support::{
        PATIENCE, daemon,
        scene::{init, publishing, stop, wait_until_published},
        wait_until,
    },
};

/// Rows stay for two seconds.
fn shop() -> Shop {
    Shop::open().with_settings(|settings| settings.with("[[outbox]]", "retention = \"2s\""))
}

fn count(shop: &Shop, condition: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM outbox_events WHERE {condition}");
    shop.session.value(&sql).and_then(|count| count.parse().ok()).expect("a count")
}

/// Rows of a kind of their own, made at that time.
fn insert_at(shop: &Shop, kind: &str, created_at: &str, rows: u32) {
    shop.session.run(&format!(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
         SELECT gen_random_uuid(), '{kind}', 'order.placed', '{{}}', {created_at} \
         FROM generate_series(1, {rows})"
    ));
}

fn wait_until_gone(shop: &Shop, kind: &str) {
    wait_until(&format!("rows of {kind} to be deleted"), PATIENCE, || {
        count(shop, &format!("aggregate_id = '{kind}'")) == 0
    });
}

#[test]
fn old_rows_are_deleted_and_those_of_before_the_pipeline_stay() {
    let shop = shop();
    insert_at(&shop, "before", "now() - interval '1 year'", 5);
    insert_at(&shop, "just before", "now()", 5);
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    insert_at(&shop, "young", "now() + interval '1 day'", 3);
    insert_at(&shop, "dated back", "now() - interval '1 year'", 4);
    // More than one batch.
    insert_at(&shop, "old", "now()", 2_500);
    wait_until_gone(&shop, "old");
    wait_until_published(&shop.session, "tailwater");
    for (kind, rows) in [("before", 5), ("just before", 5), ("young", 3), ("dated back", 4)] {
        assert_eq!(count(&shop, &format!("aggregate_id = '{kind}'")), rows, "{kind}");
    }
    stop(daemon);
    // What was deleted is on Kafka, and its deletion is no event.
    assert_eq!(published(&shop), 2_507);
}

#[test]
fn rows_of_a_partitioned_table_are_deleted_and_those_of_a_child_table_stay() {
    let shop = shop();
    shop.session.run(
        "CREATE TABLE child () INHERITS (outbox_events); \
         INSERT INTO child SELECT * FROM outbox_events",
    );
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    shop.session.run(
        "INSERT INTO child (id, aggregate_id, event_type, payload, created_at) \
         VALUES (gen_random_uuid(), 'child', 'order.placed', '{}', now())",
    );
    insert_at(&shop, "old", "now()", 3);
    wait_until_gone(&shop, "old");
    assert_eq!(count(&shop, "aggregate_id = 'child'"), 1);
    stop(daemon);

    let shop = self::shop();
    shop.session.run(
        "DROP TABLE outbox_events;
         CREATE TABLE outbox_events (id bigserial, aggregate_id text, event_type text, payload jsonb, \
             created_at timestamp) PARTITION BY RANGE (created_at);
         CREATE TABLE outbox_all PARTITION OF outbox_events DEFAULT;
         ALTER TABLE outbox_events ALTER created_at SET DEFAULT now() AT TIME ZONE 'UTC'",
    );
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    shop.session.run(
        "SET timezone = 'Asia/Tokyo'; INSERT INTO outbox_events (aggregate_id, event_type, payload) \
         SELECT 'old', 'order.placed', '{}' FROM generate_series(1, 20)",
    );
    wait_until_gone(&shop, "old");
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 20);
}

#[test]
fn a_delete_that_fails_is_warned_of_and_tried_again_while_events_go_out() {
    let shop = shop();
    init(&shop.settings);
    shop.session.run(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'rows are kept for the audit'; END $$; \
         CREATE TRIGGER keep BEFORE DELETE ON outbox_events FOR EACH ROW EXECUTE FUNCTION keep()",
    );
    let daemon = publishing(&shop.settings);
    insert_at(&shop, "old", "now()", 3);
    daemon.wait_for("could not delete old rows");
    assert!(daemon.stderr().contains("rows are kept for the audit"), "{}", daemon.stderr());
    insert(&shop.session, 5);
    wait_until_published(&shop.session, "tailwater");
    assert_eq!(published(&shop), 8);
    shop.session.run("DROP TRIGGER keep ON outbox_events");
    wait_until_gone(&shop, "old");
    stop(daemon);
}

/// Only the table has what a reset skipped.
#[test]
fn rows_that_a_reset_skipped_stay() {
    let shop = shop();
    init(&shop.settings);
    insert_at(&shop, "skipped", "now()", 5);
    let reset = daemon::run(&["reset", "--to-now", "--yes"], &shop.settings);
    assert_eq!(reset.code, Some(0), "{}", reset.stderr);
    let daemon = publishing(&shop.settings);
    insert_at(&shop, "old", "now()", 5);
    wait_until_gone(&shop, "old");
    assert_eq!(count(&shop, "aggregate_id = 'skipped'"), 5);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 5);
}

#[test]
fn a_retention_needs_the_time_of_each_row() {
    let shop = shop();
    shop.session.run("ALTER TABLE outbox_events DROP COLUMN created_at");
    shop.refuse("column_missing", "under columns.created_at");
    shop.session.run("ALTER TABLE outbox_events ADD created_at text");
    shop.refuse("column_missing", "columns.created_at");
    let wrong =
        shop.with_settings(|settings| settings.replaced("retention = \"2s\"", "retention = \"2\""));
    let ended = daemon::run(&["run"], &wrong.settings);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("outbox.retention must be a time"), "{}", ended.stderr);
}

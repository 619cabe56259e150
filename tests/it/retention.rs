//! `retention`: which rows go, which stay, and that neither is an event or stops one.

use std::time::Duration;

use tailwater::postgres::{
    SlotName, TableName,
    old_rows::{Deletion, Horizon, OldRows, Publisher},
    sql::Sql,
};
use tokio::runtime::Runtime;

use crate::{
    refusals::{Shop, insert, published},
    support::{
        PATIENCE,
        daemon::{self, Daemon},
        kafka::Broker,
        postgres::Server,
        scene::{self, holder, init, publishing, stop, wait_until_published},
        settings::SettingsFile,
        wait_until,
    },
};

/// How often it is looked for rows, before one is taken to stay.
const LOOKS: usize = 5;

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

/// They are their own poller's: the slot's stream never had them.
#[test]
fn rows_that_a_table_had_before_it_joined_the_pipeline_stay() {
    let shop = shop();
    init(&shop.settings);
    stop(publishing(&shop.settings));
    let session = shop.server.session("shop");
    let insert = |kind: &str| {
        session.run(&format!(
            "INSERT INTO joined (id, aggregate_id, event_type, payload, created_at) \
             SELECT gen_random_uuid(), '{kind}', 'order.placed', '{{}}', now() \
             FROM generate_series(1, 5)"
        ));
    };
    let rows = |kind: &str| {
        let sql = format!("SELECT count(*) FROM joined WHERE aggregate_id = '{kind}'");
        session.value(&sql).expect("a count")
    };
    session.run("CREATE TABLE joined (LIKE outbox_events INCLUDING ALL)");
    insert("waiting");
    let topic = format!("joined-{:08x}.events", fastrand::u32(..));
    let section = format!(
        "[[outbox]]\ntable = \"public.joined\"\ntopic = \"{topic}\"\nretention = \"2s\"\n\n\
         [[outbox]]\n"
    );
    let shop = shop.with_settings(|settings| settings.replaced("[[outbox]]\n", &section));
    init(&shop.settings);
    for kind in ["old", "of another start"] {
        let daemon = publishing(&shop.settings);
        insert(kind);
        wait_until(&format!("rows of {kind} to be deleted"), PATIENCE, || rows(kind) == "0");
        wait_until_published(&shop.session, "tailwater");
        stop(daemon);
        assert_eq!(rows("waiting"), "5");
    }
    assert_eq!(Broker::shared().read_committed(&topic).len(), 10);
}

/// It published no inserts for the length of a transaction, which nobody can see later.
#[test]
fn rows_that_an_altered_publication_left_out_stay() {
    let shop = shop();
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    shop.session.run(
        "BEGIN; ALTER PUBLICATION tailwater SET (publish = 'update'); \
         INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
         SELECT gen_random_uuid(), 'left out', 'order.placed', '{}', now() \
         FROM generate_series(1, 5); \
         ALTER PUBLICATION tailwater SET (publish = 'insert'); COMMIT",
    );
    daemon.wait_for("the publication was altered");
    insert_at(&shop, "old", "now()", 5);
    wait_until_gone(&shop, "old");
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    // The checkpoint keeps it.
    let daemon = publishing(&shop.settings);
    insert_at(&shop, "of another start", "now()", 5);
    wait_until_gone(&shop, "of another start");
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(count(&shop, "aggregate_id = 'left out'"), 5);
    assert_eq!(published(&shop), 10);
}

/// What it leaves out is another one's.
#[test]
fn a_retention_beside_a_row_filter_is_refused() {
    let shop = shop();
    shop.session.run(
        "CREATE PUBLICATION tailwater FOR TABLE outbox_events WHERE (event_type LIKE 'order.%') \
         WITH (publish = 'insert')",
    );
    let ended = Daemon::start(&shop.settings).wait(PATIENCE);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert!(ended.stderr.contains("event_type ~~ 'order.%'"), "{}", ended.stderr);
    let said = daemon::run(&["check"], &shop.settings);
    assert!(said.stdout.contains("would delete the others code=settings"), "{}", said.stdout);
}

/// If the slot were lost now, the table alone would have them.
#[test]
fn rows_that_are_not_on_kafka_yet_stay_however_old_they_are() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = scene::shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop")
        .with("[[outbox]]", "retention = \"2s\"")
        .replaced(
            "[postgres]\n",
            "[log]\nfilter = \"info,tailwater::pipeline::retention=debug\"\n\n[postgres]\n",
        );
    init(&settings);
    let daemon = publishing(&settings);
    insert(&session, 1);
    wait_until_published(&session, "tailwater");
    broker.freeze();
    session.run(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
         SELECT gen_random_uuid(), 'waiting', 'order.placed', '{}', now() \
         FROM generate_series(1, 20)",
    );
    let waiting = "SELECT count(*) FROM outbox_events WHERE aggregate_id = 'waiting'";
    wait_until("rows that are old to be left alone", PATIENCE, || {
        daemon.stderr().matches("the slot is not past them yet").count() >= LOOKS
    });
    assert_eq!(session.value(waiting).as_deref(), Some("20"));
    broker.thaw();
    wait_until("what is published to be deleted", PATIENCE, || {
        session.value(waiting).as_deref() == Some("0")
    });
    wait_until_published(&session, "tailwater");
    stop(daemon);
    assert_eq!(broker.read_committed("order.events").len(), 21);
}

/// It slept while the checkpoint was moved, and wakes up with what it knew.
#[test]
fn a_daemon_that_was_paused_during_a_reset_deletes_nothing_of_what_was_skipped() {
    let shop = shop();
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    insert_at(&shop, "old", "now()", 5);
    wait_until_gone(&shop, "old");
    daemon.signal(libc::SIGSTOP);
    let held_by = holder(&shop.session).expect("a holder");
    shop.session.run(&format!("SELECT pg_terminate_backend({held_by})"));
    wait_until("the slot to be free", PATIENCE, || holder(&shop.session).is_none());
    insert_at(&shop, "skipped", "now()", 5);
    let reset = daemon::run(&["reset", "--to-now", "--yes"], &shop.settings);
    assert_eq!(reset.code, Some(0), "{}", reset.stderr);
    wait_until("what was skipped to be old", PATIENCE, || {
        count(&shop, "aggregate_id = 'skipped' AND created_at < now() - interval '3 s'") == 5
    });
    daemon.signal(libc::SIGCONT);
    let daemon = match daemon.stderr().contains("error: ") {
        true => publishing(&shop.settings),
        false => daemon,
    };
    wait_until("it to publish again", PATIENCE, || holder(&shop.session).is_some());
    insert_at(&shop, "of another start", "now()", 5);
    wait_until_gone(&shop, "of another start");
    assert_eq!(count(&shop, "aggregate_id = 'skipped'"), 5);
    stop(daemon);
}

/// A connection of its own, and what the daemon would ask.
struct Deleter {
    runtime: Runtime,
    sql: Sql,
    table: TableName,
    slot: SlotName,
}

impl Deleter {
    fn connect(shop: &Shop) -> Self {
        let settings = shop.connection();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let sql = runtime.block_on(Sql::connect(&settings)).expect("connected");
        let table = TableName { schema: "public".to_owned(), name: "outbox_events".to_owned() };
        let slot = SlotName::try_from("tailwater".to_owned()).expect("a name");
        Self { runtime, sql, table, slot }
    }

    fn horizon(&self) -> Horizon {
        self.runtime.block_on(Horizon::now(&self.sql)).expect("a horizon")
    }

    fn delete(&self, process_id: i32, horizon: &Horizon) -> Deletion {
        let old = OldRows {
            table: &self.table,
            is_partitioned: false,
            id: "id",
            created_at: "created_at",
            since: "2020-01-01T00:00:00Z",
            age: Duration::ZERO,
        };
        let publisher = Publisher { slot: &self.slot, process_id };
        let deleting = old.delete(&self.sql, publisher, horizon, 1_000);
        self.runtime.block_on(deleting).expect("an answer")
    }
}

#[test]
fn a_row_is_deleted_by_the_holder_of_the_slot_and_once_it_is_past_the_row() {
    let shop = Shop::initialised();
    let daemon = publishing(&shop.settings);
    let held_by = holder(&shop.session).and_then(|pid| pid.parse().ok()).expect("a process");
    let deleter = Deleter::connect(&shop);
    let open = shop.server.session("shop");
    // A number of its own, and a higher one for the row.
    open.run(
        "BEGIN; SELECT txid_current(); SAVEPOINT inner_one; \
         INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
         VALUES (gen_random_uuid(), 'open', 'order.placed', '{}', now())",
    );
    insert(&shop.session, 3);
    let before = deleter.horizon();
    open.run("COMMIT");
    wait_until_published(&shop.session, "tailwater");
    let after = deleter.horizon();
    assert_eq!(deleter.delete(held_by + 1, &after), Deletion::NotHeld);
    // All is published, but of what was open at a horizon, and later, that one shows it not.
    assert_eq!(deleter.delete(held_by, &before), Deletion::Rows(0));
    let mut deleted = Deletion::NotPublished;
    wait_until("the slot to pass the horizon", PATIENCE, || {
        deleted = deleter.delete(held_by, &after);
        deleted != Deletion::NotPublished
    });
    assert_eq!(deleted, Deletion::Rows(4));
    insert(&shop.session, 1);
    let later = deleter.horizon();
    daemon.signal(libc::SIGSTOP);
    insert(&shop.session, 1);
    let unpublished = deleter.horizon();
    assert_eq!(deleter.delete(held_by, &unpublished), Deletion::NotPublished);
    daemon.signal(libc::SIGCONT);
    wait_until_published(&shop.session, "tailwater");
    assert_eq!(deleter.delete(held_by, &later), Deletion::Rows(1));
    stop(daemon);
    assert_eq!(deleter.delete(held_by, &unpublished), Deletion::NotHeld);
}

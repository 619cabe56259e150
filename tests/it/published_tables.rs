//! Which domain tables are published: by name and by pattern, by publications that are made, altered
//! and left, and tables that come, go and change their names meanwhile.

use serde_json::json;

use crate::{
    refusals::refuse,
    support::{
        PATIENCE,
        daemon::{self, Ended},
        kafka::{Broker, Record},
        postgres::Server,
        scene::{init, publishing},
        settings::SettingsFile,
        table_shop::{TableShop, event, told},
        wait_until,
    },
};

const ORDERS: &str = "CREATE TABLE orders (id text PRIMARY KEY, note text)";

const PATTERN: &str = "[[table]]\nname = \"public.*\"\ntopic = \"{source}.{table}\"\n";

const NAMED: &str = "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\n";

const OUTBOX: &str = "CREATE TABLE outbox_events (id uuid PRIMARY KEY, aggregate_id text, \
    event_type text, payload jsonb, created_at timestamptz)";

const OUTBOX_SECTION: &str =
    "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{source}.outbox\"\n\n";

/// The publication that a daemon would make, of tables that it would not have chosen.
fn publication(tables: &str) -> String {
    format!("CREATE PUBLICATION tailwater {tables} WITH (publish_via_partition_root = true)")
}

fn types(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.header("event-type").expect("a type")).collect()
}

fn insert_into_outbox(key: &str) -> String {
    format!(
        "INSERT INTO outbox_events VALUES \
         (gen_random_uuid(), '{key}', 'order.placed', '{{}}', now());"
    )
}

#[test]
fn a_pattern_goes_on_after_a_restart() {
    let shop = TableShop::open(ORDERS, PATTERN);
    shop.publish(&["INSERT INTO orders VALUES ('a')"]);
    let records = shop.events(&["INSERT INTO orders VALUES ('b')"]);
    assert_eq!(
        told(&records),
        [
            event("orders.created", Some("a"), json!({"id": "a", "note": null})),
            event("orders.created", Some("b"), json!({"id": "b", "note": null})),
        ]
    );
}

/// The outbox's own updates and deletes are nobody's business; its inserts come in their order.
#[test]
fn an_outbox_and_a_pattern_around_it_share_a_transaction() {
    let shop = TableShop::open(&[OUTBOX, ORDERS].join(";"), &[OUTBOX_SECTION, PATTERN].concat());
    let statements = [
        "BEGIN;".to_owned(),
        insert_into_outbox("first"),
        "INSERT INTO orders VALUES ('a');".to_owned(),
        insert_into_outbox("second"),
        "UPDATE outbox_events SET aggregate_id = 'changed' WHERE aggregate_id = 'first';"
            .to_owned(),
        "UPDATE orders SET id = 'b'; DELETE FROM outbox_events; TRUNCATE outbox_events;".to_owned(),
        "COMMIT".to_owned(),
    ];
    let records = shop.events(&[&statements.concat()]);
    let found: Vec<_> = records
        .iter()
        .map(|record| {
            let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).expect("text");
            (
                record.header("event-type").expect("a type"),
                record.key.as_ref().map(text).expect("a key"),
                record.header("pg-seq").expect("a place"),
            )
        })
        .collect();
    let expected = [
        ("order.placed", "first", "0"),
        ("orders.created", "a", "1"),
        ("order.placed", "second", "2"),
        ("orders.deleted", "a", "3"),
        ("orders.created", "b", "4"),
    ];
    assert_eq!(found, expected.map(|(what, key, sequence)| (what, key.to_owned(), sequence)));
}

/// What a pattern's new table is followed by: a change of the publication that the daemon sees.
const SEEN: &str = "the publication changed";

fn publishes_what_is_made_meanwhile(server: Server, tables: &str) {
    let sql = format!("{ORDERS}; {}", publication(tables));
    let shop = TableShop::open_on(server, &sql, PATTERN);
    let daemon = publishing(&shop.settings);
    shop.session.run(
        "CREATE TABLE bills (id text PRIMARY KEY); INSERT INTO bills VALUES ('now'); \
         BEGIN; CREATE TYPE paid AS ENUM ('paid'); \
         CREATE TABLE notes (id text PRIMARY KEY, paid paid); \
         INSERT INTO notes VALUES ('at once', 'paid'); COMMIT",
    );
    daemon.wait_for(SEEN);
    shop.session.run("INSERT INTO bills VALUES ('later')");
    shop.finish(daemon);
    let records = shop.events(&["UPDATE bills SET id = 'restarted' WHERE id = 'now'"]);
    assert_eq!(
        told(&records),
        [
            event("bills.created", Some("now"), json!({"id": "now"})),
            event("notes.created", Some("at once"), json!({"id": "at once", "paid": "paid"})),
            event("bills.created", Some("later"), json!({"id": "later"})),
            event("bills.deleted", Some("now"), json!({"id": "now"})),
            event("bills.created", Some("restarted"), json!({"id": "restarted"})),
        ]
    );
}

#[test]
fn a_table_that_is_made_meanwhile_comes_by_all_tables() {
    publishes_what_is_made_meanwhile(Server::start_version(14), "FOR ALL TABLES");
}

#[test]
fn a_table_that_is_made_meanwhile_comes_by_its_schema() {
    publishes_what_is_made_meanwhile(Server::start_version(18), "FOR TABLES IN SCHEMA public");
}

/// Its own table that a pattern has, by the name that its rows come under.
const REGIONAL: &str = "(id text, region text, PRIMARY KEY (id, region))";

/// Its rows come under the root's name from then on, and nothing of it is lost.
fn goes_on_when_tables_are_attached(server: Server, tables: &str) {
    let sql = format!(
        "CREATE TABLE orders {REGIONAL} PARTITION BY LIST (region); \
         CREATE TABLE orders_2 {REGIONAL}; CREATE TABLE orders_3 {REGIONAL}; {}",
        publication(tables)
    );
    let shop = TableShop::open_on(server, &sql, PATTERN);
    let daemon = publishing(&shop.settings);
    shop.session
        .run("INSERT INTO orders_2 VALUES ('a', '2'); INSERT INTO orders_3 VALUES ('b', '3')");
    shop.session.run("ALTER TABLE orders ATTACH PARTITION orders_2 FOR VALUES IN ('2')");
    shop.session
        .run("INSERT INTO orders_2 VALUES ('c', '2'); INSERT INTO orders VALUES ('d', '2')");
    daemon.wait_for(SEEN);
    shop.session.run("INSERT INTO orders_2 VALUES ('e', '2')");
    shop.finish(daemon);
    // Also where nobody looked meanwhile.
    shop.session.run("ALTER TABLE orders ATTACH PARTITION orders_3 FOR VALUES IN ('3')");
    let records = shop.events(&["INSERT INTO orders_3 VALUES ('f', '3')"]);
    let expected = [
        ("orders_2", "a", "2"),
        ("orders_3", "b", "3"),
        ("orders", "c", "2"),
        ("orders", "d", "2"),
        ("orders", "e", "2"),
        ("orders", "f", "3"),
    ];
    let expected = expected.map(|(table, id, region)| {
        let key = format!("[\"{id}\",\"{region}\"]");
        let data = json!({"id": id, "region": region});
        event(&format!("{table}.created"), Some(&key), data)
    });
    assert_eq!(told(&records), expected);
}

#[test]
fn a_table_of_all_may_be_attached_to_another() {
    goes_on_when_tables_are_attached(Server::start(), "FOR ALL TABLES");
}

#[test]
fn a_table_of_a_schema_may_be_attached_to_another() {
    goes_on_when_tables_are_attached(Server::start_version(18), "FOR TABLES IN SCHEMA public");
}

/// Rows of a table that is not logged are sent by nothing, and FOR ALL TABLES takes no ADD TABLE.
#[test]
fn a_table_of_all_that_is_not_logged_any_more_is_refused() {
    let shop = TableShop::open(&format!("{ORDERS}; {}", publication("FOR ALL TABLES")), PATTERN);
    let daemon = publishing(&shop.settings);
    shop.session.run("INSERT INTO orders VALUES ('a')");
    shop.session.run("ALTER TABLE orders SET UNLOGGED");
    let ended = daemon.wait(PATIENCE);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
    let mend = "ALTER TABLE \"public\".\"orders\" SET LOGGED";
    let ended = refuse(&shop.settings, "publication_gap", mend);
    assert!(ended.stderr.contains("public.orders is an unlogged table"), "{}", ended.stderr);
    shop.session.run(mend);
    let records = shop.events(&["INSERT INTO orders VALUES ('b')"]);
    assert_eq!(types(&records), ["orders.created", "orders.created"]);
}

#[test]
fn a_named_partition_is_refused_where_its_rows_come_under_its_root() {
    let sql = format!(
        "CREATE TABLE orders {REGIONAL} PARTITION BY LIST (region); \
         CREATE TABLE orders_2 PARTITION OF orders DEFAULT; {}",
        publication("FOR TABLE orders")
    );
    let shop = TableShop::open(&sql, &NAMED.replace("public.orders", "public.orders_2"));
    refuse(&shop.settings, "publication_gap", "Write \"public.orders\" in the place of");
}

/// `init` takes what the pattern has by now into a publication of single tables; `run` does not.
#[test]
fn init_adds_what_the_pattern_has_by_now() {
    let shop = TableShop::open(ORDERS, PATTERN);
    init(&shop.settings);
    shop.session.run(
        "CREATE TABLE bills (id text PRIMARY KEY); CREATE TABLE keyless (id text); \
         INSERT INTO bills VALUES ('before')",
    );
    shop.publish(&["INSERT INTO bills VALUES ('not published')"]);
    let ended = daemon::run(&["init"], &shop.settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("public.keyless"), "{}", ended.stderr);
    let records = shop.events(&[
        "INSERT INTO bills VALUES ('published')",
        "INSERT INTO keyless VALUES ('a'); UPDATE keyless SET id = 'b'",
    ]);
    assert_eq!(
        told(&records),
        [event("bills.created", Some("published"), json!({"id": "published"}))]
    );
}

#[test]
fn a_patterns_table_may_be_renamed_within_and_out_of_it() {
    let pattern = PATTERN.replace("public.*", "public.o*");
    let shop = TableShop::open(ORDERS, &pattern);
    init(&shop.settings);
    shop.session.run("INSERT INTO orders VALUES ('a')");
    let daemon = publishing(&shop.settings);
    shop.session.run("ALTER TABLE orders RENAME TO other_orders");
    shop.session.run("INSERT INTO other_orders VALUES ('b')");
    daemon.wait_for(SEEN);
    shop.finish(daemon);
    let daemon = publishing(&shop.settings);
    shop.session.run("INSERT INTO other_orders VALUES ('c')");
    shop.session.run("ALTER TABLE other_orders RENAME TO archive");
    shop.session.run("INSERT INTO archive VALUES ('d')");
    daemon.wait_for(SEEN);
    shop.finish(daemon);
    let records = shop.events(&["INSERT INTO archive VALUES ('e')"]);
    let expected = [("orders", "a"), ("other_orders", "b"), ("other_orders", "c")];
    let expected = expected.map(|(table, id)| {
        event(&format!("{table}.created"), Some(id), json!({"id": id, "note": null}))
    });
    assert_eq!(told(&records), expected);
}

#[test]
fn a_patterns_table_may_be_dropped_and_others_go_on() {
    let sql = format!("{ORDERS}; CREATE TABLE bills (id text PRIMARY KEY)");
    let shop = TableShop::open(&sql, PATTERN);
    let daemon = publishing(&shop.settings);
    shop.session.run("INSERT INTO orders VALUES ('a')");
    shop.session.run("DROP TABLE orders");
    shop.session.run("INSERT INTO bills VALUES ('b')");
    daemon.wait_for(SEEN);
    shop.session.run("INSERT INTO bills VALUES ('c')");
    shop.finish(daemon);
    let records = shop.events(&["INSERT INTO bills VALUES ('d')"]);
    assert_eq!(
        types(&records),
        ["orders.created", "bills.created", "bills.created", "bills.created"]
    );
}

/// What is inserted meanwhile has a gap that no position shows.
#[test]
fn a_patterns_table_that_leaves_the_publication_is_refused() {
    let sql = format!("{ORDERS}; CREATE TABLE bills (id text PRIMARY KEY)");
    let shop = TableShop::open(&sql, PATTERN);
    let daemon = publishing(&shop.settings);
    shop.session.run("INSERT INTO orders VALUES ('a')");
    shop.session.run("ALTER PUBLICATION tailwater DROP TABLE orders");
    let ended = daemon.wait(PATIENCE);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
    let mend = "ALTER PUBLICATION \"tailwater\" ADD TABLE \"public\".\"orders\"";
    let ended = refuse(&shop.settings, "publication_gap", mend);
    assert!(ended.stderr.contains("public.orders is not in it"), "{}", ended.stderr);
    // What hides the gap does not do, by hand or by init.
    let ended = daemon::run(&["init"], &shop.settings);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
    shop.session.run(mend);
    refuse(&shop.settings, "publication_gap", "reset --to-slot");
    let reset = daemon::run(&["reset", "--to-slot", "--yes"], &shop.settings);
    assert_eq!(reset.code, Some(0), "{}", reset.stderr);
    let records = shop.events(&["INSERT INTO orders VALUES ('b')"]);
    assert_eq!(types(&records), ["orders.created", "orders.created"]);
}

/// The publication of outboxes lets the updates of other tables out.
fn with_a_table(settings: SettingsFile, shop_source: &str) -> SettingsFile {
    let section = format!("{}snapshot = \"never\"\n", NAMED.replace("{source}", shop_source));
    settings.replaced("[[outbox]]", &format!("{section}\n[[outbox]]"))
}

#[test]
fn a_table_beside_an_outbox_needs_its_updates_published() {
    let shop = TableShop::open(&[OUTBOX, ORDERS].join(";"), OUTBOX_SECTION);
    shop.publish(&[&insert_into_outbox("first")]);
    let source = shop.source.clone();
    let shop = shop.with_settings(|settings| with_a_table(settings, &source));
    let mend = "ALTER PUBLICATION \"tailwater\" SET (publish = 'insert, update, delete, truncate')";
    refuse(&shop.settings, "publication_gap", mend);
    let printed = daemon::run(&["init", "--print-sql"], &shop.settings);
    assert!(printed.stdout.contains(mend), "{}", printed.stdout);
    init(&shop.settings);
    let records = shop.events(&[
        "INSERT INTO orders VALUES ('a'); UPDATE orders SET note = 'b'",
        "UPDATE outbox_events SET aggregate_id = 'b'; DELETE FROM outbox_events",
        &insert_into_outbox("second"),
        "DELETE FROM orders",
    ]);
    assert_eq!(
        types(&records),
        ["order.placed", "orders.created", "orders.updated", "order.placed", "orders.deleted"]
    );
}

/// An application that deletes from its outbox could not do so any more.
#[test]
fn an_outbox_without_a_key_is_not_deprived_of_its_deletes() {
    let outbox = OUTBOX.replace(" PRIMARY KEY", "");
    let shop = TableShop::open(&[&outbox, ORDERS].join(";"), OUTBOX_SECTION);
    shop.publish(&[&insert_into_outbox("first"), "DELETE FROM outbox_events"]);
    let source = shop.source.clone();
    let shop = shop.with_settings(|settings| with_a_table(settings, &source));
    for command in [&["init"][..], &["init", "--print-sql"]] {
        let ended = daemon::run(command, &shop.settings);
        assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
        assert!(ended.stderr.contains("public.outbox_events"), "{}", ended.stderr);
    }
    shop.session.run(&format!("{} DELETE FROM outbox_events", insert_into_outbox("second")));
    shop.session.run("ALTER TABLE outbox_events REPLICA IDENTITY FULL");
    init(&shop.settings);
    let records = shop.events(&["DELETE FROM outbox_events; INSERT INTO orders VALUES ('a')"]);
    assert_eq!(types(&records), ["order.placed", "order.placed", "orders.created"]);
}

#[test]
fn a_publication_without_deletes_is_refused() {
    let sql = format!(
        "{ORDERS}; CREATE PUBLICATION tailwater FOR TABLE orders \
         WITH (publish = 'insert, update, truncate', publish_via_partition_root = true)"
    );
    let shop = TableShop::open(&sql, NAMED);
    // A first start adds what is missing.
    init(&shop.settings);
    let published = "SELECT pubdelete FROM pg_publication";
    assert_eq!(shop.session.value(published).as_deref(), Some("t"));
    shop.session.run("ALTER PUBLICATION tailwater SET (publish = 'insert, update, truncate')");
    let mend = "ALTER PUBLICATION \"tailwater\" SET (publish = 'insert, update, delete, truncate')";
    let ended = refuse(&shop.settings, "publication_gap", mend);
    assert!(ended.stderr.contains("it publishes no deletes"), "{}", ended.stderr);
    assert!(ended.stderr.contains("What deletes did to public.orders"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("inserted"), "{}", ended.stderr);
    shop.session.run(mend);
    let records = shop.events(&["INSERT INTO orders VALUES ('a'); DELETE FROM orders"]);
    assert_eq!(types(&records), ["orders.created", "orders.deleted"]);
}

#[test]
fn operations_that_go_meanwhile_stop_the_daemon() {
    let shop = TableShop::open(ORDERS, NAMED);
    let daemon = publishing(&shop.settings);
    shop.session.run("ALTER PUBLICATION tailwater SET (publish = 'insert')");
    let ended = daemon.wait(PATIENCE);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
    assert!(ended.stderr.contains("it publishes no updates"), "{}", ended.stderr);
}

/// The server makes inserts and deletes of updates by which rows come and go: consumers keep what the
/// filter shows.
#[test]
fn rows_come_and_go_by_a_row_filter() {
    let sql = "CREATE TABLE orders (id text PRIMARY KEY, status text); \
               ALTER TABLE orders REPLICA IDENTITY FULL; \
               CREATE PUBLICATION tailwater FOR TABLE orders WHERE (status = 'open') \
               WITH (publish_via_partition_root = true)";
    for version in [15, 18] {
        let shop = TableShop::open_on(Server::start_version(version), sql, NAMED);
        let records = shop.events(&[
            "INSERT INTO orders VALUES ('a', 'open'), ('b', 'draft')",
            "UPDATE orders SET status = 'open' WHERE id = 'b'",
            "UPDATE orders SET status = 'closed' WHERE id = 'a'",
            "UPDATE orders SET status = 'archived' WHERE id = 'a'",
            "DELETE FROM orders",
        ]);
        let open = |id: &str| json!({"id": id, "status": "open"});
        assert_eq!(
            told(&records),
            [
                event("orders.created", Some("a"), open("a")),
                event("orders.created", Some("b"), open("b")),
                event("orders.deleted", Some("a"), open("a")),
                event("orders.deleted", Some("b"), open("b")),
            ]
        );
    }
}

#[test]
fn columns_that_a_publication_leaves_out_are_in_no_event() {
    let sql = "CREATE TABLE orders (id text PRIMARY KEY, note text, secret text); \
               CREATE PUBLICATION tailwater FOR TABLE orders (id, note) \
               WITH (publish_via_partition_root = true)";
    let section = format!("{NAMED}data = \"change\"\n");
    let shop = TableShop::open_on(Server::start_version(18), sql, &section);
    let records = shop
        .events(&["INSERT INTO orders VALUES ('a', 'b', 'c')", "UPDATE orders SET secret = 'd'"]);
    let row = json!({"id": "a", "note": "b"});
    assert_eq!(
        told(&records),
        [
            event("orders.created", Some("a"), json!({"before": null, "after": row})),
            event("orders.updated", Some("a"), json!({"before": null, "after": row})),
        ]
    );
    // A setting that needs a column which no change carries is refused.
    let shop = shop.with_settings(|settings| settings.with("[[table]]", "key = [\"secret\"]"));
    let ended = refuse(&shop.settings, "column_missing", "column list");
    assert!(ended.stderr.contains("\"secret\""), "{}", ended.stderr);
}

/// Stored ones are published from 18 on, where the publication says so; virtual ones never.
#[test]
fn generated_columns_come_where_the_publication_has_them() {
    let table = "CREATE TABLE orders (id text PRIMARY KEY, price text, \
                 upper text GENERATED ALWAYS AS (upper(price)) STORED";
    let stored = format!("{table}, again text GENERATED ALWAYS AS (lower(price)) VIRTUAL)");
    let publication = "CREATE PUBLICATION tailwater FOR TABLE orders \
                       WITH (publish_via_partition_root = true, publish_generated_columns = stored)";
    let row = json!({"id": "a", "price": "x"});
    let with_upper = json!({"id": "a", "price": "x", "upper": "X"});
    for (version, sql, row) in [
        (17, format!("{table})"), &row),
        (18, format!("{table})"), &row),
        (18, format!("{stored}; {publication}"), &with_upper),
    ] {
        let shop = TableShop::open_on(Server::start_version(version), &sql, NAMED);
        let records = shop.events(&["INSERT INTO orders VALUES ('a', 'x')"]);
        assert_eq!(told(&records), [event("orders.created", Some("a"), row.clone())], "{sql}");
    }
}

/// As for `run` a pattern is about the tables that the publication holds.
#[test]
fn tail_goes_on_beside_tables_of_a_pattern_that_are_not_published() {
    let shop = TableShop::open(ORDERS, PATTERN);
    let ended = daemon::run(&["tail"], &shop.settings);
    assert!(ended.is_code("publication_missing"), "{}", ended.stderr);
    assert!(ended.stderr.contains("does not exist, so the server sends no events"));
    init(&shop.settings);
    shop.session.run(
        "CREATE TABLE bills (id text PRIMARY KEY); CREATE TABLE keyless (id text); \
         CREATE TABLE notes (id text PRIMARY KEY)",
    );
    let tail = crate::tail::Tail::showing(&["--json"], &shop.settings);
    shop.session.run("INSERT INTO bills VALUES ('a'); INSERT INTO orders VALUES ('b')");
    assert!(tail.lines(1)[0].contains("\"orders.created\""));
    tail.end(libc::SIGINT);

    let findings = crate::check::assert_healthy(&shop.settings);
    let notes = serde_json::to_string(&findings).expect("JSON");
    let add =
        "ALTER PUBLICATION \"tailwater\" ADD TABLE \"public\".\"bills\", \"public\".\"notes\"";
    for note in [
        "public.bills, public.notes match a [[table]]",
        &add.replace('"', "\\\""),
        "public.keyless matches a [[table]]",
    ] {
        assert!(notes.contains(note), "{note}: {notes}");
    }
    shop.session.run(add);
    let notes = serde_json::to_string(&crate::check::assert_healthy(&shop.settings)).expect("JSON");
    assert!(!notes.contains("match a [[table]]"), "{notes}");
}

#[test]
fn tail_says_what_is_not_published() {
    let sql = format!(
        "{ORDERS}; CREATE PUBLICATION tailwater FOR TABLE orders \
         WITH (publish = 'insert', publish_via_partition_root = true)"
    );
    let shop = TableShop::open(&sql, NAMED);
    let refused = |what: &str, mend: &str| {
        let ended = daemon::run(&["tail"], &shop.settings);
        assert!(ended.is_code("publication_missing"), "{}", ended.stderr);
        assert!(ended.stderr.contains(what) && ended.stderr.contains(mend), "{}", ended.stderr);
        shop.session.run(mend);
    };
    refused(
        "publishes no updates, deletes and truncates, so the server sends none of them",
        "ALTER PUBLICATION \"tailwater\" SET (publish = 'insert, update, delete, truncate')",
    );
    shop.session.run("ALTER PUBLICATION tailwater DROP TABLE orders");
    refused(
        "lacks table public.orders, so the server sends none of its events",
        "ALTER PUBLICATION \"tailwater\" ADD TABLE \"public\".\"orders\"",
    );
    let tail = crate::tail::Tail::showing(&["--json"], &shop.settings);
    shop.session.run("INSERT INTO orders VALUES ('a')");
    tail.lines(1);
    tail.end(libc::SIGINT);
}

/// Each question is a transaction of its own to the server.
#[test]
fn a_start_asks_no_more_questions_for_more_tables() {
    let shop = TableShop::open(&format!("{ORDERS}; {}", publication("FOR ALL TABLES")), PATTERN);
    let transactions = || {
        wait_until("the commands to be gone", PATIENCE, || {
            let others = "SELECT count(*) FROM pg_stat_activity \
                WHERE datname = 'shop' AND pid <> pg_backend_pid()";
            shop.session.value(others).as_deref() == Some("0")
        });
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'shop'";
        let count = shop.session.value(sql).expect("a count");
        count.parse::<u64>().expect("a number")
    };
    let asked = || {
        let before = transactions();
        init(&shop.settings);
        transactions() - before
    };
    init(&shop.settings);
    let of_one = asked();
    let tables: Vec<String> =
        (0..300).map(|n| format!("CREATE TABLE t{n} (id text PRIMARY KEY)")).collect();
    shop.session.run(&tables.join(";"));
    let of_many = asked();
    assert!(of_one > 10 && of_many < of_one + 100, "{of_one} {of_many}");
}

/// A checkpoint names each table. Tried again it would be as large.
#[test]
fn a_checkpoint_that_its_topic_does_not_take_stops_the_daemon() {
    let table = |_| format!("CREATE TABLE t_{:016x} (id text PRIMARY KEY)", fastrand::u64(..));
    let tables: Vec<String> = (0..60).map(table).collect();
    let shop = TableShop::open(&format!("{ORDERS}; {}", tables.join(";")), PATTERN);
    let (broker, topic) = (Broker::shared(), format!("{}.checkpoints", shop.source));
    let limit = "max.message.bytes";
    let limited = |bytes| [("cleanup.policy", "compact"), (limit, bytes)];
    broker.create_topic(&topic, 1, &limited("1000"));
    let ended = daemon::run(&["init"], &shop.settings);
    let is_refused = |ended: &Ended| {
        assert!(ended.is_code("checkpoint_topic_policy"), "{}", ended.stderr);
        let hint = format!("--entity-name {topic} --add-config {limit}=");
        assert!(ended.stderr.contains(&hint), "{}", ended.stderr);
    };
    is_refused(&ended);
    broker.configure_topic(&topic, &limited("100000"));
    let daemon = publishing(&shop.settings);
    broker.configure_topic(&topic, &limited("1000"));
    shop.session.run("INSERT INTO orders VALUES ('a')");
    is_refused(&daemon.wait(PATIENCE));
    broker.configure_topic(&topic, &limited("100000"));
    let records = shop.events(&["INSERT INTO orders VALUES ('b')"]);
    assert_eq!(types(&records), ["orders.created", "orders.created"]);
}

/// A look at events has what the daemon would publish, and moves nothing.
#[test]
fn tail_shows_what_is_done_to_tables() {
    let shop = TableShop::open(ORDERS, PATTERN);
    init(&shop.settings);
    shop.session.run("CREATE TABLE bills (id text PRIMARY KEY)");
    let tail = crate::tail::Tail::showing(&["--json"], &shop.settings);
    shop.session
        .run("INSERT INTO orders VALUES ('a'); UPDATE orders SET id = 'b'; TRUNCATE orders");
    let lines = tail.lines(4);
    let types: Vec<String> = lines
        .iter()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect("an envelope");
            event["type"].as_str().expect("a type").to_owned()
        })
        .collect();
    assert_eq!(types, ["orders.created", "orders.deleted", "orders.created", "orders.truncated"]);
    tail.end(libc::SIGINT);
}

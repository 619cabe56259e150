//! Tables below the configured ones, which hold rows of them: partitions, and tables that inherit; and
//! whether updates and deletes name their rows.

use serde_json::json;

use crate::{
    check,
    refusals::refuse,
    support::{
        PATIENCE, daemon,
        postgres::Server,
        prescription::run_sql,
        scene::{init, publishing},
        table_shop::{TableShop, event, told},
    },
};

const NAMED: &str = "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\n";

const PATTERN: &str = "[[table]]\nname = \"public.*\"\ntopic = \"{source}.{table}\"\n";

/// A table without a key, in two partitions.
const PARTED: &str = "CREATE TABLE orders (id text, region text) PARTITION BY LIST (region); \
    CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN ('1'); \
    CREATE TABLE orders_2 PARTITION OF orders FOR VALUES IN ('2')";

/// The same with a key.
fn parted_by_key() -> String {
    PARTED.replace("region text)", "region text NOT NULL, PRIMARY KEY (id, region))")
}

const FULL: &str = "ALTER TABLE orders REPLICA IDENTITY FULL";

const LEAVES_FULL: &str = "ALTER TABLE \"public\".\"orders_1\" REPLICA IDENTITY FULL; \
    ALTER TABLE \"public\".\"orders_2\" REPLICA IDENTITY FULL";

/// Each kind of table, and whether its rows have names.
const KINDS: [(&str, bool); 13] = [
    ("CREATE TABLE orders (id text PRIMARY KEY)", true),
    ("CREATE TABLE orders (id text)", false),
    ("CREATE TABLE orders (id text); ALTER TABLE orders REPLICA IDENTITY FULL", true),
    (
        "CREATE TABLE orders (id text PRIMARY KEY); ALTER TABLE orders REPLICA IDENTITY NOTHING",
        false,
    ),
    ("CREATE TABLE orders (id text PRIMARY KEY DEFERRABLE)", false),
    ("CREATE TABLE orders (id text PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)", false),
    (
        "CREATE TABLE orders (id text NOT NULL); CREATE UNIQUE INDEX by_id ON orders (id); \
         ALTER TABLE orders REPLICA IDENTITY USING INDEX by_id",
        true,
    ),
    (
        "CREATE TABLE orders (id text NOT NULL); CREATE UNIQUE INDEX by_id ON orders (id); \
         ALTER TABLE orders REPLICA IDENTITY USING INDEX by_id; DROP INDEX by_id",
        false,
    ),
    (
        "CREATE TABLE orders (id text PRIMARY KEY); \
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_pkey'::regclass",
        false,
    ),
    (
        "CREATE TABLE orders (id text) PARTITION BY LIST (id); \
         CREATE TABLE orders_1 PARTITION OF orders DEFAULT; \
         ALTER TABLE orders REPLICA IDENTITY FULL",
        false,
    ),
    (
        "CREATE TABLE orders (id text) PARTITION BY LIST (id); \
         CREATE TABLE orders_1 PARTITION OF orders DEFAULT; \
         ALTER TABLE orders REPLICA IDENTITY FULL; ALTER TABLE orders_1 REPLICA IDENTITY FULL",
        true,
    ),
    (
        "CREATE TABLE orders (id text PRIMARY KEY) PARTITION BY LIST (id); \
         CREATE TABLE orders_1 PARTITION OF orders DEFAULT",
        true,
    ),
    (
        "CREATE TABLE orders (id text PRIMARY KEY); \
         CREATE TABLE orders_1 () INHERITS (orders); INSERT INTO orders_1 VALUES ('a')",
        false,
    ),
];

/// Before anything is made `init` refuses those tables whose updates the server refuses with the
/// publication that would be; what it prints mends them.
fn refuses_what_the_server_refuses(version: u32) {
    let sections = format!("{NAMED}\n{}", PATTERN.replace("public.*", "public.orders_*"));
    let shop = TableShop::open_on(Server::start_version(version), "SELECT", &sections);
    for (sql, is_named) in KINDS {
        shop.session.run(sql);
        shop.session.run("INSERT INTO orders VALUES ('a')");
        let printed = daemon::run(&["init", "--print-sql"], &shop.settings);
        assert_eq!(printed.code == Some(0), is_named, "{sql}: {}", printed.stderr);
        assert_eq!(printed.is_code("replica_identity"), !is_named, "{sql}: {}", printed.stderr);
        shop.session.run("CREATE PUBLICATION made FOR TABLE orders");
        let updated = shop.session.try_run("UPDATE orders SET id = 'b'");
        assert_eq!(updated.is_ok(), is_named, "{version} {sql}");
        if !is_named {
            let (_, hint) = printed.stderr.split_once(", or run ").expect("a hint");
            shop.session.run(hint.split_once(". ").expect("SQL").0);
            shop.session.run("UPDATE orders SET id = 'c'");
        }
        shop.session.run("DROP PUBLICATION made; DROP TABLE orders CASCADE");
    }
}

#[test]
fn tables_whose_updates_14_refuses_are_refused() {
    refuses_what_the_server_refuses(14);
}

#[test]
fn tables_whose_updates_15_refuses_are_refused() {
    refuses_what_the_server_refuses(15);
}

#[test]
fn tables_whose_updates_18_refuses_are_refused() {
    refuses_what_the_server_refuses(18);
}

/// The publication has updates already, for a table that is none of ours: what joins it must bear them.
#[test]
fn an_outbox_without_a_key_does_not_join_a_publication_of_updates() {
    let sql = "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, \
                   payload jsonb, created_at timestamptz); \
               CREATE TABLE orders (id text PRIMARY KEY); CREATE PUBLICATION tailwater FOR TABLE orders";
    let section = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{source}.outbox\"\n";
    let shop = TableShop::open(sql, section);
    let mend = check::diagnose(&shop.settings, "replica_identity", "replica_identity");
    for command in [&["init"][..], &["init", "--print-sql"]] {
        let ended = daemon::run(command, &shop.settings);
        assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
    }
    shop.session.run(
        "INSERT INTO outbox_events VALUES (gen_random_uuid(), 'a', 'order.placed', '{}', now()); \
         UPDATE outbox_events SET aggregate_id = 'b'",
    );
    run_sql(&shop.session, &mend);
    init(&shop.settings);
    shop.session.run("UPDATE outbox_events SET aggregate_id = 'c'");
    check::assert_healthy(&shop.settings);
}

/// Also of a pattern, which names what a first start is about to publish.
#[test]
fn nothing_is_made_for_partitions_of_another_replica_identity() {
    let shop = TableShop::open(&format!("{}; {FULL}", parted_by_key()), PATTERN);
    let fix = check::diagnose(&shop.settings, "replica_identity", "replica_identity");
    for command in [&["init"][..], &["init", "--print-sql"]] {
        let ended = daemon::run(command, &shop.settings);
        assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
        assert!(ended.stderr.contains(LEAVES_FULL), "{}", ended.stderr);
    }
    let made = "SELECT count(*) FROM pg_publication";
    assert_eq!(shop.session.value(made).as_deref(), Some("0"));
    run_sql(&shop.session, &fix);
    init(&shop.settings);
}

/// Of such a table the server sends old rows as whole ones, with null for what it does not know.
#[test]
fn partitions_of_another_replica_identity_are_refused_at_the_start() {
    let sql = format!("{}; {FULL}", parted_by_key());
    let shop = TableShop::open(&sql, &format!("{NAMED}data = \"change\"\n"));
    refuse(&shop.settings, "replica_identity", LEAVES_FULL);
    let made = "SELECT count(*) FROM pg_publication";
    assert_eq!(shop.session.value(made).as_deref(), Some("0"));
    let mend = check::diagnose(&shop.settings, "replica_identity", "replica_identity");
    assert_eq!(mend, format!("{LEAVES_FULL};"));
    run_sql(&shop.session, &mend);
    let records = shop.events(&[
        "ALTER TABLE orders ADD COLUMN note text; INSERT INTO orders VALUES ('a', '1', 'b')",
        "UPDATE orders SET note = 'c'",
    ]);
    let row = |note: &str| json!({"id": "a", "region": "1", "note": note});
    assert_eq!(records[1].json()["data"]["before"], row("b"));
    check::assert_healthy(&shop.settings);
    // The table's own way back leads its partitions too.
    shop.session.run("ALTER TABLE orders REPLICA IDENTITY DEFAULT");
    let mend = LEAVES_FULL.replace("FULL", "DEFAULT");
    refuse(&shop.settings, "replica_identity", &mend);
    shop.session.run(&mend);
    shop.publish(&["UPDATE orders SET note = 'd'"]);
}

/// The identity of a partition is made with it, and is the default.
#[test]
fn a_partition_of_another_replica_identity_stops_the_daemon() {
    for section in [NAMED, PATTERN] {
        let shop = TableShop::open(&format!("{PARTED}; {FULL}; {LEAVES_FULL}"), section);
        let daemon = publishing(&shop.settings);
        shop.session.run("CREATE TABLE orders_3 PARTITION OF orders FOR VALUES IN ('3')");
        shop.session.run("INSERT INTO orders VALUES ('a', '3')");
        let ended = daemon.wait(PATIENCE);
        assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
        let mend = "ALTER TABLE \"public\".\"orders_3\" REPLICA IDENTITY FULL";
        assert!(ended.stderr.contains(mend), "{}", ended.stderr);
        shop.session.run(mend);
        let records = shop.events(&["DELETE FROM orders"]);
        let row = json!({"id": "a", "region": "3"});
        let expected =
            [event("orders.created", None, row.clone()), event("orders.deleted", None, row)];
        assert_eq!(told(&records), expected);
    }
}

#[test]
fn a_partition_is_given_the_index_of_its_table() {
    let sql = "CREATE TABLE orders (id text NOT NULL, region text NOT NULL) \
                   PARTITION BY LIST (region); \
               CREATE TABLE \"Orders 1\" PARTITION OF orders DEFAULT; \
               CREATE UNIQUE INDEX by_id ON orders (id, region); \
               ALTER TABLE orders REPLICA IDENTITY USING INDEX by_id; \
               ALTER TABLE \"Orders 1\" REPLICA IDENTITY FULL";
    for version in [14, 18] {
        let shop = TableShop::open_on(Server::start_version(version), sql, NAMED);
        let mend = "ALTER TABLE \"public\".\"Orders 1\" REPLICA IDENTITY USING INDEX \
                    \"Orders 1_id_region_idx\"";
        refuse(&shop.settings, "replica_identity", mend);
        shop.session.run(mend);
        let records = shop.events(&["INSERT INTO orders VALUES ('a', 'b'); DELETE FROM orders"]);
        let key = "[\"a\",\"b\"]";
        let row = json!({"id": "a", "region": "b"});
        let expected = [
            event("orders.created", Some(key), row.clone()),
            event("orders.deleted", Some(key), row),
        ];
        assert_eq!(told(&records), expected);
    }
}

/// A table that names no rows itself can be given no identity of it.
#[test]
fn a_table_without_a_key_is_given_one_with_its_partitions() {
    let sql = format!(
        "{PARTED}; ALTER TABLE orders_1 ADD PRIMARY KEY (id); ALTER TABLE orders_2 ADD PRIMARY KEY (id)"
    );
    let shop = TableShop::open(&sql, NAMED);
    let mend = format!("ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL; {LEAVES_FULL}");
    refuse(&shop.settings, "replica_identity", &mend);
    shop.session.run(&mend);
    init(&shop.settings);
}

const CHILD: &str = "CREATE TABLE orders (id text PRIMARY KEY); \
    CREATE TABLE old_orders (PRIMARY KEY (id)) INHERITS (orders)";

/// What inherits joins the publication with its parent, and comes under its own name.
#[test]
fn a_table_that_inherits_is_refused_where_no_section_has_it() {
    let shop = TableShop::open(CHILD, NAMED);
    refuse(&shop.settings, "publication_gap", "Name public.old_orders under a [[table]]");
    let made = "SELECT count(*) FROM pg_publication";
    assert_eq!(shop.session.value(made).as_deref(), Some("0"));
    check::diagnose(&shop.settings, "table", "publication_gap");

    // Also where the publication is there, and where all of it is published.
    shop.session.run("CREATE PUBLICATION tailwater FOR TABLE orders");
    let mend = "ALTER PUBLICATION \"tailwater\" DROP TABLE \"public\".\"old_orders\"";
    refuse(&shop.settings, "publication_gap", mend);
    shop.session.run("DROP PUBLICATION tailwater; CREATE PUBLICATION tailwater FOR ALL TABLES");
    refuse(&shop.settings, "publication_gap", "a rule that none of them matches");
    shop.session.run("DROP PUBLICATION tailwater");

    let other = NAMED.replace("orders", "old_orders").replace("{source}", &shop.source);
    let other = format!("{other}snapshot = \"never\"\n");
    let shop = shop
        .with_settings(|settings| settings.replaced("[[table]]", &format!("{other}\n[[table]]")));
    let records = shop.events(&[
        "INSERT INTO orders VALUES ('a'); INSERT INTO old_orders VALUES ('b')",
        "UPDATE orders SET id = id || 'c'",
    ]);
    let types: Vec<_> = told(&records).into_iter().map(|(what, ..)| what).collect();
    assert_eq!(types[..2], ["orders.created", "old_orders.created"]);
    assert_eq!(types.len(), 6);
}

/// Whoever leaves it out is told so.
#[test]
fn a_table_that_inherits_may_be_left_out_of_the_publication() {
    let sql = format!("{CHILD}; CREATE PUBLICATION tailwater FOR TABLE ONLY orders");
    let shop = TableShop::open(&sql, NAMED);
    let daemon = publishing(&shop.settings);
    assert!(daemon.stderr().contains("its rows are no events"), "{}", daemon.stderr());
    shop.session.run("INSERT INTO orders VALUES ('a'); INSERT INTO old_orders VALUES ('b')");
    shop.finish(daemon);
    assert_eq!(shop.records().len(), 1);
    let note = check::note_of(&check::assert_healthy(&shop.settings), "table");
    assert!(note.contains("public.old_orders inherits from public.orders"), "{note}");
    // Added while the daemon runs.
    let daemon = publishing(&shop.settings);
    shop.session.run("ALTER PUBLICATION tailwater ADD TABLE old_orders");
    let ended = daemon.wait(PATIENCE);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
}

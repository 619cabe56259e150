//! Domain tables: what is done to their rows comes as events.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{
    daemon,
    scene::init,
    table_shop::{TableShop, event, told},
};

const ORDERS: &str =
    "CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL, total numeric(10, 2))";

#[test]
fn what_is_done_to_a_row_comes_as_events() {
    let shop = TableShop::open(
        ORDERS,
        "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\ntombstone = true\n",
    );
    let records = shop.events(&[
        "INSERT INTO orders VALUES (1, 'placed', 12.50), (2, 'placed', NULL)",
        "BEGIN; UPDATE orders SET status = 'paid' WHERE id = 1; UPDATE orders SET id = 3 WHERE id = 2; \
         COMMIT",
        "DELETE FROM orders WHERE id = 1",
        "TRUNCATE orders",
        "BEGIN; INSERT INTO orders VALUES (9, 'never', 1); ROLLBACK",
    ]);
    assert_eq!(
        told(&records),
        [
            event(
                "orders.created",
                Some("1"),
                json!({"id": 1, "status": "placed", "total": "12.50"})
            ),
            event("orders.created", Some("2"), json!({"id": 2, "status": "placed", "total": null})),
            event(
                "orders.updated",
                Some("1"),
                json!({"id": 1, "status": "paid", "total": "12.50"})
            ),
            event("orders.deleted", Some("2"), json!({"id": 2})),
            event("orders.deleted", Some("2"), json!("tombstone")),
            event("orders.created", Some("3"), json!({"id": 3, "status": "placed", "total": null})),
            event("orders.deleted", Some("1"), json!({"id": 1})),
            event("orders.deleted", Some("1"), json!("tombstone")),
            event("orders.truncated", None, json!(null)),
        ]
    );
    let mut sequences: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for record in &records {
        let of = |name| record.header(name).expect("a header");
        sequences.entry(of("pg-lsn")).or_default().push(of("pg-seq"));
    }
    let sequences: Vec<_> = sequences.into_values().collect();
    assert_eq!(sequences, [vec!["0", "1"], vec!["0", "1", "2", "3"], vec!["0", "1"], vec!["0"]]);
    assert_eq!(records.last().expect("a truncate").partition, 0);
}

#[test]
fn init_publishes_all_that_tables_need_and_inserts_alone_for_outboxes() {
    let shop = TableShop::open(
        ORDERS,
        "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\n",
    );
    init(&shop.settings);
    let sql = "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot \
               FROM pg_publication";
    assert_eq!(shop.session.value(sql).as_deref(), Some("t"));
    let printed = daemon::run(&["init", "--print-sql"], &shop.settings);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
}

#[test]
fn a_table_whose_updates_would_fail_is_refused_before_anything_is_made() {
    let shop = TableShop::open(
        "CREATE TABLE notes (text text)",
        "[[table]]\nname = \"public.notes\"\ntopic = \"{source}.{table}\"\n",
    );
    let ended = daemon::run(&["init"], &shop.settings);
    assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
    let made = "SELECT count(*) FROM pg_publication";
    assert_eq!(shop.session.value(made).as_deref(), Some("0"));
    shop.session.run("ALTER TABLE notes REPLICA IDENTITY FULL");
    let records = shop.events(&[
        "INSERT INTO notes VALUES ('a'), ('a'), (NULL)",
        "UPDATE notes SET text = 'b' WHERE text IS NULL",
        "DELETE FROM notes WHERE text = 'b'",
    ]);
    assert_eq!(
        told(&records),
        [
            event("notes.created", None, json!({"text": "a"})),
            event("notes.created", None, json!({"text": "a"})),
            event("notes.created", None, json!({"text": null})),
            event("notes.updated", None, json!({"text": "b"})),
            event("notes.deleted", None, json!({"text": "b"})),
        ]
    );
}

//! What the settings of a `[[table]]` make of rows that were there before.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    PATIENCE,
    kafka::Record,
    postgres::Server,
    scene::{init, publishing},
    table_shop::{TableShop, event, told},
};

const SALT: &str = "a salt that nobody may see";

fn shop(sql: &str, sections: &str) -> TableShop {
    TableShop::open_with_rows(Server::start(), sql, sections)
}

/// Publishes the rows of these tables, then what is done by `sql`.
fn publish(shop: &TableShop, tables: &[&str], sql: &str) -> Vec<Record> {
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    for table in tables {
        shop.await_rows(&mut daemon, table);
    }
    shop.session.run(sql);
    shop.finish(daemon);
    shop.records()
}

fn topic<'r>(shop: &TableShop, record: &'r Record) -> &'r str {
    record.topic.strip_prefix(&format!("{}.", shop.source)).expect("one of ours")
}

fn mask(text: &str) -> String {
    let digest = Sha256::digest(format!("{SALT}{text}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

const PERSONS: &str = "CREATE TABLE persons (id text PRIMARY KEY, tenant text, region text, \
    email text, card text, secret text); ALTER TABLE persons REPLICA IDENTITY FULL; \
    INSERT INTO persons VALUES ('a', 't', 'eu', 'zoe@example.com', '4111', 'x'), \
    ('b', NULL, 'us', NULL, NULL, 'y')";

const HIDING: &str = "columns = { exclude = [\"secret\"], mask = { email = \"sha256\", \
                      card = \"redact\" } }\n";

/// The key of the record is not the one that rows are read by, and no tombstone follows a row.
#[test]
fn key_data_masks_tombstones_and_routes_are_those_of_rows_that_were_there_too() {
    let shop = shop(
        PERSONS,
        &format!(
            "[[table]]\nname = \"public.persons\"\ntopic = \"{{source}}.{{column:region}}.{{table}}\"\n\
             key = [\"tenant\", \"id\"]\ndata = \"change\"\ntombstone = true\n{HIDING}\n\
             [[table]]\nname = \"public.per*\"\n\n\
             [[route]]\ntype = \"*.deleted\"\ntopic = \"{{source}}.gone\"\n"
        ),
    )
    .with_head(&format!("mask_salt = \"{SALT}\""));
    let records = publish(&shop, &["public.persons"], "DELETE FROM persons WHERE id = 'a'");
    let row = |id: &str, tenant: Option<&str>, region: &str, email: Option<&str>| {
        json!({"id": id, "tenant": tenant, "region": region, "email": email.map(mask),
            "card": email.map(|_| "***")})
    };
    let (a, b) = (row("a", Some("t"), "eu", Some("zoe@example.com")), row("b", None, "us", None));
    let after = |row: &Value| json!({"before": null, "after": row});
    let mut found = told(&records);
    found[..2].sort_by_key(|told| told.1.clone());
    assert_eq!(
        found,
        [
            event("persons.snapshot", Some(r#"["t","a"]"#), after(&a)),
            event("persons.snapshot", Some(r#"[null,"b"]"#), after(&b)),
            event("persons.deleted", Some(r#"["t","a"]"#), json!({"before": a, "after": null})),
            event("persons.deleted", Some(r#"["t","a"]"#), json!("tombstone")),
        ]
    );
    let mut topics: Vec<&str> = records.iter().map(|record| topic(&shop, record)).collect();
    topics.sort_unstable();
    assert_eq!(topics, ["eu.persons", "gone", "gone", "us.persons"]);
}

#[test]
fn a_route_takes_rows_that_were_there_by_their_type() {
    let shop = shop(
        PERSONS,
        "[[table]]\nname = \"public.*\"\ntopic = \"{source}.{table}\"\n\n\
         [[route]]\ntype = \"person?.snap*\"\ntopic = \"{source}.there.{domain}\"\n",
    );
    let records = publish(&shop, &["public.persons"], "INSERT INTO persons VALUES ('c')");
    let topics: Vec<&str> = records.iter().map(|record| topic(&shop, record)).collect();
    assert_eq!(topics, ["there.persons", "there.persons", "persons"]);
}

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric); \
    INSERT INTO orders VALUES (1, 'placed', 12.50), (2, 'paid', 7), (3, 'draft', NULL)";

const RULES: &str = "
[[table.event]]
type = \"order.known\"
when = \"op == 'snapshot' && old.id == null && new.status != 'draft'\"
version = \"2.0\"
topic = \"{source}.known\"
data = { id = \"new.id\", total = \"new.total\", how = \"op\" }

[[table.event]]
type = \"order.placed\"
when = \"op in ['insert', 'snapshot'] && new.status == 'placed'\"
";

fn orders(otherwise: &str) -> (TableShop, Vec<Record>) {
    let section = "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\n";
    let shop = shop(ORDERS, &format!("{section}{otherwise}{RULES}"));
    let mut records =
        publish(&shop, &["public.orders"], "INSERT INTO orders VALUES (4, 'placed', 1)");
    records.sort_by_key(|record| {
        let of = |name| record.header(name).expect("a header").to_owned();
        (record.key.clone(), of("event-type"))
    });
    (shop, records)
}

#[test]
fn rules_match_rows_that_were_there_and_leave_out_the_rest() {
    let (shop, records) = orders("");
    let known = |id: i32, total: &str| {
        let number: serde_json::Number = total.parse().expect("a number");
        let total = if total.contains('.') { json!(total) } else { json!(number.to_string()) };
        json!({"id": id, "total": total, "how": "snapshot"})
    };
    let row =
        |id: i32, status: &str, total: &str| json!({"id": id, "status": status, "total": total});
    assert_eq!(
        told(&records),
        [
            event("order.known", Some("1"), known(1, "12.50")),
            event("order.placed", Some("1"), row(1, "placed", "12.50")),
            event("order.known", Some("2"), known(2, "7")),
            event("order.placed", Some("4"), row(4, "placed", "1")),
        ]
    );
    let versions: Vec<Value> = records.iter().map(|it| it.json()["version"].clone()).collect();
    assert_eq!(versions, ["2.0", "1.0", "2.0", "1.0"]);
    let topics: Vec<&str> = records.iter().map(|record| topic(&shop, record)).collect();
    assert_eq!(topics, ["known", "orders", "known", "orders"]);
    let mut ids: Vec<&str> = records.iter().filter_map(|it| it.header("event-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let has_place: Vec<bool> = records.iter().map(|it| it.header("pg-seq").is_some()).collect();
    assert_eq!(has_place, [false, false, false, true]);
}

#[test]
fn rows_that_were_there_and_that_no_rule_matches_are_as_without_rules_where_that_is_said() {
    let (_, records) = orders("otherwise = \"default\"\n");
    let types: Vec<&str> = records.iter().filter_map(|it| it.header("event-type")).collect();
    assert_eq!(
        types,
        ["order.known", "order.placed", "order.known", "orders.snapshot", "order.placed"]
    );
    assert_eq!(records[3].json()["data"], json!({"id": 3, "status": "draft", "total": null}));
}

/// The section that names a table counts before the pattern that it matches.
#[test]
fn rows_are_told_of_by_the_section_that_counts_and_never_where_it_says_so() {
    let shop = shop(
        "CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE orders_old (id int PRIMARY KEY); \
         CREATE TABLE other (id int PRIMARY KEY); INSERT INTO orders VALUES (1); \
         INSERT INTO orders_old VALUES (1); INSERT INTO other VALUES (1)",
        "[[table]]\nname = \"public.ord*\"\ntopic = \"{source}.{table}\"\nsnapshot = \"initial\"\n\n\
         [[table]]\nname = \"public.orders_old\"\ntopic = \"{source}.{table}\"\nsnapshot = \"never\"\n",
    );
    let records = publish(
        &shop,
        &["public.orders"],
        "INSERT INTO orders VALUES (2); INSERT INTO orders_old VALUES (2); \
         INSERT INTO other VALUES (2)",
    );
    let found: Vec<(String, Option<String>)> =
        told(&records).into_iter().map(|(event_type, key, _)| (event_type, key)).collect();
    let expected = [("orders.snapshot", "1"), ("orders.created", "2"), ("orders_old.created", "2")];
    assert_eq!(found, expected.map(|(of, key)| (of.to_owned(), Some(key.to_owned()))));
    assert_eq!(shop.row_records("public.orders_old").newest(), None);
}

const UNMAPPABLE: &str = "CREATE TABLE persons (id text PRIMARY KEY, region text, email text); \
    ALTER TABLE persons REPLICA IDENTITY FULL; \
    INSERT INTO persons VALUES ('a', 'eu', 'e'), ('b', NULL, 'zoe@example.com'), ('c', 'us', 'f')";

const BY_REGION: &str = "[[table]]\nname = \"public.persons\"\ntopic = \"{source}.{column:region}\"\n\
                         columns.mask = { email = \"redact\" }\n";

#[test]
fn a_row_that_was_there_and_has_no_topic_is_a_dead_letter_and_the_rest_goes_on() {
    let shop = shop(UNMAPPABLE, BY_REGION).with_head("on_error = \"dead-letter\"");
    let records = publish(&shop, &["public.persons"], "INSERT INTO persons VALUES ('d', 'eu')");
    let mut keys: Vec<_> = told(&records).into_iter().filter_map(|(_, key, _)| key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a", "c", "d"]);
    let letters = shop.dead_letters();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.key.as_deref(), Some(&b"b"[..]));
    assert_eq!(
        letter.json(),
        json!({"old": null, "new": {"id": "b", "region": null, "email": "***"}})
    );
    let reason = letter.header("failure-reason").expect("a reason");
    assert!(reason.contains("column \"region\" is NULL"), "{reason}");
    assert_eq!(letter.header("original-table"), Some("public.persons"));
    assert!(letter.header("pg-lsn").is_some() && letter.header("pg-seq").is_none());
    assert_eq!(letter.header("pg-xid"), None);
}

#[test]
fn a_row_that_was_there_and_has_no_topic_stops_until_it_is_mended() {
    let shop = shop(UNMAPPABLE, BY_REGION);
    init(&shop.settings);
    let ended = publishing(&shop.settings).wait(PATIENCE);
    assert!(ended.is_code("event_unmappable"), "{}", ended.stderr);
    assert!(ended.stderr.contains("\"public.persons\" (id \"b\")"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("zoe@example.com"), "{}", ended.stderr);
    // What came of the rows so far is not told twice.
    shop.session.run("UPDATE persons SET region = 'eu' WHERE id = 'b'");
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.persons");
    shop.finish(daemon);
    let mut rows: Vec<_> =
        told(&shop.records()).into_iter().map(|(of, key, _)| (of, key)).collect();
    let mut ids: Vec<String> = rows.iter().filter_map(|(_, key)| key.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, ["a", "b", "c"]);
    let count = rows.len();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), count, "doubled");
}

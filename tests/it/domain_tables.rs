//! Domain tables: what is done to their rows comes as events.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    PATIENCE, daemon,
    kafka::{Broker, Record},
    postgres::Server,
    scaled,
    scene::{init, publishing, stop, wait_until_published},
    settings::SettingsFile,
    table_shop::{TableShop, event, goes_on_inside, position, told},
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

const SECTION: &str = "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\n";

/// What is said of a column where it is text: the same whatever the forms of other types are.
const NOTES: &str = "CREATE TABLE orders (id text PRIMARY KEY, note text)";

fn header<'r>(record: &'r Record, name: &str) -> &'r str {
    record.header(name).unwrap_or_else(|| panic!("no {name}: {record:?}"))
}

/// Deletes carry the index's columns alone, so they are the key.
#[test]
fn rows_are_named_by_the_index_that_the_table_says() {
    let shop = TableShop::open(
        "CREATE TABLE orders (id text PRIMARY KEY, code text NOT NULL, tenant text NOT NULL, \
         note text, UNIQUE (tenant, code)); \
         ALTER TABLE orders REPLICA IDENTITY USING INDEX orders_tenant_code_key",
        SECTION,
    );
    let records = shop.events(&[
        "INSERT INTO orders VALUES ('a', 'x', 't', 'n')",
        "UPDATE orders SET id = 'b'",
        "UPDATE orders SET code = 'y'",
        "DELETE FROM orders",
    ]);
    let row = |id: &str, code: &str| json!({"id": id, "code": code, "tenant": "t", "note": "n"});
    // In the order that the columns have in the table.
    let (x, y) = (Some(r#"["x","t"]"#), Some(r#"["y","t"]"#));
    assert_eq!(
        told(&records),
        [
            event("orders.created", x, row("a", "x")),
            event("orders.updated", x, row("b", "x")),
            event("orders.deleted", x, json!({"code": "x", "tenant": "t"})),
            event("orders.created", y, row("b", "y")),
            event("orders.deleted", y, json!({"code": "y", "tenant": "t"})),
        ]
    );
}

/// Partitions have identities of their own, and one that is made has DEFAULT: what it does not log of
/// an old row the server sends as NULL, in what it calls a whole row. It is told as what is not known,
/// until the daemon sees the partition and stops.
#[test]
fn what_a_partition_does_not_log_is_not_null() {
    let shop = TableShop::open(
        "CREATE TABLE orders (id text PRIMARY KEY, note text, large text) PARTITION BY LIST (id); \
         CREATE TABLE orders_a PARTITION OF orders FOR VALUES IN ('a'); \
         ALTER TABLE orders REPLICA IDENTITY FULL; ALTER TABLE orders_a REPLICA IDENTITY FULL",
        &format!("{SECTION}data = \"change\"\n"),
    );
    const LARGE: &str = "string_agg(md5(n::text), '') FROM generate_series(1, 200) n";
    let mut daemon = publishing(&shop.settings);
    shop.session.run(&format!("INSERT INTO orders SELECT 'a', '1', {LARGE}"));
    shop.session.run("UPDATE orders SET note = '2'");
    shop.await_published(&mut daemon);
    shop.session.run("CREATE TABLE orders_rest PARTITION OF orders DEFAULT");
    shop.session.run(&format!("INSERT INTO orders SELECT 'b', '1', {LARGE}"));
    shop.session.run("UPDATE orders SET note = '2' WHERE id = 'b'");
    shop.session.run("UPDATE orders SET id = 'c' WHERE id = 'b'");
    shop.session.run("DELETE FROM orders WHERE id = 'c'");
    let ended = daemon.wait(PATIENCE);
    assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
    let records = shop.records();
    let large = records[0].json()["data"]["after"]["large"].clone();
    let row = |id: &str, note: &str| json!({"id": id, "note": note, "large": large});
    let (before, after) = (row("a", "1"), row("a", "2"));
    let created = |id: &str| (json!({"before": null, "after": row(id, "1")}), Value::Null);
    let part =
        |id: &str| (json!({"before": null, "after": {"id": id, "note": "2"}}), json!(["large"]));
    let gone = |id: &str| (json!({"before": {"id": id}, "after": null}), Value::Null);
    let expected = [
        created("a"),
        (json!({"before": before, "after": after, "changed": ["note"]}), Value::Null),
        created("b"),
        part("b"),
        gone("b"),
        part("c"),
        gone("c"),
    ];
    let found: Vec<(Value, Value)> = records
        .iter()
        .map(|record| (record.json()["data"].clone(), record.json()["unavailable"].clone()))
        .collect();
    // It looks every few seconds, and may do so at once.
    assert!(expected.starts_with(&found) && found.len() >= 2, "{found:#?}");
}

/// The server calls the partition's key the table's, and sends NULL for what it is not of.
#[test]
fn a_partition_with_a_key_of_its_own_is_refused() {
    let shop = TableShop::open(
        "CREATE TABLE orders (id text PRIMARY KEY, code text NOT NULL) PARTITION BY LIST (id); \
         CREATE TABLE orders_all PARTITION OF orders DEFAULT; \
         CREATE UNIQUE INDEX orders_code ON orders_all (code); \
         ALTER TABLE orders_all REPLICA IDENTITY USING INDEX orders_code",
        SECTION,
    );
    let ended = daemon::run(&["init"], &shop.settings);
    assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
    let (_, mend) = ended.stderr.split_once("hint: Run ").expect("a hint");
    shop.session.run(mend.split_once(", and start").expect("what follows").0);
    let records = shop.events(&["INSERT INTO orders VALUES ('a', 'x')", "DELETE FROM orders"]);
    assert_eq!(
        told(&records),
        [
            event("orders.created", Some("a"), json!({"id": "a", "code": "x"})),
            event("orders.deleted", Some("a"), json!({"id": "a"})),
        ]
    );
}

/// Each row comes in the shape that the table had when it was written.
#[test]
fn shapes_that_changed_while_the_daemon_was_down_are_those_of_their_rows() {
    let shop = TableShop::open(NOTES, SECTION);
    shop.publish(&["INSERT INTO orders VALUES ('a', 'n')"]);
    for sql in [
        "ALTER TABLE orders ADD COLUMN extra text; UPDATE orders SET extra = 'e'",
        "CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE orders ADD COLUMN mood mood; \
         INSERT INTO orders VALUES ('b', 'n', NULL, 'ok')",
        "ALTER TABLE orders DROP COLUMN extra, ALTER COLUMN mood TYPE text; DROP TYPE mood; \
         UPDATE orders SET mood = 'sad' WHERE id = 'b'",
        "ALTER TABLE orders RENAME COLUMN note TO remark; DELETE FROM orders WHERE id = 'a'",
        "ALTER TABLE orders REPLICA IDENTITY FULL; UPDATE orders SET id = 'c'",
        "BEGIN; ALTER TABLE orders DROP COLUMN mood; DELETE FROM orders; \
         ALTER TABLE orders ADD COLUMN mood text; INSERT INTO orders VALUES ('d'); COMMIT",
    ] {
        shop.session.run(sql);
    }
    let records = shop.events(&[]);
    assert_eq!(
        told(&records),
        [
            event("orders.created", Some("a"), json!({"id": "a", "note": "n"})),
            event("orders.updated", Some("a"), json!({"id": "a", "note": "n", "extra": "e"})),
            event(
                "orders.created",
                Some("b"),
                json!({"id": "b", "note": "n", "extra": null, "mood": "ok"})
            ),
            event("orders.updated", Some("b"), json!({"id": "b", "note": "n", "mood": "sad"})),
            event("orders.deleted", Some("a"), json!({"id": "a"})),
            event("orders.deleted", Some("b"), json!({"id": "b", "remark": "n", "mood": "sad"})),
            event("orders.created", Some("c"), json!({"id": "c", "remark": "n", "mood": "sad"})),
            event("orders.deleted", Some("c"), json!({"id": "c", "remark": "n"})),
            event("orders.created", Some("d"), json!({"id": "d", "remark": null, "mood": null})),
        ]
    );
}

#[test]
fn a_transactions_context_is_that_of_its_table_events() {
    let shop = TableShop::open(NOTES, SECTION);
    let context = |fields: &str| {
        format!("SELECT pg_logical_emit_message(true, 'tailwater.context', '{{{fields}}}');")
    };
    let records = shop.events(&[
        &[
            "BEGIN; INSERT INTO orders VALUES ('a');",
            &context(
                "\"correlationId\": \"one\", \"causationId\": \"cause\", \"traceparent\": \"trace\"",
            ),
            "UPDATE orders SET id = 'b'; SAVEPOINT undone;",
            &context("\"correlationId\": \"undone\""),
            "ROLLBACK TO SAVEPOINT undone; INSERT INTO orders VALUES ('c');",
            &context("\"correlationId\": \"two\""),
            "TRUNCATE orders; COMMIT",
        ]
        .concat(),
        "INSERT INTO orders VALUES ('d')",
    ]);
    let found: Vec<_> = records
        .iter()
        .map(|record| {
            let event = record.json();
            assert_eq!(event["correlationId"], header(record, "correlation-id"));
            let correlation = event["correlationId"].as_str().expect("a text").to_owned();
            let is_default = correlation == format!("tx-{}", header(record, "pg-lsn"));
            let correlation = if is_default { "default".to_owned() } else { correlation };
            let causation = event["causationId"].as_str().map(str::to_owned);
            (correlation, causation, record.header("traceparent").map(str::to_owned))
        })
        .collect();
    let of = |correlation: &str, causation: Option<&str>, traceparent: Option<&str>| {
        (correlation.to_owned(), causation.map(str::to_owned), traceparent.map(str::to_owned))
    };
    assert_eq!(
        found,
        [
            of("default", None, None),
            of("one", Some("cause"), Some("trace")),
            of("one", Some("cause"), Some("trace")),
            of("one", Some("cause"), Some("trace")),
            of("two", None, None),
            of("default", None, None),
        ]
    );
}

#[test]
fn key_and_topic_are_made_of_the_columns_that_the_settings_name() {
    let shop = TableShop::open(
        "CREATE TABLE orders (id text PRIMARY KEY, tenant text, region text); \
         ALTER TABLE orders REPLICA IDENTITY FULL",
        "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{column:region}.{schema}.{table}\"\n\
         key = [\"tenant\", \"id\"]\ntombstone = true\n\n\
         [[route]]\ntype = \"*.truncated\"\ntopic = \"{source}.gone.{type}\"\n",
    );
    let records = shop.events(&[
        "INSERT INTO orders VALUES ('a', 't', 'eu'), ('b', NULL, 'us')",
        "UPDATE orders SET region = 'us' WHERE id = 'a'",
        "UPDATE orders SET tenant = 'u', region = 'eu' WHERE id = 'a'",
        "DELETE FROM orders WHERE id = 'b'",
        "TRUNCATE orders",
    ]);
    let found: Vec<_> = records
        .iter()
        .map(|record| {
            let topic = record.topic.strip_prefix(&format!("{}.", shop.source));
            let key = record.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
            let kind = header(record, "event-type").trim_start_matches("orders.");
            let kind = if record.value.is_some() { kind } else { "tombstone" };
            (kind, topic.expect("ours"), key.unwrap_or_default())
        })
        .collect();
    let (a, b, u) = (r#"["t","a"]"#, r#"[null,"b"]"#, r#"["u","a"]"#);
    let expected = [
        ("created", "eu.public.orders", a),
        ("created", "us.public.orders", b),
        ("updated", "us.public.orders", a),
        ("deleted", "us.public.orders", a),
        ("tombstone", "us.public.orders", a),
        ("created", "eu.public.orders", u),
        ("deleted", "us.public.orders", b),
        ("tombstone", "us.public.orders", b),
        ("truncated", "gone.orders.truncated", ""),
    ];
    assert_eq!(found, expected.map(|(kind, topic, key)| (kind, topic, key.to_owned())));
}

/// What is said of a column goes before what is said of its table, and that before the file.
#[test]
fn forms_of_types_are_said_for_file_table_and_column() {
    let columns = "(id int8 PRIMARY KEY, total numeric, raw bytea, parts numeric[], count int8)";
    let shop = TableShop::open(
        &format!("CREATE TABLE orders {columns}; CREATE TABLE bills {columns}"),
        "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\n\n\
         [[table]]\nname = \"public.bills\"\ntopic = \"{source}.{table}\"\n\
         types = { numeric = \"number\", int8 = \"number\", \
         columns = { total = \"string\", count = \"string\", raw = \"base64\" } }\n",
    )
    .with_head("types = { int8 = \"string\", bytea = \"hex\" }");
    let row = "(9007199254740993, 1.50, '\\x00ff', '{1.50,NULL}', 7)";
    let records = shop.events(&[&format!(
        "BEGIN; INSERT INTO orders VALUES {row}; INSERT INTO bills VALUES {row}; COMMIT"
    )]);
    let data: Vec<String> = records
        .iter()
        .map(|record| {
            let value = String::from_utf8(record.value.clone().expect("a value")).expect("text");
            value.split_once("\"data\":").expect("data").1.to_owned()
        })
        .collect();
    assert_eq!(
        data,
        [
            r#"{"id":"9007199254740993","total":"1.50","raw":"00ff","parts":["1.50",null],"count":"7"}}"#,
            r#"{"id":9007199254740993,"total":"1.50","raw":"AP8=","parts":[1.50,null],"count":"7"}}"#,
        ]
    );
}

const PERSONS: &str = "CREATE TABLE persons (id text PRIMARY KEY, region text, email text, card text, \
                       secret text); ALTER TABLE persons REPLICA IDENTITY FULL";

const HIDING: &str = "[[table]]\nname = \"public.persons\"\ntopic = \"{source}.{column:region}\"\n\
                      data = \"change\"\ncolumns = { exclude = [\"secret\"], \
                      mask = { email = \"sha256\", card = \"redact\" } }\n";

const SALT: &str = "a salt that nobody may see";

/// What no record, no word of the log and no dead letter may hold.
const HIDDEN: [&str; 4] = ["zoe@example.com", "4111-1111", "top secret", SALT];

fn persons(head: &str) -> TableShop {
    TableShop::open(PERSONS, HIDING).with_head(&format!("mask_salt = \"{SALT}\"\n{head}"))
}

fn assert_hides(what: &str) {
    for hidden in HIDDEN {
        assert!(!what.contains(hidden), "{hidden}: {what}");
    }
}

const ZOE: &str = "INSERT INTO persons VALUES \
                   ('a', 'eu', 'zoe@example.com', '4111-1111', 'top secret')";

/// Equal values have one mask, before and after a restart; other values have others.
#[test]
fn masked_values_can_be_told_apart_and_not_be_read() {
    let shop = persons("");
    let mut said = String::new();
    for sql in [
        &[ZOE, "UPDATE persons SET card = NULL, secret = 'top secret too'"][..],
        &["UPDATE persons SET email = 'zoe@example.org'", "UPDATE persons SET email = NULL"],
        &["UPDATE persons SET email = 'zoe@example.com'", "DELETE FROM persons"],
    ] {
        let mut daemon = publishing(&shop.settings);
        sql.iter().for_each(|sql| shop.session.run(sql));
        shop.await_published(&mut daemon);
        said.push_str(&daemon.stderr());
        shop.finish(daemon);
    }
    for command in [&["check"][..], &["schema"], &["status"], &["init", "--print-sql"]] {
        let ended = daemon::run(command, &shop.settings);
        said.push_str(&ended.stdout);
        said.push_str(&ended.stderr);
    }
    assert_hides(&said);
    let records = shop.records();
    for record in &records {
        assert_hides(&String::from_utf8_lossy(record.value.as_deref().expect("a value")));
    }
    let mask = |email: &str| {
        let digest = Sha256::digest(format!("{SALT}{email}"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let row = |email: Option<&str>, card: Option<&str>| json!({"id": "a", "region": "eu", "email": email.map(mask), "card": card});
    let first = row(Some("zoe@example.com"), Some("***"));
    let second = row(Some("zoe@example.com"), None);
    let third = row(Some("zoe@example.org"), None);
    let fourth = row(None, None);
    let updated = |before: &Value, after: &Value, changed: &[&str]| json!({"before": before, "after": after, "changed": changed});
    let data: Vec<Value> = records.iter().map(|record| record.json()["data"].clone()).collect();
    assert_eq!(
        data,
        [
            json!({"before": null, "after": first}),
            updated(&first, &second, &["card"]),
            updated(&second, &third, &["email"]),
            updated(&third, &fourth, &["email"]),
            updated(&fourth, &second, &["email"]),
            json!({"before": second, "after": null}),
        ]
    );
}

#[test]
fn a_row_whose_topic_is_null_is_a_dead_letter_that_hides_what_events_hide() {
    let shop = persons("on_error = \"dead-letter\"\n");
    let mut daemon = publishing(&shop.settings);
    shop.session.run(ZOE);
    shop.session.run(
        "BEGIN; INSERT INTO persons VALUES ('b', 'eu'); UPDATE persons SET region = NULL; \
         UPDATE persons SET id = 'c', region = 'us' WHERE id = 'a'; \
         INSERT INTO persons VALUES ('d', 'eu'); COMMIT",
    );
    shop.await_published(&mut daemon);
    assert_hides(&daemon.stderr());
    shop.finish(daemon);
    let letters = shop.dead_letters();
    let found: Vec<_> = letters
        .iter()
        .map(|letter| {
            assert_hides(&String::from_utf8_lossy(letter.value.as_deref().expect("a value")));
            assert_eq!(letter.topic, format!("{}.dlq", shop.source));
            assert_eq!(letter.header("original-topic"), None);
            assert_eq!(header(letter, "original-table"), "public.persons");
            assert_eq!(header(letter, "failure-stage"), "map");
            let reason = header(letter, "failure-reason");
            assert!(reason.contains("column \"region\" is NULL"), "{reason}");
            assert_hides(reason);
            let key = String::from_utf8_lossy(letter.key.as_deref().expect("a key")).into_owned();
            (key, header(letter, "pg-seq"), letter.json())
        })
        .collect();
    let mask = Sha256::digest(format!("{SALT}zoe@example.com"));
    let mask: String = mask.iter().map(|byte| format!("{byte:02x}")).collect();
    let a = |id: &str, region: Option<&str>| json!({"id": id, "region": region, "email": mask, "card": "***"});
    let b =
        |region: Option<&str>| json!({"id": "b", "region": region, "email": null, "card": null});
    assert_eq!(
        found,
        [
            ("a".to_owned(), "1", json!({"old": a("a", Some("eu")), "new": a("a", None)})),
            ("b".to_owned(), "2", json!({"old": b(Some("eu")), "new": b(None)})),
            // It is gone under its old key, whose topic is not known, and new under the other one.
            ("a".to_owned(), "3", json!({"old": a("a", None), "new": a("c", Some("us"))})),
        ]
    );
    let sequences: Vec<_> = shop
        .records()
        .iter()
        .map(|record| {
            (header(record, "event-type").to_owned(), header(record, "pg-seq").to_owned())
        })
        .collect();
    let expected = [("created", "0"), ("created", "0"), ("created", "4"), ("created", "5")];
    let expected =
        expected.map(|(kind, sequence)| (format!("persons.{kind}"), sequence.to_owned()));
    assert_eq!(sequences, expected);
}

/// What events do not show takes no room in them.
#[test]
fn a_large_value_that_is_hidden_makes_no_event_too_large() {
    let shop = persons("");
    let mut daemon = publishing(&shop.settings);
    shop.session.run(
        "INSERT INTO persons VALUES ('a', 'eu', repeat('m', 9000000), NULL, repeat('x', 9000000)); \
         DELETE FROM persons",
    );
    shop.await_published(&mut daemon);
    // Not asked for its memory: it holds each row of 18 MB as a whole.
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait(PATIENCE).code, Some(0));
    let records = shop.records();
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| record.value.as_ref().is_some_and(|it| it.len() < 1_000)));
}

/// Runs `sql`, one transaction of so many changes, and has it published by a daemon that is killed in
/// the middle, and by one of another pipeline that is not. Returns the ids, which are the same.
fn ids_of_killed_and_unharmed(shop: &TableShop, sql: &str, changes: usize) -> Vec<String> {
    let text = fs::read_to_string(shop.settings.path()).expect("settings");
    let other = format!("{}-other", shop.source);
    let unharmed = SettingsFile::of_text(text.replace(&shop.source, &other))
        .with("[postgres]", "slot = \"other\"");
    init(&shop.settings);
    init(&unharmed);
    let mut checkpoints = shop.watch_checkpoints();
    shop.session.run(sql);
    let mut daemon = publishing(&shop.settings);
    checkpoints.await_part(&mut daemon);
    daemon.kill_and_restart(&shop.settings);
    assert!(goes_on_inside(&daemon), "it was killed too late");
    shop.finish(daemon);
    let daemon = publishing(&unharmed);
    wait_until_published(&shop.session, "other");
    stop(daemon);
    let of = |source: &str| {
        let mut records = Broker::shared().read_committed(&format!("{source}.orders"));
        records.sort_by_key(|record| position(record).expect("a place in the log"));
        let tell = |record: &Record| {
            (position(record), record.key.clone(), header(record, "event-id").to_owned())
        };
        records.iter().map(tell).collect::<Vec<_>>()
    };
    let (killed, unharmed) = (of(&shop.source), of(&other));
    assert_eq!(killed.len(), changes);
    assert!(killed == unharmed, "other events came of the daemon that was killed");
    let sequences = killed.iter().map(|(place, _, _)| place.expect("a place").1);
    assert!(sequences.eq(0..changes as u64), "there are gaps");
    killed.into_iter().map(|(_, _, id)| id).collect()
}

fn with_small_parts(settings: SettingsFile) -> SettingsFile {
    settings.with("[kafka]", "transaction_bytes = \"1MiB\"")
}

fn assert_distinct(ids: &[String]) {
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "ids came twice");
}

const FILLED: &str =
    "CREATE TABLE orders (id text PRIMARY KEY, filler text DEFAULT repeat('x', 4000))";

#[test]
fn ids_of_a_large_transaction_survive_a_kill() {
    let rows = scaled(100_000).max(20_000);
    let shop = TableShop::open_on(
        Server::start(),
        &format!("{FILLED}; INSERT INTO orders SELECT n FROM generate_series(1, {rows}) n"),
        SECTION,
    )
    .with_settings(with_small_parts);
    let sql = "UPDATE orders SET filler = repeat('y', 4000)";
    let rows = usize::try_from(rows).expect("a count");
    assert_distinct(&ids_of_killed_and_unharmed(&shop, sql, rows));
}

/// Each row of such a page of the log has the position of the whole page.
#[test]
fn ids_of_rows_that_share_a_place_in_the_log_survive_a_kill() {
    const ROWS: usize = 10_000;
    let shop = TableShop::open_on(Server::start(), FILLED, SECTION).with_settings(with_small_parts);
    let twin = "SELECT pg_create_logical_replication_slot('twin', 'test_decoding')";
    shop.session.run(twin);
    let sql = format!("COPY orders (id) FROM PROGRAM 'seq 1 {ROWS}'");
    let ids = ids_of_killed_and_unharmed(&shop, &sql, ROWS);
    assert_distinct(&ids);
    let places = "SELECT count(*) FILTER (WHERE data LIKE 'table %'), \
                  count(DISTINCT lsn) FILTER (WHERE data LIKE 'table %') \
                  FROM pg_logical_slot_peek_changes('twin', NULL, NULL)";
    let counts: Vec<usize> = shop.session.rows(places)[0]
        .iter()
        .map(|count| count.as_deref().and_then(|count| count.parse().ok()).expect("a number"))
        .collect();
    assert!(counts[0] == ROWS && counts[1] < ROWS / 2, "{counts:?}");
}

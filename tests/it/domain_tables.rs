//! Domain tables: what is done to their rows comes as events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{
    daemon,
    kafka::{Broker, Record},
    oracle::event_schema,
    postgres::{Server, Session},
    scene::{init, publishing, stop, wait_until_published},
    settings::SettingsFile,
};

/// A database, its settings and a connection.
struct Shop {
    _server: Server,
    session: Session,
    settings: SettingsFile,
    source: String,
}

impl Shop {
    /// Tables made by `sql`, and the sections that name them; `{source}` in topics keeps tests apart.
    fn open(sql: &str, sections: &str) -> Self {
        let server = Server::start();
        let session = server.create_database("shop");
        session.run(sql);
        let source = format!("source-{:08x}", fastrand::u32(..));
        let (url, brokers) = (server.url("shop"), Broker::shared().brokers());
        let settings = SettingsFile::of_text(format!(
            "source = \"{source}\"\n\n[postgres]\nurl = \"{url}\"\n\n[kafka]\nbrokers = \
             \"{brokers}\"\ncheckpoint_topic = \"{source}.checkpoints\"\n\n{}",
            sections.replace("{source}", &source)
        ));
        Self { _server: server, session, settings, source }
    }

    /// Runs `sql` while a daemon publishes, and returns what it made of it, in the order of the log.
    fn events(&self, sql: &[&str]) -> Vec<Record> {
        let daemon = publishing(&self.settings);
        for statement in sql {
            self.session.run(statement);
        }
        wait_until_published(&self.session, "tailwater");
        stop(daemon);
        self.records()
    }

    /// All records of its topics, in the order of the log.
    fn records(&self) -> Vec<Record> {
        let broker = Broker::shared();
        let is_ours = |topic: &String| {
            topic.starts_with(&format!("{}.", self.source)) && !topic.ends_with("checkpoints")
        };
        let topics = broker.topics().into_iter().filter(is_ours);
        let mut records: Vec<Record> =
            topics.flat_map(|topic| broker.read_committed(&topic)).collect();
        let place = |record: &Record| {
            let (high, low) = record.header("pg-lsn")?.split_once('/')?;
            let position = |digits| u64::from_str_radix(digits, 16).ok();
            let sequence: u64 = record.header("pg-seq")?.parse().ok()?;
            Some((position(high)? << 32 | position(low)?, sequence))
        };
        records.sort_by_key(|record| place(record).expect("a place in the log"));
        let schema = event_schema();
        for record in records.iter().filter(|record| record.value.is_some()) {
            let event = record.json();
            assert!(schema.is_valid(&event), "{event}");
        }
        records
    }
}

/// Type, key and data of each event.
fn told(records: &[Record]) -> Vec<(String, Option<String>, Value)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let tell = |record: &Record| {
        let event_type = record.header("event-type").expect("a type").to_owned();
        let data =
            record.value.as_ref().map_or(json!("tombstone"), |_| record.json()["data"].clone());
        (event_type, record.key.as_deref().map(text), data)
    };
    records.iter().map(tell).collect()
}

fn event(event_type: &str, key: Option<&str>, data: Value) -> (String, Option<String>, Value) {
    (event_type.to_owned(), key.map(str::to_owned), data)
}

const ORDERS: &str =
    "CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL, total numeric(10, 2))";

#[test]
fn what_is_done_to_a_row_comes_as_events() {
    let shop = Shop::open(
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
    let shop =
        Shop::open(ORDERS, "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\n");
    init(&shop.settings);
    let sql = "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot \
               FROM pg_publication";
    assert_eq!(shop.session.value(sql).as_deref(), Some("t"));
    let printed = daemon::run(&["init", "--print-sql"], &shop.settings);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
}

#[test]
fn a_table_whose_updates_would_fail_is_refused_before_anything_is_made() {
    let shop = Shop::open(
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

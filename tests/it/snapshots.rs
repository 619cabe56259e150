//! The rows that tables have, published beside the stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    daemon::{self, Daemon},
    kafka::Record,
    let_pass,
    postgres::{Server, Session},
    scene::{init, publishing},
    settings::SettingsFile,
    table_shop::{TableShop, event, told},
    wait_until,
};

pub const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL, note text); \
    ALTER TABLE orders ALTER note SET STORAGE EXTERNAL";

pub const SECTION: &str = "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\n";

/// Rows of about ten kilobytes, so that a chunk has some hundred of them.
pub const ROWS: u32 = 4_000;

fn shop(rows: &str) -> TableShop {
    shop_on(Server::start(), rows)
}

fn shop_on(server: Server, rows: &str) -> TableShop {
    in_small_transactions(TableShop::open_with_rows(server, &format!("{ORDERS}; {rows}"), SECTION))
}

/// Some rows are to be out while others are not.
pub fn in_small_transactions(shop: TableShop) -> TableShop {
    shop.with_settings(|settings| settings.with("[kafka]", "transaction_bytes = \"1MiB\""))
}

pub fn many_rows() -> String {
    format!(
        "INSERT INTO orders SELECT n, 'placed', repeat(md5(n::text), 300) \
         FROM generate_series(1, {ROWS}) n"
    )
}

/// A daemon that was stopped as a debugger does while some rows were out and others were not, and the
/// last key that is out.
pub fn stopped_in_the_middle(shop: &TableShop) -> (Daemon, u32) {
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    let mut records = shop.row_records("public.orders");
    loop {
        // By small steps: it is soon done.
        daemon.signal(libc::SIGSTOP);
        let record = records.newest().cloned().unwrap_or(json!({ "state": "due" }));
        if record["state"] == "running" {
            let cursor = record["cursor"][0].as_str().expect("a cursor");
            let cursor = cursor.parse().expect("a number");
            assert!(cursor < ROWS - 1_000, "nearly all of them are out by {cursor}");
            return (daemon, cursor);
        }
        assert_eq!(record["state"], "due");
        daemon.signal(libc::SIGCONT);
        let_pass(Duration::from_millis(3));
    }
}

/// Waits for the rest, and returns all that is on Kafka.
fn go_on(shop: &TableShop, mut daemon: Daemon) -> Vec<Record> {
    daemon.signal(libc::SIGCONT);
    shop.await_rows(&mut daemon, "public.orders");
    shop.finish(daemon);
    shop.records()
}

pub fn event_type(record: &Record) -> &str {
    record.header("event-type").expect("a type")
}

pub fn key(record: &Record) -> String {
    String::from_utf8(record.key.clone().expect("a key")).expect("text")
}

/// How often each key came as a row that was there.
pub fn snapshots(records: &[Record]) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in records.iter().filter(|record| event_type(record) == "orders.snapshot") {
        found.entry(key(record)).or_default().push(record.json()["data"].clone());
    }
    found
}

/// What a consumer has that knows rows by their keys: columns that an event lacks stay as they were.
fn copy(records: &[Record]) -> BTreeMap<i32, Value> {
    let mut rows: BTreeMap<i32, Value> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for record in records {
        let event = record.json();
        assert!(ids.insert(event["id"].as_str().expect("an id").to_owned()), "doubled: {event}");
        let id = || key(record).parse().expect("a number");
        match event_type(record) {
            "orders.created" | "orders.snapshot" => _ = rows.insert(id(), event["data"].clone()),
            "orders.updated" => {
                let row = rows.entry(id()).or_insert(json!({}));
                for (name, value) in event["data"].as_object().expect("a row") {
                    row[name] = value.clone();
                }
            }
            "orders.deleted" => _ = rows.remove(&id()),
            "orders.truncated" => rows.clear(),
            other => panic!("{other}"),
        }
    }
    rows
}

fn table(session: &Session) -> BTreeMap<i32, Value> {
    let rows = session.rows("SELECT to_jsonb(o) FROM orders o");
    let row = |row: Vec<Option<String>>| {
        let text = row.into_iter().next().flatten().expect("a row");
        let row: Value = serde_json::from_str(&text).expect("JSON");
        (i32::try_from(row["id"].as_i64().expect("a number")).expect("an int"), row)
    };
    rows.into_iter().map(row).collect()
}

#[track_caller]
pub fn assert_copied(shop: &TableShop, records: &[Record]) {
    let (expected, found) = (table(&shop.session), copy(records));
    for (id, row) in &expected {
        assert_eq!(found.get(id), Some(row), "row {id}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn the_rows_that_a_table_has_come_once_and_changes_go_on() {
    let shop = shop("INSERT INTO orders VALUES (2, 'paid', 'n'), (1, 'placed', NULL)");
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.orders");
    shop.session.run("UPDATE orders SET status = 'shipped' WHERE id = 2");
    shop.finish(daemon);
    let mut found = told(&shop.records());
    found.sort_by_key(|told| (told.0.clone(), told.1.clone()));
    assert_eq!(
        found,
        [
            event("orders.snapshot", Some("1"), json!({"id": 1, "status": "placed", "note": null})),
            event("orders.snapshot", Some("2"), json!({"id": 2, "status": "paid", "note": "n"})),
            event("orders.updated", Some("2"), json!({"id": 2, "status": "shipped", "note": "n"})),
        ]
    );
    // Neither the next start nor another init brings them again.
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    shop.finish(daemon);
    assert_eq!(shop.records().len(), 3);
}

/// Whoever waits for the lock sees the table as it is after the rewrite, and not as empty.
#[test]
fn a_table_that_is_rewritten_between_snapshot_and_read_has_all_its_rows() {
    let shop = shop(&many_rows());
    let (daemon, _) = stopped_in_the_middle(&shop);
    let rewriting = shop.server.session("shop");
    // It may wait for the chunk that is being read.
    let writer = thread::spawn(move || {
        rewriting.run("ALTER TABLE orders ALTER id TYPE bigint");
        for name in ["varchar(50)", "text", "varchar(60)", "text"] {
            rewriting
                .run(&format!("ALTER TABLE orders ALTER status TYPE {name} USING status || ''"));
        }
    });
    let records = go_on(&shop, daemon);
    writer.join().expect("rewritten");
    let of_requests: BTreeSet<String> = records
        .iter()
        .map(|record| record.header("correlation-id").expect("a request").to_owned())
        .collect();
    // The key has another type, and perhaps another order: all rows came again for another request.
    assert_eq!(of_requests.len(), 2);
    assert_eq!(snapshots(&records).len(), ROWS as usize);
    assert_copied(&shop, &records);
}

/// A commit record is in the log, and the stream has told it, while no snapshot shows it.
struct HeldCommit {
    writer: thread::JoinHandle<()>,
}

impl HeldCommit {
    fn begin(shop: &TableShop, sql: &str) -> Self {
        let (session, sql) = (shop.server.session("shop"), sql.to_owned());
        let writer = thread::spawn(move || {
            session.run("SET synchronous_commit = on");
            session.run(&sql);
        });
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        wait_until("a commit that waits for a standby", PATIENCE, || {
            shop.session.value(waiting).as_deref() == Some("1")
        });
        Self { writer }
    }

    fn release(self, shop: &TableShop) {
        shop.session.run("ALTER SYSTEM SET synchronous_standby_names = ''");
        shop.server.reload();
        self.writer.join().expect("committed");
    }
}

/// A server that waits for a standby which is not there, where a session wants that.
fn waiting_server() -> Server {
    Server::start_with(&[("synchronous_standby_names", "nobody"), ("synchronous_commit", "local")])
}

#[test]
fn a_commit_that_waits_for_a_standby_while_a_chunk_is_read_is_not_overtaken() {
    let shop = shop_on(waiting_server(), &many_rows());
    let (mut daemon, _) = stopped_in_the_middle(&shop);
    let update = format!("UPDATE orders SET status = 'paid' WHERE id = {ROWS}");
    let held = HeldCommit::begin(&shop, &update);
    daemon.signal(libc::SIGCONT);
    let key = ROWS.to_string();
    // All the other rows are out.
    shop.await_row_record(&mut daemon, "public.orders", "one row left of", |record| {
        record["is_at_end"] == true && record["outstanding"] == json!([{ "key": [key] }])
    });
    let early = shop.records();
    assert_eq!(snapshots(&early).len(), ROWS as usize - 1);
    let updated = early.iter().find(|record| event_type(record) == "orders.updated");
    let updated = updated.expect("the stream told it").json();
    // Which is why the row is looked for: its large value is nowhere yet.
    assert_eq!(updated["unavailable"], json!(["note"]));
    held.release(&shop);
    let records = go_on(&shop, daemon);
    let rows = snapshots(&records);
    assert_eq!((rows[&key].len(), &rows[&key][0]["status"]), (1, &json!("paid")));
    assert_copied(&shop, &records);
}

/// It waits in the socket, as rows do that were read: whatever goes out first leaves room for the
/// other.
#[test]
fn a_change_does_not_wait_until_all_rows_are_out() {
    let shop = shop(&many_rows());
    let (daemon, cursor) = stopped_in_the_middle(&shop);
    shop.session.run("UPDATE orders SET status = 'paid' WHERE id = 1");
    let records = go_on(&shop, daemon);
    let update = records.iter().find(|record| event_type(record) == "orders.updated");
    let update = update.expect("the update");
    let is_behind = |record: &&Record| {
        (record.partition, event_type(record)) == (update.partition, "orders.snapshot")
            && record.offset > update.offset
    };
    let behind = records.iter().filter(is_behind).count();
    // Of a third of those that were left, in one of three partitions.
    assert!(behind > (ROWS - cursor) as usize / 10, "only {behind} rows came behind it");
}

#[test]
fn nothing_is_read_before_a_commit_that_was_told_by_then_is_visible() {
    let shop = shop_on(waiting_server(), "INSERT INTO orders VALUES (1, 'placed', 'n')");
    init(&shop.settings);
    let held = HeldCommit::begin(&shop, "UPDATE orders SET status = 'paid'");
    let mut daemon = publishing(&shop.settings);
    daemon.wait_for("reading the table's rows waits for the end of");
    assert!(snapshots(&shop.records()).is_empty());
    held.release(&shop);
    shop.await_rows(&mut daemon, "public.orders");
    shop.finish(daemon);
    let records = shop.records();
    assert_eq!(snapshots(&records)["1"], [json!({"id": 1, "status": "paid", "note": "n"})]);
    assert_copied(&shop, &records);
}

#[test]
fn a_row_that_was_left_out_and_came_without_a_large_value_is_looked_for() {
    let shop = shop_on(waiting_server(), &many_rows());
    let (daemon, _) = stopped_in_the_middle(&shop);
    let update =
        format!("UPDATE orders SET status = 'paid' WHERE id > {} AND id % 7 = 0", ROWS - 500);
    let held = HeldCommit::begin(&shop, &update);
    daemon.signal(libc::SIGCONT);
    held.release(&shop);
    let records = go_on(&shop, daemon);
    let rows = snapshots(&records);
    assert_eq!(rows.len(), ROWS as usize);
    assert!(rows.values().all(|rows| rows.len() == 1), "doubled");
    assert_copied(&shop, &records);
}

#[test]
fn a_row_that_a_new_key_moves_behind_the_cursor_comes_under_it() {
    let shop = shop(&many_rows());
    let (daemon, cursor) = stopped_in_the_middle(&shop);
    shop.session.run(&format!("UPDATE orders SET id = -1 WHERE id = {ROWS}"));
    // One moves ahead, and one moves within what is out.
    shop.session.run(&format!("UPDATE orders SET id = {} WHERE id = {}", ROWS + 5, ROWS - 1));
    shop.session.run(&format!("UPDATE orders SET id = -2 WHERE id = {}", cursor / 2));
    let records = go_on(&shop, daemon);
    let rows = snapshots(&records);
    for key in ["-1".to_owned(), "-2".to_owned(), (ROWS + 5).to_string()] {
        assert_eq!(rows[&key].len(), 1, "{key}");
        assert!(rows[&key][0]["note"].is_string(), "{key}");
    }
    assert!(!rows.contains_key(&ROWS.to_string()));
    assert!(rows.values().all(|rows| rows.len() == 1), "doubled");
    assert_copied(&shop, &records);
}

#[test]
fn nothing_of_a_table_that_is_truncated_in_the_middle_comes_behind_that() {
    let shop = shop(&many_rows());
    let (daemon, _) = stopped_in_the_middle(&shop);
    let emptying = shop.server.session("shop");
    // It may wait for the chunk that is being read.
    let writer = thread::spawn(move || {
        emptying.run("TRUNCATE orders");
        emptying.run(&format!(
            "INSERT INTO orders SELECT n * 10, 'new', 'n' FROM generate_series(1, {ROWS}) n"
        ));
    });
    daemon.signal(libc::SIGCONT);
    writer.join().expect("truncated");
    let records = go_on(&shop, daemon);
    let truncated = records.iter().position(|record| event_type(record) == "orders.truncated");
    let behind = &records[truncated.expect("it was told")..];
    let is_old = |row: &Value| row["status"] == "placed";
    assert!(!snapshots(behind).values().flatten().any(is_old), "an old row came behind it");
    assert_copied(&shop, &records);
}

/// What was read in one order cannot be gone on with in another.
#[test]
fn all_rows_come_again_where_the_key_gets_another_column() {
    let shop = shop(&many_rows());
    let (daemon, _) = stopped_in_the_middle(&shop);
    let altering = shop.server.session("shop");
    // It may wait for the chunk that is being read.
    let writer = thread::spawn(move || {
        altering
            .run("ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (status, id)");
    });
    let records = go_on(&shop, daemon);
    writer.join().expect("altered");
    let mut by_request: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in &records {
        let request = record.header("correlation-id").expect("a request").to_owned();
        let id = record.json()["data"]["id"].to_string();
        assert!(by_request.entry(request).or_default().insert(id), "doubled");
    }
    assert_eq!(by_request.len(), 2);
    assert!(by_request.values().any(|ids| ids.len() == ROWS as usize));
}

/// Another table of that name has other rows, whatever was read of the former one.
#[test]
fn all_rows_of_a_table_that_was_dropped_and_made_anew_come() {
    let section = SECTION.replace("public.orders", "public.*");
    let shop =
        TableShop::open_with_rows(Server::start(), &format!("{ORDERS}; {}", many_rows()), &section);
    shop.session.run("CREATE PUBLICATION tailwater FOR ALL TABLES");
    let (mut daemon, _) = stopped_in_the_middle(&shop);
    let replacing = shop.server.session("shop");
    let writer = thread::spawn(move || {
        replacing.run(&format!(
            "BEGIN; DROP TABLE orders; {ORDERS}; \
             INSERT INTO orders SELECT -n, 'new', 'n' FROM generate_series(1, 50) n; COMMIT"
        ));
    });
    daemon.signal(libc::SIGCONT);
    writer.join().expect("replaced");
    let ended = daemon.wait(PATIENCE);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
    let reset = daemon::run(&["reset", "--to-slot", "--yes"], &shop.settings);
    assert_eq!(reset.code, Some(0), "{}", reset.stderr);
    daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.orders");
    shop.finish(daemon);
    let rows = snapshots(&shop.records());
    for id in 1..=50 {
        assert_eq!(rows.get(&format!("-{id}")).map(Vec::len), Some(1), "row -{id}");
    }
}

/// A checkpoint that is written by hand does not make a table an old one.
#[test]
fn rows_of_a_table_that_joined_are_due_behind_a_reset() {
    let sql = format!(
        "{ORDERS}; CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1), (2)"
    );
    let shop = TableShop::open_with_rows(Server::start(), &sql, SECTION);
    init(&shop.settings);
    shop.finish(publishing(&shop.settings));
    let items = SECTION.replace("orders", "items").replace("{source}", &shop.source);
    let settings = std::fs::read_to_string(shop.settings.path()).expect("settings");
    let shop = shop.with_settings(|_| SettingsFile::of_text(format!("{settings}\n{items}")));
    shop.session.run(
        "ALTER PUBLICATION tailwater DROP TABLE orders; ALTER PUBLICATION tailwater ADD TABLE orders, items",
    );
    let ended = daemon::run(&["run"], &shop.settings);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
    let reset = daemon::run(&["reset", "--to-now", "--yes"], &shop.settings);
    assert_eq!(reset.code, Some(0), "{}", reset.stderr);
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.items");
    shop.finish(daemon);
    let is_row = |record: &&Record| event_type(record) == "items.snapshot";
    assert_eq!(shop.records().iter().filter(is_row).count(), 2);
}

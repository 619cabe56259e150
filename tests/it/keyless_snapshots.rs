//! The rows that tables without a key have, published before the stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};
use tailwater::lsn::Lsn;

use crate::{
    snapshots::in_small_transactions,
    support::{
        PATIENCE,
        daemon::{self, Daemon, Ended},
        kafka::Record,
        let_pass,
        postgres::{Server, Session},
        scene::{init, publishing},
        settings::SettingsFile,
        table_shop::{TableShop, position},
        wait_until,
    },
};

/// A table without a key, whose changes tell whole rows, and one with a key.
const TABLES: &str = "CREATE TABLE log (n bigint, note text); ALTER TABLE log REPLICA IDENTITY FULL; \
    CREATE TABLE orders (id bigint PRIMARY KEY, status text)";

const SECTIONS: &str = "[[table]]\nname = \"public.log\"\ntopic = \"{source}.log\"\ndata = \"change\"\n\n\
    [[table]]\nname = \"public.orders\"\ntopic = \"{source}.orders\"\nsnapshot = \"never\"\n";

/// Rows of about ten kilobytes, of which many Kafka transactions are made.
const ROWS: u32 = 6_000;

fn shop(rows: &str) -> TableShop {
    shop_on(Server::start(), rows)
}

fn shop_on(server: Server, rows: &str) -> TableShop {
    in_small_transactions(TableShop::open_with_rows(server, &format!("{TABLES}; {rows}"), SECTIONS))
}

fn many_rows() -> String {
    format!("INSERT INTO log SELECT n, repeat(md5(n::text), 300) FROM generate_series(1, {ROWS}) n")
}

fn event_type(record: &Record) -> &str {
    record.header("event-type").expect("a type")
}

fn of_log(records: &[Record]) -> impl Iterator<Item = &Record> {
    records.iter().filter(|record| event_type(record).starts_with("log."))
}

fn row_lsn(record: &Record) -> Lsn {
    record.header("pg-lsn").expect("a position").parse().expect("a position")
}

/// What a consumer has that takes rows in and out, as often as each is there; and the requests that
/// rows came for. Panics where an event is there twice, or takes out what is not there.
fn copy(records: &[Record]) -> (BTreeMap<String, usize>, BTreeSet<String>) {
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    let (mut ids, mut requests) = (BTreeSet::new(), BTreeSet::new());
    let mut read_at = None;
    for record in of_log(records) {
        let event = record.json();
        assert!(record.topic.ends_with(".log"), "in topic {}: {event}", record.topic);
        assert!(ids.insert(event["id"].as_str().expect("an id").to_owned()), "doubled: {event}");
        let kind = event_type(record);
        if kind == "log.snapshot" {
            let request = event["correlationId"].as_str().expect("a request");
            if requests.insert(request.to_owned()) {
                // What a consumer drops when all rows come again.
                rows.clear();
            }
            assert_eq!(record.header("pg-seq"), None);
            assert_eq!(record.header("pg-xid"), None);
            assert!(read_at.is_none_or(|at| at <= row_lsn(record)));
            read_at = Some(row_lsn(record));
        } else {
            assert!(read_at.is_none_or(|at| at <= row_lsn(record)), "it is in the rows: {event}");
        }
        if kind == "log.truncated" {
            rows.clear();
            continue;
        }
        let data = &event["data"];
        if let Some(before) = data["before"].as_object() {
            let before = Value::from(before.clone()).to_string();
            let count = rows.get_mut(&before).unwrap_or_else(|| panic!("not there: {event}"));
            *count -= 1;
            if *count == 0 {
                rows.remove(&before);
            }
        }
        if data["after"].is_object() {
            *rows.entry(data["after"].to_string()).or_default() += 1;
        }
    }
    (rows, requests)
}

fn table(session: &Session) -> BTreeMap<String, usize> {
    let found = session.rows("SELECT to_jsonb(l)::text FROM log l");
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    for row in found {
        let text = row.into_iter().next().flatten().expect("a row");
        let row: Value = serde_json::from_str(&text).expect("JSON");
        *rows.entry(row.to_string()).or_default() += 1;
    }
    rows
}

/// The copy is the table, and rows came for so many requests.
#[track_caller]
fn assert_copied(shop: &TableShop, requests: usize) {
    let records = shop.records();
    let of_orders = records.iter().filter(|record| event_type(record).starts_with("orders."));
    let mut topics = of_orders.map(|record| record.topic.as_str());
    assert!(topics.all(|topic| topic.ends_with(".orders")), "the rows were numbered otherwise");
    let (found, asked) = copy(&records);
    let expected = table(&shop.session);
    for (row, count) in &expected {
        assert_eq!(found.get(row), Some(count), "{}", &row[..row.len().min(100)]);
    }
    assert_eq!(found.len(), expected.len());
    assert_eq!(asked.len(), requests);
    assert_in_sequence(&records);
}

/// Of each transaction the events are numbered without a gap, over all tables.
#[track_caller]
fn assert_in_sequence(records: &[Record]) {
    let mut of_transactions: BTreeMap<Lsn, Vec<u64>> = BTreeMap::new();
    for (commit_lsn, sequence) in records.iter().filter_map(position) {
        of_transactions.entry(commit_lsn).or_default().push(sequence);
    }
    for (commit_lsn, mut sequences) in of_transactions {
        sequences.sort_unstable();
        let expected: Vec<u64> = (0..sequences.len() as u64).collect();
        assert_eq!(sequences, expected, "of the transaction at {commit_lsn}");
    }
}

/// Waits until some rows are out and others are not, and stops the daemon there as a debugger does.
fn stop_in_the_middle(shop: &TableShop, daemon: &Daemon) -> u64 {
    let mut records = shop.row_records("public.log");
    loop {
        // By small steps: it is soon done.
        daemon.signal(libc::SIGSTOP);
        let record = records.newest().cloned().unwrap_or(json!({ "state": "due" }));
        if record["state"] == "running" {
            return record["rows"].as_u64().expect("a number");
        }
        assert_eq!(record["state"], "due");
        daemon.signal(libc::SIGCONT);
        let_pass(Duration::from_millis(5));
    }
}

fn started_in_the_middle(shop: &TableShop) -> (Daemon, u64) {
    init(&shop.settings);
    let daemon = Daemon::start(&shop.settings);
    let rows = stop_in_the_middle(shop, &daemon);
    (daemon, rows)
}

fn reset(shop: &TableShop, table: &str) -> Ended {
    daemon::run(&["reset", "--snapshot", table, "--yes", "--json"], &shop.settings)
}

fn checked(shop: &TableShop) -> String {
    daemon::run(&["check"], &shop.settings).stdout
}

/// An application that inserts, updates and deletes in transactions of both tables.
struct Writers {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Writers {
    fn start(shop: &TableShop) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let start = |number: u64| {
            let (session, is_over) = (shop.server.session("shop"), Arc::clone(&is_over));
            thread::spawn(move || {
                let mut written = 0;
                while !is_over.load(Ordering::Relaxed) {
                    written += 1;
                    let order = 1_000_000 * number + written;
                    session.run(&format!(
                        "BEGIN; INSERT INTO log SELECT {written}, 'w{number}' FROM \
                         generate_series(1, 3); INSERT INTO orders VALUES ({order}, 'placed'); \
                         UPDATE log SET note = note || '+' WHERE note = 'w{number}' AND n = \
                         {written} - 2; INSERT INTO log VALUES (NULL, NULL); DELETE FROM log WHERE \
                         note = 'w{number}++' AND n < {written} - 9; COMMIT"
                    ));
                }
                written
            })
        };
        Self { threads: (1..=2).map(start).collect(), is_over }
    }

    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("written")).sum()
    }
}

#[test]
fn rows_without_a_key_come_once_and_changes_go_on() {
    let shop = shop("INSERT INTO log VALUES (1, 'a'), (1, 'a'), (NULL, 'b')");
    init(&shop.settings);
    // The slot has it, and so have the rows.
    shop.session.run("INSERT INTO log VALUES (2, 'c'); UPDATE log SET note = 'd' WHERE n = 2");
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    shop.session.run("UPDATE log SET note = 'e' WHERE n IS NULL; DELETE FROM log WHERE n = 2");
    shop.finish(daemon);
    assert_copied(&shop, 1);
    let records = shop.records();
    let rows = records.iter().filter(|record| event_type(record) == "log.snapshot").count();
    assert_eq!((rows, records.len()), (4, 6));
    // The stream has passed it: nothing is left out any more, and no start reads again.
    let mut records = shop.row_records("public.log");
    wait_until("a record that leaves out nothing", PATIENCE, || {
        records
            .newest()
            .is_some_and(|record| record["state"] == "done" && record["contained"].is_null())
    });
    init(&shop.settings);
    shop.publish(&["INSERT INTO log VALUES (1, 'a')"]);
    assert_copied(&shop, 1);
    assert_eq!(shop.records().len(), 7);
}

#[test]
fn what_writers_do_meanwhile_is_in_the_rows_or_comes_behind_them() {
    let shop = shop(&many_rows());
    init(&shop.settings);
    let writers = Writers::start(&shop);
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    let_pass(Duration::from_millis(500));
    // The stream may not have passed what the rows contain.
    daemon.kill_and_restart(&shop.settings);
    daemon.wait_for("publishing");
    let_pass(Duration::from_millis(500));
    let orders = writers.end();
    shop.finish(daemon);
    assert_copied(&shop, 1);
    let records = shop.records();
    let created = records.iter().filter(|record| event_type(record) == "orders.created");
    assert_eq!(created.count() as u64, orders, "of the other table nothing is left out");
}

/// Each of them is long past the first row that is in the rows when it is killed.
#[test]
fn what_the_rows_contain_stays_left_out_over_restarts() {
    let shop = shop("");
    init(&shop.settings);
    // One transaction larger than any Kafka transaction, with rows of both tables.
    shop.session.run(
        "DO $$ BEGIN FOR n IN 1..4000 LOOP INSERT INTO log VALUES (n, repeat(md5(n::text), 30)); \
         INSERT INTO orders VALUES (n, repeat(md5(n::text), 30)); END LOOP; END $$",
    );
    let mut checkpoints = shop.watch_checkpoints();
    let mut daemon = publishing(&shop.settings);
    checkpoints.await_part(&mut daemon);
    daemon.kill_and_restart(&shop.settings);
    daemon.wait_for("publishing");
    shop.session.run("INSERT INTO log VALUES (0, 'behind')");
    shop.finish(daemon);
    assert_copied(&shop, 1);
    let records = shop.records();
    let kinds = |kind: &str| records.iter().filter(|record| event_type(record) == kind).count();
    assert_eq!((kinds("log.snapshot"), kinds("log.created")), (4_000, 1));
    assert_eq!(kinds("orders.created"), 4_000);
}

#[test]
fn rows_that_are_out_in_part_are_refused_until_a_reset() {
    let shop = shop(&many_rows());
    let (daemon, rows) = started_in_the_middle(&shop);
    assert!(rows < u64::from(ROWS), "all are out");
    daemon.kill();
    for _ in 0..2 {
        let ended = Daemon::start(&shop.settings).wait(PATIENCE);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.is_code("snapshot_interrupted"), "{}", ended.stderr);
        assert!(ended.stderr.contains("tailwater reset --snapshot public.log"), "{}", ended.stderr);
    }
    let found = checked(&shop);
    assert!(found.contains("code=snapshot_interrupted"), "{found}");
    assert!(found.contains("reset --snapshot public.log"), "{found}");
    let done = reset(&shop, "public.log");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("rows come again, under other ids"), "{}", done.stderr);
    let said: Value = serde_json::from_str(&done.stdout).expect("one line of JSON");
    assert_eq!((&said["act"], &said["state"]), (&json!("snapshot"), &json!("running")));
    assert!(said["repeated_rows"].as_u64().is_some_and(|repeated| repeated >= rows), "{said}");
    assert!(!checked(&shop).contains("snapshot_interrupted"));
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    shop.finish(daemon);
    assert_copied(&shop, 2);
}

/// Nobody can reset what is not there any more.
#[test]
fn rows_that_are_out_in_part_are_nobodys_where_the_table_is_gone() {
    let shop = shop(&many_rows());
    let (daemon, _) = started_in_the_middle(&shop);
    daemon.kill();
    shop.session.run("ALTER PUBLICATION tailwater DROP TABLE log; DROP TABLE log");
    let settings = std::fs::read_to_string(shop.settings.path()).expect("settings");
    let orders = settings.split("[[table]]").filter(|section| !section.contains("public.log"));
    let orders = orders.collect::<Vec<_>>().join("[[table]]");
    let shop = shop.with_settings(|_| SettingsFile::of_text(orders));
    assert!(!checked(&shop).contains("snapshot_interrupted"));
    let mut daemon = publishing(&shop.settings);
    daemon.wait_for("the rest of its rows will not come");
    shop.await_row_record(&mut daemon, "public.log", "an end of", |record| {
        record["state"] == "failed"
    });
    shop.finish(daemon);
}

#[test]
fn a_reset_of_a_table_that_has_no_rows_to_publish_is_refused() {
    let shop = shop("");
    for (table, words) in [("public.nothing", "no [[table]] has"), ("log", "no [[table]] has")] {
        let ended = reset(&shop, table);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.is_code("settings") && ended.stderr.contains(words), "{}", ended.stderr);
    }
    let ended = reset(&shop, "public.log");
    assert!(ended.is_code("slot_missing"), "{}", ended.stderr);
}

#[test]
fn a_reset_of_a_table_with_a_key_has_its_rows_published_again() {
    let shop = shop("INSERT INTO orders VALUES (1, 'placed'), (2, 'paid')");
    shop.publish(&["UPDATE orders SET status = 'shipped' WHERE id = 1"]);
    let done = reset(&shop, "public.orders");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.orders");
    shop.finish(daemon);
    let records = shop.records();
    let rows = records.iter().filter(|record| event_type(record) == "orders.snapshot");
    let rows: BTreeSet<String> = rows.map(|record| record.json()["data"].to_string()).collect();
    let expected = [json!({"id": 1, "status": "shipped"}), json!({"id": 2, "status": "paid"})];
    assert_eq!(rows, expected.map(|row| row.to_string()).into());
}

/// While its slot waits for an open transaction nothing is out.
#[test]
fn a_table_of_which_nothing_is_out_simply_begins_again() {
    let shop = shop("INSERT INTO log VALUES (1, 'a')");
    init(&shop.settings);
    let open = shop.server.session("shop");
    open.run("BEGIN; INSERT INTO log VALUES (2, 'open')");
    let daemon = Daemon::start(&shop.settings);
    daemon.wait_for("creating the slot waits for the end of");
    daemon.kill();
    open.run("COMMIT");
    shop.session.run("INSERT INTO log VALUES (3, 'c')");
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    shop.finish(daemon);
    assert_copied(&shop, 1);
}

/// It is in the log below the position of the rows, and no snapshot of one's own shows it.
#[test]
fn a_commit_that_waits_for_a_standby_is_in_the_rows_or_comes_behind_them() {
    let settings = [("synchronous_standby_names", "nobody"), ("synchronous_commit", "local")];
    let shop = shop_on(Server::start_with(&settings), "INSERT INTO log VALUES (1, 'a')");
    init(&shop.settings);
    let session = shop.server.session("shop");
    let writer = thread::spawn(move || {
        session.run("SET synchronous_commit = on");
        session.run("INSERT INTO log VALUES (2, 'waits')");
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_until("a commit that waits for a standby", PATIENCE, || {
        shop.session.value(waiting).as_deref() == Some("1")
    });
    let mut daemon = Daemon::start(&shop.settings);
    daemon.wait_for("reading the rows of a table without a key");
    let_pass(Duration::from_secs(1));
    shop.session.run("ALTER SYSTEM SET synchronous_standby_names = ''");
    shop.server.reload();
    writer.join().expect("committed");
    shop.await_rows(&mut daemon, "public.log");
    shop.finish(daemon);
    assert_copied(&shop, 1);
}

fn xid(session: &Session) -> String {
    session.value("SELECT pg_current_xact_id()::text").expect("an identifier")
}

/// Waits until the slot's creation waits for that transaction.
fn await_waiting_for(shop: &TableShop, xid: &str) {
    let sql = format!(
        "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted \
         AND transactionid = '{xid}'"
    );
    wait_until("the slot to wait for a transaction", PATIENCE, || {
        shop.session.value(&sql).as_deref() == Some("t")
    });
}

/// The rewrite is under way when the snapshot is made, and ends while the table's lock is waited for.
#[test]
fn a_table_that_is_rewritten_between_snapshot_and_lock_has_all_its_rows() {
    for rewrite in ["ALTER TABLE log ALTER n TYPE int", "TRUNCATE log"] {
        let shop = shop("INSERT INTO log SELECT n, 'a' FROM generate_series(1, 100) n");
        init(&shop.settings);
        let [first, second, third] = [(); 3].map(|()| shop.server.session("shop"));
        first.run("BEGIN");
        let of_first = xid(&first);
        let mut daemon = Daemon::start(&shop.settings);
        await_waiting_for(&shop, &of_first);
        second.run("BEGIN");
        let of_second = xid(&second);
        first.run("COMMIT");
        await_waiting_for(&shop, &of_second);
        third.run(&format!("BEGIN; {rewrite}"));
        second.run("COMMIT");
        let waiting = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'log'::regclass \
            AND mode = 'AccessShareLock' AND NOT granted";
        wait_until("the reader to wait for the table", PATIENCE, || {
            shop.session.value(waiting).as_deref() == Some("t")
        });
        third.run("INSERT INTO log VALUES (7, 'rewritten'); COMMIT");
        daemon.wait_for("taking another snapshot");
        shop.await_rows(&mut daemon, "public.log");
        shop.finish(daemon);
        assert_copied(&shop, 1);
    }
}

#[test]
fn what_is_altered_or_truncated_while_rows_are_read_comes_behind_them() {
    for change in [
        "ALTER TABLE log ADD COLUMN more text DEFAULT 'x'; INSERT INTO log VALUES (-1, 'new', 'y')",
        "TRUNCATE log; INSERT INTO log VALUES (-1, 'new')",
    ] {
        let shop = shop(&many_rows());
        let (mut daemon, _) = started_in_the_middle(&shop);
        let session = shop.server.session("shop");
        // It waits for the rows.
        let writer = thread::spawn(move || session.run(change));
        daemon.signal(libc::SIGCONT);
        writer.join().expect("changed");
        shop.await_rows(&mut daemon, "public.log");
        shop.finish(daemon);
        let records = shop.records();
        let behind = records.iter().skip_while(|record| event_type(record) == "log.snapshot");
        assert!(behind.clone().all(|record| event_type(record) != "log.snapshot"));
        match change.starts_with("TRUNCATE") {
            true => assert_copied(&shop, 1),
            // Rows of before have the column without anybody's having written it.
            false => assert_eq!(behind.count(), 1),
        }
    }
}

#[test]
fn a_partitioned_table_without_a_key_has_the_rows_of_its_partitions() {
    let tables = "CREATE TABLE log (n bigint, note text) PARTITION BY LIST (note); \
        CREATE TABLE log_a PARTITION OF log FOR VALUES IN ('a'); \
        CREATE TABLE log_rest PARTITION OF log DEFAULT; \
        ALTER TABLE log REPLICA IDENTITY FULL; ALTER TABLE log_a REPLICA IDENTITY FULL; \
        ALTER TABLE log_rest REPLICA IDENTITY FULL; \
        INSERT INTO log VALUES (1, 'a'), (2, 'b'), (2, 'b')";
    let section = "[[table]]\nname = \"public.log\"\ntopic = \"{source}.log\"\ndata = \"change\"\n";
    let shop = TableShop::open_with_rows(Server::start(), tables, section);
    init(&shop.settings);
    shop.session.run("INSERT INTO log VALUES (3, 'a'), (4, 'c')");
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    shop.session.run("UPDATE log SET note = 'a' WHERE n = 4; DELETE FROM log WHERE n = 1");
    shop.finish(daemon);
    assert_copied(&shop, 1);
}

#[test]
fn a_row_filter_and_a_column_list_hold_for_the_rows_too() {
    let tables = "CREATE TABLE log (n bigint, note text, secret text); \
        INSERT INTO log VALUES (1, 'a', 's'), (2, 'b', 's'), (3, 'c', 's'); \
        CREATE PUBLICATION tailwater FOR TABLE log (n, note) WHERE (n > 1) \
        WITH (publish = 'insert, update, delete, truncate')";
    let section = "[[table]]\nname = \"public.log\"\ntopic = \"{source}.log\"\n";
    let shop = TableShop::open_with_rows(Server::start(), tables, section);
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    shop.finish(daemon);
    let rows: BTreeSet<String> =
        shop.records().iter().map(|record| record.json()["data"].to_string()).collect();
    let expected = [json!({"n": 2, "note": "b"}), json!({"n": 3, "note": "c"})];
    assert_eq!(rows, expected.map(|row| row.to_string()).into());
}

/// Far more than a daemon may hold in memory.
#[test]
fn rows_of_any_number_are_read_in_little_memory() {
    let shop = shop(
        "ALTER TABLE log ALTER note SET STORAGE EXTERNAL; \
         INSERT INTO log SELECT n, repeat(md5(n::text), 300) FROM generate_series(1, 12000) n",
    );
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    // Which looks at the memory too.
    shop.finish(daemon);
    assert_copied(&shop, 1);
}

#[test]
fn rows_of_five_megabytes_are_published() {
    let shop = shop("INSERT INTO log SELECT n, repeat('x', 5000000) FROM generate_series(1, 30) n");
    let shop = shop.with_settings(|settings| {
        settings.with("[kafka]", "topic = { config = { \"max.message.bytes\" = 8000000 } }")
    });
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    shop.await_published(&mut daemon);
    // Not asked for its memory: each record of 5 MB is there several times over on its way.
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait(PATIENCE).code, Some(0));
    assert_copied(&shop, 1);
}

/// Wherever it is killed: nothing is out, or a start refuses, or all is out and the stream goes on.
#[test]
fn killed_at_any_moment_it_loses_nothing_and_doubles_nothing() {
    let (mut refused, mut went_on) = (0, 0);
    for round in 0..3 {
        let shop = shop(&many_rows());
        init(&shop.settings);
        let writers = Writers::start(&shop);
        let mut requests = 1;
        for kill in 0..2 {
            let mut daemon = Daemon::start(&shop.settings);
            let_pass(Duration::from_millis(350 * round + fastrand::u64(0..400)));
            if daemon.is_running() {
                daemon.kill_command();
            } else {
                let ended = daemon.wait(PATIENCE);
                assert!(ended.is_code("snapshot_interrupted"), "{kill}: {}", ended.stderr);
                assert_eq!(reset(&shop, "public.log").code, Some(0));
                requests += 1;
                refused += 1;
            }
        }
        let mut daemon = Daemon::start(&shop.settings);
        wait_until("it to publish or to refuse", PATIENCE, || {
            daemon.stderr().contains("\"publishing\"") || !daemon.is_running()
        });
        if !daemon.is_running() {
            assert_eq!(reset(&shop, "public.log").code, Some(0));
            requests += 1;
            refused += 1;
            daemon = publishing(&shop.settings);
        } else {
            went_on += 1;
        }
        shop.await_rows(&mut daemon, "public.log");
        let orders = writers.end();
        shop.finish(daemon);
        assert_copied(&shop, requests);
        let records = shop.records();
        let created = records.iter().filter(|record| event_type(record) == "orders.created");
        assert_eq!(created.count() as u64, orders);
    }
    eprintln!("refused {refused} times, went on {went_on} times");
    assert!(refused > 0 && went_on > 0, "refused {refused} times, went on {went_on} times");
}

#[test]
fn at_least_once_all_rows_come_and_none_under_the_id_of_another() {
    let shop = shop(&many_rows())
        .with_settings(|settings| settings.with("[kafka]", "delivery = \"at-least-once\""));
    init(&shop.settings);
    let writers = Writers::start(&shop);
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    let_pass(Duration::from_millis(300));
    writers.end();
    shop.finish(daemon);
    assert_copied(&shop, 1);
}

/// Nothing of it is published before its rows are, though the daemon was at work when it came.
#[test]
fn a_table_that_joins_by_a_pattern_has_its_rows_first() {
    let section =
        "[[table]]\nname = \"public.*\"\ntopic = \"{source}.{table}\"\ndata = \"change\"\n";
    let tables = "CREATE TABLE orders (id bigint PRIMARY KEY, status text)";
    let shop = in_small_transactions(TableShop::open_with_rows(Server::start(), tables, section));
    let mut daemon = publishing(&shop.settings);
    shop.session.run(
        "CREATE TABLE log (n bigint, note text); ALTER TABLE log REPLICA IDENTITY FULL; \
         INSERT INTO log VALUES (1, 'before'), (1, 'before')",
    );
    shop.session.run("ALTER PUBLICATION tailwater ADD TABLE log");
    shop.session.run(
        "BEGIN; INSERT INTO orders VALUES (1, 'placed'); INSERT INTO log VALUES (2, 'at once'); \
         COMMIT; UPDATE log SET note = 'later' WHERE n = 2",
    );
    shop.await_rows(&mut daemon, "public.log");
    daemon.wait_for("the rows that a table without a key has come before its changes");
    shop.session.run("INSERT INTO log VALUES (3, 'behind')");
    shop.finish(daemon);
    assert_copied(&shop, 1);
    let said = shop.records();
    assert_eq!(said.iter().filter(|record| event_type(record) == "orders.created").count(), 1);
}

/// What the slot has of it was written when it had no key.
#[test]
fn a_table_that_got_a_key_before_its_rows_were_read_is_read_beside_the_stream() {
    let shop = shop("INSERT INTO log VALUES (1, 'a')");
    init(&shop.settings);
    shop.session.run("INSERT INTO log VALUES (2, 'b')");
    shop.session.run("ALTER TABLE log ALTER n SET NOT NULL, ADD PRIMARY KEY (n)");
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    shop.session.run("UPDATE log SET note = 'c' WHERE n = 2");
    shop.finish(daemon);
    let records = shop.records();
    let kinds: Vec<&str> = of_log(&records).map(event_type).collect();
    let count = |kind: &str| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!((count("log.created"), count("log.updated")), (1, 1), "{kinds:?}");
    // The stream has told the second one, which the rows may leave out therefore.
    assert!((1..=2).contains(&count("log.snapshot")), "{kinds:?}");
}

/// A change of it is out, and its rows contain it: they can be read neither at once nor by a key.
#[test]
fn a_table_that_lost_its_key_when_changes_were_out_has_its_rows_given_up() {
    let shop = TableShop::open_with_rows(
        Server::start(),
        "CREATE TABLE first (id int PRIMARY KEY); CREATE TABLE log (n int PRIMARY KEY, note text); \
         INSERT INTO first VALUES (1); INSERT INTO log VALUES (1, 'a')",
        "[[table]]\nname = \"public.first\"\ntopic = \"{source}.first\"\n\n\
         [[table]]\nname = \"public.log\"\ntopic = \"{source}.log\"\n",
    );
    init(&shop.settings);
    // The other table's rows wait for its end, and these rows wait for those.
    let holding = shop.server.session("shop");
    holding.run("BEGIN; CREATE TEMPORARY TABLE held (n int)");
    let mut daemon = publishing(&shop.settings);
    shop.session.run("INSERT INTO log VALUES (2, 'b')");
    let is_marked = |record: &Value| record["has_events"] == true;
    shop.await_row_record(&mut daemon, "public.log", "an event of", is_marked);
    shop.session.run("ALTER TABLE log DROP CONSTRAINT log_pkey, ALTER n DROP NOT NULL");
    daemon.kill_and_restart(&shop.settings);
    daemon.wait_for("publishing");
    holding.run("COMMIT");
    let is_given_up = |record: &Value| record["state"] == "failed";
    shop.await_row_record(&mut daemon, "public.log", "giving up", is_given_up);
    shop.await_rows(&mut daemon, "public.first");
    shop.session.run("INSERT INTO log VALUES (3, 'c')");
    shop.finish(daemon);
    let records = shop.records();
    let kinds: Vec<&str> = of_log(&records).map(event_type).collect();
    assert_eq!(kinds, ["log.created"; 2]);
    // Who accepts that changes come again has the rows too.
    let done = reset(&shop, "public.log");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    shop.finish(daemon);
    let records = shop.records();
    let rows = of_log(&records).filter(|record| event_type(record) == "log.snapshot").count();
    assert_eq!(rows, 3);
}

/// The daemon's stream ends with a table that is gone by then: nothing is left to be read of it.
#[test]
fn changes_of_a_table_that_joined_and_is_gone_are_published_as_they_come() {
    let section = "[[table]]\nname = \"public.*\"\ntopic = \"{source}.log\"\ndata = \"change\"\n";
    let tables = "CREATE TABLE orders (id bigint PRIMARY KEY, status text)";
    let shop = TableShop::open_with_rows(Server::start(), tables, section);
    init(&shop.settings);
    shop.session
        .run("CREATE TABLE log (n bigint, note text); ALTER PUBLICATION tailwater ADD TABLE log");
    shop.session.run("INSERT INTO log VALUES (1, 'a'), (2, 'b')");
    shop.session.run("DROP TABLE log");
    shop.publish(&["INSERT INTO orders VALUES (1, 'placed')"]);
    let records = shop.records();
    assert_eq!(of_log(&records).map(event_type).collect::<Vec<_>>(), ["log.created"; 2]);
}

/// Nothing of it came yet: the publication's watch sees it.
#[test]
fn a_quiet_table_that_joins_by_a_pattern_has_its_rows_read_too() {
    let section = "[[table]]\nname = \"public.*\"\ntopic = \"{source}.log\"\ndata = \"change\"\n";
    let tables = "CREATE TABLE orders (id bigint PRIMARY KEY, status text)";
    let shop = TableShop::open_with_rows(Server::start(), tables, section);
    let mut daemon = publishing(&shop.settings);
    shop.session.run(
        "CREATE TABLE log (n bigint, note text); ALTER TABLE log REPLICA IDENTITY FULL; \
         INSERT INTO log VALUES (1, 'before'); ALTER PUBLICATION tailwater ADD TABLE log",
    );
    shop.await_rows(&mut daemon, "public.log");
    shop.session.run("INSERT INTO log VALUES (3, 'behind')");
    shop.finish(daemon);
    assert_copied(&shop, 1);
}

#[test]
fn without_a_free_slot_it_stops_and_says_so() {
    let shop = shop_on(
        Server::start_with(&[("max_replication_slots", "1")]),
        "INSERT INTO log VALUES (1, 'a')",
    );
    init(&shop.settings);
    let ended = Daemon::start(&shop.settings).wait(PATIENCE);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.is_code("no_free_slot"), "{}", ended.stderr);
}

#[test]
fn without_the_right_to_read_the_table_it_stops_and_says_which() {
    let shop = shop("CREATE ROLE reader LOGIN REPLICATION; INSERT INTO log VALUES (1, 'a')");
    init(&shop.settings);
    let url = shop.server.url("shop");
    let role = url.replacen("postgres@", "reader@", 1);
    assert_ne!(role, url);
    let shop = shop.with_settings(|settings| settings.replaced(&url, &role));
    let ended = Daemon::start(&shop.settings).wait(PATIENCE);
    assert!(ended.is_code("no_replication_role"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("GRANT SELECT ON \"public\".\"log\" TO \"reader\""),
        "{}",
        ended.stderr
    );
    shop.session.run("GRANT SELECT ON log TO reader");
    let mut daemon = publishing(&shop.settings);
    shop.await_rows(&mut daemon, "public.log");
    shop.finish(daemon);
    assert_copied(&shop, 1);
}

/// A row that cannot be an event stops it before anything is out; mended, it goes on.
#[test]
fn a_row_that_cannot_be_published_stops_with_nothing_out_or_becomes_a_dead_letter() {
    let rows = "INSERT INTO log VALUES (1, 'a'), (2, repeat('x', 3000)), (3, 'c')";
    let large = |shop: TableShop| {
        shop.with_settings(|settings| {
            settings.with("[kafka]", "topic = { config = { \"max.message.bytes\" = 2000 } }")
        })
    };
    let halting = large(shop(rows));
    init(&halting.settings);
    let ended = Daemon::start(&halting.settings).wait(PATIENCE);
    assert!(ended.is_code("event_too_large"), "{}", ended.stderr);
    assert!(halting.records().is_empty());
    halting.session.run("UPDATE log SET note = 'b' WHERE n = 2");
    let mut daemon = publishing(&halting.settings);
    halting.await_rows(&mut daemon, "public.log");
    halting.finish(daemon);
    assert_copied(&halting, 1);

    let lenient = large(shop(rows)).with_head("on_error = \"dead-letter\"");
    init(&lenient.settings);
    let mut daemon = publishing(&lenient.settings);
    lenient.await_rows(&mut daemon, "public.log");
    lenient.finish(daemon);
    assert_eq!((lenient.records().len(), lenient.dead_letters().len()), (2, 1));
}

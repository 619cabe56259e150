//! `tailwater snapshot`: a running daemon is asked for the rows of a table.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    snapshots::{
        ORDERS, ROWS, SECTION, assert_copied, event_type, in_small_transactions, many_rows,
        snapshots,
    },
    support::{
        PATIENCE,
        daemon::{Daemon, Ended, run, run_on_screen},
        kafka::{Broker, Record},
        let_pass,
        postgres::{Server, Session},
        scene::{Ends, init, publishing},
        settings::SettingsFile,
        table_shop::TableShop,
        wait_until,
    },
};

/// A shop whose rows come when they are asked for, and not before.
fn shop(rows: &str) -> TableShop {
    in_small_transactions(TableShop::open(&format!("{ORDERS}; {rows}"), SECTION))
}

fn snapshot(settings: &SettingsFile, arguments: &[&str]) -> Ended {
    run(&[&["snapshot"], arguments].concat(), settings)
}

#[track_caller]
fn assert_done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
}

#[track_caller]
fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(1), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.is_code("snapshot_refused"), "{}", ended.stderr);
    for words in words {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
}

/// What `--json` wrote.
fn lines(ended: &Ended) -> Vec<Value> {
    ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn request(ended: &Ended) -> String {
    let lines = lines(ended);
    lines.last().expect("a line")["request"].as_str().expect("a name").to_owned()
}

/// The rows that came for one request.
fn of_request(records: &[Record], request: &str) -> Vec<Record> {
    let is_of = |record: &&Record| {
        event_type(record) == "orders.snapshot" && record.header("correlation-id") == Some(request)
    };
    records.iter().filter(is_of).cloned().collect()
}

fn socket(settings: &SettingsFile) -> PathBuf {
    settings.folder().join("tailwater-tailwater.sock")
}

/// Says something to the socket, and returns what comes back until it is closed.
fn say(settings: &SettingsFile, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket(settings)).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    // It may have heard enough before the end.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn http(settings: &SettingsFile, method: &str, path: &str, body: &str) -> (String, Value) {
    let length = body.len();
    let answer = say(
        settings,
        format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: \
             {length}\r\n\r\n{body}"
        )
        .as_bytes(),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A transaction that is open: what is read waits for its end.
fn open_transaction(server: &Server) -> Session {
    let session = server.session("shop");
    session.run("BEGIN; CREATE TEMPORARY TABLE held (n int)");
    session
}

#[test]
fn rows_that_are_asked_for_come_once_beside_a_stream_of_changes() {
    let shop = shop(&many_rows());
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    let ends = AtomicBool::new(false);
    let (some, all) = thread::scope(|scope| {
        let writing = shop.server.session("shop");
        scope.spawn(|| {
            let session = writing;
            let mut number = 0;
            while !ends.load(Ordering::Relaxed) {
                number += 7;
                let id = number % (2 * ROWS) + 1;
                session.run(&format!(
                    "INSERT INTO orders VALUES ({id}, 'new', 'n') ON CONFLICT (id) DO UPDATE SET \
                     status = 'paid'; DELETE FROM orders WHERE id = {}",
                    id + 100
                ));
            }
        });
        let some = snapshot(&shop.settings, &["public.orders", "--where", "id % 3 = 0", "--json"]);
        let all = snapshot(&shop.settings, &["public.orders", "--json"]);
        ends.store(true, Ordering::Relaxed);
        (some, all)
    });
    assert_done(&some);
    assert_done(&all);
    assert_ne!(request(&some), request(&all));
    let last = lines(&some).pop().expect("a line");
    assert_eq!((&last["state"], &last["where"]), (&json!("done"), &json!("id % 3 = 0")));
    shop.await_rows(&mut daemon, "public.orders");
    shop.finish(daemon);
    let records = shop.records();
    let of_some = of_request(&records, &request(&some));
    assert_eq!(json!(of_some.len()), last["rows"]);
    assert!(of_some.len() > 500, "{}", of_some.len());
    let ids: BTreeSet<i64> =
        of_some.iter().map(|record| record.json()["data"]["id"].as_i64().expect("an id")).collect();
    assert_eq!(ids.len(), of_some.len(), "doubled");
    assert!(ids.iter().all(|id| id % 3 == 0));
    let of_all = of_request(&records, &request(&all));
    assert_eq!(of_all.len() + of_some.len(), snapshots(&records).values().flatten().count());
    assert_copied(&shop, &records);
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_is_followed_to_the_end() {
    let shop = shop(&many_rows());
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    let mut records = shop.row_records("public.orders");
    let following = Daemon::start_with(&["snapshot", "public.orders"], &shop.settings);
    // By small steps: it is soon done.
    wait_until("some rows to be out", PATIENCE, || {
        daemon.signal(libc::SIGSTOP);
        let state = records.newest().map(|record| record["state"].clone());
        assert_ne!(state, Some(json!("done")), "it was too fast");
        let is_running = state == Some(json!("running"));
        if !is_running {
            daemon.signal(libc::SIGCONT);
            let_pass(Duration::from_millis(3));
        }
        is_running
    });
    daemon.kill_and_restart(&shop.settings);
    let ended = following.wait(PATIENCE);
    assert_done(&ended);
    assert!(ended.stderr.contains("is accepted, as request"), "{}", ended.stderr);
    shop.await_rows(&mut daemon, "public.orders");
    shop.finish(daemon);
    let records = shop.records();
    let rows = snapshots(&records);
    assert_eq!(rows.len(), ROWS as usize);
    assert!(rows.values().all(|rows| rows.len() == 1), "doubled");
    assert_copied(&shop, &records);
}

#[test]
fn what_is_accepted_is_not_forgotten_and_the_same_is_asked_for_once() {
    let shop = shop("INSERT INTO orders SELECT n, 'placed', 'n' FROM generate_series(1, 100) n");
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    let open = open_transaction(&shop.server);
    let some = ["public.orders", "--where", "id > 50 -- the later ones"];
    let detached = [&some[..], &["--detach", "--json"]].concat();
    let first = snapshot(&shop.settings, &detached);
    // `kill -9` right after `accepted`.
    daemon.kill_and_restart(&shop.settings);
    assert_done(&first);
    let accepted = lines(&first).pop().expect("a line");
    assert_eq!(accepted["state"], "due");
    daemon.wait_for("publishing");
    let (status, mut all) = http(&shop.settings, "GET", "/snapshots", "");
    // Of this moment, and of no record.
    all["snapshots"][0]["waits_for"] = json!([]);
    assert_eq!((status.as_str(), &all["snapshots"]), ("200", &json!([accepted])));
    // The same again is the same one.
    let again = snapshot(&shop.settings, &detached);
    assert_done(&again);
    assert_eq!(request(&again), request(&first));
    let other = snapshot(&shop.settings, &["public.orders"]);
    let name = request(&first);
    let words = ["is already under way for the rows where id > 50", &name, "0 rows are out"];
    assert_refused(&other, &words);
    // Who stops following stops nothing.
    let following = Daemon::start_with(&[&["snapshot"], &some[..]].concat(), &shop.settings);
    following.wait_for("is under way already");
    following.signal(libc::SIGINT);
    let left = following.wait(PATIENCE);
    assert_done(&left);
    assert!(left.stderr.contains("stopped following: the back-fill of public.orders goes on"));
    let following = Daemon::start_with(&[&["snapshot"], &some[..]].concat(), &shop.settings);
    following.wait_for("is under way already");
    open.run("COMMIT");
    assert_done(&following.wait(PATIENCE));
    let (status, done) = http(&shop.settings, "GET", &format!("/snapshots/{name}"), "");
    assert_eq!(status, "200");
    assert_eq!((&done["state"], &done["rows"]), (&json!("done"), &json!(50)));
    // What is over can be asked for again, under another name.
    let anew = snapshot(&shop.settings, &[&some[..], &["--json"]].concat());
    assert_done(&anew);
    assert_ne!(request(&anew), name);
    shop.finish(daemon);
    assert_eq!(shop.records().len(), 100);
}

#[test]
fn for_whom_it_waits_is_told_while_it_does() {
    let shop = shop("INSERT INTO orders VALUES (1, 'placed', 'n')");
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    let open = open_transaction(&shop.server);
    let pid = open.value("SELECT pg_backend_pid()").expect("a number");
    let pid: i64 = pid.parse().expect("a number");
    let words = format!("waits for the end of the transaction of process {pid}");
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        // Of those that begin later nothing is said.
        let writing = shop.server.session("shop");
        scope.spawn(|| {
            let session = writing;
            while goes_on.load(Ordering::Relaxed) {
                session.run("BEGIN; UPDATE orders SET note = 'm'; SELECT pg_sleep(0.02); COMMIT");
            }
        });
        let _end = Ends(&goes_on);
        let following = Daemon::start_with(&["snapshot", "public.orders"], &shop.settings);
        following.wait_for(&format!("the back-fill of public.orders {words}"));
        wait_until("nobody else to be named", PATIENCE, || {
            let listed = snapshot(&shop.settings, &["--json"]);
            let last = lines(&listed).pop().expect("a line");
            let waits_for = last["waits_for"].as_array().expect("a list");
            assert_eq!(last["state"], "due");
            matches!(&**waits_for, [one] if one["pid"].as_i64() == Some(pid))
        });
        let listed = snapshot(&shop.settings, &[]);
        assert_done(&listed);
        assert!(listed.stdout.starts_with(&format!("public.orders {words}")), "{}", listed.stdout);
        open.run("COMMIT");
        assert_done(&following.wait(PATIENCE));
    });
    let listed = snapshot(&shop.settings, &["--json"]);
    let last = lines(&listed).pop().expect("a line");
    assert_eq!((&last["state"], &last["waits_for"]), (&json!("done"), &json!([])));
    shop.finish(daemon);
}

#[test]
fn at_least_once_a_request_is_accepted_with_the_next_checkpoint() {
    let shop = shop("INSERT INTO orders VALUES (1, 'placed', 'n'), (2, 'placed', 'n')");
    let shop = shop.with_settings(|file| file.with("[kafka]", "delivery = \"at-least-once\""));
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    let ended = snapshot(&shop.settings, &["public.orders", "--json"]);
    assert_done(&ended);
    let last = lines(&ended).pop().expect("a line");
    assert_eq!((&last["state"], &last["rows"]), (&json!("done"), &json!(2)));
    // What was told is on Kafka: `kill -9` takes nothing of it back.
    daemon.kill_and_restart(&shop.settings);
    shop.finish(daemon);
    assert_eq!(of_request(&shop.records(), &request(&ended)).len(), 2);
}

#[test]
fn on_a_terminal_there_is_a_bar() {
    let shop = shop(&many_rows());
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    let (ended, shown) = thread::scope(|scope| {
        // Until it is committed no row is read, and the bar has its time.
        let open = open_transaction(&shop.server);
        let running = scope.spawn(|| run_on_screen(&["snapshot", "public.orders"], &shop.settings));
        wait_until("the request to be accepted", PATIENCE, || {
            http(&shop.settings, "GET", "/snapshots", "").1["snapshots"][0]["state"] == "due"
        });
        let_pass(Duration::from_secs(2));
        open.run("COMMIT");
        running.join().expect("it ends")
    });
    assert_done(&ended);
    assert!(
        ended.stdout.contains(&format!("the back-fill of public.orders is done: {ROWS} rows")),
        "{ended:?}"
    );
    for words in ["is accepted, as request", "public.orders  0 rows  0 rows/s"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    shop.finish(daemon);
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let sections =
        format!("{SECTION}[[table]]\nname = \"public.*\"\n[[outbox]]\ntable = \"public.outbox\"\n");
    let tables = format!(
        "{ORDERS}; INSERT INTO orders SELECT n, 'placed', 'n' FROM generate_series(1, 9) n; \
         CREATE TABLE logs (line text); ALTER TABLE logs REPLICA IDENTITY FULL; \
         CREATE TABLE outbox (id uuid PRIMARY KEY, aggregate_id text, event_type text, \
             payload jsonb); \
         CREATE SCHEMA other; CREATE TABLE other.orders (id int PRIMARY KEY)"
    );
    let shop = TableShop::open(&tables, &sections);
    shop.session.run("CREATE PUBLICATION tailwater FOR TABLE logs, orders, outbox");
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    shop.session.run("CREATE TABLE late (id int PRIMARY KEY)");
    let refused = |arguments: &[&str], words: &[&str]| {
        assert_refused(&snapshot(&shop.settings, arguments), words);
    };
    refused(&["orders"], &["table name \"orders\" needs its schema"]);
    refused(&["other.orders"], &["table other.orders is no [[table]] of the daemon's settings"]);
    refused(&["public.outbox"], &["is an [[outbox]]", "tailwater init --take-over"]);
    refused(&["public.late"], &["is not in publication", "ADD TABLE \"public\".\"late\""]);
    refused(&["public.logs"], &["table public.logs has no key", "primary key"]);
    let where_ = |condition, words: &[&str]| {
        refused(&["public.orders", "--where", condition], words);
    };
    where_("id = = 5", &["syntax error at or near \"=\" (SQLSTATE 42601), at character 6"]);
    where_("staus = 'paid'", &["column \"staus\" does not exist (SQLSTATE 42703)", "character 1"]);
    where_("true) OR (true", &["syntax error", "at character 5"]);
    where_("id", &["must be type boolean"]);
    // What only a row can tell.
    let failed = snapshot(&shop.settings, &["public.orders", "--where", "10 / (id - 5) > 0"]);
    assert_refused(&failed, &["is accepted", "the back-fill of public.orders failed after"]);
    assert!(failed.stderr.contains("division by zero"), "{}", failed.stderr);
    // That is over, and the next one is not in its way.
    assert_done(&snapshot(&shop.settings, &["public.orders", "--where", "id < 5"]));
    shop.finish(daemon);
    let kinds: BTreeSet<String> =
        shop.records().iter().map(|record| event_type(record).to_owned()).collect();
    assert_eq!(kinds, ["orders.snapshot".to_owned()].into());
    // A table that nobody publishes is asked for of nobody.
    let nobody = snapshot(&shop.settings, &["public.orders"]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.is_code("not_connected"), "{}", nobody.stderr);
    let tried = socket(&shop.settings).display().to_string();
    assert!(nobody.stderr.contains(&tried), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("Is `tailwater run` running"), "{}", nobody.stderr);
    assert!(snapshot(&shop.settings, &[]).is_code("not_connected"));
    for of_a_table in [["--where", "id < 5"].as_slice(), &["--detach"]] {
        assert_eq!(snapshot(&shop.settings, of_a_table).code, Some(2), "{of_a_table:?}");
    }
}

#[test]
fn the_socket_is_the_daemons_alone_and_outlives_whatever_is_said_to_it() {
    let shop = shop("INSERT INTO orders VALUES (1, 'placed', 'n')");
    init(&shop.settings);
    let path = socket(&shop.settings);
    // As a daemon leaves it that was killed.
    drop(UnixListener::bind(&path).expect("bound"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("opened to all");
    let mut daemon = publishing(&shop.settings);
    daemon.wait_for("commands reach this daemon there");
    let found = fs::metadata(&path).expect("there");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let mut random = fastrand::Rng::with_seed(7);
    for length in [0, 1, 100, 100_000] {
        let garbage: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        say(&shop.settings, &garbage);
    }
    for (method, path, body, status, code) in [
        ("GET", "/nothing", "", "404", "not_found"),
        ("DELETE", "/snapshots", "", "404", "not_found"),
        ("GET", "/snapshots/none", "", "404", "unknown_request"),
        ("GET", "/snapshots/%ff", "", "400", "not_understood"),
        ("POST", "/snapshots", "", "400", "not_understood"),
        ("POST", "/snapshots", "[[[[[", "400", "not_understood"),
        (
            "POST",
            "/snapshots",
            "{\"table\": \"public.orders\", \"were\": \"\"}",
            "400",
            "not_understood",
        ),
        ("POST", "/snapshots", "{\"table\": \"a\\u0000.b\"}", "422", "table_name"),
        ("POST", "/snapshots", &"x".repeat(100_000), "413", "too_large"),
    ] {
        let (found, answer) = http(&shop.settings, method, path, body);
        assert_eq!(found, status, "{method} {path}: {answer}");
        assert_eq!(answer["code"].as_str().unwrap_or_default(), code, "{method} {path}");
    }
    // One that says nothing holds nobody up.
    let silent = UnixStream::connect(&path).expect("connected");
    let (status, answer) =
        http(&shop.settings, "POST", "/snapshots", "{\"table\": \"public.orders\"}");
    assert_eq!((status.as_str(), &answer["table"]), ("202", &json!("public.orders")), "{answer}");
    drop(silent);
    shop.await_rows(&mut daemon, "public.orders");
    shop.finish(daemon);
    assert!(!path.exists(), "it is removed by an orderly stop");
    // Without one all the same: what is there is not the daemon's to remove.
    fs::write(&path, "important").expect("written");
    let daemon = publishing(&shop.settings);
    daemon.wait_for("is there, and is no socket");
    shop.finish(daemon);
    assert_eq!(fs::read(&path).expect("there"), b"important");
    fs::remove_file(&path).expect("removed");
    let settings = std::fs::read_to_string(shop.settings.path()).expect("settings");
    let off = SettingsFile::of_text(format!("{settings}[admin]\nsocket = \"off\"\n"));
    let daemon = publishing(&off);
    let refused = snapshot(&off, &["public.orders"]);
    assert!(refused.is_code("not_connected"), "{}", refused.stderr);
    assert!(refused.stderr.contains("admin.socket is \"off\""), "{}", refused.stderr);
    daemon.stop();
    assert!(!socket(&off).exists());
}

#[test]
fn a_standby_leaves_the_socket_to_the_one_that_publishes_and_takes_it_over() {
    let shop = shop("INSERT INTO orders VALUES (1, 'placed', 'n')");
    init(&shop.settings);
    let leader = publishing(&shop.settings);
    leader.wait_for("commands reach this daemon there");
    let mut standby = Daemon::start(&shop.settings);
    standby.wait_for("another process listens on");
    standby.wait_for("standing by");
    assert_done(&snapshot(&shop.settings, &["public.orders"]));
    // One with a place of its own says what it is.
    let settings = std::fs::read_to_string(shop.settings.path()).expect("settings");
    let elsewhere = SettingsFile::of_text(settings);
    let other = Daemon::start(&elsewhere);
    other.wait_for("standing by");
    let refused = snapshot(&elsewhere, &["public.orders"]);
    assert_refused(&refused, &["the daemon stands by: another instance has the slot"]);
    drop(other);
    leader.kill();
    standby.wait_for("publishing");
    standby.wait_for("commands reach this daemon there");
    assert_done(&snapshot(&shop.settings, &["public.orders"]));
    shop.await_rows(&mut standby, "public.orders");
    shop.finish(standby);
    assert!(!socket(&shop.settings).exists());
    let rows = snapshots(&shop.records());
    assert_eq!(rows["1"].len(), 2, "once for each request");
}

/// Whoever asked is told, by the command and in the log. The daemon goes on, also after a restart.
#[test]
fn a_row_that_cannot_be_published_ends_the_request_alone() {
    // Behind so many of its chunk that they fill batches.
    let rows = "INSERT INTO orders SELECT n, n::text, repeat('n', 5000) FROM generate_series(1, 150) n; \
                UPDATE orders SET status = 'many' WHERE id = 149";
    let section = format!(
        "{SECTION}otherwise = \"default\"\n[[table.event]]\ntype = \"order.negative\"\n\
         when = \"int(new.status) < 0\"\n"
    );
    let shop = TableShop::open(&format!("{ORDERS}; {rows}"), &section);
    assert_ends_the_request(&shop, 149, "the text is no int");
}

/// The same where Kafka finds it out.
#[test]
fn a_row_that_is_too_large_for_its_topic_ends_the_request_alone() {
    let shop =
        shop("INSERT INTO orders VALUES (1, '1', 'n'), (2, '2', repeat('x', 3000)), (3, '3', 'n')");
    let shop = shop.with_settings(|settings| {
        settings.with("[kafka]", "topic = { config = { \"max.message.bytes\" = 2000 } }")
    });
    assert_ends_the_request(&shop, 2, "2000");
}

/// The same where it would be a dead letter, which is too large for its topic as well.
#[test]
fn a_row_whose_dead_letter_is_too_large_ends_the_request_alone() {
    let shop =
        shop("INSERT INTO orders VALUES (1, '1', 'n'), (2, '2', repeat('x', 3000)), (3, '3', 'n')");
    let limit = ("max.message.bytes", "2000");
    let shop = shop.with_head("on_error = \"dead-letter\"").with_settings(|settings| {
        settings.with("[kafka]", "topic = { config = { \"max.message.bytes\" = 2000 } }")
    });
    Broker::shared().create_topic(&format!("{}.orders.dlq", shop.source), 1, &[limit]);
    assert_ends_the_request(&shop, 2, ".orders.dlq");
}

/// Rows of both are on their way when Kafka refuses one, read at the same position of the log.
#[test]
fn a_row_that_is_too_large_ends_no_other_request() {
    let section = |name: &str| {
        format!("[[table]]\nname = \"public.{name}\"\ntopic = \"{{source}}.{name}\"\n\n")
    };
    let tables = format!(
        "{ORDERS}; CREATE TABLE items (id int PRIMARY KEY, note text); \
         INSERT INTO orders VALUES (1, 'placed', repeat('x', 3000)); \
         INSERT INTO items SELECT n, 'n' FROM generate_series(1, 100) n"
    );
    let shop = TableShop::open(&tables, &[section("orders"), section("items")].concat());
    let shop = shop.with_settings(|settings| {
        settings.with("[kafka]", "topic = { config = { \"max.message.bytes\" = 2000 } }")
    });
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    // Nothing is read before its end, so that both are asked for by then.
    let open = open_transaction(&shop.server);
    let asked = ["public.orders", "public.items"].map(|table| {
        let asked = Daemon::start_with(&["snapshot", table], &shop.settings);
        wait_until("both to be asked for", PATIENCE, || {
            let listed = snapshot(&shop.settings, &["--json"]);
            lines(&listed).iter().any(|line| line["table"] == table)
        });
        asked
    });
    open.run("COMMIT");
    let [of_orders, of_items] = asked.map(|asked| asked.wait(PATIENCE));
    assert_refused(&of_orders, &["cannot be published", "2000", "of the rows of request"]);
    assert_done(&of_items);
    shop.finish(daemon);
    let records = shop.records();
    let mut kinds: Vec<&str> = records.iter().map(event_type).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["items.snapshot"; 100]);
}

/// One row cannot be published, and the reason has these words.
#[track_caller]
fn assert_ends_the_request(shop: &TableShop, id: u32, words: &str) {
    let count = shop.session.value("SELECT count(*) FROM orders").expect("a value");
    let others: usize = count.parse::<usize>().expect("a number") - 1;
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    assert_refused(&snapshot(&shop.settings, &["public.orders"]), &["cannot be published", words]);
    daemon.wait_for("are not all published");
    let condition = format!("id <> {id}");
    let asked = snapshot(&shop.settings, &["public.orders", "--where", &condition, "--json"]);
    assert_done(&asked);
    let listed = snapshot(&shop.settings, &["--json"]);
    assert_done(&listed);
    assert_eq!(lines(&listed).last(), lines(&asked).last());
    let listed = snapshot(&shop.settings, &[]);
    assert_done(&listed);
    let first = format!("public.orders is done; {others} rows are out\n");
    assert!(listed.stdout.contains(&first), "{listed:?}");
    daemon.kill_and_restart(&shop.settings);
    daemon.wait_for("publishing");
    shop.session.run("INSERT INTO orders VALUES (1000, '4', 'n')");
    assert_done(&snapshot(&shop.settings, &["public.orders", "--where", "id = 1000"]));
    shop.finish(daemon);
    let records = shop.records();
    let count = |kind: &str| records.iter().filter(|record| event_type(record) == kind).count();
    assert_eq!(of_request(&records, &request(&asked)).len(), others);
    assert_eq!((count("orders.snapshot"), count("orders.created")), (others + 1, 1));
}

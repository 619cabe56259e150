//! `tailwater tail`: what it shows, whom it waits for, and that it leaves nothing behind.

use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::{FromRawFd, OwnedFd},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::support::{
    PATIENCE,
    daemon::run,
    kafka::Broker,
    let_pass,
    oracle::event_schema,
    postgres::{Server, Session},
    process::{self, Words},
    scene::{self, TOPICS, publishing, shop, wait_until_published},
    settings::SettingsFile,
    wait_until,
    workload::Workload,
};

const PUBLICATION: &str = "CREATE PUBLICATION tailwater FOR TABLE outbox_events \
                           WITH (publish = 'insert')";

/// `tailwater tail`, with what it shows. Killed when dropped.
pub struct Tail {
    child: Child,
    shown: Words,
    said: Words,
}

impl Tail {
    fn start(arguments: &[&str], settings: &SettingsFile) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        command.arg("tail").args(arguments).arg("-c").arg(settings.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(command);
        let shown = Words::of(child.stdout.take().expect("a pipe"));
        let said = Words::of(child.stderr.take().expect("a pipe"));
        Self { child, shown, said }
    }

    /// One that shows what is committed from here on.
    pub fn showing(arguments: &[&str], settings: &SettingsFile) -> Self {
        let tail = Self::start(arguments, settings);
        tail.wait_until_it_says("showing");
        tail
    }

    fn wait_until_it_says(&self, text: &str) {
        wait_until(&format!("\"{text}\" on stderr"), PATIENCE, || {
            self.said.so_far().contains(text)
        });
    }

    /// The lines on standard output, once there are so many.
    pub fn lines(&self, count: usize) -> Vec<String> {
        let whole = || self.shown.so_far().matches('\n').count();
        wait_until(&format!("{count} lines"), PATIENCE, || whole() >= count);
        self.shown.so_far().lines().map(str::to_owned).collect()
    }

    /// Ends it by a signal; what it said.
    pub fn end(mut self, signal: i32) -> String {
        process::signal(self.child.id(), signal);
        let code = process::wait(&mut self.child, Duration::from_secs(5));
        let said = self.said.until_end();
        assert_eq!(code, Some(0), "{said}");
        said
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if self.child.try_wait().expect("a child can be waited for").is_none() {
            process::kill_family(&mut self.child);
        }
    }
}

/// A file without a word of Kafka, for a role that may do nothing but replicate.
fn settings(server: &Server, outbox: &str) -> SettingsFile {
    SettingsFile::of_text(format!(
        "source = \"order-service\"\n\n[postgres]\n\
         url = \"postgres://watcher@127.0.0.1:{}/shop\"\n\n{outbox}",
        server.port()
    ))
}

const OUTBOX: &str = "[[outbox]]\ntable = \"public.outbox_events\"\n";

/// A shop with a publication, and a role that may replicate and see nothing.
fn published_shop(server: &Server) -> Session {
    let session = shop(server);
    session.run(&format!("CREATE ROLE watcher LOGIN REPLICATION; {PUBLICATION}"));
    session
}

fn insert(session: &Session, key: &str, payload: &str) {
    session.run(&format!(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
         VALUES (gen_random_uuid(), '{key}', 'order.placed', '{payload}', now())"
    ));
}

fn slots(session: &Session) -> String {
    session.value("SELECT count(*) FROM pg_replication_slots").expect("a count")
}

fn wait_until_no_slot_is_left(session: &Session) {
    wait_until("no slot to be left", PATIENCE, || slots(session) == "0");
}

#[test]
fn events_are_shown_within_a_second_and_no_slot_is_left_behind() {
    let server = Server::start();
    let session = published_shop(&server);
    let settings = settings(&server, OUTBOX);
    let schema = event_schema();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        insert(&session, "before", "{}");
        let tail = Tail::showing(&["--json"], &settings);
        assert_eq!(slots(&session), "1");
        let mut fastest = Duration::MAX;
        for number in 1..=5 {
            let began = Instant::now();
            insert(&session, "order-7", &format!("{{\"number\": {number}.10}}"));
            let lines = tail.lines(number);
            fastest = fastest.min(began.elapsed());
            let [.., last] = lines.as_slice() else { panic!("{lines:?}") };
            assert_eq!(lines.len(), number, "{lines:?}");
            let event: Json = serde_json::from_str(last).expect("one envelope a line");
            schema.validate(&event).expect("an event");
            assert!(last.ends_with(&format!("\"data\":{{\"number\": {number}.10}}}}")), "{last}");
        }
        // The machine may be busy; five times in a row is no chance.
        assert!(fastest < Duration::from_secs(1), "{fastest:?}");
        tail.end(signal);
        wait_until_no_slot_is_left(&session);
    }
    let mut tail = Tail::showing(&["--json"], &settings);
    assert_eq!(slots(&session), "1");
    process::kill_family(&mut tail.child);
    wait_until_no_slot_is_left(&session);
}

/// From 17 on there is one more bound.
#[test]
fn a_roles_bound_on_transactions_is_not_meant_for_a_tail() {
    let server = Server::start_version(18);
    let session = published_shop(&server);
    session.run("ALTER ROLE watcher SET transaction_timeout = '1s'");
    let settings = settings(&server, &format!("{OUTBOX}\n[log]\nfilter = \"info\"\n"));
    let writer = server.session("postgres");
    writer.run("BEGIN; CREATE TABLE unfinished ()");
    let tail = Tail::start(&["--json"], &settings);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'watcher' \
                   AND now() - query_start > interval '3s' AND state = 'active'";
    wait_until("a wait that outlasts the bound", PATIENCE, || {
        let said = tail.said.so_far();
        assert!(!said.contains("trying again"), "{said}");
        session.value(waiting).as_deref() == Some("1")
    });
    writer.run("COMMIT");
    tail.wait_until_it_says("showing");
    insert(&session, "order-1", "{}");
    tail.lines(1);
    tail.end(libc::SIGINT);
}

#[test]
fn a_tail_names_whom_its_slot_waits_for_and_goes_on_by_itself() {
    let server = Server::start_with(&[("max_prepared_transactions", "1")]);
    let session = published_shop(&server);
    // A role's bounds on its statements are not meant for this wait.
    session.run("ALTER ROLE watcher SET statement_timeout = '2s'");
    session.run("ALTER ROLE watcher SET lock_timeout = '2s'");
    // Nor is a quiet log: who waits would take it for no events.
    let settings = settings(&server, &format!("{OUTBOX}\n[log]\nfilter = \"warn\"\n"));
    let writer = server.session("postgres");
    let pid = writer.value("SELECT pg_backend_pid()").expect("a process");
    writer.run("BEGIN; CREATE TABLE unfinished ()");

    let began = Instant::now();
    let tail = Tail::start(&["--json"], &settings);
    tail.wait_until_it_says(&format!("waits for the end of the transaction of process {pid}"));
    let told = began.elapsed();
    assert!(told < Duration::from_secs(3), "{told:?}");
    assert!(!tail.said.so_far().contains("showing"));
    // Longer than that role's statements may take.
    wait_until("it to be said again", PATIENCE, || {
        tail.said.so_far().matches(&format!("process {pid}")).count() >= 2
    });
    writer.run("COMMIT");
    tail.wait_until_it_says("showing");
    insert(&session, "order-1", "{}");
    tail.lines(1);
    tail.end(libc::SIGINT);
    wait_until_no_slot_is_left(&session);

    writer.run("BEGIN; CREATE TABLE prepared (); PREPARE TRANSACTION 'transfer-7'");
    let tail = Tail::start(&["--json"], &settings);
    tail.wait_until_it_says("the prepared transaction");
    assert!(tail.said.so_far().contains("transfer-7"), "{}", tail.said.so_far());
    // The server must notice by itself that nobody waits for the slot any more.
    assert_eq!(slots(&session), "1");
    tail.end(libc::SIGINT);
    wait_until_no_slot_is_left(&session);
    let mut tail = Tail::start(&["--json"], &settings);
    tail.wait_until_it_says("the prepared transaction");
    process::kill_family(&mut tail.child);
    wait_until_no_slot_is_left(&session);
    writer.run("ROLLBACK PREPARED 'transfer-7'");
}

#[test]
fn a_tail_without_publication_says_the_sql_that_makes_it() {
    let server = Server::start();
    let session = shop(&server);
    session.run("CREATE ROLE watcher LOGIN REPLICATION; CREATE TABLE second (LIKE outbox_events)");
    let both = format!("{OUTBOX}\n[[outbox]]\ntable = \"public.second\"\n");
    let settings = settings(&server, &both);
    let sql = |ended: &str| {
        let hint =
            ended.lines().last().and_then(|line| line.strip_prefix("hint: Run ")).expect("a hint");
        hint.split_once(" as the owner").expect("SQL").0.to_owned()
    };
    let ended = run(&["tail"], &settings);
    assert!(ended.code == Some(1) && ended.is_code("publication_missing"), "{}", ended.stderr);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    let printed = run(&["init", "--print-sql"], &settings);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    assert!(printed.stdout.contains(&sql(&ended.stderr)), "{}", printed.stdout);
    session.run(&sql(&ended.stderr));
    let tail = Tail::showing(&[], &settings);
    tail.end(libc::SIGINT);

    session.run("ALTER PUBLICATION tailwater DROP TABLE second");
    let ended = run(&["tail"], &settings);
    assert!(ended.is_code("publication_missing"), "{}", ended.stderr);
    assert!(ended.stderr.contains("lacks table public.second"), "{}", ended.stderr);
    session.run(&sql(&ended.stderr));
    Tail::showing(&[], &settings).end(libc::SIGINT);
    wait_until_no_slot_is_left(&session);
}

/// The daemon loses nothing and doubles nothing, and both see the same events.
#[test]
fn a_tail_beside_a_daemon_shows_what_that_publishes() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = scene::envelope_settings(&server, &broker);
    let daemon = publishing(&settings);
    let tail = Tail::showing(&["--json"], &settings);
    let rows = 2_000;
    Workload::default().run(&server.url("shop"), rows);
    wait_until_published(&session, "tailwater");
    let published: BTreeSet<String> = TOPICS
        .iter()
        .flat_map(|topic| broker.read_committed(topic))
        .map(|record| String::from_utf8(record.value.expect("a value")).expect("UTF-8"))
        .collect();
    let shown = tail.lines(published.len());
    assert_eq!(shown.len(), published.len());
    let shown: BTreeSet<String> = shown.into_iter().collect();
    let other = shown.symmetric_difference(&published).next();
    assert!(other.is_none(), "only one of the two has {other:?}");
    assert!(published.len() as u64 >= rows);
    tail.end(libc::SIGTERM);
    scene::stop(daemon);
    scene::judge(&broker, &session, crate::support::oracle::Value::Envelope);
    assert_eq!(slots(&session), "1", "the daemon's is left");
}

#[test]
fn every_payload_form_is_shown_as_an_envelope() {
    let server = Server::start();
    let session = published_shop(&server);
    session.run(
        "CREATE TABLE raw (id uuid, aggregateid text, aggregatetype text, type text, payload json); \
         CREATE TABLE envelopes (LIKE outbox_events); ALTER TABLE envelopes ALTER payload TYPE json; \
         ALTER PUBLICATION tailwater ADD TABLE raw, envelopes",
    );
    let settings = settings(
        &server,
        &format!(
            "{OUTBOX}\n[[outbox]]\ntable = \"public.raw\"\nlayout = \"debezium\"\n\n[[outbox]]\n\
             table = \"public.envelopes\"\npayload = \"envelope\"\n\n[[message]]\nprefix = \"outbox\"\n"
        ),
    );
    let (json, readable) = (Tail::showing(&["--json"], &settings), Tail::showing(&[], &settings));
    insert(&session, "order-1", "{\"form\": \"data\"}");
    session.run(
        "INSERT INTO raw VALUES (gen_random_uuid(), 'order-2', 'Order', 'order.placed', \
         E'{\\n\"form\": \"bare\"}'), (gen_random_uuid(), NULL, 'Order', 'order.gone', NULL)",
    );
    session.run(
        "WITH new AS (SELECT gen_random_uuid() AS id) INSERT INTO envelopes \
         (id, aggregate_id, event_type, payload) SELECT id, 'order-3', 'order.placed', \
         ('{\"id\": \"' || id || E'\",\\n\"type\": \"order.placed\", \"data\": [\"envelope\"]}')::json \
         FROM new",
    );
    session.run(
        "SELECT pg_logical_emit_message(true, 'outbox', \
         '{\"type\": \"invoice.issued\", \"data\": \"message\"}')",
    );
    let schema = event_schema();
    let lines = json.lines(5);
    let data: Vec<Json> = lines
        .iter()
        .map(|line| {
            let event: Json = serde_json::from_str(line).expect("one envelope a line");
            schema.validate(&event).expect("an event");
            event["data"].clone()
        })
        .collect();
    let form = |name: &str| serde_json::json!({ "form": name });
    let envelope = serde_json::json!(["envelope"]);
    assert_eq!(data, [form("data"), form("bare"), Json::Null, envelope, "message".into()]);

    let shown = readable.lines(10);
    let pairs: Vec<(&str, &str)> =
        shown.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    for ((head, data), (expected_head, expected_data)) in pairs.into_iter().zip([
        ("  order.placed  order-1  order.events  ", "  {\"form\": \"data\"}"),
        ("  order.placed  order-2  outbox.event.Order  ", "  { \"form\": \"bare\"}"),
        ("  order.gone  no key  outbox.event.Order  ", "  null"),
        ("  order.placed  order-3  order.events  ", "  [\"envelope\"]"),
        ("  invoice.issued  no key  invoice.events  ", "  \"message\""),
    ]) {
        assert!(head.contains(expected_head), "{head}");
        assert_eq!(data, expected_data);
        assert!(!head.contains('\x1b'), "no terminal, no colours: {head:?}");
    }
    json.end(libc::SIGINT);
    readable.end(libc::SIGINT);
}

#[test]
fn what_cannot_be_an_event_is_said_and_what_follows_is_shown() {
    let server = Server::start();
    let session = published_shop(&server);
    let settings = settings(&server, OUTBOX);
    let tail = Tail::showing(&["--json"], &settings);
    session.run(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) VALUES \
         (gen_random_uuid(), 'order-1', NULL, '{}'), (gen_random_uuid(), 'order-1', 'order.paid', '{}')",
    );
    insert(&session, "order-2", "{}");
    let lines = tail.lines(2);
    assert!(lines.len() == 2 && lines[0].contains("order.paid"), "{lines:?}");
    let said = tail.end(libc::SIGINT);
    assert!(said.contains("this is no event") && said.contains("event_type"), "{said}");
    assert!(said.contains("public.outbox_events"), "{said}");
}

#[test]
fn a_tail_ends_quietly_when_nobody_reads_it_any_more() {
    let server = Server::start();
    let session = published_shop(&server);
    let settings = settings(&server, OUTBOX);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
    command.args(["tail", "--json", "-c"]).arg(settings.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process::spawn(command);
    let stdout = child.stdout.take().expect("a pipe");
    let mut said = Words::of(child.stderr.take().expect("a pipe"));
    wait_until("it to show", PATIENCE, || said.so_far().contains("showing"));
    // Nothing is ever written: who waits for a write would wait for ever.
    drop(stdout);
    assert_eq!(process::wait(&mut child, PATIENCE), Some(0), "{}", said.so_far());
    let said = said.until_end();
    assert!(!said.contains("error"), "{said}");
    wait_until_no_slot_is_left(&session);
}

/// A pager that nobody scrolls: what does not fit into the pipe waits on the server.
#[test]
fn a_reader_that_takes_its_time_loses_nothing_and_holds_up_no_stop() {
    let server = Server::start();
    let session = published_shop(&server);
    let settings = settings(&server, OUTBOX);
    for is_read in [true, false] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        command.args(["tail", "--json", "-c"]).arg(settings.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(command);
        let stdout = child.stdout.take().expect("a pipe");
        let said = Words::of(child.stderr.take().expect("a pipe"));
        wait_until("it to show", PATIENCE, || said.so_far().contains("showing"));
        let rows = 40_000;
        session.run(&format!(
            "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) \
             SELECT gen_random_uuid(), 'order-' || n, 'order.placed', \
             jsonb_build_object('filler', repeat('x', 1000)) FROM generate_series(1, {rows}) n"
        ));
        // The server has more to send than all buffers in between take.
        let sent = "SELECT sent_lsn FROM pg_stat_replication WHERE sent_lsn < pg_current_wal_lsn()";
        let mut before = None;
        wait_until("the server to send no more", PATIENCE, || {
            let_pass(Duration::from_millis(500));
            let now = session.value(sent);
            now.is_some() && std::mem::replace(&mut before, now.clone()) == now
        });
        let bytes = process::resident_bytes_peak(child.id());
        assert!((1..64 << 20).contains(&bytes), "{bytes} bytes are resident");
        if is_read {
            let shown = Words::of(stdout);
            let lines = || shown.so_far().matches('\n').count();
            wait_until("each event", PATIENCE, || lines() >= rows);
            process::signal(child.id(), libc::SIGTERM);
            assert_eq!(process::wait(&mut child, Duration::from_secs(5)), Some(0));
            assert_eq!(lines(), rows);
        } else {
            process::signal(child.id(), libc::SIGTERM);
            let code = process::wait(&mut child, Duration::from_secs(5));
            assert_eq!(code, Some(0), "{}", said.so_far());
            drop(stdout);
        }
        wait_until_no_slot_is_left(&session);
    }
}

/// What was committed meanwhile would not be shown: it must not go on as if nothing had happened.
#[test]
fn a_tail_whose_server_went_away_says_so() {
    let server = Server::start();
    let session = published_shop(&server);
    let mut tail = Tail::showing(&[], &settings(&server, OUTBOX));
    // It says that it shows what comes before all of it is under way.
    insert(&session, "order-1", "{}");
    tail.lines(1);
    server.kill();
    let code = process::wait(&mut tail.child, PATIENCE);
    let said = tail.said.until_end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: could not") && said.contains("\nhint: "), "{said}");
}

/// A terminal of so many columns: what a program writes to, and what it shows.
fn terminal(columns: u16) -> (Stdio, File) {
    let (mut shown, mut written) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: two places for descriptors, no name, the terminal's own modes, a size.
    let opened = unsafe {
        libc::openpty(
            &raw mut shown,
            &raw mut written,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(opened, 0, "a terminal");
    // SAFETY: both were just opened, and nobody else has them.
    unsafe { (Stdio::from(OwnedFd::from_raw_fd(written)), File::from_raw_fd(shown)) }
}

#[test]
fn a_terminal_gets_colours_and_data_as_wide_as_it_is() {
    let server = Server::start();
    let session = published_shop(&server);
    let settings = settings(&server, OUTBOX);
    let long = format!("{{\"long\": \"{}\"}}", "x".repeat(200));
    for (arguments, is_whole) in [(vec!["tail"], false), (vec!["tail", "--full"], true)] {
        let (stdout, shown) = terminal(60);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        command.args(arguments).arg("-c").arg(settings.path()).env("TERM", "xterm");
        command.env_remove("NO_COLOR");
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = process::spawn(command);
        let said = Words::of(child.stderr.take().expect("a pipe"));
        let shown = Words::of(shown);
        wait_until("it to show", PATIENCE, || said.so_far().contains("showing"));
        insert(&session, "order-1", &long);
        wait_until("an event", PATIENCE, || shown.so_far().matches('\n').count() >= 2);
        let text = shown.so_far();
        let data = text.lines().nth(1).expect("its data").trim_end_matches('\r');
        assert!(text.contains("\x1b[32morder.placed\x1b[0m"), "{text:?}");
        assert_eq!(data.contains(&long), is_whole, "{data}");
        if !is_whole {
            assert!(data.chars().count() == 60 && data.ends_with('…'), "{data}");
        }
        process::signal(child.id(), libc::SIGINT);
        assert_eq!(process::wait(&mut child, Duration::from_secs(5)), Some(0));
    }
}

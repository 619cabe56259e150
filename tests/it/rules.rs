//! Rules of domain tables: which are refused before anything is published, with their places and what
//! mends them, and what becomes of a change for which one has no answer.

use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    daemon::{self, Daemon, Ended},
    kafka::{Broker, Record},
    postgres::{Server, Session},
    prescription::run_sql,
    scene::{init, publishing, stop, wait_until_published},
    settings::SettingsFile,
};

/// A database with orders, settings with rules for them, and a connection.
struct Shop {
    _server: Server,
    session: Session,
    settings: SettingsFile,
    source: String,
}

impl Shop {
    /// Settings with these sections; `{source}` in topics keeps tests apart.
    fn open(head: &str, sections: &str) -> Self {
        let server = Server::start();
        let session = server.create_database("shop");
        session.run(
            "CREATE TABLE orders (id int PRIMARY KEY, status text, quantity int, payload jsonb)",
        );
        let source = format!("source-{:08x}", fastrand::u32(..));
        let (url, brokers) = (server.url("shop"), Broker::shared().brokers());
        let settings = SettingsFile::of_text(format!(
            "source = \"{source}\"\n{head}\n[postgres]\nurl = \"{url}\"\n\n[kafka]\nbrokers = \
             \"{brokers}\"\ncheckpoint_topic = \"{source}.checkpoints\"\n\n[[table]]\nname = \
             \"public.orders\"\ntopic = \"{source}.events\"\nsnapshot = \"never\"\n\n{sections}"
        ));
        Self { _server: server, session, settings, source }
    }

    /// With one rule of that condition.
    fn with_condition(when: &str) -> Self {
        Self::open("", &format!("[[table.event]]\ntype = \"order.told\"\nwhen = {when}\n"))
    }

    fn records(&self, topic: &str) -> Vec<Record> {
        Broker::shared().read_committed(&format!("{}.{topic}", self.source))
    }

    fn made(&self) -> Option<String> {
        self.session.value(
            "SELECT (SELECT count(*) FROM pg_publication) || ' ' || \
             (SELECT count(*) FROM pg_replication_slots)",
        )
    }

    /// The finding that is to be mended, as `check` tells it.
    fn wrong_finding(&self) -> Option<Value> {
        let ended = daemon::run(&["check", "--json"], &self.settings);
        let findings: Vec<Value> = serde_json::from_str(&ended.stdout).expect("JSON");
        let mut wrong: Vec<Value> =
            findings.into_iter().filter(|finding| finding["ok"] == json!(false)).collect();
        assert!(wrong.len() <= 1, "{wrong:#?}");
        assert_eq!(ended.code, Some(i32::from(!wrong.is_empty())));
        wrong.pop()
    }
}

#[track_caller]
fn assert_said(ended: &Ended, code: &str, what: &str) {
    assert!(ended.is_code(code) && ended.stderr.contains(what), "{}", ended.stderr);
}

#[test]
fn a_rule_that_does_not_fit_is_refused_at_its_place_by_every_command() {
    for (when, code, what) in [
        (
            "\"new.quantity > 1 && new.status > 7\"",
            "settings",
            "rule \"order.told\", when, line 1, column 32: > cannot be applied to string and int",
        ),
        (
            "\"\"\"\nnew.id > 0\n  && new.stauts == 'paid'\"\"\"",
            "column_missing",
            "line 2, column 6: column \"stauts\" does not exist or is not published",
        ),
        (
            "\"new.status == 'paid' && old.status != 'paid'\"",
            "replica_identity",
            "line 1, column 25: an UPDATE or DELETE does not carry the old value of column \"status\"",
        ),
    ] {
        let shop = Shop::with_condition(when);
        for command in [&["run"][..], &["init"], &["schema"]] {
            assert_said(&daemon::run(command, &shop.settings), code, what);
        }
        assert_eq!(shop.made().as_deref(), Some("0 0"), "{when}");
        let finding = shop.wrong_finding().expect("a finding");
        let detail = finding["detail"].as_str().expect("a text");
        assert!(detail.contains(what) && detail.ends_with(&format!(" code={code}")), "{detail}");
        assert_eq!(finding["name"], "columns");
    }
}

#[test]
fn what_check_prints_for_an_old_value_makes_the_rule_fit() {
    let shop = Shop::with_condition("\"old.status != 'paid' && new.status == 'paid'\"");
    let finding = shop.wrong_finding().expect("a finding");
    let fix = finding["fix"].as_str().expect("SQL");
    assert!(fix.starts_with("ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL;"), "{fix}");
    run_sql(&shop.session, fix);
    assert_eq!(shop.wrong_finding(), None);
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    shop.session.run("INSERT INTO orders VALUES (1, 'placed'); UPDATE orders SET status = 'paid'");
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(shop.records("events").len(), 1);
    // Without it again: what was written so far is decoded with it, what comes is refused.
    shop.session.run("ALTER TABLE orders REPLICA IDENTITY DEFAULT");
    assert_said(&daemon::run(&["run"], &shop.settings), "replica_identity", "line 1, column 1");
}

#[test]
fn an_expression_that_is_no_cel_is_a_mistake_of_the_file_at_its_line() {
    let shop = Shop::with_condition("\"new.status == \"");
    let text = std::fs::read_to_string(shop.settings.path()).expect("the file");
    let line = 1 + text.lines().position(|line| line.starts_with("when")).expect("a line");
    for command in ["run", "init", "check", "schema"] {
        let ended = daemon::run(&[command], &shop.settings);
        assert_said(&ended, "settings", &format!("line {line}"));
        assert!(ended.stderr.contains("table.event.when"), "{}", ended.stderr);
        assert_eq!(ended.code, Some(2));
    }
    assert_eq!(shop.made().as_deref(), Some("0 0"));
}

/// A member that a row does not have: known by the row only.
const ASKING: &str = "[[table.event]]\ntype = \"order.vip\"\nwhen = \"new.payload.vip\"\n\n\
                      [[table.event]]\ntype = \"order.seen\"\nwhen = \"op == 'insert'\"\n";

const ROWS: &str = "INSERT INTO orders VALUES (1, 'placed', 1, '{\"vip\": true}'), \
                    (2, 'placed', 1, '{}'), (3, 'placed', 1, '{\"vip\": false}')";

const NO_ANSWER: &str = "rule \"order.vip\", when, line 1, column 12: there is no member \"vip\"";

fn types(records: &[Record]) -> Vec<(&str, &str)> {
    let of = |record| {
        let record: &Record = record;
        let [event_type, sequence] = ["event-type", "pg-seq"].map(|name| record.header(name));
        (event_type.unwrap_or("-"), sequence.expect("a place"))
    };
    let mut types: Vec<_> = records.iter().map(of).collect();
    types.sort_unstable_by_key(|(_, sequence)| *sequence);
    types
}

#[test]
fn a_rule_without_an_answer_stops_before_its_transaction() {
    let shop = Shop::open("", ASKING);
    let daemon = publishing(&shop.settings);
    shop.session.run("INSERT INTO orders VALUES (0, 'placed', 1, '{\"vip\": false}')");
    shop.session.run(ROWS);
    let ended = Daemon::wait(daemon, PATIENCE);
    assert_said(&ended, "event_unmappable", NO_ANSWER);
    assert!(ended.stderr.contains("a row of \"public.orders\" (id \"2\")"), "{}", ended.stderr);
    assert_eq!(types(&shop.records("events")), [("order.seen", "0")]);
    // A condition that asks first holds for what waits too.
    let settings = shop.settings.replaced(
        "when = \"new.payload.vip\"",
        "when = \"has(new.payload.vip) && new.payload.vip\"",
    );
    let daemon = publishing(&settings);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    let records = Broker::shared().read_committed(&format!("{}.events", shop.source));
    assert_eq!(records.len(), 5);
}

#[test]
fn a_rule_without_an_answer_is_a_dead_letter_in_its_place() {
    let shop = Shop::open("on_error = \"dead-letter\"", ASKING);
    let daemon = publishing(&shop.settings);
    shop.session.run(ROWS);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    let events = shop.records("events");
    assert_eq!(
        types(&events),
        [("order.vip", "0"), ("order.seen", "1"), ("order.seen", "3"), ("order.seen", "4")]
    );
    let dead = shop.records("events.dlq");
    assert_eq!(types(&dead), [("-", "2")]);
    let letter = &dead[0];
    let reason = letter.header("failure-reason").expect("a reason");
    assert!(reason.contains(NO_ANSWER), "{reason}");
    assert_eq!(letter.header("failure-stage"), Some("map"));
    assert_eq!(letter.key.as_deref(), Some(&b"2"[..]));
}

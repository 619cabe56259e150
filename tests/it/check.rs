//! What `tailwater check` finds: each defect alone, and what it prints mends it; nothing where nothing
//! is wrong; and asking changes nothing.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value as Json;
use tailwater::postgres::replication::Connection;

use crate::{
    hosts::follow,
    refusals::{self, Shop, insert},
    support::{
        PATIENCE, daemon,
        kafka::Broker,
        postgres::{Server, Session},
        prescription::{run_commands, run_psql, run_sql},
        reader::high_watermarks,
        scene::{init, publishing, shop, stop, wait_until_published},
        settings::SettingsFile,
        wait_until,
    },
    tls::{self, on_runtime},
};

/// What an unreachable server may take: 30 s, and a last question to Kafka.
const GIVEN_UP_MAX: Duration = Duration::from_secs(36);

const README: &str = include_str!("../../README.md");

const CHECKPOINTS: &str = "__tailwater_checkpoints";

/// All findings, and the exit code.
pub fn check(settings: &SettingsFile) -> (Option<i32>, Vec<Json>) {
    let ended = daemon::run(&["check", "--json"], settings);
    let findings: Vec<Json> = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr));
    for finding in &findings {
        let fields: Vec<&str> =
            finding.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["ok", "name", "detail", "fix"], "{finding}");
        assert_eq!(finding["ok"] == false, finding["fix"].is_string(), "{finding}");
        let name = finding["name"].as_str().expect("a text");
        assert!(README.contains(&format!("`{name}`")), "README.md does not list {name}");
    }
    (ended.code, findings)
}

#[track_caller]
pub fn assert_healthy(settings: &SettingsFile) -> Vec<Json> {
    let (code, findings) = check(settings);
    let wrong: Vec<&Json> = findings.iter().filter(|finding| finding["ok"] == false).collect();
    assert!(wrong.is_empty() && code == Some(0), "{code:?} {wrong:#?}");
    findings
}

/// The one thing that is wrong, under its name and with its code; returns what mends it.
#[track_caller]
pub fn diagnose(settings: &SettingsFile, name: &str, code: &str) -> String {
    let (exit, findings) = check(settings);
    let wrong: Vec<&Json> = findings.iter().filter(|finding| finding["ok"] == false).collect();
    let [finding] = wrong.as_slice() else { panic!("{name}: {wrong:#?} of {findings:#?}") };
    assert_eq!((exit, finding["name"].as_str()), (Some(1), Some(name)), "{finding}");
    let detail = finding["detail"].as_str().expect("a text");
    let said = detail.rsplit_once(" code=").map_or("", |(_, code)| code);
    assert_eq!(said, code, "{finding}");
    finding["fix"].as_str().expect("a fix").to_owned()
}

pub fn note_of(findings: &[Json], name: &str) -> String {
    let found = findings.iter().find(|finding| finding["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {findings:#?}"));
    found["detail"].as_str().expect("a text").to_owned()
}

/// A defect of the database, prepared by SQL; what is printed mends it, run by `healer`.
#[track_caller]
fn cured_by_sql(
    settings: &SettingsFile,
    (superuser, defect): (&Session, &str),
    (name, code): (&str, &str),
    healer: &Session,
) {
    run_sql(superuser, defect);
    run_sql(healer, &diagnose(settings, name, code));
    assert_healthy(settings);
}

/// What a printed line of settings says, put in the place of another one.
fn with_line(settings: SettingsFile, former: &str, fix: &str) -> SettingsFile {
    let line = fix.split_once("write ").expect("a line").1;
    let line = line.split_once(" under ").expect("its section").0;
    settings.replaced(former, line)
}

/// A database whose daemon has a role of its own, with just the rights that a first start needs.
struct Ward {
    server: Server,
    superuser: Session,
    role: Session,
    settings: SettingsFile,
}

impl Ward {
    fn open() -> Self {
        Self::on(Server::start())
    }

    fn on(server: Server) -> Self {
        let superuser = shop(&server);
        run_sql(
            &superuser,
            "CREATE ROLE tailwater LOGIN REPLICATION; GRANT CREATE ON DATABASE shop TO tailwater; \
             GRANT CREATE ON SCHEMA public TO tailwater; \
             ALTER TABLE outbox_events OWNER TO tailwater",
        );
        let settings = refusals::settings(&server, Broker::shared())
            .replaced("postgres://postgres@", "postgres://tailwater@");
        let url = server.url("shop").replace("postgres@", "tailwater@");
        let role = Session::open(&url).expect("a connection");
        Self { server, superuser, role, settings }
    }

    fn text(&self) -> String {
        fs::read_to_string(self.settings.path()).expect("settings")
    }

    /// The same settings in a file of their own.
    fn settings(&self) -> SettingsFile {
        SettingsFile::of_text(self.text())
    }
}

#[test]
fn before_init_nothing_is_wrong_and_nothing_is_made() {
    let ward = Ward::open();
    let findings = assert_healthy(&ward.settings);
    assert!(note_of(&findings, "slot").contains("run and init make it"));
    assert!(note_of(&findings, "publication").contains("run and init make it"));
    assert!(note_of(&findings, "role").contains("tailwater may replicate"));
    for catalog in ["pg_publication", "pg_replication_slots"] {
        let count = ward.superuser.value(&format!("SELECT count(*) FROM {catalog}"));
        assert_eq!(count.as_deref(), Some("0"), "{catalog}");
    }
    let blocker = ward.server.session("shop");
    blocker.run("BEGIN; INSERT INTO audit_log (what) VALUES ('open')");
    let findings = assert_healthy(&ward.settings);
    assert!(note_of(&findings, "open_transaction").contains("waits for the transaction"));
    let words = daemon::run(&["check"], &ward.settings).stdout;
    assert!(words.contains("ok    wal_level") && words.contains("note  slot"), "{words}");
    assert!(words.trim_end().lines().last().is_some_and(|it| it.contains(" 0 to mend")), "{words}");
    assert!(!words.contains('\u{1b}'), "no colour but on a terminal: {words}");
}

/// Also where brokers make a topic for whoever asks for it.
#[test]
fn no_topic_is_made_where_the_brokers_make_each_that_is_asked_for() {
    let (server, broker) =
        (Server::start(), Broker::start_with("auto.create.topics.enable=true\n"));
    let _session = shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop")
        .replaced("source =", "on_error = \"dead-letter\"\nsource =")
        .replaced(
            "[[outbox]]",
            "[[message]]\nprefix = \"outbox\"\ntopic = \"sales\"\n\n[[outbox]]",
        );
    assert_healthy(&settings);
    let asked = daemon::run(&["status"], &settings);
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
    // Kafka's own comes with the trial of an id.
    let topics = || -> Vec<String> {
        broker.topics().into_iter().filter(|name| name != "__transaction_state").collect()
    };
    assert!(topics().is_empty(), "{:?}", topics());
    let producer: BaseProducer = broker.client().create().expect("a producer");
    producer.send(BaseRecord::<str, str>::to("asked").payload("x")).expect("queued");
    producer.flush(PATIENCE).expect("sent");
    assert_eq!(topics(), ["asked"], "they do make them");
}

#[test]
fn defects_of_role_and_tables_are_found_alone_and_mended_as_printed() {
    let ward = Ward::open();
    let Ward { superuser, role, settings, .. } = &ward;
    let by_superuser = |defect, name, code| {
        cured_by_sql(settings, (superuser, defect), (name, code), superuser);
    };
    let mistaken = ward.settings().replaced("/shop\"", "/shopp\"");
    assert!(diagnose(&mistaken, "postgres", "settings").contains("postgres.url"));
    ward.server.admit("host all tailwater 127.0.0.1/32 scram-sha-256");
    assert!(diagnose(settings, "postgres", "auth_failed").contains("postgres.password_file"));
    ward.server.admit("host all all 127.0.0.1/32 trust");
    assert_healthy(settings);
    let stranger = ward.settings().replaced("tailwater@", "stranger@");
    run_sql(superuser, &diagnose(&stranger, "postgres", "auth_failed"));
    superuser.run("GRANT tailwater TO stranger");
    assert_healthy(&stranger);
    by_superuser("ALTER ROLE tailwater NOREPLICATION", "role", "no_replication_role");
    by_superuser(
        "REVOKE CREATE ON DATABASE shop FROM tailwater",
        "publication",
        "no_replication_role",
    );
    superuser.run("DROP PUBLICATION tailwater; ALTER TABLE outbox_events OWNER TO postgres");
    superuser.run("GRANT CREATE ON DATABASE shop TO tailwater");
    by_superuser("SELECT 1", "publication", "no_replication_role");
    superuser.run("DROP PUBLICATION tailwater; ALTER TABLE outbox_events OWNER TO tailwater");

    let misspelt = ward.settings().replaced("public.outbox_events", "public.outbox_event");
    let fix = diagnose(&misspelt, "outbox", "settings");
    assert_healthy(&with_line(misspelt, "table = \"public.outbox_event\"", &fix));
    let absent = ward
        .settings()
        .replaced("public.outbox_events", "billing.ledger")
        .with("[[outbox]]", "columns = { payload = \"Body\", version = \"schema\" }");
    run_sql(superuser, "CREATE SCHEMA billing AUTHORIZATION tailwater");
    run_sql(role, &diagnose(&absent, "outbox", "settings"));
    assert_healthy(&absent);
    by_superuser("ALTER TABLE outbox_events SET UNLOGGED", "outbox", "settings");

    let renamed =
        ward.settings().with("[[outbox]]", "columns = { payload = \"body\", id = \"number\" }");
    superuser.run("ALTER TABLE outbox_events ADD number bigint");
    let fix = diagnose(&renamed, "columns", "column_missing");
    assert!(fix.starts_with("write columns = { payload = \"<the column that has it>\" }"), "{fix}");
    run_sql(role, fix.split_once("such a column: ").expect("SQL").1);
    assert_healthy(&renamed);
    let misspelt = ward.settings().with("[[outbox]]", "columns = { payload = \"paylod\" }");
    let fix = diagnose(&misspelt, "columns", "column_missing");
    assert_healthy(&with_line(misspelt, "columns = { payload = \"paylod\" }", &fix));
    cured_by_sql(
        &renamed,
        (superuser, "ALTER TABLE outbox_events DROP body, ADD body int"),
        ("columns", "column_missing"),
        role,
    );
}

#[test]
fn defects_of_a_publication_are_found_alone_and_mended_as_printed() {
    let ward = Ward::open();
    let Ward { superuser, role, settings, .. } = &ward;
    let by_role = |defect, name, code| {
        role.run("DROP PUBLICATION IF EXISTS tailwater");
        cured_by_sql(settings, (role, defect), (name, code), role);
    };
    by_role(
        "CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'update')",
        "publication",
        "publication_gap",
    );
    by_role(
        "CREATE PUBLICATION tailwater FOR TABLE outbox_events WHERE (status = 'x') \
         WITH (publish = 'insert')",
        "row_filter",
        "",
    );
    by_role(
        "CREATE PUBLICATION tailwater FOR TABLE outbox_events (id, aggregate_id, event_type) \
         WITH (publish = 'insert')",
        "columns",
        "column_missing",
    );
    role.run("ALTER TABLE outbox_events DROP CONSTRAINT outbox_events_pkey");
    by_role("CREATE PUBLICATION tailwater FOR TABLE outbox_events", "replica_identity", "");
    superuser.run("ALTER TABLE orders OWNER TO tailwater");
    by_role("CREATE PUBLICATION tailwater FOR TABLE outbox_events, orders", "replica_identity", "");

    // A publication of somebody else's, which ours is not in yet.
    role.run("DROP PUBLICATION tailwater");
    cured_by_sql(
        settings,
        (superuser, "CREATE PUBLICATION tailwater WITH (publish = 'insert')"),
        ("publication", "no_replication_role"),
        superuser,
    );

    superuser.run("DROP PUBLICATION tailwater; DROP TABLE outbox_events");
    role.run(
        "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload jsonb, \
             created_at timestamptz) PARTITION BY RANGE (created_at);
         CREATE TABLE outbox_all PARTITION OF outbox_events DEFAULT",
    );
    by_role(
        "CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'insert')",
        "publication",
        "publication_gap",
    );
    let partition = ward.settings().replaced("public.outbox_events", "public.outbox_all");
    let fix = diagnose(&partition, "publication", "publication_gap");
    assert_healthy(&with_line(partition, "table = \"public.outbox_all\"", &fix));
}

/// Where the checkpoint holds the table already, what was left out is lost to its slot.
#[test]
fn a_row_filter_that_was_published_by_takes_a_reset() {
    let ward = Ward::open();
    let Ward { role, .. } = &ward;
    role.run(
        "CREATE PUBLICATION tailwater FOR TABLE outbox_events WHERE (status = 'x') \
         WITH (publish = 'insert')",
    );
    let settings = ward.settings();
    init(&settings);
    let fix = diagnose(&settings, "row_filter", "");
    assert!(fix.contains("the next start is refused"), "{fix}");
    run_sql(role, &fix);
    let fix = diagnose(&settings, "publication", "publication_gap");
    assert!(is_reset_as_told(&settings, role, &fix), "{fix}");
    assert_healthy(&settings);
}

#[test]
fn defects_of_slot_and_checkpoint_are_found_alone_and_mended_as_printed() {
    // From 17 on there is more to a slot.
    for ward in [Ward::open(), Ward::on(Server::start_version(18))] {
        cure_slot_and_checkpoint(&ward);
    }
}

fn cure_slot_and_checkpoint(ward: &Ward) {
    let Ward { superuser, role, .. } = ward;
    let settings = ward.settings();
    // Where only the topic is another one, what is printed must not drop the slot with what it holds.
    role.run("SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')");
    let fix = diagnose(&settings, "checkpoint", "checkpoint_missing");
    let (words, comment) = fix.split_once(" -- ").expect("a comment");
    assert!(words.starts_with("check kafka.brokers and kafka.checkpoint_topic"), "{fix}");
    assert!(words.ends_with("tailwater init --adopt-slot") && !words.contains("SELECT"), "{fix}");
    run_sql(role, comment.split_once("what it holds: ").expect("the last way").1);
    assert_healthy(&settings);
    init(&settings);
    let findings = assert_healthy(&settings);
    assert!(note_of(&findings, "slot").contains("free to be taken"));
    let daemon = publishing(&settings);
    let findings = assert_healthy(&settings);
    assert!(note_of(&findings, "slot").contains("run would stand by"));
    insert(superuser, 3);
    wait_until_published(superuser, "tailwater");
    // Who was fenced would go on by itself, having said so.
    let said = daemon.stderr();
    for sign in ["gave up our transaction", "starting over"] {
        assert!(!said.contains(sign), "{said}");
    }
    stop(daemon);

    // Another outbox, which the publication lacks.
    role.run("CREATE TABLE more_events (LIKE outbox_events INCLUDING ALL)");
    let more = SettingsFile::of_text(format!(
        "{}\n[[outbox]]\ntable = \"public.more_events\"\ntopic = \"{}.more\"\n",
        ward.text(),
        ward.text().split('"').nth(1).expect("the source")
    ));
    run_sql(role, &diagnose(&more, "publication", "publication_gap"));
    assert_healthy(&more);

    let foreign = ward.settings().replaced("source = \"", "source = \"other-");
    let fix = diagnose(&foreign, "checkpoint", "foreign_slot");
    let source = fix.split_once("set source = \"").expect("the source").1;
    let source = source.split_once('"').expect("its end").0;
    assert_healthy(&foreign.replaced(&format!("other-{source}"), source));

    // The same source under another slot: run starts no second pipeline, init does.
    let second = settings.with("[postgres]", "slot = \"second\"");
    let fix = diagnose(&second, "checkpoint", "identity_changed");
    assert!(fix.contains("run tailwater init"), "{fix}");
    init(&second);
    assert_healthy(&second);

    let mut serial = 2;
    let mut settings = second;
    for (defect, name, code) in [
        (
            "SELECT pg_replication_slot_advance('SLOT', pg_current_wal_lsn())",
            "checkpoint",
            "checkpoint_behind_slot",
        ),
        ("SELECT pg_drop_replication_slot('SLOT')", "slot", "slot_missing"),
        ("ALTER PUBLICATION tailwater DROP TABLE outbox_events", "publication", "publication_gap"),
        (
            "BEGIN; CREATE TABLE fresh (LIKE outbox_events INCLUDING ALL); DROP TABLE \
             outbox_events; ALTER TABLE fresh RENAME TO outbox_events; \
             ALTER PUBLICATION tailwater ADD TABLE outbox_events; COMMIT",
            "publication",
            "publication_gap",
        ),
        ("DROP PUBLICATION tailwater", "publication", "publication_missing"),
    ] {
        let slot = slot_of(&settings);
        insert(superuser, 1);
        run_sql(role, &defect.replace("SLOT", &slot));
        let fix = diagnose(&settings, name, code);
        if !is_reset_as_told(&settings, role, &fix) {
            assert!(
                fix.contains("another postgres.slot") && fix.contains("tailwater init"),
                "{fix}"
            );
            serial += 1;
            let (from, to) = (format!("slot = \"{slot}\""), format!("slot = \"slot_{serial}\""));
            settings = settings.replaced(&from, &to);
            init(&settings);
        }
        assert_healthy(&settings);
    }
    for foreign in [
        "SELECT pg_create_physical_replication_slot('foreign_slot')",
        "SELECT pg_create_logical_replication_slot('foreign_slot', 'test_decoding')",
    ] {
        role.run(foreign);
        let slot = slot_of(&settings);
        let renamed = SettingsFile::of_text(fs::read_to_string(settings.path()).expect("settings"))
            .replaced(&format!("slot = \"{slot}\""), "slot = \"foreign_slot\"");
        let fix = diagnose(&renamed, "slot", "slot_wrong_plugin");
        assert!(fix.contains("Set another postgres.slot"), "{fix}");
        assert_healthy(&renamed.replaced("foreign_slot", &slot));
        role.run("SELECT pg_drop_replication_slot('foreign_slot')");
    }
}

/// Does what a fix says where it names a reset: the SQL before it, then the first that it names.
fn is_reset_as_told(settings: &SettingsFile, role: &Session, fix: &str) -> bool {
    let Some((before, after)) = fix.split_once("tailwater reset ") else { return false };
    if let Some((_, sql)) = before.split_once("Run ") {
        let ends = ["; then", "; or tailwater init"].map(|end| sql.find(end).unwrap_or(sql.len()));
        run_sql(role, &sql[..ends.into_iter().min().unwrap_or(sql.len())]);
    }
    let way = after.split(|letter: char| !letter.is_ascii_lowercase() && letter != '-').next();
    let ended = daemon::run(&["reset", way.expect("a way"), "--yes"], settings);
    assert_eq!(ended.code, Some(0), "{fix}: {}", ended.stderr);
    true
}

fn slot_of(settings: &SettingsFile) -> String {
    let text = fs::read_to_string(settings.path()).expect("settings");
    let line = text.lines().find_map(|line| line.strip_prefix("slot = "));
    line.map_or("tailwater".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Sets what only counts after a restart, and mends it as printed.
fn cured_by_restart(shop: &Shop, defect: &str, name: &str, code: &str) {
    for text in [defect.to_owned(), String::new()] {
        let text = match text.is_empty() {
            true => diagnose(&shop.settings, name, code),
            false => text,
        };
        run_sql(&shop.server.session("shop"), &text);
        shop.server.restart();
    }
    assert_healthy(&shop.settings);
}

#[test]
fn defects_of_the_server_are_found_alone_and_mended_as_printed() {
    let shop = Shop::open_with(&[("wal_sender_timeout", "1s")]);
    let findings = assert_healthy(&shop.settings);
    // Each connection of ours asks for its own.
    assert!(note_of(&findings, "wal_sender_timeout").starts_with("1min"), "{findings:#?}");
    cured_by_restart(&shop, "ALTER SYSTEM SET wal_level = 'replica'", "wal_level", "wal_level");
    for senders in ["0", "1"] {
        let defect = format!("ALTER SYSTEM SET max_wal_senders = {senders}");
        cured_by_restart(&shop, &defect, "wal_senders", "");
    }
    shop.server.session("shop").run("SELECT pg_create_physical_replication_slot('standby')");
    cured_by_restart(&shop, "ALTER SYSTEM SET max_replication_slots = 1", "slot", "no_free_slot");
    let session = shop.server.session("shop");
    run_sql(
        &session,
        "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'; SELECT pg_reload_conf()",
    );
    wait_for_setting(&shop.server, "synchronous_standby_names", "ANY 1 (*)");
    // Nobody is there to be named, and to wait for nobody is the operator's to say.
    let fix = diagnose(&shop.settings, "synchronous_standby_names", "");
    assert!(fix.starts_with("write the names of the standbys") && !fix.contains("ALTER"), "{fix}");
    run_sql(
        &session,
        "ALTER SYSTEM SET synchronous_standby_names = 's1, tailwater'; SELECT pg_reload_conf()",
    );
    wait_for_setting(&shop.server, "synchronous_standby_names", "s1, tailwater");
    let fix = diagnose(&shop.settings, "synchronous_standby_names", "");
    let parameter = fix.split_whitespace().find(|word| word.contains('=')).expect("a parameter");
    let shop = shop
        .with_settings(|settings| settings.replaced("/shop\"", &format!("/shop?{parameter}\"")));
    assert_healthy(&shop.settings);
}

/// What is printed for `*` must neither have commits hang nor have them wait for nobody.
#[test]
fn a_quorum_of_everybody_is_mended_to_what_the_standbys_can_fill() {
    let shop = Shop::open();
    let standby = Server::start();
    follow(&shop.server, &standby, "s1");
    let session = shop.server.session("shop");
    wait_until("the standby", PATIENCE, || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 's1' \
                   AND state = 'streaming'";
        session.value(sql).as_deref() == Some("1")
    });
    // A base backup, which ends by itself, is there too, and fills no place of the quorum.
    let mut of_backup = tls::settings(&shop.server.url("shop"));
    of_backup.application_name = "pg_basebackup".to_owned();
    let backup = on_runtime(Connection::connect(&of_backup)).expect("a connection");
    run_sql(
        &session,
        "ALTER SYSTEM SET synchronous_standby_names = 'ANY 2 (*)'; SELECT pg_reload_conf()",
    );
    wait_for_setting(&shop.server, "synchronous_standby_names", "ANY 2 (*)");
    let fix = diagnose(&shop.settings, "synchronous_standby_names", "");
    assert!(fix.contains("-- commits waited for 2, and 1 is connected"), "{fix}");
    run_sql(&session, &fix);
    wait_for_setting(&shop.server, "synchronous_standby_names", "ANY 1 (\"s1\")");
    assert_healthy(&shop.settings);
    drop(backup);
    // It commits, by the standby's word.
    session.run("SET statement_timeout = '20s'");
    insert(&session, 1);
}

fn wait_for_setting(server: &Server, name: &str, value: &str) {
    wait_until(name, PATIENCE, || {
        server.session("shop").value(&format!("SHOW {name}")).as_deref() == Some(value)
    });
}

#[test]
fn a_slot_that_is_about_to_be_lost_is_found_and_mended_and_so_is_a_lost_one() {
    let shop = Shop::open_with(&[("max_slot_wal_keep_size", "48MB")]);
    init(&shop.settings);
    let findings = assert_healthy(&shop.settings);
    assert!(note_of(&findings, "retained_wal").contains("MiB are left"));
    let write_segment = || {
        shop.session
            .run("SELECT pg_logical_emit_message(false, 'filler', 'x'); SELECT pg_switch_wal()");
    };
    let left = "SELECT safe_wal_size < 9 * 1048576 FROM pg_replication_slots";
    wait_until("the slot to hold much", PATIENCE, || {
        write_segment();
        shop.session.value(left).as_deref() == Some("t")
    });
    let fix = diagnose(&shop.settings, "retained_wal", "");
    run_sql(&shop.session, &fix);
    wait_for_setting(&shop.server, "max_slot_wal_keep_size", "192MB");
    assert_healthy(&shop.settings);
    run_sql(
        &shop.session,
        "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; SELECT pg_reload_conf()",
    );
    wait_until("the slot to be lost", PATIENCE, || {
        write_segment();
        shop.session.run("CHECKPOINT");
        shop.session.value("SELECT wal_status = 'lost' FROM pg_replication_slots").as_deref()
            == Some("t")
    });
    let fix = diagnose(&shop.settings, "slot", "slot_invalidated");
    assert!(fix.contains("Raise max_slot_wal_keep_size"), "{fix}");
    run_sql(
        &shop.session,
        "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'; SELECT pg_reload_conf()",
    );
    let drop = fix.split_once("and run ").expect("SQL").1.split_once(". ").expect("its end").0;
    run_sql(&shop.session, drop);
    let shop = shop.with_settings(|settings| settings.with("[postgres]", "slot = \"second\""));
    init(&shop.settings);
    assert_healthy(&shop.settings);
}

#[test]
fn a_slot_that_holds_more_than_the_settings_say_is_found() {
    let shop = Shop::open();
    let shop =
        shop.with_settings(|settings| settings.with("[postgres]", "retained_wal_max = \"16MiB\""));
    init(&shop.settings);
    assert_healthy(&shop.settings);
    run_sql(
        &shop.session,
        "INSERT INTO audit_log (what) SELECT repeat('x', 1000) FROM generate_series(1, 30000)",
    );
    let fix = diagnose(&shop.settings, "retained_wal", "");
    assert!(fix.starts_with("start the daemon"), "{fix}");
    let daemon = publishing(&shop.settings);
    let held = "SELECT pg_current_wal_lsn() - restart_lsn < 16777216 FROM pg_replication_slots";
    wait_until("the log to be let go", PATIENCE, || {
        shop.session.run("CHECKPOINT");
        shop.session.value(held).as_deref() == Some("t")
    });
    assert_healthy(&shop.settings);
    stop(daemon);
}

#[test]
fn a_slot_that_no_standby_keeps_is_found_and_mended_as_printed() {
    let server = Server::start_version(18);
    let session = shop(&server);
    let settings = refusals::settings(&server, Broker::shared());
    let without = SettingsFile::of_text(fs::read_to_string(settings.path()).expect("settings"))
        .with("[postgres]", "failover = false");
    init(&without);
    assert_healthy(&without);
    run_psql(&diagnose(&settings, "failover", ""));
    let findings = assert_healthy(&settings);
    assert!(note_of(&findings, "failover").contains("survives a failover"));
    // Of a standby that is not waited for it is told.
    session.run("SELECT pg_create_physical_replication_slot('standby')");
    let findings = assert_healthy(&settings);
    assert!(note_of(&findings, "failover").contains("synchronized_standby_slots"));
}

#[test]
fn a_restored_server_and_a_standby_are_found() {
    let shop = refusals::restored(200);
    shop.server.restart();
    let fix = diagnose(&shop.settings, "checkpoint", "checkpoint_ahead");
    let shop = shop.reconnected();
    assert!(is_reset_as_told(&shop.settings, &shop.session, &fix), "{fix}");
    assert_healthy(&shop.settings);
    shop.server.stop();
    fs::write(shop.server.data_folder().join("standby.signal"), "").expect("written");
    shop.server.restart();
    let fix = diagnose(&shop.settings, "primary", "");
    assert!(fix.contains("name the primary in postgres.url"), "{fix}");
    let session = shop.server.session("shop");
    session.run("SELECT pg_promote()");
    wait_until("the promotion", PATIENCE, || {
        session.value("SELECT pg_is_in_recovery()").as_deref() == Some("f")
    });
    assert_healthy(&shop.settings);
}

#[test]
fn a_pipeline_of_messages_alone_is_healthy_before_and_after_init() {
    let ward = Ward::open();
    let text = ward.text();
    let sections = text.split("[[outbox]]").next().expect("what is before it");
    let settings = SettingsFile::of_text(format!("{sections}[[message]]\nprefix = \"outbox\"\n"));
    assert_healthy(&settings);
    init(&settings);
    let findings = assert_healthy(&settings);
    assert!(note_of(&findings, "publication").contains("publish = 'insert'"), "{findings:#?}");
    ward.role.run("DROP PUBLICATION tailwater");
    let fix = diagnose(&settings, "publication", "publication_missing");
    assert!(is_reset_as_told(&settings, &ward.role, &fix), "{fix}");
    assert_healthy(&settings);
}

#[test]
fn defects_of_domain_tables_are_found_alone_and_mended_as_printed() {
    let ward = Ward::open();
    run_sql(
        &ward.role,
        "CREATE TABLE notes (text text); CREATE TABLE order_lines (id int PRIMARY KEY, note text)",
    );
    let text = ward.text();
    let (head, _) = text.split_once("[[outbox]]").expect("a section");
    let section = |name: &str, lines: &str| {
        let topic = format!("source-{:08x}.{{table}}", fastrand::u32(..));
        SettingsFile::of_text(format!(
            "{head}[[table]]\nname = \"public.{name}\"\ntopic = \"{topic}\"\n{lines}\n"
        ))
    };
    let notes = section("notes", "");
    let fix = diagnose(&notes, "replica_identity", "replica_identity");
    run_sql(&ward.role, &fix);
    assert_healthy(&notes);
    // What a pattern matches, before there is a publication and with one.
    let lines = section("order_*", "key = [\"number\"]");
    diagnose(&lines, "columns", "column_missing");
    run_sql(
        &ward.role,
        "CREATE PUBLICATION tailwater FOR TABLE order_lines WITH (publish_via_partition_root = true)",
    );
    diagnose(&lines, "columns", "column_missing");
    let lines = lines.replaced("key = [\"number\"]", "key = [\"note\"]");
    run_sql(&ward.role, &diagnose(&lines, "replica_identity", "replica_identity"));
    assert_healthy(&lines);
    // With a publication, it is the application that suffers, and no start that stops.
    let defect = "ALTER TABLE order_lines DROP CONSTRAINT order_lines_pkey; \
                  ALTER TABLE order_lines REPLICA IDENTITY DEFAULT";
    let plain = lines.replaced("key = [\"note\"]", "");
    cured_by_sql(&plain, (&ward.role, defect), ("replica_identity", ""), &ward.role);
}

#[test]
fn an_encoding_that_messages_cannot_have_is_found() {
    let server = Server::start();
    server
        .session("postgres")
        .run("CREATE DATABASE latin ENCODING LATIN1 LOCALE \"C\" TEMPLATE template0");
    let settings = refusals::settings(&server, Broker::shared()).replaced("/shop\"", "/latin\"");
    crate::support::workload::create_tables(&server.session("latin"));
    assert_healthy(&settings);
    let text = fs::read_to_string(settings.path()).expect("settings");
    let messages = SettingsFile::of_text(format!("{text}\n[[message]]\nprefix = \"outbox\"\n"));
    let fix = diagnose(&messages, "encoding", "settings");
    assert!(fix.contains("outbox table"), "{fix}");
}

#[test]
fn a_checkpoint_that_an_open_transaction_may_hide_is_a_note() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop");
    init(&settings);
    let other = another_pipeline(&broker);
    write_checkpoint(&other);
    let note = note_of(&assert_healthy(&settings), "checkpoint");
    assert!(note.contains("another pipeline's open transaction"), "{note}");
    // What it may hold counts as held: what was left out meanwhile is lost to its slot.
    let [filter, leave_out] =
        ["SET TABLE outbox_events WHERE (event_type = 'x')", "DROP TABLE outbox_events"]
            .map(|change| format!("ALTER PUBLICATION tailwater {change}"));
    session.run(&filter);
    let fix = diagnose(&settings, "row_filter", "");
    assert!(fix.contains("the next start is refused"), "{fix}");
    session.run(&leave_out);
    let fix = diagnose(&settings, "publication", "publication_gap");
    assert!(fix.contains("If rows of public.outbox_events were published before"), "{fix}");
    other.abort_transaction(PATIENCE).expect("aborted");
}

#[test]
fn a_busy_pipeline_hides_no_checkpoint_of_another_one() {
    let (server, broker) = (Server::start(), Broker::start());
    let _session = shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop");
    init(&settings);
    let other = another_pipeline(&broker);
    thread::scope(|scope| {
        let checks = scope.spawn(|| {
            for _ in 0..5 {
                let note = note_of(&assert_healthy(&settings), "checkpoint");
                assert!(note.contains(", written "), "{note}");
            }
        });
        // Nearly always there is one that is open.
        while !checks.is_finished() {
            write_checkpoint(&other);
            thread::park_timeout(Duration::from_millis(50));
            other.commit_transaction(PATIENCE).expect("committed");
        }
    });
}

/// What writes checkpoints of its own to the topic.
fn another_pipeline(broker: &Broker) -> BaseProducer {
    let mut config = broker.client();
    config.set("transactional.id", "another pipeline");
    // Not ended by the brokers while it is looked at.
    config.set("transaction.timeout.ms", "600000");
    let other: BaseProducer = config.create().expect("a producer");
    other.init_transactions(PATIENCE).expect("initialised");
    other
}

/// Leaves its transaction open.
fn write_checkpoint(pipeline: &BaseProducer) {
    pipeline.begin_transaction().expect("begun");
    pipeline.send(BaseRecord::to(CHECKPOINTS).key("x").payload("{}")).expect("queued");
    pipeline.flush(PATIENCE).expect("sent");
}

/// A broker that lets nobody do anything but what it was told, the tests' own way in excepted.
pub fn guarded_broker() -> Broker {
    Broker::start_with(
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT,\
         SECURE:SASL_PLAINTEXT\n\
         listener.name.secure.sasl.enabled.mechanisms=PLAIN\n\
         listener.name.secure.plain.sasl.jaas.config=\
         org.apache.kafka.common.security.plain.PlainLoginModule required \
         user_tailwater=\"secret\" user_monitor=\"secret\";\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS\n",
    )
}

/// The first pipeline of README.md for a user of that broker.
pub fn guarded_settings(server: &Server, broker: &Broker) -> SettingsFile {
    SettingsFile::new(server, broker, "shop")
        .replaced(&broker.brokers(), &broker.secure_brokers())
        .with(
            "[kafka]",
            "properties = { \"security.protocol\" = \"SASL_PLAINTEXT\", \"sasl.mechanism\" = \
             \"PLAIN\", \"sasl.username\" = \"tailwater\", \"sasl.password\" = \"secret\" }",
        )
}

#[test]
fn defects_of_kafka_are_found_alone_and_mended_as_printed() {
    let (server, broker) = (Server::start(), guarded_broker());
    let session = shop(&server);
    let settings = guarded_settings(&server, &broker);
    let text = fs::read_to_string(settings.path()).expect("settings");
    let fresh = || SettingsFile::of_text(text.clone());
    let cure = |settings: &SettingsFile, name: &str, code: &str| {
        run_commands(&broker, &diagnose(settings, name, code));
    };
    let acl = |what: &str| {
        run_commands(
            &broker,
            &format!("kafka-acls.sh --bootstrap-server b {what} --force >/dev/null"),
        );
    };
    let allow = |what: &str| acl(&format!("--add --allow-principal User:tailwater {what}"));

    // Step by step, as somebody does who was told nothing: each finding grants one thing more.
    let all_topics = "--operation Write --operation Describe --operation Create \
         --operation DescribeConfigs --topic order --resource-pattern-type prefixed";
    allow(all_topics);
    broker.create_topic("order.events", 3, &[]);
    broker.create_topic("__tailwater_checkpoints", 1, &[("cleanup.policy", "compact")]);
    allow(
        "--operation Write --operation Read --operation DescribeConfigs --topic \
           __tailwater_checkpoints",
    );
    cure(&settings, "transactional_id", "kafka_denied");
    let findings = assert_healthy(&settings);
    let refused = note_of(&findings, "topic_creation");
    assert!(refused.contains("unless this user may Create"), "{refused}");
    init(&settings);
    let checkpoints = high_watermarks(&broker.brokers(), CHECKPOINTS);
    assert_healthy(&settings);

    let take = |what: &str| {
        acl(&format!("--remove --allow-principal User:tailwater {what}"));
    };
    take("--operation Write --topic __tailwater_checkpoints");
    cure(&settings, "checkpoint_topic", "kafka_denied");
    assert_healthy(&settings);
    take("--operation Read --topic __tailwater_checkpoints");
    cure(&settings, "checkpoint_topic", "kafka_denied");
    assert_healthy(&settings);
    take("--operation DescribeConfigs --topic __tailwater_checkpoints");
    let findings = assert_healthy(&settings);
    let unseen = note_of(&findings, "checkpoint_topic");
    run_commands(&broker, unseen.split_once("nor by run: ").expect("a command").1);
    let findings = assert_healthy(&settings);
    assert!(note_of(&findings, "checkpoint_topic").contains("compacted"), "{findings:#?}");
    take("--operation Write --topic order --resource-pattern-type prefixed");
    cure(&settings, "topic", "kafka_denied");
    assert_healthy(&settings);

    broker.alter_topic("order.events", "min.insync.replicas", "2");
    cure(&settings, "min_insync_replicas", "");
    assert_healthy(&settings);
    broker.alter_topic("__tailwater_checkpoints", "cleanup.policy", "delete");
    cure(&settings, "checkpoint_topic", "checkpoint_topic_policy");
    assert_healthy(&settings);

    let named =
        fresh().with("[[outbox]]", "topic = \"sales\"").with("[kafka]", "create_topics = false");
    cure(&named, "topic", "kafka_denied");
    cure(&named, "topic_creation", "topic_missing");
    assert_healthy(&named);
    let unmade = fresh().with("[[outbox]]", "topic = \"invoice-{type}\"");
    let refused = note_of(&assert_healthy(&unmade), "topic_creation");
    run_commands(&broker, refused.split_once("or any: ").expect("a command").1);
    let allowed = note_of(&assert_healthy(&unmade), "topic_creation");
    assert!(allowed.contains("made with their first event"), "{allowed}");
    let unmade = unmade.with("[kafka]", "create_topics = false");
    let fix = diagnose(&unmade, "topic_creation", "topic_missing");
    assert!(fix.contains("set create_topics = true"), "{fix}");
    assert_healthy(&unmade.replaced("create_topics = false", "create_topics = true"));
    // It could be any topic, so nothing of those that are there says anything.
    let any =
        fresh().with("[[outbox]]", "topic = \"{type}\"").with("[kafka]", "create_topics = false");
    let told = note_of(&assert_healthy(&any), "topic_creation");
    assert!(told.contains("that is not there stops run"), "{told}");
    // Topics of others do not count where ours are made.
    broker.create_topic("order-of-others", 1, &[]);
    take("--operation Write --topic order --resource-pattern-type prefixed");
    let others = fresh().with("[[outbox]]", "topic = \"order-{type}\"");
    assert_healthy(&others);
    diagnose(&others.with("[kafka]", "create_topics = false"), "topic", "kafka_denied");
    allow("--operation Write --topic order --resource-pattern-type prefixed");
    let many = fresh()
        .with("[[outbox]]", "topic = \"order-{type}\"")
        .with("[kafka]", "topic = { replication_factor = 3 }");
    let fix = diagnose(&many, "topic_creation", "");
    assert!(fix.contains("topic.replication_factor"), "{fix}");
    assert_healthy(&many.replaced("replication_factor = 3", "replication_factor = 1"));

    let long = fresh()
        .replaced("properties = { ", "properties = { \"transaction.timeout.ms\" = \"1000000\", ");
    let fix = diagnose(&long, "transactional_id", "settings");
    assert!(fix.contains("\"transaction.timeout.ms\""), "{fix}");
    assert_healthy(&long.replaced("1000000", "900000"));
    let wrong = fresh().replaced("\"secret\"", "\"wrong\"");
    let fix = diagnose(&wrong, "kafka", "auth_failed");
    assert!(fix.contains("sasl.password") && !fix.contains("wrong"), "{fix}");

    // Nothing of all this is visible, to whomever.
    assert_eq!(high_watermarks(&broker.brokers(), "order.events"), [0; 3], "also uncommitted");
    assert_eq!(high_watermarks(&broker.brokers(), CHECKPOINTS), checkpoints);
    drop(session);
}

/// As the daemon makes it, which those of events are not.
#[test]
fn a_topic_of_dead_letters_is_judged_by_what_the_daemon_would_make() {
    let (server, broker) = (Server::start(), Broker::start());
    let _session = shop(&server);
    broker.create_topic(CHECKPOINTS, 1, &[("cleanup.policy", "compact")]);
    broker.create_topic("sales", 1, &[]);
    let settings = SettingsFile::new(&server, &broker, "shop")
        .replaced("source =", "on_error = \"dead-letter\"\ndead_letter_topic = \"dead\"\nsource =")
        .with("[[outbox]]", "topic = \"sales\"")
        .with("[kafka]", "create_topics = false\ntopic = { partitions = 1, config = { \"cleanup.policy\" = \"compact\" } }");
    let fix = diagnose(&settings, "topic_creation", "topic_missing");
    assert!(fix.contains("--topic dead ") && fix.contains("max.message.bytes="), "{fix}");
    assert!(fix.contains("cleanup.policy=delete") && !fix.contains("=compact"), "{fix}");
    run_commands(&broker, &fix);
    assert_healthy(&settings);
    broker.alter_topic("dead", "max.message.bytes", "1000000");
    let fix = diagnose(&settings, "topic", "");
    run_commands(&broker, &fix);
    assert_healthy(&settings);
    broker.alter_topic("dead", "cleanup.policy", "compact");
    // What was set before is gone with it: this client sets all at once.
    run_commands(&broker, &diagnose(&settings, "topic", ""));
    assert_healthy(&settings);
}

#[test]
fn a_side_that_does_not_answer_hides_nothing_of_the_other_one() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    session.run("CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'update')");
    broker.create_topic("__tailwater_checkpoints", 2, &[("cleanup.policy", "compact")]);
    let without_kafka =
        SettingsFile::new(&server, &broker, "shop").replaced(&broker.brokers(), "127.0.0.1:1");
    let without_server = SettingsFile::new(&server, &broker, "shop")
        .replaced(&format!("127.0.0.1:{}", server.port()), "127.0.0.1:1");
    std::thread::scope(|scope| {
        for (settings, dead, alive) in [
            (&without_kafka, "kafka", "publication"),
            (&without_server, "postgres", "checkpoint_topic"),
        ] {
            scope.spawn(move || {
                let began = Instant::now();
                let ended = daemon::run(&["check", "--json"], settings);
                assert!(began.elapsed() < GIVEN_UP_MAX, "{:?}", began.elapsed());
                assert!(ended.code == Some(1) && ended.is_code("not_connected"), "{ended:?}");
                let findings: Vec<Json> = serde_json::from_str(&ended.stdout).expect("an array");
                let wrong = findings.iter().filter(|finding| finding["ok"] == false);
                let mut wrong: Vec<&str> = wrong.filter_map(|it| it["name"].as_str()).collect();
                wrong.sort_unstable();
                let mut expected = [dead, alive];
                expected.sort_unstable();
                assert_eq!(wrong, expected, "{findings:#?}");
                // Whether there was a slot only the checkpoint says.
                if dead == "kafka" {
                    let slot = note_of(&findings, "slot");
                    assert!(slot.contains("unless Kafka, which could not be asked"), "{slot}");
                }
            });
        }
    });
}

/// Each of several hosts may take its time, an attempt as long as all of them: it is given up in its
/// midst.
#[test]
fn several_hosts_that_do_not_answer_are_given_up_as_soon_as_one() {
    let (server, broker) = (Server::start(), Broker::shared());
    let session = shop(&server);
    let host = format!("127.0.0.1:{}", server.port());
    let settings =
        refusals::settings(&server, broker).replaced(&host, &[host.as_str(); 4].join(","));
    server.freeze();
    let began = Instant::now();
    let ended = daemon::run(&["check"], &settings);
    let took = began.elapsed();
    server.thaw();
    assert!(ended.code == Some(1) && ended.is_code("not_connected"), "{ended:?}");
    assert!(took < GIVEN_UP_MAX, "{took:?}");
    drop(session);
}

#[test]
fn settings_with_mistakes_are_told_and_checked_no_further() {
    let settings = SettingsFile::of_text("source = 5\n".to_owned());
    let ended = daemon::run(&["check", "--json"], &settings);
    assert!(ended.code == Some(2) && ended.is_code("settings"), "{ended:?}");
    assert_eq!(ended.stdout, "");
}

#[test]
fn a_check_that_is_stopped_while_it_waits_ends_as_asked() {
    let settings = SettingsFile::of_text(
        "source = \"s\"\n[postgres]\nurl = \"postgres://u@127.0.0.1:1/d\"\n[kafka]\nbrokers = \
         \"127.0.0.1:1\"\n[[outbox]]\ntable = \"public.outbox_events\"\n"
            .to_owned(),
    );
    let check = daemon::Daemon::start_as("check", &settings);
    check.wait_for("trying again");
    check.signal(libc::SIGTERM);
    let ended = check.wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

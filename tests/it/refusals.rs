//! What is refused rather than lost or doubled: each with its code, what, why and what mends it.

use std::time::Duration;

use std::fs;

use tailwater::postgres::{self, Encryption, Host};

use crate::support::{
    PATIENCE,
    daemon::{self, Daemon, Ended},
    kafka::Broker,
    postgres::{Server, Session},
    scene::{init, publishing, shop, stop, wait_until_published},
    settings::SettingsFile,
    wait_until,
};

/// A source and a checkpoint topic of their own, on brokers that all tests share: in a common topic a
/// killed daemon of another test would hide for a minute what is in it.
pub fn settings(server: &Server, broker: &Broker) -> SettingsFile {
    let source = format!("source-{:08x}", fastrand::u32(..));
    SettingsFile::new(server, broker, "shop")
        .replaced("order-service", &source)
        .with("[[outbox]]", &format!("topic = \"{source}.{{domain}}.events\""))
        .with("[kafka]", &format!("checkpoint_topic = \"{source}.checkpoints\""))
}

/// A database, its settings and a connection.
pub struct Shop {
    pub server: Server,
    pub session: Session,
    pub settings: SettingsFile,
}

impl Shop {
    pub fn open() -> Self {
        Self::open_with(&[])
    }

    pub fn open_with(server_settings: &[(&str, &str)]) -> Self {
        let server = Server::start_with(server_settings);
        let session = shop(&server);
        let settings = settings(&server, Broker::shared());
        Self { server, session, settings }
    }

    /// What the daemon would connect with.
    pub fn connection(&self) -> postgres::Settings {
        postgres::Settings {
            host: Host::Tcp { host: "127.0.0.1".to_owned(), port: self.server.port() },
            other_hosts: Vec::new(),
            user: "postgres".to_owned(),
            password: None,
            database: "shop".to_owned(),
            application_name: "tailwater".to_owned(),
            encryption: Encryption::NONE,
        }
    }

    /// With publication, slot and checkpoint.
    pub fn initialised() -> Self {
        let shop = Self::open();
        init(&shop.settings);
        shop
    }

    pub fn with_settings(mut self, change: impl FnOnce(SettingsFile) -> SettingsFile) -> Self {
        self.settings = change(self.settings);
        self
    }

    /// Publishes rows, so that the checkpoint is that of a transaction.
    pub fn publish(&self, rows: u32) {
        insert(&self.session, rows);
        let daemon = publishing(&self.settings);
        wait_until_published(&self.session, &slot(&self.settings));
        stop(daemon);
    }

    /// Inserts the missing rows anew and publishes them.
    pub fn insert_anew(&self, missing: &str) {
        self.session.run(&format!(
            "BEGIN; CREATE TEMPORARY TABLE missing ON COMMIT DROP AS \
             SELECT * FROM outbox_events WHERE {missing}; \
             DELETE FROM outbox_events WHERE {missing}; \
             INSERT INTO outbox_events SELECT * FROM missing; COMMIT"
        ));
        let daemon = publishing(&self.settings);
        wait_until_published(&self.session, &slot(&self.settings));
        stop(daemon);
    }

    pub fn refuse(&self, code: &str, hint: &str) -> Ended {
        refuse(&self.settings, code, hint)
    }

    /// What was wrong is mended: what is inserted comes out.
    pub fn assert_publishes(&self) {
        let before = published(self);
        let daemon = publishing(&self.settings);
        // Not earlier: a first start begins with what is committed after it.
        insert(&self.session, 1);
        wait_until_published(&self.session, &slot(&self.settings));
        stop(daemon);
        assert!(published(self) > before, "nothing was published");
    }

    /// The mend of many hints: "set another postgres.slot and run tailwater init".
    fn assert_publishes_under_another_slot(self) {
        let slot = format!("slot_{:08x}", fastrand::u32(..));
        let shop = self
            .with_settings(|settings| settings.with("[postgres]", &format!("slot = \"{slot}\"")));
        init(&shop.settings);
        shop.assert_publishes();
    }

    /// Does what the hint says, where that is a reset: a command of ours mends it.
    pub fn reset_as_told(&self, ended: &Ended, option: &str) {
        let hint = last_line(ended);
        assert!(hint.contains(&format!("tailwater reset {option}")), "{option}: {hint}");
        let reset = daemon::run(&["reset", option, "--yes"], &self.settings);
        assert_eq!(reset.code, Some(0), "{}", reset.stderr);
    }

    /// With a new connection, the server having been restarted.
    pub fn reconnected(self) -> Self {
        Self { session: self.server.session("shop"), ..self }
    }
}

pub fn insert(session: &Session, rows: u32) {
    for row in 0..rows {
        session.run(&format!(
            "INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) VALUES \
             (gen_random_uuid(), 'order-{row}', 'order.placed', '{{\"total\": {row}}}', now())"
        ));
    }
}

/// `run` ends by itself with that code, and its hint holds what mends it. It is asked twice: a
/// refusal that passes by being tried again is none.
pub fn refuse(settings: &SettingsFile, code: &str, hint: &str) -> Ended {
    refuse_once(settings, code, hint);
    refuse_once(settings, code, hint)
}

fn refuse_once(settings: &SettingsFile, code: &str, hint: &str) -> Ended {
    let ended = Daemon::start(settings).wait(PATIENCE);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.is_code(code), "{}", ended.stderr);
    assert!(last_line(&ended).contains(hint), "{}", ended.stderr);
    ended
}

fn last_line(ended: &Ended) -> &str {
    ended.stderr.trim_end().lines().last().unwrap_or_default()
}

/// What the hint tells to do, between two of its words.
fn told<'a>(ended: &'a Ended, before: &str, after: &str) -> &'a str {
    let hint = last_line(ended);
    let rest = hint.split_once(before).unwrap_or_else(|| panic!("no \"{before}\": {hint}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no \"{after}\": {hint}")).0
}

fn slot(settings: &SettingsFile) -> String {
    let text = fs::read_to_string(settings.path()).expect("settings");
    let line = text.lines().find_map(|line| line.strip_prefix("slot = "));
    line.map_or("tailwater".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[test]
fn settings_with_five_mistakes_are_refused_in_one_report() {
    let settings = SettingsFile::of_text(
        "source = \"order-service\"\non_eror = \"halt\"\n\n[postgres]\nurl = \
         \"postgres://db/shop\"\nslto = \"orders\"\n\n[kafka]\nbrokers = 5\n\n[[outbox]]\ntable = \
         \"outbox_events\"\n"
            .to_owned(),
    );
    let ended = daemon::run(&["run"], &settings);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    for mistake in [
        "line 2: on_eror is not a setting; the nearest is on_error",
        "line 5: postgres.url names no user",
        "line 6: postgres.slto is not a setting; the nearest is postgres.slot",
        "line 9: kafka.brokers must be a text in quotes, not a number",
        "line 12: outbox.table needs its schema",
    ] {
        assert!(ended.stderr.contains(mistake), "{mistake}: {}", ended.stderr);
    }
}

#[test]
fn a_missing_file_and_a_wrong_option_are_usage() {
    let settings = SettingsFile::of_text(String::new());
    fs::remove_file(settings.path()).expect("removed");
    let ended = daemon::run(&["run"], &settings);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert_eq!(daemon::run(&["walk"], &settings).code, Some(2));
}

#[test]
fn init_can_be_repeated_also_beside_a_running_daemon() {
    let shop = Shop::initialised();
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    init(&shop.settings);
    stop(daemon);
}

#[test]
fn init_gives_up_on_servers_that_do_not_answer() {
    let settings = SettingsFile::of_text(
        "source = \"s\"\n[postgres]\nurl = \"postgres://u@127.0.0.1:1/d\"\n[kafka]\nbrokers = \
         \"127.0.0.1:1\"\n[[outbox]]\ntable = \"public.outbox_events\"\n"
            .to_owned(),
    );
    let ended = daemon::run(&["init"], &settings);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.is_code("not_connected"), "{}", ended.stderr);
}

#[test]
fn init_that_is_stopped_while_it_waits_ends_as_asked() {
    let settings = SettingsFile::of_text(
        "source = \"s\"\n[postgres]\nurl = \"postgres://u@127.0.0.1:1/d\"\n[kafka]\nbrokers = \
         \"127.0.0.1:1\"\n[[outbox]]\ntable = \"public.outbox_events\"\n"
            .to_owned(),
    );
    let init = Daemon::start_as("init", &settings);
    init.wait_for("trying again");
    init.signal(libc::SIGTERM);
    let ended = init.wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("run it again"), "{}", ended.stderr);
}

#[test]
fn init_prints_the_sql_that_it_would_run_and_runs_none() {
    let server = Server::start();
    let session = shop(&server);
    // No Kafka is there, and none is needed.
    let settings = SettingsFile::of_text(format!(
        "source = \"s\"\n[postgres]\nurl = \"{}\"\n[kafka]\nbrokers = \"127.0.0.1:1\"\n\
         [[outbox]]\ntable = \"public.outbox_events\"\n",
        server.url("shop")
    ));
    let ended = daemon::run(&["init", "--print-sql"], &settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(session.value("SELECT count(*) FROM pg_publication").as_deref(), Some("0"));
    // What is printed is SQL, and it is the whole of what a publication needs.
    session.run(&ended.stdout);
    let again = daemon::run(&["init", "--print-sql"], &settings);
    assert!(again.stdout.contains("has all it needs"), "{}", again.stdout);
}

#[test]
fn a_wrong_password_is_refused_and_each_method_takes_the_right_one() {
    for method in ["scram-sha-256", "md5", "password"] {
        let shop = Shop::open();
        let encryption = if method == "md5" { "md5" } else { "scram-sha-256" };
        shop.session.run(&format!(
            "SET password_encryption = '{encryption}';
             CREATE ROLE tailwater LOGIN REPLICATION PASSWORD 'right';
             GRANT CREATE ON DATABASE shop TO tailwater;
             ALTER TABLE outbox_events OWNER TO tailwater"
        ));
        let rules = format!(
            "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all tailwater \
             127.0.0.1/32 {method}\n"
        );
        fs::write(shop.server.data_folder().join("pg_hba.conf"), rules).expect("written");
        shop.session.run("SELECT pg_reload_conf()");
        let shop = shop.with_settings(|settings| {
            let path = settings.folder().join("password");
            fs::write(&path, "wrong\n").expect("written");
            settings
                .replaced("postgres://postgres@", "postgres://tailwater@")
                .with("[postgres]", &format!("password_file = \"{}\"", path.display()))
        });
        // A reload takes its time.
        wait_until("the server to ask for passwords", PATIENCE, || {
            let url = shop.server.url("shop").replace("postgres@", "tailwater@");
            Session::open(&url).is_err()
        });
        let ended = shop.refuse("auth_failed", "password");
        assert!(ended.stderr.contains("tailwater"), "{}", ended.stderr);
        fs::write(shop.settings.folder().join("password"), "right\n").expect("written");
        stop(publishing(&shop.settings));
    }
}

#[test]
fn a_role_that_may_not_replicate_is_refused() {
    let shop = Shop::open().with_settings(|settings| {
        settings.replaced("postgres://postgres@", "postgres://tailwater@")
    });
    shop.session.run(
        "CREATE ROLE tailwater LOGIN; GRANT CREATE ON DATABASE shop TO tailwater; \
         ALTER TABLE outbox_events OWNER TO tailwater",
    );
    let ended = shop.refuse("no_replication_role", "ALTER ROLE \"tailwater\" REPLICATION");
    shop.session.run(told(&ended, "Run ", " ("));
    shop.assert_publishes();
}

#[test]
fn a_server_without_logical_wal_is_refused() {
    let shop = Shop::open_with(&[("wal_level", "replica")]);
    let ended = shop.refuse("wal_level", "ALTER SYSTEM SET wal_level = 'logical'");
    shop.session.run(told(&ended, "Run ", ", then restart"));
    shop.server.restart();
    shop.reconnected().assert_publishes();
}

#[test]
fn a_server_whose_slots_are_all_taken_is_refused() {
    let shop = Shop::open_with(&[("max_replication_slots", "1")]);
    shop.session.run("SELECT pg_create_physical_replication_slot('standby')");
    let ended = shop.refuse("no_free_slot", "max_replication_slots");
    let sql = told(&ended, "pg_replication_slots; ", ")").to_owned() + ")";
    shop.session.run(&sql.replace("<slot>", "standby"));
    shop.assert_publishes();
}

#[test]
fn a_dropped_slot_is_refused() {
    let shop = Shop::initialised();
    shop.session.run("SELECT pg_drop_replication_slot('tailwater')");
    shop.refuse("slot_missing", "postgres.slot");
    shop.assert_publishes_under_another_slot();
}

#[test]
fn an_invalidated_slot_is_refused() {
    let shop = Shop::open_with(&[("max_slot_wal_keep_size", "1MB")]);
    init(&shop.settings);
    let is_lost = "SELECT wal_status = 'lost' FROM pg_replication_slots";
    wait_until("the slot to be lost", PATIENCE, || {
        shop.session
            .run("SELECT pg_logical_emit_message(false, 'filler', 'x'); SELECT pg_switch_wal()");
        shop.session.run("CHECKPOINT");
        shop.session.value(is_lost).as_deref() == Some("t")
    });
    let ended = shop.refuse("slot_invalidated", "max_slot_wal_keep_size");
    shop.session.run(told(&ended, "and run ", ". "));
    shop.assert_publishes_under_another_slot();
}

#[test]
fn a_slot_that_is_not_ours_to_read_is_refused() {
    let foreign = [
        ("SELECT pg_create_physical_replication_slot('tailwater')", "physical"),
        (
            "SELECT pg_create_logical_replication_slot('tailwater', 'test_decoding')",
            "test_decoding",
        ),
    ];
    for (sql, what) in foreign {
        let shop = Shop::open();
        shop.session.run(sql);
        let ended = shop.refuse("slot_wrong_plugin", "postgres.slot");
        assert!(ended.stderr.contains(what), "{}", ended.stderr);
        shop.assert_publishes_under_another_slot();
    }
}

#[test]
fn a_slot_of_another_database_is_refused() {
    let shop = Shop::open();
    let other = shop.server.create_database("other");
    other.run("SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')");
    let ended = shop.refuse("slot_wrong_plugin", "postgres.slot");
    assert!(ended.stderr.contains("\"other\""), "{}", ended.stderr);
    shop.assert_publishes_under_another_slot();
}

#[test]
fn a_slot_that_no_checkpoint_speaks_of_is_refused() {
    let shop = Shop::open();
    // With its publication: a checkpoint may be hidden for a moment on brokers that tests share, and
    // then the publication is looked at before it.
    shop.session.run(
        "CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'insert', \
         publish_via_partition_root = true)",
    );
    shop.session.run("SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')");
    let ended = shop.refuse("checkpoint_missing", "pg_drop_replication_slot('tailwater')");
    shop.session.run(told(&ended, "published from it, run ", " and start again"));
    shop.assert_publishes();
}

#[test]
fn a_slot_that_was_advanced_or_made_anew_is_refused() {
    for what in [
        "SELECT pg_replication_slot_advance('tailwater', pg_current_wal_lsn())",
        "SELECT pg_drop_replication_slot('tailwater'); \
         SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')",
    ] {
        let shop = Shop::initialised();
        shop.publish(3);
        insert(&shop.session, 3);
        shop.session.run(what);
        let ended = shop.refuse("checkpoint_behind_slot", "pg_replication_slots");
        let look = told(&ended, "Look with ", " who else");
        assert_eq!(shop.session.rows(look).len(), 1, "{look}");
        shop.reset_as_told(&ended, "--to-slot");
        shop.assert_publishes();
    }
}

/// Publishes after a backup was taken, and restores it: the server has forgotten what is on Kafka.
pub fn restored(rows_published: u32) -> Shop {
    let shop = Shop::initialised();
    shop.publish(3);
    shop.server.stop();
    let backup = shop.server.copy_data();
    shop.server.restart();
    let shop = shop.reconnected();
    shop.publish(rows_published);
    shop.server.stop();
    shop.server.restore_data(&backup);
    shop
}

#[test]
fn a_server_that_is_older_than_its_checkpoint_is_refused() {
    let shop = restored(200);
    shop.server.restart();
    let ended = shop.refuse("checkpoint_ahead", "tailwater reset --to-now");
    assert!(ended.stderr.contains("above the end"), "{}", ended.stderr);
    let shop = shop.reconnected();
    shop.reset_as_told(&ended, "--to-slot");
    shop.assert_publishes();
}

#[test]
fn another_transaction_in_the_place_of_the_last_one_is_refused() {
    let shop = restored(3);
    shop.server.restart();
    let shop = shop.reconnected();
    // Of another length: their records lie elsewhere than those that are on Kafka.
    shop.session.run("CREATE TABLE later (filler text)");
    insert(&shop.session, 200);
    let ended = refuse_each_time(&shop, "history_diverged");
    let before = published(&shop);
    shop.reset_as_told(&ended, "--to-slot");
    shop.assert_publishes();
    // What the database has instead of what was published comes too; and of what was there before
    // the backup, what the restored slot does not know to be published.
    let came = published(&shop) - before;
    assert!((201..=204).contains(&came), "{came}");
}

/// A refusal that moved the slot would be the last one: what was lost would not be sent again.
fn refuse_each_time(shop: &Shop, code: &str) -> Ended {
    let position = "SELECT confirmed_flush_lsn FROM pg_replication_slots";
    let before = shop.session.value(position);
    let ended = shop.refuse(code, "tailwater reset --");
    assert_eq!(shop.session.value(position), before, "a refusal moved the slot");
    ended
}

/// The log of a restored backup has grown past the place of a transaction that is out in part.
#[test]
fn a_transaction_in_progress_that_does_not_come_again_is_refused() {
    let shop = Shop::open()
        .with_settings(|settings| settings.with("[kafka]", "transaction_bytes = \"1MiB\""));
    init(&shop.settings);
    shop.server.stop();
    let backup = shop.server.copy_data();
    shop.server.restart();
    let commit_lsn = kill_inside_a_transaction(&shop, 300_000);
    shop.server.stop();
    shop.server.restore_data(&backup);
    shop.server.restart();
    let shop = Shop { session: shop.server.session("shop"), ..shop };
    shop.session.run("CREATE TABLE later (filler text)");
    let is_past = format!("SELECT pg_current_wal_lsn() > '{commit_lsn}'");
    wait_until("the log to grow past the transaction", PATIENCE, || {
        shop.session.run("INSERT INTO later SELECT repeat('x', 500) FROM generate_series(1, 9000)");
        shop.session.value(&is_past).as_deref() == Some("t")
    });
    let ended = refuse_each_time(&shop, "transaction_changed");
    shop.reset_as_told(&ended, "--replay-transaction");
    shop.assert_publishes();
}

/// Publishes a part of a large transaction, and returns where its commit record begins.
pub fn kill_inside_a_transaction(shop: &Shop, rows: u32) -> String {
    shop.server.session("shop").run(&format!(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) SELECT \
         gen_random_uuid(), 'order-1', 'order.placed', jsonb_build_object('x', repeat('x', 900)) \
         FROM generate_series(1, {rows})"
    ));
    let in_progress = || {
        let topic = shop.settings.checkpoint_topic();
        let newest = Broker::shared().read_committed(topic).into_iter().next_back();
        newest.and_then(|record| {
            record.json()["in_progress"]["commit_lsn"].as_str().map(str::to_owned)
        })
    };
    let daemon = publishing(&shop.settings);
    let mut commit_lsn = None;
    wait_until("a part of the transaction", PATIENCE, || {
        commit_lsn = in_progress();
        commit_lsn.is_some()
    });
    daemon.kill();
    commit_lsn.expect("waited for")
}

#[test]
fn a_checkpoint_that_a_failover_left_behind_is_refused() {
    let shop = restored(3);
    fs::write(shop.server.data_folder().join("standby.signal"), "").expect("written");
    shop.server.restart();
    let session = shop.server.session("shop");
    session.run("SELECT pg_promote()");
    wait_until("the promotion", PATIENCE, || {
        session.value("SELECT pg_is_in_recovery()").as_deref() == Some("f")
    });
    let shop = Shop { session, ..shop };
    insert(&shop.session, 200);
    shop.session.run("CHECKPOINT");
    let ended = shop.refuse("timeline_diverged", "former primary");
    shop.reset_as_told(&ended, "--to-slot");
    shop.assert_publishes();
}

#[test]
fn a_checkpoint_topic_that_forgets_is_refused() {
    let shop = Shop::open();
    let topic = shop.settings.checkpoint_topic();
    Broker::shared().create_topic(topic, 1, &[("cleanup.policy", "delete")]);
    let ended = shop.refuse("checkpoint_topic_policy", "cleanup.policy");
    Broker::shared().configure_by(last_line(&ended));
    shop.assert_publishes();
}

#[test]
fn a_checkpoint_topic_of_several_partitions_is_refused() {
    let shop = Shop::open();
    let topic = shop.settings.checkpoint_topic().to_owned();
    Broker::shared().create_topic(&topic, 2, &[("cleanup.policy", "compact")]);
    shop.refuse("checkpoint_topic_policy", "name another kafka.checkpoint_topic");
    let shop = shop.with_settings(|settings| settings.replaced(&topic, &format!("{topic}-new")));
    shop.assert_publishes();
}

#[test]
fn a_source_that_is_known_elsewhere_is_refused_by_run_and_taken_by_init() {
    let shop = Shop::initialised();
    let another = shop.server.create_database("another");
    crate::support::workload::create_tables(&another);
    let shop = shop.with_settings(|settings| {
        settings.replaced("/shop\"", "/another\"").with("[postgres]", "slot = \"second\"")
    });
    shop.refuse("identity_changed", "run tailwater init");
    init(&shop.settings);
    let shop = Shop { session: another, ..shop };
    shop.assert_publishes();
}

#[test]
fn a_slot_of_another_source_is_refused() {
    let shop = Shop::initialised();
    let shop = shop.with_settings(|settings| settings.replaced("source = \"", "source = \"other-"));
    let ended = shop.refuse("foreign_slot", "source = \"source-");
    assert!(ended.stderr.contains("other-source-"), "{}", ended.stderr);
    let renamed = told(&ended, "set source = \"", "\" again").to_owned();
    let shop = shop.with_settings(|settings| {
        settings
            .replaced(&format!("source = \"other-{renamed}\""), &format!("source = \"{renamed}\""))
    });
    shop.assert_publishes();
}

#[test]
fn a_dropped_publication_is_refused() {
    let shop = Shop::initialised();
    shop.session.run("DROP PUBLICATION tailwater");
    insert(&shop.session, 3);
    let ended = shop.refuse("publication_missing", "CREATE PUBLICATION \"tailwater\"");
    // The way on that it names.
    shop.session.run(told(&ended, "Run ", "; then"));
    shop.reset_as_told(&ended, "--to-now");
    assert_eq!(published(&shop), 0);
    shop.insert_anew("true");
    assert_eq!(published(&shop), 3);
}

/// PostgreSQL 18 says of a missing publication only a notice, and sends nothing.
#[test]
fn a_dropped_publication_is_refused_where_the_server_only_notices_it() {
    let server = Server::start_version(18);
    let session = shop(&server);
    let settings = settings(&server, Broker::shared());
    init(&settings);
    session.run("DROP PUBLICATION tailwater");
    refuse(&settings, "publication_missing", "CREATE PUBLICATION \"tailwater\"");
    // What was inserted while it was away is in no publication of then.
    insert(&session, 3);
    session.run("CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'insert')");
    refuse(&settings, "publication_gap", "tailwater reset --to-now");
    let reset = daemon::run(&["reset", "--to-now", "--yes"], &settings);
    assert_eq!(reset.code, Some(0), "{}", reset.stderr);
    Shop { server, session, settings }.assert_publishes();
}

#[test]
fn a_table_that_was_out_of_the_publication_is_refused() {
    let shop = Shop::initialised();
    shop.session.run("ALTER PUBLICATION tailwater DROP TABLE outbox_events");
    let ended = shop.refuse("publication_gap", "ADD TABLE \"public\".\"outbox_events\"");
    insert(&shop.session, 1);
    // The mend of a table that was never published; this one was, as it says.
    shop.session.run(told(&ended, "Run ", ";"));
    let ended = shop.refuse("publication_gap", "never sent");
    shop.reset_as_told(&ended, "--to-slot");
    shop.insert_anew("true");
    assert_eq!(published(&shop), 1);
}

#[test]
fn a_partitioned_outbox_is_published_as_itself_or_refused_with_the_mend() {
    let shop = Shop::open();
    shop.session.run(
        "DROP TABLE outbox_events;
         CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload jsonb, \
             created_at timestamptz) PARTITION BY RANGE (created_at);
         CREATE TABLE outbox_all PARTITION OF outbox_events DEFAULT;
         CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'insert')",
    );
    let mend = "ALTER PUBLICATION \"tailwater\" SET (publish_via_partition_root = true)";
    shop.refuse("publication_gap", mend);
    let ended = daemon::run(&["init"], &shop.settings);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
    let printed = daemon::run(&["init", "--print-sql"], &shop.settings);
    assert!(printed.stdout.contains(mend), "{}", printed.stdout);
    shop.session.run(&printed.stdout);
    init(&shop.settings);
    shop.publish(3);
    assert_eq!(published(&shop), 3);
    // A partition's rows come under the name of the whole.
    let settings = shop.settings.replaced("public.outbox_events", "public.outbox_all");
    let mend = "Write \"public.outbox_events\" in the place of \"public.outbox_all\"";
    refuse(&settings, "publication_gap", mend);
}

#[test]
fn what_the_settings_name_and_the_server_lacks_is_a_mistake_of_the_settings() {
    let shop = Shop::open();
    shop.session.run("CREATE VIEW orders_view AS SELECT * FROM outbox_events");
    shop.session.run("CREATE UNLOGGED TABLE fleeting (id uuid)");
    let text = fs::read_to_string(shop.settings.path()).expect("settings");
    for (from, to, expected) in [
        ("public.outbox_events", "public.outbox_event", "\"public.outbox_events\""),
        ("public.outbox_events", "shop.public.outbox_events", "\"public.outbox_events\""),
        ("public.outbox_events", "public.orders_view", "no view"),
        ("public.outbox_events", "public.fleeting", "that is logged"),
        ("/shop\"", "/shopp\"", "postgres.url"),
    ] {
        let settings = SettingsFile::of_text(text.replacen(from, to, 1));
        for command in ["run", "init"] {
            let ended = Daemon::start_as(command, &settings).wait(PATIENCE);
            assert_eq!(ended.code, Some(2), "{to}: {}", ended.stderr);
            assert!(ended.is_code("settings"), "{to}: {}", ended.stderr);
            let last = ended.stderr.trim_end().lines().last().unwrap_or_default();
            assert!(last.contains(expected), "{to}: {last}");
        }
    }
    // Nothing was made for a table that is none.
    assert_eq!(shop.session.value("SELECT count(*) FROM pg_publication").as_deref(), Some("0"));
}

#[test]
fn a_table_that_was_made_anew_stops_a_running_daemon() {
    let shop = Shop::initialised();
    let daemon = publishing(&shop.settings);
    shop.session.run(
        "BEGIN; CREATE TABLE fresh (LIKE outbox_events INCLUDING ALL); DROP TABLE outbox_events; \
         ALTER TABLE fresh RENAME TO outbox_events; \
         ALTER PUBLICATION tailwater ADD TABLE outbox_events; COMMIT",
    );
    let ended = daemon.wait(PATIENCE);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.is_code("publication_gap"), "{}", ended.stderr);
    let ended = shop.refuse("publication_gap", "outbox_events");
    shop.reset_as_told(&ended, "--to-now");
    shop.assert_publishes();
}

#[test]
fn a_column_that_is_missing_or_can_never_do_is_refused() {
    let shop = Shop::open()
        .with_settings(|settings| settings.with("[[outbox]]", "columns = { payload = \"body\" }"));
    let ended = shop.refuse("column_missing", "columns");
    assert!(ended.stderr.contains("\"body\""), "{}", ended.stderr);
    shop.session.run("ALTER TABLE outbox_events ADD body int");
    shop.refuse("column_missing", "ALTER TABLE … ALTER COLUMN … TYPE …");
    shop.session.run("ALTER TABLE outbox_events ALTER COLUMN body TYPE jsonb USING '{}'");
    shop.session.run("ALTER TABLE outbox_events ALTER COLUMN body SET DEFAULT '{}'");
    shop.assert_publishes();
}

#[test]
fn a_topic_that_is_missing_and_may_not_be_made_is_refused() {
    let shop =
        Shop::open().with_settings(|settings| settings.with("[kafka]", "create_topics = false"));
    create_checkpoint_topic(&shop);
    init(&shop.settings);
    insert(&shop.session, 1);
    let topic = topic(&shop);
    let ended = shop.refuse("topic_missing", &format!("--create --topic {topic}"));
    Broker::shared().create_by(last_line(&ended));
    shop.assert_publishes();
    assert_eq!(published(&shop), 2);
}

fn create_checkpoint_topic(shop: &Shop) {
    let topic = shop.settings.checkpoint_topic();
    Broker::shared().create_topic(topic, 1, &[("cleanup.policy", "compact")]);
}

#[test]
fn topics_that_the_settings_name_are_made_or_refused_before_any_event() {
    let topic = format!("orders-{:08x}", fastrand::u32(..));
    let shop = Shop::open().with_settings(|settings| {
        let text = fs::read_to_string(settings.path()).expect("settings");
        let template = text.lines().find(|line| line.starts_with("topic = ")).expect("a topic");
        settings.replaced(template, &format!("topic = \"{topic}\""))
    });
    let shop = shop.with_settings(|settings| settings.with("[kafka]", "create_topics = false"));
    create_checkpoint_topic(&shop);
    let ended = daemon::run(&["init"], &shop.settings);
    assert!(ended.is_code("topic_missing"), "{}", ended.stderr);
    shop.refuse("topic_missing", &format!("--create --topic {topic}"));
    let shop = shop.with_settings(|settings| settings.replaced("create_topics = false\n", ""));
    init(&shop.settings);
    assert!(Broker::shared().topics().contains(&topic));
}

#[test]
fn a_row_that_is_no_event_stops_after_everything_before_it_is_out() {
    let shop = Shop::initialised();
    insert(&shop.session, 100);
    shop.session.run(
        "BEGIN; INSERT INTO outbox_events (id, aggregate_id, event_type, payload) VALUES \
         (gen_random_uuid(), 'a', 'order.placed', '{}'), (gen_random_uuid(), 'a', NULL, '{}'); \
         COMMIT",
    );
    insert(&shop.session, 1);
    let ended = shop.refuse("event_unmappable", "event_type");
    assert!(ended.stderr.contains("\"public.outbox_events\""), "{}", ended.stderr);
    assert_eq!(published(&shop), 100);
    let ended = shop.refuse("event_unmappable", "To go on without it: set on_error");
    let way_past = told(&ended, "To go on without it: set ", " and start again");
    let shop = shop.with_settings(|settings| {
        settings.replaced("[postgres]", &format!("{way_past}\n[postgres]"))
    });
    let daemon = publishing(&shop.settings);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 102);
}

#[test]
fn an_event_too_large_for_its_topic_stops_after_all_before_it_is_out() {
    let shop = Shop::initialised();
    Broker::shared().create_topic(&topic(&shop), 3, &[("max.message.bytes", "2000")]);
    insert(&shop.session, 100);
    shop.session.run(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) VALUES \
         (gen_random_uuid(), 'a', 'order.placed', jsonb_build_object('x', repeat('x', 2000)))",
    );
    let ended = shop.refuse("event_too_large", "max.message.bytes");
    assert_eq!(published(&shop), 100);
    Broker::shared().configure_by(told(&ended, "start again: ", ";"));
    let daemon = publishing(&shop.settings);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 101);
}

pub fn topic(shop: &Shop) -> String {
    let text = fs::read_to_string(shop.settings.path()).expect("settings");
    let source = text.split('"').nth(1).expect("the source");
    format!("{source}.order.events")
}

pub fn published(shop: &Shop) -> usize {
    Broker::shared().read_committed(&topic(shop)).len()
}

#[test]
fn brokers_and_servers_that_are_not_there_are_waited_for() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = settings(&server, &broker);
    broker.kill();
    let mut daemon = Daemon::start(&settings);
    daemon.wait_for("starting over");
    server.kill();
    broker.restart();
    // Without the broker, then without the server: it has tried again more than once.
    let tried = daemon.stderr().matches("starting over").count();
    wait_until("two more attempts, or its end", PATIENCE, || {
        !daemon.is_running() || daemon.stderr().matches("starting over").count() > tried + 2
    });
    assert!(daemon.is_running(), "{}", daemon.stderr());
    server.restart();
    daemon.wait_for("publishing");
    drop(session);
    let session = server.session("shop");
    insert(&session, 1);
    wait_until_published(&session, "tailwater");
    stop(daemon);
}

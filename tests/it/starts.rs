//! Starts beside others, and publications that changed: what was a wrong refusal, and what was
//! skipped without a word.

use std::{
    collections::HashSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::{
    refusals::{Shop, insert, published, refuse, settings, topic},
    support::{
        PATIENCE,
        daemon::{self, Daemon, Ended},
        kafka::Broker,
        postgres::{Server, Session},
        scene::{init, publishing, stop, wait_until_published},
        settings::SettingsFile,
        wait_until, workload,
    },
};

/// How often what depends on the moment is tried.
const ROUNDS: usize = 10;

/// Inserts a row a few milliseconds after the other, as long as `work` takes.
fn under_load<T>(server: &Server, work: impl FnOnce() -> T) -> T {
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            let session = server.session("shop");
            while goes_on.load(Ordering::Relaxed) {
                insert(&session, 1);
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        goes_on.store(false, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Ends with that code, as [`refuse`] has it, but for a daemon that runs already.
fn stops(daemon: Daemon, code: &str, words: &str) -> Ended {
    let ended = daemon.wait(PATIENCE);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.is_code(code), "{}", ended.stderr);
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
    ended
}

fn assert_each_row_is_published_once(shop: &Shop) {
    let ids: Vec<String> = Broker::shared()
        .read_committed(&topic(shop))
        .iter()
        .map(|record| record.json()["id"].as_str().expect("an id").to_owned())
        .collect();
    let distinct: HashSet<&String> = ids.iter().collect();
    let committed = shop.session.value("SELECT count(*) FROM outbox_events").expect("a count");
    assert_eq!((ids.len().to_string(), distinct.len()), (committed, ids.len()));
}

#[test]
fn init_beside_a_daemon_under_load_is_not_refused() {
    let shop = Shop::initialised();
    let daemon = publishing(&shop.settings);
    under_load(&shop.server, || (0..ROUNDS).for_each(|_| init(&shop.settings)));
    stop(daemon);
}

#[test]
fn a_second_run_waits_beside_a_daemon_under_load_and_takes_over() {
    let shop = Shop::initialised();
    let last = under_load(&shop.server, || {
        let mut first = publishing(&shop.settings);
        // Each of them looks at a checkpoint that moves.
        for _ in 0..ROUNDS {
            let second = Daemon::start(&shop.settings);
            wait_until("the second to stand by", PATIENCE, || {
                assert!(!second.stderr().contains("code="), "{}", second.stderr());
                second.stderr().contains("is in use by process")
            });
            first.kill();
            second.wait_for("publishing");
            first = second;
        }
        first
    });
    wait_until_published(&shop.session, "tailwater");
    stop(last);
    assert_each_row_is_published_once(&shop);
}

#[test]
fn a_publication_that_publishes_no_inserts_is_refused() {
    let shop = Shop::initialised();
    shop.session.run("ALTER PUBLICATION tailwater SET (publish = 'update, delete')");
    shop.refuse("publication_gap", "SET (publish = 'insert, update, delete')");
}

#[test]
fn a_publication_that_stops_publishing_inserts_stops_a_running_daemon() {
    let shop = Shop::initialised();
    let daemon = publishing(&shop.settings);
    shop.session.run("ALTER PUBLICATION tailwater SET (publish = 'update')");
    insert(&shop.session, 1);
    stops(daemon, "publication_gap", "SET (publish = 'insert, update')");
}

#[test]
fn a_publication_that_was_altered_while_nobody_looked_is_warned_of() {
    let shop = Shop::initialised();
    shop.publish(1);
    shop.session.run("ALTER PUBLICATION tailwater SET (publish = 'update')");
    shop.session.run("ALTER PUBLICATION tailwater SET (publish = 'insert')");
    let daemon = publishing(&shop.settings);
    daemon.wait_for("was altered since the last checkpoint");
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
}

/// Under the other publication the table's rows are decoded as of then: those from before it was
/// added are not sent.
#[test]
fn another_publication_that_got_the_table_later_is_refused() {
    let shop = Shop::initialised();
    shop.session.run("CREATE PUBLICATION other WITH (publish = 'insert')");
    shop.publish(3);
    insert(&shop.session, 3);
    shop.session.run("ALTER PUBLICATION other ADD TABLE outbox_events");
    let shop = other_publication(shop);
    let ended = shop.refuse("publication_gap", "publication = \"tailwater\"");
    assert!(ended.stderr.contains("publication \"other\""), "{}", ended.stderr);
}

#[test]
fn another_publication_that_published_no_inserts_before_is_refused() {
    let shop = Shop::initialised();
    shop.session.run("CREATE PUBLICATION other FOR TABLE outbox_events WITH (publish = 'update')");
    let daemon = publishing(&shop.settings);
    wait_until_slot_has_passed(&shop);
    stop(daemon);
    insert(&shop.session, 3);
    shop.session.run("ALTER PUBLICATION other SET (publish = 'insert')");
    other_publication(shop).refuse("publication_gap", "publication = \"tailwater\"");
}

#[test]
fn another_publication_is_taken_where_it_held_the_table_all_the_time() {
    let shop = Shop::initialised();
    shop.session.run("CREATE PUBLICATION other FOR TABLE outbox_events WITH (publish = 'insert')");
    let daemon = publishing(&shop.settings);
    insert(&shop.session, 3);
    wait_until_slot_has_passed(&shop);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    insert(&shop.session, 3);
    let shop = other_publication(shop);
    let daemon = publishing(&shop.settings);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_each_row_is_published_once(&shop);
}

fn other_publication(shop: Shop) -> Shop {
    shop.with_settings(|settings| settings.with("[postgres]", "publication = \"other\""))
}

/// Waits until the slot needs no catalog row from before those of the other publication. The
/// server writes down which transactions run at each of its checkpoints.
fn wait_until_slot_has_passed(shop: &Shop) {
    let sql = "SELECT age(r.xmin) > age(s.catalog_xmin) FROM pg_replication_slots s, \
               pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid \
               WHERE p.pubname = 'other'";
    wait_until("the slot to have passed the other publication's making", PATIENCE, || {
        insert(&shop.session, 1);
        shop.session.run("CHECKPOINT");
        shop.session.value(sql).as_deref() == Some("t")
    });
}

#[test]
fn a_schema_that_was_out_of_the_publication_is_refused() {
    let shop = Shop::open();
    let schema = "TABLES IN SCHEMA public";
    shop.session.run(&format!(
        "CREATE PUBLICATION tailwater FOR {schema} WITH (publish = 'insert', \
         publish_via_partition_root = true)"
    ));
    init(&shop.settings);
    shop.publish(3);
    shop.session.run(&format!("ALTER PUBLICATION tailwater DROP {schema}"));
    insert(&shop.session, 3);
    shop.session.run(&format!("ALTER PUBLICATION tailwater ADD {schema}"));
    shop.refuse("publication_gap", "outbox_events");
}

/// Between two looks of the watch, all is as it was; but the stream says the name.
#[test]
fn a_row_under_another_name_of_its_table_stops_the_daemon() {
    let shop = Shop::initialised();
    let daemon = publishing(&shop.settings);
    insert(&shop.session, 3);
    shop.session.run(
        "BEGIN; ALTER TABLE outbox_events RENAME TO parked; \
         INSERT INTO parked (id, aggregate_id, event_type, payload) \
         VALUES (gen_random_uuid(), 'a', 'order.placed', '{}'); \
         ALTER TABLE parked RENAME TO outbox_events; COMMIT",
    );
    stops(daemon, "publication_gap", "public.parked");
    assert_eq!(published(&shop), 3);
}

#[test]
fn a_row_of_another_table_under_a_configured_name_stops_the_daemon() {
    let shop = Shop::initialised();
    let daemon = publishing(&shop.settings);
    insert(&shop.session, 3);
    shop.session.run(
        "BEGIN; ALTER TABLE outbox_events RENAME TO parked; \
         CREATE TABLE outbox_events (LIKE parked INCLUDING ALL); \
         ALTER PUBLICATION tailwater ADD TABLE outbox_events; \
         INSERT INTO outbox_events (id, aggregate_id, event_type, payload) \
         VALUES (gen_random_uuid(), 'a', 'order.placed', '{}'); \
         DROP TABLE outbox_events; ALTER TABLE parked RENAME TO outbox_events; COMMIT",
    );
    stops(daemon, "publication_gap", "public.outbox_events");
    assert_eq!(published(&shop), 3);
}

#[test]
fn who_would_be_refused_does_not_wait_for_the_slot() {
    let shop = Shop::initialised();
    let daemon = publishing(&shop.settings);
    shop.session.run("CREATE PUBLICATION other FOR TABLE outbox_events");
    let other = settings_with_other_publication(&shop);
    refuse(&other, "publication_gap", "publication = \"tailwater\"");
    stop(daemon);
}

fn settings_with_other_publication(shop: &Shop) -> SettingsFile {
    let text = fs::read_to_string(shop.settings.path()).expect("settings");
    SettingsFile::of_text(text).with("[postgres]", "publication = \"other\"")
}

/// Nothing that a start makes is there.
fn assert_nothing_was_made(session: &Session) {
    let sql = "SELECT (SELECT count(*) FROM pg_replication_slots) + \
               (SELECT count(*) FROM pg_publication)";
    assert_eq!(session.value(sql).as_deref(), Some("0"));
}

#[test]
fn a_first_start_that_is_refused_makes_nothing() {
    let shop = Shop::open()
        .with_settings(|settings| settings.with("[[outbox]]", "columns = { payload = \"body\" }"));
    shop.refuse("column_missing", "columns");
    assert_nothing_was_made(&shop.session);
    let ended = daemon::run(&["init"], &shop.settings);
    assert!(ended.is_code("column_missing"), "{}", ended.stderr);
    assert_nothing_was_made(&shop.session);
}

#[test]
fn a_table_that_does_not_exist_is_refused_and_nothing_is_made() {
    let shop = Shop::open()
        .with_settings(|settings| settings.replaced("public.outbox_events", "public.outbox"));
    for command in ["run", "init"] {
        let ended = daemon::run(&[command], &shop.settings);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.is_code("settings"), "{}", ended.stderr);
        assert!(ended.stderr.contains("\"public.outbox_events\""), "{}", ended.stderr);
        assert_nothing_was_made(&shop.session);
    }
}

#[test]
fn init_that_is_refused_leaves_the_publication_as_it_is() {
    let shop = Shop::initialised();
    shop.session.run("ALTER PUBLICATION tailwater DROP TABLE outbox_events");
    let refused = daemon::run(&["init"], &shop.settings);
    assert!(refused.is_code("publication_gap"), "{}", refused.stderr);
    let shop = shop.with_settings(|settings| settings.replaced("source = \"", "source = \"other-"));
    let refused = daemon::run(&["init"], &shop.settings);
    assert!(refused.is_code("foreign_slot"), "{}", refused.stderr);
    let tables = shop.session.value("SELECT count(*) FROM pg_publication_tables");
    assert_eq!(tables.as_deref(), Some("0"));
}

#[test]
fn init_adds_a_newly_configured_table() {
    let shop = Shop::initialised();
    shop.session.run("CREATE TABLE second (LIKE outbox_events INCLUDING ALL)");
    let shop = shop.with_settings(|settings| {
        settings.replaced("[[outbox]]", "[[outbox]]\ntable = \"public.second\"\n\n[[outbox]]")
    });
    shop.refuse("publication_gap", "ADD TABLE \"public\".\"second\"");
    init(&shop.settings);
    stop(publishing(&shop.settings));
}

/// Somebody else's transaction in the checkpoint topic holds the read of a start; the connection
/// that it holds the slot by is lost again and again.
#[test]
fn starts_that_were_given_up_leave_nothing_behind() {
    let shop = Shop::initialised();
    let checkpoints = shop.settings.checkpoint_topic();
    let other: BaseProducer =
        Broker::shared().client().set("transactional.id", checkpoints).create().expect("made");
    other.init_transactions(PATIENCE).expect("initialised");
    other.begin_transaction().expect("begun");
    other.send(BaseRecord::to(checkpoints).key("9/x/y").payload("{}")).expect("sent");
    other.flush(PATIENCE).expect("flushed");
    let daemon = Daemon::start(&shop.settings);
    let waiting = |times: usize| {
        wait_until("another start that waits", PATIENCE, || {
            daemon.stderr().matches("waiting for another pipeline's").count() >= times
        });
    };
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
        tasks.count()
    };
    waiting(1);
    let before = threads();
    for times in 2..7 {
        shop.session.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots");
        waiting(times);
    }
    wait_until("the threads of given up starts to end", Duration::from_secs(10), || {
        threads() <= before + 2
    });
    other.abort_transaction(PATIENCE).expect("aborted");
    daemon.wait_for("publishing");
    stop(daemon);
}

/// Two first starts, of which one is held where it said that until the other one publishes.
fn overtaken(words: &str, second_source: bool) {
    let shop = Shop::open();
    let text = fs::read_to_string(shop.settings.path()).expect("settings");
    let mut others = SettingsFile::of_text(text);
    if second_source {
        others = others.replaced("source = \"", "source = \"other-");
    }
    let mut held = Daemon::start(&others);
    let until = Instant::now() + PATIENCE;
    // At once: what it would do next takes milliseconds.
    while !held.stderr().contains(words) {
        assert!(Instant::now() < until && held.is_running(), "{}", held.stderr());
    }
    held.signal(libc::SIGSTOP);
    let first = publishing(&shop.settings);
    held.signal(libc::SIGCONT);
    let held = if second_source {
        stops(held, "foreign_slot", "belongs to source");
        None
    } else {
        wait_until("the one that was held to wait", PATIENCE, || {
            assert!(!held.stderr().contains("code="), "{}", held.stderr());
            held.stderr().contains("is in use by process")
        });
        Some(held)
    };
    insert(&shop.session, 3);
    wait_until_published(&shop.session, "tailwater");
    assert!(!first.stderr().contains("starting over"), "{}", first.stderr());
    stop(first);
    drop(held);
    assert_eq!(published(&shop), 3);
}

#[test]
fn a_first_start_that_is_overtaken_before_its_look_waits() {
    overtaken("checkpoint topic created", false);
}

#[test]
fn a_first_start_that_is_overtaken_before_its_intent_fences_nobody() {
    overtaken("created the publication", false);
}

#[test]
fn a_first_start_of_another_source_that_is_overtaken_is_refused() {
    overtaken("created the publication", true);
}

/// A fresh database of its own on a shared server, with a slot of its own.
fn fresh(server: &Server, round: usize) -> (Session, SettingsFile) {
    let name = format!("fresh_{round}");
    let session = server.create_database(&name);
    workload::create_tables(&session);
    let settings = settings(server, Broker::shared())
        .replaced("/shop\"", &format!("/{name}\""))
        .with("[postgres]", &format!("slot = \"{name}\""));
    (session, settings)
}

#[test]
fn of_two_first_starts_at_once_one_publishes_and_one_waits() {
    let server = Server::start();
    for round in 0..ROUNDS {
        let (session, settings) = fresh(&server, round);
        let daemons = [Daemon::start(&settings), Daemon::start(&settings)];
        wait_until("one to publish and one to wait", PATIENCE, || {
            let said: Vec<String> = daemons.iter().map(Daemon::stderr).collect();
            for text in &said {
                assert!(!text.contains("code="), "{text}");
            }
            let publish = said.iter().filter(|text| text.contains("publishing")).count();
            let wait = said.iter().filter(|text| text.contains("is in use by process")).count();
            assert!(publish <= 1, "both publish");
            publish == 1 && wait >= 1
        });
        insert(&session, 1);
        wait_until_published(&session, &format!("fresh_{round}"));
        daemons.into_iter().for_each(|daemon| drop(daemon.kill()));
        drop_slot(&session);
    }
}

#[test]
fn of_two_first_starts_of_two_sources_one_is_refused() {
    let server = Server::start();
    for round in 0..ROUNDS {
        let (session, first) = fresh(&server, round);
        let text = fs::read_to_string(first.path()).expect("settings");
        let second = SettingsFile::of_text(text).replaced("source = \"", "source = \"other-");
        let mut daemons = vec![Daemon::start(&first), Daemon::start(&second)];
        let mut refused = None;
        wait_until("one to be refused", PATIENCE, || {
            refused = daemons.iter_mut().position(|daemon| !daemon.is_running());
            refused.is_some()
        });
        let refused = daemons.swap_remove(refused.expect("waited for"));
        stops(refused, "foreign_slot", "belongs to source");
        let other = daemons.pop().expect("the other one");
        other.wait_for("publishing");
        insert(&session, 1);
        wait_until_published(&session, &format!("fresh_{round}"));
        stop(other);
        drop_slot(&session);
    }
}

/// A rival at a first start writes its checkpoint once its slot is whole: one that is being made beside
/// a checkpoint is not the checkpoint's.
#[test]
fn a_slot_that_is_being_made_beside_a_checkpoint_is_not_waited_for() {
    let shop = Shop::initialised();
    shop.session.run("SELECT pg_drop_replication_slot('tailwater')");
    let create = "SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')";
    thread::scope(|scope| {
        // Making a slot waits for those who write.
        let writer = shop.server.session("shop");
        writer.run("BEGIN; SELECT pg_current_xact_id()");
        scope.spawn(|| shop.server.session("shop").run(create));
        wait_until("the slot to be in the making", PATIENCE, || {
            let sql = "SELECT count(*) FROM pg_replication_slots \
                WHERE plugin = 'pgoutput' AND confirmed_flush_lsn IS NULL";
            shop.session.value(sql).as_deref() == Some("1")
        });
        refuse(&shop.settings, "slot_missing", "postgres.slot");
        let status = daemon::run(&["status", "--json"], &shop.settings).stdout;
        assert!(status.contains("\"state\":\"slot_lost\""), "{status}");
        drop(writer);
    });
    refuse(&shop.settings, "checkpoint_behind_slot", "pg_replication_slots");
}

/// The server frees a slot some moments after its reader is gone.
fn drop_slot(session: &Session) {
    wait_until("the slot to be free", PATIENCE, || {
        session
            .try_run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
            .is_ok()
    });
}

/// PostgreSQL 18 says of a publication that is missing in the log only a notice, which a role may
/// not want to see.
#[test]
fn a_roles_message_level_does_not_hide_a_missing_publication() {
    let server = Server::start_version(18);
    let session = crate::support::scene::shop(&server);
    session.run("ALTER ROLE postgres SET client_min_messages = error");
    let settings = settings(&server, Broker::shared());
    init(&settings);
    let daemon = publishing(&settings);
    session.run("DROP PUBLICATION tailwater");
    insert(&session, 1);
    stops(daemon, "publication_missing", "at this point in the WAL");
}

/// Such a server gives up on a walsender whose client is paused for that long.
#[test]
fn a_short_wal_sender_timeout_of_the_server_is_not_ours() {
    let shop = Shop::open_with(&[("wal_sender_timeout", "1s")]);
    init(&shop.settings);
    let daemon = publishing(&shop.settings);
    daemon.signal(libc::SIGSTOP);
    let paused_at = Instant::now();
    let walsender = "SELECT count(*) FROM pg_stat_replication";
    wait_until("three seconds, or the walsender's end", PATIENCE, || {
        paused_at.elapsed() > Duration::from_secs(3)
            || shop.session.value(walsender).as_deref() == Some("0")
    });
    assert_eq!(shop.session.value(walsender).as_deref(), Some("1"));
    daemon.signal(libc::SIGCONT);
    insert(&shop.session, 1);
    wait_until_published(&shop.session, "tailwater");
    assert!(!daemon.stderr().contains("starting over"), "{}", daemon.stderr());
    stop(daemon);
}

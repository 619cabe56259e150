//! `init --take-over`: rows that waited for a poller, before the stream's, each once and in order,
//! whatever is killed in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value as Json;
use tailwater::postgres::{TableName, snapshot::SnapshotReader};

use crate::{
    refusals::{self, Shop, published, refuse, topic},
    support::{
        PATIENCE,
        daemon::{self, Daemon, Ended},
        kafka::{Broker, Record},
        let_pass,
        postgres::{Server, Session},
        scene::{self, Ends, init, publishing, stop, wait_until_published},
        settings::SettingsFile,
        wait_until,
    },
};

const TABLE: &str = "public.outbox_events";
const CONDITION: &str = "status = 'pending'";

fn arguments() -> [&'static str; 6] {
    ["init", "--take-over", TABLE, "--where", CONDITION, "--json"]
}

fn take_over(settings: &SettingsFile) -> Ended {
    daemon::run(&arguments(), settings)
}

fn taken_over(settings: &SettingsFile) -> Json {
    let ended = take_over(settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("one line of JSON")
}

/// Rows of twenty aggregates, each with its version, and every third one published by the poller.
fn wait_for_a_poller(session: &Session, rows: u32) {
    session.run(&format!(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload, status, created_at) \
         SELECT gen_random_uuid(), 'order-' || n % 20, 'order.placed', \
             jsonb_build_object('version', n, 'filler', repeat('x', 300)), \
             CASE WHEN n % 3 = 0 THEN 'published' ELSE 'pending' END, \
             '2026-01-01'::timestamptz + n * interval '1 second' \
         FROM generate_series(1, {rows}) n ORDER BY random()"
    ));
}

/// Everything on Kafka by id: once, and per key in the order of versions.
fn judge(settings: &SettingsFile, topic: &str, expected: &BTreeSet<String>) {
    let mut found = BTreeSet::new();
    let mut versions: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    Broker::shared().for_each_committed(topic, |record| {
        let id = record.header("event-id").expect("an id").to_owned();
        assert!(found.insert(id.clone()), "{id} is doubled");
        let version = record.json()["data"]["version"].as_u64().expect("a version");
        let key = record.key.clone().expect("a key");
        let before = versions.insert(key, version);
        assert!(before.is_none_or(|before| before < version), "{id}: {version} after {before:?}");
    });
    let lost: Vec<_> = expected.difference(&found).take(5).collect();
    let invented: Vec<_> = found.difference(expected).take(5).collect();
    let (lost, invented) = (format!("{lost:?}"), format!("{invented:?}"));
    let why = format!("lost {lost}, invented {invented}, {}", settings.path().display());
    assert_eq!(expected.len(), found.len(), "{why}");
    assert_eq!((lost.as_str(), invented.as_str()), ("[]", "[]"));
}

fn ids(session: &Session, condition: &str) -> BTreeSet<String> {
    let rows = session.rows(&format!("SELECT id FROM outbox_events WHERE {condition}"));
    rows.into_iter().filter_map(|mut row| row.pop().flatten()).collect()
}

#[test]
fn rows_that_wait_come_first_and_carry_no_transaction() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 300);
    let said = taken_over(&shop.settings);
    assert_eq!((&said["rows"], &said["changed"]), (&200.into(), &true.into()));
    let records = Broker::shared().read_committed(&topic(&shop));
    assert_eq!(records.len(), 200);
    for record in &records {
        assert_eq!(record.header("pg-lsn"), said["commit_end_lsn"].as_str());
        assert_eq!((record.header("pg-seq"), record.header("pg-xid")), (None, None));
        let age_ms = jiff::Timestamp::now().as_millisecond() - record.timestamp_ms;
        assert!((0..60_000).contains(&age_ms), "the time of the read: {age_ms}");
        let occurred_at = record.json()["occurredAt"].as_str().expect("a time").to_owned();
        assert!(occurred_at.starts_with("2026-01-01T0"), "{occurred_at}");
    }
    judge(&shop.settings, &topic(&shop), &ids(&shop.session, CONDITION));
    shop.assert_publishes();
    assert_eq!(published(&shop), 201);
}

#[test]
fn a_take_over_that_is_repeated_does_nothing() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 30);
    taken_over(&shop.settings);
    let again = taken_over(&shop.settings);
    assert_eq!((&again["rows"], &again["changed"]), (&20.into(), &false.into()));
    let daemon = publishing(&shop.settings);
    assert_eq!(taken_over(&shop.settings)["changed"], false, "also beside the daemon");
    stop(daemon);
    shop.assert_publishes();
    assert_eq!(taken_over(&shop.settings)["changed"], false);
    assert_eq!(published(&shop), 21);
}

#[test]
fn what_cannot_be_taken_over_is_refused_before_anything_is_made() {
    let shop = Shop::open();
    let refused = |condition: &str, words: &str| {
        let ended =
            daemon::run(&["init", "--take-over", TABLE, "--where", condition], &shop.settings);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.is_code("settings") && ended.stderr.contains(words), "{}", ended.stderr);
    };
    refused("statuss = 'pending'", "statuss");
    refused("status = 'pending", "unterminated");
    refused("true); DROP TABLE orders; SELECT (1", "cannot insert multiple commands");
    let ended =
        daemon::run(&["init", "--take-over", "public.orders", "--where", "true"], &shop.settings);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert_eq!(daemon::run(&["init", "--take-over", TABLE], &shop.settings).code, Some(2));
    for made in ["pg_publication", "pg_replication_slots"] {
        let count = shop.session.value(&format!("SELECT count(*) FROM {made}"));
        assert_eq!(count.as_deref(), Some("0"), "{made}");
    }
    shop.session.run("ALTER TABLE outbox_events RENAME created_at TO at");
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("column_missing"), "{}", ended.stderr);
    shop.session.run("ALTER TABLE outbox_events RENAME at TO created_at");
    init(&shop.settings);
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert!(ended.stderr.contains("without a take-over"), "{}", ended.stderr);
}

#[test]
fn a_role_needs_the_right_to_read_the_rows() {
    let shop = Shop::open().with_settings(|settings| {
        settings.replaced("postgres://postgres@", "postgres://tailwater@")
    });
    wait_for_a_poller(&shop.session, 30);
    shop.session.run(
        "CREATE ROLE tailwater LOGIN REPLICATION; CREATE ROLE publisher; \
         CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'insert')",
    );
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("no_replication_role"), "{}", ended.stderr);
    let hint = ended.stderr.trim_end().lines().last().unwrap_or_default();
    let grant = hint.split_once("Run: ").and_then(|(_, rest)| rest.split_once(" Where "));
    shop.session.run(grant.expect("SQL").0);
    assert_eq!(taken_over(&shop.settings)["rows"], 20);
}

/// Stopped in the middle, by a row that is mended afterwards. How many rows are out.
fn interrupted(shop: &Shop) -> usize {
    let middle = "payload->>'version' = '200'";
    shop.session.run(&format!("UPDATE outbox_events SET event_type = NULL WHERE {middle}"));
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("event_unmappable"), "{}", ended.stderr);
    shop.session.run(&format!("UPDATE outbox_events SET event_type = 'order.paid' WHERE {middle}"));
    let_go(shop);
    published(shop)
}

/// The server frees the slot of a process that ended when it notices.
fn let_go(shop: &Shop) {
    wait_until("the slot to be free", PATIENCE, || {
        shop.session.value("SELECT active FROM pg_replication_slots").as_deref() == Some("f")
    });
}

#[test]
fn nothing_else_is_done_while_a_take_over_is_unfinished() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 300);
    assert_eq!(interrupted(&shop), 133);
    let ended = refuse(&shop.settings, "snapshot_interrupted", "tailwater init --take-over");
    assert!(ended.stderr.contains(TABLE), "{}", ended.stderr);
    for arguments in [
        &["init"][..],
        &["init", "--adopt-slot", "--yes"],
        &["reset", "--to-slot", "--yes"],
        &["reset", "--to-now", "--yes"],
    ] {
        let ended = daemon::run(arguments, &shop.settings);
        assert!(ended.is_code("snapshot_interrupted"), "{arguments:?}: {}", ended.stderr);
    }
    let status = daemon::run(&["status"], &shop.settings);
    let words = format!("`tailwater init --take-over {TABLE}`");
    assert!(status.stdout.contains(&words), "{}", status.stdout);
    let other = ["init", "--take-over", TABLE, "--where", "true"];
    let ended = daemon::run(&other, &shop.settings);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert!(ended.stderr.contains(CONDITION), "{}", ended.stderr);
    assert!(ended.stderr.contains("133 rows are published"), "{}", ended.stderr);
    assert_eq!(taken_over(&shop.settings)["rows"], 200);
    judge(&shop.settings, &topic(&shop), &ids(&shop.session, CONDITION));
    shop.assert_publishes();
}

/// The intent is there and the slot is not: its creation waits for a transaction that is open. The
/// server does not notice meanwhile that nobody waits for it any more, and may make it after all.
#[test]
fn a_take_over_that_is_killed_before_its_slot_is_there_goes_on() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 300);
    let open = shop.server.session("shop");
    open.run("BEGIN; INSERT INTO audit_log (what) VALUES ('open')");
    let command = Daemon::start_with(&arguments(), &shop.settings);
    command.wait_for("creating the slot waits for the end of the transaction");
    command.kill_command();
    assert_refused_beside_a_slot_in_the_making(&shop);
    // What is committed meanwhile waits too.
    wait_for_a_poller(&shop.session, 30);
    open.run("COMMIT");
    assert_eq!(taken_over(&shop.settings)["rows"], 220);
    shop.assert_publishes();
    assert_eq!(published(&shop), 221);
}

#[test]
fn a_take_over_works_where_slots_survive_a_failover() {
    let server = Server::start_version(18);
    let session = scene::shop(&server);
    let settings = refusals::settings(&server, Broker::shared());
    let shop = Shop { server, session, settings };
    wait_for_a_poller(&shop.session, 300);
    interrupted(&shop);
    let failover = shop.session.value("SELECT failover FROM pg_replication_slots");
    assert_eq!(failover.as_deref(), Some("t"));
    assert_eq!(taken_over(&shop.settings)["rows"], 200);
    judge(&shop.settings, &topic(&shop), &ids(&shop.session, CONDITION));
    shop.assert_publishes();
}

/// What lies between is in no stream, and may stand before the last row in the order. A reset, which
/// would be the way out of a pipeline that publishes, waits for the take-over's end.
#[test]
fn a_slot_that_was_moved_under_a_take_over_is_refused_with_a_way_out() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 300);
    interrupted(&shop);
    wait_for_a_poller(&shop.session, 3);
    shop.session.run("SELECT pg_replication_slot_advance('tailwater', pg_current_wal_lsn())");
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("checkpoint_behind_slot"), "{}", ended.stderr);
    assert!(ended.stderr.contains("the 133 rows that are out"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("tailwater reset"), "{}", ended.stderr);
    let_go(&shop);
    begin_anew_as_told(shop, &ended, 202, 133);
}

#[test]
fn a_publication_that_was_dropped_under_a_take_over_is_refused_with_a_way_out() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 300);
    interrupted(&shop);
    shop.session.run("DROP PUBLICATION tailwater");
    wait_for_a_poller(&shop.session, 3);
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("publication_missing"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("tailwater reset"), "{}", ended.stderr);
    begin_anew_as_told(shop, &ended, 202, 133);
}

#[test]
fn a_slot_that_was_dropped_under_a_take_over_is_refused_with_a_way_out() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 300);
    interrupted(&shop);
    shop.session.run("SELECT pg_drop_replication_slot('tailwater')");
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("slot_missing"), "{}", ended.stderr);
    shop.session.run("SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')");
    begin_anew_as_told(shop, &ended, 200, 133);
}

/// Does what the hint says: everything that waits comes out, and what was out already comes twice.
fn begin_anew_as_told(shop: Shop, ended: &Ended, waiting: usize, out: usize) {
    let hint = ended.stderr.trim_end().lines().last().unwrap_or_default().to_owned();
    let sql = hint.split_once("run ").and_then(|(_, rest)| rest.split_once(';'));
    shop.session.run(sql.expect("SQL").0);
    assert!(hint.contains("set another postgres.slot"), "{hint}");
    let shop = shop.with_settings(|settings| settings.with("[postgres]", "slot = \"another\""));
    assert_eq!(taken_over(&shop.settings)["rows"], waiting);
    let found = Broker::shared().read_committed(&topic(&shop));
    let found: BTreeSet<String> =
        found.iter().filter_map(|record| record.header("event-id")).map(str::to_owned).collect();
    assert_eq!(found, ids(&shop.session, CONDITION));
    assert_eq!(published(&shop), waiting + out);
    shop.assert_publishes();
}

/// PostgreSQL takes the condition, and cannot tell it of every row.
#[test]
fn a_condition_that_fails_for_a_row_can_be_corrected() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 30);
    let with = |condition: &str| {
        daemon::run(&["init", "--take-over", TABLE, "--where", condition, "--json"], &shop.settings)
    };
    let ended = with("(payload->>'filler')::int > 0");
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert!(ended.stderr.contains("invalid input syntax"), "{}", ended.stderr);
    assert_eq!(published(&shop), 0);
    let_go(&shop);
    // Nothing is due by this one: the record has it all the same.
    let ended = with("status = 'nobody has this'");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let record = Broker::shared()
        .read_committed(shop.settings.checkpoint_topic())
        .into_iter()
        .rfind(|record| is_record_of(record, &shop))
        .expect("a record");
    assert_eq!(record.json()["condition"], "status = 'nobody has this'");
    shop.assert_publishes();
}

fn is_record_of(record: &Record, shop: &Shop) -> bool {
    let system_id = shop.session.value("SELECT system_identifier FROM pg_control_system()");
    let key = format!("{}/shop/tailwater/snapshot/{TABLE}", system_id.expect("an identifier"));
    record.key.as_deref() == Some(key.as_bytes())
}

/// The slot is made while it waits for the standby: its commit lies below the consistent point, so
/// the stream does not have it, and no snapshot of ours shows it until its commit is over. Nothing
/// with a higher number has ended.
#[test]
fn a_commit_that_waits_for_a_standby_is_waited_for_by_a_later_attempt() {
    let shop = Shop::open_with(&[("autovacuum", "off")]);
    wait_for_a_poller(&shop.session, 30_000);
    let [first, second, late] = [(); 3].map(|()| shop.server.session("shop"));
    let open = |session: &Session| {
        session.run("BEGIN");
        session.value("SELECT pg_current_xact_id()").expect("a number")
    };
    open(&first);
    let command = Daemon::start_with(&arguments(), &shop.settings);
    command.wait_for("creating the slot waits for");
    let number = open(&second);
    first.run("ROLLBACK");
    wait_until("the slot to wait for the second transaction", PATIENCE, || {
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid::text = '{number}'"
        );
        shop.session.value(&sql).as_deref() == Some("1")
    });
    shop.session.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    shop.server.reload();
    // Not waited for where an assertion fails.
    let commits = thread::spawn(move || {
        late.run(
            "INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) VALUES \
             (gen_random_uuid(), 'late', 'order.placed', '{\"version\": 1}', now())",
        );
    });
    wait_until("the commit to wait for the standby", PATIENCE, || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        shop.session.value(sql).as_deref() == Some("1")
    });
    second.run("ROLLBACK");
    command.wait_for("created the slot");
    command.kill_command();
    let_go(&shop);
    let command = Daemon::start_with(&arguments(), &shop.settings);
    command.wait_for("waits for the end of the transaction of process");
    shop.session.run("ALTER SYSTEM RESET synchronous_standby_names");
    shop.server.reload();
    commits.join().expect("committed");
    let ended = command.wait(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    judge(&shop.settings, &topic(&shop), &ids(&shop.session, CONDITION));
}

/// Another slot in the same file would begin anew with the table that the first slot publishes, and
/// nobody would publish what is committed to that in between. The hint of both refusals is followed.
#[test]
fn a_second_table_is_taken_over_by_a_file_of_its_own() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 30);
    shop.session.run("CREATE TABLE second (LIKE outbox_events INCLUDING ALL)");
    shop.session.run("INSERT INTO second SELECT * FROM outbox_events");
    let second = |settings: &SettingsFile| {
        let arguments = ["init", "--take-over", "public.second", "--where", CONDITION, "--json"];
        daemon::run(&arguments, settings)
    };
    let outbox =
        "[[outbox]]\ntable = \"public.second\"\ntopic = \"{aggregate_type}\"\n\n[[outbox]]";
    let outbox = outbox.replace("{aggregate_type}", &format!("{}.second", topic(&shop)));
    let shop = shop.with_settings(|settings| settings.replaced("[[outbox]]", &outbox));
    taken_over(&shop.settings);
    let ended = second(&shop.settings);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert!(ended.stderr.contains("names this table alone"), "{}", ended.stderr);
    shop.publish(1);
    refusals::insert(&shop.session, 1);
    let slot = "slot = \"second\"\npublication = \"second\"";
    let both =
        settings_with(&shop, |text| text.replace("[postgres]", &format!("[postgres]\n{slot}")));
    let ended = second(&both);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert!(ended.stderr.contains("names table public.second alone"), "{}", ended.stderr);
    let alone = settings_with(&shop, |text| {
        let (first, last) = text.rsplit_once("[[outbox]]").expect("two of them");
        assert!(last.contains("outbox_events"), "{last}");
        first.replace("[postgres]", &format!("[postgres]\n{slot}"))
    });
    assert_eq!(second(&alone).code, Some(0));
    assert_eq!(Broker::shared().read_committed(&format!("{}.second", topic(&shop))).len(), 20);
    shop.assert_publishes();
    assert_eq!(published(&shop), 20 + 3);
}

fn settings_with(shop: &Shop, change: impl FnOnce(&str) -> String) -> SettingsFile {
    SettingsFile::of_text(change(&fs::read_to_string(shop.settings.path()).expect("settings")))
}

/// One that is no event, and one that no topic takes, among good ones. A row without an id stops it
/// all the same: a later attempt could not go on behind it.
#[test]
fn rows_that_cannot_be_published_become_dead_letters_where_so_set() {
    let shop = Shop::open().with_settings(|settings| {
        settings.replaced("[postgres]", "on_error = \"dead-letter\"\n\n[postgres]")
    });
    wait_for_a_poller(&shop.session, 300);
    shop.session.run(
        "UPDATE outbox_events SET event_type = NULL WHERE payload->>'version' = '100'; \
         UPDATE outbox_events SET payload = jsonb_build_object('large', repeat('x', 3000000)) \
         WHERE payload->>'version' = '200'",
    );
    shop.session.run(
        "ALTER TABLE outbox_events DROP CONSTRAINT outbox_events_pkey, ALTER id DROP NOT NULL; \
         INSERT INTO outbox_events (event_type, payload, created_at) VALUES ('order.paid', '{}', now())",
    );
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("event_unmappable"), "{}", ended.stderr);
    let_go(&shop);
    shop.session.run("DELETE FROM outbox_events WHERE id IS NULL");
    assert_eq!(taken_over(&shop.settings)["rows"], 200);
    assert_eq!(published(&shop), 198);
    let of_events = topic(&shop);
    let source = of_events.trim_end_matches(".order.events");
    for (topic, stage, original) in [
        (format!("{source}.dlq"), "map", None),
        (format!("{of_events}.dlq"), "publish", Some(of_events.as_str())),
    ] {
        let records = Broker::shared().read_committed(&topic);
        let [letter] = &*records else { panic!("{} in {topic}", records.len()) };
        assert_eq!(letter.header("failure-stage"), Some(stage));
        assert!(letter.header("failure-reason").is_some());
        assert_eq!(letter.header("original-topic"), original);
        assert!(letter.header("pg-lsn").is_some());
        assert_eq!((letter.header("pg-seq"), letter.header("pg-xid")), (None, None));
        if stage == "map" {
            assert_eq!(letter.header("original-table"), Some(TABLE));
            assert_eq!(letter.json()["status"], "pending");
        }
    }
}

/// The text of such an id as the stream has it ends with blanks.
#[test]
fn an_id_of_fixed_length_is_known_again_in_the_stream() {
    let shop = Shop::open();
    shop.session.run("ALTER TABLE outbox_events ALTER id TYPE char(40)");
    wait_for_a_poller(&shop.session, 300);
    assert_eq!(interrupted(&shop), 133);
    // The stream brings them, and another snapshot shows them, many behind the last row.
    wait_for_a_poller(&shop.session, 330);
    assert_eq!(taken_over(&shop.settings)["rows"], 200);
    shop.assert_publishes();
    assert_eq!(published(&shop), 200 + 330 + 1);
}

#[test]
fn rows_that_share_an_id_are_refused() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 30);
    shop.session.run("ALTER TABLE outbox_events DROP CONSTRAINT outbox_events_pkey");
    let again =
        "INSERT INTO outbox_events SELECT * FROM outbox_events WHERE status = 'pending' LIMIT 1";
    shop.session.run(again);
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    assert!(ended.stderr.contains("have the id"), "{}", ended.stderr);
    assert_eq!(published(&shop), 0);
    let_go(&shop);
    shop.session.run(
        "DELETE FROM outbox_events a USING outbox_events b WHERE a.id = b.id AND a.ctid > b.ctid",
    );
    assert_eq!(taken_over(&shop.settings)["rows"], 20);
}

#[test]
fn a_time_out_of_the_servers_for_transactions_does_not_end_the_reading() {
    let server = Server::start_version(18);
    let session = scene::shop(&server);
    let settings = refusals::settings(&server, Broker::shared());
    let shop = Shop { server, session, settings };
    wait_for_a_poller(&shop.session, 30_000);
    // The rows take longer than that.
    shop.session.run("ALTER ROLE postgres SET transaction_timeout = '300ms'");
    let ended = take_over(&shop.settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);
    assert_eq!(published(&shop), 20_000);
}

/// Four writers, one of them in subtransactions, insert rows of the same aggregates meanwhile:
/// versions follow the order of commits.
fn write(url: &str, writer: u32, goes_on: &AtomicBool) {
    let session = Session::open(url).expect("a connection");
    let mut random = fastrand::Rng::new();
    while goes_on.load(Ordering::Relaxed) {
        let aggregate = random.u32(0..20);
        let (savepoint, release) =
            if writer == 0 { ("SAVEPOINT s;", "RELEASE SAVEPOINT s;") } else { ("", "") };
        session.run(&format!(
            "BEGIN; {savepoint} UPDATE orders SET version = version + 1 WHERE id = 'order-{aggregate}';
             INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
             SELECT gen_random_uuid(), id, 'order.paid', jsonb_build_object('version', version), \
                 clock_timestamp() FROM orders WHERE id = 'order-{aggregate}'; {release} COMMIT"
        ));
        // Some are changed after their insert, by another subtransaction.
        if random.u8(..) < 60 {
            session.run(
                "BEGIN; SAVEPOINT t; UPDATE outbox_events SET retry_count = retry_count + 1 WHERE id = \
                 (SELECT id FROM outbox_events WHERE status = 'pending' ORDER BY created_at DESC \
                  LIMIT 1 FOR UPDATE SKIP LOCKED); RELEASE SAVEPOINT t; COMMIT",
            );
        }
    }
}

#[test]
fn a_take_over_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 30_000);
    shop.session.run(
        "DELETE FROM orders; CREATE INDEX ON outbox_events (created_at) WHERE status = 'pending'; \
         INSERT INTO orders SELECT 'order-' || n, 100000, 0 FROM generate_series(0, 19) n",
    );
    let (url, goes_on) = (shop.server.url("shop"), AtomicBool::new(true));
    let mut kills = 0;
    thread::scope(|scope| {
        for writer in 0..4 {
            let (url, goes_on) = (&url, &goes_on);
            scope.spawn(move || write(url, writer, goes_on));
        }
        let ends = Ends(&goes_on);
        let mut random = fastrand::Rng::new();
        loop {
            let mut command = Daemon::start_with(&arguments(), &shop.settings);
            // The first ones come early: a quick machine needs less than a second for all of it.
            let_pass(Duration::from_millis(random.u64(20..200 * (kills + 1))));
            let is_done = !command.is_running();
            let ended = command.kill_command();
            if is_done && ended.code == Some(0) {
                break;
            }
            assert!(!is_done || ended.code.is_none(), "{}", ended.stderr);
            kills += 1;
            // It takes longer than all of these moments together on a machine that is slow enough.
            if kills == 12 {
                taken_over(&shop.settings);
                break;
            }
        }
        // The daemon follows while they go on.
        let daemon = publishing(&shop.settings);
        let_pass(Duration::from_secs(1));
        drop(ends);
        wait_until_published(&shop.session, "tailwater");
        stop(daemon);
    });
    eprintln!("killed {kills} times");
    assert!(kills > 0);
    judge(&shop.settings, &topic(&shop), &all_due(&shop.session));
}

/// What waited for the poller, and what was inserted since.
fn all_due(session: &Session) -> BTreeSet<String> {
    ids(session, "status = 'pending'")
}

#[test]
fn a_row_that_is_no_event_stops_a_take_over_after_all_before_it_and_can_be_mended() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 300);
    shop.session
        .run("UPDATE outbox_events SET event_type = NULL WHERE payload->>'version' = '100'");
    let ended = take_over(&shop.settings);
    assert!(ended.is_code("event_unmappable"), "{}", ended.stderr);
    assert!(ended.stderr.contains("Mend the row"), "{}", ended.stderr);
    assert_eq!(published(&shop), 66);
    refuse(&shop.settings, "snapshot_interrupted", "--take-over");
    shop.session
        .run("UPDATE outbox_events SET event_type = 'order.placed' WHERE event_type IS NULL");
    assert_eq!(taken_over(&shop.settings)["rows"], 200);
    judge(&shop.settings, &topic(&shop), &ids(&shop.session, CONDITION));
}

/// Settings of the database or the role change how values look, and must not change events.
#[test]
fn a_row_that_waited_becomes_the_event_that_a_streamed_row_becomes() {
    let shop = Shop::open().with_settings(|settings| {
        settings.with(
            "[[outbox]]",
            "headers = { at = \"at\", on = \"on_day\", ratio = \"ratio\", bytes = \"bytes\", span = \
             \"span\", total = \"total\" }",
        )
    });
    shop.session.run(
        "ALTER DATABASE shop SET datestyle = 'German, DMY'; \
         ALTER DATABASE shop SET timezone = 'America/New_York'; \
         ALTER DATABASE shop SET bytea_output = 'escape'; \
         ALTER DATABASE shop SET extra_float_digits = -3; \
         ALTER DATABASE shop SET intervalstyle = 'sql_standard'; \
         ALTER TABLE outbox_events ADD at timestamptz, ADD on_day date, ADD ratio float8, \
         ADD bytes bytea, ADD span interval, ADD total numeric",
    );
    let session = shop.server.session("shop");
    let insert = || {
        session.run(
            "INSERT INTO outbox_events VALUES (gen_random_uuid(), 'order-1', 'order.placed', \
             '{\"b\": 1.50, \"a\": null}', 'pending', '2026-02-03 04:05:06.789+00', 0, NULL, \
             '2026-07-08 09:10:11.5+00', '2026-02-03', 1.0::float8 / 3, '\\x00ff5c', '1 day 2 hours', \
             1.500)",
        );
    };
    insert();
    taken_over(&shop.settings);
    let daemon = publishing(&shop.settings);
    insert();
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    let records = Broker::shared().read_committed(&topic(&shop));
    let [waited, streamed] = records.as_slice() else { panic!("{} records", records.len()) };
    assert_eq!(without_identity(waited), without_identity(streamed));
    assert_eq!((&waited.key, waited.partition), (&streamed.key, streamed.partition));
    assert_eq!(waited.header("at"), Some("2026-07-08 09:10:11.5+00"));
    assert_eq!(waited.header("bytes"), Some("\\x00ff5c"));
    assert_eq!(waited.header("span"), Some("P1DT2H"));
}

/// Value and headers without what belongs to one row or one transaction.
fn without_identity(record: &Record) -> (String, Vec<(String, Vec<u8>)>) {
    let id = record.header("event-id").expect("an id");
    let value = String::from_utf8(record.value.clone().expect("a value")).expect("text");
    let own = ["event-id", "correlation-id", "pg-lsn", "pg-seq", "pg-xid"];
    let headers = record.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    (value.replace(id, "id"), headers.cloned().collect())
}

/// A snapshot that is older than a rewrite shows an empty table, which must not be taken for one.
#[test]
fn a_table_that_was_rewritten_behind_a_snapshot_is_noticed() {
    let shop = Shop::open();
    wait_for_a_poller(&shop.session, 30);
    let table = TableName { schema: "public".to_owned(), name: "outbox_events".to_owned() };
    let settings = shop.connection();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let is_rewritten = |snapshot: &str| {
        let read = async {
            let reader = SnapshotReader::import(&settings, snapshot, &table).await?;
            let answer = reader.is_rewritten(&table).await;
            // The connection ends when its task runs for the last time, and its lock with it.
            drop(reader);
            tokio::task::yield_now().await;
            answer
        };
        runtime.block_on(read).expect("answered")
    };
    let exporter = shop.server.session("shop");
    exporter.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let snapshot = exporter.value("SELECT pg_export_snapshot()").expect("a snapshot");
    assert!(!is_rewritten(&snapshot));
    shop.session.run("ALTER TABLE outbox_events ALTER retry_count TYPE bigint");
    assert!(is_rewritten(&snapshot));
}

/// The key of a bigserial is the order where there is no time, and the publication's row filter and
/// list of columns hold for rows that waited too.
#[test]
fn a_table_ordered_by_its_sequence_is_taken_over_as_it_is_published() {
    let shop = Shop::open();
    shop.session.run(
        "DROP TABLE outbox_events; CREATE TABLE outbox_events (id bigserial PRIMARY KEY, aggregate_id \
         text, event_type text, payload jsonb, status text DEFAULT 'pending', secret text); \
         INSERT INTO outbox_events (aggregate_id, event_type, payload) SELECT 'order-' || n % 3, \
         CASE WHEN n % 10 = 0 THEN 'internal.note' ELSE 'order.placed' END, \
         jsonb_build_object('version', n) FROM generate_series(1, 100) n; \
         CREATE PUBLICATION tailwater FOR TABLE outbox_events (id, aggregate_id, event_type, payload) \
         WHERE (event_type LIKE 'order.%') WITH (publish = 'insert')",
    );
    assert_eq!(taken_over(&shop.settings)["rows"], 90);
    let mut versions: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for record in Broker::shared().read_committed(&topic(&shop)) {
        let version = record.json()["data"]["version"].as_u64().expect("a version");
        let before = versions.insert(record.key.expect("a key"), version);
        assert!(before.is_none_or(|before| before < version));
    }
}

/// The server goes on making the slot, so whoever cannot see the unfinished take-over at once, because
/// a transaction of another test hides it on the shared broker, stands by for it.
fn assert_refused_beside_a_slot_in_the_making(shop: &Shop) {
    wait_until("a refusal", PATIENCE * 2, || {
        let mut daemon = Daemon::start(&shop.settings);
        for _ in 0..100 {
            if !daemon.is_running() {
                let ended = daemon.wait(PATIENCE);
                assert!(ended.is_code("snapshot_interrupted"), "{}", ended.stderr);
                assert!(ended.stderr.contains("--take-over"), "{}", ended.stderr);
                return true;
            }
            let_pass(Duration::from_millis(100));
        }
        false
    });
}

#[test]
fn a_large_table_is_taken_over_in_little_memory() {
    let shop = Shop::open();
    shop.session.run(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
         SELECT gen_random_uuid(), 'order-' || n % 20, 'order.placed', \
             jsonb_build_object('version', n, 'filler', repeat('x', 2000)), now() \
         FROM generate_series(1, 100000) n",
    );
    let mut command = Daemon::start_with(&arguments(), &shop.settings);
    let mut peak = 0;
    wait_until("the take-over to end", PATIENCE * 3, || {
        peak = peak.max(command.resident_bytes_peak());
        !command.is_running()
    });
    let ended = command.wait(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!((1..=64 << 20).contains(&peak), "{peak} bytes were resident");
    assert_eq!(published(&shop), 100_000);
}

//! The guarantee: each committed row is on Kafka once, in the order of commits per aggregate,
//! whole transactions only, whatever is killed in between.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    foreign::{self, KafkajsPartitions},
    kafka::Broker,
    oracle::{Oracle, Value},
    postgres::{Server, Session},
    proof_scale,
    reader::CommittedReader,
    sampler::Sampler,
    scaled,
    scene::{
        PARTITIONS, TOPICS, checkpoint, envelope_settings, init, judge, publishing, shop, stop,
        wait_until_published,
    },
    settings::SettingsFile,
    truth, wait_until,
    workload::{Payload, Workload},
};

/// The processes die, the machine does not: what was written stays in its page cache, so the
/// database need not wait for the disk.
const NO_FSYNC: [(&str, &str); 1] = [("fsync", "off")];

/// How often slot and checkpoint are compared at least, also in the smallest run.
const SAMPLES_MIN: u64 = 10;

#[test]
fn a_java_consumer_finds_each_committed_row_once_and_in_order() {
    let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let sampler = Sampler::start(&server, &broker);
    let daemon = Daemon::start(&settings);
    Workload::default().run(&server.url("shop"), scaled(1_000_000));
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    let mut oracle = Oracle::new(&session, Value::Envelope, PARTITIONS);
    foreign::java(&broker, &TOPICS, |record| oracle.take(&record));
    oracle.verdict().assert_exact();
}

#[test]
fn a_kafkajs_consumer_finds_the_same_between_aborted_records() {
    let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    for topic in TOPICS {
        broker.create_topic(topic, PARTITIONS as i32, &[]);
    }
    produce_and_abort(&broker);
    let daemon = publishing(&settings);
    Workload::default().run(&server.url("shop"), scaled(200_000));
    wait_until_published(&session, "tailwater");
    stop(daemon);
    produce_and_abort(&broker);
    let mut oracle = Oracle::new(&session, Value::Envelope, PARTITIONS);
    foreign::kafkajs(&broker.brokers(), &TOPICS, |record| oracle.take(&record));
    oracle.verdict().assert_exact();
}

/// Leaves records in each partition that no reader of what is committed may see.
fn produce_and_abort(broker: &Broker) {
    let producer: BaseProducer =
        broker.client().set("transactional.id", "aborted").create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("ready");
    producer.begin_transaction().expect("begun");
    for topic in TOPICS {
        for partition in 0..PARTITIONS as i32 {
            let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).payload("aborted");
            producer.send(record.partition(partition)).map_err(|(error, _)| error).expect("queued");
        }
    }
    producer.flush(PATIENCE).expect("written");
    producer.abort_transaction(PATIENCE).expect("aborted");
}

#[test]
fn data_payloads_reach_kafkajs_as_envelopes() {
    let (_server, broker, session) = published("data");
    let mut oracle = Oracle::new(&session, Value::Envelope, PARTITIONS);
    foreign::kafkajs(&broker.brokers(), &TOPICS, |record| oracle.take(&record));
    oracle.verdict().assert_exact();
}

#[test]
fn bare_payloads_reach_a_java_consumer_with_the_event_in_headers() {
    let (_server, broker, session) = published("bare");
    let mut oracle = Oracle::new(&session, Value::Bare, PARTITIONS);
    foreign::java(&broker, &TOPICS, |record| oracle.take(&record));
    oracle.verdict().assert_exact();
}

/// Payloads that are the event's data, published in that form.
fn published(form: &str) -> (Server, Broker, Session) {
    let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
    let session = shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop")
        .with("[[outbox]]", &format!("payload = \"{form}\""));
    let daemon = publishing(&settings);
    let sampler = Sampler::start(&server, &broker);
    let workload = Workload { payload: Payload::Data, ..Workload::default() };
    workload.run(&server.url("shop"), scaled(1_000_000));
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    (server, broker, session)
}

/// A team that changes over from a poller keeps each key's partition.
#[test]
fn keys_lie_where_each_partitioner_of_kafkajs_puts_them() {
    for partitioner in ["murmur2", "kafkajs-legacy"] {
        let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
        let session = shop(&server);
        let settings = envelope_settings(&server, &broker)
            .with("[kafka]", &format!("partitioner = \"{partitioner}\""));
        let daemon = publishing(&settings);
        Workload::default().run(&server.url("shop"), 5_000);
        wait_until_published(&session, "tailwater");
        stop(daemon);
        let committed = truth::read(&session);
        let keys: BTreeSet<String> =
            committed.values().map(|row| row.aggregate_id.clone()).collect();
        let bytes: Vec<Vec<u8>> = keys.iter().map(|key| key.clone().into_bytes()).collect();
        let KafkajsPartitions { default, legacy } = foreign::kafkajs_partitions(&bytes, PARTITIONS);
        assert_ne!(default, legacy, "these keys cannot tell the two apart");
        let partitions = if partitioner == "murmur2" { default } else { legacy };
        let partitions = keys.into_iter().zip(partitions).collect();
        let mut oracle =
            Oracle::of(committed, Value::Envelope, PARTITIONS).with_partitions(partitions);
        for topic in TOPICS {
            broker.for_each_committed(topic, |record| oracle.take(&record));
        }
        oracle.verdict().assert_exact();
    }
}

#[test]
fn sigterm_under_load_ends_in_time_and_repeats_nothing() {
    let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let sampler = Sampler::start(&server, &broker);
    let url = server.url("shop");
    thread::scope(|scope| {
        let writing = scope.spawn(|| Workload::default().run(&url, scaled(300_000)));
        while !writing.is_finished() {
            let daemon = publishing(&settings);
            thread::park_timeout(Duration::from_millis(fastrand::u64(100..1_500)));
            stop(daemon);
        }
    });
    let daemon = publishing(&settings);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    judge(&broker, &session, Value::Envelope);
}

/// Ends the writers also where an assertion fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Daemon,
    Broker,
    Database,
}

#[test]
fn kill_9_of_everything_loses_and_doubles_nothing() {
    let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
    shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let mut victims = Vec::new();
    for (victim, times) in [(Victim::Daemon, 30.), (Victim::Broker, 5.), (Victim::Database, 5.)] {
        // At a small scale each of them still dies once; the daemon at more moments than one.
        let times = (times * proof_scale().max(0.2)) as usize;
        victims.extend(std::iter::repeat_n(victim, times));
    }
    let seed = fastrand::u64(..);
    eprintln!("order of kills: seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    random.shuffle(&mut victims);

    let sampler = Sampler::start(&server, &broker);
    let (url, goes_on) = (server.url("shop"), AtomicBool::new(true));
    let mut daemon = publishing(&settings);
    thread::scope(|scope| {
        let _until_here = Ends(&goes_on);
        // They write until the last kill, and at least that many rows.
        let writing = scope.spawn(|| {
            Workload::default().run(&url, scaled(1_000_000));
            while goes_on.load(Ordering::Relaxed) {
                Workload::default().run_while(&url, 10_000, &goes_on);
            }
        });
        for victim in victims {
            thread::park_timeout(Duration::from_millis(random.u64(50..3_000)));
            match victim {
                Victim::Daemon => daemon.kill_and_restart(&settings),
                Victim::Broker => broker.restart(),
                Victim::Database => server.restart(),
            }
            assert!(daemon.is_running(), "{victim:?}: {}", daemon.stderr());
        }
        goes_on.store(false, Ordering::Relaxed);
        writing.join().expect("the writers end");
    });
    let session = server.session("shop");
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    judge(&broker, &session, Value::Envelope);
}

/// Rows of one transaction, as a migration or a batch job writes them.
const LARGE_TRANSACTION: &str = "
    WITH rows AS (
        INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at)
        SELECT gen_random_uuid(), 'order-' || n % 1000, 'order.placed', jsonb_build_object(
            'orderId', 'order-' || n % 1000, 'version', n / 1000 + 1, 'items', repeat('x', 250)
        ), now()
        FROM generate_series(0, ROWS - 1) n
        RETURNING id, aggregate_id, event_type, payload
    )
    INSERT INTO truth
    SELECT id, aggregate_id, event_type, (payload->>'version')::int, txid_current() FROM rows";

#[test]
fn a_transaction_larger_than_memory_is_out_once_though_killed_in_its_middle() {
    let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
    let session = shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop");
    init(&settings);
    let rows = scaled(2_000_000);
    session.run(&LARGE_TRANSACTION.replace("ROWS", &rows.to_string()));
    let sampler = Sampler::start(&server, &broker);
    let mut kills = 0;
    // A checkpoint inside the transaction tells that it is out in part.
    for part in 1..=3 {
        let daemon = publishing(&settings);
        let due = rows * part / 5;
        let changes = wait_for_changes(&broker, due);
        daemon.kill();
        kills += usize::from(changes.is_some());
    }
    assert!(kills > 0, "no kill came in the middle");
    let daemon = Daemon::start(&settings);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    let mut oracle = Oracle::new(&session, Value::Envelope, PARTITIONS);
    broker.for_each_committed("order.events", |record| oracle.take(&record));
    oracle.verdict().assert_exact();
}

/// Waits for a checkpoint inside a transaction that has that many of its changes; none where the
/// transaction is out as a whole before one was seen.
fn wait_for_changes(broker: &Broker, due: u64) -> Option<u64> {
    let checkpoints = CommittedReader::open(broker, "__tailwater_checkpoints");
    let (mut changes, mut is_whole) = (None, false);
    wait_until("a part of the transaction", PATIENCE, || {
        let read = checkpoints.try_read(PATIENCE, |record| {
            if record.key.as_deref().is_some_and(|key| key.ends_with(b"/tailwater")) {
                let value = record.json();
                changes = value["in_progress"]["changes"].as_u64();
                is_whole = !value["last"].is_null();
            }
        });
        read.expect("the topic can be read");
        changes.is_some_and(|changes| changes >= due) || is_whole
    });
    changes
}

/// What a second slot on the database has to tell: every transaction that wrote anything, a table,
/// a catalog or nothing but a commit record.
const TWIN_SQL: &str = "SELECT count(*) FROM pg_logical_slot_peek_changes('twin', NULL, NULL)";

#[test]
fn an_idle_outbox_in_a_busy_cluster_pins_no_wal() {
    // The one other thing that writes by itself.
    let server = Server::start_with(&[("fsync", "off"), ("autovacuum", "off")]);
    let broker = Broker::start();
    let session = shop(&server);
    let other = server.create_database("other");
    let settings = envelope_settings(&server, &broker);
    let daemon = publishing(&settings);
    let sampler = Sampler::start(&server, &broker);
    session.run("SELECT pg_create_logical_replication_slot('twin', 'test_decoding')");
    other.run("CREATE TABLE busy (filler text)");
    let before = session.value("SELECT pg_current_wal_lsn()").expect("a position");
    let due = scaled(1 << 30);
    let written = || {
        let sql = format!("SELECT pg_current_wal_lsn() - '{before}'");
        session.value(&sql).and_then(|bytes| bytes.parse::<f64>().ok()).expect("bytes") as u64
    };
    while written() < due {
        other.run("INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 10000)");
    }
    let end = session.value("SELECT pg_current_wal_lsn()").expect("a position");
    wait_until("the slot to follow", Duration::from_secs(10), || {
        let sql = format!(
            "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots \
             WHERE slot_name = 'tailwater'"
        );
        session.value(&sql).as_deref() == Some("t")
    });
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    assert!(broker.topics().iter().all(|topic| topic.starts_with("__")), "{:?}", broker.topics());
    assert_eq!(session.value(TWIN_SQL).as_deref(), Some("0"), "the database was written to");
    session.run("CREATE TABLE written ()");
    assert_ne!(session.value(TWIN_SQL).as_deref(), Some("0"), "the twin sees nothing");
}

#[test]
fn two_clusters_of_default_names_share_one_kafka_though_one_is_frozen() {
    let broker = Broker::start();
    let servers = [Server::start_with(&NO_FSYNC), Server::start_with(&NO_FSYNC)];
    let sessions = servers.each_ref().map(shop);
    // Each has topics of its own only so that each can be compared by itself.
    let settings = ["a", "b"].map(|name| {
        let server = if name == "a" { &servers[0] } else { &servers[1] };
        SettingsFile::new(server, &broker, "shop")
            .with("[[outbox]]", "payload = \"envelope\"")
            .with("[[outbox]]", &format!("topic = \"{name}.{{domain}}.events\""))
    });
    // A second database of one source is a new pipeline only if it is said to be one.
    settings.iter().for_each(init);
    let [frozen, other] = settings.each_ref().map(publishing);
    let rows = scaled(100_000);
    thread::scope(|scope| {
        let [first, second] = servers.each_ref().map(|server| server.url("shop"));
        scope.spawn(move || Workload::default().run(&first, rows));
        scope.spawn(move || Workload::default().run(&second, rows));
        // Under load some transaction is open at any moment.
        wait_until("events of both", PATIENCE, || {
            let topics = broker.topics();
            ["a.order.events", "b.order.events"]
                .iter()
                .all(|topic| topics.iter().any(|t| t == topic))
        });
        frozen.signal(libc::SIGSTOP);
    });
    wait_until_published(&sessions[1], "tailwater");
    stop(other);
    // Started anew, it finds its checkpoint behind the frozen one's open transaction.
    let other = Daemon::start(&settings[1]);
    Workload::default().run(&servers[1].url("shop"), rows / 10);
    frozen.signal(libc::SIGCONT);
    wait_until_published(&sessions[0], "tailwater");
    wait_until_published(&sessions[1], "tailwater");
    stop(frozen);
    stop(other);
    for (session, name) in sessions.iter().zip(["a", "b"]) {
        let mut oracle = Oracle::new(session, Value::Envelope, PARTITIONS).with_topic_prefix(name);
        for topic in TOPICS {
            broker.for_each_committed(&format!("{name}.{topic}"), |record| oracle.take(&record));
        }
        oracle.verdict().assert_exact();
    }
    assert!(checkpoint(&broker).is_some());
}

const INSERT: &str = "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) VALUES \
                      (gen_random_uuid(), 'order-1', 'order.placed', '{}')";

/// The end of one transaction is the commit LSN of the next, and the restart comes between them:
/// who skips what begins *at* the checkpoint loses the second one.
#[test]
fn transactions_whose_commit_records_touch_survive_a_restart_between_them() {
    let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
    let session = shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop");
    init(&settings);
    // Now and then the server logs something of its own in between: then once more.
    for attempt in 0..10 {
        let [first, second] = [server.session("shop"), server.session("shop")];
        first.run(&format!("BEGIN; {INSERT}"));
        second.run(&format!("BEGIN; {INSERT}"));
        let daemon = publishing(&settings);
        first.run("COMMIT");
        let events = 2 * attempt + 1;
        wait_until("the first event", PATIENCE, || {
            broker.topics().iter().any(|topic| topic == "order.events")
                && broker.read_committed("order.events").len() == events
        });
        daemon.kill();
        let checkpoint = checkpoint(&broker).expect("a checkpoint");
        second.run("COMMIT");
        let daemon = publishing(&settings);
        wait_until_published(&session, "tailwater");
        stop(daemon);
        let records = broker.read_committed("order.events");
        assert_eq!(records.len(), events + 1, "the second transaction is lost or doubled");
        let newest = records.iter().filter_map(|record| record.header("pg-lsn")).next_back();
        if newest == Some(checkpoint.as_str()) {
            return;
        }
    }
    panic!("no two commit records touched");
}

/// A read_committed reader ends at the first open transaction, whoever's it is.
#[test]
fn a_checkpoint_hidden_behind_another_pipelines_open_transaction_is_waited_for() {
    let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
    let session = shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop");
    init(&settings);
    let daemon = publishing(&settings);
    let other: BaseProducer =
        broker.client().set("transactional.id", "another-pipeline").create().expect("a producer");
    other.init_transactions(PATIENCE).expect("initialised");
    other.begin_transaction().expect("begun");
    let topic = "__tailwater_checkpoints";
    other.send(BaseRecord::to(topic).key("7/other/slot").payload("{}")).expect("sent");
    other.flush(PATIENCE).expect("flushed");
    session.run(INSERT);
    wait_until_published(&session, "tailwater");
    daemon.kill();
    // Without the newest checkpoint it would publish the row again.
    let daemon = Daemon::start(&settings);
    daemon.wait_for("another pipeline's open transaction");
    other.abort_transaction(PATIENCE).expect("aborted");
    daemon.wait_for("publishing");
    wait_until_published(&session, "tailwater");
    stop(daemon);
    assert_eq!(broker.read_committed("order.events").len(), 1);
}

//! The guarantee: each committed row is on Kafka once, in the order of commits per aggregate,
//! whole transactions only, whatever is killed in between.

use std::{collections::BTreeSet, time::Duration};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    foreign::{self, KafkajsPartitions},
    kafka::Broker,
    oracle::{Oracle, Value},
    postgres::{Server, Session},
    producer_log::ProducerLog,
    reader::CommittedReader,
    sampler::Sampler,
    scaled,
    scene::{
        PARTITIONS, SAMPLES_MIN, TOPICS, checkpoint, envelope_settings, init, publishing,
        run_large_transaction, shop, stop, wait_until_published,
    },
    settings::SettingsFile,
    truth, wait_until,
    workload::{Payload, Workload},
};

#[test]
fn a_java_consumer_finds_each_committed_row_once_and_in_order() {
    let (server, broker) = (Server::start(), Broker::start());
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
    oracle.verdict(&ProducerLog::read(&broker)).assert_exact();
}

#[test]
fn a_kafkajs_consumer_finds_the_same_between_aborted_records() {
    let (server, broker) = (Server::start(), Broker::start());
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
    oracle.verdict(&ProducerLog::read(&broker)).assert_exact();
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
    oracle.verdict(&ProducerLog::read(&broker)).assert_exact();
}

#[test]
fn bare_payloads_reach_a_java_consumer_with_the_event_in_headers() {
    let (_server, broker, session) = published("bare");
    let mut oracle = Oracle::new(&session, Value::Bare, PARTITIONS);
    foreign::java(&broker, &TOPICS, |record| oracle.take(&record));
    oracle.verdict(&ProducerLog::read(&broker)).assert_exact();
}

/// Payloads that are the event's data, published in that form.
fn published(form: &str) -> (Server, Broker, Session) {
    let (server, broker) = (Server::start(), Broker::start());
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
        let (server, broker) = (Server::start(), Broker::start());
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
        oracle.verdict(&ProducerLog::read(&broker)).assert_exact();
    }
}

#[test]
fn a_transaction_larger_than_memory_is_out_once_though_killed_midway() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop");
    init(&settings);
    let rows = scaled(2_000_000);
    run_large_transaction(&session, rows);
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
    let daemon = publishing(&settings);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    let mut oracle = Oracle::new(&session, Value::Envelope, PARTITIONS);
    broker.for_each_committed("order.events", |record| oracle.take(&record));
    oracle.verdict(&ProducerLog::read(&broker)).assert_exact();
}

/// Waits for a checkpoint inside a transaction that has that many of its changes; none where the
/// transaction is out as a whole before one was seen.
fn wait_for_changes(broker: &Broker, due: u64) -> Option<u64> {
    let checkpoints = CommittedReader::open(broker, "__tailwater_checkpoints");
    let (mut changes, mut is_whole) = (None, false);
    // The server reads two million rows of its log before it sends the first.
    wait_until("a part of the transaction", PATIENCE * 5, || {
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
    let server = Server::start_with(&[("autovacuum", "off")]);
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
    // The log grows for a second or two only at a small scale.
    sampler.finish(SAMPLES_MIN / 5);
    assert!(broker.topics().iter().all(|topic| topic.starts_with("__")), "{:?}", broker.topics());
    assert_eq!(session.value(TWIN_SQL).as_deref(), Some("0"), "the database was written to");
    session.run("CREATE TABLE written ()");
    assert_ne!(session.value(TWIN_SQL).as_deref(), Some("0"), "the twin sees nothing");
}

const INSERT: &str = "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) VALUES \
                      (gen_random_uuid(), 'order-1', 'order.placed', '{}')";

/// The end of one transaction is the commit LSN of the next, and the restart comes between them:
/// who skips what begins *at* the checkpoint loses the second one.
#[test]
fn transactions_whose_commit_records_touch_survive_a_restart_between_them() {
    let (server, broker) = (Server::start(), Broker::start());
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

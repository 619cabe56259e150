//! The Kafka sink and the checkpoint store against a real Apache Kafka.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers as _,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tailwater::{
    checkpoint::{
        CheckpointKey, CheckpointRecord, Fingerprint, SnapshotRecord, SnapshotState,
        store::{Look, Store},
    },
    failure::{Code, Failure, Recovery},
    lsn::{CommitLsn, EndLsn, Lsn},
    sink::{
        Batch, Checkpoint, Cut, CutSequence, Headers, NewTopic, Record, Report, Sink, TopicId,
        TopicUse, Urgency,
        kafka::{
            Administration, Cancel, Delivery, Kafka, KafkaError, KafkaSink, Partitioner, Settings,
            StoredRecord, TopicSettings,
        },
    },
};

use crate::support::wait_until;

/// Long enough for a busy machine; nothing here takes a second otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

fn brokers() -> String {
    crate::support::kafka::Broker::shared().brokers()
}

/// Names that no other test uses, on brokers that all tests share.
struct Scene {
    brokers: String,
    name: String,
}

/// The first topic of a sink's life.
fn events_topic(name: Arc<str>) -> NewTopic {
    NewTopic { id: TopicId(0), name, topic_use: TopicUse::Events }
}

impl Scene {
    fn new(name: &str) -> Self {
        let name = format!("{name}-{:x}", fastrand::u64(..));
        Self { brokers: brokers(), name }
    }

    fn topic(&self) -> Arc<str> {
        format!("{}.events", self.name).into()
    }

    fn settings(&self) -> Settings {
        Settings {
            brokers: self.brokers.clone(),
            properties: BTreeMap::new(),
            transactional_id: self.name.clone(),
            delivery: Delivery::ExactlyOnce,
            checkpoint_topic: format!("{}.checkpoints", self.name),
            partitioner: Partitioner::Murmur2,
            transaction_interval: Duration::from_millis(200),
            transaction_bytes: 8 << 20,
            create_topics: true,
            dead_letters: None,
            topic: TopicSettings { partitions: Some(4), ..TopicSettings::default() },
            administration: Administration::Full,
        }
    }

    fn key(&self) -> CheckpointKey {
        CheckpointKey {
            system_id: "7311".to_owned(),
            database: self.name.clone(),
            slot: "tailwater".to_owned(),
        }
    }

    fn sink(&self, settings: Settings) -> KafkaSink {
        let mut kafka = connect(settings);
        Store::open(&kafka).expect("a store").ensure_topic().expect("a checkpoint topic");
        kafka.fence().expect("fenced");
        kafka.into_sink().expect("a sink")
    }

    fn store(&self) -> Store {
        Store::open(&connect(self.settings())).expect("a store")
    }

    /// A producer beside ours, to stand for what others do.
    fn other_producer(&self, transactional_id: &str) -> BaseProducer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("transactional.id", transactional_id)
            .create()
            .expect("a producer");
        producer.init_transactions(PATIENCE).expect("initialised");
        producer.begin_transaction().expect("begun");
        producer
    }

    /// All committed records of a topic, by partition and offset.
    fn committed(&self, topic: &str) -> Vec<Seen> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "nobody")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
        let partitions = metadata.topics()[0].partitions().len();
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            assignment
                .add_partition_offset(topic, partition as i32, Offset::Beginning)
                .expect("a partition");
        }
        consumer.assign(&assignment).expect("assigned");
        let (mut seen, mut ended) = (Vec::new(), 0);
        while ended < partitions {
            match consumer.poll(PATIENCE).expect("an end in time") {
                Ok(message) => seen.push(Seen {
                    partition: message.partition(),
                    key: text(message.key()),
                    value: text(message.payload()),
                    headers: message.headers().map_or(Vec::new(), |headers| {
                        headers.iter().map(|header| header.key.to_owned()).collect()
                    }),
                    timestamp: message.timestamp().to_millis(),
                }),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => panic!("{error}"),
            }
        }
        seen
    }
}

#[derive(Debug)]
struct Seen {
    partition: i32,
    key: String,
    value: String,
    headers: Vec<String>,
    timestamp: Option<i64>,
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or(b"(null)")).into_owned()
}

fn connect(settings: Settings) -> Kafka {
    Kafka::connect(settings, Cancel::default()).expect("connected")
}

fn push(batch: &mut Batch, key: Option<&str>, value: &str) {
    let put = |batch: &mut Batch, text: &str| {
        let start = batch.arena_mut().len();
        batch.arena_mut().extend_from_slice(text.as_bytes());
        batch.span_from(start)
    };
    let key = key.map(|key| put(batch, key));
    let event_id = put(batch, &format!("event-{}", batch.records().len()));
    let value = Some(put(batch, value));
    let start = batch.arena_mut().len();
    Headers::write(batch.arena_mut(), "content-type", b"application/json");
    Headers::write(batch.arena_mut(), "event-id", b"0192d4e0");
    Headers::write(batch.arena_mut(), "pg-lsn", b"16/B374D848");
    let headers = batch.span_from(start);
    batch.push(Record {
        topic: TopicId(0),
        key,
        value,
        partition: None,
        event_id,
        headers,
        header_count: 3,
        timestamp_ms: 1_700_000_000_000,
        commit_lsn: CommitLsn(Lsn::from_wire(0x16_B374_D848).expect("a position")),
    });
}

fn record(scene: &Scene, position: u64) -> CheckpointRecord {
    let key = scene.key();
    CheckpointRecord {
        version: 1,
        source: "orders".to_owned(),
        system_id: key.system_id,
        timeline: 1,
        database: key.database,
        slot: key.slot,
        commit_end_lsn: EndLsn(Lsn::from_wire(position).expect("a position")),
        last: None,
        in_progress: None,
        given_up_from: None,
        snapshots: Vec::new(),
        publication: Fingerprint {
            name: "tailwater".to_owned(),
            oid: serde_json::from_str("16400").expect("an OID"),
            options: String::new(),
            altered_by: None,
            tables: BTreeMap::new(),
        },
        begun_at: None,
        written_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn cut(scene: &Scene, sequence: u64, urgency: Urgency) -> Cut {
    let value = serde_json::to_vec(&record(scene, sequence)).expect("JSON");
    let checkpoint = Checkpoint { key: scene.key().to_string().into(), value };
    Cut { sequence: CutSequence(sequence), checkpoints: checkpoint.into(), urgency }
}

/// The next report that says how a commit ended.
async fn outcome(sink: &mut KafkaSink) -> Report {
    loop {
        let report = tokio::time::timeout(PATIENCE, sink.next_report()).await.expect("in time");
        if !matches!(report, Report::Emptied(_) | Report::LastCall) {
            return report;
        }
    }
}

async fn delivered(sink: &mut KafkaSink, sequence: u64) {
    loop {
        match outcome(sink).await {
            Report::Delivered(CutSequence(found)) if found == sequence => return,
            Report::Delivered(_) => {}
            Report::Failed(error) | Report::Refused { failure: error, .. } => {
                panic!("{}", chain(error.as_ref()))
            }
            Report::Emptied(_) | Report::LastCall => {}
        }
    }
}

async fn failed(sink: &mut KafkaSink) -> Box<dyn Failure> {
    loop {
        match outcome(sink).await {
            Report::Failed(error) | Report::Refused { failure: error, .. } => return error,
            Report::Delivered(_) | Report::Emptied(_) | Report::LastCall => {}
        }
    }
}

fn chain(error: &dyn Failure) -> String {
    format!("{error}; {:?}", error.hint())
}

/// A read on a thread of its own that has said that it waits for another pipeline.
fn waiting_read(store: Store, key: CheckpointKey) -> JoinHandle<Result<Look, KafkaError>> {
    let (sender, said) = mpsc::sync_channel(1_000);
    let reading = thread::spawn(move || {
        let log = tracing_subscriber::fmt().with_writer(move || Said(sender.clone())).finish();
        tracing::subscriber::with_default(log, || store.read(&key, "orders"))
    });
    while let Ok(line) = said.recv_timeout(PATIENCE) {
        if line.contains("waiting for another pipeline's open transaction") {
            return reading;
        }
    }
    panic!("the read did not wait: {:?}", reading.join().expect("no panic"));
}

/// What a log writes, line by line.
struct Said(mpsc::SyncSender<String>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Nobody listens any more once the wait was said.
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn checkpoint_of(look: &Look) -> Option<u64> {
    look.checkpoint.as_ref().map(|record| record.commit_end_lsn.lsn().to_wire())
}

#[tokio::test]
async fn records_of_a_key_keep_their_order_through_a_full_queue() {
    let scene = Scene::new("order");
    let mut settings = scene.settings();
    // A queue of 500 is full all the time.
    settings.properties.insert("queue.buffering.max.messages".to_owned(), "500".to_owned());
    let mut sink = scene.sink(settings);
    let (mut free, mut next) = (4, 0);
    let mut spare: Vec<Batch> = Vec::new();
    while next < 100_000 {
        if free == 0 {
            match sink.next_report().await {
                Report::Emptied(batch) => spare.push(batch),
                Report::Delivered(_) | Report::LastCall => continue,
                Report::Failed(error) | Report::Refused { failure: error, .. } => {
                    panic!("{}", chain(error.as_ref()))
                }
            }
            free += 1;
        }
        let mut batch = spare.pop().unwrap_or_default();
        batch.clear(1 << 20);
        if next == 0 {
            batch.announce_topic(events_topic(scene.topic()));
        }
        for value in next..next + 500 {
            push(&mut batch, Some(&format!("key-{}", value % 97)), &value.to_string());
        }
        next += 500;
        batch.set_cut(cut(&scene, next, Urgency::Group));
        sink.send(batch);
        free -= 1;
    }
    delivered(&mut sink, 100_000).await;
    // Committed means that the commit was answered; readers see it a moment later.
    let mut seen = Vec::new();
    wait_until("all of it to be visible", PATIENCE, || {
        seen = scene.committed(&scene.topic());
        seen.len() >= 100_000
    });
    assert_eq!(seen.len(), 100_000);
    let mut last: HashMap<String, (i32, u64)> = HashMap::new();
    for record in seen {
        let value: u64 = record.value.parse().expect("a number");
        if let Some((partition, before)) = last.insert(record.key, (record.partition, value)) {
            assert_eq!((partition, before + 97), (record.partition, value));
        }
    }
    let look = scene.store().read(&scene.key(), "orders").expect("read");
    assert_eq!(checkpoint_of(&look), Some(100_000));
}

#[tokio::test]
async fn ten_thousand_records_are_one_transaction_with_their_checkpoint() {
    let scene = Scene::new("group");
    let mut sink = scene.sink(scene.settings());
    for part in 0..10 {
        let mut batch = Batch::default();
        if part == 0 {
            batch.announce_topic(events_topic(scene.topic()));
        }
        for value in 0..1_000 {
            push(&mut batch, Some(&value.to_string()), &format!("{value:0>450}"));
        }
        if part == 9 {
            batch.set_cut(cut(&scene, 1, Urgency::Now));
        }
        sink.send(batch);
    }
    assert!(matches!(outcome(&mut sink).await, Report::Delivered(CutSequence(1))));
    assert_eq!(scene.committed(&scene.topic()).len(), 10_000);
    assert_eq!(scene.committed(&scene.settings().checkpoint_topic).len(), 1);
    sink.close().await;
}

/// A cut with a word of one table's rows beside the checkpoint.
fn cut_with_rows(scene: &Scene, sequence: u64, (table, rows): (&str, u64)) -> Cut {
    let mut cut = cut(scene, sequence, Urgency::Group);
    let record = SnapshotRecord {
        version: 1,
        source: "orders".to_owned(),
        table: table.to_owned(),
        oid: serde_json::from_str("16384").expect("an OID"),
        request: "r".to_owned(),
        condition: None,
        is_requested: true,
        has_events: true,
        state: SnapshotState::Running,
        failure: None,
        key: Vec::new(),
        cursor: Some(vec![rows.to_string()]),
        is_at_end: false,
        outstanding: Vec::new(),
        is_at_once: false,
        contained: None,
        rows,
        estimate: None,
        requested_at: String::new(),
        written_at: String::new(),
    };
    let value = serde_json::to_vec(&record).expect("JSON");
    cut.checkpoints.push(Checkpoint { key: scene.key().snapshot(table).into(), value });
    cut
}

/// The sink passes over cuts as it likes: each table's newest word is there all the same, with the
/// rows that it speaks of.
#[tokio::test]
async fn each_tables_newest_record_is_written_though_cuts_are_passed_over() {
    for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
        let scene = Scene::new("rows");
        let mut sink = scene.sink(Settings { delivery, ..scene.settings() });
        let tables = ["public.a", "public.b", "public.c"];
        for sequence in 1..=60 {
            let mut batch = Batch::default();
            if sequence == 1 {
                batch.announce_topic(events_topic(scene.topic()));
            }
            // Small ones that are foreseen, then a backlog.
            let bytes = if sequence < 30 { 10 } else { 40_000 };
            push(&mut batch, Some("a"), &"x".repeat(bytes));
            let table = tables[sequence as usize % 2];
            batch.set_cut(match sequence {
                1 => cut_with_rows(&scene, sequence, (tables[2], 1)),
                59 | 60 => cut(&scene, sequence, Urgency::Group),
                _ => cut_with_rows(&scene, sequence, (table, sequence)),
            });
            sink.send(batch);
            if sequence % 10 == 0 {
                delivered(&mut sink, sequence).await;
            }
        }
        sink.close().await;
        let key = scene.key();
        let (mut newest, mut written) = (BTreeMap::new(), 0);
        for record in scene.committed(&scene.settings().checkpoint_topic) {
            written += 1;
            newest.insert(record.key, record.value);
        }
        assert!(written < 100, "each cut was committed by itself: {written} records");
        let rows = |table: &str| {
            let record = serde_json::from_str(&newest[&key.snapshot(table)]);
            let record: SnapshotRecord = record.expect("a record");
            record.rows
        };
        assert_eq!(tables.map(rows), [58, 57, 1], "{delivery:?}");
        assert_eq!(scene.committed(&scene.topic()).len(), 60);
    }
}

#[test]
fn snapshots_are_found_where_the_checkpoint_names_them() {
    let scene = Scene::new("snapshots");
    let mut kafka = connect(scene.settings());
    let store = Store::open(&kafka).expect("a store");
    store.ensure_topic().expect("a checkpoint topic");
    kafka.fence().expect("fenced");
    let cut = cut_with_rows(&scene, 1, ("public.far", 7));
    for checkpoint in cut.checkpoints.iter() {
        kafka.write(&[(&*checkpoint.key, &checkpoint.value)]).expect("written");
    }
    let mut record = record(&scene, 2);
    record.snapshots = vec!["public.far".to_owned()];
    let key = scene.key().to_string();
    let value = serde_json::to_vec(&record).expect("JSON");
    let many = vec![(key.as_str(), value.as_slice()); 3_000];
    kafka.write(&many).expect("written");
    let look = store.read(&scene.key(), "orders").expect("read");
    assert_eq!(look.snapshots["public.far"].rows, 7);
    // One that is lost must not begin anew: its rows would come again.
    record.snapshots.push("public.gone".to_owned());
    let value = serde_json::to_vec(&record).expect("JSON");
    kafka.write(&[(key.as_str(), value.as_slice())]).expect("written");
    let error = store.read(&scene.key(), "orders").expect_err("lost");
    assert_eq!(error.code(), Some(Code::CheckpointMissing));
    assert!(error.to_string().contains("public.gone"), "{error}");
}

#[tokio::test]
async fn what_lies_behind_the_last_cut_is_not_visible_after_closing() {
    let scene = Scene::new("tail");
    let mut sink = scene.sink(scene.settings());
    let mut batch = Batch::default();
    batch.announce_topic(events_topic(scene.topic()));
    push(&mut batch, None, "published");
    batch.set_cut(cut(&scene, 1, Urgency::Group));
    sink.send(batch);
    delivered(&mut sink, 1).await;
    let mut batch = Batch::default();
    push(&mut batch, Some("a"), "not published");
    sink.send(batch);
    let Report::Emptied(_) = sink.next_report().await else { panic!("the batch") };
    let started = Instant::now();
    sink.close().await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let seen = scene.committed(&scene.topic());
    let [only] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((only.key.as_str(), only.value.as_str()), ("(null)", "published"));
    assert_eq!(only.headers, ["content-type", "event-id", "pg-lsn"]);
    assert_eq!(only.timestamp, Some(1_700_000_000_000));
    // Aborted, not left open: a look comes up to the end.
    let look = scene.store().look(&scene.key(), "orders").expect("a look");
    assert_eq!((checkpoint_of(&look), look.complete), (Some(1), true));
}

#[tokio::test]
async fn fencing_ends_a_dead_predecessors_transaction() {
    let scene = Scene::new("dead");
    let mut sink = scene.sink(scene.settings());
    let mut batch = Batch::default();
    batch.announce_topic(events_topic(scene.topic()));
    push(&mut batch, Some("a"), "published");
    batch.set_cut(cut(&scene, 1, Urgency::Group));
    sink.send(batch);
    delivered(&mut sink, 1).await;
    sink.close().await;
    // Records and checkpoints of both its transactions lie in the log, and then it dies.
    for transactional_id in [scene.name.clone(), format!("{}/2", scene.name)] {
        let dead = scene.other_producer(&transactional_id);
        let checkpoint_topic = scene.settings().checkpoint_topic;
        let value = serde_json::to_vec(&record(&scene, 2)).expect("JSON");
        let key = scene.key().to_string();
        dead.send(BaseRecord::to(&scene.topic()).key("a").payload("torn")).expect("sent");
        dead.send(BaseRecord::to(&checkpoint_topic).key(&key).payload(&value)).expect("sent");
        dead.flush(PATIENCE).expect("flushed");
        std::mem::forget(dead);
    }

    let mut kafka = connect(scene.settings());
    let store = Store::open(&kafka).expect("a store");
    let look = store.look(&scene.key(), "orders").expect("a look");
    assert_eq!((checkpoint_of(&look), look.complete), (Some(1), false));
    kafka.fence().expect("fenced");
    let look = store.read(&scene.key(), "orders").expect("read");
    assert_eq!((checkpoint_of(&look), look.complete), (Some(1), true));
    let values: Vec<String> =
        scene.committed(&scene.topic()).into_iter().map(|seen| seen.value).collect();
    assert_eq!(values, ["published"]);
}

#[test]
fn checkpoint_is_found_behind_another_pipelines_open_transaction() {
    for commits in [true, false] {
        let scene = Scene::new("hidden");
        let mut kafka = connect(scene.settings());
        let store = Store::open(&kafka).expect("a store");
        store.ensure_topic().expect("a checkpoint topic");
        kafka.fence().expect("fenced");
        // Another pipeline writes its checkpoint and does not commit; ours commits behind it.
        let other = scene.other_producer(&format!("{}-other", scene.name));
        let topic = scene.settings().checkpoint_topic;
        other.send(BaseRecord::to(&topic).key("9/x/y").payload("{}")).expect("sent");
        other.flush(PATIENCE).expect("flushed");
        let value = serde_json::to_vec(&record(&scene, 42)).expect("JSON");
        kafka.write(&[(&scene.key().to_string(), &value)]).expect("written");

        let look = store.look(&scene.key(), "orders").expect("a look");
        assert_eq!((checkpoint_of(&look), look.complete), (None, false));
        let reading = waiting_read(store, scene.key());
        if commits {
            other.commit_transaction(PATIENCE).expect("committed");
        } else {
            other.abort_transaction(PATIENCE).expect("aborted");
        }
        let look = reading.join().expect("no panic").expect("read");
        assert_eq!((checkpoint_of(&look), look.complete), (Some(42), true));
    }
}

#[test]
fn an_open_transaction_rolled_back_at_the_end_does_not_hold_a_read() {
    let scene = Scene::new("rolled");
    let mut kafka = connect(scene.settings());
    let store = Store::open(&kafka).expect("a store");
    store.ensure_topic().expect("a checkpoint topic");
    kafka.fence().expect("fenced");
    let value = serde_json::to_vec(&record(&scene, 7)).expect("JSON");
    kafka.write(&[(&scene.key().to_string(), &value)]).expect("written");
    let other = scene.other_producer(&format!("{}-other", scene.name));
    let topic = scene.settings().checkpoint_topic;
    other.send(BaseRecord::to(&topic).key("9/x/y").payload("{}")).expect("sent");
    other.flush(PATIENCE).expect("flushed");
    let reading = waiting_read(store, scene.key());
    other.abort_transaction(PATIENCE).expect("aborted");
    let look = reading.join().expect("no panic").expect("read");
    assert_eq!(checkpoint_of(&look), Some(7));
}

/// librdkafka says that it is at the end only where it asks for exactly the last stable offset.
#[test]
fn a_read_that_begins_behind_an_open_transaction_says_what_it_waits_for() {
    let scene = Scene::new("behind");
    let mut kafka = connect(scene.settings());
    Store::open(&kafka).expect("a store").ensure_topic().expect("a checkpoint topic");
    kafka.fence().expect("fenced");
    let other = scene.other_producer(&format!("{}-other", scene.name));
    let topic = scene.settings().checkpoint_topic;
    other.send(BaseRecord::to(&topic).key("9/x/y").payload("{}")).expect("sent");
    other.flush(PATIENCE).expect("flushed");
    let key = scene.key().to_string();
    let ours: Vec<(&str, &[u8])> = vec![(&key, b"{}".as_slice()); 1_500];
    kafka.write(&ours).expect("written");

    let reader = kafka.reader().expect("a reader");
    let (high, mut records, mut blocked_at) =
        (reader.offsets().expect("offsets").high_watermark, 0, None);
    let count = |_: StoredRecord<'_>| {
        records += 1;
        Ok(())
    };
    let commit = |offset: i64| {
        if blocked_at.replace(offset).is_none() {
            other.commit_transaction(PATIENCE).expect("committed");
        }
    };
    reader.read(high - 1_000, high, count, commit).expect("read");
    assert_eq!(blocked_at, Some(0));
    // One of the thousand offsets may be the commit's marker.
    assert!(records >= 999, "{records}");
}

#[test]
fn brokers_that_die_while_a_transaction_is_waited_for_are_blamed_themselves() {
    let broker = crate::support::kafka::Broker::start();
    let scene = Scene { brokers: broker.brokers(), name: "dying".to_owned() };
    let kafka = connect(scene.settings());
    Store::open(&kafka).expect("a store").ensure_topic().expect("a checkpoint topic");
    let other = scene.other_producer("other");
    let topic = scene.settings().checkpoint_topic;
    other.send(BaseRecord::to(&topic).key("9/x/y").payload("{}")).expect("sent");
    other.flush(PATIENCE).expect("flushed");
    let reader = kafka.reader().expect("a reader");
    let mut blocked_since: Option<Instant> = None;
    let on_blocked = |_| {
        let since = *blocked_since.get_or_insert_with(|| {
            broker.kill();
            Instant::now()
        });
        assert!(since.elapsed() < PATIENCE, "an open transaction is blamed without an end");
    };
    let outcome = reader.read(0, 1, |_| Ok(()), on_blocked);
    assert!(matches!(outcome, Err(KafkaError::TimedOut { .. })), "{outcome:?}");
    // Its transaction can be ended no more.
    std::mem::forget(other);
}

#[test]
fn a_topic_for_which_brokers_are_missing_is_tried_again() {
    let scene = Scene::new("replicas");
    let mut settings = scene.settings();
    settings.topic.replication_factor = Some(3);
    let store = Store::open(&connect(settings)).expect("a store");
    let error = store.ensure_topic().expect_err("one broker cannot hold three replicas");
    assert_eq!((error.code(), error.recovery()), (None, Recovery::Retry), "{error}");
    assert!(error.to_string().contains("only 1 broker"), "{error}");
}

#[test]
fn a_waiting_read_is_called_off_within_a_second() {
    let scene = Scene::new("cancel");
    let cancel = Cancel::default();
    let kafka = Kafka::connect(scene.settings(), cancel.clone()).expect("connected");
    let store = Store::open(&kafka).expect("a store");
    store.ensure_topic().expect("a checkpoint topic");
    let other = scene.other_producer(&format!("{}-other", scene.name));
    let topic = scene.settings().checkpoint_topic;
    other.send(BaseRecord::to(&topic).key("9/x/y").payload("{}")).expect("sent");
    other.flush(PATIENCE).expect("flushed");
    let reading = waiting_read(store, scene.key());
    let cancelled_at = Instant::now();
    cancel.cancel();
    let ended = reading.join().expect("no panic");
    assert!(matches!(ended, Err(KafkaError::Cancelled)), "{ended:?}");
    assert!(cancelled_at.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_checkpoint_far_behind_the_end_is_found() {
    let scene = Scene::new("far");
    let mut kafka = connect(scene.settings());
    let store = Store::open(&kafka).expect("a store");
    store.ensure_topic().expect("a checkpoint topic");
    kafka.fence().expect("fenced");
    let value = serde_json::to_vec(&record(&scene, 11)).expect("JSON");
    let (ours, others) = (scene.key().to_string(), br#"{"source":"orders"}"#.as_slice());
    kafka.write(&[(&ours, &value)]).expect("written");
    let busy: Vec<(&str, &[u8])> = vec![("9/x/y", others); 6_000];
    for records in busy.chunks(1_000) {
        kafka.write(records).expect("written");
    }
    assert_eq!(checkpoint_of(&store.read(&scene.key(), "orders").expect("read")), Some(11));

    let absent = CheckpointKey { slot: "renamed".to_owned(), ..scene.key() };
    let look = store.look(&absent, "orders").expect("a look");
    assert!(look.checkpoint.is_none() && look.complete);
    assert_eq!(look.others_of_source, [ours, "9/x/y".to_owned()]);
}

#[test]
fn a_missing_checkpoint_topic_is_looked_at_without_making_it() {
    let scene = Scene::new("none");
    let store = scene.store();
    let look = store.look(&scene.key(), "orders").expect("a look");
    assert!(look.checkpoint.is_none() && look.complete);
    store.check_policy().expect("nothing to refuse");
    let mut settings = scene.settings();
    settings.create_topics = false;
    let store = Store::open(&connect(settings)).expect("a store");
    let error = store.ensure_topic().expect_err("missing");
    assert_eq!(error.code(), Some(Code::TopicMissing));
    let hint = error.hint().expect("a hint");
    assert!(hint.contains("--create") && hint.contains("cleanup.policy=compact"), "{hint}");
}

#[test]
fn a_checkpoint_topic_that_could_lose_checkpoints_is_refused() {
    for (policy, partitions, words) in [
        ("delete", 1, "cleanup.policy=delete"),
        ("compact,delete", 1, "delete"),
        ("compact", 2, "2 partitions"),
    ] {
        let scene = Scene::new("policy");
        let topic = scene.settings().checkpoint_topic;
        let config = BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]);
        create_topic(&scene, &topic, partitions, config);
        let error = scene.store().ensure_topic().expect_err(policy);
        assert_eq!(error.code(), Some(Code::CheckpointTopicPolicy));
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint().is_some());
    }
}

/// Makes a topic by sending a record to it: the sink's own way.
fn create_topic(scene: &Scene, topic: &str, partitions: i32, config: BTreeMap<String, String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let made_by = Scene::new("maker");
        let mut settings = made_by.settings();
        settings.brokers = scene.brokers.clone();
        settings.topic =
            TopicSettings { partitions: Some(partitions), config, replication_factor: None };
        let mut sink = made_by.sink(settings);
        let mut batch = Batch::default();
        batch.announce_topic(events_topic(topic.into()));
        push(&mut batch, Some("made"), "made");
        sink.send(batch);
        let Report::Emptied(_) = sink.next_report().await else { panic!("made") };
        sink.close().await;
    });
}

#[tokio::test]
async fn a_missing_topic_is_refused_where_topics_may_not_be_made() {
    let scene = Scene::new("missing");
    scene.store().ensure_topic().expect("a checkpoint topic");
    let mut settings = scene.settings();
    settings.create_topics = false;
    let mut sink = scene.sink(settings);
    let mut batch = Batch::default();
    batch.announce_topic(events_topic(scene.topic()));
    push(&mut batch, Some("a"), "value");
    sink.send(batch);
    let error = failed(&mut sink).await;
    assert_eq!((error.code(), error.recovery()), (Some(Code::TopicMissing), Recovery::Stop));
    assert!(error.hint().expect("a hint").contains("--partitions 4"));
}

#[tokio::test]
async fn an_event_above_its_topics_limit_stops_before_it_is_produced() {
    let scene = Scene::new("large");
    let mut settings = scene.settings();
    settings.topic.config.insert("max.message.bytes".to_owned(), "2000".to_owned());
    let mut sink = scene.sink(settings);
    let mut batch = Batch::default();
    batch.announce_topic(events_topic(scene.topic()));
    // Together they exceed the limit by far: batches must stay below it too.
    for value in 0..200 {
        push(&mut batch, Some("a"), &format!("{value:0>300}"));
    }
    batch.set_cut(cut(&scene, 1, Urgency::Group));
    sink.send(batch);
    delivered(&mut sink, 1).await;
    let mut batch = Batch::default();
    push(&mut batch, Some("a"), &"x".repeat(2_000));
    batch.set_cut(cut(&scene, 2, Urgency::Group));
    sink.send(batch);
    let error = failed(&mut sink).await;
    assert_eq!((error.code(), error.recovery()), (Some(Code::EventTooLarge), Recovery::Stop));
    let words = chain(error.as_ref());
    assert!(words.contains("16/B374D848") && words.contains("2000"), "{words}");
    sink.close().await;
    assert_eq!(scene.committed(&scene.topic()).len(), 200);
}

/// Without its own word the daemon would try the same record for ever.
#[tokio::test]
async fn a_record_that_no_broker_takes_stops_with_its_event() {
    let scene = Scene::new("compacted");
    let mut settings = scene.settings();
    settings.topic.config.insert("cleanup.policy".to_owned(), "compact".to_owned());
    let mut sink = scene.sink(settings);
    let mut batch = Batch::default();
    batch.announce_topic(events_topic(scene.topic()));
    push(&mut batch, Some("a"), "published");
    batch.set_cut(cut(&scene, 1, Urgency::Group));
    sink.send(batch);
    delivered(&mut sink, 1).await;
    let mut batch = Batch::default();
    push(&mut batch, Some("a"), "taken, but not without the next one");
    push(&mut batch, None, "a null key has no place in a compacted topic");
    batch.set_cut(cut(&scene, 2, Urgency::Group));
    sink.send(batch);
    let error = failed(&mut sink).await;
    assert_eq!((error.code(), error.recovery()), (Some(Code::EventUnmappable), Recovery::Stop));
    let words = chain(error.as_ref());
    assert!(words.contains("16/B374D848") && words.contains(&*scene.topic()), "{words}");
    sink.close().await;
    let values: Vec<String> =
        scene.committed(&scene.topic()).into_iter().map(|seen| seen.value).collect();
    assert_eq!(values, ["published"]);
}

#[tokio::test]
async fn an_event_above_a_limit_of_our_own_names_the_property_to_raise() {
    for (property, value) in [("message.max.bytes", "5000"), ("queue.buffering.max.kbytes", "5")] {
        let scene = Scene::new("own-limit");
        let mut settings = scene.settings();
        settings.properties.insert(property.to_owned(), value.to_owned());
        let mut sink = scene.sink(settings);
        let mut batch = Batch::default();
        batch.announce_topic(events_topic(scene.topic()));
        push(&mut batch, Some("a"), &"x".repeat(6_000));
        batch.set_cut(cut(&scene, 1, Urgency::Group));
        sink.send(batch);
        let error = failed(&mut sink).await;
        assert_eq!(error.code(), Some(Code::EventTooLarge));
        let words = chain(error.as_ref());
        assert!(words.contains(&format!("{property} of kafka.properties")), "{words}");
        let hint = error.hint().expect("a hint");
        assert!(hint.starts_with(&format!("Set {property} in kafka.properties")), "{hint}");
        sink.close().await;
    }
}

#[tokio::test]
async fn a_record_larger_than_a_batch_is_delivered_where_its_topic_takes_it() {
    let scene = Scene::new("raised");
    let mut settings = scene.settings();
    settings.topic.config.insert("max.message.bytes".to_owned(), "12000000".to_owned());
    let mut sink = scene.sink(settings);
    let mut batch = Batch::default();
    batch.announce_topic(events_topic(scene.topic()));
    // Not to be compressed: letters out of a generator.
    let mut random = fastrand::Rng::with_seed(7);
    let value: String = std::iter::repeat_with(|| random.alphanumeric()).take(10_000_000).collect();
    push(&mut batch, Some("a"), &value);
    push(&mut batch, Some("a"), &value);
    batch.set_cut(cut(&scene, 1, Urgency::Group));
    sink.send(batch);
    delivered(&mut sink, 1).await;
    sink.close().await;
}

#[tokio::test]
async fn a_second_instance_fences_the_first() {
    let scene = Scene::new("fenced");
    let mut first = scene.sink(scene.settings());
    let mut batch = Batch::default();
    batch.announce_topic(events_topic(scene.topic()));
    push(&mut batch, Some("a"), "value");
    batch.set_cut(cut(&scene, 1, Urgency::Group));
    first.send(batch);
    delivered(&mut first, 1).await;
    let mut second = connect(scene.settings());
    second.fence().expect("fenced");
    let mut batch = Batch::default();
    push(&mut batch, Some("a"), "too late");
    batch.set_cut(cut(&scene, 2, Urgency::Group));
    first.send(batch);
    let error = failed(&mut first).await;
    assert_eq!((error.code(), error.recovery()), (Some(Code::Fenced), Recovery::Retry));
    first.close().await;
    let look = scene.store().read(&scene.key(), "orders").expect("read");
    assert_eq!(checkpoint_of(&look), Some(1));
    assert_eq!(scene.committed(&scene.topic()).len(), 1);
}

#[test]
fn brokers_that_are_not_there_are_a_reason_to_retry() {
    let scene = Scene::new("nowhere");
    let mut settings = scene.settings();
    settings.brokers = "127.0.0.1:1".to_owned();
    let started = Instant::now();
    let Err(error) = Kafka::connect(settings, Cancel::default()) else { panic!("connected") };
    assert!(started.elapsed() < Duration::from_secs(8));
    assert_eq!((error.code(), error.recovery()), (None, Recovery::Retry));
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[test]
fn an_unknown_property_is_a_mistake_of_the_settings() {
    let scene = Scene::new("property");
    let mut settings = scene.settings();
    settings.properties.insert("compresion.type".to_owned(), "lz4".to_owned());
    let Err(error) = Kafka::connect(settings, Cancel::default()) else { panic!("connected") };
    assert_eq!((error.code(), error.recovery()), (Some(Code::Settings), Recovery::Stop));
    assert!(error.to_string().contains("compresion.type"), "{error}");
}

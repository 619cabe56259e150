//! The first requests of a new producer, of which one is refused for a moment. Against librdkafka's
//! mock cluster: a real broker cannot be made to refuse one request and to take the next one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tailwater::{
    lsn::{CommitLsn, Lsn},
    sink::{
        Batch, Checkpoint, Cut, CutSequence, Headers, NewTopic, Record, Report, Sink, TopicId,
        TopicUse, Urgency,
        kafka::{
            Administration, Cancel, Delivery, Kafka, KafkaSink, Partitioner, Settings,
            TopicSettings,
        },
    },
};

use crate::support::{PATIENCE, let_pass};

const TOPIC: &str = "order.events";

/// Longer than it takes to hand over a second batch.
const ROUND_TRIP: Duration = Duration::from_millis(500);

/// From a batch that was taken to its request being under way, and no longer than that: within a
/// transaction the brokers are told of the partition first.
fn until_sent(delivery: Delivery) -> Duration {
    match delivery {
        Delivery::AtLeastOnce => Duration::from_millis(50),
        Delivery::ExactlyOnce => ROUND_TRIP + Duration::from_millis(200),
    }
}

fn settings(brokers: String, delivery: Delivery) -> Settings {
    Settings {
        brokers,
        properties: BTreeMap::new(),
        transactional_id: "tailwater".to_owned(),
        delivery,
        checkpoint_topic: "checkpoints".to_owned(),
        partitioner: Partitioner::Murmur2,
        transaction_interval: Duration::from_millis(200),
        transaction_bytes: 8 << 20,
        create_topics: true,
        dead_letters: None,
        topic: TopicSettings::default(),
        administration: Administration::Absent,
    }
}

fn batch(values: &[&str], cut: Option<u64>) -> Batch {
    let mut batch = Batch::default();
    if cut.is_none() {
        let (id, name) = (TopicId(0), Arc::from(TOPIC));
        batch.announce_topic(NewTopic { id, name, topic_use: TopicUse::Events });
    }
    for value in values {
        let start = batch.arena_mut().len();
        batch.arena_mut().extend_from_slice(value.as_bytes());
        let value = batch.span_from(start);
        let start = batch.arena_mut().len();
        Headers::write(batch.arena_mut(), "content-type", b"application/json");
        let headers = batch.span_from(start);
        batch.push(Record {
            topic: TopicId(0),
            key: None,
            value: Some(value),
            partition: None,
            event_id: value,
            headers,
            header_count: 1,
            timestamp_ms: 0,
            commit_lsn: CommitLsn(Lsn::from_wire(1).expect("a position")),
        });
    }
    if let Some(sequence) = cut.map(CutSequence) {
        let checkpoint = Checkpoint { key: "1/shop/tailwater".into(), value: b"{}".to_vec() };
        batch.set_cut(Cut { sequence, checkpoints: checkpoint.into(), urgency: Urgency::Group });
    }
    batch
}

async fn delivered(sink: &mut KafkaSink, due: u64) {
    loop {
        match tokio::time::timeout(PATIENCE, sink.next_report()).await.expect("a report") {
            Report::Delivered(CutSequence(sequence)) if sequence == due => return,
            Report::Delivered(_) | Report::Emptied(_) => {}
            Report::LastCall => sink.go_on(),
            Report::Failed(failure) | Report::Refused { failure, .. } => panic!("{failure}"),
        }
    }
}

fn read(brokers: &str, count: usize) -> Vec<String> {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "reader");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(TOPIC, 0, Offset::Beginning).expect("a partition");
    consumer.assign(&assignment).expect("assigned");
    let mut values = Vec::new();
    while values.len() < count {
        let message = consumer.poll(PATIENCE).expect("a record in time").expect("a record");
        values.push(String::from_utf8(message.payload().expect("a value").to_vec()).expect("text"));
    }
    values
}

/// A broker that knows no sequence number of a producer takes a request with any. The success of the
/// second one must not stand for the first.
#[tokio::test]
async fn a_first_request_that_is_refused_for_a_moment_is_not_lost_behind_a_second() {
    for delivery in [Delivery::AtLeastOnce, Delivery::ExactlyOnce] {
        let cluster: MockCluster<'static, DefaultProducerContext> =
            MockCluster::new(1).expect("a cluster");
        cluster.create_topic(TOPIC, 1, 1).expect("a topic");
        cluster.create_topic("checkpoints", 1, 1).expect("a topic");
        let settings = settings(cluster.bootstrap_servers(), delivery);
        let mut sink = tokio::task::spawn_blocking(move || {
            let mut kafka = Kafka::connect(settings, Cancel::default()).expect("connected");
            kafka.fence().expect("fenced");
            kafka.into_sink().expect("a sink")
        })
        .await
        .expect("a sink");
        cluster.broker_round_trip_time(1, ROUND_TRIP).expect("slow");
        let not_leader = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
        cluster.request_errors(RDKafkaApiKey::Produce, &[not_leader]);
        sink.send(batch(&["first"], None));
        let Report::Emptied(_) = sink.next_report().await else { panic!("the batch") };
        let_pass(until_sent(delivery));
        sink.send(batch(&["second", "third"], Some(1)));
        delivered(&mut sink, 1).await;
        sink.close().await;
        cluster.broker_round_trip_time(1, Duration::ZERO).expect("quick");
        assert_eq!(read(&cluster.bootstrap_servers(), 3), ["first", "second", "third"]);
    }
}

//! The servers that the other tests rely on.

use std::fs;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{
    PATIENCE,
    kafka::{Broker, Record},
    oracle::{Fault, Oracle, Value},
    postgres::Server,
    workload,
};

#[test]
fn a_killed_database_comes_back_with_what_was_committed() {
    let server = Server::start();
    let session = server.create_database("shop");
    session.run("CREATE TABLE orders (id int); INSERT INTO orders VALUES (7)");
    server.restart();
    let session = server.session("shop");
    assert_eq!(session.value("SELECT id FROM orders").as_deref(), Some("7"));
    assert!(session.try_run("SELECT missing").is_err());
    server.stop();
    assert!(!server.data_folder().join("postmaster.pid").exists());
}

#[test]
fn a_database_never_runs_as_root() {
    let server = Server::start();
    let session = server.session("postgres");
    let pid = session.value("SELECT pg_backend_pid()").expect("a process id");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    assert!(!status.contains("Uid:\t0\t"), "{status}");
    assert!(server.socket_folder().join(format!(".s.PGSQL.{}", server.port())).exists());
}

#[test]
fn a_killed_broker_comes_back_with_what_was_acknowledged() {
    let broker = Broker::start();
    broker.create_topic("kept", 1, &[("cleanup.policy", "compact")]);
    broker.alter_topic("kept", "cleanup.policy", "delete");
    let producer: BaseProducer = broker.client().set("acks", "all").create().expect("a producer");
    producer.send(BaseRecord::to("kept").key("a").payload("1")).expect("sent");
    producer.flush(PATIENCE).expect("acknowledged");
    broker.restart();
    let kept = broker.read_committed("kept");
    let [record] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(
        (record.key.as_deref(), record.value.as_deref()),
        (Some(&b"a"[..]), Some(&b"1"[..]))
    );
}

/// The oracle's own test: it must find each fault that is made on purpose.
#[test]
fn the_oracle_finds_each_kind_of_fault() {
    let server = Server::start();
    let session = server.create_database("shop");
    workload::create_tables(&session);
    let ids = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"];
    session.run(&format!(
        "INSERT INTO truth VALUES ('{}', 'order-1', 'order.placed', 1, 700), \
         ('{}', 'order-1', 'order.paid', 2, 700)",
        ids[0], ids[1]
    ));
    let good = [event(ids[0], "order.placed", 1, 0), event(ids[1], "order.paid", 2, 1)];
    let verdict = |records: &[Record]| {
        let mut oracle = Oracle::new(&session, Value::Envelope, 1);
        records.iter().for_each(|record| oracle.take(record));
        oracle.verdict()
    };
    verdict(&good).assert_exact();
    let [first, second] = &good;
    let changed = |change: fn(&mut Record)| {
        let mut record = first.clone();
        change(&mut record);
        [record, second.clone()]
    };
    let unknown = event("00000000-0000-4000-8000-000000000009", "order.paid", 3, 2);
    for (fault, records) in [
        (Fault::Lost, vec![first.clone()]),
        (Fault::Torn, vec![first.clone()]),
        (Fault::Doubled, vec![first.clone(), second.clone(), second.clone()]),
        (Fault::Invented, vec![first.clone(), second.clone(), unknown]),
        (Fault::OutOfOrder, vec![second.clone(), first.clone()]),
        (Fault::Misplaced, changed(|record| record.key = Some(b"order-2".to_vec())).to_vec()),
        (Fault::Misplaced, changed(|record| record.partition = 5).to_vec()),
        (Fault::Misplaced, changed(|record| record.timestamp_ms = 0).to_vec()),
        (Fault::Misplaced, changed(|record| record.headers[3].1 = b"701".to_vec()).to_vec()),
        (Fault::Torn, changed(|record| record.headers[5].1 = b"2".to_vec()).to_vec()),
        (Fault::Malformed, changed(|record| record.value = Some(b"{}".to_vec())).to_vec()),
    ] {
        assert!(verdict(&records).count(fault) > 0, "{fault:?} is not found");
    }
}

fn event(id: &str, event_type: &str, version: u32, sequence: u32) -> Record {
    let value = format!(
        "{{\"id\":\"{id}\",\"type\":\"{event_type}\",\"version\":\"1.0\",\"source\":\"s\",\
         \"correlationId\":\"{id}\",\"occurredAt\":\"2026-03-01T12:00:00.000000Z\",\
         \"data\":{{\"orderId\":\"order-1\",\"version\":{version}}}}}"
    );
    let headers = [
        ("event-id", id.to_owned()),
        ("event-type", event_type.to_owned()),
        ("content-type", "application/json".to_owned()),
        ("pg-xid", "700".to_owned()),
        ("pg-lsn", "0/19890E8".to_owned()),
        ("pg-seq", sequence.to_string()),
        ("schema-version", "1.0".to_owned()),
        ("correlation-id", id.to_owned()),
    ];
    Record {
        topic: "order.events".to_owned(),
        partition: 0,
        offset: i64::from(sequence),
        key: Some(b"order-1".to_vec()),
        value: Some(value.into_bytes()),
        headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).to_vec(),
        timestamp_ms: jiff::Timestamp::now().as_millisecond(),
    }
}

//! The servers that the other tests rely on.

use std::{fs, thread};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{
    PATIENCE, foreign,
    kafka::{Broker, Record},
    postgres::{Server, newest_binaries},
};

type Reader = fn(&Broker, &mut dyn FnMut(Record));

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
    assert!(newest_binaries().join("postgres").is_file());
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
    let killed = broker.pid();
    broker.restart();
    assert_ne!(broker.pid(), killed);
    let kept = broker.read_committed("kept");
    let [record] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(
        (record.key.as_deref(), record.value.as_deref()),
        (Some(&b"a"[..]), Some(&b"1"[..]))
    );
}

/// An open transaction can hide records of others behind it: who stops at the last stable offset
/// sees neither what is lost nor what is doubled there.
#[test]
fn readers_of_what_is_committed_wait_for_an_open_transaction() {
    let broker =
        Broker::start_with("transaction.abort.timed.out.transaction.cleanup.interval.ms=500\n");
    broker.create_topic("events", 1, &[]);
    let [_open, hidden] = ["open", "hidden"].map(|key| {
        let mut config = broker.client();
        // The broker ends the open one: long after each reader has asked where the topic ends.
        config.set("transactional.id", key).set("transaction.timeout.ms", "8000");
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(PATIENCE).expect("initialised");
        producer.begin_transaction().expect("begun");
        producer.send(BaseRecord::to("events").key(key).payload("{}")).expect("sent");
        producer.flush(PATIENCE).expect("acknowledged");
        producer
    });
    hidden.commit_transaction(PATIENCE).expect("committed");
    let readers: [(&str, Reader); 3] = [
        ("librdkafka", |broker, take| broker.for_each_committed("events", take)),
        ("Java", |broker, take| foreign::java(broker, &["events"], take)),
        ("kafkajs", |broker, take| foreign::kafkajs(&broker.brokers(), &["events"], take)),
    ];
    thread::scope(|scope| {
        for (name, read) in readers {
            let broker = &broker;
            scope.spawn(move || {
                let mut keys = Vec::new();
                read(broker, &mut |record| keys.push(record.key));
                assert_eq!(keys, [Some(b"hidden".to_vec())], "{name}");
            });
        }
    });
}

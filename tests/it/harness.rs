//! The servers that the other tests rely on.

use std::fs;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{
    PATIENCE,
    kafka::Broker,
    postgres::{Server, newest_binaries},
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

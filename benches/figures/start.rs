//! exec → slot taken; → first waiting event visible.

use std::time::{Duration, Instant};

use crate::{
    median, row,
    support::{
        PATIENCE, daemon::Daemon, kafka::Broker, postgres::Server, settings::SettingsFile,
        wait_until, workload,
    },
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

pub fn measure(starts: u64) {
    let (server, broker) = (Server::start_with(&[("fsync", "on")]), Broker::start());
    let session = server.create_database("shop");
    workload::create_tables(&session);
    let settings = SettingsFile::new(&server, &broker, "shop");
    broker.create_topic("order.events", 1, &[]);
    stop(publishing(&settings));

    let consumer: BaseConsumer = broker
        .client()
        .set("group.id", "figures")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset("order.events", 0, Offset::Beginning).expect("a partition");
    consumer.assign(&assignment).expect("assigned");

    let (mut taken, mut visible) = (Vec::new(), Vec::new());
    for number in 0..starts {
        session.run(&format!(
            "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) VALUES \
             (gen_random_uuid(), '{number}', 'order.placed', '{{}}')"
        ));
        let started = Instant::now();
        let daemon = Daemon::start(&settings);
        while session.value("SELECT active FROM pg_replication_slots").as_deref() != Some("t") {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        taken.push(started.elapsed().as_secs_f64());
        wait_until("the event", PATIENCE, || match consumer.poll(Duration::from_millis(20)) {
            Some(Ok(message)) => message.key() == Some(number.to_string().as_bytes()),
            Some(Err(error)) => panic!("{error}"),
            None => false,
        });
        visible.push(started.elapsed().as_secs_f64());
        daemon.wait_for("publishing");
        stop(daemon);
    }
    println!("## Start, median of {starts}\n");
    row(&["exec → slot taken", "exec → first waiting event visible"].map(str::to_owned));
    println!("|---|---|");
    row(&[format!("{:.2} s", median(taken)), format!("{:.2} s", median(visible))]);
    println!();
}

fn publishing(settings: &SettingsFile) -> Daemon {
    let daemon = Daemon::start(settings);
    daemon.wait_for("publishing");
    daemon
}

fn stop(daemon: Daemon) {
    daemon.signal(libc::SIGTERM);
    daemon.wait(Duration::from_secs(5));
}

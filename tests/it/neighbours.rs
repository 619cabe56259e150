//! Several pipelines on one Kafka: none waits for another where it need not, and none mistakes what
//! another's open transaction hides.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    kafka::Broker,
    oracle::{Oracle, Value},
    postgres::Server,
    producer_log::ProducerLog,
    sampler::Sampler,
    scaled,
    scene::{
        PARTITIONS, SAMPLES_MIN, TOPICS, freeze_in_transaction, init, publishing, shop, stop,
        under_load, wait_for_events, wait_until_published,
    },
    settings::SettingsFile,
};

#[test]
fn two_clusters_of_default_names_share_one_kafka_though_one_is_frozen() {
    let broker = Broker::start();
    let servers = [Server::start(), Server::start()];
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
    let samplers = servers.each_ref().map(|server| Sampler::start(server, &broker));
    let [frozen, other] = settings.each_ref().map(publishing);
    let urls = servers.each_ref().map(|server| server.url("shop"));
    let other = under_load(&urls, scaled(100_000), || {
        ["a", "b"]
            .iter()
            .for_each(|name| wait_for_events(&broker, &format!("{name}.order.events")));
        freeze_in_transaction(&frozen, &broker, "a.order.events");
        // What is committed from here on comes out all the same.
        wait_until_published(&sessions[1], "tailwater");
        frozen.signal(libc::SIGCONT);

        stop(other);
        freeze_in_transaction(&frozen, &broker, "__tailwater_checkpoints");
        // Started anew, it finds the end of the checkpoints behind the frozen one's transaction.
        let other = Daemon::start(&settings[1]);
        other.wait_for("waiting for another pipeline's open transaction");
        assert!(!other.stderr().contains("\"publishing\""), "{}", other.stderr());
        frozen.signal(libc::SIGCONT);
        other.wait_for("\"publishing\"");
        other
    });
    sessions.iter().for_each(|session| wait_until_published(session, "tailwater"));
    stop(frozen);
    stop(other);
    samplers.into_iter().for_each(|sampler| sampler.finish(SAMPLES_MIN));
    for (session, name) in sessions.iter().zip(["a", "b"]) {
        let mut oracle = Oracle::new(session, Value::Envelope, PARTITIONS).with_topic_prefix(name);
        for topic in TOPICS {
            broker.for_each_committed(&format!("{name}.{topic}"), |record| oracle.take(&record));
        }
        oracle.verdict(&ProducerLog::read(&broker)).assert_exact();
    }
}

/// A read_committed reader ends at the first open transaction, whoever's it is.
#[test]
fn a_checkpoint_hidden_behind_another_pipelines_open_transaction() {
    let (server, broker) = (Server::start(), Broker::start());
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
    session.run(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) VALUES \
         (gen_random_uuid(), 'order-1', 'order.placed', '{}')",
    );
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

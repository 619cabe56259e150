//! Kafka that is away, or slower than the brokers' own time-out: the slot is not held for ever, all
//! goes on by itself, and a transaction that cannot go through is named.

use std::time::{Duration, Instant};

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    kafka::Broker,
    let_pass,
    oracle::{Oracle, Value},
    postgres::Server,
    producer_log::ProducerLog,
    scaled,
    scene::{
        PARTITIONS, envelope_settings, freeze_in_transaction, init, judge, publishing,
        run_large_transaction, shop, stop, under_load, under_trickle, wait_for_events,
        wait_until_published,
    },
    settings::SettingsFile,
    wait_until,
    workload::Workload,
};

/// How long the slot is held in these tests, in seconds.
const GRACE_SECONDS: u64 = 5;

/// What a fast shutdown may take beside that.
const SHUTDOWN_MAX: Duration = Duration::from_secs(GRACE_SECONDS + 5);

fn patient(server: &Server, broker: &Broker) -> SettingsFile {
    envelope_settings(server, broker)
        .with("[kafka]", &format!("outage_grace = \"{GRACE_SECONDS}s\""))
}

/// Brokers give up a transaction after two seconds, and look four times a second.
const HASTY_BROKER: &str = "transaction.abort.timed.out.transaction.cleanup.interval.ms=250";
const HASTY: &str = "properties = { \"transaction.timeout.ms\" = \"2000\" }";

/// They do so after one second, the least that librdkafka takes: one transaction of so many rows takes
/// longer than that to publish.
const HASTIER: &str = "properties = { \"transaction.timeout.ms\" = \"1000\" }";
const LARGE_ROWS: u64 = 350_000;

/// Longer than brokers leave a transaction open.
const STALL: Duration = Duration::from_secs(6);

#[test]
fn postgresql_shuts_down_while_kafka_is_away_and_all_goes_on_by_itself() {
    for is_frozen in [true, false] {
        let (server, broker) = (Server::start(), Broker::start());
        let session = shop(&server);
        let settings = patient(&server, &broker);
        init(&settings);
        let mut daemon = publishing(&settings);
        under_trickle(&server.url("shop"), || wait_for_events(&broker, "order.events"));
        Workload::default().run(&server.url("shop"), 20_000);
        match is_frozen {
            true => broker.freeze(),
            false => broker.kill(),
        }
        Workload::default().run(&server.url("shop"), 1_000);
        drop(session);
        let asked_at = Instant::now();
        server.stop();
        let took = asked_at.elapsed();
        assert!(took <= SHUTDOWN_MAX, "PostgreSQL took {took:?} to shut down, frozen: {is_frozen}");
        assert!(daemon.is_running(), "{}", daemon.stderr());
        server.restart();
        let session = server.session("shop");
        Workload::default().run(&server.url("shop"), 1_000);
        // It asks Kafka before it takes the slot, so nobody waits for it meanwhile.
        let holder = "SELECT count(*) FROM pg_replication_slots WHERE active";
        assert_eq!(session.value(holder).as_deref(), Some("0"));
        match is_frozen {
            true => broker.thaw(),
            false => broker.restart(),
        }
        wait_until_published(&session, "tailwater");
        assert!(daemon.is_running(), "{}", daemon.stderr());
        stop(daemon);
        judge(&broker, &session, Value::Envelope);
    }
}

#[test]
fn an_outage_is_said_and_ends_where_kafka_answers_again() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = patient(&server, &broker);
    init(&settings);
    let daemon = publishing(&settings);
    broker.freeze();
    Workload::default().run(&server.url("shop"), 1_000);
    daemon.wait_for("Kafka took nothing for 5 s while something waited for it");
    wait_until("the slot to be free", PATIENCE, || {
        let active = "SELECT active FROM pg_replication_slots";
        session.value(active).as_deref() == Some("f")
    });
    broker.thaw();
    wait_until_published(&session, "tailwater");
    stop(daemon);
    judge(&broker, &session, Value::Envelope);
}

#[test]
fn a_stall_above_the_brokers_time_out_is_got_over_exactly_once() {
    let (server, broker) = (Server::start(), Broker::start_with(HASTY_BROKER));
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker).with("[kafka]", HASTY);
    init(&settings);
    let mut daemon = publishing(&settings);
    under_load(&[server.url("shop")], scaled(200_000), || {
        wait_for_events(&broker, "order.events");
        broker.freeze();
        let_pass(STALL);
        broker.thaw();
        wait_until_published(&session, "tailwater");
    });
    wait_until_published(&session, "tailwater");
    assert!(daemon.is_running(), "{}", daemon.stderr());
    // Asleep, until the brokers have given up what it had under way.
    under_trickle(&server.url("shop"), || {
        let started_over = || daemon.stderr().matches("starting over").count();
        let before = started_over();
        freeze_in_transaction(&daemon, &broker, "order.events");
        let_pass(STALL);
        daemon.signal(libc::SIGCONT);
        wait_until("it to start over", PATIENCE, || started_over() > before);
    });
    wait_until_published(&session, "tailwater");
    stop(daemon);
    judge(&broker, &session, Value::Envelope);
}

#[test]
fn a_transaction_that_never_goes_through_is_named_with_its_rate() {
    let (server, broker) = (Server::start(), Broker::start_with(HASTY_BROKER));
    let session = shop(&server);
    let settings = SettingsFile::new(&server, &broker, "shop")
        .with("[kafka]", "large_transactions = \"atomic\"")
        .with("[kafka]", HASTIER);
    init(&settings);
    run_large_transaction(&session, LARGE_ROWS);
    let ended = Daemon::start(&settings).wait(PATIENCE * 2);
    assert!(ended.is_code("transaction_too_slow"), "{}", ended.stderr);
    assert!(ended.stderr.contains("bytes a second"), "{}", ended.stderr);
    // What the hint says.
    let settings = settings.replaced("\"1000\"", "\"300000\"");
    let daemon = publishing(&settings);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    let mut oracle = Oracle::new(&session, Value::Envelope, PARTITIONS).whole();
    broker.for_each_committed("order.events", |record| oracle.take(&record));
    oracle.verdict(&ProducerLog::read(&broker)).assert_exact();
}

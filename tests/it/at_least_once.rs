//! The other guarantee: each committed row is on Kafka, in the order of commits per aggregate; what
//! came again after a crash came as it was.

use std::{thread, time::Duration};

use tailwater::lsn::Lsn;

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    kafka::Broker,
    let_pass,
    oracle::{Oracle, Value, Verdict},
    postgres::{Server, Session},
    proof_scale,
    reader::{OpenTransactions, high_watermarks},
    sampler::Sampler,
    scaled,
    scene::{
        PARTITIONS, SAMPLES_MIN, TOPICS, assert_gives_way, checkpoint, envelope_settings,
        freeze_in_transaction, holder, init, publishing, run_large_transaction, shop, stop,
        under_load, under_trickle, wait_for_events, wait_until_published,
    },
    settings::SettingsFile,
    wait_until,
    workload::Workload,
};

fn at_least_once(server: &Server, broker: &Broker) -> SettingsFile {
    envelope_settings(server, broker).with("[kafka]", "delivery = \"at-least-once\"")
}

fn verdict(broker: &Broker, session: &Session) -> Verdict {
    let mut oracle = Oracle::new(session, Value::Envelope, PARTITIONS);
    let known = broker.topics();
    for topic in TOPICS.into_iter().filter(|topic| known.iter().any(|known| known == topic)) {
        broker.for_each_committed(topic, |record| oracle.take(&record));
    }
    oracle.verdict_without_transactions()
}

#[test]
fn kill_9_loses_nothing_and_only_it_makes_anything_come_again() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = at_least_once(&server, &broker);
    init(&settings);
    let kills = (30. * proof_scale().max(0.2)) as u64;
    let sampler = Sampler::start(&server, &broker);
    let mut daemon = publishing(&settings);
    under_load(&[server.url("shop")], scaled(1_000_000), || {
        for _ in 0..kills {
            let_pass(Duration::from_millis(fastrand::u64(50..3_000)));
            daemon.kill_and_restart(&settings);
            assert!(daemon.is_running(), "{}", daemon.stderr());
        }
    });
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    verdict(&broker, &session).assert_at_least_once(kills);
}

/// Brokers and databases that die are waited out by the producer, or by a start from a checkpoint
/// that holds all that was sent.
#[test]
fn a_broker_that_dies_makes_nothing_come_out_of_order() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings = at_least_once(&server, &broker);
    init(&settings);
    let daemon = publishing(&settings);
    under_load(&[server.url("shop")], scaled(200_000), || {
        for _ in 0..2 {
            let_pass(Duration::from_millis(fastrand::u64(500..2_000)));
            broker.restart();
            wait_until_published(&session, "tailwater");
        }
    });
    wait_until_published(&session, "tailwater");
    let starts = daemon.stderr().matches("publishing").count();
    stop(daemon);
    verdict(&broker, &session).assert_at_least_once(starts as u64 - 1);
}

#[test]
fn sigterm_and_a_database_that_restarts_double_nothing() {
    let (server, broker) = (Server::start(), Broker::start());
    shop(&server);
    let settings = at_least_once(&server, &broker);
    init(&settings);
    let url = server.url("shop");
    // On a machine that is busy enough the time for the last checkpoint is over before it is written.
    let is_late = |daemon: Daemon| {
        let said = daemon.stop().stderr;
        said.contains("no checkpoint within") || said.contains("the sink did not finish in time")
    };
    let (mut late, mut lost) = (0, 0);
    thread::scope(|scope| {
        let writing = scope.spawn(|| Workload::default().run(&url, scaled(300_000).max(60_000)));
        for round in 0.. {
            if writing.is_finished() {
                break;
            }
            let daemon = publishing(&settings);
            let_pass(Duration::from_millis(fastrand::u64(100..1_500)));
            if round % 2 == 1 {
                let sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots";
                server.session("shop").run(sql);
                lost += 1;
                let_pass(Duration::from_millis(fastrand::u64(500..1_500)));
            }
            late += u64::from(is_late(daemon));
        }
    });
    let session = server.session("shop");
    let daemon = publishing(&settings);
    wait_until_published(&session, "tailwater");
    late += u64::from(is_late(daemon));
    assert!(late * 2 <= lost, "{late} of them without a last checkpoint, {lost} connections lost");
    let verdict = verdict(&broker, &session);
    verdict.assert_at_least_once(late);
    if late == 0 {
        verdict.assert_exact();
    }
}

/// It is no more than a moment's worth that comes again of a transaction that takes seconds.
#[test]
fn a_large_transaction_goes_on_where_a_stop_left_it() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let settings =
        SettingsFile::new(&server, &broker, "shop").with("[kafka]", "delivery = \"at-least-once\"");
    init(&settings);
    let rows = scaled(1_000_000);
    run_large_transaction(&session, rows);
    for part in 1..=3 {
        let daemon = publishing(&settings);
        wait_until("a part of it", PATIENCE * 5, || {
            let ends = high_watermarks(&broker.brokers(), "order.events");
            ends.iter().sum::<i64>() as u64 >= rows * part / 5
        });
        stop(daemon);
    }
    let daemon = publishing(&settings);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    let verdict = verdict(&broker, &session);
    verdict.assert_at_least_once(0);
    assert_eq!(verdict.records, rows);
}

/// Whoever had the slot before and wakes up under a successor, of whichever guarantee both are.
#[test]
fn a_predecessor_that_wakes_up_gives_way_in_either_mode() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    let (once, at_least) = (envelope_settings(&server, &broker), at_least_once(&server, &broker));
    init(&once);
    let turns = [&at_least, &once, &at_least, &at_least, &once];
    let mut fenced = 0;
    let last = under_trickle(&server.url("shop"), || {
        let mut first = publishing(turns[0]);
        wait_for_events(&broker, "order.events");
        for (leader, settings) in turns.iter().zip(&turns[1..]) {
            let is_once = leader.path() == once.path();
            let second = Daemon::start(settings);
            second.wait_for("the slot is in use by process");
            match is_once {
                true => freeze_in_transaction(&first, &broker, "order.events"),
                false => freeze_behind_a_checkpoint(&first, &broker),
            }
            let former = holder(&session).expect("the slot is held");
            session.run(&format!("SELECT pg_terminate_backend({former})"));
            second.wait_for("publishing");
            wait_until_published(&session, "tailwater");
            fenced += usize::from(assert_gives_way(first) && !is_once);
            first = second;
        }
        first
    });
    assert!(fenced > 0, "nobody was fenced by a checkpoint of this mode");
    wait_until_published(&session, "tailwater");
    stop(last);
    // What a predecessor had queued comes late, between the same records of its successor: the one
    // reordering of this mode, of what is there already.
    verdict(&broker, &session).assert_at_least_once(u64::MAX);
}

/// Stops a daemon with events out that no checkpoint covers yet.
fn freeze_behind_a_checkpoint(daemon: &Daemon, broker: &Broker) {
    let transactions = OpenTransactions::open(broker, "__tailwater_checkpoints");
    wait_until("events behind a checkpoint", PATIENCE, || {
        daemon.signal(libc::SIGSTOP);
        // By then the broker has answered all that was sent before.
        let_pass(Duration::from_millis(500));
        // A checkpoint that is not committed covers nothing; who reads what is committed would wait for
        // it.
        if transactions.any() {
            return true;
        }
        let records = broker.read_committed("order.events");
        let lsns = records.iter().filter_map(|record| record.header("pg-lsn")?.parse::<Lsn>().ok());
        let covered = checkpoint(broker).and_then(|text| text.parse::<Lsn>().ok());
        let is_behind = lsns.max() >= covered;
        if !is_behind {
            daemon.signal(libc::SIGCONT);
            // Its checkpoint is due by now, and it must come to something behind it.
            let_pass(Duration::from_millis(200));
        }
        is_behind
    });
}

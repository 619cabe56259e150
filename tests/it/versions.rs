//! The guarantee on every major version of PostgreSQL that is supported, and what they do each in
//! their own way. Other tests run against whichever version is there.

use std::time::Duration;

use crate::{
    refusals::{insert, refuse},
    support::{
        PATIENCE,
        daemon::Daemon,
        kafka::Broker,
        let_pass,
        oracle::Value,
        postgres::{Server, Session},
        proof_scale,
        sampler::Sampler,
        scaled,
        scene::{
            SAMPLES_MIN, envelope_settings, init, judge, publishing, shop, stop, under_load,
            wait_until_published,
        },
        settings::SettingsFile,
        wait_until,
    },
    tail::Tail,
};

/// How often a daemon is killed, at full size; and at least.
const DAEMONS_KILLED: f64 = 10.;
const DAEMONS_KILLED_MIN: f64 = 3.;

/// A server of that version, and nothing else.
fn server(version: u32, settings: &[(&str, &str)]) -> Server {
    let server = Server::start_version_with(version, settings);
    let found = server.session("postgres").value("SHOW server_version_num").expect("a version");
    assert_eq!(found.parse::<u32>().expect("a number") / 10_000, version);
    server
}

/// Rows while daemon and database are killed over and over.
fn publish_through_kills(version: u32) {
    let (server, broker) = (server(version, &[]), Broker::start());
    shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let sampler = Sampler::start(&server, &broker);
    let mut daemon = publishing(&settings);
    let kills = (DAEMONS_KILLED * proof_scale()).max(DAEMONS_KILLED_MIN) as usize;
    under_load(&[server.url("shop")], scaled(100_000), || {
        for kill in 0..kills {
            let_pass(Duration::from_millis(fastrand::u64(50..1_500)));
            match kill {
                1 => server.restart(),
                _ => daemon.kill_and_restart(&settings),
            }
            assert!(daemon.is_running(), "{}", daemon.stderr());
        }
    });
    let session = server.session("shop");
    wait_until_published(&session, "tailwater");
    stop(daemon);
    sampler.finish(SAMPLES_MIN);
    judge(&broker, &session, Value::Envelope);
}

#[test]
fn postgres_14_loses_and_doubles_nothing_through_kills() {
    publish_through_kills(14);
}

#[test]
fn postgres_15_loses_and_doubles_nothing_through_kills() {
    publish_through_kills(15);
}

#[test]
fn postgres_16_loses_and_doubles_nothing_through_kills() {
    publish_through_kills(16);
}

#[test]
fn postgres_17_loses_and_doubles_nothing_through_kills() {
    publish_through_kills(17);
}

#[test]
fn postgres_18_loses_and_doubles_nothing_through_kills() {
    publish_through_kills(18);
}

const SLOT: &str = "SELECT to_jsonb(s) ->> 'failover' FROM pg_replication_slots s";

/// Whether a slot can survive a failover is there from 17 on, and off where it is not wanted.
fn failover_of(version: u32, session: &Session) -> Option<&'static str> {
    let found = session.value(SLOT);
    match (version, found.as_deref()) {
        (14..=16, None) => None,
        (17.., Some("true")) => Some("true"),
        (17.., Some("false")) => Some("false"),
        other => panic!("{other:?}"),
    }
}

/// Servers say these in words and columns of their own, version by version.
#[test]
fn each_version_is_understood_in_what_it_refuses() {
    for version in 14..=18 {
        eprintln!("PostgreSQL {version}");
        let server = server(version, &[("max_slot_wal_keep_size", "1MB")]);
        let session = shop(&server);
        let broker = Broker::start();
        let settings =
            SettingsFile::new(&server, &broker, "shop").with("[postgres]", "failover = false");
        init(&settings);
        let is_17 = version >= 17;
        assert_eq!(failover_of(version, &session), is_17.then_some("false"));
        let tail = Tail::showing(&["--json"], &settings);
        insert(&session, 1);
        tail.lines(1);
        tail.end(libc::SIGINT);
        wait_until("the slot of a look to be gone", PATIENCE, || {
            session.value("SELECT count(*) FROM pg_replication_slots").as_deref() == Some("1")
        });

        session.run("SELECT pg_drop_replication_slot('tailwater')");
        let ended = refuse(&settings, "slot_missing", "postgres.slot");
        assert!(
            ended.stderr.contains("does not exist, but its checkpoint does"),
            "{}",
            ended.stderr
        );

        // Below 17 the setting has no effect, and is no mistake.
        let settings = settings
            .replaced("failover = false", "failover = true\nslot = \"second\"")
            .replaced("source = \"order-service\"", "source = \"order-service-2\"");
        init(&settings);
        assert_eq!(failover_of(version, &session), is_17.then_some("true"));

        // Who holds the slot is in the server's words alone.
        let daemon = publishing(&settings);
        let second = Daemon::start(&settings);
        second.wait_for("the slot is in use by process");
        stop(second);

        session.run("DROP PUBLICATION tailwater");
        insert(&session, 1);
        let ended = daemon.wait(PATIENCE);
        assert!(ended.is_code("publication_missing"), "{version}: {}", ended.stderr);

        wait_until("the slot to be lost", PATIENCE, || {
            session.run(
                "SELECT pg_logical_emit_message(false, 'filler', 'x'); SELECT pg_switch_wal()",
            );
            session.run("CHECKPOINT");
            let status = session.value("SELECT wal_status FROM pg_replication_slots");
            status.as_deref() == Some("lost")
        });
        refuse(&settings, "slot_invalidated", "max_slot_wal_keep_size");
    }
}

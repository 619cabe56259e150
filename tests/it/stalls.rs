//! Servers that neither answer nor go away: what a stalled disk, a paused container or a partition
//! of the network looks like.

use std::{thread, time::Duration};

use crate::support::{
    PATIENCE,
    kafka::Broker,
    oracle::Value,
    postgres::Server,
    scene::{TOPICS, envelope_settings, init, judge, publishing, shop, stop, wait_until_published},
    wait_until,
    workload::Workload,
};

/// Writes the disk need not see: nothing is lost but by a crash of the machine.
const NO_FSYNC: [(&str, &str); 1] = [("fsync", "off")];

/// Enough to fill what is in flight many times over, at any scale of the proofs.
const ROWS: u64 = 40_000;

/// Longer than a server may be silent, shorter than a commit is waited for.
const STALL: Duration = Duration::from_secs(45);

#[test]
fn a_broker_that_stalls_under_load_is_waited_out_by_the_same_stream() {
    let (server, broker) = (Server::start_with(&NO_FSYNC), Broker::start());
    let session = shop(&server);
    let settings = envelope_settings(&server, &broker);
    init(&settings);
    let daemon = publishing(&settings);
    let url = server.url("shop");
    thread::scope(|scope| {
        let writing = scope.spawn(|| Workload::default().run(&url, ROWS));
        // What needs the broker's answer at once is over: topics are looked up.
        for topic in TOPICS {
            wait_until("events of each topic", PATIENCE, || {
                broker.topics().iter().any(|known| known == topic)
                    && !broker.read_committed(topic).is_empty()
            });
        }
        broker.freeze();
        thread::park_timeout(STALL);
        broker.thaw();
        writing.join().expect("the application writes");
    });
    wait_until_published(&session, "tailwater");
    let starts = daemon.stderr().matches("publishing").count();
    assert_eq!(starts, 1, "it started over: {}", daemon.stderr());
    stop(daemon);
    judge(&broker, &session, Value::Envelope);
}

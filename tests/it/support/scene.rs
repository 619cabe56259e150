//! A shop with an outbox, and what is done to it over and over.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    PATIENCE,
    daemon::{self, Daemon},
    kafka::Broker,
    let_pass,
    oracle::{Oracle, Value},
    postgres::{Server, Session},
    producer_log::ProducerLog,
    reader::{self, OpenTransactions},
    settings::SettingsFile,
    wait_until,
    workload::{self, Workload},
};

/// Topics that the workload's events go to.
pub const TOPICS: [&str; 2] = ["order.events", "invoice.events"];

/// Their partitions: the broker's default.
pub const PARTITIONS: u32 = 3;

/// How often slot and checkpoint are compared at least, also in the smallest run.
pub const SAMPLES_MIN: u64 = 10;

/// How long everything that waits may take to be published.
const DRAIN_MAX: Duration = Duration::from_secs(900);

/// What is written between two pauses, and how long these are.
const TRICKLE_ROWS: u64 = 20;
const TRICKLE_PAUSE: Duration = Duration::from_millis(20);

/// By then a broker has answered all that a process sent before it was stopped.
const ANSWERED: Duration = Duration::from_millis(500);

/// A database `shop` with the application's tables.
pub fn shop(server: &Server) -> Session {
    let session = server.create_database("shop");
    workload::create_tables(&session);
    session
}

/// Rows of one transaction, as a migration or a batch job writes them.
const LARGE_TRANSACTION: &str = "
    WITH rows AS (
        INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at)
        SELECT gen_random_uuid(), 'order-' || n % 1000, 'order.placed', jsonb_build_object(
            'orderId', 'order-' || n % 1000, 'version', n / 1000 + 1, 'items', repeat('x', 250)
        ), now()
        FROM generate_series(0, ROWS - 1) n
        RETURNING id, aggregate_id, event_type, payload
    )
    INSERT INTO truth
    SELECT id, aggregate_id, event_type, (payload->>'version')::int, txid_current() FROM rows";

/// One transaction of so many rows.
pub fn run_large_transaction(session: &Session, rows: u64) {
    session.run(&LARGE_TRANSACTION.replace("ROWS", &rows.to_string()));
}

/// The first pipeline of README.md, for an application that writes envelopes.
pub fn envelope_settings(server: &Server, broker: &Broker) -> SettingsFile {
    SettingsFile::new(server, broker, "shop").with("[[outbox]]", "payload = \"envelope\"")
}

/// `tailwater init`.
pub fn init(settings: &SettingsFile) {
    let ended = daemon::run(&["init"], settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// A daemon that publishes.
pub fn publishing(settings: &SettingsFile) -> Daemon {
    let daemon = Daemon::start(settings);
    daemon.wait_for("publishing");
    daemon
}

/// Stops it as a service manager does.
pub fn stop(daemon: Daemon) {
    daemon.stop();
}

/// Lets a stopped daemon go on, whose place another one has by now. It finds out on Kafka and ends, or
/// by its connection to PostgreSQL, and waits as standby. Whether it was fenced.
pub fn assert_gives_way(mut daemon: Daemon) -> bool {
    let stood_by = |daemon: &Daemon| daemon.stderr().matches("standing by").count();
    let before = stood_by(&daemon);
    daemon.signal(libc::SIGCONT);
    wait_until("it to end or to stand by", PATIENCE, || {
        !daemon.is_running() || stood_by(&daemon) > before
    });
    if daemon.is_running() {
        return false;
    }
    let ended = daemon.wait(PATIENCE);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.is_code("fenced"), "{}", ended.stderr);
    true
}

/// Does `work` while applications write to the databases, each at least that many rows.
pub fn under_load<T>(urls: &[String], rows_min: u64, work: impl FnOnce() -> T) -> T {
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let ends = Ends(&goes_on);
        let write = |url| {
            Workload::default().run(url, rows_min);
            while goes_on.load(Ordering::Relaxed) {
                Workload::default().run_while(url, 10_000, &goes_on);
            }
        };
        let writers: Vec<_> = urls.iter().map(|url| scope.spawn(move || write(url))).collect();
        let done = work();
        drop(ends);
        for writer in writers {
            writer.join().expect("the writers end");
        }
        done
    })
}

/// Does `work` while an application writes some hundred rows a second: little enough for the sockets
/// of a stopped daemon to hold for a while. A walsender whose client reads nothing more cannot be
/// terminated once its socket is full: it waits to say so.
pub fn under_trickle<T>(url: &str, work: impl FnOnce() -> T) -> T {
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let ends = Ends(&goes_on);
        scope.spawn(|| {
            while goes_on.load(Ordering::Relaxed) {
                Workload::default().run_while(url, TRICKLE_ROWS, &goes_on);
                let_pass(TRICKLE_PAUSE);
            }
        });
        let done = work();
        drop(ends);
        done
    })
}

/// Ends the writers also where an assertion fails.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Waits until a topic holds something that is committed.
pub fn wait_for_events(broker: &Broker, topic: &str) {
    wait_until(&format!("events in {topic}"), PATIENCE, || {
        reader::high_watermarks(&broker.brokers(), topic).iter().any(|end| *end > 0)
    });
}

/// Stops a daemon under load inside a Kafka transaction, with records of it in that topic. Others
/// must not write to the topic. `SIGCONT` lets it go on.
pub fn freeze_in_transaction(daemon: &Daemon, broker: &Broker, topic: &str) {
    let transactions = OpenTransactions::open(broker, topic);
    wait_until("a moment inside a transaction", PATIENCE, || {
        daemon.signal(libc::SIGSTOP);
        let until = Instant::now() + ANSWERED;
        // What it sent before may end the transaction a moment later.
        while transactions.any() {
            if Instant::now() > until {
                return true;
            }
        }
        daemon.signal(libc::SIGCONT);
        false
    });
}

/// The server's process that holds the slot.
pub fn holder(session: &Session) -> Option<String> {
    session.value("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'tailwater'")
}

/// Waits until the slot has passed all that is in the log at this moment.
pub fn wait_until_published(session: &Session, slot: &str) {
    let end = session.value("SELECT pg_current_wal_lsn()").expect("a position");
    let sql = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots \
         WHERE slot_name = '{slot}'"
    );
    wait_until("the slot to pass what was committed", DRAIN_MAX, || {
        session.value(&sql).as_deref() == Some("t")
    });
}

/// Compares what is on Kafka with what was committed.
pub fn judge(broker: &Broker, session: &Session, value: Value) {
    let mut oracle = Oracle::new(session, value, PARTITIONS);
    for topic in TOPICS {
        broker.for_each_committed(topic, |record| oracle.take(&record));
    }
    oracle.verdict(&ProducerLog::read(broker)).assert_exact();
}

/// The newest committed checkpoint's `commit_end_lsn`, of the one pipeline that there is.
pub fn checkpoint(broker: &Broker) -> Option<String> {
    let newest = broker
        .read_committed("__tailwater_checkpoints")
        .into_iter()
        .rfind(|record| record.key.as_deref().is_some_and(|key| key.ends_with(b"/tailwater")))?;
    newest.json()["commit_end_lsn"].as_str().map(str::to_owned)
}

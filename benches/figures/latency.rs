//! Commit → visible to a `read_committed` consumer, at 1,000 single-row transactions a second. The
//! clock begins when the INSERT is sent, so the commit's own fsync is in it.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};

use crate::{
    DELIVERIES,
    process_times::cpu_seconds,
    row,
    support::{
        PATIENCE,
        daemon::{self, Daemon},
        kafka::Broker,
        postgres::{Server, Session},
        settings::SettingsFile,
        wait_until, workload,
    },
};

/// Transactions a second, and the connections that share them: one commit waits for its fsync.
const RATE: u64 = 1_000;
const WRITERS: u64 = 8;

/// Left out at the beginning: the broker compiles its hot methods, which takes half of the machine.
const WARM_UP: Duration = Duration::from_secs(20);

type Sent = Mutex<HashMap<String, Instant>>;

/// What the writers do.
struct Load<'a> {
    url: &'a str,
    /// Of each transaction.
    rows: u64,
    /// Each round of one database has other ids.
    round: u64,
    duration: Duration,
    sent: &'a Sent,
}

pub fn measure(seconds: u64) {
    println!("## Commit to visible, {RATE} single-row transactions a second\n");
    row(&["", "events", "p50 ms", "p90 ms", "p99 ms", "max ms", "CPU s a minute"]
        .map(str::to_owned));
    println!("|---|---|---|---|---|---|---|");
    for delivery in DELIVERIES {
        measure_one(seconds, delivery);
    }
    println!();
}

fn measure_one(seconds: u64, delivery: &str) {
    let server = Server::start_with(&[
        ("fsync", "on"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "8GB"),
    ]);
    let broker = Broker::start();
    let session = server.create_database("shop");
    workload::create_tables(&session);
    let settings = SettingsFile::new(&server, &broker, "shop")
        .with("[kafka]", &format!("delivery = \"{delivery}\""));
    broker.create_topic("order.events", 1, &[]);
    let daemon = Daemon::start(&settings);
    daemon.wait_for("publishing");

    let (sent, ended) = (Sent::default(), AtomicBool::new(false));
    let duration = WARM_UP + Duration::from_secs(seconds);
    let (latencies, commits, cpu) = thread::scope(|scope| {
        let reading = scope.spawn(|| read(&broker, &sent, &ended));
        let before = cpu_seconds(daemon.pid());
        let load = Load { url: &server.url("shop"), rows: 1, round: 0, duration, sent: &sent };
        let commits = write_by_all(&load);
        wait_until("the last events", PATIENCE, || {
            sent.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
        });
        let cpu = cpu_seconds(daemon.pid()) - before;
        ended.store(true, Ordering::Relaxed);
        (reading.join().expect("the reader ends"), commits, cpu)
    });
    print(delivery, latencies, commits, cpu * 60. / duration.as_secs_f64());
}

fn write_by_all(load: &Load<'_>) -> Vec<Duration> {
    thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(load, writer))).collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect()
    })
}

/// Returns how long each INSERT took by itself.
fn write(load: &Load<'_>, writer: u64) -> Vec<Duration> {
    let Load { url, rows, round, duration, sent } = *load;
    let session = Session::open(url).expect("a connection");
    let mut random = fastrand::Rng::with_seed(round * WRITERS + writer);
    let interval = Duration::from_micros(1_000_000 * WRITERS / RATE);
    let started = Instant::now() + interval.mul_f64(writer as f64 / WRITERS as f64);
    let (mut number, mut commits) = (0, Vec::new());
    while started.elapsed() < duration {
        let due = started + interval * number;
        number += 1;
        while let Some(wait) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(wait);
        }
        let mut ids = Vec::new();
        let mut value = || {
            let id = uuid::Builder::from_random_bytes(random.u128(..).to_le_bytes()).into_uuid();
            ids.push(id.to_string());
            format!(
                "('{id}', 'order-{}', 'order.placed', '{{\"note\": \"{:x<180}\"}}', clock_timestamp())",
                random.u16(..),
                ""
            )
        };
        let values: Vec<String> = (0..rows).map(|_| value()).collect();
        let sql = format!(
            "INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) VALUES {}",
            values.join(", ")
        );
        let now = Instant::now();
        let of_now = ids.into_iter().map(|id| (id, now));
        sent.lock().unwrap_or_else(PoisonError::into_inner).extend(of_now);
        session.run(&sql);
        commits.push(now.elapsed());
    }
    commits
}

/// Each event's time since its INSERT was sent, those of the warm-up left out.
fn read(broker: &Broker, sent: &Sent, ended: &AtomicBool) -> Vec<Duration> {
    let consumer: BaseConsumer = broker
        .client()
        .set("group.id", "figures")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .create()
        .expect("a consumer");
    let (_, end) = consumer.fetch_watermarks("order.events", 0, PATIENCE).expect("watermarks");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset("order.events", 0, Offset::Offset(end)).expect("a partition");
    consumer.assign(&assignment).expect("assigned");
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while !ended.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.expect("a record");
        let id = message.headers().and_then(|headers| {
            let header = headers.iter().find(|header| header.key == "event-id")?;
            String::from_utf8(header.value?.to_vec()).ok()
        });
        let id = id.expect("an event-id");
        let begun = sent.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let begun = begun.expect("an event that was sent, and once");
        if begun.duration_since(started) > WARM_UP {
            latencies.push(begun.elapsed());
        }
    }
    latencies
}

/// Rows that a back-fill brings, of 600 bytes, and for how many the application makes changes.
const HISTORY: &str = "
    CREATE TABLE history (id bigint PRIMARY KEY, note text NOT NULL);
    INSERT INTO history SELECT n, repeat(md5(n::text), 18) FROM generate_series(1, 2000000) n;
    ANALYZE history";

/// 5,000 changes a second, alone and beside back-fills of another table, in turns.
pub fn measure_beside(seconds: u64) {
    const ROWS: u64 = 5;
    let server = Server::start_with(&[
        ("fsync", "on"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "8GB"),
    ]);
    let broker = Broker::start();
    let session = server.create_database("shop");
    workload::create_tables(&session);
    session.run(HISTORY);
    let settings = SettingsFile::new(&server, &broker, "shop");
    let socket = settings.folder().join("tailwater.sock");
    let settings = SettingsFile::of_text(format!(
        "{}\n[[table]]\nname = \"public.history\"\nsnapshot = \"never\"\n\n[admin]\nsocket = \
         \"{}\"\n",
        std::fs::read_to_string(settings.path()).expect("settings"),
        socket.display()
    ));
    broker.create_topic("order.events", 1, &[]);
    broker.create_topic("history.events", 1, &[]);
    let daemon = Daemon::start(&settings);
    daemon.wait_for("publishing");
    println!("## Commit to visible, {} changes a second, beside back-fills\n", RATE * ROWS);
    row(&["", "events", "p50 ms", "p90 ms", "p99 ms", "max ms", "CPU s a minute"]
        .map(str::to_owned));
    println!("|---|---|---|---|---|---|---|");
    for (round, is_beside) in (0..).zip([false, true, false, true]) {
        let (sent, ended) = (Sent::default(), AtomicBool::new(false));
        let duration = WARM_UP + Duration::from_secs(seconds);
        let before = cpu_seconds(daemon.pid());
        let (latencies, commits, back_fills) = thread::scope(|scope| {
            let reading = scope.spawn(|| read(&broker, &sent, &ended));
            let asking = scope.spawn(|| {
                let mut count = 0;
                while is_beside && !ended.load(Ordering::Relaxed) {
                    let arguments = ["snapshot", "public.history", "--where", "id % 10 <> 0"];
                    let done = daemon::run(&arguments, &settings);
                    assert_eq!(done.code, Some(0), "{}", done.stderr);
                    count += 1;
                }
                count
            });
            let url = server.url("shop");
            let load = Load { url: &url, rows: ROWS, round, duration, sent: &sent };
            let commits = write_by_all(&load);
            wait_until("the last events", PATIENCE, || {
                sent.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
            });
            ended.store(true, Ordering::Relaxed);
            let latencies = reading.join().expect("the reader ends");
            (latencies, commits, asking.join().expect("the back-fills end"))
        });
        let cpu = (cpu_seconds(daemon.pid()) - before) * 60. / duration.as_secs_f64();
        let name = match is_beside {
            true => format!("beside {back_fills} back-fills of 1,800,000 rows"),
            false => "alone".to_owned(),
        };
        print(&name, latencies, commits, cpu);
    }
    println!();
}

fn print(delivery: &str, latencies: Vec<Duration>, commits: Vec<Duration>, cpu_a_minute: f64) {
    for (name, mut times, cpu) in [
        ("INSERT sent → visible", latencies, format!("{cpu_a_minute:.1}")),
        ("of it: INSERT sent → answered", commits, "–".to_owned()),
    ] {
        let name = format!("{delivery}: {name}");
        times.sort_unstable();
        let at = |part: f64| {
            let index = (times.len() as f64 * part) as usize;
            let time = times.get(index).or(times.last()).copied().unwrap_or_default();
            format!("{:.1}", time.as_secs_f64() * 1e3)
        };
        let count = times.len().to_string();
        row(&[name, count, at(0.5), at(0.9), at(0.99), at(1.), cpu]);
    }
}

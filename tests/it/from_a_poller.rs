//! The steps of docs/from-a-poller.md, walked while four writers go on: a poller in Node with
//! kafkajs, a shadow run beside it, the take-over (killed in the middle), the daemon.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::support::{
    PATIENCE,
    daemon::{self, Daemon},
    foreign,
    kafka::Broker,
    let_pass,
    postgres::{Server, Session},
    process::{self, Words},
    reader::{self, OpenTransactions},
    scene::{Ends, checkpoint, init, publishing, stop, wait_until_published},
    settings::SettingsFile,
    target_folder, wait_until,
};

const PARTITIONS: u32 = 7;
const AGGREGATES: u32 = 40;
const TOPICS: [&str; 2] = ["order.events", "invoice.events"];
const TAKE_OVER: [&str; 5] =
    ["init", "--take-over", "public.outbox_events", "--where", "status = 'pending'"];

/// The poller. Killed when dropped.
struct Poller {
    child: Child,
    said: Words,
    complained: Words,
}

impl Poller {
    fn start(server: &Server, broker: &Broker) -> Self {
        let mut node = Command::new("node");
        node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/poller/poller.mjs"))
            .arg(target_folder().join("node"))
            .args([server.url("shop"), broker.brokers()])
            .env("KAFKAJS_NO_PARTITIONER_WARNING", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = process::spawn(node);
        let said = Words::of(child.stdout.take().expect("a pipe"));
        let complained = Words::of(child.stderr.take().expect("a pipe"));
        let poller = Self { child, said, complained };
        wait_until("the poller", PATIENCE, || poller.said.so_far().contains("polling"));
        poller
    }

    /// As a service manager stops it: it ends its transaction.
    fn stop(mut self) {
        process::signal(self.child.id(), libc::SIGTERM);
        let code = process::wait(&mut self.child, PATIENCE);
        assert_eq!(code, Some(0), "{}", self.complained.until_end());
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            process::kill_family(&mut self.child);
        }
    }
}

fn create_tables(session: &Session) {
    session.run(&format!(
        "CREATE TABLE outbox_events (id uuid PRIMARY KEY, aggregate_id text NOT NULL, event_type text \
         NOT NULL, payload jsonb NOT NULL, status text NOT NULL DEFAULT 'pending', created_at \
         timestamptz NOT NULL, retry_count int DEFAULT 0, published_at timestamptz);
         CREATE INDEX ON outbox_events (created_at) WHERE status = 'pending';
         CREATE TABLE orders (id text PRIMARY KEY, version int NOT NULL);
         INSERT INTO orders SELECT 'Bestellung-ü-' || n, 0 FROM generate_series(1, {AGGREGATES}) n"
    ));
}

/// What an application does: versions of an aggregate follow the order of commits, and so do their
/// times.
fn insert_sql(aggregate: u32, event_type: &str) -> String {
    format!(
        "UPDATE orders SET version = version + 1 WHERE id = 'Bestellung-ü-{aggregate}';
         INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
         SELECT e.id, o.id, '{event_type}', jsonb_build_object('id', e.id, 'type', '{event_type}', \
             'version', '1.0', 'source', 'order-service', 'correlationId', 'request-' || e.id, \
             'occurredAt', '2026-03-01T12:00:00.000Z', 'data', \
             jsonb_build_object('orderId', o.id, 'version', o.version)), clock_timestamp() \
         FROM orders o, (SELECT gen_random_uuid() AS id) e WHERE o.id = 'Bestellung-ü-{aggregate}';"
    )
}

fn write(url: &str, goes_on: &AtomicBool) {
    let session = Session::open(url).expect("a connection");
    let mut random = fastrand::Rng::new();
    while goes_on.load(Ordering::Relaxed) {
        let event_type = if random.bool() { "order.paid" } else { "invoice.issued" };
        let insert = insert_sql(random.u32(1..=AGGREGATES), event_type);
        match random.u8(0..10) {
            0 => session.run(&format!("BEGIN; {insert} ROLLBACK")),
            1 => session
                .run(&format!("BEGIN; SAVEPOINT kept; {insert} RELEASE SAVEPOINT kept; COMMIT")),
            _ => session.run(&format!("BEGIN; {insert} COMMIT")),
        }
        // Some hundred rows a second: as many as the poller manages.
        let_pass(Duration::from_millis(random.u64(5..20)));
    }
}

/// Every id of the topics, each once; per key in the order of versions, in the partition of
/// kafkajs.
fn judge(broker: &Broker, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut places: HashMap<Vec<u8>, i32> = HashMap::new();
    for topic in TOPICS {
        let mut versions: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        broker.for_each_committed(&format!("{prefix}{topic}"), |record| {
            let event = record.json();
            let id = event["id"].as_str().expect("an id").to_owned();
            assert!(found.insert(id.clone()), "{id} is doubled");
            let key = record.key.expect("a key");
            assert_eq!(event["data"]["orderId"].as_str().map(str::as_bytes), Some(&*key));
            let version = event["data"]["version"].as_u64().expect("a version");
            let before = versions.insert(key.clone(), version);
            assert!(
                before.is_none_or(|before| before < version),
                "{id}: {version} behind {before:?} in {topic}"
            );
            let place = *places.entry(key).or_insert(record.partition);
            assert_eq!(place, record.partition, "{id}: a key in two partitions");
        });
    }
    let (keys, partitions): (Vec<_>, Vec<_>) = places.into_iter().unzip();
    assert_eq!(foreign::kafkajs_partitions(&keys, PARTITIONS).legacy, partitions);
    found
}

fn ids(session: &Session, condition: &str) -> BTreeSet<String> {
    let rows = session.rows(&format!("SELECT id FROM outbox_events WHERE {condition}"));
    rows.into_iter().filter_map(|mut row| row.pop().flatten()).collect()
}

fn assert_same(expected: &BTreeSet<String>, found: &BTreeSet<String>) {
    let lost: Vec<_> = expected.difference(found).take(5).collect();
    let invented: Vec<_> = found.difference(expected).take(5).collect();
    assert!(lost.is_empty() && invented.is_empty(), "lost {lost:?}, invented {invented:?}");
}

/// Waits until the poller has marked everything, or so much that `is_enough`.
fn wait_for_published(session: &Session, what: &str, is_enough: impl Fn(u64) -> bool) {
    wait_until(what, PATIENCE * 2, || {
        let sql = "SELECT count(*) FROM outbox_events WHERE status = 'published'";
        is_enough(session.value(sql).and_then(|count| count.parse().ok()).unwrap_or(0))
    });
}

struct Scene {
    server: Server,
    broker: Broker,
    session: Session,
}

impl Scene {
    /// `tailwater.toml` of the page.
    fn settings(&self) -> SettingsFile {
        SettingsFile::new(&self.server, &self.broker, "shop")
            .with("[kafka]", "partitioner = \"kafkajs-legacy\"")
            .with("[[outbox]]", "payload = \"envelope\"")
    }

    fn slots(&self) -> Option<String> {
        self.session.value("SELECT string_agg(slot_name, ' ') FROM pg_replication_slots")
    }

    fn wait_until_free(&self) {
        wait_until("the slot to be free", PATIENCE, || {
            let sql = "SELECT active FROM pg_replication_slots WHERE slot_name = 'tailwater'";
            self.session.value(sql).as_deref() == Some("f")
        });
    }
}

#[test]
fn the_steps_from_a_poller_lose_double_and_reorder_nothing() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = server.create_database("shop");
    create_tables(&session);
    for topic in TOPICS {
        broker.create_topic(topic, PARTITIONS as i32, &[]);
        broker.create_topic(&format!("shadow.{topic}"), PARTITIONS as i32, &[]);
    }
    let scene = Scene { server, broker, session };
    let (url, goes_on) = (scene.server.url("shop"), AtomicBool::new(true));
    let poller = Poller::start(&scene.server, &scene.broker);
    shadow_run(&scene);
    thread::scope(|scope| {
        let ends = Ends(&goes_on);
        for _ in 0..4 {
            scope.spawn(|| write(&url, &goes_on));
        }
        wait_for_published(&scene.session, "the poller to be at work", |count| count > 300);
        poller.stop();
        // What piles up until somebody takes over.
        scene.session.run(&format!(
            "DO $$ BEGIN FOR n IN 1..20000 LOOP {} END LOOP; END $$",
            insert_sql(AGGREGATES, "order.placed")
        ));
        take_over(&scene);
        let daemon = publishing(&scene.settings());
        let_pass(Duration::from_secs(1));
        drop(ends);
        wait_until_published(&scene.session, "tailwater");
        stop(daemon);
    });
    assert_same(&ids(&scene.session, "true"), &judge(&scene.broker, ""));
    assert!(ids(&scene.session, "status = 'published'").len() > 300);
}

/// Step 2: beside the poller, into topics of its own, compared.
fn shadow_run(scene: &Scene) {
    let settings = scene
        .settings()
        .with("[postgres]", "slot = \"shadow\"\npublication = \"shadow\"")
        .with("[[outbox]]", "topic = \"shadow.{domain}.events\"");
    init(&settings);
    let daemon = publishing(&settings);
    let before = ids(&scene.session, "true");
    for row in 0..200 {
        scene.session.run(&insert_sql(row % AGGREGATES + 1, "order.placed"));
    }
    wait_until_published(&scene.session, "shadow");
    wait_for_published(&scene.session, "the poller to keep up", |count| count >= 200);
    let (shadow, polled) = (judge(&scene.broker, "shadow."), judge(&scene.broker, ""));
    assert_same(&polled.difference(&before).cloned().collect(), &shadow);
    assert_eq!(shadow.len(), 200);
    stop(daemon);
    scene.session.run("SELECT pg_drop_replication_slot('shadow'); DROP PUBLICATION shadow");
}

/// Step 4: killed twice before it comes to its end.
fn take_over(scene: &Scene) {
    let settings = scene.settings();
    let before = committed(scene);
    let command = Daemon::start_with(&TAKE_OVER, &settings);
    wait_until("the slot", PATIENCE, || scene.slots().is_some());
    command.kill_command();
    scene.wait_until_free();
    let command = Daemon::start_with(&TAKE_OVER, &settings);
    wait_until("some rows", PATIENCE, || committed(scene) > before);
    command.kill_command();
    scene.wait_until_free();
    // A quick machine may have come to the end before the kill: with the checkpoint it is done.
    // Who reads what is committed would wait for what it left open.
    let_pass(Duration::from_millis(500));
    let is_open = OpenTransactions::open(&scene.broker, "__tailwater_checkpoints").any();
    if is_open || checkpoint(&scene.broker).is_none() {
        let ended = Daemon::start(&settings).wait(PATIENCE);
        assert!(ended.is_code("snapshot_interrupted"), "{}", ended.stderr);
    }
    for _ in 0..2 {
        let ended = daemon::run(&TAKE_OVER, &settings);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

fn committed(scene: &Scene) -> i64 {
    TOPICS
        .iter()
        .flat_map(|topic| reader::last_stable_offsets(&scene.broker.brokers(), topic))
        .sum()
}

//! The rows that a table has: how fast they are read and encoded, and how fast they are on Kafka,
//! beside `COPY … TO STDOUT` by psql to /dev/null. In turns; and once killed at half, beside writers.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tailwater::{
    change::{PgTimestamp, Place, Transaction, Tuple, TupleValue, Xid},
    config::{Config, Environment},
    encode::Encoder,
    event::{
        DatabaseIdentity, Happening, Mapping, SnapshotRow,
        table::{DescribedColumn, Description, PrimaryKey},
    },
    lsn::{CommitLsn, Lsn},
    pipeline::Settings,
    postgres::{
        TableName,
        snapshot::{Bound, ChunkQuery, ChunkReader, Part, RowBlock, Shape},
    },
    sink::Batch,
    value::built_in,
};

use crate::{
    DELIVERIES, median,
    process_times::cpu_seconds,
    row,
    support::{
        daemon::Daemon,
        kafka::Broker,
        let_pass,
        postgres::{Server, Session, newest_binaries},
        reader::CommittedReader,
        settings::SettingsFile,
        table_shop::RowRecords,
        wait_until,
    },
};

/// Rows of 600 bytes, most of them one text.
const FILL: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text NOT NULL,
        total numeric(12, 2) NOT NULL, created_at timestamptz NOT NULL, email text, note text NOT NULL);
    INSERT INTO orders
    SELECT n, n % 100000, 'placed', n % 100000 / 7.0, '2026-01-01T00:00:00Z'::timestamptz + n * '1 s'::interval,
        'customer-' || n % 100000 || '@example.org', repeat(md5(n::text), 15)
    FROM generate_series(1, {ROWS}) n;
    CREATE PUBLICATION tailwater FOR TABLE orders;
    ANALYZE orders;";

/// How much is read at once, as the daemon does.
const CHUNK_BYTES: usize = 512 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A batch goes out when it holds so much.
const BATCH_BYTES: usize = 512 << 10;

/// How long one of them may take.
const LONGEST: Duration = Duration::from_secs(3_600);

/// One way to read the table.
#[derive(Default)]
struct Read {
    seconds: f64,
    process: f64,
    resident_bytes: u64,
}

struct Bench {
    server: Server,
    broker: Broker,
    session: Session,
    rows: u64,
    runs: u32,
}

pub fn measure(rows: u64, rounds: u64) {
    let server = Server::start_with(&[
        ("fsync", "on"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "8GB"),
        ("checkpoint_timeout", "1h"),
        ("max_replication_slots", "20"),
    ]);
    let session = server.create_database("shop");
    session.run(&FILL.replace("{ROWS}", &rows.to_string()));
    let mut bench = Bench { server, broker: Broker::start(), session, rows, runs: 0 };
    println!("## The {rows} rows that a table has\n");
    row(&["", "rows/s", "of COPY by psql", "CPU s/million", "peak MiB"].map(str::to_owned));
    println!("|---|---|---|---|---|");
    let (mut copies, mut encodes) = (Vec::new(), Vec::new());
    let mut publishes = [(); 2].map(|()| Vec::new());
    for _ in 0..rounds {
        copies.push(bench.copy());
        encodes.push(bench.encode());
        for (reads, delivery) in publishes.iter_mut().zip(DELIVERIES) {
            reads.push(bench.publish(delivery));
        }
    }
    let anchor = median(copies.iter().map(|read| read.seconds).collect());
    bench.print("COPY orders TO STDOUT by psql", &copies, anchor);
    bench.print("read in chunks and encoded", &encodes, anchor);
    for (reads, delivery) in publishes.iter().zip(DELIVERIES) {
        bench.print(&format!("tailwater, {delivery}, on Kafka"), reads, anchor);
    }
    println!();
    bench.publish_through_a_kill();
}

impl Bench {
    fn copy(&self) -> Read {
        let started = Instant::now();
        let mut child = Command::new(newest_binaries().join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.server.port().to_string(), "-U", "postgres"])
            .args(["-d", "shop", "-c", "COPY orders TO STDOUT"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("psql starts");
        let mut read = Read::default();
        wait_until("psql to end", LONGEST, || {
            read.process = read.process.max(cpu_seconds(child.id()));
            child.try_wait().expect("a child").is_some()
        });
        read.seconds = started.elapsed().as_secs_f64();
        read
    }

    /// What the daemon does up to the sink, by itself.
    fn encode(&self) -> Read {
        let pid = std::process::id();
        let before = cpu_seconds(pid);
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let rows = runtime.expect("a runtime").block_on(self.read_and_encode());
        assert_eq!(rows, self.rows);
        Read {
            seconds: started.elapsed().as_secs_f64(),
            process: cpu_seconds(pid) - before,
            resident_bytes: 0,
        }
    }

    async fn read_and_encode(&self) -> u64 {
        let text = std::fs::read_to_string(self.settings("exactly-once").path()).expect("settings");
        let config = Config::read(&text, "settings", &Environment::new()).expect("settings");
        let settings = Arc::new(config.pipeline);
        let identity = DatabaseIdentity { system_id: "1".to_owned(), database: "shop".to_owned() };
        let mut mapping = Mapping::new(settings.event.clone(), identity);
        let (mut encoder, mut batch) = (Encoder::new(1_000_000), Batch::default());
        let mut reader = ChunkReader::connect(&settings.postgres).await.expect("a connection");
        let shape = Arc::new(look_up(&mut reader, &settings).await);
        mapping.observe_snapshot(shape.oid, &description(&shape));
        let mut total = 0;
        // As the daemon does: the next chunk is on its way while one is encoded.
        let read = |reader, cursor, rows_max| {
            let (settings, shape) = (Arc::clone(&settings), Arc::clone(&shape));
            tokio::spawn(read_chunk(reader, settings, shape, cursor, rows_max))
        };
        let mut rows_max = 256;
        let mut under_way = read(reader, None, rows_max);
        loop {
            let (reader, block, position) = under_way.await.expect("a chunk");
            let is_last = block.len() < rows_max;
            rows_max = (block.len() * CHUNK_BYTES / block.filled_bytes().max(1)).max(1);
            let cursor = block.rows().last().and_then(key_of);
            under_way = read(reader, cursor, rows_max);
            tokio::task::yield_now().await;
            let place = Transaction {
                commit_lsn: CommitLsn(position),
                xid: Xid(0),
                committed_at: PgTimestamp::now(),
            };
            for row in block.rows() {
                let text = key_of(row).unwrap_or_default();
                let key = [&(text.len() as u64).to_be_bytes()[..], text.as_bytes()].concat();
                let row = SnapshotRow { row, key: &key, request: "figures", moved_at: None };
                let no_place = Place { ordinal: 0, lsn: None, ordinal_at_lsn: 0 };
                let mut events = mapping.events(Happening::Snapshot(row), &place, no_place);
                while let Some(event) = events.next().expect("an event") {
                    _ = encoder.encode_snapshot(&event, &place, &mut batch).expect("a record");
                }
                if batch.bytes() >= BATCH_BYTES {
                    batch.clear(2 * BATCH_BYTES);
                }
            }
            total += block.len() as u64;
            if is_last {
                return total;
            }
        }
    }

    fn settings(&self, delivery: &str) -> SettingsFile {
        let source = format!("snapshot-{}", self.runs);
        let (url, brokers) = (self.server.url("shop"), self.broker.brokers());
        SettingsFile::of_text(format!(
            "source = \"{source}\"\n\n[postgres]\nurl = \"{url}\"\nslot = \"snapshot_{}\"\n\n[kafka]\n\
             brokers = \"{brokers}\"\ndelivery = \"{delivery}\"\ncheckpoint_topic = \
             \"{source}.checkpoints\"\n\n[[table]]\nname = \"public.orders\"\n\
             topic = \"{source}.orders\"\n",
            self.runs
        ))
    }

    /// From exec until the record says that all of it is on Kafka.
    fn publish(&mut self, delivery: &str) -> Read {
        self.runs += 1;
        let settings = self.settings(delivery);
        let topic = format!("snapshot-{}.orders", self.runs);
        self.broker.create_topic(&topic, 1, &[]);
        let started = Instant::now();
        let daemon = Daemon::start(&settings);
        self.await_rows(&daemon);
        let read = Read {
            seconds: started.elapsed().as_secs_f64(),
            process: cpu_seconds(daemon.pid()),
            resident_bytes: daemon.resident_bytes_peak(),
        };
        daemon.signal(libc::SIGTERM);
        daemon.wait(Duration::from_secs(10));
        self.session.run(&format!("SELECT pg_drop_replication_slot('snapshot_{}')", self.runs));
        read
    }

    fn records(&self) -> RowRecords {
        let topic = format!("snapshot-{}.checkpoints", self.runs);
        RowRecords::open(&self.broker, &topic, "public.orders")
    }

    fn await_rows(&self, daemon: &Daemon) {
        daemon.wait_for("publishing");
        let mut records = self.records();
        wait_until("all rows to be published", LONGEST, || {
            records.newest().is_some_and(|record| record["state"] == "done")
        });
    }

    /// Killed when half of the rows are there, while others change some.
    fn publish_through_a_kill(&mut self) {
        self.runs += 1;
        let settings = self.settings("exactly-once");
        let topic = format!("snapshot-{}.orders", self.runs);
        self.broker.create_topic(&topic, 1, &[]);
        let mut daemon = Daemon::start(&settings);
        let ended = AtomicBool::new(false);
        let (rows, url) = (self.rows, self.server.url("shop"));
        let resident_bytes = thread::scope(|scope| {
            scope.spawn(|| {
                let session = Session::open(&url).expect("a connection");
                let mut random = fastrand::Rng::with_seed(1);
                while !ended.load(Ordering::Relaxed) {
                    let id = random.u64(1..=rows);
                    session.run(&format!("UPDATE orders SET status = 'paid' WHERE id = {id}"));
                    let_pass(Duration::from_millis(1));
                }
            });
            daemon.wait_for("publishing");
            let mut records = self.records();
            wait_until("half of the rows", LONGEST, || {
                let out = records.newest().and_then(|record| record["rows"].as_u64());
                out.is_some_and(|out| out >= rows / 2)
            });
            daemon.kill_and_restart(&settings);
            self.await_rows(&daemon);
            ended.store(true, Ordering::Relaxed);
            daemon.resident_bytes_peak()
        });
        daemon.signal(libc::SIGTERM);
        daemon.wait(Duration::from_secs(10));
        let (mut found, mut doubled) = (vec![0_u64; rows as usize / 64 + 1], 0_u64);
        let reader = CommittedReader::open(&self.broker, &topic);
        let read = reader.try_read(LONGEST, |record| {
            if record.header("event-type") != Some("orders.snapshot") {
                return;
            }
            let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            let id: usize = key.and_then(|key| key.parse().ok()).expect("a key");
            let word = found.get_mut(id / 64).expect("a key of ours");
            doubled += *word >> (id % 64) & 1;
            *word |= 1 << (id % 64);
        });
        read.expect("the topic can be read");
        let there: u64 = found.iter().map(|word| u64::from(word.count_ones())).sum();
        println!(
            "Killed at half, beside 1,000 updates a second: {there} of {rows} rows, {doubled} doubled, \
             peak {:.0} MiB\n",
            resident_bytes as f64 / f64::from(1 << 20)
        );
        assert_eq!((there, doubled), (rows, 0), "rows were lost or doubled");
    }

    fn print(&self, name: &str, reads: &[Read], anchor: f64) {
        let of = |figure: fn(&Read) -> f64| median(reads.iter().map(figure).collect());
        let seconds = of(|read| read.seconds);
        row(&[
            name.to_owned(),
            format!("{:.0}", self.rows as f64 / seconds),
            format!("{:.2}", anchor / seconds),
            format!("{:.1}", of(|read| read.process) / (self.rows as f64 / 1e6)),
            format!("{:.0}", of(|read| read.resident_bytes as f64) / f64::from(1 << 20)),
        ]);
    }
}

fn orders() -> TableName {
    TableName { schema: "public".to_owned(), name: "orders".to_owned() }
}

async fn look_up(reader: &mut ChunkReader, settings: &Settings) -> Shape {
    let moment = reader.begin(&orders(), &settings.publication).await.expect("a snapshot");
    let found = Shape::look_up(reader.sql(), &settings.publication, &orders()).await;
    reader.end(moment.position).await.expect("ended");
    found.expect("an answer").expect("a table")
}

async fn read_chunk(
    mut reader: ChunkReader,
    settings: Arc<Settings>,
    shape: Arc<Shape>,
    cursor: Option<String>,
    rows_max: usize,
) -> (ChunkReader, RowBlock, Lsn) {
    let table = orders();
    let cursor = cursor.map(|key| [key]);
    let bound = cursor.as_ref().map_or(Bound::Nothing, |key| Bound::UpTo(key));
    let query = ChunkQuery {
        table: &table,
        shape: &shape,
        condition: None,
        part: Part::Behind { bound, rows_max },
        bytes_max: CHUNK_BYTES_MAX,
        meant_rows_max: 3_000,
    };
    let begun = reader.begin_with(&query, &settings.publication).await;
    let (moment, prepared) = begun.expect("a snapshot");
    let block = reader.read(&query, prepared, moment.position).await.expect("rows");
    (reader, block, moment.position)
}

fn description(shape: &Shape) -> Description {
    let column = |column: &tailwater::postgres::catalog::TableColumn| DescribedColumn {
        name: column.name.clone(),
        column_type: Arc::clone(built_in(column.own_type_oid).expect("a built-in type")),
        is_replica_identity: column.name == "id",
    };
    Description {
        schema: "public".to_owned(),
        name: "orders".to_owned(),
        replica_identity: shape.identity.replica_identity,
        columns: shape.table.columns.iter().map(column).collect(),
        primary_key: PrimaryKey::Columns(vec!["id".to_owned()]),
    }
}

fn key_of(row: Tuple<'_>) -> Option<String> {
    match row.get(0) {
        Some(TupleValue::Text(text)) => String::from_utf8(text.to_vec()).ok(),
        Some(TupleValue::Null | TupleValue::UnchangedToast) | None => None,
    }
}

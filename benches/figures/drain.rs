//! A backlog of rows: how fast it is on Kafka, beside `pg_recvlogical` to /dev/null, which only
//! receives. Each side drains copies of one slot, in turns.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::{
    DELIVERIES, median,
    process_times::cpu_seconds,
    row,
    support::{
        PATIENCE,
        daemon::Daemon,
        kafka::Broker,
        postgres::{Server, Session, newest_binaries},
        settings::SettingsFile,
        wait_until,
    },
};

/// Rows of about 450 bytes, in transactions of 10, as DESIGN 9 has them.
const FILL: &str = "
    CREATE TABLE outbox_events (id uuid PRIMARY KEY, aggregate_id text, event_type text,
        payload jsonb, status text DEFAULT 'pending', created_at timestamptz,
        retry_count int DEFAULT 0, published_at timestamptz);
    CREATE PUBLICATION tailwater FOR TABLE outbox_events WITH (publish = 'insert');
    CREATE PROCEDURE fill(n int) LANGUAGE plpgsql AS $$
    BEGIN
        FOR i IN 1 .. n / 10 LOOP
            INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at)
            SELECT gen_random_uuid(), 'order-' || (random() * 10000)::int, 'order.placed',
                jsonb_build_object('orderId', i * 10 + j, 'customer', 'customer-' || i,
                    'total', '19.90', 'currency', 'EUR', 'note', repeat('x', 180),
                    'items', '[{\"sku\": \"A-1\", \"qty\": 1}, {\"sku\": \"B-2\", \"qty\": 3}]'::jsonb),
                clock_timestamp()
            FROM generate_series(1, 10) j;
            COMMIT;
        END LOOP;
    END $$;";

/// One drain.
#[derive(Default)]
struct Drain {
    seconds: f64,
    process: f64,
    walsender: f64,
    broker: f64,
    resident_bytes: u64,
}

struct Bench {
    server: Server,
    broker: Broker,
    session: Session,
    rows: u64,
    drains: u32,
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
    session.run(FILL);
    session.run("SELECT pg_create_logical_replication_slot('base', 'pgoutput')");
    session.run("SET synchronous_commit = off");
    session.run(&format!("CALL fill({rows})"));
    let broker = Broker::start();
    broker.create_topic("order.events", 1, &[]);
    let mut bench = Bench { server, broker, session, rows, drains: 0 };
    println!("## Drain of {rows} rows in transactions of 10\n");
    row(&["", "rows/s", "of pg_recvlogical", "CPU s/million", "walsender", "broker", "peak MiB"]
        .map(str::to_owned));
    println!("|---|---|---|---|---|---|---|");
    // The broker compiles its hot methods during the first drains.
    for socket in [false, true] {
        bench.receive(socket);
        for delivery in DELIVERIES {
            bench.publish(socket, delivery);
        }
    }
    for socket in [false, true] {
        let (mut receives, mut publishes) = (Vec::new(), [(); 2].map(|()| Vec::new()));
        for _ in 0..rounds {
            receives.push(bench.receive(socket));
            for (drains, delivery) in publishes.iter_mut().zip(DELIVERIES) {
                drains.push(bench.publish(socket, delivery));
            }
        }
        let place = if socket { "unix socket" } else { "TCP" };
        let anchor = median(receives.iter().map(|drain| drain.seconds).collect());
        bench.print(&format!("pg_recvlogical, {place}"), &receives, anchor);
        for (drains, delivery) in publishes.iter().zip(DELIVERIES) {
            bench.print(&format!("tailwater, {delivery}, {place}"), drains, anchor);
        }
    }
    println!();
}

impl Bench {
    fn copy_slot(&mut self) -> String {
        self.drains += 1;
        let slot = format!("drain_{}", self.drains);
        self.session.run(&format!("SELECT pg_copy_logical_replication_slot('base', '{slot}')"));
        slot
    }

    /// The walsender's process and what it used so far.
    fn walsender(&self) -> Option<(u32, f64)> {
        let pid = self.session.value("SELECT pid FROM pg_stat_replication")?.parse().ok()?;
        Some((pid, cpu_seconds(pid)))
    }

    fn end(&self) -> String {
        self.session.value("SELECT pg_current_wal_lsn()").expect("a position")
    }

    fn receive(&mut self, socket: bool) -> Drain {
        let (slot, end) = (self.copy_slot(), self.end());
        let host = match socket {
            true => self.server.socket_folder().display().to_string(),
            false => "127.0.0.1".to_owned(),
        };
        let started = Instant::now();
        let mut child = Command::new(newest_binaries().join("pg_recvlogical"))
            .args(["-h", &host, "-p", &self.server.port().to_string(), "-U", "postgres"])
            .args(["-d", "shop", "--slot", &slot, "--start", "--endpos", &end, "-f", "/dev/null"])
            .args(["-o", "proto_version=1", "-o", "publication_names=tailwater", "--no-loop"])
            .stdin(Stdio::null())
            .spawn()
            .expect("pg_recvlogical starts");
        let mut drain = Drain::default();
        wait_until("pg_recvlogical to end", PATIENCE * 10, || {
            drain.process = drain.process.max(cpu_seconds(child.id()));
            drain.walsender = self.walsender().map_or(drain.walsender, |(_, seconds)| seconds);
            child.try_wait().expect("a child").is_some()
        });
        drain.seconds = started.elapsed().as_secs_f64();
        self.session.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
        drain
    }

    fn publish(&mut self, socket: bool, delivery: &str) -> Drain {
        let (slot, end) = (self.copy_slot(), self.end());
        let settings =
            self.settings(&slot, socket).with("[kafka]", &format!("delivery = \"{delivery}\""));
        self.write_intent(&slot);
        let broker_before = cpu_seconds(self.broker.pid());
        let started = Instant::now();
        let daemon = Daemon::start(&settings);
        let mut drain = Drain::default();
        // Acknowledged is published: the slot never passes the checkpoint.
        let sql = format!(
            "SELECT confirmed_flush_lsn >= '{end}'::pg_lsn - 1000 FROM pg_replication_slots \
             WHERE slot_name = '{slot}'"
        );
        wait_until("the backlog to be published", PATIENCE * 10, || {
            drain.walsender = self.walsender().map_or(drain.walsender, |(_, seconds)| seconds);
            self.session.value(&sql).as_deref() == Some("t")
        });
        drain.seconds = started.elapsed().as_secs_f64();
        drain.process = cpu_seconds(daemon.pid());
        drain.broker = cpu_seconds(self.broker.pid()) - broker_before;
        drain.resident_bytes = daemon.resident_bytes_peak();
        daemon.signal(libc::SIGTERM);
        daemon.wait(Duration::from_secs(5));
        self.session.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
        drain
    }

    fn settings(&self, slot: &str, socket: bool) -> SettingsFile {
        let settings = SettingsFile::new(&self.server, &self.broker, "shop")
            .replaced("order-service", slot)
            .with("[postgres]", &format!("slot = \"{slot}\""));
        if !socket {
            return settings;
        }
        let folder = self.server.socket_folder().display();
        let unix = format!("postgres://postgres@/shop?host={folder}&port={}", self.server.port());
        settings.replaced(&self.server.url("shop"), &unix)
    }

    /// A copied slot has no checkpoint. With the intent of a first start it is gone on from where
    /// it stands, as after a crash between slot and checkpoint.
    fn write_intent(&self, slot: &str) {
        let system = "SELECT system_identifier FROM pg_control_system()";
        let key =
            format!("{}/shop/{slot}/init", self.session.value(system).expect("an identifier"));
        let value = format!(
            "{{\"version\":1,\"source\":\"{slot}\",\"snapshots\":[],\
             \"written_at\":\"2026-01-01T00:00:00Z\"}}"
        );
        let topic = "__tailwater_checkpoints";
        if !self.broker.topics().iter().any(|found| found == topic) {
            self.broker.create_topic(topic, 1, &[("cleanup.policy", "compact")]);
        }
        let producer: BaseProducer = self.broker.client().create().expect("a producer");
        producer.send(BaseRecord::to(topic).key(&key).payload(&value)).expect("sent");
        producer.flush(PATIENCE).expect("flushed");
    }

    fn print(&self, name: &str, drains: &[Drain], anchor: f64) {
        let of = |figure: fn(&Drain) -> f64| median(drains.iter().map(figure).collect());
        let seconds = of(|drain| drain.seconds);
        let million = self.rows as f64 / 1e6;
        row(&[
            name.to_owned(),
            format!("{:.0}", self.rows as f64 / seconds),
            format!("{:.2}", anchor / seconds),
            format!("{:.1}", of(|drain| drain.process) / million),
            format!("{:.1}", of(|drain| drain.walsender) / million),
            format!("{:.1}", of(|drain| drain.broker) / million),
            format!("{:.0}", of(|drain| drain.resident_bytes as f64) / f64::from(1 << 20)),
        ]);
    }
}

//! examples/outbox, walked through as its README says, with the tests' servers in the place of
//! containers: its SQL, its settings and both of its consumers.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::support::{
    PATIENCE,
    kafka::Broker,
    new_folder,
    postgres::{Server, Session},
    process::{self, Words},
    target_folder, wait_until,
};

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/outbox")
}

fn text(name: &str) -> String {
    fs::read_to_string(example().join(name)).expect("a file of the example")
}

/// A process of an example. Killed when dropped.
pub struct Running {
    child: Child,
    said: Words,
    log: Words,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(command);
        let said = Words::of(child.stdout.take().expect("a pipe"));
        let log = Words::of(child.stderr.take().expect("a pipe"));
        Self { child, said, log }
    }

    /// Waits until it says that, in its log or elsewhere.
    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("\"{text}\""), PATIENCE * 2, || {
            self.said.so_far().contains(text) || self.log.so_far().contains(text)
        });
    }

    /// Ends it as its container would, and returns what it said.
    pub fn stop(mut self) -> String {
        process::signal(self.child.id(), libc::SIGTERM);
        process::wait(&mut self.child, PATIENCE);
        self.said.until_end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().expect("a child can be waited for").is_none() {
            process::kill_family(&mut self.child);
        }
        if thread::panicking() {
            eprintln!("{}\n{}", self.said.so_far(), self.log.so_far());
        }
    }
}

/// The servers that compose.yaml starts, with the SQL that it has applied.
struct Scene {
    server: Server,
    broker: Broker,
    session: Session,
    folder: PathBuf,
}

impl Scene {
    fn open() -> Self {
        let (server, broker) = (Server::start(), Broker::start());
        let session = server.create_database("shop");
        for name in ["sql/1-shop.sql", "sql/2-consumers.sql"] {
            session.run(&text(name));
        }
        server.admit("host all tailwater 127.0.0.1/32 scram-sha-256");
        Self { server, broker, session, folder: new_folder("example") }
    }

    /// Tailwater by the example's file: only where the servers are is said otherwise.
    fn tailwater(&self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        let url = format!("postgres://tailwater@127.0.0.1:{}/shop", self.server.port());
        command.arg("run").arg("-c").arg(example().join("tailwater.toml"));
        command.env("TAILWATER_POSTGRES__URL", url);
        command.env("TAILWATER_POSTGRES__PASSWORD_FILE", example().join("tailwater-password"));
        command.env("TAILWATER_KAFKA__BROKERS", self.broker.brokers());
        let tailwater = Running::start(command);
        tailwater.wait_for("publishing");
        tailwater
    }

    fn billing(&self, group: &str) -> Running {
        let folder = self.folder.join(group);
        fs::create_dir(&folder).expect("a folder");
        fs::copy(example().join("billing/billing.mjs"), folder.join("billing.mjs"))
            .expect("a copy");
        let modules = target_folder().join("example/billing/node_modules");
        assert!(modules.is_dir(), "no libraries: run the tests by `make test`, which fetches them");
        symlink(modules, folder.join("node_modules")).expect("a link");
        let mut node = Command::new("node");
        node.arg(folder.join("billing.mjs")).env("DATABASE_URL", self.server.url("shop"));
        node.env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
        self.consumer(node, group)
    }

    fn shipping(&self, group: &str) -> Running {
        let libraries = target_folder().join("example/shipping");
        assert!(
            libraries.is_dir(),
            "no libraries: run the tests by `make test`, which fetches them"
        );
        let mut java = Command::new("java");
        java.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error");
        java.arg(format!("-Djava.io.tmpdir={}", self.folder.display()));
        java.arg("-cp").arg(format!("{}/*", libraries.display()));
        java.arg(example().join("shipping/Shipping.java"));
        let port = self.server.port();
        java.env("JDBC_URL", format!("jdbc:postgresql://127.0.0.1:{port}/shop?user=postgres"));
        self.consumer(java, group)
    }

    fn consumer(&self, mut command: Command, group: &str) -> Running {
        command.env("KAFKA_BROKERS", self.broker.brokers()).env("GROUP", group);
        Running::start(command)
    }

    fn place_orders(&self) {
        self.session.run(&text("place-orders.sql"));
    }

    /// What billing and shipping made of the events.
    fn effects(&self) -> (Vec<String>, u64, u64) {
        let rows = self.session.rows(
            "SELECT customer || ' ' || total FROM billing.revenue ORDER BY customer COLLATE \"C\"",
        );
        let revenue = rows.into_iter().flatten().flatten().collect();
        let count = |sql: &str| {
            self.session.value(sql).and_then(|text| text.parse().ok()).expect("a count")
        };
        (
            revenue,
            count("SELECT count(*) FROM shipping.shipments"),
            count("SELECT coalesce(sum(parcels), 0) FROM shipping.shipments"),
        )
    }
}

fn revenue(of: [&str; 3]) -> Vec<String> {
    of.map(str::to_owned).to_vec()
}

#[test]
fn the_outbox_example_works_and_its_consumers_count_each_event_once() {
    let scene = Scene::open();
    let tailwater = scene.tailwater();
    let consumers = [scene.billing("first-billing"), scene.shipping("first-shipping")];
    scene.place_orders();
    let first = (revenue(["O'Brien 7.25", "Zoë 50.00", "山田 120.00"]), 5, 5);
    wait_until("both consumers to handle five orders", PATIENCE * 2, || scene.effects() == first);
    // It made its slot and needed no right to any table.
    let rights = "SELECT has_table_privilege('tailwater', 'outbox_events', 'SELECT')";
    assert_eq!(scene.session.value(rights).as_deref(), Some("f"));
    let mut said = consumers.map(Running::stop);
    said.sort();
    assert!(said.iter().all(|said| said.matches("handled ").count() == 5), "{said:?}");

    // Both groups begin anew: each event comes again, and the next ones behind them.
    let consumers = [scene.billing("second-billing"), scene.shipping("second-shipping")];
    scene.place_orders();
    let second = (revenue(["O'Brien 14.50", "Zoë 100.00", "山田 240.00"]), 10, 10);
    wait_until("five orders more", PATIENCE * 2, || scene.effects() == second);
    for said in consumers.map(Running::stop) {
        assert_eq!(said.matches("handled ").count(), 5, "{said}");
        assert_eq!(said.matches("seen before ").count(), 5, "{said}");
    }
    assert_eq!(scene.effects(), second);
    tailwater.stop();
}

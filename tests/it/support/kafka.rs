//! A real Apache Kafka: one node, from the jars that scripts/prepare fetched.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

use super::{PATIENCE, new_folder, process, reader::CommittedReader, target_folder, wait_until};

/// The version that is fetched; part of its folder's name, so that two never mix.
const VERSION: &str = "4.3.1";

/// Small and quick to start.
const PROPERTIES: &str = "node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:0
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT
auto.create.topics.enable=false
num.partitions=3
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
log.index.size.max.bytes=1048576
broker.heartbeat.interval.ms=100
";

/// What is started. Where a transaction ends while its partitions have no leader, Kafka 4.3.1 writes no
/// markers (docs/decisions/0033), and it stays open for ever. So no broker is taken for dead while one
/// runs: not one that was frozen or that the machine was too busy for, nor the former self of one that
/// was killed.
#[derive(Clone, Copy)]
enum Role {
    /// All of it, with a session that outlasts every freeze.
    Whole,
    /// The controller alone, which takes the broker that is not there for dead at once. It writes an
    /// empty record every 20 ms, by which [`Broker::await_metadata`] sees that what came before is
    /// written.
    Undertaker,
}

impl Role {
    fn properties(self) -> &'static str {
        match self {
            Self::Whole => "process.roles=broker,controller\nbroker.session.timeout.ms=120000",
            Self::Undertaker => {
                "process.roles=controller\nbroker.session.timeout.ms=10\n\
                 metadata.max.idle.interval.ms=20"
            }
        }
    }

    /// What its log says when it is done with what is waited for.
    fn is_ready(self, log: &str) -> bool {
        log.contains(match self {
            Self::Whole => "Kafka Server started",
            Self::Undertaker => "Fencing broker 1 ",
        })
    }
}

/// One broker. Stopped and removed when dropped.
pub struct Broker {
    folder: PathBuf,
    port: u16,
    running: Mutex<Option<Child>>,
}

/// A record as a reader got it.
#[derive(Clone, Debug)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub timestamp_ms: i64,
}

impl Record {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The value as JSON.
    pub fn json(&self) -> serde_json::Value {
        let value = self.value.as_deref().expect("a value");
        serde_json::from_slice(value).expect("JSON")
    }
}

fn cache() -> PathBuf {
    let folder = target_folder().join(format!("kafka-{VERSION}"));
    assert!(
        folder.join("template").is_dir(),
        "no Kafka in {}: run the tests by `make test`, which fetches it",
        folder.display()
    );
    folder
}

/// The class path of Kafka's command line tools, for Java.
pub fn tools_class_path() -> String {
    let tools = target_folder().join(format!("kafka-tools-{VERSION}/lib"));
    assert!(
        tools.is_dir(),
        "no tools of Kafka in {}: run the tests by `make test`, which fetches them",
        tools.display()
    );
    format!("{}/*:{}", tools.display(), class_path())
}

/// Kafka's classes, for Java.
pub fn class_path() -> String {
    format!("{}/lib/*", cache().display())
}

impl Broker {
    /// A broker of its own, for what kills it.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// A broker with more properties, a line each.
    pub fn start_with(properties: &str) -> Self {
        let folder = new_folder("kafka");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(cache().join("template"))
            .arg(folder.join("data"))
            .status()
            .expect("cp starts");
        assert!(copied.success(), "cp");
        let text = format!("{PROPERTIES}log.dirs={}/data\n{properties}", folder.display());
        fs::write(folder.join("properties"), text).expect("write the properties");
        let mut broker = Self { folder, port: 0, running: Mutex::new(None) };
        broker.launch(Role::Whole);
        broker.port = broker.ports()[1];
        broker
    }

    /// The broker that tests share which do it no harm. It ends with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn launch(&self, role: Role) {
        let log = fs::File::create(self.folder.join("log")).expect("a log");
        let also = log.try_clone().expect("a log");
        let properties = fs::read_to_string(self.folder.join("properties")).expect("properties");
        let mut listeners = "CONTROLLER://127.0.0.1:0".to_owned();
        if matches!(role, Role::Whole) {
            // The port that it had, for clients reconnect to the address that they know.
            listeners.push_str(&format!(",CLIENT://127.0.0.1:{}", self.port));
            if properties.contains(",SECURE:") {
                listeners.push_str(",SECURE://127.0.0.1:0");
            }
        }
        let path = self.folder.join("server.properties");
        let text = format!("{properties}\n{}\nlisteners={listeners}\n", role.properties());
        fs::write(&path, text).expect("written");
        let cache = cache();
        let mut java = Command::new("java");
        // Small and quick to start, unless figures are to be measured.
        let jvm = std::env::var("TAILWATER_KAFKA_JVM");
        let jvm =
            jvm.as_deref().unwrap_or("-Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1");
        java.args(jvm.split_whitespace());
        java.arg(format!("-XX:SharedArchiveFile={}", cache.join("kafka.jsa").display()));
        // Native libraries are unpacked there; a killed JVM leaves them.
        java.arg(format!("-Djava.io.tmpdir={}", self.folder.display()));
        java.args([
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
            "-Dorg.slf4j.simpleLogger.log.kafka.network.DataPlaneAcceptor=info",
            "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.controller.ReplicationControlManager=info",
            "-cp",
        ]);
        java.arg(class_path()).arg("kafka.Kafka").arg(path);
        java.stdin(Stdio::null()).stdout(log).stderr(also);
        *self.running() = Some(process::spawn(java));
        wait_until("Kafka to be ready", PATIENCE, || {
            if let Some(Ok(Some(status))) = self.running().as_mut().map(Child::try_wait) {
                panic!("Kafka ended with {status}: {}", self.log());
            }
            role.is_ready(&self.log())
        });
    }

    fn running(&self) -> MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The ports that it bound: the controller's, then the clients'.
    fn ports(&self) -> Vec<u16> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| line.split("connections on 127.0.0.1:").nth(1));
        lines.filter_map(|rest| rest.trim_end_matches('.').parse().ok()).collect()
    }

    /// Its address.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The address of its listener `SECURE`, where `listener.security.protocol.map` has one.
    pub fn secure_brokers(&self) -> String {
        format!("localhost:{}", self.ports()[2])
    }

    /// Its process; 0 where it is not running.
    pub fn pid(&self) -> u32 {
        self.running().as_ref().map_or(0, Child::id)
    }

    /// Where its partitions lie.
    pub fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// `kill -9`.
    pub fn kill(&self) {
        if let Some(mut child) = self.running().take() {
            process::kill_family(&mut child);
        }
    }

    /// Stops it as a debugger does, connections and all, until [`Broker::thaw`].
    pub fn freeze(&self) {
        process::signal_family(self.pid(), libc::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        process::signal_family(self.pid(), libc::SIGCONT);
    }

    /// Starts it again on its data and its port.
    pub fn restart(&self) {
        self.kill();
        self.launch(Role::Undertaker);
        self.await_metadata();
        // What is in the log is in the page cache, and outlives it.
        self.kill();
        self.launch(Role::Whole);
    }

    /// Waits until what the controller did by now is in its log, which is written in order: once it has
    /// grown more often than there is anything else to be written. Were the fencing not there, the next
    /// start would be refused as its own double, and not come to its end.
    fn await_metadata(&self) {
        const WRITES: usize = 10;

        let log = self.data_folder().join("__cluster_metadata-0/00000000000000000000.log");
        let size = || fs::metadata(&log).expect("the metadata log").len();
        for _ in 0..WRITES {
            let before = size();
            wait_until("the metadata log to grow", PATIENCE, || size() > before);
        }
    }

    /// A configuration to begin a client with.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("a client")
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let admin = self.admin();
        let made = block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("answered");
        for result in made {
            result.expect("the topic is made");
        }
        wait_until("the topic", PATIENCE, || self.topics().iter().any(|topic| topic == name));
    }

    /// Sets a topic's configuration.
    pub fn alter_topic(&self, name: &str, key: &str, value: &str) {
        self.configure_topic(name, &[(key, value)]);
    }

    /// The same with several properties. Others get their defaults.
    pub fn configure_topic(&self, name: &str, config: &[(&str, &str)]) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(name));
        let change = config.iter().fold(change, |change, (key, value)| change.set(key, value));
        let admin = self.admin();
        let altered = block_on(admin.alter_configs([&change], &AdminOptions::new()));
        for result in altered.expect("answered") {
            result.expect("altered");
        }
    }

    /// Runs the `kafka-configs.sh` command that a text ends with, by the program behind it.
    pub fn configure_by(&self, text: &str) {
        let arguments = command_in(text, "kafka-configs.sh ");
        let mut java = Command::new("java");
        java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(class_path());
        java.arg("kafka.admin.ConfigCommand");
        java.args(
            arguments.split_whitespace().map(|word| word.replace("<broker>", &self.brokers())),
        );
        let output = java.output().expect("java starts");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {words}");
    }

    /// Does what the `kafka-topics.sh --create` command says that a text ends with. The program
    /// behind it is in no jar that brokers need.
    pub fn create_by(&self, text: &str) {
        let arguments = command_in(text, "kafka-topics.sh ");
        let mut words = arguments.split_whitespace();
        let (mut topic, mut partitions, mut config) = ("", -1, Vec::new());
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} of {arguments}"));
            match word {
                "--create" => {}
                "--bootstrap-server" => assert_eq!(value(), "<broker>"),
                "--topic" => topic = value(),
                "--partitions" => partitions = value().parse().expect("a number"),
                "--config" => config.push(value().split_once('=').expect("a property")),
                other => panic!("{other} of {arguments}"),
            }
        }
        self.create_topic(topic, partitions, &config);
    }

    /// The names of all topics.
    pub fn topics(&self) -> Vec<String> {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let metadata = consumer.fetch_metadata(None, PATIENCE).expect("metadata");
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    }

    /// All committed records of a topic, each partition to the high watermark that it has now. An
    /// open transaction is waited for.
    pub fn read_committed(&self, topic: &str) -> Vec<Record> {
        let mut records = Vec::new();
        self.for_each_committed(topic, |record| records.push(record));
        records
    }

    /// As [`Broker::read_committed`], one at a time: for more than memory should hold.
    pub fn for_each_committed(&self, topic: &str, take: impl FnMut(Record)) {
        let read = CommittedReader::open(self, topic).try_read(PATIENCE * 5, take);
        read.unwrap_or_else(|why| panic!("{topic}: {why}"));
    }
}

fn command_in<'a>(text: &'a str, program: &str) -> &'a str {
    let (_, arguments) = text.split_once(program).unwrap_or_else(|| panic!("{program}: {text}"));
    arguments
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

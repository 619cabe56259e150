//! examples/domain-tables, walked through as its README says, with the tests' servers in the place of
//! containers: an order's life gives the five events of the README and no other.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    example::Running,
    support::{
        kafka::Broker,
        new_folder,
        oracle::event_schema,
        postgres::{Server, Session},
        prescription::run_sql,
        scene::wait_until_published,
        target_folder,
    },
};

const TOPIC: &str = "order.events";

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/domain-tables")
}

fn text(name: &str) -> String {
    fs::read_to_string(example().join(name)).expect("a file of the example")
}

/// Type and data of each event, as the README's table has them.
fn promised() -> Vec<(String, Value)> {
    let readme = text("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `order."));
    let row = |row: &str| {
        let (event_type, data) = row.split_once("` | `").expect("two columns");
        let data = data.strip_suffix("` |").expect("its end");
        (format!("order.{event_type}"), serde_json::from_str(data).expect("JSON"))
    };
    rows.map(row).collect()
}

/// What the README says that the consumer says.
fn promised_letters() -> String {
    let readme = text("README.md");
    let letters = readme.split_once("```text\n").expect("a block").1;
    letters.split_once("```").expect("its end").0.to_owned()
}

/// The servers that compose.yaml starts, with the SQL that it has applied.
struct Scene {
    server: Server,
    broker: Broker,
    session: Session,
}

impl Scene {
    fn open() -> Self {
        let (server, broker) = (Server::start(), Broker::start());
        let session = server.create_database("shop");
        session.run(&text("sql/1-shop.sql"));
        server.admit("host all tailwater 127.0.0.1/32 scram-sha-256");
        Self { server, broker, session }
    }

    /// Tailwater by the example's file: only where the servers are is said otherwise.
    fn tailwater(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
        let url = format!("postgres://tailwater@127.0.0.1:{}/shop", self.server.port());
        command.args(arguments).arg("-c").arg(example().join("tailwater.toml"));
        command.env("TAILWATER_POSTGRES__URL", url);
        command.env("TAILWATER_POSTGRES__PASSWORD_FILE", example().join("tailwater-password"));
        command.env("TAILWATER_KAFKA__BROKERS", self.broker.brokers());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.tailwater(arguments).output().expect("tailwater starts")
    }

    fn mailer(&self) -> Running {
        let folder = new_folder("mailer");
        fs::copy(example().join("mailer/mailer.mjs"), folder.join("mailer.mjs")).expect("a copy");
        let modules = target_folder().join("example/billing/node_modules");
        assert!(modules.is_dir(), "no libraries: run the tests by `make test`, which fetches them");
        symlink(modules, folder.join("node_modules")).expect("a link");
        let mut node = Command::new("node");
        node.arg(folder.join("mailer.mjs")).env("KAFKA_BROKERS", self.broker.brokers());
        node.env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
        Running::start(node)
    }
}

#[test]
fn an_orders_life_is_the_five_events_of_the_readme() {
    let mut promised = promised();
    assert_eq!(promised.len(), 5, "{promised:?}");
    let scene = Scene::open();
    let checked = scene.output(&["check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
    // What each event holds is known before the first of them.
    let printed = scene.output(&["schema"]);
    let schema: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    let tailwater = Running::start(scene.tailwater(&["run"]));
    tailwater.wait_for("publishing");
    let mailer = scene.mailer();
    run_sql(&scene.session, &text("an-orders-life.sql"));
    wait_until_published(&scene.session, "tailwater");

    let placed_at = "SELECT to_char(placed_at AT TIME ZONE 'UTC', \
                     'YYYY-MM-DD\"T\"HH24:MI:SS.US') FROM orders";
    let placed_at = scene.session.value(placed_at).expect("a time");
    // The server writes no zeros at a fraction's end.
    let placed_at = format!("{}Z", placed_at.trim_end_matches('0').trim_end_matches('.'));
    promised[0].1["placedAt"] = json!(placed_at);
    let records = scene.broker.read_committed(TOPIC);
    let events: Vec<Value> = records.iter().map(|record| record.json()).collect();
    let told: Vec<(String, Value)> = events
        .iter()
        .map(|event| (event["type"].as_str().expect("a type").to_owned(), event["data"].clone()))
        .collect();
    assert_eq!(told, promised);
    assert!(records.iter().all(|record| record.key.as_deref() == Some(b"1")), "{records:?}");
    judge(&schema, &events);

    mailer.wait_for("cancelled");
    assert_eq!(mailer.stop(), promised_letters());
    tailwater.stop();
}

/// All events are valid by the printed schema, and none is with the data of another one.
fn judge(schema: &Value, events: &[Value]) {
    let envelope = event_schema();
    let printed = jsonschema::draft202012::new(schema).expect("a schema");
    let kinds = schema["$defs"][TOPIC]["anyOf"].as_array().expect("kinds");
    assert_eq!(kinds.len(), events.len(), "{kinds:#?}");
    for (event, other) in events.iter().zip(events.iter().cycle().skip(1)) {
        assert!(printed.is_valid(event) && envelope.is_valid(event), "{event}");
        let mut spoilt = event.clone();
        spoilt["type"] = json!("order.archived");
        assert!(!printed.is_valid(&spoilt), "{spoilt}");
        for member in event["data"].as_object().expect("members").keys() {
            let mut spoilt = event.clone();
            spoilt["data"][member] = json!([true]);
            assert!(!printed.is_valid(&spoilt), "{spoilt}");
            spoilt["data"].as_object_mut().expect("members").remove(member);
            assert!(!printed.is_valid(&spoilt), "{spoilt}");
        }
        let mut exchanged = event.clone();
        exchanged["data"] = other["data"].clone();
        let has_all = event["data"]
            .as_object()
            .expect("members")
            .keys()
            .all(|member| other["data"].as_object().expect("members").contains_key(member));
        assert_eq!(printed.is_valid(&exchanged), has_all, "{exchanged}");
    }
}

/// What `make test` fetches for the other example is enough for this one.
#[test]
fn the_mailers_libraries_are_those_of_the_outbox_example() {
    let manifest = |path: PathBuf| -> Value {
        serde_json::from_str(&fs::read_to_string(path).expect("a manifest")).expect("JSON")
    };
    let mailer = manifest(example().join("mailer/package.json"));
    let billing = manifest(example().join("../outbox/billing/package.json"));
    for (name, version) in mailer["dependencies"].as_object().expect("libraries") {
        assert_eq!(billing["dependencies"][name], *version, "{name}");
    }
}

//! README.md's least rights are enough, for each command, and none of them is too much.

use std::{fs, path::Path};

use crate::{
    check::{guarded_broker, guarded_settings},
    refusals::{insert, refuse},
    support::{
        PATIENCE, daemon,
        kafka::Broker,
        postgres::{Server, Session},
        prescription::{run_commands, run_sql},
        scene::{init, publishing, shop, stop, wait_until_published},
        settings::SettingsFile,
        wait_until,
    },
};

/// The block of README.md's least rights that begins with this comment.
fn block(language: &str, comment: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(path).expect("README.md");
    let section = text.split_once("### Least rights\n").expect("the section").1;
    let section = section.split("\n## ").next().expect("its end");
    let beginning = format!("```{language}\n{comment}\n");
    let block = section.split_once(&beginning).unwrap_or_else(|| panic!("no {beginning}")).1;
    block.split_once("\n```").expect("its end").0.to_owned()
}

/// What takes away what these commands gave.
fn taken_away(commands: &str) -> String {
    commands.replace(" --add ", " --force --remove ")
}

fn grant(broker: &Broker, commands: &str) {
    run_commands(broker, commands);
}

/// The command with other credentials, on both sides.
fn settings_of(server: &Server, broker: &Broker, role: &str) -> SettingsFile {
    guarded_settings(server, broker)
        .replaced("postgres://postgres@", &format!("postgres://{role}@"))
        .replaced("\"tailwater\"", &format!("\"{role}\""))
}

#[track_caller]
fn assert_ends(settings: &SettingsFile, command: &str, code: i32) -> String {
    let ended = daemon::run(&[command], settings);
    assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
    ended.stdout
}

fn publish(settings: &SettingsFile, session: &Session) {
    let daemon = publishing(settings);
    insert(session, 1);
    wait_until_published(session, "tailwater");
    stop(daemon);
}

#[test]
fn the_rights_that_the_readme_lists_are_enough_and_none_is_too_much() {
    let (server, broker) = (Server::start(), guarded_broker());
    let superuser = shop(&server);
    let settings = settings_of(&server, &broker, "tailwater");
    run_sql(&superuser, &block("sql", "-- run, check"));
    run_sql(&superuser, &block("sql", "-- init"));
    grant(&broker, &block("sh", "# run, check"));
    grant(&broker, &block("sh", "# init"));
    let said = assert_ends(&settings, "check", 0);
    assert!(said.contains(" 0 to mend"), "{said}");
    init(&settings);
    // The topic of the first event is made too.
    publish(&settings, &superuser);
    assert_eq!(broker.read_committed("order.events").len(), 1);

    run_sql(
        &superuser,
        "REVOKE CREATE ON DATABASE shop FROM tailwater; \
         ALTER TABLE outbox_events OWNER TO postgres",
    );
    grant(&broker, &taken_away(&block("sh", "# init")));
    assert_ends(&settings, "check", 0);
    init(&settings);
    publish(&settings, &superuser);
    assert_eq!(broker.read_committed("order.events").len(), 2);

    run_sql(&superuser, &block("sql", "-- status"));
    grant(&broker, &block("sh", "# status"));
    let monitor = settings_of(&server, &broker, "monitor");
    let daemon = publishing(&settings);
    wait_until("the state", PATIENCE, || {
        let said = assert_ends(&monitor, "status", 0);
        assert!(!said.contains("Kafka "), "{said}");
        said.starts_with("running: order-service")
    });
    stop(daemon);

    // Nothing of it is too much.
    insert(&superuser, 1);
    for line in block("sh", "# run, check").lines() {
        grant(&broker, &taken_away(line));
        refuse(&settings, "kafka_denied", "Allow the user");
        grant(&broker, line);
    }
    publish(&settings, &superuser);
    assert_eq!(broker.read_committed("order.events").len(), 4);
    run_sql(&superuser, "ALTER ROLE tailwater NOREPLICATION");
    refuse(&settings, "no_replication_role", "REPLICATION");
}

/// By Kafka's rights alone: on the database's side a dead letter is nothing of its own.
#[test]
fn dead_letters_take_the_rights_that_the_readme_lists_and_none_is_too_much() {
    let (server, broker) = (Server::start(), guarded_broker());
    let session = shop(&server);
    let settings = guarded_settings(&server, &broker)
        .replaced("source =", "on_error = \"dead-letter\"\nsource =");
    grant(&broker, &block("sh", "# run, check"));
    grant(&broker, &block("sh", "# init"));
    grant(&broker, &block("sh", "# run, check: dead letters"));
    init(&settings);
    let of_topic = "INSERT INTO outbox_events (id, aggregate_id, event_type, payload) VALUES \
                    (gen_random_uuid(), 'o', 'order.placed', to_jsonb(repeat('x', 2000000)))";
    let of_source = "INSERT INTO outbox_events (id, aggregate_id, payload) VALUES \
                     (gen_random_uuid(), 'o', '{}')";
    let daemon = publishing(&settings);
    insert(&session, 1);
    session.run(of_topic);
    session.run(of_source);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    let counts = || {
        ["order.events", "order.events.dlq", "order-service.dlq"]
            .map(|topic| broker.read_committed(topic).len())
    };
    assert_eq!(counts(), [1; 3]);
    assert_ends(&settings, "check", 0);

    let rights = block("sh", "# run, check: dead letters");
    for (line, row) in rights.lines().zip([of_topic, of_source]) {
        grant(&broker, &taken_away(line));
        session.run(row);
        refuse(&settings, "kafka_denied", "Allow the user");
        grant(&broker, line);
        let daemon = publishing(&settings);
        wait_until_published(&session, "tailwater");
        stop(daemon);
    }
    assert_eq!(counts(), [1, 2, 2]);
}

/// The other way to a publication: its SQL is run by somebody who may.
#[test]
fn init_needs_no_table_where_the_owner_made_the_publication() {
    let (server, broker) = (Server::start(), guarded_broker());
    let superuser = shop(&server);
    run_sql(&superuser, &block("sql", "-- run, check"));
    let settings = settings_of(&server, &broker, "tailwater");
    superuser.run("CREATE ROLE reader LOGIN");
    let reader = settings_of(&server, &broker, "reader");
    let printed = daemon::run(&["init", "--print-sql"], &reader).stdout;
    run_sql(&superuser, &printed);
    // What check prints makes the topics.
    grant(&broker, &block("sh", "# run, check"));
    let settings = settings.with("[kafka]", "create_topics = false");
    let ended = daemon::run(&["check", "--json"], &settings);
    let findings: Vec<serde_json::Value> = serde_json::from_str(&ended.stdout).expect("an array");
    let fixes = findings.iter().filter_map(|finding| finding["fix"].as_str());
    for fix in fixes.filter(|fix| fix.starts_with("kafka-topics.sh")) {
        run_commands(&broker, fix);
    }
    broker.create_topic("order.events", 3, &[]);
    assert_ends(&settings, "check", 0);
    init(&settings);
    publish(&settings, &superuser);
    assert_eq!(broker.read_committed("order.events").len(), 1);
}

//! Applies what Tailwater or its README print for people to paste: SQL, and command lines.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

use super::{
    kafka::{self, Broker},
    postgres::Session,
};

/// Runs SQL as a terminal would: statement by statement, because some of them run in no transaction,
/// and without comments.
pub fn run_sql(session: &Session, text: &str) {
    for statement in statements(text) {
        session.run(&statement);
    }
}

fn statements(text: &str) -> Vec<String> {
    let code: Vec<&str> =
        text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let code = code.join(" ");
    let statements = code.split(';').map(|statement| statement.trim().to_owned());
    statements.filter(|statement| !statement.is_empty()).collect()
}

/// Runs command lines by a shell, in which Kafka's scripts are its programs. They reach the brokers
/// by the listener on which everything is allowed, wherever the text says that they are.
pub fn run_commands(broker: &Broker, text: &str) {
    let tool = |script: &str, class: &str| {
        format!(
            "{script}() {{ java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
             -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '{}' {class} \"$@\"; }}\n",
            kafka::tools_class_path()
        )
    };
    let mut script = "set -euo pipefail\n".to_owned();
    script.push_str(&tool("kafka-acls.sh", "org.apache.kafka.tools.AclCommand"));
    script.push_str(&tool("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"));
    script.push_str(&tool("kafka-configs.sh", "kafka.admin.ConfigCommand"));
    script.push_str(&elsewhere(text, &broker.brokers()));
    let output = Command::new("bash").arg("-c").arg(&script).output().expect("bash starts");
    let words = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{script}: {words}{said}");
}

/// The commands with another address of the brokers.
fn elsewhere(text: &str, brokers: &str) -> String {
    const OPTION: &str = "--bootstrap-server";
    let mut words = text.split(' ');
    let mut written = Vec::new();
    while let Some(word) = words.next() {
        written.push(word);
        if word == OPTION {
            words.next().expect("an address");
            written.push(brokers);
        }
    }
    written.join(" ")
}

/// Does what a `psql "…" -c '…'` does for a replication command, where it is let in without a
/// password: psql is not everywhere where servers are, and no client library speaks to walsenders.
pub fn run_psql(text: &str) {
    let (connection, rest) = between(text, "psql \"", "\" -c '");
    let (command, _) = between(&format!("'{rest}"), "'", "'");
    let parameters: HashMap<&str, &str> =
        connection.split(' ').filter_map(|parameter| parameter.split_once('=')).collect();
    let port = parameters["port"].parse().expect("a port");
    let mut socket = TcpStream::connect((parameters["host"], port)).expect("a server");
    let startup = format!(
        "user\0{}\0database\0{}\0replication\0{}\0\0",
        parameters["user"], parameters["dbname"], parameters["replication"]
    );
    // Protocol 3.0.
    send(&mut socket, &[], &[&196_608_i32.to_be_bytes(), startup.as_bytes()].concat());
    await_ready(&mut socket);
    send(&mut socket, b"Q", format!("{command}\0").as_bytes());
    await_ready(&mut socket);
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> (String, &'t str) {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
    let (found, rest) = rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {text}"));
    (found.to_owned(), rest)
}

fn send(socket: &mut TcpStream, tag: &[u8], body: &[u8]) {
    let length = i32::try_from(body.len() + 4).expect("a short message");
    socket.write_all(&[tag, &length.to_be_bytes(), body].concat()).expect("sent");
}

/// Reads messages up to ReadyForQuery.
fn await_ready(socket: &mut TcpStream) {
    loop {
        let mut head = [0; 5];
        socket.read_exact(&mut head).expect("a message");
        let [tag, length @ ..] = head;
        let length = usize::try_from(i32::from_be_bytes(length) - 4).expect("a length");
        let mut body = vec![0; length];
        socket.read_exact(&mut body).expect("its body");
        assert_ne!(tag, b'E', "{}", String::from_utf8_lossy(&body));
        if tag == b'Z' {
            return;
        }
    }
}

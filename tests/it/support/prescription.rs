//! Applies what Tailwater or its README print for people to paste: SQL, and command lines.

use std::process::Command;

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
    run_shell(&script);
}

/// Runs a text by a shell.
pub fn run_shell(script: &str) {
    let output = Command::new("bash").arg("-c").arg(script).output().expect("bash starts");
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

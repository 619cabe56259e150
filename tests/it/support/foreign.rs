//! Consumers that are not ours, for what must not rest on librdkafka alone. Each is a program of
//! tests/consumers that writes all committed records of some topics to its standard output, in the
//! order of their partitions.

use std::{
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::{
    kafka::{self, Broker, Record},
    new_folder, process, reader, target_folder,
};

/// Kafka's own Java client.
pub fn java(broker: &Broker, topics: &[&str], take: impl FnMut(Record)) {
    let mut java = Command::new("java");
    java.args(["-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    // Native libraries are unpacked there, and not always removed.
    java.arg(format!("-Djava.io.tmpdir={}", new_folder("java").display()));
    java.arg("-cp").arg(kafka::class_path()).arg(program("Committed.java"));
    java.arg(broker.brokers()).args(topics);
    for_each(java, take);
}

/// Gives a user of the broker a password for SCRAM-SHA-512.
pub fn create_scram_user(broker: &Broker, user: &str, password: &str) {
    let mut java = Command::new("java");
    java.args(["-Xmx256m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    java.arg("-cp").arg(kafka::class_path()).arg(program("Scram.java"));
    let created = java.arg(broker.brokers()).args([user, password]).status();
    assert!(created.expect("java starts").success(), "no user {user}");
}

/// kafkajs, with an lz4 codec that it lacks.
pub fn kafkajs(brokers: &str, topics: &[&str], take: impl FnMut(Record)) {
    let mut node = Command::new("node");
    node.arg(program("committed.mjs")).arg(target_folder().join("node"));
    node.arg(brokers);
    for topic in topics {
        // kafkajs itself can only ask for the last stable offset.
        let ends = reader::high_watermarks(brokers, topic);
        let ends: Vec<String> = ends.into_iter().map(|end| end.to_string()).collect();
        node.arg(format!("{topic}={}", ends.join(",")));
    }
    for_each(node, take);
}

/// Where kafkajs' own partitioners put keys.
#[derive(Deserialize)]
pub struct KafkajsPartitions {
    pub default: Vec<i32>,
    pub legacy: Vec<i32>,
}

/// Asks them.
pub fn kafkajs_partitions(keys: &[Vec<u8>], partitions: u32) -> KafkajsPartitions {
    let modules = target_folder().join("node");
    assert!(
        modules.join("node_modules/kafkajs").is_dir(),
        "kafkajs is not in {}: run the tests by `make test`, which fetches it",
        modules.display()
    );
    let hexadecimal: Vec<String> =
        keys.iter().map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    let question = serde_json::json!({ "partitions": partitions, "keys": hexadecimal });
    let mut node = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/partitioners/kafkajs.mjs"))
        .arg(&modules)
        .env("KAFKAJS_NO_PARTITIONER_WARNING", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    // The script reads all of its input before it writes, so neither side waits for the other.
    let mut input = node.stdin.take().expect("a pipe");
    input.write_all(question.to_string().as_bytes()).expect("node reads");
    drop(input);
    let output = node.wait_with_output().expect("node ends");
    assert!(output.status.success(), "node: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("the script's answer")
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consumers").join(name)
}

fn for_each(mut command: Command, mut take: impl FnMut(Record)) {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = process::spawn(command);
    let mut input = BufReader::new(child.stdout.take().expect("a pipe"));
    while number::<1>(&mut input) == [1] {
        take(record(&mut input));
    }
    let status = child.wait().expect("a child can be waited for");
    assert!(status.success(), "the consumer ended with {status}");
}

fn record(input: &mut impl Read) -> Record {
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.expect("a name")).expect("UTF-8");
    let topic = text(bytes(input));
    let partition = i32::from_be_bytes(number(input));
    let offset = i64::from_be_bytes(number(input));
    let timestamp_ms = i64::from_be_bytes(number(input));
    let (key, value) = (bytes(input), bytes(input));
    let headers = (0..i32::from_be_bytes(number(input)))
        .map(|_| (text(bytes(input)), bytes(input).unwrap_or_default()))
        .collect();
    Record { topic, partition, offset, key, value, headers, timestamp_ms }
}

fn bytes(input: &mut impl Read) -> Option<Vec<u8>> {
    let length = usize::try_from(i32::from_be_bytes(number(input))).ok()?;
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).expect("the consumer writes whole records");
    Some(bytes)
}

fn number<const LENGTH: usize>(input: &mut impl Read) -> [u8; LENGTH] {
    let mut number = [0; LENGTH];
    input.read_exact(&mut number).expect("the consumer writes whole records");
    number
}

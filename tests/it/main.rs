//! Tests against real servers: PostgreSQL and Apache Kafka, each test with what it may break.

mod architecture;
mod demo;
mod exactly_once;
mod golden;
mod harness;
mod kafka_sink;
mod oracle;
mod partitioners;
mod refusals;
mod schema;
mod support;
mod workload;

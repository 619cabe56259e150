//! Tests against real servers: PostgreSQL and Apache Kafka, each test with what it may break.

mod architecture;
mod demo;
mod documents;
mod events;
mod exactly_once;
mod example;
mod faults;
mod golden;
mod harness;
mod hosts;
mod kafka_security;
mod kafka_sink;
mod neighbours;
mod oracle;
mod partitioners;
mod refusals;
mod schema;
mod stalls;
mod standby;
mod starts;
mod status;
mod support;
mod tail;
mod tls;
mod versions;
mod workload;

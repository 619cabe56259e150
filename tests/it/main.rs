//! Tests against real servers: PostgreSQL and Apache Kafka, each test with what it may break.

mod architecture;
mod at_least_once;
mod dead_letters;
mod demo;
mod events;
mod exactly_once;
mod faults;
mod first_requests;
mod golden;
mod harness;
mod hosts;
mod kafka_security;
mod kafka_sink;
mod neighbours;
mod oracle;
mod outages;
mod partitioners;
mod refusals;
mod schema;
mod stalls;
mod standby;
mod starts;
mod status;
mod support;
mod tls;
mod workload;

//! Tests against real servers: PostgreSQL and Apache Kafka, each test with what it may break.

mod adoption;
mod architecture;
mod demo;
mod events;
mod exactly_once;
mod faults;
mod from_a_poller;
mod golden;
mod harness;
mod hosts;
mod kafka_security;
mod kafka_sink;
mod neighbours;
mod oracle;
mod partitioners;
mod refusals;
mod resets;
mod schema;
mod stalls;
mod standby;
mod starts;
mod status;
mod support;
mod take_over;
mod tls;
mod workload;

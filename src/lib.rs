//! Tailwater follows PostgreSQL's write-ahead log and publishes what happened to Kafka.
//!
//! The modules stand in the order in which a row passes through them. Dependencies point one way;
//! `tests/it/architecture.rs` holds the table of allowed edges.

#![deny(rustdoc::broken_intra_doc_links)]

// What every error says of itself: its word, whether to retry, and what mends it.
pub mod failure;
// Positions in the write-ahead log.
pub mod lsn;

// The neutral row model: relations, tuples and their values.
pub mod change;
// The JSON form of a value, type by type.
pub mod value;
// Which position may be acknowledged, and where it is kept.
pub mod checkpoint;
// From a domain event to the bytes of a record.
pub mod encode;
// From a row to a domain event.
pub mod event;
// The loop, its start, its supervisor. The only place that wires the parts together.
#[cfg(feature = "kafka")]
pub mod pipeline;
// The only code that knows PostgreSQL: bytes, replication, decoding, SQL.
pub mod postgres;
// Where records go, and how far they are durable.
pub mod sink;

// How a command reaches a running daemon.
#[cfg(feature = "kafka")]
pub mod admin;
// The commands.
#[cfg(feature = "kafka")]
pub mod cli;
// The settings file.
#[cfg(feature = "kafka")]
pub mod config;
// What consumers can rely on, as documents.
#[cfg(feature = "kafka")]
pub mod contract;
// The whole path on one machine, with nothing set up before.
#[cfg(feature = "kafka")]
pub mod demo;
// Logging.
pub mod telemetry;

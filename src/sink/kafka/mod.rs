//! Kafka, exactly once.
//!
//! ```text
//! Kafka::connect ─► fence ─► into_sink ─► KafkaSink ─batches─► worker ─► two producers ─► brokers
//!                                             ▲                  │           ▲
//!                                             └─── reports ──────┴─ committer┘
//! ```
//!
//! Owns the producers, their transactions and the topics. Knows encoded records only: nothing of
//! PostgreSQL, nothing of events. Invariants:
//!
//! - One thread produces, in the order of the batches. A full queue is waited for; nothing is ever
//!   produced past a record that did not fit.
//! - A transaction ends at a cut and holds that cut's checkpoint record: both become visible or
//!   neither.
//! - Transactions become visible in the order of the batches, and none behind one that did not.
//! - Any failed call ends both producers. There is no way back from an error but to start over from
//!   the checkpoint, so a transaction of unknown outcome is decided by reading it.

mod administration;
mod at_least_once;
mod cancel;
mod client;
mod committer;
mod context;
mod error;
mod inbox;
mod last_call;
mod native;
mod partitioner;
mod producer;
mod progress;
mod properties;
mod queued;
mod reader;
mod records;
mod settings;
mod sink;
mod survey;
mod topics;
mod turn;
mod worker;

pub use cancel::Cancel;
pub use client::Kafka;
pub use error::{KafkaError, SizeLimit};
pub use partitioner::Partitioner;
pub use properties::PROTECTED_PROPERTIES;
pub use reader::{Offsets, Reader, StoredRecord};
pub use settings::{Administration, Delivery, Settings, TopicSettings};
pub use sink::{BATCHES_MAX, KafkaSink};
pub use survey::{Creation, Right, TopicReport, TopicState};

//! `tailwater demo`: the whole path on one machine, with nothing set up before.
//!
//! ```text
//! order_service ──► server (throwaway PostgreSQL) ──► pipeline ──► broker ──► reader ──► screen
//!       └──────────────── ledger: committed ◄──compare──► published ────────────┘
//! ```
//!
//! The pipeline is the one that `run` runs. What stands around it is an application with an outbox
//! and a consumer, as users have them, and a ledger that compares the two. Invariant: however the
//! demo ends, no process and no file of it stays.

mod account;
mod binaries;
mod broker;
mod error;
mod ledger;
mod order_service;
mod reader;
mod run;
mod screen;
mod server;
mod server_files;
mod server_process;
mod summary;

pub use error::DemoError;
pub use run::{Settings, run};
pub use summary::Summary;

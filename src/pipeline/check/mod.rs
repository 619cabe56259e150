//! `check`: what `run` would refuse, and what would hurt it later, found out with nothing taken, made,
//! moved or fenced.
//!
//! ```text
//! examination ──► server, slot, tables, columns ──────┐
//!      │                                              ├──► findings
//!      └────────► brokers, topics ─► checkpoint
//! ```
//!
//! Each side is looked at whatever the other one says. What `run` judges is judged by the same code,
//! so that a finding has the words and the code of the refusal; its fix is what can be pasted.

mod brokers;
mod checkpoint;
mod columns;
mod commands;
mod descendants;
mod examination;
mod finding;
mod patterns;
mod server;
mod slot;
mod standby_names;
mod tables;
mod topics;

pub use examination::{check, unreached};
pub use finding::{Finding, Verdict};

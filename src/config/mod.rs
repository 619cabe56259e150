//! The settings file: what it may hold, read once, all mistakes in one report.
//!
//! ```text
//! TOML, ${ENV}, TAILWATER_X__Y ──► document ──► section, scalar ──► file ──► Config
//!                                     │               │
//!                                     └── mistakes ◄──┘
//! ```
//!
//! `file.rs` is the list of settings: from it come the reader, the known keys, the defaults and
//! `schemas/config.schema.json`. Nothing but `main` and `cli` reads this module; every part takes a
//! `Settings` of its own, which is made here.

mod by_name;
mod column_list;
mod database_url;
mod document;
mod encryption_parameters;
mod file;
mod load;
mod mistake;
mod names;
mod outboxes;
mod quantity;
mod scalar;
mod schema;
mod section;
mod table_topics;
mod tables;
#[cfg(test)]
mod tests;
mod words;

pub use load::{Config, Environment, LoadError};
pub use mistake::{Mistake, SettingsError};
pub use quantity::parse_interval;
pub use schema::json_schema;

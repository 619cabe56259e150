//! Domain tables: what happens to a row is an event, or several, or none.

pub mod rules;
mod settings;

pub use settings::{
    DataForm, Mask, Otherwise, PatternError, RuleSettings, Salt, Settings, TablePattern,
};

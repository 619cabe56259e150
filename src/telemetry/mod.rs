//! The log, on standard error: standard output belongs to what a command was asked for.

mod logging;

pub use logging::{LogFormat, Settings, start_logging};

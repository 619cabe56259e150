//! The log, on standard error: standard output belongs to what a command was asked for.

mod logging;
mod seldom;

pub use logging::{LogFormat, Settings, start_logging};
pub use seldom::Seldom;

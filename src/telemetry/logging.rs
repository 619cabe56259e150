//! Logging.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// How a line of the log looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Unless said: text on a terminal, JSON elsewhere.
    pub format: Option<LogFormat>,
    /// A level, or directives of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

/// Logs from here on. A filter that cannot be read counts as `info`: the settings were checked.
pub fn start_logging(settings: &Settings) {
    let is_terminal = io::stderr().is_terminal();
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let otherwise = if is_terminal { LogFormat::Text } else { LogFormat::Json };
    // A second call in one process keeps the first log.
    let _ = match settings.format.unwrap_or(otherwise) {
        LogFormat::Text => lines.with_ansi(is_terminal).with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
}

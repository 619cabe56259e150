//! What the demo shows: a head, a line per event, the summary.

use std::{
    env, fmt,
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use super::summary::milliseconds;
use crate::pipeline::ShutdownTrigger;

/// Ends a colour.
const PLAIN: &str = "\x1b[0m";

/// An event as it is shown.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct EventLine<'a> {
    pub(super) seen_at: jiff::Timestamp,
    pub(super) event_type: &'a str,
    pub(super) aggregate_id: &'a str,
    pub(super) customer: &'a str,
    pub(super) total: f64,
    pub(super) latency: Duration,
    pub(super) is_repeated: bool,
}

/// Standard output. Nobody there to read it is a reason to end.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    has_colours: bool,
    end: Arc<ShutdownTrigger>,
}

impl Screen {
    pub(super) fn new(end: Arc<ShutdownTrigger>) -> Self {
        let is_wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        Self { has_colours: is_wanted && io::stdout().is_terminal(), end }
    }

    /// Shows a line of text.
    pub(super) fn say(&self, line: impl fmt::Display) {
        if writeln!(io::stdout().lock(), "{line}").is_err() {
            self.end.request();
        }
    }

    /// Shows a line that matters.
    pub(super) fn stress(&self, line: impl fmt::Display) {
        self.say(self.coloured("\x1b[1m", line));
    }

    /// Shows what the columns of the events are.
    pub(super) fn columns(&self) {
        let head = format_args!(
            "{:<12}  {:<13}  {:<8}  {:<9}  {:>12}  {:>12}",
            "time (UTC)", "type", "order", "customer", "total", "after commit"
        );
        self.say(self.coloured("\x1b[2m", head));
    }

    /// Shows an event.
    pub(super) fn event(&self, event: &EventLine<'_>) {
        let EventLine { event_type, aggregate_id, customer, total, .. } = event;
        // Padded first: escape sequences would count.
        let padded = format!("{event_type:<13}");
        let milliseconds = format!("{:>9.1} ms", milliseconds(event.latency));
        let repeated = if event.is_repeated {
            self.coloured("\x1b[31m", "  published again")
        } else {
            String::new()
        };
        self.say(format_args!(
            "{}  {}  {aggregate_id:<8}  {customer:<9}  {total:>8.2} EUR  {}{repeated}",
            event.seen_at.strftime("%H:%M:%S.%3f"),
            self.coloured(colour_of(event_type), padded),
            self.coloured("\x1b[2m", milliseconds),
        ));
    }

    fn coloured(&self, colour: &str, text: impl fmt::Display) -> String {
        if self.has_colours { format!("{colour}{text}{PLAIN}") } else { text.to_string() }
    }
}

fn colour_of(event_type: &str) -> &'static str {
    match event_type {
        "order.placed" => "\x1b[32m",
        "order.paid" => "\x1b[33m",
        "order.shipped" => "\x1b[36m",
        _ => "",
    }
}

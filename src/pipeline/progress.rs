//! The line a minute: rate, lag and position, in words.

use std::time::{Duration, Instant};

use tracing::info;

use super::assembler::Counters;
use crate::{
    change::PgTimestamp,
    checkpoint::{LastTransaction, Tracker},
    lsn::Lsn,
};

/// How often the line is written.
const INTERVAL: Duration = Duration::from_secs(60);

/// What the last line said.
#[derive(Debug)]
pub(super) struct Progress {
    since: Instant,
    counters: Counters,
    /// The end of the server's log, as far as its keepalives told.
    wal_end: Option<Lsn>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), counters: Counters::default(), wal_end: None }
    }

    /// A keepalive said where the server's log ends.
    pub(super) fn observe_wal_end(&mut self, wal_end: Option<Lsn>) {
        self.wal_end = self.wal_end.max(wal_end);
    }

    /// Writes the line if it is due.
    pub(super) fn tick(
        &mut self,
        counters: Counters,
        last: Option<LastTransaction>,
        tracker: &Tracker,
    ) {
        let elapsed = self.since.elapsed();
        if elapsed < INTERVAL {
            return;
        }
        let events = counters.events - self.counters.events;
        let rate = events as f64 / elapsed.as_secs_f64();
        let flush_lsn = tracker.durable().lsn();
        let behind = tracker.has_in_flight();
        let lag_bytes = self.wal_end.map_or(0, |wal_end| wal_end.bytes_since(flush_lsn));
        let age = last.map_or(0, |last| PgTimestamp::now().0.saturating_sub(last.commit_time));
        let lag_seconds = if behind { age as f64 / 1e6 } else { 0.0 };
        info!(
            events,
            transactions = counters.transactions - self.counters.transactions,
            events_per_second = format_args!("{rate:.1}"),
            lag_bytes,
            lag_seconds = format_args!("{lag_seconds:.1}"),
            %flush_lsn,
            "published"
        );
        self.since = Instant::now();
        self.counters = counters;
    }
}

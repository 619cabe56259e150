//! When to read again: read coalescing.
//!
//! The walsender is one process and sends each row with its own `send()`. While the receiver's
//! window is open, every one of them travels and wakes us; that costs the server as much as decoding
//! the row does. While the window is closed, rows are only appended to the server's queue, which
//! empties itself in large pieces as soon as there is room. So under backlog we wait until the
//! receive buffer is nearly full, and take a part of it. Without backlog we read at once: latency is
//! what counts then.
//!
//! A unix socket has no window: its sender sleeps as soon as little more than 100 KiB wait, which
//! takes it less than a millisecond. A longer pause would only hold it up.
//!
//! Backlog is told by the rate at which bytes came lately, not by how much one read found: a reader
//! that is faster than the server finds little each time, and is what this is about.

use std::time::Duration;

use tokio::time::Instant;

/// The rate is measured over at least this time, which is long against a tick of the timer.
const WINDOW: Duration = Duration::from_millis(10);

/// From this rate on the server is busier with us than at half load: it sends about 60 MB/s at its
/// best to a reader that reads at once.
const BACKLOG_BYTES_PER_WINDOW: usize = 256 << 10;

/// From here on the buffer counts as nearly full, in percent of its memory. With less the window
/// opens wide at each read, and the server is back to one packet a row (decision 10).
pub(super) const NEARLY_FULL_PERCENT: usize = 85;

/// The longest pause, for a server that has become slower: at 60 MB/s the buffer is full by then.
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(20);

/// How long rows wait in the socket for a sink that has announced its call: some of its pauses.
pub(super) const HOLD_MAX: Duration = Duration::from_millis(25);

/// And they do so only while less of the receive buffer's memory is in use, in percent.
pub(super) const HOLD_PERCENT_MAX: usize = 50;

/// Under backlog a unix socket is read when this much waits: about half of what lets its sender
/// sleep.
pub(super) const BRIEF_PAUSE_BYTES: usize = 48 << 10;

/// Between two looks at it, and how many there are at most: together half a millisecond.
pub(super) const BRIEF_PAUSE: Duration = Duration::from_micros(100);
pub(super) const BRIEF_PAUSES: usize = 5;

/// Decides over pauses.
#[derive(Debug)]
pub(super) struct Pacing {
    window_began: Instant,
    window_bytes: usize,
    has_backlog: bool,
}

impl Pacing {
    pub(super) fn new() -> Self {
        Self { window_began: Instant::now(), window_bytes: 0, has_backlog: false }
    }

    /// `bytes` were read.
    pub(super) fn observe(&mut self, bytes: usize, now: Instant) {
        self.window_bytes += bytes;
        let elapsed = now.duration_since(self.window_began);
        if elapsed < WINDOW {
            return;
        }
        let windows = elapsed.as_secs_f64() / WINDOW.as_secs_f64();
        self.has_backlog = self.window_bytes as f64 >= BACKLOG_BYTES_PER_WINDOW as f64 * windows;
        self.window_began = now;
        self.window_bytes = 0;
    }

    /// Whether to pause before the next read.
    pub(super) fn has_backlog(&self) -> bool {
        self.has_backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_is_backlog_and_a_trickle_is_not() {
        let mut pacing = Pacing::new();
        let began = pacing.window_began;
        for step in 1..=20 {
            pacing.observe(64 << 10, began + Duration::from_millis(step));
        }
        assert!(pacing.has_backlog());
        for step in 21..=60 {
            pacing.observe(600, began + Duration::from_millis(step));
        }
        assert!(!pacing.has_backlog());
    }

    #[test]
    fn a_burst_after_silence_is_no_backlog() {
        let mut pacing = Pacing::new();
        let began = pacing.window_began;
        pacing.observe(512 << 10, began + Duration::from_secs(1));
        assert!(!pacing.has_backlog());
    }
}

//! The line a minute: rate, lag and position, in words.
//!
//! The lag is measured against the end of the server's log at that moment, which only SQL tells: a
//! walsender sends keepalives where it has nothing else to send, so under backlog none comes. The
//! end is asked for when the line is due, and the line waits until it is known and the stream had
//! its chance to reach it. Who has not reached it by then is behind.

use std::time::{Duration, Instant};

use tracing::info;

use super::{assembler::Counters, publication_watch::WalEnd};
use crate::{
    change::PgTimestamp,
    checkpoint::{LastTransaction, Tracker},
    lsn::Lsn,
};

/// How often the line is written.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long the line waits: for the end of the log, and for the stream to reach it.
const LINE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the last line said.
#[derive(Debug)]
pub(super) struct Progress {
    since: Instant,
    counters: Counters,
    wal_end: WalEnd,
    /// When the end of the log was asked for, for a line that is due.
    asked_at: Option<Instant>,
    /// The end of the server's log, as far as we were told.
    known_end: Option<Lsn>,
}

/// Where publishing is.
#[derive(Clone, Copy, Debug)]
struct Position {
    received: Lsn,
    flush: Lsn,
    has_in_flight: bool,
}

/// How far publishing is behind.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Lag {
    bytes: u64,
    /// Seconds since the last transaction that came was committed; 0 for who is up with the log.
    /// None where no transaction came since the start.
    seconds: Option<f64>,
}

impl Progress {
    pub(super) fn new(wal_end: WalEnd) -> Self {
        let (since, counters) = (Instant::now(), Counters::default());
        Self { since, counters, wal_end, asked_at: None, known_end: None }
    }

    /// A keepalive said where the server's log ends.
    pub(super) fn observe_wal_end(&mut self, wal_end: Option<Lsn>) {
        self.known_end = self.known_end.max(wal_end);
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
        let asked_at = *self.asked_at.get_or_insert_with(|| {
            self.wal_end.ask();
            Instant::now()
        });
        let position = Position {
            received: tracker.received().lsn(),
            flush: tracker.durable().lsn(),
            has_in_flight: tracker.has_in_flight(),
        };
        let told = self.wal_end.told();
        self.observe_wal_end(told);
        let has_reached = told.is_some_and(|end| position.received >= end);
        if !has_reached && asked_at.elapsed() < LINE_WAIT_MAX {
            return;
        }
        let lag = lag(position, self.known_end, last, PgTimestamp::now());
        let events = counters.events - self.counters.events;
        let rate = events as f64 / elapsed.as_secs_f64();
        let dead_letters = counters.dead_letters - self.counters.dead_letters;
        let unpublished = counters.unpublished_messages - self.counters.unpublished_messages;
        let lag_seconds =
            lag.seconds.map_or("unknown".to_owned(), |seconds| format!("{seconds:.1}"));
        info!(
            events,
            transactions = counters.transactions - self.counters.transactions,
            events_per_second = format_args!("{rate:.1}"),
            lag_bytes = lag.bytes,
            lag_seconds,
            flush_lsn = %position.flush,
            dead_letters = (dead_letters > 0).then_some(dead_letters),
            unpublished_messages = (unpublished > 0).then_some(unpublished),
            "published"
        );
        (self.since, self.asked_at) = (Instant::now(), None);
        self.counters = counters;
    }
}

fn lag(
    position: Position,
    end: Option<Lsn>,
    last: Option<LastTransaction>,
    now: PgTimestamp,
) -> Lag {
    let bytes =
        end.map_or(0, |end| if end > position.flush { end.bytes_since(position.flush) } else { 0 });
    let is_behind = position.has_in_flight || end.is_some_and(|end| position.received < end);
    Lag {
        bytes,
        seconds: if is_behind { last.map(|last| last.age_seconds(now)) } else { Some(0.0) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::Xid, lsn::CommitLsn};

    fn lsn(position: u64) -> Lsn {
        Lsn::from_wire(position).expect("not zero")
    }

    fn last(commit_time: i64) -> Option<LastTransaction> {
        Some(LastTransaction { commit_lsn: CommitLsn(lsn(100)), xid: Xid(7), commit_time })
    }

    const NOW: PgTimestamp = PgTimestamp(90_000_000);

    #[test]
    fn who_has_received_less_than_the_log_holds_is_behind() {
        let position = Position { received: lsn(1_000), flush: lsn(900), has_in_flight: false };
        let lag = lag(position, Some(lsn(5_000)), last(30_000_000), NOW);
        assert_eq!(lag, Lag { bytes: 4_100, seconds: Some(60.0) });
    }

    #[test]
    fn an_idle_pipeline_is_not_behind_however_old_its_last_transaction() {
        let position = Position { received: lsn(5_000), flush: lsn(4_900), has_in_flight: false };
        let idle = lag(position, Some(lsn(5_000)), last(30_000_000), NOW);
        assert_eq!(idle, Lag { bytes: 100, seconds: Some(0.0) });
        let in_flight = Position { has_in_flight: true, ..position };
        let lag = lag(in_flight, Some(lsn(5_000)), last(30_000_000), NOW);
        assert_eq!(lag.seconds, Some(60.0));
    }

    #[test]
    fn a_first_transaction_that_is_under_way_has_no_age_yet() {
        let position = Position { received: lsn(1_000), flush: lsn(1_000), has_in_flight: false };
        assert_eq!(lag(position, Some(lsn(5_000)), None, NOW).seconds, None);
    }
}

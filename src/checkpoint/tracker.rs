//! The flush position: the one number that lets PostgreSQL forget.
//!
//! No loss: a [`FlushLsn`] is made in one place, [`Tracker::delivered`], from the end position that
//! a cut was handed over with. That position is a received `Commit.end_lsn` or the end of a
//! keepalive that came outside a transaction; everything that began below it was handed to the sink
//! before the cut, and the sink reports cuts in order. So what the server may forget is durable, and
//! so is the checkpoint that says so: `confirmed_flush` ≤ committed checkpoint.
//!
//! No pinned WAL: while nothing is published, keepalives still move the position, and
//! [`Tracker::idle_position`] asks for a checkpoint of its own. A keepalive that arrives while
//! something is in flight is remembered, because an idle server sends the next one only after half
//! of its `wal_sender_timeout`.

use std::collections::VecDeque;

use crate::{
    lsn::{EndLsn, Lsn},
    sink::CutSequence,
};

/// A position up to which everything is durable in Kafka, its checkpoint included. Only
/// [`Tracker`] makes one; a status update's flush field takes nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FlushLsn(Lsn);

impl FlushLsn {
    /// The position, to send it.
    pub fn lsn(self) -> Lsn {
        self.0
    }
}

/// Where the stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stream {
    /// Between two transactions.
    Between,
    /// A Begin came and its Commit did not.
    InTransaction,
}

/// Decides the flush position.
#[derive(Debug)]
pub struct Tracker {
    flush: FlushLsn,
    /// Every transaction whose commit record begins below was received whole.
    received: EndLsn,
    /// The end of the latest keepalive outside a transaction.
    keepalive: Option<EndLsn>,
    stream: Stream,
    /// Cuts that the sink has and did not report, oldest first.
    in_flight: VecDeque<(CutSequence, EndLsn)>,
    next_sequence: CutSequence,
}

impl Tracker {
    /// Starts from the position of the checkpoint that was read after the predecessor was fenced,
    /// or that was just written: it is durable.
    pub fn new(committed: EndLsn) -> Self {
        Self {
            flush: FlushLsn(committed.lsn()),
            received: committed,
            keepalive: None,
            stream: Stream::Between,
            in_flight: VecDeque::new(),
            next_sequence: CutSequence(1),
        }
    }

    /// A transaction begins: no keepalive counts until it ends.
    pub fn begin(&mut self) {
        self.stream = Stream::InTransaction;
        self.keepalive = None;
    }

    /// A transaction was received whole. A transaction that was skipped, because it is published,
    /// ends below what is known and moves nothing.
    pub fn commit(&mut self, end: EndLsn) {
        self.stream = Stream::Between;
        self.received = self.received.max(end);
    }

    /// A keepalive's end: every commit below it was sent before it. Refused inside a transaction,
    /// because the server's position may then be past a commit record that we have not seen.
    pub fn observe_keepalive(&mut self, end: Lsn) {
        match self.stream {
            Stream::InTransaction => {}
            Stream::Between => self.keepalive = self.keepalive.max(Some(EndLsn(end))),
        }
    }

    /// The position that is worth a checkpoint of its own: nothing is open or in flight, and the
    /// server's log has moved.
    pub fn idle_position(&self) -> Option<EndLsn> {
        let quiet = self.stream == Stream::Between && self.in_flight.is_empty();
        let position = self.keepalive.max(Some(self.received))?;
        (quiet && position.lsn() > self.flush.lsn()).then_some(position)
    }

    /// Everything received before is about to be handed over with a cut at `end`.
    pub fn hand_over(&mut self, end: EndLsn) -> CutSequence {
        debug_assert!(self.in_flight.back().is_none_or(|(_, previous)| *previous <= end));
        debug_assert!(Some(end) <= self.keepalive.max(Some(self.received)), "a received position");
        let sequence = self.next_sequence;
        self.next_sequence = CutSequence(sequence.0 + 1);
        self.in_flight.push_back((sequence, end));
        self.received = self.received.max(end);
        sequence
    }

    /// The sink reports a cut, and with it all before it, as durable. The only place where the
    /// flush position moves.
    pub fn delivered(&mut self, sequence: CutSequence) {
        while let Some((oldest, end)) = self.in_flight.front().copied() {
            if oldest > sequence {
                break;
            }
            self.in_flight.pop_front();
            debug_assert!(end.lsn() >= self.flush.lsn(), "cuts are handed over in order");
            self.flush = self.flush.max(FlushLsn(end.lsn()));
        }
    }

    /// What may be acknowledged.
    pub fn flush_lsn(&self) -> FlushLsn {
        self.flush
    }

    /// Every transaction whose commit record begins below was received whole: where the next cut
    /// after a whole transaction ends, and the `write` field of a status update.
    pub fn received(&self) -> EndLsn {
        self.received
    }

    /// True while the sink has cuts that it did not report.
    pub fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(position: u64) -> EndLsn {
        EndLsn(Lsn::from_wire(position).expect("a position"))
    }

    fn flush(tracker: &Tracker) -> u64 {
        tracker.flush_lsn().lsn().to_wire()
    }

    fn transaction(tracker: &mut Tracker, position: u64) -> CutSequence {
        tracker.begin();
        tracker.commit(end(position));
        tracker.hand_over(end(position))
    }

    #[test]
    fn flush_does_not_pass_an_undelivered_transaction() {
        let mut tracker = Tracker::new(end(100));
        let first = transaction(&mut tracker, 200);
        let second = transaction(&mut tracker, 300);
        assert_eq!(flush(&tracker), 100);
        tracker.delivered(first);
        assert_eq!(flush(&tracker), 200);
        tracker.delivered(second);
        assert_eq!(flush(&tracker), 300);
    }

    #[test]
    fn a_report_covers_all_cuts_before_it() {
        let mut tracker = Tracker::new(end(100));
        transaction(&mut tracker, 200);
        let second = transaction(&mut tracker, 300);
        tracker.delivered(second);
        assert_eq!(flush(&tracker), 300);
        assert!(!tracker.has_in_flight());
    }

    #[test]
    fn a_keepalive_inside_a_transaction_moves_nothing() {
        let mut tracker = Tracker::new(end(100));
        tracker.begin();
        tracker.observe_keepalive(end(500).lsn());
        assert_eq!(tracker.idle_position(), None);
        tracker.commit(end(300));
        assert_eq!(tracker.idle_position(), Some(end(300)));
    }

    #[test]
    fn a_keepalive_while_in_flight_counts_once_all_is_delivered() {
        let mut tracker = Tracker::new(end(100));
        let first = transaction(&mut tracker, 200);
        tracker.observe_keepalive(end(400).lsn());
        assert_eq!(tracker.idle_position(), None);
        tracker.delivered(first);
        assert_eq!(flush(&tracker), 200);
        assert_eq!(tracker.idle_position(), Some(end(400)));
    }

    #[test]
    fn a_keepalive_below_the_checkpoint_asks_for_nothing() {
        let mut tracker = Tracker::new(end(100));
        tracker.observe_keepalive(end(90).lsn());
        assert_eq!(tracker.idle_position(), None);
        assert_eq!(flush(&tracker), 100);
    }

    #[test]
    fn a_skipped_transaction_moves_nothing() {
        let mut tracker = Tracker::new(end(100));
        tracker.begin();
        tracker.commit(end(80));
        assert_eq!(tracker.idle_position(), None);
        assert_eq!(tracker.received(), end(100));
    }

    #[test]
    fn a_cut_inside_a_transaction_keeps_the_position_before_it() {
        let mut tracker = Tracker::new(end(100));
        let first = transaction(&mut tracker, 200);
        tracker.begin();
        let inside = tracker.hand_over(end(200));
        tracker.delivered(first);
        tracker.delivered(inside);
        assert_eq!(flush(&tracker), 200);
    }

    /// A model beside the tracker: random streams, cuts and reports; the flush position equals the
    /// greatest end of a reported cut and never passes an unreported one.
    #[test]
    fn flush_follows_the_model_over_random_runs() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let mut tracker = Tracker::new(end(1));
            let (mut position, mut durable) = (1, 1);
            let mut out = VecDeque::new();
            for _ in 0..100 {
                match random.u8(0..4) {
                    0 | 1 => {
                        position += random.u64(1..50);
                        out.push_back((transaction(&mut tracker, position), position));
                    }
                    2 => tracker.observe_keepalive(end(position + random.u64(0..9)).lsn()),
                    _ => {
                        if let Some((sequence, reported)) = out.pop_front() {
                            tracker.delivered(sequence);
                            durable = reported;
                        }
                    }
                }
                assert_eq!(flush(&tracker), durable, "seed {seed}");
                assert!(out.is_empty() || tracker.idle_position().is_none(), "seed {seed}");
            }
        }
    }
}

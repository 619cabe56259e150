//! The flush position: the one number that lets PostgreSQL forget.
//!
//! No loss: the durable position moves in one place, [`Tracker::delivered`], to the end position
//! that a cut was handed over with. That position is a received `Commit.end_lsn` or the end of a
//! keepalive that came outside a transaction; everything that began below it was handed to the sink
//! before the cut, and the sink reports cuts in order. So what the server may forget is durable, and
//! so is the checkpoint that says so: `confirmed_flush` ≤ committed checkpoint.
//!
//! Nothing is acknowledged before the stream has passed the checkpoint that it began with, and the
//! end of the transaction that the checkpoint holds a part of. What comes until then is compared
//! with what was published. If the slot moved up to the checkpoint meanwhile, a start that found
//! another history would be the last one to see it: the next would not be sent the difference. So
//! [`Tracker::flush_lsn`] has nothing to give until then, and neither has
//! [`Tracker::idle_position`]: a checkpoint before the rest of a torn transaction could only move
//! the position over changes that are still to be compared, and frees no WAL, because the slot
//! needs that transaction's first record anyway.
//!
//! No pinned WAL: while nothing is published, keepalives still move the position, and
//! [`Tracker::idle_position`] asks for a checkpoint of its own; also within a transaction, up to
//! the one before it, because tables that are published and not configured may be busy for long. A
//! keepalive that arrives while something is in flight is remembered, because an idle server sends
//! the next one only after half of its `wal_sender_timeout`.

use std::collections::VecDeque;

use super::CheckpointRecord;
use crate::{
    lsn::{CommitLsn, EndLsn, Lsn},
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

/// What the stream repeats at first, to be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Repetition {
    /// What is below is published.
    end: EndLsn,
    /// The transaction of which a part is published.
    part: Option<CommitLsn>,
}

impl Repetition {
    /// Everything that was committed below `position` came by.
    fn is_over(self, position: Lsn) -> bool {
        position >= self.end.lsn() && self.part.is_none_or(|part| position > part.lsn())
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
    /// The position of the last checkpoint that is known to be committed.
    durable: EndLsn,
    /// None once the stream is past what is published.
    repetition: Option<Repetition>,
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
    /// Starts from the checkpoint that was read after the predecessor was fenced, or that was just
    /// written: it is durable.
    pub fn new(committed: &CheckpointRecord) -> Self {
        let end = committed.commit_end_lsn;
        let part = committed.in_progress.map(|part| part.commit_lsn);
        Self {
            durable: end,
            repetition: Some(Repetition { end, part }),
            received: end,
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

    /// A transaction was received whole, and is what it was if it was published before. One that
    /// was skipped, because it is published, ends below what is known and moves nothing.
    pub fn commit(&mut self, end: EndLsn) {
        self.stream = Stream::Between;
        self.received = self.received.max(end);
        self.pass(end.lsn());
    }

    /// A keepalive's end: every commit below it was sent before it, and nothing that should have
    /// been among it is missing. Refused inside a transaction, because the server's position may
    /// then be past a commit record that we have not seen.
    pub fn observe_keepalive(&mut self, end: Lsn) {
        match self.stream {
            Stream::InTransaction => {}
            Stream::Between => {
                self.keepalive = self.keepalive.max(Some(EndLsn(end)));
                self.pass(end);
            }
        }
    }

    fn pass(&mut self, position: Lsn) {
        self.repetition = self.repetition.filter(|repetition| !repetition.is_over(position));
    }

    /// The position that is worth a checkpoint of its own: nothing is in flight or still to be
    /// compared, and what is known has moved. While a transaction is open, the end of the one
    /// before it: its own records must then come behind the checkpoint.
    pub fn idle_position(&self) -> Option<EndLsn> {
        let position = match self.stream {
            Stream::Between => self.keepalive.map_or(self.received, |end| end.max(self.received)),
            Stream::InTransaction => self.received,
        };
        let is_quiet = self.in_flight.is_empty() && self.repetition.is_none();
        (is_quiet && position > self.durable).then_some(position)
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
    /// durable position moves.
    pub fn delivered(&mut self, sequence: CutSequence) {
        while let Some((oldest, end)) = self.in_flight.front().copied() {
            if oldest > sequence {
                break;
            }
            self.in_flight.pop_front();
            debug_assert!(end >= self.durable, "cuts are handed over in order");
            self.durable = self.durable.max(end);
        }
    }

    /// What may be acknowledged; nothing while the stream repeats what is published.
    pub fn flush_lsn(&self) -> Option<FlushLsn> {
        self.repetition.is_none().then_some(FlushLsn(self.durable.lsn()))
    }

    /// The `write` field of a status update. As little as [`Tracker::flush_lsn`] while the stream
    /// repeats: a server that is told of a position at or above its own sends no keepalive, and
    /// that is what ends the repetition where nothing else comes.
    pub fn write_lsn(&self) -> Option<Lsn> {
        self.repetition.is_none().then_some(self.received.lsn())
    }

    /// The position of the last checkpoint that is known to be committed.
    pub fn durable(&self) -> EndLsn {
        self.durable
    }

    /// Every transaction whose commit record begins below was received whole: where the next cut
    /// after a whole transaction ends.
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
    use crate::checkpoint::InProgress;

    fn end(position: u64) -> EndLsn {
        EndLsn(Lsn::from_wire(position).expect("a position"))
    }

    fn checkpoint(position: u64) -> CheckpointRecord {
        CheckpointRecord::of_first_start(end(position))
    }

    /// A tracker whose stream is past the checkpoint already.
    fn past(position: u64) -> Tracker {
        let mut tracker = Tracker::new(&checkpoint(position));
        tracker.observe_keepalive(end(position).lsn());
        tracker
    }

    fn flush(tracker: &Tracker) -> u64 {
        tracker.flush_lsn().expect("nothing is repeated").lsn().to_wire()
    }

    fn transaction(tracker: &mut Tracker, position: u64) -> CutSequence {
        tracker.begin();
        tracker.commit(end(position));
        tracker.hand_over(end(position))
    }

    #[test]
    fn flush_does_not_pass_an_undelivered_transaction() {
        let mut tracker = past(100);
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
        let mut tracker = past(100);
        transaction(&mut tracker, 200);
        let second = transaction(&mut tracker, 300);
        tracker.delivered(second);
        assert_eq!(flush(&tracker), 300);
        assert!(!tracker.has_in_flight());
    }

    #[test]
    fn a_keepalive_inside_a_transaction_moves_nothing() {
        let mut tracker = past(100);
        tracker.begin();
        tracker.observe_keepalive(end(500).lsn());
        assert_eq!(tracker.idle_position(), None);
        tracker.commit(end(300));
        assert_eq!(tracker.idle_position(), Some(end(300)));
    }

    #[test]
    fn the_transactions_before_an_open_one_are_worth_a_checkpoint() {
        let mut tracker = past(100);
        tracker.begin();
        tracker.commit(end(300));
        tracker.observe_keepalive(end(350).lsn());
        tracker.begin();
        assert_eq!(tracker.idle_position(), Some(end(300)));
        let idle = tracker.hand_over(end(300));
        assert_eq!(tracker.idle_position(), None);
        tracker.delivered(idle);
        assert_eq!((flush(&tracker), tracker.idle_position()), (300, None));
    }

    #[test]
    fn nothing_is_acknowledged_before_the_stream_has_passed_the_checkpoint() {
        let mut tracker = Tracker::new(&checkpoint(100));
        tracker.observe_keepalive(end(99).lsn());
        tracker.begin();
        tracker.commit(end(90));
        assert_eq!((tracker.flush_lsn(), tracker.write_lsn()), (None, None));
        tracker.observe_keepalive(end(100).lsn());
        assert_eq!(flush(&tracker), 100);
    }

    #[test]
    fn a_transaction_behind_the_checkpoint_ends_the_repetition() {
        let mut tracker = Tracker::new(&checkpoint(100));
        tracker.begin();
        tracker.hand_over(end(100));
        assert_eq!(tracker.flush_lsn(), None);
        tracker.commit(end(300));
        assert_eq!(flush(&tracker), 100);
    }

    #[test]
    fn nothing_is_acknowledged_or_worth_a_checkpoint_while_a_part_is_due() {
        let digest = 6;
        let commit_lsn = CommitLsn(end(500).lsn());
        let in_progress = Some(InProgress { commit_lsn, changes: 5, events: 4, digest });
        let mut tracker = Tracker::new(&CheckpointRecord { in_progress, ..checkpoint(100) });
        tracker.observe_keepalive(end(400).lsn());
        assert_eq!((tracker.flush_lsn(), tracker.idle_position()), (None, None));
        tracker.begin();
        assert_eq!((tracker.flush_lsn(), tracker.idle_position()), (None, None));
        tracker.commit(end(550));
        assert_eq!((flush(&tracker), tracker.idle_position()), (100, Some(end(550))));
    }

    #[test]
    fn a_keepalive_while_in_flight_counts_once_all_is_delivered() {
        let mut tracker = past(100);
        let first = transaction(&mut tracker, 200);
        tracker.observe_keepalive(end(400).lsn());
        assert_eq!(tracker.idle_position(), None);
        tracker.delivered(first);
        assert_eq!(flush(&tracker), 200);
        assert_eq!(tracker.idle_position(), Some(end(400)));
    }

    #[test]
    fn a_keepalive_below_the_checkpoint_asks_for_nothing() {
        let mut tracker = past(100);
        tracker.observe_keepalive(end(90).lsn());
        assert_eq!(tracker.idle_position(), None);
        assert_eq!(flush(&tracker), 100);
    }

    #[test]
    fn a_skipped_transaction_moves_nothing() {
        let mut tracker = past(100);
        tracker.begin();
        tracker.commit(end(80));
        assert_eq!(tracker.idle_position(), None);
        assert_eq!(tracker.received(), end(100));
    }

    #[test]
    fn a_cut_inside_a_transaction_keeps_the_position_before_it() {
        let mut tracker = past(100);
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
            let mut tracker = past(1);
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

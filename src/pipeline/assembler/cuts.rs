//! Where batches end, and where they are cut.

use super::{Assembler, BATCH_BYTES, BATCHES_KEPT, BYTES_OUT_MIN, Open};
use crate::{
    checkpoint::{InProgress, Tracker},
    lsn::EndLsn,
    sink::{Batch, Cut, Record, Urgency},
};

impl Assembler {
    /// Everything that was read is in: hands over the whole transactions, unless the sink has
    /// enough to do and more can be gathered.
    pub(in crate::pipeline) fn hand_over_gathered(&mut self, tracker: &mut Tracker) {
        if self.bytes_out < BYTES_OUT_MIN && self.free.len() > BATCHES_KEPT {
            self.hand_over_whole(tracker);
        }
    }

    /// Hands over the whole transactions.
    pub(in crate::pipeline) fn hand_over_whole(&mut self, tracker: &mut Tracker) {
        if !self.has_whole() {
            return;
        }
        let Some(mut rest) = self.free.pop() else { return };
        self.current.split_into(self.whole_records, &mut rest);
        self.cut(tracker.received(), rest, Urgency::Group, tracker);
    }

    /// True where a cut could be made after a whole transaction.
    pub(in crate::pipeline) fn has_whole(&self) -> bool {
        self.whole_records > 0 || self.is_cut_due
    }

    /// True where a checkpoint without events can be made: no whole transaction waits for a cut of
    /// its own, and the records of the open one, which must come behind it, are still here.
    pub(in crate::pipeline) fn is_idle(&self) -> bool {
        let published = self.open.as_ref().and_then(|open| open.published.as_ref());
        !self.has_whole() && !published.is_some_and(|published| published.is_handed_over)
    }

    /// A checkpoint without events, so that an idle table pins no WAL. Only where
    /// [`Assembler::is_idle`].
    pub(in crate::pipeline) fn hand_over_idle(&mut self, end: EndLsn, tracker: &mut Tracker) {
        debug_assert!(self.is_idle(), "no record may come before the cut that belongs behind it");
        let Some(mut rest) = self.free.pop() else { return };
        self.current.split_into(0, &mut rest);
        self.cut(end, rest, Urgency::Group, tracker);
    }

    /// The records from `first_record` on are those of one change of the open transaction: splits
    /// that before them where it outgrew its bound, and hands over what is full.
    pub(super) fn take_in(&mut self, first_record: usize, tracker: &mut Tracker) {
        let records = self.current.records().get(first_record..).unwrap_or_default();
        let (count, bytes) =
            (records.len() as u64, records.iter().map(Record::bytes).sum::<usize>());
        if count == 0 {
            return;
        }
        let Some(Open { published: Some(published), .. }) = &mut self.open else { return };
        let outgrown = published.bytes > 0 && published.bytes + bytes > self.transaction_bytes;
        published.bytes = if outgrown { bytes } else { published.bytes + bytes };
        self.counters.events += count;
        if outgrown {
            self.split_transaction(first_record, tracker);
        }
        if let Some(Open { published: Some(published), .. }) = &mut self.open {
            published.events += count;
        }
        if self.current.bytes() >= BATCH_BYTES {
            self.hand_over_full(tracker);
        }
    }

    /// Cuts between the change whose records begin there and the one before it.
    fn split_transaction(&mut self, first_record: usize, tracker: &mut Tracker) {
        let Some(mut rest) = self.free.pop() else { return };
        let Some(Open { transaction, published: Some(published) }) = &mut self.open else { return };
        published.is_handed_over = false;
        self.in_progress = Some(InProgress {
            commit_lsn: transaction.commit_lsn,
            changes: published.changes,
            events: published.events,
            digest: published.digest.value(),
        });
        self.current.split_into(first_record, &mut rest);
        self.cut(tracker.received(), rest, Urgency::Now, tracker);
    }

    fn hand_over_full(&mut self, tracker: &mut Tracker) {
        if self.whole_records > 0 || self.is_cut_due {
            self.hand_over_whole(tracker);
            return;
        }
        let Some(rest) = self.free.pop() else { return };
        if let Some(Open { published: Some(published), .. }) = &mut self.open {
            published.is_handed_over = true;
        }
        self.ready.push_back(std::mem::replace(&mut self.current, rest));
    }

    fn cut(&mut self, end: EndLsn, rest: Batch, urgency: Urgency, tracker: &mut Tracker) {
        let sequence = tracker.hand_over(end);
        let checkpoints = self.checkpoints(end, sequence);
        self.current.set_cut(Cut { sequence, checkpoints, urgency });
        self.ready.push_back(std::mem::replace(&mut self.current, rest));
        self.whole_records = 0;
        self.is_cut_due = false;
    }
}

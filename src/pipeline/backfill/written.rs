//! What was written with cuts that the sink did not report.

use std::collections::VecDeque;

use crate::{checkpoint::SnapshotRecord, pipeline::requests::SnapshotProgress, sink::CutSequence};

/// From so many on, what is told of a table takes the place of what was told before it. At least once,
/// cuts are reported once a second only.
const COUNT_MAX: usize = 256;

/// What records of cuts say, in the order of the cuts.
#[derive(Debug, Default)]
pub(super) struct Written {
    entries: VecDeque<(CutSequence, SnapshotProgress)>,
}

impl Written {
    /// These go out with a cut.
    pub(super) fn push(&mut self, sequence: CutSequence, records: &[SnapshotRecord]) {
        for progress in records.iter().map(SnapshotProgress::of) {
            let is_long = self.entries.len() >= COUNT_MAX;
            match self.entries.back_mut().filter(|(_, last)| last.request == progress.request) {
                Some(last) if is_long => *last = (sequence, progress),
                Some(_) | None => self.entries.push_back((sequence, progress)),
            }
        }
    }

    /// What is durable by the report of this cut, and with it of all before it.
    pub(super) fn take_delivered(&mut self, delivered: CutSequence) -> Vec<SnapshotProgress> {
        let count = self.entries.iter().take_while(|(sequence, _)| *sequence <= delivered).count();
        self.entries.drain(..count).map(|(_, progress)| progress).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::RelationId, pipeline::backfill::due};

    #[test]
    fn a_cut_that_is_reported_tells_of_all_before_it_and_of_none_behind() {
        let mut written = Written::default();
        let mut record = due::record("shop", "public.orders", RelationId(1), None);
        for sequence in 1..=3 {
            record.rows = sequence;
            written.push(CutSequence(sequence), std::slice::from_ref(&record));
        }
        let mut rows = |delivered| -> Vec<u64> {
            let told = written.take_delivered(CutSequence(delivered));
            told.into_iter().map(|progress| progress.rows).collect()
        };
        assert_eq!((rows(0), rows(2), rows(2)), (vec![], vec![1, 2], vec![]));
        for sequence in 4..=1_000 {
            record.rows = sequence;
            written.push(CutSequence(sequence), std::slice::from_ref(&record));
        }
        assert_eq!(written.entries.len(), COUNT_MAX);
        // The latest is told of by its own cut.
        let told = written.take_delivered(CutSequence(1_000));
        assert_eq!(told.last().map(|progress| progress.rows), Some(1_000));
    }
}

//! What is read of a table next, and what came of it.

use tokio::time::Instant;

use super::{
    super::{
        Unfit,
        job::{Chunk, Expected, Job, Outcome, RangeEnd, Work, key_columns},
        row_key::{KeyPlaces, RowKey},
    },
    Asked, CHUNK_BYTES, CHUNK_BYTES_MAX, ENCODED_BYTES, HELD_AFTER, HELD_BYTES_MAX, MEANT_ROWS_MAX,
    Release, Stage, Table, Waiting, key_of,
};
use crate::postgres::snapshot::{RowBlock, Shape};

impl Table {
    /// The next thing to do, while nothing is under way.
    pub(in crate::pipeline::backfill) fn next_job(&mut self, now: Instant) -> Option<Job> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        let mut is_held = self.tries >= HELD_AFTER;
        let work = match self.stage {
            Stage::Unknown if self.record.key.is_empty() => Work::Describe,
            Stage::Unknown => {
                // From here on: what is open when the job begins is waited for.
                self.stage = Stage::Unsettled;
                Work::Settle { since: None }
            }
            Stage::Unsettled => Work::Settle { since: self.settling.take() },
            Stage::Settled => {
                // Its session is gone, and with it who would have the log written up to its position.
                let waits_alone = self.waiting.len() == 1
                    && self.waiting.iter().all(|one| one.chunk.rows.is_cut_off());
                let held: usize = self.waiting.iter().map(|one| one.chunk.rows.bytes()).sum();
                if held + CHUNK_BYTES_MAX > HELD_BYTES_MAX && !waits_alone {
                    return None;
                }
                let looks_for_keys =
                    self.waiting.iter().any(|one| matches!(one.asked, Asked::Keys(_)));
                let end = self.end();
                if !self.outstanding.is_empty() && !looks_for_keys {
                    let (keys, tries) = self.outstanding.next(self.bounds.keys_max);
                    is_held |= tries >= HELD_AFTER;
                    let keys = keys.into_iter().map(|key| key.0).collect();
                    Work::Keys { keys, end }
                } else if end == RangeEnd::OfTable
                    || self.outstanding.len() > self.bounds.outstanding_max
                    || (self.encoded_rows_max.is_none() && !self.waiting.is_empty() && !waits_alone)
                {
                    return None;
                } else {
                    let most = self.encoded_rows_max.unwrap_or(usize::MAX);
                    let most = match self.record.condition {
                        Some(_) => most,
                        None => most.min(MEANT_ROWS_MAX),
                    };
                    Work::Range { behind: end, rows_max: self.rows_max.min(most) }
                }
            }
        };
        Some(Job {
            table: self.name.clone(),
            condition: self.record.condition.clone(),
            expected: Expected { oid: self.record.oid, key: self.record.key.clone() },
            work,
            is_anew: std::mem::take(&mut self.is_outdated),
            is_held: is_held && self.stage == Stage::Settled,
            generation: self.generation,
        })
    }

    /// How far the ranges come that were read or are out.
    fn end(&self) -> RangeEnd {
        let read = self.waiting.iter().rev().find_map(|waiting| match &waiting.asked {
            Asked::Range(end) => Some(end.clone()),
            Asked::Keys(_) => None,
        });
        read.unwrap_or_else(|| match &self.record.cursor {
            _ if self.record.is_at_end => RangeEnd::OfTable,
            Some(key) => RangeEnd::At(RowKey(key.clone())),
            None => RangeEnd::Nowhere,
        })
    }

    /// What came of a job.
    ///
    /// # Errors
    /// Why it never will.
    pub(in crate::pipeline::backfill) fn done(
        &mut self,
        job: Job,
        outcome: Outcome,
    ) -> Result<(), Unfit> {
        self.waits_for = outcome.waits_for().to_vec();
        if job.generation != self.generation {
            return Ok(());
        }
        match outcome {
            Outcome::Described(shape) => self.describe(&shape),
            Outcome::Unsettled(settling, snapshot) => {
                // Nothing is read by now.
                self.touches.forget_shown_by(&snapshot);
                self.settling = Some(settling);
                Ok(())
            }
            Outcome::Settled(snapshot) => {
                if self.stage == Stage::Unsettled {
                    self.touches.forget_shown_by(&snapshot);
                    self.stage = Stage::Settled;
                }
                Ok(())
            }
            Outcome::Read(chunk) => self.take_chunk(job, chunk),
            Outcome::Altered(shape) => self.alter(&shape),
        }
    }

    /// A job failed, and is to be done again, a range with half of its rows. How often in a row that
    /// was so.
    pub(in crate::pipeline::backfill) fn failed(&mut self, job: &Job, now: Instant) -> u32 {
        if job.generation == self.generation {
            if let Work::Range { rows_max, .. } = job.work {
                // It may have taken longer than a statement may. Where something else went wrong, the
                // next chunks are as large again.
                self.rows_max = self.rows_max.min((rows_max / 2).max(1));
            }
            self.pause(now);
        }
        self.waits_for.clear();
        self.touches.remember_all();
        self.tries
    }

    fn describe(&mut self, shape: &Shape) -> Result<(), Unfit> {
        if shape.oid != self.record.oid {
            return Err(Unfit::Gone);
        }
        if shape.key.is_empty() {
            return Err(Unfit::NoKey);
        }
        self.record.key = key_columns(shape);
        self.record.estimate = shape.estimate.filter(|_| self.record.condition.is_none());
        self.find_places();
        Ok(())
    }

    /// The table is not what it was looked up as: what is out was read in another order.
    fn alter(&mut self, shape: &Shape) -> Result<(), Unfit> {
        if shape.oid != self.record.oid {
            return Err(Unfit::Gone);
        }
        if shape.key.is_empty() {
            return Err(Unfit::NoKey);
        }
        if self.has_begun() {
            self.start_over("the key was altered while rows were read in the order of it");
        }
        self.forget_moved();
        self.record.key = Vec::new();
        self.put_off();
        Ok(())
    }

    /// Keys of the open transaction are those of a key that is no more.
    fn forget_moved(&mut self) {
        (self.moved, self.moved_bytes) = (Vec::new(), 0);
        (self.is_moved_overflown, self.is_moved_unknown) = (false, false);
    }

    fn take_chunk(&mut self, job: Job, chunk: Chunk) -> Result<(), Unfit> {
        let Job { work, is_held, .. } = job;
        let key = key_columns(&chunk.shape);
        if key != self.record.key {
            self.record.key = key;
            self.find_places();
        }
        let asked = match work {
            Work::Range { rows_max, .. } => {
                let count = chunk.rows.scanned();
                self.adapt(&chunk.rows);
                let places = KeyPlaces(chunk.shape.key.iter().map(|column| column.index).collect());
                let last = chunk.rows.last_scanned();
                let is_last = count < rows_max && !chunk.rows.is_cut_off();
                match (is_last, last) {
                    (true, _) | (false, None) => Asked::Range(RangeEnd::OfTable),
                    (false, Some(row)) => {
                        let key = key_of(&places, row).ok_or(Unfit::NoText)?;
                        Asked::Range(RangeEnd::At(key))
                    }
                }
            }
            Work::Keys { keys, .. } => Asked::Keys(keys.into_iter().map(RowKey).collect()),
            Work::Describe | Work::Settle { .. } => return Ok(()),
        };
        if self.waiting.is_empty() {
            // Nothing is under way, and what is read next has a later snapshot.
            self.touches.forget_shown_by(&chunk.moment.snapshot);
        }
        self.waiting.push_back(Waiting { chunk, asked, is_held });
        Ok(())
    }

    /// Has the next chunk take as many bytes as one should.
    fn adapt(&mut self, rows: &RowBlock) {
        let (count, bytes) = (rows.scanned().max(1), rows.filled_bytes().max(1));
        let fitting = count.saturating_mul(CHUNK_BYTES) / bytes;
        let fitting = if rows.is_cut_off() { fitting.min(count) } else { fitting };
        self.rows_max = fitting.clamp(1, self.rows_max.saturating_mul(8)).min(self.bounds.rows_max);
    }

    /// What a release was encoded to, in bytes. Rows that were looked at and left out count, as they do
    /// for what was read.
    pub(in crate::pipeline::backfill) fn observe_encoded(
        &mut self,
        release: &Release,
        bytes: usize,
    ) {
        if let Asked::Range(_) = release.asked {
            let count = release.chunk.rows.scanned().max(1);
            let fitting = count.saturating_mul(ENCODED_BYTES) / bytes.max(1);
            self.encoded_rows_max = Some(fitting.max(1));
        }
    }
}

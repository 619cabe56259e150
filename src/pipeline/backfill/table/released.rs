//! What may go out of the rows that were read.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    super::{
        Unfit,
        job::{Chunk, RangeEnd},
        row_key::{KeyPlaces, RowKey},
        touches::Hidden,
    },
    Asked, Release, Selected, Table, Waiting, key_of,
};
use crate::{checkpoint::SnapshotState, lsn::Lsn, postgres::snapshot::RowBlock};

impl Table {
    /// The position that the stream must have passed for the oldest chunk.
    pub(in crate::pipeline::backfill) fn position(&self) -> Option<Lsn> {
        self.waiting.front().map(|waiting| waiting.chunk.moment.position)
    }

    /// Whether something waits that was read while the stream was held: each change that comes before
    /// it goes out may have it read in vain.
    pub(in crate::pipeline::backfill) fn has_held(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.is_held)
    }

    /// Judges the oldest chunk, whose position the stream has passed, between two transactions. None
    /// where it is to be read again, with whatever was read behind it.
    ///
    /// # Errors
    /// Why it never comes.
    pub(in crate::pipeline::backfill) fn judge(
        &mut self,
        now: Instant,
    ) -> Result<Option<Release>, Unfit> {
        let Some(Waiting { chunk, asked, .. }) = self.waiting.pop_front() else { return Ok(None) };
        let hidden = self.touches.hidden_from(&chunk.moment.snapshot);
        let places = KeyPlaces(chunk.shape.key.iter().map(|column| column.index).collect());
        let release = match asked {
            Asked::Range(end) => self.judge_range(chunk, end, &places, &hidden)?,
            Asked::Keys(keys) => Some(self.judge_keys(chunk, keys, &places, &hidden)?),
        };
        if release.is_none() {
            self.discard();
            self.pause(now);
        }
        Ok(release)
    }

    /// The rows whose key nobody touched behind the snapshot's back; none where those are too few.
    fn judge_range(
        &self,
        chunk: Chunk,
        end: RangeEnd,
        places: &KeyPlaces,
        hidden: &Hidden,
    ) -> Result<Option<Release>, Unfit> {
        if hidden.is_all() {
            return Ok(None);
        }
        let (mut rows, mut left_out, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = self.outstanding.bytes();
        for (index, row) in chunk.rows.rows().enumerate() {
            let texts = places.of_row(row).ok_or(Unfit::NoText)?;
            let hash = texts.hash(&self.hasher);
            let key = || texts.to_key().ok_or(Unfit::NoText);
            if hidden.contains(hash) {
                let key = key()?;
                bytes += key.bytes();
                left_out.push(key);
                if left_out.len() > self.bounds.outstanding_max
                    || bytes > self.bounds.outstanding_bytes_max
                {
                    return Ok(None);
                }
                continue;
            }
            rows.push(Selected { index, moved_at: None });
            if !self.outstanding.is_empty() {
                let key = key()?;
                if self.outstanding.contains(hash, || key.clone()) {
                    settled.push(key);
                }
            }
        }
        let (asked, vain) = (Asked::Range(end), Vec::new());
        Ok(Some(Release { chunk, rows, asked, left_out, settled, vain }))
    }

    /// Of the rows that were looked for those that nobody touched behind the snapshot's back. One
    /// that is not there is gone; one ahead comes with its range, which is read under a later
    /// snapshot.
    fn judge_keys(
        &self,
        chunk: Chunk,
        keys: Vec<RowKey>,
        places: &KeyPlaces,
        hidden: &Hidden,
    ) -> Result<Release, Unfit> {
        let mut found = BTreeMap::new();
        for (index, row) in chunk.rows.rows().enumerate() {
            let key = key_of(places, row).ok_or(Unfit::NoText)?;
            found.insert(key, (index, RowBlock::is_within_bound(row)));
        }
        let (mut rows, mut settled, mut vain) = (Vec::new(), Vec::new(), Vec::new());
        for key in &keys {
            // It may have come with its range meanwhile.
            let Some(moved_at) = self.outstanding.get(key) else { continue };
            if hidden.contains(key.hash(&self.hasher)) {
                vain.push(key.clone());
                continue;
            }
            if let Some((index, true)) = found.get(key) {
                rows.push(Selected { index: *index, moved_at });
            }
            settled.push(key.clone());
        }
        rows.sort_by_key(|selected: &Selected| selected.index);
        let (asked, left_out) = (Asked::Keys(keys), Vec::new());
        Ok(Release { chunk, rows, asked, left_out, settled, vain })
    }

    /// The rows of a release are on their way. Says whether those were the last ones.
    pub(in crate::pipeline::backfill) fn release(
        &mut self,
        release: Release,
        now: Instant,
    ) -> bool {
        let Release { chunk, rows, asked, left_out, settled, vain } = release;
        let is_in_vain = rows.is_empty() && settled.is_empty() && !vain.is_empty();
        settled.iter().for_each(|key| self.outstanding.remove(key, &self.hasher));
        vain.iter().for_each(|key| self.outstanding.try_again(key));
        for key in left_out {
            self.outstanding.insert(key, None, &self.hasher);
        }
        let record = &mut self.record;
        record.rows += rows.len() as u64;
        match asked {
            Asked::Range(RangeEnd::At(key)) => record.cursor = Some(key.0),
            Asked::Range(RangeEnd::OfTable) => record.is_at_end = true,
            Asked::Range(RangeEnd::Nowhere) | Asked::Keys(_) => {}
        }
        let is_done = record.is_at_end && self.outstanding.is_empty();
        record.state = if is_done { SnapshotState::Done } else { SnapshotState::Running };
        self.is_changed = true;
        // Chunks that were read later have later snapshots, and so has what is under way.
        let oldest = self.waiting.front().map_or(&chunk, |waiting| &waiting.chunk);
        self.touches.forget_shown_by(&oldest.moment.snapshot);
        if is_in_vain {
            self.pause(now);
        } else {
            (self.tries, self.paused_until) = (0, None);
        }
        is_done
    }
}

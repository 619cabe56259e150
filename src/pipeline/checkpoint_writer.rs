//! Encodes checkpoint records: what stays the same for the life of a run, and what a cut changes.

use std::sync::Arc;

use crate::{
    checkpoint::{
        CheckpointKey, CheckpointRecord, Fingerprint, InProgress, LastTransaction, SnapshotRecord,
    },
    lsn::EndLsn,
    sink::Checkpoint,
};

/// Writes one pipeline's checkpoint records.
#[derive(Debug)]
pub(super) struct CheckpointWriter {
    pipeline: CheckpointKey,
    key: Arc<str>,
    record: CheckpointRecord,
}

impl CheckpointWriter {
    /// `record` holds what does not change: source, identity, timeline, publication.
    pub(super) fn new(record: CheckpointRecord) -> Self {
        let pipeline = CheckpointKey {
            system_id: record.system_id.clone(),
            database: record.database.clone(),
            slot: record.slot.clone(),
        };
        Self { key: pipeline.to_string().into(), pipeline, record }
    }

    /// The publication as it is known from here on.
    pub(super) fn set_publication(&mut self, fingerprint: Fingerprint) {
        self.record.publication = fingerprint;
    }

    /// The publication, as it was known last.
    pub(super) fn publication(&self) -> &Fingerprint {
        &self.record.publication
    }

    /// The tables whose snapshot is not finished, from here on.
    pub(super) fn set_snapshots(&mut self, tables: Vec<String>) {
        self.record.snapshots = tables;
    }

    /// The record of a table's snapshot.
    pub(super) fn encode_snapshot(&self, record: &SnapshotRecord) -> Checkpoint {
        let value = serde_json::to_vec(record).expect("texts and numbers always encode");
        Checkpoint { key: self.pipeline.snapshot(&record.table).into(), value }
    }

    /// The record for a cut.
    pub(super) fn encode(
        &mut self,
        commit_end_lsn: EndLsn,
        last: Option<LastTransaction>,
        in_progress: Option<InProgress>,
    ) -> Checkpoint {
        self.record.commit_end_lsn = commit_end_lsn;
        self.record.last = last;
        self.record.in_progress = in_progress;
        if last.is_some() {
            // What comes below the last transaction is skipped in any case.
            self.record.given_up_from = None;
        }
        self.record.written_at = jiff::Timestamp::now().to_string();
        let value = serde_json::to_vec(&self.record).expect("text keys and numbers always encode");
        Checkpoint { key: Arc::clone(&self.key), value }
    }
}

//! Encodes checkpoint records: what stays the same for the life of a run, and what a cut changes.
//!
//! The publication is most of a record where it holds many tables, and is encoded when it changes, not
//! with each cut.

use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};

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
    publication: Fingerprint,
    record: CheckpointRecord<Box<RawValue>>,
}

impl CheckpointWriter {
    /// `record` holds what does not change: source, identity, timeline, publication.
    pub(super) fn new(record: CheckpointRecord) -> Self {
        let pipeline = CheckpointKey {
            system_id: record.system_id.clone(),
            database: record.database.clone(),
            slot: record.slot.clone(),
        };
        let publication = record.publication.clone();
        let record = record.map_publication(|fingerprint| encoded(&fingerprint));
        Self { key: pipeline.to_string().into(), pipeline, publication, record }
    }

    /// The publication as it is known from here on.
    pub(super) fn set_publication(&mut self, fingerprint: Fingerprint) {
        self.record.publication = encoded(&fingerprint);
        self.publication = fingerprint;
    }

    /// The publication, as it was known last.
    pub(super) fn publication(&self) -> &Fingerprint {
        &self.publication
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

fn encoded(fingerprint: &Fingerprint) -> Box<RawValue> {
    to_raw_value(fingerprint).expect("text keys and numbers always encode")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        change::{Oid, RelationId},
        checkpoint::TableFingerprint,
        lsn::Lsn,
    };

    fn of_tables(count: u32) -> Fingerprint {
        let table = |oid| TableFingerprint {
            oid: RelationId(oid),
            member: Some(Oid(oid + 1)),
            schema_member: None,
            since: Some("2026-01-01T00:00:00.000000Z".to_owned()),
        };
        Fingerprint {
            name: "tailwater".to_owned(),
            oid: Oid(9),
            options: "publish = 'insert', publish_via_partition_root = true".to_owned(),
            altered_by: None,
            tables: (0..count)
                .map(|oid| (format!("public.\"t{oid}\""), table(oid)))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn a_written_record_reads_as_the_record_with_the_latest_publication() {
        let at = EndLsn(Lsn::from_wire(0x0150_0000).expect("a position"));
        let record =
            CheckpointRecord { publication: of_tables(2), ..CheckpointRecord::of_first_start(at) };
        let mut writer = CheckpointWriter::new(record.clone());
        let mut read = || -> CheckpointRecord {
            let written = writer.encode(at, None, None);
            let read = serde_json::from_slice(&written.value).expect("a record");
            let whole = serde_json::to_vec(&read).expect("JSON");
            assert_eq!(String::from_utf8_lossy(&written.value), String::from_utf8_lossy(&whole));
            writer.set_publication(of_tables(3));
            read
        };
        assert_eq!(read().publication, of_tables(2));
        assert_eq!(read().publication, of_tables(3));
    }
}

//! A transaction that is being published, or was in part.

use super::super::resume::HistoryError;
use crate::{
    change::{Place, RelationId},
    checkpoint::InProgress,
    lsn::CommitLsn,
    postgres::transaction::{ChangeDigest, ChangeKind},
};

/// How far an open transaction got.
#[derive(Debug)]
pub(super) struct Published {
    /// What is out since before this start: its changes are skipped.
    pub(super) part: Option<InProgress>,
    /// How many of its changes came by.
    pub(super) changes: u64,
    pub(super) events: u64,
    pub(super) digest: ChangeDigest,
    /// Bytes of its events since the last cut inside it.
    pub(super) bytes: usize,
    /// Records of it were handed over without a cut behind them.
    pub(super) is_handed_over: bool,
}

impl Published {
    pub(super) fn new(part: Option<InProgress>) -> Self {
        Self {
            part,
            changes: 0,
            events: part.map_or(0, |part| part.events),
            digest: ChangeDigest::default(),
            bytes: 0,
            is_handed_over: false,
        }
    }

    /// False for a change that is out already. The first one that is not compares what was skipped
    /// with what was published.
    pub(super) fn is_due(&self, place: Place, commit_lsn: CommitLsn) -> Result<bool, HistoryError> {
        match self.part {
            Some(part) if place.ordinal < part.changes => Ok(false),
            Some(part) if place.ordinal == part.changes && self.digest.value() != part.digest => {
                Err(self.changed(commit_lsn, "its first changes are others"))
            }
            Some(_) | None => Ok(true),
        }
    }

    pub(super) fn pass(&mut self, place: Place, kind: ChangeKind, relation: Option<RelationId>) {
        self.digest.add(place.lsn, kind, relation);
        self.changes = place.ordinal + 1;
    }

    pub(super) fn changed(&self, commit_lsn: CommitLsn, what: &'static str) -> HistoryError {
        let changes = self.part.map_or(0, |part| part.changes);
        HistoryError::TransactionChanged { commit_lsn, changes, what }
    }
}

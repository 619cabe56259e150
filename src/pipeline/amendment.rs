//! What is about to be written by hand, for the person who has to agree to it.

use serde::Serialize;

use crate::{
    change::PgTimestamp,
    checkpoint::CheckpointRecord,
    failure::{Code, Failure, Recovery},
    lsn::{EndLsn, Lsn},
};

/// What is done to the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// `init --adopt-slot`: a slot that no checkpoint speaks of gets one.
    AdoptSlot,
    /// `init --adopt-slot`: the checkpoint of another source becomes ours.
    RenameSource,
    /// `reset --to-slot`
    ToSlot,
    /// `reset --to-now`
    ToNow,
    /// `reset --replay-transaction`
    ReplayTransaction,
}

/// A change of the checkpoint, planned or made. Field names are part of the interface.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Amendment {
    /// What is done.
    pub act: Act,
    /// Whether there is anything to do; afterwards, whether it was done.
    pub changed: bool,
    /// The setting `source`.
    pub source: String,
    /// The source that the checkpoint named so far, where it is another one.
    pub former_source: Option<String>,
    /// The slot.
    pub slot: String,
    /// The slot's position.
    pub confirmed_flush_lsn: Lsn,
    /// The position of the former checkpoint; null where there is none.
    pub from_lsn: Option<EndLsn>,
    /// When the former checkpoint was written.
    pub from_written_at: Option<String>,
    /// When the last transaction below the former checkpoint was committed, RFC 3339.
    pub from_committed_at: Option<String>,
    /// The position of the checkpoint that is written.
    pub to_lsn: EndLsn,
    /// What lies in the log from the former position to this one and is never published.
    pub skipped_bytes: u64,
    /// What lies in the log between this position and the former one and is published again.
    pub repeated_bytes: u64,
    /// Events of a transaction that is out in part, which is published again from its first change
    /// if the server still sends it. Whether it does shows only in the stream.
    pub repeated_events: u64,
    /// Events of a transaction that is out in part, whose rest is never published.
    pub torn_events: u64,
}

impl Amendment {
    /// From one checkpoint, or from none, to another.
    pub(super) fn new(
        act: Act,
        before: Option<&CheckpointRecord>,
        after: &CheckpointRecord,
        confirmed_flush: Lsn,
    ) -> Self {
        let from_lsn = before.map(|record| record.commit_end_lsn);
        let to_lsn = after.commit_end_lsn;
        let bytes = |from: EndLsn, to: EndLsn| to.lsn().bytes_since(from.lsn());
        let part = before.and_then(|record| record.in_progress);
        let part = part.filter(|_| after.in_progress.is_none());
        let out = part.map_or(0, |part| part.events);
        let is_behind = part.is_some_and(|part| part.commit_lsn.lsn() < to_lsn.lsn());
        Self {
            act,
            changed: before.is_none_or(|before| is_changed(before, after)),
            source: after.source.clone(),
            former_source: before
                .map(|record| record.source.clone())
                .filter(|source| *source != after.source),
            slot: after.slot.clone(),
            confirmed_flush_lsn: confirmed_flush,
            from_lsn,
            from_written_at: before.map(|record| record.written_at.clone()),
            from_committed_at: before
                .and_then(|record| record.last)
                .and_then(|last| instant(PgTimestamp(last.commit_time))),
            to_lsn,
            skipped_bytes: from_lsn.map_or(0, |from| bytes(from, to_lsn)),
            repeated_bytes: from_lsn.map_or(0, |from| bytes(to_lsn, from)),
            repeated_events: if is_behind { 0 } else { out },
            torn_events: if is_behind { out } else { 0 },
        }
    }
}

/// Whether a start would see a difference.
fn is_changed(before: &CheckpointRecord, after: &CheckpointRecord) -> bool {
    let written_at = before.written_at.clone();
    *before != CheckpointRecord { written_at, ..after.clone() }
}

fn instant(at: PgTimestamp) -> Option<String> {
    let instant = jiff::Timestamp::from_microsecond(at.unix_microseconds()).ok()?;
    Some(instant.to_string())
}

/// Nobody agreed to what would have been written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotConfirmed {
    /// Nobody can be asked.
    #[error("not confirmed: standard input is no terminal, and --yes was not given")]
    NobodyToAsk,
    /// The answer was not yes.
    #[error("not confirmed: nothing was changed")]
    Declined,
}

impl Failure for NotConfirmed {
    fn code(&self) -> Option<Code> {
        match self {
            // Of the command line, which is the nearest.
            Self::NobodyToAsk => Some(Code::Settings),
            Self::Declined => None,
        }
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NobodyToAsk => "Nothing was changed. Read above what would be done, and run it \
                                  again with --yes."
                .to_owned(),
            Self::Declined => "Run it again and answer yes, or give --yes.".to_owned(),
        })
    }
}

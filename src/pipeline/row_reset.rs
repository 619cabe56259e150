//! `reset --snapshot`: the rows that a table has are due anew.
//!
//! One Kafka transaction holds the table's record and a checkpoint that names it, written with the slot
//! in hand and after the fence, like every reset: before it everything is as it was, after it the next
//! start, or the stream of that start, publishes all rows, for another request and so under other ids.
//! What rows that are out contain of the stream stays left out of it, until other rows contain it.

use serde::Serialize;

use super::{
    backfill::due,
    continuity,
    judgement::{judge_checkpoint, within_history},
    reset::take_checkpoint,
    settings::Settings,
    shutdown::Shutdown,
    start::{Failed, blocking},
    writing_by_hand::WritingByHand,
};
use crate::{
    checkpoint::{CheckpointRecord, SnapshotRecord, SnapshotState, store::Store},
    failure::{Code, Failure, Recovery},
    postgres::TableName,
};

/// What is about to be written for a table's rows, or was. Field names are part of the interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RowReset {
    /// `snapshot`.
    pub act: &'static str,
    /// Whether it was done, or is to be.
    pub changed: bool,
    /// The setting `source`.
    pub source: String,
    /// The slot.
    pub slot: String,
    /// `schema.table`.
    pub table: String,
    /// How far its rows were; null where none were ever asked for.
    pub state: Option<SnapshotState>,
    /// Why the rest of them never came, where that is so.
    pub failure: Option<String>,
    /// How many rows are known to be out, and come again under other ids.
    pub repeated_rows: u64,
}

/// A table of which there are no rows to begin anew with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowResetError {
    /// It is an outbox.
    #[error("{table} is an outbox: what it holds comes by the stream alone")]
    Outbox {
        /// `schema.table`.
        table: String,
    },
    /// No section is about it.
    #[error("no [[table]] has table \"{table}\"")]
    NotConfigured {
        /// As it was asked for.
        table: String,
    },
    /// A pattern matches it, and the publication lacks it.
    #[error("table {table} does not exist, or is not published")]
    NotPublished {
        /// `schema.table`.
        table: String,
    },
}

impl Failure for RowResetError {
    fn code(&self) -> Option<Code> {
        Some(Code::Settings)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Outbox { table } => format!(
                "Nothing was changed. Rows that are to be published again can be inserted into {table} \
                 anew; those of a poller are taken over by tailwater init --take-over, before the first \
                 start."
            ),
            Self::NotConfigured { .. } => {
                "Nothing was changed. Name the table as its [[table]] does: \
                                           schema.table, without quotes."
                    .to_owned()
            }
            Self::NotPublished { .. } => {
                "Nothing was changed. Run tailwater check, which says what is published.".to_owned()
            }
        })
    }
}

/// Has all rows of a table published anew, if `confirm` agrees to what it is told.
///
/// # Errors
/// [`RowResetError`]; where there is no slot, no checkpoint or somebody else's, where somebody holds
/// the slot, where `run` would refuse the checkpoint too; and that of `confirm`.
pub(super) async fn reset(
    settings: &Settings,
    shutdown: &Shutdown,
    table: &str,
    writing: &WritingByHand,
    confirm: impl AsyncFn(&RowReset) -> Result<(), Failed>,
) -> Result<RowReset, Failed> {
    judge_table(settings, table)?;
    let (mut held, before) = take_checkpoint(settings, shutdown).await?;
    judge_checkpoint(&held.ground, Some(held.confirmed_flush), &before).await?;
    let publication = continuity::describe(settings, &held.ground.sql).await??;
    let Some(published) = publication.tables.get(table) else {
        return Err(RowResetError::NotPublished { table: table.to_owned() }.into());
    };
    let store = Store::open(&held.kafka)?;
    let (key, name) = (held.ground.key.clone(), table.to_owned());
    let reading = blocking(move || Ok(store.read_snapshot(&key, &name)?));
    let former = held.keep(reading).await?;
    let reset = RowReset {
        act: "snapshot",
        changed: true,
        source: settings.source.clone(),
        slot: settings.slot.to_string(),
        table: table.to_owned(),
        state: former.as_ref().map(|record| record.state),
        failure: former.as_ref().and_then(|record| record.failure.clone()),
        repeated_rows: former.as_ref().map_or(0, |record| record.rows),
    };
    held.keep(confirm(&reset)).await?;
    let contained = match former.and_then(|record| record.contained) {
        Some(contained) => within_history(&held.ground, contained).await?,
        None => None,
    };
    // All of its rows, whatever somebody asked for last.
    let due =
        SnapshotRecord { contained, ..due::record(&settings.source, table, published.oid, None) };
    let written_at = jiff::Timestamp::now().to_string();
    let mut record = CheckpointRecord { written_at, ..before };
    if !record.snapshots.contains(&due.table) {
        record.snapshots.push(due.table.clone());
    }
    held.write_with_rows(&record, &[due], writing).await?;
    Ok(reset)
}

/// Whether rows of that table can be asked for.
fn judge_table(settings: &Settings, table: &str) -> Result<(), RowResetError> {
    let not_configured = || RowResetError::NotConfigured { table: table.to_owned() };
    let name = TableName::try_from(table.to_owned()).map_err(|_| not_configured())?;
    if settings.event.outbox(&name.schema, &name.name).is_some() {
        return Err(RowResetError::Outbox { table: table.to_owned() });
    }
    settings.event.table(&name.schema, &name.name).map(drop).ok_or_else(not_configured)
}

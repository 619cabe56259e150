//! `retention`: old rows of outbox tables are deleted, beside the stream, on a connection of their
//! own.
//!
//! A row goes once it is published, which each statement that deletes asks of the server: the slot
//! has passed everything that was committed at an earlier look, and is held by the walsender of this
//! very attempt (`postgres::old_rows`). A daemon that is behind, or that was paused while somebody
//! else went on, deletes nothing. Of an outbox only inserts count, so a deletion becomes no event.
//!
//! What the slot has passed without publishing must stay: rows whose inserts are not in its stream.
//! That is what was there before the pipeline began, or before its table was in the publication, or
//! while the publication was another one. The checkpoint says when each was, by the server's clock,
//! asked for after the slot, or the publication, was there as it is; where it does not say it, as of
//! an earlier version, it does from the next start on. `reset` moves the pipeline's to its own time:
//! what was skipped is only in the table. The publication is looked at between the look at the log
//! and the deletion, so that a change of it shows before a row of it goes. One that delivers a part
//! of a table's rows is refused, because the others are somebody else's.
//!
//! A delete that fails is warned of and tried again. Nothing of this stops the stream.

use std::time::Duration;

use tokio::{task::JoinHandle, time::sleep};
use tracing::{debug, warn};

use super::{
    continuity,
    settings::{Retention, Settings},
    start::Failed,
};
use crate::{
    change::Oid,
    checkpoint::{CheckpointRecord, Fingerprint},
    event::{ColumnProblem, EventError},
    failure::{Code, Failure, Recovery},
    postgres::{
        PostgresError, PublicationName, TableName, catalog, diagnosis,
        old_rows::{Deletion, Horizon, OldRows, Publisher},
        snapshot,
        sql::Sql,
    },
};

/// How many rows one transaction deletes: some milliseconds of the server's time.
const BATCH_ROWS: i64 = 1_000;

/// Between two of them: the server is the application's.
const BATCH_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked for old rows, where they stay for an hour or longer.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// And at most.
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(1);

// Types by their OIDs, under the names of pg_type_d.h.
const TIMESTAMPOID: Oid = Oid(1114);
const TIMESTAMPTZOID: Oid = Oid(1184);

/// A retention would delete rows that are not ours to publish.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "outbox table \"{table}\" has a retention, and publication \"{publication}\" delivers only its \
     rows with {filter}: the others would be deleted, whoever publishes them"
)]
pub struct FilteredTable {
    /// The table.
    table: TableName,
    /// The publication.
    publication: PublicationName,
    /// Its row filter.
    filter: String,
}

impl Failure for FilteredTable {
    fn code(&self) -> Option<Code> {
        Some(Code::Settings)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        let table = &self.table;
        Some(format!(
            "Take retention out of the [[outbox]] of {table} and delete old rows by a job of your \
             own; or let the publication deliver all rows of {table}."
        ))
    }
}

/// Whether each table with a retention has the column that says how old a row is, and comes whole.
///
/// # Errors
/// [`EventError::Column`] where it has not, or of another type; [`FilteredTable`] where the
/// publication has a row filter; or where the server does not answer.
pub(super) async fn check(settings: &Settings, sql: &Sql) -> Result<(), Failed> {
    for Retention { table, created_at, .. } in &settings.retentions {
        let publication = &settings.publication;
        if let Some(filter) = diagnosis::row_filter(sql, publication, table).await? {
            let (table, publication) = (table.clone(), publication.clone());
            return Err(FilteredTable { table, publication, filter }.into());
        }
        let role = "columns.created_at".to_owned();
        let problem = match catalog::column_type(sql, table, created_at).await? {
            Some(TIMESTAMPOID | TIMESTAMPTZOID) => continue,
            Some(type_oid) => {
                ColumnProblem::Type { type_oid, role, expected: "timestamptz or timestamp" }
            }
            None => ColumnProblem::Missing { role },
        };
        let (table, column) = (table.to_string(), created_at.clone());
        return Err(EventError::Column { table, column, problem }.into());
    }
    Ok(())
}

/// Deletes old rows until it is dropped.
#[derive(Debug)]
pub(super) struct RetentionTask(JoinHandle<()>);

impl RetentionTask {
    /// None where every row stays. `walsender` is the server's process that serves the stream.
    pub(super) fn start(
        settings: &Settings,
        checkpoint: &CheckpointRecord,
        walsender: Option<i32>,
    ) -> Option<Self> {
        let begun_at = checkpoint.begun_at.clone()?;
        let shortest = settings.retentions.iter().map(|retention| retention.age).min()?;
        let Some(walsender) = walsender else {
            warn!("the server does not name the process that serves the stream; old rows stay");
            return None;
        };
        let deleting = Deleting {
            settings: settings.clone(),
            walsender,
            begun_at,
            publication: checkpoint.publication.clone(),
            horizon: None,
            interval: (shortest / 60).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX),
        };
        Some(Self(tokio::spawn(deleting.run())))
    }
}

impl Drop for RetentionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Deleting {
    settings: Settings,
    walsender: i32,
    begun_at: String,
    /// As of the last look.
    publication: Fingerprint,
    /// What was over at an earlier look; kept until the slot has passed it.
    horizon: Option<Horizon>,
    interval: Duration,
}

impl Deleting {
    async fn run(mut self) {
        let mut connection: Option<Sql> = None;
        loop {
            // First of all: whatever is wrong with this start shows before anything is deleted.
            sleep(self.interval).await;
            let sql = match connection.take().filter(|sql| !sql.is_closed()) {
                Some(sql) => Ok(sql),
                None => Sql::connect(&self.settings.postgres).await,
            };
            match sql {
                Ok(sql) => {
                    if let Err(error) = self.look(&sql).await {
                        debug!(%error, "could not look for old rows; trying again");
                    }
                    connection = Some(sql);
                }
                Err(error) => debug!(%error, "could not connect to delete old rows; trying again"),
            }
        }
    }

    /// Deletes what is published by the horizon of an earlier look, then takes another one.
    async fn look(&mut self, sql: &Sql) -> Result<(), PostgresError> {
        if let Some(horizon) = self.horizon.clone() {
            let settings = &self.settings;
            // A refusal is the watch's to tell; it ends the stream.
            let Ok(now) = continuity::describe(settings, sql).await? else {
                return Ok(());
            };
            self.publication = continuity::date(sql, &self.publication, now).await?;
            if !self.delete_all(sql, &horizon).await {
                return Ok(());
            }
        }
        self.horizon = Some(Horizon::now(sql).await?);
        Ok(())
    }

    /// False where the slot has not passed the horizon.
    async fn delete_all(&self, sql: &Sql, horizon: &Horizon) -> bool {
        let mut is_published = true;
        for retention in &self.settings.retentions {
            let Some(since) = self.since(&retention.table) else { continue };
            let table = &retention.table;
            match self.delete(sql, retention, since, horizon).await {
                Ok(Deletion::Rows(0)) => {}
                Ok(Deletion::Rows(rows)) => debug!(%table, rows, "deleted old rows"),
                Ok(Deletion::NotPublished) => {
                    debug!(%table, "old rows stay: the slot is not past them yet");
                    is_published = false;
                }
                Ok(Deletion::NotHeld) => {
                    let process_id = self.walsender;
                    warn!(%table, process_id, "old rows stay: our process does not hold the slot");
                    is_published = false;
                }
                Err(error) => {
                    let (hint, error) = (error.hint().unwrap_or_default(), super::chain(&error));
                    warn!(%table, error, hint, "could not delete old rows; trying again");
                }
            }
        }
        is_published
    }

    /// Since when inserts of the table are in the stream; none where it is not known.
    fn since(&self, table: &TableName) -> Option<&str> {
        let since = self.publication.tables.get(&table.to_string())?.since.as_deref()?;
        // Both as `catalog::now` writes them, in the order of their texts.
        Some(since.max(&self.begun_at))
    }

    async fn delete(
        &self,
        sql: &Sql,
        retention: &Retention,
        since: &str,
        horizon: &Horizon,
    ) -> Result<Deletion, PostgresError> {
        let Retention { table, id, created_at, age } = retention;
        let is_partitioned = snapshot::is_partitioned(sql, table).await?;
        let old = OldRows { table, is_partitioned, id, created_at, since, age: *age };
        let publisher = Publisher { slot: &self.settings.slot, process_id: self.walsender };
        let mut all = 0;
        loop {
            match old.delete(sql, publisher, horizon, BATCH_ROWS).await? {
                Deletion::Rows(0) => return Ok(Deletion::Rows(all)),
                Deletion::Rows(rows) => all += rows,
                kept => return Ok(kept),
            }
            sleep(BATCH_PAUSE).await;
        }
    }
}

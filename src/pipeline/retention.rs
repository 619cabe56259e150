//! `retention`: old rows of outbox tables are deleted, beside the stream, on a connection of their
//! own.
//!
//! The log has a row from its insert on, so its deletion takes nothing from Kafka, however far
//! behind the stream is; and of an outbox only inserts count, so it becomes no event. What it must
//! not take is a row whose insert is not in the slot's stream: none that was made before the
//! pipeline began. The checkpoint says when that was, by the server's clock, asked for when the
//! slot was there; a checkpoint that does not say it, of an earlier version, says so from the next
//! start on. `reset` moves it to its own time: what was skipped is only in the table.
//!
//! A delete that fails is warned of and tried again. Nothing of this stops the stream.

use std::time::Duration;

use tokio::{task::JoinHandle, time::sleep};
use tracing::{debug, warn};

use super::{
    settings::{Retention, Settings},
    start::Failed,
};
use crate::{
    change::Oid,
    checkpoint::CheckpointRecord,
    event::{ColumnProblem, EventError},
    failure::Failure as _,
    postgres::{self, PostgresError, catalog, old_rows::OldRows, snapshot, sql::Sql},
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

/// Whether each table with a retention has the column that says how old a row is.
///
/// # Errors
/// [`EventError::Column`] where it has not, or of another type; or where the server does not
/// answer.
pub(super) async fn check(settings: &Settings, sql: &Sql) -> Result<(), Failed> {
    for Retention { table, created_at, .. } in &settings.retentions {
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
    /// None where every row stays.
    pub(super) fn start(settings: &Settings, checkpoint: &CheckpointRecord) -> Option<Self> {
        let since = checkpoint.begun_at.clone()?;
        let shortest = settings.retentions.iter().map(|retention| retention.age).min()?;
        let deleting = Deleting {
            postgres: settings.postgres.clone(),
            retentions: settings.retentions.clone(),
            since,
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
    postgres: postgres::Settings,
    retentions: Vec<Retention>,
    since: String,
    interval: Duration,
}

impl Deleting {
    async fn run(self) {
        let mut connection: Option<Sql> = None;
        loop {
            // First of all: whatever is wrong with this start shows before anything is deleted.
            sleep(self.interval).await;
            let sql = match connection.take().filter(|sql| !sql.is_closed()) {
                Some(sql) => Ok(sql),
                None => Sql::connect(&self.postgres).await,
            };
            match sql {
                Ok(sql) => {
                    self.delete_all(&sql).await;
                    connection = Some(sql);
                }
                Err(error) => debug!(%error, "could not connect to delete old rows; trying again"),
            }
        }
    }

    async fn delete_all(&self, sql: &Sql) {
        for retention in &self.retentions {
            match self.delete(sql, retention).await {
                Ok(0) => {}
                Ok(rows) => debug!(table = %retention.table, rows, "deleted old rows"),
                Err(error) => {
                    let (hint, error) = (error.hint().unwrap_or_default(), super::chain(&error));
                    warn!(
                        table = %retention.table,
                        error,
                        hint,
                        "could not delete old rows; trying again"
                    );
                }
            }
        }
    }

    async fn delete(&self, sql: &Sql, retention: &Retention) -> Result<u64, PostgresError> {
        let Retention { table, id, created_at, age } = retention;
        let (age, since) = (*age, self.since.as_str());
        let is_partitioned = snapshot::is_partitioned(sql, table).await?;
        let old = OldRows { table, is_partitioned, id, created_at, since, age };
        let mut all = 0;
        loop {
            let rows = old.delete(sql, BATCH_ROWS).await?;
            all += rows;
            if rows == 0 {
                return Ok(all);
            }
            sleep(BATCH_PAUSE).await;
        }
    }
}

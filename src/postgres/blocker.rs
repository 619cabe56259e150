//! Open transactions, whose end something waits for.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio_postgres::types::ToSql;

use super::{PostgresError, sql::Sql};

/// A transaction that something waits for the end of: a slot's creation, or reading a table. What the server does not tell this role of
/// other roles' processes is empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Blocker {
    /// One that a process has open.
    Open {
        /// Its server process.
        pid: i32,
        /// The database.
        database: String,
        /// The application's name.
        application: String,
        /// When the transaction began, in UTC.
        since: String,
    },
    /// One that was prepared for a two-phase commit; no process has it.
    Prepared {
        /// Its name, for COMMIT PREPARED or ROLLBACK PREPARED.
        name: String,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, known) = match self {
            Self::Prepared { name } => {
                return write!(formatter, "the prepared transaction \"{name}\"");
            }
            Self::Open { pid, database, application, since } => {
                let known =
                    [("application ", application), ("database ", database), ("since ", since)];
                (pid, known)
            }
        };
        write!(formatter, "the transaction of process {pid}")?;
        let known: Vec<String> = known
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}{value}"))
            .collect();
        match known.is_empty() {
            true => Ok(()),
            false => write!(formatter, " ({})", known.join(", ")),
        }
    }
}

/// Transactions that a slot's creation waits for: every one, in any database, that has written.
///
/// # Errors
/// Where the connection breaks.
pub async fn of_slot_creation(sql: &Sql) -> Result<Vec<Blocker>, PostgresError> {
    look_up(sql, "true", &[]).await
}

/// Those below a transaction identifier (`xid8`, as text) that have not ended.
///
/// # Errors
/// Where the connection breaks.
pub(super) async fn below(sql: &Sql, bound: &str) -> Result<Vec<Blocker>, PostgresError> {
    const IS_BELOW: &str = "EXISTS (SELECT FROM pg_snapshot_xip(pg_current_snapshot()) AS x \
        WHERE x < $1::text::xid8 AND x::xid = l.transactionid)";
    look_up(sql, IS_BELOW, &[&bound]).await
}

/// Some of them, the oldest first as far as that is known.
async fn look_up(
    sql: &Sql,
    condition: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Blocker>, PostgresError> {
    // A transaction holds the lock on its own number from its first write to its end, which every
    // role may see, unlike pg_stat_activity.backend_xid. A prepared one has no process.
    let statement = format!(
        "SELECT DISTINCT l.pid, coalesce(a.datname::text, ''), \
         coalesce(a.application_name, ''), \
         coalesce(to_char(a.xact_start, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), ''), \
         coalesce(p.gid, '') \
         FROM pg_locks l \
         LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
         LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND p.transaction = l.transactionid \
         WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted \
         AND l.pid IS DISTINCT FROM pg_backend_pid() AND {condition} \
         ORDER BY 4, 1, 5 LIMIT 5"
    );
    let rows = sql.rows("look for open transactions", &statement, parameters).await?;
    let blocker = |row: &tokio_postgres::Row| match row.get(0) {
        Some(pid) => {
            Blocker::Open { pid, database: row.get(1), application: row.get(2), since: row.get(3) }
        }
        None => Blocker::Prepared { name: row.get(4) },
    };
    Ok(rows.iter().map(blocker).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocker_is_named_with_what_is_known_of_it() {
        let open = |application: &str, since: &str| Blocker::Open {
            pid: 42,
            database: String::new(),
            application: application.to_owned(),
            since: since.to_owned(),
        };
        assert_eq!(open("", "").to_string(), "the transaction of process 42");
        assert_eq!(
            open("psql", "2026-03-01T12:00:00Z").to_string(),
            "the transaction of process 42 (application psql, since 2026-03-01T12:00:00Z)"
        );
        let prepared = Blocker::Prepared { name: "transfer-7".to_owned() };
        assert_eq!(prepared.to_string(), "the prepared transaction \"transfer-7\"");
    }
}

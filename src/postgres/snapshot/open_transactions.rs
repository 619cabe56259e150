//! Who must have ended before a snapshot is to be relied on, and where the log has everything that a
//! snapshot shows.

use super::Snapshot;
use crate::{
    lsn::Lsn,
    postgres::{Blocker, PostgresError, blocker, sql::Sql},
};

/// The prefix of the message that marks a place in the log.
const MARK_PREFIX: &str = "tailwater.mark";

/// Marks a place in the log behind everything that any snapshot shows by now, and has the log
/// written up to it.
///
/// # Errors
/// Where the connection breaks.
pub async fn mark(sql: &Sql) -> Result<Lsn, PostgresError> {
    // A message of its own transaction: the commit flushes the log, also where commits that are
    // visible already did not wait for that. It must not wait for standbys.
    const SQL: &str = "SELECT pg_logical_emit_message(true, $1, '')::text";
    const ACTION: &str = "mark a place in the log";
    sql.execute(ACTION, "SET synchronous_commit = local").await?;
    let rows = sql.rows(ACTION, SQL, &[&MARK_PREFIX]).await?;
    let text: Option<&str> = rows.first().map(|row| row.get(0));
    let unreadable = || PostgresError::Protocol { what: "no position came for a mark".to_owned() };
    text.and_then(|text| text.parse().ok()).ok_or_else(unreadable)
}

/// Transactions that are open at a moment: whether they have ended since.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenTransactions {
    /// The identifier of a transaction that began and ended after all of them had theirs.
    bound: String,
}

impl OpenTransactions {
    /// Those of now. Takes a transaction identifier, so the server must be no standby.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn of_now(sql: &Sql) -> Result<Self, PostgresError> {
        // A snapshot's xmax bounds only what has ended: an open transaction above every ended one
        // is not below it. An identifier of our own is above all that were given away, and its
        // transaction is over with the statement: its commit must not wait for standbys.
        const SQL: &str = "SELECT pg_current_xact_id()::text";
        const ACTION: &str = "ask for the open transactions";
        sql.execute(ACTION, "SET synchronous_commit = local").await?;
        let rows = sql.rows(ACTION, SQL, &[]).await?;
        let unreadable =
            || PostgresError::Protocol { what: "no transaction identifier".to_owned() };
        let bound = rows.first().map(|row| row.get(0)).ok_or_else(unreadable)?;
        Ok(Self { bound })
    }

    /// Whether every one of them has ended, so that any later snapshot shows what it committed.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn have_ended(&self, sql: &Sql) -> Result<bool, PostgresError> {
        self.look(sql).await.map(|look| look.have_ended)
    }

    /// The same, with what a snapshot of now shows.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn look(&self, sql: &Sql) -> Result<Look, PostgresError> {
        const SQL: &str = "SELECT pg_snapshot_xmin(now) > $1::text::xid8, now::text \
            FROM pg_current_snapshot() now";
        let rows = sql.rows("ask for the open transactions", SQL, &[&self.bound]).await?;
        let look = rows.first().and_then(|row| {
            Some(Look { have_ended: row.get(0), snapshot: Snapshot::parse(row.get(1))? })
        });
        look.ok_or_else(|| PostgresError::Protocol { what: "no snapshot came".to_owned() })
    }

    /// Some of those that have not ended.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn blockers(&self, sql: &Sql) -> Result<Vec<Blocker>, PostgresError> {
        blocker::below(sql, &self.bound).await
    }
}

/// How open transactions are found at a later moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// Whether every one of them has ended.
    pub have_ended: bool,
    /// What every later snapshot shows too.
    pub snapshot: Snapshot,
}

#[cfg(test)]
impl OpenTransactions {
    /// Those of a test.
    pub(crate) fn below(bound: u64) -> Self {
        Self { bound: bound.to_string() }
    }
}

//! Replication slots, as `pg_replication_slots` has them.

use std::fmt;

use serde::Serialize;

use super::{PostgresError, SlotName, sql::Sql};
use crate::lsn::{EndLsn, Lsn};

/// A slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// The output plugin; none for a physical slot.
    pub plugin: Option<String>,
    /// The database of a logical slot.
    pub database: Option<String>,
    /// The process that holds it.
    pub active_pid: Option<i32>,
    /// Below this nothing is sent any more.
    pub confirmed_flush: Option<Lsn>,
    /// From here on the server keeps WAL for it.
    pub restart: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Why it was invalidated (17 and later).
    pub invalidation_reason: Option<String>,
}

impl Slot {
    /// Why the slot can no longer be read, where that is so.
    pub fn invalidation(&self) -> Option<String> {
        let is_lost = self.wal_status.as_deref() == Some("lost");
        let reason =
            || self.invalidation_reason.clone().unwrap_or_else(|| "wal_removed".to_owned());
        (is_lost || self.invalidation_reason.is_some()).then(reason)
    }
}

/// A transaction that keeps a slot from being created. What the server does not tell this role of
/// other roles' processes is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Blocker {
    /// One that a process has open.
    Open {
        /// Its server process.
        pid: i32,
        /// The database.
        database: String,
        /// The application's name.
        application: String,
        /// When the transaction began.
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

/// Who holds a slot. What the server does not tell this role of other roles' processes is empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Holder {
    /// The walsender's process on the server.
    pub pid: i32,
    /// The application's name.
    pub application: String,
    /// Where it is connected from; empty for a unix socket.
    pub address: String,
    /// Since when.
    pub since: String,
}

/// Looks up who holds a slot; none where nobody does, or there is no such slot.
///
/// # Errors
/// Where the connection breaks.
pub async fn holder(sql: &Sql, slot: &SlotName) -> Result<Option<Holder>, PostgresError> {
    const SQL: &str = "SELECT s.active_pid, coalesce(a.application_name, ''), \
        coalesce(host(a.client_addr), ''), \
        coalesce(to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '') \
        FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid \
        WHERE s.slot_name = $1 AND s.active_pid IS NOT NULL";
    let action = format!("look up who holds replication slot \"{slot}\"");
    let rows = sql.rows(&action, SQL, &[&slot.as_str()]).await?;
    Ok(rows.first().map(|row| Holder {
        pid: row.get(0),
        application: row.get(1),
        address: row.get(2),
        since: row.get(3),
    }))
}

/// Looks a slot up; none where it does not exist.
///
/// # Errors
/// Where the connection breaks.
pub async fn describe(sql: &Sql, slot: &SlotName) -> Result<Option<Slot>, PostgresError> {
    // The row as JSON, because invalidation_reason exists from 17 on only.
    const SQL: &str = "SELECT plugin::text, database::text, active_pid, \
        confirmed_flush_lsn::text, wal_status, to_jsonb(s) ->> 'invalidation_reason', \
        restart_lsn::text \
        FROM pg_replication_slots s WHERE slot_name = $1";
    let action = format!("look up replication slot \"{slot}\"");
    let rows = sql.rows(&action, SQL, &[&slot.as_str()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let lsn = |column| row.get::<_, Option<String>>(column).and_then(|text| text.parse().ok());
    Ok(Some(Slot {
        plugin: row.get(0),
        database: row.get(1),
        active_pid: row.get(2),
        confirmed_flush: lsn(3),
        restart: lsn(6),
        wal_status: row.get(4),
        invalidation_reason: row.get(5),
    }))
}

/// Moves a slot that nobody holds up to a position; one that is past it stays where it is.
///
/// # Errors
/// Where somebody holds it (55006), or the connection breaks.
pub async fn advance(sql: &Sql, slot: &SlotName, to: EndLsn) -> Result<(), PostgresError> {
    // The server refuses to go back.
    const SQL: &str = "SELECT CASE WHEN confirmed_flush_lsn < $2::text::pg_lsn \
        THEN (pg_replication_slot_advance(slot_name, $2::text::pg_lsn)).end_lsn::text END \
        FROM pg_replication_slots WHERE slot_name = $1";
    let action = format!("advance replication slot \"{slot}\" to {to}");
    sql.rows(&action, SQL, &[&slot.as_str(), &to.to_string()]).await.map(drop)
}

/// Transactions that a slot's creation waits for: every one, in any database, that has written.
///
/// # Errors
/// Where the connection breaks.
pub async fn creation_blockers(sql: &Sql) -> Result<Vec<Blocker>, PostgresError> {
    // A transaction holds the lock on its own number from its first write to its end, which every
    // role may see, unlike pg_stat_activity.backend_xid. A prepared one has no process.
    const SQL: &str = "SELECT DISTINCT l.pid, coalesce(a.datname::text, ''), \
        coalesce(a.application_name, ''), \
        coalesce(to_char(a.xact_start, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), ''), \
        coalesce(p.gid, '') \
        FROM pg_locks l \
        LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
        LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND p.transaction = l.transactionid \
        WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted \
        AND l.pid IS DISTINCT FROM pg_backend_pid() \
        ORDER BY 4 LIMIT 5";
    let rows = sql.rows("look for open transactions", SQL, &[]).await?;
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

//! Replication slots, as `pg_replication_slots` has them.

use serde::Serialize;

use super::{PostgresError, SlotName, sql::Sql};
use crate::lsn::{EndLsn, Lsn};

/// A slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// The output plugin; none for a physical slot, and empty for a moment while it is being made.
    pub plugin: Option<String>,
    /// The database of a logical slot.
    pub database: Option<String>,
    /// The process that holds it.
    pub active_pid: Option<i32>,
    /// Below this nothing is sent any more; none for a logical slot that is being made.
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

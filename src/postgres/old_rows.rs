//! Old rows of a table, deleted in small batches, and only those whose inserts are published.
//!
//! What is published is shown by the server alone: it moves a slot to where its holder says that
//! everything is durable elsewhere. So a [`Horizon`] is taken first: the end of the log, after a
//! snapshot. A row that is visible, and whose transaction was over in that snapshot, has its commit
//! record below that end; once the slot has passed it, in the hand of the process that we know, the
//! row is published. Each batch asks for that in the statement that deletes.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::{
    PostgresError, SlotName, TableName, catalog::no_row, name::quote_identifier, sql::Sql,
};

/// A moment, by what was over in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Horizon {
    /// Every transaction with a lower number was over; 64 bits.
    oldest_xid: i64,
    /// Every commit record that was seen lies below: an LSN as text.
    wal_end: String,
}

impl Horizon {
    /// This moment.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn now(sql: &Sql) -> Result<Self, PostgresError> {
        // The snapshot is taken before any expression is evaluated. The insert position, because
        // with synchronous_commit = off a commit is seen before it is flushed.
        const SQL: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, \
            pg_current_wal_insert_lsn()::text";
        let action = "ask for the end of the log and the oldest transaction";
        let rows = sql.rows(action, SQL, &[]).await?;
        let row = rows.first().ok_or_else(|| no_row("the end of the log"))?;
        Ok(Self { oldest_xid: row.get(0), wal_end: row.get(1) })
    }
}

/// Who publishes: the slot, and the process on the server that must hold it.
#[derive(Clone, Copy, Debug)]
pub struct Publisher<'a> {
    /// The slot.
    pub slot: &'a SlotName,
    /// The walsender.
    pub process_id: i32,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deletion {
    /// So many rows are gone.
    Rows(u64),
    /// None: the slot has not passed the horizon.
    NotPublished,
    /// None: somebody else holds the slot, or nobody.
    NotHeld,
}

/// Which rows are old.
#[derive(Clone, Copy, Debug)]
pub struct OldRows<'a> {
    /// The table.
    pub table: &'a TableName,
    /// Its rows are those of its partitions.
    pub is_partitioned: bool,
    /// Its key.
    pub id: &'a str,
    /// When a row was made.
    pub created_at: &'a str,
    /// None that was made before this instant, RFC 3339.
    pub since: &'a str,
    /// None that is younger, by the server's clock.
    pub age: Duration,
}

impl OldRows<'_> {
    /// Deletes the oldest of them that `publisher` has published by `horizon`, `most` at most, in
    /// one transaction.
    ///
    /// # Errors
    /// Where the server refuses, somebody holds a row for too long, or the connection breaks.
    pub async fn delete(
        &self,
        sql: &Sql,
        publisher: Publisher<'_>,
        horizon: &Horizon,
        most: i64,
    ) -> Result<Deletion, PostgresError> {
        let seconds = i64::try_from(self.age.as_secs()).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &self.since,
            &seconds,
            &most,
            &horizon.oldest_xid,
            &publisher.slot.as_str(),
            &publisher.process_id,
            &horizon.wal_end,
        ];
        let action = format!("delete old rows of table {}", self.table);
        let rows = sql.rows(&action, self.sql().as_str(), &parameters).await?;
        let Some(row) = rows.first() else { return Ok(Deletion::NotHeld) };
        Ok(match (row.get(1), row.get(2)) {
            (false, _) => Deletion::NotHeld,
            (true, false) => Deletion::NotPublished,
            (true, true) => Deletion::Rows(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0)),
        })
    }

    /// A column of type `timestamp` is compared as UTC, which the session's time zone is.
    fn sql(&self) -> String {
        // Rows of a child table are published under its own name, and none of our business.
        let only = if self.is_partitioned { "" } else { "ONLY " };
        let table = format!("{only}{}", self.table.quoted());
        let (id, at) = (quote_identifier(self.id), quote_identifier(self.created_at));
        // A visible row of a number that is not between the horizon's and the present's is of
        // before the horizon: rows show 32 bits, also of transactions that are long frozen. Numbers
        // of subtransactions are higher than that of their transaction, so they hold as well.
        let is_old = format!(
            "{at} >= $1::text::timestamptz AND {at} < now() - make_interval(secs => $2::bigint) \
             AND $4::bigint + ((xmin::text::bigint - $4::bigint) & 4294967295) \
             >= (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint)"
        );
        // The rows' condition twice, in case a key is not unique, or a row is changed meanwhile.
        format!(
            "WITH publisher AS MATERIALIZED ( \
                SELECT active_pid = $6::int AS holds, confirmed_flush_lsn >= $7::text::pg_lsn AS is_past \
                FROM pg_replication_slots WHERE slot_name = $5), \
             deleted AS (DELETE FROM {table} \
                WHERE EXISTS (SELECT FROM publisher WHERE holds AND is_past) AND {is_old} \
                AND {id} = ANY (ARRAY(SELECT {id} FROM {table} WHERE {is_old} \
                    ORDER BY {at} LIMIT $3::bigint)) RETURNING 1) \
             SELECT (SELECT count(*) FROM deleted), \
                coalesce((SELECT holds FROM publisher), false), \
                coalesce((SELECT is_past FROM publisher), false)"
        )
    }
}

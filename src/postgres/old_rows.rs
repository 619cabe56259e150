//! Old rows of a table, deleted in small batches.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::{PostgresError, TableName, name::quote_identifier, sql::Sql};

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
    /// Deletes the oldest of them, `most` at most, in one transaction. How many they were.
    ///
    /// # Errors
    /// Where the server refuses, somebody holds a row for too long, or the connection breaks.
    pub async fn delete(&self, sql: &Sql, most: i64) -> Result<u64, PostgresError> {
        let seconds = i64::try_from(self.age.as_secs()).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.since, &seconds, &most];
        let action = format!("delete old rows of table {}", self.table);
        let rows = sql.rows(&action, &self.sql(), &parameters).await?;
        let count = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// A column of type `timestamp` is compared as UTC, which the session's time zone is.
    fn sql(&self) -> String {
        // Rows of a child table are published under its own name, and none of our business.
        let only = if self.is_partitioned { "" } else { "ONLY " };
        let table = format!("{only}{}", self.table.quoted());
        let (id, at) = (quote_identifier(self.id), quote_identifier(self.created_at));
        let is_old = format!(
            "{at} >= $1::text::timestamptz AND {at} < now() - make_interval(secs => $2::bigint)"
        );
        // Twice, in case a key is not unique.
        format!(
            "WITH deleted AS (DELETE FROM {table} WHERE {is_old} AND {id} = ANY (ARRAY( \
             SELECT {id} FROM {table} WHERE {is_old} ORDER BY {at} LIMIT $3::bigint)) RETURNING 1) \
             SELECT count(*) FROM deleted"
        )
    }
}

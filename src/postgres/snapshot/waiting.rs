//! Rows that waited for a poller, in their order.
//!
//! Rows come as the server reads them and wait in the socket: nothing is gathered here, however
//! many they are. The transaction is open for as long as they are read, and holds back vacuum for
//! that time.

use std::{future::poll_fn, pin::Pin};

use futures_core::Stream as _;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream, types::ToSql};

use super::connect;
use crate::postgres::{
    PostgresError, Settings, TableName,
    name::{quote_identifier, quote_literal},
    sql::Sql,
};

/// Which rows of which table, in which order.
#[derive(Clone, Debug)]
pub struct RowsQuery {
    /// The table.
    pub table: TableName,
    /// Its rows are those of its partitions.
    pub is_partitioned: bool,
    /// What a row consists of.
    pub columns: Vec<String>,
    /// An SQL condition.
    pub condition: String,
    /// The publication's condition for the table, where it has one.
    pub row_filter: Option<String>,
    /// What rows are ordered by first, where the table has it.
    pub created_at: Option<String>,
    /// What rows are ordered by last.
    pub id: String,
}

/// Rows behind this one: the text of `created_at`, none for NULL, and of the id.
#[derive(Clone, Copy, Debug)]
pub struct After<'a> {
    /// What [`Row::created_at`] was.
    pub created_at: Option<&'a str>,
    /// What [`Row::id`] was.
    pub id: &'a str,
}

impl RowsQuery {
    fn rows_of(&self, after: Option<After<'_>>) -> String {
        // A child table's rows are published under its own name; a partition's under the root's.
        let only = if self.is_partitioned { "" } else { "ONLY " };
        // On lines of their own: a condition may end with a comment.
        let mut sql = format!("FROM {only}{} WHERE (\n{}\n)", self.table.quoted(), self.condition);
        if let Some(row_filter) = &self.row_filter {
            sql.push_str(&format!(" AND ({row_filter})"));
        }
        if let Some(after) = after {
            sql.push_str(&format!(" AND ({})", self.behind(after)));
        }
        sql
    }

    /// The order is that of ascending columns, in which NULL comes last.
    fn behind(&self, After { created_at, id }: After<'_>) -> String {
        let id = format!("{} > {}", quote_identifier(&self.id), quote_literal(id));
        let column = self.created_at.as_deref().map(quote_identifier);
        match (column, created_at) {
            (None, _) => id,
            (Some(column), None) => format!("{column} IS NULL AND {id}"),
            (Some(column), Some(text)) => {
                let text = quote_literal(text);
                format!("{column} > {text} OR {column} IS NULL OR {column} = {text} AND {id}")
            }
        }
    }

    fn order(&self) -> String {
        let columns = self.created_at.iter().chain([&self.id]).map(|name| quote_identifier(name));
        columns.collect::<Vec<_>>().join(", ")
    }

    fn rows_sql(&self, after: Option<After<'_>>) -> String {
        let created_at = self.created_at.as_deref().map(quote_identifier);
        let created_at = created_at.map_or("NULL".to_owned(), |column| format!("{column}::text"));
        // As the stream has it: a cast to text leaves out the blanks of a character(n) and adds the
        // mask of an inet.
        let id = quote_identifier(&self.id);
        let columns = self.columns.iter().map(|column| quote_identifier(column));
        // Under names of their own: rows must not be ordered by their texts.
        let place = [format!("{created_at} AS \"?created_at\""), format!("{id} AS \"?id\"")];
        let columns = columns.chain(place);
        let columns = columns.collect::<Vec<_>>().join(", ");
        format!("SELECT {columns} {} ORDER BY {}", self.rows_of(after), self.order())
    }

    /// One row for an id that several of the rows have.
    fn doubled_id_sql(&self) -> String {
        let id = quote_identifier(&self.id);
        let rows = self.rows_of(None);
        // A row without an id is no event, and stops it by itself.
        format!("SELECT {id} {rows} AND {id} IS NOT NULL GROUP BY {id} HAVING count(*) > 1 LIMIT 1")
    }

    /// Asks the server whether it can read these rows, without reading any.
    ///
    /// # Errors
    /// Where it refuses, or the connection breaks.
    pub async fn check(&self, sql: &Sql) -> Result<(), PostgresError> {
        let action = format!("read table {}", self.table);
        // As the reader has it: rows must not be hidden from it.
        sql.execute(&action, "SET row_security = off").await?;
        // Prepared, so that it is one statement and no more.
        sql.rows(&action, format!("{} LIMIT 0", self.rows_sql(None)).as_str(), &[]).await.map(drop)
    }
}

/// A transaction that reads.
pub struct SnapshotReader {
    pub(super) sql: Sql,
}

impl SnapshotReader {
    /// Reads under a snapshot that somebody exported.
    ///
    /// # Errors
    /// Where it is gone, the table may not be read, or the connection breaks.
    pub async fn import(
        settings: &Settings,
        snapshot: &str,
        table: &TableName,
    ) -> Result<Self, PostgresError> {
        let set = format!("SET TRANSACTION SNAPSHOT {};", quote_literal(snapshot));
        Self::open(settings, &set, table).await
    }

    /// Reads under a snapshot of its own, taken once the table cannot be rewritten any more.
    ///
    /// # Errors
    /// Where the table may not be read, or the connection breaks.
    pub async fn begin(settings: &Settings, table: &TableName) -> Result<Self, PostgresError> {
        Self::open(settings, "", table).await
    }

    async fn open(
        settings: &Settings,
        set_snapshot: &str,
        table: &TableName,
    ) -> Result<Self, PostgresError> {
        let sql = connect(settings).await?;
        let action = format!("begin to read table {table}");
        // The lock comes before a snapshot of its own: a rewrite that commits behind a snapshot
        // shows it an empty table (manual page mvcc-caveats).
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {set_snapshot} LOCK TABLE {} IN ACCESS \
             SHARE MODE; SELECT 1",
            table.quoted()
        );
        sql.execute(&action, &begin).await?;
        Ok(Self { sql })
    }

    /// Whether the table was rewritten or truncated since the snapshot, which then shows nothing of
    /// it.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn is_rewritten(&self, table: &TableName) -> Result<bool, PostgresError> {
        // The catalog's row is read under the snapshot; the function looks at the file as it is.
        const SQL: &str = "SELECT EXISTS ( \
            SELECT FROM pg_class c WHERE c.relkind = 'r' \
            AND (c.oid = $1::text::regclass \
                OR c.oid IN (SELECT relid FROM pg_partition_tree($1::text::regclass))) \
            AND c.relfilenode <> pg_relation_filenode(c.oid))";
        let action = format!("look whether table {table} was rewritten");
        let rows = self.sql.rows(&action, SQL, &[&table.quoted()]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn count(
        &self,
        query: &RowsQuery,
        after: Option<After<'_>>,
    ) -> Result<u64, PostgresError> {
        let sql = format!("SELECT count(*)::text {}", query.rows_of(after));
        let mut rows = self.stream(&format!("count the rows of {}", query.table), &sql).await?;
        let row = rows.next().await?;
        let count = row.as_ref().map(|row| row.value(0)).transpose()?.flatten();
        Ok(count.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// An id that several of the rows have. Not asked where the table says that there is none.
    ///
    /// # Errors
    /// Where the server refuses, or the connection breaks.
    pub async fn doubled_id(&self, query: &RowsQuery) -> Result<Option<String>, PostgresError> {
        // Of a partitioned table a unique index holds the columns of the partition key too.
        const SQL: &str = "SELECT EXISTS (SELECT FROM pg_index i \
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
            WHERE i.indrelid = $1::text::regclass AND a.attname = $2 AND i.indnkeyatts = 1 \
            AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL)";
        let action = format!("look for an id that is twice in {}", query.table);
        let parameters: [&(dyn ToSql + Sync); 2] = [&query.table.quoted(), &query.id];
        let rows = self.sql.rows(&action, SQL, &parameters).await?;
        if rows.first().is_some_and(|row| row.get(0)) {
            return Ok(None);
        }
        let mut rows = self.stream(&action, &query.doubled_id_sql()).await?;
        match rows.next().await? {
            Some(row) => Ok(row.value(0)?.map(str::to_owned)),
            None => Ok(None),
        }
    }

    /// The rows, in order.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn rows(
        &self,
        query: &RowsQuery,
        after: Option<After<'_>>,
    ) -> Result<Rows, PostgresError> {
        self.stream(&format!("read table {}", query.table), &query.rows_sql(after)).await
    }

    async fn stream(&self, action: &str, sql: &str) -> Result<Rows, PostgresError> {
        let stream = self.sql.simple_query(action, sql).await?;
        Ok(Rows { stream: Box::pin(stream), action: action.to_owned() })
    }
}

/// Rows on their way.
pub struct Rows {
    stream: Pin<Box<SimpleQueryStream>>,
    action: String,
}

impl Rows {
    /// The next row; none behind the last.
    ///
    /// # Cancel safety
    /// A row is returned once or stays queued.
    ///
    /// # Errors
    /// Where the server refuses, or the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Row>, PostgresError> {
        loop {
            let next = poll_fn(|context| self.stream.as_mut().poll_next(context)).await;
            match next.transpose() {
                Ok(Some(SimpleQueryMessage::Row(row))) => return Ok(Some(Row(row))),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) => return Err(PostgresError::from_sql(&self.action, error)),
            }
        }
    }
}

/// A row: the columns of its query, then its place in the order.
pub struct Row(SimpleQueryRow);

impl Row {
    /// The text of a column; none for NULL.
    ///
    /// # Errors
    /// Where it is no text in UTF-8.
    pub fn value(&self, index: usize) -> Result<Option<&str>, PostgresError> {
        self.0.try_get(index).map_err(|error| PostgresError::from_sql("read a value", error))
    }

    /// The text of what rows are ordered by first; none for NULL.
    ///
    /// # Errors
    /// As [`Row::value`].
    pub fn created_at(&self) -> Result<Option<&str>, PostgresError> {
        self.value(self.0.len().saturating_sub(2))
    }

    /// The text of the id; none for NULL.
    ///
    /// # Errors
    /// As [`Row::value`].
    pub fn id(&self) -> Result<Option<&str>, PostgresError> {
        self.value(self.0.len().saturating_sub(1))
    }
}

/// Whether a table's rows are those of its partitions.
///
/// # Errors
/// Where the connection breaks.
pub async fn is_partitioned(sql: &Sql, table: &TableName) -> Result<bool, PostgresError> {
    const SQL: &str = "SELECT relkind::text = 'p' FROM pg_class WHERE oid = $1::text::regclass";
    let rows = sql.rows(&format!("look up table {table}"), SQL, &[&table.quoted()]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> RowsQuery {
        RowsQuery {
            table: TableName { schema: "public".to_owned(), name: "outbox".to_owned() },
            is_partitioned: false,
            columns: vec!["id".to_owned(), "payload".to_owned()],
            condition: "status = 'pending' -- not yet out".to_owned(),
            row_filter: None,
            created_at: Some("created_at".to_owned()),
            id: "id".to_owned(),
        }
    }

    #[test]
    fn rows_are_ordered_by_time_then_id_and_a_comment_hides_nothing() {
        assert_eq!(
            query().rows_sql(None),
            "SELECT \"id\", \"payload\", \"created_at\"::text AS \"?created_at\", \"id\" AS \"?id\" FROM ONLY \"public\".\"outbox\" WHERE (\nstatus = 'pending' -- not yet out\n) ORDER BY \
             \"created_at\", \"id\""
        );
    }

    #[test]
    fn what_is_behind_a_row_follows_the_order_with_nulls_last() {
        let query = query();
        let behind = |created_at, id| query.behind(After { created_at, id });
        assert_eq!(
            behind(Some("2026-01-01 00:00:00+00"), "o'1"),
            "\"created_at\" > '2026-01-01 00:00:00+00' OR \"created_at\" IS NULL OR \"created_at\" = \
             '2026-01-01 00:00:00+00' AND \"id\" > 'o''1'"
        );
        assert_eq!(behind(None, "7"), "\"created_at\" IS NULL AND \"id\" > '7'");
        let by_id = RowsQuery { created_at: None, row_filter: Some("a > 1".to_owned()), ..query };
        let sql = by_id.rows_sql(Some(After { created_at: None, id: "7" }));
        assert!(sql.ends_with(") AND (a > 1) AND (\"id\" > '7') ORDER BY \"id\""), "{sql}");
        assert!(sql.contains(", NULL AS \"?created_at\", \"id\" AS"), "{sql}");
    }
}

//! What the server and its tables are.

use super::{PostgresError, TableName, sql::Sql};
use crate::change::{Oid, RelationId};

/// Facts about the server and our role in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// The setting `wal_level`.
    pub wal_level: String,
    /// It is a standby.
    pub is_in_recovery: bool,
}

/// A table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Its OID.
    pub id: RelationId,
    /// Its columns in their order, dropped ones left out.
    pub columns: Vec<TableColumn>,
}

/// A column of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// The OID of its type; of the base type where that is a domain.
    pub type_oid: Oid,
    /// The type as SQL writes it.
    pub type_name: String,
}

/// Asks for the server's facts.
///
/// # Errors
/// Where the connection breaks.
pub async fn server(sql: &Sql) -> Result<Server, PostgresError> {
    const SQL: &str = "SELECT current_setting('wal_level'), pg_is_in_recovery()";
    let rows = sql.rows("ask for the server's settings", SQL, &[]).await?;
    let row = rows.first().ok_or_else(|| no_row("the server's settings"))?;
    Ok(Server { wal_level: row.get(0), is_in_recovery: row.get(1) })
}

/// Looks a table up; none where it does not exist.
///
/// # Errors
/// Where the connection breaks.
pub async fn table(sql: &Sql, name: &TableName) -> Result<Option<Table>, PostgresError> {
    // A domain over a domain is followed down to its base type.
    const SQL: &str = "WITH RECURSIVE \
        attribute AS ( \
            SELECT c.oid AS relation, a.attnum, a.attname::text AS name, a.atttypid AS type, \
                   format_type(a.atttypid, a.atttypmod) AS type_name \
            FROM pg_class c \
            JOIN pg_namespace n ON n.oid = c.relnamespace \
            LEFT JOIN pg_attribute a \
                ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
            WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p') \
        ), \
        base AS ( \
            SELECT attnum, type FROM attribute \
            UNION ALL \
            SELECT b.attnum, t.typbasetype FROM base b \
            JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd' \
        ) \
        SELECT a.relation, a.name, a.type_name, ( \
            SELECT b.type FROM base b \
            JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd' \
            WHERE b.attnum = a.attnum \
        ) \
        FROM attribute a ORDER BY a.attnum";
    let action = format!("look up table {name}");
    let rows = sql.rows(&action, SQL, &[&name.schema, &name.name]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let id = RelationId(first.get(0));
    let mut columns = Vec::with_capacity(rows.len());
    for row in &rows {
        // A table without columns is one row of NULLs.
        let (name, type_oid): (Option<String>, Option<u32>) = (row.get(1), row.get(3));
        if let (Some(name), Some(type_oid)) = (name, type_oid) {
            columns.push(TableColumn { name, type_oid: Oid(type_oid), type_name: row.get(2) });
        }
    }
    Ok(Some(Table { id, columns }))
}

pub(super) fn no_row(what: &str) -> PostgresError {
    PostgresError::Protocol { what: format!("no row came for {what}") }
}

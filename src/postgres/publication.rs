//! Publications: what they hold, and the SQL that makes them.

use std::collections::BTreeMap;

use super::{PostgresError, PublicationName, TableName, name::quote_identifier, sql::Sql};
use crate::change::{Oid, RelationId};

/// A publication, as far as the tables that were asked for go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Its OID.
    pub oid: Oid,
    /// `publish` and `publish_via_partition_root`, in words.
    pub options: String,
    /// Whether it publishes inserts.
    pub publishes_inserts: bool,
    /// The tables among those asked for that it holds.
    pub tables: BTreeMap<TableName, Member>,
}

/// A table of a publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The table's OID.
    pub oid: RelationId,
    /// The OID of its `pg_publication_rel` row; none where it comes by ALL TABLES or IN SCHEMA.
    pub member: Option<Oid>,
}

/// Looks a publication up, with those of `tables` that it holds; none where it does not exist.
///
/// # Errors
/// Where the connection breaks.
pub async fn describe(
    sql: &Sql,
    publication: &PublicationName,
    tables: &[TableName],
) -> Result<Option<Publication>, PostgresError> {
    const SQL: &str = "SELECT oid, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot \
        FROM pg_publication WHERE pubname = $1";
    let action = format!("look up publication \"{publication}\"");
    let rows = sql.rows(&action, SQL, &[&publication.as_str()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let oid = Oid(row.get(0));
    let mut published = Vec::new();
    for (column, name) in ["insert", "update", "delete", "truncate"].into_iter().enumerate() {
        if row.get(column + 1) {
            published.push(name);
        }
    }
    let via_root: bool = row.get(5);
    let mut found = BTreeMap::new();
    for table in tables {
        if let Some(member) = member(sql, &action, oid, publication, table).await? {
            found.insert(table.clone(), member);
        }
    }
    Ok(Some(Publication {
        oid,
        options: format!(
            "publish = '{}', publish_via_partition_root = {via_root}",
            published.join(", ")
        ),
        publishes_inserts: published.contains(&"insert"),
        tables: found,
    }))
}

async fn member(
    sql: &Sql,
    action: &str,
    publication_oid: Oid,
    publication: &PublicationName,
    table: &TableName,
) -> Result<Option<Member>, PostgresError> {
    // pg_publication_tables is the truth about membership, ALL TABLES and IN SCHEMA included.
    const SQL: &str = "SELECT c.oid, r.oid \
        FROM pg_publication_tables p \
        JOIN pg_namespace n ON n.nspname = p.schemaname \
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
        LEFT JOIN pg_publication_rel r ON r.prrelid = c.oid AND r.prpubid = $4 \
        WHERE p.pubname = $1 AND p.schemaname = $2 AND p.tablename = $3";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&publication.as_str(), &table.schema, &table.name, &publication_oid.0];
    let rows = sql.rows(action, SQL, &parameters).await?;
    let member = |row: &tokio_postgres::Row| Member {
        oid: RelationId(row.get(0)),
        member: row.get::<_, Option<u32>>(1).map(Oid),
    };
    Ok(rows.first().map(member))
}

/// The SQL that makes a publication. Inserts alone are published: an outbox needs no more, and a
/// table without a key in a publication with updates makes the application's own UPDATE fail.
pub fn create_sql(publication: &PublicationName, tables: &[TableName]) -> String {
    let tables: Vec<String> = tables.iter().map(TableName::quoted).collect();
    format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish = 'insert', \
         publish_via_partition_root = true)",
        quote_identifier(publication.as_str()),
        tables.join(", ")
    )
}

/// The SQL that adds a table.
pub fn add_table_sql(publication: &PublicationName, table: &TableName) -> String {
    let publication = quote_identifier(publication.as_str());
    format!("ALTER PUBLICATION {publication} ADD TABLE {}", table.quoted())
}

/// Makes a publication.
///
/// # Errors
/// Where a table is missing or not ours, or the connection breaks.
pub async fn create(
    sql: &Sql,
    publication: &PublicationName,
    tables: &[TableName],
) -> Result<(), PostgresError> {
    let action = format!("create publication \"{publication}\"");
    sql.execute(&action, &create_sql(publication, tables)).await
}

/// Adds a table.
///
/// # Errors
/// Where the table is missing or not ours, or the connection breaks.
pub async fn add_table(
    sql: &Sql,
    publication: &PublicationName,
    table: &TableName,
) -> Result<(), PostgresError> {
    let action = format!("add table {table} to publication \"{publication}\"");
    sql.execute(&action, &add_table_sql(publication, table)).await
}

//! What the server and its tables are.

use std::collections::BTreeMap;

use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresError, PublicationName, TableName, identity::parameters, name::quote_identifier,
    sql::Sql,
};
use crate::{
    change::{Oid, RelationId},
    lsn::Lsn,
};

/// Facts about the server and our role in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// The setting `wal_level`.
    pub wal_level: String,
    /// It is a standby.
    pub is_in_recovery: bool,
}

/// A table as a publication delivers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// What each change carries, in this order.
    pub columns: Vec<TableColumn>,
    /// Columns that it has and no change carries.
    pub withheld: Vec<WithheldColumn>,
    /// The publication's condition for its rows.
    pub row_filter: Option<String>,
}

/// A column that is delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// The OID of its type, as the stream has it.
    pub own_type_oid: Oid,
    /// The same; of the base type where that is a domain.
    pub type_oid: Oid,
}

/// A column that is not delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WithheldColumn {
    /// Its name.
    pub name: String,
    /// Why, and the SQL after which it is, as sentences.
    pub mend: String,
}

/// What a relation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A table that a publication can hold.
    Publishable,
    /// Something else, in words.
    Other(&'static str),
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

/// The database's encoding, as `server_encoding` has it.
///
/// # Errors
/// Where the connection breaks.
pub async fn encoding(sql: &Sql) -> Result<String, PostgresError> {
    const SQL: &str = "SELECT current_setting('server_encoding')";
    let rows = sql.rows("ask for the database's encoding", SQL, &[]).await?;
    rows.first().map(|row| row.get(0)).ok_or_else(|| no_row("the database's encoding"))
}

/// The server's clock, RFC 3339 in UTC.
///
/// # Errors
/// Where the connection breaks.
pub async fn now(sql: &Sql) -> Result<String, PostgresError> {
    const SQL: &str = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', \
        'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let rows = sql.rows("ask for the server's time", SQL, &[]).await?;
    rows.first().map(|row| row.get(0)).ok_or_else(|| no_row("the server's time"))
}

/// The columns by which a table is partitioned, sub-partitions included; empty where it is not. An
/// expression counts with each column in it.
///
/// # Errors
/// Where the connection breaks.
pub async fn partition_columns(sql: &Sql, table: &TableName) -> Result<Vec<String>, PostgresError> {
    // Each column of a partition key depends on its table, also one within an expression.
    const SQL: &str = "SELECT DISTINCT a.attname::text FROM pg_class c \
        JOIN pg_namespace n ON n.oid = c.relnamespace \
        JOIN pg_partition_tree(c.oid) t ON NOT t.isleaf \
        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = t.relid \
            AND d.refclassid = d.classid AND d.refobjid = d.objid \
            AND d.refobjsubid = 0 AND d.deptype = 'i' \
        JOIN pg_attribute a ON a.attrelid = t.relid AND a.attnum = d.objsubid \
        WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'p' ORDER BY 1";
    let action = format!("look up the partition key of table {table}");
    let rows = sql.rows(&action, SQL, &[&table.schema, &table.name]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Those of these tables that are partitioned.
///
/// # Errors
/// Where the connection breaks.
pub async fn partitioned(sql: &Sql, tables: &[TableName]) -> Result<Vec<TableName>, PostgresError> {
    const SQL: &str = "SELECT n.nspname::text, c.relname::text \
        FROM unnest($1::text[], $2::text[]) AS asked (schema, name) \
        JOIN pg_namespace n ON n.nspname = asked.schema \
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name \
        WHERE c.relkind = 'p' ORDER BY 1, 2";
    let (schemas, names) = parameters(tables);
    let rows = sql.rows("look up partitioned tables", SQL, &[&schemas, &names]).await?;
    Ok(rows.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) }).collect())
}

/// The names of the primary key's columns, in the table's order; empty where there is none, and
/// nothing where the table is gone.
///
/// # Errors
/// Where the connection breaks.
pub async fn primary_key(
    sql: &Sql,
    table: RelationId,
) -> Result<Option<Vec<String>>, PostgresError> {
    // Columns that INCLUDE adds to the index are not of the key.
    const SQL: &str = "SELECT ARRAY(SELECT a.attname::text FROM pg_index i \
        JOIN pg_attribute a ON a.attrelid = i.indrelid \
            AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
        WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY a.attnum) \
        FROM pg_class c WHERE c.oid = $1";
    let action = format!("look up the primary key of table {table}");
    let rows = sql.rows(&action, SQL, &[&table.0]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Whether all updates and deletes of a table with REPLICA IDENTITY FULL carry the whole old row:
/// each partition has an identity of its own, and what it does not log comes as NULL.
///
/// # Errors
/// Where the connection breaks.
pub async fn has_whole_old_rows(sql: &Sql, table: RelationId) -> Result<bool, PostgresError> {
    const SQL: &str = "SELECT NOT EXISTS ( \
            SELECT FROM pg_partition_tree($1::oid) t JOIN pg_class l ON l.oid = t.relid \
            WHERE t.isleaf AND l.relkind = 'r' AND l.relreplident <> 'f')";
    let action = format!("look up the replica identities of the partitions of table {table}");
    let rows = sql.rows(&action, SQL, &[&table.0]).await?;
    rows.first().map(|row| row.get(0)).ok_or_else(|| no_row("a table's partitions"))
}

/// The present name of a table; none where it is gone.
///
/// # Errors
/// Where the connection breaks.
pub async fn name_of(sql: &Sql, table: RelationId) -> Result<Option<TableName>, PostgresError> {
    const SQL: &str = "SELECT n.nspname::text, c.relname::text \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let rows = sql.rows(&format!("look up table {table}"), SQL, &[&table.0]).await?;
    Ok(rows.first().map(|row| TableName { schema: row.get(0), name: row.get(1) }))
}

/// The type of a column, of the base type where that is a domain; none where there is no such
/// column.
///
/// # Errors
/// Where the connection breaks.
pub async fn column_type(
    sql: &Sql,
    table: &TableName,
    column: &str,
) -> Result<Option<Oid>, PostgresError> {
    const SQL: &str = "SELECT coalesce(nullif(t.typbasetype, 0), t.oid) \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
        JOIN pg_type t ON t.oid = a.atttypid \
        WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3";
    let action = format!("look up column {column} of table {table}");
    let rows = sql.rows(&action, SQL, &[&table.schema, &table.name, &column]).await?;
    Ok(rows.first().map(|row| Oid(row.get(0))))
}

/// Where the flushed WAL of a primary ends.
///
/// # Errors
/// Where the connection breaks.
pub async fn wal_end(sql: &Sql) -> Result<Lsn, PostgresError> {
    const SQL: &str = "SELECT pg_current_wal_flush_lsn()::text";
    const ACTION: &str = "ask for the end of the server's WAL";
    let rows = sql.rows(ACTION, SQL, &[]).await?;
    let text: Option<&str> = rows.first().map(|row| row.get(0));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| no_row("the end of the server's WAL"))
}

/// Looks a table up as a publication that holds it delivers it; none where it does not exist.
///
/// # Errors
/// Where the connection breaks.
pub async fn published_table(
    sql: &Sql,
    publication: &PublicationName,
    name: &TableName,
) -> Result<Option<Table>, PostgresError> {
    let names = std::slice::from_ref(name);
    Ok(published_tables(sql, publication, names).await?.remove(name))
}

/// The same of several tables, of those that exist.
///
/// # Errors
/// Where the connection breaks.
pub async fn published_tables(
    sql: &Sql,
    publication: &PublicationName,
    names: &[TableName],
) -> Result<BTreeMap<TableName, Table>, PostgresError> {
    // A domain over a domain is followed down to its base type. What the publication's view and
    // its members hold depends on the version, so they are read as JSON: column lists are there
    // from 15 on. 15 and 16 list generated columns among `attnames` and send none of them; from 18
    // on `attnames` is right also there.
    const SQL: &str = "WITH RECURSIVE \
        attribute AS ( \
            SELECT c.oid AS relation, asked.schema, asked.name AS table_name, a.attnum, a.attname::text AS name, a.atttypid AS type, \
                   format_type(a.atttypid, a.atttypmod) AS type_name, \
                   a.attgenerated::text AS generated, pg_get_expr(d.adbin, d.adrelid) AS expression \
            FROM unnest($1::text[], $2::text[]) AS asked (schema, name) \
            JOIN pg_namespace n ON n.nspname = asked.schema \
            JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name \
            LEFT JOIN pg_attribute a \
                ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
            LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
            WHERE c.relkind IN ('r', 'p') \
        ), \
        base AS ( \
            SELECT relation, attnum, type FROM attribute \
            UNION ALL \
            SELECT b.relation, b.attnum, t.typbasetype FROM base b \
            JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd' \
        ), \
        base_type AS ( \
            SELECT b.relation, b.attnum, b.type FROM base b \
            JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd' \
        ), \
        published AS MATERIALIZED ( \
            SELECT t.schemaname::text AS schema, t.tablename::text AS name, to_jsonb(t) AS member \
            FROM pg_publication_tables t WHERE t.pubname = $3 \
        ) \
        SELECT a.name, a.type_name, a.generated, a.expression, b.type, coalesce(p.member -> 'attnames' ? a.name, true) \
            AND (a.generated = '' OR current_setting('server_version_num')::int >= 180000), \
        EXISTS ( \
            SELECT FROM pg_publication_rel r \
            JOIN pg_publication q ON q.oid = r.prpubid AND q.pubname = $3 \
            WHERE r.prrelid = a.relation AND jsonb_typeof(to_jsonb(r) -> 'prattrs') <> 'null' \
        ), p.member ->> 'rowfilter', current_setting('server_version_num')::int >= 180000, \
        a.type, a.schema, a.table_name \
        FROM attribute a \
        LEFT JOIN base_type b ON b.relation = a.relation AND b.attnum = a.attnum \
        LEFT JOIN published p ON p.schema = a.schema AND p.name = a.table_name \
        ORDER BY a.relation, a.attnum";
    let action = match names {
        [name] => format!("look up table {name} in publication \"{publication}\""),
        _ => format!("look up tables in publication \"{publication}\""),
    };
    let (schemas, tables) = parameters(names);
    let parameters: [&(dyn ToSql + Sync); 3] = [&schemas, &tables, &publication.as_str()];
    let rows = sql.rows(&action, SQL, &parameters).await?;
    let name = |row: &Row| TableName { schema: row.get(10), name: row.get(11) };
    let tables = rows.chunk_by(|one, other| name(one) == name(other));
    let table = |rows: &[Row]| {
        let name = name(rows.first()?);
        // A table without columns is one row of NULLs.
        let attributes = rows.iter().filter_map(Attribute::of).collect();
        let table = Table::of(publication, &name, attributes);
        Some((name, table))
    };
    Ok(tables.filter_map(table).collect())
}

impl Table {
    fn of(publication: &PublicationName, name: &TableName, attributes: Vec<Attribute>) -> Self {
        let delivered = || attributes.iter().filter(|attribute| attribute.is_delivered);
        let listed: Vec<&str> = delivered().map(|attribute| attribute.name.as_str()).collect();
        let columns = delivered().map(|attribute| TableColumn {
            name: attribute.name.clone(),
            own_type_oid: attribute.own_type_oid,
            type_oid: attribute.type_oid,
        });
        let withheld = attributes.iter().filter(|attribute| !attribute.is_delivered);
        let withheld = withheld.map(|attribute| WithheldColumn {
            name: attribute.name.clone(),
            mend: attribute.mend(publication, name, &listed),
        });
        let row_filter = attributes.iter().find_map(|attribute| attribute.row_filter.clone());
        Self { columns: columns.collect(), withheld: withheld.collect(), row_filter }
    }
}

/// A column as the catalog and the publication describe it.
struct Attribute {
    name: String,
    type_name: String,
    type_oid: Oid,
    own_type_oid: Oid,
    generation: Generation,
    is_delivered: bool,
    /// The publication has a list of columns for this table.
    has_list: bool,
    row_filter: Option<String>,
    /// The server can publish generated columns that are stored: PostgreSQL 18 and later.
    can_publish_generated: bool,
}

/// `pg_attribute.attgenerated`.
enum Generation {
    /// An ordinary column.
    None,
    /// `s`: computed when written.
    Stored,
    /// `v`: computed when read, from this expression.
    Virtual(String),
}

impl Attribute {
    fn of(row: &Row) -> Option<Self> {
        let generation = match row.get::<_, Option<String>>(2)?.as_str() {
            "" => Generation::None,
            "v" => Generation::Virtual(row.get(3)),
            _ => Generation::Stored,
        };
        Some(Self {
            name: row.get::<_, Option<String>>(0)?,
            type_name: row.get(1),
            type_oid: Oid(row.get::<_, Option<u32>>(4)?),
            own_type_oid: Oid(row.get::<_, Option<u32>>(9)?),
            generation,
            is_delivered: row.get(5),
            has_list: row.get(6),
            row_filter: row.get(7),
            can_publish_generated: row.get(8),
        })
    }

    /// Why it is not delivered, and the SQL after which it is.
    fn mend(&self, publication: &PublicationName, table: &TableName, listed: &[&str]) -> String {
        let (name, quoted_table) = (quote_identifier(&self.name), table.quoted());
        match &self.generation {
            Generation::None => {
                format!(
                    "Add it to the publication's list: {}.",
                    self.list_sql(publication, table, listed)
                )
            }
            Generation::Stored if self.can_publish_generated && self.has_list => {
                format!(
                    "Add it to the publication's list: {}.",
                    self.list_sql(publication, table, listed)
                )
            }
            Generation::Stored if self.can_publish_generated => format!(
                "It is a generated column: ALTER PUBLICATION {} SET (publish_generated_columns = \
                 stored).",
                quote_identifier(publication.as_str())
            ),
            Generation::Stored => format!(
                "It is a generated column, which PostgreSQL before 18 does not publish: ALTER \
                 TABLE {quoted_table} ALTER COLUMN {name} DROP EXPRESSION, and let the application \
                 or a trigger fill it."
            ),
            Generation::Virtual(expression) => format!(
                "It is a virtual generated column, which PostgreSQL does not publish: ALTER TABLE \
                 {quoted_table} DROP COLUMN {name}, ADD COLUMN {name} {} GENERATED ALWAYS AS \
                 ({expression}) STORED.",
                self.type_name
            ),
        }
    }

    /// Makes the table's membership anew, with this column in its list. `ALTER PUBLICATION … SET
    /// TABLE` would need all other tables too.
    fn list_sql(
        &self,
        publication: &PublicationName,
        table: &TableName,
        listed: &[&str],
    ) -> String {
        let publication = quote_identifier(publication.as_str());
        let columns = listed.iter().copied().chain([self.name.as_str()]);
        let columns: Vec<String> = columns.map(quote_identifier).collect();
        let filter =
            self.row_filter.as_ref().map_or(String::new(), |filter| format!(" WHERE {filter}"));
        format!(
            "BEGIN; ALTER PUBLICATION {publication} DROP TABLE {table}; ALTER PUBLICATION \
             {publication} ADD TABLE {table} ({}){filter}; COMMIT",
            columns.join(", "),
            table = table.quoted(),
        )
    }
}

/// What has this name; none where nothing has it.
///
/// # Errors
/// Where the connection breaks.
pub async fn kind(sql: &Sql, name: &TableName) -> Result<Option<Kind>, PostgresError> {
    // "char" as text, which tokio-postgres reads on every version.
    const SQL: &str = "SELECT c.relkind::text, c.relpersistence::text, c.oid < 16384 \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = $1 AND c.relname = $2";
    let rows = sql.rows(&format!("look up table {name}"), SQL, &[&name.schema, &name.name]).await?;
    let kind = |row: &tokio_postgres::Row| {
        let (kind, persistence): (String, String) = (row.get(0), row.get(1));
        match (kind.as_str(), persistence.as_str()) {
            // C name: FirstNormalObjectId.
            ("r" | "p", _) if row.get(2) => Kind::Other("a system table"),
            ("r" | "p", "p") => Kind::Publishable,
            ("r" | "p", "u") => Kind::Other("an unlogged table"),
            ("r" | "p", _) => Kind::Other("a temporary table"),
            ("v", _) => Kind::Other("a view"),
            ("m", _) => Kind::Other("a materialized view"),
            ("f", _) => Kind::Other("a foreign table"),
            _ => Kind::Other("no table"),
        }
    };
    Ok(rows.first().map(kind))
}

/// A table that a publication can hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publishable {
    /// Its name.
    pub name: TableName,
    /// The table whose partition it is, directly or below others.
    pub root: Option<TableName>,
}

/// All tables that a publication can hold, by their names.
///
/// # Errors
/// Where the connection breaks.
pub async fn publishable(sql: &Sql) -> Result<Vec<Publishable>, PostgresError> {
    const SQL: &str = "SELECT n.nspname::text, c.relname::text, rn.nspname::text, r.relname::text \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        LEFT JOIN pg_class r ON c.relispartition AND r.oid = pg_partition_root(c.oid) \
        LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace \
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384 \
        ORDER BY 1, 2";
    let rows = sql.rows("list the tables", SQL, &[]).await?;
    let table = |row: &Row| Publishable {
        name: TableName { schema: row.get(0), name: row.get(1) },
        root: match (row.get(2), row.get(3)) {
            (Some(schema), Some(name)) => Some(TableName { schema, name }),
            _ => None,
        },
    };
    Ok(rows.iter().map(table).collect())
}

pub(super) fn no_row(what: &str) -> PostgresError {
    PostgresError::Protocol { what: format!("no row came for {what}") }
}

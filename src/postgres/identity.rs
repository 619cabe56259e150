//! Which row an update or a delete is of: the replica identities of tables, and of the partitions that
//! their rows lie in.
//!
//! A partition has an identity of its own, whatever its table's is. The server refuses an update by
//! that of the partition; of what it sends under the table's name, the table's says what it is, and
//! the partition's what is there.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::{PostgresError, TableName, name::quote_identifier, sql::Sql};
use crate::change::ReplicaIdentity;

/// What updates and deletes say of the row that they are of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowIdentity {
    /// `pg_class.relreplident`
    pub replica_identity: ReplicaIdentity,
    /// The names of the columns that they carry; none of them all under FULL.
    pub columns: Vec<String>,
    /// The names of the primary key's columns.
    pub primary_key: Vec<String>,
}

/// A table whose rows no update or delete can name, so that the server refuses these while they are
/// published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nameless {
    /// The table, or the partition.
    pub table: TableName,
    /// Whose partition it is, of the tables that were asked for.
    pub root: Option<TableName>,
    /// Why, as what is said of it.
    pub reason: &'static str,
}

/// A partition whose replica identity is not its table's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DifferingLeaf {
    /// The partition.
    pub leaf: TableName,
    /// The table, under whose name its rows come.
    pub root: TableName,
    /// The SQL that comes first, where the table's own names no rows.
    pub root_sql: Option<String>,
    /// The SQL that gives the partition the table's.
    pub leaf_sql: String,
}

/// The SQL after which updates and deletes carry whole rows.
pub fn full_sql(table: &TableName) -> String {
    format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.quoted())
}

/// Schemas and names of tables, as parameters.
pub(super) fn parameters(tables: &[TableName]) -> (Vec<&str>, Vec<&str>) {
    tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip()
}

/// What updates and deletes of these tables say of their rows, of those that exist.
///
/// # Errors
/// Where the connection breaks.
pub async fn row_identities(
    sql: &Sql,
    tables: &[TableName],
) -> Result<BTreeMap<TableName, RowIdentity>, PostgresError> {
    // Columns that INCLUDE adds to an index are not of the key. An index that does not hold at once,
    // or is not valid, names no rows: C name RelationGetIndexList.
    const SQL: &str = "SELECT n.nspname::text, c.relname::text, c.relreplident::text, \
        ARRAY(SELECT a.attname::text FROM pg_index i \
            JOIN pg_attribute a ON a.attrelid = i.indrelid \
                AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
            WHERE i.indrelid = c.oid AND i.indimmediate AND (i.indisvalid OR c.relkind = 'p') \
                AND CASE c.relreplident \
                    WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END \
            ORDER BY a.attnum), \
        ARRAY(SELECT a.attname::text FROM pg_index i \
            JOIN pg_attribute a ON a.attrelid = i.indrelid \
                AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
            WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY a.attnum) \
        FROM unnest($1::text[], $2::text[]) AS asked (schema, name) \
        JOIN pg_namespace n ON n.nspname = asked.schema \
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name";
    let (schemas, names) = parameters(tables);
    let rows = sql.rows("look up replica identities", SQL, &[&schemas, &names]).await?;
    let identity = |row: &Row| {
        let table = TableName { schema: row.get(0), name: row.get(1) };
        let replica_identity = match row.get(2) {
            "f" => ReplicaIdentity::Full,
            "i" => ReplicaIdentity::Index,
            "n" => ReplicaIdentity::Nothing,
            _ => ReplicaIdentity::Default,
        };
        (table, RowIdentity { replica_identity, columns: row.get(3), primary_key: row.get(4) })
    };
    Ok(rows.iter().map(identity).collect())
}

/// Those of these tables, and of their partitions, whose updates and deletes the server refuses while
/// they are published, in the order of the tables.
///
/// # Errors
/// Where the connection breaks.
pub async fn nameless(sql: &Sql, tables: &[TableName]) -> Result<Vec<Nameless>, PostgresError> {
    // As the server judges it: C names CheckCmdReplicaIdentity, RelationGetIndexList. What is not
    // logged is not published, and may be updated.
    const SQL: &str = "SELECT n.nspname::text, l.relname::text, \
            CASE WHEN a.oid <> l.oid THEN asked.schema END, \
            CASE WHEN a.oid <> l.oid THEN asked.name END, \
            CASE WHEN l.relreplident = 'n' THEN 'nothing' \
                WHEN i.indexrelid IS NULL AND l.relreplident = 'i' THEN 'gone' \
                WHEN i.indexrelid IS NULL THEN 'none' \
                WHEN NOT i.indimmediate THEN 'deferrable' ELSE 'broken' END \
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (schema, name, place) \
        JOIN pg_namespace an ON an.nspname = asked.schema \
        JOIN pg_class a ON a.relnamespace = an.oid AND a.relname = asked.name \
        CROSS JOIN LATERAL ( \
            SELECT a.oid AS oid WHERE a.relkind = 'r' \
            UNION ALL \
            SELECT t.relid FROM pg_partition_tree(a.oid) t WHERE a.relkind = 'p' AND t.isleaf \
        ) leaf \
        JOIN pg_class l ON l.oid = leaf.oid AND l.relkind = 'r' AND l.relpersistence = 'p' \
        JOIN pg_namespace n ON n.oid = l.relnamespace \
        LEFT JOIN pg_index i ON i.indrelid = l.oid AND CASE l.relreplident \
            WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END \
        WHERE l.relreplident <> 'f' AND NOT coalesce( \
            i.indimmediate AND i.indisvalid AND i.indislive AND i.indisunique \
                AND i.indpred IS NULL, false) \
        ORDER BY asked.place, 1, 2";
    let (schemas, names) = parameters(tables);
    let rows = sql.rows("look up replica identities", SQL, &[&schemas, &names]).await?;
    let nameless = |row: &Row| Nameless {
        table: TableName { schema: row.get(0), name: row.get(1) },
        root: match (row.get(2), row.get(3)) {
            (Some(schema), Some(name)) => Some(TableName { schema, name }),
            _ => None,
        },
        reason: match row.get(4) {
            "nothing" => "has REPLICA IDENTITY NOTHING",
            "gone" => "has lost the index of its replica identity",
            "deferrable" => {
                "has a DEFERRABLE primary key, which is no replica identity, and no other"
            }
            "broken" => "has an index that is not valid for its replica identity",
            _ => "has neither a primary key nor another replica identity",
        },
    };
    Ok(rows.iter().map(nameless).collect())
}

/// The partitions of these tables that have other replica identities than these. Under the table's
/// name the server would send old rows as the table's, with null in the place of what the partition's
/// does not have.
///
/// # Errors
/// Where the connection breaks.
pub async fn differing_leaves(
    sql: &Sql,
    tables: &[TableName],
) -> Result<Vec<DifferingLeaf>, PostgresError> {
    // The columns of both as sets, NULL where it is FULL. The partition's index of a table's index
    // lies below that.
    const SQL: &str = "WITH member AS ( \
            SELECT a.oid AS root, a.oid AS relation \
            FROM unnest($1::text[], $2::text[]) AS asked (schema, name) \
            JOIN pg_namespace n ON n.nspname = asked.schema \
            JOIN pg_class a ON a.relnamespace = n.oid AND a.relname = asked.name \
            WHERE a.relkind = 'p' \
        ), family AS ( \
            SELECT root, relation FROM member \
            UNION ALL \
            SELECT m.root, t.relid FROM member m, pg_partition_tree(m.root) t WHERE t.isleaf \
        ), identity AS ( \
            SELECT f.root, c.oid, n.nspname::text AS schema, c.relname::text AS name, \
                c.relreplident::text AS kind, CASE WHEN c.relreplident <> 'f' THEN ARRAY( \
                    SELECT a.attname::text FROM pg_index i \
                    JOIN pg_attribute a ON a.attrelid = i.indrelid \
                        AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
                    WHERE i.indrelid = c.oid AND i.indimmediate \
                        AND (i.indisvalid OR c.relkind = 'p') \
                        AND CASE c.relreplident WHEN 'd' THEN i.indisprimary \
                            WHEN 'i' THEN i.indisreplident ELSE false END \
                    ORDER BY a.attname \
                ) END AS columns \
            FROM family f JOIN pg_class c ON c.oid = f.relation \
            JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE c.oid = f.root OR c.relkind = 'r' AND c.relpersistence = 'p' \
        ) \
        SELECT l.schema, l.name, r.schema, r.name, r.kind, r.columns, ( \
            SELECT ic.relname::text FROM pg_index ri, pg_partition_tree(ri.indexrelid) t \
            JOIN pg_index li ON li.indexrelid = t.relid \
            JOIN pg_class ic ON ic.oid = t.relid \
            WHERE ri.indrelid = r.oid AND ri.indisreplident AND li.indrelid = l.oid LIMIT 1 \
        ) \
        FROM identity r JOIN identity l ON l.root = r.root AND l.oid <> r.oid \
        WHERE r.oid = r.root AND l.columns IS DISTINCT FROM r.columns \
        ORDER BY r.schema, r.name, l.schema, l.name";
    let (schemas, names) = parameters(tables);
    let rows = sql.rows("compare replica identities", SQL, &[&schemas, &names]).await?;
    let differing = |row: &Row| {
        let leaf = TableName { schema: row.get(0), name: row.get(1) };
        let root = TableName { schema: row.get(2), name: row.get(3) };
        let (kind, columns): (&str, Option<Vec<String>>) = (row.get(4), row.get(5));
        let (quoted, index): (_, Option<String>) = (leaf.quoted(), row.get(6));
        let mut root_sql = None;
        let leaf_sql = match (kind, columns.unwrap_or_default().is_empty(), index) {
            ("f", ..) => full_sql(&leaf),
            ("d", false, _) => format!("ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT"),
            ("i", false, Some(index)) => format!(
                "ALTER TABLE {quoted} REPLICA IDENTITY USING INDEX {}",
                quote_identifier(&index)
            ),
            _ => {
                root_sql = Some(full_sql(&root));
                full_sql(&leaf)
            }
        };
        DifferingLeaf { leaf, root, root_sql, leaf_sql }
    };
    Ok(rows.iter().map(differing).collect())
}

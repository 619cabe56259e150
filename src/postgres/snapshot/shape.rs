//! What a table is at the moment of a snapshot, as far as reading its rows goes.

use tokio_postgres::types::ToSql;

use crate::{
    change::{Oid, RelationId},
    postgres::{
        PostgresError, PublicationName, TableName,
        catalog::{self, Table},
        identity::{self, RowIdentity},
        sql::Sql,
    },
};

/// A table as a snapshot shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Its OID.
    pub oid: RelationId,
    /// Its rows are those of its partitions.
    pub is_partitioned: bool,
    /// What the publication delivers of it.
    pub table: Table,
    /// What updates and deletes say of its rows.
    pub identity: RowIdentity,
    /// What its rows are ordered by: the columns that name a row in the stream, in the order of their
    /// index, which makes reading in that order cheap. Empty where it has none, where the publication
    /// does not deliver all of them, or where the index has another order than the type's own, by
    /// which keys may be equal that are not so in the index.
    pub key: Vec<KeyColumn>,
    /// About how many rows it has, where the server ever counted them.
    pub estimate: Option<u64>,
}

/// A column of the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its number in the table.
    pub number: i16,
    /// Its type.
    pub type_oid: Oid,
    /// Its collation in the index; 0 where the type has none.
    pub collation: Oid,
    /// Its place among the columns that are delivered.
    pub index: usize,
    /// The schema of its type's comparison operators, where that is another one than `pg_catalog`.
    pub(crate) operator_schema: Option<String>,
    /// The quoted name of its collation in the index, where the column has another one.
    pub(crate) collate: Option<String>,
    /// The quoted name of its type, where a text is read as of that only where it says so.
    pub(crate) cast: Option<String>,
}

impl Shape {
    /// Looks a table up within the transaction that reads it; none where it does not exist.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn look_up(
        sql: &Sql,
        publication: &PublicationName,
        name: &TableName,
    ) -> Result<Option<Self>, PostgresError> {
        // Every leaf of a partitioned table has its own count.
        const SQL: &str = "SELECT c.oid, c.relkind::text = 'p', ( \
                SELECT CASE WHEN bool_or(l.reltuples >= 0) \
                    THEN sum(greatest(l.reltuples, 0))::bigint END \
                FROM pg_class l WHERE l.relkind = 'r' AND l.oid IN ( \
                    SELECT c.oid UNION ALL SELECT relid FROM pg_partition_tree(c.oid) \
                ) \
            ) \
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE n.nspname = $1 AND c.relname = $2";
        let action = format!("look up table {name}");
        let rows = sql.rows(&action, SQL, &[&name.schema, &name.name]).await?;
        let (Some(row), Some(table), Some(identity)) = (
            rows.first(),
            catalog::published_table(sql, publication, name).await?,
            identity::row_identities(sql, std::slice::from_ref(name)).await?.remove(name),
        ) else {
            return Ok(None);
        };
        let oid = RelationId(row.get(0));
        Ok(Some(Self {
            oid,
            is_partitioned: row.get(1),
            estimate: row.get::<_, Option<i64>>(2).and_then(|count| u64::try_from(count).ok()),
            identity,
            key: key(sql, oid, &table).await?,
            table,
        }))
    }
}

async fn key(sql: &Sql, oid: RelationId, table: &Table) -> Result<Vec<KeyColumn>, PostgresError> {
    // The index that the replica identity names, else that of the primary key. An operator class of
    // an extension has its operators in the extension's schema; what has no class of its own is
    // compared by another type's, or as any array, enum or range is. Classes of one family over one
    // type compare alike, such as those of varchar and text.
    const SQL: &str = "SELECT a.attname::text, a.attnum, a.atttypid, i.indcollation[k.place - 1], \
            own.operator_schema, \
            CASE WHEN i.indcollation[k.place - 1] <> a.attcollation THEN ( \
                SELECT format('%I.%I', n.nspname, l.collname) FROM pg_collation l \
                JOIN pg_namespace n ON n.oid = l.collnamespace \
                WHERE l.oid = i.indcollation[k.place - 1] \
            ) END, \
            CASE WHEN base.typtype = 'c' THEN ( \
                SELECT format('%I.%I', n.nspname, t.typname) FROM pg_namespace n \
                WHERE n.oid = t.typnamespace \
            ) END, \
            EXISTS ( \
                SELECT FROM pg_opclass used JOIN pg_opclass o ON o.opcdefault \
                    AND o.opcmethod = used.opcmethod AND o.opcfamily = used.opcfamily \
                    AND o.opcintype = used.opcintype \
                WHERE used.oid = i.indclass[k.place - 1] \
                    AND used.opcfamily = coalesce(own.family, used.opcfamily) \
            ) \
        FROM pg_class c \
        JOIN pg_index i ON i.indrelid = c.oid AND CASE c.relreplident \
            WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END \
        CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place) \
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number \
        JOIN pg_type t ON t.oid = a.atttypid \
        CROSS JOIN LATERAL ( \
            WITH RECURSIVE base AS ( \
                SELECT t.oid, t.typtype, t.typbasetype UNION ALL \
                SELECT b.oid, b.typtype, b.typbasetype \
                FROM base d JOIN pg_type b ON b.oid = d.typbasetype \
            ) SELECT base.oid, base.typtype::text FROM base WHERE typbasetype = 0 \
        ) base \
        LEFT JOIN LATERAL ( \
            SELECT o.opcfamily AS family, n.nspname::text AS operator_schema FROM pg_opclass o \
            JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree' \
            JOIN pg_amop p ON p.amopfamily = o.opcfamily AND p.amopstrategy = 5 \
                AND p.amoplefttype = o.opcintype AND p.amoprighttype = o.opcintype \
            JOIN pg_operator r ON r.oid = p.amopopr \
            JOIN pg_namespace n ON n.oid = r.oprnamespace \
            WHERE o.opcdefault AND o.opcintype = base.oid LIMIT 1 \
        ) own ON true \
        WHERE c.oid = $1 AND k.place <= i.indnkeyatts ORDER BY k.place";
    let action = format!("look up the key of table {oid}");
    let parameters: [&(dyn ToSql + Sync); 1] = [&oid.0];
    let rows = sql.rows(&action, SQL, &parameters).await?;
    let mut key = Vec::new();
    for row in &rows {
        let name: String = row.get(0);
        // To order by what is not delivered would leave nobody knowing whose row a change is of.
        let Some(index) = table.columns.iter().position(|column| column.name == name) else {
            return Ok(Vec::new());
        };
        let has_own_order: bool = row.get(7);
        if !has_own_order {
            return Ok(Vec::new());
        }
        let (number, type_oid, collation) = (row.get(1), Oid(row.get(2)), Oid(row.get(3)));
        let schema = row.get::<_, Option<String>>(4);
        let operator_schema = schema.filter(|schema| schema != "pg_catalog");
        key.push(KeyColumn {
            name,
            number,
            type_oid,
            collation,
            index,
            operator_schema,
            collate: row.get(5),
            cast: row.get(6),
        });
    }
    Ok(key)
}

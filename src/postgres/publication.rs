//! Publications: what they hold, and the SQL that makes them.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use super::{
    PostgresError, PublicationName, SlotName, TableName,
    catalog::{self, Kind},
    identity::parameters,
    name::quote_identifier,
    sql::Sql,
};
use crate::change::{Oid, Relation, RelationId, Xid};

/// A publication, as far as the tables that were asked for go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Its OID.
    pub oid: Oid,
    /// The transaction that wrote its row: another one after each ALTER of options, name or owner.
    pub altered_by: Xid,
    /// What it publishes, of `insert`, `update`, `delete` and `truncate`.
    pub operations: Vec<&'static str>,
    /// `publish_via_partition_root`.
    pub via_partition_root: bool,
    /// The tables among those asked for whose rows come under their names.
    pub tables: BTreeMap<TableName, Member>,
    /// The others.
    pub absent: BTreeMap<TableName, Absence>,
}

/// Why a table's rows do not come under its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Absence {
    /// It is not in the publication.
    NotMember,
    /// It is partitioned, and its rows come under the names of its partitions:
    /// `publish_via_partition_root` is false.
    AsPartitions,
    /// It is a partition, and its rows come under the name of this table.
    AsAncestor(TableName),
    /// No publication can hold what it is, in words.
    Unfit(&'static str),
}

/// A table of a publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The table's OID.
    pub oid: RelationId,
    /// The OID of its `pg_publication_rel` row; none where it comes by ALL TABLES or IN SCHEMA.
    pub member: Option<Oid>,
    /// The OID of its schema's `pg_publication_namespace` row; none where it does not come by
    /// IN SCHEMA.
    pub schema_member: Option<Oid>,
}

impl Publication {
    /// `publish` and `publish_via_partition_root`, as ALTER PUBLICATION takes them.
    pub fn options(&self) -> String {
        format!(
            "publish = '{}', publish_via_partition_root = {}",
            self.operations.join(", "),
            self.via_partition_root
        )
    }

    /// What it lacks of `needed`, in SQL's words.
    pub fn lacking(&self, needed: Operations) -> Vec<&'static str> {
        let is_lacking = |operation: &&str| !self.operations.contains(operation);
        needed.words().iter().copied().filter(is_lacking).collect()
    }

    /// Those of the tables that it does not hold and could.
    pub fn addable(&self) -> impl Iterator<Item = &TableName> {
        let absent = self.absent.iter();
        absent.filter(|(_, absence)| **absence == Absence::NotMember).map(|(table, _)| table)
    }

    /// The SQL after which these operations are published too.
    pub fn add_operations_sql(&self, publication: &PublicationName, lacking: &[&str]) -> String {
        let is_published = |operation: &&&str| {
            self.operations.contains(*operation) || lacking.contains(*operation)
        };
        let operations: Vec<&str> =
            Operations::All.words().iter().filter(is_published).copied().collect();
        let publication = quote_identifier(publication.as_str());
        format!("ALTER PUBLICATION {publication} SET (publish = '{}')", operations.join(", "))
    }
}

/// What a publication has to publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operations {
    /// Nothing: messages come in any case.
    None,
    /// What is inserted. An outbox needs no more, and a table without a key in a publication with
    /// updates makes the application's own UPDATE fail.
    Inserts,
    /// All of them.
    All,
}

impl Operations {
    /// As `publish` has them.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Inserts => &["insert"],
            Self::All => &["insert", "update", "delete", "truncate"],
        }
    }
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
    const SQL: &str = "SELECT oid, xmin::text, pubinsert, pubupdate, pubdelete, pubtruncate, \
        pubviaroot, current_setting('server_version_num')::int >= 150000 \
        FROM pg_publication WHERE pubname = $1";
    let action = format!("look up publication \"{publication}\"");
    let rows = sql.rows(&action, SQL, &[&publication.as_str()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let oid = Oid(row.get(0));
    let altered_by: String = row.get(1);
    let altered_by = altered_by.parse().map_err(|_| PostgresError::Protocol {
        what: format!("\"{altered_by}\" is no transaction, in the row of \"{publication}\""),
    })?;
    let operations = ["insert", "update", "delete", "truncate"].into_iter().enumerate();
    let operations = operations.filter(|(column, _)| row.get(column + 2)).map(|(_, name)| name);
    let has_schemas = row.get(7);
    let members = members(sql, oid, tables, has_schemas).await?;
    let mut absent = BTreeMap::new();
    for table in tables.iter().filter(|table| !members.contains_key(table)) {
        absent.insert(table.clone(), absence(sql, oid, publication, table).await?);
    }
    Ok(Some(Publication {
        oid,
        altered_by: Xid(altered_by),
        operations: operations.collect(),
        via_partition_root: row.get(6),
        tables: members,
        absent,
    }))
}

async fn members(
    sql: &Sql,
    publication: Oid,
    tables: &[TableName],
    has_schemas: bool,
) -> Result<BTreeMap<TableName, Member>, PostgresError> {
    // pg_publication_tables is the truth about membership, ALL TABLES and IN SCHEMA included.
    const SQL: &str = "SELECT p.schemaname::text, p.tablename::text, c.oid, r.oid, n.oid \
        FROM pg_publication b \
        JOIN pg_publication_tables p ON p.pubname = b.pubname \
        JOIN unnest($2::text[], $3::text[]) AS asked (schema, name) \
            ON asked.schema = p.schemaname AND asked.name = p.tablename \
        JOIN pg_namespace n ON n.nspname = p.schemaname \
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
        LEFT JOIN pg_publication_rel r ON r.prrelid = c.oid AND r.prpubid = b.oid \
        WHERE b.oid = $1";
    // IN SCHEMA, and with it this catalog, exists from 15 on.
    const SCHEMA_SQL: &str = "SELECT pnnspid, oid FROM pg_publication_namespace WHERE pnpubid = $1";
    const ACTION: &str = "look up tables in their publication";
    let (schemas, names) = parameters(tables);
    let rows = sql.rows(ACTION, SQL, &[&publication.0, &schemas, &names]).await?;
    let by_schema = match has_schemas {
        true => sql.rows(ACTION, SCHEMA_SQL, &[&publication.0]).await?,
        false => Vec::new(),
    };
    let by_schema: BTreeMap<u32, u32> =
        by_schema.iter().map(|row| (row.get(0), row.get(1))).collect();
    let member = |row: &tokio_postgres::Row| {
        let (schema, name, namespace) = (row.get(0), row.get(1), row.get::<_, u32>(4));
        let member = Member {
            oid: RelationId(row.get(2)),
            member: row.get::<_, Option<u32>>(3).map(Oid),
            schema_member: by_schema.get(&namespace).copied().map(Oid),
        };
        (TableName { schema, name }, member)
    };
    Ok(rows.iter().map(member).collect())
}

/// The names of all tables whose rows a publication has come under them.
///
/// # Errors
/// Where the connection breaks.
pub async fn table_names(
    sql: &Sql,
    publication: &PublicationName,
) -> Result<Vec<TableName>, PostgresError> {
    const SQL: &str = "SELECT schemaname::text, tablename::text FROM pg_publication_tables \
        WHERE pubname = $1 ORDER BY 1, 2";
    let action = format!("list the tables of publication \"{publication}\"");
    let rows = sql.rows(&action, SQL, &[&publication.as_str()]).await?;
    let name = |row: &tokio_postgres::Row| TableName { schema: row.get(0), name: row.get(1) };
    Ok(rows.iter().map(name).collect())
}

/// Whether a publication holds at this moment the table that the stream describes so.
///
/// # Errors
/// Where the connection breaks.
pub async fn holds(
    sql: &Sql,
    publication: &PublicationName,
    relation: &Relation,
) -> Result<bool, PostgresError> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_publication_tables p \
        JOIN pg_namespace n ON n.nspname = p.schemaname \
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
        WHERE p.pubname = $1 AND p.schemaname = $2 AND p.tablename = $3 AND c.oid = $4)";
    let action = format!("look whether publication \"{publication}\" holds table {relation}");
    let Relation { id, schema, name, .. } = relation;
    let rows = sql.rows(&action, SQL, &[&publication.as_str(), schema, name, &id.0]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// A table that inherits from one that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heir {
    /// It.
    pub table: TableName,
    /// From which of these, directly or by others.
    pub parent: TableName,
    /// Whether its rows come.
    pub presence: Presence,
}

/// How the rows of a table that inherits come: always under its own name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// Not at all.
    Absent,
    /// By a row of its own in `pg_publication_rel`: whoever adds its parent without ONLY adds it too.
    Member,
    /// By its schema, or by ALL TABLES.
    Implied,
}

/// The tables that inherit from these, partitions apart.
///
/// # Errors
/// Where the connection breaks.
pub async fn heirs(
    sql: &Sql,
    publication: &PublicationName,
    tables: &[TableName],
) -> Result<Vec<Heir>, PostgresError> {
    const SQL: &str = "WITH RECURSIVE below (parent, relation) AS ( \
            SELECT a.oid, i.inhrelid \
            FROM unnest($1::text[], $2::text[]) AS asked (schema, name) \
            JOIN pg_namespace n ON n.nspname = asked.schema \
            JOIN pg_class a ON a.relnamespace = n.oid AND a.relname = asked.name \
            JOIN pg_inherits i ON i.inhparent = a.oid \
            WHERE a.relkind = 'r' \
            UNION \
            SELECT b.parent, i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.relation \
        ) \
        SELECT n.nspname::text, c.relname::text, pn.nspname::text, p.relname::text, \
            m.oid IS NOT NULL, t.tablename IS NOT NULL \
        FROM below b \
        JOIN pg_class c ON c.oid = b.relation AND c.relkind = 'r' AND c.relpersistence = 'p' \
        JOIN pg_namespace n ON n.oid = c.relnamespace \
        JOIN pg_class p ON p.oid = b.parent JOIN pg_namespace pn ON pn.oid = p.relnamespace \
        LEFT JOIN pg_publication q ON q.pubname = $3 \
        LEFT JOIN pg_publication_rel m ON m.prpubid = q.oid AND m.prrelid = c.oid \
        LEFT JOIN pg_publication_tables t ON t.pubname = q.pubname \
            AND t.schemaname = n.nspname AND t.tablename = c.relname \
        ORDER BY 1, 2";
    let (schemas, names) = parameters(tables);
    let rows = sql
        .rows("look up tables that inherit", SQL, &[&schemas, &names, &publication.as_str()])
        .await?;
    let heir = |row: &tokio_postgres::Row| Heir {
        table: TableName { schema: row.get(0), name: row.get(1) },
        parent: TableName { schema: row.get(2), name: row.get(3) },
        presence: match (row.get(4), row.get(5)) {
            (true, _) => Presence::Member,
            (false, true) => Presence::Implied,
            (false, false) => Presence::Absent,
        },
    };
    Ok(rows.iter().map(heir).collect())
}

/// Why the rows of a table that a publication does not have under its name do not come under it.
///
/// # Errors
/// Where the connection breaks.
pub async fn absence(
    sql: &Sql,
    publication_oid: Oid,
    publication: &PublicationName,
    table: &TableName,
) -> Result<Absence, PostgresError> {
    // A partition that is published without a row of its own in pg_publication_rel is so because
    // its ancestor is, or the whole schema or database.
    const SQL: &str = "SELECT above.schema, above.name, EXISTS ( \
            SELECT FROM pg_partition_tree(c.oid) below \
            JOIN pg_class b ON b.oid = below.relid AND b.oid <> c.oid \
            JOIN pg_namespace bn ON bn.oid = b.relnamespace \
            JOIN pg_publication_tables p ON p.pubname = $1 \
                AND p.schemaname = bn.nspname AND p.tablename = b.relname \
            WHERE NOT EXISTS ( \
                SELECT FROM pg_publication_rel r WHERE r.prrelid = b.oid AND r.prpubid = $4 \
            ) \
        ) \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        LEFT JOIN LATERAL ( \
            SELECT an.nspname::text AS schema, a.relname::text AS name \
            FROM pg_partition_ancestors(c.oid) ancestor \
            JOIN pg_class a ON a.oid = ancestor.relid AND a.oid <> c.oid \
            JOIN pg_namespace an ON an.oid = a.relnamespace \
            JOIN pg_publication_tables p ON p.pubname = $1 \
                AND p.schemaname = an.nspname AND p.tablename = a.relname \
            LIMIT 1 \
        ) above ON true \
        WHERE n.nspname = $2 AND c.relname = $3";
    let action = format!("look up table {table} in publication \"{publication}\"");
    let parameters: [&(dyn ToSql + Sync); 4] =
        [&publication.as_str(), &table.schema, &table.name, &publication_oid.0];
    let rows = sql.rows(&action, SQL, &parameters).await?;
    let Some(row) = rows.first() else { return Ok(Absence::NotMember) };
    if let Some(Kind::Other(what)) = catalog::kind(sql, table).await? {
        return Ok(Absence::Unfit(what));
    }
    Ok(match (row.get(0), row.get(1)) {
        (Some(schema), Some(name)) => Absence::AsAncestor(TableName { schema, name }),
        _ if row.get(2) => Absence::AsPartitions,
        _ => Absence::NotMember,
    })
}

/// Whether a publication, and the membership of a table in it, are as they are since before
/// everything that the slot still sends.
///
/// A slot's `catalog_xmin` lies at or below the oldest transaction that ran at a place of the log
/// that is confirmed, and at or below what the catalog snapshots of open transactions need. So a
/// catalog row of an earlier transaction was committed below `confirmed_flush`, and everything that
/// is sent is decoded under it. What is younger may be so too, but nothing shows it.
///
/// # Errors
/// Where the connection breaks.
pub async fn is_settled(
    sql: &Sql,
    publication: &PublicationName,
    member: Member,
    slot: &SlotName,
) -> Result<bool, PostgresError> {
    const SQL: &str = "SELECT age(p.xmin) > age(s.catalog_xmin) \
            AND ($3::oid IS NULL OR age(r.xmin) > age(s.catalog_xmin)) \
        FROM pg_replication_slots s, pg_publication p \
        LEFT JOIN pg_publication_rel r ON r.oid = $3 \
        WHERE s.slot_name = $1 AND p.pubname = $2";
    const SCHEMA_SQL: &str = "SELECT age(m.xmin) > age(s.catalog_xmin) \
        FROM pg_replication_slots s, pg_publication_namespace m \
        WHERE s.slot_name = $1 AND m.oid = $2";
    let action = format!("ask since when publication \"{publication}\" is as it is");
    let is_yes = |rows: Vec<tokio_postgres::Row>| {
        rows.first().and_then(|row| row.get::<_, Option<bool>>(0)) == Some(true)
    };
    let row = member.member.map(|oid| oid.0);
    let parameters: [&(dyn ToSql + Sync); 3] = [&slot.as_str(), &publication.as_str(), &row];
    let is_settled = is_yes(sql.rows(&action, SQL, &parameters).await?);
    let (None, Some(schema)) = (member.member, member.schema_member) else {
        return Ok(is_settled);
    };
    let rows = sql.rows(&action, SCHEMA_SQL, &[&slot.as_str(), &schema.0]).await?;
    Ok(is_settled && is_yes(rows))
}

/// The SQL that has a partitioned table's rows come under its own name.
pub fn via_root_sql(publication: &PublicationName) -> String {
    let publication = quote_identifier(publication.as_str());
    format!("ALTER PUBLICATION {publication} SET (publish_via_partition_root = true)")
}

/// The SQL that makes a publication. Where there are only messages it has no tables: those come
/// whatever it holds, but it must be there.
pub fn create_sql(
    publication: &PublicationName,
    tables: &[TableName],
    operations: Operations,
) -> String {
    let tables: Vec<String> = tables.iter().map(TableName::quoted).collect();
    let tables = match tables.as_slice() {
        [] => String::new(),
        tables => format!(" FOR TABLE {}", tables.join(", ")),
    };
    let words = match operations {
        Operations::None | Operations::Inserts => Operations::Inserts.words(),
        Operations::All => Operations::All.words(),
    };
    format!(
        "CREATE PUBLICATION {}{tables} WITH (publish = '{}', publish_via_partition_root = true)",
        quote_identifier(publication.as_str()),
        words.join(", "),
    )
}

/// The SQL that adds several tables.
pub fn add_tables_sql(publication: &PublicationName, tables: &[TableName]) -> String {
    let quoted: Vec<String> = tables.iter().map(TableName::quoted).collect();
    let publication = quote_identifier(publication.as_str());
    format!("ALTER PUBLICATION {publication} ADD TABLE {}", quoted.join(", "))
}

/// The SQL that adds a table.
pub fn add_table_sql(publication: &PublicationName, table: &TableName) -> String {
    add_tables_sql(publication, std::slice::from_ref(table))
}

/// Makes or alters a publication, by SQL of this module.
///
/// # Errors
/// Where a table is missing or not ours, or the connection breaks.
pub async fn change(
    sql: &Sql,
    publication: &PublicationName,
    statement: &str,
) -> Result<(), PostgresError> {
    sql.execute(&format!("make or alter publication \"{publication}\""), statement).await
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

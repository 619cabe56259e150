//! What a doctor asks the server: its settings, what is left of its slots and processes, and what
//! our role may do. Nothing is changed by it.

use tokio_postgres::types::ToSql;

use super::{PostgresError, PublicationName, SlotName, TableName, catalog::no_row, sql::Sql};

/// The server's settings, and how much of them is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnosis {
    /// As the server writes it, `15.18 (Debian …)`.
    pub version: String,
    /// As `server_version_num` has it, 150018.
    pub version_number: i32,
    /// `max_replication_slots`.
    pub slots_max: i64,
    /// Slots that there are.
    pub slots: i64,
    /// `max_wal_senders`.
    pub senders_max: i64,
    /// Walsenders that there are.
    pub senders: i64,
    /// `max_slot_wal_keep_size`, in MiB; none where there is no bound.
    pub slot_wal_keep_mebibytes: Option<i64>,
    /// `idle_replication_slot_timeout` in seconds; none before 18, and where there is no bound.
    pub idle_slot_timeout_seconds: Option<i64>,
    /// `synchronous_standby_names`.
    pub synchronous_standby_names: String,
    /// `synchronized_standby_slots`; none before 17.
    pub synchronized_standby_slots: Option<String>,
    /// Physical slots: standbys, most often.
    pub physical_slots: i64,
}

/// Asks for the server's settings.
///
/// # Errors
/// Where the connection breaks.
pub async fn server(sql: &Sql) -> Result<Diagnosis, PostgresError> {
    // pg_stat_replication lists a process of every role; only its columns are hidden from us.
    const SQL: &str = "SELECT current_setting('server_version'), \
        current_setting('server_version_num')::int, \
        current_setting('max_replication_slots')::int8, \
        (SELECT count(*) FROM pg_replication_slots), \
        current_setting('max_wal_senders')::int8, \
        (SELECT count(*) FROM pg_stat_replication), \
        (SELECT nullif(setting::int8, -1) FROM pg_settings \
            WHERE name = 'max_slot_wal_keep_size'), \
        (SELECT nullif(setting::int8, 0) * CASE unit WHEN 'min' THEN 60 ELSE 1 END \
            FROM pg_settings WHERE name = 'idle_replication_slot_timeout'), \
        current_setting('synchronous_standby_names'), \
        current_setting('synchronized_standby_slots', true), \
        (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical')";
    let rows = sql.rows("ask for the server's settings", SQL, &[]).await?;
    let row = rows.first().ok_or_else(|| no_row("the server's settings"))?;
    Ok(Diagnosis {
        version: row.get(0),
        version_number: row.get(1),
        slots_max: row.get(2),
        slots: row.get(3),
        senders_max: row.get(4),
        senders: row.get(5),
        slot_wal_keep_mebibytes: row.get(6),
        idle_slot_timeout_seconds: row.get(7),
        synchronous_standby_names: row.get(8),
        synchronized_standby_slots: row.get(9),
        physical_slots: row.get(10),
    })
}

/// The cluster's system identifier, for who may not replicate: `IDENTIFY_SYSTEM` tells it to others.
///
/// # Errors
/// Where the role may not ask for it, or the connection breaks.
pub async fn system_id(sql: &Sql) -> Result<String, PostgresError> {
    const SQL: &str = "SELECT system_identifier::text FROM pg_control_system()";
    let rows = sql.rows("ask for the system identifier", SQL, &[]).await?;
    rows.first().map(|row| row.get(0)).ok_or_else(|| no_row("the system identifier"))
}

/// The names of the standbys that follow the server at this moment; none for one whose name our role
/// may not see. Those of `application` are ours; a base backup is there for its time and fills no place.
///
/// # Errors
/// Where the connection breaks.
pub async fn standbys(sql: &Sql, application: &str) -> Result<Vec<Option<String>>, PostgresError> {
    const SQL: &str = "SELECT r.application_name FROM pg_stat_replication r \
        WHERE r.application_name IS DISTINCT FROM $1 \
        AND r.application_name IS DISTINCT FROM 'pg_basebackup' \
        AND r.state IS DISTINCT FROM 'backup' AND NOT EXISTS ( \
            SELECT FROM pg_replication_slots s \
            WHERE s.active_pid = r.pid AND s.slot_type = 'logical' \
        ) ORDER BY 1";
    let rows = sql.rows("list the standbys", SQL, &[&application]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What a slot has beside [`super::slot::Slot`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotMargin {
    /// What the server keeps for it; none on a standby, and where it keeps nothing.
    pub retained_bytes: Option<i64>,
    /// How much more may be written before the slot is in danger; none where there is no bound.
    pub safe_wal_bytes: Option<i64>,
    /// Whether it survives a failover; none before 17.
    pub failover: Option<bool>,
}

/// Asks what a slot has left; none where it does not exist.
///
/// # Errors
/// Where the connection breaks.
pub async fn slot_margin(sql: &Sql, slot: &SlotName) -> Result<Option<SlotMargin>, PostgresError> {
    const SQL: &str = "SELECT safe_wal_size, (to_jsonb(s) ->> 'failover')::bool, \
        CASE WHEN NOT pg_is_in_recovery() \
            THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 END \
        FROM pg_replication_slots s WHERE slot_name = $1";
    let action = format!("look at replication slot \"{slot}\"");
    let rows = sql.rows(&action, SQL, &[&slot.as_str()]).await?;
    let margin = |row: &tokio_postgres::Row| SlotMargin {
        safe_wal_bytes: row.get(0),
        failover: row.get(1),
        retained_bytes: row.get(2),
    };
    Ok(rows.first().map(margin))
}

/// Whether our role can make publications in the database.
///
/// # Errors
/// Where the connection breaks.
pub async fn may_create_in_database(sql: &Sql) -> Result<bool, PostgresError> {
    const SQL: &str = "SELECT has_database_privilege(current_database(), 'CREATE')";
    yes(sql, "ask for the role's rights", SQL, &[]).await
}

/// Whether our role counts as a table's owner, who alone can publish it.
///
/// # Errors
/// Where the connection breaks.
pub async fn owns_table(sql: &Sql, table: &TableName) -> Result<bool, PostgresError> {
    const SQL: &str = "SELECT pg_has_role(c.relowner, 'USAGE') \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = $1 AND c.relname = $2";
    let action = format!("ask who owns table {table}");
    yes(sql, &action, SQL, &[&table.schema, &table.name]).await
}

/// Whether our role counts as a publication's owner, who alone can alter it.
///
/// # Errors
/// Where the connection breaks.
pub async fn owns_publication(
    sql: &Sql,
    publication: &PublicationName,
) -> Result<bool, PostgresError> {
    const SQL: &str = "SELECT pg_has_role(pubowner, 'USAGE') \
        FROM pg_publication WHERE pubname = $1";
    let action = format!("ask who owns publication \"{publication}\"");
    yes(sql, &action, SQL, &[&publication.as_str()]).await
}

/// The condition under which a publication delivers a table's rows (15 and later).
///
/// # Errors
/// Where the connection breaks.
pub async fn row_filter(
    sql: &Sql,
    publication: &PublicationName,
    table: &TableName,
) -> Result<Option<String>, PostgresError> {
    const SQL: &str = "SELECT to_jsonb(t) ->> 'rowfilter' FROM pg_publication_tables t \
        WHERE pubname = $1 AND schemaname = $2 AND tablename = $3";
    let action = format!("look up table {table} in publication \"{publication}\"");
    let parameters: [&(dyn ToSql + Sync); 3] = [&publication.as_str(), &table.schema, &table.name];
    let rows = sql.rows(&action, SQL, &parameters).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// How many tables a publication has.
///
/// # Errors
/// Where the connection breaks.
pub async fn published_tables(
    sql: &Sql,
    publication: &PublicationName,
) -> Result<i64, PostgresError> {
    const SQL: &str = "SELECT count(*) FROM pg_publication_tables WHERE pubname = $1";
    let action = format!("count the tables of publication \"{publication}\"");
    let rows = sql.rows(&action, SQL, &[&publication.as_str()]).await?;
    rows.first().map(|row| row.get(0)).ok_or_else(|| no_row("the publication's tables"))
}

/// The table itself, or the first of its partitions, whose rows a publication's updates and deletes
/// could not name, so that the server refuses them: REPLICA IDENTITY NOTHING, or DEFAULT without a
/// primary key. None where there is no such.
///
/// # Errors
/// Where the connection breaks.
pub async fn without_identity(
    sql: &Sql,
    table: &TableName,
) -> Result<Option<TableName>, PostgresError> {
    // What a partitioned table says of itself its partitions need not say. Of an ordinary table
    // there is no tree.
    const SQL: &str = "SELECT n.nspname::text, l.relname::text \
        FROM pg_class c JOIN pg_namespace cn ON cn.oid = c.relnamespace \
        CROSS JOIN LATERAL (SELECT c.oid UNION SELECT relid FROM pg_partition_tree(c.oid)) m (oid) \
        JOIN pg_class l ON l.oid = m.oid JOIN pg_namespace n ON n.oid = l.relnamespace \
        WHERE cn.nspname = $1 AND c.relname = $2 AND l.relkind = 'r' AND (l.relreplident = 'n' \
            OR l.relreplident = 'd' AND NOT EXISTS ( \
                SELECT FROM pg_index i WHERE i.indrelid = l.oid AND i.indisprimary)) \
        ORDER BY 1, 2 LIMIT 1";
    let action = format!("ask for the replica identity of table {table}");
    let rows = sql.rows(&action, SQL, &[&table.schema, &table.name]).await?;
    Ok(rows.first().map(|row| TableName { schema: row.get(0), name: row.get(1) }))
}

/// The partitions of a table whose updates and deletes carry other columns of the old row than the
/// table says that they do, and fewer than all.
///
/// # Errors
/// Where the connection breaks.
pub async fn partitions_of_other_identity(
    sql: &Sql,
    table: &TableName,
) -> Result<Vec<TableName>, PostgresError> {
    const SQL: &str = "WITH member AS ( \
            SELECT l.oid, l.relname, l.relnamespace, l.relreplident, c.oid = l.oid AS is_root, \
                ARRAY(SELECT a.attname::text FROM pg_index i \
                    JOIN pg_attribute a ON a.attrelid = i.indrelid \
                        AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
                    WHERE i.indrelid = l.oid AND CASE l.relreplident WHEN 'd' THEN i.indisprimary \
                        WHEN 'i' THEN i.indisreplident ELSE false END ORDER BY 1) AS columns \
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
            JOIN pg_partition_tree(c.oid) t ON t.isleaf OR t.relid = c.oid \
            JOIN pg_class l ON l.oid = t.relid \
            WHERE n.nspname = $1 AND c.relname = $2 AND l.relkind IN ('r', 'p')) \
        SELECT n.nspname::text, leaf.relname::text FROM member root, member leaf \
        JOIN pg_namespace n ON n.oid = leaf.relnamespace \
        WHERE root.is_root AND NOT leaf.is_root AND leaf.relreplident <> 'f' \
            AND (root.relreplident = 'f' OR leaf.columns <> root.columns) ORDER BY 1, 2";
    let action = format!("ask for the replica identities of the partitions of {table}");
    let rows = sql.rows(&action, SQL, &[&table.schema, &table.name]).await?;
    let name = |row: &tokio_postgres::Row| TableName { schema: row.get(0), name: row.get(1) };
    Ok(rows.iter().map(name).collect())
}

/// A yes; no where there is no row.
async fn yes(
    sql: &Sql,
    action: &str,
    query: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<bool, PostgresError> {
    let rows = sql.rows(action, query, parameters).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

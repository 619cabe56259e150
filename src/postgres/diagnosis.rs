//! What a doctor asks the server: its settings, what is left of its slots and processes, and what
//! our role may do. Nothing is changed by it.

use tokio_postgres::types::ToSql;

use super::{
    PostgresError, PublicationName, SlotName, TableName, catalog::no_row, quote_identifier,
    sql::Sql,
};

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

/// Whether our role may read a table's rows, which the stream does not ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readable {
    /// Each of them.
    Yes,
    /// It has not been granted the right.
    NotGranted,
    /// A policy would hide some.
    HiddenByPolicy,
}

/// The SQL that lets a role read a table's rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadRights {
    /// Where it has not been granted the right.
    pub grant: String,
    /// Where a policy hides rows from it.
    pub bypass: String,
}

impl ReadRights {
    /// Of this table, for this role.
    pub fn of(table: &TableName, role: &str) -> Self {
        let (schema, role) = (quote_identifier(&table.schema), quote_identifier(role));
        Self {
            grant: format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {} TO {role};",
                table.quoted()
            ),
            bypass: format!("ALTER ROLE {role} BYPASSRLS;"),
        }
    }

    /// What to do, where it is not known which of them it is.
    pub fn hint(&self) -> String {
        let Self { grant, bypass } = self;
        format!("Run: {grant} Where row-level security hides rows from it: {bypass}")
    }
}

/// Whether our role may read all rows of a table, each column; where there is one.
///
/// # Errors
/// Where the connection breaks.
pub async fn readable(sql: &Sql, table: &TableName) -> Result<Readable, PostgresError> {
    const SQL: &str = "SELECT has_schema_privilege(n.oid, 'USAGE') \
            AND (has_table_privilege(c.oid, 'SELECT') OR ( \
                SELECT bool_and(has_column_privilege(c.oid, a.attnum, 'SELECT')) \
                FROM pg_attribute a \
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)), \
            row_security_active(c.oid) \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = $1 AND c.relname = $2";
    let action = format!("ask who may read table {table}");
    let rows = sql.rows(&action, SQL, &[&table.schema, &table.name]).await?;
    Ok(match rows.first().map(|row| (row.get(0), row.get(1))) {
        Some((Some(false) | None, _)) => Readable::NotGranted,
        Some((Some(true), true)) => Readable::HiddenByPolicy,
        Some((Some(true), false)) | None => Readable::Yes,
    })
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

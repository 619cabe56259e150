//! Which rows wait: what was asked for, and what the catalog has of it.

use super::{
    super::{
        settings::Settings,
        start::{Failed, Ground},
    },
    error::TakeOverError,
};
use crate::{
    change::{Column, Oid},
    checkpoint::TakeOver,
    postgres::{
        PostgresError, TableName, catalog,
        snapshot::{self, RowsQuery},
    },
};

/// Types by whose values rows can be ordered without a time: those that a sequence makes.
const SEQUENCED: [Oid; 3] = [Oid(20), Oid(21), Oid(23)];

/// The table, which must be an outbox of ours.
pub(super) fn configured(settings: &Settings, table: &str) -> Result<TableName, TakeOverError> {
    let found = settings.tables.iter().find(|configured| configured.to_string() == table);
    found.cloned().ok_or_else(|| TakeOverError::NotConfigured { table: table.to_owned() })
}

/// Whether the condition is the one that rows were published by. As long as none is, any will do.
pub(super) fn judge_condition(
    table: &TableName,
    condition: &str,
    record: &TakeOver,
) -> Result<(), TakeOverError> {
    match &record.published {
        Some(published) if record.condition != condition => Err(TakeOverError::OtherCondition {
            table: table.clone(),
            begun: record.condition.clone(),
            rows: published.rows,
        }),
        Some(_) | None => Ok(()),
    }
}

/// The rows that wait.
pub(super) struct Waiting {
    pub(super) query: RowsQuery,
    /// What they consist of.
    pub(super) columns: Vec<Column>,
}

/// Which rows wait, as the publication delivers them.
pub(super) async fn waiting(
    ground: &Ground<'_>,
    table: &TableName,
    condition: &str,
) -> Result<Waiting, Failed> {
    let settings = ground.settings;
    let outbox = settings.event.outbox(&table.schema, &table.name);
    let names = &outbox.ok_or_else(|| not_configured(table))?.columns;
    let found = catalog::published_table(&ground.sql, &settings.publication, table).await?;
    let found = found.ok_or_else(|| not_configured(table))?;
    let column = |name: &str| found.columns.iter().find(|column| column.name == name);
    let (id, created_at) = (names.id.as_str(), names.created_at.as_str());
    let is_timed = column(created_at).is_some();
    let is_sequenced = column(id).is_some_and(|column| SEQUENCED.contains(&column.type_oid));
    if !is_timed && !is_sequenced {
        let (table, column) = (table.clone(), created_at.to_owned());
        return Err(TakeOverError::NoOrder { table, column }.into());
    }
    let query = RowsQuery {
        table: table.clone(),
        is_partitioned: snapshot::is_partitioned(&ground.sql, table).await?,
        columns: found.columns.iter().map(|column| column.name.clone()).collect(),
        condition: condition.to_owned(),
        row_filter: found.row_filter,
        created_at: is_timed.then(|| created_at.to_owned()),
        id: id.to_owned(),
    };
    let columns = found.columns.into_iter().map(|column| Column {
        name: column.name,
        type_oid: column.type_oid,
        type_modifier: -1,
        is_replica_identity: false,
    });
    Ok(Waiting { query, columns: columns.collect() })
}

fn not_configured(table: &TableName) -> TakeOverError {
    TakeOverError::NotConfigured { table: table.to_string() }
}

/// Whether the server can read these rows, before anything is made for them.
pub(super) async fn check_query(
    ground: &Ground<'_>,
    table: &TableName,
    condition: &str,
) -> Result<(), Failed> {
    let Waiting { query, .. } = waiting(ground, table, condition).await?;
    let role = &ground.settings.postgres.user;
    query.check(&ground.sql).await.map_err(|error| refused(&query, role, error))
}

/// Why the rows cannot be read: by what was asked for, or by what the server is. An expression may
/// be one that PostgreSQL takes, and fail for a value.
pub(super) fn refused(query: &RowsQuery, role: &str, error: PostgresError) -> Failed {
    let table = query.table.clone();
    match error.sqlstate() {
        Some("42501") => TakeOverError::Forbidden { table, role: role.to_owned() }.into(),
        Some(state) if state.starts_with("42") || state.starts_with("22") => {
            let condition = query.condition.clone();
            TakeOverError::Condition { table, condition, source: Box::new(error) }.into()
        }
        Some(_) | None => error.into(),
    }
}

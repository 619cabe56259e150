//! The configured tables: which there are, and whether they can be published, looked up before
//! anything is made: a misspelt name is a mistake of the settings, and no server that may come back.
//!
//! Those that are configured by a pattern are the ones of them that the publication holds.

use std::sync::Arc;

use tracing::warn;

use crate::{
    change::ReplicaIdentity,
    event::table::{DescribedColumn, Description, PrimaryKey},
    failure::{Code, Failure, Recovery},
    pipeline::settings::Settings,
    postgres::{
        PostgresError, TableName, catalog,
        column_types::look_up,
        diagnosis,
        publication::{self, Operations},
        sql::Sql,
    },
    value::{Type, Types},
};

/// Below it, the nearest name is probably not what was meant (`strsim::jaro_winkler`, 0 to 1).
pub(super) const LIKENESS_MIN: f64 = 0.8;

/// A configured table that cannot be published.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableMistake {
    /// There is none of that name.
    #[error("{kind} \"{table}\" does not exist in database \"{database}\"")]
    Missing {
        /// As what it is configured.
        kind: Kind,
        /// As configured.
        table: TableName,
        /// Where it was looked for.
        database: String,
        /// The table whose name is most like it.
        nearest: Option<TableName>,
    },
    /// What has that name cannot be published.
    #[error("{kind} \"{table}\" is {what}, which PostgreSQL cannot publish")]
    Unfit {
        /// As what it is configured.
        kind: Kind,
        /// As configured.
        table: TableName,
        /// What it is instead.
        what: &'static str,
    },
    /// Logical messages come in the database's own encoding, unlike rows.
    #[error(
        "database \"{database}\" is in {encoding}, and the content of a [[message]] comes in it as \
         it is, not in UTF-8"
    )]
    Encoding {
        /// Where messages would come from.
        database: String,
        /// As `server_encoding` has it.
        encoding: String,
    },
}

/// As what a table is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// By `[[outbox]]`.
    Outbox,
    /// By `[[table]]`.
    Domain,
}

impl Kind {
    /// The key of the settings that names it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Outbox => "outbox.table",
            Self::Domain => "table.name",
        }
    }

    /// The section of the settings that names it.
    pub(super) fn section(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::Domain => "table",
        }
    }

    /// The setting that names this table.
    pub(super) fn naming(self, table: &TableName) -> String {
        match self {
            Self::Outbox => format!("table = \"{table}\" under [[outbox]]"),
            Self::Domain => format!("name = \"{table}\" under [[table]]"),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Outbox => "outbox table",
            Self::Domain => "table",
        })
    }
}

impl Failure for TableMistake {
    fn code(&self) -> Option<Code> {
        Some(Code::Settings)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { kind, nearest, .. } => {
                let nearest = nearest.as_ref().map_or(String::new(), |nearest| {
                    format!(" The nearest name that exists is \"{nearest}\".")
                });
                let start = match kind {
                    Kind::Outbox => " (schemas/outbox.sql has one to start from)",
                    Kind::Domain => "",
                };
                format!(
                    "Correct {}, or create the table{start}. It is written as schema.table, as the \
                     catalog has both: with its capitals, without quotes, without the \
                     database.{nearest}",
                    kind.key()
                )
            }
            Self::Encoding { .. } => "Use an outbox table, whose values the server converts, or a \
                                      database in UTF8."
                .to_owned(),
            Self::Unfit { kind, .. } => format!(
                "Name an ordinary or partitioned table under {}: one that is logged, of a schema of \
                 its own, and no view.",
                kind.key()
            ),
        })
    }
}

/// Why the tables could not be found fit.
pub(super) type Checked = Result<Result<(), TableMistake>, PostgresError>;

/// Looks the configured tables up. The outer error is the connection's.
pub(super) async fn check(settings: &Settings, sql: &Sql) -> Checked {
    if let Err(mistake) = check_encoding(settings, sql).await? {
        return Ok(Err(mistake));
    }
    for table in &settings.tables {
        if let Err(mistake) = check_table(settings, sql, table).await? {
            return Ok(Err(mistake));
        }
    }
    Ok(Ok(()))
}

/// Whether messages, where there are to be such, come in an encoding that events can have.
pub(super) async fn check_encoding(settings: &Settings, sql: &Sql) -> Checked {
    if settings.event.messages.is_empty() {
        return Ok(Ok(()));
    }
    let encoding = catalog::encoding(sql).await?;
    // The other one is no encoding at all: bytes are what the application wrote.
    if ["UTF8", "SQL_ASCII"].contains(&encoding.as_str()) {
        return Ok(Ok(()));
    }
    let database = settings.postgres.database.clone();
    Ok(Err(TableMistake::Encoding { database, encoding }))
}

/// Looks one of the tables up.
pub(super) async fn check_table(settings: &Settings, sql: &Sql, table: &TableName) -> Checked {
    Ok(match catalog::kind(sql, table).await? {
        Some(catalog::Kind::Publishable) => Ok(()),
        Some(catalog::Kind::Other(what)) => {
            Err(TableMistake::Unfit { kind: kind_of(settings, table), table: table.clone(), what })
        }
        None => {
            let nearest = nearest(table, catalog::table_names(sql).await?);
            let database = settings.postgres.database.clone();
            let kind = kind_of(settings, table);
            Err(TableMistake::Missing { kind, table: table.clone(), database, nearest })
        }
    })
}

pub(super) fn kind_of(settings: &Settings, table: &TableName) -> Kind {
    match settings.event.outbox(&table.schema, &table.name) {
        Some(_) => Kind::Outbox,
        None => Kind::Domain,
    }
}

/// The configured tables: those that are named, and those that a pattern names and the publication
/// holds.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn published(
    settings: &Settings,
    sql: &Sql,
) -> Result<Vec<TableName>, PostgresError> {
    if !has_patterns(settings) {
        return Ok(settings.tables.clone());
    }
    Ok(with_patterns(settings, publication::table_names(sql, &settings.publication).await?))
}

/// What a publication has to hold, and what it cannot.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The tables that are configured by their names, and those of patterns whose rows can be named.
    pub(super) tables: Vec<TableName>,
    /// The others of patterns: with their updates published, the application could not update them
    /// any more.
    pub(super) nameless: Vec<TableName>,
}

/// Which tables a publication has to hold.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn wanted(settings: &Settings, sql: &Sql) -> Result<Wanted, PostgresError> {
    let mut wanted = Wanted { tables: settings.tables.clone(), nameless: Vec::new() };
    if !has_patterns(settings) {
        return Ok(wanted);
    }
    let matching = with_patterns(settings, catalog::table_names(sql).await?);
    for table in matching.into_iter().filter(|table| !settings.tables.contains(table)) {
        // A partition comes with its root.
        if catalog::is_partition(sql, &table).await? {
            continue;
        }
        let identity = catalog::row_identity(sql, &table).await?;
        let is_nameless = identity.is_some_and(|identity| identity.is_missing())
            || diagnosis::without_identity(sql, &table).await?.is_some();
        match is_nameless {
            true => wanted.nameless.push(table),
            false => wanted.tables.push(table),
        }
    }
    Ok(wanted)
}

/// The same for who makes it so, with a word of what is left out.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn to_publish(
    settings: &Settings,
    sql: &Sql,
) -> Result<Vec<TableName>, PostgresError> {
    let Wanted { tables, nameless } = wanted(settings, sql).await?;
    for table in nameless {
        warn!(
            %table,
            "left out of the publication, though a [[table]] matches it: it has neither a primary \
             key nor another replica identity, and with updates published the application could \
             not update it"
        );
    }
    Ok(tables)
}

/// Those of the publication, or what it has to hold where it is not there yet.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn expected(
    settings: &Settings,
    sql: &Sql,
) -> Result<Vec<TableName>, PostgresError> {
    match publication::describe(sql, &settings.publication, &[]).await? {
        Some(_) => published(settings, sql).await,
        None => to_publish(settings, sql).await,
    }
}

fn has_patterns(settings: &Settings) -> bool {
    settings.event.tables.iter().any(|table| table.name.exact().is_none())
}

fn with_patterns(settings: &Settings, found: Vec<TableName>) -> Vec<TableName> {
    let is_new =
        |table: &TableName| settings.is_configured(table) && !settings.tables.contains(table);
    settings.tables.iter().cloned().chain(found.into_iter().filter(is_new)).collect()
}

/// All domain tables as the publication delivers them, or would: a table that it does not hold yet is
/// described as it is.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn descriptions(
    settings: &Settings,
    sql: &Sql,
) -> Result<Vec<Description>, PostgresError> {
    let publication = &settings.publication;
    let mut descriptions = Vec::new();
    let tables = expected(settings, sql).await?;
    for name in tables.iter().filter(|name| kind_of(settings, name) == Kind::Domain) {
        // One that is dropped at this moment has no events.
        let Some(table) = catalog::published_table(sql, publication, name).await? else { continue };
        let Some(identity) = catalog::row_identity(sql, name).await? else { continue };
        descriptions.push(description(sql, name, &table, identity).await?);
    }
    Ok(descriptions)
}

/// A domain table as the publication delivers it.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn description(
    sql: &Sql,
    name: &TableName,
    table: &catalog::Table,
    identity: catalog::RowIdentity,
) -> Result<Description, PostgresError> {
    let mut types = Types::new();
    let missing = types.missing(table.columns.iter().map(|column| column.own_type_oid));
    for learnt in look_up(sql, &missing).await? {
        types.insert(learnt);
    }
    let is_full = identity.replica_identity == ReplicaIdentity::Full;
    let column = |column: &catalog::TableColumn| DescribedColumn {
        name: column.name.clone(),
        column_type: types
            .get(column.own_type_oid)
            .map_or_else(|| Type::unknown(column.own_type_oid), Arc::clone),
        is_replica_identity: is_full || identity.columns.contains(&column.name),
    };
    Ok(Description {
        schema: name.schema.clone(),
        name: name.name.clone(),
        replica_identity: identity.replica_identity,
        columns: table.columns.iter().map(column).collect(),
        primary_key: PrimaryKey::Columns(identity.primary_key.clone()),
    })
}

/// The SQL that makes the publication.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn create_sql(settings: &Settings, sql: &Sql) -> Result<String, PostgresError> {
    let tables = to_publish(settings, sql).await?;
    let operations = settings.operations(&tables);
    Ok(publication::create_sql(&settings.publication, &tables, operations))
}

/// The first table, or partition, that would lose its updates by being published.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn first_without_identity(
    settings: &Settings,
    sql: &Sql,
    tables: &[TableName],
) -> Result<Option<TableName>, PostgresError> {
    if settings.operations(tables) != Operations::All {
        return Ok(None);
    }
    for table in tables {
        if let Some(nameless) = diagnosis::without_identity(sql, table).await? {
            return Ok(Some(nameless));
        }
    }
    Ok(None)
}

/// The name that was probably meant. What was written may have the database before it, quotes that
/// do not belong there, or other capitals.
fn nearest(table: &TableName, names: Vec<TableName>) -> Option<TableName> {
    let plain = |name: &TableName| name.to_string().replace('"', "").to_lowercase();
    let written = plain(table);
    let behind_database = written.split_once('.').map_or("", |(_, rest)| rest);
    let likeness = |name: &TableName| {
        let name = plain(name);
        let likeness = |written: &str| strsim::jaro_winkler(&name, written);
        likeness(&written).max(likeness(behind_database))
    };
    names
        .into_iter()
        .map(|name| (likeness(&name), name))
        .filter(|(likeness, _)| *likeness > LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(schema: &str, name: &str) -> TableName {
        TableName { schema: schema.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn the_nearest_table_is_found_behind_quotes_capitals_and_the_database() {
        let names = || vec![name("public", "orders"), name("public", "Outbox"), name("shop", "x")];
        for written in [
            name("public", "outbox"),
            name("public", "\"Outbox\""),
            name("public", "outbx"),
            name("db", "public.outbox"),
        ] {
            assert_eq!(nearest(&written, names()), Some(name("public", "Outbox")), "{written}");
        }
        assert_eq!(nearest(&name("billing", "ledger"), names()), None);
    }

    #[test]
    fn a_missing_table_is_a_mistake_of_the_settings() {
        let mistake = TableMistake::Missing {
            kind: Kind::Outbox,
            table: name("public", "outbox_event"),
            database: "shop".to_owned(),
            nearest: Some(name("public", "outbox_events")),
        };
        assert_eq!(
            mistake.to_string(),
            "outbox table \"public.outbox_event\" does not exist in database \"shop\""
        );
        assert_eq!(mistake.code(), Some(Code::Settings));
        assert_eq!(mistake.recovery(), Recovery::Stop);
        assert!(mistake.hint().expect("a hint").ends_with("\"public.outbox_events\"."));
    }
}

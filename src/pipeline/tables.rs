//! The configured tables: which there are, and whether they can be published, looked up before
//! anything is made: a misspelt name is a mistake of the settings, and no server that may come back.
//!
//! Those that are configured by a pattern are the ones of them that the publication holds.

use std::collections::BTreeSet;

use tracing::warn;

use crate::{
    failure::{Code, Failure, Recovery},
    pipeline::settings::Settings,
    postgres::{
        PostgresError, TableName,
        catalog::{self, Publishable},
        identity::{self, Nameless},
        publication,
        sql::Sql,
    },
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
            let names = catalog::publishable(sql).await?.into_iter().map(|found| found.name);
            let nearest = nearest(table, names.collect());
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

/// What a publication that is made has to hold: of the tables that a pattern names those whose rows
/// can be named, because the application could not update the others any more.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn to_publish(
    settings: &Settings,
    sql: &Sql,
) -> Result<Vec<TableName>, PostgresError> {
    if !has_patterns(settings) {
        return Ok(settings.tables.clone());
    }
    let mut tables = published(settings, sql).await?;
    let Unpublished { joinable, nameless, .. } = unpublished(settings, sql, &tables).await?;
    for Nameless { table, reason, .. } in nameless {
        warn!(
            %table,
            reason,
            "left out of the publication, though a [[table]] matches it: with updates published \
             the application could not update it"
        );
    }
    tables.extend(joinable);
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
    let mut tables = published(settings, sql).await?;
    if publication::describe(sql, &settings.publication, &[]).await?.is_none() {
        tables.extend(unpublished(settings, sql, &tables).await?.joinable);
    }
    Ok(tables)
}

/// Tables that a pattern names and the publication does not hold.
#[derive(Debug, Default)]
pub(super) struct Unpublished {
    /// Those that it can hold.
    pub(super) joinable: Vec<TableName>,
    /// Those, or partitions of such, whose rows cannot be named.
    pub(super) nameless: Vec<Nameless>,
    /// Partitions, with the tables whose rows theirs are; no section has these.
    pub(super) apart: Vec<(TableName, TableName)>,
}

/// What patterns name beside what is `published`.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn unpublished(
    settings: &Settings,
    sql: &Sql,
    published: &[TableName],
) -> Result<Unpublished, PostgresError> {
    let mut found = Unpublished::default();
    if !has_patterns(settings) {
        return Ok(found);
    }
    let published: BTreeSet<&TableName> = published.iter().collect();
    for Publishable { name, root } in catalog::publishable(sql).await? {
        if !settings.is_configured(&name) || published.contains(&name) {
            continue;
        }
        match root {
            None => found.joinable.push(name),
            // It comes with its root.
            Some(root) if settings.is_configured(&root) => {}
            Some(root) => found.apart.push((name, root)),
        }
    }
    found.nameless = identity::nameless(sql, &found.joinable).await?;
    let is_nameless = |table: &TableName| {
        found.nameless.iter().any(|it| it.root.as_ref().unwrap_or(&it.table) == table)
    };
    found.joinable.retain(|table| !is_nameless(table));
    Ok(found)
}

fn has_patterns(settings: &Settings) -> bool {
    settings.event.tables.iter().any(|table| table.name.exact().is_none())
}

fn with_patterns(settings: &Settings, found: Vec<TableName>) -> Vec<TableName> {
    let is_new =
        |table: &TableName| settings.is_configured(table) && !settings.tables.contains(table);
    settings.tables.iter().cloned().chain(found.into_iter().filter(is_new)).collect()
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

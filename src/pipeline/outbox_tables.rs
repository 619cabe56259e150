//! Whether the configured tables can be outboxes, looked up before anything is made: a misspelt
//! name is a mistake of the settings, and no server that may come back.

use crate::{
    failure::{Code, Failure, Recovery},
    pipeline::settings::Settings,
    postgres::{PostgresError, TableName, catalog, sql::Sql},
};

/// Below it, the nearest name is probably not what was meant (`strsim::jaro_winkler`, 0 to 1).
pub(super) const LIKENESS_MIN: f64 = 0.8;

/// A configured table that can be no outbox.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableMistake {
    /// There is none of that name.
    #[error("outbox table \"{table}\" does not exist in database \"{database}\"")]
    Missing {
        /// As configured.
        table: TableName,
        /// Where it was looked for.
        database: String,
        /// The table whose name is most like it.
        nearest: Option<TableName>,
    },
    /// What has that name cannot be published.
    #[error("outbox table \"{table}\" is {what}, which PostgreSQL cannot publish")]
    Unfit {
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

impl Failure for TableMistake {
    fn code(&self) -> Option<Code> {
        Some(Code::Settings)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { nearest, .. } => {
                let nearest = nearest.as_ref().map_or(String::new(), |nearest| {
                    format!(" The nearest name that exists is \"{nearest}\".")
                });
                format!(
                    "Correct outbox.table, or create the table (schemas/outbox.sql has one to \
                     start from). It is written as schema.table, as the catalog has both: with \
                     its capitals, without quotes, without the database.{nearest}"
                )
            }
            Self::Encoding { .. } => "Use an outbox table, whose values the server converts, or a \
                                      database in UTF8."
                .to_owned(),
            Self::Unfit { .. } => "Name an ordinary or partitioned table under outbox.table: one \
                                   that is logged, of a schema of its own, and no view."
                .to_owned(),
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
        Some(catalog::Kind::Other(what)) => Err(TableMistake::Unfit { table: table.clone(), what }),
        None => {
            let nearest = nearest(table, catalog::table_names(sql).await?);
            let database = settings.postgres.database.clone();
            Err(TableMistake::Missing { table: table.clone(), database, nearest })
        }
    })
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

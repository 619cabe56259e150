//! The columns of the tables, as the publication delivers them.

use super::finding::Finding;
use crate::{
    event::{ColumnProblem, EventError, Mapping, table::TableProblem},
    failure::Failure,
    pipeline::{published_tables::PublishedTables, settings::Settings, tables::LIKENESS_MIN},
    postgres::{TableName, catalog, quote_identifier, sql::Sql},
};

/// Whether the columns that come by are what events need.
pub(super) async fn examine(
    settings: &Settings,
    sql: &Sql,
    mapping: &Mapping,
    delivered: &PublishedTables,
    table: &TableName,
) -> Finding {
    const NAME: &str = "columns";
    let failure = match delivered.check(settings, mapping, table) {
        Ok([]) => {
            return Finding::fine(NAME, format!("table {table} has what events need"));
        }
        Ok(withheld) => {
            let names: Vec<String> =
                withheld.iter().map(|column| format!("\"{}\"", column.name)).collect();
            return Finding::note(
                NAME,
                format!(
                    "the publication does not deliver {} of {table}; events do without",
                    names.join(", ")
                ),
            );
        }
        Err(failure) => failure,
    };
    let error: &dyn std::error::Error = &*failure;
    let (column, problem) = match error.downcast_ref() {
        Some(EventError::Column { column, problem, .. }) => (column, problem),
        Some(EventError::Table { problem, .. }) => return of_table(&*failure, table, problem),
        Some(EventError::Unmappable { .. } | EventError::UnmappableMessage { .. }) | None => {
            return Finding::of(NAME, &*failure);
        }
    };
    let nearest = match problem {
        ColumnProblem::Missing { .. } => {
            let found = catalog::published_table(sql, &settings.publication, table).await;
            let columns = found.ok().flatten().map(|table| table.columns).unwrap_or_default();
            nearest(column, columns.into_iter().map(|column| column.name))
        }
        ColumnProblem::NotPublished { .. } | ColumnProblem::Type { .. } => None,
    };
    Finding::refused(NAME, &*failure, mend(table, column, problem, nearest))
}

/// What does not fit of a domain table.
fn of_table(failure: &dyn Failure, table: &TableName, problem: &TableProblem) -> Finding {
    const NAME: &str = "columns";
    match problem {
        TableProblem::NotInIdentity { quoted_table, role, .. } => {
            let fix = format!(
                "ALTER TABLE {quoted_table} REPLICA IDENTITY FULL; -- or name other columns under \
                 {role} of the [[table]] of \"{table}\" in the settings file"
            );
            Finding::refused("replica_identity", failure, fix)
        }
        TableProblem::Missing { column, role, nearest: Some(nearest) } => {
            let fix = format!(
                "write \"{nearest}\" in the place of \"{column}\" in {role} of the [[table]] of \
                 \"{table}\" in the settings file, or give the table such a column"
            );
            Finding::refused(NAME, failure, fix)
        }
        TableProblem::Rules(_) => match problem.mend_sql() {
            Some(sql) => {
                let fix =
                    format!("{sql}; -- updates and deletes carry the whole old row from then on");
                Finding::refused(NAME, failure, fix)
            }
            None => Finding::of(NAME, failure),
        },
        TableProblem::Missing { nearest: None, .. }
        | TableProblem::KeyRenamed { .. }
        | TableProblem::KeyUnknown
        | TableProblem::Form { .. }
        | TableProblem::ShownByKey { .. }
        | TableProblem::Topic(_) => Finding::of(NAME, failure),
    }
}

/// The column that was probably meant.
fn nearest(column: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let written = column.to_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&written, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness > LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, name)| name)
}

/// What gives events the column that is needed.
fn mend(
    table: &TableName,
    column: &str,
    problem: &ColumnProblem,
    nearest: Option<String>,
) -> String {
    let (quoted, column) = (table.quoted(), quote_identifier(column));
    match problem {
        // The setting comes first: most often the table has the column under another name, and a
        // new one is NULL in every row.
        ColumnProblem::Missing { role } => format!(
            "{} -- or give the table such a column: ALTER TABLE {quoted} ADD COLUMN {column} {};",
            naming(role, &nearest.unwrap_or_else(|| "<the column that has it>".to_owned())),
            type_of(role)
        ),
        ColumnProblem::NotPublished { mend, .. } => pasteable(mend),
        ColumnProblem::Type { role, .. } => {
            let new = type_of(role);
            let value = match new {
                "jsonb" => format!("to_jsonb({column})"),
                new => format!("{column}::text::{new}"),
            };
            format!(
                "ALTER TABLE {quoted} ALTER COLUMN {column} TYPE {new} USING {value}; -- or name \
                 another column under {role} in the settings file"
            )
        }
    }
}

/// The setting that names a column of the table.
fn naming(role: &str, column: &str) -> String {
    match role.strip_prefix("columns.") {
        Some(name) => format!(
            "write columns = {{ {name} = \"{column}\" }} under [[outbox]] in the settings file, \
             beside what columns holds already"
        ),
        None => format!("name a column of the table (\"{column}\") in {role} in the settings file"),
    }
}

/// A sentence with its SQL behind a colon, as SQL with the rest in a comment.
fn pasteable(mend: &str) -> String {
    let Some((why, sql)) = mend.split_once(": ") else { return mend.to_owned() };
    let sql = sql.trim_end_matches('.');
    let (sql, then) = sql.split_once(", and ").unwrap_or((sql, ""));
    let comma = if then.is_empty() { "" } else { "; then " };
    format!("{sql}; -- {why}{comma}{then}")
}

/// What a column is in schemas/outbox.sql.
fn type_of(role: &str) -> &'static str {
    match role {
        "columns.id" => "uuid",
        "columns.payload" | "columns.headers" => "jsonb",
        "columns.created_at" => "timestamptz",
        _ => "text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(role: &str, names: &[&str]) -> String {
        let table = TableName { schema: "public".to_owned(), name: "outbox".to_owned() };
        let nearest = nearest("payload", names.iter().map(|name| (*name).to_owned()));
        mend(&table, "payload", &ColumnProblem::Missing { role: role.to_owned() }, nearest)
    }

    #[test]
    fn a_missing_column_is_first_of_all_named_otherwise() {
        let fix = missing("columns.payload", &["id", "Payload_json", "pay"]);
        assert!(
            fix.starts_with("write columns = { payload = \"Payload_json\" } under [["),
            "{fix}"
        );
        let (setting, sql) = fix.split_once(" -- ").expect("a comment");
        assert!(!setting.contains("ALTER"), "{fix}");
        assert!(
            sql.ends_with("ALTER TABLE \"public\".\"outbox\" ADD COLUMN \"payload\" jsonb;"),
            "{fix}"
        );
        let fix = missing("columns.payload", &["id", "event"]);
        assert!(fix.contains("payload = \"<the column that has it>\""), "{fix}");
        let fix = missing("topic", &["payloads"]);
        assert!(fix.starts_with("name a column of the table (\"payloads\") in topic"), "{fix}");
    }
}

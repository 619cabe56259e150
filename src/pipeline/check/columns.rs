//! The columns of the outbox tables, as the publication delivers them.

use super::finding::Finding;
use crate::{
    event::{ColumnProblem, EventError, Mapping},
    pipeline::{settings::Settings, start::check_table},
    postgres::{TableName, quote_identifier, sql::Sql},
};

/// Whether the columns that come by are what events need.
pub(super) async fn examine(
    settings: &Settings,
    sql: &Sql,
    mapping: &Mapping,
    table: &TableName,
) -> Finding {
    const NAME: &str = "columns";
    let failure = match check_table(settings, sql, mapping, table).await {
        Ok(withheld) if withheld.is_empty() => {
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
    match error.downcast_ref() {
        Some(EventError::Column { column, problem, .. }) => {
            Finding::refused(NAME, &*failure, column_sql(table, column, problem))
        }
        Some(_) | None => Finding::of(NAME, &*failure),
    }
}

/// The SQL that gives a table the column that is needed.
fn column_sql(table: &TableName, column: &str, problem: &ColumnProblem) -> String {
    let (quoted, column) = (table.quoted(), quote_identifier(column));
    match problem {
        ColumnProblem::Missing { role } => format!(
            "ALTER TABLE {quoted} ADD COLUMN {column} {}; -- or name another column under {role} \
             in the settings file",
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

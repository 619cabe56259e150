//! What patterns name and the publication does not hold. `run` goes on without it.

use super::finding::Finding;
use crate::{
    pipeline::{
        settings::Settings,
        tables::{self, Unpublished},
    },
    postgres::{
        PostgresError, TableName,
        identity::{Nameless, full_sql},
        publication::{self, Publication},
        sql::Sql,
    },
};

/// So many tables are named in one finding.
const NAMED_MAX: usize = 20;

/// Tells of tables that match and are not published.
pub(super) async fn examine(
    settings: &Settings,
    sql: &Sql,
    found: Option<&Publication>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresError> {
    let published = tables::published(settings, sql).await?;
    let Unpublished { joinable, nameless, apart } =
        tables::unpublished(settings, sql, &published).await?;
    let name = &settings.publication;
    if found.is_some() && !joinable.is_empty() {
        let add_sql = publication::add_tables_sql(name, &joinable);
        let (matching, it) = match joinable.as_slice() {
            [_] => ("matches", "it"),
            _ => ("match", "them"),
        };
        let detail = format!(
            "{} {matching} a [[table]] and nothing of {it} is published; init adds {it} to \"{name}\", \
             by {add_sql};",
            listed(joinable.iter())
        );
        findings.push(Finding::note("publication", detail));
    }
    for Nameless { table, root, reason } in &nameless {
        let mend_sql: Vec<String> = root.iter().chain([table]).map(full_sql).collect();
        let detail = format!(
            "{} matches a [[table]] and is left out of \"{name}\": {table} {reason}, and with updates \
             published the application could not update it. {}; -- then run tailwater init",
            root.as_ref().unwrap_or(table),
            mend_sql.join("; ")
        );
        findings.push(Finding::note("replica_identity", detail));
    }
    if !apart.is_empty() {
        let detail = format!(
            "a [[table]] matches the partitions {}: init adds none, and their rows come under the name \
             of a published table above them; name {} under a [[table]]",
            listed(apart.iter().map(|(partition, _)| partition)),
            listed(roots(&apart).into_iter()),
        );
        findings.push(Finding::note("table", detail));
    }
    Ok(())
}

fn roots(apart: &[(TableName, TableName)]) -> Vec<&TableName> {
    let mut roots: Vec<&TableName> = apart.iter().map(|(_, root)| root).collect();
    roots.sort();
    roots.dedup();
    roots
}

fn listed<'a>(tables: impl ExactSizeIterator<Item = &'a TableName>) -> String {
    let more = tables.len().saturating_sub(NAMED_MAX);
    let names: Vec<String> = tables.take(NAMED_MAX).map(TableName::to_string).collect();
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

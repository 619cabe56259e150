//! The tables below the configured ones, and whether updates and deletes name their rows.

use super::{finding::Finding, tables::Known};
use crate::{
    pipeline::{
        descendants::{
            self, ABSENT_HEIR, differing, domain_tables, families, identity_sql, is_absent,
            leaf_sql, lost,
        },
        refusal::Refusal,
        settings::Settings,
        tables,
    },
    postgres::{
        PostgresError, TableName, catalog, diagnosis,
        identity::{self, Nameless},
        publication::{self, Absence, Operations, Publication},
        quote_identifier,
        sql::Sql,
    },
};

const IDENTITY: &str = "replica_identity";

/// Looks below the tables that are published, and below those that a start would add.
pub(super) async fn examine(
    settings: &Settings,
    sql: &Sql,
    known: Known<'_>,
    found: Option<&Publication>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresError> {
    let published = tables::published(settings, sql).await?;
    if let Some(found) = found {
        identities(settings, sql, found, &published, findings).await?;
    }
    let mut tables = published.clone();
    if !known.has_slot {
        tables.extend(tables::unpublished(settings, sql, &published).await?.joinable);
    }
    joining(settings, sql, &tables, found, findings).await?;
    let is_refused = |table: &TableName| {
        let absence = found.and_then(|found| found.absent.get(table));
        absence.is_some_and(|absence| *absence != Absence::NotMember)
    };
    let mut tables = domain_tables(settings, &tables);
    tables.retain(|table| !is_refused(table));
    for refusal in differing(identity::differing_leaves(sql, &tables).await?) {
        let Refusal::LeafIdentity { leaves } = &refusal else { continue };
        findings.push(Finding::refused(IDENTITY, &refusal, format!("{};", leaf_sql(leaves))));
    }
    let parents = domain_tables(settings, &published);
    for heir in publication::heirs(sql, &settings.publication, &parents).await? {
        if let Some(refusal) = lost(settings, &heir) {
            findings.push(Finding::of("table", &refusal));
        } else if is_absent(settings, &heir) && found.is_some() {
            let detail = format!("{} inherits from {}: {ABSENT_HEIR}", heir.table, heir.parent);
            findings.push(Finding::note("table", detail));
        }
    }
    findings.extend(partitioned(&catalog::partitioned(sql, &tables).await?));
    Ok(())
}

/// What the server does not send of partitioned tables.
fn partitioned(tables: &[TableName]) -> Option<Finding> {
    let names: Vec<String> = tables.iter().map(TableName::to_string).collect();
    let (names, is) = match names.as_slice() {
        [] => return None,
        [name] => (name.clone(), "is"),
        [..] => (names.join(", "), "are"),
    };
    let detail = format!(
        "{names} {is} partitioned: TRUNCATE of a single partition, and DROP and DETACH of one, are not \
         sent by the server, so nothing tells consumers that its rows are gone"
    );
    Some(Finding::note("table", detail))
}

/// The application's own UPDATE and DELETE fail on a table whose rows cannot be named.
async fn identities(
    settings: &Settings,
    sql: &Sql,
    found: &Publication,
    published: &[TableName],
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresError> {
    let name = &settings.publication;
    if !["update", "delete"].iter().any(|operation| found.operations.contains(operation)) {
        return Ok(());
    }
    let is_absent = |table: &TableName| found.absent.contains_key(table);
    let members: Vec<TableName> =
        published.iter().filter(|table| !is_absent(table)).cloned().collect();
    let all = diagnosis::published_tables(sql, name).await?;
    let is_ours_alone = usize::try_from(all).is_ok_and(|all| all == members.len());
    let inserts_do = is_ours_alone && settings.operations(published) == Operations::Inserts;
    for family in families(identity::nameless(sql, &members).await?) {
        let fix = match inserts_do {
            true => format!(
                "ALTER PUBLICATION {} SET (publish = 'insert');",
                quote_identifier(name.as_str())
            ),
            false => format!("{};", identity_sql(&family)),
        };
        for Nameless { table, reason, .. } in &family {
            let detail = format!(
                "publication \"{name}\" publishes updates and deletes, and table {table} {reason}: \
                 the application's own UPDATE and DELETE fail"
            );
            findings.push(Finding::wrong(IDENTITY, None, detail, fix.clone()));
        }
    }
    Ok(())
}

/// What must not be made as it is: a first start makes it, later ones say the SQL for tables that are
/// named.
async fn joining(
    settings: &Settings,
    sql: &Sql,
    tables: &[TableName],
    found: Option<&Publication>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresError> {
    let described = match found {
        Some(_) => publication::describe(sql, &settings.publication, tables).await?,
        None => None,
    };
    match descendants::judge_joining(settings, sql, tables, described.as_ref()).await? {
        // Of partitions all are told, not the first alone.
        Ok(()) | Err(Refusal::LeafIdentity { .. }) => {}
        Err(refusal @ Refusal::NoRowIdentity { .. }) => {
            let Refusal::NoRowIdentity { family } = &refusal else { return Ok(()) };
            let fix = format!("{};", identity_sql(family));
            findings.push(Finding::refused(IDENTITY, &refusal, fix));
        }
        Err(refusal) => findings.push(Finding::of("table", &refusal)),
    }
    Ok(())
}

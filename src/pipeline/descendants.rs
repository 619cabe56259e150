//! The tables below the configured ones, which hold rows of them: partitions, and tables that inherit.
//!
//! - What a publication holds with its updates must let each of its tables, and of their partitions,
//!   name its rows: the application's own UPDATE and DELETE fail otherwise. So that is judged before
//!   anything joins a publication.
//! - Rows of a partition come under its root's name, with what the partition's replica identity has of
//!   an old row and as if that were the root's: where the two differ, what is missing reads as null.
//! - What inherits joins a publication with its parent, and its rows come under its own name. Where
//!   no section has that, they would be nobody's.

use tracing::warn;

use super::{
    continuity::Judged,
    refusal::Refusal,
    settings::Settings,
    tables::{Kind, kind_of},
};
use crate::postgres::{
    PostgresError, TableName,
    identity::{self, DifferingLeaf, Nameless, full_sql},
    publication::{self, Heir, Operations, Presence, Publication},
    quote_identifier,
    sql::Sql,
};

/// Judges what joins a publication when it is made, or gets what it lacks, before it does.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn judge_joining(
    settings: &Settings,
    sql: &Sql,
    tables: &[TableName],
    found: Option<&Publication>,
) -> Judged<()> {
    let joining: Vec<TableName> = match found {
        None => tables.to_vec(),
        Some(found) => found.addable().cloned().collect(),
    };
    let heirs = publication::heirs(sql, &settings.publication, &joining).await?;
    if let Some(heir) = heirs.iter().find(|heir| is_nobodys(settings, heir)) {
        return Ok(Err(unconfigured(settings, heir, None)));
    }
    let (operations, published) = (settings.operations(tables), found.map(|it| &it.operations));
    let published = published.map_or(&[][..], Vec::as_slice);
    let is_naming = |operation: &&str| ["update", "delete"].contains(operation);
    let is_new = |operation: &&str| is_naming(operation) && !published.contains(operation);
    let mut exposed = match operations.words().iter().any(is_new) {
        true => publication::table_names(sql, &settings.publication).await?,
        false => Vec::new(),
    };
    if operations == Operations::All || published.iter().any(is_naming) {
        exposed.extend(joining.into_iter().chain(heirs.into_iter().map(|heir| heir.table)));
    }
    let first = families(identity::nameless(sql, &exposed).await?).into_iter().next();
    if let Some(family) = first {
        return Ok(Err(Refusal::NoRowIdentity { family }));
    }
    judge_leaves(settings, sql, &exposed).await
}

/// Judges what is published.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn judge(settings: &Settings, sql: &Sql, tables: &[TableName]) -> Judged<()> {
    if let Err(refusal) = judge_leaves(settings, sql, tables).await? {
        return Ok(Err(refusal));
    }
    let tables = domain_tables(settings, tables);
    let heirs = publication::heirs(sql, &settings.publication, &tables).await?;
    let refusal = heirs.iter().find_map(|heir| lost(settings, heir));
    Ok(refusal.map_or(Ok(()), Err))
}

async fn judge_leaves(settings: &Settings, sql: &Sql, tables: &[TableName]) -> Judged<()> {
    let leaves = identity::differing_leaves(sql, &domain_tables(settings, tables)).await?;
    Ok(differing(leaves).into_iter().next().map_or(Ok(()), Err))
}

/// Says of tables that inherit, and that somebody left out of the publication, that they are left out.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn warn_of_absent_heirs(
    settings: &Settings,
    sql: &Sql,
    tables: &[TableName],
) -> Result<(), PostgresError> {
    let tables = domain_tables(settings, tables);
    for heir in publication::heirs(sql, &settings.publication, &tables).await? {
        if is_absent(settings, &heir) {
            let Heir { table, parent, .. } = heir;
            warn!(%table, %parent, "{ABSENT_HEIR}");
        }
    }
    Ok(())
}

/// What is said of it.
pub(super) const ABSENT_HEIR: &str = "the table inherits from a published one and is not in the \
    publication: its rows are no events";

/// Whether its rows are left out by the publication.
pub(super) fn is_absent(settings: &Settings, heir: &Heir) -> bool {
    heir.presence == Presence::Absent && is_nobodys(settings, heir)
}

/// The refusal of a table that inherits, where its rows come under a name that is nobody's.
pub(super) fn lost(settings: &Settings, heir: &Heir) -> Option<Refusal> {
    let is_lost = heir.presence != Presence::Absent && is_nobodys(settings, heir);
    is_lost.then(|| unconfigured(settings, heir, Some(heir.presence)))
}

/// Its parent's rows are events, and its own are not.
fn is_nobodys(settings: &Settings, heir: &Heir) -> bool {
    kind_of(settings, &heir.parent) == Kind::Domain && !settings.is_configured(&heir.table)
}

/// Those of the tables that are configured as domain tables.
pub(super) fn domain_tables(settings: &Settings, tables: &[TableName]) -> Vec<TableName> {
    let is_domain = |table: &&TableName| settings.event.table(&table.schema, &table.name).is_some();
    tables.iter().filter(is_domain).cloned().collect()
}

/// Where none is said it is about to join with its parent.
fn unconfigured(settings: &Settings, heir: &Heir, presence: Option<Presence>) -> Refusal {
    let Heir { table, parent, .. } = heir;
    let publication = &settings.publication;
    let otherwise = match presence {
        Some(Presence::Member) => format!(
            "Or, where its rows are not wanted, run ALTER PUBLICATION {} DROP TABLE {}, and start.",
            quote_identifier(publication.as_str()),
            table.quoted()
        ),
        Some(Presence::Implied | Presence::Absent) => {
            "Where its rows are not wanted, give that [[table]] a rule that none of them matches."
                .to_owned()
        }
        None => format!(
            "Or, where its rows are not wanted, put {parent} into the publication by hand, with \
             ONLY before its name."
        ),
    };
    Refusal::PublicationGap {
        publication: publication.to_string(),
        what: format!(
            "rows of {table}, which inherits from {parent}, come under its own name, and no \
             [[table]] has that"
        ),
        mend: format!("Name {table} under a [[table]], or have a pattern match it. {otherwise}"),
    }
}

/// Each table for itself, and partitions of one table together.
pub(super) fn families(nameless: Vec<Nameless>) -> Vec<Vec<Nameless>> {
    let is_family = |one: &Nameless, other: &Nameless| one.root.is_some() && one.root == other.root;
    nameless.chunk_by(is_family).map(<[Nameless]>::to_vec).collect()
}

/// One refusal for each table whose partitions have other replica identities.
pub(super) fn differing(leaves: Vec<DifferingLeaf>) -> Vec<Refusal> {
    let families = leaves.chunk_by(|one, other| one.root == other.root);
    families.map(|family| Refusal::LeafIdentity { leaves: family.to_vec() }).collect()
}

/// What is said of the first of a family.
pub(super) fn namelessness(family: &[Nameless]) -> String {
    let of = |it: &Nameless| match &it.root {
        None => format!("table \"{}\" {}", it.table, it.reason),
        Some(root) => format!("table \"{}\", a partition of \"{root}\", {}", it.table, it.reason),
    };
    family.first().map_or(String::new(), of)
}

/// The SQL after which the rows of all of them have names.
pub(super) fn identity_sql(family: &[Nameless]) -> String {
    // A partition's identity must be its table's.
    let root = family.first().and_then(|it| it.root.as_ref());
    let tables = root.into_iter().chain(family.iter().map(|it| &it.table));
    tables.map(full_sql).collect::<Vec<_>>().join("; ")
}

/// What is said of partitions of one table.
pub(super) fn difference(leaves: &[DifferingLeaf]) -> String {
    let names: Vec<String> = leaves.iter().map(|leaf| leaf.leaf.to_string()).collect();
    let root = leaves.first().map_or(String::new(), |leaf| leaf.root.to_string());
    format!(
        "replica identities differ between table {root} and its partitions {}, whose rows come under \
         its name: values that the server does not know of an old row would read as null",
        names.join(", ")
    )
}

/// The SQL after which partitions have their table's replica identity.
pub(super) fn leaf_sql(leaves: &[DifferingLeaf]) -> String {
    let root = leaves.first().and_then(|it| it.root_sql.as_deref());
    let all = root.into_iter().chain(leaves.iter().map(|it| it.leaf_sql.as_str()));
    all.collect::<Vec<_>>().join("; ")
}

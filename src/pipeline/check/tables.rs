//! The tables and the publication: whether they are there and fit, whether all that is done to them
//! comes by, and where a first start has to make something, whether it may.

use super::{columns, descendants, finding::Finding, patterns};
use crate::{
    checkpoint::Fingerprint,
    event::{Mapping, outbox::ColumnName, table::SnapshotMode},
    failure::Code,
    pipeline::{
        continuity::{self, judge_operations},
        published_tables::PublishedTables,
        refusal::not_published,
        settings::Settings,
        tables::{self, Kind, TableMistake, kind_of},
    },
    postgres::{
        PostgresError, TableName, catalog,
        diagnosis::{self, ReadRights, Readable},
        publication::{self, Absence, Publication},
        quote_identifier,
        sql::Sql,
    },
};

/// What is known beside the server.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// There is a slot; without one a start makes what is missing.
    pub(super) has_slot: bool,
    /// All of the checkpoint topic could be read.
    pub(super) sees_checkpoint: bool,
    /// The publication as the checkpoint has it; none where there is no checkpoint, or it is not seen.
    pub(super) before: Option<&'a Fingerprint>,
    /// The tables whose rows are not all published, by the checkpoint.
    pub(super) unfinished: &'a [String],
}

impl Known<'_> {
    /// Whether the publication held the table, by the checkpoint.
    fn was_published(self, table: &TableName) -> bool {
        self.before.is_some_and(|before| before.tables.contains_key(&table.to_string()))
    }

    /// Whether the publication may have held the table, which it may where the checkpoint is not seen.
    /// Without a slot a start makes everything, and has missed nothing.
    fn may_have_been_published(self, table: &TableName) -> bool {
        self.was_published(table) || (self.has_slot && !self.sees_checkpoint)
    }
}

/// Looks at tables and publication.
pub(super) async fn examine(
    settings: &Settings,
    sql: &Sql,
    mapping: &Mapping,
    known: Known<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresError> {
    if let Err(mistake) = tables::check_encoding(settings, sql).await? {
        findings.push(Finding::of("encoding", &mistake));
    }
    let mut fit = Vec::new();
    for table in tables::expected(settings, sql).await? {
        match tables::check_table(settings, sql, &table).await? {
            Ok(()) => fit.push(table),
            Err(mistake) => {
                let name = kind_of(settings, &table).section();
                findings.push(Finding::refused(name, &mistake, mend(settings, &mistake)));
            }
        }
    }
    let found = publication::describe(sql, &settings.publication, &fit).await?;
    match &found {
        None => absent(settings, sql, &fit, known, findings).await?,
        Some(found) => present(settings, sql, found, known, findings).await?,
    }
    let delivered = PublishedTables::look_up(settings, sql, &fit).await?;
    for (table, filter) in found.iter().flat_map(|found| delivered.row_filters(found)) {
        findings.push(filtered(settings, known, table, filter));
    }
    patterns::examine(settings, sql, found.as_ref(), findings).await?;
    descendants::examine(settings, sql, known, found.as_ref(), findings).await?;
    for table in &fit {
        findings.push(columns::examine(settings, sql, mapping, &delivered, table).await);
        findings.extend(movable(settings, sql, table).await?);
        findings.extend(unreadable(settings, sql, known, table).await?);
    }
    Ok(())
}

/// Rows that are there are read, for which the stream's right is not enough.
async fn unreadable(
    settings: &Settings,
    sql: &Sql,
    known: Known<'_>,
    table: &TableName,
) -> Result<Option<Finding>, PostgresError> {
    let Some(section) = settings.event.table(&table.schema, &table.name) else { return Ok(None) };
    let is_unfinished = known.unfinished.contains(&table.to_string());
    let is_due = section.snapshot == SnapshotMode::Initial && !known.was_published(table);
    if !is_unfinished && !is_due {
        return Ok(None);
    }
    let rights = ReadRights::of(table, &settings.postgres.user);
    let (why, fix) = match diagnosis::readable(sql, table).await? {
        Readable::Yes => return Ok(None),
        Readable::NotGranted => ("the role may not read it", rights.grant),
        Readable::HiddenByPolicy => ("a policy hides rows of it from the role", rights.bypass),
    };
    Ok(Some(Finding::wrong(
        "table",
        None,
        format!(
            "the rows that table {table} has are to be published, and {why}: none of them comes"
        ),
        fix,
    )))
}

/// A row that an UPDATE moves into another partition is an insert to the log. The columns of an
/// event's identity are never updated, others may be.
async fn movable(
    settings: &Settings,
    sql: &Sql,
    table: &TableName,
) -> Result<Option<Finding>, PostgresError> {
    let Some(outbox) = settings.event.outbox(&table.schema, &table.name) else { return Ok(None) };
    let mut columns = catalog::partition_columns(sql, table).await?;
    let fixed = [outbox.columns.id.as_str(), outbox.columns.created_at.as_str()];
    columns.retain(|column| !fixed.contains(&column.as_str()));
    if columns.is_empty() {
        return Ok(None);
    }
    let columns = columns.join(", ");
    Ok(Some(Finding::note(
        "outbox",
        format!(
            "table {table} is partitioned by {columns}: an UPDATE that moves a row into another \
             partition comes as an insert, and the row is published again; partition it by id or \
             created_at, or never update {columns}"
        ),
    )))
}

/// What makes a table that is missing, or what was probably meant.
fn mend(settings: &Settings, mistake: &TableMistake) -> String {
    match mistake {
        TableMistake::Missing { kind, nearest: Some(nearest), .. } => {
            format!("write {} in the settings file", kind.naming(nearest))
        }
        TableMistake::Missing { kind: Kind::Outbox, table, nearest: None, .. } => {
            create_table_sql(settings, table)
        }
        TableMistake::Missing { kind: Kind::Domain, nearest: None, .. } => {
            "create the table, or name another one under [[table]] in the settings file".to_owned()
        }
        TableMistake::Unfit { table, what: "an unlogged table", .. } => {
            format!("ALTER TABLE {} SET LOGGED;", table.quoted())
        }
        TableMistake::Unfit { kind, .. } => format!(
            "name an ordinary or partitioned table under [[{}]] in the settings file",
            kind.section()
        ),
        TableMistake::Encoding { .. } => {
            "use an outbox table in the place of [[message]]".to_owned()
        }
    }
}

/// The table of schemas/outbox.sql, with the columns that the settings name.
fn create_table_sql(settings: &Settings, table: &TableName) -> String {
    let outbox = settings.event.outbox(&table.schema, &table.name);
    let Some(columns) = outbox.map(|outbox| &outbox.columns) else { return String::new() };
    let needed = [
        (&columns.id, "uuid PRIMARY KEY DEFAULT gen_random_uuid()"),
        (&columns.aggregate_id, "text"),
        (&columns.event_type, "text NOT NULL"),
        (&columns.payload, "jsonb"),
        (&columns.created_at, "timestamptz NOT NULL DEFAULT now()"),
    ];
    let optional = [
        (&columns.aggregate_type, "text"),
        (&columns.version, "text"),
        (&columns.correlation_id, "text"),
        (&columns.causation_id, "text"),
        (&columns.traceparent, "text"),
        (&columns.headers, "jsonb"),
    ];
    let is_named = |(name, _): &(&ColumnName, &str)| matches!(name, ColumnName::Configured(_));
    let all = needed.into_iter().chain(optional.into_iter().filter(is_named));
    let all = all.map(|(name, kind)| format!("{} {kind}", quote_identifier(name.as_str())));
    format!("CREATE TABLE {} ({});", table.quoted(), all.collect::<Vec<_>>().join(", "))
}

/// There is no publication.
async fn absent(
    settings: &Settings,
    sql: &Sql,
    tables: &[TableName],
    known: Known<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresError> {
    const NAME: &str = "publication";
    if known.has_slot {
        if let Err(refusal) = continuity::describe_for(settings, sql, &[]).await? {
            findings.push(Finding::of(NAME, &refusal));
        }
        return Ok(());
    }
    let name = &settings.publication;
    let missing =
        lacking_rights(sql, tables, diagnosis::may_create_in_database(sql).await?).await?;
    findings.push(match missing {
        None => Finding::note(
            NAME,
            format!("there is no publication \"{name}\" yet; run and init make it"),
        ),
        Some(lack) => Finding::wrong(
            NAME,
            Some(Code::NoReplicationRole),
            format!(
                "there is no publication \"{name}\" yet, and role {} cannot make it: {lack}",
                settings.postgres.user
            ),
            format!(
                "{}; -- as a role that may",
                publication::create_sql(name, tables, settings.operations(tables))
            ),
        ),
    });
    Ok(())
}

/// What our role lacks to put these tables into a publication; none where nothing.
async fn lacking_rights(
    sql: &Sql,
    tables: &[TableName],
    may_alter: bool,
) -> Result<Option<String>, PostgresError> {
    if !may_alter {
        return Ok(Some("it may not CREATE on the database, or is not the owner".to_owned()));
    }
    for table in tables {
        if !diagnosis::owns_table(sql, table).await? {
            return Ok(Some(format!("it does not own table {table}")));
        }
    }
    Ok(None)
}

/// There is a publication.
async fn present(
    settings: &Settings,
    sql: &Sql,
    found: &Publication,
    known: Known<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresError> {
    const NAME: &str = "publication";
    let (name, so_far) = (&settings.publication, findings.len());
    let tables: Vec<TableName> = found.tables.keys().chain(found.absent.keys()).cloned().collect();
    if let Err(refusal) = judge_operations(settings, &tables, found) {
        let lacking = found.lacking(settings.operations(&tables));
        let alter_sql = found.add_operations_sql(name, &lacking);
        findings.push(Finding::refused(NAME, &refusal, format!("{alter_sql};")));
    }
    for (table, absence) in &found.absent {
        findings.push(outside(settings, sql, known, table, absence).await?);
    }
    if let (Some(before), true) = (known.before, findings.len() == so_far)
        && let Err(refusal) = continuity::judge_before_change(settings, sql, before).await?
    {
        findings.push(Finding::of(NAME, &refusal));
    }
    if findings.len() == so_far {
        let options = found.options();
        findings.push(Finding::fine(NAME, format!("publication \"{name}\" ({options})")));
    }
    Ok(())
}

/// A table whose rows do not come under its name.
async fn outside(
    settings: &Settings,
    sql: &Sql,
    known: Known<'_>,
    table: &TableName,
    absence: &Absence,
) -> Result<Finding, PostgresError> {
    const NAME: &str = "publication";
    let name = &settings.publication;
    let refusal = not_published(settings, table, absence);
    let add_sql = format!("{};", publication::add_table_sql(name, table));
    Ok(match absence {
        // What was inserted meanwhile is lost to this slot: the refusal says how to go on.
        Absence::NotMember if known.may_have_been_published(table) => Finding::of(NAME, &refusal),
        Absence::NotMember if known.has_slot => Finding::refused(NAME, &refusal, add_sql),
        Absence::NotMember => {
            let may_alter = diagnosis::owns_publication(sql, name).await?;
            match lacking_rights(sql, std::slice::from_ref(table), may_alter).await? {
                None => Finding::note(
                    NAME,
                    format!("table {table} is not in \"{name}\" yet; run and init add it"),
                ),
                Some(lack) => Finding::wrong(
                    NAME,
                    Some(Code::NoReplicationRole),
                    format!(
                        "table {table} is not in \"{name}\" yet, and role {} cannot add it: {lack}",
                        settings.postgres.user
                    ),
                    format!("{add_sql} -- as a role that may"),
                ),
            }
        }
        Absence::AsPartitions => {
            Finding::refused(NAME, &refusal, format!("{};", publication::via_root_sql(name)))
        }
        Absence::AsAncestor(ancestor) => Finding::refused(
            NAME,
            &refusal,
            format!("write {} in the settings file", kind_of(settings, table).naming(ancestor)),
        ),
        Absence::Unfit(_) => Finding::of(NAME, &refusal),
    })
}

/// `run` cannot see rows that the server leaves out; whoever set the filter should know. Of a domain
/// table rows come and go by it, as by inserts and deletes; of an outbox they are lost.
fn filtered(settings: &Settings, known: Known<'_>, table: &TableName, filter: &str) -> Finding {
    if kind_of(settings, table) == Kind::Domain {
        let detail = format!(
            "publication \"{}\" leaves out rows of {table}: only those with {filter} are published; \
             a row that comes to it, or no longer does, is created or deleted",
            settings.publication
        );
        return Finding::note("row_filter", detail);
    }
    let (name, quoted) = (quote_identifier(settings.publication.as_str()), table.quoted());
    let again = format!(
        "BEGIN; ALTER PUBLICATION {name} DROP TABLE {quoted}; ALTER PUBLICATION {name} ADD TABLE \
         {quoted}; COMMIT;"
    );
    let fix = match known.may_have_been_published(table) {
        false => again,
        true => format!(
            "{again} -- where rows of it were published before, the next start is refused and says \
             how to go on: those that were left out are never sent to this slot"
        ),
    };
    let has_retention = settings.retentions.iter().any(|retention| retention.table == *table);
    let (code, beside) = match has_retention {
        true => (Some(Code::Settings), ", and its retention would delete the others"),
        false => (None, ""),
    };
    let detail = format!(
        "publication \"{}\" leaves out rows of {table}: only those with {filter} are \
         published{beside}",
        settings.publication
    );
    Finding::wrong("row_filter", code, detail, fix)
}

//! Whether the publication holds the configured tables, and held them all the time: a row that was
//! inserted while it did not has no place in the stream, and no position shows that it is missing.
//!
//! What a checkpoint says of the publication is compared with what it is. Of the same publication,
//! OIDs tell: a table, or a membership, that was dropped and made again has another one. Another
//! publication has other memberships in any case; it is taken where the server shows that they are
//! older than everything that the slot still sends.

use std::collections::BTreeMap;

use tracing::warn;

use super::{
    refusal::{AFTER_RESET, Refusal, not_published},
    settings::Settings,
    tables,
};
use crate::{
    checkpoint::{Fingerprint, TableFingerprint},
    postgres::{
        PostgresError, TableName, catalog,
        publication::{self, Absence, Member, Publication},
        sql::Sql,
    },
};

/// A judgement; the outer error is the connection's.
pub(super) type Judged<T> = Result<Result<T, Refusal>, PostgresError>;

/// The publication as it is, with all configured tables; refused where it does not exist, lacks one
/// that is configured by its name, or does not publish what they need.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn describe(settings: &Settings, sql: &Sql) -> Judged<Fingerprint> {
    describe_for(settings, sql, &tables::published(settings, sql).await?).await
}

/// The same for some tables.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn describe_for(
    settings: &Settings,
    sql: &Sql,
    tables: &[TableName],
) -> Judged<Fingerprint> {
    let name = &settings.publication;
    let Some(found) = publication::describe(sql, name, tables).await? else {
        let create_sql = tables::create_sql(settings, sql).await?;
        return Ok(Err(Refusal::PublicationMissing { publication: name.clone(), create_sql }));
    };
    Ok(judge_presence(settings, tables, &found).map(|()| fingerprint(settings, &found)))
}

fn judge_presence(
    settings: &Settings,
    tables: &[TableName],
    found: &Publication,
) -> Result<(), Refusal> {
    judge_operations(settings, tables, found)?;
    match tables.iter().find_map(|table| found.absent.get_key_value(table)) {
        Some((table, absence)) => Err(not_published(settings, table, absence)),
        None => Ok(()),
    }
}

/// Whether everything is published that these tables need; messages come in any case.
///
/// # Errors
/// [`Refusal::PublicationGap`] where it is not.
pub(super) fn judge_operations(
    settings: &Settings,
    tables: &[TableName],
    found: &Publication,
) -> Result<(), Refusal> {
    let name = &settings.publication;
    let lacking = found.lacking(settings.operations(tables));
    let Some(first) = lacking.first() else { return Ok(()) };
    let alter_sql = found.add_operations_sql(name, &lacking);
    let tables = tables.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ");
    let mend = match *first {
        "insert" => format!("Run {alter_sql}. {}", missing_rows_hint(&tables)),
        _ => format!("Run {alter_sql}, and start. {}", missing_changes_hint(&lacking, &tables)),
    };
    let what = format!("it publishes no {}", plurals(&lacking));
    Err(Refusal::PublicationGap { publication: name.to_string(), what, mend })
}

/// `updates, deletes and truncates`.
pub(super) fn plurals(operations: &[&str]) -> String {
    let plurals: Vec<String> = operations.iter().map(|operation| format!("{operation}s")).collect();
    match plurals.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn fingerprint(settings: &Settings, found: &Publication) -> Fingerprint {
    let table = |(name, member): (&TableName, &Member)| {
        let Member { oid, member, schema_member } = *member;
        (name.to_string(), TableFingerprint { oid, member, schema_member, since: None })
    };
    Fingerprint {
        name: settings.publication.to_string(),
        oid: found.oid,
        options: found.options(),
        altered_by: Some(found.altered_by),
        tables: found.tables.iter().map(table).collect::<BTreeMap<_, _>>(),
    }
}

/// Judges the publication by what the checkpoint says of it, before anything is added to it: what
/// was taken out has a gap, which adding it again would hide.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn judge_before_change(
    settings: &Settings,
    sql: &Sql,
    before: &Fingerprint,
) -> Judged<()> {
    let is_held = |table: &TableName| before.tables.contains_key(&table.to_string());
    let (held, by_pattern): (Vec<_>, Vec<_>) = tables::published(settings, sql)
        .await?
        .into_iter()
        .filter(|table| is_held(table) || !settings.tables.contains(table))
        .partition(is_held);
    let mut now = match describe_for(settings, sql, &held).await? {
        Ok(now) => now,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // Whether it publishes enough for those that are new to it is not judged yet; but a table of
    // another name may be one that it held.
    if let Some(found) = publication::describe(sql, &settings.publication, &by_pattern).await? {
        now.tables.extend(fingerprint(settings, &found).tables);
    }
    judge(settings, sql, before, &now).await
}

/// Compares the publication as it was when the checkpoint was written with what it is.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn judge(
    settings: &Settings,
    sql: &Sql,
    before: &Fingerprint,
    now: &Fingerprint,
) -> Judged<()> {
    if let Err(refusal) = judge_identities(before, now) {
        return Ok(Err(refusal));
    }
    if let Err(refusal) = judge_departed(settings, sql, before, now).await? {
        return Ok(Err(refusal));
    }
    if before.oid == now.oid {
        return Ok(Ok(()));
    }
    for (table, fingerprint) in &now.tables {
        if !before.tables.contains_key(table) {
            continue;
        }
        let TableFingerprint { oid, member, schema_member, .. } = *fingerprint;
        let member = Member { oid, member, schema_member };
        let name = &settings.publication;
        if !publication::is_settled(sql, name, member, &settings.slot).await? {
            return Ok(Err(unproven(before, now, table)));
        }
    }
    Ok(Ok(()))
}

/// A table that was configured by a pattern and is not published any more. One that is gone, or that
/// has a name which is not configured, is nobody's loss, and neither is one that was attached to a
/// configured table: its rows come under that name.
async fn judge_departed(
    settings: &Settings,
    sql: &Sql,
    before: &Fingerprint,
    now: &Fingerprint,
) -> Judged<()> {
    let is_here = |oid| now.tables.values().any(|table| table.oid == oid);
    for (name, then) in before.tables.iter().filter(|(_, then)| !is_here(then.oid)) {
        let Ok(name) = TableName::try_from(name.clone()) else { continue };
        let by_pattern = settings.is_configured(&name) && !settings.tables.contains(&name);
        if !by_pattern {
            continue;
        }
        match catalog::name_of(sql, then.oid).await? {
            Some(present) if settings.is_configured(&present) => {
                let publication = &settings.publication;
                match publication::absence(sql, now.oid, publication, &present).await? {
                    Absence::AsAncestor(ancestor) if settings.is_configured(&ancestor) => {}
                    absence => {
                        return Ok(Err(not_published(settings, &present, &absence)));
                    }
                }
            }
            Some(_) | None => {}
        }
    }
    Ok(Ok(()))
}

/// Since when each table's inserts are in the stream: as `before` has it, or since now where that
/// does not say it, or where rows may have been left out meanwhile.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn date(
    sql: &Sql,
    before: &Fingerprint,
    now: Fingerprint,
) -> Result<Fingerprint, PostgresError> {
    let now = now.continuing(before);
    if now.is_dated() {
        return Ok(now);
    }
    // Asked for after the publication was looked at: what begins from now on finds it so.
    Ok(now.dated(&catalog::now(sql).await?))
}

/// Says that the options may have been other ones for a while, which the server does not tell.
pub(super) fn warn_if_altered(before: &Fingerprint, now: &Fingerprint) {
    let is_known = before.oid == now.oid && before.altered_by.is_some();
    if is_known && before.altered_by != now.altered_by {
        warn!(
            publication = now.name,
            options = now.options,
            "the publication was altered since the last checkpoint; if it left out rows for a \
             while, those are not on Kafka"
        );
    }
}

/// The part of the comparison that fingerprints alone decide.
fn judge_identities(before: &Fingerprint, now: &Fingerprint) -> Result<(), Refusal> {
    let gap = |what: String, mend: String| {
        Err(Refusal::PublicationGap { publication: now.name.clone(), what, mend })
    };
    // Messages come whatever the publication is.
    if before.tables.is_empty() {
        return Ok(());
    }
    let all_tables = || before.tables.keys().cloned().collect::<Vec<_>>().join(", ");
    if !before.publishes_inserts() {
        let mend = missing_rows_hint(&all_tables());
        return gap("it published no inserts at the last checkpoint".to_owned(), mend);
    }
    for (table, then) in &before.tables {
        let Some(current) = now.tables.get(table) else { continue };
        if then.oid != current.oid {
            let (then, current) = (then.oid, current.oid);
            let what = format!("table {table} was made anew: its OID was {then} and is {current}");
            // The stream names the former one too.
            return gap(what, undecodable_rows_hint(table));
        }
        if before.oid == now.oid && !is_same_membership(then, current) {
            let (then, current) = (membership(then), membership(current));
            let what = format!(
                "table {table} was out of the publication for a while: it came by {then} and \
                 comes by {current}"
            );
            return gap(what, missing_rows_hint(table));
        }
    }
    if before.name == now.name && before.oid != now.oid {
        let mend = undecodable_rows_hint(&all_tables());
        return gap("it was dropped and made anew".to_owned(), mend);
    }
    Ok(())
}

/// A table may come by a row of its own and by its schema's; one of them that stayed is enough.
fn is_same_membership(then: &TableFingerprint, current: &TableFingerprint) -> bool {
    if then.member.is_some() && then.member == current.member {
        return true;
    }
    match then.schema_member {
        Some(_) => then.schema_member == current.schema_member,
        // By ALL TABLES, which cannot be taken away, or by a schema that the record does not name.
        None => then.member.is_none() && current.member.is_none(),
    }
}

fn membership(table: &TableFingerprint) -> String {
    match (table.member, table.schema_member) {
        (Some(oid), _) => format!("pg_publication_rel row {oid}"),
        (None, Some(oid)) => format!("pg_publication_namespace row {oid}"),
        (None, None) => "no row of its own".to_owned(),
    }
}

fn unproven(before: &Fingerprint, now: &Fingerprint, table: &str) -> Refusal {
    let (then, name) = (&before.name, &now.name);
    Refusal::PublicationGap {
        publication: name.clone(),
        what: format!(
            "the checkpoint was written under publication \"{then}\", and nothing shows that this \
             one held table {table} ever since, with its inserts"
        ),
        mend: format!(
            "Set postgres.publication = \"{then}\" again and let it publish for a minute or two; \
             once the slot has passed the last change of \"{name}\", the change is taken. Where \
             \"{then}\" is gone: {}",
            undecodable_rows_hint(table)
        ),
    }
}

pub(super) fn missing_rows_hint(tables: &str) -> String {
    format!(
        "Rows that were inserted into {tables} in between are not on Kafka and are never sent. If \
         that is accepted, run tailwater reset --to-slot. {AFTER_RESET}"
    )
}

/// Where rows were changed and not inserted: no later start notices, because a checkpoint speaks of
/// inserts alone.
fn missing_changes_hint(lacking: &[&str], tables: &str) -> String {
    format!(
        "What {} did to {tables} in between is not on Kafka and is never sent, and no later start \
         notices: compare the tables with the topics, and update the rows that differ once more.",
        plurals(lacking)
    )
}

/// Where the slot still holds what cannot be published under the publication as it is.
pub(super) fn undecodable_rows_hint(tables: &str) -> String {
    format!(
        "Rows that were inserted into {tables} in between are not on Kafka and are never sent. If \
         that is accepted, run tailwater reset --to-now, which goes on with what is committed from \
         now on. {AFTER_RESET}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::{Oid, RelationId, Xid},
        failure::{Code, Failure as _},
    };

    fn table(member: Option<u32>, schema_member: Option<u32>) -> TableFingerprint {
        let (member, schema_member) = (member.map(Oid), schema_member.map(Oid));
        TableFingerprint { oid: RelationId(16_384), member, schema_member, since: None }
    }

    fn fingerprint(name: &str, oid: u32, table: TableFingerprint) -> Fingerprint {
        Fingerprint {
            name: name.to_owned(),
            oid: Oid(oid),
            options: "publish = 'insert', publish_via_partition_root = true".to_owned(),
            altered_by: None,
            tables: BTreeMap::from([("public.outbox".to_owned(), table)]),
        }
    }

    fn is_refused(then: TableFingerprint, current: TableFingerprint) -> bool {
        let (before, now) = (fingerprint("p", 1, then), fingerprint("p", 1, current));
        judge_identities(&before, &now).is_err()
    }

    #[test]
    fn one_membership_that_stayed_is_enough() {
        assert!(!is_refused(table(Some(1), Some(2)), table(None, Some(2))));
        assert!(!is_refused(table(Some(1), Some(2)), table(Some(1), None)));
        assert!(is_refused(table(Some(1), Some(2)), table(Some(3), Some(4))));
        assert!(is_refused(table(None, Some(2)), table(None, Some(4))));
        assert!(is_refused(table(None, Some(2)), table(Some(1), None)));
        assert!(is_refused(table(Some(1), None), table(None, None)));
    }

    #[test]
    fn a_record_that_names_no_schema_is_taken_as_it_is() {
        assert!(!is_refused(table(None, None), table(None, Some(2))));
        let json = r#"{"name":"p","oid":1,"options":"","tables":{"a.b":{"oid":2,"member":null}}}"#;
        let read: Fingerprint = serde_json::from_str(json).expect("a record");
        assert_eq!(read.altered_by, None);
        assert_eq!(serde_json::to_string(&read).expect("JSON"), json);
    }

    #[test]
    fn a_table_is_there_since_it_came_and_since_nothing_was_altered() {
        let of = |altered_by: u32, table: TableFingerprint| Fingerprint {
            altered_by: Some(Xid(altered_by)),
            ..fingerprint("p", 1, table)
        };
        let since = |now: Fingerprint, before: &Fingerprint| {
            now.continuing(before).tables["public.outbox"].since.clone()
        };
        let before = of(7, table(Some(1), None)).dated("then");
        let then = Some("then".to_owned());
        assert_eq!(before.tables["public.outbox"].since, then);
        assert_eq!(since(of(7, table(Some(1), None)), &before), then);
        // Another membership, other options, another publication, or a record that does not say.
        assert_eq!(since(of(7, table(Some(2), None)), &before), None);
        assert_eq!(since(of(8, table(Some(1), None)), &before), None);
        let other = Fingerprint { oid: Oid(2), ..of(7, table(Some(1), None)) };
        assert_eq!(since(other, &before), None);
        let unknown = Fingerprint { altered_by: None, ..before.clone() };
        assert_eq!(since(of(7, table(Some(1), None)), &unknown), None);
        // A table that was not in it before.
        let tables = BTreeMap::new();
        assert_eq!(since(of(7, table(Some(1), None)), &Fingerprint { tables, ..before }), None);
    }

    #[test]
    fn a_checkpoint_of_a_publication_without_inserts_is_refused() {
        let now = fingerprint("p", 1, table(Some(1), None));
        let before = Fingerprint { options: "publish = 'update'".to_owned(), ..now.clone() };
        let refusal = judge_identities(&before, &now).expect_err("no inserts");
        assert_eq!(refusal.code(), Some(Code::PublicationGap));
        assert!(judge_identities(&now, &now).is_ok());
    }

    #[test]
    fn a_checkpoint_of_messages_alone_has_no_gap() {
        let now = fingerprint("p", 2, table(Some(1), None));
        let (options, tables) = (String::new(), BTreeMap::new());
        let before = Fingerprint { oid: Oid(1), options, tables, ..now.clone() };
        assert!(judge_identities(&before, &now).is_ok());
    }

    #[test]
    fn a_table_made_anew_is_refused_under_another_publication_too() {
        let before = fingerprint("p", 1, table(Some(1), None));
        let anew = TableFingerprint { oid: RelationId(16_385), ..table(Some(9), None) };
        assert!(judge_identities(&before, &fingerprint("other", 2, anew)).is_err());
        let same = fingerprint("other", 2, table(Some(9), None));
        assert!(judge_identities(&before, &same).is_ok());
        assert!(judge_identities(&before, &Fingerprint { name: "p".to_owned(), ..same }).is_err());
    }
}

//! Which tables' rows are due without anybody's asking: those of domain tables that are taken on. A
//! checkpoint's publication tells which were there before.

use std::collections::BTreeMap;

use super::new_request;
use crate::{
    change::RelationId,
    checkpoint::{Fingerprint, SnapshotRecord, SnapshotState},
    event::{self, table::SnapshotMode},
    postgres::TableName,
};

/// The tables whose rows are still to come.
pub(in crate::pipeline) struct Snapshots {
    /// Their records as they were written, and those of tables that the stream has still to be told
    /// from.
    pub(in crate::pipeline) written: Vec<SnapshotRecord>,
    /// Those of tables that were taken on just now: written with the next checkpoint.
    pub(in crate::pipeline) due: Vec<SnapshotRecord>,
    /// Those of tables that are not published any more, and of which rows were still to come.
    pub(in crate::pipeline) gone: Vec<SnapshotRecord>,
}

impl Snapshots {
    /// Of a checkpoint that names them, and of a publication that may hold more tables by now, or has
    /// lost some.
    pub(in crate::pipeline) fn go_on(
        settings: &event::Settings,
        written: BTreeMap<String, SnapshotRecord>,
        before: &Fingerprint,
        now: &Fingerprint,
    ) -> Self {
        let mut due = of_new_tables(settings, before, now);
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for known in written.into_values() {
            match now.tables.get(&known.table) {
                Some(table) if table.oid == known.oid => {
                    // Rows of one that was taken on can be out before the checkpoint says so.
                    due.retain(|new| new.table != known.table);
                    kept.push(known);
                }
                // Made anew it is taken on with all of its rows, those that were asked for among them.
                Some(_) if known.is_requested && due.iter().any(|new| new.table == known.table) => {
                }
                // Dropped and made anew it has other rows.
                Some(table) if known.state.is_unfinished() => {
                    due.retain(|new| new.table != known.table);
                    let SnapshotRecord { source, table: name, condition, is_requested, .. } = known;
                    let anew = record(&source, &name, table.oid, condition);
                    due.push(SnapshotRecord { is_requested, ..anew });
                }
                // What was committed before it went still comes, and is out already.
                Some(_) | None if !known.state.is_unfinished() && known.contained.is_some() => {
                    kept.push(known);
                }
                None if known.state.is_unfinished() => gone.push(known),
                Some(_) | None => {}
            }
        }
        Self { written: kept, due, gone }
    }
}

/// Whether a publication holds the very table that a record is of.
pub(in crate::pipeline) fn is_there(publication: &Fingerprint, record: &SnapshotRecord) -> bool {
    publication.tables.get(&record.table).is_some_and(|table| table.oid == record.oid)
}

/// A publication without the tables whose rows the next start has to find due: a checkpoint that is
/// written by hand writes no records of theirs.
pub(in crate::pipeline) fn without_new_tables(
    settings: &event::Settings,
    before: Option<&Fingerprint>,
    mut now: Fingerprint,
) -> Fingerprint {
    let new = match before {
        Some(before) => of_new_tables(settings, before, &now),
        None => of_all_tables(settings, &now),
    };
    for record in new {
        now.tables.remove(&record.table);
    }
    now
}

/// The records of tables that a publication holds and the former one did not, where their rows are to
/// come first. One that was dropped and made anew has other rows.
pub(in crate::pipeline) fn of_new_tables(
    settings: &event::Settings,
    before: &Fingerprint,
    now: &Fingerprint,
) -> Vec<SnapshotRecord> {
    let is_known = |name: &String, oid| before.tables.get(name).is_some_and(|it| it.oid == oid);
    let new = now.tables.iter().filter(|(name, table)| !is_known(name, table.oid));
    let is_due = |name: &str| {
        let table = TableName::try_from(name.to_owned()).ok();
        let section = table.as_ref().and_then(|table| settings.table(&table.schema, &table.name));
        section.is_some_and(|section| section.snapshot == SnapshotMode::Initial)
    };
    new.filter(|(name, _)| is_due(name))
        .map(|(name, table)| record(&settings.source, name, table.oid, None))
        .collect()
}

/// The same where there was none.
pub(in crate::pipeline) fn of_all_tables(
    settings: &event::Settings,
    now: &Fingerprint,
) -> Vec<SnapshotRecord> {
    let before = Fingerprint { tables: Default::default(), ..now.clone() };
    of_new_tables(settings, &before, now)
}

/// The record of a table of which no row was read.
pub(in crate::pipeline) fn record(
    source: &str,
    table: &str,
    oid: RelationId,
    condition: Option<String>,
) -> SnapshotRecord {
    let now = jiff::Timestamp::now().to_string();
    SnapshotRecord {
        version: 1,
        source: source.to_owned(),
        table: table.to_owned(),
        oid,
        request: new_request(),
        condition,
        is_requested: false,
        has_events: false,
        state: SnapshotState::Due,
        failure: None,
        key: Vec::new(),
        cursor: None,
        is_at_end: false,
        outstanding: Vec::new(),
        is_at_once: false,
        contained: None,
        rows: 0,
        estimate: None,
        requested_at: now.clone(),
        written_at: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::Oid,
        checkpoint::{Contained, TableFingerprint},
        event::{fixture::domain_table::DomainTable, table::TablePattern},
        lsn::{EndLsn, Lsn},
    };

    fn fingerprint(tables: &[(&str, u32)]) -> Fingerprint {
        let table = |oid| TableFingerprint {
            oid: RelationId(oid),
            member: None,
            schema_member: None,
            since: None,
        };
        Fingerprint {
            name: "tailwater".to_owned(),
            oid: Oid(9),
            options: String::new(),
            altered_by: None,
            tables: tables.iter().map(|(name, oid)| ((*name).to_owned(), table(*oid))).collect(),
        }
    }

    #[test]
    fn what_has_a_record_is_not_due_again_and_what_was_made_anew_is() {
        let mut orders = DomainTable::orders();
        orders.settings.name = TablePattern::parse("public.*").expect("a pattern");
        let settings = orders.mapping().settings().clone();
        let running = |table: &str, oid| SnapshotRecord {
            state: SnapshotState::Running,
            ..record("orders", table, RelationId(oid), None)
        };
        let position = EndLsn(Lsn::from_wire(500).expect("a position"));
        let out = |table: &str, oid| SnapshotRecord {
            state: SnapshotState::Done,
            contained: Some(Contained { below: position, timeline: 1 }),
            ..running(table, oid)
        };
        let written = [
            running("public.a", 1),
            running("public.b", 2),
            running("public.gone", 3),
            out("public.dropped", 4),
        ];
        let written = written.map(|record| (record.table.clone(), record)).into();
        let before = fingerprint(&[("public.b", 2)]);
        let now = fingerprint(&[("public.a", 1), ("public.b", 7), ("public.c", 8)]);
        let Snapshots { written, due, gone } = Snapshots::go_on(&settings, written, &before, &now);
        let names = |records: &[SnapshotRecord]| -> Vec<(String, u32)> {
            records.iter().map(|record| (record.table.clone(), record.oid.0)).collect()
        };
        // The stream still brings what the rows of the dropped one contain.
        let kept = [("public.a".to_owned(), 1), ("public.dropped".to_owned(), 4)];
        assert_eq!(names(&written), kept);
        assert_eq!(names(&gone), [("public.gone".to_owned(), 3)]);
        assert_eq!(names(&due), [("public.c".to_owned(), 8), ("public.b".to_owned(), 7)]);
        assert!(due.iter().all(|record| record.state == SnapshotState::Due && record.rows == 0));
    }
}

//! Which tables' rows are due without anybody's asking: those of domain tables that are taken on. A
//! checkpoint's publication tells which were there before.

use super::new_request;
use crate::{
    change::RelationId,
    checkpoint::{Fingerprint, SnapshotRecord, SnapshotState},
    event::{self, table::SnapshotMode},
    postgres::TableName,
};

/// The records of tables that a publication holds and the former one did not, where their rows are to
/// come first.
pub(in crate::pipeline) fn of_new_tables(
    settings: &event::Settings,
    before: &Fingerprint,
    now: &Fingerprint,
) -> Vec<SnapshotRecord> {
    let new = now.tables.iter().filter(|(name, _)| !before.tables.contains_key(*name));
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

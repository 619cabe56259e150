//! The rows that tables without a key had before: all at once, at a start, while the stream is held.
//!
//! ```text
//! checkpoint judged ─► a snapshot ─► rows, each Kafka transaction with their record ─► the stream
//!                      (temporary slot)                                                 without what
//!                                                                                       they contain
//! ```
//!
//! Rows without a key have no order in which they could be read piece by piece, and nothing tells
//! whether a change of the stream is of a row that was read. So they are read under one snapshot that
//! says exactly what it contains: that of a slot's creation, which shows what was committed below the
//! slot's consistent point, and nothing else. A snapshot of one's own does not say that of itself:
//! what waits for a synchronous standby is in the log and not in it.
//!
//! **Each row once.** What the stream brings of the table from transactions committed below the
//! consistent point is in the rows, and is left out ([`Contained`]); what was committed at or behind it
//! is not, and comes. So it must be that nothing of the table was published before its rows: a
//! change that comes while they are due ends the stream, and the next start reads them
//! (`End::RowsFirst`). Other tables are not concerned: of a transaction with changes of several ones
//! the events of the others come, with the same sequence numbers after each restart, because the
//! record says for as long as the stream may bring such a transaction what is left out.
//!
//! **Killed at any moment:**
//!
//! - before the first Kafka transaction: nothing is out, and the next start begins with another
//!   snapshot, for another request;
//! - between the first and the last: the record is there with some of the rows, nobody can tell which,
//!   and a start refuses (`snapshot_interrupted`) until `reset --snapshot` has the table begin anew;
//! - behind the last: the record says that all rows are out, and what they contain.
//!
//! At least once rows can be out before their record is. They come again, with all others, for another
//! request, and so under other ids: no id is ever that of two rows.
//!
//! A rewrite or TRUNCATE between snapshot and lock leaves the snapshot an empty table (manual page
//! mvcc-caveats): the files are compared, and another snapshot is taken.

mod publisher;

use tracing::info;

use self::publisher::{Publisher, Source, Target};
use super::{
    backfill::{due::Snapshots, new_request},
    published_tables,
    settings::Settings,
    slot_creation::await_slot,
    start::{Failed, stay_alive},
};
use crate::{
    checkpoint::{CheckpointRecord, Contained, SnapshotRecord, SnapshotState},
    event::{Mapping, table::Description},
    failure::{Code, Failure, Recovery},
    lsn::EndLsn,
    postgres::{
        PostgresError, SlotName, TableName,
        diagnosis::ReadRights,
        replication::{Connection, ReplicationStream},
        snapshot::{Shape, SnapshotReader},
        sql::Sql,
    },
    sink::kafka::KafkaSink,
};

/// What is put behind the name of the pipeline's slot for the one that gives the snapshot.
const SLOT_SUFFIX: &str = "_rows";

/// The longest name of a slot.
const SLOT_NAME_MAX: usize = 63;

/// Why rows are not read in this attempt.
#[derive(Debug, thiserror::Error)]
enum KeylessError {
    /// The table is gone, or another one has its name.
    #[error("table {table} was dropped or replaced while its rows were about to be read")]
    Replaced { table: TableName },
    /// It is not what the snapshot shows.
    #[error("table {table} was altered while its rows were about to be read")]
    Altered { table: TableName, source: PostgresError },
    /// The stream needs no such right, and rows do.
    #[error("role \"{role}\" may not read table {table}")]
    Forbidden { table: TableName, role: String, source: PostgresError },
    /// Of several hosts another one has answered.
    #[error(
        "the server is on timeline {found}, and the checkpoint was judged by one on timeline \
         {expected}"
    )]
    OtherServer { found: u32, expected: u32 },
}

impl Failure for KeylessError {
    fn code(&self) -> Option<Code> {
        match self {
            Self::Forbidden { .. } => Some(Code::NoReplicationRole),
            Self::Replaced { .. } | Self::Altered { .. } | Self::OtherServer { .. } => None,
        }
    }

    fn recovery(&self) -> Recovery {
        match self {
            Self::Forbidden { .. } => Recovery::Stop,
            Self::Replaced { .. } | Self::Altered { .. } | Self::OtherServer { .. } => {
                Recovery::Retry
            }
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Forbidden { table, role, .. } => format!(
                "{} Then start: the rows that the table has come before its changes.",
                ReadRights::of(table, role).hint()
            ),
            Self::Replaced { .. } | Self::Altered { .. } | Self::OtherServer { .. } => {
                "Nothing of it is published yet; it is read again.".to_owned()
            }
        })
    }
}

/// Publishes the rows of tables without a key.
pub(super) struct Keyless<'a> {
    pub(super) settings: &'a Settings,
    pub(super) sql: &'a Sql,
    /// The largest record that the sink takes.
    pub(super) record_bytes_max: usize,
    /// The server's timeline, by which the checkpoint was judged.
    pub(super) timeline: u32,
    /// The checkpoint as the topic has it: it says which tables have records.
    pub(super) on_file: CheckpointRecord,
}

/// A table as its snapshot shows it.
struct Opened {
    source: Source,
    shape: Shape,
    description: Description,
    contained: Contained,
}

impl Keyless<'_> {
    /// Publishes the rows of those tables that have no key, with the slot in hand. Their records are
    /// among those that are written then. Returns the sink, which holds nothing.
    ///
    /// # Errors
    /// Where a row cannot be published, and where a server does not do its part.
    pub(super) async fn publish(
        mut self,
        stream: &mut ReplicationStream,
        sink: KafkaSink,
        mapping: &mut Mapping,
        snapshots: &mut Snapshots,
    ) -> Result<KafkaSink, Failed> {
        let due = stay_alive(stream, self.take_due(snapshots)).await?;
        if due.is_empty() {
            return Ok(sink);
        }
        let mut publisher = Publisher::new(sink, self.record_bytes_max, self.settings);
        for (table, record) in due {
            let opened = stay_alive(stream, self.open(&table, &record)).await?;
            let record =
                self.publish_table(stream, &mut publisher, mapping, record, opened).await?;
            snapshots.written.push(record);
        }
        Ok(publisher.into_sink())
    }

    /// Takes out the tables that have no key and of which nothing is out yet.
    async fn take_due(
        &self,
        snapshots: &mut Snapshots,
    ) -> Result<Vec<(TableName, SnapshotRecord)>, Failed> {
        let mut found = Vec::new();
        for records in [&mut snapshots.written, &mut snapshots.due] {
            let mut others = Vec::new();
            for record in std::mem::take(records) {
                match self.keyless(&record).await? {
                    Some(table) => found.push((table, record)),
                    None => others.push(record),
                }
            }
            *records = others;
        }
        Ok(found)
    }

    async fn keyless(&self, record: &SnapshotRecord) -> Result<Option<TableName>, Failed> {
        let table = TableName::try_from(record.table.clone()).ok();
        let table = table.filter(|_| record.is_untouched());
        let Some(table) = table else { return Ok(None) };
        let shape = Shape::look_up(self.sql, &self.settings.publication, &table).await?;
        Ok(shape.is_some_and(|shape| shape.key.is_empty()).then_some(table))
    }

    /// The rows under a snapshot that shows them, whatever becomes of the table meanwhile.
    async fn open(&self, table: &TableName, record: &SnapshotRecord) -> Result<Opened, Failed> {
        let (settings, slot) = (self.settings, slot_name(&self.settings.slot));
        loop {
            let mut connection = Connection::connect(&settings.postgres).await?;
            let found = connection.identify_system().await?;
            if found.system_id != self.on_file.system_id || found.timeline != self.timeline {
                let (found, expected) = (found.timeline, self.timeline);
                return Err(KeylessError::OtherServer { found, expected }.into());
            }
            info!(%table, "reading the rows of a table without a key, while the stream is held");
            let creating = connection.export_snapshot(&slot);
            let created = await_slot(&slot, self.sql, creating).await?;
            let name = created.snapshot.unwrap_or_default();
            let reader = SnapshotReader::import(&settings.postgres, &name, table).await;
            let reader = reader.map_err(|error| self.refused(table, error))?;
            let is_rewritten = reader.is_rewritten(table).await?;
            // The slot ends with it; the snapshot is the reader's by now.
            drop(connection);
            if is_rewritten {
                info!(%table, "the table was rewritten or truncated; taking another snapshot");
                continue;
            }
            let contained = Contained { below: created.consistent_point, timeline: found.timeline };
            return self.open_under(reader, table, record, contained).await;
        }
    }

    async fn open_under(
        &self,
        reader: SnapshotReader,
        table: &TableName,
        record: &SnapshotRecord,
        contained: Contained,
    ) -> Result<Opened, Failed> {
        let sql = reader.sql();
        let shape = Shape::look_up(sql, &self.settings.publication, table).await?;
        let Some(shape) = shape.filter(|shape| shape.oid == record.oid) else {
            return Err(KeylessError::Replaced { table: table.clone() }.into());
        };
        let description =
            published_tables::description(sql, table, &shape.table, &shape.identity).await?;
        let rows = reader.whole_table(table, &shape).await;
        let rows = rows.map_err(|error| self.refused(table, error))?;
        Ok(Opened { source: Source { reader, rows }, shape, description, contained })
    }

    /// By what somebody did to the table behind the snapshot's back, by a right, or by what the server
    /// is.
    fn refused(&self, table: &TableName, source: PostgresError) -> Failed {
        let table = table.clone();
        match source.sqlstate() {
            Some("42501") => {
                let role = self.settings.postgres.user.clone();
                KeylessError::Forbidden { table, role, source }.into()
            }
            // A name that is gone, or, of another server than the slot's, the snapshot.
            Some("42P01" | "3F000" | "42703" | "22023") => {
                KeylessError::Altered { table, source }.into()
            }
            Some(_) | None => source.into(),
        }
    }

    async fn publish_table(
        &mut self,
        stream: &mut ReplicationStream,
        publisher: &mut Publisher,
        mapping: &mut Mapping,
        record: SnapshotRecord,
        opened: Opened,
    ) -> Result<SnapshotRecord, Failed> {
        let Opened { source, shape, description, contained } = opened;
        let Contained { below: EndLsn(position), .. } = contained;
        let record = SnapshotRecord {
            request: new_request(),
            state: SnapshotState::Running,
            is_at_once: true,
            contained: Some(contained),
            estimate: shape.estimate,
            ..record
        };
        // From its first rows on the table has a record, which a start must look for.
        if !self.on_file.snapshots.contains(&record.table) {
            self.on_file.snapshots.push(record.table.clone());
        }
        mapping.observe_snapshot(shape.oid, &description);
        let key = self.settings.checkpoint_key(&self.on_file.system_id);
        let checkpoint = Some(&self.on_file);
        let target = Target { mapping, key, checkpoint, position, record };
        publisher.publish(stream, source, target).await
    }
}

/// One that is there already is of an attempt that was killed, and ends with the transactions that its
/// creation waits for; so at most one is in the way of others.
fn slot_name(slot: &SlotName) -> SlotName {
    let kept: String = slot.as_str().chars().take(SLOT_NAME_MAX - SLOT_SUFFIX.len()).collect();
    SlotName::try_from(format!("{kept}{SLOT_SUFFIX}")).expect("the characters of a slot's name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_the_snapshot_has_a_name_whatever_the_pipelines_is() {
        let name = |slot: &str| slot_name(&SlotName::try_from(slot.to_owned()).expect("a name"));
        assert_eq!(name("tailwater").as_str(), "tailwater_rows");
        let long = "s".repeat(63);
        assert_eq!(name(&long).as_str(), format!("{}_rows", "s".repeat(58)));
    }
}

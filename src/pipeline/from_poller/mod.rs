//! `init --take-over`: rows that wait for a poller become the first events, before the stream's.
//!
//! ```text
//! intent + record ─► slot, its snapshot ─► slot in hand ─► fence ─► rows, each Kafka transaction
//!                                                                   with its record ─► first checkpoint
//! ```
//!
//! **Each row once.** A row is due if the slot's consistent point lies above its insert and the
//! condition holds; what is inserted later comes by the stream. The first attempt reads under the
//! snapshot that the slot's creation exported, which is exactly what was committed below the
//! consistent point. A later one has another snapshot, and leaves out what the stream will bring
//! (`streamed.rs`). It takes that snapshot only after every transaction that was open when it began
//! has ended: one that was committed below the consistent point and waited for a synchronous
//! standby would be neither in the snapshot nor in the stream.
//!
//! **In order.** Rows go out by `created_at`, then id, through one sink. The record says which row
//! was the last, and is in the Kafka transaction of that row: after a crash what is behind it in
//! this order is due, and nothing else. The stream's first event comes after the first checkpoint,
//! which is written when all rows are committed; until then `run`, `init` and `reset` refuse
//! (`snapshot_interrupted`), because the intent names a table and there is no checkpoint.
//!
//! **Killed at any moment:**
//!
//! - before the intent: nothing is there;
//! - between intent and slot: nothing is published, and the next attempt makes the slot;
//! - between slot and first row: the slot's snapshot is gone, and the next attempt reads under its
//!   own;
//! - between rows: a Kafka transaction is there with its record or not at all, and the fence of the
//!   next attempt, which comes before the record is read, decides which;
//! - between the last row and the checkpoint: the next attempt finds no row that is due;
//! - after the checkpoint: there is nothing to do, and a repeat says so.
//!
//! The slot does not move meanwhile: what is read of the stream is not acknowledged. One that was
//! moved or made anew after rows went out is refused, because what lies between would be in no
//! stream and might stand before the last row in the order.
//!
//! What it cannot know: a row that somebody deletes between two attempts, or that an update brings
//! under the condition behind its place. The poller is stopped for that reason.

mod error;
mod neighbours;
mod publisher;
mod streamed;
mod waiting;

use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

pub use error::TakeOverError;

use self::{
    error::Stranded,
    publisher::{Publisher, Target},
    streamed::StreamedRows,
    waiting::{Waiting, check_query, configured, judge_condition, refused, waiting},
};
use super::{
    backfill::due,
    continuity, first_start,
    judgement::{judge_checkpoint, judge_identity, judge_source},
    on_error::OnError,
    refusal::Refusal,
    retention,
    settings::Settings,
    shutdown::Shutdown,
    start::{
        Failed, Ground, await_kafka, blocking, check_server, check_tables, look, stay_alive,
        take_slot,
    },
    tables,
};
use crate::{
    change::{Column, PgTimestamp, Relation, RelationId, ReplicaIdentity, Transaction, Xid},
    checkpoint::{
        CheckpointRecord, Fingerprint, TakeOver,
        store::{Look, Store},
    },
    event::{Mapping, table::PrimaryKey},
    lsn::{CommitLsn, EndLsn},
    postgres::{
        TableName, catalog,
        replication::{Connection, ReplicationStream, SlotSnapshot},
        slot,
        snapshot::{self, After, OpenTransactions, RowsQuery, SnapshotReader},
    },
    sink::{Checkpoint, Checkpoints, kafka::Kafka},
};

/// How often it is looked whether open transactions have ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// So many looks later it is said for whom it waits.
const LOOKS_PER_WORD: u32 = 50;

/// What became of a take-over. Field names are part of the interface.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct TakenOverTable {
    /// Whether there was anything to do.
    pub changed: bool,
    /// `schema.table`.
    pub table: String,
    /// How many rows were published, by all attempts together.
    pub rows: u64,
    /// Where the stream begins.
    pub commit_end_lsn: EndLsn,
}

/// Takes a table over from its poller, or goes on with it. `condition` says which rows wait.
///
/// # Errors
/// [`TakeOverError`], what a first start refuses, and where a server does not do its part.
pub(super) async fn take_over(
    settings: &Settings,
    shutdown: &Shutdown,
    table: &str,
    condition: &str,
) -> Result<TakenOverTable, Failed> {
    let mut begun = None;
    let outcome = begin_or_go_on(settings, shutdown, (table, condition), &mut begun).await;
    outcome.map_err(|failure| match &begun {
        Some(record) => Stranded::or_as_it_is(failure, table, &settings.slot, rows(record)),
        None => failure,
    })
}

/// `begun` becomes the record of a take-over that is not finished, once it is known.
async fn begin_or_go_on(
    settings: &Settings,
    shutdown: &Shutdown,
    (table, condition): (&str, &str),
    begun: &mut Option<TakeOver>,
) -> Result<TakenOverTable, Failed> {
    let table = configured(settings, table)?;
    let (ground, replication) = Ground::enter(settings, shutdown).await?;
    check_server(&ground).await?;
    let slot = ground.find_slot().await?;
    // With a slot only what is read after the fence counts: the transaction of a take-over that was
    // killed hides what is behind it until then.
    let (kafka, before) = look(&ground, slot.is_none()).await?;
    judge_source(settings, &before)?;
    let (mut kafka, record) = look_for_record(kafka, &ground, &table).await?;
    if let Some(record) = &record {
        judge_condition(&table, condition, record)?;
    }
    match (&before.checkpoint, &record) {
        (Some(checkpoint), Some(record)) => return Ok(done(checkpoint, record)),
        (None, Some(record)) => *begun = Some(record.clone()),
        (None, None) if !before.complete => {}
        (None, None) if slot.is_none() && before.intent.is_none() => {
            let others = &before.others_of_source;
            if let Err(refusal) = judge_identity(&settings.source, &ground.key, others) {
                info!("{refusal}; going on with a new pipeline, as asked");
            }
            kafka = neighbours::judge(kafka, &ground, &table, others).await?;
        }
        // The record would be older than the checkpoint, and not hidden where that is not.
        (Some(_) | None, None) => {
            return Err(TakeOverError::TooLate { slot: settings.slot.clone() }.into());
        }
    }
    tables::check(settings, &ground.sql).await??;
    retention::check(settings, &ground.sql).await?;
    check_tables(&ground).await?;
    check_query(&ground, &table, condition).await?;
    if slot.is_none() {
        first_start::ensure_publication(settings, &ground.sql).await?;
    }
    let fingerprint = continuity::describe(settings, &ground.sql).await??;
    let mapping = check_tables(&ground).await?;
    let Waiting { query, columns } = waiting(&ground, &table, condition).await?;
    let is_resumed = slot.is_some();
    let (stream, reader) = if is_resumed {
        (take_slot(settings, replication).await?, None)
    } else {
        let record = record.unwrap_or_else(|| new_record(settings, &table, condition));
        judge_slot_is_due(settings, &record)?;
        first_start::write_intent(&ground, Some(&record), &fingerprint).await?;
        let (stream, reader) = create_slot(&ground, &table).await?;
        (stream, Some(reader))
    };
    let attempt = Attempt { ground, table, query, columns, fingerprint, mapping, stream };
    attempt.run(kafka, reader, begun).await
}

fn done(checkpoint: &CheckpointRecord, record: &TakeOver) -> TakenOverTable {
    TakenOverTable {
        changed: false,
        table: record.table.clone(),
        rows: rows(record),
        commit_end_lsn: checkpoint.commit_end_lsn,
    }
}

fn rows(record: &TakeOver) -> u64 {
    record.published.as_ref().map_or(0, |published| published.rows)
}

fn new_record(settings: &Settings, table: &TableName, condition: &str) -> TakeOver {
    TakeOver {
        version: 1,
        source: settings.source.clone(),
        table: table.to_string(),
        condition: condition.to_owned(),
        published: None,
        written_at: jiff::Timestamp::now().to_string(),
    }
}

/// Where rows went out the slot must be there: a new one would begin later.
fn judge_slot_is_due(settings: &Settings, record: &TakeOver) -> Result<(), Refusal> {
    match &record.published {
        Some(published) => Err(Refusal::SlotMissing {
            slot: settings.slot.clone(),
            checkpoint: published.consistent_lsn,
        }),
        None => Ok(()),
    }
}

async fn look_for_record(
    kafka: Kafka,
    ground: &Ground<'_>,
    table: &TableName,
) -> Result<(Kafka, Option<TakeOver>), Failed> {
    let (key, table) = (ground.key.clone(), table.to_string());
    blocking(move || {
        let record = Store::open(&kafka)?.look_for_take_over(&key, &table)?;
        Ok((kafka, record))
    })
    .await
}

/// The slot, and a reader of its snapshot. The snapshot holds until the connection's next command,
/// which comes when somebody reads under it.
async fn create_slot(
    ground: &Ground<'_>,
    table: &TableName,
) -> Result<(ReplicationStream, SnapshotReader), Failed> {
    let settings = ground.settings;
    let (connection, created): (Connection, _) =
        first_start::create_slot(settings, &ground.sql, SlotSnapshot::Exported).await?;
    let name = created.snapshot.unwrap_or_default();
    let reader = SnapshotReader::import(&settings.postgres, &name, table).await?;
    if reader.is_rewritten(table).await? {
        return Err(TakeOverError::Rewritten { table: table.clone() }.into());
    }
    Ok((take_slot(settings, connection).await?, reader))
}

/// One attempt, with the slot in hand.
struct Attempt<'a> {
    ground: Ground<'a>,
    table: TableName,
    query: RowsQuery,
    columns: Vec<Column>,
    fingerprint: Fingerprint,
    mapping: Mapping,
    stream: ReplicationStream,
}

impl Attempt<'_> {
    async fn run(
        mut self,
        kafka: Kafka,
        reader: Option<SnapshotReader>,
        begun: &mut Option<TakeOver>,
    ) -> Result<TakenOverTable, Failed> {
        let (kafka, look, mut record) = self.fence_and_read(kafka).await?;
        judge_source(self.ground.settings, &look)?;
        judge_condition(&self.table, &self.query.condition, &record)?;
        if let Some(checkpoint) = &look.checkpoint {
            self.stream.finish(None, None).await;
            return Ok(done(checkpoint, &record));
        }
        *begun = Some(record.clone());
        let mut first = self.first_checkpoint(&record).await?;
        let due = due::of_all_tables(&self.ground.settings.event, &first.publication);
        first.snapshots = due.iter().map(|record| record.table.clone()).collect();
        let (reader, streamed) = match reader {
            Some(reader) => (reader, StreamedRows::default()),
            None => self.read_anew().await?,
        };
        let last = record.published.as_ref().map(|published| published.last.clone());
        let after = last
            .as_ref()
            .map(|last| After { created_at: last.created_at.as_deref(), id: &last.id });
        let (query, stream) = (&self.query, &mut self.stream);
        let role = &self.ground.settings.postgres.user;
        let waiting = stay_alive(stream, count(&reader, query, after, role)).await?;
        let kafka = match record.condition == query.condition {
            true => kafka,
            false => {
                record.condition.clone_from(&query.condition);
                self.write_record(kafka, &record).await?
            }
        };
        info!(table = %self.table, rows = waiting, already = rows(&record), "taking over");
        let rows = reader.rows(&self.query, after).await?;
        let record_bytes_max = kafka.record_bytes_max();
        let sink = kafka.into_sink()?;
        let key = self.ground.key.clone();
        let (target, mut stream) = self.into_target(&first);
        let table = target.query.table.to_string();
        let mut publisher = Publisher::new(target, record, sink, record_bytes_max, waiting);
        let rows = publisher.publish(&mut stream, rows, &streamed).await?;
        let value = serde_json::to_vec(&first).expect("text keys and numbers always encode");
        let mut checkpoints = Checkpoints::from(Checkpoint { key: key.to_string().into(), value });
        for record in &due {
            let value = serde_json::to_vec(record).expect("texts and numbers always encode");
            let key = key.snapshot(&record.table).into();
            checkpoints.push(Checkpoint { key, value });
        }
        publisher.end(&mut stream, checkpoints).await?;
        stream.finish(None, None).await;
        info!(table, rows, "took the table over");
        let commit_end_lsn = first.commit_end_lsn;
        Ok(TakenOverTable { changed: true, table, rows, commit_end_lsn })
    }

    /// The record with its corrected condition: by what condition a repeat after the end is one must
    /// be known also where no row is due.
    async fn write_record(&mut self, mut kafka: Kafka, record: &TakeOver) -> Result<Kafka, Failed> {
        let key = self.ground.key.snapshot(&record.table);
        let value = serde_json::to_vec(record).expect("texts and numbers always encode");
        let writing = blocking(move || {
            kafka.write(&[(key.as_str(), value.as_slice())])?;
            Ok(kafka)
        });
        await_kafka(&mut self.stream, self.ground.settings.kafka.outage_grace, writing).await
    }

    /// What was written before the fence, and nothing comes behind it.
    async fn fence_and_read(
        &mut self,
        mut kafka: Kafka,
    ) -> Result<(Kafka, Look, TakeOver), Failed> {
        let (key, source) = (self.ground.key.clone(), self.ground.settings.source.clone());
        let table = self.table.to_string();
        let slot = self.ground.settings.slot.clone();
        let fencing = blocking(move || {
            kafka.fence()?;
            let store = Store::open(&kafka)?;
            let look = store.read(&key, &source)?;
            let record = store.read_take_over(&key, &table)?;
            // It is older than the slot.
            let record = record.ok_or(TakeOverError::TooLate { slot })?;
            Ok((kafka, look, record))
        });
        let grace = self.ground.settings.kafka.outage_grace;
        await_kafka(&mut self.stream, grace, fencing).await
    }

    /// The checkpoint that ends the take-over: the slot's consistent point, which must be the one
    /// that the published rows were read at.
    async fn first_checkpoint(&self, record: &TakeOver) -> Result<CheckpointRecord, Failed> {
        let Ground { settings, sql, server, .. } = &self.ground;
        let slot = slot::describe(sql, &settings.slot).await?;
        let confirmed_flush = slot.and_then(|slot| slot.confirmed_flush);
        let Some(position) = confirmed_flush else {
            return Err(Refusal::NoSlot { slot: settings.slot.clone() }.into());
        };
        let fingerprint = self.fingerprint.clone();
        let (identity, now) = (&server.identity, catalog::now(sql).await?);
        let first = first_start::checkpoint(settings, identity, position, fingerprint, now);
        if let Some(published) = &record.published {
            let begun = CheckpointRecord {
                commit_end_lsn: published.consistent_lsn,
                timeline: published.timeline,
                ..first.clone()
            };
            judge_checkpoint(&self.ground, Some(position), &begun).await?;
        }
        Ok(first)
    }

    /// Another snapshot than that of the slot's creation, and what it shows too much.
    async fn read_anew(&mut self) -> Result<(SnapshotReader, StreamedRows), Failed> {
        let (settings, sql) = (self.ground.settings, &self.ground.sql);
        stay_alive(&mut self.stream, await_open_transactions(&self.ground)).await?;
        let reader = SnapshotReader::begin(&settings.postgres, &self.table).await?;
        let mark = snapshot::mark(sql).await?;
        let (table, id) = (&self.table, &self.query.id);
        let streamed = streamed::read_until(&mut self.stream, table, id, mark).await?;
        Ok((reader, streamed))
    }

    /// What the rows become, and the slot in hand.
    fn into_target(self, first: &CheckpointRecord) -> (Target, ReplicationStream) {
        let Self { ground, table, query, columns, fingerprint, mut mapping, stream } = self;
        let role = ground.settings.postgres.user.clone();
        let on_error = OnError::of(ground.settings.dead_letters.clone());
        let name = table.to_string();
        // The number is only what the mapping knows the table by.
        let id = fingerprint.tables.get(&name).map_or(RelationId(0), |found| found.oid);
        let count = columns.len();
        mapping.observe_relation(
            &Relation {
                id,
                schema: table.schema.clone(),
                name: table.name.clone(),
                replica_identity: ReplicaIdentity::Nothing,
                columns,
            },
            PrimaryKey::Columns(Vec::new()),
        );
        let place = Transaction {
            commit_lsn: CommitLsn(first.commit_end_lsn.lsn()),
            xid: Xid(0),
            committed_at: PgTimestamp::now(),
        };
        let (timeline, key) = (first.timeline, ground.key.snapshot(&name));
        let columns = count;
        let target =
            Target { query, role, on_error, relation: id, mapping, place, timeline, key, columns };
        (target, stream)
    }
}

/// How many rows wait, each of which must have an id of its own: where a row stands, and whether the
/// stream brings it, is told by its id.
async fn count(
    reader: &SnapshotReader,
    query: &RowsQuery,
    after: Option<After<'_>>,
    role: &str,
) -> Result<u64, Failed> {
    let refused = |error| refused(query, role, error);
    let doubled = reader.doubled_id(query).await.map_err(refused)?;
    if let Some(id) = doubled {
        return Err(TakeOverError::DoubledId { table: query.table.clone(), id }.into());
    }
    reader.count(query, after).await.map_err(refused)
}

/// Waits until every transaction that is open by now has ended, and says for whom.
async fn await_open_transactions(ground: &Ground<'_>) -> Result<(), Failed> {
    let sql = &ground.sql;
    let open = OpenTransactions::of_now(sql).await?;
    let mut looks = 0;
    while !open.have_ended(sql).await? {
        looks += 1;
        if looks % LOOKS_PER_WORD == 0 {
            for blocker in open.blockers(sql).await? {
                info!("reading the table waits for the end of {blocker}");
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

//! The first start: publication, intent, slot, first checkpoint, in this order.
//!
//! The publication comes before the slot, because the slot decodes with the catalog as of each
//! position. The intent comes before the slot, because a slot without a word of ours could be
//! anybody's: after a crash in between, the next start knows that the slot is its own and goes on
//! from `confirmed_flush`, which is where the slot was created.
//!
//! Several instances may be here at once, also of different sources, and one may be publishing
//! already when another is still about to write its intent. The intent has a transactional id of
//! its own, which fences nobody who publishes, and is written by compare and set: take the id,
//! look, write. Whoever takes the id after us ends our write, or sees what we wrote.

use tracing::info;

use super::{
    backfill::due,
    continuity::judge_operations,
    descendants,
    judgement::{judge_source, taken_over},
    refusal::{Refusal, not_published},
    settings::Settings,
    slot_creation::await_slot,
    start::{Failed, Ground, blocking},
    tables,
};
use crate::{
    checkpoint::{CheckpointRecord, Fingerprint, Intent, TakeOver, store::Store},
    lsn::{EndLsn, Lsn},
    postgres::{
        publication::{self, Absence},
        replication::{Connection, CreatedSlot, SlotSnapshot, SystemIdentity},
        slot,
        sql::Sql,
    },
    sink::kafka::KafkaError,
};

/// Creates the publication, or adds the tables and operations that it lacks.
pub(super) async fn ensure_publication(settings: &Settings, sql: &Sql) -> Result<(), Failed> {
    let name = &settings.publication;
    let tables = tables::to_publish(settings, sql).await?;
    match publication::describe(sql, name, &tables).await? {
        None => {
            descendants::judge_joining(settings, sql, &tables, None).await??;
            let operations = settings.operations(&tables);
            let statement = publication::create_sql(name, &tables, operations);
            publication::change(sql, name, &statement).await?;
            info!(publication = %name, "created the publication");
        }
        Some(found) => {
            let lacking = found.lacking(settings.operations(&tables));
            if lacking.contains(&"insert") {
                judge_operations(settings, &tables, &found)?;
            }
            descendants::judge_joining(settings, sql, &tables, Some(&found)).await??;
            if !lacking.is_empty() {
                let statement = found.add_operations_sql(name, &lacking);
                publication::change(sql, name, &statement).await?;
                info!(publication = %name, operations = lacking.join(", "), "publishing more");
            }
            for (table, absence) in &found.absent {
                if *absence != Absence::NotMember {
                    return Err(not_published(settings, table, absence).into());
                }
                publication::add_table(sql, name, table).await?;
                info!(publication = %name, %table, "added the table to the publication");
            }
        }
    }
    Ok(())
}

/// Where there is no slot: intent and slot.
pub(super) async fn prepare(ground: &Ground<'_>, publication: &Fingerprint) -> Result<(), Failed> {
    write_intent(ground, None, publication).await?;
    create_slot(ground.settings, &ground.sql, SlotSnapshot::None).await.map(drop)
}

/// Writes the intent, unless there is one already that promises the same. One that promises that the
/// rows of a take-over come first, or that nothing does, is not replaced by another. With a take-over
/// its record is written too.
pub(super) async fn write_intent(
    ground: &Ground<'_>,
    take_over: Option<&TakeOver>,
    publication: &Fingerprint,
) -> Result<(), Failed> {
    let settings = ground.settings;
    let raced = || Refusal::FirstStartRaced { slot: settings.slot.clone() };
    let by = settings.kafka_for_intent(&ground.server.identity.system_id);
    let mut kafka = ground.connect_kafka_by(by).await?;
    let (key, source) = (ground.key.clone(), settings.source.clone());
    let is_raced = raced();
    let (mut kafka, look) = blocking(move || {
        kafka.fence().map_err(|error| of_intent(error, is_raced))?;
        // To the high watermark: what another one wrote under the id counts, however late the
        // brokers show it.
        let look = Store::open(&kafka)?.read(&key, &source)?;
        Ok((kafka, look))
    })
    .await?;
    judge_source(settings, &look)?;
    let slot = slot::describe(&ground.sql, &settings.slot).await?;
    if slot.is_some() || look.checkpoint.is_some() {
        return Err(raced().into());
    }
    let first = take_over.map(|record| &record.table);
    if let Some(intent) = &look.intent
        && taken_over(settings, intent) != first
    {
        return Err(raced().into());
    }
    let beside = due::of_all_tables(&settings.event, publication);
    let beside = beside.into_iter().map(|record| record.table);
    let snapshots: Vec<String> = first.cloned().into_iter().chain(beside).collect();
    if look.intent.as_ref().is_some_and(|intent| intent.snapshots == snapshots) {
        return Ok(());
    }
    let intent = Intent {
        version: 1,
        source: settings.source.clone(),
        snapshots,
        written_at: jiff::Timestamp::now().to_string(),
    };
    let mut records =
        vec![(ground.key.intent(), serde_json::to_vec(&intent).expect("text always encodes"))];
    records.extend(take_over.map(|record| {
        let key = ground.key.snapshot(&record.table);
        (key, serde_json::to_vec(record).expect("text always encodes"))
    }));
    let is_raced = raced();
    blocking(move || {
        let records: Vec<_> =
            records.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        let written = kafka.write(&records);
        written.map_err(|error| of_intent(error, is_raced))
    })
    .await
}

/// Who is fenced here met another first start, and no instance that publishes.
fn of_intent(error: KafkaError, raced: Refusal) -> Failed {
    match error {
        KafkaError::Fenced { .. } => raced.into(),
        error => error.into(),
    }
}

/// The slot, as soon as the server has made it.
pub(super) async fn create_slot(
    settings: &Settings,
    sql: &Sql,
    snapshot: SlotSnapshot,
) -> Result<(Connection, CreatedSlot), Failed> {
    let mut connection = Connection::connect(&settings.postgres).await?;
    let created = {
        let creating = connection.create_slot(&settings.slot, settings.failover, snapshot);
        await_slot(&settings.slot, sql, creating).await?
    };
    info!(
        slot = %settings.slot,
        consistent_point = %created.consistent_point,
        "created the slot"
    );
    Ok((connection, created))
}

/// The checkpoint of a slot that was just created, or whose creation was interrupted. `begun_at` is
/// asked for when the slot is there: what was committed before it is older.
pub(super) fn checkpoint(
    settings: &Settings,
    identity: &SystemIdentity,
    position: Lsn,
    publication: Fingerprint,
    begun_at: String,
) -> CheckpointRecord {
    CheckpointRecord {
        version: 1,
        source: settings.source.clone(),
        system_id: identity.system_id.clone(),
        timeline: identity.timeline,
        database: settings.postgres.database.clone(),
        slot: settings.slot.to_string(),
        commit_end_lsn: EndLsn(position),
        last: None,
        in_progress: None,
        given_up_from: None,
        snapshots: Vec::new(),
        publication: publication.dated(&begun_at),
        begun_at: Some(begun_at),
        written_at: jiff::Timestamp::now().to_string(),
    }
}

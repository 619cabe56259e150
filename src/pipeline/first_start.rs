//! The first start: publication, intent, slot, first checkpoint, in this order.
//!
//! The publication comes before the slot, because the slot decodes with the catalog as of each
//! position. The intent comes before the slot, because a slot without a word of ours could be
//! anybody's: after a crash in between, the next start knows that the slot is its own and goes on
//! from `confirmed_flush`, which is where the slot was created.

use std::time::Duration;

use tokio::time::interval;
use tracing::info;

use super::{
    settings::Settings,
    start::{Failed, blocking},
};
use crate::{
    checkpoint::{CheckpointKey, CheckpointRecord, Fingerprint, Intent},
    lsn::{EndLsn, Lsn},
    postgres::{
        publication,
        replication::{Connection, SystemIdentity},
        slot,
        sql::Sql,
    },
    sink::kafka::Kafka,
};

/// How often a slot that waits for open transactions says for whom.
const BLOCKERS_INTERVAL: Duration = Duration::from_secs(5);

/// Creates the publication, or adds the tables that it lacks.
pub(super) async fn ensure_publication(settings: &Settings, sql: &Sql) -> Result<(), Failed> {
    let name = &settings.publication;
    match publication::describe(sql, name, &settings.tables).await? {
        None => {
            publication::create(sql, name, &settings.tables).await?;
            info!(publication = %name, "created the publication");
        }
        Some(found) => {
            for table in &settings.tables {
                if !found.tables.contains_key(table) {
                    publication::add_table(sql, name, table).await?;
                    info!(publication = %name, %table, "added the table to the publication");
                }
            }
        }
    }
    Ok(())
}

/// Where there is no slot: publication, intent and slot.
pub(super) async fn prepare(
    settings: &Settings,
    kafka: Kafka,
    key: &CheckpointKey,
    sql: &Sql,
) -> Result<(), Failed> {
    ensure_publication(settings, sql).await?;
    write_intent(settings, kafka, key).await?;
    create_slot(settings, sql).await
}

async fn write_intent(
    settings: &Settings,
    mut kafka: Kafka,
    key: &CheckpointKey,
) -> Result<(), Failed> {
    let intent = Intent {
        version: 1,
        source: settings.source.clone(),
        snapshots: Vec::new(),
        written_at: jiff::Timestamp::now().to_string(),
    };
    let key = key.intent();
    let value = serde_json::to_vec(&intent).expect("text always encodes");
    blocking(move || {
        kafka.fence()?;
        Ok(kafka.write(&[(key.as_str(), value.as_slice())])?)
    })
    .await
}

/// The server creates a slot only when every transaction that is open, in any database of the
/// cluster, has ended. Where that takes time it is said whom it waits for.
async fn create_slot(settings: &Settings, sql: &Sql) -> Result<(), Failed> {
    let mut connection = Connection::connect(&settings.postgres).await?;
    let creating = connection.create_slot(&settings.slot, settings.failover);
    tokio::pin!(creating);
    let mut ticks = interval(BLOCKERS_INTERVAL);
    ticks.tick().await;
    let consistent_point = loop {
        tokio::select! {
            created = &mut creating => break created?,
            _ = ticks.tick() => {
                for blocker in slot::creation_blockers(sql).await? {
                    info!(
                        slot = %settings.slot,
                        pid = blocker.pid,
                        application = blocker.application,
                        since = blocker.since,
                        "creating the slot waits for an open transaction"
                    );
                }
            }
        }
    };
    info!(slot = %settings.slot, %consistent_point, "created the slot");
    Ok(())
}

/// The checkpoint of a slot that was just created, or whose creation was interrupted.
pub(super) fn checkpoint(
    settings: &Settings,
    identity: &SystemIdentity,
    position: Lsn,
    publication: Fingerprint,
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
        publication,
        written_at: jiff::Timestamp::now().to_string(),
    }
}

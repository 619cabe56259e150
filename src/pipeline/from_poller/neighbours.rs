//! Whether another pipeline of the source publishes the other tables of the settings file. A
//! take-over by another slot begins there for all of them: what is committed between the other
//! pipeline's last transaction and the new slot would be published by neither.

use super::{
    super::start::{Failed, Ground, blocking},
    error::TakeOverError,
};
use crate::{
    checkpoint::{CheckpointKey, store::Store},
    postgres::{SlotName, TableName, slot},
    sink::kafka::Kafka,
};

/// Refuses where one of `others`, keys of pipelines of the same source, has its slot in this
/// database and publishes a table of ours that is not `table`.
///
/// # Errors
/// [`TakeOverError::PublishedElsewhere`], and where a server does not answer.
pub(super) async fn judge(
    mut kafka: Kafka,
    ground: &Ground<'_>,
    table: &TableName,
    others: &[String],
) -> Result<Kafka, Failed> {
    for other in others {
        let Some(slot) = slot_of(other, &ground.key) else { continue };
        // One that was dropped is followed by nobody any more: a shadow run, a take-over given up.
        if slot::describe(&ground.sql, &slot).await?.is_none() {
            continue;
        }
        let key = CheckpointKey { slot: slot.to_string(), ..ground.key.clone() };
        let source = ground.settings.source.clone();
        let (given_back, checkpoint) = blocking(move || {
            let checkpoint = Store::open(&kafka)?.look(&key, &source)?.checkpoint;
            Ok((kafka, checkpoint))
        })
        .await?;
        kafka = given_back;
        let is_published = |ours: &&TableName| {
            let tables = checkpoint.as_ref().map(|checkpoint| &checkpoint.publication.tables);
            tables.is_some_and(|tables| tables.contains_key(&ours.to_string()))
        };
        let mut ours = ground.settings.tables.iter().filter(|ours| *ours != table);
        if let Some(other) = ours.find(is_published) {
            let (table, other) = (table.clone(), other.clone());
            return Err(TakeOverError::PublishedElsewhere { table, other, slot }.into());
        }
    }
    Ok(kafka)
}

/// The slot of a key of the same database.
fn slot_of(key: &str, ours: &CheckpointKey) -> Option<SlotName> {
    let (_, slot) = key.rsplit_once('/')?;
    let of_ours = CheckpointKey { slot: slot.to_owned(), ..ours.clone() };
    (of_ours.to_string() == key).then(|| SlotName::try_from(slot.to_owned()).ok())?
}

//! Whether checkpoint, slot and server belong together, as far as that can be told without the
//! stream: by the provisional look of a start, which fences nobody.

use super::{finding::Finding, slot};
use crate::{
    checkpoint::store::Look,
    pipeline::{
        backfill::due,
        continuity,
        former_primary::has_next_host,
        judgement::{judge_look, judge_rows},
        refusal::Refusal,
        start::{Failed, Ground, Purpose},
    },
    postgres::slot::Slot,
};

const NAME: &str = "checkpoint";

/// Judges what was looked up. `slot` must have been looked up before the checkpoint was.
///
/// # Errors
/// That the server is a former primary, where the present one may be at another host.
pub(super) async fn examine(
    ground: &Ground<'_>,
    slot: Option<&Slot>,
    look: &Look,
) -> Result<Finding, Failed> {
    let judged = match judge_look(ground, slot, look, Purpose::Run).await {
        Ok(()) => judge_rows_at_rest(ground, slot, look).await,
        refused => refused,
    };
    match judged {
        Err(failure) if has_next_host(ground.settings, &*failure) => Err(failure),
        Err(failure) => Ok(of_failure(&failure)),
        Ok(()) => Ok(found(ground, look)),
    }
}

/// Whether rows that were there are out in part, and nobody is at it.
async fn judge_rows_at_rest(
    ground: &Ground<'_>,
    slot: Option<&Slot>,
    look: &Look,
) -> Result<(), Failed> {
    if look.snapshots.is_empty() || slot.is_some_and(|slot| slot.active_pid.is_some()) {
        return Ok(());
    }
    // What is wrong with the publication is another finding's.
    let Ok(publication) = continuity::describe(ground.settings, &ground.sql).await? else {
        return Ok(());
    };
    let records = look.snapshots.values();
    judge_rows(ground, records.filter(|record| due::is_there(&publication, record))).await
}

/// What `run` would stop with; its fix is what can be pasted.
fn of_failure(failure: &Failed) -> Finding {
    let error: &dyn std::error::Error = &**failure;
    match error.downcast_ref() {
        Some(refusal @ Refusal::SlotMissing { .. }) => slot::missing(refusal),
        Some(refusal @ Refusal::CheckpointMissing { slot }) => Finding::refused(
            NAME,
            refusal,
            // Dropped where only the topic is a wrong one, the slot would take with it what is
            // not published: nothing of this does so when it is pasted.
            format!(
                "check kafka.brokers and kafka.checkpoint_topic in the settings file: its \
                 checkpoint may be elsewhere. Else go on from where the slot stands by tailwater \
                 init --adopt-slot -- or, only where nothing was ever published from it, which \
                 gives up what it holds: SELECT pg_drop_replication_slot('{slot}')"
            ),
        ),
        Some(_) | None => Finding::of(NAME, &**failure),
    }
}

/// The position.
fn found(ground: &Ground<'_>, look: &Look) -> Finding {
    let topic = &ground.settings.kafka.checkpoint_topic;
    match &look.checkpoint {
        Some(checkpoint) if look.complete => Finding::fine(
            NAME,
            format!("{}, written {}", checkpoint.commit_end_lsn, checkpoint.written_at),
        ),
        Some(checkpoint) => Finding::note(
            NAME,
            format!(
                "{} at least; another pipeline's open transaction hides what comes behind it",
                checkpoint.commit_end_lsn
            ),
        ),
        None if look.complete => Finding::note(NAME, format!("none in \"{topic}\" yet")),
        None => Finding::note(
            NAME,
            format!("none in \"{topic}\" that can be read: an open transaction may hide it"),
        ),
    }
}

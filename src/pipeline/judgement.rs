//! Step 4 of the start order, but for the publication: whether checkpoint, slot and server belong
//! together. Nothing here waits for Kafka or changes anything.

use tracing::info;

use super::{
    refusal::Refusal,
    settings::Settings,
    start::{Failed, Ground, Purpose},
};
use crate::{
    checkpoint::{CheckpointKey, CheckpointRecord, store::Look},
    lsn::Lsn,
    postgres::{
        SlotName, catalog,
        replication::{SystemIdentity, TimelineHistory},
        slot::{self, Slot},
    },
};

/// Step 4 as far as step 0 can judge.
///
/// # Errors
/// [`Refusal`], or where the server does not answer.
pub(super) async fn judge_look(
    ground: &Ground<'_>,
    slot: Option<&Slot>,
    look: &Look,
    purpose: Purpose,
) -> Result<(), Failed> {
    let settings = ground.settings;
    judge_source(settings, look)?;
    match (slot, &look.checkpoint) {
        (None, Some(checkpoint)) => {
            let slot = settings.slot.clone();
            // Whoever is faster at a first start makes both between our two looks.
            if slot::describe(&ground.sql, &slot).await?.is_some() {
                return Err(Refusal::FirstStartRaced { slot }.into());
            }
            let checkpoint = checkpoint.commit_end_lsn;
            Err(Refusal::SlotMissing { slot, checkpoint }.into())
        }
        (None, None) if look.intent.is_none() => {
            match judge_identity(&settings.source, &ground.key, &look.others_of_source) {
                Err(refusal) if purpose == Purpose::Init => {
                    info!("{refusal}; going on with a new pipeline, as asked");
                    Ok(())
                }
                judged => Ok(judged?),
            }
        }
        // Where something hides above the last stable offset, only step 3 can judge the position.
        (Some(_), _) if !look.complete => Ok(()),
        (Some(slot), Some(checkpoint)) => {
            judge_checkpoint(ground, slot.confirmed_flush, checkpoint).await
        }
        (Some(_), None) if look.intent.is_none() => {
            Err(Refusal::CheckpointMissing { slot: settings.slot.clone() }.into())
        }
        (None | Some(_), None) => Ok(()),
    }
}

/// Whether the slot's checkpoint or intent is of our source.
///
/// # Errors
/// [`Refusal::ForeignSlot`] where it is not.
pub(super) fn judge_source(settings: &Settings, look: &Look) -> Result<(), Refusal> {
    let Some(theirs) = look.foreign_source(&settings.source) else { return Ok(()) };
    Err(Refusal::ForeignSlot {
        slot: settings.slot.clone(),
        theirs: theirs.to_owned(),
        ours: settings.source.clone(),
    })
}

/// Judges a checkpoint by what the server says of itself. `confirmed_flush` must have been asked
/// for before the checkpoint was read, or while we hold the slot.
///
/// # Errors
/// [`Refusal`], or where the server does not answer.
pub(super) async fn judge_checkpoint(
    ground: &Ground<'_>,
    confirmed_flush: Option<Lsn>,
    checkpoint: &CheckpointRecord,
) -> Result<(), Failed> {
    let slot = &ground.settings.slot;
    let Some(confirmed_flush) = confirmed_flush else {
        let checkpoint = checkpoint.commit_end_lsn;
        return Err(Refusal::SlotMissing { slot: slot.clone(), checkpoint }.into());
    };
    // Asked for after the checkpoint was read: a daemon at work moves it on with the log, and an
    // end of before would lie below it.
    let wal_end = catalog::wal_end(&ground.sql).await?;
    judge_history(checkpoint, &ground.server.identity, ground.server.history.as_ref())?;
    Ok(judge_position(checkpoint, slot, confirmed_flush, wal_end)?)
}

fn judge_history(
    checkpoint: &CheckpointRecord,
    server: &SystemIdentity,
    history: Option<&TimelineHistory>,
) -> Result<(), Refusal> {
    let is_in_history = checkpoint.timeline == server.timeline
        || history
            .and_then(|history| history.switch_point(checkpoint.timeline))
            .is_some_and(|switch_point| checkpoint.commit_end_lsn.lsn() <= switch_point);
    if is_in_history {
        return Ok(());
    }
    Err(Refusal::TimelineDiverged {
        checkpoint: checkpoint.commit_end_lsn,
        timeline: checkpoint.timeline,
        server_timeline: server.timeline,
    })
}

fn judge_position(
    checkpoint: &CheckpointRecord,
    slot: &SlotName,
    confirmed_flush: Lsn,
    wal_end: Lsn,
) -> Result<(), Refusal> {
    let position = checkpoint.commit_end_lsn;
    if position.lsn() > wal_end {
        return Err(Refusal::CheckpointAhead { checkpoint: position, wal_end });
    }
    if position.lsn() < confirmed_flush {
        let slot = slot.clone();
        return Err(Refusal::CheckpointBehindSlot { slot, checkpoint: position, confirmed_flush });
    }
    Ok(())
}

/// Judges a first start: the source must not be known under another key.
fn judge_identity(source: &str, key: &CheckpointKey, others: &[String]) -> Result<(), Refusal> {
    if others.is_empty() {
        return Ok(());
    }
    Err(Refusal::IdentityChanged {
        source_name: source.to_owned(),
        known: others.join(", "),
        key: key.to_string(),
    })
}

/// Whether the slot is one that we can read.
///
/// # Errors
/// [`Refusal::SlotWrongPlugin`] and [`Refusal::SlotInvalidated`].
pub(super) fn judge_slot(settings: &Settings, slot: &Slot) -> Result<(), Refusal> {
    let name = settings.slot.clone();
    let wrong = |what: String| Err(Refusal::SlotWrongPlugin { slot: settings.slot.clone(), what });
    match (slot.plugin.as_deref(), slot.database.as_deref()) {
        (None, _) => wrong("is a physical slot".to_owned()),
        (Some("pgoutput"), Some(database)) if database == settings.postgres.database => {
            match slot.invalidation() {
                Some(reason) => Err(Refusal::SlotInvalidated { slot: name, reason }),
                None => Ok(()),
            }
        }
        (Some("pgoutput"), database) => {
            wrong(format!("is of database \"{}\"", database.unwrap_or_default()))
        }
        (Some(plugin), _) => wrong(format!("decodes with \"{plugin}\", not with pgoutput")),
    }
}

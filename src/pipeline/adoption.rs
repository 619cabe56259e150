//! `init --adopt-slot`: a slot that is there, and no checkpoint of ours that speaks of it.
//!
//! Two runs lead here. Either nobody's record is under the slot's key: it was made by hand, or the
//! checkpoint topic was lost. Then all that is known is the slot's own position, and everything
//! behind it is published; what was published of it before is doubled, and nothing is lost, because
//! a slot's `confirmed_flush` never is above what was published. Or the record is there and names
//! another `source`: it was renamed. Then the record is as good as it was, and only its name
//! changes: to begin at `confirmed_flush` would double what lies between that and the checkpoint,
//! or a part of the transaction that is out in part.
//!
//! The one thing written is the checkpoint, in one Kafka transaction, holding the slot and after
//! the fence. Before it everything is as it was; after it a repeat finds a checkpoint of its own
//! source and has nothing to do.

use super::{
    amendment::{Act, Amendment},
    backfill::due,
    continuity, first_start,
    held_slot::HeldSlot,
    judgement::{judge_checkpoint, judge_source, judge_take_over},
    refusal::Refusal,
    settings::Settings,
    shutdown::Shutdown,
    start::{Failed, Ground, check_tables, find_checkpoint},
    writing_by_hand::WritingByHand,
};
use crate::{
    checkpoint::{CheckpointRecord, Fingerprint, store::Look},
    postgres::{
        catalog,
        publication::{self, Member},
    },
};

/// What became of the wish to adopt.
#[derive(Clone, PartialEq, Debug)]
pub enum Adoption {
    /// The checkpoint was ours already.
    Nothing(Box<CheckpointRecord>),
    /// It was written.
    Adopted(Box<Amendment>),
}

/// Adopts the slot, if `confirm` agrees to what it is told.
///
/// # Errors
/// What `run` would refuse too, where the checkpoint of a renamed source is gone on with; where
/// somebody holds the slot; where nothing shows that the publication is as old as the slot's
/// position; and that of `confirm`.
pub(super) async fn adopt(
    settings: &Settings,
    shutdown: &Shutdown,
    writing: &WritingByHand,
    confirm: impl AsyncFn(&Amendment) -> Result<(), Failed>,
) -> Result<Adoption, Failed> {
    match find_checkpoint(settings, shutdown).await {
        Ok(Some(checkpoint)) => return Ok(Adoption::Nothing(Box::new(checkpoint))),
        Ok(None) => {}
        Err(failure) if is_foreign(&failure) => {}
        Err(failure) => return Err(failure),
    }
    let judge = |look: &Look| judge_take_over(settings, look);
    let mut held = HeldSlot::take(settings, shutdown, judge).await?;
    if let Some(checkpoint) = ours(settings, &mut held.look) {
        held.release().await;
        return Ok(Adoption::Nothing(Box::new(checkpoint)));
    }
    let fingerprint = continuity::describe(settings, &held.ground.sql).await??;
    check_tables(&held.ground).await?;
    let (act, record) = match &held.look.checkpoint {
        Some(checkpoint) => (Act::RenameSource, renamed(&held, checkpoint, fingerprint).await?),
        None => {
            judge_publication(&held.ground, &fingerprint).await?;
            let fingerprint = due::without_new_tables(&settings.event, None, fingerprint);
            let identity = &held.ground.server.identity;
            let position = held.confirmed_flush;
            let now = catalog::now(&held.ground.sql).await?;
            let first = first_start::checkpoint(settings, identity, position, fingerprint, now);
            (Act::AdoptSlot, first)
        }
    };
    let before = held.look.checkpoint.clone();
    let amendment = Amendment::new(act, before.as_ref(), &record, held.confirmed_flush);
    held.keep(confirm(&amendment)).await?;
    held.write(&record, writing).await?;
    Ok(Adoption::Adopted(Box::new(amendment)))
}

fn is_foreign(failure: &Failed) -> bool {
    let failure: &dyn std::error::Error = &**failure;
    matches!(failure.downcast_ref(), Some(Refusal::ForeignSlot { .. }))
}

/// Somebody was faster: the checkpoint is there.
fn ours(settings: &Settings, look: &mut Look) -> Option<CheckpointRecord> {
    judge_source(settings, look).ok()?;
    look.checkpoint.take()
}

/// The checkpoint under its new name, refused where `run` would refuse it.
async fn renamed(
    held: &HeldSlot<'_>,
    checkpoint: &CheckpointRecord,
    fingerprint: Fingerprint,
) -> Result<CheckpointRecord, Failed> {
    let (ground, settings) = (&held.ground, held.ground.settings);
    judge_checkpoint(ground, Some(held.confirmed_flush), checkpoint).await?;
    continuity::judge(settings, &ground.sql, &checkpoint.publication, &fingerprint).await??;
    // The publication stays the checkpoint's: whether `last` must come again hangs on it.
    Ok(CheckpointRecord {
        source: settings.source.clone(),
        written_at: jiff::Timestamp::now().to_string(),
        ..checkpoint.clone()
    })
}

/// What the slot sends is decoded with the publication as it was at each position: nothing must
/// show that it is younger than what is sent.
async fn judge_publication(ground: &Ground<'_>, fingerprint: &Fingerprint) -> Result<(), Failed> {
    let settings = ground.settings;
    let name = &settings.publication;
    for (table, found) in &fingerprint.tables {
        let member =
            Member { oid: found.oid, member: found.member, schema_member: found.schema_member };
        if !publication::is_settled(&ground.sql, name, member, &settings.slot).await? {
            return Err(Refusal::PublicationGap {
                publication: name.to_string(),
                what: format!(
                    "nothing shows that it held table {table} already at the position of slot \
                     \"{}\"",
                    settings.slot
                ),
                mend: format!(
                    "Rows that were inserted into {table} before the publication held it are never \
                     sent. A slot that nobody needs is dropped with SELECT \
                     pg_drop_replication_slot('{}'), and tailwater init makes its own, after the \
                     publication.",
                    settings.slot
                ),
            }
            .into());
        }
    }
    Ok(())
}

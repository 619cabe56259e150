//! `reset`: the checkpoint is moved by hand, after a loss was explained and accepted.
//!
//! Each kind writes one checkpoint record, in one Kafka transaction, holding the slot and after the
//! fence: before it everything is as it was, after it everything is done. A crash is before or
//! after.
//!
//! - `--to-slot`: the record is at `confirmed_flush`, with no `last` and nothing in progress. All
//!   that the slot sends is at or above it, so nothing is skipped, and nothing is compared with
//!   what was published of another history.
//! - `--to-now`: the record is at the end of the log, and says that what the slot still sends below
//!   is given up (`given_up_from`), so that a start skips it wherever the slot stands. Then the
//!   slot is advanced to the same place, which needs it to be free: the invariant `confirmed_flush`
//!   ≤ checkpoint holds at each moment. A crash in between leaves a slot that the next start moves
//!   by itself; only where the server can no longer decode what lies between (the publication was
//!   missing there) does the start end as before, and the same command moves the slot. An instance
//!   that takes the slot in between fences us or reads our record.
//! - `--replay-transaction`: the record is the former one without the transaction in progress,
//!   which is then published from its first change.
//!
//! The publication is taken as it is in the first two: what it left out meanwhile is the accepted
//! loss.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{
    amendment::{Act, Amendment},
    backfill::due,
    continuity,
    held_slot::HeldSlot,
    judgement::{judge_checkpoint, judge_source, judge_take_over},
    refusal::Refusal,
    settings::Settings,
    shutdown::Shutdown,
    start::{Failed, Ground},
    writing_by_hand::WritingByHand,
};
use crate::{
    checkpoint::CheckpointRecord,
    failure::Failure as _,
    lsn::{EndLsn, Lsn},
    postgres::{catalog, slot, sql::Sql},
};

/// How long a slot that was just let go is waited for.
const FREE_MAX: Duration = Duration::from_secs(5);

/// Between two looks.
const FREE_PAUSE: Duration = Duration::from_millis(100);

/// How long the server may take to pass over the log up to the slot's new position. It decodes what
/// lies between without sending it: some hundred megabytes a second.
const ADVANCE_MAX: Duration = Duration::from_secs(3_600);

/// How the checkpoint is moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// To the slot's position.
    ToSlot,
    /// To the end of the server's log.
    ToNow,
    /// Nowhere: only the transaction that is out in part is forgotten.
    ReplayTransaction,
}

/// Moves the checkpoint, if `confirm` agrees to what it is told.
///
/// # Errors
/// Where there is no slot, no checkpoint or somebody else's, where somebody holds the slot, where
/// the publication lacks a table, where `run` would refuse the new record too; and that of
/// `confirm`.
pub(super) async fn reset(
    settings: &Settings,
    shutdown: &Shutdown,
    how: Reset,
    writing: &WritingByHand,
    confirm: impl AsyncFn(&Amendment) -> Result<(), Failed>,
) -> Result<Amendment, Failed> {
    let (mut held, before) = take_checkpoint(settings, shutdown).await?;
    let (act, record) = match how {
        Reset::ToSlot => (Act::ToSlot, moved(&held, &before, held.confirmed_flush, None).await?),
        Reset::ToNow => {
            let end = catalog::wal_end(&held.ground.sql).await?;
            let given_up_from = Some(held.confirmed_flush).filter(|from| *from < end);
            (Act::ToNow, moved(&held, &before, end, given_up_from).await?)
        }
        Reset::ReplayTransaction => {
            let record = CheckpointRecord { in_progress: None, ..before.clone() };
            judge_checkpoint(&held.ground, Some(held.confirmed_flush), &record).await?;
            (Act::ReplayTransaction, record)
        }
    };
    let amendment = Amendment::new(act, Some(&before), &record, held.confirmed_flush);
    if !amendment.changed {
        let is_behind = held.confirmed_flush < record.commit_end_lsn.lsn();
        let ground = held.release().await;
        // The same command before may have come as far as its checkpoint only.
        if how == Reset::ToNow && is_behind {
            follow(&ground, record.commit_end_lsn).await;
        }
        return Ok(amendment);
    }
    held.keep(confirm(&amendment)).await?;
    let record = match how {
        // Rows of before may not be published, and somebody is to look for them.
        Reset::ToSlot | Reset::ToNow => {
            let begun_at = catalog::now(&held.ground.sql).await?;
            let publication = record.publication.clone().dated(&begun_at);
            CheckpointRecord { begun_at: Some(begun_at), publication, ..record }
        }
        Reset::ReplayTransaction => record,
    };
    let written_at = jiff::Timestamp::now().to_string();
    let record = CheckpointRecord { written_at, ..record };
    let ground = held.write(&record, writing).await?;
    if how == Reset::ToNow {
        follow(&ground, record.commit_end_lsn).await;
    }
    Ok(amendment)
}

/// The checkpoint at another position, with nothing known of what came before it.
async fn moved(
    held: &HeldSlot<'_>,
    before: &CheckpointRecord,
    position: Lsn,
    given_up_from: Option<Lsn>,
) -> Result<CheckpointRecord, Failed> {
    let (ground, settings) = (&held.ground, held.ground.settings);
    let publication = continuity::describe(settings, &ground.sql).await??;
    let publication = publication.continuing(&before.publication);
    // The rows of one that joined meanwhile are due.
    let publication =
        due::without_new_tables(&settings.event, Some(&before.publication), publication);
    let is_there = before.commit_end_lsn.lsn() == position;
    Ok(CheckpointRecord {
        timeline: ground.server.identity.timeline,
        commit_end_lsn: EndLsn(position),
        // At the same place on the same timeline it still is what came last.
        last: before
            .last
            .filter(|_| is_there && given_up_from.is_none() && is_settled(held, before)),
        in_progress: None,
        given_up_from,
        publication,
        ..before.clone()
    })
}

/// Whether the slot sends nothing of what is published: then there is nothing to be compared.
fn is_settled(held: &HeldSlot<'_>, before: &CheckpointRecord) -> bool {
    let is_below = before.last.is_some_and(|last| last.commit_lsn.lsn() < held.confirmed_flush);
    is_below && before.timeline == held.ground.server.identity.timeline
}

/// Takes the slot, with a checkpoint that is ours.
///
/// # Errors
/// Where there is no slot, no checkpoint or somebody else's, or where somebody holds the slot.
pub(super) async fn take_checkpoint<'a>(
    settings: &'a Settings,
    shutdown: &'a Shutdown,
) -> Result<(HeldSlot<'a>, CheckpointRecord), Failed> {
    let judge = |look: &_| {
        judge_source(settings, look)?;
        judge_take_over(settings, look)
    };
    let held = HeldSlot::take(settings, shutdown, judge).await?;
    match held.look.checkpoint.clone() {
        Some(checkpoint) => Ok((held, checkpoint)),
        None => Err(no_checkpoint(settings, &held).into()),
    }
}

fn no_checkpoint(settings: &Settings, held: &HeldSlot<'_>) -> Refusal {
    let slot = settings.slot.clone();
    match &held.look.intent {
        Some(_) => Refusal::FirstStartUnfinished { slot },
        None => Refusal::CheckpointMissing { slot },
    }
}

/// Moves the slot up to a checkpoint that is written.
async fn follow(ground: &Ground<'_>, position: EndLsn) {
    if let Err(failure) = advance(ground, position).await {
        warn!(
            error = super::chain(&*failure),
            "the checkpoint is written, and the slot is not moved: the next start does it, or the \
             same command again"
        );
    }
}

async fn advance(ground: &Ground<'_>, position: EndLsn) -> Result<(), Failed> {
    let settings = ground.settings;
    let sql = Sql::connect(&settings.postgres).await?.with_statement_max(ADVANCE_MAX).await?;
    let until = Instant::now() + FREE_MAX;
    info!(slot = %settings.slot, to = %position, "moving the slot");
    loop {
        match slot::advance(&sql, &settings.slot, position).await {
            Ok(()) => return Ok(()),
            Err(error) if error.slot_holder().is_some() && Instant::now() < until => {
                sleep(FREE_PAUSE).await;
            }
            Err(error) => {
                let hint = error.hint().unwrap_or_default();
                info!(hint, "the slot was not moved");
                return Err(error.into());
            }
        }
    }
}

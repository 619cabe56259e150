//! Step 4 of the start order, but for the publication: whether checkpoint, slot and server belong
//! together. Nothing here waits for Kafka or changes anything.

use tracing::info;

use super::{
    refusal::{PublishedPosition, Refusal},
    settings::Settings,
    start::{Failed, Ground, Purpose},
};
use crate::{
    checkpoint::{CheckpointKey, CheckpointRecord, Contained, Intent, SnapshotRecord, store::Look},
    lsn::{EndLsn, Lsn},
    postgres::{
        SlotName, TableName, catalog,
        replication::TimelineHistory,
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
    if look.complete {
        judge_take_over(settings, look)?;
    }
    match (slot, &look.checkpoint) {
        (None, Some(checkpoint)) => judge_slotless(ground, checkpoint).await,
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
        (Some(slot), Some(checkpoint)) if slot.confirmed_flush.is_none() => {
            judge_slotless(ground, checkpoint).await
        }
        (Some(slot), Some(checkpoint)) => {
            judge_checkpoint(ground, slot.confirmed_flush, checkpoint).await
        }
        (Some(_), None) if look.intent.is_none() => {
            Err(Refusal::CheckpointMissing { slot: settings.slot.clone() }.into())
        }
        (None | Some(_), None) => Ok(()),
    }
}

/// A checkpoint whose slot was not there, or only being made, before the checkpoint was read.
async fn judge_slotless(ground: &Ground<'_>, checkpoint: &CheckpointRecord) -> Result<(), Failed> {
    // A former primary may have lost its slot too, and is not the server to say so.
    let identity = &ground.server.identity;
    judge_history(checkpoint, identity.timeline, ground.server.history.as_ref())?;
    let slot = ground.settings.slot.clone();
    // Whoever is faster at a first start makes both between our two looks. A slot has its checkpoint
    // only once it is whole: beside one that is not, it is that of an earlier slot.
    let found = slot::describe(&ground.sql, &slot).await?;
    if found.is_some_and(|slot| slot.confirmed_flush.is_some()) {
        return Err(Refusal::FirstStartRaced { slot }.into());
    }
    let checkpoint = checkpoint.commit_end_lsn;
    Err(Refusal::SlotMissing { slot, checkpoint }.into())
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

/// The table that an intent says is taken over from a poller: its rows come before the stream. Those
/// of domain tables come beside it.
pub(super) fn taken_over<'i>(settings: &Settings, intent: &'i Intent) -> Option<&'i String> {
    let is_domain_table = |name: &String| {
        let table = TableName::try_from(name.clone());
        table.is_ok_and(|table| settings.event.table(&table.schema, &table.name).is_some())
    };
    intent.snapshots.iter().find(|name| !is_domain_table(name))
}

/// Whether rows that waited for a poller are still to come before the stream. Only where everything
/// was read: the first checkpoint ends a take-over.
///
/// # Errors
/// [`Refusal::TakeOverUnfinished`] where they are.
pub(super) fn judge_take_over(settings: &Settings, look: &Look) -> Result<(), Refusal> {
    let due = look.intent.as_ref().and_then(|intent| taken_over(settings, intent));
    match (&look.checkpoint, due) {
        (None, Some(table)) => {
            let (slot, table) = (settings.slot.clone(), table.clone());
            Err(Refusal::TakeOverUnfinished { slot, table })
        }
        (Some(_), _) | (None, None) => Ok(()),
    }
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
    judge_history(checkpoint, ground.server.identity.timeline, ground.server.history.as_ref())?;
    Ok(judge_position(checkpoint, slot, confirmed_flush, wal_end)?)
}

/// Whether what is published is in the history of the server.
///
/// # Errors
/// [`Refusal::TimelineDiverged`] where it is not.
pub(super) fn judge_history(
    checkpoint: &CheckpointRecord,
    server_timeline: u32,
    history: Option<&TimelineHistory>,
) -> Result<(), Refusal> {
    let timeline = checkpoint.timeline;
    if timeline == server_timeline {
        return Ok(());
    }
    let switch_point = history.and_then(|history| history.switch_point(timeline));
    let lost = |published: &PublishedPosition| {
        !switch_point.is_some_and(|switch_point| published.is_within(switch_point))
    };
    match PublishedPosition::of(checkpoint).find(lost) {
        Some(published) => Err(Refusal::TimelineDiverged { published, timeline, server_timeline }),
        None => Ok(()),
    }
}

/// Whether what is published lies between slot and the end of the log.
///
/// # Errors
/// [`Refusal::CheckpointAhead`] and [`Refusal::CheckpointBehindSlot`].
pub(super) fn judge_position(
    checkpoint: &CheckpointRecord,
    slot: &SlotName,
    confirmed_flush: Lsn,
    wal_end: Lsn,
) -> Result<(), Refusal> {
    let ahead = PublishedPosition::of(checkpoint).find(|published| !published.is_within(wal_end));
    if let Some(published) = ahead {
        return Err(Refusal::CheckpointAhead { published, wal_end });
    }
    let position = checkpoint.commit_end_lsn;
    if position.lsn() < confirmed_flush {
        let slot = slot.clone();
        return Err(Refusal::CheckpointBehindSlot { slot, checkpoint: position, confirmed_flush });
    }
    Ok(())
}

/// Judges what is known of rows that were there before the stream, by what the server says of itself.
///
/// # Errors
/// [`Refusal::SnapshotInterrupted`] and [`Refusal::RowsDiverged`], or where the server does not answer.
pub(super) async fn judge_rows(
    ground: &Ground<'_>,
    records: impl IntoIterator<Item = &SnapshotRecord>,
) -> Result<(), Failed> {
    let records: Vec<_> = records.into_iter().filter(|record| record.contained.is_some()).collect();
    if records.is_empty() {
        return Ok(());
    }
    let (server_timeline, end_of) = (ground.server.identity.timeline, log_ends(ground).await?);
    let judge = |record: &&SnapshotRecord| judge_row_record(record, server_timeline, &end_of);
    Ok(records.iter().try_for_each(judge)?)
}

/// How much the server has of each timeline; none of one that is not in its history.
async fn log_ends(ground: &Ground<'_>) -> Result<impl Fn(u32) -> Option<Lsn>, Failed> {
    let server = &ground.server;
    let wal_end = catalog::wal_end(&ground.sql).await?;
    Ok(move |timeline| match timeline == server.identity.timeline {
        true => Some(wal_end),
        false => server.history.as_ref()?.switch_point(timeline),
    })
}

/// As much of what rows contain as the server's own history has: all that it can send of it.
pub(super) async fn within_history(
    ground: &Ground<'_>,
    contained: Contained,
) -> Result<Option<Contained>, Failed> {
    let end = log_ends(ground).await?(contained.timeline);
    Ok(end.map(|end| Contained { below: contained.below.min(EndLsn(end)), ..contained }))
}

/// `end_of` tells how much the server has of a timeline.
fn judge_row_record(
    record: &SnapshotRecord,
    server_timeline: u32,
    end_of: impl Fn(u32) -> Option<Lsn>,
) -> Result<(), Refusal> {
    let table = record.table.clone();
    if record.is_interrupted() {
        return Err(Refusal::SnapshotInterrupted { table, rows: record.rows });
    }
    let Some(Contained { below: position, timeline }) = record.contained else { return Ok(()) };
    match end_of(timeline) {
        Some(end) if position.lsn() <= end => Ok(()),
        Some(_) | None => Err(Refusal::RowsDiverged { table, position, timeline, server_timeline }),
    }
}

/// Judges a first start: the source must not be known under another key.
pub(super) fn judge_identity(
    source: &str,
    key: &CheckpointKey,
    others: &[String],
) -> Result<(), Refusal> {
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
/// [`Refusal::SlotWrongPlugin`], also where it is not of that database,
/// [`Refusal::SlotInvalidated`], and [`Refusal::FirstStartRaced`].
pub(super) fn judge_slot(name: &SlotName, database: &str, slot: &Slot) -> Result<(), Refusal> {
    let wrong = |what: String| Err(Refusal::SlotWrongPlugin { slot: name.clone(), what });
    match (slot.plugin.as_deref(), slot.database.as_deref()) {
        (None, _) => wrong("is a physical slot".to_owned()),
        // The server shows a slot before it has entered the plugin (CreateInitDecodingContext).
        (Some(""), _) => Err(Refusal::FirstStartRaced { slot: name.clone() }),
        (Some("pgoutput"), Some(found)) if found == database => match slot.invalidation() {
            Some(reason) => Err(Refusal::SlotInvalidated { slot: name.clone(), reason }),
            None => Ok(()),
        },
        (Some("pgoutput"), found) => {
            wrong(format!("is of database \"{}\"", found.unwrap_or_default()))
        }
        (Some(plugin), _) => wrong(format!("decodes with \"{plugin}\", not with pgoutput")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::{InProgress, SnapshotState},
        failure::{Code, Failure, Recovery},
        lsn::{CommitLsn, EndLsn},
    };

    fn lsn(position: u64) -> Lsn {
        Lsn::from_wire(position).expect("a position")
    }

    /// A checkpoint at 0x100, written on timeline 1, with a part of the transaction at 0x200.
    fn torn() -> CheckpointRecord {
        let commit_lsn = CommitLsn(lsn(0x200));
        let in_progress = Some(InProgress { commit_lsn, changes: 5, events: 4, digest: 6 });
        CheckpointRecord { in_progress, ..CheckpointRecord::of_first_start(EndLsn(lsn(0x100))) }
    }

    fn judge(timeline: u32, switch_point: u64, wal_end: u64) -> Result<(), Refusal> {
        let slot = SlotName::try_from("tailwater".to_owned()).expect("a name");
        let history = format!("1\t{}\tfailover", lsn(switch_point));
        let history = TimelineHistory::parse(&history).expect("well formed");
        judge_history(&torn(), timeline, Some(&history))?;
        judge_position(&torn(), &slot, lsn(0x80), lsn(wal_end))
    }

    #[test]
    fn a_slot_without_its_plugin_is_looked_at_again() {
        let name = SlotName::try_from("tailwater".to_owned()).expect("a name");
        let judge = |plugin: Option<&str>| {
            let slot = Slot {
                plugin: plugin.map(str::to_owned),
                database: Some("shop".to_owned()),
                active_pid: None,
                confirmed_flush: None,
                restart: None,
                wal_status: None,
                invalidation_reason: None,
            };
            judge_slot(&name, "shop", &slot).map_err(|refusal| (refusal.code(), refusal.recovery()))
        };
        assert_eq!(judge(Some("pgoutput")), Ok(()));
        assert_eq!(judge(Some("")), Err((None, Recovery::Retry)));
        for other in [None, Some("wal2json")] {
            let (code, recovery) = judge(other).expect_err("another plugin");
            assert_eq!((code, recovery), (Some(Code::SlotWrongPlugin), Recovery::Stop));
        }
    }

    #[test]
    fn rows_are_refused_that_hold_what_a_failover_lost_or_that_are_out_in_part() {
        let text = r#"{"version":1,"source":"shop","table":"public.log","oid":5,"request":"r",
            "state":"done","is_at_once":true,"contained":{"below":"0/200","timeline":1},"rows":5,
            "requested_at":"a","written_at":"b"}"#;
        let mut record: SnapshotRecord = serde_json::from_str(text).expect("a record");
        let judge = |record: &SnapshotRecord, end: Option<u64>| {
            judge_row_record(record, 2, |timeline| end.filter(|_| timeline == 1).map(lsn))
        };
        assert_eq!(judge(&record, Some(0x200)), Ok(()));
        for end in [Some(0x1FF), None] {
            let refusal = judge(&record, end).expect_err("lost");
            assert_eq!(refusal.code(), Some(Code::TimelineDiverged));
            assert!(!refusal.is_of_former_primary());
            let hint = refusal.hint().unwrap_or_default();
            assert!(hint.contains("tailwater reset --snapshot public.log"), "{hint}");
        }
        record.state = SnapshotState::Running;
        let refusal = judge(&record, Some(0x300)).expect_err("out in part");
        assert_eq!(refusal.code(), Some(Code::SnapshotInterrupted));
        assert_eq!(
            refusal.to_string(),
            "publishing the rows of table public.log, which has no key, was interrupted after 5 of \
             them"
        );
    }

    #[test]
    fn a_failover_that_lost_the_transaction_in_progress_is_refused() {
        // The commit record begins at the switch point: it is not in what was kept.
        for switch_point in [0x100, 0x180, 0x200] {
            let refusal = judge(2, switch_point, 0x900).expect_err("lost");
            assert_eq!(refusal.code(), Some(Code::TimelineDiverged), "{switch_point:X}");
            assert_eq!(
                refusal.to_string(),
                "the transaction at 0/200, of which a part is published, on timeline 1 is not in \
                 the history of the server, which is on timeline 2"
            );
        }
        assert_eq!(judge(2, 0x201, 0x900), Ok(()));
    }

    #[test]
    fn a_log_that_ends_before_the_transaction_in_progress_is_refused() {
        for wal_end in [0x100, 0x200] {
            let refusal = judge(1, 1, wal_end).expect_err("lost");
            assert_eq!(refusal.code(), Some(Code::CheckpointAhead));
        }
        assert_eq!(judge(1, 1, 0x201), Ok(()));
        let refusal = judge(1, 1, 0xff).expect_err("not even the checkpoint");
        assert_eq!(
            refusal.to_string(),
            "the checkpoint 0/100 lies above the end 0/FF of the server's WAL"
        );
    }
}

//! The slot: whether it is ours to read, how much WAL it may still hold, whether it survives a
//! failover; and where there is none yet, whether there is room for it.

use super::finding::Finding;
use crate::{
    pipeline::{judgement::judge_slot, refusal::Refusal, settings::Settings},
    postgres::{
        PostgresError,
        diagnosis::{self, Diagnosis, SlotMargin},
        slot::{self, Slot},
        sql::Sql,
    },
};

/// A slot that may hold less than this part of its bound is in danger.
const MARGIN_PERCENT_MIN: i64 = 20;

/// What is known of the slot.
pub(super) enum Examined {
    /// There is none.
    Absent,
    /// There is one that can be read.
    Readable(Slot, Option<SlotMargin>),
    /// There is one that cannot.
    Unreadable,
}

/// Looks at the slot as it is.
pub(super) async fn examine(
    settings: &Settings,
    sql: &Sql,
    diagnosis: &Diagnosis,
    findings: &mut Vec<Finding>,
) -> Result<Examined, PostgresError> {
    let Some(slot) = slot::describe(sql, &settings.slot).await? else {
        return Ok(Examined::Absent);
    };
    if let Err(refusal) = judge_slot(settings, &slot) {
        findings.push(Finding::of("slot", &refusal));
        return Ok(Examined::Unreadable);
    }
    let name = &settings.slot;
    findings.push(match slot::holder(sql, name).await? {
        Some(holder) => Finding::note(
            "slot",
            format!(
                "slot \"{name}\" is held by process {} ({}) since {}: run would stand by",
                holder.pid, holder.application, holder.since
            ),
        ),
        None => Finding::fine("slot", format!("slot \"{name}\" is there, and free to be taken")),
    });
    let margin = diagnosis::slot_margin(sql, name).await?;
    findings.extend(margin.map(|margin| retained(&slot, margin, diagnosis)));
    Ok(Examined::Readable(slot, margin))
}

fn retained(slot: &Slot, margin: SlotMargin, diagnosis: &Diagnosis) -> Finding {
    let name = "retained_wal";
    let status = slot.wal_status.as_deref().unwrap_or("unknown");
    let held = mebibytes(margin.retained_bytes.unwrap_or(0));
    let held = format!("{held} MiB of WAL are kept for it (wal_status {status})");
    let (Some(left), Some(bound)) = (margin.safe_wal_bytes, diagnosis.slot_wal_keep_mebibytes)
    else {
        return Finding::fine(name, held);
    };
    let left = mebibytes(left);
    let detail = format!("{held}; {left} of {bound} MiB are left before the slot is lost");
    if status == "unreserved" || left * 100 < bound * MARGIN_PERCENT_MIN {
        let fix = format!(
            "ALTER SYSTEM SET max_slot_wal_keep_size = '{}MB'; SELECT pg_reload_conf(); -- and \
             start the daemon, or find out why it is behind",
            bound * 4
        );
        return Finding::wrong(name, None, detail, fix);
    }
    Finding::fine(name, detail)
}

/// Of a position that is behind already nothing is left.
fn mebibytes(bytes: i64) -> i64 {
    bytes.max(0) / (1 << 20)
}

/// From 17 on a slot says whether standbys keep it. Of a slot that is ours.
pub(super) fn failover(
    settings: &Settings,
    margin: SlotMargin,
    diagnosis: &Diagnosis,
) -> Option<Finding> {
    let name = "failover";
    let slot = &settings.slot;
    let is_kept = margin.failover?;
    if settings.failover && !is_kept {
        let detail = format!(
            "postgres.failover is true, and slot \"{slot}\" does not survive a failover: it was \
             not made so"
        );
        let fix = format!(
            "psql \"host={} port={} user={} dbname={} replication=database\" -c \
             'ALTER_REPLICATION_SLOT \"{slot}\" (FAILOVER true)' # while no daemon holds it",
            settings.postgres.host.name(),
            settings.postgres.host.port(),
            settings.postgres.user,
            settings.postgres.database
        );
        return Some(Finding::wrong(name, None, detail, fix));
    }
    let is_unguarded = diagnosis.synchronized_standby_slots.as_deref() == Some("");
    Some(match is_kept {
        false => {
            Finding::note(name, format!("slot \"{slot}\" does not survive a failover, as set"))
        }
        true if diagnosis.physical_slots > 0 && is_unguarded => Finding::note(
            name,
            "the slot survives a failover; but synchronized_standby_slots is empty, so events may \
             be on Kafka that a promoted standby does not have: name the standbys' slots in it"
                .to_owned(),
        ),
        true => Finding::fine(name, format!("slot \"{slot}\" survives a failover")),
    })
}

/// Where there is no slot and nobody's checkpoint speaks of one: `init` and `run` make it.
pub(super) async fn examine_absence(
    settings: &Settings,
    sql: &Sql,
    diagnosis: &Diagnosis,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresError> {
    let Diagnosis { slots, slots_max, .. } = diagnosis;
    let detail = format!("{slots} of max_replication_slots = {slots_max} are taken");
    if slots >= slots_max {
        findings.push(Finding::wrong(
            "slot",
            Some(crate::failure::Code::NoFreeSlot),
            format!("there is no slot \"{}\" yet, and none is free: {detail}", settings.slot),
            format!(
                "ALTER SYSTEM SET max_replication_slots = {}; -- then restart PostgreSQL; or drop \
                 one that nobody uses: SELECT slot_name, active FROM pg_replication_slots",
                slots_max + 4
            ),
        ));
        return Ok(());
    }
    findings.push(Finding::note(
        "slot",
        format!("there is no slot \"{}\" yet; run and init make it ({detail})", settings.slot),
    ));
    for blocker in slot::creation_blockers(sql).await? {
        findings.push(Finding::note(
            "open_transaction",
            format!("making the slot waits for {blocker}"),
        ));
    }
    Ok(())
}

/// The slot is gone, and its checkpoint is not.
pub(super) fn missing(refusal: &Refusal) -> Finding {
    Finding::of("slot", refusal)
}

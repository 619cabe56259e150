//! The slot: whether it is ours to read, how much WAL it may still hold, whether it survives a
//! failover; and where there is none yet, whether there is room for it.

use super::finding::Finding;
use crate::{
    pipeline::{judgement::judge_slot, refusal::Refusal, settings::Settings},
    postgres::{
        self, Host, PostgresError, blocker,
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
    if let Err(refusal) = judge_slot(&settings.slot, &settings.postgres.database, &slot) {
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
    findings.extend(margin.map(|margin| retained(settings, &slot, margin, diagnosis)));
    Ok(Examined::Readable(slot, margin))
}

fn retained(
    settings: &Settings,
    slot: &Slot,
    margin: SlotMargin,
    diagnosis: &Diagnosis,
) -> Finding {
    let name = "retained_wal";
    let status = slot.wal_status.as_deref().unwrap_or("unknown");
    let bytes = margin.retained_bytes.unwrap_or(0);
    let held = format!("{} MiB of WAL are kept for it (wal_status {status})", mebibytes(bytes));
    let left = margin.safe_wal_bytes.zip(diagnosis.slot_wal_keep_mebibytes);
    let left = left.map(|(left, bound)| (mebibytes(left), bound));
    let detail = match left {
        Some((left, bound)) => {
            format!("{held}; {left} of {bound} MiB are left before the slot is lost")
        }
        None => held,
    };
    let is_nearly_lost = |(left, bound): &(i64, i64)| {
        status == "unreserved" || left * 100 < bound * MARGIN_PERCENT_MIN
    };
    if let Some((_, bound)) = left.filter(is_nearly_lost) {
        let fix = format!(
            "ALTER SYSTEM SET max_slot_wal_keep_size = '{}MB'; SELECT pg_reload_conf(); -- and \
             start the daemon, or find out why it is behind",
            bound * 4
        );
        return Finding::wrong(name, None, detail, fix);
    }
    let held = u64::try_from(bytes).unwrap_or(0);
    if let Some(bound) = settings.retained_wal_bytes_max.filter(|bound| held > *bound) {
        let detail = format!("{detail}; postgres.retained_wal_max is {} MiB", bound >> 20);
        let fix = "start the daemon, or find out why it is behind: tailwater status; where an open \
                   transaction keeps the log, end it: SELECT pid, xact_start, query FROM \
                   pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start";
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
            "psql \"{}\" -c 'ALTER_REPLICATION_SLOT \"{slot}\" (FAILOVER true)' # while no daemon \
             holds it",
            within_double_quotes(&connection(&settings.postgres))
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

/// The parameters by which libpq finds the primary and speaks to a walsender of it.
fn connection(place: &postgres::Settings) -> String {
    let hosts: Vec<&Host> = std::iter::once(&place.host).chain(&place.other_hosts).collect();
    let list = |of: &dyn Fn(&Host) -> String| -> String {
        hosts.iter().map(|host| of(host)).collect::<Vec<_>>().join(",")
    };
    let primary = match hosts.len() {
        1 => "",
        _ => " target_session_attrs=primary",
    };
    format!(
        "host={} port={} user={} dbname={}{primary} replication=database",
        quoted_value(&list(&Host::name)),
        list(&|host| host.port().to_string()),
        quoted_value(&place.user),
        quoted_value(&place.database)
    )
}

/// A value of a connection string, in quotes where it needs them (libpq, libpq-connstring).
fn quoted_value(value: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.,:/@".contains(letter);
    match !value.is_empty() && value.chars().all(is_plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")),
    }
}

/// A text as a shell takes it within double quotes.
fn within_double_quotes(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for letter in text.chars() {
        if "\\\"$`".contains(letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

/// Where there is no slot and nobody's checkpoint speaks of one, as far as Kafka could be asked
/// (`is_kafka_known`): `init` and `run` make it.
pub(super) async fn examine_absence(
    settings: &Settings,
    sql: &Sql,
    diagnosis: &Diagnosis,
    is_kafka_known: bool,
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
    // With a checkpoint it is not a slot that was never made, but one that was lost.
    let unless = match is_kafka_known {
        true => "",
        false => ", unless Kafka, which could not be asked, holds its checkpoint",
    };
    let slot = &settings.slot;
    findings.push(Finding::note(
        "slot",
        format!("there is no slot \"{slot}\" yet; run and init make it{unless} ({detail})"),
    ));
    for blocker in blocker::of_slot_creation(sql).await? {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(others: Vec<Host>, user: &str, database: &str) -> postgres::Settings {
        postgres::Settings {
            host: Host::Tcp { host: "db-1".to_owned(), port: 5432 },
            other_hosts: others,
            user: user.to_owned(),
            password: None,
            database: database.to_owned(),
            application_name: "tailwater".to_owned(),
            encryption: postgres::Encryption::NONE,
        }
    }

    #[test]
    fn all_hosts_are_named_and_odd_names_are_quoted_for_shell_and_libpq() {
        assert_eq!(
            connection(&place(Vec::new(), "tailwater", "shop")),
            "host=db-1 port=5432 user=tailwater dbname=shop replication=database"
        );
        let others = vec![
            Host::Tcp { host: "db-2".to_owned(), port: 6432 },
            Host::Unix { folder: "/run/postgresql".into(), port: 5433 },
        ];
        let found = connection(&place(others, "o'hara", "my $shop\\"));
        assert_eq!(
            within_double_quotes(&found),
            "host=db-1,db-2,/run/postgresql port=5432,6432,5433 user='o\\\\'hara' \
             dbname='my \\$shop\\\\\\\\' target_session_attrs=primary replication=database"
        );
    }
}

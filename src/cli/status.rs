//! A pipeline's state, in words.

use std::fmt::Write as _;

use super::size::size;
use crate::pipeline::{State, Status};

/// One line says how it is and what to do, the others why.
pub(super) fn in_words(status: &Status) -> String {
    let mut text = format!("{}\n", headline(status));
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<12}{value}");
        }
    };
    line(
        "holder",
        status.holder.as_ref().map(|holder| {
            let place = if holder.address.is_empty() { "a unix socket" } else { &holder.address };
            format!(
                "process {}, {} from {place}, since {}",
                holder.pid, holder.application, holder.since
            )
        }),
    );
    line("slot at", status.confirmed_flush_lsn.map(|lsn| lsn.to_string()));
    line(
        "checkpoint",
        status.commit_end_lsn.map(|lsn| {
            format!("{lsn}, written {}", status.checkpoint_written_at.as_deref().unwrap_or("?"))
        }),
    );
    line(
        "lag",
        status.lag_bytes.map(|bytes| {
            let seconds =
                status.lag_seconds.map_or("?".to_owned(), |seconds| format!("{seconds:.1}"));
            format!("{}, {seconds} s", size(bytes))
        }),
    );
    line(
        "WAL kept",
        status.retained_wal_bytes.map(|bytes| {
            let wal_status = status.wal_status.as_deref().unwrap_or("unknown");
            let bound = status.retained_wal_bytes_max.filter(|bytes_max| bytes > *bytes_max);
            let above = bound.map_or(String::new(), |bytes_max| {
                format!(", more than postgres.retained_wal_max, {}", size(bytes_max))
            });
            format!("{} ({wal_status}){above}", size(bytes))
        }),
    );
    line("Kafka", status.kafka_error.clone());
    text
}

fn headline(status: &Status) -> String {
    let Status { source, slot, database, .. } = status;
    if let (State::NotRunning, Some(table)) = (status.state, &status.unfinished_take_over) {
        return format!(
            "not_running: taking over {table} is not finished; `tailwater init --take-over \
             {table}` goes on with it"
        );
    }
    match status.state {
        State::Starting => {
            format!("starting: {source} has a slot \"{slot}\" and no checkpoint yet")
        }
        State::Running => format!("running: {source} publishes and keeps up"),
        State::Idle => format!("idle: {source} keeps up, and nothing came for a while"),
        State::Lagging => format!("lagging: {source} publishes and is behind"),
        State::StuckOnKafka if status.holder.is_some() => {
            format!("stuck_on_kafka: {source} is behind, and Kafka does not answer")
        }
        State::StuckOnKafka if status.confirmed_flush_lsn.is_some() => format!(
            "stuck_on_kafka: Kafka does not answer, and nobody holds slot \"{slot}\": either a \
             daemon let go of it after kafka.outage_grace, and goes on by itself when Kafka \
             answers, or none is there; look whether `tailwater run` is"
        ),
        State::StuckOnKafka => format!(
            "stuck_on_kafka: Kafka does not answer, and there is no slot \"{slot}\" in database \
             {database}: whether there was one only the checkpoint on Kafka says"
        ),
        State::SlotLost => match &status.invalidation {
            Some(reason) => format!(
                "slot_lost: the server gave up slot \"{slot}\" ({reason}); what it had not sent is \
                 no longer in reach. `tailwater run` says how to go on"
            ),
            None => format!(
                "slot_lost: there is a checkpoint and no slot \"{slot}\" in database {database}. \
                 `tailwater run` says how to go on"
            ),
        },
        State::NotRunning if status.confirmed_flush_lsn.is_none() => format!(
            "not_running: there is no slot \"{slot}\" in database {database} yet; `tailwater run` \
             makes it"
        ),
        State::NotRunning => format!(
            "not_running: nobody holds slot \"{slot}\", and the server keeps its WAL; start \
             `tailwater run`"
        ),
    }
}

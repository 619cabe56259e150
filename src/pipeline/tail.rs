//! `tail`: a look at the events, with nothing taken, made or moved.
//!
//! It is the loop that publishes, between a temporary slot and standard output: the server ends the
//! slot with the connection, whatever ends that. What is shown is acknowledged to that slot, so that
//! a look that lasts pins no WAL. Kafka is not asked for anything.

use std::{io::stdout, time::Duration};

use tracing::info;

use super::{
    assembler::{Assembler, Beginning, Bounds},
    backfill::Backfills,
    beside::Beside,
    continuity::{self, plurals},
    descendants, first_start,
    init::{alter_sql, create_sql, patiently},
    lookup::Lookup,
    on_error::OnError,
    publication_watch::PublicationWatch,
    refusal::Refusal,
    resume::Resume,
    settings::Settings,
    shutdown::Shutdown,
    slot_creation::await_slot,
    start::{Failed, Ground, check_server, check_tables},
    stream_loop::{End, Limits, StreamLoop},
    tables,
};
use crate::{
    checkpoint::Tracker,
    event::outbox::PayloadForm,
    postgres::{
        SlotName, catalog,
        publication::{self, Absence},
    },
    sink::stdout::{StdoutError, StdoutSink, Style},
};

/// No transaction is split for its size, and no record is too large to be shown.
const BOUNDS: Bounds = Bounds { transaction_bytes: usize::MAX, record_bytes: usize::MAX };

/// Whoever reads may take as long as it likes: only a server's clients are waited for.
const LIMITS: Limits = Limits { halt_before: None, outage_grace: Duration::MAX };

/// Shows the events that are committed from now on, until `shutdown` is requested or nobody reads
/// them any more.
///
/// # Errors
/// Where the server does not answer for half a minute, refuses or goes away, and where the
/// publication lacks what is to be shown.
pub async fn tail(settings: &Settings, style: Style, mut shutdown: Shutdown) -> Result<(), Failed> {
    let settings = settings_of_look(settings);
    let waiting = shutdown.clone();
    let started = patiently(&waiting, async || start(&settings, style, &waiting).await).await?;
    let Some(stream_loop) = started else { return Ok(()) };
    match stream_loop.run(&mut shutdown).await.end {
        // Rows that tables have are not shown, and so never come first.
        End::Stopped | End::BeforeHalt { .. } | End::RowsFirst { .. } => Ok(()),
        End::Failed(failure) if is_closed(&failure) => Ok(()),
        End::Failed(failure)
        | End::Row(failure)
        | End::RowsRefused { failure, .. }
        | End::FailedFenced { failure, .. }
        | End::Halt { failure, .. }
        | End::Fenced { failure, .. } => Err(failure),
    }
}

/// A slot of its own, and events as whole envelopes: what a `bare` record has in its headers too.
fn settings_of_look(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    let name = format!("tailwater_tail_{:016x}", fastrand::u64(..));
    settings.slot = SlotName::try_from(name).expect("letters, digits and underscores");
    // What the daemon's slot holds is the daemon's to say.
    settings.retained_wal_bytes_max = None;
    for outbox in &mut settings.event.outboxes {
        if outbox.payload == PayloadForm::Bare {
            outbox.payload = PayloadForm::Data;
        }
    }
    settings
}

async fn start(
    settings: &Settings,
    style: Style,
    shutdown: &Shutdown,
) -> Result<StreamLoop<StdoutSink>, Failed> {
    let (ground, mut replication) = Ground::enter(settings, shutdown).await?;
    check_server(&ground).await?;
    tables::check(settings, &ground.sql).await??;
    check_publication(&ground).await?;
    let fingerprint = continuity::describe(settings, &ground.sql).await??;
    let mapping = check_tables(&ground).await?;
    let creating = replication.create_temporary_slot(&settings.slot);
    let position = await_slot(&settings.slot, &ground.sql, creating).await?.lsn();
    let stream = replication.start_replication(&settings.slot, &settings.publication).await?;
    info!(publication = %settings.publication, %position, "showing what is committed from here on");

    let Ground { sql, server, .. } = ground;
    let now = catalog::now(&sql).await?;
    let watch = PublicationWatch::start(settings.clone(), sql, fingerprint.clone());
    let from = first_start::checkpoint(settings, &server.identity, position, fingerprint, now);
    let resume = Resume::new(&from, Some(position), &from.publication);
    let tracker = Tracker::new(&from);
    let backfills = Backfills::default();
    let beginning = Beginning { checkpoint: from, resume, backfills };
    let assembler = Assembler::new(mapping, beginning, BOUNDS, OnError::Tell);
    let sink = StdoutSink::start(stdout(), style)?;
    // Of what is there nothing is shown: only what happens.
    let lookup = Lookup::new(settings.postgres.clone(), None);
    let beside = Beside { watch, lookup, reading: None, inbox: None };
    Ok(StreamLoop::new(stream, assembler, tracker, sink, beside, LIMITS))
}

/// Before a slot waits for anything: what is not published would never come. Of a pattern that is
/// nothing, as to `run`: it names the tables that the publication holds.
async fn check_publication(ground: &Ground<'_>) -> Result<(), Failed> {
    let Ground { settings, sql, .. } = ground;
    let publication = settings.publication.clone();
    let tables = tables::published(settings, sql).await?;
    let Some(found) = publication::describe(sql, &publication, &tables).await? else {
        let lack = "does not exist, so the server sends no events".to_owned();
        let tables = tables::to_publish(settings, sql).await?;
        let mend_sql = create_sql(settings, sql, &tables).await?;
        return Err(Refusal::NothingToShow { publication, lack, mend_sql }.into());
    };
    let lacking = found.lacking(settings.operations(&tables));
    let lack = match (lacking.as_slice(), found.absent.first_key_value()) {
        ([], None) => return Ok(()),
        ([_, ..], _) => {
            format!("publishes no {}, so the server sends none of them", plurals(&lacking))
        }
        ([], Some((table, Absence::AsPartitions))) => format!(
            "has rows of {table} under the names of its partitions, so the server sends none of its \
             events"
        ),
        ([], Some((table, _))) => {
            format!("lacks table {table}, so the server sends none of its events")
        }
    };
    descendants::judge_joining(settings, sql, &tables, Some(&found)).await??;
    let mend_sql = alter_sql(settings, &tables, &found)?.join("; ");
    Err(Refusal::NothingToShow { publication, lack, mend_sql }.into())
}

fn is_closed(failure: &Failed) -> bool {
    let failure: &dyn std::error::Error = &**failure;
    matches!(failure.downcast_ref(), Some(StdoutError::Closed))
}

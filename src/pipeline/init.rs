//! `init`: what a first start makes, made by itself and with patience.

use std::{
    error::Error,
    fmt,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout_at};
use tracing::info;

use super::{
    adoption::{self, Adoption},
    amendment::Amendment,
    descendants, former_primary,
    from_poller::{self, TakenOverTable},
    published_tables::PublishedTables,
    refusal,
    reset::{self, Reset},
    row_reset::{self, RowReset},
    settings::Settings,
    shutdown::Shutdown,
    standby,
    start::{self, Failed, Purpose, TakenOver},
    tables,
    writing_by_hand::WritingByHand,
};
use crate::{
    checkpoint::CheckpointRecord,
    event::table::Description,
    failure::{Code, Failure, Recovery},
    postgres::{
        PostgresError, TableName,
        publication::{self, Absence, Publication},
        sql::Sql,
    },
};

/// How long servers that do not answer are waited for. Who runs `init` waits for its end, unlike
/// who runs a daemon.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// A server did not answer for too long.
#[derive(Debug)]
pub struct NotConnected {
    /// What the last attempt came to.
    source: Failed,
}

impl fmt::Display for NotConnected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "gave up after {} seconds", PATIENCE.as_secs())
    }
}

impl Error for NotConnected {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

impl Failure for NotConnected {
    fn code(&self) -> Option<Code> {
        Some(Code::NotConnected)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(self.source.hint().unwrap_or_else(|| {
            "Check postgres.url and kafka.brokers, and whether both servers run.".to_owned()
        }))
    }
}

/// Makes what a first start lacks and leaves it in order: publication, slot, topics, checkpoint.
/// What is there already is left as it is, also where a daemon is at work with it. None where the
/// end was asked for before it was done.
///
/// # Errors
/// What `run` would refuse too, but for a source that is known under another identity; and
/// [`NotConnected`].
pub async fn init(
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<Option<CheckpointRecord>, Failed> {
    patiently(shutdown, async || {
        former_primary::pass_over(settings, async |settings| attempt(settings, shutdown).await)
            .await
    })
    .await
}

async fn attempt(settings: &Settings, shutdown: &Shutdown) -> Result<CheckpointRecord, Failed> {
    match start::take_over(settings, shutdown, Purpose::Init).await {
        Ok(TakenOver { stream, kafka, checkpoint, .. }) => {
            stream.finish(None, None).await;
            drop(kafka);
            Ok(checkpoint)
        }
        Err(failure) if standby::is_due(&*failure) => {
            let found = start::find_checkpoint(settings, shutdown).await?;
            found.ok_or(failure)
        }
        Err(failure) => Err(failure),
    }
}

/// The SQL of a first start, for those who run it themselves. Needs the database only. None where
/// the end was asked for before it answered.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn publication_sql(
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<Option<Vec<String>>, Failed> {
    patiently(shutdown, async || {
        let sql = Sql::connect(&settings.postgres).await?;
        tables::check(settings, &sql).await??;
        lacking_sql(settings, &sql).await
    })
    .await
}

/// The domain tables as the publication delivers them; one that it does not hold yet, as it is. Needs
/// the database only. None where the end was asked for before it answered.
///
/// # Errors
/// Where the database cannot be asked, or lacks a table.
pub async fn domain_tables(
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<Option<Vec<Description>>, Failed> {
    patiently(shutdown, async || {
        let sql = Sql::connect(&settings.postgres).await?;
        tables::check(settings, &sql).await??;
        let tables = tables::expected(settings, &sql).await?;
        Ok(PublishedTables::look_up(settings, &sql, &tables).await?.descriptions(settings))
    })
    .await
}

/// The SQL of what the publication lacks.
async fn lacking_sql(settings: &Settings, sql: &Sql) -> Result<Vec<String>, Failed> {
    let name = &settings.publication;
    let tables = tables::to_publish(settings, sql).await?;
    let Some(found) = publication::describe(sql, name, &tables).await? else {
        return Ok(vec![create_sql(settings, sql, &tables).await?]);
    };
    descendants::judge_joining(settings, sql, &tables, Some(&found)).await??;
    alter_sql(settings, &tables, &found)
}

/// The SQL that makes the publication of these tables, where it does no harm.
///
/// # Errors
/// [`Refusal`](super::Refusal), or where the server does not answer.
pub(super) async fn create_sql(
    settings: &Settings,
    sql: &Sql,
    tables: &[TableName],
) -> Result<String, Failed> {
    descendants::judge_joining(settings, sql, tables, None).await??;
    let operations = settings.operations(tables);
    Ok(publication::create_sql(&settings.publication, tables, operations))
}

/// The SQL of what a publication lacks that there is, for these tables, which it was asked for.
///
/// # Errors
/// [`Refusal::PublicationGap`](super::Refusal::PublicationGap) where no SQL would do.
pub(super) fn alter_sql(
    settings: &Settings,
    tables: &[TableName],
    found: &Publication,
) -> Result<Vec<String>, Failed> {
    let name = &settings.publication;
    let operations = settings.operations(tables);
    let mut statements = Vec::new();
    let lacking = found.lacking(operations);
    if !lacking.is_empty() {
        statements.push(found.add_operations_sql(name, &lacking));
    }
    for (table, absence) in &found.absent {
        statements.push(match absence {
            Absence::NotMember => publication::add_table_sql(name, table),
            Absence::AsPartitions => publication::via_root_sql(name),
            Absence::AsAncestor(_) | Absence::Unfit(_) => {
                return Err(refusal::not_published(settings, table, absence).into());
            }
        });
    }
    statements.dedup();
    Ok(statements)
}

/// `init --adopt-slot`. None where the end was asked for before it was done.
///
/// # Errors
/// See `adoption`; [`CutShort`](super::CutShort) where it was stopped too late; and
/// [`NotConnected`].
pub async fn adopt_slot(
    settings: &Settings,
    shutdown: &Shutdown,
    confirm: impl AsyncFn(&Amendment) -> Result<(), Failed>,
) -> Result<Option<Adoption>, Failed> {
    let writing = WritingByHand::default();
    let adopt = async || adoption::adopt(settings, shutdown, &writing, &confirm).await;
    by_hand(patiently(shutdown, adopt).await?, &writing)
}

/// `reset`. None where the end was asked for before it was done.
///
/// # Errors
/// See `reset`; [`CutShort`](super::CutShort) where it was stopped too late; and [`NotConnected`].
pub async fn reset(
    settings: &Settings,
    shutdown: &Shutdown,
    how: Reset,
    confirm: impl AsyncFn(&Amendment) -> Result<(), Failed>,
) -> Result<Option<Amendment>, Failed> {
    let writing = WritingByHand::default();
    let reset = async || reset::reset(settings, shutdown, how, &writing, &confirm).await;
    by_hand(patiently(shutdown, reset).await?, &writing)
}

/// `reset --snapshot`. None where the end was asked for before anything was changed.
///
/// # Errors
/// [`RowResetError`](super::RowResetError), what `run` refuses of the checkpoint, what `confirm` says;
/// [`NotConnected`]; and [`CutShort`](super::CutShort) where the end came too late.
pub async fn reset_rows(
    settings: &Settings,
    shutdown: &Shutdown,
    table: &str,
    confirm: impl AsyncFn(&RowReset) -> Result<(), Failed>,
) -> Result<Option<RowReset>, Failed> {
    let writing = WritingByHand::default();
    let reset = async || row_reset::reset(settings, shutdown, table, &writing, &confirm).await;
    by_hand(patiently(shutdown, reset).await?, &writing)
}

/// None where nothing was changed.
fn by_hand<T>(ended: Option<T>, writing: &WritingByHand) -> Result<Option<T>, Failed> {
    if ended.is_none() {
        writing.judge_stop()?;
    }
    Ok(ended)
}

/// `init --take-over`. None where the end was asked for before it was done: what is published
/// stays, and the next call goes on.
///
/// # Errors
/// [`TakeOverError`](super::TakeOverError), what a first start refuses; and [`NotConnected`].
pub async fn take_over(
    settings: &Settings,
    shutdown: &Shutdown,
    table: &str,
    condition: &str,
) -> Result<Option<TakenOverTable>, Failed> {
    patiently(shutdown, async || from_poller::take_over(settings, shutdown, table, condition).await)
        .await
}

/// Tries until it succeeds, fails for good or 30 s are over. None where the end was asked for.
pub(super) async fn patiently<T>(
    shutdown: &Shutdown,
    attempt: impl AsyncFnMut() -> Result<T, Failed>,
) -> Result<Option<T>, Failed> {
    patiently_since(Instant::now(), shutdown, attempt).await
}

/// As [`patiently`] for a connection to the server, of whose hosts each may take its time: the attempt
/// that is under way when the 30 s are over is given up too.
pub(super) async fn reach(settings: &Settings, shutdown: &Shutdown) -> Result<Option<Sql>, Failed> {
    let began = Instant::now();
    let until = (began + PATIENCE).into();
    patiently_since(began, shutdown, async || {
        match timeout_at(until, Sql::connect(&settings.postgres)).await {
            Ok(connected) => Ok(connected?),
            Err(_) => {
                let source = std::io::ErrorKind::TimedOut.into();
                Err(PostgresError::Connect { host: settings.postgres.hosts(), source }.into())
            }
        }
    })
    .await
}

async fn patiently_since<T>(
    mut began: Instant,
    shutdown: &Shutdown,
    mut attempt: impl AsyncFnMut() -> Result<T, Failed>,
) -> Result<Option<T>, Failed> {
    let mut stopped = shutdown.clone();
    loop {
        let attempt_began = Instant::now();
        let outcome = tokio::select! {
            biased;
            () = stopped.requested() => return Ok(None),
            outcome = attempt() => outcome,
        };
        let failure = match outcome {
            Ok(done) => return Ok(Some(done)),
            Err(failure) if failure.recovery() == Recovery::Stop => return Err(failure),
            Err(failure) => failure,
        };
        if attempt_began.elapsed() >= PATIENCE {
            // It came that far: the servers were there.
            began = Instant::now();
        }
        if began.elapsed() >= PATIENCE {
            return Err(NotConnected { source: failure }.into());
        }
        info!(error = super::chain(&*failure), "trying again");
        sleep(PAUSE).await;
    }
}

//! What carries out the jobs: one at a time, by a connection of its own that is made when it is
//! needed.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::sleep};
use tracing::{debug, info};

use super::{
    CHUNK_BYTES_MAX, MEANT_ROWS_MAX,
    job::{Chunk, Job, Outcome, Settling, Work},
};
use crate::{
    change::PgTimestamp,
    event::table::Description,
    pipeline::{chain, published_tables, settings::Settings},
    postgres::{
        self, PostgresError, PublicationName, TableName,
        snapshot::{ChunkQuery, ChunkReader, Moment, OpenTransactions, Part, Shape},
        sql::Sql,
    },
};

/// How often it is looked whether open transactions have ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Every so many looks it is asked for whom it waits, which reads all of pg_locks, and every so many it
/// is logged.
const LOOKS_PER_QUESTION: u32 = 20;
const LOOKS_PER_WORD: u32 = 5 * LOOKS_PER_QUESTION;

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub(in crate::pipeline) enum ReadError {
    /// The server refused, or the connection broke.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The condition of the request cannot be carried out.
    #[error("the condition fails")]
    Condition(#[source] PostgresError),
    /// Not the server of the stream answers.
    #[error("the server is on timeline {found}, and the stream is on timeline {expected}")]
    OtherTimeline { found: u32, expected: u32 },
}

/// Carries out jobs.
#[derive(Debug)]
pub(in crate::pipeline) struct Reading {
    where_from: Arc<WhereFrom>,
    session: Option<Session>,
    under_way: Option<JoinHandle<Done>>,
}

/// What came of a job, with the connection where it can be used again.
type Done = (Option<Session>, Result<Outcome, ReadError>);

/// What is read by all jobs alike.
#[derive(Debug)]
struct WhereFrom {
    postgres: postgres::Settings,
    publication: PublicationName,
    /// The timeline of the stream.
    timeline: u32,
}

/// A connection, and what it last found the table to be.
#[derive(Debug)]
struct Session {
    reader: ChunkReader,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    table: TableName,
    stamp: String,
    shape: Arc<Shape>,
    description: Arc<Description>,
}

impl Reading {
    pub(in crate::pipeline) fn new(settings: &Settings, timeline: u32) -> Self {
        let (postgres, publication) = (settings.postgres.clone(), settings.publication.clone());
        let where_from = Arc::new(WhereFrom { postgres, publication, timeline });
        Self { where_from, session: None, under_way: None }
    }

    /// Who reads.
    pub(in crate::pipeline) fn role(&self) -> &str {
        &self.where_from.postgres.user
    }

    /// Begins a job. Must be called within a tokio runtime, and while none is under way.
    pub(in crate::pipeline) fn begin(&mut self, job: Job) {
        debug_assert!(self.under_way.is_none(), "one job at a time");
        let (where_from, session) = (Arc::clone(&self.where_from), self.session.take());
        self.under_way = Some(tokio::spawn(async move {
            let mut session = session;
            let outcome = where_from.carry_out(&job, &mut session).await;
            // What a session that failed would still send is no answer to anything.
            let session = session.filter(|_| outcome.is_ok());
            (session, outcome)
        }));
    }

    /// What came of the job that is under way; never where there is none.
    ///
    /// # Cancel safety
    /// An outcome is returned once, or is still to come.
    pub(in crate::pipeline) async fn outcome(&mut self) -> Result<Outcome, ReadError> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let done = under_way.await;
        self.under_way = None;
        match done {
            Ok((session, outcome)) => {
                self.session = session;
                outcome
            }
            Err(_) => Err(PostgresError::Ended.into()),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(under_way) = &self.under_way {
            under_way.abort();
        }
    }
}

impl WhereFrom {
    async fn carry_out(
        &self,
        job: &Job,
        session: &mut Option<Session>,
    ) -> Result<Outcome, ReadError> {
        let mut open = match session.take() {
            Some(open) if !open.reader.sql().is_closed() => open,
            Some(_) | None => {
                let reader = ChunkReader::connect(&self.postgres).await?;
                self.judge_timeline(reader.timeline().await?)?;
                Session { reader, known: None }
            }
        };
        if job.is_anew {
            open.known = None;
        }
        let outcome = match &job.work {
            Work::Describe => {
                let moment = self.begin(&mut open, &job.table).await?;
                let known = self.look_up(&mut open, &job.table, &moment).await?;
                let shape = Arc::clone(&known.shape);
                open.reader.end(moment.position).await?;
                Outcome::Described(shape)
            }
            Work::Settle { since } => settle(open.reader.sql(), &job.table, since.clone()).await?,
            Work::Range { behind, rows_max } => {
                let part = Part::Behind { bound: behind.bound(), rows_max: *rows_max };
                self.read(&mut open, job, part).await?
            }
            Work::Keys { keys, end } => {
                self.read(&mut open, job, Part::Of { keys, bound: end.bound() }).await?
            }
        };
        let is_cut_off = matches!(&outcome, Outcome::Read(chunk) if chunk.rows.is_cut_off());
        *session = (!is_cut_off).then_some(open);
        Ok(outcome)
    }

    async fn begin(&self, open: &mut Session, table: &TableName) -> Result<Moment, ReadError> {
        let moment = open.reader.begin(table, &self.publication).await?;
        self.judge_timeline(moment.timeline)?;
        Ok(moment)
    }

    /// Of several hosts another one may have become the primary, while the stream has not ended.
    fn judge_timeline(&self, found: u32) -> Result<(), ReadError> {
        let expected = self.timeline;
        if found == expected { Ok(()) } else { Err(ReadError::OtherTimeline { found, expected }) }
    }

    /// What the table is in the transaction that is open.
    async fn look_up<'o>(
        &self,
        open: &'o mut Session,
        table: &TableName,
        moment: &Moment,
    ) -> Result<&'o Known, ReadError> {
        let is_known = |known: &Known| known.table == *table && known.stamp == moment.stamp;
        if !open.known.as_ref().is_some_and(is_known) {
            let sql = open.reader.sql();
            let shape = Shape::look_up(sql, &self.publication, table).await?;
            // Locked, it cannot have gone; renamed it may be.
            let shape = shape.ok_or(PostgresError::Ended)?;
            let description =
                published_tables::description(sql, table, &shape.table, &shape.identity).await?;
            open.known = Some(Known {
                table: table.clone(),
                stamp: moment.stamp.clone(),
                shape: Arc::new(shape),
                description: Arc::new(description),
            });
        }
        Ok(open.known.as_ref().expect("it was just found"))
    }

    async fn read(
        &self,
        open: &mut Session,
        job: &Job,
        part: Part<'_>,
    ) -> Result<Outcome, ReadError> {
        // Most often the table is what it was when the chunk before was read.
        let former = open.known.as_ref().filter(|known| known.table == job.table);
        let former = former.map(|known| Arc::clone(&known.shape));
        let (moment, prepared) = match &former {
            Some(shape) => {
                let query = query_of(job, shape, part);
                let begun = open.reader.begin_with(&query, &self.publication).await?;
                self.judge_timeline(begun.0.timeline)?;
                begun
            }
            None => (self.begin(open, &job.table).await?, None),
        };
        let known = self.look_up(open, &job.table, &moment).await?;
        let (shape, description) = (Arc::clone(&known.shape), Arc::clone(&known.description));
        // Under another stamp the table may have other columns than the statement.
        let prepared = prepared.filter(|_| former.is_some_and(|it| Arc::ptr_eq(&it, &shape)));
        if !job.expected.is_met_by(&shape) {
            open.reader.end(moment.position).await?;
            return Ok(Outcome::Altered(shape));
        }
        let rows = open.reader.read(&query_of(job, &shape, part), prepared, moment.position).await;
        let rows = rows.map_err(|error| refused(job.condition.as_deref(), error))?;
        let read_at = PgTimestamp::now();
        Ok(Outcome::Read(Chunk { moment, shape, description, rows, read_at }))
    }
}

fn query_of<'a>(job: &'a Job, shape: &'a Shape, part: Part<'a>) -> ChunkQuery<'a> {
    let (table, condition) = (&job.table, job.condition.as_deref());
    let (bytes_max, meant_rows_max) = (CHUNK_BYTES_MAX, MEANT_ROWS_MAX);
    ChunkQuery { table, shape, condition, part, bytes_max, meant_rows_max }
}

/// By what was asked for, or by what the server is.
fn refused(condition: Option<&str>, error: PostgresError) -> ReadError {
    match (condition, error.sqlstate()) {
        (Some(_), Some(state)) if is_of_condition(state) => ReadError::Condition(error),
        _ => error.into(),
    }
}

/// Whether the server says by that SQLSTATE that a condition cannot be carried out: its values, its
/// words, a subquery's rows, or what a function raises.
pub(in crate::pipeline) fn is_of_condition(state: &str) -> bool {
    // The table itself can be gone or closed to us.
    ["0A", "21", "22", "42", "P0"].iter().any(|class| state.starts_with(class))
        && !["42501", "42P01"].contains(&state)
}

/// Looks whether every transaction has ended that was open when the waiting began, and finds out now
/// and then for whom it waits. One look at a time: what the snapshot of each shows need not be remembered,
/// however long it takes.
async fn settle(
    sql: &Sql,
    table: &TableName,
    since: Option<Settling>,
) -> Result<Outcome, ReadError> {
    let Settling { open, looks, mut blockers } = match since {
        Some(settling) => {
            sleep(LOOK_INTERVAL).await;
            settling
        }
        None => {
            let open = OpenTransactions::of_now(sql).await?;
            Settling { open, looks: 0, blockers: Vec::new() }
        }
    };
    let look = open.look(sql).await?;
    if look.have_ended {
        return Ok(Outcome::Settled(look.snapshot));
    }
    let looks = looks.wrapping_add(1);
    // The first time right away: whoever asked is looking on.
    if looks % LOOKS_PER_QUESTION == 1 {
        match open.blockers(sql).await {
            Ok(found) => blockers = found,
            // The waiting must not begin anew for the sake of a word.
            Err(error) => debug!(error = chain(&error), "could not ask for whom reading waits"),
        }
    }
    if looks % LOOKS_PER_WORD == 0 {
        for blocker in &blockers {
            info!(%table, "reading the table's rows waits for the end of {blocker}");
        }
    }
    Ok(Outcome::Unsettled(Settling { open, looks, blockers }, look.snapshot))
}

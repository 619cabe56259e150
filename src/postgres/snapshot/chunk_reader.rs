//! The session that reads chunks: the snapshot of each, and where it stands in the log.

use std::{collections::VecDeque, future::poll_fn, pin::pin};

use futures_core::Stream as _;
use tokio_postgres::{Row, SimpleQueryMessage, Statement, types::ToSql};

use super::{ChunkQuery, Moment, Part, RowBlock, Snapshot, connect, copy_text::Lines};
use crate::{
    lsn::Lsn,
    postgres::{PostgresError, PublicationName, Settings, TableName, sql::Sql},
};

/// A session that reads chunks, each in a transaction of its own.
///
/// Two questions and their answers are saved in each: the rows' statement is parsed beside the
/// beginning, and the end is sent behind that statement, while rows come.
#[derive(Debug)]
pub struct ChunkReader {
    sql: Sql,
    /// Asks where a table and its snapshot stand. Planning it takes longer than all of the rest.
    look: Statement,
    /// A snapshot, and the position below which everything that it shows was committed.
    settled: Option<(Snapshot, Lsn)>,
    /// Transactions of ours that did nothing but have the log written.
    own: VecDeque<u64>,
    /// Up to where the log is written soon, or is.
    written: Option<Lsn>,
    /// What the last range of rows took, with some more.
    expected_bytes: usize,
}

/// The statement of a [`ChunkQuery`], known to the server.
#[derive(Debug)]
pub struct Prepared(Statement);

/// So many transactions of ours are remembered: one follows the other by a chunk or more.
const OWN_MAX: usize = 8;

/// What a snapshot is, where the log is, and by which rows of the catalog a table is what it is. Each
/// statement of ALTER writes the rows that it changes anew, so their xmin is another one.
const LOOK: &str = "
    SELECT pg_current_snapshot()::text, at.position::text,
        substr(pg_walfile_name(at.position), 1, 8),
        concat_ws(' ', c.oid, c.xmin,
            (SELECT string_agg(a.xmin::text, ',' ORDER BY a.attnum) FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0), '/',
            (SELECT string_agg(i.xmin::text, ',' ORDER BY i.indexrelid) FROM pg_index i
             WHERE i.indrelid = c.oid), '/',
            (SELECT string_agg(r.xmin::text, ',' ORDER BY r.oid) FROM pg_publication_rel r
             WHERE r.prrelid = c.oid), '/',
            (SELECT string_agg(p.xmin::text, ',' ORDER BY p.oid) FROM pg_publication p
             WHERE p.pubname = $2::text))
    FROM pg_class c, (SELECT pg_current_wal_insert_lsn() AS position) at
    WHERE c.oid = $1::text::regclass";

impl ChunkReader {
    /// Connects.
    ///
    /// # Errors
    /// Where the server is not there or refuses.
    pub async fn connect(settings: &Settings) -> Result<Self, PostgresError> {
        let sql = connect(settings).await?;
        // Of what it commits nobody has to wait for the disk, or for a standby.
        sql.execute("begin a session that reads chunks", "SET synchronous_commit = off").await?;
        let look = sql.prepare("prepare to read tables", LOOK).await?;
        Ok(Self {
            sql,
            look,
            settled: None,
            own: VecDeque::new(),
            written: None,
            expected_bytes: 0,
        })
    }

    /// The session: what it is asked between [`ChunkReader::begin`] and the end of the transaction it
    /// answers as of the snapshot.
    pub fn sql(&self) -> &Sql {
        &self.sql
    }

    /// The timeline of the server.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn timeline(&self) -> Result<u32, PostgresError> {
        const SQL: &str = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";
        let rows = self.sql.rows("ask for the timeline", SQL, &[]).await?;
        let text: &str = rows.first().map_or("", |row| row.get(0));
        timeline_of(text)
    }

    /// Begins a transaction: locks the table against rewrites, then takes the snapshot, then looks
    /// where the log is.
    ///
    /// The position is taken right behind the snapshot, and not behind the rows: what reading writes
    /// into the log (hint bits, pruned pages) has not to be waited for. For the same reason it is the
    /// former one where nothing else has ended since.
    ///
    /// # Errors
    /// Where the table is not there, may not be read or is locked, or the connection breaks.
    pub async fn begin(
        &mut self,
        table: &TableName,
        publication: &PublicationName,
    ) -> Result<Moment, PostgresError> {
        let moment = self.look(table, publication).await?;
        Ok(self.settle(moment))
    }

    /// The same, with the statement that is to be run then, unless the server does not take it.
    ///
    /// # Errors
    /// Those of [`ChunkReader::begin`].
    pub async fn begin_with(
        &mut self,
        query: &ChunkQuery<'_>,
        publication: &PublicationName,
    ) -> Result<(Moment, Option<Prepared>), PostgresError> {
        // Before the transaction, which an error in the statement would end.
        let (prepared, moment) = tokio::join!(
            biased;
            self.prepare(query),
            self.look(query.table, publication)
        );
        Ok((self.settle(moment?), prepared.ok()))
    }

    async fn prepare(&self, query: &ChunkQuery<'_>) -> Result<Prepared, PostgresError> {
        let statement = format!("COPY ({}) TO STDOUT", query.sql());
        self.sql.prepare(&query.action(), &statement).await.map(Prepared)
    }

    async fn look(
        &self,
        table: &TableName,
        publication: &PublicationName,
    ) -> Result<Moment, PostgresError> {
        let (action, quoted) = (format!("begin to read table {table}"), table.quoted());
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             LOCK TABLE {quoted} IN ACCESS SHARE MODE"
        );
        let parameters: [&(dyn ToSql + Sync); 2] = [&quoted, &publication.as_str()];
        let (begun, rows) = tokio::join!(
            biased;
            self.sql.execute(&action, &begin),
            self.sql.rows(&action, &self.look, &parameters)
        );
        begun?;
        moment_of(rows?.first().ok_or_else(|| unreadable("no row"))?)
    }

    fn settle(&mut self, moment: Moment) -> Moment {
        let own: &[u64] = self.own.make_contiguous();
        match &self.settled {
            Some((snapshot, position)) if moment.snapshot.shows_no_more_than(snapshot, own) => {
                Moment { position: *position, ..moment }
            }
            Some(_) | None => {
                self.settled = Some((moment.snapshot.clone(), moment.position));
                moment
            }
        }
    }

    /// Reads rows under the snapshot and ends the transaction, as [`ChunkReader::end`] does. Where the
    /// rows are cut off the session is to be given up, because the server goes on with them.
    ///
    /// # Errors
    /// Where the server refuses, or the connection breaks.
    pub async fn read(
        &mut self,
        query: &ChunkQuery<'_>,
        prepared: Option<Prepared>,
        position: Lsn,
    ) -> Result<RowBlock, PostgresError> {
        let Prepared(statement) = match prepared {
            Some(prepared) => prepared,
            None => self.prepare(query).await?,
        };
        let mut lines = Lines::of(&self.sql, query.action(), &statement).await?;
        let (block, own) = {
            // Sent at once, and answered behind the last row.
            let expected_bytes = match query.part {
                Part::Behind { .. } => self.expected_bytes,
                Part::Of { .. } => 0,
            };
            let taking = query.take(&mut lines, expected_bytes);
            let (mut taking, mut ending) = (pin!(taking), pin!(self.ending(position)));
            let mut ended = None;
            let block = loop {
                tokio::select! {
                    biased;
                    block = &mut taking => break block?,
                    own = &mut ending, if ended.is_none() => ended = Some(own?),
                }
            };
            match ended {
                _ if block.is_cut_off() => return Ok(block),
                Some(own) => (block, own),
                None => (block, ending.await?),
            }
        };
        self.ended(position, own);
        if let Part::Behind { .. } = query.part {
            self.expected_bytes = block.frame_bytes() + block.frame_bytes() / 16;
        }
        Ok(block)
    }

    /// Ends the transaction, and has the log written up to its position.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn end(&mut self, position: Lsn) -> Result<(), PostgresError> {
        let own = self.ending(position).await?;
        self.ended(position, own);
        Ok(())
    }

    /// Returns the transaction of ours that has the log written, where there is one.
    async fn ending(&self, position: Lsn) -> Result<Option<u64>, PostgresError> {
        const ACTION: &str = "end a read";
        // A snapshot shows commits that did not wait for the disk, and on an idle server nothing else
        // writes them there soon. A transaction of ours that has an identifier, and nothing else, has
        // it done within wal_writer_delay.
        let write = match self.written >= Some(position) {
            true => String::new(),
            false => format!(
                "SELECT pg_current_xact_id()::text WHERE pg_current_wal_flush_lsn() < '{position}'"
            ),
        };
        // Sent while rows come: only the server's own bound holds for it, which is that of a statement.
        let sql = format!("COMMIT; {write}");
        let (mut own, mut stream) = (None, Box::pin(self.sql.simple_query(ACTION, &sql).await?));
        loop {
            let next = poll_fn(|context| stream.as_mut().poll_next(context)).await;
            match next.transpose() {
                Ok(Some(SimpleQueryMessage::Row(row))) => {
                    own = row.get(0).and_then(|text| text.parse().ok());
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(own),
                Err(error) => return Err(PostgresError::from_sql(ACTION, error)),
            }
        }
    }

    fn ended(&mut self, position: Lsn, own: Option<u64>) {
        self.own.extend(own);
        self.own.drain(..self.own.len().saturating_sub(OWN_MAX));
        self.written = self.written.max(Some(position));
    }
}

fn moment_of(row: &Row) -> Result<Moment, PostgresError> {
    let text = |index| row.try_get::<_, &str>(index).map_err(|_| unreadable("a column less"));
    Ok(Moment {
        snapshot: Snapshot::parse(text(0)?).ok_or_else(|| unreadable("no snapshot"))?,
        position: text(1)?.parse().map_err(|_| unreadable("no position"))?,
        timeline: timeline_of(text(2)?)?,
        stamp: text(3)?.to_owned(),
    })
}

/// The first eight digits of a segment's name.
fn timeline_of(digits: &str) -> Result<u32, PostgresError> {
    u32::from_str_radix(digits, 16).map_err(|_| unreadable("no timeline"))
}

fn unreadable(what: &str) -> PostgresError {
    PostgresError::Protocol { what: format!("{what} came for the moment of a snapshot") }
}

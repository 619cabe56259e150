//! Which rows the slot's stream will bring: those that were inserted since its consistent point.
//!
//! A row that a later snapshot shows either was there at the consistent point, or its insert is in
//! the stream. Nothing in the row tells which: `xmin` may be that of an update, or of a
//! subtransaction, whose number says nothing of when its transaction was committed. The stream does
//! tell: it is read, and given up, from the consistent point to a mark in the log that was made
//! after the snapshot was taken. What the snapshot shows was committed before that mark.

use std::{collections::HashSet, time::Duration};

use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, interval};
use tracing::info;

use super::super::start::Failed;
use crate::{
    change::{RelationId, RowChange, Tuple, TupleValue},
    lsn::{CommitLsn, Lsn},
    postgres::{
        PostgresError, TableName,
        pgoutput::Decoder,
        replication::{ReplicationStream, StreamMessage},
        transaction::{Change, Step, TransactionReader},
    },
};

/// How often the server hears from us, and is asked for its position.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is said how far it is.
const WORD_INTERVAL: Duration = Duration::from_secs(5);

/// Ids of rows, 16 bytes each whatever their type: as many as were inserted since the consistent
/// point.
#[derive(Debug, Default)]
pub(super) struct StreamedRows(HashSet<[u8; 16]>);

impl StreamedRows {
    /// Whether the stream brings the row of that id.
    pub(super) fn contain(&self, id: &str) -> bool {
        !self.0.is_empty() && self.0.contains(&digest(id.as_bytes()))
    }
}

fn digest(id: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(id);
    let (first, _) = hash.split_first_chunk::<16>().expect("SHA-256 has 32 bytes");
    *first
}

/// Reads the stream up to `mark`. The slot does not move, for nothing is acknowledged.
///
/// # Errors
/// Where the stream breaks or cannot be decoded.
pub(super) async fn read_until(
    stream: &mut ReplicationStream,
    table: &TableName,
    id_column: &str,
    mark: Lsn,
) -> Result<StreamedRows, Failed> {
    let mut reading = Reading {
        table,
        id_column,
        mark,
        decoder: Decoder::new(),
        reader: TransactionReader::new(),
        described: Vec::new(),
        is_open: false,
        position: None,
        found: StreamedRows::default(),
    };
    let mut ticks = interval(PING_INTERVAL);
    let mut said_at = Instant::now();
    loop {
        while let Some(message) = stream.next_message()? {
            if reading.take(message)? {
                return Ok(reading.found);
            }
        }
        tokio::select! {
            biased;
            // The server tells its position when it is asked, also where nothing comes.
            _ = ticks.tick() => stream.send_status(None, None, true).await?,
            read = stream.read_chunk() => read?,
        }
        if said_at.elapsed() >= WORD_INTERVAL {
            said_at = Instant::now();
            let at = reading.position.map(|position| position.to_string());
            info!(%table, at, until = %mark, "looking for what the stream brings by itself");
        }
    }
}

struct Reading<'a> {
    table: &'a TableName,
    id_column: &'a str,
    mark: Lsn,
    decoder: Decoder,
    reader: TransactionReader,
    /// The table by its OIDs, and where its id is.
    described: Vec<(RelationId, usize)>,
    is_open: bool,
    /// Where the last transaction that began was committed.
    position: Option<CommitLsn>,
    found: StreamedRows,
}

impl Reading<'_> {
    /// Whether everything that was committed below the mark came by.
    fn take(&mut self, message: StreamMessage<'_>) -> Result<bool, Failed> {
        let (wal_start, payload) = match message {
            StreamMessage::Keepalive { wal_end, .. } => {
                let is_past = wal_end.is_some_and(|end| end >= self.mark);
                return Ok(is_past && !self.is_open);
            }
            StreamMessage::XLogData { wal_start, payload } => (wal_start, payload),
        };
        match self.reader.accept(wal_start, self.decoder.decode(payload)?)? {
            Step::Begin(transaction) => {
                self.is_open = true;
                self.position = Some(transaction.commit_lsn);
                return Ok(transaction.commit_lsn.lsn() >= self.mark);
            }
            Step::Commit { end_lsn } => {
                self.is_open = false;
                return Ok(end_lsn.lsn() >= self.mark);
            }
            Step::Relation(relation) => {
                self.described.retain(|(id, _)| *id != relation.id);
                let is_ours =
                    relation.schema == self.table.schema && relation.name == self.table.name;
                let id = relation.columns.iter().position(|column| column.name == self.id_column);
                if let (true, Some(index)) = (is_ours, id) {
                    self.described.push((relation.id, index));
                }
            }
            Step::Change {
                change: Change::Row { relation, change: RowChange::Insert { new } },
                ..
            } => {
                let described = self.described.iter().find(|(id, _)| *id == relation);
                if let Some((_, index)) = described {
                    self.found.0.insert(digest(id_of(new, *index)?));
                }
            }
            Step::Change { .. } | Step::NonTransactionalMessage { .. } | Step::Nothing => {}
        }
        Ok(false)
    }
}

/// The text of an id. One that is NULL can be no event, which the stream itself will say.
fn id_of(row: Tuple<'_>, index: usize) -> Result<&[u8], PostgresError> {
    match row.get(index) {
        Some(TupleValue::Text(text)) => Ok(text),
        Some(TupleValue::Null) => Ok(&[]),
        Some(TupleValue::UnchangedToast) | None => {
            Err(PostgresError::Protocol { what: "an inserted row came without its id".to_owned() })
        }
    }
}

//! The rows that tables had before: asked for, taken in, and what is said of them.

use tokio::time::Instant;
use tracing::{error, warn};

use super::{
    super::{
        backfill::{Given, Outcome, ReadError, Unfit, due},
        beside::News,
        chain,
        refusal::Refusal,
    },
    End, StreamLoop,
};
use crate::{
    checkpoint::Fingerprint,
    postgres::{PostgresError, TableName, diagnosis::ReadRights},
    sink::Sink,
};

impl<S: Sink> StreamLoop<S> {
    /// Has the next rows read, where somebody reads and nothing is under way.
    pub(super) fn read_rows(&mut self) {
        let Some(reading) = &mut self.beside.reading else { return };
        if let Some(job) = self.assembler.backfills_mut().next_job(Instant::now()) {
            reading.begin(job);
        }
    }

    pub(super) fn on_news(&mut self, news: News) -> Result<(), End> {
        match news {
            News::Publication(change) => self.on_publication(change),
            News::Table(answer) => {
                let (relation, answers) = answer?;
                self.assembler.relation(&relation, answers);
                Ok(())
            }
            News::Rows(outcome) => self.on_rows(outcome),
            News::Request(asked) => self.on_request(asked),
        }
    }

    /// The rows of a table that came by a pattern are due; those of one that is gone never come.
    fn on_publication(&mut self, change: Result<Fingerprint, Refusal>) -> Result<(), End> {
        let fingerprint = change?;
        let before = self.assembler.checkpoint_mut().publication();
        let new = due::of_new_tables(&self.settings, before, &fingerprint);
        let backfills = self.assembler.backfills_mut();
        let is_there = |table: &str, oid| {
            fingerprint.tables.get(table).is_some_and(|published| published.oid == oid)
        };
        backfills.keep(is_there);
        new.into_iter().for_each(|record| backfills.add_due(record));
        self.assembler.checkpoint_mut().set_publication(fingerprint);
        Ok(())
    }

    fn on_rows(&mut self, outcome: Result<Outcome, ReadError>) -> Result<(), End> {
        let backfills = self.assembler.backfills_mut();
        match outcome {
            Ok(outcome) => {
                backfills.done(outcome);
                if let Some(table) = backfills.take_rows_first() {
                    return Err(End::RowsFirst { table });
                }
            }
            Err(ReadError::Condition(error)) => {
                let reason = Unfit::Condition(chain(&error));
                backfills.refused(reason);
            }
            Err(error) => {
                let table = backfills.failed(Instant::now());
                if let Some(unsaid) = self.rows_said.is_due() {
                    let hint = table.filter(|_| forbidden(&error)).and_then(|table| {
                        let role = self.beside.reading.as_ref()?.role();
                        let table = TableName::try_from(table).ok()?;
                        Some(ReadRights::of(&table, role).hint())
                    });
                    warn!(
                        error = chain(&error),
                        hint, unsaid, "could not read the rows that a table has; trying again"
                    );
                }
            }
        }
        if let Some(inbox) = &mut self.beside.inbox {
            inbox.observe_waiting(self.assembler.backfills().waits_for());
        }
        self.are_rows_due = true;
        Ok(())
    }

    /// Lets go out what may, with what changed of records.
    pub(super) fn hand_over_rows(&mut self) -> Result<(), End> {
        self.assembler.release_rows(&mut self.tracker)?;
        self.assembler.hand_over_gathered(&mut self.tracker);
        self.send_ready();
        Ok(())
    }

    /// Says which tables' rows will not come.
    pub(super) fn tell_given_up(&mut self) {
        for Given { record, reason } in self.assembler.backfills_mut().take_given_up() {
            error!(
                table = record.table,
                rows = record.rows,
                %reason,
                "the rows that the table has are not all published, and the rest will not be"
            );
        }
    }
}

/// Whether the role may not read the table, which the stream needs no right for.
fn forbidden(error: &ReadError) -> bool {
    match error {
        ReadError::Postgres(error) => PostgresError::sqlstate(error) == Some("42501"),
        ReadError::Condition(_) | ReadError::OtherTimeline { .. } => false,
    }
}

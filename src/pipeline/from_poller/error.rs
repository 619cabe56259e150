//! Why a table is not taken over.

use crate::{
    event::Reason,
    failure::{Code, Failure, Recovery},
    postgres::{PostgresError, SlotName, TableName},
};

/// A table cannot be taken over from its poller, or not so.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// No `[[outbox]]` names it.
    #[error("no [[outbox]] has table \"{table}\"")]
    NotConfigured {
        /// As it was asked for.
        table: String,
    },
    /// PostgreSQL does not take the condition.
    #[error("cannot read table {table} where {condition}")]
    Condition {
        /// The table.
        table: TableName,
        /// What was asked for.
        condition: String,
        /// The server's words.
        source: Box<PostgresError>,
    },
    /// The role may not read it.
    #[error("role \"{role}\" may not read table {table}")]
    Forbidden {
        /// The table.
        table: TableName,
        /// The role.
        role: String,
    },
    /// It was begun with another condition.
    #[error("taking over table {table} was begun with another condition: {begun}")]
    OtherCondition {
        /// The table.
        table: TableName,
        /// What it was begun with.
        begun: String,
    },
    /// The pipeline publishes already, or has its slot already.
    #[error("replication slot \"{slot}\" was begun without a take-over")]
    TooLate {
        /// The slot.
        slot: SlotName,
    },
    /// Nothing says which row came first.
    #[error("nothing orders the rows of table {table}: it has no column \"{column}\"")]
    NoOrder {
        /// The table.
        table: TableName,
        /// The column that is not there.
        column: String,
    },
    /// A row that waits cannot be an event.
    #[error("cannot map a row of {table} (id {id}) to an event: {reason}")]
    Unfit {
        /// The table.
        table: TableName,
        /// The row's id.
        id: String,
        /// Why.
        reason: Reason,
    },
    /// The snapshot shows nothing of the table any more.
    #[error("table {table} was rewritten or truncated while it was about to be read")]
    Rewritten {
        /// The table.
        table: TableName,
    },
}

impl Failure for TakeOverError {
    fn code(&self) -> Option<Code> {
        match self {
            Self::NotConfigured { .. }
            | Self::Condition { .. }
            | Self::OtherCondition { .. }
            | Self::TooLate { .. } => Some(Code::Settings),
            Self::Forbidden { .. } => Some(Code::NoReplicationRole),
            Self::NoOrder { .. } => Some(Code::ColumnMissing),
            Self::Unfit { .. } => Some(Code::EventUnmappable),
            Self::Rewritten { .. } => None,
        }
    }

    fn recovery(&self) -> Recovery {
        match self {
            Self::Rewritten { .. } => Recovery::Retry,
            Self::NotConfigured { .. }
            | Self::Condition { .. }
            | Self::Forbidden { .. }
            | Self::OtherCondition { .. }
            | Self::TooLate { .. }
            | Self::NoOrder { .. }
            | Self::Unfit { .. } => Recovery::Stop,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotConfigured { .. } => {
                "Name the table as its [[outbox]] does: schema.table, without quotes.".to_owned()
            }
            Self::Condition { .. } => {
                "Give --where an SQL condition over the table's columns, as in --where \"status = \
                 'pending'\". Nothing was made or published."
                    .to_owned()
            }
            Self::Forbidden { table, role } => format!(
                "Run GRANT SELECT ON {} TO {role}; the stream itself needs no such right. Where \
                 row-level security would hide rows, run ALTER ROLE {role} BYPASSRLS.",
                table.quoted(),
                role = crate::postgres::quote_identifier(role)
            ),
            Self::OtherCondition { begun, .. } => format!(
                "Run it again with --where \"{begun}\". Rows that another condition finds belong \
                 to another take-over, by another postgres.slot."
            ),
            Self::TooLate { slot } => format!(
                "A take-over comes before everything else. If nothing was published by slot \
                 \"{slot}\" yet, run SELECT pg_drop_replication_slot('{slot}'); set another \
                 postgres.slot in any case, and run the command again."
            ),
            Self::NoOrder { .. } => "Name the column that holds the time of each row under \
                                     columns.created_at: events of a key must come in their order."
                .to_owned(),
            Self::Unfit { .. } => {
                "Everything before it is published. Mend the row (unlike one of the stream it is \
                 read from the table), or the settings, and run the command again: it goes on where \
                 it was."
                    .to_owned()
            }
            Self::Rewritten { .. } => "It is read again.".to_owned(),
        })
    }
}

//! Why a table is not taken over.

use std::{error::Error, fmt};

use super::super::start::Failed;
use crate::{
    event::Reason,
    failure::{Code, Failure, Recovery},
    postgres::{PostgresError, SlotName, TableName, diagnosis::ReadRights},
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
        /// How many rows are out by it.
        rows: u64,
    },
    /// Rows cannot be told from each other.
    #[error("several rows of table {table} that wait have the id {id}")]
    DoubledId {
        /// The table.
        table: TableName,
        /// The id.
        id: String,
    },
    /// The pipeline publishes already, or has its slot already.
    #[error("replication slot \"{slot}\" was begun without a take-over")]
    TooLate {
        /// The slot.
        slot: SlotName,
    },
    /// Another pipeline publishes another table of the settings file.
    #[error(
        "taking over table {table} would begin anew with table {other}, which replication slot \
         \"{slot}\" publishes"
    )]
    PublishedElsewhere {
        /// The table.
        table: TableName,
        /// The other one.
        other: TableName,
        /// Who publishes that.
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
            | Self::DoubledId { .. }
            | Self::PublishedElsewhere { .. }
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
            | Self::DoubledId { .. }
            | Self::PublishedElsewhere { .. }
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
                "Give --where an SQL condition over the table's columns that can be told of every row, \
                 as in --where \"status = 'pending'\", and run the command again: another condition \
                 is taken as long as no row is published."
                    .to_owned()
            }
            Self::Forbidden { table, role } => format!(
                "{} The stream itself needs no such right.",
                ReadRights::of(table, role).hint()
            ),
            Self::OtherCondition { begun, rows, .. } => format!(
                "Run it again with --where \"{begun}\": {rows} rows are published by it. Rows that \
                 another condition finds belong to another take-over, by another postgres.slot."
            ),
            Self::DoubledId { .. } => "Nothing is published. After a crash one of them would be \
                                       taken for the other, and consumers tell events by their ids: \
                                       give each row an id of its own, or name another column under \
                                       columns.id."
                .to_owned(),
            Self::TooLate { slot } => format!(
                "A take-over comes before everything else. If nothing was published by slot \
                 \"{slot}\" yet, run SELECT pg_drop_replication_slot('{slot}'), set another \
                 postgres.slot, and run the command again. Else run it with a settings file that \
                 names this table alone, with another postgres.slot, and take the table out of this \
                 file; what was inserted since slot \"{slot}\" was made and is published by it is \
                 doubled, unless --where leaves it out."
            ),
            Self::PublishedElsewhere { table, slot, .. } => format!(
                "Run the command with a settings file that names table {table} alone, and leave the \
                 other one to slot \"{slot}\": what is committed to it before the other slot is made \
                 would be published by neither. If nobody follows slot \"{slot}\" any more, and \
                 what it missed is not wanted, run SELECT pg_drop_replication_slot('{slot}') first."
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

/// A take-over that was begun cannot go on, because its slot or its publication is not what it was
/// begun with. What is advised to others for that, a reset, waits for the end of the take-over.
#[derive(Debug)]
pub(super) struct Stranded {
    table: String,
    slot: SlotName,
    /// How many rows are out.
    rows: u64,
    source: Failed,
}

impl Stranded {
    /// The failure with the take-over's own way out, where it is one of these.
    pub(super) fn or_as_it_is(source: Failed, table: &str, slot: &SlotName, rows: u64) -> Failed {
        match source.code() {
            Some(
                Code::SlotMissing
                | Code::SlotInvalidated
                | Code::CheckpointBehindSlot
                | Code::CheckpointAhead
                | Code::TimelineDiverged
                | Code::PublicationMissing
                | Code::PublicationGap,
            ) => Self { table: table.to_owned(), slot: slot.clone(), rows, source }.into(),
            Some(_) | None => source,
        }
    }
}

impl fmt::Display for Stranded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, slot, .. } = self;
        write!(formatter, "cannot go on taking over table {table} by replication slot \"{slot}\"")
    }
}

impl Error for Stranded {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

impl Failure for Stranded {
    fn code(&self) -> Option<Code> {
        self.source.code()
    }

    fn recovery(&self) -> Recovery {
        self.source.recovery()
    }

    fn hint(&self) -> Option<String> {
        let Self { slot, rows, .. } = self;
        let first = match self.code() {
            Some(Code::TimelineDiverged) => {
                "If this server is a former primary, point postgres.url at the present one. Else begin \
                 anew"
            }
            Some(Code::PublicationGap) => {
                "Rows may be missing from the stream: mend the publication as tailwater check says, and \
                 begin anew"
            }
            Some(Code::PublicationMissing) => {
                "Rows may be missing from the stream. The publication is made again by the command \
                 itself. Begin anew"
            }
            Some(_) | None => "Begin anew",
        };
        let doubled = match rows {
            0 => "no row is out yet, so none is doubled".to_owned(),
            rows => format!("the {rows} rows that are out are published again, and no others"),
        };
        Some(format!(
            "{first}: where the slot is still there, run SELECT pg_drop_replication_slot('{slot}'); set \
             another postgres.slot, and run the command again. Everything that waits is read anew: \
             {doubled}."
        ))
    }
}

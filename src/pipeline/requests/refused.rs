//! Why a back-fill is not begun.

use super::{Phase, SnapshotProgress};
use crate::postgres::{NameError, TableName};

/// Why a back-fill is not begun, or why it is not known whether it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestRefused {
    /// What was given is no table's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No section of the settings has it.
    #[error("table {table} is no [[table]] of the daemon's settings")]
    NotConfigured {
        /// The table.
        table: TableName,
    },
    /// Its rows are events already.
    #[error("table {table} is an [[outbox]], whose rows are events and not the state of anything")]
    Outbox {
        /// The table.
        table: TableName,
    },
    /// The publication does not hold it.
    #[error("table {table} is not in publication \"{publication}\"")]
    NotPublished {
        /// The table.
        table: TableName,
        /// The publication.
        publication: String,
    },
    /// Its rows have no order and no names.
    #[error("table {table} has no key by which rows could be told apart")]
    NoKey {
        /// The table.
        table: TableName,
    },
    /// The server does not take the condition.
    #[error("the condition cannot be carried out: {reason}{}", at(.position))]
    Condition {
        /// The server's words.
        reason: String,
        /// Where in the condition they point to, in characters from 1 on.
        position: Option<usize>,
    },
    /// Others of its rows are on their way.
    #[error(
        "a back-fill of {} is already under way{}: request {}, {} rows are out",
        .0.table, among(.0), .0.request, .0.rows
    )]
    UnderWay(Box<SnapshotProgress>),
    /// PostgreSQL does not say whether it can be done.
    #[error("PostgreSQL could not be asked about table {table}: {reason}")]
    NotAsked {
        /// The table.
        table: TableName,
        /// Why.
        reason: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Nobody publishes.
    #[error("the daemon {}", .phase.words())]
    NotRunning {
        /// What it is doing.
        phase: Phase,
    },
    /// Others asked before.
    #[error("too many ask at once")]
    Busy,
    /// It may begin, or not.
    #[error("the daemon began anew, or ended, before the request was written to Kafka")]
    Interrupted,
    /// It may begin later.
    #[error("the request was not written to Kafka within {seconds} s")]
    Unanswered {
        /// How long it was waited for.
        seconds: u64,
    },
}

/// What may be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalKind {
    /// Another request must be made.
    Request,
    /// Another request must end first.
    Conflict,
    /// The same request may be accepted later.
    Later,
}

impl RequestRefused {
    /// For programs. Part of the interface.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Name(_) => "table_name",
            Self::NotConfigured { .. } => "not_configured",
            Self::Outbox { .. } => "outbox",
            Self::NotPublished { .. } => "not_published",
            Self::NoKey { .. } => "no_key",
            Self::Condition { .. } => "condition",
            Self::UnderWay(_) => "under_way",
            Self::NotAsked { .. } => "not_asked",
            Self::NotRunning { .. } => "not_running",
            Self::Busy => "busy",
            Self::Interrupted => "interrupted",
            Self::Unanswered { .. } => "unanswered",
        }
    }

    /// What kind of refusal it is.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Name(_)
            | Self::NotConfigured { .. }
            | Self::Outbox { .. }
            | Self::NotPublished { .. }
            | Self::NoKey { .. }
            | Self::Condition { .. } => RefusalKind::Request,
            Self::UnderWay(_) => RefusalKind::Conflict,
            Self::NotAsked { .. }
            | Self::NotRunning { .. }
            | Self::Busy
            | Self::Interrupted
            | Self::Unanswered { .. } => RefusalKind::Later,
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::Name(_) => {
                "Write it as public.orders: as the catalog has it, without quotes.".to_owned()
            }
            Self::NotConfigured { .. } => "Name the table in the daemon's settings, and start it \
                again; a table that is taken on with snapshot = \"initial\" is published with its \
                rows."
                .to_owned(),
            Self::Outbox { .. } => "What was inserted before the stream began is published by \
                `tailwater init --take-over TABLE --where …`, before the first start \
                (docs/from-a-poller.md)."
                .to_owned(),
            Self::NotPublished { table, publication } => format!(
                "ALTER PUBLICATION \"{publication}\" ADD TABLE {}; of a partition, name the \
                 partitioned table, which its rows are published as.",
                table.quoted()
            ),
            Self::NoKey { .. } => {
                "Give it a primary key, or a REPLICA IDENTITY by a unique index, \
                and publish all of that key's columns."
                    .to_owned()
            }
            Self::Condition { .. } => {
                "The condition is what stands behind WHERE in a query of this \
                table alone, as --where \"status = 'open'\"."
                    .to_owned()
            }
            Self::UnderWay(progress) => format!(
                "Wait for its end{}.",
                match &progress.condition {
                    Some(_) => "",
                    None => "; without --where it is followed",
                }
            ),
            Self::NotAsked { hint, .. } => {
                hint.clone().unwrap_or_else(|| "Try again when it answers.".to_owned())
            }
            Self::NotRunning { phase: Phase::Standby } => {
                "Ask the instance that publishes, on its own machine.".to_owned()
            }
            Self::NotRunning { phase: Phase::Halting } => {
                "Mend what its log says, start it, and ask again.".to_owned()
            }
            Self::NotRunning { .. } | Self::Busy => "Try again in a moment.".to_owned(),
            Self::Interrupted | Self::Unanswered { .. } => {
                "Ask again with the same condition: where \
                it has begun meanwhile, that one is found. Kafka may be slow or away, or a large \
                transaction may be open: `tailwater status` says how it is."
                    .to_owned()
            }
        }
    }
}

fn at(position: &Option<usize>) -> String {
    position.map_or(String::new(), |position| format!(", at character {position}"))
}

fn among(progress: &SnapshotProgress) -> String {
    let condition = progress.condition.as_ref();
    condition.map_or(String::new(), |condition| format!(" for the rows where {condition}"))
}

//! What can go wrong between us and PostgreSQL.

use std::io;

use crate::failure::{Code, Failure, Recovery};

/// What the server said in an ErrorResponse.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {sqlstate}){}", detail_suffix(.detail))]
pub struct ServerMessage {
    /// `ERROR`, `FATAL`, `PANIC`, unlocalised.
    pub severity: String,
    /// Five characters.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// DETAIL.
    pub detail: Option<String>,
    /// HINT.
    pub hint: Option<String>,
}

fn detail_suffix(detail: &Option<String>) -> String {
    detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"))
}

/// A failed exchange with the server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No connection came about.
    #[error("could not connect to PostgreSQL at {host}")]
    Connect {
        /// Where.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("could not {action}: the connection to PostgreSQL was lost")]
    Lost {
        /// A verb phrase: what was being done.
        action: String,
        /// Why; none where the server closed it without a word (its `wal_sender_timeout` does).
        #[source]
        source: Option<io::Error>,
    },
    /// The server was silent for too long.
    #[error("could not {action}: no answer from PostgreSQL for {seconds} s")]
    Silent {
        /// A verb phrase: what was being done.
        action: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The server refused.
    #[error("could not {action}")]
    Server {
        /// A verb phrase: what was being done.
        action: String,
        /// Its words.
        #[source]
        source: Box<ServerMessage>,
    },
    /// The server ended the stream in good order: it is shutting down.
    #[error("PostgreSQL ended the replication stream")]
    Ended,
    /// Bytes that are not the protocol, or a part of it that we do not speak.
    #[error("cannot read what PostgreSQL sent: {what}")]
    Protocol {
        /// What was expected and what came.
        what: String,
    },
    /// The server asks for an authentication that is not built.
    #[error("cannot authenticate at PostgreSQL: {what}")]
    Authentication {
        /// What was asked for.
        what: String,
    },
    /// PostgreSQL 18 skips a publication that is missing at a WAL position, with a notice only.
    #[error("publication \"{publication}\" does not exist at this point in the WAL")]
    PublicationSkipped {
        /// The publication.
        publication: String,
    },
}

impl PostgresError {
    /// The SQLSTATE, where the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { source, .. } => Some(&source.sqlstate),
            _ => None,
        }
    }
}

impl Failure for PostgresError {
    fn code(&self) -> Option<Code> {
        None
    }

    fn recovery(&self) -> Recovery {
        Recovery::Retry
    }

    fn hint(&self) -> Option<String> {
        None
    }
}

//! What can go wrong between us and PostgreSQL.

use std::io;

use crate::failure::{Code, Failure, Recovery};

/// What the server said in an ErrorResponse.
#[derive(Clone, PartialEq, Eq, Debug, Default, thiserror::Error)]
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
    /// The server refused an ordinary statement.
    #[error("could not {action}")]
    Statement {
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
    /// An error of the ordinary SQL connection. `action` is a verb phrase: what was being done.
    pub fn from_sql(action: impl Into<String>, error: tokio_postgres::Error) -> Self {
        let action = action.into();
        match error.as_db_error() {
            Some(database) => Self::Statement {
                action,
                source: Box::new(ServerMessage {
                    severity: database.severity().to_owned(),
                    sqlstate: database.code().code().to_owned(),
                    message: database.message().to_owned(),
                    detail: database.detail().map(str::to_owned),
                    hint: database.hint().map(str::to_owned),
                }),
            },
            None => Self::Lost { action, source: Some(io::Error::other(error)) },
        }
    }

    /// The server's words, where it gave any.
    pub fn server_message(&self) -> Option<&ServerMessage> {
        match self {
            Self::Server { source, .. } | Self::Statement { source, .. } => Some(source),
            Self::Connect { .. }
            | Self::Lost { .. }
            | Self::Silent { .. }
            | Self::Ended
            | Self::Protocol { .. }
            | Self::Authentication { .. }
            | Self::PublicationSkipped { .. } => None,
        }
    }

    /// The SQLSTATE, where the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server_message().map(|message| message.sqlstate.as_str())
    }

    /// The process that holds the slot, where that is what is wrong (55006); 0 where the server
    /// does not name it.
    pub fn slot_holder(&self) -> Option<i32> {
        let message = self.server_message().filter(|message| message.sqlstate == "55006")?;
        let pid = message.message.rsplit(' ').next().and_then(|word| word.parse().ok());
        Some(pid.unwrap_or(0))
    }

    fn situation(&self) -> Situation {
        match self {
            Self::Connect { .. } | Self::Lost { .. } | Self::Silent { .. } | Self::Ended => {
                Situation::Passing
            }
            Self::Protocol { .. } => Situation::Broken,
            Self::Authentication { .. } => Situation::Coded(Code::AuthFailed),
            Self::PublicationSkipped { .. } => Situation::Coded(Code::PublicationMissing),
            // The catalog's functions say so of a table that is dropped while they look.
            Self::Statement { source, .. } if source.sqlstate == "XX000" => Situation::Passing,
            Self::Server { source, .. } | Self::Statement { source, .. } => source.situation(),
        }
    }
}

/// What an error comes down to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Situation {
    /// It may be over soon.
    Passing,
    /// It is not over without somebody's doing, and has a word.
    Coded(Code),
    /// It is not over, and has no word: we or the server are at fault.
    Broken,
}

impl ServerMessage {
    /// The SQLSTATEs that a walsender answers with, tested against 14 to 18; what is not known is
    /// tried again (manual page errcodes-appendix).
    fn situation(&self) -> Situation {
        let says = |words: &str| self.message.contains(words);
        // Names of slots and publications stand in the messages, and may hold any of these words.
        let begins = |words: &str| self.message.starts_with(words);
        let details = |words: &str| {
            self.detail.as_ref().is_some_and(|detail| detail.contains(words)) || says(words)
        };
        match self.sqlstate.as_str() {
            "28000" | "28P01" => Situation::Coded(Code::AuthFailed),
            "42501" => Situation::Coded(Code::NoReplicationRole),
            "53400" => Situation::Coded(Code::NoFreeSlot),
            "42704" if begins("publication") => Situation::Coded(Code::PublicationMissing),
            "42704" if begins("replication slot") => Situation::Coded(Code::SlotMissing),
            "55000" if begins("logical decoding") && says("wal_level") => {
                Situation::Coded(Code::WalLevel)
            }
            "55000" if details("maximum reserved size") || details("invalidated") => {
                Situation::Coded(Code::SlotInvalidated)
            }
            "55000" if says("can no longer") || says("cannot read from logical") => {
                Situation::Coded(Code::SlotInvalidated)
            }
            "58P01" if says("has already been removed") => Situation::Coded(Code::SlotInvalidated),
            "55000" if says("was not created in this database") || says("physical") => {
                Situation::Coded(Code::SlotWrongPlugin)
            }
            "3D000" | "0A000" | "22023" | "42601" | "42602" | "XX000" | "42704" => {
                Situation::Broken
            }
            _ => Situation::Passing,
        }
    }
}

impl Failure for PostgresError {
    fn code(&self) -> Option<Code> {
        match self.situation() {
            Situation::Coded(code) => Some(code),
            Situation::Passing | Situation::Broken => None,
        }
    }

    fn recovery(&self) -> Recovery {
        match self.situation() {
            Situation::Passing => Recovery::Retry,
            Situation::Coded(_) | Situation::Broken => Recovery::Stop,
        }
    }

    fn hint(&self) -> Option<String> {
        let server_hint = self.server_message().and_then(|message| message.hint.clone());
        let hint = match self.code() {
            Some(Code::AuthFailed) => {
                "Check user and password (postgres.url, postgres.password_file) and the server's \
                 pg_hba.conf: a logical replication connection matches the database's entry, not \
                 the word replication."
            }
            Some(Code::NoReplicationRole) => {
                "Run ALTER ROLE <role> REPLICATION (Amazon RDS: GRANT rds_replication TO <role>); \
                 for a publication the role must own the tables and have CREATE on the database."
            }
            Some(Code::NoFreeSlot) => {
                "Drop a slot that nobody uses (SELECT slot_name, active FROM \
                 pg_replication_slots; SELECT pg_drop_replication_slot('<slot>')), or run ALTER \
                 SYSTEM SET max_replication_slots to more and restart PostgreSQL."
            }
            Some(Code::PublicationMissing) => {
                "The publication was dropped, or made after the slot's position: changes made \
                 while it was missing cannot be decoded. Create it again (tailwater init \
                 --print-sql shows the SQL), set another postgres.slot, run tailwater init, and \
                 compare the tables with the topics."
            }
            Some(Code::WalLevel) => {
                "Run ALTER SYSTEM SET wal_level = 'logical', then restart PostgreSQL."
            }
            Some(Code::SlotMissing) => {
                "Somebody dropped the slot. Set another postgres.slot, run tailwater init, and \
                 compare the tables with the topics for what was committed in between."
            }
            Some(Code::SlotInvalidated) => {
                "The server removed WAL that the slot needed. Raise max_slot_wal_keep_size, drop \
                 the slot, set another postgres.slot, run tailwater init, and compare the tables \
                 with the topics for what was committed in between."
            }
            Some(Code::SlotWrongPlugin) => "Set another postgres.slot, then run tailwater init.",
            _ => return server_hint,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests;

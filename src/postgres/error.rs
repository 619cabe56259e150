//! What can go wrong between us and PostgreSQL.

use std::io;

use tokio_postgres::error::ErrorPosition;

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
    /// Where in the statement, in characters from 1 on.
    pub position: Option<u32>,
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
    /// The connection is not encrypted as it must be.
    #[error("{} encrypt the connection to PostgreSQL at {host}: {what}", fault.could())]
    Tls {
        /// Where.
        host: String,
        /// What is not as it must be.
        what: String,
        /// What kind of thing that is.
        fault: TlsFault,
        /// The library's or the system's words, where they say more.
        #[source]
        source: Option<io::Error>,
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

/// What is not as it must be with TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsFault {
    /// The server has none.
    NotOffered,
    /// The server's certificate leads to nobody whom we trust.
    Untrusted,
    /// The server's certificate is for somebody else.
    OtherName,
    /// Our certificates and keys cannot be used as they are.
    Files,
    /// The server broke off with an alert, which is how it refuses a client's certificate.
    Refused,
    /// What came is no TLS, or none that we speak.
    Handshake,
    /// The connection broke meanwhile.
    Interrupted,
}

impl TlsFault {
    fn could(self) -> &'static str {
        match self {
            Self::Interrupted => "could not",
            Self::NotOffered
            | Self::Untrusted
            | Self::OtherName
            | Self::Files
            | Self::Refused
            | Self::Handshake => "cannot",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::NotOffered => {
                "Set ssl = on on the server, with ssl_cert_file and ssl_key_file; or, where nobody \
                 can listen in between, sslmode=disable in postgres.url."
            }
            Self::Untrusted => {
                "Name the certificate of the authority that signed the server's (or that itself, \
                 where it is self-signed) by sslrootcert in postgres.url; sslrootcert=system takes \
                 the authorities of the operating system. An expired certificate must be renewed \
                 on the server."
            }
            Self::OtherName => {
                "Use a name of the certificate as host in postgres.url, or have the server's \
                 certificate made for this one; sslmode=verify-ca compares no names."
            }
            Self::Files => {
                "Correct sslrootcert, sslcrl, sslcert, sslkey or sslpassword in postgres.url; \
                 without them libpq's files count, ~/.postgresql/{root.crt,root.crl,\
                 postgresql.crt,postgresql.key}. Everybody who reads a key can use it: chmod 0600."
            }
            Self::Refused => {
                "The server's log says why. Most often it does not trust the client's certificate \
                 (sslcert and sslkey in postgres.url; ssl_ca_file on the server), or both sides \
                 have no version of TLS in common."
            }
            Self::Handshake | Self::Interrupted => {
                "Check that postgres.url leads to PostgreSQL itself, and not to a proxy that does \
                 not know its way of TLS. sslnegotiation=direct needs PostgreSQL 17."
            }
        }
    }
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
                    position: match database.position() {
                        Some(ErrorPosition::Original(position)) => Some(*position),
                        // Within a function that the statement calls.
                        Some(ErrorPosition::Internal { .. }) | None => None,
                    },
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
            | Self::Tls { .. }
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

    /// True where the other way of `sslmode` may lead in: TLS in the place of the clear, or the
    /// reverse. Not where what the settings name is unusable: that must not go unnoticed. Nor where
    /// the connection merely broke: that is no reason to go on in the clear.
    pub(super) fn may_pass_otherwise(&self) -> bool {
        match self {
            Self::Tls { fault, .. } => !matches!(fault, TlsFault::Files | TlsFault::Interrupted),
            other => other.sqlstate().is_some_and(|state| state.starts_with("28")),
        }
    }

    fn situation(&self) -> Situation {
        match self {
            Self::Tls { fault: TlsFault::Interrupted, .. } => Situation::Passing,
            Self::Tls { fault, .. } => Situation::Permanent(Cause::Tls(*fault)),
            Self::Connect { .. } | Self::Lost { .. } | Self::Silent { .. } | Self::Ended => {
                Situation::Passing
            }
            Self::Protocol { .. } => Situation::Permanent(Cause::Protocol),
            Self::Authentication { .. } => Situation::Permanent(Cause::Login),
            Self::PublicationSkipped { .. } => Situation::Permanent(Cause::PublicationMissing),
            Self::Server { source, .. } | Self::Statement { source, .. } => source.situation(),
        }
    }
}

/// What an error comes down to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Situation {
    /// It may be over soon.
    Passing,
    /// It is not over without somebody's doing.
    Permanent(Cause),
}

/// What somebody has to mend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Tls(TlsFault),
    Login,
    Right,
    SlotsTaken,
    PublicationMissing,
    WalLevel,
    SlotMissing,
    SlotInvalidated,
    SlotWrongPlugin,
    DatabaseMissing,
    TableUnfit,
    Command,
    Protocol,
}

impl ServerMessage {
    /// The SQLSTATEs that a server answers with, tested against 14 to 18 (manual page
    /// errcodes-appendix). What nobody has heard of is tried again.
    fn situation(&self) -> Situation {
        let says = |words: &str| self.message.contains(words);
        // Names of slots and publications stand in the messages, and may hold any of these words.
        let begins = |words: &str| self.message.starts_with(words);
        let details = |words: &str| {
            self.detail.as_ref().is_some_and(|detail| detail.contains(words)) || says(words)
        };
        let cause = match self.sqlstate.as_str() {
            state if state.starts_with("28") => Cause::Login,
            "3D000" => Cause::DatabaseMissing,
            "42501" => Cause::Right,
            "53400" => Cause::SlotsTaken,
            "42704" if begins("publication") => Cause::PublicationMissing,
            "42704" if begins("replication slot") => Cause::SlotMissing,
            "55000" if begins("logical decoding") && says("wal_level") => Cause::WalLevel,
            "55000" if begins("publication") && details("FOR ALL TABLES") => Cause::TableUnfit,
            "55000" if details("maximum reserved size") || details("invalidated") => {
                Cause::SlotInvalidated
            }
            "55000" if says("can no longer") || says("cannot read from logical") => {
                Cause::SlotInvalidated
            }
            "58P01" if says("has already been removed") => Cause::SlotInvalidated,
            "55000" if says("was not created in this database") || says("physical") => {
                Cause::SlotWrongPlugin
            }
            "42P01" | "3F000" | "42809" => Cause::TableUnfit,
            "22023" if begins("cannot add relation") => Cause::TableUnfit,
            // Somebody else was first; what is there is used by the next attempt.
            "42710" => return Situation::Passing,
            "0A000" | "22023" => Cause::Command,
            "XX000" if begins("unrecognized") => Cause::Command,
            state if state.starts_with("42") => Cause::Command,
            _ => return Situation::Passing,
        };
        Situation::Permanent(cause)
    }
}

impl Cause {
    fn code(self) -> Code {
        match self {
            Self::Tls(_) => Code::TlsFailed,
            Self::Login => Code::AuthFailed,
            Self::Right => Code::NoReplicationRole,
            Self::SlotsTaken => Code::NoFreeSlot,
            Self::PublicationMissing => Code::PublicationMissing,
            Self::WalLevel => Code::WalLevel,
            Self::SlotMissing => Code::SlotMissing,
            Self::SlotInvalidated => Code::SlotInvalidated,
            Self::SlotWrongPlugin => Code::SlotWrongPlugin,
            // The settings name what this server does not have, or a server that cannot serve.
            Self::DatabaseMissing | Self::TableUnfit | Self::Command => Code::Settings,
            Self::Protocol => Code::NotConnected,
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Tls(fault) => fault.hint(),
            Self::Login => {
                "Check user and password (postgres.url, postgres.password_file; sslcert and sslkey \
                 where the server asks for a certificate) and the server's pg_hba.conf: a logical \
                 replication connection matches the database's entry, not the word replication, \
                 and a line hostssl one by TLS alone."
            }
            Self::Right => {
                "Run ALTER ROLE <role> REPLICATION (Amazon RDS: GRANT rds_replication TO <role>); \
                 for a publication the role must own the tables and have CREATE on the database."
            }
            Self::SlotsTaken => {
                "Drop a slot that nobody uses (SELECT slot_name, active FROM \
                 pg_replication_slots; SELECT pg_drop_replication_slot('<slot>')), or run ALTER \
                 SYSTEM SET max_replication_slots to more and restart PostgreSQL."
            }
            Self::PublicationMissing => {
                "The publication was dropped, or made after the slot's position: changes made \
                 while it was missing cannot be decoded, and making it again does not help by \
                 itself. Make it where it is missing (tailwater init --print-sql prints the SQL), \
                 run tailwater reset --to-now, start, compare the tables with the topics, and \
                 insert the missing rows anew."
            }
            Self::WalLevel => {
                "Run ALTER SYSTEM SET wal_level = 'logical', then restart PostgreSQL."
            }
            Self::SlotMissing => {
                "Somebody dropped the slot. Set another postgres.slot, run tailwater init, and \
                 compare the tables with the topics for what was committed in between."
            }
            Self::SlotInvalidated => {
                "The server removed WAL that the slot needed. Raise max_slot_wal_keep_size, drop \
                 the slot, set another postgres.slot, run tailwater init, and compare the tables \
                 with the topics for what was committed in between."
            }
            Self::SlotWrongPlugin => "Set another postgres.slot, then run tailwater init.",
            Self::DatabaseMissing => {
                "Correct the database in postgres.url (its last part); SELECT datname FROM \
                 pg_database lists those of the server."
            }
            Self::TableUnfit => {
                "Correct outbox.table: it names an ordinary or partitioned table as schema.table, \
                 without quotes and without the database; no view, no foreign, temporary or \
                 unlogged table."
            }
            Self::Command => {
                "The server will refuse this again. Check by SELECT version() that postgres.url \
                 leads to PostgreSQL 14 to 18; if it does, this is a defect of Tailwater: report \
                 it with the line above. Nothing was skipped."
            }
            Self::Protocol => {
                "Check that postgres.url leads to PostgreSQL 14 to 18 itself: something else may \
                 listen there, or a proxy stand between. If neither is so, this is a defect of \
                 Tailwater: report it with the line above. Nothing was skipped."
            }
        }
    }
}

impl Failure for PostgresError {
    fn code(&self) -> Option<Code> {
        match self.situation() {
            Situation::Passing => None,
            Situation::Permanent(cause) => Some(cause.code()),
        }
    }

    fn recovery(&self) -> Recovery {
        match self.situation() {
            Situation::Passing => Recovery::Retry,
            Situation::Permanent(_) => Recovery::Stop,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Self::Tls { fault: fault @ TlsFault::Interrupted, .. } = self {
            return Some(fault.hint().to_owned());
        }
        let theirs = self.server_message().and_then(|message| message.hint.as_deref());
        match (self.situation(), theirs) {
            (Situation::Passing, theirs) => theirs.map(str::to_owned),
            // Of what we do not know the server may know more.
            (Situation::Permanent(cause @ Cause::Command), Some(theirs)) => {
                Some(format!("{theirs} {}", cause.hint()))
            }
            (Situation::Permanent(cause), _) => Some(cause.hint().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;

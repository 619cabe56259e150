//! A logical walsender in command mode.

use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::{history::TimelineHistory, stream::ReplicationStream};
use crate::{
    lsn::EndLsn,
    postgres::{
        PublicationName, Settings, SlotName,
        error::PostgresError,
        login::{LoggedIn, log_in},
        name::{quote_identifier, quote_literal},
        settings::VALUE_OPTIONS,
        wire::{Authentication, Binding, Channel, Row, Socket},
    },
};

/// What a plain command may take: the server answers these from memory.
const COMMAND_MAX: Duration = Duration::from_secs(30);

/// Pinned like the forms of values. PostgreSQL 18 tells only by a WARNING that a publication is
/// missing in the log. And a server with a short `wal_sender_timeout` would end a connection that
/// waits behind back-pressure, one with none would keep a slot of ours busy after we are gone; the
/// pauses between our status updates are made for 60 s.
const SESSION_OPTIONS: &str = "-c client_min_messages=notice -c wal_sender_timeout=60s";

/// Whether a slot is created with a snapshot that others can read under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotSnapshot {
    /// No.
    None,
    /// Yes: it holds until the connection's next command.
    Exported,
}

/// A slot that was just created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedSlot {
    /// What was committed below is not in its stream, and is in its snapshot.
    pub consistent_point: EndLsn,
    /// The name of the exported snapshot, where one was asked for.
    pub snapshot: Option<String>,
}

/// What a temporary slot's creation needs: no bound on its wait, whatever the role's settings, and a
/// server that notices when nobody waits any more.
const TEMPORARY_SLOT_SETTINGS: [(&str, &str); 4] = [
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    // From 17 on.
    ("transaction_timeout", "0"),
    ("client_connection_check_interval", "'1s'"),
];

/// What the server is (`IDENTIFY_SYSTEM`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemIdentity {
    /// The cluster's identifier, decimal.
    pub system_id: String,
    /// Its timeline.
    pub timeline: u32,
}

impl LoggedIn for Channel<Socket> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.session().parameters.get(name).map(String::as_str)
    }
}

/// A connection that takes commands.
#[derive(Debug)]
pub struct Connection {
    channel: Channel<Socket>,
}

impl Connection {
    /// Connects as a logical walsender.
    ///
    /// # Errors
    /// Where the server is not there, refuses, or does not answer within 10 s.
    pub async fn connect(settings: &Settings) -> Result<Self, PostgresError> {
        let options = &format!("{VALUE_OPTIONS} {SESSION_OPTIONS}");
        let greet = |socket: Socket| async move {
            let parameters = [
                ("user", settings.user.as_str()),
                ("database", settings.database.as_str()),
                ("replication", "database"),
                ("client_encoding", "UTF8"),
                ("application_name", settings.application_name.as_str()),
                ("options", options.as_str()),
            ];
            let policy = settings.encryption.channel_binding;
            let binding = Binding { policy, end_point: socket.end_point() };
            let password = settings.password.as_ref();
            let authentication = Authentication::new(&settings.user, password).bound_by(binding);
            Channel::start(socket, &parameters, authentication).await
        };
        let channel = log_in(settings, greet).await?;
        Ok(Self { channel })
    }

    /// The server's major version; 0 where it says nothing we can read.
    pub fn major_version(&self) -> u32 {
        let version = self.channel.session().parameters.get("server_version");
        let digits = |text: &String| {
            let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
            text.get(..end).and_then(|digits| digits.parse().ok())
        };
        version.and_then(digits).unwrap_or(0)
    }

    /// Who the server is.
    ///
    /// # Errors
    /// Where the server refuses or the connection breaks.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PostgresError> {
        let action = "identify the server";
        let row = self.one_row("IDENTIFY_SYSTEM", action).await?;
        Ok(SystemIdentity {
            system_id: value(&row, 0, action)?.to_owned(),
            timeline: parsed(&row, 1, action)?,
        })
    }

    /// A setting as it holds for this connection, ours above included. Its name must be one that the
    /// server has.
    ///
    /// # Errors
    /// Where the server refuses or the connection breaks.
    pub async fn setting(&mut self, name: &str) -> Result<String, PostgresError> {
        let action = format!("ask for {name}");
        let row = self.one_row(&format!("SHOW {}", quote_identifier(name)), &action).await?;
        Ok(value(&row, 0, &action)?.to_owned())
    }

    /// Where the server's timeline came from. The first timeline has no history.
    ///
    /// # Errors
    /// Where the server has no such file or the connection breaks.
    pub async fn timeline_history(
        &mut self,
        timeline: u32,
    ) -> Result<TimelineHistory, PostgresError> {
        let action = "read the timeline's history";
        let row = self.one_row(&format!("TIMELINE_HISTORY {timeline}"), action).await?;
        TimelineHistory::parse(value(&row, 1, action)?)
    }

    /// Creates a pgoutput slot. Waits, without a bound, until every
    /// transaction that is open anywhere in the cluster has ended. The old keywords are spoken by
    /// every version; `failover` exists from 17 on and is left out below.
    ///
    /// # Errors
    /// Where a slot of the name exists (42710), none is free (53400), or the connection breaks.
    pub async fn create_slot(
        &mut self,
        slot: &SlotName,
        failover: bool,
        snapshot: SlotSnapshot,
    ) -> Result<CreatedSlot, PostgresError> {
        let name = quote_identifier(slot.as_str());
        let (value, keyword) = match snapshot {
            SlotSnapshot::None => ("nothing", "NOEXPORT_SNAPSHOT"),
            SlotSnapshot::Exported => ("export", "EXPORT_SNAPSHOT"),
        };
        let sql = if failover && self.major_version() >= 17 {
            format!(
                "CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT '{value}', FAILOVER)"
            )
        } else {
            format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput {keyword}")
        };
        self.created(&sql, slot).await
    }

    /// Creates a temporary pgoutput slot for the sake of its snapshot, which others can read under
    /// until this connection's next command, or its end. Waits as [`Connection::create_slot`] does; and
    /// where this connection is given up meanwhile, the server notices only when it would answer.
    ///
    /// # Errors
    /// Where a slot of the name exists (42710), none is free (53400), or the connection breaks.
    pub async fn export_snapshot(&mut self, slot: &SlotName) -> Result<CreatedSlot, PostgresError> {
        let name = quote_identifier(slot.as_str());
        let sql =
            format!("CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT");
        self.created(&sql, slot).await
    }

    async fn created(&mut self, sql: &str, slot: &SlotName) -> Result<CreatedSlot, PostgresError> {
        let action = format!("create replication slot \"{slot}\"");
        let row = first(self.channel.query(sql, &action).await?, &action)?;
        Ok(CreatedSlot {
            consistent_point: EndLsn(parsed(&row, 1, &action)?),
            snapshot: row.into_iter().nth(2).flatten(),
        })
    }

    /// Creates a temporary pgoutput slot, which ends with this connection, and returns its position.
    /// Waits as [`Connection::create_slot`] does.
    ///
    /// By the SQL function, because only for SQL does the server look whether its client is still
    /// there: a slot whose creation waits would outlive a client that was killed.
    ///
    /// # Errors
    /// Where none is free (53400), or the connection breaks.
    pub async fn create_temporary_slot(
        &mut self,
        slot: &SlotName,
    ) -> Result<EndLsn, PostgresError> {
        let action = format!("create temporary replication slot \"{slot}\"");
        for (name, value) in TEMPORARY_SLOT_SETTINGS {
            let set = self.channel.query(&format!("SET {name} = {value}"), &action).await;
            match set {
                // An older server has no such setting; and some operating systems cannot tell a server
                // that a client is gone.
                Err(PostgresError::Server { source, .. }) => {
                    debug!(name, error = %source, "the server does not take a setting");
                }
                set => _ = set?,
            }
        }
        let sql = format!(
            "SELECT lsn FROM pg_create_logical_replication_slot({}, 'pgoutput', true)",
            quote_literal(slot.as_str())
        );
        let row = first(self.channel.query(&sql, &action).await?, &action)?;
        Ok(EndLsn(parsed(&row, 0, &action)?))
    }

    /// Starts streaming at the slot's `confirmed_flush` (0/0): pgoutput version 1 with logical
    /// messages, streaming of open transactions off. From here on the connection is a stream.
    ///
    /// # Errors
    /// Where the slot is missing, in use (55006), invalidated or not ours.
    pub async fn start_replication(
        mut self,
        slot: &SlotName,
        publication: &PublicationName,
    ) -> Result<ReplicationStream, PostgresError> {
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {}, \
             messages 'true')",
            quote_identifier(slot.as_str()),
            quote_literal(&quote_identifier(publication.as_str())),
        );
        let action = format!("start replication from slot \"{slot}\"");
        bounded(&action, self.channel.start_copy_both(&sql, &action)).await?;
        Ok(ReplicationStream::new(self.channel, publication.to_string()))
    }

    async fn one_row(&mut self, command: &str, action: &str) -> Result<Row, PostgresError> {
        first(bounded(action, self.channel.query(command, action)).await?, action)
    }
}

async fn bounded<T>(
    action: &str,
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    let silent =
        || PostgresError::Silent { action: action.to_owned(), seconds: COMMAND_MAX.as_secs() };
    timeout(COMMAND_MAX, work).await.unwrap_or_else(|_| Err(silent()))
}

fn first(rows: Vec<Row>, action: &str) -> Result<Row, PostgresError> {
    rows.into_iter().next().ok_or_else(|| unreadable(action, "no row"))
}

fn value<'a>(row: &'a Row, column: usize, action: &str) -> Result<&'a str, PostgresError> {
    row.get(column)
        .and_then(Option::as_deref)
        .ok_or_else(|| unreadable(action, &format!("no value in column {column}")))
}

fn parsed<T: std::str::FromStr>(
    row: &Row,
    column: usize,
    action: &str,
) -> Result<T, PostgresError> {
    let text = value(row, column, action)?;
    text.parse().map_err(|_| unreadable(action, &format!("\"{text}\" in column {column}")))
}

fn unreadable(action: &str, what: &str) -> PostgresError {
    PostgresError::Protocol {
        what: format!("the server's answer while trying to {action}: {what}"),
    }
}

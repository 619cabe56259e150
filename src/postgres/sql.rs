//! The ordinary SQL connection, by tokio-postgres.

use std::{
    convert::Infallible,
    error::Error as _,
    future::{Ready, ready},
    io,
    time::Duration,
};

use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{
    Client, Config, Connection, CopyOutStream, Row, SimpleQueryStream, Statement, ToStatement,
    config,
    tls::{self, TlsConnect},
    types::ToSql,
};
use tracing::debug;

use super::{
    ChannelBinding, PostgresError, Settings,
    login::{LoggedIn, log_in},
    settings::VALUE_OPTIONS,
    wire::Socket,
};

/// The server gives up a statement after this long, so that a lock that somebody holds shows as an
/// error and not as silence.
const SESSION_OPTIONS: &str = "-c statement_timeout=30s -c lock_timeout=10s";

/// How much longer a statement's answer is waited for than the server takes to give up, so that
/// only a connection that leads nowhere comes to it.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long a statement's answer is waited for, unless it is one that takes long.
const STATEMENT_MAX: Duration = Duration::from_secs(35);

/// A connected client. Dropping it closes the connection.
#[derive(Debug)]
pub struct Sql {
    client: Client,
    driver: JoinHandle<()>,
    statement_max: Duration,
}

impl Sql {
    /// Connects. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the server is not there, refuses, or does not answer within 10 s.
    pub async fn connect(settings: &Settings) -> Result<Self, PostgresError> {
        Self::connect_with(settings, SESSION_OPTIONS).await
    }

    /// Connects with other settings of the session. The forms of values are pinned in any case.
    pub(super) async fn connect_with(
        settings: &Settings,
        options: &str,
    ) -> Result<Self, PostgresError> {
        let options = format!("{VALUE_OPTIONS} {options}");
        let mut config = Config::new();
        config
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name(&settings.application_name)
            .options(options)
            .channel_binding(match settings.encryption.channel_binding {
                ChannelBinding::Disable => config::ChannelBinding::Disable,
                ChannelBinding::Prefer => config::ChannelBinding::Prefer,
                ChannelBinding::Require => config::ChannelBinding::Require,
            })
            // It is negotiated by then, or not asked for: see `Dialled`.
            .ssl_mode(config::SslMode::Require)
            .ssl_negotiation(config::SslNegotiation::Direct);
        if let Some(password) = &settings.password {
            config.password(password.reveal());
        }
        let config = &config;
        let greet = |socket: Socket| async move {
            config.connect_raw(socket, Dialled).await.map_err(unconnected)
        };
        let (client, connection) = log_in(settings, greet).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "the SQL connection ended");
            }
        });
        Ok(Self { client, driver, statement_max: STATEMENT_MAX })
    }

    /// The same connection, whose statements may take longer.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn with_statement_max(mut self, most: Duration) -> Result<Self, PostgresError> {
        let sql = format!("SET statement_timeout = '{}s'", most.as_secs());
        self.execute("give statements more time", &sql).await?;
        self.statement_max = most + ANSWER_MAX;
        Ok(self)
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs a query, as text or as prepared on this connection. `action` is a verb phrase for its
    /// error.
    ///
    /// # Errors
    /// Where the server refuses it, the connection breaks, or nothing comes for 35 s.
    pub async fn rows(
        &self,
        action: &str,
        query: &(impl ToStatement + ?Sized),
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.bounded(action, self.client.query(query, parameters)).await
    }

    /// Has the server parse a statement, so that it can be run with one message.
    pub(super) async fn prepare(
        &self,
        action: &str,
        sql: &str,
    ) -> Result<Statement, PostgresError> {
        self.bounded(action, self.client.prepare(sql)).await
    }

    /// Runs a statement without a result.
    ///
    /// # Errors
    /// Where the server refuses it, the connection breaks, or nothing comes for 35 s.
    pub async fn execute(&self, action: &str, sql: &str) -> Result<(), PostgresError> {
        self.bounded(action, self.client.batch_execute(sql)).await
    }

    /// Begins a query whose rows come one by one, each value as its text.
    pub(super) async fn simple_query(
        &self,
        action: &str,
        sql: &str,
    ) -> Result<SimpleQueryStream, PostgresError> {
        self.bounded(action, self.client.simple_query_raw(sql)).await
    }

    /// Begins to read what a `COPY … TO STDOUT` writes, line by line.
    pub(super) async fn copy_out(
        &self,
        action: &str,
        sql: &(impl ToStatement + ?Sized),
    ) -> Result<CopyOutStream, PostgresError> {
        self.bounded(action, self.client.copy_out(sql)).await
    }

    async fn bounded<T>(
        &self,
        action: &str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        match timeout(self.statement_max, work).await {
            Ok(outcome) => outcome.map_err(|error| PostgresError::from_sql(action, error)),
            Err(_) => {
                // Whatever still comes is no answer to what is asked next: closed for good.
                self.driver.abort();
                let seconds = self.statement_max.as_secs();
                Err(PostgresError::Silent { action: action.to_owned(), seconds })
            }
        }
    }
}

impl LoggedIn for (Client, Connection<Socket, Socket>) {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.1.parameter(name)
    }
}

/// Hands tokio-postgres the stream as it is. Whether and how it is encrypted was decided before.
struct Dialled;

impl TlsConnect<Socket> for Dialled {
    type Stream = Socket;
    type Error = Infallible;
    type Future = Ready<Result<Socket, Infallible>>;

    fn connect(self, socket: Socket) -> Self::Future {
        ready(Ok(socket))
    }
}

impl tls::TlsStream for Socket {
    fn channel_binding(&self) -> tls::ChannelBinding {
        match self.end_point() {
            Some(data) => tls::ChannelBinding::tls_server_end_point(data),
            None => tls::ChannelBinding::none(),
        }
    }
}

/// Why nobody is logged in. tokio-postgres tells its kinds of errors apart by their words alone.
fn unconnected(error: tokio_postgres::Error) -> PostgresError {
    let action = "log in";
    if error.as_db_error().is_some() {
        return PostgresError::from_sql(action, error);
    }
    let words = error.to_string();
    let what = match error.source().map(ToString::to_string) {
        Some(why) if why == "password missing" => {
            "the server asks for a password, and neither postgres.url nor postgres.password_file \
             has one"
                .to_owned()
        }
        Some(why) if why == "server did not use channel binding" => {
            "channel_binding=require, but the connection is not encrypted, or the server does not \
             ask for scram-sha-256"
                .to_owned()
        }
        Some(why) => why,
        None => words.clone(),
    };
    if ["authentication error", "invalid configuration"].iter().any(|kind| words.starts_with(kind))
    {
        return PostgresError::Authentication { what };
    }
    // What broke the connection says so itself; the rest is not I/O.
    let source = match error.into_source().map(|source| source.downcast::<io::Error>()) {
        Some(Ok(source)) => *source,
        Some(Err(source)) => io::Error::other(source),
        None => io::Error::other(words),
    };
    PostgresError::Lost { action: action.to_owned(), source: Some(source) }
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        failure::{Failure as _, Recovery},
        postgres::{Encryption, Host},
    };

    /// A server that lets everybody in and then says nothing more.
    async fn silent_server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a client");
            let mut startup = [0; 4096];
            assert!(socket.read(&mut startup).await.expect("its first message") > 0);
            // AuthenticationOk, then ReadyForQuery.
            socket.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.expect("written");
            while socket.read(&mut startup).await.is_ok_and(|length| length > 0) {}
        });
        port
    }

    #[tokio::test]
    async fn a_statement_that_nobody_answers_ends_and_closes_the_connection() {
        let settings = Settings {
            host: Host::Tcp { host: "127.0.0.1".to_owned(), port: silent_server().await },
            other_hosts: Vec::new(),
            user: "tailwater".to_owned(),
            password: None,
            database: "shop".to_owned(),
            application_name: "tailwater".to_owned(),
            encryption: Encryption::NONE,
        };
        let mut sql = Sql::connect(&settings).await.expect("connected");
        sql.statement_max = Duration::from_millis(100);
        let error = sql.rows("ask for something", "SELECT 1", &[]).await.expect_err("silence");
        assert!(matches!(error, PostgresError::Silent { .. }), "{error}");
        assert_eq!(error.recovery(), Recovery::Retry);
        tokio::task::yield_now().await;
        assert!(sql.is_closed());
    }
}

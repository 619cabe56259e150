//! The ordinary SQL connection, by tokio-postgres.

use std::time::Duration;

use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, NoTls, Row, types::ToSql};
use tracing::debug;

use super::{Host, PostgresError, Settings};

/// How long a login may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The server gives up a statement after this long, so that a lock that somebody holds shows as an
/// error and not as silence.
const SESSION_OPTIONS: &str = "-c statement_timeout=30s -c lock_timeout=10s -c timezone=UTC";

/// How long a statement's answer is waited for: longer than the server takes to give up, so that
/// only a connection that leads nowhere comes to it.
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
        let mut config = Config::new();
        match &settings.host {
            Host::Tcp { host, port } => config.host(host).port(*port),
            Host::Unix { folder, port } => config.host_path(folder).port(*port),
        };
        config
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name(&settings.application_name)
            .options(SESSION_OPTIONS)
            .connect_timeout(CONNECT_MAX);
        if let Some(password) = &settings.password {
            config.password(password.reveal());
        }
        let host = settings.host.to_string();
        let connecting = timeout(CONNECT_MAX, config.connect(NoTls)).await;
        let connected = connecting.map_err(|_| PostgresError::Connect {
            host: host.clone(),
            source: std::io::ErrorKind::TimedOut.into(),
        })?;
        let (client, connection) = connected.map_err(|error| match error.as_db_error() {
            Some(_) => PostgresError::from_sql("log in", error),
            None => PostgresError::Connect { host, source: std::io::Error::other(error) },
        })?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "the SQL connection ended");
            }
        });
        Ok(Self { client, driver, statement_max: STATEMENT_MAX })
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs a query. `action` is a verb phrase for its error.
    ///
    /// # Errors
    /// Where the server refuses it, the connection breaks, or nothing comes for 35 s.
    pub async fn rows(
        &self,
        action: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.bounded(action, self.client.query(sql, parameters)).await
    }

    /// Runs a statement without a result.
    ///
    /// # Errors
    /// Where the server refuses it, the connection breaks, or nothing comes for 35 s.
    pub async fn execute(&self, action: &str, sql: &str) -> Result<(), PostgresError> {
        self.bounded(action, self.client.batch_execute(sql)).await
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
    use crate::failure::{Failure as _, Recovery};

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
            user: "tailwater".to_owned(),
            password: None,
            database: "shop".to_owned(),
            application_name: "tailwater".to_owned(),
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

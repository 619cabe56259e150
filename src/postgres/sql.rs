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

/// A connected client. Dropping it closes the connection.
#[derive(Debug)]
pub struct Sql {
    client: Client,
    driver: JoinHandle<()>,
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
        Ok(Self { client, driver })
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs a query. `action` is a verb phrase for its error.
    ///
    /// # Errors
    /// Where the server refuses it or the connection breaks.
    pub async fn rows(
        &self,
        action: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        let rows = self.client.query(sql, parameters).await;
        rows.map_err(|error| PostgresError::from_sql(action, error))
    }

    /// Runs a statement without a result.
    ///
    /// # Errors
    /// Where the server refuses it or the connection breaks.
    pub async fn execute(&self, action: &str, sql: &str) -> Result<(), PostgresError> {
        let done = self.client.batch_execute(sql).await;
        done.map_err(|error| PostgresError::from_sql(action, error))
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

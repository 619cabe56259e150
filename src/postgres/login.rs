//! Logging in: in the clear or by TLS, as `sslmode` says. The one place that decides it, for SQL
//! and for replication.
//!
//! `allow` and `prefer` try a second way where the first one fails, as libpq does: `pg_hba.conf` may
//! let a role in by TLS alone, or only without. A host that does not answer is not asked twice.

use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::{
    Settings,
    encryption::Attempt,
    error::{PostgresError, TlsFault},
    wire::{Socket, dial},
};

/// How long a login may take, all ways together.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Connects and has `greet` log in.
///
/// # Errors
/// The failure that says most, where no way leads in within 10 s.
pub(super) async fn log_in<T, F: Future<Output = Result<T, PostgresError>>>(
    settings: &Settings,
    greet: impl Fn(Socket) -> F,
) -> Result<T, PostgresError> {
    let host = || settings.host.to_string();
    timeout(CONNECT_MAX, try_all(settings, greet)).await.unwrap_or_else(|_| {
        let source = std::io::ErrorKind::TimedOut.into();
        Err(PostgresError::Connect { host: host(), source })
    })
}

async fn try_all<T, F: Future<Output = Result<T, PostgresError>>>(
    settings: &Settings,
    greet: impl Fn(Socket) -> F,
) -> Result<T, PostgresError> {
    let mut first = None;
    for attempt in settings.encryption.attempts(&settings.host) {
        let (failure, is_encrypted) = match dial(settings, *attempt).await {
            Ok(socket) => {
                let is_encrypted = socket.is_encrypted();
                match greet(socket).await {
                    Ok(done) => return Ok(done),
                    Err(failure) => (refused_certificate(settings, failure), is_encrypted),
                }
            }
            Err(failure) => (failure, true),
        };
        if let Some(first) = first.take() {
            return Err(more_telling(first, failure));
        }
        // In the clear already: the server has no TLS.
        let is_final = *attempt == Attempt::TlsIfOffered && !is_encrypted;
        if is_final || !failure.may_pass_otherwise() {
            return Err(failure);
        }
        debug!(error = %failure, ?attempt, "trying the other way of sslmode");
        first = Some(failure);
    }
    Err(first.expect("there is a way at least"))
}

/// By TLS 1.3 a server says only after the handshake that it does not take our certificate.
fn refused_certificate(settings: &Settings, failure: PostgresError) -> PostgresError {
    let PostgresError::Lost { source: Some(source), .. } = &failure else { return failure };
    match super::wire::alert(source) {
        Some(what) => PostgresError::Tls {
            host: settings.host.to_string(),
            what,
            fault: TlsFault::Refused,
            source: None,
        },
        None => failure,
    }
}

/// Of two failures the one that is not merely about the other way not being allowed.
fn more_telling(first: PostgresError, second: PostgresError) -> PostgresError {
    let is_beside_the_point = match &second {
        PostgresError::Tls { fault, .. } => *fault == TlsFault::NotOffered,
        other => other.sqlstate() == Some("28000"),
    };
    if is_beside_the_point { first } else { second }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::error::ServerMessage;

    fn server(sqlstate: &str) -> PostgresError {
        let message = ServerMessage { sqlstate: sqlstate.to_owned(), ..ServerMessage::default() };
        PostgresError::Server { action: "log in".to_owned(), source: Box::new(message) }
    }

    fn tls(fault: TlsFault) -> PostgresError {
        PostgresError::Tls { host: String::new(), what: String::new(), fault, source: None }
    }

    #[test]
    fn a_wrong_password_says_more_than_a_way_that_is_not_allowed() {
        for (first, second) in [("28P01", "28000"), ("28000", "28P01"), ("28P01", "28P01")] {
            let told = more_telling(server(first), server(second));
            assert_eq!(told.sqlstate(), Some("28P01"), "{first} {second}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_says_more_than_a_way_that_is_not_allowed() {
        for (first, second) in [
            (tls(TlsFault::Untrusted), server("28000")),
            (server("28000"), tls(TlsFault::Untrusted)),
        ] {
            assert!(matches!(more_telling(first, second), PostgresError::Tls { .. }));
        }
        let told = more_telling(server("28000"), tls(TlsFault::NotOffered));
        assert_eq!(told.sqlstate(), Some("28000"));
    }
}

//! Logging in: at which host, in the clear or by TLS. The one place that decides it, for SQL and for
//! replication.
//!
//! Of several hosts the first one is taken that is no standby. As in libpq one that does not let us
//! in ends the search, because that is nothing which another host mends; one that does not answer
//! is passed over.
//!
//! `sslmode`'s `allow` and `prefer` try a second way where the first one fails, as libpq does:
//! `pg_hba.conf` may let a role in by TLS alone, or only without. A host that does not answer is not
//! asked twice.

use std::{iter::once, time::Duration};

use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    Encryption, Host, Settings,
    encryption::Attempt,
    error::{PostgresError, TlsFault},
    wire::{Socket, dial},
};
use crate::failure::{Failure, Recovery};

/// How long a login may take, all ways together.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How long it may take at each of several hosts: one that is cut off must not hold up the way to
/// the next one for long.
const CONNECT_MAX_OF_SEVERAL: Duration = Duration::from_secs(5);

/// Somebody who is logged in.
pub(super) trait LoggedIn {
    /// What the server said of itself, where it said so: `in_hot_standby` tells a standby.
    fn parameter(&self, name: &str) -> Option<&str>;
}

/// Connects and has `greet` log in. Where there are standbys alone, the first one of them is taken.
///
/// # Errors
/// The failure that says most, where no way leads in within 10 s, or 5 s at each of several hosts.
pub(super) async fn log_in<T: LoggedIn, F: Future<Output = Result<T, PostgresError>>>(
    settings: &Settings,
    greet: impl Fn(Socket) -> F,
) -> Result<T, PostgresError> {
    let limit = match settings.other_hosts.is_empty() {
        true => CONNECT_MAX,
        false => CONNECT_MAX_OF_SEVERAL,
    };
    let (mut standby, mut failure) = (None, None);
    for host in once(&settings.host).chain(&settings.other_hosts) {
        let tried = timeout(limit, try_all(&settings.encryption, host, &greet)).await;
        let outcome = tried.unwrap_or_else(|_| {
            let source = std::io::ErrorKind::TimedOut.into();
            Err(PostgresError::Connect { host: host.to_string(), source })
        });
        match outcome {
            // From 14 on each server says it at login.
            Ok(found) if found.parameter("in_hot_standby") == Some("on") => {
                debug!(%host, "a standby");
                standby = standby.or(Some(found));
            }
            Ok(found) => return Ok(found),
            Err(error) if error.recovery() == Recovery::Stop => return Err(error),
            Err(error) => {
                debug!(%host, %error, "no login");
                failure = failure.or(Some(error));
            }
        }
    }
    standby.ok_or_else(|| failure.expect("there is a host at least"))
}

async fn try_all<T, F: Future<Output = Result<T, PostgresError>>>(
    encryption: &Encryption,
    host: &Host,
    greet: &impl Fn(Socket) -> F,
) -> Result<T, PostgresError> {
    let mut first = None;
    for attempt in encryption.attempts(host) {
        let (failure, is_encrypted) = match dial(encryption, host, *attempt).await {
            Ok(socket) => {
                let is_encrypted = socket.is_encrypted();
                match greet(socket).await {
                    Ok(done) => return Ok(done),
                    Err(failure) => (refused_certificate(host, failure), is_encrypted),
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
        match &failure {
            PostgresError::Tls { .. } => {
                warn!(error = %failure, "going on in the clear, as sslmode=prefer allows");
            }
            _ => debug!(error = %failure, ?attempt, "trying the other way of sslmode"),
        }
        first = Some(failure);
    }
    Err(first.expect("there is a way at least"))
}

/// By TLS 1.3 a server says only after the handshake that it does not take our certificate.
fn refused_certificate(host: &Host, failure: PostgresError) -> PostgresError {
    let PostgresError::Lost { source: Some(source), .. } = &failure else { return failure };
    match super::wire::alert(source) {
        Some(what) => PostgresError::Tls {
            host: host.to_string(),
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

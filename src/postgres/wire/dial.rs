//! From an address to a byte stream, encrypted or not (manual page protocol-flow, SSL session
//! encryption).

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Socket, tls};
use crate::postgres::{
    Encryption, Host, SslNegotiation,
    encryption::Attempt,
    error::{PostgresError, TlsFault},
};

/// What the server says to SSLRequest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Willing,
    Unwilling,
}

/// Connects in one of the ways.
///
/// # Errors
/// `Connect` where the host does not answer, `Tls` where it cannot be encrypted as it must be.
pub(in crate::postgres) async fn dial(
    encryption: &Encryption,
    host: &Host,
    attempt: Attempt,
) -> Result<Socket, PostgresError> {
    let connected = Socket::connect(host).await;
    let mut socket =
        connected.map_err(|source| PostgresError::Connect { host: host.to_string(), source })?;
    if attempt == Attempt::Clear {
        return Ok(socket);
    }
    let fail = |failure: Failed| PostgresError::Tls {
        host: host.to_string(),
        what: failure.what,
        fault: failure.fault,
        source: failure.source,
    };
    // What the settings name is read first: without it there is nothing to ask the server for.
    let session = tls::Session::prepare(encryption, host).map_err(fail)?;
    if encryption.negotiation == SslNegotiation::Postgres {
        match request(&mut socket).await.map_err(fail)? {
            Answer::Willing => {}
            Answer::Unwilling if attempt == Attempt::TlsIfOffered => return Ok(socket),
            Answer::Unwilling => {
                return Err(fail(Failed::new(
                    TlsFault::NotOffered,
                    "the server has no TLS, and sslmode asks for it",
                )));
            }
        }
    }
    socket.secure(session).await.map_err(fail)
}

/// Asks for TLS. Exactly one byte may come: what somebody in between sends in the clear behind it
/// must not be taken for a part of the encrypted session (CVE-2021-23222).
async fn request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<Answer, Failed> {
    let interrupted = |source| Failed {
        what: "the server did not say whether it speaks TLS".to_owned(),
        fault: TlsFault::Interrupted,
        source: Some(source),
    };
    let mut message = BytesMut::new();
    frontend::ssl_request(&mut message);
    stream.write_all(&message).await.map_err(interrupted)?;
    let mut answer = [0; 2];
    let count = stream.read(&mut answer).await.map_err(interrupted)?;
    match (count, answer) {
        (0, _) => Err(interrupted(io::ErrorKind::UnexpectedEof.into())),
        (1, [b'S', _]) => Ok(Answer::Willing),
        (_, [b'S', _]) => Err(Failed::new(
            TlsFault::Handshake,
            "bytes in the clear came behind the server's answer: somebody in between may have put \
             them there",
        )),
        (1, [b'N', _]) => Ok(Answer::Unwilling),
        // It could not even start a process. Its words are not authenticated, and not shown.
        (_, [b'E', _]) => {
            Err(Failed::new(TlsFault::Interrupted, "the server answered with an error"))
        }
        _ => Err(Failed::new(
            TlsFault::Handshake,
            "what answers does not speak PostgreSQL's protocol",
        )),
    }
}

/// Why a connection is not encrypted.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) fault: TlsFault,
    pub(super) what: String,
    pub(super) source: Option<io::Error>,
}

impl Failed {
    pub(super) fn new(fault: TlsFault, what: impl Into<String>) -> Self {
        Self { fault, what: what.into(), source: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(answer: &[u8]) -> Result<Answer, Failed> {
        let (mut client, mut server) = tokio::io::duplex(64);
        server.write_all(answer).await.expect("written");
        drop(server.shutdown().await);
        request(&mut client).await
    }

    #[tokio::test]
    async fn the_server_says_in_one_byte_whether_it_speaks_tls() {
        assert_eq!(asked(b"S").await.expect("an answer"), Answer::Willing);
        assert_eq!(asked(b"N").await.expect("an answer"), Answer::Unwilling);
    }

    #[tokio::test]
    async fn bytes_in_the_clear_behind_the_answer_are_refused() {
        let failed = asked(b"SR\0\0\0\x08\0\0\0\0").await.expect_err("injected");
        assert_eq!(failed.fault, TlsFault::Handshake);
        assert!(failed.what.contains("in the clear"), "{}", failed.what);
    }

    #[tokio::test]
    async fn an_error_and_silence_may_pass() {
        for answer in [&b"E\0\0\0\x05x"[..], b""] {
            let failed = asked(answer).await.expect_err("no answer");
            assert_eq!(failed.fault, TlsFault::Interrupted, "{answer:?}");
            assert!(!failed.what.contains('x'));
        }
        let failed = asked(b"HTTP/1.1 400").await.expect_err("no PostgreSQL");
        assert_eq!(failed.fault, TlsFault::Handshake);
    }
}

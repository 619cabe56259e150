//! What a server sends, byte by byte, over a pipe in memory.

mod authentication;
mod channel;
#[cfg(feature = "tls")]
mod tls;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::tag;

/// `u8 tag │ i32 length, itself included │ body`.
pub(in crate::postgres) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).expect("a short body");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// ErrorResponse or NoticeResponse.
pub(in crate::postgres) fn report(tag: u8, sqlstate: &str, message: &str) -> Vec<u8> {
    frame(tag, format!("SERROR\0VERROR\0C{sqlstate}\0M{message}\0\0").as_bytes())
}

/// ReadyForQuery, outside a transaction block.
pub(in crate::postgres) fn ready() -> Vec<u8> {
    frame(tag::READY_FOR_QUERY, b"I")
}

/// AuthenticationOk and everything up to the first ReadyForQuery.
pub(in crate::postgres) fn welcome() -> Vec<u8> {
    [
        frame(tag::AUTHENTICATION, &0_i32.to_be_bytes()),
        frame(tag::PARAMETER_STATUS, b"server_version\x0015.18\0"),
        frame(tag::BACKEND_KEY_DATA, &[0, 0, 0, 42, 1, 2, 3, 4]),
        ready(),
    ]
    .concat()
}

/// Everything that the client wrote before it closed its end.
async fn written(mut server: DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).await.expect("a pipe in memory");
    bytes
}

/// A pipe whose far end has sent `bytes`.
async fn pipe_with(bytes: &[u8]) -> (DuplexStream, DuplexStream) {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    server.write_all(bytes).await.expect("a pipe in memory");
    (client, server)
}

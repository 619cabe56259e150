//! A build without TLS: there is no session, so nothing is ever encrypted.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::dial::Failed;
use crate::postgres::{Encryption, Host, error::TlsFault};

/// What a handshake begins with.
pub struct Session(Infallible);

impl Session {
    pub(super) fn prepare(_: &Encryption, _: &Host) -> Result<Self, Failed> {
        Err(Failed::new(TlsFault::NotOffered, "this build of Tailwater has no TLS"))
    }

    pub(super) async fn shake_hands(self, _: TcpStream) -> Result<TlsStream, Failed> {
        match self.0 {}
    }
}

/// An encrypted stream.
#[derive(Debug)]
pub struct TlsStream(Infallible);

impl TlsStream {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self.0 {}
    }

    pub(super) fn held_bytes(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        match self.0 {}
    }
}

/// What the peer said by TLS, where it broke the connection off so.
pub fn alert(_: &io::Error) -> Option<String> {
    None
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

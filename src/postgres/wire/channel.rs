//! A connection: frames in, messages out, and the simple query protocol.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    task::{Poll, ready},
};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tracing::{debug, warn};

use super::{
    authentication::Authentication,
    fields::{read_error, read_parameter, read_row},
    frame::{Frame, FrameBuffer},
    tag,
};
use crate::postgres::error::{PostgresError, ServerMessage};

/// A row of a simple query, in text form.
pub type Row = Vec<Option<String>>;

/// What the server says at login.
#[derive(Debug, Default)]
pub struct Session {
    /// ParameterStatus, by name.
    pub parameters: HashMap<String, String>,
    /// The server's process for this connection (BackendKeyData).
    pub process_id: Option<i32>,
}

/// A connection over any byte stream.
#[derive(Debug)]
pub struct Channel<S> {
    stream: S,
    incoming: FrameBuffer,
    outgoing: BytesMut,
    session: Session,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// Says hello and authenticates. `parameters` go into the startup message.
    ///
    /// # Errors
    /// Where the server refuses, asks for what we cannot do, or the connection breaks.
    pub async fn start(
        stream: S,
        parameters: &[(&str, &str)],
        mut authentication: Authentication<'_>,
    ) -> Result<Self, PostgresError> {
        let mut channel = Self {
            stream,
            incoming: FrameBuffer::new(),
            outgoing: BytesMut::new(),
            session: Session::default(),
        };
        let action = "log in";
        frontend::startup_message(parameters.iter().copied(), &mut channel.outgoing)
            .map_err(|error| unsendable(&error))?;
        channel.flush(action).await?;
        loop {
            channel.fill_until_frame(action).await?;
            let Some(frame) = channel.incoming.next_frame().map_err(malformed)? else { continue };
            match frame.tag {
                tag::AUTHENTICATION => {
                    authentication.answer(frame.body, &mut channel.outgoing)?;
                    channel.flush(action).await?;
                }
                // Of it only the process: nothing that is said here is ever cancelled by the key.
                tag::BACKEND_KEY_DATA => {
                    let process_id = frame.body.first_chunk().copied().map(i32::from_be_bytes);
                    channel.session.process_id = process_id;
                }
                tag::READY_FOR_QUERY => return Ok(channel),
                tag::ERROR => return Err(refused(action, read_error(frame.body)?)),
                _ => observe_aside(&mut channel.session, frame, action)?,
            }
        }
    }

    /// What the server said at login.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The byte stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Runs one statement by the simple query protocol.
    ///
    /// # Errors
    /// Where the server refuses it or the connection breaks.
    pub async fn query(&mut self, sql: &str, action: &str) -> Result<Vec<Row>, PostgresError> {
        frontend::query(sql, &mut self.outgoing).map_err(|error| unsendable(&error))?;
        self.flush(action).await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            self.fill_until_frame(action).await?;
            let Some(frame) = self.incoming.next_frame().map_err(malformed)? else { continue };
            match frame.tag {
                tag::ROW_DESCRIPTION | tag::COMMAND_COMPLETE | tag::EMPTY_QUERY => {}
                tag::DATA_ROW => rows.push(read_row(frame.body)?),
                tag::ERROR => failure = Some(refused(action, read_error(frame.body)?)),
                tag::READY_FOR_QUERY => return failure.map_or(Ok(rows), Err),
                _ => observe_aside(&mut self.session, frame, action)?,
            }
        }
    }

    /// Sends a statement that answers with CopyBothResponse.
    ///
    /// # Errors
    /// Where the server refuses it or the connection breaks.
    pub async fn start_copy_both(&mut self, sql: &str, action: &str) -> Result<(), PostgresError> {
        frontend::query(sql, &mut self.outgoing).map_err(|error| unsendable(&error))?;
        self.flush(action).await?;
        loop {
            self.fill_until_frame(action).await?;
            let Some(frame) = self.incoming.next_frame().map_err(malformed)? else { continue };
            match frame.tag {
                tag::COPY_BOTH_RESPONSE => return Ok(()),
                tag::ERROR => return Err(refused(action, read_error(frame.body)?)),
                _ => observe_aside(&mut self.session, frame, action)?,
            }
        }
    }

    /// The next whole frame that is in the buffer already.
    ///
    /// # Errors
    /// Where a length cannot be.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, PostgresError> {
        self.incoming.next_frame().map_err(malformed)
    }

    /// The type of the next frame, as soon as it is known.
    pub fn next_tag(&self) -> Option<u8> {
        self.incoming.next_tag()
    }

    /// Waits for bytes, then takes all that are there, as far as the buffer has room. `false` at
    /// the end of the stream.
    ///
    /// # Cancel safety
    /// What was read is in the buffer; nothing is lost.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn fill(&mut self) -> std::io::Result<usize> {
        let Self { stream, incoming, .. } = self;
        incoming.room();
        let mut total = 0;
        poll_fn(|context| {
            while incoming.has_room() {
                let mut room = ReadBuf::new(incoming.spare());
                match Pin::new(&mut *stream).poll_read(context, &mut room) {
                    Poll::Ready(Ok(())) if room.filled().is_empty() => break,
                    Poll::Ready(Ok(())) => {
                        let count = room.filled().len();
                        incoming.filled(count);
                        total += count;
                    }
                    Poll::Ready(Err(error)) if total == 0 => return Poll::Ready(Err(error)),
                    Poll::Ready(Err(_)) => break,
                    Poll::Pending if total == 0 => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(total))
        })
        .await
    }

    /// Bytes to be sent by [`Channel::flush`].
    pub fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Sends what is to be sent.
    ///
    /// # Cancel safety
    /// What was sent is taken off; the rest is sent by the next call.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn flush(&mut self, action: &str) -> Result<(), PostgresError> {
        let Self { stream, outgoing, .. } = self;
        let sent = poll_fn(|context| {
            while !outgoing.is_empty() {
                let count = ready!(Pin::new(&mut *stream).poll_write(context, outgoing))?;
                if count == 0 {
                    return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
                }
                let _ = outgoing.split_to(count);
            }
            Pin::new(&mut *stream).poll_flush(context)
        });
        sent.await.map_err(|error| lost(action, Some(error)))
    }

    /// Says goodbye and closes.
    pub async fn terminate(mut self) {
        frontend::terminate(&mut self.outgoing);
        if self.flush("say goodbye").await.is_ok() {
            let closed = self.stream.shutdown().await;
            debug!(is_clean = closed.is_ok(), "closed the connection");
        }
    }

    /// Reads until the buffer may hold a whole frame.
    async fn fill_until_frame(&mut self, action: &str) -> Result<(), PostgresError> {
        if self.incoming.has_frame() {
            return Ok(());
        }
        match self.fill().await {
            Ok(0) => Err(lost(action, None)),
            Ok(_) => Ok(()),
            Err(error) => Err(lost(action, Some(error))),
        }
    }
}

/// Messages that may come at any time (manual page protocol-flow, asynchronous operations).
fn observe_aside(
    session: &mut Session,
    frame: Frame<'_>,
    action: &str,
) -> Result<(), PostgresError> {
    match frame.tag {
        tag::PARAMETER_STATUS => {
            let (name, value) = read_parameter(frame.body)?;
            session.parameters.insert(name, value);
        }
        tag::NOTICE => {
            let notice = read_error(frame.body)?;
            warn!(sqlstate = notice.sqlstate, "PostgreSQL says: {}", notice.message);
        }
        tag::NOTIFICATION => {}
        other => {
            let what = format!("a message of type {other:#04x} came while trying to {action}");
            return Err(PostgresError::Protocol { what });
        }
    }
    Ok(())
}

/// The connection broke while doing something.
pub(in crate::postgres) fn lost(action: &str, source: Option<std::io::Error>) -> PostgresError {
    PostgresError::Lost { action: action.to_owned(), source }
}

pub(in crate::postgres) fn refused(action: &str, message: ServerMessage) -> PostgresError {
    PostgresError::Server { action: action.to_owned(), source: Box::new(message) }
}

fn malformed(error: super::frame::FrameError) -> PostgresError {
    PostgresError::Protocol { what: error.to_string() }
}

fn unsendable(error: &std::io::Error) -> PostgresError {
    PostgresError::Protocol { what: format!("a message cannot be sent: {error}") }
}

//! The CopyBoth stream: rows and keepalives in, status updates out.
//!
//! ```text
//! in   'w' XLogData   u64 WAL start │ u64 WAL end │ i64 time │ one pgoutput message
//!      'k' Keepalive  u64 WAL end │ i64 time │ u8 reply requested
//! out  'r' Status     u64 write │ u64 flush │ u64 apply │ i64 time │ u8 reply requested
//! ```
//!
//! Only `flush` moves the slot, and only a [`FlushLsn`] can be sent as such. An XLogData header's
//! positions are never acknowledged: they go backwards between transactions and are 0/0 for
//! Relation messages.

use std::time::Duration;

use bytes::BufMut;
use postgres_protocol::message::frontend;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::pacing::{
    BRIEF_PAUSE, BRIEF_PAUSE_BYTES, BRIEF_PAUSES, HOLD_MAX, HOLD_PERCENT_MAX, NEARLY_FULL_PERCENT,
    PAUSE_MAX, Pacing,
};
use crate::{
    change::PgTimestamp,
    checkpoint::FlushLsn,
    lsn::Lsn,
    postgres::{
        error::PostgresError,
        wire::{Channel, Socket, lost, read_error, refused, tag},
    },
};

/// After listening this long without a byte, although pings were sent, the server counts as gone. A
/// server that decodes what it need not send reads our pings only every half `wal_sender_timeout`,
/// which is pinned to 60 s; one that vanished is found by TCP's own probes within a minute.
const SILENT_MAX: Duration = Duration::from_secs(120);

/// How long a status update may take to leave. The socket's buffer has room for thousands; if it
/// has none, the server does not read any more.
const SEND_MAX: Duration = Duration::from_secs(10);

/// How long the closing handshake may take. The server finishes the transaction that it is sending
/// first, however long; what comes then is read and dropped.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// How often a pause looks at the receive buffer: the timer's own resolution.
const PAUSE_STEP: Duration = Duration::from_millis(1);

/// Bytes of a status update behind the CopyData header.
const STATUS_BYTES: usize = 34;

/// The notice of PostgreSQL 18 that a publication is skipped carries this SQLSTATE
/// (`object_not_in_prerequisite_state`), like many other notices, and these words.
const SKIPPED_SQLSTATE: &str = "55000";
const SKIPPED_WORDS: &str = "skipped loading publication";

/// What the server sends.
#[derive(Debug)]
pub enum StreamMessage<'a> {
    /// One pgoutput message.
    XLogData {
        /// Where it lies in the log; none for Relation and Type.
        wal_start: Option<Lsn>,
        /// The message.
        payload: &'a [u8],
    },
    /// Nothing happened, and everything that did is sent.
    Keepalive {
        /// All commits below were sent.
        wal_end: Option<Lsn>,
        /// The server wants a status update at once.
        reply_requested: bool,
    },
}

/// A stream of changes.
#[derive(Debug)]
pub struct ReplicationStream {
    channel: Channel<Socket>,
    publication: String,
    pacing: Pacing,
    /// How long was listened since the last byte. Time in which nothing is read is none of it: what
    /// the server says then waits in the socket. A server that dies meanwhile is found by the
    /// probes of TCP, and on a unix socket by the next status update.
    silence: Duration,
    pause_until: Option<Instant>,
    hold_until: Option<Instant>,
}

/// Adds the time of its life to a silence: a wait that is cancelled was listening too.
struct Listening<'a> {
    silence: &'a mut Duration,
    since: Instant,
}

impl<'a> Listening<'a> {
    fn new(silence: &'a mut Duration) -> Self {
        Self { silence, since: Instant::now() }
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        *self.silence += self.since.elapsed();
    }
}

impl ReplicationStream {
    pub(super) fn new(channel: Channel<Socket>, publication: String) -> Self {
        let (pacing, silence) = (Pacing::new(), Duration::ZERO);
        Self { channel, publication, pacing, silence, pause_until: None, hold_until: None }
    }

    /// The walsender's process on the server.
    pub fn process_id(&self) -> Option<i32> {
        self.channel.session().process_id
    }

    /// Waits for bytes and takes all that are there, as far as the buffer has room. Under backlog
    /// it pauses first, see `pacing.rs`.
    ///
    /// # Cancel safety
    /// What was read stays in the buffer, and a pause goes on where it was.
    ///
    /// # Errors
    /// Where the connection breaks or the server closes it.
    pub async fn read_chunk(&mut self) -> Result<(), PostgresError> {
        if self.pacing.has_backlog() {
            let socket = self.channel.stream();
            if !socket.has_window() {
                self.pause_briefly();
            } else if socket.is_near() {
                self.pause().await;
            }
        }
        let filled = {
            let _listening = Listening::new(&mut self.silence);
            self.channel.fill().await
        };
        (self.pause_until, self.hold_until) = (None, None);
        match filled {
            Ok(0) => Err(lost("read the replication stream", None)),
            Ok(bytes) => {
                self.silence = Duration::ZERO;
                self.pacing.observe(bytes, Instant::now());
                Ok(())
            }
            Err(error) => Err(lost("read the replication stream", Some(error))),
        }
    }

    /// Waits without reading, and over TCP without being woken by what comes, until that takes too
    /// long or too much waits. Begins anew after each read.
    ///
    /// # Cancel safety
    /// A hold goes on where it was.
    pub async fn hold(&mut self) {
        let until = *self.hold_until.get_or_insert_with(|| Instant::now() + HOLD_MAX);
        let socket = self.channel.stream();
        if socket.has_window() && socket.fullness() > HOLD_PERCENT_MAX {
            return;
        }
        let _hush = socket.hush();
        sleep_until(until).await;
    }

    /// Whether there is something to read at once.
    pub fn has_waiting(&self) -> bool {
        self.channel.stream().waiting_bytes() > 0
    }

    /// Whether bytes come at such a rate that reads are paced.
    pub fn has_backlog(&self) -> bool {
        self.pacing.has_backlog()
    }

    /// Until the window is nearly closed.
    async fn pause(&mut self) {
        let until = *self.pause_until.get_or_insert_with(|| Instant::now() + PAUSE_MAX);
        let socket = self.channel.stream();
        let _hush = socket.hush();
        while Instant::now() < until && socket.fullness() < NEARLY_FULL_PERCENT {
            sleep(PAUSE_STEP).await;
        }
    }

    /// Until a read is worth its while and before the sender sleeps. Blocks the thread for half a
    /// millisecond at most: the runtime's timer is no finer than one.
    fn pause_briefly(&self) {
        for _ in 0..BRIEF_PAUSES {
            if self.channel.stream().waiting_bytes() >= BRIEF_PAUSE_BYTES {
                return;
            }
            std::thread::park_timeout(BRIEF_PAUSE);
        }
    }

    /// The next message that is whole in the buffer; none where more must be read.
    ///
    /// # Errors
    /// Where the server ends the stream or reports an error, or the bytes are no such message.
    pub fn next_message(&mut self) -> Result<Option<StreamMessage<'_>>, PostgresError> {
        // What is not CopyData ends the stream or is passed over.
        while self.channel.next_tag().is_some_and(|tag| tag != tag::COPY_DATA) {
            let Some(frame) = self.channel.next_frame()? else { return Ok(None) };
            aside(frame.tag, frame.body, &self.publication)?;
        }
        match self.channel.next_frame()? {
            Some(frame) => copy_data(frame.body).map(Some),
            None => Ok(None),
        }
    }

    /// How long the server was listened to since its last byte.
    pub fn silent_for(&self) -> Duration {
        self.silence
    }

    /// Sends a status update. `None` is 0/0, which the server takes for no news.
    ///
    /// # Cancel safety
    /// An update that was begun is finished by the next call.
    ///
    /// # Errors
    /// Where the connection breaks, the server does not take the update within 10 s, or it was
    /// silent for too long while it was listened to.
    pub async fn send_status(
        &mut self,
        write: Option<Lsn>,
        flush: Option<FlushLsn>,
        request_reply: bool,
    ) -> Result<(), PostgresError> {
        let action = "send a status update";
        if self.silent_for() > SILENT_MAX {
            return Err(silent(SILENT_MAX));
        }
        let flush = flush.map_or(0, |flush| flush.lsn().to_wire());
        let mut body = Vec::with_capacity(STATUS_BYTES);
        body.put_u8(b'r');
        body.put_u64(write.map_or(0, Lsn::to_wire));
        body.put_u64(flush);
        body.put_u64(flush);
        body.put_i64(PgTimestamp::now().0);
        body.put_u8(u8::from(request_reply));
        let message =
            frontend::CopyData::new(body.as_slice()).map_err(|error| lost(action, Some(error)))?;
        message.write(self.channel.outgoing());
        timeout(SEND_MAX, self.channel.flush(action))
            .await
            .unwrap_or_else(|_| Err(silent(SEND_MAX)))
    }

    /// Ends the stream in good order, for a bounded time: last status, CopyDone, the server's
    /// CopyDone with what it still sends before it, goodbye. Answers the server's own end too.
    pub async fn finish(mut self, write: Option<Lsn>, flush: Option<FlushLsn>) {
        let closing = async {
            self.send_status(write, flush, false).await?;
            frontend::copy_done(self.channel.outgoing());
            self.channel.flush("end the replication stream").await?;
            self.await_copy_done().await
        };
        match timeout(FINISH_MAX, closing).await {
            Ok(Ok(())) => self.channel.terminate().await,
            Ok(Err(error)) => debug!(%error, "the replication stream did not end in good order"),
            Err(_) => debug!("the server did not end the replication stream in time"),
        }
    }

    async fn await_copy_done(&mut self) -> Result<(), PostgresError> {
        loop {
            while let Some(frame) = self.channel.next_frame()? {
                match frame.tag {
                    tag::READY_FOR_QUERY => return Ok(()),
                    tag::ERROR => {
                        return Err(refused("end the stream", read_error(frame.body)?));
                    }
                    _ => {}
                }
            }
            let filled = self.channel.fill().await;
            if filled.map_err(|error| lost("end the stream", Some(error)))? == 0 {
                return Ok(());
            }
        }
    }
}

fn silent(time: Duration) -> PostgresError {
    let action = "follow the replication stream".to_owned();
    PostgresError::Silent { action, seconds: time.as_secs() }
}

/// What may come besides rows and keepalives.
fn aside(tag: u8, body: &[u8], publication: &str) -> Result<(), PostgresError> {
    match tag {
        tag::ERROR => Err(refused("read the replication stream", read_error(body)?)),
        tag::NOTICE => {
            let notice = read_error(body)?;
            if notice.sqlstate == SKIPPED_SQLSTATE && notice.message.contains(SKIPPED_WORDS) {
                let publication = publication.to_owned();
                return Err(PostgresError::PublicationSkipped { publication });
            }
            warn!(sqlstate = notice.sqlstate, "PostgreSQL says: {}", notice.message);
            Ok(())
        }
        tag::PARAMETER_STATUS | tag::NOTIFICATION => Ok(()),
        tag::COPY_DONE | tag::COMMAND_COMPLETE | tag::READY_FOR_QUERY => Err(PostgresError::Ended),
        other => {
            let what = format!("a message of type {other:#04x} came within the stream");
            Err(PostgresError::Protocol { what })
        }
    }
}

fn copy_data(body: &[u8]) -> Result<StreamMessage<'_>, PostgresError> {
    let malformed = || PostgresError::Protocol {
        what: format!("a stream message of {} bytes is none", body.len()),
    };
    let (kind, rest) = body.split_first().ok_or_else(malformed)?;
    match kind {
        b'w' => {
            let (wal_start, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
            let payload = rest.get(16..).ok_or_else(malformed)?;
            let wal_start = Lsn::from_wire(u64::from_be_bytes(*wal_start));
            Ok(StreamMessage::XLogData { wal_start, payload })
        }
        b'k' => {
            let (wal_end, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
            let [_, _, _, _, _, _, _, _, reply] = rest else { return Err(malformed()) };
            let wal_end = Lsn::from_wire(u64::from_be_bytes(*wal_end));
            Ok(StreamMessage::Keepalive { wal_end, reply_requested: *reply != 0 })
        }
        _ => Err(malformed()),
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! A walsender at the far end of a socket pair, and the server behind it.

use std::{cell::RefCell, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{history::History, recording_sink::SharedTopic};
use crate::postgres::replication::scripted::{keepalive, xlog_data};

/// A status update without its CopyData header.
const STATUS_BYTES: usize = 34;

/// How long a walsender pauses now and then: longer than the pauses after which the loop makes an
/// idle checkpoint or asks for a word.
const PAUSE_MAX_MS: u64 = 14_000;

/// What outlives a connection.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) history: History,
    pub(super) confirmed_flush: u64,
    /// The slot as it was last written to disk: where it is after the server crashed.
    pub(super) saved_flush: u64,
    /// How much of the history is in the log already.
    pub(super) written: u64,
    /// When status updates came.
    pub(super) statuses: Vec<Instant>,
    pub(super) random: fastrand::Rng,
    /// The loop asked for a word.
    is_reply_due: bool,
    pub(super) tempo: Tempo,
}

/// How a server's messages follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tempo {
    /// Some at once, some after a long while.
    Random,
    /// At once.
    Hurried,
    /// Each after this long, but for a Begin: that comes with the Commit before it.
    Steady(Duration),
}

pub(super) type SharedServer = Rc<RefCell<Server>>;

impl Server {
    pub(super) fn new(history: History, random: fastrand::Rng) -> SharedServer {
        let start = 0x1000;
        Rc::new(RefCell::new(Self {
            history,
            confirmed_flush: start,
            saved_flush: start,
            written: start,
            statuses: Vec::new(),
            random,
            is_reply_due: false,
            tempo: Tempo::Random,
        }))
    }

    /// What passes before `message` is sent.
    fn pause(&mut self, message: &[u8]) -> Duration {
        match (self.tempo, self.random.u8(0..16)) {
            (Tempo::Random, 0) => Duration::from_millis(self.random.u64(..PAUSE_MAX_MS)),
            (Tempo::Random, 1..=3) => Duration::from_millis(self.random.u64(..400)),
            (Tempo::Random | Tempo::Hurried, _) => Duration::ZERO,
            (Tempo::Steady(_), _) if message.first() == Some(&b'B') => Duration::ZERO,
            (Tempo::Steady(pause), _) => pause,
        }
    }
}

/// Serves one connection until the far end closes it.
pub(super) struct Walsender {
    server: SharedServer,
    topic: SharedTopic,
    asked: Notify,
    /// `sentPtr` of the real one: everything below was decoded.
    sent: RefCell<u64>,
}

impl Walsender {
    pub(super) fn new(server: SharedServer, topic: SharedTopic) -> Self {
        Self { server, topic, asked: Notify::new(), sent: RefCell::new(0) }
    }

    /// Sends and listens.
    pub(super) async fn serve(&self, socket: UnixStream) {
        let (from_client, to_client) = socket.into_split();
        tokio::select! {
            () = self.listen(from_client) => {}
            () = self.send(to_client) => {}
        }
    }

    /// Takes status updates; ends with CopyDone, goodbye or the connection.
    async fn listen(&self, mut socket: OwnedReadHalf) {
        let mut header = [0; 5];
        while socket.read_exact(&mut header).await.is_ok() && header[0] == b'd' {
            let mut status = [0; STATUS_BYTES];
            if socket.read_exact(&mut status).await.is_err() {
                return;
            }
            self.take_status(&status);
        }
    }

    fn take_status(&self, status: &[u8; STATUS_BYTES]) {
        let position =
            |at: usize| u64::from_be_bytes(status[at..at + 8].try_into().expect("eight bytes"));
        let flush = position(9);
        let committed = self.topic.borrow().commit_end_lsn();
        assert!(flush <= committed, "flush {flush:X} is above the checkpoint {committed:X}");
        let mut server = self.server.borrow_mut();
        server.statuses.push(Instant::now());
        server.confirmed_flush = server.confirmed_flush.max(flush);
        if server.random.u8(0..4) == 0 {
            server.saved_flush = server.confirmed_flush;
        }
        if status[STATUS_BYTES - 1] != 0 {
            server.is_reply_due = true;
            self.asked.notify_one();
        }
    }

    /// Decodes from before the slot's position on, and sends what was committed at or above it.
    async fn send(&self, mut socket: OwnedWriteHalf) {
        let start = self.server.borrow().confirmed_flush;
        // As in StartLogicalReplication: the first keepalive speaks of the slot's position, those
        // after it of where decoding is, which begins further back.
        *self.sent.borrow_mut() = start;
        self.keepalive(&mut socket, 3).await;
        *self.sent.borrow_mut() = start.saturating_sub(0x400).max(1);
        let (mut next, mut knows_tables) = (0, false);
        loop {
            let due = {
                let server = self.server.borrow();
                let found = server.history.transactions.get(next);
                found.filter(|transaction| transaction.end_lsn <= server.written).cloned()
            };
            let Some(transaction) = due else {
                self.wait(&mut socket).await;
                continue;
            };
            next += 1;
            if transaction.commit_lsn < start {
                continue;
            }
            self.approach(&mut socket, transaction.commit_lsn).await;
            for (lsn, message) in transaction.messages(&mut knows_tables) {
                let pause = self.server.borrow_mut().pause(&message);
                self.write(&mut socket, &xlog_data(lsn, &message), pause).await;
                self.keepalive(&mut socket, 20).await;
            }
            *self.sent.borrow_mut() = transaction.end_lsn;
            self.keepalive(&mut socket, 4).await;
        }
    }

    /// Decodes what lies before the next commit record, which may take a while.
    async fn approach(&self, socket: &mut OwnedWriteHalf, commit_lsn: u64) {
        for _ in 0..2 {
            let sent = *self.sent.borrow();
            if sent < commit_lsn {
                let further = self.server.borrow_mut().random.u64(sent..=commit_lsn);
                *self.sent.borrow_mut() = further;
            }
            self.keepalive(socket, 3).await;
        }
    }

    /// Everything that was written is sent: says so, and waits for more, or for a question.
    async fn wait(&self, socket: &mut OwnedWriteHalf) {
        {
            let server = self.server.borrow();
            let mut sent = self.sent.borrow_mut();
            *sent = (*sent).max(server.written);
        }
        self.keepalive(socket, 2).await;
        let pause = Duration::from_millis(300) + self.server.borrow_mut().pause(b"");
        let _ = timeout(pause, self.asked.notified()).await;
        let mut server = self.server.borrow_mut();
        let (written, end) = (server.written, server.history.end);
        if written < end {
            let grown = server.random.u64(written..=end.min(written + 0x3000));
            // Records are written whole.
            let inside = server
                .history
                .transactions
                .iter()
                .find(|one| one.commit_lsn < grown && grown < one.end_lsn);
            server.written = inside.map_or(grown, |one| one.end_lsn);
        }
    }

    /// Answers where an answer is due; else now and then says where it is, unasked.
    async fn keepalive(&self, socket: &mut OwnedWriteHalf, one_in: u8) {
        let (is_due, asks) = {
            let mut server = self.server.borrow_mut();
            let is_due = std::mem::take(&mut server.is_reply_due);
            (is_due || server.random.u8(0..one_in) == 0, server.random.u8(0..4) == 0)
        };
        if is_due {
            let sent = *self.sent.borrow();
            let pause = self.server.borrow_mut().pause(b"");
            self.write(socket, &keepalive(sent, u8::from(asks)), pause).await;
        }
    }

    async fn write(&self, socket: &mut OwnedWriteHalf, bytes: &[u8], pause: Duration) {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        // Who hung up hears nothing more; listening ends then.
        let _ = socket.write_all(bytes).await;
    }
}

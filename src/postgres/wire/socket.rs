//! TCP, by TLS or in the clear, or a unix socket, with the options that find a dead peer.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream, lookup_host},
};

use super::{dial::Failed, tls};
use crate::postgres::Host;

/// The receive buffer, of which the system makes twice as much memory. Large enough for 50 MB/s over
/// a round trip of 10 ms; a larger one makes no drain faster, because it closes later.
const RECEIVE_BUFFER_BYTES: usize = 512 << 10;

/// More than a receive buffer holds. The system makes it half of the buffer's memory, and tells
/// readers all the same when the window is about to close.
const NEVER_BYTES: libc::c_int = 1 << 30;

/// Up to this round trip a sender that waits for the window loses nothing: what it queued meanwhile
/// comes at once. Farther away each pause would cost a round trip.
const NEAR_MAX: Duration = Duration::from_millis(2);

/// SO_MEMINFO (asm-generic/socket.h, Linux 4.6), which `libc` does not name, and what is used of its
/// answer: SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_RCVBUF (linux/sock_diag.h).
const SO_MEMINFO: libc::c_int = 55;

/// A peer that vanished is noticed after 30 s of silence and three probes, or at the latest when
/// what we sent stays unacknowledged this long.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection's socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<tls::TlsStream>),
    /// A unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Connects, and sets the options.
    ///
    /// # Errors
    /// Where no address of the host answers.
    pub async fn connect(host: &Host) -> io::Result<Self> {
        match host {
            Host::Unix { folder, port } => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                Ok(Self::Unix(UnixStream::connect(path).await?))
            }
            Host::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in lookup_host((host.as_str(), *port)).await? {
                    match Self::connect_tcp(address).await {
                        Ok(stream) => return Ok(Self::Tcp(stream)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// By TLS from here on. What is no TCP is as it was.
    pub(super) async fn secure(self, session: tls::Session) -> Result<Self, Failed> {
        match self {
            Self::Tcp(stream) => Ok(Self::Tls(Box::new(session.shake_hands(stream).await?))),
            other => Ok(other),
        }
    }

    /// Whether nobody in between can read it.
    pub fn is_encrypted(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }

    /// The data of `tls-server-end-point`, where there is any.
    pub fn end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => stream.end_point(),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    async fn connect_tcp(address: std::net::SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            std::net::SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            std::net::SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        // Before connecting, because the window's scale is agreed upon then.
        let options = SockRef::from(&socket);
        options.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        let stream = socket.connect(address).await?;
        let options = SockRef::from(&stream);
        options.set_tcp_nodelay(true)?;
        options.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
        options.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(Duration::from_secs(30))
                .with_interval(Duration::from_secs(10))
                .with_retries(3),
        )?;
        Ok(stream)
    }

    /// Whether a reader that waits lets a window close, so that the sender only queues. A unix
    /// socket's sender sleeps instead, as soon as some 100 KiB wait.
    pub fn has_window(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Tls(_) => true,
            Self::Unix(_) => false,
        }
    }

    /// Whether the round trip is short (`tcpi_rtt` of TCP_INFO, tcp(7)). True where the system does
    /// not say.
    pub fn is_near(&self) -> bool {
        // SAFETY: a structure of numbers, of which the system fills in what it knows.
        let mut answer: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&answer) as libc::socklen_t;
        // SAFETY: at most `length` bytes are written to `answer`, and the descriptor is open for as
        // long as `self` is.
        let status = unsafe {
            let answer = (&raw mut answer).cast();
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
            libc::getsockopt(self.descriptor(), level, name, answer, &raw mut length)
        };
        status != 0 || Duration::from_micros(answer.tcpi_rtt.into()) <= NEAR_MAX
    }

    /// Bytes that wait for a read: in the receive buffer (FIONREAD), as far as the system says, and
    /// on this side of it, where TLS takes more than it hands out.
    pub fn waiting_bytes(&self) -> usize {
        let held = match self {
            Self::Tls(stream) => stream.held_bytes(),
            Self::Tcp(_) | Self::Unix(_) => 0,
        };
        let mut count: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, and the descriptor is open for as long as `self` is.
        let status = unsafe { libc::ioctl(self.descriptor(), libc::FIONREAD, &raw mut count) };
        held + if status == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
    }

    /// How much of the receive buffer's memory is in use, in percent. This is what closes the window:
    /// how many bytes that is depends on how they came, in many small pieces or in few large ones.
    /// 100 where the system does not say.
    pub fn fullness(&self) -> usize {
        let mut answer = [0_u32; 2];
        let mut length = size_of_val(&answer) as libc::socklen_t;
        // SAFETY: at most `length` bytes are written to `answer`, and the descriptor is open for as
        // long as `self` is.
        let status = unsafe {
            let answer = (&raw mut answer).cast();
            libc::getsockopt(
                self.descriptor(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                answer,
                &raw mut length,
            )
        };
        let [used, size] = answer.map(|bytes| bytes as usize);
        if status == 0 && size > 0 { used * 100 / size } else { 100 }
    }

    /// For as long as the guard lives nobody is woken by what arrives over TCP while the window is
    /// open: without it even a reader that does not wait is, because the runtime hears of every
    /// edge. What came meanwhile is told then.
    pub fn hush(&self) -> Hush<'_> {
        self.set_low_water(NEVER_BYTES);
        Hush(self)
    }

    /// SO_RCVLOWAT (socket(7)), which tells of what waits when it is lowered since Linux 4.18. Where
    /// it is refused, and on a unix socket, nothing changes.
    fn set_low_water(&self, bytes: libc::c_int) {
        let length = size_of_val(&bytes) as libc::socklen_t;
        // SAFETY: the option is an int, and the descriptor is open for as long as `self` is.
        unsafe {
            let value = (&raw const bytes).cast();
            libc::setsockopt(self.descriptor(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, length);
        }
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.tcp().as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

/// See [`Socket::hush`].
#[derive(Debug)]
pub struct Hush<'a>(&'a Socket);

impl Drop for Hush<'_> {
    fn drop(&mut self) {
        self.0.set_low_water(1);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

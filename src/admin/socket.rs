//! The socket's file: where it is, and whose.
//!
//! Whoever makes, replaces or removes it holds a lock on its folder meanwhile, so that of two daemons
//! that find a dead one's file none removes the other's.

use std::{
    env,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net,
        },
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Type};
use tokio::net::UnixListener;

/// `sockaddr_un.sun_path` holds 108 bytes, with a zero byte at their end (manual page unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The owner's alone.
const MODE: u32 = 0o600;

/// How many connections wait to be taken.
const BACKLOG: i32 = 16;

/// The setting `admin.socket`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Socket {
    /// There is none.
    Off,
    /// There.
    At(PathBuf),
    /// In the first folder that will do, under the slot's name.
    OfSlot(String),
}

impl Socket {
    /// Where it may be, the likeliest first. The daemon takes the first one that it can make; who looks
    /// for the daemon tries all, because its user may be another one.
    pub fn places(&self) -> Vec<PathBuf> {
        match self {
            Self::Off => Vec::new(),
            Self::At(path) => vec![path.clone()],
            Self::OfSlot(slot) => {
                let of_user = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
                // SAFETY: geteuid reads a number.
                let user = unsafe { libc::geteuid() };
                let name = format!("tailwater-{slot}.sock");
                // As systemd's RuntimeDirectory=tailwater makes it.
                let folders = of_user.into_iter().chain([PathBuf::from("/run/tailwater")]);
                folders
                    .filter(|folder| folder.is_absolute() && folder.is_dir())
                    .map(|folder| folder.join(&name))
                    .chain([env::temp_dir().join(format!("tailwater-{user}-{slot}.sock"))])
                    .filter(|path| path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX)
                    .collect()
            }
        }
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// Somebody answers there.
    #[error("another process listens on {}", .0.display())]
    Taken(PathBuf),
    /// What is there is not removed.
    #[error("{} is there, and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// Of two daemons the other one is at it.
    #[error("another process makes a socket beside {}", .0.display())]
    Contended(PathBuf),
    /// The system refused.
    #[error("could not listen on {}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// No folder is there that would do.
    #[error(
        "there is no folder for it: XDG_RUNTIME_DIR, /run/tailwater, or one for temporary files"
    )]
    Nowhere,
}

/// A socket's file that is ours.
#[derive(Debug)]
pub(super) struct BoundSocket {
    pub(super) path: PathBuf,
    /// Another daemon may have taken the place of a file that was removed.
    identity: Identity,
}

impl BoundSocket {
    /// Listens at the first place where it can. A place where somebody listens is not passed over: the
    /// commands would find that one.
    pub(super) fn bind(places: &[PathBuf]) -> Result<(Self, UnixListener), SocketError> {
        let mut refused = SocketError::Nowhere;
        for path in places {
            match Self::bind_at(path) {
                Err(error @ SocketError::Io { .. }) => refused = error,
                outcome => return outcome,
            }
        }
        Err(refused)
    }

    fn bind_at(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        let _lock = FolderLock::take(path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => SocketError::Contended(path.to_owned()),
            _ => failed(error),
        })?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NoSocket(path.to_owned()));
            }
            Ok(_) => match is_dead(path) {
                true => fs::remove_file(path).map_err(failed)?,
                false => return Err(SocketError::Taken(path.to_owned())),
            },
        }
        let listener = listen(path).map_err(failed)?;
        let identity = identity(path).map_err(failed)?;
        Ok((Self { path: path.to_owned(), identity }, listener))
    }

    /// Whether the file is still there, and still ours.
    pub(super) fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // Without the lock it may be another daemon's by the time it is removed: then it stays, and is
        // replaced by the next one.
        let lock = FolderLock::take(&self.path);
        if lock.is_ok() && self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Which file it is. The number of one that was removed is soon another's, so when it was made counts
/// too; nobody writes to a socket's file afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    inode: (u64, u64),
    made_at: (i64, i64),
}

fn identity(path: &Path) -> io::Result<Identity> {
    let found = fs::symlink_metadata(path)?;
    let (inode, made_at) = ((found.dev(), found.ino()), (found.mtime(), found.mtime_nsec()));
    Ok(Identity { inode, made_at })
}

/// Nobody listens there any more. Whoever does not let us in, or has no room, lives.
fn is_dead(path: &Path) -> bool {
    let asked = || -> io::Result<()> {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A listener whose backlog is full would be waited for.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    asked().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The file has its mode from the beginning: the kernel gives it the socket's own, less the umask
/// (`unix_bind_bsd`), and so nobody can open it for a moment.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(MODE))?;
    let socket = socket2::Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(net::UnixListener::from(OwnedFd::from(socket)))
}

/// Of daemons that go by the same folder one at a time is here.
struct FolderLock {
    _folder: File,
}

impl FolderLock {
    fn take(path: &Path) -> io::Result<Self> {
        let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
        // SAFETY: the descriptor is open, and the call touches no memory.
        match unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
            0 => Ok(Self { _folder: folder }),
            // Whoever has it is soon done; it is tried again.
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn place() -> (TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sock");
        (folder, vec![path])
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_removed_in_the_end() {
        let (_folder, places) = place();
        let (bound, listener) = BoundSocket::bind(&places).expect("bound");
        let mode = fs::metadata(&places[0]).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        drop(bound);
        assert!(!places[0].exists());
    }

    #[tokio::test]
    async fn a_dead_ones_file_is_replaced_and_a_living_ones_is_not() {
        let (_folder, places) = place();
        let (bound, listener) = BoundSocket::bind(&places).expect("bound");
        let refused = BoundSocket::bind(&places).expect_err("taken");
        assert!(matches!(refused, SocketError::Taken(_)), "{refused}");
        // As kill -9 leaves it.
        drop(listener);
        let (second, listener) = BoundSocket::bind(&places).expect("replaced");
        assert!(!bound.is_there() && second.is_there());
        drop(bound);
        assert!(places[0].exists(), "it is the second one's");
        let full: Vec<_> = (0..=BACKLOG)
            .map_while(|_| {
                let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).ok()?;
                socket.set_nonblocking(true).ok()?;
                socket.connect(&SockAddr::unix(&places[0]).ok()?).ok().map(|()| socket)
            })
            .collect();
        assert!(!full.is_empty());
        assert!(!is_dead(&places[0]), "it has no room, and lives");
        drop(listener);
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let (folder, places) = place();
        fs::write(&places[0], "important").expect("written");
        let refused = BoundSocket::bind(&places).expect_err("no socket");
        assert!(matches!(refused, SocketError::NoSocket(_)), "{refused}");
        assert_eq!(fs::read(&places[0]).expect("there"), b"important");
        // Nothing can be made in a folder that is not there: the next place will do.
        let places = [folder.path().join("nowhere/a.sock"), folder.path().join("b.sock")];
        let (bound, _listener) = BoundSocket::bind(&places).expect("bound");
        assert_eq!(bound.path, places[1]);
    }

    #[test]
    fn the_default_is_named_after_the_slot_and_fits() {
        let places = Socket::OfSlot("s".repeat(63)).places();
        assert!(!places.is_empty());
        for path in places {
            assert!(path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX, "{}", path.display());
            assert!(path.display().to_string().ends_with(&format!("{}.sock", "s".repeat(63))));
        }
    }
}

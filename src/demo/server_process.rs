//! PostgreSQL's programs as processes that never outlive the demo.

use std::{
    env,
    ffi::OsStr,
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{DemoError, account::Account, binaries::Binaries};

/// How a server is asked to end, and how long each is waited for: "fast", which closes sessions
/// and writes all out; "immediate", which only cleans up; and what cannot be refused.
const ENDINGS: [(libc::c_int, Duration); 3] = [
    (libc::SIGINT, Duration::from_secs(5)),
    (libc::SIGQUIT, Duration::from_secs(1)),
    (libc::SIGKILL, Duration::from_secs(1)),
];

/// How long processes of a group may take to be gone that were killed. Where nobody waits for
/// orphans, as in a container without an init, they never are.
const GROUP_END_MAX: Duration = Duration::from_secs(2);

/// Between two looks at a process.
const PAUSE: Duration = Duration::from_millis(10);

/// PostgreSQL's programs, and whom they run as.
#[derive(Debug)]
pub(super) struct Programs {
    binaries: Binaries,
    account: Option<Account>,
}

impl Programs {
    /// Those of this machine.
    pub(super) fn find() -> Result<Self, DemoError> {
        Ok(Self { binaries: Binaries::find()?, account: Account::instead_of_root() })
    }

    /// Whom they run as, where not as ourselves.
    pub(super) fn account(&self) -> Option<Account> {
        self.account
    }

    /// Starts to make a database cluster.
    pub(super) fn initdb(
        &self,
        data: &Path,
        superuser: &str,
        log: File,
    ) -> Result<ServerProcess, DemoError> {
        let mut command = Command::new(self.binaries.program("initdb"));
        command.arg("-D").arg(data).args(["-U", superuser]);
        command.args(["-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]);
        // It would go on for a while after any other signal; its children end with their input.
        end_with_this_thread(&mut command, libc::SIGKILL);
        self.spawn(command, data, log)
    }

    /// Starts the server. It listens on a socket in a private folder and on no port.
    pub(super) fn postgres(
        &self,
        data: &Path,
        socket_folder: &Path,
        port: u16,
        log: File,
    ) -> Result<ServerProcess, DemoError> {
        let mut command = Command::new(self.binaries.program("postgres"));
        command.arg("-D").arg(data).arg("-k").arg(socket_folder);
        command.arg("-p").arg(port.to_string());
        for setting in [
            "listen_addresses=",
            "wal_level=logical",
            "shared_buffers=16MB",
            // In the data directory: a server that is killed leaves nothing elsewhere.
            "dynamic_shared_memory_type=mmap",
            "cluster_name=tailwater-demo",
        ] {
            command.args(["-c", setting]);
        }
        // "Immediate": it ends its processes and frees its shared memory.
        end_with_this_thread(&mut command, libc::SIGQUIT);
        self.spawn(command, data, log)
    }

    fn spawn(
        &self,
        mut command: Command,
        data: &Path,
        log: File,
    ) -> Result<ServerProcess, DemoError> {
        let program = command.get_program().to_owned();
        let failed = |source| DemoError::Server {
            action: format!("run \"{}\"", Path::new(&program).display()),
            source,
        };
        // A shell's PGDATA or PGPORT means another server.
        for (name, _) in env::vars_os().filter(|(name, _)| is_of_postgres(name)) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").current_dir(data.parent().unwrap_or(Path::new("/")));
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        // Ctrl-C on the terminal is for us, who stop the server last.
        command.process_group(0);
        if let Some(Account { user, group }) = self.account {
            command.uid(user).gid(group);
        }
        command.spawn().map(ServerProcess).map_err(failed)
    }
}

fn is_of_postgres(variable: &OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"PG")
}

/// Has the kernel send `signal` when the thread ends that starts the process.
#[cfg(target_os = "linux")]
fn end_with_this_thread(command: &mut Command, signal: libc::c_int) {
    let parent = std::process::id();
    let arrange = move || {
        // SAFETY: both calls are allowed between fork and exec. The change of user, which would
        // undo the first, is done before.
        let (code, found) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, signal), libc::getppid()) };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
        // Whoever died before the call above sends no signal.
        if u32::try_from(found) == Ok(parent) { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(arrange) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_this_thread(_command: &mut Command, _signal: libc::c_int) {}

/// A process, ended when it is dropped.
#[derive(Debug)]
pub(super) struct ServerProcess(Child);

impl ServerProcess {
    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, DemoError> {
        self.0.try_wait().map_err(|source| DemoError::Server {
            action: "watch a process of PostgreSQL".to_owned(),
            source,
        })
    }

    /// Whether it has ended. It is not waited for, so that its id stays its own, and its group's.
    fn has_ended(&self) -> io::Result<bool> {
        // SAFETY: zeros are valid for this plain struct.
        let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: the struct outlives the call.
        let code = unsafe { libc::waitid(libc::P_PID, self.0.id(), &raw mut found, flags) };
        // One that still runs leaves zeros.
        if code == 0 { Ok(found.si_signo != 0) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        let Ok(group) = libc::pid_t::try_from(self.0.id()) else { return };
        // To the group, for initdb has children too; the server's have groups of their own, and end
        // with it.
        // SAFETY: the process is our child and not yet waited for, so its id is still its.
        let tell = |signal| unsafe { libc::kill(-group, signal) };
        for (signal, patience) in ENDINGS {
            tell(signal);
            // What cannot be watched is not ours any more.
            if is_so_within(patience, || !matches!(self.has_ended(), Ok(false))) {
                break;
            }
        }
        if !matches!(self.has_ended(), Ok(true)) {
            return;
        }
        // initdb may go before the programs that it runs.
        tell(libc::SIGKILL);
        drop(self.0.wait());
        // SAFETY: signal 0 does nothing to anybody, whosever the id may be by then.
        is_so_within(GROUP_END_MAX, || unsafe { libc::kill(-group, 0) } != 0);
    }
}

fn is_so_within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::park_timeout(PAUSE);
    }
}

//! Processes that end with the tests, however those end.

use std::{
    fs,
    io::Read,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Child, Command},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::{PATIENCE, wait_until};

type Job = (Command, mpsc::SyncSender<std::io::Result<Child>>);

/// Starts a process that is killed when this one ends, by whatever. The kernel ties that to the
/// *thread* that started it, so one thread that never ends starts them all.
pub fn spawn(mut command: Command) -> Child {
    static STARTER: OnceLock<mpsc::SyncSender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, jobs) = mpsc::sync_channel::<Job>(1);
        thread::spawn(move || {
            for (mut command, answer) in jobs {
                answer.send(command.spawn()).expect("somebody waits for it");
            }
        });
        sender
    });
    // SAFETY: prctl is async-signal-safe and touches no memory of ours.
    unsafe {
        command.process_group(0).pre_exec(|| {
            match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let program = command.get_program().to_owned();
    let (answer, started) = mpsc::sync_channel(1);
    starter.send((command, answer)).expect("the thread never ends");
    let started = started.recv().expect("the thread answers");
    let child =
        started.unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).push(child.id());
    child
}

/// Every process that was started, by its id.
static STARTED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Kills what still runs, at the end of the process.
pub fn kill_all() {
    for pid in STARTED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        signal(pid, libc::SIGKILL);
    }
}

/// The ordinary user whom servers run as where the tests run as root; they refuse root.
#[derive(Clone, Copy)]
pub struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// `postgres` where there is such a user, else nobody; none where we are no root ourselves.
    pub fn of_servers() -> Option<Self> {
        // SAFETY: geteuid reads a number.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let number = |line: &str, field: usize| line.split(':').nth(field)?.parse().ok();
        let postgres = users.lines().find(|line| line.starts_with("postgres:"));
        let found = postgres.and_then(|line| Some((number(line, 2)?, number(line, 3)?)));
        let (user, group) = found.unwrap_or((65534, 65534));
        Some(Self { user, group })
    }

    /// Runs the command as that user.
    pub fn applied(account: Option<Self>, command: &mut Command) {
        if let Some(Self { user, group }) = account {
            command.uid(user).gid(group);
        }
    }

    /// Gives a folder and all in it to that user.
    pub fn give(account: Option<Self>, path: &Path) {
        let Some(Self { user, group }) = account else { return };
        chown(path, Some(user), Some(group)).expect("root may chown");
        if path.is_dir() {
            for entry in fs::read_dir(path).expect("a folder").flatten() {
                Self::give(account, &entry.path());
            }
        }
    }
}

/// What a process says, collected as it comes.
pub struct Words {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Words {
    /// Reads a pipe to its end.
    pub fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let collected = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = pipe.read(&mut buffer) {
                let Some(read) = buffer.get(..length).filter(|read| !read.is_empty()) else {
                    return;
                };
                collected.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(read);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    /// All so far.
    pub fn so_far(&self) -> String {
        // As a whole: a read may end within a character.
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All, the process having ended.
    pub fn until_end(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader ends with the pipe");
        }
        self.so_far()
    }
}

/// Sends a signal to all of a process group that [`spawn`] made.
pub fn signal_group(leader: u32, signal: i32) {
    let leader = i32::try_from(leader).expect("a process id");
    // SAFETY: kill has no memory effects; the group is a child's, or was a moment ago.
    unsafe { libc::kill(-leader, signal) };
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("a process id");
    // SAFETY: kill has no memory effects; the process is a child's, or was a moment ago.
    unsafe { libc::kill(pid, signal) };
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    std::iter::once(pid).chain(children).collect()
}

/// Sends a signal to a process and its children.
pub fn signal_family(pid: u32, number: i32) {
    for member in family(pid) {
        signal(member, number);
    }
}

/// Kills a process and its children, and waits until none is left: what comes after them finds
/// ports and files free.
pub fn kill_family(child: &mut Child) {
    let family = family(child.id());
    for pid in &family {
        signal(*pid, libc::SIGKILL);
    }
    child.wait().expect("a child can be waited for");
    forget(child.id());
    wait_until("a family of processes to be gone", PATIENCE, || family.iter().all(is_over));
}

/// Whether a process is gone, or has only not been waited for by whoever has it now: that may take a
/// second, and such a one holds nothing any more.
fn is_over(pid: &u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // Behind the name, which is in parentheses and may hold any.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The most memory that was resident in a process so far (`VmHWM`), in bytes; 0 where it is gone.
pub fn resident_bytes_peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kibibytes.and_then(|number| number.parse::<u64>().ok()).map_or(0, |number| number * 1024)
}

/// Waits for a child's end.
pub fn wait(child: &mut Child, deadline: Duration) -> Option<i32> {
    let mut status = None;
    wait_until("a process to end", deadline, || {
        status = child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    forget(child.id());
    status.and_then(|status| status.code())
}

/// Its id may be another process's from here on.
fn forget(pid: u32) {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).retain(|started| *started != pid);
}

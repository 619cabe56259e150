//! `tailwater` as its users have it: a process.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{FromRawFd as _, OwnedFd},
    process::{Child, Command, Stdio},
    ptr, thread,
    time::Duration,
};

use super::{
    PATIENCE,
    process::{self, Words},
    settings::SettingsFile,
    wait_until,
};

/// The most that `run` may ever hold in memory.
const RESIDENT_BYTES_MAX: u64 = 64 << 20;

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// None where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// True where the last words name this code, in the form that programs look for.
    pub fn is_code(&self, word: &str) -> bool {
        let lines: Vec<&str> = self.stderr.trim_end().lines().collect();
        matches!(lines.as_slice(), [.., error, hint]
            if error.starts_with("error: ")
                && error.ends_with(&format!(" code={word}"))
                && hint.starts_with("hint: ") && hint.len() > "hint: ".len())
    }
}

fn command(arguments: &[&str], settings: &SettingsFile) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
    command.args(arguments).arg("-c").arg(settings.path());
    // Its socket is no other test's.
    command.env("XDG_RUNTIME_DIR", settings.folder());
    command
}

/// Runs a command to its end.
pub fn run(arguments: &[&str], settings: &SettingsFile) -> Ended {
    let output = command(arguments, settings).output().expect("tailwater starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs a command to its end, whose standard input is a terminal that somebody types into.
pub fn run_on_terminal(arguments: &[&str], settings: &SettingsFile, typed: &str) -> Ended {
    let (mut keyboard, terminal) = terminal();
    keyboard.write_all(typed.as_bytes()).expect("typed");
    let mut command = command(arguments, settings);
    command.stdin(Stdio::from(terminal));
    let output = command.output().expect("tailwater starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs a command to its end, whose standard error is a terminal, and returns what that showed.
pub fn run_on_screen(arguments: &[&str], settings: &SettingsFile) -> (Ended, String) {
    let (screen, terminal) = terminal();
    let mut command = command(arguments, settings);
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(Stdio::from(terminal));
    let child = command.spawn().expect("tailwater starts");
    // Its end of the terminal must be the only one, or the screen never ends.
    drop(command);
    let mut shown = Words::of(screen);
    let output = child.wait_with_output().expect("a child can be waited for");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let ended = Ended { code: output.status.code(), stdout, stderr: String::new() };
    (ended, shown.until_end())
}

/// A terminal: the side that somebody types into, and the side that a program reads.
fn terminal() -> (File, OwnedFd) {
    let (mut keyboard, mut terminal) = (-1, -1);
    let nothing = ptr::null_mut();
    // SAFETY: two descriptors are written, and null asks for no name and says no settings.
    let status = unsafe {
        libc::openpty(&raw mut keyboard, &raw mut terminal, nothing, ptr::null(), ptr::null())
    };
    assert_eq!(status, 0, "a terminal");
    // SAFETY: both were opened just now, and are nobody else's.
    unsafe { (File::from_raw_fd(keyboard), OwnedFd::from_raw_fd(terminal)) }
}

/// `tailwater run`. Killed when dropped.
pub struct Daemon {
    child: Child,
    stderr: Words,
}

impl Daemon {
    /// Starts it.
    pub fn start(settings: &SettingsFile) -> Self {
        Self::start_as("run", settings)
    }

    /// Starts another command, to be signalled meanwhile.
    pub fn start_as(subcommand: &str, settings: &SettingsFile) -> Self {
        Self::start_with(&[subcommand], settings)
    }

    /// Starts a command with its options, to be signalled meanwhile.
    pub fn start_with(arguments: &[&str], settings: &SettingsFile) -> Self {
        Self::start_reading(arguments, settings, Stdio::null())
    }

    /// Starts a command on a terminal, and returns where somebody types.
    pub fn start_on_terminal(arguments: &[&str], settings: &SettingsFile) -> (Self, File) {
        let (keyboard, terminal) = terminal();
        (Self::start_reading(arguments, settings, Stdio::from(terminal)), keyboard)
    }

    fn start_reading(arguments: &[&str], settings: &SettingsFile, stdin: Stdio) -> Self {
        let mut command = command(arguments, settings);
        command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = process::spawn(command);
        let stderr = Words::of(child.stderr.take().expect("a pipe"));
        Self { child, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it said so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits until it says that.
    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("\"{text}\" from tailwater"), PATIENCE, || {
            self.stderr().contains(text)
        });
    }

    /// True while it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        process::signal(self.child.id(), signal);
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Ended {
        self.assert_small();
        process::kill_family(&mut self.child);
        self.ended(None)
    }

    /// `kill -9` of a command, which may have ended by itself.
    pub fn kill_command(mut self) -> Ended {
        if self.is_running() {
            process::kill_family(&mut self.child);
        }
        let code = self.child.wait().ok().and_then(|status| status.code());
        self.ended(code)
    }

    /// `kill -9`, and another one in its place.
    pub fn kill_and_restart(&mut self, settings: &SettingsFile) {
        self.assert_small();
        process::kill_family(&mut self.child);
        *self = Self::start(settings);
    }

    /// Ends it as a service manager does: exit code 0 within 5 s.
    pub fn stop(self) -> Ended {
        self.assert_small();
        self.signal(libc::SIGTERM);
        let ended = self.wait(Duration::from_secs(5));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    }

    /// Waits for its end.
    pub fn wait(mut self, deadline: Duration) -> Ended {
        let code = process::wait(&mut self.child, deadline);
        self.ended(code)
    }

    fn ended(&mut self, code: Option<i32>) -> Ended {
        Ended { code, stdout: String::new(), stderr: self.stderr.until_end() }
    }

    /// It has kept to what it may hold in memory. Asked of each process before its end, for nothing
    /// is left to be asked afterwards.
    fn assert_small(&self) {
        let (bytes, said) = (self.resident_bytes_peak(), self.stderr());
        assert!(bytes > 0, "tailwater ended before it was told to: {said}");
        assert!(bytes <= RESIDENT_BYTES_MAX, "{bytes} bytes were resident: {said}");
    }

    /// The most memory that was resident so far (`VmHWM`), in bytes.
    pub fn resident_bytes_peak(&self) -> u64 {
        process::resident_bytes_peak(self.pid())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = self.child.try_wait().expect("a child can be waited for");
        if ended.is_none() {
            process::kill_family(&mut self.child);
        }
        if thread::panicking() {
            let state =
                ended.map_or("ran until here".to_owned(), |status| format!("ended ({status})"));
            eprintln!("tailwater {state}, and said:\n{}", self.stderr());
        }
    }
}

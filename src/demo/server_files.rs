//! The throwaway PostgreSQL's folder: private, and gone with its owner.

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, chown},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{DemoError, account::Account};

/// The longest path of a socket that every system takes (`sun_path` of macOS), less the length of
/// `/.s.PGSQL.5432`.
const FOLDER_BYTES_MAX: usize = 103 - 14;

/// How often the removal is tried: what outlives a killed server for a moment still writes.
const REMOVALS_MAX: u32 = 20;

/// Between two removals.
const PAUSE: Duration = Duration::from_millis(50);

/// How much of the log an error shows.
const LOG_LINES_SHOWN: usize = 5;

/// A folder that only its owner can enter: whoever can reach the socket in it is a superuser of
/// the database, who may run programs.
#[derive(Debug)]
pub(super) struct ServerFiles {
    folder: PathBuf,
}

impl ServerFiles {
    /// A new folder, owned by `account` where the server runs as another user.
    pub(super) fn create(account: Option<Account>) -> Result<Self, DemoError> {
        let name = format!("tailwater-demo-{:012x}", fastrand::u64(..1 << 48));
        let temporary = env::temp_dir();
        let is_short = temporary.as_os_str().len() + 1 + name.len() <= FOLDER_BYTES_MAX;
        let folder = if is_short { temporary } else { PathBuf::from("/tmp") }.join(name);
        let failed = |source| DemoError::Server {
            action: format!("make the folder \"{}\"", folder.display()),
            source,
        };
        DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let files = Self { folder: folder.clone() };
        if let Some(Account { user, group }) = account {
            chown(&folder, Some(user), Some(group)).map_err(failed)?;
        }
        Ok(files)
    }

    /// The folder, which also holds the socket.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The file that programs write to, opened at its end.
    pub(super) fn log(&self) -> Result<File, DemoError> {
        let path = self.log_path();
        File::options().create(true).append(true).open(&path).map_err(|source| DemoError::Server {
            action: format!("write \"{}\"", path.display()),
            source,
        })
    }

    /// What was written last.
    pub(super) fn last_log_lines(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for ServerFiles {
    fn drop(&mut self) {
        for _ in 0..REMOVALS_MAX {
            match fs::remove_dir_all(&self.folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => thread::park_timeout(PAUSE),
                Ok(()) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn folder_is_private_and_goes_with_its_owner() {
        let files = ServerFiles::create(None).expect("it is created");
        let folder = files.folder().to_owned();
        fs::create_dir(files.data()).expect("a folder in it is created");
        let mode = folder.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(files);
        assert!(!folder.exists());
    }

    #[test]
    fn error_shows_the_last_lines_of_the_log() {
        let files = ServerFiles::create(None).expect("it is created");
        assert_eq!(files.last_log_lines(), "");
        let lines: Vec<_> = (1..=9).map(|number| format!("line {number}")).collect();
        fs::write(files.log_path(), lines.join("\n\n")).expect("it is written");
        assert_eq!(files.last_log_lines(), "line 5\nline 6\nline 7\nline 8\nline 9");
    }
}

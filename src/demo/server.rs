//! The throwaway PostgreSQL: started, kept and ended by one thread.
//!
//! The kernel ends the server with the *thread* that started it (`PR_SET_PDEATHSIG`), so that
//! `kill -9` of the demo leaves no server. That thread therefore has to live as long as the demo,
//! which no thread of a runtime promises.

use std::{
    fs,
    io::{Error, ErrorKind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    DemoError,
    server_files::ServerFiles,
    server_process::{Programs, ServerProcess},
};
use crate::{
    pipeline::Shutdown,
    postgres::{Encryption, Host, Settings},
};

/// The port is a part of the socket's name only, so the usual one does: psql needs no `-p`.
const PORT: u16 = 5432;

/// The role that initdb makes.
const SUPERUSER: &str = "postgres";

/// How long initdb and the start may take each: a second on a laptop.
const START_MAX: Duration = Duration::from_secs(60);

/// Between two looks at a process.
const PAUSE: Duration = Duration::from_millis(10);

/// A running server. Dropping it stops the server and removes its files.
#[derive(Debug)]
pub(super) struct Server {
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server; none where the end was asked for meanwhile.
    pub(super) async fn start(end: &mut Shutdown) -> Result<Option<Self>, DemoError> {
        let programs = Programs::find()?;
        let files = ServerFiles::create(programs.account())?;
        let folder = files.folder().to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let (report, reported) = oneshot::channel();
        let keeper = Keeper { programs, files, stop: Arc::clone(&stop) };
        let keeper = thread::Builder::new()
            .name("demo-postgres".to_owned())
            .spawn(move || keeper.run(report))
            .map_err(|source| DemoError::Server { action: "start a thread".to_owned(), source })?;
        let server = Self { folder, stop, keeper: Some(keeper) };
        let reported = tokio::select! {
            reported = reported => reported.expect("the keeper reports before it ends"),
            () = end.requested() => return Ok(None),
        };
        reported.map(|()| Some(server))
    }

    /// How its database `database` is reached.
    pub(super) fn settings(&self, database: &str, application_name: &str) -> Settings {
        Settings {
            host: Host::Unix { folder: self.folder.clone(), port: PORT },
            other_hosts: Vec::new(),
            user: SUPERUSER.to_owned(),
            password: None,
            database: database.to_owned(),
            application_name: application_name.to_owned(),
            encryption: Encryption::NONE,
        }
    }

    /// The folder of its socket.
    pub(super) fn socket_folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            keeper.thread().unpark();
            // A keeper that panicked has stopped the server while it unwound.
            drop(keeper.join());
        }
    }
}

/// What the thread owns. Fields end in the order in which they stand here: the files last.
struct Keeper {
    programs: Programs,
    files: ServerFiles,
    stop: Arc<AtomicBool>,
}

impl Keeper {
    fn run(self, report: oneshot::Sender<Result<(), DemoError>>) {
        let server = match self.launch() {
            Ok(server) => server,
            Err(error) => {
                drop(self);
                // Nobody listens any more where the end was asked for.
                drop(report.send(Err(error)));
                return;
            }
        };
        drop(report.send(Ok(())));
        while !self.is_stopped() {
            thread::park();
        }
        drop(server);
    }

    fn launch(&self) -> Result<ServerProcess, DemoError> {
        let data = self.files.data();
        let log = self.files.log()?;
        let mut initdb = self.programs.initdb(&data, SUPERUSER, log)?;
        self.wait("make a database cluster", || {
            let Some(status) = initdb.ended()? else { return Ok(false) };
            if status.success() { Ok(true) } else { Err(self.ended("initdb", status.to_string())) }
        })?;
        let log = self.files.log()?;
        let mut server = self.programs.postgres(&data, self.files.folder(), PORT, log)?;
        self.wait("start PostgreSQL", || {
            if let Some(status) = server.ended()? {
                return Err(self.ended("postgres", status.to_string()));
            }
            Ok(is_ready(&data))
        })?;
        Ok(server)
    }

    fn wait(
        &self,
        action: &str,
        mut is_done: impl FnMut() -> Result<bool, DemoError>,
    ) -> Result<(), DemoError> {
        let deadline = Instant::now() + START_MAX;
        let failed =
            |kind| Err(DemoError::Server { action: action.to_owned(), source: Error::from(kind) });
        while !is_done()? {
            if self.is_stopped() {
                return failed(ErrorKind::Interrupted);
            }
            if Instant::now() > deadline {
                return failed(ErrorKind::TimedOut);
            }
            thread::park_timeout(PAUSE);
        }
        Ok(())
    }

    fn ended(&self, program: &'static str, status: String) -> DemoError {
        DemoError::Program { program, status, output: self.files.last_log_lines() }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What pg_ctl looks at: `LOCK_FILE_LINE_PM_STATUS`, the eighth line of `postmaster.pid`.
fn is_ready(data: &Path) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    text.lines().nth(7).is_some_and(|status| status.trim() == "ready")
}

//! A real PostgreSQL.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{
    PATIENCE,
    certificates::Identity,
    cluster, new_folder,
    process::{self, Account},
    target_folder, wait_until,
};

/// A server of its own for a test: folder, port, data. Stopped and removed when dropped.
pub struct Server {
    binaries: PathBuf,
    folder: PathBuf,
    port: u16,
    running: Mutex<Option<Child>>,
}

/// The programs that servers are started from.
pub fn newest_binaries() -> PathBuf {
    binaries(None)
}

/// PostgreSQL's programs: Debian's, the newest first, else what scripts/prepare fetched.
fn binaries(version: Option<u32>) -> PathBuf {
    let installed = Path::new("/usr/lib/postgresql");
    let newest = fs::read_dir(installed)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|found| version.is_none_or(|version| version == *found))
        .max();
    match newest {
        Some(newest) => installed.join(newest.to_string()).join("bin"),
        None => fetched(version),
    }
}

/// What was fetched, where the user whom servers run as may enter: a clone may lie in root's home.
fn fetched(version: Option<u32>) -> PathBuf {
    static COPIES: Mutex<BTreeMap<Option<u32>, PathBuf>> = Mutex::new(BTreeMap::new());
    let name = version.map_or("postgres".to_owned(), |version| format!("postgres-{version}"));
    let fetched = target_folder().join(name);
    assert!(
        fetched.join("bin/initdb").is_file(),
        "no PostgreSQL in {}: run the tests by `make test`, which fetches it",
        fetched.display()
    );
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = copies.entry(version).or_insert_with(|| {
        let folder = new_folder("programs").join("postgres");
        let copied = Command::new("cp").arg("-r").arg(&fetched).arg(&folder).status();
        assert!(copied.expect("cp starts").success(), "cp");
        folder
    });
    copy.join("bin")
}

impl Server {
    /// A server that can do logical replication.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with other settings than those.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_from(binaries(None), settings)
    }

    /// A server of that major version.
    pub fn start_version(version: u32) -> Self {
        Self::start_version_with(version, &[])
    }

    /// A server of that major version with other settings.
    pub fn start_version_with(version: u32, settings: &[(&str, &str)]) -> Self {
        Self::start_from(binaries(Some(version)), settings)
    }

    fn start_from(binaries: PathBuf, settings: &[(&str, &str)]) -> Self {
        let folder = new_folder("pg");
        let port = free_port();
        let server = Self { binaries, folder, port, running: Mutex::new(None) };
        Account::give(Account::of_servers(), &server.folder);
        cluster::make(&server.binaries, &server.data_folder());
        server.configure(settings);
        server.launch();
        server
    }

    /// Has it speak TLS as this one from here on, and trust clients whom `authority` signed.
    pub fn encrypt(&self, identity: &Identity, authority: &Identity) {
        let folder = self.data_folder();
        for path in [
            identity.certificate(&folder.join("server.crt")),
            identity.key(&folder.join("server.key")),
            authority.certificate(&folder.join("root.crt")),
        ] {
            Account::give(Account::of_servers(), &path);
        }
        let session = self.session("postgres");
        for (name, value) in [("ssl", "on"), ("ssl_ca_file", "root.crt")] {
            session.run(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        }
        self.reload();
    }

    /// Has it let people in by these rules alone, the superuser excepted.
    pub fn admit(&self, rules: &str) {
        let rules = format!("local all all trust\nhost all postgres 127.0.0.1/32 trust\n{rules}\n");
        fs::write(self.data_folder().join("pg_hba.conf"), rules).expect("written");
        self.reload();
    }

    /// Has it read its settings again, and waits until who comes is met by them.
    pub fn reload(&self) {
        let loaded = || self.session("postgres").value("SELECT pg_conf_load_time()");
        let before = loaded();
        self.session("postgres").run("SELECT pg_reload_conf()");
        wait_until("the server to read its settings", PATIENCE, || loaded() != before);
    }

    /// Without fsync: processes die here, the machine does not, and what was written stays in its page
    /// cache.
    fn configure(&self, settings: &[(&str, &str)]) {
        let folder = self.folder.display();
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{folder}'\n\
             wal_level = logical\nmax_replication_slots = 10\nmax_wal_senders = 10\n\
             shared_buffers = '64MB'\nmax_connections = 40\nfsync = off\n",
            self.port
        );
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        let path = self.data_folder().join("postgresql.auto.conf");
        fs::write(path, text).expect("write the server's settings");
    }

    fn launch(&self) {
        let log = fs::File::create(self.folder.join("log")).expect("a log");
        let mut postgres = program(&self.binaries, "postgres", &self.data_folder());
        postgres.stdout(Stdio::null()).stderr(log);
        let child = process::spawn(postgres);
        *self.running() = Some(child);
        wait_until("PostgreSQL to answer", PATIENCE, || {
            if let Some(Ok(Some(status))) = self.running().as_mut().map(Child::try_wait) {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("PostgreSQL ended with {status}: {log}");
            }
            Session::open(&self.url("postgres")).is_ok()
        });
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its data.
    pub fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where its unix socket is.
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection for SQL.
    pub fn session(&self, database: &str) -> Session {
        Session::open(&self.url(database)).expect("a connection")
    }

    /// A new database and a connection to it.
    pub fn create_database(&self, name: &str) -> Session {
        self.session("postgres").run(&format!("CREATE DATABASE {name}"));
        self.session(name)
    }

    /// `kill -9` of the server and all its processes.
    pub fn kill(&self) {
        if let Some(mut child) = self.running().take() {
            process::kill_family(&mut child);
        }
    }

    /// Stops it and all its processes as a debugger does, connections and all, until
    /// [`Server::thaw`].
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        if let Some(child) = self.running().as_ref() {
            process::signal_family(child.id(), signal);
        }
    }

    /// Ends it in order, as a restart of the machine would. Waits for replication to end, as
    /// PostgreSQL does.
    pub fn stop(&self) {
        if let Some(mut child) = self.running().take() {
            process::signal(child.id(), libc::SIGINT);
            process::wait(&mut child, PATIENCE);
        }
    }

    /// A copy of its data, as a backup of a stopped server is.
    pub fn copy_data(&self) -> PathBuf {
        let backup = self.folder.join("backup");
        cluster::copy(&self.data_folder(), &backup);
        backup
    }

    /// Puts a backup in the place of its data.
    pub fn restore_data(&self, backup: &Path) {
        fs::remove_dir_all(self.data_folder()).expect("removed");
        cluster::copy(backup, &self.data_folder());
    }

    /// Starts it again on its data and its port.
    pub fn restart(&self) {
        self.kill();
        self.launch();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One of PostgreSQL's programs for a data folder, as the user whom servers run as.
pub fn program(binaries: &Path, name: &str, data: &Path) -> Command {
    let mut command = Command::new(binaries.join(name));
    // What was fetched brings its libraries along.
    command.env("LD_LIBRARY_PATH", binaries.with_file_name("lib"));
    // Not where that user may not look.
    command.current_dir(data.parent().expect("a folder")).arg("-D").arg(data);
    Account::applied(Account::of_servers(), &mut command);
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A connection for SQL, for tests without a runtime of their own.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Session {
    /// Connects.
    pub fn open(url: &str) -> Result<Self, tokio_postgres::Error> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls))?;
        runtime.spawn(connection);
        Ok(Self { runtime, client })
    }

    /// Runs statements, and hands their error to the caller.
    pub fn try_run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(sql))
    }

    /// Runs statements.
    pub fn run(&self, sql: &str) {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// All rows of a query as text, or its error.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        let messages = self.runtime.block_on(self.client.simple_query(sql))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// How many rows each of several statements touched.
    pub fn try_counts(&self, sql: &str) -> Result<Vec<u64>, tokio_postgres::Error> {
        let messages = self.runtime.block_on(self.client.simple_query(sql))?;
        let counts = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::CommandComplete(count) => Some(count),
            _ => None,
        });
        Ok(counts.collect())
    }

    /// All rows of a query as text.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The first value of a query; none for NULL and for no row.
    pub fn value(&self, sql: &str) -> Option<String> {
        self.rows(sql).into_iter().next()?.into_iter().next()?
    }
}

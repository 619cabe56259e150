//! `tailwater demo` as people try it: what it shows, what others can read of it, and that nothing
//! of it stays.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{
    PATIENCE, foreign, new_folder,
    postgres::newest_binaries,
    process::{self, Account, Words},
    wait_until,
};

/// Marks the environment of all that a demo starts.
const MARK: &str = "TAILWATER_TEST_OF_DEMO";

/// A demo in a temporary folder of its own. Killed when dropped.
struct Demo {
    child: Child,
    stdout: Words,
    stderr: Words,
    temporary: PathBuf,
}

/// The user who runs the tests, and an ordinary one where that is root.
fn accounts() -> Vec<Option<Account>> {
    let ordinary = Account::of_servers();
    if ordinary.is_some() { vec![None, ordinary] } else { vec![None] }
}

impl Demo {
    fn start(arguments: &[&str], account: Option<Account>) -> Self {
        let temporary = new_folder("demo");
        Account::give(account, &temporary);
        // Where that user may enter: a clone may lie in root's home.
        let program = new_folder("program").join("tailwater");
        fs::copy(env!("CARGO_BIN_EXE_tailwater"), &program).expect("copied");
        let binaries = newest_binaries();
        let mut command = Command::new(program);
        command.arg("demo").args(arguments).current_dir(&temporary);
        command.env("TMPDIR", &temporary).env(MARK, &temporary);
        command.env("TAILWATER_POSTGRES_BIN", &binaries);
        command.env("LD_LIBRARY_PATH", binaries.with_file_name("lib"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Account::applied(account, &mut command);
        let mut child = process::spawn(command);
        let stdout = Words::of(child.stdout.take().expect("a pipe"));
        let stderr = Words::of(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr, temporary }
    }

    /// Waits for the first event on the screen; PostgreSQL runs by then, and is found.
    fn wait_for_event(&self) {
        let said = || format!("{}{}", self.stdout.so_far(), self.stderr.so_far());
        wait_until("an event", PATIENCE, || {
            assert!(!said().contains("error:"), "{}", said());
            self.stdout.so_far().contains("  order.placed  ")
        });
        let running = self.processes();
        assert!(running.len() > 2, "PostgreSQL is not found among {running:?}");
        assert!(!self.files().is_empty(), "PostgreSQL's files are not where they are looked for");
    }

    /// The demo and all that it started, also what has another parent by now.
    fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.temporary.display());
        let processes = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
        let is_ours = |process: &PathBuf| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            let folder = fs::read_link(process.join("cwd")).unwrap_or_default();
            // PostgreSQL writes its titles over the environment, but lives in its data folder.
            environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
                || folder.starts_with(&self.temporary)
        };
        let told = |process: PathBuf| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            format!("{} {}", process.display(), name.trim_end())
        };
        processes.filter(is_ours).map(told).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.temporary).expect("a folder").flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// It has ended with its summary, and left nothing.
    fn assert_ended_well(mut self) {
        let code = process::wait(&mut self.child, PATIENCE);
        let said = format!("{}{}", self.stdout.until_end(), self.stderr.until_end());
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(self.processes(), [] as [&str; 0], "{said}");
        assert_eq!(self.files(), [] as [&Path; 0], "{said}");
        let summary = said.lines().last().unwrap_or_default();
        let [committed, published] = ["committed ", "published "].map(|name| {
            let (_, rest) = summary.split_once(name).unwrap_or_else(|| panic!("{said}"));
            let number = rest.split(' ').next().and_then(|number| number.parse::<u64>().ok());
            number.unwrap_or_else(|| panic!("{said}"))
        });
        assert!(committed > 0 && committed == published, "{summary}");
        assert!(summary.contains("  lost 0  doubled 0  latency p50 "), "{summary}");
        assert!(summary.contains(" ms  p99 "), "{summary}");
    }

    /// Ctrl-C: the terminal tells all of the group.
    fn interrupt(&self) {
        process::signal_group(self.child.id(), libc::SIGINT);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().expect("a child can be waited for").is_none() {
            process::kill_family(&mut self.child);
        }
    }
}

#[test]
fn a_demo_ends_by_itself_with_its_summary_and_leaves_nothing() {
    for account in accounts() {
        let demo = Demo::start(&["--for", "3s"], account);
        demo.wait_for_event();
        demo.assert_ended_well();
    }
}

#[test]
fn a_demo_is_read_by_kafkajs_and_ends_on_ctrl_c_without_a_trace() {
    let demo = Demo::start(&["--for", "300s"], None);
    demo.wait_for_event();
    let text = demo.stdout.so_far();
    let (_, rest) = text.split_once("kcat -b ").expect("the address is printed");
    let (address, _) = rest.split_once(" -t order.events -C").expect("with its topic");
    let mut events = Vec::new();
    foreign::kafkajs(address, &["order.events"], |record| events.push(record));
    assert!(!events.is_empty());
    let shown = demo.stdout.so_far();
    for event in events {
        let value = event.json();
        assert_eq!(value["id"].as_str(), event.header("event-id"), "{value}");
        let order = std::str::from_utf8(event.key.as_deref().expect("a key")).expect("UTF-8");
        assert!(shown.contains(order), "{order} is not in {shown}");
    }
    demo.interrupt();
    demo.assert_ended_well();
}

#[test]
fn a_demo_that_is_told_to_end_before_it_began_leaves_nothing() {
    for (signal, program) in [(libc::SIGINT, "initdb"), (libc::SIGTERM, "postgres")] {
        let mut demo = Demo::start(&[], None);
        // initdb runs the other one, many times.
        let is_program = |process: &String| process.ends_with(program);
        wait_until("its first programs", PATIENCE, || demo.processes().iter().any(is_program));
        process::signal(demo.child.id(), signal);
        let code = process::wait(&mut demo.child, Duration::from_secs(20));
        let said = format!("{}{}", demo.stdout.until_end(), demo.stderr.until_end());
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(demo.processes(), [] as [&str; 0], "{said}");
        assert_eq!(demo.files(), [] as [&Path; 0], "{said}");
    }
}

/// Its files stay then: there is nobody left to remove them.
#[test]
fn a_demo_that_is_killed_leaves_no_process() {
    for account in accounts() {
        let mut demo = Demo::start(&["--for", "300s"], account);
        demo.wait_for_event();
        process::signal(demo.child.id(), libc::SIGKILL);
        process::wait(&mut demo.child, PATIENCE);
        wait_until("its processes to be gone", Duration::from_secs(10), || {
            demo.processes().is_empty()
        });
    }
}

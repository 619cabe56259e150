//! Real servers for the tests, and what looks at them from outside.

pub mod certificates;
pub mod cluster;
pub mod daemon;
pub mod foreign;
pub mod json_values;
pub mod kafka;
pub mod literals;
pub mod odd_forms;
pub mod oracle;
pub mod postgres;
pub mod prescription;
pub mod process;
pub mod producer_log;
pub mod random_types;
pub mod random_values;
pub mod reader;
pub mod replica_copy;
pub mod replica_source;
pub mod sampler;
pub mod scene;
pub mod settings;
pub mod table_shop;
pub mod truth;
pub mod visibility;
pub mod workload;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// Long enough for anything on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds`, and says what was waited for where it does not in time.
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + deadline;
    while !holds() {
        assert!(Instant::now() < until, "waited {deadline:?} for {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Lets time pass where its length is what is tested: a stall, a random moment. Everything else
/// waits for a condition.
pub fn let_pass(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

/// What scripts/prepare fetched, and what the tests write.
pub fn target_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

static PARENT: OnceLock<PathBuf> = OnceLock::new();

/// Removes what servers left behind that all tests share: nobody drops those.
extern "C" fn remove_parent() {
    process::kill_all();
    if let Some(parent) = PARENT.get() {
        let _ = fs::remove_dir_all(parent);
    }
}

/// A new folder of this process, which any user may enter. Those of processes that died are
/// removed.
pub fn new_folder(purpose: &str) -> PathBuf {
    let parent = PARENT.get_or_init(|| {
        // Short: a unix socket's path has 107 bytes at most.
        // A folder for each user: none may write into another's.
        // SAFETY: geteuid reads a number.
        let user = unsafe { libc::geteuid() };
        let all = std::env::temp_dir().join(format!("tailwater-tests-{user}"));
        for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_alive =
                name.to_str().is_some_and(|process| Path::new("/proc").join(process).exists());
            if !is_alive {
                // Somebody else may be removing it too.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let parent = all.join(std::process::id().to_string());
        fs::create_dir_all(&parent).expect("a folder for this process");
        // SAFETY: the function is there as long as the process is.
        unsafe { libc::atexit(remove_parent) };
        parent
    });
    let folder = parent.join(format!("{purpose}-{:08x}", fastrand::u32(..)));
    fs::create_dir(&folder).expect("a folder");
    folder
}

/// How large the long proofs are: 1 is the size that is promised.
pub fn proof_scale() -> f64 {
    std::env::var("TAILWATER_PROOF_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(0.1)
}

/// A count of a long proof at today's size.
pub fn scaled(full: u64) -> u64 {
    ((full as f64) * proof_scale()).round().max(1.0) as u64
}

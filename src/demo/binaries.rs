//! Where PostgreSQL's programs are.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::DemoError;

/// The environment variable that names the folder.
const BIN_VARIABLE: &str = "TAILWATER_POSTGRES_BIN";

/// Folders that hold one folder per major version, and what follows the version.
const VERSIONED: [(&str, &str); 3] = [
    ("/usr/lib/postgresql", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
];

/// Folders of installations that have no version in their name.
const UNVERSIONED: [&str; 3] = ["/usr/local/pgsql/bin", "/opt/homebrew/bin", "/usr/local/bin"];

/// A folder with PostgreSQL's programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Looks for them: the folder that the environment names, else `PATH`, else where systems
    /// keep them, the newest version first.
    pub(super) fn find() -> Result<Self, DemoError> {
        if let Some(folder) = env::var_os(BIN_VARIABLE).map(PathBuf::from) {
            return Self::within(&folder).ok_or(DemoError::NotPostgres { folder });
        }
        let path = env::var_os("PATH").unwrap_or_default();
        Self::among(&candidates(&path)).ok_or_else(|| DemoError::NoPostgres {
            searched: format!("PATH, {}/*/bin, {}", VERSIONED[0].0, UNVERSIONED.join(", ")),
        })
    }

    /// The path of a program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn among(folders: &[PathBuf]) -> Option<Self> {
        folders.iter().find_map(|folder| Self::within(folder))
    }

    fn within(folder: &Path) -> Option<Self> {
        // Programs are run from another folder than ours.
        let folder = std::path::absolute(folder).ok()?;
        let is_complete = ["initdb", "postgres"].iter().all(|name| is_program(&folder.join(name)));
        is_complete.then_some(Self { folder })
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn candidates(path: &OsStr) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env::split_paths(path).collect();
    for (parent, rest) in VERSIONED {
        folders.extend(newest_first(Path::new(parent)).into_iter().map(|found| found.join(rest)));
    }
    folders.extend(UNVERSIONED.map(PathBuf::from));
    folders
}

/// The folders in `parent` whose names end with a version, such as `17` and `postgresql@17`.
fn newest_first(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = parent.read_dir() else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let name = name.to_str()?;
            let version = name.strip_prefix("postgresql@").unwrap_or(name).parse().ok()?;
            Some((version, parent.join(name)))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn install(folder: &Path, programs: &[&str], mode: u32) {
        fs::create_dir_all(folder).expect("the folder is created");
        for name in programs {
            let program = folder.join(name);
            fs::write(&program, "").expect("the program is written");
            fs::set_permissions(&program, fs::Permissions::from_mode(mode))
                .expect("its mode is set");
        }
    }

    #[test]
    fn folder_needs_both_programs_and_may_run_them() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = ["half", "asleep", "whole"].map(|name| root.path().join(name));
        install(&folders[0], &["postgres"], 0o755);
        install(&folders[1], &["initdb", "postgres"], 0o644);
        install(&folders[2], &["initdb", "postgres"], 0o755);

        let found = Binaries::among(&folders).expect("one is whole");
        assert_eq!(found.program("initdb"), folders[2].join("initdb"));
        assert_eq!(Binaries::among(&folders[..2]), None);
    }

    #[test]
    fn newest_version_comes_first_by_number() {
        let root = tempfile::tempdir().expect("a folder");
        for name in ["9", "17", "postgresql@18", "extensions", "postgresql@x", "16"] {
            fs::create_dir(root.path().join(name)).expect("the folder is created");
        }
        let names: Vec<_> = newest_first(root.path())
            .iter()
            .filter_map(|found| Some(found.file_name()?.to_str()?.to_owned()))
            .collect();
        assert_eq!(names, ["postgresql@18", "17", "16", "9"]);
    }

    #[test]
    fn path_is_looked_at_before_the_usual_places() {
        let folders = candidates(OsStr::new("/one:/two"));
        assert_eq!(folders[..2], [PathBuf::from("/one"), PathBuf::from("/two")]);
        assert!(folders.contains(&PathBuf::from("/usr/local/pgsql/bin")));
    }
}

//! What is delivered beside the program names files that there are.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    fs::read_to_string(package().join(name)).expect("a file of the package")
}

/// What the image's build copies out of its context: each first word of a COPY but the target.
fn copied() -> Vec<String> {
    let dockerfile = text("Dockerfile");
    let lines = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let from_context = lines.filter(|line| !line.starts_with("--from"));
    let words = from_context.flat_map(|line| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.pop();
        words
    });
    words.map(str::to_owned).collect()
}

/// An image is built seldom, and far from here: a file that its context lacks would be found late.
#[test]
fn the_image_is_built_from_files_that_its_context_holds() {
    let copied = copied();
    assert!(copied.contains(&"src".to_owned()), "{copied:?}");
    let ignore = text(".dockerignore");
    let held: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for path in &copied {
        assert!(package().join(path).exists(), "{path} is not there");
        assert!(held.contains(&path.as_str()), "{path} is not in the context");
    }
    let is_copied = |path: &Path| copied.iter().any(|copied| path.starts_with(copied));
    // Cargo looks for all targets that the manifest names, whichever is built.
    let manifest = text("Cargo.toml");
    let targets = manifest.lines().filter_map(|line| line.strip_prefix("path = \""));
    let targets: Vec<&str> = targets.map(|line| line.trim_end_matches('"')).collect();
    assert!(targets.len() >= 3, "{targets:?}");
    for target in targets {
        assert!(is_copied(Path::new(target)), "{target} is named by Cargo.toml");
    }
    for (source, included) in included(&package().join("src")) {
        let within = included.strip_prefix(package()).expect("within the package");
        assert!(is_copied(within), "{} includes {}", source.display(), within.display());
    }
}

/// Files that sources include, with those sources.
fn included(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(included(&path));
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source");
        for macro_call in ["include_str!(\"", "include_bytes!(\""] {
            for rest in text.split(macro_call).skip(1) {
                let name = rest.split('"').next().expect("a name");
                let included = folder.join(name).canonicalize().expect("an included file");
                found.push((path.clone(), included));
            }
        }
    }
    found
}

#[test]
fn the_examples_containers_mount_files_that_there_are() {
    for (example, mounted) in [("outbox", 6), ("domain-tables", 5)] {
        let folder = format!("examples/{example}");
        let compose = text(&format!("{folder}/compose.yaml"));
        let mounts = compose.lines().filter_map(|line| line.trim().strip_prefix("- ./"));
        let secrets = compose.lines().filter_map(|line| line.trim().strip_prefix("file: ./"));
        let named: Vec<&str> =
            mounts.chain(secrets).filter_map(|mount| mount.split(':').next()).collect();
        assert!(named.len() >= mounted, "{named:?}");
        for name in named {
            assert!(package().join(&folder).join(name).exists(), "{example}: {name}");
        }
    }
}

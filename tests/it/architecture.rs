//! Which module may use which: the table of ARCHITECTURE.md, held against the sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Who uses whom. An edge that nobody uses is as wrong as one that is not here.
const EDGES: [(&str, &[&str]); 17] = [
    ("lsn", &[]),
    ("failure", &[]),
    ("change", &["lsn"]),
    ("value", &["change"]),
    ("checkpoint", &["change", "lsn", "sink"]),
    ("postgres", &["change", "checkpoint", "failure", "lsn", "value"]),
    ("event", &["change", "failure", "lsn", "value"]),
    ("encode", &["change", "event", "failure", "lsn", "sink", "value"]),
    ("sink", &["failure", "lsn", "telemetry"]),
    (
        "pipeline",
        &[
            "change",
            "checkpoint",
            "encode",
            "event",
            "failure",
            "lsn",
            "postgres",
            "sink",
            "telemetry",
            "value",
        ],
    ),
    ("demo", &["event", "failure", "pipeline", "postgres", "sink"]),
    ("telemetry", &[]),
    ("admin", &["pipeline", "telemetry"]),
    (
        "config",
        &["admin", "event", "failure", "pipeline", "postgres", "sink", "telemetry", "value"],
    ),
    ("contract", &["event", "sink"]),
    ("cli", &["admin", "config", "contract", "demo", "failure", "pipeline", "telemetry"]),
    ("main", &["cli"]),
];

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A file's text without its tests and without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules of this package that some code names: `crate::a`, `crate::{a, b::c}`, and
/// `tailwater::a` in the program.
fn used(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for prefix in ["crate::", "tailwater::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(list) => modules.extend(first_names(list)),
                None => modules.extend(name(rest)),
            }
        }
    }
    modules
}

fn name(text: &str) -> Option<String> {
    let end = text.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
    let name = &text[..end.unwrap_or(text.len())];
    (!name.is_empty()).then(|| name.to_owned())
}

/// The first name of each item of a list in braces, the inner lists left out.
fn first_names(list: &str) -> Vec<String> {
    let (mut names, mut depth, mut is_first) = (Vec::new(), 0, true);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_first = true,
            _ if is_first && !letter.is_whitespace() => {
                names.extend(name(&list[at..]));
                is_first = false;
            }
            _ => {}
        }
    }
    names
}

fn edges_of_sources() -> BTreeMap<String, BTreeSet<String>> {
    let root = package().join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files {
        let inside = path.strip_prefix(&root).expect("below src");
        let first = inside.components().next().expect("a name").as_os_str();
        let module = first.to_str().expect("UTF-8").trim_end_matches(".rs").to_owned();
        // A file of tests uses what it likes.
        let is_test = inside.components().any(|part| {
            part.as_os_str().to_str().is_some_and(|part| part.trim_end_matches(".rs") == "tests")
        });
        if module == "lib" || is_test {
            continue;
        }
        let mut others = used(&code(&path));
        others.remove(&module);
        edges.entry(module).or_default().extend(others);
    }
    edges
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let allowed: BTreeMap<String, BTreeSet<String>> = EDGES
        .iter()
        .map(|(module, others)| {
            ((*module).to_owned(), others.iter().map(|other| (*other).to_owned()).collect())
        })
        .collect();
    assert_eq!(edges_of_sources(), allowed);
}

#[test]
fn the_table_of_architecture_md_is_the_one_that_is_tested() {
    let path = package().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).expect("ARCHITECTURE.md");
    let (before, rest) = text.split_once("<!-- edges -->\n").expect("a mark");
    let (found, after) = rest.split_once("<!-- /edges -->").expect("a mark");
    let mut table = String::from("| module | uses |\n|---|---|\n");
    for (module, others) in EDGES {
        let others = if others.is_empty() { "nothing".to_owned() } else { others.join(", ") };
        table.push_str(&format!("| {module} | {others} |\n"));
    }
    if std::env::var_os("TAILWATER_WRITE_SCHEMAS").is_some() {
        let text = format!("{before}<!-- edges -->\n{table}<!-- /edges -->{after}");
        fs::write(path, text).expect("write ARCHITECTURE.md");
    } else {
        assert!(found == table, "run this test with TAILWATER_WRITE_SCHEMAS=1");
    }
}

/// Nobody but the start and the stream's owner acknowledges, and nobody makes a position to do it
/// with but the tracker.
#[test]
fn only_the_tracker_makes_a_flush_position() {
    let mut files = Vec::new();
    sources(&package().join("src"), &mut files);
    for path in files {
        let makes = code(&path).contains("FlushLsn(");
        assert!(!makes || path.ends_with("checkpoint/tracker.rs"), "{}", path.display());
    }
}

/// Every code that an error can carry is explained, and nothing else is.
#[test]
fn every_code_is_explained_in_errors_md() {
    let text = fs::read_to_string(package().join("docs/errors.md")).expect("docs/errors.md");
    let explained: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')).collect();
    let codes: Vec<&str> = tailwater::failure::Code::ALL.iter().map(|code| code.word()).collect();
    assert_eq!(explained, codes);
}

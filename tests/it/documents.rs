//! The documents lead where they say.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_ours = !["target", "node_modules", ".git"].iter().any(|other| name == *other);
        if path.is_dir() && is_ours {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Where a document's links lead, those within it and to other places left out.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with('#')).collect()
}

#[test]
fn every_link_of_the_documents_leads_to_a_file() {
    let (mut all, mut lost) = (Vec::new(), Vec::new());
    documents(package(), &mut all);
    for document in &all {
        let text = fs::read_to_string(document).expect("a document");
        let folder = document.parent().expect("a folder");
        for link in links(&text) {
            let file = link.split('#').next().unwrap_or_default();
            if !folder.join(file).exists() {
                lost.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(all.len() > 10, "{all:?}");
    assert!(lost.is_empty(), "{lost:#?}");
}

/// The word that commands alone end with.
const OF_COMMANDS: &str = "snapshot_refused";

/// Each word that a daemon stops with is sorted there, and no other: an operator looks it up. One
/// with which no daemon ever stops would be left out here.
#[test]
fn operations_md_sorts_every_word_that_a_daemon_stops_with() {
    let text = fs::read_to_string(package().join("docs/operations.md")).expect("a document");
    let (_, table) = text.split_once("| words |").expect("the table of words");
    let table = table.split("\n\n").next().unwrap_or_default();
    let first_cells = table.lines().skip(2).filter_map(|row| row.split('|').nth(1));
    let named: BTreeSet<&str> =
        first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let words = tailwater::failure::Code::ALL.iter().map(|code| code.word());
    let words: BTreeSet<&str> = words.filter(|word| *word != OF_COMMANDS).collect();
    assert_eq!(named, words);
}

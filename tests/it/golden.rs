//! What real servers of each version sent, and what it means (`scripts/capture-pgoutput`).

use std::{fmt::Write, fs, path::Path};

use tailwater::{
    change::{OldTuple, Relation, RowChange, Tuple, TupleValue},
    lsn::Lsn,
    postgres::{
        pgoutput::Decoder,
        transaction::{Change, Step, TransactionReader},
    },
};

fn line(step: &Step<'_>) -> String {
    match step {
        Step::Begin(transaction) => format!(
            "begin {} of {} at {} ms",
            transaction.xid,
            transaction.commit_lsn,
            transaction.committed_at.unix_milliseconds()
        ),
        Step::Commit { end_lsn } => format!("commit, end {end_lsn}"),
        Step::Relation(relation) => describe(relation),
        Step::Change { place, change } => {
            let (kind, relation) = (change.kind(), change.relation());
            let relation = relation.map_or("-".to_owned(), |relation| relation.to_string());
            format!("  {} {kind:?} {relation}{}", place.ordinal, rows(change))
        }
        Step::NonTransactionalMessage { .. } => "message outside of transactions".to_owned(),
        Step::Nothing => "nothing to act upon".to_owned(),
    }
}

fn describe(relation: &Relation) -> String {
    let mut text = format!(
        "relation {} {}.{} {:?}",
        relation.id, relation.schema, relation.name, relation.replica_identity
    );
    for column in &relation.columns {
        let key = if column.is_replica_identity { " key" } else { "" };
        let _ = write!(text, ", {} type {}{key}", column.name, column.type_oid);
    }
    text
}

fn rows(change: &Change<'_>) -> String {
    let old_row = |old: &OldTuple<'_>| match old {
        OldTuple::Key(tuple) => format!(" key {}", row(*tuple)),
        OldTuple::Full(tuple) => format!(" old {}", row(*tuple)),
    };
    match change {
        Change::Row { change: RowChange::Insert { new }, .. } => format!(" new {}", row(*new)),
        Change::Row { change: RowChange::Update { old, new }, .. } => {
            format!("{} new {}", old.as_ref().map_or(String::new(), old_row), row(*new))
        }
        Change::Row { change: RowChange::Delete { old }, .. } => old_row(old),
        Change::Truncate { .. } => String::new(),
        Change::Message { prefix, content, .. } => {
            format!(" {prefix:?} {:?}", String::from_utf8_lossy(content))
        }
    }
}

fn row(tuple: Tuple<'_>) -> String {
    let values: Vec<String> = tuple
        .iter()
        .map(|value| match value {
            TupleValue::Null => "NULL".to_owned(),
            TupleValue::UnchangedToast => "unchanged".to_owned(),
            TupleValue::Text(text) if text.len() > 100 => format!("{} bytes", text.len()),
            TupleValue::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        })
        .collect();
    format!("({})", values.join(", "))
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
    pairs.map(|pair| byte(pair).expect("hexadecimal digits")).collect()
}

/// The expected texts are written anew with TAILWATER_WRITE_GOLDEN=1, to be read before they are
/// committed.
#[test]
fn captures_of_all_server_versions_mean_what_they_meant() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for version in 14..=18 {
        let capture = fs::read_to_string(folder.join(format!("pgoutput-{version}.hex")));
        let capture = capture.expect("a capture");
        let (mut decoder, mut reader) = (Decoder::new(), TransactionReader::new());
        let mut text = String::new();
        for digits in capture.lines().filter(|line| !line.starts_with('#')) {
            let frame = bytes(digits);
            let message = decoder.decode(&frame).expect("a message");
            let step = reader.accept(Lsn::from_wire(1), message).expect("in its place");
            let _ = writeln!(text, "{}", line(&step));
        }
        let path = folder.join(format!("pgoutput-{version}.txt"));
        if std::env::var_os("TAILWATER_WRITE_GOLDEN").is_some() {
            fs::write(&path, &text).expect("written");
        }
        let expected = fs::read_to_string(&path).expect("the expected text");
        assert!(text == expected, "PostgreSQL {version}:\n{text}");
    }
}

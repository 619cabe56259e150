//! A doctor's report, for people and for programs.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, stdout},
};

use crate::pipeline::check::{Finding, Verdict};

/// The words before each line, with their colours on a terminal (ECMA-48, SGR).
fn mark(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Fine => ("ok", "32"),
        Verdict::Note => ("note", "33"),
        Verdict::Wrong(_) => ("MEND", "31"),
    }
}

/// One line a finding, its fix below it where it is to be mended, and what it comes to.
pub(super) fn in_words(findings: &[Finding]) -> String {
    write(findings, stdout().is_terminal())
}

fn write(findings: &[Finding], has_colours: bool) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for finding in findings {
        let (word, colour) = mark(finding.verdict);
        let word = match has_colours {
            true => format!("\u{1b}[{colour}m{word:<4}\u{1b}[0m"),
            false => format!("{word:<4}"),
        };
        let _ = writeln!(text, "{word}  {:<width$}  {}", finding.name, finding.detail);
        if let Some(fix) = &finding.fix {
            let _ = writeln!(text, "{:width$}        fix: {fix}", "");
        }
    }
    let count = |is_counted: fn(&Finding) -> bool| {
        findings.iter().filter(|finding| is_counted(finding)).count()
    };
    let wrong = count(|finding| !finding.is_ok());
    let notes = count(|finding| finding.verdict == Verdict::Note);
    let _ = writeln!(text, "{} checks: {wrong} to mend, {notes} to know of", findings.len());
    text
}

/// An array, and nothing else.
pub(super) fn as_json(findings: &[Finding]) -> String {
    serde_json::to_string(findings).expect("texts always encode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_aligned_and_has_a_fix_below_what_is_to_be_mended() {
        let finding = |verdict, name, fix: Option<&str>| Finding {
            verdict,
            name,
            detail: "so it is".to_owned(),
            fix: fix.map(str::to_owned),
        };
        let findings = [
            finding(Verdict::Fine, "wal_level", None),
            finding(Verdict::Wrong(None), "slot", Some("MEND IT;")),
            finding(Verdict::Note, "kafka", None),
        ];
        assert_eq!(
            write(&findings, false),
            "ok    wal_level  so it is\n\
             MEND  slot       so it is\n                 fix: MEND IT;\n\
             note  kafka      so it is\n\
             3 checks: 1 to mend, 1 to know of\n"
        );
        assert!(write(&findings, true).contains("\u{1b}[31mMEND\u{1b}[0m  slot"));
    }
}

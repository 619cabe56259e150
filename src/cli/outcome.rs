//! How a command ends: its exit code and the last two lines on standard error.

use std::{
    io::{ErrorKind, Write as _, stdout},
    process::ExitCode,
};

use crate::{
    failure::{Code, Failure},
    pipeline::chain,
};

/// Stopped on an error.
const FAILED: u8 = 1;

/// Usage or settings.
const MISUSED: u8 = 2;

/// Prints why it ended. The last two lines are plain text whatever the log's format, so that they
/// can be read by people and found by programs.
pub(super) fn report(failure: &dyn Failure) -> ExitCode {
    let word = failure.code().map_or(String::new(), |code| format!(" code={code}"));
    let hint = failure.hint().unwrap_or_else(|| "Try again; what is committed is kept.".to_owned());
    say(&format!("{}{word}", one_line(&chain(failure))), &one_line(&hint));
    ExitCode::from(if failure.code() == Some(Code::Settings) { MISUSED } else { FAILED })
}

/// Writes a whole report. Whoever reads it may have seen enough.
///
/// # Panics
/// Where standard output cannot be written for another reason, such as a full disk.
pub(super) fn print(report: &str) {
    match stdout().write_all(report.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.expect("standard output can be written"),
    }
}

/// The last two lines.
pub(super) fn say(error: &str, hint: &str) {
    eprintln!("error: {error}");
    eprintln!("hint: {hint}");
}

/// Servers' messages may have several lines.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

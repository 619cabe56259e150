//! Rows as `COPY … TO STDOUT` writes them in its text format (manual page sql-copy, "Text Format").

use std::{future::poll_fn, pin::Pin};

use futures_core::Stream as _;
use memchr::memchr2;
use tokio_postgres::{CopyOutStream, ToStatement};

use crate::{
    change::ValueSlot,
    postgres::{PostgresError, sql::Sql},
};

/// The lines of a COPY on their way.
pub(super) struct Lines {
    stream: Pin<Box<CopyOutStream>>,
    action: String,
}

impl Lines {
    /// Begins it.
    ///
    /// # Errors
    /// Where the server refuses, or the connection breaks.
    pub(super) async fn of(
        sql: &Sql,
        action: String,
        statement: &(impl ToStatement + ?Sized),
    ) -> Result<Self, PostgresError> {
        let stream = Box::pin(sql.copy_out(&action, statement).await?);
        Ok(Self { stream, action })
    }

    /// The next line; none behind the last.
    ///
    /// # Cancel safety
    /// A line is returned once or stays queued.
    ///
    /// # Errors
    /// Where the server refuses, or the connection breaks.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>, PostgresError> {
        let next = poll_fn(|context| self.stream.as_mut().poll_next(context)).await;
        next.transpose().map_err(|error| PostgresError::from_sql(&self.action, error))
    }
}

/// Appends the values of one line to `frame`, and their places to `slots`.
///
/// # Errors
/// Where it is no line of so many columns.
pub(super) fn read_line(
    line: &[u8],
    columns: usize,
    frame: &mut Vec<u8>,
    slots: &mut Vec<ValueSlot>,
) -> Result<(), PostgresError> {
    let Some(mut rest) = line.strip_suffix(b"\n") else { return Err(unreadable("a line's end")) };
    let (mut count, mut is_last) = (0, false);
    while !is_last {
        count += 1;
        if let Some(behind) = behind_null(rest) {
            slots.push(ValueSlot::Null);
            match behind {
                [] => is_last = true,
                [_, behind @ ..] => rest = behind,
            }
            continue;
        }
        let start = frame.len();
        // A tab within a value is written as `\t`.
        loop {
            let at = memchr2(b'\t', b'\\', rest);
            let (plain, from) = rest.split_at(at.unwrap_or(rest.len()));
            frame.extend_from_slice(plain);
            match from {
                [] => {
                    is_last = true;
                    break;
                }
                [b'\t', behind @ ..] => {
                    rest = behind;
                    break;
                }
                [_, escaped, behind @ ..] => {
                    frame.push(unescaped(*escaped));
                    rest = behind;
                }
                [_] => return Err(unreadable("a character behind a backslash")),
            }
        }
        slots.push(ValueSlot::Text { start: place(start)?, length: place(frame.len() - start)? });
    }
    if count == columns { Ok(()) } else { Err(unreadable("as many values as columns")) }
}

/// What follows a value that is NULL; none where it is another one.
fn behind_null(rest: &[u8]) -> Option<&[u8]> {
    let behind = rest.strip_prefix(b"\\N")?;
    matches!(behind, [] | [b'\t', ..]).then_some(behind)
}

/// What a character behind a backslash stands for.
fn unescaped(escaped: u8) -> u8 {
    match escaped {
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0B,
        other => other,
    }
}

fn place(bytes: usize) -> Result<u32, PostgresError> {
    u32::try_from(bytes).map_err(|_| unreadable("rows of less than 4 GiB"))
}

fn unreadable(expected: &str) -> PostgresError {
    PostgresError::Protocol { what: format!("a row of COPY has not {expected}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Tuple, TupleValue};

    fn read(line: &[u8], columns: usize) -> Option<Vec<Option<Vec<u8>>>> {
        let (mut frame, mut slots) = (b"before".to_vec(), Vec::new());
        read_line(line, columns, &mut frame, &mut slots).ok()?;
        let values = Tuple::new(&frame, &slots);
        let value = |value| match value {
            TupleValue::Text(text) => Some(text.to_vec()),
            TupleValue::Null | TupleValue::UnchangedToast => None,
        };
        Some(values.iter().map(value).collect())
    }

    fn text(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn nulls_empty_texts_and_backslashes_are_told_apart() {
        let values = read(b"1\t\\N\t\tN\t\\\\N\n", 5).expect("a row");
        assert_eq!(values, [text("1"), None, text(""), text("N"), text("\\N")]);
    }

    #[test]
    fn every_escape_is_the_character_that_it_stands_for() {
        let values = read("a\\tb\\nc\\rd\\\\e\\b\\f\\v\tü\n".as_bytes(), 2).expect("a row");
        assert_eq!(values, [text("a\tb\nc\rd\\e\u{8}\u{c}\u{b}"), text("ü")]);
    }

    #[test]
    fn what_is_no_whole_row_is_refused() {
        for (line, columns) in [(&b"1\t2"[..], 2), (b"1\t2\n", 3), (b"1\t2\n", 1), (b"1\\\n", 1)] {
            assert_eq!(read(line, columns), None, "{line:?}");
        }
    }
}

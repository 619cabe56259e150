//! The record of what could not be an event.

use crate::value::string;
use crate::{
    change::TupleValue,
    event::{
        Raw, Unmapped,
        table::{Held, RowView},
    },
    sink::FailureStage,
};

/// A dead letter, complete.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// What could not be an event.
    pub unmapped: Unmapped<'a>,
    /// Where the dead letter goes.
    pub topic: &'a str,
    /// At which step it failed.
    pub stage: FailureStage,
    /// Why.
    pub reason: &'a str,
    /// The request that what could not be an event is a row for, as events have it: their
    /// `correlation-id`.
    pub request: Option<&'a str>,
}

/// More than the least that its value takes, in bytes.
pub(super) fn bytes(unmapped: &Unmapped<'_>) -> usize {
    let raw = match unmapped.raw {
        Raw::Row { tuple, .. } => tuple
            .iter()
            .map(|value| match value {
                TupleValue::Text(text) => text.len(),
                TupleValue::Null | TupleValue::UnchangedToast => 0,
            })
            .sum(),
        Raw::Change { old, new, .. } => {
            [old, new].into_iter().flatten().map(|row| row.text_bytes()).sum()
        }
        Raw::Message { content, .. } => content.len(),
    };
    unmapped.key.map_or(0, <[u8]>::len) + raw
}

/// Appends the raw row or message: an object of texts.
pub(super) fn write_value(target: &mut Vec<u8>, raw: &Raw<'_>) {
    target.push(b'{');
    match raw {
        Raw::Row { columns, tuple, .. } => {
            let mut separator: &[u8] = b"";
            for (name, value) in columns.iter().zip(tuple.iter()) {
                let text = match value {
                    TupleValue::Text(text) => Some(text),
                    TupleValue::Null => None,
                    // An INSERT carries every value.
                    TupleValue::UnchangedToast => continue,
                };
                target.extend_from_slice(separator);
                separator = b",";
                string::write(target, name);
                target.push(b':');
                match text {
                    Some(text) => write_text(target, text),
                    None => target.extend_from_slice(b"null"),
                }
            }
        }
        Raw::Change { old, new, .. } => {
            target.extend_from_slice(b"\"old\":");
            write_row(target, *old);
            target.extend_from_slice(b",\"new\":");
            write_row(target, *new);
        }
        Raw::Message { prefix, content } => {
            target.extend_from_slice(b"\"prefix\":");
            string::write(target, prefix);
            target.extend_from_slice(b",\"content\":");
            write_text(target, content);
        }
    }
    target.push(b'}');
}

/// A row of texts, as far as events show them: what is hidden there is hidden here.
fn write_row(target: &mut Vec<u8>, row: Option<RowView<'_>>) {
    let Some(row) = row else { return target.extend_from_slice(b"null") };
    target.push(b'{');
    let mut separator: &[u8] = b"";
    for (column, held) in row.shown() {
        let text = match held {
            Held::Text(text) => Some(text),
            Held::Null => None,
            Held::Unavailable | Held::NotSent => continue,
        };
        target.extend_from_slice(separator);
        separator = b",";
        target.extend_from_slice(column.label());
        match (text, column.is_plain()) {
            (Some(text), true) => write_text(target, text),
            (Some(text), false) => column.write_masked(text, target),
            (None, _) => target.extend_from_slice(b"null"),
        }
    }
    target.push(b'}');
}

/// A text; bytes that are none as `{"hex": "…"}`, so that nothing of them is lost.
fn write_text(target: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => string::write(target, text),
        Err(_) => {
            target.extend_from_slice(b"{\"hex\":\"");
            target.extend(bytes.iter().copied().flat_map(string::hexadecimal));
            target.extend_from_slice(b"\"}");
        }
    }
}

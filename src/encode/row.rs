//! A row of a domain table as JSON.

use crate::{
    event::{
        Reason,
        table::{ColumnView, Held, RowView},
    },
    value::{Written, string},
};

/// What was written of a row.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    /// In which forms.
    pub(super) written: Written,
    /// Values of it are not there.
    pub(super) is_short: bool,
}

/// Appends the row as an object; columns that the server did not send are left out.
pub(super) fn write(target: &mut Vec<u8>, row: RowView<'_>) -> Result<Outcome, Reason> {
    let (mut written, mut is_short) = (Written::AsDescribed, false);
    let mut separator = b'{';
    for (column, held) in row.shown() {
        let value = match held {
            Held::Null => None,
            Held::Text(text) => Some(text),
            Held::Unavailable => {
                is_short = true;
                continue;
            }
            Held::NotSent => continue,
        };
        target.push(separator);
        separator = b',';
        target.extend_from_slice(column.label());
        match value {
            Some(text) => written = written.and(column.write(text, target)?),
            None => target.extend_from_slice(b"null"),
        }
    }
    if separator == b'{' {
        target.push(b'{');
    }
    target.push(b'}');
    Ok(Outcome { written, is_short })
}

/// Appends `{before, after, changed}`.
pub(super) fn write_change(
    target: &mut Vec<u8>,
    before: Option<RowView<'_>>,
    after: Option<RowView<'_>>,
) -> Result<Outcome, Reason> {
    let (mut written, mut is_short) = (Written::AsDescribed, false);
    for (name, row) in [("{\"before\":", before), (",\"after\":", after)] {
        target.extend_from_slice(name.as_bytes());
        match row {
            Some(row) => {
                let outcome = write(target, row)?;
                written = written.and(outcome.written);
                is_short |= outcome.is_short;
            }
            None => target.extend_from_slice(b"null"),
        }
    }
    if let (Some(before), Some(after)) = (before.filter(RowView::is_whole), after) {
        target.extend_from_slice(b",\"changed\":");
        write_names(target, after.changed_since(before));
    }
    target.push(b'}');
    Ok(Outcome { written, is_short })
}

/// Appends the member `unavailable`, where the server did not send a value of the new row.
pub(super) fn write_unavailable(target: &mut Vec<u8>, row: RowView<'_>) {
    let is_unavailable = |(column, held): (_, _)| (held == Held::Unavailable).then_some(column);
    let mut names = row.shown().filter_map(is_unavailable).map(ColumnView::name).peekable();
    if names.peek().is_some() {
        target.extend_from_slice(b",\"unavailable\":");
        write_names(target, names);
    }
}

fn write_names<'n>(target: &mut Vec<u8>, names: impl Iterator<Item = &'n str>) {
    target.push(b'[');
    for (index, name) in names.enumerate() {
        if index > 0 {
            target.push(b',');
        }
        string::write(target, name);
    }
    target.push(b']');
}

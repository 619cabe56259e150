//! Tuples: `i16 columns`, then for each column `'n'` | `'u'` | `'t' i32 length, text`.

use super::reader::{DecodeError, Reader};
use crate::change::ValueSlot;

/// SQL NULL.
const NULL: u8 = b'n';
/// An unchanged TOAST value (C name `LOGICALREP_COLUMN_UNCHANGED`).
const UNCHANGED: u8 = b'u';
/// A value in text form (C name `LOGICALREP_COLUMN_TEXT`).
const TEXT: u8 = b't';

/// Notes where each value of the next tuple lies. `slots` is emptied first and keeps its memory.
/// Binary values (`'b'`) are never asked for, so they are an error.
pub(super) fn read(reader: &mut Reader<'_>, slots: &mut Vec<ValueSlot>) -> Result<(), DecodeError> {
    slots.clear();
    let columns = reader.count("tuple's column count")?;
    for _ in 0..columns {
        let slot = match reader.u8("value's kind")? {
            TEXT => {
                let length = reader.length("value's length")?;
                let start = place(reader.place())?;
                reader.bytes(length, "value")?;
                ValueSlot::Text { start, length: place(length)? }
            }
            NULL => ValueSlot::Null,
            UNCHANGED => ValueSlot::UnchangedToast,
            kind => return Err(DecodeError::Field { field: "value's kind", value: kind.into() }),
        };
        slots.push(slot);
    }
    Ok(())
}

fn place(index: usize) -> Result<u32, DecodeError> {
    u32::try_from(index)
        .map_err(|_| DecodeError::Field { field: "value's length", value: i64::MAX })
}

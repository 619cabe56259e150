//! The fields of the few messages that hold more than one: errors, notices, parameters, rows.

use crate::postgres::error::{PostgresError, ServerMessage};

/// The rest of a message's body.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(super) fn u8(&mut self, field: &str) -> Result<u8, PostgresError> {
        let (byte, rest) = self.rest.split_first().ok_or_else(|| truncated(field))?;
        self.rest = rest;
        Ok(*byte)
    }

    pub(super) fn i16(&mut self, field: &str) -> Result<i16, PostgresError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| truncated(field))?;
        self.rest = rest;
        Ok(i16::from_be_bytes(*bytes))
    }

    pub(super) fn i32(&mut self, field: &str) -> Result<i32, PostgresError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| truncated(field))?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    pub(super) fn bytes(&mut self, count: usize, field: &str) -> Result<&'a [u8], PostgresError> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or_else(|| truncated(field))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A text up to its zero byte. Messages of a server that is still starting may be in another
    /// encoding, so what is no UTF-8 is shown as such.
    pub(super) fn text(&mut self, field: &str) -> Result<String, PostgresError> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(|| truncated(field))?;
        let text = String::from_utf8_lossy(self.bytes(end, field)?).into_owned();
        self.u8(field)?;
        Ok(text)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }
}

fn truncated(field: &str) -> PostgresError {
    PostgresError::Protocol { what: format!("a message ends inside its {field}") }
}

/// ErrorResponse and NoticeResponse: `(u8 field, text)*`, then a zero byte. Fields that are not
/// known must be passed over (manual page protocol-error-fields).
///
/// # Errors
/// Where the body ends inside a field.
pub fn read_error(body: &[u8]) -> Result<ServerMessage, PostgresError> {
    let mut fields = Fields::new(body);
    let mut message = ServerMessage::default();
    loop {
        match fields.u8("field type")? {
            0 => return Ok(message),
            b'V' => message.severity = fields.text("severity")?,
            b'C' => message.sqlstate = fields.text("SQLSTATE")?,
            b'M' => message.message = fields.text("message")?,
            b'D' => message.detail = Some(fields.text("detail")?),
            b'H' => message.hint = Some(fields.text("hint")?),
            _ => {
                fields.text("field")?;
            }
        }
    }
}

/// ParameterStatus: `text name │ text value`.
///
/// # Errors
/// Where the body ends inside a field.
pub fn read_parameter(body: &[u8]) -> Result<(String, String), PostgresError> {
    let mut fields = Fields::new(body);
    Ok((fields.text("parameter name")?, fields.text("parameter value")?))
}

/// DataRow in text form: `i16 columns │ columns × (i32 length, bytes)`, -1 is NULL.
pub(super) fn read_row(body: &[u8]) -> Result<Vec<Option<String>>, PostgresError> {
    let mut fields = Fields::new(body);
    let count = fields.i16("column count")?;
    let mut row = Vec::new();
    for _ in 0..count {
        let length = fields.i32("value length")?;
        row.push(match usize::try_from(length) {
            Ok(length) => {
                Some(String::from_utf8_lossy(fields.bytes(length, "value")?).into_owned())
            }
            Err(_) => None,
        });
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_fields_are_read_and_unknown_ones_passed_over() {
        let body = b"SERROR\0VERROR\0C42704\0Mslot is gone\0Dwhy\0Hdo this\0Fslot.c\0zfuture\0\0";
        let message = read_error(body).expect("well formed");
        assert_eq!(message.sqlstate, "42704");
        assert_eq!(message.message, "slot is gone");
        assert_eq!(message.detail.as_deref(), Some("why"));
        assert_eq!(message.hint.as_deref(), Some("do this"));
    }

    #[test]
    fn an_error_that_ends_inside_a_field_is_refused() {
        for body in [&b""[..], b"M", b"Mtext", b"Mtext\0"] {
            assert!(read_error(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn null_and_empty_values_differ() {
        let body =
            [&2_i16.to_be_bytes()[..], &(-1_i32).to_be_bytes(), &0_i32.to_be_bytes()].concat();
        assert_eq!(read_row(&body).expect("well formed"), [None, Some(String::new())]);
    }

    #[test]
    fn a_row_that_ends_inside_a_value_is_refused() {
        let body = [&1_i16.to_be_bytes()[..], &9_i32.to_be_bytes(), b"short"].concat();
        assert!(read_row(&body).is_err());
    }
}

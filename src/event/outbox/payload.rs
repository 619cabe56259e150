//! A payload's text: checked, decoded, never parsed into anything.

use serde::de::IgnoredAny;

use crate::{
    change::Tuple,
    event::{
        MessageProblem, Reason,
        outbox::columns::{Columns, PayloadText},
    },
};

/// The payload as valid JSON; none for SQL NULL.
pub(super) fn read<'a>(
    columns: &Columns,
    tuple: Tuple<'a>,
    decoded: &'a mut Vec<u8>,
) -> Result<Option<&'a str>, Reason> {
    let column = &columns.payload;
    let Some(bytes) = column.bytes(tuple)? else { return Ok(None) };
    let digits = match columns.payload_text {
        PayloadText::Json | PayloadText::Text => None,
        // No JSON begins with a backslash.
        PayloadText::Hexadecimal | PayloadText::OfUserType => bytes.strip_prefix(b"\\x"),
    };
    let bytes = match digits {
        Some(digits) => {
            decode_hexadecimal(digits, decoded).ok_or_else(|| Reason::NotJson {
                column: column.owned_name(),
                detail: "its bytea is not in hexadecimal form".to_owned(),
            })?;
            decoded.as_slice()
        }
        None => bytes,
    };
    let text =
        std::str::from_utf8(bytes).map_err(|_| Reason::NotUtf8 { column: column.owned_name() })?;
    match columns.payload_text {
        PayloadText::Json => {}
        PayloadText::Text | PayloadText::Hexadecimal | PayloadText::OfUserType => {
            check_json(text)
                .map_err(|detail| Reason::NotJson { column: column.owned_name(), detail })?;
        }
    }
    Ok(Some(text))
}

/// A message's content as valid JSON.
pub(in crate::event) fn read_json(content: &[u8]) -> Result<&str, Reason> {
    let refuse = |problem| Reason::Message { problem };
    let text = std::str::from_utf8(content).map_err(|_| refuse(MessageProblem::NotUtf8))?;
    check_json(text).map_err(|detail| refuse(MessageProblem::NotJson { detail }))?;
    Ok(text)
}

/// The parser's words name a place and a kind of mistake, never a value.
pub(super) fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|error| error.to_string())
}

fn decode_hexadecimal(digits: &[u8], decoded: &mut Vec<u8>) -> Option<()> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    decoded.clear();
    decoded.reserve(pairs.len());
    for [high, low] in pairs {
        decoded.push(nibble(*high)? << 4 | nibble(*low)?);
    }
    Some(())
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_become_bytes() {
        let mut decoded = vec![1];
        assert_eq!(decode_hexadecimal(b"00fF7b7D", &mut decoded), Some(()));
        assert_eq!(decoded, b"\x00\xff{}");
        assert_eq!(decode_hexadecimal(b"0", &mut decoded), None);
        assert_eq!(decode_hexadecimal(b"0g", &mut decoded), None);
    }

    #[test]
    fn json_is_told_from_other_text_however_deep() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for text in ["null", " {\"a\": [1, 2.5e-3, \"\\u00e9\"]} ", "\"x\"", deep.as_str()] {
            assert_eq!(check_json(text), Ok(()));
        }
        for text in ["", "{", "{}{}", "'x'", "NaN", "{\"secret\"}", "\"a\nb\""] {
            let detail = check_json(text).expect_err(text);
            assert!(
                detail.contains("line 1 column") || detail.contains("line 2 column"),
                "{detail}"
            );
            assert!(!detail.contains("secret"), "{detail}");
        }
    }
}

//! Bytea: `bytea_output` hex, as base64 or as it is.

use super::{
    ByteaForm,
    form::{Malformed, write_plain},
};

/// RFC 4648, section 4.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Hexadecimal digits of three bytes, which are four letters.
const GROUP_DIGITS: usize = 6;

/// Appends binary data.
pub(super) fn write(text: &[u8], form: ByteaForm, target: &mut Vec<u8>) -> Result<(), Malformed> {
    const EXPECTED: Malformed = Malformed::not("a bytea in hexadecimal");
    let digits = text.strip_prefix(b"\\x").ok_or(EXPECTED)?;
    if digits.len() % 2 != 0 {
        return Err(EXPECTED);
    }
    match form {
        ByteaForm::Hex if digits.iter().all(|digit| nibble(*digit).is_some()) => {
            write_plain(digits, target);
            Ok(())
        }
        ByteaForm::Hex => Err(EXPECTED),
        ByteaForm::Base64 => write_base64(digits, target).ok_or(EXPECTED),
    }
}

fn write_base64(digits: &[u8], target: &mut Vec<u8>) -> Option<()> {
    target.reserve(digits.len().div_ceil(GROUP_DIGITS) * 4 + 2);
    target.push(b'"');
    for group in digits.chunks(GROUP_DIGITS) {
        let mut bits = 0;
        for digit in group {
            bits = bits << 4 | u32::from(nibble(*digit)?);
        }
        bits <<= 4 * (GROUP_DIGITS - group.len());
        let letter = |shift: u32| ALPHABET[(bits >> shift & 0x3F) as usize];
        target.extend_from_slice(&match group.len() {
            GROUP_DIGITS => [letter(18), letter(12), letter(6), letter(0)],
            4 => [letter(18), letter(12), letter(6), b'='],
            _ => [letter(18), letter(12), b'=', b'='],
        });
    }
    target.push(b'"');
    Some(())
}

/// The value of a digit, in lower case as the server writes it.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, form: ByteaForm) -> Result<String, Malformed> {
        let mut target = Vec::new();
        write(text.as_bytes(), form, &mut target)?;
        Ok(String::from_utf8(target).expect("ASCII"))
    }

    /// RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_standards_test_vectors() {
        for (text, expected) in [
            ("\\x", ""),
            ("\\x66", "Zg=="),
            ("\\x666f", "Zm8="),
            ("\\x666f6f", "Zm9v"),
            ("\\x666f6f62", "Zm9vYg=="),
            ("\\x666f6f6261", "Zm9vYmE="),
            ("\\x666f6f626172", "Zm9vYmFy"),
            ("\\xfbff", "+/8="),
        ] {
            assert_eq!(written(text, ByteaForm::Base64), Ok(format!("\"{expected}\"")), "{text}");
        }
    }

    #[test]
    fn hexadecimal_loses_its_prefix() {
        assert_eq!(written("\\x00ff5c", ByteaForm::Hex).as_deref(), Ok("\"00ff5c\""));
        assert_eq!(written("\\x", ByteaForm::Hex).as_deref(), Ok("\"\""));
    }

    #[test]
    fn what_is_not_hexadecimal_is_refused() {
        for text in ["", "00", "\\x0", "\\x0g", "\\xFF", "\\000\\377", "\\x00ff5"] {
            for form in [ByteaForm::Base64, ByteaForm::Hex] {
                assert!(written(text, form).is_err(), "{text}");
            }
        }
    }
}

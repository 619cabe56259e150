//! Numbers, which PostgreSQL writes as JSON does, and what it calls a number and JSON does not.

use super::form::{Malformed, write_plain};

/// Appends an integer.
pub(super) fn write_integer(text: &[u8], target: &mut Vec<u8>) -> Result<(), Malformed> {
    if after_integer(text) != Some(b"") {
        return Err(Malformed::not("an integer"));
    }
    target.extend_from_slice(text);
    Ok(())
}

/// Appends a number with every digit as it is, and `NaN`, `Infinity` and `-Infinity` as strings.
pub(super) fn write_number(text: &[u8], target: &mut Vec<u8>) -> Result<(), Malformed> {
    if is_number(text) {
        target.extend_from_slice(text);
    } else if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        write_plain(text, target);
    } else {
        return Err(Malformed::not("a number"));
    }
    Ok(())
}

/// Whether it is a number to JSON (RFC 8259, section 6).
fn is_number(text: &[u8]) -> bool {
    let Some(mut rest) = after_integer(text) else { return false };
    if let Some(fraction) = rest.strip_prefix(b".") {
        let Some(behind) = after_digits(fraction) else { return false };
        rest = behind;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let digits = match exponent {
            [b'+' | b'-', digits @ ..] => digits,
            digits => digits,
        };
        let Some(behind) = after_digits(digits) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// What follows an integer without leading zeros; none where there is none.
fn after_integer(text: &[u8]) -> Option<&[u8]> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0', rest @ ..] => Some(rest),
        _ => after_digits(digits),
    }
}

/// What follows one digit or more; none where there is none.
fn after_digits(text: &[u8]) -> Option<&[u8]> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.get(count..).filter(|_| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_number_is_so_to_serde_json_too() {
        let mut random = fastrand::Rng::with_seed(21);
        let mut numbers = 0;
        for _ in 0..200_000 {
            let length = random.usize(0..7);
            let text: String =
                (0..length).filter_map(|_| random.choice(*b"0017.eE+-").map(char::from)).collect();
            let is_json = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            assert_eq!(is_number(text.as_bytes()), is_json, "{text}");
            numbers += u32::from(is_json);
        }
        assert!(numbers > 10_000, "{numbers}");
    }

    #[test]
    fn integers_have_neither_fraction_nor_exponent() {
        for text in ["0", "-9223372036854775808", "4294967295"] {
            let mut target = Vec::new();
            assert_eq!(write_integer(text.as_bytes(), &mut target), Ok(()));
            assert_eq!(target, text.as_bytes());
        }
        for text in ["", "-", "01", "1.0", "1e3", "NaN", " 1", "1 ", "+1"] {
            assert!(write_integer(text.as_bytes(), &mut Vec::new()).is_err(), "{text}");
        }
    }
}

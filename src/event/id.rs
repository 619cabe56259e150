//! Event ids: UUIDs in text.

use uuid::Uuid;

/// The length of a hyphenated UUID in bytes.
pub(super) const ID_BYTES: usize = 36;

/// The UUID of `text` in lower case with hyphens, where `text` is one in any usual form.
///
/// A uuid column's text is returned as it is; `scratch` is for what an application wrote otherwise.
pub(super) fn canonical<'a>(text: &'a str, scratch: &'a mut [u8; ID_BYTES]) -> Option<&'a str> {
    if is_canonical(text) {
        return Some(text);
    }
    // char(40) comes with trailing blanks, which mean nothing.
    let uuid = Uuid::try_parse(text.trim_end_matches(' ')).ok()?;
    Some(uuid.hyphenated().encode_lower(scratch))
}

/// True for 8-4-4-4-12 hexadecimal digits in lower case.
fn is_canonical(text: &str) -> bool {
    let Ok(mut bytes) = <[u8; ID_BYTES]>::try_from(text.as_bytes()) else { return false };
    let mut are_in_place = true;
    for index in [8, 13, 18, 23] {
        are_in_place &= bytes[index] == b'-';
        bytes[index] = b'0';
    }
    // Without a branch per byte, so that the loop is done in vectors.
    let is_digit = |byte: u8| byte.is_ascii_digit() | (b'a'..=b'f').contains(&byte);
    bytes.into_iter().fold(are_in_place, |all, byte| all & is_digit(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANONICAL: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";

    #[test]
    fn uuid_text_of_any_form_becomes_canonical() {
        for text in [
            CANONICAL,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11    ",
        ] {
            assert_eq!(canonical(text, &mut [0; ID_BYTES]), Some(CANONICAL), "{text}");
        }
    }

    #[test]
    fn other_text_is_no_uuid() {
        for text in
            ["", "42", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", "g0eebc999c0b4ef8bb6d6bb9bd380a11"]
        {
            assert_eq!(canonical(text, &mut [0; ID_BYTES]), None, "{text}");
        }
    }
}

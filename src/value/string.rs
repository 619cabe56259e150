//! Strings as JSON.

const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn write(target: &mut Vec<u8>, text: &str) {
    target.push(b'"');
    if has_escapes(text.as_bytes()) {
        write_escaped(target, text);
    } else {
        target.extend_from_slice(text.as_bytes());
    }
    target.push(b'"');
}

/// A byte as two digits.
pub(crate) fn hexadecimal(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 0xF].map(|nibble| HEXADECIMAL[usize::from(nibble)])
}

/// Block by block: within one the compiler looks at many bytes at once, because nothing leaves the
/// loop early.
fn has_escapes(text: &[u8]) -> bool {
    let mut blocks = text.chunks(64);
    blocks.any(|block| block.iter().fold(false, |found, byte| found | needs_escape(*byte)))
}

/// What JSON does not allow in a string as it is.
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cold]
fn write_escaped(target: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        let letter = match byte {
            b'"' | b'\\' => byte,
            b'\x08' => b'b',
            b'\x0c' => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => {
                target.extend_from_slice(b"\\u00");
                target.extend_from_slice(&hexadecimal(byte));
                continue;
            }
            _ => {
                target.push(byte);
                continue;
            }
        };
        target.extend_from_slice(&[b'\\', letter]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_through_serde_json() {
        let mut random = fastrand::Rng::with_seed(5);
        for round in 0..20_000 {
            let length = random.usize(0..150);
            let text: String = std::iter::repeat_with(|| match round % 3 {
                0 => random.char('\0'..='\u{7f}'),
                1 => random.choice(['"', '\\', '\n', '\u{1f}', '\u{7f}', 'é']).unwrap_or('x'),
                _ => random.char('\0'..=char::MAX),
            })
            .take(length)
            .collect();
            let mut written = Vec::new();
            write(&mut written, &text);
            assert_eq!(serde_json::from_slice::<String>(&written).ok(), Some(text));
        }
    }

    #[test]
    fn plain_text_is_written_as_it_is() {
        let mut written = Vec::new();
        write(&mut written, "order.placed/ü");
        assert_eq!(written, "\"order.placed/ü\"".as_bytes());
    }
}

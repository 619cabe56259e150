//! A walk over the members of a JSON object, without a tree.
//!
//! The text is known to be JSON (the server's parser or `serde_json` said so), so the walk only
//! looks for the marks that structure it. On other text it ends early or says [`Malformed`]; it
//! never reads past the end.

use std::{borrow::Cow, ops::Range};

use super::json_blocks::nested_end;

/// The text is not the JSON that it was promised to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// A string by the place of its content, between the quotes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StringAt {
    pub(super) content: Range<usize>,
    /// It holds a backslash, so its content is not yet its text.
    pub(super) has_escapes: bool,
}

impl StringAt {
    /// Its content as `text`, in which it stands, has it.
    pub(super) fn written<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.content.clone()).expect("a string lies between its quotes")
    }

    /// The text that it stands for; [`Malformed`] as of [`unescape`].
    pub(super) fn text<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Malformed> {
        let written = self.written(text);
        if !self.has_escapes {
            return Ok(Cow::Borrowed(written));
        }
        let mut plain = String::new();
        unescape(written, &mut plain)?;
        Ok(Cow::Owned(plain))
    }
}

/// A member's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ValueAt {
    Null,
    String(StringAt),
    /// A number, a boolean, an array or an object.
    Other,
}

/// One member of an object, by its places in the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    /// The comma before it, or the object's opening brace.
    pub(super) before: usize,
    pub(super) name: StringAt,
    pub(super) value: ValueAt,
    /// One past its value's last byte.
    pub(super) end: usize,
}

impl Member {
    /// Where its name's opening quote stands.
    pub(super) fn start(&self) -> usize {
        self.name.content.start - 1
    }

    /// Its value as `text`, in which it stands, has it.
    pub(super) fn written_value<'t>(&self, text: &'t str) -> &'t str {
        let behind = text.get(self.name.content.end + 1..self.end);
        let behind = behind.expect("a value ends behind its name");
        behind.trim_start_matches([' ', '\t', '\n', '\r', ':'])
    }
}

/// The members of an object, in order.
#[derive(Debug)]
pub(super) struct Members<'a> {
    text: &'a [u8],
    /// An opening brace, a comma, or the closing brace.
    position: usize,
}

impl<'a> Members<'a> {
    /// `None` where the text is no object.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        let text = text.as_bytes();
        let position = skip_whitespace(text, 0);
        (text.get(position) == Some(&b'{')).then_some(Self { text, position })
    }

    /// Where the closing brace stands, once [`Members::next`] returned none.
    pub(super) fn closing_brace(&self) -> usize {
        self.position
    }

    /// The next member; none behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Malformed> {
        let before = self.position;
        let at = |position: usize| self.text.get(position).copied();
        if at(before) == Some(b'}') {
            return Ok(None);
        }
        let start = skip_whitespace(self.text, before + 1);
        match at(start) {
            Some(b'"') => {}
            // The empty object.
            Some(b'}') if at(before) == Some(b'{') => {
                self.position = start;
                return Ok(None);
            }
            _ => return Err(Malformed),
        }
        let name = read_string(self.text, start + 1)?;
        let colon = skip_whitespace(self.text, name.content.end + 1);
        if at(colon) != Some(b':') {
            return Err(Malformed);
        }
        let (value, end) = read_value(self.text, skip_whitespace(self.text, colon + 1))?;
        let next = skip_whitespace(self.text, end);
        if !matches!(at(next), Some(b',' | b'}')) {
            return Err(Malformed);
        }
        self.position = next;
        Ok(Some(Member { before, name, value, end }))
    }
}

fn skip_whitespace(text: &[u8], from: usize) -> usize {
    let Some(rest) = text.get(from..) else { return from };
    from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The value that begins at `start`, and the place behind it.
fn read_value(text: &[u8], start: usize) -> Result<(ValueAt, usize), Malformed> {
    match text.get(start).ok_or(Malformed)? {
        b'"' => {
            let string = read_string(text, start + 1)?;
            let end = string.content.end + 1;
            Ok((ValueAt::String(string), end))
        }
        b'{' | b'[' => Ok((ValueAt::Other, nested_end(text, start)?)),
        _ => {
            let ends =
                |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            let end = start + text.iter().skip(start).position(ends).ok_or(Malformed)?;
            match text.get(start..end).ok_or(Malformed)? {
                b"" => Err(Malformed),
                b"null" => Ok((ValueAt::Null, end)),
                _ => Ok((ValueAt::Other, end)),
            }
        }
    }
}

/// The string whose content begins at `start`.
fn read_string(text: &[u8], start: usize) -> Result<StringAt, Malformed> {
    let mut position = start;
    let mut has_escapes = false;
    loop {
        let rest = text.get(position..).ok_or(Malformed)?;
        position += match rest.split_first_chunk::<8>() {
            Some((chunk, _)) => quote_or_backslash(*chunk),
            None => rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(Malformed)?,
        };
        match text.get(position) {
            Some(b'"') => return Ok(StringAt { content: start..position, has_escapes }),
            // What is escaped is never the end, and what follows `\u` is no mark.
            Some(b'\\') => {
                has_escapes = true;
                position += 2;
            }
            // Eight bytes of neither.
            Some(_) | None => {}
        }
    }
}

/// The place of the first quote or backslash in the chunk; 8 where there is none.
///
/// Eight bytes at a time: (x - 1) & !x has a byte's top bit set where the byte is 0, and never
/// wrongly below the first such byte.
fn quote_or_backslash(chunk: [u8; 8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let chunk = u64::from_le_bytes(chunk);
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let found = zeros(chunk ^ (ONES * u64::from(b'"'))) | zeros(chunk ^ (ONES * u64::from(b'\\')));
    (found.trailing_zeros() / 8) as usize
}

/// Appends the text that a string's content stands for; [`Malformed`] where an escape is no
/// character (half a surrogate pair).
pub(super) fn unescape(content: &str, text: &mut String) -> Result<(), Malformed> {
    let mut rest = content;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let (character, behind) = unescape_one(escape)?;
        text.push(character);
        rest = behind;
    }
    text.push_str(rest);
    Ok(())
}

/// The character of the escape whose backslash was taken off, and what follows it.
fn unescape_one(escape: &str) -> Result<(char, &str), Malformed> {
    let mut characters = escape.chars();
    let character = match characters.next().ok_or(Malformed)? {
        mark @ ('"' | '\\' | '/') => mark,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unescape_utf16(characters.as_str()),
        _ => return Err(Malformed),
    };
    Ok((character, characters.as_str()))
}

/// The character of the hexadecimal digits behind `\u`, with the second half of a surrogate pair.
fn unescape_utf16(digits: &str) -> Result<(char, &str), Malformed> {
    let (first, rest) = code_unit(digits)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Ok((character, rest));
    }
    let (second, rest) = code_unit(rest.strip_prefix("\\u").ok_or(Malformed)?)?;
    match char::decode_utf16([first, second]).next() {
        Some(Ok(character)) => Ok((character, rest)),
        Some(Err(_)) | None => Err(Malformed),
    }
}

fn code_unit(digits: &str) -> Result<(u16, &str), Malformed> {
    let (digits, rest) = digits.split_at_checked(4).ok_or(Malformed)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Malformed);
    }
    Ok((u16::from_str_radix(digits, 16).map_err(|_| Malformed)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<(&str, &str)> {
        let mut members = Members::of(text).expect("an object");
        let mut found = Vec::new();
        while let Some(member) = members.next().expect("JSON") {
            assert!(matches!(text.as_bytes()[member.before], b',' | b'{'));
            let Member { name, value, end, .. } = member;
            let colon = text[name.content.end..].find(':').expect("a colon");
            let raw = text[name.content.end + colon + 1..end].trim_start();
            assert_eq!(name.has_escapes, text[name.content.clone()].contains('\\'));
            assert_eq!(value == ValueAt::Null, raw == "null");
            if let ValueAt::String(string) = value {
                assert_eq!(format!("\"{}\"", &text[string.content.clone()]), raw);
                assert_eq!(string.has_escapes, raw.contains('\\'));
            }
            found.push((&text[name.content], raw));
        }
        assert_eq!(text.as_bytes()[members.closing_brace()], b'}');
        found
    }

    #[test]
    fn members_are_found_with_their_values() {
        assert_eq!(members("{}"), []);
        assert_eq!(members(" { } "), []);
        assert_eq!(
            members(
                "\n{\"a\" : \"x\\\"}\\\\\" ,\"b\":[{\"c\":\"]\"},[]],\"d\": -1.5e3,\"e\":null }"
            ),
            [("a", "\"x\\\"}\\\\\""), ("b", "[{\"c\":\"]\"},[]]"), ("d", "-1.5e3"), ("e", "null")]
        );
    }

    #[test]
    fn strings_end_at_the_first_unescaped_quote_at_every_length() {
        for length in 0..40 {
            let content = "é".repeat(length / 2) + &"x".repeat(length);
            let text = format!("{{\"{content}\\\\\":\"\\\"{content}\\u0022\"}}");
            let name = format!("{content}\\\\");
            let value = format!("\"\\\"{content}\\u0022\"");
            assert_eq!(members(&text), [(name.as_str(), value.as_str())]);
        }
    }

    #[test]
    fn other_text_is_refused_without_a_panic() {
        for text in ["", "[]", "1", "\"{}\"", "null"] {
            assert!(Members::of(text).is_none(), "{text}");
        }
        for text in
            ["{", "{\"", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":[", "{\"a\":\"\\", "{,}"]
        {
            let mut members = Members::of(text).expect("an opening brace");
            assert_eq!(members.next(), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn unescape_agrees_with_serde_json() {
        let mut random = fastrand::Rng::with_seed(11);
        let pieces = [
            "a",
            "é",
            "😀",
            "\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "\\b",
            "\\f",
            "\\r",
            "\\t",
            "\\u0041",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\u0000",
            "\\uD800",
            "\\udc00",
        ];
        for _ in 0..20_000 {
            let content: String =
                (0..random.usize(0..6)).filter_map(|_| random.choice(pieces)).collect();
            let mut text = String::new();
            let unescaped = unescape(&content, &mut text).map(|()| text).ok();
            let expected = serde_json::from_str::<String>(&format!("\"{content}\"")).ok();
            assert_eq!(unescaped, expected, "{content}");
        }
    }

    #[test]
    fn walks_over_random_objects_agree_with_serde_json() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let value = random_object(&mut random);
            let text = if random.bool() {
                serde_json::to_string(&value)
            } else {
                serde_json::to_string_pretty(&value)
            };
            let text = text.expect("JSON");
            let mut walked = serde_json::Map::new();
            for (name, value) in members(&text) {
                let mut unescaped = String::new();
                unescape(name, &mut unescaped).expect("text");
                walked.insert(unescaped, serde_json::from_str(value).expect("JSON"));
            }
            assert_eq!(serde_json::Value::Object(walked), value, "seed {seed}");
        }
    }

    fn random_object(random: &mut fastrand::Rng) -> serde_json::Value {
        let text = |random: &mut fastrand::Rng| -> String {
            (0..random.usize(0..20))
                .filter_map(|_| random.choice(['a', '"', '\\', '{', '}', '[', ']', ',', 'é', '\n']))
                .collect()
        };
        let members = (0..random.usize(0..6)).map(|_| {
            let name = text(random);
            let value = match random.u8(0..7) {
                0 => serde_json::Value::Null,
                1 => random.bool().into(),
                2 => random.i32(..).into(),
                3 => (random.f64() * 1e12).into(),
                4 => vec![text(random), text(random)].into(),
                5 => random_object(random),
                _ => text(random).into(),
            };
            (name, value)
        });
        serde_json::Value::Object(members.collect())
    }
}

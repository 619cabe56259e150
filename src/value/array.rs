//! Arrays, as `array_out` writes them: `{1,NULL,3}`, `{{"a b","c\"d"},{e,f}}`.

use super::{
    form::{Malformed, Writer, Written, write_text},
    literal::{Literal, Part},
};

/// The server allows no more (C name `MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

const EXPECTED: Malformed = Malformed::not("an array");

/// Appends an array of arrays, one level for each dimension. Bounds that do not begin at 1 have no
/// place in JSON: such an array is its text, `[0:1]={5,6}`.
pub(super) fn write(
    text: &[u8],
    element: &Writer,
    delimiter: u8,
    target: &mut Vec<u8>,
) -> Result<Written, Malformed> {
    if text.starts_with(b"[") {
        write_text(text, target)?;
        return Ok(Written::AsDescribed);
    }
    if text == b"{}" {
        target.extend_from_slice(b"[]");
        return Ok(Written::AsDescribed);
    }
    // No element begins with a brace unless it is quoted.
    let dimensions = text.iter().take_while(|byte| **byte == b'{').count();
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return Err(EXPECTED);
    }
    let mut elements =
        Elements { literal: Literal::new(text), element, delimiter, scratch: Vec::new() };
    elements.write(dimensions, target)
}

struct Elements<'a> {
    literal: Literal<'a>,
    element: &'a Writer,
    delimiter: u8,
    scratch: Vec<u8>,
}

impl Elements<'_> {
    fn write(&mut self, dimensions: usize, target: &mut Vec<u8>) -> Result<Written, Malformed> {
        let mut written = Written::AsDescribed;
        let mut depth = 0;
        loop {
            while depth < dimensions {
                if !self.literal.take(b"{") {
                    return Err(EXPECTED);
                }
                target.push(b'[');
                depth += 1;
            }
            written = written.and(self.write_element(target)?);
            while self.literal.take(b"}") {
                target.push(b']');
                depth -= 1;
                if depth == 0 {
                    return if self.literal.is_at_end() { Ok(written) } else { Err(EXPECTED) };
                }
            }
            if !self.literal.take(&[self.delimiter]) {
                return Err(EXPECTED);
            }
            target.push(b',');
        }
    }

    fn write_element(&mut self, target: &mut Vec<u8>) -> Result<Written, Malformed> {
        match self.literal.part([self.delimiter, b'}'])? {
            Part::Bare(b"NULL") => {
                target.extend_from_slice(b"null");
                Ok(Written::AsDescribed)
            }
            Part::Bare(b"") => Err(EXPECTED),
            part => self.element.write(part.text(&mut self.scratch), target),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn written(text: &str, delimiter: u8) -> Result<String, Malformed> {
        let mut target = Vec::new();
        let written = write(text.as_bytes(), &Writer::Text, delimiter, &mut target)?;
        assert_eq!(written, Written::AsDescribed);
        Ok(String::from_utf8(target).expect("UTF-8"))
    }

    #[test]
    fn elements_nulls_and_quotes_are_told_apart() {
        for (text, delimiter, expected) in [
            ("{}", b',', "[]"),
            ("{a}", b',', r#"["a"]"#),
            (
                r#"{a,NULL,"NULL","","a,b","\"","\\"}"#,
                b',',
                r#"["a",null,"NULL","","a,b","\"","\\"]"#,
            ),
            ("{{a,b},{NULL,d}}", b',', r#"[["a","b"],[null,"d"]]"#),
            ("{{{{{{a}}}}}}", b',', r#"[[[[[["a"]]]]]]"#),
            ("{(1,1),(0,0);(2,2),(1,1)}", b';', r#"["(1,1),(0,0)","(2,2),(1,1)"]"#),
            (r#"[0:1]={5,"6"}"#, b',', r#""[0:1]={5,\"6\"}""#),
        ] {
            assert_eq!(written(text, delimiter).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in [
            "",
            "{",
            "}",
            "a",
            "{a",
            "{a}}",
            "{{a}",
            "{a}b",
            "{a},{b}",
            "{,a}",
            "{a,}",
            "{a,{b}}x",
            "{{a},b}",
            "{{}}",
            "{{{{{{{a}}}}}}}",
            "{\"a}",
            "{\"a\\",
            "{\"a\"b}",
            "{\"a\\\"}",
        ] {
            assert!(written(text, b',').is_err(), "{text}");
        }
    }

    /// What `array_out` would write.
    fn literal(value: &Value) -> String {
        match value {
            Value::Null => "NULL".to_owned(),
            Value::Array(elements) => {
                let elements: Vec<String> = elements.iter().map(literal).collect();
                format!("{{{}}}", elements.join(","))
            }
            Value::String(text) => {
                let is_quoted = text.is_empty()
                    || text.eq_ignore_ascii_case("NULL")
                    || text.contains(['"', '\\', '{', '}', ',', ' ', '\n']);
                match is_quoted {
                    true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
                    false => text.clone(),
                }
            }
            other => panic!("{other}"),
        }
    }

    fn random(random: &mut fastrand::Rng, lengths: &[usize]) -> Value {
        match lengths {
            [] if random.u8(..) < 50 => Value::Null,
            [] => {
                let pieces = ["a", "NULL", "null", "\"", "\\", "{", "}", ",", " ", "\n", "é", "😀"];
                let count = random.usize(0..4);
                (0..count).filter_map(|_| random.choice(pieces)).collect::<String>().into()
            }
            [length, inner @ ..] => {
                (0..*length).map(|_| self::random(random, inner)).collect::<Vec<_>>().into()
            }
        }
    }

    #[test]
    fn whatever_the_elements_are_they_come_back_from_the_json() {
        let mut rng = fastrand::Rng::with_seed(31);
        for _ in 0..20_000 {
            let lengths: Vec<usize> = (0..rng.usize(1..4)).map(|_| rng.usize(1..4)).collect();
            let value = random(&mut rng, &lengths);
            let text = literal(&value);
            let json = written(&text, b',').unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(serde_json::from_str::<Value>(&json).ok(), Some(value), "{text}");
        }
    }
}

//! Hstore, as `hstore_out` writes it: `"a"=>"1", "b"=>NULL`.

use super::{
    form::{Malformed, write_text},
    literal::{Literal, Part},
};

const EXPECTED: Malformed = Malformed::not("an hstore");

/// Appends an object of strings and nulls, in the server's order.
pub(super) fn write(text: &[u8], target: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut literal = Literal::new(text);
    let mut scratch = Vec::new();
    target.push(b'{');
    while !text.is_empty() {
        write_quoted(&mut literal, &mut scratch, target)?;
        if !literal.take(b"=>") {
            return Err(EXPECTED);
        }
        target.push(b':');
        if literal.take(b"NULL") {
            target.extend_from_slice(b"null");
        } else {
            write_quoted(&mut literal, &mut scratch, target)?;
        }
        if literal.is_at_end() {
            break;
        }
        if !literal.take(b", ") {
            return Err(EXPECTED);
        }
        target.push(b',');
    }
    target.push(b'}');
    Ok(())
}

fn write_quoted(
    literal: &mut Literal<'_>,
    scratch: &mut Vec<u8>,
    target: &mut Vec<u8>,
) -> Result<(), Malformed> {
    match literal.part(*b"=,")? {
        Part::Bare(_) => Err(EXPECTED),
        quoted @ Part::Quoted { .. } => write_text(quoted.text(scratch), target),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    fn written(text: &str) -> Result<String, Malformed> {
        let mut target = Vec::new();
        write(text.as_bytes(), &mut target)?;
        Ok(String::from_utf8(target).expect("UTF-8"))
    }

    #[test]
    fn values_are_strings_or_null() {
        for (text, expected) in [
            ("", "{}"),
            (r#""a"=>"1""#, r#"{"a":"1"}"#),
            (r#""a"=>NULL, "b"=>"NULL", "c"=>"""#, r#"{"a":null,"b":"NULL","c":""}"#),
            (r#"""=>"\"=>\\", "é "=>NULL"#, r#"{"":"\"=>\\","é ":null}"#),
        ] {
            assert_eq!(written(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_hstore_is_refused() {
        for text in [
            "a",
            "\"a\"",
            "\"a\"=>",
            "\"a\"=>1",
            "a=>\"1\"",
            "NULL=>\"1\"",
            "\"a\"=>\"1\", ",
            "\"a\"=>\"1\",\"b\"=>\"2\"",
            "\"a\"=>\"1",
            "\"a\"=>NULLx",
            "\"a\"=>\"1\" ",
            "\"",
        ] {
            assert!(written(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whatever_keys_and_values_are_they_come_back_from_the_json() {
        let mut random = fastrand::Rng::with_seed(51);
        let pieces = ["a", "\"", "\\", "=>", ", ", "NULL", " ", "\n", "é"];
        for _ in 0..20_000 {
            let mut word = || {
                let count = random.usize(0..4);
                (0..count).filter_map(|_| random.choice(pieces)).collect::<String>()
            };
            let mut pairs = Map::new();
            for _ in 0..3 {
                let (key, value) = (word(), word());
                let value = if value.len() == 1 { Value::Null } else { value.into() };
                pairs.insert(key, value);
            }
            let quoted =
                |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let pair = |(key, value): (&String, &Value)| {
                format!("{}=>{}", quoted(key), value.as_str().map_or("NULL".to_owned(), quoted))
            };
            let text = pairs.iter().map(pair).collect::<Vec<_>>().join(", ");
            let json = written(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let expected = Some(Value::Object(pairs));
            assert_eq!(serde_json::from_str::<Value>(&json).ok(), expected, "{text}");
        }
    }
}

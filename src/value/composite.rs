//! Composites, as `record_out` writes them: `(1,"a,""b",)`.
//!
//! A value is written by the shape that its type had in the log, and read by the one that the
//! catalog has: `ALTER TYPE` may lie between them. Where the two differ the value is its text, and
//! nothing is told under the name of something else. That a field was only renamed no text shows.

use std::sync::Arc;

use super::{
    form::{Malformed, Writer, Written, write_text},
    literal::{Literal, Part},
    string,
};

const EXPECTED: Malformed = Malformed::not("a composite");

/// How a field is written.
#[derive(Debug)]
pub(super) struct FieldWriter {
    name: String,
    /// Its name with quotes and colon.
    member: Vec<u8>,
    writer: Arc<Writer>,
}

impl FieldWriter {
    pub(super) fn new(name: &str, writer: Arc<Writer>) -> Self {
        let mut member = Vec::new();
        string::write(&mut member, name);
        member.push(b':');
        Self { name: name.to_owned(), member, writer }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }
}

/// Appends an object of the fields, or a text that other fields made.
pub(super) fn write(
    text: &[u8],
    fields: &[FieldWriter],
    target: &mut Vec<u8>,
) -> Result<Written, Malformed> {
    let start = target.len();
    if let Some(written) = write_object(text, fields, target)? {
        return Ok(written);
    }
    target.truncate(start);
    write_text(text, target)?;
    Ok(Written::OtherFields)
}

/// Appends an object; none where the text does not have these fields.
fn write_object(
    text: &[u8],
    fields: &[FieldWriter],
    target: &mut Vec<u8>,
) -> Result<Option<Written>, Malformed> {
    let mut literal = Literal::new(text);
    if !literal.take(b"(") || !text.ends_with(b")") {
        return Err(EXPECTED);
    }
    let mut written = Written::AsDescribed;
    let mut scratch = Vec::new();
    let mut separator = b'{';
    for (index, field) in fields.iter().enumerate() {
        if index > 0 && !literal.take(b",") {
            return Ok(None);
        }
        target.push(separator);
        target.extend_from_slice(&field.member);
        separator = b',';
        match literal.part(*b",)")? {
            Part::Bare(b"") => target.extend_from_slice(b"null"),
            part => match field.writer.write(part.text(&mut scratch), target) {
                Ok(of_field) => written = written.and(of_field),
                Err(Malformed { .. }) => return Ok(None),
            },
        }
    }
    if fields.is_empty() {
        target.push(separator);
    }
    target.push(b'}');
    let is_whole = literal.take(b")") && literal.is_at_end();
    Ok(is_whole.then_some(written))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    fn fields(writers: Vec<Writer>) -> Vec<FieldWriter> {
        let fields = ["a", "b \"c\"", "d"].into_iter().zip(writers);
        fields.map(|(name, writer)| FieldWriter::new(name, Arc::new(writer))).collect()
    }

    fn written(text: &str, writers: Vec<Writer>) -> Result<(String, Written), Malformed> {
        let mut target = b"before".to_vec();
        let written = write(text.as_bytes(), &fields(writers), &mut target)?;
        let target = String::from_utf8(target).expect("UTF-8");
        Ok((target.strip_prefix("before").expect("what was there").to_owned(), written))
    }

    #[test]
    fn fields_are_members_in_their_order() {
        for (text, writers, expected) in [
            (
                r#"(1,"a,""b",)"#,
                vec![Writer::Integer, Writer::Text, Writer::Boolean],
                r#"{"a":1,"b \"c\"":"a,\"b","d":null}"#,
            ),
            (r#"("",t)"#, vec![Writer::Text, Writer::Boolean], r#"{"a":"","b \"c\"":true}"#),
            (
                r#"("\\ "" ",f)"#,
                vec![Writer::Text, Writer::Boolean],
                r#"{"a":"\\ \" ","b \"c\"":false}"#,
            ),
            ("()", vec![Writer::Integer], r#"{"a":null}"#),
            ("()", vec![], "{}"),
            ("(,)", vec![Writer::Integer, Writer::Integer], r#"{"a":null,"b \"c\"":null}"#),
        ] {
            let expected = (expected.to_owned(), Written::AsDescribed);
            assert_eq!(written(text, writers), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_text_of_other_fields_is_not_taken_for_these() {
        for text in ["(1)", "(1,2,3)", "()", "(1,2,)", "(x,2)", "(1,\"\")"] {
            let expected = (serde_json::json!(text).to_string(), Written::OtherFields);
            let found = written(text, vec![Writer::Integer, Writer::Integer]);
            assert_eq!(found, Ok(expected), "{text}");
        }
        let found = written("(1)", vec![]);
        assert_eq!(found, Ok(("\"(1)\"".to_owned(), Written::OtherFields)));
    }

    #[test]
    fn of_a_composite_in_a_composite_only_the_inner_one_is_its_text() {
        let inner = Writer::Composite { fields: fields(vec![Writer::Integer, Writer::Integer]) };
        let array = Writer::Array { element: Arc::new(inner), delimiter: b',' };
        let found = written(r#"(1,"{""(1,2)"",""(3)""}")"#, vec![Writer::Integer, array]);
        let expected = r#"{"a":1,"b \"c\"":[{"a":1,"b \"c\"":2},"(3)"]}"#;
        assert_eq!(found, Ok((expected.to_owned(), Written::OtherFields)));
    }

    #[test]
    fn what_is_no_composite_is_refused() {
        for text in ["", "1,2", "(", ")", "(1,2", "1,2)", "(1,\"2)"] {
            let found = written(text, vec![Writer::Integer, Writer::Text]);
            assert!(found.is_err(), "{text}: {found:?}");
        }
        let mut target = Vec::new();
        let text = b"(1,\xff)";
        let found = write(text, &fields(vec![Writer::Integer, Writer::Text]), &mut target);
        assert_eq!(found, Err(Malformed::not("UTF-8")));
    }

    /// What `record_out` would write.
    fn literal(values: &[Option<String>]) -> String {
        let field = |value: &Option<String>| match value {
            None => String::new(),
            Some(text) if text.is_empty() || text.contains(['"', '\\', '(', ')', ',', ' ']) => {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
            }
            Some(text) => text.clone(),
        };
        format!("({})", values.iter().map(field).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn whatever_the_fields_are_they_come_back_from_the_json() {
        let mut random = fastrand::Rng::with_seed(41);
        let pieces = ["a", "\"", "\"\"", "\\", "(", ")", ",", " ", "é"];
        for _ in 0..20_000 {
            let mut value = || {
                let count = random.usize(0..4);
                let text = (0..count).filter_map(|_| random.choice(pieces)).collect();
                random.bool().then_some(text)
            };
            let values: [Option<String>; 3] = [value(), value(), value()];
            let text = literal(&values);
            let found = written(&text, vec![Writer::Text, Writer::Text, Writer::Text]);
            let (json, _) = found.unwrap_or_else(|error| panic!("{text}: {error}"));
            let names = ["a", "b \"c\"", "d"].map(str::to_owned);
            let expected = names.into_iter().zip(values.map(Value::from));
            let expected = Value::Object(expected.collect::<Map<_, _>>());
            assert_eq!(serde_json::from_str::<Value>(&json).ok(), Some(expected), "{text}");
        }
    }
}

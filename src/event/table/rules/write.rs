//! Computed values as JSON.

use crate::{
    event::table::rules::{Problem, value::Value},
    value::string,
};

/// Appends a value. JSON is written as it came.
pub(super) fn write(value: &Value<'_>, target: &mut Vec<u8>) -> Result<(), Problem> {
    match value {
        Value::Null => target.extend_from_slice(b"null"),
        Value::Bool(true) => target.extend_from_slice(b"true"),
        Value::Bool(false) => target.extend_from_slice(b"false"),
        Value::Int(int) => target.extend_from_slice(int.to_string().as_bytes()),
        Value::Double(double) if double.is_finite() => {
            target.extend_from_slice(double_text(*double).as_bytes());
        }
        Value::Double(double) => string::write(target, &double_text(*double)),
        Value::String(text) => string::write(target, text),
        Value::Timestamp(timestamp) => {
            let mut scratch = [0; 27];
            let beyond = Problem::BeyondCalendar { operation: "data" };
            string::write(target, timestamp.rfc_3339(&mut scratch).ok_or(beyond)?);
        }
        Value::Duration(duration) => {
            target.push(b'"');
            duration.write_iso_8601(target);
            target.push(b'"');
        }
        Value::Type(name) => string::write(target, name),
        Value::Json(text) => target.extend_from_slice(text.trim().as_bytes()),
        Value::List(elements) => {
            target.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    target.push(b',');
                }
                write(element, target)?;
            }
            target.push(b']');
        }
        Value::Map(entries) => {
            target.push(b'{');
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    target.push(b',');
                }
                string::write(target, &name(key)?);
                target.push(b':');
                write(value, target)?;
            }
            target.push(b'}');
        }
    }
    Ok(())
}

/// A key as a member's name.
pub(super) fn name(key: &Value<'_>) -> Result<String, Problem> {
    Ok(match key.clone().plain() {
        Value::String(text) => text.into_owned(),
        Value::Int(int) => int.to_string(),
        Value::Bool(bool) => bool.to_string(),
        other => {
            let found = other.type_name().to_owned();
            return Err(Problem::Operands { operation: "a map's key", found });
        }
    })
}

/// The shortest text that reads back as the same number, without a fraction where there is none; of
/// what is no number, PostgreSQL's name.
pub(super) fn double_text(double: f64) -> String {
    if double.is_nan() {
        return "NaN".to_owned();
    }
    if double.is_infinite() {
        return if double > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let text = serde_json::Number::from_f64(double).map(|number| number.to_string());
    let text = text.expect("a finite number is JSON");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn written(value: &Value<'_>) -> String {
        let mut target = Vec::new();
        write(value, &mut target).expect("JSON");
        String::from_utf8(target).expect("UTF-8")
    }

    #[test]
    fn doubles_are_the_shortest_text_that_reads_back() {
        for (double, text) in [
            (0.1, "0.1"),
            (2.0, "2"),
            (-0.0, "-0"),
            (1e300, "1e+300"),
            (5e-324, "5e-324"),
            (123_456_789.25, "123456789.25"),
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            assert_eq!(written(&Value::Double(double)), text);
        }
        let mut random = fastrand::Rng::with_seed(9);
        for _ in 0..20_000 {
            let double = f64::from_bits(random.u64(..));
            if double.is_finite() {
                let text = written(&Value::Double(double));
                assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(double.to_bits()), "{text}");
                assert_eq!(serde_json::from_str::<f64>(&text).ok(), Some(double), "{text}");
            }
        }
    }

    #[test]
    fn lists_and_maps_keep_their_order_and_json_its_digits() {
        let json = Value::Json(Cow::Borrowed(" {\"b\": 1.10} "));
        let map = Value::Map(
            vec![
                (Value::text("z\""), Value::List(vec![Value::Int(1), Value::Null].into())),
                (Value::Int(2), json),
                (Value::Bool(true), Value::Type("int")),
            ]
            .into(),
        );
        assert_eq!(written(&map), r#"{"z\"":[1,null],"2":{"b": 1.10},"true":"int"}"#);
    }
}

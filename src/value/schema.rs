//! JSON forms as JSON Schema, for whoever reads them.
//!
//! What is said here means the same in draft 7, which AsyncAPI has, and in 2020-12. Patterns are
//! ECMA-262's under the flag `u`. Each schema names its types, so that null can join them.

use serde_json::{Map, Value, json};

use super::{
    ByteaForm,
    form::{Form, Writer},
    timestamp::Zone,
};

/// The server allows no more (C name `MAXDIM`).
const DIMENSIONS_MAX: u8 = 6;

/// How deep composites within composites are described; what is deeper is an object of anything. A
/// type is described wherever it is, so that without a bound the text could grow exponentially.
const DEPTH_MAX: u8 = 4;

impl Form {
    /// A JSON Schema of all that [`Form::write`] appends.
    pub fn schema(&self) -> Value {
        of_writer(&self.0, DEPTH_MAX)
    }

    /// Whether the server sends its values with each new row, because they are too short to be kept
    /// apart from it (TOAST). Of what is not known to be short it is not said.
    pub fn is_always_sent(&self) -> bool {
        match &*self.0 {
            Writer::Boolean | Writer::Integer | Writer::Timestamp(_) => true,
            // Text may be of any type, and a number may be a numeric.
            Writer::Number
            | Writer::Json
            | Writer::Bytea(_)
            | Writer::Text
            | Writer::Array { .. }
            | Writer::Composite { .. }
            | Writer::Hstore => false,
        }
    }
}

/// The schema of what is that, or null.
pub fn or_null(mut schema: Value) -> Value {
    match schema.get_mut("type") {
        Some(Value::Array(types)) => types.push(json!("null")),
        Some(one) => *one = json!([*one, "null"]),
        // It is anything already.
        None => {}
    }
    schema
}

fn of_writer(writer: &Writer, depth: u8) -> Value {
    match writer {
        Writer::Boolean => json!({ "type": "boolean" }),
        Writer::Integer => json!({ "type": "integer" }),
        Writer::Number => {
            json!({ "type": ["number", "string"], "pattern": "^(NaN|-?Infinity)$" })
        }
        Writer::Timestamp(zone) => json!({ "type": "string", "pattern": instant(*zone) }),
        Writer::Json => json!({}),
        Writer::Bytea(ByteaForm::Base64) => json!({
            "type": "string", "contentEncoding": "base64", "pattern": "^[0-9A-Za-z+/]*={0,2}$",
        }),
        Writer::Bytea(ByteaForm::Hex) => {
            json!({ "type": "string", "contentEncoding": "base16", "pattern": "^([0-9a-f]{2})*$" })
        }
        Writer::Text => json!({ "type": "string" }),
        Writer::Array { element, .. } => of_array(element, depth),
        Writer::Composite { .. } if depth == 0 => json!({ "type": ["object", "string"] }),
        Writer::Composite { fields } => {
            let of_field = |(name, writer)| (name, or_null(of_writer(writer, depth - 1)));
            let named = fields.iter().map(|field| (field.name().to_owned(), field.writer()));
            let properties: Map<String, Value> = named.map(of_field).collect();
            let required: Vec<&str> = fields.iter().map(|field| field.name()).collect();
            // One that was altered is its text.
            json!({
                "type": ["object", "string"],
                "required": required,
                "properties": properties,
                "pattern": "^\\(",
            })
        }
        Writer::Hstore => {
            json!({ "type": "object", "additionalProperties": { "type": ["string", "null"] } })
        }
    }
}

/// A type does not say how many dimensions its values have. One whose bounds are others than 1 is its
/// text.
fn of_array(element: &Writer, depth: u8) -> Value {
    let one = or_null(of_writer(element, depth));
    let nested = match element {
        // Told once: repeated for each dimension they would be long.
        Writer::Composite { .. } | Writer::Array { .. } => json!({ "type": "array" }),
        Writer::Boolean
        | Writer::Integer
        | Writer::Number
        | Writer::Timestamp(_)
        | Writer::Json
        | Writer::Bytea(_)
        | Writer::Text
        | Writer::Hstore => (2..DIMENSIONS_MAX)
            .fold(list(one.clone()), |inner, _| list(json!({ "anyOf": [one.clone(), inner] }))),
    };
    json!({
        "type": ["array", "string"],
        "items": { "anyOf": [one, nested] },
        "pattern": "^\\[",
    })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// Years before Christ and the infinities are PostgreSQL's texts.
fn instant(zone: Zone) -> String {
    let (utc, utc_text) = match zone {
        Zone::None => ("", ""),
        Zone::Utc => ("Z", "\\+00"),
    };
    let (date, time) =
        ("[0-9]{4,6}-[0-9]{2}-[0-9]{2}", "[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,6})?");
    format!("^({date}T{time}{utc}|{date} {time}{utc_text} BC|-?infinity)$")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        change::Oid,
        value::{Field, Int8Form, Kind, NumericForm, Options, Type, built_in},
    };

    fn type_of(kind: Kind) -> Arc<Type> {
        Arc::new(Type { oid: Oid(16_400), name: "public.t".to_owned(), kind })
    }

    fn base(oid: u32) -> Arc<Type> {
        Arc::clone(built_in(Oid(oid)).expect("a built-in type"))
    }

    fn array(element: Arc<Type>) -> Arc<Type> {
        type_of(Kind::Array { element, delimiter: b',' })
    }

    fn composite(fields: &[(&str, Arc<Type>)]) -> Arc<Type> {
        let field = |(name, field_type): &(&str, Arc<Type>)| Field {
            name: (*name).to_owned(),
            field_type: Arc::clone(field_type),
        };
        type_of(Kind::Composite { fields: fields.iter().map(field).collect() })
    }

    /// What a value's text is written as is valid, and so is nothing of the others. By the rules of
    /// both drafts.
    #[track_caller]
    fn assert_described(described: &Type, options: Options, texts: &[&str], others: &[Value]) {
        let form = Form::of(described, options);
        let schema = form.schema();
        let newer = jsonschema::draft202012::new(&schema).expect("a schema");
        let older = jsonschema::draft7::new(&schema).expect("a schema");
        let is_valid = |value: &Value| {
            let [newer, older] = [&newer, &older].map(|schema| schema.is_valid(value));
            assert_eq!(newer, older, "{value} {schema}");
            newer
        };
        for text in texts {
            let mut json = Vec::new();
            let _ = form.write(text.as_bytes(), &mut json).expect("a value of the type");
            let value: Value = serde_json::from_slice(&json).expect("JSON");
            assert!(is_valid(&value), "{value} {schema}");
        }
        for other in others {
            assert!(!is_valid(other), "{other} {schema}");
        }
        assert!(!is_valid(&Value::Null) || schema == json!({}), "{schema}");
        let nullable = jsonschema::draft202012::new(&or_null(schema)).expect("a schema");
        assert!(nullable.is_valid(&Value::Null));
    }

    #[test]
    fn what_is_written_is_what_the_schema_describes() {
        let plain = Options::default();
        let numbers = Options { numeric: NumericForm::Number, ..plain };
        let cases: [(u32, Options, &[&str], &[Value]); 12] = [
            (16, plain, &["t", "f"], &[json!("t"), json!(1)]),
            (20, plain, &["-9223372036854775808", "0"], &[json!("0"), json!(0.5)]),
            (
                20,
                Options { int8: Int8Form::String, ..plain },
                &["9223372036854775807"],
                &[json!(1)],
            ),
            (701, plain, &["1.5e-10", "NaN", "-Infinity"], &[json!("1.5"), json!("infinity")]),
            (1700, plain, &["12.50", "NaN"], &[json!(12.5)]),
            (1700, numbers, &["12.50", "Infinity"], &[json!("12.50")]),
            (
                1114,
                plain,
                &["2026-02-03 04:05:06.5", "0044-03-15 00:00:00 BC", "-infinity"],
                &[json!("2026-02-03T04:05:06Z"), json!("2026-02-03 04:05:06"), json!(0)],
            ),
            (
                1184,
                plain,
                &["294276-12-31 23:59:59.999999+00", "0044-03-15 00:00:00+00 BC", "infinity"],
                &[json!("2026-02-03T04:05:06"), json!("yesterday")],
            ),
            (3802, plain, &["{\"a\": [null]}", "7", "null"], &[]),
            (17, plain, &["\\x", "\\x00", "\\xffffff"], &[json!("\\x00"), json!([0])]),
            (
                17,
                Options { bytea: ByteaForm::Hex, ..plain },
                &["\\x", "\\x00ff"],
                &[json!("0"), json!("AA==")],
            ),
            (25, plain, &["", "a\"b"], &[json!(1)]),
        ];
        for (oid, options, texts, others) in cases {
            assert_described(&base(oid), options, texts, others);
        }
        let hstore = type_of(Kind::Hstore);
        let others = [json!({ "a": 1 }), json!("a")];
        assert_described(&hstore, plain, &["", "\"a\"=>\"1\", \"b\"=>NULL"], &others);
    }

    #[test]
    fn arrays_have_any_dimensions_and_composites_all_fields() {
        let plain = Options::default();
        let texts = ["{}", "{1,NULL}", "{{1},{NULL}}", "{{{{{{7}}}}}}", "[0:1]={5,6}"];
        let others = [
            json!([true]),
            json!([[["x"]]]),
            json!([[[[[[[7]]]]]]]),
            json!("5"),
            json!({ "0": 1 }),
        ];
        assert_described(&array(base(23)), plain, &texts, &others);
        let point = composite(&[("x", base(23)), ("tags", array(base(25)))]);
        let others = [
            json!({ "x": 1 }),
            json!({ "x": "1", "tags": null }),
            json!({ "x": 1, "tags": [1] }),
            json!("1,2"),
        ];
        // The last one is of a type that was altered.
        assert_described(&point, plain, &["(1,\"{a,b}\")", "(,)", "(1,2,3)"], &others);
        let others = [json!([{ "x": 1 }]), json!([1])];
        assert_described(&array(point), plain, &["{\"(1,{})\",NULL}", "{{\"(1,{})\"}}"], &others);
    }

    #[test]
    fn composites_of_composites_do_not_grow_without_end() {
        let mut nested = base(23);
        for _ in 0..24 {
            nested = composite(&[("a", Arc::clone(&nested)), ("b", nested)]);
        }
        let length = Form::of(&nested, Options::default()).schema().to_string().len();
        assert!(length < 8_192, "{length}");
    }
}

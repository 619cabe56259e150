//! From the JSON of a value back to a text that its type's input function takes, as a consumer that
//! knows the column's type would do it, by docs/types.md and nothing else.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tailwater::value::{ByteaForm, Int8Form, NumericForm, Options};

use super::{
    literals::{self, Nullable},
    random_types::{Shape, SqlType},
};

/// The text of a value; none for null. Panics where the JSON is not what its type is promised to be.
pub fn literal(of: &SqlType, json: &str, options: Options) -> Nullable {
    if json == "null" {
        return None;
    }
    Some(match &of.shape {
        Shape::Scalar(name) => scalar(name, json, options),
        Shape::Enum | Shape::Range { .. } | Shape::Multirange { .. } => string(json),
        Shape::Domain { base } => return literal(base, json, options),
        // Lower bounds have no place in an array.
        Shape::Array { .. } if json.starts_with('"') => {
            let text = string(json);
            assert!(text.starts_with('['), "an array as its text without need: {text}");
            text
        }
        Shape::Array { element, delimiter } => array(element, *delimiter, json, options),
        Shape::Composite { fields } => {
            let members: BTreeMap<String, Box<RawValue>> = parsed(json);
            assert_eq!(members.len(), fields.len(), "{json}");
            let fields = fields.iter().map(|(name, of)| literal(of, members[name].get(), options));
            literals::composite(&fields.collect::<Vec<_>>())
        }
        Shape::Hstore => {
            let members: BTreeMap<String, Option<String>> = parsed(json);
            literals::hstore(members.iter().map(|(key, value)| (key.as_str(), value.as_deref())))
        }
    })
}

fn array(element: &SqlType, delimiter: char, json: &str, options: Options) -> String {
    let elements: Vec<Box<RawValue>> = parsed(json);
    let is_nested = elements.first().is_some_and(|first| first.get().starts_with('['));
    if is_nested && !element.can_be_array() {
        let rows = elements.iter().map(|row| array(element, delimiter, row.get(), options));
        return literals::array_of_arrays(&rows.collect::<Vec<_>>(), delimiter);
    }
    let elements = elements.iter().map(|json| literal(element, json.get(), options));
    literals::array(&elements.collect::<Vec<_>>(), delimiter)
}

fn scalar(name: &str, json: &str, options: Options) -> String {
    match name {
        "json" | "jsonb" => json.to_owned(),
        "bool" => parsed::<bool>(json).to_string(),
        "int2" | "int4" | "oid" => number(json),
        "int8" if options.int8 == Int8Form::Number => number(json),
        "float4" | "float8" => number_or_none(json),
        "numeric" | "numeric(12,3)" if options.numeric == NumericForm::Number => {
            number_or_none(json)
        }
        "bytea" => bytea(&string(json), options.bytea),
        "timestamp" | "timestamp(3)" => timestamp(string(json), ""),
        "timestamptz" => timestamp(string(json), "Z"),
        // ISO 8601 has no infinite one.
        "interval" | "interval(2)" => {
            let text = string(json);
            assert!(text.starts_with('P') || text.ends_with("infinity"), "{text}");
            text
        }
        _ => string(json),
    }
}

fn number(json: &str) -> String {
    assert!(json.starts_with(|first: char| first == '-' || first.is_ascii_digit()), "{json}");
    json.to_owned()
}

/// A number, or one of the three strings.
fn number_or_none(json: &str) -> String {
    if !json.starts_with('"') {
        return number(json);
    }
    let text = string(json);
    assert!(["NaN", "Infinity", "-Infinity"].contains(&text.as_str()), "{text}");
    text
}

fn timestamp(text: String, zone: &str) -> String {
    let is_iso = text.contains('T') && text.ends_with(zone);
    assert!(is_iso || text.ends_with(" BC") || text.ends_with("infinity"), "{text}");
    text
}

fn bytea(text: &str, form: ByteaForm) -> String {
    match form {
        ByteaForm::Hex => format!("\\x{text}"),
        ByteaForm::Base64 => {
            let bytes = openssl::base64::decode_block(text).expect("base64");
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\\x{digits}")
        }
    }
}

fn string(json: &str) -> String {
    parsed(json)
}

fn parsed<'a, T: serde::Deserialize<'a>>(json: &'a str) -> T {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

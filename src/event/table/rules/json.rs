//! What a JSON text holds, read where it is asked for.
//!
//! The text is of a json or jsonb column, so the server has parsed it. What cannot be read all the
//! same counts as empty.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::event::table::rules::value::Value;

#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'t>(#[serde(borrow)] Cow<'t, str>);

pub(super) fn is_array(text: &str) -> bool {
    text.trim_start().starts_with('[')
}

pub(super) fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// What a scalar is; `None` for arrays and objects. A number without point and exponent is an int
/// where it fits one.
pub(super) fn plain(text: &str) -> Option<Value<'_>> {
    let text = text.trim();
    Some(match text.as_bytes().first() {
        Some(b'[' | b'{') => return None,
        Some(b'"') => {
            let text = serde_json::from_str(text).unwrap_or(Text(Cow::Borrowed(text)));
            Value::String(text.0)
        }
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'-' | b'0'..=b'9') => match text.parse() {
            Ok(int) => Value::Int(int),
            Err(_) => Value::Double(text.parse().unwrap_or(f64::NAN)),
        },
        Some(_) | None => Value::Null,
    })
}

/// The elements of an array, in order.
pub(super) fn elements<'a>(text: &Cow<'a, str>) -> Vec<Value<'a>> {
    match text {
        Cow::Borrowed(text) => {
            elements_of(text).map(|element| Value::Json(element.into())).collect()
        }
        Cow::Owned(text) => {
            elements_of(text).map(|element| Value::Json(element.to_owned().into())).collect()
        }
    }
}

fn elements_of(text: &str) -> impl Iterator<Item = &str> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
    elements.into_iter().map(RawValue::get)
}

/// The members of an object, sorted by their names. Of several with the same name the last one
/// counts, as in jsonb.
pub(super) fn entries<'a>(text: &Cow<'a, str>) -> Vec<(Value<'a>, Value<'a>)> {
    match text {
        Cow::Borrowed(text) => {
            let entry = |(name, value): (Cow<'a, str>, &'a str)| {
                (Value::String(name), Value::Json(value.into()))
            };
            members(text).into_iter().map(entry).collect()
        }
        Cow::Owned(text) => {
            let entry = |(name, value): (Cow<'_, str>, &str)| {
                (Value::String(name.into_owned().into()), Value::Json(value.to_owned().into()))
            };
            members(text).into_iter().map(entry).collect()
        }
    }
}

/// The value of the last member of that name; `None` where there is none.
pub(super) fn member<'a>(text: &Cow<'a, str>, name: &str) -> Option<Value<'a>> {
    fn find<'t>(text: &'t str, name: &str) -> Option<&'t str> {
        let mut found = None;
        for_each_member(text, |known, value| {
            if known == name {
                found = Some(value);
            }
        });
        found
    }
    match text {
        Cow::Borrowed(text) => Some(Value::Json(find(text, name)?.into())),
        Cow::Owned(text) => Some(Value::Json(find(text, name)?.to_owned().into())),
    }
}

fn members(text: &str) -> Vec<(Cow<'_, str>, &str)> {
    let mut members = Vec::new();
    for_each_member(text, |name, value| members.push((name, value)));
    // Of the same names the order stays, and of a run of them the first one would be kept.
    members.reverse();
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    members.dedup_by(|(one, _), (other, _)| one == other);
    members
}

/// Calls `take` with each member of the object that the text is, in order.
fn for_each_member<'t>(text: &'t str, take: impl FnMut(Cow<'t, str>, &'t str)) {
    struct Each<F>(F);
    impl<'t, F: FnMut(Cow<'t, str>, &'t str)> Visitor<'t> for Each<F> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<M: MapAccess<'t>>(mut self, mut members: M) -> Result<(), M::Error> {
            while let Some((Text(name), value)) = members.next_entry::<Text<'t>, &'t RawValue>()? {
                (self.0)(name, value.get());
            }
            Ok(())
        }
    }
    // A text that the server did not parse ends here early, which is not to be told from its end.
    let _ = serde_json::Deserializer::from_str(text).deserialize_map(Each(take));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_what_they_hold() {
        for (text, expected, type_name) in [
            (" 1 ", Value::Int(1), "int"),
            ("-0", Value::Int(0), "int"),
            ("9223372036854775807", Value::Int(i64::MAX), "int"),
            ("9223372036854775808", Value::Double(9_223_372_036_854_775_808.0), "double"),
            ("1.50", Value::Double(1.5), "double"),
            ("1e3", Value::Double(1000.0), "double"),
            ("1e999", Value::Double(f64::INFINITY), "double"),
            ("true", Value::Bool(true), "bool"),
            ("false", Value::Bool(false), "bool"),
            ("null", Value::Null, "null_type"),
            (r#""a\"\u00e9""#, Value::text("a\"é"), "string"),
        ] {
            let found = plain(text).expect("a scalar");
            assert_eq!(found.equals(&expected), Ok(true), "{text}");
            assert_eq!(found.type_name(), type_name, "{text}");
        }
        assert!(plain("[1]").is_none());
        assert!(plain(" {}").is_none());
    }

    #[test]
    fn of_members_with_the_same_name_the_last_one_counts() {
        let texts = [r#"{"b": 1, "a": 2, "b": [3]}"#, r#" {"b":0,"b":1,"a":2,"\u0062": [3]} "#];
        for text in texts {
            for text in [Cow::Borrowed(text), Cow::Owned(text.to_owned())] {
                let names: Vec<String> = entries(&text)
                    .into_iter()
                    .map(|(name, value)| format!("{name:?} {value:?}"))
                    .collect();
                assert_eq!(names.len(), 2, "{names:?}");
                let member = |name| member(&text, name).map(Value::plain);
                assert!(matches!(member("a"), Some(Value::Int(2))));
                assert!(matches!(member("b"), Some(Value::Json(list)) if list == "[3]"));
                assert!(member("c").is_none());
            }
        }
    }

    #[test]
    fn elements_are_in_order() {
        for text in [Cow::Borrowed("[1, [2], \"x\"]"), Cow::Owned("[1, [2], \"x\"]".to_owned())] {
            let texts: Vec<String> =
                elements(&text).iter().map(|element| format!("{element:?}")).collect();
            assert_eq!(texts, [r#"Json("1")"#, r#"Json("[2]")"#, r#"Json("\"x\"")"#]);
        }
        assert!(elements(&Cow::Borrowed("[]")).is_empty());
    }
}

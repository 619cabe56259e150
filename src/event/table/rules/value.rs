//! What an expression is while it is carried out.
//!
//! Texts are borrowed from the row or from the rule, so that a comparison copies nothing. JSON stays
//! the text that it is until an operation asks what it holds: what only passes through keeps every
//! digit.

use std::{borrow::Cow, cmp::Ordering, sync::Arc};

use crate::event::table::rules::{
    Problem,
    instant::{Duration, Timestamp},
    json,
};

/// How deep lists and maps are compared: JSON may be nested deeper than the stack allows.
const COMPARED_DEPTH_MAX: usize = 64;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(Cow<'a, str>),
    Timestamp(Timestamp),
    Duration(Duration),
    List(Arc<[Value<'a>]>),
    /// Entries in the order in which they were written; no key is there twice.
    Map(Arc<[(Value<'a>, Value<'a>)]>),
    /// What `type()` gives.
    Type(&'static str),
    /// A JSON text of any kind.
    Json(Cow<'a, str>),
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::String(Cow::Borrowed(text))
    }

    /// The same value, without a copy of its text.
    pub(super) fn borrowed(&'a self) -> Self {
        match self {
            Self::String(text) => Self::String(Cow::Borrowed(text)),
            Self::Json(text) => Self::Json(Cow::Borrowed(text)),
            _ => self.clone(),
        }
    }

    /// The same value, but of a JSON scalar what it holds.
    pub(super) fn plain(self) -> Self {
        match self {
            Self::Json(Cow::Borrowed(text)) => json::plain(text).unwrap_or(self),
            Self::Json(Cow::Owned(ref text)) => match json::plain(text) {
                None => self,
                Some(Value::String(text)) => Value::String(Cow::Owned(text.into_owned())),
                Some(Value::Null) => Value::Null,
                Some(Value::Bool(bool)) => Value::Bool(bool),
                Some(Value::Int(int)) => Value::Int(int),
                Some(Value::Double(double)) => Value::Double(double),
                Some(_) => unreachable!("other values are no JSON scalars"),
            },
            _ => self,
        }
    }

    /// The name of its type; of JSON, of what it holds.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Timestamp(_) => "timestamp",
            Self::Duration(_) => "duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Type(_) => "type",
            Self::Json(text) => match json::plain(text) {
                Some(plain) => plain.type_name(),
                None if json::is_array(text) => "list",
                None => "map",
            },
        }
    }

    /// The elements of a list, also of a JSON array; `None` for what is no list.
    pub(super) fn elements(&self) -> Option<Arc<[Value<'a>]>> {
        match self {
            Self::List(elements) => Some(Arc::clone(elements)),
            Self::Json(text) if json::is_array(text) => Some(json::elements(text).into()),
            _ => None,
        }
    }

    /// The entries of a map, also of a JSON object; `None` for what is no map.
    pub(super) fn entries(&self) -> Option<Arc<[(Value<'a>, Value<'a>)]>> {
        match self {
            Self::Map(entries) => Some(Arc::clone(entries)),
            Self::Json(text) if json::is_object(text) => Some(json::entries(text).into()),
            _ => None,
        }
    }

    /// CEL's equality: any two values have one, numbers as numbers, whatever their types.
    pub(super) fn equals(&self, other: &Self) -> Result<bool, Problem> {
        equal(self, other, COMPARED_DEPTH_MAX)
    }

    /// Which is less; `None` where they have no order, as where one is NaN.
    pub(super) fn order(&self, other: &Self) -> Option<Result<Ordering, Unordered>> {
        let ordered = match (self, other) {
            (Self::Int(one), Self::Int(other)) => one.cmp(other),
            (Self::Int(one), Self::Double(other)) => return Some(order_mixed(*one, *other)),
            (Self::Double(one), Self::Int(other)) => {
                return Some(order_mixed(*other, *one).map(Ordering::reverse));
            }
            (Self::Double(one), Self::Double(other)) => {
                return Some(one.partial_cmp(other).ok_or(Unordered));
            }
            (Self::String(one), Self::String(other)) => one.cmp(other),
            (Self::Bool(one), Self::Bool(other)) => one.cmp(other),
            (Self::Timestamp(one), Self::Timestamp(other)) => one.cmp(other),
            (Self::Duration(one), Self::Duration(other)) => one.cmp(other),
            _ => return None,
        };
        Some(Ok(ordered))
    }
}

/// One of both numbers is NaN, which is neither less nor more than anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unordered;

/// Exactly, also where the int has more digits than a double keeps.
fn order_mixed(int: i64, double: f64) -> Result<Ordering, Unordered> {
    // 2 to the power of 63, the first double that no int reaches.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if double.is_nan() {
        return Err(Unordered);
    }
    if double >= BEYOND {
        return Ok(Ordering::Less);
    }
    if double < -BEYOND {
        return Ok(Ordering::Greater);
    }
    // A double of that range, less its fraction, is an int.
    let whole = double.trunc();
    let fraction = double - whole;
    let by_fraction = if fraction > 0.0 {
        Ordering::Less
    } else if fraction < 0.0 {
        Ordering::Greater
    } else {
        Ordering::Equal
    };
    Ok(int.cmp(&(whole as i64)).then(by_fraction))
}

fn equal<'a>(one: &Value<'a>, other: &Value<'a>, levels: usize) -> Result<bool, Problem> {
    // What is compared most often.
    if let (Value::String(one), Value::String(other)) = (one, other) {
        return Ok(one == other);
    }
    // Of the same text there is nothing to look into; also the one way in which large values meet
    // most often, as `old.payload == new.payload`.
    if let (Value::Json(one), Value::Json(other)) = (one, other)
        && one == other
    {
        return Ok(true);
    }
    let Some(levels) = levels.checked_sub(1) else { return Err(Problem::TooDeep) };
    let is_json = |value: &Value<'_>| matches!(value, Value::Json(_));
    if is_json(one) || is_json(other) {
        let (plain_one, plain_other) = (one.clone().plain(), other.clone().plain());
        if !is_json(&plain_one) && !is_json(&plain_other) {
            return equal(&plain_one, &plain_other, levels);
        }
    }
    if let (Some(one), Some(other)) = (one.elements(), other.elements()) {
        return all_equal(one.iter().zip(other.iter()), one.len() == other.len(), levels);
    }
    if let (Some(one_entries), Some(other_entries)) = (one.entries(), other.entries()) {
        if is_json(one) && is_json(other) {
            // Both are sorted, and may be large.
            let pairs = one_entries.iter().zip(other_entries.iter());
            let pairs = pairs.flat_map(|(one, other)| [(&one.0, &other.0), (&one.1, &other.1)]);
            return all_equal(pairs, one_entries.len() == other_entries.len(), levels);
        }
        return maps_equal(&one_entries, &other_entries, levels);
    }
    Ok(match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Type(one), Value::Type(other)) => one == other,
        _ => one.order(other) == Some(Ok(Ordering::Equal)),
    })
}

fn all_equal<'v, 'a: 'v>(
    pairs: impl Iterator<Item = (&'v Value<'a>, &'v Value<'a>)>,
    same_length: bool,
    levels: usize,
) -> Result<bool, Problem> {
    if !same_length {
        return Ok(false);
    }
    for (one, other) in pairs {
        if !equal(one, other, levels)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps_equal<'a>(
    one: &[(Value<'a>, Value<'a>)],
    other: &[(Value<'a>, Value<'a>)],
    levels: usize,
) -> Result<bool, Problem> {
    if one.len() != other.len() {
        return Ok(false);
    }
    for (key, value) in one {
        match entry(other, key)? {
            Some(found) if equal(value, found, levels)? => {}
            Some(_) | None => return Ok(false),
        }
    }
    Ok(true)
}

/// The value under that key.
pub(super) fn entry<'v, 'a>(
    entries: &'v [(Value<'a>, Value<'a>)],
    wanted: &Value<'a>,
) -> Result<Option<&'v Value<'a>>, Problem> {
    for (key, value) in entries {
        if key.equals(wanted)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value<'_> {
        Value::Json(Cow::Borrowed(text))
    }

    #[test]
    fn ints_and_doubles_compare_exactly() {
        let int = Value::Int;
        let double = Value::Double;
        for (one, other, order) in [
            (int(1), double(1.0), Some(Ok(Ordering::Equal))),
            (int(1), double(1.5), Some(Ok(Ordering::Less))),
            (int(-1), double(-1.5), Some(Ok(Ordering::Greater))),
            (int(0), double(-0.0), Some(Ok(Ordering::Equal))),
            (
                int(9_007_199_254_740_993),
                double(9_007_199_254_740_992.0),
                Some(Ok(Ordering::Greater)),
            ),
            (int(i64::MAX), double(9_223_372_036_854_775_808.0), Some(Ok(Ordering::Less))),
            (int(i64::MIN), double(-9_223_372_036_854_775_808.0), Some(Ok(Ordering::Equal))),
            (int(i64::MIN), double(f64::NEG_INFINITY), Some(Ok(Ordering::Greater))),
            (int(1), double(f64::NAN), Some(Err(Unordered))),
            (double(f64::NAN), double(f64::NAN), Some(Err(Unordered))),
            (int(1), Value::text("1"), None),
        ] {
            assert_eq!(one.order(&other), order, "{one:?} {other:?}");
            let reversed = order.map(|order| order.map(Ordering::reverse));
            assert_eq!(other.order(&one), reversed, "{other:?} {one:?}");
        }
    }

    #[test]
    fn json_equals_by_what_it_holds() {
        for (one, other, expected) in [
            ("1", "1.0", true),
            ("\"a\"", "\"\\u0061\"", true),
            ("[1, 2]", "[1,2.0]", true),
            ("[1]", "[1, 1]", false),
            (r#"{"a": 1, "b": {"c": null}}"#, r#"{"b":{"c":null},"a":1}"#, true),
            (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, false),
            (r#"{"a": 1}"#, r#"{"b": 1}"#, false),
            (r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#, true),
            ("null", "false", false),
            ("[]", "{}", false),
            ("[]", "0", false),
        ] {
            assert_eq!(json(one).equals(&json(other)), Ok(expected), "{one} {other}");
            assert_eq!(json(other).equals(&json(one)), Ok(expected), "{other} {one}");
        }
        let list = Value::List(vec![Value::Int(1), Value::text("a")].into());
        assert_eq!(json("[1, \"a\"]").equals(&list), Ok(true));
        assert_eq!(list.equals(&json("[1, \"b\"]")), Ok(false));
        assert_eq!(Value::Null.equals(&json("null")), Ok(true));
    }

    #[test]
    fn json_that_is_nested_without_end_is_no_crash() {
        let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(50_000), "]".repeat(50_000));
        let (one, other) = (nested("1"), nested("2"));
        assert_eq!(json(&one).equals(&json(&other)), Err(Problem::TooDeep));
        assert_eq!(json(&one).equals(&json(&one)), Ok(true));
        assert_eq!(json(&one).type_name(), "list");
    }
}

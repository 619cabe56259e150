//! The column `headers`: a JSON object whose members become record headers.
//!
//! A string becomes its text, null no header, anything else its JSON text. A row without such a
//! column costs nothing here; one with it an allocation a member.

use std::{borrow::Cow, collections::HashSet};

use crate::{
    change::Tuple,
    event::{
        EXTRA_HEADERS_MAX, HEADER_NAME_BYTES_MAX, HeaderProblem, Reason,
        json::{Malformed, Members, StringAt, ValueAt},
        outbox::{
            columns::{Columns, HeaderObject, ObjectText},
            payload,
        },
    },
};

/// A member's name, and the value that it gives a header: none for null.
type Member = (String, Option<String>);

/// Reads the row's members into `headers`, in place of those of the row before.
///
/// A record never has two headers of one name: kafkajs would hand over a list. Left out are members
/// that the record has from elsewhere: by `is_own` from Tailwater itself, else from a column that
/// the settings name.
pub(super) fn read(
    columns: &Columns,
    tuple: Tuple<'_>,
    is_own: impl Fn(&str) -> bool,
    headers: &mut Vec<(String, String)>,
) -> Result<(), Reason> {
    headers.clear();
    let Some(HeaderObject { column, text: kind }) = &columns.header_object else { return Ok(()) };
    let Some(text) = column.text(tuple)? else { return Ok(()) };
    let refuse = |problem| Reason::Headers { column: column.owned_name(), problem };
    for (name, value) in read_members(*kind, text).map_err(refuse)? {
        let Some(value) = value else { continue };
        if is_own(&name) || is_set(columns, tuple, &name)? {
            continue;
        }
        if name.len() > HEADER_NAME_BYTES_MAX {
            return Err(refuse(HeaderProblem::NameTooLong));
        }
        headers.push((name, value));
    }
    if headers.len() + columns.headers.len() > EXTRA_HEADERS_MAX {
        return Err(refuse(HeaderProblem::TooMany));
    }
    Ok(())
}

/// Whether a column that the settings name makes a header of that name for this row.
fn is_set(columns: &Columns, tuple: Tuple<'_>, name: &str) -> Result<bool, Reason> {
    let configured = columns.headers.iter().find(|(header, _)| header == name);
    configured.map_or(Ok(false), |(_, column)| Ok(column.bytes(tuple)?.is_some()))
}

/// The members of an object, each name once.
fn read_members(kind: ObjectText, text: &str) -> Result<Vec<Member>, HeaderProblem> {
    check_text(kind, text)?;
    // A JSON null is as good as SQL's.
    if text.trim_ascii() == "null" {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut members = Members::of(text).ok_or(HeaderProblem::NotObject)?;
    while let Some(member) = members.next().map_err(|Malformed| HeaderProblem::NotObject)? {
        let value = match &member.value {
            ValueAt::Null => None,
            ValueAt::String(string) => Some(plain(text, string)?),
            ValueAt::Other => Some(member.written_value(text).to_owned()),
        };
        found.push((plain(text, &member.name)?, value));
    }
    match kind {
        ObjectText::Jsonb => {}
        ObjectText::Json | ObjectText::OfUserType => keep_last_of_each_name(&mut found),
    }
    Ok(found)
}

/// As jsonb does it.
fn keep_last_of_each_name(found: &mut Vec<Member>) {
    let mut seen = HashSet::with_capacity(found.len());
    found.reverse();
    found.retain(|(name, _)| seen.insert(name.clone()));
    found.reverse();
}

/// The walk over the members expects JSON.
fn check_text(kind: ObjectText, text: &str) -> Result<(), HeaderProblem> {
    match kind {
        ObjectText::Jsonb | ObjectText::Json => Ok(()),
        ObjectText::OfUserType => {
            payload::check_json(text).map_err(|_place| HeaderProblem::NotObject)
        }
    }
}

/// A string's text.
fn plain(text: &str, string: &StringAt) -> Result<String, HeaderProblem> {
    string.text(text).map(Cow::into_owned).map_err(|Malformed| HeaderProblem::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(kind: ObjectText, text: &str) -> Result<Vec<Member>, HeaderProblem> {
        read_members(kind, text)
    }

    fn expected(members: &[(&str, Option<&str>)]) -> Result<Vec<Member>, HeaderProblem> {
        let owned =
            |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
        Ok(members.iter().map(owned).collect())
    }

    #[test]
    fn members_become_headers_by_their_text() {
        let text = r#"{"tenant": "a\u00e9", "retries": 1.10, "gone": null, "flags": ["x", 1]}"#;
        let values = [
            ("tenant", Some("aé")),
            ("retries", Some("1.10")),
            ("gone", None),
            ("flags", Some(r#"["x", 1]"#)),
        ];
        assert_eq!(members(ObjectText::Jsonb, text), expected(&values));
        for nothing in ["{}", "null", " null\n"] {
            assert_eq!(members(ObjectText::Json, nothing), expected(&[]));
        }
    }

    #[test]
    fn of_members_with_one_name_the_last_counts() {
        let text = r#"{"a": 1, "b": 2, "\u0061": 3, "c": 4, "c": null}"#;
        let last = [("b", Some("2")), ("a", Some("3")), ("c", None)];
        for kind in [ObjectText::Json, ObjectText::OfUserType] {
            assert_eq!(members(kind, text), expected(&last));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[1]", "7", "\"text\""] {
            assert_eq!(members(ObjectText::Jsonb, text), Err(HeaderProblem::NotObject), "{text}");
        }
        assert_eq!(members(ObjectText::OfUserType, "{a}"), Err(HeaderProblem::NotObject));
    }
}

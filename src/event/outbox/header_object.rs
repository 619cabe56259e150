//! The column `headers`: a JSON object whose members become record headers.
//!
//! A string becomes its text, null no header, anything else its JSON text. A row without such a
//! column costs nothing here; one with it an allocation a member.

use crate::{
    change::Tuple,
    event::{
        EXTRA_HEADERS_MAX, HEADER_NAME_BYTES_MAX, HeaderProblem, Reason,
        json::{self, Malformed, Members, StringAt, ValueAt},
        outbox::{
            columns::{Columns, HeaderObject, ObjectText},
            payload,
        },
    },
};

/// Reads the row's members into `headers`, in place of those of the row before.
pub(super) fn read(
    columns: &Columns,
    tuple: Tuple<'_>,
    headers: &mut Vec<(String, String)>,
) -> Result<(), Reason> {
    headers.clear();
    let Some(HeaderObject { column, text: kind }) = &columns.header_object else { return Ok(()) };
    let Some(text) = column.text(tuple)? else { return Ok(()) };
    let headers_max = EXTRA_HEADERS_MAX.saturating_sub(columns.headers.len());
    check_text(*kind, text)
        .and_then(|()| read_members(text, headers_max, headers))
        .map_err(|problem| Reason::Headers { column: column.owned_name(), problem })
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

fn read_members(
    text: &str,
    headers_max: usize,
    headers: &mut Vec<(String, String)>,
) -> Result<(), HeaderProblem> {
    // A JSON null is as good as SQL's.
    if text == "null" {
        return Ok(());
    }
    let mut members = Members::of(text).ok_or(HeaderProblem::NotObject)?;
    while let Some(member) = members.next().map_err(|Malformed| HeaderProblem::NotObject)? {
        let value = match &member.value {
            ValueAt::Null => continue,
            ValueAt::String(string) => plain(text, string)?,
            ValueAt::Other => {
                let behind = text.get(member.name.content.end + 1..member.end);
                let behind = behind.expect("a value ends behind its name");
                behind.trim_start_matches([' ', '\t', '\n', '\r', ':']).to_owned()
            }
        };
        let name = plain(text, &member.name)?;
        if name.len() > HEADER_NAME_BYTES_MAX {
            return Err(HeaderProblem::NameTooLong);
        }
        if headers.len() == headers_max {
            return Err(HeaderProblem::TooMany);
        }
        headers.push((name, value));
    }
    Ok(())
}

/// A string's text.
fn plain(text: &str, string: &StringAt) -> Result<String, HeaderProblem> {
    let content = text.get(string.content.clone()).expect("a string lies between its quotes");
    if !string.has_escapes {
        return Ok(content.to_owned());
    }
    let mut plain = String::new();
    json::unescape(content, &mut plain).map_err(|Malformed| HeaderProblem::NotText)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> Result<Vec<(String, String)>, HeaderProblem> {
        let mut headers = Vec::new();
        read_members(text, EXTRA_HEADERS_MAX, &mut headers)?;
        Ok(headers)
    }

    #[test]
    fn members_become_headers_by_their_text() {
        let text = r#"{"tenant": "a\u00e9", "retries": 1.10, "gone": null, "flags": ["x", 1]}"#;
        let expected = [("tenant", "aé"), ("retries", "1.10"), ("flags", r#"["x", 1]"#)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers(text).expect("an object"), expected);
        for nothing in ["{}", "null"] {
            assert_eq!(headers(nothing).expect("no headers"), []);
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[1]", "7", "\"text\""] {
            assert_eq!(headers(text), Err(HeaderProblem::NotObject), "{text}");
        }
    }
}

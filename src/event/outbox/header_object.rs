//! The column `headers`: a JSON object whose members become record headers.
//!
//! A string becomes its text, null no header, anything else its JSON text. A row without such a
//! column costs nothing here; one with it an allocation a member.

use crate::{
    change::Tuple,
    event::{
        Reason,
        json::{self, Malformed, Members, StringAt, ValueAt},
        outbox::ColumnAt,
    },
};

/// Reads the row's members into `headers`, in place of those of the row before.
pub(super) fn read(
    column: &Option<ColumnAt>,
    tuple: Tuple<'_>,
    headers: &mut Vec<(String, String)>,
) -> Result<(), Reason> {
    headers.clear();
    let Some(column) = column else { return Ok(()) };
    let Some(text) = column.text(tuple)? else { return Ok(()) };
    // A JSON null is as good as SQL's.
    if text == "null" {
        return Ok(());
    }
    let not_object = || Reason::NotObject { column: column.name().to_owned() };
    let mut members = Members::of(text).ok_or_else(not_object)?;
    while let Some(member) = members.next().map_err(|Malformed| not_object())? {
        let value = match &member.value {
            ValueAt::Null => continue,
            ValueAt::String(string) => plain(text, string).map_err(|Malformed| not_object())?,
            ValueAt::Other => {
                let behind = text.get(member.name.content.end + 1..member.end).unwrap_or_default();
                behind.trim_start_matches([' ', '\t', '\n', '\r', ':']).to_owned()
            }
        };
        headers.push((plain(text, &member.name).map_err(|Malformed| not_object())?, value));
    }
    Ok(())
}

/// A string's text.
fn plain(text: &str, string: &StringAt) -> Result<String, Malformed> {
    let content = text.get(string.content.clone()).ok_or(Malformed)?;
    if !string.has_escapes {
        return Ok(content.to_owned());
    }
    let mut plain = String::new();
    json::unescape(content, &mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ValueSlot;

    fn headers(text: &str) -> Result<Vec<(String, String)>, Reason> {
        let length = u32::try_from(text.len()).expect("short");
        let slots = [ValueSlot::Text { start: 0, length }];
        let column = Some(ColumnAt::for_test(0, "headers"));
        let mut headers = vec![("of the row before".to_owned(), String::new())];
        read(&column, Tuple::new(text.as_bytes(), &slots), &mut headers)?;
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
            assert!(matches!(headers(text), Err(Reason::NotObject { .. })), "{text}");
        }
    }
}

//! What is still known of a row or a message that cannot be an event.

use serde::Deserialize;
use serde_json::Value;

use crate::{change::Tuple, event::table::RowView};

/// A row or a message that cannot be an event.
#[derive(Clone, Copy, Debug)]
pub struct Unmapped<'a> {
    /// Where its event would go, where that much can be read.
    pub topic: Option<&'a str>,
    /// The key that its event would have.
    pub key: Option<&'a [u8]>,
    /// All of it, as it came.
    pub raw: Raw<'a>,
}

/// As it came.
#[derive(Clone, Copy, Debug)]
pub enum Raw<'a> {
    /// An inserted row.
    Row {
        /// `schema.table`.
        table: &'a str,
        /// The names of its columns.
        columns: &'a [String],
        /// Their values.
        tuple: Tuple<'a>,
    },
    /// A change of a domain table.
    Change {
        /// `schema.table`.
        table: &'a str,
        /// What the server sent of the old row.
        old: Option<RowView<'a>>,
        /// The new row.
        new: Option<RowView<'a>>,
    },
    /// A message.
    Message {
        /// Its prefix.
        prefix: &'a str,
        /// Its content.
        content: &'a [u8],
    },
}

/// Type and key of a message's content, as far as they can be read.
pub(super) fn type_and_key(content: &[u8]) -> (Option<String>, Option<String>) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Known {
        r#type: Option<Value>,
        aggregate_id: Option<Value>,
    }
    let Ok(known) = serde_json::from_slice::<Known>(content) else { return (None, None) };
    let event_type = match known.r#type {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let key = match known.aggregate_id {
        Some(Value::String(text)) => Some(text),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    (event_type, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_key_are_read_where_they_are_there() {
        let read = |content: &str| type_and_key(content.as_bytes());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(read(r#"{"type": "a.b", "aggregateId": 7}"#), (text("a.b"), text("7")));
        assert_eq!(read(r#"{"type": "", "aggregateId": "x"}"#), (None, text("x")));
        assert_eq!(read(r#"{"type": 1}"#), (None, None));
        assert_eq!(read("[]"), (None, None));
        assert_eq!(read("{"), (None, None));
    }
}

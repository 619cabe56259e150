//! Lists of columns.

use serde_json::{Value as Json, json};

use super::{
    document::{Node, Value},
    mistake::Mistakes,
    scalar::Located,
    section::Read,
};

/// What is expected of such a list.
const EXPECTED: &str = "a list of columns, as [\"id\"]";

/// Columns, none of them twice. A list that is there holds something.
#[derive(Clone, Debug)]
pub(super) struct ColumnList(pub(super) Vec<Located<String>>);

impl ColumnList {
    /// Without the places.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().map(|column| column.value.clone()).collect()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|column| column.value == name)
    }
}

impl Read for ColumnList {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let problem = format!("must be {EXPECTED}, not {}", node.value.kind());
            mistakes.add(&node.origin, key, problem);
            return None;
        };
        if items.is_empty() {
            mistakes.add(&node.origin, key, format!("must be {EXPECTED}, or be left out"));
            return None;
        }
        let (mut columns, mut is_whole) = (Self(Vec::new()), true);
        for item in items {
            if matches!(item.value, Value::Mistaken) {
                is_whole = false;
                continue;
            }
            match Located::<String>::read(item, key, mistakes) {
                Some(column) if columns.contains(&column.value) => {
                    let problem = format!("names the column \"{}\" twice", column.value);
                    mistakes.add(&column.origin, key, problem);
                    is_whole = false;
                }
                Some(column) => columns.0.push(column),
                None => is_whole = false,
            }
        }
        is_whole.then_some(columns)
    }

    fn expected(_key: &str) -> String {
        EXPECTED.to_owned()
    }

    fn schema() -> Json {
        json!({
            "type": "array",
            "items": String::schema(),
            "minItems": 1,
            "uniqueItems": true,
        })
    }
}

//! Tables whose keys are the user's and whose order counts: masks and forms by column, an event's
//! data by member.

use serde_json::{Value as Json, json};

use super::{
    document::{Node, Value, join},
    mistake::Mistakes,
    section::Read,
};

/// Names of the user's own, each with something, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct ByName<T>(pub(super) Vec<(String, T)>);

impl<T: Read> Read for ByName<T> {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            let problem = format!("must be {}, not {}", Self::expected(key), node.value.kind());
            mistakes.add(&node.origin, key, problem);
            return None;
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(_, node)| node.position);
        // All are read before any is missed, so that each one's mistakes are found.
        let read: Vec<Option<(String, T)>> = entries
            .into_iter()
            .map(|(name, node)| {
                if matches!(node.value, Value::Mistaken) {
                    return None;
                }
                Some((name.clone(), T::read(node, &join(key, name), mistakes)?))
            })
            .collect();
        read.into_iter().collect::<Option<_>>().map(Self)
    }

    fn absent() -> Option<Self> {
        Some(Self(Vec::new()))
    }

    fn expected(key: &str) -> String {
        format!("a table of names, each with {}", T::expected(key))
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

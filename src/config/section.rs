//! How a part of the file is read: every key that it may hold is asked for once, so what is left
//! over is unknown.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{
    document::{Node, Value, join},
    mistake::{Mistakes, Origin},
};

/// Something that a setting can be.
pub(super) trait Read: Sized {
    /// Reads it. Where it cannot, the mistake is noted and there is nothing.
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self>;

    /// What it is where nothing is said; `None` where something must be said.
    fn absent() -> Option<Self> {
        None
    }

    /// What must be said, in words, where nothing may not be.
    fn expected(key: &str) -> String;

    /// Its JSON Schema.
    fn schema() -> Json;
}

/// A default as it could stand in the file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Literal {
    Text(&'static str),
    Boolean(bool),
}

impl From<&'static str> for Literal {
    fn from(text: &'static str) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Literal {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}

impl Literal {
    fn node(self) -> Node {
        let value = match self {
            Self::Text(text) => Value::Text(text.to_owned()),
            Self::Boolean(boolean) => Value::Boolean(boolean),
        };
        Node::of_nowhere(value)
    }

    fn json(self) -> Json {
        match self {
            Self::Text(text) => json!(text),
            Self::Boolean(boolean) => json!(boolean),
        }
    }
}

/// A table of the file.
pub(super) struct Place<'a> {
    pub(super) table: &'a BTreeMap<String, Node>,
    pub(super) path: &'a str,
    pub(super) origin: &'a Origin,
}

/// The key of a field, which may be a word of Rust's: `r#type`.
pub(super) fn key_name(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// Reads one key of a table.
pub(super) fn read_key<T: Read>(
    place: &Place<'_>,
    name: &str,
    default: Option<Literal>,
    mistakes: &mut Mistakes,
) -> Option<T> {
    let key = join(place.path, name);
    if let Some(node) = place.table.get(name) {
        if matches!(node.value, Value::Mistaken) {
            return None;
        }
        return T::read(node, &key, mistakes);
    }
    let found = match default {
        Some(literal) => T::read(&literal.node(), &key, mistakes),
        None => T::absent(),
    };
    if found.is_none() {
        // A variable that sets another key of the table says nothing of where this one belongs.
        let origin = match place.origin {
            Origin::Line(line) => Origin::Line(*line),
            Origin::Environment(_) | Origin::Nowhere => Origin::Nowhere,
        };
        mistakes.add(&origin, &key, format!("is missing: {}", T::expected(&key)));
    }
    found
}

/// Notes each key that is none of `known`, with the one that was probably meant.
pub(super) fn refuse_unknown(
    table: &BTreeMap<String, Node>,
    path: &str,
    known: &[&str],
    mistakes: &mut Mistakes,
) {
    for (name, node) in table.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        let nearest = known
            .iter()
            .map(|known| (strsim::jaro_winkler(known, name), known))
            .max_by(|left, right| left.0.total_cmp(&right.0));
        let problem = match nearest {
            Some((likeness, nearest)) if likeness > LIKENESS_MIN => {
                format!("is not a setting; the nearest is {}", join(path, nearest))
            }
            Some(_) | None => format!("is not a setting; there are {}", known.join(", ")),
        };
        mistakes.add(&node.origin, &join(path, name), problem);
    }
}

/// The keys that a section must hold, for a message that asks for the section.
pub(super) fn required_keys(schema: &Json) -> String {
    let required = schema["required"].as_array().into_iter().flatten();
    required.filter_map(Json::as_str).collect::<Vec<_>>().join(" and ")
}

/// Below it, the nearest key is probably not what was meant (`strsim::jaro_winkler`, 0 to 1).
const LIKENESS_MIN: f64 = 0.8;

/// The schema of one key.
pub(super) fn key_schema<T: Read>(about: &str, default: Option<Literal>) -> (Json, bool) {
    let mut schema = T::schema();
    if let Some(members) = schema.as_object_mut() {
        let about: Vec<&str> = about.lines().map(str::trim).collect();
        members.insert("description".to_owned(), json!(about.join(" ")));
        if let Some(literal) = default {
            members.insert("default".to_owned(), literal.json());
        }
    }
    (schema, default.is_none() && T::absent().is_none())
}

/// Declares a part of the file: a struct of what it holds, its reader and its schema.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $($(#[doc = $doc:literal])+ $key:ident: $type:ty $(= $default:literal)?,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub(super) struct $name {
            $($(#[doc = $doc])+ pub(super) $key: $type,)+
        }

        impl $crate::config::section::Read for $name {
            fn read(
                node: &$crate::config::document::Node,
                key: &str,
                mistakes: &mut $crate::config::mistake::Mistakes,
            ) -> Option<Self> {
                let $crate::config::document::Value::Table(table) = &node.value else {
                    let problem = format!("must be a table, not {}", node.value.kind());
                    mistakes.add(&node.origin, key, problem);
                    return None;
                };
                let known = [$($crate::config::section::key_name(stringify!($key))),+];
                $crate::config::section::refuse_unknown(table, key, &known, mistakes);
                let place =
                    $crate::config::section::Place { table, path: key, origin: &node.origin };
                $(let $key = $crate::config::section::read_key::<$type>(
                    &place,
                    $crate::config::section::key_name(stringify!($key)),
                    None::<$crate::config::section::Literal>$(.or(Some($default.into())))?,
                    mistakes,
                );)+
                Some(Self { $($key: $key?,)+ })
            }

            fn absent() -> Option<Self> {
                let mut mistakes = $crate::config::mistake::Mistakes::default();
                let nothing = $crate::config::document::Node::empty_table();
                Self::read(&nothing, "", &mut mistakes)
            }

            fn expected(key: &str) -> String {
                let required = $crate::config::section::required_keys(&Self::schema());
                format!("a section [{key}] with {required}")
            }

            fn schema() -> serde_json::Value {
                let mut properties = serde_json::Map::new();
                let mut required: Vec<&str> = Vec::new();
                $(
                    let (schema, is_required) = $crate::config::section::key_schema::<$type>(
                        concat!($($doc, "\n"),+),
                        None::<$crate::config::section::Literal>$(.or(Some($default.into())))?,
                    );
                    let name = $crate::config::section::key_name(stringify!($key));
                    properties.insert(name.to_owned(), schema);
                    if is_required {
                        required.push(name);
                    }
                )+
                serde_json::json!({
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }
        }
    };
}

pub(super) use section;

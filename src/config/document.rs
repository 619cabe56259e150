//! The file as a tree whose every node knows where it was given.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::mistake::{Mistakes, Origin};

/// Overrides begin with it and have `__` between the names of their path.
const OVERRIDE_PREFIX: &str = "TAILWATER_";

/// A value and where it was given.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// Which byte of the file it begins at, for what counts in the order of the file; 0 where it is
    /// not of the file.
    pub(super) position: usize,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// A kind that no setting has.
    Other(&'static str),
    /// Its mistake was noted already.
    Mistaken,
}

impl Value {
    /// What it is, for a message that says what was expected instead.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
            Self::Mistaken => "what it is",
        }
    }
}

impl Node {
    pub(super) fn empty_table() -> Self {
        Self::of_nowhere(Value::Table(BTreeMap::new()))
    }

    /// What nobody said.
    pub(super) fn of_nowhere(value: Value) -> Self {
        Self { value, origin: Origin::Nowhere, position: 0 }
    }

    /// Puts a text at the end of a path of tables, where nobody said anything.
    pub(super) fn supply(&mut self, path: &[&str], text: &str) {
        let Value::Table(table) = &mut self.value else { return };
        let Some((name, rest)) = path.split_first() else { return };
        let node = table.entry((*name).to_owned()).or_insert_with(|| match rest {
            [] => Self::of_nowhere(Value::Text(text.to_owned())),
            _ => Self::empty_table(),
        });
        node.supply(rest, text);
    }
}

/// Reads a file's text and what the environment says of it. The environment is a map from names to
/// values.
pub(super) fn read(
    text: &str,
    environment: &BTreeMap<String, String>,
    mistakes: &mut Mistakes,
) -> Node {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        let problem = format!("this is not TOML: {}", error.message().replace('\n', ", "));
        mistakes.add(&Origin::Line(line), "", problem);
    }
    let overrides: Vec<(Vec<String>, Node)> = environment
        .iter()
        .filter_map(|(name, value)| {
            let origin = Origin::Environment(name.clone());
            let node = Node { value: Value::Text(value.clone()), origin, position: 0 };
            Some((override_path(name)?, node))
        })
        .collect();
    let overridden = overrides.iter().map(|(path, _)| path.join(".")).collect();
    let mut reader = Reader { text, environment, overridden, mistakes };
    let mut root = reader.table(document.into_inner(), "");
    for (path, node) in overrides {
        reader.place(&mut root, &path, node);
    }
    Node::of_nowhere(Value::Table(root))
}

fn line_of(text: &str, position: usize) -> usize {
    1 + text.bytes().take(position).filter(|byte| *byte == b'\n').count()
}

/// `TAILWATER_POSTGRES__URL` is `postgres.url`. Variables without `__` are not ours: Kubernetes
/// makes such ones for a service of our name.
fn override_path(variable: &str) -> Option<Vec<String>> {
    let path = variable.strip_prefix(OVERRIDE_PREFIX)?;
    let mut path: Vec<String> =
        path.contains("__").then(|| path.split("__").map(str::to_lowercase).collect())?;
    if let [.., table, name] = path.as_mut_slice()
        && FREE_TABLES.contains(&table.as_str())
    {
        // A property's name has dots where a variable's name can only have underscores.
        *name = name.replace('_', ".");
    }
    Some(path)
}

struct Reader<'a> {
    text: &'a str,
    environment: &'a BTreeMap<String, String>,
    /// Keys that variables set: what the file says of them does not count.
    overridden: BTreeSet<String>,
    mistakes: &'a mut Mistakes,
}

impl Reader<'_> {
    fn table(&mut self, table: DeTable<'_>, path: &str) -> BTreeMap<String, Node> {
        let mut nodes = BTreeMap::new();
        for (key, value) in table {
            let key = key.into_inner().into_owned();
            let path = join(path, &key);
            let node = self.node(value, &path);
            nodes.insert(key, node);
        }
        nodes
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>, path: &str) -> Node {
        let position = value.span().start;
        let origin = Origin::Line(line_of(self.text, position));
        let value = match value.into_inner() {
            DeValue::String(text) if self.overridden.contains(path) => {
                Value::Text(text.into_owned())
            }
            DeValue::String(text) => {
                self.substitute(text, &origin, path).map_or(Value::Mistaken, Value::Text)
            }
            DeValue::Integer(integer) => {
                let digits = integer.as_str();
                i64::from_str_radix(digits, integer.radix())
                    .map_or(Value::Other("a number beyond 64 bits"), Value::Integer)
            }
            DeValue::Float(_) => Value::Other("a fraction"),
            DeValue::Boolean(boolean) => Value::Boolean(boolean),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(array) => {
                Value::List(array.into_iter().map(|item| self.node(item, path)).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table, path)),
        };
        Node { value, origin, position }
    }

    /// Puts variables in the place of `${NAME}`; `$${` is a literal `${`.
    fn substitute(&mut self, text: Cow<'_, str>, origin: &Origin, path: &str) -> Option<String> {
        let mut result = String::new();
        let mut is_whole = true;
        let mut rest = text.as_ref();
        while let Some(start) = rest.find("${") {
            let (before, from) = rest.split_at(start);
            let inside = from.split_at(2).1;
            if let Some(before) = before.strip_suffix('$') {
                result.push_str(before);
                result.push_str("${");
                rest = inside;
                continue;
            }
            result.push_str(before);
            let Some((name, behind)) = inside.split_once('}') else {
                let problem = "has \"${\" without its \"}\"; write \"$${\" for a literal \"${\"";
                self.mistakes.add(origin, path, problem);
                return None;
            };
            match self.environment.get(name) {
                Some(value) => result.push_str(value),
                None => {
                    let problem =
                        format!("needs the environment variable {name}, which is not set");
                    self.mistakes.add(origin, path, problem);
                    is_whole = false;
                }
            }
            rest = behind;
        }
        result.push_str(rest);
        is_whole.then_some(result)
    }

    /// Puts an override in the place that its path names.
    fn place(&mut self, table: &mut BTreeMap<String, Node>, path: &[String], node: Node) {
        let [key, deeper @ ..] = path else { return };
        if deeper.is_empty() {
            table.insert(key.clone(), node);
            return;
        }
        let next = table.entry(key.clone()).or_insert_with(|| Node {
            value: Value::Table(BTreeMap::new()),
            origin: node.origin.clone(),
            position: node.position,
        });
        match &mut next.value {
            Value::Table(inner) => self.place(inner, deeper, node),
            Value::List(_) => {
                let problem = "is a list, which an environment variable cannot reach into";
                self.mistakes.add(&node.origin, key, problem);
            }
            Value::Text(_)
            | Value::Integer(_)
            | Value::Boolean(_)
            | Value::Other(_)
            | Value::Mistaken => {
                let problem = "is no table, so nothing in it can be overridden";
                self.mistakes.add(&node.origin, key, problem);
            }
        }
    }
}

/// Tables whose keys are Kafka's.
const FREE_TABLES: [&str; 2] = ["properties", "config"];

/// A path with one more name.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

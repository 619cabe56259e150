//! The kinds of values that settings have.

use serde_json::{Value as Json, json};
use tracing_subscriber::EnvFilter;

use super::{
    document::{Node, Value},
    mistake::{Mistakes, Origin},
    section::{Read, required_keys},
};
use crate::{
    admin::{SOCKET_PATH_BYTES_MAX, Socket},
    event::{
        TopicTemplate, TypeGlob, TypeTemplate, check_topic_name,
        table::{Salt, TablePattern, rules},
    },
    postgres::{PublicationName, Secret, SlotName, TableName},
};

/// The shortest `mask_salt`. One of 16 hexadecimal digits has 64 bits, which nobody tries out.
const SALT_CHARACTERS_MIN: usize = 16;

impl<T: Read> Read for Option<T> {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        T::read(node, key, mistakes).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn expected(key: &str) -> String {
        T::expected(key)
    }

    fn schema() -> Json {
        T::schema()
    }
}

/// A value and where it was given, for what can only be judged beside others.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl<T: Read> Read for Located<T> {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let value = T::read(node, key, mistakes)?;
        Some(Self { value, origin: node.origin.clone() })
    }

    fn expected(key: &str) -> String {
        T::expected(key)
    }

    fn schema() -> Json {
        T::schema()
    }
}

/// A list of sections, as `[[outbox]]`; one that is there holds something.
impl<T: Read> Read for Vec<T> {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let problem = format!("must be written as [[{key}]], not {}", node.value.kind());
            mistakes.add(&node.origin, key, problem);
            return None;
        };
        if items.is_empty() {
            mistakes.add(&node.origin, key, "must not be empty");
            return None;
        }
        // All are read before any is missed, so that each one's mistakes are found.
        let read: Vec<Option<T>> = items.iter().map(|item| T::read(item, key, mistakes)).collect();
        read.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }

    fn expected(key: &str) -> String {
        format!("a section [[{key}]] with {}", required_keys(&T::schema()))
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema(), "minItems": 1 })
    }
}

/// The node's text, or a mistake that says what is expected.
pub(super) fn text<'a>(
    node: &'a Node,
    key: &str,
    expected: &str,
    mistakes: &mut Mistakes,
) -> Option<&'a str> {
    match &node.value {
        Value::Text(text) => Some(text),
        other => {
            let problem = format!("must be {expected}, not {}", other.kind());
            mistakes.add(&node.origin, key, problem);
            None
        }
    }
}

/// Takes `parsed`, or notes its error.
pub(super) fn noted<T>(
    node: &Node,
    key: &str,
    parsed: Result<T, String>,
    mistakes: &mut Mistakes,
) -> Option<T> {
    parsed.map_err(|problem| mistakes.add(&node.origin, key, problem)).ok()
}

/// The schema of a text that has this form, or a variable in it, whose value nobody knows yet.
pub(super) fn pattern(form: &str) -> Json {
    json!({ "type": "string", "pattern": format!("^({form}|.*\\$\\{{.*)$") })
}

impl Read for String {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let text = text(node, key, &Self::expected(key), mistakes)?;
        if text.trim().is_empty() {
            mistakes.add(&node.origin, key, "must not be empty");
            return None;
        }
        Some(text.to_owned())
    }

    fn expected(_key: &str) -> String {
        "a text in quotes".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Read for bool {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        match (&node.value, &node.origin) {
            (Value::Boolean(boolean), _) => Some(*boolean),
            (Value::Text(text), Origin::Environment(_)) if text == "true" => Some(true),
            (Value::Text(text), Origin::Environment(_)) if text == "false" => Some(false),
            (other, _) => {
                let problem = format!("must be {}, not {}", Self::expected(key), other.kind());
                mistakes.add(&node.origin, key, problem);
                None
            }
        }
    }

    fn expected(_key: &str) -> String {
        "true or false".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// A number of things: 1 or more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Count(pub(super) i32);

impl Read for Count {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let number = match (&node.value, &node.origin) {
            (Value::Integer(number), _) => i32::try_from(*number).ok(),
            (Value::Text(text), Origin::Environment(_)) => text.parse().ok(),
            _ => None,
        };
        let count = number.filter(|number| *number >= 1);
        if count.is_none() {
            mistakes.add(&node.origin, key, format!("must be {}", Self::expected(key)));
        }
        count.map(Self)
    }

    fn expected(_key: &str) -> String {
        "a number of at least 1, without quotes".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": 1, "maximum": i32::MAX })
    }
}

/// What a file holds that is named instead of a password.
#[derive(Clone, Debug)]
pub(super) struct SecretFile(pub(super) Secret);

impl Read for SecretFile {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let path = text(node, key, &Self::expected(key), mistakes)?;
        let read = std::fs::read_to_string(path)
            // Editors and `echo` leave a line feed that is no part of it.
            .map(|text| Self(Secret::new(text.trim_end_matches(['\r', '\n']))))
            .map_err(|error| format!("\"{path}\" cannot be read: {error}"));
        noted(node, key, read, mistakes)
    }

    fn expected(_key: &str) -> String {
        "a file's path".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

macro_rules! parsed {
    ($($type:ty, $expected:literal, $schema:expr, $parse:expr;)+) => {
        $(impl Read for $type {
            fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
                let text = text(node, key, $expected, mistakes)?;
                let parse: fn(&str) -> Result<Self, String> = $parse;
                noted(node, key, parse(text), mistakes)
            }

            fn expected(_key: &str) -> String {
                $expected.to_owned()
            }

            fn schema() -> Json {
                $schema
            }
        })+
    };
}

parsed! {
    SlotName, "a slot's name", pattern("[a-z0-9_]{1,63}"),
        |text| Self::try_from(text.to_owned()).map_err(|error| format!("{}, not \"{text}\"", error.reason));
    PublicationName, "a publication's name", pattern(".{1,63}"),
        |text| Self::try_from(text.to_owned()).map_err(|error| error.reason.to_owned());
    TableName, "a table with its schema, as \"public.outbox_events\"", pattern("[^.]+\\..+"),
        table_name;
    TopicTemplate, "a topic template, as \"{domain}.events\"", json!({ "type": "string", "minLength": 1 }),
        |text| Self::parse(text).map_err(|error| format!("is no topic template: {error}"));
    TableTopic, "a topic template, as \"{table}.events\"", json!({ "type": "string", "minLength": 1 }),
        |text| match TopicTemplate::parse_for_domain_table(text) {
            Ok(template) => Ok(Self(template)),
            Err(error) => Err(format!("is no topic template: {error}")),
        };
    TablePattern, "a table with its schema, or a pattern for several, as \"public.orders\" or \"public.*\"",
        pattern("[^.*]+\\..+"), table_pattern;
    Expression, "an expression in CEL, as \"new.total > 0\"", json!({ "type": "string", "minLength": 1 }),
        expression;
    Salt, "a secret text of at least 16 characters", pattern(".{16,}"), salt;
    TypeTemplate, "a topic template, as \"{domain}.events\"", json!({ "type": "string", "minLength": 1 }),
        |text| Self::parse(text).map_err(|error| format!("is no topic template: {error}"));
    TypeGlob, "a pattern for types, as \"order.*\"", json!({ "type": "string", "minLength": 1 }),
        |text| match Self::parse(text) {
            _ if text.is_empty() => Err("must not be empty".to_owned()),
            Ok(glob) => Ok(glob),
            Err(error) => Err(format!("is no pattern for types: it {error}")),
        };
    TopicName, "a topic's name", pattern("[a-zA-Z0-9._-]{1,249}"),
        |text| match check_topic_name(text) {
            Ok(()) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("{error}, not \"{text}\"")),
        };
    DeadLetterTopic, "a topic's name, in which {topic} is the event's", json!({ "type": "string", "minLength": 1 }),
        |text| match check_topic_name(&text.replace("{topic}", "t")) {
            _ if text.is_empty() => Err("must not be empty".to_owned()),
            _ if text == "{topic}" => Err("must not be the topic of the events themselves".to_owned()),
            Ok(()) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("{error}; {{topic}} is the only place to fill: \"{text}\"")),
        };
    AdminSocket, "an absolute path, or \"off\"", pattern("off|/.*"), admin_socket;
    LogFilter, "a level or directives, as \"info\"", json!({ "type": "string" }),
        |text| match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("must be a level or directives, as \"info\": {error}")),
        };
}

fn admin_socket(text: &str) -> Result<AdminSocket, String> {
    match text {
        "off" => Ok(AdminSocket(Socket::Off)),
        // The daemon and the commands may run in different folders.
        _ if !text.starts_with('/') => {
            Err(format!("must be an absolute path, or \"off\", not \"{text}\""))
        }
        _ if text.ends_with('/') => Err(format!("must be a file's path, not \"{text}\"")),
        _ if text.len() > SOCKET_PATH_BYTES_MAX => Err(format!(
            "must have {SOCKET_PATH_BYTES_MAX} bytes at most, which is what the system takes for a \
             unix socket: \"{text}\" has {}",
            text.len()
        )),
        _ if text.contains('\0') => Err("must not hold a zero byte".to_owned()),
        _ => Ok(AdminSocket(Socket::At(text.into()))),
    }
}

fn table_name(text: &str) -> Result<TableName, String> {
    refuse_quotes(text)?;
    TableName::try_from(text.to_owned())
        .map_err(|error| format!("{}, not \"{text}\"", error.reason))
}

fn table_pattern(text: &str) -> Result<TablePattern, String> {
    refuse_quotes(text)?;
    TablePattern::parse(text).map_err(|error| format!("{error}: \"{text}\""))
}

/// SQL's quotes are no part of a name, and a file has no use for them.
fn refuse_quotes(text: &str) -> Result<(), String> {
    if text.split('.').any(|part| part.starts_with('"') && part.ends_with('"')) {
        let plain = text.replace('"', "");
        return Err(format!("is written without SQL's quotes, as \"{plain}\""));
    }
    Ok(())
}

/// Each expression of a file passes here, with its key and its line around it.
fn expression(text: &str) -> Result<Expression, String> {
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    // Whether it fits the table is known with the table.
    rules::Expression::parse(text).map_err(|error| format!("is no CEL: {error}"))?;
    Ok(Expression(text.to_owned()))
}

/// What is wrong with it is said without it.
fn salt(text: &str) -> Result<Salt, String> {
    if text.chars().count() < SALT_CHARACTERS_MIN {
        return Err(format!(
            "must have {SALT_CHARACTERS_MIN} characters at least: who can try out all of a short \
             one finds the values behind it"
        ));
    }
    Ok(Salt::new(text))
}

/// A topic template for the events of a domain table.
#[derive(Clone, Debug)]
pub(super) struct TableTopic(pub(super) TopicTemplate);

/// CEL over a change, as it was written.
#[derive(Clone, Debug)]
pub(super) struct Expression(pub(super) String);

/// A topic's name without places to fill.
#[derive(Clone, Debug)]
pub(super) struct TopicName(pub(super) String);

/// `dead_letter_topic`.
#[derive(Clone, Debug)]
pub(super) struct DeadLetterTopic(pub(super) String);

/// What becomes of an event that cannot be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OnError {
    /// It stops the daemon.
    Halt,
    /// It becomes a dead letter.
    DeadLetter,
}

/// `admin.socket`.
#[derive(Clone, Debug)]
pub(super) struct AdminSocket(pub(super) Socket);

/// What is logged, in the words of `tracing_subscriber::EnvFilter`.
#[derive(Clone, Debug)]
pub(super) struct LogFilter(pub(super) String);

//! The kinds of values that settings have.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tracing_subscriber::EnvFilter;

use super::{
    document::{Node, Value},
    mistake::{Mistakes, Origin},
    section::{Read, required_keys},
};
use crate::{
    event::{
        TopicTemplate, TypeGlob, TypeTemplate, check_topic_name,
        outbox::{Layout, PayloadForm},
    },
    pipeline::LargeTransactions,
    postgres::{PublicationName, Secret, SlotName, TableName},
    sink::kafka::{Delivery, Partitioner},
    telemetry::LogFormat,
};

/// The longest time that a setting may say. More is a slip of the unit.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// The longest `kafka.transaction_interval`: readers wait for it, and a commit has to fit into the
/// rest of Kafka's time-out of a transaction, a minute unless said otherwise.
const TRANSACTION_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// The shortest `kafka.outage_grace`: at least once a checkpoint comes a second behind its events, and
/// a start waits for a predecessor's transaction to end.
const OUTAGE_GRACE_MIN: Duration = Duration::from_secs(5);

/// The largest size that a setting may say. More would not fit into a process that stays small.
const SIZE_BYTES_MAX: usize = 1 << 30;

/// A segment of the server's log, unless it was made with another size.
const WAL_SEGMENT_BYTES: u64 = 16 << 20;

/// The smallest `kafka.transaction_bytes`.
const TRANSACTION_BYTES_MIN: usize = 1 << 20;

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
fn text<'a>(node: &'a Node, key: &str, expected: &str, mistakes: &mut Mistakes) -> Option<&'a str> {
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
fn noted<T>(
    node: &Node,
    key: &str,
    parsed: Result<T, String>,
    mistakes: &mut Mistakes,
) -> Option<T> {
    parsed.map_err(|problem| mistakes.add(&node.origin, key, problem)).ok()
}

/// The schema of a text that has this form, or a variable in it, whose value nobody knows yet.
fn pattern(form: &str) -> Json {
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

/// `kafka.transaction_interval`, as `"50ms"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TransactionInterval(pub(super) Duration);

const INTERVAL_UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("m", 60_000)];

/// The units once more, as the schema has them.
const INTERVAL_FORM: &str = "[0-9]+ ?(ms|s|m)";

/// What is expected of a time.
const INTERVAL_EXPECTED: &str = "a time with its unit (ms, s, m), as \"50ms\"";

/// Reads a time, as `"50ms"`; also for the command line.
///
/// # Errors
/// What it must be instead.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let duration = number_with_unit(text, &INTERVAL_UNITS).map(Duration::from_millis);
    match duration {
        None => Err(format!("must be {INTERVAL_EXPECTED}, not \"{text}\"")),
        Some(Duration::ZERO) => Err("must be longer than 0".to_owned()),
        Some(duration) if duration > DURATION_MAX => Err("must be an hour at most".to_owned()),
        Some(duration) => Ok(duration),
    }
}

impl Read for TransactionInterval {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let text = text(node, key, INTERVAL_EXPECTED, mistakes)?;
        let parsed = parse_interval(text).and_then(|interval| {
            let is_short = interval <= TRANSACTION_INTERVAL_MAX;
            is_short.then_some(Self(interval)).ok_or_else(|| {
                format!(
                    "must be {} s at most, not \"{text}\": Kafka gives up transactions that are \
                     open for long",
                    TRANSACTION_INTERVAL_MAX.as_secs()
                )
            })
        });
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        INTERVAL_EXPECTED.to_owned()
    }

    fn schema() -> Json {
        pattern(INTERVAL_FORM)
    }
}

/// `kafka.outage_grace`, as `"60s"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OutageGrace(pub(super) Duration);

impl Read for OutageGrace {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let text = text(node, key, INTERVAL_EXPECTED, mistakes)?;
        let parsed = parse_interval(text).and_then(|grace| {
            (grace >= OUTAGE_GRACE_MIN).then_some(Self(grace)).ok_or_else(|| {
                format!("must be 5s at least, not \"{text}\": a delivery may take some of it")
            })
        });
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        INTERVAL_EXPECTED.to_owned()
    }

    fn schema() -> Json {
        pattern(INTERVAL_FORM)
    }
}

/// `outbox.retention`, as `"7d"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RetentionAge(pub(super) Duration);

const AGE_UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

/// A longer one is a slip of the pen.
const AGE_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

const AGE_EXPECTED: &str = "a time with its unit (s, m, h, d), as \"7d\"";

impl Read for RetentionAge {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let text = text(node, key, AGE_EXPECTED, mistakes)?;
        let parsed = match number_with_unit(text, &AGE_UNITS).map(Duration::from_secs) {
            None => Err(format!("must be {AGE_EXPECTED}, not \"{text}\"")),
            Some(Duration::ZERO) => Err("must be longer than 0".to_owned()),
            Some(age) if age > AGE_MAX => Err("must be a hundred years at most".to_owned()),
            Some(age) => Ok(Self(age)),
        };
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        AGE_EXPECTED.to_owned()
    }

    fn schema() -> Json {
        pattern("[0-9]+ ?(s|m|h|d)")
    }
}

/// `kafka.transaction_bytes`, as `"8MiB"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TransactionBytes(pub(super) usize);

const SIZE_UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// The units once more, as the schema has them.
const SIZE_FORM: &str = "[0-9]+ ?(B|KiB|MiB|GiB|kB|MB|GB)";

impl Read for TransactionBytes {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let expected = Self::expected(key);
        let text = text(node, key, &expected, mistakes)?;
        let parsed = number_with_unit(text, &SIZE_UNITS)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or_else(|| format!("must be {expected}, not \"{text}\""))
            .and_then(|bytes| match bytes {
                TRANSACTION_BYTES_MIN..=SIZE_BYTES_MAX => Ok(Self(bytes)),
                _ => Err(format!("must be from \"1MiB\" to \"1GiB\", not \"{text}\"")),
            });
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        "a size with its unit (KiB, MiB, kB, MB), as \"8MiB\"".to_owned()
    }

    fn schema() -> Json {
        pattern(SIZE_FORM)
    }
}

/// `postgres.retained_wal_max`, as `"10GiB"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WalSize(pub(super) u64);

impl Read for WalSize {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let expected = Self::expected(key);
        let text = text(node, key, &expected, mistakes)?;
        let parsed = match number_with_unit(text, &SIZE_UNITS) {
            None => Err(format!("must be {expected}, not \"{text}\"")),
            Some(bytes) if bytes < WAL_SEGMENT_BYTES => Err(format!(
                "must be 16MiB at least, not \"{text}\": the server keeps whole segments"
            )),
            Some(bytes) => Ok(Self(bytes)),
        };
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        "a size with its unit (MiB, GiB, MB, GB), as \"10GiB\"".to_owned()
    }

    fn schema() -> Json {
        pattern(SIZE_FORM)
    }
}

/// `"50ms"` in the smallest unit; nothing for another form or beyond 64 bits.
fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
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
    LogFilter, "a level or directives, as \"info\"", json!({ "type": "string" }),
        |text| match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("must be a level or directives, as \"info\": {error}")),
        };
}

/// SQL's quotes are no part of a name, and a file has no use for them.
fn table_name(text: &str) -> Result<TableName, String> {
    if text.split('.').any(|part| part.starts_with('"') && part.ends_with('"')) {
        let plain = text.replace('"', "");
        return Err(format!("is written without SQL's quotes, as \"{plain}\""));
    }
    TableName::try_from(text.to_owned())
        .map_err(|error| format!("{}, not \"{text}\"", error.reason))
}

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

/// What is logged, in the words of `tracing_subscriber::EnvFilter`.
#[derive(Clone, Debug)]
pub(super) struct LogFilter(pub(super) String);

/// A setting that is one of a few words.
macro_rules! words {
    ($($type:ty { $($word:literal => $variant:ident,)+ })+) => {
        $(impl Read for $type {
            fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
                let expected = Self::expected(key);
                let parsed = match text(node, key, &expected, mistakes)? {
                    $($word => Ok(Self::$variant),)+
                    other => Err(format!("must be {expected}, not \"{other}\"")),
                };
                noted(node, key, parsed, mistakes)
            }

            fn expected(_key: &str) -> String {
                format!("one of \"{}\"", [$($word),+].join("\", \""))
            }

            fn schema() -> Json {
                json!({ "anyOf": [
                    { "enum": [$($word),+] },
                    { "type": "string", "pattern": "\\$\\{" },
                ] })
            }
        })+
    };
}

words! {
    Layout { "tailwater" => Tailwater, "debezium" => Debezium, }
    PayloadForm { "data" => Data, "envelope" => Envelope, "bare" => Bare, }
    Partitioner {
        "murmur2" => Murmur2,
        "kafkajs-legacy" => KafkajsLegacy,
        "crc32" => Crc32,
        "fnv1a" => Fnv1a,
    }
    LargeTransactions { "split" => Split, "atomic" => Atomic, }
    OnError { "halt" => Halt, "dead-letter" => DeadLetter, }
    Delivery { "exactly-once" => ExactlyOnce, "at-least-once" => AtLeastOnce, }
    LogFormat { "text" => Text, "json" => Json, }
}
